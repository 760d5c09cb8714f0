//! The hub's rules, each shown by what its connections are told.

mod acts;
mod bots;
mod doubt;
mod endings;
mod leases;
mod nodes;
mod people;
mod privacy;
mod rates;
mod resume;
mod rooms;
mod talk;

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Value, json};
use shared::acts::Act;
use shared::model::{Body, Claim, LOBBY, Line, Ms, Ref, RoomId, UserId, UserName};
use shared::protocol::{
    CROWD, ClientEnvelope, CloseCode, EventKind, PAGE_EVENTS_MAX, REPLAY_EVENTS_MAX, ServerEnvelope, encode,
};

use shared::rights::Role;

use super::{APPEND_BYTES_MAX, Arrival, Conn, HubConfig, Mode};
use crate::broker::chaos::{Chaos, ChaosBroker};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Hint, Logged, Topic};
use crate::simulation::{Node, Output, START};
use crate::store::memory::MemoryStore;
use crate::store::{Append, Applicant, Made, NewSession, Newcomer, Outcome, Reply, Store};

const UNLIMITED: HubConfig = HubConfig {
    message_rate: 0,
    request_rate: 0,
    entry_rate: 0,
    act_rate: 0,
    list_rate: 0,
    connections_per_user: 0,
    rooms_per_user: 0,
    message_chars: 4_000,
    frame_bytes: 65_536,
    session_ms: 86_400_000,
    shared_store: false,
};

/// One or more nodes on one store.
struct World {
    store: MemoryStore,
    broker: Arc<dyn Broker>,
    nodes: Vec<Node>,
    now: Ms,
    refs: u64,
}

/// A connection of a node.
type At = (usize, Conn);

impl World {
    fn new() -> Self {
        Self::with(1, UNLIMITED, Arc::new(MemoryBroker::new()))
    }

    fn with(nodes: u32, config: HubConfig, broker: Arc<dyn Broker>) -> Self {
        let store = MemoryStore::new([0; 32]);
        let node = |id| Node::new(id, config, Arc::new(store.clone()), broker.clone(), u64::from(id));
        let nodes = (1..=nodes).map(node).collect();
        Self { store, broker, nodes, now: 0, refs: 0 }
    }

    fn settle(&mut self) {
        for _ in 0..3 {
            self.nodes.iter_mut().for_each(Node::settle);
        }
    }

    fn pass(&mut self, ms: Ms) {
        let end = self.now + ms;
        while self.now < end {
            self.now = (self.now + 250).min(end);
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| node.tick(now));
            self.settle();
        }
    }

    /// A person's connection, welcomed. Whatever came with that is taken.
    fn join(&mut self, person: u8) -> At {
        self.join_at(0, person)
    }

    fn join_at(&mut self, node: usize, person: u8) -> At {
        let conn = self.nodes[node].connect(Mode::Full, [person; 32], false);
        self.send((node, conn), json!({"type": "hello"}));
        let told = self.take((node, conn));
        assert_eq!(told[0]["type"], "welcome", "{told:?}");
        (node, conn)
    }

    fn send(&mut self, at: At, envelope: Value) {
        self.nodes[at.0].send(at.1, &envelope.to_string());
        self.settle();
    }

    fn say(&mut self, at: At, room: RoomId, body: &str) -> Ref {
        self.refs += 1;
        let reference = Ref::new(self.refs as Ms, [1; 10]);
        self.nodes[at.0].send(at.1, &encode(&ClientEnvelope::Send { room, reference, body: body.into() }));
        self.settle();
        reference
    }

    fn take(&mut self, at: At) -> Vec<Value> {
        let outputs = self.nodes[at.0].take(at.1).into_iter();
        outputs
            .map(|output| match output {
                Output::Text(text) => serde_json::from_str(&text).unwrap(),
                Output::Close(code) => json!({ "close": code as u16 }),
            })
            .collect()
    }

    fn clear(&mut self, ats: [At; 3]) {
        for at in ats {
            self.take(at);
        }
    }

    /// What a connection is told of some type.
    fn told(&mut self, at: At, kind: &str) -> Vec<Value> {
        self.take(at).into_iter().filter(|value| value["type"] == kind).collect()
    }

    /// What a connection answers to one envelope.
    fn ask(&mut self, at: At, envelope: Value) -> Value {
        self.take(at);
        self.send(at, envelope);
        let told = self.take(at);
        assert!(!told.is_empty(), "no answer");
        told[0].clone()
    }
}

/// Somebody with an account, whose session is the person's.
impl World {
    fn enrol(&mut self, person: u8, role: Role) -> At {
        self.account(person);
        match role {
            Role::Guest | Role::Member => {}
            Role::Owner => self.crown(person),
            Role::Moderator => {
                self.account(6);
                self.crown(6);
                self.act_in_store(6, Act::SetRole { user: id(person), role });
            }
        }
        self.join(person)
    }

    fn account(&mut self, person: u8) {
        let at = START + self.now;
        let name = claim(["Ada", "Bob", "Cy", "Dot", "Eve", "Finn"][usize::from(person) - 1]);
        let session = NewSession { until: at + DAY_MS, ..NewSession::of([person; 32], at) };
        now(self.store.sign_up(Applicant::New { id: id(person), name }, "x".into(), None, session));
    }

    fn crown(&mut self, person: u8) {
        let at = START + self.now;
        now(self.store.offer_ownership([99; 32], at, at + 1, false));
        now(self.store.take_ownership([99; 32], [person; 32], at));
    }

    /// Does something behind the hubs' backs.
    fn act_in_store(&mut self, by: u8, act: Act) -> Outcome {
        let made = Made { session: [by; 32], id: 1_000 + self.refs, secret: [90; 32] };
        now(self.store.act(id(by), act, made, START + self.now))
    }

    /// Does something, which must be done.
    fn act(&mut self, at: At, mut act: Value) -> Value {
        act["type"] = "act".into();
        self.take(at);
        self.send(at, act);
        let told = self.take(at);
        let done = told.iter().find(|value| value["type"] == "done");
        done.unwrap_or_else(|| panic!("{told:?}")).clone()
    }

    /// A room of somebody's, with these in it.
    fn room(&mut self, at: At, private: bool, others: &[u8]) -> RoomId {
        let made = self.ask(at, json!({"type": "create", "name": "club", "private": private}));
        let room = serde_json::from_value(made["room"].clone()).unwrap();
        for other in others {
            self.act(at, json!({"act": "invite", "room": room, "user": id(*other)}));
        }
        room
    }

    /// A connection that says hello, whatever comes of it.
    fn hello(&mut self, token: [u8; 32], may_be_new: bool) -> At {
        let conn = self.nodes[0].connect_as(
            Mode::Full,
            Arrival { token, ephemeral: false, may_be_new, device: Line::new("a test") },
        );
        self.send((0, conn), json!({"type": "hello"}));
        (0, conn)
    }
}

const DAY_MS: Ms = 86_400_000;

/// The user of a person with an account.
fn id(person: u8) -> UserId {
    UserId::from_bits(person.into())
}

fn kinds(values: &[Value]) -> Vec<&str> {
    values
        .iter()
        .map(|value| if value["type"] == "event" { &value["kind"] } else { &value["type"] })
        .map(|kind| kind.as_str().unwrap_or("close"))
        .collect()
}

fn closed(code: CloseCode) -> Value {
    json!({ "close": code as u16 })
}

/// What a store in memory answers, which is ready at once.
fn now<T>(reply: Reply<T>) -> T {
    reply.now_or_never().unwrap().unwrap()
}

fn claim(name: &str) -> Claim<UserName> {
    UserName::claim(name).unwrap()
}

fn bodies(values: &[Value]) -> Vec<&str> {
    values.iter().filter_map(|value| value["body"].as_str()).collect()
}

fn seqs(events: &Value) -> Vec<u64> {
    events.as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}
