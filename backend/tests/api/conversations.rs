//! `POST` and `GET /v1/conversations`, one conversation, its membership and its title.

use std::collections::HashSet;

use martlet_protocol::{
    chain::members::{Member, MembershipChain, MembershipChange},
    id::{Blob, ConversationId, Hash, Signature},
    problem::Code,
    rest::{
        ChangeMembership, Conversation, ConversationKind, CreateConversation, MembershipLinks, Page, Role, SetTitle,
    },
};
use reqwest::Method;

use crate::harness::{TestDevice, TestNode};

const CONVERSATIONS: &str = "/v1/conversations";

fn path(conversation_id: ConversationId, rest: &str) -> String {
    format!("{CONVERSATIONS}/{}{rest}", conversation_id.to_text())
}

/// A group as one of its members follows it.
struct Group {
    chain: MembershipChain,
}

impl Group {
    async fn create(node: &TestNode, owner: &TestDevice, others: &[Member]) -> Self {
        let create = owner.group_with(node, others);
        owner.create(node, &create).await;
        let chain = MembershipChain::create(&create.creation, |signer| owner.chain.signer_key(signer));
        Self { chain: chain.expect("a sound link") }
    }

    fn id(&self) -> ConversationId {
        self.chain.conversation_id
    }

    fn change(&self, node: &TestNode, by: &TestDevice, change: MembershipChange) -> ChangeMembership {
        let link = self.chain.change(by.signer(), vec![change], node.now_ms());
        ChangeMembership { link: link.sign(&by.signing) }
    }

    async fn apply(&mut self, node: &TestNode, by: &TestDevice, change: MembershipChange) {
        let change = self.change(node, by, change);
        node.post(&path(self.id(), "/membership"), &by.token, &change).await.done();
        self.chain = self.chain.extend(&change.link, |signer| by.chain.signer_key(signer)).expect("a sound link");
    }

    async fn refuses(&self, node: &TestNode, by: &TestDevice, change: MembershipChange, code: Code) {
        let change = self.change(node, by, change);
        node.refuses_post(&path(self.id(), "/membership"), &by.token, &change, code).await;
    }

    fn remove(&self, device: &TestDevice) -> MembershipChange {
        self.chain.removal(&device.account_id).expect("a member")
    }
}

#[tokio::test]
async fn two_accounts_have_one_direct_conversation() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let create = CreateConversation { title: Some(vec![5; 40].into()), ..ada.direct_with(&node, &bob) };
    let made = ada.create(&node, &create).await;
    assert_eq!((made.kind, made.membership_m, made.role), (ConversationKind::Direct, 1, Role::Member));
    assert_eq!(made.conversation_id.as_bytes(), Hash::of(&create.creation.link.0).as_bytes());
    assert_eq!(made.members.len(), 2);
    assert_eq!(made, ada.create(&node, &create).await, "the same link gives the same conversation");
    let seen: Conversation = node.get(&path(made.conversation_id, ""), &bob.token).await.ok(200);
    assert_eq!(seen.title, create.title);

    for (by, with) in [(&ada, &bob), (&bob, &ada)] {
        let second = by.direct_with(&node, with);
        let problem = node.refuses_post(CONVERSATIONS, &by.token, &second, Code::ConversationExists).await;
        assert_eq!(problem.conversation_id, Some(made.conversation_id));
    }
    let chain = MembershipChain::create(&create.creation, |signer| ada.chain.signer_key(signer)).expect("a sound link");
    let group = Group { chain };
    let eve = TestDevice::register(&node, "eve").await;
    group.refuses(&node, &ada, MembershipChange::Add(eve.member(Role::Member)), Code::MembershipInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn only_members_see_that_a_conversation_exists() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    let join = group.chain.change(eve.signer(), vec![MembershipChange::Add(eve.member(Role::Member))], node.now_ms());
    let join = ChangeMembership { link: join.sign(&eve.signing) };
    let title = SetTitle { title: vec![1; 2000].into() };
    let mut answers = Vec::new();
    for id in [group.id(), ConversationId::new([9; 32])] {
        let asked = [
            node.request(Method::GET, &path(id, ""), &eve.token),
            node.request(Method::GET, &path(id, "/membership"), &eve.token),
            node.request(Method::POST, &path(id, "/membership"), &eve.token).json(&join),
            node.request(Method::PUT, &path(id, "/title"), &eve.token).json(&title),
            node.request(Method::POST, &path(id, "/messages"), &eve.token).json(&eve.message(1, &[&ada])),
        ];
        let mut details = Vec::new();
        for request in asked {
            details.push(node.refuses(request, Code::NotFound).await.detail);
        }
        answers.push(details);
    }
    assert_eq!(answers[0], answers[1], "foreign and missing are one");
    let none: Page<Conversation> = node.get(CONVERSATIONS, &eve.token).await.ok(200);
    assert!(none.items.is_empty());
    node.get(&path(group.id(), ""), "").await.refused(Code::Unauthenticated);
    node.get("/v1/conversations/AAAA", &ada.token).await.refused(Code::Malformed);
    node.stop().await;
}

#[tokio::test]
async fn conversations_are_listed_in_pages() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(Group::create(&node, &ada, &[]).await.id());
        Group::create(&node, &bob, &[]).await;
    }
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    for pages_left in (0..3).rev() {
        let page: Page<Conversation> = node.get(&format!("{CONVERSATIONS}{query}"), &ada.token).await.ok(200);
        seen.extend(page.items.iter().map(|item| item.conversation_id));
        assert_eq!(page.next_cursor.is_some(), pages_left > 0);
        query = format!("?limit=2&cursor={}", page.next_cursor.unwrap_or_default());
    }
    assert_eq!(seen, made, "each once, oldest first");
    for cursor in ["x".to_owned(), ConversationId::new([1; 32]).to_text()] {
        let path = format!("{CONVERSATIONS}?cursor={cursor}");
        node.get(&path, &ada.token).await.refused(Code::Malformed);
    }
    node.get(&format!("{CONVERSATIONS}?limit=-1"), &ada.token).await.refused(Code::Malformed);
    node.stop().await;
}

#[tokio::test]
async fn members_come_and_go_by_signed_links() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let mut group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    group.refuses(&node, &bob, MembershipChange::Add(eve.member(Role::Member)), Code::Forbidden).await;
    group.apply(&node, &ada, MembershipChange::SetRole(bob.member(Role::Admin))).await;
    group.apply(&node, &bob, MembershipChange::Add(eve.member(Role::Member))).await;
    group.refuses(&node, &bob, MembershipChange::SetRole(eve.member(Role::Admin)), Code::Forbidden).await;
    group.refuses(&node, &bob, group.remove(&ada), Code::Forbidden).await;
    group.refuses(&node, &bob, MembershipChange::Add(eve.member(Role::Member)), Code::MembershipInvalid).await;
    group.refuses(&node, &ada, group.remove(&ada), Code::LastOwner).await;
    let seen: Conversation = node.get(&path(group.id(), ""), &eve.token).await.ok(200);
    assert_eq!((seen.membership_m, seen.membership_hash, seen.role), (3, group.chain.hash, Role::Member));
    group.apply(&node, &eve, group.remove(&eve)).await;
    node.get(&path(group.id(), ""), &eve.token).await.refused(Code::NotFound);
    group.apply(&node, &bob, MembershipChange::Add(eve.member(Role::Member))).await;

    let links: MembershipLinks = node.get(&path(group.id(), "/membership"), &eve.token).await.ok(200);
    let keys = |signer: &_| [&ada, &bob, &eve].into_iter().find_map(|device| device.chain.signer_key(signer));
    assert_eq!(MembershipChain::replay(&links.links, keys).expect("a sound chain"), group.chain);
    let newest = format!("{}?after=4", path(group.id(), "/membership"));
    let newest: MembershipLinks = node.get(&newest, &eve.token).await.ok(200);
    assert_eq!(newest.links, links.links[4..]);
    node.stop().await;
}

#[tokio::test]
async fn broken_links_are_refused() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    let path = path(group.id(), "/membership");
    let add = MembershipChange::Add(eve.member(Role::Member));
    let good = group.change(&node, &ada, add);

    let mut forged = good.clone();
    forged.link.signature = Signature::new([9; 64]);
    node.refuses_post(&path, &ada.token, &forged, Code::SignatureInvalid).await;
    let mut unreadable = good.clone();
    unreadable.link.link = vec![0xff; 20].into();
    node.refuses_post(&path, &ada.token, &unreadable, Code::MembershipInvalid).await;
    // Brought by another member than the one who signed, or in its name.
    node.refuses_post(&path, &bob.token, &good, Code::MembershipInvalid).await;
    let in_her_name = group.chain.change(ada.signer(), vec![add], node.now_ms()).sign(&bob.signing);
    node.refuses_post(&path, &ada.token, &ChangeMembership { link: in_her_name }, Code::SignatureInvalid).await;
    // A list that is not of the chain.
    let mut signer = ada.signer();
    signer.list_hash = Hash::new([3; 32]);
    let other_list = group.chain.change(signer, vec![add], node.now_ms()).sign(&ada.signing);
    node.refuses_post(&path, &ada.token, &ChangeMembership { link: other_list }, Code::MembershipInvalid).await;
    // An account with another fingerprint, and one that is not there.
    let mut swapped = eve.member(Role::Member);
    swapped.fingerprint = Hash::new([3; 32]);
    group.refuses(&node, &ada, MembershipChange::Add(swapped), Code::MembershipInvalid).await;
    let ghost = Member { account_id: martlet_protocol::id::AccountId::new([3; 16]), ..swapped };
    group.refuses(&node, &ada, MembershipChange::Add(ghost), Code::MembershipInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn a_link_that_does_not_extend_the_head_gets_what_it_missed() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let mut group = Group::create(&node, &ada, &[bob.member(Role::Admin)]).await;
    let early = Group { chain: group.chain.clone() };
    group.apply(&node, &ada, MembershipChange::Add(eve.member(Role::Member))).await;
    let stale = early.change(&node, &bob, early.remove(&bob));
    let path = path(group.id(), "/membership");
    let problem = node.refuses_post(&path, &bob.token, &stale, Code::MembershipConflict).await;
    let caught_up = problem
        .membership
        .iter()
        .try_fold(early.chain, |chain, link| chain.extend(link, |signer| ada.chain.signer_key(signer)));
    assert_eq!(caught_up.expect("the link missed"), group.chain);
    // The head once more: its answer was lost.
    let head = group.change(&node, &bob, group.remove(&eve));
    node.post(&path, &bob.token, &head).await.done();
    node.post(&path, &bob.token, &head).await.done();
    node.stop().await;
}

#[tokio::test]
async fn broken_creations_are_refused() {
    let node = TestNode::start_with(|config| config.conversations.max_members_group = 2).await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let mut forged = ada.group_with(&node, &[]);
    forged.creation.signature = Signature::new([9; 64]);
    node.refuses_post(CONVERSATIONS, &ada.token, &forged, Code::SignatureInvalid).await;
    let good = ada.group_with(&node, &[]);
    node.refuses_post(CONVERSATIONS, &bob.token, &good, Code::MembershipInvalid).await;
    let two_owners = ada.group_with(&node, &[bob.member(Role::Owner)]);
    node.refuses_post(CONVERSATIONS, &ada.token, &two_owners, Code::MembershipInvalid).await;
    let three = ada.group_with(&node, &[bob.member(Role::Member), eve.member(Role::Member)]);
    node.refuses_post(CONVERSATIONS, &ada.token, &three, Code::TooManyMembers).await;
    let alone = ada.direct_with(&node, &ada);
    node.refuses_post(CONVERSATIONS, &ada.token, &alone, Code::MembershipInvalid).await;
    let titled = CreateConversation { title: Some(vec![0; 1025].into()), ..good.clone() };
    node.refuses_post(CONVERSATIONS, &ada.token, &titled, Code::TextInvalid).await;
    let group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    group.refuses(&node, &ada, MembershipChange::Add(eve.member(Role::Member)), Code::TooManyMembers).await;
    node.stop().await;
}

#[tokio::test]
async fn titles_are_set_by_admins_and_stay_bytes() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    let title = |bytes: Vec<u8>| SetTitle { title: Blob::from(bytes) };
    let path_title = path(group.id(), "/title");
    node.put(&path_title, &ada.token, &title(vec![0, 255, 1])).await.done();
    let seen: Conversation = node.get(&path(group.id(), ""), &bob.token).await.ok(200);
    assert_eq!(seen.title, Some(Blob::from(vec![0, 255, 1])));
    let put = |token: &str, body: &SetTitle| node.request(Method::PUT, &path_title, token).json(body);
    node.refuses(put(&bob.token, &title(vec![1])), Code::Forbidden).await;
    node.refuses(put(&ada.token, &title(vec![1; 1025])), Code::TextInvalid).await;
    node.put(&path_title, &ada.token, &title(Vec::new())).await.done();
    let seen: Conversation = node.get(&path(group.id(), ""), &bob.token).await.ok(200);
    assert_eq!(seen.title, None);
    node.stop().await;
}

#[tokio::test]
async fn of_changes_at_once_one_extends_the_head() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let mut others = Vec::new();
    for number in 0..5 {
        others.push(TestDevice::register(&node, &format!("member{number}")).await);
    }
    let members: Vec<_> = others.iter().map(|device| device.member(Role::Member)).collect();
    let group = Group::create(&node, &ada, &members).await;
    let path = path(group.id(), "/membership");
    let leave = others.iter().map(|device| async {
        let change = group.change(&node, device, group.remove(device));
        node.post(&path, &device.token, &change).await.status.as_u16()
    });
    let statuses = futures_util::future::join_all(leave).await;
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1);
    assert_eq!(statuses.into_iter().collect::<HashSet<_>>(), HashSet::from([204, 409]));
    assert_eq!(node.count("membership_links", "1 = 1"), 2);
    node.stop().await;
}

/// What a removed device signed before it was removed, and what anybody holds back, is worth nothing afterwards.
#[tokio::test]
async fn a_link_under_an_older_device_list_than_the_newest_is_refused() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let group = Group::create(&node, &ada, &[bob.member(Role::Member)]).await;
    let held_back = group.change(&node, &ada, group.remove(&bob));
    let creation = ada.direct_with(&node, &bob);
    let made = ada.group_with(&node, &[bob.member(Role::Member)]);
    let first = ada.create(&node, &made).await;
    let _linked = ada.link(&node).await;

    let path = path(group.id(), "/membership");
    let problem = node.refuses_post(&path, &ada.token, &held_back, Code::DeviceListConflict).await;
    assert_eq!(problem.lists.len(), 1, "the list that it lacks comes with the answer");
    node.refuses_post(CONVERSATIONS, &ada.token, &creation, Code::DeviceListConflict).await;
    // An answer that was lost is given again, whatever has become of the list.
    assert_eq!(ada.create(&node, &made).await.conversation_id, first.conversation_id);
    // Under the newest list it goes.
    let change = group.change(&node, &ada, group.remove(&bob));
    node.post(&path, &ada.token, &change).await.done();
    node.stop().await;
}
