//! What falls due on a worker without anybody's doing: pings, pongs that did not come, closings that took too long; and the node's end.

use std::{rc::Rc, time::Duration};

use martlet_protocol::problem::close;
use tokio::task::yield_now;

use super::{
    connection::{Connection, State},
    outbox::Opcode,
    session::Output,
    worker::{Due, Worker},
};

/// Connections that are told of the node's end between two breaths.
const DRAIN_CHUNK: usize = 256;

impl Worker {
    /// One turn of the wheel: pings, missing pongs, closings that took too long.
    pub(super) fn turn(self: &Rc<Self>) {
        let due = self.wheel.borrow_mut().turn();
        for (id, due) in due {
            let Some(connection) = self.find(id) else { continue };
            match due {
                Due::Ping => self.ping(&connection),
                Due::Pong => self.expect_pong(&connection),
                Due::Cut => connection.cut(),
            }
        }
    }

    fn ping(self: &Rc<Self>, connection: &Rc<Connection>) {
        let mut state = connection.state.borrow_mut();
        if state.closing {
            return;
        }
        state.alive = false;
        state.outbox().frame(Opcode::Ping, 0, |_| {});
        drop(state);
        self.flush(connection);
        self.wheel.borrow_mut().schedule(self.services.config.socket.pong_timeout, (connection.id, Due::Pong));
    }

    fn expect_pong(self: &Rc<Self>, connection: &Rc<Connection>) {
        // Without a look at the control stream no ping went out; while its sends wait, the node itself does not read its pongs.
        let excused = |state: &State| {
            !self.gate_is_open()
                || state.subscribing
                || state.session.as_ref().is_some_and(|session| session.is_busy(&self.rules))
        };
        let state = connection.state.borrow();
        let alive = state.alive || excused(&state);
        drop(state);
        if !alive {
            return self.close(connection, Some(close::TIMED_OUT));
        }
        let socket = &self.services.config.socket;
        let rest = socket.ping_interval.saturating_sub(socket.pong_timeout);
        self.wheel.borrow_mut().schedule(rest, (connection.id, Due::Ping));
    }

    /// The node stops: every client is told when to come back, evenly spread, and its socket closes.
    pub(super) async fn drain(self: Rc<Self>) {
        let window = self.services.config.server.drain_window;
        let places = self.slots.borrow().places();
        for from in (0..places).step_by(DRAIN_CHUNK) {
            let chunk: Vec<_> = self.slots.borrow().range(from, DRAIN_CHUNK).cloned().collect();
            for connection in chunk {
                self.drain_one(&connection, self.part_of(window));
            }
            yield_now().await;
        }
    }

    pub(super) fn drain_one(self: &Rc<Self>, connection: &Rc<Connection>, retry_after: Duration) {
        let mut outputs = Vec::new();
        match &mut connection.state.borrow_mut().session {
            Some(session) => session.drain(retry_after, &mut outputs),
            None => outputs.push(Output::Close(close::GOING_AWAY)),
        }
        self.apply(connection, outputs);
        self.flush(connection);
    }
}
