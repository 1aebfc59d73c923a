//! Suite 1: a message is encrypted once, and each recipient device gets its key under HPKE (a fork header).
//!
//! ```text
//! k            = 32 random bytes                                                        one per message
//! k_enc, k_com = HKDF-SHA256(ikm = k, no salt, info = label), 32 bytes each             labels "content key", "content commitment"
//! signed       = the bytes of a `Plaintext` (protobuf)
//! signature    = Ed25519("martlet/v1/message\0" ‖ signed, length-prefixed)              64 bytes, by the sending device
//! padded       = signed ‖ signature ‖ 0x80 ‖ zeros                                      to a Padmé length, at least 256
//! prefix       = version (1 byte, 1) ‖ suite (u32, 1) ‖ k_com (32)
//! content      = prefix ‖ ChaCha20-Poly1305(k_enc, nonce = 12 zeros, aad = "martlet/v1/content\0" ‖ prefix, padded)
//!
//! fork header  = prekey kind (1 byte) ‖ key_id (u32) ‖ enc (32) ‖ ct (48)               85 bytes
//! enc, ct      = HPKE-Base to the prekey, info = "martlet/v1/fork\0", plaintext k,
//!                aad = "martlet/v1/fork header\0" ‖ conversation_id (32) ‖ sender account (16) ‖ sender device (16)
//!                      ‖ recipient account (16) ‖ recipient device (16) ‖ prekey kind (1) ‖ key_id (u32)
//!                      ‖ client_message_id (16) ‖ SHA-256(content) (32)
//! ```
//! Numbers are big-endian. HPKE is RFC 9180's DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 (sections 5.1.1 and 6.1);
//! HKDF is RFC 5869, the AEAD RFC 8439. The key is used for one content, so its nonce may be fixed. ChaCha20-Poly1305 alone does not
//! commit to its key; `k_com`, which receivers check, makes one content open to one plaintext for everybody.
//!
//! An echo, the sending device's own entry, has a header of zeros only, as long as the forks beside it.
//!
//! It does not decide who the recipients are, nor whether a message is new: that is the client's, by lists and message ids.

mod content;
mod header;
mod padding;

pub use content::{CONTENT_OVERHEAD, ContentError, ContentKey, OpenedPlaintext, open_content, seal_content};
pub use content::{MAX_EPHEMERAL_LIFETIME_MS, MessageKind};
pub use header::{ECHO_HEADER_LEN, FORK_HEADER_LEN, ForkContext, ForkHeader, Header, HeaderError, echo_header};
pub use header::{fork_header, open_header, parse_header};
pub use padding::{MIN_PADDED_LEN, padded_len};

/// Version of the content's form.
pub const VERSION: u8 = 1;
