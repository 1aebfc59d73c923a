//! What only several nodes over one PostgreSQL can get wrong: rows locked in another order, retries on two nodes, connections that break.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use martlet_protocol::wire::ControlEntry;
use martlet_servers::{Database, Proxy, shared_postgres};
use martlet_storage::{DatabaseUrl, Db, DbConfig, Durability, Place, StorageError, accounts, control, mailbox, sends};

use crate::common::{NOW_MS, NOW_S, RETENTION_S, ROOMY, Store, ack, answer, append, bytes, fresh, seqs, short};

fn url(database: &Database) -> DatabaseUrl {
    DatabaseUrl::new(&database.url().expect("a server")).expect("an address")
}

/// Sends, acks, expiry and a change of a list, all at once over the same mailboxes.
#[test]
fn nodes_that_write_at_once_neither_wait_for_each_other_nor_lose_a_number() {
    const NODES: usize = 4;
    const BATCHES: usize = 25;
    let store = Store::new();
    let (a, mut b, c) = (store.register(3), store.register(3), store.register(2));
    let talks: Vec<_> = (0..3).map(|_| store.converse(&[&a, &b, &c])).collect();
    let revoked = b.devices[2];
    let nodes: Vec<Db> = (0..NODES).map(|_| store.second()).collect();
    let accepted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (number, db) in nodes.iter().enumerate() {
            let (a, b, c, talks, accepted) = (&a, &b, &c, &talks, &accepted);
            scope.spawn(move || {
                for turn in 0..BATCHES {
                    let mut batch: Vec<_> =
                        (0..8).map(|send| talks[(number + turn + send) % 3].send(&[a, b, c])).collect();
                    for (turn, send) in batch.iter_mut().enumerate() {
                        send.entries.rotate_left((number + turn) % 8);
                        send.content = (turn % 2 == 0).then(|| vec![7; 5_000].into());
                        send.expires_at_s = if turn == 3 { NOW_S } else { NOW_S + RETENTION_S };
                        send.own_lifetime = turn == 3;
                    }
                    let outcomes = db.write_blocking(|conn| sends::commit_sends(conn, &batch, &ROOMY, NOW_MS, &answer));
                    let outcomes = outcomes.expect("no deadlock");
                    let committed = outcomes.iter().filter(|o| matches!(o, sends::SendOutcome::Committed { .. }));
                    accepted.fetch_add(committed.count(), Ordering::Relaxed);
                    let acks: Vec<_> =
                        a.devices.iter().chain(&c.devices).rev().map(|d| ack(*d, turn as u64 * 4)).collect();
                    db.write_blocking(|conn| mailbox::apply_acks(conn, &acks)).expect("no deadlock");
                    db.write_blocking(|conn| mailbox::expire(conn, NOW_S, 50)).expect("no deadlock");
                }
            });
        }
        let (db, b) = (store.second(), &b);
        scope.spawn(move || db.write_blocking(|conn| append(conn, b, &[], &[revoked])).expect("no deadlock"));
    });
    b.devices.retain(|device| *device != revoked);
    let accepted = accepted.load(Ordering::Relaxed) as i64;
    for device in [a.devices[0], b.devices[0], c.devices[1]] {
        let key = device.0;
        assert_eq!(store.number(&format!("SELECT head_seq FROM mailbox_heads WHERE device_key = {key}")), accepted);
        let items = store.read(device, 0);
        assert!(short(&items).iter().all(|item| !item.contains("unexplained")), "{:?}", short(&items));
    }
    assert_eq!(store.number(&format!("SELECT count(*) FROM mailbox_entries WHERE device_key = {}", revoked.0)), 0);
    let contents = "SELECT count(*) FROM contents c WHERE refs <> \
        (SELECT count(*) FROM mailbox_entries e WHERE e.content_key = c.content_key)";
    assert_eq!(store.number(contents), 0, "contents know their entries");
}

#[test]
fn a_retry_on_another_node_at_the_same_moment_is_a_repeat() {
    let store = Store::new();
    let a = store.register(2);
    let talk = store.converse(&[&a]);
    for _ in 0..20 {
        let send = talk.send(&[&a]);
        let nodes = [store.second(), store.second(), store.second()];
        let outcomes: Vec<_> = thread::scope(|scope| {
            let tried = nodes.each_ref().map(|db| {
                let send = send.clone();
                scope.spawn(move || db.write_blocking(|c| sends::commit_sends(c, &[send], &ROOMY, NOW_MS, &answer)))
            });
            tried.into_iter().map(|node| node.join().expect("ran").expect("committed or repeated")).collect()
        });
        let committed = outcomes.iter().flatten().filter(|o| matches!(o, sends::SendOutcome::Committed { .. })).count();
        assert_eq!(committed, 1, "{outcomes:?}");
    }
    assert_eq!(store.number("SELECT count(*) FROM send_answers"), 20);
}

#[test]
fn nodes_that_start_at_once_migrate_once() {
    let database = Database::create().expect("a database");
    let config = DbConfig { durability: Durability::Normal, ..DbConfig::postgres(url(&database)) };
    let opened: Vec<_> = thread::scope(|scope| {
        let nodes: Vec<_> = (0..5).map(|_| scope.spawn(|| Db::open(&config).map(drop))).collect();
        nodes.into_iter().map(|node| node.join().expect("ran")).collect()
    });
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    assert_eq!(Db::migrate(&config).expect("nothing to do"), 0);
    let state = Db::schema_state(&config).expect("read");
    assert_eq!((state.pending, state.newer), (0, 0));
    database.query("INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999999999')").expect("written");
    assert!(matches!(Db::open(&config), Err(StorageError::Newer(1))));
}

#[test]
fn a_database_that_would_lose_messages_is_refused() {
    let database = Database::create().expect("a database");
    let refused = Db::open(&DbConfig::postgres(url(&database))).map(drop);
    assert!(matches!(refused, Err(StorageError::NotDurable { setting: "fsync", .. })), "{refused:?}");
}

#[test]
fn a_wrong_address_says_what_is_wrong_and_no_password() {
    let port = shared_postgres().expect("a server").port();
    let opened = |url: String| {
        let error = Db::open(&DbConfig::postgres(DatabaseUrl::new(&url).expect("an address"))).map(drop);
        error.expect_err("refused").reason()
    };
    let missing = opened(format!("postgres://martlet:geheim@127.0.0.1:{port}/nowhere"));
    assert!(missing.contains("does not exist") && !missing.contains("geheim"), "{missing}");
    let closed = opened(format!("postgres://martlet:geheim@127.0.0.1:{}/chat", martlet_servers::free_port()));
    assert!(closed.contains("refused") && !closed.contains("geheim"), "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_cut_are_replaced() {
    let store = Store::new();
    let account = store.register(1);
    for _ in 0..3 {
        store.db.read(move |c| accounts::by_keys(c, &[account.key])).await.expect("answers");
        let other = store.second();
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        other
            .write_blocking(|conn| match conn {
                martlet_storage::Conn::Postgres(c) => Ok(diesel::RunQueryDsl::execute(diesel::sql_query(cut), c)?),
                martlet_storage::Conn::Sqlite(_) => Err(StorageError::Busy),
            })
            .expect("cut");
        // The first to find its connection dead is told that it may try again; nobody after it notices.
        let mut refused = 0;
        while let Err(error) = store.db.read(move |c| accounts::by_keys(c, &[account.key])).await {
            assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
            refused += 1;
        }
        assert!(refused <= 4, "at most each of its connections once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_waited_for_so_long_and_no_longer() {
    let database = Database::create().expect("a database");
    let server = shared_postgres().expect("a server");
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).expect("a proxy");
    let through = format!("postgres://martlet@127.0.0.1:{}/{}", proxy.port(), database.name());
    let config = DbConfig {
        durability: Durability::Normal,
        timeout: Duration::from_secs(2),
        ..DbConfig::postgres(DatabaseUrl::new(&through).expect("an address"))
    };
    let db = tokio::task::spawn_blocking(move || Db::open(&config)).await.expect("ran").expect("opens");
    db.health().await.expect("answers");
    proxy.stall().expect("stalled");
    assert!(matches!(db.health().await, Err(StorageError::Unavailable(_))));
    proxy.heal().expect("healed");
    for _ in 0..100 {
        if db.health().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never answered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_a_node_id_until_it_is_gone() {
    let store = Store::new();
    let (first, second) = (store.db.clone(), store.second());
    let held = first.claim_node_id("n1").await.expect("asked").expect("free");
    assert!(held.is_held());
    assert!(second.claim_node_id("n1").await.expect("asked").is_none(), "taken");
    assert!(second.claim_node_id("n2").await.expect("asked").is_some(), "another one");
    drop(held);
    for _ in 0..100 {
        if second.claim_node_id("n1").await.expect("asked").is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the id was not freed");
}

/// Contents lie in the part of the week in which they expire, and go with it whatever still points at them.
#[test]
fn contents_go_with_their_week() {
    const WEEK_S: u64 = 7 * 86_400;
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'contents'::regclass";
    let keep = |now_s: u64| store.run(|conn| mailbox::keep_parts(conn, now_s, RETENTION_S));
    let (made, dropped) = keep(NOW_S);
    assert!((5..=7).contains(&made) && dropped == 0, "{made} {dropped}");
    assert_eq!(keep(NOW_S), (0, 0), "once");
    assert_eq!(store.number(parts) as usize, made + 1);
    let mut send = talk.send(&[&a]);
    send.content = Some(vec![1; 10_000].into());
    send.request_key = bytes(fresh());
    seqs(&store.commit(&[send])[0]);
    assert_eq!(store.number("SELECT count(*) FROM contents_default"), 0, "it lies in its week's part");
    let later = NOW_S + RETENTION_S + 2 * WEEK_S;
    let (_, dropped) = keep(later);
    assert!(dropped >= 5, "{dropped}");
    assert_eq!(store.number("SELECT count(*) FROM contents"), 0);
    assert_eq!(short(&store.read_at(a.devices[0], 0, later)), ["gap 1-1 expired"]);
    assert_eq!(store.run(|conn| mailbox::expire(conn, later, 100)), 1);
    assert_eq!(short(&store.read_at(a.devices[0], 0, later)), ["gap 1-1 expired"]);
}

/// Replicas are asked in turn, and without any the primary is.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_read_where_there_are_some() {
    let (store, other) = (Store::new(), Store::new());
    assert_eq!(store.db.replicas(), 0);
    other.run(|conn| control::append(conn, &ControlEntry::default(), NOW_S));
    let [head, elsewhere] = [&store, &other].map(|store| store.run(control::head));
    assert_ne!(head, elsewhere, "by their answers they can be told apart");
    let (mut config, replica) = (store.config(), other.config());
    if let (Place::Postgres { url, replicas }, Place::Postgres { url: other, .. }) = (&mut config.place, replica.place)
    {
        *replicas = vec![other, url.clone()];
    }
    let db = tokio::task::spawn_blocking(move || Db::open(&config)).await.expect("ran").expect("opens");
    assert_eq!(db.replicas(), 2);
    let mut answers = Vec::new();
    for turn in 0..4 {
        answers.push(db.read_replica(turn, control::head).await.expect("answers"));
    }
    assert_eq!(answers, [elsewhere, head, elsewhere, head]);
    assert_eq!(db.read(control::head).await.expect("answers"), head, "the primary is the primary");
    assert_eq!(store.db.read_replica(0, control::head).await.expect("answers"), head);
}

/// What no time-out of the server ends: a server that froze while its machine still answers for it. Here it is a call that never returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_ends_is_given_up_and_its_connection_replaced() {
    let store = Store::new();
    let config = DbConfig {
        timeout: Duration::from_secs(1),
        read_connections: 1,
        write_connections: 1,
        commit_connections: 1,
        ..store.config()
    };
    let freeze = |conn: &mut martlet_storage::Conn| match conn {
        martlet_storage::Conn::Postgres(c) => {
            let never = "SET LOCAL statement_timeout = 0; SELECT pg_sleep(600)";
            Ok(diesel::connection::SimpleConnection::batch_execute(c, never)?)
        }
        martlet_storage::Conn::Sqlite(_) => Err(StorageError::Busy),
    };
    let db = tokio::task::spawn_blocking(move || Db::open(&config)).await.expect("ran").expect("opens");
    let commits = db.clone();
    tokio::task::spawn_blocking(move || {
        let frozen: Result<(), StorageError> = commits.write_in_time(freeze);
        assert!(matches!(frozen, Err(StorageError::Unavailable(_))), "{frozen:?}");
        commits.write_in_time(control::head).expect("another connection");
    })
    .await
    .expect("commits go on");
    let frozen: Result<(), StorageError> = db.write(freeze).await;
    assert!(matches!(frozen, Err(StorageError::Unavailable(_))), "{frozen:?}");
    db.write(control::head).await.expect("another connection");
    let frozen: Result<(), StorageError> = db.read(freeze).await;
    assert!(matches!(frozen, Err(StorageError::Unavailable(_))), "{frozen:?}");
    db.read(control::head).await.expect("another connection");

    let sleeping =
        "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)' AND state = 'active'";
    assert_eq!(store.number(&format!("SELECT count(*) {sleeping}")), 3, "they really never ended");
    store.number(&format!("SELECT count(pg_terminate_backend(pid)) {sleeping}"));
    db.health().await.expect("what ends late disturbs nobody");
}

/// A node that only begins, or a retention that was raised: contents may come before their week's part does.
#[test]
fn contents_that_came_before_their_weeks_part_move_into_it() {
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let mut send = talk.send(&[&a]);
    send.content = Some(vec![1; 10_000].into());
    send.request_key = bytes(fresh());
    seqs(&store.commit(&[send])[0]);
    assert_eq!(store.number("SELECT count(*) FROM contents_default"), 1);
    let before = short(&store.read(a.devices[0], 0));
    let (made, _) = store.run(|conn| mailbox::keep_parts(conn, NOW_S, RETENTION_S));
    assert!(made >= 5, "{made}");
    assert_eq!(store.number("SELECT count(*) FROM contents_default"), 0);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1);
    assert_eq!(short(&store.read(a.devices[0], 0)), before);
    assert_eq!(
        (store.ack(a.devices[0], 1), store.number("SELECT count(*) FROM contents")),
        (1, 0),
        "it is found where it is now"
    );
}

/// As `migrations.rs` does for SQLite.
#[test]
fn migrations_go_down_and_up_again_here_too() {
    use diesel::Connection as _;
    use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgresql");
    let migrations = || FileBasedMigrations::from_path(&folder).expect("migrations");
    let database = Database::create().expect("a database");
    let mut conn = diesel::PgConnection::establish(&database.url().expect("an address")).expect("opens");
    let tables = || {
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%'";
        database.query(sql).expect("a number").trim().parse::<usize>().expect("a number")
    };
    conn.run_pending_migrations(migrations()).expect("up");
    let up = tables();
    assert!(up > 10, "{up}");
    assert!(!conn.revert_all_migrations(migrations()).expect("down").is_empty());
    assert_eq!(tables(), 0);
    conn.run_pending_migrations(migrations()).expect("up again");
    assert_eq!(tables(), up);
}
