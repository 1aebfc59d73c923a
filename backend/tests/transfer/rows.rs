//! Every row of both databases as text, read past the code under test.

use std::{collections::BTreeMap, path::Path};

use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query, sql_types};
use martlet_servers::Database;

/// Sorted rows of each table.
pub type Rows = BTreeMap<String, Vec<String>>;

/// Below its week, a content's key is what SQLite had.
const BELOW_WEEK: i64 = (1 << 40) - 1;

/// The tables that PostgreSQL has, with their columns.
pub fn tables(database: &Database) -> BTreeMap<String, Vec<(String, bool)>> {
    let columns = database
        .query(
            "SELECT table_name, column_name, data_type = 'bytea' FROM information_schema.columns
             WHERE table_schema = 'public' AND left(table_name, 2) != '__'
                 AND to_regclass(table_name) NOT IN (SELECT inhrelid FROM pg_inherits) ORDER BY 1, ordinal_position",
        )
        .expect("the columns");
    let mut tables: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for line in columns.lines() {
        let [table, column, is_bytes] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        tables.entry(table.to_owned()).or_default().push((column.to_owned(), is_bytes == "t"));
    }
    tables
}

pub fn of_postgres(database: &Database) -> Rows {
    let read = |table: &str, columns: &[(String, bool)]| {
        let text = |(column, is_bytes): &(String, bool)| match (column.as_str(), is_bytes) {
            ("content_key", _) => format!("coalesce((content_key & {BELOW_WEEK})::text, '-')"),
            (_, true) => format!("coalesce(upper(encode({column}, 'hex')), '-')"),
            // An empty text would vanish at a line's end.
            (_, false) => format!("coalesce(nullif({column}::text, ''), '-')"),
        };
        let list: Vec<String> = columns.iter().map(text).collect();
        database.query(&format!("SELECT {} FROM {table}", list.join(" || ' ' || "))).expect("the rows")
    };
    let tables = tables(database);
    tables.iter().map(|(table, columns)| (table.clone(), sorted(read(table, columns).lines()))).collect()
}

/// The same columns, so that a table or column that only SQLite has is not compared here: a test of the store compares the schemas.
pub fn of_sqlite(file: &Path, tables: &BTreeMap<String, Vec<(String, bool)>>) -> Rows {
    #[derive(QueryableByName)]
    struct Text {
        #[diesel(sql_type = sql_types::Text)]
        text: String,
    }
    let mut conn = SqliteConnection::establish(file.to_str().expect("UTF-8")).expect("the old store");
    let mut read = |table: &str, columns: &[(String, bool)]| {
        let text = |(column, is_bytes): &(String, bool)| match is_bytes {
            true => format!("CASE WHEN {column} IS NULL THEN '-' ELSE hex({column}) END"),
            false => format!("coalesce(nullif(CAST({column} AS TEXT), ''), '-')"),
        };
        let list: Vec<String> = columns.iter().map(text).collect();
        let rows: Vec<Text> = sql_query(format!("SELECT {} AS text FROM {table}", list.join(" || ' ' || ")))
            .load(&mut conn)
            .expect("rows");
        sorted(rows.iter().map(|row| row.text.as_str()))
    };
    tables.iter().map(|(table, columns)| (table.clone(), read(table, columns))).collect()
}

fn sorted<'a>(rows: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut rows: Vec<String> = rows.map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}
