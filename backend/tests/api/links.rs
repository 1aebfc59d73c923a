//! `POST /v1/links`, `GET /v1/links/{id}`, `PUT …/answer`, `POST …/poll`, `POST …/complete`.

use std::time::Duration;

use martlet_protocol::{
    id::{Blob, LinkId, Signature},
    problem::Code,
    rest::{
        ClaimAccount, ClaimAnswer, ClaimRequest, DeviceSession, LinkAnswered, LinkOffered, LinkPoll, LinkPolled,
        LinkStart, LinkStarted, OwnDevices,
    },
    wire,
};
use prost::Message as _;
use reqwest::Method;

use crate::harness::{TestDevice, TestLink, TestNode};

fn path(link_id: LinkId, rest: &str) -> String {
    format!("/v1/links/{}{rest}", link_id.to_text())
}

fn answered(byte: u8) -> LinkAnswered {
    let answer = wire::SealedLinkAnswer { enc: vec![byte; 32].into(), ciphertext: vec![2; 64].into() };
    LinkAnswered { answer: Blob::from(answer.encode_to_vec()) }
}

async fn refuses_completion(node: &TestNode, link: &TestLink, code: Code) {
    node.refuses_post(&path(link.link_id, "/complete"), "", &link.complete, code).await;
}

#[tokio::test]
async fn a_device_is_linked_step_by_step() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let phone = ada.draw_sibling();
    let offer = phone.offer();
    let started: LinkStarted = node.post("/v1/links", "", &LinkStart { offer: offer.clone() }).await.ok(201);
    assert_eq!(started.expires_at_ms, node.now_ms() + 10 * 60 * 1000);
    let poll = LinkPoll { poll_secret: started.poll_secret.clone() };
    let polled: LinkPolled = node.post(&path(started.link_id, "/poll"), "", &poll).await.ok(200);
    assert!(polled.answer.is_none());
    let seen: LinkOffered = node.get(&path(started.link_id, ""), &ada.token).await.ok(200);
    assert_eq!(seen.offer, offer);
    for _ in 0..2 {
        node.put(&path(started.link_id, "/answer"), &ada.token, &answered(1)).await.done();
    }
    let polled: LinkPolled = node.post(&path(started.link_id, "/poll"), "", &poll).await.ok(200);
    assert_eq!(polled.answer, Some(answered(1).answer));
    node.stop().await;
}

#[tokio::test]
async fn a_linked_device_is_listed_and_can_be_written_to() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    assert_eq!(node.count("links", "1 = 1"), 0, "a link serves once");
    assert_eq!(node.count("mailbox_heads", "list_n = 2"), 2, "every head of the account has the new number");
    let own: OwnDevices = node.get("/v1/devices", &phone.token).await.ok(200);
    assert_eq!(own.devices.len(), 2);
    let bob = TestDevice::register(&node, "bob").await;
    let account = ClaimAccount { account_id: ada.account_id, known_n: 2, device_ids: vec![phone.device_id] };
    let claimed: ClaimAnswer =
        node.post("/v1/bundles", &bob.token, &ClaimRequest { accounts: vec![account] }).await.ok(200);
    assert!(claimed.bundles[0].one_time_prekey.is_some());
    node.stop().await;
}

#[tokio::test]
async fn a_link_serves_once_and_not_for_long() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let link = ada.answer_link(&node).await;
    let _: DeviceSession = node.post(&path(link.link_id, "/complete"), "", &link.complete).await.ok(201);
    ada.chain = link.device.chain.clone();
    refuses_completion(&node, &link, Code::NotFound).await;

    let late = ada.answer_link(&node).await;
    node.clock.advance(Duration::from_secs(10 * 60));
    // Not compared with what is stored: the node's own sweeper may come for the link between two looks.
    node.post(&path(late.link_id, "/complete"), "", &late.complete).await.refused(Code::NotFound);
    let poll = LinkPoll { poll_secret: late.complete.poll_secret.clone() };
    node.post(&path(late.link_id, "/poll"), "", &poll).await.refused(Code::NotFound);
    node.get(&path(late.link_id, ""), &ada.token).await.refused(Code::NotFound);
    assert_eq!(node.count("devices", "1 = 1"), 2, "the late one is no device");
    node.stop().await;
}

#[tokio::test]
async fn only_the_new_device_may_poll_and_complete() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let mut link = ada.answer_link(&node).await;
    link.complete.poll_secret = format!("mtl_{}", "A".repeat(43));
    refuses_completion(&node, &link, Code::NotFound).await;
    let poll = LinkPoll { poll_secret: link.complete.poll_secret.clone() };
    let wrong = node.refuses_post(&path(link.link_id, "/poll"), "", &poll, Code::NotFound).await;
    let missing = node.refuses_post(&path(LinkId::new([1; 16]), "/poll"), "", &poll, Code::NotFound).await;
    assert_eq!(wrong.detail, missing.detail);
    node.stop().await;
}

#[tokio::test]
async fn one_answer_by_one_account() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let link = ada.answer_link(&node).await;
    let put =
        |token: &str, body: &LinkAnswered| node.request(Method::PUT, &path(link.link_id, "/answer"), token).json(body);
    node.refuses(put(&ada.token, &answered(9)), Code::LinkInvalid).await;
    node.refuses(put(&bob.token, &answered(9)), Code::NotFound).await;
    node.refuses(put("", &answered(9)), Code::Unauthenticated).await;
    node.refuses(put(&ada.token, &LinkAnswered { answer: vec![0xff; 9].into() }), Code::Malformed).await;
    let long = wire::SealedLinkAnswer { enc: vec![1; 32].into(), ciphertext: vec![2; 512 * 1024].into() };
    node.refuses(put(&ada.token, &LinkAnswered { answer: long.encode_to_vec().into() }), Code::TooLarge).await;
    let foreign = node.request(Method::GET, &path(link.link_id, ""), &bob.token);
    node.refuses(foreign, Code::NotFound).await;
    node.stop().await;
}

#[tokio::test]
async fn offers_that_are_none_are_refused() {
    let node = TestNode::start().await;
    let start = |offer: Vec<u8>| LinkStart { offer: offer.into() };
    node.refuses_post("/v1/links", "", &start(Vec::new()), Code::Malformed).await;
    node.refuses_post("/v1/links", "", &start(vec![0xff; 40]), Code::Malformed).await;
    node.refuses_post("/v1/links", "", &start(vec![0; 2000]), Code::TooLarge).await;
    let short_key =
        wire::LinkOffer { device_id: vec![1; 16].into(), signing_key: vec![1; 31].into(), ..Default::default() };
    node.refuses_post("/v1/links", "", &start(short_key.encode_to_vec()), Code::Malformed).await;
    node.stop().await;
}

#[tokio::test]
async fn the_list_must_add_exactly_the_offered_device() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;

    let mut link = ada.answer_link(&node).await;
    let good = link.complete.device_list.clone();
    link.complete.device_list = ada.list_with(&ada.draw_sibling(), node.now_ms());
    refuses_completion(&node, &link, Code::DeviceListInvalid).await;

    // The newcomer's signature missing, forged, and the existing device's missing.
    link.complete.device_list = good.clone();
    link.complete.device_list.signatures.retain(|signature| signature.device_id == ada.device_id);
    refuses_completion(&node, &link, Code::DeviceListInvalid).await;
    link.complete.device_list = good.clone();
    link.complete.device_list.signatures.retain(|signature| signature.device_id != ada.device_id);
    refuses_completion(&node, &link, Code::DeviceListInvalid).await;
    link.complete.device_list = good.clone();
    link.complete.device_list.signatures[0].signature = Signature::new([9; 64]);
    refuses_completion(&node, &link, Code::SignatureInvalid).await;

    link.complete.device_list = good;
    link.complete.prekeys.signed_prekey = None;
    refuses_completion(&node, &link, Code::PrekeyInvalid).await;
    link.complete.label.name = String::new();
    refuses_completion(&node, &link, Code::TextInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn an_unanswered_link_can_not_be_completed() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let mut link = ada.answer_link(&node).await;
    let started: LinkStarted = node.post("/v1/links", "", &LinkStart { offer: link.device.offer() }).await.ok(201);
    link.link_id = started.link_id;
    link.complete.poll_secret = started.poll_secret;
    refuses_completion(&node, &link, Code::LinkInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn the_loser_of_two_links_rebases() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let early = ada.chain.clone();
    let slow = ada.answer_link(&node).await;
    ada.link(&node).await;
    let problem =
        node.refuses_post(&path(slow.link_id, "/complete"), "", &slow.complete, Code::DeviceListConflict).await;
    assert_eq!(early.extend_all(&problem.lists).expect("the link missed"), ada.chain);
    // The link is still open: the same device, over the new head.
    let mut rebased = slow;
    rebased.complete.device_list = ada.list_with(&rebased.device, node.now_ms());
    rebased.device.chain = ada.chain.extend(&rebased.complete.device_list).expect("a sound list");
    rebased.complete.prekeys = rebased.device.prekeys(&node, 3);
    let _: DeviceSession = node.post(&path(rebased.link_id, "/complete"), "", &rebased.complete).await.ok(201);
    node.stop().await;
}

#[tokio::test]
async fn an_account_has_a_limit_of_devices() {
    let node = TestNode::start_with(|config| config.accounts.max_devices = 2).await;
    let mut ada = TestDevice::register(&node, "ada").await;
    ada.link(&node).await;
    let third = ada.answer_link(&node).await;
    refuses_completion(&node, &third, Code::TooManyDevices).await;
    node.stop().await;
}

#[tokio::test]
async fn an_id_of_a_revoked_device_does_not_come_back() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let revoke = serde_json::json!({ "device_list": ada.list_without(&[phone.device_id], node.now_ms()) });
    node.post("/v1/devices/revoke", &ada.token, &revoke).await.done();
    let lists = format!("/v1/accounts/{}/lists?after=2", ada.account_id.to_text());
    let lists: martlet_protocol::rest::AccountLists = node.get(&lists, &ada.token).await.ok(200);
    // A device that forgot its own past: the chain it extends does not show the removal, the node remembers.
    let head = martlet_protocol::chain::devices::DeviceChain::trusted(&lists.lists[0].list.0, ada.chain.fingerprint());
    ada.chain = head.expect("the head");
    let mut back = ada.draw_sibling();
    back.device_id = phone.device_id;
    let started: LinkStarted = node.post("/v1/links", "", &LinkStart { offer: back.offer() }).await.ok(201);
    node.put(&path(started.link_id, "/answer"), &ada.token, &answered(1)).await.done();
    let device_list = ada.list_with(&back, node.now_ms());
    back.chain = ada.chain.extend(&device_list).expect("a list that looks sound");
    let complete = martlet_protocol::rest::LinkComplete {
        poll_secret: started.poll_secret,
        device_list,
        label: martlet_protocol::rest::DeviceLabel { name: "back".to_owned(), platform: "linux".to_owned() },
        prekeys: back.prekeys(&node, 1),
    };
    node.refuses_post(&path(started.link_id, "/complete"), "", &complete, Code::IdTaken).await;
    node.stop().await;
}
