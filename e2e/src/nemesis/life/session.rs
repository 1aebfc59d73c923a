//! While one socket of a device lasts.

use std::time::Duration;

use anyhow::Result;
use martlet_protocol::{
    id::DeviceId,
    rest,
    wire::{self, client_frame, node_frame},
};
use rand::RngExt as _;
use tokio::time::{sleep, timeout};

use super::{Call, Life, Manner, POKE, RESUME, hearing::hear, post};
use crate::{
    nemesis::{outbox::After, world::Phase},
    wire::{Heard, RestError, Socket},
};

/// Unanswered messages that a device has on its socket at once.
const WINDOW: usize = 6;
/// A device that waits longer than this for an answer tries elsewhere.
const ANSWER_PATIENCE_MS: std::ops::Range<u64> = 2_000..4_000;
/// How long a busy device stays on one socket.
const STAY_MS: std::ops::Range<u64> = 2_000..40_000;
/// How long a caller stays after its message has come.
const CALLER_STAYS_MS: u64 = 50;
/// How long an abandoned connection stays open, unread.
const GHOST_MS: std::ops::Range<u64> = 1_000..6_000;
/// Time to say goodbye in.
const FAREWELL: Duration = Duration::from_secs(2);
/// After a refusal.
const REFUSED_PAUSE_MS: std::ops::Range<u64> = 50..400;
/// At least so often a session looks at the time.
const LOOK_MS: u64 = 250;

/// How a device sends while one connection lasts. Either way its socket is open for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    /// Through this node, which may be another one.
    Rest(usize),
}

/// What one socket's life is bounded by.
struct Stay {
    node: usize,
    way: Way,
    leave_ms: u64,
    patience_ms: u64,
    /// See [`hear`].
    empty_ms: u64,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The socket is gone.
    Broken,
    /// The device wants to go.
    Leaving,
}

impl Life {
    /// Lives on one socket until it breaks or the device has had enough of it.
    pub(super) async fn session(
        &mut self,
        node: usize,
        mut socket: Socket,
        hello: &wire::Hello,
        before_ms: u64,
    ) -> Result<()> {
        let mailbox = self.inbox.resume_from(hello, &self.world, &mut self.rng);
        if socket.say(RESUME, client_frame::Frame::Resume(wire::Resume { mailbox })).await.is_err() {
            return Ok(());
        }
        let way = match self.rng.random_ratio(1, 4) {
            true => Way::Rest(self.world.any_node(&mut self.rng)),
            false => Way::Socket,
        };
        let leave_ms = match self.manner {
            Manner::Busy { .. } => self.world.now_ms() + self.rng.random_range(STAY_MS),
            Manner::Caller(_) | Manner::Answerer(_) => u64::MAX,
        };
        let patience_ms = self.rng.random_range(ANSWER_PATIENCE_MS);
        let mut stay = Stay { node, way, leave_ms, patience_ms, empty_ms: before_ms };
        let mut call: Option<Call> = None;
        let end = self.exchange(&mut socket, &mut stay, &mut call).await;
        // What is on its way over REST is answered or lost before anything is sent again, or the order would not be the device's.
        if let Some(call) = call {
            let (operation, answer) = call.await?;
            self.answered(operation, answer);
        }
        if end? == End::Leaving {
            self.leave(socket).await;
        }
        Ok(())
    }

    async fn exchange(&mut self, socket: &mut Socket, stay: &mut Stay, call: &mut Option<Call>) -> Result<End> {
        while !self.is_settled() {
            if self.send_what_waits(socket, stay.way, call).await.is_err() {
                return Ok(End::Broken);
            }
            let wait = self.until_next(stay);
            let heard = tokio::select! {
                heard = hear(socket, &mut stay.empty_ms, &self.world) => Some(heard?),
                answer = async { call.as_mut().expect("checked").await }, if call.is_some() => {
                    *call = None;
                    let (operation, answer) = answer?;
                    if self.answered(operation, answer) == After::StartOver {
                        return Ok(End::Broken);
                    }
                    None
                }
                () = asked(&self.manner) => {
                    self.write_one();
                    None
                }
                () = sleep(wait) => None,
            };
            match heard {
                Some(Heard::Closed(_)) => return Ok(End::Broken),
                Some(Heard::Frame(reference, frame)) => {
                    if self.is_revoked() && self.served(stay.node, stay.empty_ms) {
                        return Ok(End::Broken);
                    }
                    if self.heard(reference, frame, stay.empty_ms)? == After::StartOver {
                        return Ok(End::Broken);
                    }
                }
                None if self.is_revoked() => self.poke(socket).await,
                None => self.write(stay.way),
            }
            if let Some(ack) = self.inbox.due_ack(false, &mut self.rng)
                && socket.ack(ack).await.is_err()
            {
                return Ok(End::Broken);
            }
            if let Some(end) = self.is_time(stay) {
                return Ok(end);
            }
        }
        Ok(End::Leaving)
    }

    /// Whether the session has lasted long enough, or an answer too long.
    fn is_time(&self, stay: &Stay) -> Option<End> {
        let now_ms = self.world.now_ms();
        let waits = stay.way == Way::Socket
            && self.outbox.waiting_since_ms().is_some_and(|since| since + stay.patience_ms < now_ms);
        let phase = *self.phase.borrow();
        let has_had_enough = match &self.manner {
            // In peace they call on: then nothing else would end the wait for what nobody told their node of.
            Manner::Caller(_) => {
                phase < Phase::Settling && self.inbox.last_entry_ms.is_some_and(|at| at + CALLER_STAYS_MS < now_ms)
            }
            _ => phase == Phase::Busy && now_ms > stay.leave_ms,
        };
        match () {
            () if waits => Some(End::Broken),
            () if has_had_enough && !self.is_revoked() => Some(End::Leaving),
            () => None,
        }
    }

    /// Goodbye, a cut without one, or a connection that stays open and is never read again.
    async fn leave(&mut self, socket: Socket) {
        match self.rng.random_range(0..10) {
            0..=2 => drop(timeout(FAREWELL, socket.leave()).await),
            3..=4 if matches!(self.manner, Manner::Busy { .. }) => {
                self.world.client_faults.lock().ghosts += 1;
                let time = Duration::from_millis(self.rng.random_range(GHOST_MS));
                tokio::spawn(async move {
                    sleep(time).await;
                    drop(socket);
                });
            }
            _ => {
                self.world.client_faults.lock().vanished += 1;
                drop(socket);
            }
        }
    }

    fn until_next(&self, stay: &Stay) -> Duration {
        let now_ms = self.world.now_ms();
        // Who may not write yet waits for an answer, not for the time.
        let writes = if self.may_write(stay.way) { self.next_write_ms } else { u64::MAX };
        let look_ms = if matches!(self.manner, Manner::Caller(_)) { CALLER_STAYS_MS } else { LOOK_MS };
        let next_ms = writes.min(stay.leave_ms).min(now_ms + look_ms);
        Duration::from_millis(next_ms.saturating_sub(now_ms).max(1))
    }

    /// Writes if it is time to.
    fn write(&mut self, way: Way) {
        let phase = *self.phase.borrow();
        if phase >= Phase::Healed && !self.has_greeted {
            self.has_greeted = true;
            for circle in self.world.led_by(&self.device.device_id) {
                self.outbox.compose(&self.device, &circle, &self.world, &mut self.rng);
            }
        }
        let Manner::Busy { pause_ms } = self.manner else { return };
        let now_ms = self.world.now_ms();
        if now_ms < self.next_write_ms || !self.may_write(way) {
            return;
        }
        self.next_write_ms = now_ms + self.rng.random_range(0..=2 * pause_ms);
        self.write_one();
    }

    /// Whether a busy device has room for another message under way.
    fn may_write(&self, way: Way) -> bool {
        let window = if way == Way::Socket { WINDOW } else { 1 };
        let is_busy = matches!(self.manner, Manner::Busy { .. });
        is_busy && *self.phase.borrow() <= Phase::Healed && self.outbox.pending.len() < window
    }

    fn write_one(&mut self) {
        if *self.phase.borrow() > Phase::Healed || self.outbox.pending.len() >= WINDOW {
            return;
        }
        if let Some(circle) = self.world.any_circle(&self.device.account_id, &mut self.rng) {
            self.outbox.compose(&self.device, &circle, &self.world, &mut self.rng);
        }
    }

    /// Sends what was not sent over this connection, in order; then asks again about something answered.
    async fn send_what_waits(&mut self, socket: &mut Socket, way: Way, call: &mut Option<Call>) -> Result<()> {
        let now_ms = self.world.now_ms();
        match way {
            Way::Socket => {
                for pending in self.outbox.pending.iter_mut().filter(|pending| pending.under_way_since_ms.is_none()) {
                    pending.under_way_since_ms = Some(now_ms);
                    let reference = pending.operation as u64 + 1;
                    socket.say(reference, client_frame::Frame::Send(pending.outgoing.request.clone())).await?;
                }
            }
            Way::Rest(node) if call.is_none() => {
                if let Some(pending) = self.outbox.pending.front_mut() {
                    pending.under_way_since_ms = Some(now_ms);
                    let (rest, token) = (self.world.nodes[node].clone(), self.device.token.clone());
                    *call = Some(tokio::spawn(post(rest, token, pending.operation, pending.outgoing.clone())));
                }
            }
            Way::Rest(_) => {}
        }
        if let Some(at) = self.outbox.again.iter().position(|again| again.due_ms <= now_ms) {
            let again = self.outbox.again.swap_remove(at);
            self.world.client_faults.lock().asked_again += 1;
            let reference = again.operation as u64 + 1;
            socket.say(reference, client_frame::Frame::Send(again.outgoing.request)).await?;
        }
        Ok(())
    }

    /// Takes a frame in.
    pub(super) fn heard(&mut self, reference: u64, frame: node_frame::Frame, written_after_ms: u64) -> Result<After> {
        let operation = usize::try_from(reference.saturating_sub(1))?;
        match frame {
            node_frame::Frame::Entry(entry) => self.inbox.entry(&self.device, &entry, &self.world, written_after_ms),
            node_frame::Frame::Gap(gap) => self.inbox.gap(&gap, &self.world),
            node_frame::Frame::Accepted(accepted) => {
                let accepted = rest::Accepted::try_from(&accepted)?;
                self.accepted(operation, accepted.message_id, accepted.partial_device_ids);
            }
            node_frame::Frame::Problem(_) if reference == POKE => {}
            // The mailbox of a revoked device is gone, and its cursors with it.
            node_frame::Frame::Problem(problem) if matches!(problem.code.as_str(), "cursor_epoch" | "cursor_ahead") => {
                if !self.is_revoked() {
                    self.inbox.refused(&self.world, &problem.code);
                }
                return Ok(After::StartOver);
            }
            node_frame::Frame::Problem(_) if reference == RESUME || reference == 0 => return Ok(After::StartOver),
            node_frame::Frame::Problem(problem) => return Ok(self.refused(operation, &problem.code)),
            node_frame::Frame::Hello(_) | node_frame::Frame::CaughtUp(_) | node_frame::Frame::Draining(_) => {}
            // Ephemeral messages promise nothing that could be judged, and nobody here sends any.
            node_frame::Frame::Ephemeral(_) | node_frame::Frame::AcceptedEphemeral(_) => {}
            // Nobody here reads a log.
            node_frame::Frame::Subscribed(_)
            | node_frame::Frame::Unsubscribed(_)
            | node_frame::Frame::LogItems(_)
            | node_frame::Frame::LogEnded(_) => {}
        }
        Ok(After::GoOn)
    }

    fn accepted(&mut self, operation: usize, message_id: martlet_protocol::id::MessageId, partial: Vec<DeviceId>) {
        self.outbox.accepted(operation, message_id, partial, &self.world, &mut self.rng);
    }

    fn refused(&mut self, operation: usize, code: &str) -> After {
        *self.world.refusals.lock().entry(code.to_owned()).or_default() += 1;
        let after = self.outbox.refused(operation, code, &self.world);
        if after == After::Pause {
            self.next_write_ms = self.world.now_ms() + self.rng.random_range(REFUSED_PAUSE_MS);
        }
        after
    }

    /// A call over REST came back.
    fn answered(&mut self, operation: usize, answer: Result<rest::Accepted, RestError>) -> After {
        match answer {
            Ok(accepted) => self.accepted(operation, accepted.message_id, accepted.partial_device_ids),
            Err(RestError::Refused(problem)) => return self.refused(operation, &problem.code),
            // Sent again over whatever the next session chooses.
            Err(_) => return After::StartOver,
        }
        After::GoOn
    }
}

/// Waits for the bell, if the device has one to answer.
async fn asked(manner: &Manner) {
    match manner {
        Manner::Answerer(bell) => bell.notified().await,
        Manner::Busy { .. } | Manner::Caller(_) => std::future::pending().await,
    }
}
