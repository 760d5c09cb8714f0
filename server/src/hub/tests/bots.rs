//! What bots may ask for and are told, by the scopes of their tokens.

use super::*;
use crate::secrets::Secret;

impl World {
    /// A bot's connection with these scopes.
    pub(super) fn bot(&mut self, owner: At, scopes: &[&str]) -> At {
        let name = format!("Bot {}", ["a", "b", "c", "d", "e", "f", "g", "h"][self.refs as usize % 8]);
        self.refs += 1;
        let bot = self.act(owner, json!({"act": "make_bot", "name": name}))["user"]["id"].clone();
        let token = json!({"act": "make_token", "bot": bot, "text": "t", "scopes": scopes, "seconds": 0});
        let secret = self.act(owner, token)["secret"].as_str().unwrap().to_owned();
        self.hello(Secret::parse(&secret).unwrap().hash(), false)
    }
}

#[test]
fn a_bot_asks_for_what_its_scopes_allow_and_nothing_else() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let room = world.room(a, false, &[]);
    let by_scope = |scope| -> Vec<Value> {
        match scope {
            "read" => vec![
                json!({"type": "history", "room": LOBBY, "before": 9}),
                json!({"type": "members", "room": LOBBY}),
                json!({"type": "read", "room": LOBBY, "seq": 1}),
                json!({"type": "directory"}),
            ],
            "send" => vec![json!({"type": "send", "room": LOBBY, "ref": Ref::new(5, [5; 10]), "body": "x"})],
            "join" => vec![
                json!({"type": "join", "room": room}),
                json!({"type": "leave", "room": room}),
                json!({"type": "create", "name": "bots-only"}),
                json!({"type": "direct", "user": id(1)}),
                json!({"type": "group", "users": []}),
            ],
            _ => vec![
                json!({"type": "rename", "name": "Robot"}),
                json!({"type": "list", "list": "sessions"}),
                json!({"type": "act", "act": "end_sessions"}),
                json!({"type": "act", "act": "topic", "room": LOBBY, "text": "x"}),
            ],
        }
    };
    for scopes in [vec!["read"], vec!["send"], vec!["join"], vec!["read", "send", "join"]] {
        let bot = world.bot(a, &scopes);
        assert_eq!(world.told(bot, "welcome").len(), 1);
        assert_eq!(world.ask(bot, json!({"type": "ping", "n": 1}))["type"], "pong");
        for scope in ["read", "send", "join", "none"] {
            for question in by_scope(scope) {
                let before = world.nodes[0].queries();
                let answer = world.ask(bot, question.clone());
                let is_refused = answer["code"] == "forbidden";
                assert_eq!(is_refused, !scopes.contains(&scope), "{scopes:?} {question}: {answer}");
                if is_refused {
                    let name = question.get("act").unwrap_or(&question["type"]);
                    assert_eq!(&answer["request"], name);
                    assert_eq!(world.nodes[0].queries(), before, "{question}");
                }
            }
        }
    }
}

#[test]
fn a_bot_that_may_not_read_is_told_nothing_of_rooms() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let room = world.room(a, false, &[]);
    world.say(a, room, "before");
    let deaf = world.bot(a, &["send", "join"]);
    let hearing = world.bot(a, &["read", "join"]);
    for bot in [deaf, hearing] {
        let joined = world.ask(bot, json!({"type": "join", "room": room}));
        assert_eq!(joined["type"], "joined");
        let events = joined["events"].as_array().unwrap();
        assert_eq!(events.is_empty(), bot == deaf, "{events:?}");
        world.take(bot);
    }
    world.say(a, room, "after");
    world.send(a, json!({"type": "typing", "room": room}));
    world.send(a, json!({"type": "rename", "name": "Zoe"}));
    world.pass(5_000);
    assert!(bodies(&world.take(hearing)).contains(&"after"));
    assert_eq!(world.take(deaf), [Value::Null; 0]);
    let resume = json!([{"room": room, "epoch": 1, "seq": 0}]);
    let token = world.bot(a, &["send"]);
    assert!(world.told(token, "joined").is_empty(), "{resume}");
    // They are a member all the same, who can be taken out.
    let bot = world.ask(a, json!({"type": "members", "room": room}))["people"].clone();
    let bots: Vec<Value> = bot.as_array().unwrap().iter().map(|person| person["id"].clone()).collect();
    for bot in bots.iter().filter(|bot| **bot != json!(id(1))) {
        world.act(a, json!({"act": "remove", "room": room, "user": bot}));
    }
    assert_eq!(kinds(&world.take(deaf)), ["left"]);
    assert!(kinds(&world.take(hearing)).ends_with(&["removed", "left"]));
}

#[test]
fn a_token_that_is_revoked_closes_its_connections() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let bot = world.bot(a, &["read"]);
    world.take(bot);
    let rows = world.ask(a, json!({"type": "list", "list": "bots"}))["rows"].clone();
    let token = rows.as_array().unwrap().iter().find(|row| row["id"].is_string()).unwrap()["id"].clone();
    world.act(a, json!({"act": "revoke_token", "id": token}));
    assert_eq!(world.take(bot), [closed(CloseCode::Policy)]);
}

#[test]
fn a_webhooks_token_is_good_for_its_room_alone() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let room = world.room(a, true, &[]);
    let secret = world.act(a, json!({"act": "make_incoming_hook", "room": room, "text": "in"}))["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let hook = world.hello(Secret::parse(&secret).unwrap().hash(), false);
    let welcome = world.told(hook, "welcome").remove(0);
    let rooms: Vec<&Value> = welcome["rooms"].as_array().unwrap().iter().map(|info| &info["id"]).collect();
    assert_eq!(rooms, [&json!(room)]);
    world.say(hook, room, "built");
    assert_eq!(world.told(hook, "ack").len(), 1);
    world.say(hook, LOBBY, "elsewhere");
    assert_eq!(world.told(hook, "error")[0]["code"], "forbidden");
    world.say(hook, RoomId::from_bits(77), "nowhere");
    assert_eq!(world.told(hook, "error")[0]["code"], "forbidden", "no other room is told from none");
    world.say(a, LOBBY, "not for it");
    world.pass(2_000);
    assert_eq!(world.take(hook), [Value::Null; 0]);
}
