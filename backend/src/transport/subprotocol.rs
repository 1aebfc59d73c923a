//! The two sub-protocols: one schema, written as protobuf in binary messages or as proto3 JSON in text messages.
//!
//! A mailbox has one reader per node, so each entry is encoded once; content that several devices share is not even copied.

use bytes::{Bytes, BytesMut};
use martlet_protocol::{id::ConversationId, problem::close, wire};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::{
    incoming::Violation,
    outbox::{Opcode, Outbox, whole_frame},
};
use crate::subscribers::{FORMS, LiveItem, LiveLogItem};

/// How a socket's messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubProtocol {
    /// `martlet.v1.proto`
    Proto,
    /// `martlet.v1.json`
    Json,
}

/// Shared content from this size on is worth a piece of its own in the write.
const SHARE_FROM_BYTES: usize = 2048;

/// Numbers of the schema's fields, for the messages that are written piece by piece.
const NODE_FRAME_ENTRY: u32 = 3;
const NODE_FRAME_EPHEMERAL: u32 = 10;
const MAILBOX_ENTRY_CONTENT: u32 = 4;

impl SubProtocol {
    /// Both, best first.
    pub(super) const ALL: [Self; FORMS] = [Self::Proto, Self::Json];

    /// Its name in `Sec-WebSocket-Protocol`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Proto => "martlet.v1.proto",
            Self::Json => "martlet.v1.json",
        }
    }

    /// The place of what is written in it among the forms of an item.
    pub(super) const fn form(self) -> usize {
        self as usize
    }

    /// The frame that brings an item of a log, written once for all who read it.
    pub(super) fn log_item(self, conversation_id: &ConversationId, item: &LiveLogItem) -> Bytes {
        let write_frame = |item: &wire::log_item::Item| {
            let items = vec![wire::LogItem { item: Some(item.clone()) }];
            let items = wire::LogItems { conversation_id: conversation_id.to_wire(), items };
            let frame = unasked(wire::node_frame::Frame::LogItems(items));
            match self {
                Self::Proto => whole_frame(Opcode::Binary, frame.encoded_len(), |out| write(&frame, out)),
                Self::Json => {
                    let text = serde_json::to_vec(&frame).unwrap_or_default();
                    whole_frame(Opcode::Text, text.len(), |out| out.extend_from_slice(&text))
                }
            }
        };
        item.form(self.form(), write_frame).clone()
    }

    /// Reads a message. Copies it, so that a frame that waits for its commit doesn't hold the whole read buffer.
    pub(super) fn decode(self, message: &[u8]) -> Result<wire::ClientFrame, Violation> {
        match self {
            Self::Proto => {
                wire::ClientFrame::decode(Bytes::copy_from_slice(message)).map_err(|_| Violation(close::MALFORMED))
            }
            Self::Json => {
                let text = std::str::from_utf8(message).map_err(|_| Violation(close::INVALID_TEXT))?;
                serde_json::from_str(text).map_err(|_| Violation(close::MALFORMED))
            }
        }
    }

    /// Writes a frame.
    pub(super) fn encode(self, frame: &wire::NodeFrame, out: &mut Outbox) {
        match self {
            Self::Proto => {
                let len = frame.encoded_len();
                out.frame(Opcode::Binary, len, |out| {
                    out.reserve(len);
                    write(frame, out);
                });
            }
            Self::Json => {
                // A frame of the schema has string keys and nothing that JSON can't say.
                let text = serde_json::to_vec(frame).unwrap_or_default();
                out.frame(Opcode::Text, text.len(), |out| out.extend_from_slice(&text));
            }
        }
    }

    /// Writes an entry or a gap marker, sharing large content.
    pub(super) fn encode_item(self, item: LiveItem, out: &mut Outbox) {
        match item {
            LiveItem::Entry(entry) if self == Self::Proto && entry.content.len() >= SHARE_FROM_BYTES => {
                encode_sharing(entry, out);
            }
            LiveItem::Entry(entry) => self.encode(&unasked(wire::node_frame::Frame::Entry(entry)), out),
            LiveItem::Gap(gap) => self.encode(&unasked(wire::node_frame::Frame::Gap(gap)), out),
        }
    }

    /// Writes an ephemeral message, which comes encoded. One that can't be read is left out.
    pub(super) fn encode_whisper(self, payload: &[u8], out: &mut Outbox) {
        match self {
            Self::Proto => {
                let key_len = encoded_len_varint(u64::from(NODE_FRAME_EPHEMERAL << 3));
                let payload_len = payload.len() as u64;
                let len = key_len + encoded_len_varint(payload_len) + payload.len();
                out.frame(Opcode::Binary, len, |out| {
                    encode_key(NODE_FRAME_EPHEMERAL, WireType::LengthDelimited, out);
                    encode_varint(payload_len, out);
                    out.extend_from_slice(payload);
                });
            }
            Self::Json => {
                if let Ok(ephemeral) = wire::Ephemeral::decode(payload) {
                    self.encode(&unasked(wire::node_frame::Frame::Ephemeral(ephemeral)), out);
                }
            }
        }
    }
}

/// A frame that answers nothing.
pub(super) fn unasked(frame: wire::node_frame::Frame) -> wire::NodeFrame {
    wire::NodeFrame { r#ref: 0, frame: Some(frame) }
}

/// The same bytes as of the whole frame, but for the content, which follows as it is: it is the entry's last field.
fn encode_sharing(mut entry: wire::MailboxEntry, out: &mut Outbox) {
    let content = std::mem::take(&mut entry.content);
    let key_len = 1;
    let rest_len = entry.encoded_len() + key_len + encoded_len_varint(content.len() as u64);
    let entry_len = (rest_len + content.len()) as u64;
    let filled_len = key_len + encoded_len_varint(entry_len) + rest_len;
    let content_len = content.len() as u64;
    let fill = |out: &mut BytesMut| {
        encode_key(NODE_FRAME_ENTRY, WireType::LengthDelimited, out);
        encode_varint(entry_len, out);
        write(&entry, out);
        encode_key(MAILBOX_ENTRY_CONTENT, WireType::LengthDelimited, out);
        encode_varint(content_len, out);
    };
    out.frame_with(Opcode::Binary, filled_len, fill, content);
}

/// A buffer that grows has room, which is the only thing that encoding can lack.
fn write(message: &impl prost::Message, out: &mut BytesMut) {
    let encoded = message.encode(out);
    debug_assert!(encoded.is_ok());
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io};

    use super::*;
    use crate::transport::outbox::Sink;

    #[derive(Default)]
    struct Everything(RefCell<Vec<u8>>);

    impl Sink for Everything {
        fn try_write(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
            self.0.borrow_mut().extend(pieces.iter().flat_map(|piece| piece.to_vec()));
            Ok(pieces.iter().map(|piece| piece.len()).sum())
        }
    }

    fn entry(content: usize) -> wire::MailboxEntry {
        wire::MailboxEntry {
            seq: 300,
            entry_id: vec![1; 16].into(),
            sealed: vec![2; 200].into(),
            content: vec![3; content].into(),
        }
    }

    /// The payload of the one frame.
    fn written(fill: impl FnOnce(&mut Outbox)) -> Vec<u8> {
        let mut outbox = Outbox::default();
        fill(&mut outbox);
        let sink = Everything::default();
        outbox.write(&sink).expect("takes everything");
        let bytes = sink.0.into_inner();
        let head = match bytes[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        bytes[head..].to_vec()
    }

    #[test]
    fn shared_content_reads_like_any() {
        for content in [0, 1, SHARE_FROM_BYTES - 1, SHARE_FROM_BYTES, 70_000] {
            let item = LiveItem::Entry(entry(content));
            let written = |subprotocol: SubProtocol| written(|out| subprotocol.encode_item(item.clone(), out));
            let frame = wire::NodeFrame::decode(written(SubProtocol::Proto).as_slice()).expect("protobuf");
            assert_eq!(frame, unasked(wire::node_frame::Frame::Entry(entry(content))));
            let frame: wire::NodeFrame = serde_json::from_slice(&written(SubProtocol::Json)).expect("JSON");
            assert_eq!(frame, unasked(wire::node_frame::Frame::Entry(entry(content))));
        }
    }

    #[test]
    fn whispers_read_like_any_frame() {
        for content in [0, 100, 70_000] {
            let ephemeral = wire::Ephemeral {
                entry_id: vec![1; 16].into(),
                sealed: vec![2; 200].into(),
                content: vec![3; content].into(),
                expires_at_ms: 9,
            };
            let payload = ephemeral.encode_to_vec();
            let written = |subprotocol: SubProtocol| written(|out| subprotocol.encode_whisper(&payload, out));
            let frame = wire::NodeFrame::decode(written(SubProtocol::Proto).as_slice()).expect("protobuf");
            assert_eq!(frame, unasked(wire::node_frame::Frame::Ephemeral(ephemeral.clone())));
            let frame: wire::NodeFrame = serde_json::from_slice(&written(SubProtocol::Json)).expect("JSON");
            assert_eq!(frame, unasked(wire::node_frame::Frame::Ephemeral(ephemeral)));
        }
        let mut outbox = Outbox::default();
        SubProtocol::Json.encode_whisper(&[0xff], &mut outbox);
        assert_eq!(outbox.waiting_bytes(), 0);
    }

    #[test]
    fn unreadable_messages_have_their_close_codes() {
        assert_eq!(SubProtocol::Proto.decode(&[0xff]), Err(Violation(close::MALFORMED)));
        assert_eq!(SubProtocol::Json.decode(b"{\"ref\":"), Err(Violation(close::MALFORMED)));
        assert_eq!(SubProtocol::Json.decode(b"\"\xff\""), Err(Violation(close::INVALID_TEXT)));
        assert_eq!(SubProtocol::Json.decode(b"{\"ref\":\"7\",\"resume\":{}}").map(|frame| frame.r#ref), Ok(7));
    }
}
