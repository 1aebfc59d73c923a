//! A device's socket through nginx and TLS: opened by the HTTP client, which keeps the certificates, and then a WebSocket.

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use martlet_protocol::wire::{ClientFrame, NodeFrame, Resume, client_frame, node_frame};
use prost::Message as _;
use reqwest::{StatusCode, Upgraded, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::client::generate_key, protocol::Role},
};

/// What came of opening a socket.
pub enum Opened {
    /// It is open, and its device has caught up: frames went both ways.
    Open(Box<WebSocketStream<Upgraded>>),
    /// The status it was refused with.
    Refused(StatusCode),
}

impl Opened {
    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

/// Opens a socket with that token and that `?device=`, and resumes the mailbox.
///
/// # Errors
/// No answer, or frames that should not come.
pub async fn open(http: &reqwest::Client, base: &str, token: &str, device: &str) -> Result<Opened> {
    let request = http
        .get(format!("{base}/v1/socket?device={device}"))
        .bearer_auth(token)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, "martlet.v1.proto");
    let answer = request.send().await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Opened::Refused(answer.status()));
    }
    let mut socket = WebSocketStream::from_raw_socket(answer.upgrade().await?, Role::Client, None).await;
    let resume = ClientFrame { r#ref: 1, frame: Some(client_frame::Frame::Resume(Resume { mailbox: None })) };
    socket.send(Message::Binary(resume.encode_to_vec().into())).await?;
    loop {
        let message = socket.next().await.context("the socket ended")??;
        let Message::Binary(bytes) = message else { continue };
        match NodeFrame::decode(bytes)?.frame {
            Some(node_frame::Frame::Hello(_)) => {}
            Some(node_frame::Frame::CaughtUp(_)) => return Ok(Opened::Open(Box::new(socket))),
            other => bail!("an empty mailbox has no {other:?}"),
        }
    }
}
