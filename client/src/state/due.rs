//! What the client owes after each input: the greeting of a new connection, the room of the route, missing
//! events, cursors, presence, unsent messages. Handlers change the state; what follows from it is done here.

use shared::protocol::{ClientEnvelope, Presence, RESUME_ROOMS_MAX, Resume};

use super::{AWAY_AFTER_MS, Effect, State};
use crate::link::Phase;
use crate::room::ASK_TIMEOUT_MS;
use crate::route::Route;
use shared::model::{LOBBY, RoomId};

impl State {
    /// The socket is open: says where this client stands in each room that it follows.
    pub(super) fn opened(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.link.phase(), Phase::Connecting { .. }) {
            return;
        }
        self.link.opened(self.now);
        let mut resume = Vec::new();
        let current = self.current.iter().copied();
        let others = self.rooms.keys().copied().filter(|id| self.current != Some(*id));
        for id in current.chain(others).collect::<Vec<_>>() {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            if resume.len() == RESUME_ROOMS_MAX {
                room.timeline.forget();
            } else if let Some(seq) = room.resume(self.now) {
                resume.push(Resume { room: id, epoch: room.timeline.epoch(), seq });
            }
        }
        effects.push(Effect::Transmit(ClientEnvelope::Hello { resume }));
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.route_asked_at = None;
        self.outbox.disconnected();
        for room in self.rooms.values_mut() {
            room.disconnected();
        }
    }

    /// Finds the room of the route, and closes and opens rooms as it changes.
    pub(super) fn settle_route(&mut self) {
        let current = match &self.route {
            Route::Lobby => self.rooms.contains_key(&LOBBY).then_some(LOBBY),
            Route::Lab => None,
            route => self.rooms.values().find(|room| room.route() == *route).map(|room| room.info.id),
        };
        if current == self.current {
            return;
        }
        let left = std::mem::replace(&mut self.current, current);
        if let Some((id, room)) = left.and_then(|id| Some((id, self.rooms.get_mut(&id)?))) {
            room.new_line = None;
            room.at_latest = true;
            self.settle_room(id, false);
        }
        if let Some(room) = current.and_then(|id| self.rooms.get_mut(&id)) {
            room.new_line = (room.unread > 0).then_some(room.read);
        }
    }

    /// Whether the route names a room that one is not in (as far as is known).
    pub(super) fn lacks_room(&self) -> bool {
        self.current.is_none() && matches!(self.route, Route::Room(_) | Route::Direct(_))
    }

    pub(super) fn do_what_is_due(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        if self.link.tick(now, effects) {
            self.disconnected();
        }
        self.notices.retain(|notice| now < notice.until);
        for room in self.rooms.values_mut() {
            room.expire(now);
        }
        if !self.link.is_online() {
            return;
        }
        let mut transmit = |envelope| effects.push(Effect::Transmit(envelope));

        let presence = self.presence();
        if presence != self.presence_told && now >= self.presence_not_before {
            self.presence_told = presence;
            transmit(ClientEnvelope::Presence { presence });
        }
        if self.lacks_room() && self.route_asked_at.is_none_or(|at| now >= at + ASK_TIMEOUT_MS) {
            self.route_asked_at = Some(now);
            match &self.route {
                Route::Room(name) => transmit(ClientEnvelope::Join { room: name.to_string(), after: None }),
                Route::Direct(user) => transmit(ClientEnvelope::Direct { user: *user }),
                Route::Lobby | Route::Lab => {}
            }
        }
        for (id, room) in self.rooms.iter_mut() {
            let is_shown = self.current == Some(*id);
            if let Some(envelope) = room.ask(now, is_shown) {
                transmit(envelope);
            }
            let members = if is_shown { room.members_due(now) } else { None };
            members.into_iter().chain(room.read_due(now)).for_each(&mut transmit);
        }
        let rooms = &self.rooms;
        for envelope in self.outbox.due(now, |room: RoomId| rooms.contains_key(&room)) {
            transmit(envelope);
        }
    }

    /// Whether the person is here.
    fn presence(&self) -> Presence {
        let is_hidden_long = self.hidden_since.is_some_and(|since| self.now - since >= AWAY_AFTER_MS);
        if self.is_idle || is_hidden_long { Presence::Away } else { Presence::Online }
    }
}
