//! What people do beside talking, and who is told.

use super::*;

#[test]
fn who_is_put_into_a_room_gets_it_on_every_device_and_who_is_taken_out_hears_nothing_more() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let a = world.enrol(1, Role::Member);
    let b = world.enrol(2, Role::Member);
    let also_b = world.join_at(1, 2);
    world.clear([a, b, also_b]);
    let room = world.room(a, true, &[2]);
    for at in [b, also_b] {
        let told = world.told(at, "joined");
        assert_eq!((told.len(), &told[0]["info"]["kind"]), (1, &json!("private")));
    }
    world.say(a, room, "welcome");
    assert_eq!(bodies(&world.take(b)), ["welcome"]);
    world.clear([a, also_b, also_b]);
    // Said at once behind it, before any hub has heard of the removal.
    let remove = json!({"type": "act", "act": "remove", "room": room, "user": id(2)});
    world.nodes[0].send(a.1, &remove.to_string());
    let reference = Ref::new(9, [9; 10]);
    let send = ClientEnvelope::Send { room, reference, body: "they are gone".into() };
    world.nodes[0].send(a.1, &encode(&send));
    world.settle();
    for at in [b, also_b] {
        assert_eq!(kinds(&world.take(at)), ["removed", "left"]);
    }
    assert_eq!(bodies(&world.take(a)), ["they are gone"]);
    world.pass(10_000);
    for at in [b, also_b] {
        assert!(world.take(at).iter().all(|value| value["room"] != json!(room)));
        let answer = world.ask(at, json!({"type": "history", "room": room, "before": 9}));
        assert_eq!(answer["code"], "not_found");
    }
}

#[test]
fn who_is_out_by_an_event_hears_nothing_behind_it_before_any_other_hint() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let b = world.enrol(2, Role::Member);
    let also_b = world.join(2);
    let room = world.room(a, true, &[2]);
    let mut events = world.act_in_store(1, Act::Remove { room, user: id(2) }).events;
    let kind = EventKind::message(Body::parse("they are gone", 0).unwrap());
    let author = events[0].user.clone();
    let append = Append { room, author, at: START, kind, reference: None };
    events.push(now(world.store.append(vec![append])).remove(0).unwrap().event);
    world.clear([a, b, also_b]);
    // The later one first: both are then delivered in one step.
    for event in events.into_iter().rev() {
        world.broker.publish(9, Topic::Room(room), Hint::Event(Arc::new(Logged::new(event))));
    }
    world.settle();
    for at in [b, also_b] {
        assert_eq!(kinds(&world.take(at)), ["removed", "left"]);
    }
    assert_eq!(kinds(&world.take(a)), ["removed", "message"]);
    let answer = world.ask(b, json!({"type": "members", "room": room}));
    assert_eq!(answer["code"], "not_found");
}

#[test]
fn who_comes_back_is_in_again_although_their_leaving_is_heard_late() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let b = world.enrol(2, Role::Member);
    let room = world.room(a, false, &[2]);
    // They left and came back by way of another hub, of which this one hears by the events alone.
    let left = now(world.store.leave(room, id(2), START)).unwrap();
    let key = crate::store::RoomKey { id: Some(room), skeleton: None };
    let back = now(world.store.join(key, id(2), 0, START));
    for event in std::iter::once(left).chain(back.events) {
        world.broker.publish(9, Topic::Room(room), Hint::Event(Arc::new(Logged::new(event))));
    }
    world.settle();
    world.take(b);
    world.say(a, room, "welcome back");
    assert_eq!(bodies(&world.take(b)), ["welcome back"]);
}

#[test]
fn a_room_that_is_deleted_is_gone_for_all_hubs() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let a = world.enrol(1, Role::Member);
    world.enrol(2, Role::Member);
    let b = world.join_at(1, 2);
    let room = world.room(a, false, &[2]);
    world.say(a, room, "secret");
    world.clear([a, b, b]);
    let done = world.ask(a, json!({"type": "act", "act": "delete_room", "room": room}));
    assert_eq!(done, json!({"type": "done", "act": "delete_room", "room": room}));
    assert_eq!(world.told(b, "left").len(), 1);
    for at in [a, b] {
        let join = world.ask(at, json!({"type": "join", "room": room}));
        let nowhere = world.ask(at, json!({"type": "join", "room": RoomId::from_bits(77)}));
        assert_eq!((&join["code"], &join), (&json!("not_found"), &nowhere));
    }
    let before = [world.nodes[0].queries(), world.nodes[1].queries()];
    world.pass(70_000);
    let asked = [world.nodes[0].queries() - before[0], world.nodes[1].queries() - before[1]];
    assert!(asked.iter().all(|asked| *asked <= 3), "nobody reads it again: {asked:?}");
}

#[test]
fn a_room_that_was_deleted_unheard_is_left_when_heads_are_compared() {
    let broker = Arc::new(ChaosBroker::new(1, Chaos { lose: 1.0, own: true, ..Chaos::default() }));
    let mut world = World::with(1, UNLIMITED, broker.clone());
    let a = world.enrol(1, Role::Member);
    broker.set_chaos(Chaos::default());
    let room = world.room(a, false, &[]);
    broker.set_chaos(Chaos { lose: 1.0, own: true, ..Chaos::default() });
    world.act(a, json!({"act": "delete_room", "room": room}));
    assert_eq!(world.told(a, "left").len(), 0, "the hint was lost");
    world.pass(4_000);
    assert_eq!(world.told(a, "left"), [json!({"type": "left", "room": room})]);
}

#[test]
fn a_message_that_was_deleted_is_in_no_page_and_no_resume() {
    let mut world = World::new();
    let [a, b] = [world.join(1), world.join(2)];
    world.say(a, LOBBY, "before");
    world.say(a, LOBBY, "secret");
    let seq = world.told(a, "ack")[1]["seq"].as_u64().unwrap();
    let resume = json!({"type": "hello", "resume": [{"room": LOBBY, "epoch": 1, "seq": seq - 1}]});
    let resumed = |world: &mut World| {
        let conn = world.nodes[0].connect(Mode::Full, [3; 32], false);
        world.send((0, conn), resume.clone());
        world.told((0, conn), "joined").remove(0)["events"].clone()
    };
    assert_eq!(bodies(resumed(&mut world).as_array().unwrap()), ["secret"], "and the answer is kept");
    world.take(b);
    world.act(a, json!({"act": "delete", "room": LOBBY, "seq": seq}));
    let told = world.told(b, "event");
    let told = told.iter().find(|event| event["kind"] == "deletion").unwrap();
    assert_eq!(told["of"], json!(seq));
    for events in [
        resumed(&mut world),
        world.ask(b, json!({"type": "join", "room": LOBBY, "after": seq - 1}))["events"].clone(),
        world.ask(b, json!({"type": "history", "room": LOBBY, "before": seq + 1}))["events"].clone(),
    ] {
        let events = events.as_array().unwrap();
        let deleted = events.iter().find(|event| event["seq"] == json!(seq)).unwrap();
        assert_eq!(deleted["kind"], "deleted");
        assert!(!bodies(events).contains(&"secret"));
    }
    let stored = now(world.store.events_after(LOBBY, seq - 1, 1)).events.remove(0);
    let shown = world.ask(b, json!({"type": "join", "room": LOBBY, "after": seq - 1}))["events"][0].clone();
    assert_eq!(serde_json::to_value(&stored).unwrap(), shown, "what is in memory is what the store has");
}

#[test]
fn what_is_done_to_a_room_is_told_to_those_in_it() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let b = world.enrol(2, Role::Member);
    let room = world.room(a, false, &[2]);
    for (act, kind) in [
        (json!({"act": "topic", "room": room, "text": "Dune"}), "topic"),
        (json!({"act": "rename_room", "room": room, "name": "Reading Club"}), "room_renamed"),
        (json!({"act": "slow_mode", "room": room, "seconds": 30}), "slow_mode"),
        (json!({"act": "mute", "room": room, "user": id(2), "seconds": 60}), "muted"),
        (json!({"act": "archive", "room": room, "archived": true}), "archived"),
        (json!({"act": "archive", "room": room, "archived": false}), "archived"),
        (json!({"act": "transfer", "room": room, "user": id(2)}), "transferred"),
    ] {
        world.take(b);
        let done = world.act(a, act.clone());
        assert_eq!((&done["act"], &done["room"]), (&act["act"], &json!(room)));
        assert_eq!(kinds(&world.take(b)), [kind], "{act}");
    }
    let again = world.ask(a, json!({"type": "act", "act": "slow_mode", "room": room, "seconds": 0}));
    assert_eq!((&again["code"], &again["request"]), (&json!("forbidden"), &json!("slow_mode")));
    let conn = world.join(2);
    let info = world.ask(conn, json!({"type": "join", "room": room}))["info"].clone();
    assert_eq!((&info["topic"], &info["name"]), (&json!("Dune"), &json!("reading-club")));
}

#[test]
fn who_is_muted_or_too_fast_is_told_how_long() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let b = world.enrol(2, Role::Member);
    let room = world.room(a, false, &[2]);
    world.act(a, json!({"act": "slow_mode", "room": room, "seconds": 30}));
    world.say(b, room, "one");
    world.pass(10_000);
    world.take(b);
    world.say(b, room, "two");
    let refused = world.told(b, "error").remove(0);
    assert_eq!((&refused["code"], &refused["retry_ms"]), (&json!("slow_mode"), &json!(20_000)));
    world.act(a, json!({"act": "mute", "room": room, "user": id(2), "seconds": 60}));
    world.pass(1_000);
    world.take(b);
    world.say(b, room, "three");
    let refused = world.told(b, "error").remove(0);
    assert_eq!((&refused["code"], &refused["retry_ms"]), (&json!("muted"), &json!(59_000)));
    world.act(a, json!({"act": "archive", "room": room, "archived": true}));
    world.say(a, room, "four");
    assert_eq!(world.told(a, "error")[0]["code"], "archived");
}

#[test]
fn what_an_act_cannot_hold_costs_the_store_nothing() {
    let mut world = World::new();
    let a = world.join(1);
    let before = world.nodes[0].queries();
    for (act, code) in [
        (json!({"act": "rename_room", "room": LOBBY, "name": "a/b"}), "name_invalid"),
        (json!({"act": "slow_mode", "room": LOBBY, "seconds": 999_999}), "bad_field"),
        (json!({"act": "make_bot", "name": "x\u{202e}y"}), "name_invalid"),
        (json!({"act": "make_outgoing_hook", "room": LOBBY, "text": "", "url": "file:///etc"}), "bad_field"),
        (json!({"act": "ban", "text": "", "seconds": 0}), "bad_field"),
        (json!({"act": "end_session", "id": "x".repeat(100)}), "bad_field"),
    ] {
        let mut request = act.clone();
        request["type"] = "act".into();
        let failure = world.ask(a, request);
        assert_eq!((&failure["code"], &failure["request"]), (&json!(code), &act["act"]), "{act}");
    }
    for (request, code) in [
        (json!({"type": "act", "act": "dance"}), "bad_field"),
        (json!({"type": "list", "list": "hooks"}), "bad_field"),
        (json!({"type": "list", "list": "secrets"}), "bad_field"),
        (json!({"type": "list", "list": "audit", "before": "x".repeat(100)}), "bad_field"),
        (json!({"type": "group", "users": []}), "bad_field"),
        (json!({"type": "group", "users": [id(2), id(2)]}), "bad_field"),
        (json!({"type": "group", "users": (10..19).map(id).collect::<Vec<_>>()}), "too_many"),
    ] {
        assert_eq!(world.ask(a, request.clone())["code"], code, "{request}");
    }
    assert_eq!(world.nodes[0].queries(), before);
}

#[test]
fn a_secret_is_told_once_and_opens_what_it_is_for() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Owner);
    let b = world.join(2);
    let room = world.room(a, false, &[]);
    let bot = world.act(a, json!({"act": "make_bot", "name": "Tea bot"}))["user"]["id"].clone();
    let mut seen = std::collections::BTreeSet::new();
    for act in [
        json!({"act": "make_token", "bot": bot, "text": "t", "scopes": ["read"], "seconds": 0}),
        json!({"act": "make_incoming_hook", "room": room, "text": "in"}),
        json!({"act": "make_outgoing_hook", "room": room, "text": "out", "url": "https://a.example/"}),
        json!({"act": "make_invite", "text": "", "uses": 1, "seconds": 60}),
    ] {
        let secret = world.act(a, act.clone())["secret"].as_str().unwrap().to_owned();
        let parsed = crate::secrets::Secret::parse(&secret).unwrap();
        let at = START + world.now;
        match act["act"].as_str().unwrap() {
            "make_outgoing_hook" => {
                assert_eq!(now(world.store.outgoing_hooks())[0].secret, parsed.key());
            }
            "make_invite" => {
                assert_eq!(now(world.store.link(parsed.hash(), at)), crate::store::Link::Invite);
            }
            _ => {
                let identity = now(world.store.identify(NewSession::of(parsed.hash(), at), None));
                assert!(identity.scopes.is_some());
            }
        }
        assert!(seen.insert(secret));
    }
    let done = world.act(a, json!({"act": "topic", "room": room, "text": "x"}));
    assert!(done.get("secret").is_none());
    assert!(world.take(b).iter().all(|told| told.get("secret").is_none()));
}

#[test]
fn an_unread_mark_holds_against_a_device_that_has_not_heard_of_it() {
    let mut world = World::new();
    let [a, b, also_b] = [world.join(1), world.join(2), world.join(2)];
    for n in 0..3 {
        world.say(a, LOBBY, &format!("m{n}"));
    }
    let last = world.told(b, "event").last().unwrap()["seq"].as_u64().unwrap();
    world.send(b, json!({"type": "read", "room": LOBBY, "seq": last}));
    world.take(also_b);
    world.act(b, json!({"act": "unread", "room": LOBBY, "seq": last - 1}));
    let read = &world.told(also_b, "read")[0];
    assert_eq!((&read["seq"], &read["version"]), (&json!(last - 2), &json!(1)));
    assert_eq!(read["unread"], 2);
    world.send(also_b, json!({"type": "read", "room": LOBBY, "seq": last, "version": 0}));
    assert_eq!(world.told(also_b, "read")[0]["seq"], json!(last - 2));
    world.send(also_b, json!({"type": "read", "room": LOBBY, "seq": last, "version": 1}));
    assert_eq!(world.told(b, "read").last().unwrap()["seq"], json!(last));
}

#[test]
fn who_blocks_somebody_is_told_on_every_device_and_counts_them_no_more() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let also_a = world.join(1);
    let b = world.enrol(2, Role::Member);
    world.say(b, LOBBY, "look at me");
    world.clear([a, also_a, b]);
    world.send(a, json!({"type": "act", "act": "block", "user": id(2), "blocked": true}));
    for at in [a, also_a] {
        let told = world.take(at);
        let me = told.iter().find(|value| value["type"] == "me").unwrap();
        assert_eq!(me, &json!({"type": "me", "role": "member", "blocked": [id(2)]}));
        let room = told.iter().rfind(|value| value["type"] == "room").unwrap();
        assert_eq!(room["info"]["unread"], 0);
    }
    assert!(world.take(b).iter().all(|told| told["type"] != "me"), "the blocked do not know");
    // A new connection counts what it was told, and what this hub has delivered since, by the same rules.
    let conn = world.nodes[0].connect(Mode::Full, [1; 32], false);
    world.nodes[0].send(conn, r#"{"type":"hello"}"#);
    while world.nodes[0].step() {}
    world.nodes[0].answer(usize::MAX);
    while world.nodes[0].step() {}
    world.say(b, LOBBY, "and at me");
    let welcome = world.take((0, conn)).remove(0);
    assert_eq!((&welcome["rooms"][0]["unread"], &welcome["blocked"]), (&json!(0), &json!([id(2)])));
    assert_eq!(world.ask(b, json!({"type": "direct", "user": id(1)}))["code"], "blocked");
}

#[test]
fn a_new_role_and_a_quiet_room_are_told_to_ones_own_devices() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Owner);
    let b = world.enrol(2, Role::Member);
    let also_b = world.join(2);
    world.act(a, json!({"act": "set_role", "user": id(2), "role": "moderator"}));
    for at in [b, also_b] {
        assert_eq!(world.told(at, "me"), [json!({"type": "me", "role": "moderator", "blocked": []})]);
    }
    assert_eq!(world.told(a, "me"), [Value::Null; 0]);
    world.act(b, json!({"act": "quiet", "room": LOBBY, "quiet": true}));
    let told = world.told(also_b, "room");
    assert_eq!((told.len(), &told[0]["info"]["quiet"]), (1, &json!(true)));
    assert_eq!(world.ask(b, json!({"type": "list", "list": "audit"}))["code"], "forbidden");
    let audit = world.ask(a, json!({"type": "list", "list": "audit"}));
    assert_eq!((&audit["list"], &audit["rows"][0]["kind"]), (&json!("audit"), &json!("set_role")));
}

#[test]
fn what_could_not_be_read_again_is_read_when_the_store_is_back() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Owner);
    let b = world.enrol(2, Role::Member);
    world.take(b);
    world.nodes[0].send(
        a.1,
        &json!({"type": "act", "act": "set_role", "user": id(2), "role": "moderator"}).to_string(),
    );
    while world.nodes[0].step() {}
    world.store.set_unavailable(true);
    world.settle();
    assert_eq!(world.told(b, "me"), [Value::Null; 0]);
    world.store.set_unavailable(false);
    world.pass(4_000);
    assert_eq!(world.told(b, "me")[0]["role"], "moderator");
}

#[test]
fn a_group_is_opened_for_all_of_it() {
    let mut world = World::new();
    let [a, b, c] = [1, 2, 3].map(|person| world.enrol(person, Role::Member));
    world.clear([a, b, c]);
    let opened = world.ask(a, json!({"type": "group", "users": [id(3), id(1), id(2), id(2)]}));
    assert_eq!((&opened["type"], &opened["info"]["kind"]), (&json!("joined"), &json!("group")));
    assert_eq!(opened["info"]["people"].as_array().unwrap().len(), 2);
    let room: RoomId = serde_json::from_value(opened["room"].clone()).unwrap();
    for at in [b, c] {
        assert_eq!(world.told(at, "joined").len(), 1);
    }
    let again = world.ask(b, json!({"type": "group", "users": [id(1), id(3)]}));
    assert_eq!(again["room"], json!(room));
    world.say(a, room, "hello you two");
    assert_eq!(bodies(&world.take(c)), ["hello you two"]);
}
