//! A store with something of everything in it, and all that can be seen of it: for what must lose nothing.

use std::fmt::Write;

use shared::acts::{Act, List, Scope};
use shared::model::{LOBBY, Line, RoomId, UserId};
use shared::protocol::User;
use shared::rights::Role;

use super::people::{NOW, boss, done, make, member, person, private, question, session};
use super::{append, by_id, enter, guest, log, message, ok, reference, room, say, token, user_claim, wait};
use crate::store::{ListQuery, NewSession, Store, TokenHash};

/// What a store was filled with, to be asked for.
pub(in crate::store) struct Everything {
    users: Vec<User>,
    rooms: Vec<RoomId>,
    /// Of sessions and programs, some of which are over.
    tokens: Vec<TokenHash>,
    links: Vec<TokenHash>,
}

/// Makes something of everything.
pub(in crate::store) fn fill(store: &dyn Store) -> Everything {
    let boss = boss(store);
    let (ada, bob) = (member(store, 1, "Ada"), guest(store, 2, "Bob"));
    let (mallory, dan) = (member(store, 3, "Mallory"), guest(store, 4, "たなかさん"));
    let moderator = person(store, 5, "Mo", Role::Moderator);
    let den = room(store, 50, "den", &ada);
    [&bob, &mallory].into_iter().for_each(|user| enter(store, den, user));
    let attic = private(store, 51, "attic", &ada, &[&bob, &dan]);
    let direct = ok(store.open_direct(RoomId::from_bits(52), ada.id, bob.id, 0, NOW)).info.id;
    let group = ok(store.open_group(RoomId::from_bits(53), ada.id, vec![bob.id, dan.id], 0, NOW)).info.id;
    let gone = room(store, 54, "gone", &mallory);

    let awkward = "\\N \\. \\x00 'quoted' \"and\"\n\ttabs\n.\n%s \u{1f426} \u{202e}";
    for (n, room) in [LOBBY, den, attic, direct, group, gone].into_iter().enumerate() {
        for (place, author) in [&ada, &bob].into_iter().enumerate() {
            let place = 10 * n as u128 + place as u128;
            let _ = append(store, message(room, author, awkward, Some(reference(place))));
            let _ = append(store, message(room, author, "@Bob and @Ada and @room", None));
        }
    }
    done(store, &ada, Act::Topic { room: den, text: Line::new("about \\N") });
    done(store, &ada, Act::RenameRoom { room: attic, name: "loft".into() });
    done(store, &ada, Act::SlowMode { room: attic, seconds: 60 });
    done(store, &ada, Act::Delete { room: den, seq: say(store, den, &ada, "not this").seq });
    done(store, &mallory, Act::DeleteRoom { room: gone });
    done(store, &ada, Act::Archive { room: group, archived: true });
    wait(store.mark_read(den, bob.id, 4, None)).unwrap();
    done(store, &bob, Act::Unread { room: den, seq: 2 });
    done(store, &bob, Act::Quiet { room: den, quiet: true });
    done(store, &ada, Act::Mute { room: den, user: bob.id, seconds: 60 });
    for blocked in [&dan, &mallory] {
        done(store, &bob, Act::Block { user: blocked.id, blocked: true });
    }
    // The newest row id is of a row that is not there any more.
    done(store, &bob, Act::Block { user: mallory.id, blocked: false });
    done(store, &bob, Act::Report { room: den, seq: 4, text: Line::new("rude") });
    wait(store.rename(ada.id, user_claim("Ada L."), true, NOW)).unwrap();

    let make = |by, act| make(store, by, act, NOW).unwrap();
    let robot = make(&ada, Act::MakeBot { name: "Robot".into() }).1.user.unwrap();
    let scopes = vec![Scope::Send, Scope::Read];
    let text = Line::new("laptop");
    let robots = make(&ada, Act::MakeToken { bot: robot.id, text: text.clone(), scopes, seconds: 60 }).0;
    let incoming = make(&ada, Act::MakeIncomingHook { room: den, text: Line::new("Builds") });
    let url = "https://example.org/hook?a=1".to_owned();
    make(&ada, Act::MakeOutgoingHook { room: den, text: text.clone(), url });
    let hook = ok(store.outgoing_hooks())[0].id;
    wait(store.hook_done(hook, 3, Line::new("200"))).unwrap();
    let links = vec![
        make(&boss, Act::MakeInvite { text, uses: 3, seconds: 0 }).0,
        make(&boss, Act::MakeReset { user: ada.id }).0,
        token(7_000),
    ];
    assert!(ok(store.offer_ownership(links[2], NOW, NOW + 60_000, true)));
    let ban = |user, addresses| Act::Ban { user, addresses, text: Line::new("spam"), seconds: 60 };
    done(store, &moderator, ban(Some(mallory.id), None));
    done(store, &boss, ban(None, Some("203.0.113.0/24".into())));
    wait(store.sign_in(ada.id, NewSession::of(token(8_000), NOW), None)).unwrap();
    wait(store.sign_out(token(8_000), false)).unwrap();
    wait(store.touch(vec![(token(2), NOW + 7)])).unwrap();

    let users = vec![boss, ada, bob, mallory, dan, moderator, robot, incoming.1.user.unwrap()];
    let sessions = (1..6).flat_map(|id| [token(id), session(id)]);
    let tokens = sessions.chain([token(8_000), robots, incoming.0, token(9_999)]).collect();
    Everything { users, rooms: vec![LOBBY, den, attic, direct, group, gone], tokens, links }
}

/// All that can be seen, as text.
pub(in crate::store) fn see(store: &dyn Store, everything: &Everything) -> String {
    let mut seen = format!("{:?}\n", store.secret());
    let mut line = |text: String| writeln!(seen, "{text}").unwrap();
    let (boss, ada) = (&everything.users[0], &everything.users[1]);
    for user in &everything.users {
        line(format!("{:#?}", wait(store.account(user.id))));
        line(format!("{:?}", wait(store.credentials(user_claim(user.name.as_str()).skeleton))));
        for list in [List::Sessions, List::Blocks, List::Bots] {
            line(format!("{:?}", wait(store.list(user.id, question(list)))));
        }
        line(format!("{:?}", wait(store.directory(user.id, 100))));
        for room in &everything.rooms {
            line(format!("{:?}", wait(store.room_info(*room, user.id))));
        }
    }
    for list in [List::Users, List::Links, List::Bans, List::Reports, List::Audit] {
        line(format!("{:#?}", wait(store.list(boss.id, question(list)))));
    }
    for room in everything.rooms.iter().copied() {
        line(format!("{:?}", wait(store.members(room, 100))));
        line(format!("{:#?}", wait(store.events_after(room, 0, 1_000))));
        let hooks = ListQuery { room: Some(room), ..question(List::Hooks) };
        line(format!("{:?}", wait(store.list(ada.id, hooks))));
    }
    line(format!(
        "{:?}",
        wait(store.heads(everything.rooms.clone())).map(|mut heads| {
            heads.sort();
            heads
        })
    ));
    for token in &everything.tokens {
        line(format!("{:?}", wait(store.identify(NewSession::of(*token, NOW), None))));
    }
    for link in &everything.links {
        line(format!("{:?}", wait(store.link(*link, NOW))));
    }
    line(format!("{:?}", wait(store.address_bans(NOW))));
    line(format!("{:?}", wait(store.outgoing_hooks())));
    seen
}

/// Goes on: what is said and made after all that, with the ids that it gets. The same in a store that holds the
/// same, but for secrets.
pub(in crate::store) fn go_on(store: &dyn Store, everything: &Everything) -> String {
    let (ada, bob, dan) = (&everything.users[1], &everything.users[2], &everything.users[4]);
    let ada = ok(store.account(ada.id)).user;
    let mut seen = String::new();
    for room in everything.rooms.iter().copied() {
        // One that was said before, and one that was not.
        for n in [0, 10, 20, 30, 40, 50, 99 + u128::from(room.bits())] {
            let said = append(store, message(room, &ada, "on", Some(reference(n))));
            writeln!(seen, "{said:?}").unwrap();
        }
    }
    done(store, &ada, Act::Block { user: dan.id, blocked: true });
    done(store, bob, Act::Report { room: LOBBY, seq: 1, text: Line::default() });
    let robot = everything.users[6].id;
    let act = Act::MakeToken { bot: robot, text: Line::default(), scopes: vec![], seconds: 0 };
    make(store, &ada, act, NOW).unwrap();
    let newcomer = UserId::from_bits(77);
    let guest = guest(store, newcomer.bits(), "Newcomer");
    writeln!(seen, "{:?}", wait(store.join(by_id(everything.rooms[1]), guest.id, 0, NOW))).unwrap();
    for list in [List::Blocks, List::Bots] {
        writeln!(seen, "{:?}", wait(store.list(ada.id, question(list)))).unwrap();
    }
    for list in [List::Reports, List::Audit] {
        writeln!(seen, "{:?}", wait(store.list(everything.users[0].id, question(list)))).unwrap();
    }
    for room in everything.rooms.iter().copied() {
        writeln!(seen, "{:?}", log_if_there(store, room)).unwrap();
    }
    seen
}

fn log_if_there(store: &dyn Store, room: RoomId) -> Option<usize> {
    wait(store.events_after(room, 0, 1)).ok().map(|_| log(store, room).len())
}
