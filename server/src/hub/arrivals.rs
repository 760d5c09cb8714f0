//! Connections come, are told who they are and what they missed, and go.

use shared::acts::Scope;
use shared::model::{LOBBY, Ms, RoomId, UserId};
use shared::protocol::{
    CROWD, CloseCode, ErrorCode, EventKind, Failure, Limits, Presence, Resume, RoomInfo, ServerEnvelope,
    UNREAD_MAX, User,
};

use super::answers::forbidden;
use super::rates::Rates;
use super::session::{Grant, Mode, Phase, Session, Starting, Stranger};
use super::{
    ABSENCE_GRACE_MS, Arrival, Asker, Conn, Effect, Hub, HubConfig, Out, Pending, Present, Query,
    RESUME_BYTES_MAX, Ticket, Waiter,
};
use crate::broker::Topic;
use crate::names;
use crate::store::{Account, Append, Identity, NewSession, Newcomer};

impl Hub {
    pub(super) fn connected(&mut self, now: Ms, conn: Conn, mode: Mode, arrival: Arrival, out: Out) {
        let place = conn as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, || None);
        }
        debug_assert!(self.sessions[place].is_none(), "connection numbers are free when given again");
        self.serial += 1;
        self.sessions[place] = Some(Session::new(self.serial, mode, arrival));
        if mode == Mode::Plain {
            self.start(now, conn, Vec::new(), out);
        }
    }

    /// Asks the store who a connection is.
    pub(super) fn start(&mut self, now: Ms, conn: Conn, resume: Vec<Resume>, out: Out) {
        let id = UserId::from_bits(self.rng.u64(..));
        let names = names::candidates(&mut self.rng);
        let at = now + self.wall_offset;
        let until = at + self.config.session_ms;
        self.note_use(conn);
        let Some(session) = self.session_mut(conn) else { return };
        let starting = Phase::Starting(Box::new(Starting { resume, ..Starting::default() }));
        let Phase::New(stranger) = std::mem::replace(&mut session.phase, starting) else { return };
        let Stranger { may_be_new, device } = *stranger;
        let asker = Asker { conn, serial: session.serial };
        let session = NewSession { token: session.token, device, at, until };
        let newcomer = may_be_new.then_some(Newcomer { id, names });
        self.ask(Pending::Identify(asker), Query::Identify { session, newcomer }, out);
    }

    pub(super) fn identified(&mut self, now: Ms, ticket: Ticket, asker: Asker, identity: Identity, out: Out) {
        let wall_offset = self.wall_offset;
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.is_fresh = identity.fresh;
        starting.is_identified = true;
        // On the hub's own clock: setting the clock of the machine ends nobody's session.
        let left = |until: Ms| until.saturating_sub(now.saturating_add(wall_offset));
        session.ends_at = identity.until.map_or(Ms::MAX, |until| now.saturating_add(left(until)));
        session.grant =
            identity.scopes.map(|scopes| Box::new(Grant { scopes, only_room: identity.only_room }));
        let token = session.token;
        self.doubt_identity(now, ticket, token, out);
        self.ask_account_when_followed(now, asker, identity.user, out);
    }

    /// Only what the store says after the user is followed is followed by all that changes later: the broker
    /// says when that is so.
    fn ask_account_when_followed(&mut self, now: Ms, asker: Asker, user: User, out: Out) {
        let id = user.id;
        if !self.users.contains_key(&id) {
            self.follow_user(now, user, out);
        }
        if self.users.get(&id).is_some_and(|present| present.is_heard_of) {
            self.ask_account(asker, id, out);
        } else {
            self.unheard_of.entry(id).or_insert_with(|| (now, Vec::new())).1.push(asker);
        }
    }

    /// Asks for all that a user is in.
    pub(super) fn ask_account(&mut self, asker: Asker, user: UserId, out: Out) {
        let asked_at = self.serial + 1;
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.asked_at = asked_at;
        self.ask(Pending::Account(asker), Query::Account { user }, out);
    }

    pub(super) fn account_read(&mut self, now: Ms, asker: Asker, account: Account, out: Out) {
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        let asked_at = starting.asked_at;
        let user = account.user.id;
        match self.users.get(&user) {
            // What changed since was heard, and nothing did.
            Some(present) if present.changed_at <= asked_at => {}
            Some(_) => return self.ask_account(asker, user, out),
            // That took so long that the user was put away again.
            None => return self.ask_account_when_followed(now, asker, account.user, out),
        }
        let ids: Vec<RoomId> = account.rooms.iter().map(|info| info.id).collect();
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
        starting.account = Some(account);
        starting.rooms_missing = missing;
        if missing == 0 {
            self.welcome(now, asker.conn, out);
        }
    }

    /// Begins to hear what concerns a user. Without a connection of theirs that ends after a while.
    fn follow_user(&mut self, now: Ms, user: User, out: Out) {
        out.push(Effect::Follow(Topic::User(user.id)));
        self.absent.insert(user.id);
        let present = Present {
            user: user.clone(),
            conns: Vec::with_capacity(1),
            rooms: Vec::new(),
            blocked: Vec::new(),
            role: None,
            rates: Rates::default(),
            told: Presence::Offline,
            absent_at: Some(now + ABSENCE_GRACE_MS),
            changed_at: 0,
            is_heard_of: !self.lossy,
        };
        self.users.insert(user.id, present);
    }

    /// Everything a session needs is here: it becomes one of its rooms' listeners and is welcomed.
    pub(super) fn welcome(&mut self, now: Ms, conn: Conn, out: Out) {
        if self.is_void(now, conn) {
            return self.expel(now, conn, CloseCode::Policy, out);
        }
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        let Some(account) = starting.account.take() else { return };
        let asked_at = starting.asked_at;
        let asker = Asker { conn, serial: session.serial };
        let user = account.user.id;
        if self.users.get(&user).is_none_or(|user| user.changed_at > asked_at) {
            // Something changed while rooms were loaded.
            return self.ask_account(asker, user, out);
        }
        let conns_max = self.config.connections_per_user;
        if conns_max > 0 && self.users.get(&user).is_some_and(|user| user.conns.len() >= conns_max) {
            let failure = Failure::new(ErrorCode::TooMany, "You have too many connections open. Close one.");
            self.fail(conn, Failure { request: Some("hello".into()), ..failure }, out);
            return self.expel(now, conn, CloseCode::RateLimited, out);
        }
        // The store was asked after all that was heard here: it knows best, also of a lost hint.
        let new = self.reconcile(now, &account, out);
        let Account { user, role, rooms, blocked } = account;
        if let Some(present) = self.users.get_mut(&user.id) {
            present.rooms = rooms.iter().map(|info| info.id).collect();
        }
        let is_here = |info: &RoomInfo| self.rooms.get(&info.id).is_some_and(|room| room.loaded);
        let current =
            rooms.into_iter().map(|info| self.current_info(info, user.id).filter(is_here)).collect();
        let Some(rooms): Option<Vec<RoomInfo>> = current else {
            // The hub knows too little of what happened since, or it took so long that a room was put away.
            return self.ask_account(asker, user.id, out);
        };
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = std::mem::replace(&mut session.phase, Phase::Ready) else { return };
        let Starting { resume, early, is_fresh, .. } = *starting;
        let mode = session.mode;
        session.user = Some(user.id);
        let rooms: Vec<RoomInfo> = rooms.into_iter().filter(|info| session.is_for(info.id)).collect();
        self.absent.remove(&user.id);
        if let Some(present) = self.users.get_mut(&user.id) {
            present.conns.push(conn);
            present.absent_at = None;
        }
        self.note_end(conn);
        for info in &rooms {
            self.listen(conn, info.id);
        }
        let known: Vec<RoomId> = rooms.iter().map(|info| info.id).collect();
        if mode == Mode::Full {
            let HubConfig { rooms_per_user, message_chars, frame_bytes, .. } = self.config;
            let limits =
                Limits { body_chars: message_chars, frame_bytes, rooms_per_user, ..Limits::default() };
            let now = now + self.wall_offset;
            let user = user.clone();
            self.send(conn, &ServerEnvelope::Welcome { user, role, rooms, blocked, limits, now }, out);
        }
        let was = self.users.get(&user.id).map(|present| present.told);
        self.tell_presence(user.id, false, out);
        if was == self.users.get(&user.id).map(|present| present.told) {
            for room in new {
                self.tell_presence_in(user.id, room, out);
            }
        }
        let lobby_is_small = self.rooms.get(&LOBBY).is_some_and(|lobby| lobby.roster.online() <= CROWD);
        if is_fresh && lobby_is_small {
            self.note_in_lobby(now, user.clone(), EventKind::Joined, out);
        }
        self.resume(conn, &known, resume, out);
        for request in early {
            self.request_ready(now, conn, request, out);
        }
    }

    /// Answers each room of a `hello`, as long as that is not too much at once.
    fn resume(&mut self, conn: Conn, known: &[RoomId], resume: Vec<Resume>, out: Out) {
        let before = out.len();
        for Resume { room, epoch, seq } in resume {
            let texts = out[before..].iter().map(|effect| match effect {
                Effect::Share { text, .. } => text.text().len(),
                _ => 0,
            });
            if texts.sum::<usize>() > RESUME_BYTES_MAX {
                break;
            }
            let Some(session) = self.session(conn) else { return };
            let asker = Asker { conn, serial: session.serial };
            let failure = if !session.has(Scope::Read) {
                forbidden()
            } else if known.contains(&room) {
                self.answer_resume(asker, room, epoch, seq, out);
                continue;
            } else {
                Failure::new(ErrorCode::NotFound, "You are not in that room.")
            };
            self.fail(conn, Failure { room: Some(room), request: Some("hello".into()), ..failure }, out);
        }
    }

    pub(super) fn note_in_lobby(&mut self, now: Ms, author: User, kind: EventKind, out: Out) {
        let at = now + self.wall_offset;
        let append = Append { room: LOBBY, author, at, kind, reference: None };
        self.append(Pending::Note, append, out);
    }

    /// Brings what the store said of a room up to what this hub has delivered since. `None` if only the store
    /// can say how the room looks to the reader now.
    pub(super) fn current_info(&self, mut info: RoomInfo, reader: UserId) -> Option<RoomInfo> {
        if let Some(room) = self.rooms.get(&info.id).filter(|room| room.applied > info.head) {
            let blocked = self.users.get(&reader).map_or(&[][..], |present| &present.blocked);
            let (unread, mentioned) = room.news(&info, reader, blocked)?;
            info.unread = (info.unread + unread).min(UNREAD_MAX);
            info.mentioned = (info.mentioned + mentioned).min(info.unread);
            info.head = room.applied;
        }
        Some(info)
    }

    pub(super) fn closed(&mut self, now: Ms, conn: Conn, out: Out) {
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
            let is_told = self.rooms.get(&LOBBY).is_some_and(|lobby| {
                lobby.roster.online() <= CROWD && !lobby.roster.is_present_elsewhere(user, self.id)
            });
            if is_told {
                self.note_in_lobby(now, author, EventKind::Left, out);
            }
            self.gone(user, out);
        } else {
            self.absent.insert(user);
        }
    }

    /// A user without connections is now known to be away for good.
    pub(super) fn gone(&mut self, user: UserId, out: Out) {
        self.tell_presence_as(user, Presence::Offline, false, out);
        self.absent.remove(&user);
        self.users.remove(&user);
        self.unheard_of.remove(&user);
        out.push(Effect::Unfollow(Topic::User(user)));
    }
}
