//! Input that no client of ours sends: bodies and ids that can't be read on the routes below an id, the token of a revoked device, and
//! requests that leave open where they end. None of it changes anything that is stored.

use std::{io, time::Duration};

use martlet_protocol::{
    chain::members::{MembershipChain, MembershipChange},
    id::Blob,
    problem::Code,
    rest::{
        Accepted, ChangeMembership, ClaimAccount, ClaimRequest, LinkAnswered, LinkPoll, LinkStart, LinkStarted,
        RenameRequest, Role, SetTitle,
    },
    wire,
};
use prost::Message as _;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Answer, TestDevice, TestNode, draw_account, store};

/// Over every limit of a body: the largest is that of messages, about 4 MiB.
const OVERSIZE: usize = 64 << 20;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// JSON pointers to fields that hold bytes.
type Bytes = &'static [&'static str];

/// Where bytes stand in a message, and in the completion of a link.
const BYTES_OF_MESSAGE: Bytes =
    &["/client_message_id", "/lists/0/account_id", "/content", "/forks/0/device_id", "/forks/0/header"];
const BYTES_OF_COMPLETION: Bytes = &[
    "/poll_secret",
    "/device_list/list",
    "/device_list/signatures/0/device_id",
    "/device_list/signatures/1/signature",
    "/prekeys/signed_prekey/public_key",
    "/prekeys/one_time_prekeys/0/signature",
];

/// A request below an id that is carried out unless something of it is spoiled.
struct Good {
    method: Method,
    collection: &'static str,
    id: String,
    rest: &'static str,
    token: String,
    body: Value,
    bytes: Bytes,
}

impl Good {
    fn path(&self) -> String {
        self.path_with(&self.id)
    }

    fn path_with(&self, id: &str) -> String {
        format!("{}/{id}{}", self.collection, self.rest)
    }

    fn request(&self, node: &TestNode, path: &str) -> RequestBuilder {
        node.request(self.method.clone(), path, &self.token)
    }

    fn with_body(&self, node: &TestNode, body: &Value) -> RequestBuilder {
        self.request(node, &self.path()).json(body)
    }

    fn spoiled(&self, pointer: &str, value: impl Into<Value>) -> Value {
        let mut body = self.body.clone();
        *body.pointer_mut(pointer).expect("a field") = value.into();
        body
    }
}

fn answered() -> LinkAnswered {
    let answer = wire::SealedLinkAnswer { enc: vec![1; 32].into(), ciphertext: vec![2; 64].into() };
    LinkAnswered { answer: Blob::from(answer.encode_to_vec()) }
}

fn json(body: &impl serde::Serialize) -> Value {
    serde_json::to_value(body).expect("JSON")
}

/// One for each route below an id that takes a body. They may be carried out in this order.
async fn good_requests(node: &TestNode) -> Vec<Good> {
    let ada = TestDevice::register(node, "ada").await;
    let bob = TestDevice::register(node, "bob").await;
    let eve = TestDevice::register(node, "eve").await;
    let create = ada.group_with(node, &[bob.member(Role::Member)]);
    let group = ada.create(node, &create).await.conversation_id.to_text();
    let chain = MembershipChain::create(&create.creation, |signer| ada.chain.signer_key(signer)).expect("a sound link");
    let add = vec![MembershipChange::Add(eve.member(Role::Member))];
    let change = ChangeMembership { link: chain.change(ada.signer(), add, node.now_ms()).sign(&ada.signing) };
    let offer = LinkStart { offer: ada.draw_sibling().offer() };
    let open: LinkStarted = node.post("/v1/links", "", &offer).await.ok(201);
    let link = ada.answer_link(node).await;

    let of_group = |method: Method, rest: &'static str, body: Value, bytes: Bytes| {
        let (id, token) = (group.clone(), ada.token.clone());
        Good { method, collection: "/v1/conversations", id, rest, token, body, bytes }
    };
    let of_link = |method: Method, id: &str, rest: &'static str, token: &str, body: Value, bytes: Bytes| {
        let (id, token) = (id.to_owned(), token.to_owned());
        Good { method, collection: "/v1/links", id, rest, token, body, bytes }
    };
    let (open_id, link_id) = (open.link_id.to_text(), link.link_id.to_text());
    let poll = LinkPoll { poll_secret: link.complete.poll_secret.clone() };
    vec![
        of_group(Method::POST, "/messages", json(&ada.message(1, &[&bob])), BYTES_OF_MESSAGE),
        of_group(Method::PUT, "/title", json(&SetTitle { title: Blob::from(vec![1; 40]) }), &["/title"]),
        of_group(Method::POST, "/membership", json(&change), &["/link/link", "/link/signature"]),
        of_link(Method::PUT, &open_id, "/answer", &ada.token, json(&answered()), &["/answer"]),
        of_link(Method::POST, &link_id, "/poll", "", json(&poll), &["/poll_secret"]),
        of_link(Method::POST, &link_id, "/complete", "", json(&link.complete), BYTES_OF_COMPLETION),
    ]
}

#[tokio::test]
async fn bodies_below_an_id_that_are_no_json_are_problems() {
    let node = TestNode::start().await;
    for good in good_requests(&node).await {
        let path = good.path();
        println!("{path}");
        let json = || good.request(&node, &path).header("content-type", "application/json");
        let whole = good.body.to_string();
        node.refuses(json().body(whole[..whole.len() - 1].to_owned()), Code::Malformed).await;
        node.refuses(json().body(format!("{whole}}}")), Code::Malformed).await;
        node.refuses(json().body("\"text\""), Code::Malformed).await;
        node.refuses(json().body("{}"), Code::Malformed).await;
        node.refuses(json().body("\u{0}"), Code::Malformed).await;
        node.refuses(json(), Code::Malformed).await;
        let text = good.request(&node, &path).header("content-type", "text/plain").body(whole.clone());
        node.refuses(text, Code::Malformed).await;
        node.refuses(good.request(&node, &path).body(whole), Code::Malformed).await;
        node.refuses_announced(&good.method, &path, &good.token, OVERSIZE).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn bytes_below_an_id_that_are_no_base64_are_problems() {
    let node = TestNode::start().await;
    for good in good_requests(&node).await {
        for pointer in good.bytes {
            println!("{} {pointer}", good.path());
            // A secret is compared as the text that it is: one of wrong form is a wrong one.
            let code = if *pointer == "/poll_secret" { Code::NotFound } else { Code::Malformed };
            node.refuses(good.with_body(&node, &good.spoiled(pointer, "not base64!")), code).await;
            node.refuses(good.with_body(&node, &good.spoiled(pointer, 7)), Code::Malformed).await;
            node.refuses(good.with_body(&node, &good.spoiled(pointer, Value::Null)), Code::Malformed).await;
        }
        let answer = Answer::of(good.with_body(&node, &good.body)).await;
        assert!(answer.status.is_success(), "{} is carried out when nothing is spoiled: {}", good.path(), answer.body);
    }
    node.stop().await;
}

#[tokio::test]
async fn paths_whose_id_is_none_are_problems() {
    let node = TestNode::start().await;
    for good in good_requests(&node).await {
        for id in ["short", "AAAA", "not-base64!", &format!("{}AAAA", good.id)] {
            println!("{}", good.path_with(id));
            node.refuses(good.request(&node, &good.path_with(id)).json(&good.body), Code::Malformed).await;
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_revoked_devices_token_writes_nothing_and_opens_no_socket() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let mut phone = ada.link(&node).await;
    let bob = TestDevice::register(&node, "bob").await;
    let group = ada.create(&node, &ada.group_with(&node, &[bob.member(Role::Member)])).await.conversation_id;
    let messages = TestDevice::messages_path(&group);
    let offer = LinkStart { offer: ada.draw_sibling().offer() };
    let open: LinkStarted = node.post("/v1/links", "", &offer).await.ok(201);
    let message = phone.message(1, &[&ada, &bob]);
    let _: Accepted = node.post(&messages, &phone.token, &message).await.ok(200);
    let revoke = serde_json::json!({ "device_list": ada.list_without(&[phone.device_id], node.now_ms()) });
    node.post("/v1/devices/revoke", &ada.token, &revoke).await.done();

    let prekeys = phone.prekeys(&node, 3);
    let ask = |method: Method, path: &str| node.request(method, path, &phone.token);
    let rename = format!("/v1/devices/{}", phone.device_id.to_text());
    let title = format!("/v1/conversations/{}/title", group.to_text());
    let answer = format!("/v1/links/{}/answer", open.link_id.to_text());
    let account = ClaimAccount { account_id: bob.account_id, known_n: 1, device_ids: Vec::new() };
    let back = serde_json::json!({ "device_list": phone.list_without(&[ada.device_id], node.now_ms()) });
    let socket = ask(Method::GET, "/v1/socket")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "martlet.v1.proto");
    for (what, request) in [
        ("a send", ask(Method::POST, &messages).json(&phone.message(1, &[&ada, &bob]))),
        ("a retry of what was accepted", ask(Method::POST, &messages).json(&message)),
        ("prekeys", ask(Method::POST, "/v1/devices/self/prekeys").json(&prekeys)),
        ("a claim", ask(Method::POST, "/v1/bundles").json(&ClaimRequest { accounts: vec![account] })),
        ("a conversation", ask(Method::POST, "/v1/conversations").json(&phone.direct_with(&node, &bob))),
        ("a title", ask(Method::PUT, &title).json(&SetTitle { title: Blob::from(vec![1; 40]) })),
        ("its name", ask(Method::PATCH, &rename).json(&RenameRequest { name: "back".to_owned() })),
        ("a revocation", ask(Method::POST, "/v1/devices/revoke").json(&back)),
        ("a link's answer", ask(Method::PUT, &answer).json(&answered())),
        ("a token", ask(Method::POST, "/v1/tokens/rotate").json(&())),
        ("a ticket", ask(Method::POST, "/v1/socket-tickets").json(&())),
        ("signing out", ask(Method::DELETE, "/v1/sessions/current")),
        ("a socket", socket),
    ] {
        println!("{what}");
        node.refuses(request, Code::Unauthenticated).await;
    }
    assert_eq!(node.running().open_sockets(), 0);
    node.stop().await;
}

/// Writes these bytes and reads until the node closes the connection. A reset is an end too: the node need not read what it refuses.
async fn exchange(node: &TestNode, bytes: &str) -> String {
    let mut stream = TcpStream::connect(node.running().public).await.expect("a connection");
    stream.write_all(bytes.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the node closes the connection");
    if let Err(error) = end {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request by two lengths ends in two places: a proxy in front and the node might choose differently, and what the proxy let pass as
/// a body would be a request of its own here (RFC 9112, section 11.2).
#[tokio::test]
async fn a_request_that_ends_in_two_places_smuggles_no_other() {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let node = TestNode::start().await;
    let (register, _) = draw_account(&node, "mallory");
    let register = json(&register).to_string();
    let smuggled = format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{register}",
        register.len()
    );
    // The request in front is one that is carried out, so that what refuses it is its lengths.
    let request = |lengths: &str, body: &str| format!("GET /health HTTP/1.1\r\nhost: node\r\n{lengths}\r\n{body}");
    let length = |bytes: usize| format!("content-length: {bytes}\r\n");
    let size = format!("{:x}\r\n", smuggled.len());
    let ends_early = format!("0\r\n\r\n{smuggled}");
    let one_chunk = format!("{size}{smuggled}\r\n0\r\n\r\n");
    let two = format!("{{}}{smuggled}");
    let cases = [
        ("the chunks end early", format!("{}{CHUNKED}", length(ends_early.len())), &ends_early),
        ("the same in the other order", format!("{CHUNKED}{}", length(ends_early.len())), &ends_early),
        ("the length ends early", format!("{}{CHUNKED}", length(size.len())), &one_chunk),
        ("the same in the other order", format!("{CHUNKED}{}", length(size.len())), &one_chunk),
        ("the first of two lengths is less", format!("{}{}", length(2), length(two.len())), &two),
        ("the second of two lengths is less", format!("{}{}", length(two.len()), length(2)), &two),
        ("two lengths in one line", format!("content-length: 2, {}\r\n", two.len()), &two),
    ];
    for (what, lengths, body) in cases {
        let before = node.store().read();
        let answer = exchange(&node, &request(&lengths, body)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        store::assert_same(&before, &node.store().read());
    }
    // With one length they are two requests, and both are carried out: nothing but the lengths has kept the second away.
    let answer = exchange(&node, &request(&length(2), &two)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 201 "), "{answer}");
    assert_eq!(node.count("accounts", "username = 'mallory'"), 1);
    node.stop().await;
}
