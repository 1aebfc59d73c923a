//! A device's durable side of reading: its cursor, and what it has yet to acknowledge. What came goes to the history.

use martlet_protocol::{id::DeviceId, wire};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    history::{Delivery, GapSeen},
    world::World,
};
use crate::wire::Device;

/// Entries between two acks, at most.
const LAZY_ACK: u64 = 60;

/// What outlives every socket.
pub struct Inbox {
    device: DeviceId,
    epoch: u64,
    /// The last number that the application has.
    cursor: u64,
    acked: u64,
    ack_at: u64,
    /// The number that has to come next on this socket; none until the first comes.
    expected: Option<u64>,
    /// The newest entry of this socket came then; none before the first.
    pub last_entry_ms: Option<u64>,
}

impl Inbox {
    /// Of a device that has read nothing.
    #[must_use]
    pub fn new(device: DeviceId) -> Self {
        Self { device, epoch: 0, cursor: 0, acked: 0, ack_at: 1, expected: None, last_entry_ms: None }
    }

    /// Where to go on reading: mostly after the last entry, sometimes from further back, as a client does that lost its last write,
    /// sometimes from wherever the node thinks.
    pub fn resume_from(&mut self, hello: &wire::Hello, world: &World, rng: &mut StdRng) -> Option<wire::Cursor> {
        self.last_entry_ms = None;
        let Some(state) = hello.mailbox else {
            self.odd(world, "a hello without the mailbox's state".to_owned());
            return None;
        };
        if self.epoch != 0 && self.epoch != state.epoch {
            self.odd(world, format!("the epoch changed from {} to {}", self.epoch, state.epoch));
            self.expected = None;
        }
        self.epoch = state.epoch;
        let seq = match rng.random_range(0..8) {
            0 => {
                self.expected = None;
                return None;
            }
            1 => rng.random_range(self.acked..=self.cursor),
            _ => self.cursor,
        };
        self.expected = Some(seq + 1);
        Some(wire::Cursor { epoch: self.epoch, seq })
    }

    /// The node refused the cursor, which it may not: goes on from wherever the node thinks.
    pub fn refused(&mut self, world: &World, code: &str) {
        self.odd(world, format!("the cursor {} was refused: {code}", self.cursor));
        self.cursor = 0;
        self.acked = 0;
        self.expected = None;
    }

    /// An entry came: the application stores it with the cursor.
    pub fn entry(&mut self, device: &Device, entry: &wire::MailboxEntry, world: &World, written_after_ms: u64) {
        let opened = match device.open(entry) {
            Ok(opened) => opened,
            Err(error) => return self.odd(world, format!("entry {} can't be used: {error:#}", entry.seq)),
        };
        let at_ms = world.now_ms();
        self.last_entry_ms = Some(at_ms);
        let seq = opened.seq;
        let jump = self.follows(seq, seq);
        let mut history = world.history.lock();
        let part = history.device(self.device);
        part.deliveries.push(Delivery { entry: opened, at_ms, written_after_ms });
        part.jumps.extend(jump.map(|expected| (expected, seq)));
    }

    /// A gap marker came.
    pub fn gap(&mut self, gap: &wire::Gap, world: &World) {
        let jump = self.follows(gap.from_seq, gap.to_seq);
        let mut history = world.history.lock();
        let part = history.device(self.device);
        part.jumps.extend(jump.map(|expected| (expected, gap.from_seq)));
        let seen = GapSeen { from_seq: gap.from_seq, to_seq: gap.to_seq, reason: gap.reason() };
        if !part.gaps.contains(&seen) {
            part.gaps.push(seen);
        }
    }

    /// Moves on; gives what was expected if the range does not follow. A first entry may repeat, but may leave nothing out.
    fn follows(&mut self, from_seq: u64, to_seq: u64) -> Option<u64> {
        let expected = self.expected.unwrap_or(from_seq.min(self.cursor + 1));
        self.expected = Some(to_seq + 1);
        self.cursor = self.cursor.max(to_seq);
        (expected != from_seq).then_some(expected)
    }

    /// The ack that is due, if one is. It names what came over this socket only, as the node knows of no other.
    pub fn due_ack(&mut self, at_once: bool, rng: &mut StdRng) -> Option<wire::Cursor> {
        let came = self.expected.map_or(0, |expected| expected - 1).min(self.cursor);
        let due = came > self.acked && (at_once || came >= self.ack_at);
        due.then(|| {
            self.acked = came;
            self.ack_at = came + rng.random_range(1..=LAZY_ACK);
            wire::Cursor { epoch: self.epoch, seq: came }
        })
    }

    /// A cursor that no mailbox has reached: an ack of it is refused, and so answered.
    #[must_use]
    pub fn beyond(&self) -> wire::Cursor {
        wire::Cursor { epoch: self.epoch, seq: u64::MAX }
    }

    /// The last number that the application has.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    fn odd(&self, world: &World, what: String) {
        let mut history = world.history.lock();
        let part = history.device(self.device);
        // One broken store says the same a thousand times.
        if part.oddities.len() < 20 {
            part.oddities.push(what);
        }
    }
}
