//! Owns a hub and its connections, and carries out the hub's effects.
//!
//! One thread: connections push what they read into an inbox; a turn takes all that waits, lets the hub
//! decide, and writes to each socket once what it is owed. There is no task and no channel per connection on
//! the write side. Frames that N connections are owed are encoded once. What a socket does not take is
//! queued, bounded in bytes; over the bound the connection is closed with 4000.
//!
//! It must not know what an envelope means: that is the hub's, and how bytes become messages is
//! `websocket`'s.

mod counts;
mod hints;
mod inbox;
mod outbox;
mod queries;
mod share;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Histogram, counter, histogram};
use shared::model::Ms;
use shared::protocol::CloseCode;
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::broker::{Broker, HubId};
use crate::gate::Permit;
use crate::hub::{Arrival, Conn, Effect, Hub, HubConfig, Input, Mode, Query};
use crate::metrics::{COMMIT_SECONDS, COMMITTED};
use crate::socket::Socket;
use crate::store::{Append, Store};
use crate::websocket::Frame;
pub use counts::Counts;
use hints::Hints;
pub use hints::Pressure;
use inbox::{Inbox, Lane, Waiting};
use outbox::{Backlog, Frames, NONE, Progress};
pub use queries::query_store;
use share::{Share, Source};

/// How long a turn takes inputs of those who talk, and then of those who come and go; and after how many it
/// looks at the clock.
const TURN_TIME: Duration = Duration::from_millis(2);
const TURN_TRAFFIC_TIME: Duration = Duration::from_millis(1);
const TURN_LOOK: usize = 16;
/// Sockets written before other tasks get their turn.
const TURN_WRITES: usize = 256;
/// Inputs that may wait in a lane. Readers of it pause above it.
const INBOX_MAX: usize = 16_384;
/// Bytes of requests of one connection that may wait. Its reader pauses above it.
const WAITING_BYTES_MAX: usize = 128 * 1024;
/// How often the hub hears of time.
const TICK: Duration = Duration::from_millis(250);
/// How long a closing connection may take to take its close frame and to close its side.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// How long a peer may take nothing of what it is owed.
const STALL_WAIT: Duration = Duration::from_secs(10);
/// Bytes of answers that a connection may have queued beyond `send_queue_bytes`: the pages that it asked for
/// can be larger than the queue, and who reads them is not slow.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Answers to one connection that are shorter are not compressed: the few packets saved cost more work.
const DEFLATE_ANSWER_FROM_BYTES: usize = 2 * 1024;
/// Control frames a second that a peer may send, on average over a heartbeat.
const CONTROL_FRAMES_PER_SECOND: u32 = 20;
/// At a drain: connections closed in each step, the pause between two, and how many steps there are where that
/// makes them smaller. Who is closed comes back somewhere, in a stream rather than a wave.
const DRAIN_STEP: usize = 200;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
const DRAIN_STEPS: usize = 20;
/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What the engine can be told.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    pub hub: HubConfig,
    /// Bytes queued for one connection beyond what the kernel holds; 0 is no limit.
    pub send_queue_bytes: usize,
    /// Silence after which a connection is pinged, and again until it is given up.
    pub ping_interval: Duration,
}

/// A connection to be taken over.
#[derive(Debug)]
pub struct NewConnection {
    pub socket: Rc<Socket>,
    pub mode: Mode,
    pub arrival: Arrival,
    /// Whether frames to it may be compressed.
    pub deflate: bool,
    pub permit: Arc<Permit>,
}

/// Tells a connection from an earlier one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnId {
    conn: Conn,
    serial: u64,
}

#[derive(Debug)]
struct Connection {
    serial: u64,
    socket: Rc<Socket>,
    mode: Mode,
    deflate: bool,
    /// The frames it is owed this turn, as a list in `Outbox`.
    owed: outbox::List,
    backlog: Option<Box<Backlog>>,
    /// Bytes of answers since its socket last took everything, at most `ANSWER_BYTES_MAX`.
    answer_bytes: usize,
    /// Set once a close frame is on its way: nothing else follows it.
    closing: bool,
    /// Set once its socket takes nothing any more.
    deaf: bool,
    /// Set once the hub is told of its end.
    gone: bool,
    /// Since the last heartbeat: whether anything was heard, and how many control frames.
    heard: bool,
    pinged: bool,
    controls: u32,
    /// What it sent that waits in the inbox.
    waiting: Waiting,
    /// The task that reads; ends with the connection.
    reader: Option<AbortHandle>,
    permit: Arc<Permit>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// An engine and the tasks around it share this on one thread.
pub struct Engine {
    shard: RefCell<Shard>,
    wake: Arc<Notify>,
    /// Wakes readers that paused, once the inbox has room.
    room: Notify,
    config: EngineConfig,
}

struct Shard {
    id: HubId,
    hub: Hub,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    start: Instant,
    connections: Slab<Connection>,
    serial: u64,
    /// What waits for the hub.
    inbox: Inbox,
    hints: Hints,
    pressure: Arc<Pressure>,
    queries: Vec<(u64, Query)>,
    appends: Vec<(u64, Append)>,
    /// Store calls that have not been answered.
    asked: usize,
    frames: Frames,
    /// Connections that are owed something.
    dirty: Vec<Conn>,
    /// Connections that are closing, with the time by which they must be gone.
    closing: Vec<(Instant, ConnId)>,
    /// How many connections take compressed frames.
    deflating: usize,
    heartbeat_at: u64,
    /// From the moment the server goes down.
    is_draining: bool,
    /// The peers were told that this one ends.
    has_left: bool,
    send_queue_bytes: usize,
    deliveries: u64,
    slow_readers: u64,
    committed: Counter,
    commit_seconds: Histogram,
}

impl Engine {
    /// An engine without connections, attached to the broker. `seed` must come from the system's random source.
    pub fn new(
        id: HubId,
        config: EngineConfig,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        pressure: Arc<Pressure>,
        seed: [u8; 32],
    ) -> Rc<Self> {
        let wake = Arc::new(Notify::new());
        let hints = Hints::new(pressure.clone());
        broker.attach(id, hints.sink(wake.clone()));
        let hub = Hub::new(
            id,
            HubConfig { shared_store: store.is_shared(), ..config.hub },
            broker.is_lossy(),
            seed,
        );
        let shard = Shard {
            id,
            hub,
            store,
            broker,
            start: Instant::now(),
            connections: Slab::new(),
            serial: 0,
            inbox: Inbox::default(),
            hints,
            pressure,
            queries: Vec::new(),
            appends: Vec::new(),
            asked: 0,
            frames: Frames::default(),
            dirty: Vec::new(),
            closing: Vec::new(),
            deflating: 0,
            heartbeat_at: 0,
            is_draining: false,
            has_left: false,
            send_queue_bytes: config.send_queue_bytes,
            deliveries: 0,
            slow_readers: 0,
            committed: counter!(COMMITTED),
            commit_seconds: histogram!(COMMIT_SECONDS),
        };
        Rc::new(Self { shard: RefCell::new(shard), wake, room: Notify::new(), config })
    }

    /// Takes turns until it is dropped.
    pub async fn run(self: Rc<Self>) {
        let mut tick_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(tick_at) => {}
            }
            // Readers that are ready add theirs, so that one write carries it all.
            tokio::task::yield_now().await;
            loop {
                // Also when there is no end of work.
                let now = tokio::time::Instant::now();
                if now >= tick_at {
                    tick_at = now + TICK;
                    self.shard.borrow_mut().tick(self.config.ping_interval);
                }
                if !self.turn() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Some inputs, or some writes. True if there is more to do.
    fn turn(self: &Rc<Self>) -> bool {
        let mut shard = self.shard.borrow_mut();
        if shard.dirty.is_empty() {
            shard.decide();
            self.call_store(&mut shard);
            self.room.notify_waiters();
        }
        let mut blocked = Vec::new();
        shard.write(TURN_WRITES, &mut blocked);
        for id in blocked {
            self.flush_later(&mut shard, id);
        }
        !shard.dirty.is_empty() || shard.has_inputs()
    }

    /// Gives the store what the hub asked of it. The answers come back through the inbox.
    fn call_store(self: &Rc<Self>, shard: &mut Shard) {
        if !shard.appends.is_empty() {
            let (tickets, batch): (Vec<u64>, Vec<Append>) =
                std::mem::take(&mut shard.appends).into_iter().unzip();
            shard.asked += 1;
            let reply = shard.store.append(batch);
            let begun = Instant::now();
            let engine = Rc::downgrade(self);
            tokio::task::spawn_local(async move {
                let answer = reply.await;
                let Some(engine) = engine.upgrade() else { return };
                let mut shard = engine.shard.borrow_mut();
                shard.asked -= 1;
                match answer {
                    Ok(results) => {
                        debug_assert_eq!(results.len(), tickets.len());
                        let count = results.iter().filter(|result| result.is_ok()).count();
                        shard.committed.increment(count as u64);
                        shard.commit_seconds.record(begun.elapsed());
                        for (ticket, result) in tickets.into_iter().zip(results) {
                            shard.inbox.push(Lane::Talk, Input::Appended { ticket, result });
                        }
                    }
                    Err(error) => {
                        for ticket in tickets {
                            let result = Err(error.clone());
                            shard.inbox.push(Lane::Talk, Input::Appended { ticket, result });
                        }
                    }
                }
                engine.wake.notify_one();
            });
        }
        for (ticket, query) in std::mem::take(&mut shard.queries) {
            shard.asked += 1;
            let lane = match query {
                Query::Identify { .. } | Query::Account { .. } => Lane::Traffic,
                _ => Lane::Talk,
            };
            let reply = query_store(&*shard.store, query);
            let engine = Rc::downgrade(self);
            tokio::task::spawn_local(async move {
                let answer = reply.await;
                let Some(engine) = engine.upgrade() else { return };
                let mut shard = engine.shard.borrow_mut();
                shard.asked -= 1;
                shard.inbox.push(lane, Input::Answered { ticket, answer });
                engine.wake.notify_one();
            });
        }
    }

    /// Goes on writing to a socket that is full, once it takes bytes again.
    fn flush_later(self: &Rc<Self>, shard: &mut Shard, id: ConnId) {
        let Some(connection) = shard.connection(id) else { return };
        let Some(backlog) = &mut connection.backlog else { return };
        let (engine, socket) = (Rc::downgrade(self), connection.socket.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                let ready = tokio::time::timeout(STALL_WAIT, socket.writable()).await;
                let Some(engine) = engine.upgrade() else { return };
                let mut shard = engine.shard.borrow_mut();
                if ready.is_err() {
                    // Should it read again at once, it is told why.
                    shard.give_up(id);
                    engine.wake.notify_one();
                } else if shard.write_backlog(id) {
                    return;
                }
            }
        });
        backlog.flush_by(task.abort_handle());
    }

    /// Takes a connection over. The caller reads it and reports what arrives.
    pub fn open(&self, new: NewConnection) -> ConnId {
        let mut shard = self.shard.borrow_mut();
        let shard = &mut *shard;
        shard.serial += 1;
        let serial = shard.serial;
        let NewConnection { socket, mode, arrival, deflate, permit } = new;
        shard.deflating += usize::from(deflate);
        let connection = Connection {
            serial,
            socket,
            mode,
            deflate,
            owed: outbox::List::default(),
            backlog: None,
            answer_bytes: 0,
            closing: false,
            deaf: false,
            gone: false,
            heard: true,
            pinged: false,
            controls: 0,
            waiting: Waiting::default(),
            reader: None,
            permit,
        };
        let conn = shard.connections.insert(connection) as Conn;
        shard.put(conn, Input::Connected { conn, mode, arrival }, 0);
        if shard.is_draining {
            shard.close(conn, CloseCode::Restart);
        }
        self.wake.notify_one();
        ConnId { conn, serial }
    }

    /// Names the task that reads a connection.
    pub fn set_reader(&self, id: ConnId, reader: AbortHandle) {
        match self.shard.borrow_mut().connection(id) {
            Some(connection) => connection.reader = Some(reader),
            None => reader.abort(),
        }
    }

    /// What a connection speaks; `None` once it is closing: what it sends is then not heard any more.
    pub fn mode(&self, id: ConnId) -> Option<Mode> {
        self.shard.borrow_mut().connection(id).filter(|connection| !connection.closing).map(|c| c.mode)
    }

    /// A connection asked for something, in so many bytes.
    pub fn request(
        &self,
        id: ConnId,
        request: Result<crate::hub::Request, shared::protocol::Failure>,
        bytes: usize,
    ) {
        let mut shard = self.shard.borrow_mut();
        let Some(connection) = shard.connection(id) else { return };
        connection.heard = true;
        shard.put(id.conn, Input::Request { conn: id.conn, request }, bytes);
        self.wake.notify_one();
    }

    /// A control frame arrived: a ping, whose payload is sent back, or a pong.
    pub fn control(&self, id: ConnId, ping: Option<&[u8]>) {
        let mut shard = self.shard.borrow_mut();
        let allowed = CONTROL_FRAMES_PER_SECOND * self.config.ping_interval.as_secs().max(1) as u32;
        let Some(connection) = shard.connection(id) else { return };
        connection.heard = true;
        connection.controls += 1;
        if connection.controls > allowed {
            shard.close(id.conn, CloseCode::RateLimited);
        } else if let Some(payload) = ping {
            shard.owe(id.conn, Frame::pong(payload));
        }
        self.wake.notify_one();
    }

    /// Closes a connection with a code.
    pub fn close(&self, id: ConnId, code: CloseCode) {
        self.close_with(id, Frame::close(code));
    }

    /// Closes the connections from addresses that are banned now.
    pub fn close_banned(&self) {
        let mut shard = self.shard.borrow_mut();
        let is_banned =
            |(conn, connection): (usize, &Connection)| connection.permit.is_banned().then_some(conn as Conn);
        let banned: Vec<Conn> = shard.connections.iter().filter_map(is_banned).collect();
        for conn in banned {
            shard.close(conn, CloseCode::Policy);
        }
        self.wake.notify_one();
    }

    /// Closes a connection with a close frame: our own, or the answer to the peer's.
    pub fn close_with(&self, id: ConnId, frame: Frame) {
        let mut shard = self.shard.borrow_mut();
        if shard.connection(id).is_some() {
            shard.close_with(id.conn, frame);
            self.wake.notify_one();
        }
    }

    /// A connection is gone.
    pub fn closed(&self, id: ConnId) {
        self.shard.borrow_mut().finish(id);
        self.wake.notify_one();
    }

    /// What an operator may want to know. Looks at every connection: not for every turn.
    pub fn counts(&self) -> Counts {
        let shard = self.shard.borrow();
        let backlogs = shard.connections.iter().filter_map(|(_, connection)| connection.backlog.as_ref());
        let (backlogs, backlog_bytes) =
            backlogs.fold((0, 0), |(count, bytes), backlog| (count + 1, bytes + backlog.bytes()));
        Counts {
            hub: shard.hub.counts(),
            connections: shard.connections.len(),
            backlogs,
            backlog_bytes,
            inputs_waiting: shard.inbox.len(Lane::Talk) + shard.inbox.len(Lane::Traffic),
            hints_waiting: shard.hints.len(),
            hints_dropped: shard.hints.dropped(),
            deliveries: shard.deliveries,
            slow_readers: shard.slow_readers,
        }
    }

    /// Waits until a connection may ask for more, and lets others have their turn in any case.
    pub async fn room_for(&self, id: ConnId) {
        tokio::task::yield_now().await;
        while self.shard.borrow_mut().is_busy(id) {
            self.room.notified().await;
        }
    }

    /// Closes all connections with 1012, a few at a time, and waits until all that was accepted is
    /// committed and the connections are gone, at most as long as `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        self.shard.borrow_mut().is_draining = true;
        let conns: Vec<Conn> = self.shard.borrow().connections.iter().map(|(conn, _)| conn as Conn).collect();
        for step in conns.chunks(conns.len().div_ceil(DRAIN_STEPS).clamp(1, DRAIN_STEP)) {
            for conn in step {
                self.shard.borrow_mut().close(*conn, CloseCode::Restart);
            }
            self.wake.notify_one();
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        while tokio::time::Instant::now() < end && !self.shard.borrow().is_drained() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let mut shard = self.shard.borrow_mut();
        if !std::mem::replace(&mut shard.has_left, true) {
            let now = shard.now();
            shard.step(now, Input::Leave, &mut Vec::new());
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.broker.detach(self.id);
    }
}

impl Shard {
    /// Milliseconds since the start, on a clock that never jumps.
    fn now(&self) -> Ms {
        self.start.elapsed().as_millis() as Ms
    }

    fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(id.conn as usize).filter(|connection| connection.serial == id.serial)
    }

    /// Whether all connections are gone and all that was accepted is committed.
    fn is_drained(&self) -> bool {
        self.asked == 0 && self.appends.is_empty() && self.connections.is_empty()
    }

    /// Whether a connection's reader should pause.
    fn is_busy(&mut self, id: ConnId) -> bool {
        // Who talks does not pause for a storm of those who come and go.
        let lane = if self.hub.is_ready(id.conn) { Lane::Talk } else { Lane::Traffic };
        let is_full = self.inbox.len(lane) > INBOX_MAX || self.pressure.is_high();
        self.connection(id).is_some_and(|connection| is_full || connection.waiting.bytes > WAITING_BYTES_MAX)
    }

    fn has_inputs(&self) -> bool {
        !self.inbox.is_empty() || !self.hints.is_empty()
    }

    /// Lets the hub take what waits, and carries out what needs no other task. What the store is asked stays
    /// in `appends` and `queries`.
    fn decide(&mut self) {
        let now = self.now();
        let mut out = Vec::new();
        let mut hints = Vec::new().into_iter();
        let mut share = Share::default();
        for most in [TURN_TIME, TURN_TRAFFIC_TIME] {
            let begun = Instant::now();
            let mut count = 0;
            while let Some(source) = share.next(self.is_enough(count, begun, most)) {
                count += 1;
                let was_there = match source {
                    Source::Hint => {
                        if hints.len() == 0 {
                            hints = self.hints.take();
                        }
                        hints.next().map(|hint| self.step(now, Input::Hint(hint), &mut out)).is_some()
                    }
                    Source::Talk => self.take(now, Lane::Talk, &mut out),
                    Source::Traffic => self.take(now, Lane::Traffic, &mut out),
                };
                share.took(source, was_there);
            }
            share.turn_to_traffic();
        }
        self.hints.put_back(hints);
    }

    /// Lets the hub take one input, and carries out what follows.
    fn step(&mut self, now: Ms, input: Input, out: &mut Vec<Effect>) {
        self.hub.handle(now, input, out);
        for effect in out.drain(..) {
            self.act(effect);
        }
    }

    /// Whether a turn has decided enough, after `count` inputs since `begun`.
    fn is_enough(&self, count: usize, begun: Instant, most: Duration) -> bool {
        self.frames.is_heavy() || count > 0 && count.is_multiple_of(TURN_LOOK) && begun.elapsed() >= most
    }

    /// Adds an input of a connection to the inbox.
    fn put(&mut self, conn: Conn, input: Input, bytes: usize) {
        let Some(connection) = self.connections.get_mut(conn as usize) else { return };
        // Its end is its last word: what came after could be taken for the next connection's of that number.
        if connection.gone && !matches!(input, Input::Closed { .. }) {
            return;
        }
        let is_talk = matches!(input, Input::Request { .. }) && self.hub.is_ready(conn);
        let lane = if is_talk { Lane::Talk } else { Lane::Traffic };
        self.inbox.push_of(&mut connection.waiting, lane, input, bytes);
    }

    /// Lets the hub take one input of a lane. False if there was none.
    fn take(&mut self, now: Ms, lane: Lane, out: &mut Vec<Effect>) -> bool {
        let Some((input, bytes)) = self.inbox.pop(lane) else { return false };
        if let Input::Connected { conn, .. } | Input::Request { conn, .. } | Input::Closed { conn } = input
            && let Some(connection) = self.connections.get_mut(conn as usize)
        {
            connection.waiting.taken(lane, bytes);
        }
        let closed = if let Input::Closed { conn } = input { Some(conn) } else { None };
        self.step(now, input, out);
        if let Some(connection) = closed.and_then(|conn| self.connections.try_remove(conn as usize)) {
            self.deflating -= usize::from(connection.deflate);
        }
        true
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, text } => {
                let Some(connection) = self.connections.get_mut(conn as usize) else { return };
                // What goes to one connection alone is worth compressing later than what goes to all.
                let is_worth = connection.deflate && text.len() >= DEFLATE_ANSWER_FROM_BYTES;
                let deflated = if is_worth { Frame::deflated_text(&text) } else { None };
                let frame = deflated.unwrap_or_else(|| Frame::text(&text));
                connection.count_answer(frame.0.len());
                self.owe(conn, frame);
            }
            Effect::Share { conn, text } => {
                let Some(connection) = self.connections.get_mut(conn as usize) else { return };
                let frame = self.frames.share(&text, connection.deflate);
                connection.count_answer(text.text().len());
                connection.owe(conn, frame, &mut self.frames, &mut self.dirty);
            }
            Effect::Fanout { room, full, plain } => {
                let (full_conns, plain_conns) = self.hub.listeners(room);
                for (text, conns) in [(full, full_conns), (plain, plain_conns)] {
                    let Some(text) = text.filter(|_| !conns.is_empty()) else { continue };
                    let frame = self.frames.share(&text, self.deflating > 0);
                    self.deliveries += conns.len() as u64;
                    for conn in conns {
                        if let Some(connection) = self.connections.get_mut(*conn as usize) {
                            connection.owe(*conn, frame, &mut self.frames, &mut self.dirty);
                        }
                    }
                }
            }
            Effect::Everyone { full, plain } => {
                let full = self.frames.share(&full, false);
                let plain = self.frames.share(&plain, false);
                for (conn, connection) in &mut self.connections {
                    let frame = if connection.mode == Mode::Full { full } else { plain };
                    connection.owe(conn as Conn, frame, &mut self.frames, &mut self.dirty);
                }
            }
            Effect::Close { conn, code } => self.close(conn, code),
            Effect::Append { ticket, append } => self.appends.push((ticket, append)),
            Effect::Query { ticket, query } => self.queries.push((ticket, query)),
            Effect::Publish { topic, hint } => self.broker.publish(self.id, topic, hint),
            Effect::Follow(topic) => self.broker.follow(self.id, topic),
            Effect::Unfollow(topic) => self.broker.unfollow(self.id, topic),
        }
    }

    fn owe(&mut self, conn: Conn, frame: Frame) {
        let Some(connection) = self.connections.get_mut(conn as usize) else { return };
        let frame = self.frames.add(frame, None);
        connection.owe(conn, frame, &mut self.frames, &mut self.dirty);
    }

    fn close(&mut self, conn: Conn, code: CloseCode) {
        self.close_with(conn, Frame::close(code));
    }

    fn close_with(&mut self, conn: Conn, frame: Frame) {
        self.owe(conn, frame);
        let Some(connection) = self.connections.get_mut(conn as usize) else { return };
        if !connection.closing {
            connection.closing = true;
            let id = ConnId { conn, serial: connection.serial };
            self.closing.push((Instant::now() + CLOSE_WAIT, id));
        }
    }

    /// Writes to at most `limit` of the sockets that are owed something. Those that are full now and were
    /// not before go to `blocked`.
    fn write(&mut self, limit: usize, blocked: &mut Vec<ConnId>) {
        for _ in 0..limit {
            let Some(conn) = self.dirty.pop() else { break };
            let Some(connection) = self.connections.get_mut(conn as usize) else { continue };
            let owed = std::mem::take(&mut connection.owed);
            if owed.first == NONE {
                continue;
            }
            let id = ConnId { conn, serial: connection.serial };
            let progress = match &mut connection.backlog {
                Some(backlog) => {
                    backlog.extend(self.frames.list(owed, connection.deflate), 0);
                    Ok(Progress::Blocked)
                }
                None => {
                    self.frames.write(&connection.socket, owed, connection.deflate).map(|rest| match rest {
                        None => Progress::Done,
                        Some(rest) => {
                            connection.backlog = Some(Box::new(rest));
                            blocked.push(id);
                            Progress::Blocked
                        }
                    })
                }
            };
            self.wrote(id, progress);
        }
        if self.dirty.is_empty() {
            self.frames.clear();
        }
    }

    /// Goes on with a backlog. True when there is nothing more to write.
    fn write_backlog(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.connection(id) else { return true };
        let Some(backlog) = &mut connection.backlog else { return true };
        let progress = backlog.write(&connection.socket);
        let is_done = !matches!(progress, Ok(Progress::Blocked));
        if is_done {
            connection.backlog = None;
        }
        self.wrote(id, progress);
        is_done
    }

    fn wrote(&mut self, id: ConnId, progress: io::Result<Progress>) {
        let limit = self.send_queue_bytes;
        let Some(connection) = self.connection(id) else { return };
        match progress {
            Ok(Progress::Done) if connection.closing && connection.owed.first == NONE => {
                // The peer reads our close frame and then the end; its own end finishes the connection.
                connection.socket.shutdown_write();
            }
            Ok(Progress::Done) => connection.answer_bytes = 0,
            Ok(Progress::Blocked) => {
                let limit = if limit > 0 { limit + connection.answer_bytes } else { 0 };
                // What is left once it is closing ends with the close frame, and nothing is added to it.
                let backlog = connection.backlog.as_ref().filter(|_| !connection.closing);
                if backlog.is_some_and(|backlog| limit > 0 && backlog.bytes() > limit) {
                    self.give_up(id);
                }
            }
            // The reader sees the end too, after what the peer said before it.
            Err(_) => connection.deaf = true,
        }
    }

    /// Closes a connection that reads too slowly: nothing follows the frame that was begun but the reason.
    fn give_up(&mut self, id: ConnId) {
        let Some(connection) = self.connection(id).filter(|connection| !connection.closing) else { return };
        if let Some(backlog) = &mut connection.backlog {
            backlog.keep_begun();
        }
        self.slow_readers += 1;
        self.close(id.conn, CloseCode::TooSlow);
    }

    fn tick(&mut self, ping_interval: Duration) {
        self.inbox.push(Lane::Talk, Input::Tick { wall: wall_clock(SystemTime::now()) });
        let now = Instant::now();
        let mut overdue = Vec::new();
        self.closing.retain(|(deadline, id)| {
            if *deadline <= now {
                overdue.push(*id);
            }
            *deadline > now
        });
        for id in overdue {
            self.cut(id);
        }
        let seconds = self.start.elapsed().as_secs();
        // After a pause of the whole machine nobody is given up for not having answered in it.
        self.heartbeat_at = self.heartbeat_at.max(seconds.saturating_sub(2));
        while self.heartbeat_at < seconds {
            self.heartbeat_at += 1;
            self.heartbeat(ping_interval);
        }
    }

    /// Looks after every connection once in a `ping_interval`: each second those whose turn it is.
    fn heartbeat(&mut self, ping_interval: Duration) {
        let slots = ping_interval.as_secs().max(1) as usize;
        let places = self.connections.iter().next_back().map_or(0, |(last, _)| last + 1);
        for conn in ((self.heartbeat_at as usize % slots)..places).step_by(slots) {
            let Some(connection) = self.connections.get_mut(conn) else { continue };
            let id = ConnId { conn: conn as Conn, serial: connection.serial };
            let was_heard = std::mem::take(&mut connection.heard);
            connection.controls = 0;
            if was_heard {
                connection.pinged = false;
            } else if connection.pinged {
                self.close(id.conn, CloseCode::NoAnswer);
            } else {
                connection.pinged = true;
                self.owe(id.conn, Frame::ping());
            }
        }
    }

    /// Ends a connection without waiting for the peer: what it has not taken is thrown away.
    fn cut(&mut self, id: ConnId) {
        let Some(connection) = self.connection(id) else { return };
        connection.closing = true;
        connection.socket.discard_at_end();
        self.finish(id);
    }

    /// Tells the hub, once, that a connection is gone.
    fn finish(&mut self, id: ConnId) {
        let Some(connection) = self.connection(id) else { return };
        if !std::mem::replace(&mut connection.gone, true) {
            self.put(id.conn, Input::Closed { conn: id.conn }, 0);
        }
    }
}

impl Connection {
    fn count_answer(&mut self, bytes: usize) {
        self.answer_bytes = (self.answer_bytes + bytes).min(ANSWER_BYTES_MAX);
    }

    fn owe(&mut self, conn: Conn, frame: u32, frames: &mut Frames, dirty: &mut Vec<Conn>) {
        if self.closing || self.deaf {
            return;
        }
        if self.owed.first == NONE {
            dirty.push(conn);
        }
        frames.link(&mut self.owed, frame);
    }
}

/// A time of day in milliseconds since 1970-01-01 00:00 UTC.
pub fn wall_clock(now: SystemTime) -> Ms {
    now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Ms)
}
