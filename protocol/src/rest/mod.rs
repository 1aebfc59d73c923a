//! The shapes of REST under `/v1`: JSON with base64url for bytes. The node serves OpenAPI made from these.

mod accounts;
mod conversations;
mod history;
mod logs;
mod mailbox;
mod messages;
mod trust;

pub use accounts::*;
pub use conversations::*;
pub use history::{HistoryFrom, HistoryQuery, TwoCursors};
pub use logs::*;
pub use mailbox::*;
pub use messages::*;
pub use trust::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// RFC 9457 problem details (`application/problem+json`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:martlet:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stable code.
    pub code: String,
    /// The same for every occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// About this occurrence.
    pub detail: String,
    /// To find this request in the node's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// When to come back, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// With code `mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
    /// With code `device_list_conflict`: the lists after the one named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<SignedDeviceList>,
    /// With code `membership_conflict`: the links after the one named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub membership: Vec<SignedMembershipLink>,
    /// With code `conversation_exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<crate::id::ConversationId>,
    /// With code `epoch_conflict`: the epoch that the group is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_epoch: Option<u64>,
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// In the list's order.
    pub items: Vec<T>,
    /// To ask for the next page with; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most this many (default 50, at most 200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
