//! The client as one function: `State::update(now, input)` gives effects. Everything the page shows is in
//! `State`; everything it does is an `Effect` that the app carries out. It must not know a browser, a socket,
//! a clock or a random source.

mod due;
mod received;

use std::cmp::Ordering;

use shared::acts::{Act, Entry, List};
use shared::model::{Body, LOBBY, Line, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{CROWD, ClientEnvelope, Limits, Listing, Presence, RoomKind, ServerEnvelope, User};
use shared::rights::{self, Right, Role, Standing};

use crate::account::Secret;
use crate::link::{Banner, Link, Phase};
use crate::map::{Map, sorted};
use crate::outbox::{Outbox, Unsent};
use crate::room::{ASK_TIMEOUT_MS, Room};
use crate::route::Route;
use crate::rows::{self, Row};

/// How long the tab may be hidden until the person counts as away.
pub const AWAY_AFTER_MS: Ms = 5 * 60_000;
/// How long a notice stays.
pub const NOTICE_MS: Ms = 10_000;
/// Most notices, and most announcements, that are kept.
pub const NOTICES_MAX: usize = 5;
/// Time between two inputs after which the machine is taken to have slept.
pub const CLOCK_JUMP_MS: Ms = 60_000;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The first input: what the storage held, and where the page is. `utc_offset_minutes` is what local
    /// time is ahead of UTC (the negative of `Date.getTimezoneOffset`).
    Start {
        route: Route,
        outbox: Vec<Unsent>,
        drafts: Vec<(RoomId, String)>,
        utc_offset_minutes: i32,
    },

    /// The socket of the last `Effect::Connect` is open.
    Opened,
    /// That socket is closed, or could not be opened (code 1006). A socket that was given up (by
    /// `Effect::Disconnect` or a later `Effect::Connect`) must not be reported.
    Closed {
        code: u16,
    },
    /// A frame came on that socket.
    Received(ServerEnvelope),

    /// The time of `State::wake_at` has come. It does no harm at any other time.
    Tick,
    /// The tab is shown or hidden.
    Visibility(bool),
    /// `pageshow`, `online`, a clock jump: the connection may be dead.
    Woke,
    /// The browser says that it is offline.
    Offline,
    /// The person has not touched the page for five minutes, or touches it again.
    Idle(bool),
    /// The address changed (back, forward, a link inside the page). Nothing is pushed.
    Navigated(Route),

    /// The composer's text changed.
    Drafted {
        room: RoomId,
        text: String,
    },
    /// Send a text; `reference` is made by the app.
    Submit {
        room: RoomId,
        text: String,
        reference: Ref,
    },
    /// Send a refused message again, as the newest.
    Retry(Ref),
    /// Send all refused messages of a room again.
    RetryAll(RoomId),
    /// Forget a refused message.
    Discard(Ref),
    /// The view is near the top of what is held.
    LoadOlder(RoomId),
    /// The view is near the bottom of what is held, and that is not live.
    LoadNewer(RoomId),
    /// The view wants the newest events (again).
    JumpToLatest(RoomId),
    /// Whether the view is at the bottom.
    Scrolled {
        room: RoomId,
        at_latest: bool,
    },
    /// The newest event that really is on the screen of a visible tab.
    Seen {
        room: RoomId,
        seq: Seq,
    },
    /// Make a public room and open it.
    CreateRoom(String),
    /// Make a private room and open it.
    CreatePrivateRoom(String),
    /// Open the group with these users.
    OpenGroup(Vec<UserId>),
    /// Open a public room by its name.
    JoinRoom(String),
    /// Open the direct conversation with a user.
    OpenDirect(UserId),
    LeaveRoom(RoomId),
    /// Take another name.
    Rename(String),
    AskDirectory,
    AskMembers(RoomId),
    /// Do something to a room, a user or the server.
    Act(Act),
    /// Look for users whose names begin so, where the page lists them.
    Look(String),
    /// Read on in a list.
    More(List),
    /// What was made and can be seen once has been copied.
    ForgetMade,
    /// What came of `Effect::AskSession`: whether the page's session is somebody's, and whether guests may
    /// come.
    Session {
        is_somebody: bool,
        guests: bool,
    },
    /// The page was loaded anew for a session that was void, and this one is, too.
    Refused,
    /// Do not wait for the next attempt to connect.
    TryNow,
    DismissNotice(u64),
    DismissAnnouncement(u64),
}

/// What the app is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a socket. One that is there already is given up first.
    Connect,
    /// Give up the socket and report nothing more about it.
    Disconnect {
        code: u16,
    },
    Transmit(ClientEnvelope),
    /// Keep an unsent message under its `ref`, replacing what is there. It comes before its transmission.
    SaveUnsent(Unsent),
    ForgetUnsent(Ref),
    /// Keep a draft; an empty text removes it.
    SaveDraft {
        room: RoomId,
        text: String,
    },
    /// Change the address: a new entry of the history, or in place of the present one.
    Navigate {
        route: Route,
        replace: bool,
    },
    /// The session is void: load the page again.
    RenewSession,
    /// Ask whether the session is good; `Input::Session` has the answer, if one comes.
    AskSession,
    /// Load another page.
    Load(&'static str),
}

/// Why somebody cannot write in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    Archived,
    /// Until this time, by the server's clock.
    Muted(Ms),
    /// The other one of a direct conversation is blocked.
    Blocked(UserId),
}

/// What an act made and nobody can see again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The act's name.
    pub act: String,
    /// A token, or the path of an address.
    pub secret: Secret,
}

/// A list as far as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub list: List,
    pub rows: Vec<Entry>,
    /// Whether it may go on.
    pub goes_on: bool,
}

/// How serious a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    Info,
    Error,
}

/// A short message to the person that goes away by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub id: u64,
    pub kind: NoticeKind,
    pub text: String,
    until: Ms,
}

/// What the operator says; it stays until it is dismissed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub id: u64,
    pub text: String,
    pub at: Ms,
}

/// Everything the page shows. Fields are for reading; only `update` changes them.
#[derive(Clone, Debug)]
pub struct State {
    /// Who one is; known from the first `welcome` on.
    pub me: Option<User>,
    pub role: Role,
    /// People whose messages are hidden.
    pub blocked: Vec<UserId>,
    /// What the page's lists hold.
    pub lists: Vec<Rows>,
    pub made: Option<Made>,
    pub rooms: Map<RoomId, Room>,
    pub route: Route,
    pub limits: Limits,
    /// The public rooms, as last asked for.
    pub directory: Option<Vec<Listing>>,
    pub announcements: Vec<Announcement>,
    pub notices: Vec<Notice>,
    /// Whether the tab is shown.
    pub visible: bool,
    /// What to add to the browser's clock for the server's, in milliseconds.
    pub clock_offset_ms: Ms,
    pub utc_offset_minutes: i32,

    link: Link,
    outbox: Outbox,
    /// Drafts of rooms that are not (yet, or any more) among `rooms`.
    drafts: Map<RoomId, String>,
    /// The room that the route shows.
    current: Option<RoomId>,
    /// When the room of the route was asked for on this connection.
    route_asked_at: Option<Ms>,
    /// The name of the room that is being made, and whether it is private.
    creating: Option<(String, bool)>,
    /// Whether the next group that comes is to be opened.
    opens_group: bool,
    /// The lists that were asked for since something changed, and the one that is being read on.
    asked_lists: Vec<List>,
    lists_not_before: Ms,
    more: Option<List>,
    /// How the names of those looked for begin.
    looked: Line,
    is_idle: bool,
    hidden_since: Option<Ms>,
    /// The presence that the server was told; `Offline` if it has to be told again.
    presence_told: Presence,
    presence_not_before: Ms,
    last_id: u64,
    /// The time of the last input, by a clock that does not go back.
    now: Ms,
    /// What to add to the browser's clock for that one.
    skew_ms: Ms,
}

impl State {
    /// `seed` decides the random waits.
    pub fn new(seed: u64) -> Self {
        Self {
            me: None,
            role: Role::Guest,
            blocked: Vec::new(),
            lists: Vec::new(),
            made: None,
            rooms: Map::default(),
            route: Route::Lobby,
            limits: Limits::default(),
            directory: None,
            announcements: Vec::new(),
            notices: Vec::new(),
            visible: true,
            clock_offset_ms: 0,
            utc_offset_minutes: 0,
            link: Link::new(seed),
            outbox: Outbox::default(),
            drafts: Map::default(),
            current: None,
            route_asked_at: None,
            creating: None,
            opens_group: false,
            asked_lists: Vec::new(),
            lists_not_before: 0,
            more: None,
            looked: Line::default(),
            is_idle: false,
            hidden_since: None,
            presence_told: Presence::Online,
            presence_not_before: 0,
            last_id: 0,
            now: 0,
            skew_ms: 0,
        }
    }

    /// Takes what happened at `now` (the browser's clock, in milliseconds since 1970) and says what to do.
    pub fn update(&mut self, now: Ms, input: Input) -> Vec<Effect> {
        let effects = &mut Vec::new();
        let is_woken = self.pass_time(now);
        // What a socket has to say comes before it may be given up: after that it would be taken for news of
        // the next one.
        let is_of_socket = matches!(input, Input::Opened | Input::Closed { .. } | Input::Received(_));
        if is_woken && !is_of_socket {
            self.hurry(effects);
        }
        self.take(input, effects);
        if is_woken && is_of_socket {
            self.hurry(effects);
        }
        self.settle_route();
        self.do_what_is_due(effects);
        std::mem::take(effects)
    }

    /// When `Input::Tick` is wanted next, by the browser's clock.
    pub fn wake_at(&self) -> Option<Ms> {
        let is_online = self.link.is_online();
        let rooms = self.rooms.iter();
        let rooms = rooms.filter_map(|(id, room)| room.wake_at(self.current == Some(*id), is_online));
        let notices = self.notices.iter().map(|notice| notice.until);
        let away =
            self.hidden_since.map(|since| since + AWAY_AFTER_MS).filter(|at| is_online && *at > self.now);
        let is_owed = is_online && self.presence_told == Presence::Offline;
        let presence = is_owed.then_some(self.presence_not_before);
        let route = if is_online && self.lacks_room() { self.route_asked_at } else { None };
        let is_list_owed = is_online && self.owed_lists().next().is_some();
        let lists = is_list_owed.then_some(self.lists_not_before);
        let sends = if is_online { self.outbox.wake_at(|room| self.rooms.contains_key(&room)) } else { None };
        let muted = self.current_room().and_then(|room| room.info.muted_until);
        let muted =
            muted.map(|until| until + self.skew_ms - self.clock_offset_ms).filter(|at| *at > self.now);
        rooms
            .chain(muted)
            .chain(lists)
            .chain(notices)
            .chain(self.link.wake_at(self.now))
            .chain(away)
            .chain(presence)
            .chain(route.map(|at| at + ASK_TIMEOUT_MS))
            .chain(sends)
            .min()
            .map(|at| at.max(self.now + 1) - self.skew_ms)
    }

    /// The room that the route shows; `None` while it is being opened, and for routes without a room.
    pub fn current_room(&self) -> Option<&Room> {
        self.rooms.get(&self.current?)
    }

    /// The rooms in the order of the list: the lobby, public and private rooms by name, then direct ones and
    /// groups by the latest event.
    pub fn room_list(&self) -> Vec<&Room> {
        sorted(self.rooms.values(), |a, b| {
            let is_talk = |room: &Room| matches!(room.info.kind, RoomKind::Direct | RoomKind::Group);
            (is_talk(a), a.info.id != LOBBY).cmp(&(is_talk(b), b.info.id != LOBBY)).then_with(|| {
                let latest = if is_talk(a) { b.latest_at.cmp(&a.latest_at) } else { Ordering::Equal };
                latest.then_with(|| a.title().cmp(&b.title()))
            })
        })
    }

    /// What a room's view shows, from top to bottom.
    pub fn rows(&self, room: RoomId) -> Vec<Row<'_>> {
        let Some(shown) = self.rooms.get(&room) else { return Vec::new() };
        let unsent = self.outbox.of_room(room);
        rows::rows(shown, unsent, self.me.as_ref(), &self.blocked, self.utc_offset_minutes)
    }

    /// Unread messages of all rooms, those of quiet rooms only where they mention the reader.
    pub fn total_unread(&self) -> u32 {
        self.rooms.values().map(Room::notable).sum()
    }

    /// What one is in a room.
    pub fn standing(&self, room: &Room) -> Standing {
        match &self.me {
            Some(me) if room.info.owner == Some(me.id) => Standing::Owner,
            _ => Standing::Member,
        }
    }

    /// Whether one may do something in a room one is in.
    pub fn may(&self, right: Right, room: &Room) -> bool {
        rights::may(right, self.role, self.standing(room), room.info.kind)
    }

    /// Whether one may do something that is not about a room.
    pub fn may_here(&self, right: Right) -> bool {
        rights::may(right, self.role, Standing::Member, RoomKind::Public)
    }

    /// What keeps the person from writing in a room.
    pub fn barrier(&self, room: &Room) -> Option<Barrier> {
        let info = &room.info;
        if info.archived {
            return Some(Barrier::Archived);
        }
        if let Some(until) = info.muted_until.filter(|until| *until > self.server_time()) {
            return Some(Barrier::Muted(until));
        }
        let peer = info.peer.as_ref().filter(|peer| self.blocked.contains(&peer.id));
        peer.map(|peer| Barrier::Blocked(peer.id))
    }

    /// The rows of a list, if they have come.
    pub fn list(&self, list: List) -> Option<&Rows> {
        self.lists.iter().find(|rows| rows.list == list)
    }

    /// How many messages of a room wait for `Retry` or `Discard`.
    pub fn failed_count(&self, room: RoomId) -> usize {
        self.outbox.failed(room).count()
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        self.link.phase()
    }

    /// What to say about the connection, if anything. `now` is the browser's clock.
    pub fn banner(&self, now: Ms) -> Option<Banner> {
        self.link.banner(now + self.skew_ms)
    }

    /// Sets the steady clock: one that stands where the browser's goes back. True after a jump ahead, as
    /// after sleep.
    fn pass_time(&mut self, now: Ms) -> bool {
        let before = self.now;
        self.now = before.max(now + self.skew_ms);
        self.skew_ms = self.now - now;
        before != 0 && self.now - before > CLOCK_JUMP_MS
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let now = self.now;
        match input {
            Input::Start { route, outbox, drafts, utc_offset_minutes } => {
                self.route = route;
                self.outbox = Outbox::new(outbox);
                self.drafts = drafts.into_iter().collect();
                self.utc_offset_minutes = utc_offset_minutes;
                self.link.connect(now, effects);
            }
            Input::Opened => self.opened(effects),
            Input::Closed { code } => {
                // A browser does not say why a socket was not opened: this does.
                let is_refused = matches!(self.link.phase(), Phase::Connecting { .. });
                self.link.closed(now, code, effects);
                self.disconnected();
                if is_refused {
                    effects.push(Effect::AskSession);
                }
            }
            Input::Received(envelope) => {
                self.link.heard(now);
                self.received(envelope, effects);
            }
            Input::Tick => {}
            Input::Visibility(visible) => {
                self.visible = visible;
                self.hidden_since = if visible { None } else { self.hidden_since.or(Some(now)) };
                if visible {
                    self.hurry(effects);
                } else {
                    // The tab may be about to close: what was read must not wait.
                    self.rooms.values_mut().for_each(Room::read_now);
                }
            }
            Input::Woke => self.hurry(effects),
            Input::Offline => self.link.probe(now, effects),
            Input::Idle(is_idle) => self.is_idle = is_idle,
            Input::Navigated(route) => self.go(route),
            Input::Drafted { room, text } => self.drafted(room, text, effects),
            Input::Submit { room, text, reference } => self.submit(room, &text, reference, effects),
            Input::Retry(reference) => self.retry(reference, effects),
            Input::RetryAll(room) => {
                for reference in self.outbox.failed(room).collect::<Vec<_>>() {
                    self.retry(reference, effects);
                }
            }
            Input::Discard(reference) => {
                if self.outbox.discard(reference) {
                    effects.push(Effect::ForgetUnsent(reference));
                }
            }
            Input::LoadOlder(room) => {
                if let Some(room) = self.rooms.get_mut(&room).filter(|_| self.link.is_online()) {
                    effects.extend(room.ask_older(now).map(Effect::Transmit));
                }
            }
            Input::LoadNewer(room) => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.want_newer();
                }
            }
            Input::JumpToLatest(room) => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.at_latest = true;
                    room.want_newest();
                }
            }
            Input::Scrolled { room, at_latest } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.at_latest = at_latest;
                }
            }
            Input::Seen { room, seq } => {
                if self.visible
                    && let Some(shown) = self.rooms.get_mut(&room)
                {
                    shown.seen(seq);
                    self.settle_room(room, false);
                }
            }
            Input::CreateRoom(name) => self.create(name, false, effects),
            Input::CreatePrivateRoom(name) => self.create(name, true, effects),
            Input::OpenGroup(users) => {
                self.opens_group = self.request(ClientEnvelope::Group { users }, effects);
            }
            Input::JoinRoom(name) => match RoomName::parse(&name) {
                Ok(name) => self.open(Route::room(name.as_str()).unwrap_or_default(), false, effects),
                Err(error) => self.notice(NoticeKind::Error, error.to_string()),
            },
            Input::OpenDirect(user) => self.open(Route::Direct(user), false, effects),
            Input::LeaveRoom(room) => {
                self.request(ClientEnvelope::Leave { room }, effects);
            }
            Input::Rename(name) => match UserName::parse(&name) {
                Ok(_) => {
                    self.request(ClientEnvelope::Rename { name }, effects);
                }
                Err(error) => self.notice(NoticeKind::Error, error.to_string()),
            },
            Input::AskDirectory => {
                self.request(ClientEnvelope::Directory, effects);
            }
            Input::AskMembers(room) => {
                if self.link.is_online() {
                    effects.push(Effect::Transmit(ClientEnvelope::Members { room }));
                }
            }
            Input::Act(act) => {
                self.request(ClientEnvelope::Act(act), effects);
            }
            Input::Look(text) => {
                self.looked = Line::new(&text);
                self.lists.retain(|rows| rows.list != List::Users);
                self.asked_lists.retain(|list| *list != List::Users);
            }
            Input::More(list) => self.read_on(list, effects),
            Input::ForgetMade => self.made = None,
            Input::Session { is_somebody, guests } => {
                if !is_somebody && matches!(self.link.phase(), Phase::Waiting { .. }) {
                    self.link.stop();
                    effects.push(if guests { Effect::RenewSession } else { Effect::Load("/sign-in") });
                }
            }
            Input::Refused => {
                self.link.stop();
                effects.push(Effect::Load("/sign-in"));
            }
            Input::TryNow => self.hurry(effects),
            Input::DismissNotice(id) => self.notices.retain(|notice| notice.id != id),
            Input::DismissAnnouncement(id) => self.announcements.retain(|shown| shown.id != id),
        }
    }

    fn create(&mut self, name: String, private: bool, effects: &mut Vec<Effect>) {
        if let Err(error) = RoomName::parse(&name) {
            return self.notice(NoticeKind::Error, error.to_string());
        }
        if self.request(ClientEnvelope::Create { name: name.clone(), private }, effects) {
            self.creating = Some((name, private));
        }
    }

    fn drafted(&mut self, room: RoomId, text: String, effects: &mut Vec<Effect>) {
        let Some(shown) = self.rooms.get_mut(&room).filter(|shown| shown.draft != text) else { return };
        shown.draft.clone_from(&text);
        let is_told = !text.is_empty() && self.link.is_online() && shown.online as usize <= CROWD;
        effects.push(Effect::SaveDraft { room, text });
        if is_told && shown.typing_due(self.now) {
            effects.push(Effect::Transmit(ClientEnvelope::Typing { room }));
        }
    }

    fn submit(&mut self, room: RoomId, text: &str, reference: Ref, effects: &mut Vec<Effect>) {
        let at = self.server_time();
        let (Some(me), Some(shown)) = (&self.me, self.rooms.get_mut(&room)) else { return };
        let body = match Body::parse(text, self.limits.body_chars) {
            Ok(body) => body.as_str().to_owned(),
            Err(error) => return self.notice(NoticeKind::Error, error.to_string()),
        };
        if self.outbox.is_full() {
            let text = "Too many messages are waiting to be sent. Retry or delete some first.";
            return self.notice(NoticeKind::Error, text.to_owned());
        }
        let unsent = Unsent { reference, user: me.id, room, body, at, failed: None };
        effects.push(Effect::SaveUnsent(self.outbox.push(unsent)));
        if !std::mem::take(&mut shown.draft).is_empty() {
            effects.push(Effect::SaveDraft { room, text: String::new() });
        }
        shown.typing_done();
        // What one answers to has been read, and one's own message is to be seen.
        shown.new_line = None;
        shown.at_latest = true;
        shown.release();
        shown.want_newest();
    }

    fn retry(&mut self, reference: Ref, effects: &mut Vec<Effect>) {
        let at = self.server_time();
        effects.extend(self.outbox.retry(at, reference).map(Effect::SaveUnsent));
    }

    /// Shows a route and puts it into the address bar.
    fn open(&mut self, route: Route, replace: bool, effects: &mut Vec<Effect>) {
        if route != self.route {
            effects.push(Effect::Navigate { route: route.clone(), replace });
        }
        self.go(route);
    }

    fn go(&mut self, route: Route) {
        self.route = route;
        self.route_asked_at = None;
        self.lists.clear();
        self.asked_lists.clear();
        self.looked = Line::default();
        self.made = None;
    }

    /// Transmits what the person asked for. False without a connection, and then they are told.
    fn request(&mut self, envelope: ClientEnvelope, effects: &mut Vec<Effect>) -> bool {
        let is_online = self.link.is_online();
        if is_online {
            effects.push(Effect::Transmit(envelope));
        } else {
            self.notice(
                NoticeKind::Error,
                "Not connected. Try again when the connection is back.".to_owned(),
            );
        }
        is_online
    }

    fn notice(&mut self, kind: NoticeKind, text: String) {
        let id = self.next_id();
        self.notices.retain(|notice| notice.text != text);
        if self.notices.len() >= NOTICES_MAX {
            self.notices.remove(0);
        }
        self.notices.push(Notice { id, kind, text, until: self.now + NOTICE_MS });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The present time by the server's clock.
    fn server_time(&self) -> Ms {
        self.now - self.skew_ms + self.clock_offset_ms
    }

    fn hurry(&mut self, effects: &mut Vec<Effect>) {
        if self.link.hurry(self.now, effects) {
            self.disconnected();
        }
    }

    /// Brings a room's count, bounds and unsent messages in line with its timeline.
    fn settle_room(&mut self, id: RoomId, grew_back: bool) {
        let (Some(room), Some(me)) = (self.rooms.get_mut(&id), &self.me) else { return };
        room.count(me.id, &self.blocked);
        room.trim(self.current == Some(id), grew_back);
        let last = if room.timeline.is_live() { room.timeline.last() } else { Seq::MAX };
        self.outbox.settle(id, last);
    }
}

#[cfg(test)]
mod tests;
