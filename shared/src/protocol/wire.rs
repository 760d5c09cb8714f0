//! How what a server says is read: one struct of optional fields for each sort of JSON object, and the
//! check that what it turned out to be has the fields it needs.
//!
//! Serde's own decoder of a tagged enum keeps the object as a tree first, then has code for each variant.
//! In the browser that was a seventh of the whole program. Writing is derived from the types themselves.
//! This file must not know who reads.

use serde::Deserialize;

use super::{
    ErrorCode, Event, EventKind, Failure, Limits, Listing, Person, Presence, RoomInfo, RoomKind,
    ServerEnvelope, User,
};
use crate::acts::{Entry, List};
use crate::model::{Body, Line, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use crate::rights::Role;

/// The fields of all of a server's envelopes.
#[derive(Deserialize)]
pub(super) struct AnyEnvelope {
    r#type: String,
    act: Option<String>,
    after: Option<Seq>,
    all: Option<bool>,
    archived: Option<bool>,
    at: Option<Ms>,
    before: Option<Seq>,
    blocked: Option<Vec<UserId>>,
    body: Option<Body>,
    code: Option<ErrorCode>,
    epoch: Option<u32>,
    events: Option<Vec<Event>>,
    gap: Option<bool>,
    head: Option<Seq>,
    info: Option<RoomInfo>,
    kind: Option<String>,
    limits: Option<Limits>,
    list: Option<List>,
    mentioned: Option<u32>,
    mentions: Option<Vec<UserId>>,
    message: Option<String>,
    n: Option<u64>,
    name: Option<UserName>,
    now: Option<Ms>,
    of: Option<Seq>,
    online: Option<u32>,
    people: Option<Vec<Person>>,
    r#ref: Option<Ref>,
    request: Option<String>,
    retry_ms: Option<u32>,
    role: Option<Role>,
    room: Option<RoomId>,
    rooms: Option<Vec<AnyRoom>>,
    rows: Option<Vec<Entry>>,
    seconds: Option<u32>,
    secret: Option<String>,
    seq: Option<Seq>,
    target: Option<User>,
    text: Option<String>,
    total: Option<u32>,
    unread: Option<u32>,
    until: Option<Ms>,
    user: Option<User>,
    version: Option<u32>,
}

/// The fields of a room, as its members see it and as the directory lists it.
#[derive(Deserialize)]
pub(super) struct AnyRoom {
    id: RoomId,
    kind: Option<RoomKind>,
    name: Option<RoomName>,
    peer: Option<User>,
    #[serde(default)]
    people: Vec<User>,
    owner: Option<UserId>,
    topic: Option<Line>,
    archived: Option<bool>,
    slow_seconds: Option<u32>,
    muted_until: Option<Ms>,
    epoch: Option<u32>,
    head: Option<Seq>,
    read: Option<Seq>,
    read_version: Option<u32>,
    unread: Option<u32>,
    mentioned: Option<u32>,
    quiet: Option<bool>,
    members: Option<u32>,
    joined: Option<bool>,
}

/// The fields of all kinds of events.
#[derive(Deserialize)]
pub(super) struct AnyEvent {
    room: RoomId,
    seq: Seq,
    at: Ms,
    user: User,
    kind: String,
    all: Option<bool>,
    archived: Option<bool>,
    body: Option<Body>,
    mentions: Option<Vec<UserId>>,
    name: Option<UserName>,
    of: Option<Seq>,
    r#ref: Option<Ref>,
    seconds: Option<u32>,
    target: Option<User>,
    text: Option<String>,
    until: Option<Ms>,
}

/// A user's fields beside their presence.
#[derive(Deserialize)]
pub(super) struct FlatPerson {
    id: UserId,
    name: UserName,
    presence: Presence,
}

/// Why an object is not what its `type` or its place says.
type Flaw = &'static str;

/// A field that this sort of object cannot do without.
fn need<T>(field: Option<T>) -> Result<T, Flaw> {
    field.ok_or("a field is missing")
}

impl TryFrom<AnyEnvelope> for ServerEnvelope {
    type Error = Flaw;

    fn try_from(any: AnyEnvelope) -> Result<Self, Flaw> {
        Ok(match any.r#type.as_str() {
            "welcome" => ServerEnvelope::Welcome {
                user: need(any.user)?,
                role: any.role.unwrap_or_default(),
                rooms: each(any.rooms)?,
                blocked: any.blocked.unwrap_or_default(),
                limits: need(any.limits)?,
                now: need(any.now)?,
            },
            "joined" => ServerEnvelope::Joined {
                room: need(any.room)?,
                epoch: need(any.epoch)?,
                head: need(any.head)?,
                events: need(any.events)?,
                gap: need(any.gap)?,
                after: any.after,
                info: any.info,
            },
            "left" => ServerEnvelope::Left { room: need(any.room)? },
            "history" => ServerEnvelope::History {
                room: need(any.room)?,
                before: need(any.before)?,
                events: need(any.events)?,
            },
            "ack" => ServerEnvelope::Ack {
                reference: need(any.r#ref)?,
                room: need(any.room)?,
                seq: need(any.seq)?,
                at: need(any.at)?,
            },
            "error" => ServerEnvelope::Error(Failure {
                reference: any.r#ref,
                request: any.request,
                room: any.room,
                code: need(any.code)?,
                message: need(any.message)?,
                retry_ms: any.retry_ms,
            }),
            "event" => {
                let event = AnyEvent {
                    room: need(any.room)?,
                    seq: need(any.seq)?,
                    at: need(any.at)?,
                    user: need(any.user)?,
                    kind: need(any.kind)?,
                    all: any.all,
                    archived: any.archived,
                    body: any.body,
                    mentions: any.mentions,
                    name: any.name,
                    of: any.of,
                    r#ref: any.r#ref,
                    seconds: any.seconds,
                    target: any.target,
                    text: any.text,
                    until: any.until,
                };
                ServerEnvelope::Event(event.try_into()?)
            }
            "read" => ServerEnvelope::Read {
                room: need(any.room)?,
                seq: need(any.seq)?,
                version: any.version.unwrap_or(0),
                unread: need(any.unread)?,
                mentioned: any.mentioned.unwrap_or(0),
            },
            "room" => ServerEnvelope::Room { info: need(any.info)? },
            "me" => ServerEnvelope::Me {
                role: any.role.unwrap_or_default(),
                blocked: any.blocked.unwrap_or_default(),
            },
            "done" => ServerEnvelope::Done {
                act: need(any.act)?,
                room: any.room,
                user: any.user,
                secret: any.secret,
            },
            "list" => ServerEnvelope::List { list: need(any.list)?, rows: need(any.rows)? },
            "renamed" => ServerEnvelope::Renamed { user: need(any.user)? },
            "presence" => ServerEnvelope::Presence {
                room: need(any.room)?,
                online: need(any.online)?,
                people: need(any.people)?,
            },
            "typing" => ServerEnvelope::Typing { room: need(any.room)?, user: need(any.user)? },
            "members" => ServerEnvelope::Members {
                room: need(any.room)?,
                online: need(any.online)?,
                total: need(any.total)?,
                people: need(any.people)?,
            },
            "directory" => ServerEnvelope::Directory { rooms: each(any.rooms)? },
            "announcement" => ServerEnvelope::Announcement { text: need(any.text)?, at: need(any.at)? },
            "pong" => ServerEnvelope::Pong { n: need(any.n)?, now: need(any.now)? },
            _ => return Err("there is no envelope of that type"),
        })
    }
}

fn each<T: TryFrom<AnyRoom, Error = Flaw>>(rooms: Option<Vec<AnyRoom>>) -> Result<Vec<T>, Flaw> {
    need(rooms)?.into_iter().map(T::try_from).collect()
}

impl TryFrom<AnyRoom> for RoomInfo {
    type Error = Flaw;

    fn try_from(any: AnyRoom) -> Result<Self, Flaw> {
        Ok(RoomInfo {
            id: any.id,
            kind: need(any.kind)?,
            name: any.name,
            peer: any.peer,
            people: any.people,
            owner: any.owner,
            topic: any.topic,
            archived: any.archived.unwrap_or(false),
            slow_seconds: any.slow_seconds.unwrap_or(0),
            muted_until: any.muted_until,
            epoch: need(any.epoch)?,
            head: need(any.head)?,
            read: need(any.read)?,
            read_version: any.read_version.unwrap_or(0),
            unread: need(any.unread)?,
            mentioned: any.mentioned.unwrap_or(0),
            quiet: any.quiet.unwrap_or(false),
        })
    }
}

impl TryFrom<AnyRoom> for Listing {
    type Error = Flaw;

    fn try_from(any: AnyRoom) -> Result<Self, Flaw> {
        Ok(Listing {
            id: any.id,
            name: need(any.name)?,
            members: need(any.members)?,
            joined: need(any.joined)?,
        })
    }
}

impl TryFrom<AnyEvent> for Event {
    type Error = Flaw;

    fn try_from(any: AnyEvent) -> Result<Self, Flaw> {
        let kind = match any.kind.as_str() {
            "message" => EventKind::Message {
                body: need(any.body)?,
                mentions: any.mentions.unwrap_or_default(),
                all: any.all.unwrap_or(false),
            },
            "deleted" => EventKind::Deleted,
            "deletion" => EventKind::Deletion { of: need(any.of)? },
            "invited" => EventKind::Invited { target: need(any.target)? },
            "removed" => EventKind::Removed { target: need(any.target)? },
            "transferred" => EventKind::Transferred { target: need(any.target)? },
            "muted" => EventKind::Muted { target: need(any.target)?, until: need(any.until)? },
            "topic" => EventKind::Topic { text: Line::new(&need(any.text)?) },
            "room_renamed" => EventKind::RoomRenamed { text: Line::new(&need(any.text)?) },
            "archived" => EventKind::Archived { archived: need(any.archived)? },
            "slow_mode" => EventKind::SlowMode { seconds: need(any.seconds)? },
            "created" => EventKind::Created,
            "joined" => EventKind::Joined,
            "left" => EventKind::Left,
            "renamed" => EventKind::Renamed { name: need(any.name)? },
            _ => EventKind::Unknown,
        };
        Ok(Event { room: any.room, seq: any.seq, at: any.at, user: any.user, kind, reference: any.r#ref })
    }
}

impl From<FlatPerson> for Person {
    fn from(flat: FlatPerson) -> Self {
        Person { user: User { id: flat.id, name: flat.name }, presence: flat.presence }
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::ServerEnvelope;

    #[test]
    fn what_is_not_whole_is_refused() {
        let read =
            |json: &str| serde_json::from_str::<ServerEnvelope>(json).map_err(|error| error.to_string());
        assert!(read(r#"{"type":"pong","n":1,"now":2,"sent":3}"#).is_ok());
        for (json, why) in [
            (r#"{"n":1}"#, "missing field `type`"),
            (r#"{"type":"dance","n":1}"#, "there is no envelope of that type"),
            (r#"{"type":"pong","n":1}"#, "a field is missing"),
            (r#"{"type":"pong","n":1,"now":null}"#, "a field is missing"),
            (r#"{"type":"pong","n":-1,"now":2}"#, "invalid value"),
            (r#"{"type":"pong","n":1,"n":1,"now":2}"#, "duplicate field `n`"),
            (r#"{"type":"directory","rooms":[{"id":"0p7jnxqr0vjqy","name":"a"}]}"#, "a field is missing"),
            (
                r#"{"type":"event","room":"0p7jnxqr0vjqy","seq":1,"at":1,"user":{"id":"1tq0bfy9tmbgh","name":"Ada"},"kind":"message"}"#,
                "a field is missing",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.starts_with(why), "{json}: {error}");
        }
    }
}
