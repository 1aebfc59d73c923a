//! The newest items of one log: in order, without holes, bounded in bytes. What comes before its predecessor is held back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use martlet_protocol::wire::{self, log_item};
use martlet_storage::logs::LogCursor;

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
    /// Unix seconds. From then on it is no longer read from memory: the store has a gap in its place.
    pub expires_at_s: u64,
    /// Written once per sub-protocol, by whoever first needs it.
    forms: [OnceLock<Bytes>; FORMS],
}

impl LiveLogItem {
    /// Not written in any form yet.
    #[must_use]
    pub fn new(item: log_item::Item, expires_at_s: u64) -> Arc<Self> {
        let (from_seq, to_seq) = match &item {
            log_item::Item::Entry(entry) => (entry.seq, entry.seq),
            log_item::Item::Gap(gap) => (gap.from_seq, gap.to_seq),
        };
        Arc::new(Self { from_seq, to_seq, item, expires_at_s, forms: Default::default() })
    }

    /// An entry.
    #[must_use]
    pub fn entry(entry: wire::LogEntry, expires_at_s: u64) -> Arc<Self> {
        Self::new(log_item::Item::Entry(entry), expires_at_s)
    }

    /// A gap, which stays one.
    #[must_use]
    pub fn gap(gap: wire::Gap) -> Arc<Self> {
        Self::new(log_item::Item::Gap(gap), u64::MAX)
    }

    /// The item in a form (less than [`FORMS`]), made by `write` if nobody has asked for it before.
    pub fn form(&self, form: usize, write: impl FnOnce(&log_item::Item) -> Bytes) -> &Bytes {
        self.forms[form].get_or_init(|| write(&self.item))
    }

    /// Of its content, in bytes.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        match &self.item {
            log_item::Item::Entry(entry) => entry.content.len(),
            log_item::Item::Gap(_) => 0,
        }
    }

    /// About how much memory it holds, in bytes: the item and one form of it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.content_bytes()
    }
}

/// A part of a log as somebody asks for it who turns pages.
#[derive(Debug, Clone, Copy)]
pub struct PageOfLog {
    /// From where, and in which direction.
    pub cursor: LogCursor,
    /// At most so many entries.
    pub max_items: usize,
    /// No more once they have so many bytes of content.
    pub max_bytes: usize,
    /// The log reaches at least this far, and the page no further.
    pub head_seq: u64,
    /// What lies up to here is not to be seen.
    pub after_seq: u64,
    /// Unix seconds.
    pub now_s: u64,
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

    /// A page; `None` unless all of it is here, and nothing in it has expired.
    pub(super) fn page(&self, wanted: &PageOfLog) -> Option<Vec<Arc<LiveLogItem>>> {
        if !self.is_loaded || self.end < wanted.head_seq {
            return None;
        }
        // What has come since may be of another group epoch than the page names.
        let known = self.items.partition_point(|item| item.from_seq <= wanted.head_seq);
        let (mut bytes, max_bytes) = (0, wanted.max_bytes.max(1));
        let mut page: Vec<Arc<LiveLogItem>> = Vec::new();
        let mut take = |item: &Arc<LiveLogItem>| {
            let fits = page.len() < wanted.max_items && bytes < max_bytes;
            if fits {
                bytes += item.content_bytes();
                page.push(item.clone());
            }
            fits
        };
        // A gap may reach over the cursor: then it is not this page's whole.
        match wanted.cursor {
            LogCursor::After(seq) => {
                let first = self.items.partition_point(|item| item.to_seq <= seq);
                let is_here = seq >= self.start && self.items.get(first).is_none_or(|item| item.from_seq > seq);
                if !is_here {
                    return None;
                }
                self.items.range(first.min(known)..known).all(&mut take);
            }
            LogCursor::Before(seq) => {
                let end = self.items.partition_point(|item| item.to_seq < seq);
                let is_here = self.items.get(end).is_none_or(|item| item.from_seq >= seq);
                self.items.range(..end.min(known)).rev().all(&mut take);
                let is_full = page.len() >= wanted.max_items || bytes >= max_bytes;
                if !is_here || (!is_full && self.start > 0) {
                    return None;
                }
                page.reverse();
            }
        }
        let is_seen = |item: &Arc<LiveLogItem>| item.from_seq > wanted.after_seq && item.expires_at_s > wanted.now_s;
        page.iter().all(is_seen).then_some(page)
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
        LiveLogItem::entry(wire::LogEntry { seq, content: vec![0; 100].into(), ..Default::default() }, u64::MAX)
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

    fn wanted(cursor: LogCursor, max_items: usize) -> PageOfLog {
        PageOfLog { cursor, max_items, max_bytes: usize::MAX, head_seq: 9, after_seq: 0, now_s: 0 }
    }

    #[test]
    fn a_page_is_served_only_if_all_of_it_is_here_and_may_be_seen() {
        // What is before 4 has left memory.
        let mut tail = loaded(1..=9);
        (0..3).for_each(|_| assert!(tail.shorten()));
        let page = |wanted: PageOfLog| seqs(tail.page(&wanted));
        let (after, before) = (LogCursor::After, LogCursor::Before);
        assert_eq!(page(wanted(before(u64::MAX), 2)), Some(vec![8, 9]));
        assert_eq!(page(wanted(before(8), 4)), Some(vec![4, 5, 6, 7]));
        assert_eq!(page(wanted(before(8), 5)), None, "there is more in the store");
        assert_eq!(page(wanted(after(3), 2)), Some(vec![4, 5]));
        assert_eq!(page(wanted(after(2), 2)), None);
        assert_eq!(page(wanted(after(9), 2)), Some(vec![]));
        assert_eq!(
            page(PageOfLog { max_bytes: 101, ..wanted(after(3), 9) }),
            Some(vec![4, 5]),
            "the one that fills it is its last"
        );
        assert_eq!(
            page(PageOfLog { head_seq: 10, ..wanted(after(8), 9) }),
            None,
            "the log reaches further than is known here"
        );
        let until_7 = |cursor| page(PageOfLog { head_seq: 7, ..wanted(cursor, 2) });
        assert_eq!((until_7(before(u64::MAX)), until_7(after(6))), (Some(vec![6, 7]), Some(vec![7])));
        assert_eq!(page(PageOfLog { after_seq: 8, ..wanted(before(u64::MAX), 1) }), Some(vec![9]));
        assert_eq!(page(PageOfLog { after_seq: 8, ..wanted(before(u64::MAX), 2) }), None, "8 is not this reader's");
        assert_eq!(page(PageOfLog { now_s: u64::MAX, ..wanted(after(8), 9) }), None, "it has expired");
        assert_eq!(seqs(Tail::default().page(&wanted(after(0), 9))), None, "nothing is loaded");
    }

    #[test]
    fn a_page_does_not_begin_or_end_in_a_gap() {
        let mut tail = loaded(1..=3);
        tail.put(LiveLogItem::gap(wire::Gap { from_seq: 4, to_seq: 8, count: 5, reason: 0 }));
        tail.put(entry(9));
        let page = |cursor| seqs(tail.page(&wanted(cursor, 9)));
        assert_eq!(page(LogCursor::After(0)), Some(vec![1, 2, 3, 8, 9]));
        assert_eq!((page(LogCursor::After(3)), page(LogCursor::After(5))), (Some(vec![8, 9]), None));
        assert_eq!((page(LogCursor::Before(9)), page(LogCursor::Before(7))), (Some(vec![1, 2, 3, 8]), None));
        assert_eq!(page(LogCursor::Before(4)), Some(vec![1, 2, 3]));
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
