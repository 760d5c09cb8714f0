//! The kinds of events as columns, and back. It must not know rooms or who asks.

use serde::{Deserialize, Serialize};
use shared::model::{Body, Line, Ms, Seq, UserId};
use shared::protocol::{EventKind, User};

use super::Trouble;
use super::database::Row;
use super::read::{damaged, text, user_name};

/// What only some kinds have.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Data {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mentions: Vec<UserId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u32>,
}

/// The columns of a kind.
pub(super) struct Columns<'a> {
    pub kind: &'static str,
    pub body: Option<&'a str>,
    pub name: Option<&'a str>,
    pub data: Option<String>,
}

pub(super) fn columns(kind: &EventKind) -> Columns<'_> {
    let plain = |kind| Columns { kind, body: None, name: None, data: None };
    let with = |kind, data: Data| Columns { data: serde_json::to_string(&data).ok(), ..plain(kind) };
    let of_target =
        |kind, target: &User| with(kind, Data { target: Some(target.clone()), ..Data::default() });
    match kind {
        EventKind::Message { body, mentions, all } => {
            let message = Columns { body: Some(body.as_str()), ..plain("message") };
            if mentions.is_empty() && !all {
                return message;
            }
            let data = Data { mentions: mentions.clone(), all: *all, ..Data::default() };
            Columns { data: serde_json::to_string(&data).ok(), ..message }
        }
        EventKind::Deleted => plain("deleted"),
        EventKind::Deletion { of } => with("deletion", Data { of: Some(*of), ..Data::default() }),
        EventKind::Created => plain("created"),
        EventKind::Joined => plain("joined"),
        EventKind::Left => plain("left"),
        EventKind::Invited { target } => of_target("invited", target),
        EventKind::Removed { target } => of_target("removed", target),
        EventKind::Transferred { target } => of_target("transferred", target),
        EventKind::Muted { target, until } => {
            with("muted", Data { target: Some(target.clone()), until: Some(*until), ..Data::default() })
        }
        EventKind::Topic { text } => with("topic", Data { text: Some(text.clone()), ..Data::default() }),
        EventKind::RoomRenamed { text } => {
            with("room_renamed", Data { text: Some(text.clone()), ..Data::default() })
        }
        EventKind::Archived { archived } => {
            with("archived", Data { archived: Some(*archived), ..Data::default() })
        }
        EventKind::SlowMode { seconds } => {
            with("slow_mode", Data { seconds: Some(*seconds), ..Data::default() })
        }
        EventKind::Renamed { name } => Columns { name: Some(name.as_str()), ..plain("renamed") },
        EventKind::Unknown => plain("unknown"),
    }
}

/// The kind that stands in the columns kind, body, name, data, the first of which is `at`.
pub(super) fn kind(row: Row<'_>, at: usize) -> Result<EventKind, Trouble> {
    let kind = match text(row, at)? {
        "message" => {
            let body = Body::parse(text(row, at + 1)?, 0).map_err(|_| damaged("the body of a message"))?;
            let Data { mentions, all, .. } = data(row, at + 3)?;
            EventKind::Message { body, mentions, all }
        }
        "deleted" => EventKind::Deleted,
        "deletion" => EventKind::Deletion { of: has(data(row, at + 3)?.of)? },
        "created" => EventKind::Created,
        "joined" => EventKind::Joined,
        "left" => EventKind::Left,
        "invited" => EventKind::Invited { target: has(data(row, at + 3)?.target)? },
        "removed" => EventKind::Removed { target: has(data(row, at + 3)?.target)? },
        "transferred" => EventKind::Transferred { target: has(data(row, at + 3)?.target)? },
        "muted" => {
            let Data { target, until, .. } = data(row, at + 3)?;
            EventKind::Muted { target: has(target)?, until: has(until)? }
        }
        "topic" => EventKind::Topic { text: has(data(row, at + 3)?.text)? },
        "room_renamed" => EventKind::RoomRenamed { text: has(data(row, at + 3)?.text)? },
        "archived" => EventKind::Archived { archived: has(data(row, at + 3)?.archived)? },
        "slow_mode" => EventKind::SlowMode { seconds: has(data(row, at + 3)?.seconds)? },
        "renamed" => EventKind::Renamed { name: user_name(text(row, at + 2)?)? },
        // A newer Magpie wrote it. It keeps its place.
        _ => EventKind::Unknown,
    };
    Ok(kind)
}

fn data(row: Row<'_>, column: usize) -> Result<Data, Trouble> {
    match row.get_ref(column)?.as_str_or_null().map_err(|_| damaged("the data of an event"))? {
        Some(text) => serde_json::from_str(text).map_err(|_| damaged("the data of an event").into()),
        None => Ok(Data::default()),
    }
}

fn has<T>(field: Option<T>) -> Result<T, Trouble> {
    field.ok_or_else(|| damaged("a field of an event").into())
}
