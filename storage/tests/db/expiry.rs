//! Entries past their time.

use martlet_storage::{mailbox, sends::PreparedSend};

use crate::common::{Account, Conversation, NOW_S, RETENTION_S, Store, short};

fn short_lived(talk: &Conversation, account: &Account, seconds: u64) -> PreparedSend {
    let mut send = talk.send(&[account]);
    send.own_lifetime = true;
    send.expires_at_s = NOW_S + seconds;
    send
}

#[test]
fn expired_rows_read_as_gaps_before_they_are_swept() {
    let store = Store::new();
    let account = store.register(1);
    let device = account.devices[0];
    let talk = store.converse(&[&account]);
    store.commit(&[
        talk.send(&[&account]),
        short_lived(&talk, &account, 10),
        short_lived(&talk, &account, 20),
        talk.send(&[&account]),
    ]);
    assert_eq!(short(&store.read_at(device, 0, NOW_S + 9)), ["e1", "e2", "e3", "e4"]);
    assert_eq!(short(&store.read_at(device, 0, NOW_S + 10)), ["e1", "gap 2-2 expired", "e3", "e4"]);
    assert_eq!(short(&store.read_at(device, 0, NOW_S + 20)), ["e1", "gap 2-3 expired", "e4"]);
    let end = NOW_S + RETENTION_S;
    assert_eq!(short(&store.read_at(device, 0, end)), ["gap 1-4 expired"]);

    // One part is swept, the other not yet: the reader sees one gap all the same.
    assert_eq!(store.run(|c| mailbox::expire(c, NOW_S + 10, 100)), 1);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 3);
    assert_eq!(short(&store.read_at(device, 0, NOW_S + 20)), ["e1", "gap 2-3 expired", "e4"]);
    assert_eq!(store.run(|c| mailbox::expire(c, NOW_S + 20, 100)), 1);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_gaps"), 1, "neighbours are merged");
    assert_eq!(store.run(|c| mailbox::expire(c, end, 100)), 2);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_gaps"), 1, "on both sides");
    assert_eq!(short(&store.read_at(device, 0, end)), ["gap 1-4 expired"]);
    assert_eq!(store.number("SELECT removed_entries FROM mailbox_acks"), 4, "the quota is free again");
    assert_eq!(store.number("SELECT a.removed_bytes - h.added_bytes FROM mailbox_acks a, mailbox_heads h"), 0);
}

#[test]
fn the_sweeper_takes_no_more_than_its_limit() {
    let store = Store::new();
    let account = store.register(2);
    let talk = store.converse(&[&account]);
    let batch: Vec<_> = (0..10)
        .map(|_| {
            let mut send = talk.send(&[&account]);
            send.content = Some(vec![1; 100].into());
            send
        })
        .collect();
    store.commit(&batch);
    let end = NOW_S + RETENTION_S;
    assert_eq!(store.run(|c| mailbox::expire(c, end - 1, 100)), 0);
    let mut taken = Vec::new();
    loop {
        let count = store.run(|c| mailbox::expire(c, end, 8));
        taken.push(count);
        if count < 8 {
            break;
        }
    }
    assert_eq!(taken, [8, 8, 4]);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_gaps"), 2);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 0);
    for device in account.devices {
        assert_eq!(short(&store.read(device, 0)), ["gap 1-10 expired"]);
    }
}

#[test]
fn many_alternating_markers_never_read_as_holes() {
    let store = Store::new();
    let account = store.register(1);
    let device = account.devices[0];
    let talk = store.converse(&[&account]);
    // Every other entry expires early, and only those are swept; then all have expired.
    let batch: Vec<_> = (0..40)
        .map(|number| if number % 2 == 0 { short_lived(&talk, &account, 10) } else { short_lived(&talk, &account, 20) })
        .collect();
    store.commit(&batch);
    store.run(|c| mailbox::expire(c, NOW_S + 10, 100));
    for max_items in 1..8 {
        let mut after_seq = 0;
        while after_seq < 40 {
            let query = mailbox::RangeQuery { max_items, ..crate::common::query(device, after_seq, NOW_S + 20) };
            let items = store.run(|c| mailbox::range(c, &query)).items;
            let [mailbox::Item::Gap(gap)] = &items[..] else { panic!("one gap: {items:?}") };
            assert_eq!((gap.from_seq, gap.reason()), (after_seq + 1, martlet_protocol::wire::GapReason::Expired));
            after_seq = gap.to_seq;
        }
    }
}

/// Others kept what large messages point at for a shorter time than the messages.
#[test]
fn a_content_is_there_until_the_last_second_of_its_entry() {
    let store = Store::new();
    let account = store.register(2);
    let talk = store.converse(&[&account]);
    let (content, end) = (bytes::Bytes::from(vec![7; 10_000]), NOW_S + RETENTION_S);
    store.run(|c| mailbox::keep_parts(c, NOW_S, RETENTION_S));
    let mut send = talk.send(&[&account]);
    send.content = Some(content.clone());
    store.commit(&[send]);
    for now_s in (NOW_S..end).step_by(43_200).chain([end - 1]) {
        store.run(|c| mailbox::keep_parts(c, now_s, RETENTION_S));
        store.run(|c| mailbox::expire(c, now_s, 100));
        for device in &account.devices {
            let items = store.read_at(*device, 0, now_s);
            let whole = matches!(&items[..], [mailbox::Item::Entry { content: Some(read), .. }] if *read == content);
            assert!(whole, "{} s before its end: {}", end - now_s, short(&items).join(", "));
        }
    }
}
