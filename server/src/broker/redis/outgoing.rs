//! Hints on their way out of a process, and the topics whose followers changed: what hubs leave behind
//! without waiting, until the connection's thread takes it.
//!
//! It must not know Redis.

use std::collections::{HashSet, VecDeque};

use crate::broker::{Hint, Topic};

/// Hints that may wait, and about how many bytes of them. What comes beyond is dropped.
const QUEUE_HINTS_MAX: usize = 16 * 1024;
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Hints that are sent at once, before an answer.
const BATCH_HINTS_MAX: usize = 1024;
/// Hints that wait to be sent, in the order in which they were published.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    hints: VecDeque<(Topic, Hint)>,
    bytes: usize,
    is_open: bool,
    /// Something was dropped that others will not find out by themselves.
    is_owing: bool,
    /// Such a hint was sent over this connection: whether anybody heard it is not known when it ends.
    is_unsure: bool,
}

impl Outgoing {
    /// From now on hints are taken.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// Notes what was not sent, or perhaps not.
    pub fn lost<'a>(&mut self, mut hints: impl Iterator<Item = &'a Hint>) {
        self.is_owing = self.is_owing || hints.any(Hint::is_missed);
    }

    /// From now on hints are refused: nobody would send them. Answers with how many had been waiting.
    pub fn close(&mut self) -> usize {
        let hints = std::mem::take(&mut self.hints);
        (self.bytes, self.is_open) = (0, false);
        self.is_owing |= std::mem::take(&mut self.is_unsure);
        self.lost(hints.iter().map(|(_, hint)| hint));
        hints.len()
    }

    /// False if the hint has to be dropped.
    pub fn push(&mut self, topic: Topic, hint: Hint) -> bool {
        let bytes = hint.weight();
        let is_full = self.hints.len() >= QUEUE_HINTS_MAX || self.bytes + bytes > QUEUE_BYTES_MAX;
        if !self.is_open || is_full {
            self.lost(std::iter::once(&hint));
            return false;
        }
        self.bytes += bytes;
        self.hints.push_back((topic, hint));
        true
    }

    /// The next hints to send; none if none wait. Behind them those are told who may miss one that was dropped.
    pub fn take(&mut self) -> Vec<(Topic, Hint)> {
        let count = self.hints.len().min(BATCH_HINTS_MAX);
        let mut batch: Vec<_> = self.hints.drain(..count).collect();
        self.bytes -= batch.iter().map(|(_, hint)| hint.weight()).sum::<usize>();
        self.is_unsure |= batch.iter().any(|(_, hint)| hint.is_missed());
        if std::mem::take(&mut self.is_owing) {
            batch.push((Topic::All, Hint::Doubt));
        }
        batch
    }
}

/// Topics that have to be looked at: somebody may have begun or ceased to follow them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    topics: HashSet<Topic>,
    all: bool,
    /// How many changes there have been.
    count: u64,
}

/// What to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Topics(HashSet<Topic>),
    All,
}

impl Changes {
    pub fn note(&mut self, topic: Topic) {
        self.count += 1;
        self.topics.insert(topic);
    }

    pub fn note_all(&mut self) {
        self.count += 1;
        self.all = true;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// What changed since the last call, and how many changes there had been by now.
    pub fn take(&mut self) -> Option<(Changed, u64)> {
        let topics = std::mem::take(&mut self.topics);
        match std::mem::take(&mut self.all) {
            true => Some((Changed::All, self.count)),
            false if topics.is_empty() => None,
            false => Some((Changed::Topics(topics), self.count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::model::LOBBY;

    fn hint(bytes: usize) -> Hint {
        Hint::Announcement { text: "x".repeat(bytes), at: 0 }
    }

    #[test]
    fn hints_leave_in_order_and_in_batches() {
        let mut outgoing = Outgoing::default();
        assert!(!outgoing.push(Topic::All, hint(1)), "not open yet");
        outgoing.open();
        (0..BATCH_HINTS_MAX + 2).for_each(|n| assert!(outgoing.push(Topic::All, hint(n % 7))));
        let first = outgoing.take();
        assert_eq!((first.len(), &first[3].1), (BATCH_HINTS_MAX, &hint(3)));
        assert_eq!(outgoing.take().len(), 2);
        assert_eq!(outgoing.take().len(), 0);
        assert_eq!(outgoing.bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut outgoing = Outgoing::default();
        outgoing.open();
        let accepted = (0..2 * QUEUE_HINTS_MAX).filter(|_| outgoing.push(Topic::All, hint(1))).count();
        assert_eq!(accepted, QUEUE_HINTS_MAX);
        assert_eq!(outgoing.close(), QUEUE_HINTS_MAX);
        outgoing.open();
        assert!(!outgoing.push(Topic::All, hint(QUEUE_BYTES_MAX)));
        assert!(outgoing.push(Topic::All, hint(QUEUE_BYTES_MAX - 2 * hint(0).weight())));
        assert!(outgoing.push(Topic::All, hint(0)));
        assert!(!outgoing.push(Topic::All, hint(0)));
        outgoing.take();
        assert!(outgoing.push(Topic::All, hint(0)));
    }

    #[test]
    fn who_may_miss_something_is_told_once_it_can_be() {
        let mut outgoing = Outgoing::default();
        let doubt = (Topic::All, Hint::Doubt);
        // What others find out, or what nobody needs, is no reason.
        assert!(!outgoing.push(Topic::All, hint(1)));
        outgoing.open();
        assert_eq!(outgoing.take(), []);
        outgoing.close();
        assert!(!outgoing.push(Topic::All, Hint::Rules));
        outgoing.open();
        assert_eq!((outgoing.take(), outgoing.take()), (vec![doubt.clone()], vec![]));
        // What waited for a connection that broke; and what was under way.
        outgoing.push(Topic::All, Hint::Rules);
        assert_eq!(outgoing.close(), 1);
        outgoing.open();
        let told = outgoing.take();
        assert_eq!(told, std::slice::from_ref(&doubt));
        outgoing.lost(told.iter().map(|(_, hint)| hint));
        assert_eq!(outgoing.take(), std::slice::from_ref(&doubt));
        // What there was no space for, without waiting for an empty queue.
        let accepted = (0..=QUEUE_HINTS_MAX).filter(|_| outgoing.push(Topic::All, Hint::Rules)).count();
        assert_eq!(accepted, QUEUE_HINTS_MAX);
        let sent: Vec<_> = (0..=QUEUE_HINTS_MAX / BATCH_HINTS_MAX).flat_map(|_| outgoing.take()).collect();
        assert_eq!((sent.len(), &sent[BATCH_HINTS_MAX]), (QUEUE_HINTS_MAX + 1, &doubt));
        assert_eq!(sent.iter().filter(|sent| **sent == doubt).count(), 1);
        // What was sent last: perhaps to a Redis that nobody listens to any more.
        outgoing.close();
        outgoing.open();
        assert_eq!(outgoing.take(), [doubt]);
    }

    #[test]
    fn changes_are_told_once() {
        let mut changes = Changes::default();
        assert_eq!(changes.take(), None);
        let room = Topic::Room(LOBBY);
        [room, Topic::All, room].into_iter().for_each(|topic| changes.note(topic));
        assert_eq!(changes.take(), Some((Changed::Topics([room, Topic::All].into()), 3)));
        assert_eq!(changes.take(), None);
        changes.note(room);
        changes.note_all();
        assert_eq!(changes.take(), Some((Changed::All, 5)));
        assert_eq!((changes.take(), changes.count()), (None, 5));
    }
}
