//! Whoever comes back gets exactly what they lack.

use super::*;

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
