//! First answers for retries: what a row holds tells a reader of the database neither sender nor recipient.
//!
//! ```text
//! row key     = HMAC-SHA256(K, "row" ‖ device_id ‖ client_message_id)
//! request MAC = HMAC-SHA256(K, "request" ‖ row key ‖ request)
//! answer      = ChaCha20-Poly1305(HMAC-SHA256(A, row key), nonce 0, aad = row key, Accepted)
//! ```
//! K and A are derived from the node's secret file. A first answer never changes, so one key seals one plaintext. `request` is the node's
//! own encoding of what it parsed: good for comparing, and used for nothing else.

use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use martlet_protocol::{id::DeviceId, wire};
use prost::Message as _;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::secrets::Secrets;

/// Names one request of one device, without showing either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    pub row: [u8; 32],
    pub mac: [u8; 32],
}

impl RequestKey {
    /// Whether a stored row is of the same bytes.
    pub fn same_request(&self, stored_mac: &[u8]) -> bool {
        self.mac.as_slice().ct_eq(stored_mac).into()
    }
}

/// The keys that are not in the database.
pub struct Answers(Arc<Secrets>);

impl Answers {
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self(secrets)
    }

    pub fn request_key(&self, device: &DeviceId, request: &wire::SendRequest) -> RequestKey {
        let row = mac(self.0.idempotency_key(), &[b"row", device.as_bytes(), &request.client_message_id]);
        let mac = mac(self.0.idempotency_key(), &[b"request", &row, &request.encode_to_vec()]);
        RequestKey { row, mac }
    }

    /// `None` only if the cipher refuses, which it does for no input of this size.
    pub fn seal(&self, key: &RequestKey, accepted: &wire::Accepted) -> Option<Vec<u8>> {
        let payload = Payload { msg: &accepted.encode_to_vec(), aad: &key.row };
        self.cipher(key).encrypt(&Nonce::default(), payload).ok()
    }

    /// `None` if the row was altered or sealed under another secret.
    pub fn open(&self, key: &RequestKey, sealed: &[u8]) -> Option<wire::Accepted> {
        let plain = self.cipher(key).decrypt(&Nonce::default(), Payload { msg: sealed, aad: &key.row }).ok()?;
        wire::Accepted::decode(Bytes::from(plain)).ok()
    }

    fn cipher(&self, key: &RequestKey) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&mac(self.0.answer_key(), &[&key.row]).into())
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes keys of any length") };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers::new(Arc::new(Secrets::derive(&[7; 32])))
    }

    fn request(client_message_id: u8, content: &'static [u8]) -> wire::SendRequest {
        wire::SendRequest {
            client_message_id: Bytes::from(vec![client_message_id; 16]),
            content: Bytes::from_static(content),
            ..Default::default()
        }
    }

    #[test]
    fn a_retry_has_the_same_key_and_other_bytes_another_mac() {
        let (answers, device) = (answers(), DeviceId::new([1; 16]));
        let first = answers.request_key(&device, &request(9, b"one"));
        assert!(first.same_request(&answers.request_key(&device, &request(9, b"one")).mac));

        let altered = answers.request_key(&device, &request(9, b"two"));
        assert_eq!(first.row, altered.row);
        assert!(!first.same_request(&altered.mac));

        assert_ne!(first.row, answers.request_key(&DeviceId::new([2; 16]), &request(9, b"one")).row);
        assert_ne!(first.row, answers.request_key(&device, &request(8, b"one")).row);
    }

    #[test]
    fn an_answer_opens_under_its_own_row_only() {
        let (answers, device) = (answers(), DeviceId::new([1; 16]));
        let (one, other) = (request(9, b"one"), request(8, b"one"));
        let key = answers.request_key(&device, &one);
        let accepted = wire::Accepted { accepted_at_ms: 5, ..Default::default() };
        let sealed = answers.seal(&key, &accepted).expect("sealed");
        assert_eq!(answers.open(&key, &sealed), Some(accepted));
        assert_eq!(answers.open(&answers.request_key(&device, &other), &sealed), None);
        assert_eq!(answers.open(&key, &sealed[1..]), None);
    }
}
