//! A broker for tests: it loses, repeats and reorders hints, and the same seed does the same again.
//!
//! It knows no clock. A hint that is late comes when some more were published, or at [`ChaosBroker::settle`].
//! Each hub is as good as a process of its own: it can be cut off from the others, notice that, and come back,
//! as the broker of a cluster does when its server is out of reach.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::memory::MemoryBroker;
use super::{Broker, Hint, HubId, Sink, Topic, Via};

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
    /// Hubs whose hints reach no other, and whom no other's reach.
    cut: HashSet<HubId>,
    /// Those of them that published what others miss.
    owing: HashSet<HubId>,
    /// Users' topics that hubs began to follow, without effect yet; `None`: there is no waiting.
    held: Option<Vec<(HubId, Topic)>>,
}

/// A hint on its way.
struct Late {
    due: u64,
    hub: HubId,
    topic: Topic,
    hint: Hint,
    own: bool,
}

fn via(own: bool) -> Via {
    if own { Via::Process } else { Via::Network }
}

impl ChaosBroker {
    /// A broker whose doings follow from the seed and the order of calls.
    pub fn new(seed: u64, chaos: Chaos) -> Self {
        let state = State {
            chaos,
            random: Rng::with_seed(seed),
            now: 0,
            late: Vec::new(),
            cut: HashSet::new(),
            owing: HashSet::new(),
            held: None,
        };
        Self { inner: MemoryBroker::new(), state: Mutex::new(state) }
    }

    /// Makes the network better or worse from now on. What is late stays late.
    pub fn set_chaos(&self, chaos: Chaos) {
        self.lock().chaos = chaos;
    }

    /// From now on nothing passes between a hub and the others, and nobody knows yet.
    pub fn cut(&self, hub: HubId) {
        self.lock().cut.insert(hub);
    }

    /// A hub that is cut off learns of it.
    pub fn notice(&self, hub: HubId) {
        if self.lock().cut.contains(&hub) {
            self.tell(hub, Hint::CutOff);
        }
    }

    /// A hub is connected again and learns that, as do those whom it could not tell what they miss.
    pub fn mend(&self, hub: HubId) {
        let is_owing = {
            let mut state = self.lock();
            if !state.cut.remove(&hub) {
                return;
            }
            state.owing.remove(&hub)
        };
        self.tell(hub, Hint::Doubt);
        if is_owing {
            self.doubt();
        }
    }

    /// Tells every hub that is not cut off that hints may have been lost, as some were where the chaos loses any.
    pub fn doubt(&self) {
        for (hub, _) in self.inner.followers(Topic::All) {
            if !self.lock().cut.contains(&hub) {
                self.tell(hub, Hint::Doubt);
            }
        }
    }

    /// From now on following a user has no effect until `release_follows`.
    pub fn hold_follows(&self) {
        self.lock().held.get_or_insert_default();
    }

    pub fn release_follows(&self) {
        let held = self.lock().held.take().unwrap_or_default();
        held.into_iter().for_each(|(hub, topic)| self.follow_now(hub, topic));
    }

    fn follow_now(&self, hub: HubId, topic: Topic) {
        self.inner.follow(hub, topic);
        if let Topic::User(user) = topic {
            self.tell(hub, Hint::Followed { user });
        }
    }

    fn tell(&self, hub: HubId, hint: Hint) {
        self.inner.deliver(Topic::Hub(hub), hint, Via::Process);
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
            sink(late.hint, via(late.own));
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
        let mut state = self.lock();
        state.cut.remove(&hub);
        state.owing.remove(&hub);
    }

    fn follow(&self, hub: HubId, topic: Topic) {
        {
            let mut state = self.lock();
            if let (Topic::User(_), Some(held)) = (topic, &mut state.held) {
                held.push((hub, topic));
                return;
            }
        }
        self.follow_now(hub, topic);
    }

    fn unfollow(&self, hub: HubId, topic: Topic) {
        if let Some(held) = &mut self.lock().held {
            held.retain(|entry| *entry != (hub, topic));
        }
        self.inner.unfollow(hub, topic);
    }

    fn publish(&self, hub: HubId, topic: Topic, hint: Hint) {
        let followers = self.inner.followers(topic);
        let mut now = Vec::new();
        {
            let mut state = self.lock();
            state.now += 1;
            if state.cut.contains(&hub) && hint.is_missed() {
                state.owing.insert(hub);
            }
            for (follower, _) in followers {
                let own = follower == hub;
                let is_cut = state.cut.contains(&hub) || state.cut.contains(&follower);
                if is_cut && !own {
                    continue;
                }
                let spared = own && !state.chaos.own;
                let fate = if spared { vec![0] } else { state.fate() };
                for wait in fate {
                    let due = state.now + wait;
                    let late = Late { due, hub: follower, topic, hint: hint.clone(), own };
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
