//! Expiry: entries past their time become gap markers.
//!
//! Rows with the mailbox's own retention are found from the front of the append-only table, those with a shorter life by an index that
//! holds only them. If the retention was shortened by the config, rows of before may hold up later ones for the difference; reading
//! shows both as expired in time.

use std::collections::BTreeMap;

use diesel::{ExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::wire::GapReason;

use super::{contents, gaps};
use crate::db::{
    Conn, ContentKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    error::expect_rows,
    schema::{mailbox_acks, mailbox_entries},
};

type ExpiredRow = (i64, DeviceKey, i64, i64, Option<ContentKey>);

const COLUMNS: (
    mailbox_entries::entry_key,
    mailbox_entries::device_key,
    mailbox_entries::seq,
    mailbox_entries::size_bytes,
    mailbox_entries::content_key,
) = (
    mailbox_entries::entry_key,
    mailbox_entries::device_key,
    mailbox_entries::seq,
    mailbox_entries::size_bytes,
    mailbox_entries::content_key,
);

/// Replaces entries past their expiry by gap markers, at most `limit` of them, and returns how many; fewer than `limit`: none is left.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn expire(conn: &mut Conn, now_s: u64, limit: u32) -> Result<usize, StorageError> {
    let rows = expired(conn, store_u64(now_s), limit.into())?;
    let keys: Vec<i64> = rows.iter().map(|row| row.0).collect();
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let deleted = on!(conn, c => diesel::delete(
                mailbox_entries::table.filter(mailbox_entries::entry_key.eq_any(keys)),
            )
            .execute(c))?;
        expect_rows(deleted, keys.len(), "an entry went while it expired")?;
    }
    let discarded = rows
        .iter()
        .map(|&(_, device, seq, ..)| gaps::Discarded { device, from_seq: seq, to_seq: seq, reason: GapReason::Expired })
        .collect();
    for range in gaps::merge(discarded) {
        gaps::record(conn, range)?;
    }
    count_removed(conn, &rows)?;
    contents::release(conn, rows.iter().filter_map(|row| row.4))?;
    Ok(rows.len())
}

fn expired(conn: &mut Conn, now_s: i64, limit: i64) -> Result<Vec<ExpiredRow>, StorageError> {
    let mut rows: Vec<ExpiredRow> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::own_lifetime.eq(1_i16))
        .filter(mailbox_entries::expires_at_s.le(now_s))
        .order(mailbox_entries::expires_at_s)
        .limit(limit)
        .select(COLUMNS)
        .load(c))?;
    let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
    let front: Vec<(ExpiredRow, i64)> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::own_lifetime.eq(0_i16))
        .order(mailbox_entries::entry_key)
        .limit(left)
        .select((COLUMNS, mailbox_entries::expires_at_s))
        .load(c))?;
    rows.extend(front.into_iter().filter(|&(_, expires_at_s)| expires_at_s <= now_s).map(|(row, _)| row));
    Ok(rows)
}

/// What went frees the mailboxes' quotas.
fn count_removed(conn: &mut Conn, rows: &[ExpiredRow]) -> Result<(), StorageError> {
    let mut removed: BTreeMap<DeviceKey, (i64, i64)> = BTreeMap::new();
    for &(_, device, _, size_bytes, _) in rows {
        let (entries, bytes) = removed.entry(device).or_default();
        *entries += 1;
        *bytes += size_bytes;
    }
    for (device, (entries, bytes)) in removed {
        let updated = on!(conn, c => diesel::update(mailbox_acks::table.find(device))
            .set((
                mailbox_acks::removed_bytes.eq(mailbox_acks::removed_bytes + bytes),
                mailbox_acks::removed_entries.eq(mailbox_acks::removed_entries + entries),
            ))
            .execute(c))?;
        expect_rows(updated, 1, "a mailbox without its acks")?;
    }
    Ok(())
}
