//! Logs of large conversations on the socket: whoever follows one gets every entry once and in order, wherever it begins, however slow it
//! is, and only as long as it is a member.

use std::time::Duration;

use martlet::config::Config;
use martlet_protocol::{
    chain::members::{MembershipChain, MembershipChange},
    id::{Blob, ConversationId},
    problem::Code,
    rest::{self, ChangeMembership, Role},
    wire::{self, client_frame, log_item, node_frame::Frame, subscribed_log::Outcome},
};

use crate::{
    client::{Client, JSON, PROTO},
    harness::{TestDevice, TestNode, eventually},
    world::World,
};

/// Alice owns a large conversation that Bob reads.
struct Group {
    world: World,
    chain: MembershipChain,
}

impl Group {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let world = World::with(|config| {
            config.limits.sends_per_device_per_second = 0;
            change(config);
        })
        .await;
        let create = world.alice.large_with(&world.node, &[world.bob.member(Role::Member)]);
        world.alice.create(&world.node, &create).await;
        let chain = MembershipChain::create(&create.creation, |signer| world.alice.chain.signer_key(signer));
        Self { world, chain: chain.expect("a sound link") }
    }

    fn id(&self) -> ConversationId {
        self.chain.conversation_id
    }

    fn node(&self) -> &TestNode {
        &self.world.node
    }

    /// Commits messages with their number as the first bytes of their content.
    async fn send(&self, by: &mut Client, numbers: std::ops::RangeInclusive<u64>, content_bytes: usize) {
        const AT_ONCE: usize = 50;
        let numbers: Vec<u64> = numbers.collect();
        for batch in numbers.chunks(AT_ONCE) {
            let mut expected = Vec::new();
            for number in batch {
                let mut content = vec![0; content_bytes.max(8)];
                content[..8].copy_from_slice(&number.to_be_bytes());
                let message = TestDevice::log_message(&content).into_wire(self.id());
                expected.push(by.send(client_frame::Frame::Send(message)).await);
            }
            while !expected.is_empty() {
                match by.next().await {
                    (reference, Frame::Accepted(accepted)) if accepted.log_seq > 0 => {
                        expected.retain(|waiting| *waiting != reference);
                    }
                    (_, Frame::LogItems(_)) => {}
                    other => panic!("an acceptance was expected, not {other:?}"),
                }
            }
        }
    }

    async fn change(&mut self, change: MembershipChange) {
        let alice = &self.world.alice;
        let link = self.chain.change(alice.signer(), vec![change], self.node().now_ms()).sign(&alice.signing);
        let path = format!("/v1/conversations/{}/membership", self.id().to_text());
        self.node().post(&path, &alice.token, &ChangeMembership { link: link.clone() }).await.done();
        self.chain = self.chain.extend(&link, |signer| alice.chain.signer_key(signer)).expect("a sound link");
    }

    /// An entry that nobody is told of, as if it had been lost on its way.
    fn commit_unpublished(&self) {
        let store = self.node().store();
        let id = store.literal(self.id().as_bytes());
        let key = format!("(SELECT conversation_key FROM conversations WHERE conversation_id = {id})");
        let (message_id, content) = (store.literal(&[9; 16]), store.literal(&[0; 8]));
        store.execute(&format!(
            "BEGIN;
             UPDATE log_heads SET head_seq = head_seq + 1 WHERE conversation_key = {key};
             INSERT INTO log_entries
                 (conversation_key, seq, message_id, accepted_at_ms, group_epoch, suite, expires_at_s, content)
                 SELECT conversation_key, head_seq, {message_id}, 1, 0, 200, 99999999999, {content}
                 FROM log_heads WHERE conversation_key = {key};
             COMMIT"
        ));
    }
}

async fn connect(group: &Group, device: &TestDevice, subprotocol: &'static str) -> Client {
    Client::connect(group.node(), device, subprotocol).await.0
}

/// What each of the logs answered.
async fn ask(client: &mut Client, logs: Vec<wire::LogCursor>) -> Vec<Outcome> {
    let reference = client.send(client_frame::Frame::Subscribe(wire::Subscribe { logs })).await;
    loop {
        match client.next().await {
            (answered, Frame::Subscribed(subscribed)) if answered == reference => {
                return subscribed.logs.into_iter().map(|log| log.outcome.expect("an outcome")).collect();
            }
            (_, Frame::LogItems(_)) => {}
            other => panic!("an answer was expected, not {other:?}"),
        }
    }
}

fn named(id: &ConversationId, cursor: Option<(u64, u64)>) -> wire::LogCursor {
    let cursor = cursor.map(|(epoch, seq)| wire::Cursor { epoch, seq });
    wire::LogCursor { conversation_id: id.to_wire(), cursor }
}

async fn subscribe(client: &mut Client, id: &ConversationId, after: Option<u64>) -> wire::LogState {
    let cursor = after.map(|seq| (1, seq));
    match ask(client, vec![named(id, cursor)]).await.remove(0) {
        Outcome::State(state) => state,
        Outcome::Problem(problem) => panic!("{problem:?}"),
    }
}

async fn refusal(client: &mut Client, log: wire::LogCursor) -> Option<Code> {
    match ask(client, vec![log]).await.remove(0) {
        Outcome::State(_) => None,
        Outcome::Problem(problem) => Some(Code::parse(&problem.code).expect("a stable code")),
    }
}

/// The next items' `seq`, each of which must be what it says.
async fn read(client: &mut Client, id: &ConversationId, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        match client.frame().await {
            Frame::LogItems(items) => {
                assert_eq!(items.conversation_id, id.to_wire());
                for item in items.items {
                    let Some(log_item::Item::Entry(entry)) = item.item else { panic!("an entry") };
                    seqs.push(entry.seq);
                }
            }
            other => panic!("items were expected, not {other:?}"),
        }
    }
    seqs
}

fn all(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn whoever_subscribes_gets_what_comes_in_both_subprotocols() {
    let group = Group::new().await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, JSON).await;
    group.send(&mut alice, 1..=2, 8).await;
    let state = subscribe(&mut bob, &group.id(), None).await;
    assert_eq!((state.epoch, state.head_seq), (1, 2));
    subscribe(&mut alice, &group.id(), Some(1)).await;
    assert_eq!(read(&mut alice, &group.id(), 1).await, [2], "the sender reads like anybody");
    group.send(&mut alice, 3..=3, 100).await;
    let Frame::LogItems(items) = bob.frame().await else { panic!("items") };
    let Some(log_item::Item::Entry(entry)) = &items.items[0].item else { panic!("an entry") };
    assert_eq!((entry.seq, entry.suite, entry.content.len()), (3, 200, 100));
    assert_eq!(entry.content[..8], 3_u64.to_be_bytes());

    let ids = vec![group.id().to_wire()];
    bob.send(client_frame::Frame::Unsubscribe(wire::Unsubscribe { conversation_ids: ids })).await;
    assert!(matches!(bob.frame().await, Frame::Unsubscribed(_)));
    group.send(&mut alice, 4..=4, 8).await;
    assert!(bob.is_silent_for(Duration::from_millis(200)).await);
    subscribe(&mut bob, &group.id(), Some(3)).await;
    assert_eq!(read(&mut bob, &group.id(), 1).await, [4], "it goes on where it wants");
    group.world.node.stop().await;
}

#[tokio::test]
async fn a_cursor_from_long_ago_is_read_from_the_store_and_joins_what_comes() {
    let group = Group::with(|config| config.logs.tail_bytes = 64 << 10).await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    group.send(&mut alice, 1..=400, 2000).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    assert_eq!(subscribe(&mut bob, &group.id(), Some(0)).await.head_seq, 400);
    group.send(&mut alice, 401..=450, 2000).await;
    assert_eq!(read(&mut bob, &group.id(), 450).await, all(1..=450));
    subscribe(&mut bob, &group.id(), Some(440)).await;
    assert_eq!(read(&mut bob, &group.id(), 10).await, all(441..=450), "again and again, from anywhere");
    group.send(&mut alice, 451..=451, 8).await;
    assert_eq!(read(&mut bob, &group.id(), 1).await, [451]);
    group.world.node.stop().await;
}

#[tokio::test]
async fn what_can_not_be_read_is_told_one_by_one() {
    let group = Group::with(|config| config.logs.max_per_socket = 1).await;
    let other = group.world.alice.large_with(group.node(), &[]);
    let other = group.world.alice.create(group.node(), &other).await.conversation_id;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    assert_eq!(refusal(&mut bob, named(&other, None)).await, Some(Code::NotFound), "somebody else's");
    assert_eq!(refusal(&mut bob, named(&ConversationId::new([5; 32]), None)).await, Some(Code::NotFound));
    assert_eq!(refusal(&mut bob, named(&group.world.conversation, None)).await, Some(Code::NotFound), "it has no log");
    assert_eq!(refusal(&mut bob, named(&group.id(), Some((1, 1)))).await, Some(Code::CursorAhead));
    assert_eq!(refusal(&mut bob, named(&group.id(), Some((7, 0)))).await, Some(Code::CursorEpoch));
    let subscribers = group.node().running().services().streams.subscribers().clone();
    assert_eq!(subscribers.logs().count(), 0, "nothing is followed for nobody");
    assert_eq!(refusal(&mut alice, named(&group.id(), None)).await, None);
    assert_eq!(refusal(&mut alice, named(&other, None)).await, Some(Code::TooManyLogs));
    assert_eq!(subscribers.logs().count(), 1);
    assert_eq!(refusal(&mut alice, named(&group.id(), None)).await, None, "the same once more is one");
    for (id, cursors) in [(vec![1; 31], 1), (group.id().as_bytes().to_vec(), 2)] {
        let cursor = wire::LogCursor { conversation_id: id.into(), cursor: None };
        let logs = vec![cursor; cursors];
        let reference = bob.send(client_frame::Frame::Subscribe(wire::Subscribe { logs })).await;
        let (answered, Frame::Problem(problem)) = bob.next().await else { panic!("a problem") };
        let expected = if cursors == 1 { Code::Malformed } else { Code::TooManyLogs };
        assert_eq!((answered, problem.code.as_str()), (reference, expected.as_str()));
    }
    drop((alice, bob));
    eventually("nobody follows", || async { subscribers.logs().count() == 0 }).await;
    assert_eq!(subscribers.logs().kept_bytes(), 0);
    group.world.node.stop().await;
}

#[tokio::test]
async fn a_member_that_is_removed_gets_nothing_more() {
    let mut group = Group::new().await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    subscribe(&mut bob, &group.id(), None).await;
    group.send(&mut alice, 1..=1, 8).await;
    assert_eq!(read(&mut bob, &group.id(), 1).await, [1]);
    let removal = MembershipChange::Remove {
        account_id: group.world.bob.account_id,
        fingerprint: group.world.bob.member(Role::Member).fingerprint,
    };
    group.change(removal).await;
    let Frame::LogEnded(ended) = bob.frame().await else { panic!("an end") };
    assert_eq!((ended.conversation_id.clone(), ended.reason()), (group.id().to_wire(), wire::LogEndReason::Removed));
    group.send(&mut alice, 2..=3, 8).await;
    assert!(bob.is_silent_for(Duration::from_millis(200)).await);
    assert_eq!(refusal(&mut bob, named(&group.id(), Some((1, 1)))).await, Some(Code::NotFound));
    group.change(MembershipChange::Add(group.world.bob.member(Role::Member))).await;
    assert_eq!(subscribe(&mut bob, &group.id(), Some(1)).await.head_seq, 3);
    let Frame::LogItems(items) = bob.frame().await else { panic!("items") };
    let Some(log_item::Item::Gap(gap)) = items.items[0].item else { panic!("a gap") };
    assert_eq!((gap.from_seq, gap.to_seq, gap.count, gap.reason()), (2, 3, 2, wire::GapReason::NotAMember));
    group.send(&mut alice, 4..=4, 8).await;
    assert_eq!(read(&mut bob, &group.id(), 1).await, [4]);
    group.world.node.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_gets_everything_afterwards_and_holds_nobody_up() {
    const COUNT: u64 = 3000;
    let group = Group::with(|config| {
        config.logs.tail_bytes = 64 << 10;
        config.socket.outbound_budget_bytes = 64 << 10;
    })
    .await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    subscribe(&mut bob, &group.id(), None).await;
    // Twelve megabytes: far more than sockets hold. Nobody reads Bob's.
    group.send(&mut alice, 1..=COUNT, 4000).await;
    subscribe(&mut alice, &group.id(), Some(COUNT)).await;
    group.send(&mut alice, COUNT + 1..=COUNT + 1, 8).await;
    assert_eq!(read(&mut bob, &group.id(), COUNT as usize + 1).await, all(1..=COUNT + 1));
    group.send(&mut alice, COUNT + 2..=COUNT + 2, 8).await;
    assert_eq!(read(&mut bob, &group.id(), 1).await, [COUNT + 2], "it follows again");
    group.world.node.stop().await;
}

#[tokio::test]
async fn what_nobody_was_told_of_is_found() {
    let group = Group::with(|config| config.socket.head_check_interval = Duration::from_millis(300)).await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    subscribe(&mut bob, &group.id(), None).await;
    group.commit_unpublished();
    assert_eq!(read(&mut bob, &group.id(), 1).await, [1], "by comparing heads");
    group.commit_unpublished();
    group.send(&mut alice, 3..=3, 8).await;
    assert_eq!(read(&mut bob, &group.id(), 2).await, [2, 3], "by the hole before the next");
    group.commit_unpublished();
    assert_eq!(refusal(&mut alice, named(&group.id(), Some((1, 4)))).await, None, "the client knew of it");
    group.world.node.stop().await;
}

#[tokio::test]
async fn whoever_comes_and_goes_misses_nothing() {
    const ROUNDS: usize = 12;
    let group = Group::with(|config| config.logs.tail_bytes = 64 << 10).await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let last = 100 * ROUNDS as u64;
    let reader = async {
        let mut cursor = 0;
        let mut read_so_far = Vec::new();
        while cursor < last {
            let mut bob = connect(&group, &group.world.bob, PROTO).await;
            subscribe(&mut bob, &group.id(), Some(cursor)).await;
            let wanted = (last - cursor).min(70 + cursor % 90);
            let seqs = read(&mut bob, &group.id(), wanted as usize).await;
            cursor = *seqs.last().expect("some");
            read_so_far.extend(seqs);
        }
        read_so_far
    };
    let writer = async {
        for round in 0..ROUNDS as u64 {
            group.send(&mut alice, 100 * round + 1..=100 * round + 100, 900).await;
        }
    };
    let (read_so_far, ()) = tokio::join!(reader, writer);
    assert_eq!(read_so_far, all(1..=last));
    group.world.node.stop().await;
}

/// Each time the log begins to be read here, and ceases: what is committed while it is opened for its first reader is for that one.
#[tokio::test]
async fn whoever_is_the_first_reader_again_and_again_misses_nothing() {
    const LAST: u64 = 1000;
    let group = Group::new().await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let mut bob = connect(&group, &group.world.bob, PROTO).await;
    let id = group.id();
    let reader = async {
        let mut cursor = 0;
        while cursor < LAST {
            subscribe(&mut bob, &id, Some(cursor)).await;
            let wanted = (LAST - cursor).min(2 + cursor % 5);
            let seqs = read(&mut bob, &id, wanted as usize).await;
            assert_eq!(seqs, all(cursor + 1..=cursor + wanted));
            cursor += wanted;
            let ids = vec![id.to_wire()];
            bob.send(client_frame::Frame::Unsubscribe(wire::Unsubscribe { conversation_ids: ids })).await;
            while !matches!(bob.frame().await, Frame::Unsubscribed(_)) {}
        }
    };
    let writer = async {
        for number in 1..=LAST {
            group.send(&mut alice, number..=number, 8).await;
        }
    };
    tokio::join!(reader, writer);
    group.world.node.stop().await;
}

#[tokio::test]
async fn an_entry_of_a_log_can_be_as_large_as_a_message() {
    let group = Group::new().await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    let (mut bob, hello) = Client::connect(group.node(), &group.world.bob, PROTO).await;
    subscribe(&mut bob, &group.id(), None).await;
    let bytes = hello.limits.expect("limits").max_content_bytes as usize;
    let mut message = TestDevice::log_message(b"");
    message.content = Blob::from(vec![5; bytes]);
    alice.send(client_frame::Frame::Send(message.into_wire(group.id()))).await;
    let Frame::LogItems(items) = bob.frame().await else { panic!("items") };
    let Some(log_item::Item::Entry(entry)) = &items.items[0].item else { panic!("an entry") };
    assert_eq!(entry.content.len(), bytes);
    group.world.node.stop().await;
}

/// What Bob sees of the log: the newest, what follows a place, and what is before one.
async fn pages(group: &Group) -> Vec<rest::LogPage> {
    let path = format!("/v1/conversations/{}/log", group.id().to_text());
    let page = async |query| group.node().get(&format!("{path}{query}"), &group.world.bob.token).await.ok(200);
    vec![page("").await, page("?after=3").await, page("?before=3&limit=1").await]
}

#[tokio::test]
async fn a_log_that_is_followed_is_opened_from_memory() {
    let group = Group::new().await;
    let mut alice = connect(&group, &group.world.alice, PROTO).await;
    group.send(&mut alice, 1..=5, 8).await;
    let stored = pages(&group).await;
    subscribe(&mut alice, &group.id(), None).await;
    // With the rows gone, only memory can answer.
    group.node().store().execute("DELETE FROM log_entries");
    assert_eq!(pages(&group).await, stored);
    let ids = vec![group.id().to_wire()];
    alice.send(client_frame::Frame::Unsubscribe(wire::Unsubscribe { conversation_ids: ids })).await;
    assert!(matches!(alice.frame().await, Frame::Unsubscribed(_)));
    let items = &pages(&group).await[0].items;
    assert!(matches!(items[..], [rest::LogItem::Gap(gap)] if (gap.from_seq, gap.to_seq) == (1, 5)), "{items:?}");
    group.world.node.stop().await;
}
