//! Conversation logs: reading and expiring. They are written by [`super::sends`], one row for all members.
//!
//! Rows leave from the front only: `trimmed_seq` says up to where, so that whatever is missing after it is a hole that nothing explains.
//! An entry whose own life ends earlier loses its content and keeps its row until then. [`access`] says which part of a log is whose to read.

mod access;
mod expire;
mod range;

use bytes::Bytes;
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{id::MessageId, wire};

use super::{
    Conn, ConversationKey, KEYS_PER_QUERY, StorageError, conn::on, convert::read_u64, schema::log_heads, store,
};

pub use access::{Access, LeftBehind, access, left_behind};
pub(in crate::db) use access::{Stand, join, leave, stand};
pub use expire::expire;
pub use range::range;

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Of the numbering: the store's.
    pub epoch: u64,
    /// The last `seq` handed out.
    pub head_seq: u64,
    /// The group's own.
    pub group_epoch: u64,
}

/// An entry as it rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub seq: u64,
    /// Its message's id.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// The group's epoch when it was accepted; of a message that ends an epoch, the one it ends.
    pub group_epoch: u64,
    /// Of the content.
    pub suite: u32,
    /// When it ends, in Unix seconds.
    pub expires_at_s: u64,
    /// One ciphertext for all members.
    pub content: Bytes,
}

/// An entry or a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// An entry.
    Entry(LogEntry),
    /// What is gone, and why.
    Gap(wire::Gap),
}

/// From where a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCursor {
    /// Forwards, the entries after this `seq`.
    After(u64),
    /// Backwards, the entries before this `seq`; past the head, the newest.
    Before(u64),
}

/// The part of a log that a reader may see: what comes after `after_seq`, up to `upto_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The head when the reader joined.
    pub after_seq: u64,
    /// The head when the reader left.
    pub upto_seq: u64,
}

impl LogBounds {
    /// All there is.
    pub const NONE: Self = Self { after_seq: 0, upto_seq: u64::MAX };
}

/// Which part of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogQuery {
    /// Which log.
    pub conversation: ConversationKey,
    /// From where.
    pub cursor: LogCursor,
    /// At most this many entries, at least 1.
    pub max_items: u32,
    /// Stops once the entries hold this many bytes; there is always at least one, if there is any.
    pub max_bytes: usize,
    /// Unix seconds: entries past their expiry read as gaps.
    pub now_s: u64,
    /// Who reads: what was there before it joined reads as a gap, and the log ends where it left.
    pub bounds: LogBounds,
}

/// A part of a log: the items follow each other without a hole and end at the cursor, or begin after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRange {
    /// In the order of `seq`, whichever way it was read.
    pub items: Vec<LogItem>,
    /// Where the log stood at that moment.
    pub state: LogState,
}

/// Where the log stands; none if the conversation has none.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn state(conn: &mut Conn, conversation: ConversationKey) -> Result<Option<LogState>, StorageError> {
    let row: Option<(i64, i64)> = on!(conn, c => log_heads::table
        .find(conversation)
        .select((log_heads::head_seq, log_heads::group_epoch))
        .first(c)
        .optional())?;
    let Some((head_seq, group_epoch)) = row else { return Ok(None) };
    Ok(Some(LogState {
        epoch: read_u64(store::epoch(conn)?)?,
        head_seq: read_u64(head_seq)?,
        group_epoch: read_u64(group_epoch)?,
    }))
}

/// The heads of the logs that exist, ordered by key.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn heads(conn: &mut Conn, logs: &[ConversationKey]) -> Result<Vec<(ConversationKey, u64)>, StorageError> {
    let mut logs = logs.to_vec();
    logs.sort_unstable();
    logs.dedup();
    let mut heads = Vec::with_capacity(logs.len());
    for keys in logs.chunks(KEYS_PER_QUERY) {
        let rows: Vec<(ConversationKey, i64)> = on!(conn, c => log_heads::table
            .filter(log_heads::conversation_key.eq_any(keys))
            .order(log_heads::conversation_key)
            .select((log_heads::conversation_key, log_heads::head_seq))
            .load(c))?;
        for (key, head_seq) in rows {
            heads.push((key, read_u64(head_seq)?));
        }
    }
    Ok(heads)
}
