//! Contents and fork headers that say what they are, so that a receiver can tell what it was given from what it should have been.

use bytes::Bytes;
use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId, EntryId, Hash, MessageId},
    rest, wire,
};

use super::{Circle, Device};

/// Length of a suite 1 header.
const HEADER_LEN: usize = 85;
/// Marks a header as for a signed prekey; 0 would be an echo.
const SIGNED_PREKEY: u8 = 1;

/// A message on its way: kept unchanged through every retry.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The request, for the socket.
    pub request: wire::SendRequest,
    /// Drawn by the device.
    pub client_message_id: ClientMessageId,
    /// Where to.
    pub conversation_id: ConversationId,
}

impl Outgoing {
    /// Addresses a content to every device of a circle but its own.
    #[must_use]
    pub fn new(circle: &Circle, sender: &Device, client_message_id: ClientMessageId, content: Bytes) -> Self {
        let forks = circle
            .devices()
            .filter(|device| *device != sender.device_id)
            .map(|device| wire::Fork { device_id: device.to_wire(), header: header(&client_message_id, &device) })
            .collect();
        let request = wire::SendRequest {
            client_message_id: client_message_id.to_wire(),
            conversation_id: circle.conversation_id.to_wire(),
            suite: martlet_protocol::crypto::SUITE_1,
            membership_m: circle.membership_m,
            lists: circle
                .members
                .iter()
                .map(|head| wire::NamedList { account_id: head.account_id.to_wire(), n: head.n })
                .collect(),
            content,
            forks,
            lifetime_seconds: 0,
            group_epoch: None,
        };
        Self { request, client_message_id, conversation_id: circle.conversation_id }
    }

    /// The same request as a REST body.
    ///
    /// # Errors
    /// Never for what [`Self::new`] made.
    pub fn body(&self) -> anyhow::Result<rest::SendRequest> {
        Ok(rest::SendRequest {
            client_message_id: self.client_message_id,
            suite: self.request.suite,
            membership_m: self.request.membership_m,
            lists: self
                .request
                .lists
                .iter()
                .map(|list| Ok(rest::NamedList { account_id: list.account_id.as_ref().try_into()?, n: list.n }))
                .collect::<anyhow::Result<_>>()?,
            content: self.request.content.clone().into(),
            forks: self
                .request
                .forks
                .iter()
                .map(|fork| {
                    Ok(rest::Fork {
                        device_id: fork.device_id.as_ref().try_into()?,
                        header: fork.header.clone().into(),
                    })
                })
                .collect::<anyhow::Result<_>>()?,
            lifetime_seconds: self.request.lifetime_seconds,
            group_epoch: None,
        })
    }

    /// Where to post it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/v1/conversations/{}/messages", self.conversation_id.to_text())
    }
}

/// The header that a device must get with a message. Any other is a mix-up of the node's.
#[must_use]
pub fn header(client_message_id: &ClientMessageId, device: &DeviceId) -> Bytes {
    let seed = Hash::of(&[client_message_id.as_bytes().as_slice(), device.as_bytes()].concat());
    let mut header = vec![SIGNED_PREKEY];
    header.extend(seed.as_bytes().iter().cycle().take(HEADER_LEN - 1));
    header.into()
}

/// An entry of a mailbox, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its number in the mailbox.
    pub seq: u64,
    /// Of the row.
    pub entry_id: EntryId,
    /// The same in all retries and devices.
    pub message_id: MessageId,
    /// As the sender drew it.
    pub client_message_id: ClientMessageId,
    /// Which device sent it.
    pub sender: DeviceId,
    /// Where it was sent.
    pub conversation_id: ConversationId,
    /// The content's hash; whether it lay inside the seal or outside makes no difference.
    pub content: Hash,
    /// Whether the header is the one that this device must get (or an echo's, at the sender).
    pub header_is_right: bool,
}

impl Device {
    /// Opens an entry of this device's mailbox.
    ///
    /// # Errors
    /// The seal does not open, a field is malformed, or the outside content is not the one that the seal names.
    pub fn open(&self, entry: &wire::MailboxEntry) -> anyhow::Result<Opened> {
        let entry_id = EntryId::try_from(entry.entry_id.as_ref())?;
        let sealed = self.opener.lock().open(&self.device_id, &entry_id, &entry.sealed)?;
        let client_message_id = ClientMessageId::try_from(sealed.client_message_id.as_ref())?;
        let sender = DeviceId::try_from(sealed.sender_device_id.as_ref())?;
        let content = if sealed.content_sha256.is_empty() { &sealed.content } else { &entry.content };
        let hash = Hash::of(content);
        if !sealed.content_sha256.is_empty() {
            anyhow::ensure!(hash.as_bytes().as_slice() == sealed.content_sha256, "another content than the seal names");
        }
        let is_echo = sealed.fork_header.first() == Some(&0);
        let header_is_right = if sender == self.device_id {
            is_echo
        } else {
            sealed.fork_header == header(&client_message_id, &self.device_id)
        };
        Ok(Opened {
            seq: entry.seq,
            entry_id,
            message_id: MessageId::try_from(sealed.message_id.as_ref())?,
            client_message_id,
            sender,
            conversation_id: ConversationId::try_from(sealed.conversation_id.as_ref())?,
            content: hash,
            header_is_right,
        })
    }
}
