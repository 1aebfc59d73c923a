//! One device's life: connect to any node, resume, read, send, retry, acknowledge, vanish; whatever breaks, connect again elsewhere.
//!
//! [`session`] is what happens while one socket lasts, [`revoked`] what a device does that has been revoked. What comes and what is
//! sent is noted in the world's history; nothing is judged here.

mod hearing;
mod revoked;
mod session;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use martlet_protocol::{
    rest,
    wire::{self, client_frame},
};
use rand::{RngExt as _, rngs::StdRng};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    inbox::Inbox,
    outbox::Outbox,
    world::{Phase, World},
};
use crate::wire::{Device, Heard, Rest, RestError, Socket, SubProtocol, message::Outgoing};

/// How long a device waits until a node lets it in.
const OPEN_PATIENCE: Duration = Duration::from_secs(4);
/// Pauses up to this long are kept even when all is healed: nobody asks a node in a loop without any.
const SHORT_PAUSE_MS: u64 = 300;
/// When a caller's message is asked for, in µs. A commit and a connection take about as long, so it begins to connect in the middle of it.
const RING_US: std::ops::Range<u64> = 0..35_000;
const CALL_TAKES: Duration = Duration::from_millis(20);
/// For reading to the end when all is over.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// How a device behaves.
#[derive(Clone)]
pub enum Manner {
    /// Writes about once in so many milliseconds, and vanishes now and then.
    Busy {
        /// Mean time between two messages.
        pause_ms: u64,
    },
    /// Asks for one message at the moment it connects, and leaves as soon as it has come: nothing else would tell its node that it is
    /// owed something.
    Caller(Arc<Notify>),
    /// Writes when it is asked to.
    Answerer(Arc<Notify>),
}

/// A device and its durable state.
pub struct Life {
    device: Arc<Device>,
    manner: Manner,
    world: Arc<World>,
    phase: watch::Receiver<Phase>,
    sub_protocol: SubProtocol,
    rng: StdRng,
    inbox: Inbox,
    outbox: Outbox,
    /// It has written its first messages after the last heal.
    has_greeted: bool,
    next_write_ms: u64,
}

type Call = JoinHandle<(usize, Result<rest::Accepted, RestError>)>;

impl Life {
    /// A device that has done nothing yet.
    #[must_use]
    pub fn new(device: Arc<Device>, manner: Manner, world: Arc<World>, mut rng: StdRng) -> Self {
        let sub_protocol = if rng.random_ratio(1, 3) { SubProtocol::Json } else { SubProtocol::Proto };
        let inbox = Inbox::new(device.device_id);
        let phase = world.phase.subscribe();
        // So that a device that is never given anything is judged, too.
        world.history.lock().device(device.device_id);
        let outbox = Outbox::default();
        Self { device, manner, world, phase, sub_protocol, rng, inbox, outbox, has_greeted: false, next_write_ms: 0 }
    }

    /// Lives until all that it sent is settled, or it is revoked.
    pub async fn settle(mut self) -> Self {
        let lived = self.live().await;
        self.note(lived);
        self
    }

    /// Reads everything that is left in the mailbox, when nobody sends any more. Nothing for a revoked device.
    pub async fn read_to_end(&mut self) {
        if self.is_revoked() {
            return;
        }
        let node = self.world.any_node(&mut self.rng);
        let base = self.world.nodes[node].base().to_owned();
        let read = timeout(READ_PATIENCE, self.read(base)).await;
        self.note(read.unwrap_or_else(|_| bail!("the mailbox can't be read to its end within {READ_PATIENCE:?}")));
    }

    /// What broke the protocol is for the checker to judge.
    fn note(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.world.history.lock().device(self.device.device_id).oddities.push(format!("{error:#}"));
        }
    }

    async fn live(&mut self) -> Result<()> {
        while !self.is_settled() {
            if self.is_revoked() {
                self.outbox.abandon(&self.world);
                return self.knock().await;
            }
            let node = self.world.any_node(&mut self.rng);
            self.ring().await;
            let base = self.world.nodes[node].base().to_owned();
            let before_ms = self.world.now_ms();
            let opening = Socket::open(&base, &self.device.token, self.sub_protocol);
            // Not reachable, or gone again: that is what this is about.
            let Ok(Ok((socket, hello))) = timeout(OPEN_PATIENCE, opening).await else {
                self.pause(20, 250).await;
                continue;
            };
            let opened_ms = self.world.now_ms();
            self.session(node, socket, &hello, before_ms).await?;
            let closed_ms = self.world.now_ms();
            self.world.history.lock().device(self.device.device_id).sessions.push((opened_ms, closed_ms));
            self.outbox.connection_lost(&self.world, &mut self.rng);
            self.stay_away().await;
        }
        Ok(())
    }

    async fn read(&mut self, base: String) -> Result<()> {
        let (mut socket, hello) = Socket::open(&base, &self.device.token, self.sub_protocol).await?;
        let head_seq = hello.mailbox.map_or(0, |state| state.head_seq);
        let mailbox = self.inbox.resume_from(&hello, &self.world, &mut self.rng);
        socket.say(RESUME, client_frame::Frame::Resume(wire::Resume { mailbox })).await?;
        while self.inbox.cursor() < head_seq {
            match socket.hear().await? {
                Heard::Frame(reference, frame) => {
                    let now_ms = self.world.now_ms();
                    self.heard(reference, frame, now_ms)?;
                }
                Heard::Closed(code) => bail!("closed with {code:?} before the end of the mailbox"),
            }
        }
        self.world.history.lock().device(self.device.device_id).head_seq = Some(head_seq);
        Ok(())
    }

    fn is_settled(&self) -> bool {
        *self.phase.borrow() >= Phase::Settling && self.outbox.pending.is_empty()
    }

    fn is_revoked(&self) -> bool {
        self.world.history.lock().is_revoked(&self.device.device_id)
    }

    /// Asks for a message that is committed while this device connects and reads: some time before or after it begins to.
    async fn ring(&mut self) {
        if let Manner::Caller(bell) = &self.manner {
            let delay = Duration::from_micros(self.rng.random_range(RING_US));
            let bell = bell.clone();
            tokio::spawn(async move {
                sleep(delay).await;
                bell.notify_one();
            });
            sleep(CALL_TAKES).await;
        }
    }

    /// Between two sockets. Once the last fault is healed nobody stays away.
    async fn stay_away(&mut self) {
        match self.manner {
            Manner::Busy { .. } if self.rng.random_ratio(1, 4) => self.pause(1_000, 8_000).await,
            Manner::Busy { .. } | Manner::Answerer(_) => self.pause(0, 200).await,
            Manner::Caller(_) => {}
        }
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let time = Duration::from_millis(self.rng.random_range(from_ms..to_ms));
        let is_long = to_ms > SHORT_PAUSE_MS;
        tokio::select! {
            () = sleep(time) => {}
            _ = self.phase.wait_for(|phase| *phase >= Phase::Healed), if is_long => {}
        }
    }
}

/// What the resume frame is called by, so that its refusal is known.
const RESUME: u64 = u64::MAX - 1;
/// What a frame is called by that only asks whether anybody is there.
const POKE: u64 = u64::MAX;

async fn post(
    rest: Rest,
    token: String,
    operation: usize,
    outgoing: Outgoing,
) -> (usize, Result<rest::Accepted, RestError>) {
    let answer = match outgoing.body() {
        Ok(body) => rest.post(&outgoing.path(), Some(&token), &body).await,
        Err(error) => Err(RestError::Lost(error.to_string())),
    };
    (operation, answer)
}
