//! What is said, who says it, and how much of it is taken.

use super::*;

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
fn an_unknown_envelope_of_the_server_does_not_decode_by_accident() {
    assert!(serde_json::from_str::<ServerEnvelope>(r#"{"type":"dance"}"#).is_err());
}
