//! Who may do what: one function, and the table in docs/roles.md that a test compares with it.
//!
//! It must not know rooms, sessions or a store: whoever asks has looked up the facts.

use serde::{Deserialize, Serialize};

use crate::acts::Scope;
use crate::protocol::{ClientEnvelope, RoomKind};

/// What a user is on this server. Each may all that those before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Has no password: is known by a cookie alone.
    #[default]
    Guest,
    /// Has an account, or is a bot.
    Member,
    /// Keeps order.
    Moderator,
    /// Runs the server.
    Owner,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Guest, Role::Member, Role::Moderator, Role::Owner];

    /// The text on the wire and in databases.
    pub fn name(self) -> &'static str {
        match self {
            Role::Guest => "guest",
            Role::Member => "member",
            Role::Moderator => "moderator",
            Role::Owner => "owner",
        }
    }
}

/// What a user is in one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    Outsider,
    Member,
    /// Made the room, or was given it.
    Owner,
}

/// Something that not everybody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Make a public room.
    CreatePublic,
    /// Make a private room.
    CreatePrivate,
    /// Open a direct conversation or a group.
    OpenDirect,
    /// Write in the room.
    Write,
    /// `@room` and `@here`.
    MentionAll,
    /// Put somebody into the room.
    Invite,
    /// Take somebody out of the room.
    Remove,
    /// Make somebody else its owner.
    Transfer,
    Topic,
    RenameRoom,
    Archive,
    DeleteRoom,
    SlowMode,
    /// Keep somebody from writing in the room for a while.
    Mute,
    /// Delete a message of somebody else.
    DeleteMessage,
    Report,
    ReadReports,
    /// Keep a user or addresses away from the server.
    Ban,
    /// Make links by which people sign up.
    InviteToServer,
    /// Make a link by which somebody sets a new password.
    ResetPassword,
    SetRole,
    ReadAudit,
    /// Make bots and their tokens.
    MakeBot,
    /// Make webhooks of a room.
    MakeHook,
}

impl Right {
    pub const ALL: [Right; 24] = [
        Right::CreatePublic,
        Right::CreatePrivate,
        Right::OpenDirect,
        Right::Write,
        Right::MentionAll,
        Right::Invite,
        Right::Remove,
        Right::Transfer,
        Right::Topic,
        Right::RenameRoom,
        Right::Archive,
        Right::DeleteRoom,
        Right::SlowMode,
        Right::Mute,
        Right::DeleteMessage,
        Right::Report,
        Right::ReadReports,
        Right::Ban,
        Right::InviteToServer,
        Right::ResetPassword,
        Right::SetRole,
        Right::ReadAudit,
        Right::MakeBot,
        Right::MakeHook,
    ];
}

/// Whether a user with a role, standing so in a room of a kind, may do something. For what is not about a
/// room, `standing` and `kind` do not count.
///
/// Whoever is not in a room that is not public is told that there is no such room, whatever this says.
pub fn may(right: Right, role: Role, standing: Standing, kind: RoomKind) -> bool {
    let is_member = standing >= Standing::Member;
    // In a conversation of two nobody is above the other.
    let keeps_room = kind != RoomKind::Direct
        && (standing == Standing::Owner
            || (is_member || kind == RoomKind::Public) && role >= Role::Moderator);
    let is_closed = kind != RoomKind::Public;
    match right {
        Right::CreatePublic | Right::OpenDirect => true,
        Right::Write | Right::Report => is_member,
        Right::MentionAll => keeps_room || is_closed && is_member,
        Right::Invite => match kind {
            RoomKind::Public | RoomKind::Private => is_member && (role >= Role::Member || keeps_room),
            RoomKind::Group => is_member,
            RoomKind::Direct => false,
        },
        Right::Topic => keeps_room || is_closed && is_member,
        Right::Remove
        | Right::RenameRoom
        | Right::Archive
        | Right::SlowMode
        | Right::Mute
        | Right::DeleteMessage => keeps_room,
        Right::Transfer | Right::DeleteRoom => {
            kind != RoomKind::Direct && (standing == Standing::Owner || keeps_room && role == Role::Owner)
        }
        Right::MakeHook => role >= Role::Member && keeps_room,
        Right::CreatePrivate | Right::MakeBot => role >= Role::Member,
        Right::ReadReports | Right::Ban | Right::InviteToServer => role >= Role::Moderator,
        Right::ResetPassword | Right::SetRole | Right::ReadAudit => role == Role::Owner,
    }
}

/// What a connection must have to ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Nothing more than to be connected.
    Nothing,
    /// A session of a person, or a bot's token with this scope.
    Scope(Scope),
    /// A session of a person.
    Session,
}

/// What a request needs of the connection it comes from.
pub fn need(envelope: &ClientEnvelope) -> Need {
    match envelope {
        ClientEnvelope::Hello { .. } | ClientEnvelope::Ping { .. } | ClientEnvelope::Presence { .. } => {
            Need::Nothing
        }
        ClientEnvelope::Join { .. }
        | ClientEnvelope::Create { .. }
        | ClientEnvelope::Direct { .. }
        | ClientEnvelope::Group { .. }
        | ClientEnvelope::Leave { .. } => Need::Scope(Scope::Join),
        ClientEnvelope::History { .. }
        | ClientEnvelope::Read { .. }
        | ClientEnvelope::Members { .. }
        | ClientEnvelope::Directory => Need::Scope(Scope::Read),
        ClientEnvelope::Send { .. } | ClientEnvelope::Typing { .. } => Need::Scope(Scope::Send),
        ClientEnvelope::Rename { .. } | ClientEnvelope::Act(_) | ClientEnvelope::List { .. } => Need::Session,
    }
}

/// Whether what one may do to people may be done to this one: nobody is removed, muted or banned by those
/// who do not stand above them.
pub fn outranks(actor: Role, target: Role) -> bool {
    target < Role::Moderator || actor > target
}
