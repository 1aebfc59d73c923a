//! What is accepted arrives: in order, once, on either sub-protocol, however slow or absent the reader is.

use std::time::Duration;

use martlet_protocol::{
    problem::Code,
    wire::{client_frame, node_frame::Frame},
};
use tokio::net::TcpSocket;

use crate::{
    client::{Client, JSON, PROTO},
    world::World,
};

/// More than the default of `messages.inline_content_bytes`.
const LARGE: usize = 20_000;

fn seqs(frames: &[Frame]) -> Vec<u64> {
    let seq = |frame: &Frame| match frame {
        Frame::Entry(entry) => entry.seq,
        other => panic!("an entry was expected, not {other:?}"),
    };
    frames.iter().map(seq).collect()
}

#[tokio::test]
async fn both_subprotocols_deliver_and_answer() {
    for subprotocol in [PROTO, JSON] {
        let world = World::new().await;
        let (mut alice, hello) = Client::connect(&world.node, &world.alice, subprotocol).await;
        assert_eq!(hello.device_id.as_ref(), world.alice.device_id.as_bytes());
        assert_eq!(hello.account_id.as_ref(), world.alice.account_id.as_bytes());
        assert_eq!(hello.list_head.as_ref().map(|head| head.n), Some(1));
        assert_eq!(hello.prekeys.as_ref().map(|stock| stock.one_time), Some(5));
        assert!(hello.ping_interval_ms > 0 && hello.limits.is_some());
        let (mut bob, hello) = Client::connect(&world.node, &world.bob, subprotocol).await;
        bob.resume(&hello, None).await;
        assert_eq!(bob.until_caught_up().await, []);

        for (seq, content_bytes) in [(1, 300), (2, LARGE)] {
            let request = world.message(content_bytes);
            let content = request.content.clone();
            let reference = alice.send(client_frame::Frame::Send(request)).await;
            let (answered, accepted) = alice.next().await;
            assert_eq!(answered, reference);
            assert!(matches!(accepted, Frame::Accepted(accepted) if accepted.message_id.len() == 16));
            let entry = bob.entry().await;
            assert_eq!((entry.seq, entry.entry_id.len()), (seq, 16));
            // Small content lies inside the seal.
            assert_eq!(entry.content, if content_bytes == LARGE { content } else { "".into() });
        }
        world.node.stop().await;
    }
}

#[tokio::test]
async fn a_device_that_was_away_resumes_where_it_was() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    world.send_many(&mut alice, 7, 300).await;

    let (mut bob, frames) = Client::resumed(&world.node, &world.bob, None).await;
    assert_eq!(seqs(&frames), [1, 2, 3, 4, 5, 6, 7]);
    world.send_many(&mut alice, 1, 300).await;
    assert_eq!(bob.entry().await.seq, 8);

    let (mut bob, frames) = Client::resumed(&world.node, &world.bob, Some(5)).await;
    assert_eq!(seqs(&frames), [6, 7, 8]);
    let (_, hello) = Client::connect(&world.node, &world.alice, PROTO).await;
    let epoch = hello.mailbox.expect("a mailbox").epoch;
    bob.ack(epoch, 6).await;
    // The ack's ref comes back only if it is refused, so a refused one after it shows that the first was taken.
    let ahead = bob.ack(epoch, 9).await;
    match bob.next().await {
        (reference, Frame::Problem(problem)) => {
            assert_eq!((reference, problem.code.as_str()), (ahead, Code::CursorAhead.as_str()));
        }
        other => panic!("a problem was expected, not {other:?}"),
    }

    // Acks are written now and then; the hello tells when.
    loop {
        let (_, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
        if hello.mailbox.expect("a mailbox").acked_seq == 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_bob, frames) = Client::resumed(&world.node, &world.bob, None).await;
    assert_eq!(seqs(&frames), [7, 8], "after the last ack");
}

#[tokio::test]
async fn a_cursor_that_can_not_be_is_refused_and_another_resume_may_follow() {
    let world = World::new().await;
    let (mut bob, mut hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    let epoch = hello.mailbox.as_ref().expect("a mailbox").epoch;
    bob.resume(&hello, Some(5)).await;
    assert!(matches!(bob.frame().await, Frame::Problem(problem) if problem.code == Code::CursorAhead.as_str()));
    hello.mailbox.as_mut().expect("a mailbox").epoch = epoch + 1;
    bob.resume(&hello, Some(0)).await;
    assert!(matches!(bob.frame().await, Frame::Problem(problem) if problem.code == Code::CursorEpoch.as_str()));
    hello.mailbox.as_mut().expect("a mailbox").epoch = epoch;
    bob.resume(&hello, Some(0)).await;
    assert_eq!(bob.until_caught_up().await, []);
}

#[tokio::test]
async fn sends_beyond_what_may_be_unanswered_wait_their_turn() {
    let world = World::with(|config| config.socket.max_in_flight_sends = 3).await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    let mut references = Vec::new();
    let mut sent = Vec::new();
    for _ in 0..200 {
        let request = world.message(300);
        sent.push(request.client_message_id.clone());
        references.push(alice.send(client_frame::Frame::Send(request)).await);
    }
    for reference in references {
        let (answered, frame) = alice.next().await;
        assert_eq!(answered, reference, "in order");
        assert!(matches!(frame, Frame::Accepted(_)));
    }
    for (seq, client_message_id) in (1..).zip(sent) {
        let entry = bob.entry().await;
        assert_eq!(entry.seq, seq);
        let opened = world.open_bobs(&entry);
        assert_eq!(opened.client_message_id, client_message_id, "a device's sends keep their order");
    }
}

#[tokio::test]
async fn where_a_messages_time_goes_is_measured_and_nobody_named() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    world.send_many(&mut alice, 3, 300).await;
    for _ in 0..3 {
        bob.entry().await;
    }
    let address = format!("http://{}/metrics", world.node.running().internal);
    let parts = ["queue", "commit", "relay", "write"];
    let mut text = String::new();
    // The node notes the write after the client may have read it.
    for _ in 0..100 {
        text = reqwest::get(&address).await.expect("an answer").text().await.expect("text");
        let zero = |part| text.contains(&format!("martlet_message_part_seconds_count{{part=\"{part}\"}} 0\n"));
        if !parts.into_iter().any(zero) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for part in parts {
        let line = format!("martlet_message_part_seconds_count{{part=\"{part}\"}} ");
        let count = text.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "{part}:\n{text}");
    }
    assert!(!text.contains("alice") && !text.contains("127.0.0.1"), "{text}");
    assert!(!world.node.get("/metrics", "").await.status.is_success(), "not for everybody");
}

/// Memory of this process that is no file's: node, clients and test together, in bytes.
fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line for it");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

#[tokio::test]
async fn a_slow_reader_costs_bounded_memory_and_gets_everything() {
    /// Large, so that a node that kept entries would be noticed.
    const CONTENT: usize = 60_000;
    /// Fills the store's page cache, which is no reader's matter.
    const READ: u64 = 1300;
    const UNREAD: u64 = 700;
    let world = World::with(|config| {
        config.socket.outbound_budget_bytes = 64 << 10;
        config.mailbox.max_bytes = 1 << 30;
    })
    .await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let stream = socket.connect(world.node.running().public).await.expect("a connection");
    let (mut bob, hello) = Client::over(stream, &world.node, &world.bob, PROTO).await;
    bob.resume(&hello, None).await;
    assert_eq!(bob.until_caught_up().await, []);
    let mut seqs = 1..;
    let mut read = async |bob: &mut Client, count: u64| {
        for seq in seqs.by_ref().take(count as usize) {
            let entry = bob.entry().await;
            assert_eq!((entry.seq, entry.content.len()), (seq, CONTENT));
        }
    };
    for _ in 0..READ / 100 {
        world.send_many(&mut alice, 100, CONTENT).await;
        read(&mut bob, 100).await;
    }

    let before = anonymous_bytes();
    world.send_many(&mut alice, UNREAD as usize, CONTENT).await;
    let grown = anonymous_bytes().saturating_sub(before);
    assert!(grown < UNREAD as usize * CONTENT / 3, "{grown} bytes more while a reader stood still");
    read(&mut bob, UNREAD).await;
    world.send_many(&mut alice, 1, 300).await;
    assert_eq!(bob.entry().await.seq, READ + UNREAD + 1, "live again");
}

#[tokio::test]
async fn what_the_relay_lost_is_found_by_comparing_heads() {
    let world = World::with(|config| config.socket.head_check_interval = Duration::from_millis(200)).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    world.commit_unpublished(3);
    for seq in 1..=3 {
        assert_eq!(bob.entry().await.seq, seq);
    }
}

#[tokio::test]
async fn a_live_entry_after_a_lost_one_brings_it() {
    let world = World::with(|config| config.socket.head_check_interval = Duration::from_secs(600)).await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    world.commit_unpublished(2);
    assert!(bob.is_silent_for(Duration::from_millis(300)).await);
    world.send_many(&mut alice, 1, 300).await;
    for seq in 1..=3 {
        assert_eq!(bob.entry().await.seq, seq);
    }
}
