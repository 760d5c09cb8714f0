//! The wire: every envelope of the subprotocol `magpie.v1`, its error codes, close codes and limits.
//!
//! An envelope is one JSON object in one text frame, tagged by `"type"`. Unknown fields are ignored;
//! unknown types are answered with an error and the connection stays. docs/protocol.md shows an example
//! of each, made from `shared/tests/golden.rs`. This file must not know who sends an envelope or why.

mod wire;

use serde::{Deserialize, Serialize};

use crate::acts::{Act, Entry, List};
use crate::model::{
    BODY_CHARS_MAX, Body, Line, Ms, NAME_CHARS_MAX, Ref, RoomId, RoomName, Seq, UserId, UserName,
};
use crate::rights::Role;

/// The subprotocol's name in `Sec-WebSocket-Protocol` (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "magpie.v1";

/// Longest incoming message of the WebSocket, in bytes, before anything is parsed.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most events in one `joined` or `history`.
pub const PAGE_EVENTS_MAX: usize = 100;
/// Furthest back a resume is replayed, in events; beyond it the answer is the newest page and `gap`.
pub const REPLAY_EVENTS_MAX: u64 = 1_000;
/// Most rooms in one `hello`'s `resume`.
pub const RESUME_ROOMS_MAX: usize = 500;
/// Unread counts stop here; a client shows "99+".
pub const UNREAD_MAX: u32 = 100;
/// Most people in one `members`, and rooms in one `directory`.
pub const LIST_MAX: usize = 200;
/// Rooms with more people present get no names in presence changes and no typing, only the count.
pub const CROWD: usize = 100;
/// How long a `typing` holds, in milliseconds, unless it is renewed.
pub const TYPING_MS: Ms = 6_000;

/// A user as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
}

/// What sort of room it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomKind {
    /// Anyone may find and join it.
    #[default]
    Public,
    /// Only those who were invited know of it.
    Private,
    /// A conversation of two.
    Direct,
    /// A conversation of a few, without a name.
    Group,
}

impl RoomKind {
    pub const ALL: [RoomKind; 4] = [RoomKind::Public, RoomKind::Private, RoomKind::Direct, RoomKind::Group];

    /// The text on the wire and in databases.
    pub fn name(self) -> &'static str {
        match self {
            RoomKind::Public => "public",
            RoomKind::Private => "private",
            RoomKind::Direct => "direct",
            RoomKind::Group => "group",
        }
    }
}

/// A room as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::AnyRoom")]
pub struct RoomInfo {
    pub id: RoomId,
    pub kind: RoomKind,
    /// The name of a public or private room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RoomName>,
    /// The other one of a direct conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<User>,
    /// The others of a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<User>,
    /// Who made the room, or was given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Line>,
    /// Nobody can write in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// Seconds between two messages of one person; 0 is off.
    #[serde(skip_serializing_if = "is_zero")]
    pub slow_seconds: u32,
    /// Until when the reader may not write there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Ms>,
    /// Changes when the log was replaced (a restored backup): what a client holds is then void.
    pub epoch: u32,
    /// `seq` of the newest event; 0 in an empty room.
    pub head: Seq,
    /// The reader's cursor: the highest `seq` they have seen on any device.
    pub read: Seq,
    /// Counts how often the reader set the cursor back. Of two cursors the one with the higher version
    /// holds, and of the same version the higher one.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_version: u32,
    /// Messages of others after the cursor, at most `UNREAD_MAX`.
    pub unread: u32,
    /// Those among them that mention the reader.
    #[serde(skip_serializing_if = "is_zero")]
    pub mentioned: u32,
    /// The reader wants no notice of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

impl RoomInfo {
    /// An empty room of which nothing more is known.
    pub fn new(id: RoomId, kind: RoomKind) -> Self {
        Self {
            id,
            kind,
            name: None,
            peer: None,
            people: Vec::new(),
            owner: None,
            topic: None,
            archived: false,
            slow_seconds: 0,
            muted_until: None,
            epoch: 1,
            head: 0,
            read: 0,
            read_version: 0,
            unread: 0,
            mentioned: 0,
            quiet: false,
        }
    }
}

impl EventKind {
    /// A message that mentions nobody.
    pub fn message(body: Body) -> Self {
        EventKind::Message { body, mentions: Vec::new(), all: false }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A public room in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::AnyRoom")]
pub struct Listing {
    pub id: RoomId,
    pub name: RoomName,
    pub members: u32,
    pub joined: bool,
}

/// What happened, with the fields of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    Message {
        body: Body,
        /// Whom it mentions by name, as far as they are in the room.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        mentions: Vec<UserId>,
        /// It mentions everyone: `@room`, or `@here`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    },
    /// A message that was deleted: it has its place and its author.
    Deleted,
    /// The user deleted the message at `of`.
    Deletion {
        of: Seq,
    },
    /// The user made the room.
    Created,
    Joined,
    Left,
    /// The user put `target` into the room.
    Invited {
        target: User,
    },
    /// The user took `target` out of the room.
    Removed {
        target: User,
    },
    /// The user made `target` the room's owner.
    Transferred {
        target: User,
    },
    /// `target` cannot write until then; a time that is past lets them again.
    Muted {
        target: User,
        until: Ms,
    },
    /// The room is about this; empty: about nothing in particular.
    Topic {
        text: Line,
    },
    /// The room has a new name.
    RoomRenamed {
        text: Line,
    },
    Archived {
        archived: bool,
    },
    SlowMode {
        seconds: u32,
    },
    /// The user has a new name; `user.name` is still the old one.
    Renamed {
        name: UserName,
    },
    /// A kind of a newer server: it has its place in the order and nothing to show.
    Unknown,
}

/// One entry of a room's log. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::AnyEvent")]
pub struct Event {
    pub room: RoomId,
    pub seq: Seq,
    pub at: Ms,
    /// The author, under the name they had then.
    pub user: User,
    #[serde(flatten)]
    pub kind: EventKind,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
}

/// Where a client stands in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub room: RoomId,
    pub epoch: u32,
    /// `seq` of the last event applied.
    pub seq: Seq,
}

/// Whether somebody is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    #[default]
    Offline,
    Away,
    Online,
}

/// A person with their presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "wire::FlatPerson")]
pub struct Person {
    #[serde(flatten)]
    pub user: User,
    pub presence: Presence,
}

/// The limits a client should know beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Characters of a message.
    pub body_chars: usize,
    /// Characters of a name.
    pub name_chars: usize,
    /// Bytes of one frame.
    pub frame_bytes: usize,
    /// Events in one page.
    pub page_events: usize,
    /// Rooms that one user can be in; 0 is no limit.
    pub rooms_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_chars: BODY_CHARS_MAX,
            name_chars: NAME_CHARS_MAX,
            frame_bytes: FRAME_BYTES_MAX,
            page_events: PAGE_EVENTS_MAX,
            rooms_per_user: 0,
        }
    }
}

/// Client to server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientEnvelope {
    /// The first frame. For each room in `resume` the server sends a `joined` with what is missing.
    Hello {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        resume: Vec<Resume>,
    },
    /// Become a member of a public room, or read on in a room one is in. `room` is an id or a name.
    /// With `after`: the events after it, oldest first, at most a page; without: the newest page.
    Join {
        room: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Seq>,
    },
    /// Make a public or private room and become its owner.
    Create {
        name: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        private: bool,
    },
    /// Open the direct conversation with a user.
    Direct { user: UserId },
    /// Open a group with some users: the one that these are in, or a new one.
    Group { users: Vec<UserId> },
    /// Stop being a member.
    Leave { room: RoomId },
    /// The page of events before a `seq`.
    History { room: RoomId, before: Seq },
    /// Say something. `body` is checked by the server, not by this type, so that its error can name `ref`.
    Send {
        room: RoomId,
        #[serde(rename = "ref")]
        reference: Ref,
        body: String,
    },
    /// The reader has seen the events up to `seq`. With a `version` older than the cursor's it does nothing.
    Read {
        room: RoomId,
        seq: Seq,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
    },
    /// Take another name.
    Rename { name: String },
    /// Whether the person at this connection is there; only `online` and `away` are taken.
    Presence { presence: Presence },
    /// The person is typing in a room.
    Typing { room: RoomId },
    /// Who is in a room.
    Members { room: RoomId },
    /// The public rooms there are.
    Directory,
    /// Do something to a room, a user or the server.
    Act(Act),
    /// Look into a list. `room` and `text` are for those that say so; `before` is the last row's `id`.
    List {
        list: List,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Line>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
    },
    /// The client's own probe of the connection.
    Ping { n: u64 },
}

impl ClientEnvelope {
    /// The values that `"type"` may have.
    pub const TYPES: [&str; 17] = [
        "hello",
        "join",
        "create",
        "direct",
        "leave",
        "history",
        "send",
        "read",
        "rename",
        "presence",
        "typing",
        "members",
        "directory",
        "ping",
        "group",
        "act",
        "list",
    ];

    /// The envelope's `"type"`; of an act its name.
    pub fn type_name(&self) -> &'static str {
        let place = match self {
            ClientEnvelope::Hello { .. } => 0,
            ClientEnvelope::Join { .. } => 1,
            ClientEnvelope::Create { .. } => 2,
            ClientEnvelope::Direct { .. } => 3,
            ClientEnvelope::Leave { .. } => 4,
            ClientEnvelope::History { .. } => 5,
            ClientEnvelope::Send { .. } => 6,
            ClientEnvelope::Read { .. } => 7,
            ClientEnvelope::Rename { .. } => 8,
            ClientEnvelope::Presence { .. } => 9,
            ClientEnvelope::Typing { .. } => 10,
            ClientEnvelope::Members { .. } => 11,
            ClientEnvelope::Directory => 12,
            ClientEnvelope::Ping { .. } => 13,
            ClientEnvelope::Group { .. } => 14,
            ClientEnvelope::Act(act) => return act.name(),
            ClientEnvelope::List { .. } => 16,
        };
        Self::TYPES[place]
    }

    /// The room it is about, where that is named by its id.
    pub fn room(&self) -> Option<RoomId> {
        match self {
            ClientEnvelope::Leave { room }
            | ClientEnvelope::History { room, .. }
            | ClientEnvelope::Send { room, .. }
            | ClientEnvelope::Read { room, .. }
            | ClientEnvelope::Typing { room }
            | ClientEnvelope::Members { room } => Some(*room),
            ClientEnvelope::Act(act) => act.room(),
            ClientEnvelope::List { room, .. } => *room,
            ClientEnvelope::Hello { .. }
            | ClientEnvelope::Join { .. }
            | ClientEnvelope::Create { .. }
            | ClientEnvelope::Direct { .. }
            | ClientEnvelope::Group { .. }
            | ClientEnvelope::Rename { .. }
            | ClientEnvelope::Presence { .. }
            | ClientEnvelope::Directory
            | ClientEnvelope::Ping { .. } => None,
        }
    }
}

/// Server to client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "wire::AnyEnvelope")]
pub enum ServerEnvelope {
    /// The answer to `hello`.
    Welcome {
        user: User,
        role: Role,
        rooms: Vec<RoomInfo>,
        /// People the user has blocked.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        blocked: Vec<UserId>,
        limits: Limits,
        now: Ms,
    },
    /// The answer to `join`, `create`, `direct` and each entry of `resume`; also sent unasked when somebody
    /// else opens a direct conversation. The events are in order and without holes. `after` repeats the
    /// request's; without it the events are the newest page. `gap`: the request's `after` was too far back
    /// (or of another epoch) and the newest page came instead.
    Joined {
        room: RoomId,
        epoch: u32,
        head: Seq,
        events: Vec<Event>,
        gap: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<Seq>,
        /// Not in the answer to `resume`, which is the same for all who stand at the same place: the
        /// `welcome` before it has it.
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<RoomInfo>,
    },
    /// The user is no longer a member.
    Left {
        room: RoomId,
    },
    /// The answer to `history`: the events before, oldest first. Fewer than a page: the log begins here.
    History {
        room: RoomId,
        before: Seq,
        events: Vec<Event>,
    },
    /// A send is committed.
    Ack {
        #[serde(rename = "ref")]
        reference: Ref,
        room: RoomId,
        seq: Seq,
        at: Ms,
    },
    Error(Failure),
    /// Something happened in a room one is in.
    Event(Event),
    /// The user's cursor, moved on any of their devices.
    Read {
        room: RoomId,
        seq: Seq,
        #[serde(skip_serializing_if = "is_zero")]
        version: u32,
        unread: u32,
        #[serde(skip_serializing_if = "is_zero")]
        mentioned: u32,
    },
    /// A room as the user sees it now: something other than its log or cursor has changed.
    Room {
        info: RoomInfo,
    },
    /// What the user is, or whom they have blocked, has changed.
    Me {
        role: Role,
        blocked: Vec<UserId>,
    },
    /// An act was done. What it changed is told to all whom it concerns by other envelopes.
    Done {
        act: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<RoomId>,
        /// The user it made.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<User>,
        /// What it made and nobody can read again: a token, or the last part of a link.
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    },
    /// The answer to `list`; fewer than `ROWS_MAX` rows: that is all.
    List {
        list: List,
        rows: Vec<Entry>,
    },
    /// The user's own name, changed on any of their devices.
    Renamed {
        user: User,
    },
    /// Who came, went or changed in a room; `online` counts those present. In a crowd `people` stays empty.
    Presence {
        room: RoomId,
        online: u32,
        people: Vec<Person>,
    },
    Typing {
        room: RoomId,
        user: User,
    },
    /// The answer to `members`. In a crowd those present come first and the list ends at `LIST_MAX`.
    Members {
        room: RoomId,
        online: u32,
        total: u32,
        people: Vec<Person>,
    },
    /// The answer to `directory`, most members first.
    Directory {
        rooms: Vec<Listing>,
    },
    /// The operator speaks to everyone. Not part of any room.
    Announcement {
        text: String,
        at: Ms,
    },
    /// The answer to `ping`.
    Pong {
        n: u64,
        now: Ms,
    },
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The `ref` of the send that failed.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// The `type` of the request that failed, where it was understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The room it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomId>,
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
    /// When it makes sense to try again, in milliseconds. Absent: not without a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u32>,
}

/// The stable reason of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is not a JSON object.
    BadJson,
    /// No such `type`.
    UnknownType,
    /// A field is missing or holds what it cannot hold.
    BadField,
    /// Something other than `hello` came first.
    HelloFirst,
    /// A second `hello`.
    HelloTwice,
    /// There is no such room or user, or it is not for you.
    NotFound,
    /// One must be a member to do that.
    NotMember,
    /// The body is empty.
    BodyEmpty,
    /// The body is too long.
    BodyTooLong,
    /// The name is not allowed.
    NameInvalid,
    /// Somebody has that name, or one that looks like it.
    NameTaken,
    /// The user is in too many rooms.
    TooManyRooms,
    /// Nobody can leave the lobby.
    CannotLeave,
    /// The user may see it, but not do that.
    Forbidden,
    /// There are as many of these as there can be.
    TooMany,
    /// The room is archived: nobody writes there any more.
    Archived,
    /// The user may not write in the room for a while; `retry_ms` says how long.
    Muted,
    /// The room is in slow mode; `retry_ms` says when the next message may come.
    SlowMode,
    /// One of the two has blocked the other.
    Blocked,
    /// The user or the address is banned.
    Banned,
    /// The name or the password is wrong.
    BadCredentials,
    /// The password is too short or too well known.
    BadPassword,
    /// One must sign in to do that.
    SignInRequired,
    /// Too fast; `retry_ms` says when.
    RateLimited,
    /// The server cannot do it now; `retry_ms` says when to ask again.
    Unavailable,
    /// A code of a newer server.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Every code that a server sends.
    pub const ALL: [ErrorCode; 25] = [
        ErrorCode::BadJson,
        ErrorCode::UnknownType,
        ErrorCode::BadField,
        ErrorCode::HelloFirst,
        ErrorCode::HelloTwice,
        ErrorCode::NotFound,
        ErrorCode::NotMember,
        ErrorCode::BodyEmpty,
        ErrorCode::BodyTooLong,
        ErrorCode::NameInvalid,
        ErrorCode::NameTaken,
        ErrorCode::TooManyRooms,
        ErrorCode::CannotLeave,
        ErrorCode::Forbidden,
        ErrorCode::TooMany,
        ErrorCode::Archived,
        ErrorCode::Muted,
        ErrorCode::SlowMode,
        ErrorCode::Blocked,
        ErrorCode::Banned,
        ErrorCode::BadCredentials,
        ErrorCode::BadPassword,
        ErrorCode::SignInRequired,
        ErrorCode::RateLimited,
        ErrorCode::Unavailable,
    ];
}

/// A message of plain mode, to clients without the subprotocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainMessage {
    pub sender: String,
    pub message: String,
}

/// What a plain client is told when another leaves for good.
pub const PLAIN_LEFT: &str = "Client disconnected";

/// The sender of what the server itself says in plain mode.
pub const SERVER_NAME: &str = "Magpie";

/// Why a WebSocket was closed (RFC 6455 §7.4, and our own from 4000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    Normal = 1000,
    GoingAway = 1001,
    ProtocolError = 1002,
    UnsupportedData = 1003,
    BadUtf8 = 1007,
    Policy = 1008,
    TooBig = 1009,
    Internal = 1011,
    Restart = 1012,
    TryLater = 1013,
    TooSlow = 4000,
    NoAnswer = 4001,
    RateLimited = 4002,
}

/// What a client should do after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClose {
    /// The client asked for it.
    Stay,
    /// Connect again, backing off.
    Reconnect,
    /// Connect again after a random wait of up to a few seconds: everybody else does so too.
    ReconnectSpread,
    /// The session is void: load the page again, or sign in.
    NewSession,
}

impl CloseCode {
    /// The one table of codes: the code, what the server means by it, and what to do then.
    pub const TABLE: [(CloseCode, &str, AfterClose); 13] = [
        (CloseCode::Normal, "closed as asked", AfterClose::Stay),
        (CloseCode::GoingAway, "going away", AfterClose::Reconnect),
        (CloseCode::ProtocolError, "not the WebSocket protocol", AfterClose::Reconnect),
        (CloseCode::UnsupportedData, "binary frames are not taken here", AfterClose::Reconnect),
        (CloseCode::BadUtf8, "text that is not UTF-8", AfterClose::Reconnect),
        (CloseCode::Policy, "the session is not valid", AfterClose::NewSession),
        (CloseCode::TooBig, "a message over the size limit", AfterClose::Reconnect),
        (CloseCode::Internal, "our fault", AfterClose::Reconnect),
        (CloseCode::Restart, "the server restarts", AfterClose::ReconnectSpread),
        (CloseCode::TryLater, "over capacity", AfterClose::Reconnect),
        (CloseCode::TooSlow, "reads too slowly", AfterClose::Reconnect),
        (CloseCode::NoAnswer, "no answer to pings", AfterClose::Reconnect),
        (CloseCode::RateLimited, "sends too fast", AfterClose::Reconnect),
    ];

    /// The reason that goes into the close frame.
    pub fn reason(self) -> &'static str {
        self.row().1
    }

    /// What a client should do after a close with any code; unknown ones are reconnected.
    pub fn after(code: u16) -> AfterClose {
        Self::TABLE.iter().find(|row| row.0 as u16 == code).map_or(AfterClose::Reconnect, |row| row.2)
    }

    fn row(self) -> (CloseCode, &'static str, AfterClose) {
        Self::TABLE.into_iter().find(|row| row.0 == self).unwrap_or(Self::TABLE[0])
    }
}

/// Reads a frame of a client.
///
/// # Errors
/// A `Failure` that is ready to be sent: `bad_json`, `unknown_type` or `bad_field`, with the `ref` of the
/// frame where it has one.
pub fn decode(text: &str) -> Result<ClientEnvelope, Failure> {
    serde_json::from_str(text).map_err(|error| explain(text, &error))
}

fn explain(text: &str, error: &serde_json::Error) -> Failure {
    #[derive(Deserialize)]
    struct Head {
        r#type: Option<serde_json::Value>,
        r#ref: Option<serde_json::Value>,
    }
    let head = match serde_json::from_str::<Head>(text) {
        Ok(head) => head,
        Err(_) if text.trim_start().starts_with('{') && error.is_data() => {
            // An object, but not one whose type can be told: a doubled field.
            return Failure::new(ErrorCode::BadField, "A field stands twice.");
        }
        Err(_) => return Failure::new(ErrorCode::BadJson, "A frame is one JSON object."),
    };
    let reference = head.r#ref.and_then(|value| serde_json::from_value(value).ok());
    let failure = match head.r#type {
        Some(serde_json::Value::String(name)) if ClientEnvelope::TYPES.contains(&name.as_str()) => {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            let sentence: String = format!("In \"{name}\": {reason}.").chars().take(200).collect();
            Failure { request: Some(name), ..Failure::new(ErrorCode::BadField, sentence) }
        }
        Some(serde_json::Value::String(_)) => {
            Failure::new(ErrorCode::UnknownType, "There is no envelope of that type.")
        }
        Some(_) => Failure::new(ErrorCode::BadField, "The type is a text."),
        None => Failure::new(ErrorCode::BadField, "An envelope needs a type."),
    };
    Failure { reference, ..failure }
}

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { reference: None, request: None, room: None, code, message: message.into(), retry_ms: None }
    }
}

/// The JSON of an envelope. What we define ourselves always encodes.
pub fn encode<T: Serialize>(envelope: &T) -> String {
    serde_json::to_string(envelope).unwrap_or_default()
}
