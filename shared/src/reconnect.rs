//! How long a client waits before it connects again, so that those who were cut off together do not come back
//! together. It must not know what a connection is for, nor where random numbers come from.

use crate::model::Ms;

/// The first wait's upper bound; it doubles with each attempt.
pub const BACKOFF_FIRST_MS: Ms = 1_000;
/// The last wait's upper bound.
pub const BACKOFF_LAST_MS: Ms = 30_000;
/// The upper bound of the wait after a close that everybody got.
pub const SPREAD_MS: Ms = 3_000;

/// How long a connection must hold until the next wait is short again.
pub const STABLE_MS: Ms = 60_000;

/// The upper bound of the wait before an attempt, of which the first is 0.
pub fn backoff_ms(attempt: u32) -> Ms {
    (BACKOFF_FIRST_MS << attempt.min(5)).min(BACKOFF_LAST_MS)
}

/// A wait of up to `bound` ("full jitter"), by a random number.
pub fn jitter(bound: Ms, random: u64) -> Ms {
    (random % (bound as u64 + 1)) as Ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stop_growing() {
        let bounds: Vec<Ms> = (0..8).map(backoff_ms).collect();
        assert_eq!(bounds, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff_ms(u32::MAX), BACKOFF_LAST_MS);
        assert_eq!((jitter(3_000, 3_000), jitter(3_000, 3_001), jitter(0, 7)), (3_000, 0, 0));
    }
}
