//! Magpie's server: one process that serves the client, speaks WebSocket and keeps the rooms.
//!
//! The map, from the socket inwards:
//! - [`accept`] takes connections within the [`gate`]'s limits and runs HTTP; [`routes`] answers requests
//!   with the embedded [`assets`] and, by the rules of [`handshake`] and [`token`], upgrades sockets.
//! - [`connection`] reads a socket through [`websocket`], a machine without I/O.
//! - [`engine`] owns the [`hub`], which decides everything and does nothing, and carries out its effects.
//! - [`store`] keeps what must last, [`broker`] tells other nodes: two traits with their adapters.
//! - [`config`] names every limit; [`control`] is the operator's line in.

pub mod accept;
pub mod assets;
pub mod broker;
pub mod config;
pub mod connection;
pub mod control;
pub mod engine;
pub mod gate;
pub mod handshake;
pub mod hub;
pub mod names;
pub mod routes;
pub mod simulation;
pub mod store;
pub mod token;
pub mod websocket;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::broker::{Broker, HubId};
use crate::config::Config;
use crate::control::Control;
use crate::engine::Engine;
use crate::gate::Gate;
use crate::handshake::Rules;
use crate::routes::{Context, lab};
use crate::store::Store;

/// How long a server that goes down waits for its connections and its last commits.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// What a server runs on.
pub struct Parts {
    pub listeners: Vec<TcpListener>,
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    /// Tells this process from others on the same broker.
    pub hub: HubId,
    pub control: Option<Control>,
}

/// Serves until `shutdown` is ready, then drains: no new connections, 1012 to those there are, and every
/// accepted message committed. Everything runs on the calling thread, inside the returned future.
///
/// # Errors
/// The engine ended by itself, which is a fault of ours: the process should end too.
pub async fn run(
    parts: Parts,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EngineFailed> {
    LocalSet::new().run_until(run_local(parts, config, shutdown)).await
}

/// The engine ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("the engine failed; the log says where")]
pub struct EngineFailed;

async fn run_local(
    parts: Parts,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EngineFailed> {
    let Parts { listeners, store, broker, hub, control } = parts;
    let mut seed = [0; 8];
    if getrandom::fill(&mut seed).is_err() {
        tracing::warn!("the system gives no random bytes; ids will be guessable");
    }
    let engine = Engine::new(hub, config.engine(), store.clone(), broker, u64::from_ne_bytes(seed));
    let engine_task = tokio::task::spawn_local(engine.clone().run());
    if let Some(control) = control {
        tokio::task::spawn_local(control.run(engine.clone()));
    }

    let (upgrades, mut upgraded) = mpsc::unbounded_channel();
    let draining = Arc::new(AtomicBool::new(false));
    let lab = (!config.no_lab).then(|| Arc::new(lab::Lab::new(lab::Limits::default())));
    let context = Arc::new(Context {
        rules: Rules {
            scheme: "http",
            allowed_origins: config.allow_origin.clone(),
            deflate: !config.no_deflate,
        },
        secret: store.secret(),
        store,
        upgrades,
        ping_interval: Duration::from_secs(config.ping_interval),
        max_frame_bytes: config.max_frame_bytes as usize,
        max_echo_bytes: config.max_echo_bytes as usize,
        draining: draining.clone(),
        lab: lab.clone(),
    });
    let service = TowerToHyperService::new(warp::service(routes::all(context)));
    let gate = Gate::new(config.max_connections, config.max_connections_per_address);
    let patience = accept::Patience {
        idle: Duration::from_secs(config.idle_timeout),
        header: Duration::from_secs(config.header_timeout),
    };
    let (stop, stopped) = watch::channel(false);
    for listener in listeners {
        let service = service.clone();
        tokio::task::spawn_local(accept::run(listener, gate.clone(), patience, service, stopped.clone()));
    }
    {
        let engine = engine.clone();
        tokio::task::spawn_local(async move {
            while let Some(upgrade) = upgraded.recv().await {
                tokio::task::spawn_local(connection::serve(Rc::clone(&engine), upgrade));
            }
        });
    }

    tokio::select! {
        () = shutdown => {}
        _ = engine_task => return Err(EngineFailed),
    }
    tracing::info!(connections = engine.connections(), "going down");
    draining.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    if let Some(lab) = lab {
        lab.close();
    }
    engine.drain(DRAIN_WAIT).await;
    Ok(())
}
