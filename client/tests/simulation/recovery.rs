//! How a plan ends: all faults are over, all becomes quiet, and then everything must be right.

use std::collections::BTreeSet;

use client::state::Input;
use server::broker::chaos::Chaos;
use server::store::memory::MemoryStore;
use server::store::{Made, RoomKey, Store};
use shared::acts::Act;
use shared::model::{Ms, Ref, RoomId, UserId};

use super::ledger::{ask, now};
use super::links::Cut;
use super::world::World;

/// How long all may take to be well again, in simulated time.
const RECOVERY_MS: Ms = 300_000;
/// How long all must be quiet: heads are compared every three seconds, cursors told every second.
const QUIET_MS: Ms = 7_000;
/// Longer than it takes to say that somebody is not there any more.
const ABSENCE_MS: Ms = 10_000;
/// Longer than it takes that a node which is not there any more is taken for dead.
const LEASE_MS: Ms = 45_000;

/// Lets time pass until all is quiet, and a while longer.
fn calm(world: &mut World) {
    let end = world.now + RECOVERY_MS;
    let mut quiet_since = None;
    world.flow();
    loop {
        if !world.is_quiet() {
            quiet_since = None;
        } else if world.now - *quiet_since.get_or_insert(world.now) >= QUIET_MS {
            return;
        }
        assert!(world.now < end, "it does not become quiet:\n{}", world.unrest());
        let ms = world.until_wake(1_000);
        world.pass(ms);
        world.flow();
    }
}

/// Lets so much time pass, and all arrive that it brings.
fn wait(world: &mut World, ms: Ms) {
    let end = world.now + ms;
    while world.now < end {
        let ms = world.until_wake(1_000);
        world.pass(ms);
        world.flow();
    }
}

/// Ends all faults and looks whether all is well in the end.
pub fn recover(world: &mut World) {
    world.say(|| "all faults are over".to_owned());
    for way in &world.ways {
        way.set_unavailable(false);
        way.lose_answers(0);
    }
    (0..world.nodes.len()).for_each(|node| world.set_cut_off(node, false, false));
    if let Some(broker) = &world.chaos {
        broker.set_chaos(Chaos::default());
        broker.settle();
        // As a real one does when it is connected again.
        broker.doubt();
    }
    for node in 0..world.nodes.len() {
        if world.nodes[node].is_none() {
            world.start_node(node);
        }
    }
    for client in 0..world.clients.len() {
        if world.clients[client].is_gone {
            continue;
        }
        world.clients[client].effects_left = None;
        world.clients[client].unreachable.fill(false);
        if std::mem::take(&mut world.clients[client].is_asleep) {
            world.input(client, Input::Woke);
        }
        // Everybody is there now.
        world.input(client, Input::Visibility(true));
        world.input(client, Input::Idle(false));
    }
    calm(world);
    world.check_logs();
    if world.signals_lost {
        // What is no event (memberships, cursors, names) a client learns for certain when it connects.
        for client in 0..world.clients.len() {
            world.cut(client, Cut::Clean);
        }
        calm(world);
    }
    wait(world, if world.nodes.len() > 1 { LEASE_MS } else { ABSENCE_MS });
    world.check_presence();
    world.check_logs();
    world.check_rooms();
    send_the_rest(world);
    world.check_logs();
    world.check_messages();
    world.check_rooms();
    if world.rng.u8(..3) == 0 {
        compare_with_new(world);
    }
}

/// Everybody goes back to the rooms for which they still have messages, and sends them. What is for a room to
/// which nobody can let them in any more, they throw away.
fn send_the_rest(world: &mut World) {
    let here = world.clients.iter().enumerate().filter(|(_, client)| !client.is_gone);
    let unsent: Vec<(usize, UserId, RoomId, Ref)> = here
        .flat_map(|(place, client)| {
            client.unsent().map(move |unsent| (place, unsent.user, unsent.room, unsent.reference))
        })
        .collect();
    if unsent.is_empty() {
        return;
    }
    make_peace(world);
    let mut rooms = BTreeSet::new();
    for (client, user, room, reference) in unsent {
        world.say(|| format!("client {client} goes back to {room}"));
        if let_in(world, user, room) {
            rooms.insert((client, room));
        } else {
            world.input(client, Input::Discard(reference));
        }
    }
    for client in 0..world.clients.len() {
        world.cut(client, Cut::Clean);
    }
    for node in 0..world.nodes.len() {
        // What was done now was done behind the nodes' backs.
        world.crash_node(node);
        world.start_node(node);
    }
    calm(world);
    for (client, room) in rooms {
        world.input(client, Input::RetryAll(room));
    }
    calm(world);
}

/// An act that needs nothing but a user.
pub fn act_plainly(store: &MemoryStore, by: UserId, act: Act) -> bool {
    let made = Made { session: [0; 32], id: 0, secret: [0; 32] };
    ask(store.act(by, act, made, 0)).is_ok()
}

/// Nobody blocks anybody any more.
fn make_peace(world: &World) {
    for by in world.people() {
        for user in now(world.store.account(by)).blocked {
            assert!(act_plainly(&world.store, by, Act::Block { user, blocked: false }));
        }
    }
}

/// Makes somebody a member of a room again, if anybody can.
fn let_in(world: &mut World, user: UserId, room: RoomId) -> bool {
    let key = RoomKey { id: Some(room), skeleton: None };
    if ask(world.store.join(key, user, 0, 0)).is_ok() {
        return true;
    }
    let members = world.ledger.look(room).members.clone();
    members.into_iter().any(|by| act_plainly(&world.store, by, Act::Invite { room, user }))
}

/// Pages that are opened now show what those show that have been open all the time.
fn compare_with_new(world: &mut World) {
    let count = world.clients.len();
    for old in 0..count {
        world.open_elsewhere(old);
        world.clients[count + old].is_gone = world.clients[old].is_gone;
    }
    calm(world);
    for old in (0..count).filter(|old| !world.clients[*old].is_gone) {
        world.check_same(old, count + old);
    }
}
