//! The program `magpie`: reads its arguments, opens its data, listens, and goes down in good order.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use server::broker::memory::MemoryBroker;
use server::config::{Arguments, Certificate, Command, Config};
use server::control::{self, Control, Order};
use server::store::sqlite::SqliteStore;
use server::tls::Tls;
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
        None => match arguments.config.certificate() {
            Ok(certificate) => runtime.block_on(serve(&arguments.config, certificate)),
            Err(text) => Arguments::command().error(ErrorKind::ArgumentConflict, text).exit(),
        },
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

async fn serve(config: &Config, certificate: Option<Certificate>) -> anyhow::Result<()> {
    // Each connection is a descriptor; the usual soft limit of 1,024 is soon reached.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let store = SqliteStore::open(&config.data)?;
    let control = Control::open(&config.data)
        .inspect_err(|error| tracing::warn!(%error, "no control socket; `magpie announce` will not work"))
        .ok();
    let tls = match certificate {
        None => None,
        Some(Certificate::Files(files)) => Some(Tls::open(files)?),
        Some(Certificate::SelfSigned) => Some(Tls::self_signed(&config.data, &config.listen)?),
    };
    if let Some(tls) = &tls {
        tracing::info!(fingerprint = tls.fingerprint(), "certificate");
        tokio::spawn(tls.clone().watch()?);
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut listeners = Vec::new();
    for address in &config.listen {
        let listener = accept::bind(*address).with_context(|| format!("cannot listen on {address}"))?;
        let url = format!("{scheme}://{}", listener.local_addr()?);
        tracing::info!(%url, data = %config.data.display(), "listening");
        listeners.push(listener);
    }
    let broker = Arc::new(MemoryBroker::default());
    let parts = Parts { listeners, tls, store: Arc::new(store), broker, hub: 1, control };

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
