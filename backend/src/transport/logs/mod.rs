//! Following the logs of large conversations on a socket. In reading order: a client subscribes (here), catches up from memory or from the
//! store (here), and then gets what is new with everybody else ([`broadcast`]). [`readers`] remembers who reads what.
//!
//! Who can't take what is new falls behind: it holds nothing up and costs nothing until its socket is empty, and then catches up again.

mod broadcast;
mod readers;

use std::{collections::HashSet, rc::Rc, sync::Arc};

use martlet_protocol::{
    id::ConversationId,
    problem::{Code, close},
    wire::{self, node_frame, subscribed_log},
};
use martlet_storage::ConversationKey;
use tokio::{task::spawn_local, time};

use super::{
    connection::Connection,
    session::{Output, refusal},
    subprotocol::unasked,
    work::RETRY,
    worker::Worker,
};
use crate::{conversations::ConversationError, subscribers::Log};

pub(super) use broadcast::Broadcast;
pub(super) use readers::Readers;
use readers::{Behind, LogIndex};

/// How often memberships are looked at again because some have just changed.
const LOOKS: usize = 10;
/// So many logs in one frame count as one frame more: each of them costs about as much as a tenth of one.
const LOGS_PER_FRAME: usize = 10;

/// A log that a client asks for.
struct Asked {
    id: ConversationId,
    cursor: Option<wire::Cursor>,
}

/// What came of it.
type Found = Result<Arc<Log>, wire::Problem>;

impl Asked {
    fn parse(named: Vec<wire::LogCursor>) -> Result<Vec<Self>, wire::Problem> {
        let parse = |named: wire::LogCursor| {
            let id = ConversationId::try_from(named.conversation_id.as_ref());
            let id = id.map_err(|_| Code::Malformed.problem("a conversation's id has 32 bytes"))?;
            Ok(Self { id, cursor: named.cursor })
        };
        named.into_iter().map(parse).collect()
    }

    fn check(&self, log: &Log) -> Result<u64, wire::Problem> {
        let end = log.end();
        match self.cursor {
            None => Ok(end),
            Some(cursor) if cursor.epoch != log.epoch => {
                Err(Code::CursorEpoch.problem("the cursor is of another epoch of this log"))
            }
            Some(cursor) if cursor.seq > end => {
                Err(Code::CursorAhead.problem("the cursor is beyond the end of this log"))
            }
            Some(cursor) => Ok(cursor.seq),
        }
    }
}

impl Worker {
    /// Begins to read logs on a connection, whatever each of them has to say. Takes as long as the store does; frames of this connection
    /// that come later wait for it.
    pub(super) async fn subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        reference: u64,
        named: Vec<wire::LogCursor>,
    ) {
        let frames = named.len() / LOGS_PER_FRAME;
        let now = self.now();
        if !(0..frames).all(|_| connection.state.borrow_mut().frames.count(self.rules.frames, now)) {
            return self.close(connection, Some(close::RATE_LIMITED));
        }
        connection.state.borrow_mut().subscribing = true;
        let mut looked_up = Vec::new();
        let outcome = match Asked::parse(named) {
            Ok(asked) => self.find_logs(connection, &asked, &mut looked_up).await.map(|found| (asked, found)),
            Err(problem) => Err(problem),
        };
        let output = match outcome {
            Ok((asked, found)) => {
                let logs = asked.iter().zip(found).map(|(asked, found)| self.join(connection, asked, found)).collect();
                let frame = node_frame::Frame::Subscribed(wire::Subscribed { logs });
                Output::Frame(wire::NodeFrame { r#ref: reference, frame: Some(frame) })
            }
            Err(problem) => refusal(reference, problem),
        };
        for key in looked_up {
            self.leave_if_unread(key);
        }
        connection.state.borrow_mut().subscribing = false;
        self.apply(connection, vec![output]);
        self.flush(connection);
    }

    /// The logs, in memory, as far as the device may read them. What is found holds only until the next await.
    async fn find_logs(
        &self,
        connection: &Connection,
        asked: &[Asked],
        looked_up: &mut Vec<ConversationKey>,
    ) -> Result<Vec<Found>, wire::Problem> {
        let max = self.services.config.logs.max_per_socket;
        if asked.len() > max {
            return Err(too_many(max));
        }
        let mut removals = self.services.streams.removals();
        let mut found = Vec::with_capacity(asked.len());
        for (asked, key) in asked.iter().zip(self.memberships(connection, asked).await?) {
            found.push(match key {
                Ok(key) => {
                    looked_up.push(key);
                    self.find_log(asked, key).await
                }
                Err(problem) => Err(problem),
            });
        }
        // Whoever was taken away meanwhile must not join. Whoever is from the last look on is told when the subscription stands.
        for _ in 0..LOOKS {
            let now = self.services.streams.removals();
            if now == removals {
                return Ok(found);
            }
            removals = now;
            for (found, key) in found.iter_mut().zip(self.memberships(connection, asked).await?) {
                if let Err(problem) = key {
                    *found = Err(problem);
                }
            }
        }
        Err(Code::Busy.problem("memberships are changing too fast; ask again"))
    }

    async fn memberships(
        &self,
        connection: &Connection,
        asked: &[Asked],
    ) -> Result<Vec<Result<ConversationKey, wire::Problem>>, wire::Problem> {
        let ids = asked.iter().map(|asked| asked.id).collect();
        let keys = self.services.conversations.logs_of(&connection.identity, ids).await;
        let keys = keys.map_err(|error| problem(&error))?;
        Ok(keys.into_iter().map(|key| key.map_err(|error| problem(&error))).collect())
    }

    async fn find_log(&self, asked: &Asked, key: ConversationKey) -> Found {
        let streams = &self.services.streams;
        let failed = |error| problem(&ConversationError::Storage(error));
        let log = streams.follow_log(key, asked.id, self.number()).await.map_err(failed)?;
        let log = log.ok_or_else(|| problem(&ConversationError::NoLog))?;
        if asked.cursor.is_some_and(|cursor| cursor.epoch == log.epoch && cursor.seq > log.end()) {
            // Another node may have told the client what this one has yet to hear.
            streams.bring_up_to_date(&log).await;
        }
        Ok(log)
    }

    /// Makes the connection a reader of the log, from its cursor on.
    fn join(self: &Rc<Self>, connection: &Rc<Connection>, asked: &Asked, found: Found) -> wire::SubscribedLog {
        let outcome = match found.and_then(|log| self.join_log(connection, asked, &log)) {
            Ok(state) => subscribed_log::Outcome::State(state),
            Err(problem) => {
                self.unsubscribe_one(connection, &asked.id);
                subscribed_log::Outcome::Problem(problem)
            }
        };
        wire::SubscribedLog { conversation_id: asked.id.to_wire(), outcome: Some(outcome) }
    }

    fn join_log(
        &self,
        connection: &Connection,
        asked: &Asked,
        log: &Arc<Log>,
    ) -> Result<wire::LogState, wire::Problem> {
        let cursor = asked.check(log)?;
        // Another socket's look at the log may have ended in between, and the log's time here with it.
        let now = self.services.streams.subscribers().join_log(log.key, log.conversation_id, self.number());
        if !Arc::ptr_eq(&now, log) {
            return Err(Code::Busy.problem("this log is just being opened; ask again"));
        }
        let mut state = connection.state.borrow_mut();
        if state.closing {
            return Err(Code::Unavailable.problem("this socket is closing"));
        }
        let max = self.services.config.logs.max_per_socket;
        let mut readers = self.readers.borrow_mut();
        let is_known = readers.find(log).is_some_and(|index| state.logs.contains(&index));
        if !is_known && state.logs.len() >= max {
            return Err(too_many(max));
        }
        let index = readers.attach(log, self.number());
        let slot = connection.id.slot;
        readers.begin(slot, index, cursor, !is_known);
        if !is_known {
            state.add_log(index);
        }
        Ok(wire::LogState { epoch: log.epoch, head_seq: log.end() })
    }

    /// Ends the reading of logs that a client names. One that is not read is not read afterwards either.
    pub(super) fn unsubscribe(self: &Rc<Self>, connection: &Rc<Connection>, ids: &[bytes::Bytes]) {
        // Looked up the other way round: a frame may name any number, a socket reads few.
        let ids: HashSet<_> = ids.iter().filter_map(|id| ConversationId::try_from(id.as_ref()).ok()).collect();
        let named = |index: &LogIndex| {
            self.readers.borrow().get(*index).is_some_and(|readers| ids.contains(&readers.log.conversation_id))
        };
        let indexes: Vec<_> = connection.state.borrow().logs.iter().copied().filter(named).collect();
        for index in indexes {
            self.stop_reading(connection, index);
        }
    }

    fn unsubscribe_one(&self, connection: &Connection, id: &ConversationId) {
        let named = |index: &LogIndex| {
            self.readers.borrow().get(*index).is_some_and(|readers| readers.log.conversation_id == *id)
        };
        let index = connection.state.borrow().logs.iter().copied().find(named);
        if let Some(index) = index {
            self.stop_reading(connection, index);
        }
    }

    /// Its account is not a member any more.
    pub(super) fn end_log(self: &Rc<Self>, connection: &Rc<Connection>, key: ConversationKey) {
        let index = self.readers.borrow().find_key(key);
        let Some(index) = index.filter(|index| connection.state.borrow().logs.contains(index)) else { return };
        let id = self.readers.borrow().get(index).map(|readers| readers.log.conversation_id.to_wire());
        self.stop_reading(connection, index);
        let reason = wire::LogEndReason::Removed.into();
        let ended = wire::LogEnded { conversation_id: id.unwrap_or_default(), reason };
        self.apply(connection, vec![Output::Frame(unasked(node_frame::Frame::LogEnded(ended)))]);
    }

    fn stop_reading(&self, connection: &Connection, index: LogIndex) {
        connection.state.borrow_mut().remove_log(index);
        let last = self.readers.borrow_mut().remove(connection.id.slot, index);
        if let Some(log) = last {
            self.services.streams.subscribers().leave_log(&log, self.number());
        }
    }

    /// The connection is gone.
    pub(super) fn leave_logs(&self, connection: &Connection) {
        let logs = std::mem::take(&mut connection.state.borrow_mut().logs);
        for index in logs {
            let last = self.readers.borrow_mut().remove(connection.id.slot, index);
            if let Some(log) = last {
                self.services.streams.subscribers().leave_log(&log, self.number());
            }
        }
    }

    fn leave_if_unread(&self, key: ConversationKey) {
        let subscribers = self.services.streams.subscribers();
        if let Some(log) = subscribers.logs().find(key)
            && self.readers.borrow().find(&log).is_none()
        {
            subscribers.leave_log(&log, self.number());
        }
    }

    /// Puts on the connection what it lacks, as much as it may hold. Whether that was anything.
    pub(super) fn catch_up(self: &Rc<Self>, connection: &Rc<Connection>) -> bool {
        if self.readers.borrow().behind(connection.id.slot).is_empty() {
            return false;
        }
        let behind = self.readers.borrow().behind(connection.id.slot).to_vec();
        // One range at a time: each may be as large as all that a connection may have waiting.
        let mut may_read = !behind.iter().any(|behind| behind.is_reading);
        for behind in behind {
            if !behind.is_reading && !connection.state.borrow().closing {
                may_read &= !self.catch_up_with(connection, behind, may_read);
            }
        }
        connection.state.borrow().waiting_bytes() > 0
    }

    /// Whether the rest has to be read from the store, which has begun.
    fn catch_up_with(self: &Rc<Self>, connection: &Rc<Connection>, behind: Behind, may_read: bool) -> bool {
        let (slot, index, mut cursor) = (connection.id.slot, behind.log, behind.cursor);
        loop {
            let mut readers = self.readers.borrow_mut();
            let Some((log, at)) = readers.get(index).map(|readers| (readers.log.clone(), readers.at)) else {
                return false;
            };
            if cursor == at {
                readers.follow(slot, index, self.broadcast.borrow().is_underway());
                return false;
            }
            if cursor > at {
                readers.wait(slot, index);
                if log.end() > at {
                    self.grown.borrow_mut().push_back(log);
                    self.more_to_hand_out.notify_one();
                }
                return false;
            }
            let mut state = connection.state.borrow_mut();
            let room = self.rules.budget_bytes.saturating_sub(state.waiting_bytes());
            if room == 0 {
                return false;
            }
            match log.after(cursor, at, room).filter(|items| !items.is_empty()) {
                Some(items) => {
                    for item in items {
                        state.outbox().push(connection.subprotocol.log_item(&log.conversation_id, &item));
                        cursor = item.to_seq;
                    }
                    readers.advance(slot, index, cursor);
                }
                None if !may_read => return false,
                None => {
                    readers.reading(slot, index, true);
                    spawn_local(self.clone().read_log(connection.clone(), log, index, cursor));
                    return true;
                }
            }
        }
    }

    /// Reads a part of a log for a reader that is far behind, trying until the store answers or the client goes.
    async fn read_log(self: Rc<Self>, connection: Rc<Connection>, log: Arc<Log>, index: LogIndex, cursor: u64) {
        let slot = connection.id.slot;
        let waits = Behind { log: index, cursor, is_reading: true };
        loop {
            // It may have gone, left, or begun elsewhere meanwhile; the place may even be another log's.
            let is_wanted = || {
                let readers = self.readers.borrow();
                let same = readers.get(index).is_some_and(|readers| Arc::ptr_eq(&readers.log, &log));
                same && readers.behind_in(slot, index) == Some(waits) && !connection.state.borrow().closing
            };
            if !is_wanted() {
                return;
            }
            match self.services.streams.log_range(log.key, cursor).await {
                Ok(Some(range)) if range.epoch == log.epoch && !range.items.is_empty() => {
                    if !is_wanted() {
                        return;
                    }
                    let mut readers = self.readers.borrow_mut();
                    let mut state = connection.state.borrow_mut();
                    for item in range.items {
                        state.outbox().push(connection.subprotocol.log_item(&log.conversation_id, &item));
                        readers.advance(slot, index, item.to_seq);
                    }
                    readers.reading(slot, index, false);
                    drop((readers, state));
                    return self.flush(&connection);
                }
                // Other numbers, or fewer than were told of: the device begins anew with another socket.
                Ok(_) => return self.close(&connection, Some(close::GOING_AWAY)),
                Err(error) => {
                    tracing::warn!(%error, "a part of a log has to wait");
                    time::sleep(RETRY + self.part_of(RETRY)).await;
                }
            }
        }
    }
}

fn too_many(max: usize) -> wire::Problem {
    Code::TooManyLogs.problem(format!("a socket reads at most {max} logs here"))
}

fn problem(error: &ConversationError) -> wire::Problem {
    if error.code() == Code::Internal {
        tracing::error!(%error, "a log could not be read");
    }
    error.code().problem(error.to_string())
}
