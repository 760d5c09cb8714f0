//! Bytes on the wire as the load needs them: WebSocket frames (RFC 6455 §5.2) read in place, and the few
//! fields of an envelope that are checked for every delivery, found without decoding JSON.
//!
//! It must not know connections.

use memchr::memmem;

/// Opcodes of frames (RFC 6455 §5.2).
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Bytes of a room's id on the wire.
pub const ID_BYTES: usize = 13;
pub type RoomId = [u8; ID_BYTES];

/// Frames to a server are masked; the key need not be a secret here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Where a frame is in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// The payload.
    pub start: usize,
    pub end: usize,
}

/// Finds the first frame of a server's bytes; `None` while it is not whole.
///
/// # Errors
/// What no server may send to a client that offered no extension, or what ours never sends (fragments).
pub fn first(bytes: &[u8]) -> Result<Option<Frame>, &'static str> {
    let &[head, length, ref rest @ ..] = bytes else { return Ok(None) };
    if head & 0xf0 != 0x80 {
        return Err("a frame is a fragment or uses an extension");
    }
    let (start, length) = match length {
        0..=125 => (2, usize::from(length)),
        126 => match rest.first_chunk() {
            Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length) as usize),
            None => return Ok(None),
        },
        _ => return Err("a frame of the server is masked"),
    };
    let end = start + length;
    Ok((bytes.len() >= end).then_some(Frame { opcode: head & 0x0f, start, end }))
}

/// Appends a client's frame.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Appends a server's frame.
pub fn push_bare(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn push_header(out: &mut Vec<u8>, opcode: u8, length: usize, mask: u8) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(mask | length as u8),
        126..=0xffff => {
            out.push(mask | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// What a message of ours carries in its body: when it was to be sent, by whom, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Nanoseconds of the load's clock.
    pub at: u64,
    pub sender: u16,
    /// From 0, for each sender.
    pub number: u32,
}

/// No name, id or number on the wire holds it.
const SIGN: u8 = b'~';
const MARKER_BYTES: usize = 1 + 16 + 4 + 8;

impl Marker {
    /// Appends a body of `bytes` bytes (at least those of the marker itself).
    pub fn write(self, bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + bytes.max(MARKER_BYTES);
        out.push(SIGN);
        push_hex(out, self.at, 16);
        push_hex(out, u64::from(self.sender), 4);
        push_hex(out, u64::from(self.number), 8);
        out.resize(end, b'm');
    }

    /// Finds the marker in a frame's payload.
    pub fn find(payload: &[u8]) -> Option<Marker> {
        let start = memchr::memchr(SIGN, payload)? + 1;
        let hex = |from: usize, digits: usize| parse_hex(payload.get(start + from..start + from + digits)?);
        Some(Marker { at: hex(0, 16)?, sender: hex(16, 4)? as u16, number: hex(20, 8)? as u32 })
    }
}

fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place)) as usize & 15]);
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// The number at the start of some bytes.
fn parse_number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

const EVENT: &[u8] = br#"{"type":"event","room":""#;
const SEQ: &[u8] = br#"","seq":"#;

/// The room and `seq` of an `event`; `None` if it is another envelope.
pub fn event(payload: &[u8]) -> Option<(RoomId, u64)> {
    let rest = payload.strip_prefix(EVENT)?;
    let (room, rest) = rest.split_first_chunk()?;
    Some((*room, parse_number(rest.strip_prefix(SEQ)?)?))
}

const ACK: &[u8] = br#"{"type":"ack","ref":""#;
const ROOM: &[u8] = br#"","room":""#;

/// The sender and number of the message that an `ack` is for, as [`reference`] wrote them, and its `seq`.
pub fn ack(payload: &[u8]) -> Option<(u16, u32, u64)> {
    let (reference, rest) = payload.strip_prefix(ACK)?.split_at_checked(36)?;
    let (_, rest) = rest.strip_prefix(ROOM)?.split_first_chunk::<ID_BYTES>()?;
    let seq = parse_number(rest.strip_prefix(SEQ)?)?;
    Some((parse_hex(&reference[32..])? as u16, parse_hex(&reference[24..32])? as u32, seq))
}

/// The last ten bytes of a `ref` (a UUID version 7) that tell the sender and the number.
pub fn reference(salt: u32, sender: u16, number: u32) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..4].copy_from_slice(&salt.to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&sender.to_be_bytes());
    bytes
}

/// A `joined` or a `history`, as far as it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub room: RoomId,
    pub head: u64,
    /// `seq` of its events, in their order, and what their bodies carry.
    pub events: Vec<(u64, Option<Marker>)>,
    pub gap: bool,
}

const JOINED: &[u8] = br#"{"type":"joined","room":""#;
const HISTORY: &[u8] = br#"{"type":"history","room":""#;
const BEFORE: &[u8] = br#","before":"#;
const HEAD: &[u8] = br#","head":"#;
const LISTED: &[u8] = br#"{"room":""#;

/// Reads a `joined` or a `history` (whose `head` is the event before `before`); `None` if it is another
/// envelope.
pub fn page(payload: &[u8]) -> Option<Page> {
    let (start, name, less) =
        if payload.starts_with(JOINED) { (JOINED, HEAD, 0) } else { (HISTORY, BEFORE, 1) };
    let (room, rest) = payload.strip_prefix(start)?.split_first_chunk()?;
    let head = parse_number(&rest[memmem::find(rest, name)? + name.len()..])?.checked_sub(less)?;
    let gap = memmem::rfind(rest, br#"],"gap":true"#).is_some();
    let mut places = memmem::find_iter(rest, LISTED).peekable();
    let mut events = Vec::new();
    while let Some(place) = places.next() {
        let event = &rest[place + LISTED.len()..places.peek().copied().unwrap_or(rest.len())];
        let seq = event.get(ID_BYTES..).and_then(|event| parse_number(event.strip_prefix(SEQ)?));
        if let Some(seq) = seq {
            events.push((seq, Marker::find(event)));
        }
    }
    Some(Page { room: *room, head, events, gap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::{Body, LOBBY, Ref, UserId, UserName};
    use shared::protocol::{Event, EventKind, RoomInfo, RoomKind, ServerEnvelope, User, encode};

    fn sample(seq: u64, body: &str) -> Event {
        Event {
            room: LOBBY,
            seq,
            at: 1_795_238_400_000,
            user: User { id: UserId::from_bits(7), name: UserName::parse("Quiet Otter 2").unwrap() },
            kind: EventKind::message(Body::parse(body, 0).unwrap()),
            reference: Some(Ref::new(1_795_238_400_000, reference(9, 3, 77))),
        }
    }

    fn body(marker: Marker, bytes: usize) -> String {
        let mut body = Vec::new();
        marker.write(bytes, &mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn frames_of_every_length_are_found_and_half_ones_are_not() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let mut bytes = Vec::new();
            push_bare(&mut bytes, TEXT, &vec![b'a'; length]);
            let end = bytes.len();
            bytes.extend_from_slice(b"\x81");
            let frame = Frame { opcode: TEXT, start: end - length, end };
            assert_eq!(first(&bytes), Ok(Some(frame)), "{length}");
            for cut in [0, 1, end / 2, end - 1] {
                assert_eq!(first(&bytes[..cut.min(end - 1)]), Ok(None), "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_an_error() {
        assert!(first(&[0x81, 0x80, 1, 2, 3, 4]).is_err(), "masked");
        assert!(first(&[0xc1, 0]).is_err(), "compressed");
        assert!(first(&[0x01, 0]).is_err(), "a fragment");
    }

    #[test]
    fn a_masked_frame_is_the_payload_under_the_key() {
        let mut out = Vec::new();
        push_masked(&mut out, TEXT, b"Hello");
        // RFC 6455 §5.7, with its key.
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn events_give_their_place_and_when_they_were_sent() {
        let marker = Marker { at: 123_456_789_012, sender: 3, number: 77 };
        let body = body(marker, 128);
        assert_eq!(body.len(), 128);
        let payload = encode(&ServerEnvelope::Event(sample(4_321, &body)));
        assert_eq!(event(payload.as_bytes()), Some((*b"0000000000001", 4_321)));
        assert_eq!(Marker::find(payload.as_bytes()), Some(marker));
        assert_eq!(Marker::find(encode(&sample(1, "not ours")).as_bytes()), None);
        assert_eq!(event(br#"{"type":"pong","n":1,"now":2}"#), None);
    }

    #[test]
    fn acknowledgements_name_the_message_they_are_for() {
        let reference = Ref::new(1_795_238_400_000, reference(0xffff_ffff, 513, 70_000));
        let ack_envelope = ServerEnvelope::Ack { reference, room: LOBBY, seq: 9, at: 1 };
        assert_eq!(ack(encode(&ack_envelope).as_bytes()), Some((513, 70_000, 9)));
        assert_eq!(ack(b"{}"), None);
    }

    #[test]
    fn a_page_gives_the_places_of_its_events() {
        let info = RoomInfo { head: 44, unread: 3, ..RoomInfo::new(LOBBY, RoomKind::Public) };
        let events: Vec<Event> =
            (42..45).map(|seq| sample(seq, r#"{"room":"0000000000001","seq":7"#)).collect();
        let envelope = ServerEnvelope::Joined {
            room: LOBBY,
            epoch: 1,
            head: 44,
            events,
            gap: true,
            after: Some(41),
            info: Some(info),
        };
        let whole = Page {
            room: *b"0000000000001",
            head: 44,
            events: [42, 43, 44].map(|seq| (seq, None)).to_vec(),
            gap: true,
        };
        assert_eq!(page(encode(&envelope).as_bytes()), Some(whole));
        let marker = Marker { at: 5, sender: 3, number: 77 };
        let events = vec![sample(7, "x"), sample(8, &body(marker, 64))];
        let envelope = ServerEnvelope::History { room: LOBBY, before: 9, events };
        let events = vec![(7, None), (8, Some(marker))];
        let whole = Page { room: *b"0000000000001", head: 8, events, gap: false };
        assert_eq!(page(encode(&envelope).as_bytes()), Some(whole));
        assert_eq!(page(b"{}"), None);
    }
}
