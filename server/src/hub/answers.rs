//! What the store answered, and what that means for who asked.

use shared::model::{Ms, RoomId};
use shared::protocol::{CloseCode, ErrorCode, Event, Failure, ServerEnvelope};

use super::maps::HashSet;
use super::membership::{publish_events, tell_membership};
use super::requests::of_send;
use super::{Answer, Asker, Effect, Hub, Look, Out, Pending, Ticket, UNAVAILABLE_RETRY_MS};
use crate::broker::{Hint, Topic};
use crate::store::{Appended, Entered, StoreError};

impl Hub {
    pub(super) fn appended(&mut self, pending: Pending, result: Result<Appended, StoreError>, out: Out) {
        self.in_doubt |= matches!(result, Err(StoreError::Unavailable(_)));
        match (pending, result) {
            (Pending::Send { asker, .. }, Ok(Appended { event, .. })) => {
                if let Some(reference) = event.reference.filter(|_| self.asked(asker).is_some()) {
                    let Event { room, seq, at, .. } = event;
                    self.send(asker.conn, &ServerEnvelope::Ack { reference, room, seq, at }, out);
                }
                // A repeat too: the answer to the first may have been lost before it was published.
                publish_events(vec![event], out);
            }
            (Pending::Send { asker, room, reference, .. }, Err(error)) => {
                if self.asked(asker).is_some() {
                    // A room that does not exist is answered as one that is not for the author.
                    let error = if error == StoreError::NotFound { StoreError::NotMember } else { error };
                    self.fail(asker.conn, of_send(self.explain(&error), room, reference), out);
                }
            }
            (_, Ok(appended)) => publish_events(vec![appended.event], out),
            (_, Err(_)) => {}
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Ms,
        ticket: Ticket,
        pending: Pending,
        answer: Result<Answer, StoreError>,
        out: Out,
    ) {
        // Reading heads is the remedy; until that succeeds it is still wanted.
        self.in_doubt |= matches!(answer, Err(StoreError::Unavailable(_)));
        match (pending, answer) {
            (Pending::Identify(asker), Ok(Answer::Identity(identity))) => {
                self.identified(now, ticket, asker, identity, out);
            }
            (Pending::Account(asker), Ok(Answer::Account(account))) => {
                self.account_read(now, asker, account, out);
            }
            (Pending::Identify(asker) | Pending::Account(asker), Err(error)) => {
                if self.asked(asker).is_some() {
                    // Of a session that is not there any more another try makes no other.
                    let is_void =
                        matches!(error, StoreError::NotFound | StoreError::Banned | StoreError::Ended);
                    let code = if is_void { CloseCode::Policy } else { CloseCode::TryLater };
                    self.expel(now, asker.conn, code, out);
                }
            }
            (Pending::Load(id), Ok(Answer::Page(page))) => self.room_loaded(now, id, page, out),
            (Pending::Fetch(id), Ok(Answer::Page(page))) => self.room_fetched(now, id, page, out),
            (Pending::Load(id) | Pending::Fetch(id), Err(StoreError::NotFound)) => {
                self.forget_room(now, id, out);
            }
            (Pending::Load(id) | Pending::Fetch(id), Err(_)) => {
                if let Some(room) = self.rooms.get_mut(&id) {
                    room.refetch = true;
                    self.refetch.insert(id);
                }
            }
            (Pending::Heads(asked), Ok(Answer::Heads(heads))) => {
                let there: HashSet<RoomId> = heads.iter().map(|(id, _, _)| *id).collect();
                for id in asked.into_iter().filter(|id| !there.contains(id)) {
                    self.forget_room(now, id, out);
                }
                for (id, _, head) in heads {
                    if self.rooms.get(&id).is_some_and(|room| room.loaded && room.applied < head) {
                        self.counts.heads_behind += 1;
                        self.fetch(id, out);
                    }
                }
            }
            (Pending::Enter { asker, after, .. }, Ok(Answer::Entered(entered))) => {
                tell_membership(&entered, out);
                let Entered { info, events, .. } = entered;
                publish_events(events, out);
                self.entered(now, ticket, asker, after, info, out);
            }
            (Pending::Reread { asker, room, after: None, was_listening: false }, Ok(Answer::Info(_)))
                if self.asked(asker).is_some_and(|session| session.listens_to(room)) => {}
            (Pending::Reread { asker, after, .. }, Ok(Answer::Info(info))) => {
                self.entered(now, ticket, asker, after, info, out);
            }
            (Pending::Replay { asker, info, after }, Ok(Answer::Page(page))) => {
                if self.still_in(asker, info.id, "join", out) {
                    self.replayed(asker, info, after, page, out);
                }
            }
            (Pending::Replay { asker, info, .. }, Err(error)) => {
                self.refuse(asker, "join", Some(info.id), &error, out);
            }
            (Pending::Resume { room, after }, Ok(Answer::Page(page))) => {
                self.resumed(room, after, Ok(page), out);
            }
            (Pending::Resume { room, after }, Err(error)) => self.resumed(room, after, Err(error), out),
            (Pending::History { asker, room, before }, Ok(Answer::Page(page))) => {
                if self.still_in(asker, room, "history", out) {
                    let mut events = page.events;
                    if let Some(room) = self.rooms.get(&room) {
                        // What is behind this may be what the asker is out by, and then what is not for them.
                        events.retain(|event| event.seq <= room.applied);
                        room.blank_deleted(&mut events);
                    }
                    self.send(asker.conn, &ServerEnvelope::History { room, before, events }, out);
                }
            }
            (Pending::Leave { asker, user, room }, Ok(Answer::Left(event))) => {
                self.left(asker, user, room, event, out);
            }
            (Pending::Rename(_), Ok(Answer::Renamed(user, events))) => {
                publish_events(events, out);
                let hint = Hint::Renamed { user: user.clone() };
                out.push(Effect::Publish { topic: Topic::User(user.id), hint });
            }
            (Pending::MarkRead { user, room, .. }, Ok(Answer::Read(cursor))) => {
                // Also if the asker is gone: the user's other connections are told.
                let hint = Hint::Read { user, room, cursor };
                out.push(Effect::Publish { topic: Topic::User(user), hint });
            }
            (Pending::Members { asker, room }, Ok(Answer::Members(users, total))) => {
                if self.still_in(asker, room, "members", out) {
                    self.answer_members(asker.conn, room, Some((users, total)), out);
                }
            }
            (Pending::Directory(asker), Ok(Answer::Directory(rooms))) => {
                if self.asked(asker).is_some() {
                    self.send(asker.conn, &ServerEnvelope::Directory { rooms }, out);
                }
            }
            (Pending::Look(Look::Attach { user, .. }), Ok(Answer::Info(info))) => {
                if self.is_stale(user, ticket) {
                    self.look(Look::Attach { user, room: info.id }, out);
                } else {
                    self.attach_when_loaded(now, user, info, out);
                }
            }
            (Pending::Look(Look::Room { user, .. }), Ok(Answer::Info(info))) => {
                self.room_looked_at(ticket, user, info, out);
            }
            (Pending::Look(Look::Account { .. }), Ok(Answer::Account(account))) => {
                self.account_looked_at(now, ticket, account, out);
            }
            (Pending::Look(Look::Everything { .. }), Ok(Answer::Account(account))) => {
                self.looked_at_everything(now, ticket, account, out);
            }
            (Pending::Look(look), Err(error)) => self.not_looked_at(now, look, &error),
            (Pending::Void(_), Ok(Answer::Void(tokens))) => self.voided(now, tokens, out),
            (Pending::Void(tokens), Err(_)) => self.not_voided(now, tokens),
            (Pending::Act(acting), Ok(Answer::Outcome(outcome))) => self.acted(*acting, outcome, out),
            (Pending::Act(acting), Err(error)) => self.not_acted(&acting, &error, out),
            (Pending::List { asker, list, .. }, Ok(Answer::Rows(rows))) => {
                if self.asked(asker).is_some() {
                    self.send(asker.conn, &ServerEnvelope::List { list, rows }, out);
                }
            }
            (Pending::List { asker, room, .. }, Err(error)) => self.refuse(asker, "list", room, &error, out),
            (Pending::Enter { asker, request, .. }, Err(error)) => {
                self.refuse(asker, request, None, &error, out);
            }
            (Pending::Reread { asker, room, .. }, Err(error)) => {
                if let (StoreError::NotFound, Some(user)) = (&error, self.user_of(asker.conn))
                    && user.changed_at <= ticket
                {
                    // They listened while it was asked.
                    self.detach(now, user.user.id, room, out);
                }
                self.refuse(asker, "join", Some(room), &error, out);
            }
            (Pending::History { asker, room, .. }, Err(error)) => {
                self.refuse(asker, "history", Some(room), &error, out);
            }
            (Pending::Leave { asker, room, .. }, Err(error)) => {
                self.refuse(asker, "leave", Some(room), &error, out);
            }
            (Pending::Rename(asker), Err(error)) => self.refuse(asker, "rename", None, &error, out),
            (Pending::MarkRead { asker, room, .. }, Err(error)) => {
                self.refuse(asker, "read", Some(room), &error, out);
            }
            (Pending::Members { asker, room }, Err(error)) => {
                self.refuse(asker, "members", Some(room), &error, out);
            }
            (Pending::Directory(asker), Err(error)) => self.refuse(asker, "directory", None, &error, out),
            (Pending::Touch, Ok(Answer::Touched)) => {}
            (pending, Ok(answer)) => debug_assert!(false, "{pending:?} was answered with {answer:?}"),
            (Pending::Send { .. } | Pending::Note | Pending::Touch | Pending::Heads(_), Err(_)) => {}
        }
    }

    /// Whether the asker is there and still in the room; one who has left meanwhile is refused.
    pub(super) fn still_in(&self, asker: Asker, room: RoomId, request: &str, out: Out) -> bool {
        let is_in = self.asked(asker).is_some() && self.is_member(asker.conn, room);
        if !is_in {
            self.refuse(asker, request, Some(room), &StoreError::NotFound, out);
        }
        is_in
    }

    pub(super) fn refuse(
        &self,
        asker: Asker,
        request: &str,
        room: Option<RoomId>,
        error: &StoreError,
        out: Out,
    ) {
        if self.asked(asker).is_some() {
            self.fail(
                asker.conn,
                Failure { request: Some(request.into()), room, ..self.explain(error) },
                out,
            );
        }
    }

    /// What is told of an error of the store.
    pub(super) fn explain(&self, error: &StoreError) -> Failure {
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
            StoreError::Forbidden => forbidden(),
            StoreError::TooMany => {
                Failure::new(ErrorCode::TooMany, "There are as many of these as there can be.")
            }
            StoreError::Archived => Failure::new(ErrorCode::Archived, "This room is archived."),
            StoreError::Muted(until) => {
                let failure = Failure::new(ErrorCode::Muted, "You cannot write in this room for now.");
                Failure { retry_ms: Some(self.wait_until(*until)), ..failure }
            }
            StoreError::SlowMode(until) => {
                let failure = Failure::new(ErrorCode::SlowMode, "This room is in slow mode. Wait a moment.");
                Failure { retry_ms: Some(self.wait_until(*until)), ..failure }
            }
            StoreError::Blocked => Failure::new(ErrorCode::Blocked, "One of you has blocked the other."),
            StoreError::Banned => Failure::new(ErrorCode::Banned, "You are banned from this server."),
            StoreError::Ended => Failure::new(ErrorCode::SignInRequired, "This session has ended."),
            StoreError::Unavailable(_) => unavailable(),
        }
    }

    /// Milliseconds until a time of day.
    fn wait_until(&self, until: Ms) -> u32 {
        let wait = until.saturating_sub(self.now.saturating_add(self.wall_offset));
        u32::try_from(wait.max(1)).unwrap_or(u32::MAX)
    }
}

pub(super) fn forbidden() -> Failure {
    Failure::new(ErrorCode::Forbidden, "You may not do that.")
}

pub(super) fn unavailable() -> Failure {
    let failure = Failure::new(ErrorCode::Unavailable, "The server cannot do that now. Try again soon.");
    Failure { retry_ms: Some(UNAVAILABLE_RETRY_MS), ..failure }
}
