//! Acks, applied in batches.
//!
//! A batch costs two queries per [`KEYS_PER_QUERY`] devices (where they stand, which of them have markers), then per device whose
//! ack moves one `DELETE` that returns what it took (two more for a device that has markers), and per 32 devices one `UPDATE`. Shared
//! contents cost one `UPDATE` per 32 and one `DELETE` per [`KEYS_PER_QUERY`]. On PostgreSQL all devices share one `DELETE` and one
//! `UPDATE`.

use std::collections::{BTreeMap, HashMap};

use diesel::{
    ExpressionMethods as _, JoinOnDsl as _, QueryDsl as _, QueryResult, QueryableByName, RunQueryDsl as _,
    pg::PgConnection,
    sql_types::{Array, BigInt},
    sqlite::SqliteConnection,
};

use super::{contents, gaps};
use crate::db::{
    Conn, ContentKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    error::expect_rows,
    locks,
    postgres::rows::{Batch, Binds, Column},
    schema::{mailbox_acks, mailbox_entries, mailbox_gaps, mailbox_heads},
    sqlite::rows::{self, BatchRow, Values},
    store,
};

/// A device has safely stored everything up to `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Whose mailbox.
    pub device_key: DeviceKey,
    /// The epoch that `seq` is a number of.
    pub epoch: u64,
    /// Cumulative.
    pub seq: u64,
}

/// Applies cumulative acks. Deletes entries and markers up to there, and contents that no entry needs any more. An ack below an earlier one
/// changes nothing, one past the head counts as the head, and one of a device without a mailbox, or of another epoch, is ignored: its
/// number is of other entries. Returns how many entries went.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn apply_acks(conn: &mut Conn, acks: &[Ack]) -> Result<usize, StorageError> {
    let mut wanted: BTreeMap<DeviceKey, (i64, i64)> = BTreeMap::new();
    for ack in acks {
        let highest = wanted.entry(ack.device_key).or_default();
        *highest = (*highest).max((store_u64(ack.epoch), store_u64(ack.seq)));
    }
    let store_epoch = store::epoch(conn)?;
    let devices: Vec<DeviceKey> = wanted.keys().copied().collect();
    let with_gaps = having_gaps(conn, &devices)?;
    // Markers are extended by sends, so these devices' heads come first, as in every transaction that takes both. A marker that comes
    // after this look stays until the next ack; it lies before what the device has, where nothing reads it.
    locks::heads(conn, &with_gaps)?;
    locks::acks(conn, &devices)?;
    let mut moving = Vec::with_capacity(devices.len());
    for keys in devices.chunks(KEYS_PER_QUERY) {
        for (device, own_epoch, head_seq, acked_seq) in positions(conn, keys)? {
            let (epoch, seq) = wanted.get(&device).copied().unwrap_or_default();
            let seq = seq.min(head_seq);
            if epoch == store_epoch + own_epoch && seq > acked_seq {
                moving.push((device, seq));
            }
        }
    }
    let mut released = Vec::new();
    let acked = match conn {
        Conn::Sqlite(c) => moving
            .iter()
            .map(|&(device, seq)| delete_of_one(c, device, seq, &mut released))
            .collect::<Result<_, _>>()?,
        Conn::Postgres(c) => delete_of_all(c, &moving, &mut released)?,
    };
    for (device, seq) in moving.iter().filter(|(device, _)| with_gaps.binary_search(device).is_ok()) {
        gaps::trim(conn, *device, *seq)?;
    }
    let moved = match conn {
        Conn::Sqlite(c) => rows::execute(c, &acked)?,
        Conn::Postgres(c) => update_acks(&acked).execute(c)?,
    };
    expect_rows(moved, acked.len(), "a mailbox without its acks")?;
    contents::release(conn, released)?;
    Ok(acked.iter().map(|acked| usize::try_from(acked.entries).unwrap_or_default()).sum())
}

/// Device, own epoch, head and ack of the mailboxes that exist, ordered by key.
fn positions(conn: &mut Conn, devices: &[DeviceKey]) -> Result<Vec<(DeviceKey, i64, i64, i64)>, StorageError> {
    let rows = on!(conn, c => mailbox_acks::table
        .inner_join(mailbox_heads::table.on(mailbox_heads::device_key.eq(mailbox_acks::device_key)))
        .filter(mailbox_acks::device_key.eq_any(devices))
        .order(mailbox_acks::device_key)
        .select((mailbox_acks::device_key, mailbox_heads::epoch, mailbox_heads::head_seq, mailbox_acks::acked_seq))
        .load(c))?;
    Ok(rows)
}

/// Ordered by key.
fn having_gaps(conn: &mut Conn, devices: &[DeviceKey]) -> Result<Vec<DeviceKey>, StorageError> {
    let mut found = Vec::new();
    for keys in devices.chunks(KEYS_PER_QUERY) {
        let rows: Vec<DeviceKey> = on!(conn, c => mailbox_gaps::table
            .filter(mailbox_gaps::device_key.eq_any(keys))
            .select(mailbox_gaps::device_key)
            .distinct()
            .load(c))?;
        found.extend(rows);
    }
    found.sort_unstable();
    Ok(found)
}

/// Deletes one device's entries up to `seq`.
fn delete_of_one(
    c: &mut SqliteConnection,
    device: DeviceKey,
    seq: i64,
    released: &mut Vec<ContentKey>,
) -> Result<Acked, StorageError> {
    let rows: Vec<(i64, Option<ContentKey>)> = diesel::delete(
        mailbox_entries::table.filter(mailbox_entries::device_key.eq(device)).filter(mailbox_entries::seq.le(seq)),
    )
    .returning((mailbox_entries::size_bytes, mailbox_entries::content_key))
    .get_results(c)?;
    let bytes: i64 = rows.iter().map(|(size_bytes, _)| size_bytes).sum();
    released.extend(rows.iter().filter_map(|(_, content)| *content));
    let entries = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    Ok(Acked { device, seq, bytes, entries })
}

struct DeleteAcked;
struct UpdateAcks;

/// Deletes the entries of all devices up to their `seq`, in one statement: over a network, one per device would cost a round trip each.
fn delete_of_all(
    c: &mut PgConnection,
    moving: &[(DeviceKey, i64)],
    released: &mut Vec<ContentKey>,
) -> Result<Vec<Acked>, StorageError> {
    #[derive(QueryableByName)]
    struct Gone {
        #[diesel(sql_type = BigInt)]
        device_key: DeviceKey,
        #[diesel(sql_type = BigInt)]
        entries: i64,
        #[diesel(sql_type = BigInt)]
        bytes: i64,
        #[diesel(sql_type = Array<BigInt>)]
        contents: Vec<ContentKey>,
    }
    if moving.is_empty() {
        return Ok(Vec::new());
    }
    let batch: Batch<DeleteAcked, _> = Batch::new(
        "WITH gone AS (DELETE FROM mailbox_entries USING unnest($1, $2) AS acked (device_key, seq) \
             WHERE mailbox_entries.device_key = acked.device_key AND mailbox_entries.seq <= acked.seq \
             RETURNING mailbox_entries.device_key, mailbox_entries.size_bytes, mailbox_entries.content_key) \
         SELECT device_key, count(*) AS entries, sum(size_bytes)::bigint AS bytes, \
             array_remove(array_agg(content_key), NULL) AS contents FROM gone GROUP BY device_key",
        (
            moving.iter().map(|(device, _)| *device).collect::<Column<BigInt, _>>(),
            moving.iter().map(|(_, seq)| *seq).collect::<Column<BigInt, _>>(),
        ),
    );
    let gone: Vec<Gone> = batch.load(c)?;
    let mut gone: HashMap<DeviceKey, Gone> = gone.into_iter().map(|gone| (gone.device_key, gone)).collect();
    let acked = moving.iter().map(|&(device, seq)| match gone.remove(&device) {
        Some(gone) => {
            released.extend(gone.contents);
            Acked { device, seq, bytes: gone.bytes, entries: gone.entries }
        }
        // Everything up to there had expired.
        None => Acked { device, seq, bytes: 0, entries: 0 },
    });
    Ok(acked.collect())
}

/// PostgreSQL's statement for all acks at once.
fn update_acks(acked: &[Acked]) -> Batch<UpdateAcks, impl Binds> {
    Batch::new(
        "UPDATE mailbox_acks SET acked_seq = acked.seq, removed_bytes = removed_bytes + acked.bytes, \
         removed_entries = removed_entries + acked.entries \
         FROM unnest($1, $2, $3, $4) AS acked (device_key, seq, bytes, entries) \
         WHERE mailbox_acks.device_key = acked.device_key",
        (
            acked.iter().map(|acked| acked.device).collect::<Column<BigInt, _>>(),
            acked.iter().map(|acked| acked.seq).collect::<Column<BigInt, _>>(),
            acked.iter().map(|acked| acked.bytes).collect::<Column<BigInt, _>>(),
            acked.iter().map(|acked| acked.entries).collect::<Column<BigInt, _>>(),
        ),
    )
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
