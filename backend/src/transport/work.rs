//! What a session asks for and takes time: the hello, ranges of the store, ticks, slow writes, sends, the comparison of heads. Each runs
//! as a task that ends; none belongs to an idle connection.

use std::{future::poll_fn, rc::Rc, time::Duration};

use martlet_protocol::{
    problem::{Code, close},
    wire::{self, node_frame},
};
use martlet_storage::{
    StorageError,
    planted::{self, Bug},
};
use tokio::{task::spawn_local, time};

use super::{
    connection::{Connection, Hello},
    outbox::Progress,
    session::{self, Session},
    subprotocol::unasked,
    worker::Worker,
};
use crate::{
    accounts::AccountError,
    messages::SendError,
    streams::Wanted,
    subscribers::{Item, Letter},
};

/// After a store that is busy or failing: long enough not to add to it.
pub(super) const RETRY: Duration = Duration::from_millis(300);
/// Connections whose heads are compared in one query.
const HEADS_PER_QUERY: usize = 1000;

impl Worker {
    /// The first hello, and the session that begins with it. Tries until the store answers or the client goes.
    pub(super) async fn greet(self: &Rc<Self>, connection: &Rc<Connection>) {
        connection.state.borrow_mut().hello = Hello::Underway;
        self.say_hello(connection).await;
    }

    /// Says hello again, unless one is being put together: then that one is made anew.
    pub(super) fn hello_changed(self: &Rc<Self>, connection: &Rc<Connection>) {
        let mut state = connection.state.borrow_mut();
        if state.hello == Hello::Rests {
            state.hello = Hello::Underway;
            let (worker, connection) = (self.clone(), connection.clone());
            spawn_local(async move { worker.say_hello(&connection).await });
        } else {
            state.hello = Hello::Outdated;
        }
    }

    async fn say_hello(self: &Rc<Self>, connection: &Rc<Connection>) {
        loop {
            if connection.state.borrow().closing {
                return;
            }
            match self.hello(connection).await {
                Ok(hello) => {
                    let mut state = connection.state.borrow_mut();
                    if std::mem::replace(&mut state.hello, Hello::Underway) == Hello::Outdated {
                        continue;
                    }
                    state.hello = Hello::Rests;
                    if state.closing {
                        return;
                    }
                    if let Some(mailbox) = &hello.mailbox {
                        state.session.get_or_insert_with(|| Session::new(mailbox));
                    }
                    connection.subprotocol.encode(&unasked(node_frame::Frame::Hello(hello)), state.outbox());
                    drop(state);
                    return self.flush(connection);
                }
                // The device, or its mailbox, is gone.
                Err(AccountError::Unauthenticated) => {
                    return self.close(connection, Some(close::DEVICE_ENDED));
                }
                Err(error) => {
                    tracing::warn!(%error, "a hello has to wait");
                    time::sleep(RETRY + self.part_of(RETRY)).await;
                }
            }
        }
    }

    async fn hello(&self, connection: &Connection) -> Result<wire::Hello, AccountError> {
        let (services, identity) = (&self.services, &connection.identity);
        let _turn = self.arrivals.acquire().await.map_err(|_| StorageError::Busy)?;
        let facts = services.accounts.hello_facts(identity).await?;
        let (socket, messages) = (&services.config.socket, &services.config.messages);
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(wire::Hello {
            account_id: identity.account_id.to_wire(),
            device_id: identity.device_id.to_wire(),
            mailbox: Some(wire::MailboxState {
                epoch: facts.mailbox.epoch,
                head_seq: facts.mailbox.head_seq,
                acked_seq: facts.mailbox.acked_seq,
            }),
            prekeys: Some(facts.stock),
            list_head: Some(facts.list_head),
            notices: facts.notices,
            node_time_ms: services.clock.now_ms(),
            ping_interval_ms: u32::try_from(socket.ping_interval.as_millis()).unwrap_or(u32::MAX),
            limits: Some(wire::SocketLimits {
                max_frame_bytes: small(socket.max_frame_bytes),
                max_content_bytes: small(messages.max_content_bytes),
                max_ephemeral_bytes: small(messages.max_ephemeral_bytes),
                max_ephemeral_lifetime_s: u32::try_from(messages.ephemeral_lifetime.as_secs()).unwrap_or(u32::MAX),
            }),
            node_id: services.health.node_id().to_owned(),
        })
    }

    /// Reads a range for the session, trying until the store answers or the client goes.
    pub(super) async fn read_range(self: Rc<Self>, connection: Rc<Connection>, after_seq: u64) {
        let device_key = connection.identity.device_key;
        loop {
            if connection.state.borrow().closing {
                return;
            }
            let known_head = connection.state.borrow().session.as_ref().map_or(0, Session::known_head);
            let wanted = Wanted { after_seq, known_head, max_bytes: self.rules.budget_bytes };
            match self.services.streams.mailbox_range(device_key, wanted).await {
                Ok(Some(range)) => {
                    let mut outputs = Vec::new();
                    if let Some(session) = &mut connection.state.borrow_mut().session {
                        session.range(range, self.now(), &self.rules, &mut outputs);
                    }
                    if planted::is(Bug::ReadBeforeSubscription) {
                        self.services.streams.subscribers().register(device_key, connection.id);
                    }
                    self.apply(&connection, outputs);
                    return self.flush(&connection);
                }
                Ok(None) => return self.close(&connection, Some(close::DEVICE_ENDED)),
                Err(error) => {
                    tracing::warn!(%error, "a mailbox range has to wait");
                    time::sleep(RETRY + self.part_of(RETRY)).await;
                }
            }
        }
    }

    pub(super) async fn tick_later(self: Rc<Self>, connection: Rc<Connection>, delay: Duration) {
        time::sleep(delay).await;
        let mut outputs = Vec::new();
        if let Some(session) = &mut connection.state.borrow_mut().session {
            session.tick(self.now(), &self.rules, &mut outputs);
        }
        self.apply(&connection, outputs);
        self.flush(&connection);
    }

    /// Goes on writing when the socket takes more; one such task per connection, gone when it has caught up. While the gate is closed it
    /// writes nothing: what waits for a slow reader may be for a device that was revoked meanwhile.
    pub(super) fn write_later(self: &Rc<Self>, connection: &Rc<Connection>) {
        if std::mem::replace(&mut connection.state.borrow_mut().writing, true) {
            return;
        }
        let (worker, connection) = (self.clone(), connection.clone());
        spawn_local(async move {
            loop {
                if poll_fn(|context| connection.stream.poll_write_ready(context)).await.is_err() {
                    connection.cut();
                    break;
                }
                if !worker.may_write(&connection) {
                    break;
                }
                match connection.write() {
                    Ok(Progress::Drained) => break,
                    Ok(Progress::Blocked { .. }) => {}
                    Err(_) => {
                        connection.cut();
                        break;
                    }
                }
            }
            connection.state.borrow_mut().writing = false;
            worker.flush(&connection);
        });
    }

    /// Compares the heads of live sessions with the store, spread over the configured interval, or at once when entries were missed.
    pub(super) async fn compare_heads(self: Rc<Self>) {
        loop {
            let interval = self.services.streams.head_check_interval();
            let chunks = self.slots.borrow().places().div_ceil(HEADS_PER_QUERY).max(1);
            let part = interval / u32::try_from(chunks).unwrap_or(u32::MAX);
            let mut hurry = false;
            for chunk in 0..chunks {
                // Between three quarters and five quarters of its part, so that nodes and workers don't fall into step.
                let pause = part * 3 / 4 + self.part_of(part / 2);
                if !hurry {
                    hurry = time::timeout(pause, self.compare_now.notified()).await.is_ok();
                }
                self.compare_chunk(chunk * HEADS_PER_QUERY).await;
            }
            if hurry {
                for chunk in 0..chunks {
                    self.compare_chunk(chunk * HEADS_PER_QUERY).await;
                }
            }
        }
    }

    async fn compare_chunk(self: &Rc<Self>, from: usize) {
        let live =
            |connection: &&Rc<Connection>| connection.state.borrow().session.as_ref().is_some_and(Session::is_live);
        let connections = self.slots.borrow().range(from, HEADS_PER_QUERY).filter(live).cloned().collect();
        self.compare(connections).await;
    }

    /// Compares the heads of those that the relay names: what it subscribed to only now may have been published before.
    pub(super) async fn compare_asked(self: Rc<Self>) {
        loop {
            self.compare_these.notified().await;
            let asked = self.to_compare.take();
            for connection in &asked {
                connection.state.borrow_mut().to_compare = false;
            }
            for connections in asked.chunks(HEADS_PER_QUERY) {
                while !self.compare(connections.to_vec()).await {
                    time::sleep(RETRY + self.part_of(RETRY)).await;
                }
            }
        }
    }

    /// Sessions that are not live take the head too: they read until they have reached it. False if the store could not be asked.
    async fn compare(self: &Rc<Self>, mut connections: Vec<Rc<Connection>>) -> bool {
        connections.retain(|connection| !connection.state.borrow().closing);
        if connections.is_empty() || planted::is(Bug::ReadBeforeSubscription) {
            return true;
        }
        connections.sort_unstable_by_key(|connection| connection.identity.device_key);
        let keys = connections.iter().map(|connection| connection.identity.device_key).collect();
        let heads = match self.services.streams.mailbox_heads(keys).await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "heads could not be compared; the next round does");
                return false;
            }
        };
        for connection in connections {
            let found = heads.binary_search_by_key(&connection.identity.device_key, |(device_key, _)| *device_key);
            let Ok(index) = found else {
                if planted::is(Bug::OpenAfterRevocation) {
                    continue;
                }
                // Its mailbox is gone: the device was ended, whatever became of the word about it.
                self.close(&connection, Some(close::DEVICE_ENDED));
                continue;
            };
            let mut outputs = Vec::new();
            if let Some(session) = &mut connection.state.borrow_mut().session {
                session.head_seen(heads[index].1, self.now(), &self.rules, &mut outputs);
            }
            if !outputs.is_empty() {
                self.apply(&connection, outputs);
                self.flush(&connection);
            }
        }
        true
    }
}

/// Submits a send; the answer comes back through the inbox, from the commit thread and without a task of its own. An ephemeral one is
/// done when this returns.
pub(super) async fn submit(worker: &Rc<Worker>, connection: &Rc<Connection>, send: session::Send) {
    if send.ephemeral {
        return submit_ephemeral(worker, connection, send).await;
    }
    let (inbox, to, reference) = (worker.inbox.clone(), connection.id, send.reference);
    let reply = Box::new(move |result: Result<wire::Accepted, SendError>| {
        inbox.put(Letter { to, item: Item::Answer(reference, Box::new(result.map_err(refused))) });
    });
    worker.services.messages.submit(connection.identity, send.request, reply).await;
}

async fn submit_ephemeral(worker: &Rc<Worker>, connection: &Rc<Connection>, send: session::Send) {
    let sent = worker.services.messages.send_ephemeral(connection.identity, send.request).await;
    let answer = sent.map(node_frame::Frame::AcceptedEphemeral).map_err(refused);
    let mut outputs = Vec::new();
    if let Some(session) = &mut connection.state.borrow_mut().session {
        session.answered(send.reference, answer, &mut outputs);
    }
    worker.apply(connection, outputs);
}

fn refused(error: SendError) -> wire::Problem {
    if error.code() == Code::Internal {
        tracing::error!(%error, "a send failed");
    }
    error.into_problem()
}
