//! Clauses on rooms: private ones, groups, and what is done to them.

use shared::acts::{Act, GROUP_MAX, List};
use shared::model::{Line, Ref, RoomId, UserId};
use shared::protocol::{EventKind, RoomKind, User};
use shared::rights::Role;

use super::people::{NOW, act, act_at, boss, done, member, person, private, rows, told};
use super::{Open, append, by_id, enter, guest, log, message, ok, reference, room, room_claim, say, wait};
use crate::store::{RoomKey, StoreError};

suite! {
    private_rooms_are_made,
    people_are_invited,
    people_are_removed,
    groups_are_of_their_people,
    groups_are_bounded,
    rooms_are_handed_over,
    rooms_change_owners,
    rooms_get_topics,
    rooms_get_names,
    archived_rooms_are_silent,
    deleted_rooms_are_gone,
}

fn private_rooms_are_made(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = private(&*store, 50, "den", &ada, &[]);
    let info = ok(store.room_info(den, ada.id));
    assert_eq!(
        (info.kind, info.name, info.owner),
        (RoomKind::Private, Some(room_claim("den").name), Some(ada.id))
    );
    assert!(ok(store.directory(ada.id, 9)).iter().all(|listing| listing.id != den));
    // Not even its owner reaches it by its name, and the name is free.
    assert_eq!(wait(store.join(RoomKey::parse("den"), ada.id, 0, NOW)), Err(StoreError::NotFound));
    assert_eq!(ok(store.join(by_id(den), ada.id, 0, NOW)).events, []);
    room(&*store, 51, "den", &ada);
    private(&*store, 52, "den", &ada, &[]);
    for kind in [RoomKind::Direct, RoomKind::Group] {
        let made = store.create_room(RoomId::from_bits(53), kind, room_claim("pen"), ada.id, 0, NOW);
        assert_eq!(wait(made), Err(StoreError::Forbidden));
    }
}

fn people_are_invited(open: Open) {
    let store = open();
    let (ada, bob, eve) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    let den = private(&*store, 50, "den", &ada, &[]);
    say(&*store, den, &ada, "before @Bob");
    let outcome = done(&*store, &ada, Act::Invite { room: den, user: bob.id });
    assert_eq!(told(&*store, &outcome), EventKind::Invited { target: bob.clone() });
    assert_eq!(outcome.memberships, [(bob.id, den, true)]);
    let info = ok(store.room_info(den, bob.id));
    assert_eq!((info.unread, info.read, info.owner), (0, 2, Some(ada.id)));
    assert_eq!(ok(store.members(den, 9)), (vec![ada.clone(), bob.clone()], 2));
    say(&*store, den, &bob, "thanks");
    let again = done(&*store, &ada, Act::Invite { room: den, user: bob.id });
    assert_eq!((again.events, again.memberships), (vec![], vec![]), "they are in it");
    let nobody = UserId::from_bits(404);
    assert_eq!(act(&*store, &ada, Act::Invite { room: den, user: nobody }), Err(StoreError::NotFound));
    done(&*store, &eve, Act::Block { user: ada.id, blocked: true });
    assert_eq!(act(&*store, &ada, Act::Invite { room: den, user: eve.id }), Err(StoreError::Blocked));
    // Leaving and coming back.
    assert!(ok(store.leave(den, bob.id, NOW)).is_some());
    assert_eq!(wait(store.leave(den, bob.id, NOW)), Err(StoreError::NotFound));
    done(&*store, &ada, Act::Invite { room: den, user: bob.id });
}

fn people_are_removed(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    say(&*store, den, &bob, "x");
    let outcome = done(&*store, &ada, Act::Remove { room: den, user: bob.id });
    assert_eq!(told(&*store, &outcome), EventKind::Removed { target: bob.clone() });
    assert_eq!(outcome.memberships, [(bob.id, den, false)]);
    assert_eq!(append(&*store, message(den, &bob, "x", None)), Err(StoreError::NotMember));
    assert_eq!(wait(store.room_info(den, bob.id)), Err(StoreError::NotFound));
    assert_eq!(ok(store.members(den, 9)).1, 1);
    let again = act(&*store, &ada, Act::Remove { room: den, user: bob.id });
    assert_eq!(again, Err(StoreError::NotMember));
    // Its owner, too, by those who keep order; who has been in it longest is told to own it.
    enter(&*store, den, &bob);
    let outcome = done(&*store, &moderator, Act::Remove { room: den, user: ada.id });
    let kinds: Vec<EventKind> = outcome.events.iter().map(|event| event.kind.clone()).collect();
    let removed = EventKind::Removed { target: ada.clone() };
    assert_eq!(kinds, [removed, EventKind::Transferred { target: bob.clone() }]);
    assert_eq!(ok(store.room_info(den, bob.id)).owner, Some(bob.id));
    let audit = rows(&*store, &boss(&*store), List::Audit);
    assert_eq!(
        (audit[0].kind.as_str(), &audit[0].by, &audit[0].user),
        ("remove", &Some(moderator), &Some(ada))
    );
}

fn groups_are_of_their_people(open: Open) {
    let store = open();
    let users = [(1, "Ada"), (2, "Bob"), (3, "Eve"), (4, "Kim")].map(|(id, name)| guest(&*store, id, name));
    let [ada, bob, eve, kim] = &users;
    let group = |id, by: &User, others: &[&User]| {
        let others = others.iter().map(|user| user.id).collect();
        wait(store.open_group(RoomId::from_bits(id), by.id, others, 0, NOW))
    };
    let made = group(50, ada, &[bob, eve]).unwrap();
    let den = made.info.id;
    assert_eq!((made.events.len(), made.users), (1, vec![ada.id, bob.id, eve.id]));
    assert_eq!((made.info.kind, made.info.name, made.info.owner), (RoomKind::Group, None, Some(ada.id)));
    assert_eq!(made.info.people, [bob.clone(), eve.clone()]);
    assert_eq!(ok(store.room_info(den, eve.id)).people, [ada.clone(), bob.clone()]);
    for (by, others) in [(bob, [eve, ada]), (eve, [ada, bob]), (ada, [eve, bob])] {
        let again = group(51, by, &others).unwrap();
        assert_eq!((again.info.id, again.events.len(), again.users.len()), (den, 0, 0));
    }
    let bigger = group(51, ada, &[bob, eve, kim, kim, ada]).unwrap();
    assert_eq!((bigger.info.id, bigger.info.people.len()), (RoomId::from_bits(51), 3));
    // Who leaves makes it the group of the others.
    ok(store.leave(bigger.info.id, ada.id, NOW));
    assert_eq!(group(52, bob, &[kim, eve]).unwrap().info.id, bigger.info.id);
    assert_eq!(ok(store.room_info(bigger.info.id, kim.id)).people, [bob.clone(), eve.clone()]);
    // A blocked one is not brought in, but where one is, one is.
    done(&*store, kim, Act::Block { user: ada.id, blocked: true });
    assert_eq!(group(53, ada, &[bob, kim]), Err(StoreError::Blocked));
    assert!(group(53, bob, &[ada, kim]).is_ok());
    assert!(group(54, ada, &[bob, kim]).is_ok());
    let nobody = User { id: UserId::from_bits(404), name: ada.name.clone() };
    assert_eq!(group(55, ada, &[bob, &nobody]), Err(StoreError::NotFound));
}

fn groups_are_bounded(open: Open) {
    let store = open();
    let users: Vec<User> =
        (1..=GROUP_MAX as u64 + 1).map(|id| guest(&*store, id, &format!("User {id}"))).collect();
    let group = |id, others: &[User]| {
        let others = others.iter().map(|user| user.id).collect();
        wait(store.open_group(RoomId::from_bits(id), users[0].id, others, 1, NOW))
    };
    assert_eq!(group(50, &users[1..]), Err(StoreError::TooMany));
    assert_eq!(group(50, &users[1..2]), Err(StoreError::TooMany));
    assert_eq!(group(50, &users[..2]), Err(StoreError::TooMany), "oneself does not count");
    let den = group(50, &users[1..GROUP_MAX - 1]).unwrap().info.id;
    assert_eq!(group(51, &users[1..GROUP_MAX]), Err(StoreError::TooManyRooms));
    let invite =
        |place: usize| act(&*store, &users[1], Act::Invite { room: den, user: users[place].id }).map(drop);
    assert_eq!(invite(GROUP_MAX - 1), Ok(()));
    assert_eq!(invite(GROUP_MAX), Err(StoreError::TooMany));
}

fn rooms_are_handed_over(open: Open) {
    let store = open();
    let [ada, bob, eve] = [(1, "Ada"), (2, "Bob"), (3, "Eve")].map(|(id, name)| member(&*store, id, name));
    let den = room(&*store, 50, "den", &ada);
    ok(store.join(by_id(den), eve.id, 0, 10));
    ok(store.join(by_id(den), bob.id, 0, 20));
    let owner = |user: &User| ok(store.room_info(den, user.id)).owner;
    ok(store.leave(den, ada.id, 30));
    assert_eq!(owner(&bob), Some(eve.id), "Eve has been in it longest");
    ok(store.join(by_id(den), ada.id, 0, 40));
    assert_eq!(owner(&ada), Some(eve.id), "what was given away is away");
    ok(store.leave(den, eve.id, 50));
    assert_eq!(owner(&ada), Some(bob.id));
    ok(store.leave(den, ada.id, 60));
    assert_eq!(owner(&bob), Some(bob.id));
    ok(store.leave(den, bob.id, 70));
    ok(store.join(by_id(den), eve.id, 0, 80));
    assert_eq!(owner(&eve), None, "an empty room belongs to nobody");
}

fn rooms_change_owners(open: Open) {
    let store = open();
    let [ada, bob, eve] = [(1, "Ada"), (2, "Bob"), (3, "Eve")].map(|(id, name)| member(&*store, id, name));
    let den = private(&*store, 50, "den", &ada, &[&bob]);
    let transfer = |by, user: &User| act(&*store, by, Act::Transfer { room: den, user: user.id });
    assert_eq!(transfer(&ada, &eve), Err(StoreError::NotMember));
    let outcome = transfer(&ada, &bob).unwrap();
    assert_eq!(told(&*store, &outcome), EventKind::Transferred { target: bob.clone() });
    assert_eq!(ok(store.room_info(den, ada.id)).owner, Some(bob.id));
    assert_eq!(transfer(&ada, &ada), Err(StoreError::Forbidden));
    assert_eq!(transfer(&bob, &bob).unwrap().events, []);
    assert_eq!(log(&*store, den).len(), 3);
}

fn rooms_get_topics(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let topic = |text| done(&*store, &ada, Act::Topic { room: den, text: Line::new(text) });
    assert_eq!(told(&*store, &topic("Tea")), EventKind::Topic { text: Line::new("Tea") });
    assert_eq!(ok(store.room_info(den, ada.id)).topic, Some(Line::new("Tea")));
    assert_eq!(topic("Tea").events, []);
    assert_eq!(told(&*store, &topic("")), EventKind::Topic { text: Line::default() });
    assert_eq!(ok(store.room_info(den, ada.id)).topic, None);
}

fn rooms_get_names(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    room(&*store, 51, "pen", &ada);
    let hidden = private(&*store, 52, "other", &ada, &[]);
    let rename = |room, name: &str| act(&*store, &ada, Act::RenameRoom { room, name: name.into() });
    for name in ["pen", "PEN", "lobby"] {
        assert_eq!(rename(den, name), Err(StoreError::NameTaken), "{name}");
    }
    assert_eq!(rename(den, "a/b"), Err(StoreError::Forbidden));
    let outcome = rename(den, "#Book Club").unwrap();
    assert_eq!(told(&*store, &outcome), EventKind::RoomRenamed { text: Line::new("book-club") });
    assert_eq!(ok(store.join(RoomKey::parse("book club"), ada.id, 0, NOW)).info.id, den);
    assert_eq!(wait(store.join(RoomKey::parse("den"), ada.id, 0, NOW)), Err(StoreError::NotFound));
    assert_eq!(rename(den, "book-club").unwrap().events, []);
    room(&*store, 53, "den", &ada);
    // A private room's name may be anybody's, and the audit log does not tell it.
    rename(hidden, "pen").unwrap();
    assert_eq!(ok(store.room_info(hidden, ada.id)).name, Some(room_claim("pen").name));
    let audit = rows(&*store, &boss(&*store), List::Audit);
    let texts: Vec<&str> =
        audit.iter().filter(|row| row.kind == "rename_room").map(|row| row.text.as_str()).collect();
    assert_eq!(texts, ["", "book-club"]);
}

fn archived_rooms_are_silent(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let first = append(&*store, message(den, &bob, "x", Some(reference(1)))).unwrap();
    let archive = |archived| done(&*store, &ada, Act::Archive { room: den, archived });
    assert_eq!(told(&*store, &archive(true)), EventKind::Archived { archived: true });
    for user in [&ada, &bob] {
        assert_eq!(append(&*store, message(den, user, "x", None)), Err(StoreError::Archived));
        assert!(ok(store.room_info(den, user.id)).archived);
    }
    let again = append(&*store, message(den, &bob, "x", Some(Ref(first.event.reference.unwrap().0))));
    assert_eq!(again.map(|appended| appended.event), Ok(first.event), "a repeat is answered all the same");
    assert_eq!(archive(true).events, []);
    done(&*store, &bob, Act::Delete { room: den, seq: 3 });
    drop(store);
    let store = open();
    assert_eq!(append(&*store, message(den, &bob, "x", None)), Err(StoreError::Archived));
    done(&*store, &ada, Act::Archive { room: den, archived: false });
    say(&*store, den, &bob, "again");
}

fn deleted_rooms_are_gone(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    say(&*store, den, &bob, "@Ada");
    let report = Act::Report { room: den, seq: 3, text: Line::new("x") };
    done(&*store, &ada, report);
    done(&*store, &ada, Act::Mute { room: den, user: bob.id, seconds: 9 });
    let url = "https://example.org".to_owned();
    done(&*store, &ada, Act::MakeOutgoingHook { room: den, text: Line::default(), url });
    let hook = done(&*store, &ada, Act::MakeIncomingHook { room: den, text: Line::new("CI") });
    let hook = hook.user.unwrap();
    let mut outcome = done(&*store, &ada, Act::DeleteRoom { room: den });
    outcome.memberships.sort();
    let mut out = vec![(ada.id, den, false), (bob.id, den, false), (hook.id, den, false)];
    out.sort();
    assert_eq!((outcome.memberships, outcome.rules_changed, outcome.events), (out, true, vec![]));
    assert_eq!((outcome.ended.len(), outcome.ended[0].user), (1, hook.id));
    assert_eq!(ok(store.outgoing_hooks()), []);
    for user in [&ada, &bob] {
        assert_eq!(wait(store.room_info(den, user.id)), Err(StoreError::NotFound));
        assert_eq!(append(&*store, message(den, user, "x", None)), Err(StoreError::NotFound));
        assert_eq!(ok(store.account(user.id)).rooms.len(), 1);
    }
    assert_eq!(wait(store.events_after(den, 0, 9)), Err(StoreError::NotFound));
    assert_eq!(wait(store.join(by_id(den), bob.id, 0, NOW)), Err(StoreError::NotFound));
    assert_eq!(ok(store.heads(vec![den])), []);
    let boss = boss(&*store);
    assert_eq!(rows(&*store, &boss, List::Reports), []);
    assert_eq!(rows(&*store, &boss, List::Audit)[0].kind, "take_ownership");
    let audit = rows(&*store, &boss, List::Audit);
    let row = audit.iter().find(|row| row.kind == "delete_room").unwrap();
    assert_eq!((row.room, row.text.as_str()), (Some(den), "den"));
    room(&*store, 51, "den", &bob);
    assert!(act_at(&*store, &ada, Act::DeleteRoom { room: den }, NOW).is_err());
}
