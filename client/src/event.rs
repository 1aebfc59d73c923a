//! What a device tells its application.

use bytes::Bytes;
use martlet_protocol::{
    id::{AccountId, Blob, ClientMessageId, ConversationId, DeviceId, MessageId},
    wire,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::refused::Refused;

/// A message as it rests in the device's history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredMessage {
    /// 1, 2, 3 … in the order in which this device read them: an application's own cursor.
    pub number: u64,
    /// The same on every device.
    pub message_id: MessageId,
    /// Drawn by the sender.
    pub client_message_id: ClientMessageId,
    /// Where it belongs.
    pub conversation_id: ConversationId,
    /// Who sent it.
    pub sender_account: AccountId,
    /// Which device sent it.
    pub sender_device: DeviceId,
    /// Per sending device and conversation.
    pub counter: u64,
    /// Unix milliseconds, by the sender's clock and signature.
    pub sent_at_ms: u64,
    /// Unix milliseconds, by the node.
    pub accepted_at_ms: u64,
    /// Place in this device's mailbox.
    pub seq: u64,
    /// Bytes that the server saw of it.
    pub content_bytes: u64,
    /// Devices that an own message was encrypted for; 0 for a message of another device.
    #[serde(default)]
    pub forks: u64,
    /// From a device that has been removed: to be shown apart.
    pub apart: bool,
    /// A `Content` (protobuf).
    pub(crate) body: Blob,
}

impl StoredMessage {
    /// What is said.
    #[must_use]
    pub fn content(&self) -> wire::Content {
        // It was read from the schema before it was stored.
        wire::Content::decode(self.body.0.clone()).unwrap_or_default()
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self.content().body? {
            wire::content::Body::Text(text) => Some(text.text),
            _ => None,
        }
    }
}

/// Something that happened. Every event is told after what it tells of is durable.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message was stored: received, or the echo of an own one.
    Message(Box<StoredMessage>),
    /// Somebody has got or read messages; or another device of this account has, of others' messages. Stored in the history, like a
    /// message.
    Receipt {
        /// Its number in the history.
        number: u64,
        /// Where.
        conversation_id: ConversationId,
        /// Who.
        account_id: AccountId,
        /// On which device.
        device_id: DeviceId,
        /// Delivered or read.
        kind: wire::ReceiptKind,
        /// Of which messages: the sending device and the id that it drew.
        messages: Vec<(DeviceId, ClientMessageId)>,
    },
    /// Somebody types, or has stopped. Ephemeral: it may be the last that is heard, so take it for stopped after some seconds.
    Typing {
        /// Where.
        conversation_id: ConversationId,
        /// Who.
        account_id: AccountId,
        /// On which device.
        device_id: DeviceId,
        /// Or stopped.
        started: bool,
    },
    /// A word of one end of a call to the others. Ephemeral.
    CallSignal {
        /// Where.
        conversation_id: ConversationId,
        /// Who.
        account_id: AccountId,
        /// On which device.
        device_id: DeviceId,
        /// Which call, as the application names it.
        call_id: Bytes,
        /// What is said, as the application has it.
        payload: Bytes,
    },
    /// What a device tells about itself. Ephemeral: who tells nothing for some intervals is away.
    Presence {
        /// Where.
        conversation_id: ConversationId,
        /// Who.
        account_id: AccountId,
        /// Which device.
        device_id: DeviceId,
        /// How it is.
        status: wire::PresenceStatus,
        /// Unix milliseconds, by the sender's clock.
        sent_at_ms: u64,
    },
    /// The node accepted an own message.
    Sent {
        /// As `send` returned it.
        client_message_id: ClientMessageId,
        /// The same on every device.
        message_id: MessageId,
        /// Devices whose mailbox was full.
        partial: Vec<DeviceId>,
    },
    /// An own message will not be sent.
    SendFailed {
        /// As `send` returned it.
        client_message_id: ClientMessageId,
        /// For people.
        why: String,
    },
    /// An own message waits until a human has looked at this.
    SendHeld {
        /// As `send` returned it.
        client_message_id: ClientMessageId,
        /// What the server was caught at.
        refused: Refused,
    },
    /// Something was refused on arrival.
    Refused {
        /// What.
        refused: Refused,
        /// Place in the mailbox; 0 for what has none.
        seq: u64,
        /// The device that it is said to come from, if that could be read.
        sender_device: Option<DeviceId>,
    },
    /// The node discarded entries and says why.
    Gap(wire::Gap),
    /// Messages of a device are missing before the one just read.
    Dropped {
        /// Where.
        conversation_id: ConversationId,
        /// Whose.
        sender_device: DeviceId,
        /// How many.
        count: u64,
    },
    /// A message of a device came after a later one of the same device.
    Reordered {
        /// Where.
        conversation_id: ConversationId,
        /// Whose.
        sender_device: DeviceId,
        /// Its number.
        counter: u64,
    },
    /// The hash that a message names as its predecessor is not that of the message before.
    HistoryDiffers {
        /// Where.
        conversation_id: ConversationId,
        /// Whose.
        sender_device: DeviceId,
        /// Its number.
        counter: u64,
    },
    /// An account's devices changed, by a signed list.
    DevicesChanged {
        /// Whose.
        account_id: AccountId,
        /// Devices that joined.
        added: Vec<DeviceId>,
        /// Devices that were removed.
        removed: Vec<DeviceId>,
    },
    /// Devices that get nothing for now: their signed prekey has expired, or the server does not serve them.
    LeftOut {
        /// Which.
        devices: Vec<DeviceId>,
    },
    /// A conversation is new here or its membership changed, by signed links.
    MembershipChanged {
        /// Which.
        conversation_id: ConversationId,
    },
    /// The mailbox's numbering started anew; it is read from its beginning.
    StreamRestarted,
    /// The socket is open.
    Connected {
        /// The name of the node that it is on; for people.
        node_id: String,
    },
    /// Everything that waited has been read.
    CaughtUp,
    /// The socket is gone; it will be opened again.
    Disconnected {
        /// In how many milliseconds.
        retry_in_ms: u64,
        /// For people.
        why: String,
    },
    /// This device was revoked, suspended or signed out. Nothing more will come.
    Ended {
        /// For people.
        why: String,
    },
}
