//! The subscribers of either server: each must get every message once, in order and as it was published.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use martlet_protocol::wire::{self, node_frame};

use crate::{
    ambient,
    socket::{Connection, Handler, log_frame},
};

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As entries of a log, perhaps several in a frame.
    Log,
    /// Each as a frame of its own that holds the content alone.
    Bare,
}

/// See the module.
pub struct Subscribers {
    wire: Wire,
    contents: Arc<[Bytes]>,
    /// The log's last `seq` before the first message.
    head: u64,
    /// Messages that each has got.
    got: Vec<usize>,
    complete: usize,
    moved_at: Instant,
    /// Messages that came, all subscribers together.
    pub deliveries: u64,
    /// WebSocket frames that they came in.
    pub frames: u64,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
}

impl Subscribers {
    /// All of them, before the first message.
    pub fn new(wire: Wire, subscribers: usize, head: u64, contents: Arc<[Bytes]>) -> Self {
        Self {
            wire,
            contents,
            head,
            got: vec![0; subscribers],
            complete: 0,
            moved_at: ambient::now(),
            deliveries: 0,
            frames: 0,
            troubles: BTreeMap::new(),
        }
    }

    /// Deliveries that must come to be.
    pub fn due(&self) -> u64 {
        self.got.len() as u64 * self.contents.len() as u64
    }

    /// What never came.
    pub fn missing(&self) -> u64 {
        self.due() - self.deliveries
    }

    /// Patience begins.
    pub fn begin(&mut self) {
        self.moved_at = ambient::now();
    }

    /// Everybody has everything.
    pub fn is_complete(&self) -> bool {
        self.complete == self.got.len()
    }

    /// When the last message was read.
    pub fn last_at(&self) -> Instant {
        self.moved_at
    }

    /// For how long nothing has come.
    pub fn quiet_for(&self) -> Duration {
        self.moved_at.elapsed()
    }

    fn trouble(&mut self, what: impl Into<String>) {
        *self.troubles.entry(what.into()).or_default() += 1;
    }

    fn take(&mut self, index: usize, content: &[u8]) -> Result<(), String> {
        let n = self.got[index];
        if self.contents.get(n).is_none_or(|expected| expected != content) {
            return Err(format!("message {} is not what was published", n + 1));
        }
        self.got[index] += 1;
        self.complete += usize::from(self.got[index] == self.contents.len());
        self.deliveries += 1;
        Ok(())
    }

    fn take_entry(&mut self, index: usize, entry: log_frame::Entry<'_>) -> Result<(), String> {
        let due = self.head + self.got[index] as u64 + 1;
        if entry.seq != due {
            return Err(format!("entry {} came where {due} was due", entry.seq));
        }
        self.take(index, entry.content)
    }
}

impl Handler for Subscribers {
    fn live(&mut self, _: usize, _: &wire::Hello, _: &mut Connection) {}

    fn raw(&mut self, index: usize, payload: &[u8], at: Instant) -> Result<bool, String> {
        let taken = match self.wire {
            Wire::Log => log_frame::entries(payload, |entry| self.take_entry(index, entry))?,
            Wire::Bare => self.take(index, payload).map(|()| true)?,
        };
        if taken {
            self.frames += 1;
            self.moved_at = at;
        }
        Ok(taken)
    }

    fn frame(&mut self, _: usize, frame: node_frame::Frame, _: u64, _: Instant, _: &mut Connection) {
        self.trouble(format!("the node sent a subscriber {frame:?}"));
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, why: &str) {
        self.trouble(format!("a connection was lost: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_messages() -> Subscribers {
        let contents = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        Subscribers::new(Wire::Bare, 2, 0, contents.into())
    }

    #[test]
    fn it_is_complete_when_everybody_has_everything() {
        let mut subscribers = two_messages();
        let now = ambient::now();
        for (index, content) in [(0, b"one"), (1, b"one"), (1, b"two")] {
            assert_eq!(subscribers.raw(index, content, now), Ok(true));
        }
        assert!(!subscribers.is_complete());
        assert_eq!(subscribers.missing(), 1);
        assert_eq!(subscribers.raw(0, b"two", now), Ok(true));
        assert!(subscribers.is_complete());
        assert_eq!((subscribers.missing(), subscribers.frames), (0, 4));
    }

    #[test]
    fn what_comes_twice_or_changed_or_too_late_is_wrong() {
        let mut subscribers = two_messages();
        let now = ambient::now();
        assert!(subscribers.raw(0, b"two", now).is_err(), "the second first");
        assert_eq!(subscribers.raw(0, b"one", now), Ok(true));
        assert!(subscribers.raw(0, b"one", now).is_err(), "twice");
        assert!(subscribers.raw(0, b"tw0", now).is_err(), "changed");
        assert_eq!(subscribers.missing(), 3);
    }

    #[test]
    fn entries_of_a_log_must_have_their_place() {
        let mut subscribers = two_messages();
        subscribers.head = 7;
        assert!(subscribers.take_entry(0, log_frame::Entry { seq: 9, content: b"one" }).is_err());
        assert!(subscribers.take_entry(0, log_frame::Entry { seq: 8, content: b"one" }).is_ok());
    }
}
