//! Signing in and out, tokens, socket tickets.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use martlet_protocol::rest::{DeviceSession, Problem, SignInRequest, SocketTicket};

use super::{
    ApiError,
    extract::{Caller, Peer},
};
use crate::services::Services;

/// Signs a listed device in again
///
/// Needs the account's password and the device's own signature. Its earlier tokens end. Unknown usernames, wrong passwords, unknown
/// devices and wrong proofs get the same answer after the same time.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = SignInRequest, responses(
    (status = 201, body = DeviceSession),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "wrong_credentials, rate_limited, busy")))]
pub(super) async fn sign_in(
    services: Data<Services>,
    peer: Peer,
    request: Json<SignInRequest>,
) -> Result<HttpResponse, ApiError> {
    services.limits.sign_in(peer.0, &request.username).map_err(ApiError::rate_limited)?;
    let session = services.accounts.sign_in(request.into_inner()).await?;
    Ok(HttpResponse::Created().json(session))
}

/// Ends the presented token
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "sessions", security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json", description = "unauthenticated, rate_limited")))]
pub(super) async fn sign_out(services: Data<Services>, caller: Caller) -> Result<HttpResponse, ApiError> {
    services.accounts.sign_out(&caller.identity, &caller.token).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Replaces the presented token
///
/// The old one serves until the new one is first used, and at most five minutes.
#[utoipa::path(post, path = "/v1/tokens/rotate", tag = "sessions", security(("device_token" = [])), responses(
    (status = 200, body = DeviceSession),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "unauthenticated, rate_limited")))]
pub(super) async fn rotate_token(services: Data<Services>, caller: Caller) -> Result<Json<DeviceSession>, ApiError> {
    Ok(Json(services.accounts.rotate_token(&caller.identity, &caller.token).await?))
}

/// Issues a ticket for `/v1/socket?ticket=…`
///
/// For browsers, which can't set headers on a socket. It serves once, for a short time.
#[utoipa::path(post, path = "/v1/socket-tickets", tag = "sessions", security(("device_token" = [])), responses(
    (status = 201, body = SocketTicket),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "unauthenticated, rate_limited")))]
pub(super) async fn issue_ticket(services: Data<Services>, caller: Caller) -> Result<HttpResponse, ApiError> {
    let ticket = services.accounts.issue_ticket(&caller.identity).await?;
    Ok(HttpResponse::Created().json(ticket))
}
