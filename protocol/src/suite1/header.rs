//! Fork headers: a content key under HPKE for one device.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::ContentKey;
use crate::{
    crypto::{DhSecret, HpkeAead, HpkeKdf, HpkeKem, Label, SUITE_1, Transcript, VerifiedPrekey, hpke_public},
    id::{AccountId, ClientMessageId, ConversationId, DeviceId, Hash},
    rest::PrekeyKind,
    wire,
};
use hpke::{Deserializable as _, Serializable as _};

const ENC_LEN: usize = 32;
const CT_LEN: usize = 48;

/// Length of a fork header.
pub const FORK_HEADER_LEN: usize = 1 + 4 + ENC_LEN + CT_LEN;

/// Length of an echo's header: the same, so that its entry is not the shorter one.
pub const ECHO_HEADER_LEN: usize = FORK_HEADER_LEN;

/// What a fork header is bound to, besides its recipient and prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForkContext {
    /// Where the message belongs.
    pub conversation_id: ConversationId,
    /// Whose device sent it.
    pub sender_account: AccountId,
    /// Which device sent it.
    pub sender_device: DeviceId,
    /// The sender's id of it.
    pub client_message_id: ClientMessageId,
    /// SHA-256 of the content.
    pub content_hash: Hash,
}

/// The parts of a fork header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkHeader {
    /// Which kind of prekey it is sealed to.
    pub kind: PrekeyKind,
    /// Which prekey.
    pub key_id: u32,
    enc: [u8; ENC_LEN],
    ct: [u8; CT_LEN],
}

/// What stands in an entry's header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The sending device's own entry: it holds no key.
    Echo,
    /// A content key for this device.
    Fork(ForkHeader),
}

/// Why a header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not 85 bytes.
    #[error("the header has {given} bytes, not {FORK_HEADER_LEN}")]
    Length {
        /// Bytes that were given.
        given: usize,
    },
    /// A prekey of another suite.
    #[error("the prekey is not for suite 1")]
    Suite,
    /// A kind of prekey that is not known.
    #[error("the header names no known kind of prekey")]
    Kind,
    /// An echo with anything but zeros.
    #[error("the echo header is not all zero")]
    Echo,
    /// Altered, replayed, moved to another conversation, or not for this device.
    #[error("the header does not open")]
    Aead,
    /// The prekey or the header's point leads to an all-zero secret.
    #[error("the header's key agreement failed")]
    Weak,
}

/// Seals a content key to a device's prekey, whose signature was checked before. About 0.1 ms.
///
/// # Errors
/// [`HeaderError::Suite`]; [`HeaderError::Weak`] if the prekey is of small order, which [`crate::crypto::verify_prekey`] refuses.
pub fn fork_header(
    rng: &mut impl rand::CryptoRng,
    key: &ContentKey,
    context: &ForkContext,
    recipient: &VerifiedPrekey,
) -> Result<Bytes, HeaderError> {
    if recipient.suite != SUITE_1 {
        return Err(HeaderError::Suite);
    }
    let kind = wire::PrekeyKind::from(recipient.kind) as u8;
    let aad = header_aad(context, &recipient.account_id, &recipient.device_id, kind, recipient.key_id);
    let (enc, ct) = hpke::single_shot_seal_with_rng::<HpkeAead, HpkeKdf, HpkeKem>(
        &hpke::OpModeS::Base,
        &hpke_public(&recipient.public_key),
        Label::Fork.as_bytes(),
        key.0.as_slice(),
        aad.as_bytes(),
        rng,
    )
    .map_err(|_| HeaderError::Weak)?;
    let mut header = Vec::with_capacity(FORK_HEADER_LEN);
    header.push(kind);
    header.extend_from_slice(&recipient.key_id.to_be_bytes());
    header.extend_from_slice(&enc.to_bytes());
    header.extend_from_slice(&ct);
    Ok(header.into())
}

/// The header of the sending device's own entry.
#[must_use]
pub const fn echo_header() -> Bytes {
    Bytes::from_static(&[0; ECHO_HEADER_LEN])
}

/// Reads a header's form; what it says is proved by [`open_header`].
///
/// # Errors
/// [`HeaderError::Length`], [`HeaderError::Kind`], [`HeaderError::Echo`].
pub fn parse_header(header: &[u8]) -> Result<Header, HeaderError> {
    if header.first() == Some(&0) {
        // Of any length: the node makes an echo as long as the forks beside it, whatever their suite.
        let zeros = header.iter().all(|byte| *byte == 0);
        return if zeros { Ok(Header::Echo) } else { Err(HeaderError::Echo) };
    }
    let header: &[u8; FORK_HEADER_LEN] = header.try_into().map_err(|_| HeaderError::Length { given: header.len() })?;
    let kind = match i32::from(header[0]).try_into() {
        Ok(wire::PrekeyKind::Signed) => PrekeyKind::Signed,
        Ok(wire::PrekeyKind::OneTime) => PrekeyKind::OneTime,
        Ok(wire::PrekeyKind::Unspecified) | Err(_) => return Err(HeaderError::Kind),
    };
    let mut parts = ForkHeader { kind, key_id: 0, enc: [0; ENC_LEN], ct: [0; CT_LEN] };
    let mut key_id = [0; 4];
    key_id.copy_from_slice(&header[1..5]);
    parts.key_id = u32::from_be_bytes(key_id);
    parts.enc.copy_from_slice(&header[5..5 + ENC_LEN]);
    parts.ct.copy_from_slice(&header[5 + ENC_LEN..]);
    Ok(Header::Fork(parts))
}

/// Opens a header with the private part of the prekey that it names, as the device of that account.
///
/// # Errors
/// [`HeaderError::Aead`], [`HeaderError::Weak`].
pub fn open_header(
    header: &ForkHeader,
    prekey: &DhSecret,
    context: &ForkContext,
    own_account: &AccountId,
    own_device: &DeviceId,
) -> Result<ContentKey, HeaderError> {
    let kind = wire::PrekeyKind::from(header.kind) as u8;
    let aad = header_aad(context, own_account, own_device, kind, header.key_id);
    let enc = <HpkeKem as hpke::Kem>::EncappedKey::from_bytes(&header.enc).map_err(|_| HeaderError::Weak)?;
    let opened = hpke::single_shot_open::<HpkeAead, HpkeKdf, HpkeKem>(
        &hpke::OpModeR::Base,
        &prekey.hpke(),
        &enc,
        Label::Fork.as_bytes(),
        &header.ct,
        aad.as_bytes(),
    )
    .map_err(|error| if error == hpke::HpkeError::OpenError { HeaderError::Aead } else { HeaderError::Weak })?;
    let opened = Zeroizing::new(opened);
    let key: &[u8; 32] = opened.as_slice().try_into().map_err(|_| HeaderError::Aead)?;
    Ok(ContentKey::from_bytes(key))
}

fn header_aad(context: &ForkContext, account: &AccountId, device: &DeviceId, kind: u8, key_id: u32) -> Transcript {
    Transcript::new(Label::ForkHeader)
        .fixed(context.conversation_id.as_bytes())
        .fixed(context.sender_account.as_bytes())
        .fixed(context.sender_device.as_bytes())
        .fixed(account.as_bytes())
        .fixed(device.as_bytes())
        .u8(kind)
        .u32(key_id)
        .fixed(context.client_message_id.as_bytes())
        .fixed(context.content_hash.as_bytes())
}
