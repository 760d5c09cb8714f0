//! Several hubs, and brokers that lose hints.

use super::*;

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
fn who_is_taken_out_unheard_gets_all_that_was_said_before_and_nothing_after() {
    let chaos = Chaos { lose: 1.0, ..Chaos::default() };
    let mut world = World::with(2, UNLIMITED, Arc::new(ChaosBroker::new(7, chaos)));
    let a = world.enrol(1, Role::Member);
    world.account(2);
    let room = world.room(a, true, &[2]);
    let b = world.join_at(1, 2);
    world.say(a, room, "before");
    world.act(a, json!({"act": "remove", "room": room, "user": id(2)}));
    world.say(a, room, "after");
    // The other node has not heard of it yet.
    let page = world.ask(b, json!({"type": "history", "room": room, "before": 1_000}));
    assert_eq!(
        (page["type"].as_str(), bodies(page["events"].as_array().unwrap())),
        (Some("history"), vec![])
    );
    world.pass(4_000);
    let told = world.take(b);
    let is_of_log = |value: &&Value| value["room"] == json!(room) && value["type"] != "presence";
    let events: Vec<&Value> = told.iter().filter(is_of_log).collect();
    let kinds: Vec<&str> =
        events.iter().map(|value| value["kind"].as_str().or(value["type"].as_str()).unwrap()).collect();
    assert_eq!(kinds, ["message", "removed", "left"]);
    assert_eq!(events[0]["body"], "before");
}
