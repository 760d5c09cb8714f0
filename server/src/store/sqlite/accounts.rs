//! Users, their sessions and passwords: how they come to be and how they end.

use shared::model::{Claim, LOBBY, Ms, UserId, UserName};
use shared::protocol::{Event, EventKind, User};
use shared::rights::Role;

use super::database::{NONE, Value, params};
use super::facts::{Note, permit};
use super::identities::{self, ENDED, end, identity, session_user, sessions_but};
use super::read::Program;
use super::{Trouble, Writer, limit, number, read};
use crate::store::{Applicant, Ended, Identity, Link, NewSession, Newcomer, StoreError, TokenHash, numbered};

/// Sessions of one user; a new one ends the one that was not used for longest.
const SESSIONS_MAX: usize = 100;

/// How long a session that is over is kept, since its last use: as long as browsers keep cookies.
const TOKEN_KEPT_MS: Ms = 400 * 86_400_000;

/// Says of several tokens of a table, which come as one row of bytes, when they were used.
macro_rules! touch {
    ($table:literal) => {
        concat!(
            "WITH asked AS (
                 SELECT substr(CAST(?1 AS bytea), CAST(place AS integer) * 32 - 31, 32) AS token, max(at) AS at
                 FROM unnest(CAST(?2 AS bigint[])) WITH ORDINALITY AS times (at, place) GROUP BY 1
             ), free AS (
                 SELECT t.token, asked.at FROM asked JOIN ",
            $table,
            " t ON t.token = asked.token AND t.used < asked.at FOR NO KEY UPDATE OF t SKIP LOCKED
             )
             UPDATE ",
            $table,
            " t SET used = free.at FROM free WHERE t.token = free.token"
        )
    };
}

/// A user to be made.
pub(super) struct NewUser<'a> {
    pub id: UserId,
    pub claim: &'a Claim<UserName>,
    pub role: Role,
    pub program: Option<Program>,
    /// Who made a program.
    pub owner: Option<UserId>,
    pub at: Ms,
}

impl Writer {
    pub(super) fn identify(
        &mut self,
        session: &NewSession,
        newcomer: &Newcomer,
    ) -> Result<Identity, Trouble> {
        // Another call may have been faster.
        if let Some(identity) = identity(&self.connection, &session.token, session.at)? {
            return Ok(identity);
        }
        let claim = self.free_name(newcomer.id, &newcomer.names)?.ok_or(StoreError::NameTaken)?;
        self.atomically(|writer| {
            writer.make_user(&NewUser {
                id: newcomer.id,
                claim: &claim,
                role: Role::Guest,
                program: None,
                owner: None,
                at: session.at,
            })?;
            writer.make_session(newcomer.id, session)?;
            writer.identity_of(newcomer.id, session, true)
        })
    }

    /// Makes a user, who has read what was said in the lobby before.
    pub(super) fn make_user(&mut self, new: &NewUser<'_>) -> Result<(), Trouble> {
        if read::is_member(&self.connection, LOBBY, new.id)? {
            return Err(StoreError::Unavailable("a user has that id".into()).into());
        }
        if read::name_owner(&self.connection, &new.claim.skeleton)?.is_some() {
            return Err(StoreError::NameTaken.into());
        }
        let bot = new.program.map(|program| match program {
            Program::Bot(_) => "bot",
            Program::Hook => "hook",
        });
        self.connection
            .prepare_cached(
                "INSERT INTO users (id, name, skeleton, role, bot, bot_owner, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                number(new.id.bits()),
                new.claim.name.as_str(),
                new.claim.skeleton,
                new.role.name(),
                bot,
                new.owner.map(|owner| number(owner.bits())),
                new.at
            ])?;
        self.count_members(LOBBY, 1)?;
        let head = self.head(LOBBY)?.unwrap_or(0);
        self.set_cursor(LOBBY, new.id, head)
    }

    fn make_session(&self, user: UserId, session: &NewSession) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT INTO sessions (token, user, at, device, used, until) VALUES (?1, ?2, ?3, ?4, ?3, ?5)",
            )?
            .execute(params![
                session.token.as_slice(),
                number(user.bits()),
                session.at,
                session.device.as_str(),
                session.until
            ])?;
        Ok(())
    }

    fn identity_of(&self, user: UserId, session: &NewSession, fresh: bool) -> Result<Identity, Trouble> {
        let person = self.person(user)?;
        Ok(Identity {
            user: person.user,
            role: person.role,
            fresh,
            until: end(session.until),
            scopes: None,
            only_room: None,
        })
    }

    pub(super) fn free_name(
        &self,
        id: UserId,
        names: &[Claim<UserName>],
    ) -> Result<Option<Claim<UserName>>, Trouble> {
        for claim in names.iter().cloned().chain(numbered(names, id)) {
            if read::name_owner(&self.connection, &claim.skeleton)?.is_none() {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    pub(super) fn touch(&self, sessions: Vec<(TokenHash, Ms)>) -> Result<(), Trouble> {
        if self.connection.is_server() {
            return self.touch_all(sessions);
        }
        for (token, at) in sessions {
            // No token is a session's and a bot's.
            for sql in [
                "UPDATE sessions SET used = ?2 WHERE token = ?1 AND used < ?2",
                "UPDATE tokens SET used = ?2 WHERE token = ?1 AND used < ?2",
            ] {
                if self.connection.prepare_cached(sql)?.execute(params![token.as_slice(), at])? > 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The same on a server, all at once. What another node touches at this moment is not waited for: it was used
    /// at this moment, and whoever waits for nobody keeps nobody waiting.
    fn touch_all(&self, sessions: Vec<(TokenHash, Ms)>) -> Result<(), Trouble> {
        let (tokens, times): (Vec<TokenHash>, Vec<Ms>) = sessions.into_iter().unzip();
        for sql in [touch!("sessions"), touch!("tokens")] {
            self.connection
                .prepare_cached(sql)?
                .execute([Value::Bytes(tokens.as_flattened()), Value::Numbers(&times)])?;
        }
        Ok(())
    }

    pub(super) fn sign_up(
        &mut self,
        who: Applicant,
        password: &str,
        link: Option<TokenHash>,
        session: &NewSession,
    ) -> Result<(Identity, Option<Ended>), Trouble> {
        let at = session.at;
        self.atomically(|writer| {
            let (user, ended) = match who {
                Applicant::Guest(token) => {
                    let guest = identity(&writer.connection, &token, at)?.ok_or(StoreError::NotFound)?.user;
                    let person = writer.person(guest.id)?;
                    permit(person.role == Role::Guest && !person.has_password && person.program.is_none())?;
                    writer.end_session(&token)?;
                    (guest.id, Some(Ended { user: guest.id, tokens: vec![token] }))
                }
                Applicant::New { id, name } => {
                    let (program, owner) = (None, None);
                    writer.make_user(&NewUser {
                        id,
                        claim: &name,
                        role: Role::Member,
                        program,
                        owner,
                        at,
                    })?;
                    (id, None)
                }
            };
            let mut role = Role::Member;
            if let Some(link) = link {
                let (row, link, text) = identities::link(&writer.connection, &link, at)?;
                match link {
                    Link::Invite => writer.take_link(row)?,
                    Link::Owner => {
                        writer.take_link(row)?;
                        role = Role::Owner;
                    }
                    Link::Reset(_) => return Err(StoreError::NotFound.into()),
                }
                let kind = if role == Role::Owner { "take_ownership" } else { "sign_up" };
                writer.note(&Note { kind, by: user, user: Some(user), room: None, text: &text }, at)?;
            }
            writer
                .connection
                .prepare_cached("UPDATE users SET role = ?2, password = ?3 WHERE id = ?1")?
                .execute(params![number(user.bits()), role.name(), password])?;
            writer.make_session(user, session)?;
            let identity = writer.identity_of(user, session, ended.is_none())?;
            Ok((identity, ended))
        })
    }

    /// Takes one use of a link.
    fn take_link(&self, row: i64) -> Result<(), Trouble> {
        self.connection.prepare_cached("UPDATE links SET uses = uses - 1 WHERE id = ?1")?.execute([row])?;
        self.connection.prepare_cached("DELETE FROM links WHERE id = ?1 AND uses = 0")?.execute([row])?;
        Ok(())
    }

    pub(super) fn end_session(&self, token: &TokenHash) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE sessions SET until = ?2 WHERE token = ?1")?
            .execute(params![token.as_slice(), ENDED])?;
        Ok(())
    }

    /// Ends a user's sessions, except one.
    pub(super) fn end_sessions(&self, user: UserId, but: Option<&TokenHash>) -> Result<Ended, Trouble> {
        let tokens = sessions_but(&self.connection, user, but)?;
        tokens.iter().try_for_each(|token| self.end_session(token))?;
        Ok(Ended { user, tokens })
    }

    pub(super) fn sign_in(
        &mut self,
        user: UserId,
        session: &NewSession,
        replaces: Option<TokenHash>,
    ) -> Result<(Identity, Option<Ended>), Trouble> {
        if !self.person(user)?.has_password {
            return Err(StoreError::NotFound.into());
        }
        self.check_ban(user, session.at)?;
        self.atomically(|writer| {
            let ended = match replaces {
                Some(token) => match identity(&writer.connection, &token, session.at) {
                    Ok(Some(Identity { user, scopes: None, .. })) => {
                        writer.end_session(&token)?;
                        Some(Ended { user: user.id, tokens: vec![token] })
                    }
                    Ok(_) | Err(Trouble::Refused(_)) => None,
                    Err(medium) => return Err(medium),
                },
                None => None,
            };
            writer
                .connection
                .prepare_cached(
                    "DELETE FROM sessions WHERE user = ?1 AND until <= ?2 AND at <= ?3 AND used <= ?3",
                )?
                .execute([number(user.bits()), session.at, session.at.saturating_sub(TOKEN_KEPT_MS)])?;
            writer.make_session(user, session)?;
            let mut ended = ended;
            let crowded_out = writer.end_oldest_sessions(user)?;
            match &mut ended {
                None if !crowded_out.is_empty() => ended = Some(Ended { user, tokens: crowded_out }),
                Some(ended) if ended.user == user => ended.tokens.extend(crowded_out),
                _ => {}
            }
            Ok((writer.identity_of(user, session, false)?, ended))
        })
    }

    /// Ends those sessions of a user that are too many.
    fn end_oldest_sessions(&self, user: UserId) -> Result<Vec<TokenHash>, Trouble> {
        let mut statement = self.connection.prepare_cached(
            "SELECT token FROM sessions WHERE user = ?1 AND until > ?3
             ORDER BY CASE WHEN used > at THEN used ELSE at END DESC, token LIMIT 1000000 OFFSET ?2",
        )?;
        let mut rows = statement.query([number(user.bits()), limit(SESSIONS_MAX), ENDED])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            tokens.push(read::token(row, 0)?);
        }
        tokens.iter().try_for_each(|token| self.end_session(token))?;
        Ok(tokens)
    }

    fn check_ban(&self, user: UserId, at: Ms) -> Result<(), Trouble> {
        if read::is_banned(&self.connection, user, at)? { Err(StoreError::Banned.into()) } else { Ok(()) }
    }

    pub(super) fn sign_out(&mut self, session: &TokenHash, everywhere: bool) -> Result<Ended, Trouble> {
        let user = session_user(&self.connection, session)?;
        self.atomically(|writer| {
            if everywhere {
                return writer.end_sessions(user, None);
            }
            writer.end_session(session)?;
            Ok(Ended { user, tokens: vec![*session] })
        })
    }

    pub(super) fn set_password(&mut self, session: &TokenHash, password: &str) -> Result<Ended, Trouble> {
        let user = session_user(&self.connection, session)?;
        if !self.person(user)?.has_password {
            return Err(StoreError::NotFound.into());
        }
        self.atomically(|writer| {
            writer.keep_password(user, password)?;
            writer.end_sessions(user, Some(session))
        })
    }

    fn keep_password(&self, user: UserId, password: &str) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
            .execute(params![number(user.bits()), password])?;
        // What could still set another one.
        self.connection
            .prepare_cached("DELETE FROM links WHERE kind = 'reset' AND user = ?1")?
            .execute([number(user.bits())])?;
        Ok(())
    }

    pub(super) fn reset_password(
        &mut self,
        link: &TokenHash,
        password: &str,
        session: &NewSession,
    ) -> Result<(Identity, Ended), Trouble> {
        let (row, Link::Reset(user), _) = identities::link(&self.connection, link, session.at)? else {
            return Err(StoreError::NotFound.into());
        };
        self.check_ban(user.id, session.at)?;
        self.atomically(|writer| {
            writer.take_link(row)?;
            writer.keep_password(user.id, password)?;
            let ended = writer.end_sessions(user.id, None)?;
            writer.make_session(user.id, session)?;
            let note =
                Note { kind: "reset_password", by: user.id, user: Some(user.id), room: None, text: "" };
            writer.note(&note, session.at)?;
            Ok((writer.identity_of(user.id, session, false)?, ended))
        })
    }

    pub(super) fn take_ownership(
        &mut self,
        link: &TokenHash,
        session: &TokenHash,
        at: Ms,
    ) -> Result<Identity, Trouble> {
        let (row, Link::Owner, _) = identities::link(&self.connection, link, at)? else {
            return Err(StoreError::NotFound.into());
        };
        let identity = identity(&self.connection, session, at)?.ok_or(StoreError::NotFound)?;
        let user = identity.user.id;
        permit(self.person(user)?.has_password)?;
        self.atomically(|writer| {
            writer.take_link(row)?;
            writer.set_role_of(user, Role::Owner)?;
            let note = Note { kind: "take_ownership", by: user, user: Some(user), room: None, text: "" };
            writer.note(&note, at)?;
            Ok(Identity { role: Role::Owner, ..identity })
        })
    }

    pub(super) fn set_role_of(&self, user: UserId, role: Role) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE users SET role = ?2 WHERE id = ?1")?
            .execute(params![number(user.bits()), role.name()])?;
        Ok(())
    }

    pub(super) fn offer_ownership(
        &mut self,
        secret: &TokenHash,
        at: Ms,
        until: Ms,
        always: bool,
    ) -> Result<bool, Trouble> {
        let is_open = always || read::owners_count(&self.connection)? == 0;
        self.atomically(|writer| {
            writer.connection.prepare_cached("DELETE FROM links WHERE kind = 'owner'")?.execute(NONE)?;
            if is_open {
                writer
                    .connection
                    .prepare_cached(
                        "INSERT INTO links (secret, kind, uses, at, until) VALUES (?1, 'owner', 1, ?2, ?3)",
                    )?
                    .execute(params![secret.as_slice(), at, until])?;
            }
            Ok(is_open)
        })
    }

    pub(super) fn rename(
        &mut self,
        id: UserId,
        claim: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Result<(User, Vec<Event>), Trouble> {
        let old = read::user(&self.connection, id)?;
        if read::name_owner(&self.connection, &claim.skeleton)?.is_some_and(|owner| owner != id) {
            return Err(StoreError::NameTaken.into());
        }
        if old.name == claim.name {
            return Ok((old, Vec::new()));
        }
        self.atomically(|writer| {
            writer
                .connection
                .prepare_cached("UPDATE users SET name = ?2, skeleton = ?3 WHERE id = ?1")?
                .execute(params![number(id.bits()), claim.name.as_str(), claim.skeleton])?;
            let mut events = Vec::new();
            let rooms = read::room_ids_of(&writer.connection, id)?;
            writer.look_at(&rooms)?;
            for room in rooms {
                if tell_lobby || room != LOBBY {
                    let kind = EventKind::Renamed { name: claim.name.clone() };
                    events.push(writer.tell(room, old.clone(), at, kind)?);
                }
            }
            Ok((User { id, name: claim.name }, events))
        })
    }
}
