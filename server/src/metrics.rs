//! What a process counts and measures, as Prometheus reads it, on a listener of its own.
//!
//! Whoever counts does so through the crate `metrics`, which does nothing unless [`Metrics::install`] was called:
//! only with `--metrics-listen`. What others know anyway is read when somebody asks. docs/operating.md has the
//! list. It must not know rooms, users or what they say: no label names any.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::interval;
use warp::Filter;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::accept::{self, Door, Patience};
use crate::broker::Broker;
use crate::gate::Gate;
use crate::health::{Health, Part};

/// From a message's way to the store to its being durable, per batch.
pub const COMMIT_SECONDS: &str = "magpie_commit_seconds";
/// Messages and other events that are durable, of this process.
pub const COMMITTED: &str = "magpie_committed_total";
/// Copies of texts that went to connections.
pub const DELIVERIES: &str = "magpie_deliveries_total";
/// Connections closed because their peer read too slowly.
pub const SLOW_READERS: &str = "magpie_slow_readers_total";
/// What waits for a worker's hub.
pub const INBOX: &str = "magpie_inbox";
/// Rooms that a worker keeps.
pub const ROOMS: &str = "magpie_rooms";
/// Users with connections to a worker.
pub const USERS: &str = "magpie_users";

/// Upper bounds of the classes of commits, in seconds.
const COMMIT_CLASSES: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// How often what was measured is sorted into its classes, asked or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
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

fn describe() {
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From handing a batch to the store to its answer");
    describe_counter!(COMMITTED, "Messages and other events of this process that are durable");
    describe_counter!(DELIVERIES, "Texts given to connections");
    describe_counter!(SLOW_READERS, "Connections closed because their peer read too slowly");
    describe_gauge!(INBOX, "What waits for a worker's hub");
    describe_gauge!(ROOMS, "Rooms that a worker keeps");
    describe_gauge!(USERS, "Users with connections to a worker");
    describe_gauge!("magpie_connections", "Connections of any kind");
    describe_gauge!("magpie_ready", "Whether a part is well: server (0 while going down), store, broker");
    describe_gauge!("magpie_build_info", "1, with the version as a label");
}

/// What is read when somebody asks.
pub struct Source {
    pub metrics: Metrics,
    pub health: Arc<Health>,
    pub gate: Arc<Gate>,
    pub broker: Arc<dyn Broker>,
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
