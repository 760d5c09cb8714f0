//! What an engine can be measured by. Numbers for operators; nothing is decided by them.

use std::ops::AddAssign;

use crate::hub;

/// What an engine has now, and what was counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub hub: hub::Counts,
    pub connections: usize,
    /// Connections that do not take all they are owed, and the bytes that wait for them.
    pub backlogs: usize,
    pub backlog_bytes: usize,
    /// Inputs of connections and answers of the store that wait for the hub.
    pub inputs_waiting: usize,
    /// Hints that wait for the hub.
    pub hints_waiting: usize,
    /// Hints of other processes that were dropped because too many waited.
    pub hints_dropped: u64,
    /// Frames that connections were owed of what was said in their rooms: one for each listener.
    pub deliveries: u64,
    /// Connections that were closed because they read too slowly.
    pub slow_readers: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.hub += other.hub;
        self.connections += other.connections;
        self.backlogs += other.backlogs;
        self.backlog_bytes += other.backlog_bytes;
        self.inputs_waiting += other.inputs_waiting;
        self.hints_waiting += other.hints_waiting;
        self.hints_dropped += other.hints_dropped;
        self.deliveries += other.deliveries;
        self.slow_readers += other.slow_readers;
    }
}
