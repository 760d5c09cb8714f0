//! What the broker tells an engine, from whichever thread, until a turn takes it.
//!
//! It must not know what a hint says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::{Hint, Sink, Via};

/// Hints that may wait at all engines of a process. Above it all readers pause.
const HINTS_MAX: usize = 64 * 1024;
/// Hints of other processes that may wait at one engine, and about how many bytes of them. More are dropped.
const REMOTE_HINTS_MAX: usize = 32 * 1024;
const REMOTE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How many hints wait at the engines that share this. An engine that is slower than another can neither
/// drop nor refuse what the other tells it; so all take less in.
#[derive(Debug, Default)]
pub struct Pressure(AtomicUsize);

impl Pressure {
    pub(super) fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) > HINTS_MAX
    }
}

/// The hints that wait at one engine, in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    queue: Arc<Mutex<Queue>>,
    pressure: Arc<Pressure>,
}

#[derive(Debug, Default)]
struct Queue {
    hints: Vec<Hint>,
    /// Those among them of other processes, and about how many bytes these take.
    remote: usize,
    remote_bytes: usize,
    /// Some were dropped, which is not known yet.
    is_lacking: bool,
    dropped: u64,
}

impl Queue {
    /// Whether there is space for a hint of another process.
    fn admit(&mut self, hint: &Hint) -> bool {
        let bytes = hint.weight();
        if self.remote >= REMOTE_HINTS_MAX || self.remote_bytes + bytes > REMOTE_BYTES_MAX {
            self.is_lacking = true;
            self.dropped += 1;
            return false;
        }
        self.remote += 1;
        self.remote_bytes += bytes;
        true
    }
}

impl Hints {
    pub fn new(pressure: Arc<Pressure>) -> Self {
        Self { queue: Arc::default(), pressure }
    }

    /// Where the broker puts hints; `wake` is told of each.
    pub fn sink(&self, wake: Arc<Notify>) -> Sink {
        let hints = self.clone();
        Arc::new(move |hint, via| {
            let mut queue = hints.lock();
            if via == Via::Network && !queue.admit(&hint) {
                return;
            }
            hints.pressure.0.fetch_add(1, Ordering::Relaxed);
            queue.hints.push(hint);
            drop(queue);
            wake.notify_one();
        })
    }

    /// All that wait. If some could not, that is told behind them.
    pub fn take(&self) -> std::vec::IntoIter<Hint> {
        let mut queue = self.lock();
        let mut hints = std::mem::take(&mut queue.hints);
        (queue.remote, queue.remote_bytes) = (0, 0);
        let is_lacking = std::mem::take(&mut queue.is_lacking);
        drop(queue);
        self.pressure.0.fetch_sub(hints.len(), Ordering::Relaxed);
        if is_lacking {
            hints.push(Hint::Doubt);
        }
        hints.into_iter()
    }

    /// Puts what was taken for nothing in front again. It does not count against what may come from other
    /// processes, so that twice as much can wait.
    pub fn put_back(&self, rest: std::vec::IntoIter<Hint>) {
        if rest.len() > 0 {
            self.pressure.0.fetch_add(rest.len(), Ordering::Relaxed);
            self.lock().hints.splice(..0, rest);
        }
    }

    pub fn len(&self) -> usize {
        self.lock().hints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().hints.is_empty()
    }

    /// Hints of other processes that were dropped.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> Hint {
        Hint::Announcement { text: text.into(), at: 0 }
    }

    #[test]
    fn what_is_put_back_comes_first_and_counts_again() {
        let pressure = Arc::new(Pressure::default());
        let hints = Hints::new(pressure.clone());
        let sink = hints.sink(Arc::default());
        ["a", "b", "c"].into_iter().for_each(|text| sink(hint(text), Via::Process));
        let mut taken = hints.take();
        assert_eq!((taken.next(), hints.is_empty()), (Some(hint("a")), true));
        sink(hint("d"), Via::Process);
        hints.put_back(taken);
        assert_eq!(pressure.0.load(Ordering::Relaxed), 3);
        assert_eq!(hints.take().collect::<Vec<_>>(), ["b", "c", "d"].map(hint));
        assert_eq!(pressure.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn too_many_hints_at_any_engine_are_felt_by_all() {
        let pressure = Arc::new(Pressure::default());
        let [one, _two] = [Hints::new(pressure.clone()), Hints::new(pressure.clone())];
        let sink = one.sink(Arc::default());
        (0..=HINTS_MAX).for_each(|_| sink(hint("x"), Via::Process));
        assert!(pressure.is_high());
        one.take();
        assert!(!pressure.is_high());
    }
    #[test]
    fn what_other_processes_say_is_bounded_and_what_is_dropped_is_not_kept_secret() {
        let hints = Hints::new(Arc::default());
        let sink = hints.sink(Arc::default());
        (0..REMOTE_HINTS_MAX + 5).for_each(|_| sink(hint("x"), Via::Network));
        sink(hint("own"), Via::Process);
        assert_eq!((hints.len(), hints.dropped()), (REMOTE_HINTS_MAX + 1, 5));
        let taken: Vec<Hint> = hints.take().collect();
        assert_eq!(taken[REMOTE_HINTS_MAX..], [hint("own"), Hint::Doubt]);
        sink(hint("y"), Via::Network);
        assert_eq!(hints.take().collect::<Vec<_>>(), [hint("y")]);
        // A few large ones are as many small ones.
        let large = hint(&"x".repeat(REMOTE_BYTES_MAX / 4));
        (0..5).for_each(|_| sink(large.clone(), Via::Network));
        assert_eq!((hints.len(), hints.dropped()), (3, 7));
        assert_eq!(hints.take().last(), Some(Hint::Doubt));
    }
}
