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
    let mut halves = [one, other].map(|fingerprint| half(fingerprint.as_bytes(), fingerprint.as_bytes()));
    halves.sort();
    halves.concat()
}

fn half(key: &[u8], identifier: &[u8]) -> String {
    let first = Sha512::new().chain_update([&[0, 0], key, identifier].concat()).chain_update(key);
    let hash =
        (1..ITERATIONS).fold(first.finalize(), |hash, _| Sha512::new().chain_update(hash).chain_update(key).finalize());
    hash[..30]
        .chunks_exact(5)
        .map(|group| format!("{:05}", group.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) % 100_000))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// The numbers that Signal's clients have shown for these two keys and telephone numbers since 2016.
    #[test]
    fn iterates_as_signal_documents() {
        let alice = hex("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868");
        let bob = hex("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b");
        assert_eq!(half(&alice, b"+14152222222"), "300354477692869396892869876765");
        assert_eq!(half(&bob, b"+14153333333"), "458257569162576843440918079131");
    }

    #[test]
    fn both_sides_see_the_same() {
        let (one, other) = (Hash::of(b"one"), Hash::of(b"other"));
        let number = safety_number(&one, &other);
        assert_eq!(number, safety_number(&other, &one));
        assert!(number.len() == 60 && number.bytes().all(|digit| digit.is_ascii_digit()));
        assert_ne!(number, safety_number(&one, &Hash::of(b"third")));
    }
}
