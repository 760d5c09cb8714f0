//! What the client owes after each input: the greeting of a new connection, the room of the route, missing
//! events, cursors, presence, unsent messages. Handlers change the state; what follows from it is done here.

use shared::acts::List;
use shared::protocol::{ClientEnvelope, Presence, RESUME_ROOMS_MAX, Resume};
use shared::rights::Right;

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
        self.opens_group = false;
        self.asked_lists.clear();
        self.more = None;
        self.outbox.disconnected();
        for room in self.rooms.values_mut() {
            room.disconnected();
        }
    }

    /// Finds the room of the route, and closes and opens rooms as it changes.
    pub(super) fn settle_route(&mut self) {
        let current = match &self.route {
            Route::Lobby => self.rooms.contains_key(&LOBBY).then_some(LOBBY),
            route => self.rooms.values().find(|room| room.route() == *route).map(|room| room.info.id),
        };
        if current == self.current {
            return;
        }
        let left = std::mem::replace(&mut self.current, current);
        if let Some((id, room)) = left.and_then(|id| Some((id, self.rooms.get_mut(&id)?))) {
            room.new_line = None;
            room.at_latest = true;
            room.release();
            self.settle_room(id, false);
        }
        if let Some(room) = current.and_then(|id| self.rooms.get_mut(&id)) {
            room.new_line = (room.unread > 0).then_some(room.read);
            room.release();
        }
    }

    /// Whether the route names a room that one is not in (as far as is known).
    pub(super) fn lacks_room(&self) -> bool {
        self.current.is_none() && matches!(self.route, Route::Room(_) | Route::Direct(_) | Route::Private(_))
    }

    /// The lists that the page of the route shows.
    fn wanted_lists(&self) -> Vec<List> {
        let mut lists = match &self.route {
            Route::Settings => vec![List::Sessions, List::Blocks, List::Bots],
            Route::RoomSettings(id) => match self.rooms.get(id) {
                Some(room) if self.may(Right::MakeHook, room) => vec![List::Hooks],
                _ => Vec::new(),
            },
            Route::Admin => vec![List::Reports, List::Bans, List::Links, List::Audit],
            _ => Vec::new(),
        };
        lists.retain(|list| {
            self.may_here(match list {
                List::Bots => Right::MakeBot,
                List::Reports => Right::ReadReports,
                List::Bans => Right::Ban,
                List::Links => Right::InviteToServer,
                List::Audit => Right::ReadAudit,
                List::Sessions | List::Blocks | List::Hooks | List::Users => Right::CreatePublic,
            })
        });
        if matches!(self.route, Route::RoomSettings(_) | Route::Admin) && !self.looked.as_str().is_empty() {
            lists.push(List::Users);
        }
        lists
    }

    /// Those of them that were not asked for since something changed.
    pub(super) fn owed_lists(&self) -> impl Iterator<Item = List> {
        self.wanted_lists().into_iter().filter(|list| !self.asked_lists.contains(list))
    }

    fn list_request(&self, list: List, before: Option<String>) -> ClientEnvelope {
        let room = match self.route {
            Route::RoomSettings(id) if list == List::Hooks => Some(id),
            _ => None,
        };
        let text = (list == List::Users).then(|| self.looked.clone());
        ClientEnvelope::List { list, room, text, before }
    }

    /// Asks for what follows the rows of a list.
    pub(super) fn read_on(&mut self, list: List, effects: &mut Vec<Effect>) {
        let last = self.list(list).and_then(|rows| rows.rows.last()).map(|entry| entry.id.clone());
        if self.request(self.list_request(list, last), effects) {
            self.more = Some(list);
        }
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
                Route::Private(id) => transmit(ClientEnvelope::Join { room: id.to_string(), after: None }),
                Route::Direct(user) => transmit(ClientEnvelope::Direct { user: *user }),
                _ => {}
            }
        }
        let lists = if now < self.lists_not_before { Vec::new() } else { self.owed_lists().collect() };
        for list in lists {
            self.asked_lists.push(list);
            transmit(self.list_request(list, None));
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
