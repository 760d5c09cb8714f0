//! Whether a delivery costs more when there are many rooms or many idle connections.

use std::time::Duration;

use anyhow::Result;

use crate::report::Row;
use crate::scenarios::{LIMIT, Run, in_bursts, phase};
use crate::server_process::Kind;

const SCENARIO: &str = "rooms";
const MEMBERS: usize = 100;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    for round in 0..run.choose(run.rounds, 1) {
        for idle in run.choose([0, 10_000], [0, 200]) {
            for existing in run.choose(vec![10, 1_000, 20_000], vec![10, 500]) {
                run.say(&format!("round {}, {existing} rooms, {idle} idle connections", round + 1));
                one(run, existing, idle, rows)?;
            }
        }
    }
    Ok(())
}

fn one(run: &Run, existing: usize, idle: usize, rows: &mut Vec<Row>) -> Result<()> {
    let (server, mut load) = run.start(Kind::Magpie, MEMBERS)?;
    load.open(idle, super::OPENING, LIMIT)?;
    // The other rooms belong to the idle connections where there are any, else to the members.
    let owner = |room: usize| if idle > 0 { MEMBERS + room % idle } else { room % MEMBERS };
    let others: Vec<_> = (1..existing).map(|room| (owner(room), format!("other-{room}"))).collect();
    run.make_rooms(&mut load, &others)?;
    let members: Vec<_> = (0..MEMBERS).map(|client| (client, "measured".to_owned())).collect();
    run.enter(&mut load, &members)?;
    load.make_sender(0);
    phase(&server, &mut load, MEMBERS, |load| in_bursts(load, MEMBERS, 10, 10))?;
    for (case, bursts, size) in
        [("one at a time", run.choose(1_000, 20), 1), ("bursts of 10", run.choose(1_000, 10), 10)]
    {
        let end = phase(&server, &mut load, MEMBERS, |load| in_bursts(load, MEMBERS, bursts, size))?;
        rows.push(
            Row::new(SCENARIO, Kind::Magpie.name(), format!("{existing} rooms, {idle} idle, {case}"))
                .with("cpu_ns_per_delivery", end.cpu_ns as f64 / load.deliveries() as f64)
                .with_latency("delivery", &load.tallies[0].latency),
        );
    }
    // The clock goes on for rooms and connections that are silent; that is not part of a delivery.
    let time = Duration::from_millis(run.choose(2_000, 200));
    let before = server.cpu_ns()?;
    load.settle(time, LIMIT)?;
    let cpu_ms_per_s = (server.cpu_ns()? - before) as f64 / 1e6 / time.as_secs_f64();
    if let Some(row) = rows.last_mut() {
        row.figures.insert("idle_cpu_ms_per_s".to_owned(), cpu_ms_per_s);
    }
    server.stop()
}
