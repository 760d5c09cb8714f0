//! Clauses on the log: order, durability, once, pages.

use std::collections::HashSet;

use shared::model::{Body, LOBBY, Line, RoomId, Seq, UserId};
use shared::protocol::{Event, EventKind, User};

use super::{
    Open, append, bodies, enter, guest, log, message, ok, reference, room, say, seqs, user_claim, wait,
};
use crate::store::memory::MemoryStore;
use crate::store::{Append, Appended, Store, StoreError};

suite! {
    seqs_have_no_holes_under_concurrent_writers,
    a_batch_keeps_its_order,
    a_failed_append_leaves_the_others_alone,
    events_come_back_as_they_were,
    a_ref_is_appended_once,
    a_ref_is_appended_once_by_concurrent_writers,
    a_ref_belongs_to_its_author,
    a_repeat_is_answered_after_leaving,
    pages_after,
    pages_before,
    heads_are_those_of_existing_rooms,
    everything_is_kept,
    the_secret_stays,
    a_store_answers_checks,
}

fn seqs_have_no_holes_under_concurrent_writers(open: Open) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let store = open();
    let owner = guest(&*store, 1, "Owner");
    let rooms = [LOBBY, room(&*store, 50, "one", &owner), room(&*store, 51, "two", &owner)];
    let users: Vec<User> = (0..WRITERS).map(|n| guest(&*store, 10 + n, &format!("Writer {n}"))).collect();
    for user in &users {
        rooms.iter().for_each(|room| enter(&*store, *room, user));
    }
    let before: Vec<Seq> = rooms.iter().map(|room| log(&*store, *room).len() as Seq).collect();
    std::thread::scope(|scope| {
        for user in &users {
            let store = &store;
            scope.spawn(move || {
                for n in 0..EACH {
                    for room in rooms {
                        let event = say(&**store, room, user, &n.to_string());
                        // What was acknowledged is there for a reader, with all before it.
                        let page = ok(store.events_before(room, event.seq + 1, 2));
                        assert!(page.head >= event.seq);
                        assert_eq!(page.events.last(), Some(&event));
                    }
                }
            });
        }
    });
    for (room, before) in rooms.into_iter().zip(before) {
        let events = log(&*store, room);
        assert_eq!(seqs(&events), (1..=before + WRITERS * EACH).collect::<Vec<_>>());
        for user in &users {
            let own: Vec<Event> = events.iter().filter(|event| event.user == *user).cloned().collect();
            let said: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
            assert_eq!(bodies(&own), said, "each writer's order is kept");
        }
    }
}

fn a_batch_keeps_its_order(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let batch: Vec<Append> =
        (0..30).map(|n| message(if n % 3 == 0 { LOBBY } else { den }, &ada, &n.to_string(), None)).collect();
    let answers: Vec<Appended> = ok(store.append(batch)).into_iter().map(Result::unwrap).collect();
    let said = |room: RoomId| -> Vec<String> {
        (0..30).filter(|n| (n % 3 == 0) == (room == LOBBY)).map(|n| n.to_string()).collect()
    };
    for room in [LOBBY, den] {
        assert_eq!(bodies(&log(&*store, room)), said(room));
        let seqs: Vec<Seq> = answers.iter().filter(|a| a.event.room == room).map(|a| a.event.seq).collect();
        assert!(seqs.is_sorted());
    }
    assert_eq!(ok(store.append(Vec::new())), []);
}

fn a_failed_append_leaves_the_others_alone(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let nobody = User { id: UserId::from_bits(99), name: bob.name.clone() };
    let den = room(&*store, 50, "den", &ada);
    let batch = vec![
        message(den, &ada, "1", None),
        message(den, &bob, "not a member", Some(reference(5))),
        message(RoomId::from_bits(404), &ada, "no such room", None),
        message(LOBBY, &nobody, "no such user", None),
        message(den, &ada, "2", None),
    ];
    let answers = ok(store.append(batch));
    assert_eq!(answers[1], Err(StoreError::NotMember));
    assert_eq!(answers[2], Err(StoreError::NotFound));
    assert_eq!(answers[3], Err(StoreError::NotMember));
    assert_eq!(bodies(&log(&*store, den)), ["1", "2"]);
    assert_eq!(answers[4].as_ref().unwrap().event.seq, 3);
    // The ref of the one that failed is still free.
    enter(&*store, den, &bob);
    assert!(append(&*store, message(den, &bob, "now", Some(reference(5)))).unwrap().first);
}

fn events_come_back_as_they_were(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let kinds = [
        EventKind::message(Body::parse("'; DROP TABLE events; -- %_\n\u{1f426}\u{202e}", 0).unwrap()),
        EventKind::Created,
        EventKind::Joined,
        EventKind::Left,
        EventKind::Renamed { name: user_claim("Żółć 1").name },
        EventKind::Deleted,
        EventKind::Deletion { of: 7 },
        EventKind::Invited { target: ada.clone() },
        EventKind::Removed { target: ada.clone() },
        EventKind::Transferred { target: ada.clone() },
        EventKind::Muted { target: ada.clone(), until: -7 },
        EventKind::Topic { text: Line::new("\"quoted\" {}") },
        EventKind::RoomRenamed { text: Line::default() },
        EventKind::Archived { archived: false },
        EventKind::SlowMode { seconds: u32::MAX },
    ];
    let names = ["Ada", "Countess", "たなかさん"].map(|name| user_claim(name).name);
    let mut expected = Vec::new();
    for (place, kind) in kinds.into_iter().enumerate() {
        // The author's name is the one of the append, not of the user today.
        let author = User { id: ada.id, name: names[place % 3].clone() };
        let at = [0, -5, i64::MAX, i64::MIN, 1_700_000_000_000][place % 5];
        let reference = (place % 2 == 0).then(|| reference(u128::MAX - place as u128));
        let event = Event {
            room: LOBBY,
            seq: place as Seq + 1,
            at,
            user: author.clone(),
            kind: kind.clone(),
            reference,
        };
        let appended = append(&*store, Append { room: LOBBY, author, at, kind, reference }).unwrap();
        assert_eq!(appended, Appended { event: event.clone(), first: true });
        expected.push(event);
    }
    assert_eq!(log(&*store, LOBBY), expected);
    drop(store);
    assert_eq!(log(&*open(), LOBBY), expected);
}

fn a_ref_is_appended_once(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let once = message(LOBBY, &ada, "once", Some(reference(1)));
    let elsewhere = message(den, &ada, "other text", Some(reference(1)));
    let nowhere = message(RoomId::from_bits(404), &ada, "x", Some(reference(1)));
    let answers = ok(store.append(vec![once.clone(), once.clone(), elsewhere.clone(), nowhere.clone()]));
    let first = answers[0].clone().unwrap();
    assert!(first.first);
    let repeat = Appended { event: first.event.clone(), first: false };
    for answer in &answers[1..] {
        assert_eq!(answer.as_ref(), Ok(&repeat));
    }
    drop(store);
    let store = open();
    for again in [once, elsewhere, nowhere] {
        assert_eq!(append(&*store, again), Ok(repeat.clone()));
    }
    assert_eq!(log(&*store, LOBBY), [first.event]);
    // A repeat takes no seq.
    assert_eq!(log(&*store, den).len(), 1);
    assert_eq!(say(&*store, LOBBY, &ada, "next").seq, 2);
    assert_eq!(say(&*store, den, &ada, "next").seq, 2);
}

fn a_ref_is_appended_once_by_concurrent_writers(open: Open) {
    const WRITERS: usize = 8;
    const REFS: u128 = 20;
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let answers: Vec<Vec<Appended>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, ada) = (&store, &ada);
                let room = if writer % 2 == 0 { LOBBY } else { den };
                let send = move |n| append(&**store, message(room, ada, "same", Some(reference(n)))).unwrap();
                scope.spawn(move || (0..REFS).map(send).collect())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for n in 0..REFS as usize {
        let events: HashSet<(RoomId, Seq)> =
            answers.iter().map(|of| (of[n].event.room, of[n].event.seq)).collect();
        assert_eq!(events.len(), 1, "all got the same event");
        assert_eq!(answers.iter().filter(|of| of[n].first).count(), 1);
    }
    let logs = [log(&*store, LOBBY), log(&*store, den)];
    for events in &logs {
        assert_eq!(seqs(events), (1..=events.len() as Seq).collect::<Vec<_>>());
    }
    assert_eq!(logs.iter().map(|events| bodies(events).len()).sum::<usize>(), REFS as usize);
}

fn a_ref_belongs_to_its_author(open: Open) {
    let store = open();
    for (id, name) in [(1, "Ada"), (2, "Bob")] {
        let author = guest(&*store, id, name);
        assert!(append(&*store, message(LOBBY, &author, name, Some(reference(1)))).unwrap().first);
    }
    assert_eq!(bodies(&log(&*store, LOBBY)), ["Ada", "Bob"]);
}

fn a_repeat_is_answered_after_leaving(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let once = message(den, &ada, "once", Some(reference(1)));
    let first = append(&*store, once.clone()).unwrap().event;
    ok(store.leave(den, ada.id, 20));
    assert_eq!(append(&*store, once), Ok(Appended { event: first, first: false }));
    let new = message(den, &ada, "new", Some(reference(2)));
    assert_eq!(append(&*store, new), Err(StoreError::NotMember));
}

fn pages_after(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    assert_eq!(log(&*store, LOBBY), []);
    (1..=10).for_each(|n| drop(say(&*store, LOBBY, &ada, &n.to_string())));
    for (after, limit, expected) in [
        (0, 3, 1..4),
        (0, 100, 1..11),
        (4, 3, 5..8),
        (8, 3, 9..11),
        (9, 1, 10..11),
        (10, 5, 1..1),
        (11, 5, 1..1),
        (Seq::MAX, usize::MAX, 1..1),
        (3, 0, 1..1),
    ] {
        let page = ok(store.events_after(LOBBY, after, limit));
        assert_eq!((page.epoch, page.head), (1, 10));
        assert_eq!(seqs(&page.events), expected.collect::<Vec<Seq>>(), "after {after}, at most {limit}");
    }
    assert_eq!(wait(store.events_after(RoomId::from_bits(404), 0, 1)), Err(StoreError::NotFound));
}

fn pages_before(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    assert_eq!(ok(store.events_before(LOBBY, Seq::MAX, 5)).events, []);
    (1..=10).for_each(|n| drop(say(&*store, LOBBY, &ada, &n.to_string())));
    for (before, limit, expected) in [
        (Seq::MAX, 3, 8..11),
        (11, 3, 8..11),
        (10, 3, 7..10),
        (3, 5, 1..3),
        (2, 1, 1..2),
        (1, 5, 1..1),
        (0, 5, 1..1),
        (Seq::MAX, usize::MAX, 1..11),
        (5, 0, 1..1),
    ] {
        let page = ok(store.events_before(LOBBY, before, limit));
        assert_eq!((page.epoch, page.head), (1, 10));
        assert_eq!(seqs(&page.events), expected.collect::<Vec<Seq>>(), "before {before}, at most {limit}");
    }
    assert_eq!(wait(store.events_before(RoomId::from_bits(404), 9, 1)), Err(StoreError::NotFound));
}

fn heads_are_those_of_existing_rooms(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    say(&*store, den, &ada, "x");
    let mut heads = ok(store.heads(vec![den, RoomId::from_bits(404), LOBBY]));
    heads.sort();
    assert_eq!(heads, [(LOBBY, 1, 0), (den, 1, 2)]);
    assert_eq!(ok(store.heads(Vec::new())), []);
}

fn everything_is_kept(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    ok(store.open_direct(RoomId::from_bits(51), bob.id, ada.id, 0, 5));
    (0..5).for_each(|_| drop(say(&*store, den, &ada, "x")));
    ok(store.mark_read(den, bob.id, 4, None));
    let seen = |store: &dyn Store| {
        let rooms = ok(store.account(bob.id)).rooms;
        let logs: Vec<_> = rooms.iter().map(|info| ok(store.events_after(info.id, 0, 99))).collect();
        (rooms, logs, ok(store.directory(bob.id, 9)), ok(store.members(den, 9)))
    };
    let before = seen(&*store);
    drop(store);
    let store = open();
    assert_eq!(seen(&*store), before);
    // What a store remembers of its own is right, too.
    assert_eq!(say(&*store, den, &bob, "y").seq, 8);
    assert_eq!(ok(store.directory(bob.id, 9)).len(), 2);
}

fn the_secret_stays(open: Open) {
    let secret = open().secret();
    assert_ne!(secret, [0; 32]);
    assert_eq!(open().secret(), secret);
}

fn a_store_answers_checks(open: Open) {
    let store = open();
    ok(store.check());
    ok(store.check());
}

#[test]
fn a_store_in_memory_can_fail() {
    let store = MemoryStore::new([7; 32]);
    let ada = guest(&store, 1, "Ada");
    store.set_unavailable(true);
    assert!(matches!(
        wait(store.append(vec![message(LOBBY, &ada, "x", None)])),
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(wait(store.events_after(LOBBY, 0, 9)), Err(StoreError::Unavailable(_))));
    store.set_unavailable(false);
    assert_eq!(log(&store, LOBBY), []);
    store.lose_answers(1);
    let once = message(LOBBY, &ada, "x", Some(reference(1)));
    assert!(matches!(wait(store.append(vec![once.clone()])), Err(StoreError::Unavailable(_))));
    assert!(!append(&store, once).unwrap().first, "it was written all the same");
}
