//! Whether a delivery costs more when there are many rooms or many idle connections.

use std::time::Duration;

use anyhow::Result;

use crate::client::Load;
use crate::report::Row;
use crate::scenarios::{LIMIT, OPENING, Run, in_bursts, phase};
use crate::server_process::{Kind, Server};

const SCENARIO: &str = "rooms";
const MEMBERS: usize = 100;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    for round in 0..run.choose(run.rounds, 1) {
        for idle in run.choose([0, 10_000], [0, 200]) {
            run.say(&format!("round {}, {idle} idle connections", round + 1));
            with_idle(run, idle, rows)?;
        }
    }
    Ok(())
}

fn with_idle(run: &Run, idle: usize, rows: &mut Vec<Row>) -> Result<()> {
    let (server, mut load) = run.start(Kind::Magpie, MEMBERS)?;
    load.open(idle, OPENING, LIMIT)?;
    let members: Vec<_> = (0..MEMBERS).map(|client| (client, "measured".to_owned())).collect();
    run.enter(&mut load, &members)?;
    load.make_sender(0);
    phase(&server, &mut load, MEMBERS, |load| in_bursts(load, MEMBERS, 20, 10))?;
    let mut made = 1;
    for existing in run.choose([10, 1_000, 20_000], [10, 100, 500]) {
        // The other rooms belong to the idle connections where there are any, else to the members.
        let owner = |room: usize| if idle > 0 { MEMBERS + room % idle } else { room % MEMBERS };
        let others: Vec<_> = (made..existing).map(|room| (owner(room), format!("other-{room}"))).collect();
        run.make_rooms(&mut load, &others)?;
        run.silence(&mut load)?;
        made = existing;
        measure(run, &server, &mut load, &format!("{existing} rooms, {idle} idle"), rows)?;
    }
    server.stop()
}

fn measure(run: &Run, server: &Server, load: &mut Load, case: &str, rows: &mut Vec<Row>) -> Result<()> {
    // Rooms and connections that are silent cost a little all the time; that is not part of a delivery.
    let (time, before) = (Duration::from_millis(run.choose(2_000, 100)), server.cpu_ns()?);
    load.settle(time, LIMIT)?;
    let idle_cpu_ms = (server.cpu_ns()? - before) as f64 / 1e6;
    for (kind, bursts, size) in
        [("one at a time", run.choose(1_000, 20), 1), ("bursts of 10", run.choose(2_000, 10), 10)]
    {
        let end = phase(server, load, MEMBERS, |load| in_bursts(load, MEMBERS, bursts, size))?;
        rows.push(
            Row::new(SCENARIO, server.kind.name(), format!("{case}, {kind}"))
                .with("cpu_ns_per_delivery", end.cpu_ns as f64 / load.deliveries() as f64)
                .with("idle_cpu_ms_per_s", idle_cpu_ms / time.as_secs_f64())
                .with_latency("delivery", &load.tallies[0].latency),
        );
    }
    Ok(())
}
