//! The queries of the embedded store. They work on any connection, the writer's too, and trust no row.

use rusqlite::{Connection, OptionalExtension, Row, params};
use shared::model::{Body, LOBBY, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, EventKind, Listing, RoomInfo, RoomKind, UNREAD_MAX, User};
use shared::rights::Role;
use uuid::Uuid;

use super::{Trouble, limit, number};
use crate::store::{Account, Identity, Page, RoomKey, StoreError, TokenHash, UNREAD_SCAN_MAX};

/// Selects events, in the order that `event` reads.
macro_rules! events {
    ($rest:literal) => {
        concat!("SELECT room, seq, at, author, author_name, kind, body, name, ref FROM events ", $rest)
    };
}

/// Selects rooms as the user ?1 sees them, in the order that `info` reads.
macro_rules! infos {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.kind, r.name, r.epoch,
                 coalesce((SELECT max(seq) FROM events WHERE room = r.id), 0),
                 coalesce((SELECT read FROM cursors WHERE user = ?1 AND room = r.id), 0),
                 p.id, p.name
             FROM rooms r
             LEFT JOIN users p ON p.id = CASE r.low WHEN ?1 THEN r.high ELSE r.low END ",
            $rest
        )
    };
}

/// The answer where a row does not hold what it must.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the database is damaged: {what}"))
}

fn bits(value: i64) -> Result<u64, Trouble> {
    u64::try_from(value).map_err(|_| damaged("a negative number").into())
}

fn small(value: i64) -> Result<u32, Trouble> {
    u32::try_from(value).map_err(|_| damaged("a number out of range").into())
}

fn user_id(value: i64) -> Result<UserId, Trouble> {
    bits(value).map(UserId::from_bits)
}

fn room_id(value: i64) -> Result<RoomId, Trouble> {
    bits(value).map(RoomId::from_bits)
}

fn user_name(text: &str) -> Result<UserName, Trouble> {
    UserName::parse(text).map_err(|_| damaged("a user's name").into())
}

fn room_name(text: &str) -> Result<RoomName, Trouble> {
    RoomName::parse(text).map_err(|_| damaged("a room's name").into())
}

/// A text of a row, borrowed from it.
fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, Trouble> {
    row.get_ref(column)?.as_str().map_err(|_| damaged("a text").into())
}

fn event(row: &Row<'_>) -> Result<Event, Trouble> {
    let kind = match text(row, 5)? {
        "message" => {
            EventKind::message(Body::parse(text(row, 6)?, 0).map_err(|_| damaged("the body of a message"))?)
        }
        "created" => EventKind::Created,
        "joined" => EventKind::Joined,
        "left" => EventKind::Left,
        "renamed" => EventKind::Renamed { name: user_name(text(row, 7)?)? },
        // A newer Magpie wrote it. It keeps its place.
        _ => EventKind::Unknown,
    };
    let reference = match row.get_ref(8)?.as_blob_or_null().map_err(|_| damaged("a ref"))? {
        Some(bytes) => Some(Ref(Uuid::from_slice(bytes).map_err(|_| damaged("a ref"))?)),
        None => None,
    };
    Ok(Event {
        room: room_id(row.get(0)?)?,
        seq: bits(row.get(1)?)?,
        at: row.get(2)?,
        user: User { id: user_id(row.get(3)?)?, name: user_name(text(row, 4)?)? },
        kind,
        reference,
    })
}

fn events(connection: &Connection, sql: &str, of: [i64; 3]) -> Result<Vec<Event>, Trouble> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(of)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    Ok(events)
}

/// The epoch and head of a room, if it exists.
pub(super) fn head(connection: &Connection, room: RoomId) -> Result<Option<(u32, Seq)>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT epoch, coalesce((SELECT max(seq) FROM events WHERE room = ?1), 0) FROM rooms WHERE id = ?1",
    )?;
    let mut rows = statement.query([number(room.bits())])?;
    match rows.next()? {
        Some(row) => Ok(Some((small(row.get(0)?)?, bits(row.get(1)?)?))),
        None => Ok(None),
    }
}

pub(super) fn events_after(
    connection: &Connection,
    room: RoomId,
    after: Seq,
    rows: usize,
) -> Result<Page, Trouble> {
    let (epoch, head) = head(connection, room)?.ok_or(StoreError::NotFound)?;
    let sql = events!("WHERE room = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    let events = events(connection, sql, [number(room.bits()), number(after), limit(rows)])?;
    Ok(Page { epoch, head, events })
}

pub(super) fn events_before(
    connection: &Connection,
    room: RoomId,
    before: Seq,
    rows: usize,
) -> Result<Page, Trouble> {
    let (epoch, head) = head(connection, room)?.ok_or(StoreError::NotFound)?;
    let sql = events!("WHERE room = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
    let mut events = events(connection, sql, [number(room.bits()), number(before), limit(rows)])?;
    events.reverse();
    Ok(Page { epoch, head, events })
}

/// The event that an author appended with a `ref`.
pub(super) fn by_reference(
    connection: &Connection,
    author: UserId,
    reference: Ref,
) -> Result<Option<Event>, Trouble> {
    let mut statement = connection.prepare_cached(events!("WHERE author = ?1 AND ref = ?2"))?;
    let mut rows = statement.query(params![number(author.bits()), reference.0.as_bytes().as_slice()])?;
    rows.next()?.map(event).transpose()
}

/// A user by id.
pub(super) fn user(connection: &Connection, id: UserId) -> Result<User, Trouble> {
    let mut statement = connection.prepare_cached("SELECT name FROM users WHERE id = ?1")?;
    let mut rows = statement.query([number(id.bits())])?;
    match rows.next()? {
        Some(row) => Ok(User { id, name: user_name(text(row, 0)?)? }),
        None => Err(StoreError::NotFound.into()),
    }
}

/// The owner of the user name with a skeleton.
pub(super) fn name_owner(connection: &Connection, skeleton: &str) -> Result<Option<UserId>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT id FROM users WHERE skeleton = ?1")?;
    statement.query_row([skeleton], |row| row.get(0)).optional()?.map(user_id).transpose()
}

/// The public room with a skeleton.
pub(super) fn room_named(connection: &Connection, skeleton: &str) -> Result<Option<RoomId>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT id FROM rooms WHERE skeleton = ?1")?;
    statement.query_row([skeleton], |row| row.get(0)).optional()?.map(room_id).transpose()
}

/// The direct conversation of two users.
pub(super) fn direct(connection: &Connection, low: UserId, high: UserId) -> Result<Option<RoomId>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT id FROM rooms WHERE low = ?1 AND high = ?2")?;
    let pair = [number(low.bits()), number(high.bits())];
    statement.query_row(pair, |row| row.get(0)).optional()?.map(room_id).transpose()
}

/// The kind of a room, if it exists.
pub(super) fn room_kind(connection: &Connection, room: RoomId) -> Result<Option<RoomKind>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT kind FROM rooms WHERE id = ?1")?;
    let mut rows = statement.query([number(room.bits())])?;
    rows.next()?.map(|row| parse_room_kind(text(row, 0)?)).transpose()
}

fn parse_room_kind(text: &str) -> Result<RoomKind, Trouble> {
    RoomKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| damaged("a room's kind").into())
}

/// Whether a user is in a room. Everyone who exists is in the lobby.
pub(super) fn is_member(connection: &Connection, room: RoomId, user: UserId) -> Result<bool, Trouble> {
    let user = number(user.bits());
    if room == LOBBY {
        Ok(connection.prepare_cached("SELECT 1 FROM users WHERE id = ?1")?.exists([user])?)
    } else {
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM members WHERE user = ?1 AND room = ?2")?;
        Ok(statement.exists([user, number(room.bits())])?)
    }
}

/// How many rooms a user is in, without the lobby.
pub(super) fn rooms_count(connection: &Connection, user: UserId) -> Result<u64, Trouble> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM members WHERE user = ?1")?;
    bits(statement.query_row([number(user.bits())], |row| row.get(0))?)
}

/// The user's cursor in a room; 0 if they never read there.
pub(super) fn cursor(connection: &Connection, room: RoomId, user: UserId) -> Result<Seq, Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT read FROM cursors WHERE user = ?1 AND room = ?2")?;
    let read =
        statement.query_row([number(user.bits()), number(room.bits())], |row| row.get(0)).optional()?;
    read.map_or(Ok(0), bits)
}

/// Messages of others after a cursor, at most `UNREAD_MAX`. Looks at no more than `UNREAD_SCAN_MAX` events.
pub(super) fn unread(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    read: Seq,
    head: Seq,
) -> Result<u32, Trouble> {
    if read >= head {
        return Ok(0);
    }
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM (
             SELECT 1 FROM events WHERE room = ?1 AND seq > ?2 AND author <> ?3 AND kind = ?4 LIMIT ?5
         )",
    )?;
    let from = read.max(head.saturating_sub(UNREAD_SCAN_MAX));
    let message = "message";
    let of = params![number(room.bits()), number(from), number(user.bits()), message, i64::from(UNREAD_MAX)];
    small(statement.query_row(of, |row| row.get(0))?)
}

fn info(connection: &Connection, user: UserId, row: &Row<'_>) -> Result<RoomInfo, Trouble> {
    let id = room_id(row.get(0)?)?;
    let kind = parse_room_kind(text(row, 1)?)?;
    let (name, peer) = match kind {
        RoomKind::Public | RoomKind::Private | RoomKind::Group => (Some(room_name(text(row, 2)?)?), None),
        RoomKind::Direct => (None, Some(User { id: user_id(row.get(6)?)?, name: user_name(text(row, 7)?)? })),
    };
    let (epoch, head, read) = (small(row.get(3)?)?, bits(row.get(4)?)?, bits(row.get(5)?)?);
    let unread = unread(connection, id, user, read, head)?;
    Ok(RoomInfo { name, peer, epoch, head, read, unread, ..RoomInfo::new(id, kind) })
}

/// A room as a member sees it; `NotFound` for anyone else.
pub(super) fn room_info(connection: &Connection, room: RoomId, user: UserId) -> Result<RoomInfo, Trouble> {
    if !is_member(connection, room, user)? {
        return Err(StoreError::NotFound.into());
    }
    let mut statement = connection.prepare_cached(infos!("WHERE r.id = ?2"))?;
    let mut rows = statement.query([number(user.bits()), number(room.bits())])?;
    match rows.next()? {
        Some(row) => info(connection, user, row),
        None => Err(StoreError::NotFound.into()),
    }
}

/// The lobby and the rooms that a user is a member of.
pub(super) fn rooms_of(connection: &Connection, user: UserId) -> Result<Vec<RoomInfo>, Trouble> {
    let sql =
        infos!("WHERE r.id IN (SELECT ?2 UNION ALL SELECT room FROM members WHERE user = ?1) ORDER BY r.id");
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([number(user.bits()), number(LOBBY.bits())])?;
    let mut infos = Vec::new();
    while let Some(row) = rows.next()? {
        infos.push(info(connection, user, row)?);
    }
    Ok(infos)
}

pub(super) fn account(connection: &Connection, id: UserId) -> Result<Account, Trouble> {
    Ok(Account {
        user: user(connection, id)?,
        role: Role::Guest,
        rooms: rooms_of(connection, id)?,
        blocked: Vec::new(),
    })
}

/// The user of a session, if there is one.
pub(super) fn identity(connection: &Connection, token: &TokenHash) -> Result<Option<Identity>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT user FROM sessions WHERE token = ?1")?;
    let Some(id) = statement.query_row([token.as_slice()], |row| row.get(0)).optional()? else {
        return Ok(None);
    };
    Ok(Some(Identity {
        user: user(connection, user_id(id)?)?,
        role: Role::Guest,
        fresh: false,
        until: None,
        scopes: None,
        only_room: None,
    }))
}

/// The room that a key names for a user. A conversation of others is passed over as if it did not exist.
pub(super) fn find(connection: &Connection, key: &RoomKey, user: UserId) -> Result<Option<RoomId>, Trouble> {
    if let Some(id) = key.id {
        let visible = match room_kind(connection, id)? {
            Some(RoomKind::Public) => true,
            Some(RoomKind::Direct | RoomKind::Private | RoomKind::Group) => is_member(connection, id, user)?,
            None => false,
        };
        if visible {
            return Ok(Some(id));
        }
    }
    key.skeleton.as_ref().map_or(Ok(None), |skeleton| room_named(connection, skeleton))
}

pub(super) fn members(
    connection: &Connection,
    room: RoomId,
    rows: usize,
) -> Result<(Vec<User>, u32), Trouble> {
    let mut statement = connection.prepare_cached("SELECT members FROM rooms WHERE id = ?1")?;
    let total = statement.query_row([number(room.bits())], |row| row.get(0)).optional()?;
    let total = small(total.ok_or(StoreError::NotFound)?)?;
    if room == LOBBY {
        return Ok((Vec::new(), 0));
    }
    let mut statement = connection.prepare_cached(
        "SELECT u.id, u.name FROM members m JOIN users u ON u.id = m.user
         WHERE m.room = ?1 ORDER BY u.name, u.id LIMIT ?2",
    )?;
    let mut rows = statement.query([number(room.bits()), limit(rows)])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(User { id: user_id(row.get(0)?)?, name: user_name(text(row, 1)?)? });
    }
    Ok((members, total))
}

pub(super) fn directory(connection: &Connection, user: UserId, rows: usize) -> Result<Vec<Listing>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, members FROM rooms WHERE kind = 'public' ORDER BY members DESC, name LIMIT ?1",
    )?;
    let mut rows = statement.query([limit(rows)])?;
    let mut listings = Vec::new();
    while let Some(row) = rows.next()? {
        let id = room_id(row.get(0)?)?;
        listings.push(Listing {
            id,
            name: room_name(text(row, 1)?)?,
            members: small(row.get(2)?)?,
            joined: is_member(connection, id, user)?,
        });
    }
    Ok(listings)
}

/// The kind, the body and the new name of an event, as columns.
pub(super) fn columns(kind: &EventKind) -> (&'static str, Option<&str>, Option<&str>) {
    let (body, name) = match kind {
        EventKind::Message { body, .. } => (Some(body.as_str()), None),
        EventKind::Renamed { name } => (None, Some(name.as_str())),
        _ => (None, None),
    };
    let kind_name = match kind {
        EventKind::Message { .. } => "message",
        EventKind::Created => "created",
        EventKind::Joined => "joined",
        EventKind::Left => "left",
        EventKind::Renamed { .. } => "renamed",
        _ => "unknown",
    };
    (kind_name, body, name)
}
