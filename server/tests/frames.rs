//! Frames and sizes, from outside against the built program: each fault is answered by its close code in a
//! close frame, and somebody else in the room notices nothing.

mod support;

use std::net::Shutdown;

use support::{
    BINARY, CLOSE, CONTINUATION, CONTINUED, Canary, DEFLATED_TEXT, DOORS, Frame, Got, MEMORY_KIB, Magpie,
    PING, PONG, Socket, TEXT, TEXT_BEGUN, WAIT, deflate, masked, open, reference, send,
};

/// Longest message, in bytes.
const LIMIT: usize = 64 * 1024;

/// Sends bytes through each door and expects a close frame with this code, and the connection's end.
#[track_caller]
fn check(server: &Magpie, bytes: &[u8], code: u16) {
    for door in DOORS {
        let mut socket = open(server, door);
        socket.raw(bytes);
        assert_eq!(socket.closed(), Some(code), "{door:?}, {:02x?}", &bytes[..bytes.len().min(16)]);
    }
}

fn close_payload(code: u16) -> Vec<u8> {
    [&code.to_be_bytes()[..], b"bye"].concat()
}

#[test]
fn what_is_no_websocket_frame_is_closed_with_its_code() {
    let server = Magpie::start(&["--request-rate", "0"]);
    let canary = Canary::start(&server);
    let mut unmasked = vec![TEXT, 5];
    unmasked.extend(b"hello");
    check(&server, &unmasked, 1002);
    for first in [0xa1, 0x91, 0xf1, 0xd9] {
        check(&server, &masked(first, b"rsv"), 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        check(&server, &masked(0x80 | opcode, b""), 1002);
    }
    for control in [PING, PONG, CLOSE] {
        check(&server, &masked(control, &[b'a'; 126]), 1002);
        check(&server, &masked(control & 0x0f, b""), 1002);
    }
    check(&server, &masked(CONTINUATION, b"stray"), 1002);
    check(&server, &masked(CONTINUED, b"stray"), 1002);
    check(&server, &[masked(TEXT_BEGUN, b"a"), masked(TEXT, b"b")].concat(), 1002);
    check(&server, &masked(CLOSE, b"\x03"), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&server, &masked(CLOSE, &close_payload(code)), 1002);
    }

    check(&server, &masked(TEXT, b"\xff\xfe"), 1007);
    check(&server, &masked(TEXT, b"\xed\xa0\x80"), 1007);
    check(&server, &masked(TEXT, b"cut \xe2\x82"), 1007);
    // At once, before the message is complete.
    check(&server, &[masked(TEXT_BEGUN, b"\xce"), masked(CONTINUED, b"\x28")].concat(), 1007);
    check(&server, &[masked(TEXT_BEGUN, b"\xf0\x9f"), masked(CONTINUATION, b"\x98")].concat(), 1007);
    check(&server, &masked(CLOSE, b"\x03\xe8\xff"), 1007);
    // In the middle of a frame whose rest never comes, and in what was compressed.
    check(
        &server,
        &masked(TEXT, &[b"good \xce\xba and bad \xce\x28".as_slice(), &[b'a'; 1_000]].concat())[..30],
        1007,
    );
    let mut echo = open(&server, DOORS[3]);
    echo.send(DEFLATED_TEXT, &deflate(b"bad \xff"));
    assert_eq!(echo.closed(), Some(1007));

    for door in &DOORS[..2] {
        let mut socket = open(&server, *door);
        socket.send(BINARY, b"binary");
        assert_eq!(socket.closed(), Some(1003), "{door:?}");
    }
    // A character may be cut between fragments, with a ping between them.
    let mut echo = open(&server, DOORS[2]);
    echo.send(TEXT_BEGUN, b"\xf0\x9f");
    echo.send(PING, b"between");
    echo.send(CONTINUATION, b"\x98\x80");
    assert_eq!(echo.frame(), Frame { first: PONG, payload: b"between".to_vec() });
    assert_eq!(echo.frame(), Frame { first: TEXT, payload: "😀".into() });
    canary.stop();
}

#[test]
fn the_limit_of_a_message_holds_however_it_is_sent() {
    let server = Magpie::start(&[]);
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    let full = vec![b'a'; LIMIT];
    for (door, first) in [(DOORS[2], TEXT), (DOORS[2], BINARY)] {
        let mut echo = open(&server, door);
        echo.send(first, &full);
        assert_eq!(echo.frame(), Frame { first, payload: full.clone() });
        echo.send(TEXT_BEGUN, &full[1..]);
        echo.send(CONTINUATION, b"a");
        assert_eq!(echo.frame(), Frame { first: TEXT, payload: full.clone() });
    }
    // The limit of a frame is not that of a message: the connection stays.
    let (mut chat, _) = Socket::full(&server, None);
    let long = "a".repeat(LIMIT - send(&reference(1, 1, 1), "").to_string().len());
    chat.json(&send(&reference(1, 1, 1), &long));
    assert_eq!(chat.expect("error")["code"], "body_too_long");

    let over = vec![b'a'; LIMIT + 1];
    check(&server, &masked(TEXT, &over), 1009);
    check(&server, &[masked(TEXT_BEGUN, &full), masked(CONTINUATION, b"a")].concat(), 1009);
    // Announced, and then nothing comes: the answer does not wait for it.
    let announced = |bytes: u64| [&[TEXT, 0xff][..], &bytes.to_be_bytes(), &[0; 4]].concat();
    for bytes in [LIMIT as u64 + 1, 1 << 40, (1 << 63) - 1, u64::MAX] {
        for door in DOORS {
            let mut socket = open(&server, door);
            socket.raw(&announced(bytes));
            let code = socket.closed();
            // The highest bit must be 0 (RFC 6455 §5.2).
            let is_illegal = bytes >> 63 == 1 && code == Some(1002);
            assert!(code == Some(1009) || is_illegal, "{door:?}, {bytes}: {code:?}");
        }
    }
    let begun = [masked(TEXT_BEGUN, b"a"), [&[CONTINUATION, 0xff][..], &(1u64 << 40).to_be_bytes()].concat()];
    check(&server, &[begun.concat(), vec![0; 4]].concat(), 1009);

    // A bomb counts by what comes out of it.
    let bomb = deflate(&vec![b'a'; 60 * 1024 * 1024]);
    assert!(bomb.len() < LIMIT, "{}", bomb.len());
    for (first, data, code) in
        [(DEFLATED_TEXT, &bomb, Some(1009)), (DEFLATED_TEXT, &deflate(&over), Some(1009))]
    {
        let mut echo = open(&server, DOORS[3]);
        echo.send(first, data);
        assert_eq!(echo.closed(), code);
    }
    let mut echo = open(&server, DOORS[3]);
    echo.send(DEFLATED_TEXT, &deflate(&full));
    assert_eq!(echo.frame().first, DEFLATED_TEXT);
    echo.send(DEFLATED_TEXT, b"\xff\xff\xff\xff");
    assert!(matches!(echo.closed(), Some(1002 | 1007)));
    canary.stop();
    let after = server.resident_kib();
    assert!(after < before + MEMORY_KIB, "{before} KiB grew to {after} KiB");
}

#[test]
fn a_close_is_answered_with_its_code_and_the_server_closes_first() {
    let server = Magpie::start(&[]);
    for door in DOORS {
        for code in [1000, 1001, 1003, 1011, 3000, 4999] {
            let mut socket = open(&server, door);
            socket.send(CLOSE, &close_payload(code));
            assert_eq!(socket.closed(), Some(code), "{door:?}");
        }
        let mut socket = open(&server, door);
        socket.send(CLOSE, b"");
        assert_eq!(socket.closed(), None, "{door:?}");
        // What comes before a close is answered; what comes behind it is not read.
        let mut socket = open(&server, door);
        socket.raw(&[masked(PING, b"before"), masked(CLOSE, b""), masked(TEXT, b"behind")].concat());
        let frames: Vec<Frame> = std::iter::from_fn(|| match socket.next(WAIT) {
            Got::Frame(frame) => Some(frame),
            _ => None,
        })
        .filter(|frame| frame.first != TEXT)
        .collect();
        let expected = [(PONG, b"before".to_vec()), (CLOSE, Vec::new())];
        assert_eq!(frames, expected.map(|(first, payload)| Frame { first, payload }), "{door:?}");
        // A peer that ends without a close frame is let go.
        let mut socket = open(&server, door);
        socket.stream.shutdown(Shutdown::Write).unwrap();
        while let Got::Frame(_) = socket.next(WAIT) {}
        assert_eq!(socket.next(WAIT), Got::End, "{door:?}");
    }
}
