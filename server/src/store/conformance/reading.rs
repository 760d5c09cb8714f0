//! Clauses on what is read and unread.

use shared::model::{LOBBY, RoomId, Seq, UserId};
use shared::protocol::{UNREAD_MAX, User};

use super::{Open, by_id, enter, guest, log, message, ok, read, room, say, user_claim, wait};
use crate::store::StoreError;

suite! {
    cursors_never_go_back,
    unread_counts_messages_of_others,
    unread_is_capped,
    who_enters_has_read_what_was_before,
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
