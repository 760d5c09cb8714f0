//! A delivery to a member allocates nothing: a message costs as many allocations in a large room as in a
//! small one.
//!
//! It runs an engine in this process, over real sockets, and counts what the thread allocates. It must not
//! know how the engine does it.

use std::io::{ErrorKind, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use server::broker::memory::MemoryBroker;
use server::engine::{ConnId, Engine, EngineConfig, NewConnection};
use server::gate::Gate;
use server::hub::{HubConfig, Mode, Request};
use server::socket::Socket;
use server::store::memory::MemoryStore;
use shared::model::{LOBBY, Ref};
use shared::protocol::ClientEnvelope;
use tokio::task::LocalSet;
use uuid::Uuid;

/// Messages that are counted; the one that costs least stands for all. The others met a timer, or what is told
/// of presence now and then.
const MESSAGES: u128 = 30;
/// Turns of the runtime that a message takes at most: its commit, its hint, its writes.
const TURNS: usize = 100;

#[test]
fn a_delivery_allocates_nothing() {
    let (few, many) = (allocations(3, 4), allocations(80, 4));
    assert!(few > 0, "nothing was counted");
    assert_eq!(few, many, "a message to 3 members, and to 80");
    // Compressed once for all.
    assert_eq!(allocations(3, 1_000), allocations(80, 1_000), "a long message to 3 members, and to 80");
}

/// How often the engine's thread allocates for one message of so many characters in a room of so many members.
fn allocations(members: usize, chars: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let turns = || {
        local.block_on(&runtime, async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    };
    let config = EngineConfig {
        hub: HubConfig { message_rate: 0, request_rate: 0, ..HubConfig::default() },
        send_queue_bytes: 1024 * 1024,
        ping_interval: Duration::from_secs(30),
    };
    let store = Arc::new(MemoryStore::new([0; 32]));
    let engine = Engine::new(1, config, store, Arc::new(MemoryBroker::new()), Arc::default(), [1; 32]);
    local.spawn_local(engine.clone().run());
    let mut clients: Vec<Client> =
        (0..members).map(|place| Client::open(&engine, &runtime, place as u8)).collect();
    for client in &clients {
        engine.request(client.id, Ok(Request::Envelope(ClientEnvelope::Hello { resume: Vec::new() })), 1);
    }
    let author = clients[0].id;
    let say = |n: u128| {
        let reference = Ref(Uuid::from_u128(n));
        let body = format!("{n:09}{}", "m".repeat(chars));
        engine.request(
            author,
            Ok(Request::Envelope(ClientEnvelope::Send { room: LOBBY, reference, body })),
            1,
        );
    };
    let mut fewest = u64::MAX;
    for n in 1..=MESSAGES {
        say(n);
        let counted = allocation_counter::measure(turns);
        // What a socket was given is at its other end by then, since both are on this machine.
        if clients.iter_mut().map(Client::has_news).fold(true, |all, news| all & news) && n > 1 {
            fewest = fewest.min(counted.count_total);
        }
    }
    assert_ne!(fewest, u64::MAX, "no message reached everybody within its turns");
    fewest
}

/// The other end of a connection of the engine.
struct Client {
    id: ConnId,
    socket: std::net::TcpStream,
}

impl Client {
    fn open(engine: &Rc<Engine>, runtime: &tokio::runtime::Runtime, place: u8) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (other, address) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        let _context = runtime.enter();
        let id = engine.open(NewConnection {
            socket: Rc::new(Socket::plain(tokio::net::TcpStream::from_std(other).unwrap())),
            mode: Mode::Full,
            arrival: server::hub::Arrival {
                token: [place; 32],
                ephemeral: false,
                may_be_new: true,
                device: Default::default(),
            },
            deflate: true,
            permit: Arc::new(Gate::new(0, 0).enter(address.ip()).unwrap()),
        });
        Self { id, socket }
    }

    /// Whether anything came.
    fn has_news(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let mut count = 0;
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("the engine closed the connection"),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count > 0,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
