//! REST under `/v1`: every route in one table ([`configure`]), one file of handlers per subject.
//!
//! A handler extracts, calls one function of a service and maps the result; it decides nothing. [`edge`] wraps all of them, [`ApiError`]
//! is the only error, [`openapi`] is made from the handlers. `/v1/socket` is here for those who ask without an upgrade: sockets
//! leave HTTP before it gets here and live in `transport`.

mod accounts;
mod conversations;
mod devices;
mod edge;
mod error;
mod extract;
mod links;
mod mailbox;
mod messages;
mod openapi;
pub mod operator;
mod prekeys;
mod sessions;
mod unread;

use std::sync::Arc;

use actix_web::{
    HttpResponse, Resource,
    middleware::from_fn,
    web::{self, Data, JsonConfig, PathConfig, QueryConfig, ServiceConfig},
};
use martlet_protocol::problem::Code;
use utoipa_swagger_ui::SwaggerUi;

pub use error::ApiError;
pub use openapi::openapi;

use crate::{config::Config, services::Services};

/// Bodies without a limit of their own.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A prekey in JSON, generously.
const PREKEY_JSON_BYTES: usize = 1024;
/// A link's answer carries the account's chain.
const MAX_LINK_BODY_BYTES: usize = 1024 * 1024;

/// The route table of the public listener.
pub fn configure(services: &Arc<Services>) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let data = Data::from(services.clone());
    let prekeys = json(MAX_BODY_BYTES + services.config.prekeys.max_one_time * PREKEY_JSON_BYTES);
    let messages = json(max_message_body_bytes(&services.config));
    move |cfg| {
        let v1 = web::scope("/v1")
            .service(at("/accounts").post(accounts::register).app_data(prekeys.clone()))
            .service(at("/accounts/by-name/{username}").get(accounts::by_name))
            .service(at("/accounts/{account_id}/lists").get(accounts::lists))
            .service(at("/sessions").post(sessions::sign_in))
            .service(at("/sessions/current").delete(sessions::sign_out))
            .service(at("/tokens/rotate").post(sessions::rotate_token))
            .service(at("/socket-tickets").post(sessions::issue_ticket))
            .service(at("/devices").get(devices::list))
            .service(at("/devices/revoke").post(devices::revoke))
            .service(at("/devices/self/prekeys").get(prekeys::stock).post(prekeys::upload).app_data(prekeys.clone()))
            .service(at("/devices/{device_id}").patch(devices::rename))
            .service(at("/bundles").post(prekeys::claim).app_data(json(MAX_LINK_BODY_BYTES)))
            .service(at("/links").post(links::start))
            .service(at("/links/{link_id}").get(links::offer))
            .service(at("/links/{link_id}/answer").put(links::answer).app_data(json(MAX_LINK_BODY_BYTES)))
            .service(at("/links/{link_id}/poll").post(links::poll))
            .service(at("/links/{link_id}/complete").post(links::complete).app_data(prekeys))
            .service(
                at("/conversations")
                    .get(conversations::list)
                    .post(conversations::create)
                    .app_data(json(MAX_LINK_BODY_BYTES)),
            )
            .service(at("/conversations/{conversation_id}").get(conversations::get))
            .service(
                at("/conversations/{conversation_id}/membership")
                    .get(conversations::links)
                    .post(conversations::change_membership)
                    .app_data(json(MAX_LINK_BODY_BYTES)),
            )
            .service(at("/conversations/{conversation_id}/members").get(conversations::members))
            .service(at("/conversations/{conversation_id}/log").get(conversations::log))
            .service(at("/conversations/{conversation_id}/title").put(conversations::set_title))
            .service(at("/conversations/{conversation_id}/messages").post(messages::send).app_data(messages))
            .service(at("/mailbox").get(mailbox::page))
            .service(at("/socket").get(openapi::socket_without_upgrade))
            .default_service(web::to(not_found));
        let all = web::scope("")
            .wrap(from_fn(edge::edge))
            .app_data(data)
            .app_data(json(MAX_BODY_BYTES))
            .app_data(PathConfig::default().error_handler(|error, _| ApiError::from(error).into()))
            .app_data(QueryConfig::default().error_handler(|error, _| ApiError::from(error).into()))
            .service(v1)
            .service(at("/health").get(openapi::health))
            .service(at("/ready").get(openapi::ready))
            .service(at("/docs").get(|| async { web::Redirect::to("/docs/").see_other() }))
            .service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", openapi()))
            .default_service(web::to(not_found));
        cfg.service(all);
    }
}

/// A path whose other methods are refused with our own error.
fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(method_not_allowed))
}

/// JSON only, up to so many bytes, refused with our own error.
fn json(max_bytes: usize) -> JsonConfig {
    JsonConfig::default().limit(max_bytes).error_handler(|error, _| ApiError::from(error).into())
}

/// The largest message that the config allows, in JSON: base64 adds a third, names and quotes come on top.
fn max_message_body_bytes(config: &Config) -> usize {
    const PER_FORK: usize = 128;
    let messages = &config.messages;
    let header = messages.max_header_bytes.div_ceil(3) * 4 + PER_FORK;
    let lists = config.conversations.max_members_group * PER_FORK;
    MAX_BODY_BYTES + messages.max_content_bytes.div_ceil(3) * 4 + messages.max_forks_per_send * header + lists
}

async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(Code::NotFound, "no such address"))
}

async fn method_not_allowed() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(Code::MethodNotAllowed, ""))
}
