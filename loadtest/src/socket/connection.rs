//! One socket of a device: its bytes in and out, without waiting. What the frames mean is the fleet's and its handler's business.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::{Bytes, BytesMut};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::frame;

/// Sources on loopback: 127.0.0.2 and the following. Each gives about 28,000 ports.
const SOURCES: usize = 64;
/// What the system says of a connection that is on its way (`EINPROGRESS`).
const CONNECTING: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// RFC 6455's own example of a key and the answer to it. A random key guards against proxies that replay; there is none here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const KEY_ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The binary sub-protocol.
const SUB_PROTOCOL: &str = "martlet.v1.proto";
/// Longer answers to an upgrade are not a node's.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// What is spoken on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// A node's: a token, a hello, a resume, and then live.
    Martlet,
    /// A bare WebSocket that is live once it is upgraded, and whose messages all go to the handler's `raw`: for other servers that are
    /// measured beside a node, with the same cost on this side.
    Bare {
        /// Where it is, such as `/subscribe`.
        path: String,
    },
}

/// A socket, and what it could not write or understand yet.
pub struct Connection {
    stream: TcpStream,
    /// The beginning of a frame whose end is still to come. Empty, and without memory, most of the time.
    rest: Bytes,
    out: Vec<u8>,
}

/// What one read brought.
pub enum Read {
    /// So many bytes; `more` if there may be more to read.
    Bytes { count: usize, more: bool },
    /// Nothing at present.
    Nothing,
    /// The node closed.
    Closed,
}

impl Connection {
    /// Begins to connect, from one of many source addresses if the node is on loopback. What is written waits until it is connected.
    ///
    /// # Errors
    /// When the node refuses at once.
    pub fn connect(node: SocketAddr, index: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(node), Type::STREAM, Some(Protocol::TCP))?;
        if let SocketAddr::V4(address) = node
            && address.ip().is_loopback()
        {
            let last = u8::try_from(2 + index % SOURCES).unwrap_or(2);
            socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
        }
        // Nobody else waits for one whom the node's system has no room for.
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&node.into()) {
            Err(error) if error.raw_os_error() != Some(CONNECTING) => return Err(error),
            _ => {}
        }
        Ok(Self { stream: TcpStream::from_std(socket.into()), rest: Bytes::new(), out: Vec::new() })
    }

    /// For registering with a poll.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Asks for the upgrade. A bare socket shows no token.
    pub fn put_upgrade(&mut self, dialect: &Dialect, host: &str, token: &str) {
        let (path, ours) = match dialect {
            Dialect::Martlet => {
                ("/v1/socket", format!("Sec-WebSocket-Protocol: {SUB_PROTOCOL}\r\nAuthorization: Bearer {token}\r\n"))
            }
            Dialect::Bare { path } => (path.as_str(), String::new()),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{ours}\r\n"
        );
        self.out.extend_from_slice(request.as_bytes());
    }

    /// Queues a frame. It goes out with [`Self::flush`].
    pub fn put(&mut self, opcode: u8, payload: &[u8]) {
        frame::put(&mut self.out, opcode, payload);
    }

    /// Queues bytes that are frames already.
    pub fn put_framed(&mut self, frames: &[u8]) {
        self.out.extend_from_slice(frames);
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes what is queued, as far as the socket takes it.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            if written == self.out.len() {
                break Ok(());
            }
            match self.stream.write(&self.out[written..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if written == self.out.len() && self.out.capacity() <= 4096 {
            self.out.clear();
        } else if written == self.out.len() {
            // A buffer that a burst made large would otherwise stay, times the number of connections.
            self.out = Vec::new();
        } else {
            self.out.drain(..written);
        }
        outcome
    }

    /// Reads once. `scratch` is shared by all connections, so an idle one holds no memory.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<Read> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Ok(Read::Closed),
                // A read that does not fill the buffer has emptied the socket (epoll(7)), which saves asking again.
                Ok(count) => return Ok(Read::Bytes { count, more: count == scratch.len() }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing of an unfinished frame waits.
    #[must_use]
    pub fn is_at_frame(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was read, with the beginning of an unfinished frame in front of it.
    pub fn join(&mut self, fresh: &[u8]) -> Bytes {
        if self.rest.is_empty() {
            return Bytes::copy_from_slice(fresh);
        }
        let mut joined = BytesMut::with_capacity(self.rest.len() + fresh.len());
        joined.extend_from_slice(&self.rest);
        joined.extend_from_slice(fresh);
        self.rest = Bytes::new();
        joined.freeze()
    }

    /// Keeps the beginning of a frame until its end comes.
    pub fn keep(&mut self, rest: Bytes) {
        self.rest = rest;
    }
}

/// What came of asking for the upgrade.
pub enum Upgrade {
    /// The answer's end is still to come.
    Unfinished,
    /// The socket is a WebSocket now; the answer was taken from the front of the bytes.
    Done,
    /// The node's words.
    Refused(String),
}

/// Takes the answer to the upgrade from the front of `bytes`.
pub fn take_upgrade(dialect: &Dialect, bytes: &mut Bytes) -> Upgrade {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > MAX_ANSWER_BYTES {
            Upgrade::Refused("an endless answer".into())
        } else {
            Upgrade::Unfinished
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        return Upgrade::Refused(format!("{status} {body}").trim().to_owned());
    }
    let header = |name: &str| {
        let found =
            head.split("\r\n").filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    if header("sec-websocket-accept").as_deref() != Some(KEY_ANSWER) {
        return Upgrade::Refused("the answer to the WebSocket key is wrong".into());
    }
    if *dialect == Dialect::Martlet && header("sec-websocket-protocol").as_deref() != Some(SUB_PROTOCOL) {
        return Upgrade::Refused(format!("the node did not agree to {SUB_PROTOCOL}"));
    }
    drop(bytes.split_to(end + 4));
    Upgrade::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(accept: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
             sec-websocket-protocol: {SUB_PROTOCOL}\r\n\r\n"
        )
    }

    #[test]
    fn an_upgrade_leaves_the_frames_behind_it() {
        let mut bytes = Bytes::from(answer(KEY_ANSWER) + "frames");
        assert!(matches!(take_upgrade(&Dialect::Martlet, &mut bytes), Upgrade::Done));
        assert_eq!(bytes.as_ref(), b"frames");
    }

    #[test]
    fn an_unfinished_answer_waits() {
        let text = answer(KEY_ANSWER);
        let mut bytes = Bytes::copy_from_slice(&text.as_bytes()[..text.len() - 1]);
        assert!(matches!(take_upgrade(&Dialect::Martlet, &mut bytes), Upgrade::Unfinished));
    }

    #[test]
    fn refusals_say_why() {
        let mut wrong = Bytes::from(answer("AAAA"));
        assert!(matches!(take_upgrade(&Dialect::Martlet, &mut wrong), Upgrade::Refused(why) if why.contains("key")));
        let mut busy = Bytes::from("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy");
        assert!(
            matches!(take_upgrade(&Dialect::Martlet, &mut busy), Upgrade::Refused(why) if why == "HTTP/1.1 503 Service Unavailable busy")
        );
    }

    #[test]
    fn a_bare_socket_needs_no_sub_protocol() {
        let text = answer(KEY_ANSWER).replace("sec-websocket-protocol", "x-other");
        let bare = Dialect::Bare { path: "/subscribe".into() };
        assert!(matches!(take_upgrade(&bare, &mut Bytes::from(text.clone())), Upgrade::Done));
        assert!(matches!(take_upgrade(&Dialect::Martlet, &mut Bytes::from(text)), Upgrade::Refused(_)));
    }
}
