//! Floods: what comes too often is refused before it costs anything, and told when to come back.

use std::time::Duration;

use martlet::clock::Clock;
use martlet_protocol::{
    problem::close,
    wire::{self, client_frame, node_frame::Frame},
};
use prost::Message as _;

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

/// What a client may write, one frame of each kind.
fn frames_of_each_kind(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let message = |frame| wire::ClientFrame { r#ref: 1, frame: Some(frame) }.encode_to_vec();
    let whole = |frame| masked(0x82, &message(frame));
    let logs = || vec![wire::LogCursor { conversation_id: vec![7; 32].into(), cursor: None }];
    vec![
        ("resume", whole(client_frame::Frame::Resume(wire::Resume { mailbox: None }))),
        ("ack", whole(client_frame::Frame::Ack(wire::Ack { mailbox: Some(wire::Cursor { epoch: 1, seq: 0 }) }))),
        ("send", whole(client_frame::Frame::Send(world.message(10)))),
        ("ephemeral", whole(client_frame::Frame::SendEphemeral(world.message(10)))),
        ("subscribe", whole(client_frame::Frame::Subscribe(wire::Subscribe { logs: logs() }))),
        ("unsubscribe", whole(client_frame::Frame::Unsubscribe(wire::Unsubscribe { conversation_ids: Vec::new() }))),
        ("ping", masked(0x89, b"ping")),
        ("pong", masked(0x8a, b"")),
        // The first begins a message; empty parts of it could come for ever.
        ("fragment", masked(0x00, b"")),
    ]
}

#[tokio::test]
async fn each_kind_of_frame_is_counted_by_socket_account_and_address() {
    const BURST: u32 = 20;
    type Rates = fn(&mut martlet::config::Limits) -> [&mut u32; 2];
    let rates: [(&str, Rates); 3] = [
        ("socket", |limits| [&mut limits.frames_per_socket_per_second, &mut limits.frames_burst]),
        ("account", |limits| [&mut limits.frames_per_account_per_second, &mut limits.frames_per_account_burst]),
        ("address", |limits| [&mut limits.frames_per_address_per_second, &mut limits.frames_per_address_burst]),
    ];
    for (of, rate) in rates {
        let clock = Clock::manual(1_700_000_000_000);
        let world = World::at(clock.clone(), |config| {
            let [rate, burst] = rate(&mut config.limits);
            (*rate, *burst) = (1, BURST);
        })
        .await;
        for (kind, frame) in frames_of_each_kind(&world) {
            let mut raw = Raw::connect(&world.node, &world.alice, PROTO, b"").await;
            let begun = if kind == "fragment" { masked(0x02, b"x") } else { Vec::new() };
            raw.write(&[begun, frame.repeat(BURST as usize + 5)].concat()).await;
            let code = loop {
                let (first, payload) = raw.frame().await;
                if first == 0x88 {
                    break u16::from_be_bytes([payload[0], payload[1]]);
                }
            };
            assert_eq!(code, close::RATE_LIMITED, "{kind}, by {of}");
            // What was spent comes back.
            clock.advance(Duration::from_secs(BURST.into()));
        }
        world.node.stop().await;
    }
}

#[tokio::test]
async fn one_address_can_not_use_up_the_sockets_of_all() {
    let world = World::at(Clock::manual(1_700_000_000_000), |config| {
        config.limits.trust_forwarded_for = true;
        config.limits.connections_per_second = 5;
        config.limits.connections_per_address_per_second = 1;
        config.limits.connections_per_address_burst = 2;
    })
    .await;
    let from = |last: u8| format!("x-forwarded-for: 192.0.2.{last}");
    for number in 0..20 {
        let expected = if number < 2 { 401 } else { 429 };
        assert_eq!(status(&ask(&world, None, &[&from(1)]).await.1), expected, "number {number}");
    }
    assert_eq!(status(&ask(&world, Some(&world.alice), &[&from(2)]).await.1), 101, "somebody else");
    world.node.stop().await;
}

#[tokio::test]
async fn an_accounts_sockets_count_as_its_requests() {
    let world =
        World::at(Clock::manual(1_700_000_000_000), |config| config.limits.requests_per_account_per_minute = 3).await;
    let mut kept = Vec::new();
    loop {
        let (raw, head) = ask(&world, Some(&world.alice), &[]).await;
        kept.push(raw);
        if status(&head) != 101 {
            assert_eq!(status(&head), 429, "{head}");
            break;
        }
    }
    // One request made the conversation.
    assert_eq!(kept.len(), 3);
    assert_eq!(status(&ask(&world, Some(&world.bob), &[]).await.1), 101, "another account");
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
