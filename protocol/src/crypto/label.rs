//! Labels and transcripts: what keeps one use of a key apart from every other.

/// What an input is for. On the wire: `"martlet/v1/"`, the name, one zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// Signature over a device list.
    DeviceList,
    /// Signature over a membership link.
    Membership,
    /// Signature over a prekey.
    Prekey,
    /// Signature that proves a listed device when it signs in again.
    SignIn,
    /// Signature over a message's plaintext.
    Message,
    /// HKDF info of the key that encrypts content.
    ContentKey,
    /// HKDF info of the commitment to a content key.
    ContentCommitment,
    /// Associated data of content.
    Content,
    /// HPKE info of a fork header.
    Fork,
    /// Associated data of a fork header.
    ForkHeader,
    /// HPKE info of a mailbox seal.
    Mailbox,
    /// HPKE exporter context of the mailbox key.
    MailboxKey,
    /// Associated data of a mailbox entry.
    MailboxEntry,
    /// HPKE info of a link's answer.
    Link,
    /// Associated data of a link's answer.
    LinkAnswer,
}

impl Label {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::DeviceList,
        Self::Membership,
        Self::Prekey,
        Self::SignIn,
        Self::Message,
        Self::ContentKey,
        Self::ContentCommitment,
        Self::Content,
        Self::Fork,
        Self::ForkHeader,
        Self::Mailbox,
        Self::MailboxKey,
        Self::MailboxEntry,
        Self::Link,
        Self::LinkAnswer,
    ];

    /// The exact bytes, the closing zero included. No label is the beginning of another.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::DeviceList => b"martlet/v1/device list\0",
            Self::Membership => b"martlet/v1/membership\0",
            Self::Prekey => b"martlet/v1/prekey\0",
            Self::SignIn => b"martlet/v1/sign-in\0",
            Self::Message => b"martlet/v1/message\0",
            Self::ContentKey => b"martlet/v1/content key\0",
            Self::ContentCommitment => b"martlet/v1/content commitment\0",
            Self::Content => b"martlet/v1/content\0",
            Self::Fork => b"martlet/v1/fork\0",
            Self::ForkHeader => b"martlet/v1/fork header\0",
            Self::Mailbox => b"martlet/v1/mailbox\0",
            Self::MailboxKey => b"martlet/v1/mailbox key\0",
            Self::MailboxEntry => b"martlet/v1/mailbox entry\0",
            Self::Link => b"martlet/v1/link\0",
            Self::LinkAnswer => b"martlet/v1/link answer\0",
        }
    }
}

/// Bytes to sign or to authenticate: label, then fixed-size fields, then variable ones behind their length.
///
/// A transcript may hold ids, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// Starts with the label.
    #[must_use]
    pub fn new(label: Label) -> Self {
        Self(label.as_bytes().to_vec())
    }

    /// Adds a field whose size never varies, as it is.
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds one byte.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Adds a big-endian `u32`.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.fixed(&value.to_be_bytes())
    }

    /// Adds a big-endian `u64`.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.fixed(&value.to_be_bytes())
    }

    /// Adds a field of any size behind its length as a big-endian `u32`.
    ///
    /// # Panics
    /// Over 4 GiB, which no limit of the protocol lets through.
    #[must_use]
    pub fn variable(self, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("fields are far below 4 GiB");
        self.u32(len).fixed(bytes)
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_begins_another() {
        for (i, one) in Label::ALL.iter().enumerate() {
            for (j, other) in Label::ALL.iter().enumerate() {
                assert!(i == j || !other.as_bytes().starts_with(one.as_bytes()), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn fields_stand_behind_their_lengths() {
        let transcript = Transcript::new(Label::Fork).u8(1).u32(2).variable(b"ab");
        assert_eq!(transcript.as_bytes(), b"martlet/v1/fork\0\x01\0\0\0\x02\0\0\0\x02ab");
    }
}
