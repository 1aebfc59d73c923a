//! One device's life: connect, resume, read, send, retry, acknowledge; whatever breaks, connect again.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use martlet_protocol::{
    id::MessageId,
    rest,
    wire::{self, client_frame, node_frame},
};
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{inbox::Inbox, outbox::Outbox};
use crate::{
    history::History,
    wire::{Circle, Device, Heard, Rest, RestError, Socket, SubProtocol, message::Outgoing},
};

/// Unanswered messages that a device has on its socket at once.
const WINDOW: usize = 6;
/// A device writes its next message after up to this long.
const PAUSE_MS: u64 = 30;

/// What all are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Writing, reading, being interrupted.
    Busy,
    /// No new messages: what is unanswered is sent until it is answered.
    Settling,
    /// All is settled: read to the end.
    Reading,
}

/// What participants share.
pub struct Shared {
    /// What happened.
    pub history: Mutex<History>,
    /// The node.
    pub rest: Rest,
}

/// How a device sends while one connection lasts. Either way its socket is open for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    Rest,
}

type Call = JoinHandle<Result<rest::Accepted, RestError>>;

/// A device and its durable state.
pub struct Participant {
    device: Arc<Device>,
    circles: Vec<Circle>,
    sub_protocol: SubProtocol,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    rng: StdRng,
    inbox: Inbox,
    outbox: Outbox,
}

impl Participant {
    /// A device that writes to these conversations, of which it is a member.
    #[must_use]
    pub fn new(
        device: Arc<Device>,
        circles: Vec<Circle>,
        sub_protocol: SubProtocol,
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        rng: StdRng,
    ) -> Self {
        Self { device, circles, sub_protocol, shared, phase, rng, inbox: Inbox::new(), outbox: Outbox::default() }
    }

    /// Lives until all is settled.
    ///
    /// # Errors
    /// The node broke the protocol.
    pub async fn settle(&mut self) -> Result<()> {
        while !self.is_settled() {
            // Not reachable, or gone again: that is what this is about.
            let Ok((socket, hello)) =
                Socket::open(self.shared.rest.base(), &self.device.token, self.sub_protocol).await
            else {
                sleep(Duration::from_millis(self.rng.random_range(5..40))).await;
                continue;
            };
            self.session(socket, &hello).await?;
            self.outbox.connection_lost(&self.shared, &mut self.rng);
        }
        Ok(())
    }

    /// Reads everything that is left in the mailbox, when nobody sends any more.
    ///
    /// # Errors
    /// The node broke the protocol.
    pub async fn read_to_end(&mut self) -> Result<()> {
        let (mut socket, hello) = Socket::open(self.shared.rest.base(), &self.device.token, self.sub_protocol).await?;
        let head_seq = hello.mailbox.context("a hello without the mailbox's state")?.head_seq;
        let cursor = self.inbox.resume_from(&hello, &mut self.rng)?;
        socket.say(0, client_frame::Frame::Resume(wire::Resume { mailbox: cursor })).await?;
        while self.inbox.cursor() < head_seq {
            match socket.hear().await? {
                Heard::Frame(_, frame) => self.heard(0, frame)?,
                Heard::Closed(code) => bail!("closed with {code:?} before the end of the mailbox"),
            }
        }
        self.shared.history.lock().device(self.device.device_id).head_seq = head_seq;
        if let Some(ack) = self.inbox.due_ack(true, &mut self.rng) {
            socket.ack(ack).await?;
        }
        socket.leave().await
    }

    fn is_settled(&self) -> bool {
        *self.phase.borrow() != Phase::Busy && self.outbox.pending.is_empty()
    }

    /// One socket's life.
    async fn session(&mut self, mut socket: Socket, hello: &wire::Hello) -> Result<()> {
        let cursor = self.inbox.resume_from(hello, &mut self.rng)?;
        if socket.say(0, client_frame::Frame::Resume(wire::Resume { mailbox: cursor })).await.is_err() {
            return Ok(());
        }
        let way = if self.rng.random_ratio(1, 3) { Way::Rest } else { Way::Socket };
        let mut call: Option<Call> = None;
        let outcome = self.exchange(&mut socket, way, &mut call).await;
        // What is on its way over REST is answered or lost before anything is sent again, or the order would not be the device's.
        if let Some(call) = call {
            self.answered(call.await?);
        }
        outcome
    }

    async fn exchange(&mut self, socket: &mut Socket, way: Way, call: &mut Option<Call>) -> Result<()> {
        while !self.is_settled() {
            if self.send_what_waits(socket, way, call).await.is_err() {
                return Ok(());
            }
            let pause = Duration::from_millis(self.rng.random_range(0..PAUSE_MS));
            tokio::select! {
                heard = socket.hear() => match heard? {
                    Heard::Frame(reference, frame) => self.heard(reference, frame)?,
                    Heard::Closed(_) => return Ok(()),
                },
                answer = async { call.as_mut().expect("checked").await }, if call.is_some() => {
                    *call = None;
                    if self.answered(answer?) {
                        // Retried over whatever the next session chooses.
                        return Ok(());
                    }
                }
                () = sleep(pause) => self.write(way),
            }
            if let Some(ack) = self.inbox.due_ack(false, &mut self.rng)
                && socket.ack(ack).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write(&mut self, way: Way) {
        let window = if way == Way::Socket { WINDOW } else { 1 };
        if *self.phase.borrow() == Phase::Busy && self.outbox.pending.len() < window {
            let circle = self.rng.random_range(0..self.circles.len());
            self.outbox.compose(&self.device, &self.circles[circle], &self.shared, &mut self.rng);
        }
    }

    /// Sends what was not sent over this connection, in order.
    async fn send_what_waits(&mut self, socket: &mut Socket, way: Way, call: &mut Option<Call>) -> Result<()> {
        match way {
            Way::Socket => {
                for pending in self.outbox.pending.iter_mut().filter(|pending| !pending.under_way) {
                    pending.under_way = true;
                    let reference = pending.operation as u64 + 1;
                    socket.say(reference, client_frame::Frame::Send(pending.outgoing.request.clone())).await?;
                }
            }
            Way::Rest if call.is_none() => {
                if let Some(pending) = self.outbox.pending.front_mut() {
                    pending.under_way = true;
                    let (rest, token) = (self.shared.rest.clone(), self.device.token.clone());
                    *call = Some(tokio::spawn(post(rest, token, pending.outgoing.clone())));
                }
            }
            Way::Rest => {}
        }
        Ok(())
    }

    fn heard(&mut self, reference: u64, frame: node_frame::Frame) -> Result<()> {
        let operation = usize::try_from(reference.saturating_sub(1))?;
        match frame {
            node_frame::Frame::Entry(entry) => self.inbox.entry(&self.device, &entry, &self.shared)?,
            node_frame::Frame::Gap(gap) => self.inbox.gap(&self.device, &gap, &self.shared),
            node_frame::Frame::Accepted(accepted) => {
                let accepted = rest::Accepted::try_from(&accepted)?;
                self.accepted(operation, accepted.message_id, accepted.partial_device_ids);
            }
            node_frame::Frame::Problem(problem) if reference == 0 => bail!("a frame was refused: {problem:?}"),
            node_frame::Frame::Problem(problem) => self.outbox.refused(operation, &problem.code, &self.shared),
            node_frame::Frame::AcceptedEphemeral(_) | node_frame::Frame::Ephemeral(_) => {
                bail!("nobody sends anything ephemeral here")
            }
            node_frame::Frame::Subscribed(_)
            | node_frame::Frame::Unsubscribed(_)
            | node_frame::Frame::LogItems(_)
            | node_frame::Frame::LogEnded(_) => bail!("nobody reads a log here"),
            node_frame::Frame::Hello(_) | node_frame::Frame::CaughtUp(_) | node_frame::Frame::Draining(_) => {}
        }
        Ok(())
    }

    fn accepted(&mut self, operation: usize, message_id: MessageId, partial: Vec<martlet_protocol::id::DeviceId>) {
        self.outbox.accepted(operation, message_id, partial, &self.shared);
    }

    /// A call over REST, always the oldest message, came back; tells whether its answer was lost.
    fn answered(&mut self, answer: Result<rest::Accepted, RestError>) -> bool {
        let Some(operation) = self.outbox.pending.front().map(|pending| pending.operation) else { return false };
        match answer {
            Ok(accepted) => self.accepted(operation, accepted.message_id, accepted.partial_device_ids),
            Err(RestError::Refused(problem)) => self.outbox.refused(operation, &problem.code, &self.shared),
            Err(_) => return true,
        }
        false
    }
}

async fn post(rest: Rest, token: String, outgoing: Outgoing) -> Result<rest::Accepted, RestError> {
    let body = outgoing.body().map_err(|error| RestError::Lost(error.to_string()))?;
    rest.post(&outgoing.path(), Some(&token), &body).await
}
