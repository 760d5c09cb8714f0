//! The program `magpie`: reads its arguments, opens its data, listens, and goes down in good order.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use server::broker::memory::MemoryBroker;
use server::config::{Arguments, Command, Config};
use server::control::{self, Control, Order};
use server::store::sqlite::SqliteStore;
use server::{Parts, accept};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("magpie: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Some(Command::Announce { text, data }) => runtime.block_on(async {
            control::order(&data, &Order::Announce { text }).await.map_err(anyhow::Error::msg)
        }),
        None => runtime.block_on(serve(&arguments.config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magpie: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Text for people, JSON for collectors. `RUST_LOG` sets what is logged.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::io::stderr().is_terminal() { log.init() } else { log.json().flatten_event(true).init() }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    // Each connection is a descriptor; the usual soft limit of 1,024 is soon reached.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let store = SqliteStore::open(&config.data)?;
    let control = Control::open(&config.data)
        .inspect_err(|error| tracing::warn!(%error, "no control socket; `magpie announce` will not work"))
        .ok();
    let mut listeners = Vec::new();
    for address in &config.listen {
        let listener = accept::bind(*address).with_context(|| format!("cannot listen on {address}"))?;
        let url = format!("http://{}", listener.local_addr()?);
        tracing::info!(%url, data = %config.data.display(), "listening");
        listeners.push(listener);
    }
    let broker = Arc::new(MemoryBroker::default());
    let parts = Parts { listeners, store: Arc::new(store), broker, hub: 1, control };

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    server::run(parts, config, async {
        shutdown.await;
        // The next signal means now.
        tokio::spawn(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    })
    .await?;
    tracing::info!("down");
    Ok(())
}
