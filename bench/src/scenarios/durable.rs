//! Sends into SQLite, each acknowledged when it is on the disk: how many in a second, and how late.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::client::Load;
use crate::report::Row;
use crate::scenarios::{Phase, Run, closed_loop, fixed_rate, phase};
use crate::server_process::Kind;

const SCENARIO: &str = "durable";
const SENDERS: usize = 64;
/// Members of each room; all of them send.
const MEMBERS: usize = 4;
/// Messages in flight in all.
const IN_FLIGHT: [usize; 3] = [256, 512, 1_024];
/// Messages a second where the rate is fixed.
const RATES: [u32; 2] = [5_000, 20_000];
/// What is written before each sync when the disk alone is measured: a page of SQLite.
const PAGE_BYTES: usize = 4_096;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    let (server, mut load) = run.start(Kind::Magpie, SENDERS)?;
    let places: Vec<_> = (0..SENDERS).map(|client| (client, format!("few-{}", client / MEMBERS))).collect();
    run.enter(&mut load, &places)?;
    let senders: Vec<usize> = (0..SENDERS).collect();
    for sender in &senders {
        load.make_sender(*sender);
    }
    rows.push(disk(run)?);
    let warm = Duration::from_millis(run.choose(500, 50));
    phase(&server, &mut load, MEMBERS, |load| closed_loop(load, &senders, 4, warm))?;
    for in_flight in IN_FLIGHT {
        let time = Duration::from_millis(run.choose(5_000, 300));
        let end = phase(&server, &mut load, MEMBERS, |load| {
            closed_loop(load, &senders, in_flight / SENDERS, time)
        })?;
        rows.push(row(format!("{in_flight} in flight"), &end, &load));
    }
    for rate in RATES {
        let time = Duration::from_millis(run.choose(5_000, 300));
        let end = phase(&server, &mut load, MEMBERS, |load| fixed_rate(load, &senders, rate.into(), time))?;
        rows.push(row(format!("{rate} a second"), &end, &load));
    }
    server.stop()
}

fn row(case: String, phase: &Phase, load: &Load) -> Row {
    let tally = &load.tallies[0];
    Row::new(SCENARIO, Kind::Magpie.name(), case)
        .with("sends_per_s", tally.acks as f64 / phase.elapsed.as_secs_f64())
        .with("cpu_ns_per_send", phase.cpu_ns as f64 / tally.acks as f64)
        .with_latency("ack", &tally.ack_latency)
}

/// What it costs to have one page on the disk, for comparison.
fn disk(run: &Run) -> Result<Row> {
    let path = run.place.data.join("fdatasync");
    let mut file = File::create(&path).context("creating a file to sync")?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for _ in 0..run.choose(500, 20) {
        let start = Instant::now();
        file.write_all(&[0; PAGE_BYTES])?;
        file.sync_data()?;
        histogram.saturating_record(start.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(Row::new(SCENARIO, "disk", "write 4 KiB and fdatasync").with_latency("ack", &histogram))
}
