//! A new SQLite file that a store is moved into. It is written under another name beside its place and gets its own when it is whole, so
//! that no node can serve from half a store. Everything else is as with PostgreSQL ([`super::target`]).
//!
//! Shared contents get back the keys that they had in the SQLite file they come from: the number below the week.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use diesel::{
    RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_types::{BigInt, Binary, Bool, Nullable, Text},
    sqlite::{Sqlite, SqliteConnection},
};

use super::{
    Done, MoveError, Row, TABLES, Table, Value,
    target::{LOST_TABLE, Mark, moved},
    values::Statement,
};
use crate::db::{Conn, DbConfig, StorageError, conn::Begin, error::expect_rows, postgres::parts::WEEK_SHIFT, sqlite};

/// The writer's page cache in KiB: keys come in any order in some of the indexes.
const CACHE_KIB: u32 = 256 << 10;

#[derive(diesel::QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// The name until the import has ended.
fn draft(path: &Path) -> PathBuf {
    path.with_extension("import")
}

/// Makes the file with its tables and the mark of this import, or finds that mark in it.
pub(super) fn open(config: &DbConfig, path: &Path, import_id: &[u8]) -> Result<SqliteConnection, MoveError> {
    if path.exists() {
        return Err(MoveError::StoreExists(path.display().to_string()));
    }
    let mut conn = sqlite::establish(config, &draft(path))?;
    // Pages need not be on disk one by one: with this setting a power loss takes the newest, and the mark with them.
    conn.batch_execute(&format!(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; BEGIN IMMEDIATE; COMMIT;"
    ))
    .map_err(|error| if sqlite::is_busy(&error) { MoveError::ImportRuns } else { error.into() })?;
    sqlite::migrate_on(&mut conn)?;
    let mut conn = Conn::Sqlite(conn);
    conn.transaction(Begin::Write, |conn| mark(sqlite_of(conn)?, import_id)).0?;
    match conn {
        Conn::Sqlite(conn) => Ok(conn),
        Conn::Postgres(_) => Err(NO_FILE.into()),
    }
}

const NO_FILE: StorageError = StorageError::Inconsistent("a file is written through SQLite");

fn sqlite_of(conn: &mut Conn) -> Result<&mut SqliteConnection, MoveError> {
    match conn {
        Conn::Sqlite(conn) => Ok(conn),
        Conn::Postgres(_) => Err(NO_FILE.into()),
    }
}

fn mark(c: &mut SqliteConnection, import_id: &[u8]) -> Result<(), MoveError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'martlet_import') AS found";
    let is_marked: Found = diesel::sql_query(sql).get_result(c)?;
    if is_marked.found {
        let marks: Vec<Mark> = diesel::sql_query("SELECT import_id FROM martlet_import").load(c)?;
        let is_same = marks.len() == TABLES.len() && marks.iter().all(|mark| mark.import_id == import_id);
        return if is_same { Ok(()) } else { Err(MoveError::OtherImport) };
    }
    c.batch_execute(
        "CREATE TABLE martlet_import (
             table_name TEXT PRIMARY KEY, import_id BLOB NOT NULL, done_rows BIGINT NOT NULL, done_bytes BIGINT NOT NULL
         )",
    )?;
    for table in TABLES {
        let sql = "INSERT INTO martlet_import (table_name, import_id, done_rows, done_bytes) VALUES (?, ?, 0, 0)";
        diesel::sql_query(sql).bind::<Text, _>(table.name).bind::<Binary, _>(import_id).execute(c)?;
    }
    Ok(())
}

/// Writes rows and how far the table is with them, in one transaction.
pub(super) fn write(conn: &mut Conn, table: &Table, rows: &[Row], done: Done) -> Result<(), MoveError> {
    conn.transaction(Begin::Write, |conn| {
        let c = sqlite_of(conn)?;
        let mut insert = diesel::sql_query(insert(table, rows.len())).into_boxed();
        for row in rows {
            for (column, value) in table.columns.iter().zip(row) {
                insert = bind(insert, column.name == "content_key", value);
            }
        }
        expect_rows(insert.execute(c)?, rows.len(), "a row was not inserted")?;
        Ok(expect_rows(moved(table, done).execute(c)?, 1, LOST_TABLE)?)
    })
    .0
}

fn bind<'a>(statement: Statement<'a, Sqlite>, is_content: bool, value: &'a Value) -> Statement<'a, Sqlite> {
    let below_week = (1_i64 << WEEK_SHIFT) - 1;
    match value {
        Value::Null => statement.bind::<Nullable<BigInt>, _>(None::<i64>),
        Value::Integer(number) if is_content => statement.bind::<BigInt, _>(number & below_week),
        Value::Integer(number) => statement.bind::<BigInt, _>(*number),
        Value::Text(text) => statement.bind::<Text, _>(text.as_str()),
        Value::Bytes(bytes) => statement.bind::<Binary, _>(bytes.as_slice()),
    }
}

/// The statement that inserts so many rows.
fn insert(table: &Table, rows: usize) -> String {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let marks = format!("({})", vec!["?"; names.len()].join(","));
    let replace = if table.is_single {
        let sets: Vec<String> = names[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        format!(" ON CONFLICT ({}) DO UPDATE SET {}", names[0], sets.join(", "))
    } else {
        String::new()
    };
    let marks = vec![marks; rows].join(",");
    format!("INSERT INTO {} ({}) VALUES {marks}{replace}", table.name, names.join(", "))
}

/// Takes the mark away and gives the file its name.
pub(super) fn finish(mut conn: Conn, path: &Path) -> Result<(), MoveError> {
    sqlite_of(&mut conn)?
        .batch_execute("DROP TABLE martlet_import; PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE);")?;
    // Closing removes the log.
    drop(conn);
    name(&draft(path), path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => MoveError::StoreExists(path.display().to_string()),
        _ => StorageError::Open { place: path.display().to_string(), reason: error.to_string() }.into(),
    })
}

/// Never in the place of another file, and durable.
fn name(draft: &Path, path: &Path) -> io::Result<()> {
    fs::File::open(draft)?.sync_all()?;
    fs::hard_link(draft, path)?;
    fs::remove_file(draft)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
