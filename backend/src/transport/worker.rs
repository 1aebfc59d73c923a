//! One worker thread's connections and the loop that serves them: what its inbox brings is given to the sessions, what they answer
//! collects per connection, and each connection is written to once per pass. Idle connections cost this loop one wheel entry each.
//!
//! [`super::reading`] is the way of frames from the sockets, [`super::work`] does what the sessions ask for.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::ready,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use martlet_protocol::{
    problem::close,
    wire::{self, node_frame},
};
use martlet_storage::mailbox::Ack;
use tokio::{
    sync::{Notify, Semaphore},
    task::{spawn_local, yield_now},
    time::{self, MissedTickBehavior},
};

use super::{
    Sockets,
    connection::Connection,
    logs::{Broadcast, Readers},
    outbox::Progress,
    session::{FrameRate, Output, Rules},
    slots::Slots,
    wheel::{Wheel, spread},
};
use crate::{
    services::Services,
    subscribers::{Inbox, Item, Log, SubscriberId},
    vital,
};

/// How long a client may take to answer a close frame.
const CLOSE_LINGER: Duration = Duration::from_secs(5);
/// Authentications and hellos of one worker that read the store at once.
const ARRIVALS_AT_ONCE: usize = 8;

/// Clients of one worker that are given time to read why they are refused.
const REFUSALS_AT_ONCE: usize = 256;

/// What falls due for a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// Send a ping.
    Ping,
    /// See whether something came since.
    Pong,
    /// It has had time enough to close.
    Cut,
}

/// See the module. Lives on its thread.
pub(super) struct Worker {
    pub(super) services: Arc<Services>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) rules: Rules,
    pub(super) inbox: Arc<Inbox>,
    pub(super) slots: RefCell<Slots<Rc<Connection>>>,
    pub(super) wheel: RefCell<Wheel<(SubscriberId, Due)>>,
    /// The one read buffer of all connections that have no part of a frame waiting.
    pub(super) scratch: RefCell<BytesMut>,
    /// All heads are to be compared at once.
    pub(super) compare_now: Notify,
    /// Connections whose heads are to be compared, and the sign that there are some.
    pub(super) to_compare: RefCell<Vec<Rc<Connection>>>,
    pub(super) compare_these: Notify,
    /// For those who have just come and need the store: many at once wait here, not in front of everybody else's reads.
    pub(super) arrivals: Semaphore,
    /// For clients that are given time to read why they are refused.
    pub(super) refusals: Semaphore,
    /// Who reads which logs.
    pub(super) readers: RefCell<Readers>,
    /// What is being handed out to them.
    pub(super) broadcast: RefCell<Broadcast>,
    /// Logs that have more since then, and the sign that a reader found one.
    pub(super) grown: RefCell<VecDeque<Arc<Log>>>,
    pub(super) more_to_hand_out: Notify,
    number: u16,
    /// Whether this node might push when this pass began: before the inbox was emptied, so that no revocation is overtaken.
    may_push: Cell<bool>,
    /// Connections that wait for that.
    gated: RefCell<Vec<Rc<Connection>>>,
    /// Counts what is to be spread over time.
    spread: Cell<u32>,
}

impl Worker {
    /// Joins the node's workers and starts this thread's loops; `None` if there are too many workers.
    pub(super) fn start(services: Arc<Services>, sockets: Arc<Sockets>) -> Option<Rc<Self>> {
        let (number, inbox) = services.streams.subscribers().join()?;
        let (socket, limits) = (&services.config.socket, &services.config.limits);
        let rules = Rules {
            hold: socket.hold_out_of_order,
            budget_bytes: socket.outbound_budget_bytes,
            max_in_flight: u32::try_from(socket.max_in_flight_sends).unwrap_or(u32::MAX),
            frames: FrameRate::new(limits.frames_per_socket_per_second, limits.frames_burst),
        };
        let longest = socket.ping_interval.max(socket.pong_timeout).max(CLOSE_LINGER);
        let worker = Rc::new(Self {
            rules,
            inbox,
            number,
            readers: RefCell::default(),
            broadcast: RefCell::default(),
            grown: RefCell::default(),
            more_to_hand_out: Notify::new(),
            slots: RefCell::default(),
            wheel: RefCell::new(Wheel::new(longest)),
            scratch: RefCell::default(),
            compare_now: Notify::new(),
            to_compare: RefCell::default(),
            compare_these: Notify::new(),
            arrivals: Semaphore::new(ARRIVALS_AT_ONCE),
            refusals: Semaphore::new(REFUSALS_AT_ONCE),
            may_push: Cell::new(false),
            gated: RefCell::default(),
            // Workers begin at different places, so that together they spread as evenly as one would.
            spread: Cell::new(u32::from(number) << 16),
            services,
            sockets,
        });
        keep_up(worker.clone().run());
        keep_up(worker.clone().compare_heads());
        keep_up(worker.clone().compare_asked());
        Some(worker)
    }

    /// Time that never steps back, as sessions take it.
    pub(super) fn now(&self) -> Duration {
        self.services.clock.elapsed()
    }

    /// The next part of `span`, so that things are spread over it.
    pub(super) fn part_of(&self, span: Duration) -> Duration {
        self.spread.set(self.spread.get().wrapping_add(1));
        spread(self.spread.get(), span)
    }

    async fn run(self: Rc<Self>) {
        let mut ticks = time::interval(self.wheel.borrow().tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let hand_out_in = self.hands_out_in();
            let turn = tokio::select! {
                biased;
                _ = ticks.tick() => true,
                () = self.inbox.filled() => false,
                () = self.more_to_hand_out.notified() => false,
                () = ready(()), if hand_out_in == Some(Duration::ZERO) => false,
                () = time::sleep(hand_out_in.unwrap_or_default()), if hand_out_in.is_some() => false,
            };
            self.pass(turn);
            self.hand_out();
            // New bytes and the other tasks get their turn before the next batch.
            yield_now().await;
        }
    }

    fn pass(self: &Rc<Self>, turn: bool) {
        let open = self.services.streams.may_push();
        self.may_push.set(open);
        let mut touched = if open { self.gated.take() } else { Vec::new() };
        let taken = self.inbox.take();
        let began = self.now();
        self.grown.borrow_mut().extend(taken.logs);
        for letter in taken.letters {
            let Some(connection) = self.find(letter.to) else { continue };
            if let Item::Live(entry) = &letter.item {
                self.services.measures.relayed(began.saturating_sub(entry.under_way_since));
            }
            self.hear(&connection, letter.item);
            if !std::mem::replace(&mut connection.state.borrow_mut().touched, true) {
                touched.push(connection);
            }
        }
        for connection in touched {
            connection.state.borrow_mut().touched = false;
            self.flush(&connection);
            self.services.measures.written(self.now().saturating_sub(began));
        }
        if taken.missed {
            self.compare_now.notify_one();
        }
        if taken.drain {
            spawn_local(self.clone().drain());
        }
        if turn {
            self.turn();
        }
    }

    pub(super) fn find(&self, id: SubscriberId) -> Option<Rc<Connection>> {
        self.slots.borrow().get(id.slot, id.generation).cloned()
    }

    /// Gives one item to its session. Writes nothing yet.
    fn hear(self: &Rc<Self>, connection: &Rc<Connection>, item: Item) {
        let mut outputs = Vec::new();
        match item {
            Item::Live(entry) => {
                let item = Arc::try_unwrap(entry).map_or_else(|entry| entry.item.clone(), |entry| entry.item);
                let mut state = connection.state.borrow_mut();
                let full = state.waiting_bytes() >= self.rules.budget_bytes;
                let Some(session) = &mut state.session else { return };
                session.deliver(item, full, self.now(), &self.rules, &mut outputs);
            }
            // While the gate is closed nothing may be pushed, and nothing of this kind is worth keeping until it opens.
            Item::Whisper(whisper) if self.may_push.get() => {
                let mut state = connection.state.borrow_mut();
                // The other half is left to entries.
                let full = state.waiting_bytes() >= self.rules.budget_bytes / 2;
                let Some(session) = &mut state.session else { return };
                session.whisper(&whisper, full, self.services.clock.now_ms(), &mut outputs);
            }
            Item::Whisper(_) => {}
            Item::Answer(reference, result) => {
                let mut state = connection.state.borrow_mut();
                let Some(session) = &mut state.session else { return };
                session.answered(reference, result.map(node_frame::Frame::Accepted), &mut outputs);
                state.wake_reader();
            }
            Item::CompareHead => {
                if !std::mem::replace(&mut connection.state.borrow_mut().to_compare, true) {
                    self.to_compare.borrow_mut().push(connection.clone());
                }
                return self.compare_these.notify_one();
            }
            Item::HelloChanged => return self.hello_changed(connection),
            Item::LogEnded(key) => return self.end_log(connection, key),
            Item::Close(code) => return self.close(connection, Some(code)),
        }
        self.apply(connection, outputs);
    }

    /// Does what a session asks for; frames collect until [`Self::flush`].
    pub(super) fn apply(self: &Rc<Self>, connection: &Rc<Connection>, outputs: Vec<Output>) {
        for output in outputs {
            let mut state = connection.state.borrow_mut();
            if state.closing {
                return;
            }
            match output {
                Output::Frame(frame) => connection.subprotocol.encode(&frame, state.outbox()),
                Output::Item(item) => connection.subprotocol.encode_item(item, state.outbox()),
                Output::Whisper(payload) => connection.subprotocol.encode_whisper(&payload, state.outbox()),
                Output::Acked(wire::Cursor { epoch, seq }) => {
                    let device_key = connection.identity.device_key;
                    self.services.streams.acked(Ack { device_key, epoch, seq });
                }
                Output::Read(after_seq) => drop(spawn_local(self.clone().read_range(connection.clone(), after_seq))),
                Output::Tick(delay) => drop(spawn_local(self.clone().tick_later(connection.clone(), delay))),
                Output::Unsubscribe(ids) => {
                    drop(state);
                    self.unsubscribe(connection, &ids);
                }
                Output::Close(code) => {
                    drop(state);
                    self.close(connection, Some(code));
                }
            }
        }
    }

    /// Writes what the socket takes, in one call as a rule, and lets the session go on once everything is written.
    pub(super) fn flush(self: &Rc<Self>, connection: &Rc<Connection>) {
        loop {
            if !self.may_write(connection) {
                return self.wait_for_gate(connection);
            }
            match connection.write() {
                Ok(Progress::Drained) => {}
                Ok(Progress::Blocked { .. }) => return self.write_later(connection),
                Err(_) => return connection.cut(),
            }
            let mut state = connection.state.borrow_mut();
            if state.closing {
                drop(state);
                return connection.finish();
            }
            state.wake_reader();
            let mut outputs = Vec::new();
            if let Some(session) = &mut state.session {
                session.drained(&mut outputs);
            }
            drop(state);
            if outputs.is_empty() && !self.catch_up(connection) {
                return;
            }
            self.apply(connection, outputs);
        }
    }

    /// A close frame may leave at any time.
    pub(super) fn may_write(&self, connection: &Connection) -> bool {
        connection.state.borrow().closing || self.gate_is_open()
    }

    /// Opens with a pass, so that no revocation in the inbox is overtaken, and closes at once.
    pub(super) fn gate_is_open(&self) -> bool {
        let is_open = self.may_push.get() && self.services.streams.may_push();
        if !is_open {
            // Should it open in the middle of a pass, then only the next one has seen what the inbox held when it did.
            self.may_push.set(false);
        }
        is_open
    }

    fn wait_for_gate(&self, connection: &Rc<Connection>) {
        let mut state = connection.state.borrow_mut();
        if state.waiting_bytes() > 0 && !std::mem::replace(&mut state.touched, true) {
            self.gated.borrow_mut().push(connection.clone());
        }
    }

    /// Sends a close frame after what waits, and gives the client some time to answer it. What waits for a device that was ended (or may
    /// have been), or that has a newer socket, is dropped; if part of it is on its way already, an ended device is cut off in mid-frame.
    pub(super) fn close(self: &Rc<Self>, connection: &Rc<Connection>, code: Option<u16>) {
        let mut state = connection.state.borrow_mut();
        if state.closing {
            return;
        }
        let ended = code == Some(close::DEVICE_ENDED) || !self.gate_is_open();
        let cleared = !(ended || code == Some(close::REPLACED)) || state.clear_outbox();
        self.services.streams.subscribers().unregister(connection.identity.device_key, connection.id);
        if ended && !cleared {
            drop(state);
            return connection.cut();
        }
        state.outbox().close(code);
        state.closing = true;
        state.session = None;
        state.partial = None;
        state.wake_reader();
        drop(state);
        self.wheel.borrow_mut().schedule(CLOSE_LINGER, (connection.id, Due::Cut));
        self.flush(connection);
    }

    /// The number of this worker among the node's.
    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

/// Runs a loop on this thread that must not end before the process does.
fn keep_up(run: impl Future<Output = ()> + 'static) {
    spawn_local(vital::watch("a worker's loop", spawn_local(run)));
}
