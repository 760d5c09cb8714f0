//! One room as a hub follows it: the newest part of its log, who listens, who is present.
//!
//! The room puts events in order by `seq`, however their hints arrive, and says when something is missing.
//! Pure: it must not know sessions' protocol, the store or the broker.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use shared::model::{Ms, Seq, UserId};
use shared::presence::Roster;
use shared::protocol::{Event, EventKind, PAGE_EVENTS_MAX, REPLAY_EVENTS_MAX, RoomInfo, RoomKind};

use super::versions::Versions;
use super::{Asker, Conn, Waiter};
use crate::broker::Logged;
use crate::encoded::Encoded;

/// Events kept in memory behind the newest, so that most joins and resumes ask no database.
pub(super) const TAIL_EVENTS: usize = 256;
/// Hints kept that are ahead of a hole. More are dropped: they come back from the store.
const AHEAD_EVENTS_MAX: usize = 512;

/// Answers to `resume` that are kept for others who stand at the same place.
const ANSWERS_MAX: usize = 16;

/// What a reader who stands at some `seq` is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Replay {
    /// These events; `gap` if they do not follow on from where the reader stood.
    Events { events: Vec<Event>, gap: bool },
    /// The store must be read after this `seq` first.
    Read(Seq),
}

/// The state of one room.
#[derive(Debug)]
pub(super) struct Room {
    pub epoch: u32,
    /// `seq` of the newest event that went to the listeners. Everything up to it is in order.
    pub applied: Seq,
    /// False until the first page has come from the store.
    pub loaded: bool,
    /// A read of the store is on its way.
    pub fetching: bool,
    /// A read failed and is due again at the next tick.
    pub refetch: bool,
    /// The newest events, without holes, ending at `applied`.
    tail: VecDeque<Arc<Event>>,
    /// Events beyond a hole.
    ahead: BTreeMap<Seq, Arc<Logged>>,
    /// The highest `seq` heard of, kept or not.
    highest: Seq,
    /// Connections that speak `magpie.v1`.
    pub full: Vec<Conn>,
    /// Connections in plain mode.
    pub plain: Vec<Conn>,
    pub roster: Roster,
    /// Which changes of the roster are known.
    pub versions: Versions,
    /// When the listeners were last told of presence.
    pub presence_told: Ms,
    /// When a crowd was last listed, and the text that went out.
    pub people_text: Option<(Ms, Arc<Encoded>)>,
    /// What waits for the room to be loaded.
    pub waiting: Vec<Waiter>,
    /// Who waits for events to be read of the store, by the `seq` at which they stand.
    pub resuming: BTreeMap<Seq, Vec<Asker>>,
    /// Answers to `resume` by epoch and `seq`, as long as `applied` stays as it is.
    answers: HashMap<(u32, Seq), Arc<Encoded>>,
    /// Since when a known event could not be delivered because one before it is missing.
    pub hole_since: Option<Ms>,
    /// Since when nobody listens.
    pub idle_since: Ms,
}

impl Room {
    pub fn new(now: Ms) -> Self {
        Self {
            epoch: 0,
            applied: 0,
            loaded: false,
            fetching: true,
            refetch: false,
            tail: VecDeque::new(),
            ahead: BTreeMap::new(),
            highest: 0,
            full: Vec::new(),
            plain: Vec::new(),
            roster: Roster::default(),
            versions: Versions::default(),
            presence_told: 0,
            people_text: None,
            waiting: Vec::new(),
            resuming: BTreeMap::new(),
            answers: HashMap::new(),
            hole_since: None,
            idle_since: now,
        }
    }

    pub fn has_listeners(&self) -> bool {
        !self.full.is_empty() || !self.plain.is_empty()
    }

    /// Takes the newest page of the log as the room's beginning, then what hints told meanwhile.
    pub fn load(&mut self, epoch: u32, head: Seq, events: Vec<Event>) {
        self.epoch = epoch;
        self.applied = head;
        self.loaded = true;
        self.fetching = false;
        self.tail = events.into_iter().map(Arc::new).collect();
        self.ahead = self.ahead.split_off(&(head + 1));
        self.drain();
    }

    /// Takes an event from a hint or the store. Answers with the events that are now in order, to be
    /// delivered. Repeats give nothing; an event beyond a hole waits.
    pub fn apply(&mut self, logged: Arc<Logged>) -> Vec<Arc<Logged>> {
        let seq = logged.event.seq;
        self.highest = self.highest.max(seq);
        if self.loaded && seq <= self.applied {
            return Vec::new();
        }
        if self.loaded && seq == self.applied + 1 && self.ahead.is_empty() {
            self.deliver(logged.event.clone());
            return vec![logged];
        }
        if self.ahead.len() < AHEAD_EVENTS_MAX || seq == self.applied + 1 {
            self.ahead.insert(seq, logged);
        }
        if self.loaded { self.drain() } else { Vec::new() }
    }

    /// Hears that the log goes on to `seq` at least.
    pub fn note_head(&mut self, seq: Seq) {
        self.highest = self.highest.max(seq);
    }

    /// Whether something before a known event is missing.
    pub fn has_hole(&self) -> bool {
        self.loaded && self.applied < self.highest
    }

    fn deliver(&mut self, event: Arc<Event>) {
        debug_assert_eq!(event.seq, self.applied + 1);
        self.answers.clear();
        if let EventKind::Deletion { of } = event.kind
            && let Some(place) = self.place_of(of)
        {
            self.tail[place] = Arc::new(Event { kind: EventKind::Deleted, ..(*self.tail[place]).clone() });
        }
        self.applied = event.seq;
        self.tail.push_back(event);
        if self.tail.len() > TAIL_EVENTS {
            self.tail.pop_front();
        }
    }

    fn drain(&mut self) -> Vec<Arc<Logged>> {
        let mut delivered = Vec::new();
        while let Some(entry) = self.ahead.first_entry() {
            match entry.key().cmp(&(self.applied + 1)) {
                std::cmp::Ordering::Less => drop(entry.remove()),
                std::cmp::Ordering::Equal => {
                    let logged = entry.remove();
                    self.deliver(logged.event.clone());
                    delivered.push(logged);
                }
                std::cmp::Ordering::Greater => break,
            }
        }
        delivered
    }

    /// Where an event is in memory.
    fn place_of(&self, seq: Seq) -> Option<usize> {
        let first = self.applied + 1 - self.tail.len() as u64;
        usize::try_from(seq.checked_sub(first)?).ok().filter(|place| *place < self.tail.len())
    }

    /// Takes the texts out of a page that the store read before it heard of a deletion that is known here.
    pub fn blank_deleted(&self, events: &mut [Event]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let (first, last) = (first.seq, last.seq);
        for later in self.tail.iter().rev().take_while(|later| later.seq > first) {
            let EventKind::Deletion { of } = later.kind else { continue };
            if (first..=last).contains(&of)
                && let Some(event) = events.iter_mut().find(|event| event.seq == of)
            {
                event.kind = EventKind::Deleted;
            }
        }
    }

    /// The events after `seq` that are in memory, at most a page; `None` if some are not.
    pub fn after(&self, seq: Seq) -> Option<Vec<Event>> {
        if seq >= self.applied {
            return Some(Vec::new());
        }
        let skip = self.place_of(seq + 1)?;
        Some(self.tail.iter().skip(skip).take(PAGE_EVENTS_MAX).map(|event| (**event).clone()).collect())
    }

    /// A page that was read of the store after a `seq`, with what is in memory behind it. What the store has
    /// and this hub has not yet delivered will come as events.
    pub fn with_tail(&self, after: Seq, mut events: Vec<Event>) -> Vec<Event> {
        events.retain(|event| event.seq <= self.applied);
        self.blank_deleted(&mut events);
        let last = events.last().map_or(after, |event| event.seq);
        let space = PAGE_EVENTS_MAX.saturating_sub(events.len());
        events.extend(self.after(last).unwrap_or_default().into_iter().take(space));
        events
    }

    /// The newest page. The tail always holds one, or the whole log.
    pub fn newest(&self) -> Vec<Event> {
        let skip = self.tail.len().saturating_sub(PAGE_EVENTS_MAX);
        self.tail.iter().skip(skip).map(|event| (**event).clone()).collect()
    }

    /// What a reader gets who stands at `after` (nowhere, if `None`) in the log of `epoch` (if they said so).
    pub fn replay(&self, after: Option<Seq>, epoch: Option<u32>) -> Replay {
        let Some(after) = after else { return Replay::Events { events: self.newest(), gap: false } };
        let other_log = epoch.is_some_and(|epoch| epoch != self.epoch) || after > self.applied;
        if other_log || self.applied - after > REPLAY_EVENTS_MAX {
            return Replay::Events { events: self.newest(), gap: true };
        }
        match self.after(after) {
            Some(events) => Replay::Events { events, gap: false },
            None => Replay::Read(after),
        }
    }

    /// The answer to a `resume` that was given before to another who stands at the same place.
    pub fn answer(&self, epoch: u32, after: Seq) -> Option<Arc<Encoded>> {
        self.answers.get(&(epoch, after)).cloned()
    }

    /// Keeps an answer for as long as nothing new is said.
    pub fn keep_answer(&mut self, epoch: u32, after: Seq, text: Arc<Encoded>) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.insert((epoch, after), text);
        }
    }

    /// Gives back the memory of kept answers.
    pub fn forget_answers(&mut self) {
        self.answers = HashMap::new();
    }

    /// What an unread count and a count of mentions lack that were made at `info.head`, by the rules of the
    /// store: messages of others whom the reader has not blocked. `None` if not all of it is known here, or
    /// if something happened that changes more than these counts.
    pub fn news(&self, info: &RoomInfo, reader: UserId, blocked: &[UserId]) -> Option<(u32, u32)> {
        let (mut unread, mut mentioned) = (0, 0);
        let place = self.place_of(info.head + 1)?;
        for event in self.tail.range(place..) {
            match &event.kind {
                EventKind::Message { mentions, all, .. } => {
                    let is_own = event.user.id == reader;
                    if event.seq > info.read && !is_own && !blocked.contains(&event.user.id) {
                        unread += 1;
                        mentioned += u32::from(*all || mentions.contains(&reader));
                    }
                }
                EventKind::Deletion { of } if *of <= info.read || *of > info.head => {}
                EventKind::Deleted | EventKind::Created | EventKind::Unknown => {}
                EventKind::Left if event.user.id == reader => return None,
                // In a conversation the people are a part of how it looks.
                EventKind::Joined | EventKind::Left | EventKind::Renamed { .. }
                    if matches!(info.kind, RoomKind::Public | RoomKind::Private) => {}
                EventKind::Deletion { .. }
                | EventKind::Joined
                | EventKind::Left
                | EventKind::Renamed { .. }
                | EventKind::Invited { .. }
                | EventKind::Removed { .. }
                | EventKind::Transferred { .. }
                | EventKind::Muted { .. }
                | EventKind::Topic { .. }
                | EventKind::RoomRenamed { .. }
                | EventKind::Archived { .. }
                | EventKind::SlowMode { .. } => return None,
            }
        }
        Some((unread, mentioned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::{Body, LOBBY, UserName};
    use shared::protocol::User;

    fn event(seq: Seq) -> Event {
        let user = User { id: UserId::from_bits(7), name: UserName::parse("Ada").unwrap() };
        Event { room: LOBBY, seq, at: 0, user, kind: EventKind::Joined, reference: None }
    }

    fn room(head: Seq) -> Room {
        let mut room = Room::new(0);
        room.load(1, head, (head.saturating_sub(99).max(1)..=head).map(event).collect());
        room
    }

    fn logged(seq: Seq) -> Arc<Logged> {
        Arc::new(Logged::new(event(seq)))
    }

    fn seqs(events: &[Arc<Logged>]) -> Vec<Seq> {
        events.iter().map(|logged| logged.event.seq).collect()
    }

    #[test]
    fn hints_are_put_in_order_once() {
        let mut room = room(3);
        assert!(room.apply(logged(5)).is_empty());
        assert!(room.has_hole());
        assert!(room.apply(logged(3)).is_empty());
        assert_eq!(seqs(&room.apply(logged(4))), [4, 5]);
        assert!(room.apply(logged(4)).is_empty());
        assert!(!room.has_hole());
    }

    #[test]
    fn hints_before_the_first_page_are_kept() {
        let mut room = Room::new(0);
        for seq in [2, 4, 3] {
            assert!(room.apply(logged(seq)).is_empty());
        }
        room.load(1, 2, vec![event(1), event(2)]);
        assert_eq!((room.applied, room.newest().len()), (4, 4));
    }

    #[test]
    fn a_hint_that_was_not_kept_is_not_forgotten() {
        let mut room = Room::new(0);
        for seq in 2..1_000 {
            room.apply(logged(seq));
        }
        room.load(1, 1, vec![event(1)]);
        assert!(room.applied < 999 && room.has_hole());
        for seq in room.applied + 1..1_000 {
            room.apply(logged(seq));
        }
        assert!(!room.has_hole());
    }

    #[test]
    fn an_answer_is_kept_for_its_place_until_something_is_said() {
        let mut room = room(3);
        let text = Arc::new(Encoded::new("answer".into()));
        room.keep_answer(1, 2, text.clone());
        assert!(room.answer(1, 2).is_some_and(|kept| Arc::ptr_eq(&kept, &text)));
        assert!(room.answer(1, 1).is_none() && room.answer(2, 2).is_none());
        room.apply(logged(4));
        assert!(room.answer(1, 2).is_none());
        (0..100).for_each(|seq| room.keep_answer(1, seq, text.clone()));
        assert_eq!(room.answers.len(), ANSWERS_MAX);
    }

    fn message(seq: Seq, author: u64) -> Event {
        let event = event(seq);
        let kind = EventKind::message(Body::parse("secret", 0).unwrap());
        Event { user: User { id: UserId::from_bits(author), ..event.user }, kind, ..event }
    }

    fn deletion(seq: Seq, of: Seq) -> Event {
        Event { kind: EventKind::Deletion { of }, ..event(seq) }
    }

    #[test]
    fn a_deleted_message_is_nowhere_in_memory_and_in_no_page_that_is_sent_later() {
        let mut room = room(3);
        room.apply(Arc::new(Logged::new(message(4, 7))));
        room.apply(Arc::new(Logged::new(deletion(5, 4))));
        let kinds = |events: &[Event]| events.iter().map(|event| event.kind.clone()).collect::<Vec<_>>();
        let after = [EventKind::Deleted, EventKind::Deletion { of: 4 }];
        assert_eq!(kinds(&room.after(3).unwrap()), after);
        assert!(!format!("{room:?}").contains("secret"));
        // The store was read before the deletion, its answer comes behind it.
        assert_eq!(kinds(&room.with_tail(3, vec![message(4, 7)])), after);
        let mut page = vec![event(1), message(2, 7), message(4, 7)];
        room.blank_deleted(&mut page);
        assert_eq!(kinds(&page), [event(1).kind, message(2, 7).kind, EventKind::Deleted]);
        // Of what is not in memory there is nothing to blank.
        room.apply(Arc::new(Logged::new(deletion(6, 1_000))));
        assert_eq!(room.applied, 6);
    }

    #[test]
    fn unread_counts_follow_the_stores_rules_or_are_asked_for_again() {
        let (reader, other, blocked) = (1, 2, 3);
        let user = UserId::from_bits;
        let news = |events: Vec<Event>, info: RoomInfo| {
            let mut room = room(3);
            for event in events {
                room.apply(Arc::new(Logged::new(event)));
            }
            room.news(&info, user(reader), &[user(blocked)])
        };
        let info = RoomInfo { head: 3, read: 1, ..RoomInfo::new(LOBBY, RoomKind::Public) };
        let direct = RoomInfo { kind: RoomKind::Direct, ..info.clone() };
        let mention = |seq, all| {
            let EventKind::Message { body, .. } = message(seq, other).kind else { unreachable!() };
            let mentions = if all { vec![] } else { vec![user(reader)] };
            Event { kind: EventKind::Message { body, mentions, all }, ..message(seq, other) }
        };
        assert_eq!(news(vec![], info.clone()), None, "there is nothing after the head");
        let messages = vec![message(4, other), message(5, reader), message(6, blocked), event(7)];
        assert_eq!(news(messages.clone(), info.clone()), Some((1, 0)));
        assert_eq!(news(messages.clone(), RoomInfo { read: 4, ..info.clone() }), Some((0, 0)));
        assert_eq!(news(messages, direct), None, "somebody came into the conversation");
        assert_eq!(news(vec![mention(4, false), mention(5, true)], info.clone()), Some((2, 2)));
        assert_eq!(news(vec![message(4, other), deletion(5, 4)], info.clone()), Some((0, 0)));
        assert_eq!(news(vec![deletion(4, 1)], info.clone()), Some((0, 0)), "it was read");
        assert_eq!(news(vec![deletion(4, 2)], info.clone()), None, "it was counted, or not");
        let topic = Event { kind: EventKind::Archived { archived: true }, ..event(4) };
        assert_eq!(news(vec![topic], info.clone()), None);
        assert_eq!(news((4..900).map(|seq| message(seq, other)).collect(), info), None, "too much");
    }

    #[test]
    fn a_replay_is_exact_or_says_gap() {
        let room = room(2_000);
        let seqs = |after, epoch| match room.replay(after, epoch) {
            Replay::Events { events, gap } => {
                (events.first().map(|e| e.seq), events.last().map(|e| e.seq), gap)
            }
            Replay::Read(seq) => panic!("read after {seq}"),
        };
        assert_eq!(seqs(None, None), (Some(1_901), Some(2_000), false));
        assert_eq!(seqs(Some(1_998), Some(1)), (Some(1_999), Some(2_000), false));
        assert_eq!(seqs(Some(2_000), Some(1)), (None, None, false));
        assert_eq!(seqs(Some(2_001), Some(1)), (Some(1_901), Some(2_000), true));
        assert_eq!(seqs(Some(1_998), Some(2)), (Some(1_901), Some(2_000), true));
        assert_eq!(seqs(Some(900), Some(1)), (Some(1_901), Some(2_000), true));
        assert_eq!(room.replay(Some(1_500), None), Replay::Read(1_500));
    }
}
