//! One client's socket: small, because there are many that do nothing. What only a busy connection needs stands in boxes that go away
//! when it is idle again.

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll, Waker},
};

use rustix::net::Shutdown;
use tokio::net::TcpStream;

use super::{
    incoming::Partial,
    outbox::{Outbox, Progress},
    session::{Frames, Rules, Session},
    subprotocol::SubProtocol,
};
use crate::{accounts::DeviceIdentity, limits::Network, subscribers::SubscriberId};

/// A connection of an authenticated device.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) id: SubscriberId,
    pub(super) identity: DeviceIdentity,
    /// Where it comes from, for its frames' rate.
    pub(super) network: Network,
    pub(super) subprotocol: SubProtocol,
    pub(super) state: RefCell<State>,
}

/// What changes. Borrowed for moments only, never across an await.
#[derive(Default)]
pub(super) struct State {
    /// From the first hello until the end.
    pub(super) session: Option<Session>,
    /// What waits to be written.
    outbox: Option<Box<Outbox>>,
    /// What was read but is not whole.
    pub(super) partial: Option<Box<Partial>>,
    /// The reading task, while it may not read.
    reader: Option<Waker>,
    /// Logs that it reads, by their place on the worker. As long as it must be: most read few, and some thousands.
    pub(super) logs: Box<[u32]>,
    /// How often frames come.
    pub(super) frames: Frames,
    /// A sign of life came since the last ping.
    pub(super) alive: bool,
    /// A close frame was written or the socket shut: nothing else is any more.
    pub(super) closing: bool,
    /// It waits for logs that it asked for, and nothing is read from it meanwhile.
    pub(super) subscribing: bool,
    /// A task waits for the socket to take more.
    pub(super) writing: bool,
    pub(super) hello: Hello,
    /// In the list of those that this pass writes to.
    pub(super) touched: bool,
    /// In the list of those whose head is to be compared.
    pub(super) to_compare: bool,
}

/// Whether a hello is being put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Hello {
    #[default]
    Rests,
    Underway,
    /// Its contents changed while it was put together.
    Outdated,
}

impl State {
    /// Of a connection that is alive and has perhaps said something already.
    pub(super) fn new(early: Option<Box<Partial>>) -> Self {
        Self { alive: true, partial: early, ..Self::default() }
    }

    pub(super) fn outbox(&mut self) -> &mut Outbox {
        self.outbox.get_or_insert_default()
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.waiting_bytes())
    }

    /// Nothing more is to be pushed, and what waits is not to be kept: all of it is dropped, if it can be.
    pub(super) fn clear_outbox(&mut self) -> bool {
        self.outbox.as_mut().is_none_or(|outbox| outbox.clear())
    }

    /// Neither answers nor entries have piled up: more may be read.
    fn may_read(&self, rules: &Rules) -> bool {
        let busy = self.session.as_ref().is_some_and(|session| session.is_busy(rules));
        self.closing || !(busy || self.waiting_bytes() >= rules.budget_bytes)
    }

    pub(super) fn add_log(&mut self, index: u32) {
        let mut logs = std::mem::take(&mut self.logs).into_vec();
        logs.push(index);
        self.logs = logs.into_boxed_slice();
    }

    pub(super) fn remove_log(&mut self, index: u32) {
        let mut logs = std::mem::take(&mut self.logs).into_vec();
        logs.retain(|other| *other != index);
        self.logs = logs.into_boxed_slice();
    }

    /// Lets the reading task look again whether it may read.
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

impl Connection {
    /// Ready when there is something to read and it may be read. One task only.
    pub(super) fn poll_readable(&self, rules: &Rules, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        if state.may_read(rules) {
            return self.stream.poll_read_ready(context);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Until no more sends are unanswered than may be.
    pub(super) fn poll_unbusy(&self, rules: &Rules, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.closing || !state.session.as_ref().is_some_and(|session| session.is_busy(rules)) {
            return Poll::Ready(());
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Writes what the socket takes. A connection that has nothing left to write keeps no outbox.
    pub(super) fn write(&self) -> io::Result<Progress> {
        let mut state = self.state.borrow_mut();
        let Some(outbox) = state.outbox.as_mut() else { return Ok(Progress::Drained) };
        let progress = outbox.write(&self.stream)?;
        if progress == Progress::Drained {
            state.outbox = None;
        }
        if progress != (Progress::Blocked { moved: false }) && state.writing {
            // The client took something off a full socket: it lives, even if its pong is stuck behind its own backlog.
            state.alive = true;
        }
        Ok(progress)
    }

    /// Sends what was written and then a FIN; the client may still finish its part.
    pub(super) fn finish(&self) {
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Write);
    }

    /// Ends the connection now, whatever waits. The reading and the writing task notice by themselves.
    pub(super) fn cut(&self) {
        let mut state = self.state.borrow_mut();
        state.closing = true;
        state.outbox = None;
        state.wake_reader();
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Both);
    }
}
