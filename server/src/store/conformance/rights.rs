//! Clauses on rights: the store asks `shared::rights`, and nobody learns of a room they are not in.

use shared::acts::{Act, List};
use shared::model::{LOBBY, Line, RoomId, UserId};
use shared::protocol::{RoomKind, User};
use shared::rights::{Right, Role, Standing, may};

use super::people::{NOW, act, boss, done, member, person, private, question};
use super::{Open, append, by_id, enter, guest, log, message, ok, room, room_claim, say, wait};
use crate::store::{ListQuery, Store, StoreError};

suite! {
    rooms_are_for_those_who_may,
    the_server_is_for_those_who_may,
    conversations_of_two_have_no_keeper,
    rooms_of_others_do_not_exist,
    the_lobby_stays_as_it_is,
    nobody_is_done_to_by_those_below,
}

/// A room with its keeper and two others, and the actor as they should stand in it.
fn scene(
    store: &dyn Store,
    id: u64,
    kind: RoomKind,
    standing: Standing,
    actor: &User,
    keeper: &User,
) -> (RoomId, [User; 3]) {
    let others = [1, 2, 3].map(|n| guest(store, id * 10 + n, &format!("Guest {id} {n}")));
    let in_room: Vec<&User> =
        others[..2].iter().chain((standing > Standing::Outsider).then_some(actor)).collect();
    let room = match kind {
        RoomKind::Group => {
            let people = in_room.iter().map(|user| user.id).collect();
            ok(store.open_group(RoomId::from_bits(id), keeper.id, people, 0, NOW)).info.id
        }
        RoomKind::Private => private(store, id, "den", keeper, &in_room),
        _ => {
            let room = room(store, id, &format!("den-{id}"), keeper);
            in_room.iter().for_each(|user| enter(store, room, user));
            room
        }
    };
    if standing == Standing::Owner {
        done(store, keeper, Act::Transfer { room, user: actor.id });
    }
    (room, others)
}

fn rooms_are_for_those_who_may(open: Open) {
    let store = open();
    let keeper = member(&*store, 1, "Keeper");
    let actors =
        Role::ALL.map(|role| (role, person(&*store, 10 + role as u64, &format!("A {}", role.name()), role)));
    let mut id = 1_000;
    for kind in [RoomKind::Public, RoomKind::Private, RoomKind::Group] {
        for (role, actor) in &actors {
            for standing in [Standing::Outsider, Standing::Member, Standing::Owner] {
                id += 1;
                let (room, [victim, heir, stranger]) = scene(&*store, id, kind, standing, actor, &keeper);
                let seq = say(&*store, room, &victim, "x").seq;
                let (text, url) = (Line::new("text"), "https://example.org".to_owned());
                let mut standing = standing;
                for (right, what) in [
                    (Right::Report, Act::Report { room, seq, text: text.clone() }),
                    (Right::Topic, Act::Topic { room, text: text.clone() }),
                    (Right::RenameRoom, Act::RenameRoom { room, name: format!("pen-{id}") }),
                    (Right::SlowMode, Act::SlowMode { room, seconds: 5 }),
                    (Right::Mute, Act::Mute { room, user: victim.id, seconds: 5 }),
                    (Right::DeleteMessage, Act::Delete { room, seq }),
                    (Right::MakeHook, Act::MakeOutgoingHook { room, text: text.clone(), url }),
                    (Right::MakeHook, Act::MakeIncomingHook { room, text }),
                    (Right::Remove, Act::Remove { room, user: victim.id }),
                    (Right::Invite, Act::Invite { room, user: stranger.id }),
                    (Right::Archive, Act::Archive { room, archived: true }),
                    (Right::Transfer, Act::Transfer { room, user: heir.id }),
                    (Right::DeleteRoom, Act::DeleteRoom { room }),
                ] {
                    let is_hidden = standing == Standing::Outsider && kind != RoomKind::Public;
                    let has_no_name = kind == RoomKind::Group && right == Right::RenameRoom;
                    let expected = if is_hidden {
                        Err(StoreError::NotFound)
                    } else if may(right, *role, standing, kind) && !has_no_name {
                        Ok(())
                    } else {
                        Err(StoreError::Forbidden)
                    };
                    let context = format!("{what:?} by {role:?}, {standing:?} in {kind:?}");
                    assert_eq!(act(&*store, actor, what).map(drop), expected, "{context}");
                    if right == Right::Transfer && expected.is_ok() {
                        standing = standing.min(Standing::Member);
                    }
                }
            }
        }
    }
}

fn the_server_is_for_those_who_may(open: Open) {
    let store = open();
    let target = member(&*store, 1, "Target");
    for (place, role) in Role::ALL.into_iter().enumerate() {
        let id = 10 + place as u64;
        let actor = person(&*store, id, &format!("A {}", role.name()), role);
        let allowed = |right| {
            if may(right, role, Standing::Member, RoomKind::Public) {
                Ok(())
            } else {
                Err(StoreError::Forbidden)
            }
        };
        let (text, user) = (Line::default(), target.id);
        let addresses = Some("203.0.113.7".to_owned());
        for (right, what) in [
            (Right::Ban, Act::Ban { user: None, addresses, text: text.clone(), seconds: 5 }),
            (Right::SetRole, Act::SetRole { user, role: Role::Member }),
            (Right::InviteToServer, Act::MakeInvite { text: text.clone(), uses: 1, seconds: 5 }),
            (Right::ResetPassword, Act::MakeReset { user }),
            (Right::MakeBot, Act::MakeBot { name: format!("Bot {id}") }),
        ] {
            let context = format!("{what:?} by {role:?}");
            assert_eq!(act(&*store, &actor, what).map(drop), allowed(right), "{context}");
        }
        for (right, what) in [
            (Right::Ban, Act::Unban { id: "nothing".into() }),
            (Right::ReadReports, Act::CloseReport { id: "nothing".into() }),
            (Right::InviteToServer, Act::RevokeLink { id: "nothing".into() }),
        ] {
            let expected = allowed(right).and(Err(StoreError::NotFound));
            assert_eq!(act(&*store, &actor, what).map(drop), expected, "{right:?} by {role:?}");
        }
        for (right, list) in [
            (Right::InviteToServer, List::Links),
            (Right::Ban, List::Bans),
            (Right::ReadReports, List::Reports),
            (Right::ReadAudit, List::Audit),
        ] {
            let listed = wait(store.list(actor.id, question(list))).map(drop);
            assert_eq!(listed, allowed(right), "{list:?} for {role:?}");
        }
        for (right, kind) in
            [(Right::CreatePublic, RoomKind::Public), (Right::CreatePrivate, RoomKind::Private)]
        {
            let room = RoomId::from_bits(1_000 * (1 + kind as u64) + id);
            let name = room_claim(&format!("den-{id}"));
            let made = wait(store.create_room(room, kind, name, actor.id, 0, NOW)).map(drop);
            assert_eq!(made, allowed(right), "{right:?} by {role:?}");
        }
    }
}

fn conversations_of_two_have_no_keeper(open: Open) {
    let store = open();
    let (boss, ada, bob) = (boss(&*store), member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let info = ok(store.open_direct(RoomId::from_bits(50), boss.id, ada.id, 0, NOW)).info;
    let room = info.id;
    assert_eq!(info.owner, None);
    let seq = say(&*store, room, &ada, "x").seq;
    let (text, url) = (Line::default(), "https://example.org".to_owned());
    for what in [
        Act::Invite { room, user: bob.id },
        Act::Remove { room, user: ada.id },
        Act::Transfer { room, user: boss.id },
        Act::RenameRoom { room, name: "den".into() },
        Act::Archive { room, archived: true },
        Act::DeleteRoom { room },
        Act::SlowMode { room, seconds: 5 },
        Act::Mute { room, user: ada.id, seconds: 5 },
        Act::Delete { room, seq },
        Act::MakeIncomingHook { room, text: text.clone() },
        Act::MakeOutgoingHook { room, text, url },
    ] {
        assert_eq!(act(&*store, &boss, what.clone()), Err(StoreError::Forbidden), "{what:?}");
    }
    assert_eq!(log(&*store, room).len(), 2);
    done(&*store, &boss, Act::Topic { room, text: Line::new("us") });
    done(&*store, &ada, Act::Delete { room, seq });
}

/// Whatever somebody tries with a room they are not in, the owner of the server included, the answer is that of
/// a room that does not exist.
fn rooms_of_others_do_not_exist(open: Open) {
    let store = open();
    let boss = boss(&*store);
    let (ada, bob, eve) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    let people = vec![bob.id, eve.id];
    let hidden = [
        private(&*store, 50, "den", &ada, &[&bob]),
        ok(store.open_direct(RoomId::from_bits(51), ada.id, bob.id, 0, NOW)).info.id,
        ok(store.open_group(RoomId::from_bits(52), ada.id, people, 0, NOW)).info.id,
    ];
    let missing = RoomId::from_bits(404);
    let mallory = member(&*store, 4, "Mallory");
    for room in hidden {
        say(&*store, room, &ada, "secret");
    }
    let before = hidden.map(|room| log(&*store, room));
    let answers = |room: RoomId, by: &User| {
        let (user, seq, text) = (bob.id, 2, Line::new("x"));
        let url = "https://example.org".to_owned();
        let acts = [
            Act::Invite { room, user: by.id },
            Act::Remove { room, user },
            Act::Transfer { room, user },
            Act::Topic { room, text: text.clone() },
            Act::RenameRoom { room, name: "x".into() },
            Act::Archive { room, archived: true },
            Act::DeleteRoom { room },
            Act::SlowMode { room, seconds: 5 },
            Act::Mute { room, user, seconds: 5 },
            Act::Delete { room, seq },
            Act::Report { room, seq, text: text.clone() },
            Act::Unread { room, seq },
            Act::Quiet { room, quiet: true },
            Act::MakeIncomingHook { room, text: text.clone() },
            Act::MakeOutgoingHook { room, text, url },
        ];
        let mut answers: Vec<Result<(), StoreError>> =
            acts.into_iter().map(|what| act(&*store, by, what).map(drop)).collect();
        let hooks = ListQuery { room: Some(room), ..question(List::Hooks) };
        answers.extend([
            wait(store.list(by.id, hooks)).map(drop),
            wait(store.room_info(room, by.id)).map(drop),
            wait(store.join(by_id(room), by.id, 0, NOW)).map(drop),
            wait(store.leave(room, by.id, NOW)).map(drop),
            wait(store.mark_read(room, by.id, 2, None)).map(drop),
            append(&*store, message(room, by, "x", None)).map(drop),
        ]);
        answers
    };
    for by in [&mallory, &boss] {
        let expected = answers(missing, by);
        assert!(expected.iter().all(|answer| *answer == Err(StoreError::NotFound)));
        for room in hidden {
            assert_eq!(answers(room, by), expected);
        }
        assert!(ok(store.directory(by.id, 99)).iter().all(|listing| !hidden.contains(&listing.id)));
        assert_eq!(ok(store.account(by.id)).rooms.len(), 1);
        // Nor does the name tell: somebody else's private room may have it.
        let name = room_claim("den");
        assert_eq!(
            wait(store.join(crate::store::RoomKey::parse("den"), by.id, 0, NOW)),
            Err(StoreError::NotFound)
        );
        let own = RoomId::from_bits(60 + by.id.bits());
        let made = ok(store.create_room(own, RoomKind::Private, name, by.id, 0, NOW));
        assert_eq!(made.info.name, ok(store.room_info(hidden[0], ada.id)).name);
        ok(store.leave(own, by.id, NOW));
    }
    assert_eq!(hidden.map(|room| log(&*store, room)), before);
    // Those who have left are as those who never were in it.
    ok(store.leave(hidden[0], bob.id, NOW));
    assert_eq!(answers(hidden[0], &bob), answers(missing, &bob));
}

fn the_lobby_stays_as_it_is(open: Open) {
    let store = open();
    let (boss, ada) = (boss(&*store), guest(&*store, 1, "Ada"));
    let room = LOBBY;
    for what in [
        Act::Remove { room, user: ada.id },
        Act::Transfer { room, user: boss.id },
        Act::RenameRoom { room, name: "hall".into() },
        Act::Archive { room, archived: true },
        Act::DeleteRoom { room },
    ] {
        assert_eq!(act(&*store, &boss, what.clone()), Err(StoreError::Forbidden), "{what:?}");
    }
    assert_eq!(log(&*store, LOBBY), []);
    let seq = say(&*store, LOBBY, &ada, "x").seq;
    assert_eq!(done(&*store, &boss, Act::Invite { room, user: ada.id }).events, []);
    for what in [
        Act::Topic { room, text: Line::new("All of us") },
        Act::SlowMode { room, seconds: 5 },
        Act::Mute { room, user: ada.id, seconds: 5 },
        Act::Delete { room, seq },
    ] {
        assert_eq!(act(&*store, &ada, what.clone()).is_ok(), matches!(what, Act::Delete { .. }), "{what:?}");
        assert!(act(&*store, &boss, what.clone()).is_ok(), "{what:?}");
    }
    let info = ok(store.room_info(LOBBY, ada.id));
    assert_eq!((info.topic, info.slow_seconds, info.owner), (Some(Line::new("All of us")), 5, None));
}

fn nobody_is_done_to_by_those_below(open: Open) {
    let store = open();
    let boss = boss(&*store);
    let moderator = person(&*store, 1, "Moderator", Role::Moderator);
    let other = person(&*store, 2, "Other", Role::Moderator);
    let owner = person(&*store, 3, "Owner", Role::Owner);
    let ada = member(&*store, 4, "Ada");
    let room = private(&*store, 50, "den", &ada, &[&moderator, &other, &owner, &boss]);
    let tries = |by: &User, target: &User| {
        let user = target.id;
        let text = Line::default();
        let ban = Act::Ban { user: Some(user), addresses: None, text, seconds: 1 };
        let acts = [Act::Mute { room, user, seconds: 0 }, Act::Remove { room, user }, ban];
        acts.map(|what| act(&*store, by, what).map(drop))
    };
    let forbidden = [(); 3].map(|()| Err(StoreError::Forbidden));
    for (by, target) in [
        (&ada, &ada),
        (&boss, &boss),
        (&moderator, &other),
        (&moderator, &owner),
        (&boss, &owner),
        (&ada, &moderator),
    ] {
        assert_eq!(tries(by, target), forbidden, "{} to {}", by.name, target.name);
    }
    assert_eq!(tries(&moderator, &ada), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(tries(&owner, &moderator), [Ok(()), Ok(()), Ok(())]);
    // Nobody, and somebody who is not in the room.
    let nobody = User { id: UserId::from_bits(404), name: ada.name.clone() };
    assert_eq!(tries(&boss, &nobody), [(); 3].map(|()| Err(StoreError::NotFound)));
    let bob = guest(&*store, 5, "Bob");
    let not_member = Err(StoreError::NotMember);
    assert_eq!(tries(&boss, &bob), [not_member.clone(), not_member, Ok(())]);
}
