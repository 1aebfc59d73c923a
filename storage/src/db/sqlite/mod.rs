//! What is SQLite's own: how a connection is set up, and the SQL that Diesel's DSL can't say.
//!
//! The writer's commits go to the write-ahead log and are synced there (`synchronous=FULL`); every [`CHECKPOINT_PAGES`] the writer
//! moves them into the file.

mod lock;
pub(super) mod rows;

use std::{path::Path, sync::Arc, time::Duration};

use diesel::{
    Connection as _, RunQueryDsl as _,
    connection::SimpleConnection as _,
    dsl::sql,
    migration::MigrationSource,
    result::Error as DieselError,
    sql_types::{BigInt, Text},
    sqlite::{Sqlite, SqliteConnection},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{Conn, DbConfig, Durability, Inner, SchemaState, StorageError, conn::Begin, pool::Pool};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");

/// Pages of 4 KiB in the log after which the writer moves them into the file and syncs that: 16 MiB. Busy pages of the indexes are
/// then written back once for many commits, and a restart after a crash replays at most about this much.
const CHECKPOINT_PAGES: u32 = 4096;
/// What the log's file shrinks back to after a burst, in bytes. Larger than a checkpoint, so that it is not cut and grown each time.
const LOG_LIMIT_BYTES: u64 = 64 << 20;
/// The writer's page cache in KiB: the hot ends of the mailbox tables and the heads of some hundred thousand devices.
const WRITER_CACHE_KIB: u32 = 64 << 10;
/// A reader's page cache in KiB. Small: the operating system caches the file too, and there are several readers,
/// whose caches fill as connections come.
const READER_CACHE_KIB: u32 = 2 << 10;

/// Runs the missing migrations on a connection.
pub(super) fn migrate_on(conn: &mut SqliteConnection) -> Result<(), StorageError> {
    let ran = conn.run_pending_migrations(MIGRATIONS).map(|_| ());
    ran.map_err(|error| StorageError::Migration(error.to_string()))
}

/// Opens one connection that writes and some that read, for this process alone.
pub(super) fn open(config: &DbConfig, path: &Path) -> Result<Inner, StorageError> {
    let (writer, _) = open_writer(config, path)?;
    // After the store was found fit, so that what is wrong with it is told first. Migrations need no lock: nodes may serve meanwhile.
    let lock = Arc::new(lock::take(path)?);
    let count = config.read_connections.max(1);
    let readers = (0..count).map(|_| open_reader(config, path)).collect::<Result<Vec<_>, _>>()?;
    let again = |open: fn(&DbConfig, &Path) -> Result<Conn, StorageError>| {
        let (config, path, lock) = (config.clone(), path.to_owned(), lock.clone());
        Box::new(move || {
            // Held for as long as there is a pool.
            let _held = &lock;
            open(&config, &path)
        })
    };
    let writes = again(|config, path| Ok(open_writer(config, path)?.0));
    let writes = Pool::new(writes, Begin::Write, vec![writer], 1, config.wait).shared();
    let reads = Pool::new(again(open_reader), Begin::Read, readers, count, config.wait).shared();
    Ok(Inner {
        reads,
        replicas: Vec::new(),
        commits: writes.clone(),
        writes,
        config: config.clone(),
        newest_epoch: Arc::default(),
    })
}

/// Runs the missing migrations; returns how many.
pub(super) fn migrate(config: &DbConfig, path: &Path) -> Result<usize, StorageError> {
    Ok(open_writer(config, path)?.1)
}

/// Opens the writer and migrates the store; tells by how many migrations.
fn open_writer(config: &DbConfig, path: &Path) -> Result<(Conn, usize), StorageError> {
    let mut conn = establish(config, path)?;
    let synchronous = match config.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    // No memory map: a read error would then be a signal that kills the node, and reads come from the page caches anyway.
    conn.batch_execute(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = {LOG_LIMIT_BYTES};
         PRAGMA cache_size = -{WRITER_CACHE_KIB}; PRAGMA temp_store = MEMORY;"
    ))
    .map_err(|error| open_error(path, &error))?;
    check_durability(&mut conn, config.durability)?;
    let ran = conn.run_pending_migrations(MIGRATIONS).map_err(|error| StorageError::Migration(error.to_string()))?;
    let ran = ran.len();
    Ok((Conn::Sqlite(conn), ran))
}

/// Opens a reader, which can't write.
fn open_reader(config: &DbConfig, path: &Path) -> Result<Conn, StorageError> {
    let mut conn = establish(config, path)?;
    conn.batch_execute(&format!(
        "PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -{READER_CACHE_KIB}; PRAGMA temp_store = MEMORY;"
    ))
    .map_err(|error| open_error(path, &error))?;
    Ok(Conn::Sqlite(conn))
}

pub(super) fn establish(config: &DbConfig, path: &Path) -> Result<SqliteConnection, StorageError> {
    let open = |reason: String| StorageError::Open { place: path.display().to_string(), reason };
    let text = path.to_str().ok_or_else(|| open("the path is not UTF-8".to_owned()))?;
    let mut conn = SqliteConnection::establish(text).map_err(|error| open(error.to_string()))?;
    let wait_ms = Duration::as_millis(&config.wait);
    // First of all: the other settings may wait for a lock themselves.
    conn.batch_execute(&format!("PRAGMA busy_timeout = {wait_ms};")).map_err(|error| open_error(path, &error))?;
    Ok(conn)
}

fn open_error(path: &Path, error: &DieselError) -> StorageError {
    if is_busy(error) {
        return StorageError::Busy;
    }
    StorageError::Open { place: path.display().to_string(), reason: error.to_string() }
}

/// Reads the settings back: a file system or a build may refuse them without an error.
fn check_durability(conn: &mut SqliteConnection, wanted: Durability) -> Result<(), StorageError> {
    let mode: String =
        diesel::select(sql::<Text>("(SELECT journal_mode FROM pragma_journal_mode)")).get_result(conn)?;
    if mode != "wal" {
        return Err(StorageError::NotDurable { setting: "journal_mode", found: mode, needed: "wal" });
    }
    let level: i64 = diesel::select(sql::<BigInt>("(SELECT synchronous FROM pragma_synchronous)")).get_result(conn)?;
    let needed = match wanted {
        Durability::Full => 2,
        Durability::Normal => 1,
    };
    if level < needed {
        return Err(StorageError::NotDurable { setting: "synchronous", found: level.to_string(), needed: "2 (FULL)" });
    }
    Ok(())
}

/// Begins a transaction. One that an earlier call could not end is undone first.
pub(super) fn begin(conn: &mut SqliteConnection, begin: Begin) -> Result<(), StorageError> {
    let sql = match begin {
        Begin::Write => "BEGIN IMMEDIATE",
        Begin::Read => "BEGIN DEFERRED",
    };
    match conn.batch_execute(sql) {
        Err(error) if says(&error, "cannot start a transaction within a transaction") => {
            conn.batch_execute("ROLLBACK")?;
            Ok(conn.batch_execute(sql)?)
        }
        begun => Ok(begun?),
    }
}

/// Commits; a commit that fails is undone.
pub(super) fn commit(conn: &mut SqliteConnection) -> Result<(), StorageError> {
    let committed = conn.batch_execute("COMMIT");
    if committed.is_err() {
        roll_back(conn);
    }
    Ok(committed?)
}

/// Undoes the transaction, unless SQLite has done so already (it does when the disk is full). If that fails, [`begin`] tries again.
pub(super) fn roll_back(conn: &mut SqliteConnection) {
    match conn.batch_execute("ROLLBACK") {
        Err(error) if !says(&error, "cannot rollback - no transaction is active") => {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Moves the whole log into the file and truncates it.
pub(super) fn checkpoint(conn: &mut Conn) -> Result<(), StorageError> {
    match conn {
        Conn::Sqlite(c) => Ok(c.batch_execute("PRAGMA wal_checkpoint(TRUNCATE);")?),
        Conn::Postgres(_) => Ok(()),
    }
}

/// How the schema of the store's file stands to this release's migrations. The file must exist; nothing is migrated.
pub(super) fn schema_state(config: &DbConfig, path: &Path) -> Result<SchemaState, StorageError> {
    let mut conn = establish(config, path)?;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| StorageError::Migration(error.to_string());
    let known = MigrationSource::<Sqlite>::migrations(&MIGRATIONS).map_err(failed)?;
    let known: Vec<_> = known.iter().map(|migration| migration.name().version().as_owned()).collect();
    let applied = conn.applied_migrations().map_err(failed)?;
    let pending = known.iter().filter(|version| !applied.contains(version)).count();
    let newer = applied.iter().filter(|version| !known.contains(version)).count();
    Ok(SchemaState { pending, newer })
}

/// SQLite's `SQLITE_BUSY` reaches us as a message.
pub(super) fn is_busy(error: &DieselError) -> bool {
    says(error, "database is locked") || says(error, "database table is locked")
}

fn says(error: &DieselError, message: &str) -> bool {
    matches!(error, DieselError::DatabaseError(_, info) if info.message() == message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_synchronous_than_asked_for_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("martlet.db");
        let mut conn = establish(&DbConfig::new(&path), &path).expect("opens");
        conn.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").expect("set");
        let refused = check_durability(&mut conn, Durability::Full);
        assert!(matches!(refused, Err(StorageError::NotDurable { setting: "synchronous", .. })), "{refused:?}");
        check_durability(&mut conn, Durability::Normal).expect("asked for");
        conn.batch_execute("PRAGMA synchronous = OFF;").expect("set");
        assert!(check_durability(&mut conn, Durability::Normal).is_err());
    }
}
