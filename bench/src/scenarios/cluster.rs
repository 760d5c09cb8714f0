//! What each part of a cluster costs: one, two and three nodes on this machine, with PostgreSQL and Redis, and
//! beside them one node with its own database. The load is the same each time, and clients go to the nodes in
//! turn, so that every room has members on all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Load, Speech};
use crate::cluster::{Cluster, Plan};
use crate::report::Row;
use crate::scenarios::{LIMIT, OPENING, Run, closed_loop, fixed_rate, to_the_end};
use crate::server_process::{Kind, Server, UNLIMITED};

const SCENARIO: &str = "cluster";
/// Nodes of each case; 0 is one with its own database and without a broker.
const NODES: [usize; 4] = [0, 1, 2, 3];
/// Members of a small room.
const FEW: usize = 4;
/// Messages of each room that are in flight where the cluster is saturated.
const IN_FLIGHT: usize = 16;
/// Seconds between two comparisons of heads, of which an idle phase should see some.
const IDLE_SECONDS: f64 = 6.0;

/// The servers of one case.
enum Rig {
    Alone(Server),
    Cluster(Box<Cluster>),
}

/// What the parts have used so far.
#[derive(Clone, Debug, Default)]
struct Used {
    /// Nanoseconds of CPU time of each node.
    nodes: Vec<u64>,
    redis_ns: u64,
    postgres_ns: u64,
    /// Commands that Redis carried out, and bytes it sent.
    redis_commands: u64,
    redis_bytes: u64,
    /// Transactions of PostgreSQL, and bytes of its write-ahead log.
    commits: u64,
    wal_bytes: u64,
}

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    for _ in 0..run.choose(run.rounds, 1) {
        for nodes in run.choose(NODES.to_vec(), vec![0, 2]) {
            run.say(&format!("{nodes} nodes with PostgreSQL and Redis (0: one with its own database)"));
            let Some(rig) = Rig::start(run, nodes)? else { return Ok(()) };
            one(run, &rig, &rig.name(), rows)?;
        }
    }
    Ok(())
}

fn one(run: &Run, rig: &Rig, name: &str, rows: &mut Vec<Row>) -> Result<()> {
    let servers = rig.addresses();
    let mut load = Load::new(servers[0], Speech::Magpie)?;
    load.spread_over(servers);
    let people = run.choose(1_000, 40);
    load.open(people, OPENING, LIMIT)?;
    run.silence(&mut load)?;
    let crowd = run.choose(250, 20);
    // Messages a second in all.
    for (members, per_second) in [(FEW, 500.0), (crowd, 40.0)] {
        let case = format!("{} rooms of {members}", people / members);
        let places: Vec<_> =
            (0..people).map(|client| (client, format!("of-{members}-{}", client / members))).collect();
        let entering = run.enter(&mut load, &places)?;
        let senders: Vec<usize> = (0..people).step_by(members).collect();
        for sender in &senders {
            load.make_sender(*sender);
        }
        let row = Row::new(SCENARIO, name, format!("{case}, nobody talks"))
            .with("entries_per_s", people as f64 / entering.as_secs_f64());
        rows.push(idle(run, rig, &mut load, row)?);
        let warm = Duration::from_millis(run.choose(1_000, 50));
        to_the_end(&mut load, members, |load| fixed_rate(load, &senders, per_second, warm))?;
        let time = Duration::from_millis(run.choose(8_000, 300));
        let row = Row::new(SCENARIO, name, format!("{case}, {per_second} a second"));
        rows.push(talk(rig, &mut load, members, row, |load| fixed_rate(load, &senders, per_second, time))?);
        // As many in flight in either case, or one of each room.
        let window = if members == FEW { 1 } else { IN_FLIGHT };
        let time = Duration::from_millis(run.choose(5_000, 300));
        let row = Row::new(SCENARIO, name, format!("{case}, {} × {window} in flight", senders.len()));
        rows.push(talk(rig, &mut load, members, row, |load| closed_loop(load, &senders, window, time))?);
    }
    Ok(())
}

/// What it costs that people are there.
fn idle(run: &Run, rig: &Rig, load: &mut Load, row: Row) -> Result<Row> {
    let (before, start) = (rig.used()?, Instant::now());
    let time = Duration::from_secs_f64(run.choose(IDLE_SECONDS, 0.2));
    while start.elapsed() < time {
        load.turn(Duration::from_millis(20))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let used = rig.used()?.since(&before);
    let row = used.nodes.iter().zip(1..).fold(row, |row, (ns, node)| {
        row.with(&format!("idle_node_{node}_cpu_ms_per_s"), *ns as f64 / 1e6 / seconds)
    });
    if let Rig::Alone(_) = rig {
        return Ok(row);
    }
    Ok(row
        .with("idle_redis_cpu_ms_per_s", used.redis_ns as f64 / 1e6 / seconds)
        .with("idle_postgres_cpu_ms_per_s", used.postgres_ns as f64 / 1e6 / seconds)
        .with("idle_redis_commands_per_s", used.redis_commands as f64 / seconds)
        .with("idle_postgres_transactions_per_s", used.commits as f64 / seconds))
}

/// What a message and a delivery cost.
fn talk(
    rig: &Rig,
    load: &mut Load,
    members: usize,
    row: Row,
    work: impl FnOnce(&mut Load) -> Result<u64>,
) -> Result<Row> {
    let before = rig.used()?;
    let elapsed = to_the_end(load, members, work)?.as_secs_f64();
    let used = rig.used()?.since(&before);
    let (deliveries, messages) = (load.deliveries() as f64, load.tallies[0].acks as f64);
    let all: u64 = used.nodes.iter().sum();
    let row = row
        .with("deliveries_per_s", deliveries / elapsed)
        .with("messages_per_s", messages / elapsed)
        .with("magpie_cpu_ns_per_delivery", all as f64 / deliveries)
        .with("magpie_cpu_us_per_message", all as f64 / 1e3 / messages)
        .with_latency("ack", &load.tallies[0].ack_latency)
        .with_latency("delivery", &load.tallies[0].latency);
    let row = used.nodes.iter().zip(1..).fold(row, |row, (ns, node)| {
        row.with(&format!("node_{node}_cpu_ns_per_delivery"), *ns as f64 / deliveries)
    });
    if let Rig::Alone(_) = rig {
        return Ok(row);
    }
    Ok(row
        .with("redis_cpu_ns_per_delivery", used.redis_ns as f64 / deliveries)
        .with("redis_cpu_us_per_message", used.redis_ns as f64 / 1e3 / messages)
        .with("redis_commands_per_message", used.redis_commands as f64 / messages)
        .with("redis_bytes_out_per_message", used.redis_bytes as f64 / messages)
        .with("postgres_cpu_ns_per_delivery", used.postgres_ns as f64 / deliveries)
        .with("postgres_cpu_us_per_message", used.postgres_ns as f64 / 1e3 / messages)
        .with("postgres_transactions_per_message", used.commits as f64 / messages)
        .with("postgres_wal_bytes_per_message", used.wal_bytes as f64 / messages))
}

impl Rig {
    /// `None` if this machine lacks PostgreSQL or Redis, which then has been said.
    fn start(run: &Run, nodes: usize) -> Result<Option<Rig>> {
        if nodes == 0 {
            return Ok(Some(Rig::Alone(Server::start(Kind::Magpie, &run.place)?)));
        }
        let plan = Plan {
            magpie: run.place.magpie.clone(),
            nodes,
            flags: UNLIMITED.map(str::to_owned).to_vec(),
            syncs: true,
        };
        Ok(Cluster::start(&plan)?.map(|cluster| Rig::Cluster(Box::new(cluster))))
    }

    fn name(&self) -> String {
        match self {
            Rig::Alone(_) => "magpie, SQLite".to_owned(),
            Rig::Cluster(cluster) => format!("{} × magpie", cluster.nodes.len()),
        }
    }

    fn addresses(&self) -> Vec<std::net::SocketAddr> {
        match self {
            Rig::Alone(server) => vec![server.address],
            Rig::Cluster(cluster) => cluster.addresses(),
        }
    }

    fn used(&self) -> Result<Used> {
        let cluster = match self {
            Rig::Alone(server) => return Ok(Used { nodes: vec![server.cpu_ns()?], ..Used::default() }),
            Rig::Cluster(cluster) => cluster,
        };
        let info = cluster.redis.command("INFO stats");
        let stat = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.trim().parse().ok()).context("what Redis counts")
        };
        let sql = "SELECT (SELECT sum(xact_commit) FROM pg_stat_database)::bigint, \
                   pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
        let answer = cluster.postgres.sql("postgres", sql).context("what PostgreSQL counts")?;
        let (commits, wal_bytes) = answer.split_once('|').context("what PostgreSQL counts")?;
        Ok(Used {
            nodes: cluster.nodes.iter().map(|node| node.server()?.cpu_ns()).collect::<Result<_>>()?,
            redis_ns: cluster.redis_cpu_ns()?,
            postgres_ns: cluster.postgres_cpu_ns()?,
            redis_commands: stat("total_commands_processed")?,
            redis_bytes: stat("total_net_output_bytes")?,
            commits: commits.parse()?,
            wal_bytes: wal_bytes.parse()?,
        })
    }
}

impl Used {
    fn since(&self, before: &Used) -> Used {
        Used {
            nodes: self.nodes.iter().zip(&before.nodes).map(|(now, then)| now - then).collect(),
            redis_ns: self.redis_ns - before.redis_ns,
            postgres_ns: self.postgres_ns - before.postgres_ns,
            redis_commands: self.redis_commands - before.redis_commands,
            redis_bytes: self.redis_bytes - before.redis_bytes,
            commits: self.commits - before.commits,
            wal_bytes: self.wal_bytes - before.wal_bytes,
        }
    }
}
