//! The way in: bytes from a socket, whole messages, frames of the schema, the session. One task per connection, small while it waits.

use std::{collections::VecDeque, future::poll_fn, io, pin::Pin, rc::Rc, time::Duration};

use bytes::{BufMut as _, BytesMut};
use martlet_protocol::{problem::close, wire};
use martlet_storage::planted::{self, Bug};
use tokio::task::spawn_local;

use super::{
    connection::Connection,
    incoming::{self, Incoming, Partial, Violation},
    outbox::Opcode,
    session,
    work::submit,
    worker::{Due, Worker},
};
use crate::subscribers::SubscriberId;

/// What a worker reads at once, whatever the number of its connections.
const SCRATCH_BYTES: usize = 64 << 10;

/// What came of one read.
enum Read {
    /// These frames, perhaps none.
    Frames(VecDeque<wire::ClientFrame>),
    /// The connection is gone.
    Gone,
}

impl Worker {
    /// Takes a place for a connection and begins to serve it. `make` builds it for that place.
    pub(super) fn admit(self: &Rc<Self>, make: impl FnOnce(SubscriberId) -> Connection) {
        let worker = self.number();
        let connection = self.slots.borrow_mut().insert(|slot, generation| {
            let id = SubscriberId { worker, slot, generation };
            Rc::new(make(id))
        });
        self.sockets.opened();
        // Registered before the store is read for the hello: what happens in between is heard of.
        if !planted::is(Bug::ReadBeforeSubscription) {
            self.services.streams.subscribers().register(connection.identity.device_key, connection.id);
        }
        let interval = self.services.config.socket.ping_interval;
        let first_ping = interval / 2 + self.part_of(interval / 2);
        self.wheel.borrow_mut().schedule(first_ping, (connection.id, Due::Ping));
        spawn_local(serve(self.clone(), connection.clone()));
        if self.sockets.draining() {
            // It was authenticated while the others were told.
            self.drain_one(&connection, Duration::ZERO);
        }
    }

    fn release(&self, connection: &Connection) {
        connection.cut();
        self.services.streams.subscribers().unregister(connection.identity.device_key, connection.id);
        self.leave_logs(connection);
        if self.slots.borrow_mut().remove(connection.id.slot, connection.id.generation).is_some() {
            self.sockets.closed();
        }
    }

    /// Reads what is there into the worker's buffer, or to the connection's own unfinished bytes, and takes whole frames off it.
    fn read(self: &Rc<Self>, connection: &Rc<Connection>) -> Read {
        let partial = connection.state.borrow_mut().partial.take();
        let mut partial = partial.unwrap_or_default();
        let own = !partial.unread.is_empty();
        let mut bytes = if own { std::mem::take(&mut partial.unread) } else { self.scratch.take() };
        bytes.reserve(if own { bytes.len().min(SCRATCH_BYTES) } else { SCRATCH_BYTES });
        let mut frames = VecDeque::new();
        let result = match connection.stream.try_read_buf(&mut (&mut bytes).limit(SCRATCH_BYTES)) {
            Ok(0) => None,
            Ok(_) => Some(self.take_frames(connection, &mut bytes, &mut partial, &mut frames)),
            // What came with the handshake was read before and may be whole.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Some(self.take_frames(connection, &mut bytes, &mut partial, &mut frames))
            }
            Err(_) => None,
        };
        if own {
            partial.unread = bytes;
        } else {
            partial.unread.extend_from_slice(&bytes);
            bytes.clear();
            *self.scratch.borrow_mut() = bytes;
        }
        if !partial.is_empty() {
            connection.state.borrow_mut().partial = Some(partial);
        }
        match result {
            None => Read::Gone,
            Some(Ok(())) => Read::Frames(frames),
            Some(Err(_)) if connection.state.borrow().closing => Read::Gone,
            Some(Err(Violation(code))) => {
                // What came whole before the violation was understood; it is simplest, and enough, not to act on it.
                self.close(connection, Some(code));
                Read::Frames(VecDeque::new())
            }
        }
    }

    /// Counts so many frames of the connection, whether they are frames or cost as much. False if they come too often.
    pub(super) fn counts(&self, connection: &Connection, frames: usize) -> bool {
        let now = self.now();
        let limits = &self.services.limits;
        (0..frames).all(|_| {
            connection.state.borrow_mut().frames.count(self.rules.frames, now)
                && limits.frame(&connection.identity.account_id, connection.network).is_ok()
        })
    }

    fn take_frames(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        bytes: &mut BytesMut,
        partial: &mut Partial,
        frames: &mut VecDeque<wire::ClientFrame>,
    ) -> Result<(), Violation> {
        connection.state.borrow_mut().alive |= !bytes.is_empty();
        let max_bytes = self.services.config.socket.max_frame_bytes;
        while let Some(incoming) = incoming::next(bytes, partial, connection.subprotocol, max_bytes)? {
            let closing = connection.state.borrow().closing;
            if !closing && !self.counts(connection, 1) {
                return Err(Violation(close::RATE_LIMITED));
            }
            match incoming {
                // Both sides have said it.
                Incoming::Close(_) if closing => return Err(Violation(close::GOING_AWAY)),
                _ if closing => {}
                Incoming::Message(message) => frames.push_back(connection.subprotocol.decode(&message)?),
                Incoming::Ping(payload) => {
                    let mut state = connection.state.borrow_mut();
                    state.outbox().frame(Opcode::Pong, payload.len(), |out| out.extend_from_slice(&payload));
                }
                Incoming::Pong | Incoming::Fragment => {}
                Incoming::Close(code) => self.close(connection, code),
            }
        }
        Ok(())
    }

    /// Gives frames to the session up to the first that takes time, which is handed back.
    fn handle(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        frames: &mut VecDeque<wire::ClientFrame>,
    ) -> Option<session::Task> {
        let mut outputs = Vec::new();
        let mut task = None;
        while let Some(frame) = frames.pop_front() {
            let mut state = connection.state.borrow_mut();
            let Some(session) = &mut state.session else { break };
            task = session.frame(frame, &mut outputs);
            if task.is_some() {
                break;
            }
        }
        self.apply(connection, outputs);
        task
    }
}

/// Reads until the connection is gone. Boxes what only some connections ever need, so that the task of an idle one is small.
async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    greeting(&worker, &connection).await;
    // What came together with the request for the upgrade waits already.
    let mut waiting = connection.state.borrow().partial.is_some();
    loop {
        if !waiting && poll_fn(|context| connection.poll_readable(&worker.rules, context)).await.is_err() {
            break;
        }
        waiting = false;
        let Some(sends) = read_once(&worker, &connection) else { break };
        if let Some(sends) = sends {
            sends.await;
        }
        worker.flush(&connection);
    }
    worker.release(&connection);
}

/// What is too large to be part of every connection's task.
type Boxed = Pin<Box<dyn Future<Output = ()>>>;

fn greeting(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Boxed {
    let (worker, connection) = (worker.clone(), connection.clone());
    Box::pin(async move { worker.greet(&connection).await })
}

/// Reads and acts on what is there; `None` when the connection is gone. Sends take their time and are handed back.
fn read_once(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Option<Option<Boxed>> {
    let Read::Frames(mut frames) = worker.read(connection) else { return None };
    let Some(task) = worker.handle(connection, &mut frames) else { return Some(None) };
    let (worker, connection) = (worker.clone(), connection.clone());
    Some(Some(Box::pin(async move { run_tasks(&worker, &connection, task, frames).await })))
}

/// Does what frames ask for one after the other, as a device's order demands, and never has more sends unanswered than may be.
async fn run_tasks(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    first: session::Task,
    mut rest: VecDeque<wire::ClientFrame>,
) {
    let mut next = Some(first);
    while let Some(task) = next {
        match task {
            session::Task::Send(send) => submit(worker, connection, send).await,
            session::Task::Subscribe(reference, logs) => worker.subscribe(connection, reference, logs).await,
        }
        worker.flush(connection);
        poll_fn(|context| connection.poll_unbusy(&worker.rules, context)).await;
        next = worker.handle(connection, &mut rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<F: Future>(_: fn(Rc<Worker>, Rc<Connection>) -> F) -> usize {
        size_of::<F>()
    }

    /// There are as many of these as there are devices: what is added here is paid a million times.
    #[test]
    fn an_idle_connection_is_small() {
        let (task, connection) = (size_of_task(serve), size_of::<Connection>());
        assert!(task <= 128, "the task's future has {task} bytes");
        assert!(connection <= 400, "a connection has {connection} bytes");
    }
}
