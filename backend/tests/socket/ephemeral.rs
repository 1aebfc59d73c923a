//! Ephemeral sends: what is worth nothing later reaches who is there, and leaves no trace.

use martlet::streams::Whisper;
use martlet_protocol::{
    crypto::DhSecret,
    id::{Blob, ConversationId},
    problem::{Code, close},
    rest::RevokeRequest,
    seal::MailboxOpener,
    wire::{self, client_frame, node_frame::Frame},
};
use martlet_storage::DeviceKey;
use prost::Message as _;

use crate::{
    client::{Client, JSON, PROTO},
    harness::{TestDevice, eventually, store},
    world::World,
};

fn request(sender: &TestDevice, recipients: &[&TestDevice], conversation: ConversationId) -> wire::SendRequest {
    sender.message(1, recipients).into_wire(conversation)
}

/// The next frame with its ref. A hello may come again at any time: what changed a list is told when the control stream brings it.
async fn next(client: &mut Client) -> (u64, Frame) {
    loop {
        match client.next().await {
            (_, Frame::Hello(_)) => {}
            other => return other,
        }
    }
}

/// Until the hello tells of list n of the device's account.
async fn knows_list(client: &mut Client, n: u64) {
    loop {
        match client.frame().await {
            Frame::Hello(hello) if hello.list_head.as_ref().map(|head| head.n) == Some(n) => return,
            Frame::Hello(_) => {}
            other => panic!("a hello was expected, not {other:?}"),
        }
    }
}

/// Sends one and returns the answer, which comes before anything else but hellos.
async fn whisper(client: &mut Client, request: wire::SendRequest) -> Frame {
    let reference = client.send(client_frame::Frame::SendEphemeral(request)).await;
    let (answered, frame) = next(client).await;
    assert_eq!(answered, reference);
    frame
}

fn expires_at_ms(answer: &Frame) -> u64 {
    match answer {
        Frame::AcceptedEphemeral(accepted) => accepted.expires_at_ms,
        other => panic!("an acceptance was expected, not {other:?}"),
    }
}

fn refusal(answer: Frame) -> wire::Problem {
    match answer {
        Frame::Problem(problem) => problem,
        other => panic!("a problem was expected, not {other:?}"),
    }
}

async fn heard(client: &mut Client) -> wire::Ephemeral {
    match next(client).await.1 {
        Frame::Ephemeral(ephemeral) => ephemeral,
        other => panic!("an ephemeral message was expected, not {other:?}"),
    }
}

fn open(device: &TestDevice, ephemeral: &wire::Ephemeral) -> wire::SealedMessage {
    let mut opener = MailboxOpener::new(DhSecret::from_bytes(&device.mailbox.to_bytes()));
    let entry_id = ephemeral.entry_id.as_ref().try_into().expect("an id");
    opener.open(&device.device_id, &entry_id, &ephemeral.sealed).expect("sealed for this device")
}

#[tokio::test]
async fn it_reaches_the_members_devices_that_are_there_and_is_stored_nowhere() {
    let mut world = World::new().await;
    let (phone, tablet) = (world.alice.link(&world.node).await, world.bob.link(&world.node).await);
    let carol = TestDevice::register(&world.node, "carol").await;
    let with_carol = world.alice.create(&world.node, &world.alice.direct_with(&world.node, &carol)).await;
    let (mut alice, _) = Client::resumed(&world.node, &world.alice, None).await;
    let (mut phone_client, _) = Client::resumed(&world.node, &phone, None).await;
    let (mut carol_client, _) = Client::resumed(&world.node, &carol, None).await;
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, JSON).await;
    bob.resume(&hello, None).await;
    bob.until_caught_up().await;

    let before = world.node.store().read();
    let others = [&world.bob, &phone, &tablet];
    for content_bytes in [300, 10_000] {
        let mut sent = request(&world.alice, &others, world.conversation);
        sent.content = Blob::from(vec![7; content_bytes]).0;
        let earliest = world.node.now_ms();
        let until_ms = expires_at_ms(&whisper(&mut alice, sent.clone()).await);
        assert!((earliest + 10_000..=world.node.now_ms() + 10_000).contains(&until_ms), "ten seconds, by default");
        for (client, device) in [(&mut bob, &world.bob), (&mut phone_client, &phone)] {
            let ephemeral = heard(client).await;
            assert_eq!(ephemeral.expires_at_ms, until_ms);
            let opened = open(device, &ephemeral);
            assert_eq!(opened.client_message_id, sent.client_message_id);
            assert_eq!(opened.sender_device_id.as_ref(), world.alice.device_id.as_bytes());
            let content = if opened.content.is_empty() { ephemeral.content } else { opened.content };
            assert_eq!(content, sent.content);
        }
    }
    store::assert_same(&before, &world.node.store().read());

    // The tablet was away, and hears nothing of it when it comes. Carol is no member, and Alice's own device gets no echo.
    let (_, frames) = Client::resumed(&world.node, &tablet, None).await;
    assert_eq!(frames, []);
    let stored = request(&world.alice, &[&phone, &carol], with_carol.conversation_id);
    alice.send(client_frame::Frame::Send(stored)).await;
    assert_eq!(carol_client.entry().await.seq, 1);
    let mut frames = [next(&mut alice).await.1, next(&mut alice).await.1];
    frames.sort_by_key(|frame| matches!(frame, Frame::Entry(_)));
    assert!(matches!(frames, [Frame::Accepted(_), Frame::Entry(_)]), "{frames:?}");
}

#[tokio::test]
async fn what_was_encrypted_for_others_than_there_are_reaches_nobody_and_is_explained() {
    let mut world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    let stale = request(&world.alice, &[&world.bob], world.conversation);
    let tablet = world.bob.link(&world.node).await;
    knows_list(&mut bob, 2).await;
    let problem = refusal(whisper(&mut alice, stale).await);
    assert_eq!(problem.code, Code::Mismatch.as_str());
    let mismatch = problem.mismatch.expect("what is different");
    let missing: Vec<_> = mismatch.missing.iter().map(|bundle| bundle.device_id.as_ref()).collect();
    assert_eq!(missing, [tablet.device_id.as_bytes().as_slice()]);
    assert_eq!(mismatch.stale.len(), 1);
    let good = request(&world.alice, &[&world.bob, &tablet], world.conversation);
    expires_at_ms(&whisper(&mut alice, good.clone()).await);
    assert_eq!(
        open(&world.bob, &heard(&mut bob).await).client_message_id,
        good.client_message_id,
        "the first one heard"
    );

    let carol = TestDevice::register(&world.node, "carol").await;
    let (mut stranger, _) = Client::connect(&world.node, &carol, PROTO).await;
    let problem = refusal(whisper(&mut stranger, request(&carol, &[&world.bob], world.conversation)).await);
    assert_eq!(problem.code, Code::NotFound.as_str(), "a conversation that she is not in");
}

#[tokio::test]
async fn its_limits_are_its_own() {
    let world = World::with(|config| {
        config.limits.ephemeral_per_device_per_second = 1;
        config.limits.ephemeral_burst = 4;
        config.messages.max_ephemeral_bytes = 1024;
    })
    .await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let before = world.node.store().read();
    let with = |change: fn(&mut wire::SendRequest)| {
        let mut request = request(&world.alice, &[&world.bob], world.conversation);
        change(&mut request);
        request
    };
    let large = refusal(whisper(&mut alice, with(|request| request.content = vec![7; 1025].into())).await);
    assert_eq!(large.code, Code::TooLarge.as_str());
    let long = refusal(whisper(&mut alice, with(|request| request.lifetime_seconds = 11)).await);
    assert_eq!(long.code, Code::LifetimeInvalid.as_str());
    let odd = refusal(whisper(&mut alice, with(|request| request.client_message_id.clear())).await);
    assert_eq!(odd.code, Code::Malformed.as_str());
    let earliest = world.node.now_ms();
    let until_ms = expires_at_ms(&whisper(&mut alice, with(|request| request.lifetime_seconds = 3)).await);
    assert!((earliest + 3000..=world.node.now_ms() + 3000).contains(&until_ms));
    // Each of these took one of the burst; only a machine that took a second for them has another by now.
    let refused = loop {
        if let Frame::Problem(problem) = whisper(&mut alice, with(|_| {})).await {
            break problem;
        }
    };
    assert_eq!(refused.code, Code::RateLimited.as_str());
    assert!(refused.retry_after_ms > 0);
    store::assert_same(&before, &world.node.store().read());
    alice.send(client_frame::Frame::Send(world.message(1025))).await;
    assert!(matches!(alice.frame().await, Frame::Accepted(_)), "a message is not held up by it");
}

#[tokio::test]
async fn nothing_comes_before_resume_and_nothing_of_that_time_after() {
    // Both on one thread: between two, what is sent first may arrive when the other has resumed already.
    let world = World::with(|config| config.server.workers = 1).await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    expires_at_ms(&whisper(&mut alice, request(&world.alice, &[&world.bob], world.conversation)).await);
    bob.resume(&hello, None).await;
    assert_eq!(bob.until_caught_up().await, []);
    let second = request(&world.alice, &[&world.bob], world.conversation);
    expires_at_ms(&whisper(&mut alice, second.clone()).await);
    assert_eq!(open(&world.bob, &heard(&mut bob).await).client_message_id, second.client_message_id);
}

fn device_key(world: &World, device: &TestDevice) -> DeviceKey {
    let store = world.node.store();
    let id = store.literal(device.device_id.as_bytes());
    DeviceKey(store.number(&format!("SELECT device_key AS number FROM devices WHERE device_id = {id}")))
}

fn made(device_key: DeviceKey, expires_at_ms: u64) -> Whisper {
    let ephemeral = wire::Ephemeral { entry_id: vec![1; 16].into(), expires_at_ms, ..wire::Ephemeral::default() };
    Whisper { device_key, expires_at_ms, payload: ephemeral.encode_to_vec().into() }
}

#[tokio::test]
async fn what_is_late_is_dropped() {
    let world = World::new().await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    let key = device_key(&world, &world.bob);
    let now_ms = world.node.now_ms();
    let streams = &world.node.running().services().streams;
    streams.whisper(vec![made(key, now_ms - 1), made(key, now_ms), made(key, now_ms + 60_000)]);
    assert_eq!(heard(&mut bob).await.expires_at_ms, now_ms + 60_000);
}

#[tokio::test]
async fn a_revoked_device_hears_nothing_more() {
    let mut world = World::new().await;
    let gone = world.bob.link(&world.node).await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (mut socket, _) = Client::resumed(&world.node, &gone, None).await;
    let (mut bob, _) = Client::resumed(&world.node, &world.bob, None).await;
    let both = request(&world.alice, &[&world.bob, &gone], world.conversation);
    expires_at_ms(&whisper(&mut alice, both.clone()).await);
    heard(&mut socket).await;
    heard(&mut bob).await;

    let key = device_key(&world, &gone);
    let device_list = world.bob.list_without(&[gone.device_id], world.node.now_ms());
    let revoke = RevokeRequest { device_list: device_list.clone() };
    let answer = world.node.post("/v1/devices/revoke", &world.bob.token, &revoke).await;
    assert!(answer.status.is_success(), "{}", answer.body);
    world.bob.chain = world.bob.chain.extend(&device_list).expect("a sound list");
    knows_list(&mut bob, 3).await;
    eventually("its socket is told to close", async || {
        world.node.running().services().streams.subscribers().find(key).is_none()
    })
    .await;
    // A sender who doesn't know yet is refused, and whatever else may come for the device finds no socket.
    assert_eq!(refusal(whisper(&mut alice, both).await).code, Code::Mismatch.as_str());
    world.node.running().services().streams.whisper(vec![made(key, world.node.now_ms() + 60_000)]);
    expires_at_ms(&whisper(&mut alice, request(&world.alice, &[&world.bob], world.conversation)).await);
    heard(&mut bob).await;
    let code = loop {
        match socket.message().await {
            tokio_tungstenite::tungstenite::Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            tokio_tungstenite::tungstenite::Message::Binary(bytes) => {
                let frame = wire::NodeFrame::decode(bytes).expect("protobuf").frame;
                assert!(matches!(frame, Some(Frame::Hello(_))), "{frame:?}");
            }
            other => panic!("a hello or the end was expected, not {other:?}"),
        }
    };
    assert_eq!(code, Some(close::DEVICE_ENDED));
}
