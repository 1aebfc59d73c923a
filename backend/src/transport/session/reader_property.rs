//! The mailbox reader against a store and a network that do whatever they may.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{
    Output,
    reader_tests::{RULES, Rig, cursor, entry, gap, range},
};
use crate::subscribers::LiveItem;

/// What may happen next.
#[derive(Debug, Clone)]
enum Step {
    /// Something is committed and published; the publish arrives, is lost, comes late or twice.
    Commit(Fate),
    /// A gap marker of so many entries is committed.
    Discard(u64, Fate),
    /// A late publish arrives.
    Late(usize),
    /// The oldest range that was asked for is read, so many items of it.
    Read(usize),
    /// The socket is full, or has drained.
    Full(bool),
    /// Time passes, and the tick with it.
    Tick,
    /// Heads are compared.
    Compare,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Late,
    Twice,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![Just(Fate::Arrives), Just(Fate::Lost), Just(Fate::Late), Just(Fate::Twice)];
    let step = prop_oneof![
        6 => fate.clone().prop_map(Step::Commit),
        1 => (1_u64..4, fate).prop_map(|(count, fate)| Step::Discard(count, fate)),
        3 => (0_usize..8).prop_map(Step::Late),
        4 => (1_usize..5).prop_map(Step::Read),
        2 => any::<bool>().prop_map(Step::Full),
        2 => Just(Step::Tick),
        1 => Just(Step::Compare),
    ];
    proptest::collection::vec(step, 0..120)
}

/// A store, a network and a client around a reader.
struct World {
    rig: Rig,
    stored: Vec<LiveItem>,
    late: Vec<LiveItem>,
    reads: VecDeque<u64>,
    ticks: usize,
    full: bool,
    /// What the client got.
    seen: Vec<LiveItem>,
}

impl World {
    fn new() -> Self {
        let stored: Vec<LiveItem> = (1..=4).map(entry).collect();
        let mut rig = Rig::fresh();
        rig.reader.resume(1, cursor(0), &mut rig.out).expect("good cursor");
        let mut world =
            Self { rig, stored, late: Vec::new(), reads: VecDeque::new(), ticks: 0, full: false, seen: Vec::new() };
        world.collect();
        world
    }

    fn head(&self) -> u64 {
        self.stored.last().map_or(0, |item| item.span().1)
    }

    fn collect(&mut self) {
        for output in self.rig.taken() {
            match output {
                Output::Item(item) => self.seen.push(item),
                Output::Read(after) => self.reads.push_back(after),
                Output::Tick(_) => self.ticks += 1,
                _ => {}
            }
        }
        assert!(self.reads.len() <= 1 && self.ticks <= 1, "one range and one tick at a time");
    }

    fn publish(&mut self, item: LiveItem, fate: Fate) {
        self.stored.push(item.clone());
        let times = match fate {
            Fate::Lost => 0,
            Fate::Arrives => 1,
            Fate::Twice => 2,
            Fate::Late => return self.late.push(item),
        };
        for _ in 0..times {
            self.deliver(item.clone());
        }
    }

    fn deliver(&mut self, item: LiveItem) {
        let Rig { reader, now, out } = &mut self.rig;
        reader.deliver(item, self.full, *now, &RULES, out);
        self.collect();
    }

    fn read(&mut self, count: usize) {
        let Some(after) = self.reads.pop_front() else { return };
        let items = self.stored.iter().filter(|item| item.span().1 > after).take(count).cloned().collect();
        self.rig.range(range(self.head(), items));
        self.collect();
        self.drained();
    }

    fn drained(&mut self) {
        if !self.full {
            self.rig.reader.drained(&mut self.rig.out);
            self.collect();
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(fate) => self.publish(entry(self.head() + 1), fate),
            Step::Discard(count, fate) => self.publish(gap(self.head() + 1, self.head() + count), fate),
            Step::Late(index) if index < self.late.len() => {
                let item = self.late.swap_remove(index);
                self.deliver(item);
            }
            Step::Late(_) => {}
            Step::Read(count) => self.read(count),
            Step::Full(full) => {
                self.full = full;
                self.drained();
            }
            Step::Tick if self.ticks > 0 => {
                self.ticks -= 1;
                self.rig.tick_after(RULES.hold);
                self.collect();
            }
            Step::Tick => {}
            Step::Compare => {
                let head = self.head();
                let Rig { reader, now, out } = &mut self.rig;
                reader.head_seen(head, *now, &RULES, out);
                self.collect();
            }
        }
    }

    /// The client reads again, heads are compared, everything asked for is answered.
    fn settle(&mut self) {
        self.take(Step::Full(false));
        for _ in 0..1000 {
            self.take(Step::Compare);
            self.take(Step::Tick);
            self.read(3);
        }
    }
}

proptest! {
    /// Whatever is lost, repeated, late or read in pieces: each `seq` exactly once and in order, and in the end all of them.
    #[test]
    fn each_seq_exactly_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            let mut next = 1;
            for item in &world.seen {
                let (from, to) = item.span();
                prop_assert_eq!(from, next);
                next = to + 1;
            }
        }
        world.settle();
        prop_assert_eq!(&world.seen, &world.stored);
        prop_assert!(world.rig.reader.is_live());
    }
}
