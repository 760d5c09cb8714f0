//! What the tests from outside share: the built program as a process, and a WebSocket client of raw bytes.
//!
//! It must not use the server's own code: what is wrong there would be wrong here too. Nothing sleeps; what
//! is waited for has a deadline.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};

/// The longest wait for what should happen at once. Generous, since test machines are busy.
pub const WAIT: Duration = Duration::from_secs(20);
/// The room that everyone is in.
pub const LOBBY: &str = "0000000000001";
/// The key of RFC 6455 §1.2, and the answer it must get.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const KEY_ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// First bytes of whole frames (RFC 6455 §5.2).
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
pub const CONTINUATION: u8 = 0x80;
/// FIN left out: more fragments follow.
pub const TEXT_BEGUN: u8 = 0x01;
pub const CONTINUED: u8 = 0x00;
/// RSV1: the message is compressed.
pub const DEFLATED_TEXT: u8 = 0xc1;

/// A server process; killed when dropped. Nothing that a peer sends may have made it panic.
pub struct Magpie {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
    data: PathBuf,
    /// Removed after the process has ended.
    _directory: Option<tempfile::TempDir>,
}

impl Magpie {
    /// Starts a server with data of its own and these flags.
    pub fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut magpie = Self::start_on(directory.path(), flags);
        magpie._directory = Some(directory);
        magpie
    }

    /// Starts a server on a data directory.
    pub fn start_on(data: &Path, flags: &[&str]) -> Self {
        Self::spawn(command(&[]), data, flags)
    }

    /// Starts a server by a command that ends with the program's name.
    pub fn spawn(mut command: Command, data: &Path, flags: &[&str]) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data).args(flags);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, url) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let all = log.clone();
        let log_reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                let in_text = line.split(' ').find_map(|word| word.strip_prefix("url="));
                if let Some(url) = entry["url"].as_str().or(in_text) {
                    let _ = found.send(url.to_owned());
                }
                all.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let Ok(url) = url.recv_timeout(WAIT) else {
            let _ = child.kill();
            panic!("the server did not start: {}", log.lock().unwrap());
        };
        let address = url.split_once("://").unwrap().1.parse().unwrap();
        Self { child, address, log, log_reader: Some(log_reader), data: data.to_owned(), _directory: None }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Kills the process at once (SIGKILL) and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        until("the process ends", || self.child.try_wait().unwrap())
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Magpie {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.log_reader.take().map(JoinHandle::join);
        let log = self.log();
        assert!(thread::panicking() || !log.contains("panicked"), "the server panicked: {log}");
    }
}

/// The program with arguments, and without the variables that would change what it does.
pub fn command(arguments: &[&str]) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_magpie")), arguments)
}

/// Adds arguments and takes away the program's variables.
pub fn clean(mut command: Command, arguments: &[&str]) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MAGPIE_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Asks again and again until there is an answer, at most for `WAIT`.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

// ---- HTTP ----

/// A request's head that a test can change line by line.
#[derive(Clone)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// A plain request with nothing but a Host.
    pub fn new(server: &Magpie, method: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), server.address.to_string())];
        Self { line: format!("{method} {target} HTTP/1.1"), headers }
    }

    /// A handshake as RFC 6455 §4.1 wants it.
    pub fn upgrade(server: &Magpie, target: &str) -> Self {
        Self::new(server, "GET", target)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY)
    }

    pub fn line(mut self, line: &str) -> Self {
        self.line = line.to_owned();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Sets a header in place of any of its name.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header, also if there is one of its name.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        (text + "\r\n").into_bytes()
    }

    pub fn send(&self, server: &Magpie) -> Response {
        exchange(server.address, &self.bytes()).expect("an answer")
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What was read behind a head that has no body: the first frames of a WebSocket.
    rest: Vec<u8>,
}

impl Response {
    /// The value of a header that stands at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} stands twice in {self:?}");
        value.map(String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The session cookie as a client sends it back.
    pub fn cookie(&self) -> Option<String> {
        self.header("set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned())
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, WAIT).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_write_timeout(Some(WAIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connects from another address of this machine, with a small receive buffer if `is_slow`.
pub fn connect_from(address: SocketAddr, from: Ipv4Addr, is_slow: bool) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if is_slow {
        socket.set_recv_buffer_size(4_096).unwrap();
    }
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_write_timeout(Some(WAIT)).unwrap();
    stream
}

/// Sends bytes and reads one answer; `None` if the connection was closed without one. Panics on a hang.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Response> {
    let mut stream = connect(address);
    // A server that has read enough answers and closes; the rest then cannot be sent.
    let _ = stream.write_all(bytes);
    read_response(&mut stream)
}

/// Reads one answer; `None` at an end without one. Panics on a hang.
pub fn read_response(stream: &mut TcpStream) -> Option<Response> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if !read_some(stream, &mut bytes) {
            return None;
        }
    };
    let mut rest = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = match length {
        Some((_, length)) if status != 304 => length.parse().unwrap(),
        _ => 0,
    };
    while rest.len() < length && read_some(stream, &mut rest) {}
    let after = rest.split_off(length.min(rest.len()));
    Some(Response { status, headers, body: rest, rest: after })
}

/// Reads what is there; false at the end. Panics if nothing comes in time.
fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(count) => {
            bytes.extend_from_slice(&buffer[..count]);
            count > 0
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the server hangs")
        }
        Err(_) => false,
    }
}

/// Waits until the peer closes; panics if it does not. Gives what came before.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while read_some(stream, &mut bytes) {}
    bytes
}

// ---- WebSocket ----

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame; `None` in one that has none.
    pub fn close_code(&self) -> Option<u16> {
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// What reading gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Frame(Frame),
    /// The peer closed the connection.
    End,
    /// Nothing came in time.
    Nothing,
}

/// A client's masked frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A payload as permessage-deflate sends it (RFC 7692 §7.2.1).
pub fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Compress::new(Compression::best(), false).compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

pub struct Socket {
    pub stream: TcpStream,
    pub response: Response,
    bytes: Vec<u8>,
}

impl Socket {
    /// Opens a WebSocket by a request; panics if it is refused.
    pub fn open(stream: TcpStream, request: &Request) -> Self {
        Self::try_open(stream, request).unwrap_or_else(|response| panic!("refused: {response:?}"))
    }

    /// Opens a WebSocket by a request, or gives the refusal.
    pub fn try_open(mut stream: TcpStream, request: &Request) -> Result<Self, Response> {
        stream.write_all(&request.bytes()).unwrap();
        let mut response = read_response(&mut stream).expect("an answer to the handshake");
        if response.status != 101 {
            return Err(response);
        }
        let bytes = std::mem::take(&mut response.rest);
        Ok(Self { stream, response, bytes })
    }

    /// Opens a path without a subprotocol.
    pub fn plain(server: &Magpie, path: &str) -> Self {
        Self::open(connect(server.address), &Request::upgrade(server, path))
    }

    /// Opens a chat of `magpie.v1` and says hello, with a cookie or as a fresh guest.
    pub fn hello(server: &Magpie, cookie: Option<&str>) -> Self {
        let mut request = Request::upgrade(server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
        if let Some(cookie) = cookie {
            request = request.with("Cookie", cookie);
        }
        let mut socket = Self::open(connect(server.address), &request);
        socket.json(&json!({"type": "hello"}));
        socket
    }

    /// Opens `/ws` with `magpie.v1`, says hello and takes the welcome.
    pub fn full(server: &Magpie, cookie: Option<&str>) -> (Self, Value) {
        let mut socket = Self::hello(server, cookie);
        let welcome = socket.expect("welcome");
        (socket, welcome)
    }

    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.raw(&masked(first, payload));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    pub fn json(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    /// The next frame, if it comes within `wait`.
    pub fn next(&mut self, wait: Duration) -> Got {
        let end = Instant::now() + wait;
        loop {
            if let Some(frame) = self.take_frame() {
                return Got::Frame(frame);
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Got::Nothing;
            }
            self.stream.set_read_timeout(Some(rest)).unwrap();
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Got::End,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::End,
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let (first, second) = (*self.bytes.first()?, *self.bytes.get(1)?);
        assert_eq!(second & 0x80, 0, "a server's frame is not masked (RFC 6455 §5.1)");
        let (length, head) = match second {
            126 => (u64::from(u16::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*self.bytes.get(2..)?.first_chunk()?), 10),
            length => (u64::from(length), 2),
        };
        let end = head + usize::try_from(length).unwrap();
        let payload = self.bytes.get(head..end)?.to_vec();
        self.bytes.drain(..end);
        Some(Frame { first, payload })
    }

    /// The next frame; panics if none comes.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        match self.next(WAIT) {
            Got::Frame(frame) => frame,
            other => panic!("no frame but {other:?}"),
        }
    }

    /// The next text frame as JSON; what else comes is passed over.
    #[track_caller]
    pub fn value(&mut self) -> Value {
        loop {
            let frame = self.frame();
            if frame.first == TEXT {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
            assert_ne!(frame.first, CLOSE, "closed with {:?}", frame.close_code());
        }
    }

    /// The next text frame that `matches`.
    #[track_caller]
    pub fn find(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        loop {
            let value = self.value();
            if matches(&value) {
                return value;
            }
        }
    }

    /// The next envelope of a type.
    #[track_caller]
    pub fn expect(&mut self, type_name: &str) -> Value {
        self.find(|value| value["type"] == type_name)
    }

    /// Reads to the close frame and gives its code. Panics unless the server then ends the connection.
    #[track_caller]
    pub fn closed(&mut self) -> Option<u16> {
        let end = Instant::now() + WAIT;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Got::Frame(frame) if frame.first == CLOSE => {
                    // Not when the server loses patience with a peer that does not close, which is later.
                    let end = self.next(Duration::from_secs(2));
                    assert_eq!(end, Got::End, "after a close frame the server closes first");
                    return frame.close_code();
                }
                Got::Frame(_) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }

    /// All events of a room after a `seq`, page by page from the newest.
    pub fn read_room(&mut self, room: &str, after: u64) -> Vec<Value> {
        self.json(&json!({"type": "join", "room": room}));
        let joined = self.find(|value| value["type"] == "joined" && value["after"].is_null());
        let mut events = joined["events"].as_array().unwrap().clone();
        while let Some(first) = events.first().and_then(|event| event["seq"].as_u64())
            && first > after + 1
        {
            self.json(&json!({"type": "history", "room": room, "before": first}));
            let page = self.find(|value| value["type"] == "history" && value["before"] == first);
            let page = page["events"].as_array().unwrap();
            assert!(!page.is_empty(), "nothing before {first}");
            events.splice(..0, page.iter().cloned());
        }
        events.retain(|event| event["seq"].as_u64() > Some(after));
        events
    }

    /// Drops the connection without a word.
    pub fn cut(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The ways a connection can be opened: a path, whether with `magpie.v1`, whether with permessage-deflate.
pub const DOORS: [(&str, bool, bool); 4] =
    [("/ws", false, false), ("/ws", true, false), ("/ws/echo", false, false), ("/ws/echo", false, true)];

/// Opens a connection in one of these ways.
pub fn open(server: &Magpie, (path, is_full, deflate): (&str, bool, bool)) -> Socket {
    let mut request = Request::upgrade(server, path);
    if is_full {
        request = request.with("Sec-WebSocket-Protocol", "magpie.v1");
    }
    if deflate {
        request = request.with("Sec-WebSocket-Extensions", "permessage-deflate");
    }
    Socket::open(connect(server.address), &request)
}

/// A send on `magpie.v1`.
pub fn send(reference: &str, body: &str) -> Value {
    json!({"type": "send", "room": LOBBY, "ref": reference, "body": body})
}

/// A `ref` made of three numbers.
pub fn reference(first: u32, second: u16, third: u64) -> String {
    format!("{first:08x}-{second:04x}-7000-8000-{third:012x}")
}

/// Fails unless each event follows the one before.
#[track_caller]
pub fn assert_seqs_have_no_hole(events: &[Value]) {
    for pair in events.windows(2) {
        assert_eq!(pair[1]["seq"].as_u64(), pair[0]["seq"].as_u64().map(|seq| seq + 1), "{pair:?}");
    }
}

// ---- What an attack may cost ----

/// Most memory that any attack may cost, in KiB.
pub const MEMORY_KIB: u64 = 40 * 1024;
/// Descriptors that a server opens after it says its address: for the thread that accepts, and with the first
/// visitors for its database.
const DESCRIPTORS_LATER: usize = 12;

/// Waits until no more descriptors are open than were at first: nothing was leaked.
#[track_caller]
pub fn check_descriptors(server: &Magpie, before: usize) {
    let open = before + DESCRIPTORS_LATER;
    until("the descriptors are given back", || (server.descriptors() <= open).then_some(()));
}

// ---- The canary ----

/// Most time for an answer to somebody who did nothing wrong, and for a single one on a busy machine.
const CANARY_WAIT: Duration = Duration::from_secs(1);
const CANARY_WORST: Duration = Duration::from_secs(6);
/// Pause between two rounds of a canary: below the default rate of messages.
const CANARY_PAUSE: Duration = Duration::from_millis(200);

/// A second person in the lobby while a server is attacked: pings, speaks, and asks `/healthz`, each to be
/// answered within a second; and notes whether an event is missing.
pub struct Canary {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Duration>, usize)>,
}

impl Canary {
    pub fn start(server: &Magpie) -> Self {
        static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let address = server.address;
        let request = Request::upgrade(server, "/ws").with("Sec-WebSocket-Protocol", "magpie.v1");
        let health = Request::new(server, "GET", "/healthz").bytes();
        // From an address of its own, whose limits the attacker cannot use up.
        let from = Ipv4Addr::new(127, 0, 0, 77);
        let mut socket = Socket::open(connect_from(address, from, false), &request);
        socket.json(&json!({"type": "hello"}));
        socket.expect("welcome");
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            let (mut waits, mut seqs) = (Vec::new(), Vec::new());
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) || round < 3 {
                round += 1;
                let own = reference(0xca, serial as u16, round);
                let start = Instant::now();
                socket.json(&json!({"type": "ping", "n": round}));
                socket.json(&send(&own, "tweet"));
                let mut missing = HashSet::from(["pong", "ack", "event"]);
                while !missing.is_empty() {
                    let value = socket.value();
                    assert_ne!(value["type"], "error", "{value}");
                    if value["type"] == "event" {
                        seqs.push(value["seq"].as_u64().unwrap());
                    }
                    if value["ref"] == own || value["n"] == round {
                        missing.remove(value["type"].as_str().unwrap());
                    }
                }
                let mut stream = connect_from(address, from, false);
                stream.write_all(&health).unwrap();
                assert_eq!(read_response(&mut stream).map(|answer| answer.status), Some(200));
                waits.push(start.elapsed());
                let end = Instant::now() + CANARY_PAUSE;
                while let Got::Frame(frame) = socket.next(end.saturating_duration_since(Instant::now())) {
                    assert_ne!(frame.first, CLOSE, "the canary was closed: {:?}", frame.close_code());
                    let value: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                    if value["type"] == "event" {
                        seqs.push(value["seq"].as_u64().unwrap());
                    }
                }
            }
            assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "the canary missed something");
            (waits, seqs.len())
        });
        Self { stop, thread }
    }

    /// Ends the watch; panics if anything was late or missing. Gives the number of events seen.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (mut waits, seen) = self.thread.join().expect("the canary lives");
        waits.sort();
        let usual = waits[waits.len() * 9 / 10];
        let worst = waits.last().unwrap();
        assert!(usual < CANARY_WAIT && *worst < CANARY_WORST, "the canary waited {waits:?}");
        seen
    }
}
