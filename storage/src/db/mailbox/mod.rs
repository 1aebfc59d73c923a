//! Mailboxes: reading, acknowledging, expiring. They are written by [`super::sends`].

pub(super) mod contents;

use bytes::Bytes;
use martlet_protocol::{id::EntryId, wire};

use super::{Conn, DeviceKey, StorageError};

/// Where a mailbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxState {
    /// Changes if the numbering ever restarts.
    pub epoch: u64,
    /// The last `seq` handed out.
    pub head_seq: u64,
    /// The device has everything up to here.
    pub acked_seq: u64,
}

/// Which part of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct RangeQuery {
    /// Whose.
    pub device: DeviceKey,
    /// The last `seq` that the reader has.
    pub after_seq: u64,
    /// At most this many items, at least 1.
    pub max_items: u32,
    /// Stops once the items hold this many bytes; there is always at least one item, if there is any.
    pub max_bytes: usize,
    /// Unix seconds: rows past their expiry read as gaps.
    pub now_s: u64,
}

/// A part of a mailbox: the items follow each other without a hole, from `after_seq + 1` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// In the order of `seq`.
    pub items: Vec<Item>,
    /// The head when it was read. If the last item ends before it, there is more.
    pub head_seq: u64,
}

/// An entry or a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry {
        /// Its position.
        seq: u64,
        /// Its id.
        entry_id: EntryId,
        /// Sealed for the device.
        sealed: Bytes,
        /// Shared content over the inline limit.
        content: Option<Bytes>,
    },
    /// What was discarded, and why.
    Gap(wire::Gap),
}

/// Where the mailbox stands; none if the device has none (any more).
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn state(conn: &mut Conn, device: DeviceKey) -> Result<Option<MailboxState>, StorageError> {
    todo!()
}

/// Reads a part of a mailbox. Every `seq` from `after_seq + 1` to the last item's end is in exactly one item: a hole that no marker
/// explains reads as an `unexplained` gap.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn range(conn: &mut Conn, query: &RangeQuery) -> Result<Range, StorageError> {
    todo!()
}

/// The heads of the mailboxes that exist, ordered by key.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn heads(conn: &mut Conn, devices: &[DeviceKey]) -> Result<Vec<(DeviceKey, u64)>, StorageError> {
    todo!()
}

/// Applies cumulative acks: each device has everything up to its `seq`. Deletes entries and markers up to there, and contents that no
/// entry needs any more. An ack below an earlier one changes nothing, one past the head counts as the head, and one of a device
/// without a mailbox is ignored. Returns how many entries went.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn apply_acks(conn: &mut Conn, acks: &[(DeviceKey, u64)]) -> Result<usize, StorageError> {
    todo!()
}

/// Replaces entries past their expiry by gap markers, at most `limit` of them, and returns how many; fewer than `limit`: none is left.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn expire(conn: &mut Conn, now_s: u64, limit: u32) -> Result<usize, StorageError> {
    todo!()
}
