//! The sealed mailbox: what the accepting node does to an entry before it is stored or relayed, so that a copy of the store does not
//! show who wrote to whom.
//!
//! ```text
//! enc, ctx = HPKE-Base.setup(mailbox key of the device, info = "martlet/v1/mailbox\0")        RFC 9180, section 5.1.1
//! K        = ctx.export("martlet/v1/mailbox key\0", 32)                                        RFC 9180, section 5.3
//! sealed   = enc (32) ‖ counter (u64) ‖ ChaCha20-Poly1305(K, nonce = 4 zero bytes ‖ counter (u64),
//!                aad = "martlet/v1/mailbox entry\0" ‖ device_id (16) ‖ entry_id (16), SealedMessage (protobuf))
//! ```
//! Numbers are big-endian. The node makes one [`MailboxSealer`] per device, at its start and anew each day; the counter lives in it,
//! so it never repeats under one K. Whoever holds a device's mailbox key can make such an entry: it hides, it does not prove.
//! What proves is inside ([`crate::suite1`]).

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag, aead::inout::InOutBuf};
use hpke::{Deserializable as _, Serializable as _};
use prost::Message as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    crypto::{DhSecret, HpkeAead, HpkeKdf, HpkeKem, Label, hpke_public},
    id::{DeviceId, EntryId, PublicKey},
    wire,
};

const ENC_LEN: usize = 32;
const COUNTER_LEN: usize = 8;
const TAG_LEN: usize = 16;
const PREFIX_LEN: usize = ENC_LEN + COUNTER_LEN;
const AAD_LEN: usize = 25 + DeviceId::LEN + EntryId::LEN;

/// Bytes that a sealed entry has over the message inside.
pub const SEAL_OVERHEAD: usize = PREFIX_LEN + TAG_LEN;

/// Why an entry was refused, or a sealer could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short to be an entry.
    #[error("the entry is too short")]
    Truncated,
    /// The mailbox key or the entry's point leads to an all-zero secret.
    #[error("the key agreement failed")]
    Weak,
    /// Altered, under another entry id, or another device's.
    #[error("the entry does not open")]
    Aead,
    /// Opened, but not a message of the schema.
    #[error("the sealed message can't be read")]
    Unreadable,
}

/// The node's side: seals entries of one device. Shared by all threads; no lock.
pub struct MailboxSealer {
    enc: [u8; ENC_LEN],
    cipher: ChaCha20Poly1305,
    counter: AtomicU64,
}

impl MailboxSealer {
    /// Agrees on a key with the device. About 0.1 ms, so keep the sealer.
    ///
    /// # Errors
    /// [`SealError::Weak`] for a mailbox key of small order, which no verified list holds.
    pub fn new(rng: &mut impl rand::CryptoRng, mailbox_key: &PublicKey) -> Result<Self, SealError> {
        let (enc, context) = hpke::setup_sender_with_rng::<HpkeAead, HpkeKdf, HpkeKem>(
            &hpke::OpModeS::Base,
            &hpke_public(mailbox_key),
            Label::Mailbox.as_bytes(),
            rng,
        )
        .map_err(|_| SealError::Weak)?;
        let mut key = Zeroizing::new([0; 32]);
        context
            .export(Label::MailboxKey.as_bytes(), key.as_mut_slice())
            .expect("32 bytes are within HKDF's 255 blocks");
        Ok(Self {
            enc: enc.to_bytes().into(),
            cipher: ChaCha20Poly1305::new((&*key).into()),
            counter: AtomicU64::new(0),
        })
    }

    /// Seals one entry: one AEAD call and one allocation.
    #[must_use]
    pub fn seal(&self, device_id: &DeviceId, entry_id: &EntryId, message: &wire::SealedMessage) -> Bytes {
        // Only uniqueness matters, which any ordering gives; 2^64 entries are out of reach.
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut sealed = Vec::with_capacity(message.encoded_len() + SEAL_OVERHEAD);
        sealed.extend_from_slice(&self.enc);
        sealed.extend_from_slice(&counter.to_be_bytes());
        message.encode(&mut sealed).expect("a vector takes any length");
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &nonce(counter),
                &entry_aad(device_id, entry_id),
                InOutBuf::from(&mut sealed[PREFIX_LEN..]),
            )
            .expect("a message is far below the cipher's 256 GiB");
        sealed.extend_from_slice(&tag);
        sealed.into()
    }
}

/// The device's side: opens entries and keeps the keys of a few sealers, since the node changes them rarely.
pub struct MailboxOpener {
    secret: DhSecret,
    /// Newest last.
    ciphers: VecDeque<([u8; ENC_LEN], ChaCha20Poly1305)>,
    max_keys: usize,
}

impl MailboxOpener {
    /// Keys that are kept unless told otherwise: some nodes over some days.
    pub const DEFAULT_MAX_KEYS: usize = 64;

    /// Opens with the device's mailbox key.
    #[must_use]
    pub fn new(secret: DhSecret) -> Self {
        Self::with_max_keys(secret, Self::DEFAULT_MAX_KEYS)
    }

    /// The same with another bound on kept keys; at least one is kept.
    #[must_use]
    pub fn with_max_keys(secret: DhSecret, max_keys: usize) -> Self {
        Self { secret, ciphers: VecDeque::new(), max_keys: max_keys.max(1) }
    }

    /// How many keys are kept now.
    #[must_use]
    pub fn kept_keys(&self) -> usize {
        self.ciphers.len()
    }

    /// Opens one entry of this device's mailbox.
    ///
    /// # Errors
    /// [`SealError`]. A key is kept only once it opened an entry, so that junk can't drive the good ones out.
    pub fn open(
        &mut self,
        device_id: &DeviceId,
        entry_id: &EntryId,
        sealed: &[u8],
    ) -> Result<wire::SealedMessage, SealError> {
        if sealed.len() < SEAL_OVERHEAD {
            return Err(SealError::Truncated);
        }
        let (prefix, rest) = sealed.split_at(PREFIX_LEN);
        let mut enc = [0; ENC_LEN];
        enc.copy_from_slice(&prefix[..ENC_LEN]);
        let mut counter = [0; COUNTER_LEN];
        counter.copy_from_slice(&prefix[ENC_LEN..]);
        let nonce = nonce(u64::from_be_bytes(counter));
        let aad = entry_aad(device_id, entry_id);
        let kept = self.ciphers.iter().find(|(of, _)| bool::from(of.ct_eq(&enc)));
        if let Some((_, cipher)) = kept {
            return decrypt(cipher, &nonce, &aad, rest);
        }
        let cipher = self.agree(&enc)?;
        let message = decrypt(&cipher, &nonce, &aad, rest)?;
        if self.ciphers.len() >= self.max_keys {
            self.ciphers.pop_front();
        }
        self.ciphers.push_back((enc, cipher));
        Ok(message)
    }

    fn agree(&self, enc: &[u8; ENC_LEN]) -> Result<ChaCha20Poly1305, SealError> {
        let enc = <HpkeKem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| SealError::Weak)?;
        let context = hpke::setup_receiver::<HpkeAead, HpkeKdf, HpkeKem>(
            &hpke::OpModeR::Base,
            &self.secret.hpke(),
            &enc,
            Label::Mailbox.as_bytes(),
        )
        .map_err(|_| SealError::Weak)?;
        let mut key = Zeroizing::new([0; 32]);
        context
            .export(Label::MailboxKey.as_bytes(), key.as_mut_slice())
            .expect("32 bytes are within HKDF's 255 blocks");
        Ok(ChaCha20Poly1305::new((&*key).into()))
    }
}

fn decrypt(
    cipher: &ChaCha20Poly1305,
    nonce: &Nonce,
    aad: &[u8],
    sealed: &[u8],
) -> Result<wire::SealedMessage, SealError> {
    let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
    let tag = Tag::try_from(tag).map_err(|_| SealError::Truncated)?;
    let mut opened = body.to_vec();
    cipher
        .decrypt_inout_detached(nonce, aad, InOutBuf::from(opened.as_mut_slice()), &tag)
        .map_err(|_| SealError::Aead)?;
    wire::SealedMessage::decode(Bytes::from(opened)).map_err(|_| SealError::Unreadable)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

/// On the stack: this is the hot path.
fn entry_aad(device_id: &DeviceId, entry_id: &EntryId) -> [u8; AAD_LEN] {
    let label = Label::MailboxEntry.as_bytes();
    let mut aad = [0; AAD_LEN];
    aad[..label.len()].copy_from_slice(label);
    aad[label.len()..label.len() + DeviceId::LEN].copy_from_slice(device_id.as_bytes());
    aad[label.len() + DeviceId::LEN..].copy_from_slice(entry_id.as_bytes());
    aad
}
