//! What every store must do, clause by clause of the contract in `store.rs`. Each adapter runs all of it.
//!
//! A clause gets a function that opens the same store again and again. It must not know which one it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use shared::model::{Body, Claim, LOBBY, Ms, NAME_CHARS_MAX, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, RoomInfo, RoomKind, UNREAD_MAX, User};
use uuid::Uuid;

use super::memory::MemoryStore;
use super::{
    Append, Appended, Cursor, Identity, NewSession, Newcomer, Reply, RoomKey, Store, StoreError, TokenHash,
};

/// Opens the store under test; what was written before must be in it. Handles of before are gone by then.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

macro_rules! suite {
    ($($clause:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $clause() {
                let store = crate::store::memory::MemoryStore::new([7; 32]);
                super::$clause(&|| std::sync::Arc::new(store.clone()));
            })*
        }
        mod sqlite {
            $(#[test] fn $clause() {
                let dir = tempfile::tempdir().unwrap();
                let open = || crate::store::sqlite::SqliteStore::open(dir.path()).unwrap();
                super::$clause(&|| std::sync::Arc::new(open()));
            })*
        }
    };
}

mod accounts;
mod bots;
mod cursors;
mod moderation;
mod people;
mod rights;
mod rooms;

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
    cursors_never_go_back,
    unread_counts_messages_of_others,
    unread_is_capped,
    who_enters_has_read_what_was_before,
    identify_is_idempotent,
    concurrent_identifies_make_one_guest,
    guests_get_the_first_free_name,
    long_names_leave_room_for_a_number,
    look_alikes_are_refused,
    renames_are_told,
    rooms_are_created,
    rooms_are_joined_and_left,
    direct_rooms_are_for_two,
    direct_rooms_are_hidden,
    a_direct_room_with_oneself,
    the_lobby_has_everyone,
    rooms_are_limited,
    members_are_listed_by_name,
    the_directory_is_sorted,
    heads_are_those_of_existing_rooms,
    everything_is_kept,
    the_secret_stays,
    a_store_answers_checks,
}

pub(super) fn wait<T>(reply: Reply<T>) -> Result<T, StoreError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(reply)
}

fn ok<T>(reply: Reply<T>) -> T {
    wait(reply).unwrap()
}

pub(super) fn user_claim(name: &str) -> Claim<UserName> {
    UserName::claim(name).unwrap()
}

fn room_claim(name: &str) -> Claim<RoomName> {
    RoomName::claim(name).unwrap()
}

/// Makes the user with an id, whose session token follows from it.
pub(super) fn guest(store: &dyn Store, id: u64, name: &str) -> User {
    let identity = ok(identify_in(store, token(id), UserId::from_bits(id), vec![user_claim(name)], 1));
    assert!(identity.fresh);
    identity.user
}

/// Asks whose a session is, or makes it.
fn identify_in(
    store: &dyn Store,
    token: TokenHash,
    id: UserId,
    names: Vec<Claim<UserName>>,
    at: Ms,
) -> Reply<Identity> {
    store.identify(NewSession::of(token, at), Some(Newcomer { id, names }))
}

/// The place of a cursor and what is unread after it.
fn read(reply: Reply<Cursor>) -> (Seq, u32) {
    let cursor = ok(reply);
    (cursor.seq, cursor.unread)
}

fn token(id: u64) -> [u8; 32] {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&id.to_le_bytes());
    token
}

fn room(store: &dyn Store, id: u64, name: &str, user: &User) -> RoomId {
    ok(store.create_room(RoomId::from_bits(id), RoomKind::Public, room_claim(name), user.id, 0, 2)).info.id
}

fn enter(store: &dyn Store, room: RoomId, user: &User) {
    ok(store.join(by_id(room), user.id, 0, 3));
}

fn by_id(room: RoomId) -> RoomKey {
    RoomKey { id: Some(room), skeleton: None }
}

fn reference(bits: u128) -> Ref {
    Ref(Uuid::from_u128(bits))
}

pub(super) fn message(room: RoomId, author: &User, body: &str, reference: Option<Ref>) -> Append {
    let kind = EventKind::message(Body::parse(body, 0).unwrap());
    Append { room, author: author.clone(), at: 10, kind, reference }
}

pub(super) fn append(store: &dyn Store, append: Append) -> Result<Appended, StoreError> {
    ok(store.append(vec![append])).remove(0)
}

pub(super) fn say(store: &dyn Store, room: RoomId, author: &User, body: &str) -> Event {
    append(store, message(room, author, body, None)).unwrap().event
}

pub(super) fn log(store: &dyn Store, room: RoomId) -> Vec<Event> {
    ok(store.events_after(room, 0, usize::MAX)).events
}

fn seqs(events: &[Event]) -> Vec<Seq> {
    events.iter().map(|event| event.seq).collect()
}

/// The texts of the messages among events.
fn bodies(events: &[Event]) -> Vec<&str> {
    fn body(event: &Event) -> Option<&str> {
        match &event.kind {
            EventKind::Message { body, .. } => Some(body.as_str()),
            _ => None,
        }
    }
    events.iter().filter_map(body).collect()
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
    ];
    let names = ["Ada", "Countess", "たなかさん"].map(|name| user_claim(name).name);
    let mut expected = Vec::new();
    for (place, kind) in kinds.into_iter().enumerate() {
        // The author's name is the one of the append, not of the user today.
        let author = User { id: ada.id, name: names[place % 3].clone() };
        let at = [0, -5, i64::MAX, i64::MIN, 1_700_000_000_000][place];
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

fn cursors_never_go_back(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    for room in [LOBBY, den] {
        (0..10).for_each(|_| drop(say(&*store, room, &ada, "x")));
    }
    let head = log(&*store, LOBBY).len() as Seq;
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 4, None)), (4, 6));
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 2, None)), (4, 6));
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 0, None)), (4, 6));
    assert_eq!(read(store.mark_read(LOBBY, bob.id, Seq::MAX, None)), (head, 0));
    assert_eq!(say(&*store, LOBBY, &ada, "y").seq, head + 1, "the cursor was not left ahead of the head");
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 0, None)), (head, 1));
    for (room, user) in [(den, bob.id), (RoomId::from_bits(404), ada.id), (LOBBY, UserId::from_bits(99))] {
        assert_eq!(wait(store.mark_read(room, user, 1, None)), Err(StoreError::NotFound));
    }
    drop(store);
    let info = ok(open().room_info(LOBBY, bob.id));
    assert_eq!((info.read, info.unread, info.head), (head, 1, head + 1));
}

fn unread_counts_messages_of_others(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let unread = |user: &User| {
        let info = ok(store.room_info(den, user.id));
        let listed = ok(store.account(user.id)).rooms;
        assert!(listed.contains(&info), "room_info and account agree");
        info.unread
    };
    assert_eq!((unread(&ada), unread(&bob)), (0, 0), "a join is no message");
    say(&*store, den, &ada, "1");
    say(&*store, den, &bob, "2");
    say(&*store, den, &ada, "3");
    assert_eq!((unread(&ada), unread(&bob)), (1, 2));
    ok(store.rename(bob.id, user_claim("Robert"), false, 9));
    assert_eq!((unread(&ada), unread(&bob)), (1, 2), "a rename is no message");
    ok(store.mark_read(den, bob.id, 4, None));
    assert_eq!((unread(&ada), unread(&bob)), (1, 1));
}

fn unread_is_capped(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let many = |author: &User, count: u32| {
        ok(store.append((0..count).map(|_| message(LOBBY, author, "x", None)).collect()));
    };
    many(&ada, UNREAD_MAX - 1);
    many(&bob, 500);
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 0, None)), (0, UNREAD_MAX - 1));
    many(&ada, 1);
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 0, None)), (0, UNREAD_MAX));
    many(&ada, 1);
    assert_eq!(read(store.mark_read(LOBBY, bob.id, 0, None)), (0, UNREAD_MAX));
    assert_eq!(ok(store.room_info(LOBBY, bob.id)).unread, UNREAD_MAX);
}

fn who_enters_has_read_what_was_before(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    (0..5).for_each(|_| drop(say(&*store, den, &ada, "x")));
    (0..5).for_each(|_| drop(say(&*store, LOBBY, &ada, "x")));
    let bob = guest(&*store, 2, "Bob");
    let lobby = ok(store.room_info(LOBBY, bob.id));
    assert_eq!((lobby.head, lobby.read, lobby.unread), (5, 5, 0));
    let info = ok(store.join(by_id(den), bob.id, 0, 5)).info;
    assert_eq!((info.head, info.read, info.unread), (7, 7, 0));
    ok(store.leave(den, bob.id, 6));
    say(&*store, den, &ada, "y");
    let info = ok(store.join(by_id(den), bob.id, 0, 5)).info;
    assert_eq!((info.head, info.read, info.unread), (10, 10, 0));
    // Joining again where one is a member moves nothing.
    say(&*store, den, &ada, "z");
    let info = ok(store.join(by_id(den), bob.id, 0, 5)).info;
    assert_eq!((info.head, info.read, info.unread), (11, 10, 1));
}

fn identify_is_idempotent(open: Open) {
    let store = open();
    let names = || vec![user_claim("Ada")];
    let first = ok(identify_in(&*store, token(1), UserId::from_bits(1), names(), 1));
    assert!(first.fresh);
    assert_eq!(first.user, User { id: UserId::from_bits(1), name: user_claim("Ada").name });
    let lobby = RoomInfo { name: Some(room_claim("lobby").name), ..RoomInfo::new(LOBBY, RoomKind::Public) };
    assert_eq!(ok(store.account(first.user.id)).rooms, [lobby]);
    let den = room(&*store, 50, "den", &first.user);
    let check = |store: &dyn Store| {
        let again = ok(identify_in(store, token(1), UserId::from_bits(2), vec![user_claim("Bob")], 2));
        assert!(!again.fresh);
        assert_eq!(again.user, first.user);
        let account = ok(store.account(first.user.id));
        assert_eq!(account.user, first.user);
        let ids: BTreeSet<RoomId> = account.rooms.iter().map(|info| info.id).collect();
        assert_eq!(ids, BTreeSet::from([LOBBY, den]));
        assert_eq!(ok(store.directory(first.user.id, 9))[0].members, 1, "no second user was made");
        assert_eq!(wait(store.account(UserId::from_bits(2))), Err(StoreError::NotFound));
    };
    check(&*store);
    drop(store);
    check(&*open());
}

fn concurrent_identifies_make_one_guest(open: Open) {
    let store = open();
    for round in 0..5u64 {
        let users: Vec<User> = std::thread::scope(|scope| {
            let call = |n: u64| {
                let store = &store;
                let id = UserId::from_bits(100 * round + n);
                move || ok(identify_in(&**store, token(round), id, vec![user_claim("Guest")], 1)).user
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(call(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(users.iter().all(|user| *user == users[0]));
    }
    assert_eq!(ok(store.directory(UserId::from_bits(0), 1))[0].members, 5);
}

fn guests_get_the_first_free_name(open: Open) {
    let store = open();
    let names = || vec![user_claim("Ada"), user_claim("Bob")];
    let identify = |id| ok(identify_in(&*store, token(id), UserId::from_bits(id), names(), 1)).user.name;
    assert_eq!(identify(1).as_str(), "Ada");
    assert_eq!(identify(2).as_str(), "Bob");
    assert_eq!(identify(3).as_str(), "Ada 2");
    assert_eq!(identify(4).as_str(), "Bob 2");
    assert_eq!(identify(5).as_str(), "Ada 3");
    let mut seen = HashSet::new();
    for id in 6..100 {
        let name =
            ok(identify_in(&*store, token(id), UserId::from_bits(id * 987_654_321), names(), 1)).user.name;
        assert!(seen.insert(name));
    }
    let none = identify_in(&*store, token(200), UserId::from_bits(200), Vec::new(), 1);
    assert_eq!(wait(none), Err(StoreError::NameTaken));
    assert!(
        matches!(
            wait(identify_in(&*store, token(200), UserId::from_bits(1), names(), 1)),
            Err(StoreError::Unavailable(_))
        ),
        "an id is given once"
    );
}

fn long_names_leave_room_for_a_number(open: Open) {
    let store = open();
    let long = "ä".repeat(NAME_CHARS_MAX);
    let identify =
        |id| ok(identify_in(&*store, token(id), UserId::from_bits(id), vec![user_claim(&long)], 1));
    assert_eq!(identify(1).user.name.as_str(), long);
    assert_eq!(identify(2).user.name.as_str(), format!("{} 2", "ä".repeat(NAME_CHARS_MAX - 2)));
}

fn look_alikes_are_refused(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    for name in ["Ada", "ADA", "a d a", "Ａｄａ"] {
        assert_eq!(
            wait(store.rename(bob.id, user_claim(name), true, 5)),
            Err(StoreError::NameTaken),
            "{name}"
        );
    }
    assert_eq!(log(&*store, LOBBY), [], "a refused rename is not told");
    assert_eq!(guest(&*store, 3, "ADA").name.as_str(), "ADA 2");
    room(&*store, 50, "den", &ada);
    for (place, name) in ["den", "DEN", "#den", "lobby", "l0bby"].into_iter().enumerate() {
        let id = RoomId::from_bits(60 + place as u64);
        let created = wait(store.create_room(id, RoomKind::Public, room_claim(name), bob.id, 0, 5));
        assert_eq!(created, Err(StoreError::NameTaken), "{name}");
        assert_eq!(ok(store.heads(vec![id])), []);
    }
    // A name that was given up is free.
    ok(store.rename(ada.id, user_claim("Grace"), false, 6));
    assert_eq!(ok(store.rename(bob.id, user_claim("Ada"), false, 7)).0.name.as_str(), "Ada");
}

fn renames_are_told(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    let other = room(&*store, 51, "other", &bob);
    let direct = ok(store.open_direct(RoomId::from_bits(52), bob.id, ada.id, 0, 4)).info.id;

    let (user, events) = ok(store.rename(ada.id, user_claim("Grace"), false, 5));
    assert_eq!(user, User { id: ada.id, name: user_claim("Grace").name });
    let told: BTreeMap<RoomId, &Event> = events.iter().map(|event| (event.room, event)).collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), [den, direct]);
    for (room, event) in told {
        assert_eq!(event.user, ada, "the author is shown by the old name");
        assert_eq!(event.kind, EventKind::Renamed { name: user.name.clone() });
        assert_eq!((event.at, event.seq, event.reference), (5, 2, None));
        assert_eq!(log(&*store, room).last(), Some(event));
    }
    assert_eq!((log(&*store, other).len(), log(&*store, LOBBY).len()), (1, 0));
    assert_eq!(ok(store.room_info(direct, bob.id)).peer, Some(user.clone()));

    assert_eq!(ok(store.rename(ada.id, user_claim("Grace"), true, 6)), (user.clone(), Vec::new()));
    let (user, events) = ok(store.rename(ada.id, user_claim("GRACE"), true, 7));
    assert_eq!(user.name.as_str(), "GRACE", "one's own look-alike is allowed");
    let rooms: BTreeSet<RoomId> = events.iter().map(|event| event.room).collect();
    assert_eq!(rooms, BTreeSet::from([LOBBY, den, direct]));
    let nobody = wait(store.rename(UserId::from_bits(99), user_claim("New"), true, 8));
    assert_eq!(nobody, Err(StoreError::NotFound));
    drop(store);
    let again = ok(identify_in(&*open(), token(1), ada.id, Vec::new(), 9));
    assert_eq!(again.user, user);
}

fn rooms_are_created(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let id = RoomId::from_bits(50);
    let made = ok(store.create_room(id, RoomKind::Public, room_claim("#Book Club"), ada.id, 0, 5));
    let event =
        Event { room: id, seq: 1, at: 5, user: ada.clone(), kind: EventKind::Created, reference: None };
    assert_eq!(made.events, std::slice::from_ref(&event));
    let name = Some(room_claim("book-club").name);
    let owner = Some(ada.id);
    let info = RoomInfo { name, owner, head: 1, read: 1, ..RoomInfo::new(id, RoomKind::Public) };
    assert_eq!(made.info, info);
    assert_eq!(ok(store.room_info(id, ada.id)), info);
    assert_eq!(log(&*store, id), [event]);
    assert_eq!(ok(store.members(id, 9)), (vec![ada.clone()], 1));

    let taken = wait(store.create_room(id, RoomKind::Public, room_claim("fresh"), ada.id, 0, 6));
    assert!(matches!(taken, Err(StoreError::Unavailable(_))), "an id is given once");
    let other = RoomId::from_bits(51);
    let nobody =
        wait(store.create_room(other, RoomKind::Public, room_claim("fresh"), UserId::from_bits(99), 0, 6));
    assert_eq!(nobody, Err(StoreError::NotFound));
    assert!(
        wait(store.create_room(other, RoomKind::Public, room_claim("fresh"), ada.id, 0, 6)).is_ok(),
        "nothing was left behind"
    );
}

fn rooms_are_joined_and_left(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    assert_eq!(wait(store.room_info(den, bob.id)), Err(StoreError::NotFound));
    assert_eq!(ok(store.leave(den, bob.id, 4)), None);

    let joined = ok(store.join(RoomKey::parse("#DEN"), bob.id, 0, 5));
    assert_eq!(joined.info, ok(store.room_info(den, bob.id)));
    assert_eq!(joined.events.len(), 1);
    let event = &joined.events[0];
    assert_eq!((event.seq, event.at, &event.user, &event.kind), (2, 5, &bob, &EventKind::Joined));
    let again = ok(store.join(RoomKey::parse(&den.to_string()), bob.id, 0, 6));
    assert_eq!((again.info, again.events), (joined.info, Vec::new()));
    assert_eq!(ok(store.members(den, 9)).1, 2);

    let left = ok(store.leave(den, bob.id, 7)).unwrap();
    assert_eq!((left.room, left.seq, left.at, &left.user, &left.kind), (den, 3, 7, &bob, &EventKind::Left));
    assert_eq!(ok(store.leave(den, bob.id, 8)), None);
    assert_eq!(log(&*store, den).len(), 3);
    assert_eq!(wait(store.room_info(den, bob.id)), Err(StoreError::NotFound));
    assert_eq!(append(&*store, message(den, &bob, "x", None)), Err(StoreError::NotMember));
    assert_eq!(ok(store.members(den, 9)), (vec![ada.clone()], 1));
    let rooms = ok(store.account(bob.id)).rooms;
    assert_eq!(rooms.len(), 1);

    // A name can look like an id; an id that names no room is then looked up as a name.
    let like_an_id = "0000000000zzz";
    let named = room(&*store, 51, like_an_id, &ada);
    assert_ne!(like_an_id.parse(), Ok(named));
    assert_eq!(ok(store.join(RoomKey::parse(like_an_id), bob.id, 0, 9)).info.id, named);

    for key in [RoomKey::parse("nowhere"), RoomKey::parse("!"), by_id(RoomId::from_bits(404))] {
        assert_eq!(wait(store.join(key, bob.id, 0, 9)), Err(StoreError::NotFound));
    }
    assert_eq!(wait(store.join(by_id(den), UserId::from_bits(99), 0, 9)), Err(StoreError::NotFound));
    assert_eq!(wait(store.leave(RoomId::from_bits(404), bob.id, 9)), Err(StoreError::NotFound));
    // The last one leaves; the room stays.
    assert!(ok(store.leave(den, ada.id, 9)).is_some());
    assert_eq!(ok(store.members(den, 9)), (Vec::new(), 0));
}

fn direct_rooms_are_for_two(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let id = RoomId::from_bits(50);
    let made = ok(store.open_direct(id, bob.id, ada.id, 0, 5));
    let event =
        Event { room: id, seq: 1, at: 5, user: bob.clone(), kind: EventKind::Created, reference: None };
    assert_eq!(made.events, [event]);
    assert_eq!(
        (made.info.kind, &made.info.name, &made.info.peer),
        (RoomKind::Direct, &None, &Some(ada.clone()))
    );
    assert_eq!((made.info.head, made.info.read, made.info.unread), (1, 1, 0));
    for (user, peer) in [(&ada, &bob), (&bob, &ada)] {
        let again = ok(store.open_direct(RoomId::from_bits(51), user.id, peer.id, 1, 6));
        assert_eq!((again.info.id, again.events.len()), (id, 0));
        assert_eq!(again.info.peer.as_ref(), Some(peer));
        assert_eq!(ok(store.join(by_id(id), user.id, 1, 6)).events, []);
        assert_eq!(wait(store.leave(id, user.id, 6)), Err(StoreError::NotFound));
        say(&*store, id, user, "hello");
        assert!(ok(store.account(user.id)).rooms.len() == 2);
    }
    assert_eq!(ok(store.members(id, 9)), (vec![ada.clone(), bob], 2));
    assert!(ok(store.directory(ada.id, 9)).iter().all(|listing| listing.id != id));
    let nobody = UserId::from_bits(99);
    for (user, peer) in [(ada.id, nobody), (nobody, ada.id), (nobody, nobody)] {
        let opened = wait(store.open_direct(RoomId::from_bits(52), user, peer, 0, 7));
        assert_eq!(opened, Err(StoreError::NotFound));
    }
}

fn direct_rooms_are_hidden(open: Open) {
    let store = open();
    let (ada, bob, eve) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    let id = ok(store.open_direct(RoomId::from_bits(50), ada.id, bob.id, 0, 5)).info.id;
    let missing = RoomId::from_bits(404);
    for room in [id, missing] {
        assert_eq!(wait(store.room_info(room, eve.id)), Err(StoreError::NotFound));
        assert_eq!(wait(store.join(by_id(room), eve.id, 0, 6)), Err(StoreError::NotFound));
        assert_eq!(wait(store.leave(room, eve.id, 6)), Err(StoreError::NotFound));
        assert_eq!(wait(store.mark_read(room, eve.id, 1, None)), Err(StoreError::NotFound));
        // Where an id shows nothing, a name may: the answer must not tell the two apart.
        let named = room_claim("den").skeleton;
        let key = RoomKey { id: Some(room), skeleton: Some(named) };
        assert_eq!(wait(store.join(key.clone(), eve.id, 0, 6)), Err(StoreError::NotFound));
    }
    let den = room(&*store, 51, "den", &ada);
    for room in [id, missing] {
        let key = RoomKey { id: Some(room), skeleton: Some(room_claim("den").skeleton) };
        assert_eq!(ok(store.join(key, eve.id, 0, 6)).info.id, den);
    }
    assert_eq!(append(&*store, message(id, &eve, "x", None)), Err(StoreError::NotFound));
    assert_eq!(log(&*store, id).len(), 1);
}

fn a_direct_room_with_oneself(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let made = ok(store.open_direct(RoomId::from_bits(50), ada.id, ada.id, 0, 5));
    assert_eq!(made.info.peer, Some(ada.clone()));
    assert_eq!(ok(store.members(made.info.id, 9)), (vec![ada.clone()], 1));
    say(&*store, made.info.id, &ada, "note");
    assert_eq!(ok(store.room_info(made.info.id, ada.id)).unread, 0);
    let again = ok(store.open_direct(RoomId::from_bits(51), ada.id, ada.id, 0, 6));
    assert_eq!((again.info.id, again.events.len()), (made.info.id, 0));
}

fn the_lobby_has_everyone(open: Open) {
    let store = open();
    let lobby = RoomKey::parse("#lobby");
    assert_eq!(ok(store.heads(vec![LOBBY])), [(LOBBY, 1, 0)]);
    let ada = guest(&*store, 1, "Ada");
    assert_eq!(say(&*store, LOBBY, &ada, "hi").seq, 1);
    let entered = ok(store.join(lobby.clone(), ada.id, 1, 5));
    assert_eq!((entered.info.id, entered.events.len()), (LOBBY, 0));
    assert_eq!(entered.info, ok(store.room_info(LOBBY, ada.id)));
    assert_eq!(wait(store.leave(LOBBY, ada.id, 5)), Err(StoreError::NotFound));
    assert_eq!(ok(store.members(LOBBY, 9)), (Vec::new(), 0));
    let nobody = UserId::from_bits(99);
    assert_eq!(wait(store.room_info(LOBBY, nobody)), Err(StoreError::NotFound));
    assert_eq!(wait(store.join(lobby, nobody, 0, 5)), Err(StoreError::NotFound));
    drop(store);
    assert_eq!(log(&*open(), LOBBY).len(), 1, "it is the same lobby at the next start");
}

fn rooms_are_limited(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let create = |id, name, max| {
        wait(store.create_room(RoomId::from_bits(id), RoomKind::Public, room_claim(name), ada.id, max, 5))
    };
    let bobs = room(&*store, 60, "bobs", &bob);
    assert!(create(50, "one", 2).is_ok(), "the lobby does not count");
    assert!(wait(store.join(by_id(bobs), ada.id, 2, 5)).is_ok());
    let direct = |id, user: &User, peer: &User, max| {
        wait(store.open_direct(RoomId::from_bits(id), user.id, peer.id, max, 5))
    };
    let full = room(&*store, 61, "full", &bob);
    assert_eq!(create(51, "two", 2), Err(StoreError::TooManyRooms));
    assert_eq!(wait(store.join(by_id(full), ada.id, 2, 5)), Err(StoreError::TooManyRooms));
    assert_eq!(direct(52, &ada, &bob, 2), Err(StoreError::TooManyRooms));
    assert_eq!(log(&*store, full).len(), 1, "nothing was changed");
    assert_eq!(ok(store.heads(vec![RoomId::from_bits(51), RoomId::from_bits(52)])), []);
    // A member stays one.
    assert!(wait(store.join(by_id(bobs), ada.id, 2, 5)).is_ok());
    // The limit is the opener's, not the peer's.
    assert!(direct(52, &bob, &ada, 9).is_ok());
    assert!(direct(53, &ada, &bob, 2).is_ok(), "it exists already");
    assert!(create(54, "three", 0).is_ok(), "0 is no limit");
    assert!(ok(store.leave(bobs, ada.id, 6)).is_some());
    assert!(wait(store.join(by_id(full), ada.id, 4, 6)).is_ok());
}

fn members_are_listed_by_name(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Zoe");
    let den = room(&*store, 50, "den", &ada);
    for (id, name) in [(5, "Bob"), (4, "Ada"), (3, "Eve")] {
        let user = guest(&*store, id, name);
        enter(&*store, den, &user);
    }
    let names = |limit| {
        let (members, total) = ok(store.members(den, limit));
        (members.iter().map(|user| user.name.to_string()).collect::<Vec<_>>().join(" "), total)
    };
    assert_eq!(names(9), ("Ada Bob Eve Zoe".to_owned(), 4));
    assert_eq!(names(2), ("Ada Bob".to_owned(), 4));
    assert_eq!(names(0), (String::new(), 4));
    assert_eq!(wait(store.members(RoomId::from_bits(404), 9)), Err(StoreError::NotFound));
}

fn the_directory_is_sorted(open: Open) {
    let store = open();
    let users: Vec<User> = ["Ada", "Bob", "Eve"]
        .iter()
        .enumerate()
        .map(|(place, name)| guest(&*store, place as u64 + 1, name))
        .collect();
    for (id, name, members) in [(50, "small", 1), (51, "middle", 2), (52, "also-small", 1), (53, "big", 3)] {
        let room = room(&*store, id, name, &users[0]);
        users[1..members].iter().for_each(|user| enter(&*store, room, user));
    }
    let gone = room(&*store, 54, "gone", &users[2]);
    ok(store.leave(gone, users[2].id, 4));
    let list = |user: UserId, limit| -> Vec<(String, u32, bool)> {
        let listings = ok(store.directory(user, limit));
        listings.into_iter().map(|l| (l.name.to_string(), l.members, l.joined)).collect()
    };
    let row = |name: &str, members, joined| (name.to_owned(), members, joined);
    let bobs = [
        row("big", 3, true),
        row("lobby", 3, true),
        row("middle", 2, true),
        row("also-small", 1, false),
        row("small", 1, false),
        row("gone", 0, false),
    ];
    assert_eq!(list(users[1].id, 99), bobs);
    assert_eq!(list(users[1].id, 3), bobs[..3]);
    guest(&*store, 9, "Grace");
    assert_eq!(list(users[1].id, 1), [row("lobby", 4, true)], "the lobby counts everyone");
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
