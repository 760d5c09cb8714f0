//! Any bytes as the frames of a client: nothing panics, messages stay within the limit, and it does not matter
//! in which pieces the bytes arrive.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::websocket::{Incoming, Machine};
use shared::protocol::CloseCode;

const LIMIT_BYTES: usize = 4 * 1024;

// The first byte: bit 0 is permessage-deflate, bit 1 makes frames of what follows, so that most input gets
// past the header. The second is the size of the pieces.
fuzz_target!(|input: &[u8]| {
    let [flags, piece, bytes @ ..] = input else { return };
    let (deflate, is_framed) = (flags & 1 != 0, flags & 2 != 0);
    let bytes = if is_framed { frames(bytes) } else { bytes.to_vec() };
    let whole = run(&bytes, bytes.len().max(1), deflate);
    assert_eq!(run(&bytes, usize::from(*piece).max(1), deflate), whole);
    assert_eq!(run(&bytes, 1, deflate), whole);
});

fn run(bytes: &[u8], piece: usize, deflate: bool) -> (Vec<Incoming>, Result<(), CloseCode>) {
    let mut machine = Machine::new(LIMIT_BYTES, deflate);
    let mut taken = Vec::new();
    for piece in bytes.chunks(piece) {
        let result = machine.feed(&mut piece.to_vec(), |incoming| {
            let length = match &incoming {
                Incoming::Text(text) => text.len(),
                Incoming::Binary(data) => data.len(),
                Incoming::Ping(data) => data.len(),
                Incoming::Pong | Incoming::Close(_) => 0,
            };
            assert!(length <= LIMIT_BYTES, "{length} bytes");
            taken.push(incoming);
        });
        if result.is_err() {
            return (taken, result);
        }
    }
    (taken, Ok(()))
}

/// Frames of a first byte, a length and a payload each.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let length = usize::from(*length).min(rest.len());
        let (payload, after) = rest.split_at(length);
        out.push(*first);
        if length < 126 {
            out.push(0x80 | length as u8);
        } else {
            out.extend([0xfe, 0, length as u8]);
        }
        // A mask of zeros leaves the payload to the fuzzer.
        out.extend([0; 4]);
        out.extend_from_slice(payload);
        bytes = after;
    }
    out
}
