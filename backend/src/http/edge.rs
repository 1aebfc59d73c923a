//! What happens around every request: an id, one line in the log, problem details that carry the id, headers that keep answers out of
//! caches, and the rest of a body that nobody read.
//!
//! The log line has the route's pattern, never its ids, and no address.

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use martlet_protocol::{id::to_base64, problem::Code};
use rand::Rng as _;

use super::{ApiError, extract, max_message_body_bytes, unread::Unread};
use crate::services::Services;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES: usize = 9;

/// Drawn anew for every request: one that a client brings would let it write into the log.
#[derive(Clone)]
struct RequestId(String);

impl RequestId {
    fn draw() -> Self {
        let mut bytes = [0; REQUEST_ID_BYTES];
        crate::clock::rng().fill_bytes(&mut bytes);
        Self(to_base64(&bytes))
    }
}

/// Wraps every route.
pub(super) async fn edge<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = RequestId::draw();
    let services = request.app_data::<Data<Services>>().cloned();
    let clock = services.as_ref().map(|services| services.clock.clone());
    let unread = services.map(|services| Unread::of(&mut request, max_message_body_bytes(&services.config)));
    let began = clock.as_ref().map(crate::clock::Clock::elapsed);
    request.extensions_mut().insert(id.clone());
    let outcome = match within_rate(&request) {
        Ok(()) => next.call(request).await.map(|response| finish(response, &id)),
        Err(error) => Ok(request.into_response(error.response(&id.0))),
    };
    if let Some(unread) = unread {
        unread.discard().await;
    }
    let response = match outcome {
        Ok(response) => response,
        Err(error) => {
            // The request went with the call (the router needs it unshared), so there is nothing to log an access of.
            let error = api_error(&error);
            log_cause(&error, &id);
            return Err(error.into());
        }
    };
    let response = with_headers(response, &id);
    let took = clock.zip(began).map(|(clock, began)| clock.elapsed().saturating_sub(began));
    log_access(response.request(), response.response(), &id, took.unwrap_or_default());
    Ok(response)
}

/// Counts every request by its address, before anything is done for it; but not those that ask whether the node is well, which cost no
/// more than a refusal.
fn within_rate(request: &ServiceRequest) -> Result<(), ApiError> {
    let Some(services) = request.app_data::<Data<Services>>() else { return Ok(()) };
    if matches!(request.path(), "/health" | "/ready") {
        return Ok(());
    }
    services.limits.request_from(extract::peer(request.request(), services)).map_err(ApiError::rate_limited)
}

/// Answers of handlers pass as they are, refusals are written again with the request's id.
fn finish<B: MessageBody + 'static>(response: ServiceResponse<B>, id: &RequestId) -> ServiceResponse<BoxBody> {
    let refused = match response.response().error() {
        Some(error) => match error.as_error::<ApiError>() {
            Some(error) => {
                log_cause(error, id);
                error.response(&id.0)
            }
            None => api_error(error).response(&id.0),
        },
        None if is_bare_refusal(response.response()) => from_status(response.status()).response(&id.0),
        None => return response.map_into_boxed_body(),
    };
    response.into_response(refused)
}

/// A refusal by the framework or by the pages of the description: a status and nothing else.
fn is_bare_refusal<B>(response: &HttpResponse<B>) -> bool {
    let refused = response.status().is_client_error() || response.status().is_server_error();
    refused && !response.headers().contains_key(header::CONTENT_TYPE)
}

/// An error of the framework itself. None of our own routes make one.
fn api_error(error: &Error) -> ApiError {
    let status = error.as_response_error().status_code();
    if status.is_client_error() { from_status(status) } else { ApiError::internal(error) }
}

/// The code nearest to a status.
fn from_status(status: StatusCode) -> ApiError {
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        status if status.is_client_error() => Code::Malformed,
        _ => Code::Internal,
    };
    ApiError::new(code, "")
}

fn with_headers(mut response: ServiceResponse<BoxBody>, id: &RequestId) -> ServiceResponse<BoxBody> {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn log_cause(error: &ApiError, id: &RequestId) {
    if let Some(cause) = error.cause() {
        tracing::error!(request_id = id.0, cause, "request failed");
    }
}

fn log_access(request: &HttpRequest, response: &HttpResponse, id: &RequestId, took: std::time::Duration) {
    tracing::info!(
        request_id = id.0,
        method = request.method().as_str(),
        route = request.match_pattern().as_deref().unwrap_or("none"),
        status = response.status().as_u16(),
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "request"
    );
}
