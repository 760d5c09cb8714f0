//! The pages that a first visit does not load: one's own settings, a room's, and the server's.

use shared::acts::{Act, Entry, List, SLOW_SECONDS_MAX, Scope};
use shared::model::{LOBBY, Line};
use shared::protocol::{Presence, RoomKind, User};
use shared::rights::Right;

use super::desk::{ban, choice, seconds};
use super::{
    Button, Card, Do, Fact, Field, Kind, Panel, Row, Section, act, act_button, button, field, form_button,
    grave, place, rename,
};
use crate::map::sorted;
use crate::room::Room;
use crate::route::Route;
use crate::state::State;

/// The page of the route, if it is one of these.
pub fn page(state: &State) -> Option<Panel> {
    let (title, sections) = match &state.route {
        Route::Settings => ("Settings".to_owned(), own(state)),
        Route::RoomSettings(id) => match state.rooms.get(id) {
            Some(room) => (place(room), of_room(state, room)),
            None => ("Settings".to_owned(), Vec::new()),
        },
        Route::Admin => ("Administration".to_owned(), of_server(state)),
        _ => return None,
    };
    let made = state.made.as_ref().map(|made| Section {
        id: "made",
        heading: match made.act.as_str() {
            "make_invite" => "An invitation",
            "make_reset" => "A link to set a new password",
            "make_incoming_hook" => "The webhook's address",
            "make_outgoing_hook" => "The secret that the webhook's posts are signed with",
            _ => "A token",
        }
        .to_owned(),
        note: "Copy it now: it is not shown again.".to_owned(),
        secret: made.secret.0.clone(),
        buttons: vec![button("Done", || Do::ForgetMade)],
        ..Section::default()
    });
    let sections = made.into_iter().chain(sections).collect();
    Some(Panel { title, sections })
}

/// A section that shows a list.
fn listed(
    state: &State,
    id: &'static str,
    heading: &str,
    list: List,
    row: impl Fn(&Entry) -> Row,
) -> Section {
    let held = state.list(list);
    let rows: Vec<Row> = held.map_or_else(Vec::new, |held| held.rows.iter().map(row).collect());
    let note = match held {
        None => "Loading…",
        Some(_) if rows.is_empty() => "Nothing here.",
        Some(_) => "",
    };
    let more = held.filter(|held| held.goes_on).map(|held| held.list);
    Section { id, heading: heading.to_owned(), note: note.to_owned(), rows, more, ..Section::default() }
}

fn facts(entry: &Entry, at: &'static str) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut text = |text: String| {
        if !text.is_empty() {
            facts.push(Fact::Text(text));
        }
    };
    text(entry.more.clone());
    text(entry.by.as_ref().map_or_else(String::new, |by| ["by ", by.name.as_str()].concat()));
    text(entry.uses.map_or_else(String::new, |uses| match uses {
        0 => "any number of uses".to_owned(),
        uses => [&uses.to_string(), " uses left"].concat(),
    }));
    facts.extend(entry.at.map(|time| Fact::Time(at, time)));
    facts.extend(entry.until.map(|time| Fact::Time("until ", time)));
    facts
}

/// A button about an entry of a list.
fn by_id(label: &str, entry: &Entry, act: fn(String) -> Act) -> Button {
    let id = entry.id.clone();
    act_button(label, move || act(id.clone()))
}

fn about(user: &User) -> Button {
    let user = user.clone();
    button("Actions", move || Do::Open(Card::Person(user.clone())))
}

fn own(state: &State) -> Vec<Section> {
    let Some(me) = &state.me else { return Vec::new() };
    let mut sections = vec![Section { heading: "Name".to_owned(), ..rename(me) }];
    let mut sessions = listed(state, "sessions", "Sessions", List::Sessions, |entry| {
        let end = by_id("Sign out", entry, |id| Act::EndSession { id });
        let mut facts = facts(entry, "last used ");
        if entry.current {
            facts.insert(0, Fact::Text("This one".to_owned()));
        }
        let buttons = if entry.current { Vec::new() } else { vec![end] };
        Row { user: None, text: entry.text.clone(), facts, buttons }
    });
    if state.list(List::Sessions).is_some_and(|held| held.rows.len() > 1) {
        sessions.buttons = vec![act_button("Sign out all others", || Act::EndSessions)];
    }
    sections.push(sessions);
    sections.push(listed(state, "blocked", "Blocked people", List::Blocks, |entry| Row {
        user: entry.user.clone(),
        buttons: entry
            .user
            .iter()
            .map(|user| {
                let user = user.id;
                act_button("Unblock", move || Act::Block { user, blocked: false })
            })
            .collect(),
        ..Row::default()
    }));
    if state.may_here(Right::MakeBot) {
        bots(state, &mut sections);
    }
    sections
}

fn bots(state: &State, sections: &mut Vec<Section>) {
    sections.push(Section {
        note: String::new(),
        fields: vec![field("Name of a new bot", Kind::Text)],
        buttons: vec![form_button("Make bot", |values| act(Act::MakeBot { name: values[0].clone() }))],
        ..listed(state, "bots", "Bots and tokens", List::Bots, |entry| {
            let revoke = by_id("Revoke", entry, |id| Act::RevokeToken { id });
            let is_token = !entry.id.is_empty();
            let mut facts = facts(entry, "last used ");
            if is_token {
                facts.insert(0, Fact::Text(["may ", &entry.kind.replace(' ', ", ")].concat()));
            }
            Row {
                user: entry.user.clone(),
                text: entry.text.clone(),
                facts,
                buttons: if is_token { vec![revoke] } else { Vec::new() },
            }
        })
    });
    let entries = state.list(List::Bots).map_or(&[][..], |held| &held.rows);
    let bots: Vec<&User> =
        entries.iter().filter(|entry| entry.id.is_empty()).filter_map(|entry| entry.user.as_ref()).collect();
    if bots.is_empty() {
        return;
    }
    let bots = bots.iter().map(|bot| (bot.id.to_string(), bot.name.to_string())).collect();
    let check = |label: &str, is_on: bool| Field {
        value: if is_on { "on" } else { "" }.to_owned(),
        ..field("", Kind::Check(label.to_owned()))
    };
    sections.push(Section {
        id: "token",
        heading: "New token".to_owned(),
        fields: vec![
            field("Bot", Kind::Choice(bots)),
            field("What it is for", Kind::Text),
            check("May read", true),
            check("May send", true),
            check("May join and leave rooms", false),
            field("For", choice(&[(0, "Without end"), (86_400, "1 day"), (2_592_000, "30 days")])),
        ],
        buttons: vec![form_button("Make token", |values| {
            let scopes = [Scope::Read, Scope::Send, Scope::Join].into_iter().zip(&values[2..5]);
            act(Act::MakeToken {
                bot: values[0].parse().map_err(|_| "Choose a bot.".to_owned())?,
                text: Line::new(&values[1]),
                scopes: scopes.filter(|(_, value)| !value.is_empty()).map(|(scope, _)| scope).collect(),
                seconds: seconds(&values[5]),
            })
        })],
        ..Section::default()
    });
}

/// A way to find somebody by name.
fn look(state: &State, heading: &str, buttons: impl Fn(&User) -> Vec<Button>) -> Section {
    let mut section = listed(state, "look", heading, List::Users, |entry| Row {
        user: entry.user.clone(),
        facts: vec![Fact::Text(entry.kind.clone())],
        buttons: entry.user.as_ref().map_or_else(Vec::new, &buttons),
        ..Row::default()
    });
    if state.list(List::Users).is_none() {
        section.note.clear();
    }
    section.fields = vec![field("Name", Kind::Text)];
    section.buttons = vec![form_button("Find", |values| Ok(Do::Look(values[0].clone())))];
    section
}

fn of_room(state: &State, room: &Room) -> Vec<Section> {
    let info = &room.info;
    let id = info.id;
    let may = |right| state.may(right, room);
    let is_named = info.name.is_some();
    let mut sections = Vec::new();
    let mut form = |id, label: &'static str, kind, value: String, button| {
        let field = Field { label, kind, value };
        sections.push(Section { id, fields: vec![field], buttons: vec![button], ..Section::default() });
    };
    if may(Right::Topic) {
        let topic = info.topic.as_ref().map_or_else(String::new, Line::to_string);
        let save = form_button("Save topic", move |values| {
            act(Act::Topic { room: id, text: Line::new(&values[0]) })
        });
        form("topic", "Topic", Kind::Text, topic, save);
    }
    if is_named && may(Right::RenameRoom) && id != LOBBY {
        let save = form_button("Save name", move |values| {
            act(Act::RenameRoom { room: id, name: values[0].clone() })
        });
        form("room-name", "Name", Kind::Text, room.title(), save);
    }
    if may(Right::SlowMode) {
        let mut lengths = vec![(0, "Off"), (5, "5 seconds"), (30, "30 seconds"), (60, "1 minute")];
        lengths.extend([(600, "10 minutes"), (3_600, "1 hour"), (SLOW_SECONDS_MAX, "6 hours")]);
        let save =
            form_button("Save", move |values| act(Act::SlowMode { room: id, seconds: seconds(&values[0]) }));
        let label = "Slow mode: between two messages of one person";
        form("slow", label, choice(&lengths), info.slow_seconds.to_string(), save);
    }

    let quiet = if info.quiet { "Want notice again" } else { "Want no notice" };
    let (route, is_quiet, is_archived) = (room.route(), info.quiet, info.archived);
    let mut buttons = vec![
        button("Back to the conversation", move || Do::Go(route.clone())),
        act_button(quiet, move || Act::Quiet { room: id, quiet: !is_quiet }),
    ];
    if may(Right::Archive) && id != LOBBY {
        let archive = if info.archived { "Take out of the archive" } else { "Archive" };
        buttons.push(act_button(archive, move || Act::Archive { room: id, archived: !is_archived }));
    }
    if info.kind != RoomKind::Direct && id != LOBBY {
        buttons.push(grave(button("Leave", move || Do::Leave(id))));
    }
    sections.insert(0, Section { id: "room", buttons, ..Section::default() });

    let people = sorted(room.people.values(), |a, b| a.user.name.as_str().cmp(b.user.name.as_str()));
    let is_me = |user: &User| state.me.as_ref().is_some_and(|me| me.id == user.id);
    let row = |user: &User, is_there: bool| Row {
        user: Some(user.clone()),
        facts: [(is_there, "here"), (info.owner == Some(user.id), "owns the room")]
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, fact)| Fact::Text(fact.to_owned()))
            .collect(),
        buttons: if is_me(user) { Vec::new() } else { vec![about(user)] },
        ..Row::default()
    };
    sections.push(Section {
        id: "members",
        heading: "Members".to_owned(),
        rows: people.iter().map(|person| row(&person.user, person.presence > Presence::Offline)).collect(),
        ..Section::default()
    });
    if may(Right::Invite) && id != LOBBY {
        sections.push(look(state, "Invite somebody", |user| {
            let user = user.id;
            vec![act_button("Invite", move || Act::Invite { room: id, user })]
        }));
    }
    if may(Right::MakeHook) {
        sections.push(Section {
            note: String::new(),
            fields: vec![
                field("Name of a new webhook", Kind::Text),
                field("Address to post messages to; none: it takes them", Kind::Text),
            ],
            buttons: vec![form_button("Make webhook", move |values| {
                let (text, url) = (Line::new(&values[0]), values[1].clone());
                act(if url.is_empty() {
                    Act::MakeIncomingHook { room: id, text }
                } else {
                    Act::MakeOutgoingHook { room: id, text, url }
                })
            })],
            ..listed(state, "hooks", "Webhooks", List::Hooks, |entry| {
                let mut facts = facts(entry, "made ");
                facts.insert(0, Fact::Text(entry.kind.clone()));
                let remove = by_id("Remove", entry, |id| Act::RemoveHook { id });
                Row { user: None, text: entry.text.clone(), facts, buttons: vec![grave(remove)] }
            })
        });
    }
    if may(Right::DeleteRoom) && id != LOBBY {
        let title = room.title();
        sections.push(Section {
            id: "delete-room",
            heading: "Delete the room".to_owned(),
            note: ["All that was said here goes with it, for everybody. To be sure, type ", &title, "."]
                .concat(),
            fields: vec![field("Name of the room", Kind::Text)],
            buttons: vec![grave(form_button("Delete the room", move |values| {
                if values[0].trim() == title {
                    act(Act::DeleteRoom { room: id })
                } else {
                    Err("That is not its name.".to_owned())
                }
            }))],
            ..Section::default()
        });
    }
    sections
}

fn of_server(state: &State) -> Vec<Section> {
    if !state.may_here(Right::ReadReports) {
        let note = "This page is for those who keep order here.".to_owned();
        return vec![Section { id: "admin", note, ..Section::default() }];
    }
    let room_name = |entry: &Entry| {
        let room = entry.room.and_then(|id| state.rooms.get(&id));
        room.map(|room| Fact::Text(["in ", &place(room)].concat()))
    };
    let reports = listed(state, "reports", "Reports", List::Reports, |entry| {
        let mut buttons = vec![by_id("Dealt with", entry, |id| Act::CloseReport { id })];
        if let (Some(room), Some(seq)) = (entry.room, entry.seq) {
            buttons.push(grave(button("Delete the message…", move || Do::Open(Card::Delete(room, seq)))));
        }
        buttons.extend(entry.user.iter().map(about));
        let facts = facts(entry, "").into_iter().chain(room_name(entry)).collect();
        Row { user: entry.user.clone(), text: entry.text.clone(), facts, buttons }
    });
    let people = look(state, "People", |user| {
        let mut buttons = vec![about(user)];
        let user = user.id;
        if state.may_here(Right::ResetPassword) {
            buttons.push(act_button("Reset link", move || Act::MakeReset { user }));
        }
        buttons
    });
    let invitation = Section {
        note: String::new(),
        fields: vec![
            field("What it is for", Kind::Text),
            field("People", choice(&[(1, "1"), (5, "5"), (25, "25"), (0, "Any number")])),
            field("For", choice(&[(604_800, "1 week"), (86_400, "1 day"), (0, "Without end")])),
        ],
        buttons: vec![form_button("Make an invitation", |values| {
            let (uses, length) = (seconds(&values[1]), seconds(&values[2]));
            act(Act::MakeInvite { text: Line::new(&values[0]), uses, seconds: length })
        })],
        ..listed(state, "links", "Invitations and other links", List::Links, |entry| {
            let mut facts = facts(entry, "made ");
            facts.insert(0, Fact::Text(entry.kind.clone()));
            let revoke = by_id("Revoke", entry, |id| Act::RevokeLink { id });
            Row { user: entry.user.clone(), text: entry.text.clone(), facts, buttons: vec![grave(revoke)] }
        })
    };
    let bans = Section {
        note: String::new(),
        fields: ban(None).fields,
        buttons: ban(None).buttons,
        ..listed(state, "bans", "Bans", List::Bans, |entry| Row {
            user: entry.user.clone(),
            text: entry.text.clone(),
            facts: facts(entry, "since "),
            buttons: vec![by_id("Lift", entry, |id| Act::Unban { id })],
        })
    };
    let mut sections = vec![reports, people, invitation, bans];
    if state.may_here(Right::ReadAudit) {
        sections.push(listed(state, "audit", "What was done", List::Audit, |entry| {
            let mut facts = facts(entry, "");
            facts.extend(room_name(entry));
            facts.extend(entry.user.iter().map(|user| Fact::Text(["to ", user.name.as_str()].concat())));
            let words = [entry.kind.replace('_', " "), entry.text.clone()];
            Row { text: words.join(" ").trim().to_owned(), facts, ..Row::default() }
        }));
    }
    sections
}
