//! Reading frames with items of a log in place, without decoding the whole message: the fields that a measurement needs, by their numbers
//! in the schema. Everything else is skipped as protobuf allows. Tested against the real encoding.

/// Field numbers of the schema.
const NODE_FRAME_LOG_ITEMS: u64 = 13;
const LOG_ITEMS_ITEMS: u64 = 2;
const LOG_ITEM_ENTRY: u64 = 1;
const LOG_ENTRY_SEQ: u64 = 1;
const LOG_ENTRY_CONTENT: u64 = 6;

/// What a measurement needs of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the log.
    pub seq: u64,
    /// The ciphertext.
    pub content: &'a [u8],
}

/// Calls `each` with the entries of a frame. False, and no call, if it is another kind of frame; items that are no entries are errors.
///
/// # Errors
/// For bytes that are no protobuf, and whatever `each` finds wrong.
pub fn entries<'a>(frame: &'a [u8], mut each: impl FnMut(Entry<'a>) -> Result<(), String>) -> Result<bool, String> {
    let mut fields = Fields(frame);
    let Some((NODE_FRAME_LOG_ITEMS, Value::Bytes(items))) = fields.next()? else { return Ok(false) };
    let mut items = Fields(items);
    while let Some((number, value)) = items.next()? {
        if let (LOG_ITEMS_ITEMS, Value::Bytes(item)) = (number, value) {
            let Some((LOG_ITEM_ENTRY, Value::Bytes(item))) = Fields(item).next()? else {
                return Err("an item that is no entry".into());
            };
            each(entry(item)?)?;
        }
    }
    Ok(true)
}

fn entry(bytes: &[u8]) -> Result<Entry<'_>, String> {
    let mut entry = Entry { seq: 0, content: &[] };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (LOG_ENTRY_SEQ, Value::Number(seq)) => entry.seq = seq,
            (LOG_ENTRY_CONTENT, Value::Bytes(content)) => entry.content = content,
            _ => {}
        }
    }
    Ok(entry)
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        const VARINT: u64 = 0;
        const FIXED64: u64 = 1;
        const LENGTH_DELIMITED: u64 = 2;
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            LENGTH_DELIMITED => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            FIXED64 => {
                self.take(8)?;
                Value::Number(0)
            }
            _ => return Err("a field of an unknown kind".into()),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err("a number without an end".into())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("a field that is cut off")?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use martlet_protocol::wire::{self, log_item, node_frame};
    use prost::Message as _;

    use super::*;

    fn item(seq: u64, content: &'static [u8]) -> wire::LogItem {
        let entry = wire::LogEntry {
            seq,
            message_id: vec![1; 16].into(),
            accepted_at_ms: 1_700_000_000_000,
            group_epoch: 3,
            suite: 200,
            content: content.into(),
        };
        wire::LogItem { item: Some(log_item::Item::Entry(entry)) }
    }

    fn frame(frame: node_frame::Frame) -> Vec<u8> {
        wire::NodeFrame { r#ref: 0, frame: Some(frame) }.encode_to_vec()
    }

    #[test]
    fn entries_of_the_real_encoding_are_read() {
        let items = vec![item(7, b"one"), item(300, b"two"), item(u64::MAX, b"")];
        let bytes = frame(node_frame::Frame::LogItems(wire::LogItems { conversation_id: vec![9; 32].into(), items }));
        let mut found = Vec::new();
        let taken = entries(&bytes, |entry| {
            found.push((entry.seq, entry.content));
            Ok(())
        });
        assert_eq!(taken, Ok(true));
        assert_eq!(found, [(7, &b"one"[..]), (300, b"two"), (u64::MAX, b"")]);
    }

    #[test]
    fn other_frames_are_left_alone_and_gaps_are_wrong() {
        let none = |_: Entry<'_>| Err("there is none".to_owned());
        let other = frame(node_frame::Frame::CaughtUp(wire::CaughtUp { mailbox: None }));
        assert_eq!(entries(&other, none), Ok(false));
        let gap = wire::LogItem { item: Some(log_item::Item::Gap(wire::Gap::default())) };
        let gap = frame(node_frame::Frame::LogItems(wire::LogItems { items: vec![gap], ..Default::default() }));
        assert!(entries(&gap, none).is_err());
        assert!(entries(&[0x6a, 5, 0x12], none).is_err(), "cut off");
        assert!(entries(&[0xff; 12], none).is_err());
    }
}
