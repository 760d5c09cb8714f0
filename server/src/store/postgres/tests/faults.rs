//! A server that stops, dies and comes back, and a way to it that breaks at the worst moment: between a commit
//! and its answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use shared::model::LOBBY;

use super::server::{self, Server};
use super::{is_gapless, reference, references};
use crate::store::conformance::{guest, log, message, say, wait};
use crate::store::postgres::{PostgresStore, READERS};
use crate::store::sqlite::Medium;
use crate::store::{Store, StoreError};

/// What is waited for at most, where something must happen some time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Far above what is promised: other tests run at the same time.
const REFUSED_MAX: Duration = Duration::from_secs(8);

/// Tries until it works.
pub(super) fn eventually<T>(mut attempt: impl FnMut() -> Result<T, StoreError>) -> T {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(StoreError::Unavailable(_)) if begin.elapsed() < PATIENCE => std::thread::yield_now(),
            Err(error) => panic!("{error} after {:?}", begin.elapsed()),
        }
    }
}

/// Asks for one of each kind; all must be refused.
fn all_are_refused(store: &PostgresStore, what: &str) {
    let begin = Instant::now();
    let user = shared::model::UserId::from_bits(1);
    let ada = shared::protocol::User { id: user, name: super::user_claim("Ada").name };
    let append = store.append(vec![message(LOBBY, &ada, "lost", None)]);
    let replies = [store.check(), store.touch(vec![([1; 32], 5)])];
    let (account, read) = (store.account(user), store.mark_read(LOBBY, user, 1, None));
    let rename = store.rename(user, super::user_claim("Eve"), false, 9);
    assert!(matches!(wait(append), Err(StoreError::Unavailable(_))));
    replies.into_iter().for_each(|reply| assert!(matches!(wait(reply), Err(StoreError::Unavailable(_)))));
    assert!(matches!(wait(account), Err(StoreError::Unavailable(_))));
    assert!(matches!(wait(read), Err(StoreError::Unavailable(_))));
    assert!(matches!(wait(rename), Err(StoreError::Unavailable(_))));
    println!("refused after {:?}: {what}", begin.elapsed());
    assert!(begin.elapsed() < REFUSED_MAX);
}

#[test]
fn a_server_that_hangs_or_dies_is_refused_for_and_found_again() {
    let Some(programs) = server::programs() else { return };
    let mut server = Server::start(&programs);
    let store = PostgresStore::open(&server.database()).unwrap();
    let ada = guest(&store, 1, "Ada");
    say(&store, LOBBY, &ada, "before");
    for round in 0..2 {
        server.signal("STOP");
        all_are_refused(&store, "the server hangs");
        server.signal("CONT");
        let begin = Instant::now();
        let hello = || message(LOBBY, &ada, "hello", Some(reference(round)));
        eventually(|| wait(store.append(vec![hello()])).map(|mut answers| answers.remove(0).unwrap()));
        eventually(|| wait(store.check()));
        eventually(|| wait(store.account(ada.id)));
        println!("back after {:?}", begin.elapsed());

        server.signal("KILL");
        all_are_refused(&store, "the server is dead");
        server.restart();
        let begin = Instant::now();
        eventually(|| wait(store.append(vec![message(LOBBY, &ada, "again", Some(reference(10 + round)))])));
        eventually(|| wait(store.check()));
        println!("back after {:?}", begin.elapsed());
    }
    let events = log(&store, LOBBY);
    assert!(is_gapless(&events));
    assert_eq!(references(&events), [(0, 1), (1, 1), (10, 1), (11, 1)].into());
}

#[test]
fn a_server_that_only_reads_is_left_for_one_that_writes() {
    let Some(programs) = server::programs() else { return };
    let (old, new) = (Server::start(&programs), Server::start(&programs));
    let (here, there) = (old.database(), new.database());
    let name = here.rsplit('/').next().unwrap();
    let store = PostgresStore::open(&here).unwrap();
    let ada = guest(&store, 1, "Ada");
    // What a standby would have.
    assert_eq!(guest(&PostgresStore::open(&there).unwrap(), 1, "Ada"), ada);
    let both = here.replace("/d", &format!(",127.0.0.1:{}/d", new.port));
    let far_sighted = PostgresStore::open(&both).unwrap();
    say(&far_sighted, LOBBY, &ada, "at the old one");
    for _ in 0..READERS * 16 {
        let replies = [(); READERS].map(|()| far_sighted.events_after(LOBBY, 0, 10));
        replies.into_iter().for_each(|reply| assert_eq!(wait(reply).unwrap().events.len(), 1));
    }
    assert_eq!(log(&store, LOBBY).len(), 1);

    old.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
    old.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually(|| match wait(store.append(vec![message(LOBBY, &ada, "late", Some(reference(1)))])) {
        Err(StoreError::Unavailable(_)) => Ok(()),
        // The server has not heard of it yet.
        _ => Err(StoreError::Unavailable(String::new())),
    });
    assert!(matches!(wait(store.check()), Err(StoreError::Unavailable(_))));
    let rename = store.rename(ada.id, super::user_claim("Eve"), false, 9);
    assert!(matches!(wait(rename), Err(StoreError::Unavailable(_))));

    let hello = || message(LOBBY, &ada, "at the new one", Some(reference(2)));
    eventually(|| wait(far_sighted.append(vec![hello()]))?.remove(0));
    assert_eq!(new.sql(name, "SELECT max(seq) FROM events").as_deref(), Some("1"));
    // All connections that read have read at the old one, and none of them does any more.
    for _ in 0..READERS * 4 {
        let bodies = eventually(|| wait(far_sighted.events_after(LOBBY, 0, 10))).events;
        assert_eq!(bodies.iter().map(|event| event.reference).collect::<Vec<_>>(), [Some(reference(2))]);
    }

    // Nobody needs a restart when the server writes again.
    old.sql("postgres", "ALTER SYSTEM RESET default_transaction_read_only").unwrap();
    old.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually(|| wait(store.append(vec![message(LOBBY, &ada, "again", Some(reference(3)))]))?.remove(0));
    assert!(is_gapless(&log(&store, LOBBY)));
}

#[test]
fn what_was_acknowledged_before_the_server_died_is_there_once() {
    const WRITERS: u128 = 4;
    const EACH: u128 = 60;
    let Some(programs) = server::programs() else { return };
    let mut server = Server::start(&programs);
    let address = server.database();
    let nodes = [PostgresStore::open(&address).unwrap(), PostgresStore::open(&address).unwrap()];
    let users: Vec<_> =
        (0..WRITERS as u64).map(|n| guest(&nodes[0], 1 + n, &format!("Writer {n}"))).collect();
    std::thread::scope(|scope| {
        let (tx, said) = std::sync::mpsc::channel();
        for (place, user) in users.iter().enumerate() {
            let (nodes, tx) = (&nodes, tx.clone());
            scope.spawn(move || {
                for n in 0..EACH {
                    let hello = message(LOBBY, user, "hello", Some(reference(place as u128 * EACH + n)));
                    // On whichever node answers.
                    let mut turn = place;
                    eventually(|| {
                        turn += 1;
                        wait(nodes[turn % 2].append(vec![hello.clone()]))?.remove(0)
                    });
                    let _ = tx.send(());
                }
            });
        }
        for _ in 0..3 {
            said.iter().take(EACH as usize / 2).for_each(drop);
            server.signal("KILL");
            server.restart();
        }
    });
    let events = log(&nodes[0], LOBBY);
    assert!(is_gapless(&events));
    assert_eq!(events.len() as u128, WRITERS * EACH);
    assert_eq!(references(&events), (0..WRITERS * EACH).map(|n| (n, 1)).collect());
}

/// A way to the server that can break.
struct Way {
    port: u16,
    trick: Arc<AtomicU8>,
}

/// All goes through.
const OPEN: u8 = 0;
/// The next commit goes through, its answer does not: the connection breaks.
const CUT: u8 = 1;
/// The next commit does not go through, nor anything after it on the same connection.
const HOLD: u8 = 2;

impl Way {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let trick = Arc::new(AtomicU8::new(OPEN));
        let played = trick.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let cut = Arc::new(AtomicU8::new(OPEN));
                let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (played, cutting) = (played.clone(), cut.clone());
                std::thread::spawn(move || forward(there.0, there.1, Some(&played), &cutting));
                std::thread::spawn(move || forward(server, client, None, &cut));
            }
        });
        Self { port: own, trick }
    }
}

/// Passes bytes on until an end. Towards the server commits are looked for; towards the client there is nothing
/// more to pass on when the connection is cut.
fn forward(mut from: TcpStream, mut to: TcpStream, played: Option<&AtomicU8>, cut: &AtomicU8) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let passed = &bytes[..count];
        if let Some(played) = played {
            if passed.windows(7).any(|word| word == b"COMMIT\0") {
                let trick = played.swap(OPEN, Ordering::SeqCst);
                if trick != OPEN {
                    cut.store(trick, Ordering::SeqCst);
                }
            }
            if cut.load(Ordering::SeqCst) == HOLD {
                continue;
            }
        } else if cut.load(Ordering::SeqCst) == CUT {
            break;
        }
        if to.write_all(passed).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    // A client that is held does not end its transaction by going away.
    if cut.load(Ordering::SeqCst) != HOLD {
        let _ = to.shutdown(Shutdown::Both);
    } else {
        std::mem::forget(to);
    }
}

#[test]
fn a_commit_without_an_answer_is_not_acknowledged_and_repeated_safely() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let way = Way::to(server.port);
    let store =
        PostgresStore::open(&address.replace(&server.port.to_string(), &way.port.to_string())).unwrap();
    let ada = guest(&store, 1, "Ada");
    // Behind this one there are no more commits of the store's own.
    wait(store.write(1, |_| Ok(()))).unwrap();
    let hello = || message(LOBBY, &ada, "hello", Some(reference(1)));
    way.trick.store(CUT, Ordering::SeqCst);
    assert!(matches!(wait(store.append(vec![hello()])), Err(StoreError::Unavailable(_))));
    assert_eq!(way.trick.load(Ordering::SeqCst), OPEN, "the commit was seen");
    let repeat = wait(store.append(vec![hello()])).unwrap().remove(0).unwrap();
    assert_eq!((repeat.first, repeat.event.seq), (false, 1));
    assert_eq!(log(&store, LOBBY).len(), 1);
    // The same of a change: it was made, nobody was told.
    way.trick.store(CUT, Ordering::SeqCst);
    let rename = store.rename(ada.id, super::user_claim("Eve"), false, 5);
    assert!(matches!(wait(rename), Err(StoreError::Unavailable(_))));
    assert_eq!(wait(store.account(ada.id)).unwrap().user.name.as_str(), "Eve");
}

#[test]
fn a_node_that_is_cut_off_in_a_transaction_keeps_the_others_waiting_for_seconds_only() {
    let Some(server) = server::shared() else { return };
    let address = server.database();
    let way = Way::to(server.port);
    let lost =
        PostgresStore::open(&address.replace(&server.port.to_string(), &way.port.to_string())).unwrap();
    let other = PostgresStore::open(&address).unwrap();
    let ada = guest(&other, 1, "Ada");
    say(&lost, LOBBY, &ada, "hello");
    way.trick.store(HOLD, Ordering::SeqCst);
    // It holds the lobby's row, and all changes.
    let begin = Instant::now();
    let held = lost.append(vec![message(LOBBY, &ada, "held", Some(reference(1)))]);
    while way.trick.load(Ordering::SeqCst) == HOLD {
        std::thread::yield_now();
    }
    eventually(|| wait(other.append(vec![message(LOBBY, &ada, "free", Some(reference(2)))])));
    eventually(|| wait(other.rename(ada.id, super::user_claim("Eve"), false, 5)));
    println!("free after {:?}", begin.elapsed());
    assert!(matches!(wait(held), Err(StoreError::Unavailable(_))));
    println!("refused after {:?}", begin.elapsed());
    assert!(begin.elapsed() < REFUSED_MAX);
    let events = log(&other, LOBBY);
    assert_eq!(references(&events), [(2, 1)].into());
    assert!(is_gapless(&events));
}
