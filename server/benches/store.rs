//! How many appends a second a store acknowledges, and how long each takes: the embedded one, and PostgreSQL on
//! the same machine where POSTGRES_BIN names the folder of its programs. Both sync to the disk.
//!
//! So many people write into one room, or each into their own, each the next message when the last one is
//! acknowledged.

#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use server::store::postgres::PostgresStore;
use server::store::sqlite::SqliteStore;
use server::store::{Append, NewSession, Newcomer, Store};
use shared::model::{Body, LOBBY, Ref, RoomId, RoomName, UserId, UserName};
use shared::protocol::{EventKind, RoomKind, User};

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(4);
/// People who write at once.
const WRITERS: [u64; 3] = [1, 32, 512];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir_in(".").unwrap();
    let embedded: Arc<dyn Store> = Arc::new(SqliteStore::open(directory.path()).unwrap());
    runtime.block_on(measure("SQLite", &[embedded]));
    let Some(programs) = postgres::programs() else { return };
    let server = postgres::Server::start_with(&programs, true);
    let address = server.database();
    let open = || -> Arc<dyn Store> { Arc::new(PostgresStore::open(&address).unwrap()) };
    runtime.block_on(measure("PostgreSQL", &[open()]));
    let address = server.database();
    let open = || -> Arc<dyn Store> { Arc::new(PostgresStore::open(&address).unwrap()) };
    runtime.block_on(measure("PostgreSQL, 2 nodes", &[open(), open()]));
}

/// People are shared among the nodes.
async fn measure(title: &str, nodes: &[Arc<dyn Store>]) {
    let mut people = Vec::new();
    for id in 1..=WRITERS[WRITERS.len() - 1] {
        people.push(person(&*nodes[0], id).await);
    }
    for writers in WRITERS {
        for is_one_room in [true, false] {
            let until = Instant::now() + TIME;
            let writing: Vec<_> = people[..writers as usize]
                .iter()
                .zip(nodes.iter().cycle())
                .map(|((user, own), node)| {
                    let room = if is_one_room { LOBBY } else { *own };
                    tokio::spawn(write(node.clone(), user.clone(), room, until))
                })
                .collect();
            let mut times = Vec::new();
            for writer in writing {
                times.extend(writer.await.unwrap());
            }
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            println!(
                "{title}: {writers} writers, {}: {:.0} appends/s, median {:.2?}, 99 % below {:.2?}",
                if is_one_room { "one room" } else { "each in a room" },
                times.len() as f64 / TIME.as_secs_f64(),
                at(0.5),
                at(0.99)
            );
        }
    }
}

/// Somebody, and a room of theirs.
async fn person(store: &dyn Store, id: u64) -> (User, RoomId) {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&id.to_le_bytes());
    let name = UserName::claim(&format!("Writer {id}")).unwrap();
    let newcomer = Newcomer { id: UserId::from_bits(id), names: vec![name] };
    let user = store.identify(NewSession::of(token, 1), Some(newcomer)).await.unwrap().user;
    let (room, name) = (RoomId::from_bits(1_000 + id), RoomName::claim(&format!("room-{id}")).unwrap());
    store.create_room(room, RoomKind::Public, name, user.id, 0, 1).await.unwrap();
    (user, room)
}

/// Writes until the time is over: how long each append took.
async fn write(store: Arc<dyn Store>, user: User, room: RoomId, until: Instant) -> Vec<Duration> {
    let kind = EventKind::message(Body::parse("Tea is ready, and there is cake for everyone", 0).unwrap());
    let mut times = Vec::new();
    while Instant::now() < until {
        let begin = Instant::now();
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let reference = Some(Ref::new(begin.elapsed().as_millis() as i64, random));
        let (author, kind) = (user.clone(), kind.clone());
        let append = Append { room, author, at: 1, kind, reference };
        store.append(vec![append]).await.unwrap().remove(0).unwrap();
        times.push(begin.elapsed());
    }
    times
}
