//! Frames, sizes, floods and slow peers, from outside against the built program: each fault is answered by
//! its close code in a close frame, and somebody else in the room notices nothing.

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};
use support::{
    BINARY, CLOSE, Canary, Frame, Got, LOBBY, Magpie, PING, PONG, Request, Socket, TEXT, WAIT,
    assert_seqs_have_no_hole, connect, connect_from, exchange, masked, read_response, read_to_end, reference,
    send, until,
};

const CONTINUATION: u8 = 0x80;
/// FIN left out: more fragments follow.
const TEXT_BEGUN: u8 = 0x01;
const CONTINUED: u8 = 0x00;
/// RSV1: the message is compressed.
const DEFLATED_TEXT: u8 = 0xc1;
/// Longest message, in bytes.
const LIMIT: usize = 64 * 1024;
/// Most memory that any attack here may cost, in KiB.
const MEMORY_KIB: u64 = 40 * 1024;

/// The ways a connection can be opened.
const DOORS: [(&str, bool, bool); 4] =
    [("/ws", false, false), ("/ws", true, false), ("/ws/echo", false, false), ("/ws/echo", false, true)];

fn open(server: &Magpie, (path, is_full, deflate): (&str, bool, bool)) -> Socket {
    let mut request = Request::upgrade(server, path);
    if is_full {
        request = request.with("Sec-WebSocket-Protocol", "magpie.v1");
    }
    if deflate {
        request = request.with("Sec-WebSocket-Extensions", "permessage-deflate");
    }
    Socket::open(connect(server.address), &request)
}

/// Sends bytes through each door and expects a close frame with this code, and the connection's end.
#[track_caller]
fn check(server: &Magpie, bytes: &[u8], code: u16) {
    for door in DOORS {
        let mut socket = open(server, door);
        socket.raw(bytes);
        assert_eq!(socket.closed(), Some(code), "{door:?}, {:02x?}", &bytes[..bytes.len().min(16)]);
    }
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Compress::new(Compression::best(), false).compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

fn close_payload(code: u16) -> Vec<u8> {
    [&code.to_be_bytes()[..], b"bye"].concat()
}

/// Descriptors that a server opens with its first visitors, for its database.
const DESCRIPTORS_LATER: usize = 6;

/// Waits until no more descriptors are open than were at first: nothing was leaked.
#[track_caller]
fn check_descriptors(server: &Magpie, before: usize) {
    let open = before + DESCRIPTORS_LATER;
    until("the descriptors are given back", || (server.descriptors() <= open).then_some(()));
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

#[test]
fn floods_meet_their_limits() {
    let server = Magpie::start(&["--max-connections-per-address", "0"]);
    let canary = Canary::start(&server);
    let before = (server.descriptors(), server.resident_kib());

    // Messages: told to slow down, and closed when that is not heard. Empty ones are no cheaper.
    let (mut flooder, _) = Socket::full(&server, None);
    let ping = json!({"type": "ping", "n": 1}).to_string();
    flood(&mut flooder, &masked(TEXT, ping.as_bytes()));
    let refused = flooder.expect("error");
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert!(refused["retry_ms"].as_u64().is_some_and(|wait| wait > 0), "{refused}");
    assert_eq!(flooder.closed(), Some(4002));
    let (mut sender, _) = Socket::full(&server, None);
    flood(&mut sender, &masked(TEXT, send(&reference(2, 2, 2), "again").to_string().as_bytes()));
    assert_eq!(sender.expect("error")["code"], "rate_limited");
    assert_eq!(sender.closed(), Some(4002));
    for text in ["", "flood"] {
        let mut plain = Socket::plain(&server, "/ws");
        flood(&mut plain, &masked(TEXT, text.as_bytes()));
        assert_eq!(plain.closed(), Some(4002), "{text:?}");
    }

    // Pings and pongs.
    for first in [PING, PONG] {
        let mut pinger = Socket::plain(&server, "/ws");
        flood(&mut pinger, &masked(first, &[b'p'; 125]));
        assert_eq!(pinger.closed(), Some(4002), "{first:x}");
    }
    // Somebody who pings a trial address and never reads is not read either.
    let mut echo = Socket::open(
        connect_from(server.address, Ipv4Addr::LOCALHOST, true),
        &Request::upgrade(&server, "/ws/echo"),
    );
    echo.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings = masked(PING, &[b'p'; 125]).repeat(1_000);
    assert!((0..1_000).any(|_| echo.stream.write_all(&pings).is_err()), "an echo took 130 MB unread");

    // Fragments, with something in them and with nothing.
    let mut fragments = Socket::plain(&server, "/ws");
    fragments.send(TEXT_BEGUN, b"a");
    flood(&mut fragments, &masked(CONTINUED, &[b'a'; 16]));
    assert_eq!(fragments.closed(), Some(1009));
    let mut empty = Socket::plain(&server, "/ws");
    empty.send(TEXT_BEGUN, b"");
    flood(&mut empty, &masked(CONTINUED, b""));

    // Coming and going.
    for _ in 0..150 {
        connect(server.address);
        Socket::plain(&server, "/ws/echo").cut();
        Socket::plain(&server, "/ws").cut();
    }
    drop((flooder, sender, echo, fragments, empty));
    check_descriptors(&server, before.0);
    canary.stop();
    let after = server.resident_kib();
    assert!(after < before.1 + MEMORY_KIB, "{} KiB grew to {after} KiB", before.1);
}

/// Sends a frame 20,000 times, or until the server takes no more.
fn flood(socket: &mut Socket, frame: &[u8]) {
    let frames = frame.repeat(200);
    for _ in 0..100 {
        if socket.stream.write_all(&frames).is_err() {
            return;
        }
    }
}

#[test]
fn who_never_reads_is_closed_and_misses_nothing_in_the_end() {
    const MESSAGES: u64 = 400;
    let flags = ["--message-rate", "0", "--request-rate", "0", "--send-queue-bytes", "65536"];
    let server = Magpie::start(&flags);
    let request = Request::upgrade(&server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
    let slow = connect_from(server.address, Ipv4Addr::LOCALHOST, true);
    let mut slow = Socket::open(slow, &request);
    slow.json(&json!({"type": "hello"}));
    let welcome = slow.expect("welcome");
    let (me, cookie) = (welcome["user"].clone(), slow.response.cookie().unwrap());
    let before = server.resident_kib();

    let canary = Canary::start(&server);
    let (mut talker, _) = Socket::full(&server, None);
    let body = "all work and no play ".repeat(190);
    for number in 0..MESSAGES {
        talker.json(&send(&reference(3, 3, number), &body));
        // A few under way at a time, so that the talker does read.
        if number % 8 == 7 {
            let last = reference(3, 3, number);
            talker.find(|value| value["type"] == "ack" && value["ref"] == last);
        }
    }
    assert!(canary.stop() > 0);
    let after = server.resident_kib();
    assert!(after < before + MEMORY_KIB, "{before} KiB grew to {after} KiB");

    // What it was sent is in order; then comes the close, unless it is cut off for taking nothing.
    let mut seen: Vec<Value> = Vec::new();
    let code = loop {
        match slow.next(WAIT) {
            Got::Frame(frame) if frame.first == CLOSE => break frame.close_code(),
            Got::Frame(frame) => {
                let value: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                seen.extend((value["type"] == "event").then_some(value));
            }
            Got::End => break None,
            Got::Nothing => panic!("a reader that never read is still connected"),
        }
    };
    assert!(matches!(code, None | Some(4000)), "{code:?}");
    assert_seqs_have_no_hole(&seen);
    assert!(seen.len() < MESSAGES as usize);

    let last = seen.last().map_or(0, |event| event["seq"].as_u64().unwrap());
    let mut back = Socket::open(connect(server.address), &request.with("Cookie", &cookie));
    let resume = json!([{"room": LOBBY, "epoch": welcome["rooms"][0]["epoch"], "seq": last}]);
    back.json(&json!({"type": "hello", "resume": resume}));
    assert_eq!(back.expect("welcome")["user"], me);
    let joined = back.expect("joined");
    assert_eq!((&joined["after"], &joined["gap"]), (&json!(last), &json!(false)));
    let page = joined["events"].as_array().unwrap();
    let next = page.last().map_or(last, |event| event["seq"].as_u64().unwrap());
    let rest = back.read_room(LOBBY, next);
    let all: Vec<Value> = seen.iter().chain(page).chain(&rest).cloned().collect();
    assert_seqs_have_no_hole(&all);
    let told = all.iter().filter(|event| event["body"] == body.trim_end() || event["body"] == body).count();
    assert_eq!(told as u64, MESSAGES);
}

#[test]
fn one_address_has_a_share_and_no_more() {
    let server = Magpie::start(&["--max-connections-per-address", "20"]);
    let before = server.descriptors();
    let canary = Canary::start(&server);
    let held: Vec<Socket> = (0..20).map(|_| Socket::plain(&server, "/ws")).collect();
    for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP"] {
        let request = Request::upgrade(&server, "/ws").with(header, "203.0.113.9");
        let refused = request.send(&server);
        assert_eq!(refused.status, 429, "{header}");
        assert!(refused.header("retry-after").is_some());
    }
    // Others have room; a forged header does not count against whom it names.
    let mut other = connect_from(server.address, Ipv4Addr::new(127, 0, 0, 2), false);
    let request = Request::new(&server, "GET", "/healthz").with("X-Forwarded-For", "127.0.0.1");
    other.write_all(&request.bytes()).unwrap();
    assert_eq!(read_response(&mut other).unwrap().status, 200);
    held.into_iter().for_each(Socket::cut);
    drop(other);
    until("there is room again", || {
        Socket::try_open(connect(server.address), &Request::upgrade(&server, "/ws")).ok()
    });
    canary.stop();
    check_descriptors(&server, before);

    let server = Magpie::start(&["--max-connections", "2"]);
    let _held = [Socket::plain(&server, "/ws"), Socket::plain(&server, "/ws/echo")];
    let full = exchange(server.address, &Request::upgrade(&server, "/ws").bytes()).unwrap();
    assert_eq!(full.status, 503);
}

#[test]
fn who_dawdles_with_http_is_closed_in_time() {
    let flags = ["--idle-timeout", "2", "--header-timeout", "2", "--max-connections-per-address", "0"];
    let server = Magpie::start(&flags);
    let before = server.descriptors();
    let canary = Canary::start(&server);
    let start = Instant::now();
    let mut silent = connect(server.address);
    // A body that is wanted has its own time.
    let mut post = connect(server.address);
    let head = Request::new(&server, "POST", "/lab/messages?channel=abcdefgh").with("Content-Length", "100");
    post.write_all(&head.bytes()).unwrap();
    let half = Request::upgrade(&server, "/ws").bytes();
    let half = &half[..half.len() - 20];
    let mut crowd: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(half).unwrap();
            stream
        })
        .collect();
    let mut idle = connect(server.address);
    idle.write_all(&Request::new(&server, "GET", "/healthz").bytes()).unwrap();
    assert_eq!(read_response(&mut idle).unwrap().status, 200);
    // A byte now and then does not help: the time is for the whole head.
    let mut drip = connect(server.address);
    drip.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    drip.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until("the drip is cut", || {
        let mut one = [0];
        match std::io::Read::read(&mut drip, &mut one) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                drip.write_all(b"a").is_err().then_some(())
            }
            Err(_) => Some(()),
        }
    });
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut idle), b"");
    for stream in &mut crowd {
        read_to_end(stream);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    // A body that drips is waited for by nobody where none is wanted.
    let mut body = connect(server.address);
    body.write_all(&Request::new(&server, "POST", "/").with("Content-Length", "1000000").bytes()).unwrap();
    assert_eq!(read_response(&mut body).unwrap().status, 405);
    read_to_end(&mut body);
    assert_eq!(read_response(&mut post).unwrap().status, 408);
    read_to_end(&mut post);
    drop((silent, idle, drip, crowd, body, post));
    canary.stop();
    check_descriptors(&server, before);
}

#[test]
fn a_peer_that_is_gone_is_noticed() {
    let server = Magpie::start(&["--ping-interval", "1"]);
    let before = server.descriptors();
    let start = Instant::now();
    let doors = DOORS.iter().cycle().take(20);
    let mut lost: Vec<Socket> = doors.map(|door| open(&server, *door)).collect();
    // In the middle of a frame nothing can answer a ping either.
    let mut stalled = Socket::plain(&server, "/ws");
    stalled.raw(&masked(TEXT, &[b'a'; 1000])[..500]);
    lost.push(stalled);
    // One that answers pings stays.
    let mut alive = Socket::plain(&server, "/ws");
    let mut pings = 0;
    while pings < 4 {
        let frame = alive.frame();
        if frame.first == PING {
            alive.send(PONG, &frame.payload);
            pings += 1;
        }
    }
    // They hold nothing, even if they never close their side.
    lost.iter_mut().for_each(|socket| assert_eq!(socket.closed(), Some(4001)));
    check_descriptors(&server, before);
    drop(lost);
    assert!(start.elapsed() < Duration::from_secs(15));
    alive.text("still here");
    alive.find(|value| value["message"] == "still here");
    alive.cut();
    check_descriptors(&server, before);
}
