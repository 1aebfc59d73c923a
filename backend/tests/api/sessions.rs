//! `POST /v1/sessions`, `DELETE /v1/sessions/current`, `POST /v1/tokens/rotate`, `POST /v1/socket-tickets`.

use std::time::Duration;

use martlet_protocol::{
    crypto::{SigningKey, sign_in_proof},
    id::{DeviceId, Signature},
    problem::Code,
    rest::{DeviceSession, OwnDevices, SignInRequest, SocketTicket},
};

use crate::harness::{Answer, PASSWORD, TestDevice, TestNode};

fn sign_in(node: &TestNode, device: &TestDevice) -> SignInRequest {
    device.sign_in(node)
}

async fn serves(node: &TestNode, token: &str) -> bool {
    node.get("/v1/devices", token).await.status == 200
}

#[tokio::test]
async fn a_listed_device_signs_in_again_and_its_old_token_ends() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let session: DeviceSession = node.post("/v1/sessions", "", &sign_in(&node, &ada)).await.ok(201);
    assert_eq!((session.account_id, session.device_id), (ada.account_id, ada.device_id));
    assert!(serves(&node, &session.token).await);
    assert!(!serves(&node, &ada.token).await);
    // An answer that got lost is asked for again.
    let again: DeviceSession = node.post("/v1/sessions", "", &sign_in(&node, &ada)).await.ok(201);
    assert!(serves(&node, &again.token).await);
    assert_eq!(node.count("tokens", "1 = 1"), 1);
    node.stop().await;
}

#[tokio::test]
async fn whatever_is_wrong_gets_one_answer_after_one_verification() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    let good = sign_in(&node, &ada);
    let signed = |username: &str, device_id: DeviceId, at_ms: u64, key: &SigningKey| SignInRequest {
        username: username.to_owned(),
        device_id,
        signed_at_ms: at_ms,
        proof: sign_in_proof(username, &device_id, at_ms, key),
        ..good.clone()
    };
    let late = node.now_ms() - 5 * 60 * 1000 - 1;
    let unknown = DeviceId::new([3; 16]);
    let cases = [
        ("wrong password", SignInRequest { password: "wrong horse battery".to_owned(), ..good.clone() }),
        ("a password that can't be", SignInRequest { password: String::new(), ..good.clone() }),
        ("unknown name", signed("nobody", ada.device_id, good.signed_at_ms, &ada.signing)),
        ("a name that can't be", signed("N!", ada.device_id, good.signed_at_ms, &ada.signing)),
        ("unknown device", signed("ada", unknown, good.signed_at_ms, &ada.signing)),
        ("another account's device", signed("ada", bob.device_id, good.signed_at_ms, &bob.signing)),
        ("another device's proof", signed("ada", ada.device_id, good.signed_at_ms, &bob.signing)),
        ("a proof that is none", SignInRequest { proof: Signature::new([0; 64]), ..good.clone() }),
        ("an old proof", signed("ada", ada.device_id, late, &ada.signing)),
    ];
    let mut first: Option<String> = None;
    for (what, request) in cases {
        println!("{what}");
        let before = node.password_verifications();
        let problem = node.refuses_post("/v1/sessions", "", &request, Code::WrongCredentials).await;
        assert_eq!(node.password_verifications() - before, 1, "one password verification, whatever is wrong");
        let body = serde_json::to_string(&problem).expect("JSON").replace(&problem.request_id, "");
        assert_eq!(*first.get_or_insert_with(|| body.clone()), body, "one answer, whatever is wrong");
    }
    assert!(serves(&node, &ada.token).await);
    node.stop().await;
}

#[tokio::test]
async fn a_revoked_device_can_not_sign_in() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let revoke = serde_json::json!({ "device_list": ada.list_without(&[phone.device_id], node.now_ms()) });
    node.post("/v1/devices/revoke", &ada.token, &revoke).await.done();
    node.refuses_post("/v1/sessions", "", &sign_in(&node, &phone), Code::WrongCredentials).await;
    node.stop().await;
}

#[tokio::test]
async fn sign_ins_per_address_are_limited() {
    let node = TestNode::start_with(|config| config.limits.sign_ins_per_address_per_minute = 2).await;
    let ada = TestDevice::register(&node, "ada").await;
    let wrong = SignInRequest { password: "wrong horse battery".to_owned(), ..sign_in(&node, &ada) };
    for _ in 0..2 {
        node.refuses_post("/v1/sessions", "", &wrong, Code::WrongCredentials).await;
    }
    let before = node.password_verifications();
    let answer = node.post("/v1/sessions", "", &sign_in(&node, &ada)).await;
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    answer.refused(Code::RateLimited);
    assert_eq!(node.password_verifications(), before, "no work for whoever is over the rate");
    node.clock.advance(Duration::from_secs(60));
    let _: DeviceSession = node.post("/v1/sessions", "", &sign_in(&node, &ada)).await.ok(201);
    node.stop().await;
}

#[tokio::test]
async fn sign_ins_are_limited_by_the_account_whoever_tries() {
    let node = TestNode::start_with(|config| {
        config.limits.sign_ins_per_account_per_minute = 2;
        config.limits.trust_forwarded_for = true;
    })
    .await;
    let ada = TestDevice::register(&node, "ada").await;
    let wrong = SignInRequest { password: "wrong horse battery".to_owned(), ..sign_in(&node, &ada) };
    let from = |address: &str, request: &SignInRequest| {
        let request = node.request(reqwest::Method::POST, "/v1/sessions", "").json(request);
        Answer::of(request.header("x-forwarded-for", address))
    };
    for address in ["192.0.2.1", "192.0.2.2"] {
        from(address, &wrong).await.refused(Code::WrongCredentials);
    }
    let before = node.password_verifications();
    from("192.0.2.3", &wrong).await.refused(Code::RateLimited);
    assert_eq!(node.password_verifications(), before, "a refusal costs no password hash");
    let nobody = SignInRequest { username: "nobody".to_owned(), ..wrong };
    from("192.0.2.3", &nobody).await.refused(Code::WrongCredentials);
    node.stop().await;
}

#[tokio::test]
async fn every_request_of_an_address_is_counted_and_over_the_rate_nothing_is_looked_at() {
    let node = TestNode::start_with(|config| {
        config.limits.requests_per_address_per_second = 1;
        config.limits.requests_per_address_burst = 5;
    })
    .await;
    let paths = ["/v1/nowhere", "/v1/conversations", "/openapi.json", "/v1/mailbox", "/v1/devices"];
    for path in paths {
        assert_ne!(node.get(path, "").await.status, 429, "{path}");
    }
    for path in paths {
        let answer = node.get(path, "").await;
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=2).contains(&seconds)));
        answer.refused(Code::RateLimited);
    }
    for path in ["/health", "/ready"] {
        assert!(node.get(path, "").await.status.is_success(), "whoever asks how the node is gets an answer: {path}");
    }
    node.clock.advance(Duration::from_secs(2));
    node.get("/v1/conversations", "").await.refused(Code::Unauthenticated);
    node.stop().await;
}

#[tokio::test]
async fn an_address_is_believed_only_from_a_trusted_proxy() {
    for (trusted, second) in [(false, Code::RateLimited), (true, Code::WrongCredentials)] {
        let node = TestNode::start_with(|config| {
            config.limits.sign_ins_per_address_per_minute = 1;
            config.limits.trust_forwarded_for = trusted;
        })
        .await;
        let ada = TestDevice::register(&node, "ada").await;
        let wrong = SignInRequest { password: "wrong horse battery".to_owned(), ..sign_in(&node, &ada) };
        let from = |address: &str| {
            let request = node.request(reqwest::Method::POST, "/v1/sessions", "").json(&wrong);
            Answer::of(request.header("x-forwarded-for", address))
        };
        from("192.0.2.1").await.refused(Code::WrongCredentials);
        from("192.0.2.2").await.refused(second);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_rotated_token_serves_until_its_successor_is_used() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let rotated: DeviceSession = node.post("/v1/tokens/rotate", &ada.token, &()).await.ok(200);
    assert!(serves(&node, &ada.token).await, "the answer may have been lost");
    assert!(serves(&node, &rotated.token).await);
    assert!(!serves(&node, &ada.token).await);
    assert_eq!(node.count("tokens", "1 = 1"), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_rotated_token_ends_after_five_minutes_anyway() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    // Twice, as a device does that lost the first answer: the token nobody got is not kept.
    let lost: DeviceSession = node.post("/v1/tokens/rotate", &ada.token, &()).await.ok(200);
    let rotated: DeviceSession = node.post("/v1/tokens/rotate", &ada.token, &()).await.ok(200);
    assert_eq!(node.count("tokens", "1 = 1"), 2);
    node.clock.advance(Duration::from_secs(5 * 60 - 1));
    assert!(serves(&node, &ada.token).await);
    node.clock.advance(Duration::from_secs(1));
    assert!(!serves(&node, &ada.token).await);
    assert!(!serves(&node, &lost.token).await);
    assert!(serves(&node, &rotated.token).await);
    node.stop().await;
}

#[tokio::test]
async fn tokens_end() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    node.delete("/v1/sessions/current", &ada.token).await.done();
    node.get("/v1/devices", &ada.token).await.refused(Code::Unauthenticated);
    node.clock.advance(Duration::from_secs(90 * 24 * 60 * 60 - 1));
    assert!(serves(&node, &bob.token).await);
    node.clock.advance(Duration::from_secs(1));
    node.get("/v1/devices", &bob.token).await.refused(Code::Unauthenticated);
    node.stop().await;
}

#[tokio::test]
async fn only_tokens_authenticate() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let other = format!("mt_{}", "A".repeat(43));
    for token in ["mt_", "mt_AAAA", &ada.token[3..], &format!("{}x", ada.token), &other, &"x".repeat(5000)] {
        node.refuses(node.request(reqwest::Method::GET, "/v1/devices", token), Code::Unauthenticated).await;
    }
    let basic = node.request(reqwest::Method::GET, "/v1/devices", "").basic_auth("ada", Some(PASSWORD));
    let answer = Answer::of(basic).await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    answer.refused(Code::Unauthenticated);
    node.stop().await;
}

#[tokio::test]
async fn a_ticket_is_a_secret_of_its_own() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let ticket: SocketTicket = node.post("/v1/socket-tickets", &ada.token, &()).await.ok(201);
    assert_eq!(ticket.expires_at_ms, node.now_ms() + 30_000);
    assert_eq!(node.count("socket_tickets", "1 = 1"), 1);
    // It is no token.
    node.get("/v1/devices", &ticket.ticket).await.refused(Code::Unauthenticated);
    node.post("/v1/socket-tickets", "", &()).await.refused(Code::Unauthenticated);
    let own: OwnDevices = node.get("/v1/devices", &ada.token).await.ok(200);
    assert_eq!(own.devices.len(), 1);
    node.stop().await;
}
