//! `GET /v1/devices`, `PATCH /v1/devices/{device_id}`, `POST /v1/devices/revoke`.

use std::time::Duration;

use martlet_protocol::{
    chain::devices::DeviceChain,
    id::{DeviceId, Signature},
    problem::Code,
    rest::{AccountLists, OwnDevices, RenameRequest, RevokeRequest, SignedDeviceList},
};
use reqwest::Method;

use crate::harness::{TestDevice, TestNode};

const REVOKE: &str = "/v1/devices/revoke";

fn revoke(device_list: SignedDeviceList) -> RevokeRequest {
    RevokeRequest { device_list }
}

fn path(device: &TestDevice) -> String {
    format!("/v1/devices/{}", device.device_id.to_text())
}

#[tokio::test]
async fn own_devices_are_listed_and_renamed() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    node.patch(&path(&phone), &ada.token, &RenameRequest { name: "Telefon".to_owned() }).await.done();
    let own: OwnDevices = node.get("/v1/devices", &phone.token).await.ok(200);
    let shown: Vec<_> = own.devices.iter().map(|device| (device.label.name.as_str(), device.is_this)).collect();
    assert_eq!(shown, [("first", false), ("Telefon", true)]);
    assert!(own.devices.iter().all(|device| !device.dormant && !device.suspended));
    node.clock.advance(Duration::from_secs(60 * 24 * 60 * 60));
    let own: OwnDevices = node.get("/v1/devices", &phone.token).await.ok(200);
    assert!(own.devices.iter().all(|device| device.dormant), "their signed prekeys have expired");
    node.stop().await;
}

#[tokio::test]
async fn only_own_devices_are_renamed() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let rename = |path: &str, token: &str, name: &str| {
        node.request(Method::PATCH, path, token).json(&RenameRequest { name: name.to_owned() })
    };
    let missing = format!("/v1/devices/{}", DeviceId::new([5; 16]).to_text());
    let foreign = node.refuses(rename(&path(&bob), &ada.token, "mine"), Code::NotFound).await;
    let none = node.refuses(rename(&missing, &ada.token, "mine"), Code::NotFound).await;
    assert_eq!(foreign.detail, none.detail);
    node.refuses(rename(&path(&ada), &ada.token, ""), Code::TextInvalid).await;
    node.refuses(rename(&path(&ada), &ada.token, &"x".repeat(65)), Code::TextInvalid).await;
    node.refuses(rename("/v1/devices/short", &ada.token, "mine"), Code::Malformed).await;
    node.refuses(rename(&path(&ada), "", "mine"), Code::Unauthenticated).await;
    node.stop().await;
}

#[tokio::test]
async fn a_revoked_device_gets_nothing_more() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let bob = TestDevice::register(&node, "bob").await;
    let direct = bob.create(&node, &bob.direct_with(&node, &ada)).await;
    let send = bob.message(1, &[&ada, &phone]);
    let path = TestDevice::messages_path(&direct.conversation_id);
    let _: serde_json::Value = node.post(&path, &bob.token, &send).await.ok(200);
    assert_eq!(node.count("mailbox_entries", "1 = 1"), 3, "two forks and the echo");

    let list = ada.list_without(&[phone.device_id], node.now_ms());
    node.post(REVOKE, &ada.token, &revoke(list.clone())).await.done();
    node.get("/v1/devices", &phone.token).await.refused(Code::Unauthenticated);
    assert_eq!(node.count("mailbox_entries", "1 = 1"), 2, "its mailbox is purged");
    assert_eq!(node.count("mailbox_heads", "1 = 1"), 2);
    assert_eq!(node.count("prekeys", "device_key = (SELECT device_key FROM devices WHERE status = 2)"), 0);
    let own: OwnDevices = node.get("/v1/devices", &ada.token).await.ok(200);
    assert_eq!(own.devices.len(), 1);
    let lists = format!("/v1/accounts/{}/lists", ada.account_id.to_text());
    let lists: AccountLists = node.get(&lists, &bob.token).await.ok(200);
    assert_eq!(DeviceChain::replay(&lists.lists).expect("a sound chain").n(), 3);

    // The answer was lost: again changes nothing.
    let heads = node.count("control_entries", "1 = 1");
    node.post(REVOKE, &ada.token, &revoke(list)).await.done();
    assert_eq!(node.count("control_entries", "1 = 1"), heads);
    node.stop().await;
}

#[tokio::test]
async fn a_device_may_revoke_itself() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let list = phone.list_without(&[phone.device_id], node.now_ms());
    node.post(REVOKE, &phone.token, &revoke(list)).await.done();
    node.get("/v1/devices", &phone.token).await.refused(Code::Unauthenticated);
    node.stop().await;
}

#[tokio::test]
async fn lists_that_break_the_chain_are_refused() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let bob = TestDevice::register(&node, "bob").await;
    let good = ada.list_without(&[phone.device_id], node.now_ms());

    let mut forged = good.clone();
    forged.signatures[0].signature = Signature::new([9; 64]);
    node.refuses_post(REVOKE, &ada.token, &revoke(forged), Code::SignatureInvalid).await;

    // Signed by a device of another account, or by one that was never listed.
    let mut forged = good.clone();
    forged.signatures = bob.signed(&ada.chain.list().without(&[phone.device_id], node.now_ms())).signatures;
    node.refuses_post(REVOKE, &ada.token, &revoke(forged), Code::DeviceListInvalid).await;

    // Another account's list through one's own token, and the reverse.
    node.refuses_post(REVOKE, &bob.token, &revoke(good.clone()), Code::DeviceListInvalid).await;

    // Nothing removed, everything removed, one added.
    let same = ada.list_without(&[], node.now_ms());
    node.refuses_post(REVOKE, &ada.token, &revoke(same), Code::DeviceListInvalid).await;
    let none = ada.list_without(&[ada.device_id, phone.device_id], node.now_ms());
    node.refuses_post(REVOKE, &ada.token, &revoke(none), Code::DeviceListInvalid).await;
    let added = ada.list_with(&ada.draw_sibling(), node.now_ms());
    node.refuses_post(REVOKE, &ada.token, &revoke(added), Code::DeviceListInvalid).await;

    node.refuses_post(REVOKE, "", &revoke(good), Code::Unauthenticated).await;
    node.stop().await;
}

#[tokio::test]
async fn a_list_that_does_not_extend_the_head_gets_what_it_missed() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let early = ada.chain.clone();
    let phone = ada.link(&node).await;
    let tablet = ada.link(&node).await;

    // Made over list 1 while the head is list 3.
    let stale = ada.signed(&early.list().without(&[], node.now_ms() + 1));
    let problem = node.refuses_post(REVOKE, &ada.token, &revoke(stale), Code::DeviceListConflict).await;
    assert_eq!(early.extend_all(&problem.lists).expect("the links missed"), ada.chain);

    // Made over a branch of its own.
    let mut branch = ada.chain.list().without(&[phone.device_id], node.now_ms());
    branch.previous_hash = Some(martlet_protocol::id::Hash::new([8; 32]));
    let problem = node.refuses_post(REVOKE, &ada.token, &revoke(ada.signed(&branch)), Code::DeviceListConflict).await;
    assert_eq!(problem.lists.len(), 1, "the head itself");

    // Two lists over one head: the first wins, whole.
    let first = ada.list_without(&[tablet.device_id], node.now_ms());
    node.post(REVOKE, &ada.token, &revoke(first)).await.done();
    let second = ada.list_without(&[phone.device_id], node.now_ms());
    let problem = node.refuses_post(REVOKE, &ada.token, &revoke(second), Code::DeviceListConflict).await;
    assert_eq!(ada.chain.extend_all(&problem.lists).expect("one list").n(), 4);
    node.stop().await;
}
