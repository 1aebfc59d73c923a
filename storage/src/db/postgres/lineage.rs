//! Noticing that the database has another past than the one that was served from.
//!
//! A standby that is promoted, and a copy that is restored, may lack what was answered last. Mailboxes would give out the lost entries'
//! numbers again, devices would take the new entries for those they have, and acks of lost entries would delete new ones. So, before
//! anything else is done over a connection to such a database, the store's epoch is raised, which every mailbox's epoch is part of: devices
//! are told that their cursors are of another numbering, and read what there is. One-time prekeys that nobody has claimed, as far as this
//! database knows, may have been claimed all the same, so none of an older epoch is given out; devices upload new ones.
//!
//! PostgreSQL begins a new timeline with each promotion and each recovery to a point in time (manual, 26.3.5), and a database that was
//! loaded from a dump is in a cluster with another system identifier.

use diesel::{
    QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    pg::PgConnection,
    sql_types::{BigInt, Text},
};

use crate::db::{StorageError, config::Standbys, convert::read_u64};

#[derive(QueryableByName)]
struct Lineage {
    #[diesel(sql_type = Text)]
    system: String,
    /// Eight hexadecimal digits; empty if the server does not tell.
    #[diesel(sql_type = Text)]
    timeline: String,
    #[diesel(sql_type = Text)]
    recorded: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    now_s: i64,
}

impl Lineage {
    fn now(&self) -> String {
        format!("{}/{}", self.system, self.timeline)
    }

    /// Whether something may be missing since it was recorded.
    fn may_lack(&self, standbys: Standbys) -> bool {
        let Some((system, timeline)) = self.recorded.split_once('/') else { return false };
        let is_untold = timeline.is_empty() || self.timeline.is_empty();
        system != self.system || (standbys == Standbys::MayLag && !is_untold && timeline != self.timeline)
    }

    /// No other branch of the history can have used it: two standbys of one primary may both be promoted, one after the other, and a copy
    /// may be restored from before an earlier failover. So it isn't just the next number.
    fn next_epoch(&self) -> i64 {
        self.now_s.max(self.epoch + 1)
    }
}

/// Compares the server's history with the recorded one, and raises the epoch if it is another. Returns the epoch. The connection is not in
/// a transaction.
///
/// # Errors
/// [`StorageError`] if a query fails, which it does on a standby; [`StorageError::Unfit`] if the server does not tell its history.
pub(super) fn settle(conn: &mut PgConnection, standbys: Standbys) -> Result<u64, StorageError> {
    let (found, ask) = match look(conn, &ASK) {
        Ok(found) => (found, &ASK),
        Err(error) if error.may_pass() => return Err(error),
        // Some services that speak PostgreSQL's protocol have no write-ahead log to ask about.
        Err(_) if standbys == Standbys::Synchronous => (look(conn, &ASK_SYSTEM)?, &ASK_SYSTEM),
        Err(error) => return Err(untold(&error)),
    };
    if found.recorded == found.now() {
        return read_u64(found.epoch);
    }
    // Its own disk is enough: were the commit to wait for a standby that isn't there yet, nothing could be read either. If the raise is
    // lost, whoever comes to the next server raises it there.
    conn.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = local")?;
    let settled = settle_locked(conn, standbys, ask);
    conn.batch_execute(if settled.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    settled
}

/// Of the connections that find a change at once, one acts on it.
fn settle_locked(conn: &mut PgConnection, standbys: Standbys, ask: &Ask) -> Result<u64, StorageError> {
    diesel::sql_query("SELECT FROM store FOR UPDATE").execute(conn)?;
    let found = look(conn, ask)?;
    let (now, mut epoch) = (found.now(), found.epoch);
    if found.recorded == now {
        return read_u64(epoch);
    }
    if found.may_lack(standbys) {
        tracing::warn!(
            before = found.recorded,
            now,
            "the database is another one than before (a failover, or a restored copy) and may lack what was answered last: the store's \
             epoch is raised, devices read their mailboxes anew and upload new one-time prekeys"
        );
        epoch = found.next_epoch();
    }
    diesel::sql_query("UPDATE store SET lineage = $1, epoch = $2")
        .bind::<Text, _>(now)
        .bind::<BigInt, _>(epoch)
        .execute(conn)?;
    read_u64(epoch)
}

/// How the timeline is asked for.
type Ask = &'static str;

/// A file of the write-ahead log is named after the timeline that it is written on.
const ASK: Ask = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
const ASK_SYSTEM: Ask = "''";

fn look(conn: &mut PgConnection, timeline: &Ask) -> Result<Lineage, StorageError> {
    let sql = format!(
        "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system, {timeline} AS timeline,
                store.lineage AS recorded, store.epoch, extract(epoch FROM clock_timestamp())::bigint AS now_s
         FROM store"
    );
    Ok(diesel::sql_query(sql).get_result(conn)?)
}

fn untold(error: &StorageError) -> StorageError {
    StorageError::Unfit(format!(
        "the database does not say which timeline it is on ({}); if its failovers lose nothing that was committed, set \
         storage.standbys = \"synchronous\"",
        error.reason()
    ))
}
