//! TLS from outside: chat over it, its certificates, and what a peer can do wrong before anything is said.
//!
//! A tunnel in this process speaks TLS with the server and plain TCP with the client of the other tests, so
//! that they can be used as they are. The client of TLS is rustls too: browsers have their own test.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Canary, Got, LOBBY, Magpie, Request, Socket, TEXT, WAIT, reference, run, send, until};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

const OWN: &str = "tls-self-signed.pem";

/// A client that believes one certificate.
fn client(cert: &Path, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Listens for plain TCP and speaks TLS with the server, until the test's process ends. A slow one holds next
/// to nothing by itself.
fn tunnel(server: SocketAddr, config: ClientConfig, is_slow: bool) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    let connector = TlsConnector::from(Arc::new(config));
    let serve = async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if is_slow {
            socket.set_send_buffer_size(4_096).unwrap();
        }
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1_024).unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        loop {
            let (mut inner, _) = listener.accept().await.unwrap();
            let connector = connector.clone();
            tokio::spawn(async move {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                if is_slow {
                    socket.set_recv_buffer_size(4_096).unwrap();
                }
                let outer = socket.connect(server).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut outer = connector.connect(name, outer).await.unwrap();
                // Either end may go away without a word.
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            });
        }
    };
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve)
    });
    told.recv_timeout(WAIT).unwrap()
}

/// A server with a certificate of its own, its address, and a tunnel to it as what tests see of it.
fn start(flags: &[&str]) -> (Magpie, SocketAddr) {
    start_with(&[&TLS13, &TLS12], flags)
}

fn start_with(versions: &[&'static SupportedProtocolVersion], flags: &[&str]) -> (Magpie, SocketAddr) {
    let mut server = Magpie::start(&[&["--tls-self-signed"], flags].concat());
    let address = server.address;
    server.address = tunnel(address, client(&server.data().join(OWN), versions), false);
    (server, address)
}

/// A TLS connection of our own, after its handshake.
fn connect(address: SocketAddr, config: ClientConfig) -> StreamOwned<ClientConnection, std::net::TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), support::connect(address));
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Whether a full member can speak and hears itself.
fn speaks(socket: &mut Socket, number: u64) {
    let own = reference(1, 1, number);
    socket.json(&send(&own, "over TLS"));
    socket.find(|value| value["type"] == "event" && value["ref"] == own);
}

#[test]
fn people_chat_over_tls() {
    for versions in [[&TLS13], [&TLS12]] {
        let (server, _) = start_with(&versions, &[]);
        assert!(server.log().contains("https://127.0.0.1:"), "{}", server.log());
        let (mut full, _) = Socket::full(&server, None);
        let mut plain = Socket::plain(&server, "/ws");
        plain.text("hello");
        full.find(|value| value["type"] == "event" && value["body"] == "hello");
        // Larger than what TLS reads at once.
        let long = "ä".repeat(3_900);
        full.json(&send(&reference(1, 1, 1), &long));
        let got = plain.find(|value| value["message"] == long.as_str());
        assert!(got["sender"].is_string());
        // The trial address has a way of writing of its own.
        let mut echo = Socket::plain(&server, "/ws/echo");
        let many = vec![b'x'; 60_000];
        for _ in 0..20 {
            echo.send(TEXT, &many);
        }
        for _ in 0..20 {
            assert_eq!(echo.frame().payload, many);
        }
        for socket in [&mut full, &mut echo] {
            socket.send(support::CLOSE, &1000u16.to_be_bytes());
            assert_eq!(socket.closed(), Some(1000));
        }
    }
}

#[test]
fn frames_may_come_along_with_the_handshake() {
    let (server, address) = start(&[]);
    let request = Request::upgrade(&server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
    let hello = support::masked(TEXT, json!({"type": "hello"}).to_string().as_bytes());
    // All in one record, and more than HTTP reads at first: the rest is left in TLS, not in the kernel.
    let send = send(&reference(2, 1, 1), &"z".repeat(3_900)).to_string();
    let ping = support::masked(TEXT, json!({"type": "ping", "n": 7}).to_string().as_bytes());
    let frames = [hello, support::masked(TEXT, send.as_bytes()).repeat(3), ping].concat();
    let mut stream = connect(address, client(&server.data().join(OWN), &[&TLS13]));
    stream.write_all(&[request.bytes(), frames].concat()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
    while !String::from_utf8_lossy(&answer).contains(r#""type":"pong""#) {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0);
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
}

#[test]
fn the_session_stays_on_tls() {
    let (server, _) = start(&[]);
    let page = Request::new(&server, "GET", "/").send(&server);
    let cookie = page.header("set-cookie").unwrap().to_owned();
    let value = cookie.strip_prefix("__Host-magpie_session=").unwrap().split(';').next().unwrap().to_owned();
    for part in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.to_lowercase().contains("domain"), "{cookie}");

    let (_socket, welcome) = Socket::full(&server, page.cookie().as_deref());
    let (_other, same) = Socket::full(&server, page.cookie().as_deref());
    assert_eq!(welcome["user"]["id"], same["user"]["id"]);
    // The same token in a cookie that could have been set in the clear is nobody's.
    let (fresh, guest) = Socket::full(&server, Some(&format!("magpie_session={value}")));
    assert_ne!(welcome["user"]["id"], guest["user"]["id"]);
    assert!(fresh.response.header("set-cookie").unwrap().starts_with("__Host-magpie_session="));
}

#[test]
fn a_page_of_the_other_scheme_may_not_connect() {
    let (server, _) = start(&[]);
    for (scheme, status) in [("https", 101), ("http", 403)] {
        let origin = format!("{scheme}://{}", server.address);
        let request = Request::upgrade(&server, "/ws").with("Origin", &origin);
        assert_eq!(request.send(&server).status, status, "{origin}");
    }
}

#[test]
fn what_is_not_tls_is_told_so_or_closed() {
    let (server, address) = start(&["--header-timeout", "2"]);
    let request = Request::upgrade(&server, "/ws").bytes();
    let answer = support::exchange(address, &request).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (400, "This port speaks TLS (https)."));
    for garbage in [&b"\0\0\0\0"[..], b"hello", b"\x16\x03\x01\x00\x05hello", &[0x16; 70_000], &[0xff; 100]] {
        let mut stream = support::connect(address);
        let _ = stream.write_all(garbage);
        // An alert at most.
        assert!(support::read_to_end(&mut stream).len() < 20);
    }
    // Nothing in common: the handshake ends with an alert.
    let mut config = client(&server.data().join(OWN), &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut h2 =
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), support::connect(address));
    assert!(h2.conn.complete_io(&mut h2.sock).is_err());
    // And the other way around.
    let plain = Magpie::start(&[]);
    let mut stream = support::connect(plain.address);
    stream.write_all(&client_hello(&server)).unwrap();
    let answer = support::read_to_end(&mut stream);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    speaks(&mut Socket::full(&server, None).0, 1);
}

fn client_hello(server: &Magpie) -> Vec<u8> {
    let config = client(&server.data().join(OWN), &[&TLS13]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn slow_handshakes_are_cut_and_cost_nobody_else() {
    let (server, address) = start(&["--header-timeout", "2", "--idle-timeout", "2"]);
    let canary = Canary::start(&server);
    let hello = client_hello(&server);
    let begin = Instant::now();
    // Nothing, one byte, half a hello, and a hello whose answer is never read.
    let mut streams: Vec<_> = (0..200)
        .map(|number| {
            let from = Ipv4Addr::new(127, 0, 1, (number % 4) as u8);
            let mut stream = support::connect_from(address, from, false);
            let parts = [&hello[..0], &hello[..1], &hello[..hello.len() / 2], &hello[..]];
            stream.write_all(parts[number % 4]).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        support::read_to_end(stream);
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(streams);
    canary.stop();
}

#[test]
fn peers_that_go_without_a_word_leave_nothing_behind() {
    let (server, address) = start(&[]);
    let (mut watcher, _) = Socket::full(&server, None);
    let before = server.descriptors();
    let request = Request::upgrade(&server, "/ws").bytes();
    for garbage in [&b""[..], b"this is no record at all", b"\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa"] {
        let mut peer = connect(address, client(&server.data().join(OWN), &[&TLS13]));
        peer.write_all(&request).unwrap();
        let mut head = [0; 12];
        peer.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        peer.sock.write_all(garbage).unwrap();
        if garbage.is_empty() {
            peer.sock.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // The server ends it, after an alert or without.
        let mut rest = Vec::new();
        let end = peer.sock.read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    until("the descriptors come back", || (server.descriptors() <= before).then_some(()));
    speaks(&mut watcher, 3);
}

#[test]
fn a_burst_reaches_a_slow_reader_whole() {
    const LINES: usize = 1_000;
    let (server, address) = start(&["--message-rate", "0", "--request-rate", "0", "--send-queue-bytes", "0"]);
    let slow = tunnel(address, client(&server.data().join(OWN), &[&TLS13]), true);
    let request = Request::upgrade(&server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
    let mut reader = Socket::open(support::connect_from(slow, Ipv4Addr::LOCALHOST, true), &request);
    reader.json(&json!({"type": "hello"}));
    reader.expect("welcome");

    let (mut writer, _) = Socket::full(&server, None);
    let body = |number: usize| format!("{number} {}", "burst ".repeat(400));
    for number in 0..LINES {
        writer.json(&send(&reference(4, 1, number as u64), &body(number)));
    }
    let mut acknowledged = 0;
    while acknowledged < LINES {
        acknowledged += usize::from(writer.value()["type"] == "ack");
    }
    // Only now does the other one read.
    let mut events: Vec<Value> = Vec::new();
    while events.len() < LINES {
        let value = reader.value();
        if value["type"] == "event" && value["kind"] == "message" {
            events.push(value);
        }
    }
    support::assert_seqs_have_no_hole(&events);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["body"].as_str().unwrap().trim_end(), body(number).trim_end());
    }
    assert_eq!(events[0]["room"], LOBBY);
    speaks(&mut reader, 4);
}

#[test]
fn a_reader_that_never_reads_is_dropped() {
    let (server, address) =
        start(&["--message-rate", "0", "--request-rate", "0", "--send-queue-bytes", "65536"]);
    let (mut writer, _) = Socket::full(&server, None);
    let slow = tunnel(address, client(&server.data().join(OWN), &[&TLS13]), true);
    let request = Request::upgrade(&server, "/ws");
    let before = server.descriptors();
    let mut reader = Socket::open(support::connect_from(slow, Ipv4Addr::LOCALHOST, true), &request);
    for number in 0..1_000 {
        writer.json(&send(&reference(5, 1, number), &"burst ".repeat(400)));
        writer.expect("ack");
    }
    until("it is dropped", || (server.descriptors() <= before).then_some(()));
    // What it reads then ends, with 4000 or without.
    let got = until("its end", || match reader.next(WAIT) {
        Got::Frame(frame) if frame.first == support::CLOSE => Some(frame.close_code()),
        Got::Frame(_) => None,
        Got::End => Some(None),
        Got::Nothing => panic!("no end"),
    });
    assert!(matches!(got, None | Some(4000)), "{got:?}");
}

/// Makes a certificate for localhost and puts it where the server looks; gives its fingerprint.
fn put_certificate(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fingerprint(made.cert.der())
}

#[test]
fn a_new_certificate_takes_over_without_a_break() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let first = put_certificate(directory.path());
    let mut server = Magpie::start(&["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")]);
    let address = server.address;
    let shown = || {
        let stream = connect(address, client(&directory.path().join("cert.pem"), &[&TLS13]));
        fingerprint(&stream.conn.peer_certificates().unwrap()[0])
    };
    assert_eq!(shown(), first);
    assert!(server.log().contains(&first));
    server.address = tunnel(address, client(&directory.path().join("cert.pem"), &[&TLS13]), false);
    let (mut old, _) = Socket::full(&server, None);
    speaks(&mut old, 1);

    // Asked to look.
    let second = put_certificate(directory.path());
    server.signal("HUP");
    until("the log names the new one", || server.log().contains(&second).then_some(()));
    assert_eq!(shown(), second);
    speaks(&mut old, 2);

    // A bad one is told of and changes nothing.
    let good = std::fs::read(path("cert.pem")).unwrap();
    std::fs::write(path("cert.pem"), "no certificate").unwrap();
    server.signal("HUP");
    until("the log tells", || server.log().contains("there is no certificate in it").then_some(()));
    std::fs::write(path("cert.pem"), good).unwrap();
    assert_eq!(shown(), second);

    // Not asked, it finds out by itself.
    let third = put_certificate(directory.path());
    until("the log names the third", || server.log().contains(&third).then_some(()));
    assert_eq!(shown(), third);
    speaks(&mut old, 3);
}

#[test]
fn an_own_certificate_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut prints = Vec::new();
    for _ in 0..2 {
        let server = Magpie::start_on(directory.path(), &["--tls-self-signed"]);
        let stream = connect(server.address, client(&directory.path().join(OWN), &[&TLS13]));
        let print = fingerprint(&stream.conn.peer_certificates().unwrap()[0]);
        assert!(server.log().contains(&print), "{}", server.log());
        prints.push(print);
    }
    assert_eq!(prints[0], prints[1]);
}

#[test]
fn a_bad_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    put_certificate(directory.path());
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let data = path("data");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--tls-cert", &cert], 2, "--tls-cert needs --tls-key"),
        (&["--tls-key", &key], 2, "--tls-key needs --tls-cert"),
        (&["--tls-self-signed", "--tls-cert", &cert, "--tls-key", &key], 2, "--tls-self-signed"),
        (&["--tls-cert", "/nowhere.pem", "--tls-key", &key], 1, "/nowhere.pem: No such file"),
        (&["--tls-cert", &key, "--tls-key", &key], 1, "key.pem: there is no certificate in it"),
    ];
    for (flags, code, text) in cases {
        let output = run(&[&["--listen", "127.0.0.1:0", "--data", &data], flags].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.contains(text)), (Some(code), true), "{flags:?}: {error}");
    }
}
