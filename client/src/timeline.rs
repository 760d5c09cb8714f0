//! One room's events as far as they are held here: a contiguous run of the log, each event once and in
//! order, whatever order and number they came in. Pure; it must not know people, drafts or how it is shown.

use std::collections::VecDeque;
use std::rc::Rc;

use shared::model::Seq;
use shared::protocol::{Event, EventKind};

use crate::map::Map;

/// Most events that wait behind a hole; those beyond are asked for again.
const AHEAD_MAX: usize = 200;

/// A window on a room's log. Events that come live extend it while it reaches the log's end (`is_live`);
/// those that jump ahead wait until the hole is filled.
#[derive(Clone, Debug)]
pub struct Timeline {
    epoch: u32,
    loaded: bool,
    live: bool,
    complete: bool,
    /// `seq` of the first event of the run (or that it will have).
    first: Seq,
    run: VecDeque<Rc<Event>>,
    /// Events after a hole. Empty unless live.
    ahead: Map<Seq, Rc<Event>>,
    /// The highest `seq` known to be in the log.
    head: Seq,
}

impl Timeline {
    /// A timeline of which nothing is held yet.
    pub fn new(epoch: u32, head: Seq) -> Self {
        Self {
            epoch,
            loaded: false,
            live: false,
            complete: false,
            first: 1,
            run: VecDeque::new(),
            ahead: Map::default(),
            head,
        }
    }

    /// The events held, oldest first, without holes.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Rc<Event>> + ExactSizeIterator {
        self.run.iter()
    }

    /// The events that wait behind a hole, oldest first.
    pub fn ahead(&self) -> impl Iterator<Item = &Rc<Event>> {
        self.ahead.values()
    }

    /// Whether a page has come: before that the room is to be shown as loading.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether the run goes on with what comes live. False while reading far back in the log.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the run begins where the log begins.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Of which log this is; a log with another epoch has nothing to do with it.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The highest `seq` known to be in the log, held or not.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// `seq` of the first event held, or that the first one will have.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// `seq` of the last event of the run; one less than `first` when there is none.
    pub fn last(&self) -> Seq {
        self.first + self.run.len() as Seq - 1
    }

    /// Whether the log is known to go on after a run that should reach its end.
    pub fn is_behind(&self) -> bool {
        self.live && self.head > self.last()
    }

    /// Whether events wait behind a hole.
    pub fn has_hole(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Learns that the log reaches at least to `head`.
    pub fn note_head(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// Takes one event, live or out of a page. Known ones change nothing.
    pub fn apply(&mut self, event: Rc<Event>) {
        self.note_head(event.seq);
        self.strike(&event);
        if !self.live || event.seq <= self.last() {
            return;
        }
        self.ahead.insert(event.seq, event);
        self.close_holes();
        if self.ahead.len() > AHEAD_MAX {
            self.ahead.pop_last();
        }
    }

    /// Takes the newest page, oldest first and without holes, of a log that ends at `head`. It continues the
    /// run where the two touch, and replaces it where they do not.
    pub fn page_newest(&mut self, epoch: u32, head: Seq, page: Vec<Event>) {
        if epoch != self.epoch {
            *self = Self::new(epoch, head);
        }
        self.note_head(head);
        let first = page.first().map_or(head + 1, |event| event.seq);
        let last = first + page.len() as Seq - 1;
        if self.loaded && last <= self.last() {
            // An old answer: everything in it is held.
            return;
        }
        if !self.loaded || first > self.last() + 1 {
            self.run.clear();
            self.first = first;
            self.complete = first <= 1;
        }
        self.loaded = true;
        self.live = true;
        self.extend(page);
    }

    /// Takes a page of the events after `after`.
    pub fn page_after(&mut self, epoch: u32, head: Seq, page: Vec<Event>) {
        if epoch != self.epoch {
            // The newest page has to be asked for.
            *self = Self::new(epoch, head);
        }
        self.note_head(head);
        if !self.loaded {
            return;
        }
        self.extend(page);
        self.live |= self.last() >= self.head;
    }

    /// Takes the page before `first`; `is_start`: the log has nothing before this page.
    pub fn page_before(&mut self, page: Vec<Event>, is_start: bool) {
        if !self.loaded {
            return;
        }
        for event in page.into_iter().rev() {
            if event.seq + 1 == self.first {
                self.first = event.seq;
                self.run.push_front(Rc::new(event));
            }
        }
        // The page may have been read before something in it was deleted.
        for event in self.run.clone() {
            self.strike(&event);
        }
        self.complete |= is_start || self.first <= 1;
    }

    /// Keeps at most `max` events, the newest ones.
    pub fn keep_newest(&mut self, max: usize) {
        while self.run.len() > max {
            self.run.pop_front();
            self.first += 1;
            self.complete = false;
        }
    }

    /// Keeps at most `max` events, the oldest ones. If that costs any, the run is no longer live.
    pub fn keep_oldest(&mut self, max: usize) {
        if self.run.len() > max {
            self.run.truncate(max);
            self.ahead.clear();
            self.live = false;
        }
    }

    /// Lets go of all events.
    pub fn forget(&mut self) {
        *self = Self::new(self.epoch, self.head);
    }

    /// Adds the part of a page that goes on from the run's end; the rest waits, or is not wanted.
    fn extend(&mut self, page: Vec<Event>) {
        for event in page {
            self.note_head(event.seq);
            self.strike(&event);
            if event.seq == self.last() + 1 {
                self.run.push_back(Rc::new(event));
            } else if self.live && event.seq > self.last() {
                self.ahead.insert(event.seq, Rc::new(event));
            }
        }
        self.close_holes();
    }

    /// If this event deletes another one, that one becomes what the log shows in its place.
    fn strike(&mut self, event: &Event) {
        let EventKind::Deletion { of } = event.kind else { return };
        let held = of.checked_sub(self.first).and_then(|place| self.run.get_mut(place as usize));
        if let Some(held) = held.or_else(|| self.ahead.get_mut(&of)) {
            let deleted = Event { kind: EventKind::Deleted, reference: None, ..Event::clone(held) };
            *held = Rc::new(deleted);
        }
    }

    fn close_holes(&mut self) {
        while let Some(seq) = self.ahead.first().copied().filter(|seq| *seq <= self.last() + 1) {
            let event = self.ahead.remove(&seq);
            self.run.extend(event.filter(|_| seq == self.last() + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::{Body, LOBBY, UserId, UserName};
    use shared::protocol::{EventKind, User};

    fn event(seq: Seq) -> Event {
        Event {
            room: LOBBY,
            seq,
            at: seq as i64,
            user: User { id: UserId::from_bits(1), name: UserName::parse("Ada").unwrap() },
            kind: EventKind::message(Body::parse("hello", 0).unwrap()),
            reference: None,
        }
    }

    fn page(seqs: std::ops::RangeInclusive<Seq>) -> Vec<Event> {
        seqs.map(event).collect()
    }

    enum Step {
        Live(Seq),
        Newest(u32, std::ops::RangeInclusive<Seq>),
        After(std::ops::RangeInclusive<Seq>, Seq),
        Before(std::ops::RangeInclusive<Seq>),
        KeepNewest(usize),
        KeepOldest(usize),
    }
    use Step::{After, Before, KeepNewest, KeepOldest, Live, Newest};

    /// After the steps the run is `run` (first, last), live or not, and behind or not.
    #[track_caller]
    fn check(steps: &[Step], run: (Seq, Seq), is_live: bool, is_behind: bool) {
        let mut timeline = Timeline::new(1, 0);
        for step in steps {
            match step {
                Live(seq) => timeline.apply(Rc::new(event(*seq))),
                Newest(epoch, seqs) => timeline.page_newest(*epoch, *seqs.end(), page(seqs.clone())),
                After(seqs, head) => timeline.page_after(1, *head, page(seqs.clone())),
                Before(seqs) => timeline.page_before(page(seqs.clone()), false),
                KeepNewest(max) => timeline.keep_newest(*max),
                KeepOldest(max) => timeline.keep_oldest(*max),
            }
            let seqs: Vec<Seq> = timeline.events().map(|event| event.seq).collect();
            assert_eq!(seqs, (timeline.first()..=timeline.last()).collect::<Vec<_>>());
        }
        assert_eq!((timeline.first(), timeline.last()), run);
        assert_eq!((timeline.is_live(), timeline.is_behind()), (is_live, is_behind));
        assert!(timeline.is_live() || !timeline.has_hole());
    }

    #[test]
    fn live_events_extend_the_run_once_and_in_order() {
        check(&[Newest(1, 1..=3), Live(4), Live(4), Live(2), Live(5)], (1, 5), true, false);
        check(&[Newest(1, 1..=3), Live(6), Live(5)], (1, 3), true, true);
        check(&[Newest(1, 1..=3), Live(6), Live(5), Live(4)], (1, 6), true, false);
        check(&[Live(4)], (1, 0), false, false);
    }

    #[test]
    fn a_page_continues_the_run_where_they_touch_and_replaces_it_where_not() {
        check(&[Newest(1, 1..=3), Newest(1, 3..=5)], (1, 5), true, false);
        check(&[Newest(1, 1..=3), Newest(1, 4..=5)], (1, 5), true, false);
        check(&[Newest(1, 1..=3), Newest(1, 5..=9)], (5, 9), true, false);
        check(&[Newest(1, 5..=9), Newest(1, 2..=6)], (5, 9), true, false);
        check(&[Newest(1, 1..=3), Live(11), Live(10), Newest(1, 5..=9)], (5, 11), true, false);
        check(&[Newest(1, 1..=3), Newest(2, 1..=2)], (1, 2), true, false);
        check(&[Newest(1, 1..=3), Live(9), After(4..=6, 9)], (1, 6), true, true);
        check(&[Newest(1, 1..=3), Live(9), After(4..=6, 9), After(7..=8, 9)], (1, 9), true, false);
    }

    #[test]
    fn an_empty_room_is_loaded_and_goes_on_with_its_first_event() {
        let mut timeline = Timeline::new(1, 0);
        timeline.page_newest(1, 0, Vec::new());
        assert!(timeline.is_loaded() && timeline.is_live() && timeline.is_complete());
        timeline.apply(Rc::new(event(1)));
        assert_eq!((timeline.first(), timeline.last()), (1, 1));
    }

    #[test]
    fn a_window_in_the_middle_of_the_log_takes_pages_on_both_sides() {
        check(&[Newest(1, 7..=9), Before(4..=6), Before(4..=6)], (4, 9), true, false);
        check(&[Newest(1, 7..=9), Before(1..=4)], (7, 9), true, false);
        check(&[Newest(1, 7..=9), Before(4..=6), KeepOldest(4), Live(10)], (4, 7), false, false);
        check(&[Newest(1, 4..=9), KeepOldest(4), After(8..=9, 10)], (4, 9), false, false);
        check(&[Newest(1, 4..=9), KeepOldest(4), After(8..=10, 10), Live(11)], (4, 11), true, false);
        check(&[Newest(1, 4..=9), KeepNewest(2), Live(10)], (8, 10), true, false);
    }
}
