//! The commit: many sends in one transaction, each accepted whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use martlet_protocol::id::EntryId;

use super::{Conn, ConversationKey, DeviceKey, StorageError};

/// A send that is forked and sealed, ready to be committed.
#[derive(Debug, Clone)]
pub struct PreparedSend {
    /// MAC of device and `client_message_id`: what makes a retry a repeat.
    pub request_key: [u8; 32],
    /// MAC of the request's bytes: what tells a repeat from another message under the same id.
    pub request_mac: [u8; 32],
    /// To which conversation.
    pub conversation_key: ConversationKey,
    /// The membership link that the sender named.
    pub membership_m: u64,
    /// One per required device, the sender's echo included; no device twice.
    pub entries: Vec<PreparedEntry>,
    /// Content over the inline limit: stored once, referenced by every sealed entry.
    pub content: Option<Bytes>,
    /// Unix seconds.
    pub expires_at_s: u64,
    /// The message asked for a shorter life than the mailbox's own.
    pub own_lifetime: bool,
}

/// What one device gets.
#[derive(Debug, Clone)]
pub struct PreparedEntry {
    /// Which device.
    pub device: DeviceKey,
    /// The number of its account's list that the sender named.
    pub list_n: u64,
    /// Drawn at random.
    pub entry_id: EntryId,
    /// The row, or the marker in its place.
    pub body: EntryBody,
}

/// A row or a marker.
#[derive(Debug, Clone)]
pub enum EntryBody {
    /// Sealed for the device.
    Sealed(Bytes),
    /// The device's signed prekey has expired: it gets a gap marker.
    Dormant,
}

/// How full a mailbox may be, and how long answers are kept.
#[derive(Debug, Clone, Copy)]
pub struct MailboxLimits {
    /// Sealed bytes and shared content at rest per mailbox.
    pub max_bytes: u64,
    /// Rows at rest per mailbox.
    pub max_entries: u64,
    /// How long a retry gets the first answer.
    pub answer_retention: Duration,
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Stored once the transaction commits.
    Committed {
        /// The `seq` handed out, one per entry.
        seqs: Vec<u64>,
        /// Indexes of the entries whose mailbox was full: a gap marker stands in their place.
        partial: Vec<usize>,
    },
    /// Its id was committed before, or earlier in this batch.
    Repeat {
        /// The first answer.
        answer: Vec<u8>,
        /// The bytes were the same (false: another message under the same id).
        same_request: bool,
    },
    /// Lists, membership or devices are not what the sender named. Nothing of it is stored.
    Mismatch,
}

/// Commits the sends in their order. `answer(index, partial)` makes the bytes that a retry will get.
///
/// # Errors
/// [`StorageError`] if a query fails; the batch must then be rolled back and may be retried whole.
pub fn commit_sends(
    conn: &mut Conn,
    sends: &[PreparedSend],
    limits: &MailboxLimits,
    now_ms: u64,
    answer: &dyn Fn(usize, &[usize]) -> Vec<u8>,
) -> Result<Vec<SendOutcome>, StorageError> {
    todo!()
}
