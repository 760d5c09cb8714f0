//! Clauses on public rooms and direct conversations: who is in them.

use shared::model::{LOBBY, RoomId, UserId};
use shared::protocol::{Event, EventKind, RoomInfo, RoomKind, User};

use super::{Open, append, by_id, enter, guest, log, message, ok, room, room_claim, say, wait};
use crate::store::{RoomKey, StoreError};

suite! {
    rooms_are_created,
    rooms_are_joined_and_left,
    direct_rooms_are_for_two,
    direct_rooms_are_hidden,
    a_direct_room_with_oneself,
    the_lobby_has_everyone,
    rooms_are_limited,
    members_are_listed_by_name,
    the_directory_is_sorted,
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
