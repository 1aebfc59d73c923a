//! X25519 (RFC 7748) keys, and HPKE (RFC 9180) fixed to DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
//!
//! As RFC 7748 has it, the top bit of a public key is ignored and non-canonical coordinates are reduced; an all-zero result is
//! refused (RFC 9180, section 7.1.4). Keys that lead there are refused earlier still, by [`check_dh_key`], when they enter a list
//! or a prekey: otherwise one member could make everybody's sends fail.

use curve25519_dalek::{MontgomeryPoint, traits::IsIdentity as _};
use hpke::Deserializable as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::WeakKey;
use crate::id::PublicKey;

pub(crate) type HpkeKem = hpke::kem::X25519HkdfSha256;
pub(crate) type HpkeKdf = hpke::kdf::HkdfSha256;
pub(crate) type HpkeAead = hpke::aead::ChaCha20Poly1305;

/// An X25519 private key: mailbox key, prekey, a link's ephemeral key. No `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct DhSecret(x25519_dalek::StaticSecret);

impl DhSecret {
    /// Draws a key.
    pub fn generate(rng: &mut impl rand::CryptoRng) -> Self {
        Self(x25519_dalek::StaticSecret::random_from_rng(rng))
    }

    /// Takes 32 bytes; clamping happens where they are used.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(*bytes))
    }

    /// The bytes, for the device's own encrypted store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// X25519 itself.
    ///
    /// # Errors
    /// [`WeakKey`] if the result is all zero.
    pub fn agree(&self, public: &PublicKey) -> Result<Zeroizing<[u8; 32]>, WeakKey> {
        let shared = self.0.diffie_hellman(&x25519_dalek::PublicKey::from(*public.as_bytes()));
        if bool::from(shared.as_bytes().ct_eq(&[0; 32])) { Err(WeakKey) } else { Ok(Zeroizing::new(shared.to_bytes())) }
    }

    pub(crate) fn hpke(&self) -> <HpkeKem as hpke::Kem>::PrivateKey {
        <HpkeKem as hpke::Kem>::PrivateKey::from_bytes(self.0.as_bytes()).expect("32 bytes are a private key")
    }
}

pub(crate) fn hpke_public(key: &PublicKey) -> <HpkeKem as hpke::Kem>::PublicKey {
    <HpkeKem as hpke::Kem>::PublicKey::from_bytes(key.as_bytes()).expect("32 bytes are a public key")
}

/// Checks an X25519 public key before it is believed: no clamped scalar may take it to zero.
///
/// # Errors
/// [`WeakKey`] for a point of small order, on the curve or its twist.
pub fn check_dh_key(key: &PublicKey) -> Result<(), WeakKey> {
    // Clamped scalars are multiples of 8, and 8 times a point is the identity exactly if its order divides 8.
    let eightfold = MontgomeryPoint(*key.as_bytes()).mul_bits_be([true, false, false, false].into_iter());
    if eightfold.is_identity() { Err(WeakKey) } else { Ok(()) }
}
