//! What people do beside talking, and the lists they look into: what the store is asked, and who is told what
//! came of it.
//!
//! Whether somebody may is the store's to say, by `shared::rights` and in the same transaction; what an act may
//! hold is `Act::checked`.

use shared::acts::{Act, GROUP_MAX, List, ROW_ID_BYTES_MAX};
use shared::model::{Line, Ms, RoomId, UserId};
use shared::protocol::{ErrorCode, Failure, ServerEnvelope};

use super::membership::publish_events;
use super::{Asker, Effect, Hub, Out, Pending, Query};
use crate::broker::{Hint, Topic};
use crate::store::{ListQuery, Made, Outcome, StoreError};

/// What an act makes that nobody must guess.
enum Makes {
    Nothing,
    /// A secret of which the store keeps the hash.
    Secret,
    /// A secret that the store must know, to sign with.
    Key,
}

/// An act on its way.
#[derive(Debug)]
pub(super) struct Acting {
    pub asker: Asker,
    pub by: UserId,
    pub act: &'static str,
    pub room: Option<RoomId>,
    /// What the asker is told if it is done.
    pub secret: Option<String>,
}

impl Hub {
    pub(super) fn act(&mut self, now: Ms, asker: Asker, by: UserId, act: Act, out: Out) {
        let act = match act.checked() {
            Ok(act) => act,
            Err(failure) => return self.fail(asker.conn, failure, out),
        };
        let Some(session) = self.session(asker.conn).map(|session| session.token) else { return };
        let (secret, told) = match makes(&act) {
            Makes::Nothing => ([0; 32], None),
            Makes::Secret => {
                let secret = self.secrets.make();
                (secret.hash(), Some(secret.text()))
            }
            Makes::Key => {
                let secret = self.secrets.make();
                (secret.key(), Some(secret.text()))
            }
        };
        let made = Made { session, id: self.rng.u64(..), secret };
        let acting = Acting { asker, by, act: act.name(), room: act.room(), secret: told };
        let at = now + self.wall_offset;
        self.ask(Pending::Act(Box::new(acting)), Query::Act { by, act, made, at }, out);
    }

    /// An act was done: all whom it concerns hear of it, and then who did it.
    pub(super) fn acted(&mut self, acting: Acting, outcome: Outcome, out: Out) {
        let Acting { asker, by, act, room, secret } = acting;
        let Outcome { events, memberships, ended, users, rooms, cursor, user, rules_changed } = outcome;
        publish_events(events, out);
        let mut tell = |topic, hint| out.push(Effect::Publish { topic, hint });
        for (user, room, member) in memberships {
            tell(Topic::User(user), Hint::Membership { user, room, member });
        }
        for ended in ended {
            // To all: a hub may be about to let such a session in, and not follow its user yet.
            tell(Topic::All, Hint::Ended(ended));
        }
        for user in users {
            tell(Topic::User(user), Hint::User { user });
        }
        for room in rooms {
            tell(Topic::User(by), Hint::Room { user: by, room });
        }
        if let Some((room, cursor)) = cursor {
            tell(Topic::User(by), Hint::Read { user: by, room, cursor });
        }
        if rules_changed {
            tell(Topic::All, Hint::Rules);
        }
        if self.asked(asker).is_some() {
            self.send(asker.conn, &ServerEnvelope::Done { act: act.into(), room, user, secret }, out);
        }
    }

    pub(super) fn not_acted(&self, acting: &Acting, error: &StoreError, out: Out) {
        if self.asked(acting.asker).is_none() {
            return;
        }
        let failure = match error {
            StoreError::NotMember => Failure::new(ErrorCode::NotMember, "They are not in that room."),
            error => self.explain(error),
        };
        let failure = Failure { request: Some(acting.act.into()), room: acting.room, ..failure };
        self.fail(acting.asker.conn, failure, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one envelope")]
    pub(super) fn list(
        &mut self,
        now: Ms,
        asker: Asker,
        by: UserId,
        list: List,
        room: Option<RoomId>,
        text: Option<Line>,
        before: Option<String>,
        out: Out,
    ) {
        let Some(session) = self.session(asker.conn).map(|session| session.token) else { return };
        let bad = match (list, room, &before) {
            (List::Hooks, None, _) => Some("The webhooks of which room?"),
            (_, _, Some(before)) if before.len() > ROW_ID_BYTES_MAX => Some("That is no id of a row."),
            _ => None,
        };
        if let Some(sentence) = bad {
            let failure = Failure::new(ErrorCode::BadField, sentence);
            return self.fail(asker.conn, Failure { request: Some("list".into()), room, ..failure }, out);
        }
        let at = now + self.wall_offset;
        let query = ListQuery { list, room, text: text.unwrap_or_default(), before, session, at };
        self.ask(Pending::List { asker, list, room }, Query::List { by, query }, out);
    }

    pub(super) fn group(&mut self, now: Ms, asker: Asker, user: UserId, mut others: Vec<UserId>, out: Out) {
        others.sort_unstable();
        others.dedup();
        others.retain(|other| *other != user);
        let failure = match others.len() {
            0 | 1 => Some(Failure::new(ErrorCode::BadField, "A group has at least three people.")),
            count if count >= GROUP_MAX => {
                Some(Failure::new(ErrorCode::TooMany, format!("A group has at most {GROUP_MAX} people.")))
            }
            _ => None,
        };
        if let Some(failure) = failure {
            return self.fail(asker.conn, Failure { request: Some("group".into()), ..failure }, out);
        }
        let id = RoomId::from_bits(self.rng.u64(..));
        let (rooms_max, at) = (self.config.rooms_per_user, now + self.wall_offset);
        let pending = Pending::Enter { asker, request: "group", after: None };
        self.ask(pending, Query::OpenGroup { id, user, others, rooms_max, at }, out);
    }
}

fn makes(act: &Act) -> Makes {
    match act {
        Act::MakeToken { .. }
        | Act::MakeIncomingHook { .. }
        | Act::MakeInvite { .. }
        | Act::MakeReset { .. } => Makes::Secret,
        Act::MakeOutgoingHook { .. } => Makes::Key,
        Act::Invite { .. }
        | Act::Remove { .. }
        | Act::Transfer { .. }
        | Act::Topic { .. }
        | Act::RenameRoom { .. }
        | Act::Archive { .. }
        | Act::DeleteRoom { .. }
        | Act::SlowMode { .. }
        | Act::Mute { .. }
        | Act::Delete { .. }
        | Act::Report { .. }
        | Act::Unread { .. }
        | Act::Quiet { .. }
        | Act::Block { .. }
        | Act::EndSession { .. }
        | Act::EndSessions
        | Act::MakeBot { .. }
        | Act::RevokeToken { .. }
        | Act::RemoveHook { .. }
        | Act::Ban { .. }
        | Act::Unban { .. }
        | Act::CloseReport { .. }
        | Act::SetRole { .. }
        | Act::RevokeLink { .. } => Makes::Nothing,
    }
}
