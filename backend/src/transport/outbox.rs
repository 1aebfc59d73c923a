//! What waits to be written to one connection. Frames collect here and go out in one vectored write; large shared content is not copied
//! but stands as a piece of its own. An idle connection has no outbox at all.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Pieces that one system call takes at most.
const MAX_PIECES: usize = 64;

/// The part of a socket that is written to.
pub(super) trait Sink {
    /// Writes what fits now and says how much that was.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; anything else if the connection is broken.
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Sink for tokio::net::TcpStream {
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(pieces)
    }
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left.
    Drained,
    /// The socket takes no more for now; whether it took anything.
    Blocked {
        /// Some bytes went.
        moved: bool,
    },
}

/// A frame's opcode with the FIN bit: outgoing frames are never in fragments.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opcode {
    Text = 0x81,
    Binary = 0x82,
    Close = 0x88,
    Ping = 0x89,
    Pong = 0x8a,
}

/// Bytes of the longest frame head.
const MAX_HEAD_BYTES: usize = 10;

/// A whole frame of so many payload bytes, written by `fill`, for all who get it.
pub(super) fn whole_frame(opcode: Opcode, payload_len: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEAD_BYTES + payload_len);
    head(&mut out, opcode, payload_len);
    fill(&mut out);
    out.freeze()
}

/// The head of a frame (RFC 6455, section 5.2): one fragment, no mask.
fn head(out: &mut BytesMut, opcode: Opcode, payload_len: usize) {
    out.put_u8(opcode as u8);
    match payload_len {
        short @ 0..126 => out.put_u8(short as u8),
        medium @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
}

/// Bytes in order.
#[derive(Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// The last piece, still growing.
    open: BytesMut,
    waiting_bytes: usize,
    /// Part of what is here has gone out, perhaps up to the middle of a frame.
    begun: bool,
}

impl Outbox {
    /// Bytes that wait, shared ones included.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Drops what waits, unless part of it has gone out: then the rest must follow or the connection end. Says whether it dropped.
    pub(super) fn clear(&mut self) -> bool {
        if !self.begun {
            *self = Self::default();
        }
        !self.begun
    }

    /// A whole frame of so many payload bytes, written by `fill`.
    pub(super) fn frame(&mut self, opcode: Opcode, payload_len: usize, fill: impl FnOnce(&mut BytesMut)) {
        self.head(opcode, payload_len);
        let before = self.open.len();
        fill(&mut self.open);
        debug_assert_eq!(self.open.len() - before, payload_len);
        self.waiting_bytes += payload_len;
    }

    /// A whole frame: `filled_len` payload bytes written by `fill`, and after them shared bytes.
    pub(super) fn frame_with(
        &mut self,
        opcode: Opcode,
        filled_len: usize,
        fill: impl FnOnce(&mut BytesMut),
        shared: Bytes,
    ) {
        self.head(opcode, filled_len + shared.len());
        fill(&mut self.open);
        self.waiting_bytes += filled_len + shared.len();
        let open = self.open.split().freeze();
        self.pieces.extend([open, shared]);
    }

    /// A whole frame that was written before, shared.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.waiting_bytes += frame.len();
        if !self.open.is_empty() {
            let open = self.open.split().freeze();
            self.pieces.push_back(open);
        }
        self.pieces.push_back(frame);
    }

    /// What is left of one of which part has gone out.
    pub(super) fn push_rest(&mut self, rest: Bytes) {
        self.begun = true;
        if !rest.is_empty() {
            self.push(rest);
        }
    }

    /// A close frame (RFC 6455, section 5.5.1).
    pub(super) fn close(&mut self, code: Option<u16>) {
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |bytes| bytes);
        self.frame(Opcode::Close, payload.len(), |out| out.extend_from_slice(payload));
    }

    fn head(&mut self, opcode: Opcode, payload_len: usize) {
        let before = self.open.len();
        head(&mut self.open, opcode, payload_len);
        self.waiting_bytes += self.open.len() - before;
    }

    /// Writes what the socket takes: as a rule everything in one system call.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self, sink: &impl Sink) -> io::Result<Progress> {
        let mut moved = false;
        while self.waiting_bytes > 0 {
            let written = {
                let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                let pieces = self.pieces.iter().map(Bytes::as_ref).chain([self.open.as_ref()]);
                let count = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
                match sink.try_write(&slices[..count]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked { moved }),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            };
            self.advance(written);
            moved = true;
        }
        Ok(Progress::Drained)
    }

    fn advance(&mut self, written: usize) {
        self.waiting_bytes -= written;
        self.begun = self.waiting_bytes > 0;
        let mut left = written;
        while left > 0 {
            match self.pieces.front_mut() {
                Some(piece) if piece.len() > left => {
                    piece.advance(left);
                    return;
                }
                Some(piece) => {
                    left -= piece.len();
                    self.pieces.pop_front();
                }
                None => {
                    self.open.advance(left);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Takes so many bytes per call, so many calls.
    struct Trickle {
        per_call: usize,
        calls: Cell<usize>,
        taken: RefCell<Vec<u8>>,
    }

    impl Sink for Trickle {
        fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            if self.calls.get() == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.calls.set(self.calls.get() - 1);
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).take(self.per_call).collect();
            self.taken.borrow_mut().extend(&all);
            Ok(all.len())
        }
    }

    fn filled() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.frame(Opcode::Binary, 3, |out| out.extend_from_slice(b"abc"));
        outbox.frame_with(Opcode::Binary, 2, |out| out.extend_from_slice(b"de"), Bytes::from(vec![b'f'; 300]));
        outbox.push(whole_frame(Opcode::Text, 1, |out| out.extend_from_slice(b"g")));
        outbox.close(Some(1001));
        outbox
    }

    fn expected() -> Vec<u8> {
        let mut bytes = vec![0x82, 3, b'a', b'b', b'c', 0x82, 126, 1, 46, b'd', b'e'];
        bytes.extend([b'f'; 300]);
        bytes.extend([0x81, 1, b'g', 0x88, 2, 3, 0xe9]);
        bytes
    }

    #[test]
    fn everything_goes_in_order_however_little_the_socket_takes() {
        for per_call in [1, 2, 7, 100, 10_000] {
            let mut outbox = filled();
            assert_eq!(outbox.waiting_bytes(), expected().len());
            let sink = Trickle { per_call, calls: Cell::new(usize::MAX), taken: RefCell::default() };
            assert_eq!(outbox.write(&sink).expect("not broken"), Progress::Drained);
            assert_eq!((*sink.taken.borrow()).clone(), expected());
            assert_eq!(outbox.waiting_bytes(), 0);
        }
    }

    #[test]
    fn what_has_begun_is_not_cleared() {
        let mut outbox = filled();
        let sink = Trickle { per_call: 4, calls: Cell::new(1), taken: RefCell::default() };
        assert_eq!(outbox.write(&sink).expect("not broken"), Progress::Blocked { moved: true });
        assert!(!outbox.clear());
        sink.calls.set(usize::MAX);
        assert_eq!(outbox.write(&sink).expect("not broken"), Progress::Drained);
        assert_eq!((*sink.taken.borrow()).clone(), expected());

        let mut outbox = filled();
        assert!(outbox.clear());
        assert_eq!(outbox.waiting_bytes(), 0);
    }
}
