//! One process per node id: the id is an advisory lock of a connection that does nothing else, so that it is free the moment its process is
//! gone, however it went.

use diesel::{
    QueryableByName, RunQueryDsl as _,
    pg::PgConnection,
    sql_types::{BigInt, Bool},
};
use parking_lot::Mutex;

use super::establish::establish;
use crate::db::{DatabaseUrl, DbConfig, StorageError};

/// Upper half of the lock's key, so that ids meet no other advisory lock: "node" in ASCII.
const CLASS: i32 = 0x6e6f_6465;

/// The right to a node's id; gives it back when dropped.
pub struct NodeLock {
    /// `None`: there was nothing to lock.
    conn: Option<Mutex<PgConnection>>,
}

impl NodeLock {
    pub(in crate::db) fn none() -> Self {
        Self { conn: None }
    }

    /// Whether the id is still this process's: a connection that broke has lost it. Blocks.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| diesel::sql_query("SELECT 1").execute(&mut *conn.lock()).is_ok())
    }
}

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = Bool)]
    locked: bool,
}

/// How many ids are taken: nodes that run on this database.
pub(in crate::db) fn count_nodes(conn: &mut PgConnection) -> Result<i64, StorageError> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        nodes: i64,
    }
    let sql = format!(
        "SELECT count(*) AS nodes FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = {CLASS} AND objsubid = 2
         AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let count: Count = diesel::sql_query(sql).get_result(conn)?;
    Ok(count.nodes)
}

/// `None` if another process has it.
pub(in crate::db) fn claim_node_id(
    config: &DbConfig,
    url: &DatabaseUrl,
    node_id: &str,
) -> Result<Option<NodeLock>, StorageError> {
    use diesel::sql_types::{Integer, Text};
    let mut conn = establish(config, url)?;
    let locked: Locked = diesel::sql_query("SELECT pg_try_advisory_lock($1, hashtext($2)) AS locked")
        .bind::<Integer, _>(CLASS)
        .bind::<Text, _>(node_id)
        .get_result(&mut conn)?;
    Ok(locked.locked.then(|| NodeLock { conn: Some(Mutex::new(conn)) }))
}
