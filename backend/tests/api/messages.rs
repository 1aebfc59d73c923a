//! `POST /v1/conversations/{conversation_id}/messages`.

use martlet_protocol::{
    chain::{devices::DeviceChain, members::MembershipChange},
    id::{Blob, ConversationId},
    problem::Code,
    rest::{Accepted, ChangeMembership, ListHead, MailboxItem, MailboxPage, Role, SendRequest},
};

use crate::harness::{TestDevice, TestNode, bundle_of};

/// Ada with two devices and Bob with one, in a direct conversation.
struct Direct {
    node: TestNode,
    ada: TestDevice,
    phone: TestDevice,
    bob: TestDevice,
    id: ConversationId,
}

impl Direct {
    async fn start() -> Self {
        let node = TestNode::start().await;
        let mut ada = TestDevice::register(&node, "ada").await;
        let phone = ada.link(&node).await;
        let bob = TestDevice::register(&node, "bob").await;
        let id = ada.create(&node, &ada.direct_with(&node, &bob)).await.conversation_id;
        Self { node, ada, phone, bob, id }
    }

    fn path(&self) -> String {
        TestDevice::messages_path(&self.id)
    }

    fn message(&self) -> SendRequest {
        self.ada.message(1, &[&self.phone, &self.bob])
    }

    async fn refuses(&self, message: &SendRequest, code: Code) -> martlet_protocol::rest::Problem {
        self.node.refuses_post(&self.path(), &self.ada.token, message, code).await
    }

    fn entries(&self) -> i64 {
        self.node.count("mailbox_entries", "1 = 1")
    }
}

#[tokio::test]
async fn a_message_is_stored_for_every_device_and_its_retry_is_not() {
    let direct = Direct::start().await;
    let message = direct.message();
    let accepted: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &message).await.ok(200);
    assert!(accepted.partial_device_ids.is_empty());
    assert_eq!(direct.entries(), 3, "two forks and the echo");
    assert_eq!(direct.node.count("contents", "1 = 1"), 0, "small content lies inside the seal");
    let again: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &message).await.ok(200);
    assert_eq!(again, accepted, "a retry gets the first answer");
    assert_eq!(direct.entries(), 3);

    let mut other = message.clone();
    other.content = Blob::from(vec![8; 300]);
    direct.refuses(&other, Code::MessageIdReused).await;
    let large = SendRequest { content: Blob::from(vec![7; 9000]), ..direct.message() };
    let _: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &large).await.ok(200);
    assert_eq!(direct.node.count("contents", "refs = 3"), 1, "large content is stored once");
    direct.node.stop().await;
}

#[tokio::test]
async fn a_mailbox_is_read_by_cursor_and_keeps_what_it_has() {
    let direct = Direct::start().await;
    for content_bytes in [100, 9000, 100] {
        let message = SendRequest { content: Blob::from(vec![7; content_bytes]), ..direct.message() };
        let _: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &message).await.ok(200);
    }
    let read = async |token: &str, query: &str| -> MailboxPage {
        direct.node.get(&format!("/v1/mailbox{query}"), token).await.ok(200)
    };
    let seqs = |page: &MailboxPage| -> Vec<u64> {
        let seq = |item: &MailboxItem| if let MailboxItem::Entry(entry) = item { entry.seq } else { 0 };
        page.items.iter().map(seq).collect()
    };
    let page = read(&direct.bob.token, "").await;
    assert_eq!((seqs(&page), page.head_seq), (vec![1, 2, 3], 3));
    let MailboxItem::Entry(second) = &page.items[1] else { panic!("an entry") };
    assert_eq!(
        second.content.as_ref().map(|content| content.0.len()),
        Some(9000),
        "what lies beside the seal comes along"
    );
    assert_eq!(seqs(&read(&direct.bob.token, "?before=3&limit=1").await), [2]);
    assert_eq!(seqs(&read(&direct.bob.token, "?after=1&limit=1").await), [2]);
    assert!(read(&direct.bob.token, "?after=3").await.items.is_empty());
    assert_eq!(seqs(&read(&direct.phone.token, "?after=0").await), [1, 2, 3], "each device has its own");
    assert_eq!(read(&direct.bob.token, "").await, page, "reading acknowledges nothing");
    direct.node.get("/v1/mailbox?after=1&before=2", &direct.bob.token).await.refused(Code::Malformed);
    direct.node.get("/v1/mailbox?limit=x", &direct.bob.token).await.refused(Code::Malformed);
    direct.node.get("/v1/mailbox", "").await.refused(Code::Unauthenticated);
    direct.node.stop().await;
}

#[tokio::test]
async fn bad_messages_are_refused() {
    let direct = Direct::start().await;
    let good = direct.message();
    let empty = SendRequest { content: Blob::default(), ..good.clone() };
    direct.refuses(&empty, Code::Malformed).await;
    let oversize = SendRequest { content: Blob::from(vec![7; 64 * 1024 + 1]), ..good.clone() };
    direct.refuses(&oversize, Code::TooLarge).await;
    let unknown_suite = SendRequest { suite: 99, ..good.clone() };
    direct.refuses(&unknown_suite, Code::SuiteUnknown).await;
    let too_long = SendRequest { lifetime_seconds: 31 * 24 * 60 * 60, ..good.clone() };
    direct.refuses(&too_long, Code::LifetimeInvalid).await;
    let mut twice = good.clone();
    twice.forks.push(twice.forks[0].clone());
    direct.refuses(&twice, Code::Malformed).await;
    let mut long_header = good.clone();
    long_header.forks[0].header = Blob::from(vec![1; 1025]);
    direct.refuses(&long_header, Code::TooLarge).await;
    let mut echo = good.clone();
    echo.forks[0].header = Blob::from(vec![0; 85]);
    direct.refuses(&echo, Code::Malformed).await;
    direct.node.refuses_post(&direct.path(), "", &good, Code::Unauthenticated).await;
    direct.node.stop().await;
}

#[tokio::test]
async fn a_fork_for_another_accounts_device_is_refused() {
    let direct = Direct::start().await;
    let eve = TestDevice::register(&direct.node, "eve").await;
    let mut forged = direct.message();
    forged.forks.push(direct.ada.message(1, &[&eve]).forks[0].clone());
    let problem = direct.refuses(&forged, Code::Mismatch).await;
    let mismatch = problem.mismatch.expect("a mismatch");
    assert_eq!(mismatch.extra, [eve.device_id]);
    assert!(mismatch.missing.is_empty() && mismatch.stale.is_empty());
    direct.node.stop().await;
}

#[tokio::test]
async fn a_missing_device_comes_with_what_it_takes_to_fork_to_it() {
    let mut direct = Direct::start().await;
    let early = direct.bob.chain.clone();
    let message = direct.message();
    let tablet = direct.bob.link(&direct.node).await;
    let problem = direct.node.post(&direct.path(), &direct.ada.token, &message).await.refused(Code::Mismatch);
    let mismatch = problem.mismatch.expect("a mismatch");
    let head = tablet.chain.head();
    assert_eq!(mismatch.stale, [ListHead { account_id: head.account_id, n: head.n, hash: head.hash }]);
    let caught_up: DeviceChain = early.extend_all(&mismatch.lists[0].lists).expect("the links missed");
    assert_eq!(caught_up.hash(), tablet.chain.hash());
    let bundle = bundle_of(&mismatch.missing, &tablet).expect("the new device's bundle");
    assert!(bundle.one_time_prekey.is_some());
    caught_up.check_prekey(&bundle.signed_prekey, &tablet.device_id, direct.node.now_ms()).expect("a sound prekey");
    assert_eq!((direct.entries(), direct.node.count("send_answers", "1 = 1")), (0, 0), "nothing was stored");

    let retried = SendRequest {
        client_message_id: message.client_message_id,
        ..direct.ada.message(1, &[&direct.phone, &direct.bob, &tablet])
    };
    let _: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &retried).await.ok(200);
    assert_eq!(direct.entries(), 4);
    direct.node.stop().await;
}

#[tokio::test]
async fn a_stale_membership_gets_the_links_after_it() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let create = ada.group_with(&node, &[bob.member(Role::Member)]);
    let id = ada.create(&node, &create).await.conversation_id;
    let key = |signer: &_| ada.chain.signer_key(signer);
    let chain = martlet_protocol::chain::members::MembershipChain::create(&create.creation, key).expect("a sound link");
    let eve = TestDevice::register(&node, "eve").await;
    let add = vec![MembershipChange::Add(eve.member(Role::Member))];
    let link = chain.change(ada.signer(), add, node.now_ms()).sign(&ada.signing);
    let membership = format!("/v1/conversations/{}/membership", id.to_text());
    node.post(&membership, &ada.token, &ChangeMembership { link: link.clone() }).await.done();
    let stale = bob.message(1, &[&ada]);
    let path = TestDevice::messages_path(&id);
    let problem = node.post(&path, &bob.token, &stale).await.refused(Code::Mismatch);
    let mismatch = problem.mismatch.expect("a mismatch");
    assert_eq!(mismatch.membership, [link]);
    assert!(bundle_of(&mismatch.missing, &eve).is_some());
    assert_eq!(node.count("mailbox_entries", "1 = 1"), 0);
    let _: Accepted = node.post(&path, &bob.token, &bob.message(2, &[&ada, &eve])).await.ok(200);
    node.stop().await;
}

#[tokio::test]
async fn sends_per_device_are_limited() {
    let node = TestNode::start_with(|config| {
        config.limits.sends_per_device_per_second = 1;
        config.limits.sends_burst = 1;
    })
    .await;
    let ada = TestDevice::register(&node, "ada").await;
    let id = ada.create(&node, &ada.group_with(&node, &[])).await.conversation_id;
    let path = TestDevice::messages_path(&id);
    let _: Accepted = node.post(&path, &ada.token, &ada.message(1, &[])).await.ok(200);
    let problem = node.refuses_post(&path, &ada.token, &ada.message(1, &[]), Code::RateLimited).await;
    assert!(problem.retry_after_ms.is_some_and(|ms| ms <= 1_001));
    node.stop().await;
}

/// The answer was lost, and in the meantime the send would be refused: a refusal would make the sender write it a second time.
#[tokio::test]
async fn a_retry_gets_its_first_answer_though_the_devices_have_changed() {
    let mut direct = Direct::start().await;
    let message = direct.message();
    let first: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &message).await.ok(200);
    direct.bob.link(&direct.node).await;
    // The mismatch comes with one-time prekeys, so it changes their table.
    direct.node.post(&direct.path(), &direct.ada.token, &direct.message()).await.refused(Code::Mismatch);
    let again: Accepted = direct.node.post(&direct.path(), &direct.ada.token, &message).await.ok(200);
    assert_eq!((again, direct.entries()), (first, 3));
    direct.node.stop().await;
}
