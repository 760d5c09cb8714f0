//! What an engine counts, for `metrics`: added up over the engines of a process.
//!
//! It must not know what is counted for.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metrics::{COMMIT_SECONDS, COMMITTED, DELIVERIES, INBOX, ROOMS, SLOW_READERS, USERS};

/// One engine's share.
pub(super) struct Counters {
    pub deliveries: Counter,
    pub slow_readers: Counter,
    committed: Counter,
    commit_seconds: Histogram,
    inbox: Level,
    rooms: Level,
    users: Level,
}

/// How much there is of something, here.
struct Level {
    gauge: Gauge,
    last: usize,
}

impl Level {
    fn new(gauge: Gauge) -> Self {
        Self { gauge, last: 0 }
    }

    fn set(&mut self, now: usize) {
        self.gauge.increment(now as f64 - self.last as f64);
        self.last = now;
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Counters {
    pub fn new() -> Self {
        Self {
            deliveries: counter!(DELIVERIES),
            slow_readers: counter!(SLOW_READERS),
            committed: counter!(COMMITTED),
            commit_seconds: histogram!(COMMIT_SECONDS),
            inbox: Level::new(gauge!(INBOX)),
            rooms: Level::new(gauge!(ROOMS)),
            users: Level::new(gauge!(USERS)),
        }
    }

    /// The store took that long for a batch of which `count` are durable now.
    pub fn committed(&self, count: usize, took: Duration) {
        self.committed.increment(count as u64);
        self.commit_seconds.record(took);
    }

    pub fn sizes(&mut self, inbox: usize, rooms: usize, users: usize) {
        self.inbox.set(inbox);
        self.rooms.set(rooms);
        self.users.set(users);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn levels_of_several_engines_are_added_up_and_end_with_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let (mut one, mut two) = (Counters::new(), Counters::new());
            one.sizes(1, 20, 300);
            two.sizes(1, 5, 7);
            one.sizes(0, 10, 300);
            two.committed(3, Duration::from_millis(2));
            one.deliveries.increment(4);
            two.deliveries.increment(5);
            let text = recorder.handle().render();
            for line in [
                "magpie_inbox 1",
                "magpie_rooms 15",
                "magpie_users 307",
                "magpie_deliveries_total 9",
                "magpie_committed_total 3",
            ] {
                assert!(text.lines().any(|other| other == line), "{line}: {text}");
            }
            drop(one);
            assert!(recorder.handle().render().contains("magpie_rooms 5\n"));
        });
    }
}
