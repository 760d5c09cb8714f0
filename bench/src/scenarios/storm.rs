//! Everybody loses their connection and comes back at once.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use crate::client::{Load, Stage, Times};
use crate::report::Row;
use crate::scenarios::{LIMIT, Run, fixed_rate};
use crate::server_process::{Kind, Server};

const SCENARIO: &str = "storm";
/// Clients that stay, and the messages a second that they say in a room of their own.
const HEALTHY: usize = 50;
const CHAT_PER_SECOND: u64 = 20;
/// Messages that are said in the lobby while the others are away.
const MISSED: usize = 20;
/// Connections that are begun between two looks at the sockets.
const BEGUN_AT_ONCE: usize = 32;

/// The groups whose deliveries are counted apart.
const HEALTHY_GROUP: usize = 1;

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    let clients = run.choose(10_000, 300);
    for _ in 0..run.choose(run.rounds, 1) {
        run.say(&format!("{clients} connections are cut"));
        rows.push(cut(run, clients)?);
        run.say("the server is killed and started again");
        rows.push(killed(run, clients)?);
        run.say("the same without any state: warp's own chat");
        rows.push(stateless(run, clients)?);
    }
    Ok(())
}

/// Clients `0..clients` in the lobby, one who speaks there, and those who chat in a room of their own.
fn prepare(run: &Run, clients: usize) -> Result<(Server, Load, Vec<usize>)> {
    let (server, mut load) = run.start(Kind::Magpie, clients + 1 + HEALTHY)?;
    let healthy: Vec<usize> = (clients + 1..clients + 1 + HEALTHY).collect();
    let places: Vec<_> = healthy.iter().map(|client| (*client, "healthy".to_owned())).collect();
    run.enter(&mut load, &places)?;
    load.make_sender(clients);
    for client in &healthy {
        load.make_sender(*client);
        load.conns[*client].group = HEALTHY_GROUP;
    }
    Ok((server, load, healthy))
}

/// Cuts the clients, and says what they will have missed.
fn cut_and_speak(load: &mut Load, clients: usize) -> Result<()> {
    for client in 0..clients {
        load.cut(client)?;
    }
    for _ in 0..MISSED {
        load.send(clients, load.now())?;
    }
    load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
    load.settle(Duration::from_millis(500), LIMIT)
}

fn cut(run: &Run, clients: usize) -> Result<Row> {
    let (server, mut load, healthy) = prepare(run, clients)?;
    load.begin();
    let before = Duration::from_millis(run.choose(3_000, 300));
    fixed_rate(&mut load, &healthy, CHAT_PER_SECOND as f64, before)?;
    load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
    let calm = load.tallies[HEALTHY_GROUP].latency.value_at_quantile(0.99) as f64 / 1_000.0;
    cut_and_speak(&mut load, clients)?;

    let row = come_back(&server, &mut load, 0..clients, &healthy, "cut, and back with all they missed")?;
    let row = row.with("healthy_p99_before_ms", calm);
    for client in &healthy {
        ensure!(load.conns[*client].stage == Stage::Open, "a healthy client was dropped");
    }
    server.stop()?;
    Ok(row)
}

fn killed(run: &Run, clients: usize) -> Result<Row> {
    let (server, mut load, healthy) = prepare(run, clients)?;
    cut_and_speak(&mut load, clients)?;
    load.begin();
    for conn in &mut load.conns {
        conn.may_close = true;
    }
    let start = Instant::now();
    let server = server.restart(&run.place)?;
    let restart_s = start.elapsed().as_secs_f64();
    load.run_until(LIMIT, "for the others to notice", |load| load.ended == healthy.len() + 1)?;
    for conn in &mut load.conns {
        conn.may_close = false;
    }
    let all = 0..load.conns.len();
    let row =
        come_back(&server, &mut load, all, &[], "killed and started again, and back with all they missed")?;
    server.stop()?;
    Ok(row.with("restart_s", restart_s))
}

fn stateless(run: &Run, clients: usize) -> Result<Row> {
    let (server, mut load) = run.start(Kind::PlainWarp, clients)?;
    for client in 0..clients {
        load.cut(client)?;
    }
    load.settle(Duration::from_millis(500), LIMIT)?;
    let row = come_back(&server, &mut load, 0..clients, &[], "cut, and back without any state")?;
    server.stop()?;
    Ok(row)
}

/// All connect at once, while those who stayed chat; until the last one has everything.
fn come_back(
    server: &Server,
    load: &mut Load,
    returning: Range<usize>,
    healthy: &[usize],
    case: &str,
) -> Result<Row> {
    load.begin();
    let (count, cpu_ns, start) = (returning.len(), server.cpu_ns()?, load.now());
    let mut chat = Chat { healthy, start, said: 0 };
    for client in returning.clone() {
        load.connect(client)?;
        if client % BEGUN_AT_ONCE == 0 {
            chat.go_on(load)?;
            load.turn(Duration::ZERO)?;
        }
    }
    let deadline = Instant::now() + LIMIT;
    while load.arrived < count {
        chat.go_on(load)?;
        load.turn(Duration::from_millis(5))?;
        ensure!(Instant::now() < deadline, "only {} of {count} came back", load.arrived);
    }
    let cpu_ns = server.cpu_ns()? - cpu_ns;
    load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
    let expected = chat.said * healthy.len() as u64;
    load.run_until(LIMIT, "for the chat", |load| load.tallies[HEALTHY_GROUP].deliveries >= expected)?;
    load.verify()?;

    let reached = |what: fn(&Times) -> u64| {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).context("a histogram")?;
        for client in returning.clone() {
            let times = &load.conns[client].times;
            histogram.saturating_record(what(times).saturating_sub(times.begun) / 1_000);
        }
        Ok::<_, anyhow::Error>(histogram)
    };
    let last = returning.clone().map(|client| load.conns[client].times.resumed).max().unwrap_or(start);
    let row = Row::new(SCENARIO, server.kind.name(), format!("{count} clients {case}"))
        .with("all_back_s", (last - start) as f64 / 1e9)
        .with("cpu_us_per_client", cpu_ns as f64 / 1_000.0 / count as f64)
        .with_latency("handshake", &reached(|times| times.upgraded)?);
    if server.kind != Kind::Magpie {
        return Ok(row);
    }
    let row = row.with_latency("welcome", &reached(|times| times.welcomed)?);
    if healthy.is_empty() {
        return Ok(row);
    }
    Ok(row.with_latency("healthy", &load.tallies[HEALTHY_GROUP].latency))
}

/// What those who stayed go on saying.
struct Chat<'a> {
    healthy: &'a [usize],
    start: u64,
    said: u64,
}

impl Chat<'_> {
    /// Says what is due.
    fn go_on(&mut self, load: &mut Load) -> Result<()> {
        while !self.healthy.is_empty() {
            let due = self.start + self.said * (1_000_000_000 / CHAT_PER_SECOND);
            if due > load.now() {
                return Ok(());
            }
            load.send(self.healthy[self.said as usize % self.healthy.len()], due)?;
            self.said += 1;
        }
        Ok(())
    }
}
