//! One socket of a device, frame by frame, in either sub-protocol.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use martlet_protocol::wire::{self, ClientFrame, NodeFrame, client_frame, node_frame};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

/// A node that says nothing for so long has failed the test.
const FRAME_DEADLINE: Duration = Duration::from_secs(180);

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubProtocol {
    /// Binary protobuf, for SDKs.
    Proto,
    /// proto3 JSON, for people's tools.
    Json,
}

impl SubProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Proto => "martlet.v1.proto",
            Self::Json => "martlet.v1.json",
        }
    }
}

/// What came from the node.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every value is a frame")]
pub enum Heard {
    /// A frame, with the `ref` that it answers (0: none).
    Frame(u64, node_frame::Frame),
    /// The end of the socket: a close code, or none if it just broke.
    Closed(Option<u16>),
}

/// An open socket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    sub_protocol: SubProtocol,
}

impl Socket {
    /// Opens a socket to the node at `base` (`http://…`) and reads its hello.
    ///
    /// # Errors
    /// Not reachable, refused, or the first frame is no hello.
    pub async fn open(base: &str, token: &str, sub_protocol: SubProtocol) -> Result<(Self, wire::Hello)> {
        let mut request = format!("{}/v1/socket", base.replacen("http", "ws", 1)).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("Authorization", format!("Bearer {token}").parse()?);
        headers.insert("Sec-WebSocket-Protocol", sub_protocol.name().parse()?);
        let (stream, answer) = tokio::time::timeout(FRAME_DEADLINE, connect_async(request)).await??;
        let chosen = answer.headers().get("Sec-WebSocket-Protocol").and_then(|name| name.to_str().ok());
        ensure!(chosen == Some(sub_protocol.name()), "the node chose the sub-protocol {chosen:?}");
        let mut socket = Self { stream, sub_protocol };
        match socket.hear().await? {
            Heard::Frame(0, node_frame::Frame::Hello(hello)) => Ok((socket, hello)),
            other => bail!("the first frame was {other:?}"),
        }
    }

    /// Opens a socket and goes on reading after `cursor`; none: from the oldest entry that was not acknowledged.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn resume(
        base: &str,
        token: &str,
        sub_protocol: SubProtocol,
        cursor: Option<wire::Cursor>,
    ) -> Result<(Self, wire::Hello)> {
        let (mut socket, hello) = Self::open(base, token, sub_protocol).await?;
        socket.say(0, client_frame::Frame::Resume(wire::Resume { mailbox: cursor })).await?;
        Ok((socket, hello))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn say(&mut self, r#ref: u64, frame: client_frame::Frame) -> Result<()> {
        let frame = ClientFrame { r#ref, frame: Some(frame) };
        let message = match self.sub_protocol {
            SubProtocol::Proto => tungstenite::Message::Binary(frame.encode_to_vec().into()),
            SubProtocol::Json => tungstenite::Message::Text(serde_json::to_string(&frame)?.into()),
        };
        Ok(self.stream.send(message).await?)
    }

    /// Acknowledges everything up to the cursor.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn ack(&mut self, cursor: wire::Cursor) -> Result<()> {
        self.say(0, client_frame::Frame::Ack(wire::Ack { mailbox: Some(cursor) })).await
    }

    /// The next frame. Safe to cancel: no frame is lost.
    ///
    /// # Errors
    /// A frame that is none of the schema, or three minutes without any (pings count).
    pub async fn hear(&mut self) -> Result<Heard> {
        loop {
            let next = tokio::time::timeout(FRAME_DEADLINE, self.stream.next());
            let message = match next.await.context("the node said nothing for three minutes")? {
                None | Some(Err(_)) => return Ok(Heard::Closed(None)),
                Some(Ok(message)) => message,
            };
            let frame = match (message, self.sub_protocol) {
                (tungstenite::Message::Binary(bytes), SubProtocol::Proto) => NodeFrame::decode(bytes)?,
                (tungstenite::Message::Text(text), SubProtocol::Json) => serde_json::from_str::<NodeFrame>(&text)?,
                (tungstenite::Message::Close(close), _) => {
                    return Ok(Heard::Closed(close.map(|close| close.code.into())));
                }
                (tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_), _) => continue,
                (other, _) => bail!("not a frame of the sub-protocol: {other:?}"),
            };
            return Ok(Heard::Frame(frame.r#ref, frame.frame.context("an empty frame")?));
        }
    }

    /// The next frame that is none of mere state (hello, caught-up).
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub async fn hear_news(&mut self) -> Result<Heard> {
        loop {
            match self.hear().await? {
                Heard::Frame(_, node_frame::Frame::Hello(_) | node_frame::Frame::CaughtUp(_)) => {}
                news => return Ok(news),
            }
        }
    }

    /// Sends a message and waits for the answer to it, passing over all other frames: for sockets that nobody reads otherwise.
    ///
    /// # Errors
    /// The socket ended first.
    pub async fn send(
        &mut self,
        r#ref: u64,
        request: wire::SendRequest,
    ) -> Result<Result<wire::Accepted, wire::Problem>> {
        self.say(r#ref, client_frame::Frame::Send(request)).await?;
        loop {
            match self.hear().await? {
                Heard::Frame(given, node_frame::Frame::Accepted(accepted)) if given == r#ref => {
                    return Ok(Ok(accepted));
                }
                Heard::Frame(given, node_frame::Frame::Problem(problem)) if given == r#ref => return Ok(Err(problem)),
                Heard::Frame(..) => {}
                Heard::Closed(code) => bail!("the socket closed ({code:?}) before the answer"),
            }
        }
    }

    /// Closes politely: when this returns the node has read everything that was said.
    ///
    /// # Errors
    /// The socket broke, or the node does not say goodbye.
    pub async fn leave(mut self) -> Result<()> {
        self.stream.close(None).await?;
        let farewell = async { while let Some(Ok(_)) = self.stream.next().await {} };
        tokio::time::timeout(FRAME_DEADLINE, farewell).await.context("the node does not say goodbye")
    }

    /// Sends raw bytes as one frame of the sub-protocol's kind, for input that should be refused.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn say_raw(&mut self, bytes: Bytes) -> Result<()> {
        let message = match self.sub_protocol {
            SubProtocol::Proto => tungstenite::Message::Binary(bytes),
            SubProtocol::Json => tungstenite::Message::Text(String::from_utf8(bytes.to_vec())?.into()),
        };
        Ok(self.stream.send(message).await?)
    }
}
