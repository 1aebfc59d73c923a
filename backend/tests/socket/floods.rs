//! Floods: what comes too often is refused before it costs anything, and told when to come back.

use std::time::Duration;

use martlet_protocol::{
    problem::close,
    wire::{self, client_frame, node_frame::Frame},
};

use crate::{
    client::{Client, HANDSHAKE, PROTO, Raw, masked},
    harness::TestDevice,
    world::World,
};

/// Asks for a socket with these lines beside the usual ones; the whole answer's head.
async fn ask(world: &World, device: Option<&TestDevice>, more: &[&str]) -> (Raw, String) {
    let bearer = device
        .map_or("authorization: Bearer mt_none".to_owned(), |device| format!("authorization: Bearer {}", device.token));
    let offer = format!("sec-websocket-protocol: {PROTO}");
    let headers = [&HANDSHAKE[..], &[&offer, &bearer], more].concat();
    Raw::ask(&world.node, "GET /v1/socket", &headers, b"").await
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn too_many_frames_close_the_socket() {
    let world = World::with(|config| {
        config.limits.frames_per_socket_per_second = 1;
        config.limits.frames_burst = 20;
    })
    .await;
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    bob.resume(&hello, None).await;
    bob.until_caught_up().await;
    for _ in 0..30 {
        let ids = Vec::new();
        bob.send(client_frame::Frame::Unsubscribe(wire::Unsubscribe { conversation_ids: ids })).await;
    }
    let mut answered = 0;
    let code = loop {
        match bob.message().await {
            tokio_tungstenite::tungstenite::Message::Close(Some(frame)) => break u16::from(frame.code),
            _ => answered += 1,
        }
    };
    assert_eq!(code, close::RATE_LIMITED);
    assert!(answered < 20, "{answered}");
    let mut raw = Raw::connect(&world.node, &world.alice, PROTO, b"").await;
    raw.write(&masked(0x89, b"ping").repeat(40)).await;
    loop {
        let (first, payload) = raw.frame().await;
        if first == 0x88 {
            assert_eq!(payload, close::RATE_LIMITED.to_be_bytes(), "pings count too");
            break;
        }
        assert_eq!(first, 0x8a, "a pong");
    }
    world.node.stop().await;
}

#[tokio::test]
async fn a_node_that_is_asked_for_too_many_sockets_says_so_before_it_looks_at_anybody() {
    let world = World::with(|config| config.limits.connections_per_second = 2).await;
    let mut heads = Vec::new();
    for _ in 0..6 {
        heads.push(ask(&world, None, &[]).await.1);
    }
    let refused: Vec<_> = heads.iter().filter(|head| status(head) == 503).collect();
    assert!(refused.len() >= 3, "{heads:?}");
    assert!(refused.iter().all(|head| head.contains("retry-after: 1\r\n")), "{heads:?}");
    assert!(heads.iter().any(|head| status(head) == 401), "the first were looked at: {heads:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&ask(&world, Some(&world.alice), &[]).await.1), 101, "the time named is enough");
    world.node.stop().await;
}

#[tokio::test]
async fn sockets_are_counted_by_address_and_by_device() {
    let world = World::with(|config| {
        config.limits.trust_forwarded_for = true;
        config.limits.connections_per_address_per_second = 1;
        config.limits.connections_per_address_burst = 3;
        config.limits.connections_per_device_per_minute = 4;
    })
    .await;
    let from = |last: u8| format!("x-forwarded-for: 10.0.0.1, 192.0.2.{last}");
    let mut kept = Vec::new();
    for expected in [101, 101, 101, 429] {
        let (raw, head) = ask(&world, Some(&world.alice), &[&from(1)]).await;
        assert_eq!(status(&head), expected, "{head}");
        kept.push(raw);
    }
    let (raw, head) = ask(&world, Some(&world.bob), &[&from(2)]).await;
    assert_eq!(status(&head), 101, "another address: {head}");
    kept.push(raw);
    assert_eq!(status(&ask(&world, Some(&world.alice), &[&from(3)]).await.1), 101, "her fourth");
    let (mut raw, head) = ask(&world, Some(&world.alice), &[&from(4)]).await;
    assert_eq!(status(&head), 429, "a fifth, from wherever: {head}");
    assert!(head.contains("retry-after: ") && raw.rest().await.contains("\"code\":\"rate_limited\""), "{head}");
    world.node.stop().await;
}

#[tokio::test]
async fn an_account_can_not_send_more_by_its_rate_and_is_told_when_it_may() {
    let world = World::with(|config| {
        config.limits.sends_per_account_per_second = 1;
        config.limits.sends_per_account_burst = 5;
    })
    .await;
    let (mut alice, hello) = Client::connect(&world.node, &world.alice, PROTO).await;
    alice.resume(&hello, None).await;
    alice.until_caught_up().await;
    for _ in 0..8 {
        alice.send(client_frame::Frame::Send(world.message(10))).await;
    }
    let (mut accepted, mut refused) = (0, 0);
    while accepted + refused < 8 {
        match alice.frame().await {
            Frame::Accepted(_) => accepted += 1,
            Frame::Problem(problem) => {
                assert_eq!(problem.code, "rate_limited");
                assert!(problem.retry_after_ms > 0);
                refused += 1;
            }
            _ => {}
        }
    }
    assert!((5..=6).contains(&accepted), "{accepted}");
    world.node.stop().await;
}
