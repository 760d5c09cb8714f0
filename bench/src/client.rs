//! The load: thousands of connections on one thread, and the checks that every delivery goes through.
//!
//! A delivery costs one comparison: the first copy of an event is read and kept, and the bytes that every
//! other member gets must be the same, in the same order. So a lost, doubled, reordered or altered event is
//! found in every run. Whatever is not as it should be ends the run with an error.
//! It must not know what a scenario measures.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use shared::model::{LOBBY, Ref};
use shared::protocol::{ClientEnvelope, Resume, SUBPROTOCOL, encode};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::frames::{self, Frame, Marker, RoomId};

/// The shared read buffer; it grows for a frame that does not fit.
const READ_BYTES: usize = 256 * 1024;
/// Connections from one source address.
const PER_ADDRESS: usize = 100;
/// Events of a room that are remembered to compare the other members' copies with.
const RING_EVENTS: usize = 4_096;
/// Longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// The key of RFC 6455 §1.3 and the answer to it: what a handshake proves, not how random we are.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const KEY_ANSWER: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest head of an answer to a handshake, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// `magpie.v1`.
    Magpie,
    /// WebSocket without a subprotocol: what one says, all get.
    Text,
    /// Bare frames without a handshake: what one says, all others get.
    Bare,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connecting,
    /// The request for the upgrade is sent.
    Upgrading,
    /// `hello` is sent.
    Greeting,
    Open,
    /// Ended, by the server with the close code that is given, or by us.
    Closed(Option<u16>),
}

/// When a connection reached what, in nanoseconds of the load's clock; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub begun: u64,
    pub upgraded: u64,
    pub welcomed: u64,
    /// All that was missed has come.
    pub resumed: u64,
}

/// One client.
pub struct Conn {
    socket: Option<TcpStream>,
    pub stage: Stage,
    pub times: Times,
    /// Of the tally that its deliveries count in.
    pub group: usize,
    /// Whether the server may close it.
    pub may_close: bool,
    /// Whether it reads what comes.
    is_reading: bool,
    is_writable: bool,
    /// The start of a frame whose rest has not come.
    carry: Vec<u8>,
    out: Vec<u8>,
    is_dirty: bool,
    cookie: String,
    /// The room whose events are checked, as an index of the load's rooms.
    pub room: usize,
    /// `seq` of the room's next event; 0 until events are checked.
    next_seq: u64,
    /// Events up to here may come twice: by the page that answers a resume, and live.
    overlap: u64,
    /// While a resume is being answered: the live events that came meanwhile, as (first, last).
    resuming: Option<Option<(u64, u64)>>,
    /// After a gap: the first event of those that came from the head backwards.
    filled_from: Option<u64>,
    /// Resumes that were answered with a gap.
    pub gaps: u32,
    /// Bytes and events that came in answer to a resume.
    pub resumed_bytes: u64,
    pub resumed_events: u64,
    sender: Option<Sender>,
    /// In a room without `seq`: the next number of each sender.
    numbers: Vec<u32>,
}

/// What a connection has said.
struct Sender {
    id: u16,
    next: u32,
    /// When what is not acknowledged was to be sent.
    pending: HashMap<u32, u64>,
}

/// A room whose events are checked.
struct Room {
    id: RoomId,
    /// The highest `seq` seen.
    head: u64,
    ring: Vec<Copied>,
}

/// The first copy of an event.
#[derive(Clone, Default)]
struct Copied {
    seq: u64,
    /// The whole frame.
    bytes: Vec<u8>,
    /// When it was to be sent, if it is a message of ours.
    sent_at: Option<u64>,
}

/// What a group of connections got since the last [`Load::begin`].
pub struct Tally {
    pub deliveries: u64,
    /// From when a message was to be sent to its delivery, in microseconds.
    pub latency: Histogram<u64>,
    pub acks: u64,
    /// From when a message was to be sent to its acknowledgement, in microseconds.
    pub ack_latency: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Tally> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("making a histogram");
        Ok(Tally { deliveries: 0, latency: histogram()?, acks: 0, ack_latency: histogram()? })
    }

    fn delivered(&mut self, sent_at: u64, now: u64) {
        self.deliveries += 1;
        self.latency.saturating_record(now.saturating_sub(sent_at) / 1_000);
    }

    fn acknowledged(&mut self, sent_at: u64, now: u64) {
        self.acks += 1;
        self.ack_latency.saturating_record(now.saturating_sub(sent_at) / 1_000);
    }
}

/// All connections of a run.
pub struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    start: Instant,
    server: SocketAddr,
    speech: Speech,
    pub conns: Vec<Conn>,
    rooms: Vec<Room>,
    pub tallies: Vec<Tally>,
    /// Connections whose message was acknowledged (or came back, where there are no acknowledgements) since
    /// the list was last taken, once for each message.
    pub completed: Vec<usize>,
    /// Rooms that were entered, as (client, id), since the set was last taken.
    pub joined: HashSet<(usize, RoomId)>,
    /// Connections that came to `Open`, or to the end of a resume, or ended, since the last [`Load::begin`].
    pub arrived: usize,
    pub ended: usize,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    senders: u16,
    salt: u32,
    /// Bytes of each message's body.
    pub body_bytes: usize,
    /// When anything but a ping came last.
    heard_at: u64,
}

impl Load {
    /// A load without connections for the server at an address.
    ///
    /// # Errors
    /// The system gives no poll, or too few descriptors.
    pub fn new(server: SocketAddr, speech: Speech) -> Result<Load> {
        rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut load = Load {
            poll: Poll::new().context("making a poll")?,
            events: Events::with_capacity(1_024),
            buffer: vec![0; READ_BYTES],
            start: Instant::now(),
            server,
            speech,
            conns: Vec::new(),
            rooms: Vec::new(),
            tallies: vec![Tally::new()?, Tally::new()?, Tally::new()?],
            completed: Vec::new(),
            joined: HashSet::new(),
            arrived: 0,
            ended: 0,
            dirty: Vec::new(),
            scratch: Vec::new(),
            senders: 0,
            salt: since_1970.subsec_nanos(),
            body_bytes: 128,
            heard_at: 0,
        };
        load.add_room(LOBBY.to_string().as_bytes())?;
        Ok(load)
    }

    /// The load's clock, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub fn speech(&self) -> Speech {
        self.speech
    }

    /// Connects `count` more clients, at most `at_once` of them at a time, and waits until they are welcomed.
    ///
    /// # Errors
    /// One is refused or dropped, or it takes longer than `limit`.
    pub fn open(&mut self, count: usize, at_once: usize, limit: Duration) -> Result<()> {
        let first = self.conns.len();
        for _ in 0..count {
            self.conns.push(Conn::new());
        }
        self.arrived = 0;
        let deadline = Instant::now() + limit;
        let mut begun = 0;
        while self.arrived < count {
            while begun < count && begun - self.arrived < at_once {
                self.connect(first + begun)?;
                begun += 1;
            }
            self.turn(Duration::from_millis(10))?;
            ensure!(Instant::now() < deadline, "only {} of {count} clients could connect", self.arrived);
        }
        Ok(())
    }

    /// Begins to connect a client that is not connected; a user that was here before comes back as the same
    /// one and asks for what it missed.
    pub fn connect(&mut self, index: usize) -> Result<()> {
        let host = index / PER_ADDRESS;
        let source = Ipv4Addr::new(127, 0, (host / 250) as u8, (2 + host % 250) as u8);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddrV4::new(source, 0).into()).with_context(|| format!("binding {source}"))?;
        if let Err(error) = socket.connect(&self.server.into()) {
            let in_progress = error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(115);
            ensure!(in_progress, "connecting: {error}");
        }
        let mut socket = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let begun = self.now();
        let server = self.server;
        let speech = self.speech;
        let conn = &mut self.conns[index];
        conn.socket = Some(socket);
        conn.stage = Stage::Connecting;
        conn.times = Times { begun, ..Times::default() };
        conn.carry.clear();
        conn.out.clear();
        conn.is_writable = false;
        conn.is_reading = true;
        if speech != Speech::Bare {
            let protocol = match speech {
                Speech::Magpie => format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"),
                Speech::Text | Speech::Bare => String::new(),
            };
            let cookie = match conn.cookie.as_str() {
                "" => String::new(),
                cookie => format!("Cookie: {cookie}\r\n"),
            };
            let request = format!(
                "GET /ws HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}{cookie}\r\n"
            );
            conn.out.extend_from_slice(request.as_bytes());
        }
        Ok(())
    }

    /// Cuts a client's connection, as if its network had gone: with a reset.
    pub fn cut(&mut self, index: usize) -> Result<()> {
        let conn = &mut self.conns[index];
        if let Some(mut socket) = conn.socket.take() {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            self.poll.registry().deregister(&mut socket)?;
        }
        conn.stage = Stage::Closed(None);
        Ok(())
    }

    /// A client stops to read, or goes on.
    pub fn set_reading(&mut self, index: usize, is_reading: bool) -> Result<()> {
        self.conns[index].is_reading = is_reading;
        // Whatever happened meanwhile will not wake us again.
        if is_reading { self.read(index, true) } else { Ok(()) }
    }

    /// Gives a client words of its own; it can [`Load::send`] from now on.
    pub fn make_sender(&mut self, index: usize) {
        if self.conns[index].sender.is_none() {
            self.conns[index].sender = Some(Sender { id: self.senders, next: 0, pending: HashMap::new() });
            self.senders += 1;
        }
    }

    /// Says one message in the client's room. `intended` is when it was to be said: what comes later than it
    /// could have counts as latency.
    ///
    /// # Errors
    /// The client cannot send.
    pub fn send(&mut self, index: usize, intended: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        ensure!(conn.stage == Stage::Open, "client {index} is not connected and cannot send");
        let sender = conn.sender.as_mut().context("the client is not a sender")?;
        let number = sender.next;
        sender.next += 1;
        sender.pending.insert(number, intended);
        let marker = Marker { at: intended, sender: sender.id, number };
        let payload = &mut self.scratch;
        payload.clear();
        if self.speech == Speech::Magpie {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let reference = Ref::new(now as i64, frames::reference(self.salt, sender.id, number));
            let room = String::from_utf8_lossy(&self.rooms[conn.room].id);
            write!(payload, r#"{{"type":"send","room":"{room}","ref":"{reference}","body":""#)?;
        }
        marker.write(self.body_bytes, payload);
        if self.speech == Speech::Magpie {
            payload.extend_from_slice(br#""}"#);
        }
        self.push(index, frames::TEXT);
        Ok(())
    }

    /// Sends an envelope.
    pub fn say(&mut self, index: usize, envelope: &ClientEnvelope) {
        self.scratch.clear();
        self.scratch.extend_from_slice(encode(envelope).as_bytes());
        self.push(index, frames::TEXT);
    }

    /// Queues what is in `scratch` as a frame.
    fn push(&mut self, index: usize, opcode: u8) {
        let conn = &mut self.conns[index];
        match self.speech {
            Speech::Bare => frames::push_bare(&mut conn.out, opcode, &self.scratch),
            Speech::Magpie | Speech::Text => frames::push_masked(&mut conn.out, opcode, &self.scratch),
        }
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(index);
        }
    }

    /// Makes a room known whose events can be checked; its index for [`Conn::room`].
    ///
    /// # Errors
    /// That is not an id.
    pub fn add_room(&mut self, id: &[u8]) -> Result<usize> {
        let id: RoomId = id.try_into().context("a room's id has 13 characters")?;
        if let Some(index) = self.rooms.iter().position(|room| room.id == id) {
            return Ok(index);
        }
        self.rooms.push(Room { id, head: 0, ring: vec![Copied::default(); RING_EVENTS] });
        Ok(self.rooms.len() - 1)
    }

    /// From now on it is this room whose events are looked at for a client, and checked after `track`: others'
    /// arrivals are still being told there.
    pub fn move_to(&mut self, client: usize, room: &RoomId) -> Result<()> {
        self.conns[client].room = self.add_room(room)?;
        self.conns[client].next_seq = 0;
        Ok(())
    }

    /// From now on every event is checked. Nothing may be on its way: every client has all that was said.
    pub fn track(&mut self) {
        for conn in &mut self.conns {
            conn.next_seq = self.rooms[conn.room].head + 1;
            conn.overlap = 0;
        }
    }

    /// Forgets what was measured.
    pub fn begin(&mut self) {
        for tally in &mut self.tallies {
            tally.deliveries = 0;
            tally.acks = 0;
            tally.latency.reset();
            tally.ack_latency.reset();
        }
        self.arrived = 0;
        self.ended = 0;
        self.completed.clear();
    }

    /// Deliveries of all groups since [`Load::begin`].
    pub fn deliveries(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.deliveries).sum()
    }

    /// Messages that were not acknowledged.
    pub fn pending(&self) -> usize {
        self.conns.iter().filter_map(|conn| conn.sender.as_ref()).map(|sender| sender.pending.len()).sum()
    }

    /// Runs until nothing has come for `quiet`.
    pub fn settle(&mut self, quiet: Duration, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        self.heard_at = self.now();
        while self.now() - self.heard_at < quiet.as_nanos() as u64 {
            self.turn(Duration::from_millis(20))?;
            ensure!(Instant::now() < deadline, "the server does not fall silent");
        }
        Ok(())
    }

    /// Runs until a condition holds.
    ///
    /// # Errors
    /// It does not hold within `limit`, or a check failed meanwhile.
    pub fn run_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Load) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            self.turn(Duration::from_millis(10))?;
            ensure!(Instant::now() < deadline, "after {} s still waiting: {what}", limit.as_secs());
        }
        Ok(())
    }

    /// That every client that is checked and connected has every event of its room, and every send is
    /// acknowledged.
    pub fn verify(&self) -> Result<()> {
        ensure!(self.pending() == 0, "{} sends are not acknowledged", self.pending());
        let said: Vec<(u16, u32)> = self
            .conns
            .iter()
            .filter_map(|conn| conn.sender.as_ref())
            .map(|sender| (sender.id, sender.next))
            .collect();
        for (index, conn) in self.conns.iter().enumerate().filter(|(_, conn)| conn.is_checked()) {
            match self.speech {
                Speech::Magpie => {
                    let head = self.rooms[conn.room].head;
                    let last = conn.next_seq.saturating_sub(1);
                    ensure!(conn.next_seq == 0 || last == head, "client {index} has {last} of {head} events");
                }
                Speech::Text => {
                    for (sender, next) in &said {
                        let got = conn.numbers.get(usize::from(*sender)).copied().unwrap_or(0);
                        ensure!(got == *next, "client {index} got {got} of {next} messages of {sender}");
                    }
                }
                Speech::Bare => {}
            }
        }
        Ok(())
    }

    /// Writes what is queued, waits for something to happen and takes it.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        self.flush()?;
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error).context("waiting for sockets");
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let result = events.iter().try_for_each(|event| {
            let index = event.token().0;
            if event.is_writable() {
                self.conns[index].is_writable = true;
                self.write(index)?;
            }
            let is_ending = event.is_read_closed() || event.is_error();
            if event.is_readable() || is_ending {
                self.read(index, is_ending)?;
            }
            Ok(())
        });
        self.events = events;
        result
    }

    fn flush(&mut self) -> Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.conns[index].is_dirty = false;
            self.write(index)?;
        }
        self.dirty = dirty;
        Ok(())
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let conn = &mut self.conns[index];
        let Some(socket) = &mut conn.socket else { return Ok(()) };
        if !conn.is_writable {
            return Ok(());
        }
        let mut written = 0;
        while written < conn.out.len() {
            match socket.write(&conn.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    conn.is_writable = false;
                    break;
                }
                // The reader learns why.
                Err(_) => break,
            }
        }
        conn.out.drain(..written);
        if conn.out.is_empty() && conn.out.capacity() > 4_096 {
            conn.out = Vec::new();
        }
        if conn.stage == Stage::Connecting && conn.is_writable {
            conn.stage = Stage::Upgrading;
            if self.speech == Speech::Bare {
                self.welcomed(index);
            }
        }
        Ok(())
    }

    /// Reads what is there; up to the connection's end, if that `is_ending`.
    fn read(&mut self, index: usize, is_ending: bool) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_into(index, is_ending, &mut buffer).with_context(|| format!("client {index}"));
        self.buffer = buffer;
        result
    }

    fn read_into(&mut self, index: usize, is_ending: bool, buffer: &mut Vec<u8>) -> Result<()> {
        loop {
            let conn = &mut self.conns[index];
            let Some(socket) = &mut conn.socket else { return Ok(()) };
            if !conn.is_reading {
                return Ok(());
            }
            let carried = conn.carry.len();
            if carried > buffer.len() / 2 {
                buffer.resize(buffer.len() * 2, 0);
            }
            buffer[..carried].copy_from_slice(&conn.carry);
            let count = match socket.read(&mut buffer[carried..]) {
                Ok(0) => return self.lost(index, "the server closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(index, &error.to_string()),
            };
            let filled = carried + count;
            let is_last = filled < buffer.len();
            let now = self.now();
            let used = self.take(index, &buffer[..filled], now)?;
            let conn = &mut self.conns[index];
            conn.carry.clear();
            conn.carry.extend_from_slice(&buffer[used..filled]);
            if conn.carry.is_empty() && conn.carry.capacity() > 8_192 {
                conn.carry = Vec::new();
            }
            // A short read has emptied the socket: the next bytes, or its end, wake us again.
            if is_last && !is_ending && !matches!(conn.stage, Stage::Closed(_)) {
                return Ok(());
            }
        }
    }

    /// The connection is gone. That is an error unless it was to be expected.
    fn lost(&mut self, index: usize, why: &str) -> Result<()> {
        let conn = &mut self.conns[index];
        if let Some(mut socket) = conn.socket.take() {
            self.poll.registry().deregister(&mut socket)?;
        }
        let code = match conn.stage {
            Stage::Closed(code) => code,
            Stage::Connecting | Stage::Upgrading | Stage::Greeting | Stage::Open => None,
        };
        ensure!(conn.may_close, "lost at {:?}: {why}", conn.stage);
        conn.stage = Stage::Closed(code);
        self.ended += 1;
        Ok(())
    }

    /// Takes whole frames off the front of some bytes; returns how many bytes they were.
    fn take(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize> {
        let mut used = 0;
        if self.conns[index].stage == Stage::Upgrading {
            used = self.take_head(index, bytes, now)?;
            if used == 0 {
                return Ok(0);
            }
        }
        loop {
            let copies = self.take_copies(index, &bytes[used..], now);
            if copies > 0 {
                self.heard_at = now;
            }
            used += copies;
            let rest = &bytes[used..];
            let Some(frame) = frames::first(rest).map_err(anyhow::Error::msg)? else { return Ok(used) };
            self.take_frame(index, &rest[..frame.end], frame, now)?;
            used += frame.end;
        }
    }

    /// Takes frames as long as they are the same bytes that another member got as its next event.
    fn take_copies(&mut self, index: usize, bytes: &[u8], now: u64) -> usize {
        let conn = &mut self.conns[index];
        let room = &self.rooms[conn.room];
        let tally = &mut self.tallies[conn.group];
        let mut used = 0;
        if conn.resuming.is_some() {
            return 0;
        }
        loop {
            let copied = &room.ring[conn.next_seq as usize % RING_EVENTS];
            if copied.seq == 0 || copied.seq != conn.next_seq || !bytes[used..].starts_with(&copied.bytes) {
                return used;
            }
            used += copied.bytes.len();
            conn.next_seq += 1;
            if let Some(sent_at) = copied.sent_at {
                tally.delivered(sent_at, now);
            }
        }
    }

    /// Takes one frame that is not a known copy.
    fn take_frame(&mut self, index: usize, bytes: &[u8], frame: Frame, now: u64) -> Result<()> {
        let payload = &bytes[frame.start..frame.end];
        if frame.opcode != frames::PING {
            self.heard_at = now;
        }
        match (frame.opcode, self.speech) {
            (frames::TEXT, Speech::Magpie) => self.take_envelope(index, bytes, payload, now),
            (frames::TEXT, Speech::Text) => self.take_text(index, payload, now),
            (frames::TEXT, Speech::Bare) => {
                let marker = Marker::find(payload).context("a frame without a marker")?;
                self.tallies[self.conns[index].group].delivered(marker.at, now);
                Ok(())
            }
            (frames::PING, _) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(payload);
                self.push(index, frames::PONG);
                Ok(())
            }
            (frames::CLOSE, _) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let conn = &mut self.conns[index];
                ensure!(conn.may_close, "the server closed it with {code:?}");
                conn.stage = Stage::Closed(code);
                Ok(())
            }
            (opcode, _) => bail!("a frame with opcode {opcode}"),
        }
    }

    /// The answer to the request for an upgrade; returns the bytes of its head, 0 while it is not whole.
    fn take_head(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            ensure!(bytes.len() < HEAD_BYTES_MAX, "the answer to the handshake does not end");
            return Ok(0);
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let accepted = head.starts_with("HTTP/1.1 101") && memchr::memmem::find(bytes, KEY_ANSWER).is_some();
        ensure!(accepted, "no upgrade: {head}");
        let conn = &mut self.conns[index];
        conn.times.upgraded = now;
        for line in head.lines() {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("set-cookie")
            {
                conn.cookie = value.split(';').next().unwrap_or_default().to_owned();
            }
        }
        if self.speech == Speech::Magpie {
            conn.stage = Stage::Greeting;
            let mut resume = Vec::new();
            if conn.next_seq > 0 {
                let room = str::from_utf8(&self.rooms[conn.room].id)?.parse();
                let room = room.map_err(|_| anyhow::anyhow!("a room's id"))?;
                resume.push(Resume { room, epoch: 1, seq: conn.next_seq - 1 });
                conn.resuming = Some(None);
            }
            self.say(index, &ClientEnvelope::Hello { resume });
        } else {
            self.welcomed(index);
        }
        Ok(end + 4)
    }

    fn welcomed(&mut self, index: usize) {
        let now = self.now();
        let conn = &mut self.conns[index];
        conn.stage = Stage::Open;
        conn.times.welcomed = now;
        if conn.resuming.is_none() {
            conn.times.resumed = now;
            self.arrived += 1;
        }
    }

    /// A text of the plain chat: each sender's numbers go up by one.
    fn take_text(&mut self, index: usize, payload: &[u8], now: u64) -> Result<()> {
        let marker = Marker::find(payload).context("a text without a marker")?;
        let conn = &mut self.conns[index];
        let sender = usize::from(marker.sender);
        if conn.numbers.len() <= sender {
            conn.numbers.resize(sender + 1, 0);
        }
        ensure!(
            conn.numbers[sender] == marker.number,
            "message {} of sender {sender} came where {} was due",
            marker.number,
            conn.numbers[sender]
        );
        conn.numbers[sender] += 1;
        let tally = &mut self.tallies[conn.group];
        tally.delivered(marker.at, now);
        if let Some(own) = &mut conn.sender
            && own.id == marker.sender
            && let Some(sent_at) = own.pending.remove(&marker.number)
        {
            tally.acknowledged(sent_at, now);
            self.completed.push(index);
        }
        Ok(())
    }

    fn take_envelope(&mut self, index: usize, bytes: &[u8], payload: &[u8], now: u64) -> Result<()> {
        if let Some((room, seq)) = frames::event(payload) {
            return self.take_event(index, room, seq, bytes, payload, now);
        }
        let conn = &mut self.conns[index];
        if let Some((sender, number)) = frames::ack(payload) {
            let own = conn.sender.as_mut().filter(|own| own.id == sender);
            let own = own.context("an acknowledgement for another sender")?;
            let sent_at = own.pending.remove(&number).context("a second acknowledgement of one send")?;
            self.tallies[conn.group].acknowledged(sent_at, now);
            self.completed.push(index);
            return Ok(());
        }
        if let Some(page) = frames::page(payload) {
            return self.take_page(index, &page, payload.len(), now);
        }
        if payload.starts_with(br#"{"type":"welcome""#) {
            let heads = memchr::memmem::find_iter(payload, br#""id":""#).filter_map(|place| {
                let id: RoomId = *payload[place + 6..].first_chunk()?;
                let rest = &payload[place..];
                let head = memchr::memmem::find(rest, br#""head":"#)? + 7;
                let digits = rest[head..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                Some((id, str::from_utf8(&rest[head..head + digits]).ok()?.parse().ok()?))
            });
            for (id, head) in heads {
                if let Some(room) = self.rooms.iter_mut().find(|room| room.id == id) {
                    room.head = room.head.max(head);
                }
            }
            self.welcomed(index);
            return Ok(());
        }
        ensure!(
            !payload.starts_with(br#"{"type":"error""#),
            "the server refused: {}",
            String::from_utf8_lossy(payload)
        );
        Ok(())
    }

    /// An event that no other member has got, or that is not the next one.
    fn take_event(
        &mut self,
        index: usize,
        room_id: RoomId,
        seq: u64,
        bytes: &[u8],
        payload: &[u8],
        now: u64,
    ) -> Result<()> {
        let conn = &mut self.conns[index];
        let room = &mut self.rooms[conn.room];
        if room.id != room_id {
            return Ok(());
        }
        if conn.next_seq == 0 {
            room.head = room.head.max(seq);
            return Ok(());
        }
        if let Some(live) = &mut conn.resuming {
            let (_, last) = live.get_or_insert((seq, seq - 1));
            ensure!(*last + 1 == seq, "event {seq} came after {last}");
            *last = seq;
            room.head = room.head.max(seq);
            return Ok(());
        }
        if seq <= conn.overlap && seq < conn.next_seq {
            return Ok(());
        }
        ensure!(seq == conn.next_seq, "event {seq} came where {} was due", conn.next_seq);
        conn.next_seq += 1;
        room.head = room.head.max(seq);
        let marker = Marker::find(payload);
        let copied = &mut room.ring[seq as usize % RING_EVENTS];
        ensure!(copied.seq != seq, "event {seq} differs from what another member got");
        if copied.seq < seq {
            copied.seq = seq;
            copied.bytes.clear();
            copied.bytes.extend_from_slice(bytes);
            copied.sent_at = marker.map(|marker| marker.at);
        }
        if let Some(marker) = marker {
            self.tallies[conn.group].delivered(marker.at, now);
        }
        Ok(())
    }

    /// A page: of a room that was joined, or of what was missed.
    fn take_page(&mut self, index: usize, page: &frames::Page, bytes: usize, now: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        let Some(live) = conn.resuming else {
            if let Some(room) = self.rooms.iter_mut().find(|room| room.id == page.room) {
                room.head = room.head.max(page.head);
            }
            self.joined.insert((index, page.room));
            return Ok(());
        };
        let room = &mut self.rooms[conn.room];
        ensure!(room.id == page.room, "a page of another room");
        room.head = room.head.max(page.head);
        conn.resumed_bytes += bytes as u64;
        conn.resumed_events += page.seqs.len() as u64;
        let is_whole = page.seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let (Some(first), Some(last)) = (page.seqs.first(), page.seqs.last()) else {
            ensure!(conn.next_seq > page.head, "an empty page before the head");
            return self.resumed(index, live, now);
        };
        ensure!(is_whole, "a page with a hole");
        let id = String::from_utf8_lossy(&page.room).into_owned();
        if page.gap || conn.filled_from.is_some() {
            // From the newest page backwards, until it meets what is there.
            let due = conn.filled_from.map_or(page.head, |first| first - 1);
            ensure!(*last == due, "the page ends with event {last} where {due} was due");
            conn.gaps += u32::from(page.gap);
            if conn.filled_from.is_none() {
                conn.overlap = page.head;
            }
            conn.filled_from = Some(*first);
            if *first > conn.next_seq {
                let room = id.parse().map_err(|_| anyhow::anyhow!("a room's id"))?;
                self.say(index, &ClientEnvelope::History { room, before: *first });
                return Ok(());
            }
            conn.next_seq = conn.overlap + 1;
            conn.filled_from = None;
            return self.resumed(index, live, now);
        }
        ensure!(*first == conn.next_seq, "the page has event {first} where {} was due", conn.next_seq);
        conn.next_seq = last + 1;
        if conn.next_seq <= page.head {
            self.say(index, &ClientEnvelope::Join { room: id, after: Some(*last) });
            return Ok(());
        }
        self.resumed(index, live, now)
    }

    /// A client has all that it missed.
    fn resumed(&mut self, index: usize, live: Option<(u64, u64)>, now: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        conn.overlap = conn.next_seq - 1;
        if let Some((first, last)) = live {
            ensure!(first <= conn.next_seq, "event {first} came live, {} never", conn.next_seq);
            conn.next_seq = conn.next_seq.max(last + 1);
        }
        conn.resuming = None;
        conn.times.resumed = now;
        self.arrived += 1;
        Ok(())
    }
}

impl Conn {
    fn is_checked(&self) -> bool {
        self.stage == Stage::Open && self.is_reading
    }

    fn new() -> Conn {
        Conn {
            socket: None,
            stage: Stage::Connecting,
            times: Times::default(),
            group: 0,
            may_close: false,
            is_reading: true,
            is_writable: false,
            carry: Vec::new(),
            out: Vec::new(),
            is_dirty: false,
            cookie: String::new(),
            room: 0,
            next_seq: 0,
            overlap: 0,
            resuming: None,
            filled_from: None,
            gaps: 0,
            resumed_bytes: 0,
            resumed_events: 0,
            sender: None,
            numbers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"event","room":"0000000000001","seq":"#;

    /// The frame of an event whose message was due at `at` nanoseconds.
    fn event(seq: u64, at: u64) -> Vec<u8> {
        let mut payload = format!(r#"{EVENT}{seq},"kind":"message","body":""#).into_bytes();
        Marker { at, sender: 0, number: seq as u32 }.write(40, &mut payload);
        payload.extend_from_slice(br#""}"#);
        let mut frame = Vec::new();
        frames::push_bare(&mut frame, frames::TEXT, &payload);
        frame
    }

    /// Two members that are up to date.
    fn two_members() -> Load {
        let mut load = Load::new(([127, 0, 0, 1], 1).into(), Speech::Magpie).unwrap();
        for _ in 0..2 {
            load.conns.push(Conn { stage: Stage::Open, ..Conn::new() });
        }
        load.track();
        load
    }

    #[test]
    fn events_in_order_are_counted_from_when_they_were_due() {
        let mut load = two_members();
        let bytes: Vec<u8> = (1..=10).flat_map(|seq| event(seq, 1_000_000)).collect();
        // 51 ms: the server stalled, or the sender did; either counts.
        for member in 0..2 {
            assert_eq!(load.take(member, &bytes, 51_000_000).unwrap(), bytes.len());
        }
        assert_eq!(load.deliveries(), 20);
        let p50 = load.tallies[0].latency.value_at_quantile(0.5);
        assert!((50_000..=50_063).contains(&p50), "{p50} µs");
        load.verify().unwrap();
    }

    #[test]
    fn half_a_frame_waits_for_its_rest() {
        let mut load = two_members();
        let bytes = [event(1, 0), event(2, 0)].concat();
        let first = event(1, 0).len();
        assert_eq!(load.take(0, &bytes[..first + 7], 1).unwrap(), first);
        assert_eq!(load.take(0, &bytes[first..], 1).unwrap(), bytes.len() - first);
        assert_eq!(load.take(1, &bytes[..bytes.len() - 1], 1).unwrap(), first);
        assert!(load.verify().is_err(), "the second member lacks an event");
    }

    #[test]
    fn a_lost_doubled_swapped_or_altered_event_ends_the_run() {
        for (what, seqs) in [("lost", [1, 3]), ("doubled", [1, 1]), ("swapped", [2, 1])] {
            let bytes: Vec<u8> = seqs.iter().flat_map(|seq| event(*seq, 0)).collect();
            assert!(two_members().take(0, &bytes, 1).is_err(), "{what}, as the first member to get it");
            let mut load = two_members();
            let right: Vec<u8> = (1..=3).flat_map(|seq| event(seq, 0)).collect();
            load.take(0, &right, 1).unwrap();
            assert!(load.take(1, &bytes, 1).is_err(), "{what}, after another got it well");
        }
        let mut load = two_members();
        load.take(0, &event(1, 0), 1).unwrap();
        assert!(load.take(1, &event(1, 1), 1).is_err(), "altered");
    }

    #[test]
    fn an_acknowledgement_comes_once_for_each_send() {
        let mut load = two_members();
        load.make_sender(0);
        load.send(0, 5_000).unwrap();
        let reference = Ref::new(1, frames::reference(load.salt, 0, 0));
        let ack = format!(r#"{{"type":"ack","ref":"{reference}","room":"0000000000001","seq":1,"at":1}}"#);
        let mut frame = Vec::new();
        frames::push_bare(&mut frame, frames::TEXT, ack.as_bytes());
        load.take(0, &frame, 2_005_000).unwrap();
        assert_eq!((load.pending(), load.tallies[0].acks, &load.completed[..]), (0, 1, &[0][..]));
        assert_eq!(load.tallies[0].ack_latency.max() / 10, 200);
        assert!(load.take(0, &frame, 3_000_000).is_err(), "a second one");
        assert!(load.take(1, &frame, 3_000_000).is_err(), "one for another");
    }

    #[test]
    fn what_was_missed_must_come_whole() {
        let page = |seqs: std::ops::RangeInclusive<u64>, head: u64, gap: bool| {
            let events: Vec<String> =
                seqs.map(|seq| format!(r#"{{"room":"0000000000001","seq":{seq},"at":1}}"#)).collect();
            let events = events.join(",");
            let page = format!(
                r#"{{"type":"joined","room":"0000000000001","epoch":1,"head":{head},"events":[{events}],"gap":{gap},"info":{{}}}}"#
            );
            let mut frame = Vec::new();
            frames::push_bare(&mut frame, frames::TEXT, page.as_bytes());
            frame
        };
        let resuming = || {
            let mut load = two_members();
            load.take(0, &[event(1, 0), event(2, 0)].concat(), 1).unwrap();
            load.conns[0].resuming = Some(None);
            load
        };
        let mut load = resuming();
        load.take(0, &page(3..=5, 5, false), 1).unwrap();
        assert_eq!((load.arrived, load.conns[0].next_seq), (1, 6));

        // Live events overlap with the page.
        let mut load = resuming();
        load.take(0, &[event(5, 0), event(6, 0), page(3..=5, 5, false), event(7, 0)].concat(), 1).unwrap();
        assert_eq!((load.arrived, load.conns[0].next_seq), (1, 8));
        // And do not: the sixth never came.
        assert!(resuming().take(0, &[event(7, 0), page(3..=5, 5, false)].concat(), 1).is_err());
        assert!(resuming().take(0, &page(4..=5, 5, false), 1).is_err());

        // A gap is filled from the newest page backwards.
        let mut load = resuming();
        load.take(0, &page(8..=9, 9, true), 1).unwrap();
        assert_eq!(load.arrived, 0);
        let history = |text: &str| {
            let mut frame = Vec::new();
            frames::push_bare(&mut frame, frames::TEXT, text.as_bytes());
            frame
        };
        let older = r#"{"type":"history","room":"0000000000001","before":8,"events":[{"room":"0000000000001","seq":2},{"room":"0000000000001","seq":3},{"room":"0000000000001","seq":4},{"room":"0000000000001","seq":5},{"room":"0000000000001","seq":6},{"room":"0000000000001","seq":7}]}"#;
        load.take(0, &history(older), 1).unwrap();
        assert_eq!((load.arrived, load.conns[0].next_seq, load.conns[0].gaps), (1, 10, 1));
    }
}
