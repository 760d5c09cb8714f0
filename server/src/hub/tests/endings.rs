//! Sessions that are over, and when they were used.

use super::*;

#[test]
fn a_session_that_is_signed_out_is_closed_at_once_and_told_nothing_more() {
    let mut world = World::with(2, UNLIMITED, Arc::new(MemoryBroker::new()));
    let a = world.enrol(1, Role::Member);
    let other = world.join(2);
    let at = START + world.now;
    let session = NewSession { until: at + DAY_MS, ..NewSession::of([101; 32], at) };
    now(world.store.sign_in(id(1), session, None));
    let here = world.hello([101; 32], false);
    let there = (1, world.nodes[1].connect(Mode::Full, [101; 32], false));
    world.send(there, json!({"type": "hello"}));
    for at in [a, here, there] {
        world.take(at);
    }
    let rows = world.ask(a, json!({"type": "list", "list": "sessions"}))["rows"].clone();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let row = rows.iter().find(|row| row["current"] != true).unwrap();
    // Said in the same turn, behind it.
    let end = json!({"type": "act", "act": "end_session", "id": row["id"]});
    world.nodes[0].send(a.1, &end.to_string());
    let send = ClientEnvelope::Send { room: LOBBY, reference: Ref::new(9, [9; 10]), body: "hello".into() };
    world.nodes[0].send(other.1, &encode(&send));
    world.settle();
    for at in [here, there] {
        let told = world.take(at);
        let place = told.iter().position(|value| *value == closed(CloseCode::Policy));
        assert_eq!(place, Some(told.len() - 1), "the last word: {told:?}");
    }
    for at in [here, there] {
        world.send(at, json!({"type": "ping", "n": 1}));
        world.say(other, LOBBY, "anybody?");
        world.pass(5_000);
        assert_eq!(world.take(at), [Value::Null; 0]);
    }
    assert_eq!(bodies(&world.told(a, "event")).len(), 3, "the session that stays hears it all");
}

#[test]
fn who_is_banned_is_closed_and_not_let_in_again() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Owner);
    let b = world.enrol(2, Role::Member);
    world.take(b);
    world.act(a, json!({"act": "ban", "user": id(2), "text": "spam", "seconds": 60}));
    assert_eq!(world.take(b), [closed(CloseCode::Policy)]);
    let again = world.hello([2; 32], true);
    assert_eq!(world.take(again), [closed(CloseCode::Policy)]);
    world.say(a, LOBBY, "gone");
    world.pass(5_000);
    assert_eq!(world.take(again), [Value::Null; 0]);
}

#[test]
fn a_session_that_ends_while_it_starts_is_not_welcomed() {
    for answered in 0..3 {
        let mut world = World::new();
        world.enrol(1, Role::Member);
        let at = START + world.now;
        let session = NewSession { until: at + DAY_MS, ..NewSession::of([101; 32], at) };
        now(world.store.sign_in(id(1), session, None));
        world.enrol(2, Role::Member);
        let conn = world.nodes[0].connect(Mode::Full, [101; 32], false);
        world.nodes[0].send(conn, r#"{"type":"hello"}"#);
        for _ in 0..answered {
            while world.nodes[0].step() {}
            world.nodes[0].answer(1);
        }
        let ended = world.act_in_store(1, Act::EndSessions).ended.remove(0);
        world.broker.publish(9, Topic::All, Hint::Ended(ended));
        world.settle();
        let told = world.take((0, conn));
        // Unless it was welcomed before.
        assert_eq!(told.last(), Some(&closed(CloseCode::Policy)), "{answered}: {told:?}");
        assert!(told.len() == 1 || answered == 2, "{answered}: {told:?}");
    }
}

#[test]
fn a_token_that_is_nobodys_makes_no_guest_where_none_may_be_made() {
    let mut world = World::new();
    let stranger = world.hello([77; 32], false);
    assert_eq!(world.take(stranger), [closed(CloseCode::Policy)]);
    let guest = world.hello([77; 32], true);
    assert_eq!(world.told(guest, "welcome")[0]["role"], "guest");
    world.store.set_unavailable(true);
    let later = world.hello([78; 32], true);
    assert_eq!(world.take(later), [closed(CloseCode::TryLater)]);
}

#[test]
fn a_session_whose_time_is_over_is_closed_within_a_tick() {
    let config = HubConfig { session_ms: 2 * DAY_MS, ..UNLIMITED };
    let mut world = World::with(1, config, Arc::new(MemoryBroker::new()));
    let early = world.join(1);
    // Two days later, in steps that are not too many.
    let later = |world: &mut World, ms: Ms| {
        world.now += ms;
        let now = world.now;
        world.nodes[0].tick(now);
        world.settle();
    };
    later(&mut world, 2 * DAY_MS - 60_000);
    let late = world.join(2);
    for at in [early, late] {
        world.take(at);
    }
    later(&mut world, 59_000);
    assert!(!world.take(early).contains(&closed(CloseCode::Policy)));
    later(&mut world, 1_000);
    assert!(world.take(early).contains(&closed(CloseCode::Policy)));
    world.say(late, LOBBY, "alone");
    assert_eq!(world.take(early), [Value::Null; 0]);
    later(&mut world, DAY_MS);
    assert!(!world.take(late).contains(&closed(CloseCode::Policy)));
    later(&mut world, DAY_MS);
    assert!(world.take(late).contains(&closed(CloseCode::Policy)));
}

#[test]
fn a_clock_that_is_set_ends_no_session() {
    let config = HubConfig { session_ms: DAY_MS, ..UNLIMITED };
    let mut world = World::with(1, config, Arc::new(MemoryBroker::new()));
    let a = world.join(1);
    world.take(a);
    world.nodes[0].set_wall(10 * DAY_MS);
    world.pass(10_000);
    assert!(!world.take(a).contains(&closed(CloseCode::Policy)));
}

#[test]
fn sessions_that_were_used_are_noted_together_about_once_a_minute() {
    let mut world = World::new();
    let a = world.enrol(1, Role::Member);
    let also_a = world.join(1);
    world.pass(120_000);
    let used = |world: &mut World| {
        let rows = world.ask(a, json!({"type": "list", "list": "sessions"}))["rows"].clone();
        rows[0]["at"].as_i64().unwrap() - START
    };
    let before = used(&mut world);
    let queries = world.nodes[0].queries();
    for _ in 0..10 {
        world.send(also_a, json!({"type": "ping", "n": 1}));
        world.send(a, json!({"type": "ping", "n": 1}));
    }
    assert_eq!(world.nodes[0].queries(), queries);
    world.pass(60_000);
    assert_eq!(world.nodes[0].queries(), queries + 1, "one for all");
    assert!(used(&mut world) > before);
    world.pass(60_000);
    let quiet = world.nodes[0].queries();
    world.pass(120_000);
    assert_eq!(world.nodes[0].queries(), quiet, "nothing was used");
}
