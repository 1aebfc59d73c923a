//! Migrations, one node at a time: the others wait at the lock and then find nothing to do.

use diesel::{
    connection::SimpleConnection as _,
    migration::MigrationSource,
    pg::{Pg, PgConnection},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::establish::{LOCK_TIMEOUT_MS, check_primary, establish};
use crate::db::{DatabaseUrl, DbConfig, SchemaState, StorageError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/postgresql");

/// The advisory lock's key: "martlet" in ASCII.
const LOCK: i64 = 0x6d61_7274_6c65_7400;

/// Runs what is missing; returns how many ran.
pub(in crate::db) fn migrate(config: &DbConfig, url: &DatabaseUrl) -> Result<usize, StorageError> {
    let mut conn = establish(config, url)?;
    check_primary(&mut conn, config.durability)?;
    run(&mut conn, config.timeout.as_millis())
}

/// As [`migrate`], over a connection that is there. The time-outs of ordinary statements don't count here.
pub(super) fn run(conn: &mut PgConnection, timeout_ms: u128) -> Result<usize, StorageError> {
    let unlimited = "SET statement_timeout = 0; SET lock_timeout = '60s'";
    conn.batch_execute(&format!("{unlimited}; SELECT pg_advisory_lock({LOCK})"))?;
    let ran = run_locked(conn);
    let limits = format!("SET statement_timeout = {timeout_ms}; SET lock_timeout = {LOCK_TIMEOUT_MS}");
    conn.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK}); {limits}"))?;
    ran
}

fn run_locked(conn: &mut PgConnection) -> Result<usize, StorageError> {
    let (pending, newer) = compare(conn)?;
    if newer > 0 {
        return Err(StorageError::Newer(newer));
    }
    if pending == 0 {
        return Ok(0);
    }
    let ran = conn.run_pending_migrations(MIGRATIONS).map_err(|error| StorageError::Migration(error.to_string()))?;
    Ok(ran.len())
}

/// How the database's schema stands to this release's migrations; nothing is migrated.
pub(in crate::db) fn schema_state(config: &DbConfig, url: &DatabaseUrl) -> Result<SchemaState, StorageError> {
    let mut conn = establish(config, url)?;
    check_primary(&mut conn, config.durability)?;
    let (pending, newer) = compare(&mut conn)?;
    Ok(SchemaState { pending, newer })
}

/// Migrations that are missing, and those of a newer release.
fn compare(conn: &mut PgConnection) -> Result<(usize, usize), StorageError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| StorageError::Migration(error.to_string());
    let known = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(failed)?;
    let known: Vec<_> = known.iter().map(|migration| migration.name().version().as_owned()).collect();
    let applied = conn.applied_migrations().map_err(failed)?;
    let pending = known.iter().filter(|version| !applied.contains(version)).count();
    let newer = applied.iter().filter(|version| !known.contains(version)).count();
    Ok((pending, newer))
}
