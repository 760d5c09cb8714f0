//! One room with many members: what a delivery costs, how many there can be in a second, how late they are.

use std::time::Duration;

use anyhow::Result;

use crate::client::Load;
use crate::report::Row;
use crate::scenarios::{Phase, Run, closed_loop, in_bursts, phase};
use crate::server_process::{Kind, Server};

const SCENARIO: &str = "fan-out";
/// Senders when the room is saturated, and the messages that each keeps in flight.
const SENDERS: usize = 8;
const WINDOWS: [usize; 3] = [1, 16, 64];
/// Bytes of one event of Magpie with a body of 128 bytes and a name of usual length, without the frame's
/// header: what the floor sends.
const EVENT_BYTES: usize = 321;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    for round in 0..run.choose(run.rounds, 1) {
        for members in run.choose(vec![100, 1_000, 5_000], vec![100]) {
            run.say(&format!("round {}, {members} members", round + 1));
            for kind in [Kind::Magpie, Kind::PlainWarp, Kind::Floor] {
                one(run, kind, members, rows)?;
            }
        }
    }
    Ok(())
}

fn one(run: &Run, kind: Kind, members: usize, rows: &mut Vec<Row>) -> Result<()> {
    let (server, mut load) = run.start(kind, members)?;
    if kind == Kind::Floor {
        load.body_bytes = EVENT_BYTES;
    }
    // So many that the server works for a second or so: its CPU time is counted in steps of 10 ms.
    let messages = run.choose(200_000 / members as u64, 20).max(100);
    load.make_sender(0);
    // The first messages find caches and buffers cold.
    phase(&server, &mut load, members, |load| in_bursts(load, members, 10, 1))?;
    let lone = phase(&server, &mut load, members, |load| in_bursts(load, members, messages, 1))?;
    rows.push(row(kind, members, "one at a time", &lone, &load));
    if kind != Kind::Floor {
        let bursts = phase(&server, &mut load, members, |load| in_bursts(load, members, messages / 2, 10))?;
        rows.push(row(kind, members, "bursts of 10", &bursts, &load));
        saturated(run, &server, &mut load, members, rows)?;
    }
    server.stop()
}

fn saturated(run: &Run, server: &Server, load: &mut Load, members: usize, rows: &mut Vec<Row>) -> Result<()> {
    let senders: Vec<usize> = (0..SENDERS).map(|place| place * members / SENDERS).collect();
    for sender in &senders {
        load.make_sender(*sender);
    }
    for window in WINDOWS {
        let time = Duration::from_millis(run.choose(2_000, 200));
        let end = phase(server, load, members, |load| closed_loop(load, &senders, window, time))?;
        rows.push(row(server.kind, members, &format!("{SENDERS} × {window} in flight"), &end, load));
    }
    Ok(())
}

fn row(kind: Kind, members: usize, case: &str, phase: &Phase, load: &Load) -> Row {
    let deliveries = load.deliveries() as f64;
    let tally = &load.tallies[0];
    let row = Row::new(SCENARIO, kind.name(), format!("{members} members, {case}"))
        .with("cpu_ns_per_delivery", phase.cpu_ns as f64 / deliveries)
        .with("deliveries_per_s", deliveries / phase.elapsed.as_secs_f64())
        .with_latency("delivery", &tally.latency);
    match kind {
        Kind::Magpie => row.with("ack_p99_ms", tally.ack_latency.value_at_quantile(0.99) as f64 / 1_000.0),
        Kind::PlainWarp | Kind::Floor => row,
    }
}
