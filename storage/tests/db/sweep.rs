//! The sweeper of everything but mailboxes.

use martlet_protocol::id::{Hash, LinkId};
use martlet_storage::{
    control, links, prekeys,
    sends::SendOutcome,
    sweep::{self, CONTROL_RETENTION_S, Swept},
    tickets, tokens,
};

use crate::common::{NOW_MS, NOW_S, Store, bytes};

#[test]
fn what_has_had_its_time_goes() {
    let store = Store::new();
    let mut account = store.register(1);
    let device = account.devices[0];
    let talk = store.converse(&[&account]);
    let sends = [talk.send(&[&account]), talk.send(&[&account])];
    store.commit(&sends);
    let hash = |number| Hash::new(bytes(number));
    for (number, expires_at_ms) in [(1, NOW_MS), (2, NOW_MS + 1)] {
        store.run(|c| tokens::insert(c, &hash(number), device, expires_at_ms));
        store.run(|c| tickets::insert(c, &hash(number), device, expires_at_ms));
        store.run(|c| links::insert(c, &LinkId::new(bytes(number)), &hash(number), b"offer", expires_at_ms));
    }
    store.link(&mut account);
    assert_eq!(
        store.run(|c| sweep::sweep(c, NOW_MS, 100)),
        Swept { tokens: 1, tickets: 1, links: 1, ..Swept::default() }
    );
    let later = NOW_MS + 86_400_000;
    let swept = store.run(|c| sweep::sweep(c, later, 1));
    assert_eq!(swept, Swept { answers: 1, tokens: 1, tickets: 1, links: 1, control: 0, prekeys: 0 });
    assert_eq!(swept.most(), 1);
    assert_eq!(store.run(|c| sweep::sweep(c, later, 100)), Swept { answers: 1, ..Swept::default() });
    // Past its retention an answer is gone, and the same send is a new one.
    assert!(matches!(store.commit(&sends[..1])[0], SendOutcome::Mismatch), "the list has moved on");
}

#[test]
fn the_control_stream_loses_its_front_only() {
    let store = Store::new();
    let mut account = store.register(1);
    store.link(&mut account);
    store.link(&mut account);
    let day_later = NOW_MS + (CONTROL_RETENTION_S + 1) * 1000;
    assert_eq!(store.run(|c| sweep::sweep(c, day_later, 1)).control, 1);
    assert_eq!(store.run(|c| control::after(c, 0, 10)).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
    assert_eq!(store.run(|c| sweep::sweep(c, day_later, 10)).control, 1);
    assert_eq!(store.run(control::head), 2, "the head stays: a follower sees that it missed something");
    let entry = martlet_protocol::wire::ControlEntry { event: None };
    assert_eq!(store.run(|c| control::append(c, &entry, NOW_S)), 3, "numbers are not used again");
}

#[test]
fn expired_one_time_prekeys_keep_their_id() {
    let store = Store::new();
    let device = store.register(1).devices[0];
    let late = NOW_MS + 61 * 86_400_000;
    assert_eq!(store.run(|c| sweep::sweep(c, late, 100)).prekeys, 3);
    assert_eq!(store.run(|c| sweep::sweep(c, late, 100)).prekeys, 0);
    assert_eq!(store.number("SELECT count(*) FROM prekeys WHERE kind = 2 AND signed_prekey IS NULL"), 3);
    let claimed = store.run(|c| prekeys::claim(c, &[prekeys::Wanted { device_key: device, one_time: true }], late));
    assert_eq!(claimed.len(), 1, "the signed one stays");
}
