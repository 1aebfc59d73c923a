//! The comparison: the same forks written one by one, each in an SQLite transaction of its own, as a service without group commit would.
//!
//! The table, the durability and the disk are those of the node. What is left out is in favour of the comparison: no seq is handed out,
//! no idempotency row is written, nothing is acknowledged, and it has both cores for itself.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use diesel::{
    Connection as _, ExpressionMethods as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use serde::Serialize;

use super::ends::Mailbox;
use crate::{ambient, figures::rate, node::Cluster, progress::Progress};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");

/// As the node sets its writer, so that both do the same for durability.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;";

diesel::table! {
    mailbox_entries (entry_key) {
        entry_key -> BigInt,
        device_key -> BigInt,
        seq -> BigInt,
        size_bytes -> BigInt,
        entry_id -> Binary,
        sealed -> Binary,
        expires_at_s -> BigInt,
        own_lifetime -> SmallInt,
    }
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What was done, to end a sentence with.
    pub how: &'static str,
    /// Rows that were written, one transaction each.
    pub rows: u64,
    /// Rows that the node wrote, without echoes.
    pub wanted: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Rows per second.
    pub rows_per_second: f64,
}

impl Comparison {
    /// It was stopped early, so its rate stands for the rest.
    #[must_use]
    pub fn is_extrapolated(&self) -> bool {
        self.rows < self.wanted
    }
}

/// Writes as many of the forks that came, message by message, for at most so long.
///
/// # Errors
/// When the database can't be written.
pub fn run(
    folder: &Path,
    boxes: &[Mailbox],
    devices_per_circle: usize,
    wanted: u64,
    longest: Duration,
) -> Result<Comparison> {
    let path = folder.join("row-by-row.sqlite3");
    let path = path.to_str().ok_or_else(|| anyhow!("the folder's name is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(path).context("the comparison's database")?;
    conn.batch_execute(SETTINGS)?;
    conn.run_pending_migrations(MIGRATIONS).map_err(|error| anyhow!("the comparison's database: {error}"))?;
    let progress = Progress::new("writing row by row", wanted);
    let since = ambient::now();
    let mut rows = 0;
    let longest_box = boxes.iter().map(|mailbox| mailbox.entries.len()).max().unwrap_or(0);
    'rows: for number in 0..longest_box {
        for (index, mailbox) in boxes.iter().enumerate().filter(|(index, _)| !index.is_multiple_of(devices_per_circle))
        {
            let Some(entry) = mailbox.entries.get(number) else { continue };
            if rows == wanted || since.elapsed() >= longest {
                break 'rows;
            }
            let row = (
                mailbox_entries::device_key.eq(i64::try_from(index)?),
                mailbox_entries::seq.eq(i64::try_from(entry.seq)?),
                mailbox_entries::size_bytes.eq(i64::try_from(entry.sealed.len())?),
                mailbox_entries::entry_id.eq(entry.entry_id.as_ref()),
                mailbox_entries::sealed.eq(entry.sealed.as_ref()),
                mailbox_entries::expires_at_s.eq(4_000_000_000_i64),
                mailbox_entries::own_lifetime.eq(0_i16),
            );
            // A statement outside a transaction is a transaction.
            diesel::insert_into(mailbox_entries::table).values(row).execute(&mut conn)?;
            rows += 1;
            progress.one();
        }
    }
    let time = since.elapsed();
    progress.done("");
    let how = "one SQLite transaction each";
    Ok(Comparison { how, rows, wanted, seconds: time.as_secs_f64(), rows_per_second: rate(rows, time) })
}

/// In a cluster: what eight clients of PostgreSQL reach that write one row per transaction, on the same server and with rows of the same
/// size. Left out in its favour is the same as in [`run`].
///
/// # Errors
/// When pgbench can't be run.
pub fn single_rows(cluster: &Cluster, boxes: &[Mailbox], wanted: u64, time: Duration) -> Result<Comparison> {
    let sealed = boxes.iter().filter_map(|mailbox| mailbox.entries.first()).map(|entry| entry.sealed.len());
    let (count, bytes) = sealed.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len));
    let progress = Progress::new("writing row by row", 1);
    let rows_per_second = cluster.single_rows(bytes / count.max(1), time)?;
    progress.done("");
    let seconds = time.as_secs_f64();
    let rows = format!("{:.0}", rows_per_second * seconds).parse().unwrap_or(0);
    let how = "pgbench -c 8 on the same PostgreSQL, one transaction each";
    Ok(Comparison { how, rows, wanted: rows.min(wanted), seconds, rows_per_second })
}
