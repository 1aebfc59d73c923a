//! The device's WebSocket as frames of the schema: connect, send, receive. It keeps no state and retries nothing; [`crate::agent`] does.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use martlet_protocol::{id::DeviceId, wire};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use crate::error::ClientError;

/// The binary sub-protocol.
pub const SUB_PROTOCOL: &str = "martlet.v1.proto";
/// Frames of the node are far below; more is refused before it is read.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a socket could not be opened or is no more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The token isn't valid (any more).
    #[error("the server does not accept this device's token")]
    Unauthenticated,
    /// The node closed with this code (`martlet_protocol::problem::close`).
    #[error("the server closed the socket with code {code}")]
    Closed {
        /// The close code; 1005 if there was none.
        code: u16,
    },
    /// The network, or a server that isn't one.
    #[error("the socket failed: {0}")]
    Failed(String),
    /// A frame that is not of the schema.
    #[error("the server sent a frame that can't be read")]
    Unreadable,
}

/// Sends frames.
pub struct FrameSink(futures_util::stream::SplitSink<Stream, Message>);

/// Receives frames.
pub struct FrameStream(futures_util::stream::SplitStream<Stream>);

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens `GET /v1/socket` of the server at `base` with the device's token. The address names the device, by which a proxy may hold its
/// sockets to one node.
///
/// # Errors
/// [`SocketError`].
pub async fn connect(base: &str, token: &str, device_id: DeviceId) -> Result<(FrameSink, FrameStream), SocketError> {
    let url = socket_url(base, device_id).map_err(|e| SocketError::Failed(e.to_string()))?;
    let mut request = url.into_client_request().map_err(failed)?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| SocketError::Unauthenticated)?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
    // Small frames that wait for their acknowledgement would cost 40 ms each, hence no Nagle.
    let connecting = connect_async_with_config(request, Some(config), true);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => Err(SocketError::Failed("no answer in time".into())),
        Ok(Ok((socket, _))) => {
            let (sink, stream) = socket.split();
            Ok((FrameSink(sink), FrameStream(stream)))
        }
        Ok(Err(tungstenite::Error::Http(response))) if response.status() == StatusCode::UNAUTHORIZED => {
            Err(SocketError::Unauthenticated)
        }
        Ok(Err(error)) => Err(failed(error)),
    }
}

impl FrameSink {
    /// Sends a frame and flushes.
    ///
    /// # Errors
    /// [`SocketError`]; whether the node got it is not known then.
    pub async fn send(&mut self, frame: &wire::ClientFrame) -> Result<(), SocketError> {
        self.0.send(Message::Binary(frame.encode_to_vec().into())).await.map_err(failed)
    }

    /// Sends a frame that was encoded before (load generators do so before the clock starts).
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn send_encoded(&mut self, frame: Bytes) -> Result<(), SocketError> {
        self.0.send(Message::Binary(frame)).await.map_err(failed)
    }

    /// Closes in good order.
    pub async fn close(&mut self) {
        // A socket that is gone already is as closed as one can be.
        let _ = self.0.close().await;
    }
}

impl FrameStream {
    /// The next frame. Pings are answered underneath; a socket on which nothing comes for `silence`, not even a ping, is given up.
    ///
    /// Dropping the future loses no frame.
    ///
    /// # Errors
    /// [`SocketError`]: the socket is no more.
    pub async fn next(&mut self, silence: Duration) -> Result<wire::NodeFrame, SocketError> {
        loop {
            let next = tokio::time::timeout(silence, self.0.next());
            match next.await.map_err(|_| SocketError::Failed("nothing came for too long".into()))? {
                None => return Err(SocketError::Closed { code: 1005 }),
                Some(Err(error)) => return Err(failed(error)),
                Some(Ok(Message::Binary(bytes))) => {
                    return wire::NodeFrame::decode(bytes).map_err(|_| SocketError::Unreadable);
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(SocketError::Closed { code: frame.map_or(1005, |f| f.code.into()) });
                }
                Some(Ok(Message::Text(_))) => return Err(SocketError::Unreadable),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }
}

fn socket_url(base: &str, device_id: DeviceId) -> Result<String, ClientError> {
    let bad = || ClientError::BadAddress(base.to_owned());
    let (scheme, rest) = base.trim_end_matches('/').split_once("://").ok_or_else(bad)?;
    let scheme = match scheme {
        "http" => "ws",
        "https" => "wss",
        _ => return Err(bad()),
    };
    Ok(format!("{scheme}://{rest}/v1/socket?device={}", device_id.to_text()))
}

fn failed(error: tungstenite::Error) -> SocketError {
    SocketError::Failed(error.to_string())
}
