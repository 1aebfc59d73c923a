//! Logs of large conversations: history by cursor.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Blob, MessageId};

/// The epoch of a group's keys, which the node compares and knows nothing else of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupEpoch {
    /// The one that the sender is in.
    pub current: u64,
    /// The message ends it: the next is `current` + 1.
    #[serde(default)]
    pub advance: bool,
}

/// A part of a log. What is appended meanwhile changes no page that was read before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// Of the numbering: if it changes, every `seq` means another entry.
    pub epoch: u64,
    /// The last `seq` in the log; for an account that is a member no more, the last from when it was.
    pub head_seq: u64,
    /// The group's own, at that moment.
    pub group_epoch: u64,
    /// In the order of `seq` whichever way it was read, without a hole: what is gone is a gap.
    pub items: Vec<LogItem>,
}

/// An entry or what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogItem {
    /// An entry.
    Entry(LogEntry),
    /// Entries that are gone.
    Gap(LogGap),
}

/// One ciphertext for all members. Who sent it stands inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Its place.
    pub seq: u64,
    /// Its message.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// The group's when it was accepted.
    pub group_epoch: u64,
    /// Of the content.
    pub suite: u32,
    /// Opaque to the node.
    pub content: Blob,
}

/// Why entries are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogGapReason {
    /// They had their time.
    Expired,
    /// The account was not a member then.
    NotAMember,
    /// Nothing explains it: the node logs an error.
    Unexplained,
}

/// In place of entries that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogGap {
    /// The first.
    pub from_seq: u64,
    /// The last.
    pub to_seq: u64,
    /// Why.
    pub reason: LogGapReason,
}
