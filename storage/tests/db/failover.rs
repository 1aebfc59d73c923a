//! A database that has another past than the one that was served from: a standby that lagged is promoted.

use std::path::Path;

use martlet_servers::{Postgres, Proxy, Shutdown};
use martlet_storage::{DatabaseUrl, Db, DbConfig, Standbys, mailbox, prekeys};

use crate::common::{Account, Conversation, NOW_MS, Place, Store, ack, one_time, seqs, short};

const DATABASE: &str = "martlet";

fn url(server: &Postgres) -> DatabaseUrl {
    DatabaseUrl::new(&server.url(DATABASE)).expect("an address")
}

fn store_on(server: &Postgres) -> Store {
    Store::at(Place::Database(url(server), None))
}

/// A store with an account of two devices whose mailboxes hold three entries each.
struct Scene {
    store: Store,
    account: Account,
    talk: Conversation,
    primary: Postgres,
}

impl Scene {
    fn set(folder: &Path) -> Self {
        let primary = Postgres::start(&folder.join("primary")).expect("a server");
        primary.create_database(DATABASE).expect("a database");
        let store = store_on(&primary);
        let account = store.register(2);
        let talk = store.converse(&[&account]);
        let scene = Self { store, account, talk, primary };
        scene.send(3);
        scene
    }

    fn send(&self, count: u64) -> Vec<u64> {
        let sent = (0..count).map(|_| seqs(&self.store.commit(&[self.talk.send(&[&self.account])])[0])[0]);
        sent.collect()
    }

    /// Ends the primary without a word, and goes on with the standby.
    fn fail_over(&mut self, standby: &Postgres) {
        self.primary.stop(Shutdown::Immediate).expect("it stops");
        standby.promote().expect("promoted");
        self.store = store_on(standby);
    }

    fn epoch(&self) -> u64 {
        let device = self.account.devices[0];
        self.store.run(|conn| mailbox::state(conn, device)).expect("a mailbox").epoch
    }
}

/// Waits until the standby has everything, then parts it from its primary.
fn part(primary: &Postgres, standby: &Postgres, line: &Proxy) {
    standby.catch_up(primary).expect("in time");
    line.cut();
}

#[test]
fn a_standby_that_lagged_is_not_taken_for_what_it_replaces() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut scene = Scene::set(folder.path());
    let [a, b] = scene.account.devices[..] else { panic!("two devices") };
    let line = Proxy::start(([127, 0, 0, 1], scene.primary.port()).into()).expect("a proxy");
    let standby = Postgres::standby(line.port(), &folder.path().join("standby")).expect("a standby");
    part(&scene.primary, &standby, &line);
    assert_eq!(scene.send(3), [4, 5, 6], "answered, and never seen by the standby");
    assert_eq!(scene.epoch(), 1);

    scene.fail_over(&standby);
    let epoch = scene.epoch();
    assert!(
        epoch > 1_700_000_000,
        "numbers are given out a second time, so they are of an epoch that no other branch has"
    );
    assert_eq!(scene.send(2), [4, 5]);
    assert_eq!(scene.store.ack(a, 6), 0, "an ack of what was lost deletes nothing of what came after");
    assert_eq!(short(&scene.store.read(a, 0)).len(), 5);
    let now = mailbox::Ack { epoch, ..ack(b, 5) };
    assert_eq!(scene.store.run(|conn| mailbox::apply_acks(conn, &[now])), 5, "an ack of the new numbers counts");

    let stock = |device| scene.store.run(|conn| prekeys::stock(conn, device, NOW_MS)).one_time;
    assert_eq!(stock(a), 0, "they may have been claimed");
    let want = prekeys::Wanted { device_key: a, one_time: true };
    let claimed = scene.store.run(|conn| prekeys::claim(conn, &[want], NOW_MS));
    assert!(claimed[0].one_time_prekey.is_none());
    let uploaded = scene.store.db.write_blocking(|conn| prekeys::upload(conn, a, None, &one_time(50..53), 100, NOW_MS));
    assert_eq!(uploaded.expect("uploaded").one_time, 3, "new ones are given out");
    drop(scene.store.second());
    assert_eq!(scene.epoch(), epoch, "once");
}

#[test]
fn a_crash_or_a_standby_that_lacks_nothing_changes_no_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut scene = Scene::set(folder.path());
    scene.primary.stop(Shutdown::Immediate).expect("it stops");
    scene.primary.start_again().expect("it recovers");
    scene.store = store_on(&scene.primary);
    assert_eq!(scene.epoch(), 1, "the same server, after a crash");

    let line = Proxy::start(([127, 0, 0, 1], scene.primary.port()).into()).expect("a proxy");
    let standby = Postgres::standby(line.port(), &folder.path().join("standby")).expect("a standby");
    part(&scene.primary, &standby, &line);
    scene.primary.stop(Shutdown::Immediate).expect("it stops");
    standby.promote().expect("promoted");
    let config = DbConfig { standbys: Standbys::Synchronous, ..DbConfig::postgres(url(&standby)) };
    drop(Db::open(&config).expect("opens"));
    scene.store = store_on(&standby);
    assert_eq!((scene.epoch(), scene.send(1)), (1, vec![4]), "the operator said that nothing is lost");
}
