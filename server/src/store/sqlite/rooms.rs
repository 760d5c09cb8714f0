//! Rooms: how they come to be, who enters and who leaves, and the acts of those who keep them.

use shared::acts::{GROUP_MAX, SLOW_SECONDS_MAX};
use shared::model::{Claim, LOBBY, Line, Ms, RoomId, RoomName, Seq, UserId};
use shared::protocol::{Event, EventKind, RoomKind, User};
use shared::rights::Right;

use super::database::{OptionalExtension, params};
use super::facts::{Facts, Note, demand, permit};
use super::read::Program;
use super::{Trouble, Writer, number, read};
use crate::store::{Ended, Entered, Outcome, RoomKey, StoreError};

/// Rooms that others can put one user into.
const INVITED_ROOMS_MAX: u64 = 1_000;

/// A room to be made.
struct NewRoom<'a> {
    id: RoomId,
    kind: RoomKind,
    name: Option<&'a str>,
    skeleton: Option<&'a str>,
    pair: Option<(UserId, UserId)>,
    owner: Option<UserId>,
    at: Ms,
}

/// Lets nobody know what a room that is not public is called.
fn open_name<'a>(facts: &Facts, name: &'a str) -> &'a str {
    if facts.kind == RoomKind::Public { name } else { "" }
}

impl Writer {
    pub(super) fn create_room(
        &mut self,
        id: RoomId,
        kind: RoomKind,
        claim: &Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, Trouble> {
        let creator = self.person(user)?;
        let is_public = kind == RoomKind::Public;
        demand(&creator, if is_public { Right::CreatePublic } else { Right::CreatePrivate })?;
        permit(is_public || kind == RoomKind::Private)?;
        if is_public && read::room_named(&self.connection, &claim.skeleton)?.is_some() {
            return Err(StoreError::NameTaken.into());
        }
        self.check_rooms(user, rooms_max)?;
        self.check_room_id(id)?;
        self.atomically(|writer| {
            writer.make_room(&NewRoom {
                id,
                kind,
                name: Some(claim.name.as_str()),
                skeleton: is_public.then_some(&claim.skeleton),
                pair: None,
                owner: Some(user),
                at,
            })?;
            writer.make_member(id, user, at)?;
            let event = writer.tell(id, creator.user, at, EventKind::Created)?;
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
            return self.entered_before(room, user);
        }
        if read::is_blocked(&self.connection, user, peer)? {
            return Err(StoreError::Blocked.into());
        }
        self.check_rooms(user, rooms_max)?;
        self.check_room_id(id)?;
        self.atomically(|writer| {
            let kind = RoomKind::Direct;
            writer.make_room(&NewRoom {
                id,
                kind,
                name: None,
                skeleton: None,
                pair: Some((low, high)),
                owner: None,
                at,
            })?;
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

    pub(super) fn open_group(
        &mut self,
        id: RoomId,
        user: UserId,
        others: Vec<UserId>,
        rooms_max: usize,
        at: Ms,
    ) -> Result<Entered, Trouble> {
        let creator = read::user(&self.connection, user)?;
        let mut people: Vec<UserId> = others.into_iter().filter(|other| *other != user).collect();
        people.sort();
        people.dedup();
        if people.len() < 2 || people.len() >= GROUP_MAX {
            return Err(StoreError::TooMany.into());
        }
        for other in &people {
            permit(self.person(*other)?.program != Some(Program::Hook))?;
        }
        if let Some(room) = read::group(&self.connection, user, &people)? {
            return self.entered_before(room, user);
        }
        for other in &people {
            if read::is_blocked(&self.connection, user, *other)? {
                return Err(StoreError::Blocked.into());
            }
            if read::rooms_count(&self.connection, *other)? >= INVITED_ROOMS_MAX {
                return Err(StoreError::TooManyRooms.into());
            }
        }
        self.check_rooms(user, rooms_max)?;
        self.check_room_id(id)?;
        self.atomically(|writer| {
            let kind = RoomKind::Group;
            let owner = Some(user);
            writer.make_room(&NewRoom { id, kind, name: None, skeleton: None, pair: None, owner, at })?;
            writer.make_member(id, user, at)?;
            for other in &people {
                writer.make_member(id, *other, at)?;
            }
            let event = writer.tell(id, creator, at, EventKind::Created)?;
            let mut entered = writer.enter(id, user, event)?;
            entered.users.extend(people);
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
            return self.entered_before(id, user);
        }
        self.check_rooms(user, rooms_max)?;
        self.atomically(|writer| {
            writer.make_member(id, user, at)?;
            let event = writer.tell(id, joiner, at, EventKind::Joined)?;
            writer.enter(id, user, event)
        })
    }

    pub(super) fn leave(&mut self, id: RoomId, user: UserId, at: Ms) -> Result<Option<Event>, Trouble> {
        let kind = read::room_kind(&self.connection, id)?.ok_or(StoreError::NotFound)?;
        let is_member = self.is_member(id, user)?;
        if id == LOBBY || kind == RoomKind::Direct || kind != RoomKind::Public && !is_member {
            return Err(StoreError::NotFound.into());
        }
        if !is_member {
            return Ok(None);
        }
        let leaver = read::user(&self.connection, user)?;
        self.atomically(|writer| {
            writer.end_membership(id, user)?;
            writer.tell(id, leaver, at, EventKind::Left).map(Some)
        })
    }

    pub(super) fn invite(
        &mut self,
        by: User,
        room: RoomId,
        target: UserId,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Invite)?;
        let person = self.person(target)?;
        if self.is_member(room, target)? {
            return Ok(Outcome::default());
        }
        permit(person.program != Some(Program::Hook))?;
        if facts.kind == RoomKind::Group && read::people_count(&self.connection, room)? >= GROUP_MAX as u64 {
            return Err(StoreError::TooMany.into());
        }
        if read::is_blocked(&self.connection, by.id, target)? {
            return Err(StoreError::Blocked.into());
        }
        if read::rooms_count(&self.connection, target)? >= INVITED_ROOMS_MAX {
            return Err(StoreError::TooManyRooms.into());
        }
        let event = self.put_in(by, room, person.user, at)?;
        Ok(Outcome { events: vec![event], memberships: vec![(target, room, true)], ..Outcome::default() })
    }

    /// Makes somebody a member. What was said before they came is not theirs to catch up on.
    pub(super) fn put_in(&mut self, by: User, room: RoomId, target: User, at: Ms) -> Result<Event, Trouble> {
        self.make_member(room, target.id, at)?;
        let head = self.head(room)?.unwrap_or(0);
        self.set_cursor(room, target.id, head)?;
        self.tell(room, by, at, EventKind::Invited { target })
    }

    pub(super) fn remove(
        &mut self,
        by: User,
        room: RoomId,
        target: UserId,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Remove)?;
        facts.spare_lobby()?;
        let person = self.target(&facts, &by, target)?;
        let heir = self.end_membership(room, target)?;
        let note = Note { kind: "remove", by: by.id, user: Some(target), room: Some(room), text: "" };
        self.note(&note, at)?;
        let mut events = vec![self.tell(room, by.clone(), at, EventKind::Removed { target: person.user })?];
        if let Some(heir) = heir {
            let target = read::user(&self.connection, heir)?;
            events.push(self.tell(room, by, at, EventKind::Transferred { target })?);
        }
        let memberships = vec![(target, room, false)];
        // Their webhooks of a room that they must not see any more stand still.
        let rules_changed = facts.kind != RoomKind::Public;
        Ok(Outcome { events, memberships, rules_changed, ..Outcome::default() })
    }

    pub(super) fn transfer(
        &mut self,
        by: User,
        room: RoomId,
        target: UserId,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Transfer)?;
        facts.spare_lobby()?;
        let person = self.person(target)?;
        if !self.is_member(room, target)? {
            return Err(StoreError::NotMember.into());
        }
        // A program cannot act for the room.
        permit(person.program.is_none())?;
        if facts.owner == Some(target) {
            return Ok(Outcome::default());
        }
        self.set_owner(room, Some(target))?;
        let note = Note { kind: "transfer", by: by.id, user: Some(target), room: Some(room), text: "" };
        self.note(&note, at)?;
        self.tell_one(room, by, at, EventKind::Transferred { target: person.user })
    }

    pub(super) fn set_topic(
        &mut self,
        by: User,
        room: RoomId,
        text: Line,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Topic)?;
        if facts.topic == text {
            return Ok(Outcome::default());
        }
        self.connection
            .prepare_cached("UPDATE rooms SET topic = ?2 WHERE id = ?1")?
            .execute(params![number(room.bits()), text.as_str()])?;
        self.tell_one(room, by, at, EventKind::Topic { text })
    }

    pub(super) fn rename_room(
        &mut self,
        by: User,
        room: RoomId,
        name: &str,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::RenameRoom)?;
        facts.spare_lobby()?;
        permit(matches!(facts.kind, RoomKind::Public | RoomKind::Private))?;
        let claim = RoomName::claim(name).map_err(|_| StoreError::Forbidden)?;
        let skeleton = (facts.kind == RoomKind::Public).then_some(claim.skeleton);
        if let Some(skeleton) = &skeleton
            && read::room_named(&self.connection, skeleton)?.is_some_and(|other| other != room)
        {
            return Err(StoreError::NameTaken.into());
        }
        let changed = self
            .connection
            .prepare_cached("UPDATE rooms SET name = ?2, skeleton = ?3 WHERE id = ?1 AND name <> ?2")?
            .execute(params![number(room.bits()), claim.name.as_str(), skeleton])?;
        if changed == 0 {
            return Ok(Outcome::default());
        }
        let text = open_name(&facts, claim.name.as_str());
        self.note(&Note { kind: "rename_room", by: by.id, user: None, room: Some(room), text }, at)?;
        self.tell_one(room, by, at, EventKind::RoomRenamed { text: Line::new(claim.name.as_str()) })
    }

    pub(super) fn archive(
        &mut self,
        by: User,
        room: RoomId,
        archived: bool,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::Archive)?;
        facts.spare_lobby()?;
        if facts.is_archived == archived {
            return Ok(Outcome::default());
        }
        self.connection
            .prepare_cached("UPDATE rooms SET archived = ?2 WHERE id = ?1")?
            .execute(params![number(room.bits()), archived])?;
        self.forget_place(room);
        let text = if archived { "" } else { "undone" };
        self.note(&Note { kind: "archive", by: by.id, user: None, room: Some(room), text }, at)?;
        self.tell_one(room, by, at, EventKind::Archived { archived })
    }

    pub(super) fn set_slow_mode(
        &mut self,
        by: User,
        room: RoomId,
        seconds: u32,
        at: Ms,
    ) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::SlowMode)?;
        let seconds = seconds.min(SLOW_SECONDS_MAX);
        if facts.slow_seconds == seconds {
            return Ok(Outcome::default());
        }
        self.connection
            .prepare_cached("UPDATE rooms SET slow = ?2 WHERE id = ?1")?
            .execute(params![number(room.bits()), seconds])?;
        self.forget_place(room);
        // Nobody noted who spoke when before.
        self.forget_members(room);
        self.tell_one(room, by, at, EventKind::SlowMode { seconds })
    }

    pub(super) fn delete_room(&mut self, by: User, room: RoomId, at: Ms) -> Result<Outcome, Trouble> {
        let facts = self.facts(room, by.id)?;
        facts.demand(Right::DeleteRoom)?;
        facts.spare_lobby()?;
        let of = [number(room.bits())];
        let name: Option<String> = self
            .connection
            .prepare_cached("SELECT name FROM rooms WHERE id = ?1")?
            .query_row(of, |row| row.get(0))?;
        let mut outcome = Outcome { ended: self.end_hooks_of(room)?, ..Outcome::default() };
        for user in read::all_members(&self.connection, room)? {
            outcome.memberships.push((user, room, false));
        }
        outcome.rules_changed = read::has_hooks(&self.connection, room)?;
        for sql in [
            "DELETE FROM hooks WHERE room = ?1",
            "DELETE FROM reports WHERE room = ?1",
            "DELETE FROM mutes WHERE room = ?1",
            "DELETE FROM mentions WHERE room = ?1",
            "DELETE FROM cursors WHERE room = ?1",
            "DELETE FROM members WHERE room = ?1",
            "DELETE FROM rooms WHERE id = ?1",
            "INSERT INTO purges (room) VALUES (?1)",
        ] {
            self.connection.prepare_cached(sql)?.execute(of)?;
        }
        self.purging = true;
        self.forget_place(room);
        self.forget_members(room);
        let text = open_name(&facts, name.as_deref().unwrap_or_default());
        self.note(&Note { kind: "delete_room", by: by.id, user: None, room: Some(room), text }, at)?;
        Ok(outcome)
    }

    /// Ends the tokens of a room's incoming webhooks.
    fn end_hooks_of(&mut self, room: RoomId) -> Result<Vec<Ended>, Trouble> {
        let ended = read::tokens_where(
            &self.connection,
            "SELECT user, token FROM tokens WHERE room = ?1",
            number(room.bits()),
        )?;
        self.connection
            .prepare_cached("DELETE FROM tokens WHERE room = ?1")?
            .execute([number(room.bits())])?;
        Ok(ended)
    }

    /// Tells of a change that is nothing but its event.
    pub(super) fn tell_one(
        &mut self,
        room: RoomId,
        by: User,
        at: Ms,
        kind: EventKind,
    ) -> Result<Outcome, Trouble> {
        Ok(Outcome { events: vec![self.tell(room, by, at, kind)?], ..Outcome::default() })
    }

    /// Takes somebody out of a room. If it was theirs, it is the one's who has been in it longest, who is the
    /// answer.
    pub(super) fn end_membership(&mut self, room: RoomId, user: UserId) -> Result<Option<UserId>, Trouble> {
        self.connection
            .prepare_cached("DELETE FROM members WHERE user = ?1 AND room = ?2")?
            .execute([number(user.bits()), number(room.bits())])?;
        self.memberships.remove(&(room, user));
        self.count_members(room, -1)?;
        let heir: Option<Option<i64>> = self
            .connection
            .prepare_cached(
                "UPDATE rooms SET owner = (
                     SELECT m.user FROM members m JOIN users u ON u.id = m.user
                     WHERE m.room = ?1 AND u.bot IS NULL ORDER BY m.at, m.user LIMIT 1
                 ) WHERE id = ?1 AND owner = ?2 RETURNING owner",
            )?
            .query_row([number(room.bits()), number(user.bits())], |row| row.get(0))
            .optional()?;
        heir.flatten().map(read::user_id).transpose()
    }

    fn set_owner(&self, room: RoomId, owner: Option<UserId>) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE rooms SET owner = ?2 WHERE id = ?1")?
            .execute(params![number(room.bits()), owner.map(|owner| number(owner.bits()))])?;
        Ok(())
    }

    fn make_room(&self, room: &NewRoom<'_>) -> Result<(), Trouble> {
        let NewRoom { id, kind, name, skeleton, pair, owner, at } = *room;
        let bits = |user: UserId| number(user.bits());
        self.connection
            .prepare_cached(
                "INSERT INTO rooms (id, kind, name, skeleton, low, high, owner, epoch, members, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, 0, ?8)",
            )?
            .execute(params![
                number(id.bits()),
                kind.name(),
                name,
                skeleton,
                pair.map(|(low, _)| bits(low)),
                pair.map(|(_, high)| bits(high)),
                owner.map(bits),
                at
            ])?;
        Ok(())
    }

    fn check_rooms(&self, user: UserId, rooms_max: usize) -> Result<(), Trouble> {
        if rooms_max > 0 && read::rooms_count(&self.connection, user)? >= rooms_max as u64 {
            return Err(StoreError::TooManyRooms.into());
        }
        Ok(())
    }

    fn check_room_id(&self, id: RoomId) -> Result<(), Trouble> {
        let mut statement = self.connection.prepare_cached(
            "SELECT 1 FROM rooms WHERE id = ?1 UNION ALL SELECT 1 FROM purges WHERE room = ?1",
        )?;
        match statement.exists([number(id.bits())])? {
            true => Err(StoreError::Unavailable("a room has that id".into()).into()),
            false => Ok(()),
        }
    }

    pub(super) fn make_member(&mut self, room: RoomId, user: UserId, at: Ms) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("INSERT INTO members (user, room, at) VALUES (?1, ?2, ?3)")?
            .execute([number(user.bits()), number(room.bits()), at])?;
        self.count_members(room, 1)
    }

    pub(super) fn count_members(&self, room: RoomId, change: i64) -> Result<(), Trouble> {
        self.connection
            .prepare_cached("UPDATE rooms SET members = members + ?2 WHERE id = ?1")?
            .execute([number(room.bits()), change])?;
        Ok(())
    }

    pub(super) fn set_cursor(&self, room: RoomId, user: UserId, read: Seq) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT INTO cursors (user, room, read) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user, room) DO UPDATE SET read = excluded.read",
            )?
            .execute([number(user.bits()), number(room.bits()), number(read)])?;
        Ok(())
    }

    /// The answer where a user was in the room already.
    fn entered_before(&self, room: RoomId, user: UserId) -> Result<Entered, Trouble> {
        let info = read::room_info(&self.connection, room, user)?;
        Ok(Entered { info, events: Vec::new(), users: Vec::new() })
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
