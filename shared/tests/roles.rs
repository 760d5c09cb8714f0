//! docs/roles.md is what `rights::may` says, cell by cell.

use shared::protocol::RoomKind;
use shared::rights::{Right, Role, Standing, may};

const STANDINGS: [(Standing, &str); 3] =
    [(Standing::Outsider, "outside"), (Standing::Member, "member"), (Standing::Owner, "owner")];

/// How the page names a right, and whether it is about a room.
fn words(right: Right) -> (&'static str, bool) {
    match right {
        Right::CreatePublic => ("make a public room", false),
        Right::CreatePrivate => ("make a private room", false),
        Right::OpenDirect => ("open a direct conversation or a group", false),
        Right::MakeBot => ("make bots and their tokens", false),
        Right::InviteToServer => ("make links by which people sign up", false),
        Right::ReadReports => ("read and close reports", false),
        Right::Ban => ("ban users and addresses", false),
        Right::ResetPassword => ("make a link by which somebody sets a new password", false),
        Right::SetRole => ("give roles", false),
        Right::ReadAudit => ("read the audit log", false),
        Right::Write => ("write", true),
        Right::MentionAll => ("`@room` and `@here`", true),
        Right::Report => ("report a message", true),
        Right::Invite => ("put somebody in", true),
        Right::Topic => ("set the topic", true),
        Right::Remove => ("take somebody out", true),
        Right::RenameRoom => ("rename the room", true),
        Right::Archive => ("archive the room", true),
        Right::SlowMode => ("slow mode", true),
        Right::Mute => ("mute somebody", true),
        Right::DeleteMessage => ("delete others' messages", true),
        Right::MakeHook => ("make webhooks", true),
        Right::Transfer => ("give the room to somebody", true),
        Right::DeleteRoom => ("delete the room", true),
    }
}

/// The tables as they must stand in the page.
fn tables() -> (String, String) {
    let mut server =
        String::from("| | guest | member | moderator | owner |\n| --- | --- | --- | --- | --- |\n");
    let mut rooms = String::from("| | standing | public | private | direct | group |\n");
    rooms.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for right in Right::ALL {
        let (name, is_about_rooms) = words(right);
        if !is_about_rooms {
            let cells = Role::ALL.map(|role| {
                let cells = RoomKind::ALL.map(|kind| STANDINGS.map(|(s, _)| may(right, role, s, kind)));
                let is_allowed = cells[0][0];
                assert!(cells.iter().flatten().all(|may| *may == is_allowed), "{right:?} is about a room");
                if is_allowed { "yes" } else { "–" }
            });
            server.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
            continue;
        }
        for (place, (standing, standing_name)) in STANDINGS.into_iter().enumerate() {
            let cells = RoomKind::ALL.map(|kind| {
                let allowed = Role::ALL.map(|role| may(right, role, standing, kind));
                assert!(allowed.is_sorted(), "{right:?}: a higher role may what a lower one may");
                let first = allowed.iter().position(|may| *may);
                first.map_or("–", |place| Role::ALL[place].name())
            });
            let name = if place == 0 { name } else { "" };
            rooms.push_str(&format!("| {name} | {standing_name} | {} |\n", cells.join(" | ")));
        }
    }
    (server, rooms)
}

#[test]
fn the_page_about_roles_is_what_the_code_does() {
    let page = include_str!("../../docs/roles.md");
    let (server, rooms) = tables();
    for table in [server, rooms] {
        assert!(page.contains(&format!("\n\n{table}\n")), "docs/roles.md should hold\n\n{table}");
    }
}
