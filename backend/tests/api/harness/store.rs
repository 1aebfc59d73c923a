//! Everything that rests in a node's store, table by table, read beside the node: to see that a refusal changed nothing. Each test has a
//! store of its own: a file in its folder, or a database on the tests' PostgreSQL.

use std::{collections::BTreeMap, path::Path};

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _, sql_query, sql_types,
};
use martlet::config::Config;
use martlet_servers::Database;
use martlet_storage::DatabaseUrl;
use tempfile::TempDir;

/// Which mode the tests of a binary run in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SQLite, one node.
    Embedded,
    /// PostgreSQL, which nodes may share.
    Cluster,
}

/// Each test binary names one; here both are, or the compiler would miss the other.
pub const MODES: [Mode; 2] = [Mode::Embedded, Mode::Cluster];

/// Where one test's node keeps what it keeps.
pub struct Store {
    folder: TempDir,
    database: Option<Database>,
}

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

pub fn assert_same(before: &Contents, after: &Contents) {
    for (table, rows) in before {
        assert!(after.get(table) == Some(rows), "the refused request changed the table {table}");
    }
    assert_eq!(before.len(), after.len());
}

impl Store {
    pub fn new() -> Self {
        assert!(MODES.contains(&crate::MODE));
        let database = (crate::MODE == Mode::Cluster).then(|| Database::create().expect("a database"));
        Self { folder: tempfile::tempdir().expect("a folder"), database }
    }

    /// Tells a node to keep its data here.
    pub fn configure(&self, config: &mut Config) {
        config.storage.data_dir = self.folder().to_owned();
        // Not durable either way: nothing here outlives its test.
        config.storage.durability = martlet::config::Durability::Normal;
        if let Some(database) = &self.database {
            config.storage.database_url = DatabaseUrl::new(&database.url().expect("a server"));
            config.cluster.node_id = database.name().to_owned();
        }
    }

    /// Where an embedded node keeps its data, and any node its secret.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn read(&self) -> Contents {
        let tables = match self.database {
            None => "SELECT name AS text FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            Some(_) => {
                "SELECT relname::text AS text FROM pg_class \
                 WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"
            }
        };
        self.texts(tables).into_iter().map(|table| (table.clone(), self.rows(&table))).collect()
    }

    pub fn count(&self, table: &str, condition: &str) -> i64 {
        self.number(&format!("SELECT count(*) AS number FROM {table} WHERE {condition}"))
    }

    /// The column `number` of the first row.
    pub fn number(&self, query: &str) -> i64 {
        let found: Vec<Number> = match &self.database {
            None => sql_query(query).load(&mut self.file()),
            Some(database) => sql_query(query).load(&mut connect(database)),
        }
        .expect("a number");
        found[0].number
    }

    /// Bytes as SQL writes them.
    pub fn literal(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        if self.database.is_some() { format!("'\\x{hex}'::bytea") } else { format!("X'{hex}'") }
    }

    /// Changes the store behind the node's back.
    pub fn execute(&self, sql: &str) {
        match &self.database {
            None => self.file().batch_execute(sql),
            Some(database) => connect(database).batch_execute(sql),
        }
        .expect("the statement works");
    }

    fn file(&self) -> SqliteConnection {
        let path = self.folder().join("martlet.db");
        let mut conn = SqliteConnection::establish(path.to_str().expect("a path in UTF-8")).expect("the node's store");
        conn.batch_execute("PRAGMA busy_timeout = 5000").expect("a pragma");
        conn
    }

    fn rows(&self, table: &str) -> Vec<String> {
        if self.database.is_some() {
            return self.texts(&format!("SELECT whole::text AS text FROM {table} AS whole ORDER BY 1"));
        }
        let columns = self.texts(&format!("SELECT name AS text FROM pragma_table_info('{table}')"));
        let values: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        self.texts(&format!("SELECT {} AS text FROM {table} ORDER BY 1", values.join(" || ',' || ")))
    }

    fn texts(&self, query: &str) -> Vec<String> {
        let found: Vec<Text> = match &self.database {
            None => sql_query(query).load(&mut self.file()),
            Some(database) => sql_query(query).load(&mut connect(database)),
        }
        .expect("rows");
        found.into_iter().map(|row| row.text).collect()
    }
}

fn connect(database: &Database) -> PgConnection {
    PgConnection::establish(&database.url().expect("a server")).expect("the node's database")
}
