//! What a turn takes next: hints, talk or traffic. Each has its share however much there is of the others.
//!
//! Pure; it must not know what the inputs are or how a turn is measured.

/// Inputs of each source that a turn takes at least, where there are as many.
const LEAST: usize = 16;
/// Of so many inputs one is talk while there are hints: hints are what everybody waits for, but those of
/// other workers may never end.
const TALK_EVERY: usize = 4;

/// Where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Hint,
    Talk,
    Traffic,
}

/// One turn's choices.
#[derive(Debug, Default)]
pub(super) struct Share {
    hints: Taken,
    talk: Taken,
    traffic: Taken,
    is_traffic: bool,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    is_empty: bool,
}

impl Taken {
    fn has_least(&self) -> bool {
        self.is_empty || self.count >= LEAST
    }
}

impl Share {
    /// The source to take from next; `None` ends the turn. `is_enough`: whether the turn, or what it spends on
    /// traffic, should end if every source had its least.
    pub fn next(&mut self, is_enough: bool) -> Option<Source> {
        if self.is_traffic {
            let is_over = self.traffic.is_empty || is_enough && self.traffic.has_least();
            return (!is_over).then_some(Source::Traffic);
        }
        let is_talk_due = (self.hints.count + self.talk.count) % TALK_EVERY == TALK_EVERY - 1;
        let wants = |taken: &Taken| !(taken.is_empty || is_enough && taken.has_least());
        match (wants(&self.hints), wants(&self.talk)) {
            (true, talk) if !(talk && is_talk_due) => Some(Source::Hint),
            (_, true) => Some(Source::Talk),
            _ => None,
        }
    }

    /// From now on it is the traffic's.
    pub fn turn_to_traffic(&mut self) {
        self.is_traffic = true;
    }

    /// Says whether there was an input of the source.
    pub fn took(&mut self, source: Source, was_there: bool) {
        let taken = match source {
            Source::Hint => &mut self.hints,
            Source::Talk => &mut self.talk,
            Source::Traffic => &mut self.traffic,
        };
        taken.count += usize::from(was_there);
        taken.is_empty |= !was_there;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a turn takes of three sources with so many inputs each; after `enough` inputs it should end.
    fn turn(mut there: [usize; 3], enough: usize) -> [usize; 3] {
        let mut share = Share::default();
        let mut taken = [0; 3];
        for _ in 0..2 {
            let begun = taken.iter().sum::<usize>();
            while let Some(source) = share.next(taken.iter().sum::<usize>() - begun >= enough) {
                let place = source as usize;
                share.took(source, there[place] > 0);
                if there[place] > 0 {
                    there[place] -= 1;
                    taken[place] += 1;
                }
            }
            share.turn_to_traffic();
        }
        taken
    }

    #[test]
    fn all_is_taken_where_there_is_time() {
        assert_eq!(turn([100, 3, 50], 1_000), [100, 3, 50]);
        assert_eq!(turn([0, 0, 0], 0), [0, 0, 0]);
    }

    #[test]
    fn nobody_starves_in_a_turn_that_has_enough_at_once() {
        assert_eq!(turn([1_000, 1_000, 1_000], 0), [LEAST, LEAST, LEAST]);
        assert_eq!(turn([1_000, 5, 0], 0), [LEAST, 5, 0]);
    }

    #[test]
    fn endless_hints_leave_talk_its_part() {
        let [hints, talk, traffic] = turn([10_000, 10_000, 10_000], 1_000);
        assert_eq!((hints, talk, traffic), (750, 250, 1_000));
    }
}
