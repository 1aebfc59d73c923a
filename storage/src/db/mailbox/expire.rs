//! Expiry: entries past their time become gap markers.
//!
//! On SQLite, rows with the mailbox's own retention are found from the front of the append-only table, those with a shorter life by an
//! index that holds only them. If the retention was shortened by the config, rows of before may hold up later ones for the difference;
//! reading shows both as expired in time. PostgreSQL's table has no front, and an index on the expiry instead.

use std::collections::BTreeMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName, RunQueryDsl as _,
    sql_types::{BigInt, Nullable},
    sqlite::SqliteConnection,
};
use martlet_protocol::wire::GapReason;

use super::{contents, gaps};
use crate::db::{
    Conn, ContentKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    error::expect_rows,
    locks,
    postgres::{
        parts,
        rows::{Batch, Column},
    },
    schema::{mailbox_acks, mailbox_entries},
};

/// An entry that is gone: device, `seq`, size, shared content.
type Gone = (DeviceKey, i64, i64, Option<ContentKey>);

const GONE: (
    mailbox_entries::device_key,
    mailbox_entries::seq,
    mailbox_entries::size_bytes,
    mailbox_entries::content_key,
) = (mailbox_entries::device_key, mailbox_entries::seq, mailbox_entries::size_bytes, mailbox_entries::content_key);

/// Replaces entries past their expiry by gap markers, at most `limit` of them, and returns how many were found; fewer than `limit`: none
/// is left, or another node is at it.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn expire(conn: &mut Conn, now_s: u64, limit: u32) -> Result<usize, StorageError> {
    if !locks::sweeper(conn)? {
        return Ok(0);
    }
    let (found, gone) = match conn {
        Conn::Sqlite(c) => take(c, store_u64(now_s), limit.into())?,
        Conn::Postgres(_) => take_locked(conn, store_u64(now_s), limit.into())?,
    };
    let discarded = gone
        .iter()
        .map(|&(device, seq, ..)| gaps::Discarded { device, from_seq: seq, to_seq: seq, reason: GapReason::Expired })
        .collect();
    for range in gaps::merge(discarded) {
        gaps::record(conn, range)?;
    }
    count_removed(conn, &gone)?;
    contents::release(conn, gone.iter().filter_map(|row| row.3))?;
    Ok(found)
}

/// Makes ready for contents that are sent from now on and live up to `retention_s`, and drops what is left of those that have expired.
/// Only PostgreSQL has anything to do. Returns how many parts of its table were made and dropped.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn keep_parts(conn: &mut Conn, now_s: u64, retention_s: u64) -> Result<(usize, usize), StorageError> {
    if !locks::sweeper(conn)? {
        return Ok((0, 0));
    }
    match conn {
        Conn::Sqlite(_) => Ok((0, 0)),
        Conn::Postgres(c) => parts::keep(c, now_s, retention_s),
    }
}

/// Deletes what has expired. The store's write lock keeps others out.
fn take(c: &mut SqliteConnection, now_s: i64, limit: i64) -> Result<(usize, Vec<Gone>), StorageError> {
    let rows = expired(c, now_s, limit)?;
    let keys: Vec<i64> = rows.iter().map(|row| row.0).collect();
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let deleted =
            diesel::delete(mailbox_entries::table.filter(mailbox_entries::entry_key.eq_any(keys))).execute(c)?;
        expect_rows(deleted, keys.len(), "an entry went while it expired")?;
    }
    Ok((rows.len(), rows.into_iter().map(|(_, gone)| gone).collect()))
}

struct DeleteExpired;

/// Finds what has expired, locks those mailboxes, and deletes what is still there: a device may have acknowledged it meanwhile.
fn take_locked(conn: &mut Conn, now_s: i64, limit: i64) -> Result<(usize, Vec<Gone>), StorageError> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        device_key: DeviceKey,
        #[diesel(sql_type = BigInt)]
        seq: i64,
        #[diesel(sql_type = BigInt)]
        size_bytes: i64,
        #[diesel(sql_type = Nullable<BigInt>)]
        content_key: Option<ContentKey>,
    }
    let mut rows: Vec<(DeviceKey, i64)> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::expires_at_s.le(now_s))
        .order(mailbox_entries::expires_at_s)
        .limit(limit)
        .select((mailbox_entries::device_key, mailbox_entries::seq))
        .load(c))?;
    rows.sort_unstable();
    let mut devices: Vec<DeviceKey> = rows.iter().map(|(device, _)| *device).collect();
    devices.dedup();
    locks::heads(conn, &devices)?;
    locks::acks(conn, &devices)?;
    let Conn::Postgres(c) = conn else { return Ok((0, Vec::new())) };
    let batch: Batch<DeleteExpired, _> = Batch::new(
        "DELETE FROM mailbox_entries USING unnest($1, $2) AS expired (device_key, seq) \
         WHERE mailbox_entries.device_key = expired.device_key AND mailbox_entries.seq = expired.seq \
         RETURNING mailbox_entries.device_key, mailbox_entries.seq, mailbox_entries.size_bytes, mailbox_entries.content_key",
        (
            rows.iter().map(|(device, _)| *device).collect::<Column<BigInt, _>>(),
            rows.iter().map(|(_, seq)| *seq).collect::<Column<BigInt, _>>(),
        ),
    );
    let gone: Vec<Row> = batch.load(c)?;
    let gone = gone.into_iter().map(|row| (row.device_key, row.seq, row.size_bytes, row.content_key)).collect();
    Ok((rows.len(), gone))
}

/// With each row's key.
fn expired(c: &mut SqliteConnection, now_s: i64, limit: i64) -> Result<Vec<(i64, Gone)>, StorageError> {
    let mut rows: Vec<(i64, Gone)> = mailbox_entries::table
        .filter(mailbox_entries::own_lifetime.eq(1_i16))
        .filter(mailbox_entries::expires_at_s.le(now_s))
        .order(mailbox_entries::expires_at_s)
        .limit(limit)
        .select((mailbox_entries::entry_key, GONE))
        .load(c)?;
    let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
    let front: Vec<((i64, Gone), i64)> = mailbox_entries::table
        .filter(mailbox_entries::own_lifetime.eq(0_i16))
        .order(mailbox_entries::entry_key)
        .limit(left)
        .select(((mailbox_entries::entry_key, GONE), mailbox_entries::expires_at_s))
        .load(c)?;
    rows.extend(front.into_iter().filter(|&(_, expires_at_s)| expires_at_s <= now_s).map(|(row, _)| row));
    Ok(rows)
}

/// What went frees the mailboxes' quotas.
fn count_removed(conn: &mut Conn, rows: &[Gone]) -> Result<(), StorageError> {
    let mut removed: BTreeMap<DeviceKey, (i64, i64)> = BTreeMap::new();
    for &(device, _, size_bytes, _) in rows {
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
