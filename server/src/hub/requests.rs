//! What connections ask for: who may, within which limits, and what the store is asked then.

use std::collections::HashSet;

use shared::acts::Scope;
use shared::model::{BadBody, Body, LOBBY, Ms, Ref, RoomId, RoomName, UserName};
use shared::protocol::{
    CROWD, ClientEnvelope, CloseCode, ErrorCode, EventKind, Failure, LIST_MAX, PAGE_EVENTS_MAX, Presence,
    RESUME_ROOMS_MAX, RoomKind, ServerEnvelope,
};

use super::answers::{forbidden, unavailable};
use super::rates::{Admission, Class};
use super::session::{EARLY_REQUESTS_MAX, Phase, Request};
use super::{
    APPEND_BYTES_MAX, APPENDS_MAX, Asker, Conn, Effect, Hub, Out, Pending, Query, TYPING_EVERY_MS,
    UNAVAILABLE_RETRY_MS,
};
use crate::broker::{Hint, Topic};
use crate::store::{Append, RoomKey};

impl Hub {
    pub(super) fn request(&mut self, now: Ms, conn: Conn, request: Result<Request, Failure>, out: Out) {
        match self.admit(now, conn, &request) {
            Admission::Taken => self.note_use(conn),
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

    /// Counts a request against the rates of its user, on whichever connection.
    fn admit(&mut self, now: Ms, conn: Conn, request: &Result<Request, Failure>) -> Admission {
        let class = match request {
            Ok(request) => Class::of(request, self.is_in_there(conn, request)),
            Err(_) => Class::Other,
        };
        let config = self.config;
        let Some(session) = self.session_mut(conn) else { return Admission::Taken };
        match session.user {
            None => session.requests.admit(now, &config),
            Some(user) => match self.users.get_mut(&user) {
                Some(present) => present.rates.admit(now, class, &config),
                None => Admission::Taken,
            },
        }
    }

    /// Whether a `join` is of a room that the user is in.
    fn is_in_there(&self, conn: Conn, request: &Request) -> bool {
        let Request::Envelope(ClientEnvelope::Join { room, .. }) = request else { return false };
        room.parse().is_ok_and(|room| self.is_member(conn, room))
    }

    pub(super) fn request_admitted(&mut self, now: Ms, conn: Conn, request: Request, out: Out) {
        let Some(session) = self.session_mut(conn) else { return };
        match (&mut session.phase, request) {
            (Phase::New(_), Request::Envelope(ClientEnvelope::Hello { mut resume })) => {
                resume.truncate(RESUME_ROOMS_MAX);
                let mut seen = HashSet::new();
                resume.retain(|entry| seen.insert(entry.room));
                self.start(now, conn, resume, out);
            }
            (Phase::New(_), Request::Envelope(ClientEnvelope::Ping { n })) => {
                self.send(conn, &ServerEnvelope::Pong { n, now: now + self.wall_offset }, out)
            }
            (Phase::New(_), request) => {
                let failure = Failure::new(ErrorCode::HelloFirst, "The first envelope is a hello.");
                self.fail(conn, about(Some(&request), failure), out);
            }
            (Phase::Starting(starting), request) if starting.early.len() < EARLY_REQUESTS_MAX => {
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

    pub(super) fn request_ready(&mut self, now: Ms, conn: Conn, request: Request, out: Out) {
        let Some(session) = self.session(conn) else { return };
        let asker = Asker { conn, serial: session.serial };
        let Some(user) = session.user else { return };
        let rooms_max = self.config.rooms_per_user;
        let at = now + self.wall_offset;
        let envelope = match request {
            Request::Plain(text) => {
                if !(session.has(Scope::Send) && session.is_for(LOBBY)) {
                    return self.fail(conn, forbidden(), out);
                }
                match Body::parse(&text, self.config.message_chars) {
                    Ok(body) => self.say(now, asker, LOBBY, None, body, out),
                    Err(error) => self.fail(conn, Failure::new(body_code(error), error.to_string()), out),
                }
                return;
            }
            Request::Envelope(envelope) => envelope,
        };
        if !session.may_ask(&envelope) {
            return self.fail(conn, about_envelope(&envelope, forbidden()), out);
        }
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
                // Whether the author may is the store's to say: a repeat is answered with the first event, also
                // to one who has left since.
                match Body::parse(&body, self.config.message_chars) {
                    Ok(body) => self.say(now, asker, room, Some(reference), body, out),
                    Err(error) => {
                        let failure = Failure::new(body_code(error), error.to_string());
                        self.fail(conn, of_send(failure, room, Some(reference)), out);
                    }
                }
            }
            ClientEnvelope::Join { room, after } => match room.parse() {
                Ok(id) if self.is_member(conn, id) => {
                    let query = Query::RoomInfo { room: id, user };
                    self.ask(Pending::Reread { asker, room: id, after, was_listening: true }, query, out);
                }
                _ => {
                    let query = Query::Join { room: RoomKey::parse(&room), user, rooms_max, at };
                    self.ask(Pending::Enter { asker, request: "join", after }, query, out);
                }
            },
            ClientEnvelope::Create { name, private } => match RoomName::claim(&name) {
                Ok(name) => {
                    let id = RoomId::from_bits(self.rng.u64(..));
                    let kind = if private { RoomKind::Private } else { RoomKind::Public };
                    let query = Query::CreateRoom { id, kind, name, user, rooms_max, at };
                    self.ask(Pending::Enter { asker, request: "create", after: None }, query, out);
                }
                Err(error) => {
                    let failure = Failure::new(ErrorCode::NameInvalid, error.to_string());
                    self.fail(conn, Failure { request: Some("create".into()), ..failure }, out);
                }
            },
            ClientEnvelope::Direct { user: peer } => {
                let id = RoomId::from_bits(self.rng.u64(..));
                let query = Query::OpenDirect { id, user, peer, rooms_max, at };
                let pending = Pending::Enter { asker, request: "direct", after: None };
                self.ask(pending, query, out);
            }
            ClientEnvelope::Leave { room: LOBBY } => {
                let failure = Failure::new(ErrorCode::CannotLeave, "Nobody can leave the lobby.");
                self.fail(conn, Failure { request: Some("leave".into()), room: Some(LOBBY), ..failure }, out);
            }
            ClientEnvelope::Leave { room } => {
                self.ask(Pending::Leave { asker, user, room }, Query::Leave { room, user, at }, out);
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
            ClientEnvelope::Read { room, seq, version } => {
                let query = Query::MarkRead { room, user, seq, version };
                self.ask(Pending::MarkRead { asker, user, room }, query, out);
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
                // All their rooms are told: not as often as somebody can change their mind.
                self.restless.insert(user);
            }
            ClientEnvelope::Typing { room } => self.typing(now, conn, room, out),
            ClientEnvelope::Members { room } if !self.is_member(conn, room) => {
                not_found(self, "members", room, out);
            }
            ClientEnvelope::Members { room: LOBBY } => self.answer_lobby(now, conn, out),
            ClientEnvelope::Members { room } => {
                self.ask(Pending::Members { asker, room }, Query::Members { room, limit: LIST_MAX }, out);
            }
            ClientEnvelope::Group { users } => self.group(now, asker, user, users, out),
            ClientEnvelope::Act(act) => self.act(now, asker, user, act, out),
            ClientEnvelope::List { list, room, text, before } => {
                self.list(now, asker, user, list, room, text, before, out);
            }
            ClientEnvelope::Directory => {
                self.ask(Pending::Directory(asker), Query::Directory { user, limit: LIST_MAX }, out);
            }
        }
    }

    pub(super) fn is_member(&self, conn: Conn, room: RoomId) -> bool {
        self.user_of(conn).is_some_and(|present| present.rooms.contains(&room))
    }

    pub(super) fn say(
        &mut self,
        now: Ms,
        asker: Asker,
        room: RoomId,
        reference: Option<Ref>,
        body: Body,
        out: Out,
    ) {
        if self.appends >= APPENDS_MAX || self.append_bytes >= APPEND_BYTES_MAX {
            self.fail(asker.conn, of_send(unavailable(), room, reference), out);
            return;
        }
        let Some(present) = self.user_of(asker.conn) else { return };
        let author = present.user.clone();
        let at = now + self.wall_offset;
        let bytes = body.as_str().len();
        self.append_bytes += bytes;
        let append = Append { room, author, at, kind: EventKind::message(body), reference };
        self.append(Pending::Send { asker, room, reference, bytes }, append, out);
    }

    pub(super) fn typing(&mut self, now: Ms, conn: Conn, room: RoomId, out: Out) {
        let is_crowd = self.rooms.get(&room).is_none_or(|room| room.roster.online() > CROWD);
        if is_crowd || !self.is_member(conn, room) {
            return;
        }
        let Some(user) = self.session(conn).and_then(|session| session.user) else { return };
        let Some(present) = self.users.get_mut(&user) else { return };
        if present.rates.may_type(now, TYPING_EVERY_MS) {
            let hint = Hint::Typing { room, user: present.user.clone() };
            out.push(Effect::Publish { topic: Topic::Room(room), hint });
        }
    }
}

pub(super) fn body_code(error: BadBody) -> ErrorCode {
    match error {
        BadBody::Empty => ErrorCode::BodyEmpty,
        BadBody::TooLong(_) => ErrorCode::BodyTooLong,
    }
}

pub(super) fn of_send(failure: Failure, room: RoomId, reference: Option<Ref>) -> Failure {
    Failure { reference, request: Some("send".into()), room: Some(room), ..failure }
}

/// Says which request a failure is about.
pub(super) fn about(request: Option<&Request>, failure: Failure) -> Failure {
    let Some(Request::Envelope(envelope)) = request else { return failure };
    about_envelope(envelope, failure)
}

fn about_envelope(envelope: &ClientEnvelope, failure: Failure) -> Failure {
    match envelope {
        ClientEnvelope::Send { room, reference, .. } => of_send(failure, *room, Some(*reference)),
        ClientEnvelope::Act(act) => Failure { request: Some(act.name().into()), room: act.room(), ..failure },
        envelope => Failure { request: Some(envelope.type_name().into()), ..failure },
    }
}
