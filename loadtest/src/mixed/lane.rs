//! The messages of one kind: when each is due, who sends it, and what became of them all.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{figures::Times, group::writer::Schedule};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stored message to the devices of a direct conversation.
    Direct,
    /// A message to a large group's log.
    Group,
    /// Typing or presence: to those devices of a direct conversation that are connected.
    Presence,
}

impl Kind {
    /// Each has its place among a drive's lanes.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Group, Self::Presence];
    /// Marks in a request's reference of which kind it is; the message's number at its sender, from 1, stands below.
    const SHIFT: u32 = 48;

    /// By which the node answers the sender's message of this number, from 0. Direct messages count from 1 and have no mark, since those of
    /// [`crate::send::write`] are written so.
    pub fn reference(self, number: usize) -> u64 {
        (self as u64) << Self::SHIFT | (number as u64 + 1)
    }

    /// What a reference says.
    pub fn of(reference: u64) -> Option<(Self, usize)> {
        let kind = Self::ALL.get(usize::try_from(reference >> Self::SHIFT).ok()?)?;
        let number = (reference & ((1 << Self::SHIFT) - 1)).checked_sub(1)?;
        Some((*kind, usize::try_from(number).ok()?))
    }
}

/// See the module. Message k is of sender k modulo their number, so a sender's n-th is known without a table.
pub struct Lane {
    schedule: Schedule,
    /// How many senders take turns.
    senders: usize,
    /// In the order in which they are due, each with the socket that sends it.
    frames: Vec<(usize, Bytes)>,
    next: usize,
    /// By sender.
    pub accepted: Vec<u64>,
    /// Entries that must come in the end.
    pub expected: u64,
    /// Entries that came, echoes among them.
    pub arrived: u64,
    /// From the moment a message was due to the answer.
    pub answers: Times,
    /// From the moment a message was due to its arrival at a device other than its sender.
    pub delivery: Times,
    /// Latest sending, counted from the moment it was due: the generator's own part.
    pub late: Times,
}

impl Lane {
    /// Of these frames; each brings so many entries in the end, all together.
    pub fn new(schedule: Schedule, senders: usize, frames: Vec<(usize, Bytes)>, expected: u64) -> Self {
        Self {
            schedule,
            senders,
            frames,
            next: 0,
            accepted: vec![0; senders],
            expected,
            arrived: 0,
            answers: Times::new(),
            delivery: Times::new(),
            late: Times::new(),
        }
    }

    /// The first message is due then.
    pub fn start(&mut self, at: Instant) {
        self.schedule = self.schedule.starting(at);
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// How long until the next message is due; nothing if there is none left.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        (self.next < self.frames.len()).then(|| self.schedule.due(self.next).saturating_duration_since(now))
    }

    /// The next message, if it is due, and the socket that sends it.
    pub fn take(&mut self, now: Instant) -> Option<(usize, Bytes)> {
        self.wait(now).filter(Duration::is_zero)?;
        if self.schedule.counts(self.next) {
            self.late.record(now.saturating_duration_since(self.schedule.due(self.next)));
        }
        let (index, frame) = self.frames.get(self.next)?;
        self.next += 1;
        Some((*index, frame.clone()))
    }

    /// How long a sender's message of this number, from 0, has taken; nothing if it does not count.
    fn took(&self, sender: usize, number: usize, at: Instant) -> Option<Duration> {
        let message = number * self.senders + sender;
        self.schedule.counts(message).then(|| at.saturating_duration_since(self.schedule.due(message)))
    }

    /// A sender's message of this number was answered. False if another one had to be answered first.
    pub fn accept(&mut self, sender: usize, number: usize, at: Instant) -> bool {
        if let Some(took) = self.took(sender, number, at) {
            self.answers.record(took);
        }
        let is_in_order = self.accepted[sender] == number as u64;
        self.accepted[sender] += 1;
        is_in_order
    }

    /// An entry of it has come to a device; an echo tells of no delivery.
    pub fn arrive(&mut self, sender: usize, number: usize, at: Instant, is_echo: bool) {
        self.arrived += 1;
        if let Some(took) = self.took(sender, number, at).filter(|_| !is_echo) {
            self.delivery.record(took);
        }
    }

    /// All are sent, answered, and wherever they must come.
    pub fn is_complete(&self) -> bool {
        self.next == self.frames.len()
            && self.all_accepted() == self.frames.len() as u64
            && self.arrived >= self.expected
    }

    /// Answers that say so.
    pub fn all_accepted(&self) -> u64 {
        self.accepted.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    #[test]
    fn a_reference_tells_kind_and_number() {
        for kind in Kind::ALL {
            for number in [0, 1, 70_000] {
                assert_eq!(Kind::of(kind.reference(number)), Some((kind, number)));
            }
        }
        assert_eq!(Kind::Direct.reference(0), 1, "as prepared messages have it");
        assert_eq!((Kind::of(0), Kind::of(u64::MAX)), (None, None));
    }

    #[test]
    fn messages_are_due_by_the_clock_and_count_from_then() {
        let start = ambient::now();
        let schedule = Schedule::new(10, Duration::from_millis(200), Duration::from_millis(300));
        let frames = (0..5).map(|n| (n % 2, Bytes::new())).collect();
        let mut lane = Lane::new(schedule, 2, frames, 5);
        lane.start(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert!(lane.take(at(0)).is_some_and(|(index, _)| index == 0));
        assert!(lane.take(at(99)).is_none());
        assert_eq!(lane.wait(at(99)), Some(Duration::from_millis(1)));
        // Late ones are due all at once.
        assert_eq!((0..5).map_while(|_| lane.take(at(450))).count(), 4);
        assert_eq!(lane.wait(at(450)), None);
        // Sender 0 has messages 0, 2 and 4; the first two of all five are warm-up.
        assert!(lane.accept(0, 0, at(460)));
        assert_eq!(lane.answers.percentiles().count, 0);
        assert!(lane.accept(0, 1, at(460)) && lane.accept(0, 2, at(460)));
        assert_eq!(lane.answers.percentiles().max_ms.round(), 260.0);
        assert!(!lane.accept(1, 1, at(460)), "its first one was not answered");
        lane.arrive(1, 1, at(500), false);
        lane.arrive(1, 1, at(500), true);
        let delivery = lane.delivery.percentiles();
        assert_eq!((delivery.count, delivery.max_ms.round(), lane.arrived), (1, 200.0, 2));
        assert!(!lane.is_complete());
    }
}
