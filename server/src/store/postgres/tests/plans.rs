//! How the server goes about it when there is much: by index, whatever it believes to know.

use std::time::{Duration, Instant};

use shared::acts::Act;
use shared::model::{LOBBY, RoomId};
use shared::protocol::User;

use super::server::{self, Server};
use super::{enter, room};
use crate::store::conformance::{guest, say, user_claim, wait};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::Medium;
use crate::store::{Made, Store};

/// What is waited for at most, where something must happen some time.
const PATIENCE: Duration = Duration::from_secs(60);

const DEN: RoomId = RoomId::from_bits(50);
/// Deleted, and not taken away yet.
const GONE: RoomId = RoomId::from_bits(999);

/// How often all of the events were looked at. Sessions tell when they end.
fn scans(server: &Server, name: &str) -> String {
    let begin = Instant::now();
    let others = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'magpie'"
    );
    while server.sql(name, &others).as_deref() != Some("0") {
        assert!(begin.elapsed() < PATIENCE);
    }
    server.sql(name, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'events'").unwrap()
}

fn fill(server: &Server, name: &str) {
    for sql in [
        "INSERT INTO events (room, seq, at, author, author_name, kind, body)
         SELECT 50, seq, 5, 1, 'Ada', 'message', 'hello hello hello hello' FROM generate_series(10, 150000) seq",
        "INSERT INTO mentions (\"user\", room, seq) SELECT -1, 50, seq * 50 FROM generate_series(1, 3000) seq",
        "ANALYZE events",
        "ANALYZE mentions",
    ] {
        server.sql(name, sql).unwrap();
    }
}

/// As if a room had been deleted.
const DELETED: [&str; 2] = [
    "INSERT INTO events (room, seq, at, author, author_name, kind, body)
     SELECT 999, seq, 5, 1, 'Ada', 'message', 'hello' FROM generate_series(1, 15000) seq",
    "INSERT INTO purges (room) VALUES (999)",
];

#[test]
fn nobody_reads_all_that_was_ever_said() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let name = address.rsplit('/').next().unwrap();
    let store = PostgresStore::open(&address).unwrap();
    let (ada, bob) = (guest(&store, 1, "Ada"), guest(&store, 2, "Bob"));
    room(&store, DEN.bits(), "den", &ada);
    enter(&store, DEN, &bob);
    drop(store);
    fill(server, name);
    let before = scans(server, name);
    for (mode, round) in [("auto", 0), ("force_custom_plan", 1), ("force_generic_plan", 2)] {
        server.sql(name, &format!("ALTER DATABASE {name} SET plan_cache_mode = {mode}")).unwrap();
        DELETED.into_iter().for_each(|sql| drop(server.sql(name, sql).unwrap()));
        let store = PostgresStore::open(&address).unwrap();
        use_all(&store, &ada, &bob, round);
        drop(store);
        assert_eq!(scans(server, name), before, "{mode}");
        let left = format!("SET enable_seqscan = off; SELECT room FROM events WHERE room = {}", GONE.bits());
        assert_eq!(server.sql(name, &left).as_deref(), Some(""));
        assert_eq!(server.sql(name, "SELECT count(*) FROM purges").as_deref(), Some("0"));
    }
}

fn use_all(store: &PostgresStore, ada: &User, bob: &User, round: u64) {
    // Places that are behind by much, by little and not at all.
    for read in [100_000 + round, 140_000 + round, 149_900 + round] {
        let cursor = wait(store.mark_read(DEN, bob.id, read, None)).unwrap();
        assert!(cursor.unread > 0);
        assert!(wait(store.account(bob.id)).unwrap().rooms.iter().any(|room| room.unread > 0));
    }
    say(store, DEN, ada, "once more");
    assert_eq!(wait(store.heads(vec![DEN, LOBBY, GONE])).unwrap().len(), 2);
    for blocked in [true, false] {
        let made = Made { session: [0; 32], id: 1, secret: [0; 32] };
        let rooms = wait(store.act(bob.id, Act::Block { user: ada.id, blocked }, made, 6)).unwrap().rooms;
        assert_eq!(rooms, [DEN]);
    }
    let claim = user_claim(&format!("Ada {round}"));
    wait(store.rename(ada.id, claim, true, 7)).unwrap();
}

#[test]
fn nobody_is_refused_because_a_deleted_room_cannot_be_taken_away() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let name = address.rsplit('/').next().unwrap();
    let store = PostgresStore::open(&address).unwrap();
    let ada = guest(&store, 1, "Ada");
    room(&store, DEN.bits(), "den", &ada);
    for sql in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$",
        "CREATE TRIGGER refuse BEFORE DELETE ON events EXECUTE FUNCTION refuse()",
    ] {
        server.sql(name, sql).unwrap();
    }
    let made = Made { session: [0; 32], id: 1, secret: [0; 32] };
    wait(store.act(ada.id, Act::DeleteRoom { room: DEN }, made, 6)).unwrap();
    for n in 0..3 {
        wait(store.rename(ada.id, user_claim(&format!("Ada {n}")), false, 7)).unwrap();
    }
    // It is not forgotten either.
    server.sql(name, "DROP TRIGGER refuse ON events").unwrap();
    wait(store.rename(ada.id, user_claim("Ada"), false, 7)).unwrap();
    wait(store.write(1, |_| Ok(()))).unwrap();
    assert_eq!(server.sql(name, "SELECT count(*) FROM purges").as_deref(), Some("0"));
}
