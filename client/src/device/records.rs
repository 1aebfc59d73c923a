//! The records that a device keeps, and the small indexes over them.

use std::collections::HashMap;

use martlet_protocol::{
    id::{AccountId, Blob, ClientMessageId, ConversationId, DeviceId, Hash, MessageId},
    rest::ListHead,
    wire,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{ambient::DAY_MS, secret::Secret};

/// What was stored before is remembered for longer than any mailbox keeps an entry (30 days).
const REMEMBERED_MS: u64 = 45 * DAY_MS;

/// Names of the records of `Table::Device`.
pub(super) const IDENTITY: &[u8] = b"identity";
pub(super) const SESSION: &[u8] = b"session";
pub(super) const PLACES: &[u8] = b"places";
pub(super) const SHOWN: &[u8] = b"shown";

/// Who this device is. Written once.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct IdentityRecord {
    pub account_id: AccountId,
    pub device_id: DeviceId,
    pub signing: Secret,
    pub mailbox: Secret,
    pub username: String,
    pub server: String,
}

/// How this device shows itself to the server.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Empty until the server has answered the first time.
    pub token: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// How far this device is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Of the mailbox; 0: never connected.
    pub epoch: u64,
    /// The last mailbox entry that is dealt with.
    pub seq: u64,
    /// The last number in the history.
    pub message: u64,
    /// The last number in the outbox.
    pub outbox: u64,
    /// The highest prekey id ever given out.
    pub prekey_id: u32,
}

/// The last message of a device in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Its number.
    pub counter: u64,
    /// The hash of its content.
    pub hash: Hash,
}

/// An own message on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Outgoing {
    /// Where it belongs.
    pub conversation_id: ConversationId,
    /// Drawn when it was handed over; never changes.
    pub client_message_id: ClientMessageId,
    /// A `Content` (protobuf).
    pub body: Blob,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// 0: as long as mailboxes keep it.
    pub lifetime_seconds: u32,
    /// How far it is.
    pub state: OutgoingState,
    /// How often it was encrypted anew because the server had other lists.
    pub rebuilt: u32,
}

impl Outgoing {
    /// What is said.
    #[must_use]
    pub fn content(&self) -> wire::Content {
        // It was written from the schema.
        wire::Content::decode(self.body.0.clone()).unwrap_or_default()
    }
}

/// How far an own message is.
#[derive(Clone, Serialize, Deserialize)]
pub enum OutgoingState {
    /// Not encrypted yet.
    Waiting,
    /// Encrypted and stored; sent, unchanged, until the server answers.
    Composed(Box<ComposedRecord>),
    /// Accepted; the echo is still to come, which gives its place among the others.
    Accepted(Box<AcceptedRecord>),
}

/// The exact message to send.
#[derive(Clone, Serialize, Deserialize)]
pub struct ComposedRecord {
    /// A `SendRequest` (protobuf).
    pub request: Blob,
    /// SHA-256 of the content.
    pub content_hash: Hash,
    /// Bytes of the content.
    pub content_bytes: u64,
    /// Devices that it is encrypted for.
    #[serde(default)]
    pub forks: u64,
    /// Its number.
    pub counter: u64,
    /// The lists that it names.
    pub heads: Vec<ListHead>,
    /// The membership that it names.
    pub membership_m: u64,
}

/// What is left to know of a message when it is accepted.
#[derive(Clone, Serialize, Deserialize)]
pub struct AcceptedRecord {
    /// The same on every device.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// SHA-256 of the content.
    pub content_hash: Hash,
    /// Bytes of the content.
    pub content_bytes: u64,
    /// Devices that it was encrypted for.
    #[serde(default)]
    pub forks: u64,
    /// Its number.
    pub counter: u64,
}

/// An own message, kept to answer resend requests.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SentRecord {
    pub conversation_id: ConversationId,
    pub body: Blob,
    pub sent_at_ms: u64,
    /// Who was meant to read it; nobody else gets it later.
    pub members: Vec<AccountId>,
}

/// A message that was stored before.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct SeenRecord {
    pub conversation_id: ConversationId,
    pub sender_device: DeviceId,
    pub client_message_id: ClientMessageId,
    pub content_hash: Hash,
    pub at_ms: u64,
}

impl SeenRecord {
    pub(super) fn is_forgettable(&self, now_ms: u64) -> bool {
        self.at_ms.saturating_add(REMEMBERED_MS) < now_ms
    }
}

/// What was stored before, by each of the ways in which it could come again.
#[derive(Default)]
pub(super) struct Seen {
    by_message: HashMap<MessageId, SeenRecord>,
    by_content: HashMap<Hash, MessageId>,
    by_sender: HashMap<(DeviceId, ClientMessageId), MessageId>,
}

impl Seen {
    pub(super) fn insert(&mut self, message_id: MessageId, record: SeenRecord) {
        self.by_content.insert(record.content_hash, message_id);
        self.by_sender.insert((record.sender_device, record.client_message_id), message_id);
        self.by_message.insert(message_id, record);
    }

    pub(super) fn message(&self, message_id: &MessageId) -> bool {
        self.by_message.contains_key(message_id)
    }

    pub(super) fn content(&self, hash: &Hash) -> Option<&SeenRecord> {
        self.by_message.get(self.by_content.get(hash)?)
    }

    pub(super) fn by_sender(&self, device: DeviceId, message: ClientMessageId) -> Option<&SeenRecord> {
        self.by_message.get(self.by_sender.get(&(device, message))?)
    }
}

/// The name of a counter's record.
pub(super) fn counter_name(conversation_id: &ConversationId, device_id: &DeviceId) -> Vec<u8> {
    [conversation_id.as_bytes().as_slice(), device_id.as_bytes()].concat()
}

/// The name of a prekey's record.
pub(super) fn prekey_name(kind: martlet_protocol::rest::PrekeyKind, key_id: u32) -> Vec<u8> {
    let kind = martlet_protocol::wire::PrekeyKind::from(kind) as u8;
    [&[kind], key_id.to_be_bytes().as_slice()].concat()
}
