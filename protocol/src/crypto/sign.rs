//! Ed25519 (RFC 8032) in the one strict profile that every SDK has to keep.
//!
//! Libraries disagree about odd keys and signatures, so a malicious device could show different people different things. Hence:
//! - the public key A and the point R must be canonical (y < p, and no sign bit on x = 0), S must be below the group order;
//! - A and R of small order are refused, all of this before any verification;
//! - the equation is the cofactorless one: R must be, byte for byte, the encoding of `[S]B - [k]A`;
//! - a key that enters a device list must lie in the prime-order subgroup ([`check_signing_key`]), so that the equation with the
//!   cofactor can't say otherwise for any signature whose R does too.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use super::Transcript;
use crate::id::{PublicKey, Signature};

/// A device's Ed25519 key. No `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Draws a key.
    pub fn generate(rng: &mut impl rand::CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_bytes(&seed)
    }

    /// Takes the 32-byte seed of RFC 8032.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for the device's own encrypted store.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.0.verifying_key().to_bytes())
    }

    /// Signs a transcript (label and fields).
    #[must_use]
    pub fn sign(&self, transcript: &Transcript) -> Signature {
        sign_bytes(self, transcript.as_bytes())
    }
}

/// The same over bare bytes: for the test vectors of others, which know no labels.
pub(super) fn sign_bytes(key: &SigningKey, message: &[u8]) -> Signature {
    Signature::new(key.0.sign(message).to_bytes())
}

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The public key is not a point, not canonical or of small order.
    #[error("the public key is malformed or weak")]
    Key,
    /// R is not a point, not canonical or of small order.
    #[error("the signature's point is malformed or weak")]
    Point,
    /// S is not below the group order.
    #[error("the signature's scalar is not canonical")]
    Scalar,
    /// Well-formed, but not by this key over these bytes.
    #[error("the signature does not verify")]
    Wrong,
}

/// A key that no device may be listed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is malformed or weak")]
pub struct WeakKey;

/// Verifies a signature over a transcript in the strict profile.
///
/// # Errors
/// [`SignatureError`] says which rule was broken.
pub fn verify(key: &PublicKey, transcript: &Transcript, signature: &Signature) -> Result<(), SignatureError> {
    verify_bytes(key, transcript.as_bytes(), signature)
}

/// The same over bare bytes, as [`sign_bytes`].
pub(super) fn verify_bytes(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
    strict_point(key.as_bytes()).ok_or(SignatureError::Key)?;
    let (r, s) = split(signature);
    strict_point(&r).ok_or(SignatureError::Point)?;
    if bool::from(curve25519_dalek::Scalar::from_canonical_bytes(s).is_none()) {
        return Err(SignatureError::Scalar);
    }
    let key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| SignatureError::Key)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    key.verify_strict(message, &signature).map_err(|_| SignatureError::Wrong)
}

/// Checks a signing key before it is believed: canonical, not of small order, in the prime-order subgroup.
///
/// # Errors
/// [`WeakKey`].
pub fn check_signing_key(key: &PublicKey) -> Result<(), WeakKey> {
    let point = strict_point(key.as_bytes()).ok_or(WeakKey)?;
    if point.is_torsion_free() { Ok(()) } else { Err(WeakKey) }
}

/// A canonical point that is not of small order. Decompression alone takes y ≥ p and a sign bit on x = 0; encoding again shows both.
fn strict_point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    let point = CompressedEdwardsY(*bytes).decompress()?;
    (point.compress().as_bytes() == bytes && !point.is_small_order()).then_some(point)
}

fn split(signature: &Signature) -> ([u8; 32], [u8; 32]) {
    let mut r = [0; 32];
    let mut s = [0; 32];
    r.copy_from_slice(&signature.as_bytes()[..32]);
    s.copy_from_slice(&signature.as_bytes()[32..]);
    (r, s)
}
