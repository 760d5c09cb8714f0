//! Random plans: who does what, what fails and when, and how it all ends. Everything follows from the seed.

use client::route::Route;
use client::state::Input;
use fastrand::Rng;
use futures_util::FutureExt;
use server::broker::chaos::Chaos;
use server::hub::HubConfig;
use server::store::{Append, NewSession, Newcomer, RoomKey, Store};
use shared::model::{Body, Claim, LOBBY, Ms, RoomId, UserId, UserName};
use shared::protocol::EventKind;

use super::world::{Cut, Setting, World};

/// How long all may take to be well again, in simulated time.
const RECOVERY_MS: Ms = 300_000;

/// What a plan lets happen.
struct Faults {
    cuts: bool,
    crashes: bool,
    outages: bool,
    restarts: bool,
    sleeps: bool,
    unheard: bool,
}

/// Runs the plan of a seed. Panics if something does not hold.
pub fn run(seed: u64, verbose: bool) {
    let mut rng = Rng::with_seed(seed);
    let users = rng.u8(2..=3);
    let mut tokens: Vec<u8> = (1..=users).collect();
    if rng.bool() {
        tokens.push(1);
    }
    let config = HubConfig {
        message_rate: rng.choice([0, 0, 1, 3, 10]).unwrap_or(0),
        request_rate: rng.choice([0, 0, 4, 50]).unwrap_or(0),
        rooms_per_user: rng.choice([0, 0, 2]).unwrap_or(0),
        ..HubConfig::default()
    };
    let nodes = rng.usize(1..=2);
    let lossy = nodes > 1;
    let mut often = |percent: u8| rng.u8(..100) < percent;
    let faults = Faults {
        cuts: often(70),
        crashes: often(35),
        outages: often(35),
        restarts: often(50),
        sleeps: often(40),
        unheard: lossy && often(25),
    };
    let chaos = Chaos {
        lose: rng.choice([0.0, 0.1, 0.5]).unwrap_or(0.0),
        repeat: rng.choice([0.0, 0.2]).unwrap_or(0.0),
        delay: rng.choice([0.0, 0.3]).unwrap_or(0.0),
        delay_max: 8,
        own: rng.u8(..4) == 0,
    };
    let steps = rng.usize(40..=80);
    let mut world = World::new(rng, Setting { nodes, tokens, config, lossy, verbose });
    world.say(|| format!("{config:?} {chaos:?}"));
    if world.rng.u8(..4) != 0 {
        world.flow();
    }
    if let Some(broker) = &world.chaos {
        broker.set_chaos(chaos);
    }
    let mut signals_lost = lossy;
    for _ in 0..steps {
        step(&mut world, &faults, &mut signals_lost);
    }
    recover(&mut world, signals_lost);
}

/// Events that no hub tells of: written by another node that died before it could.
fn write_unheard(world: &mut World) {
    let count = world.rng.choice([1, 3, 120, 250]).unwrap_or(1);
    world.say(|| format!("{count} messages that nobody hears of"));
    let name = UserName::parse("stranger").expect("a name");
    let names = vec![Claim { skeleton: name.to_string(), name }];
    let session = NewSession::of([200; 32], 0);
    let identity =
        world.store.identify(session, Some(Newcomer { id: UserId::from_bits(200), names })).now_or_never();
    // During an outage nothing is written.
    let Some(Ok(identity)) = identity else { return };
    let kind = EventKind::message(Body::parse("hello", 0).expect("a body"));
    let append = Append { room: LOBBY, author: identity.user, at: 0, kind, reference: None };
    world.store.append(vec![append; count]).now_or_never();
}

fn step(world: &mut World, faults: &Faults, signals_lost: &mut bool) {
    let client = world.rng.usize(..world.clients.len());
    match world.rng.u8(..100) {
        0..40 => act(world, client),
        40..70 => {}
        70..80 => {
            let ms =
                world.rng.choice([10, 100, 300, 1_000, 1_000, 3_000, 6_000, 20_000, 70_000]).unwrap_or(10);
            world.pass(ms);
        }
        80..86 if faults.cuts => {
            let cuts = [Cut::Clean, Cut::ClientFirst, Cut::ServerFirst, Cut::Silent];
            let cut = world.rng.choice(cuts).unwrap_or(Cut::Clean);
            world.cut(client, cut);
        }
        86..89 if faults.restarts => {
            if world.rng.bool() {
                world.close_tab(client);
                world.open_tab(client);
            } else {
                world.clients[client].effects_left = Some(world.rng.usize(..6));
            }
        }
        89..91 if faults.crashes => {
            let node = world.rng.usize(..world.nodes.len());
            if world.nodes[node].is_some() {
                world.crash_node(node);
                *signals_lost |= world.nodes.len() > 1;
            } else {
                world.start_node(node);
            }
        }
        91..94 if faults.outages => match world.rng.u8(..3) {
            0 => {
                world.say(|| "the store is gone".to_owned());
                world.store.set_unavailable(true);
            }
            1 => {
                world.say(|| "the store is back".to_owned());
                world.store.set_unavailable(false);
            }
            _ => {
                let count = world.rng.usize(1..4);
                world.say(|| format!("{count} answers of the store are lost"));
                world.store.lose_answers(count);
                *signals_lost = true;
            }
        },
        94..97 if faults.sleeps => {
            world.say(|| format!("client {client} sleeps or wakes"));
            let sleeper = &mut world.clients[client];
            sleeper.is_asleep = !sleeper.is_asleep;
            if !sleeper.is_asleep {
                world.input(client, Input::Woke);
            }
        }
        97 if faults.sleeps => {
            let skew_ms = world.rng.choice([0, 3_600_000, -3_600_000]).unwrap_or(0);
            world.say(|| format!("client {client}'s clock is set"));
            world.clients[client].skew_ms = skew_ms;
            // Timers run on a clock that nobody sets.
            world.input(client, Input::Tick);
        }
        98 if faults.unheard => write_unheard(world),
        _ => {}
    }
    // Something moves, not always all of it.
    for _ in 0..world.rng.usize(..4) {
        let client = world.rng.usize(..world.clients.len());
        world.open(client);
        let count = world.rng.usize(..4);
        world.carry_up(client, count);
        let place = world.rng.usize(..world.nodes.len());
        let (steps, answers) = (world.rng.usize(..8), world.rng.usize(..4));
        if let Some(node) = &mut world.nodes[place] {
            let _moved = (0..steps).take_while(|_| node.step()).count();
            node.answer(answers);
        }
        let count = world.rng.usize(..6);
        world.carry_down(client, count);
        if world.rng.u8(..3) == 0 {
            world.settle_orphan();
        }
    }
    if world.rng.u8(..6) == 0 {
        world.flow();
    }
}

/// A person does something.
fn act(world: &mut World, client: usize) {
    if world.clients[client].is_asleep {
        return;
    }
    let state = &world.clients[client].state;
    let rooms: Vec<RoomId> = state.rooms.keys().copied().collect();
    let room = world.rng.choice(&rooms).copied().unwrap_or(LOBBY);
    let current = state.current_room().map(|room| (room.info.id, room.timeline.last()));
    let name = format!("room-{}", world.rng.u8(..3));
    let unsent = world.rng.choice(world.clients[client].storage.keys().copied().collect::<Vec<_>>());
    let input = match world.rng.u8(..100) {
        0..40 => {
            let count = if world.rng.u8(..8) == 0 { world.rng.usize(2..8) } else { 1 };
            for _ in 0..count {
                world.submit(client, room);
            }
            return;
        }
        40..45 => Input::Drafted { room, text: world.rng.choice(["", "a", "ab"]).unwrap_or("").to_owned() },
        45..49 => Input::CreateRoom(name),
        49..55 => Input::JoinRoom(name),
        55..59 => {
            let others: Vec<UserId> =
                world.clients.iter().filter_map(|client| Some(client.state.me.as_ref()?.id)).collect();
            let Some(peer) = world.rng.choice(others) else { return };
            Input::OpenDirect(peer)
        }
        59..62 => Input::LeaveRoom(room),
        62..64 => Input::Rename(format!("Ada {}", world.rng.u8(..5))),
        64..70 => {
            let routes = world.clients[client].state.rooms.values().map(|room| room.route());
            let route = world.rng.choice(routes.collect::<Vec<_>>()).unwrap_or(Route::Lobby);
            world.clients[client].route = route.clone();
            Input::Navigated(route)
        }
        70..80 => {
            let Some((room, seq)) = current else { return };
            Input::Seen { room, seq: seq.saturating_sub(world.rng.u64(..3)) }
        }
        80..83 => Input::Scrolled { room, at_latest: world.rng.bool() },
        83..87 => Input::LoadOlder(current.map_or(room, |(room, _)| room)),
        87..89 => Input::LoadNewer(room),
        89 => Input::JumpToLatest(room),
        90 => Input::AskMembers(room),
        91 => Input::AskDirectory,
        92 => Input::Visibility(world.rng.bool()),
        93 => Input::Woke,
        94 => Input::Offline,
        95 => Input::Idle(world.rng.bool()),
        96 => Input::TryNow,
        97 => Input::RetryAll(room),
        98 => {
            let Some(reference) = unsent else { return };
            Input::Retry(reference)
        }
        _ => {
            let Some(reference) = unsent else { return };
            Input::Discard(reference)
        }
    };
    world.input(client, input);
}

/// Lets time pass until all is quiet, and a while longer.
fn calm(world: &mut World) {
    let end = world.now + RECOVERY_MS;
    let mut quiet_since = None;
    world.flow();
    loop {
        // Heads are compared every three seconds, cursors told every second.
        if !world.is_quiet() {
            quiet_since = None;
        } else if world.now - *quiet_since.get_or_insert(world.now) >= 7_000 {
            return;
        }
        assert!(world.now < end, "it does not become quiet:\n{}", world.unrest());
        let ms = world.until_wake(1_000);
        world.pass(ms);
        world.flow();
    }
}

/// Ends all faults and looks whether all is well in the end.
fn recover(world: &mut World, signals_lost: bool) {
    world.say(|| "all faults are over".to_owned());
    world.store.set_unavailable(false);
    world.store.lose_answers(0);
    if let Some(broker) = &world.chaos {
        broker.set_chaos(Chaos::default());
        broker.settle();
    }
    for node in 0..world.nodes.len() {
        if world.nodes[node].is_none() {
            world.start_node(node);
        }
    }
    for client in 0..world.clients.len() {
        world.clients[client].effects_left = None;
        if std::mem::take(&mut world.clients[client].is_asleep) {
            world.input(client, Input::Woke);
        }
    }
    calm(world);
    world.check_logs();
    if signals_lost {
        // What is no event (memberships, cursors, names) a client learns for certain when it connects.
        for client in 0..world.clients.len() {
            world.cut(client, Cut::Clean);
        }
        calm(world);
    }
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

/// Everybody goes back to the rooms for which they still have messages, and sends them.
fn send_the_rest(world: &mut World) {
    let unsent: Vec<(usize, UserId, RoomId)> = world
        .clients
        .iter()
        .enumerate()
        .flat_map(|(place, client)| {
            client.storage.values().map(move |unsent| (place, unsent.user, unsent.room))
        })
        .collect();
    if unsent.is_empty() {
        return;
    }
    for (client, user, room) in &unsent {
        world.say(|| format!("client {client} goes back to {room}"));
        let key = RoomKey { id: Some(*room), skeleton: None };
        let joined = world.store.join(key, *user, 0, 0).now_or_never();
        joined.expect("it answers at once").expect("everybody can join");
    }
    for client in 0..world.clients.len() {
        world.cut(client, Cut::Clean);
    }
    for node in 0..world.nodes.len() {
        // The memberships were given behind the nodes' backs.
        world.crash_node(node);
        world.start_node(node);
    }
    calm(world);
    for (client, _, room) in unsent {
        world.input(client, Input::RetryAll(room));
    }
    calm(world);
}

/// Pages that are opened now show what those show that have been open all the time.
fn compare_with_new(world: &mut World) {
    let count = world.clients.len();
    for old in 0..count {
        world.open_elsewhere(old);
    }
    calm(world);
    for old in 0..count {
        world.check_same(old, count + old);
    }
}
