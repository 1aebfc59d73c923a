//! What is published: a small header, a payload of the schema, and a MAC under the cluster's key. Whoever holds Redis can drop and delay
//! messages, but not forge, alter, or move one to another channel.
//!
//! ```text
//! message = version (1) ‖ kind (1) ‖ node (16) ‖ sent_at_ms (u64) ‖ payload ‖ mac (16)
//! mac     = HMAC-SHA256(relay key, "martlet/v1/relay message\0" ‖ u32 length of channel ‖ channel ‖ all before the mac)[..16]
//! ```
//! A recorded message can be played again; what it then does is each kind's matter. Numbers are big-endian. Knows nothing of Redis.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use martlet_protocol::wire;
use prost::Message as _;
use sha2::Sha256;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"martlet/v1/relay message\0";
const HEADER_BYTES: usize = 1 + 1 + size_of::<NodeTag>() + 8;
const MAC_BYTES: usize = 16;

/// Which node speaks: random, drawn at its start.
pub(super) type NodeTag = [u8; 16];

/// What is said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// Entries of the channel's mailbox.
    Entries(wire::RelayEntries),
    /// Who holds the device's socket.
    Claim(wire::RelayClaim),
    /// The control stream has grown.
    ControlHint,
    /// An ephemeral message for the device.
    Whisper(wire::RelayWhisper),
    /// This node could not publish for a while: everybody had better compare heads.
    CompareHeads,
    /// Entries of the channel's log.
    LogEntries(wire::RelayLogEntries),
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Entries(_) => 1,
            Self::Claim(_) => 2,
            Self::ControlHint => 3,
            Self::Whisper(_) => 4,
            Self::CompareHeads => 5,
            Self::LogEntries(_) => 6,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let encoded = match self {
            Self::Entries(entries) => entries.encode(out),
            Self::Claim(claim) => claim.encode(out),
            Self::ControlHint | Self::CompareHeads => Ok(()),
            Self::Whisper(whisper) => whisper.encode(out),
            Self::LogEntries(entries) => entries.encode(out),
        };
        if encoded.is_err() {
            unreachable!("a Vec takes as much as memory holds");
        }
    }

    /// Slices of `payload`, so that nothing is copied.
    fn decode(kind: u8, payload: Bytes) -> Result<Self, BadMessage> {
        let body = match kind {
            1 => wire::RelayEntries::decode(payload).map(Self::Entries),
            2 => wire::RelayClaim::decode(payload).map(Self::Claim),
            3 if payload.is_empty() => Ok(Self::ControlHint),
            4 => wire::RelayWhisper::decode(payload).map(Self::Whisper),
            5 if payload.is_empty() => Ok(Self::CompareHeads),
            6 => wire::RelayLogEntries::decode(payload).map(Self::LogEntries),
            _ => return Err(BadMessage::Kind),
        };
        body.map_err(|_| BadMessage::Payload)
    }
}

/// A message of another node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Opened {
    pub(super) sent_at_ms: u64,
    pub(super) body: Body,
}

/// Why a message was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    /// Shorter than the shortest.
    #[error("it is cut off")]
    Short,
    /// Of another version of the format.
    #[error("it is of a version that this release does not know")]
    Version,
    /// Not sealed under this key for this channel.
    #[error("it is not authentic; nodes of a cluster need the same node.secret, and a Redis of their own")]
    Mac,
    /// Of an unknown kind.
    #[error("it is of a kind that this release does not know")]
    Kind,
    /// Authentic, and yet not of the schema.
    #[error("its payload can't be read")]
    Payload,
}

/// Makes and checks messages.
pub(super) struct Sealer {
    node: NodeTag,
    /// Keyed once; clones cost no hashing.
    keyed: Hmac<Sha256>,
}

impl Sealer {
    pub(super) fn new(key: &[u8; 32], node: NodeTag) -> Self {
        let Ok(mut keyed) = Hmac::<Sha256>::new_from_slice(key) else {
            unreachable!("HMAC takes keys of any length");
        };
        keyed.update(LABEL);
        Self { node, keyed }
    }

    /// The message for a channel.
    pub(super) fn seal(&self, channel: &[u8], sent_at_ms: u64, body: &Body) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_BYTES + MAC_BYTES + 128);
        message.extend_from_slice(&[VERSION, body.kind()]);
        message.extend_from_slice(&self.node);
        message.extend_from_slice(&sent_at_ms.to_be_bytes());
        body.encode(&mut message);
        let mac = self.mac(channel, &message).finalize().into_bytes();
        message.extend_from_slice(&mac[..MAC_BYTES]);
        message
    }

    /// What another node says in a message; `None` if it is an echo of this node's own.
    pub(super) fn open(&self, channel: &[u8], message: &Bytes) -> Result<Option<Opened>, BadMessage> {
        let end = message.len().checked_sub(MAC_BYTES).filter(|end| *end >= HEADER_BYTES).ok_or(BadMessage::Short)?;
        let (signed, mac) = message.split_at(end);
        let [version, kind, rest @ ..] = signed else { return Err(BadMessage::Short) };
        if *version != VERSION {
            return Err(BadMessage::Version);
        }
        // Echoes are most of what comes where a device's senders are on its own node, and need no proof to be ignored.
        if rest.starts_with(&self.node) {
            return Ok(None);
        }
        self.mac(channel, signed).verify_truncated_left(mac).map_err(|_| BadMessage::Mac)?;
        let sent_at_ms = rest
            .get(size_of::<NodeTag>()..HEADER_BYTES - 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
            .ok_or(BadMessage::Short)?;
        let body = Body::decode(*kind, message.slice(HEADER_BYTES..end))?;
        Ok(Some(Opened { sent_at_ms, body }))
    }

    fn mac(&self, channel: &[u8], signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(&u32::try_from(channel.len()).unwrap_or(u32::MAX).to_be_bytes());
        mac.update(channel);
        mac.update(signed);
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHANNEL: &[u8] = b"m:7";

    fn sealer(node: u8) -> Sealer {
        Sealer::new(&[9; 32], [node; 16])
    }

    fn bodies() -> Vec<Body> {
        let entry = wire::MailboxEntry { seq: 3, sealed: Bytes::from_static(b"sealed"), ..Default::default() };
        let item = Some(wire::relay_entry::Item::Entry(entry));
        vec![
            Body::Entries(wire::RelayEntries { entries: vec![wire::RelayEntry { item }], epoch: 1 }),
            Body::Claim(wire::RelayClaim { connected_at_ms: 5, tie: 6, age_ms: 7 }),
            Body::ControlHint,
            Body::Whisper(wire::RelayWhisper { expires_at_ms: 8, payload: Bytes::from_static(b"typing") }),
            Body::CompareHeads,
            Body::LogEntries(wire::RelayLogEntries {
                entries: vec![wire::LogEntry { seq: 4, content: Bytes::from_static(b"for all"), ..Default::default() }],
                head_seq: 5,
                expires_at_s: vec![9],
                epoch: 1,
            }),
        ]
    }

    #[test]
    fn what_one_node_says_another_reads_and_the_speaker_ignores() {
        for body in bodies() {
            let message = Bytes::from(sealer(1).seal(CHANNEL, 1234, &body));
            assert_eq!(sealer(2).open(CHANNEL, &message), Ok(Some(Opened { sent_at_ms: 1234, body })));
            assert_eq!(sealer(1).open(CHANNEL, &message), Ok(None));
        }
    }

    #[test]
    fn no_byte_of_it_can_be_changed_and_it_can_not_be_moved() {
        for body in bodies() {
            let message = sealer(1).seal(CHANNEL, 1234, &body);
            for at in 0..message.len() {
                let mut altered = message.clone();
                altered[at] ^= 1;
                assert!(sealer(2).open(CHANNEL, &altered.into()).is_err(), "byte {at}");
                assert!(sealer(2).open(CHANNEL, &Bytes::copy_from_slice(&message[..at])).is_err(), "cut at {at}");
            }
            assert_eq!(sealer(2).open(b"m:8", &message.clone().into()), Err(BadMessage::Mac));
            let other_key = Sealer::new(&[8; 32], [2; 16]);
            assert_eq!(other_key.open(CHANNEL, &message.into()), Err(BadMessage::Mac));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let message = sealer(1).seal(CHANNEL, 0x0102, &Body::ControlHint);
        let mut signed = vec![1, 3];
        signed.extend([1; 16]);
        signed.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        let mut mac = Hmac::<Sha256>::new_from_slice(&[9; 32]).expect("a key");
        mac.update(b"martlet/v1/relay message\0\0\0\0\x03m:7");
        mac.update(&signed);
        signed.extend(&mac.finalize().into_bytes()[..16]);
        assert_eq!(message, signed);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(channel: Vec<u8>, message: Vec<u8>) {
            prop_assert!(!matches!(sealer(1).open(&channel, &message.into()), Ok(Some(_))));
        }

        #[test]
        fn a_hostile_payload_under_a_good_mac_does_no_harm(kind in 0..8_u8, payload: Vec<u8>) {
            let size = payload.len();
            // Each entry takes at least two bytes of the payload, so that memory is bounded by what came.
            match Body::decode(kind, payload.into()) {
                Ok(Body::Entries(entries)) => prop_assert!(entries.entries.len() * 2 <= size),
                Ok(Body::LogEntries(entries)) => prop_assert!(entries.entries.len() * 2 <= size),
                _ => {}
            }
        }
    }
}
