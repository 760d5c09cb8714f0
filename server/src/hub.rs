//! The registry of sessions, rooms and presence, and every decision about them.
//!
//! A pure machine: `handle(now, input)` gives effects, and an engine carries them out. It names no socket,
//! clock, thread or database; of the store and the broker it knows the words, not the adapters. Several hubs
//! (one in each of several nodes) are peers: all they share is the store and the broker's hints.

mod room;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;
use shared::model::{BadBody, Body, Claim, LOBBY, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{
    CROWD, ClientEnvelope, CloseCode, ErrorCode, Event, EventKind, Failure, LIST_MAX, Limits, Listing,
    PAGE_EVENTS_MAX, PLAIN_LEFT, Person, PlainMessage, Presence, RESUME_ROOMS_MAX, Resume, RoomInfo,
    SERVER_NAME, ServerEnvelope, UNREAD_MAX, User, encode,
};

use crate::broker::{Hint, HubId, Topic};
use crate::names;
use crate::store::{Append, Appended, Entered, Identity, Page, RoomKey, StoreError, TokenHash};
use room::{Replay, Room};
use session::{Admission, Phase, Session, Starting};
pub use session::{Mode, Request};

/// A connection's number, given by the engine; free again after `Input::Closed`.
pub type Conn = u32;
/// Tells the answers of the store apart.
pub type Ticket = u64;

/// Appends under way before more sends are told to wait.
const APPENDS_MAX: usize = 20_000;
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
/// Fastest typing signals of one connection that are passed on.
const TYPING_EVERY_MS: Ms = 1_000;
/// Plain listeners beyond which departures are not announced to them: n leaving would cost n² messages.
const PLAIN_CROWD: usize = 1_000;

/// What an operator can set.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// Messages a second of one connection; 0 is no limit.
    pub message_rate: u32,
    /// Requests of any kind a second of one connection; 0 is no limit.
    pub request_rate: u32,
    /// Rooms of one user, the lobby not counted; 0 is no limit.
    pub rooms_per_user: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { message_rate: 10, request_rate: 50, rooms_per_user: 200 }
    }
}

/// What happens to a hub.
#[derive(Debug)]
pub enum Input {
    /// A connection was accepted. `ephemeral`: its session was made for it and cannot be used again.
    Connected {
        conn: Conn,
        mode: Mode,
        token: TokenHash,
        ephemeral: bool,
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
    /// A text to every connection that listens to a room (`Hub::listeners`): `full` to those that speak
    /// `magpie.v1`, `plain` to the others.
    Fanout {
        room: RoomId,
        full: Option<String>,
        plain: Option<String>,
    },
    /// A text to every connection.
    Everyone {
        full: String,
        plain: String,
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
    Identify { token: TokenHash, id: UserId, names: Vec<Claim<UserName>>, at: Ms },
    Rename { user: UserId, name: Claim<UserName>, tell_lobby: bool, at: Ms },
    CreateRoom { id: RoomId, name: Claim<RoomName>, user: UserId, rooms_max: usize, at: Ms },
    OpenDirect { id: RoomId, user: UserId, peer: UserId, rooms_max: usize, at: Ms },
    Join { room: RoomKey, user: UserId, rooms_max: usize, at: Ms },
    Leave { room: RoomId, user: UserId, at: Ms },
    RoomInfo { room: RoomId, user: UserId },
    MarkRead { room: RoomId, user: UserId, seq: Seq },
    Members { room: RoomId, limit: usize },
    Directory { user: UserId, limit: usize },
    Heads { rooms: Vec<RoomId> },
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Page(Page),
    Identity(Identity),
    Renamed(User, Vec<Event>),
    Entered(Entered),
    Left(Option<Event>),
    Info(RoomInfo),
    Read(Seq, u32),
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
    /// The newest page of a room that is new to this hub.
    Load(RoomId),
    /// What a room lacks.
    Fetch(RoomId),
    Heads,
    Send {
        asker: Asker,
        room: RoomId,
        reference: Option<Ref>,
    },
    /// An event that nobody waits for.
    Note,
    /// `join`, `create`, `direct`.
    Enter {
        asker: Asker,
        request: &'static str,
        user: UserId,
        peer: Option<UserId>,
        after: Option<Seq>,
    },
    /// `join` of a room the asker is in.
    Reread {
        asker: Asker,
        room: RoomId,
        after: Option<Seq>,
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
        room: RoomId,
    },
    Rename(Asker),
    MarkRead {
        asker: Asker,
        room: RoomId,
    },
    Members {
        asker: Asker,
        room: RoomId,
    },
    Directory(Asker),
    /// A room that the user entered elsewhere.
    Attach {
        user: UserId,
        room: RoomId,
    },
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
    /// What the rooms were told.
    told: Presence,
    /// Without connections: when that becomes known.
    absent_at: Option<Ms>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Hub {
    id: HubId,
    config: HubConfig,
    /// Whether hints can be lost.
    lossy: bool,
    rng: Rng,
    serial: u64,
    sessions: Vec<Option<Session>>,
    users: HashMap<UserId, Present>,
    rooms: HashMap<RoomId, Room>,
    pending: HashMap<Ticket, Pending>,
    appends: usize,
    /// Users whose absence is not known yet.
    absent: HashSet<UserId>,
    /// Rooms whose listeners do not know all about presence.
    presence_due: HashSet<RoomId>,
    /// Rooms that want their store read again.
    refetch: HashSet<RoomId>,
    heads_at: Ms,
    sweep_at: Ms,
    /// What to add to `now` for the time of day. `now` itself never jumps.
    wall_offset: Ms,
}

/// Collects what one step wants done.
type Out<'a> = &'a mut Vec<Effect>;

impl Hub {
    /// A hub without sessions. `seed` feeds ids and guests' names; `lossy` is the broker's `is_lossy`.
    pub fn new(id: HubId, config: HubConfig, lossy: bool, seed: u64) -> Self {
        Self {
            id,
            config,
            lossy,
            rng: Rng::with_seed(seed),
            serial: 0,
            sessions: Vec::new(),
            users: HashMap::new(),
            rooms: HashMap::new(),
            pending: HashMap::new(),
            appends: 0,
            absent: HashSet::new(),
            presence_due: HashSet::new(),
            refetch: HashSet::new(),
            heads_at: 0,
            sweep_at: 0,
            wall_offset: 0,
        }
    }

    /// One step. `now`: milliseconds on a clock that never jumps, from any beginning.
    pub fn handle(&mut self, now: Ms, input: Input, out: Out) {
        match input {
            Input::Connected { conn, mode, token, ephemeral } => {
                self.connected(now, conn, mode, token, ephemeral, out)
            }
            Input::Request { conn, request } => self.request(now, conn, request, out),
            Input::Closed { conn } => self.closed(now, conn, out),
            Input::Answered { ticket, answer } => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    self.answered(now, pending, answer, out);
                }
            }
            Input::Appended { ticket, result } => {
                if let Some(pending) = self.pending.remove(&ticket) {
                    self.appends -= 1;
                    self.appended(pending, result, out);
                }
            }
            Input::Hint(hint) => self.hint(now, hint, out),
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

    /// What a connection speaks; `None` if it is gone.
    pub fn mode(&self, conn: Conn) -> Option<Mode> {
        self.session(conn).map(|session| session.mode)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.sessions.iter().flatten().count()
    }

    // Sessions.

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

    /// The user behind a connection that finished its start.
    fn user_of(&self, conn: Conn) -> Option<&Present> {
        self.users.get(&self.session(conn)?.user?)
    }

    fn connected(&mut self, now: Ms, conn: Conn, mode: Mode, token: TokenHash, ephemeral: bool, out: Out) {
        let place = conn as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, || None);
        }
        debug_assert!(self.sessions[place].is_none(), "connection numbers are free when given again");
        self.serial += 1;
        self.sessions[place] = Some(Session::new(self.serial, mode, token, ephemeral));
        if mode == Mode::Plain {
            self.start(now, conn, Vec::new(), out);
        }
    }

    /// Asks the store who a connection is.
    fn start(&mut self, now: Ms, conn: Conn, resume: Vec<Resume>, out: Out) {
        let id = UserId::from_bits(self.rng.u64(..));
        let names = names::candidates(&mut self.rng);
        let at = now + self.wall_offset;
        let Some(session) = self.session_mut(conn) else { return };
        session.phase = Phase::Starting(Box::new(Starting { resume, ..Starting::default() }));
        let asker = Asker { conn, serial: session.serial };
        let query = Query::Identify { token: session.token, id, names, at };
        self.ask(Pending::Identify(asker), query, out);
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

    fn identified(&mut self, now: Ms, asker: Asker, identity: Identity, out: Out) {
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        let ids: Vec<RoomId> = identity.rooms.iter().map(|info| info.id).collect();
        starting.identity = Some(identity);
        starting.rooms_missing = 0;
        let mut missing = 0;
        for id in ids {
            let room = self.follow(now, id, out);
            if !room.loaded {
                room.waiting.push(Waiter::Welcome(asker));
                missing += 1;
            }
        }
        let Some(session) = self.session_mut(asker.conn) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.rooms_missing = missing;
        if missing == 0 {
            self.welcome(now, asker.conn, out);
        }
    }

    /// Everything a session needs is here: it becomes one of its rooms' listeners and is welcomed.
    fn welcome(&mut self, now: Ms, conn: Conn, out: Out) {
        let Some(session) = self.session_mut(conn) else { return };
        let asker = Asker { conn, serial: session.serial };
        let Phase::Starting(starting) = &mut session.phase else { return };
        let Some(identity) = starting.identity.take() else { return };
        if identity.rooms.iter().any(|info| self.rooms.get(&info.id).is_none_or(|room| !room.loaded)) {
            // A room that was ready at first has been put away while others were loaded.
            return self.identified(now, asker, identity, out);
        }
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = std::mem::replace(&mut session.phase, Phase::Ready) else { return };
        let Starting { resume, early, .. } = *starting;
        let Identity { user, fresh, rooms } = identity;
        let mode = session.mode;
        session.user = Some(user.id);

        let present = self.users.entry(user.id).or_insert_with(|| {
            out.push(Effect::Follow(Topic::User(user.id)));
            Present {
                user: user.clone(),
                conns: Vec::with_capacity(1),
                rooms: Vec::with_capacity(rooms.len()),
                told: Presence::Offline,
                absent_at: None,
            }
        });
        present.conns.push(conn);
        present.absent_at = None;
        self.absent.remove(&user.id);
        let user = present.user.clone();
        for info in &rooms {
            if !present.rooms.contains(&info.id) {
                present.rooms.push(info.id);
            }
        }
        // The user may have entered a room elsewhere while the store was asked.
        let others: Vec<RoomId> =
            present.rooms.iter().copied().filter(|id| rooms.iter().all(|info| info.id != *id)).collect();

        let rooms: Vec<RoomInfo> = rooms.into_iter().map(|info| self.current_info(info, user.id)).collect();
        for info in &rooms {
            self.listen(conn, info.id);
        }
        if mode == Mode::Full {
            let limits = Limits { rooms_per_user: self.config.rooms_per_user, ..Limits::default() };
            self.send(
                conn,
                &ServerEnvelope::Welcome {
                    user: user.clone(),
                    rooms: rooms.clone(),
                    limits,
                    now: now + self.wall_offset,
                },
                out,
            );
        }
        self.tell_presence(user.id, true, out);
        let lobby_is_small = self.rooms.get(&LOBBY).is_some_and(|lobby| lobby.roster.online() < CROWD);
        if fresh && lobby_is_small {
            self.note_in_lobby(now, user.clone(), EventKind::Joined, out);
        }
        for room in others {
            self.ask(Pending::Attach { user: user.id, room }, Query::RoomInfo { room, user: user.id }, out);
        }

        for Resume { room, epoch, seq } in resume {
            match rooms.iter().find(|info| info.id == room) {
                Some(info) => self.answer_join(conn, info.clone(), Some(seq), Some(epoch), out),
                None => {
                    let failure = Failure::new(ErrorCode::NotFound, "You are not in that room.");
                    self.fail(
                        conn,
                        Failure { room: Some(room), request: Some("hello".into()), ..failure },
                        out,
                    );
                }
            }
        }
        for request in early {
            self.request_ready(now, conn, request, out);
        }
    }

    fn note_in_lobby(&mut self, now: Ms, author: User, kind: EventKind, out: Out) {
        let at = now + self.wall_offset;
        let append = Append { room: LOBBY, author, at, kind, reference: None };
        self.append(Pending::Note, append, out);
    }

    /// Brings what the store said of a room up to what this hub has delivered since.
    fn current_info(&self, mut info: RoomInfo, reader: UserId) -> RoomInfo {
        if let Some(room) = self.rooms.get(&info.id).filter(|room| room.applied > info.head) {
            info.unread =
                (info.unread + room.messages_after(info.head.max(info.read), reader)).min(UNREAD_MAX);
            info.head = room.applied;
        }
        info
    }

    fn closed(&mut self, now: Ms, conn: Conn, out: Out) {
        let Some(session) = self.sessions.get_mut(conn as usize).and_then(Option::take) else { return };
        for (room, place) in session.rooms {
            self.forget_listener(now, room, session.mode, place);
        }
        let Some(user) = session.user else { return };
        let Some(present) = self.users.get_mut(&user) else { return };
        present.conns.retain(|other| *other != conn);
        if !present.conns.is_empty() {
            self.tell_presence(user, false, out);
            return;
        }
        let grace = if session.ephemeral { 0 } else { ABSENCE_GRACE_MS };
        present.absent_at = Some(now + grace);
        let author = present.user.clone();
        if session.ephemeral {
            let lobby_is_small = self.rooms.get(&LOBBY).is_some_and(|lobby| lobby.roster.online() <= CROWD);
            if lobby_is_small {
                self.note_in_lobby(now, author, EventKind::Left, out);
            }
            self.gone(user, out);
        } else {
            self.absent.insert(user);
        }
    }

    /// A user without connections is now known to be away for good.
    fn gone(&mut self, user: UserId, out: Out) {
        self.tell_presence(user, false, out);
        self.absent.remove(&user);
        self.users.remove(&user);
        out.push(Effect::Unfollow(Topic::User(user)));
    }

    // Requests.

    fn request(&mut self, now: Ms, conn: Conn, request: Result<Request, Failure>, out: Out) {
        let (message_rate, request_rate) = (self.config.message_rate, self.config.request_rate);
        let Some(session) = self.session_mut(conn) else { return };
        let is_message =
            matches!(request, Ok(Request::Plain(_) | Request::Envelope(ClientEnvelope::Send { .. })));
        match session.admit(now, is_message, message_rate, request_rate) {
            Admission::Taken => {}
            Admission::Hopeless => {
                out.push(Effect::Close { conn, code: CloseCode::RateLimited });
                return;
            }
            Admission::Refused { retry_ms } => {
                let failure = Failure::new(ErrorCode::RateLimited, "That was too fast. Wait a moment.");
                let failure = Failure { retry_ms: Some(retry_ms), ..failure };
                self.fail(conn, about(request.as_ref().ok(), failure), out);
                return;
            }
        }
        match request {
            Err(failure) => self.fail(conn, failure, out),
            Ok(request) => self.request_admitted(now, conn, request, out),
        }
    }

    fn request_admitted(&mut self, now: Ms, conn: Conn, request: Request, out: Out) {
        let Some(session) = self.session_mut(conn) else { return };
        match (&mut session.phase, request) {
            (Phase::New, Request::Envelope(ClientEnvelope::Hello { mut resume })) => {
                resume.truncate(RESUME_ROOMS_MAX);
                self.start(now, conn, resume, out);
            }
            (Phase::New, Request::Envelope(ClientEnvelope::Ping { n })) => {
                self.send(conn, &ServerEnvelope::Pong { n, now: now + self.wall_offset }, out)
            }
            (Phase::New, request) => {
                let failure = Failure::new(ErrorCode::HelloFirst, "The first envelope is a hello.");
                self.fail(conn, about(Some(&request), failure), out);
            }
            (Phase::Starting(starting), request) if starting.early.len() < session::EARLY_REQUESTS_MAX => {
                starting.early.push(request);
            }
            (Phase::Starting(_), request) => {
                let failure = Failure::new(ErrorCode::RateLimited, "Wait for the welcome.");
                let failure = Failure { retry_ms: Some(UNAVAILABLE_RETRY_MS), ..failure };
                self.fail(conn, about(Some(&request), failure), out);
            }
            (Phase::Ready, request) => self.request_ready(now, conn, request, out),
        }
    }

    fn request_ready(&mut self, now: Ms, conn: Conn, request: Request, out: Out) {
        let Some(session) = self.session(conn) else { return };
        let asker = Asker { conn, serial: session.serial };
        let Some(user) = session.user else { return };
        let rooms_max = self.config.rooms_per_user;
        let at = now + self.wall_offset;
        let envelope = match request {
            Request::Plain(text) => {
                match Body::parse(&text) {
                    Ok(body) => self.say(now, asker, LOBBY, None, body, out),
                    Err(error) => self.fail(conn, Failure::new(body_code(error), error.to_string()), out),
                }
                return;
            }
            Request::Envelope(envelope) => envelope,
        };
        // A room that is not one's own is answered as one that does not exist.
        let not_found = |this: &Self, request: &str, room: RoomId, out: Out| {
            let failure = Failure::new(ErrorCode::NotFound, "There is no such room, or it is not for you.");
            this.fail(conn, Failure { request: Some(request.into()), room: Some(room), ..failure }, out);
        };
        match envelope {
            ClientEnvelope::Hello { .. } => {
                let failure = Failure::new(ErrorCode::HelloTwice, "This connection was welcomed already.");
                self.fail(conn, Failure { request: Some("hello".into()), ..failure }, out);
            }
            ClientEnvelope::Ping { n } => {
                self.send(conn, &ServerEnvelope::Pong { n, now: now + self.wall_offset }, out)
            }
            ClientEnvelope::Send { room, reference, body } => {
                let failure = if !self.is_member(conn, room) {
                    Failure::new(ErrorCode::NotMember, "Only members of a room can write in it.")
                } else {
                    match Body::parse(&body) {
                        Ok(body) => return self.say(now, asker, room, Some(reference), body, out),
                        Err(error) => Failure::new(body_code(error), error.to_string()),
                    }
                };
                self.fail(conn, of_send(failure, room, Some(reference)), out);
            }
            ClientEnvelope::Join { room, after } => match room.parse() {
                Ok(id) if self.is_member(conn, id) => {
                    let query = Query::RoomInfo { room: id, user };
                    self.ask(Pending::Reread { asker, room: id, after }, query, out);
                }
                _ => {
                    let query = Query::Join { room: RoomKey::parse(&room), user, rooms_max, at };
                    self.ask(Pending::Enter { asker, request: "join", user, peer: None, after }, query, out);
                }
            },
            ClientEnvelope::Create { name } => match RoomName::claim(&name) {
                Ok(name) => {
                    let id = RoomId::from_bits(self.rng.u64(..));
                    let query = Query::CreateRoom { id, name, user, rooms_max, at };
                    self.ask(
                        Pending::Enter { asker, request: "create", user, peer: None, after: None },
                        query,
                        out,
                    );
                }
                Err(error) => {
                    let failure = Failure::new(ErrorCode::NameInvalid, error.to_string());
                    self.fail(conn, Failure { request: Some("create".into()), ..failure }, out);
                }
            },
            ClientEnvelope::Direct { user: peer } => {
                let id = RoomId::from_bits(self.rng.u64(..));
                let query = Query::OpenDirect { id, user, peer, rooms_max, at };
                let pending =
                    Pending::Enter { asker, request: "direct", user, peer: Some(peer), after: None };
                self.ask(pending, query, out);
            }
            ClientEnvelope::Leave { room: LOBBY } => {
                let failure = Failure::new(ErrorCode::CannotLeave, "Nobody can leave the lobby.");
                self.fail(conn, Failure { request: Some("leave".into()), room: Some(LOBBY), ..failure }, out);
            }
            ClientEnvelope::Leave { room } => {
                self.ask(Pending::Leave { asker, room }, Query::Leave { room, user, at }, out);
            }
            ClientEnvelope::History { room, .. } if !self.is_member(conn, room) => {
                not_found(self, "history", room, out);
            }
            ClientEnvelope::History { room, before } => {
                let query = Query::EventsBefore { room, before, limit: PAGE_EVENTS_MAX };
                self.ask(Pending::History { asker, room, before }, query, out);
            }
            ClientEnvelope::Read { room, .. } if !self.is_member(conn, room) => {
                not_found(self, "read", room, out);
            }
            ClientEnvelope::Read { room, seq } => {
                self.ask(Pending::MarkRead { asker, room }, Query::MarkRead { room, user, seq }, out);
            }
            ClientEnvelope::Rename { name } => match UserName::claim(&name) {
                Ok(name) => {
                    let tell_lobby =
                        self.rooms.get(&LOBBY).is_some_and(|lobby| lobby.roster.online() <= CROWD);
                    let query = Query::Rename { user, name, tell_lobby, at };
                    self.ask(Pending::Rename(asker), query, out);
                }
                Err(error) => {
                    let failure = Failure::new(ErrorCode::NameInvalid, error.to_string());
                    self.fail(conn, Failure { request: Some("rename".into()), ..failure }, out);
                }
            },
            ClientEnvelope::Presence { presence } => {
                if let Some(session) = self.session_mut(conn) {
                    // A connection that says it is offline is here all the same.
                    session.presence = presence.max(Presence::Away);
                }
                self.tell_presence(user, false, out);
            }
            ClientEnvelope::Typing { room } => self.typing(now, conn, room, out),
            ClientEnvelope::Members { room } if !self.is_member(conn, room) => {
                not_found(self, "members", room, out);
            }
            ClientEnvelope::Members { room: LOBBY } => self.answer_members(conn, LOBBY, None, out),
            ClientEnvelope::Members { room } => {
                self.ask(Pending::Members { asker, room }, Query::Members { room, limit: LIST_MAX }, out);
            }
            ClientEnvelope::Directory => {
                self.ask(Pending::Directory(asker), Query::Directory { user, limit: LIST_MAX }, out);
            }
        }
    }

    fn is_member(&self, conn: Conn, room: RoomId) -> bool {
        self.user_of(conn).is_some_and(|present| present.rooms.contains(&room))
    }

    fn say(&mut self, now: Ms, asker: Asker, room: RoomId, reference: Option<Ref>, body: Body, out: Out) {
        if self.appends >= APPENDS_MAX {
            self.fail(asker.conn, of_send(unavailable(), room, reference), out);
            return;
        }
        let Some(present) = self.user_of(asker.conn) else { return };
        let author = present.user.clone();
        let at = now + self.wall_offset;
        let append = Append { room, author, at, kind: EventKind::Message { body }, reference };
        self.append(Pending::Send { asker, room, reference }, append, out);
    }

    fn typing(&mut self, now: Ms, conn: Conn, room: RoomId, out: Out) {
        let is_crowd = self.rooms.get(&room).is_none_or(|room| room.roster.online() > CROWD);
        let Some(session) = self.session_mut(conn) else { return };
        if is_crowd || !session.listens_to(room) || now - session.typing_at < TYPING_EVERY_MS {
            return;
        }
        session.typing_at = now;
        let Some(present) = self.user_of(conn) else { return };
        let hint = Hint::Typing { room, user: present.user.clone() };
        out.push(Effect::Publish { topic: Topic::Room(room), hint });
    }

    // Answers of the store.

    fn appended(&mut self, pending: Pending, result: Result<Appended, StoreError>, out: Out) {
        match (pending, result) {
            (Pending::Send { asker, .. }, Ok(Appended { event, first })) => {
                if let Some(reference) = event.reference.filter(|_| self.asked(asker).is_some()) {
                    let Event { room, seq, at, .. } = event;
                    self.send(asker.conn, &ServerEnvelope::Ack { reference, room, seq, at }, out);
                }
                if first {
                    publish_events(vec![event], out);
                }
            }
            (Pending::Send { asker, room, reference }, Err(error)) => {
                if self.asked(asker).is_some() {
                    self.fail(asker.conn, of_send(explain(&error), room, reference), out);
                }
            }
            (_, Ok(appended)) => publish_events(vec![appended.event], out),
            (_, Err(_)) => {}
        }
    }

    fn answered(&mut self, now: Ms, pending: Pending, answer: Result<Answer, StoreError>, out: Out) {
        match (pending, answer) {
            (Pending::Identify(asker), Ok(Answer::Identity(identity))) => {
                self.identified(now, asker, identity, out);
            }
            (Pending::Identify(asker), _) => {
                if self.asked(asker).is_some() {
                    out.push(Effect::Close { conn: asker.conn, code: CloseCode::TryLater });
                }
            }
            (Pending::Load(id), Ok(Answer::Page(page))) => self.room_loaded(now, id, page, out),
            (Pending::Fetch(id), Ok(Answer::Page(page))) => self.room_fetched(id, page, out),
            (Pending::Load(id) | Pending::Fetch(id), _) => {
                if let Some(room) = self.rooms.get_mut(&id) {
                    room.refetch = true;
                    self.refetch.insert(id);
                }
            }
            (Pending::Heads, Ok(Answer::Heads(heads))) => {
                for (id, _, head) in heads {
                    if self.rooms.get(&id).is_some_and(|room| room.loaded && room.applied < head) {
                        self.fetch(id, out);
                    }
                }
            }
            (Pending::Heads, _) => {}
            (Pending::Enter { asker, user, peer, after, .. }, Ok(Answer::Entered(entered))) => {
                let users = [Some(user), peer.filter(|peer| *peer != user)];
                tell_membership(&entered, users.into_iter().flatten(), out);
                self.entered(now, asker, after, entered, out);
            }
            (Pending::Reread { asker, after, .. }, Ok(Answer::Info(info))) => {
                if self.asked(asker).is_some() {
                    self.answer_join(asker.conn, info, after, None, out);
                }
            }
            (Pending::Replay { asker, info, after }, Ok(Answer::Page(page))) => {
                self.replayed(asker, info, after, page, out);
            }
            (Pending::Replay { asker, info, .. }, Err(error)) => {
                self.refuse(asker, "join", Some(info.id), &error, out);
            }
            (Pending::History { asker, room, before }, Ok(Answer::Page(page))) => {
                if self.asked(asker).is_some() {
                    let events = page.events;
                    self.send(asker.conn, &ServerEnvelope::History { room, before, events }, out);
                }
            }
            (Pending::Leave { asker, room }, Ok(Answer::Left(event))) => {
                self.left(asker, room, event, out);
            }
            (Pending::Rename(_), Ok(Answer::Renamed(user, events))) => {
                publish_events(events, out);
                let hint = Hint::Renamed { user: user.clone() };
                out.push(Effect::Publish { topic: Topic::User(user.id), hint });
            }
            (Pending::MarkRead { asker, room }, Ok(Answer::Read(seq, unread))) => {
                if let Some(user) = self.asked(asker).and_then(|session| session.user) {
                    let hint = Hint::Read { user, room, seq, unread };
                    out.push(Effect::Publish { topic: Topic::User(user), hint });
                }
            }
            (Pending::Members { asker, room }, Ok(Answer::Members(users, total))) => {
                if self.asked(asker).is_some() {
                    self.answer_members(asker.conn, room, Some((users, total)), out);
                }
            }
            (Pending::Directory(asker), Ok(Answer::Directory(rooms))) => {
                if self.asked(asker).is_some() {
                    self.send(asker.conn, &ServerEnvelope::Directory { rooms }, out);
                }
            }
            (Pending::Attach { user, room }, Ok(Answer::Info(info))) => {
                debug_assert_eq!(room, info.id);
                self.attach_when_loaded(now, user, info, out);
            }
            (Pending::Attach { .. }, _) => {}
            (Pending::Enter { asker, request, .. }, Err(error)) => {
                self.refuse(asker, request, None, &error, out);
            }
            (Pending::Reread { asker, room, .. }, Err(error)) => {
                self.refuse(asker, "join", Some(room), &error, out);
            }
            (Pending::History { asker, room, .. }, Err(error)) => {
                self.refuse(asker, "history", Some(room), &error, out);
            }
            (Pending::Leave { asker, room }, Err(error)) => {
                self.refuse(asker, "leave", Some(room), &error, out);
            }
            (Pending::Rename(asker), Err(error)) => self.refuse(asker, "rename", None, &error, out),
            (Pending::MarkRead { asker, room }, Err(error)) => {
                self.refuse(asker, "read", Some(room), &error, out);
            }
            (Pending::Members { asker, room }, Err(error)) => {
                self.refuse(asker, "members", Some(room), &error, out);
            }
            (Pending::Directory(asker), Err(error)) => self.refuse(asker, "directory", None, &error, out),
            (pending, Ok(answer)) => debug_assert!(false, "{pending:?} was answered with {answer:?}"),
            (Pending::Send { .. } | Pending::Note, Err(_)) => {}
        }
    }

    fn refuse(&self, asker: Asker, request: &str, room: Option<RoomId>, error: &StoreError, out: Out) {
        if self.asked(asker).is_some() {
            self.fail(asker.conn, Failure { request: Some(request.into()), room, ..explain(error) }, out);
        }
    }

    // Rooms.

    /// The room's state here; a room that is new here is followed and loaded.
    fn follow(&mut self, now: Ms, id: RoomId, out: Out) -> &mut Room {
        if !self.rooms.contains_key(&id) {
            out.push(Effect::Follow(Topic::Room(id)));
            let query = Query::EventsBefore { room: id, before: Seq::MAX, limit: PAGE_EVENTS_MAX };
            self.ask(Pending::Load(id), query, out);
            let hint = Hint::PresenceWanted { origin: self.id, room: id };
            out.push(Effect::Publish { topic: Topic::Room(id), hint });
        }
        let room = self.rooms.entry(id).or_insert_with(|| Room::new(now));
        room.idle_since = now;
        room
    }

    fn room_loaded(&mut self, now: Ms, id: RoomId, page: Page, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| !room.loaded) else { return };
        let delivered = room.load(page.epoch, page.head, page.events);
        let has_hole = room.has_hole();
        let waiting = std::mem::take(&mut room.waiting);
        deliver(id, &delivered, out);
        if has_hole {
            self.fetch(id, out);
        }
        for waiter in waiting {
            match waiter {
                Waiter::Welcome(asker) => {
                    let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial)
                    else {
                        continue;
                    };
                    let Phase::Starting(starting) = &mut session.phase else { continue };
                    starting.rooms_missing -= 1;
                    if starting.rooms_missing == 0 {
                        self.welcome(now, asker.conn, out);
                    }
                }
                Waiter::Join { asker, info, after } => {
                    if self.asked(asker).is_some() {
                        self.listen(asker.conn, info.id);
                        self.answer_join(asker.conn, info, after, None, out);
                    }
                }
                Waiter::Attach { user, info } => self.attach(user, info, out),
            }
        }
    }

    fn room_fetched(&mut self, id: RoomId, page: Page, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded) else { return };
        room.fetching = false;
        for event in page.events {
            let delivered = room.apply(Arc::new(event));
            deliver(id, &delivered, out);
        }
        if room.has_hole() || room.applied < page.head {
            self.fetch(id, out);
        }
    }

    /// Reads what a room lacks, one read at a time.
    fn fetch(&mut self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded && !room.fetching) else { return };
        room.fetching = true;
        let query = Query::EventsAfter { room: id, after: room.applied, limit: PAGE_EVENTS_MAX };
        self.ask(Pending::Fetch(id), query, out);
    }

    /// Makes a connection a listener of a room that is loaded.
    fn listen(&mut self, conn: Conn, id: RoomId) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let Some(session) = self.sessions.get_mut(conn as usize).and_then(Option::as_mut) else { return };
        if session.listens_to(id) {
            return;
        }
        let list = match session.mode {
            Mode::Full => &mut room.full,
            Mode::Plain if id == LOBBY => &mut room.plain,
            Mode::Plain => return,
        };
        session.rooms.push((id, list.len() as u32));
        list.push(conn);
    }

    fn forget_listener(&mut self, now: Ms, id: RoomId, mode: Mode, place: u32) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let list = if mode == Mode::Full { &mut room.full } else { &mut room.plain };
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize).copied() {
            let session = self.sessions.get_mut(moved as usize).and_then(Option::as_mut);
            let entry = session.and_then(|session| session.rooms.iter_mut().find(|(room, _)| *room == id));
            if let Some(entry) = entry {
                entry.1 = place;
            }
        }
        if !room.has_listeners() {
            room.idle_since = now;
        }
    }

    /// Answers a `join`, or one room of a `resume`, of a connection that listens to the room.
    fn answer_join(&mut self, conn: Conn, info: RoomInfo, after: Option<Seq>, epoch: Option<u32>, out: Out) {
        let Some(user) = self.session(conn).and_then(|session| session.user) else { return };
        let info = self.current_info(info, user);
        let Some(room) = self.rooms.get(&info.id) else { return };
        match room.replay(after, epoch) {
            Replay::Events { events, gap } => self.send_joined(conn, info, after, events, gap, out),
            Replay::Read(seq) => {
                let Some(session) = self.session(conn) else { return };
                let asker = Asker { conn, serial: session.serial };
                let query = Query::EventsAfter { room: info.id, after: seq, limit: PAGE_EVENTS_MAX };
                self.ask(Pending::Replay { asker, info, after: seq }, query, out);
            }
        }
    }

    /// The part of a replay that was not in memory is here: what is in memory is put behind it.
    fn replayed(&mut self, asker: Asker, info: RoomInfo, after: Seq, page: Page, out: Out) {
        let Some(user) = self.asked(asker).and_then(|session| session.user) else { return };
        let info = self.current_info(info, user);
        let mut events = page.events;
        // What the store has and this hub has not yet delivered will come as events.
        if let Some(room) = self.rooms.get(&info.id) {
            events.retain(|event| event.seq <= room.applied);
            let last = events.last().map_or(after, |event| event.seq);
            let space = PAGE_EVENTS_MAX - events.len();
            events.extend(room.after(last).unwrap_or_default().into_iter().take(space));
        }
        self.send_joined(asker.conn, info, Some(after), events, false, out);
    }

    fn send_joined(
        &self,
        conn: Conn,
        info: RoomInfo,
        after: Option<Seq>,
        events: Vec<Event>,
        gap: bool,
        out: Out,
    ) {
        let (room, epoch, head) = (info.id, info.epoch, info.head);
        self.send(conn, &ServerEnvelope::Joined { room, epoch, head, events, gap, after, info }, out);
    }

    fn entered(&mut self, now: Ms, asker: Asker, after: Option<Seq>, entered: Entered, out: Out) {
        let Entered { info, events } = entered;
        publish_events(events, out);
        let id = info.id;
        let Some(user) = self.asked(asker).and_then(|session| session.user) else { return };
        if let Some(present) = self.users.get_mut(&user).filter(|present| !present.rooms.contains(&id)) {
            present.rooms.push(id);
        }
        let room = self.follow(now, id, out);
        if room.loaded {
            self.listen(asker.conn, id);
            self.answer_join(asker.conn, info, after, None, out);
        } else {
            room.waiting.push(Waiter::Join { asker, info, after });
        }
        self.tell_presence_in(user, id, out);
    }

    fn attach_when_loaded(&mut self, now: Ms, user: UserId, info: RoomInfo, out: Out) {
        let Some(present) = self.users.get_mut(&user) else { return };
        if !present.rooms.contains(&info.id) {
            present.rooms.push(info.id);
        }
        let room = self.follow(now, info.id, out);
        if room.loaded {
            self.attach(user, info, out);
        } else {
            room.waiting.push(Waiter::Attach { user, info });
        }
    }

    /// Puts all connections of a user into a room they entered elsewhere.
    fn attach(&mut self, user: UserId, info: RoomInfo, out: Out) {
        let Some(present) = self.users.get(&user) else { return };
        for conn in present.conns.clone() {
            let is_full = self.session(conn).is_some_and(|session| {
                session.is_ready() && session.mode == Mode::Full && !session.listens_to(info.id)
            });
            if is_full {
                self.listen(conn, info.id);
                self.answer_join(conn, info.clone(), None, None, out);
            }
        }
        self.tell_presence_in(user, info.id, out);
    }

    fn left(&mut self, asker: Asker, room: RoomId, event: Option<Event>, out: Out) {
        let Some(event) = event else {
            if self.asked(asker).is_some() {
                self.send(asker.conn, &ServerEnvelope::Left { room }, out);
            }
            return;
        };
        let user = event.user.id;
        publish_events(vec![event], out);
        let hint = Hint::Membership { user, room, member: false };
        out.push(Effect::Publish { topic: Topic::User(user), hint });
    }

    // Hints.

    fn hint(&mut self, now: Ms, hint: Hint, out: Out) {
        match hint {
            Hint::Event(event) => {
                let id = event.room;
                let Some(room) = self.rooms.get_mut(&id) else { return };
                let delivered = room.apply(event);
                deliver(id, &delivered, out);
                if room.has_hole() {
                    self.fetch(id, out);
                }
            }
            Hint::Presence { origin, room, user, presence } => {
                self.presence_in(origin, room, user, presence, out);
            }
            Hint::PresenceWanted { origin, room } => {
                if origin != self.id {
                    self.tell_all_presence_in(room, out);
                }
            }
            Hint::Typing { room, user } => {
                let full = Some(encode(&ServerEnvelope::Typing { room, user }));
                out.push(Effect::Fanout { room, full, plain: None });
            }
            Hint::Read { user, room, seq, unread } => {
                self.to_user(user, &ServerEnvelope::Read { room, seq, unread }, out);
            }
            Hint::Renamed { user } => {
                let Some(present) = self.users.get_mut(&user.id) else { return };
                present.user = user.clone();
                self.to_user(user.id, &ServerEnvelope::Renamed { user: user.clone() }, out);
                self.tell_presence(user.id, true, out);
            }
            Hint::Membership { user, room, member: true } => {
                let Some(present) = self.users.get(&user) else { return };
                let is_everywhere = present
                    .conns
                    .iter()
                    .filter_map(|conn| self.session(*conn))
                    .all(|session| session.mode == Mode::Plain || session.listens_to(room));
                if !is_everywhere || !present.rooms.contains(&room) {
                    self.ask(Pending::Attach { user, room }, Query::RoomInfo { room, user }, out);
                }
            }
            Hint::Membership { user, room, member: false } => self.detach(now, user, room, out),
            Hint::Announcement { text, at } => {
                let plain = encode(&PlainMessage { sender: SERVER_NAME.into(), message: text.clone() });
                let full = encode(&ServerEnvelope::Announcement { text, at });
                out.push(Effect::Everyone { full, plain });
            }
        }
    }

    fn detach(&mut self, now: Ms, user: UserId, room: RoomId, out: Out) {
        let Some(present) = self.users.get_mut(&user) else { return };
        present.rooms.retain(|other| *other != room);
        let author = present.user.clone();
        for conn in present.conns.clone() {
            let Some(session) = self.session_mut(conn) else { continue };
            let mode = session.mode;
            if let Some(at) = session.rooms.iter().position(|(other, _)| *other == room) {
                let (_, place) = session.rooms.swap_remove(at);
                self.forget_listener(now, room, mode, place);
                self.send(conn, &ServerEnvelope::Left { room }, out);
            }
        }
        let presence = Presence::Offline;
        let hint = Hint::Presence { origin: self.id, room, user: author, presence };
        out.push(Effect::Publish { topic: Topic::Room(room), hint });
    }

    // Presence.

    /// Tells a user's rooms how present they are, if that changed (or `again`).
    fn tell_presence(&mut self, user: UserId, again: bool, out: Out) {
        let Some(present) = self.users.get(&user) else { return };
        let sessions = present.conns.iter().filter_map(|conn| self.session(*conn));
        let presence = sessions.map(|session| session.presence).max().unwrap_or_default();
        let Some(present) = self.users.get_mut(&user) else { return };
        if present.told == presence && !again {
            return;
        }
        present.told = presence;
        for room in &present.rooms {
            let hint = Hint::Presence { origin: self.id, room: *room, user: present.user.clone(), presence };
            out.push(Effect::Publish { topic: Topic::Room(*room), hint });
        }
    }

    fn tell_presence_in(&self, user: UserId, room: RoomId, out: Out) {
        let Some(present) = self.users.get(&user) else { return };
        let (user, presence) = (present.user.clone(), present.told);
        let hint = Hint::Presence { origin: self.id, room, user, presence };
        out.push(Effect::Publish { topic: Topic::Room(room), hint });
    }

    /// Another hub began to follow a room: it hears who is there.
    fn tell_all_presence_in(&self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get(&id) else { return };
        let conns = room.full.iter().chain(&room.plain);
        let users: HashSet<UserId> = conns.filter_map(|conn| self.session(*conn)?.user).collect();
        for user in users {
            self.tell_presence_in(user, id, out);
        }
    }

    fn presence_in(&mut self, origin: HubId, id: RoomId, user: User, presence: Presence, out: Out) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let was = room.roster.presence(user.id);
        room.roster.set(origin, &user, presence);
        if room.roster.is_dirty() {
            self.presence_due.insert(id);
        }
        let is_gone = was != Presence::Offline && room.roster.presence(user.id) == Presence::Offline;
        if is_gone && (1..=PLAIN_CROWD).contains(&room.plain.len()) {
            let message = PlainMessage { sender: user.name.to_string(), message: PLAIN_LEFT.into() };
            out.push(Effect::Fanout { room: id, full: None, plain: Some(encode(&message)) });
        }
    }

    fn flush_presence(&mut self, now: Ms, out: Out) {
        let rooms = &mut self.rooms;
        self.presence_due.retain(|id| {
            let Some(room) = rooms.get_mut(id) else { return false };
            let is_crowd = room.roster.online() > CROWD;
            let every = if is_crowd { PRESENCE_CROWD_EVERY_MS } else { PRESENCE_EVERY_MS };
            if now - room.presence_told < every {
                return true;
            }
            room.presence_told = now;
            let mut people = room.roster.take_changes();
            if is_crowd {
                people.clear();
            } else if people.is_empty() {
                return false;
            }
            if !room.full.is_empty() {
                let online = room.roster.online() as u32;
                let full = Some(encode(&ServerEnvelope::Presence { room: *id, online, people }));
                out.push(Effect::Fanout { room: *id, full, plain: None });
            }
            false
        });
    }

    /// The people of a room: its members as the store knows them, or, in the lobby, those present.
    fn answer_members(&self, conn: Conn, id: RoomId, members: Option<(Vec<User>, u32)>, out: Out) {
        let Some(room) = self.rooms.get(&id) else { return };
        let online = room.roster.online() as u32;
        let mut people: Vec<Person> = room.roster.people().collect();
        let total = match members {
            None => online,
            Some((users, total)) => {
                let absent =
                    users.into_iter().filter(|user| room.roster.presence(user.id) == Presence::Offline);
                people.extend(absent.map(|user| Person { user, presence: Presence::Offline }));
                total
            }
        };
        people.sort_by(|a, b| {
            b.presence.cmp(&a.presence).then_with(|| a.user.name.as_str().cmp(b.user.name.as_str()))
        });
        people.truncate(LIST_MAX);
        self.send(conn, &ServerEnvelope::Members { room: id, online, total, people }, out);
    }

    // Time.

    fn tick(&mut self, now: Ms, out: Out) {
        let due = |user: &&UserId| {
            self.users.get(user).is_none_or(|present| present.absent_at.is_some_and(|at| at <= now))
        };
        for user in self.absent.iter().filter(due).copied().collect::<Vec<_>>() {
            self.gone(user, out);
        }
        self.flush_presence(now, out);
        if now - self.heads_at >= HEADS_EVERY_MS {
            self.heads_at = now;
            for id in std::mem::take(&mut self.refetch) {
                self.read_again(id, out);
            }
            if self.lossy && !self.rooms.is_empty() {
                let rooms = self.rooms.keys().copied().collect();
                self.ask(Pending::Heads, Query::Heads { rooms }, out);
            }
        }
        if now - self.sweep_at >= ROOM_IDLE_MS {
            self.sweep_at = now;
            self.rooms.retain(|id, room| {
                let keep =
                    room.has_listeners() || !room.waiting.is_empty() || now - room.idle_since < ROOM_IDLE_MS;
                if !keep {
                    out.push(Effect::Unfollow(Topic::Room(*id)));
                }
                keep
            });
        }
    }

    /// Repeats a read of the store that failed.
    fn read_again(&mut self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.refetch) else {
            return;
        };
        room.refetch = false;
        if room.loaded {
            room.fetching = false;
            self.fetch(id, out);
        } else {
            let query = Query::EventsBefore { room: id, before: Seq::MAX, limit: PAGE_EVENTS_MAX };
            self.ask(Pending::Load(id), query, out);
        }
    }

    // Sending.

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
}

/// Sends events that are in order to a room's listeners.
fn deliver(room: RoomId, events: &[Arc<Event>], out: Out) {
    for event in events {
        let plain = match &event.kind {
            EventKind::Message { body } => Some(encode(&PlainMessage {
                sender: event.user.name.to_string(),
                message: body.as_str().to_owned(),
            })),
            _ => None,
        };
        let full = Some(encode(&ServerEnvelope::Event((**event).clone())));
        out.push(Effect::Fanout { room, full, plain });
    }
}

/// Tells all connections of those who are in a room from now on.
fn tell_membership(entered: &Entered, users: impl Iterator<Item = UserId>, out: Out) {
    if entered.events.is_empty() {
        return;
    }
    for user in users {
        let hint = Hint::Membership { user, room: entered.info.id, member: true };
        out.push(Effect::Publish { topic: Topic::User(user), hint });
    }
}

/// Tells all hubs, this one too, of events that were committed.
fn publish_events(events: Vec<Event>, out: Out) {
    for event in events {
        let topic = Topic::Room(event.room);
        out.push(Effect::Publish { topic, hint: Hint::Event(Arc::new(event)) });
    }
}

fn body_code(error: BadBody) -> ErrorCode {
    match error {
        BadBody::Empty => ErrorCode::BodyEmpty,
        BadBody::TooLong => ErrorCode::BodyTooLong,
    }
}

fn unavailable() -> Failure {
    let failure = Failure::new(ErrorCode::Unavailable, "The server cannot do that now. Try again soon.");
    Failure { retry_ms: Some(UNAVAILABLE_RETRY_MS), ..failure }
}

fn explain(error: &StoreError) -> Failure {
    match error {
        StoreError::NotFound => {
            Failure::new(ErrorCode::NotFound, "There is no such room or user, or it is not for you.")
        }
        StoreError::NameTaken => {
            Failure::new(ErrorCode::NameTaken, "Somebody has that name, or one that looks like it.")
        }
        StoreError::TooManyRooms => Failure::new(ErrorCode::TooManyRooms, "You are in too many rooms."),
        StoreError::NotMember => {
            Failure::new(ErrorCode::NotMember, "Only members of a room can write in it.")
        }
        StoreError::Unavailable(_) => unavailable(),
    }
}

fn of_send(failure: Failure, room: RoomId, reference: Option<Ref>) -> Failure {
    Failure { reference, request: Some("send".into()), room: Some(room), ..failure }
}

/// Says which request a failure is about.
fn about(request: Option<&Request>, failure: Failure) -> Failure {
    let Some(Request::Envelope(envelope)) = request else { return failure };
    if let ClientEnvelope::Send { room, reference, .. } = envelope {
        return of_send(failure, *room, Some(*reference));
    }
    Failure { request: Some(envelope.type_name().into()), ..failure }
}
