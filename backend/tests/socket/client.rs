//! Clients of the socket: one that speaks the protocol, and one that writes any bytes it likes.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use martlet_protocol::wire::{self, client_frame, node_frame::Frame};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, http},
};

use crate::harness::{TestDevice, TestNode};

pub const PROTO: &str = "martlet.v1.proto";
pub const JSON: &str = "martlet.v1.json";
/// The header lines that every handshake has.
pub const HANDSHAKE: [&str; 4] = [
    "upgrade: websocket",
    "connection: upgrade",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device's socket.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    subprotocol: &'static str,
    next_ref: u64,
}

impl Client {
    /// Connects and reads the hello.
    pub async fn connect(node: &TestNode, device: &TestDevice, subprotocol: &'static str) -> (Self, wire::Hello) {
        let stream = TcpStream::connect(node.running().public).await.expect("a connection");
        Self::over(stream, node, device, subprotocol).await
    }

    pub async fn over(
        stream: TcpStream,
        node: &TestNode,
        device: &TestDevice,
        subprotocol: &'static str,
    ) -> (Self, wire::Hello) {
        let address = format!("ws://{}/v1/socket", node.running().public);
        let mut request = address.into_client_request().expect("an address");
        let bearer = format!("Bearer {}", device.token).parse().expect("a header");
        request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
        request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(subprotocol));
        let (socket, response) = client_async(request, stream).await.expect("a socket");
        assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol);
        let mut client = Self { socket, subprotocol, next_ref: 1 };
        match client.frame().await {
            Frame::Hello(hello) => (client, hello),
            other => panic!("hello comes first, not {other:?}"),
        }
    }

    /// Connects with the binary sub-protocol, resumes after `seq` (or the last ack) and reads until caught up.
    pub async fn resumed(node: &TestNode, device: &TestDevice, seq: Option<u64>) -> (Self, Vec<Frame>) {
        let (mut client, hello) = Self::connect(node, device, PROTO).await;
        client.resume(&hello, seq).await;
        let frames = client.until_caught_up().await;
        (client, frames)
    }

    pub async fn send(&mut self, frame: client_frame::Frame) -> u64 {
        let reference = self.next_ref;
        self.next_ref += 1;
        let frame = wire::ClientFrame { r#ref: reference, frame: Some(frame) };
        let message = match self.subprotocol {
            PROTO => Message::binary(frame.encode_to_vec()),
            _ => Message::text(serde_json::to_string(&frame).expect("JSON")),
        };
        self.socket.send(message).await.expect("an open socket");
        reference
    }

    pub async fn resume(&mut self, hello: &wire::Hello, seq: Option<u64>) -> u64 {
        let epoch = hello.mailbox.as_ref().expect("a mailbox").epoch;
        let mailbox = seq.map(|seq| wire::Cursor { epoch, seq });
        self.send(client_frame::Frame::Resume(wire::Resume { mailbox })).await
    }

    pub async fn ack(&mut self, epoch: u64, seq: u64) -> u64 {
        self.send(client_frame::Frame::Ack(wire::Ack { mailbox: Some(wire::Cursor { epoch, seq }) })).await
    }

    /// The next frame with its ref.
    pub async fn next(&mut self) -> (u64, Frame) {
        let frame = match (self.message().await, self.subprotocol) {
            (Message::Binary(bytes), PROTO) => wire::NodeFrame::decode(bytes).expect("protobuf of the schema"),
            (Message::Text(text), JSON) => serde_json::from_str(&text).expect("JSON of the schema"),
            (other, _) => panic!("a frame was expected, not {other:?}"),
        };
        (frame.r#ref, frame.frame.expect("a known frame"))
    }

    pub async fn frame(&mut self) -> Frame {
        self.next().await.1
    }

    /// The next message that is neither ping nor pong.
    pub async fn message(&mut self) -> Message {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("something in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("a message was expected, not {other:?}"),
            }
        }
    }

    pub async fn until_caught_up(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.frame().await {
                Frame::CaughtUp(_) => return frames,
                frame => frames.push(frame),
            }
        }
    }

    pub async fn entry(&mut self) -> wire::MailboxEntry {
        match self.frame().await {
            Frame::Entry(entry) => entry,
            other => panic!("an entry was expected, not {other:?}"),
        }
    }

    /// The code of the close frame, which comes next.
    pub async fn close_code(&mut self) -> u16 {
        match self.message().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("a close frame was expected, not {other:?}"),
        }
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.socket.next()).await.is_err()
    }
}

/// A socket without a library: to break rules with.
pub struct Raw(pub TcpStream);

impl Raw {
    /// A request for an upgrade with these header lines in place of the usual ones, and its answer up to the blank line.
    pub async fn ask(node: &TestNode, line: &str, headers: &[&str], early: &[u8]) -> (Self, String) {
        let stream = TcpStream::connect(node.running().public).await.expect("a connection");
        let mut raw = Self(stream);
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", headers.join("\r\n"));
        raw.0.write_all(&[request.as_bytes(), early].concat()).await.expect("an open connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, raw.0.read_u8()).await.expect("in time").expect("a whole head");
            head.push(byte);
        }
        (raw, String::from_utf8(head).expect("ASCII"))
    }

    /// Upgraded by the book, the hello read.
    pub async fn connect(node: &TestNode, device: &TestDevice, subprotocol: &str, early: &[u8]) -> Self {
        let offer = format!("sec-websocket-protocol: {subprotocol}");
        let bearer = format!("authorization: Bearer {}", device.token);
        let headers = [&HANDSHAKE[..], &[&offer, &bearer]].concat();
        let (mut raw, head) = Self::ask(node, "GET /v1/socket", &headers, early).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let (first, _) = raw.frame().await;
        assert_eq!(first & 0x0f, if subprotocol == PROTO { 2 } else { 1 }, "the hello");
        raw
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("an open connection");
    }

    /// First byte and payload of the next frame.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        timeout(PATIENCE, self.read_frame()).await.expect("a frame in time").expect("a whole frame")
    }

    async fn read_frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await?;
        let length = match self.0.read_u8().await? {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.0.read_exact(&mut payload).await?;
        Ok((first, payload))
    }

    /// The code of the close frame, which is the last thing to come, and the end of the connection.
    pub async fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x88, "a close frame");
        assert_eq!(timeout(PATIENCE, self.0.read(&mut [0; 1])).await.expect("in time").expect("a FIN"), 0);
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// Whatever comes until the end, as text.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("in time").expect("an end");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A masked frame. The mask is all zeros, which hides nothing and is allowed.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The status that an upgrade is refused with.
pub async fn refused_status(node: &TestNode, path: &str, subprotocol: &'static str) -> Result<(), u16> {
    let stream = TcpStream::connect(node.running().public).await.expect("a connection");
    let address = format!("ws://{}{path}", node.running().public);
    let mut request = address.into_client_request().expect("an address");
    request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(subprotocol));
    match client_async(request, stream).await {
        Ok(_) => Ok(()),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("a refusal in HTTP was expected, not {error}"),
    }
}
