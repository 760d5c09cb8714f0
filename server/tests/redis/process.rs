//! Brokers by way of a Redis server of a test's own.

#[path = "../support/redis.rs"]
mod redis;

use server::broker::Broker;
use server::broker::redis::RedisBroker;

pub use redis::{Redis, WAIT, until};

/// The secret of the store that the processes of a test share.
pub const SECRET: [u8; 32] = [7; 32];

impl Redis {
    /// A broker that is connected to it: as good as one in another process.
    pub fn broker(&self) -> RedisBroker {
        let broker = RedisBroker::open(&self.url(), &SECRET).unwrap();
        connected(&broker);
        broker
    }
}

pub fn connected(broker: &RedisBroker) {
    until("the broker is connected", || broker.check().is_ok());
}
