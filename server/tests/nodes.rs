//! Several nodes on one PostgreSQL database and one Redis, from outside: people who are at different nodes, and
//! what they see while a part is gone.
//!
//! POSTGRES_BIN and REDIS_SERVER name the programs; without them these tests say so and return.

mod people;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis;
mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use people::posts::receiver;
use people::{act, owner, post, sign_up};
use postgres::Server;
use redis::Redis;
use serde_json::{Value, json};
use support::{Got, LOBBY, Magpie, Request, Socket, WAIT, reference, send, until};

/// How long a sender may wait for a refusal when the store is gone: 5 s, and as many for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// How long the people of a dead node may be shown as there: 30 s, and as many for a busy machine.
const OFFLINE_WITHIN: Duration = Duration::from_secs(60);

/// What nodes share.
struct Ground {
    postgres: Server,
    redis: Redis,
    database: String,
}

impl Ground {
    fn new() -> Option<Self> {
        let redis = Redis::start()?;
        let postgres = Server::start(&postgres::programs()?);
        let database = postgres.database();
        Some(Self { postgres, redis, database })
    }

    /// A node that hears the others.
    fn node(&self) -> Magpie {
        let redis = self.redis.url();
        let flags = ["--database", &self.database, "--broker", &redis, "--allow-private-hooks"];
        let node = Magpie::start(&flags);
        until("the node is ready", || (readiness(&node).0 == 200).then_some(()));
        node
    }
}

fn readiness(node: &Magpie) -> (u16, String) {
    let response = Request::new(node, "GET", "/readyz").send(node);
    (response.status, response.text())
}

fn say(socket: &mut Socket, number: u64, body: &str) -> Value {
    let reference = reference(7, 7, number);
    socket.json(&send(&reference, body));
    socket.find(|value| value["ref"] == reference && matches!(value["type"].as_str(), Some("ack" | "error")))
}

fn hear(socket: &mut Socket, body: &str) -> Value {
    socket.find(|value| value["type"] == "event" && value["body"] == body)
}

#[test]
fn people_at_two_nodes_are_together() {
    let Some(ground) = Ground::new() else { return };
    let (one, two) = (ground.node(), ground.node());
    let (ada_cookie, ada_is) = sign_up(&one, "Ada");
    let (bob_cookie, bob_is) = sign_up(&two, "Bob");
    let (mut ada, _) = Socket::full(&one, Some(&ada_cookie));
    let (mut bob, _) = Socket::full(&two, Some(&bob_cookie));
    // Who was there first sees the other come.
    ada.find(|value| {
        let people = value["people"].as_array().filter(|_| value["type"] == "presence");
        let is_bob = |person: &Value| person["id"] == bob_is["user"]["id"] && person["presence"] == "online";
        people.is_some_and(|people| people.iter().any(is_bob))
    });

    // What is said at one is heard at the other, once, whoever repeats it where.
    let first = say(&mut ada, 1, "hello over there");
    assert_eq!(hear(&mut bob, "hello over there")["seq"], first["seq"]);
    let (mut ada_too, _) = Socket::full(&two, Some(&ada_cookie));
    assert_eq!(say(&mut ada_too, 1, "hello over there")["seq"], first["seq"]);
    say(&mut bob, 2, "and back");
    let events = bob.read_room(LOBBY, 0);
    let said = events.iter().filter(|event| event["body"] == "hello over there").count();
    assert_eq!(said, 1, "{events:?}");
    assert_eq!(hear(&mut ada, "and back")["user"]["name"], "Bob");

    // A private room appears where its new member is, and goes with their removal.
    ada.json(&json!({"type": "create", "name": "den", "private": true}));
    let den = ada.expect("joined")["room"].clone();
    act(&mut ada, json!({"act": "invite", "room": den, "user": bob_is["user"]["id"]}));
    bob.find(|value| value["type"] == "joined" && value["room"] == den);
    act(&mut ada, json!({"act": "remove", "room": den, "user": bob_is["user"]["id"]}));
    bob.find(|value| value["type"] == "left" && value["room"] == den);

    // Who signs out everywhere at one node has no socket at the other.
    let answer = post(&one, "/api/sign-out", Some(&ada_cookie), &json!({"everywhere": true}));
    assert_eq!(answer.status, 204, "{answer:?} {ada_is}");
    assert_eq!(ada_too.closed(), Some(1008));
    assert_eq!(ada.closed(), Some(1008));
}

#[test]
fn the_people_of_a_node_that_is_killed_go_offline_and_nobody_else_does() {
    let Some(ground) = Ground::new() else { return };
    let [one, two, three] = [ground.node(), ground.node(), ground.node()];
    let (mut ada, _) = Socket::full(&one, None);
    let (_bob, bob_is) = Socket::full(&two, None);
    let (_cy, cy_is) = Socket::full(&three, None);
    let mut online: HashSet<String> = HashSet::new();
    let mut gone = Vec::new();
    // Whoever hears nothing for a while asks, so that there is always something to hear.
    let mut hear = |online: &mut HashSet<String>, is_so: &dyn Fn(&HashSet<String>) -> bool| {
        let begin = Instant::now();
        while !is_so(online) {
            assert!(begin.elapsed() < OFFLINE_WITHIN, "{online:?}");
            if let Got::Frame(frame) = ada.next(Duration::from_secs(1)) {
                let told: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                for person in
                    told["people"].as_array().filter(|_| told["type"] == "presence").into_iter().flatten()
                {
                    let id = person["id"].as_str().unwrap().to_owned();
                    if person["presence"] == "offline" {
                        gone.push(id.clone());
                        online.remove(&id);
                    } else {
                        online.insert(id);
                    }
                }
            }
        }
    };
    let [bob, cy] = [&bob_is, &cy_is].map(|welcome| welcome["user"]["id"].as_str().unwrap().to_owned());
    hear(&mut online, &|online| online.contains(&bob) && online.contains(&cy));
    two.kill();
    hear(&mut online, &|online| !online.contains(&bob));
    assert_eq!(gone, [bob]);
    assert!(online.contains(&cy));
}

#[test]
fn one_node_of_two_posts_to_webhooks() {
    let Some(ground) = Ground::new() else { return };
    let (one, two) = (ground.node(), ground.node());
    let (_, _, mut olga) = owner(&one);
    let (port, posts) = receiver(&[204]);
    let url = format!("http://127.0.0.1:{port}/hook");
    act(&mut olga, json!({"act": "make_outgoing_hook", "room": LOBBY, "text": "mirror", "url": url}));
    let (mut bob, _) = Socket::full(&two, None);
    let mut heard = Vec::new();
    for number in 1..=20 {
        let body = format!("message {number}");
        say(if number % 2 == 0 { &mut olga } else { &mut bob }, number, &body);
        // In order, and what comes twice would come before the next.
        heard.push(posts.recv_timeout(WAIT).expect("a post").json()["body"].clone());
    }
    let said: Vec<Value> = (1..=20).map(|number| json!(format!("message {number}"))).collect();
    assert_eq!(heard, said);
}

#[test]
fn without_the_broker_messages_come_all_the_same_and_readiness_says_so() {
    let Some(mut ground) = Ground::new() else { return };
    let (one, two) = (ground.node(), ground.node());
    let (mut ada, _) = Socket::full(&one, None);
    let (mut bob, _) = Socket::full(&two, None);
    ground.redis.kill();
    let (_, text) = until("the broker is missed", || Some(readiness(&one)).filter(|ready| ready.0 == 503));
    assert!(text.contains("broker: out of reach"), "{text}");
    let excluded = Request::new(&one, "GET", "/readyz?exclude=broker").send(&one);
    assert_eq!(excluded.status, 200);
    for number in 1..=3 {
        let body = format!("without {number}");
        assert_eq!(say(&mut ada, number, &body)["type"], "ack");
        hear(&mut bob, &body);
    }
    ground.redis.run();
    until("both are well again", || (readiness(&one).0 == 200 && readiness(&two).0 == 200).then_some(()));
    say(&mut bob, 9, "with it again");
    hear(&mut ada, "with it again");
}

#[test]
fn without_the_database_sends_are_refused_soon_sockets_stay_and_all_is_well_again_by_itself() {
    let Some(mut ground) = Ground::new() else { return };
    let node = ground.node();
    let (mut ada, _) = Socket::full(&node, None);
    say(&mut ada, 1, "before");
    for (round, signal) in ["STOP", "KILL"].into_iter().enumerate() {
        ground.postgres.signal(signal);
        let number = 10 * (round as u64 + 1);
        let asked = Instant::now();
        let refused = say(&mut ada, number, "not now");
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!("unavailable")),
            "{signal}"
        );
        assert!(refused["retry_ms"].is_u64(), "{refused}");
        assert!(asked.elapsed() < REFUSED_WITHIN, "{signal}: {:?}", asked.elapsed());
        // The last answer serves for a moment.
        let (_, text) = until("it is not ready", || Some(readiness(&node)).filter(|ready| ready.0 == 503));
        assert!(text.contains("store: "), "{text}");
        ada.json(&json!({"type": "ping", "n": number}));
        ada.expect("pong");

        match signal {
            "STOP" => ground.postgres.signal("CONT"),
            _ => ground.postgres.restart(),
        }
        // As a client does: the same again, until it is taken. It is there once.
        let ack = until("sends are taken again", || {
            Some(say(&mut ada, number, "not now")).filter(|answer| answer["type"] == "ack")
        });
        let events = ada.read_room(LOBBY, 0);
        let there = events.iter().filter(|event| event["ref"] == reference(7, 7, number)).count();
        assert_eq!((there, &ack["type"]), (1, &json!("ack")), "{signal}: {events:?}");
        until("it is ready", || (readiness(&node).0 == 200).then_some(()));
    }
    assert!(matches!(ada.next(Duration::from_millis(1)), Got::Nothing | Got::Frame(_)));
}
