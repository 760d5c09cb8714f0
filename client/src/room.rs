//! One room as its member sees it: the timeline, who is there, what is unread, and what has to be asked for
//! to have it complete. Pure; it must not know the connection or other rooms.

use shared::model::{LOBBY, Ms, Seq, UserId};
use shared::protocol::{
    ClientEnvelope, Event, EventKind, LIST_MAX, Person, Presence, RoomInfo, TYPING_MS, UNREAD_MAX, User,
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
    /// Who and what the room is. Its `head`, `read` and `unread` are as of the last report: use `read` and
    /// `unread` of this struct.
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
    /// The own cursor: the highest `seq` seen on any device.
    pub read: Seq,
    /// Messages of others after the cursor, at most `UNREAD_MAX`.
    pub unread: u32,
    /// Where reading stopped when the room was opened: the "new" line stands after it.
    pub new_line: Option<Seq>,
    /// Whether the view shows the newest event.
    pub at_latest: bool,
    /// The time of the newest event that was seen here; 0 when there was none.
    pub latest_at: Ms,

    /// The count of unread messages up to `counted`, as the server gave it or the run shows it.
    base: u32,
    counted: Seq,
    /// Unread messages after `counted`.
    later: Vec<Seq>,

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
            new_line: None,
            at_latest: true,
            latest_at: 0,
            base: info.unread,
            counted: info.head,
            later: Vec::new(),
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
        match (&self.info.name, &self.info.peer) {
            (_, Some(peer)) => Route::Direct(peer.id),
            (Some(name), None) if self.info.id != LOBBY => Route::Room(name.clone()),
            _ => Route::Lobby,
        }
    }

    /// What the room is called: its name, or the other one's.
    pub fn title(&self) -> &str {
        match (&self.info.name, &self.info.peer) {
            (Some(name), _) => name.as_str(),
            (None, Some(peer)) => peer.name.as_str(),
            (None, None) => "",
        }
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
            self.new_line = None;
            self.read = info.read;
            self.read_known = info.read;
            self.read_sent = info.read;
        }
        self.timeline.note_head(info.head);
        self.read = self.read.max(info.read);
        self.read_taken(info.read);
        if info.head >= self.counted {
            self.counted = info.head;
            self.base = info.unread;
            self.later.retain(|seq| *seq > info.head);
        }
        self.info = info;
    }

    /// Takes a live event.
    pub fn live(&mut self, event: &Event, me: UserId) {
        self.typing.retain(|typist| typist.user.id != event.user.id);
        let is_news = event.seq > self.timeline.head();
        match &event.kind {
            EventKind::Message { .. } => {
                let is_counted = event.seq <= self.counted || self.later.contains(&event.seq);
                if is_unread(event, self.read, me) && !is_counted && self.later.len() < UNREAD_MAX as usize {
                    self.later.push(event.seq);
                }
            }
            EventKind::Joined if is_news && self.members > 0 && event.room != LOBBY => {
                let user = event.user.clone();
                if self.people.len() < LIST_MAX && !self.people.contains_key(&user.id) {
                    self.people.insert(user.id, Person { user, presence: Presence::Offline });
                }
                self.members += 1;
            }
            EventKind::Left if is_news && event.room != LOBBY => {
                self.people.remove(&event.user.id);
                self.members = self.members.saturating_sub(1);
            }
            EventKind::Joined | EventKind::Left => {}
            _ => {}
        }
    }

    /// Gives somebody another name wherever they are shown as they are now.
    pub fn rename(&mut self, user: &User) {
        if let Some(peer) = self.info.peer.as_mut().filter(|peer| peer.id == user.id) {
            peer.clone_from(user);
        }
        if let Some(person) = self.people.get_mut(&user.id) {
            person.user.clone_from(user);
        }
        for typist in self.typing.iter_mut().filter(|typist| typist.user.id == user.id) {
            typist.user.clone_from(user);
        }
    }

    /// Counts the unread messages again: exactly where the timeline holds all that could be unread.
    pub fn count(&mut self, me: UserId) {
        let timeline = &self.timeline;
        if timeline.is_live() && timeline.first() <= self.read + 1 && !timeline.is_behind() {
            let unread = timeline.events().rev().take_while(|event| event.seq > self.read);
            self.base = unread.filter(|event| is_unread(event, self.read, me)).count() as u32;
            self.counted = timeline.last();
            self.later.clear();
        }
        if self.read >= self.timeline.head() {
            self.base = 0;
        }
        self.later.retain(|seq| *seq > self.read);
        self.unread = (self.base + self.later.len() as u32).min(UNREAD_MAX);
    }

    /// The person has seen the events up to `seq` here.
    pub fn seen(&mut self, seq: Seq) {
        self.read = self.read.max(seq.min(self.timeline.head()));
    }

    /// The cursor moved on some device; `unread` is the server's count after it.
    pub fn read_elsewhere(&mut self, seq: Seq, unread: u32) {
        self.read_taken(seq);
        if seq < self.read {
            return;
        }
        self.read = seq;
        self.later.retain(|later| *later > seq);
        // The count may or may not contain what has come since.
        self.base = unread.saturating_sub(self.later.len() as u32);
    }

    /// What the server has to be told of the cursor now.
    pub fn read_due(&mut self, now: Ms) -> Option<ClientEnvelope> {
        if self.read <= self.read_sent || now < self.read_not_before {
            return None;
        }
        self.read_sent = self.read;
        self.read_not_before = now + READ_EVERY_MS;
        Some(ClientEnvelope::Read { room: self.info.id, seq: self.read, version: None })
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

    fn read_taken(&mut self, seq: Seq) {
        self.read_known = self.read_known.max(seq);
        self.read_sent = self.read_sent.max(seq);
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
            if let Some(peer) = self.info.peer.as_mut().filter(|peer| peer.id == person.user.id) {
                peer.clone_from(&person.user);
            }
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
        let after = (!newest).then(|| self.timeline.last());
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

/// Whether an event is one to count: a message of somebody else, after the cursor.
fn is_unread(event: &Event, read: Seq, me: UserId) -> bool {
    event.seq > read && event.user.id != me && matches!(event.kind, EventKind::Message { .. })
}
