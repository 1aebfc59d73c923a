//! Reading one mailbox without gap or repeat: stored entries first, then live ones, joined by `seq`.
//!
//! What was pushed last is the cursor. A live entry that follows it is pushed, an earlier one is a repeat, a later one is held: its
//! predecessors may be under way, and if they don't come soon they are read from the store. While a range is read, or while the socket
//! has too much to write, only the head is remembered; reading goes on until the cursor has reached it. So whatever is lost, repeated or
//! reordered on the way here costs time only.

use std::{collections::BTreeMap, time::Duration};

use martlet_protocol::{
    problem::{Code, close},
    wire::{self, GapReason, node_frame},
};
use martlet_storage::planted::{self, Bug};

use super::{Output, Rules, refusal, unasked};
use crate::{streams::MailboxRange, subscribers::LiveItem};

/// Entries held back at most. Further ones are read from the store.
const MAX_HELD: usize = 256;

/// See the module.
pub(super) struct Reader {
    epoch: u64,
    acked: u64,
    /// The last `seq` pushed, or where the client resumed.
    cursor: u64,
    /// The highest `seq` known to exist.
    head: u64,
    mode: Mode,
    /// Since when a live entry waits for its predecessor.
    hole_since: Option<Duration>,
    /// A tick is under way.
    ticking: bool,
    held: Option<Box<Held>>,
}

enum Mode {
    /// Nothing is pushed before the client has resumed.
    Fresh,
    /// The first range is being read; it tells whether the cursor is good.
    Resuming(Box<Resuming>),
    /// A range is being read. The backlog that the client resumed into has not been delivered yet, or it has.
    Reading { caught_up: bool },
    /// The socket has too much to write; reading goes on when that is gone.
    Stalled { caught_up: bool },
    /// The cursor follows the head.
    Live,
}

struct Resuming {
    reference: u64,
    /// An ack that came before the cursor was known to be good.
    ack: Option<(u64, wire::Cursor)>,
}

#[derive(Default)]
struct Held {
    items: BTreeMap<u64, LiveItem>,
    bytes: usize,
}

impl Reader {
    pub(super) fn new(mailbox: &wire::MailboxState) -> Self {
        Self {
            epoch: mailbox.epoch,
            acked: mailbox.acked_seq,
            cursor: 0,
            head: mailbox.head_seq,
            mode: Mode::Fresh,
            hole_since: None,
            ticking: false,
            held: None,
        }
    }

    pub(super) fn known_head(&self) -> u64 {
        self.head
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live)
    }

    /// The client has resumed, and does not hold up what is stored for it.
    pub(super) fn hears_whispers(&self) -> bool {
        matches!(self.mode, Mode::Live | Mode::Reading { .. })
    }

    pub(super) fn resume(
        &mut self,
        reference: u64,
        cursor: Option<wire::Cursor>,
        out: &mut Vec<Output>,
    ) -> Result<(), wire::Problem> {
        if !matches!(self.mode, Mode::Fresh) {
            return Err(Code::FrameUnexpected.problem("this socket has resumed already"));
        }
        if let Some(cursor) = &cursor {
            self.check_epoch(cursor)?;
        }
        self.cursor = cursor.map_or(self.acked, |cursor| cursor.seq);
        self.mode = Mode::Resuming(Box::new(Resuming { reference, ack: None }));
        out.push(Output::Read(self.cursor));
        Ok(())
    }

    pub(super) fn ack(
        &mut self,
        reference: u64,
        cursor: Option<wire::Cursor>,
        out: &mut Vec<Output>,
    ) -> Result<(), wire::Problem> {
        let cursor = cursor.ok_or_else(|| Code::Malformed.problem("an ack names a cursor"))?;
        self.check_epoch(&cursor)?;
        match &mut self.mode {
            Mode::Fresh => return Err(Code::FrameUnexpected.problem("resume before the first ack")),
            _ if cursor.seq > self.cursor => {
                return Err(Code::CursorAhead.problem("this ack is beyond what was delivered to this device"));
            }
            Mode::Resuming(resuming) => resuming.ack = Some((reference, cursor)),
            Mode::Reading { .. } | Mode::Stalled { .. } | Mode::Live => {
                if cursor.seq > self.acked {
                    self.acked = cursor.seq;
                    let across = planted::is(Bug::AckAcrossGap);
                    let seq = if across { self.head } else { cursor.seq };
                    out.push(Output::Acked(wire::Cursor { seq, ..cursor }));
                }
            }
        }
        Ok(())
    }

    fn check_epoch(&self, cursor: &wire::Cursor) -> Result<(), wire::Problem> {
        if cursor.epoch == self.epoch {
            return Ok(());
        }
        Err(Code::CursorEpoch.problem("the cursor is of another epoch of this mailbox"))
    }

    pub(super) fn deliver(&mut self, item: LiveItem, full: bool, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        let (from, to) = item.span();
        self.head = self.head.max(to);
        match self.mode {
            Mode::Fresh | Mode::Stalled { .. } => {}
            Mode::Resuming(_) | Mode::Reading { .. } => self.hold(item, rules),
            Mode::Live if to <= self.cursor => {}
            Mode::Live if full => {
                self.held = None;
                self.hole_since = None;
                self.mode = Mode::Stalled { caught_up: true };
            }
            Mode::Live if from <= self.cursor + 1 => {
                self.push(item, out);
                self.push_held(out);
                self.watch(now, rules, out);
            }
            Mode::Live => {
                self.hold(item, rules);
                self.watch(now, rules, out);
            }
        }
    }

    pub(super) fn range(&mut self, range: MailboxRange, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        if range.epoch != self.epoch {
            // What hello said and what was delivered is of other numbers; the device begins anew with another socket.
            return out.push(Output::Close(close::GOING_AWAY));
        }
        let caught_up = match std::mem::replace(&mut self.mode, Mode::Live) {
            Mode::Resuming(resuming) => {
                if !self.resumed(*resuming, &range, out) {
                    return;
                }
                false
            }
            Mode::Reading { caught_up } => caught_up,
            // Nobody asked.
            other => {
                self.mode = other;
                return;
            }
        };
        self.head = self.head.max(range.head_seq);
        let before = self.cursor;
        for item in range.items {
            self.push(item, out);
        }
        if self.cursor == before && before < range.head_seq {
            // The store has a head but neither entries nor markers below it. Told, not skipped in silence.
            tracing::error!("a mailbox has a hole that the store does not explain");
            self.push(unexplained(before + 1, range.head_seq), out);
        }
        self.push_held(out);
        if self.cursor < self.head {
            // The socket first writes what it was given; then `drained` reads on.
            self.mode = Mode::Stalled { caught_up };
            return;
        }
        if !caught_up {
            let mailbox = Some(wire::Cursor { epoch: self.epoch, seq: self.cursor });
            out.push(Output::Frame(unasked(node_frame::Frame::CaughtUp(wire::CaughtUp { mailbox }))));
        }
        self.watch(now, rules, out);
    }

    /// Whether the cursor is good; the ack that waited for that is applied.
    fn resumed(&mut self, resuming: Resuming, range: &MailboxRange, out: &mut Vec<Output>) -> bool {
        if self.cursor <= range.head_seq {
            self.mode = Mode::Live;
            if let Some((reference, cursor)) = resuming.ack
                && let Err(problem) = self.ack(reference, Some(cursor), out)
            {
                out.push(refusal(reference, problem));
            }
            return true;
        }
        let problem = Code::CursorAhead.problem("the cursor is beyond the mailbox's head");
        out.push(refusal(resuming.reference, problem));
        self.mode = Mode::Fresh;
        self.held = None;
        self.cursor = 0;
        false
    }

    pub(super) fn tick(&mut self, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.ticking = false;
        let Some(since) = self.hole_since else { return };
        let waited = now.saturating_sub(since);
        if waited >= rules.hold {
            self.read_on(true, out);
        } else {
            self.ticking = true;
            out.push(Output::Tick(rules.hold - waited));
        }
    }

    pub(super) fn head_seen(&mut self, head_seq: u64, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.head = self.head.max(head_seq);
        if self.is_live() {
            self.watch(now, rules, out);
        }
    }

    pub(super) fn drained(&mut self, out: &mut Vec<Output>) {
        if let Mode::Stalled { caught_up } = self.mode {
            self.read_on(caught_up, out);
        }
    }

    fn read_on(&mut self, caught_up: bool, out: &mut Vec<Output>) {
        self.hole_since = None;
        self.mode = Mode::Reading { caught_up };
        out.push(Output::Read(self.cursor));
    }

    /// Pushes an item that follows the cursor, or overlaps it (a gap marker that has grown), or is a repeat.
    fn push(&mut self, item: LiveItem, out: &mut Vec<Output>) {
        let (from, to) = item.span();
        if to <= self.cursor {
            return;
        }
        if from > self.cursor + 1 {
            tracing::error!("the store left out part of a mailbox");
            out.push(Output::Item(unexplained(self.cursor + 1, from - 1)));
        }
        out.push(Output::Item(match item {
            LiveItem::Gap(gap) if from <= self.cursor => LiveItem::Gap(rest_of(gap, self.cursor + 1)),
            item => item,
        }));
        self.cursor = to;
    }

    fn push_held(&mut self, out: &mut Vec<Output>) {
        let Some(mut held) = self.held.take() else { return };
        while let Some(first) = held.items.first_entry()
            && *first.key() <= self.cursor + 1
        {
            let item = first.remove();
            held.bytes -= item.size_bytes();
            self.push(item, out);
        }
        if !held.items.is_empty() {
            self.held = Some(held);
        }
    }

    fn hold(&mut self, item: LiveItem, rules: &Rules) {
        let (from, size) = (item.span().0, item.size_bytes());
        let held = self.held.get_or_insert_default();
        if held.items.len() < MAX_HELD && held.bytes + size <= rules.budget_bytes && !held.items.contains_key(&from) {
            held.bytes += size;
            held.items.insert(from, item);
        }
    }

    /// In live mode: notices that a hole has opened or closed.
    fn watch(&mut self, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        if self.cursor >= self.head {
            self.hole_since = None;
        } else if self.hole_since.is_none() {
            self.hole_since = Some(now);
            if !self.ticking {
                self.ticking = true;
                out.push(Output::Tick(rules.hold));
            }
        }
    }
}

fn unexplained(from_seq: u64, to_seq: u64) -> LiveItem {
    let reason = GapReason::Unexplained.into();
    LiveItem::Gap(wire::Gap { from_seq, to_seq, count: to_seq - from_seq + 1, reason })
}

/// The part of a gap from `from_seq` on.
fn rest_of(gap: wire::Gap, from_seq: u64) -> wire::Gap {
    wire::Gap { from_seq, count: gap.count.min(gap.to_seq - from_seq + 1), ..gap }
}
