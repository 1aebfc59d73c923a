//! The account's own devices.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path},
};
use martlet_protocol::{
    id::DeviceId,
    rest::{OwnDevices, Problem, RenameRequest, RevokeRequest},
};

use super::{ApiError, extract::Caller};
use crate::services::Services;

/// Lists the account's own devices
#[utoipa::path(get, path = "/v1/devices", tag = "devices", security(("device_token" = [])), responses(
    (status = 200, body = OwnDevices),
    (status = "default", body = Problem, content_type = "application/problem+json", description = "unauthenticated, rate_limited")))]
pub(super) async fn list(services: Data<Services>, caller: Caller) -> Result<Json<OwnDevices>, ApiError> {
    Ok(Json(services.accounts.own_devices(&caller.identity).await?))
}

/// Renames one of the account's own devices
#[utoipa::path(patch, path = "/v1/devices/{device_id}", tag = "devices", params(("device_id" = DeviceId, Path)),
    request_body = RenameRequest, security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, text_invalid, malformed, unauthenticated, rate_limited")))]
pub(super) async fn rename(
    services: Data<Services>,
    caller: Caller,
    device_id: Path<DeviceId>,
    request: Json<RenameRequest>,
) -> Result<HttpResponse, ApiError> {
    services.accounts.rename_device(&caller.identity, *device_id, request.into_inner().name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Revokes devices by a list without them
///
/// Their sockets close, their tokens and tickets end, their mailboxes and prekeys are deleted. The list must extend the head and be
/// signed by a device of it. Repeating the request changes nothing.
#[utoipa::path(post, path = "/v1/devices/revoke", tag = "devices", request_body = RevokeRequest,
    security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "device_list_invalid, device_list_conflict (with `lists`), signature_invalid, malformed, \
                    unauthenticated, rate_limited")))]
pub(super) async fn revoke(
    services: Data<Services>,
    caller: Caller,
    request: Json<RevokeRequest>,
) -> Result<HttpResponse, ApiError> {
    services.accounts.revoke_devices(&caller.identity, request.into_inner().device_list).await?;
    Ok(HttpResponse::NoContent().finish())
}
