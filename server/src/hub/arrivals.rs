//! Connections come, are told who they are and what they missed, and go.

use shared::model::{LOBBY, Line, Ms, RoomId, UserId};
use shared::protocol::{
    CROWD, ErrorCode, EventKind, Failure, Limits, Presence, Resume, RoomInfo, ServerEnvelope, UNREAD_MAX,
    User,
};

use super::session::{Mode, Phase, Session, Starting};
use super::{
    ABSENCE_GRACE_MS, Arrival, Asker, Conn, Effect, Hub, HubConfig, Out, Pending, Present, Query,
    RESUME_BYTES_MAX, Waiter,
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
        self.sessions[place] = Some(Session::new(self.serial, mode, arrival.token, arrival.ephemeral));
        if mode == Mode::Plain {
            self.start(now, conn, Vec::new(), out);
        }
    }

    /// Asks the store who a connection is.
    pub(super) fn start(&mut self, now: Ms, conn: Conn, resume: Vec<Resume>, out: Out) {
        let id = UserId::from_bits(self.rng.u64(..));
        let names = names::candidates(&mut self.rng);
        let at = now + self.wall_offset;
        let Some(session) = self.session_mut(conn) else { return };
        session.phase = Phase::Starting(Box::new(Starting { resume, ..Starting::default() }));
        let asker = Asker { conn, serial: session.serial };
        let session = NewSession { token: session.token, device: Line::default(), at, until: Ms::MAX };
        let query = Query::Identify { session, newcomer: Some(Newcomer { id, names }) };
        self.ask(Pending::Identify(asker), query, out);
    }

    pub(super) fn identified(&mut self, now: Ms, asker: Asker, identity: Identity, out: Out) {
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.is_fresh = identity.fresh;
        let user = identity.user.id;
        if !self.users.contains_key(&user) {
            self.follow_user(now, identity.user, out);
        }
        self.ask_account(asker.conn, user, out);
    }

    /// Asks for all that a user is in. Only what the store says after the user is followed is followed by all
    /// that changes later.
    fn ask_account(&mut self, conn: Conn, user: UserId, out: Out) {
        let asked_at = self.serial + 1;
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.asked_at = asked_at;
        let asker = Asker { conn, serial: session.serial };
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
            Some(_) => return self.ask_account(asker.conn, user, out),
            // That took so long that the user was put away again.
            None => {
                self.follow_user(now, account.user, out);
                return self.ask_account(asker.conn, user, out);
            }
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
            told: Presence::Offline,
            absent_at: Some(now + ABSENCE_GRACE_MS),
            changed_at: 0,
        };
        self.users.insert(user.id, present);
    }

    /// Everything a session needs is here: it becomes one of its rooms' listeners and is welcomed.
    pub(super) fn welcome(&mut self, now: Ms, conn: Conn, out: Out) {
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        let Some(account) = starting.account.take() else { return };
        let asked_at = starting.asked_at;
        let is_current = self.users.get(&account.user.id).is_some_and(|user| user.changed_at <= asked_at);
        let is_put_away = |info: &RoomInfo| self.rooms.get(&info.id).is_none_or(|room| !room.loaded);
        if !is_current || account.rooms.iter().any(is_put_away) {
            // Something changed while rooms were loaded, or that took so long that one was put away again.
            return self.ask_account(conn, account.user.id, out);
        }
        let Some(session) = self.session_mut(conn) else { return };
        let Phase::Starting(starting) = std::mem::replace(&mut session.phase, Phase::Ready) else { return };
        let Starting { resume, early, is_fresh, .. } = *starting;
        let Account { user, role, rooms, blocked } = account;
        let (mode, asker) = (session.mode, Asker { conn, serial: session.serial });
        session.user = Some(user.id);
        self.absent.remove(&user.id);
        if let Some(present) = self.users.get_mut(&user.id) {
            // The store was asked after all that was heard here: it knows best, also of a lost hint.
            present.user.clone_from(&user);
            present.rooms = rooms.iter().map(|info| info.id).collect();
            present.conns.push(conn);
            present.absent_at = None;
        }

        let rooms: Vec<RoomInfo> = rooms.into_iter().map(|info| self.current_info(info, user.id)).collect();
        for info in &rooms {
            self.listen(conn, info.id);
        }
        if mode == Mode::Full {
            let HubConfig { rooms_per_user, message_chars, frame_bytes, .. } = self.config;
            let limits =
                Limits { body_chars: message_chars, frame_bytes, rooms_per_user, ..Limits::default() };
            self.send(
                conn,
                &ServerEnvelope::Welcome {
                    user: user.clone(),
                    role,
                    rooms: rooms.clone(),
                    blocked,
                    limits,
                    now: now + self.wall_offset,
                },
                out,
            );
        }
        self.tell_presence(user.id, true, out);
        let lobby_is_small = self.rooms.get(&LOBBY).is_some_and(|lobby| lobby.roster.online() < CROWD);
        if is_fresh && lobby_is_small {
            self.note_in_lobby(now, user.clone(), EventKind::Joined, out);
        }
        let before = out.len();
        for Resume { room, epoch, seq } in resume {
            let texts = out[before..].iter().map(|effect| match effect {
                Effect::Share { text, .. } => text.text().len(),
                _ => 0,
            });
            if texts.sum::<usize>() > RESUME_BYTES_MAX {
                break;
            }
            match rooms.iter().find(|info| info.id == room) {
                Some(_) => self.answer_resume(asker, room, epoch, seq, out),
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

    pub(super) fn note_in_lobby(&mut self, now: Ms, author: User, kind: EventKind, out: Out) {
        let at = now + self.wall_offset;
        let append = Append { room: LOBBY, author, at, kind, reference: None };
        self.append(Pending::Note, append, out);
    }

    /// Brings what the store said of a room up to what this hub has delivered since.
    pub(super) fn current_info(&self, mut info: RoomInfo, reader: UserId) -> RoomInfo {
        if let Some(room) = self.rooms.get(&info.id).filter(|room| room.applied > info.head) {
            info.unread =
                (info.unread + room.messages_after(info.head.max(info.read), reader)).min(UNREAD_MAX);
            info.head = room.applied;
        }
        info
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
        self.tell_presence(user, false, out);
        self.absent.remove(&user);
        self.users.remove(&user);
        out.push(Effect::Unfollow(Topic::User(user)));
    }
}
