//! A socket that reads a mailbox, for tests that know what must come.

use anyhow::{Context as _, Result, bail};
use martlet_protocol::wire::{self, node_frame::Frame};

use super::{Device, Heard, Rest, Socket, SubProtocol, message::Opened};
use crate::scene::until;

/// A socket that reads a mailbox.
pub struct Reading {
    /// Frame by frame.
    pub socket: Socket,
    /// What the node said first.
    pub hello: wire::Hello,
}

impl Reading {
    /// Opens a socket and goes on after a number; none: from the oldest entry that was not acknowledged.
    ///
    /// # Errors
    /// The node refused.
    pub async fn start(rest: &Rest, device: &Device, after: Option<u64>) -> Result<Self> {
        let (socket, hello) = Socket::open(rest.base(), &device.token, SubProtocol::Proto).await?;
        let mut reading = Self { socket, hello };
        let mailbox = after.map(|seq| reading.cursor(seq)).transpose()?;
        reading.socket.say(0, wire::client_frame::Frame::Resume(wire::Resume { mailbox })).await?;
        Ok(reading)
    }

    /// A cursor of this mailbox.
    ///
    /// # Errors
    /// The hello lacks the mailbox's state.
    pub fn cursor(&self, seq: u64) -> Result<wire::Cursor> {
        Ok(wire::Cursor { epoch: self.hello.mailbox.context("the mailbox's state")?.epoch, seq })
    }

    /// Everything up to the end of what is stored: entries and gap markers.
    ///
    /// # Errors
    /// Something else came.
    pub async fn backlog(&mut self, device: &Device) -> Result<(Vec<Opened>, Vec<wire::Gap>)> {
        let (mut entries, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match self.socket.hear().await? {
                Heard::Frame(_, Frame::Entry(entry)) => entries.push(device.open(&entry)?),
                Heard::Frame(_, Frame::Gap(gap)) => gaps.push(gap),
                Heard::Frame(_, Frame::CaughtUp(_)) => return Ok((entries, gaps)),
                Heard::Frame(_, Frame::Hello(_)) => {}
                other => bail!("instead of the backlog: {other:?}"),
            }
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// Something else came.
    pub async fn entry(&mut self, device: &Device) -> Result<Opened> {
        match self.socket.hear_news().await? {
            Heard::Frame(_, Frame::Entry(entry)) => device.open(&entry),
            other => bail!("instead of an entry: {other:?}"),
        }
    }

    /// Acknowledges up to a number and waits until the node has taken that: a newer socket of the device ends this one with whatever the
    /// node has not read of it. An ack is answered only if it is refused, so one beyond everything follows it.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn ack(&mut self, seq: u64) -> Result<()> {
        const BEYOND: u64 = u64::MAX;
        let (cursor, beyond) = (self.cursor(seq)?, self.cursor(BEYOND)?);
        self.socket.ack(cursor).await?;
        self.socket.say(BEYOND, wire::client_frame::Frame::Ack(wire::Ack { mailbox: Some(beyond) })).await?;
        loop {
            match self.socket.hear().await? {
                Heard::Frame(BEYOND, Frame::Problem(_)) => return Ok(()),
                Heard::Closed(code) => bail!("closed with {code:?} instead of taking an ack"),
                Heard::Frame(..) => {}
            }
        }
    }

    /// Waits for the end; gives the close code.
    ///
    /// # Errors
    /// The node broke the protocol.
    pub async fn closed(&mut self) -> Result<Option<u16>> {
        loop {
            if let Heard::Closed(code) = self.socket.hear().await? {
                return Ok(code);
            }
        }
    }
}

/// Acknowledges, leaves, and waits until the node has written the ack.
///
/// The node reads frames in order and answers the farewell, so it has read the ack by then; a socket that the device's next one
/// replaced might be closed with the ack unread, which costs a real client no more than an entry read twice.
///
/// # Errors
/// That takes too long.
pub async fn acked(rest: &Rest, device: &Device, mut reading: Reading, seq: u64) -> Result<()> {
    reading.ack(seq).await?;
    reading.socket.leave().await?;
    until("an ack is written", || async {
        let (socket, hello) = Socket::open(rest.base(), &device.token, SubProtocol::Proto).await?;
        socket.leave().await?;
        Ok(hello.mailbox.context("the mailbox's state")?.acked_seq == seq)
    })
    .await
}
