//! What a worker thread is told: batches in order, one wake for many. Bounded in bytes: live entries over the bound are dropped and the
//! worker is told that it missed some, upon which its sessions compare heads and read on from the store.

use std::sync::Arc;

use martlet_protocol::wire;
use martlet_storage::ConversationKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{LiveEntry, Log, SubscriberId, Whisper};

/// How many bytes of live entries may wait for one worker.
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// How many bytes of whispers may wait for one worker. Counted apart, so that they never cost an entry its place.
pub const MAX_WHISPER_BYTES: usize = 8 << 20;

/// One thing for one subscriber.
#[derive(Debug)]
pub struct Letter {
    /// For whom.
    pub to: SubscriberId,
    /// What.
    pub item: Item,
}

/// What a subscriber may be told.
#[derive(Debug)]
pub enum Item {
    /// A committed entry of its mailbox.
    Live(Arc<LiveEntry>),
    /// An ephemeral message. Over the bound it is dropped, and nobody is told.
    Whisper(Arc<Whisper>),
    /// What became of the send with this ref.
    Answer(u64, Box<Result<wire::Accepted, wire::Problem>>),
    /// Its mailbox's head is to be compared with the store.
    CompareHead,
    /// What the hello says has changed.
    HelloChanged,
    /// Its account may read this log no more.
    LogEnded(ConversationKey),
    /// Close with this code.
    Close(u16),
}

/// Everything that waited.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the order of their coming.
    pub letters: Vec<Letter>,
    /// Logs that have grown, each once.
    pub logs: Vec<Arc<Log>>,
    /// Live entries were dropped: compare heads.
    pub missed: bool,
    /// The node stops: tell every client, then close.
    pub drain: bool,
}

/// The letter box of one worker thread.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    taken: Taken,
    live_bytes: usize,
    whisper_bytes: usize,
}

impl Waiting {
    fn put(&mut self, letter: Letter) {
        match &letter.item {
            Item::Live(entry) => {
                let size = entry.item.size_bytes();
                if self.live_bytes + size > MAX_WAITING_BYTES {
                    self.taken.missed = true;
                    return;
                }
                self.live_bytes += size;
            }
            Item::Whisper(whisper) => {
                let size = size_of::<Whisper>() + whisper.payload.len();
                if self.whisper_bytes + size > MAX_WHISPER_BYTES {
                    return;
                }
                self.whisper_bytes += size;
            }
            Item::Answer(..) | Item::CompareHead | Item::HelloChanged | Item::LogEnded(_) | Item::Close(_) => {}
        }
        self.taken.letters.push(letter);
    }
}

impl Inbox {
    /// Adds one and wakes the worker.
    pub fn put(&self, letter: Letter) {
        self.waiting.lock().put(letter);
        self.wake.notify_one();
    }

    /// Adds many under one lock and with one wake.
    pub fn put_all(&self, letters: Vec<Letter>) {
        {
            let mut waiting = self.waiting.lock();
            for letter in letters {
                waiting.put(letter);
            }
        }
        self.wake.notify_one();
    }

    /// Says that a log has grown. Whoever says so sees to it that it is said once until the worker has looked.
    pub fn log_grew(&self, log: Arc<Log>) {
        self.waiting.lock().taken.logs.push(log);
        self.wake.notify_one();
    }

    /// Says that live entries may have been missed.
    pub fn miss(&self) {
        self.waiting.lock().taken.missed = true;
        self.wake.notify_one();
    }

    /// Says that the node stops.
    pub fn drain(&self) {
        self.waiting.lock().taken.drain = true;
        self.wake.notify_one();
    }

    /// Takes what is there.
    #[must_use]
    pub fn take(&self) -> Taken {
        let mut waiting = self.waiting.lock();
        waiting.live_bytes = 0;
        waiting.whisper_bytes = 0;
        std::mem::take(&mut waiting.taken)
    }

    /// Until something was put in since the last [`Self::take`]. One waiter only.
    pub async fn filled(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use martlet_storage::DeviceKey;

    use super::*;
    use crate::subscribers::LiveItem;

    #[test]
    fn live_entries_over_the_bound_are_missed_and_answers_are_not() {
        let inbox = Inbox::default();
        let to = SubscriberId { worker: 0, slot: 0, generation: 0 };
        let content = bytes::Bytes::from(vec![0; MAX_WAITING_BYTES / 4]);
        for seq in 1..=4 {
            let item = LiveItem::Entry(wire::MailboxEntry { seq, content: content.clone(), ..Default::default() });
            let entry = Arc::new(LiveEntry { device_key: DeviceKey(1), seq, item, under_way_since: Duration::ZERO });
            inbox.put(Letter { to, item: Item::Live(entry) });
        }
        inbox.put(Letter { to, item: Item::Answer(7, Box::new(Ok(wire::Accepted::default()))) });
        let taken = inbox.take();
        assert!(taken.missed);
        assert_eq!(taken.letters.len(), 4);
        assert!(matches!(taken.letters[3].item, Item::Answer(7, _)));
        assert!(!inbox.take().missed);
    }

    #[test]
    fn whispers_over_their_bound_are_dropped_and_cost_no_entry_its_place() {
        let inbox = Inbox::default();
        let to = SubscriberId { worker: 0, slot: 0, generation: 0 };
        let payload = bytes::Bytes::from(vec![0; MAX_WHISPER_BYTES / 4]);
        for _ in 0..5 {
            let whisper = Whisper { device_key: DeviceKey(1), expires_at_ms: 1, payload: payload.clone() };
            inbox.put(Letter { to, item: Item::Whisper(Arc::new(whisper)) });
        }
        let gap = LiveItem::Gap(wire::Gap::default());
        let entry = LiveEntry { device_key: DeviceKey(1), seq: 1, item: gap, under_way_since: Duration::ZERO };
        inbox.put(Letter { to, item: Item::Live(Arc::new(entry)) });
        let taken = inbox.take();
        assert!(!taken.missed);
        assert_eq!(taken.letters.len(), 4, "three whispers and the entry");
        assert!(matches!(taken.letters[3].item, Item::Live(_)));
    }
}
