//! Ephemeral messages: typing, presence and call signals. Composed and judged like any message, kept by nobody.
//!
//! They stand outside the order of stored messages (no counter, no predecessor), so a replay is told by other means: by what the sender
//! signed about their time, and by their ids for as long as that time lasts. They are sealed to signed prekeys only: a one-time key
//! ends with the message that is stored.

use std::collections::{BTreeSet, HashMap};

use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId},
    rest::{Mismatch, PrekeyKind},
    suite1::{ForkContext, Header, MAX_EPHEMERAL_LIFETIME_MS, MessageKind},
    wire::{self, content::Body},
};

use super::{Device, MismatchError, PrepareError, SendHalt};
use crate::{
    compose::{Draft, compose},
    error::ClientError,
    event::Event,
    judge::judge,
    open::{Envelope, open_entry},
    refused::Refused,
    trust::{Halt, Need},
};

/// What a sender signs as the life of its ephemeral messages.
const LIFETIME_MS: u64 = 10_000;
/// How far another device's clock may be from this one's.
const CLOCK_SKEW_MS: u64 = 120_000;
/// Ids that are remembered of one sending device. Past them, what is older than the oldest of them is no longer believed.
const MAX_REMEMBERED: usize = 256;

/// Whether a content is only ever sent ephemerally.
pub(super) fn is_ephemeral(content: &wire::Content) -> bool {
    matches!(content.body, Some(Body::Typing(_) | Body::CallSignal(_) | Body::Presence(_)))
}

/// What was heard lately. Lost with the process, after which nothing older than its new start is believed.
#[derive(Default)]
pub(super) struct Heard {
    since_ms: u64,
    by_device: HashMap<DeviceId, HeardOf>,
}

struct HeardOf {
    /// Nothing that was sent before this is believed.
    floor_ms: u64,
    messages: BTreeSet<(u64, ClientMessageId)>,
}

impl Heard {
    /// Begins at a time, in Unix milliseconds.
    pub(super) fn since(since_ms: u64) -> Self {
        Self { since_ms, by_device: HashMap::new() }
    }

    /// Notes a message, unless it was heard before or that can't be told any more.
    fn is_new(&mut self, sender: DeviceId, sent_at_ms: u64, id: ClientMessageId, now_ms: u64) -> bool {
        let floor_ms = self.since_ms;
        let heard = self.by_device.entry(sender).or_insert_with(|| HeardOf { floor_ms, messages: BTreeSet::new() });
        if sent_at_ms < heard.floor_ms || heard.messages.iter().any(|(_, known)| *known == id) {
            return false;
        }
        // What is older than this is refused for its age alone.
        let oldest_ms = now_ms.saturating_sub(MAX_EPHEMERAL_LIFETIME_MS + CLOCK_SKEW_MS);
        heard.messages = heard.messages.split_off(&(oldest_ms, ClientMessageId::new([0; 16])));
        heard.messages.insert((sent_at_ms, id));
        if heard.messages.len() > MAX_REMEMBERED
            && let Some((forgotten_ms, _)) = heard.messages.pop_first()
        {
            heard.floor_ms = forgotten_ms + 1;
        }
        true
    }
}

impl Device {
    /// Encrypts an ephemeral message for everybody in a conversation. Nothing of it is stored, and every call makes a new one.
    ///
    /// # Errors
    /// [`PrepareError`] says what to do first; [`ClientError::NotAllowed`] for a content that has to be stored.
    pub fn compose_ephemeral(
        &mut self,
        conversation_id: ConversationId,
        body: &wire::Content,
    ) -> Result<wire::SendRequest, PrepareError> {
        if !is_ephemeral(body) {
            let why = "only typing, presence and call signals are sent without being stored";
            return Err(ClientError::NotAllowed(why.into()).into());
        }
        let audience = self.audience(conversation_id, None)?;
        let now_ms = self.now_ms();
        let draft = Draft {
            conversation_id,
            membership: audience.membership,
            list_heads: &audience.heads,
            client_message_id: ClientMessageId::random(&mut self.rng),
            sent_at_ms: now_ms,
            counter: 0,
            previous: None,
            body,
            // The node's own bound, which may be shorter than what is signed.
            lifetime_seconds: 0,
            ephemeral_until_ms: now_ms + LIFETIME_MS,
        };
        let composed = compose(&self.keys, &draft, &audience.recipients, &mut self.rng)
            .map_err(|_| SendHalt::Refused(Refused::PrekeyNotVouchedFor))?;
        Ok(composed.request)
    }

    /// Follows a mismatch answer to an ephemeral message, which is then to be composed anew.
    ///
    /// # Errors
    /// As [`Self::on_mismatch`].
    pub fn on_ephemeral_mismatch(
        &mut self,
        conversation_id: ConversationId,
        mismatch: &Mismatch,
    ) -> Result<Vec<Event>, MismatchError> {
        let events = self.absorb_mismatch(&conversation_id, mismatch)?;
        self.commit().map_err(ClientError::from)?;
        Ok(events)
    }

    /// Deals with an ephemeral message: tells it, or drops it if it is late or came before. Changes nothing durable.
    ///
    /// # Errors
    /// [`Need`]: fetch that and call this again.
    pub fn receive_ephemeral(&mut self, ephemeral: &wire::Ephemeral) -> Result<Vec<Event>, Need> {
        let (entry_id, sealed) = (ephemeral.entry_id.clone(), ephemeral.sealed.clone());
        let entry = wire::MailboxEntry { seq: 0, entry_id, sealed, content: ephemeral.content.clone() };
        let refused = |refused, sender_device| Ok(vec![Event::Refused { refused, seq: 0, sender_device }]);
        let envelope = match open_entry(&mut self.opener, &self.keys, &entry) {
            Ok(envelope) => envelope,
            Err(error) => return refused(error, None),
        };
        match self.hear(&envelope) {
            Ok(event) => Ok(event.into_iter().collect()),
            Err(Halt::Need(need)) => Err(need),
            Err(Halt::Refused(error)) => refused(error, Some(envelope.context.sender_device)),
        }
    }

    fn hear(&mut self, envelope: &Envelope) -> Result<Option<Event>, Halt> {
        let context = &envelope.context;
        let header = match &envelope.header {
            Header::Fork(header) if header.kind == PrekeyKind::Signed => header,
            // No honest node sends an echo here, and no honest device seals to a one-time key.
            Header::Fork(_) | Header::Echo => return Err(Refused::EphemeralConfused.into()),
        };
        let opened = self.open_own_fork(header, envelope)?;
        let verdict = judge(&self.trust, &self.keys, context, &opened)?;
        let MessageKind::Ephemeral { until_ms } = verdict.kind else {
            return Err(Refused::EphemeralConfused.into());
        };
        let event = match &verdict.body.body {
            Some(body) => event(context, body, verdict.sent_at_ms).ok_or(Refused::EphemeralConfused)?,
            // Of a newer version: nothing that this one has to know.
            None => return Ok(None),
        };
        let now_ms = self.now_ms();
        let is_late = until_ms.saturating_add(CLOCK_SKEW_MS) < now_ms;
        let is_early = now_ms.saturating_add(CLOCK_SKEW_MS) < verdict.sent_at_ms;
        if verdict.from_removed_device || is_late || is_early {
            return Ok(None);
        }
        let (sender, id) = (context.sender_device, context.client_message_id);
        Ok(self.heard.is_new(sender, verdict.sent_at_ms, id, now_ms).then_some(event))
    }
}

/// What the application is told; none for a body that has to be stored.
fn event(context: &ForkContext, body: &Body, sent_at_ms: u64) -> Option<Event> {
    let (conversation_id, account_id, device_id) =
        (context.conversation_id, context.sender_account, context.sender_device);
    match body {
        Body::Typing(typing) => {
            let started = typing.state() == wire::TypingState::Started;
            Some(Event::Typing { conversation_id, account_id, device_id, started })
        }
        Body::CallSignal(signal) => {
            let (call_id, payload) = (signal.call_id.clone(), signal.payload.clone());
            Some(Event::CallSignal { conversation_id, account_id, device_id, call_id, payload })
        }
        Body::Presence(presence) => {
            let status = presence.status();
            Some(Event::Presence { conversation_id, account_id, device_id, status, sent_at_ms })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId::new([1; 16]);

    fn id(n: u16) -> ClientMessageId {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ClientMessageId::new(bytes)
    }

    #[test]
    fn a_message_is_new_once() {
        let mut heard = Heard::since(1000);
        assert!(heard.is_new(DEVICE, 1000, id(1), 1000));
        assert!(!heard.is_new(DEVICE, 1000, id(1), 1001));
        assert!(!heard.is_new(DEVICE, 1001, id(1), 1001), "under another time neither");
        assert!(heard.is_new(DEVICE, 1000, id(2), 1001), "nor must they come in order");
        assert!(heard.is_new(DeviceId::new([2; 16]), 1000, id(1), 1001), "ids are of their devices");
        assert!(!heard.is_new(DEVICE, 999, id(3), 1001), "what was sent before the start may have been heard then");
    }

    #[test]
    fn a_flood_costs_bounded_memory_and_brings_no_replay() {
        let mut heard = Heard::since(0);
        let count = 4 * MAX_REMEMBERED as u64;
        for n in 0..count {
            assert!(heard.is_new(DEVICE, 10_000 + n, id(n as u16), 20_000));
        }
        assert_eq!(heard.by_device[&DEVICE].messages.len(), MAX_REMEMBERED);
        assert!((0..count).all(|n| !heard.is_new(DEVICE, 10_000 + n, id(n as u16), 20_000)));
        let later_ms = 20_000 + MAX_EPHEMERAL_LIFETIME_MS + 2 * CLOCK_SKEW_MS;
        assert!(heard.is_new(DEVICE, later_ms, id(u16::MAX), later_ms));
        assert_eq!(heard.by_device[&DEVICE].messages.len(), 1, "what is too old by itself is forgotten");
    }
}
