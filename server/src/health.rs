//! Whether the server can take people, and why not: for balancers, orchestrators and operators.
//!
//! What is answered here may be seen by anybody: it names the part that fails, never an address or a cause,
//! which are in the log. It must not know HTTP.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::broker::Broker;
use crate::store::Store;

/// How long an answer of the store serves everyone who asks: asking may not become work.
const FRESH: Duration = Duration::from_millis(500);
/// How long the store may take.
const STORE_WAIT: Duration = Duration::from_secs(4);

/// What readiness depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Whether the server goes down.
    Server,
    Store,
    Broker,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Server, Self::Store, Self::Broker];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Store => "store",
            Self::Broker => "broker",
        }
    }
}

/// What was found. As text: a line for each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    parts: Vec<(Part, Result<(), String>)>,
}

impl Report {
    pub fn is_well(&self, part: Part) -> bool {
        self.parts.iter().all(|(other, state)| *other != part || state.is_ok())
    }

    /// Whether all is well but for what does not matter to whoever asks.
    pub fn is_ready_without(&self, excluded: &[Part]) -> bool {
        self.parts.iter().all(|(part, state)| state.is_ok() || excluded.contains(part))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, state) in &self.parts {
            let state = state.as_ref().map_or_else(String::as_str, |()| "ok");
            writeln!(f, "{}: {state}", part.name())?;
        }
        Ok(())
    }
}

/// Looks at the parts of one process.
pub struct Health {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    /// True from the moment the server is to go down.
    is_draining: AtomicBool,
    /// The store's last answer.
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Health {
    pub fn new(store: Arc<dyn Store>, broker: Arc<dyn Broker>) -> Self {
        Self { store, broker, is_draining: AtomicBool::new(false), last: Mutex::new(None) }
    }

    /// From now on the server is not ready: whoever sends people here should look elsewhere.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub async fn report(&self) -> Report {
        let server = match self.is_draining.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err("going down".into()),
        };
        let broker = self.broker.check().map_err(|trouble| {
            format!(
                "out of reach for {} s; messages of other nodes come late",
                trouble.since.elapsed().as_secs()
            )
        });
        let parts = vec![(Part::Server, server), (Part::Store, self.store().await), (Part::Broker, broker)];
        Report { parts }
    }

    async fn store(&self) -> Result<(), String> {
        // Who comes while the store is being asked waits for that answer.
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match timeout(STORE_WAIT, self.store.check()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the store is not ready");
                Err("does not answer".into())
            }
            Err(_) => Err(format!("no answer within {} s", STORE_WAIT.as_secs())),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::redis::RedisBroker;
    use crate::store::memory::MemoryStore;

    fn report(parts: [Result<(), &str>; 3]) -> Report {
        let states = parts.into_iter().map(|state| state.map_err(str::to_owned));
        Report { parts: Part::ALL.into_iter().zip(states).collect() }
    }

    #[test]
    fn every_part_must_be_well_unless_it_is_left_out() {
        assert!(report([Ok(()); 3]).is_ready_without(&[]));
        for (place, part) in Part::ALL.into_iter().enumerate() {
            let mut parts = [Ok(()); 3];
            parts[place] = Err("ill");
            let report = report(parts);
            assert!(!report.is_ready_without(&[]), "{part:?}");
            assert!(report.is_ready_without(&[part]), "{part:?}");
            assert!(report.to_string().contains(&format!("{}: ill\n", part.name())), "{report}");
            assert_eq!(Part::parse(part.name()), Some(part));
        }
        assert_eq!(Part::parse("weather"), None);
    }

    #[tokio::test]
    async fn a_server_that_goes_down_says_so() {
        let health = Health::new(Arc::new(MemoryStore::new([0; 32])), Arc::new(MemoryBroker::default()));
        assert_eq!(health.report().await.to_string(), "server: ok\nstore: ok\nbroker: ok\n");
        health.drain();
        let report = health.report().await;
        assert!(!report.is_ready_without(&[Part::Store, Part::Broker]));
        assert!(report.to_string().starts_with("server: going down\n"), "{report}");
    }

    #[tokio::test]
    async fn a_broker_out_of_reach_is_named_without_its_address() {
        // Port 1 of this machine: nobody answers there.
        let broker = RedisBroker::open("redis://ada:hush@127.0.0.1:1", &[0; 32]).unwrap();
        let health = Health::new(Arc::new(MemoryStore::new([0; 32])), Arc::new(broker));
        let report = health.report().await;
        assert!(report.is_ready_without(&[Part::Broker]) && !report.is_ready_without(&[]));
        let text = report.to_string();
        assert!(text.contains("broker: out of reach") && !text.contains("127.0.0.1"), "{text}");
    }
}
