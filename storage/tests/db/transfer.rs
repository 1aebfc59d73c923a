//! Moving a store: nothing is left out of the list of tables, and neither side is open to others meanwhile. What moves, and that all of
//! it arrives, is tested with the files between both sides, in `backend/tests/transfer`.

use std::{collections::BTreeSet, time::Duration};

use diesel::{QueryableByName, RunQueryDsl as _, sql_types::Text};
use martlet_storage::{
    Conn, Db, DbConfig, StorageError,
    transfer::{Kind, MoveError, Source, TABLES, Target, Value},
};

use crate::{
    BACKEND,
    common::{Backend, NOW_S, RETENTION_S, Store, bytes, fresh, seqs},
};

fn texts(store: &Store, sql: &'static str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        text: String,
    }
    let rows: Vec<Row> = store.run(|conn| match conn {
        Conn::Sqlite(c) => Ok(diesel::sql_query(sql).load(c)?),
        Conn::Postgres(c) => Ok(diesel::sql_query(sql).load(c)?),
    });
    rows.into_iter().map(|row| row.text).collect()
}

/// As the database itself names them, its own tables, those of Diesel and the parts of others left out.
fn real_columns(store: &Store) -> BTreeSet<String> {
    let sql = match BACKEND {
        Backend::Sqlite => {
            "SELECT s.name || '.' || c.name || ' ' || lower(c.type) || CASE WHEN c.pk > 0 THEN ' key ' || c.pk ELSE '' END AS text
             FROM sqlite_schema s JOIN pragma_table_info(s.name) c
             WHERE s.type = 'table' AND s.name NOT LIKE 'sqlite~_%' ESCAPE '~' AND s.name NOT LIKE '~_~_%' ESCAPE '~'"
        }
        Backend::Postgres => {
            "SELECT c.table_name || '.' || c.column_name || ' ' || c.data_type || coalesce(' key ' || k.ordinal_position, '') AS text
             FROM information_schema.columns c
             LEFT JOIN information_schema.table_constraints t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
                 AND t.constraint_type = 'PRIMARY KEY'
             LEFT JOIN information_schema.key_column_usage k ON k.table_schema = t.table_schema
                 AND k.constraint_name = t.constraint_name AND k.column_name = c.column_name AND k.table_name = c.table_name
             WHERE c.table_schema = current_schema() AND left(c.table_name, 2) != '__'
                 AND to_regclass(quote_ident(c.table_name)) NOT IN (SELECT inhrelid FROM pg_inherits)"
        }
    };
    texts(store, sql).into_iter().collect()
}

/// As the list has them.
fn listed_columns() -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for table in TABLES {
        for (at, column) in table.columns.iter().enumerate() {
            let kind = match (BACKEND, column.kind) {
                // SQLite numbers rows itself only by a column of this type.
                (Backend::Sqlite, Kind::BigInt) if at == 0 && table.key == 1 => "integer",
                (_, Kind::BigInt) => "bigint",
                (_, Kind::SmallInt) => "smallint",
                (_, Kind::Text) => "text",
                (Backend::Sqlite, Kind::Bytes) => "blob",
                (Backend::Postgres, Kind::Bytes) => "bytea",
            };
            let key = if at < table.key { format!(" key {}", at + 1) } else { String::new() };
            columns.insert(format!("{}.{} {kind}{key}", table.name, column.name));
        }
    }
    if BACKEND == Backend::Sqlite {
        // The order in which rows came; PostgreSQL keeps none.
        columns.insert("mailbox_entries.entry_key integer key 1".to_owned());
        for key in ["device_key bigint", "seq bigint"] {
            let found = columns.iter().find(|column| column.starts_with(&format!("mailbox_entries.{key} "))).cloned();
            columns.remove(&found.expect("the key of the list"));
            columns.insert(format!("mailbox_entries.{key}"));
        }
    }
    columns
}

#[test]
fn every_table_and_column_is_listed_with_its_key() {
    let store = Store::new();
    let (real, listed) = (real_columns(&store), listed_columns());
    let missing: Vec<_> = real.difference(&listed).collect();
    let surplus: Vec<_> = listed.difference(&real).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "would stay behind: {missing:#?}; not there: {surplus:#?}");
}

#[test]
fn a_table_that_is_not_listed_is_found() {
    let store = Store::new();
    store.execute("CREATE TABLE forgotten (forgotten_key INTEGER PRIMARY KEY)");
    let real = real_columns(&store);
    let unlisted: Vec<_> = real.difference(&listed_columns()).cloned().collect();
    assert_eq!(unlisted, ["forgotten.forgotten_key integer key 1"]);
}

fn impatient(store: &Store) -> DbConfig {
    DbConfig { wait: Duration::from_millis(100), ..store.config() }
}

#[test]
fn a_source_is_open_nowhere_else() {
    let store = Store::new();
    let config = impatient(&store);
    if BACKEND == Backend::Postgres {
        assert!(matches!(Source::open(&config), Err(MoveError::NotEmbedded)));
        return;
    }
    assert!(matches!(Source::open(&config), Err(MoveError::SourceInUse)), "a node that does nothing has it open");
    let Store { db, place: _folder } = store;
    drop(db);
    let source = Source::open(&config).expect("nobody has it open any more");
    assert!(matches!(Db::open(&config), Err(StorageError::Busy)), "no node starts meanwhile");
    source.close().expect("closes");
    Db::open(&config).expect("given back");
}

/// The key's upper bits are the week in which the last entry expires, the lower ones what SQLite had.
#[test]
fn contents_leave_sqlite_with_their_week() {
    if BACKEND == Backend::Postgres {
        return;
    }
    let store = Store::new();
    let a = store.register(2);
    let talk = store.converse(&[&a]);
    for expires_at_s in [NOW_S + RETENTION_S, NOW_S + 60] {
        let mut send = talk.send(&[&a]);
        send.content = Some(vec![1; 10_000].into());
        send.expires_at_s = expires_at_s;
        send.request_key = bytes(fresh());
        seqs(&store.commit(&[send])[0]);
    }
    // One device's entry lives longer than the other's.
    store.execute(&format!("UPDATE mailbox_entries SET expires_at_s = {NOW_S} WHERE seq = 1 AND device_key = 1"));
    let config = impatient(&store);
    let Store { db, place: _folder } = store;
    drop(db);
    let mut source = Source::open(&config).expect("opens");
    let week = |at_s: u64| i64::try_from(at_s / (7 * 86_400)).expect("small") << 40;
    let (first, second) = (week(NOW_S + RETENTION_S) | 1, week(NOW_S + 60) | 2);
    let mut column = |name: &str, column: &str| -> Vec<Value> {
        let table = TABLES.iter().find(|table| table.name == name).expect("listed");
        let at = table.columns.iter().position(|found| found.name == column).expect("a column");
        source.read(table, None).expect("rows").into_iter().map(|mut row| row.swap_remove(at)).collect()
    };
    let keys = |keys: &[i64]| keys.iter().map(|key| Value::Integer(*key)).collect::<Vec<_>>();
    assert!(column("contents", "content_key") == keys(&[second, first]), "in the order of the new keys");
    assert!(column("mailbox_entries", "content_key") == keys(&[first, second, first, second]));
}

#[test]
fn a_target_is_empty_or_of_the_same_import() {
    let store = Store::new();
    let config = store.config();
    if BACKEND == Backend::Sqlite {
        assert!(matches!(Target::open(&config, b"one", NOW_S), Err(MoveError::StoreExists(_))));
        return a_new_file_appears_when_it_is_whole();
    }
    drop(Target::open(&config, b"one", NOW_S).expect("empty"));
    assert!(matches!(Target::open(&config, b"two", NOW_S), Err(MoveError::OtherImport)));
    let refused = Db::open(&config).err().expect("half a store is not served");
    assert!(refused.to_string().contains("run martlet import again"), "{refused}");
    Target::open(&config, b"one", NOW_S).expect("its own").finish().expect("ends");
    store.register(1);
    assert!(matches!(Target::open(&config, b"one", NOW_S), Err(MoveError::NotEmpty("accounts"))));
    Db::open(&config).expect("served");
}

fn a_new_file_appears_when_it_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new.db");
    let config = martlet_storage::DbConfig::new(&path);
    let first = Target::open(&config, b"one", NOW_S).expect("a new file");
    assert!(matches!(Target::open(&config, b"one", NOW_S), Err(MoveError::ImportRuns)));
    drop(first);
    assert!(matches!(Target::open(&config, b"two", NOW_S), Err(MoveError::OtherImport)));
    let whole = Target::open(&config, b"one", NOW_S).expect("its own");
    assert!(!path.exists(), "nothing to serve from yet");
    whole.finish().expect("ends");
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1, "no draft is left");
    Db::open(&config).expect("served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_has_one_import_and_no_node() {
    if BACKEND == Backend::Sqlite {
        return;
    }
    let store = Store::new();
    let config = store.config();
    let open = || {
        let config = config.clone();
        tokio::task::spawn_blocking(move || Target::open(&config, b"one", NOW_S))
    };
    let node = store.db.claim_node_id("n1").await.expect("asked").expect("free");
    assert!(matches!(open().await.expect("ran"), Err(MoveError::NodesRun(1))));
    drop(node);
    // Its connection, and with it the lock, ends a moment later.
    let mut target = None;
    for _ in 0..100 {
        match open().await.expect("ran") {
            Ok(opened) => {
                target = Some(opened);
                break;
            }
            Err(MoveError::NodesRun(_) | MoveError::ImportRuns) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    let target = target.expect("the node is gone");
    assert!(matches!(open().await.expect("ran"), Err(MoveError::ImportRuns)));
    drop(target);
}
