//! What the broker tells an engine, from whichever thread, until a turn takes it.
//!
//! It must not know what a hint says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::{Hint, Sink};

/// Hints that may wait at all engines of a process. Above it all readers pause.
const HINTS_MAX: usize = 64 * 1024;

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
    queue: Arc<Mutex<Vec<Hint>>>,
    pressure: Arc<Pressure>,
}

impl Hints {
    pub fn new(pressure: Arc<Pressure>) -> Self {
        Self { queue: Arc::default(), pressure }
    }

    /// Where the broker puts hints; `wake` is told of each.
    pub fn sink(&self, wake: Arc<Notify>) -> Sink {
        let hints = self.clone();
        Arc::new(move |hint| {
            hints.pressure.0.fetch_add(1, Ordering::Relaxed);
            hints.lock().push(hint);
            wake.notify_one();
        })
    }

    /// All that wait.
    pub fn take(&self) -> std::vec::IntoIter<Hint> {
        let hints = std::mem::take(&mut *self.lock());
        self.pressure.0.fetch_sub(hints.len(), Ordering::Relaxed);
        hints.into_iter()
    }

    /// Puts what was taken for nothing in front again.
    pub fn put_back(&self, rest: std::vec::IntoIter<Hint>) {
        if rest.len() > 0 {
            self.pressure.0.fetch_add(rest.len(), Ordering::Relaxed);
            self.lock().splice(..0, rest);
        }
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hint>> {
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
        ["a", "b", "c"].into_iter().for_each(|text| sink(hint(text)));
        let mut taken = hints.take();
        assert_eq!((taken.next(), hints.is_empty()), (Some(hint("a")), true));
        sink(hint("d"));
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
        (0..=HINTS_MAX).for_each(|_| sink(hint("x")));
        assert!(pressure.is_high());
        one.take();
        assert!(!pressure.is_high());
    }
}
