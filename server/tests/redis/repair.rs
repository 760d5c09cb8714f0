//! What is no event is told by hints alone: names, rooms, sessions. Two nodes on one store, and a Redis that
//! loses them: when it is back, everybody knows what they missed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use serde_json::{Value, json};
use server::broker::conformance::Recorder;
use server::broker::redis::RedisBroker;
use server::broker::{Broker, Hint, Topic};
use server::hub::{Conn, HubConfig, Mode};
use server::simulation::{Node, Output, START};
use server::store::memory::MemoryStore;
use server::store::{Applicant, NewSession, Reply, Store};
use shared::model::{LOBBY, UserId, UserName};
use shared::protocol::CloseCode;

use crate::process::{Redis, SECRET, WAIT};

struct Cluster {
    redis: Redis,
    store: MemoryStore,
    nodes: [Node; 2],
    brokers: [Arc<RedisBroker>; 2],
    start: Instant,
}

fn now<T>(reply: Reply<T>) -> T {
    reply.now_or_never().unwrap().unwrap()
}

impl Cluster {
    fn new() -> Option<Self> {
        let redis = Redis::start()?;
        let store = MemoryStore::new(SECRET);
        let brokers = [(); 2].map(|()| Arc::new(redis.broker()));
        let config = HubConfig { message_chars: 0, ..HubConfig::default() };
        let node =
            |id: u32| Node::new(id, config, Arc::new(store.clone()), brokers[id as usize].clone(), id.into());
        let nodes = [node(0), node(1)];
        Some(Self { redis, store, nodes, brokers, start: Instant::now() })
    }

    fn enter(&mut self, node: usize, token: u8) -> Conn {
        let conn = self.nodes[node].connect(Mode::Full, [token; 32], false);
        self.send(node, conn, json!({"type": "hello"}));
        self.until("welcomed", |cluster| cluster.told(node, conn, "welcome") == 1);
        conn
    }

    fn send(&mut self, node: usize, conn: Conn, envelope: Value) {
        self.nodes[node].send(conn, &envelope.to_string());
        self.nodes[node].settle();
    }

    /// How many envelopes of a type, or `close`, came since the last call; what else came is dropped.
    fn told(&mut self, node: usize, conn: Conn, kind: &str) -> usize {
        let is_of_kind = |output: &Output| match output {
            Output::Text(text) => serde_json::from_str::<Value>(text).unwrap()["type"] == kind,
            Output::Close(code) => kind == "close" && *code == CloseCode::Policy,
        };
        self.nodes[node].take(conn).iter().filter(|output| is_of_kind(output)).count()
    }

    /// The ids of the nodes' connections to Redis, oldest first.
    fn clients(&self) -> Vec<String> {
        let list = self.redis.command("CLIENT LIST");
        let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        // The last is that which asked.
        ids.pop();
        ids.truncate(4);
        ids
    }

    /// Lets time pass until something is so, and says how long that took.
    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < WAIT, "{what}: not within {} s", WAIT.as_secs());
            let time = self.start.elapsed().as_millis() as i64;
            for node in &mut self.nodes {
                node.tick(time);
                node.settle();
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        println!("{what}: after {:?}", begun.elapsed());
    }

    /// A session of Ada's, who has an account.
    fn sign_in(&self, token: u8) {
        let ada = UserId::from_bits(7);
        let session = NewSession { until: START + 86_400_000, ..NewSession::of([token; 32], START) };
        if self.store.account(ada).now_or_never().unwrap().is_err() {
            let who = Applicant::New { id: ada, name: UserName::claim("Ada").unwrap() };
            now(self.store.sign_up(who, "x".into(), None, session));
        } else {
            now(self.store.sign_in(ada, session, None));
        }
    }
}

#[test]
fn what_is_done_on_another_node_while_redis_is_gone_is_known_when_it_is_back() {
    let Some(mut cluster) = Cluster::new() else { return };
    (1..=3).for_each(|token| cluster.sign_in(token));
    let here = cluster.enter(0, 1);
    let [there, ended] = [cluster.enter(1, 2), cluster.enter(1, 3)];
    let heard = Recorder::attach(&*cluster.brokers[1], 9);
    for round in 0..2 {
        cluster.redis.kill();
        cluster.send(0, here, json!({"type": "rename", "name": format!("Ada {round}")}));
        cluster.send(0, here, json!({"type": "create", "name": format!("den {round}"), "private": true}));
        if round == 0 {
            let ended = now(cluster.store.sign_out([3; 32], false));
            cluster.brokers[0].publish(0, Topic::All, Hint::Ended(ended));
        }
        cluster.until("both notice", |cluster| cluster.brokers.iter().all(|b| b.check().is_err()));
        let doubts = cluster.nodes[1].counts().doubts;
        cluster.redis.run();
        let (mut renamed, mut joined) = (0, 0);
        cluster.until("the new name and the new room", |cluster| {
            for output in cluster.nodes[1].take(there) {
                let Output::Text(text) = output else { panic!("{output:?}") };
                let value: Value = serde_json::from_str(&text).unwrap();
                renamed += u32::from(value["type"] == "renamed");
                joined += u32::from(value["type"] == "joined");
            }
            (renamed, joined) == (1, 1)
        });
        if round == 0 {
            cluster.until("the session is closed", |cluster| cluster.told(1, ended, "close") == 1);
        }
        // What is looked at while Redis is gone may have been enough before.
        cluster.until("there is a doubt", |cluster| cluster.nodes[1].counts().doubts > doubts);
        let own: Vec<Hint> =
            heard.take().into_iter().filter(|h| matches!(h, Hint::CutOff | Hint::Doubt)).collect();
        assert_eq!(own.first(), Some(&Hint::CutOff), "{own:?}");
        assert_eq!(own.last(), Some(&Hint::Doubt), "{own:?}");
    }
}

#[test]
fn who_was_connected_all_the_time_learns_what_a_node_without_connection_did() {
    let Some(mut cluster) = Cluster::new() else { return };
    (1..=2).for_each(|token| cluster.sign_in(token));
    let (here, there) = (cluster.enter(0, 1), cluster.enter(1, 2));
    cluster.until("calm", |cluster| cluster.nodes[1].counts().peers == 1);
    let heard = Recorder::attach(&*cluster.brokers[1], 9);
    // The first two connections are those of the first node.
    let mut number = 0;
    let mut clients = cluster.clients();
    clients.truncate(2);
    loop {
        let dropped = cluster.brokers[0].counts().dropped;
        for id in &clients {
            cluster.redis.command(&format!("CLIENT KILL ID {id}"));
        }
        cluster.until("trouble", |cluster| cluster.brokers[0].check().is_err());
        number += 1;
        cluster.send(0, here, json!({"type": "rename", "name": format!("Ada {number}")}));
        let has_dropped = cluster.brokers[0].counts().dropped > dropped;
        cluster.until("connected again", |cluster| cluster.brokers[0].check().is_ok());
        cluster.until("the new name", |cluster| cluster.told(1, there, "renamed") == 1);
        if has_dropped {
            break;
        }
        // It was connected again too soon.
        clients = cluster.clients().split_off(2);
    }
    let told = heard.take();
    assert!(told.contains(&Hint::Doubt) && !told.contains(&Hint::CutOff), "{told:?}");
}

#[test]
fn a_message_that_is_too_large_for_a_hint_is_heard_elsewhere() {
    let Some(mut cluster) = Cluster::new() else { return };
    let (here, there) = (cluster.enter(0, 1), cluster.enter(1, 2));
    let body = "\"".repeat(40_000);
    let reference = "0192f0c1-2345-7abc-8def-000000000001";
    cluster.send(0, here, json!({"type": "send", "room": LOBBY, "ref": reference, "body": body}));
    cluster.until("it is heard", |cluster| {
        cluster.nodes[1].take(there).iter().any(|output| {
            matches!(output, Output::Text(text) if text.contains(reference) && text.len() > 2 * body.len())
        })
    });
    cluster.until("it was too large", |cluster| cluster.brokers[0].counts().too_large == 1);
}
