//! Who of a worker's connections reads which logs, and how far each has come, as values. A connection that follows costs a log four bytes
//! here and four in its own list; only those that are behind have a cursor of their own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use martlet_storage::ConversationKey;

use crate::subscribers::Log;

/// A log's place among this worker's, used again when nobody reads the log.
pub(super) type LogIndex = u32;
/// A connection's place among this worker's.
pub(super) type Slot = u32;

/// A log with readers on this worker.
pub(super) struct LogReaders {
    pub(super) log: Arc<Log>,
    /// Up to here everybody in `live` has it.
    pub(super) at: u64,
    /// Sorted.
    live: Vec<Slot>,
    /// Joined `live` while what came before is still being handed out, which they have already.
    late: Vec<Slot>,
    /// Resumed after something that this worker has not come to yet.
    ahead: Vec<Slot>,
    count: usize,
}

/// A reader that has a cursor of its own: not everything that the others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) log: LogIndex,
    pub(super) cursor: u64,
    /// Its part is being read from the store.
    pub(super) is_reading: bool,
}

/// See the module.
#[derive(Default)]
pub(in super::super) struct Readers {
    by_key: HashMap<ConversationKey, LogIndex>,
    logs: Vec<Option<LogReaders>>,
    free: Vec<LogIndex>,
    behind: HashMap<Slot, Vec<Behind>>,
}

impl Readers {
    /// The log's place. One that takes the place of an older one under the same key (after the numbering began anew) gets its own.
    pub(super) fn attach(&mut self, log: &Arc<Log>, worker: u16) -> LogIndex {
        let Self { by_key, logs, free, .. } = self;
        let known = by_key.get(&log.key).copied();
        let same =
            |index: &LogIndex| logs[*index as usize].as_ref().is_some_and(|readers| Arc::ptr_eq(&readers.log, log));
        if let Some(index) = known.filter(same) {
            return index;
        }
        let (log, at) = (log.clone(), log.begin(worker));
        let readers = LogReaders { log, at, live: Vec::new(), late: Vec::new(), ahead: Vec::new(), count: 0 };
        let key = readers.log.key;
        let index = match free.pop() {
            Some(index) => {
                logs[index as usize] = Some(readers);
                index
            }
            None => {
                logs.push(Some(readers));
                // Each has a reader with a list entry of four bytes: far fewer than 2^32.
                (logs.len() - 1) as LogIndex
            }
        };
        by_key.insert(key, index);
        index
    }

    /// The place of this very log.
    pub(super) fn find(&self, log: &Arc<Log>) -> Option<LogIndex> {
        let index = *self.by_key.get(&log.key)?;
        self.get(index).filter(|readers| Arc::ptr_eq(&readers.log, log)).map(|_| index)
    }

    /// The place of the log with this key.
    pub(super) fn find_key(&self, key: ConversationKey) -> Option<LogIndex> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&LogReaders> {
        self.logs.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: LogIndex) -> Option<&mut LogReaders> {
        self.logs.get_mut(index as usize)?.as_mut()
    }

    /// A connection reads this log after `cursor`, from now on or from another place than before. It is behind until it is found not to be.
    pub(super) fn begin(&mut self, slot: Slot, index: LogIndex, cursor: u64, is_new: bool) {
        self.forget(slot, index);
        let Some(readers) = self.get_mut(index) else { return };
        readers.count += usize::from(is_new);
        self.behind.entry(slot).or_default().push(Behind { log: index, cursor, is_reading: false });
    }

    /// A connection reads this log no more. The log, if nobody here does.
    pub(super) fn remove(&mut self, slot: Slot, index: LogIndex) -> Option<Arc<Log>> {
        self.forget(slot, index);
        let readers = self.get_mut(index)?;
        readers.count -= 1;
        if readers.count > 0 {
            return None;
        }
        let log = self.logs[index as usize].take()?.log;
        self.free.push(index);
        if self.by_key.get(&log.key) == Some(&index) {
            self.by_key.remove(&log.key);
        }
        Some(log)
    }

    /// It stands nowhere in this log.
    fn forget(&mut self, slot: Slot, index: LogIndex) {
        self.forget_behind(slot, index);
        let Some(readers) = self.get_mut(index) else { return };
        if let Ok(at) = readers.live.binary_search(&slot) {
            readers.live.remove(at);
        }
        readers.late.retain(|late| *late != slot);
        readers.ahead.retain(|ahead| *ahead != slot);
    }

    /// What the connection is behind with.
    pub(super) fn behind(&self, slot: Slot) -> &[Behind] {
        self.behind.get(&slot).map_or(&[], Vec::as_slice)
    }

    fn behind_mut(&mut self, slot: Slot, index: LogIndex) -> Option<&mut Behind> {
        self.behind.get_mut(&slot)?.iter_mut().find(|behind| behind.log == index)
    }

    /// Where the connection stands in the log, if it is behind.
    pub(super) fn behind_in(&self, slot: Slot, index: LogIndex) -> Option<Behind> {
        self.behind(slot).iter().find(|behind| behind.log == index).copied()
    }

    /// It has got everything up to `cursor`.
    pub(super) fn advance(&mut self, slot: Slot, index: LogIndex, cursor: u64) {
        if let Some(behind) = self.behind_mut(slot, index) {
            behind.cursor = cursor;
        }
    }

    /// Its part is being read from the store, or has been.
    pub(super) fn reading(&mut self, slot: Slot, index: LogIndex, is_reading: bool) {
        if let Some(behind) = self.behind_mut(slot, index) {
            behind.is_reading = is_reading;
        }
    }

    /// It waits for this worker to come to where it stands.
    pub(super) fn wait(&mut self, slot: Slot, index: LogIndex) {
        if let Some(readers) = self.get_mut(index)
            && !readers.ahead.contains(&slot)
        {
            readers.ahead.push(slot);
        }
    }

    /// It has what the others have, and follows with them.
    pub(super) fn follow(&mut self, slot: Slot, index: LogIndex, is_handing_out: bool) {
        self.forget_behind(slot, index);
        let Some(readers) = self.get_mut(index) else { return };
        if let Err(at) = readers.live.binary_search(&slot) {
            reserve(&mut readers.live);
            readers.live.insert(at, slot);
        }
        if is_handing_out {
            readers.late.push(slot);
        }
    }

    /// It could not take what came after `cursor`.
    pub(super) fn fall_behind(&mut self, slot: Slot, index: LogIndex, cursor: u64) {
        let Some(readers) = self.get_mut(index) else { return };
        if let Ok(at) = readers.live.binary_search(&slot) {
            readers.live.remove(at);
            self.behind.entry(slot).or_default().push(Behind { log: index, cursor, is_reading: false });
        }
    }

    fn forget_behind(&mut self, slot: Slot, index: LogIndex) {
        if let Entry::Occupied(mut place) = self.behind.entry(slot) {
            place.get_mut().retain(|behind| behind.log != index);
            if place.get().is_empty() {
                place.remove();
            }
        }
    }
}

impl LogReaders {
    /// Those who follow, by slot.
    pub(super) fn live(&self) -> &[Slot] {
        &self.live
    }

    /// Whether it follows and is to get what was taken for the others.
    pub(super) fn is_to_get(&self, slot: Slot) -> bool {
        self.live.binary_search(&slot).is_ok() && !self.late.contains(&slot)
    }

    /// Everybody in `live` is handed what comes up to here. Those who waited for that come back.
    pub(super) fn move_to(&mut self, at: u64) -> Vec<Slot> {
        self.at = at;
        self.late = Vec::new();
        std::mem::take(&mut self.ahead)
    }

    /// Nobody can be handed what comes up to here: all are behind now.
    pub(super) fn take_live(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.live)
    }
}

impl Readers {
    /// The same for a log.
    pub(super) fn leave_all_behind(&mut self, index: LogIndex, at: u64) -> Vec<Slot> {
        let Some(readers) = self.get_mut(index) else { return Vec::new() };
        let (cursor, live) = (readers.at, readers.take_live());
        let mut waiting = readers.move_to(at);
        for slot in &live {
            self.behind.entry(*slot).or_default().push(Behind { log: index, cursor, is_reading: false });
        }
        waiting.extend(live);
        waiting
    }
}

/// Grows by an eighth: half a list of unused places would be more than what a reader may cost.
fn reserve(live: &mut Vec<Slot>) {
    if live.len() == live.capacity() {
        live.reserve_exact((live.len() / 8).max(4));
    }
}

#[cfg(test)]
mod tests {
    use martlet_protocol::id::ConversationId;

    use super::*;
    use crate::subscribers::{LogChange, Subscribers};

    fn log(key: i64) -> Arc<Log> {
        let subscribers = Subscribers::new();
        let (worker, _inbox) = subscribers.join().expect("free");
        let log = subscribers.join_log(ConversationKey(key), ConversationId::new([0; 32]), worker);
        subscribers.change_log(&log, LogChange::Loaded(Vec::new(), 10));
        log
    }

    #[test]
    fn a_reader_is_behind_or_follows_and_never_both() {
        let (mut readers, log) = (Readers::default(), log(1));
        let index = readers.attach(&log, 0);
        assert_eq!((readers.attach(&log, 0), readers.find(&log)), (index, Some(index)));
        readers.begin(5, index, 7, true);
        assert_eq!(readers.behind(5), [Behind { log: index, cursor: 7, is_reading: false }]);
        readers.follow(5, index, false);
        let state = readers.get(index).expect("there");
        assert!(readers.behind(5).is_empty() && state.is_to_get(5));
        readers.fall_behind(5, index, 8);
        assert_eq!(readers.behind_in(5, index).map(|behind| behind.cursor), Some(8));
        assert!(readers.get(index).expect("there").live().is_empty());
        readers.fall_behind(5, index, 3);
        assert_eq!(readers.behind(5).len(), 1, "it was behind already");
        readers.begin(5, index, 2, false);
        assert_eq!(readers.behind(5), [Behind { log: index, cursor: 2, is_reading: false }], "it begins elsewhere");
        assert!(readers.remove(5, index).is_some(), "it was one reader all the time");
    }

    #[test]
    fn the_last_one_takes_the_log_away_and_its_place_is_used_again() {
        let (mut readers, first) = (Readers::default(), log(1));
        let index = readers.attach(&first, 0);
        readers.begin(1, index, 0, true);
        readers.begin(2, index, 0, true);
        readers.follow(2, index, false);
        assert!(readers.remove(1, index).is_none());
        assert!(readers.remove(2, index).is_some_and(|gone| Arc::ptr_eq(&gone, &first)));
        assert!(readers.find(&first).is_none() && readers.behind.is_empty());
        assert_eq!(readers.attach(&log(2), 0), index);
    }

    #[test]
    fn the_same_log_after_the_numbering_began_anew_is_another() {
        let (mut readers, old, new) = (Readers::default(), log(1), log(1));
        let index = readers.attach(&old, 0);
        readers.begin(1, index, 0, true);
        assert_ne!(readers.attach(&new, 0), index);
        assert!(readers.find(&old).is_none(), "nobody new joins it");
        assert!(readers.remove(1, index).is_some());
        assert!(readers.find(&new).is_some());
    }

    #[test]
    fn who_joins_while_something_is_handed_out_does_not_get_it_twice() {
        let (mut readers, log) = (Readers::default(), log(1));
        let index = readers.attach(&log, 0);
        readers.begin(1, index, 10, true);
        readers.follow(1, index, true);
        assert!(!readers.get(index).expect("there").is_to_get(1));
        readers.get_mut(index).expect("there").move_to(11);
        assert!(readers.get(index).expect("there").is_to_get(1));
    }

    #[test]
    fn a_follower_costs_little_more_than_its_four_bytes() {
        let (mut readers, log) = (Readers::default(), log(1));
        let index = readers.attach(&log, 0);
        for slot in 0..100_000 {
            readers.begin(slot, index, 10, true);
            readers.follow(slot, index, false);
        }
        let capacity = readers.get(index).expect("there").live.capacity();
        assert!(capacity * size_of::<Slot>() <= 100_000 * 5, "{capacity} places");
        assert!(readers.behind.is_empty());
    }
}
