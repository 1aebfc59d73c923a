//! Tokens and tickets.

use martlet_protocol::{
    id::{DeviceId, Hash},
    wire::control_entry::Event,
};
use martlet_storage::{
    control, tickets,
    tokens::{self, Rotation},
};

use crate::common::{NOW_MS, NOW_S, Store, bytes};

fn hash(number: u64) -> Hash {
    Hash::new(bytes(number))
}

fn ended(store: &Store, after: u64) -> Vec<Hash> {
    store
        .run(|c| control::after(c, after, 100))
        .into_iter()
        .filter_map(|(_, entry)| match entry.event? {
            Event::TokenEnded(ended) => Hash::try_from(ended.token_hash.as_ref()).ok(),
            _ => None,
        })
        .collect()
}

fn signed_out(store: &Store, after: u64) -> Vec<DeviceId> {
    store
        .run(|c| control::after(c, after, 100))
        .into_iter()
        .filter_map(|(_, entry)| match entry.event? {
            Event::SignedOut(signed_out) => DeviceId::try_from(signed_out.device_id.as_ref()).ok(),
            _ => None,
        })
        .collect()
}

#[test]
fn signing_out_ends_one_token_and_tells_once() {
    let store = Store::new();
    let account = store.register(1);
    let (device, id) = (account.devices[0], account.device_ids[0]);
    for number in [1, 2] {
        store.run(|c| tokens::insert(c, &hash(number), device, NOW_MS));
    }
    let before = store.run(control::head);
    assert!(store.run(|c| tokens::sign_out(c, &hash(1), &id, NOW_S)));
    assert!(!store.run(|c| tokens::sign_out(c, &hash(1), &id, NOW_S)));
    assert_eq!((ended(&store, before), signed_out(&store, before)), (vec![hash(1)], vec![id]));
    assert!(store.run(|c| tokens::has_one(c, device, NOW_MS - 1)));
    assert!(!store.run(|c| tokens::has_one(c, device, NOW_MS)), "what has expired is none");
}

#[test]
fn a_token_names_its_device_until_it_ends() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| tokens::insert(c, &hash(1), account.devices[0], NOW_MS));
    let row = store.run(|c| tokens::by_hash(c, &hash(1))).expect("found");
    assert_eq!((row.device_key, row.device_id), (account.devices[0], account.device_ids[0]));
    assert_eq!((row.account_key, row.account_id, row.expires_at_ms), (account.key, account.id, NOW_MS));
    assert!(store.run(|c| tokens::by_hash(c, &hash(2))).is_none());
    assert!(store.run(|c| tokens::delete(c, &hash(1), NOW_S)));
    assert!(!store.run(|c| tokens::delete(c, &hash(1), NOW_S)));
    assert!(store.run(|c| tokens::by_hash(c, &hash(1))).is_none());
    assert_eq!(ended(&store, 0), [hash(1)]);
}

#[test]
fn rotation_leaves_the_old_token_a_moment() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| tokens::insert(c, &hash(1), account.devices[0], NOW_MS + 1000));
    let rotation = Rotation {
        old: hash(1),
        old_expires_at_ms: NOW_MS + 60,
        new: hash(2),
        new_expires_at_ms: NOW_MS + 9000,
        now_s: NOW_S,
    };
    assert!(store.run(|c| tokens::rotate(c, &rotation)));
    let expiry = |number| store.run(|c| tokens::by_hash(c, &hash(number))).map(|row| row.expires_at_ms);
    assert_eq!(expiry(1), Some(NOW_MS + 60));
    assert_eq!(expiry(2), Some(NOW_MS + 9000));
    assert_eq!(ended(&store, 0), [hash(1)]);
    // It never lengthens a life.
    let later = Rotation { new: hash(3), old_expires_at_ms: NOW_MS + 70, ..rotation };
    assert!(store.run(|c| tokens::rotate(c, &later)));
    assert_eq!(expiry(1), Some(NOW_MS + 60));
    let unknown = Rotation { old: hash(8), new: hash(9), ..rotation };
    assert!(!store.run(|c| tokens::rotate(c, &unknown)));
    assert_eq!(expiry(9), None);
}

#[test]
fn signing_in_again_ends_what_was() {
    let store = Store::new();
    let account = store.register(2);
    let [a, b] = account.devices[..] else { panic!("two devices") };
    for (number, device) in [(1, a), (2, a), (3, b)] {
        store.run(|c| tokens::insert(c, &hash(number), device, NOW_MS));
    }
    let before = store.run(control::head);
    let a_id = account.device_ids[0];
    assert_eq!(store.run(|c| tokens::delete_of_device(c, a, &a_id, NOW_S)), 2);
    assert_eq!(signed_out(&store, before), [a_id], "its socket may be one that they opened");
    assert!(!store.run(|c| tokens::has_one(c, a, 0)) && store.run(|c| tokens::has_one(c, b, 0)));
    assert_eq!(store.run(|c| tokens::delete_of_device(c, a, &a_id, NOW_S)), 0);
    assert_eq!(signed_out(&store, before).len(), 1, "nothing was open");
    let mut told = ended(&store, before);
    told.sort();
    assert_eq!(told, [hash(1), hash(2)]);
    assert!(store.run(|c| tokens::by_hash(c, &hash(3))).is_some());
}

#[test]
fn a_suspended_device_has_no_valid_token() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| tokens::insert(c, &hash(1), account.devices[0], NOW_MS));
    store.run(|c| tickets::insert(c, &hash(2), account.devices[0], NOW_MS));
    store.execute("UPDATE devices SET status = 1");
    assert!(store.run(|c| tokens::by_hash(c, &hash(1))).is_none());
    assert!(store.run(|c| tickets::redeem(c, &hash(2), NOW_MS - 1)).is_none());
}

#[test]
fn a_ticket_serves_once_and_not_after_its_time() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| tickets::insert(c, &hash(1), account.devices[0], NOW_MS + 30));
    store.run(|c| tickets::insert(c, &hash(2), account.devices[0], NOW_MS));
    let row = store.run(|c| tickets::redeem(c, &hash(1), NOW_MS)).expect("valid");
    assert_eq!(row.device_key, account.devices[0]);
    assert!(store.run(|c| tickets::redeem(c, &hash(1), NOW_MS)).is_none(), "used");
    assert!(store.run(|c| tickets::redeem(c, &hash(2), NOW_MS)).is_none(), "expired");
    assert!(store.run(|c| tickets::redeem(c, &hash(3), NOW_MS)).is_none(), "unknown");
}
