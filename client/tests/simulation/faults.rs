//! What fails: links, browsers, nodes, clocks, the ways to the store, and the broker's network.

use fastrand::Rng;
use server::broker::chaos::Chaos;
use server::store::{Append, NewSession, Newcomer, Store};
use shared::model::{Body, Claim, LOBBY, Ms, UserId, UserName};
use shared::protocol::EventKind;

use super::ledger::ask;
use super::links::Cut;
use super::world::World;
use client::state::Input;

/// How far clocks are set.
const CLOCK_JUMP_MS: Ms = 3_600_000;

/// What a plan lets happen.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    cuts: bool,
    crashes: bool,
    outages: bool,
    restarts: bool,
    sleeps: bool,
    clocks: bool,
    unheard: bool,
    partitions: bool,
    pub chaos: Chaos,
}

impl Faults {
    pub fn draw(rng: &mut Rng, lossy: bool) -> Self {
        let mut often = |percent: u8| rng.u8(..100) < percent;
        Self {
            cuts: often(70),
            crashes: often(35),
            outages: often(35),
            restarts: often(50),
            sleeps: often(40),
            clocks: often(30),
            unheard: lossy && often(25),
            partitions: often(35),
            chaos: Chaos {
                lose: rng.choice([0.0, 0.1, 0.5]).unwrap_or(0.0),
                repeat: rng.choice([0.0, 0.2]).unwrap_or(0.0),
                delay: rng.choice([0.0, 0.3]).unwrap_or(0.0),
                delay_max: 8,
                own: rng.u8(..4) == 0,
            },
        }
    }
}

/// Perhaps something fails, or works again.
pub fn strike(world: &mut World, faults: &Faults, client: usize) {
    match world.rng.u8(..30) {
        0..6 if faults.cuts => {
            let cuts = [Cut::Clean, Cut::ClientFirst, Cut::ServerFirst, Cut::Silent, Cut::Unnoticed];
            let cut = world.rng.choice(cuts).unwrap_or(Cut::Clean);
            world.cut(client, cut);
        }
        6..9 if faults.restarts && !world.clients[client].is_gone => match world.rng.u8(..8) {
            0..4 => world.clients[client].effects_left = Some(world.rng.usize(..6)),
            4 => {
                world.close_tab(client);
                world.clients[client].is_gone = true;
            }
            _ => {
                world.close_tab(client);
                world.open_tab(client);
            }
        },
        9..11 if faults.crashes => {
            let node = world.rng.usize(..world.nodes.len());
            // The hubs of one program end together.
            let is_alone = world.chaos.is_some();
            let nodes = if is_alone { node..node + 1 } else { 0..world.nodes.len() };
            for node in nodes {
                if world.nodes[node].is_some() {
                    world.crash_node(node);
                    // What it had just written it told nobody.
                    world.signals_lost |= is_alone;
                } else {
                    world.start_node(node);
                }
            }
        }
        11..15 if faults.outages => disturb_store(world),
        15..18 if faults.sleeps && !world.clients[client].is_gone => {
            world.say(|| format!("client {client} sleeps or wakes"));
            let sleeper = &mut world.clients[client];
            sleeper.is_asleep = !sleeper.is_asleep;
            if !sleeper.is_asleep {
                world.input(client, Input::Woke);
            }
        }
        18..20 if faults.clocks => set_clock(world, client),
        20 if faults.unheard => write_unheard(world),
        21..25 if faults.partitions => divide(world, client),
        _ => {}
    }
}

/// A node loses the store, has it back, or hears nothing of what it has written.
fn disturb_store(world: &mut World) {
    let only = if world.rng.u8(..3) == 0 { None } else { Some(world.rng.usize(..world.nodes.len())) };
    let ways = (0..world.nodes.len()).filter(|node| only.is_none_or(|only| only == *node));
    let ways: Vec<_> = ways.map(|node| world.ways[node].clone()).collect();
    match world.rng.u8(..4) {
        0 => {
            world.say(|| format!("the store is gone for {only:?}"));
            ways.iter().for_each(|way| way.set_unavailable(true));
        }
        1 | 2 => {
            world.say(|| format!("the store is back for {only:?}"));
            ways.iter().for_each(|way| way.set_unavailable(false));
        }
        // The hubs of one program do not tell each other to compare heads (docs/simulation.md).
        _ if world.chaos.is_none() && world.nodes.len() > 1 => {}
        _ => {
            let count = world.rng.usize(1..4);
            world.say(|| format!("{count} answers of the store are lost for {only:?}"));
            ways.iter().for_each(|way| way.lose_answers(count));
            world.signals_lost = true;
        }
    }
}

fn set_clock(world: &mut World, client: usize) {
    let by = world.rng.choice([0, CLOCK_JUMP_MS, -CLOCK_JUMP_MS]).unwrap_or(0);
    if world.rng.bool() {
        let place = world.rng.usize(..world.nodes.len());
        world.say(|| format!("the clock of node {place} is set"));
        world.ahead[place] = by;
        if let Some(node) = &mut world.nodes[place] {
            node.set_wall(by);
            node.tick(world.now);
        }
    } else if !world.clients[client].is_gone {
        world.say(|| format!("client {client}'s clock is set"));
        world.clients[client].skew_ms = by;
        // Timers run on a clock that nobody sets.
        world.input(client, Input::Tick);
    }
}

/// Nodes lose sight of each other, or a client of a node; or all see each other again.
fn divide(world: &mut World, client: usize) {
    let place = world.rng.usize(..world.nodes.len());
    match world.rng.u8(..6) {
        0 | 1 if world.chaos.is_some() => {
            let is_noticed = world.rng.bool();
            world.say(|| format!("node {place} is cut off from the broker, noticed: {is_noticed}"));
            world.set_cut_off(place, true, is_noticed);
        }
        2 if world.chaos.is_some() => {
            world.say(|| "all nodes are connected to the broker".to_owned());
            (0..world.nodes.len()).for_each(|node| world.set_cut_off(node, false, false));
        }
        3 | 4 => {
            world.say(|| format!("client {client} has no way to node {place}"));
            world.clients[client].unreachable[place] = true;
            if world.clients[client].link.as_ref().is_some_and(|link| link.node == place) {
                world.cut(client, Cut::Unnoticed);
            }
        }
        _ => {
            world.say(|| format!("client {client} has a way to each node"));
            world.clients[client].unreachable.fill(false);
        }
    }
}

/// Events that no hub tells of: written by another node that died before it could.
fn write_unheard(world: &mut World) {
    let count = world.rng.choice([1, 3, 120, 250]).unwrap_or(1);
    world.say(|| format!("{count} messages that nobody hears of"));
    let name = UserName::parse("stranger").expect("a name");
    let names = vec![Claim { skeleton: name.to_string(), name }];
    let newcomer = Newcomer { id: UserId::from_bits(200), names };
    let identity = ask(world.store.identify(NewSession::of([200; 32], 0), Some(newcomer)));
    let author = identity.expect("it is available").user;
    let kind = EventKind::message(Body::parse("hello", 0).expect("a body"));
    let append = Append { room: LOBBY, author, at: 0, kind, reference: None };
    let appended = ask(world.store.append(vec![append; count]));
    assert!(appended.is_ok_and(|results| results.iter().all(Result::is_ok)));
}
