//! What is written in one transaction: the sends, who waits for each, and the room they take in memory until they are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use martlet_protocol::wire;
use martlet_storage::{
    ConversationKey, DeviceKey,
    sends::{EntryBody, PreparedSend},
};
use parking_lot::Mutex;

use super::{Reply, SendError, answer::RequestKey, fork::Recipient, request::Request, seal::Prepared};
use crate::{
    accounts::DeviceIdentity,
    streams::{LiveEntry, LiveItem, LiveLogItem, Published, PublishedToLog},
};

/// Sends that share a transaction.
#[derive(Default)]
pub struct Batch {
    pub sends: Vec<PreparedSend>,
    /// One per send.
    pub waiting: Vec<Waiting>,
}

impl Batch {
    pub fn push(&mut self, job: SendJob) {
        let SendJob {
            prepared: Prepared { send, key, sender, accepted, request, recipients },
            reply,
            room,
            queued_at: _,
        } = job;
        self.sends.push(send);
        let reply = Mutex::new(Some(reply));
        self.waiting.push(Waiting { key, sender, accepted, request, recipients, reply, _room: room });
    }

    /// The logs that it appends to, each once.
    pub fn logs(&self) -> Vec<ConversationKey> {
        let to_logs = self.sends.iter().filter(|send| send.log.is_some());
        let mut logs: Vec<_> = to_logs.map(|send| send.conversation_key).collect();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    /// Whose mailboxes it writes to, each once.
    pub fn devices(&self) -> Vec<DeviceKey> {
        let mut devices: Vec<_> = self.sends.iter().flat_map(|send| &send.entries).map(|entry| entry.device).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }
}

/// A send, who hears of it, and its room.
pub struct SendJob {
    pub prepared: Prepared,
    pub reply: Reply,
    pub room: Room,
    /// When it was put in the queue, by a clock that never steps.
    pub queued_at: Duration,
}

/// Who waits for a send.
pub struct Waiting {
    pub key: RequestKey,
    pub sender: DeviceIdentity,
    accepted: wire::Accepted,
    pub request: Request,
    recipients: Vec<Recipient>,
    /// Gone once it was called. Shared with a call to the store that may outlive the patience of its caller.
    reply: Mutex<Option<Reply>>,
    _room: Room,
}

impl Waiting {
    /// Only the first answer counts.
    pub fn answer(&self, result: Result<wire::Accepted, SendError>) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            reply(result);
        }
    }

    /// What the sender hears if these numbers were handed out and these of the entries found a full mailbox.
    pub fn accepted(&self, seqs: &[u64], partial: &[usize]) -> wire::Accepted {
        let partial_device_ids = partial.iter().map(|entry| self.recipients[*entry].device_id.to_wire()).collect();
        // A mailbox's number is the device's own matter; a log's is the same for all.
        let log_seq = if self.recipients.is_empty() { seqs.first().copied().unwrap_or(0) } else { 0 };
        wire::Accepted { partial_device_ids, log_seq, ..self.accepted.clone() }
    }
}

/// Bytes of sends that are under way, all queues together. A count of sends alone would bound nothing: one may be for three devices, or
/// for thousands.
#[derive(Clone)]
pub struct Space {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// A send's part of it, given back when dropped.
pub struct Room {
    space: Space,
    bytes: usize,
}

impl Space {
    pub fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Room for a send; `None` if there is none now. One that alone is larger than all of it finds room when nothing else is there.
    pub fn take(&self, prepared: &Prepared) -> Option<Room> {
        self.take_bytes(bytes(&prepared.send))
    }

    fn take_bytes(&self, bytes: usize) -> Option<Room> {
        let fits = |taken: usize| (taken == 0 || taken + bytes <= self.most).then_some(taken + bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Room { space: self.clone(), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.space.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// About what a send holds in memory.
fn bytes(send: &PreparedSend) -> usize {
    let sealed = |body: &EntryBody| match body {
        EntryBody::Sealed(sealed) => sealed.len(),
        EntryBody::Dormant => 0,
    };
    let entries: usize = send.entries.iter().map(|entry| size_of_val(entry) + sealed(&entry.body)).sum();
    entries + send.content.as_ref().map_or(0, |content| content.len())
}

/// What was committed, for those who read it now.
#[derive(Default)]
pub struct Committed {
    /// When, by a clock that never steps.
    pub at: Duration,
    pub entries: Vec<Published>,
    pub to_logs: Vec<PublishedToLog>,
}

impl Committed {
    /// What the devices of a send get that was given these numbers; these of its entries found a full mailbox.
    pub fn add(&mut self, send: PreparedSend, seqs: &[u64], partial: &[usize]) {
        collect_entries(send, seqs, partial, self.at, &mut self.entries);
    }

    /// What the readers of a log get.
    pub fn add_to_log(&mut self, send: PreparedSend, seq: u64, group_epoch: u64) {
        let Some(log) = &send.log else { return };
        let entry = wire::LogEntry {
            seq,
            message_id: log.message_id.to_wire(),
            accepted_at_ms: log.accepted_at_ms,
            group_epoch,
            suite: log.suite,
            content: send.content.unwrap_or_default(),
        };
        let item = LiveLogItem::entry(entry, send.expires_at_s);
        self.to_logs.push(PublishedToLog { key: send.conversation_key, item });
    }
}

/// What the devices of a committed send get.
fn collect_entries(
    send: PreparedSend,
    seqs: &[u64],
    partial: &[usize],
    under_way_since: Duration,
    entries: &mut Vec<Published>,
) {
    let content = send.content.unwrap_or_default();
    for (index, (entry, seq)) in send.entries.into_iter().zip(seqs).enumerate() {
        let seq = *seq;
        let gap = |reason: wire::GapReason| {
            LiveItem::Gap(wire::Gap { from_seq: seq, to_seq: seq, count: 1, reason: reason.into() })
        };
        let item = match entry.body {
            EntryBody::Dormant => gap(wire::GapReason::Dormant),
            EntryBody::Sealed(_) if partial.contains(&index) => gap(wire::GapReason::Quota),
            EntryBody::Sealed(sealed) => LiveItem::Entry(wire::MailboxEntry {
                seq,
                entry_id: entry.entry_id.to_wire(),
                sealed,
                content: content.clone(),
            }),
        };
        let device_key = entry.device;
        entries.push(Published { device_key, entry: Arc::new(LiveEntry { device_key, seq, item, under_way_since }) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_given_back() {
        let space = Space::new(100);
        let (first, second) = (space.take_bytes(60), space.take_bytes(40));
        assert!(first.is_some() && second.is_some());
        assert!(space.take_bytes(1).is_none(), "it is full");
        drop(first);
        assert!(space.take_bytes(61).is_none());
        assert!(space.clone().take_bytes(60).is_some(), "every copy is of the same space");
    }

    #[test]
    fn what_is_larger_than_all_of_it_goes_alone() {
        let space = Space::new(100);
        let large = space.take_bytes(1_000);
        assert!(large.is_some());
        assert!(space.take_bytes(1).is_none());
        drop(large);
        let small = space.take_bytes(1);
        assert!(small.is_some() && space.take_bytes(1_000).is_none());
    }
}
