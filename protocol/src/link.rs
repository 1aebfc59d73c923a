//! Linking a further device through an existing one, past a server that carries the messages and can't forge them.
//!
//! The new device makes its keys and an offer, and shows a code; people carry the code to an existing device, never through the
//! server. The existing device checks the offer against the code, asks its user, and answers sealed to the offer's ephemeral key
//! *and* under the code's secret: the server has neither.
//!
//! ```text
//! offer  = the bytes of a `LinkOffer` (protobuf); the code holds SHA-256 of them
//! code   = "martlet-link-1." ‖ base64url(link_id (16) ‖ offer_hash (32) ‖ secret (32) ‖ check (4))
//! check  = the first 4 bytes of SHA-256("martlet/v1/link\0" ‖ link_id ‖ offer_hash ‖ secret), against slips of typing
//! answer = a `SealedLinkAnswer` (protobuf) of enc and ciphertext:
//!          HPKE-PSK to the ephemeral key, psk = secret, psk_id = link_id, info = "martlet/v1/link\0",
//!          aad = "martlet/v1/link answer\0" ‖ link_id (16) ‖ offer_hash (32), plaintext = the bytes of a `LinkAnswer`
//! ```
//! PSK mode is RFC 9180, section 5.1.2. The new device then checks the chain in the answer and the list it is asked to sign
//! ([`crate::chain::devices::DeviceChain::countersign`]); both devices show head and fingerprint for comparison.

use bytes::Bytes;
use hpke::{Deserializable as _, PskBundle, Serializable as _};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    chain::devices::ListedDevice,
    crypto::{DhSecret, HpkeAead, HpkeKdf, HpkeKem, Label, Transcript, check_dh_key, check_signing_key, hpke_public},
    id::{DeviceId, Hash, LinkId, PublicKey, from_base64, to_base64},
    wire,
};

const PREFIX: &str = "martlet-link-1.";
const SECRET_LEN: usize = 32;
const CHECK_LEN: usize = 4;
const CODE_LEN: usize = LinkId::LEN + Hash::LEN + SECRET_LEN + CHECK_LEN;

/// Why a step of linking was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The code is no link code of this version, or was damaged on its way.
    #[error("the link code can't be read")]
    Code,
    /// The offer is not the one that the code was made for: the server or a mix-up put another there.
    #[error("the offer is not the one that the code names")]
    OfferMismatch,
    /// The offer can't be read, or holds what no device list may: a weak key, no suites.
    #[error("the offer is not valid")]
    Offer,
    /// Not sealed under this code for this offer: not by a device that saw the code.
    #[error("the answer does not open")]
    Answer,
    /// Opened, but not an answer of the schema.
    #[error("the answer can't be read")]
    Unreadable,
}

/// What people carry from the new device's screen to an existing device. No `Debug`; the secret is wiped when dropped.
#[derive(Clone)]
pub struct LinkCode {
    /// Where the offer waits.
    pub link_id: LinkId,
    /// SHA-256 of the offer.
    pub offer_hash: Hash,
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

impl LinkCode {
    /// Draws the secret for an offer that the node has taken.
    pub fn new(rng: &mut impl rand::CryptoRng, link_id: LinkId, offer: &[u8]) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        rng.fill_bytes(secret.as_mut_slice());
        Self { link_id, offer_hash: Hash::of(offer), secret }
    }

    /// For a QR code or the clipboard.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(CODE_LEN));
        bytes.extend_from_slice(self.link_id.as_bytes());
        bytes.extend_from_slice(self.offer_hash.as_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        let encoded = Zeroizing::new(to_base64(&bytes));
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + encoded.len()));
        text.push_str(PREFIX);
        text.push_str(&encoded);
        text
    }

    /// Reads a code that was scanned or typed; spaces around it don't matter.
    ///
    /// # Errors
    /// [`LinkError::Code`].
    pub fn from_text(text: &str) -> Result<Self, LinkError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(LinkError::Code)?;
        let bytes = Zeroizing::new(from_base64(encoded).map_err(|_| LinkError::Code)?);
        let bytes: &[u8; CODE_LEN] = bytes.as_slice().try_into().map_err(|_| LinkError::Code)?;
        let (fields, given_check) = bytes.split_at(CODE_LEN - CHECK_LEN);
        if given_check != check(fields) {
            return Err(LinkError::Code);
        }
        let (link_id, fields) = fields.split_at(LinkId::LEN);
        let (offer_hash, secret) = fields.split_at(Hash::LEN);
        let mut code = Self {
            link_id: link_id.try_into().map_err(|_| LinkError::Code)?,
            offer_hash: offer_hash.try_into().map_err(|_| LinkError::Code)?,
            secret: Zeroizing::new([0; SECRET_LEN]),
        };
        code.secret.copy_from_slice(secret);
        Ok(code)
    }
}

fn check(fields: &[u8]) -> [u8; CHECK_LEN] {
    let digest = Sha256::new().chain_update(Label::Link.as_bytes()).chain_update(fields).finalize();
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&digest[..CHECK_LEN]);
    check
}

/// An offer that was checked against its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOffer {
    /// The new device.
    pub device_id: DeviceId,
    /// Ed25519.
    pub signing_key: PublicKey,
    /// X25519.
    pub mailbox_key: PublicKey,
    /// Suites it can open.
    pub suites: Vec<u32>,
    /// X25519: the answer is sealed to this.
    pub ephemeral_key: PublicKey,
    /// Shown to the user who confirms.
    pub name: String,
    /// Shown to the user who confirms.
    pub platform: String,
}

impl CheckedOffer {
    /// As the next device list names it.
    #[must_use]
    pub fn listed(&self, added_at_ms: u64) -> ListedDevice {
        ListedDevice {
            device_id: self.device_id,
            signing_key: self.signing_key,
            mailbox_key: self.mailbox_key,
            suites: self.suites.clone(),
            added_at_ms,
        }
    }
}

/// On the existing device: reads the offer that the node gave for a code.
///
/// # Errors
/// [`LinkError::OfferMismatch`], [`LinkError::Offer`].
pub fn check_offer(code: &LinkCode, offer: &[u8]) -> Result<CheckedOffer, LinkError> {
    if Hash::of(offer) != code.offer_hash {
        return Err(LinkError::OfferMismatch);
    }
    let read = wire::LinkOffer::decode(offer).map_err(|_| LinkError::Offer)?;
    let invalid = |_| LinkError::Offer;
    let offer = CheckedOffer {
        device_id: read.device_id.as_ref().try_into().map_err(invalid)?,
        signing_key: read.signing_key.as_ref().try_into().map_err(invalid)?,
        mailbox_key: read.mailbox_key.as_ref().try_into().map_err(invalid)?,
        suites: read.suites,
        ephemeral_key: read.ephemeral_key.as_ref().try_into().map_err(invalid)?,
        name: read.name,
        platform: read.platform,
    };
    let ascending = offer.suites.is_sorted_by(|one, next| one < next);
    if offer.suites.is_empty() || offer.suites.contains(&0) || !ascending {
        return Err(LinkError::Offer);
    }
    check_signing_key(&offer.signing_key).map_err(|_| LinkError::Offer)?;
    check_dh_key(&offer.mailbox_key).map_err(|_| LinkError::Offer)?;
    check_dh_key(&offer.ephemeral_key).map_err(|_| LinkError::Offer)?;
    Ok(offer)
}

/// On the existing device: seals the answer. The result is the bytes of a `SealedLinkAnswer`.
///
/// # Errors
/// [`LinkError::Offer`] if the ephemeral key is weak, which [`check_offer`] refuses.
pub fn seal_answer(
    rng: &mut impl rand::CryptoRng,
    code: &LinkCode,
    offer: &CheckedOffer,
    answer: &wire::LinkAnswer,
) -> Result<Bytes, LinkError> {
    let psk = psk(code);
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<HpkeAead, HpkeKdf, HpkeKem>(
        &hpke::OpModeS::Psk(psk),
        &hpke_public(&offer.ephemeral_key),
        Label::Link.as_bytes(),
        &answer.encode_to_vec(),
        answer_aad(code).as_bytes(),
        rng,
    )
    .map_err(|_| LinkError::Offer)?;
    let enc = Bytes::copy_from_slice(&enc.to_bytes());
    Ok(wire::SealedLinkAnswer { enc, ciphertext: ciphertext.into() }.encode_to_vec().into())
}

/// On the new device: opens the answer that the node brought, with the offer's ephemeral private key.
///
/// # Errors
/// [`LinkError::Answer`], [`LinkError::Unreadable`].
pub fn open_answer(code: &LinkCode, ephemeral: &DhSecret, sealed: &[u8]) -> Result<wire::LinkAnswer, LinkError> {
    let bytes = sealed;
    let sealed = wire::SealedLinkAnswer::decode(bytes).map_err(|_| LinkError::Answer)?;
    if sealed.encode_to_vec() != bytes {
        return Err(LinkError::Answer);
    }
    let enc = <HpkeKem as hpke::Kem>::EncappedKey::from_bytes(&sealed.enc).map_err(|_| LinkError::Answer)?;
    let mut opened = hpke::single_shot_open::<HpkeAead, HpkeKdf, HpkeKem>(
        &hpke::OpModeR::Psk(psk(code)),
        &ephemeral.hpke(),
        &enc,
        Label::Link.as_bytes(),
        &sealed.ciphertext,
        answer_aad(code).as_bytes(),
    )
    .map_err(|_| LinkError::Answer)?;
    let answer = wire::LinkAnswer::decode(opened.as_slice()).map_err(|_| LinkError::Unreadable);
    opened.zeroize();
    answer
}

fn psk(code: &LinkCode) -> PskBundle<'_> {
    PskBundle::new(code.secret.as_slice(), code.link_id.as_bytes()).expect("neither the secret nor the id is empty")
}

fn answer_aad(code: &LinkCode) -> Transcript {
    Transcript::new(Label::LinkAnswer).fixed(code.link_id.as_bytes()).fixed(code.offer_hash.as_bytes())
}
