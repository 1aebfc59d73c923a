//! What handlers take from a request: who asks, from where, and bodies within their limits.

use std::{
    future::{Future, Ready, ready},
    marker::PhantomData,
    net::IpAddr,
    pin::Pin,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web::Data};
use martlet_protocol::problem::Code;
use zeroize::Zeroizing;

use super::ApiError;
use crate::{
    accounts::DeviceIdentity,
    limits::{self, Limits, RetryAfterMs},
    services::Services,
};

/// The device that a valid token speaks for. Its request is counted as `C` says, before a body is looked at.
pub(super) struct Caller<C = Asks> {
    pub(super) identity: DeviceIdentity,
    /// As it was presented, for rotating and ending it.
    pub(super) token: Zeroizing<String>,
    counted: PhantomData<C>,
}

/// By which of a device's and its account's rates a request is counted.
pub(super) trait Counted {
    fn count(limits: &Limits, identity: &DeviceIdentity) -> Result<(), RetryAfterMs>;
}

/// One request that is no message, claim or look-up.
pub(super) struct Asks;

/// One look at somebody else.
pub(super) struct LooksUp;

/// One claim, however many accounts it names: those are counted with it.
pub(super) struct Claims;

/// One message, which is counted where messages are.
pub(super) struct Sends;

/// The handler counts it: only the path says what it is.
pub(super) struct ByPath;

impl Counted for Asks {
    fn count(limits: &Limits, identity: &DeviceIdentity) -> Result<(), RetryAfterMs> {
        limits.request(&identity.account_id, &identity.device_id)
    }
}

impl Counted for LooksUp {
    fn count(limits: &Limits, identity: &DeviceIdentity) -> Result<(), RetryAfterMs> {
        limits.lookup(&identity.account_id, &identity.device_id)
    }
}

impl Counted for Claims {
    fn count(limits: &Limits, identity: &DeviceIdentity) -> Result<(), RetryAfterMs> {
        limits.claim_request(&identity.account_id)
    }
}

impl Counted for Sends {
    fn count(_: &Limits, _: &DeviceIdentity) -> Result<(), RetryAfterMs> {
        Ok(())
    }
}

impl Counted for ByPath {
    fn count(_: &Limits, _: &DeviceIdentity) -> Result<(), RetryAfterMs> {
        Ok(())
    }
}

impl Caller<ByPath> {
    /// Counts it after all.
    pub(super) fn count<C: Counted>(&self, services: &Services) -> Result<(), ApiError> {
        C::count(&services.limits, &self.identity).map_err(ApiError::rate_limited)
    }
}

impl<C: Counted> FromRequest for Caller<C> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let services = services(request);
        let token = bearer(request).map(Zeroizing::new);
        Box::pin(async move {
            let missing = || ApiError::new(Code::Unauthenticated, "Authorization: Bearer … is missing");
            let (token, services) = (token.ok_or_else(missing)?, services?);
            let identity = services.accounts.authenticate(&token).await?;
            C::count(&services.limits, &identity).map_err(ApiError::rate_limited)?;
            Ok(Self { identity, token, counted: PhantomData })
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
