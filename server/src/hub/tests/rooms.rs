//! Rooms are made, entered and left, whatever happens meanwhile.

use super::*;

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
