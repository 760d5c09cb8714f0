//! One room as its member sees it: the timeline, who is there, what is unread, and what has to be asked for
//! to have it complete. Pure; it must not know the connection or other rooms.

use shared::model::{LOBBY, Ms, RoomName, Seq, UserId};
use shared::protocol::{
    CROWD, ClientEnvelope, Event, EventKind, LIST_MAX, Person, Presence, RoomInfo, RoomKind, TYPING_MS,
    UNREAD_MAX, User,
};

use crate::map::Map;
use crate::route::Route;
use crate::timeline::Timeline;

/// Most events held of a room whose newest events are shown.
pub const SHOWN_EVENTS_MAX: usize = 300;
/// Most events held of a room in which the person reads back.
pub const READING_EVENTS_MAX: usize = 1_000;
/// Most events held of a room that is not shown.
pub const HIDDEN_EVENTS_MAX: usize = 100;
/// How long a question for events may stay without an answer; then it is asked again.
pub const ASK_TIMEOUT_MS: Ms = 5_000;
/// How long an event that is known to be in the log may take to come by itself; then it is asked for.
pub const EVENT_GRACE_MS: Ms = 1_000;
/// Shortest time between two `read` of a room.
pub const READ_EVERY_MS: Ms = 1_000;
/// Shortest time between two `typing` of a room.
pub const TYPING_EVERY_MS: Ms = 3_000;

/// Somebody who is typing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typist {
    pub user: User,
    pub until: Ms,
}

/// Events that the view wants and that do not come by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Want {
    #[default]
    Nothing,
    /// The page after the run.
    Newer,
    /// The newest page.
    Newest,
}

/// A room one is in.
#[derive(Clone, Debug)]
pub struct Room {
    /// Who and what the room is. Its `head`, `read`, `unread` and `mentioned` are as of the last report: use
    /// those of this struct.
    pub info: RoomInfo,
    pub timeline: Timeline,
    pub draft: String,
    /// Others who are typing now, in the order they began.
    pub typing: Vec<Typist>,
    /// Those known to be here, with their presence.
    pub people: Map<UserId, Person>,
    /// How many are present.
    pub online: u32,
    /// How many are members; 0 until it is known.
    pub members: u32,
    /// The own cursor: the highest `seq` seen on any device since it was last set back.
    pub read: Seq,
    /// Messages of others after the cursor, at most `UNREAD_MAX`.
    pub unread: u32,
    /// Those among them that mention the reader.
    pub mentioned: u32,
    /// Where reading stopped when the room was opened: the "new" line stands after it.
    pub new_line: Option<Seq>,
    /// Whether the view shows the newest event.
    pub at_latest: bool,
    /// The time of the newest event that was seen here; 0 when there was none.
    pub latest_at: Ms,

    /// The count of unread messages up to `counted`, and of mentions among them, as the server gave it or the
    /// run shows it.
    base: u32,
    base_mentioned: u32,
    counted: Seq,
    /// Unread messages after `counted`, and whether they mention the reader.
    later: Vec<(Seq, bool)>,
    /// Up to which event `info` tells how the room is, but for its counts. Of what is after it not all may be here
    /// yet: an acknowledgement can come before the events that stand before it.
    told: Seq,
    /// How often the cursor was set back.
    read_version: u32,
    /// The reader set the cursor back: until they leave the room, what they see counts for nothing.
    is_held: bool,

    want: Want,
    /// Whether a question for the newest page (true) or for what follows (false) is under way, and since when.
    asked: Option<(bool, Ms)>,
    ask_not_before: Ms,
    /// Events that are known to be in the log may still come by themselves.
    event_expected_until: Ms,
    older_asked_at: Option<Ms>,
    /// When to ask who is here; `None`: that was done.
    members_due_at: Option<Ms>,
    /// The cursor as the server was told, and as it is known to have it.
    read_sent: Seq,
    read_known: Seq,
    read_not_before: Ms,
    typing_not_before: Ms,
}

impl Room {
    /// A room as the server reports it, with the draft that waits for it.
    pub fn new(info: RoomInfo, draft: String) -> Self {
        Self {
            timeline: Timeline::new(info.epoch, info.head),
            draft,
            typing: Vec::new(),
            people: Map::default(),
            online: 0,
            members: 0,
            read: info.read,
            unread: info.unread,
            mentioned: info.mentioned,
            new_line: None,
            at_latest: true,
            latest_at: 0,
            base: info.unread,
            base_mentioned: info.mentioned,
            counted: info.head,
            later: Vec::new(),
            told: info.head,
            read_version: info.read_version,
            is_held: false,
            want: Want::Nothing,
            asked: None,
            ask_not_before: 0,
            event_expected_until: 0,
            older_asked_at: None,
            members_due_at: Some(0),
            read_sent: info.read,
            read_known: info.read,
            read_not_before: 0,
            typing_not_before: 0,
            info,
        }
    }

    /// The room's own address.
    pub fn route(&self) -> Route {
        match (self.info.kind, &self.info.name, &self.info.peer) {
            (RoomKind::Private | RoomKind::Group, ..) => Route::Private(self.info.id),
            (_, _, Some(peer)) => Route::Direct(peer.id),
            (_, Some(name), None) if self.info.id != LOBBY => Route::Room(name.clone()),
            _ => Route::Lobby,
        }
    }

    /// What the room is called: its name, or those of the others.
    pub fn title(&self) -> String {
        match &self.info.name {
            Some(name) => name.to_string(),
            None => {
                let others = self.info.peer.iter().chain(&self.info.people);
                let names: Vec<&str> = others.map(|user| user.name.as_str()).collect();
                if names.is_empty() { "Only you".to_owned() } else { names.join(", ") }
            }
        }
    }

    /// The unread messages that the reader wants to know of: in a quiet room the mentions alone.
    pub fn notable(&self) -> u32 {
        if self.info.quiet { self.mentioned } else { self.unread }
    }

    /// Whether older events are being asked for.
    pub fn is_loading_older(&self) -> bool {
        self.older_asked_at.is_some()
    }

    /// Takes the server's report of the room. A stale one changes only what cannot be stale.
    pub fn report(&mut self, info: RoomInfo) {
        if info.epoch != self.timeline.epoch() {
            // Another log: its numbers mean other events.
            self.timeline = Timeline::new(info.epoch, info.head);
            self.later.clear();
            self.counted = 0;
            self.told = 0;
            self.new_line = None;
            self.set_back(info.read, info.read_version);
        }
        self.timeline.note_head(info.head);
        self.told = self.told.max(info.head);
        self.read_taken(info.read, info.read_version);
        self.read = self.read.max(info.read);
        if info.head >= self.counted {
            self.counted = info.head;
            self.base = info.unread;
            self.base_mentioned = info.mentioned;
            self.later.retain(|(seq, _)| *seq > info.head);
        }
        self.info = info;
    }

    /// Whether an event tells something of how the room is. What is known is as of some event: those before it
    /// have nothing to add.
    pub fn is_news(&self, seq: Seq) -> bool {
        seq > self.told
    }

    /// Takes a live event.
    pub fn live(&mut self, event: &Event, me: UserId, blocked: &[UserId]) {
        self.typing.retain(|typist| typist.user.id != event.user.id);
        let is_news = self.is_news(event.seq);
        self.told = self.told.max(event.seq);
        let info = &mut self.info;
        match &event.kind {
            EventKind::Message { .. } => {
                let is_counted =
                    event.seq <= self.counted || self.later.iter().any(|(seq, _)| *seq == event.seq);
                if is_unread(event, self.read, me, blocked)
                    && !is_counted
                    && self.later.len() < UNREAD_MAX as usize
                {
                    self.later.push((event.seq, mentions(event, me)));
                }
            }
            EventKind::Deletion { of } => {
                self.later.retain(|(seq, _)| seq != of);
                // Whether it is among those that were counted cannot be seen where they are not held.
                let is_held = self.timeline.is_live() && self.timeline.first() <= self.read + 1;
                if !is_held && self.base > 0 && (self.read + 1..=self.counted).contains(of) {
                    self.want_report();
                }
            }
            _ if !is_news => {}
            EventKind::Joined => self.came(&event.user, me),
            EventKind::Invited { target } => self.came(target, me),
            EventKind::Left => self.went(event.user.id),
            EventKind::Removed { target } => self.went(target.id),
            EventKind::Transferred { target } => info.owner = Some(target.id),
            EventKind::Muted { target, until } if target.id == me => {
                info.muted_until = Some(*until).filter(|until| *until > event.at);
            }
            EventKind::Topic { text } => {
                info.topic = Some(text.clone()).filter(|text| !text.as_str().is_empty())
            }
            EventKind::RoomRenamed { text } => {
                info.name = RoomName::parse(text.as_str()).ok().or_else(|| info.name.take());
            }
            EventKind::Archived { archived } => info.archived = *archived,
            EventKind::SlowMode { seconds } => info.slow_seconds = *seconds,
            EventKind::Muted { .. }
            | EventKind::Deleted
            | EventKind::Created
            | EventKind::Renamed { .. }
            | EventKind::Unknown => {}
        }
    }

    /// Somebody is a member now. The lobby lists only those present.
    fn came(&mut self, user: &User, me: UserId) {
        let others = &mut self.info.people;
        if self.info.kind == RoomKind::Group
            && user.id != me
            && others.iter().all(|other| other.id != user.id)
        {
            others.push(user.clone());
        }
        if self.members > 0 && self.info.id != LOBBY {
            if self.people.len() < LIST_MAX && !self.people.contains_key(&user.id) {
                self.people.insert(user.id, Person { user: user.clone(), presence: Presence::Offline });
            }
            self.members += 1;
        }
    }

    fn went(&mut self, user: UserId) {
        if self.info.owner == Some(user) {
            // The room is somebody else's now.
            self.want_report();
        }
        self.info.people.retain(|other| other.id != user);
        if self.info.id != LOBBY {
            self.people.remove(&user);
            self.members = self.members.saturating_sub(1);
        }
    }

    /// Gives somebody another name wherever they are shown as they are now.
    pub fn rename(&mut self, user: &User) {
        let others = self.info.peer.iter_mut().chain(&mut self.info.people);
        for other in others.filter(|other| other.id == user.id) {
            other.clone_from(user);
        }
        if let Some(person) = self.people.get_mut(&user.id) {
            person.user.clone_from(user);
        }
        for typist in self.typing.iter_mut().filter(|typist| typist.user.id == user.id) {
            typist.user.clone_from(user);
        }
    }

    /// Counts the unread messages again: exactly where the timeline holds all that could be unread.
    pub fn count(&mut self, me: UserId, blocked: &[UserId]) {
        let timeline = &self.timeline;
        if timeline.is_live() && timeline.first() <= self.read + 1 && !timeline.is_behind() {
            let unread = timeline.events().rev().take_while(|event| event.seq > self.read);
            (self.base, self.base_mentioned) = (0, 0);
            for event in unread.filter(|event| is_unread(event, self.read, me, blocked)) {
                self.base += 1;
                self.base_mentioned += u32::from(mentions(event, me));
            }
            self.counted = timeline.last();
            self.later.clear();
        }
        if self.read >= self.timeline.head() {
            (self.base, self.base_mentioned) = (0, 0);
        }
        self.later.retain(|(seq, _)| *seq > self.read);
        self.unread = (self.base + self.later.len() as u32).min(UNREAD_MAX);
        let mentioned = self.later.iter().filter(|(_, is_mention)| *is_mention).count();
        self.mentioned = (self.base_mentioned + mentioned as u32).min(self.unread);
    }

    /// The person has seen the events up to `seq` here.
    pub fn seen(&mut self, seq: Seq) {
        if !self.is_held {
            self.read = self.read.max(seq.min(self.timeline.head()));
        }
    }

    /// The reader has left the room, or answers in it: what they see counts again.
    pub fn release(&mut self) {
        self.is_held = false;
    }

    /// The cursor moved on some device; `unread` and `mentioned` are the server's counts after it.
    pub fn read_elsewhere(&mut self, seq: Seq, version: u32, unread: u32, mentioned: u32) {
        if self.read_taken(seq, version) {
            // What is unread again may not be held here: the server has counted all of it.
            self.counted = self.timeline.head();
            self.later.clear();
            self.new_line = Some(seq);
        } else if version < self.read_version || seq < self.read {
            return;
        }
        self.read = seq;
        self.later.retain(|(later, _)| *later > seq);
        // The count may or may not contain what has come since.
        let later_mentioned = self.later.iter().filter(|(_, is_mention)| *is_mention).count();
        self.base = unread.saturating_sub(self.later.len() as u32);
        self.base_mentioned = mentioned.saturating_sub(later_mentioned as u32);
    }

    /// What the server has to be told of the cursor now.
    pub fn read_due(&mut self, now: Ms) -> Option<ClientEnvelope> {
        if self.read <= self.read_sent || now < self.read_not_before {
            return None;
        }
        self.read_sent = self.read;
        self.read_not_before = now + READ_EVERY_MS;
        let version = Some(self.read_version);
        Some(ClientEnvelope::Read { room: self.info.id, seq: self.read, version })
    }

    /// The cursor is not to wait any longer.
    pub fn read_now(&mut self) {
        self.read_not_before = 0;
    }

    /// The server did not take the cursor; it can be told again at `at`.
    pub fn read_refused(&mut self, at: Ms) {
        self.read_sent = self.read_known;
        self.read_not_before = at;
    }

    /// The server has this cursor. True if it was set back, and the own one with it.
    fn read_taken(&mut self, seq: Seq, version: u32) -> bool {
        let is_back = version > self.read_version;
        if is_back {
            self.set_back(seq, version);
            self.is_held = true;
        } else if version == self.read_version {
            self.read_known = self.read_known.max(seq);
            self.read_sent = self.read_sent.max(seq);
        }
        is_back
    }

    fn set_back(&mut self, seq: Seq, version: u32) {
        self.read = seq;
        self.read_known = seq;
        self.read_sent = seq;
        self.read_version = version;
    }

    /// Whether the server is to be told that the person types.
    pub fn typing_due(&mut self, now: Ms) -> bool {
        let is_due = now >= self.typing_not_before;
        if is_due {
            self.typing_not_before = now + TYPING_EVERY_MS;
        }
        is_due
    }

    /// The person has sent what they typed: the next word is news again.
    pub fn typing_done(&mut self) {
        self.typing_not_before = 0;
    }

    /// Somebody else is typing.
    pub fn typist(&mut self, now: Ms, user: User) {
        let until = now + TYPING_MS;
        match self.typing.iter_mut().find(|typist| typist.user.id == user.id) {
            Some(typist) => *typist = Typist { user, until },
            None => self.typing.push(Typist { user, until }),
        }
    }

    /// Takes a change of presence.
    pub fn presence(&mut self, online: u32, people: Vec<Person>) {
        self.online = online;
        for person in people {
            self.rename(&person.user);
            let id = person.user.id;
            if person.presence != Presence::Offline {
                self.people.insert(id, person);
            } else if self.info.id == LOBBY {
                // Everyone is a member of the lobby: it lists only those present.
                self.people.remove(&id);
            } else if let Some(known) = self.people.get_mut(&id) {
                *known = person;
            }
        }
        if self.info.id == LOBBY && self.members > 0 {
            self.members = online;
        }
    }

    /// Takes the list of members.
    pub fn list(&mut self, online: u32, members: u32, people: Vec<Person>) {
        self.online = online;
        self.members = members;
        self.people = people.into_iter().map(|person| (person.user.id, person)).collect();
    }

    /// Who is here has to be asked once on each connection.
    pub fn members_due(&mut self, now: Ms) -> Option<ClientEnvelope> {
        self.members_due_at.filter(|at| now >= *at)?;
        self.members_due_at = None;
        Some(ClientEnvelope::Members { room: self.info.id })
    }

    /// The server did not say who is here; it can at `at`.
    pub fn members_refused(&mut self, at: Ms) {
        self.members_due_at = Some(at);
    }

    /// The `hello` of a new connection asks for what this room lacks. Gives the last `seq` held.
    pub fn resume(&mut self, now: Ms) -> Option<Seq> {
        let is_live = self.timeline.is_live();
        if is_live {
            self.asked = Some((false, now));
        }
        is_live.then(|| self.timeline.last())
    }

    /// The connection is gone, and with it every question and signal.
    pub fn disconnected(&mut self) {
        self.asked = None;
        self.older_asked_at = None;
        self.members_due_at = Some(0);
        // What was told last may not have arrived: the next report of the room says.
        self.read_sent = self.read_known;
        self.typing.clear();
    }

    /// The view wants the page after the run.
    pub fn want_newer(&mut self) {
        if self.timeline.is_loaded() && !self.timeline.is_live() {
            self.want = Want::Newer;
        }
    }

    /// The view wants the newest events.
    pub fn want_newest(&mut self) {
        if !self.timeline.is_live() {
            self.want = Want::Newest;
        }
    }

    /// The `history` to ask for when the view wants older events.
    pub fn ask_older(&mut self, now: Ms) -> Option<ClientEnvelope> {
        let is_needed = self.timeline.is_loaded() && !self.timeline.is_complete();
        let is_asked = self.older_asked_at.is_some_and(|at| now - at < ASK_TIMEOUT_MS);
        if !is_needed || is_asked {
            return None;
        }
        self.older_asked_at = Some(now);
        Some(ClientEnvelope::History { room: self.info.id, before: self.timeline.first() })
    }

    /// Older events came, or will not come.
    pub fn older_done(&mut self) {
        self.older_asked_at = None;
    }

    /// The `join` that is due now.
    pub fn ask(&mut self, now: Ms, is_shown: bool) -> Option<ClientEnvelope> {
        let newest = self.needs(is_shown)?;
        if now < self.ask_at(newest) {
            return None;
        }
        self.asked = Some((newest, now));
        let last = if self.timeline.is_loaded() { self.timeline.last() } else { self.timeline.head() };
        let after = (!newest).then_some(last);
        Some(ClientEnvelope::Join { room: self.info.id.to_string(), after })
    }

    /// An answer to `join` has been taken. `progressed`: it changed the timeline. `is_full`: the log may go on
    /// after it with more than what is about to come live.
    pub fn answered(&mut self, now: Ms, progressed: bool, is_full: bool) {
        self.want = Want::Nothing;
        // An answer that brought nothing must not be asked for in a circle.
        self.asked = (!progressed && self.timeline.is_behind()).then_some((false, now));
        if !is_full {
            self.event_expected_until = now + EVENT_GRACE_MS;
        }
    }

    /// The server could not answer a `join`; it can at `at`.
    pub fn ask_refused(&mut self, at: Ms) {
        self.asked = None;
        self.ask_not_before = at;
    }

    /// A `seq` of one's own is known before its event.
    pub fn acked(&mut self, now: Ms, seq: Seq) {
        if seq > self.timeline.head() && !self.timeline.is_behind() {
            self.event_expected_until = now + EVENT_GRACE_MS;
        }
        self.timeline.note_head(seq);
    }

    /// Keeps the room within its bounds. `grew_back`: what was added are older events.
    pub fn trim(&mut self, is_shown: bool, grew_back: bool) {
        if !is_shown {
            if self.timeline.is_live() {
                self.timeline.keep_newest(HIDDEN_EVENTS_MAX);
            } else if self.timeline.is_loaded() {
                self.timeline.forget();
            }
        } else if self.at_latest && self.timeline.is_live() && !grew_back {
            self.timeline.keep_newest(SHOWN_EVENTS_MAX);
        } else if grew_back || self.timeline.is_live() {
            self.timeline.keep_oldest(READING_EVENTS_MAX);
        } else {
            self.timeline.keep_newest(READING_EVENTS_MAX);
        }
    }

    /// Forgets who has stopped typing.
    pub fn expire(&mut self, now: Ms) {
        self.typing.retain(|typist| now < typist.until);
        if self.older_asked_at.is_some_and(|at| now - at >= ASK_TIMEOUT_MS) {
            self.older_asked_at = None;
        }
    }

    /// When this room has something to do next, given that the connection stands (or not).
    pub fn wake_at(&self, is_shown: bool, is_online: bool) -> Option<Ms> {
        let typing = self.typing.iter().map(|typist| typist.until).min();
        let older = self.older_asked_at.map(|at| at + ASK_TIMEOUT_MS);
        let read = (is_online && self.read > self.read_sent).then_some(self.read_not_before);
        let ask = if is_online { self.needs(is_shown).map(|newest| self.ask_at(newest)) } else { None };
        let members = self.members_due_at.filter(|_| is_online && is_shown);
        [typing, older, read, ask, members].into_iter().flatten().min()
    }

    /// The server is to say how the room is. A crowd does not ask all at once: it hears of it some time.
    fn want_report(&mut self) {
        if self.want == Want::Nothing && self.online as usize <= CROWD {
            self.want = Want::Newer;
        }
    }

    /// What has to be asked for: the newest page (true) or what follows the run (false).
    fn needs(&self, is_shown: bool) -> Option<bool> {
        if self.want == Want::Newest || (is_shown && !self.timeline.is_loaded()) {
            Some(true)
        } else {
            (self.want == Want::Newer || self.timeline.is_behind()).then_some(false)
        }
    }

    fn ask_at(&self, newest: bool) -> Ms {
        match self.asked {
            Some((asked, at)) if asked == newest => at + ASK_TIMEOUT_MS,
            // What is missing at the end of the log is likely to be on its way. A hole cannot fill by itself.
            _ if self.want == Want::Nothing && !newest && !self.timeline.has_hole() => {
                self.ask_not_before.max(self.event_expected_until)
            }
            _ => self.ask_not_before,
        }
    }
}

/// Whether a message mentions somebody, by name or with all.
pub fn mentions(event: &Event, user: UserId) -> bool {
    matches!(&event.kind, EventKind::Message { mentions, all, .. } if *all || mentions.contains(&user))
}

/// Whether an event is one to count: a message of somebody else who is not blocked, after the cursor.
fn is_unread(event: &Event, read: Seq, me: UserId, blocked: &[UserId]) -> bool {
    let author = event.user.id;
    let is_heard = author != me && !blocked.contains(&author);
    event.seq > read && is_heard && matches!(event.kind, EventKind::Message { .. })
}
