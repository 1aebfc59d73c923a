//! Handing out what logs have that is new: each item is written once per sub-protocol, all that is new in one pass goes to a connection in
//! one system call, and passes are cut into chunks between which everything else on this thread has its turn. While a pass is under way
//! more gathers for the next: nothing waits when there is little to do, and batches grow with the load.

use std::{io::IoSlice, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    super::{connection::Connection, subprotocol::SubProtocol, worker::Worker},
    readers::{LogIndex, Slot},
};
use crate::subscribers::{LiveLogItem, Log, Pulled};

/// Connections written to before others have their turn: less than a millisecond. Somebody who connects needs a dozen turns.
const CHUNK: usize = 64;
/// Logs of one pass at most.
const MAX_LOGS: usize = 1024;
/// Readers' pieces of one pass, about: what is over them waits for the next one.
const MAX_TARGETS: usize = 256 << 10;
/// So many places are kept from pass to pass; what a larger one needed is given back.
const KEPT_TARGETS: usize = 32 << 10;
/// Of one log in one pass, in bytes.
const MAX_PIECE_BYTES: usize = 64 << 10;
/// Pieces that go to one connection in one call at most; who reads more logs that have news gets them by way of its outbox.
const MAX_PIECES: usize = 16;

/// A pass rests for this part of the time that it took, so that what is not handed out is not starved, and batches grow instead of passes:
/// a worker spends at most two thirds of its time here.
const REST_DIVISOR: u32 = 2;
/// A pass that was over sooner than this needs no rest.
const SHORT: Duration = Duration::from_millis(5);

/// One pass.
#[derive(Default)]
pub(in super::super) struct Broadcast {
    began: Duration,
    /// The next one begins no earlier.
    rests_until: Duration,
    pieces: Vec<Piece>,
    /// Who gets which piece, one connection's together.
    targets: Vec<(Slot, u16)>,
    next: usize,
}

/// What is new in one log.
struct Piece {
    index: LogIndex,
    log: Arc<Log>,
    /// Everybody had this before.
    from_seq: u64,
    items: Vec<Arc<LiveLogItem>>,
    /// All items in each form, once somebody needs it.
    forms: [Option<Bytes>; SubProtocol::ALL.len()],
}

impl Broadcast {
    /// Some have not got theirs yet.
    pub(in super::super) fn is_underway(&self) -> bool {
        self.next < self.targets.len()
    }
}

impl Piece {
    fn form(&mut self, subprotocol: SubProtocol) -> Bytes {
        let Self { log, items, forms, .. } = self;
        let form = &mut forms[subprotocol.form()];
        form.get_or_insert_with(|| match &items[..] {
            [item] => subprotocol.log_item(&log.conversation_id, item),
            items => {
                let written: Vec<_> =
                    items.iter().map(|item| subprotocol.log_item(&log.conversation_id, item)).collect();
                let mut all = BytesMut::with_capacity(written.iter().map(Bytes::len).sum());
                written.iter().for_each(|bytes| all.extend_from_slice(bytes));
                all.freeze()
            }
        })
        .clone()
    }
}

impl Worker {
    /// How long until there is something to hand out; `None` if there is nothing, or it may not be.
    pub(in super::super) fn hands_out_in(&self) -> Option<Duration> {
        let broadcast = self.broadcast.borrow();
        let is_any = broadcast.is_underway() || !self.grown.borrow().is_empty();
        let rest =
            || if broadcast.is_underway() { Duration::ZERO } else { broadcast.rests_until.saturating_sub(self.now()) };
        (is_any && self.gate_is_open()).then(rest)
    }

    /// A chunk of the pass that is under way, or the beginning of the next.
    pub(in super::super) fn hand_out(self: &Rc<Self>) {
        if self.hands_out_in() != Some(Duration::ZERO) {
            return;
        }
        if !self.broadcast.borrow().is_underway() {
            self.broadcast.borrow_mut().began = self.now();
            self.begin_pass();
        }
        for _ in 0..CHUNK {
            let mut broadcast = self.broadcast.borrow_mut();
            let from = broadcast.next;
            let Some((slot, _)) = broadcast.targets.get(from).copied() else { break };
            let count = broadcast.targets[from..].iter().take_while(|(other, _)| *other == slot).count();
            broadcast.next += count;
            drop(broadcast);
            self.hand_to(slot, from..from + count);
        }
        let mut broadcast = self.broadcast.borrow_mut();
        if !broadcast.is_underway() {
            broadcast.pieces.clear();
            broadcast.targets.clear();
            broadcast.targets.shrink_to(KEPT_TARGETS);
            broadcast.next = 0;
            let now = self.now();
            let took = now.saturating_sub(broadcast.began);
            broadcast.rests_until = if took < SHORT { now } else { now + took / REST_DIVISOR };
        }
    }

    /// Takes what is new and settles who gets it.
    fn begin_pass(self: &Rc<Self>) {
        let mut waiting = Vec::new();
        {
            let (mut broadcast, mut readers) = (self.broadcast.borrow_mut(), self.readers.borrow_mut());
            let mut grown = self.grown.borrow_mut();
            for _ in 0..grown.len().min(MAX_LOGS) {
                if broadcast.targets.len() >= MAX_TARGETS {
                    break;
                }
                let Some(log) = grown.pop_front() else { break };
                let Some(index) = readers.find(&log) else { continue };
                let Some(state) = readers.get_mut(index) else { continue };
                let from_seq = state.at;
                match log.pull(self.number(), from_seq, MAX_PIECE_BYTES) {
                    Pulled::Items(items, is_more) => {
                        if let Some(last) = items.last() {
                            // No more than MAX_LOGS pieces.
                            let piece = broadcast.pieces.len() as u16;
                            broadcast.targets.extend(state.live().iter().map(|slot| (*slot, piece)));
                            waiting.extend(state.move_to(last.to_seq));
                            broadcast.pieces.push(Piece {
                                index,
                                log: log.clone(),
                                from_seq,
                                items,
                                forms: [None, None],
                            });
                        }
                        if is_more {
                            grown.push_back(log);
                        }
                    }
                    Pulled::Gone(end) => waiting.extend(readers.leave_all_behind(index, end)),
                }
            }
            if broadcast.pieces.len() > 1 {
                broadcast.targets.sort_unstable();
            }
        }
        for slot in waiting {
            let connection = self.slots.borrow().at(slot).cloned();
            if let Some(connection) = connection {
                self.flush(&connection);
            }
        }
    }

    /// Writes one connection's pieces in one call. What it does not take at once it gets later, from where it was.
    fn hand_to(self: &Rc<Self>, slot: Slot, targets: std::ops::Range<usize>) {
        let Some(connection) = self.slots.borrow().at(slot).cloned() else { return };
        let mut broadcast = self.broadcast.borrow_mut();
        let Broadcast { pieces, targets: all, .. } = &mut *broadcast;
        let mut state = connection.state.borrow_mut();
        if state.closing {
            return;
        }
        let mut readers = self.readers.borrow_mut();
        let is_full = state.waiting_bytes() > 0 || state.writing;
        let mut taken: [Bytes; MAX_PIECES] = Default::default();
        let (mut count, mut bytes) = (0, 0);
        let mut is_behind = false;
        for (_, piece) in &all[targets.clone()] {
            let piece = &mut pieces[usize::from(*piece)];
            if !readers.get(piece.index).is_some_and(|readers| readers.is_to_get(slot)) {
                continue;
            }
            if is_full || count == MAX_PIECES || bytes >= self.rules.budget_bytes {
                readers.fall_behind(slot, piece.index, piece.from_seq);
                is_behind = true;
                continue;
            }
            taken[count] = piece.form(connection.subprotocol);
            bytes += taken[count].len();
            count += 1;
        }
        let Some(written) = write(&connection, &taken[..count]) else {
            drop((state, readers, broadcast));
            return connection.cut();
        };
        if written == 0 && count > 0 {
            // Nothing of it is on its way: all of it can be read again later.
            for (_, piece) in &all[targets] {
                let piece = &pieces[usize::from(*piece)];
                if readers.get(piece.index).is_some_and(|readers| readers.is_to_get(slot)) {
                    readers.fall_behind(slot, piece.index, piece.from_seq);
                }
            }
        } else if written < bytes {
            let mut skip = written;
            for piece in &mut taken[..count] {
                let skipped = skip.min(piece.len());
                skip -= skipped;
                state.outbox().push_rest(piece.slice(skipped..));
            }
        }
        drop((state, readers, broadcast));
        if written < bytes {
            self.write_later(&connection);
        } else if is_behind && !is_full {
            self.flush(&connection);
        }
    }
}

/// How many bytes the socket took; `None` if it is broken.
fn write(connection: &Connection, pieces: &[Bytes]) -> Option<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
    let result = match pieces {
        [] => return Some(0),
        [one] => connection.stream.try_write(one),
        pieces => {
            slices.iter_mut().zip(pieces).for_each(|(slice, piece)| *slice = IoSlice::new(piece));
            connection.stream.try_write_vectored(&slices[..pieces.len()])
        }
    };
    match result {
        Ok(written) => Some(written),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
            Some(0)
        }
        Err(_) => None,
    }
}
