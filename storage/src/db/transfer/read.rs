//! One page of a table in the order of its key.
//!
//! SQLite's rows come as PostgreSQL is to have them: a shared content's key begins there with the week in which the last of its entries
//! expires (see [`crate::db::mailbox::contents`]), so the source has a temporary table that tells the new key of each
//! ([`super::source`]), and everything after it, files and hashes included, sees the new keys only.

use diesel::RunQueryDsl as _;

use super::{
    Row, Table, Value,
    tables::{CONTENTS, Column},
    values::{Read, bind_postgres, bind_sqlite},
};
use crate::db::{Conn, StorageError};

/// The temporary table of the source: `content_key` as PostgreSQL is to have it, `old_key` as SQLite has it.
pub(super) const MOVED_CONTENTS: &str = "moved_contents";

/// The rows after a key, at most a page of them; from the first one without a key.
pub(super) fn page(conn: &mut Conn, table: &Table, after: Option<&[Value]>) -> Result<Vec<Row>, StorageError> {
    let key = after.unwrap_or_default();
    let rows: Vec<Read> = match conn {
        Conn::Sqlite(c) => {
            let sql = select(
                table,
                !key.is_empty(),
                &moving_origin(table),
                |column| moving(table, column),
                |_| "?".to_owned(),
            );
            bind_sqlite(diesel::sql_query(sql).into_boxed(), key)?.load(c)?
        }
        Conn::Postgres(c) => {
            let sql = select(table, !key.is_empty(), table.name, |column| column.name.to_owned(), |n| format!("${n}"));
            bind_postgres(diesel::sql_query(sql).into_boxed(), key)?.load(c)?
        }
    };
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The query, with how a column and the `n`th bound value (from 1) are written.
fn select(
    table: &Table,
    after: bool,
    origin: &str,
    column: impl Fn(&Column) -> String,
    mark: impl Fn(usize) -> String,
) -> String {
    let list = |columns: &[Column]| columns.iter().map(&column).collect::<Vec<_>>().join(", ");
    let key = list(table.key_columns());
    let marks: Vec<String> = (1..=table.key).map(mark).collect();
    let condition = if after { format!(" WHERE ({key}) > ({})", marks.join(", ")) } else { String::new() };
    format!("SELECT {} FROM {origin}{condition} ORDER BY {key} LIMIT {}", list(table.columns), table.page_rows)
}

/// Where SQLite's rows of a table come from.
fn moving_origin(table: &Table) -> String {
    if !table.is_contents() {
        return table.name.to_owned();
    }
    // CROSS keeps SQLite from reading the contents first: their order is not that of the new keys.
    format!("{MOVED_CONTENTS} CROSS JOIN {CONTENTS} ON {CONTENTS}.content_key = {MOVED_CONTENTS}.old_key")
}

/// A column as it leaves SQLite.
fn moving(table: &Table, column: &Column) -> String {
    match (table.name, column.name) {
        (CONTENTS, "content_key") => format!("{MOVED_CONTENTS}.content_key"),
        (name, "content_key") => format!(
            "(SELECT {MOVED_CONTENTS}.content_key FROM {MOVED_CONTENTS} WHERE {MOVED_CONTENTS}.old_key = {name}.content_key)"
        ),
        (_, name) => name.to_owned(),
    }
}
