//! Magpie's server: one process that serves the client, speaks WebSocket and keeps the rooms.
//!
//! The map, from the socket inwards:
//! - [`accept`] takes connections within the [`gate`]'s limits and gives each to a [`worker`], a thread with
//!   an engine of its own, where it runs HTTP; [`routes`] answers requests
//!   with the embedded [`assets`] and, by the rules of [`handshake`] and [`token`], upgrades sockets.
//! - [`accounts`] and [`passwords`] are the rules of signing up and in, [`limits`] how often something may be
//!   done, [`addresses`] who is behind a proxy; [`api`] is what the requests of all workers have in common.
//! - [`hooks`] posts messages to other servers; [`upkeep`] keeps them, and the bans of addresses, up to date.
//! - [`secrets`] makes what people are told once: tokens, links, webhooks' keys.
//! - [`tls`] keeps the certificate; [`socket`] is plain TCP or TLS over it, and the same to all who use it.
//! - [`connection`] reads a socket through [`websocket`], a machine without I/O.
//! - [`engine`] owns the [`hub`], which decides everything and does nothing, and carries out its effects.
//! - [`encoded`] holds what goes to many connections, encoded once.
//! - [`store`] keeps what must last, [`broker`] tells other nodes: two traits with their adapters.
//! - [`health`] says whether all is well, [`metrics`] gives numbers to Prometheus.
//! - [`config`] names every limit; [`control`] is the operator's line in, [`owner`] makes the owner's link, [`log`]
//!   keeps a line a line.

pub mod accept;
pub mod accounts;
pub mod addresses;
pub mod api;
pub mod assets;
pub mod broker;
pub mod config;
pub mod connection;
pub mod control;
pub mod device;
pub mod encoded;
pub mod engine;
pub mod gate;
pub mod handshake;
pub mod health;
pub mod hooks;
pub mod hub;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod names;
pub mod owner;
pub mod passwords;
pub mod routes;
pub mod secrets;
pub mod simulation;
pub mod socket;
pub mod store;
pub mod tls;
pub mod token;
pub mod upkeep;
pub mod websocket;
pub mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::addresses::Proxies;
use crate::api::Api;
use crate::broker::{Broker, Hint, HubId, Topic};
use crate::config::Config;
use crate::control::{Control, Order};
use crate::gate::Gate;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::metrics::{Metrics, Source};
use crate::owner::OwnerLinks;
use crate::routes::lab;
use crate::store::Store;
use crate::tls::Tls;
use crate::upkeep::Upkeep;
use crate::worker::{EngineFailed, Shared};

/// What a server runs on.
pub struct Parts {
    pub listeners: Vec<TcpListener>,
    /// What all listeners speak; `None` is plain HTTP.
    pub tls: Option<Arc<Tls>>,
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    /// Tells this process from others on the same broker: the first of as many ids as it has workers, and
    /// one more.
    pub hub: HubId,
    pub control: Option<Control>,
    /// Where metrics are read, and what has them.
    pub metrics: Option<(TcpListener, Metrics)>,
    pub owner_links: OwnerLinks,
}

/// Serves until `shutdown` is ready, then drains: not ready any more, and after the configured delay no new
/// connections, 1012 to those there are, and every
/// accepted message committed. The first worker runs on the calling thread, inside the returned future.
///
/// # Errors
/// An engine ended by itself, which is a fault of ours: the process should end too.
pub async fn run(
    parts: Parts,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EngineFailed> {
    LocalSet::new().run_until(run_local(parts, config, shutdown)).await
}

async fn run_local(
    parts: Parts,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EngineFailed> {
    let Parts { listeners, tls, store, broker, hub, control, metrics, owner_links } = parts;
    let health = Arc::new(Health::new(store.clone(), broker.clone()));
    if let Some(control) = control {
        let (broker, health) = (broker.clone(), health.clone());
        let carry_out = async move |order| match order {
            Order::Announce { text } => {
                let text = config::announcement(&text)?;
                let hint = Hint::Announcement { text, at: engine::wall_clock(SystemTime::now()) };
                broker.publish(hub, Topic::All, hint);
                Ok(None)
            }
            Order::Health => {
                let report = health.report().await;
                if report.is_ready_without(&[]) {
                    Ok(Some(report.to_string()))
                } else {
                    Err(report.to_string())
                }
            }
            Order::OwnerLink => owner_links.make().await.map_err(|error| error.to_string()),
        };
        spawn_local(control.run(carry_out));
    }
    let lab = (!config.no_lab).then(|| Arc::new(lab::Lab::new(lab::Limits::default())));
    let proxies = Proxies(config.trusted_proxy.clone());
    let gate = Gate::behind(proxies, config.max_connections, config.max_connections_per_address);
    let shared = Arc::new(Shared {
        config: config.clone(),
        scheme: if tls.is_some() { "https" } else { "http" },
        store,
        broker,
        pressure: Arc::default(),
        api: Arc::new(Api::new(config)),
        gate: gate.clone(),
        health: health.clone(),
        board: metrics.is_some().then(Arc::default),
        lab: lab.clone(),
    });
    let upkeep = Upkeep {
        store: shared.store.clone(),
        broker: shared.broker.clone(),
        // Behind those of the workers.
        hub: hub + config.workers() as HubId,
        gate: gate.clone(),
        hooks: Hooks::new(shared.store.clone(), config.allow_private_hooks),
    };
    spawn_local(upkeep.run());
    // Until all is over.
    let (_metrics_end, end) = watch::channel(false);
    if let Some((listener, metrics)) = metrics {
        let (health, broker) = (health.clone(), shared.broker.clone());
        let (gate, board) = (gate.clone(), shared.board.clone().unwrap_or_default());
        let source = Source { metrics, health, gate, broker, board };
        spawn_local(metrics::serve(listener, source, end));
    }
    let (stop, stopped) = watch::channel(false);
    let mut seats = Vec::new();
    let mut ends = FuturesUnordered::new();
    for place in 0..config.workers() {
        let (seat, arrivals) = mpsc::unbounded_channel();
        let (ended, end) = oneshot::channel();
        let (shared, stopped) = (shared.clone(), stopped.clone());
        let hub = hub + place as HubId;
        if place == 0 {
            spawn_local(async move { ended.send(worker::run(hub, shared, arrivals, stopped).await) });
        } else {
            // A thread that panics drops its end, which ends the others.
            let name = format!("worker-{place}");
            worker::on_a_thread(&name, ended, move || worker::run(hub, shared, arrivals, stopped));
        }
        seats.push(seat);
        ends.push(end);
    }
    let (ended, end) = oneshot::channel();
    ends.push(end);
    let door = accept::Door { tls, gate: gate.clone(), seats, stop: stopped };
    worker::on_a_thread("accept", ended, async move || {
        accept::run(listeners, door).await;
        Ok(())
    });

    let mut result = tokio::select! {
        () = shutdown => Ok(()),
        _ = ends.next() => Err(EngineFailed),
    };
    tracing::info!(connections = gate.connections(), "going down");
    health.drain();
    if result.is_ok() && config.drain_delay > 0 {
        result = tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(config.drain_delay)) => Ok(()),
            _ = ends.next() => Err(EngineFailed),
        };
    }
    let _ = stop.send(true);
    if let Some(lab) = lab {
        lab.close();
    }
    while let Some(end) = ends.next().await {
        result = result.and(end.unwrap_or(Err(EngineFailed)));
    }
    result
}
