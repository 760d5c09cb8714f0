//! Appends: who may, what is found in the text, and the end of the log. This is the hot way: for a message
//! without an `@`, in a room without slow mode, by somebody who wrote there before, it asks for nothing.

use shared::mentions;
use shared::model::{Ms, Ref, RoomId, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, RoomKind, User};
use shared::rights::Right;
use uuid::Uuid;

use super::database::{Connection, Fault, OptionalExtension, Parameter, Row, Value, params};
use super::{Trouble, Writer, kinds, number, read};
use crate::store::{Append, Appended, StoreError};

macro_rules! insert_event {
    ($rest:literal) => {
        concat!(
            "INSERT INTO events (room, seq, at, author, author_name, kind, body, name, data, ref)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            $rest
        )
    };
}

/// Fails if the `ref` was used before.
const INSERT_EVENT: &str = insert_event!("");
/// Inserts nothing then.
const INSERT_EVENT_ONCE: &str = insert_event!(" ON CONFLICT (author, ref) WHERE ref IS NOT NULL DO NOTHING");

/// Selects the columns of [`Writer::read_place`] of rooms by id.
macro_rules! places {
    ($which:literal) => {
        concat!(
            "SELECT r.id, coalesce((SELECT max(seq) FROM events WHERE room = r.id), 0), r.kind, r.archived, r.slow,
                 EXISTS (SELECT 1 FROM blocks WHERE user = r.low AND blocked = r.high
                         UNION ALL SELECT 1 FROM blocks WHERE user = r.high AND blocked = r.low)
             FROM rooms r WHERE r.id ",
            $which
        )
    };
}

/// Of several rooms, on a server.
pub(in crate::store) const PLACES: &str = places!("= ANY(?1)");

/// The user in `mentions` who stands for all in the room.
const EVERYONE: i64 = -1;

/// Rooms that are remembered.
const PLACES_MAX: usize = 20_000;
/// Memberships that are remembered.
const MEMBERSHIPS_MAX: usize = 200_000;

/// How far the times of events may be out of order: clocks are set right now and then, and several hubs append.
const DISORDER_MS: Ms = 60_000;

/// What an append has to know of its room.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Place {
    pub head: Seq,
    kind: RoomKind,
    is_archived: bool,
    slow_seconds: u32,
    /// A direct conversation, one of whose two has blocked the other.
    is_blocked: bool,
}

/// What an append has to know of its author.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Membership {
    muted_until: Ms,
    /// In slow mode: when the author's last message was; `Ms::MIN`: too long ago to count.
    said_at: Option<Ms>,
}

/// A message of a time ago, or ahead if the clock was set back, counts in slow mode.
fn counts(said_at: Ms, at: Ms, window: Ms) -> bool {
    at.saturating_sub(said_at).saturating_abs() < window
}

impl Writer {
    fn place(&mut self, room: RoomId) -> Result<Option<Place>, Trouble> {
        if let Some(place) = self.places.get(&room) {
            return Ok(Some(*place));
        }
        let mut statement = self.connection.prepare_cached(places!("= ?1"))?;
        let mut rows = statement.query([number(room.bits())])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (_, place) = Self::read_place(row)?;
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(room, place);
        Ok(Some(place))
    }

    /// Reads what has to be known of several rooms at once, where each by itself would be a journey.
    pub(super) fn look_at(&mut self, rooms: &[RoomId]) -> Result<(), Trouble> {
        if !self.connection.is_server() {
            return Ok(());
        }
        let rooms: Vec<i64> = rooms.iter().map(|room| number(room.bits())).collect();
        let mut statement = self.connection.prepare_cached(PLACES)?;
        let mut rows = statement.query([Value::Numbers(&rooms)])?;
        while let Some(row) = rows.next()? {
            let (room, place) = Self::read_place(row)?;
            // What this transaction did is known better.
            self.places.entry(room).or_insert(place);
        }
        Ok(())
    }

    /// A room, its head, kind, whether it is archived, the seconds of its slow mode, and whether one of its two
    /// has blocked the other.
    pub(in crate::store) fn read_place(row: Row<'_>) -> Result<(RoomId, Place), Trouble> {
        let place = Place {
            head: read::bits(row.get(1)?)?,
            kind: read::parse_room_kind(read::text(row, 2)?)?,
            is_archived: row.get(3)?,
            slow_seconds: read::small(row.get(4)?)?,
            is_blocked: row.get(5)?,
        };
        Ok((read::room_id(row.get(0)?)?, place))
    }

    /// A room, a member who is not banned, and until when they are muted there.
    pub(in crate::store) fn read_membership(row: Row<'_>) -> Result<((RoomId, UserId), Membership), Trouble> {
        let membership = Membership { muted_until: row.get(2)?, said_at: None };
        Ok(((read::room_id(row.get(0)?)?, read::user_id(row.get(1)?)?), membership))
    }

    /// Remembers what was read at once, for as long as nothing is forgotten.
    pub(in crate::store) fn remember(
        &mut self,
        places: Vec<(RoomId, Place)>,
        members: Vec<((RoomId, UserId), Membership)>,
    ) {
        self.places.extend(places);
        self.memberships.extend(members);
    }

    /// Whether events may be sent before it is known what became of the ones before.
    pub(in crate::store) fn set_ahead(&mut self, ahead: bool) {
        self.ahead = ahead;
    }

    /// These refs were used by their authors before, or are about to be.
    pub(in crate::store) fn expect_repeats(&mut self, repeats: Vec<(UserId, Ref)>) {
        self.repeats.extend(repeats);
    }

    /// An author and a `ref` of theirs.
    pub(in crate::store) fn read_reference(row: Row<'_>) -> Result<(UserId, Ref), Trouble> {
        let bytes = row.get_ref(1)?.as_blob()?;
        let reference = Uuid::from_slice(bytes).map_err(|_| read::damaged("a ref"))?;
        Ok((read::user_id(row.get(0)?)?, Ref(reference)))
    }

    pub(super) fn head(&mut self, room: RoomId) -> Result<Option<Seq>, Trouble> {
        Ok(self.place(room)?.map(|place| place.head))
    }

    /// What is remembered of a room no longer holds.
    pub(super) fn forget_place(&mut self, room: RoomId) {
        self.places.remove(&room);
    }

    /// What is remembered of all members of a room no longer holds.
    pub(super) fn forget_members(&mut self, room: RoomId) {
        self.memberships.retain(|(of, _), _| *of != room);
    }

    /// What is remembered of a user no longer holds.
    pub(super) fn forget_user(&mut self, user: UserId) {
        self.memberships.retain(|(_, of), _| *of != user);
    }

    pub(super) fn is_member(&mut self, room: RoomId, user: UserId) -> Result<bool, Trouble> {
        Ok(self.memberships.contains_key(&(room, user)) || read::is_member(&self.connection, room, user)?)
    }

    /// The author's membership. Who is banned may have been heard just before their connections closed.
    fn membership(&mut self, room: RoomId, user: UserId, at: Ms) -> Result<Option<Membership>, Trouble> {
        if let Some(membership) = self.memberships.get(&(room, user)) {
            return Ok(Some(*membership));
        }
        if !read::is_member(&self.connection, room, user)? {
            return Ok(None);
        }
        if read::is_banned(&self.connection, user, at)? {
            return Err(StoreError::Banned.into());
        }
        let muted_until = read::muted_until(&self.connection, room, user)?.unwrap_or(Ms::MIN);
        let membership = Membership { muted_until, said_at: None };
        if self.memberships.len() >= MEMBERSHIPS_MAX {
            self.memberships.clear();
        }
        self.memberships.insert((room, user), membership);
        Ok(Some(membership))
    }

    /// Why an author cannot append; and their place.
    fn check_append(
        &mut self,
        room: RoomId,
        user: UserId,
        at: Ms,
        is_message: bool,
    ) -> Result<Place, Trouble> {
        let place = self.place(room)?.ok_or(StoreError::NotFound)?;
        let Some(membership) = self.membership(room, user, at)? else {
            let is_open = place.kind == RoomKind::Public;
            return Err(if is_open { StoreError::NotMember } else { StoreError::NotFound }.into());
        };
        if !is_message {
            return Ok(place);
        }
        if place.is_archived {
            return Err(StoreError::Archived.into());
        }
        if place.is_blocked {
            return Err(StoreError::Blocked.into());
        }
        if membership.muted_until > at {
            return Err(StoreError::Muted(membership.muted_until).into());
        }
        if place.slow_seconds > 0 {
            let window = Ms::from(place.slow_seconds) * 1_000;
            let said_at = match membership.said_at {
                Some(said_at) => said_at,
                None => self.last_said(room, user, at, window)?,
            };
            self.remember_said(room, user, said_at);
            if counts(said_at, at, window) && !self.facts(room, user)?.may(Right::SlowMode) {
                return Err(StoreError::SlowMode(said_at.saturating_add(window)).into());
            }
        }
        Ok(place)
    }

    fn remember_said(&mut self, room: RoomId, user: UserId, said_at: Ms) {
        if let Some(membership) = self.memberships.get_mut(&(room, user)) {
            membership.said_at = Some(said_at);
        }
    }

    /// When a user last wrote in a room, as far as that counts in slow mode.
    fn last_said(&self, room: RoomId, user: UserId, at: Ms, window: Ms) -> Result<Ms, Trouble> {
        let mut statement = self.connection.prepare_cached(
            "SELECT at FROM events WHERE room = ?1 AND author = ?2 AND kind IN ('message', 'deleted')
             AND seq > coalesce(
                 (SELECT seq FROM events WHERE room = ?1 AND at <= ?3 ORDER BY seq DESC LIMIT 1), 0
             ) ORDER BY seq DESC LIMIT 1",
        )?;
        let of =
            [number(room.bits()), number(user.bits()), at.saturating_sub(window.saturating_add(DISORDER_MS))];
        Ok(statement.query_row(of, |row| row.get(0)).optional()?.unwrap_or(Ms::MIN))
    }

    /// Whom a message mentions: those in the room who are not the author, and everyone if the author may.
    fn mentions(&mut self, room: RoomId, author: UserId, body: &str) -> Result<(Vec<UserId>, bool), Trouble> {
        let found = mentions::find(body);
        let mut mentioned = Vec::new();
        for mention in &found.mentions {
            for name in &mention.names {
                let Ok(claim) = UserName::claim(name) else { continue };
                let Some(user) = read::name_owner(&self.connection, &claim.skeleton)? else { continue };
                if !self.is_member(room, user)? {
                    continue;
                }
                if user != author && !mentioned.contains(&user) {
                    mentioned.push(user);
                }
                break;
            }
        }
        let all = found.all && self.facts(room, author)?.may(Right::MentionAll);
        Ok((mentioned, all))
    }

    fn keep_mentions(&self, event: &Event) -> Result<(), Trouble> {
        let EventKind::Message { mentions, all, .. } = &event.kind else { return Ok(()) };
        let users = mentions.iter().map(|user| number(user.bits())).chain(all.then_some(EVERYONE));
        for user in users {
            let sql = "INSERT INTO mentions (user, room, seq) VALUES (?1, ?2, ?3)";
            self.insert(sql, true, [user, number(event.room.bits()), number(event.seq)])?;
        }
        Ok(())
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
        let columns = kinds::columns(&kind);
        let is_repeat = |reference| self.repeats.contains(&(user.id, reference));
        let is_certain = reference.is_none_or(|reference| self.ahead && !is_repeat(reference));
        let is_first = self.insert(
            if is_certain { INSERT_EVENT } else { INSERT_EVENT_ONCE },
            is_certain,
            params![
                number(room.bits()),
                number(seq),
                at,
                number(user.id.bits()),
                user.name.as_str(),
                columns.kind,
                columns.body,
                columns.name,
                columns.data,
                reference.as_ref().map(|reference| reference.0.as_bytes().as_slice()),
            ],
        )?;
        if !is_first {
            return Ok(None);
        }
        if let Some(place) = self.places.get_mut(&room) {
            place.head = seq;
        }
        Ok(Some(Event { room, seq, at, user, kind, reference }))
    }

    /// Inserts a row; whether it was inserted. A server is not waited for where that is certain or supposed: the
    /// statement must be one that fails otherwise, and the transaction, its commit included, with it.
    fn insert<P: Parameter, const N: usize>(
        &self,
        sql: &str,
        is_certain: bool,
        values: [P; N],
    ) -> Result<bool, Trouble> {
        match &self.connection {
            Connection::Server(session) if is_certain => {
                let values = values.each_ref().map(P::value);
                session.execute_ahead(sql, &values).map_err(Fault::from)?;
                Ok(true)
            }
            connection => Ok(connection.prepare_cached(sql)?.execute(values)? > 0),
        }
    }

    /// Puts an event of the store's own, which has no `ref`, at the end of a room's log.
    pub(super) fn tell(
        &mut self,
        room: RoomId,
        user: User,
        at: Ms,
        kind: EventKind,
    ) -> Result<Event, Trouble> {
        self.push(room, user, at, kind, None)?.ok_or_else(|| read::damaged("an event without a ref").into())
    }

    pub(in crate::store) fn append(
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
        let Append { room, author, at, mut kind, reference } = append;
        if kind == EventKind::Unknown {
            return Err(StoreError::Unavailable("an event of no known kind".into()).into());
        }
        let id = author.id;
        let is_message = matches!(kind, EventKind::Message { .. });
        let refused = match self.check_append(room, id, at, is_message) {
            Ok(place) => {
                if let EventKind::Message { body, mentions, all } = &mut kind
                    && (body.as_str().contains('@') || *all || !mentions.is_empty())
                {
                    (*mentions, *all) = self.mentions(room, id, body.as_str())?;
                }
                if let Some(event) = self.push(room, author, at, kind, reference)? {
                    self.keep_mentions(&event)?;
                    if is_message && place.slow_seconds > 0 {
                        self.remember_said(room, id, at);
                    }
                    return Ok(Appended { event, first: true });
                }
                None
            }
            Err(Trouble::Refused(error)) => Some(error),
            Err(medium) => return Err(medium),
        };
        let first = match reference {
            Some(reference) => read::by_reference(&self.connection, id, reference)?,
            None => None,
        };
        match first {
            Some(event) => Ok(Appended { event, first: false }),
            None => Err(refused.unwrap_or_else(|| read::damaged("the index of refs")).into()),
        }
    }
}
