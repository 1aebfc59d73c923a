//! Afterwards: is what every device got what was sent to it, once, in order, and nothing else?
//!
//! Every seal is opened and its message told by its id; of every so many, header, content and signature too, and the text compared with
//! what was sent. At last every device connects again and hears from the node itself that its mailbox holds as much as was accepted
//! and that all of it is acknowledged.

use std::{
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use martlet_protocol::{
    id::{ClientMessageId, EntryId, Hash},
    rest::PrekeyKind,
    seal::MailboxOpener,
    suite1::{ForkContext, ForkHeader, Header, OpenedPlaintext, open_content, open_header, parse_header},
    wire::{self, node_frame},
};
use serde::Serialize;

use super::{
    crowd::Circle,
    ends::Mailbox,
    write::{context, text},
};
use crate::{
    ambient,
    people::Device,
    progress::Progress,
    socket::{Connection, Fleet, Handler},
};

/// How long the node may take to write the last acknowledgements.
const ACKS_WRITTEN_WITHIN: Duration = Duration::from_secs(20);
/// Faults that are told one by one.
const FAULTS_TOLD: usize = 10;

/// What the check found.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// Entries whose seal was opened: all that came, echoes included.
    pub opened: u64,
    /// Of these, forks that were opened whole and compared with what was sent.
    pub decrypted: u64,
    /// Entries that should have come and did not.
    pub lost: u64,
    /// Entries that came and should not have: repeated, out of order, or not what was sent. The first few, in words.
    pub faults: Vec<String>,
    /// How many faults there were.
    pub fault_count: u64,
    /// Mailboxes that by the node's own account are not empty or not as long as they should be.
    pub undrained: usize,
}

impl Verified {
    /// Nothing lost, nothing twice, everything drained.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.fault_count == 0 && self.undrained == 0
    }

    /// One more.
    pub fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(what);
        }
    }

    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.decrypted += other.decrypted;
        self.lost += other.lost;
        self.fault_count += other.fault_count;
        let room = FAULTS_TOLD.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.into_iter().take(room));
    }
}

/// What was sent by one circle's sending device.
pub struct Sent<'a> {
    /// Who.
    pub circle: &'a Circle,
    /// Its messages in order.
    pub ids: &'a [ClientMessageId],
    /// How many of them were accepted.
    pub accepted: u64,
    /// Length of their texts.
    pub text_bytes: usize,
}

impl AsRef<[wire::MailboxEntry]> for Mailbox {
    fn as_ref(&self) -> &[wire::MailboxEntry] {
        &self.entries
    }
}

/// Opens every entry, on all cores. What each device got stands circle by circle.
///
/// # Errors
/// When a thread fails. Faults are part of the result.
pub fn open_all<B>(sent: &[Sent<'_>], boxes: &[B], sample: u64) -> Result<Verified>
where
    B: AsRef<[wire::MailboxEntry]> + Sync,
{
    let entries: usize = boxes.iter().map(|mailbox| mailbox.as_ref().len()).sum();
    let progress = Progress::new("opening what came", u64::try_from(entries)?);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = sent.len().div_ceil(threads).max(1);
    let by_circle = by_circle(sent, boxes);
    let mut verified = Verified::default();
    thread::scope(|scope| {
        let parts = sent.chunks(share).zip(by_circle.chunks(share)).enumerate();
        let handles: Vec<_> = parts
            .map(|(part, (sent, boxes))| {
                let progress = progress.clone();
                scope.spawn(move || {
                    let mut verified = Verified::default();
                    for (i, (sent, boxes)) in sent.iter().zip(boxes).enumerate() {
                        open_circle(part * share + i, sent, boxes, sample, &mut verified, &progress);
                    }
                    verified
                })
            })
            .collect();
        for handle in handles {
            verified.add(handle.join().map_err(|_| anyhow!("opening failed"))?);
        }
        anyhow::Ok(())
    })?;
    progress.done("");
    Ok(verified)
}

/// The boxes of every circle, which stand one after the other.
fn by_circle<'a, B>(sent: &[Sent<'_>], mut boxes: &'a [B]) -> Vec<&'a [B]> {
    let own = |sent: &Sent<'_>| {
        let (own, rest) = boxes.split_at(sent.circle.devices().count().min(boxes.len()));
        boxes = rest;
        own
    };
    sent.iter().map(own).collect()
}

fn open_circle<B: AsRef<[wire::MailboxEntry]>>(
    sender: usize,
    sent: &Sent<'_>,
    boxes: &[B],
    sample: u64,
    verified: &mut Verified,
    progress: &Progress,
) {
    for (place, (device, mailbox)) in sent.circle.devices().zip(boxes).enumerate() {
        let mut opener = MailboxOpener::new(device.keys.mailbox.clone());
        let entries = u64::try_from(mailbox.as_ref().len()).unwrap_or(u64::MAX);
        verified.lost += sent.accepted.saturating_sub(entries);
        if entries > sent.accepted {
            verified.fault(format!(
                "device {place} of circle {sender} got {entries} entries of {} messages",
                sent.accepted
            ));
        }
        for (number, entry) in (1..).zip(mailbox.as_ref()) {
            progress.one();
            verified.opened += 1;
            // The first one is always opened whole: it was sealed to a one-time prekey.
            let whole =
                place > 0 && (number == 1 || (number + u64::try_from(place).unwrap_or(0)).is_multiple_of(sample));
            let outcome = Opening { sender, sent, place, number, whole }.open(&mut opener, entry);
            match outcome {
                Ok(()) => verified.decrypted += u64::from(whole),
                Err(error) => {
                    verified.fault(format!("entry {number} of device {place} of circle {sender}: {error:#}"));
                }
            }
        }
    }
}

/// One entry's check.
struct Opening<'a> {
    sender: usize,
    sent: &'a Sent<'a>,
    /// Of the device in its circle; 0 is the sending one.
    place: usize,
    /// The entry's, and so the message's.
    number: u64,
    whole: bool,
}

impl Opening<'_> {
    fn open(&self, opener: &mut MailboxOpener, entry: &wire::MailboxEntry) -> Result<()> {
        let circle = self.sent.circle;
        let device = circle.devices().nth(self.place).ok_or_else(|| anyhow!("no such device"))?;
        let entry_id = EntryId::try_from(entry.entry_id.as_ref())?;
        let message = opener.open(&device.keys.device_id, &entry_id, &entry.sealed).context("the seal")?;
        let index = usize::try_from(self.number - 1)?;
        let expected = self.sent.ids.get(index).ok_or_else(|| anyhow!("more entries than messages"))?;
        if message.client_message_id != expected.as_bytes().as_slice() {
            let place = self.sent.ids.iter().position(|id| message.client_message_id == id.as_bytes().as_slice());
            match place {
                Some(place) => bail!("it is message {}: repeated or out of order", place + 1),
                None => bail!("it is a message that this sender did not send"),
            }
        }
        ensure!(message.sender_device_id == circle.sender().keys.device_id.to_wire(), "another sender");
        ensure!(message.conversation_id == circle.conversation.id.to_wire(), "another conversation");
        match parse_header(&message.fork_header).context("the header")? {
            Header::Echo => ensure!(self.place == 0, "an echo, but not to the sending device"),
            Header::Fork(_) => ensure!(self.place > 0, "a fork to the sending device"),
        }
        if self.whole { self.open_whole(&message, entry, *expected) } else { Ok(()) }
    }

    fn open_whole(&self, message: &wire::SealedMessage, entry: &wire::MailboxEntry, id: ClientMessageId) -> Result<()> {
        let circle = self.sent.circle;
        let device = circle.devices().nth(self.place).ok_or_else(|| anyhow!("no such device"))?;
        let Header::Fork(header) = parse_header(&message.fork_header)? else { bail!("no fork") };
        let content = if message.content.is_empty() { &entry.content } else { &message.content };
        let context = context(circle, id, Hash::of(content));
        if self.number == 1 {
            ensure!(header.kind == PrekeyKind::OneTime, "the first message was not sealed to a one-time prekey");
        }
        let opened = open_signed(circle, device, &header, &context, content)?;
        ensure!(opened.plaintext.sender_counter == self.number, "another counter");
        let expected = text(self.sender, self.number, self.sent.text_bytes);
        match opened.plaintext.body.and_then(|content| content.body) {
            Some(wire::content::Body::Text(text)) if text.text == expected => Ok(()),
            _ => bail!("another text"),
        }
    }
}

/// What a device finds in the header and content that it got, if all of it is right and the circle's sender has signed it.
pub fn open_signed(
    circle: &Circle,
    device: &Device,
    header: &ForkHeader,
    context: &ForkContext,
    content: &[u8],
) -> Result<OpenedPlaintext> {
    let secret = device.prekeys.secret(header.kind, header.key_id).ok_or_else(|| anyhow!("no such prekey"))?;
    let own = (&device.keys.account_id, &device.keys.device_id);
    let key = open_header(header, &secret, context, own.0, own.1).context("the header")?;
    let opened = open_content(&key, content).context("the content")?;
    opened.check_envelope(context)?;
    opened.verify(&circle.sender().keys.signing.public()).context("the signature")?;
    Ok(opened)
}

/// Connects every device again and compares what the node says of its mailbox; tells how many are not as they should be.
///
/// # Errors
/// When the devices can't connect.
pub fn undrained(url: &str, sent: &[Sent<'_>]) -> Result<usize> {
    let tokens: Vec<&str> =
        sent.iter().flat_map(|sent| sent.circle.devices()).map(|device| device.token.as_str()).collect();
    let expected: Vec<u64> =
        sent.iter().flat_map(|sent| sent.circle.devices().map(|_| sent.accepted).collect::<Vec<_>>()).collect();
    let since = ambient::now();
    loop {
        let mut fleet = Fleet::new(url)?;
        let mut heads = Heads { states: vec![None; tokens.len()], unexpected: 0 };
        fleet.open_all(tokens.iter().copied(), 128, &mut heads, |_| {})?;
        let is_right = |(state, expected): (&Option<(u64, u64)>, &u64)| *state == Some((*expected, *expected));
        let wrong = heads.states.iter().zip(&expected).filter(|pair| !is_right(*pair)).count() + heads.unexpected;
        if wrong == 0 || since.elapsed() > ACKS_WRITTEN_WITHIN {
            return Ok(wrong);
        }
        drop(fleet);
        // Acknowledgements are written in batches; the last ones may be on their way.
        ambient::rest(Duration::from_millis(300));
    }
}

/// Head and acknowledged `seq` as each device's hello has them.
struct Heads {
    states: Vec<Option<(u64, u64)>>,
    unexpected: usize,
}

impl Handler for Heads {
    fn live(&mut self, index: usize, hello: &wire::Hello, _: &mut Connection) {
        self.states[index] = hello.mailbox.as_ref().map(|state| (state.head_seq, state.acked_seq));
    }

    fn frame(&mut self, _: usize, frame: node_frame::Frame, _: u64, _: Instant, _: &mut Connection) {
        // Anything but a notice to come back later means that the mailbox was not empty.
        self.unexpected += usize::from(!matches!(frame, node_frame::Frame::Draining(_)));
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, _: &str) {}
}
