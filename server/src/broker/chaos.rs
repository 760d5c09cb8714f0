//! A broker for tests: it loses, repeats and reorders hints, and the same seed does the same again.
//!
//! It knows no clock. A hint that is late comes when some more were published, or at [`ChaosBroker::settle`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::memory::MemoryBroker;
use super::{Broker, Hint, HubId, Sink, Topic};

/// What happens to hints. Each probability is between 0 and 1 and stands for each hint and hub by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chaos {
    /// The hint never comes.
    pub lose: f64,
    /// The hint comes twice, the second time perhaps late.
    pub repeat: f64,
    /// The hint comes after some that were published later.
    pub delay: f64,
    /// How much later: at most so many published hints, and at least one.
    pub delay_max: u64,
    /// True if a hub's own hints suffer, too. A real broker gives them back at once and in order.
    pub own: bool,
}

/// For tests: an in-process broker between whose hubs the network is bad.
pub struct ChaosBroker {
    inner: MemoryBroker,
    state: Mutex<State>,
}

struct State {
    chaos: Chaos,
    random: Rng,
    /// Hints published so far.
    now: u64,
    late: Vec<Late>,
}

/// A hint on its way.
struct Late {
    due: u64,
    hub: HubId,
    topic: Topic,
    hint: Hint,
}

impl ChaosBroker {
    /// A broker whose doings follow from the seed and the order of calls.
    pub fn new(seed: u64, chaos: Chaos) -> Self {
        let state = State { chaos, random: Rng::with_seed(seed), now: 0, late: Vec::new() };
        Self { inner: MemoryBroker::new(), state: Mutex::new(state) }
    }

    /// Makes the network better or worse from now on. What is late stays late.
    pub fn set_chaos(&self, chaos: Chaos) {
        self.lock().chaos = chaos;
    }

    /// Delivers all that is late, in an order that follows from the seed.
    pub fn settle(&self) {
        let mut late = {
            let mut state = self.lock();
            let mut late = std::mem::take(&mut state.late);
            state.random.shuffle(&mut late);
            late
        };
        late.drain(..).for_each(|late| self.deliver(late));
    }

    /// A late hint goes to a hub only if it still follows the topic.
    fn deliver(&self, late: Late) {
        let followers = self.inner.followers(late.topic);
        if let Some((_, sink)) = followers.into_iter().find(|(hub, _)| *hub == late.hub) {
            sink(late.hint);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn happens(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    /// When a hint for one hub comes: each entry is one time, in published hints from now.
    fn fate(&mut self) -> Vec<u64> {
        if self.happens(self.chaos.lose) {
            return Vec::new();
        }
        let mut fate = vec![self.wait()];
        if self.happens(self.chaos.repeat) {
            fate.push(self.wait());
        }
        fate
    }

    fn wait(&mut self) -> u64 {
        if self.happens(self.chaos.delay) { self.random.u64(1..=self.chaos.delay_max.max(1)) } else { 0 }
    }
}

impl Broker for ChaosBroker {
    fn attach(&self, hub: HubId, sink: Sink) {
        self.inner.attach(hub, sink);
    }

    fn detach(&self, hub: HubId) {
        self.inner.detach(hub);
    }

    fn follow(&self, hub: HubId, topic: Topic) {
        self.inner.follow(hub, topic);
    }

    fn unfollow(&self, hub: HubId, topic: Topic) {
        self.inner.unfollow(hub, topic);
    }

    fn publish(&self, hub: HubId, topic: Topic, hint: Hint) {
        let followers = self.inner.followers(topic);
        let mut now = Vec::new();
        {
            let mut state = self.lock();
            state.now += 1;
            for (follower, _) in followers {
                let spared = follower == hub && !state.chaos.own;
                let fate = if spared { vec![0] } else { state.fate() };
                for wait in fate {
                    let due = state.now + wait;
                    let late = Late { due, hub: follower, topic, hint: hint.clone() };
                    if wait == 0 { now.push(late) } else { state.late.push(late) }
                }
            }
            let moment = state.now;
            now.extend(state.late.extract_if(.., |late| late.due <= moment));
        }
        now.into_iter().for_each(|late| self.deliver(late));
    }

    fn is_lossy(&self) -> bool {
        true
    }
}
