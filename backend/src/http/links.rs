//! Linking a further device.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path},
};
use martlet_protocol::{
    id::LinkId,
    rest::{
        DeviceSession, LinkAnswered, LinkComplete, LinkOffered, LinkPoll, LinkPolled, LinkStart, LinkStarted, Problem,
    },
};

use super::{
    ApiError,
    extract::{Caller, LooksUp, Peer},
};
use crate::services::Services;

/// Offers a new device to be linked
///
/// By the new device, which has no account yet. The link lives a few minutes and serves once.
#[utoipa::path(post, path = "/v1/links", tag = "links", request_body = LinkStart, responses(
    (status = 201, body = LinkStarted),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "malformed, too_large, rate_limited")))]
pub(super) async fn start(
    services: Data<Services>,
    peer: Peer,
    request: Json<LinkStart>,
) -> Result<HttpResponse, ApiError> {
    services.limits.register(peer.0).map_err(ApiError::rate_limited)?;
    let started = services.accounts.start_link(request.into_inner()).await?;
    Ok(HttpResponse::Created().json(started))
}

/// Reads the offer
///
/// By the existing device, which compares it with the hash in the code that people carried across.
#[utoipa::path(get, path = "/v1/links/{link_id}", tag = "links", params(("link_id" = LinkId, Path)),
    security(("device_token" = [])), responses(
    (status = 200, body = LinkOffered),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited")))]
pub(super) async fn offer(
    services: Data<Services>,
    caller: Caller<LooksUp>,
    link_id: Path<LinkId>,
) -> Result<Json<LinkOffered>, ApiError> {
    Ok(Json(services.accounts.link_offer(&caller.identity, *link_id).await?))
}

/// Answers the offer
///
/// By the existing device, sealed to the new one. Repeating the answer changes nothing, another one is refused.
#[utoipa::path(put, path = "/v1/links/{link_id}/answer", tag = "links", params(("link_id" = LinkId, Path)),
    request_body = LinkAnswered, security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, link_invalid, too_large, malformed, unauthenticated, rate_limited")))]
pub(super) async fn answer(
    services: Data<Services>,
    caller: Caller,
    link_id: Path<LinkId>,
    request: Json<LinkAnswered>,
) -> Result<HttpResponse, ApiError> {
    services.accounts.answer_link(&caller.identity, *link_id, request.into_inner().answer).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Asks for the answer
///
/// By the new device, with the secret that it got with the link.
#[utoipa::path(post, path = "/v1/links/{link_id}/poll", tag = "links", params(("link_id" = LinkId, Path)),
    request_body = LinkPoll, responses(
    (status = 200, body = LinkPolled),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, rate_limited")))]
pub(super) async fn poll(
    services: Data<Services>,
    peer: Peer,
    link_id: Path<LinkId>,
    request: Json<LinkPoll>,
) -> Result<Json<LinkPolled>, ApiError> {
    services.limits.poll_link(peer.0).map_err(ApiError::rate_limited)?;
    Ok(Json(services.accounts.poll_link(*link_id, &request.poll_secret).await?))
}

/// Joins the account
///
/// By the new device, with the list that both devices signed and its first prekeys.
#[utoipa::path(post, path = "/v1/links/{link_id}/complete", tag = "links", params(("link_id" = LinkId, Path)),
    request_body = LinkComplete, responses(
    (status = 201, body = DeviceSession),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, link_invalid, device_list_invalid, device_list_conflict (with `lists`), signature_invalid, \
                    too_many_devices, id_taken, prekey_invalid, prekey_id_reused, text_invalid, malformed, rate_limited")))]
pub(super) async fn complete(
    services: Data<Services>,
    peer: Peer,
    link_id: Path<LinkId>,
    request: Json<LinkComplete>,
) -> Result<HttpResponse, ApiError> {
    services.limits.poll_link(peer.0).map_err(ApiError::rate_limited)?;
    let session = services.accounts.complete_link(*link_id, request.into_inner()).await?;
    Ok(HttpResponse::Created().json(session))
}
