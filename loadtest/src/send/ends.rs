//! Both ends of a message's way: a sender with what it has yet to send, and a mailbox with what came.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use martlet_protocol::wire::{self, client_frame};

use crate::socket::{Connection, put};

/// A device that sends.
#[derive(Default)]
pub struct Sender {
    /// Frames that it has yet to send.
    pub queue: VecDeque<Bytes>,
    /// From when every message sent so far counts.
    pub sent_at: Vec<Instant>,
    /// Sends without an answer.
    pub in_flight: usize,
    /// Messages sent while Redis was stopped: from and up to which number.
    pub relay_lost: Option<(usize, usize)>,
    /// Sends that were accepted.
    pub accepted: u64,
    /// After a refusal: entry n is not message n any more.
    pub stopped: bool,
}

/// A sender has nothing more to send.
#[derive(Debug, thiserror::Error)]
#[error("too few messages were prepared; give more with --prepare")]
pub struct RanOut;

impl Sender {
    /// Sends the next message; its time counts from then.
    ///
    /// # Errors
    /// [`RanOut`].
    pub fn send(&mut self, from: Instant, connection: &mut Connection) -> Result<(), RanOut> {
        let frame = self.queue.pop_front().ok_or(RanOut)?;
        connection.put_framed(&frame);
        self.sent_at.push(from);
        self.in_flight += 1;
        Ok(())
    }
}

/// When a device acknowledges.
#[derive(Debug, Clone, Copy)]
pub struct AckPace {
    /// After so many entries …
    pub entries: u64,
    /// … or so long.
    pub delay: Duration,
}

/// What a device has got.
#[derive(Default)]
pub struct Mailbox {
    /// Of its numbering.
    pub epoch: u64,
    acked_seq: u64,
    /// When the first entry came that is not acknowledged.
    unacked_since: Option<Instant>,
    /// In the order of their coming; entry n stands at n-1.
    pub entries: Vec<wire::MailboxEntry>,
}

impl Mailbox {
    /// Takes an entry, and acknowledges if it is time to; tells how many there are now.
    ///
    /// # Errors
    /// In words, if another one was due.
    pub fn take(
        &mut self,
        entry: wire::MailboxEntry,
        at: Instant,
        pace: AckPace,
        connection: &mut Connection,
    ) -> Result<u64, &'static str> {
        let due = self.entries.len() as u64 + 1;
        if entry.seq != due {
            return Err(if entry.seq < due { "an entry came twice" } else { "an entry was left out" });
        }
        self.entries.push(entry);
        self.unacked_since.get_or_insert(at);
        if due - self.acked_seq >= pace.entries || self.is_unacked_for(pace.delay, at) {
            self.ack(connection);
        }
        Ok(due)
    }

    /// Something came that is not acknowledged.
    pub fn has_unacked(&self) -> bool {
        self.unacked_since.is_some()
    }

    /// And has been for so long.
    pub fn is_unacked_for(&self, time: Duration, now: Instant) -> bool {
        self.unacked_since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// Acknowledges all that came.
    pub fn ack(&mut self, connection: &mut Connection) {
        let seq = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let cursor = wire::Cursor { epoch: self.epoch, seq };
        put(connection, 0, client_frame::Frame::Ack(wire::Ack { mailbox: Some(cursor) }));
        self.acked_seq = seq;
        self.unacked_since = None;
    }
}
