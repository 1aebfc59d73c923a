//! Offers of devices.

use martlet_protocol::id::{Hash, LinkId};
use martlet_storage::links;

use crate::common::{NOW_MS, Store, bytes};

const ID: LinkId = LinkId::new([1; 16]);

#[test]
fn an_offer_is_answered_once_and_consumed_once() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| links::insert(c, &ID, &Hash::new(bytes(2)), b"offer", NOW_MS + 10));
    let row = store.run(|c| links::by_id(c, &ID, NOW_MS)).expect("there");
    assert_eq!((row.poll_hash, row.offer.as_ref(), row.answer), (Hash::new(bytes(2)), b"offer".as_slice(), None));
    assert!(store.run(|c| links::consume(c, &ID, NOW_MS)).is_none(), "not answered yet");
    assert!(store.run(|c| links::answer(c, &ID, account.key, b"answer", NOW_MS)));
    assert!(!store.run(|c| links::answer(c, &ID, account.key, b"other", NOW_MS)), "only the first");
    let row = store.run(|c| links::consume(c, &ID, NOW_MS)).expect("answered");
    assert_eq!((row.account_key, row.answer.as_deref()), (Some(account.key), Some(b"answer".as_slice())));
    assert!(store.run(|c| links::consume(c, &ID, NOW_MS)).is_none(), "used");
    assert!(store.run(|c| links::by_id(c, &ID, NOW_MS)).is_none());
}

#[test]
fn an_expired_offer_is_not_there() {
    let store = Store::new();
    let account = store.register(1);
    store.run(|c| links::insert(c, &ID, &Hash::new(bytes(2)), b"offer", NOW_MS));
    assert!(store.run(|c| links::by_id(c, &ID, NOW_MS)).is_none());
    assert!(!store.run(|c| links::answer(c, &ID, account.key, b"answer", NOW_MS)));
    assert!(store.run(|c| links::by_id(c, &ID, NOW_MS - 1)).is_some());
}
