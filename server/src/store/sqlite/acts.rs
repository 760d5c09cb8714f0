//! What people do beside talking: each act to the function that does it.
//!
//! Who may is decided there, with what stands in the store in the same transaction.

use shared::acts::Act;
use shared::model::{Ms, RoomId, UserId};

use super::{Trouble, Writer, read};
use crate::store::{Made, Outcome, StoreError};

/// The text of a row's id.
pub(super) fn row_text(id: i64) -> String {
    RoomId::from_bits(id.unsigned_abs()).to_string()
}

/// The id of a row, as a list gave it.
pub(super) fn row_number(text: &str) -> Result<i64, Trouble> {
    let id: RoomId = text.parse().map_err(|_| StoreError::NotFound)?;
    Ok(super::number(id.bits()))
}

/// When so many seconds are over; 0 is never.
pub(super) fn after(at: Ms, seconds: u32) -> Ms {
    if seconds == 0 { Ms::MAX } else { at.saturating_add(Ms::from(seconds) * 1_000) }
}

impl Writer {
    pub(super) fn act(&mut self, by: UserId, act: Act, made: Made, at: Ms) -> Result<Outcome, Trouble> {
        let person = self.person(by)?;
        if read::is_banned(&self.connection, by, at)? {
            return Err(StoreError::Banned.into());
        }
        self.atomically(|writer| {
            let user = person.user.clone();
            match act {
                Act::Invite { room, user: target } => writer.invite(user, room, target, at),
                Act::Remove { room, user: target } => writer.remove(user, room, target, at),
                Act::Transfer { room, user: target } => writer.transfer(user, room, target, at),
                Act::Topic { room, text } => writer.set_topic(user, room, text, at),
                Act::RenameRoom { room, name } => writer.rename_room(user, room, &name, at),
                Act::Archive { room, archived } => writer.archive(user, room, archived, at),
                Act::DeleteRoom { room } => writer.delete_room(user, room, at),
                Act::SlowMode { room, seconds } => writer.set_slow_mode(user, room, seconds, at),
                Act::Mute { room, user: target, seconds } => writer.mute(user, room, target, seconds, at),
                Act::Delete { room, seq } => writer.delete_message(user, room, seq, at),
                Act::Report { room, seq, text } => writer.report(by, room, seq, &text, at),

                Act::Unread { room, seq } => writer.set_unread(by, room, seq),
                Act::Quiet { room, quiet } => writer.set_quiet(by, room, quiet),
                Act::Block { user: target, blocked } => writer.block(by, target, blocked, at),
                Act::EndSession { id } => writer.end_one_session(by, &id),
                Act::EndSessions => writer.end_other_sessions(by, &made.session),

                Act::MakeBot { name } => writer.make_bot(&person, &name, &made, at),
                Act::MakeToken { bot, text, scopes, seconds } => {
                    writer.make_token(by, bot, &text, &scopes, after(at, seconds), &made, at)
                }
                Act::RevokeToken { id } => writer.revoke_token(by, &id, at),
                Act::MakeIncomingHook { room, text } => {
                    writer.make_incoming_hook(user, room, &text, &made, at)
                }
                Act::MakeOutgoingHook { room, text, url } => {
                    writer.make_outgoing_hook(by, room, &text, &url, &made, at)
                }
                Act::RemoveHook { id } => writer.remove_hook(user, &id, at),

                Act::Ban { user: target, addresses, text, seconds } => {
                    writer.ban(&person, target, addresses.as_deref(), &text, after(at, seconds), at)
                }
                Act::Unban { id } => writer.unban(&person, &id, at),
                Act::CloseReport { id } => writer.close_report(&person, &id, at),
                Act::SetRole { user: target, role } => writer.set_role(&person, target, role, at),
                Act::MakeInvite { text, uses, seconds } => {
                    writer.make_invite(&person, &text, uses, after(at, seconds), &made, at)
                }
                Act::MakeReset { user: target } => writer.make_reset(&person, target, &made, at),
                Act::RevokeLink { id } => writer.revoke_link(&person, &id, at),
            }
        })
    }
}
