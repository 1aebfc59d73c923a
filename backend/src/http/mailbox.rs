//! A device's own mailbox over REST: the same entries that its socket would push. Reading acknowledges nothing.

use actix_web::web::{Data, Json, Query};
use martlet_protocol::{
    id::{Blob, InvalidText},
    problem::Code,
    rest::{HistoryQuery, MailboxEntry, MailboxGap, MailboxGapReason, MailboxItem, MailboxPage, Problem},
    wire::GapReason,
};
use martlet_storage::StorageError;

use super::{ApiError, extract::Caller};
use crate::{
    services::Services,
    streams::{LiveItem, PageWanted},
};

/// Reads the device's own mailbox
///
/// Forwards after a `seq`, backwards before one, or the newest. Every `seq` of the page is in exactly one item; what was acknowledged or
/// has had its time is a gap.
#[utoipa::path(get, path = "/v1/mailbox", tag = "messages", params(HistoryQuery),
    security(("device_token" = [])), responses(
    (status = 200, body = MailboxPage),
    (status = "default", body = Problem, content_type = "application/problem+json",
     description = "malformed, unauthenticated, rate_limited, busy, unavailable")))]
pub(super) async fn page(
    services: Data<Services>,
    caller: Caller,
    query: Query<HistoryQuery>,
) -> Result<Json<MailboxPage>, ApiError> {
    let wanted = PageWanted {
        from: query.from().map_err(|error| ApiError::new(Code::Malformed, error.to_string()))?,
        max_items: query.max_items(),
        max_bytes: services.config.logs.max_page_bytes,
    };
    let range = services.streams.mailbox_page(caller.identity.device_key, wanted).await.map_err(from_storage)?;
    let range = range.ok_or_else(|| ApiError::new(Code::Unauthenticated, "the device has ended"))?;
    let items = range.items.into_iter().map(item).collect::<Result<_, _>>().map_err(ApiError::internal)?;
    Ok(Json(MailboxPage { epoch: range.epoch, head_seq: range.head_seq, items }))
}

fn item(item: LiveItem) -> Result<MailboxItem, InvalidText> {
    Ok(match item {
        LiveItem::Entry(entry) => MailboxItem::Entry(MailboxEntry {
            seq: entry.seq,
            entry_id: entry.entry_id.as_ref().try_into()?,
            sealed: Blob(entry.sealed),
            content: (!entry.content.is_empty()).then_some(Blob(entry.content)),
        }),
        LiveItem::Gap(gap) => MailboxItem::Gap(MailboxGap {
            from_seq: gap.from_seq,
            to_seq: gap.to_seq,
            reason: match gap.reason() {
                // Mailboxes have no such gaps.
                GapReason::Unexplained | GapReason::NotAMember => MailboxGapReason::Unexplained,
                GapReason::Expired => MailboxGapReason::Expired,
                GapReason::Quota => MailboxGapReason::Quota,
                GapReason::Dormant => MailboxGapReason::Dormant,
                GapReason::Acked => MailboxGapReason::Acked,
            },
        }),
    })
}

fn from_storage(error: StorageError) -> ApiError {
    match error {
        StorageError::Busy => ApiError::new(Code::Busy, "the store is busy"),
        error if error.may_pass() => ApiError::new(Code::Unavailable, "the store can't be reached"),
        error => ApiError::internal(error),
    }
}
