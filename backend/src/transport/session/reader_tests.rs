//! The mailbox reader, transition by transition. [`super::reader_property`] lets a store and a network do whatever they may.

use std::time::Duration;

use bytes::Bytes;
use martlet_protocol::{
    problem::{Code, close},
    wire::{self, GapReason, node_frame::Frame},
};

use super::{FrameRate, Output, Rules, reader::Reader};
use crate::{streams::MailboxRange, subscribers::LiveItem};

pub(super) const RULES: Rules =
    Rules { hold: Duration::from_millis(20), budget_bytes: 1 << 20, max_in_flight: 4, frames: FrameRate::new(0, 0) };
const EPOCH: u64 = 3;
const START: Duration = Duration::ZERO;

pub(super) fn entry(seq: u64) -> LiveItem {
    LiveItem::Entry(wire::MailboxEntry { seq, entry_id: Bytes::new(), sealed: Bytes::new(), content: Bytes::new() })
}

pub(super) fn gap(from_seq: u64, to_seq: u64) -> LiveItem {
    let reason = GapReason::Quota.into();
    LiveItem::Gap(wire::Gap { from_seq, to_seq, count: to_seq - from_seq + 1, reason })
}

pub(super) fn range(head_seq: u64, items: Vec<LiveItem>) -> MailboxRange {
    MailboxRange { epoch: EPOCH, head_seq, items }
}

pub(super) fn cursor(seq: u64) -> Option<wire::Cursor> {
    Some(wire::Cursor { epoch: EPOCH, seq })
}

fn caught_up(seq: u64) -> Output {
    Output::Frame(super::unasked(Frame::CaughtUp(wire::CaughtUp { mailbox: cursor(seq) })))
}

/// A reader and what came out of it.
pub(super) struct Rig {
    pub(super) reader: Reader,
    pub(super) now: Duration,
    pub(super) out: Vec<Output>,
}

impl Rig {
    pub(super) fn fresh() -> Self {
        let reader = Reader::new(&wire::MailboxState { epoch: EPOCH, head_seq: 4, acked_seq: 1 });
        Self { reader, now: START, out: Vec::new() }
    }

    /// Resumed at 2 and caught up with 4.
    fn live() -> Self {
        let mut rig = Self::fresh();
        rig.reader.resume(1, cursor(2), &mut rig.out).expect("good cursor");
        rig.range(range(4, vec![entry(3), entry(4)]));
        rig.out.clear();
        rig
    }

    fn deliver(&mut self, item: LiveItem) {
        self.reader.deliver(item, false, self.now, &RULES, &mut self.out);
    }

    pub(super) fn range(&mut self, range: MailboxRange) {
        self.reader.range(range, self.now, &RULES, &mut self.out);
    }

    pub(super) fn tick_after(&mut self, time: Duration) {
        self.now += time;
        self.reader.tick(self.now, &RULES, &mut self.out);
    }

    pub(super) fn taken(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    fn problem(&mut self) -> Option<Code> {
        match self.taken().pop() {
            Some(Output::Frame(wire::NodeFrame { frame: Some(Frame::Problem(problem)), .. })) => {
                Code::parse(&problem.code)
            }
            _ => None,
        }
    }
}

#[test]
fn nothing_is_pushed_before_resume() {
    let mut rig = Rig::fresh();
    rig.deliver(entry(5));
    rig.tick_after(RULES.hold);
    rig.reader.head_seen(9, rig.now, &RULES, &mut rig.out);
    assert_eq!(rig.taken(), []);
}

#[test]
fn stored_entries_come_first_then_the_live_ones_that_came_meanwhile() {
    let mut rig = Rig::fresh();
    rig.reader.resume(1, cursor(2), &mut rig.out).expect("good cursor");
    assert_eq!(rig.taken(), [Output::Read(2)]);
    rig.deliver(entry(5));
    rig.deliver(entry(4));
    rig.range(range(4, vec![entry(3), entry(4)]));
    assert_eq!(rig.taken(), [Output::Item(entry(3)), Output::Item(entry(4)), Output::Item(entry(5)), caught_up(5)]);
    rig.deliver(entry(6));
    assert_eq!(rig.taken(), [Output::Item(entry(6))]);
}

#[test]
fn without_a_cursor_it_begins_after_the_last_ack() {
    let mut rig = Rig::fresh();
    rig.reader.resume(1, None, &mut rig.out).expect("none is needed");
    assert_eq!(rig.taken(), [Output::Read(1)]);
}

#[test]
fn a_long_backlog_is_read_piece_by_piece_as_the_socket_drains() {
    let mut rig = Rig::fresh();
    rig.reader.resume(1, cursor(0), &mut rig.out).expect("good cursor");
    rig.taken();
    rig.range(range(4, vec![entry(1), entry(2)]));
    assert_eq!(rig.taken(), [Output::Item(entry(1)), Output::Item(entry(2))]);
    rig.deliver(entry(5));
    rig.reader.drained(&mut rig.out);
    assert_eq!(rig.taken(), [Output::Read(2)]);
    rig.reader.drained(&mut rig.out);
    assert_eq!(rig.taken(), [], "one read at a time");
    rig.range(range(5, vec![entry(3), entry(4), entry(5)]));
    assert_eq!(rig.taken().last(), Some(&caught_up(5)));
}

/// The database was replaced by one that lagged, while this socket read.
#[test]
fn a_range_of_another_epoch_ends_the_socket() {
    let mut rig = Rig::fresh();
    rig.reader.resume(1, cursor(4), &mut rig.out).expect("as far as hello said");
    rig.taken();
    rig.range(MailboxRange { epoch: EPOCH + 1, head_seq: 9, items: vec![] });
    assert_eq!(rig.taken(), [Output::Close(close::GOING_AWAY)]);

    let mut rig = Rig::fresh();
    rig.reader.resume(1, cursor(0), &mut rig.out).expect("good cursor");
    rig.range(range(9, vec![entry(1), entry(2)]));
    rig.reader.drained(&mut rig.out);
    rig.taken();
    rig.range(MailboxRange { epoch: EPOCH + 1, head_seq: 4, items: vec![entry(3), entry(4)] });
    assert_eq!(rig.taken(), [Output::Close(close::GOING_AWAY)], "numbers of two epochs are not mixed");
}

#[test]
fn bad_cursors_are_refused_and_another_resume_may_follow() {
    let mut rig = Rig::fresh();
    let other = Some(wire::Cursor { epoch: EPOCH + 1, seq: 2 });
    let refused = rig.reader.resume(1, other, &mut rig.out).expect_err("another epoch");
    assert_eq!(Code::parse(&refused.code), Some(Code::CursorEpoch));
    rig.reader.resume(2, cursor(5), &mut rig.out).expect("the store decides");
    rig.range(range(4, vec![]));
    assert_eq!(rig.problem(), Some(Code::CursorAhead));

    rig.reader.resume(3, cursor(4), &mut rig.out).expect("good cursor");
    rig.range(range(4, vec![]));
    assert!(rig.reader.is_live());
    let refused = rig.reader.resume(4, None, &mut rig.out).expect_err("once is enough");
    assert_eq!(Code::parse(&refused.code), Some(Code::FrameUnexpected));
}

#[test]
fn acks_are_believed_up_to_the_cursor() {
    let mut rig = Rig::fresh();
    let early = rig.reader.ack(1, cursor(1), &mut rig.out).expect_err("not resumed");
    assert_eq!(Code::parse(&early.code), Some(Code::FrameUnexpected));

    rig.reader.resume(2, cursor(2), &mut rig.out).expect("good cursor");
    rig.taken();
    rig.reader.ack(3, cursor(2), &mut rig.out).expect("what it resumed at");
    assert_eq!(rig.taken(), [], "only once the store has confirmed the cursor");
    rig.range(range(4, vec![entry(3), entry(4)]));
    assert_eq!(rig.taken().first(), Some(&Output::Acked(wire::Cursor { epoch: EPOCH, seq: 2 })));

    rig.reader.ack(4, cursor(4), &mut rig.out).expect("delivered");
    rig.reader.ack(5, cursor(3), &mut rig.out).expect("a repeat");
    assert_eq!(rig.taken(), [Output::Acked(wire::Cursor { epoch: EPOCH, seq: 4 })]);
    let ahead = rig.reader.ack(6, cursor(5), &mut rig.out).expect_err("not delivered");
    assert_eq!(Code::parse(&ahead.code), Some(Code::CursorAhead));
    let epoch = rig.reader.ack(7, Some(wire::Cursor { epoch: 1, seq: 1 }), &mut rig.out).expect_err("another epoch");
    assert_eq!(Code::parse(&epoch.code), Some(Code::CursorEpoch));
    let none = rig.reader.ack(8, None, &mut rig.out).expect_err("no cursor");
    assert_eq!(Code::parse(&none.code), Some(Code::Malformed));
}

#[test]
fn repeats_are_dropped() {
    let mut rig = Rig::live();
    rig.deliver(entry(5));
    rig.deliver(entry(5));
    rig.deliver(entry(2));
    assert_eq!(rig.taken(), [Output::Item(entry(5))]);
}

#[test]
fn an_early_entry_waits_for_its_predecessor() {
    let mut rig = Rig::live();
    rig.deliver(entry(6));
    rig.deliver(entry(7));
    assert_eq!(rig.taken(), [Output::Tick(RULES.hold)]);
    rig.deliver(entry(5));
    assert_eq!(rig.taken(), [Output::Item(entry(5)), Output::Item(entry(6)), Output::Item(entry(7))]);
    rig.tick_after(RULES.hold);
    assert_eq!(rig.taken(), []);
}

#[test]
fn a_predecessor_that_does_not_come_is_read() {
    let mut rig = Rig::live();
    rig.deliver(entry(6));
    rig.taken();
    rig.tick_after(RULES.hold / 2);
    assert_eq!(rig.taken(), [Output::Tick(RULES.hold / 2)]);
    rig.tick_after(RULES.hold / 2);
    assert_eq!(rig.taken(), [Output::Read(4)]);
    rig.range(range(6, vec![entry(5), entry(6)]));
    assert_eq!(rig.taken(), [Output::Item(entry(5)), Output::Item(entry(6))]);
    assert!(rig.reader.is_live());
}

#[test]
fn a_second_hole_gets_its_own_time() {
    let mut rig = Rig::live();
    rig.deliver(entry(6));
    rig.deliver(entry(5));
    rig.now += RULES.hold / 2;
    rig.deliver(entry(8));
    rig.taken();
    rig.tick_after(RULES.hold / 2);
    assert_eq!(rig.taken(), [Output::Tick(RULES.hold / 2)], "the first hole's tick does not cut it short");
    rig.tick_after(RULES.hold / 2);
    assert_eq!(rig.taken(), [Output::Read(6)]);
}

#[test]
fn a_head_beyond_the_cursor_is_a_loss() {
    let mut rig = Rig::live();
    rig.reader.head_seen(4, rig.now, &RULES, &mut rig.out);
    assert_eq!(rig.taken(), []);
    rig.reader.head_seen(5, rig.now, &RULES, &mut rig.out);
    assert_eq!(rig.taken(), [Output::Tick(RULES.hold)]);
    rig.tick_after(RULES.hold);
    assert_eq!(rig.taken(), [Output::Read(4)]);
}

#[test]
fn a_full_socket_gets_nothing_until_it_has_drained() {
    let mut rig = Rig::live();
    rig.reader.deliver(entry(5), true, rig.now, &RULES, &mut rig.out);
    rig.deliver(entry(6));
    rig.tick_after(RULES.hold);
    assert_eq!(rig.taken(), []);
    rig.reader.drained(&mut rig.out);
    assert_eq!(rig.taken(), [Output::Read(4)]);
    rig.range(range(6, vec![entry(5), entry(6)]));
    assert_eq!(rig.taken(), [Output::Item(entry(5)), Output::Item(entry(6))], "caught up was said before");
}

#[test]
fn what_is_held_is_bounded() {
    let mut rig = Rig::live();
    for seq in 6..2000 {
        rig.deliver(entry(seq));
    }
    rig.taken();
    rig.deliver(entry(5));
    let pushed = rig.taken().len();
    assert!(pushed < 300, "{pushed}");
    rig.tick_after(RULES.hold);
    assert_eq!(rig.taken().len(), 1, "the rest is read");
}

#[test]
fn markers_stand_for_entries_and_overlaps_are_cut() {
    let mut rig = Rig::live();
    rig.deliver(gap(5, 7));
    rig.deliver(gap(5, 9));
    rig.deliver(entry(10));
    assert_eq!(rig.taken(), [Output::Item(gap(5, 7)), Output::Item(gap(8, 9)), Output::Item(entry(10))]);
}

#[test]
fn a_hole_that_the_store_does_not_explain_is_told() {
    let mut rig = Rig::live();
    rig.reader.head_seen(7, rig.now, &RULES, &mut rig.out);
    rig.tick_after(RULES.hold);
    rig.taken();
    rig.range(range(7, vec![]));
    let reason = GapReason::Unexplained.into();
    let unexplained = wire::Gap { from_seq: 5, to_seq: 7, count: 3, reason };
    assert_eq!(rig.taken(), [Output::Item(LiveItem::Gap(unexplained))]);
}
