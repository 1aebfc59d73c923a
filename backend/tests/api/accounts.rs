//! `POST /v1/accounts`, `GET /v1/accounts/by-name/{username}`, `GET /v1/accounts/{account_id}/lists`.

use martlet::config::Registration;
use martlet_protocol::{
    chain::devices::DeviceChain,
    id::{DeviceId, Signature},
    problem::Code,
    rest::{AccountLists, AccountRef, PrekeyKind, RegisterRequest},
};

use crate::harness::{TestDevice, TestNode, draw_account, unsigned_prekey};

#[tokio::test]
async fn a_device_registers_and_others_find_its_chain() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob.2_x-y").await;
    assert!(bob.token.starts_with("mt_"));
    assert_eq!(node.count("accounts", "password_hash LIKE '$argon2id$%'"), 2);
    let token = node.store().literal(ada.token.as_bytes());
    assert_eq!(node.count("tokens", &format!("token_hash = {token}")), 0, "tokens rest hashed");
    let hash = node.store().literal(martlet_protocol::id::Hash::of(ada.token.as_bytes()).as_bytes());
    assert_eq!(node.count("tokens", &format!("token_hash = {hash}")), 1);

    let found: AccountRef = node.get("/v1/accounts/by-name/ada", &bob.token).await.ok(200);
    assert_eq!(found, AccountRef { account_id: ada.account_id, fingerprint: ada.chain.fingerprint() });
    let path = format!("/v1/accounts/{}/lists", ada.account_id.to_text());
    let lists: AccountLists = node.get(&path, &bob.token).await.ok(200);
    assert_eq!(DeviceChain::replay(&lists.lists).expect("a sound chain").fingerprint(), found.fingerprint);
    let lists: AccountLists = node.get(&format!("{path}?after=1"), &bob.token).await.ok(200);
    assert!(lists.lists.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn unknown_accounts_are_not_found() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    for path in ["/v1/accounts/by-name/nobody", "/v1/accounts/by-name/%20", "/v1/accounts/AAAAAAAAAAAAAAAAAAAAAA/lists"]
    {
        node.get(path, &ada.token).await.refused(Code::NotFound);
        node.get(path, "").await.refused(Code::Unauthenticated);
    }
    node.get("/v1/accounts/AAAA/lists", &ada.token).await.refused(Code::Malformed);
    node.get("/v1/accounts/%21/lists", &ada.token).await.refused(Code::Malformed);
    let path = format!("/v1/accounts/{}/lists?after=x", ada.account_id.to_text());
    node.get(&path, &ada.token).await.refused(Code::Malformed);
    node.stop().await;
}

#[tokio::test]
async fn names_and_ids_serve_once() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let (request, _) = draw_account(&node, "ada");
    node.refuses_post("/v1/accounts", "", &request, Code::UsernameTaken).await;
    // The same keys under another name: account and device id are taken.
    let (mut request, mut other) = draw_account(&node, "bob");
    other.account_id = ada.account_id;
    other.device_id = ada.device_id;
    let copied = draw_copy(&node, &ada);
    request.device_list = copied.device_list;
    request.prekeys = copied.prekeys;
    node.refuses_post("/v1/accounts", "", &request, Code::IdTaken).await;
    node.stop().await;
}

/// A sound request for an account that exists: its own list 1 again.
fn draw_copy(node: &TestNode, ada: &TestDevice) -> RegisterRequest {
    let (mut request, _) = draw_account(node, "copy");
    request.device_list = ada.signed(ada.chain.list());
    request.prekeys.signed_prekey = Some(ada.prekey(&unsigned_prekey(node, PrekeyKind::Signed, 900)));
    request.prekeys.one_time_prekeys.clear();
    request
}

#[tokio::test]
async fn bad_names_passwords_and_labels_are_refused() {
    let node = TestNode::start().await;
    type Spoil = fn(&mut RegisterRequest);
    let cases: [(&str, Spoil, Code); 8] = [
        ("short name", |request| request.username = "ab".to_owned(), Code::UsernameInvalid),
        ("capitals", |request| request.username = "Ada".to_owned(), Code::UsernameInvalid),
        ("dot first", |request| request.username = ".ada".to_owned(), Code::UsernameInvalid),
        ("short password", |request| request.password = "1234567".to_owned(), Code::PasswordInvalid),
        ("long password", |request| request.password = "x".repeat(1025), Code::PasswordInvalid),
        ("no name", |request| request.label.name = String::new(), Code::TextInvalid),
        ("long platform", |request| request.label.platform = "x".repeat(33), Code::TextInvalid),
        ("control character", |request| request.label.name = "a\nb".to_owned(), Code::TextInvalid),
    ];
    for (what, spoil, code) in cases {
        let (mut request, _) = draw_account(&node, "ada");
        spoil(&mut request);
        println!("{what}");
        node.refuses_post("/v1/accounts", "", &request, code).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn broken_lists_are_refused() {
    let node = TestNode::start().await;
    let (good, device) = draw_account(&node, "ada");

    let mut request = good.clone();
    request.device_list.signatures[0].signature = Signature::new([9; 64]);
    node.refuses_post("/v1/accounts", "", &request, Code::SignatureInvalid).await;

    let mut request = good.clone();
    request.device_list.signatures.clear();
    node.refuses_post("/v1/accounts", "", &request, Code::DeviceListInvalid).await;

    let mut request = good.clone();
    request.device_list.signatures[0].device_id = DeviceId::new([1; 16]);
    node.refuses_post("/v1/accounts", "", &request, Code::DeviceListInvalid).await;

    let mut request = good.clone();
    request.device_list.list = vec![0xff; 10].into();
    node.refuses_post("/v1/accounts", "", &request, Code::DeviceListInvalid).await;

    let mut request = good.clone();
    let sibling = device.draw_sibling();
    request.device_list = device.list_with(&sibling, node.now_ms());
    node.refuses_post("/v1/accounts", "", &request, Code::DeviceListInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn broken_prekeys_are_refused() {
    let node = TestNode::start().await;
    let (good, device) = draw_account(&node, "ada");

    let mut request = good.clone();
    request.prekeys.one_time_prekeys[2].signature = Signature::new([9; 64]);
    node.refuses_post("/v1/accounts", "", &request, Code::SignatureInvalid).await;

    let mut request = good.clone();
    request.prekeys.signed_prekey = None;
    node.refuses_post("/v1/accounts", "", &request, Code::PrekeyInvalid).await;

    let mut request = good.clone();
    request.prekeys.signed_prekey = request.prekeys.one_time_prekeys.pop();
    node.refuses_post("/v1/accounts", "", &request, Code::PrekeyInvalid).await;

    let expired = unsigned_prekey(&node, PrekeyKind::Signed, 1);
    for not_after_ms in [node.now_ms(), node.now_ms() + 63 * 24 * 60 * 60 * 1000] {
        let mut request = good.clone();
        let mut key = expired;
        key.not_after_ms = not_after_ms;
        request.prekeys.signed_prekey = Some(device.prekey(&key));
        node.refuses_post("/v1/accounts", "", &request, Code::PrekeyInvalid).await;
    }

    let mut request = good.clone();
    let mut unknown_suite = unsigned_prekey(&node, PrekeyKind::Signed, 1);
    unknown_suite.suite = 99;
    request.prekeys.signed_prekey = Some(device.prekey(&unknown_suite));
    node.refuses_post("/v1/accounts", "", &request, Code::PrekeyInvalid).await;

    // Two keys under one id.
    let mut request = good.clone();
    request.prekeys.one_time_prekeys.push(device.prekey(&unsigned_prekey(&node, PrekeyKind::OneTime, 2)));
    node.refuses_post("/v1/accounts", "", &request, Code::PrekeyIdReused).await;

    let mut request = good.clone();
    let keys = (100..=300).map(|key_id| device.prekey(&unsigned_prekey(&node, PrekeyKind::OneTime, key_id)));
    request.prekeys.one_time_prekeys = keys.collect();
    node.refuses_post("/v1/accounts", "", &request, Code::TooManyPrekeys).await;
    node.stop().await;
}

#[tokio::test]
async fn a_closed_node_takes_no_accounts() {
    let node = TestNode::start_with(|config| config.accounts.registration = Registration::Closed).await;
    let (request, _) = draw_account(&node, "ada");
    node.refuses_post("/v1/accounts", "", &request, Code::Forbidden).await;
    node.stop().await;
}

#[tokio::test]
async fn registrations_per_address_are_limited() {
    let node = TestNode::start_with(|config| config.limits.registrations_per_address_per_minute = 1).await;
    TestDevice::register(&node, "ada").await;
    let (request, _) = draw_account(&node, "bob");
    let problem = node.refuses_post("/v1/accounts", "", &request, Code::RateLimited).await;
    assert!(problem.retry_after_ms.is_some_and(|ms| (1_000..=60_001).contains(&ms)));
    node.stop().await;
}
