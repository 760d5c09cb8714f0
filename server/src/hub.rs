//! The registry of sessions, rooms and presence, and every decision about them.
//!
//! A pure machine: `handle(now, input)` gives effects, and an engine carries them out. It names no socket,
//! clock, thread or database; of the store and the broker it knows the words, not the adapters. Several hubs
//! (one in each of several nodes) are peers: all they share is the store and the broker's hints.

mod acts;
mod answers;
mod arrivals;
mod counts;
mod doubt;
mod endings;
mod hints;
mod maps;
mod membership;
mod peers;
mod presence;
mod rates;
mod requests;
mod room;
mod session;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use shared::acts::{Act, Entry, List};
use shared::model::{BODY_CHARS_MAX, Claim, Line, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{
    CloseCode, Event, FRAME_BYTES_MAX, Failure, Listing, PlainMessage, Presence, RoomInfo, RoomKind,
    SERVER_NAME, ServerEnvelope, User, encode,
};
use shared::rights::Role;

use crate::broker::{Hint, HubId, Topic};
use crate::encoded::Encoded;
use crate::secrets::Secrets;
use crate::store::{
    Account, Append, Appended, Cursor, Entered, Identity, ListQuery, Made, NewSession, Newcomer, Outcome,
    Page, RoomKey, StoreError, TokenHash,
};
use acts::Acting;
pub use counts::Counts;
use doubt::Doubt;
use maps::{HashMap, HashSet};
use peers::Peers;
use rates::Rates;
use room::Room;
use session::Session;
pub use session::{Mode, Request};

/// A connection's number, given by the engine; free again after `Input::Closed`.
pub type Conn = u32;
/// Tells the answers of the store apart.
pub type Ticket = u64;

/// Appends under way, and bytes of their bodies, before more sends are told to wait.
const APPENDS_MAX: usize = 20_000;
const APPEND_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a client is told to wait when the store does not answer.
const UNAVAILABLE_RETRY_MS: u32 = 1_000;
/// How long a user without connections still counts as present: a reload is not a departure.
const ABSENCE_GRACE_MS: Ms = 8_000;
/// How long a room without listeners is kept.
const ROOM_IDLE_MS: Ms = 60_000;
/// How often presence differences go out, in an ordinary room and in a crowd.
const PRESENCE_EVERY_MS: Ms = 250;
const PRESENCE_CROWD_EVERY_MS: Ms = 3_000;
/// How often heads are compared with the store when hints can be lost.
const HEADS_EVERY_MS: Ms = 3_000;
/// How long an event may be late behind its successor before the store is read. Hubs of one process deliver
/// a little out of order when they are busy.
const HOLE_GRACE_MS: Ms = 50;
/// Fastest typing signals of one user that are passed on.
const TYPING_EVERY_MS: Ms = 1_000;
/// Bytes of pages in the answer to one `hello`. A client that is not told all asks by `join`.
const RESUME_BYTES_MAX: usize = 1024 * 1024;
/// Plain listeners beyond which departures are not announced to them: n leaving would cost n² messages.
const PLAIN_CROWD: usize = 1_000;

/// What an operator can set.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// Messages a second of one user; 0 is no limit.
    pub message_rate: u32,
    /// Requests of any kind a second of one user; 0 is no limit.
    pub request_rate: u32,
    /// Rooms that one user makes, joins or opens in a minute; 0 is no limit.
    pub entry_rate: u32,
    /// Acts and new names of one user in a minute; 0 is no limit.
    pub act_rate: u32,
    /// Lists that one user looks into in a minute; 0 is no limit.
    pub list_rate: u32,
    /// Connections of one user; 0 is no limit.
    pub connections_per_user: usize,
    /// Rooms of one user, the lobby not counted; 0 is no limit.
    pub rooms_per_user: usize,
    /// Characters of one message; 0 is no limit but the frame's.
    pub message_chars: usize,
    /// Bytes of one frame; only told to clients here.
    pub frame_bytes: usize,
    /// How long a guest's session lasts.
    pub session_ms: Ms,
    /// Whether other processes may write to the store.
    pub shared_store: bool,
}

/// 400 days: longer than that no browser keeps a cookie.
const SESSION_MS: Ms = 400 * 86_400_000;

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            message_rate: 10,
            request_rate: 50,
            entry_rate: 60,
            act_rate: 60,
            list_rate: 60,
            connections_per_user: 50,
            rooms_per_user: 200,
            message_chars: BODY_CHARS_MAX,
            frame_bytes: FRAME_BYTES_MAX,
            session_ms: SESSION_MS,
            shared_store: false,
        }
    }
}

/// As whom a connection comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Of its session or of a bot's token.
    pub token: TokenHash,
    /// It came without a session and got a fresh one, which scripts do not bring again.
    pub ephemeral: bool,
    /// Whether a guest may be made if there is no such session.
    pub may_be_new: bool,
    /// What it is used from, for people to recognise.
    pub device: Line,
}

/// What happens to a hub.
#[derive(Debug)]
pub enum Input {
    /// A connection was accepted.
    Connected {
        conn: Conn,
        mode: Mode,
        arrival: Arrival,
    },
    /// A connection asks for something, or sent what could not be read.
    Request {
        conn: Conn,
        request: Result<Request, Failure>,
    },
    /// A connection is gone.
    Closed {
        conn: Conn,
    },
    Answered {
        ticket: Ticket,
        answer: Result<Answer, StoreError>,
    },
    Appended {
        ticket: Ticket,
        result: Result<Appended, StoreError>,
    },
    Hint(Hint),
    /// The hub ends in good order: its connections are gone.
    Leave,
    /// Some time has passed. `wall`: milliseconds since 1970-01-01 00:00 UTC.
    Tick {
        wall: Ms,
    },
}

/// What a hub wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// A text to one connection.
    Send {
        conn: Conn,
        text: String,
    },
    /// A text to one connection that others are given too.
    Share {
        conn: Conn,
        text: Arc<Encoded>,
    },
    /// A text to every connection that listens to a room (`Hub::listeners`): `full` to those that speak
    /// `magpie.v1`, `plain` to the others.
    Fanout {
        room: RoomId,
        full: Option<Arc<Encoded>>,
        plain: Option<Arc<Encoded>>,
    },
    /// A text to every connection.
    Everyone {
        full: Arc<Encoded>,
        plain: Arc<Encoded>,
    },
    /// Closes a connection, after what was sent to it. `Input::Closed` follows.
    Close {
        conn: Conn,
        code: CloseCode,
    },
    Append {
        ticket: Ticket,
        append: Append,
    },
    Query {
        ticket: Ticket,
        query: Query,
    },
    Publish {
        topic: Topic,
        hint: Hint,
    },
    Follow(Topic),
    Unfollow(Topic),
}

/// A call of `Store`, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    EventsAfter { room: RoomId, after: Seq, limit: usize },
    EventsBefore { room: RoomId, before: Seq, limit: usize },
    Identify { session: NewSession, newcomer: Option<Newcomer> },
    Touch { sessions: Vec<(TokenHash, Ms)> },
    Void { tokens: Vec<TokenHash> },
    Account { user: UserId },
    Rename { user: UserId, name: Claim<UserName>, tell_lobby: bool, at: Ms },
    CreateRoom { id: RoomId, kind: RoomKind, name: Claim<RoomName>, user: UserId, rooms_max: usize, at: Ms },
    OpenDirect { id: RoomId, user: UserId, peer: UserId, rooms_max: usize, at: Ms },
    OpenGroup { id: RoomId, user: UserId, others: Vec<UserId>, rooms_max: usize, at: Ms },
    Act { by: UserId, act: Act, made: Made, at: Ms },
    List { by: UserId, query: ListQuery },
    Join { room: RoomKey, user: UserId, rooms_max: usize, at: Ms },
    Leave { room: RoomId, user: UserId, at: Ms },
    RoomInfo { room: RoomId, user: UserId },
    MarkRead { room: RoomId, user: UserId, seq: Seq, version: Option<u32> },
    Members { room: RoomId, limit: usize },
    Directory { user: UserId, limit: usize },
    Heads { rooms: Vec<RoomId> },
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Page(Page),
    Identity(Identity),
    Account(Account),
    Renamed(User, Vec<Event>),
    Entered(Entered),
    Left(Option<Event>),
    Info(RoomInfo),
    Read(Cursor),
    Outcome(Outcome),
    Rows(Vec<Entry>),
    Touched,
    Void(Vec<TokenHash>),
    Members(Vec<User>, u32),
    Directory(Vec<Listing>),
    Heads(Vec<(RoomId, u32, Seq)>),
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Asker {
    conn: Conn,
    serial: u64,
}

/// Why the store was asked.
#[derive(Debug)]
enum Pending {
    Identify(Asker),
    Account(Asker),
    /// The newest page of a room that is new to this hub.
    Load(RoomId),
    /// What a room lacks.
    Fetch(RoomId),
    /// Of these rooms.
    Heads(Vec<RoomId>),
    Send {
        asker: Asker,
        room: RoomId,
        reference: Option<Ref>,
        bytes: usize,
    },
    /// An event that nobody waits for.
    Note,
    /// `join`, `create`, `direct`.
    Enter {
        asker: Asker,
        request: &'static str,
        after: Option<Seq>,
    },
    /// `join` of a room the asker is in.
    Reread {
        asker: Asker,
        room: RoomId,
        after: Option<Seq>,
        /// Otherwise they may get the room meanwhile as if they had entered it elsewhere, and need it no more.
        was_listening: bool,
    },
    /// A part of a replay that is not in memory, for all who resume there.
    Resume {
        room: RoomId,
        after: Seq,
    },
    /// A part of a replay that is not in memory.
    Replay {
        asker: Asker,
        info: RoomInfo,
        after: Seq,
    },
    History {
        asker: Asker,
        room: RoomId,
        before: Seq,
    },
    Leave {
        asker: Asker,
        user: UserId,
        room: RoomId,
    },
    Rename(Asker),
    MarkRead {
        asker: Asker,
        user: UserId,
        room: RoomId,
    },
    Members {
        asker: Asker,
        room: RoomId,
    },
    Directory(Asker),
    Act(Box<Acting>),
    List {
        asker: Asker,
        list: List,
        room: Option<RoomId>,
    },
    Touch,
    /// Of these tokens.
    Void(Vec<TokenHash>),
    /// What is to be read again for a user.
    Look(Look),
}

/// What of a user has changed elsewhere, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// They entered a room.
    Attach { user: UserId, room: RoomId },
    /// A room looks different to them.
    Room { user: UserId, room: RoomId },
    /// What they are, or whom they have blocked.
    Account { user: UserId },
    /// Any of that, for hints may have been lost.
    Everything { user: UserId },
}

/// What goes on once a room is loaded.
#[derive(Debug)]
enum Waiter {
    Welcome(Asker),
    Join { asker: Asker, info: RoomInfo, after: Option<Seq> },
    Attach { user: UserId, info: RoomInfo },
}

/// A user with connections here, or who just had some.
#[derive(Debug)]
struct Present {
    user: User,
    conns: Vec<Conn>,
    rooms: Vec<RoomId>,
    /// Whose messages do not count as unread.
    blocked: Vec<UserId>,
    /// As the user's connections were told.
    role: Option<Role>,
    rates: Rates,
    /// What the rooms were told.
    told: Presence,
    /// Without connections: when that becomes known.
    absent_at: Option<Ms>,
    /// The hub's `serial` when a change of name or rooms was last heard of: answers of the store to
    /// questions before that may be out of date.
    changed_at: u64,
    /// Whether what other hubs say of the user comes here by now, as far as it comes at all.
    is_heard_of: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Hub {
    id: HubId,
    config: HubConfig,
    /// Whether hints can be lost.
    lossy: bool,
    /// For ids and guests' names.
    rng: Rng,
    secrets: Secrets,
    /// The step's `now`.
    now: Ms,
    serial: u64,
    sessions: Vec<Option<Session>>,
    users: HashMap<UserId, Present>,
    /// Who waits until a user is heard of, and since when.
    unheard_of: HashMap<UserId, (Ms, Vec<Asker>)>,
    rooms: HashMap<RoomId, Room>,
    pending: HashMap<Ticket, Pending>,
    appends: usize,
    append_bytes: usize,
    /// Users one of whose connections said whether they are there, since the last tick.
    restless: HashSet<UserId>,
    /// Users whose absence is not known yet.
    absent: HashSet<UserId>,
    /// Rooms whose listeners do not know all about presence.
    presence_due: HashSet<RoomId>,
    /// Rooms in which an event is missing.
    holes: HashSet<RoomId>,
    /// Rooms that keep answers.
    answering: HashSet<RoomId>,
    /// Rooms that want their store read again.
    refetch: HashSet<RoomId>,
    heads_at: Ms,
    /// The store failed, perhaps after it had written: heads must be compared.
    in_doubt: bool,
    /// What could not be read again for a user.
    overlooked: Vec<Look>,
    /// Sessions that were ended lately, and when.
    ended: HashMap<TokenHash, Ms>,
    /// Connections whose sessions end by themselves before `horizon`, with their serials.
    endings: BTreeMap<(Ms, Conn), u64>,
    horizon: Ms,
    /// Sessions used in this period, each connection's once.
    used: Vec<TokenHash>,
    period: u32,
    touched_at: Ms,
    sweep_at: Ms,
    peers: Peers,
    doubt: Doubt,
    /// What to add to `now` for the time of day. `now` itself never jumps.
    wall_offset: Ms,
    /// What was counted; what can be looked up is not in it.
    counts: Counts,
}

/// Collects what one step wants done.
type Out<'a> = &'a mut Vec<Effect>;

impl Hub {
    /// A hub without sessions. `seed` feeds ids, guests' names and secrets: nobody must know it. `lossy` is the
    /// broker's `is_lossy`.
    pub fn new(id: HubId, config: HubConfig, lossy: bool, seed: [u8; 32]) -> Self {
        let secrets = Secrets::new(seed);
        Self {
            id,
            config,
            lossy,
            rng: Rng::with_seed(secrets.number()),
            secrets,
            now: 0,
            serial: 0,
            sessions: Vec::new(),
            users: HashMap::default(),
            unheard_of: HashMap::default(),
            rooms: HashMap::default(),
            pending: HashMap::default(),
            appends: 0,
            append_bytes: 0,
            restless: HashSet::default(),
            absent: HashSet::default(),
            presence_due: HashSet::default(),
            holes: HashSet::default(),
            answering: HashSet::default(),
            refetch: HashSet::default(),
            heads_at: 0,
            in_doubt: false,
            overlooked: Vec::new(),
            ended: HashMap::default(),
            endings: BTreeMap::new(),
            horizon: 0,
            used: Vec::new(),
            period: 1,
            touched_at: 0,
            sweep_at: 0,
            peers: Peers::default(),
            doubt: Doubt::default(),
            wall_offset: 0,
            counts: Counts::default(),
        }
    }

    /// One step. `now`: milliseconds on a clock that never jumps, from any beginning.
    pub fn handle(&mut self, now: Ms, input: Input, out: Out) {
        self.now = now;
        match input {
            Input::Connected { conn, mode, arrival } => self.connected(now, conn, mode, arrival, out),
            Input::Request { conn, request } => self.request(now, conn, request, out),
            Input::Closed { conn } => self.closed(now, conn, out),
            Input::Answered { ticket, answer } => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    self.answered(now, ticket, pending, answer, out);
                }
            }
            Input::Appended { ticket, result } => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    self.appends -= 1;
                    if let Pending::Send { bytes, .. } = pending {
                        self.append_bytes -= bytes;
                    }
                    self.appended(pending, result, out);
                }
            }
            Input::Hint(hint) => self.hint(now, hint, out),
            Input::Leave => self.leave_peers(out),
            Input::Tick { wall } => {
                self.wall_offset = wall - now;
                self.tick(now, out);
            }
        }
    }

    /// The connections that listen to a room: those that speak `magpie.v1`, and those in plain mode.
    pub fn listeners(&self, room: RoomId) -> (&[Conn], &[Conn]) {
        self.rooms.get(&room).map_or((&[], &[]), |room| (&room.full, &room.plain))
    }

    /// What an operator may want to know.
    pub fn counts(&self) -> Counts {
        let (users, rooms, asked) = (self.users.len(), self.rooms.len(), self.pending.len());
        Counts { users, rooms, asked, peers: self.peers.living(), ..self.counts }
    }

    /// The loaded rooms, and how far their logs were delivered to those who listen.
    pub fn applied(&self) -> impl Iterator<Item = (RoomId, Seq)> + '_ {
        self.rooms.iter().filter(|(_, room)| room.loaded).map(|(id, room)| (*id, room.applied))
    }

    /// What a connection speaks; `None` if it is gone.
    pub fn mode(&self, conn: Conn) -> Option<Mode> {
        self.session(conn).map(|session| session.mode)
    }

    /// Whether a connection was welcomed.
    pub fn is_ready(&self, conn: Conn) -> bool {
        self.session(conn).is_some_and(Session::is_ready)
    }

    fn session(&self, conn: Conn) -> Option<&Session> {
        self.sessions.get(conn as usize)?.as_ref()
    }

    fn session_mut(&mut self, conn: Conn) -> Option<&mut Session> {
        self.sessions.get_mut(conn as usize)?.as_mut()
    }

    /// The session that asked, if it is still there.
    fn asked(&self, asker: Asker) -> Option<&Session> {
        self.session(asker.conn).filter(|session| session.serial == asker.serial)
    }

    /// A user's name or rooms changed: what the store was asked before may be answered as it was.
    fn note_change(&mut self, user: UserId) {
        self.serial += 1;
        if let Some(present) = self.users.get_mut(&user) {
            present.changed_at = self.serial;
        }
    }

    /// Whether the answer to a question of this ticket may be out of date for a user.
    fn is_stale(&self, user: UserId, ticket: Ticket) -> bool {
        self.users.get(&user).is_some_and(|present| present.changed_at > ticket)
    }

    /// The user behind a connection that finished its start.
    fn user_of(&self, conn: Conn) -> Option<&Present> {
        self.users.get(&self.session(conn)?.user?)
    }

    fn ask(&mut self, pending: Pending, query: Query, out: Out) {
        self.serial += 1;
        self.pending.insert(self.serial, pending);
        out.push(Effect::Query { ticket: self.serial, query });
    }

    fn append(&mut self, pending: Pending, append: Append, out: Out) {
        self.serial += 1;
        self.appends += 1;
        self.pending.insert(self.serial, pending);
        out.push(Effect::Append { ticket: self.serial, append });
    }

    fn send(&self, conn: Conn, envelope: &ServerEnvelope, out: Out) {
        if self.mode(conn) == Some(Mode::Full) {
            out.push(Effect::Send { conn, text: encode(envelope) });
        }
    }

    fn fail(&self, conn: Conn, failure: Failure, out: Out) {
        match self.mode(conn) {
            Some(Mode::Full) => self.send(conn, &ServerEnvelope::Error(failure), out),
            Some(Mode::Plain) => {
                let message = PlainMessage { sender: SERVER_NAME.into(), message: failure.message };
                out.push(Effect::Send { conn, text: encode(&message) });
            }
            None => {}
        }
    }

    fn to_user(&self, user: UserId, envelope: &ServerEnvelope, out: Out) {
        for conn in self.users.get(&user).map_or(&[][..], |present| &present.conns) {
            self.send(*conn, envelope, out);
        }
    }

    /// To those of a user's connections that may hear of a room.
    fn to_user_in(&self, user: UserId, room: RoomId, envelope: &ServerEnvelope, out: Out) {
        for conn in self.users.get(&user).map_or(&[][..], |present| &present.conns) {
            if self.session(*conn).is_some_and(|session| session.hears(room)) {
                self.send(*conn, envelope, out);
            }
        }
    }
}

fn encode_shared<T: serde::Serialize>(envelope: &T) -> Arc<Encoded> {
    Arc::new(Encoded::new(encode(envelope)))
}
