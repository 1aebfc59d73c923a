//! The parts of the table of shared contents: one per week of expiry, made ahead and dropped when the week is over.

use diesel::{
    QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    pg::PgConnection,
    sql_types::{Bool, Text},
};

use crate::db::StorageError;

/// Bits of a content's key below its week.
pub(in crate::db) const WEEK_SHIFT: u32 = 40;
pub(in crate::db) const WEEK_S: u64 = 7 * 86_400;
/// Weeks made ahead at most: ten years and some, as long as a mailbox may keep.
const MAX_WEEKS: u64 = 530;

/// The week, counted from 1970, in which a time lies.
pub(in crate::db) fn week(unix_s: u64) -> i64 {
    i64::try_from(unix_s / WEEK_S).unwrap_or(i64::MAX >> WEEK_SHIFT)
}

/// What making or dropping a part may wait for others' locks, in milliseconds. Whoever comes after it waits behind it, every read of contents
/// too; so it gives way (to a dump that takes an hour, for one) and is tried again with the next sweep.
const LOCK_TIMEOUT_MS: u32 = 300;

#[derive(QueryableByName)]
struct Part {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// Makes the parts for contents that expire between now and `ahead_s` from now, and drops those whose last content expired a day ago or
/// longer. Returns how many were made and dropped. Creating a part locks the table for a moment.
pub(in crate::db) fn keep(conn: &mut PgConnection, now_s: u64, ahead_s: u64) -> Result<(usize, usize), StorageError> {
    let there: Vec<Part> = diesel::sql_query(
        "SELECT child.relname::text AS name FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
         WHERE inhparent = 'contents'::regclass",
    )
    .load(conn)?;
    conn.batch_execute(&format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))?;
    let has = |week: i64| there.iter().any(|part| part.name == name(week));
    let first = week(now_s);
    let last = week(now_s.saturating_add(ahead_s)) + 1;
    let wanted = first..=last.min(first + MAX_WEEKS as i64);
    let mut made = 0;
    for week in wanted.filter(|week| !has(*week)) {
        make(conn, week)?;
        made += 1;
    }
    let over = week(now_s.saturating_sub(86_400));
    let mut dropped = 0;
    for part in &there {
        let of = part.name.strip_prefix("contents_w").and_then(|week| week.parse::<i64>().ok());
        if of.is_some_and(|week| week < over) {
            conn.batch_execute(&format!("DROP TABLE IF EXISTS {}", part.name))?;
            dropped += 1;
        }
    }
    Ok((made, dropped))
}

/// Makes the part of a week, unless it is there. The last week that a key can name has none. Contents of that week that came before the part
/// did are moved into it.
pub(in crate::db) fn make(conn: &mut PgConnection, week: i64) -> Result<(), StorageError> {
    let Some(to) = (week + 1).checked_mul(1 << WEEK_SHIFT) else { return Ok(()) };
    let (name, from) = (name(week), week << WEEK_SHIFT);
    let range = format!("FOR VALUES FROM ({from}) TO ({to})");
    let early = format!("content_key >= {from} AND content_key < {to}");
    let has_early: Found = diesel::sql_query(format!(
        "SELECT to_regclass('{name}') IS NULL AND EXISTS (SELECT 1 FROM contents_default WHERE {early}) AS found"
    ))
    .get_result(conn)?;
    let sql = if has_early.found {
        // Nobody may look for a row in the part that it is just leaving.
        format!(
            "LOCK TABLE contents IN ACCESS EXCLUSIVE MODE;
             CREATE TABLE {name} (LIKE contents INCLUDING ALL);
             WITH moved AS (DELETE FROM contents_default WHERE {early} RETURNING *) INSERT INTO {name} SELECT * FROM moved;
             ALTER TABLE contents ATTACH PARTITION {name} {range}"
        )
    } else {
        format!("CREATE TABLE IF NOT EXISTS {name} PARTITION OF contents {range}")
    };
    Ok(conn.batch_execute(&sql)?)
}

fn name(week: i64) -> String {
    format!("contents_w{week}")
}
