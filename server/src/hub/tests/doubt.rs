//! Hubs that missed hints of any kind and are told so: in the end everybody knows what the store says.

use super::*;

/// The hub of the second node, which is cut off and comes back.
const SECOND: u32 = 2;

fn two_nodes() -> (World, Arc<ChaosBroker>) {
    let broker = Arc::new(ChaosBroker::new(1, Chaos::default()));
    (World::with(2, UNLIMITED, broker.clone()), broker)
}

impl World {
    /// A connection to the second node by a session of its own, which has just said hello.
    fn second_session(&mut self, person: u8) -> Conn {
        let at = START + self.now;
        let session = NewSession { until: at + DAY_MS, ..NewSession::of([101; 32], at) };
        now(self.store.sign_in(id(person), session, None));
        let conn = self.nodes[1].connect(Mode::Full, [101; 32], false);
        self.nodes[1].send(conn, r#"{"type":"hello"}"#);
        conn
    }

    /// What a connection would be welcomed with now, at any node.
    fn rooms_of(&mut self, person: u8) -> Vec<Value> {
        let conn = self.nodes[0].connect(Mode::Full, [person; 32], false);
        self.send((0, conn), json!({"type": "hello"}));
        let welcome = self.take((0, conn)).remove(0);
        self.nodes[0].close(conn);
        let mut rooms = welcome["rooms"].as_array().unwrap().clone();
        rooms.sort_by_key(|room| room["id"].to_string());
        rooms
    }
}

#[test]
fn what_happened_while_a_hub_was_cut_off_is_told_when_it_is_back() {
    let (mut world, broker) = two_nodes();
    let a = world.enrol(1, Role::Member);
    world.account(2);
    let [here, there] = [world.join_at(0, 2), world.join_at(1, 2)];
    let club = world.room(a, true, &[2]);
    let watcher = world.join_at(1, 3);
    world.pass(1_000);
    world.clear([here, there, watcher]);
    broker.cut(SECOND);
    world.say(a, LOBBY, "who is there?");
    let head = world.told(a, "ack")[0]["seq"].as_u64().unwrap();
    world.ask(here, json!({"type": "rename", "name": "Zoe"}));
    world.send(here, json!({"type": "read", "room": LOBBY, "seq": head}));
    world.act(here, json!({"act": "quiet", "room": LOBBY, "quiet": true}));
    world.act(here, json!({"act": "block", "user": id(1), "blocked": true}));
    let den = world.ask(here, json!({"type": "create", "name": "den", "private": true}))["room"].clone();
    world.act(a, json!({"act": "remove", "room": club, "user": id(2)}));
    let told = world.take(there);
    assert_eq!(told, [Value::Null; 0], "nothing gets through");
    broker.mend(SECOND);
    world.pass(2_000);
    let told = world.take(there);
    let of = |kind: &str| told.iter().filter(|value| value["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("renamed")[0]["user"]["name"], "Zoe");
    assert_eq!(of("me")[0]["blocked"], json!([id(1)]));
    assert_eq!(of("joined").iter().map(|joined| &joined["room"]).collect::<Vec<_>>(), [&den]);
    assert_eq!(of("left").iter().map(|left| &left["room"]).collect::<Vec<_>>(), [&json!(club)]);
    let lobby =
        of("room").into_iter().rfind(|room| room["info"]["id"] == json!(LOBBY)).unwrap()["info"].clone();
    assert_eq!((&lobby["read"], &lobby["quiet"]), (&json!(head), &json!(true)));
    // All of it is as a new connection would be told.
    let rooms = world.rooms_of(2);
    assert!(rooms.contains(&lobby), "{rooms:?} {lobby}");
    world.say(a, club, "among us");
    world.say(here, serde_json::from_value(den).unwrap(), "to myself");
    assert_eq!(bodies(&world.told(there, "event")), ["to myself"]);
    let people = world.ask(watcher, json!({"type": "members", "room": LOBBY}))["people"].clone();
    let names: Vec<&str> = people.as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"Zoe"), "{names:?}");
}

#[test]
fn a_session_that_was_ended_while_its_hub_was_cut_off_is_closed_when_it_is_back() {
    // Cut off before it came, and before the store answers, and in the middle, and when it was in.
    for step in 0..4 {
        let (mut world, broker) = two_nodes();
        world.enrol(1, Role::Member);
        let other = world.join_at(1, 2);
        let conn = world.second_session(1);
        for _ in 0..step {
            while world.nodes[1].step() {}
            world.nodes[1].answer(1);
        }
        broker.cut(SECOND);
        let ended = world.act_in_store(1, Act::EndSessions).ended.remove(0);
        world.broker.publish(1, Topic::All, Hint::Ended(ended));
        broker.mend(SECOND);
        world.pass(1_000);
        let told = world.take((1, conn));
        assert_eq!(told.last(), Some(&closed(CloseCode::Policy)), "{step}: {told:?}");
        world.say(other, LOBBY, "gone");
        world.pass(1_000);
        assert_eq!(world.take((1, conn)), [Value::Null; 0]);
        assert_eq!(bodies(&world.told(other, "event")), ["gone"], "others stay");
    }
}

#[test]
fn who_is_about_to_be_welcomed_when_hints_were_lost_is_told_what_is_true() {
    for (answered, ends) in [(0, false), (0, true), (1, false), (1, true)] {
        let (mut world, broker) = two_nodes();
        let a = world.enrol(1, Role::Member);
        let at = START + world.now;
        let session = NewSession { until: at + DAY_MS, ..NewSession::of([101; 32], at) };
        now(world.store.sign_in(id(1), session, None));
        let conn = world.nodes[1].connect(Mode::Full, [101; 32], false);
        world.nodes[1].send(conn, r#"{"type":"hello"}"#);
        while world.nodes[1].step() {}
        for _ in 0..answered {
            world.nodes[1].answer(1);
            while world.nodes[1].step() {}
        }
        broker.cut(SECOND);
        let rename = json!({"type": "rename", "name": "Zoe"}).to_string();
        world.nodes[a.0].send(a.1, &rename);
        world.nodes[a.0].settle();
        if ends {
            now(world.store.sign_out([101; 32], false));
        }
        broker.mend(SECOND);
        // The hub looks at everybody before the store has answered.
        for _ in 0..4 {
            world.now += 250;
            let time = world.now;
            world.nodes[1].tick(time);
            while world.nodes[1].step() {}
        }
        world.pass(1_000);
        let told = world.take((1, conn));
        if ends {
            assert_eq!(told.last(), Some(&closed(CloseCode::Policy)), "{answered}: {told:?}");
        } else {
            assert_eq!((&told[0]["type"], &told[0]["user"]["name"]), (&json!("welcome"), &json!("Zoe")));
        }
    }
}

#[test]
fn an_ended_session_is_found_although_nobody_can_say_so() {
    // The node at which it is ended is cut off and does not know; or the session's own, which does.
    for (cut, wait) in [(1, 31_000), (SECOND, 4_000)] {
        let (mut world, broker) = two_nodes();
        world.enrol(1, Role::Member);
        let there = (1, world.second_session(1));
        world.pass(32_000);
        world.take(there);
        broker.cut(cut);
        broker.notice(cut);
        let ended = world.act_in_store(1, Act::EndSessions).ended.remove(0);
        world.broker.publish(1, Topic::All, Hint::Ended(ended));
        assert_eq!(world.take(there), [Value::Null; 0]);
        world.pass(wait);
        assert_eq!(world.take(there).last(), Some(&closed(CloseCode::Policy)), "{cut}");
    }
}

#[test]
fn who_could_not_tell_what_others_miss_says_so_later() {
    let (mut world, broker) = two_nodes();
    world.enrol(1, Role::Member);
    let there = world.join_at(1, 1);
    // The first is cut off: the second hears nothing of it, and is not told that it is.
    broker.cut(1);
    let renamed = |world: &mut World| world.told(there, "renamed").len();
    world.send((0, 0), json!({"type": "rename", "name": "Zoe"}));
    world.pass(3_000);
    assert_eq!(renamed(&mut world), 0);
    broker.mend(1);
    world.pass(1_000);
    assert_eq!(renamed(&mut world), 1);
}

#[test]
fn everybody_is_read_again_a_few_at_a_time_and_doubts_are_not_added_up() {
    const USERS: u8 = 150;
    let (mut world, broker) = two_nodes();
    for person in 0..USERS {
        world.join_at(1, person);
    }
    world.pass(10_000);
    let tick = |world: &mut World| {
        world.now += 250;
        let now = world.now;
        world.nodes[1].tick(now);
        let before = world.nodes[1].queries();
        while world.nodes[1].step() {}
        world.nodes[1].queries() - before
    };
    (0..10).for_each(|_| broker.doubt());
    while world.nodes[1].step() {}
    // One for heads, one for the sessions.
    assert!(tick(&mut world) <= 8 + 2, "no answer has come yet");
    assert_eq!(tick(&mut world), 0);
    let reread = |world: &World| world.nodes[1].counts().users_reread;
    assert_eq!(reread(&world), 8);
    world.settle();
    assert_eq!(reread(&world), 108, "a hundred in one tick");
    world.pass(500);
    assert_eq!(reread(&world), u64::from(USERS));
    // What is doubted once it has begun is met by another look, once for all of them.
    (0..10).for_each(|_| broker.doubt());
    world.pass(1_000);
    assert_eq!(reread(&world), u64::from(USERS), "not at once");
    world.pass(10_000);
    assert_eq!((reread(&world), world.nodes[1].counts().doubts), (2 * u64::from(USERS), 20));
    world.pass(10_000);
    assert_eq!(reread(&world), 2 * u64::from(USERS));
}

#[test]
fn a_doubt_outlasts_an_outage_of_the_store() {
    let (mut world, broker) = two_nodes();
    world.enrol(1, Role::Member);
    let at = START + world.now;
    let session = NewSession { until: at + DAY_MS, ..NewSession::of([101; 32], at) };
    now(world.store.sign_in(id(1), session, None));
    let [there, ended] = [1, 101].map(|token| {
        let conn = world.nodes[1].connect(Mode::Full, [token; 32], false);
        world.send((1, conn), json!({"type": "hello"}));
        (1, conn)
    });
    broker.cut(SECOND);
    world.send((0, 0), json!({"type": "rename", "name": "Zoe"}));
    now(world.store.sign_out([101; 32], false));
    world.store.set_unavailable(true);
    broker.mend(SECOND);
    world.pass(20_000);
    assert_eq!(world.told(there, "renamed").len(), 0);
    world.store.set_unavailable(false);
    world.pass(6_000);
    assert_eq!(world.told(there, "renamed").len(), 1);
    assert_eq!(world.take(ended).last(), Some(&closed(CloseCode::Policy)));
}

#[test]
fn a_new_connection_tells_the_others_of_its_user_what_they_missed() {
    let (mut world, broker) = two_nodes();
    world.enrol(1, Role::Member);
    let there = world.join_at(1, 1);
    let club = world.room((0, 0), true, &[]);
    world.take(there);
    broker.cut(SECOND);
    let den = world.ask((0, 0), json!({"type": "create", "name": "den", "private": true}))["room"].clone();
    world.send((0, 0), json!({"type": "rename", "name": "Zoe"}));
    world.send((0, 0), json!({"type": "leave", "room": club}));
    world.join_at(1, 1);
    let told = world.take(there);
    assert_eq!(
        kinds(&told).into_iter().filter(|kind| *kind != "presence").collect::<Vec<_>>(),
        ["renamed", "left", "joined"]
    );
    assert_eq!((&told[1]["room"], &told[2]["room"]), (&json!(club), &den));
}

#[test]
fn an_event_that_is_too_large_to_be_told_is_read_at_once() {
    let (mut world, _) = two_nodes();
    let b = world.join_at(1, 2);
    let a = world.join_at(0, 1);
    world.take(b);
    let author = world.nodes[0].counts();
    assert_eq!(author.holes, 0);
    let stranger = now(world.store.identify(
        NewSession::of([9; 32], 0),
        Some(Newcomer { id: UserId::from_bits(9), names: vec![claim("Other")] }),
    ));
    let kind = EventKind::message(Body::parse("long", 0).unwrap());
    let append = Append { room: LOBBY, author: stranger.user, at: 0, kind, reference: None };
    let seq = now(world.store.append(vec![append])).remove(0).unwrap().event.seq;
    world.broker.publish(9, Topic::Room(LOBBY), Hint::Head { room: LOBBY, seq });
    world.settle();
    for at in [a, b] {
        assert_eq!(bodies(&world.told(at, "event")), ["long"], "without waiting for heads");
    }
    world.broker.publish(9, Topic::Room(LOBBY), Hint::Head { room: LOBBY, seq: seq - 1 });
    let queries = world.nodes[1].queries();
    world.settle();
    assert_eq!(world.nodes[1].queries(), queries, "known already");
}

#[test]
fn nothing_is_missed_between_the_read_of_an_account_and_the_first_hint_of_it() {
    // Heard of in time, and too late.
    for wait in [250, 2_000] {
        let (mut world, broker) = two_nodes();
        world.enrol(1, Role::Member);
        broker.hold_follows();
        let there = (1, world.nodes[1].connect(Mode::Full, [1; 32], false));
        world.send(there, json!({"type": "hello"}));
        assert_eq!(world.take(there), [Value::Null; 0], "the welcome waits");
        world.pass(wait);
        let is_in = world.take(there).iter().any(|told| told["type"] == "welcome");
        assert_eq!(is_in, wait > 1_000, "not for ever");
        let room = world.ask((0, 0), json!({"type": "create", "name": "den"}))["room"].clone();
        broker.release_follows();
        world.pass(1_000);
        let told = world.take(there);
        let is_of = |told: &&Value| match told["type"].as_str() {
            Some("joined") => told["room"] == room,
            Some("welcome") => told["rooms"].as_array().unwrap().iter().any(|info| info["id"] == room),
            _ => false,
        };
        assert_eq!(told.iter().filter(is_of).count(), 1, "{told:?}");
        // One more of theirs waits for nothing.
        broker.hold_follows();
        world.join_at(1, 1);
    }
}

#[test]
fn who_goes_while_they_wait_is_forgotten() {
    let (mut world, broker) = two_nodes();
    world.enrol(1, Role::Member);
    broker.hold_follows();
    let conn = world.nodes[1].connect(Mode::Full, [1; 32], false);
    world.send((1, conn), json!({"type": "hello"}));
    world.nodes[1].close(conn);
    world.settle();
    broker.release_follows();
    world.pass(20_000);
    assert_eq!((world.nodes[1].counts().users, world.nodes[1].counts().asked), (0, 0));
}

#[test]
fn what_a_dead_node_told_nobody_is_found_when_it_is_given_up() {
    let (mut world, broker) = two_nodes();
    let a = world.enrol(1, Role::Member);
    world.account(2);
    let there = world.join_at(1, 2);
    let club = world.room(a, true, &[2]);
    world.pass(6_000);
    world.take(there);
    // It removes somebody and renames them, and dies before it can say so.
    broker.cut(1);
    world.act(a, json!({"act": "remove", "room": club, "user": id(2)}));
    now(world.store.rename(id(2), claim("Zoe"), false, START + world.now));
    world.nodes.remove(0);
    world.now += 1;
    let mut told = Vec::new();
    for _ in 0..140 {
        world.now += 250;
        let now = world.now;
        world.nodes[0].tick(now);
        world.settle();
        told.extend(world.take((0, there.1)));
    }
    let of = |kind: &str| told.iter().filter(|value| value["type"] == kind).count();
    assert_eq!((of("renamed"), of("left")), (1, 1), "{told:?}");
}

#[test]
fn a_late_name_is_put_right_at_once() {
    let (mut world, _broker) = two_nodes();
    world.account(1);
    let there = world.join_at(1, 1);
    let old = now(world.store.account(id(1))).user;
    world.ask(there, json!({"type": "rename", "name": "Zoe"}));
    world.pass(1_000);
    world.take(there);
    world.broker.publish(7, Topic::User(id(1)), Hint::Renamed { user: old });
    world.settle();
    assert_eq!(world.told(there, "renamed").last().unwrap()["user"]["name"], "Zoe");
    let people = world.ask(there, json!({"type": "members", "room": LOBBY}))["people"].clone();
    assert_eq!(people[0]["name"], "Zoe");
}

#[test]
fn a_node_that_did_not_run_for_a_while_gives_nobody_up() {
    let (mut world, _broker) = two_nodes();
    let here = world.join_at(0, 1);
    world.join_at(1, 2);
    world.pass(6_000);
    world.take(here);
    // The other one ran all the time; what it said waits.
    for _ in 0..240 {
        world.now += 250;
        let now = world.now;
        world.nodes[1].tick(now);
        while world.nodes[1].step() {}
    }
    world.pass(10_000);
    assert_eq!(world.nodes[0].counts().peers_lost, 0);
    assert_eq!(world.told(here, "presence"), [Value::Null; 0]);
}

#[test]
fn a_hub_without_a_broker_on_a_shared_store_looks_by_itself_and_lets_nobody_wait() {
    let config = HubConfig { shared_store: true, ..UNLIMITED };
    let mut world = World::with(1, config, Arc::new(MemoryBroker::new()));
    world.account(1);
    let here = world.join(1);
    let session = NewSession { until: START + DAY_MS, ..NewSession::of([101; 32], START) };
    now(world.store.sign_in(id(1), session, None));
    let conn = world.nodes[0].connect(Mode::Full, [101; 32], false);
    world.send((0, conn), json!({"type": "hello"}));
    assert_eq!(world.take((0, conn))[0]["type"], "welcome", "at once");
    // At another node, whose hints do not come.
    world.act_in_store(1, Act::EndSessions);
    now(world.store.rename(id(1), claim("Zoe"), false, START));
    world.pass(4_000);
    assert_eq!(world.take((0, conn)).last(), Some(&closed(CloseCode::Policy)));
    world.pass(31_000);
    assert_eq!(world.told(here, "renamed").len(), 1);
}
