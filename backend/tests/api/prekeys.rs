//! `GET` and `POST /v1/devices/self/prekeys`, `POST /v1/bundles`.

use std::{collections::HashSet, time::Duration};

use martlet_protocol::{
    chain::devices::{DeviceChain, DeviceList, ListedDevice},
    crypto::{SUITE_1, UnsignedPrekey, sign_prekey},
    id::{AccountId, Signature},
    problem::Code,
    rest::{
        ClaimAccount, ClaimAnswer, ClaimRequest, DeviceSession, ListHead, PrekeyKind, PrekeyState, PrekeyUpload, Role,
    },
};

use crate::harness::{TestDevice, TestNode, bundle_of, draw_account, unsigned_prekey};

const OWN: &str = "/v1/devices/self/prekeys";
const BUNDLES: &str = "/v1/bundles";
/// A suite that no node knows.
const OTHER_SUITE: u32 = 7;

fn all_of(device: &TestDevice) -> ClaimRequest {
    let account = ClaimAccount { account_id: device.account_id, known_n: 0, device_ids: Vec::new() };
    ClaimRequest { accounts: vec![account] }
}

#[tokio::test]
async fn uploads_are_idempotent_by_id() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let state: PrekeyState = node.get(OWN, &ada.token).await.ok(200);
    assert_eq!((state.one_time, state.low), (5, true));
    let upload = ada.prekeys(&node, 20);
    for _ in 0..2 {
        let state: PrekeyState = node.post(OWN, &ada.token, &upload).await.ok(200);
        assert_eq!((state.one_time, state.low), (25, false));
    }
    // Given out, and then uploaded once more: it does not come back.
    let bob = TestDevice::register(&node, "bob").await;
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert!(claimed.bundles[0].one_time_prekey.is_some());
    assert_eq!(claimed.bundles[0].signed_prekey, upload.signed_prekey.clone().expect("a signed one"));
    let again = PrekeyUpload { signed_prekey: None, one_time_prekeys: upload.one_time_prekeys };
    let state: PrekeyState = node.post(OWN, &ada.token, &again).await.ok(200);
    assert_eq!(state.one_time, 24);
    node.stop().await;
}

#[tokio::test]
async fn an_id_with_another_key_is_refused_with_the_whole_upload() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    for (kind, key_id) in [(PrekeyKind::OneTime, 2), (PrekeyKind::Signed, 1)] {
        let fresh = ada.prekey(&unsigned_prekey(&node, PrekeyKind::OneTime, 700));
        let reused = ada.prekey(&unsigned_prekey(&node, kind, key_id));
        let mut upload = PrekeyUpload { signed_prekey: None, one_time_prekeys: vec![fresh] };
        match kind {
            PrekeyKind::OneTime => upload.one_time_prekeys.push(reused),
            PrekeyKind::Signed => upload.signed_prekey = Some(reused),
        }
        node.refuses_post(OWN, &ada.token, &upload, Code::PrekeyIdReused).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn broken_uploads_are_refused() {
    let node = TestNode::start_with(|config| config.prekeys.max_one_time = 10).await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let bob = TestDevice::register(&node, "bob").await;
    let key = |id| unsigned_prekey(&node, PrekeyKind::OneTime, id);
    let upload = |key| PrekeyUpload { signed_prekey: None, one_time_prekeys: vec![key] };

    let mut altered = ada.prekey(&key(50));
    altered.public_key = bob.prekey(&key(50)).public_key;
    node.refuses_post(OWN, &ada.token, &upload(altered), Code::SignatureInvalid).await;
    // A sibling's and a stranger's key under one's own name.
    node.refuses_post(OWN, &ada.token, &upload(phone.prekey(&key(50))), Code::SignatureInvalid).await;
    let mut strangers = bob.prekey(&key(50));
    (strangers.list_n, strangers.list_hash) = (ada.chain.n(), ada.chain.hash());
    node.refuses_post(OWN, &ada.token, &upload(strangers), Code::SignatureInvalid).await;
    // A list of the future.
    let mut ahead = ada.prekey(&key(50));
    ahead.list_n += 1;
    node.refuses_post(OWN, &ada.token, &upload(ahead), Code::PrekeyInvalid).await;
    let mut small_order = key(50);
    small_order.public_key = martlet_protocol::id::PublicKey::new([0; 32]);
    node.refuses_post(OWN, &ada.token, &upload(ada.prekey(&small_order)), Code::PrekeyInvalid).await;
    let mut wrong_kind = PrekeyUpload { signed_prekey: Some(ada.prekey(&key(50))), one_time_prekeys: Vec::new() };
    node.refuses_post(OWN, &ada.token, &wrong_kind, Code::PrekeyInvalid).await;
    wrong_kind.signed_prekey = None;
    wrong_kind.one_time_prekeys = (60..66).map(|id| ada.prekey(&key(id))).collect();
    node.refuses_post(OWN, &ada.token, &wrong_kind, Code::TooManyPrekeys).await;
    node.refuses_post(OWN, "", &upload(ada.prekey(&key(50))), Code::Unauthenticated).await;
    node.stop().await;
}

#[tokio::test]
async fn wrong_base64_and_lengths_are_refused() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let key = ada.prekey(&unsigned_prekey(&node, PrekeyKind::OneTime, 50));
    for (field, value) in [("public_key", "AAAA"), ("public_key", "*"), ("signature", "AAAA"), ("list_hash", "é")] {
        let mut json = serde_json::to_value(&key).expect("JSON");
        json[field] = value.into();
        let upload = serde_json::json!({ "one_time_prekeys": [json] });
        node.refuses_post(OWN, &ada.token, &upload, Code::Malformed).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_claimer_gets_one_one_time_prekey_a_day() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let bob = TestDevice::register(&node, "bob").await;
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert_eq!(claimed.lists[0].lists.len(), 2);
    for device in [&ada, &phone] {
        let bundle = bundle_of(&claimed.bundles, device).expect("a bundle of each device");
        assert!(bundle.one_time_prekey.is_some());
        ada.chain.check_prekey(&bundle.signed_prekey, &device.device_id, node.now_ms()).expect("a sound prekey");
    }
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert!(claimed.bundles.iter().all(|bundle| bundle.one_time_prekey.is_none()));
    node.clock.advance(Duration::from_secs(24 * 60 * 60));
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert!(claimed.bundles.iter().all(|bundle| bundle.one_time_prekey.is_some()));

    // One's own other devices, but not oneself; only the devices asked for; only lists that one does not know.
    let mut own = all_of(&ada);
    own.accounts[0].known_n = 2;
    let claimed: ClaimAnswer = node.post(BUNDLES, &ada.token, &own).await.ok(200);
    assert_eq!(claimed.bundles.iter().map(|bundle| bundle.device_id).collect::<Vec<_>>(), [phone.device_id]);
    assert!(claimed.lists.is_empty());
    own.accounts[0].device_ids = vec![ada.device_id];
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &own).await.ok(200);
    assert_eq!(claimed.bundles.iter().map(|bundle| bundle.device_id).collect::<Vec<_>>(), [ada.device_id]);
    node.stop().await;
}

#[tokio::test]
async fn no_key_is_given_twice_however_many_claim_at_once() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let mut claimers = Vec::new();
    for number in 0..8 {
        claimers.push(TestDevice::register(&node, &format!("claimer{number}")).await);
    }
    let wanted = all_of(&ada);
    let claims = claimers.iter().map(|claimer| node.post(BUNDLES, &claimer.token, &wanted));
    let answers = futures_util::future::join_all(claims).await;
    let mut given = HashSet::new();
    let mut without = 0;
    for answer in answers {
        let claimed: ClaimAnswer = answer.ok(200);
        match &claimed.bundles[0].one_time_prekey {
            Some(key) => assert!(given.insert(key.key_id), "given twice"),
            None => without += 1,
        }
    }
    assert_eq!((given.len(), without), (5, 3), "five keys, then the signed one alone");
    let state: PrekeyState = node.get(OWN, &ada.token).await.ok(200);
    assert_eq!(state.one_time, 0);
    node.stop().await;
}

#[tokio::test]
async fn claims_are_limited_per_claimer_and_per_target() {
    let node = TestNode::start_with(|config| {
        config.limits.claims_per_claimer_per_minute = 2;
        config.limits.claims_per_target_per_minute = 1;
    })
    .await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let first: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert!(first.bundles[0].one_time_prekey.is_some());
    // Past the target's rate nobody is kept from sending, but the pool is spared.
    let second: ClaimAnswer = node.post(BUNDLES, &eve.token, &all_of(&ada)).await.ok(200);
    assert!(second.bundles[0].one_time_prekey.is_none());
    let _: ClaimAnswer = node.post(BUNDLES, &eve.token, &all_of(&ada)).await.ok(200);
    node.refuses_post(BUNDLES, &eve.token, &all_of(&ada), Code::RateLimited).await;
    node.stop().await;
}

#[tokio::test]
async fn dormant_devices_and_unknown_accounts() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let mut unknown = all_of(&ada);
    unknown.accounts.push(ClaimAccount { account_id: AccountId::new([4; 16]), known_n: 0, device_ids: Vec::new() });
    node.refuses_post(BUNDLES, &bob.token, &unknown, Code::NotFound).await;
    let many = ClaimRequest { accounts: vec![unknown.accounts[0].clone(); 257] };
    node.refuses_post(BUNDLES, &bob.token, &many, Code::TooLarge).await;
    node.clock.advance(Duration::from_secs(60 * 24 * 60 * 60));
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &all_of(&ada)).await.ok(200);
    assert_eq!((claimed.bundles.len(), claimed.dormant), (0, vec![ada.device_id]));
    node.stop().await;
}

#[tokio::test]
async fn a_spoiled_signature_among_many_spoils_the_upload() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let mut upload = ada.prekeys(&node, 30);
    upload.one_time_prekeys[29].signature = Signature::new([1; 64]);
    node.refuses_post(OWN, &ada.token, &upload, Code::SignatureInvalid).await;
    node.stop().await;
}

#[tokio::test]
async fn a_prekey_names_a_list_of_its_accounts_chain() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let first = ada.head();
    for _ in 0..2 {
        ada.link(&node).await;
    }
    let upload = |key_id, n, hash| {
        let head = ListHead { account_id: ada.account_id, n, hash };
        let key = unsigned_prekey(&node, PrekeyKind::OneTime, key_id);
        let key = sign_prekey(&key, &ada.device_id, &head, &ada.signing);
        PrekeyUpload { signed_prekey: None, one_time_prekeys: vec![key] }
    };
    let newest = ada.head();
    for (n, hash) in [(0, first.hash), (1, newest.hash), (2, first.hash), (2, newest.hash), (3, first.hash)] {
        node.refuses_post(OWN, &ada.token, &upload(50, n, hash), Code::PrekeyInvalid).await;
    }
    // Made before the device heard of the newer lists.
    let _: PrekeyState = node.post(OWN, &ada.token, &upload(50, first.n, first.hash)).await.ok(200);
    let _: PrekeyState = node.post(OWN, &ada.token, &upload(51, newest.n, newest.hash)).await.ok(200);
    node.stop().await;
}

/// There is one signed prekey and one pool per device: of another suite they would be useless to whoever writes by the known one.
#[tokio::test]
async fn prekeys_are_of_a_known_suite_where_the_device_lists_one() {
    let node = TestNode::start().await;
    let other = |kind, key_id| UnsignedPrekey { suite: OTHER_SUITE, ..unsigned_prekey(&node, kind, key_id) };
    let listing = |device: &mut TestDevice, suites: &[u32]| {
        let listed =
            ListedDevice::new(device.device_id, device.signing.public(), device.mailbox.public(), node.now_ms());
        let listed = ListedDevice { suites: suites.to_vec(), ..listed };
        let signed = device.signed(&DeviceList::first(device.account_id, listed, node.now_ms()));
        device.chain = DeviceChain::first(&signed).expect("a sound list");
        signed
    };
    let (mut request, mut ada) = draw_account(&node, "ada");
    request.device_list = listing(&mut ada, &[SUITE_1, OTHER_SUITE]);
    request.prekeys = ada.prekeys(&node, 5);
    let session: DeviceSession = node.post("/v1/accounts", "", &request).await.ok(201);
    let signed =
        PrekeyUpload { signed_prekey: Some(ada.prekey(&other(PrekeyKind::Signed, 50))), one_time_prekeys: Vec::new() };
    node.refuses_post(OWN, &session.token, &signed, Code::PrekeyInvalid).await;
    let one_time =
        PrekeyUpload { signed_prekey: None, one_time_prekeys: vec![ada.prekey(&other(PrekeyKind::OneTime, 50))] };
    node.refuses_post(OWN, &session.token, &one_time, Code::PrekeyInvalid).await;

    // Who speaks another suite only is carried without a look into it.
    let (mut request, mut bob) = draw_account(&node, "bob");
    request.device_list = listing(&mut bob, &[OTHER_SUITE]);
    let signed_prekey = Some(bob.prekey(&other(PrekeyKind::Signed, 50)));
    request.prekeys = PrekeyUpload { signed_prekey, one_time_prekeys: Vec::new() };
    let _: DeviceSession = node.post("/v1/accounts", "", &request).await.ok(201);
    node.stop().await;
}

#[tokio::test]
async fn an_account_that_is_named_twice_is_claimed_once() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let mut twice = all_of(&ada);
    twice.accounts.extend(all_of(&ada).accounts);
    let claimed: ClaimAnswer = node.post(BUNDLES, &bob.token, &twice).await.ok(200);
    assert_eq!((claimed.bundles.len(), claimed.lists.len()), (1, 1));
    assert!(claimed.bundles[0].one_time_prekey.is_some(), "the one that was taken");
    let state: PrekeyState = node.get(OWN, &ada.token).await.ok(200);
    assert_eq!(state.one_time, 4);
    node.stop().await;
}

#[tokio::test]
async fn a_mismatch_brings_as_many_bundles_as_the_rate_allows() {
    let node = TestNode::start_with(|config| config.limits.claims_per_claimer_per_minute = 1).await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let eve = TestDevice::register(&node, "eve").await;
    let group = ada.group_with(&node, &[bob.member(Role::Member), eve.member(Role::Member)]);
    let path = TestDevice::messages_path(&ada.create(&node, &group).await.conversation_id);
    let alone = ada.message(1, &[]);
    let problem = node.post(&path, &ada.token, &alone).await.refused(Code::Mismatch);
    let mismatch = problem.mismatch.expect("a mismatch");
    assert_eq!((mismatch.missing.len(), mismatch.stale.len(), mismatch.lists.len()), (1, 2, 2));

    // The rest has to wait, and is told for how long.
    let answer = node.post(&path, &ada.token, &alone).await;
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=61).contains(&seconds)));
    let problem = answer.refused(Code::RateLimited);
    assert!(problem.retry_after_ms.is_some_and(|ms| (1..=60_001).contains(&ms)));
    node.clock.advance(Duration::from_secs(60));
    let second = if mismatch.missing[0].device_id == bob.device_id { [&bob, &eve] } else { [&eve, &bob] };
    let further = ada.message(1, &second[..1]);
    let problem = node.post(&path, &ada.token, &further).await.refused(Code::Mismatch);
    assert!(bundle_of(&problem.mismatch.expect("a mismatch").missing, second[1]).is_some());
    node.stop().await;
}
