//! The store on disk: passphrases, crashes between opening, storing and acknowledging, altered and moved records.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails its test by panicking")]

mod receipts;
mod scene;

use martlet_client::{
    ClientError, Clock, Device, Event,
    device::{Founding, PrepareError, SendHalt},
    identity::NewAccount,
    store::{Batch, Store, StoreError, Table},
};
use martlet_protocol::{
    rest::{ClaimAnswer, DeviceBundle, DeviceLabel},
    wire,
};
use redb::ReadableTable as _;

use scene::{NOW_MS, Scene, file, found, rng, text_content};

#[test]
fn only_the_passphrase_opens_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = file(folder.path(), "swallow").unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Conversation, b"a name", &"a record");
    store.commit(batch, &mut rng(2)).unwrap();
    assert!(matches!(file(folder.path(), "swallow"), Err(StoreError::InUse)), "one program at a time");
    drop(store);
    assert!(matches!(file(folder.path(), "swift"), Err(StoreError::WrongPassphrase)));
    let store = file(folder.path(), "swallow").unwrap();
    assert_eq!(store.get::<String>(Table::Conversation, b"a name").unwrap().as_deref(), Some("a record"));
    assert_eq!(store.get::<String>(Table::Account, b"a name").unwrap(), None);
    drop(store);
    let bytes = std::fs::read(folder.path().join("device.store")).unwrap();
    for secret in [b"a record".as_slice(), b"a name", b"swallow"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "nothing stands in the clear");
    }
}

#[test]
fn a_batch_is_stored_whole_and_tables_don_t_mix() {
    let folder = tempfile::tempdir().unwrap();
    for mut store in [Store::memory(), file(folder.path(), "p").unwrap()] {
        let mut batch = Batch::default();
        for number in [3_u64, 1, 2, 300] {
            batch.put(Table::Message, &number.to_be_bytes(), &number);
        }
        batch.put(Table::Outbox, &7_u64.to_be_bytes(), &7_u64);
        batch.put(Table::Seen, b"x", &1_u64);
        store.commit(batch, &mut rng(2)).unwrap();
        let numbers = |after, limit| -> Vec<u64> {
            store.after::<u64>(Table::Message, after, limit).unwrap().into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(0, 10), [1, 2, 3, 300]);
        assert_eq!(numbers(1, 2), [2, 3]);
        assert_eq!(numbers(u64::MAX, 2), Vec::<u64>::new());
        assert_eq!(store.all::<u64>(Table::Seen).unwrap(), [(b"x".to_vec(), 1)]);
        let mut batch = Batch::default();
        batch.delete(Table::Message, &2_u64.to_be_bytes());
        store.commit(batch, &mut rng(3)).unwrap();
        assert_eq!(store.get::<u64>(Table::Message, &2_u64.to_be_bytes()).unwrap(), None);
        assert_eq!(store.get::<u64>(Table::Message, &3_u64.to_be_bytes()).unwrap(), Some(3));
    }
}

#[test]
fn a_record_that_was_moved_to_another_name_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = file(folder.path(), "p").unwrap();
    let mut batch = Batch::default();
    for number in [1_u64, 2] {
        batch.put(Table::Message, &number.to_be_bytes(), &number);
    }
    store.commit(batch, &mut rng(2)).unwrap();
    drop(store);
    // Swaps the two rows beneath the encryption.
    let path = folder.path().join("device.store");
    let database = redb::Database::create(&path).unwrap();
    let records: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(records).unwrap();
        let name = |number: u64| [&[Table::Message as u8], number.to_be_bytes().as_slice()].concat();
        let one = table.get(name(1).as_slice()).unwrap().unwrap().value().to_vec();
        table.insert(name(2).as_slice(), one.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let store = file(folder.path(), "p").unwrap();
    assert_eq!(store.get::<u64>(Table::Message, &1_u64.to_be_bytes()).unwrap(), Some(1));
    let moved = store.get::<u64>(Table::Message, &2_u64.to_be_bytes());
    assert!(matches!(moved, Err(StoreError::Damaged(Table::Message))));
}

fn is_message(events: &[Event]) -> bool {
    matches!(events, [Event::Message(_)])
}

#[test]
fn a_crash_between_opening_and_storing_loses_nothing() {
    let mut scene = Scene::new();
    let entry = scene.entry("hello");
    assert!(is_message(&scene.reader().receive(&entry).unwrap()));
    // Opened, told to nobody, not committed: the one-time key must still be there.
    scene.crash();
    assert_eq!(scene.texts(), Vec::<String>::new());
    assert_eq!(scene.cursor(), 0, "so the node is asked for it again");
    assert!(is_message(&scene.reader().receive(&entry).unwrap()));
    scene.reader().commit().unwrap();
    assert_eq!(scene.texts(), ["hello"]);
}

#[test]
fn a_crash_between_storing_and_acknowledging_repeats_nothing() {
    let mut scene = Scene::new();
    let entry = scene.entry("hello");
    scene.reader().receive(&entry).unwrap();
    scene.reader().commit().unwrap();
    scene.crash();
    assert_eq!(scene.texts(), ["hello"]);
    assert_eq!(scene.cursor(), 1, "the ack is made from the store");
    assert!(
        scene.reader().receive(&entry).unwrap().is_empty(),
        "the unacknowledged entry comes again and is passed over"
    );
    // Under another seq, as after a restore of the server, it is recognised by its message id.
    let again = wire::MailboxEntry { seq: 2, ..entry };
    assert!(scene.reader().receive(&again).unwrap().is_empty());
    scene.reader().commit().unwrap();
    assert_eq!((scene.texts(), scene.cursor()), (vec!["hello".to_owned()], 2));
}

#[test]
fn the_one_time_key_ends_in_the_transaction_that_stores_the_message() {
    let mut scene = Scene::new();
    let entry = scene.entry("hello");
    let key_id = 4;
    let store_has_key = |scene: &mut Scene| {
        scene.reader = None;
        let store = file(scene.folder.path(), "p").unwrap();
        let name = [&[2], u32::to_be_bytes(key_id).as_slice()].concat();
        let key = store.get::<serde_json::Value>(Table::Prekey, &name).unwrap();
        scene.reader = Some(Device::open(store, Clock::manual(NOW_MS), rng(78)).unwrap());
        key.is_some()
    };
    assert_eq!(scene.stock.one_time_prekeys.len(), 2, "the claim took the last one");
    assert!(store_has_key(&mut scene));
    scene.reader().receive(&entry).unwrap();
    assert!(store_has_key(&mut scene), "opening alone ends nothing");
    scene.reader().receive(&entry).unwrap();
    scene.reader().commit().unwrap();
    assert!(!store_has_key(&mut scene));
    assert_eq!(scene.texts(), ["hello"]);
}

#[test]
fn an_own_message_outlives_a_crash_unchanged() {
    let mut scene = Scene::new();
    let conversation = scene.conversation;
    let alice_bundle = {
        // The reader writes back: it needs Alice's keys, of which the scene kept none, so they are made here.
        let upload = {
            scene.sender.due_prekeys(0).unwrap();
            scene.sender.due_prekeys(0).unwrap().unwrap()
        };
        DeviceBundle {
            account_id: scene.sender.account_id(),
            device_id: scene.sender.device_id(),
            signed_prekey: upload.signed_prekey.unwrap(),
            one_time_prekey: upload.one_time_prekeys.first().cloned(),
        }
    };
    let id = scene.reader().enqueue(conversation, &text_content("kept"), 0).unwrap();
    scene.crash();
    let number = scene.reader().due()[0].0;
    let Err(PrepareError::Halt(SendHalt::Claim(claim))) = scene.reader().prepare(number) else {
        panic!("keys have to be claimed first")
    };
    let answer = ClaimAnswer { bundles: vec![alice_bundle], lists: Vec::new(), dormant: Vec::new() };
    scene.reader().absorb_claim(&claim, &answer).unwrap();
    let before = scene.reader().prepare(number).unwrap().unwrap();
    assert_eq!(before.client_message_id, id);
    scene.crash();
    let after = scene.reader().prepare(number).unwrap().unwrap();
    assert_eq!(before.request, after.request, "byte for byte");
    assert_eq!(scene.reader().unsent(), 1);
}

#[test]
fn a_store_holds_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let store = file(folder.path(), "p").unwrap();
    assert!(matches!(Device::open(store, Clock::System, rng(1)).err(), Some(ClientError::NoDevice)));
    let (device, ..) = found(file(folder.path(), "p").unwrap(), "alice", &mut rng(2));
    let id = device.device_id();
    drop(device);
    let new = NewAccount::generate(
        "bob",
        "password",
        DeviceLabel { name: "d".into(), platform: "t".into() },
        1,
        NOW_MS,
        &mut rng(3),
    )
    .unwrap();
    let founding = Founding {
        keys: new.keys,
        prekeys: new.prekeys,
        lists: vec![new.list],
        username: "bob".into(),
        server: String::new(),
    };
    let second = Device::found(file(folder.path(), "p").unwrap(), founding, Clock::System, rng(4));
    assert!(matches!(second.err(), Some(ClientError::DeviceExists)));
    let device = Device::open(file(folder.path(), "p").unwrap(), Clock::System, rng(5)).unwrap();
    assert_eq!(device.device_id(), id);
}

/// A failover to a standby that lagged, and the device dies before it has read anything by the new numbers.
#[test]
fn a_mailbox_that_is_numbered_anew_is_read_anew_and_repeats_nothing() {
    let mut scene = Scene::new();
    let entry = scene.entry("hello");
    scene.reader().receive(&entry).unwrap();
    scene.reader().commit().unwrap();
    let mailbox = Some(wire::MailboxState { epoch: 6, head_seq: 1, acked_seq: 0 });
    let advice = scene.reader().on_hello(&wire::Hello { mailbox, ..wire::Hello::default() }).unwrap();
    assert!(matches!(advice.events[..], [Event::StreamRestarted]));
    scene.crash();
    assert_eq!(scene.cursor(), 0);
    assert!(scene.reader().receive(&entry).unwrap().is_empty(), "it was read");
    let other = wire::MailboxEntry { seq: 2, ..scene.entry("other") };
    assert!(is_message(&scene.reader().receive(&other).unwrap()));
}
