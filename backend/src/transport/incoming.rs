//! From bytes to whole messages (RFC 6455): limits are checked as soon as a frame's first bytes are there, so that nobody makes the node
//! wait for, or keep, what it will refuse. The frames themselves are read by actix-http's parser.
//!
//! Does not know what a message means; see [`super::subprotocol`].

use actix_http::ws::{OpCode, Parser};
use bytes::{Bytes, BytesMut};
use martlet_protocol::problem::close;

use super::subprotocol::SubProtocol;

/// One frame that the client sent.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// A message of the sub-protocol, whole.
    Message(BytesMut),
    /// A part of one, kept until the rest comes.
    Fragment,
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    /// A sign of life.
    Pong,
    /// The client closes; the code it gave.
    Close(Option<u16>),
}

/// Why the socket must close, with the code of [`close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation(pub u16);

const BROKEN: Violation = Violation(close::PROTOCOL_ERROR);

/// What a connection keeps between two reads, if anything: part of a frame, or fragments of a message.
#[derive(Default)]
pub(super) struct Partial {
    /// Bytes of a frame that is not whole yet.
    pub(super) unread: BytesMut,
    /// The payloads of a message's fragments so far; `Some` once one has begun.
    message: Option<BytesMut>,
}

impl Partial {
    pub(super) fn starting_with(unread: BytesMut) -> Self {
        Self { unread, message: None }
    }

    /// Nothing that would have to be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.message.is_none()
    }
}

/// The first bytes of a frame.
struct Head {
    finished: bool,
    opcode: OpCode,
    /// Payload bytes, or `None` while that field isn't there yet.
    length: Option<u64>,
}

impl Head {
    /// `None` if fewer than two bytes are there.
    fn peek(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let reserved = first & 0x70 != 0;
        let masked = second & 0x80 != 0;
        if reserved || !masked {
            return Err(BROKEN);
        }
        let length = match second & 0x7f {
            126 => rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
            127 => rest.first_chunk().map(|length| u64::from_be_bytes(*length)),
            short => Some(u64::from(short)),
        };
        Ok(Some(Self { finished: first & 0x80 != 0, opcode: OpCode::from(first & 0x0f), length }))
    }

    fn check(&self, message: Option<usize>, subprotocol: SubProtocol, max_bytes: usize) -> Result<(), Violation> {
        match (self.opcode, message) {
            (OpCode::Bad, _) | (OpCode::Continue, None) | (OpCode::Text | OpCode::Binary, Some(_)) => {
                return Err(BROKEN);
            }
            (OpCode::Text, None) if subprotocol != SubProtocol::Json => return Err(Violation(close::UNSUPPORTED)),
            (OpCode::Binary, None) if subprotocol != SubProtocol::Proto => return Err(Violation(close::UNSUPPORTED)),
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => {
                // RFC 6455, section 5.5: control frames are short and never in fragments.
                let fits = self.length.is_none_or(|length| length <= 125);
                return if self.finished && fits { Ok(()) } else { Err(BROKEN) };
            }
            _ => {}
        }
        let room = max_bytes - message.unwrap_or(0).min(max_bytes);
        match self.length {
            Some(length) if length > room as u64 => Err(Violation(close::TOO_BIG)),
            _ => Ok(()),
        }
    }
}

/// Takes the next frame off the front of `bytes`; `None` if more bytes are needed.
///
/// # Errors
/// [`Violation`]: nothing after it can be trusted.
pub(super) fn next(
    bytes: &mut BytesMut,
    partial: &mut Partial,
    subprotocol: SubProtocol,
    max_bytes: usize,
) -> Result<Option<Incoming>, Violation> {
    let Some(head) = Head::peek(bytes)? else { return Ok(None) };
    head.check(partial.message.as_ref().map(BytesMut::len), subprotocol, max_bytes)?;
    let Some((finished, opcode, payload)) = Parser::parse(bytes, true, max_bytes).map_err(|_| BROKEN)? else {
        return Ok(None);
    };
    let payload = payload.unwrap_or_default();
    let mut message = match opcode {
        OpCode::Ping => return Ok(Some(Incoming::Ping(Bytes::copy_from_slice(&payload)))),
        OpCode::Pong => return Ok(Some(Incoming::Pong)),
        OpCode::Close => return closing(&payload).map(|code| Some(Incoming::Close(code))),
        OpCode::Text | OpCode::Binary if finished => return Ok(Some(Incoming::Message(payload))),
        OpCode::Text | OpCode::Binary => BytesMut::new(),
        OpCode::Continue | OpCode::Bad => partial.message.take().ok_or(BROKEN)?,
    };
    message.extend_from_slice(&payload);
    if finished {
        return Ok(Some(Incoming::Message(message)));
    }
    partial.message = Some(message);
    Ok(Some(Incoming::Fragment))
}

fn closing(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.get(2..).is_some_and(|reason| std::str::from_utf8(reason).is_err()) {
        return Err(Violation(close::INVALID_TEXT));
    }
    Parser::try_parse_close_payload(payload).map_err(|_| BROKEN)?;
    Ok(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | short as u8),
            long => {
                bytes.push(0x80 | 126);
                bytes.extend((long as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Incoming>, Violation> {
        let (mut bytes, mut partial, mut all) = (BytesMut::from(bytes), Partial::default(), Vec::new());
        while let Some(incoming) = next(&mut bytes, &mut partial, SubProtocol::Proto, MAX)? {
            all.push(incoming);
        }
        Ok(all)
    }

    fn message(payload: &[u8]) -> Incoming {
        Incoming::Message(payload.into())
    }

    #[test]
    fn whole_frames_pings_and_fragments_with_a_ping_between() {
        let bytes = [
            frame(0x82, b"one"),
            frame(0x02, b"t"),
            frame(0x89, b"ping"),
            frame(0x00, b"w"),
            frame(0x80, b"o"),
            frame(0x8a, b""),
            frame(0x88, &[0x0f, 0xa0, b'!']),
        ];
        let expected = [
            message(b"one"),
            Incoming::Fragment,
            Incoming::Ping(Bytes::from_static(b"ping")),
            Incoming::Fragment,
            message(b"two"),
            Incoming::Pong,
            Incoming::Close(Some(4000)),
        ];
        assert_eq!(read(&bytes.concat()).expect("well-formed"), expected);
    }

    #[test]
    fn any_cut_gives_the_same() {
        let bytes = [frame(0x82, &[7; 300]), frame(0x02, b"ab"), frame(0x80, b"c"), frame(0x82, b"")].concat();
        for cut in 0..bytes.len() {
            let (mut partial, mut all) = (Partial::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                let mut unread = std::mem::take(&mut partial.unread);
                unread.extend_from_slice(part);
                while let Some(incoming) =
                    next(&mut unread, &mut partial, SubProtocol::Proto, MAX).expect("well-formed")
                {
                    all.push(incoming);
                }
                partial.unread = unread;
            }
            assert_eq!(all, [message(&[7; 300]), Incoming::Fragment, message(b"abc"), message(b"")], "cut at {cut}");
            assert!(partial.is_empty());
        }
    }

    #[test]
    fn violations_have_their_close_codes() {
        let unmasked = [0x82, 0x01, 0x00];
        let cases: [(&str, Vec<u8>, u16); 15] = [
            ("unmasked", unmasked.to_vec(), close::PROTOCOL_ERROR),
            ("reserved bit", frame(0xc2, b"x"), close::PROTOCOL_ERROR),
            ("unknown opcode", frame(0x83, b"x"), close::PROTOCOL_ERROR),
            ("continuation of nothing", frame(0x80, b"x"), close::PROTOCOL_ERROR),
            ("message within a message", [frame(0x02, b"x"), frame(0x82, b"x")].concat(), close::PROTOCOL_ERROR),
            ("long ping", frame(0x89, &[0; 126]), close::PROTOCOL_ERROR),
            ("ping in fragments", frame(0x09, b""), close::PROTOCOL_ERROR),
            ("close of one byte", frame(0x88, &[3]), close::PROTOCOL_ERROR),
            ("reserved close code", frame(0x88, &1005_u16.to_be_bytes()), close::PROTOCOL_ERROR),
            ("close reason not UTF-8", frame(0x88, &[0x03, 0xe8, 0xff]), close::INVALID_TEXT),
            ("text on the binary sub-protocol", frame(0x81, b"x"), close::UNSUPPORTED),
            ("too big", frame(0x82, &[0; MAX + 1]), close::TOO_BIG),
            ("too big, told by its first bytes", vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0], close::TOO_BIG),
            ("length of 64 bits", vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], close::TOO_BIG),
            ("too big in fragments", [frame(0x02, &[0; MAX]), frame(0x80, b"x")].concat(), close::TOO_BIG),
        ];
        for (what, bytes, code) in cases {
            assert_eq!(read(&bytes), Err(Violation(code)), "{what}");
        }
    }
}
