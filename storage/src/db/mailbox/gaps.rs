//! Gap markers: what had to be discarded, neighbours of one reason merged.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::wire::GapReason;

use crate::db::{
    Conn, DeviceKey, StorageError, conn::on, convert::store_enum, error::expect_rows, schema::mailbox_gaps,
};

/// A range that was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::db) struct Discarded {
    /// Whose.
    pub device: DeviceKey,
    /// Its first `seq`.
    pub from_seq: i64,
    /// Its last `seq`.
    pub to_seq: i64,
    /// Why.
    pub reason: GapReason,
}

/// Sorts the ranges and joins those that follow each other, so that as few rows as can be are touched.
pub(in crate::db) fn merge(mut ranges: Vec<Discarded>) -> Vec<Discarded> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let follows = next.device == last.device && next.reason == last.reason && next.from_seq == last.to_seq + 1;
        if follows {
            last.to_seq = next.to_seq;
        }
        follows
    });
    ranges
}

/// Stores a range, joined with the markers of the same reason before and after it: a lookup for each neighbour and one or two writes.
pub(in crate::db) fn record(conn: &mut Conn, range: Discarded) -> Result<(), StorageError> {
    let Discarded { device, from_seq, to_seq, reason } = range;
    let reason = store_enum(reason);
    let before = ending_at(conn, device, from_seq - 1, reason)?;
    let after = starting_at(conn, device, to_seq + 1, reason)?;
    if after.is_some() {
        let deleted = on!(conn, c => diesel::delete(mailbox_gaps::table.find((device, to_seq + 1))).execute(c))?;
        expect_rows(deleted, 1, "a gap marker went while it was merged")?;
    }
    let to_seq = after.unwrap_or(to_seq);
    match before {
        Some(from_seq) => {
            let updated = on!(conn, c => diesel::update(mailbox_gaps::table.find((device, from_seq)))
                .set((mailbox_gaps::to_seq.eq(to_seq), mailbox_gaps::count.eq(to_seq - from_seq + 1)))
                .execute(c))?;
            expect_rows(updated, 1, "a gap marker went while it was extended")
        }
        None => insert(conn, device, from_seq, to_seq, reason),
    }
}

fn insert(conn: &mut Conn, device: DeviceKey, from_seq: i64, to_seq: i64, reason: i16) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(mailbox_gaps::table)
        .values((
            mailbox_gaps::device_key.eq(device),
            mailbox_gaps::from_seq.eq(from_seq),
            mailbox_gaps::to_seq.eq(to_seq),
            mailbox_gaps::count.eq(to_seq - from_seq + 1),
            mailbox_gaps::reason.eq(reason),
        ))
        .execute(c))?;
    Ok(())
}

/// The start of the marker that ends there.
fn ending_at(conn: &mut Conn, device: DeviceKey, seq: i64, reason: i16) -> Result<Option<i64>, StorageError> {
    let last: Option<(i64, i64, i16)> = on!(conn, c => mailbox_gaps::table
        .filter(mailbox_gaps::device_key.eq(device))
        .filter(mailbox_gaps::from_seq.le(seq))
        .order(mailbox_gaps::from_seq.desc())
        .select((mailbox_gaps::from_seq, mailbox_gaps::to_seq, mailbox_gaps::reason))
        .first(c)
        .optional())?;
    Ok(last.filter(|&(_, to_seq, its_reason)| to_seq == seq && its_reason == reason).map(|(from_seq, ..)| from_seq))
}

/// The end of the marker that starts there.
fn starting_at(conn: &mut Conn, device: DeviceKey, seq: i64, reason: i16) -> Result<Option<i64>, StorageError> {
    let next: Option<(i64, i16)> = on!(conn, c => mailbox_gaps::table
        .find((device, seq))
        .select((mailbox_gaps::to_seq, mailbox_gaps::reason))
        .first(c)
        .optional())?;
    Ok(next.filter(|&(_, its_reason)| its_reason == reason).map(|(to_seq, _)| to_seq))
}

/// Deletes the markers up to `seq` and cuts the one that reaches past it.
pub(super) fn trim(conn: &mut Conn, device: DeviceKey, seq: i64) -> Result<(), StorageError> {
    let up_to = mailbox_gaps::table.filter(mailbox_gaps::device_key.eq(device)).filter(mailbox_gaps::from_seq.le(seq));
    on!(conn, c => diesel::delete(up_to.filter(mailbox_gaps::to_seq.le(seq))).execute(c))?;
    // At most one is left: ranges don't overlap.
    on!(conn, c => diesel::update(up_to)
        .set((mailbox_gaps::from_seq.eq(seq + 1), mailbox_gaps::count.eq(mailbox_gaps::to_seq - seq)))
        .execute(c))?;
    Ok(())
}
