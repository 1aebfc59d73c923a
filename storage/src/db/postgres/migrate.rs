//! Migrations, one node at a time: the others wait at the lock and then find nothing to do.

use diesel::{
    RunQueryDsl as _,
    connection::SimpleConnection as _,
    migration::MigrationSource,
    pg::{Pg, PgConnection},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::establish::{check_primary, establish};
use crate::db::{DatabaseUrl, DbConfig, SchemaState, StorageError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/postgresql");

/// The advisory lock's key: "martlet" in ASCII.
const LOCK: i64 = 0x6d61_7274_6c65_7400;

/// Runs what is missing; returns how many ran.
pub(in crate::db) fn migrate(config: &DbConfig, url: &DatabaseUrl) -> Result<usize, StorageError> {
    let mut conn = establish(config, url)?;
    check_primary(&mut conn, config.durability)?;
    run(&mut conn)
}

/// As [`migrate`], over a connection that is there. The time-outs of ordinary statements don't count here.
pub(super) fn run(conn: &mut PgConnection) -> Result<usize, StorageError> {
    let (pending, newer) = compare(conn)?;
    if newer > 0 {
        return Err(StorageError::Newer(newer));
    }
    if pending == 0 {
        return Ok(0);
    }
    conn.batch_execute("SET statement_timeout = 0; SET lock_timeout = '60s'")?;
    diesel::sql_query(format!("SELECT pg_advisory_lock({LOCK})")).execute(conn)?;
    let ran = conn.run_pending_migrations(MIGRATIONS).map(|ran| ran.len());
    diesel::sql_query(format!("SELECT pg_advisory_unlock({LOCK})")).execute(conn)?;
    conn.batch_execute("RESET statement_timeout; RESET lock_timeout")?;
    ran.map_err(|error| StorageError::Migration(error.to_string()))
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
