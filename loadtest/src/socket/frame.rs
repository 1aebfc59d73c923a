//! WebSocket frames (RFC 6455) from the client's side: masked ones out, unmasked ones in. No I/O.
//!
//! It reads whole frames of unfragmented messages, which is what a node sends; anything else is an error, so that a node that does
//! something unforeseen is noticed.

use bytes::{Buf as _, Bytes};

/// The opcodes in use.
pub mod opcode {
    /// Text.
    pub const TEXT: u8 = 1;
    /// Binary.
    pub const BINARY: u8 = 2;
    /// Close.
    pub const CLOSE: u8 = 8;
    /// Ping.
    pub const PING: u8 = 9;
    /// Pong.
    pub const PONG: u8 = 10;
}

/// One mask for all frames: masks protect caches between browsers and servers, and there are none here. It is not zero, so that the
/// node has the work of unmasking.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x9e];

/// Larger frames than a node sends; protects against reading nonsense as a length.
const MAX_PAYLOAD_BYTES: u64 = 16 << 20;

/// A frame from the node.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// See [`opcode`].
    pub opcode: u8,
    /// What it carries.
    pub payload: Bytes,
}

/// What was read is no frame that a node may send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A bit of an extension that was not agreed on.
    #[error("the node sent a frame with reserved bits")]
    Reserved,
    /// A message in several frames.
    #[error("the node sent a fragmented message")]
    Fragmented,
    /// Only clients mask.
    #[error("the node sent a masked frame")]
    Masked,
    /// Longer than any frame of a node.
    #[error("the node sent a frame of {0} bytes")]
    TooLong(u64),
}

/// Adds a masked frame to `out`.
pub fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    const MASKED: u8 = 0x80;
    out.reserve(payload.len() + 14);
    out.push(0x80 | opcode);
    if let Ok(short @ 0..=125) = u8::try_from(payload.len()) {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        out.push(MASKED | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        let long = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        out.extend_from_slice(&long.to_be_bytes());
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    for chunk in out[start..].chunks_mut(MASK.len()) {
        for (byte, mask) in chunk.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
}

/// Where the first frame of some bytes lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// See [`opcode`].
    pub opcode: u8,
    /// Where its payload begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Finds the whole frame at the front of `bytes`; nothing if its end is still to come.
///
/// # Errors
/// [`FrameError`]; the connection can't be read any further.
pub fn find(bytes: &[u8]) -> Result<Option<Place>, FrameError> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let opcode = first & 0x0f;
    if first & 0x80 == 0 || opcode == 0 {
        return Err(FrameError::Fragmented);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (start, length) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let end = start + usize::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    Ok((bytes.len() >= end).then_some(Place { opcode, start, end }))
}

/// Takes one whole frame from the front of `bytes`, or nothing if its end is still to come.
///
/// # Errors
/// As [`find`].
pub fn take(bytes: &mut Bytes) -> Result<Option<Frame>, FrameError> {
    let Some(Place { opcode, start, end }) = find(bytes)? else { return Ok(None) };
    let mut frame = bytes.split_to(end);
    frame.advance(start);
    Ok(Some(Frame { opcode, payload: frame }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the node would write it.
    fn from_node(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..=125 => bytes.push(u8::try_from(short).expect("it is short")),
            medium @ 126..=65_535 => {
                bytes.push(126);
                bytes.extend_from_slice(&u16::try_from(medium).expect("it is medium").to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend_from_slice(&u64::try_from(long).expect("it fits").to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_of_every_length_are_read() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![7; length];
            let mut bytes = Bytes::from(from_node(opcode::BINARY, &payload));
            let frame = take(&mut bytes).expect("readable").expect("whole");
            assert_eq!((frame.opcode, frame.payload.len()), (opcode::BINARY, length));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn many_frames_in_one_read_come_apart() {
        let mut all = from_node(opcode::BINARY, b"one");
        all.extend(from_node(opcode::PING, b""));
        all.extend(from_node(opcode::BINARY, &[9; 300]));
        let mut bytes = Bytes::from(all);
        let mut found = Vec::new();
        while let Some(frame) = take(&mut bytes).expect("readable") {
            found.push((frame.opcode, frame.payload.len()));
        }
        assert_eq!(found, [(opcode::BINARY, 3), (opcode::PING, 0), (opcode::BINARY, 300)]);
    }

    #[test]
    fn a_frame_waits_for_its_end_wherever_it_was_cut() {
        for length in [5, 200, 66_000] {
            let whole = from_node(opcode::BINARY, &vec![1; length]);
            for cut in [0, 1, 2, 3, 4, 9, 10, whole.len() - 1] {
                let mut bytes = Bytes::copy_from_slice(&whole[..cut.min(whole.len() - 1)]);
                let before = bytes.len();
                assert_eq!(take(&mut bytes), Ok(None), "{length} cut at {cut}");
                assert_eq!(bytes.len(), before, "nothing was taken");
            }
        }
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        for (bytes, error) in [
            (vec![0xc2, 0], FrameError::Reserved),
            (vec![0x02, 0], FrameError::Fragmented),
            (vec![0x80, 0], FrameError::Fragmented),
            (vec![0x82, 0x80, 0, 0, 0, 0], FrameError::Masked),
            (vec![0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0], FrameError::TooLong(1 << 56)),
        ] {
            assert_eq!(take(&mut Bytes::from(bytes)), Err(error));
        }
    }

    #[test]
    fn frames_out_are_masked() {
        for length in [0, 3, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let mut out = Vec::new();
            put(&mut out, opcode::BINARY, &payload);
            assert_eq!(out[0], 0x82);
            assert_eq!(out[1] & 0x80, 0x80);
            let body = &out[out.len() - length..];
            let clear: Vec<u8> = body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(clear, payload);
        }
    }
}
