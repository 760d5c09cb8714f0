//! The scenarios, each a function that measures and gives rows, and what they share.

mod cluster;
mod durable;
mod fan_out;
mod idle;
mod resume;
mod rooms;
mod slow;
mod storm;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use shared::protocol::ClientEnvelope;

use crate::client::{Load, Speech};
use crate::frames::RoomId;
use crate::report::Row;
use crate::server_process::{Kind, Place, Server};

/// What a scenario may know of the run.
pub struct Run {
    pub place: Place,
    /// Small numbers of everything: whether it works, not how well.
    pub is_quick: bool,
    /// How often a comparison is repeated.
    pub rounds: usize,
}

/// A scenario: its name on the command line, what it does, and the function.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Run, &mut Vec<Row>) -> Result<()>,
}

/// All of them, in the order in which they run.
pub const ALL: [Scenario; 8] = [
    Scenario { name: "fan-out", about: "one room of 100 to 5,000 members", run: fan_out::run },
    Scenario {
        name: "durable",
        about: "sends that are acknowledged when they are on the disk",
        run: durable::run,
    },
    Scenario { name: "rooms", about: "a delivery among many rooms and idle connections", run: rooms::run },
    Scenario { name: "idle", about: "memory of connections that only listen", run: idle::run },
    Scenario { name: "storm", about: "all connections lost, all back at once", run: storm::run },
    Scenario { name: "slow", about: "members that stop reading", run: slow::run },
    Scenario { name: "resume", about: "clients that ask for what they missed", run: resume::run },
    Scenario {
        name: "cluster",
        about: "one, two and three nodes with PostgreSQL and Redis",
        run: cluster::run,
    },
];

/// Handshakes that may be under way while a run only prepares.
const OPENING: usize = 64;
/// Rooms that are made or joined at once: as many as any store answers in time.
const ROOMS_AT_ONCE: usize = 64;
/// How long clients may take to connect, and a phase to end.
const LIMIT: Duration = Duration::from_secs(120);

impl Run {
    /// One of two numbers, by whether this is the real run or the quick one.
    pub fn choose<T>(&self, real: T, quick: T) -> T {
        if self.is_quick { quick } else { real }
    }

    /// Says what is being measured.
    pub fn say(&self, text: &str) {
        eprintln!("    {text}");
    }

    /// A server with so many welcomed clients, all silent.
    pub fn start(&self, kind: Kind, clients: usize) -> Result<(Server, Load)> {
        let server = Server::start(kind, &self.place)?;
        let mut load = Load::new(server.address, kind.speech())?;
        if kind == Kind::Floor {
            // The one that speaks comes first.
            load.open(1, 1, LIMIT)?;
            load.make_sender(0);
        }
        load.open(clients, OPENING, LIMIT)?;
        self.silence(&mut load)?;
        Ok((server, load))
    }

    /// Waits until the arrivals have been told, and checks every event from then on.
    pub fn silence(&self, load: &mut Load) -> Result<()> {
        if load.speech() == Speech::Magpie {
            // A crowd is told of arrivals every 3 seconds.
            load.settle(Duration::from_millis(self.choose(3_500, 1_000)), LIMIT)?;
        } else {
            load.settle(Duration::from_millis(200), LIMIT)?;
        }
        load.track();
        Ok(())
    }

    /// Makes rooms, as (client, name); gives them as (client, id).
    pub fn make_rooms(&self, load: &mut Load, rooms: &[(usize, String)]) -> Result<Seats> {
        let make =
            |(_, name): &(usize, String)| ClientEnvelope::Create { name: name.clone(), private: false };
        ask_for_rooms(load, rooms, make)
    }

    /// Puts clients into rooms, as (client, name): the first one of each room makes it. From then on it is
    /// the events of that room that are checked for the client. Gives how long they took to come in.
    pub fn enter(&self, load: &mut Load, places: &[(usize, String)]) -> Result<Duration> {
        let start = Instant::now();
        let mut names = HashSet::new();
        let (first, others): (Vec<_>, Vec<_>) =
            places.iter().cloned().partition(|(_, name)| names.insert(name.clone()));
        let mut seats = self.make_rooms(load, &first)?;
        seats.extend(ask_for_rooms(load, &others, |(_, name)| ClientEnvelope::Join {
            room: name.clone(),
            after: None,
        })?);
        let elapsed = start.elapsed();
        let mut rooms = HashMap::new();
        for (client, id) in seats {
            load.move_to(client, &id)?;
            rooms.insert(id, client);
        }
        self.silence(load)?;
        // Now that all are in: where does each room stand?
        load.joined.clear();
        for (id, client) in &rooms {
            let room = String::from_utf8_lossy(id).into_owned();
            load.say(*client, &ClientEnvelope::Join { room, after: None });
        }
        load.run_until(LIMIT, "for the rooms' heads", |load| load.joined.len() == rooms.len())?;
        load.joined.clear();
        load.track();
        Ok(elapsed)
    }
}

/// Rooms that were entered, as (client, id).
pub type Seats = HashSet<(usize, RoomId)>;

/// Asks for rooms, a few at once, and waits until all are entered.
fn ask_for_rooms(
    load: &mut Load,
    places: &[(usize, String)],
    ask: impl Fn(&(usize, String)) -> ClientEnvelope,
) -> Result<Seats> {
    let mut seats = Seats::new();
    for some in places.chunks(ROOMS_AT_ONCE) {
        load.joined.clear();
        for place in some {
            load.say(place.0, &ask(place));
        }
        load.run_until(LIMIT, "for rooms to be entered", |load| load.joined.len() == some.len())?;
        seats.extend(load.joined.drain());
    }
    Ok(seats)
}

/// What a phase cost and took.
pub struct Phase {
    pub cpu_ns: u64,
    pub elapsed: Duration,
}

/// Runs a phase, and then until each of the messages that it said (its result) has reached all `members` and
/// is acknowledged. Nothing may be missing then.
pub fn phase(
    server: &Server,
    load: &mut Load,
    members: usize,
    work: impl FnOnce(&mut Load) -> Result<u64>,
) -> Result<Phase> {
    let before = server.cpu_ns()?;
    let elapsed = to_the_end(load, members, work)?;
    Ok(Phase { cpu_ns: server.cpu_ns()? - before, elapsed })
}

/// The same; gives how long it took.
pub fn to_the_end(
    load: &mut Load,
    members: usize,
    work: impl FnOnce(&mut Load) -> Result<u64>,
) -> Result<Duration> {
    load.begin();
    let start = Instant::now();
    let messages = work(load)?;
    let expected = messages * members as u64;
    load.run_until(LIMIT, "for the last deliveries", |load| load.deliveries() >= expected)?;
    if load.speech() != Speech::Bare {
        load.run_until(LIMIT, "for acknowledgements", |load| load.pending() == 0)?;
    }
    let elapsed = start.elapsed();
    if load.speech() != Speech::Bare {
        load.verify()?;
    }
    ensure!(load.deliveries() == expected, "{} deliveries, {expected} were due", load.deliveries());
    Ok(elapsed)
}

/// Keeps `window` messages of each sender in flight for some time; returns how many were said.
pub fn closed_loop(load: &mut Load, senders: &[usize], window: usize, time: Duration) -> Result<u64> {
    let deadline = Instant::now() + time;
    let mut said = 0;
    for sender in senders {
        for _ in 0..window {
            load.send(*sender, load.now())?;
            said += 1;
        }
    }
    while Instant::now() < deadline {
        load.turn(Duration::from_millis(10))?;
        let mut completed = std::mem::take(&mut load.completed);
        for sender in completed.drain(..) {
            load.send(sender, load.now())?;
            said += 1;
        }
        load.completed = completed;
    }
    Ok(said)
}

/// Says messages at a fixed rate, whether or not the server keeps up; returns how many were said. Each is
/// timed from when it was due.
pub fn fixed_rate(load: &mut Load, senders: &[usize], per_second: f64, time: Duration) -> Result<u64> {
    let start = load.now();
    let step = 1_000_000_000.0 / per_second;
    let total = (time.as_secs_f64() * per_second) as u64;
    let mut said = 0;
    while said < total {
        let now = load.now();
        let due = |said: u64| start + (said as f64 * step) as u64;
        while said < total && due(said) <= now {
            load.send(senders[said as usize % senders.len()], due(said))?;
            said += 1;
        }
        load.turn(Duration::from_nanos(due(said).saturating_sub(now)).min(Duration::from_millis(10)))?;
    }
    Ok(said)
}

/// Says bursts of messages, each burst after the one before has reached everybody.
pub fn in_bursts(load: &mut Load, members: usize, bursts: u64, size: u64) -> Result<u64> {
    for burst in 1..=bursts {
        let now = load.now();
        for _ in 0..size {
            load.send(0, now)?;
        }
        let expected = burst * size * members as u64;
        load.run_until(LIMIT, "for a message to reach all", |load| load.deliveries() >= expected)?;
    }
    Ok(bursts * size)
}
