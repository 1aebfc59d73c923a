//! The way in: bytes from a socket to frames, and what they mean for how far it has come.

use std::time::Instant;

use bytes::Bytes;
use martlet_protocol::wire::{self, client_frame, node_frame};
use prost::Message as _;

use super::{
    Connection, Dialect, Fleet, Handler, Stage,
    connection::{self, Read, Upgrade},
    frame::{self, opcode},
    put,
};
use crate::ambient;

impl Fleet {
    /// Reads until the socket is empty.
    pub(super) fn receive(
        &mut self,
        index: usize,
        connection: &mut Connection,
        closing: bool,
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        // A connection that is refused is told of here.
        let doing = if matches!(self.members[index].stage, Stage::Upgrading) { "connecting" } else { "reading" };
        let outcome = loop {
            let read = connection.read(&mut scratch).map_err(|error| format!("{doing} failed: {error}"));
            let at = ambient::now();
            match read {
                Err(why) => break Err(why),
                Ok(Read::Nothing) => break Ok(()),
                Ok(Read::Closed) => break Err("the node closed the connection without a close frame".into()),
                Ok(Read::Bytes { count, more }) => {
                    let taken = self.take_all(index, &scratch[..count], at, connection, handler);
                    if taken.is_err() || (!more && !closing) {
                        break taken;
                    }
                }
            }
        };
        self.scratch = scratch;
        outcome
    }

    /// What the handler takes as it is, and then everything else.
    fn take_all(
        &mut self,
        index: usize,
        mut fresh: &[u8],
        at: Instant,
        connection: &mut Connection,
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        if connection.is_at_frame() && self.members[index].stage.has_resumed() {
            while let Some(place) = frame::find(fresh).map_err(|error| error.to_string())?
                && self.is_message(place.opcode)
                && handler.raw(index, &fresh[place.start..place.end], at)?
            {
                fresh = &fresh[place.end..];
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let mut bytes = connection.join(fresh);
        self.take(index, &mut bytes, at, connection, handler)?;
        if !bytes.is_empty() {
            // A copy, so that few bytes don't keep a large read in memory.
            connection.keep(Bytes::copy_from_slice(&bytes));
        }
        Ok(())
    }

    /// A node sends binary messages only.
    fn is_message(&self, opcode: u8) -> bool {
        opcode == opcode::BINARY || (opcode == opcode::TEXT && self.dialect != Dialect::Martlet)
    }

    fn become_live(&mut self, index: usize) {
        self.members[index].stage = Stage::Live;
        self.live += 1;
        self.opening -= 1;
    }

    fn take(
        &mut self,
        index: usize,
        bytes: &mut Bytes,
        at: Instant,
        connection: &mut Connection,
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        if matches!(self.members[index].stage, Stage::Upgrading) {
            match connection::take_upgrade(&self.dialect, bytes) {
                Upgrade::Unfinished => return Ok(()),
                Upgrade::Done if self.dialect == Dialect::Martlet => self.members[index].stage = Stage::AwaitingHello,
                Upgrade::Done => {
                    self.become_live(index);
                    handler.live(index, &wire::Hello::default(), connection);
                }
                Upgrade::Refused(why) => return Err(format!("the upgrade was refused: {why}")),
            }
        }
        while let Some(frame) = frame::take(bytes).map_err(|error| error.to_string())? {
            match frame.opcode {
                message
                    if self.is_message(message)
                        && self.members[index].stage.has_resumed()
                        && handler.raw(index, &frame.payload, at)? => {}
                opcode::BINARY if self.dialect == Dialect::Martlet => {
                    let frame = wire::NodeFrame::decode(frame.payload).map_err(|_| "a frame that can't be read")?;
                    self.dispatch(index, frame, at, connection, handler)?;
                }
                opcode::PING => {
                    connection.put(opcode::PONG, &frame.payload);
                    handler.pinged(index);
                }
                opcode::PONG => handler.ponged(index),
                opcode::CLOSE => return Err(format!("the node closed with {}", close_words(&frame.payload))),
                other => return Err(format!("the node sent a frame of kind {other}")),
            }
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        index: usize,
        frame: wire::NodeFrame,
        at: Instant,
        connection: &mut Connection,
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        let Some(body) = frame.frame else { return Ok(()) };
        let stage = &mut self.members[index].stage;
        match (body, &mut *stage) {
            (node_frame::Frame::Hello(hello), Stage::AwaitingHello) => {
                // Without a cursor: from the oldest unacknowledged entry.
                put(connection, 0, client_frame::Frame::Resume(wire::Resume { mailbox: None }));
                *stage = Stage::Resuming(Box::new(hello));
                handler.greeted(index, connection);
            }
            // Sent again when its contents change, which no measurement depends on.
            (node_frame::Frame::Hello(_), _) => {}
            (node_frame::Frame::CaughtUp(_), Stage::Resuming(_)) => {
                if let Stage::Resuming(hello) = std::mem::replace(stage, Stage::Live) {
                    self.become_live(index);
                    handler.live(index, &hello, connection);
                }
            }
            // Also after the node has read on from the store for a slow reader.
            (node_frame::Frame::CaughtUp(_), _) => {}
            (_, Stage::AwaitingHello) => return Err("the node's first frame was no hello".into()),
            (body, _) => handler.frame(index, body, frame.r#ref, at, connection),
        }
        Ok(())
    }
}

fn close_words(payload: &[u8]) -> String {
    match payload {
        [a, b, reason @ ..] => {
            format!("code {} {}", u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(reason)).trim().to_owned()
        }
        _ => "no code".into(),
    }
}
