//! How sockets end, and what is said before: replaced, revoked, silent, signed out, the node stopping. And hellos that come again.

use std::time::Duration;

use martlet_protocol::{
    problem::close,
    rest::{ClaimAccount, ClaimAnswer, ClaimRequest, RevokeRequest},
    wire::{client_frame, node_frame::Frame},
};
use tokio::time::{Instant, timeout};

use crate::{
    client::{Client, HANDSHAKE, PROTO, Raw},
    harness::eventually,
    world::World,
};

#[tokio::test]
async fn the_newest_socket_of_a_device_wins() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut older, _) = Client::resumed(&world.node, &world.bob, None).await;
    let (mut newer, _) = Client::resumed(&world.node, &world.bob, None).await;
    assert_eq!(older.close_code().await, close::REPLACED);
    drop(older);
    world.send_many(&mut alice, 1, 300).await;
    assert_eq!(newer.entry().await.seq, 1);
    eventually("the older one is gone", async || world.node.running().open_sockets() == 2).await;
    world.send_many(&mut alice, 1, 300).await;
    assert_eq!(newer.entry().await.seq, 2, "its end did not take the newer one along");
}

#[tokio::test]
async fn a_revoked_devices_socket_closes_within_a_second_and_gets_nothing_more() {
    let mut world = World::new().await;
    let gone = world.bob.link(&world.node).await;
    let (mut socket, _) = Client::resumed(&world.node, &gone, None).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    let device_list = world.bob.list_without(&[gone.device_id], world.node.now_ms());
    let revoked = Instant::now();
    let path = "/v1/devices/revoke";
    let answer = world.node.post(path, &world.bob.token, &RevokeRequest { device_list: device_list.clone() }).await;
    assert!(answer.status.is_success(), "{}", answer.body);
    world.bob.chain = world.bob.chain.extend(&device_list).expect("a sound list");
    // The list's change makes the hello come again first, or the socket closes before that.
    let code = loop {
        match socket.message().await {
            tokio_tungstenite::tungstenite::Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            _ => continue,
        }
    };
    assert_eq!(code, Some(close::DEVICE_ENDED));
    assert!(revoked.elapsed() < Duration::from_secs(1));
    assert!(matches!(bob.frame().await, Frame::Hello(hello) if hello.list_head.as_ref().map(|head| head.n) == Some(3)));
    let bearer = format!("authorization: Bearer {}", gone.token);
    let headers = [&HANDSHAKE[..], &["sec-websocket-protocol: martlet.v1.proto", &bearer]].concat();
    let (_, head) = Raw::ask(&world.node, "GET /v1/socket", &headers, b"").await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
}

#[tokio::test]
async fn signing_out_closes_the_socket_too() {
    let world = World::new().await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    world.node.delete("/v1/sessions/current", &world.bob.token).await.done();
    assert_eq!(bob.close_code().await, close::DEVICE_ENDED);
}

#[tokio::test]
async fn a_hello_comes_again_when_its_contents_change() {
    let mut world = World::new().await;
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    assert_eq!(hello.list_head.map(|head| head.n), Some(1));
    let _linked = world.bob.link(&world.node).await;
    assert!(matches!(bob.frame().await, Frame::Hello(hello) if hello.list_head.as_ref().map(|head| head.n) == Some(2)));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let world = World::with(|config| {
        config.socket.ping_interval = Duration::from_millis(300);
        config.socket.pong_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent = Raw::connect(&world.node, &world.bob, PROTO, b"").await;
    let (mut lively, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    // The library answers pings while it is read from.
    let lively = tokio::spawn(async move {
        assert!(timeout(Duration::from_secs(2), lively.message()).await.is_err(), "nothing but pings");
        lively
    });
    assert_eq!(silent.frame().await, (0x89, Vec::new()), "a ping");
    assert_eq!(silent.close_code().await, close::TIMED_OUT);
    let mut lively = lively.await.expect("no other message");
    lively.send(client_frame::Frame::Send(world.message(300))).await;
    assert!(matches!(lively.frame().await, Frame::Accepted(_)));
}

#[tokio::test]
async fn a_stopping_node_names_spread_out_times_to_come_back() {
    let mut world = World::new().await;
    let mut devices = vec![world.alice.link(&world.node).await, world.alice.link(&world.node).await];
    let mut clients = Vec::new();
    for device in devices.iter().chain([&world.bob]) {
        clients.push(Client::connect(&world.node, device, PROTO).await.0);
    }
    devices.clear();
    let window = world.node.running().services().config.server.drain_window;
    let stopping = tokio::spawn(world.node.stop());
    let mut delays = Vec::new();
    for client in &mut clients {
        let draining = loop {
            match client.frame().await {
                Frame::Draining(draining) => break draining,
                // Linking changed the account's list, of which a hello may tell late.
                Frame::Hello(_) => {}
                other => panic!("draining was expected, not {other:?}"),
            }
        };
        delays.push(draining.retry_after_ms);
        assert_eq!(client.close_code().await, close::GOING_AWAY);
    }
    assert!(delays.iter().all(|delay| u128::from(*delay) <= window.as_millis()), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert_eq!(delays.len(), 3, "not all at once");
    drop(clients);
    timeout(Duration::from_secs(10), stopping).await.expect("in time").expect("it stops");
}

#[tokio::test]
async fn sends_under_way_are_answered_before_the_node_stops() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(alice.send(client_frame::Frame::Send(world.message(300))).await);
    }
    // With the first answer it is known that the node has read them; what it has not read it can't answer.
    let mut first = 0;
    while first == 0 {
        first = alice.next().await.0;
    }
    waiting.retain(|reference| *reference != first);
    let stopping = tokio::spawn(world.node.stop());
    loop {
        match alice.message().await {
            tokio_tungstenite::tungstenite::Message::Binary(bytes) => {
                let frame = <martlet_protocol::wire::NodeFrame as prost::Message>::decode(bytes).expect("protobuf");
                waiting.retain(|reference| *reference != frame.r#ref);
            }
            tokio_tungstenite::tungstenite::Message::Close(_) => break,
            other => panic!("frames and then a close were expected, not {other:?}"),
        }
    }
    assert_eq!(waiting, [0; 0], "each was accepted or refused");
    drop(alice);
    timeout(Duration::from_secs(10), stopping).await.expect("in time").expect("it stops");
}

#[tokio::test]
async fn a_node_that_missed_control_entries_closes_all_sockets() {
    let world = World::new().await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    // As if so many had come and been swept while the node slept.
    world.node.store().execute("UPDATE control_heads SET head_seq = head_seq + 5");
    assert_eq!(bob.close_code().await, close::GOING_AWAY);
    drop(Client::resumed(&world.node, &world.bob, None).await);
}

#[tokio::test]
async fn a_store_that_is_another_one_than_before_closes_all_sockets() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    world.send_many(&mut alice, 3, 300).await;
    for seq in 1..=3 {
        assert_eq!(bob.entry().await.seq, seq);
    }
    world.node.store().execute("UPDATE store SET epoch = epoch + 1");
    assert_eq!(bob.close_code().await, close::GOING_AWAY);
    let (_bob, entries) = Client::resumed(&world.node, &world.bob, None).await;
    assert_eq!(entries.len(), 3, "what was not acknowledged is there by its new numbers");
}

#[tokio::test]
async fn a_hello_comes_again_when_claims_have_made_the_stock_low() {
    let world = World::with(|config| config.prekeys.low_water = 5).await;
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    assert!(!hello.prekeys.expect("a stock").low);
    let account = ClaimAccount { account_id: world.bob.account_id, known_n: 1, device_ids: Vec::new() };
    let request = ClaimRequest { accounts: vec![account] };
    let _: ClaimAnswer = world.node.post("/v1/bundles", &world.alice.token, &request).await.ok(200);
    assert!(matches!(bob.frame().await, Frame::Hello(hello) if hello.prekeys.as_ref().is_some_and(|stock| stock.low)));
}
