//! Clauses on order: deletions, mutes, slow mode, blocks, reports, bans, roles, the audit log.

use shared::acts::{Act, List, SLOW_SECONDS_MAX, Scope};
use shared::model::{LOBBY, Line, Ms, RoomId, UserId};
use shared::protocol::{EventKind, User};
use shared::rights::Role;

use super::people::{
    NOW, act, boss, done, kind_at, make, member, new_session, person, private, question, rows, session, told,
};
use super::{Open, append, enter, guest, log, message, ok, reference, room, say, token, user_claim, wait};
use crate::store::{AddressBan, Append, ListQuery, NewSession, Newcomer, Store, StoreError};

suite! {
    messages_are_deleted,
    only_messages_are_deleted,
    the_muted_are_silent,
    mutes_outlast_a_departure,
    slow_mode_counts_from_the_log,
    slow_mode_spares_who_keeps_the_room,
    blocks_stop_direct_messages,
    reports_reach_moderators,
    reports_are_bounded,
    bans_end_everything,
    bans_run_out,
    addresses_are_banned,
    roles_are_given,
    the_last_owner_stays,
    acts_are_answered_for,
    lists_go_on,
    links_end_with_their_makers_rights,
    bots_are_held_to_what_holds_for_their_makers,
    webhooks_stand_still_where_their_makers_are_not,
}

fn at(append: Append, at: Ms) -> Append {
    Append { at, ..append }
}

fn messages_are_deleted(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let once = message(den, &bob, "@Ada secret", Some(reference(1)));
    let seq = append(&*store, once.clone()).unwrap().event.seq;
    say(&*store, den, &ada, "mine");
    let outcome = done(&*store, &bob, Act::Delete { room: den, seq });
    assert_eq!(told(&*store, &outcome), EventKind::Deletion { of: seq });
    assert_eq!(outcome.events[0].user, bob);
    let event = log(&*store, den)[seq as usize - 1].clone();
    assert_eq!(
        (event.kind, event.user, event.reference),
        (EventKind::Deleted, bob.clone(), Some(reference(1)))
    );
    // Once more changes nothing, and what was sent once is not sent again.
    let length = log(&*store, den).len();
    assert_eq!(done(&*store, &bob, Act::Delete { room: den, seq }), crate::store::Outcome::default());
    let again = append(&*store, once).unwrap();
    assert_eq!((again.first, again.event.seq, again.event.kind), (false, seq, EventKind::Deleted));
    assert_eq!(log(&*store, den).len(), length);
    // Not those of others; but by who keeps order, and those are noted.
    assert_eq!(act(&*store, &bob, Act::Delete { room: den, seq: 4 }), Err(StoreError::Forbidden));
    done(&*store, &moderator, Act::Delete { room: den, seq: 4 });
    let audit = rows(&*store, &boss(&*store), List::Audit);
    let noted: Vec<_> = audit.iter().filter(|row| row.kind == "delete").collect();
    assert_eq!(noted.len(), 1);
    assert_eq!((&noted[0].user, noted[0].room, noted[0].text.as_str()), (&Some(ada), Some(den), "4"));
    // One's own only while one is in the room.
    let own = say(&*store, den, &bob, "x").seq;
    ok(store.leave(den, bob.id, NOW));
    assert_eq!(act(&*store, &bob, Act::Delete { room: den, seq: own }), Err(StoreError::Forbidden));
    drop(store);
    assert_eq!(kind_at(&*open(), den, seq), EventKind::Deleted);
}

fn only_messages_are_deleted(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let delete = |seq| act(&*store, &ada, Act::Delete { room: den, seq }).map(drop);
    assert_eq!(delete(1), Err(StoreError::NotFound), "that the room was made is no message");
    assert_eq!((delete(0), delete(2)), (Err(StoreError::NotFound), Err(StoreError::NotFound)));
    assert_eq!(kind_at(&*store, den, 1), EventKind::Created);
}

fn the_muted_are_silent(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let send = |store: &dyn Store, room, user: &User, when| {
        append(store, at(message(room, user, "x", None), when)).map(drop)
    };
    assert_eq!(send(&*store, den, &bob, NOW), Ok(()));
    let mute = |seconds| done(&*store, &ada, Act::Mute { room: den, user: bob.id, seconds });
    let until = NOW + 60_000;
    assert_eq!(told(&*store, &mute(60)), EventKind::Muted { target: bob.clone(), until });
    assert_eq!(send(&*store, den, &bob, until - 1), Err(StoreError::Muted(until)));
    assert_eq!((send(&*store, den, &bob, until), send(&*store, den, &ada, NOW)), (Ok(()), Ok(())));
    assert_eq!(send(&*store, LOBBY, &bob, NOW), Ok(()), "it is of that room only");
    assert_eq!(ok(store.room_info(den, bob.id)).muted_until, Some(until));
    assert_eq!(ok(store.room_info(den, ada.id)).muted_until, None);
    assert_eq!(told(&*store, &mute(0)), EventKind::Muted { target: bob.clone(), until: NOW });
    assert_eq!(send(&*store, den, &bob, NOW), Ok(()));
    assert_eq!(ok(store.room_info(den, bob.id)).muted_until, None);
    assert_eq!(mute(0).events, []);
    mute(60);
    drop(store);
    let store = open();
    assert_eq!(send(&*store, den, &bob, NOW), Err(StoreError::Muted(until)));
    // What is no message is not theirs to say.
    assert!(ok(store.rename(bob.id, user_claim("Robert"), false, NOW)).1.len() == 1);
}

fn mutes_outlast_a_departure(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    done(&*store, &ada, Act::Mute { room: den, user: bob.id, seconds: 60 });
    ok(store.leave(den, bob.id, NOW));
    enter(&*store, den, &bob);
    let sent = append(&*store, at(message(den, &bob, "x", None), NOW));
    assert_eq!(sent, Err(StoreError::Muted(NOW + 60_000)));
}

fn slow_mode_counts_from_the_log(open: Open) {
    let store = open();
    let (ada, bob, eve) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    let den = room(&*store, 50, "den", &ada);
    [&bob, &eve].into_iter().for_each(|user| enter(&*store, den, user));
    let send = |store: &dyn Store, user: &User, when| {
        append(store, at(message(den, user, "x", None), when)).map(|appended| appended.event.seq)
    };
    let seq = send(&*store, &bob, NOW).unwrap();
    send(&*store, &eve, NOW + 1_000).unwrap();
    let outcome = done(&*store, &ada, Act::SlowMode { room: den, seconds: 10 });
    assert_eq!(told(&*store, &outcome), EventKind::SlowMode { seconds: 10 });
    assert_eq!(ok(store.room_info(den, bob.id)).slow_seconds, 10);
    // What was said before it began counts, deleted or not.
    done(&*store, &bob, Act::Delete { room: den, seq });
    let refused = Err(StoreError::SlowMode(NOW + 10_000));
    assert_eq!(send(&*store, &bob, NOW + 9_999), refused);
    assert!(send(&*store, &bob, NOW + 10_000).is_ok());
    assert_eq!(send(&*store, &bob, NOW + 10_001), Err(StoreError::SlowMode(NOW + 20_000)));
    assert_eq!(send(&*store, &eve, NOW + 10_001), Err(StoreError::SlowMode(NOW + 11_000)));
    // Two at once, and after a restart.
    let two = [0, 1].map(|n| at(message(den, &eve, &n.to_string(), None), NOW + 30_000)).to_vec();
    let answers = ok(store.append(two));
    assert!(answers[0].is_ok());
    assert_eq!(answers[1], Err(StoreError::SlowMode(NOW + 40_000)));
    drop(store);
    let store = open();
    assert_eq!(send(&*store, &eve, NOW + 39_999), Err(StoreError::SlowMode(NOW + 40_000)));
    // A longer pause looks further back; none ends it.
    done(&*store, &ada, Act::SlowMode { room: den, seconds: 100 });
    assert_eq!(send(&*store, &bob, NOW + 50_000), Err(StoreError::SlowMode(NOW + 110_000)));
    // The clock was set back by a day.
    assert!(send(&*store, &bob, NOW - 86_400_000).is_ok());
    done(&*store, &ada, Act::SlowMode { room: den, seconds: 0 });
    assert!(send(&*store, &bob, NOW + 50_000).is_ok() && send(&*store, &bob, NOW + 50_000).is_ok());
    done(&*store, &ada, Act::SlowMode { room: den, seconds: u32::MAX });
    assert_eq!(ok(store.room_info(den, bob.id)).slow_seconds, SLOW_SECONDS_MAX);
}

fn slow_mode_spares_who_keeps_the_room(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let den = room(&*store, 50, "den", &ada);
    [&bob, &moderator].into_iter().for_each(|user| enter(&*store, den, user));
    done(&*store, &ada, Act::SlowMode { room: den, seconds: 10 });
    let twice = |user: &User| {
        let batch = [0, 1].map(|n| at(message(den, user, &n.to_string(), None), NOW)).to_vec();
        ok(store.append(batch))[1].clone().map(drop)
    };
    assert_eq!((twice(&ada), twice(&moderator)), (Ok(()), Ok(())));
    assert_eq!(twice(&bob), Err(StoreError::SlowMode(NOW + 10_000)));
}

fn blocks_stop_direct_messages(open: Open) {
    let store = open();
    let (ada, bob, eve) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"), guest(&*store, 3, "Eve"));
    let direct = |id, user: &User, peer: &User| {
        wait(store.open_direct(RoomId::from_bits(id), user.id, peer.id, 0, NOW))
            .map(|entered| entered.info.id)
    };
    let send = |room, user: &User| append(&*store, message(room, user, "x", None)).map(drop);
    let den = direct(50, &ada, &bob).unwrap();
    assert_eq!(send(den, &ada), Ok(()));
    for (by, user) in [(&ada, &bob), (&bob, &ada)] {
        done(&*store, by, Act::Block { user: user.id, blocked: true });
        assert_eq!((send(den, &ada), send(den, &bob)), (Err(StoreError::Blocked), Err(StoreError::Blocked)));
        assert_eq!(direct(51, &ada, &bob), Ok(den), "what was said is still there to read");
        assert_eq!(send(LOBBY, &ada), Ok(()));
        done(&*store, by, Act::Block { user: user.id, blocked: false });
        assert_eq!((send(den, &ada), send(den, &bob)), (Ok(()), Ok(())));
    }
    done(&*store, &ada, Act::Block { user: eve.id, blocked: true });
    done(&*store, &ada, Act::Block { user: eve.id, blocked: true });
    assert_eq!(direct(52, &eve, &ada), Err(StoreError::Blocked));
    assert_eq!(direct(52, &ada, &eve), Err(StoreError::Blocked));
    let listed = rows(&*store, &ada, List::Blocks);
    assert_eq!(listed.iter().map(|row| row.user.clone()).collect::<Vec<_>>(), [Some(eve)]);
    let nobody = UserId::from_bits(404);
    let block = act(&*store, &ada, Act::Block { user: nobody, blocked: true });
    assert_eq!(block, Err(StoreError::NotFound));
}

fn reports_reach_moderators(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let den = private(&*store, 50, "den", &ada, &[&bob]);
    let seq = say(&*store, den, &bob, "rude").seq;
    let report =
        |seq, text| act(&*store, &ada, Act::Report { room: den, seq, text: Line::new(text) }).map(drop);
    assert_eq!((report(1, "x"), report(404, "x")), (Err(StoreError::NotFound), Err(StoreError::NotFound)));
    assert_eq!(report(seq, "he is"), Ok(()));
    assert_eq!(report(seq, "he is rude"), Ok(()));
    let listed = rows(&*store, &moderator, List::Reports);
    assert_eq!(listed.len(), 1, "one of each person for each message");
    let row = &listed[0];
    assert_eq!(
        (&row.user, &row.by, row.room, row.seq),
        (&Some(bob.clone()), &Some(ada), Some(den), Some(seq))
    );
    assert_eq!((row.text.as_str(), row.more.as_str(), row.at), ("he is rude", "rude", Some(NOW)));
    // What was deleted is gone from there, too.
    done(&*store, &bob, Act::Delete { room: den, seq });
    assert_eq!(rows(&*store, &moderator, List::Reports)[0].more, "");
    let close = Act::CloseReport { id: row.id.clone() };
    done(&*store, &moderator, close.clone());
    assert_eq!(act(&*store, &moderator, close), Err(StoreError::NotFound));
    assert_eq!(rows(&*store, &moderator, List::Reports), []);
}

fn reports_are_bounded(open: Open) {
    let store = open();
    let (ada, bob) = (guest(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let report = |by| {
        let seq = say(&*store, LOBBY, &bob, "x").seq;
        act(&*store, by, Act::Report { room: LOBBY, seq, text: Line::default() }).map(drop)
    };
    for _ in 0..20 {
        assert_eq!(report(&ada), Ok(()));
    }
    assert_eq!(report(&ada), Err(StoreError::TooMany));
    assert_eq!(report(&bob), Ok(()), "others still can");
}

fn ban(user: &User, seconds: u32) -> Act {
    Act::Ban { user: Some(user.id), addresses: None, text: Line::new("spam"), seconds }
}

fn bans_end_everything(open: Open) {
    let store = open();
    let (moderator, ada) = (person(&*store, 3, "Moderator", Role::Moderator), member(&*store, 1, "Ada"));
    ok(store.sign_in(ada.id, NewSession::of(token(70), NOW), None));
    let bot = done(&*store, &ada, Act::MakeBot { name: "Robot".into() }).user.unwrap();
    let make_token =
        Act::MakeToken { bot: bot.id, text: Line::default(), scopes: vec![Scope::Read], seconds: 0 };
    let (bot_token, _) = make(&*store, &ada, make_token.clone(), NOW).unwrap();
    let den = private(&*store, 50, "den", &ada, &[&moderator]);
    say(&*store, den, &ada, "stays");
    let url = "https://example.org".to_owned();
    done(&*store, &ada, Act::MakeOutgoingHook { room: den, text: Line::default(), url });

    let outcome = done(&*store, &moderator, ban(&ada, 0));
    assert!(outcome.rules_changed && outcome.memberships.is_empty());
    let mut ended: Vec<_> = outcome
        .ended
        .into_iter()
        .map(|mut ended| {
            ended.tokens.sort();
            (ended.user, ended.tokens)
        })
        .collect();
    ended.sort();
    let mut own = vec![token(70), session(1)];
    own.sort();
    let mut expected = vec![(ada.id, own), (bot.id, vec![bot_token])];
    expected.sort();
    assert_eq!(ended, expected);

    let newcomer = || Some(Newcomer { id: UserId::from_bits(77), names: vec![user_claim("Nobody")] });
    for token in [token(70), session(1)] {
        for newcomer in [None, newcomer()] {
            let known = wait(store.identify(NewSession::of(token, NOW), newcomer));
            assert_eq!(known, Err(StoreError::Banned));
        }
    }
    assert_eq!(wait(store.identify(NewSession::of(bot_token, NOW), None)), Err(StoreError::NotFound));
    assert_eq!(wait(store.sign_in(ada.id, new_session(9), None)), Err(StoreError::Banned));
    assert_eq!(wait(store.sign_out(token(70), true)), Err(StoreError::NotFound));
    assert_eq!(act(&*store, &ada, make_token), Err(StoreError::Banned));
    assert_eq!(wait(store.list(ada.id, question(List::Sessions))), Err(StoreError::Banned));
    assert_eq!(append(&*store, message(den, &ada, "x", None)), Err(StoreError::Banned));
    assert_eq!(ok(store.outgoing_hooks()), []);
    assert!(
        log(&*store, den)
            .iter()
            .any(|event| event.user == ada && matches!(event.kind, EventKind::Message { .. }))
    );
    assert_eq!(ok(store.members(den, 9)).1, 2, "they are removed from nothing");

    let listed = rows(&*store, &moderator, List::Bans);
    assert_eq!(
        (&listed[0].user, listed[0].text.as_str(), listed[0].until),
        (&Some(ada.clone()), "spam", None)
    );
    done(&*store, &moderator, Act::Unban { id: listed[0].id.clone() });
    // A bot has no sessions, but it has tokens.
    let moderators_bot = done(&*store, &moderator, Act::MakeBot { name: "Other".into() }).user.unwrap();
    let make_token =
        Act::MakeToken { bot: moderators_bot.id, text: Line::default(), scopes: vec![], seconds: 0 };
    let (bot_token, _) = make(&*store, &moderator, make_token.clone(), NOW).unwrap();
    done(&*store, &moderator, ban(&moderators_bot, 0));
    let known = wait(store.identify(NewSession::of(bot_token, NOW), None));
    assert_eq!(known, Err(StoreError::Banned));
    assert_eq!(act(&*store, &moderator, make_token), Err(StoreError::Forbidden));
    // They sign in again; the old sessions stay what they are.
    assert_eq!(wait(store.identify(NewSession::of(token(70), NOW), None)), Err(StoreError::Ended));
    assert!(wait(store.sign_in(ada.id, new_session(9), None)).is_ok());
    say(&*store, den, &ada, "back");
}

fn bans_run_out(open: Open) {
    let store = open();
    let (moderator, ada) = (person(&*store, 3, "Moderator", Role::Moderator), member(&*store, 1, "Ada"));
    done(&*store, &moderator, ban(&ada, 10));
    let sign_in = |at| wait(store.sign_in(ada.id, NewSession::of(token(70), at), None)).map(drop);
    let bans = |at| ok(store.list(moderator.id, ListQuery { at, ..question(List::Bans) }));
    assert_eq!((sign_in(NOW + 9_999), bans(NOW + 9_999).len()), (Err(StoreError::Banned), 1));
    assert_eq!((sign_in(NOW + 10_000), bans(NOW + 10_000).len()), (Ok(()), 0));
    assert_eq!(append(&*store, at(message(LOBBY, &ada, "x", None), NOW + 10_000)).map(drop), Ok(()));
    // A second ban takes the first one's place.
    done(&*store, &moderator, ban(&ada, 10));
    done(&*store, &moderator, ban(&ada, 5));
    let listed = bans(NOW);
    assert_eq!((listed.len(), listed[0].until), (1, Some(NOW + 5_000)));
}

fn addresses_are_banned(open: Open) {
    let store = open();
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let ban = |addresses: &str, seconds| {
        let (addresses, text) = (Some(addresses.to_owned()), Line::new("flood"));
        act(&*store, &moderator, Act::Ban { user: None, addresses, text, seconds }).map(|o| o.rules_changed)
    };
    assert_eq!(ban("203.0.113.7", 10), Ok(true));
    assert_eq!(ban("2001:DB8::1/32", 0), Ok(true));
    assert_eq!(ban("2001:db8::/32", 0), Ok(true));
    for wrong in ["", "example.org", "0.0.0.0/0", "203.0.113.0/33"] {
        assert_eq!(ban(wrong, 0), Err(StoreError::Forbidden), "{wrong}");
    }
    let listed = |at| -> Vec<(String, Option<Ms>)> {
        ok(store.address_bans(at))
            .into_iter()
            .map(|AddressBan { addresses, until }| (addresses, until))
            .collect()
    };
    let (one, net) = (("203.0.113.7/32".to_owned(), Some(NOW + 10_000)), ("2001:db8::/32".to_owned(), None));
    assert_eq!(listed(NOW), [one, net.clone()]);
    assert_eq!(listed(NOW + 10_000), [net]);
    let row = &rows(&*store, &moderator, List::Bans)[0];
    assert_eq!((row.more.as_str(), &row.user, &row.by), ("2001:db8::/32", &None, &Some(moderator.clone())));
    assert!(done(&*store, &moderator, Act::Unban { id: row.id.clone() }).rules_changed);
    assert_eq!(act(&*store, &moderator, Act::Unban { id: row.id.clone() }), Err(StoreError::NotFound));
    assert_eq!(listed(NOW).len(), 1);
    let nothing = Act::Ban { user: None, addresses: None, text: Line::default(), seconds: 0 };
    assert_eq!(act(&*store, &moderator, nothing), Err(StoreError::Forbidden));
}

fn roles_are_given(open: Open) {
    let store = open();
    let (boss, ada, bob) = (boss(&*store), member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let set = |user: &User, role| act(&*store, &boss, Act::SetRole { user: user.id, role }).map(|o| o.users);
    assert_eq!(set(&ada, Role::Moderator), Ok(vec![ada.id]));
    assert_eq!(ok(store.account(ada.id)).role, Role::Moderator);
    assert_eq!(ok(store.identify(new_session(1), None)).role, Role::Moderator);
    assert_eq!(set(&ada, Role::Moderator), Ok(vec![]));
    assert_eq!(set(&ada, Role::Guest), Err(StoreError::Forbidden));
    assert_eq!(set(&bob, Role::Member), Err(StoreError::Forbidden), "a guest needs a password first");
    let bot = done(&*store, &ada, Act::MakeBot { name: "Robot".into() }).user.unwrap();
    assert_eq!(set(&bot, Role::Moderator), Err(StoreError::Forbidden));
    assert_eq!(set(&bot, Role::Member), Ok(vec![]));
    let nobody = User { id: UserId::from_bits(404), name: ada.name.clone() };
    assert_eq!(set(&nobody, Role::Member), Err(StoreError::NotFound));
}

fn the_last_owner_stays(open: Open) {
    let store = open();
    let (boss, ada) = (boss(&*store), member(&*store, 1, "Ada"));
    let set = |by, user: &User, role| act(&*store, by, Act::SetRole { user: user.id, role }).map(drop);
    assert_eq!(set(&boss, &boss, Role::Member), Err(StoreError::Forbidden));
    assert_eq!(set(&boss, &ada, Role::Owner), Ok(()));
    assert_eq!(set(&ada, &boss, Role::Member), Ok(()));
    assert_eq!(set(&ada, &ada, Role::Moderator), Err(StoreError::Forbidden));
    assert_eq!(ok(store.account(ada.id)).role, Role::Owner);
}

fn acts_are_answered_for(open: Open) {
    let store = open();
    let (boss, ada, bob) = (boss(&*store), member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &ada);
    enter(&*store, den, &bob);
    let seq = say(&*store, den, &bob, "x").seq;
    let before = rows(&*store, &boss, List::Audit).len();
    let text = Line::new("why");
    let acts = [
        Act::Mute { room: den, user: bob.id, seconds: 5 },
        Act::Delete { room: den, seq },
        Act::Remove { room: den, user: bob.id },
        Act::RenameRoom { room: den, name: "pen".into() },
        Act::Archive { room: den, archived: true },
        Act::MakeIncomingHook { room: den, text: text.clone() },
        Act::DeleteRoom { room: den },
        Act::SetRole { user: ada.id, role: Role::Moderator },
        Act::MakeInvite { text: text.clone(), uses: 1, seconds: 0 },
        Act::MakeReset { user: ada.id },
        Act::MakeBot { name: "Robot".into() },
        Act::Ban { user: Some(bob.id), addresses: None, text, seconds: 0 },
    ];
    for (place, what) in acts.iter().enumerate() {
        // Not what is refused.
        let nobody = guest(&*store, 3_000 + place as u64, "Eve");
        assert!(act(&*store, &nobody, what.clone()).is_err(), "{what:?}");
        done(&*store, &boss, what.clone());
    }
    done(&*store, &ada, Act::Topic { room: LOBBY, text: Line::new("for all") });
    let audit = rows(&*store, &boss, List::Audit);
    let kinds: Vec<&str> = audit[..audit.len() - before].iter().rev().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, acts.each_ref().map(Act::name));
    assert!(audit.iter().take(acts.len()).all(|row| row.by == Some(boss.clone()) && row.at == Some(NOW)));
    let muted = &audit[audit.len() - before - 1];
    assert_eq!((&muted.user, muted.room, muted.text.as_str()), (&Some(bob), Some(den), "5 s"));
}

fn lists_go_on(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let others: Vec<User> = (0..105)
        .map(|n: u64| {
            let [high, low] = [n / 26, n % 26].map(|digit| char::from(b'a' + digit as u8));
            guest(&*store, 100 + n, &format!("Other {high}{low}"))
        })
        .collect();
    others.iter().for_each(|user| drop(done(&*store, &ada, Act::Block { user: user.id, blocked: true })));
    let names = |list, text: &str, before: Option<&str>| -> (Vec<String>, Option<String>) {
        let query = ListQuery { text: Line::new(text), before: before.map(str::to_owned), ..question(list) };
        let rows = ok(store.list(ada.id, query));
        let last = rows.last().map(|row| row.id.clone());
        (rows.into_iter().map(|row| row.user.unwrap().name.to_string()).collect(), last)
    };
    let all: Vec<String> = others.iter().map(|user| user.name.to_string()).collect();
    let (first, last) = names(List::Blocks, "", None);
    let (second, _) = names(List::Blocks, "", last.as_deref());
    assert_eq!((first.len(), second.len()), (100, 5));
    let blocked: Vec<String> = first.into_iter().chain(second).rev().collect();
    assert_eq!(blocked, all);
    let (first, last) = names(List::Users, "oTHer", None);
    let (second, last_again) = names(List::Users, "other", last.as_deref());
    assert_eq!(first.into_iter().chain(second).collect::<Vec<_>>(), all);
    assert_eq!(names(List::Users, "other", last_again.as_deref()).0, Vec::<String>::new());
    assert_eq!(names(List::Users, "Other  E", None).0.len(), 1);
    assert_eq!(names(List::Users, "%", None).0, Vec::<String>::new());
    assert_eq!(names(List::Users, "", None).0[0], "Ada");
    let wrong = ListQuery { before: Some("x".into()), ..question(List::Blocks) };
    assert_eq!(wait(store.list(ada.id, wrong)), Err(StoreError::NotFound));
}

fn links_end_with_their_makers_rights(open: Open) {
    let store = open();
    let moderator = person(&*store, 3, "Moderator", Role::Moderator);
    let second = person(&*store, 4, "Second", Role::Owner);
    let ada = member(&*store, 1, "Ada");
    let boss = boss(&*store);
    let works = |link| wait(store.link(link, NOW)).is_ok();
    let invite = |by: &User| {
        let act = Act::MakeInvite { text: Line::default(), uses: 0, seconds: 0 };
        make(&*store, by, act, NOW).unwrap().0
    };
    let reset = |by: &User| make(&*store, by, Act::MakeReset { user: ada.id }, NOW).unwrap().0;

    let (banned, invited, kept) = (invite(&moderator), invite(&second), invite(&boss));
    done(
        &*store,
        &boss,
        Act::Ban { user: Some(moderator.id), addresses: None, text: Line::default(), seconds: 0 },
    );
    assert!(!works(banned) && works(invited));
    let link = reset(&second);
    done(&*store, &boss, Act::SetRole { user: second.id, role: Role::Moderator });
    assert!(!works(link) && works(invited), "a moderator may still invite");
    done(&*store, &boss, Act::SetRole { user: second.id, role: Role::Member });
    assert!(!works(invited) && works(kept));

    let link = reset(&boss);
    ok(store.set_password(session(1), "another".into()));
    assert!(!works(link), "who changed the password wants no other one");
}

fn bots_are_held_to_what_holds_for_their_makers(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let den = room(&*store, 50, "den", &bob);
    enter(&*store, den, &ada);
    let bot = done(&*store, &ada, Act::MakeBot { name: "Helper".into() }).user.unwrap();
    enter(&*store, den, &bot);
    let write = || append(&*store, at(message(den, &bot, "x", None), NOW));
    assert!(write().is_ok());
    done(&*store, &bob, Act::Mute { room: den, user: ada.id, seconds: 60 });
    assert_eq!(write(), Err(StoreError::Muted(NOW + 60_000)));
    done(&*store, &bob, Act::Mute { room: den, user: ada.id, seconds: 0 });
    assert!(write().is_ok());

    done(&*store, &bob, Act::Block { user: ada.id, blocked: true });
    let direct =
        |by: &User, peer: &User| wait(store.open_direct(RoomId::from_bits(60), by.id, peer.id, 0, NOW));
    assert_eq!(direct(&bot, &bob), Err(StoreError::Blocked));
    let heir = act(&*store, &bob, Act::Transfer { room: den, user: bot.id });
    assert_eq!(heir, Err(StoreError::Forbidden), "a bot cannot act for a room");
}

fn webhooks_stand_still_where_their_makers_are_not(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let den = private(&*store, 50, "den", &ada, &[&bob]);
    let url = "https://example.org".to_owned();
    done(&*store, &ada, Act::MakeOutgoingHook { room: den, text: Line::default(), url });
    assert_eq!(ok(store.outgoing_hooks()).len(), 1);
    done(&*store, &ada, Act::Transfer { room: den, user: bob.id });
    let removed = done(&*store, &bob, Act::Remove { room: den, user: ada.id });
    assert!(removed.rules_changed);
    assert_eq!(ok(store.outgoing_hooks()), []);
}
