//! The WebSocket protocol without I/O: bytes in, messages out; and frames to be sent, encoded once.
//!
//! Frame headers are read by tungstenite; what a message is (RFC 6455 §5.4 to §5.6, §8.1) and
//! permessage-deflate without context takeover (RFC 7692 §7) are decided here. A payload goes straight into
//! its message, and a text is validated as it arrives. An idle machine holds no buffer. It must not know
//! sockets, sessions or what messages mean.

use std::cell::RefCell;
use std::io::Cursor;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use shared::protocol::CloseCode;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Most empty fragments of one message, which would otherwise go on for ever. Others end with its limit.
const EMPTY_FRAGMENTS_MAX: usize = 1_024;
/// Smallest payload that is worth compressing, in bytes: chat messages only grow.
const DEFLATE_FROM_BYTES: usize = 512;
/// What a sender leaves out at the end of a compressed message (RFC 7692 §7.2.1).
const DEFLATE_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// The peer closes, with the code to answer with.
    Close(CloseReply),
}

/// The code of a peer's close frame; `None` for a frame without one.
pub type CloseReply = Option<u16>;

/// A message that is not all here.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_deflated: bool,
    data: Vec<u8>,
    /// Bytes of `data` that are whole UTF-8 characters.
    valid: usize,
    empty_fragments: usize,
    /// The fragment that was begun and has not ended.
    fragment: Option<Fragment>,
    /// Whether the newest fragment is the last.
    is_final: bool,
}

/// The rest of a data frame.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    /// Bytes to come.
    left: usize,
    /// Beginning with the key of the next byte.
    mask: [u8; 4],
}

/// Reads one direction of one connection, as the server's end.
#[derive(Debug)]
pub struct Machine {
    /// Bytes of a header, or of a control frame, that is not all here.
    rest: Vec<u8>,
    partial: Option<Box<Partial>>,
    /// Longest message, in bytes, after inflating.
    limit: usize,
    deflate: bool,
}

thread_local! {
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

impl Machine {
    /// A machine that takes messages of at most `limit` bytes; `deflate`: permessage-deflate was negotiated.
    pub fn new(limit: usize, deflate: bool) -> Self {
        Self { rest: Vec::new(), partial: None, limit, deflate }
    }

    /// Takes what was read. Each message that is complete goes to `take`, in order.
    ///
    /// # Errors
    /// The code to close with; the machine is of no use afterwards.
    pub fn feed(&mut self, bytes: &mut [u8], mut take: impl FnMut(Incoming)) -> Result<(), CloseCode> {
        if self.rest.is_empty() {
            let used = self.frames(bytes, &mut take)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            let used = self.frames(&mut all, &mut take)?;
            self.rest.extend_from_slice(&all[used..]);
        }
        Ok(())
    }

    /// True in the middle of a frame or message.
    pub fn is_midway(&self) -> bool {
        !self.rest.is_empty() || self.partial.is_some()
    }

    /// Reads from the front of `bytes`; answers how many bytes that took. What is left is the beginning of a
    /// header or of a control frame.
    fn frames(&mut self, bytes: &mut [u8], take: &mut impl FnMut(Incoming)) -> Result<usize, CloseCode> {
        let mut used = 0;
        loop {
            if let Some(partial) = &mut self.partial
                && partial.fragment.is_some()
            {
                used += partial.read(&mut bytes[used..])?;
                if partial.fragment.is_some() {
                    return Ok(used);
                }
                if let Some(partial) = self.partial.take_if(|partial| partial.is_final) {
                    take(partial.finish(self.limit)?);
                }
            }
            let mut cursor = Cursor::new(&bytes[used..]);
            let Some((header, length)) =
                FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::ProtocolError)?
            else {
                return Ok(used);
            };
            let start = used + cursor.position() as usize;
            self.check(&header, length)?;
            let end = start + length as usize;
            let mask = header.mask.unwrap_or_default();
            match (header.opcode, bytes.get_mut(start..end)) {
                (OpCode::Control(_), None) => return Ok(used),
                (OpCode::Control(control), Some(payload)) => {
                    unmask(payload, mask);
                    take(control_frame(control, payload)?);
                    used = end;
                }
                // A whole message at once, as nearly all are.
                (OpCode::Data(kind @ (Data::Text | Data::Binary)), Some(payload))
                    if header.is_final && !header.rsv1 =>
                {
                    unmask(payload, mask);
                    take(message(kind == Data::Text, payload.to_vec())?);
                    used = end;
                }
                (OpCode::Data(kind), _) => {
                    let new = || Box::new(Partial::new(kind == Data::Text, header.rsv1));
                    let partial = self.partial.get_or_insert_with(new);
                    partial.begin(Fragment { left: length as usize, mask }, header.is_final)?;
                    used = start;
                }
            }
        }
    }

    /// Decides by its header alone whether a frame may come (RFC 6455 §5.2, §5.4, §5.5).
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), CloseCode> {
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let is_continuation = header.opcode == OpCode::Data(Data::Continue);
        let is_reserved =
            matches!(header.opcode, OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)));
        let may_deflate = self.deflate && !is_control && !is_continuation;
        if header.mask.is_none()
            || header.rsv2
            || header.rsv3
            || header.rsv1 && !may_deflate
            || is_reserved
            || is_control && (!header.is_final || length > CONTROL_BYTES_MAX as u64)
            || !is_control && is_continuation != self.partial.is_some()
        {
            return Err(CloseCode::ProtocolError);
        }
        let before = self.partial.as_ref().map_or(0, |partial| partial.data.len());
        if !is_control && length > (self.limit - before) as u64 {
            return Err(CloseCode::TooBig);
        }
        Ok(())
    }
}

impl Partial {
    fn new(is_text: bool, is_deflated: bool) -> Self {
        let data = Vec::new();
        Self { is_text, is_deflated, data, valid: 0, empty_fragments: 0, fragment: None, is_final: false }
    }

    fn begin(&mut self, fragment: Fragment, is_final: bool) -> Result<(), CloseCode> {
        self.empty_fragments += usize::from(fragment.left == 0);
        if self.empty_fragments > EMPTY_FRAGMENTS_MAX {
            return Err(CloseCode::RateLimited);
        }
        (self.fragment, self.is_final) = (Some(fragment), is_final);
        Ok(())
    }

    /// Takes what belongs to the fragment that was begun, and answers how many bytes that is. A text that cannot
    /// become UTF-8 any more fails at once (RFC 6455 §8.1); a compressed one when it is inflated.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, CloseCode> {
        let Some(fragment) = &mut self.fragment else { return Ok(0) };
        let count = fragment.left.min(bytes.len());
        let payload = &mut bytes[..count];
        unmask(payload, fragment.mask);
        fragment.mask.rotate_left(count % 4);
        fragment.left -= count;
        if fragment.left == 0 {
            self.fragment = None;
        }
        self.data.extend_from_slice(payload);
        if self.is_text && !self.is_deflated {
            match std::str::from_utf8(&self.data[self.valid..]) {
                Ok(_) => self.valid = self.data.len(),
                Err(error) if error.error_len().is_some() => return Err(CloseCode::BadUtf8),
                Err(error) => self.valid += error.valid_up_to(),
            }
        }
        Ok(count)
    }

    fn finish(self, limit: usize) -> Result<Incoming, CloseCode> {
        let data = if self.is_deflated { inflate(self.data, limit)? } else { self.data };
        message(self.is_text, data)
    }
}

/// Reads a whole control frame (RFC 6455 §5.5).
fn control_frame(control: Control, payload: &[u8]) -> Result<Incoming, CloseCode> {
    match control {
        Control::Ping => Ok(Incoming::Ping(payload.to_vec())),
        Control::Pong => Ok(Incoming::Pong),
        Control::Close => close_reply(payload).map(Incoming::Close),
        Control::Reserved(_) => Err(CloseCode::ProtocolError),
    }
}

fn message(is_text: bool, data: Vec<u8>) -> Result<Incoming, CloseCode> {
    if is_text {
        String::from_utf8(data).map(Incoming::Text).map_err(|_| CloseCode::BadUtf8)
    } else {
        Ok(Incoming::Binary(data))
    }
}

/// Reads a close frame's payload (RFC 6455 §5.5.1, §7.4).
fn close_reply(payload: &[u8]) -> Result<CloseReply, CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::ProtocolError) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseCode::ProtocolError);
    }
    std::str::from_utf8(reason).map_err(|_| CloseCode::BadUtf8)?;
    Ok(Some(code))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let eight = [a, b, c, d, a, b, c, d];
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(eight) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Inflates a whole message, never to more than `limit` bytes.
fn inflate(mut data: Vec<u8>, limit: usize) -> Result<Vec<u8>, CloseCode> {
    data.extend_from_slice(&DEFLATE_TAIL);
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        let mut out = Vec::with_capacity((data.len() * 4).min(limit + 1));
        loop {
            let (read, written) = (inflate.total_in() as usize, out.len());
            let status = inflate
                .decompress_vec(&data[read..], &mut out, FlushDecompress::Sync)
                .map_err(|_| CloseCode::ProtocolError)?;
            if out.len() > limit {
                return Err(CloseCode::TooBig);
            }
            if out.len() == out.capacity() {
                out.reserve_exact(out.len().max(256).min(limit + 1 - out.len()));
                continue;
            }
            // With room left, only a call that gets no further has given everything.
            let is_stuck = inflate.total_in() as usize == read && out.len() == written;
            if status == Status::StreamEnd || is_stuck && read == data.len() {
                return Ok(out);
            }
            if is_stuck {
                return Err(CloseCode::ProtocolError);
            }
        }
    })
}

fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        let mut out = Vec::with_capacity(payload.len());
        // A result that does not fit into the size of the original is not worth sending.
        deflate.compress_vec(payload, &mut out, FlushCompress::Sync).ok()?;
        if deflate.total_in() as usize != payload.len() || !out.ends_with(&DEFLATE_TAIL) {
            return None;
        }
        out.truncate(out.len() - DEFLATE_TAIL.len());
        Some(out)
    })
}

/// A frame as a server sends it (RFC 6455 §5.2): header and payload, for any number of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub Bytes);

const FIN_TEXT: u8 = 0x81;
const FIN_BINARY: u8 = 0x82;
const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;
const FIN_PONG: u8 = 0x8a;
const RSV1: u8 = 0x40;

fn frame(first: u8, payload: &[u8]) -> Frame {
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    bytes.push(first);
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    Frame(bytes.into())
}

impl Frame {
    pub fn text(text: &str) -> Self {
        frame(FIN_TEXT, text.as_bytes())
    }

    pub fn binary(data: &[u8]) -> Self {
        frame(FIN_BINARY, data)
    }

    /// A compressed text message; `None` where that would gain nothing.
    pub fn deflated_text(text: &str) -> Option<Self> {
        Self::deflated(FIN_TEXT, text.as_bytes())
    }

    /// A compressed binary message; `None` where that would gain nothing.
    pub fn deflated_binary(data: &[u8]) -> Option<Self> {
        Self::deflated(FIN_BINARY, data)
    }

    fn deflated(first: u8, payload: &[u8]) -> Option<Self> {
        if payload.len() < DEFLATE_FROM_BYTES {
            return None;
        }
        deflate(payload).map(|data| frame(first | RSV1, &data))
    }

    pub fn ping() -> Self {
        frame(FIN_PING, b"")
    }

    pub fn pong(payload: &[u8]) -> Self {
        frame(FIN_PONG, payload)
    }

    pub fn close(code: CloseCode) -> Self {
        let mut payload = (code as u16).to_be_bytes().to_vec();
        payload.extend_from_slice(code.reason().as_bytes());
        frame(FIN_CLOSE, &payload)
    }

    /// The answer to a peer's close frame: its own code (RFC 6455 §5.5.1).
    pub fn close_reply(reply: CloseReply) -> Self {
        match reply {
            Some(code) => frame(FIN_CLOSE, &code.to_be_bytes()),
            None => frame(FIN_CLOSE, b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let Frame(bytes) = frame(first, payload);
        let (head, payload) = bytes.split_at(bytes.len() - payload.len());
        let mask = [7, 0, 99, 255];
        let mut out = head.to_vec();
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// Feeds bytes in pieces of a size; answers what came out, and how it ended.
    fn run(machine: &mut Machine, bytes: &[u8], piece: usize) -> (Vec<Incoming>, Result<(), CloseCode>) {
        let mut taken = Vec::new();
        for piece in bytes.chunks(piece) {
            if let Err(code) = machine.feed(&mut piece.to_vec(), |incoming| taken.push(incoming)) {
                return (taken, Err(code));
            }
        }
        (taken, Ok(()))
    }

    fn check(frames: &[Vec<u8>], expected: &[Incoming], end: Result<(), CloseCode>) {
        for piece in [1, 2, 3, 7, 1_000_000] {
            let mut machine = Machine::new(64 * 1024, true);
            let (taken, ended) = run(&mut machine, &frames.concat(), piece);
            assert_eq!((taken.as_slice(), ended), (expected, end), "in pieces of {piece}");
        }
    }

    #[test]
    fn the_rfc_example_is_read() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        check(&[hello.to_vec()], &[Incoming::Text("Hello".into())], Ok(()));
        // RFC 7692 §7.2.3.1: "Hello" compressed.
        let deflated = masked(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        check(&[deflated.clone(), deflated], &vec![Incoming::Text("Hello".into()); 2], Ok(()));
    }

    #[test]
    fn fragments_make_one_message_and_control_frames_go_between() {
        let frames = [
            masked(0x01, b"Hal"),
            masked(0x89, b"?"),
            masked(0x00, "l\u{f6}".as_bytes()),
            masked(0x80, b"!"),
        ];
        check(&frames, &[Incoming::Ping(b"?".to_vec()), Incoming::Text("Hallö!".into())], Ok(()));
    }

    #[test]
    fn protocol_errors_have_their_codes() {
        let protocol = Err(CloseCode::ProtocolError);
        let mut unmasked = masked(0x81, b"x");
        unmasked[1] &= 0x7f;
        for frames in [
            vec![unmasked],
            vec![masked(0xa1, b"x")],
            vec![masked(0x91, b"x")],
            vec![masked(0x83, b"x")],
            vec![masked(0x8b, b"x")],
            vec![masked(0x80, b"x")],
            vec![masked(0x09, b"x")],
            vec![masked(0x89, &[0; 126])],
            vec![masked(0x88, b"x")],
            vec![masked(0x88, &1005u16.to_be_bytes())],
            vec![masked(0xc9, b"x")],
            vec![masked(0xc1, b"\xff\xff\xff\xff")],
        ] {
            check(&frames, &[], protocol);
        }
        check(&[masked(0xc1, &deflate(&[0xff; 600]).unwrap())], &[], Err(CloseCode::BadUtf8));
        let twice = [masked(0x01, b"a"), masked(0x01, b"b")];
        check(&twice, &[], protocol);
        check(&[masked(0x81, b"\xff")], &[], Err(CloseCode::BadUtf8));
        check(&[masked(0x01, b"\xc3"), masked(0x00, b"(")], &[], Err(CloseCode::BadUtf8));
        check(&[masked(0x01, b"\xc3"), masked(0x80, b"")], &[], Err(CloseCode::BadUtf8));
        check(&[masked(0x88, b"\x03\xe8\xff")], &[], Err(CloseCode::BadUtf8));
        check(&[masked(0x88, b"\x03\xe8bye")], &[Incoming::Close(Some(1000))], Ok(()));
        check(&[masked(0x88, b"")], &[Incoming::Close(None)], Ok(()));
    }

    #[test]
    fn the_limit_holds_for_announced_fragmented_and_inflated_sizes() {
        let full = vec![b'a'; 64 * 1024];
        check(&[masked(0x81, &full)], &[Incoming::Text("a".repeat(64 * 1024))], Ok(()));
        let over = vec![b'a'; 64 * 1024 + 1];
        let mut machine = Machine::new(64 * 1024, false);
        let announced = &masked(0x81, &over)[..14];
        assert_eq!(run(&mut machine, announced, 100).1, Err(CloseCode::TooBig));
        let huge = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat();
        assert_eq!(run(&mut Machine::new(64 * 1024, false), &huge, 100).1, Err(CloseCode::TooBig));
        check(&[masked(0x01, &full), masked(0x80, b"a")], &[], Err(CloseCode::TooBig));
        let bomb = deflate(&vec![0; 64 * 1024 + 1]).unwrap();
        check(&[masked(0xc2, &bomb)], &[], Err(CloseCode::TooBig));
        let full = deflate(&vec![0; 64 * 1024]).unwrap();
        check(&[masked(0xc2, &full)], &[Incoming::Binary(vec![0; 64 * 1024])], Ok(()));
    }

    #[test]
    fn empty_fragments_do_not_go_on_for_ever() {
        let mut frames = vec![masked(0x01, b"")];
        frames.resize(EMPTY_FRAGMENTS_MAX + 1, masked(0x00, b""));
        let mut machine = Machine::new(100, false);
        assert_eq!(run(&mut machine, &frames.concat(), 8_192).1, Err(CloseCode::RateLimited));
        // Those with something in them end with the limit of the message.
        let mut frames = vec![masked(0x01, b"a")];
        frames.resize(10_000, masked(0x00, b"a"));
        frames.push(masked(0x80, b""));
        check(&frames, &[Incoming::Text("a".repeat(10_000))], Ok(()));
    }

    #[test]
    fn text_fails_in_the_middle_of_a_frame() {
        let bad = [masked(0x81, b"all good until \xce\x28 and on"), masked(0x01, b"a\xe2\x82b later")];
        for (frame, until) in bad.into_iter().zip([6 + 17, 6 + 4]) {
            let (taken, end) = run(&mut Machine::new(100, false), &frame[..until - 1], 3);
            assert_eq!((taken, end), (vec![], Ok(())));
            assert_eq!(run(&mut Machine::new(100, false), &frame[..until], 3).1, Err(CloseCode::BadUtf8));
        }
    }

    #[test]
    fn an_idle_machine_holds_nothing() {
        let mut machine = Machine::new(1_000, true);
        let (taken, _) = run(&mut machine, &[masked(0x01, b"a"), masked(0x80, b"b")].concat(), 1);
        assert_eq!(taken, [Incoming::Text("ab".into())]);
        assert!(!machine.is_midway());
        assert_eq!(machine.rest.capacity(), 0);
        assert!(size_of::<Machine>() <= 48);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let (taken, _) = run(&mut Machine::new(100, true), &bytes, piece);
            prop_assert!(taken.len() <= bytes.len());
        }

        #[test]
        fn what_was_deflated_is_inflated(data in proptest::collection::vec(0u8..4, 512..9_000)) {
            if let Some(Frame(bytes)) = Frame::deflated_binary(&data) {
                let head = if bytes[1] == 126 { 4 } else { 2 };
                prop_assert!(bytes.len() <= data.len());
                let (taken, end) = run(&mut Machine::new(9_000, true), &masked(0xc2, &bytes[head..]), 999);
                prop_assert_eq!((taken, end), (vec![Incoming::Binary(data)], Ok(())));
            }
        }
    }
}
