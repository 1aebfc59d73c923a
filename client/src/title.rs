//! A conversation's title as the server keeps it: ciphertext under a key that members tell each other in a message.
//!
//! `nonce (24) ‖ XChaCha20-Poly1305(key, title, aad = "martlet/v1/title\0" ‖ conversation_id)`.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use martlet_protocol::id::ConversationId;
use rand::{Rng as _, rngs::StdRng};

use crate::secret::Secret;

const NONCE_BYTES: usize = 24;
const LABEL: &[u8] = b"martlet/v1/title\0";

/// Seals a title.
///
/// # Panics
/// Over 256 GiB.
pub fn seal_title(key: &Secret, conversation_id: &ConversationId, title: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    let aad = [LABEL, conversation_id.as_bytes()].concat();
    let sealed = XChaCha20Poly1305::new(key.expose().into())
        .encrypt(&XNonce::from(nonce), Payload { msg: title.as_bytes(), aad: &aad })
        .expect("a title is far below the cipher's limit");
    [nonce.as_slice(), &sealed].concat()
}

/// Opens a title; none if it was sealed for another conversation, or under another key.
#[must_use]
pub fn open_title(key: &Secret, conversation_id: &ConversationId, sealed: &[u8]) -> Option<String> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let aad = [LABEL, conversation_id.as_bytes()].concat();
    let opened = XChaCha20Poly1305::new(key.expose().into())
        .decrypt(&XNonce::try_from(nonce).ok()?, Payload { msg: sealed, aad: &aad })
        .ok()?;
    String::from_utf8(opened).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_title_opens_in_its_conversation_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let (key, here, there) = (Secret::new([1; 32]), ConversationId::new([2; 32]), ConversationId::new([3; 32]));
        let sealed = seal_title(&key, &here, "Swallows", &mut rng);
        assert_eq!(open_title(&key, &here, &sealed).as_deref(), Some("Swallows"));
        assert_eq!(open_title(&key, &there, &sealed), None);
    }
}
