//! Reading ranges and applying acks.

use martlet_storage::{
    DeviceKey,
    mailbox::{self, BackQuery, MailboxState, RangeQuery},
    sends::EntryBody,
};

use crate::common::{Account, Conversation, NOW_S, Store, ack, query, short};

/// An account with one device that has entries 1 to `count`.
fn filled(count: usize) -> (Store, Account, Conversation, DeviceKey) {
    let store = Store::new();
    let account = store.register(1);
    let talk = store.converse(&[&account]);
    let batch: Vec<_> = (0..count).map(|_| talk.send(&[&account])).collect();
    store.commit(&batch);
    let device = account.devices[0];
    (store, account, talk, device)
}

fn part(store: &Store, query: RangeQuery) -> (Vec<String>, u64) {
    let range = store.run(|c| mailbox::range(c, &query));
    (short(&range.items), range.head_seq)
}

#[test]
fn a_range_is_bounded_by_items_and_bytes() {
    let (store, _, _, device) = filled(10);
    let all = query(device, 0, NOW_S);
    assert_eq!(part(&store, RangeQuery { max_items: 3, ..all }), (vec!["e1".into(), "e2".into(), "e3".into()], 10));
    // 64 bytes each: the budget is reached with the second.
    assert_eq!(part(&store, RangeQuery { after_seq: 7, max_bytes: 100, ..all }).0, ["e8", "e9"]);
    assert_eq!(part(&store, RangeQuery { max_bytes: 0, ..all }).0, ["e1"], "always one");
    assert_eq!(part(&store, RangeQuery { max_items: 0, ..all }).0, ["e1"]);
    assert_eq!(part(&store, RangeQuery { after_seq: 10, ..all }), (vec![], 10));
    assert_eq!(part(&store, RangeQuery { after_seq: 99, ..all }), (vec![], 10));
    assert_eq!(part(&store, query(DeviceKey(999), 0, NOW_S)), (vec![], 0));
}

fn back(store: &Store, device: DeviceKey, before_seq: u64, max_entries: u32, max_bytes: usize) -> Vec<String> {
    let query = BackQuery { device, before_seq, max_entries, max_bytes, now_s: NOW_S };
    short(&store.run(|c| mailbox::range_before(c, &query)).items)
}

#[test]
fn a_mailbox_is_read_backwards_in_pages() {
    let (store, _, _, device) = filled(10);
    assert_eq!(back(&store, device, u64::MAX, 3, 1 << 20), ["e8", "e9", "e10"]);
    assert_eq!(back(&store, device, 8, 3, 1 << 20), ["e5", "e6", "e7"]);
    assert_eq!(back(&store, device, 3, 3, 1 << 20), ["e1", "e2"]);
    assert!(back(&store, device, 1, 3, 1 << 20).is_empty() && back(&store, device, 0, 3, 1 << 20).is_empty());
    // 64 bytes each: the budget is reached with the second.
    assert_eq!(back(&store, device, 8, 100, 100), ["e6", "e7"]);
    assert_eq!(back(&store, device, 8, 0, 0), ["e7"], "always one");
    assert!(back(&store, DeviceKey(999), u64::MAX, 3, 100).is_empty());
    store.ack(device, 6);
    assert_eq!(back(&store, device, 9, 100, 1 << 20), ["gap 1-6 acked", "e7", "e8"]);
    assert_eq!(back(&store, device, 9, 1, 1 << 20), ["e8"]);
    assert_eq!(back(&store, device, 5, 1, 1 << 20), ["gap 1-4 acked"]);
}

#[test]
fn gaps_stand_in_the_pages_that_they_belong_to() {
    let (store, ..) = filled(0);
    let account = store.register(1);
    let talk = store.converse(&[&account]);
    let device = account.devices[0];
    let dormant = || {
        let mut send = talk.send(&[&account]);
        send.entries[0].body = EntryBody::Dormant;
        send
    };
    let entry = || talk.send(&[&account]);
    store.commit(&[dormant(), entry(), entry(), dormant(), dormant(), entry(), dormant()]);
    let all = ["gap 1-1 dormant", "e2", "e3", "gap 4-5 dormant", "e6", "gap 7-7 dormant"];
    assert_eq!(back(&store, device, u64::MAX, 10, 1 << 20), all);
    assert_eq!(back(&store, device, u64::MAX, 1, 1 << 20), all[4..], "what lies behind the last entry comes with it");
    assert_eq!(back(&store, device, 6, 1, 1 << 20), ["e3", "gap 4-5 dormant"]);
    assert_eq!(back(&store, device, 5, 1, 1 << 20), ["e3", "gap 4-4 dormant"], "a gap is cut where the page ends");
    assert_eq!(back(&store, device, 3, 1, 1 << 20), ["e2"]);
    assert_eq!(back(&store, device, 2, 1, 1 << 20), ["gap 1-1 dormant"]);
}

#[test]
fn what_was_acked_reads_as_acked() {
    let (store, _, _, device) = filled(5);
    assert_eq!(store.ack(device, 3), 3);
    assert_eq!(short(&store.read(device, 0)), ["gap 1-3 acked", "e4", "e5"]);
    assert_eq!(short(&store.read(device, 2)), ["gap 3-3 acked", "e4", "e5"]);
    assert_eq!(short(&store.read(device, 3)), ["e4", "e5"]);
    let state = store.run(|c| mailbox::state(c, device));
    assert_eq!(state, Some(MailboxState { epoch: 1, head_seq: 5, acked_seq: 3 }));
}

#[test]
fn acks_are_monotone_and_end_at_the_head() {
    let (store, account, talk, device) = filled(5);
    assert_eq!(store.ack(device, 4), 4);
    assert_eq!(store.ack(device, 2), 0);
    assert_eq!(store.ack(device, u64::MAX), 1);
    assert_eq!(store.run(|c| mailbox::state(c, device)).map(|state| state.acked_seq), Some(5));
    assert_eq!(store.ack(DeviceKey(999), 5), 0);
    store.commit(&[talk.send(&[&account])]);
    assert_eq!(short(&store.read(device, 5)), ["e6"]);
    // Several of one device in a batch: the highest counts.
    assert_eq!(store.run(|c| mailbox::apply_acks(c, &[ack(device, 6), ack(device, 1), ack(DeviceKey(7), 1)])), 1);
    assert_eq!(store.number("SELECT removed_entries FROM mailbox_acks"), 6);
    assert_eq!(store.number("SELECT a.removed_bytes - h.added_bytes FROM mailbox_acks a, mailbox_heads h"), 0);
}

#[test]
fn acks_trim_the_markers() {
    let (store, account, talk, device) = filled(2);
    let mut sleeping = talk.send(&[&account]);
    sleeping.entries[0].body = EntryBody::Dormant;
    for number in 0..4_u8 {
        let mut send = sleeping.clone();
        send.request_key = [number; 32];
        store.commit(&[send]);
    }
    store.commit(&[talk.send(&[&account])]);
    assert_eq!(short(&store.read(device, 0)), ["e1", "e2", "gap 3-6 dormant", "e7"]);
    assert_eq!(store.ack(device, 4), 2);
    assert_eq!(short(&store.read(device, 4)), ["gap 5-6 dormant", "e7"]);
    assert_eq!(store.ack(device, 6), 0);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_gaps"), 0);
    assert_eq!(short(&store.read(device, 0)), ["gap 1-6 acked", "e7"]);
}

#[test]
fn a_content_goes_with_its_last_entry() {
    let store = Store::new();
    let account = store.register(3);
    let talk = store.converse(&[&account]);
    let batch: Vec<_> = (0..3)
        .map(|_| {
            let mut send = talk.send(&[&account]);
            send.content = Some(vec![1; 5000].into());
            send
        })
        .collect();
    store.commit(&batch);
    let [a, b, c] = account.devices[..] else { panic!("three devices") };
    assert_eq!(store.run(|conn| mailbox::apply_acks(conn, &[ack(a, 3), ack(b, 2)])), 5);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 3);
    store.ack(c, 2);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1);
    assert_eq!(store.number("SELECT refs FROM contents"), 2);
    assert_eq!(store.run(|conn| mailbox::apply_acks(conn, &[ack(b, 3), ack(c, 3)])), 2);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 0);
}

#[test]
fn a_hole_without_a_marker_is_told() {
    let (store, _, _, device) = filled(9);
    store.execute("DELETE FROM mailbox_entries WHERE seq IN (1, 4, 5, 9)");
    let all = ["gap 1-1 unexplained", "e2", "e3", "gap 4-5 unexplained", "e6", "e7", "e8", "gap 9-9 unexplained"];
    assert_eq!(short(&store.read(device, 0)), all);
    // Cut anywhere, the parts say the same, and no end is taken for a hole.
    for max_items in 1..9 {
        let mut read = Vec::new();
        let mut after_seq = 0;
        while after_seq < 9 {
            let (items, _) = part(&store, RangeQuery { max_items, ..query(device, after_seq, NOW_S) });
            assert!(!items.is_empty() && items.len() <= max_items as usize);
            let last = items.last().expect("an item").trim_start_matches('e').to_owned();
            after_seq = match last.strip_prefix("gap ") {
                Some(gap) => gap.split(['-', ' ']).nth(1).expect("an end").parse().expect("a number"),
                None => last.parse().expect("a number"),
            };
            read.extend(items);
        }
        assert_eq!(read, all, "{max_items} at a time");
    }
}

#[test]
fn an_entry_without_its_content_is_an_error() {
    let store = Store::new();
    let account = store.register(1);
    let talk = store.converse(&[&account]);
    let mut send = talk.send(&[&account]);
    send.content = Some(vec![1; 5000].into());
    store.commit(&[send]);
    store.execute("DELETE FROM contents");
    let read = store.db.write_blocking(|c| mailbox::range(c, &query(account.devices[0], 0, NOW_S)));
    assert!(matches!(read, Err(martlet_storage::StorageError::Inconsistent(_))));
}
