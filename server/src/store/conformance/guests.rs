//! Clauses on guests and names.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use shared::model::{LOBBY, NAME_CHARS_MAX, RoomId, UserId};
use shared::protocol::{Event, EventKind, RoomInfo, RoomKind, User};

use super::{Open, guest, identify_in, log, ok, room, room_claim, token, user_claim, wait};
use crate::store::{Store, StoreError};

suite! {
    identify_is_idempotent,
    concurrent_identifies_make_one_guest,
    guests_get_the_first_free_name,
    long_names_leave_room_for_a_number,
    look_alikes_are_refused,
    renames_are_told,
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
