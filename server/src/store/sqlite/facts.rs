//! What stands in the store about who acts, where, and on whom: what `shared::rights` is asked with.
//!
//! It decides nothing itself.

use shared::model::{LOBBY, Line, Ms, RoomId, UserId};
use shared::protocol::{RoomKind, User};
use shared::rights::{Right, Role, Standing, may, outranks};

use super::database::{Connection, params};
use super::read::{self, Person};
use super::{Trouble, Writer, limit, number};
use crate::store::StoreError;

/// Rows of the audit log that are kept.
pub(super) const AUDIT_MAX: usize = 10_000;

/// A room, and what a user is in it.
pub(super) struct Facts {
    pub room: RoomId,
    pub kind: RoomKind,
    pub role: Role,
    pub standing: Standing,
    pub owner: Option<UserId>,
    pub topic: Line,
    pub is_archived: bool,
    pub slow_seconds: u32,
}

impl Facts {
    pub(super) fn may(&self, right: Right) -> bool {
        may(right, self.role, self.standing, self.kind)
    }

    /// `Forbidden` without the right.
    pub(super) fn demand(&self, right: Right) -> Result<(), Trouble> {
        permit(self.may(right))
    }

    /// What cannot be done to the lobby, whoever one is.
    pub(super) fn spare_lobby(&self) -> Result<(), Trouble> {
        permit(self.room != LOBBY)
    }

    /// `NotFound` for whoever is not in the room, public or not.
    pub(super) fn demand_member(&self) -> Result<(), Trouble> {
        if self.standing >= Standing::Member { Ok(()) } else { Err(StoreError::NotFound.into()) }
    }
}

/// `Forbidden` unless it is so.
pub(super) fn permit(is_so: bool) -> Result<(), Trouble> {
    if is_so { Ok(()) } else { Err(StoreError::Forbidden.into()) }
}

/// `Forbidden` without a right that is about no room.
pub(super) fn demand(person: &Person, right: Right) -> Result<(), Trouble> {
    permit(may_of_server(person.role, right))
}

/// Whether a role has a right that is about no room.
pub(super) fn may_of_server(role: Role, right: Right) -> bool {
    may(right, role, Standing::Member, RoomKind::Public)
}

/// `Forbidden` unless somebody else stands below.
pub(super) fn demand_below(actor: &Person, target: &Person) -> Result<(), Trouble> {
    permit(actor.user.id != target.user.id && outranks(actor.role, target.role))
}

/// A room as a user meets it. `NotFound` if they are not to know of it.
pub(super) fn facts(connection: &Connection, room: RoomId, user: UserId) -> Result<Facts, Trouble> {
    let person = read::person(connection, user)?;
    let mut statement =
        connection.prepare_cached("SELECT kind, owner, topic, archived, slow FROM rooms WHERE id = ?1")?;
    let mut rows = statement.query([number(room.bits())])?;
    let row = rows.next()?.ok_or(StoreError::NotFound)?;
    let kind = read::parse_room_kind(read::text(row, 0)?)?;
    let owner = row.get::<Option<i64>>(1)?.map(read::user_id).transpose()?;
    let standing = if !read::is_member(connection, room, user)? {
        Standing::Outsider
    } else if owner == Some(user) {
        Standing::Owner
    } else {
        Standing::Member
    };
    if standing == Standing::Outsider && kind != RoomKind::Public {
        return Err(StoreError::NotFound.into());
    }
    Ok(Facts {
        room,
        kind,
        role: person.role,
        standing,
        owner,
        topic: Line::new(read::text(row, 2)?),
        is_archived: row.get(3)?,
        slow_seconds: read::small(row.get(4)?)?,
    })
}

/// A row of the audit log.
pub(super) struct Note<'a> {
    pub kind: &'a str,
    pub by: UserId,
    pub user: Option<UserId>,
    pub room: Option<RoomId>,
    pub text: &'a str,
}

impl Writer {
    pub(super) fn facts(&self, room: RoomId, user: UserId) -> Result<Facts, Trouble> {
        facts(&self.connection, room, user)
    }

    pub(super) fn person(&self, user: UserId) -> Result<Person, Trouble> {
        read::person(&self.connection, user)
    }

    /// Somebody to whom something is done in a room: a member of it, who stands below.
    pub(super) fn target(&self, facts: &Facts, actor: &User, target: UserId) -> Result<Person, Trouble> {
        let person = self.person(target)?;
        if !read::is_member(&self.connection, facts.room, target)? {
            return Err(StoreError::NotMember.into());
        }
        permit(actor.id != target && outranks(facts.role, person.role))?;
        Ok(person)
    }

    /// Writes a row of the audit log.
    pub(super) fn note(&self, note: &Note<'_>, at: Ms) -> Result<(), Trouble> {
        let id: i64 = self
            .connection
            .prepare_cached(
                "INSERT INTO audit (kind, maker, user, room, text, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 RETURNING id",
            )?
            .query_row(
                params![
                    note.kind,
                    number(note.by.bits()),
                    note.user.map(|user| number(user.bits())),
                    note.room.map(|room| number(room.bits())),
                    note.text,
                    at
                ],
                |row| row.get(0),
            )?;
        self.connection
            .prepare_cached("DELETE FROM audit WHERE id <= ?1")?
            .execute([id - limit(AUDIT_MAX)])?;
        Ok(())
    }
}
