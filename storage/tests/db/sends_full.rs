//! Full and dormant mailboxes: nothing is lost without a marker, and nobody else is held up.

use std::time::Duration;

use martlet_storage::sends::{EntryBody, MailboxLimits, PreparedSend, SendOutcome};

use crate::common::{Store, answer, seqs, short};

fn entries(max_entries: u64) -> MailboxLimits {
    MailboxLimits { max_bytes: 1 << 30, max_entries, answer_retention: Duration::from_secs(60) }
}

fn dormant(mut send: PreparedSend, position: usize) -> PreparedSend {
    send.entries[position].body = EntryBody::Dormant;
    send
}

#[test]
fn a_full_mailbox_gets_a_gap_and_the_answer_names_it() {
    let store = Store::new();
    let (a, b) = (store.register(1), store.register(1));
    let talk = store.converse(&[&a, &b]);
    let [reader, absent] = [a.devices[0], b.devices[0]];
    let limits = entries(2);
    store.commit_within(&[talk.send(&[&a, &b]), talk.send(&[&a, &b])], &limits);
    store.ack(reader, 2);
    let send = talk.send(&[&a, &b]);
    let outcomes = store.commit_within(&[send.clone(), talk.send(&[&a, &b])], &limits);
    let partial = SendOutcome::Committed { seqs: vec![3, 3], partial: vec![1] };
    assert_eq!(outcomes[0], partial);
    assert_eq!(short(&store.read(reader, 2)), ["e3", "e4"]);
    assert_eq!(short(&store.read(absent, 0)), ["e1", "e2", "gap 3-4 quota"]);
    // A later batch lengthens the same marker.
    store.commit_within(&[talk.send(&[&b])], &limits);
    assert_eq!(short(&store.read(absent, 2)), ["gap 3-5 quota"]);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_gaps"), 1);
    // The retry is told the same.
    let repeat = SendOutcome::Repeat { answer: answer(0, &[], &[1]), same_request: true };
    assert_eq!(store.commit_within(&[send], &limits), [repeat]);
    // Once it has read on, there is room again.
    store.ack(absent, 1);
    assert_eq!(
        store.commit_within(&[talk.send(&[&b])], &limits),
        [SendOutcome::Committed { seqs: vec![6], partial: vec![] }]
    );
    assert_eq!(short(&store.read(absent, 1)), ["e2", "gap 3-5 quota", "e6"]);
}

#[test]
fn bytes_count_with_the_shared_content() {
    let store = Store::new();
    let a = store.register(2);
    let talk = store.converse(&[&a]);
    let limits = MailboxLimits { max_bytes: 64 + 1064, ..entries(100) };
    let mut with_content = talk.send(&[&a]);
    with_content.content = Some(vec![1; 1000].into());
    let mut too_much = with_content.clone();
    too_much.request_key = [9; 32];
    let small = talk.send(&[&a]);
    let outcomes = store.commit_within(&[with_content, too_much, small], &limits);
    assert_eq!(outcomes[1], SendOutcome::Committed { seqs: vec![2, 2], partial: vec![0, 1] });
    assert_eq!(outcomes[2], SendOutcome::Committed { seqs: vec![3, 3], partial: vec![] });
    assert_eq!(store.number("SELECT count(*) FROM contents"), 1, "no content that no entry needs");
    assert_eq!(short(&store.read(a.devices[0], 0)), ["e1", "gap 2-2 quota", "e3"]);
}

#[test]
fn a_dormant_device_gets_a_marker_and_no_row() {
    let store = Store::new();
    let a = store.register(2);
    let talk = store.converse(&[&a]);
    let sleeper = a.devices[1];
    let outcomes = store.commit(&[
        talk.send(&[&a]),
        dormant(talk.send(&[&a]), 1),
        dormant(talk.send(&[&a]), 1),
        talk.send(&[&a]),
        dormant(talk.send(&[&a]), 1),
    ]);
    assert!(outcomes.iter().zip(1..).all(|(outcome, seq)| seqs(outcome) == [seq, seq]));
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, SendOutcome::Committed { partial, .. } if partial.is_empty()))
    );
    assert_eq!(short(&store.read(sleeper, 0)), ["e1", "gap 2-3 dormant", "e4", "gap 5-5 dormant"]);
    assert_eq!(short(&store.read(a.devices[0], 3)), ["e4", "e5"]);
}

#[test]
fn markers_of_two_reasons_stay_apart() {
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let limits = entries(1);
    store.commit_within(
        &[talk.send(&[&a]), talk.send(&[&a]), dormant(talk.send(&[&a]), 0), talk.send(&[&a]), talk.send(&[&a])],
        &limits,
    );
    let all = ["e1", "gap 2-2 quota", "gap 3-3 dormant", "gap 4-5 quota"];
    assert_eq!(short(&store.read(a.devices[0], 0)), all);
}
