//! Clauses on cursors, counts and mentions.

use shared::acts::Act;
use shared::model::{LOBBY, Seq};
use shared::protocol::{EventKind, User};
use shared::rights::Role;

use super::people::{act, done, kind_at, member, person, private};
use super::{Open, append, by_id, enter, guest, message, ok, room, say, wait};
use crate::store::{Cursor, Store, StoreError};

suite! {
    a_cursor_is_set_back_with_a_version,
    an_older_version_moves_nothing,
    blocked_people_are_not_counted,
    deleted_messages_are_not_counted,
    mentions_are_found,
    mentions_are_of_those_in_the_room,
    everyone_is_mentioned_by_those_who_may,
    mentions_are_counted,
    quiet_rooms,
}

fn a_cursor_is_set_back_with_a_version(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    (0..5).for_each(|_| drop(say(&*store, den, &ada, "x")));
    ok(store.mark_read(den, bob.id, 7, None));
    let outcome = done(&*store, &bob, Act::Unread { room: den, seq: 4 });
    let cursor = Cursor { seq: 3, version: 1, unread: 4, mentioned: 0 };
    assert_eq!(outcome.cursor, Some((den, cursor)));
    let info = ok(store.room_info(den, bob.id));
    assert_eq!((info.read, info.read_version, info.unread), (3, 1, 4));
    // Ahead of the head, or before the beginning: as far as there is something.
    for (seq, place) in [(Seq::MAX, 7), (0, 0), (1, 0), (5, 4)] {
        let (_, cursor) = done(&*store, &bob, Act::Unread { room: den, seq }).cursor.unwrap();
        assert_eq!(cursor.seq, place);
    }
    drop(store);
    let store = open();
    assert_eq!(
        ok(store.mark_read(den, bob.id, 5, Some(5))),
        Cursor { seq: 5, version: 5, unread: 2, mentioned: 0 }
    );
    assert_eq!(ok(store.room_info(den, ada.id)).read_version, 0, "it is Bob's alone");
}

fn an_older_version_moves_nothing(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    (0..5).for_each(|_| drop(say(&*store, LOBBY, &ada, "x")));
    done(&*store, &bob, Act::Unread { room: LOBBY, seq: 2 });
    let read = |seq, version| {
        let cursor = ok(store.mark_read(LOBBY, bob.id, seq, version));
        (cursor.seq, cursor.version, cursor.unread)
    };
    assert_eq!(read(5, Some(0)), (1, 1, 4), "another device had not heard of it yet");
    assert_eq!(read(3, Some(1)), (3, 1, 2));
    assert_eq!(read(2, Some(1)), (3, 1, 2));
    assert_eq!(read(4, Some(7)), (4, 1, 1));
    assert_eq!(read(5, None), (5, 1, 0));
}

fn blocked_people_are_not_counted(open: Open) {
    let store = open();
    let (ada, bob, eve) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    say(&*store, LOBBY, &bob, "@Ada");
    say(&*store, LOBBY, &eve, "@Ada");
    let counts = || {
        let info = ok(store.room_info(LOBBY, ada.id));
        (info.unread, info.mentioned)
    };
    // A guest has read what was before them.
    done(&*store, &ada, Act::Unread { room: LOBBY, seq: 1 });
    assert_eq!(counts(), (2, 2));
    let den = room(&*store, 50, "den", &eve);
    enter(&*store, den, &ada);
    let outcome = done(&*store, &ada, Act::Block { user: eve.id, blocked: true });
    assert_eq!((outcome.users, outcome.rooms), (vec![ada.id], vec![LOBBY]), "the den looks as before");
    assert_eq!(counts(), (1, 1));
    assert_eq!(ok(store.account(ada.id)).blocked, [eve.id]);
    assert_eq!(ok(store.account(eve.id)).blocked, [], "nobody is told");
    done(&*store, &ada, Act::Block { user: eve.id, blocked: false });
    assert_eq!(counts(), (2, 2));
    assert_eq!(act(&*store, &ada, Act::Block { user: ada.id, blocked: true }), Err(StoreError::Forbidden));
}

fn deleted_messages_are_not_counted(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let seq = say(&*store, LOBBY, &ada, "@Bob").seq;
    say(&*store, LOBBY, &ada, "x");
    let counts = || {
        let cursor = ok(store.mark_read(LOBBY, bob.id, 0, None));
        (cursor.unread, cursor.mentioned)
    };
    assert_eq!(counts(), (2, 1));
    done(&*store, &ada, Act::Delete { room: LOBBY, seq });
    assert_eq!(counts(), (1, 0));
}

/// Whom a message mentions, by name.
fn mentioned(store: &dyn Store, event: &super::Event) -> Vec<String> {
    let EventKind::Message { mentions, .. } = kind_at(store, event.room, event.seq) else {
        return Vec::new();
    };
    mentions.into_iter().map(|user| ok(store.account(user)).user.name.to_string()).collect()
}

fn mentions_are_found(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    for (id, name) in [(2, "Bob"), (3, "Bob Builder"), (4, "Eve")] {
        guest(&*store, id, name);
    }
    for (body, expected) in [
        ("hello", vec![]),
        ("hello @bob", vec!["Bob"]),
        ("hello @Bob Builder, can we?", vec!["Bob Builder"]),
        ("@bobbuilder and @Eve. And @eve", vec!["Bob Builder", "Eve"]),
        ("@Ada myself, @nobody, eve@bob", vec![]),
        ("`@Bob`", vec![]),
    ] {
        let event = say(&*store, LOBBY, &ada, body);
        assert_eq!(mentioned(&*store, &event), expected, "{body}");
        assert_eq!(event.kind, kind_at(&*store, LOBBY, event.seq), "the answer has them, too");
    }
    // Nobody is mentioned but by the text.
    let mut forged = message(LOBBY, &ada, "x", None);
    if let EventKind::Message { mentions, all, .. } = &mut forged.kind {
        (*mentions, *all) = (vec![ada.id], true);
    }
    let event = append(&*store, forged).unwrap().event;
    assert_eq!(event.kind, message(LOBBY, &ada, "x", None).kind);
}

fn mentions_are_of_those_in_the_room(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob Jones"));
    guest(&*store, 3, "Bob");
    let den = room(&*store, 50, "den", &ada);
    assert_eq!(mentioned(&*store, &say(&*store, den, &ada, "@Bob Jones")), Vec::<String>::new());
    enter(&*store, den, &bob);
    assert_eq!(mentioned(&*store, &say(&*store, den, &ada, "@Bob Jones")), ["Bob Jones"]);
    ok(store.leave(den, bob.id, 5));
    assert_eq!(mentioned(&*store, &say(&*store, den, &ada, "@Bob Jones")), Vec::<String>::new());
}

fn everyone_is_mentioned_by_those_who_may(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let group = private(&*store, 51, "den", &ada, &[&bob]);
    let all = |room, by: &User, body| {
        let event = say(&*store, room, by, body);
        matches!(kind_at(&*store, room, event.seq), EventKind::Message { all: true, .. })
    };
    assert!(all(den, &ada, "@room, look") && all(group, &bob, "@here") && all(LOBBY, &moderator, "@here!"));
    assert!(!all(den, &bob, "@room") && !all(LOBBY, &ada, "@room") && !all(den, &ada, "room"));
}

fn mentions_are_counted(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    for body in ["@Bob", "@room", "@Bob and @room", "nobody"] {
        say(&*store, den, &ada, body);
    }
    let counts = |user: &User, seq| {
        let cursor = ok(store.mark_read(den, user.id, seq, None));
        let info = ok(store.room_info(den, user.id));
        assert_eq!((info.unread, info.mentioned), (cursor.unread, cursor.mentioned));
        (cursor.unread, cursor.mentioned)
    };
    assert_eq!(counts(&bob, 0), (4, 3));
    assert_eq!(counts(&bob, 3), (3, 2));
    assert_eq!(counts(&bob, 5), (1, 0));
    assert_eq!(counts(&ada, 0), (0, 0), "one's own are none");
}

fn quiet_rooms(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    say(&*store, den, &ada, "x");
    let read = ok(store.room_info(den, bob.id)).read;
    assert_eq!(done(&*store, &bob, Act::Quiet { room: den, quiet: true }).rooms, [den]);
    let info = ok(store.room_info(den, bob.id));
    assert_eq!((info.quiet, info.read, info.unread), (true, read, 1));
    assert!(!ok(store.room_info(den, ada.id)).quiet);
    ok(store.mark_read(den, bob.id, 3, None));
    assert!(ok(store.room_info(den, bob.id)).quiet, "reading wakes nobody");
    done(&*store, &bob, Act::Quiet { room: den, quiet: false });
    assert!(!ok(store.room_info(den, bob.id)).quiet);
    ok(store.leave(den, bob.id, 5));
    assert_eq!(act(&*store, &bob, Act::Quiet { room: den, quiet: true }), Err(StoreError::NotFound));
    assert!(wait(store.join(by_id(den), bob.id, 0, 6)).is_ok());
}
