//! One log that is read here: its tail, and the workers that have readers of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use martlet_protocol::id::ConversationId;
use martlet_storage::ConversationKey;
use parking_lot::Mutex;
use tokio::sync;

use super::{
    TailLimits,
    tail::{LiveLogItem, PageOfLog, Tail},
};

/// A log that is read much keeps at least about so much, whatever the others take.
pub(super) const LEAST_TAIL_BYTES: usize = 2 << 10;

/// A log with readers on this node.
#[derive(Debug)]
pub struct Log {
    /// Its row.
    pub key: ConversationKey,
    /// As clients call it.
    pub conversation_id: ConversationId,
    /// The store's when the log began to be read here.
    pub epoch: u64,
    pub(super) state: Mutex<State>,
    /// Held by whoever loads it; the others wait for that.
    loading: sync::Mutex<()>,
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    tail: Tail,
    pub(super) workers: Vec<Reading>,
}

/// A worker that has readers of the log.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) worker: u16,
    /// It was told that there is something, and has not taken it yet.
    pub(super) is_told: bool,
    /// Its followers have everything up to here, or it has taken that for them.
    pub(super) taken: u64,
}

/// What a worker takes at once.
#[derive(Debug)]
pub enum Pulled {
    /// In order, without holes, perhaps nothing; and whether there is more.
    Items(Vec<Arc<LiveLogItem>>, bool),
    /// What followed is not in memory any more. The log reaches up to here.
    Gone(u64),
}

/// What all tails take together.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: AtomicUsize,
    pub(super) limits: TailLimits,
}

impl Log {
    pub(super) fn new(key: ConversationKey, conversation_id: ConversationId, epoch: u64, kept: Arc<Kept>) -> Self {
        let (state, loading) = (Mutex::default(), sync::Mutex::default());
        Self { key, conversation_id, epoch, state, loading, kept }
    }

    /// Waits for whoever loads it; returns the right to do so if it still has to be done.
    pub async fn to_load(&self) -> Option<sync::MutexGuard<'_, ()>> {
        if self.is_loaded() {
            return None;
        }
        let guard = self.loading.lock().await;
        (!self.is_loaded()).then_some(guard)
    }

    /// Whether its newest part was read from the store.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.state.lock().tail.is_loaded()
    }

    /// Up to which `seq` readers can be served. 0 before it is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.state.lock().tail.end()
    }

    /// The same for a worker whose readers begin there: from now on it is told of what follows, whatever it was told of before.
    #[must_use]
    pub fn begin(&self, worker: u16) -> u64 {
        let mut state = self.state.lock();
        let end = state.tail.end();
        for reading in state.workers.iter_mut().filter(|reading| reading.worker == worker) {
            (reading.is_told, reading.taken) = (false, end);
        }
        end
    }

    /// After which `seq` something is missing that is known to exist.
    #[must_use]
    pub fn hole(&self) -> Option<u64> {
        self.state.lock().tail.hole()
    }

    /// What follows `cursor` up to `upto`, about so many bytes; `None` if that is not in memory, or has expired by `now_s` (Unix seconds).
    #[must_use]
    pub fn after(&self, cursor: u64, upto: u64, max_bytes: usize, now_s: u64) -> Option<Vec<Arc<LiveLogItem>>> {
        let items = self.state.lock().tail.after(cursor, upto, max_bytes)?;
        items.iter().all(|item| item.expires_at_s > now_s).then_some(items)
    }

    /// A page of it; `None` if that has to be read from the store.
    #[must_use]
    pub fn page(&self, wanted: &PageOfLog) -> Option<Vec<Arc<LiveLogItem>>> {
        self.state.lock().tail.page(wanted)
    }

    /// The same for a worker that was told of it and whose readers stand at `cursor`. Unless there is more, it will be told again.
    #[must_use]
    pub fn pull(&self, worker: u16, cursor: u64, max_bytes: usize) -> Pulled {
        let mut state = self.state.lock();
        let items = state.tail.after(cursor, u64::MAX, max_bytes);
        let end = state.tail.end();
        let reached = items.as_ref().map_or(end, |items| items.last().map_or(cursor, |last| last.to_seq));
        let is_more = reached < end;
        if let Some(reading) = state.workers.iter_mut().find(|reading| reading.worker == worker) {
            (reading.is_told, reading.taken) = (is_more, reached);
        }
        items.map_or(Pulled::Gone(end), |items| Pulled::Items(items, is_more))
    }

    /// Changes the tail; the workers that are to be told, and whether something is missing now.
    pub(super) fn change(&self, change: impl FnOnce(&mut Tail)) -> (Vec<u16>, bool) {
        let mut state = self.state.lock();
        let (bytes_before, end_before) = (state.tail.bytes(), state.tail.end());
        change(&mut state.tail);
        self.kept.add(state.tail.bytes());
        self.kept.remove(bytes_before);
        self.trim(&mut state);
        let is_holed = state.tail.hole().is_some();
        if state.tail.end() == end_before {
            return (Vec::new(), is_holed);
        }
        let tell = |reading: &mut Reading| (!std::mem::replace(&mut reading.is_told, true)).then_some(reading.worker);
        (state.workers.iter_mut().filter_map(tell).collect(), is_holed)
    }

    /// What some worker has yet to take for its followers stays, as long as the log is within its own limit: were it gone, each of them
    /// would have to read it from the store.
    fn trim(&self, state: &mut State) {
        let taken = state.workers.iter().map(|reading| reading.taken).min().unwrap_or(u64::MAX);
        let tail = &mut state.tail;
        loop {
            let bytes = tail.bytes();
            let is_spare = bytes > LEAST_TAIL_BYTES && tail.oldest().is_some_and(|to_seq| to_seq <= taken);
            let over = bytes > self.kept.limits.per_log_bytes || (is_spare && self.kept.is_over());
            if !over || !tail.shorten() {
                return;
            }
            self.kept.remove(bytes - tail.bytes());
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.kept.remove(self.state.get_mut().tail.bytes());
    }
}

impl Kept {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limits.all_bytes
    }
}
