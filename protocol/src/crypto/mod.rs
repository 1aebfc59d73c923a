//! Signatures, keys and transcripts: the small parts that chains, suite 1, links and the seal are made of.
//!
//! Everything that is signed, derived or authenticated starts with a label (`"martlet/v1/<use>\0"`, [`Label`]), then fixed-size
//! fields, then variable ones, each behind its length as a big-endian `u32` ([`Transcript`]). So no two uses share an input.
//!
//! It does not draw randomness, read a clock or keep keys anywhere: all three are the caller's.

mod dh;
#[cfg(test)]
mod known_answers;
mod label;
mod prekey;
mod safety;
mod sign;

pub use dh::{DhSecret, check_dh_key};
pub(crate) use dh::{HpkeAead, HpkeKdf, HpkeKem, hpke_public};
pub use label::{Label, Transcript};
pub(crate) use prekey::check_usable_prekey;
pub use prekey::{
    PrekeyError, UnsignedPrekey, VerifiedPrekey, sign_in_proof, sign_prekey, verify_prekey, verify_sign_in_proof,
};
pub use safety::safety_number;
pub use sign::{SignatureError, SigningKey, WeakKey, check_signing_key, verify};

/// The built-in suite: HPKE forks (see [`crate::suite1`]).
pub const SUITE_1: u32 = 1;

/// Suites that this crate can seal and open. A node carries any other as opaque bytes.
pub const KNOWN_SUITES: &[u32] = &[SUITE_1];
