//! What only the whole program offers about people: to mute, invite and ban them, and what they are.

use shared::acts::Act;
use shared::model::{LOBBY, Line, UserId};
use shared::protocol::{RoomKind, User};
use shared::rights::{Right, Role};

use super::{Card, Kind, Panel, Section, act, act_button, field, form_button, grave, place};
use crate::room::Room;
use crate::route::Route;
use crate::state::State;

pub(super) fn choice(values: &[(u32, &str)]) -> Kind {
    Kind::Choice(values.iter().map(|(value, label)| (value.to_string(), (*label).to_owned())).collect())
}

/// How long something lasts, in seconds.
pub(super) const LENGTHS: [(u32, &str); 5] =
    [(600, "10 minutes"), (3_600, "1 hour"), (86_400, "1 day"), (604_800, "1 week"), (0, "Without end")];

pub(super) fn seconds(value: &str) -> u32 {
    value.parse().unwrap_or(0)
}

/// The dialog of a card, with all that can be done.
pub fn card(state: &State, card: &Card) -> Option<Panel> {
    let mut panel = super::card(state, card)?;
    if let Card::Person(user) = card {
        panel.sections.extend(person(state, user));
    }
    Some(panel)
}

fn person(state: &State, user: &User) -> Vec<Section> {
    let id = user.id;
    let mut sections = Vec::new();
    // The room whose settings are in view, or that is.
    let room = match state.route {
        Route::RoomSettings(room) => state.rooms.get(&room),
        _ => state.current_room(),
    };
    if let Some(room) = room.filter(|room| room.people.contains_key(&id)) {
        let room_id = room.info.id;
        let in_room = ["In ", &place(room)].concat();
        let mut buttons = Vec::new();
        if state.may(Right::Remove, room) && room_id != LOBBY {
            buttons.push(grave(act_button("Remove", move || Act::Remove { room: room_id, user: id })));
        }
        if state.may(Right::Transfer, room) && room.info.kind != RoomKind::Group && room_id != LOBBY {
            let transfer = act_button("Make owner", move || Act::Transfer { room: room_id, user: id });
            buttons.push(grave(transfer));
        }
        if !buttons.is_empty() {
            sections.push(Section { id: "in-room", heading: in_room, buttons, ..Section::default() });
        }
        if state.may(Right::Mute, room) {
            sections.push(Section {
                id: "mute",
                heading: ["Mute in ", &place(room)].concat(),
                fields: vec![field("For", choice(&LENGTHS[..4]))],
                buttons: vec![
                    form_button("Mute", move |values| {
                        act(Act::Mute { room: room_id, user: id, seconds: seconds(&values[0]) })
                    }),
                    act_button("Let write again", move || Act::Mute { room: room_id, user: id, seconds: 0 }),
                ],
                ..Section::default()
            });
        }
    }
    let invites = |room: &&Room| {
        state.may(Right::Invite, room) && !room.people.contains_key(&id) && room.info.id != LOBBY
    };
    let rooms: Vec<(String, String)> = state
        .room_list()
        .into_iter()
        .filter(invites)
        .map(|room| (room.info.id.to_string(), place(room)))
        .collect();
    if !rooms.is_empty() {
        sections.push(Section {
            id: "invite",
            heading: "Invite".to_owned(),
            fields: vec![field("To", Kind::Choice(rooms))],
            buttons: vec![form_button("Invite", move |values| match values[0].parse() {
                Ok(room) => act(Act::Invite { room, user: id }),
                Err(_) => Err("Choose a room.".to_owned()),
            })],
            ..Section::default()
        });
    }
    if state.may_here(Right::SetRole) {
        let roles = Role::ALL.map(|role| (role.name().to_owned(), role.name().to_owned()));
        sections.push(Section {
            id: "role",
            heading: "Role".to_owned(),
            fields: vec![field("Role on this server", Kind::Choice(roles[1..].to_vec()))],
            buttons: vec![form_button("Set role", move |values| {
                let role = Role::ALL.into_iter().find(|role| role.name() == values[0]);
                act(Act::SetRole { user: id, role: role.unwrap_or_default() })
            })],
            ..Section::default()
        });
    }
    if state.may_here(Right::Ban) {
        sections.push(ban(Some(id)));
    }
    sections
}

/// The form to ban somebody, or addresses.
pub fn ban(user: Option<UserId>) -> Section {
    let mut fields = vec![field("For", choice(&LENGTHS)), field("Reason", Kind::Text)];
    if user.is_none() {
        fields.push(field("Addresses, as 203.0.113.7 or 2001:db8::/32", Kind::Text));
    }
    Section {
        id: "ban",
        heading: "Ban from this server".to_owned(),
        fields,
        buttons: vec![grave(form_button("Ban", move |values| {
            let addresses = values.get(2).cloned();
            act(Act::Ban { user, addresses, text: Line::new(&values[1]), seconds: seconds(&values[0]) })
        }))],
        ..Section::default()
    }
}
