//! Clauses on bots, tokens and webhooks.

use shared::acts::{Act, BOTS_MAX, Entry, HOOKS_MAX, List, Scope};
use shared::model::{LOBBY, Line};
use shared::protocol::{EventKind, User};
use shared::rights::Role;

use super::people::{NOW, act, done, make, member, private, question, rows, told};
use super::{Open, append, guest, message, ok, room, say, wait};
use crate::store::{Ended, Identity, ListQuery, NewSession, Store, StoreError, TokenHash};

suite! {
    bots_are_made,
    bots_have_tokens,
    tokens_run_out_and_are_revoked,
    bots_are_bounded,
    incoming_hooks_speak_in_one_room,
    names_of_hooks_are_numbered,
    outgoing_hooks_are_kept,
    outgoing_webhooks_do_not_hear_programs_of_their_own,
    hooks_are_listed_and_removed,
    hooks_are_bounded,
}

fn knows(store: &dyn Store, token: TokenHash, at: i64) -> Result<Identity, StoreError> {
    wait(store.identify(NewSession::of(token, at), None))
}

fn bot(store: &dyn Store, by: &User, name: &str) -> Result<User, StoreError> {
    act(store, by, Act::MakeBot { name: name.into() }).map(|outcome| outcome.user.unwrap())
}

fn bots_are_made(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    say(&*store, LOBBY, &ada, "before");
    let robot = bot(&*store, &ada, "Robot").unwrap();
    let account = ok(store.account(robot.id));
    assert_eq!((account.role, account.rooms.len(), account.rooms[0].unread), (Role::Member, 1, 0));
    assert_eq!(ok(store.directory(ada.id, 1))[0].members, 2);
    assert_eq!(bot(&*store, &ada, "ADA"), Err(StoreError::NameTaken));
    assert_eq!(bot(&*store, &ada, ""), Err(StoreError::Forbidden));
    assert_eq!(bot(&*store, &robot, "Another"), Err(StoreError::Forbidden), "bots make no bots");
    let credentials = store.credentials(super::user_claim("Robot").skeleton);
    assert_eq!(wait(credentials), Err(StoreError::NotFound));
    // It is somebody who can be invited.
    let den = private(&*store, 50, "den", &ada, &[&robot]);
    say(&*store, den, &robot, "beep");
}

fn bots_have_tokens(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let robot = bot(&*store, &ada, "Robot").unwrap();
    let token = |by, bot: &User, scopes| {
        let act = Act::MakeToken { bot: bot.id, text: Line::new("laptop"), scopes, seconds: 10 };
        make(&*store, by, act, NOW).map(|(secret, _)| secret)
    };
    let one = token(&ada, &robot, vec![Scope::Send, Scope::Read, Scope::Send]).unwrap();
    let other = token(&ada, &robot, vec![]).unwrap();
    let identity = knows(&*store, one, NOW).unwrap();
    assert_eq!((identity.user, identity.role, identity.fresh), (robot.clone(), Role::Member, false));
    assert_eq!((identity.scopes, identity.only_room), (Some(vec![Scope::Read, Scope::Send]), None));
    assert_eq!(identity.until, Some(NOW + 10_000));
    assert_eq!(knows(&*store, other, NOW).unwrap().scopes, Some(vec![]));
    for wrong in [token(&bob, &robot, vec![]), token(&ada, &bob, vec![]), token(&robot, &robot, vec![])] {
        assert_eq!(wrong, Err(StoreError::NotFound));
    }
    ok(store.touch(vec![(one, NOW + 7)]));
    let listed = rows(&*store, &ada, List::Bots);
    let seen: Vec<_> =
        listed.iter().map(|row| (row.user.clone(), row.text.as_str(), row.kind.as_str(), row.at)).collect();
    let of = Some(robot);
    assert_eq!(
        seen,
        [
            (of.clone(), "", "", Some(NOW)),
            (of.clone(), "laptop", "", Some(NOW)),
            (of, "laptop", "read send", Some(NOW + 7))
        ]
    );
    assert_eq!((listed[0].id.as_str(), listed[2].until), ("", Some(NOW + 10_000)));
    assert_eq!(rows(&*store, &bob, List::Bots), []);
}

fn tokens_run_out_and_are_revoked(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let robot = bot(&*store, &ada, "Robot").unwrap();
    let token = |seconds| {
        let act = Act::MakeToken { bot: robot.id, text: Line::default(), scopes: vec![Scope::Read], seconds };
        make(&*store, &ada, act, NOW).unwrap().0
    };
    let (brief, forever) = (token(10), token(0));
    assert!(knows(&*store, brief, NOW + 9_999).is_ok());
    assert_eq!(knows(&*store, brief, NOW + 10_000), Err(StoreError::NotFound));
    assert_eq!(knows(&*store, forever, NOW + 10_000).unwrap().until, None);
    let later = ok(store.list(ada.id, ListQuery { at: NOW + 10_000, ..question(List::Bots) }));
    assert_eq!(later.len(), 2, "the bot and what is left");
    let revoke = Act::RevokeToken { id: later[1].id.clone() };
    assert_eq!(act(&*store, &bob, revoke.clone()), Err(StoreError::NotFound));
    let ended = done(&*store, &ada, revoke.clone()).ended;
    assert_eq!(ended, [Ended { user: robot.id, tokens: vec![forever] }]);
    assert_eq!(knows(&*store, forever, NOW), Err(StoreError::NotFound));
    assert_eq!(act(&*store, &ada, revoke), Err(StoreError::NotFound));
}

fn bots_are_bounded(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let mut robot = None;
    for n in 0..BOTS_MAX {
        robot = bot(&*store, &ada, &format!("Robot {n}")).ok();
    }
    assert_eq!(bot(&*store, &ada, "One more"), Err(StoreError::TooMany));
    assert!(bot(&*store, &bob, "One more").is_ok());
    let robot = robot.unwrap();
    let token = || {
        let act = Act::MakeToken { bot: robot.id, text: Line::default(), scopes: vec![], seconds: 0 };
        make(&*store, &ada, act, NOW).map(drop)
    };
    for _ in 0..BOTS_MAX {
        assert_eq!(token(), Ok(()));
    }
    assert_eq!(token(), Err(StoreError::TooMany));
    assert_eq!(rows(&*store, &ada, List::Bots).len(), 2 * BOTS_MAX);
}

fn incoming_hooks_speak_in_one_room(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = private(&*store, 50, "den", &ada, &[]);
    let act = Act::MakeIncomingHook { room: den, text: Line::new("Build server") };
    let (secret, outcome) = make(&*store, &ada, act, NOW).unwrap();
    let hook = outcome.user.clone().unwrap();
    assert_eq!(hook.name.as_str(), "Build server");
    assert_eq!(told(&*store, &outcome), EventKind::Invited { target: hook.clone() });
    assert_eq!(outcome.memberships, [(hook.id, den, true)]);
    let identity = knows(&*store, secret, NOW).unwrap();
    assert_eq!(
        (&identity.user, identity.scopes, identity.only_room, identity.until),
        (&hook, Some(vec![Scope::Send]), Some(den), None)
    );
    assert_eq!(say(&*store, den, &hook, "green").user, hook);
    assert_eq!(rows(&*store, &ada, List::Bots), [], "it is the room's, not a bot of Ada's");
    // It is not to be had anywhere else, nor to be found by those who invite.
    let other = private(&*store, 51, "other", &ada, &[]);
    let invite = super::people::act(&*store, &ada, Act::Invite { room: other, user: hook.id });
    assert_eq!(invite, Err(StoreError::Forbidden));
    assert!(rows(&*store, &ada, List::Users).iter().all(|row| row.user != Some(hook.clone())));
    // In the lobby everybody is already.
    let act = Act::MakeIncomingHook { room: LOBBY, text: Line::new("News") };
    let outcome = make(&*store, &super::people::boss(&*store), act, NOW).unwrap().1;
    assert_eq!((outcome.events, outcome.memberships), (vec![], vec![]));
    say(&*store, LOBBY, &outcome.user.unwrap(), "all is well");
}

fn names_of_hooks_are_numbered(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let name = |text: &str| {
        let made = done(&*store, &ada, Act::MakeIncomingHook { room: den, text: Line::new(text) });
        made.user.unwrap().name.to_string()
    };
    assert_eq!((name("Ada"), name("ada"), name("")), ("Ada 2".into(), "ada 3".into(), "Webhook".into()));
    assert_eq!((name("Magpie"), name(&"x".repeat(100))), ("Webhook 2".into(), "x".repeat(32)));
}

fn outgoing_hooks_are_kept(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    say(&*store, den, &ada, "before");
    let hook = |url: &str| {
        make(
            &*store,
            &ada,
            Act::MakeOutgoingHook { room: den, text: Line::new("Mirror"), url: url.into() },
            NOW,
        )
    };
    for wrong in [
        "",
        "ftp://example.org",
        "https://a b",
        "javascript:alert(1)",
        &format!("https://{}", "a".repeat(3_000)),
    ] {
        assert_eq!(hook(wrong), Err(StoreError::Forbidden), "{wrong:.30}");
    }
    let (secret, outcome) = hook("https://example.org/in?x=1").unwrap();
    assert!(outcome.rules_changed && outcome.user.is_none());
    let kept = ok(store.outgoing_hooks()).remove(0);
    assert_eq!(
        (kept.room, kept.url.as_str(), kept.secret, kept.done),
        (den, "https://example.org/in?x=1", secret, 2)
    );
    ok(store.hook_done(kept.id, 5, Line::new("200")));
    ok(store.hook_done(kept.id, 4, Line::new("503")));
    ok(store.hook_done(404, 9, Line::new("200")));
    drop(store);
    let store = open();
    assert_eq!(ok(store.outgoing_hooks())[0].done, 5);
    let query = ListQuery { room: Some(den), ..question(List::Hooks) };
    assert_eq!(ok(store.list(ada.id, query))[0].more, "https://example.org/in?x=1 503");
}

fn outgoing_webhooks_do_not_hear_programs_of_their_own(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), member(&*store, 2, "Bob"));
    let (den, other) = (room(&*store, 50, "den", &ada), room(&*store, 51, "other", &bob));
    let program = |by: &User, act: Act| {
        let outcome = make(&*store, by, act, NOW).unwrap().1;
        assert!(outcome.rules_changed, "or the webhook learns of it too late");
        outcome.user.unwrap().id
    };
    let incoming = |room| Act::MakeIncomingHook { room, text: Line::new("CI") };
    let bot = |name: &str| Act::MakeBot { name: name.into() };
    let mut own = vec![program(&ada, incoming(den)), program(&ada, bot("Tea bot"))];
    program(&bob, incoming(other));
    program(&bob, bot("Cake bot"));
    let url = "https://example.org/".into();
    done(&*store, &ada, Act::MakeOutgoingHook { room: den, text: Line::default(), url });
    let mut heard = ok(store.outgoing_hooks()).remove(0).own;
    own.sort_unstable();
    heard.sort_unstable();
    assert_eq!(heard, own);
}

fn hooks_are_listed_and_removed(open: Open) {
    let store = open();
    let (ada, bob) = (member(&*store, 1, "Ada"), guest(&*store, 2, "Bob"));
    let den = private(&*store, 50, "den", &ada, &[&bob]);
    let text = Line::new("CI");
    let incoming = Act::MakeIncomingHook { room: den, text: text.clone() };
    let (secret, outcome) = make(&*store, &ada, incoming, NOW).unwrap();
    let hook = outcome.user.unwrap();
    done(&*store, &ada, Act::MakeOutgoingHook { room: den, text, url: "http://example.org".into() });
    let list = |by: &User, room| wait(store.list(by.id, ListQuery { room, ..question(List::Hooks) }));
    let listed = list(&ada, Some(den)).unwrap();
    let seen = |row: &Entry| (row.kind.clone(), row.text.clone(), row.more.clone(), row.by.clone());
    let by = Some(ada.clone());
    assert_eq!(
        listed.iter().map(seen).collect::<Vec<_>>(),
        [
            ("outgoing".into(), "CI".into(), "http://example.org".into(), by.clone()),
            ("incoming".into(), "CI".into(), String::new(), by)
        ]
    );
    assert_ne!(listed[0].id, listed[1].id);
    assert_eq!(list(&bob, Some(den)), Err(StoreError::Forbidden));
    assert_eq!(list(&ada, None), Err(StoreError::NotFound));

    let remove = |by: &User, id: &str| act(&*store, by, Act::RemoveHook { id: id.into() });
    assert_eq!(remove(&bob, &listed[0].id), Err(StoreError::Forbidden));
    let stranger = member(&*store, 3, "Eve");
    for id in [listed[0].id.as_str(), listed[1].id.as_str(), "zz", ""] {
        assert_eq!(remove(&stranger, id), Err(StoreError::NotFound));
    }
    assert!(remove(&ada, &listed[0].id).unwrap().rules_changed);
    assert_eq!(ok(store.outgoing_hooks()), []);
    let outcome = remove(&ada, &listed[1].id).unwrap();
    assert_eq!(told(&*store, &outcome), EventKind::Removed { target: hook.clone() });
    assert_eq!(outcome.memberships, [(hook.id, den, false)]);
    assert_eq!(outcome.ended, [Ended { user: hook.id, tokens: vec![secret] }]);
    assert_eq!(knows(&*store, secret, NOW), Err(StoreError::NotFound));
    assert_eq!(append(&*store, message(den, &hook, "x", None)), Err(StoreError::NotFound));
    assert_eq!(list(&ada, Some(den)), Ok(vec![]));
}

fn hooks_are_bounded(open: Open) {
    let store = open();
    let ada = member(&*store, 1, "Ada");
    let den = room(&*store, 50, "den", &ada);
    let text = Line::new("CI");
    let incoming = || act(&*store, &ada, Act::MakeIncomingHook { room: den, text: text.clone() }).map(drop);
    let outgoing = || {
        let url = "https://example.org".to_owned();
        act(&*store, &ada, Act::MakeOutgoingHook { room: den, text: text.clone(), url }).map(drop)
    };
    for n in 0..HOOKS_MAX {
        assert_eq!(if n % 2 == 0 { incoming() } else { outgoing() }, Ok(()));
    }
    assert_eq!((incoming(), outgoing()), (Err(StoreError::TooMany), Err(StoreError::TooMany)));
}
