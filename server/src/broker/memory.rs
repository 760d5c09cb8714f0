//! The broker of a single process: hints go straight to the sinks of the hubs that want them.
//!
//! Nothing is lost, repeated or reordered here, and nothing waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Broker, Hint, HubId, Sink, Topic, Via};

/// The in-process broker. Share it between the hubs of a process in an `Arc`.
#[derive(Default)]
pub struct MemoryBroker {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    hubs: HashMap<HubId, Sink>,
    topics: HashMap<Topic, BTreeMap<HubId, Sink>>,
}

impl MemoryBroker {
    pub fn new() -> Self {
        Self::default()
    }

    /// The followers of a topic, by hub.
    pub(super) fn followers(&self, topic: Topic) -> Vec<(HubId, Sink)> {
        let state = self.read();
        let followers = state.topics.get(&topic).into_iter().flatten();
        followers.map(|(hub, sink)| (*hub, sink.clone())).collect()
    }

    /// The topics that anybody follows.
    pub(super) fn topics(&self) -> Vec<Topic> {
        self.read().topics.keys().copied().collect()
    }

    pub(super) fn is_followed(&self, topic: Topic) -> bool {
        self.read().topics.contains_key(&topic)
    }

    /// Gives a hint to every follower of a topic.
    pub(super) fn deliver(&self, topic: Topic, hint: Hint, via: Via) {
        // Sinks are called under the lock, so that after `detach` has returned a sink is not called any more.
        let state = self.read();
        let Some(followers) = state.topics.get(&topic) else {
            return;
        };
        for sink in followers.values() {
            sink(hint.clone(), via);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, hub: HubId) {
        self.hubs.remove(&hub);
        self.topics.retain(|_, followers| {
            followers.remove(&hub);
            !followers.is_empty()
        });
    }
}

impl Broker for MemoryBroker {
    fn attach(&self, hub: HubId, sink: Sink) {
        let mut state = self.write();
        // A hub that attaches again has started anew: what it followed before is gone.
        state.remove(hub);
        for topic in [Topic::All, Topic::Hub(hub)] {
            state.topics.entry(topic).or_default().insert(hub, sink.clone());
        }
        state.hubs.insert(hub, sink);
    }

    fn detach(&self, hub: HubId) {
        self.write().remove(hub);
    }

    fn follow(&self, hub: HubId, topic: Topic) {
        let mut state = self.write();
        if let Some(sink) = state.hubs.get(&hub).cloned() {
            state.topics.entry(topic).or_default().insert(hub, sink);
        }
    }

    fn unfollow(&self, hub: HubId, topic: Topic) {
        let mut state = self.write();
        if let Some(followers) = state.topics.get_mut(&topic) {
            followers.remove(&hub);
            if followers.is_empty() {
                state.topics.remove(&topic);
            }
        }
    }

    fn publish(&self, _hub: HubId, topic: Topic, hint: Hint) {
        self.deliver(topic, hint, Via::Process);
    }

    fn is_lossy(&self) -> bool {
        false
    }
}
