//! Writing messages before the clock starts: real plaintexts, signed, padded and encrypted with suite 1, a fork header for every
//! device, each message with its own id, counter and predecessor, in frames ready for the socket.

use std::{num::NonZero, thread};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use martlet_protocol::{
    crypto::SUITE_1,
    id::{ClientMessageId, Hash},
    suite1::{ForkContext, VERSION, fork_header, seal_content},
    wire::{self, client_frame},
};
use prost::Message as _;
use rand::rngs::StdRng;

use super::crowd::Circle;
use crate::{
    ambient,
    progress::Progress,
    socket::frame::{self, opcode},
};

/// What a sending device remembers from message to message.
pub struct Writer {
    rng: StdRng,
    /// Messages written so far; also the reference by which the node answers the last one.
    written: u64,
    previous: Option<Hash>,
    /// Ids of all messages, in order.
    pub ids: Vec<ClientMessageId>,
}

impl Writer {
    /// Has written nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { rng: ambient::system_rng(), written: 0, previous: None, ids: Vec::new() }
    }

    /// Writes the next message and returns its frame, masked and all.
    fn write(&mut self, sender: usize, circle: &Circle, text_bytes: usize) -> Result<Bytes> {
        self.written += 1;
        let id = ClientMessageId::random(&mut self.rng);
        self.ids.push(id);
        let text = wire::Text { text: text(sender, self.written, text_bytes), reply_to: None };
        let plaintext = wire::Plaintext {
            sender_counter: self.written,
            previous_message_hash: self.previous.map(Hash::to_wire).unwrap_or_default(),
            ..plaintext(circle, id, wire::content::Body::Text(text))
        };
        // A one-time prekey serves once.
        let request = compose(&mut self.rng, circle, id, &plaintext, self.written == 1)?;
        self.previous = Some(Hash::of(&request.content));
        Ok(framed(self.written, client_frame::Frame::Send(request)))
    }
}

/// What stands around a body, without what gives a stored message its place or an ephemeral one its end.
pub fn plaintext(circle: &Circle, id: ClientMessageId, body: wire::content::Body) -> wire::Plaintext {
    wire::Plaintext {
        version: u32::from(VERSION),
        suite: SUITE_1,
        body: Some(wire::Content { body: Some(body) }),
        client_message_id: id.to_wire(),
        sent_at_ms: ambient::unix_ms(),
        conversation_id: circle.conversation.id.to_wire(),
        membership: Some(circle.conversation.membership.clone()),
        list_heads: circle.conversation.list_heads.clone(),
        sender_account_id: circle.person.account_id().to_wire(),
        sender_device_id: circle.sender().keys.device_id.to_wire(),
        ..wire::Plaintext::default()
    }
}

/// Signs, pads and encrypts, and makes a fork for every recipient, to its one-time prekey or to the signed one.
///
/// # Errors
/// When a prekey is weak.
pub fn compose(
    rng: &mut StdRng,
    circle: &Circle,
    id: ClientMessageId,
    plaintext: &wire::Plaintext,
    one_time: bool,
) -> Result<wire::SendRequest> {
    let (key, content) = seal_content(rng, plaintext, &circle.sender().keys.signing);
    let context = context(circle, id, Hash::of(&content));
    let mut forks = Vec::with_capacity(circle.conversation.recipients.len());
    for recipient in &circle.conversation.recipients {
        let once = recipient.one_time.as_ref().filter(|_| one_time);
        let header = fork_header(rng, &key, &context, once.unwrap_or(&recipient.signed))?;
        forks.push(wire::Fork { device_id: recipient.device_id.to_wire(), header });
    }
    let named = |head: &wire::ListHead| wire::NamedList { account_id: head.account_id.clone(), n: head.n };
    Ok(wire::SendRequest {
        client_message_id: id.to_wire(),
        conversation_id: circle.conversation.id.to_wire(),
        suite: SUITE_1,
        membership_m: circle.conversation.membership.m,
        lists: circle.conversation.list_heads.iter().map(named).collect(),
        content,
        forks,
        lifetime_seconds: 0,
        group_epoch: None,
    })
}

/// A frame ready for the socket, masked and all.
pub fn framed(reference: u64, frame: client_frame::Frame) -> Bytes {
    let frame = wire::ClientFrame { r#ref: reference, frame: Some(frame) };
    let mut framed = Vec::new();
    frame::put(&mut framed, opcode::BINARY, &frame.encode_to_vec());
    framed.into()
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a message's fork headers are bound to.
#[must_use]
pub fn context(circle: &Circle, client_message_id: ClientMessageId, content_hash: Hash) -> ForkContext {
    ForkContext {
        conversation_id: circle.conversation.id,
        sender_account: circle.person.account_id(),
        sender_device: circle.sender().keys.device_id,
        client_message_id,
        content_hash,
    }
}

/// The text of a message, which receivers can tell without having seen it: who sent it, its number, and filling.
#[must_use]
pub fn text(sender: usize, number: u64, bytes: usize) -> String {
    let mut text = format!("message {number} of sender {sender} ");
    let filling = "the swallow carries and never lands ".chars().cycle();
    text.extend(filling.take(bytes.saturating_sub(text.len())));
    text.truncate(bytes);
    text
}

/// Writes `count` further messages for every sender, on all cores. `meanwhile` runs on this thread until it is done, so that sockets
/// can be served.
///
/// # Errors
/// When a prekey is weak, and what `meanwhile` fails with.
pub fn write_all(
    writers: &mut [Writer],
    circles: &[Circle],
    count: usize,
    text_bytes: usize,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<Vec<Vec<Bytes>>> {
    let progress = Progress::new("encrypting messages", u64::try_from(count * writers.len())?);
    let since = ambient::now();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = writers.len().div_ceil(threads).max(1);
    let frames = thread::scope(|scope| {
        let parts = writers.chunks_mut(share).enumerate();
        let handles: Vec<_> = parts
            .map(|(part, writers)| {
                let progress = progress.clone();
                scope.spawn(move || write_part(part * share, writers, circles, count, text_bytes, &progress))
            })
            .collect();
        while handles.iter().any(|handle| !handle.is_finished()) {
            meanwhile()?;
        }
        let mut frames = Vec::with_capacity(circles.len());
        for handle in handles {
            frames.extend(handle.join().map_err(|_| anyhow!("encrypting failed"))??);
        }
        anyhow::Ok(frames)
    })?;
    progress.done(&format!("done in {:.1} s", since.elapsed().as_secs_f64()));
    Ok(frames)
}

fn write_part(
    first: usize,
    writers: &mut [Writer],
    circles: &[Circle],
    count: usize,
    text_bytes: usize,
    progress: &Progress,
) -> Result<Vec<Vec<Bytes>>> {
    let write_one_s = |(i, writer): (usize, &mut Writer)| {
        let sender = first + i;
        let write = |_| {
            progress.one();
            writer.write(sender, &circles[sender], text_bytes)
        };
        (0..count).map(write).collect()
    };
    writers.iter_mut().enumerate().map(write_one_s).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_differ() {
        assert_eq!(text(7, 3, 100).len(), 100);
        assert_eq!(text(7, 3, 40).len(), 40);
        assert_ne!(text(7, 3, 40), text(7, 4, 40));
        assert_ne!(text(7, 3, 40), text(8, 3, 40));
    }
}
