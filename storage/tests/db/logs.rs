//! Conversation logs: one row for all members, numbers without holes, epochs that one of two wins, history both ways, expiry from the front.

use martlet_protocol::{
    id::{ConversationId, MessageId},
    wire::{ConversationKind, GapReason, Role},
};
use martlet_storage::{
    ConversationKey,
    conversations::{self, MemberChange, NewConversation},
    logs::{self, Access, LogBounds, LogCursor, LogItem, LogQuery, LogRange, LogState},
    sends::{GroupEpoch, PreparedLog, PreparedSend, SendOutcome},
};

use crate::common::{Account, Conversation, NOW_MS, NOW_S, RETENTION_S, Store, bytes, fresh, link, member, seqs};

fn large(store: &Store, members: &[&Account]) -> Conversation {
    let id = ConversationId::new(bytes(fresh()));
    let members: Vec<_> = members.iter().map(|account| member(account.key, Role::Member)).collect();
    let new = NewConversation {
        conversation_id: id,
        kind: ConversationKind::Large,
        link: &link(),
        title: None,
        members: &members,
    };
    let key = store.db.write_blocking(|conn| conversations::create(conn, &new)).expect("a conversation is created");
    Conversation { id, key, m: 1 }
}

fn append(talk: &Conversation, content: &[u8]) -> PreparedSend {
    let log =
        PreparedLog { message_id: MessageId::new(bytes(fresh())), accepted_at_ms: NOW_MS, suite: 7, group_epoch: None };
    let content = Some(bytes::Bytes::copy_from_slice(content));
    PreparedSend { content, log: Some(log), ..talk.send(&[]) }
}

fn in_epoch(mut send: PreparedSend, current: u64, advances: bool) -> PreparedSend {
    if let Some(log) = &mut send.log {
        log.group_epoch = Some(GroupEpoch { current, advances });
    }
    send
}

fn living(mut send: PreparedSend, seconds: u64) -> PreparedSend {
    send.expires_at_s = NOW_S + seconds;
    send
}

fn query(log: ConversationKey, cursor: LogCursor) -> LogQuery {
    LogQuery { conversation: log, cursor, max_items: 100, max_bytes: 1 << 20, now_s: NOW_S, bounds: LogBounds::NONE }
}

fn read(store: &Store, query: LogQuery) -> LogRange {
    store.run(|conn| logs::range(conn, &query)).expect("a log")
}

/// In short: `e3` is entry 3, `4-6 expired` a gap.
fn short(range: &LogRange) -> Vec<String> {
    let item = |item: &LogItem| match item {
        LogItem::Entry(entry) => format!("e{}", entry.seq),
        LogItem::Gap(gap) => {
            assert_eq!(gap.count, gap.to_seq - gap.from_seq + 1);
            let reason = match gap.reason() {
                GapReason::Expired => "expired",
                GapReason::NotAMember => "not a member",
                _ => "unexplained",
            };
            format!("{}-{} {reason}", gap.from_seq, gap.to_seq)
        }
    };
    range.items.iter().map(item).collect()
}

fn forwards(store: &Store, talk: &Conversation, after: u64, now_s: u64) -> Vec<String> {
    short(&read(store, LogQuery { now_s, ..query(talk.key, LogCursor::After(after)) }))
}

#[test]
fn a_message_rests_once_whatever_the_number_of_members() {
    let store = Store::new();
    let (a, b, c) = (store.register(2), store.register(1), store.register(1));
    let talk = large(&store, &[&a, &b, &c]);
    let send = append(&talk, b"for all");
    assert_eq!(seqs(&store.commit(std::slice::from_ref(&send))[0]), [1]);
    assert_eq!(store.number("SELECT count(*) FROM log_entries"), 1);
    assert_eq!(store.number("SELECT count(*) FROM mailbox_entries"), 0);
    assert_eq!(store.number("SELECT count(*) FROM contents"), 0);
    let range = read(&store, query(talk.key, LogCursor::After(0)));
    let LogItem::Entry(entry) = &range.items[0] else { panic!("an entry") };
    let log = send.log.as_ref().expect("to a log");
    assert_eq!((entry.message_id, entry.accepted_at_ms, entry.suite), (log.message_id, NOW_MS, 7));
    assert_eq!(entry.content.as_ref(), b"for all");
    assert_eq!(range.state, store.run(|conn| logs::state(conn, talk.key)).expect("a log"));
    // A group has no log, and nothing is appended to one that is not there.
    let group = store.converse(&[&a, &b]);
    assert_eq!(store.run(|conn| logs::state(conn, group.key)), None);
    assert!(store.run(|conn| logs::range(conn, &query(group.key, LogCursor::After(0)))).is_none());
    assert_eq!(store.commit(&[append(&group, b"x")]), [SendOutcome::Mismatch]);
}

#[test]
fn logs_and_mailboxes_share_a_batch_and_a_repeat_gets_the_first_answer() {
    let store = Store::new();
    let (a, b) = (store.register(1), store.register(1));
    let (one, other) = (large(&store, &[&a, &b]), large(&store, &[&a, &b]));
    let group = store.converse(&[&a, &b]);
    let first = append(&one, b"1");
    let batch = [
        first.clone(),
        append(&other, b"1"),
        group.send(&[&a, &b]),
        append(&one, b"2"),
        first.clone(),
        append(&other, b"2"),
    ];
    let outcomes = store.commit(&batch);
    assert_eq!(seqs(&outcomes[0]), [1]);
    assert_eq!(seqs(&outcomes[1]), [1]);
    assert_eq!(seqs(&outcomes[2]), [1, 1]);
    assert_eq!(seqs(&outcomes[3]), [2]);
    assert!(matches!(outcomes[4], SendOutcome::Repeat { same_request: true, .. }));
    assert_eq!(seqs(&outcomes[5]), [2]);
    assert!(matches!(store.commit(&[first])[0], SendOutcome::Repeat { same_request: true, .. }));
    let heads = store.run(|conn| logs::heads(conn, &[other.key, one.key, group.key]));
    assert_eq!(heads, [(one.key, 2), (other.key, 2)]);
    let mut stale = append(&one, b"3");
    stale.membership_m += 1;
    assert_eq!(store.commit(&[stale]), [SendOutcome::Mismatch]);
    assert_eq!(forwards(&store, &one, 0, NOW_S), ["e1", "e2"]);
}

#[test]
fn of_two_changes_in_one_epoch_the_first_wins() {
    let store = Store::new();
    let a = store.register(1);
    let talk = large(&store, &[&a]);
    let batch = [
        in_epoch(append(&talk, b"said in 0"), 0, false),
        in_epoch(append(&talk, b"change"), 0, true),
        in_epoch(append(&talk, b"the other change"), 0, true),
        in_epoch(append(&talk, b"too late"), 0, false),
        in_epoch(append(&talk, b"said in 1"), 1, false),
        append(&talk, b"who does not care"),
    ];
    let outcomes = store.commit(&batch);
    assert_eq!(seqs(&outcomes[1]), [2]);
    assert_eq!(outcomes[2], SendOutcome::EpochConflict { current: 1 });
    assert_eq!(outcomes[3], SendOutcome::EpochConflict { current: 1 });
    assert_eq!(seqs(&outcomes[5]), [4]);
    // In the next transaction as in the same one, and a refused one may come again under its id.
    assert_eq!(store.commit(&[batch[2].clone()]), [SendOutcome::EpochConflict { current: 1 }]);
    assert_eq!(seqs(&store.commit(&[in_epoch(append(&talk, b"next"), 1, true)])[0]), [5]);
    let range = read(&store, query(talk.key, LogCursor::After(0)));
    assert_eq!((range.state.head_seq, range.state.group_epoch), (5, 2));
    let epochs: Vec<u64> = range
        .items
        .iter()
        .map(|item| if let LogItem::Entry(entry) = item { entry.group_epoch } else { u64::MAX })
        .collect();
    assert_eq!(epochs, [0, 0, 1, 1, 1]);
}

#[test]
fn history_is_read_both_ways_in_pages_that_stay() {
    let store = Store::new();
    let a = store.register(1);
    let talk = large(&store, &[&a]);
    let more = |count: usize| store.commit(&(0..count).map(|_| append(&talk, &[1; 100])).collect::<Vec<_>>());
    more(10);
    let page = |cursor, max_items, max_bytes| {
        short(&read(&store, LogQuery { max_items, max_bytes, ..query(talk.key, cursor) }))
    };
    assert_eq!(page(LogCursor::After(0), 3, 1 << 20), ["e1", "e2", "e3"]);
    assert_eq!(page(LogCursor::After(8), 3, 1 << 20), ["e9", "e10"]);
    assert!(page(LogCursor::After(10), 3, 1 << 20).is_empty());
    assert!(page(LogCursor::After(u64::MAX), 3, 1 << 20).is_empty());
    assert_eq!(page(LogCursor::Before(u64::MAX), 3, 1 << 20), ["e8", "e9", "e10"]);
    let before = page(LogCursor::Before(8), 3, 1 << 20);
    assert_eq!(before, ["e5", "e6", "e7"]);
    assert_eq!(page(LogCursor::Before(2), 3, 1 << 20), ["e1"]);
    assert!(page(LogCursor::Before(1), 3, 1 << 20).is_empty() && page(LogCursor::Before(0), 3, 1 << 20).is_empty());
    // 100 bytes each: a page ends with the one that fills it, and has at least one.
    assert_eq!(page(LogCursor::After(2), 100, 250), ["e3", "e4", "e5"]);
    assert_eq!(page(LogCursor::Before(11), 100, 101), ["e9", "e10"]);
    assert_eq!(page(LogCursor::After(2), 100, 0), ["e3"]);
    more(5);
    assert_eq!(page(LogCursor::Before(8), 3, 1 << 20), before, "what comes later changes no page");
}

#[test]
fn what_has_had_its_time_leaves_the_front_and_a_gap() {
    let store = Store::new();
    let a = store.register(1);
    let (talk, quiet) = (large(&store, &[&a]), large(&store, &[&a]));
    let day = 86_400;
    store.commit(&[
        append(&talk, b"1"),
        living(append(&talk, b"2"), 60),
        living(append(&talk, b"3"), 60),
        append(&talk, b"4"),
        living(append(&talk, b"5"), RETENTION_S + day),
        append(&quiet, b"1"),
    ]);
    let expire = |now_s| while store.run(|conn| logs::expire(conn, now_s, 2)) == 2 {};
    assert_eq!(forwards(&store, &talk, 0, NOW_S + 60), ["e1", "2-3 expired", "e4", "e5"], "at once, before any sweep");
    expire(NOW_S + 60);
    assert_eq!(forwards(&store, &talk, 0, NOW_S), ["e1", "2-3 expired", "e4", "e5"]);
    assert_eq!(store.number("SELECT count(*) FROM log_entries WHERE content IS NULL"), 2);
    assert_eq!(store.run(|conn| logs::expire(conn, NOW_S + 60, 2)), 0, "they are not found again");
    expire(NOW_S + RETENTION_S);
    assert_eq!(forwards(&store, &talk, 0, NOW_S), ["1-4 expired", "e5"]);
    assert_eq!(forwards(&store, &talk, 2, NOW_S), ["3-4 expired", "e5"]);
    assert_eq!(store.numbers("SELECT seq AS n FROM log_entries"), [5]);
    let backwards = LogQuery { max_items: 1, ..query(talk.key, LogCursor::Before(u64::MAX)) };
    assert_eq!(short(&read(&store, backwards)), ["e5"]);
    assert_eq!(short(&read(&store, query(talk.key, LogCursor::Before(5)))), ["1-4 expired"]);
    expire(NOW_S + RETENTION_S + day);
    assert_eq!(forwards(&store, &talk, 0, NOW_S), ["1-5 expired"]);
    // The numbering goes on.
    assert_eq!(seqs(&store.commit(&[append(&talk, b"6")])[0]), [6]);
    assert_eq!(forwards(&store, &talk, 0, NOW_S), ["1-5 expired", "e6"]);
    assert_eq!(forwards(&store, &quiet, 0, NOW_S), ["1-1 expired"]);
}

#[test]
fn a_hole_that_nothing_explains_is_told() {
    let store = Store::new();
    let a = store.register(1);
    let talk = large(&store, &[&a]);
    store.commit(&[append(&talk, b"1"), append(&talk, b"2"), append(&talk, b"3")]);
    store.execute("DELETE FROM log_entries WHERE seq >= 2");
    assert_eq!(forwards(&store, &talk, 0, NOW_S), ["e1", "2-3 unexplained"]);
    let state = LogState { epoch: 1, head_seq: 3, group_epoch: 0 };
    assert_eq!(read(&store, query(talk.key, LogCursor::After(3))).state, state);
}

#[test]
fn members_are_counted_and_read_in_pages() {
    let store = Store::new();
    let accounts: Vec<Account> = (0..5).map(|_| store.register(1)).collect();
    let talk = large(&store, &accounts.iter().collect::<Vec<_>>());
    assert_eq!(store.run(|conn| conversations::member_count(conn, talk.key)), 5);
    let ids = |after, limit| -> Vec<_> {
        let rows = store.run(|conn| conversations::members_after(conn, talk.key, after, limit));
        rows.into_iter().map(|row| row.account_id).collect()
    };
    let all: Vec<_> = accounts.iter().map(|account| account.id).collect();
    assert_eq!(ids(None, 10), all);
    assert_eq!(ids(Some(accounts[1].key), 2), all[2..4]);
    assert!(ids(Some(accounts[4].key), 2).is_empty());
}

fn access(store: &Store, talk: &Conversation, account: &Account) -> Option<Access> {
    store.run(|conn| logs::access(conn, &talk.id, account.key)).map(|access| access.expect("it has a log"))
}

fn page(store: &Store, talk: &Conversation, account: &Account, cursor: LogCursor, max_items: u32) -> Vec<String> {
    let bounds = access(store, talk, account).expect("it may read").bounds;
    short(&read(store, LogQuery { bounds, max_items, ..query(talk.key, cursor) }))
}

/// Changes the membership, whose number then counts for sends.
fn change(store: &Store, talk: &mut Conversation, change: MemberChange) {
    store.change(talk, &[change]).expect("it extends the head");
    talk.m += 1;
}

#[test]
fn an_account_reads_from_when_it_joined_up_to_when_it_left() {
    let store = Store::new();
    let (a, b, c) = (store.register(1), store.register(1), store.register(1));
    let mut talk = large(&store, &[&a]);
    let write = |talk: &Conversation, count: usize| {
        (0..count)
            .for_each(|_| assert!(matches!(store.commit(&[append(talk, b"x")])[0], SendOutcome::Appended { .. })));
    };
    write(&talk, 2);
    assert_eq!(access(&store, &talk, &b), None, "nobody's log but its members'");
    change(&store, &mut talk, MemberChange::Add(member(b.key, Role::Member)));
    write(&talk, 2);
    change(&store, &mut talk, MemberChange::Remove(b.key));
    store.commit(&[in_epoch(append(&talk, b"x"), 0, true)]);
    write(&talk, 1);

    let all = LogCursor::Before(u64::MAX);
    assert_eq!(page(&store, &talk, &a, all, 100), ["e1", "e2", "e3", "e4", "e5", "e6"]);
    let access_of_a = access(&store, &talk, &a).expect("a member");
    assert_eq!((access_of_a.has_left(), access_of_a.head_seq, access_of_a.group_epoch), (false, 6, 1));
    let access_of_b = access(&store, &talk, &b).expect("it may fetch the rest");
    assert_eq!((access_of_b.has_left(), access_of_b.head_seq, access_of_b.group_epoch), (true, 4, 0));
    for (cursor, expected) in [
        (all, &["1-2 not a member", "e3", "e4"][..]),
        (LogCursor::After(0), &["1-2 not a member", "e3", "e4"]),
        (LogCursor::After(1), &["2-2 not a member", "e3", "e4"]),
        (LogCursor::After(3), &["e4"]),
        (LogCursor::After(4), &[]),
        (LogCursor::Before(3), &["1-2 not a member"]),
        (LogCursor::Before(2), &["1-1 not a member"]),
    ] {
        assert_eq!(page(&store, &talk, &b, cursor, 100), expected, "{cursor:?}");
    }
    assert_eq!(page(&store, &talk, &b, all, 1), ["e4"], "a page that is full says nothing of what is before");
    assert_eq!(access(&store, &talk, &c), None, "who never was a member has no way in");

    // Who comes back begins anew.
    change(&store, &mut talk, MemberChange::Add(member(b.key, Role::Member)));
    write(&talk, 1);
    assert_eq!(page(&store, &talk, &b, all, 100), ["1-6 not a member", "e7"]);
    assert_eq!(store.number("SELECT count(*) FROM former_members"), 0);
    // A node of the previous release, during an upgrade, let it in again and left the row of its first time.
    store.execute(
        "INSERT INTO former_members SELECT conversation_key, account_key, 2, 4, 0 FROM members WHERE joined_seq = 6",
    );
    change(&store, &mut talk, MemberChange::Remove(b.key));
    assert_eq!(access(&store, &talk, &b).expect("it has left").bounds, LogBounds { after_seq: 6, upto_seq: 7 });
    // Who saw nothing need not be remembered.
    change(&store, &mut talk, MemberChange::Add(member(c.key, Role::Member)));
    change(&store, &mut talk, MemberChange::Remove(c.key));
    assert_eq!(access(&store, &talk, &c), None);
}

#[test]
fn who_left_is_forgotten_with_the_last_entry_of_its_time() {
    let store = Store::new();
    let (a, b) = (store.register(1), store.register(1));
    let mut talk = large(&store, &[&a, &b]);
    store.commit(&[living(append(&talk, b"1"), 10), living(append(&talk, b"2"), 20)]);
    change(&store, &mut talk, MemberChange::Remove(b.key));
    store.commit(&[append(&talk, b"3")]);
    store.run(|conn| logs::expire(conn, NOW_S + 10, 100));
    assert_eq!(page(&store, &talk, &b, LogCursor::After(0), 100), ["1-1 expired", "e2"]);
    store.run(|conn| logs::expire(conn, NOW_S + 20, 100));
    assert_eq!(access(&store, &talk, &b), None);
    assert!(access(&store, &talk, &a).is_some());
    // A group has no log to leave.
    let group = store.converse(&[&a, &b]);
    assert_eq!(store.run(|conn| logs::access(conn, &group.id, a.key)), Some(None));
    store.change(&group, &[MemberChange::Remove(b.key)]).expect("it extends the head");
    assert_eq!(store.number("SELECT count(*) FROM former_members"), 0);
}
