//! The way onto the socket: tokens, tickets, and what is refused before the upgrade. Frames are tested beside `transport`.

use std::time::Duration;

use martlet_protocol::{problem::Code, rest::SocketTicket};
use reqwest::{Method, RequestBuilder};

use crate::harness::{Answer, TestDevice, TestNode, eventually};

fn upgrade(request: RequestBuilder) -> RequestBuilder {
    request
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "martlet.v1.json")
}

async fn opens(request: RequestBuilder) -> bool {
    // The connection is dropped with the answer.
    upgrade(request).send().await.expect("an answer").status() == 101
}

async fn ticket(node: &TestNode, device: &TestDevice) -> String {
    let ticket: SocketTicket = node.post("/v1/socket-tickets", &device.token, &()).await.ok(201);
    format!("/v1/socket?ticket={}", ticket.ticket)
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let path = ticket(&node, &ada).await;
    assert!(opens(node.request(Method::GET, &path, "")).await);
    node.refuses(upgrade(node.request(Method::GET, &path, "")), Code::TicketInvalid).await;
    let late = ticket(&node, &ada).await;
    node.clock.advance(Duration::from_secs(30));
    let answer = Answer::of(upgrade(node.request(Method::GET, &late, ""))).await;
    answer.refused(Code::TicketInvalid);
    node.stop().await;
}

#[tokio::test]
async fn a_ticket_of_a_revoked_device_opens_nothing() {
    let node = TestNode::start().await;
    let mut ada = TestDevice::register(&node, "ada").await;
    let phone = ada.link(&node).await;
    let path = ticket(&node, &phone).await;
    let revoke = serde_json::json!({ "device_list": ada.list_without(&[phone.device_id], node.now_ms()) });
    node.post("/v1/devices/revoke", &ada.token, &revoke).await.done();
    node.refuses(upgrade(node.request(Method::GET, &path, "")), Code::TicketInvalid).await;
    node.stop().await;
}

/// No route suspends a device yet, so the store says it.
#[tokio::test]
async fn a_ticket_of_a_suspended_device_opens_nothing() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let path = ticket(&node, &ada).await;
    node.store().execute("UPDATE devices SET status = 1");
    let answer = Answer::of(upgrade(node.request(Method::GET, &path, ""))).await;
    answer.refused(Code::TicketInvalid);
    node.stop().await;
}

#[tokio::test]
async fn a_token_opens_a_socket_and_nothing_else_does() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    assert!(opens(node.request(Method::GET, "/v1/socket", &ada.token)).await);
    eventually("the dropped connection is noticed", async || node.running().open_sockets() == 0).await;
    node.refuses(upgrade(node.request(Method::GET, "/v1/socket", "")), Code::Unauthenticated).await;
    node.refuses(upgrade(node.request(Method::GET, "/v1/socket", "mt_x")), Code::Unauthenticated).await;
    let wrong = format!("/v1/socket?ticket={}", ada.token);
    node.refuses(upgrade(node.request(Method::GET, &wrong, "")), Code::TicketInvalid).await;
    node.refuses(node.request(Method::GET, "/v1/socket", &ada.token), Code::Malformed).await;
    node.stop().await;
}
