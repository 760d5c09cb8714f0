//! Connections come, are told who they are and what they missed, and go.

use shared::model::{LOBBY, Ms, RoomId, UserId};
use shared::protocol::{
    CROWD, ErrorCode, EventKind, Failure, Limits, Presence, Resume, RoomInfo, ServerEnvelope, UNREAD_MAX,
    User,
};

use super::session::{Mode, Phase, Session, Starting};
use super::{ABSENCE_GRACE_MS, Asker, Conn, Effect, Hub, HubConfig, Out, Pending, Present, Query, Waiter};
use crate::broker::Topic;
use crate::names;
use crate::store::{Append, Identity, TokenHash};

impl Hub {
    pub(super) fn connected(
        &mut self,
        now: Ms,
        conn: Conn,
        mode: Mode,
        token: TokenHash,
        ephemeral: bool,
        out: Out,
    ) {
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
    pub(super) fn start(&mut self, now: Ms, conn: Conn, resume: Vec<Resume>, out: Out) {
        let id = UserId::from_bits(self.rng.u64(..));
        let names = names::candidates(&mut self.rng);
        let at = now + self.wall_offset;
        let Some(session) = self.session_mut(conn) else { return };
        session.phase = Phase::Starting(Box::new(Starting { resume, ..Starting::default() }));
        let asker = Asker { conn, serial: session.serial };
        let query = Query::Identify { token: session.token, id, names, at };
        self.ask(Pending::Identify(asker), query, out);
    }

    pub(super) fn identified(&mut self, now: Ms, asker: Asker, identity: Identity, out: Out) {
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
    pub(super) fn welcome(&mut self, now: Ms, conn: Conn, out: Out) {
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
        let began_at = session.serial;

        let present = self.users.entry(user.id).or_insert_with(|| {
            out.push(Effect::Follow(Topic::User(user.id)));
            Present {
                user: user.clone(),
                conns: Vec::with_capacity(1),
                rooms: Vec::with_capacity(rooms.len()),
                told: Presence::Offline,
                absent_at: None,
                renamed_at: 0,
            }
        });
        if present.renamed_at < began_at {
            // The hint of a new name may have been lost; the store was asked after all that was heard here.
            present.user.clone_from(&user);
        }
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
            let HubConfig { rooms_per_user, message_chars, frame_bytes, .. } = self.config;
            let limits =
                Limits { body_chars: message_chars, frame_bytes, rooms_per_user, ..Limits::default() };
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
    pub(super) fn gone(&mut self, user: UserId, out: Out) {
        self.tell_presence(user, false, out);
        self.absent.remove(&user);
        self.users.remove(&user);
        out.push(Effect::Unfollow(Topic::User(user)));
    }
}
