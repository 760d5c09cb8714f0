//! What the store answered, and what that means for who asked.

use shared::model::{Ms, RoomId};
use shared::protocol::{CloseCode, ErrorCode, Event, Failure, ServerEnvelope};

use super::membership::{publish_events, tell_membership};
use super::requests::of_send;
use super::{Answer, Asker, Effect, Hub, Out, Pending, Query, Ticket, UNAVAILABLE_RETRY_MS};
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
                    self.fail(asker.conn, of_send(explain(&error), room, reference), out);
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
                self.identified(now, asker, identity, out);
            }
            (Pending::Account(asker), Ok(Answer::Account(account))) => {
                self.account_read(now, asker, account, out);
            }
            (Pending::Identify(asker) | Pending::Account(asker), _) => {
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
                    let events = page.events;
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
            (Pending::Attach { user, room }, Ok(Answer::Info(info))) => {
                if self.is_stale(user, ticket) {
                    self.ask(Pending::Attach { user, room }, Query::RoomInfo { room, user }, out);
                } else {
                    self.attach_when_loaded(now, user, info, out);
                }
            }
            (Pending::Attach { user, room }, Err(StoreError::Unavailable(_))) => {
                self.reattach.push((user, room))
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
            (pending, Ok(answer)) => debug_assert!(false, "{pending:?} was answered with {answer:?}"),
            (Pending::Send { .. } | Pending::Note, Err(_)) => {}
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
            self.fail(asker.conn, Failure { request: Some(request.into()), room, ..explain(error) }, out);
        }
    }
}

pub(super) fn explain(error: &StoreError) -> Failure {
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
        StoreError::Forbidden => Failure::new(ErrorCode::Forbidden, "You may not do that."),
        StoreError::TooMany => {
            Failure::new(ErrorCode::TooMany, "There are as many of these as there can be.")
        }
        StoreError::Archived => Failure::new(ErrorCode::Archived, "This room is archived."),
        StoreError::Muted(_) => Failure::new(ErrorCode::Muted, "You cannot write in this room for now."),
        StoreError::SlowMode(_) => {
            Failure::new(ErrorCode::SlowMode, "This room is in slow mode. Wait a moment.")
        }
        StoreError::Blocked => Failure::new(ErrorCode::Blocked, "One of you has blocked the other."),
        StoreError::Banned => Failure::new(ErrorCode::Banned, "You are banned from this server."),
        StoreError::Unavailable(_) => unavailable(),
    }
}

pub(super) fn unavailable() -> Failure {
    let failure = Failure::new(ErrorCode::Unavailable, "The server cannot do that now. Try again soon.");
    Failure { retry_ms: Some(UNAVAILABLE_RETRY_MS), ..failure }
}
