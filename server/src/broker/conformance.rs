//! What every broker must do for the hubs of one process, clause by clause of the contract in `broker.rs`.
//!
//! An adapter's tests run all of it by `broker_conformance!`. It must not know which adapter it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::model::{LOBBY, RoomId, UserId};

use super::{Broker, Hint, HubId, Topic};

/// One clause. The broker is new.
pub type Clause = fn(&dyn Broker);

/// Makes a test of each clause. `$on` is a function that runs a [`Clause`] on an adapter.
#[macro_export]
macro_rules! broker_conformance {
    ($on:path) => {
        $crate::broker_conformance! { $on =>
            own_hints_come_back_in_order,
            hubs_hear_each_other,
            topics_are_respected,
            a_hub_has_a_topic_of_its_own,
            following_twice_is_following_once,
            a_hub_is_told_when_it_hears_of_a_user,
            hubs_come_and_go,
            a_sink_is_dropped_by_detach,
            hubs_publish_concurrently,
        }
    };
    ($on:path => $($clause:ident),* $(,)?) => {
        $(#[test] fn $clause() {
            $on($crate::broker::conformance::$clause);
        })*
    };
}

/// All that a hub heard.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Hint>>>);

impl Recorder {
    pub fn attach(broker: &dyn Broker, hub: HubId) -> Self {
        let recorder = Self::default();
        let heard = recorder.0.clone();
        broker.attach(hub, Arc::new(move |hint, _| lock(&heard).push(hint)));
        recorder
    }

    /// Waits until what was heard is as it should be.
    #[track_caller]
    pub fn until(&self, is_so: impl Fn(&[Hint]) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !is_so(&lock(&self.0)) {
            assert!(Instant::now() < end, "{:?}", lock(&self.0));
            std::thread::yield_now();
        }
    }

    /// What was heard since the last call.
    pub fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// What a hub heard, as numbers.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Mutex<Vec<Hint>>>);

impl Ear {
    pub fn attach(broker: &dyn Broker, hub: HubId) -> Self {
        let ear = Self::default();
        let heard = ear.0.clone();
        broker.attach(
            hub,
            Arc::new(move |hint, _| {
                if !is_of_broker(&hint) {
                    lock(&heard).push(hint);
                }
            }),
        );
        ear
    }

    /// The numbers heard so far, once there are `count` or some time has passed.
    pub fn heard(&self, count: usize) -> Vec<u64> {
        let end = Instant::now() + Duration::from_secs(5);
        while lock(&self.0).len() < count && Instant::now() < end {
            std::thread::yield_now();
        }
        lock(&self.0).iter().map(number).collect()
    }
}

/// Whether a hint is of the broker itself, which tells of its own state when it likes.
fn is_of_broker(hint: &Hint) -> bool {
    matches!(hint, Hint::Doubt | Hint::CutOff | Hint::Followed { .. })
}

/// A hint that can be told from others by a number.
pub fn hint(number: u64) -> Hint {
    Hint::Read {
        user: UserId::from_bits(1),
        room: LOBBY,
        cursor: crate::store::Cursor { seq: number, ..Default::default() },
    }
}

fn lock(heard: &Mutex<Vec<Hint>>) -> MutexGuard<'_, Vec<Hint>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(hint: &Hint) -> u64 {
    match hint {
        Hint::Read { cursor, .. } => cursor.seq,
        other => panic!("nobody published {other:?}"),
    }
}

const DEN: Topic = Topic::Room(RoomId::from_bits(50));

pub fn own_hints_come_back_in_order(broker: &dyn Broker) {
    let ear = Ear::attach(broker, 1);
    broker.follow(1, DEN);
    for n in 0..100 {
        broker.publish(1, if n % 2 == 0 { DEN } else { Topic::All }, hint(n));
        assert_eq!(lock(&ear.0).len() as u64, n + 1, "own hints come at once");
    }
    assert_eq!(ear.heard(100), (0..100).collect::<Vec<_>>());
}

pub fn hubs_hear_each_other(broker: &dyn Broker) {
    let ears = [Ear::attach(broker, 1), Ear::attach(broker, 2)];
    broker.follow(1, DEN);
    broker.follow(2, DEN);
    broker.publish(1, DEN, hint(1));
    broker.publish(2, DEN, hint(2));
    broker.publish(1, Topic::All, hint(3));
    for ear in ears {
        assert_eq!(ear.heard(3), [1, 2, 3]);
    }
}

pub fn topics_are_respected(broker: &dyn Broker) {
    let (one, two) = (Ear::attach(broker, 1), Ear::attach(broker, 2));
    let user = Topic::User(UserId::from_bits(50));
    broker.follow(1, DEN);
    broker.follow(2, user);
    broker.publish(1, DEN, hint(1));
    broker.publish(1, user, hint(2));
    broker.publish(1, Topic::Room(RoomId::from_bits(51)), hint(3));
    broker.unfollow(1, DEN);
    broker.publish(2, DEN, hint(4));
    broker.unfollow(1, DEN);
    broker.follow(1, DEN);
    broker.publish(2, DEN, hint(5));
    broker.publish(2, Topic::All, hint(6));
    assert_eq!(one.heard(3), [1, 5, 6]);
    assert_eq!(two.heard(2), [2, 6]);
}

pub fn a_hub_has_a_topic_of_its_own(broker: &dyn Broker) {
    let (one, two) = (Ear::attach(broker, 1), Ear::attach(broker, 2));
    broker.publish(1, Topic::Hub(2), hint(1));
    broker.publish(1, Topic::Hub(3), hint(2));
    broker.publish(1, Topic::All, hint(3));
    assert_eq!((two.heard(2), one.heard(1)), (vec![1, 3], vec![3]));
    // One that comes back has it again.
    let again = Ear::attach(broker, 2);
    broker.publish(1, Topic::Hub(2), hint(4));
    assert_eq!((again.heard(1), two.heard(2)), (vec![4], vec![1, 3]));
}

pub fn following_twice_is_following_once(broker: &dyn Broker) {
    let ear = Ear::attach(broker, 1);
    broker.follow(1, DEN);
    broker.follow(1, DEN);
    broker.publish(1, DEN, hint(1));
    broker.unfollow(1, DEN);
    broker.publish(1, DEN, hint(2));
    broker.publish(1, Topic::All, hint(3));
    assert_eq!(ear.heard(2), [1, 3]);
}

pub fn a_hub_is_told_when_it_hears_of_a_user(broker: &dyn Broker) {
    if !broker.is_lossy() {
        return;
    }
    let user = UserId::from_bits(50);
    // Also one whose process hears of the user already, and one that asks again.
    for hub in [1, 2, 2] {
        let recorder = Recorder::attach(broker, hub);
        broker.follow(hub, Topic::User(user));
        recorder.until(|hints| hints.contains(&Hint::Followed { user }));
    }
}

pub fn hubs_come_and_go(broker: &dyn Broker) {
    let (one, two) = (Ear::attach(broker, 1), Ear::attach(broker, 2));
    broker.follow(1, DEN);
    broker.follow(2, DEN);
    broker.detach(1);
    broker.follow(1, DEN);
    broker.publish(2, DEN, hint(1));
    broker.publish(2, Topic::All, hint(2));
    assert_eq!(two.heard(2), [1, 2]);
    assert_eq!(one.heard(0), [0u64; 0]);
    // A hub that comes back follows nothing but `All`.
    let one = Ear::attach(broker, 1);
    broker.publish(2, DEN, hint(3));
    broker.publish(2, Topic::All, hint(4));
    assert_eq!(one.heard(1), [4]);
    // Also without a `detach`; then the earlier sink hears no more.
    broker.follow(1, DEN);
    let again = Ear::attach(broker, 1);
    broker.publish(2, DEN, hint(5));
    broker.publish(2, Topic::All, hint(6));
    assert_eq!(again.heard(1), [6]);
    assert_eq!(one.heard(1), [4]);
    broker.detach(9);
}

pub fn a_sink_is_dropped_by_detach(broker: &dyn Broker) {
    let ear = Ear::attach(broker, 1);
    broker.follow(1, DEN);
    assert_eq!(Arc::strong_count(&ear.0), 2);
    broker.detach(1);
    assert_eq!(Arc::strong_count(&ear.0), 1);
}

pub fn hubs_publish_concurrently(broker: &dyn Broker) {
    let ears = [Ear::attach(broker, 0), Ear::attach(broker, 1)];
    std::thread::scope(|scope| {
        for hub in 0..2u64 {
            scope.spawn(move || {
                for n in 0..500 {
                    broker.publish(hub as HubId, Topic::All, hint(2 * n + hub));
                }
            });
        }
    });
    for ear in ears {
        let heard = ear.heard(1_000);
        assert_eq!(heard.len(), 1_000);
        for hub in 0..2 {
            let of: Vec<u64> = heard.iter().copied().filter(|n| n % 2 == hub).collect();
            assert!(of.is_sorted(), "each hub's hints come in its order");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chaos::{Chaos, ChaosBroker};
    use super::super::memory::MemoryBroker;
    use super::*;

    mod memory {
        fn on_memory(clause: super::Clause) {
            clause(&super::MemoryBroker::new());
        }
        broker_conformance!(on_memory);
    }

    mod calm_chaos {
        fn on_calm_chaos(clause: super::Clause) {
            clause(&super::ChaosBroker::new(1, super::Chaos { own: true, ..super::Chaos::default() }));
        }
        broker_conformance!(on_calm_chaos);
    }

    /// Publishes 1,000 hints from hub 1 and says what hubs 1 and 2 heard, with all that was late.
    fn storm(seed: u64, chaos: Chaos) -> [Vec<u64>; 2] {
        let broker = ChaosBroker::new(seed, chaos);
        let ears = [Ear::attach(&broker, 1), Ear::attach(&broker, 2)];
        (0..1_000).for_each(|n| broker.publish(1, Topic::All, hint(n)));
        broker.settle();
        ears.map(|ear| ear.heard(0))
    }

    const STORM: Chaos = Chaos { lose: 0.1, repeat: 0.1, delay: 0.2, delay_max: 10, own: false };

    #[test]
    fn chaos_loses_repeats_and_reorders() {
        let [own, other] = storm(1, STORM);
        assert_eq!(own, (0..1_000).collect::<Vec<_>>());
        let mut kinds = other.clone();
        kinds.sort_unstable();
        assert!(!other.is_sorted());
        assert!(kinds.windows(2).any(|pair| pair[0] == pair[1]));
        kinds.dedup();
        assert!((800..980).contains(&kinds.len()), "{}", kinds.len());
        let [own, _] = storm(1, Chaos { own: true, ..STORM });
        assert!(!own.is_sorted());
    }

    #[test]
    fn chaos_follows_from_its_seed() {
        assert_eq!(storm(1, STORM), storm(1, STORM));
        assert_ne!(storm(1, STORM), storm(2, STORM));
    }

    #[test]
    fn chaos_can_end() {
        let broker = ChaosBroker::new(1, Chaos { delay: 1.0, delay_max: 100, ..Chaos::default() });
        let ear = Ear::attach(&broker, 2);
        broker.publish(1, Topic::All, hint(1));
        assert_eq!(ear.heard(0), [0u64; 0]);
        broker.set_chaos(Chaos { lose: 1.0, ..Chaos::default() });
        broker.publish(1, Topic::All, hint(2));
        broker.set_chaos(Chaos::default());
        broker.publish(1, Topic::All, hint(3));
        broker.settle();
        assert_eq!(ear.heard(2), [3, 1]);
    }
}
