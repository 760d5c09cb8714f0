//! A room of others is answered as one that does not exist: the same bytes, whatever is asked.

use super::*;

/// Everything that can be asked of a room, by its id.
fn questions(room: RoomId) -> Vec<Value> {
    let user = id(2);
    let acts = [
        json!({"act": "invite", "user": user}),
        json!({"act": "remove", "user": user}),
        json!({"act": "transfer", "user": user}),
        json!({"act": "topic", "text": "x"}),
        json!({"act": "rename_room", "name": "x"}),
        json!({"act": "archive", "archived": true}),
        json!({"act": "delete_room"}),
        json!({"act": "slow_mode", "seconds": 1}),
        json!({"act": "mute", "user": user, "seconds": 1}),
        json!({"act": "delete", "seq": 2}),
        json!({"act": "report", "seq": 2, "text": "x"}),
        json!({"act": "unread", "seq": 1}),
        json!({"act": "quiet", "quiet": true}),
        json!({"act": "make_incoming_hook", "text": "x"}),
        json!({"act": "make_outgoing_hook", "text": "x", "url": "https://a.example/"}),
    ];
    let mut all = vec![
        json!({"type": "join"}),
        json!({"type": "join", "after": 1}),
        json!({"type": "leave"}),
        json!({"type": "history", "before": 9}),
        json!({"type": "send", "ref": Ref::new(7, [7; 10]), "body": "x"}),
        json!({"type": "read", "seq": 1}),
        json!({"type": "typing"}),
        json!({"type": "members"}),
        json!({"type": "list", "list": "hooks"}),
    ];
    all.extend(acts.into_iter().map(|mut act| {
        act["type"] = "act".into();
        act
    }));
    for question in &mut all {
        question["room"] = json!(room);
    }
    all
}

#[test]
fn every_request_and_act_about_a_room_is_among_the_questions() {
    let asked: Vec<ClientEnvelope> =
        questions(LOBBY).iter().map(|question| serde_json::from_value(question.clone()).unwrap()).collect();
    let acts = asked.iter().filter(|envelope| matches!(envelope, ClientEnvelope::Act(_))).count();
    let rooms = Act::NAMES.iter().filter(|name| {
        let fields = json!({"type": "act", "act": name, "room": LOBBY, "user": id(2), "text": "", "name": "x",
            "archived": true, "seconds": 0, "seq": 1, "quiet": true, "url": "", "blocked": true, "id": "x",
            "bot": id(2), "scopes": [], "role": "member", "uses": 0});
        let envelope: ClientEnvelope = serde_json::from_value(fields).unwrap();
        envelope.room().is_some()
    });
    assert_eq!(rooms.count(), acts);
    let is_of_room = |envelope: &ClientEnvelope| {
        matches!(envelope, ClientEnvelope::Join { .. }) || envelope.room() == Some(LOBBY)
    };
    assert!(asked.iter().all(is_of_room));
    let types: std::collections::BTreeSet<&str> =
        asked.iter().filter(|e| !matches!(e, ClientEnvelope::Act(_))).map(|e| e.type_name()).collect();
    assert_eq!(types.len(), 8, "join, leave, history, send, read, typing, members, list: {types:?}");
}

/// What `stranger` is answered of a room, with the room's id taken out.
fn answers(world: &mut World, stranger: At, room: RoomId) -> Vec<String> {
    let mut answers = Vec::new();
    for question in questions(room) {
        world.nodes[stranger.0].take(stranger.1);
        world.send(stranger, question.clone());
        for output in world.nodes[stranger.0].take(stranger.1) {
            let Output::Text(text) = output else { panic!("closed by {question}") };
            answers.push(text.replace(&room.to_string(), "ROOM"));
        }
    }
    answers
}

#[test]
fn a_room_of_others_is_the_same_as_none_to_whoever_guesses() {
    for role in [Role::Guest, Role::Member, Role::Moderator, Role::Owner] {
        let mut world = World::new();
        let [a, _b, _c] = [1, 2, 3].map(|person| world.enrol(person, Role::Member));
        let private = world.room(a, true, &[2]);
        let direct = world.ask(a, json!({"type": "direct", "user": id(2)}))["room"].clone();
        let group = world.ask(a, json!({"type": "group", "users": [id(2), id(3)]}))["room"].clone();
        let stranger = if role == Role::Guest { world.join(4) } else { world.enrol(4, role) };
        let nowhere = answers(&mut world, stranger, RoomId::from_bits(77));
        assert!(nowhere.len() >= questions(LOBBY).len() - 1, "all but a typing is answered");
        assert!(nowhere.iter().all(|answer| answer.contains(r#""code":"not_"#)), "{nowhere:#?}");
        for room in [json!(private), direct, group] {
            let room: RoomId = serde_json::from_value(room).unwrap();
            world.say(a, room, "between us");
            assert_eq!(answers(&mut world, stranger, room), nowhere, "{role:?}");
            world.say(a, room, "still between us");
        }
        world.pass(10_000);
        let told = format!("{:?}", world.take(stranger));
        assert!(!told.contains("between us") && !told.contains(&private.to_string()));
        let directory = world.ask(stranger, json!({"type": "directory"})).to_string();
        assert!(!directory.contains("club"));
        let by_name = world.ask(stranger, json!({"type": "join", "room": "club"}));
        assert_eq!(by_name, world.ask(stranger, json!({"type": "join", "room": "no-such-room"})));
        let made = world.ask(stranger, json!({"type": "create", "name": "club"}));
        assert_eq!(made["type"], "joined", "its name is not even taken");
    }
}

#[test]
fn who_was_removed_is_a_stranger_again() {
    let mut world = World::new();
    let [a, b] = [1, 2].map(|person| world.enrol(person, Role::Member));
    let room = world.room(a, true, &[2]);
    world.act(a, json!({"act": "remove", "room": room, "user": id(2)}));
    let nowhere = answers(&mut world, b, RoomId::from_bits(77));
    assert_eq!(answers(&mut world, b, room), nowhere);
    let resume = json!({"type": "hello", "resume": [{"room": room, "epoch": 1, "seq": 0}]});
    let conn = world.nodes[0].connect(Mode::Full, [2; 32], false);
    world.send((0, conn), resume);
    let told = world.take((0, conn));
    assert!(told.iter().any(|value| value["code"] == "not_found"));
    assert!(!told[0].to_string().contains(&room.to_string()), "not in the welcome");
}

#[test]
fn presence_and_typing_in_a_private_room_stay_in_it() {
    let mut world = World::new();
    let [a, b, c] = [1, 2, 3].map(|person| world.enrol(person, Role::Member));
    let room = world.room(a, true, &[2]);
    world.pass(1_000);
    world.clear([a, b, c]);
    world.send(a, json!({"type": "typing", "room": room}));
    world.send(c, json!({"type": "typing", "room": room}));
    world.send(b, json!({"type": "presence", "presence": "away"}));
    world.pass(1_000);
    assert_eq!(world.told(b, "typing").len(), 1);
    assert!(world.told(a, "presence").iter().any(|told| told["room"] == json!(room)));
    assert!(world.take(c).iter().all(|told| told["room"] != json!(room)));
}
