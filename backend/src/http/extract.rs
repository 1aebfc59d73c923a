//! What handlers take from a request: who asks, from where, and bodies within their limits.

use std::{
    future::{Future, Ready, ready},
    net::IpAddr,
    pin::Pin,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web::Data};
use martlet_protocol::problem::Code;
use zeroize::Zeroizing;

use super::ApiError;
use crate::{accounts::DeviceIdentity, limits, services::Services};

/// The device that a valid token speaks for.
pub(super) struct Caller {
    pub(super) identity: DeviceIdentity,
    /// As it was presented, for rotating and ending it.
    pub(super) token: Zeroizing<String>,
}

impl Caller {
    /// Counts one request that is no message, claim or look-up.
    pub(super) fn asks(&self, services: &Services) -> Result<(), ApiError> {
        services.limits.request(&self.identity.account_id, &self.identity.device_id).map_err(ApiError::rate_limited)
    }

    /// Counts one look at somebody else.
    pub(super) fn looks_up(&self, services: &Services) -> Result<(), ApiError> {
        services.limits.lookup(&self.identity.device_id).map_err(ApiError::rate_limited)
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let services = services(request);
        let token = bearer(request).map(Zeroizing::new);
        Box::pin(async move {
            let missing = || ApiError::new(Code::Unauthenticated, "Authorization: Bearer … is missing");
            let token = token.ok_or_else(missing)?;
            let identity = services?.accounts.authenticate(&token).await?;
            Ok(Self { identity, token })
        })
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// The address that rates are counted by.
pub(super) struct Peer(pub(super) IpAddr);

impl FromRequest for Peer {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(services(request).map(|services| Self(peer(request, &services))))
    }
}

/// The address that a request comes from.
pub(super) fn peer(request: &HttpRequest, services: &Services) -> IpAddr {
    let believed = services.config.limits.trust_forwarded_for;
    let forwarded = believed.then(|| request.headers().get_all("x-forwarded-for").next_back()).flatten();
    limits::address(request.peer_addr().map(|address| address.ip()), forwarded.and_then(|line| line.to_str().ok()))
}

fn services(request: &HttpRequest) -> Result<Data<Services>, ApiError> {
    request.app_data::<Data<Services>>().cloned().ok_or_else(|| ApiError::internal("routes without services"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_scheme_is_read_in_any_case() {
        let token =
            |value: &str| bearer(&TestRequest::default().insert_header(("authorization", value)).to_http_request());
        assert_eq!(token("Bearer mt_x").as_deref(), Some("mt_x"));
        assert_eq!(token("bearer mt_x").as_deref(), Some("mt_x"));
        assert_eq!(token("Basic mt_x"), None);
        assert_eq!(token("mt_x"), None);
    }
}
