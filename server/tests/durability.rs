//! What must survive: everything acknowledged, through kill -9 and SIGTERM, against the built program. And
//! the program's manners at a terminal: arguments, exit codes, one process for one data directory.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::{
    CLOSE, Got, LOBBY, Magpie, Request, Socket, TEXT, WAIT, assert_seqs_have_no_hole, clean, command,
    connect, exchange, masked, reference, run, send, until,
};

const WRITERS: u16 = 8;
/// Sends of one writer that may be under way at a time.
const WINDOW: usize = 16;
/// So that the limits of rate do not stand between a writer and the store.
const FAST: [&str; 4] = ["--message-rate", "0", "--request-rate", "0"];

/// What a writer knows when its connection ends.
struct Written {
    cookie: String,
    /// In the order of sending, each with its `seq` once acknowledged.
    sent: Vec<(String, Option<u64>)>,
    close: Option<u16>,
}

/// Sends until the connection ends. `acked` counts the acknowledgements of all writers.
fn write_on(server: &Magpie, round: u32, writer: u16, acked: &AtomicUsize) -> Written {
    let (mut socket, _) = Socket::full(server, None);
    let cookie = socket.response.cookie().unwrap();
    let mut places = HashMap::new();
    let mut sent: Vec<(String, Option<u64>)> = Vec::new();
    let mut under_way = 0;
    loop {
        while under_way < WINDOW {
            let own = reference(round, writer, sent.len() as u64);
            let envelope = send(&own, &format!("{writer} says {}", sent.len()));
            let bytes = masked(TEXT, envelope.to_string().as_bytes());
            // What cannot be sent any more may have arrived in part: unacknowledged, like the rest.
            places.insert(own.clone(), sent.len());
            sent.push((own, None));
            under_way += 1;
            if socket.stream.write_all(&bytes).is_err() {
                break;
            }
        }
        let frame = match socket.next(WAIT) {
            Got::Frame(frame) => frame,
            Got::End => return Written { cookie, sent, close: None },
            Got::Nothing => panic!("the server hangs"),
        };
        if frame.first == CLOSE {
            return Written { cookie, sent, close: frame.close_code() };
        }
        let value: Value = serde_json::from_slice(&frame.payload).unwrap();
        assert_ne!(value["type"], "error", "{value}");
        if value["type"] == "ack" {
            let place = places[value["ref"].as_str().unwrap()];
            assert_eq!(sent[place].1.replace(value["seq"].as_u64().unwrap()), None, "acknowledged twice");
            under_way -= 1;
            acked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Eight writers write; once so many messages are acknowledged, a signal ends the server in the midst of it.
fn burst(server: &Magpie, round: u32, acknowledgements: usize, signal: &str) -> Vec<Written> {
    let acked = &AtomicUsize::new(0);
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write_on(server, round, writer, acked))).collect();
        until("the writers are under way", || {
            (acked.load(Ordering::Relaxed) >= acknowledgements).then_some(())
        });
        server.signal(signal);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

/// The place of each `ref` in the lobby. Fails if one stands twice or a `seq` is missing.
fn refs_in_lobby(server: &Magpie) -> HashMap<String, u64> {
    let (mut reader, _) = Socket::full(server, None);
    let events = reader.read_room(LOBBY, 0);
    assert_eq!(events.first().map(|event| event["seq"].clone()), Some(json!(1)));
    assert_seqs_have_no_hole(&events);
    let mut places = HashMap::new();
    for event in events.iter().filter(|event| event["kind"] == "message") {
        let own = event["ref"].as_str().unwrap().to_owned();
        assert_eq!(places.insert(own, event["seq"].as_u64().unwrap()), None, "twice: {event}");
    }
    places
}

/// Everything acknowledged is there; then each writer repeats what was not, and it is there once.
fn check_all_there(server: &Magpie, written: &[Written]) {
    let found = refs_in_lobby(server);
    for Written { sent, .. } in written {
        let mut last = 0;
        for (own, seq) in sent {
            let there = found.get(own).copied();
            assert!(seq.is_none() || *seq == there, "{own} was acknowledged as {seq:?}, and is {there:?}");
            if let Some(there) = there {
                assert!(there > last, "{own} is out of order");
                last = there;
            }
        }
    }
    let mut repeated = HashMap::new();
    for Written { cookie, sent, .. } in written {
        let (mut socket, _) = Socket::full(server, Some(cookie));
        // One that was acknowledged too, and whose acknowledgement may have been lost.
        let acknowledged = sent.iter().find(|(_, seq)| seq.is_some());
        for (own, _) in sent.iter().filter(|(_, seq)| seq.is_none()).chain(acknowledged) {
            socket.json(&send(own, "said again"));
            let ack = socket.find(|value| value["type"] == "ack" && value["ref"] == own.as_str());
            let seq = ack["seq"].as_u64().unwrap();
            assert!(found.get(own).is_none_or(|there| *there == seq), "{own} got another place");
            repeated.insert(own.clone(), seq);
        }
    }
    let found = refs_in_lobby(server);
    for (own, seq) in repeated {
        assert_eq!(found.get(&own), Some(&seq));
    }
}

#[test]
fn kill_9_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 1..=5 {
        let server = Magpie::start_on(directory.path(), &FAST);
        // Another moment of the burst each time.
        let written = burst(&server, round, 60 + 37 * round as usize, "KILL");
        drop(server);
        assert!(written.iter().any(|written| written.sent.iter().any(|(_, seq)| seq.is_none())));
        let server = Magpie::start_on(directory.path(), &FAST);
        check_all_there(&server, &written);
        all.extend(written.into_iter().flat_map(|written| written.sent));
        server.kill();
    }
    let server = Magpie::start_on(directory.path(), &FAST);
    let found = refs_in_lobby(&server);
    assert_eq!(found.len(), all.len(), "each message of all rounds stands there once");
    assert!(all.iter().all(|(own, seq)| seq.is_none() || *seq == found.get(own).copied()));
}

#[test]
fn sigterm_closes_with_1012_and_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Magpie::start_on(directory.path(), &FAST);
    let mut plain = Socket::plain(&server, "/ws");
    let address = server.address;
    let written = burst(&server, 1, 200, "TERM");
    assert!(written.iter().all(|written| written.close == Some(1012)));
    assert_eq!(plain.closed(), Some(1012));
    drop(plain);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status:?}: {}", server.log());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!server.data().join("control.sock").exists());
    let server = Magpie::start_on(directory.path(), &FAST);
    check_all_there(&server, &written);
}

#[test]
fn a_drain_is_told_and_takes_no_newcomers() {
    let mut server = Magpie::start(&[]);
    // A peer that does not answer the close keeps the drain going for a few seconds.
    let mut lingering = Socket::plain(&server, "/ws");
    server.signal("TERM");
    loop {
        let frame = lingering.frame();
        if frame.first == CLOSE {
            assert_eq!(frame.close_code(), Some(1012));
            break;
        }
    }
    // A balancer sees either: no readiness, or nobody listening.
    if let Ok(mut stream) = std::net::TcpStream::connect(server.address) {
        let ready = Request::new(&server, "GET", "/readyz");
        let _ = stream.write_all(&ready.bytes());
        let status = support::read_response(&mut stream).map(|answer| answer.status);
        assert!(matches!(status, None | Some(503)), "{status:?}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// Whether system calls can be traced here; if not, says so.
fn has_strace() -> bool {
    let has = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !has {
        println!("skipped: strace is missing");
    }
    has
}

#[test]
fn a_slow_disk_makes_senders_wait_and_nobody_else() {
    const SENDS: u64 = 24_000;
    if !has_strace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut strace = Command::new("strace");
    // Each sync takes half a second longer than the disk needs.
    strace.args([
        "-D",
        "-f",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:delay_enter=500000",
    ]);
    strace.args(["-o", "/dev/null"]).arg(env!("CARGO_BIN_EXE_magpie"));
    // Who reads history here takes what else there is only later.
    let flags = [&FAST[..], &["--send-queue-bytes", "0"]].concat();
    let server = Magpie::spawn(clean(strace, &[]), &directory.path().join("data"), &flags);
    let (mut reader, _) = Socket::full(&server, None);
    let (mut writer, welcome) = Socket::full(&server, None);
    writer.find(|value| value["kind"] == "joined" && value["user"] == welcome["user"]);
    let mut sends = writer.stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        for n in 0..SENDS {
            let text = send(&reference(0x510, 1, n), "slow").to_string();
            sends.write_all(&masked(TEXT, text.as_bytes())).unwrap();
        }
    });
    // Each is acknowledged or told to wait. Meanwhile another reads.
    let (mut acked, mut told_to_wait, mut reads) = (BTreeSet::new(), BTreeSet::new(), 0);
    while acked.len() + told_to_wait.len() < SENDS as usize {
        let value = writer.value();
        match value["type"].as_str() {
            Some("ack") => assert!(acked.insert(value["ref"].to_string())),
            Some("error") => {
                assert_eq!(value["code"], "unavailable");
                assert!(value["retry_ms"].is_u64());
                assert!(told_to_wait.insert(value["ref"].to_string()));
                if reads == 0 {
                    reader.json(&json!({"type": "history", "room": LOBBY, "before": 2}));
                    assert_eq!(reader.expect("history")["events"][0]["seq"], 1);
                    reads = acked.len() + 1;
                }
            }
            _ => {}
        }
    }
    sender.join().unwrap();
    assert!(!told_to_wait.is_empty() && reads > 0, "the disk was not slow enough");
    assert!(reads < acked.len(), "the history came only when the writer was done");
    // What was acknowledged is there once, and nothing else is.
    let refs = |events: &[Value]| {
        events.iter().filter(|e| e["kind"] == "message").map(|e| e["ref"].to_string()).collect::<Vec<_>>()
    };
    let log = refs(&reader.read_room(LOBBY, 0));
    assert_eq!(log.len(), acked.len());
    assert_eq!(log.into_iter().collect::<BTreeSet<_>>(), acked);
}

#[test]
fn an_acknowledgement_follows_the_sync() {
    if !has_strace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut strace = Command::new("strace");
    // As a grandchild (-D), so that the process we signal is the server.
    strace.args(["-D", "-f", "-s", "400", "-e", "trace=fsync,fdatasync,sendto,write,writev", "-o"]);
    strace.arg(&trace).arg(env!("CARGO_BIN_EXE_magpie"));
    let data = directory.path().join("data");
    let mut server = Magpie::spawn(clean(strace, &[]), &data, &["--no-deflate"]);
    let (mut socket, welcome) = Socket::full(&server, None);
    // The guest's own arrival is in the log by then; nothing else is under way.
    socket.find(|value| value["kind"] == "joined" && value["user"] == welcome["user"]);
    for number in 0..3 {
        let own = reference(0xacc, 1, number);
        socket.json(&send(&own, "a lone message"));
        socket.find(|value| value["type"] == "ack" && value["ref"] == own.as_str());
        socket.find(|value| value["type"] == "event" && value["ref"] == own.as_str());
    }
    server.signal("TERM");
    assert_eq!(socket.closed(), Some(1012));
    drop(socket);
    server.wait();

    let text = until("the trace is written", || {
        let text = std::fs::read_to_string(&trace).ok()?;
        text.contains("+++ exited with 0 +++").then_some(text)
    });
    // Between what was sent before a message and its acknowledgement, a sync has ended well.
    let (mut acks, mut synced) = (0, 0);
    for line in text.lines() {
        let is_sync = line.contains("fdatasync") || line.contains("fsync");
        if is_sync && line.trim_end().ends_with("= 0") {
            synced += 1;
        } else if line.contains("\\\"type\\\":\\\"ack\\\"") {
            assert!(synced > 0, "no sync before this: {line}");
            acks += 1;
            synced = 0;
        } else if line.contains("\\\"kind\\\":\\\"joined\\\"") {
            synced = 0;
        }
    }
    assert_eq!(acks, 3, "{text}");
}

#[test]
fn one_directory_is_one_process() {
    let server = Magpie::start(&[]);
    let data = server.data().to_str().unwrap();
    let second = run(&["--listen", "127.0.0.1:0", "--data", data]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(data) && said.contains("in use by another process"), "{said}");

    let other = tempfile::tempdir().unwrap();
    let listen = server.address.to_string();
    let third = run(&["--listen", &listen, "--data", other.path().to_str().unwrap()]);
    assert_eq!(third.status.code(), Some(1));
    let said = String::from_utf8(third.stderr).unwrap();
    assert!(said.contains("cannot listen on") && said.contains(&listen), "{said}");

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    let fourth = run(&["--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()]);
    assert_eq!(fourth.status.code(), Some(1));
    assert!(String::from_utf8(fourth.stderr).unwrap().contains(file.to_str().unwrap()));
}

#[test]
fn the_operator_reaches_everyone() {
    let server = Magpie::start(&[]);
    let mut plain = Socket::plain(&server, "/ws");
    let (mut full, _) = Socket::full(&server, None);
    // A plain client's first message back shows that it is in.
    plain.text("here");
    plain.find(|value| value["message"] == "here");
    let data = server.data().to_str().unwrap().to_owned();
    let text = "Tea is ready: \"quoted\" & <b>not bold</b> 🫖";
    let announced = run(&["announce", text, "--data", &data]);
    assert_eq!(announced.status.code(), Some(0), "{announced:?}");
    let heard = plain.find(|value| value["sender"] == "Magpie");
    assert_eq!(heard, json!({"sender": "Magpie", "message": text}));
    assert_eq!(full.expect("announcement")["text"], text);

    drop(server);
    let nobody = run(&["announce", text, "--data", &data]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("no server runs on"));
    assert_eq!(run(&["announce", " ", "--data", &data]).status.code(), Some(2));
}

#[test]
fn the_command_line_explains_itself() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "--listen",
        "--data",
        "--allow-origin",
        "--message-rate",
        "--request-rate",
        "--max-rooms-per-user",
        "--max-connections",
        "--max-connections-per-address",
        "--send-queue-bytes",
        "--max-echo-bytes",
        "--idle-timeout",
        "--header-timeout",
        "--ping-interval",
        "--no-deflate",
        "--no-lab",
        "announce",
    ] {
        assert!(help.contains(flag), "{flag} is not in the help");
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("magpie ", env!("CARGO_PKG_VERSION"), "\n")
    );

    for (flag, value) in [
        ("--listen", "nonsense"),
        ("--listen", "127.0.0.1:70000"),
        ("--ping-interval", "0"),
        ("--ping-interval", "3601"),
        ("--message-rate", "-1"),
        ("--message-rate", "fast"),
        ("--max-connections", "many"),
        ("--send-queue-bytes", "1MB"),
        ("--idle-timeout", "1.5"),
    ] {
        let wrong = run(&[&format!("{flag}={value}")]);
        assert_eq!(wrong.status.code(), Some(2), "{flag} {value}");
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert!(said.contains(flag) && said.contains(value), "{said}");
    }
    for arguments in [&["--unknown"][..], &["dance"], &["announce"], &["--no-lab=maybe"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let variable = command(&[]).env("MAGPIE_PING_INTERVAL", "never").output().unwrap();
    assert_eq!(variable.status.code(), Some(2));
    assert!(String::from_utf8(variable.stderr).unwrap().contains("--ping-interval"));
}

#[test]
fn it_runs_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let mut elsewhere = command(&[]);
    elsewhere.current_dir(directory.path()).env("MAGPIE_NO_LAB", "true");
    let server = Magpie::spawn(elsewhere, Path::new("my data"), &[]);
    let page = Request::new(&server, "GET", "/").send(&server);
    assert_eq!(page.status, 200);
    assert!(directory.path().join("my data/magpie.db").is_file());
    for path in ["/lab", "/lab/poll?channel=abcdefgh", "/lab/events?channel=abcdefgh"] {
        assert_eq!(Request::new(&server, "GET", path).send(&server).status, 404, "{path}");
    }
    // What belongs to nobody else is not for others to read.
    let mode = |path: &str| {
        let metadata = std::fs::metadata(directory.path().join("my data").join(path)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077
    };
    assert_eq!((mode(""), mode("magpie.db")), (0, 0));

    // Several addresses, of both families where there are both.
    let two = Magpie::start(&["--listen", "127.0.0.1:0"]);
    let urls: Vec<String> = until("both addresses are told", || {
        let log = two.log();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let urls: Vec<_> = entries.filter_map(|entry| Some(entry["url"].as_str()?.to_owned())).collect();
        (urls.len() == 2).then_some(urls)
    });
    for url in urls {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let health = exchange(address, &Request::new(&two, "GET", "/healthz").bytes()).unwrap();
        assert_eq!(health.status, 200);
    }
}

#[test]
fn a_restart_keeps_names_and_rooms() {
    let directory = tempfile::tempdir().unwrap();
    let server = Magpie::start_on(directory.path(), &[]);
    let (mut ada, welcome) = Socket::full(&server, None);
    let cookie = ada.response.cookie().unwrap();
    ada.json(&json!({"type": "rename", "name": "Ada"}));
    ada.expect("renamed");
    ada.json(&json!({"type": "create", "name": "book-club"}));
    let room = ada.expect("joined")["room"].clone();
    server.kill();
    let server = Magpie::start_on(directory.path(), &[]);
    // A socket from before is gone; the cookie is as good as before.
    assert!(!matches!(ada.next(Duration::from_secs(1)), Got::Nothing));
    let (_again, back) = Socket::full(&server, Some(&cookie));
    assert_eq!(back["user"], json!({"id": welcome["user"]["id"], "name": "Ada"}));
    assert!(back["rooms"].as_array().unwrap().iter().any(|info| info["id"] == room));
    drop(connect(server.address));
}
