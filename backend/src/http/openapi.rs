//! The description of REST, made from the handlers, and the few routes that belong to no subject.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use martlet_protocol::{problem::Code, rest::Problem};
use serde::Serialize;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{ApiError, accounts, conversations, devices, links, mailbox, messages, prekeys, sessions};
use crate::services::Services;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Martlet",
        description = "End-to-end-encrypted messaging: accounts, devices, conversations, messages. Bytes are base64url. Errors are \
                       RFC 9457 problem details with a stable `code`.",
    ),
    modifiers(&DeviceToken),
    paths(
        accounts::register, accounts::by_name, accounts::lists,
        sessions::sign_in, sessions::sign_out, sessions::rotate_token, sessions::issue_ticket,
        devices::list, devices::rename, devices::revoke,
        prekeys::stock, prekeys::upload, prekeys::claim,
        links::start, links::offer, links::answer, links::poll, links::complete,
        conversations::create, conversations::list, conversations::get, conversations::links,
        conversations::change_membership, conversations::set_title, conversations::members, conversations::log,
        messages::send, mailbox::page,
        socket_without_upgrade, health, ready,
    ),
    components(schemas(Problem)),
)]
struct Api;

struct DeviceToken;

impl Modify for DeviceToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A device's token (mt_…).")).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("device_token", SecurityScheme::Http(scheme));
    }
}

/// The description served at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// Opens the device's socket
///
/// A WebSocket of sub-protocol `martlet.v1.proto` or `martlet.v1.json`, with `Authorization: Bearer …` or `?ticket=…`. Its frames are
/// described in docs/PROTOCOL.md.
#[utoipa::path(get, path = "/v1/socket", tag = "socket", params(("ticket" = Option<String>, Query)),
    security(("device_token" = []), ()), responses(
    (status = 101),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "malformed, unauthenticated, ticket_invalid, rate_limited, busy")))]
pub(super) async fn socket_without_upgrade() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(Code::Malformed, "this address takes WebSocket upgrades only"))
}

/// The node's state in one word.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthAnswer {
    /// `ok`, `degraded` or `draining`.
    status: &'static str,
}

/// Tells whether new clients may be sent to this node
#[utoipa::path(get, path = "/ready", tag = "health", responses((status = 204), (status = 503)))]
pub(super) async fn ready(services: Data<Services>) -> HttpResponse {
    if services.health.is_ready() {
        HttpResponse::NoContent().finish()
    } else {
        HttpResponse::ServiceUnavailable().finish()
    }
}

/// Tells whether the node serves
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = HealthAnswer), (status = 503, body = HealthAnswer)))]
pub(super) async fn health(services: Data<Services>) -> (Json<HealthAnswer>, actix_web::http::StatusCode) {
    let status = services.health.status();
    let http = actix_web::http::StatusCode::from_u16(status.http()).unwrap_or_default();
    (Json(HealthAnswer { status: status.as_str() }), http)
}
