//! What hubs tell each other, and what time does: a hub looks again at what may have changed.

use shared::model::{LOBBY, Ms, RoomId, Seq, UserId};
use shared::protocol::{EventKind, PAGE_EVENTS_MAX, PlainMessage, RoomInfo, SERVER_NAME, ServerEnvelope};

use super::{Effect, HEADS_EVERY_MS, Hub, Look, Out, Pending, Query, ROOM_IDLE_MS, Ticket, encode_shared};
use crate::broker::{Hint, Topic};
use crate::store::{Account, Cursor, StoreError};

impl Hub {
    pub(super) fn hint(&mut self, now: Ms, hint: Hint, out: Out) {
        match hint {
            Hint::Event(logged) => {
                let id = logged.event.room;
                let Some(room) = self.rooms.get_mut(&id) else { return };
                let delivered = room.apply(logged);
                self.deliver(now, id, delivered, out);
                self.note_hole(now, id, out);
            }
            Hint::Head { room: id, seq } => {
                let Some(room) = self.rooms.get_mut(&id) else { return };
                room.note_head(seq);
                if room.has_hole() {
                    self.fetch(id, out);
                }
            }
            // One's own is known already.
            Hint::Presence { origin, .. } | Hint::Present { origin, .. } if origin == self.id => {}
            Hint::Presence { origin, room: id, user, presence, version, after } => {
                if self.heard_of(now, origin)
                    && let Some(room) = self.rooms.get_mut(&id)
                    && room.versions.change(origin, version, after)
                {
                    self.presence_in(origin, id, &user, presence, true, out);
                }
            }
            Hint::Present { origin, room: id, version, part, parts, first, last, people } => {
                if self.heard_of(now, origin)
                    && let Some(room) = self.rooms.get_mut(&id)
                    && room.versions.part(origin, version, part, parts)
                {
                    self.present_at(origin, id, (first, last), people, out);
                }
            }
            Hint::PresenceWanted { origin, room, known } => self.presence_wanted(origin, room, &known, out),
            Hint::Alive { origin, changed } => self.alive(now, origin, &changed, out),
            Hint::Leaving { origin } => self.peer_leaves(now, origin),
            Hint::CutOff => self.cut_off(),
            Hint::Followed { user } => self.user_followed(user, out),
            Hint::Doubt => self.doubt(now),
            Hint::Typing { room, user } => {
                let full = Some(encode_shared(&ServerEnvelope::Typing { room, user }));
                out.push(Effect::Fanout { room, full, plain: None });
            }
            Hint::Read { user, room, cursor } => {
                self.note_change(user);
                let Cursor { seq, version, unread, mentioned } = cursor;
                let read = ServerEnvelope::Read { room, seq, version, unread, mentioned };
                // Who is out of the room hears nothing more of it; who is not in it yet gets the cursor with it.
                if self.users.get(&user).is_some_and(|present| present.rooms.contains(&room)) {
                    self.to_user_in(user, room, &read, out);
                }
            }
            Hint::Renamed { user } => {
                let Some(present) = self.users.get_mut(&user.id) else { return };
                let is_new = present.user != user;
                present.user = user.clone();
                self.note_change(user.id);
                // Who asked for the name they have is answered too.
                self.to_user(user.id, &ServerEnvelope::Renamed { user: user.clone() }, out);
                self.tell_presence(user.id, true, out);
                if is_new {
                    // It may be a late one, of a name that is theirs no more.
                    self.look(Look::Account { user: user.id }, out);
                }
            }
            Hint::Membership { user, room, member: true } => {
                self.note_change(user);
                let Some(present) = self.users.get(&user) else { return };
                if !present.rooms.contains(&room) || !self.is_everywhere(user, room) {
                    self.look(Look::Attach { user, room }, out);
                }
            }
            Hint::Membership { user, room, member: false } => {
                self.detach(now, user, room, out);
                // They may have come back by way of another hub, whose hint was faster.
                self.look(Look::Attach { user, room }, out);
            }
            Hint::Ended(ended) => self.ended(now, ended, out),
            Hint::User { user } => {
                self.note_change(user);
                self.look(Look::Account { user }, out);
            }
            Hint::Room { user, room } => {
                self.note_change(user);
                self.look(Look::Room { user, room }, out);
            }
            // For those who keep the door and those who post messages elsewhere.
            Hint::Rules => {}
            Hint::Announcement { text, at } => {
                let plain =
                    encode_shared(&PlainMessage { sender: SERVER_NAME.into(), message: text.clone() });
                let full = encode_shared(&ServerEnvelope::Announcement { text, at });
                out.push(Effect::Everyone { full, plain });
            }
        }
    }

    pub(super) fn tick(&mut self, now: Ms, out: Out) {
        self.end_by_time(now, out);
        let due = |user: &&UserId| {
            self.users.get(user).is_none_or(|present| present.absent_at.is_some_and(|at| at <= now))
        };
        for user in self.absent.iter().filter(due).copied().collect::<Vec<_>>() {
            self.gone(user, out);
        }
        for user in std::mem::take(&mut self.restless) {
            self.tell_presence(user, false, out);
        }
        self.look_after_peers(now, out);
        self.flush_presence(now, out);
        self.settle_doubt(now, out);
        self.stop_waiting(now, out);
        for id in std::mem::take(&mut self.holes) {
            self.note_hole(now, id, out);
        }
        for id in std::mem::take(&mut self.answering) {
            if let Some(room) = self.rooms.get_mut(&id) {
                room.forget_answers();
            }
        }
        if now - self.heads_at >= HEADS_EVERY_MS {
            self.heads_at = now;
            for id in std::mem::take(&mut self.refetch) {
                self.read_again(id, out);
            }
            for look in std::mem::take(&mut self.overlooked) {
                self.look(look, out);
            }
            let is_in_doubt = std::mem::take(&mut self.in_doubt);
            if (self.lossy || self.config.shared_store || is_in_doubt) && !self.rooms.is_empty() {
                let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
                self.ask(Pending::Heads(rooms.clone()), Query::Heads { rooms }, out);
            }
        }
        if now - self.sweep_at >= ROOM_IDLE_MS {
            self.sweep_at = now;
            let this = self.id;
            self.rooms.retain(|id, room| {
                let is_used =
                    room.has_listeners() || !room.waiting.is_empty() || now - room.idle_since < ROOM_IDLE_MS;
                // A user whose connections listen to nothing is present in it all the same.
                let keep = is_used || room.roster.of(this).next().is_some();
                if !keep {
                    out.push(Effect::Unfollow(Topic::Room(*id)));
                }
                keep
            });
        }
        self.touch(now, out);
    }

    /// Reads again what may have changed for a user who is here.
    pub(super) fn look(&mut self, look: Look, out: Out) {
        let (user, query) = match look {
            Look::Attach { user, room } | Look::Room { user, room } => (user, Query::RoomInfo { room, user }),
            Look::Account { user } | Look::Everything { user } => (user, Query::Account { user }),
        };
        if self.users.contains_key(&user) {
            self.ask(Pending::Look(look), query, out);
        }
    }

    /// A room of a user's was read again because it looks different to them.
    pub(super) fn room_looked_at(&mut self, ticket: Ticket, user: UserId, info: RoomInfo, out: Out) {
        let room = info.id;
        let info = if self.is_stale(user, ticket) { None } else { self.current_info(info, user) };
        match info {
            Some(info) => self.to_user_in(user, room, &ServerEnvelope::Room { info }, out),
            None => self.look(Look::Room { user, room }, out),
        }
    }

    /// What a user is was read again.
    pub(super) fn account_looked_at(&mut self, now: Ms, ticket: Ticket, account: Account, out: Out) {
        let user = account.user.id;
        if self.is_stale(user, ticket) {
            return self.look(Look::Account { user }, out);
        }
        // Whom somebody has blocked decides what is unread.
        let blocks = self.users.get(&user).is_some_and(|present| present.blocked != account.blocked);
        self.reconcile(now, &account, out);
        if blocks {
            self.tell_rooms(user, account.rooms, out);
        }
    }

    /// What could not be read again is, later.
    pub(super) fn not_looked_at(&mut self, now: Ms, look: Look, error: &StoreError) {
        let is_later = matches!(error, StoreError::Unavailable(_));
        match look {
            Look::Everything { user } => self.not_looked_at_everything(now, user, is_later),
            Look::Attach { .. } | Look::Room { .. } | Look::Account { .. } if is_later => {
                self.overlooked.push(look);
            }
            Look::Attach { .. } | Look::Room { .. } | Look::Account { .. } => {}
        }
    }

    /// Who was in a room and is not after an event of it.
    pub(super) fn who_is_out(room: RoomId, kind: &EventKind, author: UserId) -> Option<UserId> {
        match kind {
            EventKind::Removed { target } => Some(target.id),
            // In the lobby it only means that somebody went away.
            EventKind::Left if room != LOBBY => Some(author),
            EventKind::Left
            | EventKind::Message { .. }
            | EventKind::Deleted
            | EventKind::Deletion { .. }
            | EventKind::Created
            | EventKind::Joined
            | EventKind::Invited { .. }
            | EventKind::Transferred { .. }
            | EventKind::Muted { .. }
            | EventKind::Topic { .. }
            | EventKind::RoomRenamed { .. }
            | EventKind::Archived { .. }
            | EventKind::SlowMode { .. }
            | EventKind::Renamed { .. }
            | EventKind::Unknown => None,
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
}
