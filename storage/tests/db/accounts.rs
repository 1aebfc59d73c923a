//! Registration and lists.

use martlet_protocol::wire::control_entry::Event;
use martlet_storage::{
    StorageError,
    accounts::{self, AppendListError, InsertAccountError, NewAccount},
    control,
    devices::{self, DeviceStatus},
    mailbox,
};

use crate::common::{Store, append, bytes, fresh, list, new_device};

#[test]
fn an_account_is_found_by_name_id_and_key() {
    let store = Store::new();
    let account = store.register(1);
    let by_name = store.run(|c| accounts::by_username(c, &account.name)).expect("it is there");
    assert_eq!(by_name.account_key, account.key);
    assert_eq!(by_name.list_n, 1);
    assert_eq!(by_name.fingerprint, by_name.list_hash);
    assert_eq!(store.run(|c| accounts::by_id(c, &account.id)).map(|row| row.account_key), Some(account.key));
    assert_eq!(store.run(|c| accounts::by_keys(c, &[account.key])).len(), 1);
    assert!(store.run(|c| accounts::by_username(c, "nobody")).is_none());
    assert_eq!(store.run(|c| accounts::lists_after(c, account.key, 0)).len(), 1);
}

#[test]
fn names_and_ids_are_taken_once() {
    let store = Store::new();
    let account = store.register(1);
    let used_device = store.run(|c| devices::by_account(c, account.key))[0].device_id;
    let try_insert = |account_id, username: &str, device_id| {
        let mut device = new_device();
        device.device_id = device_id;
        let new = NewAccount {
            account_id,
            username,
            password_hash: "argon2",
            list: &list(),
            fingerprint: martlet_protocol::id::Hash::new(bytes(fresh())),
            device: &device,
        };
        store.db.write_blocking(|c| accounts::insert_account(c, &new))
    };
    let new_account = || martlet_protocol::id::AccountId::new(bytes(fresh()));
    let new_id = || martlet_protocol::id::DeviceId::new(bytes(fresh()));
    assert!(matches!(try_insert(new_account(), &account.name, new_id()), Err(InsertAccountError::UsernameTaken)));
    assert!(matches!(try_insert(account.id, "other", new_id()), Err(InsertAccountError::IdTaken)));
    assert!(matches!(try_insert(new_account(), "other", used_device), Err(InsertAccountError::IdTaken)));
    // The refused one left nothing behind.
    assert!(store.run(|c| accounts::by_username(c, "other")).is_none());
    assert_eq!(store.number("SELECT count(*) FROM accounts"), 1);
    assert!(try_insert(new_account(), "other", new_id()).is_ok());
}

#[test]
fn two_prekeys_of_one_id_are_refused() {
    let store = Store::new();
    let mut device = new_device();
    device.one_time_prekeys = [crate::common::one_time(1..2), crate::common::one_time(1..2)].concat();
    let account = store.register(1);
    let refused = store.append(&account, &[device], &[]);
    assert!(matches!(refused, Err(AppendListError::PrekeyIdReused)));
    assert_eq!(store.run(|c| accounts::by_id(c, &account.id)).map(|row| row.list_n), Some(1));
}

#[test]
fn a_list_comes_back_as_it_was_signed() {
    let store = Store::new();
    let account = store.register(1);
    let signed = list();
    let append = accounts::AppendList {
        account_key: account.key,
        expected_n: 1,
        list: &signed,
        hash: martlet_protocol::id::Hash::new(bytes(9)),
        added: &[],
        removed: &[],
        now_s: 1,
    };
    store.db.write_blocking(|c| accounts::append_list(c, &append)).expect("appended");
    assert_eq!(store.run(|c| accounts::lists_after(c, account.key, 1)), vec![signed]);
    let row = store.run(|c| accounts::by_id(c, &account.id)).expect("there");
    assert_eq!((row.list_n, row.list_hash), (2, martlet_protocol::id::Hash::new(bytes(9))));
}

#[test]
fn only_one_list_follows_a_head() {
    let store = Store::new();
    let account = store.register(1);
    store.append(&account, &[new_device()], &[]).expect("the first");
    assert!(matches!(store.append(&account, &[new_device()], &[]), Err(AppendListError::Conflict)));
    assert_eq!(store.run(|c| devices::by_account(c, account.key)).len(), 2);
}

#[test]
fn a_list_changes_every_head_of_its_account() {
    let store = Store::new();
    let mut account = store.register(2);
    let other = store.register(1);
    store.link(&mut account);
    let of = |key: i64| store.number(&format!("SELECT min(list_n) FROM mailbox_heads WHERE device_key = {key}"));
    assert!(account.devices.iter().all(|device| of(device.0) == 3));
    assert_eq!(of(other.devices[0].0), 1);
}

#[test]
fn a_revoked_device_leaves_a_tombstone_only() {
    let store = Store::new();
    let mut account = store.register(2);
    let other = store.register(1);
    let gone = account.devices[1];
    let gone_id = account.device_ids[1];
    let talk = store.converse(&[&account, &other]);
    let mut send = talk.send(&[&account, &other]);
    send.content = Some(vec![1; 5000].into());
    store.commit(&[send]);
    store.run(|c| martlet_storage::tokens::insert(c, &martlet_protocol::id::Hash::new(bytes(7)), gone, 9));
    store.run(|c| martlet_storage::tickets::insert(c, &martlet_protocol::id::Hash::new(bytes(8)), gone, 9));
    let control_before = store.run(control::head);

    store.revoke(&mut account, gone);

    for table in ["tokens", "socket_tickets", "prekeys", "mailbox_heads", "mailbox_acks", "mailbox_entries"] {
        let left = store.number(&format!("SELECT count(*) FROM {table} WHERE device_key = {}", gone.0));
        assert_eq!(left, 0, "{table}");
    }
    assert_eq!(store.run(|c| mailbox::state(c, gone)), None);
    assert!(store.read(gone, 0).is_empty());
    assert_eq!(store.number("SELECT refs FROM contents"), 2, "the other two still need the content");
    let row = store.run(|c| devices::by_id(c, &gone_id)).expect("the tombstone");
    assert_eq!(row.status, DeviceStatus::Revoked);
    assert_eq!(store.run(|c| devices::by_account(c, account.key)).len(), 1);
    assert!(matches!(store.db.write_blocking(|c| devices::rename(c, gone, "x")), Err(StorageError::Inconsistent(_))));

    let told = store.run(|c| control::after(c, control_before, 10));
    let events: Vec<_> = told.into_iter().filter_map(|(_, entry)| entry.event).collect();
    assert!(
        matches!(&events[0], Event::DeviceEnded(ended) if ended.device_id == gone_id.to_wire() && !ended.suspended)
    );
    assert!(matches!(&events[1], Event::AccountListChanged(changed) if changed.account_id == account.id.to_wire()));

    // The id is never used again, and a device goes once.
    let mut again = new_device();
    again.device_id = gone_id;
    assert!(matches!(store.append(&account, &[again], &[]), Err(AppendListError::IdTaken)));
    assert!(matches!(
        store.append(&account, &[], &[gone]),
        Err(AppendListError::Storage(StorageError::Inconsistent(_)))
    ));
    assert!(matches!(
        store.append(&account, &[], &[other.devices[0]]),
        Err(AppendListError::Storage(StorageError::Inconsistent(_)))
    ));
}

#[test]
fn a_last_content_goes_with_its_device() {
    let store = Store::new();
    let mut account = store.register(2);
    let talk = store.converse(&[&account]);
    let mut send = talk.send(&[&account]);
    send.content = Some(vec![1; 5000].into());
    store.commit(&[send]);
    let [first, second] = account.devices[..] else { panic!("two devices") };
    store.ack(first, 1);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1);
    store.revoke(&mut account, second);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 0);
}

#[test]
fn devices_are_listed_in_order_and_renamed() {
    let store = Store::new();
    let account = store.register(3);
    let rows = store.run(|c| devices::by_account(c, account.key));
    assert_eq!(rows.iter().map(|row| row.device_key).collect::<Vec<_>>(), account.devices);
    store.run(|c| devices::rename(c, account.devices[1], "laptop"));
    assert_eq!(store.run(|c| devices::by_account(c, account.key))[1].name, "laptop");
    let other = store.register(2);
    assert_eq!(store.run(|c| devices::by_accounts(c, &[other.key, account.key])).len(), 5);
}

#[test]
fn a_refused_append_is_rolled_back_whole() {
    let store = Store::new();
    let account = store.register(1);
    let control_before = store.run(control::head);
    let refused: Result<(), AppendListError> = store.db.write_blocking(|c| {
        append(c, &account, &[new_device()], &[])?;
        Err(AppendListError::Conflict)
    });
    assert!(refused.is_err());
    assert_eq!(store.run(control::head), control_before);
    assert_eq!(store.run(|c| devices::by_account(c, account.key)).len(), 1);
}
