//! What people do beside talking: to rooms, to each other, to the server; and the lists they look into.
//!
//! An act is `{"type":"act","act":…}`, answered with `done` or `error`; a list is `{"type":"list","list":…}`,
//! answered with rows that all have the same optional fields. Who may do what is in `rights`. This file must
//! not know who acts, or what follows.

#[cfg(feature = "names")]
mod check;

use serde::{Deserialize, Serialize};

use crate::markdown::URL_BYTES_MAX;
use crate::model::{Line, Ms, RoomId, Seq, UserId};
use crate::protocol::User;
use crate::rights::Role;

/// Most people in a group, the one who opens it counted.
pub const GROUP_MAX: usize = 9;
/// Longest pause between two messages of one person in slow mode, in seconds.
pub const SLOW_SECONDS_MAX: u32 = 6 * 3_600;
/// Longest time that can be set for a mute, ban, token or invitation, in seconds: ten years.
pub const SECONDS_MAX: u32 = 10 * 366 * 86_400;
/// Longest address of a webhook, in bytes.
pub const HOOK_URL_BYTES_MAX: usize = URL_BYTES_MAX;
/// Longest id of a row, in bytes.
pub const ROW_ID_BYTES_MAX: usize = 64;
/// Rows of one list.
pub const ROWS_MAX: usize = 100;
/// Bots that one user can make; and tokens of one bot.
pub const BOTS_MAX: usize = 20;
/// Webhooks of one room.
pub const HOOKS_MAX: usize = 20;
/// People that one user can block.
pub const BLOCKS_MAX: usize = 1_000;

/// Something done. An id of a row (`id`) is as a list gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    // Rooms.
    /// Put somebody into a room.
    Invite {
        room: RoomId,
        user: UserId,
    },
    /// Take somebody out of a room.
    Remove {
        room: RoomId,
        user: UserId,
    },
    /// Make a member of a room its owner.
    Transfer {
        room: RoomId,
        user: UserId,
    },
    /// Say what a room is about; empty takes it away.
    Topic {
        room: RoomId,
        text: Line,
    },
    /// Give a public or private room another name.
    RenameRoom {
        room: RoomId,
        name: String,
    },
    /// Nobody writes in the room any more; or again.
    Archive {
        room: RoomId,
        archived: bool,
    },
    /// The room and all that was said in it are gone.
    DeleteRoom {
        room: RoomId,
    },
    /// Seconds between two messages of one person; 0 is off. Not for those who keep the room.
    SlowMode {
        room: RoomId,
        seconds: u32,
    },
    /// Keep somebody from writing in a room for so many seconds; 0 lets them again.
    Mute {
        room: RoomId,
        user: UserId,
        seconds: u32,
    },
    /// Delete a message.
    Delete {
        room: RoomId,
        seq: Seq,
    },
    /// Tell the moderators of a message.
    Report {
        room: RoomId,
        seq: Seq,
        text: Line,
    },

    // One's own.
    /// Everything from this event on is unread again.
    Unread {
        room: RoomId,
        seq: Seq,
    },
    /// Want no notice of a room; or again.
    Quiet {
        room: RoomId,
        quiet: bool,
    },
    /// Hide somebody, and take no direct messages of theirs; or again.
    Block {
        user: UserId,
        blocked: bool,
    },
    /// Sign a session out.
    EndSession {
        id: String,
    },
    /// Sign all other sessions out.
    EndSessions,

    // Bots.
    /// Make a bot: a user without a password. `done` has its `user`.
    MakeBot {
        name: String,
    },
    /// Make a token of one's bot, for so many seconds (0: for ever). `done` has the `secret`.
    MakeToken {
        bot: UserId,
        text: Line,
        scopes: Vec<Scope>,
        seconds: u32,
    },
    RevokeToken {
        id: String,
    },
    /// Make an address that takes `{"text": …}` for a room. `done` has the address's last part as `secret`.
    MakeIncomingHook {
        room: RoomId,
        text: Line,
    },
    /// Have the messages of a room posted to an address. `done` has the `secret` they are signed with.
    MakeOutgoingHook {
        room: RoomId,
        text: Line,
        url: String,
    },
    RemoveHook {
        id: String,
    },

    // The server.
    /// Ban a user, or addresses as `203.0.113.7` or `2001:db8::/32`, for so many seconds (0: for ever).
    Ban {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<UserId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        addresses: Option<String>,
        text: Line,
        seconds: u32,
    },
    Unban {
        id: String,
    },
    /// The report is dealt with.
    CloseReport {
        id: String,
    },
    SetRole {
        user: UserId,
        role: Role,
    },
    /// Make a link by which so many people (0: any number) can sign up for so many seconds (0: for ever).
    /// `done` has the `secret`.
    MakeInvite {
        text: Line,
        uses: u32,
        seconds: u32,
    },
    /// Make a link by which a user sets a new password, once, within a day. `done` has the `secret`.
    MakeReset {
        user: UserId,
    },
    RevokeLink {
        id: String,
    },
}

impl Act {
    /// The values that `"act"` may have.
    pub const NAMES: [&str; 29] = [
        "invite",
        "remove",
        "transfer",
        "topic",
        "rename_room",
        "archive",
        "delete_room",
        "slow_mode",
        "mute",
        "delete",
        "report",
        "unread",
        "quiet",
        "block",
        "end_session",
        "end_sessions",
        "make_bot",
        "make_token",
        "revoke_token",
        "make_incoming_hook",
        "make_outgoing_hook",
        "remove_hook",
        "ban",
        "unban",
        "close_report",
        "set_role",
        "make_invite",
        "make_reset",
        "revoke_link",
    ];

    /// The act's name on the wire, in the audit log, and as the `request` of its error.
    pub fn name(&self) -> &'static str {
        let place = match self {
            Act::Invite { .. } => 0,
            Act::Remove { .. } => 1,
            Act::Transfer { .. } => 2,
            Act::Topic { .. } => 3,
            Act::RenameRoom { .. } => 4,
            Act::Archive { .. } => 5,
            Act::DeleteRoom { .. } => 6,
            Act::SlowMode { .. } => 7,
            Act::Mute { .. } => 8,
            Act::Delete { .. } => 9,
            Act::Report { .. } => 10,
            Act::Unread { .. } => 11,
            Act::Quiet { .. } => 12,
            Act::Block { .. } => 13,
            Act::EndSession { .. } => 14,
            Act::EndSessions => 15,
            Act::MakeBot { .. } => 16,
            Act::MakeToken { .. } => 17,
            Act::RevokeToken { .. } => 18,
            Act::MakeIncomingHook { .. } => 19,
            Act::MakeOutgoingHook { .. } => 20,
            Act::RemoveHook { .. } => 21,
            Act::Ban { .. } => 22,
            Act::Unban { .. } => 23,
            Act::CloseReport { .. } => 24,
            Act::SetRole { .. } => 25,
            Act::MakeInvite { .. } => 26,
            Act::MakeReset { .. } => 27,
            Act::RevokeLink { .. } => 28,
        };
        Self::NAMES[place]
    }

    /// The room it is about.
    pub fn room(&self) -> Option<RoomId> {
        match self {
            Act::Invite { room, .. }
            | Act::Remove { room, .. }
            | Act::Transfer { room, .. }
            | Act::Topic { room, .. }
            | Act::RenameRoom { room, .. }
            | Act::Archive { room, .. }
            | Act::DeleteRoom { room }
            | Act::SlowMode { room, .. }
            | Act::Mute { room, .. }
            | Act::Delete { room, .. }
            | Act::Report { room, .. }
            | Act::Unread { room, .. }
            | Act::Quiet { room, .. }
            | Act::MakeIncomingHook { room, .. }
            | Act::MakeOutgoingHook { room, .. } => Some(*room),
            Act::Block { .. }
            | Act::EndSession { .. }
            | Act::EndSessions
            | Act::MakeBot { .. }
            | Act::MakeToken { .. }
            | Act::RevokeToken { .. }
            | Act::RemoveHook { .. }
            | Act::Ban { .. }
            | Act::Unban { .. }
            | Act::CloseReport { .. }
            | Act::SetRole { .. }
            | Act::MakeInvite { .. }
            | Act::MakeReset { .. }
            | Act::RevokeLink { .. } => None,
        }
    }
}

/// What a bot's token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Hear what is said in the rooms it is in, and read their history.
    Read,
    /// Write in the rooms it is in.
    Send,
    /// Join public rooms and leave rooms.
    Join,
}

/// A list one may look into, newest first unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// One's own sessions: `text` is the device, `at` the last use, `until` the end, `current`.
    Sessions,
    /// People one has blocked: `user`.
    Blocks,
    /// One's own bots (`user`, without `id`) and their tokens: `user` is the bot, `text` its name, `kind` the
    /// scopes with spaces, `at` the last use, `until`.
    Bots,
    /// The webhooks of `room`: `kind` is `incoming` or `outgoing`, `text` the name, `by`, `at`; of an outgoing
    /// one `more` is the address and how the last delivery went.
    Hooks,
    /// Users whose names begin with `text`, by name: `user`, `kind` the role. For those who invite.
    Users,
    /// Links to sign up or to reset a password that still work: `kind`, `text`, `by`, `uses` left, `until`.
    Links,
    /// Bans in force: `user` or `more` (addresses), `text` the reason, `by`, `at`, `until`.
    Bans,
    /// Open reports: `user` is the author, `room`, `seq`, `text` the reason, `more` the message, `by`, `at`.
    Reports,
    /// What was done: `kind` is the act, `by`, `user` to whom, `room`, `text`, `at`.
    Audit,
}

impl List {
    pub const ALL: [List; 9] = [
        List::Sessions,
        List::Blocks,
        List::Bots,
        List::Hooks,
        List::Users,
        List::Links,
        List::Bans,
        List::Reports,
        List::Audit,
    ];
}

/// A row of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Names the row in an act, and in `before` to read on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub more: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Ms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// The session that asks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
}
