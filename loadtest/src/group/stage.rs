//! The group and its connected readers.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use martlet_client::api::Api;
use martlet_protocol::{
    id::ConversationId,
    wire::{self, client_frame, node_frame, subscribed_log},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    ambient,
    figures::{as_f64, grouped},
    node::{Node, proc},
    people::{self, Bare},
    progress::Progress,
    socket::{Connection, Fleet, Handler, put},
};

/// Registrations under way at once.
const REGISTERING: usize = 64;
/// Connections being opened at once.
const AT_ONCE: usize = 256;
/// How long the answers to all subscriptions may take.
const SUBSCRIBING: Duration = Duration::from_secs(60);
/// Rest before memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// See the module.
pub struct Stage {
    pub fleet: Fleet,
    pub conversation: ConversationId,
    /// The writing device's token.
    pub writer: String,
    /// The log's last `seq`.
    pub head: u64,
    /// Resident memory that the readers cost the node, each, if it can be seen.
    pub memory_per_reader: Option<f64>,
    /// The readers' tokens, in the order of their sockets.
    pub tokens: Vec<String>,
    /// Of the log's numbering.
    pub epoch: u64,
    rng: StdRng,
}

impl Stage {
    /// Registers accounts, makes the group of them and has all but the writer follow its log.
    pub fn set(node: &Node, members: usize) -> Result<Self> {
        let group = make_group(node.url(), members, &mut ambient::system_rng())?;
        Self::of(node, group)
    }

    /// Has all members but the writer of a group that is there follow its log.
    pub fn of(node: &Node, (writer, tokens, conversation): Group) -> Result<Self> {
        let (members, rng) = (tokens.len(), ambient::system_rng());
        let resident =
            || node.pid().map(proc::memory).transpose().map(|memory| memory.map(|memory| memory.resident_bytes));
        let before = resident()?;
        let mut fleet = Fleet::new(node.url())?;
        let mut opening = Opening { conversation, subscribed: 0, head: 0, epoch: 0, troubles: Vec::new() };
        let progress = Progress::new("connecting readers", u64::try_from(members)?);
        let show = progress.clone();
        let by_token = tokens.iter().map(String::as_str);
        fleet.open_all(by_token, AT_ONCE, &mut opening, |live| show.set(u64::try_from(live).unwrap_or(0)))?;
        let since = ambient::now();
        while opening.subscribed < members && opening.troubles.is_empty() && since.elapsed() < SUBSCRIBING {
            fleet.turn(Duration::from_millis(20), &mut opening)?;
        }
        progress.done("");
        ensure!(opening.troubles.is_empty(), "not all could subscribe: {}", opening.troubles[0]);
        ensure!(opening.subscribed == members, "{} of {members} subscribed in time", opening.subscribed);
        let since = ambient::now();
        while since.elapsed() < SETTLE {
            fleet.turn(Duration::from_millis(50), &mut opening)?;
        }
        // Where memory that registering took was enough for the readers too, this says nothing.
        let used = resident()?.zip(before).filter(|(after, before)| after > before);
        let used = used.map(|(after, before)| as_f64(after - before));
        let memory_per_reader = used.map(|bytes| bytes / as_f64(members as u64));
        let Opening { head, epoch, .. } = opening;
        Ok(Self { fleet, conversation, writer, head, memory_per_reader, tokens, epoch, rng })
    }

    /// How many read.
    pub fn members(&self) -> usize {
        self.tokens.len()
    }

    /// Contents for so many messages: random, as ciphertext looks.
    pub fn contents(&mut self, count: usize, bytes: usize) -> std::sync::Arc<[Bytes]> {
        let mut rng = StdRng::from_rng(&mut self.rng);
        let content = |_| {
            let mut content = vec![0; bytes];
            rng.fill_bytes(&mut content);
            Bytes::from(content)
        };
        (0..count).map(content).collect()
    }
}

/// The writer's token, the readers' tokens, and the conversation that they are all members of.
pub type Group = (String, Vec<String>, ConversationId);

/// Registers accounts and makes a group of them.
pub fn make_group(url: &str, members: usize, rng: &mut StdRng) -> Result<Group> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = Progress::new("registering members", u64::try_from(members)?);
    let since = ambient::now();
    let api = Api::new(url)?;
    let run = people::run_name();
    runtime.block_on(async {
        let owner = people::register(&api, &format!("{run}-writer"), 1, rng).await?;
        let register = |i: usize| {
            let (api, username, progress) = (api.clone(), format!("{run}-{i}"), progress.clone());
            let task = tokio::spawn(async move {
                let bare = people::register_member(&api, &username, &mut ambient::system_rng()).await?;
                progress.one();
                anyhow::Ok(bare)
            });
            async move { task.await? }
        };
        let others: Vec<Bare> = stream::iter(0..members).map(register).buffered(REGISTERING).try_collect().await?;
        progress.clone().done(&format!("{} in {:.1} s", grouped(members as u64), since.elapsed().as_secs_f64()));
        let conversation = people::large_conversation(&api, &owner, &others, rng).await?;
        Ok((owner.devices[0].token.clone(), others.into_iter().map(|bare| bare.token).collect(), conversation))
    })
}

/// Subscribes whoever is connected.
struct Opening {
    conversation: ConversationId,
    subscribed: usize,
    head: u64,
    epoch: u64,
    troubles: Vec<String>,
}

impl Handler for Opening {
    fn live(&mut self, _: usize, _: &wire::Hello, connection: &mut Connection) {
        let logs = vec![wire::LogCursor { conversation_id: self.conversation.to_wire(), cursor: None }];
        put(connection, 1, client_frame::Frame::Subscribe(wire::Subscribe { logs }));
    }

    fn frame(&mut self, _: usize, frame: node_frame::Frame, _: u64, _: std::time::Instant, _: &mut Connection) {
        match frame {
            node_frame::Frame::Subscribed(wire::Subscribed { logs }) => {
                match logs.into_iter().next().and_then(|log| log.outcome) {
                    Some(subscribed_log::Outcome::State(state)) => {
                        self.subscribed += 1;
                        self.head = self.head.max(state.head_seq);
                        self.epoch = state.epoch;
                    }
                    other => self.troubles.push(format!("the node answered {other:?}")),
                }
            }
            other => self.troubles.push(format!("the node sent {other:?}")),
        }
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, index: usize, why: &str) {
        self.troubles.push(format!("connection {index}: {why}"));
    }
}
