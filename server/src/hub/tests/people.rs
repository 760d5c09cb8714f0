//! Cursors, names, presence and typing.

use super::*;

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
fn who_cannot_decide_whether_they_are_there_is_told_of_once_in_a_while() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.pass(1_000);
    let heard = Arc::new(std::sync::Mutex::new(0));
    let count = heard.clone();
    world.broker.attach(9, Arc::new(move |_, _| *count.lock().unwrap() += 1));
    world.broker.follow(9, Topic::Room(LOBBY));
    for n in 0..101 {
        let presence = if n % 2 == 0 { "away" } else { "online" };
        world.send(a, json!({"type": "presence", "presence": presence}));
    }
    assert_eq!(*heard.lock().unwrap(), 0);
    world.take(b);
    world.pass(1_000);
    assert_eq!(*heard.lock().unwrap(), 1);
    assert_eq!(world.told(b, "presence")[0]["people"][0]["presence"], "away");
}

#[test]
fn who_asks_for_the_name_they_have_is_answered() {
    let mut world = World::new();
    let a = world.join(1);
    for _ in 0..2 {
        world.take(a);
        world.send(a, json!({"type": "rename", "name": "Zoe"}));
        let renamed = world.told(a, "renamed");
        assert_eq!(renamed.iter().map(|told| &told["user"]["name"]).collect::<Vec<_>>(), ["Zoe"]);
    }
}
