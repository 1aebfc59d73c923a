//! Opening, settings, waiting, transactions.

use std::{sync::mpsc, thread, time::Duration};

use diesel::{
    RunQueryDsl as _,
    connection::SimpleConnection as _,
    dsl::sql,
    sql_types::{BigInt, Text},
};
use martlet_storage::{Conn, Db, DbConfig, Durability, Place, StorageError, accounts, control, mailbox, sends};

use crate::common::{NOW_MS, ROOMY, Store, answer};

fn path(store: &Store) -> std::path::PathBuf {
    let Place::File(path) = store.config().place else { panic!("a file") };
    path
}

fn setting(conn: &mut Conn, name: &str) -> i64 {
    let Conn::Sqlite(conn) = conn else { panic!("a file") };
    diesel::select(sql::<BigInt>(&format!("(SELECT * FROM pragma_{name})"))).get_result(conn).expect("a setting")
}

#[test]
fn the_writer_is_safe_against_power_loss() {
    let store = Store::new();
    store.run(|conn| {
        assert_eq!(setting(conn, "synchronous"), 2, "FULL");
        assert_eq!(setting(conn, "foreign_keys"), 1);
        assert_eq!(setting(conn, "busy_timeout"), 5000);
        let Conn::Sqlite(conn) = conn else { panic!("a file") };
        let mode: String =
            diesel::select(sql::<Text>("(SELECT journal_mode FROM pragma_journal_mode)")).get_result(conn)?;
        assert_eq!(mode, "wal");
        Ok(())
    });
}

#[test]
fn less_must_be_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = DbConfig::new(folder.path().join("martlet.db"));
    assert_eq!(config.durability, Durability::Full);
    config.durability = Durability::Normal;
    let db = Db::open(&config).expect("asked for out loud");
    let level = db.write_blocking(|conn| Ok::<_, StorageError>(setting(conn, "synchronous")));
    assert_eq!(level.expect("read"), 1);
}

#[test]
fn a_store_without_a_log_is_refused() {
    let refused = Db::open(&DbConfig::new(":memory:"));
    assert!(matches!(refused, Err(StorageError::NotDurable { setting: "journal_mode", .. })), "not durable at all");
}

#[test]
fn a_path_that_leads_nowhere_says_so() {
    let refused = Db::open(&DbConfig::new("/nowhere/at/all/martlet.db"));
    assert!(matches!(refused, Err(StorageError::Open { .. })));
}

#[test]
fn a_store_opens_again_with_what_it_had() {
    let store = Store::new();
    let account = store.register(2);
    let second = store.second();
    let found = second.write_blocking(|c| accounts::by_username(c, &account.name)).expect("a query");
    assert_eq!(found.map(|row| row.account_key), Some(account.key));
    assert_eq!(store.number("SELECT length(store_id) FROM store"), 16);
    assert_eq!(store.number("SELECT count(*) FROM store"), 1);
}

#[test]
fn a_restore_changes_every_epoch() {
    let store = Store::new();
    let device = store.register(1).devices[0];
    let epoch = || store.run(|c| mailbox::state(c, device)).map(|state| state.epoch);
    let first = epoch();
    store.execute("UPDATE store SET epoch = epoch + 1");
    assert_ne!(epoch(), first);
}

#[tokio::test]
async fn readers_read_and_can_not_write() {
    let store = Store::new();
    store.db.health().await.expect("healthy");
    assert_eq!(store.db.read(control::head).await.expect("read"), 0);
    let entry = martlet_protocol::wire::ControlEntry { event: None };
    let refused = store.db.read(move |c| control::append(c, &entry, 0)).await;
    assert!(matches!(refused, Err(StorageError::Database(_))));
    assert_eq!(store.db.read(control::head).await.expect("read"), 0);
}

#[tokio::test]
async fn a_read_is_one_snapshot() {
    let store = Store::new();
    let writer = store.second();
    let (before, after) = store
        .db
        .read(move |c| {
            let before = control::head(c)?;
            let entry = martlet_protocol::wire::ControlEntry { event: None };
            writer.write_blocking(|c| control::append(c, &entry, 0))?;
            Ok::<_, StorageError>((before, control::head(c)?))
        })
        .await
        .expect("read");
    assert_eq!((before, after), (0, 0));
    assert_eq!(store.db.read(control::head).await.expect("read"), 1);
}

#[tokio::test]
async fn waiting_is_bounded() {
    let store = Store::new();
    let mut config = store.config();
    config.wait = Duration::from_millis(30);
    config.read_connections = 1;
    let db = Db::open(&config).expect("opens");
    let (release, released) = mpsc::sync_channel::<()>(1);
    let holder = db.clone();
    let held = tokio::spawn(async move {
        holder
            .write(move |_| {
                released.recv().ok();
                Ok::<_, StorageError>(())
            })
            .await
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(db.write(control::head).await, Err(StorageError::Busy)), "the writer is taken");
    db.read(control::head).await.expect("reading goes on");
    release.send(()).expect("the holder waits");
    held.await.expect("no panic").expect("committed");
    db.write(control::head).await.expect("free again");
}

#[test]
fn a_lock_of_another_process_is_busy() {
    let store = Store::new();
    let mut config = store.config();
    config.wait = Duration::from_millis(20);
    let db = Db::open(&config).expect("opens");
    store.run(|_| {
        assert!(matches!(db.write_blocking(control::head), Err(StorageError::Busy)));
        Ok(())
    });
    db.write_blocking(control::head).expect("free again");
}

#[test]
fn a_panic_rolls_back_and_the_connection_lives_on() {
    let store = Store::new();
    let db = store.db.clone();
    let panicked = thread::spawn(move || {
        db.write_blocking::<(), StorageError>(|c| {
            let entry = martlet_protocol::wire::ControlEntry { event: None };
            control::append(c, &entry, 0)?;
            panic!("a bug");
        })
    });
    assert!(panicked.join().is_err());
    assert_eq!(store.run(control::head), 0);
}

#[tokio::test]
async fn closing_leaves_one_file() {
    let store = Store::new();
    let entry = martlet_protocol::wire::ControlEntry { event: None };
    store.db.write(move |c| control::append(c, &entry, 0)).await.expect("written");
    let log = path(&store).with_extension("db-wal");
    assert!(log.metadata().expect("a log").len() > 0);
    store.db.checkpoint_on_close().await.expect("checkpointed");
    assert!(!log.exists(), "the last connection takes it along");
}

#[test]
fn a_full_disk_fails_the_batch_and_nothing_else() {
    let store = Store::new();
    let account = store.register(3);
    let talk = store.converse(&[&account]);
    let limit = |pages: i64| {
        store.run(|conn| {
            let Conn::Sqlite(conn) = conn else { panic!("a file") };
            Ok(conn.batch_execute(&format!("PRAGMA max_page_count = {pages}"))?)
        });
    };
    limit(store.number("SELECT * FROM pragma_page_count") + 3);
    let mut committed = 0;
    let refused = loop {
        let batch: Vec<_> = (0..100).map(|_| talk.send(&[&account])).collect();
        match store.db.write_blocking(|c| sends::commit_sends(c, &batch, &ROOMY, NOW_MS, &answer)) {
            Ok(_) => committed += 100,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StorageError::Database(_)), "{refused}");
    limit(1 << 20);
    store.commit(&[talk.send(&[&account])]);
    let state = store.run(|c| mailbox::state(c, account.devices[0]));
    assert_eq!(state.map(|state| state.head_seq), Some(committed + 1));
    assert_eq!(store.read(account.devices[0], 0).len() as u64, committed + 1);
}
