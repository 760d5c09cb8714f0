//! What panels offer to whom, and what their buttons mean.

use shared::acts::{Act, Entry, List, Scope};
use shared::model::{LOBBY, Line, RoomId, RoomName, UserId, UserName};
use shared::protocol::{Limits, Person, Presence, RoomInfo, RoomKind, ServerEnvelope, User};
use shared::rights::Role;

use super::desk::card;
use super::{Card, Do, Panel, doors, pages};
use crate::account::{Account, Ask, Request, Secret};
use crate::route::Route;
use crate::state::{Input, State};

const DEN: RoomId = RoomId::from_bits(60);

fn user(bits: u64) -> User {
    User { id: UserId::from_bits(bits), name: UserName::parse(&format!("u{bits}")).unwrap() }
}

/// Somebody with a role in a private room that user 1 owns, with user 2 in it.
fn state(role: Role, me: u64, route: Route) -> State {
    let mut state = State::new(7);
    let mut take = |input| drop(state.update(1_000, input));
    take(Input::Start { route, outbox: Vec::new(), drafts: Vec::new(), utc_offset_minutes: 0 });
    take(Input::Opened);
    let name = Some(RoomName::parse("den").unwrap());
    let den = RoomInfo { name, owner: Some(user(1).id), ..RoomInfo::new(DEN, RoomKind::Private) };
    let rooms = vec![RoomInfo::new(LOBBY, RoomKind::Public), den];
    let (limits, blocked) = (Limits::default(), Vec::new());
    take(Input::Received(ServerEnvelope::Welcome { user: user(me), role, rooms, blocked, limits, now: 1 }));
    let people = vec![Person { user: user(2), presence: Presence::Online }];
    take(Input::Received(ServerEnvelope::Members { room: DEN, online: 1, total: 2, people }));
    state
}

/// The labels of all buttons of sections.
fn labels(panel: &Panel) -> Vec<&str> {
    let buttons = panel.sections.iter().flat_map(|section| &section.buttons);
    buttons.map(|button| button.label.as_str()).collect()
}

/// What comes of a button, with these values in the fields.
#[track_caller]
fn press(panel: &Panel, label: &str, values: &[&str]) -> Result<Do, String> {
    let buttons = panel
        .sections
        .iter()
        .flat_map(|section| section.buttons.iter().chain(section.rows.iter().flat_map(|row| &row.buttons)));
    let button = buttons.into_iter().find(|button| button.label == label).expect(label);
    (button.deed)(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
}

fn act(act: Act) -> Result<Do, String> {
    Ok(Do::Act(act))
}

fn asked(ask: Ask, fields: &[(&'static str, &str)]) -> Result<Do, String> {
    Ok(Do::Ask(Request::new(ask, fields)))
}

#[test]
fn what_can_be_done_about_somebody_goes_by_right() {
    let person = Card::Person(user(2));
    let all = ["Send a message", "Block"];
    let keeps = ["Remove from #den", "More…"];
    for (role, me, first, more) in [
        (Role::Guest, 3, &all[..], &[][..]),
        (Role::Member, 3, &all, &[]),
        (Role::Member, 1, &[all, keeps].concat(), &["Remove", "Make owner", "Mute", "Let write again"]),
        (Role::Moderator, 3, &[all, keeps].concat(), &["Remove", "Mute", "Let write again", "Ban"]),
        (
            Role::Owner,
            3,
            &[all, keeps].concat(),
            &["Remove", "Make owner", "Mute", "Let write again", "Set role", "Ban"],
        ),
    ] {
        let state = state(role, me, Route::Private(DEN));
        assert_eq!(labels(&super::card(&state, &person).unwrap()), first, "{role:?} {me}");
        assert_eq!(labels(&card(&state, &person).unwrap()), [first, more].concat(), "{role:?} {me}");
    }
    let state = state(Role::Owner, 1, Route::Private(DEN));
    let panel = card(&state, &person).unwrap();
    let id = user(2).id;
    assert_eq!(press(&panel, "Mute", &["3600"]), act(Act::Mute { room: DEN, user: id, seconds: 3_600 }));
    assert_eq!(
        press(&panel, "Set role", &["moderator"]),
        act(Act::SetRole { user: id, role: Role::Moderator })
    );
    let ban = Act::Ban { user: Some(id), addresses: None, text: Line::new("rude"), seconds: 0 };
    assert_eq!(press(&panel, "Ban", &["0", "rude"]), act(ban));
}

#[test]
fn somebody_elsewhere_can_be_invited() {
    let state = state(Role::Member, 1, Route::Lobby);
    let panel = card(&state, &Card::Person(user(5))).unwrap();
    let invite = Act::Invite { room: DEN, user: user(5).id };
    assert_eq!(press(&panel, "Invite", &[&DEN.to_string()]), act(invite));
    assert!(press(&panel, "Invite", &[""]).is_err());
    assert!(!labels(&card(&state, &Card::Person(user(2))).unwrap()).contains(&"Invite"));
}

#[test]
fn a_guest_can_keep_the_account_under_the_same_or_another_name() {
    let sections = doors::own(&user(3), Role::Guest);
    let panel = Panel { title: String::new(), sections };
    let claim = |values: &[&str]| press(&panel, "Keep this account", values);
    assert_eq!(claim(&["u3", "geheim12"]), asked(Ask::SignUp, &[("password", "geheim12")]));
    assert_eq!(claim(&["Ada", "geheim12"]), asked(Ask::SignUp, &[("name", "Ada"), ("password", "geheim12")]));
    let guest = card(&state(Role::Guest, 3, Route::Lobby), &Card::Me).unwrap();
    assert_eq!(labels(&guest), ["Save", "Keep this account…", "Sign in…"]);
    assert_eq!(press(&guest, "Save", &["Ada"]), Ok(Do::Rename("Ada".to_owned())));
    assert!(press(&guest, "Save", &[" "]).is_err() && press(&guest, "Save", &["u3"]).is_err());
    let member = card(&state(Role::Member, 3, Route::Lobby), &Card::Me).unwrap();
    assert_eq!(labels(&member), ["Save", "Settings"]);
}

#[test]
fn a_group_has_two_to_nine() {
    let state = state(Role::Guest, 3, Route::Lobby);
    let panel = card(&state, &Card::Group).unwrap();
    assert_eq!(press(&panel, "Open", &["on"]), Ok(Do::Group(vec![user(2).id])));
    assert!(press(&panel, "Open", &[""]).is_err());
}

#[test]
fn the_doors_ask_for_what_they_need() {
    let mut account = Account::default();
    let sign_in = asked(Ask::SignIn, &[("name", "Ada"), ("password", "geheim12")]);
    let page = doors::door(&account, &Route::SignIn);
    assert_eq!(press(&page, "Sign in", &["Ada", "geheim12"]), sign_in);
    assert_eq!(labels(&page), ["Sign in"]);
    account.answered(Ask::Account, 200, r#"{"user":null,"guests":true,"registration":"open"}"#);
    let page = doors::door(&account, &Route::SignIn);
    assert_eq!(labels(&page), ["Sign in", "Create account", "Go on as a guest"]);

    let join = Route::Join(Secret("abc".to_owned()));
    assert_eq!(labels(&doors::door(&account, &join)), ["Go on as a guest"], "the link was not looked at");
    account.answered(Ask::Link, 200, r#"{"kind":"invite"}"#);
    let joined = asked(Ask::SignUp, &[("name", "Ada"), ("password", "geheim12"), ("link", "abc")]);
    assert_eq!(press(&doors::door(&account, &join), "Join", &["Ada", "geheim12"]), joined);
}

#[test]
fn a_room_is_deleted_only_by_its_name() {
    let state = state(Role::Member, 1, Route::RoomSettings(DEN));
    let panel = pages::page(&state).unwrap();
    assert!(press(&panel, "Delete the room", &["ned"]).is_err());
    assert_eq!(press(&panel, "Delete the room", &["den"]), act(Act::DeleteRoom { room: DEN }));
    let topic = Act::Topic { room: DEN, text: Line::new("Books") };
    assert_eq!(press(&panel, "Save topic", &["Books"]), act(topic));
    let url = "https://example.org/".to_owned();
    let text = Line::new("news");
    let out = Act::MakeOutgoingHook { room: DEN, text: text.clone(), url: url.clone() };
    assert_eq!(press(&panel, "Make webhook", &["news", &url]), act(out));
    assert_eq!(press(&panel, "Make webhook", &["news", ""]), act(Act::MakeIncomingHook { room: DEN, text }));
}

#[test]
fn a_token_has_the_scopes_that_were_chosen() {
    let mut state = state(Role::Member, 1, Route::Settings);
    let bot = Entry { user: Some(user(9)), ..Entry::default() };
    let token = Entry { id: "t1".to_owned(), kind: "read send".to_owned(), ..bot.clone() };
    let rows = vec![bot, token];
    state.update(1_000, Input::Received(ServerEnvelope::List { list: List::Bots, rows }));
    let panel = pages::page(&state).unwrap();
    let made = Act::MakeToken {
        bot: user(9).id,
        text: Line::new("news"),
        scopes: vec![Scope::Send],
        seconds: 86_400,
    };
    let values = [&user(9).id.to_string(), "news", "", "on", "", "86400"];
    assert_eq!(press(&panel, "Make token", &values), act(made));
    assert_eq!(press(&panel, "Revoke", &[]), act(Act::RevokeToken { id: "t1".to_owned() }));
}

#[test]
fn the_server_is_for_those_who_keep_order() {
    let headings = |role| {
        let panel = pages::page(&state(role, 3, Route::Admin)).unwrap();
        panel.sections.iter().map(|section| section.heading.clone()).collect::<Vec<_>>()
    };
    assert_eq!(headings(Role::Member), [""]);
    assert_eq!(headings(Role::Moderator), ["Reports", "People", "Invitations and other links", "Bans"]);
    assert_eq!(headings(Role::Owner).last().map(String::as_str), Some("What was done"));
    let mut owner = state(Role::Owner, 3, Route::Admin);
    let done = ServerEnvelope::Done {
        act: "make_invite".to_owned(),
        room: None,
        user: None,
        secret: Some("abc".to_owned()),
    };
    owner.update(1_000, Input::Received(done));
    assert_eq!(pages::page(&owner).unwrap().sections[0].secret, "/join#abc");
}
