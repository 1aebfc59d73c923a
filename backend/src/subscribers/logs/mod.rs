//! The logs that are read on this node. Each has one [`tail`] for all its readers, however many: an entry is encoded once, and what is
//! missing is read from the store once. A worker is told that a log has grown, not by what, and takes what is new when it comes to it:
//! the busier it is, the more it takes at once.

mod log;
mod tail;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use martlet_protocol::id::ConversationId;
use martlet_storage::ConversationKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use log::{Kept, Reading};
pub use log::{Log, Pulled};
pub use tail::{FORMS, LiveLogItem, PageOfLog};

/// How much of logs is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct TailLimits {
    /// Of one log, in bytes.
    pub per_log_bytes: usize,
    /// Of all logs that are read here. Past it each keeps little.
    pub all_bytes: usize,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self { per_log_bytes: 1 << 20, all_bytes: 256 << 20 }
    }
}

/// All logs that are read here.
#[derive(Debug)]
pub struct Logs {
    logs: RwLock<HashMap<ConversationKey, Arc<Log>>>,
    kept: Arc<Kept>,
    /// Logs in which something is missing.
    holed: Mutex<Vec<Arc<Log>>>,
    /// Logs whose heads are to be compared with the store.
    doubtful: Mutex<Vec<Arc<Log>>>,
    all_doubtful: AtomicBool,
    repair: Notify,
    compare: Notify,
}

impl Logs {
    pub(super) fn new(limits: TailLimits) -> Self {
        Self {
            logs: RwLock::default(),
            kept: Arc::new(Kept { bytes: AtomicUsize::new(0), limits }),
            holed: Mutex::default(),
            doubtful: Mutex::default(),
            all_doubtful: AtomicBool::new(false),
            repair: Notify::new(),
            compare: Notify::new(),
        }
    }

    /// The log, if somebody reads it here.
    #[must_use]
    pub fn find(&self, key: ConversationKey) -> Option<Arc<Log>> {
        self.logs.read().get(&key).cloned()
    }

    /// All that are read here.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Log>> {
        self.logs.read().values().cloned().collect()
    }

    /// How many are read here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.logs.read().len()
    }

    /// Bytes that all tails take.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes.load(Ordering::Relaxed)
    }

    /// A worker has a first reader. Also tells whether it is the node's first.
    pub(super) fn join(&self, key: ConversationKey, id: ConversationId, epoch: u64, worker: u16) -> (Arc<Log>, bool) {
        let mut logs = self.logs.write();
        let mut is_new = false;
        let log = logs.entry(key).or_insert_with(|| {
            is_new = true;
            Arc::new(Log::new(key, id, epoch, self.kept.clone()))
        });
        let mut state = log.state.lock();
        if !state.workers.iter().any(|reading| reading.worker == worker) {
            state.workers.push(Reading { worker, is_told: false, taken: 0 });
        }
        drop(state);
        (log.clone(), is_new)
    }

    /// A worker has no reader any more. Tells whether nobody has.
    pub(super) fn leave(&self, log: &Arc<Log>, worker: u16) -> bool {
        let mut logs = self.logs.write();
        let mut state = log.state.lock();
        state.workers.retain(|reading| reading.worker != worker);
        let is_last = state.workers.is_empty();
        drop(state);
        if is_last && logs.get(&log.key).is_some_and(|current| Arc::ptr_eq(current, log)) {
            logs.remove(&log.key);
            return true;
        }
        false
    }

    /// Numbers begin anew: whoever comes now reads another log, and those who still read the old one get nothing more.
    pub(super) fn forget_all(&self) {
        self.logs.write().clear();
    }

    /// Changes a log's tail and returns whom to tell.
    pub(super) fn change(&self, log: &Arc<Log>, change: Change) -> Vec<u16> {
        let (to_tell, is_holed) = log.change(|tail| match change {
            Change::Loaded(items, head) => tail.load(items, head),
            Change::Came(items) => items.into_iter().for_each(|item| tail.put(item)),
            Change::HeadSeen(head) => tail.head_seen(head),
        });
        if is_holed {
            let mut holed = self.holed.lock();
            if !holed.iter().any(|other| Arc::ptr_eq(other, log)) {
                holed.push(log.clone());
            }
            drop(holed);
            self.repair.notify_one();
        }
        to_tell
    }

    /// Until something is missing somewhere. One waiter only.
    pub async fn holed(&self) {
        self.repair.notified().await;
    }

    /// The logs in which something was missing, and perhaps is no more.
    #[must_use]
    pub fn take_holed(&self) -> Vec<Arc<Log>> {
        std::mem::take(&mut *self.holed.lock())
    }

    /// Something may have been appended to these without word of it.
    pub fn doubt(&self, keys: impl IntoIterator<Item = ConversationKey>) {
        let found: Vec<_> = keys.into_iter().filter_map(|key| self.find(key)).collect();
        if !found.is_empty() {
            self.doubtful.lock().extend(found);
            self.compare.notify_one();
        }
    }

    /// The same for all of them.
    pub fn doubt_all(&self) {
        self.all_doubtful.store(true, Ordering::Release);
        self.compare.notify_one();
    }

    /// Until there is doubt. One waiter only.
    pub async fn doubtful(&self) {
        self.compare.notified().await;
    }

    /// The logs whose heads are to be compared now.
    #[must_use]
    pub fn take_doubtful(&self) -> Vec<Arc<Log>> {
        let some = std::mem::take(&mut *self.doubtful.lock());
        if self.all_doubtful.swap(false, Ordering::AcqRel) { self.all() } else { some }
    }
}

/// What happens to a log.
#[derive(Debug)]
pub enum Change {
    /// Its newest part was read, with its head.
    Loaded(Vec<Arc<LiveLogItem>>, u64),
    /// These were committed, here or elsewhere, or read to fill a hole.
    Came(Vec<Arc<LiveLogItem>>),
    /// It reaches this far.
    HeadSeen(u64),
}

#[cfg(test)]
mod tests {
    use martlet_protocol::wire;

    use super::*;

    fn entry(seq: u64, bytes: usize) -> Arc<LiveLogItem> {
        LiveLogItem::entry(wire::LogEntry { seq, content: vec![0; bytes].into(), ..Default::default() }, u64::MAX)
    }

    fn logs(per_log_bytes: usize, all_bytes: usize) -> Logs {
        Logs::new(TailLimits { per_log_bytes, all_bytes })
    }

    fn join(logs: &Logs, key: i64, worker: u16) -> Arc<Log> {
        logs.join(ConversationKey(key), ConversationId::new([0; 32]), 1, worker).0
    }

    #[test]
    fn a_worker_is_told_once_until_it_has_taken_everything() {
        let logs = logs(1 << 20, 1 << 20);
        let log = join(&logs, 1, 7);
        assert!(logs.change(&log, Change::Loaded(vec![entry(1, 10)], 1)).contains(&7));
        assert!(logs.change(&log, Change::Came(vec![entry(2, 10)])).is_empty(), "it knows already");
        let Pulled::Items(items, true) = log.pull(7, 0, 1) else { panic!("one item, and more") };
        assert_eq!(items[0].to_seq, 1);
        assert!(logs.change(&log, Change::Came(vec![entry(3, 10)])).is_empty(), "it knows that there is more");
        assert!(matches!(log.pull(7, 1, usize::MAX), Pulled::Items(items, false) if items.len() == 2));
        assert_eq!(logs.change(&log, Change::Came(vec![entry(4, 10)])), [7]);
        assert!(logs.change(&log, Change::Came(vec![entry(4, 10)])).is_empty(), "a repeat is nothing new");
    }

    #[test]
    fn a_worker_that_had_no_readers_yet_when_it_was_told_is_told_again() {
        let logs = logs(1 << 20, 1 << 20);
        let log = join(&logs, 1, 7);
        assert_eq!(logs.change(&log, Change::Loaded(vec![entry(1, 10)], 1)), [7]);
        assert_eq!(log.begin(7), 1, "what it was told of is where its first reader begins");
        assert_eq!(logs.change(&log, Change::Came(vec![entry(2, 10)])), [7]);
    }

    #[test]
    fn a_log_ends_with_its_last_worker_and_its_bytes_with_it() {
        let logs = logs(1 << 20, 1 << 20);
        let log = join(&logs, 1, 0);
        assert!(Arc::ptr_eq(&log, &join(&logs, 1, 1)));
        logs.change(&log, Change::Loaded(vec![entry(1, 1000)], 1));
        assert!(logs.kept_bytes() > 2000);
        assert!(!logs.leave(&log, 0));
        assert!(logs.leave(&log, 1) && logs.count() == 0);
        drop(log);
        assert_eq!(logs.kept_bytes(), 0);
    }

    #[test]
    fn a_log_of_before_the_epoch_changed_does_not_take_the_new_one_with_it() {
        let logs = logs(1 << 20, 1 << 20);
        let old = join(&logs, 1, 0);
        logs.forget_all();
        let new = join(&logs, 1, 0);
        assert!(!Arc::ptr_eq(&old, &new));
        assert!(!logs.leave(&old, 0));
        assert_eq!(logs.count(), 1);
    }

    #[test]
    fn tails_are_bounded_one_by_one_and_together() {
        let logs = logs(100_000, 150_000);
        let first = join(&logs, 1, 0);
        logs.change(&first, Change::Loaded((1..=100).map(|seq| entry(seq, 1000)).collect(), 100));
        assert!((90_000..=100_000).contains(&logs.kept_bytes()));
        assert!(matches!(first.pull(0, 0, 1), Pulled::Gone(100)));
        let second = join(&logs, 2, 0);
        logs.change(&second, Change::Loaded((1..=100).map(|seq| entry(seq, 1000)).collect(), 100));
        assert!(logs.kept_bytes() > 150_000, "nobody has taken it yet");
        assert_eq!(second.begin(0), 100);
        logs.change(&second, Change::Came(vec![entry(101, 10)]));
        assert!(logs.kept_bytes() <= 150_000 + log::LEAST_TAIL_BYTES, "{}", logs.kept_bytes());
        assert!(second.after(99, 100, 1, 0).is_some_and(|items| items.len() == 1), "the newest is there");
    }

    #[test]
    fn holes_and_doubts_are_collected() {
        let logs = logs(1 << 20, 1 << 20);
        let log = join(&logs, 1, 0);
        logs.change(&log, Change::Loaded(Vec::new(), 0));
        assert!(logs.change(&log, Change::Came(vec![entry(2, 1)])).is_empty());
        assert!(logs.change(&log, Change::Came(vec![entry(3, 1)])).is_empty());
        assert_eq!((logs.take_holed().len(), log.hole()), (1, Some(0)));
        assert_eq!(logs.change(&log, Change::Came(vec![entry(1, 1)])), [0]);
        assert_eq!((log.end(), log.hole(), logs.take_holed().len()), (3, None, 0));
        logs.doubt([ConversationKey(1), ConversationKey(2)]);
        assert_eq!(logs.take_doubtful().len(), 1);
        logs.doubt_all();
        assert_eq!(logs.take_doubtful().len(), 1);
    }
}
