//! The commit: what is refused, what is repeated, in which order things rest.

use std::{sync::mpsc, thread, time::Duration};

use martlet_protocol::id::Hash;
use martlet_storage::{
    DeviceKey, StorageError,
    accounts::AppendListError,
    conversations::{self, AppendLink},
    mailbox::{self, Item},
    sends::{self, EntryBody, SendOutcome},
};

use crate::common::{
    Backend, NOW_MS, NOW_S, ROOMY, Store, answer, append, bytes, fresh, link, new_device, seqs, short,
};

#[test]
fn a_send_rests_in_every_mailbox() {
    let store = Store::new();
    let (a, b) = (store.register(3), store.register(2));
    let talk = store.converse(&[&a, &b]);
    let send = talk.send(&[&a, &b]);
    let outcomes = store.commit(std::slice::from_ref(&send));
    assert_eq!(outcomes, [SendOutcome::Committed { seqs: vec![1; 5], partial: vec![] }]);
    for entry in &send.entries {
        let EntryBody::Sealed(sealed) = &entry.body else { panic!("sealed") };
        let expected = Item::Entry { seq: 1, entry_id: entry.entry_id, sealed: sealed.clone(), content: None };
        assert_eq!(store.read(entry.device, 0), [expected]);
    }
    assert_eq!(seqs(&store.commit(&[talk.send(&[&b])])[0]), [2, 2]);
    assert_eq!(
        store.run(|c| mailbox::heads(c, &[b.devices[0], a.devices[0], DeviceKey(99)])),
        [(a.devices[0], 1), (b.devices[0], 2)]
    );
}

#[test]
fn shared_content_rests_once() {
    let store = Store::new();
    let a = store.register(3);
    let talk = store.converse(&[&a]);
    let mut send = talk.send(&[&a]);
    let content = bytes::Bytes::from(vec![7; 10_000]);
    send.content = Some(content.clone());
    store.commit(&[send]);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1);
    assert_eq!(store.number("SELECT refs FROM contents"), 3);
    let Item::Entry { content: read, .. } = &store.read(a.devices[2], 0)[0] else { panic!("an entry") };
    assert_eq!(read.as_ref(), Some(&content));
}

#[test]
fn whatever_differs_is_a_mismatch_of_that_send_alone() {
    let store = Store::new();
    let (a, mut b) = (store.register(1), store.register(2));
    let talk = store.converse(&[&a, &b]);
    let good = || talk.send(&[&a, &b]);
    let mut wrong_list = good();
    wrong_list.entries[0].list_n += 1;
    let mut wrong_link = good();
    wrong_link.membership_m += 1;
    let mut no_device = good();
    no_device.entries[1].device = DeviceKey(999);
    let mut no_conversation = good();
    no_conversation.conversation_key = martlet_storage::ConversationKey(999);
    let mut last = good();
    last.content = Some(vec![1; 5000].into());
    let mut refused_with_content = wrong_list.clone();
    refused_with_content.request_key = bytes(fresh());
    refused_with_content.content = Some(vec![1; 5000].into());
    let outcomes =
        store.commit(&[good(), wrong_list.clone(), wrong_link, no_device, no_conversation, refused_with_content, last]);
    assert_eq!(seqs(&outcomes[0]), [1, 1, 1]);
    assert!(outcomes[1..6].iter().all(|outcome| *outcome == SendOutcome::Mismatch));
    assert_eq!(seqs(&outcomes[6]), [2, 2, 2], "the refused ones took no seq");
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 6);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1);
    assert_eq!(store.number("SELECT count(*) FROM send_answers"), 2);

    // A refused send may come again, corrected, under its id.
    wrong_list.entries[0].list_n -= 1;
    assert_eq!(seqs(&store.commit(&[wrong_list])[0]), [3, 3, 3]);

    // A revoked device and a changed list.
    let before = good();
    let gone = b.devices[1];
    store.revoke(&mut b, gone);
    assert_eq!(store.commit(&[before]), [SendOutcome::Mismatch]);
    assert!(matches!(store.commit(&[talk.send(&[&a, &b])])[0], SendOutcome::Committed { .. }));
}

#[test]
fn a_membership_link_makes_older_sends_a_mismatch() {
    let store = Store::new();
    let a = store.register(1);
    let mut talk = store.converse(&[&a]);
    let before = talk.send(&[&a]);
    let append = AppendLink {
        conversation_key: talk.key,
        expected_m: 1,
        link: &link(),
        hash: Hash::new(bytes(1)),
        changes: &[],
        now_s: NOW_S,
    };
    store.db.write_blocking(|c| conversations::append_link(c, &append)).expect("appended");
    assert_eq!(store.commit(&[before]), [SendOutcome::Mismatch]);
    talk.m = 2;
    assert!(matches!(store.commit(&[talk.send(&[&a])])[0], SendOutcome::Committed { .. }));
}

#[test]
fn a_repeat_gets_the_first_answer() {
    let store = Store::new();
    let mut a = store.register(2);
    let talk = store.converse(&[&a]);
    let (first, send) = (talk.send(&[&a]), talk.send(&[&a]));
    store.commit(&[first, send.clone()]);
    let same = SendOutcome::Repeat { answer: answer(1, &[], &[]), same_request: true };
    assert_eq!(store.commit(std::slice::from_ref(&send)), std::slice::from_ref(&same));
    let mut other = send.clone();
    other.request_mac = bytes(fresh());
    assert_eq!(store.commit(&[other]), [SendOutcome::Repeat { answer: answer(1, &[], &[]), same_request: false }]);
    // Also when it would be refused by now.
    store.link(&mut a);
    assert_eq!(store.commit(&[send]), [same]);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 4);
}

#[test]
fn two_of_one_id_in_a_batch_are_one_send() {
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let send = talk.send(&[&a]);
    let mut other = talk.send(&[&a]);
    other.request_key = send.request_key;
    let outcomes = store.commit(&[send.clone(), send, other, talk.send(&[&a])]);
    assert_eq!(seqs(&outcomes[0]), [1]);
    assert_eq!(outcomes[1], SendOutcome::Repeat { answer: answer(0, &[], &[]), same_request: true });
    assert_eq!(outcomes[2], SendOutcome::Repeat { answer: answer(0, &[], &[]), same_request: false });
    assert_eq!(seqs(&outcomes[3]), [2]);
}

#[test]
fn a_batch_that_is_rolled_back_leaves_nothing() {
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let send = talk.send(&[&a]);
    let failed: Result<(), StorageError> = store.db.write_blocking(|c| {
        sends::commit_sends(c, std::slice::from_ref(&send), &ROOMY, NOW_MS, &answer)?;
        Err(StorageError::Busy)
    });
    assert!(failed.is_err());
    assert!(store.read(a.devices[0], 0).is_empty());
    assert_eq!(seqs(&store.commit(&[send])[0]), [1], "retried whole");
}

/// What tells the sender must not be the order of the rows: neither the order of entries in a send nor of sends in a batch.
#[test]
fn rows_rest_in_the_order_of_device_and_seq() {
    let store = Store::new();
    let (a, b, c) = (store.register(3), store.register(2), store.register(4));
    let talk = store.converse(&[&a, &b, &c]);
    let mut batch: Vec<_> = (0..20).map(|_| talk.send(&[&a, &b, &c])).collect();
    for (turn, send) in batch.iter_mut().enumerate() {
        // Each sender would name its own device first.
        send.entries.rotate_left(turn % 9);
        send.request_key = bytes(fresh().wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    let outcomes = store.commit(&batch);
    assert!(outcomes.iter().enumerate().all(|(turn, outcome)| seqs(outcome) == [turn as u64 + 1; 9]));
    // Where a row lies, as far as a copy of the store shows it.
    let place = match crate::BACKEND {
        Backend::Sqlite => "entry_key, 0",
        Backend::Postgres => "tableoid, ctid",
    };
    let misplaced = |table: &str, place: &str, key: &str| {
        let rows = format!("SELECT {key} AS k, row_number() OVER (ORDER BY {place}) AS at FROM {table}");
        let part = if crate::BACKEND == Backend::Postgres { ", tableoid AS part" } else { ", 0 AS part" };
        let rows = rows.replace(" FROM", &format!("{part} FROM"));
        store.number(&format!(
            "SELECT count(*) FROM ({rows}) AS a JOIN ({rows}) AS b ON a.part = b.part AND a.at < b.at AND a.k > b.k"
        ))
    };
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 180);
    assert_eq!(misplaced("mailbox_entries", place, "device_key * 1000 + seq"), 0, "entries rest by device and seq");
    assert_eq!(misplaced("send_answers", "answer_key", "request_key"), 0, "answers rest by their random key");
}

/// The case that PostgreSQL's row locks would miss, and that a check before the commit would too.
#[expect(clippy::disallowed_methods, reason = "the thread that holds the lock sleeps on it")]
#[test]
fn a_device_linked_while_a_send_waits_is_not_missed() {
    let store = Store::new();
    let a = store.register(2);
    let talk = store.converse(&[&a]);
    let send = talk.send(&[&a]);
    let linking = store.second();
    let (locked, is_locked) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        let a = &a;
        scope.spawn(move || {
            linking.write_blocking(|c| {
                append(c, a, &[new_device()], &[])?;
                locked.send(()).expect("the test waits");
                thread::sleep(Duration::from_millis(200));
                Ok::<_, AppendListError>(())
            })
        });
        is_locked.recv().expect("the lock is held");
        assert_eq!(store.commit(&[send]), [SendOutcome::Mismatch]);
    });
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 0);
}

#[test]
fn a_large_batch_commits_in_order() {
    let store = Store::new();
    let (a, b) = (store.register(3), store.register(3));
    let talk = store.converse(&[&a, &b]);
    let batch: Vec<_> = (0..1234).map(|_| talk.send(&[&a, &b])).collect();
    let outcomes = store.commit(&batch);
    assert!(outcomes.iter().zip(1..).all(|(outcome, seq)| seqs(outcome) == [seq; 6]));
    let items = store.read(b.devices[1], 0);
    assert_eq!(short(&items), (1..=1234).map(|seq| format!("e{seq}")).collect::<Vec<_>>());
}
