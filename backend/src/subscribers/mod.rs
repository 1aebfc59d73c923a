//! Who reads here: which worker thread holds the socket of which device, and the inbox through which that worker is told things.
//!
//! [`registry`] finds a device's subscriber (one per device: the newest socket wins), [`logs`] has what the readers of a log share,
//! [`inbox`] hands batches to a worker with one lock and one wake, [`changes`] tells the relay between nodes who came and went. Nothing here knows sockets, sub-protocols or HTTP; what a subscriber does with an item is its session's matter.

mod changes;
mod inbox;
mod live;
mod logs;
mod registry;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use martlet_protocol::{id::ConversationId, problem::close};
use martlet_storage::{ConversationKey, DeviceKey};

pub use changes::{Changes, StreamKey};
pub use inbox::{Inbox, Item, Letter, MAX_WAITING_BYTES, Taken};
pub use live::{LiveEntry, LiveItem, Whisper};
pub use logs::{Change as LogChange, FORMS, LiveLogItem, Log, Logs, PageOfLog, Pulled, TailLimits};
use registry::Registry;

/// Where a subscriber is. The generation tells it from later users of the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberId {
    /// Which worker thread.
    pub worker: u16,
    /// Which of its slots.
    pub slot: u32,
    /// Which use of that slot.
    pub generation: u32,
}

/// The most worker threads a node has.
pub const MAX_WORKERS: usize = 256;

/// All subscribers of this node.
pub struct Subscribers {
    registry: Registry,
    logs: Logs,
    /// One per worker thread, made when that thread starts.
    inboxes: Vec<OnceLock<Arc<Inbox>>>,
    /// If somebody wants to know who comes and goes.
    changes: OnceLock<Arc<Changes>>,
    /// Of the store, by whose numbers those who read here count.
    epoch: AtomicU64,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self::new()
    }
}

impl Subscribers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_tails(TailLimits::default())
    }

    /// None yet, and so much of logs in memory.
    #[must_use]
    pub fn with_tails(limits: TailLimits) -> Self {
        let inboxes = (0..MAX_WORKERS).map(|_| OnceLock::new()).collect();
        let (registry, logs) = (Registry::default(), Logs::new(limits));
        Self { registry, logs, inboxes, changes: OnceLock::new(), epoch: AtomicU64::new(0) }
    }

    /// The store's epoch: `seq` of another one must not reach anybody here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// It has changed. Everybody who reads by the old one must have been told to close before.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::SeqCst);
        self.logs.forget_all();
    }

    /// Who comes and goes from here on. All callers get the same, which has one reader.
    #[must_use]
    pub fn changes(&self) -> Arc<Changes> {
        self.changes.get_or_init(Arc::default).clone()
    }

    /// The inbox for a new worker thread, with its number; `None` if there are [`MAX_WORKERS`] already.
    #[must_use]
    pub fn join(&self) -> Option<(u16, Arc<Inbox>)> {
        let inbox = Arc::new(Inbox::default());
        let free = self.inboxes.iter().position(|place| place.set(inbox.clone()).is_ok())?;
        Some((u16::try_from(free).ok()?, inbox))
    }

    /// The device reads here from now on. An older socket of it is told to close.
    pub fn register(&self, device_key: DeviceKey, id: SubscriberId) {
        if let Some(older) = self.registry.insert(device_key, id)
            && older != id
        {
            self.tell(older, Item::Close(close::REPLACED));
        }
        if let Some(changes) = self.changes.get() {
            changes.add(StreamKey::Mailbox(device_key));
        }
    }

    /// The socket is gone. Does nothing if a newer one has taken its place.
    pub fn unregister(&self, device_key: DeviceKey, id: SubscriberId) {
        if self.registry.remove(device_key, id)
            && let Some(changes) = self.changes.get()
        {
            changes.add(StreamKey::Mailbox(device_key));
        }
    }

    /// The logs that are read here.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// A worker has a reader of the log. Again and again is the same as once.
    #[must_use]
    pub fn join_log(&self, key: ConversationKey, id: ConversationId, worker: u16) -> Arc<Log> {
        let (log, is_new) = self.logs.join(key, id, self.epoch(), worker);
        if is_new && let Some(changes) = self.changes.get() {
            changes.add(StreamKey::Log(key));
        }
        log
    }

    /// A worker has no reader of the log any more.
    pub fn leave_log(&self, log: &Arc<Log>, worker: u16) {
        if self.logs.leave(log, worker)
            && let Some(changes) = self.changes.get()
        {
            changes.add(StreamKey::Log(log.key));
        }
    }

    /// Changes the part of a log that its readers share, and tells the workers that have some.
    pub fn change_log(&self, log: &Arc<Log>, change: LogChange) {
        for worker in self.logs.change(log, change) {
            if let Some(inbox) = self.inbox(worker) {
                inbox.log_grew(log.clone());
            }
        }
    }

    /// Adds committed items to those of their logs that are read here, in the order given.
    pub fn append_to_logs(&self, items: Vec<(ConversationKey, Arc<LiveLogItem>)>) {
        let mut items = items.into_iter().peekable();
        while let Some((key, item)) = items.next() {
            let Some(log) = self.logs.find(key) else { continue };
            let mut came = vec![item];
            while let Some((_, item)) = items.next_if(|(next, _)| *next == key) {
                came.push(item);
            }
            self.change_log(&log, LogChange::Came(came));
        }
    }

    /// Whether the stream is read here.
    #[must_use]
    pub fn reads(&self, key: StreamKey) -> bool {
        match key {
            StreamKey::Mailbox(device_key) => self.find(device_key).is_some(),
            StreamKey::Log(key) => self.logs.find(key).is_some(),
        }
    }

    /// All streams that are read here.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamKey> {
        let mailboxes = self.devices().into_iter().map(StreamKey::Mailbox);
        mailboxes.chain(self.logs.all().into_iter().map(|log| StreamKey::Log(log.key))).collect()
    }

    /// Where the device reads, if here.
    #[must_use]
    pub fn find(&self, device_key: DeviceKey) -> Option<SubscriberId> {
        self.registry.find(device_key)
    }

    /// All devices that read here.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceKey> {
        self.registry.all().into_iter().map(|(device_key, _)| device_key).collect()
    }

    /// How many devices read here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.registry.count()
    }

    /// Hands entries to those of their devices that read here, in the order given: one lock and one wake per worker.
    pub fn deliver(&self, entries: impl IntoIterator<Item = Arc<LiveEntry>>) {
        self.hand_out(entries.into_iter().map(|entry| (entry.device_key, Item::Live(entry))));
    }

    /// The same for what is never stored. Whoever doesn't read here gets nothing, now or later.
    pub fn whisper(&self, whispers: impl IntoIterator<Item = Arc<Whisper>>) {
        self.hand_out(whispers.into_iter().map(|whisper| (whisper.device_key, Item::Whisper(whisper))));
    }

    /// Something may have happened to these mailboxes that nobody told: their heads are to be compared with the store.
    pub fn compare_heads(&self, devices: impl IntoIterator<Item = DeviceKey>) {
        self.hand_out(devices.into_iter().map(|device_key| (device_key, Item::CompareHead)));
    }

    /// The same for all streams that are read here.
    pub fn compare_all_heads(&self) {
        self.logs.doubt_all();
        for inbox in self.inboxes.iter().filter_map(OnceLock::get) {
            inbox.miss();
        }
    }

    fn hand_out(&self, items: impl Iterator<Item = (DeviceKey, Item)>) {
        let mut batches: Vec<(u16, Vec<Letter>)> = Vec::new();
        for (device_key, item) in items {
            let Some(to) = self.registry.find(device_key) else { continue };
            let letter = Letter { to, item };
            match batches.iter_mut().find(|(worker, _)| *worker == to.worker) {
                Some((_, batch)) => batch.push(letter),
                None => batches.push((to.worker, vec![letter])),
            }
        }
        for (worker, batch) in batches {
            if let Some(inbox) = self.inbox(worker) {
                inbox.put_all(batch);
            }
        }
    }

    /// Closes one socket, if it still is this one.
    pub fn close_subscriber(&self, id: SubscriberId, code: u16) {
        self.tell(id, Item::Close(code));
    }

    /// Closes the device's socket, if it has one here.
    pub fn close(&self, device_key: DeviceKey, code: u16) {
        if let Some(to) = self.registry.find(device_key) {
            self.tell(to, Item::Close(code));
        }
    }

    /// Has the device's socket stop reading a log, if it does here.
    pub fn end_log(&self, device_key: DeviceKey, log: ConversationKey) {
        if let Some(to) = self.registry.find(device_key) {
            self.tell(to, Item::LogEnded(log));
        }
    }

    /// Has the device's hello sent again, if it reads here.
    pub fn hello_changed(&self, device_key: DeviceKey) {
        if let Some(to) = self.registry.find(device_key) {
            self.tell(to, Item::HelloChanged);
        }
    }

    /// Closes every socket of this node.
    pub fn close_all(&self, code: u16) {
        for (_, to) in self.registry.all() {
            self.tell(to, Item::Close(code));
        }
    }

    /// Tells every worker that the node stops.
    pub fn drain(&self) {
        for inbox in self.inboxes.iter().filter_map(OnceLock::get) {
            inbox.drain();
        }
    }

    fn tell(&self, to: SubscriberId, item: Item) {
        if let Some(inbox) = self.inbox(to.worker) {
            inbox.put(Letter { to, item });
        }
    }

    fn inbox(&self, worker: u16) -> Option<&Arc<Inbox>> {
        self.inboxes.get(usize::from(worker))?.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use martlet_protocol::wire;

    use super::*;

    fn entry(device: i64, seq: u64) -> Arc<LiveEntry> {
        let gap = wire::Gap { from_seq: seq, to_seq: seq, count: 1, reason: 1 };
        Arc::new(LiveEntry {
            device_key: DeviceKey(device),
            seq,
            item: LiveItem::Gap(gap),
            under_way_since: Duration::ZERO,
        })
    }

    fn id(worker: u16, slot: u32) -> SubscriberId {
        SubscriberId { worker, slot, generation: 1 }
    }

    #[test]
    fn entries_reach_the_worker_of_their_device_in_order() {
        let subscribers = Subscribers::new();
        let (first, first_inbox) = subscribers.join().expect("free");
        let (second, second_inbox) = subscribers.join().expect("free");
        subscribers.register(DeviceKey(1), id(first, 0));
        subscribers.register(DeviceKey(2), id(second, 0));
        subscribers.deliver([entry(1, 1), entry(2, 1), entry(3, 1), entry(1, 2)]);
        let seqs = |inbox: &Inbox| -> Vec<u64> {
            let letters = inbox.take().letters;
            letters.iter().map(|letter| if let Item::Live(entry) = &letter.item { entry.seq } else { 0 }).collect()
        };
        assert_eq!(seqs(&first_inbox), [1, 2]);
        assert_eq!(seqs(&second_inbox), [1]);
    }

    #[test]
    fn the_newest_socket_wins_and_the_older_one_is_told() {
        let subscribers = Subscribers::new();
        let (worker, inbox) = subscribers.join().expect("free");
        subscribers.register(DeviceKey(1), id(worker, 0));
        subscribers.register(DeviceKey(1), id(worker, 1));
        let letters = inbox.take().letters;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].to, id(worker, 0));
        assert!(matches!(letters[0].item, Item::Close(close::REPLACED)));

        subscribers.unregister(DeviceKey(1), id(worker, 0));
        assert_eq!(subscribers.count(), 1, "the older one's end does not remove the newer");
        subscribers.unregister(DeviceKey(1), id(worker, 1));
        assert_eq!(subscribers.count(), 0);
    }

    #[test]
    fn who_came_and_went_is_told_once_and_only_if_something_changed() {
        let subscribers = Subscribers::new();
        subscribers.register(DeviceKey(9), id(0, 0));
        let changes = subscribers.changes();
        assert!(changes.take().is_empty(), "nobody had asked yet");
        subscribers.register(DeviceKey(1), id(0, 1));
        subscribers.unregister(DeviceKey(1), id(0, 1));
        subscribers.register(DeviceKey(1), id(0, 2));
        assert_eq!(changes.take().into_iter().collect::<Vec<_>>(), [StreamKey::Mailbox(DeviceKey(1))]);
        subscribers.unregister(DeviceKey(1), id(0, 1));
        assert!(changes.take().is_empty(), "the older socket's end changes nothing");
        let id = ConversationId::new([0; 32]);
        let logs = [0, 1].map(|worker| subscribers.join_log(ConversationKey(5), id, worker));
        assert_eq!(changes.take().into_iter().collect::<Vec<_>>(), [StreamKey::Log(ConversationKey(5))]);
        subscribers.leave_log(&logs[0], 0);
        assert!(changes.take().is_empty(), "another worker reads it");
        subscribers.leave_log(&logs[1], 1);
        assert!(changes.take().len() == 1 && !subscribers.reads(StreamKey::Log(ConversationKey(5))));
    }
}
