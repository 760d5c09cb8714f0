//! The writer of the embedded store: group commit, and each change of the database.
//!
//! Everything here runs on one thread and inside one transaction per batch. A change answers only after the
//! commit, so it may rely on what earlier changes of its batch did.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};
use shared::model::{Claim, LOBBY, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, RoomKind, User};
use shared::rights::Role;

use super::queue::Queue;
use super::{Trouble, number, read};
use crate::store::{Append, Appended, Cursor, Entered, Identity, RoomKey, StoreError, TokenHash, numbered};

/// Weight of the changes in one transaction; the last may go over it.
const BATCH_MAX: usize = 4_096;
/// Rooms whose head is remembered.
const HEADS_MAX: usize = 20_000;
/// Memberships that are remembered.
const MEMBERSHIPS_MAX: usize = 200_000;

/// A change: run inside the transaction; what it returns is called after the commit. An error means that the
/// transaction is lost.
pub(super) type Change = Box<dyn FnOnce(&mut Writer) -> rusqlite::Result<Answer> + Send>;
/// Sends a change's answer.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

pub(in crate::store) struct Writer {
    pub(in crate::store) connection: Connection,
    /// Heads of rooms in use, with what this transaction appended. Never wrong, but not complete.
    heads: HashMap<RoomId, Seq>,
    /// Some of those who are members.
    memberships: HashSet<(RoomId, UserId)>,
    /// Transactions that were committed.
    #[cfg(test)]
    pub(super) commits: u64,
}

impl Writer {
    pub(in crate::store) fn new(connection: Connection) -> Self {
        Self {
            connection,
            heads: HashMap::new(),
            memberships: HashSet::new(),
            #[cfg(test)]
            commits: 0,
        }
    }

    /// Commits batches until the queue is closed and empty.
    pub(super) fn run(mut self, changes: &Queue<Change>) {
        while let Some(batch) = changes.take_some(BATCH_MAX) {
            let size = batch.len();
            match self.commit(batch) {
                Ok(answers) => answers.into_iter().for_each(|answer| answer()),
                Err(error) => {
                    // The answers are dropped unsent, which is an answer too: `Unavailable`.
                    tracing::error!(%error, size, "cannot write to the database");
                    self.forget();
                    if !self.connection.is_autocommit()
                        && let Err(error) = self.connection.execute_batch("ROLLBACK")
                    {
                        tracing::error!(%error, "cannot roll back");
                    }
                }
            }
        }
    }

    fn commit(&mut self, batch: Vec<Change>) -> rusqlite::Result<Vec<Answer>> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut answers = Vec::with_capacity(batch.len());
        for change in batch {
            answers.push(change(self)?);
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        #[cfg(test)]
        {
            self.commits += 1;
        }
        Ok(answers)
    }

    /// Drops what is remembered, so that it is read again.
    fn forget(&mut self) {
        self.heads.clear();
        self.memberships.clear();
    }

    /// Does several statements wholly or not at all.
    pub(super) fn atomically<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let before = self.connection.total_changes();
        self.connection.prepare_cached("SAVEPOINT change")?.execute([])?;
        let done = change(self);
        if matches!(done, Err(Trouble::Refused(_))) && self.connection.total_changes() != before {
            self.connection.prepare_cached("ROLLBACK TO change")?.execute([])?;
            self.forget();
        }
        if !matches!(done, Err(Trouble::Medium(_))) {
            self.connection.prepare_cached("RELEASE change")?.execute([])?;
        }
        done
    }

    fn head(&mut self, room: RoomId) -> Result<Option<Seq>, Trouble> {
        if let Some(head) = self.heads.get(&room) {
            return Ok(Some(*head));
        }
        let head = read::head(&self.connection, room)?.map(|(_, head)| head);
        if let Some(head) = head {
            self.remember_head(room, head);
        }
        Ok(head)
    }

    fn remember_head(&mut self, room: RoomId, head: Seq) {
        if self.heads.len() >= HEADS_MAX && !self.heads.contains_key(&room) {
            self.heads.clear();
        }
        self.heads.insert(room, head);
    }

    fn is_member(&mut self, room: RoomId, user: UserId) -> Result<bool, Trouble> {
        if self.memberships.contains(&(room, user)) {
            return Ok(true);
        }
        let member = read::is_member(&self.connection, room, user)?;
        if member {
            if self.memberships.len() >= MEMBERSHIPS_MAX {
                self.memberships.clear();
            }
            self.memberships.insert((room, user));
        }
        Ok(member)
    }

    /// Puts an event at the end of a room's log; `None` if its author used the `ref` before.
    fn push(
        &mut self,
        room: RoomId,
        user: User,
        at: Ms,
        kind: EventKind,
        reference: Option<Ref>,
    ) -> Result<Option<Event>, Trouble> {
        let seq = self.head(room)?.ok_or(StoreError::NotFound)? + 1;
        let (kind_name, body, name) = read::columns(&kind);
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO events (room, seq, at, author, author_name, kind, body, name, ref)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (author, ref) WHERE ref IS NOT NULL DO NOTHING",
            )?
            .execute(params![
                number(room.bits()),
                number(seq),
                at,
                number(user.id.bits()),
                user.name.as_str(),
                kind_name,
                body,
                name,
                reference.as_ref().map(|reference| reference.0.as_bytes().as_slice()),
            ])?;
        if inserted == 0 {
            return Ok(None);
        }
        self.remember_head(room, seq);
        Ok(Some(Event { room, seq, at, user, kind, reference }))
    }

    /// Puts an event of the store's own, which has no `ref`, at the end of a room's log.
    fn tell(&mut self, room: RoomId, user: User, at: Ms, kind: EventKind) -> Result<Event, Trouble> {
        self.push(room, user, at, kind, None)?.ok_or_else(|| read::damaged("an event without a ref").into())
    }

    pub(super) fn append(
        &mut self,
        batch: Vec<Append>,
    ) -> Result<Vec<Result<Appended, StoreError>>, Trouble> {
        let mut answers = Vec::with_capacity(batch.len());
        for append in batch {
            answers.push(match self.append_one(append) {
                Ok(appended) => Ok(appended),
                Err(Trouble::Refused(error)) => Err(error),
                Err(medium) => return Err(medium),
            });
        }
        Ok(answers)
    }

    fn append_one(&mut self, append: Append) -> Result<Appended, Trouble> {
        let Append { room, author, at, kind, reference } = append;
        if kind == EventKind::Unknown {
            return Err(StoreError::Unavailable("an event of no known kind".into()).into());
        }
        let refused = match self.head(room)? {
            None => Some(StoreError::NotFound),
            Some(_) if !self.is_member(room, author.id)? => Some(StoreError::NotMember),
            Some(_) => None,
        };
        let id = author.id;
        if refused.is_none()
            && let Some(event) = self.push(room, author, at, kind, reference)?
        {
            return Ok(Appended { event, first: true });
        }
        let first = match reference {
            Some(reference) => read::by_reference(&self.connection, id, reference)?,
            None => None,
        };
        match first {
            Some(event) => Ok(Appended { event, first: false }),
            None => Err(refused.unwrap_or_else(|| read::damaged("the index of refs")).into()),
        }
    }

    pub(super) fn identify(
        &mut self,
        token: TokenHash,
        id: UserId,
        names: &[Claim<UserName>],
        at: Ms,
    ) -> Result<Identity, Trouble> {
        // Another call may have been faster.
        if let Some(identity) = read::identity(&self.connection, &token)? {
            return Ok(identity);
        }
        if read::is_member(&self.connection, LOBBY, id)? {
            return Err(StoreError::Unavailable("a user has that id".into()).into());
        }
        let claim = self.free_name(id, names)?.ok_or(StoreError::NameTaken)?;
        self.atomically(|writer| {
            let user = number(id.bits());
            writer
                .connection
                .prepare_cached("INSERT INTO users (id, name, skeleton, at) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![user, claim.name.as_str(), claim.skeleton, at])?;
            writer
                .connection
                .prepare_cached("INSERT INTO sessions (token, user, at) VALUES (?1, ?2, ?3)")?
                .execute(params![token.as_slice(), user, at])?;
            writer.count_members(LOBBY, 1)?;
            let head = writer.head(LOBBY)?.unwrap_or(0);
            writer.set_cursor(LOBBY, id, head)?;
            Ok(Identity {
                user: User { id, name: claim.name },
                role: Role::Guest,
                fresh: true,
                until: None,
                scopes: None,
                only_room: None,
            })
        })
    }

    fn free_name(&self, id: UserId, names: &[Claim<UserName>]) -> Result<Option<Claim<UserName>>, Trouble> {
        for claim in names.iter().cloned().chain(numbered(names, id)) {
            if read::name_owner(&self.connection, &claim.skeleton)?.is_none() {
                return Ok(Some(claim));
            }
        }
        Ok(None)
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
            for info in read::rooms_of(&writer.connection, id)? {
                if tell_lobby || info.id != LOBBY {
                    let kind = EventKind::Renamed { name: claim.name.clone() };
                    events.push(writer.tell(info.id, old.clone(), at, kind)?);
                }
            }
            Ok((User { id, name: claim.name }, events))
        })
    }

    pub(super) fn create_room(
        &mut self,
        id: RoomId,
        claim: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, Trouble> {
        let creator = read::user(&self.connection, user)?;
        if read::room_named(&self.connection, &claim.skeleton)?.is_some() {
            return Err(StoreError::NameTaken.into());
        }
        self.check_rooms(user, rooms_max)?;
        self.check_room_id(id)?;
        self.atomically(|writer| {
            writer
                .connection
                .prepare_cached(
                    "INSERT INTO rooms (id, kind, name, skeleton, epoch, members, at)
                     VALUES (?1, ?2, ?3, ?4, 1, 0, ?5)",
                )?
                .execute(params![
                    number(id.bits()),
                    RoomKind::Public.name(),
                    claim.name.as_str(),
                    claim.skeleton,
                    at
                ])?;
            writer.make_member(id, user, at)?;
            let event = writer.tell(id, creator, at, EventKind::Created)?;
            writer.enter(id, user, event)
        })
    }

    pub(super) fn open_direct(
        &mut self,
        id: RoomId,
        user: UserId,
        peer: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, Trouble> {
        let creator = read::user(&self.connection, user)?;
        read::user(&self.connection, peer)?;
        let (low, high) = (user.min(peer), user.max(peer));
        if let Some(room) = read::direct(&self.connection, low, high)? {
            return Ok(Entered {
                info: read::room_info(&self.connection, room, user)?,
                events: Vec::new(),
                users: Vec::new(),
            });
        }
        self.check_rooms(user, rooms_max)?;
        self.check_room_id(id)?;
        self.atomically(|writer| {
            writer
                .connection
                .prepare_cached(
                    "INSERT INTO rooms (id, kind, low, high, epoch, members, at)
                     VALUES (?1, ?2, ?3, ?4, 1, 0, ?5)",
                )?
                .execute(params![
                    number(id.bits()),
                    RoomKind::Direct.name(),
                    number(low.bits()),
                    number(high.bits()),
                    at
                ])?;
            writer.make_member(id, user, at)?;
            if peer != user {
                writer.make_member(id, peer, at)?;
            }
            let event = writer.tell(id, creator, at, EventKind::Created)?;
            let mut entered = writer.enter(id, user, event)?;
            entered.users.extend((peer != user).then_some(peer));
            Ok(entered)
        })
    }

    pub(super) fn join(
        &mut self,
        key: &RoomKey,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, Trouble> {
        let joiner = read::user(&self.connection, user)?;
        let id = read::find(&self.connection, key, user)?.ok_or(StoreError::NotFound)?;
        if self.is_member(id, user)? {
            return Ok(Entered {
                info: read::room_info(&self.connection, id, user)?,
                events: Vec::new(),
                users: Vec::new(),
            });
        }
        self.check_rooms(user, rooms_max)?;
        self.atomically(|writer| {
            writer.make_member(id, user, at)?;
            let event = writer.tell(id, joiner, at, EventKind::Joined)?;
            writer.enter(id, user, event)
        })
    }

    pub(super) fn leave(&mut self, id: RoomId, user: UserId, at: Ms) -> Result<Option<Event>, Trouble> {
        if id == LOBBY || read::room_kind(&self.connection, id)? != Some(RoomKind::Public) {
            return Err(StoreError::NotFound.into());
        }
        if !self.is_member(id, user)? {
            return Ok(None);
        }
        let leaver = read::user(&self.connection, user)?;
        self.atomically(|writer| {
            writer
                .connection
                .prepare_cached("DELETE FROM members WHERE user = ?1 AND room = ?2")?
                .execute([number(user.bits()), number(id.bits())])?;
            writer.memberships.remove(&(id, user));
            writer.count_members(id, -1)?;
            writer.tell(id, leaver, at, EventKind::Left).map(Some)
        })
    }

    pub(super) fn mark_read(&mut self, id: RoomId, user: UserId, seq: Seq) -> Result<Cursor, Trouble> {
        let head = self.head(id)?.ok_or(StoreError::NotFound)?;
        if !self.is_member(id, user)? {
            return Err(StoreError::NotFound.into());
        }
        let old = read::cursor(&self.connection, id, user)?;
        let new = seq.min(head).max(old);
        if new != old {
            self.set_cursor(id, user, new)?;
        }
        let unread = read::unread(&self.connection, id, user, new, head)?;
        Ok(Cursor { seq: new, unread, ..Cursor::default() })
    }

    /// A write that changes nothing worth keeping.
    pub(super) fn check(&mut self) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('checks', 1)
                 ON CONFLICT (key) DO UPDATE SET value = value + 1",
            )?
            .execute([])?;
        Ok(())
    }

    fn check_rooms(&self, user: UserId, rooms_max: usize) -> Result<(), Trouble> {
        if rooms_max > 0 && read::rooms_count(&self.connection, user)? >= rooms_max as u64 {
            return Err(StoreError::TooManyRooms.into());
        }
        Ok(())
    }

    fn check_room_id(&self, id: RoomId) -> Result<(), Trouble> {
        match read::room_kind(&self.connection, id)? {
            Some(_) => Err(StoreError::Unavailable("a room has that id".into()).into()),
            None => Ok(()),
        }
    }

    fn make_member(&mut self, room: RoomId, user: UserId, at: Ms) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("INSERT INTO members (user, room, at) VALUES (?1, ?2, ?3)")?
            .execute([number(user.bits()), number(room.bits()), at])?;
        self.count_members(room, 1)
    }

    fn count_members(&self, room: RoomId, change: i64) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE rooms SET members = members + ?2 WHERE id = ?1")?
            .execute([number(room.bits()), change])?;
        Ok(())
    }

    fn set_cursor(&self, room: RoomId, user: UserId, read: Seq) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT INTO cursors (user, room, read) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user, room) DO UPDATE SET read = excluded.read",
            )?
            .execute([number(user.bits()), number(room.bits()), number(read)])?;
        Ok(())
    }

    /// Ends an act by which a user entered a room: the cursor stands at the head.
    fn enter(&mut self, room: RoomId, user: UserId, event: Event) -> Result<Entered, Trouble> {
        self.set_cursor(room, user, event.seq)?;
        Ok(Entered {
            info: read::room_info(&self.connection, room, user)?,
            events: vec![event],
            users: vec![user],
        })
    }
}
