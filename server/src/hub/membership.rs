//! Which rooms this hub follows, who listens to them, and how a reader gets what they lack.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use shared::model::{LOBBY, Ms, RoomId, Seq, UserId};
use shared::protocol::{Event, PAGE_EVENTS_MAX, Presence, RoomInfo, ServerEnvelope};

use super::room::{Replay, Room};
use super::session::{Mode, Phase};
use super::{
    Asker, Conn, Effect, HOLE_GRACE_MS, Hub, Look, Out, Pending, Present, Query, Ticket, Waiter,
    encode_shared,
};
use crate::broker::{Hint, Logged, Topic};
use crate::encoded::Encoded;
use crate::store::{Entered, Page, StoreError};

impl Hub {
    /// The room's state here; a room that is new here is followed and loaded.
    pub(super) fn follow(&mut self, now: Ms, id: RoomId, out: Out) -> &mut Room {
        if let Entry::Vacant(place) = self.rooms.entry(id) {
            place.insert(Room::new(now));
            out.push(Effect::Follow(Topic::Room(id)));
            let query = Query::EventsBefore { room: id, before: Seq::MAX, limit: PAGE_EVENTS_MAX };
            self.ask(Pending::Load(id), query, out);
            self.want_presence(id, out);
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
        let mut waiting = std::mem::take(&mut room.waiting);
        // Who asked is answered by that; an attachment then finds them there.
        waiting.sort_by_key(|waiter| matches!(waiter, Waiter::Attach { .. }));
        if has_hole {
            self.fetch(id, out);
        }
        for waiter in waiting {
            match waiter {
                Waiter::Welcome(asker) => self.room_missed(now, asker, out),
                Waiter::Join { asker, info, after } => {
                    // They may have left again meanwhile.
                    if self.asked(asker).is_some() && self.is_member(asker.conn, info.id) {
                        self.listen(asker.conn, info.id);
                        self.answer_join(asker.conn, info, after, out);
                    }
                }
                Waiter::Attach { user, info } => self.attach(user, info, out),
            }
        }
    }

    pub(super) fn room_fetched(&mut self, now: Ms, id: RoomId, page: Page, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded) else { return };
        room.fetching = false;
        let before = room.applied;
        let apply = |event| room.apply(Arc::new(Logged::new(event)));
        let delivered: Vec<Arc<Logged>> = page.events.into_iter().flat_map(apply).collect();
        self.deliver(now, id, delivered, out);
        let Some(room) = self.rooms.get_mut(&id) else { return };
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

    /// An event is known whose predecessor is not. It may be on its way; if it stays away, it is read.
    pub(super) fn note_hole(&mut self, now: Ms, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        if !room.has_hole() {
            room.hole_since = None;
            return;
        }
        let since = *room.hole_since.get_or_insert(now);
        self.holes.insert(id);
        if now - since >= HOLE_GRACE_MS {
            self.fetch(id, out);
        }
    }

    /// Reads what a room lacks, one read at a time.
    pub(super) fn fetch(&mut self, id: RoomId, out: Out) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.loaded && !room.fetching) else { return };
        room.fetching = true;
        self.counts.holes += 1;
        let query = Query::EventsAfter { room: id, after: room.applied, limit: PAGE_EVENTS_MAX };
        self.ask(Pending::Fetch(id), query, out);
    }

    /// Makes a connection a listener of a room that is loaded.
    pub(super) fn listen(&mut self, conn: Conn, id: RoomId) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let Some(session) = self.sessions.get_mut(conn as usize).and_then(Option::as_mut) else { return };
        if session.listens_to(id) || !session.hears(id) {
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

    /// Answers a `join` of a connection that listens to the room.
    pub(super) fn answer_join(&mut self, conn: Conn, info: RoomInfo, after: Option<Seq>, out: Out) {
        let Some(session) = self.session(conn) else { return };
        let (Some(user), hears) = (session.user, session.hears(info.id)) else { return };
        let asker = Asker { conn, serial: session.serial };
        if !hears {
            return self.send_joined(conn, info, after, Vec::new(), false, out);
        }
        let id = info.id;
        let Some(info) = self.current_info(info, user) else {
            return self.reread(asker, user, id, after, out);
        };
        let Some(room) = self.rooms.get(&id) else { return };
        match room.replay(after, None) {
            Replay::Events { events, gap } => self.send_joined(conn, info, after, events, gap, out),
            Replay::Read(seq) => {
                let query = Query::EventsAfter { room: info.id, after: seq, limit: PAGE_EVENTS_MAX };
                self.ask(Pending::Replay { asker, info, after: seq }, query, out);
            }
        }
    }

    /// The room must be read again before the answer to a `join`.
    fn reread(&mut self, asker: Asker, user: UserId, room: RoomId, after: Option<Seq>, out: Out) {
        let pending = Pending::Reread { asker, room, after, was_listening: true };
        self.ask(pending, Query::RoomInfo { room, user }, out);
    }

    /// Answers one room of a `resume` of a connection that listens to the room. Many stand at the same place
    /// after an outage: the store is asked once for all of them, and they get one text.
    pub(super) fn answer_resume(&mut self, asker: Asker, id: RoomId, epoch: u32, seq: Seq, out: Out) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        if let Some(text) = room.answer(epoch, seq) {
            out.push(Effect::Share { conn: asker.conn, text });
            return;
        }
        match room.replay(Some(seq), Some(epoch)) {
            Replay::Events { events, gap } => {
                self.counts.resume_gaps += u64::from(gap);
                let text = resumed(id, room, seq, events, gap);
                room.keep_answer(epoch, seq, text.clone());
                self.answering.insert(id);
                out.push(Effect::Share { conn: asker.conn, text });
            }
            Replay::Read(after) => {
                let askers = room.resuming.entry(after).or_default();
                askers.push(asker);
                if askers.len() == 1 {
                    let query = Query::EventsAfter { room: id, after, limit: PAGE_EVENTS_MAX };
                    self.ask(Pending::Resume { room: id, after }, query, out);
                }
            }
        }
    }

    /// The store answered for those who stand at `after`.
    pub(super) fn resumed(&mut self, id: RoomId, after: Seq, page: Result<Page, StoreError>, out: Out) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let askers = room.resuming.remove(&after).unwrap_or_default();
        match page {
            Ok(page) => {
                let events = room.with_tail(after, page.events);
                let text = resumed(id, room, after, events, false);
                room.keep_answer(room.epoch, after, text.clone());
                self.answering.insert(id);
                for asker in askers {
                    if self.still_in(asker, id, "join", out) {
                        out.push(Effect::Share { conn: asker.conn, text: text.clone() });
                    }
                }
            }
            Err(error) => {
                for asker in askers {
                    // A `join` with `after` asks the same again.
                    self.refuse(asker, "join", Some(id), &error, out);
                }
            }
        }
    }

    /// The part of a replay that was not in memory is here: what is in memory is put behind it.
    pub(super) fn replayed(&mut self, asker: Asker, info: RoomInfo, after: Seq, page: Page, out: Out) {
        let Some(user) = self.asked(asker).and_then(|session| session.user) else { return };
        let id = info.id;
        let Some(info) = self.current_info(info, user) else {
            return self.reread(asker, user, id, Some(after), out);
        };
        let Some(room) = self.rooms.get(&id) else { return };
        let events = room.with_tail(after, page.events);
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
        let (room, epoch, head, info) = (info.id, info.epoch, info.head, Some(info));
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
        let Some(session) = self.asked(asker) else { return };
        let (Some(user), was_listening) = (session.user, session.listens_to(id)) else { return };
        if self.is_stale(user, ticket) {
            // They may have left since.
            let pending = Pending::Reread { asker, room: id, after, was_listening };
            self.ask(pending, Query::RoomInfo { room: id, user }, out);
            return;
        }
        let is_new = self.users.get_mut(&user).is_some_and(|present| {
            let is_new = !present.rooms.contains(&id);
            if is_new {
                present.rooms.push(id);
            }
            is_new
        });
        if is_new {
            // Whoever was asked for their rooms before may not name it.
            self.note_change(user);
        }
        let room = self.follow(now, id, out);
        if room.loaded {
            self.listen(asker.conn, id);
            self.answer_join(asker.conn, info, after, out);
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
                session.is_ready()
                    && session.mode == Mode::Full
                    && session.hears(info.id)
                    && !session.listens_to(info.id)
            });
            if is_full {
                self.listen(conn, info.id);
                self.answer_join(conn, info.clone(), None, out);
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
        let was_in = present.rooms.contains(&room);
        present.rooms.retain(|other| *other != room);
        let author = present.user.clone();
        for conn in present.conns.clone() {
            let Some(session) = self.session_mut(conn) else { continue };
            let mode = session.mode;
            let is_told = if let Some(at) = session.rooms.iter().position(|(other, _)| *other == room) {
                let (_, place) = session.rooms.swap_remove(at);
                self.forget_listener(now, room, mode, place);
                true
            } else {
                was_in && !session.hears(room) && session.is_for(room)
            };
            if is_told {
                self.send(conn, &ServerEnvelope::Left { room }, out);
            }
        }
        if was_in || self.rooms.get(&room).is_some_and(|room| room.roster.is_present_at(user, self.id)) {
            self.change_presence(room, author, Presence::Offline, out);
        }
    }

    /// Sends events that are in order to a room's listeners. Who is out by one of them hears of that one, and
    /// of nothing behind it.
    pub(super) fn deliver(&mut self, now: Ms, id: RoomId, events: Vec<Arc<Logged>>, out: Out) {
        let Some(room) = self.rooms.get(&id) else { return };
        let has_plain = !room.plain.is_empty();
        for (place, logged) in events.iter().enumerate() {
            let event = &logged.event;
            if let Some(user) = Self::who_is_out(id, &event.kind, event.user.id)
                && let Some(present) = self.users.get(&user)
            {
                let conns = present.conns.iter().copied();
                let listening = conns.filter(|conn| {
                    self.session(*conn).is_some_and(|s| s.mode == Mode::Full && s.listens_to(id))
                });
                // What goes to all listeners goes to those who listen after this step.
                let texts = events[..=place].iter().map(|logged| logged.full());
                out.extend(listening.flat_map(|conn| {
                    texts.clone().map(move |text| Effect::Share { conn, text: text.clone() })
                }));
                self.detach(now, user, id, out);
                // They may be in again since.
                self.look(Look::Attach { user, room: id }, out);
            }
            let plain = if has_plain { logged.plain().cloned() } else { None };
            out.push(Effect::Fanout { room: id, full: Some(logged.full().clone()), plain });
        }
    }

    /// A room does not exist any more.
    pub(super) fn forget_room(&mut self, now: Ms, id: RoomId, out: Out) {
        let is_in = |present: &&Present| present.rooms.contains(&id);
        let users: Vec<UserId> = self.users.values().filter(is_in).map(|present| present.user.id).collect();
        for user in users {
            self.detach(now, user, id, out);
        }
        let Some(room) = self.rooms.remove(&id) else { return };
        out.push(Effect::Unfollow(Topic::Room(id)));
        let gone = StoreError::NotFound;
        for waiter in room.waiting {
            match waiter {
                Waiter::Welcome(asker) => self.room_missed(now, asker, out),
                Waiter::Join { asker, .. } => self.refuse(asker, "join", Some(id), &gone, out),
                Waiter::Attach { .. } => {}
            }
        }
        for asker in room.resuming.into_values().flatten() {
            self.refuse(asker, "join", Some(id), &gone, out);
        }
    }

    /// One of the rooms that a connection waits for is here, or will never be.
    fn room_missed(&mut self, now: Ms, asker: Asker, out: Out) {
        let Some(session) = self.session_mut(asker.conn).filter(|s| s.serial == asker.serial) else { return };
        let Phase::Starting(starting) = &mut session.phase else { return };
        starting.rooms_missing -= 1;
        if starting.rooms_missing == 0 {
            self.welcome(now, asker.conn, out);
        }
    }
}

/// The answer to a `resume`: nothing in it is about the reader.
fn resumed(id: RoomId, room: &Room, after: Seq, events: Vec<Event>, gap: bool) -> Arc<Encoded> {
    let (epoch, head, after) = (room.epoch, room.applied, Some(after));
    encode_shared(&ServerEnvelope::Joined { room: id, epoch, head, events, gap, after, info: None })
}

/// Tells all connections of those who are in a room from now on.
pub(super) fn tell_membership(entered: &Entered, out: Out) {
    for user in entered.users.iter().copied() {
        let hint = Hint::Membership { user, room: entered.info.id, member: true };
        out.push(Effect::Publish { topic: Topic::User(user), hint });
    }
}

/// Tells all hubs, this one too, of events that were committed.
pub(super) fn publish_events(events: Vec<Event>, out: Out) {
    for event in events {
        let topic = Topic::Room(event.room);
        out.push(Effect::Publish { topic, hint: Hint::Event(Arc::new(Logged::new(event))) });
    }
}
