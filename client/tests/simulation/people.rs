//! What people do, one thing at a time.

use client::route::Route;
use client::state::Input;
use server::broker::{Hint, Topic};
use server::store::{Store, StoreError};
use shared::acts::Act;
use shared::model::{LOBBY, Line, RoomId, Seq, UserId};
use shared::protocol::{ClientEnvelope, EventKind, RoomKind, encode};

use super::ledger::ask;
use super::world::World;

/// A person does something.
pub fn act(world: &mut World, client: usize) {
    if world.clients[client].is_asleep || world.clients[client].is_gone {
        return;
    }
    let state = &world.clients[client].state;
    let rooms: Vec<RoomId> = state.rooms.keys().copied().collect();
    let room = world.rng.choice(&rooms).copied().unwrap_or(LOBBY);
    let current = state.current_room().map(|room| (room.info.id, room.timeline.last()));
    let name = format!("room-{}", world.rng.u8(..3));
    let unsent = world.rng.choice(world.clients[client].storage.keys().copied().collect::<Vec<_>>());
    let dice = if world.is_about_order && world.rng.bool() { 99 } else { world.rng.u8(..100) };
    let input = match dice {
        0..34 => {
            let count = if world.rng.u8(..8) == 0 { world.rng.usize(2..8) } else { 1 };
            for _ in 0..count {
                world.submit(client, room);
            }
            return;
        }
        34..38 => Input::Drafted { room, text: world.rng.choice(["", "a", "ab"]).unwrap_or("").to_owned() },
        38..41 => Input::CreateRoom(name),
        41..46 => Input::JoinRoom(name),
        46..49 => {
            let Some(peer) = somebody(world) else { return };
            Input::OpenDirect(peer)
        }
        49..52 => Input::LeaveRoom(room),
        52..54 => Input::Rename(format!("Ada {}", world.rng.u8(..5))),
        54..59 => {
            let routes = world.clients[client].state.rooms.values().map(|room| room.route());
            let route = world.rng.choice(routes.collect::<Vec<_>>()).unwrap_or(Route::Lobby);
            world.clients[client].route = route.clone();
            Input::Navigated(route)
        }
        59..66 => {
            let Some((room, seq)) = current else { return };
            Input::Seen { room, seq: seq.saturating_sub(world.rng.u64(..3)) }
        }
        66..69 => Input::Scrolled { room, at_latest: world.rng.bool() },
        69..72 => Input::LoadOlder(current.map_or(room, |(room, _)| room)),
        72..74 => Input::LoadNewer(room),
        74 => Input::JumpToLatest(room),
        75 => Input::AskMembers(room),
        76 => Input::AskDirectory,
        77 => Input::Visibility(world.rng.bool()),
        78 => Input::Woke,
        79 => Input::Offline,
        80 => Input::Idle(world.rng.bool()),
        81 => Input::TryNow,
        82 => Input::RetryAll(room),
        83 => {
            let Some(reference) = unsent else { return };
            Input::Retry(reference)
        }
        84 => {
            let Some(reference) = unsent else { return };
            Input::Discard(reference)
        }
        85 => return sign_out(world, client),
        86 => return pry(world, client),
        _ => return keep_order(world, client, room),
    };
    world.input(client, input);
}

/// What is done to rooms and people.
fn keep_order(world: &mut World, client: usize, mut room: RoomId) {
    let rooms = world.clients[client].state.rooms.values();
    let closed: Vec<RoomId> =
        rooms.filter(|room| room.info.kind != RoomKind::Public).map(|room| room.info.id).collect();
    if world.rng.u8(..4) != 0
        && let Some(closed) = world.rng.choice(closed)
    {
        room = closed;
    }
    let Some(user) = somebody(world) else { return };
    let message = some_message(world, client, room);
    let act = match world.rng.u8(..16) {
        0..2 => {
            let name = format!("den-{}", world.rng.u8(..2));
            return world.input(client, Input::CreatePrivateRoom(name));
        }
        2 => {
            let others = world.people();
            return world.input(client, Input::OpenGroup(others));
        }
        3..6 => Act::Invite { room, user },
        6..9 => Act::Remove { room, user },
        9..11 => {
            let Some(seq) = message else { return };
            Act::Delete { room, seq }
        }
        11 => {
            let Some(seq) = message else { return };
            Act::Unread { room, seq }
        }
        12 => {
            world.are_blocks = true;
            Act::Block { user, blocked: world.rng.bool() }
        }
        13 => match world.rng.u8(..4) {
            0 => Act::Topic { room, text: Line::new(&format!("topic {}", world.rng.u8(..3))) },
            1 => Act::RenameRoom { room, name: format!("other-{}", world.rng.u8(..3)) },
            2 => Act::Transfer { room, user },
            _ => Act::Quiet { room, quiet: world.rng.bool() },
        },
        14 => Act::EndSessions,
        _ if world.rng.bool() => return world.input(client, Input::LeaveRoom(room)),
        _ => return pry(world, client),
    };
    world.input(client, Input::Act(act));
}

/// Somebody who uses the page, perhaps oneself.
fn somebody(world: &mut World) -> Option<UserId> {
    let people = world.people();
    world.rng.choice(people)
}

/// A message that the page holds.
fn some_message(world: &mut World, client: usize, room: RoomId) -> Option<Seq> {
    let room = world.clients[client].state.rooms.get(&room)?;
    let messages = room.timeline.events().filter(|event| matches!(event.kind, EventKind::Message { .. }));
    let messages: Vec<Seq> = messages.map(|event| event.seq).collect();
    world.rng.choice(messages)
}

/// Asks for what a person could only ask with a client of their own, in whichever room there is.
fn pry(world: &mut World, client: usize) {
    let rooms: Vec<RoomId> = world.ledger.kinds.keys().copied().collect();
    let Some(room) = world.rng.choice(rooms) else { return };
    let envelope = match world.rng.u8(..6) {
        0 => ClientEnvelope::Members { room },
        1 => ClientEnvelope::Join { room: room.to_string(), after: Some(0) },
        2 => ClientEnvelope::Typing { room },
        _ => ClientEnvelope::History { room, before: Seq::MAX },
    };
    world.say(|| format!("client {client} pries: {envelope:?}"));
    let pried = world.clients[client].link.as_mut().filter(|link| link.conn.is_some() && !link.is_dead);
    if let Some(link) = pried {
        link.up.push_back(encode(&envelope));
    }
}

/// Signs a browser out by way of some node, as HTTP does.
fn sign_out(world: &mut World, client: usize) {
    let nodes: Vec<usize> = (0..world.nodes.len()).filter(|node| world.nodes[*node].is_some()).collect();
    let Some(place) = world.rng.choice(nodes) else { return };
    let (token, everywhere) = (world.clients[client].token, world.rng.bool());
    world.say(|| format!("client {client} signs out of session {token} by node {place}"));
    match ask(world.ways[place].sign_out([token; 32], everywhere)) {
        Ok(ended) => {
            if let Some(node) = &world.nodes[place] {
                node.publish(Topic::All, Hint::Ended(ended));
            }
        }
        // It may have been written all the same.
        Err(StoreError::Unavailable(_)) => world.signals_lost = true,
        Err(_) => {}
    }
}
