//! Three nodes behind nginx and behind HAProxy, on PostgreSQL and Redis, with a thousand people who talk while
//! nodes are restarted one after the other and parts fail.
//!
//! Every client looks at each event: one that is lost, doubled, reordered or different from what another got
//! ends the test, and so does an acknowledgement for a place in which something else stands.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::client::{Load, Return, Returning, Speech, Stage};
use bench::cluster::{Cluster, Node, Plan, Proxy, ProxyKind, get, until};
use shared::protocol::{ClientEnvelope, CloseCode};
use shared::reconnect::SPREAD_MS;

/// How long something may take that happens soon. Generous, since test machines are busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Handshakes that may be under way while people arrive.
const OPENING: usize = 64;
/// How long a client may be away when its node goes down in good order.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that is told to end says so before it closes anything: longer than HAProxy needs to see it.
const DRAIN_DELAY_SECONDS: u64 = 2;
/// Members of each room beside the lobby.
const MEMBERS: usize = 50;
const NS_PER_MS: u64 = 1_000_000;

/// One cluster at a time: the machine is as big as it is.
static MACHINE: Mutex<()> = Mutex::new(());

/// People in a cluster: all are in the lobby, most also in a room of `MEMBERS`, and of each room one talks.
struct World {
    cluster: Cluster,
    proxy: Option<Proxy>,
    load: Load,
    senders: Vec<usize>,
    seed: u64,
    said: u64,
}

impl World {
    /// So many people on three nodes, behind a proxy or spread over the nodes.
    fn new(proxy: Option<ProxyKind>, people: usize) -> Result<Option<World>> {
        let Some(magpie) = magpie() else { return Ok(None) };
        let delay = ["--drain-delay".to_owned(), DRAIN_DELAY_SECONDS.to_string()];
        let plan = Plan { magpie, nodes: 3, flags: delay.to_vec(), syncs: false };
        let Some(cluster) = Cluster::start(&plan)? else { return Ok(None) };
        let proxy = match proxy {
            None => None,
            Some(kind) => match cluster.proxy(kind)? {
                None => return Ok(None),
                proxy => proxy,
            },
        };
        let servers = proxy.as_ref().map_or(cluster.addresses(), |proxy| vec![proxy.address]);
        let mut load = Load::new(servers[0], Speech::Magpie)?;
        load.spread_over(servers);
        load.open(people, OPENING, LIMIT)?;
        let mut senders = vec![0];
        // The first hundred listen to the lobby, others to rooms of their own.
        let rooms: Vec<Vec<usize>> =
            (2 * MEMBERS..people).collect::<Vec<_>>().chunks(MEMBERS).map(<[usize]>::to_vec).collect();
        enter(&mut load, &rooms)?;
        senders.extend(rooms.iter().map(|members| members[0]));
        for sender in &senders {
            load.make_sender(*sender);
        }
        let seed = fastrand::u64(..);
        println!("the waits of those who come back are by seed {seed}");
        load.returning = Some(Returning::new(seed));
        load.begin();
        Ok(Some(World { cluster, proxy, load, senders, seed, said: 0 }))
    }

    /// Lets people talk, so many messages a second in all, until something is so.
    fn talk_until(&mut self, per_second: u64, what: &str, is_so: impl Fn(&Load) -> bool) -> Result<()> {
        let (start, deadline) = (self.load.now(), Instant::now() + LIMIT);
        let mut said = 0;
        while !is_so(&self.load) {
            ensure!(Instant::now() < deadline, "after {} s still waiting: {what}", LIMIT.as_secs());
            let now = self.load.now();
            while start + said * 1_000 * NS_PER_MS / per_second <= now {
                self.load.send(self.senders[self.said as usize % self.senders.len()], now)?;
                said += 1;
                self.said += 1;
            }
            self.load.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    fn talk(&mut self, per_second: u64, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.talk_until(per_second, "time to pass", |_| Instant::now() >= end)
    }

    /// Does something to the nodes on another thread, while people talk.
    fn talk_during(
        &mut self,
        per_second: u64,
        work: impl FnOnce(&mut [Node]) -> Result<()> + Send,
    ) -> Result<()> {
        let mut nodes = std::mem::take(&mut self.cluster.nodes);
        let is_done = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            let operator = scope.spawn(|| {
                let result = work(&mut nodes);
                is_done.store(true, Ordering::Release);
                result
            });
            let talk = self.talk_until(per_second, "the operator", |_| is_done.load(Ordering::Acquire));
            let work = operator.join().map_err(|_| anyhow::anyhow!("the operator panicked"));
            talk.and(work?)
        });
        self.cluster.nodes = nodes;
        result
    }

    /// Waits until everybody is there and everything is said, and checks that all have it: those who listened,
    /// and in each room one who reads it from its first event to its last.
    fn verify(&mut self) -> Result<()> {
        let is_calm = |load: &Load| {
            let is_open = load.conns.iter().all(|conn| conn.stage == Stage::Open);
            is_open && load.away() == 0 && load.pending() == 0
        };
        let result = self.load.run_until(LIMIT, "for everybody to be back", is_calm);
        result.with_context(|| self.state())?;
        self.load.settle(Duration::from_millis(1_000), LIMIT)?;
        self.load.verify()?;
        let acknowledged: u64 = self.load.tallies.iter().map(|tally| tally.acks).sum();
        ensure!(acknowledged == self.said, "{acknowledged} of {} were acknowledged", self.said);
        // Readers that have nothing yet: their pages must be what the others got.
        self.load.begin();
        for sender in &self.senders {
            self.load.cut(*sender)?;
            self.load.reread(*sender);
            self.load.connect(*sender)?;
        }
        let readers = self.senders.len();
        self.load.run_until(LIMIT, "for the history", |load| load.arrived == readers)?;
        self.load.settle(Duration::from_millis(500), LIMIT)?;
        self.load.verify()
    }

    /// What is not as it should be, for people.
    fn state(&self) -> String {
        let load = &self.load;
        let strange = load.conns.iter().enumerate().filter(|(_, conn)| conn.stage != Stage::Open);
        let strange: Vec<_> =
            strange.map(|(client, conn)| (client, conn.stage, conn.times)).take(5).collect();
        format!(
            "{} away, {} sends open, {} turned away (the last with {:?}), {} refused; not open: {strange:?}; the \
             proxy says: {}",
            load.away(),
            load.pending(),
            self.returning().turned_away.len(),
            self.returning().turned_away.last(),
            self.returning().refused.len(),
            self.proxy.as_ref().map_or(String::new(), Proxy::log),
        )
    }

    fn returning(&self) -> &Returning {
        self.load.returning.as_ref().expect("people come back")
    }
}

/// The built program beside the bench.
fn magpie() -> Option<std::path::PathBuf> {
    let magpie = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("magpie");
    if magpie.is_file() {
        return Some(magpie);
    }
    println!("skipped: there is no magpie beside the bench; cargo build -p server makes it");
    None
}

/// Puts clients into rooms, the first of each makes it, and checks every event from then on.
fn enter(load: &mut Load, rooms: &[Vec<usize>]) -> Result<()> {
    for (name, members) in rooms.iter().enumerate() {
        load.say(members[0], &ClientEnvelope::Create { name: format!("room-{name}"), private: false });
    }
    load.run_until(LIMIT, "for rooms to be made", |load| load.joined.len() == rooms.len())?;
    // All nodes wait while somebody joins: no more at once than are answered in time.
    let joining = |name: usize| move |member: &usize| (name, *member);
    let others: Vec<(usize, usize)> =
        rooms.iter().enumerate().flat_map(|(name, members)| members[1..].iter().map(joining(name))).collect();
    let mut all = rooms.len();
    for some in others.chunks(OPENING) {
        for (name, member) in some {
            load.say(*member, &ClientEnvelope::Join { room: format!("room-{name}"), after: None });
        }
        all += some.len();
        load.run_until(LIMIT, "for rooms to be joined", |load| load.joined.len() == all)?;
    }
    let mut seats = std::mem::take(&mut load.joined).into_iter().collect::<Vec<_>>();
    seats.sort_unstable();
    for (client, room) in &seats {
        load.move_to(*client, room)?;
    }
    // Arrivals are still being told; then each room says where it stands.
    load.settle(Duration::from_millis(1_500), LIMIT)?;
    for (client, room) in &seats {
        let room = String::from_utf8_lossy(room).into_owned();
        load.say(*client, &ClientEnvelope::Join { room, after: None });
    }
    load.run_until(LIMIT, "for the rooms' heads", |load| load.joined.len() == all)?;
    load.joined.clear();
    load.track();
    Ok(())
}

fn milliseconds(ns: u64) -> u64 {
    ns / NS_PER_MS
}

fn run(test: impl FnOnce() -> Result<()>) {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = test() {
        panic!("{error:#}");
    }
}

// ---- A restart of all nodes, one after the other ----

fn rolling_restart(kind: ProxyKind) -> Result<()> {
    const PEOPLE: usize = 1_000;
    const PER_SECOND: u64 = 40;
    let Some(mut world) = World::new(Some(kind), PEOPLE)? else { return Ok(()) };
    world.talk(PER_SECOND, Duration::from_secs(1))?;
    world.talk_during(PER_SECOND, |nodes| {
        for (index, node) in nodes.iter_mut().enumerate() {
            let begin = Instant::now();
            node.terminate(LIMIT).with_context(|| format!("node {index}"))?;
            let down = begin.elapsed();
            node.start()?;
            node.ready()?;
            println!("node {index} was down after {down:.1?} and ready again after {:.1?}", begin.elapsed());
        }
        Ok(())
    })?;
    world.talk(PER_SECOND, Duration::from_secs(1))?;
    world.verify().with_context(|| format!("seed {}", world.seed))?;

    let returning = world.returning();
    let returns = &returning.returns;
    let away: Vec<u64> = returns.iter().map(|back| back.back - back.closed).collect();
    let connecting = returns.iter().map(|back| back.back - back.begun).max().unwrap_or(0);
    let longest = away.iter().max().copied().unwrap_or(0);
    println!(
        "{kind:?}: {} messages, {} returns, the longest after {} ms, of which at most {} ms to connect; at most \
         {} attempts in 100 ms; {} refused",
        world.said,
        returns.len(),
        milliseconds(longest),
        milliseconds(connecting),
        returning.most_attempts_within(100 * NS_PER_MS),
        returning.turned_away.len(),
    );
    // Who was on the first node came to another, perhaps to one that had its turn later.
    ensure!(returns.len() >= PEOPLE * 2 / 3, "only {} clients lost their connection", returns.len());
    let by_restart = |back: &&Return| back.code == Some(CloseCode::Restart as u16);
    let others = returns.iter().filter(|back| !by_restart(back)).count();
    ensure!(others == 0, "{others} connections were cut without a word");
    ensure!(
        Duration::from_nanos(longest) <= BACK_WITHIN,
        "somebody was away for {} ms",
        milliseconds(longest)
    );
    ensure!(returning.turned_away.is_empty(), "turned away: {:?}", returning.turned_away);
    ensure!(returning.refused.is_empty(), "refused: {:?}", returning.refused);
    // No storm: the closes of a node are spread over its drain, and those who come back over some seconds.
    let mut closes: Vec<u64> = returns.iter().map(|back| back.closed).collect();
    closes.sort_unstable();
    let gap = |pair: &[u64]| pair[1] - pair[0] > DRAIN_DELAY_SECONDS * 1_000 * NS_PER_MS / 2;
    let drains: Vec<&[u64]> = closes.chunk_by(|a, b| !gap(&[*a, *b])).collect();
    ensure!(drains.len() == 3, "closes came in {} drains", drains.len());
    for drain in drains {
        let spread = milliseconds(drain[drain.len() - 1] - drain[0]);
        println!("{} closes over {spread} ms", drain.len());
        ensure!(drain.len() < 100 || spread >= 300, "{} closes within {spread} ms", drain.len());
    }
    let most = returning.most_attempts_within(100 * NS_PER_MS);
    // Evenly spread they would be a thirtieth of a node's people.
    let even = PEOPLE * 100 / SPREAD_MS as usize;
    ensure!(most <= 4 * even, "{most} attempts within 100 ms");
    Ok(())
}

#[test]
fn a_restart_of_all_nodes_behind_nginx_costs_nobody_anything() {
    run(|| rolling_restart(ProxyKind::Nginx));
}

#[test]
fn a_restart_of_all_nodes_behind_haproxy_costs_nobody_anything() {
    run(|| rolling_restart(ProxyKind::Haproxy));
}

// ---- What breaks ----

/// People where a part is taken away: enough that each node has its share of every room.
const FEW: usize = 300;
const FEW_PER_SECOND: u64 = 40;
/// What a node may take to refuse a send, and some for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(5 + 2);
/// How often a node compares its rooms with the store, and some for reading and for a busy machine.
const FOUND_WITHIN: Duration = Duration::from_secs(3 + 4);

#[test]
fn a_node_that_is_killed_costs_nobody_anything() {
    run(|| {
        let Some(mut world) = World::new(Some(ProxyKind::Haproxy), FEW)? else { return Ok(()) };
        world.talk(FEW_PER_SECOND, Duration::from_secs(1))?;
        world.talk_during(FEW_PER_SECOND, |nodes| {
            nodes[0].kill();
            Ok(())
        })?;
        world.talk_until(FEW_PER_SECOND, "for all to be back", |load| {
            load.ended >= FEW / 4 && load.away() == 0
        })?;
        world.talk_during(FEW_PER_SECOND, |nodes| {
            nodes[0].start()?;
            nodes[0].ready()
        })?;
        world.verify().with_context(|| format!("seed {}", world.seed))?;
        let away = |back: &Return| milliseconds(back.back - back.closed);
        let longest = world.returning().returns.iter().map(away).max();
        println!("{} came back, the last after {longest:?} ms", world.returning().returns.len());
        Ok(())
    });
}

#[test]
fn without_postgresql_sends_are_refused_and_people_stay() {
    run(|| {
        let Some(mut world) = World::new(None, FEW)? else { return Ok(()) };
        world.talk(FEW_PER_SECOND, Duration::from_secs(1))?;
        let is_refused = |from: usize| {
            move |load: &Load| load.returning.as_ref().is_some_and(|all| all.refused.len() >= from + 10)
        };
        // It hangs.
        world.cluster.postgres.signal("STOP");
        world.talk_until(FEW_PER_SECOND, "for refusals", is_refused(0))?;
        let ready = |world: &World| get(world.cluster.nodes[0].address, "/readyz");
        until("the nodes are not ready", || ready(&world) == Some(503))?;
        world.cluster.postgres.signal("CONT");
        let start = Instant::now();
        world.load.run_until(LIMIT, "for all to be said", |load| load.pending() == 0)?;
        println!("{:.1?} after it went on, all is said", start.elapsed());
        // It is gone.
        let refused = world.returning().refused.len();
        world.cluster.postgres.signal("KILL");
        world.talk_until(FEW_PER_SECOND, "for refusals", is_refused(refused))?;
        world.cluster.postgres.restart();
        let start = Instant::now();
        world.load.run_until(LIMIT, "for all to be said", |load| load.pending() == 0)?;
        println!("{:.1?} after it was back, all is said", start.elapsed());
        until("the nodes are ready", || ready(&world) == Some(200))?;
        world.talk(FEW_PER_SECOND, Duration::from_secs(1))?;
        world.verify().with_context(|| format!("seed {}", world.seed))?;
        let returning = world.returning();
        let slowest = returning.refused.iter().map(|refused| refused.after).max().unwrap_or(0);
        println!("{} refusals, the slowest after {} ms", returning.refused.len(), milliseconds(slowest));
        ensure!(
            Duration::from_nanos(slowest) <= REFUSED_WITHIN,
            "a refusal took {} ms",
            milliseconds(slowest)
        );
        ensure!(returning.returns.is_empty(), "{} connections were lost", returning.returns.len());
        Ok(())
    });
}

#[test]
fn without_redis_messages_are_found_in_the_store() {
    run(|| {
        let Some(mut world) = World::new(None, FEW)? else { return Ok(()) };
        let slowest = |load: &Load| Duration::from_micros(load.tallies[0].latency.max());
        world.talk(FEW_PER_SECOND, Duration::from_secs(1))?;
        println!("with Redis a message takes at most {:.1?}", slowest(&world.load));
        let address = world.cluster.nodes[0].address;
        world.cluster.stop_redis();
        until("the nodes are not ready", || get(address, "/readyz") == Some(503))?;
        ensure!(get(address, "/readyz?exclude=broker") == Some(200), "nodes work without Redis");
        world.talk(FEW_PER_SECOND, Duration::from_secs(6))?;
        let (said, deliveries) = (world.said, world.load.deliveries());
        world.load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
        world.load.settle(Duration::from_secs(4), LIMIT)?;
        world.load.verify()?;
        let without = slowest(&world.load);
        println!("without it at most {without:.1?}; {deliveries} deliveries of {said} messages");
        ensure!(without > Duration::from_secs(1), "Redis was not missed");
        ensure!(without <= FOUND_WITHIN, "a message took {without:.1?}");
        world.cluster.start_redis()?;
        until("the nodes are ready", || get(address, "/readyz") == Some(200))?;
        world.load.tallies[0].latency.reset();
        world.talk(FEW_PER_SECOND, Duration::from_secs(2))?;
        println!("with Redis again at most {:.1?}", slowest(&world.load));
        world.verify().with_context(|| format!("seed {}", world.seed))?;
        ensure!(world.returning().returns.is_empty(), "connections were lost");
        Ok(())
    });
}
