//! Mailboxes: reading, acknowledging, expiring. They are written by [`super::sends`].

mod acks;
mod back;
pub(super) mod contents;
mod expire;
pub(super) mod gaps;
mod range;

use bytes::Bytes;
use diesel::{ExpressionMethods as _, JoinOnDsl as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{id::EntryId, wire};

use super::{
    Conn, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::read_u64,
    schema::{mailbox_acks, mailbox_heads},
    store,
};

pub use acks::{Ack, apply_acks};
pub use back::{BackQuery, range_before};
pub use expire::{expire, keep_parts};
pub use range::range;

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
    let row: Option<(i64, i64, i64)> = on!(conn, c => mailbox_heads::table
        .inner_join(mailbox_acks::table.on(mailbox_acks::device_key.eq(mailbox_heads::device_key)))
        .filter(mailbox_heads::device_key.eq(device))
        .select((mailbox_heads::epoch, mailbox_heads::head_seq, mailbox_acks::acked_seq))
        .first(c)
        .optional())?;
    let Some((own_epoch, head_seq, acked_seq)) = row else { return Ok(None) };
    let store_epoch = store::epoch(conn)?;
    Ok(Some(MailboxState {
        // Both only grow, so that the sum changes with either.
        epoch: read_u64(store_epoch)? + read_u64(own_epoch)?,
        head_seq: read_u64(head_seq)?,
        acked_seq: read_u64(acked_seq)?,
    }))
}

/// The heads of the mailboxes that exist, ordered by key.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn heads(conn: &mut Conn, devices: &[DeviceKey]) -> Result<Vec<(DeviceKey, u64)>, StorageError> {
    let mut devices = devices.to_vec();
    devices.sort_unstable();
    devices.dedup();
    let mut heads = Vec::with_capacity(devices.len());
    for keys in devices.chunks(KEYS_PER_QUERY) {
        let rows: Vec<(DeviceKey, i64)> = on!(conn, c => mailbox_heads::table
            .filter(mailbox_heads::device_key.eq_any(keys))
            .order(mailbox_heads::device_key)
            .select((mailbox_heads::device_key, mailbox_heads::head_seq))
            .load(c))?;
        for (device, head_seq) in rows {
            heads.push((device, read_u64(head_seq)?));
        }
    }
    Ok(heads)
}
