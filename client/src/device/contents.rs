//! What a message's content makes a device do: most are kept for people, some are for the device itself.

use martlet_protocol::{
    id::{AccountId, ClientMessageId, DeviceId},
    rest::{SignedDeviceList, SignedMembershipLink},
    suite1::ForkContext,
    wire::{self, content::Body},
};

use super::{Device, ephemeral::is_ephemeral, receipts::is_receipt};
use crate::{
    event::{Event, StoredMessage},
    judge::Verdict,
    refused::Refused,
};

/// Whether a content belongs in the history that people read.
pub(super) fn is_for_people(content: &wire::Content) -> bool {
    let for_devices =
        matches!(content.body, None | Some(Body::ChainLinks(_) | Body::ResendRequest(_) | Body::Resent(_)));
    !for_devices && !is_ephemeral(content)
}

impl Device {
    /// Acts on a message that holds up. A removed device's messages are kept apart, and nothing is done for them.
    pub(super) fn act(&mut self, context: &ForkContext, verdict: &Verdict, message: StoredMessage) -> Vec<Event> {
        let seq = message.seq;
        if verdict.from_removed_device {
            let is_kept = is_for_people(&verdict.body) && !is_receipt(&verdict.body);
            return if is_kept { vec![self.remember(message)] } else { Vec::new() };
        }
        self.note_delivered(&message);
        self.tell_what_sender_lacks(context, verdict);
        match &verdict.body.body {
            None => Vec::new(),
            Some(Body::ChainLinks(links)) => self.take_links(seq, context, links),
            Some(Body::ResendRequest(request)) => self.answer_resend(seq, context, request),
            Some(Body::Resent(resent)) => self.take_resent(context, resent, message),
            Some(Body::ConversationInfo(info)) => {
                if let Some(conversation) = self.trust.conversation_mut(&context.conversation_id) {
                    conversation.title = Some(info.title.clone());
                    self.put_conversation(&context.conversation_id);
                }
                vec![self.remember(message)]
            }
            Some(_) => vec![self.remember(message)],
        }
    }

    /// Chains that another device noticed this one lacks: taken like the server's, since they are signed all the same.
    fn take_links(&mut self, seq: u64, context: &ForkContext, links: &wire::ChainLinks) -> Vec<Event> {
        let mut events = Vec::new();
        for lists in &links.lists {
            let Ok(account_id) = AccountId::try_from(lists.account_id.as_ref()) else { continue };
            // Only of accounts that are known: links are no introduction.
            if self.trust.account(&account_id).is_none() {
                continue;
            }
            let read: Result<Vec<SignedDeviceList>, _> = lists.lists.iter().map(TryInto::try_into).collect();
            let Ok(read) = read else { continue };
            match self.absorb_lists(&account_id, &read) {
                Ok(change) => events.extend(super::claims::devices_changed(account_id, change)),
                Err(refused) => events.push(refused_event(refused, seq, context)),
            }
        }
        let read: Result<Vec<SignedMembershipLink>, _> = links.membership.iter().map(TryInto::try_into).collect();
        if let Ok(read) = read
            && matches!(self.absorb_membership(&context.conversation_id, &read), Ok(new) if new > 0)
        {
            events.push(Event::MembershipChanged { conversation_id: context.conversation_id });
        }
        events
    }

    /// A sender that does not know the newest lists is told them: the server may be keeping them from it.
    fn tell_what_sender_lacks(&mut self, context: &ForkContext, verdict: &Verdict) {
        let lists: Vec<wire::AccountLists> = verdict
            .sender_lacks
            .iter()
            .filter(|(account_id, _)| self.is_overdue(account_id, verdict.sent_at_ms))
            .filter_map(|(account_id, known_n)| {
                let lists = self.trust.account(account_id)?.lists().get(usize::try_from(*known_n).ok()?..)?;
                Some(wire::AccountLists {
                    account_id: account_id.to_wire(),
                    lists: lists.iter().map(Into::into).collect(),
                })
            })
            .collect();
        if lists.is_empty() {
            return;
        }
        let name = [b"lacks".as_slice(), context.sender_device.as_bytes()].concat();
        if self.may_resend(name, crate::ambient::DAY_MS) {
            let links = wire::ChainLinks { lists, membership: Vec::new() };
            let body = wire::Content { body: Some(Body::ChainLinks(links)) };
            self.put_outgoing(context.conversation_id, &body, 0);
        }
    }

    /// A list that is newer than the message is no reproach: only one that was there a while before.
    fn is_overdue(&self, account_id: &AccountId, sent_at_ms: u64) -> bool {
        const PATIENCE_MS: u64 = 10 * 60 * 1000;
        let Some(account) = self.trust.account(account_id) else { return false };
        account.chain().list().created_at_ms.saturating_add(PATIENCE_MS) < sent_at_ms
    }

    /// The answer to a resend request: kept as the original, if that never came.
    fn take_resent(&mut self, context: &ForkContext, resent: &wire::Resent, message: StoredMessage) -> Vec<Event> {
        let Some((sender, original)) = resent.original.as_ref().and_then(read_ref) else { return Vec::new() };
        if sender != context.sender_device || self.seen.by_sender(sender, original).is_some() {
            return Vec::new();
        }
        let Ok(content) = <wire::Content as prost::Message>::decode(resent.content.clone()) else { return Vec::new() };
        if !is_for_people(&content) {
            return Vec::new();
        }
        self.mark_resent(context, message.message_id, original);
        let original = StoredMessage {
            client_message_id: original,
            sent_at_ms: resent.sent_at_ms,
            body: resent.content.clone().into(),
            ..message
        };
        self.note_delivered(&original);
        vec![self.remember(original)]
    }
}

pub(super) fn refused_event(refused: Refused, seq: u64, context: &ForkContext) -> Event {
    Event::Refused { refused, seq, sender_device: Some(context.sender_device) }
}

/// Reads how clients name messages among each other.
pub(super) fn read_ref(message: &wire::MessageRef) -> Option<(DeviceId, ClientMessageId)> {
    let device = DeviceId::try_from(message.sender_device_id.as_ref()).ok()?;
    let id = ClientMessageId::try_from(message.client_message_id.as_ref()).ok()?;
    Some((device, id))
}
