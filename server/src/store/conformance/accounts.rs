//! Clauses on accounts: passwords, sessions, links.

use shared::acts::{Act, List, ROWS_MAX};
use shared::model::{LOBBY, Line, Ms, UserId};
use shared::rights::Role;

use super::people::{NOW, act_at, boss, done, make, member, new_session, question, rows, session};
use super::{Open, guest, identify_in, log, ok, room, say, token, user_claim, wait};
use crate::store::{Applicant, Ended, Link, NewSession, Newcomer, StoreError};

suite! {
    a_guest_becomes_a_member,
    somebody_new_signs_up,
    sessions_are_made_and_replaced,
    sessions_run_out,
    sessions_are_ended,
    what_lets_nobody_in_is_told_apart,
    sessions_are_listed,
    sessions_are_bounded,
    a_new_password_ends_other_sessions,
    invitations_are_used_up,
    a_reset_link_works_once,
    the_owners_link_works_once,
    an_owners_link_can_be_signed_up_with,
}

fn until(id: u64, until: Ms) -> NewSession {
    NewSession { until, ..NewSession::of(token(id), NOW) }
}

fn a_guest_becomes_a_member(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    say(&*store, den, &ada, "mine");
    assert_eq!(wait(store.credentials(user_claim("Ada").skeleton)), Err(StoreError::NotFound));
    let sign_up =
        |guest| wait(store.sign_up(Applicant::Guest(token(guest)), "hash".into(), None, new_session(1)));
    let (identity, ended) = sign_up(1).unwrap();
    assert_eq!((&identity.user, identity.role, identity.fresh), (&ada, Role::Member, false));
    assert_eq!((identity.until, identity.scopes, identity.only_room), (None, None, None));
    assert_eq!(ended, Some(Ended { user: ada.id, tokens: vec![token(1)] }));
    assert_eq!(wait(store.identify(NewSession::of(token(1), NOW), None)), Err(StoreError::Ended));
    let account = ok(store.account(ada.id));
    assert_eq!((account.role, account.rooms.len()), (Role::Member, 2));
    let credentials = ok(store.credentials(user_claim("ADA").skeleton));
    assert_eq!((credentials.user, credentials.password.as_str()), (ada.clone(), "hash"));
    assert_eq!(sign_up(1), Err(StoreError::Ended), "the session is gone");
    let again =
        store.sign_up(Applicant::Guest(session(1)), "other".into(), None, NewSession::of(token(9), NOW));
    assert_eq!(wait(again), Err(StoreError::Forbidden), "who has a password has one");
    drop(store);
    let again = ok(open().identify(NewSession::of(session(1), NOW), None));
    assert_eq!((again.user, again.role), (ada, Role::Member));
}

fn somebody_new_signs_up(open: Open) {
    let store = open();
    let ada = guest(&*store, 1, "Ada");
    say(&*store, LOBBY, &ada, "before");
    let sign_up = |id, name: &str, at| {
        let who = Applicant::New { id: UserId::from_bits(id), name: user_claim(name) };
        wait(store.sign_up(who, "hash".into(), None, NewSession::of(session(id), at)))
    };
    assert_eq!(sign_up(2, "ADA", NOW), Err(StoreError::NameTaken));
    assert!(matches!(sign_up(1, "Bob", NOW), Err(StoreError::Unavailable(_))), "an id is given once");
    let (identity, ended) = sign_up(2, "Bob", NOW).unwrap();
    assert_eq!((identity.user.name.as_str(), identity.role, identity.fresh), ("Bob", Role::Member, true));
    assert_eq!(ended, None);
    assert_eq!(ok(store.identify(NewSession::of(session(2), NOW), None)).user, identity.user);
    assert_eq!(ok(store.room_info(LOBBY, identity.user.id)).unread, 0);
    assert_eq!(ok(store.directory(ada.id, 1))[0].members, 2);
}

fn sessions_are_made_and_replaced(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let sign_in = |user, new, old| wait(store.sign_in(user, NewSession::of(token(new), NOW), old));
    assert_eq!(sign_in(UserId::from_bits(99), 70, None), Err(StoreError::NotFound));
    assert_eq!(sign_in(bob.id, 70, None), Err(StoreError::NotFound), "a guest has nothing to sign in by");
    let (identity, ended) = sign_in(ada.id, 70, None).unwrap();
    assert_eq!((&identity.user, identity.role, identity.fresh, ended), (&ada, Role::Member, false, None));
    let knows = |id| wait(store.identify(NewSession::of(token(id), NOW), None)).map(|known| known.user.id);
    assert_eq!((knows(70), knows(2)), (Ok(ada.id), Ok(bob.id)));
    // A browser that was somebody else's before.
    let (_, ended) = sign_in(ada.id, 71, Some(token(2))).unwrap();
    assert_eq!(ended, Some(Ended { user: bob.id, tokens: vec![token(2)] }));
    assert_eq!((knows(2), knows(71), knows(70)), (Err(StoreError::Ended), Ok(ada.id), Ok(ada.id)));
    let (_, ended) = sign_in(ada.id, 72, Some(token(404))).unwrap();
    assert_eq!(ended, None);
}

fn sessions_run_out(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let (identity, _) = ok(store.sign_in(ada.id, until(70, NOW + 10), None));
    assert_eq!(identity.until, Some(NOW + 10));
    let knows = |at| wait(store.identify(NewSession::of(token(70), at), None));
    assert_eq!(knows(NOW + 9).map(|known| (known.user, known.until)), Ok((ada.clone(), Some(NOW + 10))));
    assert_eq!(knows(NOW + 10), Err(StoreError::Ended));
    // Nobody new comes by a token that somebody else may have.
    let late = NewSession::of(token(70), NOW + 11);
    let newcomer = Newcomer { id: UserId::from_bits(7), names: vec![user_claim("Eve")] };
    assert_eq!(wait(store.identify(late, Some(newcomer))), Err(StoreError::Ended));
    let guest = NewSession { until: NOW + 5, ..NewSession::of(token(71), NOW) };
    let newcomer = Newcomer { id: UserId::from_bits(8), names: vec![user_claim("Bob")] };
    assert_eq!(ok(store.identify(guest, Some(newcomer))).until, Some(NOW + 5));
}

fn sessions_are_ended(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    for id in 70..73 {
        ok(store.sign_in(ada.id, NewSession::of(token(id), NOW), None));
    }
    let live = || {
        let known = |id: &u64| wait(store.identify(NewSession::of(token(*id), NOW), None)).is_ok();
        [70, 71, 72, 1_001].into_iter().filter(known).collect::<Vec<u64>>()
    };
    assert_eq!(live(), [70, 71, 72, 1_001]);
    assert_eq!(ok(store.sign_out(token(70), false)), Ended { user: ada.id, tokens: vec![token(70)] });
    assert_eq!(live(), [71, 72, 1_001]);
    assert_eq!(wait(store.sign_out(token(70), true)), Err(StoreError::NotFound));
    let mut ended = ok(store.sign_out(token(71), true));
    ended.tokens.sort();
    let mut all = vec![token(71), token(72), session(1)];
    all.sort();
    assert_eq!(ended, Ended { user: ada.id, tokens: all });
    assert_eq!(live(), Vec::<u64>::new());
    assert!(wait(store.sign_in(ada.id, NewSession::of(token(73), NOW), None)).is_ok());
}

fn what_lets_nobody_in_is_told_apart(open: Open) {
    let store = open();
    let (ada, bob, boss) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"), boss(&*store));
    ok(store.sign_in(ada.id, until(70, NOW + 10), None));
    ok(store.sign_in(ada.id, NewSession::of(token(71), NOW), None));
    let bot = done(&*store, &bob, Act::MakeBot { name: "Robot".into() }).user.unwrap();
    let make_token = || Act::MakeToken { bot: bot.id, text: Line::new("t"), scopes: vec![], seconds: 0 };
    let bots: Vec<_> = (0..2).map(|_| make(&*store, &bob, make_token(), NOW).unwrap().0).collect();
    let all = || vec![session(1), token(70), token(71), session(2), bots[0], bots[1]];
    let void = |more: &[u64]| {
        let asked = all().into_iter().chain(more.iter().map(|id| token(*id))).collect();
        ok(store.void(asked))
    };
    assert_eq!(void(&[]), [[0; 32]; 0]);
    assert_eq!(void(&[404, 1]), [token(404), token(1)], "never there, and replaced by signing up");
    ok(store.sign_out(token(71), false));
    assert_eq!(void(&[]), [token(71)], "one whose time runs out is another's to close");
    act_at(
        &*store,
        &boss,
        Act::Ban { user: Some(bob.id), addresses: None, text: Line::new("spam"), seconds: 1 },
        NOW,
    )
    .unwrap();
    let mut banned = void(&[]);
    banned.sort();
    let mut wanted = vec![token(71), session(2), bots[0], bots[1]];
    wanted.sort();
    assert_eq!(banned, wanted);
    assert_eq!(ok(store.void(Vec::new())), [[0; 32]; 0]);
}

fn sessions_are_listed(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    for (id, device) in [(70, "Firefox"), (71, "curl")] {
        let session = NewSession { device: Line::new(device), ..until(id, NOW + 100) };
        ok(store.sign_in(ada.id, session, None));
    }
    ok(store.touch(vec![(token(71), NOW + 5), (token(70), NOW + 7), (token(404), NOW + 9)]));
    ok(store.touch(vec![(token(70), NOW + 6)]));
    let list = |at| {
        ok(store.list(ada.id, crate::store::ListQuery { session: token(71), at, ..question(List::Sessions) }))
    };
    let listed = list(NOW);
    let seen: Vec<_> = listed.iter().map(|row| (row.text.as_str(), row.at, row.until, row.current)).collect();
    assert_eq!(
        seen,
        [
            ("Firefox", Some(NOW + 7), Some(NOW + 100), false),
            ("curl", Some(NOW + 5), Some(NOW + 100), true),
            ("", Some(NOW), None, false)
        ]
    );
    assert_eq!(list(NOW + 100).len(), 1, "the others have run out");

    let end = |by, id: &str| act_at(&*store, by, Act::EndSession { id: id.to_owned() }, NOW);
    assert_eq!(end(&bob, &listed[0].id), Err(StoreError::NotFound), "it is not Bob's");
    assert_eq!(end(&ada, "x"), Err(StoreError::NotFound));
    let ended = end(&ada, &listed[0].id).unwrap().ended;
    assert_eq!(ended, [Ended { user: ada.id, tokens: vec![token(70)] }]);
    assert_eq!(wait(store.identify(NewSession::of(token(70), NOW), None)), Err(StoreError::Ended));

    let made = crate::store::Made { session: token(71), id: 1, secret: token(1) };
    let ended = ok(store.act(ada.id, Act::EndSessions, made, NOW)).ended;
    assert_eq!(ended, [Ended { user: ada.id, tokens: vec![session(1)] }]);
    assert_eq!(list(NOW).len(), 1);
    assert!(wait(store.identify(NewSession::of(session(2), NOW), None)).is_ok());
}

fn sessions_are_bounded(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    for id in 0..99 {
        let (_, ended) = ok(store.sign_in(ada.id, NewSession::of(token(5_000 + id), NOW + 1), None));
        assert_eq!(ended, None);
    }
    assert_eq!(rows(&*store, &ada, List::Sessions).len(), ROWS_MAX);
    let (_, ended) = ok(store.sign_in(ada.id, NewSession::of(token(6_000), NOW + 2), None));
    assert_eq!(ended, Some(Ended { user: ada.id, tokens: vec![session(1)] }), "the oldest makes room");
}

fn a_new_password_ends_other_sessions(open: Open) {
    let store = open();
    let (ada, _) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    ok(store.sign_in(ada.id, NewSession::of(token(70), NOW), None));
    for stranger in [token(404), token(2)] {
        assert_eq!(wait(store.set_password(stranger, "new".into())), Err(StoreError::NotFound));
    }
    let ended = ok(store.set_password(token(70), "new".into()));
    assert_eq!(ended, Ended { user: ada.id, tokens: vec![session(1)] });
    assert_eq!(ok(store.credentials(user_claim("Ada").skeleton)).password, "new");
    assert!(wait(store.identify(NewSession::of(token(70), NOW), None)).is_ok());
    assert_eq!(wait(store.identify(NewSession::of(session(1), NOW), None)), Err(StoreError::Ended));
}

fn invitations_are_used_up(open: Open) {
    let store = open();
    let boss = boss(&*store);
    let invite = |uses, seconds| {
        let act = Act::MakeInvite { text: Line::new("for friends"), uses, seconds };
        make(&*store, &boss, act, NOW).unwrap().0
    };
    let sign_up = |id: u64, link, at| {
        let who = Applicant::New { id: UserId::from_bits(id), name: user_claim(&format!("User {id}")) };
        let session = NewSession::of(session(id), at);
        wait(store.sign_up(who, "hash".into(), Some(link), session)).map(|(identity, _)| identity.role)
    };
    let twice = invite(2, 0);
    assert_eq!(wait(store.link(twice, NOW)), Ok(Link::Invite));
    assert_eq!(rows(&*store, &boss, List::Links)[0].uses, Some(2));
    assert_eq!(sign_up(10, twice, NOW), Ok(Role::Member));
    assert_eq!(rows(&*store, &boss, List::Links)[0].uses, Some(1));
    assert_eq!(sign_up(11, twice, NOW), Ok(Role::Member));
    assert_eq!(sign_up(12, twice, NOW), Err(StoreError::NotFound));
    assert_eq!(wait(store.link(twice, NOW)), Err(StoreError::NotFound));
    assert_eq!(wait(store.account(UserId::from_bits(12))), Err(StoreError::NotFound), "nobody was made");
    // A name that is taken takes no use.
    let (once, brief, forever) = (invite(1, 0), invite(0, 10), invite(0, 0));
    let who = Applicant::New { id: UserId::from_bits(20), name: user_claim("Boss") };
    let taken = store.sign_up(who, "hash".into(), Some(once), NewSession::of(token(20), NOW));
    assert_eq!(wait(taken), Err(StoreError::NameTaken));
    assert_eq!(sign_up(20, once, NOW), Ok(Role::Member));
    assert_eq!(sign_up(21, brief, NOW + 9_999), Ok(Role::Member));
    assert_eq!(sign_up(22, brief, NOW + 10_000), Err(StoreError::NotFound));
    for id in 23..30 {
        assert_eq!(sign_up(id, forever, NOW + 1_000_000), Ok(Role::Member));
    }
    let id = rows(&*store, &boss, List::Links)[0].id.clone();
    done(&*store, &boss, Act::RevokeLink { id });
    assert_eq!(sign_up(30, forever, NOW), Err(StoreError::NotFound));
    let reset = make(&*store, &boss, Act::MakeReset { user: UserId::from_bits(10) }, NOW).unwrap().0;
    assert_eq!(sign_up(31, reset, NOW), Err(StoreError::NotFound), "it is for another thing");
}

fn a_reset_link_works_once(open: Open) {
    let store = open();
    let (boss, ada, bob) = (boss(&*store), member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let reset = |user| make(&*store, &boss, Act::MakeReset { user }, NOW).map(|(secret, _)| secret);
    assert_eq!(reset(bob.id), Err(StoreError::Forbidden), "a guest has no password to be reset");
    let old = reset(ada.id).unwrap();
    let link = reset(ada.id).unwrap();
    assert_eq!(wait(store.link(old, NOW)), Err(StoreError::NotFound), "there is one at a time");
    assert_eq!(wait(store.link(link, NOW)), Ok(Link::Reset(ada.clone())));
    const DAY: Ms = 24 * 3_600 * 1_000;
    assert!(wait(store.link(link, NOW + DAY - 1)).is_ok());
    assert_eq!(wait(store.link(link, NOW + DAY)), Err(StoreError::NotFound));
    let take = |link| wait(store.reset_password(link, "new".into(), NewSession::of(token(70), NOW)));
    let invite = Act::MakeInvite { text: Line::default(), uses: 0, seconds: 0 };
    assert_eq!(take(make(&*store, &boss, invite, NOW).unwrap().0), Err(StoreError::NotFound));
    let (identity, ended) = take(link).unwrap();
    assert_eq!((&identity.user, identity.role), (&ada, Role::Member));
    assert_eq!(ended, Ended { user: ada.id, tokens: vec![session(1)] });
    assert_eq!(ok(store.credentials(user_claim("Ada").skeleton)).password, "new");
    assert!(wait(store.identify(NewSession::of(token(70), NOW), None)).is_ok());
    assert_eq!(take(link), Err(StoreError::NotFound));
}

fn the_owners_link_works_once(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let take = |link, session, at| {
        wait(store.take_ownership(token(link), session, at)).map(|identity| identity.role)
    };
    assert!(ok(store.offer_ownership(token(60), NOW, NOW + 10, false)));
    assert!(ok(store.offer_ownership(token(61), NOW, NOW + 10, false)));
    assert_eq!(take(60, session(1), NOW), Err(StoreError::NotFound), "a later one is in its place");
    assert_eq!(take(61, session(1), NOW + 10), Err(StoreError::NotFound), "it has run out");
    assert_eq!(take(61, token(404), NOW), Err(StoreError::NotFound));
    assert_eq!(take(61, token(2), NOW), Err(StoreError::Forbidden), "a guest could lose it with a cookie");
    assert_eq!(ok(store.account(bob.id)).role, Role::Guest);
    assert_eq!(wait(store.link(token(61), NOW)), Ok(Link::Owner));
    assert_eq!(take(61, session(1), NOW), Ok(Role::Owner));
    assert_eq!(ok(store.account(ada.id)).role, Role::Owner);
    assert_eq!(take(61, session(1), NOW), Err(StoreError::NotFound));
    assert!(!ok(store.offer_ownership(token(62), NOW, NOW + 10, false)), "there is an owner");
    assert_eq!(wait(store.link(token(62), NOW)), Err(StoreError::NotFound));
    assert!(ok(store.offer_ownership(token(63), NOW, NOW + 10, true)), "but the operator wants another");
    assert_eq!(wait(store.link(token(63), NOW)), Ok(Link::Owner));
    assert_eq!(log(&*store, LOBBY), []);
}

fn an_owners_link_can_be_signed_up_with(open: Open) {
    let store = open();
    assert!(ok(store.offer_ownership(token(60), NOW, NOW + 10, false)));
    let ada = ok(identify_in(&*store, token(1), UserId::from_bits(1), vec![user_claim("Ada")], NOW)).user;
    let sign_up = |guest| {
        let who = Applicant::Guest(token(guest));
        wait(store.sign_up(who, "hash".into(), Some(token(60)), NewSession::of(session(guest), NOW)))
    };
    assert_eq!(sign_up(1).map(|(identity, _)| (identity.user, identity.role)), Ok((ada, Role::Owner)));
    guest(&*store, 2, "Bob");
    assert_eq!(sign_up(2), Err(StoreError::NotFound));
    assert!(wait(store.identify(NewSession::of(token(2), NOW), None)).is_ok(), "Bob is a guest as before");
}
