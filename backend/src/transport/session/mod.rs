//! What a device's socket does, as a state machine over values: frames, deliveries and ticks go in, [`Output`]s come out. It holds no
//! socket, no timer and no store; whoever runs it does what the outputs say. [`reader`] is the part that reads the mailbox.

mod flood;
mod reader;
#[cfg(test)]
mod reader_property;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use martlet_protocol::{
    problem::{Code, close},
    wire::{self, client_frame, node_frame},
};

use super::subprotocol::unasked;
use crate::{
    streams::MailboxRange,
    subscribers::{LiveItem, Whisper},
};
pub(super) use flood::{FrameRate, Frames};
use reader::Reader;

/// What is to be done for the session.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Write this frame.
    Frame(wire::NodeFrame),
    /// Write this entry or gap marker.
    Item(LiveItem),
    /// Write this ephemeral message, an encoded [`wire::Ephemeral`].
    Whisper(Bytes),
    /// Read on from the store after this `seq`, then call [`Session::range`].
    Read(u64),
    /// Call [`Session::tick`] after this time.
    Tick(Duration),
    /// The device has everything up to here.
    Acked(wire::Cursor),
    /// Read these logs no more.
    Unsubscribe(Vec<Bytes>),
    /// Close with this code once everything before is written.
    Close(u16),
}

/// A send that is to be submitted; its outcome goes to [`Session::answered`].
#[derive(Debug, PartialEq)]
pub(super) struct Send {
    /// What its answer carries.
    pub(super) reference: u64,
    /// The message.
    pub(super) request: wire::SendRequest,
    /// It is not to be stored.
    pub(super) ephemeral: bool,
}

/// What a frame asks for that takes time.
#[derive(Debug, PartialEq)]
pub(super) enum Task {
    /// Submit it.
    Send(Send),
    /// Read these logs, and answer with this reference.
    Subscribe(u64, Vec<wire::LogCursor>),
}

/// What the config says about all sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How long an entry is held back whose predecessor is missing.
    pub(super) hold: Duration,
    /// Bytes that may be held back, or wait for the socket.
    pub(super) budget_bytes: usize,
    /// Sends that may be unanswered.
    pub(super) max_in_flight: u32,
    /// Frames that may come.
    pub(super) frames: FrameRate,
}

/// One socket's state.
pub(super) struct Session {
    reader: Reader,
    in_flight: u32,
    draining: bool,
}

impl Session {
    /// A session of a mailbox that stands so.
    pub(super) fn new(mailbox: &wire::MailboxState) -> Self {
        Self { reader: Reader::new(mailbox), in_flight: 0, draining: false }
    }

    /// The client sent a frame. What takes time is handed back; the next frame waits for it.
    pub(super) fn frame(&mut self, frame: wire::ClientFrame, out: &mut Vec<Output>) -> Option<Task> {
        let reference = frame.r#ref;
        let result = match frame.frame {
            Some(client_frame::Frame::Resume(resume)) => self.reader.resume(reference, resume.mailbox, out),
            Some(client_frame::Frame::Ack(ack)) => self.reader.ack(reference, ack.mailbox, out),
            Some(client_frame::Frame::Send(_) | client_frame::Frame::SendEphemeral(_)) if self.draining => {
                Err(Code::Unavailable.problem("the node is shutting down"))
            }
            Some(client_frame::Frame::Send(request)) => return Some(self.send(reference, request, false)),
            Some(client_frame::Frame::SendEphemeral(request)) => return Some(self.send(reference, request, true)),
            Some(client_frame::Frame::Subscribe(subscribe)) => return Some(Task::Subscribe(reference, subscribe.logs)),
            Some(client_frame::Frame::Unsubscribe(unsubscribe)) => {
                out.push(Output::Unsubscribe(unsubscribe.conversation_ids));
                if reference != 0 {
                    let done = node_frame::Frame::Unsubscribed(wire::Unsubscribed {});
                    out.push(Output::Frame(wire::NodeFrame { r#ref: reference, frame: Some(done) }));
                }
                Ok(())
            }
            None => Err(Code::Malformed.problem("the frame is empty or of a kind that this node does not know")),
        };
        if let Err(problem) = result {
            out.push(refusal(reference, problem));
        }
        None
    }

    fn send(&mut self, reference: u64, request: wire::SendRequest, ephemeral: bool) -> Task {
        self.in_flight += 1;
        Task::Send(Send { reference, request, ephemeral })
    }

    /// What became of a send. An acceptance is told if the client asked for it, a problem always.
    pub(super) fn answered(
        &mut self,
        reference: u64,
        result: Result<node_frame::Frame, wire::Problem>,
        out: &mut Vec<Output>,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match result {
            Ok(_) if reference == 0 => {}
            Ok(accepted) => {
                out.push(Output::Frame(wire::NodeFrame { r#ref: reference, frame: Some(accepted) }));
            }
            Err(problem) => out.push(refusal(reference, problem)),
        }
        self.close_if_drained(out);
    }

    /// Something was committed to the mailbox. `full`: the socket has as much to write as it may.
    pub(super) fn deliver(&mut self, item: LiveItem, full: bool, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.reader.deliver(item, full, now, rules, out);
    }

    /// An ephemeral message came. It is written now or never: not before the client has resumed, not while it is behind, not if the
    /// socket has about as much to write as it may, and not when its time is over.
    pub(super) fn whisper(&mut self, whisper: &Whisper, full: bool, now_ms: u64, out: &mut Vec<Output>) {
        if !full && now_ms < whisper.expires_at_ms && self.reader.hears_whispers() {
            out.push(Output::Whisper(whisper.payload.clone()));
        }
    }

    /// What [`Output::Read`] asked for.
    pub(super) fn range(&mut self, range: MailboxRange, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.reader.range(range, now, rules, out);
    }

    /// The time that [`Output::Tick`] asked for has passed.
    pub(super) fn tick(&mut self, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.reader.tick(now, rules, out);
    }

    /// The mailbox's head was seen in the store.
    pub(super) fn head_seen(&mut self, head_seq: u64, now: Duration, rules: &Rules, out: &mut Vec<Output>) {
        self.reader.head_seen(head_seq, now, rules, out);
    }

    /// The socket has written everything.
    pub(super) fn drained(&mut self, out: &mut Vec<Output>) {
        self.reader.drained(out);
    }

    /// The node stops: the client is told when to come back, and the socket closes once every send is answered.
    pub(super) fn drain(&mut self, retry_after: Duration, out: &mut Vec<Output>) {
        if self.draining {
            return;
        }
        self.draining = true;
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        out.push(Output::Frame(unasked(node_frame::Frame::Draining(wire::Draining { retry_after_ms }))));
        self.close_if_drained(out);
    }

    /// As many sends are unanswered as may be: no more is to be read.
    pub(super) fn is_busy(&self, rules: &Rules) -> bool {
        self.in_flight >= rules.max_in_flight
    }

    /// The highest `seq` that is known to exist: a range that is read must not end before it was written.
    pub(super) fn known_head(&self) -> u64 {
        self.reader.known_head()
    }

    /// It waits for entries as they come, so that a head beyond what it delivered means a loss.
    pub(super) fn is_live(&self) -> bool {
        self.reader.is_live()
    }

    fn close_if_drained(&self, out: &mut Vec<Output>) {
        if self.draining && self.in_flight == 0 {
            out.push(Output::Close(close::GOING_AWAY));
        }
    }
}

/// The frame with this reference was refused.
pub(super) fn refusal(reference: u64, problem: wire::Problem) -> Output {
    Output::Frame(wire::NodeFrame { r#ref: reference, frame: Some(node_frame::Frame::Problem(problem)) })
}
