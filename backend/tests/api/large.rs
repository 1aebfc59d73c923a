//! Large conversations: `POST …/messages` appends to one log, `GET …/log` and `GET …/members` read it and its readers.

use std::time::Duration;

use martlet_protocol::{
    chain::members::{MembershipChain, MembershipChange},
    id::{Blob, ConversationId},
    problem::Code,
    rest::{
        Accepted, ChangeMembership, Conversation, ConversationKind, ConversationMember, GroupEpoch, LogGapReason,
        LogItem, LogPage, Page, Role, SendRequest,
    },
};

use crate::harness::{TestDevice, TestNode};

/// Ada owns it, Bob and Carol read it; Eve does not.
struct Large {
    node: TestNode,
    ada: TestDevice,
    bob: TestDevice,
    carol: TestDevice,
    eve: TestDevice,
    chain: MembershipChain,
}

impl Large {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut martlet::config::Config)) -> Self {
        let node = TestNode::start_with(change).await;
        let ada = TestDevice::register(&node, "ada").await;
        let bob = TestDevice::register(&node, "bob").await;
        let carol = TestDevice::register(&node, "carol").await;
        let eve = TestDevice::register(&node, "eve").await;
        let create = ada.large_with(&node, &[bob.member(Role::Admin), carol.member(Role::Member)]);
        ada.create(&node, &create).await;
        let chain = MembershipChain::create(&create.creation, |signer| ada.chain.signer_key(signer));
        Self { node, ada, bob, carol, eve, chain: chain.expect("a sound link") }
    }

    fn id(&self) -> ConversationId {
        self.chain.conversation_id
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/conversations/{}{rest}", self.id().to_text())
    }

    async fn send(&self, by: &TestDevice, message: &SendRequest) -> Accepted {
        self.node.post(&self.path("/messages"), &by.token, message).await.ok(200)
    }

    async fn refuses(&self, by: &TestDevice, message: &SendRequest, code: Code) -> martlet_protocol::rest::Problem {
        self.node.refuses_post(&self.path("/messages"), &by.token, message, code).await
    }

    async fn read(&self, by: &TestDevice, query: &str) -> LogPage {
        self.node.get(&self.path(&format!("/log{query}")), &by.token).await.ok(200)
    }

    async fn apply(&mut self, by: usize, change: MembershipChange) {
        let by = [&self.ada, &self.bob][by];
        let link = self.chain.change(by.signer(), vec![change], self.node.now_ms()).sign(&by.signing);
        let body = ChangeMembership { link: link.clone() };
        self.node.post(&self.path("/membership"), &by.token, &body).await.done();
        self.chain = self.chain.extend(&link, |signer| by.chain.signer_key(signer)).expect("a sound link");
    }
}

fn message(content: &[u8]) -> SendRequest {
    TestDevice::log_message(content)
}

fn in_epoch(current: u64, advance: bool) -> SendRequest {
    SendRequest { group_epoch: Some(GroupEpoch { current, advance }), ..message(b"in an epoch") }
}

/// In short: `1` is entry 1, `2-3` a gap of what has expired, `4-5 before` one of what was there before the reader.
fn short(page: &LogPage) -> Vec<String> {
    let item = |item: &LogItem| match item {
        LogItem::Entry(entry) => entry.seq.to_string(),
        LogItem::Gap(gap) => {
            let before = match gap.reason {
                LogGapReason::Expired => "",
                LogGapReason::NotAMember => " before",
                LogGapReason::Unexplained => panic!("nothing explains {}", gap.from_seq),
            };
            format!("{}-{}{before}", gap.from_seq, gap.to_seq)
        }
    };
    page.items.iter().map(item).collect()
}

#[tokio::test]
async fn a_message_is_stored_once_and_every_member_reads_it() {
    let large = Large::start().await;
    let sent = message(b"for all of you");
    let accepted = large.send(&large.ada, &sent).await;
    assert_eq!(accepted.log_seq, Some(1));
    assert_eq!(large.send(&large.ada, &sent).await, accepted, "a retry gets the first answer");
    assert_eq!(large.send(&large.bob, &message(b"and from me")).await.log_seq, Some(2));
    let other = SendRequest { content: Blob::from(b"other".to_vec()), ..sent };
    large.refuses(&large.ada, &other, Code::MessageIdReused).await;
    assert_eq!(large.node.count("log_entries", "1 = 1"), 2);
    assert_eq!(large.node.count("mailbox_entries", "1 = 1"), 0);
    let page = large.read(&large.carol, "").await;
    assert_eq!((page.head_seq, page.group_epoch), (2, 0));
    let LogItem::Entry(first) = &page.items[0] else { panic!("an entry") };
    assert_eq!((first.seq, first.suite, first.message_id), (1, 200, accepted.message_id));
    assert_eq!((first.accepted_at_ms, first.content.0.as_ref()), (accepted.accepted_at_ms, &b"for all of you"[..]));
    large.node.stop().await;
}

#[tokio::test]
async fn strangers_neither_read_nor_write_nor_learn_that_it_exists() {
    let mut large = Large::start().await;
    large.send(&large.ada, &message(b"1")).await;
    large.refuses(&large.eve, &message(b"2"), Code::NotFound).await;
    for path in ["/log", "/members", ""] {
        let path = large.path(path);
        large.node.get(&path, &large.eve.token).await.refused(Code::NotFound);
        large.node.get(&path, "").await.refused(Code::Unauthenticated);
    }
    // Who was removed writes no more, at once, and reads what there was until then. Who was added reads what comes from then on.
    let removal = large.chain.removal(&large.carol.account_id).expect("a member");
    large.apply(1, removal).await;
    let refused = message(b"3");
    let problem = large.node.post(&large.path("/messages"), &large.carol.token, &refused).await;
    problem.refused(Code::NotFound);
    large.apply(0, MembershipChange::Add(large.eve.member(Role::Member))).await;
    assert_eq!(large.send(&large.eve, &message(b"2")).await.log_seq, Some(2));
    assert_eq!(short(&large.read(&large.eve, "?after=0").await), ["1-1 before", "2"]);
    assert_eq!(short(&large.read(&large.eve, "").await), ["1-1 before", "2"]);
    large.send(&large.bob, &in_epoch(0, true)).await;
    let page = large.read(&large.carol, "?after=0").await;
    assert_eq!((short(&page), page.head_seq, page.group_epoch), (vec!["1".to_owned()], 1, 0));
    assert!(large.read(&large.carol, "?after=1").await.items.is_empty());
    for path in ["/members", ""] {
        large.node.get(&large.path(path), &large.carol.token).await.refused(Code::NotFound);
    }
    large.node.stop().await;
}

#[tokio::test]
async fn a_named_membership_is_compared_and_an_unnamed_one_is_not() {
    let mut large = Large::start().await;
    let named = |m| SendRequest { membership_m: m, ..message(b"x") };
    large.send(&large.ada, &named(1)).await;
    large.apply(0, MembershipChange::Add(large.eve.member(Role::Member))).await;
    let problem = large.refuses(&large.ada, &named(1), Code::Mismatch).await;
    let mismatch = problem.mismatch.expect("a mismatch");
    assert_eq!(mismatch.membership.len(), 1, "the link after the one named");
    assert!(mismatch.missing.is_empty() && mismatch.stale.is_empty() && mismatch.extra.is_empty());
    large.send(&large.ada, &named(2)).await;
    large.send(&large.ada, &named(0)).await;
    large.node.stop().await;
}

#[tokio::test]
async fn of_two_changes_of_an_epoch_one_wins_and_the_other_hears_the_current_one() {
    let large = Large::start().await;
    let (first, second) = (in_epoch(0, true), in_epoch(0, true));
    large.send(&large.ada, &first).await;
    let problem = large.refuses(&large.bob, &second, Code::EpochConflict).await;
    assert_eq!((problem.group_epoch, problem.status), (Some(1), 409));
    large.refuses(&large.bob, &in_epoch(2, false), Code::EpochConflict).await;
    large.send(&large.bob, &in_epoch(1, false)).await;
    large.send(&large.ada, &first).await;
    let page = large.read(&large.carol, "").await;
    assert_eq!((page.head_seq, page.group_epoch), (2, 1), "a retry changes nothing");
    large.node.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_the_kind_is_refused() {
    let large = Large::start().await;
    let forked = SendRequest { forks: large.ada.message(1, &[&large.bob]).forks, ..message(b"x") };
    large.refuses(&large.ada, &forked, Code::Malformed).await;
    let listed = SendRequest { lists: large.ada.message(1, &[&large.bob]).lists, ..message(b"x") };
    large.refuses(&large.ada, &listed, Code::Malformed).await;
    large.refuses(&large.ada, &message(b""), Code::Malformed).await;
    large.refuses(&large.ada, &message(&[7; 64 * 1024 + 1]), Code::TooLarge).await;
    let eternal = SendRequest { lifetime_seconds: 31 * 86_400, ..message(b"x") };
    large.refuses(&large.ada, &eternal, Code::LifetimeInvalid).await;
    // A group has mailboxes: no epoch there, and no log to read.
    let group =
        large.ada.create(&large.node, &large.ada.group_with(&large.node, &[large.bob.member(Role::Member)])).await;
    assert_eq!((group.kind, group.member_count), (ConversationKind::Group, 2));
    let messages = TestDevice::messages_path(&group.conversation_id);
    let mut epoch = large.ada.message(1, &[&large.bob]);
    epoch.group_epoch = Some(GroupEpoch { current: 0, advance: false });
    large.node.refuses_post(&messages, &large.ada.token, &epoch, Code::Malformed).await;
    let log = format!("/v1/conversations/{}/log", group.conversation_id.to_text());
    large.node.get(&log, &large.ada.token).await.refused(Code::NotFound);
    large.node.get(&large.path("/log?after=1&before=5"), &large.ada.token).await.refused(Code::Malformed);
    large.node.get(&large.path("/log?after=x"), &large.ada.token).await.refused(Code::Malformed);
    large.node.stop().await;
}

#[tokio::test]
async fn history_is_read_both_ways_and_what_has_expired_is_told() {
    let large = Large::start().await;
    for number in 1..=5_u64 {
        let lifetime_seconds = if number == 2 { 1 } else { 0 };
        large.send(&large.ada, &SendRequest { lifetime_seconds, ..message(&number.to_be_bytes()) }).await;
    }
    assert_eq!(short(&large.read(&large.bob, "?limit=2").await), ["4", "5"]);
    assert_eq!(short(&large.read(&large.bob, "?before=4&limit=1").await), ["3"]);
    assert_eq!(short(&large.read(&large.bob, "?after=3").await), ["4", "5"]);
    assert!(large.read(&large.bob, "?after=5").await.items.is_empty());
    assert!(large.read(&large.bob, "?after=99").await.items.is_empty());
    large.node.clock.advance(Duration::from_secs(1));
    assert_eq!(short(&large.read(&large.bob, "?after=0").await), ["1", "2-2", "3", "4", "5"]);
    large.node.stop().await;
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let large = Large::start_with(|config| config.logs.max_page_bytes = 64 * 1024).await;
    for _ in 0..3 {
        large.send(&large.ada, &message(&[7; 40 * 1024])).await;
    }
    assert_eq!(short(&large.read(&large.bob, "?after=0").await), ["1", "2"], "the one that fills it is its last");
    assert_eq!(short(&large.read(&large.bob, "").await), ["2", "3"]);
    large.node.stop().await;
}

#[tokio::test]
async fn members_are_read_page_by_page_and_bounded() {
    let mut large = Large::start_with(|config| config.conversations.max_members_large = 3).await;
    let shown: Conversation = large.node.get(&large.path(""), &large.bob.token).await.ok(200);
    assert_eq!((shown.kind, shown.member_count, shown.role), (ConversationKind::Large, 3, Role::Admin));
    assert!(shown.members.is_empty(), "a page of conversations must not hold thousands of members each");
    let first: Page<ConversationMember> =
        large.node.get(&large.path("/members?limit=2"), &large.bob.token).await.ok(200);
    assert_eq!(first.items.iter().map(|m| m.role).collect::<Vec<_>>(), [Role::Owner, Role::Admin]);
    let cursor = first.next_cursor.expect("more");
    let path = large.path(&format!("/members?limit=2&cursor={cursor}"));
    let second: Page<ConversationMember> = large.node.get(&path, &large.bob.token).await.ok(200);
    assert_eq!(second.items.iter().map(|m| m.account_id).collect::<Vec<_>>(), [large.carol.account_id]);
    assert!(second.next_cursor.is_none());
    large.node.get(&large.path("/members?cursor=x"), &large.bob.token).await.refused(Code::Malformed);
    let add = vec![MembershipChange::Add(large.eve.member(Role::Member))];
    let link = large.chain.change(large.ada.signer(), add, large.node.now_ms()).sign(&large.ada.signing);
    let body = ChangeMembership { link };
    large.node.refuses_post(&large.path("/membership"), &large.ada.token, &body, Code::TooManyMembers).await;
    let removal = large.chain.removal(&large.carol.account_id).expect("a member");
    large.apply(0, removal).await;
    large.apply(0, MembershipChange::Add(large.eve.member(Role::Member))).await;
    large.node.stop().await;
}
