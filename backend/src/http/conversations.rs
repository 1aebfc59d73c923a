//! Conversations and their membership.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path, Query},
};
use martlet_protocol::{
    id::ConversationId,
    rest::{
        ChangeMembership, Conversation, ConversationMember, CreateConversation, HistoryQuery, LogPage, MembershipLinks,
        MembershipQuery, Page, PageQuery, Problem, SetTitle,
    },
};

use super::{ApiError, extract::Caller};
use crate::services::Services;

/// Creates a conversation
///
/// By link 1 of its membership chain, signed by the asking device. Repeating the request gives the same conversation; a second direct
/// conversation of the same two is refused with the first one's id.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations", request_body = CreateConversation,
    security(("device_token" = [])), responses(
    (status = 201, body = Conversation),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "membership_invalid, signature_invalid, conversation_exists (with `conversation_id`), too_many_members, \
                    text_invalid, malformed, unauthenticated, rate_limited")))]
pub(super) async fn create(
    services: Data<Services>,
    caller: Caller,
    request: Json<CreateConversation>,
) -> Result<HttpResponse, ApiError> {
    let conversation = services.conversations.create(&caller.identity, request.into_inner()).await?;
    Ok(HttpResponse::Created().json(conversation))
}

/// Lists the asker's conversations, oldest first
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations", params(PageQuery),
    security(("device_token" = [])), responses(
    (status = 200, body = Page<Conversation>),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "malformed, unauthenticated, rate_limited")))]
pub(super) async fn list(
    services: Data<Services>,
    caller: Caller,
    query: Query<PageQuery>,
) -> Result<Json<Page<Conversation>>, ApiError> {
    Ok(Json(services.conversations.page(&caller.identity, &query).await?))
}

/// Shows one of the asker's conversations
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), security(("device_token" = [])), responses(
    (status = 200, body = Conversation),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited")))]
pub(super) async fn get(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
) -> Result<Json<Conversation>, ApiError> {
    Ok(Json(services.conversations.get(&caller.identity, *conversation_id).await?))
}

/// Reads a conversation's membership chain
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/membership", tag = "conversations",
    params(("conversation_id" = ConversationId, Path), MembershipQuery), security(("device_token" = [])), responses(
    (status = 200, body = MembershipLinks),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited")))]
pub(super) async fn links(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
    query: Query<MembershipQuery>,
) -> Result<Json<MembershipLinks>, ApiError> {
    Ok(Json(services.conversations.links_after(&caller.identity, *conversation_id, query.after).await?))
}

/// Adds, removes, leaves, or gives a role
///
/// By the next link of the membership chain, signed by the asking device. Repeating it changes nothing.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}/membership", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), request_body = ChangeMembership,
    security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, forbidden, membership_invalid, membership_conflict (with `membership`), signature_invalid, \
                    last_owner, too_many_members, malformed, unauthenticated, rate_limited")))]
pub(super) async fn change_membership(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
    request: Json<ChangeMembership>,
) -> Result<HttpResponse, ApiError> {
    let link = request.into_inner().link;
    services.conversations.change_membership(&caller.identity, *conversation_id, link).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists a conversation's members
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/members", tag = "conversations",
    params(("conversation_id" = ConversationId, Path), PageQuery), security(("device_token" = [])), responses(
    (status = 200, body = Page<ConversationMember>),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited")))]
pub(super) async fn members(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
    query: Query<PageQuery>,
) -> Result<Json<Page<ConversationMember>>, ApiError> {
    Ok(Json(services.conversations.members_page(&caller.identity, *conversation_id, &query).await?))
}

/// Reads a large conversation's log
///
/// Forwards after a `seq`, backwards before one, or the newest. Every `seq` of the page is in exactly one item.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/log", tag = "conversations",
    params(("conversation_id" = ConversationId, Path), HistoryQuery), security(("device_token" = [])), responses(
    (status = 200, body = LogPage),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, malformed, unauthenticated, rate_limited, busy")))]
pub(super) async fn log(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
    query: Query<HistoryQuery>,
) -> Result<Json<LogPage>, ApiError> {
    Ok(Json(services.conversations.log_page(&caller.identity, *conversation_id, *query).await?))
}

/// Sets the title, which the node can't read
#[utoipa::path(put, path = "/v1/conversations/{conversation_id}/title", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), request_body = SetTitle,
    security(("device_token" = [])), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, forbidden, text_invalid, malformed, unauthenticated, rate_limited")))]
pub(super) async fn set_title(
    services: Data<Services>,
    caller: Caller,
    conversation_id: Path<ConversationId>,
    request: Json<SetTitle>,
) -> Result<HttpResponse, ApiError> {
    services.conversations.set_title(&caller.identity, *conversation_id, request.into_inner().title).await?;
    Ok(HttpResponse::NoContent().finish())
}
