//! The database that a store is moved into. Until the import has ended, a table of its own marks it: it says how far each table is, row
//! counts and rows in one transaction, and no node serves from a database that has it. (A new SQLite file has another name until then: see
//! [`super::file`].)

use std::{collections::BTreeSet, path::PathBuf};

use diesel::{
    QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    pg::PgConnection,
    query_builder::SqlQuery,
    sql_types::{BigInt, Binary, Bool, Text},
};

use super::{MoveError, Row, TABLES, Table, Value, file, read, source, tables::CONTENTS, values::bind_columns};
use crate::db::{
    Conn, DbConfig, Place, StorageError,
    conn::{Begin, on},
    error::expect_rows,
    postgres::{self, parts},
};

/// The advisory lock of whoever imports: "martletI" in ASCII.
const LOCK: i64 = 0x6d61_7274_6c65_7449;

/// How far a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows that are in the database.
    pub rows: u64,
    /// Where the next row begins, as the caller counts it.
    pub bytes: u64,
}

/// The database, locked against other imports until it is dropped.
pub struct Target {
    conn: Conn,
    now_s: u64,
    /// Where a SQLite file is to be in the end.
    file: Option<PathBuf>,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

#[derive(QueryableByName)]
pub(super) struct Mark {
    #[diesel(sql_type = Binary)]
    pub(super) import_id: Vec<u8>,
}

#[derive(QueryableByName)]
pub(super) struct DoneRow {
    #[diesel(sql_type = BigInt)]
    done_rows: i64,
    #[diesel(sql_type = BigInt)]
    done_bytes: i64,
}

impl From<DoneRow> for Done {
    fn from(row: DoneRow) -> Self {
        let number = |stored: i64| u64::try_from(stored).unwrap_or_default();
        Self { rows: number(row.done_rows), bytes: number(row.done_bytes) }
    }
}

/// For a node's start: what is half there must not be served.
pub(in crate::db) fn refuse_unfinished(conn: &mut PgConnection) -> Result<(), StorageError> {
    if is_marked(conn)? {
        let text = "an import into this database has not ended; run martlet import again, it goes on where it was";
        return Err(StorageError::Unfit(text.to_owned()));
    }
    Ok(())
}

fn is_marked(conn: &mut PgConnection) -> Result<bool, StorageError> {
    exists(conn, "SELECT to_regclass('martlet_import') IS NOT NULL AS found")
}

fn exists(conn: &mut PgConnection, sql: &str) -> Result<bool, StorageError> {
    let answer: Found = diesel::sql_query(sql).get_result(conn)?;
    Ok(answer.found)
}

impl Target {
    /// Connects, migrates, and marks the database as being imported into, or finds the mark of the same import. `import_id` tells one
    /// export from another; `now_s` is Unix seconds.
    ///
    /// # Errors
    /// [`MoveError::ImportRuns`], [`MoveError::NodesRun`], [`MoveError::NotEmpty`], [`MoveError::StoreExists`],
    /// [`MoveError::OtherImport`], and what the database says.
    pub fn open(config: &DbConfig, import_id: &[u8], now_s: u64) -> Result<Self, MoveError> {
        let url = match &config.place {
            Place::Postgres { url, .. } => url,
            Place::File(path) => {
                let conn = Conn::Sqlite(file::open(config, path, import_id)?);
                return Ok(Self { conn, now_s, file: Some(path.clone()) });
            }
        };
        let mut conn = postgres::primary(config, url)?;
        if !exists(&mut conn, &format!("SELECT pg_try_advisory_lock({LOCK}) AS found"))? {
            return Err(MoveError::ImportRuns);
        }
        // Pages and sums take what they take.
        conn.batch_execute("SET statement_timeout = 0")?;
        let mut target = Self { conn: Conn::Postgres(conn), now_s, file: None };
        target.transaction(|c| {
            refuse_nodes(c)?;
            mark(c, import_id)
        })?;
        Ok(target)
    }

    /// The newest migration that the database has.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn schema(&mut self) -> Result<String, MoveError> {
        Ok(source::schema(&mut self.conn)?)
    }

    /// How far a table is.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn done(&mut self, table: &Table) -> Result<Done, MoveError> {
        let sql = "SELECT done_rows, done_bytes FROM martlet_import WHERE table_name = $1";
        let row: DoneRow = on!(&mut self.conn, c => diesel::sql_query(sql).bind::<Text, _>(table.name).get_result(c))?;
        Ok(row.into())
    }

    /// Writes rows and how far the table is with them, in one transaction.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if a query fails; then nothing was written.
    pub fn write(&mut self, table: &Table, rows: &[Row], done: Done) -> Result<(), MoveError> {
        let now_s = self.now_s;
        if let Conn::Sqlite(_) = &self.conn {
            return file::write(&mut self.conn, table, rows, done);
        }
        self.transaction(|c| {
            if table.is_contents() {
                make_parts(c, rows, now_s)?;
            }
            let insert = bind_columns(diesel::sql_query(insert(table)).into_boxed(), table, rows)?;
            expect_rows(insert.execute(c)?, rows.len(), "a row was not inserted")?;
            let moved = moved(table, done).execute(c)?;
            Ok(expect_rows(moved, 1, LOST_TABLE)?)
        })
    }

    /// The rows after a key, at most a page of them, in the order of the key; from the first one without a key.
    ///
    /// # Errors
    /// [`MoveError::Storage`] if the query fails.
    pub fn read(&mut self, table: &Table, after: Option<&[Value]>) -> Result<Vec<Row>, MoveError> {
        if let (Conn::Sqlite(c), None, true) = (&mut self.conn, after, table.name == TABLES[0].name) {
            source::number_contents(c)?;
        }
        Ok(read::page(&mut self.conn, table, after)?)
    }

    /// Ends the import: numbers go on after those that were imported, the mark goes, and nodes may serve.
    ///
    /// # Errors
    /// [`MoveError::NodesRun`], [`MoveError::StoreExists`], and [`MoveError::Storage`] if a query fails; then the import has not ended.
    pub fn finish(mut self) -> Result<(), MoveError> {
        if let Some(path) = &self.file {
            return file::finish(self.conn, path);
        }
        self.transaction(|c| {
            refuse_nodes(c)?;
            for table in TABLES.iter().filter(|table| table.is_numbered) {
                let (name, key) = (table.name, table.columns[0].name);
                let sequence = format!("pg_get_serial_sequence('{name}', '{key}')");
                let next = format!("coalesce((SELECT max({key}) FROM {name}), 0) + 1");
                diesel::sql_query(format!("SELECT setval({sequence}, {next}, false)")).execute(c)?;
            }
            // Below its week, a content's key is a number of this sequence.
            let below = (1_i64 << parts::WEEK_SHIFT) - 1;
            diesel::sql_query(format!(
                "SELECT setval('content_keys', coalesce(max(content_key & {below}), 0) + 1, false) FROM (
                     SELECT content_key FROM {CONTENTS} UNION ALL SELECT content_key FROM mailbox_entries
                 ) AS used"
            ))
            .execute(c)?;
            Ok(c.batch_execute("DROP TABLE martlet_import")?)
        })
    }

    fn transaction<T>(&mut self, run: impl FnOnce(&mut PgConnection) -> Result<T, MoveError>) -> Result<T, MoveError> {
        let run = |conn: &mut Conn| match conn {
            Conn::Postgres(c) => run(c),
            Conn::Sqlite(_) => Err(StorageError::Inconsistent("a file takes another way").into()),
        };
        self.conn.transaction(Begin::Write, run).0
    }
}

/// What is said if it does not change one row.
pub(super) const LOST_TABLE: &str = "the mark of the import has lost a table";

/// The statement that says how far a table is. Numbers and the name of a table of this program's need no binding.
pub(super) fn moved(table: &Table, done: Done) -> SqlQuery {
    let Done { rows, bytes } = done;
    let name = table.name;
    diesel::sql_query(format!(
        "UPDATE martlet_import SET done_rows = {rows}, done_bytes = {bytes} WHERE table_name = '{name}'"
    ))
}

fn refuse_nodes(c: &mut PgConnection) -> Result<(), MoveError> {
    match postgres::count_nodes(c)? {
        0 => Ok(()),
        nodes => Err(MoveError::NodesRun(nodes)),
    }
}

/// Marks an empty database, or recognises the mark.
fn mark(c: &mut PgConnection, import_id: &[u8]) -> Result<(), MoveError> {
    if is_marked(c)? {
        let marks: Vec<Mark> = diesel::sql_query("SELECT import_id FROM martlet_import").load(c)?;
        let is_same = marks.len() == TABLES.len() && marks.iter().all(|mark| mark.import_id == import_id);
        return if is_same { Ok(()) } else { Err(MoveError::OtherImport) };
    }
    for table in TABLES {
        let used = match (table.is_single, table.name) {
            (true, "control_heads") => {
                "SELECT EXISTS (SELECT 1 FROM control_heads WHERE head_seq != 0) AS found".to_owned()
            }
            // The store's own row is there from the beginning.
            (true, _) => continue,
            (false, name) => format!("SELECT EXISTS (SELECT 1 FROM {name}) AS found"),
        };
        if exists(c, &used)? {
            return Err(MoveError::NotEmpty(table.name));
        }
    }
    c.batch_execute(
        "CREATE TABLE martlet_import (
             table_name TEXT PRIMARY KEY,
             import_id BYTEA NOT NULL,
             done_rows BIGINT NOT NULL,
             done_bytes BIGINT NOT NULL
         )",
    )?;
    for table in TABLES {
        let sql = "INSERT INTO martlet_import (table_name, import_id, done_rows, done_bytes) VALUES ($1, $2, 0, 0)";
        diesel::sql_query(sql).bind::<Text, _>(table.name).bind::<Binary, _>(import_id).execute(c)?;
    }
    Ok(())
}

/// Contents must lie in the part of their week before any lies in the part for all others, or that part could not be made later. Weeks
/// that are over get none: nobody will make one.
fn make_parts(c: &mut PgConnection, rows: &[Row], now_s: u64) -> Result<(), StorageError> {
    let week = |row: &Row| match row.first() {
        Some(Value::Integer(key)) => Some(key >> parts::WEEK_SHIFT),
        _ => None,
    };
    let weeks: BTreeSet<i64> = rows.iter().filter_map(week).collect();
    weeks.range(parts::week(now_s)..).try_for_each(|week| parts::make(c, *week))
}

/// The statement that inserts rows, one array per column.
fn insert(table: &Table) -> String {
    use super::Kind;
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let array = |(at, kind): (usize, Kind)| {
        let kind = match kind {
            Kind::BigInt => "bigint",
            Kind::SmallInt => "smallint",
            Kind::Text => "text",
            Kind::Bytes => "bytea",
        };
        format!("${}::{kind}[]", at + 1)
    };
    let arrays: Vec<String> = table.columns.iter().map(|column| column.kind).enumerate().map(array).collect();
    let replace = if table.is_single {
        let sets: Vec<String> = names[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        format!(" ON CONFLICT ({}) DO UPDATE SET {}", names[0], sets.join(", "))
    } else {
        String::new()
    };
    format!("INSERT INTO {} ({}) SELECT * FROM unnest({}){replace}", table.name, names.join(", "), arrays.join(", "))
}
