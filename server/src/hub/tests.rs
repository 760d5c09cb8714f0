//! The hub's rules, each shown by what its connections are told.

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Value, json};
use shared::model::{Body, Claim, LOBBY, Ms, Ref, RoomId, UserId, UserName};
use shared::protocol::{
    CROWD, ClientEnvelope, CloseCode, EventKind, PAGE_EVENTS_MAX, REPLAY_EVENTS_MAX, ServerEnvelope, encode,
};

use super::{APPEND_BYTES_MAX, Conn, HubConfig, Mode};
use crate::broker::chaos::{Chaos, ChaosBroker};
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Hint, Logged, Topic};
use crate::simulation::{Node, Output};
use crate::store::memory::MemoryStore;
use crate::store::{Append, NewSession, Newcomer, Reply, Store};

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

#[test]
fn a_message_is_acknowledged_and_reaches_every_connection_of_the_room() {
    let mut world = World::new();
    let [a, also_a, b] = [world.join(1), world.join(1), world.join(2)];
    world.clear([a, also_a, b]);
    let reference = world.say(a, LOBBY, "hello");
    let told = world.take(a);
    let ack = told.iter().find(|value| value["type"] == "ack").unwrap().clone();
    assert_eq!(ack["ref"], json!(reference));
    for events in [told, world.take(also_a), world.take(b)] {
        let event = events.iter().find(|value| value["type"] == "event").unwrap();
        assert_eq!(
            (&event["body"], &event["ref"], &event["seq"]),
            (&json!("hello"), &json!(reference), &ack["seq"])
        );
    }
}

#[test]
fn a_repeated_ref_is_acknowledged_again_and_delivered_once() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    let reference = world.say(a, LOBBY, "once");
    let first = world.told(a, "ack");
    let again = encode(&ClientEnvelope::Send { room: LOBBY, reference, body: "twice".into() });
    world.nodes[0].send(a.1, &again);
    world.settle();
    assert_eq!(world.told(a, "ack"), first);
    assert_eq!(bodies(&world.told(b, "event")), ["once"]);
}

#[test]
fn nothing_is_acknowledged_that_the_store_did_not_take() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.take(a);
    world.store.set_unavailable(true);
    let reference = world.say(a, LOBBY, "lost?");
    let told = world.take(a);
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("unavailable")));
    assert_eq!((&told[0]["ref"], &told[0]["retry_ms"]), (&json!(reference), &json!(1_000)));
    world.store.set_unavailable(false);
    world.say(a, LOBBY, "back");
    assert_eq!(bodies(&world.told(b, "event")), ["back"]);
}

#[test]
fn the_session_says_who_speaks_whatever_the_envelope_claims() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.take(b);
    world.send(
        a,
        json!({"type": "send", "room": LOBBY, "ref": Ref::new(0, [9; 10]), "body": "x",
               "user": {"id": "0000000000009", "name": "Root"}, "seq": 99, "at": 1}),
    );
    let event = &world.told(b, "event")[0];
    assert_ne!(event["user"]["name"], "Root");
    assert_eq!(event["seq"], 3, "two people joined before");
}

#[test]
fn the_first_envelope_is_a_hello_and_comes_once() {
    let mut world = World::new();
    let conn = world.nodes[0].connect(Mode::Full, [1; 32], false);
    let at = (0, conn);
    assert_eq!(world.ask(at, json!({"type": "directory"}))["code"], "hello_first");
    assert_eq!(world.ask(at, json!({"type": "ping", "n": 7}))["n"], 7);
    assert_eq!(world.ask(at, json!({"type": "hello"}))["type"], "welcome");
    assert_eq!(world.ask(at, json!({"type": "hello"}))["code"], "hello_twice");
    assert_eq!(world.ask(at, json!({"type": "dance"}))["code"], "unknown_type");
    assert_eq!(world.ask(at, json!({"type": "send"}))["code"], "bad_field");
    assert_eq!(world.ask(at, json!([1]))["code"], "bad_json");
    assert_eq!(world.ask(at, json!({"type": "ping", "n": 8, "new": {}}))["n"], 8);
}

#[test]
fn what_is_sent_right_behind_the_hello_is_answered_after_the_welcome() {
    let mut world = World::new();
    let conn = world.nodes[0].connect(Mode::Full, [1; 32], false);
    for n in 0..40 {
        let text = if n == 0 { json!({"type": "hello"}) } else { json!({"type": "ping", "n": n}) };
        world.nodes[0].send(conn, &text.to_string());
    }
    world.settle();
    let told = world.take((0, conn));
    let pongs: Vec<_> =
        told.iter().filter(|v| v["type"] == "pong").map(|v| v["n"].as_u64().unwrap()).collect();
    assert_eq!(pongs, (1..=32).collect::<Vec<_>>());
    assert_eq!(told.iter().filter(|value| value["code"] == "rate_limited").count(), 7);
}

#[test]
fn bodies_that_cannot_be_are_refused_by_ref() {
    let mut world = World::new();
    let a = world.join(1);
    for (body, code) in [("", "body_empty"), ("  ", "body_empty"), (&"x".repeat(4_001), "body_too_long")] {
        world.take(a);
        let reference = world.say(a, LOBBY, body);
        let told = world.take(a);
        assert_eq!((&told[0]["code"], &told[0]["ref"]), (&json!(code), &json!(reference)));
    }
    world.say(a, LOBBY, &"ö".repeat(4_000));
    assert_eq!(world.told(a, "ack").len(), 1);
}

#[test]
fn a_resume_brings_exactly_what_was_missed() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.say(a, LOBBY, "seen");
    let seq = world.told(b, "event").last().unwrap()["seq"].as_u64().unwrap();
    world.nodes[0].close(b.1);
    for n in 0..5 {
        world.say(a, LOBBY, &format!("missed {n}"));
    }
    let conn = world.nodes[0].connect(Mode::Full, [2; 32], false);
    let resume = json!({"type": "hello", "resume": [{"room": LOBBY, "epoch": 1, "seq": seq}]});
    world.send((0, conn), resume);
    let told = world.told((0, conn), "joined");
    assert_eq!((told.len(), &told[0]["gap"], &told[0]["after"]), (1, &json!(false), &json!(seq)));
    assert_eq!(
        bodies(told[0]["events"].as_array().unwrap()),
        (0..5).map(|n| format!("missed {n}")).collect::<Vec<_>>()
    );
    world.say(a, LOBBY, "live");
    assert_eq!(bodies(&world.told((0, conn), "event")), ["live"]);
}

#[test]
fn a_long_absence_is_paged_and_a_longer_one_is_a_gap() {
    let mut world = World::new();
    let a = world.join(1);
    let behind = 350;
    for _ in 0..REPLAY_EVENTS_MAX + 1 {
        world.say(a, LOBBY, "x");
    }
    let head = world.told(a, "ack").last().unwrap()["seq"].as_u64().unwrap();
    let mut after = head - behind;
    let mut got = Vec::new();
    while got.len() < behind as usize {
        let joined = world.ask(a, json!({"type": "join", "room": LOBBY, "after": after}));
        assert_eq!((&joined["gap"], &joined["head"]), (&json!(false), &json!(head)));
        let page = seqs(&joined["events"]);
        assert!(page.len() <= PAGE_EVENTS_MAX && !page.is_empty());
        after = *page.last().unwrap();
        got.extend(page);
    }
    assert_eq!(got, (head - behind + 1..=head).collect::<Vec<_>>());
    let joined = world.ask(a, json!({"type": "join", "room": LOBBY, "after": head - REPLAY_EVENTS_MAX - 1}));
    assert_eq!(joined["gap"], true);
    assert_eq!(seqs(&joined["events"]), (head - PAGE_EVENTS_MAX as u64 + 1..=head).collect::<Vec<_>>());
    let history = world.ask(a, json!({"type": "history", "room": LOBBY, "before": 3}));
    assert_eq!(seqs(&history["events"]), [1, 2]);
}

#[test]
fn events_that_come_while_a_replay_is_read_are_neither_lost_nor_put_before_it() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    for _ in 0..400 {
        world.say(a, LOBBY, "x");
    }
    world.take(b);
    // The answer of the store waits while another message is said and delivered.
    world.nodes[0].send(b.1, &json!({"type": "join", "room": LOBBY, "after": 10}).to_string());
    world.nodes[0].step();
    world.nodes[0].answer(1);
    world.nodes[0].step();
    world.say(a, LOBBY, "meanwhile");
    let told = world.take(b);
    let joined = told.iter().find(|value| value["type"] == "joined").unwrap();
    assert_eq!(seqs(&joined["events"]), (11..=110).collect::<Vec<_>>());
    assert_eq!(bodies(&told), ["meanwhile"]);
}

#[test]
fn rooms_are_made_found_joined_and_left() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    let made = world.ask(a, json!({"type": "create", "name": "Book Club"}));
    assert_eq!((&made["type"], &made["info"]["name"]), (&json!("joined"), &json!("book-club")));
    let room: RoomId = serde_json::from_value(made["room"].clone()).unwrap();
    assert_eq!(world.ask(b, json!({"type": "create", "name": "B00k-club"}))["code"], "name_taken");
    assert_eq!(world.ask(b, json!({"type": "create", "name": "a/b"}))["code"], "name_invalid");
    assert_eq!(world.ask(b, json!({"type": "history", "room": room, "before": 9}))["code"], "not_found");
    world.take(b);
    world.say(b, room, "let me in");
    assert_eq!(world.take(b)[0]["code"], "not_member");
    let listed = world.ask(b, json!({"type": "directory"}));
    assert_eq!(listed["rooms"][1]["name"], "book-club");
    assert_eq!(world.ask(b, json!({"type": "join", "room": "book-club"}))["room"], json!(room));
    world.take(a);
    world.say(b, room, "hello");
    assert_eq!(bodies(&world.told(a, "event")), ["hello"]);
    world.take(b);
    world.send(b, json!({"type": "leave", "room": room}));
    assert_eq!(world.told(b, "left").len(), 1);
    assert_eq!(world.told(a, "event")[0]["kind"], "left");
    world.say(a, room, "gone?");
    assert_eq!(world.take(b), Vec::<Value>::new());
    assert_eq!(world.ask(a, json!({"type": "leave", "room": LOBBY}))["code"], "cannot_leave");
}

#[test]
fn when_too_much_waits_for_the_store_senders_wait_too() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    let body = "ö".repeat(4_000);
    let fits = APPEND_BYTES_MAX / body.len() + 1;
    for n in 0..fits as Ms + 2 {
        let send = ClientEnvelope::Send { room: LOBBY, reference: Ref::new(n, [9; 10]), body: body.clone() };
        world.nodes[0].send(a.1, &encode(&send));
    }
    while world.nodes[0].step() {}
    let refused = world.told(a, "error");
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|error| error["code"] == "unavailable" && error["retry_ms"].is_u64()));
    world.settle();
    assert_eq!(world.told(a, "ack").len(), fits);
    world.say(a, LOBBY, "again");
    assert_eq!(world.told(a, "ack").len(), 1);
}

#[test]
fn rooms_made_at_once_are_answered_once_each() {
    let mut world = World::new();
    let a = world.join(1);
    for name in ["one", "two", "three"] {
        world.nodes[0].send(a.1, &json!({"type": "create", "name": name}).to_string());
    }
    // What one answer causes comes before the next answer.
    let node = &mut world.nodes[0];
    while node.step() || node.answer(1) {}
    let joined = world.told(a, "joined");
    let mut names: Vec<_> = joined.iter().map(|joined| joined["info"]["name"].as_str().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["one", "three", "two"]);
}

#[test]
fn a_direct_conversation_reaches_both_and_is_hidden_from_others() {
    let mut world = World::new();
    let [a, b, c] = [world.join(1), world.join(2), world.join(3)];
    let people = world.ask(a, json!({"type": "members", "room": LOBBY}))["people"].clone();
    let conn = world.nodes[0].connect(Mode::Full, [2; 32], false);
    world.send((0, conn), json!({"type": "hello"}));
    let b_id = world.take((0, conn))[0]["user"]["id"].clone();
    assert!(people.as_array().unwrap().iter().any(|person| person["id"] == b_id));
    world.take(b);
    let opened = world.ask(a, json!({"type": "direct", "user": b_id}));
    let room: RoomId = serde_json::from_value(opened["room"].clone()).unwrap();
    assert_eq!(opened["info"]["peer"]["id"], b_id);
    let told = world.told(b, "joined");
    assert_eq!((told.len(), &told[0]["info"]["kind"]), (1, &json!("direct")));
    assert_eq!(world.told((0, conn), "joined").len(), 1, "on each of their devices");
    world.say(a, room, "psst");
    assert_eq!(bodies(&world.told(b, "event")), ["psst"]);
    assert!(world.take(c).iter().all(|value| value["room"] != json!(room)));
    let guess = world.ask(c, json!({"type": "join", "room": room}));
    let nowhere = world.ask(c, json!({"type": "join", "room": RoomId::from_bits(77)}));
    assert_eq!(guess, nowhere);
    for kind in ["history", "members", "read"] {
        let mut guess = world.ask(c, json!({"type": kind, "room": room, "before": 9, "seq": 1}));
        let mut nowhere =
            world.ask(c, json!({"type": kind, "room": RoomId::from_bits(77), "before": 9, "seq": 1}));
        guess["room"].take();
        nowhere["room"].take();
        assert_eq!(guess, nowhere);
    }
}

#[test]
fn unread_counts_go_down_on_every_device_and_never_back() {
    let mut world = World::new();
    let [a, b, also_b] = [world.join(1), world.join(2), world.join(2)];
    let acks: Vec<u64> = (0..3)
        .map(|n| {
            world.say(a, LOBBY, &format!("m{n}"));
            world.told(a, "ack")[0]["seq"].as_u64().unwrap()
        })
        .collect();
    world.take(also_b);
    world.send(b, json!({"type": "read", "room": LOBBY, "seq": acks[1]}));
    let read = &world.told(also_b, "read")[0];
    assert_eq!((&read["seq"], &read["unread"]), (&json!(acks[1]), &json!(1)));
    world.send(b, json!({"type": "read", "room": LOBBY, "seq": 1}));
    assert_eq!(world.told(also_b, "read")[0]["seq"], json!(acks[1]));
    let conn = world.nodes[0].connect(Mode::Full, [2; 32], false);
    world.send((0, conn), json!({"type": "hello"}));
    let lobby = world.take((0, conn))[0]["rooms"][0].clone();
    assert_eq!((&lobby["read"], &lobby["unread"]), (&json!(acks[1]), &json!(1)));
}

#[test]
fn a_new_name_is_unique_and_told_to_everyone() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.take(b);
    world.send(a, json!({"type": "rename", "name": "Ada"}));
    assert_eq!(world.told(a, "renamed")[0]["user"]["name"], "Ada");
    let told = world.told(b, "event");
    assert_eq!((&told[0]["kind"], &told[0]["name"]), (&json!("renamed"), &json!("Ada")));
    for name in ["ADA", "Аdа", "A d a"] {
        let code = world.ask(b, json!({"type": "rename", "name": name}))["code"].clone();
        assert!(code == "name_taken" || code == "name_invalid", "{name}: {code}");
    }
    for name in ["", "x\u{202e}y", "Magpie", &"x".repeat(33)] {
        assert_eq!(world.ask(b, json!({"type": "rename", "name": name}))["code"], "name_invalid");
    }
    world.take(b);
    world.say(a, LOBBY, "it is me");
    assert_eq!(world.told(b, "event")[0]["user"]["name"], "Ada");
}

#[test]
fn presence_is_the_best_of_a_persons_connections_and_forgives_a_reload() {
    let mut world = World::new();
    let [a, b, also_b] = [world.join(1), world.join(2), world.join(2)];
    world.pass(1_000);
    world.take(a);
    let told = |world: &mut World| {
        world.pass(1_000);
        let changes = world.told(a, "presence");
        changes
            .iter()
            .map(|change| change["people"][0]["presence"].as_str().unwrap_or("crowd").to_owned())
            .collect::<Vec<_>>()
    };
    world.send(b, json!({"type": "presence", "presence": "away"}));
    assert_eq!(told(&mut world), Vec::<String>::new(), "the other tab is online");
    world.send(also_b, json!({"type": "presence", "presence": "away"}));
    assert_eq!(told(&mut world), ["away"]);
    world.send(b, json!({"type": "presence", "presence": "online"}));
    assert_eq!(told(&mut world), ["online"]);
    world.nodes[0].close(also_b.1);
    world.nodes[0].close(b.1);
    world.pass(3_000);
    let b = world.join(2);
    assert_eq!(told(&mut world), Vec::<String>::new(), "a reload is not a departure");
    world.nodes[0].close(b.1);
    assert_eq!(told(&mut world), Vec::<String>::new());
    world.pass(8_000);
    assert_eq!(told(&mut world), ["offline"]);
}

#[test]
fn typing_is_passed_on_to_members_but_not_in_a_flood() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.take(b);
    for _ in 0..5 {
        world.send(a, json!({"type": "typing", "room": LOBBY}));
    }
    assert_eq!(world.told(b, "typing").len(), 1);
    world.pass(1_000);
    world.send(a, json!({"type": "typing", "room": LOBBY}));
    world.send(a, json!({"type": "typing", "room": RoomId::from_bits(77)}));
    assert_eq!(world.told(b, "typing").len(), 1);
}

#[test]
fn too_fast_is_refused_with_a_wait_and_at_last_closed() {
    let config = HubConfig { message_rate: 1, ..UNLIMITED };
    let mut world = World::with(1, config, Arc::new(MemoryBroker::new()));
    let [a, b] = [world.join(1), world.join(2)];
    world.take(a);
    for n in 0..5 {
        world.say(a, LOBBY, &format!("{n}"));
    }
    let told = world.take(a);
    let refused: Vec<_> = told.iter().filter(|value| value["code"] == "rate_limited").collect();
    assert_eq!(refused.len(), 2);
    assert!(refused[0]["retry_ms"].as_u64().unwrap() > 0 && refused[0]["ref"].is_string());
    for _ in 0..600 {
        world.say(a, LOBBY, "flood");
    }
    assert!(world.take(a).contains(&json!({ "close": CloseCode::RateLimited as u16 })));
    world.say(b, LOBBY, "unhurt");
    assert_eq!(world.told(b, "ack").len(), 1);
}

#[test]
fn too_many_rooms_are_refused() {
    let config = HubConfig { rooms_per_user: 2, ..UNLIMITED };
    let mut world = World::with(1, config, Arc::new(MemoryBroker::new()));
    let a = world.join(1);
    for name in ["one", "two"] {
        assert_eq!(world.ask(a, json!({"type": "create", "name": name}))["type"], "joined");
    }
    assert_eq!(world.ask(a, json!({"type": "create", "name": "three"}))["code"], "too_many_rooms");
}

#[test]
fn plain_clients_talk_in_the_lobby_and_hear_of_departures() {
    let mut world = World::new();
    let [one, two] = [1, 2].map(|person| (0, world.nodes[0].connect(Mode::Plain, [person; 32], true)));
    world.settle();
    let full = world.join(3);
    world.clear([one, two, full]);
    world.nodes[0].send(one.1, "hello all");
    world.settle();
    let heard = world.take(two);
    let name = heard[0]["sender"].as_str().unwrap().to_owned();
    assert_eq!(heard, [json!({"sender": name, "message": "hello all"})]);
    assert_eq!(world.take(one), heard, "the sender too");
    assert_eq!(bodies(&world.told(full, "event")), ["hello all"]);
    world.nodes[0].send(two.1, " ");
    world.settle();
    assert_eq!(world.take(two)[0]["sender"], "Magpie");
    world.nodes[0].close(one.1);
    world.settle();
    assert_eq!(world.take(two), [json!({"sender": name, "message": "Client disconnected"})]);
    world.nodes[0].close(full.1);
    world.pass(9_000);
    assert_eq!(world.take(two)[0]["message"], "Client disconnected");
}

#[test]
fn a_send_repeated_after_leaving_is_acknowledged_and_a_new_one_refused() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    let room: RoomId =
        serde_json::from_value(world.ask(a, json!({"type": "create", "name": "club"}))["room"].clone())
            .unwrap();
    let reference = world.say(a, room, "bye");
    let first = world.told(a, "ack");
    world.send(a, json!({"type": "leave", "room": room}));
    world.take(a);
    let again = encode(&ClientEnvelope::Send { room, reference, body: "bye".into() });
    world.nodes[0].send(a.1, &again);
    world.settle();
    assert_eq!(world.told(a, "ack"), first);
    for (at, nowhere) in [(a, room), (b, room), (b, RoomId::from_bits(77))] {
        world.take(at);
        world.say(at, nowhere, "hello?");
        assert_eq!(world.take(at)[0]["code"], "not_member");
    }
}

#[test]
fn a_leave_whose_answer_was_lost_ends_the_listening_too() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    let room: RoomId =
        serde_json::from_value(world.ask(a, json!({"type": "create", "name": "club"}))["room"].clone())
            .unwrap();
    world.send(b, json!({"type": "join", "room": "club"}));
    world.store.lose_answers(1);
    world.send(b, json!({"type": "leave", "room": room}));
    world.take(b);
    world.send(b, json!({"type": "leave", "room": room}));
    assert_eq!(world.told(b, "left").len(), 1);
    world.say(a, room, "alone at last");
    world.pass(6_000);
    assert!(bodies(&world.take(b)).is_empty());
}

#[test]
fn a_room_that_one_is_put_into_during_the_start_is_not_missed() {
    let mut world = World::new();
    let a = world.join(1);
    let b = world.join(2);
    world.send(b, json!({"type": "rename", "name": "Bob"}));
    let id = world.told(b, "renamed")[0]["user"]["id"].clone();
    world.nodes[0].close(b.1);
    world.pass(70_000);
    // Bob comes back; while the store is asked for him, a conversation is opened with him.
    let conn = world.nodes[0].connect(Mode::Full, [2; 32], false);
    world.nodes[0].send(conn, r#"{"type":"hello"}"#);
    let mut steps = 0;
    while world.nodes[0].take((0, conn).1).is_empty() {
        while world.nodes[0].step() {}
        if steps == 1 {
            world.nodes[0].send(a.1, &json!({"type": "direct", "user": id}).to_string());
        }
        world.nodes[0].answer(1);
        steps += 1;
        assert!(steps < 20);
    }
    world.settle();
    let joined = world.told(a, "joined");
    let room: RoomId = serde_json::from_value(joined.last().unwrap()["room"].clone()).unwrap();
    world.take((0, conn));
    world.say(a, room, "welcome back");
    assert_eq!(bodies(&world.told((0, conn), "event")), ["welcome back"]);
}

#[test]
fn who_leaves_before_the_room_is_loaded_does_not_listen_afterwards() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    let made = world.ask(a, json!({"type": "create", "name": "club"}));
    let room: RoomId = serde_json::from_value(made["room"].clone()).unwrap();
    world.nodes[1].send(b.1, r#"{"type":"join","room":"club"}"#);
    while world.nodes[1].step() {}
    world.nodes[1].answer(1);
    while world.nodes[1].step() {}
    world.nodes[1].send(b.1, &json!({"type": "leave", "room": room}).to_string());
    world.settle();
    world.take(b);
    world.say(a, room, "secret");
    world.pass(6_000);
    assert!(bodies(&world.take(b)).is_empty());
}

#[test]
fn a_second_join_of_a_room_that_is_being_loaded_gets_its_events_too() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    let made = world.ask(a, json!({"type": "create", "name": "club"}));
    let room: RoomId = serde_json::from_value(made["room"].clone()).unwrap();
    world.say(a, room, "hello");
    world.take(b);
    for text in [json!({"type": "join", "room": room}), json!({"type": "join", "room": room})] {
        world.nodes[1].send(b.1, &text.to_string());
        while world.nodes[1].step() {}
        world.nodes[1].answer(1);
    }
    world.settle();
    let told = world.told(b, "joined");
    assert!(
        told.len() == 2
            && told.iter().all(|joined| bodies(joined["events"].as_array().unwrap()) == ["hello"])
    );
}

#[test]
fn a_resume_answers_each_room_once() {
    let mut world = World::new();
    world.join(1);
    let conn = world.nodes[0].connect(Mode::Full, [1; 32], false);
    let entry = json!({"room": LOBBY, "epoch": 1, "seq": 0});
    world.send((0, conn), json!({"type": "hello", "resume": vec![entry; 400]}));
    assert_eq!(world.told((0, conn), "joined").len(), 1);
}

#[test]
fn many_who_resume_at_one_place_cost_one_read_of_the_log() {
    let mut world = World::new();
    let a = world.join(1);
    for _ in 0..600 {
        world.say(a, LOBBY, "x");
    }
    // The first stands before what is kept in memory, the second within.
    for (seq, reads) in [(100, 1), (550, 0)] {
        let hello = json!({"type": "hello", "resume": [{"room": LOBBY, "epoch": 1, "seq": seq}]});
        let node = &mut world.nodes[0];
        let before = node.queries();
        let conns: Vec<Conn> = (10..30).map(|person| node.connect(Mode::Full, [person; 32], false)).collect();
        conns.iter().for_each(|conn| node.send(*conn, &hello.to_string()));
        world.settle();
        assert_eq!(world.nodes[0].queries() - before, 2 * conns.len() + reads, "two are for the start");
        for conn in conns {
            let joined = world.told((0, conn), "joined").remove(0);
            let end = (seq + PAGE_EVENTS_MAX as u64).min(joined["head"].as_u64().unwrap());
            assert_eq!(seqs(&joined["events"]), (seq + 1..=end).collect::<Vec<_>>());
            assert!(joined.get("info").is_none());
            world.nodes[0].close(conn);
        }
    }
}

#[test]
fn a_resume_that_the_store_cannot_answer_is_put_off() {
    let mut world = World::new();
    let a = world.join(1);
    for _ in 0..600 {
        world.say(a, LOBBY, "x");
    }
    let node = &mut world.nodes[0];
    let conn = node.connect(Mode::Full, [2; 32], false);
    let resume = json!([{"room": LOBBY, "epoch": 1, "seq": 100}]);
    node.send(conn, &json!({"type": "hello", "resume": resume}).to_string());
    // Who it is, and what they are in, is still answered.
    for _ in 0..2 {
        while node.step() {}
        if node.queries() > 0 {
            node.answer(1);
        }
    }
    world.store.set_unavailable(true);
    world.settle();
    let told = world.take((0, conn));
    assert_eq!(told[0]["type"], "welcome", "{told:?}");
    let error = told.iter().find(|value| value["type"] == "error").unwrap();
    assert_eq!((&error["code"], &error["request"]), (&json!("unavailable"), &json!("join")));
    assert!(error["retry_ms"].is_u64() && error["room"] == json!(LOBBY));
    world.store.set_unavailable(false);
    let joined = world.ask((0, conn), json!({"type": "join", "room": LOBBY, "after": 100}));
    assert_eq!(seqs(&joined["events"])[0], 101);
}

#[test]
fn an_event_that_is_a_little_late_is_waited_for_and_a_lost_one_is_read() {
    let mut world = World::new();
    let a = world.join(1);
    let author = now(world.store.identify(
        NewSession::of([9; 32], 0),
        Some(Newcomer { id: UserId::from_bits(9), names: vec![claim("Other")] }),
    ))
    .user;
    let mut events = Vec::new();
    for text in ["one", "two", "three", "four"] {
        let kind = EventKind::message(Body::parse(text, 0).unwrap());
        let append = Append { room: LOBBY, author: author.clone(), at: 0, kind, reference: None };
        events.push(now(world.store.append(vec![append])).remove(0).unwrap().event);
    }
    world.take(a);
    let before = world.nodes[0].queries();
    let [one, two, three, four] = events.try_into().unwrap();
    let publish = |world: &mut World, event| {
        world.broker.publish(9, Topic::Room(LOBBY), Hint::Event(Arc::new(Logged::new(event))));
        world.settle();
    };
    publish(&mut world, two);
    assert_eq!(world.told(a, "event"), [Value::Null; 0]);
    publish(&mut world, one);
    assert_eq!(bodies(&world.told(a, "event")), ["one", "two"]);
    assert_eq!(world.nodes[0].queries(), before);
    publish(&mut world, four);
    world.pass(1_000);
    assert_eq!(bodies(&world.told(a, "event")), ["three", "four"]);
    assert_eq!(world.nodes[0].queries(), before + 1);
    publish(&mut world, three);
    assert_eq!(world.told(a, "event"), [Value::Null; 0]);
}

#[test]
fn an_announcement_reaches_everyone() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    let plain = (0, world.nodes[0].connect(Mode::Plain, [3; 32], true));
    world.settle();
    world.clear([a, b, plain]);
    world.nodes[0].announce("Tea is ready");
    world.settle();
    for at in [a, b] {
        assert_eq!(world.told(at, "announcement")[0]["text"], "Tea is ready");
    }
    assert_eq!(world.take(plain), [json!({"sender": "Magpie", "message": "Tea is ready"})]);
}

#[test]
fn a_crowd_is_counted_and_not_listed() {
    let mut world = World::new();
    let first = world.join(0);
    for person in 1..=CROWD as u8 {
        world.join(person);
    }
    world.pass(10_000);
    world.take(first);
    world.join(200);
    world.pass(4_000);
    let told = world.told(first, "presence");
    assert_eq!((told.len(), &told[0]["online"], &told[0]["people"]), (1, &json!(CROWD + 2), &json!([])));
    world.send(first, json!({"type": "typing", "room": LOBBY}));
    let members = world.ask(first, json!({"type": "members", "room": LOBBY}));
    assert_eq!(members["total"], json!(CROWD + 2));
    assert!(world.told(first, "typing").is_empty());
}

#[test]
fn people_of_two_nodes_see_and_hear_each_other() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    world.pass(1_000);
    let members = world.ask(a, json!({"type": "members", "room": LOBBY}));
    assert_eq!(members["online"], 2);
    world.take(b);
    world.say(a, LOBBY, "over there");
    assert_eq!(bodies(&world.told(b, "event")), ["over there"]);
}

/// A broker that loses, repeats and reorders most of its hints: rooms repair themselves from the store.
#[test]
fn whatever_the_broker_does_everyone_gets_every_message_once_in_order() {
    for seed in 0..30 {
        let chaos = Chaos { lose: 0.4, repeat: 0.3, delay: 0.4, delay_max: 8, own: true };
        let broker = Arc::new(ChaosBroker::new(seed, chaos));
        let mut world = World::with(2, UNLIMITED, broker.clone());
        let ats = [world.join_at(0, 1), world.join_at(1, 2), world.join_at(1, 3)];
        let mut heard: Vec<Vec<Value>> = ats.iter().map(|at| world.take(*at)).collect();
        for n in 0..60 {
            world.say(ats[n % 3], LOBBY, &format!("m{n}"));
            if n % 10 == 0 {
                world.pass(1_000);
            }
        }
        broker.settle();
        world.pass(10_000);
        for (at, heard) in ats.iter().zip(&mut heard) {
            heard.extend(world.take(*at));
            let events: Vec<&Value> = heard.iter().filter(|value| value["type"] == "event").collect();
            let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed}: {seqs:?}");
            let said: Vec<&str> = events.iter().filter_map(|event| event["body"].as_str()).collect();
            assert_eq!(said, (0..60).map(|n| format!("m{n}")).collect::<Vec<_>>(), "seed {seed}");
        }
        drop(world.broker);
    }
}

#[test]
fn what_was_written_without_an_answer_reaches_everybody() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.take(b);
    world.store.lose_answers(1);
    world.say(a, LOBBY, "hello");
    world.pass(6_000);
    assert_eq!(bodies(&world.told(b, "event")), ["hello"]);
}

#[test]
fn a_cursor_moves_for_all_also_when_its_connection_is_gone() {
    let mut world = World::new();
    let [a, also_a] = [world.join(1), world.join(1)];
    world.take(also_a);
    world.nodes[0].send(a.1, &json!({"type": "read", "room": LOBBY, "seq": 1}).to_string());
    while world.nodes[0].step() {}
    world.nodes[0].close(a.1);
    while world.nodes[0].step() {}
    world.settle();
    assert_eq!(world.told(also_a, "read").len(), 1);
}

#[test]
fn a_new_name_whose_hint_was_lost_is_known_to_the_next_connection() {
    let broker = Arc::new(ChaosBroker::new(1, Chaos { lose: 1.0, ..Chaos::default() }));
    let mut world = World::with(2, UNLIMITED, broker);
    let [at_one, _at_two] = [world.join_at(0, 1), world.join_at(1, 1)];
    world.send(at_one, json!({"type": "rename", "name": "Zoe"}));
    let conn = world.nodes[1].connect(Mode::Full, [1; 32], false);
    world.send((1, conn), json!({"type": "hello"}));
    assert_eq!(world.told((1, conn), "welcome")[0]["user"]["name"], "Zoe");
}

#[test]
fn an_unknown_envelope_of_the_server_does_not_decode_by_accident() {
    assert!(serde_json::from_str::<ServerEnvelope>(r#"{"type":"dance"}"#).is_err());
}
