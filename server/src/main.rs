//! The program `magpie`: reads its arguments, opens its data, listens, and goes down in good order.

use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use server::broker::memory::MemoryBroker;
use server::broker::redis::RedisBroker;
use server::broker::{self, Broker};
use server::config::{Arguments, Certificate, Command, Config, LogForm};
use server::control::{self, Control, Order};
use server::metrics::Metrics;
use server::owner::OwnerLinks;
use server::store::Store;
use server::store::migrate::{self, Progress};
use server::store::postgres::PostgresStore;
use server::store::sqlite::{self, SqliteStore};
use server::tls::Tls;
use server::{Parts, accept, log};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(arguments.config.log_form);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("magpie: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Some(Command::Announce { text, data }) => runtime.block_on(async {
            control::order(&data, &Order::Announce { text }).await.map(drop).map_err(anyhow::Error::msg)
        }),
        Some(Command::Health { data }) => runtime.block_on(async {
            let report = control::order(&data, &Order::Health).await.map_err(anyhow::Error::msg)?;
            print!("{}", report.unwrap_or_default());
            Ok(())
        }),
        Some(Command::Migrate { from, to }) => migrate(&from, to.as_str()),
        Some(Command::OwnerLink { data }) => runtime.block_on(async {
            let link = control::order(&data, &Order::OwnerLink).await.map_err(anyhow::Error::msg)?;
            println!("{}", link.context("the server gave no link")?);
            Ok(())
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

/// `RUST_LOG` sets what is logged.
fn log_to_stderr(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match form {
        LogForm::Auto => is_terminal,
        LogForm::Text => true,
        LogForm::Json => false,
    };
    log::subscriber(filter, std::io::stderr, is_text, is_terminal).init();
}

/// Moves the data, and says how far it is: at each table's beginning and end, and every second.
fn migrate(from: &Path, to: &str) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    let mut told: Option<(&'static str, Instant)> = None;
    migrate::migrate(from, to, &mut |progress| {
        if let Progress::Copied { table, rows, of } = progress {
            let is_news = told.is_none_or(|(last, at)| last != *table || at.elapsed() >= PAUSE);
            if !is_news && rows < of {
                return;
            }
            told = Some((table, Instant::now()));
        }
        println!("{progress}");
    })?;
    println!("done: start Magpie with --database, on as many nodes as you like, and keep {}", from.display());
    Ok(())
}

async fn serve(config: &Config, certificate: Option<Certificate>) -> anyhow::Result<()> {
    // Each connection is a descriptor; the usual soft limit of 1,024 is soon reached.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // Before anything is there to be counted.
    let metrics = match config.metrics_listen {
        None => None,
        Some(address) => {
            let listener = accept::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            tracing::info!(metrics = %format!("http://{}/metrics", listener.local_addr()?), "metrics");
            Some((listener, Metrics::install()?))
        }
    };
    // A directory is one process's, whatever is in it. The embedded store takes the lock by itself.
    let (store, _lock): (Arc<dyn Store>, _) = match &config.database {
        None => (Arc::new(SqliteStore::open(&config.data)?), None),
        Some(address) => {
            let lock = sqlite::lock(&config.data)?;
            (Arc::new(PostgresStore::open(address.as_str())?), Some(lock))
        }
    };
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
    let owner_links = OwnerLinks { store: store.clone(), origin: origin(config, scheme, &listeners)? };
    if let Some(link) = owner_links.first().await? {
        tracing::warn!(%link, "this server has no owner: whoever opens this link becomes it");
    }
    let broker: Arc<dyn Broker> = match &config.broker {
        None => Arc::new(MemoryBroker::default()),
        Some(url) => Arc::new(RedisBroker::open(url.as_str(), &store.secret())?),
    };
    let hub = broker::first_hub().context("the system gives no random bytes")?;
    let parts = Parts { listeners, tls, store, broker, hub, control, metrics, owner_links };

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

/// Where people find the server, as far as it can know: by the origin that the operator allows, or the first
/// address it listens on.
fn origin(config: &Config, scheme: &str, listeners: &[TcpListener]) -> anyhow::Result<String> {
    if let Some(origin) = config.allow_origin.first() {
        return Ok(origin.clone());
    }
    let address = listeners.first().context("there is no address to listen on")?.local_addr()?;
    let is_any = address.ip().is_unspecified();
    let host = if is_any { format!("localhost:{}", address.port()) } else { address.to_string() };
    Ok(format!("{scheme}://{host}"))
}
