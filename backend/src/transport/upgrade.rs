//! From an HTTP request with an `Upgrade` header to a socket. All such requests of the public listener come here, whatever their path, so
//! what is wrong with one is answered here too, by hand: the same problem details as everywhere, and then the connection ends.

use std::{future::Future, io, net::IpAddr, rc::Rc, time::Duration};

use actix_http::{Method, RequestHead, Uri, header, ws};
use martlet_protocol::problem::Code;
use tokio::{net::TcpStream, time};

use super::{
    Upgrade,
    connection::{Connection, State},
    incoming::Partial,
    refusal::{ALLOW_GET, Refusal, VERSION_13},
    subprotocol::SubProtocol,
    worker::Worker,
};
use crate::{
    accounts::{AccountError, DeviceIdentity},
    clock,
    limits::{self, Network},
};

/// Where devices connect.
const PATH: &str = "/v1/socket";
/// How long a refused client may take to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(5);
/// When to come back to a node that is full.
const FULL_RETRY_MS: u32 = 1000;

/// What a good request asks for.
#[derive(Debug, PartialEq)]
struct Asked {
    subprotocol: SubProtocol,
    proof: Proof,
    /// `Sec-WebSocket-Accept`.
    accept: [u8; 28],
    /// The last line of `X-Forwarded-For`, to be believed only if the config says so.
    forwarded: Option<String>,
}

/// By what the device shows who it is.
#[derive(PartialEq)]
enum Proof {
    Token(String),
    Ticket(String),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Token(_)) { "Token" } else { "Ticket" })
    }
}

impl Asked {
    fn parse(head: &RequestHead) -> Result<Self, Refusal> {
        if head.uri.path() != PATH {
            return Err(Refusal::new(Code::NotFound, "sockets are at /v1/socket"));
        }
        if head.method != Method::GET {
            return Err(Refusal::new(Code::MethodNotAllowed, "a socket begins with GET").with(ALLOW_GET));
        }
        ws::verify_handshake(head).map_err(|error| match error {
            ws::HandshakeError::NoVersionHeader | ws::HandshakeError::UnsupportedVersion => {
                Refusal::new(Code::Malformed, "Sec-WebSocket-Version must be 13").with(VERSION_13)
            }
            _ => Refusal::new(Code::Malformed, "this is not a WebSocket handshake (RFC 6455, section 4.1)"),
        })?;
        let key = head.headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], |key| key.as_bytes());
        let forwarded = head.headers.get_all("x-forwarded-for").next_back();
        let forwarded = forwarded.and_then(|line| line.to_str().ok()).map(str::to_owned);
        Ok(Self { subprotocol: subprotocol(head)?, proof: proof(head)?, accept: ws::hash_key(key), forwarded })
    }
}

/// The first offered one that is known here: the client's order counts.
fn subprotocol(head: &RequestHead) -> Result<SubProtocol, Refusal> {
    let offered = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    let mut names = offered.flat_map(|value| value.split(',')).map(str::trim);
    names.find_map(|name| SubProtocol::ALL.into_iter().find(|known| known.name() == name)).ok_or_else(|| {
        Refusal::new(Code::Malformed, "Sec-WebSocket-Protocol must offer martlet.v1.proto or martlet.v1.json")
    })
}

fn proof(head: &RequestHead) -> Result<Proof, Refusal> {
    if let Some(value) = head.headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        return token
            .map(|token| Proof::Token(token.to_owned()))
            .ok_or_else(|| Refusal::new(Code::Unauthenticated, "Authorization must be Bearer and a device token"));
    }
    let missing =
        || Refusal::new(Code::Unauthenticated, "show a device token (Authorization: Bearer) or a ticket (?ticket=)");
    ticket(&head.uri).map(Proof::Ticket).ok_or_else(missing)
}

/// Tickets are base64url and so never percent-encoded.
fn ticket(uri: &Uri) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("ticket=")).map(str::to_owned)
}

/// Handles one request for an upgrade. Returns when the socket is served by a task of its own or the refusal is written: actix's own
/// buffers for the connection go with it.
pub(super) fn upgrade(worker: Rc<Worker>, (request, framed): Upgrade) -> impl Future<Output = Result<(), io::Error>> {
    let asked = Asked::parse(request.head());
    let parts = framed.into_parts();
    drop((request, parts.write_buf));
    async move {
        let admitted = match asked {
            Ok(asked) => admit(&worker, asked, parts.io.peer_addr().ok().map(|address| address.ip())).await,
            Err(refusal) => Err(refusal),
        };
        match admitted {
            Ok(Admitted { asked, identity, network }) => {
                let stream = parts.io;
                // Small frames are written whole and must not wait for an acknowledgement of the one before.
                stream.set_nodelay(true)?;
                write_all(&stream, &switching(&asked)).await?;
                let early = (!parts.read_buf.is_empty()).then(|| Box::new(Partial::starting_with(parts.read_buf)));
                let state = State::new(early);
                let subprotocol = asked.subprotocol;
                worker.admit(|id| Connection { stream, id, identity, network, subprotocol, state: state.into() });
                Ok(())
            }
            Err(refusal) => refuse(&worker, parts.io, &refusal).await,
        }
    }
}

/// Who gets a socket.
struct Admitted {
    asked: Asked,
    identity: DeviceIdentity,
    network: Network,
}

/// Cheapest first: who is refused for the node's or an address's sake costs neither the database nor a hash. The address comes before the
/// node, whose rate one address could otherwise use up for all.
async fn admit(worker: &Worker, asked: Asked, socket: Option<IpAddr>) -> Result<Admitted, Refusal> {
    let services = &worker.services;
    if worker.sockets.draining() {
        let detail = "the node is shutting down";
        let window = services.config.server.drain_window;
        let retry_after_ms = u32::try_from(worker.part_of(window).as_millis()).unwrap_or(u32::MAX).max(1);
        return Err(Refusal::later(Code::Unavailable, detail, retry_after_ms));
    }
    has_room(worker)?;
    let limits = &services.limits;
    let forwarded = asked.forwarded.as_deref().filter(|_| services.config.limits.trust_forwarded_for);
    let address = limits::address(socket, forwarded);
    let too_many = |wait| Refusal::later(Code::RateLimited, "too many new sockets from here", wait);
    limits.connect_from(address).map_err(too_many)?;
    limits.connect().map_err(|wait| Refusal::later(Code::Busy, "too many new sockets at once", wait))?;
    // Who has waited this long may be gone, and those behind are waiting too.
    let turn = time::timeout(services.config.storage.timeout, worker.arrivals.acquire()).await;
    let _turn = turn.map_err(|_| Refusal::later(Code::Busy, "too many wait for the store", FULL_RETRY_MS))?;
    let identity = match &asked.proof {
        Proof::Token(token) => services.accounts.authenticate(token).await,
        Proof::Ticket(ticket) => services.accounts.redeem_ticket(ticket).await,
    };
    let identity = identity.map_err(|error| unauthenticated(&error))?;
    let too_many = |wait| Refusal::later(Code::RateLimited, "too many new sockets of this device", wait);
    limits.connect_device(&identity.account_id, &identity.device_id).map_err(too_many)?;
    // Others came while this one waited.
    has_room(worker)?;
    Ok(Admitted { asked, identity, network: Network::of(address) })
}

fn has_room(worker: &Worker) -> Result<(), Refusal> {
    if worker.sockets.open() < worker.services.config.server.max_connections {
        return Ok(());
    }
    Err(Refusal::later(Code::Busy, "the node has as many sockets as it may have", FULL_RETRY_MS))
}

fn unauthenticated(error: &AccountError) -> Refusal {
    match error.code() {
        Code::Internal => {
            tracing::error!(%error, "a socket could not be authenticated");
            Refusal::new(Code::Internal, "")
        }
        Code::Busy => Refusal::later(Code::Busy, "the store is busy", FULL_RETRY_MS),
        code => Refusal::new(code, &error.to_string()),
    }
}

fn switching(asked: &Asked) -> Vec<u8> {
    let accept = String::from_utf8_lossy(&asked.accept);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\
         sec-websocket-protocol: {}\r\n\r\n",
        asked.subprotocol.name(),
    )
    .into_bytes()
}

async fn refuse(worker: &Worker, stream: TcpStream, refusal: &Refusal) -> Result<(), io::Error> {
    let response = refusal.response(&mut clock::rng());
    let Ok(_place) = worker.refusals.try_acquire() else {
        // Under a flood what counts is that it costs little; an answer of this size fits into any socket that nothing was written to.
        return stream.try_write(&response).map(drop);
    };
    let linger = async {
        write_all(&stream, &response).await?;
        rustix::net::shutdown(&stream, rustix::net::Shutdown::Write)?;
        // A connection that ends with unread bytes is reset, and its client might not read the answer.
        let mut rest = [0; 512];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    time::timeout(REFUSAL_LINGER, linger).await.unwrap_or(Ok(()))
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;

    use super::*;

    fn good() -> TestRequest {
        let mut request = TestRequest::with_uri("/v1/socket?device=x&ticket=mtk_abc");
        request
            .insert_header(("upgrade", "websocket"))
            .insert_header(("connection", "upgrade"))
            .insert_header(("sec-websocket-version", "13"))
            .insert_header(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
            .insert_header(("sec-websocket-protocol", "chat, martlet.v1.json, martlet.v1.proto"));
        request
    }

    fn parse(mut request: TestRequest) -> Result<Asked, Code> {
        let mut request = request.finish();
        // The parser of requests sets this; the test's does not.
        request.head_mut().set_connection_type(actix_http::ConnectionType::Upgrade);
        Asked::parse(request.head()).map_err(|refusal| refusal.code())
    }

    #[test]
    fn the_clients_first_known_subprotocol_and_the_accept_key_of_the_rfc() {
        let asked = parse(good()).expect("good");
        assert_eq!(asked.subprotocol, SubProtocol::Json);
        assert_eq!(&asked.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(asked.proof == Proof::Ticket("mtk_abc".to_owned()));
        let mut request = good();
        request.insert_header(("authorization", "bearer mt_abc"));
        assert!(parse(request).expect("good").proof == Proof::Token("mt_abc".to_owned()), "the header counts");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let changed = |name: &'static str, value: &'static str| {
            let mut request = good();
            request.insert_header((name, value));
            parse(request).err()
        };
        assert_eq!(changed("sec-websocket-version", "8"), Some(Code::Malformed));
        assert_eq!(changed("sec-websocket-key", "short"), Some(Code::Malformed));
        assert_eq!(changed("sec-websocket-protocol", "chat"), Some(Code::Malformed));
        assert_eq!(changed("authorization", "Basic abc"), Some(Code::Unauthenticated));
        let mut request = good();
        request.uri("/v1/socket");
        assert_eq!(parse(request).err(), Some(Code::Unauthenticated));
        let mut request = good();
        request.uri("/v1/sockets?ticket=x");
        assert_eq!(parse(request).err(), Some(Code::NotFound));
        let mut request = good();
        request.method(Method::POST);
        assert_eq!(parse(request).err(), Some(Code::MethodNotAllowed));
    }
}
