//! Everything that rests in a node's store, table by table, read beside the node: to see that a refusal changed nothing.

use std::{collections::BTreeMap, path::Path};

use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query, sql_types};

#[derive(QueryableByName)]
struct Text {
    #[diesel(sql_type = sql_types::Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}

/// Every row of every table, as SQL writes its values.
pub type Contents = BTreeMap<String, Vec<String>>;

pub fn read(data_dir: &Path) -> Contents {
    let mut conn = open(data_dir);
    let tables = "SELECT name AS text FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    texts(&mut conn, tables).into_iter().map(|table| (table.clone(), rows(&mut conn, &table))).collect()
}

pub fn assert_same(before: &Contents, after: &Contents) {
    for (table, rows) in before {
        assert!(after.get(table) == Some(rows), "the refused request changed the table {table}");
    }
    assert_eq!(before.len(), after.len());
}

pub fn count(data_dir: &Path, table: &str, condition: &str) -> i64 {
    let query = format!("SELECT count(*) AS number FROM {table} WHERE {condition}");
    let found: Vec<Number> = sql_query(query).load(&mut open(data_dir)).expect("a count");
    found[0].number
}

fn open(data_dir: &Path) -> SqliteConnection {
    let path = data_dir.join("martlet.db");
    SqliteConnection::establish(path.to_str().expect("a path in UTF-8")).expect("the node's store")
}

fn rows(conn: &mut SqliteConnection, table: &str) -> Vec<String> {
    let columns = texts(conn, &format!("SELECT name AS text FROM pragma_table_info('{table}')"));
    let values: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
    texts(conn, &format!("SELECT {} AS text FROM {table} ORDER BY 1", values.join(" || ',' || ")))
}

fn texts(conn: &mut SqliteConnection, query: &str) -> Vec<String> {
    let found: Vec<Text> = sql_query(query).load(conn).expect("rows");
    found.into_iter().map(|row| row.text).collect()
}
