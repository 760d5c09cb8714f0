//! What waits for the hub, in two lanes: the talk of those who are in, and the traffic of those who come and
//! go. A storm of comings and goings is dealt with a little in each turn, behind the talk, so that nobody who
//! talks waits for it.
//!
//! What one connection sends stays in order: all of it that waits is in one lane. It must not know what an
//! input means.

use std::collections::VecDeque;

use crate::hub::Input;

/// What of one connection waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Bytes of its requests.
    pub bytes: usize,
    /// Inputs of its own in each lane; one of the two is always 0.
    talk: u32,
    traffic: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Talk,
    Traffic,
}

/// An input, with the bytes that count for the connection it came from.
#[derive(Debug)]
struct Item {
    input: Input,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    talk: VecDeque<Item>,
    traffic: VecDeque<Item>,
}

impl Inbox {
    /// Adds an input that is not of a connection.
    pub fn push(&mut self, lane: Lane, input: Input) {
        self.lane(lane).push_back(Item { input, bytes: 0 });
    }

    /// Adds an input of a connection: to the lane it wants, unless others of the connection wait in the other.
    pub fn push_of(&mut self, waiting: &mut Waiting, wanted: Lane, input: Input, bytes: usize) {
        let lane = match (waiting.talk, waiting.traffic) {
            (0, 0) => wanted,
            (_, 0) => Lane::Talk,
            _ => Lane::Traffic,
        };
        *waiting.count(lane) += 1;
        waiting.bytes += bytes;
        self.lane(lane).push_back(Item { input, bytes });
    }

    /// The next input of a lane and its bytes. The caller tells its connection, if it has one, by `taken`.
    pub fn pop(&mut self, lane: Lane) -> Option<(Input, usize)> {
        self.lane(lane).pop_front().map(|Item { input, bytes }| (input, bytes))
    }

    pub fn len(&self, lane: Lane) -> usize {
        match lane {
            Lane::Talk => self.talk.len(),
            Lane::Traffic => self.traffic.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.talk.is_empty() && self.traffic.is_empty()
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Item> {
        match lane {
            Lane::Talk => &mut self.talk,
            Lane::Traffic => &mut self.traffic,
        }
    }
}

impl Waiting {
    /// An input of the connection was popped.
    pub fn taken(&mut self, lane: Lane, bytes: usize) {
        let count = self.count(lane);
        *count = count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn count(&mut self, lane: Lane) -> &mut u32 {
        match lane {
            Lane::Talk => &mut self.talk,
            Lane::Traffic => &mut self.traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(inbox: &mut Inbox, lane: Lane) -> Vec<u32> {
        let conn = |input| match input {
            Input::Closed { conn } => conn,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| inbox.pop(lane)).map(|(input, _)| conn(input)).collect()
    }

    #[test]
    fn what_one_connection_sends_stays_in_one_lane_until_it_is_taken() {
        let (mut inbox, mut one, mut two) = (Inbox::default(), Waiting::default(), Waiting::default());
        let input = |conn| Input::Closed { conn };
        inbox.push_of(&mut one, Lane::Traffic, input(1), 10);
        inbox.push_of(&mut one, Lane::Talk, input(2), 10);
        inbox.push_of(&mut two, Lane::Talk, input(3), 0);
        inbox.push_of(&mut two, Lane::Traffic, input(4), 0);
        assert_eq!((one.bytes, inbox.len(Lane::Talk), inbox.len(Lane::Traffic)), (20, 2, 2));
        assert_eq!(popped(&mut inbox, Lane::Talk), [3, 4]);
        assert_eq!(popped(&mut inbox, Lane::Traffic), [1, 2]);
        one.taken(Lane::Traffic, 10);
        inbox.push_of(&mut one, Lane::Talk, input(5), 0);
        assert_eq!(popped(&mut inbox, Lane::Talk), [0; 0], "one still waits in the other lane");
        one.taken(Lane::Traffic, 10);
        one.taken(Lane::Traffic, 0);
        assert_eq!(one.bytes, 0);
        inbox.push_of(&mut one, Lane::Talk, input(6), 0);
        assert_eq!(popped(&mut inbox, Lane::Talk), [6]);
    }
}
