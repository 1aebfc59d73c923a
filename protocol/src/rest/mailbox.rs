//! A device's own mailbox, read by cursor: history within its retention, for a device without a socket.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Blob, EntryId};

/// A part of the mailbox. Reading acknowledges nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxPage {
    /// Of the numbering: if it changes, every `seq` means another entry.
    pub epoch: u64,
    /// The last `seq` in the mailbox.
    pub head_seq: u64,
    /// In the order of `seq` whichever way it was read, without a hole.
    pub items: Vec<MailboxItem>,
}

/// An entry or what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailboxItem {
    /// An entry.
    Entry(MailboxEntry),
    /// Entries that are gone.
    Gap(MailboxGap),
}

/// One entry, sealed to the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxEntry {
    /// Its place.
    pub seq: u64,
    /// Its id.
    pub entry_id: EntryId,
    /// What only the device opens.
    pub sealed: Blob,
    /// Content that lies beside the seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Blob>,
}

/// Why entries are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailboxGapReason {
    /// Nothing explains it: the node logs an error.
    Unexplained,
    /// They had their time.
    Expired,
    /// The mailbox was full.
    Quota,
    /// The device had no good signed prekey.
    Dormant,
    /// The device itself acknowledged them.
    Acked,
}

/// In place of entries that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxGap {
    /// The first.
    pub from_seq: u64,
    /// The last.
    pub to_seq: u64,
    /// Why.
    pub reason: MailboxGapReason,
}
