//! Bots and their tokens, and webhooks, the incoming ones of which are tokens of a bot of their own.

use shared::acts::{BOTS_MAX, HOOKS_MAX, Scope};
use shared::markdown::URL_BYTES_MAX;
use shared::model::{Claim, Line, Ms, NAME_CHARS_MAX, RoomId, Seq, UserId, UserName};
use shared::protocol::{EventKind, User};
use shared::rights::{Right, Role};

use super::accounts::NewUser;
use super::acts::row_number;
use super::database::{Connection, NONE, OptionalExtension, params};
use super::facts::{Note, demand, permit};
use super::identities::scope_names;
use super::read::{Person, Program};
use super::{Trouble, Writer, number, read};
use crate::store::{Ended, Made, Outcome, OutgoingHook, StoreError, TokenHash};

/// The name of an incoming webhook that has none, or none that users can have.
const HOOK_NAME: &str = "Webhook";

/// A row id that tells incoming webhooks, which are tokens, from outgoing ones.
pub(super) fn hook_row(id: i64, is_incoming: bool) -> i64 {
    id * 2 + i64::from(is_incoming)
}

/// The name of the bot that speaks for an incoming webhook.
fn hook_names(text: &Line) -> Vec<Claim<UserName>> {
    let short: String = text.as_str().chars().take(NAME_CHARS_MAX).collect();
    UserName::claim(&short).or_else(|_| UserName::claim(HOOK_NAME)).into_iter().collect()
}

/// All webhooks that messages are posted to.
pub(super) fn outgoing_hooks(connection: &Connection) -> Result<Vec<OutgoingHook>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT h.id, h.room, h.url, h.secret, h.done, h.maker FROM hooks h JOIN rooms r ON r.id = h.room
             WHERE r.kind = 'public' OR EXISTS (SELECT 1 FROM members WHERE user = h.maker AND room = h.room)
             ORDER BY h.id",
    )?;
    let mut rows = statement.query(NONE)?;
    let mut hooks = Vec::new();
    while let Some(row) = rows.next()? {
        let room = read::room_id(row.get(1)?)?;
        hooks.push(OutgoingHook {
            id: read::bits(row.get(0)?)?,
            room,
            url: read::text(row, 2)?.to_owned(),
            secret: read::token(row, 3)?,
            done: read::bits(row.get(4)?)?,
            own: own_programs(connection, row.get(5)?, room)?,
        });
    }
    Ok(hooks)
}

/// The programs of a user, and those that speak through webhooks of a room.
fn own_programs(connection: &Connection, maker: i64, room: RoomId) -> Result<Vec<UserId>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM users WHERE bot_owner = ?1 UNION SELECT user FROM tokens WHERE room = ?2 ORDER BY 1",
    )?;
    let mut rows = statement.query([maker, number(room.bits())])?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(UserId::from_bits(read::bits(row.get(0)?)?));
    }
    Ok(users)
}

/// A token to be made.
struct NewToken<'a> {
    token: &'a TokenHash,
    user: UserId,
    room: Option<RoomId>,
    text: &'a Line,
    scopes: &'a [Scope],
    by: UserId,
    at: Ms,
    until: Ms,
}

impl Writer {
    fn count(&self, sql: &str, of: [i64; 2]) -> Result<usize, Trouble> {
        let count: i64 = self.connection.prepare_cached(sql)?.query_row(of, |row| row.get(0))?;
        Ok(read::bits(count)? as usize)
    }

    pub(super) fn make_bot(
        &mut self,
        by: &Person,
        name: &str,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        demand(by, Right::MakeBot)?;
        permit(by.program.is_none())?;
        let by = by.user.id;
        let sql = "SELECT count(*) FROM users WHERE bot_owner = ?1 AND bot = 'bot' AND id <> ?2";
        if self.count(sql, [number(by.bits()), -1])? >= BOTS_MAX {
            return Err(StoreError::TooMany.into());
        }
        let claim = UserName::claim(name).map_err(|_| StoreError::Forbidden)?;
        let id = UserId::from_bits(made.id);
        let program = Some(Program::Bot(by));
        let new = NewUser { id, claim: &claim, role: Role::Member, program, owner: Some(by), at };
        self.make_user(&new)?;
        let text = claim.name.as_str();
        self.note(&Note { kind: "make_bot", by, user: Some(id), room: None, text }, at)?;
        // Outgoing webhooks must not hear it.
        let user = Some(User { id, name: claim.name });
        Ok(Outcome { user, rules_changed: true, ..Outcome::default() })
    }

    #[expect(clippy::too_many_arguments, reason = "all of the act's fields")]
    pub(super) fn make_token(
        &mut self,
        by: UserId,
        bot: UserId,
        text: &Line,
        scopes: &[Scope],
        until: Ms,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        if self.person(bot)?.program != Some(Program::Bot(by)) {
            return Err(StoreError::NotFound.into());
        }
        permit(!read::is_banned(&self.connection, bot, at)?)?;
        self.connection
            .prepare_cached("DELETE FROM tokens WHERE user = ?1 AND until <= ?2")?
            .execute([number(bot.bits()), at])?;
        let sql = "SELECT count(*) FROM tokens WHERE user = ?1 AND until > ?2";
        if self.count(sql, [number(bot.bits()), at])? >= BOTS_MAX {
            return Err(StoreError::TooMany.into());
        }
        self.keep_token(&NewToken {
            token: &made.secret,
            user: bot,
            room: None,
            text,
            scopes,
            by,
            at,
            until,
        })?;
        let text = text.as_str();
        self.note(&Note { kind: "make_token", by, user: Some(bot), room: None, text }, at)?;
        Ok(Outcome::default())
    }

    fn keep_token(&self, token: &NewToken<'_>) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT INTO tokens (token, user, room, text, scopes, maker, at, used, until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
            )?
            .execute(params![
                token.token.as_slice(),
                number(token.user.bits()),
                token.room.map(|room| number(room.bits())),
                token.text.as_str(),
                scope_names(token.scopes),
                number(token.by.bits()),
                token.at,
                token.until
            ])?;
        Ok(())
    }

    pub(super) fn revoke_token(&mut self, by: UserId, id: &str, at: Ms) -> Result<Outcome, Trouble> {
        let ended = self.take_token(
            "DELETE FROM tokens WHERE id = ?1 AND room IS NULL
                 AND user IN (SELECT id FROM users WHERE bot_owner = ?2)
             RETURNING user, token",
            [row_number(id)?, number(by.bits())],
        )?;
        let ended = ended.ok_or(StoreError::NotFound)?;
        let user = Some(ended.user);
        self.note(&Note { kind: "revoke_token", by, user, room: None, text: "" }, at)?;
        Ok(Outcome { ended: vec![ended], ..Outcome::default() })
    }

    /// Deletes a token and says which it was.
    fn take_token(&self, sql: &str, of: [i64; 2]) -> Result<Option<Ended>, Trouble> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(of)?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let ended = Ended { user: read::user_id(row.get(0)?)?, tokens: vec![read::token(row, 1)?] };
        // The statement is done when it has no more rows.
        while rows.next()?.is_some() {}
        Ok(Some(ended))
    }

    /// Whether a user may make a webhook of a room, and there is place for one.
    fn check_hooks(&self, by: UserId, room: RoomId, at: Ms) -> Result<(), Trouble> {
        self.facts(room, by)?.demand(Right::MakeHook)?;
        let sql = "SELECT (SELECT count(*) FROM hooks WHERE room = ?1)
                 + (SELECT count(*) FROM tokens WHERE room = ?1 AND until > ?2)";
        if self.count(sql, [number(room.bits()), at])? >= HOOKS_MAX {
            return Err(StoreError::TooMany.into());
        }
        Ok(())
    }

    pub(super) fn make_incoming_hook(
        &mut self,
        by: User,
        room: RoomId,
        text: &Line,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        self.check_hooks(by.id, room, at)?;
        let id = UserId::from_bits(made.id);
        let claim = self.free_name(id, &hook_names(text))?.ok_or(StoreError::NameTaken)?;
        let (role, program, owner) = (Role::Member, Some(Program::Hook), Some(by.id));
        self.make_user(&NewUser { id, claim: &claim, role, program, owner, at })?;
        self.keep_token(&NewToken {
            token: &made.secret,
            user: id,
            room: Some(room),
            text,
            scopes: &[Scope::Send],
            by: by.id,
            at,
            until: Ms::MAX,
        })?;
        let text = text.as_str();
        let note = Note { kind: "make_incoming_hook", by: by.id, user: Some(id), room: Some(room), text };
        self.note(&note, at)?;
        let user = User { id, name: claim.name };
        // Outgoing webhooks must not hear it.
        let mut outcome = Outcome { user: Some(user.clone()), rules_changed: true, ..Outcome::default() };
        if room != shared::model::LOBBY {
            outcome.events.push(self.put_in(by, room, user, at)?);
            outcome.memberships.push((id, room, true));
        }
        Ok(outcome)
    }

    pub(super) fn make_outgoing_hook(
        &mut self,
        by: UserId,
        room: RoomId,
        text: &Line,
        url: &str,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        self.check_hooks(by, room, at)?;
        let is_address = url.starts_with("https://") || url.starts_with("http://");
        let is_clean = !url.chars().any(|c| c.is_whitespace() || c.is_control());
        permit(is_address && is_clean && url.len() <= URL_BYTES_MAX)?;
        let head = self.head(room)?.unwrap_or(0);
        self.connection
            .prepare_cached(
                "INSERT INTO hooks (room, text, url, secret, maker, at, done)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                number(room.bits()),
                text.as_str(),
                url,
                made.secret.as_slice(),
                number(by.bits()),
                at,
                number(head)
            ])?;
        let text = text.as_str();
        self.note(&Note { kind: "make_outgoing_hook", by, user: None, room: Some(room), text }, at)?;
        Ok(Outcome { rules_changed: true, ..Outcome::default() })
    }

    pub(super) fn remove_hook(&mut self, by: User, id: &str, at: Ms) -> Result<Outcome, Trouble> {
        let row = row_number(id)?;
        let (table, id) = (if row % 2 == 1 { "tokens" } else { "hooks" }, row / 2);
        let found: Option<(Option<i64>, String)> = self
            .connection
            .prepare_cached(&format!("SELECT room, text FROM {table} WHERE id = ?1"))?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((Some(room), text)) = found else { return Err(StoreError::NotFound.into()) };
        let room = read::room_id(room)?;
        self.facts(room, by.id)?.demand(Right::MakeHook)?;
        let mut outcome = Outcome::default();
        let mut user = None;
        if table == "hooks" {
            self.connection.prepare_cached("DELETE FROM hooks WHERE id = ?1")?.execute([id])?;
            outcome.rules_changed = true;
        } else {
            let sql = "DELETE FROM tokens WHERE id = ?1 AND room = ?2 RETURNING user, token";
            let ended = self.take_token(sql, [id, number(room.bits())])?.ok_or(StoreError::NotFound)?;
            let target = read::user(&self.connection, ended.user)?;
            user = Some(target.id);
            outcome.ended.push(ended);
            if room != shared::model::LOBBY && self.is_member(room, target.id)? {
                self.end_membership(room, target.id)?;
                outcome.memberships.push((target.id, room, false));
                outcome.events.push(self.tell(room, by.clone(), at, EventKind::Removed { target })?);
            }
        }
        let room = Some(room);
        self.note(&Note { kind: "remove_hook", by: by.id, user, room, text: &text }, at)?;
        Ok(outcome)
    }

    pub(super) fn hook_done(&self, id: u64, done: Seq, last: &Line) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "UPDATE hooks SET done = CASE WHEN done > ?2 THEN done ELSE ?2 END, last = ?3 WHERE id = ?1",
            )?
            .execute(params![number(id), number(done), last.as_str()])?;
        Ok(())
    }
}
