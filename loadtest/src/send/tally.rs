//! What is counted while the clock runs.

use std::time::Instant;

use crate::figures::Times;

/// The time that counts.
#[derive(Clone, Copy)]
pub struct Span {
    /// From here.
    pub start: Instant,
    /// Up to here, once it is over.
    pub end: Option<Instant>,
}

impl Span {
    /// Whether it holds that moment.
    #[must_use]
    pub fn holds(&self, at: Instant) -> bool {
        at >= self.start && self.end.is_none_or(|end| at < end)
    }
}

/// What happened in the time that counts.
#[derive(Default)]
pub struct Tally {
    /// Sends answered with "accepted".
    pub accepted: u64,
    /// Forks read by their devices.
    pub forks: u64,
    /// Echoes read by sending devices.
    pub echoes: u64,
    /// From the send call to the read by the receiver's socket, of forks sent in that time.
    pub delivery: Times,
    /// Of these, those whose device is connected to another node than the sender.
    pub to_other_nodes: Times,
    /// Of these, the others.
    pub on_own_node: Times,
    /// Of those to other nodes, those sent while Redis was stopped.
    pub without_relay: Times,
    /// From the send call to the read of the answer, of sends made in that time.
    pub answers: Times,
}
