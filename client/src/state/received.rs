//! What each envelope of the server changes.

use std::rc::Rc;

use shared::model::{Ms, Ref, RoomId, RoomName, Seq};
use shared::protocol::{
    ClientEnvelope, ErrorCode, Event, EventKind, Failure, Limits, Presence, RoomInfo, RoomKind,
    ServerEnvelope, User,
};

use super::{Announcement, Effect, NOTICES_MAX, NoticeKind, State};
use crate::room::{ASK_TIMEOUT_MS, Room};
use crate::route::Route;

/// A server that asks to try again at once still gets a moment.
const RETRY_MS_MIN: Ms = 100;

/// What `joined` holds, without its envelope.
struct Page {
    epoch: u32,
    head: Seq,
    events: Vec<Event>,
    is_newest: bool,
    info: Option<RoomInfo>,
}

impl State {
    pub(super) fn received(&mut self, envelope: ServerEnvelope, effects: &mut Vec<Effect>) {
        match envelope {
            ServerEnvelope::Welcome { user, rooms, limits, now, .. } => {
                self.welcomed(user, rooms, limits, now, effects);
            }
            ServerEnvelope::Joined { room, epoch, head, events, gap, after, info } => {
                let page = Page { epoch, head, events, is_newest: gap || after.is_none(), info };
                self.joined(room, page, effects);
            }
            ServerEnvelope::Left { room } => self.remove_room(room, effects),
            ServerEnvelope::History { room, before, events } => self.history(room, before, events, effects),
            ServerEnvelope::Ack { reference, room, seq, .. } => {
                self.confirm(reference, seq, effects);
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.acked(self.now, seq);
                }
                self.settle_room(room, false);
            }
            ServerEnvelope::Error(failure) => self.failed(failure, effects),
            ServerEnvelope::Event(event) => self.event(event, effects),
            ServerEnvelope::Read { room, seq, unread, .. } => {
                if let Some(shown) = self.rooms.get_mut(&room) {
                    shown.read_elsewhere(seq, unread);
                    self.settle_room(room, false);
                }
            }
            ServerEnvelope::Renamed { user } => {
                for room in self.rooms.values_mut() {
                    room.rename(&user);
                }
                self.me = Some(user);
            }
            ServerEnvelope::Presence { room, online, people } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.presence(online, people);
                }
            }
            ServerEnvelope::Typing { room, user } => {
                if let Some(room) = self.rooms.get_mut(&room)
                    && self.me.as_ref().is_none_or(|me| me.id != user.id)
                {
                    room.typist(self.now, user);
                }
            }
            ServerEnvelope::Members { room, online, total, people } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.list(online, total, people);
                }
            }
            ServerEnvelope::Directory { rooms } => self.directory = Some(rooms),
            ServerEnvelope::Announcement { text, at } => {
                let id = self.next_id();
                if self.announcements.len() >= NOTICES_MAX {
                    self.announcements.remove(0);
                }
                self.announcements.push(Announcement { id, text, at });
            }
            ServerEnvelope::Room { .. }
            | ServerEnvelope::Me { .. }
            | ServerEnvelope::Done { .. }
            | ServerEnvelope::List { .. } => {}
            ServerEnvelope::Pong { n, now } => {
                self.link.ponged(n);
                self.set_clock(now);
            }
        }
    }

    fn welcomed(
        &mut self,
        user: User,
        rooms: Vec<RoomInfo>,
        limits: Limits,
        now: Ms,
        effects: &mut Vec<Effect>,
    ) {
        self.link.welcomed(self.now);
        self.set_clock(now);
        self.limits = limits;
        self.presence_told = Presence::Online;
        if self.me.as_ref().is_some_and(|me| me.id != user.id) {
            // Another session in the same page: nothing of the old one is theirs.
            self.rooms.clear();
            self.drafts.clear();
            self.creating = None;
        }
        self.outbox.keep_user(user.id);
        self.me = Some(user);
        let gone = self.rooms.keys().filter(|id| rooms.iter().all(|info| info.id != **id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.remove_room(id, effects);
        }
        for info in rooms {
            let id = info.id;
            self.report(info);
            self.settle_room(id, false);
        }
        if let Some(name) = self.creating.take() {
            let parsed = RoomName::parse(&name).ok();
            let is_it = |room: &&Room| parsed.is_some() && room.info.name == parsed;
            let made = self.rooms.values().find(is_it).map(Room::route);
            match made {
                Some(route) => self.open(route, false, effects),
                None => {
                    effects.push(Effect::Transmit(ClientEnvelope::Create {
                        name: name.clone(),
                        private: false,
                    }));
                    self.creating = Some(name);
                }
            }
        }
    }

    fn joined(&mut self, id: RoomId, page: Page, effects: &mut Vec<Effect>) {
        let is_new = page.info.is_some_and(|info| self.report(info));
        self.confirm_all(&page.events, effects);
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let is_full = page.events.len() >= self.limits.page_events;
        let before = (room.timeline.is_loaded(), room.timeline.first(), room.timeline.last());
        room.latest_at = page.events.last().map_or(room.latest_at, |event| event.at.max(room.latest_at));
        if page.is_newest {
            room.timeline.page_newest(page.epoch, page.head, page.events);
        } else {
            room.timeline.page_after(page.epoch, page.head, page.events);
        }
        let after = (room.timeline.is_loaded(), room.timeline.first(), room.timeline.last());
        room.answered(self.now, before != after, is_full);
        let (kind, route) = (room.info.kind, room.route());
        self.settle_room(id, false);
        if is_new && kind == RoomKind::Public && !self.lacks_room() && self.creating.take().is_some() {
            self.open(route, false, effects);
        }
    }

    fn history(&mut self, id: RoomId, before: Seq, events: Vec<Event>, effects: &mut Vec<Effect>) {
        self.confirm_all(&events, effects);
        let Some(room) = self.rooms.get_mut(&id) else { return };
        room.older_done();
        let is_start = before == room.timeline.first() && events.len() < self.limits.page_events;
        room.timeline.page_before(events, is_start);
        self.settle_room(id, true);
    }

    fn event(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let id = event.room;
        self.confirm_all(std::slice::from_ref(&event), effects);
        let (Some(me), Some(room)) = (&self.me, self.rooms.get_mut(&id)) else { return };
        let is_news = event.seq > room.timeline.head();
        let renamed = match &event.kind {
            EventKind::Renamed { name } if is_news => Some(User { id: event.user.id, name: name.clone() }),
            _ => None,
        };
        let was_read = room.unread == 0;
        room.live(&event, me.id);
        room.latest_at = room.latest_at.max(event.at);
        room.timeline.apply(Rc::new(event));
        room.count(me.id);
        let is_watched = self.visible && room.at_latest;
        if self.current == Some(id) && was_read && room.unread > 0 && !is_watched {
            room.new_line = Some(room.read);
        }
        self.settle_room(id, false);
        if let Some(user) = renamed {
            for room in self.rooms.values_mut() {
                room.rename(&user);
            }
        }
    }

    fn failed(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        let retry_at = failure.retry_ms.map(|ms| self.now + Ms::from(ms).max(RETRY_MS_MIN));
        if let Some(reference) = failure.reference {
            match retry_at {
                Some(at) => self.outbox.hold(reference, at),
                None => {
                    effects.extend(self.outbox.fail(reference, failure.message).map(Effect::SaveUnsent));
                }
            }
            return;
        }
        let request = failure.request.as_deref().unwrap_or_default();
        match retry_at {
            Some(at) => self.put_off(request, failure.room, at),
            None => match request {
                "join" | "direct" => match failure.room.filter(|id| self.rooms.contains_key(id)) {
                    Some(id) if matches!(failure.code, ErrorCode::NotFound | ErrorCode::NotMember) => {
                        self.remove_room(id, effects);
                    }
                    Some(_) => {}
                    None if self.lacks_room() => self.open(Route::Lobby, true, effects),
                    None => {}
                },
                "history" => self.each_room(failure.room, Room::older_done),
                _ => {}
            },
        }
        if request == "create" {
            self.creating = None;
        }
        // What the person has not asked for is asked again, or not missed; and so is the room of an address.
        if matches!(request, "create" | "rename" | "leave" | "directory")
            || (matches!(request, "join" | "direct") && retry_at.is_none())
        {
            self.notice(NoticeKind::Error, failure.message);
        }
    }

    /// The server did not do it now; what it is asked for without the person is asked again at `at`. It does
    /// not always say for which room.
    fn put_off(&mut self, request: &str, room: Option<RoomId>, at: Ms) {
        match request {
            "join" => self.each_room(room, |room| room.ask_refused(at)),
            "history" => self.each_room(room, Room::older_done),
            "read" => self.each_room(room, |room| room.read_refused(at)),
            "members" => self.each_room(room, |room| room.members_refused(at)),
            "presence" => {
                self.presence_told = Presence::Offline;
                self.presence_not_before = at;
            }
            "ping" => self.link.answered(),
            _ => {}
        }
        if matches!(request, "join" | "direct") && self.lacks_room() {
            self.route_asked_at = Some(at - ASK_TIMEOUT_MS);
        }
    }

    fn each_room(&mut self, only: Option<RoomId>, mut act: impl FnMut(&mut Room)) {
        for (_, room) in self.rooms.iter_mut().filter(|(id, _)| only.is_none_or(|only| only == **id)) {
            act(room);
        }
    }

    /// Takes what the server says of a room. True if it is new here.
    fn report(&mut self, info: RoomInfo) -> bool {
        if let Some(room) = self.rooms.get_mut(&info.id) {
            room.report(info);
            return false;
        }
        let draft = self.drafts.remove(&info.id).unwrap_or_default();
        self.rooms.insert(info.id, Room::new(info, draft));
        true
    }

    fn remove_room(&mut self, id: RoomId, effects: &mut Vec<Effect>) {
        let Some(room) = self.rooms.remove(&id) else { return };
        if !room.draft.is_empty() {
            self.drafts.insert(id, room.draft);
        }
        if self.current == Some(id) {
            self.open(Route::Lobby, true, effects);
        }
    }

    /// The own messages among these events are durable.
    fn confirm_all(&mut self, events: &[Event], effects: &mut Vec<Effect>) {
        for event in events {
            if let (Some(reference), Some(me)) = (event.reference, &self.me)
                && me.id == event.user.id
            {
                self.confirm(reference, event.seq, effects);
            }
        }
    }

    fn confirm(&mut self, reference: Ref, seq: Seq, effects: &mut Vec<Effect>) {
        if self.outbox.confirm(reference, seq) {
            effects.push(Effect::ForgetUnsent(reference));
        }
    }

    fn set_clock(&mut self, server_now: Ms) {
        self.clock_offset_ms = server_now - (self.now - self.skew_ms);
    }
}
