//! What is PostgreSQL's own: how connections are set up and judged, migrations under a lock, transactions, parts of tables, the lock on a
//! node's id. SQL that Diesel's DSL can't say stands in [`rows`] and [`parts`].

mod establish;
mod lineage;
mod migrate;
mod node_id;
pub(super) mod parts;
pub(super) mod rows;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use diesel::{
    QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    pg::PgConnection,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_types::{BigInt, Bool},
};

use super::{Conn, DatabaseUrl, DbConfig, Inner, StorageError, conn::Begin, pool::Pool, transfer::target};
use establish::establish;
pub(super) use migrate::{migrate, schema_state};
pub use node_id::NodeLock;
pub(super) use node_id::{claim_node_id, count_nodes};

/// Checks the server, migrates the store, and makes the pools. Replicas are connected to when they are first read.
pub(super) fn open(config: &DbConfig, url: &DatabaseUrl, replicas: &[DatabaseUrl]) -> Result<Inner, StorageError> {
    let mut first = primary(config, url)?;
    target::refuse_unfinished(&mut first)?;
    let newest_epoch = Arc::new(AtomicU64::new(lineage::settle(&mut first, config.standbys)?));
    let pool = |url: &DatabaseUrl, begin, opened, size| {
        let (again, url, newest_epoch) = (config.clone(), url.clone(), newest_epoch.clone());
        let newest = newest_epoch.clone();
        // Nothing is read or written before it is known what the database is.
        let open = Box::new(move || {
            let mut conn = establish(&again, &url)?;
            let epoch = lineage::settle(&mut conn, again.standbys)?;
            if newest_epoch.fetch_max(epoch, Ordering::SeqCst) > epoch {
                return Err(unavailable(
                    "this server's history ends before the one that was served from (an old primary that came back?); make it a standby",
                ));
            }
            Ok(Conn::Postgres(conn))
        });
        Pool::new(open, begin, opened, size, config.wait).dropping_older(newest)
    };
    let replica = |url: &DatabaseUrl| {
        let (again, url) = (config.clone(), url.clone());
        let open = Box::new(move || establish(&again, &url).map(Conn::Postgres));
        Pool::new(open, Begin::Read, Vec::new(), config.read_connections, config.wait).shared()
    };
    Ok(Inner {
        reads: pool(url, Begin::Read, Vec::new(), config.read_connections),
        replicas: replicas.iter().map(replica).collect(),
        writes: pool(url, Begin::Write, vec![Conn::Postgres(first)], config.write_connections),
        commits: pool(url, Begin::Write, Vec::new(), config.commit_connections),
        config: config.clone(),
        newest_epoch,
    })
}

/// Connects to a server that keeps promises, and migrates the store.
pub(super) fn primary(config: &DbConfig, url: &DatabaseUrl) -> Result<PgConnection, StorageError> {
    let mut conn = establish(config, url)?;
    establish::check_primary(&mut conn, config.durability)?;
    migrate::run(&mut conn, config.timeout.as_millis())?;
    Ok(conn)
}

pub(super) fn begin(conn: &mut PgConnection, begin: Begin) -> Result<(), StorageError> {
    Ok(conn.batch_execute(match begin {
        Begin::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        Begin::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    })?)
}

/// Commits. If that fails, the outcome is not known, and the connection is to be closed.
pub(super) fn commit(conn: &mut PgConnection) -> Result<(), StorageError> {
    Ok(conn.batch_execute("COMMIT")?)
}

/// Undoes the transaction; false if the connection did not take even that.
pub(super) fn roll_back(conn: &mut PgConnection) -> bool {
    conn.batch_execute("ROLLBACK").is_ok()
}

/// What the server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct ServerFacts {
    /// Its time, Unix milliseconds.
    #[diesel(sql_type = BigInt)]
    pub now_ms: i64,
    /// It is a standby: nothing can be written.
    #[diesel(sql_type = Bool)]
    pub is_standby: bool,
}

/// `None` for SQLite.
pub(super) fn server_facts(conn: &mut Conn) -> Result<Option<ServerFacts>, StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(None) };
    let sql =
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms, pg_is_in_recovery() AS is_standby";
    Ok(Some(diesel::sql_query(sql).get_result(c)?))
}

/// Sorts what PostgreSQL and libpq say into what a caller can do about it. They tell some things by their text alone.
pub(super) fn error(error: DieselError) -> StorageError {
    let DieselError::DatabaseError(kind, info) = &error else { return StorageError::Database(error) };
    let message = info.message();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    match kind {
        DatabaseErrorKind::SerializationFailure => StorageError::Contended(message.to_owned()),
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => unavailable(message),
        DatabaseErrorKind::ReadOnlyTransaction => unavailable("it is a standby, or was made read-only"),
        _ if says(&["deadlock detected", "due to lock timeout"]) => StorageError::Contended(message.to_owned()),
        _ if says(&[
            "server closed the connection",
            "terminating connection",
            "connection to server",
            "could not receive data",
            "could not send data",
            "SSL connection has been closed",
            "no connection to the server",
            "the database system is",
            "recovery is in progress",
            "due to statement timeout",
            "No space left on device",
            "too many clients",
            "remaining connection slots",
        ]) =>
        {
            unavailable(message)
        }
        _ => StorageError::Database(error),
    }
}

fn unavailable(message: &str) -> StorageError {
    StorageError::Unavailable(message.lines().next().unwrap_or_default().to_owned())
}
