//! A device's durable side of reading: its cursor, what the application has, and what it has yet to acknowledge.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use martlet_protocol::{id::MessageId, wire};
use rand::{RngExt as _, rngs::StdRng};

use super::participant::Shared;
use crate::{history::GapSeen, wire::Device};

/// Entries between two acks, at most.
const LAZY_ACK: u64 = 40;

/// What outlives every socket.
pub struct Inbox {
    epoch: u64,
    /// The last number that the application has.
    cursor: u64,
    acked: u64,
    ack_at: u64,
    applied: HashSet<MessageId>,
    /// The number that has to come next on this socket; none until the first comes.
    expected: Option<u64>,
}

impl Inbox {
    pub fn new() -> Self {
        Self { epoch: 0, cursor: 0, acked: 0, ack_at: 1, applied: HashSet::new(), expected: None }
    }

    /// Where to go on reading: mostly after the last entry, sometimes from further back, as a client does that lost its last write,
    /// sometimes from wherever the node thinks.
    pub fn resume_from(&mut self, hello: &wire::Hello, rng: &mut StdRng) -> Result<Option<wire::Cursor>> {
        let state = hello.mailbox.context("a hello without the mailbox's state")?;
        anyhow::ensure!(self.epoch == 0 || self.epoch == state.epoch, "the epoch changed over a crash");
        self.epoch = state.epoch;
        let seq = match rng.random_range(0..4) {
            0 => {
                self.expected = None;
                return Ok(None);
            }
            1 => rng.random_range(self.acked..=self.cursor),
            _ => self.cursor,
        };
        self.expected = Some(seq + 1);
        Ok(Some(wire::Cursor { epoch: self.epoch, seq }))
    }

    /// An entry came: the application stores it with the cursor, unless it has it.
    pub fn entry(&mut self, device: &Device, entry: &wire::MailboxEntry, shared: &Shared) -> Result<()> {
        let opened = device.open(entry).context("an entry that its device can't use")?;
        let mut history = shared.history.lock();
        let part = history.device(device.device_id);
        part.wire.push(opened.clone());
        if let Some(expected) = self.follows(opened.seq, opened.seq) {
            part.jumps.push((expected, opened.seq));
        }
        if self.applied.insert(opened.message_id) {
            part.applied.push(opened);
        }
        Ok(())
    }

    /// A gap marker came.
    pub fn gap(&mut self, device: &Device, gap: &wire::Gap, shared: &Shared) {
        let mut history = shared.history.lock();
        let part = history.device(device.device_id);
        if let Some(expected) = self.follows(gap.from_seq, gap.to_seq) {
            part.jumps.push((expected, gap.from_seq));
        }
        part.gaps.push(GapSeen { from_seq: gap.from_seq, to_seq: gap.to_seq, reason: gap.reason() });
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

    /// The last number that the application has.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}
