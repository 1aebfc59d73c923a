//! Prekeys: bringing one's own, claiming others'.

use actix_web::web::{Data, Json};
use martlet_protocol::rest::{ClaimAnswer, ClaimRequest, PrekeyState, PrekeyUpload, Problem};

use super::{
    ApiError,
    extract::{Caller, Claims},
};
use crate::services::Services;

/// Tells what the device has left
#[utoipa::path(get, path = "/v1/devices/self/prekeys", tag = "prekeys", security(("device_token" = [])), responses(
    (status = 200, body = PrekeyState),
    (status = "default", body = Problem, content_type = "application/problem+json", description = "unauthenticated, rate_limited")))]
pub(super) async fn stock(services: Data<Services>, caller: Caller) -> Result<Json<PrekeyState>, ApiError> {
    Ok(Json(services.accounts.prekey_stock(&caller.identity).await?))
}

/// Brings prekeys
///
/// A new signed prekey replaces the current one. Repeating an upload changes nothing; an id that was used for another key is refused,
/// and with it the whole upload.
#[utoipa::path(post, path = "/v1/devices/self/prekeys", tag = "prekeys", request_body = PrekeyUpload,
    security(("device_token" = [])), responses(
    (status = 200, body = PrekeyState),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "signature_invalid, prekey_invalid, prekey_id_reused, too_many_prekeys, malformed, unauthenticated, \
                    rate_limited")))]
pub(super) async fn upload(
    services: Data<Services>,
    caller: Caller,
    upload: Json<PrekeyUpload>,
) -> Result<Json<PrekeyState>, ApiError> {
    Ok(Json(services.accounts.upload_prekeys(&caller.identity, upload.into_inner()).await?))
}

/// Claims bundles to fork with
///
/// Each device gives the claimer at most one one-time prekey a day; otherwise, and when its pool is drained, the bundle has the signed
/// prekey alone. The lists after those the claimer knows come with them.
#[utoipa::path(post, path = "/v1/bundles", tag = "prekeys", request_body = ClaimRequest,
    security(("device_token" = [])), responses(
    (status = 200, body = ClaimAnswer),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, too_large, malformed, unauthenticated, rate_limited")))]
pub(super) async fn claim(
    services: Data<Services>,
    caller: Caller<Claims>,
    request: Json<ClaimRequest>,
) -> Result<Json<ClaimAnswer>, ApiError> {
    Ok(Json(services.accounts.claim_bundles(&caller.identity, &request.accounts).await?))
}
