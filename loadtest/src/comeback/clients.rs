//! The clients: each keeps a cursor, comes back with it, and must get every entry once and in order.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use martlet_protocol::{
    id::ConversationId,
    wire::{self, client_frame, node_frame, subscribed_log},
};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    ambient,
    costs::Troubles,
    figures::Times,
    group::{log::Log, stage::Stage, writer::Schedule},
    socket::{Connection, Fleet, Handler, log_frame, put},
};

/// What a client does when its socket is lost or can't be opened: it waits any time up to a bound that doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Sockets that are cut now and then.
#[derive(Debug, Clone, Copy)]
pub struct Cuts {
    /// How long a socket stands, about.
    pub every: Duration,
    /// How long its client is away, about.
    pub away: Duration,
}

/// See the module.
pub struct Clients {
    conversation: ConversationId,
    epoch: u64,
    log: Log,
    schedule: Option<Schedule>,
    tokens: Vec<String>,
    clients: Vec<Client>,
    complete: usize,
    /// What is to be done for a client, and when.
    agenda: BinaryHeap<Reverse<(Instant, usize)>>,
    cuts: Option<Cuts>,
    /// No client is cut any more.
    is_peace: bool,
    moved_at: Instant,
    rng: StdRng,
    /// Entries that came, and those of them that had been due while their client was away.
    pub entries: u64,
    pub replayed: u64,
    /// How often a socket was opened again.
    pub returns: u64,
    /// From the moment a message was due to its arrival.
    pub latency: Times,
    /// Of those that were due while the client was away.
    pub replay_latency: Times,
    /// From a socket's return (its connection is asked for) until its client has everything that was there.
    pub catching_up: Times,
    /// When each client was back and caught up for the first time since [`Self::mark`].
    pub back_at: Vec<Option<Instant>>,
    back: usize,
    pub troubles: Troubles,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    got: usize,
    /// Its socket stands, or is being opened.
    is_here: bool,
    /// When it began to come back, and what it had then, until it has caught up.
    returning: Option<Instant>,
    /// When it went, the last time.
    gone_at: Instant,
    came_at: Instant,
    /// Where the log stood when it had subscribed.
    target: Option<u64>,
    failures: u32,
}

impl Clients {
    pub fn new(stage: &Stage, log: Log, cuts: Option<Cuts>) -> Self {
        let now = ambient::now();
        let client =
            Client { got: 0, is_here: true, returning: None, gone_at: now, came_at: now, target: None, failures: 0 };
        let tokens = stage.tokens.clone();
        let mut clients = Self {
            conversation: stage.conversation,
            epoch: stage.epoch,
            log,
            schedule: None,
            clients: vec![client; tokens.len()],
            back_at: vec![None; tokens.len()],
            back: 0,
            tokens,
            complete: 0,
            agenda: BinaryHeap::new(),
            cuts,
            is_peace: false,
            moved_at: now,
            rng: ambient::system_rng(),
            entries: 0,
            replayed: 0,
            returns: 0,
            latency: Times::new(),
            replay_latency: Times::new(),
            catching_up: Times::new(),
            troubles: Troubles::default(),
        };
        if let Some(cuts) = cuts {
            // The first cuts are spread over a whole life, so that they don't come together.
            for index in 0..clients.clients.len() {
                let at = now + cuts.every.mul_f64(clients.rng.random_range(0.0..1.3));
                clients.agenda.push(Reverse((at, index)));
            }
        }
        clients
    }

    /// When messages are due.
    pub fn schedule(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
        self.moved_at = ambient::now();
    }

    /// Nobody is cut any more; those who are away come back.
    pub fn make_peace(&mut self) {
        self.is_peace = true;
    }

    /// From here on [`Self::back_at`] counts.
    pub fn mark(&mut self) {
        self.back_at.fill(None);
        self.back = 0;
    }

    /// How many are back and caught up since then.
    pub fn back(&self) -> usize {
        self.back
    }

    /// Everybody has everything.
    pub fn is_complete(&self) -> bool {
        self.complete == self.clients.len()
    }

    /// Everybody has everything, and nobody is on the way back.
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.clients.iter().all(|client| client.returning.is_none())
    }

    /// Entries that did not come.
    pub fn missing(&self) -> u64 {
        self.clients.iter().map(|client| (self.log.len() - client.got) as u64).sum()
    }

    /// Says of those who lack something how far they have come.
    pub fn explain(&mut self, fleet: &Fleet) {
        for index in 0..self.clients.len() {
            let client = self.clients[index];
            if client.got < self.log.len() || client.returning.is_some() {
                let subscribed = if client.target.is_some() { "subscribed" } else { "not subscribed" };
                self.troubles.add(format!("a client that lacks something {} and has {subscribed}", fleet.stage(index)));
            }
        }
    }

    /// For how long nothing has come.
    pub fn quiet_for(&self) -> Duration {
        self.moved_at.elapsed()
    }

    /// Cuts whose time is up, opens again who was away long enough.
    pub fn act(&mut self, fleet: &mut Fleet) {
        let now = ambient::now();
        while let Some(Reverse((at, index))) = self.agenda.peek().copied()
            && at <= now
        {
            self.agenda.pop();
            if !self.clients[index].is_here {
                self.come_back(index, fleet);
            } else if !self.is_peace
                && let Some(cuts) = self.cuts
            {
                fleet.cut(index);
                let away = around(&mut self.rng, cuts.away);
                self.leave(index, away);
            }
        }
    }

    fn leave(&mut self, index: usize, wait: Duration) {
        let now = ambient::now();
        let client = &mut self.clients[index];
        if client.is_here && client.returning.is_none() {
            client.gone_at = now;
        }
        (client.is_here, client.target, client.returning) = (false, None, None);
        self.agenda.push(Reverse((now + wait, index)));
    }

    fn come_back(&mut self, index: usize, fleet: &mut Fleet) {
        let now = ambient::now();
        self.returns += 1;
        let client = &mut self.clients[index];
        (client.is_here, client.returning, client.came_at) = (true, Some(now), now);
        let token = self.tokens[index].clone();
        fleet.open_again(index, &token, self);
    }

    fn take(&mut self, index: usize, entry: log_frame::Entry<'_>, at: Instant) -> Result<(), String> {
        let client = &mut self.clients[index];
        let n = client.got;
        if let Some(what) = self.log.check(n, entry)? {
            self.troubles.add(what);
            return Ok(());
        }
        client.got += 1;
        self.entries += 1;
        self.complete += usize::from(client.got == self.log.len());
        if let Some(schedule) = self.schedule {
            let due = schedule.due(n);
            let took = at.saturating_duration_since(due);
            self.latency.record(took);
            if due >= client.gone_at && due < client.came_at {
                self.replayed += 1;
                self.replay_latency.record(took);
            }
        }
        self.caught_up(index, at);
        Ok(())
    }

    /// Notes when a client has everything that was there when it had subscribed.
    fn caught_up(&mut self, index: usize, at: Instant) {
        let client = &mut self.clients[index];
        if client.target.is_some_and(|target| self.log.seq(client.got) >= target)
            && let Some(since) = client.returning.take()
        {
            client.failures = 0;
            self.catching_up.record(at.duration_since(since));
            if self.back_at[index].is_none() {
                self.back_at[index] = Some(at);
                self.back += 1;
            }
            if let Some(cuts) = self.cuts {
                let stands = around(&mut self.rng, cuts.every);
                self.agenda.push(Reverse((at + stands, index)));
            }
        }
    }
}

/// A third more or less.
fn around(rng: &mut StdRng, time: Duration) -> Duration {
    time.mul_f64(rng.random_range(0.67..1.33))
}

impl Handler for Clients {
    fn live(&mut self, _: usize, _: &wire::Hello, _: &mut Connection) {}

    fn greeted(&mut self, index: usize, connection: &mut Connection) {
        let cursor = wire::Cursor { epoch: self.epoch, seq: self.log.seq(self.clients[index].got) };
        let logs = vec![wire::LogCursor { conversation_id: self.conversation.to_wire(), cursor: Some(cursor) }];
        put(connection, 1, client_frame::Frame::Subscribe(wire::Subscribe { logs }));
    }

    fn raw(&mut self, index: usize, payload: &[u8], at: Instant) -> Result<bool, String> {
        self.moved_at = at;
        log_frame::entries(payload, |entry| self.take(index, entry, at))
    }

    fn frame(&mut self, index: usize, frame: node_frame::Frame, _: u64, at: Instant, _: &mut Connection) {
        match frame {
            node_frame::Frame::Subscribed(wire::Subscribed { logs }) => {
                match logs.into_iter().next().and_then(|log| log.outcome) {
                    Some(subscribed_log::Outcome::State(state)) => {
                        self.clients[index].target = Some(state.head_seq);
                        self.caught_up(index, at);
                    }
                    other => self.troubles.add(format!("the node answered {other:?}")),
                }
            }
            // It closes the socket soon, and then its client comes back.
            node_frame::Frame::Draining(_) => {}
            other => self.troubles.add(format!("the node sent {other:?}")),
        }
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    /// Not by our own cut: the node went away, or was not there.
    fn gone(&mut self, index: usize, why: &str) {
        if self.cuts.is_some() {
            self.troubles.add(format!("a connection was lost: {why}"));
        }
        let client = &mut self.clients[index];
        let bound = FIRST_WAIT.saturating_mul(1 << client.failures.min(8)).min(LONGEST_WAIT);
        client.failures += 1;
        let wait = bound.mul_f64(self.rng.random_range(0.0..1.0));
        self.leave(index, wait);
    }
}
