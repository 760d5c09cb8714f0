//! How much one user may ask of a hub, on however many connections.

use super::*;

fn world(config: HubConfig) -> World {
    World::with(1, config, Arc::new(MemoryBroker::new()))
}

#[test]
fn connections_of_one_user_share_one_rate_and_others_do_not_feel_it() {
    let mut world = world(HubConfig { message_rate: 1, ..UNLIMITED });
    let [a, also_a, b] = [world.join(1), world.join(1), world.join(2)];
    world.clear([a, also_a, b]);
    let mut refused = 0;
    for n in 0..10 {
        let at = if n % 2 == 0 { a } else { also_a };
        world.say(at, LOBBY, "m");
        let told = world.take(at);
        let failure = told.iter().find(|value| value["code"] == "rate_limited");
        if let Some(failure) = failure {
            assert!(failure["retry_ms"].as_u64().unwrap() > 0 && failure["ref"].is_string());
            refused += 1;
        }
    }
    assert_eq!(refused, 7, "three are a burst");
    world.say(b, LOBBY, "unhurt");
    assert_eq!(world.told(b, "ack").len(), 1);
}

#[test]
fn entering_acting_and_looking_have_slower_rates_of_their_own() {
    let slow = HubConfig { entry_rate: 4, act_rate: 4, list_rate: 4, ..UNLIMITED };
    let questions: [fn(usize) -> Value; 4] = [
        |n| json!({"type": "create", "name": format!("room-{n}")}),
        |_| json!({"type": "join", "room": "nowhere"}),
        |_| json!({"type": "act", "act": "quiet", "room": LOBBY, "quiet": true}),
        |_| json!({"type": "list", "list": "sessions"}),
    ];
    for question in questions {
        let mut world = world(slow);
        let a = world.join(1);
        for n in 0..2 {
            assert_ne!(world.ask(a, question(n))["code"], "rate_limited");
        }
        let failure = world.ask(a, question(2));
        assert_eq!(failure["code"], "rate_limited");
        let name = question(2).get("act").unwrap_or(&question(2)["type"]).clone();
        assert_eq!(failure["request"], name);
        let retry_ms = failure["retry_ms"].as_i64().unwrap();
        assert!((14_000..=15_001).contains(&retry_ms), "{retry_ms}");
        // Talking goes on, and so does reading on in one's rooms.
        world.say(a, LOBBY, "hello");
        assert_eq!(world.told(a, "ack").len(), 1);
        assert_eq!(world.ask(a, json!({"type": "join", "room": LOBBY, "after": 0}))["type"], "joined");
        world.pass(retry_ms);
        assert_ne!(world.ask(a, question(3))["code"], "rate_limited");
    }
}

#[test]
fn typing_is_passed_on_once_a_second_for_a_user_not_for_a_connection() {
    let mut world = World::new();
    let [a, also_a, b] = [world.join(1), world.join(1), world.join(2)];
    world.take(b);
    for at in [a, also_a, a, also_a] {
        world.send(at, json!({"type": "typing", "room": LOBBY}));
    }
    assert_eq!(world.told(b, "typing").len(), 1);
}

#[test]
fn one_connection_too_many_of_a_user_is_told_so_and_closed() {
    let mut world = world(HubConfig { connections_per_user: 2, ..UNLIMITED });
    let [a, _also_a, b] = [world.join(1), world.join(1), world.join(2)];
    let third = world.hello([1; 32], true);
    let told = world.take(third);
    assert_eq!((&told[0]["code"], &told[0]["request"]), (&json!("too_many"), &json!("hello")));
    assert_eq!(told[1..], [closed(CloseCode::RateLimited)]);
    world.say(b, LOBBY, "hello");
    assert_eq!(world.take(third), [Value::Null; 0]);
    world.nodes[0].close(a.1);
    world.join(1);
}

#[test]
fn who_hammers_before_the_hello_is_closed_too() {
    let mut world = world(HubConfig { request_rate: 1, ..UNLIMITED });
    let conn = world.nodes[0].connect(Mode::Full, [1; 32], false);
    for n in 0..600 {
        world.nodes[0].send(conn, &json!({"type": "ping", "n": n}).to_string());
    }
    world.settle();
    assert!(world.take((0, conn)).contains(&closed(CloseCode::RateLimited)));
}
