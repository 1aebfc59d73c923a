//! Prekeys and sign-in proofs: what a device signs about itself outside the chains.
//!
//! ```text
//! prekey   = "martlet/v1/prekey\0" ‖ account_id (16) ‖ device_id (16) ‖ suite (u32) ‖ kind (1: signed, 2: one-time)
//!            ‖ key_id (u32) ‖ public_key (32) ‖ not_after_ms (u64) ‖ list_n (u64) ‖ list_hash (32)
//! sign-in  = "martlet/v1/sign-in\0" ‖ device_id (16) ‖ signed_at_ms (u64) ‖ username (length-prefixed UTF-8)
//! ```
//! All numbers big-endian. One-time prekeys are signed like the other one: HPKE to an unsigned key would let a dishonest server
//! put its own there and read the message.

use super::{KNOWN_SUITES, Label, SigningKey, Transcript, check_dh_key, verify};
use crate::{
    id::{AccountId, DeviceId, Hash, PublicKey, Signature},
    rest::{ListHead, PrekeyKind, SignedPrekey},
    wire,
};

/// A prekey before its device has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsignedPrekey {
    /// The suite it is for.
    pub suite: u32,
    /// Signed or one-time.
    pub kind: PrekeyKind,
    /// Never used for another key of this device.
    pub key_id: u32,
    /// X25519.
    pub public_key: PublicKey,
    /// Unix milliseconds.
    pub not_after_ms: u64,
}

/// A prekey whose signature was checked: what a fork header is sealed to. Made by [`verify_prekey`], or by a client that reads back
/// what it had verified before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifiedPrekey {
    /// The suite it is for.
    pub suite: u32,
    /// Whose.
    pub account_id: AccountId,
    /// Which device's.
    pub device_id: DeviceId,
    /// Signed or one-time.
    pub kind: PrekeyKind,
    /// The device finds the private part by kind and id.
    pub key_id: u32,
    /// X25519.
    pub public_key: PublicKey,
}

/// Why a prekey was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrekeyError {
    /// Not by the device it is said to be of, or a field was altered.
    #[error("the prekey's signature is not valid")]
    Signature,
    /// For a suite that this crate can't seal to.
    #[error("the prekey is for a suite that is not known")]
    Suite,
    /// Of small order.
    #[error("the prekey is weak")]
    Weak,
    /// Past its `not_after_ms`.
    #[error("the prekey has expired")]
    Expired,
    /// Its signer knew a newer device list than the one at hand.
    #[error("the device list is older than the prekey")]
    ListTooOld,
    /// Its signer knew a list of another branch.
    #[error("the prekey names another branch of the device list")]
    OtherBranch,
    /// Its device is not in the list.
    #[error("the prekey's device is not listed")]
    DeviceNotListed,
    /// A one-time key where a signed one belongs, or the reverse.
    #[error("the prekey is of the wrong kind")]
    Kind,
}

/// Signs a prekey; `head` is the list head that the device knows.
#[must_use]
pub fn sign_prekey(key: &UnsignedPrekey, device: &DeviceId, head: &ListHead, signer: &SigningKey) -> SignedPrekey {
    let mut signed = SignedPrekey {
        suite: key.suite,
        kind: key.kind,
        key_id: key.key_id,
        public_key: key.public_key,
        not_after_ms: key.not_after_ms,
        list_n: head.n,
        list_hash: head.hash,
        signature: Signature::new([0; 64]),
    };
    signed.signature = signer.sign(&prekey_transcript(&signed, &head.account_id, device));
    signed
}

/// Checks that the device signed this prekey for itself, and that it can be sealed to. Not checked: expiry and the list head, which
/// need a clock and a chain ([`crate::chain::devices::DeviceChain::check_prekey`]).
///
/// # Errors
/// [`PrekeyError::Signature`], [`PrekeyError::Weak`]. Other suites' prekeys are the node's to carry, so a suite that is not known is
/// no error here.
pub fn verify_prekey(
    key: &SignedPrekey,
    account_id: &AccountId,
    device_id: &DeviceId,
    signing_key: &PublicKey,
) -> Result<VerifiedPrekey, PrekeyError> {
    verify(signing_key, &prekey_transcript(key, account_id, device_id), &key.signature)
        .map_err(|_| PrekeyError::Signature)?;
    check_dh_key(&key.public_key).map_err(|_| PrekeyError::Weak)?;
    Ok(VerifiedPrekey {
        suite: key.suite,
        account_id: *account_id,
        device_id: *device_id,
        kind: key.kind,
        key_id: key.key_id,
        public_key: key.public_key,
    })
}

/// Whether this crate can seal to the prekey at this time.
///
/// # Errors
/// [`PrekeyError::Suite`], [`PrekeyError::Expired`].
pub(crate) fn check_usable_prekey(key: &SignedPrekey, now_ms: u64) -> Result<(), PrekeyError> {
    if !KNOWN_SUITES.contains(&key.suite) {
        return Err(PrekeyError::Suite);
    }
    if key.not_after_ms <= now_ms { Err(PrekeyError::Expired) } else { Ok(()) }
}

fn prekey_transcript(key: &SignedPrekey, account_id: &AccountId, device_id: &DeviceId) -> Transcript {
    let list_hash: &Hash = &key.list_hash;
    Transcript::new(Label::Prekey)
        .fixed(account_id.as_bytes())
        .fixed(device_id.as_bytes())
        .u32(key.suite)
        .u8(wire::PrekeyKind::from(key.kind) as u8)
        .u32(key.key_id)
        .fixed(key.public_key.as_bytes())
        .u64(key.not_after_ms)
        .u64(key.list_n)
        .fixed(list_hash.as_bytes())
}

/// Proves, together with the account's password, that a listed device signs in again.
#[must_use]
pub fn sign_in_proof(username: &str, device_id: &DeviceId, signed_at_ms: u64, signer: &SigningKey) -> Signature {
    signer.sign(&sign_in_transcript(username, device_id, signed_at_ms))
}

/// Checks a sign-in proof. Whether `signed_at_ms` is recent is the caller's to check.
///
/// # Errors
/// [`super::SignatureError`].
pub fn verify_sign_in_proof(
    username: &str,
    device_id: &DeviceId,
    signed_at_ms: u64,
    signing_key: &PublicKey,
    proof: &Signature,
) -> Result<(), super::SignatureError> {
    verify(signing_key, &sign_in_transcript(username, device_id, signed_at_ms), proof)
}

fn sign_in_transcript(username: &str, device_id: &DeviceId, signed_at_ms: u64) -> Transcript {
    Transcript::new(Label::SignIn).fixed(device_id.as_bytes()).u64(signed_at_ms).variable(username.as_bytes())
}
