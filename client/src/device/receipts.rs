//! Receipts: that messages arrived or were read, told to their conversation in small messages that name many of them.
//!
//! What is to be told is noted in the batch that stores its cause, and leaves the notes in the batch that puts the receipt into the
//! outbox. So neither a crash nor a time without a server loses or repeats one. No receipt is ever made for a receipt.

use std::{collections::BTreeMap, time::Duration};

use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId},
    wire::{self, ReceiptKind, content::Body},
};

use super::{Device, contents::is_for_people};
use crate::{
    error::ClientError,
    event::StoredMessage,
    store::{StoreError, Table},
};

/// Whatever is asked for, one receipt names no more: it would not fit a message.
const MOST_PER_MESSAGE: usize = 1000;

/// How receipts are made. An application sets them at each start; they aren't stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptRules {
    /// Tell senders that their messages arrived here. Off unless asked for: it tells when a device is awake.
    pub delivered: bool,
    /// How long the first receipt of a conversation waits for others to share its message with.
    pub delay: Duration,
    /// Messages that one receipt names at most.
    pub max_per_message: usize,
}

impl Default for ReceiptRules {
    fn default() -> Self {
        Self { delivered: false, delay: Duration::from_secs(1), max_per_message: 100 }
    }
}

/// A message as clients name it among each other.
type Named = (DeviceId, ClientMessageId);

/// What is to be told, and since when it waits (Unix milliseconds).
#[derive(Default)]
pub(super) struct PendingReceipts {
    groups: BTreeMap<(ConversationId, ReceiptKind), BTreeMap<Named, u64>>,
}

impl PendingReceipts {
    fn insert(&mut self, conversation: ConversationId, kind: ReceiptKind, named: Named, at_ms: u64) -> bool {
        self.groups.entry((conversation, kind)).or_default().insert(named, at_ms).is_none()
    }

    fn remove(&mut self, conversation: ConversationId, kind: ReceiptKind, named: &Named) -> bool {
        let Some(group) = self.groups.get_mut(&(conversation, kind)) else { return false };
        let was_there = group.remove(named).is_some();
        if group.is_empty() {
            self.groups.remove(&(conversation, kind));
        }
        was_there
    }
}

impl Device {
    /// Sets how receipts are made from now on.
    pub fn set_receipt_rules(&mut self, rules: ReceiptRules) {
        let max_per_message = rules.max_per_message.clamp(1, MOST_PER_MESSAGE);
        self.receipt_rules = ReceiptRules { max_per_message, ..rules };
    }

    /// Notes, durably, that people have read these messages. Own ones and receipts among them are passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_read(&mut self, messages: &[StoredMessage]) -> Result<(), StoreError> {
        for message in messages {
            if !self.deserves_receipt(message) {
                continue;
            }
            let named = (message.sender_device, message.client_message_id);
            // What was read has arrived; nobody needs to be told both.
            if self.receipts.remove(message.conversation_id, ReceiptKind::Delivered, &named) {
                let name = receipt_name(&message.conversation_id, ReceiptKind::Delivered, &named);
                self.batch.delete(Table::Receipt, &name);
            }
            self.note_receipt(ReceiptKind::Read, message);
        }
        self.commit()
    }

    /// Notes that a message has arrived, in the batch that stores it.
    pub(super) fn note_delivered(&mut self, message: &StoredMessage) {
        if self.receipt_rules.delivered && self.deserves_receipt(message) {
            self.note_receipt(ReceiptKind::Delivered, message);
        }
    }

    fn note_receipt(&mut self, kind: ReceiptKind, message: &StoredMessage) {
        let named = (message.sender_device, message.client_message_id);
        let at_ms = self.now_ms();
        if self.receipts.insert(message.conversation_id, kind, named, at_ms) {
            self.batch.put(Table::Receipt, &receipt_name(&message.conversation_id, kind, &named), &at_ms);
        }
    }

    fn deserves_receipt(&self, message: &StoredMessage) -> bool {
        let content = message.content();
        let is_others = message.sender_account != self.keys.account_id && !message.apart;
        is_others && is_for_people(&content) && !is_receipt(&content)
    }

    /// When the next receipt should be made, in Unix milliseconds; none if nothing waits.
    #[must_use]
    pub fn receipts_due_at_ms(&self) -> Option<u64> {
        self.receipts.groups.values().filter_map(|group| self.group_due_at_ms(group)).min()
    }

    fn group_due_at_ms(&self, group: &BTreeMap<Named, u64>) -> Option<u64> {
        if group.len() >= self.receipt_rules.max_per_message {
            return Some(0);
        }
        let delay_ms = u64::try_from(self.receipt_rules.delay.as_millis()).unwrap_or(u64::MAX);
        group.values().min().map(|first_ms| first_ms.saturating_add(delay_ms))
    }

    /// Puts the receipts that are due into the outbox, or with `early` all that wait. Returns how many messages that made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_receipts(&mut self, early: bool) -> Result<usize, StoreError> {
        let now_ms = self.now_ms();
        let is_due = |group| early || self.group_due_at_ms(group).is_some_and(|due_ms| due_ms <= now_ms);
        let due: Vec<_> = self.receipts.groups.iter().filter(|(_, group)| is_due(group)).map(|(key, _)| *key).collect();
        let mut made = 0;
        for (conversation_id, kind) in due {
            let Some(group) = self.receipts.groups.remove(&(conversation_id, kind)) else { continue };
            let named: Vec<Named> = group.into_keys().collect();
            for named in &named {
                self.batch.delete(Table::Receipt, &receipt_name(&conversation_id, kind, named));
            }
            // Whoever left a conversation owes it nothing.
            if self.trust.conversation(&conversation_id).is_none_or(|known| known.gone) {
                continue;
            }
            for part in named.chunks(self.receipt_rules.max_per_message) {
                self.put_outgoing(conversation_id, &content(kind, part), 0);
                made += 1;
            }
        }
        self.commit()?;
        Ok(made)
    }

    /// Reads the notes back from the store.
    pub(super) fn load_receipts(&mut self) -> Result<(), StoreError> {
        for (name, at_ms) in self.store.all::<u64>(Table::Receipt)? {
            let (conversation, kind, named) = parse_name(&name).ok_or(StoreError::Unreadable(Table::Receipt))?;
            self.receipts.insert(conversation, kind, named, at_ms);
        }
        Ok(())
    }
}

pub(super) fn is_receipt(content: &wire::Content) -> bool {
    matches!(content.body, Some(Body::Receipt(_)))
}

/// Refuses a content that no application should put into the outbox.
pub(super) fn check_storable(content: &wire::Content) -> Result<(), ClientError> {
    if super::ephemeral::is_ephemeral(content) {
        return Err(ClientError::NotAllowed("typing, presence and call signals are never stored".into()));
    }
    Ok(())
}

fn content(kind: ReceiptKind, messages: &[Named]) -> wire::Content {
    let messages = messages
        .iter()
        .map(|(device, id)| wire::MessageRef { sender_device_id: device.to_wire(), client_message_id: id.to_wire() })
        .collect();
    wire::Content { body: Some(Body::Receipt(wire::Receipt { kind: kind.into(), messages })) }
}

fn receipt_name(conversation: &ConversationId, kind: ReceiptKind, (device, id): &Named) -> Vec<u8> {
    [conversation.as_bytes().as_slice(), &[kind as u8], device.as_bytes(), id.as_bytes()].concat()
}

fn parse_name(name: &[u8]) -> Option<(ConversationId, ReceiptKind, Named)> {
    let (conversation, rest) = name.split_at_checked(ConversationId::LEN)?;
    let (kind, rest) = rest.split_first()?;
    let (device, id) = rest.split_at_checked(DeviceId::LEN)?;
    let kind = ReceiptKind::try_from(i32::from(*kind)).ok()?;
    Some((conversation.try_into().ok()?, kind, (device.try_into().ok()?, id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(conversation: [u8; 32], device: [u8; 16], id: [u8; 16], read: bool) {
            let kind = if read { ReceiptKind::Read } else { ReceiptKind::Delivered };
            let (conversation, named) =
                (ConversationId::new(conversation), (DeviceId::new(device), ClientMessageId::new(id)));
            let name = receipt_name(&conversation, kind, &named);
            prop_assert_eq!(parse_name(&name), Some((conversation, kind, named)));
            prop_assert_eq!(parse_name(&name[1..]), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_name(&bytes);
        }
    }
}
