//! Sending over REST: the same function that the socket calls.

use actix_web::web::{Data, Json, Path};
use martlet_protocol::{
    id::ConversationId,
    rest::{Accepted, Problem, SendRequest},
};

use super::{
    ApiError,
    extract::{Caller, Sends},
};
use crate::services::Services;

/// Sends a message
///
/// Answered after content, all forks and the idempotency row are committed. A retry with the same `client_message_id` and bytes gets
/// the first answer. With `mismatch` nothing was stored, and the answer has what is needed to encrypt again.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}/messages", tag = "messages",
    params(("conversation_id" = ConversationId, Path)), request_body = SendRequest,
    security(("device_token" = [])), responses(
    (status = 200, body = Accepted),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "not_found, mismatch (with `mismatch`), message_id_reused, epoch_conflict (with `group_epoch`), suite_unknown, lifetime_invalid, too_large, \
                    malformed, unauthenticated, rate_limited, busy, unavailable")))]
pub(super) async fn send(
    services: Data<Services>,
    caller: Caller<Sends>,
    conversation_id: Path<ConversationId>,
    request: Json<SendRequest>,
) -> Result<Json<Accepted>, ApiError> {
    let request = request.into_inner().into_wire(*conversation_id);
    let accepted = services.messages.send(caller.identity, request).await?;
    Accepted::try_from(&accepted).map(Json).map_err(ApiError::internal)
}
