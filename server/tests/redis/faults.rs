//! Two nodes on one store, and a Redis between them to which things happen. People on both talk all the
//! time; nobody may miss, hear twice or hear out of order what was said, and it must not take long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::broker::Broker;
use server::broker::redis::RedisBroker;
use server::hub::{Conn, HubConfig, Mode};
use server::simulation::{Node, Output};
use server::store::memory::MemoryStore;
use shared::model::LOBBY;

use crate::process::{Redis, SECRET, WAIT, connected};

/// How often each of the two says something.
const TALK_EVERY: Duration = Duration::from_millis(20);
/// How long people talk while all is well, and while it is not.
const CALM: Duration = Duration::from_secs(1);
const FAULT: Duration = Duration::from_secs(2);

/// A node, and somebody connected to it who talks and listens.
struct Side {
    node: Node,
    broker: Arc<RedisBroker>,
    conn: Conn,
    /// `seq` of the last event heard.
    heard: u64,
    /// `seq` of the last message of this side that was acknowledged.
    acked: u64,
    said: u32,
}

struct World {
    redis: Redis,
    sides: [Side; 2],
    start: Instant,
    /// The longest that something acknowledged on one side took to be heard on the other.
    slowest: Duration,
    /// What was acknowledged last when its time was taken, and then.
    watched: [Option<(u64, Instant)>; 2],
    talk_at: Instant,
}

impl World {
    fn new() -> Option<Self> {
        let redis = Redis::start()?;
        let store = MemoryStore::new(SECRET);
        let side = |id: u8| {
            let broker = Arc::new(redis.broker());
            let config = HubConfig { message_rate: 0, request_rate: 0, ..HubConfig::default() };
            let mut node = Node::new(id.into(), config, Arc::new(store.clone()), broker.clone(), id.into());
            let conn = node.connect(Mode::Full, [id; 32], false);
            node.send(conn, r#"{"type":"hello"}"#);
            node.settle();
            Side { node, broker, conn, heard: 0, acked: 0, said: 0 }
        };
        let now = Instant::now();
        let mut world = Self {
            sides: [side(1), side(2)],
            redis,
            start: now,
            slowest: Duration::ZERO,
            watched: [None; 2],
            talk_at: now,
        };
        for side in &mut world.sides {
            // A welcome waits until Redis passes on what concerns the user.
            crate::until("welcomed", || {
                side.node.settle();
                side.listen()
            });
        }
        Some(world)
    }

    /// One round: time passes, perhaps somebody says something, everybody hears what there is.
    fn round(&mut self, talk: bool) {
        let now = Instant::now();
        let says = talk && now >= self.talk_at;
        if says {
            self.talk_at = now + TALK_EVERY;
        }
        for side in &mut self.sides {
            side.node.tick((now - self.start).as_millis() as i64);
            if says {
                side.say();
            }
            side.node.settle();
            side.listen();
        }
        for speaker in 0..2 {
            let (acked, heard) = (self.sides[speaker].acked, self.sides[1 - speaker].heard);
            match self.watched[speaker] {
                Some((seq, since)) if heard >= seq => {
                    self.slowest = self.slowest.max(since.elapsed());
                    self.watched[speaker] = None;
                }
                None if acked > heard => self.watched[speaker] = Some((acked, Instant::now())),
                _ => {}
            }
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }

    fn talk(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.round(true);
        }
    }

    /// Lets people talk until something is so; answers with how long it took.
    #[track_caller]
    fn talk_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < WAIT, "{what}: not within {} s", WAIT.as_secs());
            self.round(true);
        }
        start.elapsed()
    }

    /// Waits until everybody has heard everything that was said.
    #[track_caller]
    fn settle(&mut self) {
        let end = Instant::now() + WAIT;
        loop {
            let head = self.sides.iter().map(|side| side.acked).max().unwrap_or(0);
            if self.sides.iter().all(|side| side.heard >= head) {
                return;
            }
            let heard = self.sides.each_ref().map(|side| side.heard);
            assert!(Instant::now() < end, "{head} is the last, {heard:?} was heard");
            self.round(false);
        }
    }

    fn received(&self) -> [u64; 2] {
        self.sides.each_ref().map(|side| side.broker.counts().received)
    }

    fn connections(&self) -> [u64; 2] {
        self.sides.each_ref().map(|side| side.broker.counts().connections)
    }

    fn is_well(&self) -> bool {
        self.sides.iter().all(|side| side.broker.check().is_ok())
    }

    fn is_in_trouble(&self) -> bool {
        self.sides.iter().all(|side| side.broker.check().is_err())
    }

    /// All is well again: hints get through, and everything has been heard.
    #[track_caller]
    fn recover(&mut self, what: &str) {
        let took = self.talk_until("the brokers recover", Self::is_well);
        let before = self.received();
        self.talk_until("hints get through", |world| {
            world.received().iter().zip(before).all(|(now, before)| *now > before + 10)
        });
        self.settle();
        println!("{what}: connected again after {took:?}, slowest message {:?}", self.slowest);
        self.slowest = Duration::ZERO;
        self.talk(CALM);
        self.settle();
        println!("{what}: afterwards, slowest message {:?}", self.slowest);
        self.slowest = Duration::ZERO;
    }
}

impl Side {
    fn say(&mut self) {
        self.said += 1;
        let own = format!("0192f0c1-2345-7abc-8def-{:012x}", self.said);
        let send =
            json!({"type": "send", "room": LOBBY, "ref": own, "body": format!("number {}", self.said)});
        self.node.send(self.conn, &send.to_string());
    }

    /// Takes what was told, and checks that it is the next of each. True if it was welcomed.
    #[track_caller]
    fn listen(&mut self) -> bool {
        let mut is_welcome = false;
        for output in self.node.take(self.conn) {
            let Output::Text(text) = output else { panic!("{output:?}") };
            let value: Value = serde_json::from_str(&text).unwrap();
            let seq = value["seq"].as_u64();
            match value["type"].as_str() {
                Some("welcome") => {
                    is_welcome = true;
                    self.heard = value["rooms"][0]["head"].as_u64().unwrap();
                }
                Some("event") => {
                    assert_eq!(seq, Some(self.heard + 1), "lost, twice or out of order: {text}");
                    self.heard += 1;
                }
                Some("ack") => self.acked = self.acked.max(seq.unwrap()),
                Some("error") => panic!("{text}"),
                _ => {}
            }
        }
        is_welcome
    }
}

#[test]
fn a_flush_disturbs_nobody() {
    let Some(mut world) = World::new() else { return };
    world.talk(CALM);
    let connections = world.connections();
    for _ in 0..10 {
        world.redis.command("FLUSHALL");
        world.talk(CALM / 10);
    }
    world.recover("flushed");
    assert_eq!(world.connections(), connections);
}

#[test]
fn connections_that_are_killed_come_back() {
    let Some(mut world) = World::new() else { return };
    world.talk(CALM);
    for kind in ["pubsub", "normal", "pubsub"] {
        let before = world.connections();
        world.redis.command(&format!("CLIENT KILL TYPE {kind}"));
        world.talk_until("new connections", |world| {
            world.connections().iter().zip(before).all(|(now, before)| *now > before)
        });
        world.recover(&format!("{kind} connections killed"));
    }
}

#[test]
fn a_server_that_hangs_is_noticed_and_its_return_too() {
    let Some(mut world) = World::new() else { return };
    world.talk(CALM);
    world.redis.signal("STOP");
    let took = world.talk_until("the brokers notice", World::is_in_trouble);
    println!("hanging: noticed after {took:?}");
    world.talk(FAULT);
    world.settle();
    world.redis.signal("CONT");
    world.recover("hanging");
}

#[test]
fn a_slow_server_is_waited_for() {
    let Some(mut world) = World::new() else { return };
    world.talk(CALM);
    let connections = world.connections();
    for _ in 0..3 {
        let redis = world.redis.address();
        let sleeper = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(redis).unwrap();
            stream.write_all(b"DEBUG SLEEP 1\r\nQUIT\r\n").unwrap();
            stream.read_to_string(&mut String::new()).unwrap();
        });
        while !sleeper.is_finished() {
            world.round(true);
        }
        sleeper.join().unwrap();
    }
    world.recover("slow");
    assert_eq!(world.connections(), connections, "a second's wait is no reason to give up");
}

#[test]
fn a_server_that_is_killed_and_started_again_needs_no_restart_of_ours() {
    let Some(mut world) = World::new() else { return };
    world.talk(CALM);
    for round in 0..2 {
        world.redis.kill();
        let took = world.talk_until("the brokers notice", World::is_in_trouble);
        println!("killed: noticed after {took:?}");
        world.talk(FAULT * (1 + round));
        world.settle();
        let dropped = world.sides[0].broker.counts().dropped;
        assert!(dropped > 0, "hints were published meanwhile");
        world.redis.run();
        world.recover("killed");
    }
}

#[test]
fn a_node_that_starts_without_redis_finds_it_later() {
    let Some(mut world) = World::new() else { return };
    world.redis.kill();
    let late = Arc::new(RedisBroker::open(&world.redis.url(), &SECRET).unwrap());
    let ear = server::broker::conformance::Ear::attach(&*late, 9);
    world.talk(CALM);
    world.redis.run();
    connected(&late);
    world.recover("started late");
    world.sides[0].node.announce("hello");
    crate::until("it hears", || late.counts().received > 0);
    drop(ear);
}
