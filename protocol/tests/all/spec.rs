//! The bytes of docs/PROTOCOL.md written a second time, from the document and the plain primitives only. What the library makes
//! must open here, and what is made here must open there; so a slip in one of them shows.

use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag, aead::inout::InOutBuf};
use hkdf::Hkdf;
use hpke::{Deserializable as _, OpModeR};
use sha2::Sha256;

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

pub fn label(name: &str) -> Vec<u8> {
    format!("martlet/v1/{name}\0").into_bytes()
}

pub fn derive(key: &[u8; 32], name: &str) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(None, key).expand(&label(name), &mut out).expect("short");
    out
}

pub fn aead_seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = plaintext.to_vec();
    let cipher = ChaCha20Poly1305::new(key.into());
    let tag =
        cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(out.as_mut_slice())).expect("short");
    out.extend_from_slice(&tag);
    out
}

pub fn aead_open(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (body, tag) = sealed.split_at(sealed.len().checked_sub(16)?);
    let mut out = body.to_vec();
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(out.as_mut_slice()), &Tag::try_from(tag).ok()?)
        .ok()?;
    Some(out)
}

/// Content: prefix, then the padded plaintext under the content key.
pub fn content(k: &[u8; 32], version: u8, suite: u32, padded: &[u8]) -> Vec<u8> {
    let prefix = [&[version], &suite.to_be_bytes()[..], &derive(k, "content commitment")].concat();
    let aad = [label("content"), prefix.clone()].concat();
    [prefix, aead_seal(&derive(k, "content key"), [0; 12], &aad, padded)].concat()
}

pub fn open_content(k: &[u8; 32], content: &[u8]) -> Option<Vec<u8>> {
    let (prefix, sealed) = content.split_at_checked(37)?;
    let aad = [label("content"), prefix.to_vec()].concat();
    (prefix[5..] == derive(k, "content commitment"))
        .then(|| aead_open(&derive(k, "content key"), [0; 12], &aad, sealed))
        .flatten()
}

/// The ids in the order of the document.
pub struct HeaderContext {
    pub conversation: [u8; 32],
    pub sender_account: [u8; 16],
    pub sender_device: [u8; 16],
    pub account: [u8; 16],
    pub device: [u8; 16],
    pub client_message_id: [u8; 16],
    pub content_hash: [u8; 32],
}

pub fn open_header(secret: &[u8; 32], header: &[u8], context: &HeaderContext) -> Option<Vec<u8>> {
    let aad = [
        &label("fork header")[..],
        &context.conversation,
        &context.sender_account,
        &context.sender_device,
        &context.account,
        &context.device,
        &header[..5],
        &context.client_message_id,
        &context.content_hash,
    ]
    .concat();
    hpke::single_shot_open::<Aead, Kdf, Kem>(
        &OpModeR::Base,
        &<Kem as hpke::Kem>::PrivateKey::from_bytes(secret).ok()?,
        &<Kem as hpke::Kem>::EncappedKey::from_bytes(&header[5..37]).ok()?,
        &label("fork"),
        &header[37..],
        &aad,
    )
    .ok()
}

/// A sealed mailbox entry.
pub fn open_entry(secret: &[u8; 32], device: &[u8; 16], entry: &[u8; 16], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = mailbox_key(secret, &sealed[..32])?;
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sealed[32..40]);
    let aad = [&label("mailbox entry")[..], device, entry].concat();
    aead_open(&key, nonce, &aad, &sealed[40..])
}

/// A sealed mailbox entry with these bytes inside, by whoever holds the mailbox key.
pub fn seal_entry(
    secret: &[u8; 32],
    device: &[u8; 16],
    entry: &[u8; 16],
    enc: &[u8],
    counter: [u8; 8],
    inside: &[u8],
) -> Vec<u8> {
    let key = mailbox_key(secret, enc).expect("32 bytes");
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter);
    let aad = [&label("mailbox entry")[..], device, entry].concat();
    [enc, &counter, &aead_seal(&key, nonce, &aad, inside)].concat()
}

fn mailbox_key(secret: &[u8; 32], enc: &[u8]) -> Option<[u8; 32]> {
    let context = hpke::setup_receiver::<Aead, Kdf, Kem>(
        &OpModeR::Base,
        &<Kem as hpke::Kem>::PrivateKey::from_bytes(secret).ok()?,
        &<Kem as hpke::Kem>::EncappedKey::from_bytes(enc).ok()?,
        &label("mailbox"),
    )
    .ok()?;
    let mut key = [0; 32];
    context.export(&label("mailbox key"), &mut key).ok()?;
    Some(key)
}
