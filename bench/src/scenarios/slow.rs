//! Members that stop reading: what the others feel, and what becomes of the slow ones.

use std::time::Duration;

use anyhow::Result;

use crate::client::{Load, Stage};
use crate::report::Row;
use crate::scenarios::{LIMIT, Run, fixed_rate, phase};
use crate::server_process::{Kind, Server};

const SCENARIO: &str = "slow";
const PER_SECOND: f64 = 200.0;
/// The group of those that do not read.
const SLOW_GROUP: usize = 2;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    let members = run.choose(1_000, 50);
    // Longer than the server waits for a peer that takes nothing.
    let time = Duration::from_secs_f64(run.choose(14.0, 0.5));
    for _ in 0..run.choose(run.rounds, 1) {
        let (server, mut load) = run.start(Kind::Magpie, members)?;
        load.make_sender(0);
        phase(&server, &mut load, members, |load| fixed_rate(load, &[0], PER_SECOND, time / 4))?;
        for slow in [0, 1, 10] {
            run.say(&format!("{slow} of {members} members do not read"));
            rows.push(one(&server, &mut load, members, slow, time)?);
        }
        server.stop()?;
    }
    Ok(())
}

fn one(server: &Server, load: &mut Load, members: usize, slow: usize, time: Duration) -> Result<Row> {
    let slow = members - slow..members;
    for client in slow.clone() {
        load.conns[client].group = SLOW_GROUP;
        load.conns[client].may_close = true;
        load.set_reading(client, false)?;
    }
    let end = phase(server, load, members - slow.len(), |load| fixed_rate(load, &[0], PER_SECOND, time))?;
    let row = Row::new(SCENARIO, Kind::Magpie.name(), format!("{members} members, {} slow", slow.len()))
        .with("cpu_ns_per_delivery", end.cpu_ns as f64 / load.deliveries() as f64)
        .with_latency("delivery", &load.tallies[0].latency);

    // They read what is there: either all of it, or up to where they were cut off.
    for client in slow.clone() {
        load.set_reading(client, true)?;
    }
    load.settle(Duration::from_millis(500), LIMIT)?;
    let stages: Vec<Stage> = slow.clone().map(|client| load.conns[client].stage).collect();
    let count = |is: fn(&Stage) -> bool| stages.iter().filter(|stage| is(stage)).count() as f64;
    load.begin();
    let mut returning = 0;
    for client in slow.clone() {
        load.conns[client].group = 0;
        load.conns[client].gaps = 0;
        if load.conns[client].stage != Stage::Open {
            load.connect(client)?;
            returning += 1;
        }
    }
    load.run_until(LIMIT, "for the slow ones to have everything", |load| load.arrived == returning)?;
    for client in slow.clone() {
        load.conns[client].may_close = false;
    }
    load.verify()?;
    if slow.is_empty() {
        return Ok(row);
    }
    let gaps: u32 = slow.map(|client| load.conns[client].gaps).sum();
    Ok(row
        .with("closed_with_4000", count(|stage| *stage == Stage::Closed(Some(4_000))))
        .with("cut", count(|stage| *stage == Stage::Closed(None)))
        .with("kept", count(|stage| *stage == Stage::Open))
        .with("back_with_a_gap", gaps.into()))
}
