//! The two servers: how each is started, subscribed to and published to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use martlet_protocol::wire::{self, node_frame};
use martlet_servers::{Nchan as Server, NchanArgs, last_lines};

use super::{count, subscribers::Wire};
use crate::{
    ambient,
    cli::PeersArgs,
    group::{
        stage::{Group, Stage, make_group},
        writer::{Schedule, Writer},
    },
    node::Node,
    socket::{Connection, Fleet, Handler, frame::opcode},
};

/// Connections being opened at once.
pub const AT_ONCE: usize = 256;
/// No answer for so long: it will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that can be measured.
pub trait Contestant {
    /// For messages to people.
    fn name(&self) -> &'static str;
    /// How its messages come.
    fn wire(&self) -> Wire;
    /// Starts it, with nothing in its memory from the turn before.
    fn start(&mut self) -> Result<()>;
    /// All its processes.
    fn processes(&self) -> Result<Vec<u32>>;
    /// Connects and subscribes so many; the number is the place of the last message so far.
    fn connect(&mut self, subscribers: usize) -> Result<(Fleet, u64)>;
    /// Begins to publish, soon, without waiting for answers in between.
    fn publish(&mut self, head: u64, contents: Arc<[Bytes]>) -> Result<Join>;
    /// Ends it.
    fn stop(&mut self) -> Result<()>;
}

/// Waits for the end of publishing, which is under way on a thread of its own.
pub type Join = Box<dyn FnOnce() -> Result<Published>>;

/// What a publisher saw.
pub struct Published {
    /// When the first message went out.
    pub began: Instant,
    /// Messages that the server has confirmed.
    pub accepted: u64,
    /// What went wrong.
    pub troubles: Vec<String>,
}

/// A node with a large conversation.
pub struct Ours {
    node: Node,
    group: Group,
    writer: String,
}

impl Ours {
    /// Registers all members. That is done once; each turn begins with a new process over the same data.
    pub fn prepare(args: &PeersArgs) -> Result<Self> {
        let mut node_args = args.node.clone();
        let members = args.subscribers as usize;
        // The writer is a member too.
        node_args.settings.insert(0, format!("conversations.max_members_large={}", members + 1));
        node_args.settings.insert(0, format!("socket.max_in_flight_sends={}", args.messages));
        let node = Node::start(&node_args)?;
        let group = make_group(node.url(), members, &mut ambient::system_rng())?;
        let writer = group.0.clone();
        Ok(Self { node, group, writer })
    }
}

impl Contestant for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn wire(&self) -> Wire {
        Wire::Log
    }

    fn start(&mut self) -> Result<()> {
        self.node.restart()
    }

    fn processes(&self) -> Result<Vec<u32>> {
        Ok(self.node.pid().into_iter().collect())
    }

    fn connect(&mut self, subscribers: usize) -> Result<(Fleet, u64)> {
        let (writer, tokens, conversation) = &self.group;
        let stage = Stage::of(&self.node, (writer.clone(), tokens[..subscribers].to_vec(), *conversation))?;
        Ok((stage.fleet, stage.head))
    }

    fn publish(&mut self, head: u64, contents: Arc<[Bytes]>) -> Result<Join> {
        let messages = u32::try_from(contents.len())?;
        // All are due within a millisecond.
        let schedule = Schedule::spread(messages, Duration::ZERO);
        let writer = Writer::start(self.node.url(), &self.writer, self.group.2, head, contents, schedule)?;
        let began = writer.schedule().due(0);
        Ok(Box::new(move || {
            let written = writer.join()?;
            Ok(Published { began, accepted: written.accepted, troubles: written.troubles })
        }))
    }

    fn stop(&mut self) -> Result<()> {
        // Nothing of it may run during the other's turn. It is started again over the same data.
        self.node.kill()
    }
}

/// nginx with nchan, and one channel.
pub struct Nchan {
    args: NchanArgs,
    server: Option<Server>,
}

impl Nchan {
    /// Not started yet.
    pub fn new(args: &PeersArgs) -> Self {
        let subscribers = args.subscribers as usize;
        // Twice the burst, so that nothing leaves the channel's buffer before everybody has it.
        let messages = args.messages as usize * 2;
        Self {
            args: NchanArgs { workers: args.nchan_workers.into(), clients: subscribers + 10, messages },
            server: None,
        }
    }

    fn server(&self) -> Result<&Server> {
        self.server.as_ref().ok_or_else(|| anyhow!("nchan is stopped"))
    }
}

impl Contestant for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn wire(&self) -> Wire {
        Wire::Bare
    }

    fn start(&mut self) -> Result<()> {
        self.server = Some(Server::start(self.args)?);
        Ok(())
    }

    fn processes(&self) -> Result<Vec<u32>> {
        self.server()?.processes()?.into_iter().map(|pid| Ok(u32::try_from(pid)?)).collect()
    }

    fn connect(&mut self, subscribers: usize) -> Result<(Fleet, u64)> {
        let server = self.server()?;
        let mut fleet = Fleet::bare(&server.url(), Server::SUBSCRIBE)?;
        let mut opening = Opening::default();
        fleet.open_all((0..subscribers).map(|_| ""), AT_ONCE, &mut opening, |_| {})?;
        let log = || last_lines(&server.log(), 5);
        ensure!(opening.troubles.is_empty(), "not all could connect: {}; {}", opening.troubles[0], log());
        let since = ambient::now();
        // Those who went before may still be counted for a moment.
        while server.subscribers()? != subscribers as u64 {
            ensure!(since.elapsed() < PATIENCE, "nchan does not count {} subscribers", count(subscribers));
            fleet.turn(Duration::from_millis(50), &mut opening)?;
        }
        Ok((fleet, 0))
    }

    fn publish(&mut self, _: u64, contents: Arc<[Bytes]>) -> Result<Join> {
        let mut fleet = Fleet::bare(&self.server()?.url(), Server::PUBLISH)?;
        let mut opening = Opening::default();
        fleet.open_all([""], 1, &mut opening, |_| {})?;
        ensure!(fleet.live() == 1, "the publisher could not connect: {:?}", opening.troubles);
        let thread = std::thread::spawn(move || publish(fleet, &contents));
        Ok(Box::new(move || thread.join().map_err(|_| anyhow!("the publisher panicked"))?))
    }

    fn stop(&mut self) -> Result<()> {
        self.server = None;
        Ok(())
    }
}

/// Publishes over one WebSocket.
fn publish(mut fleet: Fleet, contents: &[Bytes]) -> Result<Published> {
    let mut answers = Opening::default();
    let began = ambient::now();
    for content in contents {
        let Some(connection) = fleet.connection(0) else { break };
        connection.put(opcode::BINARY, content);
        fleet.flush(0, &mut answers);
        fleet.turn(Duration::ZERO, &mut answers)?;
    }
    let count = contents.len() as u64;
    while answers.answers < count && answers.troubles.is_empty() && began.elapsed() < PATIENCE {
        fleet.turn(Duration::from_millis(20), &mut answers)?;
    }
    Ok(Published { began, accepted: answers.answers, troubles: answers.troubles })
}

/// Sockets that get nothing but answers to what they publish.
#[derive(Default)]
struct Opening {
    answers: u64,
    troubles: Vec<String>,
}

impl Handler for Opening {
    fn live(&mut self, _: usize, _: &wire::Hello, _: &mut Connection) {}

    fn raw(&mut self, _: usize, _: &[u8], _: Instant) -> Result<bool, String> {
        self.answers += 1;
        Ok(true)
    }

    fn frame(&mut self, _: usize, _: node_frame::Frame, _: u64, _: Instant, _: &mut Connection) {}

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, index: usize, why: &str) {
        self.troubles.push(format!("connection {index}: {why}"));
    }
}
