//! One room as a hub follows it: the newest part of its log, who listens, who is present.
//!
//! The room puts events in order by `seq`, however their hints arrive, and says when something is missing.
//! Pure: it must not know sessions' protocol, the store or the broker.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use shared::model::{Ms, Seq};
use shared::presence::Roster;
use shared::protocol::{Event, PAGE_EVENTS_MAX, REPLAY_EVENTS_MAX};

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
    /// When the listeners were last told of presence.
    pub presence_told: Ms,
    /// When a crowd was last listed, and the text that went out.
    pub people_text: Option<(Ms, Arc<Encoded>)>,
    /// What waits for the room to be loaded.
    pub waiting: Vec<Waiter>,
    /// Who waits for events to be read of the store, by the `seq` at which they stand.
    pub resuming: HashMap<Seq, Vec<Asker>>,
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
            presence_told: 0,
            people_text: None,
            waiting: Vec::new(),
            resuming: HashMap::new(),
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

    /// Whether something before a known event is missing.
    pub fn has_hole(&self) -> bool {
        self.loaded && self.applied < self.highest
    }

    fn deliver(&mut self, event: Arc<Event>) {
        debug_assert_eq!(event.seq, self.applied + 1);
        self.applied = event.seq;
        self.answers.clear();
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

    /// The events after `seq` that are in memory, at most a page; `None` if some are not.
    pub fn after(&self, seq: Seq) -> Option<Vec<Event>> {
        if seq >= self.applied {
            return Some(Vec::new());
        }
        let first = self.applied + 1 - self.tail.len() as u64;
        let skip = (seq + 1).checked_sub(first)? as usize;
        Some(self.tail.iter().skip(skip).take(PAGE_EVENTS_MAX).map(|event| (**event).clone()).collect())
    }

    /// A page that was read of the store after a `seq`, with what is in memory behind it. What the store has
    /// and this hub has not yet delivered will come as events.
    pub fn with_tail(&self, after: Seq, mut events: Vec<Event>) -> Vec<Event> {
        events.retain(|event| event.seq <= self.applied);
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

    /// Messages of others in memory after `seq`: what an unread count that was made at `seq` lacks.
    pub fn messages_after(&self, seq: Seq, reader: shared::model::UserId) -> u32 {
        let is_message = |event: &&Arc<Event>| {
            event.seq > seq
                && event.user.id != reader
                && matches!(event.kind, shared::protocol::EventKind::Message { .. })
        };
        self.tail.iter().rev().take_while(|event| event.seq > seq).filter(is_message).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::{LOBBY, UserId, UserName};
    use shared::protocol::{EventKind, User};

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
