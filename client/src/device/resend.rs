//! "I could not open this": asking a sender for a message again, and answering who may have it.
//!
//! A request is an ordinary signed message, so a forged one fails like any. It is answered by a new message to the conversation's
//! listed devices, and only if everybody in it now was meant to read the original. Both directions are limited in rate.

use martlet_protocol::{
    id::{ClientMessageId, MessageId},
    suite1::ForkContext,
    wire::{self, content::Body},
};

use super::{
    Device,
    contents::{read_ref, refused_event},
    records::{SeenRecord, SentRecord},
};
use crate::{ambient::DAY_MS, event::Event, refused::Refused, store::Table};

const HOUR_MS: u64 = 60 * 60 * 1000;
/// Requests in either direction within an hour, so that a broken or hostile peer can't make two devices talk for ever.
const MAX_PER_HOUR: usize = 20;

impl Device {
    /// Asks for a message that did not open, if asking can help and its sender is a listed device.
    pub(super) fn ask_again(&mut self, refused: Refused, context: &ForkContext) {
        let cause = match refused {
            Refused::PrekeyUsedUp => "prekey_used_up",
            Refused::PrekeyUnknown => "prekey_unknown",
            Refused::ForkNotForThisDevice => "header_refused",
            Refused::ContentCommitmentBroken => "commitment_broken",
            Refused::ContentAltered => "content_altered",
            _ => return,
        };
        let is_listed = self
            .trust
            .account(&context.sender_account)
            .is_some_and(|account| account.chain().device(&context.sender_device).is_some());
        let is_open = self.trust.conversation(&context.conversation_id).is_some_and(|known| !known.gone);
        let is_missing = self.seen.by_sender(context.sender_device, context.client_message_id).is_none();
        if !(is_listed && is_open && is_missing) || context.sender_device == self.keys.device_id {
            return;
        }
        let name =
            [b"asked".as_slice(), context.sender_device.as_bytes(), context.client_message_id.as_bytes()].concat();
        if self.may_resend(name, DAY_MS) {
            let target = wire::MessageRef {
                sender_device_id: context.sender_device.to_wire(),
                client_message_id: context.client_message_id.to_wire(),
            };
            let request = wire::ResendRequest { target: Some(target), cause: cause.to_owned() };
            let body = wire::Content { body: Some(Body::ResendRequest(request)) };
            self.put_outgoing(context.conversation_id, &body, 0);
        }
    }

    /// Answers a request for an own message; requests for others' are theirs to answer.
    pub(super) fn answer_resend(
        &mut self,
        seq: u64,
        context: &ForkContext,
        request: &wire::ResendRequest,
    ) -> Vec<Event> {
        let Some((sender, original)) = request.target.as_ref().and_then(read_ref) else { return Vec::new() };
        if sender != self.keys.device_id {
            return Vec::new();
        }
        let Ok(Some(sent)) = self.store.get::<SentRecord>(Table::Sent, original.as_bytes()) else { return Vec::new() };
        if !self.may_have(context, &sent) {
            return vec![refused_event(Refused::ResendNotAllowed, seq, context)];
        }
        let name = [b"answered".as_slice(), context.sender_device.as_bytes(), original.as_bytes()].concat();
        if self.may_resend(name, DAY_MS) {
            let resent = wire::Resent {
                original: request.target.clone(),
                sent_at_ms: sent.sent_at_ms,
                content: sent.body.0.clone(),
            };
            let body = wire::Content { body: Some(Body::Resent(resent)) };
            self.put_outgoing(sent.conversation_id, &body, 0);
        }
        Vec::new()
    }

    /// The asker was a member of the same conversation then, and so was everybody who would get the answer.
    fn may_have(&self, context: &ForkContext, sent: &SentRecord) -> bool {
        let Some(conversation) = self.trust.conversation(&sent.conversation_id) else { return false };
        sent.conversation_id == context.conversation_id
            && sent.members.contains(&context.sender_account)
            && conversation.head().members.keys().all(|member| sent.members.contains(member))
    }

    /// Notes a resend by name, unless it was done within `again_ms` or too many were within the hour.
    pub(super) fn may_resend(&mut self, name: Vec<u8>, again_ms: u64) -> bool {
        let now_ms = self.now_ms();
        let done_lately = self.resends.get(&name).is_some_and(|at| at.saturating_add(again_ms) > now_ms);
        let within_hour = self.resends.values().filter(|at| at.saturating_add(HOUR_MS) > now_ms).count();
        if done_lately || within_hour >= MAX_PER_HOUR {
            return false;
        }
        self.batch.put(Table::Resend, &name, &now_ms);
        self.resends.insert(name, now_ms);
        true
    }

    /// Remembers that a message came by way of an answer, so that its original is passed over if it still comes.
    pub(super) fn mark_resent(&mut self, context: &ForkContext, message_id: MessageId, original: ClientMessageId) {
        // Under a name of its own: the answer itself is remembered under its message id already.
        let mut name = *message_id.as_bytes();
        name.iter_mut().zip(original.as_bytes()).for_each(|(byte, other)| *byte ^= other);
        let record = SeenRecord {
            conversation_id: context.conversation_id,
            sender_device: context.sender_device,
            client_message_id: original,
            content_hash: martlet_protocol::id::Hash::of(&name),
            at_ms: self.now_ms(),
        };
        self.batch.put(Table::Seen, &name, &record);
        self.seen.insert(MessageId::new(name), record);
    }
}
