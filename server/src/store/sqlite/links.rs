//! Links by which people sign up or set a new password.

use shared::model::{Line, Ms, UserId};
use shared::rights::Right;

use super::acts::row_number;
use super::database::{NONE, OptionalExtension, params};
use super::facts::{Note, demand, permit};
use super::read::Person;
use super::{Trouble, Writer, number, read};
use crate::store::{Made, Outcome, StoreError};

/// Links that work at once.
const LINKS_MAX: u64 = 1_000;
/// How long a link to reset a password works, in milliseconds.
const RESET_MS: Ms = 24 * 60 * 60 * 1_000;

impl Writer {
    pub(super) fn make_invite(
        &mut self,
        by: &Person,
        text: &Line,
        uses: u32,
        until: Ms,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        demand(by, Right::InviteToServer)?;
        self.check_links(at)?;
        self.connection
            .prepare_cached(
                "INSERT INTO links (secret, kind, text, maker, uses, at, until)
                 VALUES (?1, 'invite', ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                made.secret.as_slice(),
                text.as_str(),
                number(by.user.id.bits()),
                (uses > 0).then_some(uses),
                at,
                until
            ])?;
        let text = text.as_str();
        self.note(&Note { kind: "make_invite", by: by.user.id, user: None, room: None, text }, at)?;
        Ok(Outcome::default())
    }

    pub(super) fn make_reset(
        &mut self,
        by: &Person,
        target: UserId,
        made: &Made,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        demand(by, Right::ResetPassword)?;
        permit(self.person(target)?.has_password)?;
        self.check_links(at)?;
        // There is one at a time.
        self.connection
            .prepare_cached("DELETE FROM links WHERE kind = 'reset' AND user = ?1")?
            .execute([number(target.bits())])?;
        self.connection
            .prepare_cached(
                "INSERT INTO links (secret, kind, user, maker, uses, at, until)
                 VALUES (?1, 'reset', ?2, ?3, 1, ?4, ?5)",
            )?
            .execute(params![
                made.secret.as_slice(),
                number(target.bits()),
                number(by.user.id.bits()),
                at,
                at.saturating_add(RESET_MS)
            ])?;
        let user = Some(target);
        self.note(&Note { kind: "make_reset", by: by.user.id, user, room: None, text: "" }, at)?;
        Ok(Outcome::default())
    }

    pub(super) fn revoke_link(&mut self, by: &Person, id: &str, at: Ms) -> Result<Outcome, Trouble> {
        demand(by, Right::InviteToServer)?;
        let id = row_number(id)?;
        let found: Option<(String, Option<i64>, String)> = self
            .connection
            .prepare_cached("SELECT kind, user, text FROM links WHERE id = ?1 AND kind <> 'owner'")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let (kind, user, text) = found.ok_or(StoreError::NotFound)?;
        if kind == "reset" {
            demand(by, Right::ResetPassword)?;
        }
        self.connection.prepare_cached("DELETE FROM links WHERE id = ?1")?.execute([id])?;
        let user = user.map(read::user_id).transpose()?;
        self.note(&Note { kind: "revoke_link", by: by.user.id, user, room: None, text: &text }, at)?;
        Ok(Outcome::default())
    }

    /// Takes away the links that have run out, and looks whether there is place for one more.
    fn check_links(&self, at: Ms) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("DELETE FROM links WHERE until <= ?1 AND kind <> 'owner'")?
            .execute([at])?;
        let links: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM links")?
            .query_row(NONE, |row| row.get(0))?;
        if read::bits(links)? >= LINKS_MAX { Err(StoreError::TooMany.into()) } else { Ok(()) }
    }
}
