//! Bounded work queues and the threads that empty them. They must not know what the work is.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::store::StoreError;

/// Work that waits for a thread. Each piece has a weight; their sum is bounded.
pub(in crate::store) struct Queue<J> {
    state: Mutex<State<J>>,
    wake: Condvar,
    waiting_max: usize,
}

struct State<J> {
    jobs: VecDeque<(usize, J)>,
    waiting: usize,
    closed: bool,
}

impl<J> Queue<J> {
    pub(in crate::store) fn new(waiting_max: usize) -> Arc<Self> {
        let state = State { jobs: VecDeque::new(), waiting: 0, closed: false };
        Arc::new(Self { state: Mutex::new(state), wake: Condvar::new(), waiting_max })
    }

    /// Puts a job at the end. The last one accepted may go over the bound by its weight.
    ///
    /// # Errors
    /// `Unavailable` if too much waits already, or if the queue is closed.
    pub(in crate::store) fn put(&self, weight: usize, job: J) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Unavailable("closed".into()));
        }
        if state.waiting >= self.waiting_max {
            return Err(StoreError::Unavailable("busy".into()));
        }
        state.waiting += weight;
        state.jobs.push_back((weight, job));
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for work, and takes all there is until it weighs `weight_max` or more. `None` when the queue is
    /// closed and empty.
    pub(in crate::store) fn take_some(&self, weight_max: usize) -> Option<Vec<J>> {
        self.take_part(1, weight_max)
    }

    /// The same, but no more than one of so many parts, for the other threads have theirs.
    pub(in crate::store) fn take_part(&self, parts: usize, weight_max: usize) -> Option<Vec<J>> {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let weight_max = state.waiting.div_ceil(parts).min(weight_max);
        let mut taken = Vec::new();
        let mut weight = 0;
        while weight < weight_max
            && let Some((heavy, job)) = state.jobs.pop_front()
        {
            weight += heavy;
            taken.push(job);
        }
        state.waiting -= weight;
        Some(taken)
    }

    /// Refuses new jobs; those that wait are still done.
    pub(in crate::store) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// For whoever takes work: when they are gone, in whatever way, nobody must wait for them.
    pub(in crate::store) fn taker(self: &Arc<Self>) -> Taker<J> {
        Taker(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue as its thread holds it. A thread ends when the queue is closed and empty, or by a panic: then the queue
/// is closed with it, and what waits is dropped, which is an answer, where a silent queue would be none.
pub(in crate::store) struct Taker<J>(Arc<Queue<J>>);

impl<J> Deref for Taker<J> {
    type Target = Queue<J>;

    fn deref(&self) -> &Queue<J> {
        &self.0
    }
}

impl<J> Drop for Taker<J> {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            let mut state = self.0.lock();
            state.waiting = 0;
            let left = std::mem::take(&mut state.jobs);
            drop(state);
            drop(left);
        }
    }
}

/// Threads that can be waited for.
pub(in crate::store) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    pub(in crate::store) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(in crate::store) fn start(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.lock().push(thread);
        Ok(())
    }

    /// Waits until all have ended. Their queue must have been closed.
    pub(in crate::store) fn join(&self) {
        for thread in self.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store ended in a panic");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::{Queue, Threads};

    #[test]
    fn nobody_waits_for_a_thread_that_ended_in_a_panic() {
        let queue = Queue::<Receiver<()>>::new(10);
        let (go, gone) = (channel(), channel::<()>());
        queue.put(1, go.1).unwrap();
        let threads = Threads::new();
        let taker = queue.taker();
        let work = move || {
            let first = taker.take_some(1).unwrap().remove(0);
            // Until there is a job that waits.
            first.recv().unwrap();
            panic!("an error in Magpie");
        };
        threads.start("store-test", work).unwrap();
        queue.put(1, gone.1).unwrap();
        go.0.send(()).unwrap();
        threads.join();
        assert!(gone.0.send(()).is_err(), "the job is dropped");
        assert!(queue.put(1, channel().1).is_err());
    }
}
