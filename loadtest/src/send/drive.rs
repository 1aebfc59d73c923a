//! The measured part: every sender keeps its window of sends full, or all send in turn by the clock; every device takes what comes and
//! acknowledges now and then.
//!
//! A device here gets messages of one sender only, so its mailbox must hold that sender's messages in order: entry n is message n.
//! That gives each entry its time of sending without opening it on the clock; afterwards [`super::verify`] opens them all and finds
//! out whether it was so.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use martlet_protocol::wire::{self, node_frame};

use super::{
    ends::{AckPace, Mailbox, Sender},
    tally::{Span, Tally},
};
use crate::{
    ambient,
    socket::{Connection, Fleet, Handler, Spread},
};

/// How often late acknowledgements are looked for.
const ACK_SWEEP: Duration = Duration::from_millis(50);
/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it is driven.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Unanswered sends per sender.
    pub window: usize,
    /// When devices acknowledge.
    pub acks: AckPace,
}

/// The senders and all mailboxes. Devices are numbered circle by circle, the sending device first.
pub struct Drive {
    pace: Pace,
    devices_per_circle: usize,
    spread: Spread,
    senders: Vec<Sender>,
    /// Whose turn it is, by the clock.
    next_sender: usize,
    boxes: Vec<Mailbox>,
    /// Windows are kept full.
    sending: bool,
    span: Option<Span>,
    tally: Tally,
    troubles: BTreeMap<String, u64>,
    moved_at: Instant,
    swept_at: Instant,
}

impl Drive {
    /// For so many circles of so many devices each, spread over nodes.
    #[must_use]
    pub fn new(pace: Pace, circles: usize, spread: Spread) -> Self {
        let devices_per_circle = spread.group;
        let now = ambient::now();
        Self {
            pace,
            devices_per_circle,
            spread,
            senders: (0..circles).map(|_| Sender::default()).collect(),
            next_sender: 0,
            boxes: (0..circles * devices_per_circle).map(|_| Mailbox::default()).collect(),
            sending: false,
            span: None,
            tally: Tally::default(),
            troubles: BTreeMap::new(),
            moved_at: now,
            swept_at: now,
        }
    }

    /// Gives every sender further messages to send.
    pub fn load(&mut self, frames: Vec<Vec<Bytes>>) {
        for (sender, frames) in self.senders.iter_mut().zip(frames) {
            sender.queue.extend(frames);
        }
    }

    /// Serves the sockets for a moment.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        fleet.turn(wait, self)?;
        let now = ambient::now();
        if now.duration_since(self.swept_at) >= ACK_SWEEP {
            self.swept_at = now;
            self.ack_older_than(fleet, now, self.pace.acks.delay);
        }
        Ok(())
    }

    /// Sends for so long, or until a sender has nothing more to send; tells for how long it did.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn send_for(&mut self, fleet: &mut Fleet, time: Duration) -> Result<Duration> {
        let start = ambient::now();
        // Whatever went before (encrypting, most of all) was no silence of the node.
        self.moved_at = start;
        self.sending = true;
        for i in 0..self.senders.len() {
            let index = i * self.devices_per_circle;
            if let Some(connection) = fleet.connection(index) {
                self.fill(i, connection);
                fleet.flush(index, self);
            }
        }
        while start.elapsed() < time && !self.has_run_out() && self.moved_at.elapsed() < PATIENCE {
            self.turn(fleet, Duration::from_millis(10))?;
        }
        Ok(start.elapsed())
    }

    /// Sends so many a second for so long, all senders in turn, whatever the node does. A send that was late counts from when it was due.
    ///
    /// # Errors
    /// When the system's poll fails, or too few messages were prepared.
    pub fn send_at(&mut self, fleet: &mut Fleet, rate: u32, time: Duration) -> Result<Duration> {
        let start = ambient::now();
        self.moved_at = start;
        self.sending = false;
        for n in 0.. {
            let after = Duration::from_secs_f64(f64::from(n) / f64::from(rate));
            if after >= time || self.moved_at.elapsed() >= PATIENCE {
                break;
            }
            let due = start + after;
            // At least once, so that a generator that is late still reads.
            self.turn(fleet, due.saturating_duration_since(ambient::now()))?;
            while let Some(left) = due.checked_duration_since(ambient::now()).filter(|left| !left.is_zero()) {
                self.turn(fleet, left)?;
            }
            let i = self.next_sender;
            self.next_sender = (i + 1) % self.senders.len();
            let index = i * self.devices_per_circle;
            if let Some(connection) = fleet.connection(index) {
                self.senders[i].send(due, connection)?;
                fleet.flush(index, self);
            }
        }
        Ok(start.elapsed())
    }

    fn has_run_out(&self) -> bool {
        self.senders.iter().any(|sender| sender.queue.is_empty() && !sender.stopped)
    }

    /// Redis was stopped, or runs again.
    pub fn relay_lost(&mut self, is_lost: bool) {
        for sender in &mut self.senders {
            let next = sender.sent_at.len();
            sender.relay_lost =
                if is_lost { Some((next, usize::MAX)) } else { sender.relay_lost.map(|(from, _)| (from, next)) };
        }
    }

    /// From now on it counts.
    pub fn start_clock(&mut self) {
        self.tally = Tally::default();
        self.span = Some(Span { start: ambient::now(), end: None });
    }

    /// From now on nothing more is sent, and what comes counts only as the end of what was sent.
    pub fn stop_clock(&mut self) {
        self.sending = false;
        if let Some(span) = &mut self.span {
            span.end = Some(ambient::now());
        }
    }

    /// Waits until every send is answered and every device has everything that was accepted, then acknowledges all of it. Tells whether
    /// everything came.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn drain(&mut self, fleet: &mut Fleet) -> Result<bool> {
        self.sending = false;
        self.moved_at = ambient::now();
        while !self.is_drained() && self.moved_at.elapsed() < PATIENCE {
            self.turn(fleet, Duration::from_millis(10))?;
        }
        self.ack_older_than(fleet, ambient::now(), Duration::ZERO);
        while self.boxes.iter().any(Mailbox::has_unacked) && self.moved_at.elapsed() < PATIENCE {
            self.turn(fleet, Duration::from_millis(10))?;
            self.ack_older_than(fleet, ambient::now(), Duration::ZERO);
        }
        Ok(self.is_drained())
    }

    fn is_drained(&self) -> bool {
        let complete = |index: usize, mailbox: &Mailbox| {
            let accepted = self.senders[index / self.devices_per_circle].accepted;
            u64::try_from(mailbox.entries.len()).is_ok_and(|entries| entries >= accepted)
        };
        self.senders.iter().all(|sender| sender.in_flight == 0)
            && self.boxes.iter().enumerate().all(|(index, mailbox)| complete(index, mailbox))
    }

    /// What happened in the time that counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sends accepted since the beginning, by sender.
    pub fn accepted(&self) -> impl Iterator<Item = u64> {
        self.senders.iter().map(|sender| sender.accepted)
    }

    /// What every device has got.
    #[must_use]
    pub fn boxes(&self) -> &[Mailbox] {
        &self.boxes
    }

    /// What went wrong, and how often.
    #[must_use]
    pub fn troubles(&self) -> &BTreeMap<String, u64> {
        &self.troubles
    }

    fn trouble(&mut self, what: impl Into<String>) {
        *self.troubles.entry(what.into()).or_default() += 1;
    }

    /// Fills a sender's window.
    fn fill(&mut self, i: usize, connection: &mut Connection) {
        let sender = &mut self.senders[i];
        if sender.stopped || sender.in_flight >= self.pace.window {
            return;
        }
        let now = ambient::now();
        while sender.in_flight < self.pace.window && sender.send(now, connection).is_ok() {}
    }

    fn accepted_one(&mut self, i: usize, reference: u64, accepted: &wire::Accepted, at: Instant) {
        if !accepted.partial_device_ids.is_empty() {
            self.trouble("a mailbox was full");
        }
        let sender = &mut self.senders[i];
        sender.in_flight = sender.in_flight.saturating_sub(1);
        sender.accepted += 1;
        if sender.accepted != reference && !sender.stopped {
            self.trouble("answers out of order");
        }
        let Some(span) = self.span else { return };
        self.tally.accepted += u64::from(span.holds(at));
        if let Some(sent_at) = nth(&self.senders[i].sent_at, reference)
            && span.holds(*sent_at)
        {
            self.tally.answers.record(at.duration_since(*sent_at));
        }
    }

    fn refused_one(&mut self, i: usize, problem: &wire::Problem) {
        let sender = &mut self.senders[i];
        sender.in_flight = sender.in_flight.saturating_sub(1);
        sender.stopped = true;
        self.trouble(format!("refused: {} {}", problem.code, problem.detail));
    }

    fn entry(&mut self, index: usize, entry: wire::MailboxEntry, at: Instant, connection: &mut Connection) {
        let (i, is_echo) = (index / self.devices_per_circle, index.is_multiple_of(self.devices_per_circle));
        let seq = match self.boxes[index].take(entry, at, self.pace.acks, connection) {
            Ok(seq) => seq,
            Err(what) => return self.trouble(what),
        };
        let Some(span) = self.span else { return };
        if is_echo {
            self.tally.echoes += u64::from(span.holds(at));
            return;
        }
        self.tally.forks += u64::from(span.holds(at));
        if let Some(sent_at) = nth(&self.senders[i].sent_at, seq)
            && span.holds(*sent_at)
        {
            let took = at.duration_since(*sent_at);
            self.tally.delivery.record(took);
            if self.spread.node_of(index) != self.spread.node_of(i * self.devices_per_circle) {
                self.tally.to_other_nodes.record(took);
                let number = usize::try_from(seq).unwrap_or(usize::MAX) - 1;
                if self.senders[i].relay_lost.is_some_and(|(from, to)| number >= from && number < to) {
                    self.tally.without_relay.record(took);
                }
            } else {
                self.tally.on_own_node.record(took);
            }
        }
    }

    fn ack_older_than(&mut self, fleet: &mut Fleet, now: Instant, age: Duration) {
        for index in 0..self.boxes.len() {
            let mailbox = &mut self.boxes[index];
            if mailbox.is_unacked_for(age, now)
                && let Some(connection) = fleet.connection(index)
            {
                mailbox.ack(connection);
                fleet.flush(index, self);
            }
        }
    }
}

/// Counted from 1.
fn nth(times: &[Instant], number: u64) -> Option<&Instant> {
    times.get(usize::try_from(number.checked_sub(1)?).ok()?)
}

impl Handler for Drive {
    fn live(&mut self, index: usize, hello: &wire::Hello, _: &mut Connection) {
        if let Some(state) = &hello.mailbox {
            self.boxes[index].epoch = state.epoch;
        }
    }

    fn frame(
        &mut self,
        index: usize,
        frame: node_frame::Frame,
        reference: u64,
        at: Instant,
        connection: &mut Connection,
    ) {
        self.moved_at = at;
        match frame {
            node_frame::Frame::Entry(entry) => self.entry(index, entry, at, connection),
            node_frame::Frame::Accepted(accepted) => {
                let i = index / self.devices_per_circle;
                self.accepted_one(i, reference, &accepted, at);
                if self.sending {
                    self.fill(i, connection);
                }
            }
            node_frame::Frame::Problem(problem) if reference > 0 => {
                self.refused_one(index / self.devices_per_circle, &problem);
            }
            node_frame::Frame::Problem(problem) => {
                self.trouble(format!("problem: {} {}", problem.code, problem.detail))
            }
            node_frame::Frame::Gap(gap) => self.trouble(format!("a gap: {:?}", gap.reason())),
            node_frame::Frame::Draining(_) => self.trouble("the node is shutting down"),
            node_frame::Frame::AcceptedEphemeral(_) | node_frame::Frame::Ephemeral(_) => {
                self.trouble("something ephemeral, which nobody sends here");
            }
            node_frame::Frame::Subscribed(_)
            | node_frame::Frame::Unsubscribed(_)
            | node_frame::Frame::LogItems(_)
            | node_frame::Frame::LogEnded(_) => self.trouble("something of a log, which nobody reads here"),
            node_frame::Frame::Hello(_) | node_frame::Frame::CaughtUp(_) => {}
        }
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, why: &str) {
        self.trouble(format!("a connection was lost: {why}"));
    }
}
