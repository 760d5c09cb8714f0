//! Floods, churn and slow peers, from outside against the built program: the limits step in, memory and
//! descriptors stay bounded, and somebody else in the room notices nothing.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    CLOSE, CONTINUED, Canary, DEFLATED_TEXT, DOORS, Got, LOBBY, MEMORY_KIB, Magpie, PING, PONG, Request,
    Socket, TEXT, TEXT_BEGUN, WAIT, assert_seqs_have_no_hole, check_descriptors, connect, connect_from,
    deflate, exchange, masked, open, read_response, read_to_end, reference, send, until,
};

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

    // Nor is one who asks for pages one after the other and reads none.
    let mut pages = connect_from(server.address, Ipv4Addr::LOCALHOST, true);
    pages.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let requests = Request::new(&server, "GET", "/").bytes().repeat(1_000);
    assert!((0..1_000).any(|_| pages.write_all(&requests).is_err()), "a million pages were asked for unread");

    // Fragments, with something in them and with nothing.
    let mut fragments = Socket::plain(&server, "/ws");
    fragments.send(TEXT_BEGUN, b"a");
    flood(&mut fragments, &masked(CONTINUED, &[b'a'; 16]));
    assert_eq!(fragments.closed(), Some(1009));
    let mut empty = Socket::plain(&server, "/ws");
    empty.send(TEXT_BEGUN, b"");
    flood(&mut empty, &masked(CONTINUED, b""));
    assert_eq!(empty.closed(), Some(4002));

    drop((flooder, sender, echo, pages, fragments, empty));
    check_descriptors(&server, before.0);
    canary.stop();
    let after = server.resident_kib();
    assert!(after < before.1 + MEMORY_KIB, "{} KiB grew to {after} KiB", before.1);
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let server = Magpie::start(&["--max-connections-per-address", "0"]);
    let before = server.descriptors();
    let canary = Canary::start(&server);
    let close = masked(CLOSE, &1000u16.to_be_bytes());
    let mut resident = 0;
    for round in 0..500 {
        connect(server.address);
        let mut orderly = open(&server, DOORS[round % DOORS.len()]);
        orderly.raw(&close);
        assert_eq!(orderly.closed(), Some(1000));
        open(&server, DOORS[round % DOORS.len()]).cut();
        // A reset, in the middle of a frame.
        let mut reset = Socket::plain(&server, "/ws");
        reset.raw(&masked(TEXT, &[b'a'; 1_000])[..500]);
        socket2::SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        if round == 100 {
            resident = server.resident_kib();
        }
    }
    check_descriptors(&server, before);
    canary.stop();
    let after = server.resident_kib();
    assert!(after < resident + 10 * 1024, "{resident} KiB grew to {after} KiB in 400 rounds");
}

#[test]
fn small_frames_that_inflate_keep_nobody_waiting() {
    let server = Magpie::start(&[]);
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    // 64 KiB in 84 bytes, a hundred in each read of the server.
    let frame = masked(DEFLATED_TEXT, &deflate(&[b'a'; 64 * 1024]));
    assert!(frame.len() < 100, "{}", frame.len());
    let mut echo = open(&server, DOORS[3]);
    let mut stream = echo.stream.try_clone().unwrap();
    let writer = thread::spawn(move || stream.write_all(&frame.repeat(5_000)));
    for _ in 0..5_000 {
        assert_eq!(echo.frame().first, DEFLATED_TEXT);
    }
    writer.join().unwrap().unwrap();
    canary.stop();
    let after = server.resident_kib();
    assert!(after < before + MEMORY_KIB, "{before} KiB grew to {after} KiB");
}

#[test]
fn who_asks_and_never_reads_holds_no_memory() {
    let server = Magpie::start(&["--message-rate", "0"]);
    let (mut talker, _) = Socket::full(&server, None);
    let body = "all work and no play ".repeat(190);
    for number in 0..60 {
        let reference = reference(5, 5, number);
        talker.json(&send(&reference, &body));
        talker.find(|value| value["type"] == "ack" && value["ref"] == reference);
    }
    let canary = Canary::start(&server);
    let before = server.resident_kib();
    // A page of 240 kB each: 19 MB in all, if somebody kept it.
    let join = masked(TEXT, json!({"type": "join", "room": LOBBY}).to_string().as_bytes());
    let request = Request::upgrade(&server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
    let mut greedy = Vec::new();
    for _ in 0..2 {
        let stream = connect_from(server.address, Ipv4Addr::LOCALHOST, true);
        let mut socket = Socket::open(stream, &request);
        socket.json(&json!({"type": "hello"}));
        socket.expect("welcome");
        socket.raw(&join.repeat(40));
        greedy.push(socket);
    }
    canary.stop();
    let after = server.resident_kib();
    assert!(after < before + 10 * 1024, "{before} KiB grew to {after} KiB");
    for socket in &mut greedy {
        while let Got::Frame(frame) = socket.next(WAIT) {
            let code = frame.close_code().filter(|_| frame.first == CLOSE);
            assert!(matches!(code, None | Some(4000 | 4002)), "{code:?}");
        }
        assert_eq!(socket.next(WAIT), Got::End, "one that never read is still connected");
    }
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
    let mut head = connect(server.address);
    head.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    drip(&mut head);
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
    drip(&mut post);
    assert_eq!(read_response(&mut post).unwrap().status, 408);
    read_to_end(&mut post);
    drop((silent, idle, head, crowd, body, post));
    canary.stop();
    check_descriptors(&server, before);
}

/// Sends a byte now and then, until there is an answer or the end.
fn drip(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until("what drips is cut", || match stream.peek(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => stream.write_all(b"a").is_err().then_some(()),
        _ => Some(()),
    });
    stream.set_read_timeout(Some(WAIT)).unwrap();
}

/// Sends a frame byte by byte and answers nothing else, until it is told to go. Gives the code.
fn drip_frame(socket: &mut Socket) -> Option<u16> {
    for byte in masked(TEXT, &[b'a'; 200]) {
        // The server may end the connection at any time.
        let _ = socket.stream.write_all(&[byte]);
        match socket.next(Duration::from_millis(50)) {
            Got::Frame(frame) if frame.first == CLOSE => return frame.close_code(),
            Got::Frame(_) | Got::Nothing => {}
            Got::End => return None,
        }
    }
    panic!("a frame may take as long as it likes");
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
    let dripping = DOORS.map(|door| {
        let mut socket = open(&server, door);
        thread::spawn(move || drip_frame(&mut socket))
    });
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
    for thread in dripping {
        assert_eq!(thread.join().unwrap(), Some(4001));
    }
    check_descriptors(&server, before);
    drop(lost);
    assert!(start.elapsed() < Duration::from_secs(15));
    alive.text("still here");
    alive.find(|value| value["message"] == "still here");
    alive.cut();
    check_descriptors(&server, before);
}
