//! Prekeys: uploads, and claims under concurrency.

use std::{collections::HashSet, thread};

use martlet_protocol::rest::PrekeyKind;
use martlet_storage::{
    devices,
    prekeys::{self, Claimed, Stock, UploadError, Wanted},
};

use crate::common::{NOW_MS, Store, one_time, prekey};

fn want(device_key: martlet_storage::DeviceKey) -> Wanted {
    Wanted { device_key, one_time: true }
}

#[test]
fn an_upload_is_idempotent_by_id_and_key() {
    let store = Store::new();
    let device = store.register(1).devices[0];
    let keys = one_time(10..20);
    let upload = |keys: &[_]| store.db.write_blocking(|c| prekeys::upload(c, device, None, keys, 200, NOW_MS));
    assert_eq!(upload(&keys).expect("new").one_time, 13);
    assert_eq!(upload(&keys).expect("again").one_time, 13);
    let reused = one_time(19..21);
    assert!(matches!(upload(&reused), Err(UploadError::IdReused { kind: PrekeyKind::OneTime, key_id: 19 })));
    // Nothing of the refused upload is stored.
    assert_eq!(store.run(|c| prekeys::stock(c, device, NOW_MS)).one_time, 13);
    let too_many = one_time(100..300);
    assert!(matches!(upload(&too_many), Err(UploadError::TooMany)));
    assert_eq!(store.run(|c| prekeys::stock(c, device, NOW_MS)).one_time, 13);
}

#[test]
fn a_claimed_key_does_not_come_back() {
    let store = Store::new();
    let device = store.register(1).devices[0];
    let keys = one_time(10..11);
    store.db.write_blocking(|c| prekeys::upload(c, device, None, &keys, 200, NOW_MS)).expect("stored");
    for _ in 0..4 {
        assert!(store.run(|c| prekeys::claim(c, &[want(device)], NOW_MS))[0].one_time_prekey.is_some());
    }
    let drained = store.run(|c| prekeys::claim(c, &[want(device)], NOW_MS));
    assert!(drained[0].one_time_prekey.is_none(), "falls back to the signed prekey");
    // A late retry of the upload restocks nothing, and the id stays bound to its key.
    let stock = store.db.write_blocking(|c| prekeys::upload(c, device, None, &keys, 200, NOW_MS)).expect("same");
    assert_eq!(stock.one_time, 0);
    let other = one_time(10..11);
    let reused = store.db.write_blocking(|c| prekeys::upload(c, device, None, &other, 200, NOW_MS));
    assert!(matches!(reused, Err(UploadError::IdReused { key_id: 10, .. })));
}

#[test]
fn a_new_signed_prekey_replaces_the_current_one() {
    let store = Store::new();
    let account = store.register(1);
    let device = account.devices[0];
    let first = store.run(|c| prekeys::claim(c, &[want(device)], NOW_MS))[0].signed_prekey.clone();
    let mut second = prekey(PrekeyKind::Signed, 2);
    second.not_after_ms += 5;
    let upload = |key: &_| store.db.write_blocking(|c| prekeys::upload(c, device, Some(key), &[], 200, NOW_MS));
    assert_eq!(upload(&second).expect("new").signed_not_after_ms, second.not_after_ms);
    let now = || store.run(|c| prekeys::claim(c, &[want(device)], NOW_MS))[0].signed_prekey.clone();
    assert_eq!(now(), second);
    // A late retry of the first upload doesn't put the old one back.
    upload(&first).expect("same key");
    assert_eq!(now(), second);
    assert!(matches!(
        upload(&prekey(PrekeyKind::Signed, 1)),
        Err(UploadError::IdReused { kind: PrekeyKind::Signed, .. })
    ));
    let row = &store.run(|c| devices::by_account(c, account.key))[0];
    assert_eq!(row.prekey_not_after_ms, second.not_after_ms);
}

#[test]
fn expired_keys_are_neither_counted_nor_given_out() {
    let store = Store::new();
    let device = store.register(1).devices[0];
    let after = NOW_MS + 61 * 86_400_000;
    let Stock { one_time, signed_not_after_ms } = store.run(|c| prekeys::stock(c, device, after));
    assert_eq!(one_time, 0);
    assert!(signed_not_after_ms < after);
    assert!(store.run(|c| prekeys::claim(c, &[want(device)], after))[0].one_time_prekey.is_none());
}

#[test]
fn a_claim_answers_in_order_and_leaves_out_who_has_no_keys() {
    let store = Store::new();
    let mut account = store.register(3);
    let [a, b, c] = account.devices[..] else { panic!("three devices") };
    store.revoke(&mut account, b);
    let wanted = [want(c), want(b), Wanted { device_key: a, one_time: false }];
    let claimed = store.run(|conn| prekeys::claim(conn, &wanted, NOW_MS));
    assert_eq!(claimed.iter().map(|claim| claim.device_key).collect::<Vec<_>>(), [c, a]);
    assert!(claimed[0].one_time_prekey.is_some());
    assert!(claimed[1].one_time_prekey.is_none());
}

#[test]
fn concurrent_claims_never_get_the_same_key() {
    const THREADS: usize = 8;
    const CLAIMS: usize = 40;
    let store = Store::new();
    let device = store.register(1).devices[0];
    let keys = one_time(100..300);
    store.db.write_blocking(|c| prekeys::upload(c, device, None, &keys, 1000, NOW_MS)).expect("stored");
    // Two processes with four threads each.
    let processes = [store.db.clone(), store.second()];
    let claimed: Vec<Claimed> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let db = &processes[number % 2];
                scope.spawn(move || {
                    (0..CLAIMS)
                        .flat_map(|_| {
                            db.write_blocking(|c| prekeys::claim(c, &[want(device)], NOW_MS)).expect("claimed")
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let ids: Vec<u32> = claimed.iter().filter_map(|claim| Some(claim.one_time_prekey.as_ref()?.key_id)).collect();
    assert_eq!(claimed.len(), THREADS * CLAIMS);
    assert_eq!(ids.len(), 203, "all were given out, and then none");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "none twice");
}
