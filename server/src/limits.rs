//! How often something may be done: so many times at once, and then one more after each interval. Pure: time
//! is an argument.
//!
//! It must not know what is counted.

use std::collections::HashMap;
use std::hash::Hash;

use shared::model::Ms;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many times at once; 0 is no limit.
    pub burst: u32,
    /// After those, once in so many milliseconds.
    pub interval_ms: Ms,
}

impl Pace {
    pub const fn new(burst: u32, interval_ms: Ms) -> Self {
        Self { burst, interval_ms }
    }

    /// So many a second, and three seconds' worth at once; 0 is no limit.
    pub fn per_second(rate: u32) -> Self {
        Self { burst: rate.saturating_mul(3), interval_ms: 1_000 / Ms::from(rate.max(1)) }
    }

    /// So many a minute, and as many at once; 0 is no limit.
    pub fn per_minute(rate: u32) -> Self {
        Self { burst: rate, interval_ms: 60_000 / Ms::from(rate.max(1)) }
    }
}

/// Too often. It makes sense to try again after so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    pub retry_ms: Ms,
}

/// Counts by key; each key has a count of its own. Memory is bounded: of too many keys those are forgotten
/// that did the least.
#[derive(Debug)]
pub struct Limiter<K> {
    keys_max: usize,
    /// When each key will have its whole burst again.
    rested_at: HashMap<K, Ms>,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    pub fn new(keys_max: usize) -> Self {
        Self { keys_max, rested_at: HashMap::new() }
    }

    /// Counts one.
    ///
    /// # Errors
    /// It is one too many, and was not counted.
    pub fn take(&mut self, key: K, pace: Pace, now: Ms) -> Result<(), TooOften> {
        if pace.burst == 0 {
            return Ok(());
        }
        if self.rested_at.len() >= self.keys_max && !self.rested_at.contains_key(&key) {
            self.forget(now);
        }
        let burst_ms = pace.interval_ms * Ms::from(pace.burst);
        let rested_at = self.rested_at.entry(key).or_insert(now);
        // A key may have been counted at another pace.
        let next = (*rested_at).max(now) + pace.interval_ms;
        if next > now + burst_ms {
            return Err(TooOften { retry_ms: next - now - burst_ms });
        }
        *rested_at = next;
        Ok(())
    }

    /// Whether the next would be one too many.
    pub fn is_full(&self, key: &K, pace: Pace, now: Ms) -> bool {
        let burst_ms = pace.interval_ms * Ms::from(pace.burst);
        let rested_at = self.rested_at.get(key).copied().unwrap_or(now).max(now);
        pace.burst > 0 && rested_at + pace.interval_ms > now + burst_ms
    }

    /// Takes one back: it was no harm after all.
    pub fn give_back(&mut self, key: &K, pace: Pace) {
        if let Some(rested_at) = self.rested_at.get_mut(key) {
            *rested_at -= pace.interval_ms;
        }
    }

    /// Makes room for others.
    fn forget(&mut self, now: Ms) {
        self.rested_at.retain(|_, rested_at| *rested_at > now);
        if self.rested_at.len() >= self.keys_max {
            let mut times: Vec<Ms> = self.rested_at.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(self.keys_max / 2);
            let middle = *middle;
            self.rested_at.retain(|_, rested_at| *rested_at > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace::new(3, 1_000);

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let mut limiter = Limiter::new(10);
        let mut take = |now| limiter.take("a", PACE, now);
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(TooOften { retry_ms: 1_000 }));
        assert_eq!([0, 999, 1_000].map(|now| limiter.is_full(&"a", PACE, now)), [true, true, false]);
        let mut take = |now| limiter.take("a", PACE, now);
        assert_eq!(take(400), Err(TooOften { retry_ms: 600 }));
        assert_eq!((take(1_000), take(1_000).is_err()), (Ok(()), true));
        assert_eq!([take(9_000), take(9_000), take(9_000)], [Ok(()); 3]);
        assert!(take(9_000).is_err());
    }

    #[test]
    fn keys_do_not_disturb_each_other_and_what_was_no_harm_is_given_back() {
        let mut limiter = Limiter::new(10);
        for _ in 0..100 {
            assert_eq!(limiter.take(1, PACE, 0), Ok(()));
            limiter.give_back(&1, PACE);
        }
        while limiter.take(1, PACE, 0).is_ok() {}
        assert_eq!(limiter.take(2, PACE, 0), Ok(()));
        assert_eq!(limiter.take(1, Pace::new(0, 0), 0), Ok(()), "no limit");
    }

    #[test]
    fn keys_are_bounded_and_the_busiest_are_remembered() {
        let mut limiter = Limiter::new(100);
        while limiter.take(0, PACE, 0).is_ok() {}
        for key in 1..10_000 {
            assert_eq!(limiter.take(key, PACE, 0), Ok(()));
            assert!(limiter.rested_at.len() <= 100);
        }
        assert!(limiter.take(0, PACE, 0).is_err(), "the busiest was forgotten");
    }

    #[test]
    fn paces_say_what_they_are_called() {
        assert_eq!(Pace::per_second(10), Pace::new(30, 100));
        assert_eq!(Pace::per_minute(600), Pace::new(600, 100));
        assert_eq!(Pace::per_second(0).burst, 0);
    }
}
