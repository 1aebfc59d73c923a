//! The embedded store as it is moved: nobody else has it open, and nothing in it changes meanwhile.

use diesel::{
    QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_types::{BigInt, Text},
    sqlite::SqliteConnection,
};

use super::{MoveError, Row, Table, Value, read};
use crate::db::{
    Conn, DbConfig, Place, SchemaState, StorageError,
    conn::on,
    postgres::parts::{WEEK_S, WEEK_SHIFT},
    sqlite, store,
};

/// The store. The file is given back when it is dropped.
pub struct Source {
    conn: Conn,
}

/// What belongs to the store as a whole.
pub struct SourceFacts {
    /// Drawn when the store was made.
    pub store_id: Vec<u8>,
    /// The store's part of every stream's epoch.
    pub epoch: i64,
    /// The newest migration.
    pub schema: String,
    /// MAC of `store_id` under the node's secret; none if no node has bound it yet.
    pub secret_check: Option<Vec<u8>>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

impl Source {
    /// Takes the whole file, which fails while a node has it open, and finds the new keys of shared contents.
    ///
    /// # Errors
    /// [`MoveError::NotEmbedded`], [`MoveError::NoStore`], [`MoveError::OtherSchema`], [`MoveError::SourceInUse`], and what the database
    /// says.
    pub fn open(config: &DbConfig) -> Result<Self, MoveError> {
        let Place::File(path) = &config.place else { return Err(MoveError::NotEmbedded) };
        if !path.exists() {
            return Err(MoveError::NoStore(path.display().to_string()));
        }
        let in_use = |error: StorageError| match error {
            StorageError::Busy => MoveError::SourceInUse,
            error => MoveError::Storage(error),
        };
        // Asked by another connection, and before the file is taken.
        if sqlite::schema_state(config, path).map_err(in_use)? != (SchemaState { pending: 0, newer: 0 }) {
            return Err(MoveError::OtherSchema);
        }
        let mut conn = sqlite::establish(config, path)?;
        // In this mode SQLite takes the lock that every open connection of another process stands in the way of, even one that is idle.
        let taken = conn.batch_execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; BEGIN IMMEDIATE;");
        taken.map_err(|error| in_use(error.into()))?;
        number_contents(&mut conn)?;
        let mut source = Self { conn: Conn::Sqlite(conn) };
        let large =
            format!("SELECT count(*) AS number FROM {} WHERE old_key >> {WEEK_SHIFT} != 0", read::MOVED_CONTENTS);
        match source.number(large)? {
            0 => Ok(source),
            _ => Err(StorageError::Inconsistent("the key of a shared content is too large").into()),
        }
    }

    /// Reads what belongs to the store as a whole.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if a query fails.
    pub fn facts(&mut self) -> Result<SourceFacts, MoveError> {
        let facts = store::facts(&mut self.conn)?;
        let epoch = self.number("SELECT epoch AS number FROM store".to_owned())?;
        let schema = schema(&mut self.conn)?;
        Ok(SourceFacts { store_id: facts.store_id, epoch, schema, secret_check: facts.secret_check })
    }

    /// Binds the store to the node's secret, as a node's start does; for a store that no node of this release has opened.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn bind_secret(&mut self, secret_check: &[u8]) -> Result<(), MoveError> {
        Ok(store::bind_secret(&mut self.conn, secret_check)?)
    }

    /// How many rows a table has.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn count(&mut self, table: &Table) -> Result<u64, MoveError> {
        let count = self.number(format!("SELECT count(*) AS number FROM {}", table.name))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The rows after a key, at most a page of them, in the order of the key; from the first one without a key. Shared contents have the
    /// keys that they get in PostgreSQL.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn read(&mut self, table: &Table, after: Option<&[Value]>) -> Result<Vec<Row>, MoveError> {
        Ok(read::page(&mut self.conn, table, after)?)
    }

    /// Gives the file back. What was bound stays bound.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the disk does not take it.
    pub fn close(mut self) -> Result<(), MoveError> {
        on!(&mut self.conn, c => c.batch_execute("COMMIT"))?;
        Ok(())
    }

    fn number(&mut self, sql: String) -> Result<i64, StorageError> {
        let found: Number = on!(&mut self.conn, c => diesel::sql_query(sql).get_result(c))?;
        Ok(found.number)
    }
}

/// Finds the keys that shared contents get in PostgreSQL, for everything that is read from this connection afterwards.
pub(super) fn number_contents(conn: &mut SqliteConnection) -> Result<(), StorageError> {
    let week = (1_i64 << (63 - WEEK_SHIFT)) - 1;
    conn.batch_execute(&format!(
        "CREATE TEMP TABLE {moved} (content_key INTEGER PRIMARY KEY, old_key BIGINT NOT NULL UNIQUE);
         INSERT INTO {moved} (content_key, old_key)
         SELECT (max(min(week, {week})) << {WEEK_SHIFT}) | content_key, content_key FROM (
             SELECT content_key, expires_at_s / {WEEK_S} AS week FROM mailbox_entries WHERE content_key IS NOT NULL
             UNION ALL SELECT content_key, 0 FROM contents
         ) GROUP BY content_key;",
        moved = read::MOVED_CONTENTS,
    ))?;
    Ok(())
}

/// The newest migration that a store has.
pub(super) fn schema(conn: &mut Conn) -> Result<String, StorageError> {
    let sql = "SELECT max(version) AS version FROM __diesel_schema_migrations";
    let found: Version = on!(conn, c => diesel::sql_query(sql).get_result(c))?;
    Ok(found.version)
}
