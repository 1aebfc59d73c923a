//! Registering, and looking at accounts.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path, Query},
};
use martlet_protocol::{
    id::AccountId,
    rest::{AccountLists, AccountRef, DeviceSession, ListsQuery, Problem, RegisterRequest},
};

use super::{
    ApiError,
    extract::{Asks, ByPath, Caller, LooksUp, Peer},
};
use crate::services::Services;

/// Registers an account with its first device
///
/// List 1, its signature and the signature of every prekey are checked before anything is stored.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = RegisterRequest, responses(
    (status = 201, body = DeviceSession),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "username_invalid, username_taken, password_invalid, text_invalid, id_taken, device_list_invalid, \
                    signature_invalid, prekey_invalid, prekey_id_reused, too_many_prekeys, forbidden, rate_limited, busy")))]
pub(super) async fn register(
    services: Data<Services>,
    peer: Peer,
    request: Json<RegisterRequest>,
) -> Result<HttpResponse, ApiError> {
    services.limits.register(peer.0).map_err(ApiError::rate_limited)?;
    let session = services.accounts.register(request.into_inner()).await?;
    Ok(HttpResponse::Created().json(session))
}

/// Finds the account of a username
///
/// The client checks the fingerprint against the chain of device lists.
#[utoipa::path(get, path = "/v1/accounts/by-name/{username}", tag = "accounts", params(("username" = String, Path)),
    security(("device_token" = [])), responses(
    (status = 200, body = AccountRef),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, unauthenticated, rate_limited")))]
pub(super) async fn by_name(
    services: Data<Services>,
    _caller: Caller<LooksUp>,
    username: Path<String>,
) -> Result<Json<AccountRef>, ApiError> {
    Ok(Json(services.accounts.by_name(&username).await?))
}

/// Reads an account's chain of device lists
#[utoipa::path(get, path = "/v1/accounts/{account_id}/lists", tag = "accounts",
    params(("account_id" = AccountId, Path), ListsQuery), security(("device_token" = [])), responses(
    (status = 200, body = AccountLists),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited")))]
pub(super) async fn lists(
    services: Data<Services>,
    caller: Caller<ByPath>,
    account_id: Path<AccountId>,
    query: Query<ListsQuery>,
) -> Result<Json<AccountLists>, ApiError> {
    if *account_id == caller.identity.account_id {
        caller.count::<Asks>(&services)?
    } else {
        caller.count::<LooksUp>(&services)?
    }
    Ok(Json(services.accounts.lists_after(*account_id, query.after).await?))
}
