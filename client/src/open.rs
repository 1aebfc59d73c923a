//! Opening what a mailbox holds: the node's seal, the envelope inside, the fork header, the content. Pure.
//!
//! What comes out is decrypted and well-formed, but not yet believed: whether its sender may say it is [`crate::judge`]'s to decide.

use bytes::Bytes;
use martlet_protocol::{
    crypto::{DhSecret, SUITE_1},
    id::{EntryId, Hash, MessageId},
    rest::PrekeyKind,
    seal::MailboxOpener,
    suite1::{ContentError, ForkContext, ForkHeader, Header, OpenedPlaintext, open_content, open_header, parse_header},
    wire,
};

use crate::{
    identity::DeviceKeys,
    refused::{EnvelopeField, Refused},
};

/// What the node wrote around a message. The server can write anything here.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The same on every device.
    pub message_id: MessageId,
    /// What the fork header must be bound to.
    pub context: ForkContext,
    /// When the node accepted it, in Unix milliseconds; nobody vouches for it.
    pub accepted_at_ms: u64,
    /// The header's parts.
    pub header: Header,
    /// The one ciphertext.
    pub content: Bytes,
}

/// Opens the node's seal and reads the envelope.
///
/// # Errors
/// [`Refused::SealBroken`], [`Refused::EnvelopeAltered`], [`Refused::ContentAltered`].
pub fn open_entry(
    opener: &mut MailboxOpener,
    keys: &DeviceKeys,
    entry: &wire::MailboxEntry,
) -> Result<Envelope, Refused> {
    let entry_id = EntryId::try_from(entry.entry_id.as_ref()).map_err(|_| Refused::SealBroken)?;
    let sealed = opener.open(&keys.device_id, &entry_id, &entry.sealed).map_err(|_| Refused::SealBroken)?;
    Envelope::read(&sealed, &entry.content)
}

impl Envelope {
    /// Reads an opened seal; `outside` is the content that rests beside the entry, if it isn't within.
    ///
    /// # Errors
    /// [`Refused::EnvelopeAltered`], [`Refused::ContentAltered`].
    pub fn read(sealed: &wire::SealedMessage, outside: &Bytes) -> Result<Self, Refused> {
        if sealed.suite != SUITE_1 {
            return Err(Refused::EnvelopeAltered(EnvelopeField::Suite));
        }
        let content = if sealed.content.is_empty() { outside.clone() } else { sealed.content.clone() };
        let content_hash = Hash::of(&content);
        let claimed = sealed.content_sha256.as_ref();
        if !claimed.is_empty() && claimed != content_hash.as_bytes().as_slice() {
            return Err(Refused::ContentAltered);
        }
        let altered = |field| move |_| Refused::EnvelopeAltered(field);
        let context = ForkContext {
            conversation_id: read(&sealed.conversation_id).map_err(altered(EnvelopeField::Conversation))?,
            sender_account: read(&sealed.sender_account_id).map_err(altered(EnvelopeField::Sender))?,
            sender_device: read(&sealed.sender_device_id).map_err(altered(EnvelopeField::Sender))?,
            client_message_id: read(&sealed.client_message_id).map_err(altered(EnvelopeField::ClientMessageId))?,
            content_hash,
        };
        let message_id = MessageId::try_from(sealed.message_id.as_ref()).map_err(|_| Refused::SealBroken)?;
        let header = parse_header(&sealed.fork_header).map_err(|_| Refused::ForkNotForThisDevice)?;
        Ok(Self { message_id, context, accepted_at_ms: sealed.accepted_at_ms, header, content })
    }
}

/// Which private half a fork needs.
#[must_use]
pub fn prekey_of(header: &ForkHeader) -> (PrekeyKind, u32) {
    (header.kind, header.key_id)
}

/// Opens header and content with the prekey that the header names, and checks that envelope and plaintext agree.
///
/// # Errors
/// [`Refused`] by the first check that fails.
pub fn open_fork(
    keys: &DeviceKeys,
    prekey: &DhSecret,
    header: &ForkHeader,
    envelope: &Envelope,
) -> Result<OpenedPlaintext, Refused> {
    let key = open_header(header, prekey, &envelope.context, &keys.account_id, &keys.device_id)
        .map_err(|_| Refused::ForkNotForThisDevice)?;
    let opened = open_content(&key, &envelope.content).map_err(content_refused)?;
    opened.check_envelope(&envelope.context).map_err(content_refused)?;
    Ok(opened)
}

/// Says why a header did not open: tries the conversations that this device shares with others in place of the one in the envelope.
#[must_use]
pub fn diagnose(
    keys: &DeviceKeys,
    prekey: &DhSecret,
    header: &ForkHeader,
    context: &ForkContext,
    others: impl IntoIterator<Item = ForkContext>,
) -> Refused {
    let opens = |context: &ForkContext| open_header(header, prekey, context, &keys.account_id, &keys.device_id).is_ok();
    match others.into_iter().find(|other| opens(other)) {
        Some(other) if other.conversation_id != context.conversation_id => Refused::ForkMoved,
        Some(other) if other.client_message_id != context.client_message_id => {
            Refused::EnvelopeAltered(EnvelopeField::ClientMessageId)
        }
        Some(_) => Refused::EnvelopeAltered(EnvelopeField::Sender),
        None => Refused::ForkNotForThisDevice,
    }
}

pub(crate) fn content_refused(error: ContentError) -> Refused {
    match error {
        ContentError::Commitment => Refused::ContentCommitmentBroken,
        ContentError::Truncated | ContentError::Aead => Refused::ContentAltered,
        ContentError::Version | ContentError::Suite => Refused::EnvelopeAltered(EnvelopeField::Suite),
        ContentError::Padding | ContentError::Plaintext | ContentError::Kind => Refused::PlaintextUnreadable,
        ContentError::Signature => Refused::SignatureInvalid,
        ContentError::Conversation => Refused::EnvelopeAltered(EnvelopeField::Conversation),
        ContentError::Sender => Refused::EnvelopeAltered(EnvelopeField::Sender),
        ContentError::MessageId => Refused::EnvelopeAltered(EnvelopeField::ClientMessageId),
    }
}

fn read<T: for<'a> TryFrom<&'a [u8]>>(field: &Bytes) -> Result<T, ()> {
    T::try_from(field.as_ref()).map_err(|_| ())
}
