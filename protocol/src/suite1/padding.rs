//! Padmé: lengths keep only their leading bits, so that a ciphertext tells at most O(log log n) bits about its plaintext and grows by
//! at most 12 percent (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019, section 4).
//!
//! With L the length to pad, E = floor(log2 L) and S = floor(log2 E) + 1, the last E - S bits of the padded length are zero. Integers
//! only: floats differ between platforms.

/// Nothing is padded to less.
pub const MIN_PADDED_LEN: usize = 256;

/// The length of `len` bytes once padded, the 0x80 that ends them included.
#[must_use]
pub const fn padded_len(len: usize) -> usize {
    let needed = len + 1;
    if needed <= MIN_PADDED_LEN {
        return MIN_PADDED_LEN;
    }
    let exponent = needed.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let mask = (1 << (exponent - kept_bits)) - 1;
    (needed + mask) & !mask
}

/// Adds 0x80 and zeros. The buffer should have room already, so that no copy of the plaintext stays behind in freed memory.
pub(super) fn pad(buffer: &mut Vec<u8>) {
    let padded = padded_len(buffer.len());
    buffer.push(0x80);
    buffer.resize(padded, 0);
}

/// The length without padding; none if the padding isn't exactly what [`pad`] makes.
pub(super) fn unpadded_len(padded: &[u8]) -> Option<usize> {
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    (padded[end] == 0x80 && padded_len(end) == padded.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_step_as_padme_has_them() {
        let steps = [(0, 256), (255, 256), (256, 272), (271, 272), (272, 288), (511, 512), (512, 544), (1023, 1024)];
        for (len, padded) in steps {
            assert_eq!(padded_len(len), padded, "{len}");
        }
        assert_eq!(padded_len(1024), 1088);
        assert_eq!(padded_len(65_535), 65_536);
        assert_eq!(padded_len(65_536), 67_584);
    }

    #[test]
    fn padding_grows_by_an_eighth_at_most_and_never_shrinks() {
        let mut last = 0;
        for len in 256..100_000 {
            let padded = padded_len(len);
            assert!(padded > len && padded >= last && (padded - len - 1) * 100 <= 12 * (len + 1), "{len} {padded}");
            last = padded;
        }
    }

    #[test]
    fn only_exact_padding_is_taken_off() {
        let mut buffer = vec![7; 300];
        pad(&mut buffer);
        assert_eq!(unpadded_len(&buffer), Some(300));
        buffer.push(0);
        assert_eq!(unpadded_len(&buffer), None);
        assert_eq!(unpadded_len(&[0; 256]), None);
        assert_eq!(unpadded_len(&[]), None);
        let mut without_end = vec![1; 256];
        without_end[255] = 0;
        assert_eq!(unpadded_len(&without_end), None);
    }
}
