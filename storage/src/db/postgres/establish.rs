//! A connection that is set up, to a server that keeps promises.

use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    pg::PgConnection,
    sql_types::{Bool, Integer, Text},
};

use crate::db::{DatabaseUrl, DbConfig, Durability, StorageError};

/// The oldest major release that is tested.
const OLDEST_MAJOR: i32 = 15;
/// What a statement may wait for a lock, in milliseconds: longer than any transaction here takes.
pub(super) const LOCK_TIMEOUT_MS: u32 = 5_000;
/// A transaction that its node has forgotten (a machine that lost power) is ended after so long, in milliseconds: its locks hold up
/// others' sends.
const IDLE_TIMEOUT_MS: u32 = 15_000;

/// Connects. The network's own time-outs end what a lost peer would keep waiting for ever, on both ends: a machine that lost power must not
/// keep its locks, nor its node's id, for the hours that the server's defaults allow.
pub(super) fn establish(config: &DbConfig, url: &DatabaseUrl) -> Result<PgConnection, StorageError> {
    let timeout_s = config.timeout.as_secs().max(2);
    let timeout_ms = config.timeout.as_millis();
    let joint = if url.reveal().contains('?') { '&' } else { '?' };
    let full = format!(
        "{}{joint}connect_timeout={timeout_s}&tcp_user_timeout={timeout_ms}&keepalives_idle=5&keepalives_interval=2\
         &keepalives_count=3&application_name=martlet",
        url.reveal()
    );
    let mut conn = PgConnection::establish(&full).map_err(|error| refused(url, &error.to_string()))?;
    // Plans must not follow statistics: tables that were empty when a statement was planned hold millions of rows an hour later, and
    // every statement here has an index for what it looks up.
    conn.batch_execute(&format!(
        "SET statement_timeout = {timeout_ms}; SET lock_timeout = {LOCK_TIMEOUT_MS};
         SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}; SET client_min_messages = warning;
         SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
         SET tcp_user_timeout = {timeout_ms};
         SET jit = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off"
    ))?;
    Ok(conn)
}

/// A wrong address or password is for the operator to mend, a server that is away comes back.
fn refused(url: &DatabaseUrl, message: &str) -> StorageError {
    // An address may name several servers, and each has its line: while they change roles, the first that is asked may be a standby.
    let passes = [
        "Connection refused",
        "timeout expired",
        "the database system is",
        "server closed",
        "too many clients",
        "session is read-only",
        "server is in hot standby mode",
        "No route to host",
        "Network is unreachable",
        "Connection reset",
        "Temporary failure in name resolution",
    ];
    let is_passing = passes.iter().any(|text| message.contains(text));
    let message = message.lines().next().unwrap_or_default();
    if is_passing {
        return StorageError::Unavailable(format!("{url}: {message}"));
    }
    StorageError::Open { place: url.to_string(), reason: message.to_owned() }
}

#[derive(QueryableByName)]
struct Facts {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Bool)]
    may_create: bool,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Text)]
    fsync: String,
    #[diesel(sql_type = Text)]
    full_page_writes: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
}

/// Refuses a server that is too old, a standby, or one that would lose what was answered.
pub(super) fn check_primary(conn: &mut PgConnection, durability: Durability) -> Result<(), StorageError> {
    let facts: Facts = diesel::sql_query(
        "SELECT current_setting('server_version_num')::integer / 10000 AS version, pg_is_in_recovery() AS is_standby,
                coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
                current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
                current_setting('full_page_writes') AS full_page_writes,
                current_setting('synchronous_commit') AS synchronous_commit",
    )
    .get_result(conn)?;
    let unfit = |text: String| Err(StorageError::Unfit(text));
    if facts.version < OLDEST_MAJOR {
        return unfit(format!("PostgreSQL {} is too old; {OLDEST_MAJOR} or newer is needed", facts.version));
    }
    if facts.is_standby {
        return unfit("the database is a standby; name the primary in storage.database_url".to_owned());
    }
    if !facts.may_create {
        return unfit(
            "the database's user may not create tables; run as its owner: GRANT CREATE, USAGE ON SCHEMA public TO <user>"
                .to_owned(),
        );
    }
    if facts.encoding != "UTF8" {
        return unfit(format!("the database's encoding is {}; create it with ENCODING 'UTF8'", facts.encoding));
    }
    if durability == Durability::Full {
        let settings = [
            ("fsync", facts.fsync),
            ("full_page_writes", facts.full_page_writes),
            ("synchronous_commit", facts.synchronous_commit),
        ];
        for (setting, found) in settings {
            if found == "off" {
                return Err(StorageError::NotDurable { setting, found, needed: "on" });
            }
        }
    }
    Ok(())
}
