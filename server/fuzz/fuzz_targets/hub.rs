//! Any sequence of requests, connections and faults, on one or two hubs over one store: nothing panics, each
//! room's log has no hole, and nobody is told of a room they are not in.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;
use server::broker::memory::MemoryBroker;
use server::hub::{Conn, HubConfig, Mode};
use server::simulation::{Node, Output};
use server::store::Store;
use server::store::memory::MemoryStore;
use shared::acts::{Act, List};
use shared::model::{LOBBY, Line, Ref, RoomId, UserId};
use shared::protocol::{ClientEnvelope, Presence, Resume, RoomInfo, RoomKind, ServerEnvelope, encode};

/// Steps of one run: more are not worth the time.
const STEPS_MAX: usize = 200;

#[derive(Default)]
struct Client {
    user: Option<UserId>,
    rooms: BTreeSet<RoomId>,
}

struct World {
    nodes: Vec<Node>,
    clients: BTreeMap<(usize, Conn), Client>,
    users: Vec<UserId>,
    rooms: Vec<RoomId>,
    /// Who was ever let into a direct conversation.
    directs: BTreeMap<RoomId, BTreeSet<UserId>>,
    now: i64,
    sent: u8,
}

// The first byte: bit 0 is a second hub, bit 1 the limits of an ordinary server. Then three bytes a step:
// what to do, on which connection, and with what.
fuzz_target!(|input: &[u8]| {
    let [flags, steps @ ..] = input else { return };
    let unlimited = HubConfig { message_rate: 0, request_rate: 0, rooms_per_user: 3, ..HubConfig::default() };
    let config = if flags & 2 != 0 { HubConfig::default() } else { unlimited };
    let store = MemoryStore::new([0; 32]);
    let broker = Arc::new(MemoryBroker::new());
    let nodes = 1 + u32::from(flags & 1);
    let node = |id| Node::new(id, config, Arc::new(store.clone()), broker.clone(), u64::from(id));
    let mut world = World {
        nodes: (1..=nodes).map(node).collect(),
        clients: BTreeMap::new(),
        users: Vec::new(),
        rooms: vec![LOBBY],
        directs: BTreeMap::new(),
        now: 0,
        sent: 0,
    };
    for step in steps.chunks_exact(3).take(STEPS_MAX) {
        world.step(step[0], step[1], step[2]);
        world.read();
    }
    world.settle();
    for room in world.rooms {
        let mut seq = 0;
        loop {
            let page = store.events_after(room, seq, 100).now_or_never();
            let Some(Ok(page)) = page else { break };
            for event in &page.events {
                assert_eq!((event.room, event.seq), (room, seq + 1));
                seq = event.seq;
            }
            if page.events.is_empty() {
                assert_eq!(page.head, seq);
                break;
            }
        }
    }
});

impl World {
    fn step(&mut self, what: u8, which: u8, value: u8) {
        let place = usize::from(which) % self.nodes.len();
        let conn = self.clients.keys().nth(usize::from(which) % self.clients.len().max(1)).copied();
        let Some((node, conn)) = conn.filter(|_| what % 32 > 1) else {
            let mode = if what % 2 == 0 { Mode::Full } else { Mode::Plain };
            let conn = self.nodes[place].connect(mode, [value % 5; 32], value & 0x80 != 0);
            if mode == Mode::Full {
                self.clients.insert((place, conn), Client::default());
                if value & 0x40 == 0 {
                    self.ask(place, conn, &ClientEnvelope::Hello { resume: vec![] });
                }
            }
            return;
        };
        let room = self.rooms[usize::from(value) % self.rooms.len()];
        let name = ["a", "club", "Club", "\u{441}lub", "<b>", "x y", "magpie", ""][usize::from(value) % 8];
        let envelope = match what % 32 {
            2 => ClientEnvelope::Hello { resume: vec![Resume { room, epoch: 1, seq: u64::from(value / 8) }] },
            3 | 4 => ClientEnvelope::Join { room: room.to_string(), after: None },
            5 => ClientEnvelope::Join { room: room.to_string(), after: Some(u64::from(value / 8)) },
            6 => ClientEnvelope::Join { room: name.to_owned(), after: None },
            7 => ClientEnvelope::Create { name: name.to_owned(), private: value & 0x80 != 0 },
            8 | 9 => match self.users.get(usize::from(value) % self.users.len().max(1)) {
                Some(user) => ClientEnvelope::Direct { user: *user },
                None => ClientEnvelope::Direct { user: UserId::from_bits(u64::from(value)) },
            },
            10 => ClientEnvelope::Leave { room },
            11 => ClientEnvelope::History { room, before: u64::from(value) },
            12..=15 => {
                self.sent = self.sent.wrapping_add(1);
                // Some are repeats.
                let reference = Ref::new(0, [if value & 0x80 != 0 { value } else { self.sent }; 10]);
                ClientEnvelope::Send { room, reference, body: name.to_owned() }
            }
            16 => {
                let version = (value & 0x80 != 0).then_some(u32::from(value % 4));
                ClientEnvelope::Read { room, seq: u64::from(value), version }
            }
            17 => ClientEnvelope::Rename { name: name.to_owned() },
            18 => ClientEnvelope::Presence { presence: Presence::Away },
            19 => ClientEnvelope::Presence { presence: Presence::Online },
            20 => ClientEnvelope::Typing { room },
            21 => ClientEnvelope::Members { room },
            22 => ClientEnvelope::Directory,
            23 => ClientEnvelope::Ping { n: u64::from(value) },
            24 => return self.nodes[node].send(conn, name),
            25 => {
                self.clients.remove(&(node, conn));
                return self.nodes[node].close(conn);
            }
            26 => {
                self.now += i64::from(value) * 100;
                return self.nodes.iter_mut().for_each(|node| node.tick(self.now));
            }
            27 => {
                self.nodes[place].step();
                return;
            }
            28 => {
                self.nodes[place].answer(usize::from(value) % 4);
                return;
            }
            29 => return self.nodes[place].announce(name),
            30 => self.act(which, value, name),
            _ => return self.settle(),
        };
        self.ask(node, conn, &envelope);
    }

    /// Something other than talk, with a room and a user that follow from the step.
    fn act(&self, which: u8, value: u8, name: &str) -> ClientEnvelope {
        let room = self.rooms[usize::from(which) % self.rooms.len()];
        let user = self.users.get(usize::from(which / 8) % self.users.len().max(1));
        let user = user.copied().unwrap_or(UserId::from_bits(u64::from(value)));
        let (seq, text, seconds) = (u64::from(which), Line::new(name), u32::from(value / 32));
        ClientEnvelope::Act(match value % 32 {
            0 => return ClientEnvelope::Group { users: self.users.clone() },
            1 => {
                let list = List::ALL[usize::from(which) % List::ALL.len()];
                return ClientEnvelope::List { list, room: Some(room), text: Some(text), before: None };
            }
            2..=5 => Act::Invite { room, user },
            6..=9 => Act::Remove { room, user },
            10 => Act::Transfer { room, user },
            11 => Act::Topic { room, text },
            12 => Act::RenameRoom { room, name: name.to_owned() },
            13 => Act::Archive { room, archived: which & 1 != 0 },
            14 => Act::DeleteRoom { room },
            15 => Act::SlowMode { room, seconds },
            16 => Act::Mute { room, user, seconds },
            17..=21 => Act::Delete { room, seq },
            22 => Act::Report { room, seq, text },
            23..=25 => Act::Unread { room, seq },
            26 => Act::Quiet { room, quiet: which & 1 != 0 },
            27 => Act::Block { user, blocked: which & 1 != 0 },
            28 => Act::EndSessions,
            29 => Act::MakeBot { name: name.to_owned() },
            30 => Act::Ban { user: Some(user), addresses: None, text, seconds },
            _ => Act::MakeReset { user },
        })
    }

    fn ask(&mut self, node: usize, conn: Conn, envelope: &ClientEnvelope) {
        self.nodes[node].send(conn, &encode(envelope));
    }

    fn settle(&mut self) {
        // One hub's events are the other's hints.
        for _ in 0..3 {
            self.nodes.iter_mut().for_each(Node::settle);
        }
        self.read();
    }

    /// Reads what came and checks that it was for whom it came to.
    fn read(&mut self) {
        let mut closed = Vec::new();
        for ((node, conn), client) in &mut self.clients {
            for output in self.nodes[*node].take(*conn) {
                let text = match output {
                    Output::Text(text) => text,
                    Output::Close(_) => {
                        closed.push((*node, *conn));
                        break;
                    }
                };
                let envelope = serde_json::from_str(&text).expect("an envelope");
                let mut enter = |client: &mut Client, info: &RoomInfo| {
                    client.rooms.insert(info.id);
                    if !self.rooms.contains(&info.id) {
                        self.rooms.push(info.id);
                    }
                    if let (RoomKind::Direct, Some(user)) = (info.kind, client.user) {
                        let people = self.directs.entry(info.id).or_default();
                        people.insert(user);
                        people.extend(info.peer.as_ref().map(|peer| peer.id));
                        assert!(people.len() <= 2, "{people:?} in the conversation {}", info.id);
                    }
                };
                let room = match envelope {
                    ServerEnvelope::Welcome { user, rooms, .. } => {
                        client.user = Some(user.id);
                        if !self.users.contains(&user.id) {
                            self.users.push(user.id);
                        }
                        rooms.iter().for_each(|info| enter(client, info));
                        continue;
                    }
                    ServerEnvelope::Joined { room, events, info, .. } => {
                        info.iter().for_each(|info| enter(client, info));
                        assert!(events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{text}");
                        assert!(events.iter().all(|event| event.room == room), "{text}");
                        room
                    }
                    ServerEnvelope::Left { room } => {
                        client.rooms.remove(&room);
                        continue;
                    }
                    ServerEnvelope::History { room, .. }
                    | ServerEnvelope::Presence { room, .. }
                    | ServerEnvelope::Typing { room, .. }
                    | ServerEnvelope::Members { room, .. } => room,
                    ServerEnvelope::Event(event) => event.room,
                    ServerEnvelope::Room { info } => info.id,
                    ServerEnvelope::Ack { .. }
                    | ServerEnvelope::Read { .. }
                    | ServerEnvelope::Error(_)
                    | ServerEnvelope::Me { .. }
                    | ServerEnvelope::Done { .. }
                    | ServerEnvelope::List { .. }
                    | ServerEnvelope::Renamed { .. }
                    | ServerEnvelope::Directory { .. }
                    | ServerEnvelope::Announcement { .. }
                    | ServerEnvelope::Pong { .. } => continue,
                };
                assert!(client.rooms.contains(&room), "not in {room}, but told {text}");
            }
        }
        for (node, conn) in closed {
            self.clients.remove(&(node, conn));
            self.nodes[node].close(conn);
        }
    }
}
