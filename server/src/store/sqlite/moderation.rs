//! Order: mutes, deletions, reports, bans, roles.

use shared::model::{Line, Ms, RoomId, Seq, UserId};
use shared::network::Network;
use shared::protocol::{EventKind, User};
use shared::rights::{Right, Role, Standing};

use super::acts::row_number;
use super::database::{NONE, OptionalExtension, params};
use super::facts::{Note, demand, demand_below, may_of_server, permit};
use super::identities::ENDED;
use super::read::Person;
use super::{Trouble, Writer, number, read};
use crate::store::{Outcome, StoreError};

/// Bans in force at once.
const BANS_MAX: u64 = 10_000;
/// Reports of one user that are open at once; and of all.
const REPORTS_OF_USER_MAX: u64 = 20;
const REPORTS_MAX: u64 = 10_000;

impl Writer {
    pub(super) fn mute(
        &mut self,
        by: User,
        room: RoomId,
        target: UserId,
        seconds: u32,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Mute)?;
        let target = self.target(&facts, &by, target)?.user;
        let of = [number(room.bits()), number(target.id.bits())];
        self.connection
            .prepare_cached("DELETE FROM mutes WHERE room = ?1 AND until <= ?2")?
            .execute([of[0], at])?;
        let until = at.saturating_add(Ms::from(seconds) * 1_000);
        if seconds == 0 {
            let unmuted = self
                .connection
                .prepare_cached("DELETE FROM mutes WHERE room = ?1 AND user = ?2")?
                .execute(of)?;
            if unmuted == 0 {
                return Ok(Outcome::default());
            }
        } else {
            self.connection
                .prepare_cached(
                    "INSERT INTO mutes (room, user, until) VALUES (?1, ?2, ?3)
                     ON CONFLICT (room, user) DO UPDATE SET until = excluded.until",
                )?
                .execute([of[0], of[1], until])?;
        }
        // Their bots' too.
        self.forget_members(room);
        let text = if seconds == 0 { "undone".to_owned() } else { format!("{seconds} s") };
        let note = Note { kind: "mute", by: by.id, user: Some(target.id), room: Some(room), text: &text };
        self.note(&note, at)?;
        self.tell_one(room, by, at, EventKind::Muted { target, until })
    }

    pub(super) fn delete_message(
        &mut self,
        by: User,
        room: RoomId,
        seq: Seq,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        let event = read::event_at(&self.connection, room, seq)?.ok_or(StoreError::NotFound)?;
        let is_own = event.user.id == by.id && facts.standing >= Standing::Member;
        permit(is_own || facts.may(Right::DeleteMessage))?;
        match event.kind {
            EventKind::Message { .. } => {}
            EventKind::Deleted => return Ok(Outcome::default()),
            _ => return Err(StoreError::NotFound.into()),
        }
        let of = [number(room.bits()), number(seq)];
        for sql in [
            "UPDATE events SET kind = 'deleted', body = NULL, data = NULL WHERE room = ?1 AND seq = ?2",
            "DELETE FROM mentions WHERE room = ?1 AND seq = ?2",
        ] {
            self.connection.prepare_cached(sql)?.execute(of)?;
        }
        if !is_own {
            let user = Some(event.user.id);
            let text = seq.to_string();
            self.note(&Note { kind: "delete", by: by.id, user, room: Some(room), text: &text }, at)?;
        }
        self.tell_one(room, by, at, EventKind::Deletion { of: seq })
    }

    pub(super) fn report(
        &mut self,
        by: UserId,
        room: RoomId,
        seq: Seq,
        text: &Line,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by)?;
        facts.demand(Right::Report)?;
        let event = read::event_at(&self.connection, room, seq)?.ok_or(StoreError::NotFound)?;
        if !matches!(event.kind, EventKind::Message { .. }) {
            return Err(StoreError::NotFound.into());
        }
        let (all, theirs) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE maker = ?1 AND NOT (room = ?2 AND seq = ?3))
                 FROM reports",
            )?
            .query_row([number(by.bits()), number(room.bits()), number(seq)], |row| {
                Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
            })?;
        if read::bits(theirs)? >= REPORTS_OF_USER_MAX || read::bits(all)? >= REPORTS_MAX {
            return Err(StoreError::TooMany.into());
        }
        self.connection
            .prepare_cached(
                "INSERT INTO reports (room, seq, text, maker, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (maker, room, seq) DO UPDATE SET text = excluded.text",
            )?
            .execute(params![number(room.bits()), number(seq), text.as_str(), number(by.bits()), at])?;
        Ok(Outcome::default())
    }

    pub(super) fn close_report(&mut self, by: &Person, id: &str, at: Ms) -> Result<Outcome, Trouble> {
        demand(by, Right::ReadReports)?;
        let id = row_number(id)?;
        let room: Option<i64> = self
            .connection
            .prepare_cached("DELETE FROM reports WHERE id = ?1 RETURNING room")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        let room = Some(read::room_id(room.ok_or(StoreError::NotFound)?)?);
        self.note(&Note { kind: "close_report", by: by.user.id, user: None, room, text: "" }, at)?;
        Ok(Outcome::default())
    }

    pub(super) fn ban(
        &mut self,
        by: &Person,
        target: Option<UserId>,
        addresses: Option<&str>,
        text: &Line,
        until: Ms,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        demand(by, Right::Ban)?;
        permit(target.is_some() || addresses.is_some())?;
        self.connection.prepare_cached("DELETE FROM bans WHERE until <= ?1")?.execute([at])?;
        let bans: i64 =
            self.connection.prepare_cached("SELECT count(*) FROM bans")?.query_row(NONE, |row| row.get(0))?;
        if read::bits(bans)? >= BANS_MAX {
            return Err(StoreError::TooMany.into());
        }
        let mut outcome = Outcome { rules_changed: true, ..Outcome::default() };
        let (text, maker) = (text.as_str(), number(by.user.id.bits()));
        if let Some(target) = target {
            let person = self.person(target)?;
            demand_below(by, &person)?;
            let user = number(target.bits());
            self.connection
                .prepare_cached(
                    "INSERT INTO bans (user, text, maker, at, until) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (user) DO UPDATE SET
                         text = excluded.text, maker = excluded.maker, at = excluded.at, until = excluded.until",
                )?
                .execute(params![user, text, maker, at, until])?;
            self.note(&Note { kind: "ban", by: by.user.id, user: Some(target), room: None, text }, at)?;
            // Sessions, the tokens of bots and of webhooks, their own and of those they made.
            outcome.ended = read::tokens_where(
                &self.connection,
                "SELECT user, token FROM sessions WHERE user = ?1 AND until > 0
                 UNION ALL SELECT t.user, t.token FROM tokens t JOIN users u ON u.id = t.user
                 WHERE u.id = ?1 OR u.bot_owner = ?1",
                user,
            )?;
            for sql in [
                "UPDATE sessions SET until = ?2 WHERE user = ?1",
                "UPDATE tokens SET until = ?2 WHERE user IN (SELECT id FROM users WHERE id = ?1 OR bot_owner = ?1)",
            ] {
                self.connection.prepare_cached(sql)?.execute([user, ENDED])?;
            }
            for sql in ["DELETE FROM hooks WHERE maker = ?1", "DELETE FROM links WHERE maker = ?1"] {
                self.connection.prepare_cached(sql)?.execute([user])?;
            }
            self.forget_user(target);
        }
        if let Some(addresses) = addresses {
            let network = Network::parse(addresses).ok_or(StoreError::Forbidden)?.to_string();
            self.connection
                .prepare_cached(
                    "INSERT INTO bans (addresses, text, maker, at, until) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (addresses) DO UPDATE SET
                         text = excluded.text, maker = excluded.maker, at = excluded.at, until = excluded.until",
                )?
                .execute(params![network, text, maker, at, until])?;
            let text = format!("{network} {text}");
            let text = text.trim_end();
            self.note(&Note { kind: "ban", by: by.user.id, user: None, room: None, text }, at)?;
        }
        Ok(outcome)
    }

    pub(super) fn unban(&mut self, by: &Person, id: &str, at: Ms) -> Result<Outcome, Trouble> {
        demand(by, Right::Ban)?;
        let id = row_number(id)?;
        let ban: Option<(Option<i64>, Option<String>)> = self
            .connection
            .prepare_cached("DELETE FROM bans WHERE id = ?1 AND until > ?2 RETURNING user, addresses")?
            .query_row([id, at], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (user, addresses) = ban.ok_or(StoreError::NotFound)?;
        let user = user.map(read::user_id).transpose()?;
        let text = addresses.unwrap_or_default();
        self.note(&Note { kind: "unban", by: by.user.id, user, room: None, text: &text }, at)?;
        Ok(Outcome { rules_changed: true, ..Outcome::default() })
    }

    pub(super) fn set_role(
        &mut self,
        by: &Person,
        target: UserId,
        role: Role,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        demand(by, Right::SetRole)?;
        let person = self.person(target)?;
        if person.role == role {
            return Ok(Outcome::default());
        }
        // A guest becomes a member by a password, and a program is one for ever.
        permit(person.role > Role::Guest && role > Role::Guest && person.program.is_none())?;
        let is_last = person.role == Role::Owner && read::owners_count(&self.connection)? <= 1;
        permit(!is_last)?;
        self.set_role_of(target, role)?;
        for (right, kind) in [(Right::InviteToServer, "invite"), (Right::ResetPassword, "reset")] {
            if !may_of_server(role, right) {
                self.connection
                    .prepare_cached("DELETE FROM links WHERE maker = ?1 AND kind = ?2")?
                    .execute(params![number(target.bits()), kind])?;
            }
        }
        let text = role.name();
        self.note(&Note { kind: "set_role", by: by.user.id, user: Some(target), room: None, text }, at)?;
        Ok(Outcome { users: vec![target], ..Outcome::default() })
    }
}
