//! The safety number that two people compare, by the iterated hash that Signal documents for numeric fingerprints.
//!
//! For each account: `h0 = version (u16, 0) ‖ fingerprint ‖ fingerprint`, then 5200 times `h = SHA-512(h ‖ fingerprint)`, so that
//! looking for a second chain with the same 30 digits costs 5200 hashes per try. Of the last hash the first 30 bytes give six
//! groups: five bytes, big-endian, modulo 100,000. Both halves are sorted, so that both people see the same 60 digits.
//!
//! The fingerprint stands in for both of Signal's inputs, the identity key and the stable identifier: it is the hash of list 1,
//! which holds the account id and the first device's keys.

use sha2::{Digest as _, Sha512};

use crate::id::Hash;

const ITERATIONS: usize = 5200;

/// 60 digits that both people see alike. Group them for display by fives.
#[must_use]
pub fn safety_number(one: &Hash, other: &Hash) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort();
    halves.concat()
}

fn half(fingerprint: &Hash) -> String {
    let fingerprint = fingerprint.as_bytes();
    let mut hash = [&[0, 0], &fingerprint[..], &fingerprint[..]].concat();
    for _ in 0..ITERATIONS {
        hash = Sha512::new().chain_update(&hash).chain_update(fingerprint).finalize().to_vec();
    }
    hash[..30]
        .chunks_exact(5)
        .map(|group| format!("{:05}", group.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) % 100_000))
        .collect()
}
