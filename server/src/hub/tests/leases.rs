//! Presence between hubs: it follows the hubs' lives, and what is missed of it is mended.

use super::*;
use crate::broker::HubId;
use crate::broker::conformance::Recorder;

/// How long after its death a hub's people are offline.
const DEATH_KNOWN_MS: Ms = 30_000;

fn nodes(count: u32) -> (World, Arc<ChaosBroker>) {
    let broker = Arc::new(ChaosBroker::new(1, Chaos::default()));
    (World::with(count, UNLIMITED, broker.clone()), broker)
}

const DEAF: Chaos = Chaos { lose: 1.0, repeat: 0.0, delay: 0.0, delay_max: 0, own: false };

impl World {
    /// What a connection was told of presence since it was last asked, as names and states, in order.
    fn changes(&mut self, at: At) -> Vec<String> {
        let told = self.told(at, "presence");
        let people = told.iter().flat_map(|told| told["people"].as_array().unwrap());
        people.map(|person| person["presence"].as_str().unwrap().to_owned()).collect()
    }

    fn online(&mut self, at: At) -> u64 {
        self.ask(at, json!({"type": "members", "room": LOBBY}))["online"].as_u64().unwrap()
    }

    /// A node that dies, the last one, or at least is never heard of again.
    fn kill_last(&mut self) {
        drop(self.nodes.pop());
    }
}

#[test]
fn the_people_of_a_dead_node_go_offline_and_nobody_else_does() {
    let (mut world, _) = nodes(3);
    let a = world.join_at(0, 1);
    let [_b, _c, _d] = [world.join_at(1, 2), world.join_at(2, 3), world.join_at(2, 4)];
    // One of those at the dead node is elsewhere too.
    world.join_at(1, 4);
    world.pass(60_000);
    world.changes(a);
    assert_eq!(world.online(a), 4);
    world.kill_last();
    world.pass(20_000);
    assert_eq!(world.changes(a), [""; 0], "it may be only slow");
    world.pass(DEATH_KNOWN_MS - 20_000);
    assert_eq!(world.changes(a), ["offline"]);
    assert_eq!((world.online(a), world.nodes[0].counts().peers_lost), (3, 1));
    world.pass(120_000);
    assert_eq!(world.changes(a), [""; 0], "the others live");
}

#[test]
fn who_moves_from_a_node_that_ends_to_another_is_never_seen_offline() {
    let (mut world, broker) = nodes(3);
    let a = world.join_at(0, 1);
    world.join_at(2, 2);
    world.join_at(2, 3);
    world.pass(10_000);
    world.changes(a);
    // It goes down in good order: connections are closed, then it ends. One of its people comes back.
    (0..2).for_each(|conn| world.nodes[2].close(conn));
    world.nodes[2].settle();
    world.nodes[2].leave();
    world.kill_last();
    world.pass(3_000);
    world.join_at(1, 2);
    world.pass(4_000);
    assert_eq!(world.changes(a), [""; 0], "a restart is not a departure");
    world.pass(2_000);
    assert_eq!(world.changes(a), ["offline"], "the one who did not come back");
    // A hint of the node that is gone comes late.
    let user = world.ask(a, json!({"type": "members", "room": LOBBY}))["people"].clone();
    for person in user.as_array().unwrap() {
        let hint = Hint::Presence {
            origin: 3,
            room: LOBBY,
            user: serde_json::from_value(person.clone()).unwrap(),
            presence: shared::protocol::Presence::Offline,
            version: 1_000,
            after: 0,
        };
        broker.publish(9, Topic::Room(LOBBY), hint);
    }
    world.pass(60_000);
    assert_eq!(world.changes(a), [""; 0]);
    assert_eq!(world.nodes[0].counts().peers_lost, 0);
}

#[test]
fn a_hub_that_knows_it_is_cut_off_gives_nobody_up_and_learns_what_changed() {
    let (mut world, broker) = nodes(2);
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    world.join_at(1, 3);
    world.pass(10_000);
    world.clear([a, b, b]);
    for hub in [1, 2] {
        broker.cut(hub);
    }
    world.pass(4_000);
    for hub in [1, 2] {
        broker.notice(hub);
    }
    world.pass(90_000);
    assert_eq!(world.changes(a), [""; 0]);
    world.send(b, json!({"type": "presence", "presence": "away"}));
    world.join_at(1, 4);
    world.pass(60_000);
    assert_eq!(world.changes(a), [""; 0]);
    broker.mend(2);
    broker.mend(1);
    world.pass(1_000);
    let mut changes = world.changes(a);
    changes.sort();
    assert_eq!((changes, world.online(a)), (vec!["away".to_owned(), "online".to_owned()], 4));
    // One that died meanwhile is given up after that.
    broker.cut(1);
    broker.notice(1);
    world.kill_last();
    world.pass(60_000);
    assert_eq!(world.changes(a), [""; 0]);
    broker.mend(1);
    world.pass(DEATH_KNOWN_MS);
    assert_eq!((world.changes(a).len(), world.online(a)), (3, 1));
}

#[test]
fn changes_that_were_missed_are_known_with_the_next_sign_of_life() {
    let (mut world, broker) = nodes(2);
    let [a, b] = [world.join_at(0, 1), world.join_at(1, 2)];
    let quiet = world.room(a, false, &[]);
    world.send(b, json!({"type": "join", "room": quiet}));
    world.pass(10_000);
    world.clear([a, b, b]);
    let reasked = world.nodes[0].counts().presence_reasked;
    broker.set_chaos(DEAF);
    world.send(b, json!({"type": "presence", "presence": "away"}));
    let c = world.join_at(1, 3);
    world.pass(1_000);
    broker.set_chaos(Chaos::default());
    assert_eq!(world.changes(a), [""; 0]);
    world.pass(6_000);
    // The two rooms in which somebody is away, the lobby also for the one who came.
    let mut changes = world.changes(a);
    changes.sort();
    assert_eq!(changes, ["away", "away", "online"]);
    assert_eq!(world.nodes[0].counts().presence_reasked - reasked, 2, "one question for each room");
    // Whoever is not heard for longer than changes are named is asked for everything when it is back.
    broker.cut(2);
    world.pass(DEATH_KNOWN_MS);
    assert_eq!(world.online(a), 1);
    world.nodes[1].close(c.1);
    world.pass(60_000);
    broker.mend(2);
    world.pass(10_000);
    assert_eq!(world.online(a), 2);
}

#[test]
fn presence_costs_by_what_changes() {
    let (mut world, broker) = nodes(2);
    let people = [world.join_at(0, 1), world.join_at(0, 2), world.join_at(1, 3)];
    for n in 0..20 {
        let room = world.ask(people[0], json!({"type": "create", "name": format!("r{n}")}))["room"].clone();
        world.send(people[1], json!({"type": "join", "room": room}));
        world.send(people[2], json!({"type": "join", "room": room}));
    }
    world.pass(60_000);
    let heard = Recorder::attach(&*broker, 9);
    broker.follow(9, Topic::Room(LOBBY));
    broker.follow(9, Topic::Hub(1));
    broker.follow(9, Topic::Hub(2));
    world.pass(60_000);
    let hints = heard.take();
    let is_empty = |hint: &Hint| matches!(hint, Hint::Alive { changed, .. } if changed.is_empty());
    assert!((22..=26).contains(&hints.len()) && hints.iter().all(is_empty), "{hints:?}");
    // A second tab changes nothing, nor does a reload.
    let again = world.join_at(1, 3);
    world.nodes[1].close(people[2].1);
    world.nodes[1].close(again.1);
    world.settle();
    world.join_at(1, 3);
    world.pass(60_000);
    assert!(heard.take().iter().all(is_empty));
    // A doubt is answered by those only of whom too little is known.
    broker.doubt();
    world.pass(4_000);
    let hints = heard.take();
    assert!(hints.iter().any(|hint| matches!(hint, Hint::PresenceWanted { .. })));
    assert!(!hints.iter().any(|hint| matches!(hint, Hint::Present { .. })), "{hints:?}");
}

#[test]
fn a_hub_that_is_new_to_a_room_hears_of_all_who_are_there_in_parts() {
    const PEOPLE: u16 = 450;
    let broker = Arc::new(ChaosBroker::new(1, Chaos::default()));
    let mut world = World::with(2, UNLIMITED, broker.clone());
    for person in 0..PEOPLE {
        let mut token = [0; 32];
        token[..2].copy_from_slice(&person.to_be_bytes());
        token[31] = 1;
        let conn = world.nodes[0].connect(Mode::Full, token, false);
        world.nodes[0].send(conn, r#"{"type":"hello"}"#);
        world.nodes[0].settle();
        world.nodes[0].take(conn);
    }
    let heard = Recorder::attach(&*broker, 9);
    broker.follow(9, Topic::Hub(2));
    let b = world.join_at(1, 1);
    world.pass(1_000);
    assert_eq!(world.online(b), u64::from(PEOPLE) + 1);
    let parts: Vec<usize> = heard
        .take()
        .into_iter()
        .filter_map(|hint| if let Hint::Present { people, .. } = hint { Some(people.len()) } else { None })
        .collect();
    assert_eq!(parts, [200, 200, 50]);
    // Some go, and that is missed: the next whole takes them out again.
    broker.set_chaos(DEAF);
    (0..100).for_each(|conn| world.nodes[0].close(conn));
    world.pass(9_000);
    broker.set_chaos(Chaos::default());
    world.pass(6_000);
    assert_eq!(world.online(b), u64::from(PEOPLE) - 99);
}

#[test]
fn a_new_name_in_the_middle_of_a_reload_shows_nobody_as_gone() {
    let (mut world, _) = nodes(2);
    let a = world.join_at(0, 1);
    world.account(2);
    let b = world.join_at(1, 2);
    world.pass(1_000);
    world.nodes[1].close(b.1);
    world.settle();
    world.changes(a);
    // On a page of another device, which has no socket.
    let (user, _) = now(world.store.rename(id(2), claim("Zoe"), false, START));
    world.broker.publish(9, Topic::User(id(2)), Hint::Renamed { user });
    world.settle();
    world.pass(3_000);
    world.join_at(1, 2);
    world.pass(10_000);
    assert!(!world.changes(a).contains(&"offline".to_owned()));
    assert_eq!(world.online(a), 2);
}

#[test]
fn a_bot_that_hears_nothing_stays_where_it_is() {
    let (mut world, _) = nodes(3);
    let a = world.enrol(1, Role::Member);
    let there = world.join_at(1, 2);
    let bot = world.bot(a, &["send"]);
    world.nodes[0].close(a.1);
    world.pass(200_000);
    assert_eq!(world.online(there), 2);
    // Also for those who ask only now.
    let late = world.join_at(2, 3);
    world.pass(1_000);
    assert_eq!((world.online(there), world.online(late)), (3, 3));
    world.nodes[0].close(bot.1);
    world.pass(10_000);
    assert_eq!((world.online(there), world.online(late)), (2, 2));
}

/// With random faults and then a doubt, all hubs agree on who is there.
#[test]
fn whatever_was_lost_all_hubs_agree_after_a_doubt() {
    for seed in 0..40 {
        let broker = Arc::new(ChaosBroker::new(seed, Chaos::default()));
        let mut world = World::with(3, UNLIMITED, broker.clone());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ats: Vec<At> = (0..6).map(|n| world.join_at(n % 3, n as u8 + 1)).collect();
        let chaos = Chaos { lose: 0.3, repeat: 0.2, delay: 0.3, delay_max: 12, own: random.bool() };
        broker.set_chaos(chaos);
        for _ in 0..60 {
            let at = ats[random.usize(..ats.len())];
            match random.u8(..8) {
                0 => world.send(at, json!({"type": "presence", "presence": "away"})),
                1 => world.send(at, json!({"type": "presence", "presence": "online"})),
                2 => {
                    world.nodes[at.0].close(at.1);
                    ats.retain(|other| *other != at);
                    let node = random.usize(..3);
                    ats.push(world.join_at(node, random.u8(1..9)));
                }
                3 => broker.cut(random.u32(1..=3)),
                4 => broker.notice(random.u32(1..=3)),
                5 => broker.mend(random.u32(1..=3)),
                _ => {}
            }
            world.pass(Ms::from(random.u32(..4_000)));
        }
        broker.set_chaos(Chaos::default());
        broker.settle();
        (1..=3).for_each(|hub: HubId| broker.mend(hub));
        broker.doubt();
        world.pass(60_000);
        let mut shown: Vec<Value> = (0..3)
            .map(|node| {
                let at = world.join_at(node, 100);
                world.pass(1_000);
                world.ask(at, json!({"type": "members", "room": LOBBY}))
            })
            .collect();
        let last = shown.pop().unwrap();
        for other in shown {
            assert_eq!(other["people"], last["people"], "seed {seed}");
        }
    }
}

#[test]
fn who_left_a_node_that_was_cut_off_and_forgot_the_room_is_not_shown_for_ever() {
    let (mut world, broker) = nodes(2);
    let a = world.join_at(0, 1);
    let b = world.join_at(1, 2);
    world.pass(6_000);
    assert_eq!(world.online(a), 2);
    [1, 2].into_iter().for_each(|hub| broker.cut(hub));
    [1, 2].into_iter().for_each(|hub| broker.notice(hub));
    world.nodes[1].close(b.1);
    world.pass(150_000);
    assert_eq!((world.online(a), world.nodes[1].counts().rooms), (2, 0), "nobody could say so");
    [1, 2].into_iter().for_each(|hub| broker.mend(hub));
    world.pass(3_000);
    assert_eq!(world.online(a), 1);
}
