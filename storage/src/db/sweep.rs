//! Deleting what has had its time: answers, tokens, tickets, offers, control entries, one-time prekeys. Mailboxes have
//! [`super::mailbox::expire`], which must leave markers.

use super::{Conn, StorageError};

/// How long a control entry is kept: a day, in seconds. A node that was away longer starts with empty caches.
pub const CONTROL_RETENTION_S: u64 = 86_400;

/// How many rows went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Answers to sends.
    pub answers: usize,
    /// Device tokens.
    pub tokens: usize,
    /// Socket tickets.
    pub tickets: usize,
    /// Offers of devices.
    pub links: usize,
    /// Control entries.
    pub control: usize,
    /// One-time prekeys.
    pub prekeys: usize,
}

/// Deletes at most `limit` expired rows of each kind.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn sweep(conn: &mut Conn, now_ms: u64, limit: u32) -> Result<Swept, StorageError> {
    todo!()
}
