//! Many device sockets on one thread: [`Fleet`] opens them as any device would (upgrade, hello, resume, caught up), answers pings and
//! gives every further frame to a [`Handler`].
//!
//! Written on the bare poll of the system rather than on tasks: 19,000 connections cost some hundred bytes each, and the processor time
//! of the generator, which shares its cores with the node, goes into system calls alone. No TLS, no reconnecting.

mod buffers;
mod connection;
pub mod frame;
pub mod log_frame;
mod receive;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use martlet_protocol::wire::{self, client_frame, node_frame};
use mio::{Events, Interest, Poll, Token, event::Event};
use prost::Message as _;

use crate::ambient;

pub use connection::{Connection, Dialect};
use frame::opcode;

/// One read takes many frames; shared by all connections.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Events taken from the system at once.
const EVENTS: usize = 1024;
/// How long a connection may take from the upgrade to being caught up.
const OPENING_TIMEOUT: Duration = Duration::from_secs(60);

/// What is done with what the sockets bring. `index` is what [`Fleet::open`] returned.
pub trait Handler {
    /// The node said hello, and is asked to go on from the oldest unacknowledged entry. What is put on the connection goes out with that.
    fn greeted(&mut self, _index: usize, _connection: &mut Connection) {}
    /// The stored backlog has come; what follows is live. Entries of the backlog came through [`Self::frame`]. What is put on the
    /// connection goes out afterwards.
    fn live(&mut self, index: usize, hello: &wire::Hello, connection: &mut Connection);
    /// A binary frame of a socket that has resumed as it came, read at this moment. Whoever understands it says so, and it is not decoded: that costs
    /// more than everything else where millions come in a second.
    ///
    /// # Errors
    /// What is wrong with it; the socket is closed.
    fn raw(&mut self, _index: usize, _payload: &[u8], _at: Instant) -> Result<bool, String> {
        Ok(false)
    }
    /// A frame other than hello and caught-up, read at this moment. What is put on the connection goes out afterwards in one write.
    fn frame(
        &mut self,
        index: usize,
        frame: node_frame::Frame,
        reference: u64,
        at: Instant,
        connection: &mut Connection,
    );
    /// The node pinged and was answered.
    fn pinged(&mut self, index: usize);
    /// The node answered a ping of ours.
    fn ponged(&mut self, index: usize);
    /// The socket is no more, or never came to be.
    fn gone(&mut self, index: usize, why: &str);
}

/// The sockets.
pub struct Fleet {
    poll: Poll,
    events: Events,
    nodes: Vec<(SocketAddr, String)>,
    dialect: Dialect,
    spread: Spread,
    members: Vec<Member>,
    scratch: Vec<u8>,
    live: usize,
    opening: usize,
}

struct Member {
    connection: Option<Connection>,
    stage: Stage,
    /// It leaves what comes where it is.
    is_paused: bool,
}

enum Stage {
    Upgrading,
    AwaitingHello,
    Resuming(Box<wire::Hello>),
    Live,
    Gone,
}

impl Stage {
    fn has_resumed(&self) -> bool {
        matches!(self, Self::Resuming(_) | Self::Live)
    }
}

/// Which node a socket goes to. Sockets stand in groups; the first of each group goes to the next node, the others of it to those after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// How many nodes there are.
    pub nodes: usize,
    /// Sockets of a group.
    pub group: usize,
}

impl Spread {
    /// The node of a socket.
    #[must_use]
    pub fn node_of(self, index: usize) -> usize {
        (index / self.group + index % self.group) % self.nodes
    }
}

impl Fleet {
    /// For the node at `url`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// For an address that can't be used.
    pub fn new(url: &str) -> Result<Self> {
        Self::over(std::slice::from_ref(&url), 1)
    }

    /// For several nodes, over which each group of sockets is spread.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn over(urls: &[&str], group: usize) -> Result<Self> {
        let nodes = urls.iter().map(|url| address(url)).collect::<Result<Vec<_>>>()?;
        let spread = Spread { nodes: nodes.len(), group };
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            nodes,
            dialect: Dialect::Martlet,
            spread,
            members: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            live: 0,
            opening: 0,
        })
    }

    /// For another server: bare WebSockets at this path.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn bare(url: &str, path: &str) -> Result<Self> {
        Ok(Self { dialect: Dialect::Bare { path: path.to_owned() }, ..Self::new(url)? })
    }

    /// Sockets that are caught up.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// Opens a socket for each token, `at_once` of them being under way, and waits until all are live or gone.
    ///
    /// # Errors
    /// When the system's poll fails, or the node leaves a socket waiting.
    pub fn open_all<'a>(
        &mut self,
        tokens: impl IntoIterator<Item = &'a str>,
        at_once: usize,
        handler: &mut impl Handler,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        let mut tokens = tokens.into_iter().peekable();
        let (mut before, mut since) = (self.settled(), ambient::now());
        while tokens.peek().is_some() || self.opening > 0 {
            while self.opening < at_once
                && let Some(token) = tokens.next()
            {
                self.open(token, handler);
            }
            self.turn(Duration::from_millis(20), handler)?;
            progress(self.live);
            if self.settled() != before {
                (before, since) = (self.settled(), ambient::now());
            } else if since.elapsed() > OPENING_TIMEOUT {
                bail!("{} sockets were left waiting for their first frames", self.opening);
            }
        }
        Ok(())
    }

    fn settled(&self) -> usize {
        self.members.len() - self.opening
    }

    /// Connects one more socket and asks for the upgrade; [`Handler::live`] or [`Handler::gone`] tells the outcome.
    fn open(&mut self, token: &str, handler: &mut impl Handler) -> usize {
        let index = self.members.len();
        self.members.push(Member { connection: None, stage: Stage::Gone, is_paused: false });
        self.open_again(index, token, handler);
        index
    }

    /// Connects a socket that is gone once more; [`Handler::live`] or [`Handler::gone`] tells the outcome.
    pub fn open_again(&mut self, index: usize, token: &str, handler: &mut impl Handler) {
        self.members[index].stage = Stage::Upgrading;
        self.opening += 1;
        match self.connect(index, token) {
            Ok(connection) => self.members[index].connection = Some(connection),
            Err(error) => self.end(index, &format!("connecting failed: {error}"), handler),
        }
    }

    /// Cuts a socket without a word, as a network does that goes away.
    pub fn cut(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.connection = None;
        match std::mem::replace(&mut member.stage, Stage::Gone) {
            Stage::Live => self.live -= 1,
            Stage::Gone => {}
            Stage::Upgrading | Stage::AwaitingHello | Stage::Resuming(_) => self.opening -= 1,
        }
    }

    /// Sockets that are opened from now on go to the node at this address.
    ///
    /// # Errors
    /// For an address that can't be used.
    pub fn move_to(&mut self, url: &str) -> Result<()> {
        self.nodes = vec![address(url)?];
        self.spread.nodes = 1;
        Ok(())
    }

    fn connect(&self, index: usize, token: &str) -> io::Result<Connection> {
        let (node, host) = &self.nodes[self.spread.node_of(index)];
        let mut connection = Connection::connect(*node, index)?;
        let interest = Interest::READABLE.add(Interest::WRITABLE);
        self.poll.registry().register(connection.stream(), Token(index), interest)?;
        connection.put_upgrade(&self.dialect, host, token);
        connection.flush()?;
        Ok(connection)
    }

    /// Waits for something to happen, at most so long, and handles all of it. Tells on how many sockets something had.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn turn(&mut self, wait: Duration, handler: &mut impl Handler) -> Result<usize> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error).context("poll"),
            _ => {}
        }
        let mut count = 0;
        for event in &events {
            count += 1;
            self.handle(event, handler);
        }
        self.events = events;
        Ok(count)
    }

    fn handle(&mut self, event: &Event, handler: &mut impl Handler) {
        let index = event.token().0;
        let Some(member) = self.members.get_mut(index) else { return };
        if member.is_paused {
            return;
        }
        let Some(mut connection) = member.connection.take() else { return };
        let mut outcome = Ok(());
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            outcome = self.receive(index, &mut connection, event.is_read_closed(), handler);
        }
        if outcome.is_ok() && connection.is_unsent() {
            outcome = connection.flush().map_err(|error| format!("writing failed: {error}"));
        }
        match outcome {
            Ok(()) => self.members[index].connection = Some(connection),
            Err(why) => self.end(index, &why, handler),
        }
    }

    fn end(&mut self, index: usize, why: &str, handler: &mut impl Handler) {
        if matches!(self.members[index].stage, Stage::Gone) {
            return;
        }
        self.cut(index);
        handler.gone(index, why);
    }

    /// Stops reading a socket: what comes fills the system's buffers, and then the node's.
    pub fn pause(&mut self, index: usize) {
        self.members[index].is_paused = true;
    }

    /// Reads it again, beginning with everything that waits.
    pub fn resume(&mut self, index: usize, handler: &mut impl Handler) {
        self.members[index].is_paused = false;
        let Some(mut connection) = self.members[index].connection.take() else { return };
        let mut outcome = self.receive(index, &mut connection, false, handler);
        if outcome.is_ok() {
            outcome = connection.flush().map_err(|error| format!("writing failed: {error}"));
        }
        match outcome {
            Ok(()) => self.members[index].connection = Some(connection),
            Err(why) => self.end(index, &why, handler),
        }
    }

    /// Bytes on their way to a socket in the system's buffers, on both its ends; `None` where the system does not tell.
    #[must_use]
    pub fn in_the_systems_buffers(&mut self, index: usize) -> Option<u64> {
        let stream = self.members.get_mut(index)?.connection.as_mut()?.stream();
        buffers::on_their_way(stream.local_addr().ok()?, stream.peer_addr().ok()?)
    }

    /// How far a socket has come, in words.
    #[must_use]
    pub fn stage(&self, index: usize) -> &'static str {
        match self.members.get(index).map(|member| &member.stage) {
            Some(Stage::Upgrading) => "waits for the answer to its upgrade",
            Some(Stage::AwaitingHello) => "waits for its hello",
            Some(Stage::Resuming(_)) => "waits for its backlog",
            Some(Stage::Live) => "is live",
            Some(Stage::Gone) | None => "has no socket",
        }
    }

    /// A socket that is there, to put frames on; [`Self::flush`] writes them.
    pub fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.members.get_mut(index)?.connection.as_mut()
    }

    /// Writes what was put on a connection.
    pub fn flush(&mut self, index: usize, handler: &mut impl Handler) {
        let outcome = self.connection(index).map_or(Ok(()), Connection::flush);
        if let Err(error) = outcome {
            self.end(index, &format!("writing failed: {error}"), handler);
        }
    }

    /// Pings the node on every socket; [`Handler::ponged`] hears the answers.
    pub fn ping_all(&mut self, handler: &mut impl Handler) {
        for index in 0..self.members.len() {
            if let Some(connection) = self.connection(index) {
                connection.put(opcode::PING, b"alive?");
                self.flush(index, handler);
            }
        }
    }
}

/// Puts a frame of the schema on a connection.
pub fn put(connection: &mut Connection, reference: u64, frame: client_frame::Frame) {
    let frame = wire::ClientFrame { r#ref: reference, frame: Some(frame) };
    connection.put(opcode::BINARY, &frame.encode_to_vec());
}

fn address(url: &str) -> Result<(SocketAddr, String)> {
    let host = url.strip_prefix("http://").ok_or_else(|| anyhow!("{url}: the load generator speaks http:// only"))?;
    let host = host.trim_end_matches('/');
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let node = with_port.to_socket_addrs().with_context(|| format!("{url} can't be resolved"))?.next();
    Ok((node.ok_or_else(|| anyhow!("{url} has no address"))?, host.to_owned()))
}
