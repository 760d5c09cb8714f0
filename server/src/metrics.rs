//! What a process counts and measures, as Prometheus reads it, on a listener of its own.
//!
//! Whoever counts does so through the crate `metrics`, which does nothing unless [`Metrics::install`] was called:
//! only with `--metrics-listen`. What others know anyway is read when somebody asks. docs/operating.md has the
//! list. It must not know rooms, users or what they say: no label names any.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::interval;
use warp::Filter;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::accept::{self, Door, Patience};
use crate::broker::{self, Broker, HubId};
use crate::engine::{Counts, Engine};
use crate::gate::Gate;
use crate::health::{Health, Part};

/// From a message's way to the store to its being durable, per batch.
pub const COMMIT_SECONDS: &str = "magpie_commit_seconds";
/// Appends that the store acknowledged, repeated ones too.
pub const COMMITTED: &str = "magpie_committed_total";
/// Upper bounds of the classes of commits, in seconds.
const COMMIT_CLASSES: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// How often what was measured is sorted into its classes, asked or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How often a worker writes down what its engine has counted.
const BOARD_EVERY: Duration = Duration::from_secs(1);
/// Connections to the listener.
const CONNECTIONS_MAX: usize = 32;
/// How long they may take for a request and between two.
const PATIENCE: Patience = Patience { idle: Duration::from_secs(120), header: Duration::from_secs(10) };

/// The process's own collection.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// From now on what is counted is kept. Handles that were made earlier count for nothing.
    ///
    /// # Errors
    /// It was called before.
    pub fn install() -> Result<Self, BuildError> {
        let classes = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(COMMIT_SECONDS.into()), &COMMIT_CLASSES)?;
        let handle = classes.install_recorder()?;
        describe();
        Ok(Self { handle })
    }
}

/// A number that is read when somebody asks: its name, what it says, and where it stands.
struct Reading<T> {
    name: &'static str,
    about: &'static str,
    read: fn(&T) -> f64,
}

const fn reading<T>(name: &'static str, about: &'static str, read: fn(&T) -> f64) -> Reading<T> {
    Reading { name, about, read }
}

/// What an engine has now, added up over the workers.
const LEVELS: [Reading<Counts>; 9] = [
    reading("magpie_users", "Users with a connection, for each worker", |c| c.hub.users as f64),
    reading("magpie_rooms", "Rooms kept, for each worker", |c| c.hub.rooms as f64),
    reading("magpie_chats", "Connections that chat", |c| c.connections as f64),
    reading("magpie_store_waiting", "Questions to the store not answered yet", |c| c.hub.asked as f64),
    reading("magpie_inputs_waiting", "What waits for a hub, of connections and the store", |c| {
        c.inputs_waiting as f64
    }),
    reading("magpie_hints_waiting", "Hints that wait for a hub", |c| c.hints_waiting as f64),
    reading("magpie_backlogs", "Connections that do not take what they are owed", |c| c.backlogs as f64),
    reading("magpie_backlog_bytes", "Bytes that wait for them", |c| c.backlog_bytes as f64),
    reading("magpie_peers", "Other workers that are heard of, of any process", |c| c.hub.peers as f64),
];

/// What the engines have counted.
const SUMS: [Reading<Counts>; 11] = [
    reading("magpie_deliveries_total", "Texts of rooms given to connections", |c| c.deliveries as f64),
    reading("magpie_slow_readers_total", "Connections closed because they read too slowly", |c| {
        c.slow_readers as f64
    }),
    reading("magpie_resume_gaps_total", "Resumes that missed more than is replayed", |c| {
        c.hub.resume_gaps as f64
    }),
    reading("magpie_holes_total", "Reads of the store for events that hints did not bring", |c| {
        c.hub.holes as f64
    }),
    reading("magpie_heads_behind_total", "Rooms found behind by comparing heads", |c| {
        c.hub.heads_behind as f64
    }),
    reading("magpie_doubts_total", "Times that hints may have been lost, for each worker", |c| {
        c.hub.doubts as f64
    }),
    reading("magpie_users_reread_total", "Users read again for that", |c| c.hub.users_reread as f64),
    reading("magpie_sessions_voided_total", "Sessions found void by that", |c| c.hub.sessions_voided as f64),
    reading("magpie_hints_dropped_total", "Hints of others dropped because too many waited", |c| {
        c.hints_dropped as f64
    }),
    reading(
        "magpie_peers_lost_total",
        "Workers of other processes taken for dead, for each worker here",
        |c| c.hub.peers_lost as f64,
    ),
    reading("magpie_presence_reasked_total", "Rooms whose presence was asked for again", |c| {
        c.hub.presence_reasked as f64
    }),
];

/// What the broker has counted.
const BROKER_SUMS: [Reading<broker::Counts>; 6] = [
    reading("magpie_broker_sent_total", "Hints sent to other processes", |c| c.sent as f64),
    reading("magpie_broker_dropped_total", "Hints not sent", |c| c.dropped as f64),
    reading("magpie_broker_too_large_total", "Hints too large to send", |c| c.too_large as f64),
    reading("magpie_broker_received_total", "Hints of other processes", |c| c.received as f64),
    reading("magpie_broker_unknown_total", "Messages that were no hints", |c| c.unknown as f64),
    reading("magpie_broker_connections_total", "Connections made to the broker", |c| c.connections as f64),
];

/// What the broker has now.
const BROKER_LEVELS: [Reading<broker::Counts>; 2] = [
    reading("magpie_broker_subscriptions", "Topics subscribed to", |c| c.subscriptions as f64),
    reading("magpie_broker_lag_seconds", "How long a hint to ourselves took last", |c| c.lag.as_secs_f64()),
];

impl<T> Reading<T> {
    fn level(&self, from: &T) {
        gauge!(self.name).set((self.read)(from));
    }

    fn sum(&self, from: &T) {
        counter!(self.name).absolute((self.read)(from) as u64);
    }
}

fn describe() {
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From handing a batch to the store to its answer");
    describe_counter!(COMMITTED, "Appends that the store acknowledged, repeated ones too");
    describe_gauge!("magpie_connections", "Connections of any kind");
    describe_gauge!("magpie_ready", "Whether a part is well: server (0 while going down), store, broker");
    describe_gauge!("magpie_build_info", "1, with the version as a label");
    LEVELS.iter().for_each(|reading| describe_gauge!(reading.name, reading.about));
    SUMS.iter().for_each(|reading| describe_counter!(reading.name, reading.about));
    BROKER_SUMS.iter().for_each(|reading| describe_counter!(reading.name, reading.about));
    BROKER_LEVELS.iter().for_each(|reading| describe_gauge!(reading.name, reading.about));
}

/// Where each worker writes what its engine has counted, now and then.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<HubId, Counts>>);

impl Board {
    /// Writes for one worker, until it is dropped. Runs inside a `LocalSet`.
    pub async fn keep(&self, hub: HubId, engine: &Engine) {
        let mut timer = interval(BOARD_EVERY);
        loop {
            timer.tick().await;
            self.lock().insert(hub, engine.counts());
        }
    }

    fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.lock().values().for_each(|counts| sum += *counts);
        sum
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HubId, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read when somebody asks.
pub struct Source {
    pub metrics: Metrics,
    pub health: Arc<Health>,
    pub gate: Arc<Gate>,
    pub broker: Arc<dyn Broker>,
    pub board: Arc<Board>,
}

impl Source {
    async fn text(&self) -> String {
        gauge!("magpie_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("magpie_connections").set(self.gate.connections() as f64);
        let report = self.health.report().await;
        for part in Part::ALL {
            let is_well = u8::from(report.is_well(part));
            gauge!("magpie_ready", "part" => part.name()).set(f64::from(is_well));
        }
        let (counts, broker) = (self.board.sum(), self.broker.counts());
        LEVELS.iter().for_each(|reading| reading.level(&counts));
        SUMS.iter().for_each(|reading| reading.sum(&counts));
        BROKER_SUMS.iter().for_each(|reading| reading.sum(&broker));
        BROKER_LEVELS.iter().for_each(|reading| reading.level(&broker));
        self.metrics.handle.render()
    }
}

/// Answers `GET /metrics` on a listener until `end` is dropped. Runs inside a `LocalSet`.
pub async fn serve(listener: TcpListener, source: Source, end: watch::Receiver<bool>) {
    let source = Arc::new(source);
    let metrics = source.metrics.clone();
    spawn_local(async move {
        let mut timer = interval(UPKEEP_EVERY);
        loop {
            timer.tick().await;
            metrics.handle.run_upkeep();
        }
    });
    let answer = warp::path!("metrics").and(warp::get()).then(move || {
        let source = source.clone();
        async move {
            let mut response = Response::new(source.text().await.into());
            let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, form);
            response
        }
    });
    let nothing = warp::any().map(|| {
        let mut response = Response::new("The metrics are at /metrics.\n".into());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    });
    let service = TowerToHyperService::new(warp::service(answer.or(nothing).unify()));
    let (seat, mut arrivals) = mpsc::unbounded_channel();
    let door = Door { tls: None, gate: Gate::new(CONNECTIONS_MAX, 0), seats: vec![seat], stop: end.clone() };
    spawn_local(accept::run(vec![listener], door));
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(arrival) = arrivals.recv().await {
        spawn_local(accept::serve(arrival, turns.clone(), PATIENCE, service.clone(), end.clone()));
    }
}
