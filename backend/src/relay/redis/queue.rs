//! What waits to be published. Bounded in bytes: what does not fit is left out and counted, since other nodes find it by comparing heads.
//! Whoever puts something in never waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use martlet_protocol::wire::RelayClaim;
use martlet_storage::{ConversationKey, DeviceKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::subscribers::{LiveEntry, LiveLogItem, StreamKey, Whisper};

/// One thing to publish.
#[derive(Debug, Clone)]
pub(super) enum Outgoing {
    /// A committed entry.
    Entry(Committed),
    /// A committed entry of a log.
    LogItem(CommittedToLog),
    /// This node holds the device's socket.
    Claim(DeviceKey, RelayClaim),
    /// An ephemeral message.
    Whisper(Arc<Whisper>),
}

/// An entry, and the store's epoch in which its `seq` was given out.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) epoch: u64,
    pub(super) entry: Arc<LiveEntry>,
}

/// The same of a log.
#[derive(Debug, Clone)]
pub(super) struct CommittedToLog {
    pub(super) epoch: u64,
    pub(super) key: ConversationKey,
    pub(super) item: Arc<LiveLogItem>,
}

impl Outgoing {
    /// On which stream's channel.
    pub(super) fn stream_key(&self) -> StreamKey {
        match self {
            Self::Entry(committed) => StreamKey::Mailbox(committed.entry.device_key),
            Self::LogItem(committed) => StreamKey::Log(committed.key),
            Self::Claim(device_key, _) => StreamKey::Mailbox(*device_key),
            Self::Whisper(whisper) => StreamKey::Mailbox(whisper.device_key),
        }
    }

    /// About what it takes in memory and in a message, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let held = match self {
            Self::Entry(committed) => committed.entry.item.size_bytes(),
            Self::LogItem(committed) => committed.item.size_bytes(),
            Self::Claim(..) => 0,
            Self::Whisper(whisper) => whisper.payload.len(),
        };
        size_of::<Self>() + held
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    max_bytes: usize,
    /// The control stream has grown. However often, one hint says it.
    hint: AtomicBool,
    left_out: AtomicU64,
    /// Something was left out since other nodes were last told to compare heads.
    owed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Outgoing>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Notify::new(),
            max_bytes,
            hint: AtomicBool::new(false),
            left_out: AtomicU64::new(0),
            owed: AtomicBool::new(false),
        }
    }

    /// Adds what fits.
    pub(super) fn put(&self, items: impl IntoIterator<Item = Outgoing>) {
        let mut left_out = 0;
        {
            let mut waiting = self.waiting.lock();
            for item in items {
                let size = item.size_bytes();
                if waiting.bytes + size > self.max_bytes {
                    left_out += 1;
                    continue;
                }
                waiting.bytes += size;
                waiting.items.push_back(item);
            }
        }
        if left_out > 0 {
            self.lose(left_out);
        }
        self.filled.notify_one();
    }

    /// Says that the control stream has grown.
    pub(super) fn put_hint(&self) {
        self.hint.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Whether a hint is to be published, which it then no longer is.
    pub(super) fn take_hint(&self) -> bool {
        self.hint.swap(false, Ordering::AcqRel)
    }

    /// Takes from the front, about so many bytes; at least one item if there is any.
    pub(super) fn take(&self, max_bytes: usize) -> Vec<Outgoing> {
        let mut waiting = self.waiting.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(item) = waiting.items.pop_front()
        {
            bytes += item.size_bytes();
            taken.push(item);
        }
        waiting.bytes -= bytes;
        if waiting.items.is_empty() && waiting.items.capacity() > taken.len() {
            // A peak's memory is given back.
            waiting.items = VecDeque::new();
        }
        taken
    }

    /// Counts what could not be published.
    pub(super) fn lose(&self, items: usize) {
        self.left_out.fetch_add(items as u64, Ordering::Relaxed);
        self.owed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Whether other nodes are to be told to compare heads, which they then are.
    pub(super) fn take_owed(&self) -> bool {
        self.owed.swap(false, Ordering::AcqRel)
    }

    /// How many items were never published.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Until something was put in. One waiter only.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whisper(bytes: usize) -> Outgoing {
        let payload = bytes::Bytes::from(vec![0; bytes]);
        Outgoing::Whisper(Arc::new(Whisper { device_key: DeviceKey(1), expires_at_ms: 1, payload }))
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let queue = Queue::new(10_000);
        assert!(!queue.take_owed());
        queue.put((0..5).map(|_| whisper(3000)));
        assert!(queue.take_owed() && !queue.take_owed());
        assert_eq!((queue.left_out(), queue.take(usize::MAX).len()), (2, 3));
        queue.put([whisper(20_000), whisper(10)]);
        assert_eq!((queue.left_out(), queue.take(usize::MAX).len()), (3, 1), "there is room again, and small ones fit");
    }

    #[test]
    fn a_batch_takes_about_what_it_may_and_never_nothing() {
        let queue = Queue::new(1 << 20);
        queue.put((0..10).map(|_| whisper(1000)));
        assert_eq!(queue.take(1).len(), 1);
        assert_eq!(queue.take(2500).len(), 3);
        assert_eq!(queue.take(usize::MAX).len(), 6);
        assert!(queue.take(usize::MAX).is_empty());
    }

    #[test]
    fn hints_are_one() {
        let queue = Queue::new(1);
        queue.put_hint();
        queue.put_hint();
        assert!(queue.take_hint());
        assert!(!queue.take_hint());
    }
}
