//! The writer: one device that sends by the clock, on a thread and a socket of its own.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use martlet_protocol::{
    id::{ConversationId, MessageId},
    wire::{self, client_frame, node_frame},
};

use crate::{
    ambient,
    figures::Times,
    socket::{Connection, Fleet, Handler, put},
};

/// No answer for so long: it will not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Any suite will do: the node does not know what is in a log.
const SUITE: u32 = 200;
/// From the start of the thread to the first message, so that everything is ready.
const AHEAD: Duration = Duration::from_millis(500);

/// When which message is due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate: f64,
    warm_up: u32,
    measured: u32,
    start: Instant,
}

impl Schedule {
    /// So many messages a second, for so long.
    pub fn new(rate: u32, warm_up: Duration, measured: Duration) -> Self {
        let count = |time: Duration| u32::try_from(time.as_millis() * u128::from(rate) / 1000).unwrap_or(u32::MAX);
        Self { rate: rate.into(), warm_up: count(warm_up), measured: count(measured).max(1), start: ambient::now() }
    }

    /// So many messages, evenly over a time.
    pub fn spread(messages: u32, over: Duration) -> Self {
        let rate = f64::from(messages) / over.as_secs_f64().max(0.001);
        Self { rate, warm_up: 0, measured: messages, start: ambient::now() }
    }

    /// The same from another moment on.
    pub fn starting(self, start: Instant) -> Self {
        Self { start, ..self }
    }

    /// All of them.
    pub fn count(self) -> usize {
        self.warm_up.saturating_add(self.measured) as usize
    }

    /// Whether message n (from 0) counts.
    pub fn counts(self, n: usize) -> bool {
        n >= self.warm_up as usize
    }

    /// When message n is due.
    pub fn due(self, n: usize) -> Instant {
        self.start + Duration::from_secs_f64(n as f64 / self.rate)
    }

    /// When those that count begin and end.
    pub fn span(self) -> (Instant, Instant) {
        (self.due(self.warm_up as usize), self.due(self.count()))
    }
}

/// What the writer saw.
pub struct Written {
    /// Messages that were accepted.
    pub accepted: u64,
    /// From the moment a message was due to the answer.
    pub answers: Times,
    /// What went wrong.
    pub troubles: Vec<String>,
}

/// See the module.
pub struct Writer {
    schedule: Schedule,
    thread: JoinHandle<Result<Written>>,
}

impl Writer {
    /// Connects, and begins soon.
    pub fn start(
        url: &str,
        token: &str,
        conversation: ConversationId,
        head: u64,
        contents: Arc<[Bytes]>,
        schedule: Schedule,
    ) -> Result<Self> {
        let mut fleet = Fleet::new(url)?;
        let mut pen = Pen { head, schedule, written: Written { accepted: 0, answers: Times::new(), troubles: vec![] } };
        fleet.open_all([token], 1, &mut pen, |_| {})?;
        ensure!(fleet.live() == 1, "the writer could not connect: {:?}", pen.written.troubles);
        let schedule = schedule.starting(ambient::now() + AHEAD);
        pen.schedule = schedule;
        let frames = contents.iter().map(|content| request(conversation, content.clone())).collect();
        let thread = std::thread::spawn(move || pen.write(&mut fleet, frames));
        Ok(Self { schedule, thread })
    }

    /// With the moment at which it begins.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Waits for the last answer.
    pub fn join(self) -> Result<Written> {
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))?
    }
}

/// A message to a log.
pub fn request(conversation: ConversationId, content: Bytes) -> wire::SendRequest {
    wire::SendRequest {
        conversation_id: conversation.to_wire(),
        client_message_id: MessageId::random(&mut ambient::system_rng()).to_wire(),
        suite: SUITE,
        content,
        ..wire::SendRequest::default()
    }
}

struct Pen {
    head: u64,
    schedule: Schedule,
    written: Written,
}

impl Pen {
    fn write(mut self, fleet: &mut Fleet, requests: Vec<wire::SendRequest>) -> Result<Written> {
        let count = requests.len();
        for (n, request) in requests.into_iter().enumerate() {
            while let Some(left) = self.schedule.due(n).checked_duration_since(ambient::now())
                && !left.is_zero()
            {
                if left > Duration::from_millis(2) {
                    fleet.turn(left.saturating_sub(Duration::from_millis(1)), &mut self)?;
                } else {
                    ambient::rest(left);
                }
            }
            let Some(connection) = fleet.connection(0) else { break };
            put(connection, n as u64 + 1, client_frame::Frame::Send(request));
            fleet.flush(0, &mut self);
            fleet.turn(Duration::ZERO, &mut self)?;
        }
        let since = ambient::now();
        while self.written.accepted < count as u64 && self.written.troubles.is_empty() && since.elapsed() < PATIENCE {
            fleet.turn(Duration::from_millis(20), &mut self)?;
        }
        Ok(self.written)
    }
}

impl Handler for Pen {
    fn live(&mut self, _: usize, _: &wire::Hello, _: &mut Connection) {}

    fn frame(&mut self, _: usize, frame: node_frame::Frame, reference: u64, at: Instant, _: &mut Connection) {
        match frame {
            node_frame::Frame::Accepted(accepted) => {
                self.written.accepted += 1;
                if accepted.log_seq != self.head + reference {
                    self.written.troubles.push(format!("message {reference} became entry {}", accepted.log_seq));
                }
                let n = usize::try_from(reference).unwrap_or(1) - 1;
                if self.schedule.counts(n) {
                    self.written.answers.record(at.saturating_duration_since(self.schedule.due(n)));
                }
            }
            node_frame::Frame::Problem(problem) => {
                self.written.troubles.push(format!("refused: {} {}", problem.code, problem.detail));
            }
            other => self.written.troubles.push(format!("the node sent the writer {other:?}")),
        }
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, why: &str) {
        self.written.troubles.push(format!("the writer's connection was lost: {why}"));
    }
}
