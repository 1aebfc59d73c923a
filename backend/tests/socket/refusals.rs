//! What is refused, and how: upgrades by problem details, broken frames by close codes. None of it changes anything.

use martlet_protocol::{
    problem::{Code, close},
    rest::{Problem, SocketTicket},
    wire::{self, client_frame, node_frame::Frame},
};
use prost::Message as _;

use crate::{
    client::{Client, HANDSHAKE, JSON, PROTO, Raw, masked, refused_status},
    world::World,
};

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
    let code = async |line: &str, headers: &[&str]| refusal(&world, line, headers).await.1.code;

    assert_eq!(code("GET /v1/elsewhere", &[proto, &bearer]).await, Code::NotFound.as_str());
    assert_eq!(code("GET /v1/socket", &[&bearer]).await, Code::Malformed.as_str());
    assert_eq!(code("GET /v1/socket", &["sec-websocket-protocol: chat", &bearer]).await, Code::Malformed.as_str());
    assert_eq!(code("GET /v1/socket", &[proto]).await, Code::Unauthenticated.as_str());
    assert_eq!(code("GET /v1/socket", &[proto, "authorization: Bearer mt_x"]).await, Code::Unauthenticated.as_str());
    assert_eq!(code("GET /v1/socket?ticket=mtk_x", &[proto]).await, Code::TicketInvalid.as_str());
    let (head, problem) = refusal(&world, "POST /v1/socket", &[proto, &bearer, "content-length: 0"]).await;
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
    assert_eq!(refused_status(&world.node, &path, JSON).await, Err(Code::TicketInvalid.status()));
}

#[tokio::test]
async fn sockets_over_the_limit_are_turned_away() {
    let world = World::with(|config| config.server.max_connections = 2).await;
    let (_alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    let (_bob, _) = Client::connect(&world.node, &world.bob, PROTO).await;
    let bearer = format!("authorization: Bearer {}", world.bob.token);
    let (head, problem) =
        refusal(&world, "GET /v1/socket", &["sec-websocket-protocol: martlet.v1.proto", &bearer]).await;
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
        let mut raw = Raw::connect(&world.node, &world.alice, subprotocol, b"").await;
        raw.write(&bytes).await;
        assert_eq!(raw.close_code().await, code, "{what}");
    }
    let (_alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
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
    raw.write(&masked(0x82, &unknown.encode_to_vec())).await;
    let frame = wire::NodeFrame::decode(raw.frame().await.1.as_slice()).expect("protobuf");
    assert_eq!(frame.r#ref, 77);
    assert!(matches!(frame.frame, Some(Frame::Problem(problem)) if problem.code == Code::Malformed.as_str()));
}
