//! Who is there: what a user's connections make of them, and what a room's listeners are told.

use shared::model::{LOBBY, Ms, RoomId, UserId};
use shared::protocol::{CROWD, LIST_MAX, PLAIN_LEFT, Person, PlainMessage, Presence, ServerEnvelope, User};

use super::room::Room;
use super::{Conn, Effect, Hub, Out, PLAIN_CROWD, PRESENCE_CROWD_EVERY_MS, PRESENCE_EVERY_MS, encode_shared};
use crate::broker::{Hint, HubId, Topic};

impl Hub {
    /// Tells a user's rooms how present they are, if that changed (or `again`).
    pub(super) fn tell_presence(&mut self, user: UserId, again: bool, out: Out) {
        let Some(present) = self.users.get(&user) else { return };
        let sessions = present.conns.iter().filter_map(|conn| self.session(*conn));
        // Who has no connection just now is taken for there until that has lasted.
        let presence = sessions.map(|session| session.presence).max().unwrap_or(present.told);
        self.tell_presence_as(user, presence, again, out);
    }

    pub(super) fn tell_presence_as(&mut self, user: UserId, presence: Presence, again: bool, out: Out) {
        let Some(present) = self.users.get_mut(&user) else { return };
        if present.told == presence && (!again || presence == Presence::Offline) {
            return;
        }
        present.told = presence;
        for room in present.rooms.clone() {
            self.tell_presence_in(user, room, out);
        }
    }

    /// Tells a room how present a user is.
    pub(super) fn tell_presence_in(&mut self, user: UserId, room: RoomId, out: Out) {
        let Some(present) = self.users.get(&user) else { return };
        let (user, presence) = (present.user.clone(), present.told);
        self.change_presence(room, user, presence, out);
    }

    /// Somebody's presence here is another. This hub knows that at once; the others are told.
    pub(super) fn change_presence(&mut self, id: RoomId, user: User, presence: Presence, out: Out) {
        let version = self.peers.change(id, self.now, self.lossy);
        let after =
            self.rooms.get_mut(&id).map_or(0, |room| std::mem::replace(&mut room.versions.own, version));
        self.presence_in(self.id, id, &user, presence, true, out);
        let hint = Hint::Presence { origin: self.id, room: id, user, presence, version, after };
        out.push(Effect::Publish { topic: Topic::Room(id), hint });
    }

    /// Somebody's presence at one hub is known; `is_told`: plain listeners are told if they go.
    pub(super) fn presence_in(
        &mut self,
        origin: HubId,
        id: RoomId,
        user: &User,
        presence: Presence,
        is_told: bool,
        out: Out,
    ) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let was = room.roster.presence(user.id);
        room.roster.set(origin, user, presence);
        if room.roster.is_dirty() {
            self.presence_due.insert(id);
        }
        let is_gone = was != Presence::Offline && room.roster.presence(user.id) == Presence::Offline;
        if is_gone && is_told && (1..=PLAIN_CROWD).contains(&room.plain.len()) {
            let message = PlainMessage { sender: user.name.to_string(), message: PLAIN_LEFT.into() };
            out.push(Effect::Fanout { room: id, full: None, plain: Some(encode_shared(&message)) });
        }
    }

    pub(super) fn flush_presence(&mut self, now: Ms, out: Out) {
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
                let full = Some(encode_shared(&ServerEnvelope::Presence { room: *id, online, people }));
                out.push(Effect::Fanout { room: *id, full, plain: None });
            }
            false
        });
    }

    /// The people of the lobby: those present. In a crowd one answer serves everyone who asks for a while.
    pub(super) fn answer_lobby(&mut self, now: Ms, conn: Conn, out: Out) {
        let Some(lobby) = self.rooms.get_mut(&LOBBY) else { return };
        if lobby.roster.online() <= CROWD {
            lobby.people_text = None;
            self.answer_members(conn, LOBBY, None, out);
            return;
        }
        let kept = lobby.people_text.take().filter(|(at, _)| now - at < PRESENCE_CROWD_EVERY_MS);
        let (at, text) = kept.unwrap_or_else(|| (now, encode_shared(&lobby.people(LOBBY, None))));
        lobby.people_text = Some((at, text.clone()));
        out.push(Effect::Share { conn, text });
    }

    /// The people of a room: its members as the store knows them, or, without those, who is present.
    pub(super) fn answer_members(&self, conn: Conn, id: RoomId, members: Option<(Vec<User>, u32)>, out: Out) {
        let Some(room) = self.rooms.get(&id) else { return };
        self.send(conn, &room.people(id, members), out);
    }
}

impl Room {
    /// What is answered to `members`.
    fn people(&self, id: RoomId, members: Option<(Vec<User>, u32)>) -> ServerEnvelope {
        let online = self.roster.online() as u32;
        let mut people: Vec<Person> = self.roster.people().collect();
        let total = match members {
            None => online,
            Some((users, total)) => {
                let absent =
                    users.into_iter().filter(|user| self.roster.presence(user.id) == Presence::Offline);
                people.extend(absent.map(|user| Person { user, presence: Presence::Offline }));
                total
            }
        };
        people.sort_by(|a, b| {
            b.presence.cmp(&a.presence).then_with(|| a.user.name.as_str().cmp(b.user.name.as_str()))
        });
        people.truncate(LIST_MAX);
        ServerEnvelope::Members { room: id, online, total, people }
    }
}
