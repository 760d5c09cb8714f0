//! What each envelope of the server changes.

use std::rc::Rc;

use shared::acts::{List, ROWS_MAX};
use shared::model::{Ms, Ref, RoomId, RoomName, Seq, UserId};
use shared::protocol::{
    ClientEnvelope, ErrorCode, Event, EventKind, Failure, Limits, Presence, RoomInfo, RoomKind,
    ServerEnvelope, User,
};
use shared::rights::Role;

use super::{Announcement, Effect, Made, NOTICES_MAX, NoticeKind, Rows, State};
use crate::account::Secret;
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
        let before = self.route.clone();
        let shown = self.current_room().filter(|room| room.route() == before).map(|room| room.info.id);
        self.take_envelope(envelope, effects);
        // A room that was renamed is at another address.
        let renamed = shown.and_then(|id| self.rooms.get(&id)).map(Room::route);
        if let Some(route) = renamed.filter(|route| *route != before && self.route == before) {
            self.open(route, true, effects);
        }
    }

    fn take_envelope(&mut self, envelope: ServerEnvelope, effects: &mut Vec<Effect>) {
        match envelope {
            ServerEnvelope::Welcome { user, role, rooms, blocked, limits, now } => {
                self.standing_told(role, blocked);
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
            ServerEnvelope::Read { room, seq, version, unread, mentioned } => {
                if let Some(shown) = self.rooms.get_mut(&room) {
                    shown.read_elsewhere(seq, version, unread, mentioned);
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
                    && !self.blocked.contains(&user.id)
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
            ServerEnvelope::Room { info } => {
                let id = info.id;
                self.report(info);
                self.settle_room(id, false);
            }
            ServerEnvelope::Me { role, blocked } => self.standing_told(role, blocked),
            ServerEnvelope::Done { act, secret, .. } => self.done(act, secret),
            ServerEnvelope::List { list, rows } => {
                let goes_on = rows.len() >= ROWS_MAX;
                match self.lists.iter_mut().find(|held| held.list == list) {
                    Some(held) if self.more.take_if(|more| *more == list).is_some() => {
                        held.rows.extend(rows);
                        held.goes_on = goes_on;
                    }
                    Some(held) => *held = Rows { list, rows, goes_on },
                    None => self.lists.push(Rows { list, rows, goes_on }),
                }
            }
            ServerEnvelope::Pong { n, now } => {
                self.link.ponged(n);
                self.set_clock(now);
            }
        }
    }

    /// What one is, and whom one has blocked.
    fn standing_told(&mut self, role: Role, blocked: Vec<UserId>) {
        self.role = role;
        for room in self.rooms.values_mut() {
            room.typing.retain(|typist| !blocked.contains(&typist.user.id));
        }
        self.blocked = blocked;
        for id in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.settle_room(id, false);
        }
    }

    fn done(&mut self, act: String, secret: Option<String>) {
        // Whatever is listed may have changed; a search is as it was.
        self.asked_lists.retain(|list| *list == List::Users);
        self.more = None;
        if let Some(secret) = secret {
            let start = match act.as_str() {
                "make_invite" => "/join#",
                "make_reset" => "/reset#",
                "make_incoming_hook" => "/api/hooks/",
                _ => "",
            };
            self.made = Some(Made { act, secret: Secret([start, &secret].concat()) });
            return;
        }
        let text = match act.as_str() {
            // What they do is seen.
            "unread" | "quiet" | "block" | "delete" => return,
            "report" => "Thank you. The moderators will look at it.",
            _ => "Done.",
        };
        self.notice(NoticeKind::Info, text.to_owned());
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
        if let Some((name, private)) = self.creating.take() {
            let parsed = RoomName::parse(&name).ok();
            let is_it = |room: &&Room| parsed.is_some() && room.info.name == parsed;
            let made = self.rooms.values().find(is_it).map(Room::route);
            match made {
                Some(route) => self.open(route, false, effects),
                None => {
                    let name_again = name.clone();
                    effects.push(Effect::Transmit(ClientEnvelope::Create { name: name_again, private }));
                    self.creating = Some((name, private));
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
        let (kind, route, name) = (room.info.kind, room.route(), room.info.name.clone());
        let is_made = is_new
            && !self.lacks_room()
            && match kind {
                RoomKind::Public => self.creating.take_if(|(_, private)| !*private).is_some(),
                // Others may put one into a private room at any time.
                RoomKind::Private => {
                    let own = |(own, _): &mut (String, bool)| RoomName::parse(own).ok() == name;
                    self.creating.take_if(own).is_some()
                }
                RoomKind::Direct | RoomKind::Group => false,
            };
        self.settle_room(id, false);
        if is_made || kind == RoomKind::Group && std::mem::take(&mut self.opens_group) {
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
        let is_news = room.is_news(event.seq);
        let renamed = match &event.kind {
            EventKind::Renamed { name } if is_news => Some(User { id: event.user.id, name: name.clone() }),
            _ => None,
        };
        let was_read = room.unread == 0;
        room.live(&event, me.id, &self.blocked);
        room.latest_at = room.latest_at.max(event.at);
        room.timeline.apply(Rc::new(event));
        room.count(me.id, &self.blocked);
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
        // Whoever is muted does not wait for hours to be heard.
        let retry_ms = failure.retry_ms.filter(|_| failure.code != ErrorCode::Muted);
        let retry_at = retry_ms.map(|ms| self.now + Ms::from(ms).max(RETRY_MS_MIN));
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
        if request == "group" {
            self.opens_group = false;
        }
        // What the person has not asked for is asked again, or not missed; and so is the room of an address.
        let is_asked_again = match request {
            "" | "history" | "read" | "members" | "presence" | "typing" | "ping" | "hello" => true,
            "join" | "direct" | "list" => retry_at.is_some(),
            _ => false,
        };
        if !is_asked_again {
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
            "list" => {
                // It does not say which.
                self.asked_lists.clear();
                self.more = None;
                self.lists_not_before = at;
            }
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
        if self.current == Some(id) || self.route == Route::RoomSettings(id) {
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
