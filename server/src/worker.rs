//! One of the threads that serve: an engine, and HTTP for the connections that are given to it.
//!
//! A connection stays on its worker from its first byte to its last. Workers share the store, the broker and
//! what [`Shared`] has; their hubs are peers, as those of several nodes are. It must not know how
//! connections are accepted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::accept::{self, Arrival, Patience};
use crate::api::Api;
use crate::broker::{Broker, HubId};
use crate::config::Config;
use crate::connection;
use crate::engine::{Engine, Pressure};
use crate::gate::Gate;
use crate::handshake::Rules;
use crate::health::Health;
use crate::metrics::Board;
use crate::routes::{self, Context, lab};
use crate::store::Store;

/// How long a worker that goes down waits for its connections and its last commits.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// How long it waits for answers that are being written, and how often it looks.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
const ANSWER_POLL: Duration = Duration::from_millis(10);

/// What all workers of a process have in common.
pub struct Shared {
    pub config: Config,
    /// `https` where the listeners speak TLS, else `http`.
    pub scheme: &'static str,
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub pressure: Arc<Pressure>,
    pub api: Arc<Api>,
    pub gate: Arc<Gate>,
    pub health: Arc<Health>,
    /// Where it writes what is counted, if anybody reads it.
    pub board: Option<Arc<Board>>,
    pub lab: Option<Arc<lab::Lab>>,
}

/// The engine ended although nobody asked it to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the engine failed; the log says where")]
pub struct EngineFailed;

/// Serves what arrives until `stop` is true, then drains. Runs inside a `LocalSet`.
///
/// # Errors
/// The engine ended by itself, which is a fault of ours.
pub async fn run(
    hub: HubId,
    shared: Arc<Shared>,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), EngineFailed> {
    let Shared { config, scheme, store, broker, pressure, api, gate, health, board, lab } = &*shared;
    let mut seed = [0; 32];
    if let Err(error) = getrandom::fill(&mut seed) {
        tracing::error!(%error, "the system gives no random bytes: secrets would be guessable");
        return Err(EngineFailed);
    }
    let engine = Engine::new(hub, config.engine(), store.clone(), broker.clone(), pressure.clone(), seed);
    let mut engine_task = spawn_local(engine.clone().run());
    if let Some(board) = board {
        let (board, engine) = (board.clone(), engine.clone());
        spawn_local(async move { board.keep(hub, &engine).await });
    }

    let (upgrades, mut upgraded) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        rules: Rules { scheme, allowed_origins: config.allow_origin.clone(), deflate: !config.no_deflate },
        secret: store.secret(),
        store: store.clone(),
        broker: broker.clone(),
        hub,
        api: api.clone(),
        upgrades,
        ping_interval: Duration::from_secs(config.ping_interval),
        max_frame_bytes: config.max_frame_bytes as usize,
        max_echo_bytes: config.max_echo_bytes as usize,
        health: health.clone(),
        lab: lab.clone(),
    });
    let service = TowerToHyperService::new(warp::service(routes::all(context)));
    let patience = Patience {
        idle: Duration::from_secs(config.idle_timeout),
        header: Duration::from_secs(config.header_timeout),
    };
    let (turns, stopped) = (Arc::new(Semaphore::new(accept::HANDSHAKES_MAX)), stop.clone());
    let serving = Rc::new(());
    let mut bans = gate.bans();
    loop {
        tokio::select! {
            Some(arrival) = arrivals.recv() => {
                let served = accept::serve(arrival, turns.clone(), patience, service.clone(), stopped.clone());
                let serving = serving.clone();
                spawn_local(async move {
                    served.await;
                    drop(serving);
                });
            }
            Some(upgrade) = upgraded.recv() => {
                spawn_local(connection::serve(Rc::clone(&engine), upgrade));
            }
            Ok(()) = bans.changed() => engine.close_banned(),
            _ = &mut engine_task => return Err(EngineFailed),
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    arrivals.close();
    while arrivals.try_recv().is_ok() {}
    // What was answered with 101 while the worker went down is told so by the engine.
    spawn_local({
        let engine = engine.clone();
        async move {
            while let Some(upgrade) = upgraded.recv().await {
                spawn_local(connection::serve(Rc::clone(&engine), upgrade));
            }
        }
    });
    let answered = async {
        while Rc::strong_count(&serving) > 1 {
            tokio::time::sleep(ANSWER_POLL).await;
        }
    };
    // Answers that take longer are cut.
    let _ = tokio::join!(engine.drain(DRAIN_WAIT), tokio::time::timeout(ANSWER_WAIT, answered));
    // Those of the last answers.
    engine.drain(DRAIN_WAIT).await;
    Ok(())
}

/// Runs something of the server on a thread of its own; `ended` is told how that ended, or dropped.
pub fn on_a_thread<F>(
    name: &str,
    ended: oneshot::Sender<Result<(), EngineFailed>>,
    work: impl FnOnce() -> F + Send + 'static,
) where
    F: Future<Output = Result<(), EngineFailed>>,
{
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "cannot start a thread"),
        };
        let end = LocalSet::new().block_on(&runtime, async { work().await });
        let _ = ended.send(end);
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        tracing::error!(%error, "cannot start a thread");
    }
}
