//! What is refused, and how: upgrades by problem details, broken frames by close codes, frames that can be read by problems. None of it
//! changes anything that is stored.

use bytes::Bytes;
use martlet_protocol::{
    problem::{Code, close},
    rest::{Problem, SocketTicket},
    wire::{self, client_frame, node_frame::Frame},
};
use prost::Message as _;

use crate::{
    client::{Client, HANDSHAKE, JSON, PROTO, Raw, masked, refused_status},
    harness::{TestDevice, store},
    world::World,
};

/// Lets something be refused, and sees that nothing stored has changed by it.
async fn unchanged<T>(world: &World, refused: impl Future<Output = T>) -> T {
    let before = world.node.store().read();
    let how = refused.await;
    store::assert_same(&before, &world.node.store().read());
    how
}

/// Sends a frame that must be answered with this problem and change nothing stored.
async fn refuses(world: &World, client: &mut Client, frame: client_frame::Frame, code: Code) -> wire::Problem {
    let answer = async {
        let reference = client.send(frame).await;
        (reference, client.next().await)
    };
    match unchanged(world, answer).await {
        (reference, (answered, Frame::Problem(problem))) => {
            assert_eq!(answered, reference);
            let expected = (code.as_str(), u32::from(code.status()));
            assert_eq!((problem.code.as_str(), problem.status), expected, "{}", problem.detail);
            problem
        }
        (_, (_, other)) => panic!("{} was expected, not {other:?}", code.as_str()),
    }
}

/// What was refused until now was refused for what had been spoiled: whole, it is accepted.
async fn accepts(client: &mut Client, request: wire::SendRequest) {
    let reference = client.send(client_frame::Frame::Send(request)).await;
    match client.next().await {
        (answered, Frame::Accepted(_)) => assert_eq!(answered, reference),
        (_, other) => panic!("an acceptance was expected, not {other:?}"),
    }
}

/// Asks with the usual headers, these more, and reads the problem.
async fn refusal(world: &World, line: &str, headers: &[&str]) -> (String, Problem) {
    let headers = [&HANDSHAKE[..], headers].concat();
    let (mut raw, head) = Raw::ask(&world.node, line, &headers, b"").await;
    let body = raw.rest().await;
    assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    let problem: Problem = serde_json::from_str(&body).expect("problem details");
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", problem.status)), "{head}");
    assert!(head.contains(&format!("x-request-id: {}\r\n", problem.request_id)), "{head}");
    (head, problem)
}

#[tokio::test]
async fn upgrades_are_refused_with_problem_details() {
    let world = World::new().await;
    let proto = "sec-websocket-protocol: martlet.v1.proto";
    let bearer = format!("authorization: Bearer {}", world.alice.token);
    let code = async |line: &str, headers: &[&str]| unchanged(&world, refusal(&world, line, headers)).await.1.code;

    assert_eq!(code("GET /v1/elsewhere", &[proto, &bearer]).await, Code::NotFound.as_str());
    assert_eq!(code("GET /v1/socket", &[&bearer]).await, Code::Malformed.as_str());
    assert_eq!(code("GET /v1/socket", &["sec-websocket-protocol: chat", &bearer]).await, Code::Malformed.as_str());
    assert_eq!(code("GET /v1/socket", &[proto]).await, Code::Unauthenticated.as_str());
    assert_eq!(code("GET /v1/socket", &[proto, "authorization: Bearer mt_x"]).await, Code::Unauthenticated.as_str());
    assert_eq!(code("GET /v1/socket?ticket=mtk_x", &[proto]).await, Code::TicketInvalid.as_str());
    let headers = [proto, &bearer, "content-length: 0"];
    let (head, problem) = unchanged(&world, refusal(&world, "POST /v1/socket", &headers)).await;
    assert_eq!(problem.code, Code::MethodNotAllowed.as_str());
    assert!(head.contains("allow: GET\r\n"), "{head}");
    assert_eq!(world.node.running().open_sockets(), 0);
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let world = World::new().await;
    let ticket: SocketTicket = world.node.post("/v1/socket-tickets", &world.alice.token, &()).await.ok(201);
    let path = format!("/v1/socket?device=hint&ticket={}", ticket.ticket);
    assert_eq!(refused_status(&world.node, &path, JSON).await, Ok(()));
    let line = format!("GET {path}");
    let headers = ["sec-websocket-protocol: martlet.v1.json"];
    let (_, problem) = unchanged(&world, refusal(&world, &line, &headers)).await;
    assert_eq!(problem.code, Code::TicketInvalid.as_str());
}

#[tokio::test]
async fn sockets_over_the_limit_are_turned_away() {
    let world = World::with(|config| config.server.max_connections = 2).await;
    let (_alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (_bob, _) = Client::connect(&world.node, &world.bob, PROTO).await;
    let bearer = format!("authorization: Bearer {}", world.bob.token);
    let headers = ["sec-websocket-protocol: martlet.v1.proto", &bearer];
    let (head, problem) = unchanged(&world, refusal(&world, "GET /v1/socket", &headers)).await;
    assert_eq!(problem.code, Code::Busy.as_str());
    assert!(head.contains("retry-after: "), "{head}");
}

#[tokio::test]
async fn broken_frames_close_with_their_code() {
    let world = World::with(|config| config.socket.max_frame_bytes = 4096).await;
    let unmasked = [0x82, 0x01, 0x00];
    let cases: [(&str, &str, Vec<u8>, u16); 12] = [
        ("unmasked", PROTO, unmasked.to_vec(), close::PROTOCOL_ERROR),
        ("reserved bit", PROTO, masked(0xc2, b"x"), close::PROTOCOL_ERROR),
        ("unknown opcode", PROTO, masked(0x83, b"x"), close::PROTOCOL_ERROR),
        ("continuation of nothing", PROTO, masked(0x80, b"x"), close::PROTOCOL_ERROR),
        ("ping in fragments", PROTO, masked(0x09, b""), close::PROTOCOL_ERROR),
        ("text", PROTO, masked(0x81, b"{}"), close::UNSUPPORTED),
        ("binary", JSON, masked(0x82, b"{}"), close::UNSUPPORTED),
        ("not UTF-8", JSON, masked(0x81, b"\"\xff\""), close::INVALID_TEXT),
        ("too big", PROTO, masked(0x82, &[0; 4097]), close::TOO_BIG),
        ("too big in fragments", PROTO, [masked(0x02, &[0; 4096]), masked(0x80, b"x")].concat(), close::TOO_BIG),
        ("not protobuf", PROTO, masked(0x82, &[0xff; 8]), close::MALFORMED),
        ("not JSON", JSON, masked(0x81, b"{\"ref\":"), close::MALFORMED),
    ];
    for (what, subprotocol, bytes, code) in cases {
        assert_eq!(unchanged(&world, closes(&world, subprotocol, &bytes)).await, code, "{what}");
    }
    let (_alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
}

/// Alice's socket writes these bytes, and closes with this code.
async fn closes(world: &World, subprotocol: &str, bytes: &[u8]) -> u16 {
    let mut raw = Raw::connect(&world.node, &world.alice, subprotocol, b"").await;
    raw.write(bytes).await;
    raw.close_code().await
}

#[tokio::test]
async fn a_send_that_can_not_be_read_closes_the_socket() {
    let world = World::new().await;
    let good = world.message(300);
    let frame = wire::ClientFrame { r#ref: 1, frame: Some(client_frame::Frame::Send(good.clone())) };
    let (bytes, text) = (frame.encode_to_vec(), serde_json::to_string(&frame).expect("JSON"));
    let spoiled = |pointer: &str, value: &str| {
        let mut json = serde_json::to_value(&frame).expect("JSON");
        *json.pointer_mut(pointer).expect("a field") = value.into();
        json.to_string().into_bytes()
    };
    let cases = [
        ("protobuf cut short", PROTO, bytes[..bytes.len() - 1].to_vec()),
        ("protobuf with a byte too many", PROTO, [&bytes[..], &[0xff]].concat()),
        ("JSON cut short", JSON, text.as_bytes()[..text.len() - 1].to_vec()),
        ("JSON with a byte too many", JSON, format!("{text}}}").into_bytes()),
        ("content that is no base64", JSON, spoiled("/send/content", "not base64!")),
        ("an id that is no base64", JSON, spoiled("/send/conversationId", "not base64!")),
        ("forks that are no list", JSON, spoiled("/send/forks", "none")),
    ];
    for (what, subprotocol, payload) in cases {
        let first = if subprotocol == PROTO { 0x82 } else { 0x81 };
        let code = unchanged(&world, closes(&world, subprotocol, &masked(first, &payload))).await;
        assert_eq!(code, close::MALFORMED, "{what}");
    }
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    accepts(&mut alice, good).await;
}

#[tokio::test]
async fn bad_sends_are_answered_with_their_problem() {
    let world = World::new().await;
    let eve = TestDevice::register(&world.node, "eve").await;
    for subprotocol in [PROTO, JSON] {
        let (mut alice, _) = Client::connect(&world.node, &world.alice, subprotocol).await;
        let good = world.message(300);
        let oversize = wire::SendRequest { content: vec![7; 64 * 1024 + 1].into(), ..good.clone() };
        let empty = wire::SendRequest { content: Bytes::new(), ..good.clone() };
        let unknown_suite = wire::SendRequest { suite: 99, ..good.clone() };
        let no_suite = wire::SendRequest { suite: 0, ..good.clone() };
        let too_long = wire::SendRequest { lifetime_seconds: 31 * 24 * 60 * 60, ..good.clone() };
        let foreign = wire::SendRequest { conversation_id: vec![7; 32].into(), ..good.clone() };
        let mut twice = good.clone();
        twice.forks.push(twice.forks[0].clone());
        let mut long_header = good.clone();
        long_header.forks[0].header = vec![1; 1025].into();
        let mut echo = good.clone();
        echo.forks[0].header = vec![0; 85].into();
        for (request, code) in [
            (oversize, Code::TooLarge),
            (empty, Code::Malformed),
            (unknown_suite, Code::SuiteUnknown),
            (no_suite, Code::Malformed),
            (too_long, Code::LifetimeInvalid),
            (foreign, Code::NotFound),
            (twice, Code::Malformed),
            (long_header, Code::TooLarge),
            (echo, Code::Malformed),
        ] {
            refuses(&world, &mut alice, client_frame::Frame::Send(request), code).await;
        }
        accepts(&mut alice, good).await;

        let mut forged = world.message(300);
        forged.forks.push(wire::Fork { device_id: eve.device_id.to_wire(), header: vec![1; 85].into() });
        let problem = refuses(&world, &mut alice, client_frame::Frame::Send(forged), Code::Mismatch).await;
        let mismatch = problem.mismatch.expect("a mismatch");
        assert_eq!(mismatch.extra_device_ids, [eve.device_id.to_wire()]);
        assert!(mismatch.missing.is_empty() && mismatch.stale.is_empty());
    }
}

#[tokio::test]
async fn a_send_whose_ids_have_the_wrong_length_is_malformed() {
    type Put = fn(&mut wire::SendRequest, Bytes);
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let fields: [(&str, usize, Put); 4] = [
        ("client_message_id is not 16 bytes", 16, |request, id| request.client_message_id = id),
        ("conversation_id is not 32 bytes", 32, |request, id| request.conversation_id = id),
        ("a list's account_id is not 16 bytes", 16, |request, id| request.lists[0].account_id = id),
        ("a fork's device_id is not 16 bytes", 16, |request, id| request.forks[0].device_id = id),
    ];
    let good = world.message(300);
    for (detail, length, put) in fields {
        for wrong in [0, length - 1, length + 1] {
            let mut request = good.clone();
            put(&mut request, vec![7; wrong].into());
            let problem = refuses(&world, &mut alice, client_frame::Frame::Send(request), Code::Malformed).await;
            assert_eq!(problem.detail, detail);
        }
    }
    accepts(&mut alice, good).await;
}

/// Acks are written later than they come, at the latest when the node stops: so the store is compared after that too.
#[tokio::test]
async fn cursors_that_can_not_be_and_frames_out_of_turn_are_refused() {
    let world = World::new().await;
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    world.send_many(&mut alice, 2, 300).await;
    let before = world.node.store().read();
    let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
    let epoch = hello.mailbox.as_ref().expect("a mailbox").epoch;
    let at = |epoch: u64, seq: u64| Some(wire::Cursor { epoch, seq });
    let resume = |mailbox: Option<wire::Cursor>| client_frame::Frame::Resume(wire::Resume { mailbox });
    let ack = |mailbox: Option<wire::Cursor>| client_frame::Frame::Ack(wire::Ack { mailbox });
    for (frame, code) in [
        (ack(at(epoch, 1)), Code::FrameUnexpected),
        (ack(at(epoch + 1, 1)), Code::CursorEpoch),
        (ack(None), Code::Malformed),
        (resume(at(epoch + 1, 0)), Code::CursorEpoch),
        (resume(at(epoch, 3)), Code::CursorAhead),
    ] {
        refuses(&world, &mut bob, frame, code).await;
    }
    bob.resume(&hello, None).await;
    assert_eq!(bob.until_caught_up().await.len(), 2, "another resume may follow");
    for (frame, code) in [
        (resume(None), Code::FrameUnexpected),
        (ack(at(epoch + 1, 1)), Code::CursorEpoch),
        (ack(at(epoch, 3)), Code::CursorAhead),
        (ack(None), Code::Malformed),
    ] {
        refuses(&world, &mut bob, frame, code).await;
    }
    drop((alice, bob));
    let store = world.node.stop_keeping_data().await;
    store::assert_same(&before, &store.read());
}

#[tokio::test]
async fn fragments_pings_and_bytes_that_come_one_by_one_are_fine() {
    let world = World::new().await;
    let resume =
        wire::ClientFrame { r#ref: 0, frame: Some(client_frame::Frame::Resume(wire::Resume { mailbox: None })) };
    let payload = resume.encode_to_vec();
    let (first, second) = payload.split_at(payload.len() / 2);
    let bytes = [masked(0x02, first), masked(0x89, b"are you there"), masked(0x80, second)].concat();
    let mut raw = Raw::connect(&world.node, &world.bob, PROTO, b"").await;
    for byte in bytes {
        raw.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.frame().await, (0x8a, b"are you there".to_vec()));
    let (_, frame) = raw.frame().await;
    let frame = wire::NodeFrame::decode(frame.as_slice()).expect("protobuf");
    assert!(matches!(frame.frame, Some(Frame::CaughtUp(_))));

    raw.write(&masked(0x88, &4000_u16.to_be_bytes())).await;
    assert_eq!(raw.close_code().await, 4000, "the client's code comes back");
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_are_not_lost() {
    let world = World::new().await;
    let mut raw = Raw::connect(&world.node, &world.bob, PROTO, &masked(0x89, b"early")).await;
    assert_eq!(raw.frame().await, (0x8a, b"early".to_vec()));
}

#[tokio::test]
async fn a_frame_of_no_known_kind_is_answered() {
    let world = World::new().await;
    let mut raw = Raw::connect(&world.node, &world.bob, PROTO, b"").await;
    let unknown = wire::ClientFrame { r#ref: 77, frame: None };
    let answer = async {
        raw.write(&masked(0x82, &unknown.encode_to_vec())).await;
        raw.frame().await.1
    };
    let frame = wire::NodeFrame::decode(unchanged(&world, answer).await.as_slice()).expect("protobuf");
    assert_eq!(frame.r#ref, 77);
    assert!(matches!(frame.frame, Some(Frame::Problem(problem)) if problem.code == Code::Malformed.as_str()));
}
