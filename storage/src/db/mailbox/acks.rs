//! Acks, applied in batches.
//!
//! A batch costs two queries per [`KEYS_PER_QUERY`] devices (where they stand, which of them have markers), then per device whose
//! ack moves one `DELETE` that returns what it took and one `UPDATE`; two more for a device that has markers, and one `UPDATE` per
//! shared content (two for its last entry).

use std::collections::{BTreeMap, HashSet};

use diesel::{ExpressionMethods as _, JoinOnDsl as _, QueryDsl as _, RunQueryDsl as _};

use super::{contents, gaps};
use crate::db::{
    Conn, ContentKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    error::expect_rows,
    schema::{mailbox_acks, mailbox_entries, mailbox_gaps, mailbox_heads},
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
    let mut removed = 0;
    let mut released = Vec::new();
    for keys in devices.chunks(KEYS_PER_QUERY) {
        let with_gaps = having_gaps(conn, keys)?;
        for (device, head_seq, acked_seq) in positions(conn, keys)? {
            let seq = wanted.get(&device).copied().unwrap_or_default().min(head_seq);
            if seq > acked_seq {
                removed += acknowledge(conn, device, seq, &mut released)?;
                if with_gaps.contains(&device) {
                    gaps::trim(conn, device, seq)?;
                }
            }
        }
    }
    contents::release(conn, released)?;
    Ok(removed)
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

/// Deletes a device's entries up to `seq` and moves its ack there.
fn acknowledge(
    conn: &mut Conn,
    device: DeviceKey,
    seq: i64,
    released: &mut Vec<ContentKey>,
) -> Result<usize, StorageError> {
    let rows: Vec<(i64, Option<ContentKey>)> = on!(conn, c => diesel::delete(
            mailbox_entries::table
                .filter(mailbox_entries::device_key.eq(device))
                .filter(mailbox_entries::seq.le(seq)),
        )
        .returning((mailbox_entries::size_bytes, mailbox_entries::content_key))
        .get_results(c))?;
    let bytes: i64 = rows.iter().map(|(size_bytes, _)| size_bytes).sum();
    released.extend(rows.iter().filter_map(|(_, content)| *content));
    // What went frees the mailbox's quota.
    let entries = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let updated = on!(conn, c => diesel::update(mailbox_acks::table.find(device))
        .set((
            mailbox_acks::acked_seq.eq(seq),
            mailbox_acks::removed_bytes.eq(mailbox_acks::removed_bytes + bytes),
            mailbox_acks::removed_entries.eq(mailbox_acks::removed_entries + entries),
        ))
        .execute(c))?;
    expect_rows(updated, 1, "a mailbox without its acks")?;
    Ok(rows.len())
}
