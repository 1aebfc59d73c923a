//! The newest items of one log: in order, without holes, bounded in bytes. What comes before its predecessor is held back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use martlet_protocol::wire::{self, log_item};

/// Items held back at most. Further ones are read from the store.
const MAX_HELD: usize = 256;
/// And bytes of them.
const MAX_HELD_BYTES: usize = 1 << 20;
/// How many ways there are to write an item.
pub const FORMS: usize = 2;

/// What stands in a log at a `seq` or several, shared by all who read it here.
#[derive(Debug)]
pub struct LiveLogItem {
    /// The first `seq` that it stands for.
    pub from_seq: u64,
    /// The last one.
    pub to_seq: u64,
    /// An entry or a gap.
    pub item: log_item::Item,
    /// Written once per sub-protocol, by whoever first needs it.
    forms: [OnceLock<Bytes>; FORMS],
}

impl LiveLogItem {
    /// Not written in any form yet.
    #[must_use]
    pub fn new(item: log_item::Item) -> Arc<Self> {
        let (from_seq, to_seq) = match &item {
            log_item::Item::Entry(entry) => (entry.seq, entry.seq),
            log_item::Item::Gap(gap) => (gap.from_seq, gap.to_seq),
        };
        Arc::new(Self { from_seq, to_seq, item, forms: Default::default() })
    }

    /// An entry.
    #[must_use]
    pub fn entry(entry: wire::LogEntry) -> Arc<Self> {
        Self::new(log_item::Item::Entry(entry))
    }

    /// The item in a form (less than [`FORMS`]), made by `write` if nobody has asked for it before.
    pub fn form(&self, form: usize, write: impl FnOnce(&log_item::Item) -> Bytes) -> &Bytes {
        self.forms[form].get_or_init(|| write(&self.item))
    }

    /// About how much memory it holds, in bytes: the item and one form of it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let content = match &self.item {
            log_item::Item::Entry(entry) => entry.content.len(),
            log_item::Item::Gap(_) => 0,
        };
        size_of::<Self>() + 2 * content
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// From after `start` to `end`, without holes.
    items: VecDeque<Arc<LiveLogItem>>,
    bytes: usize,
    start: u64,
    end: u64,
    is_loaded: bool,
    /// The highest `seq` known to exist.
    head: u64,
    held: BTreeMap<u64, Arc<LiveLogItem>>,
    held_bytes: usize,
}

impl Tail {
    /// The newest part of the stored log, up to its head. Once.
    pub(super) fn load(&mut self, items: Vec<Arc<LiveLogItem>>, head: u64) {
        if self.is_loaded {
            return;
        }
        self.is_loaded = true;
        self.end = items.first().map_or(head, |first| first.from_seq - 1);
        self.start = self.end;
        self.head = self.head.max(head);
        for item in items {
            self.push(item);
        }
        self.push_held();
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Adds an item in whatever order they come.
    pub(super) fn put(&mut self, item: Arc<LiveLogItem>) {
        self.head = self.head.max(item.to_seq);
        if self.is_loaded && item.from_seq <= self.end + 1 {
            self.push(item);
            self.push_held();
        } else if self.held.len() < MAX_HELD && self.held_bytes < MAX_HELD_BYTES {
            let size = item.size_bytes();
            if self.held.insert(item.from_seq, item).is_none() {
                self.held_bytes += size;
            }
        }
    }

    /// The log is known to reach this far.
    pub(super) fn head_seen(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// Up to where it is without a hole.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// After what something is missing.
    pub(super) fn hole(&self) -> Option<u64> {
        (self.is_loaded && self.end < self.head).then_some(self.end)
    }

    /// What follows `cursor` up to `upto`, about so many bytes and at least one item if there is any. `None` if it is not here any more.
    pub(super) fn after(&self, cursor: u64, upto: u64, max_bytes: usize) -> Option<Vec<Arc<LiveLogItem>>> {
        if cursor < self.start {
            return None;
        }
        let first = self.items.partition_point(|item| item.to_seq <= cursor);
        let mut bytes = 0;
        let within = |item: &&Arc<LiveLogItem>| {
            let takes = item.to_seq <= upto && bytes < max_bytes;
            bytes += item.size_bytes();
            takes
        };
        Some(self.items.range(first..).take_while(within).cloned().collect())
    }

    /// Bytes of everything here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.held_bytes
    }

    /// The last `seq` of the oldest item.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.items.front().map(|oldest| oldest.to_seq)
    }

    /// Forgets the oldest item. False if there is only one.
    pub(super) fn shorten(&mut self) -> bool {
        if self.items.len() <= 1 {
            return false;
        }
        if let Some(oldest) = self.items.pop_front() {
            self.bytes -= oldest.size_bytes();
            self.start = oldest.to_seq;
        }
        true
    }

    fn push(&mut self, item: Arc<LiveLogItem>) {
        if item.to_seq <= self.end {
            return;
        }
        self.end = item.to_seq;
        self.bytes += item.size_bytes();
        self.items.push_back(item);
    }

    fn push_held(&mut self) {
        while let Some(first) = self.held.first_entry()
            && *first.key() <= self.end + 1
        {
            let item = first.remove();
            self.held_bytes -= item.size_bytes();
            self.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(seq: u64) -> Arc<LiveLogItem> {
        LiveLogItem::entry(wire::LogEntry { seq, content: vec![0; 100].into(), ..Default::default() })
    }

    fn seqs(items: Option<Vec<Arc<LiveLogItem>>>) -> Option<Vec<u64>> {
        items.map(|items| items.iter().map(|item| item.to_seq).collect())
    }

    fn loaded(range: std::ops::RangeInclusive<u64>) -> Tail {
        let mut tail = Tail::default();
        let head = *range.end();
        tail.load(range.map(entry).collect(), head);
        tail
    }

    #[test]
    fn what_came_while_it_was_loaded_joins_what_was_loaded() {
        let mut tail = Tail::default();
        tail.put(entry(6));
        tail.put(entry(4));
        assert_eq!((tail.hole(), tail.end()), (None, 0), "nothing is known to be missing before it is loaded");
        tail.load(vec![entry(3), entry(4), entry(5)], 5);
        assert_eq!((tail.end(), tail.hole()), (6, None));
        assert_eq!(seqs(tail.after(2, 9, usize::MAX)), Some(vec![3, 4, 5, 6]));
        assert_eq!(seqs(tail.after(1, 9, usize::MAX)), None, "that has to be read from the store");
        assert_eq!(tail.held_bytes, 0);
    }

    #[test]
    fn an_empty_log_begins_at_its_head() {
        let mut tail = Tail::default();
        tail.load(Vec::new(), 0);
        tail.put(entry(1));
        assert_eq!(seqs(tail.after(0, 9, usize::MAX)), Some(vec![1]));
    }

    #[test]
    fn a_hole_is_told_until_it_is_filled() {
        let mut tail = loaded(1..=3);
        tail.put(entry(5));
        assert_eq!((tail.end(), tail.hole()), (3, Some(3)));
        tail.put(entry(4));
        assert_eq!((tail.end(), tail.hole()), (5, None));
        tail.head_seen(7);
        assert_eq!(tail.hole(), Some(5));
    }

    #[test]
    fn a_part_ends_where_it_is_told_to_and_is_never_empty_for_want_of_bytes() {
        let tail = loaded(1..=9);
        assert_eq!(seqs(tail.after(4, 6, usize::MAX)), Some(vec![5, 6]));
        assert_eq!(seqs(tail.after(4, 9, 1)), Some(vec![5]));
        assert_eq!(seqs(tail.after(9, 9, 1)), Some(vec![]));
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let mut tail = loaded(1..=3);
        let one = entry(1).size_bytes();
        assert_eq!(tail.bytes(), 3 * one);
        assert!(tail.shorten() && tail.shorten() && !tail.shorten());
        assert_eq!((tail.bytes(), seqs(tail.after(2, 9, 1)), seqs(tail.after(1, 9, 1))), (one, Some(vec![3]), None));
    }

    proptest! {
        #[test]
        fn whatever_the_order_every_seq_is_there_once(order in Just((1_u64..=30).collect::<Vec<_>>()).prop_shuffle(), stored in 0_u64..30, repeats in 0..3) {
            let mut tail = Tail::default();
            let (before, after) = order.split_at(15);
            for seq in before { tail.put(entry(*seq)); }
            tail.load((1..=stored).map(entry).collect(), stored);
            for _ in 0..=repeats {
                for seq in after { tail.put(entry(*seq)); }
            }
            prop_assert_eq!((tail.end(), tail.hole()), (30, None));
            let start = tail.start;
            prop_assert_eq!(seqs(tail.after(start, 30, usize::MAX)), Some((start + 1..=30).collect::<Vec<_>>()));
        }
    }
}
