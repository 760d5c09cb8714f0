//! The load: thousands of connections on one thread, and the checks that every delivery goes through.
//!
//! A delivery costs one comparison: the first copy of an event is read and kept, and the bytes that every
//! other member gets must be the same, in the same order. So a lost, doubled, reordered or altered event is
//! found in every run. Whatever is not as it should be ends the run with an error.
//! It must not know what a scenario measures.

mod received;
mod returning;

pub use returning::{Refused, Return, Returning};

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use shared::model::{LOBBY, Ref};
use shared::protocol::{ClientEnvelope, SUBPROTOCOL, encode};
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
    /// The server began to close it, or it broke; 0 while it holds.
    pub closed: u64,
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
    /// Attempts to come back since the connection last held for a while.
    attempt: u32,
    /// The close code of a client that is away.
    code: Option<u16>,
}

/// What a connection has said.
struct Sender {
    id: u16,
    next: u32,
    /// What is not acknowledged, by its number.
    pending: HashMap<u32, Pending>,
    /// When messages were to be sent that wait for the one before them.
    waiting: VecDeque<u64>,
}

/// A message that is not acknowledged.
#[derive(Clone, Copy)]
struct Pending {
    /// When it was to be sent.
    intended: u64,
    /// When it was transmitted last.
    transmitted: u64,
    /// The time in its `ref`, in milliseconds since 1970: a repetition has the same.
    ref_ms: i64,
}

/// An acknowledgement: which message got which place.
struct Acked {
    room: usize,
    seq: u64,
    sender: u16,
    number: u32,
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
    /// The whole frame; empty if it is known from a page alone.
    bytes: Vec<u8>,
    /// What its body carries, if it is a message of ours.
    marker: Option<Marker>,
}

impl Room {
    /// Notes what a page, or an event during a resume, has in a place.
    ///
    /// # Errors
    /// Another client got something else there.
    fn note(&mut self, seq: u64, marker: Option<Marker>) -> Result<()> {
        let copied = &mut self.ring[seq as usize % RING_EVENTS];
        if copied.seq < seq {
            *copied = Copied { seq, bytes: Vec::new(), marker };
        }
        ensure!(
            copied.seq > seq || copied.marker == marker,
            "event {seq} is {marker:?} for one and {:?} for another",
            copied.marker
        );
        Ok(())
    }
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
    /// Clients go to these in turn.
    servers: Vec<SocketAddr>,
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
    /// How those come back whose connection ends; without it such an end is an error.
    pub returning: Option<Returning>,
    acked: Vec<Acked>,
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
            servers: vec![server],
            speech,
            conns: Vec::new(),
            rooms: Vec::new(),
            tallies: vec![Tally::new()?, Tally::new()?, Tally::new()?],
            completed: Vec::new(),
            joined: HashSet::new(),
            arrived: 0,
            ended: 0,
            returning: None,
            acked: Vec::new(),
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

    /// Clients go to these servers in turn, from now on.
    pub fn spread_over(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
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
        let server = self.servers[index % self.servers.len()];
        if let Err(error) = socket.connect(&server.into()) {
            let in_progress = error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(115);
            ensure!(in_progress, "connecting: {error}");
        }
        let mut socket = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let begun = self.now();
        let speech = self.speech;
        let conn = &mut self.conns[index];
        conn.socket = Some(socket);
        conn.stage = Stage::Connecting;
        conn.times = Times { begun, closed: conn.times.closed, ..Times::default() };
        conn.filled_from = None;
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
            let sender =
                Sender { id: self.senders, next: 0, pending: HashMap::new(), waiting: VecDeque::new() };
            self.conns[index].sender = Some(sender);
            self.senders += 1;
        }
    }

    /// Says one message in the client's room. `intended` is when it was to be said: what comes later than it
    /// could have counts as latency. Those who come back say one after the other, as our own client does, so
    /// that order holds over repetitions.
    ///
    /// # Errors
    /// The client cannot send.
    pub fn send(&mut self, index: usize, intended: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        let sender = conn.sender.as_mut().context("the client is not a sender")?;
        if self.returning.is_some() {
            sender.waiting.push_back(intended);
            return self.send_next(index);
        }
        ensure!(conn.stage == Stage::Open, "client {index} is not connected and cannot send");
        self.transmit_new(index, intended)
    }

    /// Transmits what waits first, if it is its turn.
    fn send_next(&mut self, index: usize) -> Result<()> {
        let conn = &mut self.conns[index];
        match &mut conn.sender {
            Some(sender) if conn.stage == Stage::Open && sender.pending.is_empty() => {
                match sender.waiting.pop_front() {
                    Some(intended) => self.transmit_new(index, intended),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn transmit_new(&mut self, index: usize, intended: u64) -> Result<()> {
        let sender = self.conns[index].sender.as_mut().context("the client is not a sender")?;
        let number = sender.next;
        sender.next += 1;
        let ref_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        sender.pending.insert(number, Pending { intended, transmitted: intended, ref_ms });
        self.transmit(index, number)
    }

    /// Transmits a message that is not acknowledged, for the first time or again.
    fn transmit(&mut self, index: usize, number: u32) -> Result<()> {
        let now = self.now();
        let conn = &mut self.conns[index];
        let sender = conn.sender.as_mut().context("the client is not a sender")?;
        let id = sender.id;
        let pending = sender.pending.get_mut(&number).context("the message is acknowledged")?;
        pending.transmitted = now;
        let marker = Marker { at: pending.intended, sender: id, number };
        let payload = &mut self.scratch;
        payload.clear();
        if self.speech == Speech::Magpie {
            let reference = Ref::new(pending.ref_ms, frames::reference(self.salt, id, number));
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
        self.acked.clear();
    }

    /// Deliveries of all groups since [`Load::begin`].
    pub fn deliveries(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.deliveries).sum()
    }

    /// Messages that were not acknowledged.
    pub fn pending(&self) -> usize {
        let senders = self.conns.iter().filter_map(|conn| conn.sender.as_ref());
        senders.map(|sender| sender.pending.len() + sender.waiting.len()).sum()
    }

    /// Forgets what a client has got, so that it reads its room from the beginning when it next connects.
    pub fn reread(&mut self, index: usize) {
        self.conns[index].next_seq = 1;
        self.conns[index].overlap = 0;
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
    /// acknowledged: for the place in which all have got it.
    pub fn verify(&self) -> Result<()> {
        ensure!(self.pending() == 0, "{} sends are not acknowledged", self.pending());
        for Acked { room, seq, sender, number } in &self.acked {
            let copied = &self.rooms[*room].ring[*seq as usize % RING_EVENTS];
            let there = copied.marker.map(|marker| (marker.sender, marker.number));
            ensure!(
                copied.seq > *seq || copied.seq == *seq && there == Some((*sender, *number)),
                "message {number} of sender {sender} was acknowledged as event {seq}, which is {there:?}"
            );
        }
        for room in &self.rooms {
            room.verify_order()?;
        }
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
        let wait = self.come_back(wait)?;
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
        ensure!(conn.may_close || self.returning.is_some(), "lost at {:?}: {why}", conn.stage);
        conn.stage = Stage::Closed(code);
        self.ended += 1;
        self.went_away(index, code)
    }
}

impl Room {
    /// That the messages of each sender stand in the order in which they were said, and once, as far as they
    /// are remembered.
    fn verify_order(&self) -> Result<()> {
        let mut last: HashMap<u16, u32> = HashMap::new();
        for seq in self.head.saturating_sub(RING_EVENTS as u64) + 1..=self.head {
            let copied = &self.ring[seq as usize % RING_EVENTS];
            let Some(Marker { sender, number, .. }) = copied.marker.filter(|_| copied.seq == seq) else {
                continue;
            };
            let before = last.insert(sender, number);
            ensure!(before < Some(number), "message {number} of sender {sender} stands behind {before:?}");
        }
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
            attempt: 0,
            code: None,
        }
    }
}

#[cfg(test)]
mod tests;
