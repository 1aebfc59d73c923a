//! Catching up: what a reader lacks comes from memory, or from the store if it is further behind, as much at a time as its connection may
//! hold. At the end it follows with everybody else.

use std::{rc::Rc, sync::Arc};

use martlet_protocol::problem::close;
use tokio::{task::spawn_local, time};

use super::{
    super::{connection::Connection, work::RETRY, worker::Worker},
    readers::{Behind, LogIndex},
};
use crate::subscribers::Log;

impl Worker {
    /// Puts on the connection what it lacks, as much as it may hold. Whether that was anything.
    pub(in super::super) fn catch_up(self: &Rc<Self>, connection: &Rc<Connection>) -> bool {
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
            match log.after(cursor, at, room, self.services.clock.earliest_s()).filter(|items| !items.is_empty()) {
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
