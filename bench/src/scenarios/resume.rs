//! Clients that were away for a while ask for what they missed.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::report::Row;
use crate::scenarios::{LIMIT, Run};
use crate::server_process::Kind;

/// Steps in which the clients are cut, and the messages between two steps: those who went first miss most.
const STEPS: usize = 5;
const MESSAGES: usize = 50;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    let clients = run.choose(1_000, 50);
    for _ in 0..run.choose(run.rounds, 1) {
        rows.push(one(run, clients)?);
    }
    Ok(())
}

fn one(run: &Run, clients: usize) -> Result<Row> {
    let (server, mut load) = run.start(Kind::Magpie, clients + 1)?;
    load.make_sender(clients);
    for step in 0..STEPS {
        for client in (0..clients).filter(|client| client % STEPS == step) {
            load.cut(client)?;
        }
        for _ in 0..MESSAGES {
            load.send(clients, load.now())?;
        }
        load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
    }
    load.settle(Duration::from_millis(300), LIMIT)?;

    load.begin();
    let (cpu_ns, start) = (server.cpu_ns()?, load.now());
    for client in 0..clients {
        load.connect(client)?;
    }
    load.run_until(LIMIT, "for all to have what they missed", |load| load.arrived == clients)?;
    let cpu_ns = server.cpu_ns()? - cpu_ns;
    load.verify()?;

    let back = &load.conns[..clients];
    let last = back.iter().map(|conn| conn.times.resumed).max().context("no clients")?;
    let seconds = (last - start) as f64 / 1e9;
    let bytes: u64 = back.iter().map(|conn| conn.resumed_bytes).sum();
    let events: u64 = back.iter().map(|conn| conn.resumed_events).sum();
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    for conn in back {
        histogram.saturating_record((conn.times.resumed - conn.times.begun) / 1_000);
    }
    let case = format!("{clients} clients, {MESSAGES} to {} events each", STEPS * MESSAGES);
    let row = Row::new("resume", Kind::Magpie.name(), case)
        .with("resumes_per_s", clients as f64 / seconds)
        .with("events_per_s", events as f64 / seconds)
        .with("mb", bytes as f64 / 1e6)
        .with("cpu_us_per_resume", cpu_ns as f64 / 1_000.0 / clients as f64)
        .with_latency("resume", &histogram);
    server.stop()?;
    Ok(row)
}
