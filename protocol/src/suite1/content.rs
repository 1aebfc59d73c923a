//! The one ciphertext that all recipients share.

use bytes::Bytes;
use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag, aead::inout::InOutBuf};
use hkdf::Hkdf;
use prost::Message as _;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    ForkContext, VERSION,
    padding::{pad, padded_len, unpadded_len},
};
use crate::{
    crypto::{Label, SUITE_1, SignatureError, SigningKey, Transcript, verify},
    id::{PublicKey, Signature},
    wire,
};

const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = Signature::LEN;
const PREFIX_LEN: usize = 1 + 4 + KEY_LEN;
const TAG_LEN: usize = 16;
/// The key encrypts one content only.
const NONCE: [u8; 12] = [0; 12];

/// How long an ephemeral message may be good for, in milliseconds, by what it says itself.
pub const MAX_EPHEMERAL_LIFETIME_MS: u64 = 60_000;

/// Bytes that content has over its padded plaintext.
pub const CONTENT_OVERHEAD: usize = PREFIX_LEN + TAG_LEN;

/// The key of one content. No `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct ContentKey(pub(super) Zeroizing<[u8; KEY_LEN]>);

impl ContentKey {
    /// Takes 32 bytes, as a device's store keeps them between retries.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The bytes, for the device's own encrypted store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_LEN]> {
        self.0.clone()
    }

    pub(super) fn generate(rng: &mut impl rand::CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    fn derive(&self, label: Label) -> Zeroizing<[u8; KEY_LEN]> {
        let mut out = Zeroizing::new([0; KEY_LEN]);
        Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand(label.as_bytes(), out.as_mut_slice())
            .expect("32 bytes are within HKDF's 255 blocks");
        out
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.derive(Label::ContentKey)).into())
    }
}

/// Why content was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Too short to be content.
    #[error("the content is too short")]
    Truncated,
    /// Of a version that is not known.
    #[error("the content's version is not known")]
    Version,
    /// Of another suite.
    #[error("the content's suite is not suite 1")]
    Suite,
    /// The key is not the one that the content was made with: a second key for one content.
    #[error("the content was made with another key")]
    Commitment,
    /// Altered, cut or lengthened.
    #[error("the content does not open")]
    Aead,
    /// The padding is not what suite 1 makes.
    #[error("the padding is not valid")]
    Padding,
    /// The plaintext can't be read as the schema has it.
    #[error("the plaintext can't be read")]
    Plaintext,
    /// The sending device's signature does not verify.
    #[error("the sender's signature is not valid")]
    Signature,
    /// The plaintext names another conversation than the envelope.
    #[error("the message belongs to another conversation")]
    Conversation,
    /// The plaintext names another sender than the envelope.
    #[error("the message is from another sender")]
    Sender,
    /// The plaintext names another `client_message_id` than the envelope.
    #[error("the message has another id")]
    MessageId,
    /// The plaintext is neither of a stored nor of an ephemeral message.
    #[error("the message is neither a stored nor an ephemeral one")]
    Kind,
}

/// The two kinds of messages. The signed plaintext says which one it is, so that nobody can make one pass for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Numbered, and naming its predecessor.
    Stored,
    /// Outside that order, and worthless after a short time.
    Ephemeral {
        /// Unix milliseconds, by the sender's clock.
        until_ms: u64,
    },
}

impl From<SignatureError> for ContentError {
    fn from(_: SignatureError) -> Self {
        Self::Signature
    }
}

/// Signs, pads and encrypts a plaintext under a fresh key.
#[must_use]
pub fn seal_content(
    rng: &mut impl rand::CryptoRng,
    plaintext: &wire::Plaintext,
    signer: &SigningKey,
) -> (ContentKey, Bytes) {
    let signed = Zeroizing::new(plaintext.encode_to_vec());
    let signature = signer.sign(&message_transcript(&signed));
    let mut padded = Zeroizing::new(Vec::with_capacity(padded_len(signed.len() + SIGNATURE_LEN)));
    padded.extend_from_slice(&signed);
    padded.extend_from_slice(signature.as_bytes());
    pad(&mut padded);
    let key = ContentKey::generate(rng);
    let content = encrypt(&key, &padded);
    (key, content)
}

fn encrypt(key: &ContentKey, padded: &[u8]) -> Bytes {
    let mut content = Vec::with_capacity(padded.len() + CONTENT_OVERHEAD);
    content.push(VERSION);
    content.extend_from_slice(&SUITE_1.to_be_bytes());
    content.extend_from_slice(key.derive(Label::ContentCommitment).as_slice());
    content.extend_from_slice(padded);
    let (prefix, body) = content.split_at_mut(PREFIX_LEN);
    let tag = key
        .cipher()
        .encrypt_inout_detached(&Nonce::from(NONCE), content_aad(prefix).as_bytes(), InOutBuf::from(body))
        .expect("content is far below the cipher's 256 GiB");
    content.extend_from_slice(&tag);
    content.into()
}

/// What was inside content. Nothing of it is to be believed before [`Self::verify`].
pub struct OpenedPlaintext {
    /// As read from `signed_bytes`.
    pub plaintext: wire::Plaintext,
    /// The exact bytes that the sender signed.
    pub signed_bytes: Bytes,
    /// By the device that the plaintext names.
    pub signature: Signature,
}

/// Opens content: commitment first, then the cipher, the padding and the form of the plaintext.
///
/// # Errors
/// [`ContentError`].
pub fn open_content(key: &ContentKey, content: &[u8]) -> Result<OpenedPlaintext, ContentError> {
    if content.len() < CONTENT_OVERHEAD {
        return Err(ContentError::Truncated);
    }
    let (prefix, sealed) = content.split_at(PREFIX_LEN);
    if prefix[0] != VERSION {
        return Err(ContentError::Version);
    }
    if prefix[1..5] != SUITE_1.to_be_bytes() {
        return Err(ContentError::Suite);
    }
    if !bool::from(prefix[5..].ct_eq(key.derive(Label::ContentCommitment).as_slice())) {
        return Err(ContentError::Commitment);
    }
    let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
    let tag = Tag::try_from(tag).map_err(|_| ContentError::Truncated)?;
    let mut padded = body.to_vec();
    key.cipher()
        .decrypt_inout_detached(
            &Nonce::from(NONCE),
            content_aad(prefix).as_bytes(),
            InOutBuf::from(padded.as_mut_slice()),
            &tag,
        )
        .map_err(|_| ContentError::Aead)?;
    read_padded(padded)
}

fn read_padded(mut padded: Vec<u8>) -> Result<OpenedPlaintext, ContentError> {
    let end = unpadded_len(&padded).ok_or(ContentError::Padding)?;
    let signed_end = end.checked_sub(SIGNATURE_LEN).ok_or(ContentError::Plaintext)?;
    let signature = Signature::try_from(&padded[signed_end..end]).map_err(|_| ContentError::Plaintext)?;
    padded.truncate(signed_end);
    let signed_bytes = Bytes::from(padded);
    let plaintext = wire::Plaintext::decode(signed_bytes.clone()).map_err(|_| ContentError::Plaintext)?;
    Ok(OpenedPlaintext { plaintext, signed_bytes, signature })
}

impl OpenedPlaintext {
    /// Checks the sending device's signature. The key comes from the list of the sender's account that the plaintext names.
    ///
    /// # Errors
    /// [`ContentError::Signature`].
    pub fn verify(&self, sender: &PublicKey) -> Result<(), ContentError> {
        Ok(verify(sender, &message_transcript(&self.signed_bytes), &self.signature)?)
    }

    /// Which kind of message this is.
    ///
    /// # Errors
    /// [`ContentError::Kind`] if its counter, its predecessor and its end don't go together.
    pub fn kind(&self) -> Result<MessageKind, ContentError> {
        let inner = &self.plaintext;
        let until_ms = inner.ephemeral_until_ms;
        let is_first = inner.previous_message_hash.is_empty();
        let stands = if until_ms == 0 {
            inner.sender_counter != 0 && (inner.sender_counter == 1) == is_first
        } else {
            let lifetime_ms = until_ms.checked_sub(inner.sent_at_ms);
            let lives = lifetime_ms.is_some_and(|ms| (1..=MAX_EPHEMERAL_LIFETIME_MS).contains(&ms));
            inner.sender_counter == 0 && is_first && lives
        };
        match (stands, until_ms) {
            (false, _) => Err(ContentError::Kind),
            (true, 0) => Ok(MessageKind::Stored),
            (true, until_ms) => Ok(MessageKind::Ephemeral { until_ms }),
        }
    }

    /// Checks that the plaintext is what the envelope says: version, suite, conversation, sender and message id.
    ///
    /// # Errors
    /// [`ContentError`] says which differs.
    pub fn check_envelope(&self, context: &ForkContext) -> Result<(), ContentError> {
        let inner = &self.plaintext;
        if inner.version != u32::from(VERSION) {
            return Err(ContentError::Version);
        }
        if inner.suite != SUITE_1 {
            return Err(ContentError::Suite);
        }
        if inner.conversation_id != context.conversation_id.as_bytes().as_slice() {
            return Err(ContentError::Conversation);
        }
        if inner.sender_account_id != context.sender_account.as_bytes().as_slice()
            || inner.sender_device_id != context.sender_device.as_bytes().as_slice()
        {
            return Err(ContentError::Sender);
        }
        if inner.client_message_id != context.client_message_id.as_bytes().as_slice() {
            return Err(ContentError::MessageId);
        }
        Ok(())
    }
}

fn message_transcript(signed: &[u8]) -> Transcript {
    Transcript::new(Label::Message).variable(signed)
}

fn content_aad(prefix: &[u8]) -> Transcript {
    Transcript::new(Label::Content).fixed(prefix)
}
