//! Which rooms this hub follows, who listens to them, and how a reader gets what they lack.

use std::sync::Arc;

use shared::model::{LOBBY, Ms, RoomId, Seq, UserId};
use shared::protocol::{
    Event, EventKind, PAGE_EVENTS_MAX, PlainMessage, Presence, RoomInfo, ServerEnvelope, encode,
};

use super::room::{Replay, Room};
use super::session::{Mode, Phase};
use super::{Asker, Conn, Effect, Hub, Out, Pending, Query, Ticket, Waiter};
use crate::broker::{Hint, Topic};
use crate::store::{Entered, Page};

impl Hub {
    /// The room's state here; a room that is new here is followed and loaded.
    pub(super) fn follow(&mut self, now: Ms, id: RoomId, out: Out) -> &mut Room {
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

    pub(super) fn room_loaded(&mut self, now: Ms, id: RoomId, page: Page, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| !room.loaded) else { return };
        // Nobody listens yet: those who wait get what is here with their answers.
        room.load(page.epoch, page.head, page.events);
        let has_hole = room.has_hole();
        let waiting = std::mem::take(&mut room.waiting);
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
                    // They may have left again meanwhile.
                    if self.asked(asker).is_some() && self.is_member(asker.conn, info.id) {
                        self.listen(asker.conn, info.id);
                        self.answer_join(asker.conn, info, after, None, out);
                    }
                }
                Waiter::Attach { user, info } => self.attach(user, info, out),
            }
        }
    }

    pub(super) fn room_fetched(&mut self, id: RoomId, page: Page, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded) else { return };
        room.fetching = false;
        let before = room.applied;
        for event in page.events {
            let delivered = room.apply(Arc::new(event));
            deliver(id, !room.plain.is_empty(), &delivered, out);
        }
        if room.has_hole() || room.applied < page.head {
            if room.applied > before {
                self.fetch(id, out);
            } else {
                // The store that was read is behind the hint: it gets a moment.
                room.refetch = true;
                self.refetch.insert(id);
            }
        }
    }

    /// Reads what a room lacks, one read at a time.
    pub(super) fn fetch(&mut self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded && !room.fetching) else { return };
        room.fetching = true;
        let query = Query::EventsAfter { room: id, after: room.applied, limit: PAGE_EVENTS_MAX };
        self.ask(Pending::Fetch(id), query, out);
    }

    /// Makes a connection a listener of a room that is loaded.
    pub(super) fn listen(&mut self, conn: Conn, id: RoomId) {
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

    pub(super) fn forget_listener(&mut self, now: Ms, id: RoomId, mode: Mode, place: u32) {
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
    pub(super) fn answer_join(
        &mut self,
        conn: Conn,
        info: RoomInfo,
        after: Option<Seq>,
        epoch: Option<u32>,
        out: Out,
    ) {
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
    pub(super) fn replayed(&mut self, asker: Asker, info: RoomInfo, after: Seq, page: Page, out: Out) {
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

    pub(super) fn send_joined(
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

    /// A connection's user is in a room: it becomes a listener and gets its `joined`.
    pub(super) fn entered(
        &mut self,
        now: Ms,
        ticket: Ticket,
        asker: Asker,
        after: Option<Seq>,
        info: RoomInfo,
        out: Out,
    ) {
        let id = info.id;
        let Some(user) = self.asked(asker).and_then(|session| session.user) else { return };
        if self.is_stale(user, ticket) {
            // They may have left since.
            self.ask(Pending::Reread { asker, room: id, after }, Query::RoomInfo { room: id, user }, out);
            return;
        }
        let is_new = self.users.get_mut(&user).is_some_and(|present| {
            let is_new = !present.rooms.contains(&id);
            if is_new {
                present.rooms.push(id);
            }
            is_new
        });
        let room = self.follow(now, id, out);
        if room.loaded {
            self.listen(asker.conn, id);
            self.answer_join(asker.conn, info, after, None, out);
        } else {
            room.waiting.push(Waiter::Join { asker, info, after });
        }
        if is_new {
            self.tell_presence_in(user, id, out);
        }
    }

    pub(super) fn attach_when_loaded(&mut self, now: Ms, user: UserId, info: RoomInfo, out: Out) {
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
    pub(super) fn attach(&mut self, user: UserId, info: RoomInfo, out: Out) {
        let Some(present) = self.users.get(&user).filter(|present| present.rooms.contains(&info.id)) else {
            return;
        };
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

    /// A membership ended, or had ended before; either way no connection of the user listens any more.
    pub(super) fn left(&mut self, asker: Asker, user: UserId, room: RoomId, event: Option<Event>, out: Out) {
        publish_events(event.into_iter().collect(), out);
        if self.asked(asker).is_some_and(|session| !session.listens_to(room)) {
            self.send(asker.conn, &ServerEnvelope::Left { room }, out);
        }
        let hint = Hint::Membership { user, room, member: false };
        out.push(Effect::Publish { topic: Topic::User(user), hint });
    }

    pub(super) fn detach(&mut self, now: Ms, user: UserId, room: RoomId, out: Out) {
        self.note_change(user);
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
}

/// Sends events that are in order to a room's listeners.
pub(super) fn deliver(room: RoomId, has_plain: bool, events: &[Arc<Event>], out: Out) {
    for event in events {
        let plain = match &event.kind {
            EventKind::Message { body } if has_plain => Some(encode(&PlainMessage {
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
pub(super) fn tell_membership(entered: &Entered, users: impl Iterator<Item = UserId>, out: Out) {
    if entered.events.is_empty() {
        return;
    }
    for user in users {
        let hint = Hint::Membership { user, room: entered.info.id, member: true };
        out.push(Effect::Publish { topic: Topic::User(user), hint });
    }
}

/// Tells all hubs, this one too, of events that were committed.
pub(super) fn publish_events(events: Vec<Event>, out: Out) {
    for event in events {
        let topic = Topic::Room(event.room);
        out.push(Effect::Publish { topic, hint: Hint::Event(Arc::new(event)) });
    }
}
