//! What every route has in common: problem details, request ids, body limits, content types; and the description of it all.

use std::collections::BTreeSet;

use martlet_protocol::{id::ConversationId, problem::Code};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Answer, TestDevice, TestNode, draw_account};

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems() {
    let node = TestNode::start().await;
    for path in ["/", "/v1", "/v1/nothing", "/v2/devices", "/v1/devices/self", "/health/x", "/docs/nothing"] {
        println!("{path}");
        let answer = node.get(path, "").await;
        let expected = if path == "/v1/devices/self" { Code::MethodNotAllowed } else { Code::NotFound };
        answer.refused(expected);
    }
    for (method, path) in [(Method::PUT, "/v1/accounts"), (Method::DELETE, "/v1/devices"), (Method::POST, "/health")] {
        node.refuses(node.request(method, path, ""), Code::MethodNotAllowed).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn bodies_that_are_no_json_are_problems() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let rename = format!("/v1/devices/{}", ada.device_id.to_text());
    let routes = [
        (Method::POST, "/v1/accounts", ""),
        (Method::POST, "/v1/sessions", ""),
        (Method::POST, "/v1/links", ""),
        (Method::POST, "/v1/devices/revoke", ada.token.as_str()),
        (Method::POST, "/v1/devices/self/prekeys", ada.token.as_str()),
        (Method::POST, "/v1/bundles", ada.token.as_str()),
        (Method::POST, "/v1/conversations", ada.token.as_str()),
        (Method::PATCH, rename.as_str(), ada.token.as_str()),
    ];
    for (method, path, token) in routes {
        println!("{path}");
        let json = || node.request(method.clone(), path, token).header("content-type", "application/json");
        node.refuses(json().body("{\"username\": \"a"), Code::Malformed).await;
        node.refuses(json().body("\"text\""), Code::Malformed).await;
        node.refuses(json().body("\u{0}"), Code::Malformed).await;
        node.refuses(json(), Code::Malformed).await;
        let text = node.request(method.clone(), path, token).header("content-type", "text/plain").body("{}");
        node.refuses(text, Code::Malformed).await;
        node.refuses(node.request(method.clone(), path, token).body("{}"), Code::Malformed).await;
        node.refuses_announced(&method, path, token, 2 << 20).await;
    }
    node.stop().await;
}

/// A proxy that has written a whole body must be able to read the refusal: a reset makes the node look like one that failed.
#[tokio::test]
async fn a_refusal_that_reads_no_body_leaves_the_connection_whole() {
    for (rate, code, status) in [(0, "unauthenticated", 401), (1, "rate_limited", 429)] {
        let node = TestNode::start_with(|config| {
            config.limits.requests_per_address_per_second = rate;
            config.limits.requests_per_address_burst = rate;
        })
        .await;
        // The one that the rate allows.
        node.get("/v1/nowhere", "").await;
        refused_with_its_body(&node, code, status).await;
        node.stop().await;
    }
}

async fn refused_with_its_body(node: &TestNode, code: &str, status: u16) {
    let body = "x".repeat(3 << 20);
    let request = format!(
        "POST /v1/conversations/{}/messages HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        ConversationId::new([7; 32]).to_text(),
        body.len()
    );
    let mut stream = TcpStream::connect(node.running().public).await.expect("a connection");
    for round in 0..5 {
        stream.write_all(request.as_bytes()).await.unwrap_or_else(|error| panic!("written in round {round}: {error}"));
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(&format!("\"{code}\"")) {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert_ne!(read, 0, "closed in round {round} after {}", String::from_utf8_lossy(&answer));
        }
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn fields_of_wrong_form_are_problems() {
    let node = TestNode::start().await;
    let (request, _) = draw_account(&node, "ada");
    for (pointer, value) in [
        ("/device_list/list", "not base64!"),
        ("/device_list/signatures/0/device_id", "AAAA"),
        ("/device_list/signatures/0/signature", "AAAA"),
        ("/prekeys/signed_prekey/kind", "third"),
        ("/prekeys/signed_prekey/key_id", "-1"),
        ("/prekeys/one_time_prekeys/0/public_key", "AAAA"),
    ] {
        let mut json = serde_json::to_value(&request).expect("JSON");
        *json.pointer_mut(pointer).expect("a field") = value.into();
        let problem = node.refuses_post("/v1/accounts", "", &json, Code::Malformed).await;
        assert!(!problem.detail.is_empty(), "says what is wrong");
        json.pointer_mut(pointer).expect("a field").take();
        node.refuses_post("/v1/accounts", "", &json, Code::Malformed).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn every_answer_has_its_own_request_id_and_stays_out_of_caches() {
    let node = TestNode::start().await;
    let mut ids = BTreeSet::new();
    for path in ["/health", "/health", "/nothing", "/v1/devices"] {
        let request = node.request(Method::GET, path, "").header("x-request-id", "mine");
        let answer = Answer::of(request).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(ids.insert(answer.header("x-request-id")));
    }
    assert!(!ids.contains("mine") && !ids.contains(""));
    node.stop().await;
}

#[tokio::test]
async fn requests_per_device_are_limited() {
    let node = TestNode::start_with(|config| config.limits.requests_per_device_per_minute = 2).await;
    let ada = TestDevice::register(&node, "ada").await;
    let bob = TestDevice::register(&node, "bob").await;
    for path in ["/v1/devices", "/v1/conversations"] {
        assert!(node.get(path, &ada.token).await.status.is_success());
    }
    node.refuses_post("/v1/socket-tickets", &ada.token, &(), Code::RateLimited).await;
    assert!(node.get("/v1/devices", &bob.token).await.status.is_success());
    node.stop().await;
}

#[tokio::test]
async fn the_node_says_how_it_is() {
    let node = TestNode::start().await;
    assert_eq!(node.get("/health", "").await.json(), serde_json::json!({ "status": "ok" }));
    node.stop().await;
}

#[tokio::test]
async fn the_description_has_every_route_and_the_pages_are_served() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let description = node.get("/openapi.json", "").await.json();
    let paths = description["paths"].as_object().expect("paths");
    let mut described = 0;
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            described += 1;
            let asked = path.replace("{username}", "nobody").replace("{", "").replace("}", "");
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = Answer::of(node.request(method.clone(), &asked, &ada.token)).await;
            assert!(![405, 500].contains(&answer.status.as_u16()), "{method} {path} is described but not served");
            assert!(!answer.body.contains("no such address"), "{method} {path} is described but not served");
        }
    }
    assert_eq!(described, 31, "a route was added or removed: describe it, and count it here");
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    assert!(schemas.contains_key("Problem") && schemas.contains_key("RegisterRequest"));
    let page = node.get("/docs/", "").await;
    assert!(page.status.is_success() && page.body.contains("swagger"), "{}", page.body);
    assert!(node.get("/docs", "").await.status.is_success(), "the short address leads there");
    node.stop().await;
}
