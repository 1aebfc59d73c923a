//! The commit: many sends in one transaction, each accepted whole or not at all.
//!
//! In the order of the locks: conversations, log heads ([`logs`]) and mailbox heads ([`look`]), each by key; then the answers of earlier
//! sends are read, `seq` is handed out in memory ([`place`]) and everything is written ([`write`]). A send that is refused leaves no trace and never aborts the batch.
//! It checks nothing but numbers: who may send what was decided before.
//!
//! What a batch costs, in statements: per [`KEYS_PER_QUERY`](super::KEYS_PER_QUERY) sends one for answers and one for conversations,
//! per as many devices one for heads; then per 32 entries one, per 32 answers one, per 32 devices that got something one, per send
//! with shared content one, and three for each run of gap markers. On PostgreSQL heads, entries and answers are written by one statement,
//! whatever their number, and heads are locked and read by one. What is written per entry, answer or device is prepared once per connection. Entries of the batch are inserted in the order of device and `seq`, so that the order of rows tells nothing about
//! who sent them.

mod logs;
mod look;
mod place;
pub mod planted;
mod write;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use martlet_protocol::id::{EntryId, MessageId};

use super::{Conn, ConversationKey, DeviceKey, StorageError};
use logs::Logs;
use place::Placement;
use write::Answering;

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
    /// To a conversation that is a log: its content is appended there once, and there are no entries.
    pub log: Option<PreparedLog>,
}

/// What is appended to a log beside the content.
#[derive(Debug, Clone)]
pub struct PreparedLog {
    /// Drawn at random.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// Of the content.
    pub suite: u32,
    /// The group's epoch as the sender knows it, if it is to be compared.
    pub group_epoch: Option<GroupEpoch>,
}

/// An epoch of a group's keys, which the node compares and can't read anything into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEpoch {
    /// The one that the sender is in.
    pub current: u64,
    /// The message ends it.
    pub advances: bool,
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
    /// Stored in its conversation's log once the transaction commits.
    Appended {
        /// The `seq` handed out.
        seq: u64,
        /// The group's epoch that it belongs to.
        group_epoch: u64,
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
    /// The group is in another epoch than the sender named. Nothing of it is stored.
    EpochConflict {
        /// The one that it is in.
        current: u64,
    },
}

/// The first answer to a request, as it rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// Of the request that was answered.
    pub request_mac: Vec<u8>,
    /// The bytes that `commit_sends` was given for it.
    pub answer: Vec<u8>,
}

/// Finds what a request was answered with, if it was committed and its answer is still kept.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn find_answer(conn: &mut Conn, request_key: &[u8; 32]) -> Result<Option<StoredAnswer>, StorageError> {
    look::answer(conn, request_key)
}

/// Makes the bytes that a retry will get, of the send at an index: from the `seq` that it got and the indexes of its entries that found their
/// mailbox full.
pub type SealAnswer<'a> = dyn Fn(usize, &[u64], &[usize]) -> Vec<u8> + 'a;

/// Commits the sends in their order. `answer` is called for each committed send.
///
/// # Errors
/// [`StorageError`] if a query fails; the batch must then be rolled back and may be retried whole.
pub fn commit_sends(
    conn: &mut Conn,
    sends: &[PreparedSend],
    limits: &MailboxLimits,
    now_ms: u64,
    answer: &SealAnswer<'_>,
) -> Result<Vec<SendOutcome>, StorageError> {
    let conversations = look::conversations(conn, sends)?;
    let mut logs = Logs::look(conn, sends)?;
    let heads = look::heads(conn, sends)?;
    // After the heads: a retry that another node commits at this moment holds the sender's own head until its answer can be read.
    let mut answered = look::answers(conn, sends)?;
    let mut placement = Placement::new(heads, limits);
    let mut new_answers = Vec::with_capacity(sends.len());
    let mut outcomes = Vec::with_capacity(sends.len());
    for (index, send) in sends.iter().enumerate() {
        if let Some(first) = answered.get(&send.request_key) {
            outcomes.push(first.repeat(send));
            continue;
        }
        if conversations.get(&send.conversation_key) != Some(&send.membership_m) || !placement.fits(send) {
            outcomes.push(SendOutcome::Mismatch);
            continue;
        }
        let outcome = match &send.log {
            Some(log) => logs.place(index, send, log)?,
            None => placement.place(index, send),
        };
        let bytes = match &outcome {
            SendOutcome::Committed { seqs, partial } => Some(answer(index, seqs, partial)),
            SendOutcome::Appended { seq, .. } => Some(answer(index, &[*seq], &[])),
            SendOutcome::Repeat { .. } | SendOutcome::Mismatch | SendOutcome::EpochConflict { .. } => None,
        };
        if let Some(bytes) = bytes {
            new_answers.push(index);
            answered.insert(send.request_key, Answered { request_mac: send.request_mac.to_vec(), answer: bytes });
        }
        outcomes.push(outcome);
    }
    logs.write(conn, sends)?;
    let expires_at_s = now_ms / 1000 + limits.answer_retention.as_secs();
    let answering = Answering { committed: new_answers, answers: &answered, expires_at_s };
    write::all(conn, sends, placement, answering)?;
    Ok(outcomes)
}

/// What a send was answered.
struct Answered {
    request_mac: Vec<u8>,
    answer: Vec<u8>,
}

type Answers = HashMap<[u8; 32], Answered>;

impl Answered {
    fn repeat(&self, send: &PreparedSend) -> SendOutcome {
        SendOutcome::Repeat { answer: self.answer.clone(), same_request: self.request_mac == send.request_mac }
    }
}
