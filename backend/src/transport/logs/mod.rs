//! Following the logs of large conversations on a socket. In reading order: a client subscribes (here), catches up from memory or from the
//! store ([`catching_up`]), and then gets what is new with everybody else ([`broadcast`]). [`readers`] remembers who reads what.
//!
//! Who can't take what is new falls behind: it holds nothing up and costs nothing until its socket is empty, and then catches up again.

mod broadcast;
mod catching_up;
mod readers;

use std::{collections::HashSet, rc::Rc, sync::Arc};

use futures_util::{StreamExt as _, stream};
use martlet_protocol::{
    id::ConversationId,
    problem::{Code, close},
    wire::{self, node_frame, subscribed_log},
};
use martlet_storage::ConversationKey;

use super::{
    connection::Connection,
    session::{Output, refusal},
    subprotocol::unasked,
    worker::Worker,
};
use crate::{
    conversations::{ConversationError, LogToFollow},
    subscribers::{LiveLogItem, Log},
};

pub(super) use broadcast::Broadcast;
use readers::LogIndex;
pub(super) use readers::Readers;

/// How often memberships are looked at again because some have just changed.
const LOOKS: usize = 10;
/// So many logs in one frame count as one frame more: each of them costs about as much as a tenth of one.
const LOGS_PER_FRAME: usize = 10;

/// Logs of one frame that are loaded at once; the store's own bound counts for all frames together.
const LOADS_AT_ONCE: usize = 16;

/// A log that a client asks for.
struct Asked {
    id: ConversationId,
    cursor: Option<wire::Cursor>,
}

/// What came of it.
type Found = Result<Readable, wire::Problem>;

/// A log and from where the account may read it.
struct Readable {
    log: Arc<Log>,
    joined_seq: u64,
}

impl Asked {
    fn parse(named: Vec<wire::LogCursor>) -> Result<Vec<Self>, wire::Problem> {
        let parse = |named: wire::LogCursor| {
            let id = ConversationId::try_from(named.conversation_id.as_ref());
            let id = id.map_err(|_| Code::Malformed.problem("a conversation's id has 32 bytes"))?;
            Ok(Self { id, cursor: named.cursor })
        };
        named.into_iter().map(parse).collect()
    }

    /// From where it is read. What was there before the account joined is not its own, and told as a gap.
    fn check(&self, Readable { log, joined_seq }: &Readable) -> Result<(u64, Option<wire::Gap>), wire::Problem> {
        let end = log.end();
        match self.cursor {
            None => Ok((end.max(*joined_seq), None)),
            Some(cursor) if cursor.epoch != log.epoch => {
                Err(Code::CursorEpoch.problem("the cursor is of another epoch of this log"))
            }
            Some(cursor) if cursor.seq > end => {
                Err(Code::CursorAhead.problem("the cursor is beyond the end of this log"))
            }
            Some(cursor) if cursor.seq < *joined_seq => {
                Ok((*joined_seq, Some(before_joining(cursor.seq, *joined_seq))))
            }
            Some(cursor) => Ok((cursor.seq, None)),
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
        if !self.counts(connection, named.len() / LOGS_PER_FRAME) {
            return self.close(connection, Some(close::RATE_LIMITED));
        }
        connection.state.borrow_mut().subscribing = true;
        let mut looked_up = Vec::new();
        let outcome = match Asked::parse(named) {
            Ok(asked) => self.find_logs(connection, &asked, &mut looked_up).await.map(|found| (asked, found)),
            Err(problem) => Err(problem),
        };
        let mut gaps = Vec::new();
        let output = match outcome {
            Ok((asked, found)) => {
                let join = |(asked, found): (&Asked, Found)| self.join(connection, asked, found, &mut gaps);
                let logs = asked.iter().zip(found).map(join).collect();
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
        for (id, gap) in gaps {
            let item = connection.subprotocol.log_item(&id, &LiveLogItem::gap(gap));
            connection.state.borrow_mut().outbox().push(item);
        }
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
        let members = self.memberships(connection, asked).await?;
        looked_up.extend(members.iter().flatten().map(|member| member.key));
        // Logs that nobody reads here are loaded some at a time: who comes to a node that was just started may name thousands.
        let finds = asked.iter().zip(members).map(|(asked, member)| self.find_readable(asked, member));
        let mut found: Vec<Found> = stream::iter(finds).buffered(LOADS_AT_ONCE).collect().await;
        // Whoever was taken away meanwhile must not join. Whoever is from the last look on is told when the subscription stands.
        for _ in 0..LOOKS {
            let now = self.services.streams.removals();
            if now == removals {
                return Ok(found);
            }
            removals = now;
            for (found, key) in found.iter_mut().zip(self.memberships(connection, asked).await?) {
                match (key, &mut *found) {
                    (Err(problem), _) => *found = Err(problem),
                    // Taken away and added again: its time began anew.
                    (Ok(again), Ok(readable)) => readable.joined_seq = again.joined_seq,
                    (Ok(_), Err(_)) => {}
                }
            }
        }
        Err(Code::Busy.problem("memberships are changing too fast; ask again"))
    }

    async fn memberships(
        &self,
        connection: &Connection,
        asked: &[Asked],
    ) -> Result<Vec<Result<LogToFollow, wire::Problem>>, wire::Problem> {
        let ids = asked.iter().map(|asked| asked.id).collect();
        let keys = self.services.conversations.logs_of(&connection.identity, ids).await;
        let keys = keys.map_err(|error| problem(&error))?;
        Ok(keys.into_iter().map(|key| key.map_err(|error| problem(&error))).collect())
    }

    async fn find_readable(&self, asked: &Asked, member: Result<LogToFollow, wire::Problem>) -> Found {
        let LogToFollow { key, joined_seq } = member?;
        Ok(Readable { log: self.find_log(asked, key).await?, joined_seq })
    }

    async fn find_log(&self, asked: &Asked, key: ConversationKey) -> Result<Arc<Log>, wire::Problem> {
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
    fn join(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        asked: &Asked,
        found: Found,
        gaps: &mut Vec<(ConversationId, wire::Gap)>,
    ) -> wire::SubscribedLog {
        let outcome = match found.and_then(|found| self.join_log(connection, asked, &found)) {
            Ok((state, gap)) => {
                gaps.extend(gap.map(|gap| (asked.id, gap)));
                subscribed_log::Outcome::State(state)
            }
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
        found: &Readable,
    ) -> Result<(wire::LogState, Option<wire::Gap>), wire::Problem> {
        let (cursor, gap) = asked.check(found)?;
        let log = &found.log;
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
        Ok((wire::LogState { epoch: log.epoch, head_seq: log.end() }, gap))
    }

    /// Ends the reading of logs that a client names. One that is not read is not read afterwards either.
    pub(super) fn unsubscribe(self: &Rc<Self>, connection: &Rc<Connection>, ids: &[bytes::Bytes]) {
        if !self.counts(connection, ids.len() / LOGS_PER_FRAME) {
            return self.close(connection, Some(close::RATE_LIMITED));
        }
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
}

fn before_joining(after_seq: u64, joined_seq: u64) -> wire::Gap {
    let reason = wire::GapReason::NotAMember.into();
    wire::Gap { from_seq: after_seq + 1, to_seq: joined_seq, count: joined_seq - after_seq, reason }
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
