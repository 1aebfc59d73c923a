//! Ids as log-safe newtypes: no `Display`, and a `Debug` that names the kind only. What goes on the wire is asked for by name
//! ([`AccountId::to_text`], [`AccountId::as_bytes`]), so that an id can't slip into a log line or a metric label.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD_ANY_PADDING: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Base64url without padding: how REST, paths and files write bytes.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads both base64 alphabets, padded or not (proto3 JSON writes the standard one, REST the URL-safe one).
///
/// # Errors
/// [`InvalidText`] for anything else.
pub fn from_base64(text: &str) -> Result<Vec<u8>, InvalidText> {
    let engine = if text.contains(['+', '/']) { &STANDARD_ANY_PADDING } else { &URL_ANY_PADDING };
    engine.decode(text).map_err(|_| InvalidText::NotBase64)
}

/// A text that should have been bytes of a fixed length in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Neither base64 alphabet.
    #[error("not base64")]
    NotBase64,
    /// Decodes to another length.
    #[error("{given} bytes where {expected} are needed")]
    WrongLength {
        /// Bytes that were given.
        given: usize,
        /// Bytes that the field has.
        expected: usize,
    },
}

macro_rules! byte_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Draws a random one.
            pub fn random(rng: &mut impl rand::Rng) -> Self {
                let mut bytes = [0; $len];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// The bytes, for the wire, the store and associated data.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The bytes as a wire field.
            #[must_use]
            pub fn to_wire(self) -> Bytes {
                Bytes::copy_from_slice(&self.0)
            }

            /// Base64url without padding, for REST bodies and paths. Never for logs.
            #[must_use]
            pub fn to_text(self) -> String {
                to_base64(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidText;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidText> {
                let expected = $len;
                bytes.try_into().map(Self).map_err(|_| InvalidText::WrongLength { given: bytes.len(), expected })
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                Self::try_from(from_base64(text)?.as_slice())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_text())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                base64_schema(concat!(stringify!($len), " bytes in base64url"))
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

fn base64_schema(description: &str) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .description(Some(description))
        .into()
}

byte_newtype!(
    /// An account; drawn by the client that registers it.
    AccountId, 16
);
byte_newtype!(
    /// A device; drawn by the device itself, never used again after its revocation.
    DeviceId, 16
);
byte_newtype!(
    /// SHA-256 of the conversation's creation record (membership link 1).
    ConversationId, 32
);
byte_newtype!(
    /// A message; drawn by the node that accepts it, the same in every device's entry.
    MessageId, 16
);
byte_newtype!(
    /// A message before it is accepted; drawn by the sending device, the same in every retry.
    ClientMessageId, 16
);
byte_newtype!(
    /// One mailbox row; drawn at random so that rows of one message can't be joined.
    EntryId, 16
);
byte_newtype!(
    /// An offer of a new device to be linked.
    LinkId, 16
);
byte_newtype!(
    /// SHA-256, as chains and references use it.
    Hash, 32
);
byte_newtype!(
    /// A public key: Ed25519 or X25519.
    PublicKey, 32
);
byte_newtype!(
    /// An Ed25519 signature.
    Signature, 64
);

impl Hash {
    /// SHA-256 of the bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// Bytes in a REST body: written as base64url without padding, read leniently. `Debug` tells the length only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Blob(pub Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_base64(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_base64(&text).map(Self::from).map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Blob {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        base64_schema("bytes in base64url")
    }
}

impl utoipa::ToSchema for Blob {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_id() {
        assert_eq!(format!("{:?}", AccountId::new([7; 16])), "AccountId");
        assert_eq!(format!("{:?}", Blob::from(vec![7; 3])), "Blob(3 bytes)");
    }

    #[test]
    fn both_alphabets_and_paddings_read_the_same() {
        let bytes = [0xfb, 0xff, 0xbf, 0xfe];
        for text in ["-_-__g", "-_-__g==", "+/+//g", "+/+//g=="] {
            assert_eq!(from_base64(text).as_deref(), Ok(bytes.as_slice()), "{text}");
        }
        assert_eq!(from_base64("a b"), Err(InvalidText::NotBase64));
        assert_eq!("AAAA".parse::<AccountId>(), Err(InvalidText::WrongLength { given: 3, expected: 16 }));
    }
}
