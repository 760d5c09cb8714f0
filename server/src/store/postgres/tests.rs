//! What only the store of many nodes does: several on one database, and a server, or the way to it, that fails.

mod faults;
mod plans;
#[path = "../../../tests/support/postgres.rs"]
pub(in crate::store) mod server;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shared::model::{LOBBY, Ref, RoomId, RoomName, Seq};
use shared::protocol::{Event, RoomKind, User};
use uuid::Uuid;

use super::{OpenError, PostgresStore};
use crate::store::conformance::{guest, log, message, say, user_claim, wait};
use crate::store::sqlite::database::NONE;
use crate::store::sqlite::{Medium, Writer};
use crate::store::{RoomKey, Store, StoreError, TokenHash};
use server::Server;

fn reference(n: u128) -> Ref {
    Ref(Uuid::from_u128(n))
}

fn room(store: &PostgresStore, id: u64, name: &str, owner: &User) -> RoomId {
    let claim = RoomName::claim(name).unwrap();
    wait(store.create_room(RoomId::from_bits(id), RoomKind::Public, claim, owner.id, 0, 2)).unwrap().info.id
}

fn enter(store: &PostgresStore, room: RoomId, user: &User) {
    wait(store.join(RoomKey { id: Some(room), skeleton: None }, user.id, 0, 3)).unwrap();
}

fn seqs(events: &[Event]) -> Vec<Seq> {
    events.iter().map(|event| event.seq).collect()
}

fn is_gapless(events: &[Event]) -> bool {
    seqs(events) == (1..=events.len() as Seq).collect::<Vec<_>>()
}

/// How often each `ref` stands in a log.
fn references(events: &[Event]) -> BTreeMap<u128, usize> {
    let mut found = BTreeMap::new();
    for reference in events.iter().filter_map(|event| event.reference) {
        *found.entry(reference.0.as_u128()).or_default() += 1;
    }
    found
}

#[test]
fn two_nodes_keep_one_order_and_append_a_ref_once() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 40;
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    let owner = guest(&nodes[0], 1, "Owner");
    let rooms = [LOBBY, room(&nodes[0], 50, "one", &owner), room(&nodes[1], 51, "two", &owner)];
    let users: Vec<User> =
        (0..WRITERS).map(|n| guest(&nodes[(n % 2) as usize], 10 + n, &format!("Writer {n}"))).collect();
    users.iter().for_each(|user| rooms[1..].iter().for_each(|room| enter(&nodes[0], *room, user)));

    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (place, user) in users.iter().enumerate() {
            let nodes = &nodes;
            writers.push(scope.spawn(move || {
                for n in 0..EACH {
                    let room = rooms[(n % 3) as usize];
                    let append = message(room, user, &n.to_string(), Some(reference(n.into())));
                    // Sent to both nodes at once: one of them has it first, and both say the same.
                    let both =
                        [place % 2, (place + 1) % 2].map(|node| nodes[node].append(vec![append.clone()]));
                    let both = both.map(|reply| wait(reply).unwrap().remove(0).unwrap());
                    assert_eq!(both[0].event, both[1].event);
                    assert!(both[0].first != both[1].first);
                }
            }));
        }
        for node in nodes.iter().chain(&nodes) {
            let is_done = &is_done;
            scope.spawn(move || {
                // Whoever sees an event sees all before it, on every node.
                let mut read = [0; 3];
                while !is_done.load(Ordering::Relaxed) {
                    for (room, read) in rooms.iter().zip(&mut read) {
                        let page = wait(node.events_after(*room, *read, 100)).unwrap();
                        let expected: Vec<Seq> = (*read + 1..=page.head.min(*read + 100)).collect();
                        assert_eq!(seqs(&page.events), expected);
                        *read = page.events.last().map_or(*read, |event| event.seq);
                    }
                }
            });
        }
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let mut appended = 0;
    for room in rooms {
        let events = log(&nodes[0], room);
        assert!(is_gapless(&events));
        assert_eq!(events, log(&nodes[1], room));
        let mut seen = BTreeSet::new();
        for event in events.iter().filter(|event| event.reference.is_some()) {
            assert!(seen.insert((event.user.id, event.reference)));
            appended += 1;
        }
    }
    assert_eq!(appended, WRITERS * EACH);
}

#[test]
fn crossing_refs_on_two_nodes_are_appended_once() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    let ada = guest(&nodes[0], 1, "Ada");
    let rooms = [room(&nodes[0], 50, "one", &ada), room(&nodes[0], 51, "two", &ada)];
    for n in 0..4 {
        let refs = [reference(2 * n), reference(2 * n + 1)];
        let batch = |room, [first, second]: [Ref; 2]| {
            vec![message(room, &ada, "1", Some(first)), message(room, &ada, "2", Some(second))]
        };
        // Each holds a room and waits for the other's `ref`.
        let both =
            [nodes[0].append(batch(rooms[0], refs)), nodes[1].append(batch(rooms[1], [refs[1], refs[0]]))];
        let both = both.map(|reply| wait(reply).unwrap());
        assert_eq!(both[0][0].as_ref().unwrap().event, both[1][1].as_ref().unwrap().event);
        assert_eq!(both[0][1].as_ref().unwrap().event, both[1][0].as_ref().unwrap().event);
    }
    let [one, two] = rooms.map(|room| log(&nodes[0], room));
    assert!(is_gapless(&one) && is_gapless(&two));
    let all: Vec<Event> = one.into_iter().chain(two).collect();
    assert_eq!(references(&all), (0..8).map(|n| (n, 1)).collect());
}

#[test]
fn changes_and_appends_on_two_nodes_do_not_hinder_each_other() {
    const PEOPLE: u64 = 8;
    const ROUNDS: u64 = 15;
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    let owner = guest(&nodes[0], 1, "Owner");
    let rooms = [room(&nodes[0], 50, "one", &owner), room(&nodes[0], 51, "two", &owner)];
    std::thread::scope(|scope| {
        for n in 0..PEOPLE {
            let nodes = &nodes;
            scope.spawn(move || {
                let (here, there) = (&nodes[(n % 2) as usize], &nodes[(1 - n % 2) as usize]);
                let user = guest(here, 10 + n, &format!("Person {n}"));
                for round in 0..ROUNDS {
                    let in_order = if n % 4 < 2 { [0, 1] } else { [1, 0] };
                    let [first, second] = in_order.map(|place| rooms[place]);
                    enter(here, first, &user);
                    enter(there, second, &user);
                    let batch = vec![message(second, &user, "a", None), message(first, &user, "b", None)];
                    let replies = [here.append(batch), there.append(vec![message(LOBBY, &user, "c", None)])];
                    let name = user_claim(&format!("Person {n} of {round}"));
                    let renamed = wait(there.rename(user.id, name, true, 5)).unwrap();
                    assert_eq!(renamed.1.len(), 3);
                    for reply in replies {
                        assert!(wait(reply).unwrap().iter().all(Result::is_ok));
                    }
                    for room in [first, second, LOBBY] {
                        let read = [here, there].map(|node| node.mark_read(room, user.id, 2 + round, None));
                        read.into_iter().for_each(|reply| assert!(wait(reply).unwrap().seq >= 2 + round));
                    }
                    assert!(wait(here.leave(second, user.id, 6)).unwrap().is_some());
                    assert!(wait(there.leave(first, user.id, 6)).unwrap().is_some());
                }
            });
        }
    });
    for room in rooms {
        assert!(is_gapless(&log(&nodes[0], room)));
        assert_eq!(wait(nodes[1].members(room, 10)).unwrap().1, 1);
    }
    assert!(is_gapless(&log(&nodes[1], LOBBY)));
    assert_eq!(u64::from(wait(nodes[0].directory(owner.id, 1)).unwrap()[0].members), PEOPLE + 1);
}

#[test]
fn what_one_node_changes_the_others_know_at_once() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    let (ada, bob) = (guest(&nodes[0], 1, "Ada"), guest(&nodes[1], 2, "Bob"));
    let den = room(&nodes[0], 50, "den", &ada);
    enter(&nodes[1], den, &bob);
    say(&nodes[0], den, &bob, "hello");
    wait(nodes[1].leave(den, bob.id, 5)).unwrap();
    let late = wait(nodes[0].append(vec![message(den, &bob, "late", None)])).unwrap();
    assert_eq!(late, [Err(StoreError::NotMember)]);
    // Cursors of two devices on two nodes.
    enter(&nodes[1], den, &bob);
    for _ in 0..9 {
        say(&nodes[1], den, &ada, "more");
    }
    let moved = [6, 9, 7, 8].map(|seq| nodes[(seq % 2) as usize].mark_read(den, bob.id, seq, None));
    for reply in moved {
        wait(reply).unwrap();
    }
    assert_eq!(wait(nodes[0].room_info(den, bob.id)).unwrap().read, 9);
}

#[test]
fn nodes_that_start_at_once_make_one_database() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let secrets = std::thread::scope(|scope| {
        let open = || Medium::secret(&PostgresStore::open(&address).unwrap());
        let nodes: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect::<BTreeSet<_>>()
    });
    assert_eq!(secrets.len(), 1);
    assert_ne!(secrets.first(), Some(&[0; 32]));
}

#[test]
fn every_write_sees_what_stands_whatever_the_database_is_set_to() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let name = address.rsplit('/').next().unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    server.sql(name, &set).unwrap();
    let node = PostgresStore::open(&address).unwrap();
    let level = |writer: &mut Writer| {
        let sql = "SELECT current_setting('transaction_isolation')";
        writer.connection.prepare_cached(sql)?.query_row(NONE, |row| row.get::<String>(0))
    };
    for reply in [node.write(1, level), node.write_small((1, 1), 1, level)] {
        assert_eq!(wait(reply).unwrap(), "read committed");
    }
}

#[test]
fn a_touch_waits_for_nobody() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    guest(&nodes[0], 1, "Ada");
    let name = address.rsplit('/').next().unwrap();
    for token in ["a", "b", "c"] {
        let insert = format!("INSERT INTO sessions (token, \"user\", at) VALUES (sha256('{token}'), 1, 1)");
        server.sql(name, &insert).unwrap();
    }
    let token = |text: &str| -> TokenHash { Sha256::digest(text).into() };
    let ((held, is_held), (go, gone)) = (channel(), channel::<()>());
    let other = nodes[1].write_small((1, 1), 1, move |writer| {
        let sql = "UPDATE sessions SET used = 7 WHERE token = sha256('a')";
        writer.connection.prepare_cached(sql)?.execute(NONE)?;
        held.send(()).unwrap();
        gone.recv().unwrap();
        Ok(())
    });
    is_held.recv().unwrap();
    wait(nodes[0].touch(vec![(token("b"), 8), (token("a"), 8), (token("b"), 9), (token("?"), 9)])).unwrap();
    go.send(()).unwrap();
    wait(other).unwrap();
    wait(nodes[0].touch(vec![(token("c"), 6), (token("b"), 5)])).unwrap();
    let used =
        "SELECT used FROM sessions WHERE token IN (sha256('a'), sha256('b'), sha256('c')) ORDER BY used";
    assert_eq!(server.sql(name, used).as_deref(), Some("6\n7\n9"));
}

#[test]
fn a_newer_schema_is_refused() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    drop(PostgresStore::open(&address).unwrap());
    let name = address.rsplit('/').next().unwrap();
    server.sql(name, "INSERT INTO migrations (version) VALUES (1000)").unwrap();
    let error = PostgresStore::open(&address).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 1_000, .. }));
    assert!(error.to_string().contains("run a newer Magpie"), "{error}");
}

#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    let Some(server) = server::shared() else { return };
    let make = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    server.sql("postgres", make).unwrap();
    let error = PostgresStore::open(&server.address("latin")).err().unwrap();
    assert!(matches!(&error, OpenError::Encoding(encoding) if encoding == "LATIN1"), "{error}");
    assert!(error.to_string().contains("--encoding=UTF8"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let open = |address: &str| PostgresStore::open_within(address, Duration::ZERO).err().unwrap();
    let error = open("postgres://nobody@127.0.0.1:1/none");
    assert!(matches!(error, OpenError::Away(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(matches!(open("postgres://localhost:none/x"), OpenError::Address(_)));
    let Some(server) = server::shared() else { return };
    // Nothing gets better by waiting.
    let error = PostgresStore::open(&server.address("none")).err().unwrap();
    assert!(matches!(error, OpenError::Server(_)), "{error}");
    assert!(error.to_string().contains("\"none\" does not exist"), "{error}");
}

#[test]
fn the_last_of_many_servers_is_found_and_kept_to() {
    let Some(server) = server::shared() else { return };
    // They take connections, and say nothing.
    let holes = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports: String =
        holes.iter().map(|hole| format!("127.0.0.1:{},", hole.local_addr().unwrap().port())).collect();
    let address = server.database().replace("@127", &format!("@{ports}127"));
    let store = PostgresStore::open_within(&address, Duration::ZERO).unwrap();
    // Nobody has the time to look for it again.
    wait(store.check()).unwrap();
}

#[test]
fn a_start_waits_for_its_server() {
    let Some(programs) = server::programs() else { return };
    let mut server = Server::start(&programs);
    let address = server.database();
    server.signal("KILL");
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| PostgresStore::open(&address));
        server.restart();
        opening.join().unwrap()
    });
    wait(opened.unwrap().check()).unwrap();
}
