//! Acks, applied in batches.
//!
//! A batch costs two queries per [`KEYS_PER_QUERY`] devices (where they stand, which of them have markers), then per device whose
//! ack moves one `DELETE` that returns what it took (two more for a device that has markers), and per 32 devices one `UPDATE`. Shared
//! contents cost one `UPDATE` per 32 and one `DELETE` per [`KEYS_PER_QUERY`].

use std::collections::{BTreeMap, HashSet};

use diesel::{ExpressionMethods as _, JoinOnDsl as _, QueryDsl as _, QueryResult, RunQueryDsl as _, sql_types::BigInt};

use super::{contents, gaps};
use crate::db::{
    Conn, ContentKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    error::expect_rows,
    schema::{mailbox_acks, mailbox_entries, mailbox_gaps, mailbox_heads},
    sqlite::rows::{self, BatchRow, Values},
};

/// Applies cumulative acks: each device has everything up to its `seq`. Deletes entries and markers up to there, and contents that no
/// entry needs any more. An ack below an earlier one changes nothing, one past the head counts as the head, and one of a device
/// without a mailbox is ignored. Returns how many entries went.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn apply_acks(conn: &mut Conn, acks: &[(DeviceKey, u64)]) -> Result<usize, StorageError> {
    let mut wanted: BTreeMap<DeviceKey, i64> = BTreeMap::new();
    for &(device, seq) in acks {
        let highest = wanted.entry(device).or_default();
        *highest = (*highest).max(store_u64(seq));
    }
    let devices: Vec<DeviceKey> = wanted.keys().copied().collect();
    let mut acked = Vec::with_capacity(devices.len());
    let mut released = Vec::new();
    for keys in devices.chunks(KEYS_PER_QUERY) {
        let with_gaps = having_gaps(conn, keys)?;
        for (device, head_seq, acked_seq) in positions(conn, keys)? {
            let seq = wanted.get(&device).copied().unwrap_or_default().min(head_seq);
            if seq > acked_seq {
                acked.push(acknowledge(conn, device, seq, &mut released)?);
                if with_gaps.contains(&device) {
                    gaps::trim(conn, device, seq)?;
                }
            }
        }
    }
    let moved = match conn {
        Conn::Sqlite(c) => rows::execute(c, &acked)?,
    };
    expect_rows(moved, acked.len(), "a mailbox without its acks")?;
    contents::release(conn, released)?;
    Ok(acked.iter().map(|acked| usize::try_from(acked.entries).unwrap_or_default()).sum())
}

/// Device, head and ack of the mailboxes that exist, ordered by key.
fn positions(conn: &mut Conn, devices: &[DeviceKey]) -> Result<Vec<(DeviceKey, i64, i64)>, StorageError> {
    let rows = on!(conn, c => mailbox_acks::table
        .inner_join(mailbox_heads::table.on(mailbox_heads::device_key.eq(mailbox_acks::device_key)))
        .filter(mailbox_acks::device_key.eq_any(devices))
        .order(mailbox_acks::device_key)
        .select((mailbox_acks::device_key, mailbox_heads::head_seq, mailbox_acks::acked_seq))
        .load(c))?;
    Ok(rows)
}

fn having_gaps(conn: &mut Conn, devices: &[DeviceKey]) -> Result<HashSet<DeviceKey>, StorageError> {
    let rows: Vec<DeviceKey> = on!(conn, c => mailbox_gaps::table
        .filter(mailbox_gaps::device_key.eq_any(devices))
        .select(mailbox_gaps::device_key)
        .distinct()
        .load(c))?;
    Ok(rows.into_iter().collect())
}

/// Deletes a device's entries up to `seq`.
fn acknowledge(
    conn: &mut Conn,
    device: DeviceKey,
    seq: i64,
    released: &mut Vec<ContentKey>,
) -> Result<Acked, StorageError> {
    let rows: Vec<(i64, Option<ContentKey>)> = on!(conn, c => diesel::delete(
            mailbox_entries::table
                .filter(mailbox_entries::device_key.eq(device))
                .filter(mailbox_entries::seq.le(seq)),
        )
        .returning((mailbox_entries::size_bytes, mailbox_entries::content_key))
        .get_results(c))?;
    let bytes: i64 = rows.iter().map(|(size_bytes, _)| size_bytes).sum();
    released.extend(rows.iter().filter_map(|(_, content)| *content));
    let entries = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    Ok(Acked { device, seq, bytes, entries })
}

/// An ack that moves, and what it frees of the mailbox's quota.
struct Acked {
    device: DeviceKey,
    seq: i64,
    bytes: i64,
    entries: i64,
}

impl BatchRow for Acked {
    type Statement = Self;
    const BEFORE: &'static str = "UPDATE mailbox_acks SET acked_seq = acked.column2, \
        removed_bytes = removed_bytes + acked.column3, removed_entries = removed_entries + acked.column4 FROM (";
    const AFTER: &'static str = ") AS acked WHERE mailbox_acks.device_key = acked.column1";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        values.add::<BigInt, _>(&self.device)?;
        values.add::<BigInt, _>(&self.seq)?;
        values.add::<BigInt, _>(&self.bytes)?;
        values.add::<BigInt, _>(&self.entries)
    }
}
