//! The queries of the embedded store. They work on any connection, the writer's too, and trust no row.

use shared::acts::{GROUP_MAX, HOOKS_MAX};
use shared::model::{LOBBY, Line, Ms, Ref, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, Listing, RoomInfo, RoomKind, UNREAD_MAX, User};
use shared::rights::Role;
use uuid::Uuid;

use super::database::{Connection, NONE, OptionalExtension, Row, Value, params};
use super::{Trouble, kinds, limit, number};
use crate::store::{Account, Cursor, Ended, Page, RoomKey, StoreError, TokenHash, UNREAD_SCAN_MAX};

/// Most people of a group that are read: more than can be in it, its webhooks counted.
const PEOPLE_MAX: usize = GROUP_MAX + HOOKS_MAX;

/// Selects events, in the order that `event` reads.
macro_rules! events {
    ($rest:literal) => {
        concat!("SELECT room, seq, at, author, author_name, kind, body, name, data, ref FROM events ", $rest)
    };
}

/// Selects rooms as the user ?1 sees them, in the order that `info` reads.
macro_rules! infos {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.kind, r.name, r.epoch,
                 coalesce((SELECT max(seq) FROM events WHERE room = r.id), 0),
                 coalesce(c.read, 0), coalesce(c.version, 0), coalesce(c.quiet, 0),
                 p.id, p.name, r.owner, r.topic, r.archived, r.slow, m.until
             FROM rooms r
             LEFT JOIN cursors c ON c.user = ?1 AND c.room = r.id
             LEFT JOIN mutes m ON m.user = ?1 AND m.room = r.id
             LEFT JOIN users p ON p.id = CASE r.low WHEN ?1 THEN r.high ELSE r.low END ",
            $rest
        )
    };
}

/// Counts the messages of others after a place in a room. The order says that the log's index is to be used.
macro_rules! unread_events {
    ($room:literal, $after:literal, $user:literal, $max:literal) => {
        concat!(
            "SELECT count(*) FROM (
                 SELECT 1 FROM events WHERE room = ",
            $room,
            " AND seq > ",
            $after,
            " AND author <> ",
            $user,
            " AND kind = 'message' AND author NOT IN (SELECT blocked FROM blocks WHERE user = ",
            $user,
            ") ORDER BY seq LIMIT ",
            $max,
            ") AS found"
        )
    };
}

/// Counts those among them that mention the user, on a server: it looks up each event by itself, for it may not
/// know that there are few.
macro_rules! unread_mentions {
    ($room:literal, $after:literal, $user:literal, $max:literal) => {
        concat!(
            "SELECT count(*) FROM (
                 SELECT 1 FROM (
                     SELECT seq FROM mentions WHERE user = ",
            $user,
            " AND room = ",
            $room,
            " AND seq > ",
            $after,
            " UNION SELECT seq FROM mentions WHERE user = -1 AND room = ",
            $room,
            " AND seq > ",
            $after,
            ") m JOIN LATERAL (SELECT author, kind FROM events WHERE room = ",
            $room,
            " AND seq = m.seq LIMIT 1) e ON true WHERE e.author <> ",
            $user,
            " AND e.kind = 'message' AND e.author NOT IN (SELECT blocked FROM blocks WHERE user = ",
            $user,
            ") LIMIT ",
            $max,
            ") AS found"
        )
    };
}

/// The answer where a row does not hold what it must.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the database is damaged: {what}"))
}

pub(super) fn bits(value: i64) -> Result<u64, Trouble> {
    u64::try_from(value).map_err(|_| damaged("a negative number").into())
}

pub(super) fn small(value: i64) -> Result<u32, Trouble> {
    u32::try_from(value).map_err(|_| damaged("a number out of range").into())
}

pub(super) fn user_id(value: i64) -> Result<UserId, Trouble> {
    bits(value).map(UserId::from_bits)
}

pub(super) fn room_id(value: i64) -> Result<RoomId, Trouble> {
    bits(value).map(RoomId::from_bits)
}

pub(super) fn user_name(text: &str) -> Result<UserName, Trouble> {
    UserName::parse(text).map_err(|_| damaged("a user's name").into())
}

pub(super) fn room_name(text: &str) -> Result<RoomName, Trouble> {
    RoomName::parse(text).map_err(|_| damaged("a room's name").into())
}

/// A text of a row, borrowed from it.
pub(super) fn text<'a>(row: Row<'a>, column: usize) -> Result<&'a str, Trouble> {
    row.get_ref(column)?.as_str().map_err(|_| damaged("a text").into())
}

fn event(row: Row<'_>) -> Result<Event, Trouble> {
    let reference = match row.get_ref(9)?.as_blob_or_null().map_err(|_| damaged("a ref"))? {
        Some(bytes) => Some(Ref(Uuid::from_slice(bytes).map_err(|_| damaged("a ref"))?)),
        None => None,
    };
    Ok(Event {
        room: room_id(row.get(0)?)?,
        seq: bits(row.get(1)?)?,
        at: row.get(2)?,
        user: User { id: user_id(row.get(3)?)?, name: user_name(text(row, 4)?)? },
        kind: kinds::kind(row, 5)?,
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

/// The epochs and heads of those of the rooms that exist.
pub(super) fn heads(connection: &Connection, rooms: Vec<RoomId>) -> Result<Vec<(RoomId, u32, Seq)>, Trouble> {
    let mut heads = Vec::with_capacity(rooms.len());
    if connection.is_server() {
        // Each statement is a journey there and back.
        let rooms: Vec<i64> = rooms.iter().map(|room| number(room.bits())).collect();
        let mut statement = connection.prepare_cached(
            "SELECT r.id, r.epoch, coalesce((SELECT max(seq) FROM events WHERE room = r.id), 0)
             FROM rooms r WHERE r.id = ANY(?1)",
        )?;
        let mut rows = statement.query([Value::Numbers(&rooms)])?;
        while let Some(row) = rows.next()? {
            heads.push((room_id(row.get(0)?)?, small(row.get(1)?)?, bits(row.get(2)?)?));
        }
        return Ok(heads);
    }
    for room in rooms {
        if let Some((epoch, head)) = head(connection, room)? {
            heads.push((room, epoch, head));
        }
    }
    Ok(heads)
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

/// The event at a place of a room's log.
pub(super) fn event_at(connection: &Connection, room: RoomId, seq: Seq) -> Result<Option<Event>, Trouble> {
    let sql = events!("WHERE room = ?1 AND seq = ?2 LIMIT ?3");
    Ok(events(connection, sql, [number(room.bits()), number(seq), 1])?.pop())
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

/// What a user is.
pub(super) struct Person {
    pub user: User,
    pub role: Role,
    /// Signs in by a password.
    pub has_password: bool,
    pub program: Option<Program>,
}

/// A user who is no person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A bot, and whose.
    Bot(UserId),
    /// The author of what an incoming webhook posts.
    Hook,
}

/// What a user is, by id.
pub(super) fn person(connection: &Connection, id: UserId) -> Result<Person, Trouble> {
    let mut statement = connection
        .prepare_cached("SELECT name, role, password IS NOT NULL, bot, bot_owner FROM users WHERE id = ?1")?;
    let mut rows = statement.query([number(id.bits())])?;
    let row = rows.next()?.ok_or(StoreError::NotFound)?;
    let program = match row.get_ref(3)?.as_str_or_null().map_err(|_| damaged("a text"))? {
        None => None,
        Some("bot") => Some(Program::Bot(user_id(row.get(4)?)?)),
        Some(_) => Some(Program::Hook),
    };
    Ok(Person {
        user: User { id, name: user_name(text(row, 0)?)? },
        role: parse_role(text(row, 1)?)?,
        has_password: row.get(2)?,
        program,
    })
}

pub(super) fn parse_role(text: &str) -> Result<Role, Trouble> {
    Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| damaged("a role").into())
}

/// Whether a user is banned.
pub(super) fn is_banned(connection: &Connection, user: UserId, at: Ms) -> Result<bool, Trouble> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM bans WHERE user = ?1 AND until > ?2")?;
    statement.exists([number(user.bits()), at])
}

/// Until when a user may not write in a room.
pub(super) fn muted_until(
    connection: &Connection,
    room: RoomId,
    user: UserId,
) -> Result<Option<Ms>, Trouble> {
    // Nobody goes on talking by way of a bot of theirs.
    let mut statement = connection.prepare_cached(
        "SELECT max(until) FROM mutes
         WHERE room = ?1 AND user IN (?2, (SELECT bot_owner FROM users WHERE id = ?2))",
    )?;
    let of = [number(room.bits()), number(user.bits())];
    statement.query_row(of, |row| row.get(0))
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

/// The group that just these people are in, webhooks not counted. `others` are sorted.
pub(super) fn group(
    connection: &Connection,
    user: UserId,
    others: &[UserId],
) -> Result<Option<RoomId>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT r.id FROM members m JOIN rooms r ON r.id = m.room
         WHERE m.user = ?1 AND r.kind = 'group' AND r.members > ?2 ORDER BY r.archived, r.at, r.id",
    )?;
    let mut rows = statement.query([number(user.bits()), limit(others.len())])?;
    while let Some(row) = rows.next()? {
        let room = room_id(row.get(0)?)?;
        let mut statement = connection.prepare_cached(
            "SELECT m.user FROM members m JOIN users u ON u.id = m.user
             WHERE m.room = ?1 AND m.user <> ?2 AND u.bot IS DISTINCT FROM 'hook' ORDER BY m.user",
        )?;
        let mut rows = statement.query([number(room.bits()), number(user.bits())])?;
        let mut people = Vec::new();
        while let Some(row) = rows.next()? {
            people.push(user_id(row.get(0)?)?);
        }
        if people == others {
            return Ok(Some(room));
        }
    }
    Ok(None)
}

/// How many are in a room, webhooks not counted.
pub(super) fn people_count(connection: &Connection, room: RoomId) -> Result<u64, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM members m JOIN users u ON u.id = m.user
         WHERE m.room = ?1 AND u.bot IS DISTINCT FROM 'hook'",
    )?;
    bits(statement.query_row([number(room.bits())], |row| row.get(0))?)
}

/// All members of a room. Not for the lobby.
pub(super) fn all_members(connection: &Connection, room: RoomId) -> Result<Vec<UserId>, Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT user FROM members WHERE room = ?1 ORDER BY user")?;
    let mut rows = statement.query([number(room.bits())])?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(user_id(row.get(0)?)?);
    }
    Ok(users)
}

/// Whether a room's messages are posted anywhere.
pub(super) fn has_hooks(connection: &Connection, room: RoomId) -> Result<bool, Trouble> {
    connection.prepare_cached("SELECT 1 FROM hooks WHERE room = ?1")?.exists([number(room.bits())])
}

/// Sessions or tokens, by user. `sql` selects user and token of what belongs to an id.
pub(super) fn tokens_where(connection: &Connection, sql: &str, id: i64) -> Result<Vec<Ended>, Trouble> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut ended: Vec<Ended> = Vec::new();
    while let Some(row) = rows.next()? {
        let user = user_id(row.get(0)?)?;
        let token = token(row, 1)?;
        match ended.iter_mut().find(|ended| ended.user == user) {
            Some(ended) => ended.tokens.push(token),
            None => ended.push(Ended { user, tokens: vec![token] }),
        }
    }
    Ok(ended)
}

/// A hash of a row.
pub(super) fn token(row: Row<'_>, column: usize) -> Result<TokenHash, Trouble> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|_| damaged("a hash"))?;
    bytes.try_into().map_err(|_| damaged("a hash").into())
}

/// The kind of a room, if it exists.
pub(super) fn room_kind(connection: &Connection, room: RoomId) -> Result<Option<RoomKind>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT kind FROM rooms WHERE id = ?1")?;
    let mut rows = statement.query([number(room.bits())])?;
    rows.next()?.map(|row| parse_room_kind(text(row, 0)?)).transpose()
}

pub(super) fn parse_room_kind(text: &str) -> Result<RoomKind, Trouble> {
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

/// The user's cursor in a room as it is kept: its place and version. Both are 0 if they never read there.
pub(super) fn cursor_place(
    connection: &Connection,
    room: RoomId,
    user: UserId,
) -> Result<(Seq, u32), Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT read, version FROM cursors WHERE user = ?1 AND room = ?2")?;
    let mut rows = statement.query([number(user.bits()), number(room.bits())])?;
    match rows.next()? {
        Some(row) => Ok((bits(row.get(0)?)?, small(row.get(1)?)?)),
        None => Ok((0, 0)),
    }
}

/// The user's cursor in a room, and what is after it.
pub(super) fn cursor(connection: &Connection, room: RoomId, user: UserId) -> Result<Cursor, Trouble> {
    let (_, head) = head(connection, room)?.ok_or(StoreError::NotFound)?;
    let (seq, version) = cursor_place(connection, room, user)?;
    let (unread, mentioned) = unread(connection, room, user, seq, head)?;
    Ok(Cursor { seq, version, unread, mentioned })
}

/// Messages of others after a cursor, without those of people the user has blocked, and those among them that
/// mention the user; each at most `UNREAD_MAX`. Looks at no more than `UNREAD_SCAN_MAX` events.
fn unread(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    read: Seq,
    head: Seq,
) -> Result<(u32, u32), Trouble> {
    if read >= head {
        return Ok((0, 0));
    }
    let from = read.max(head.saturating_sub(UNREAD_SCAN_MAX));
    let of = [number(room.bits()), number(from), number(user.bits()), i64::from(UNREAD_MAX)];
    let mut statement = connection.prepare_cached(unread_events!("?1", "?2", "?3", "?4"))?;
    let unread = small(statement.query_row(of, |row| row.get(0))?)?;
    if unread == 0 {
        return Ok((0, 0));
    }
    let sql = connection.dialect(
        "SELECT count(*) FROM (
             SELECT e.seq FROM (
                 SELECT seq FROM mentions WHERE user = ?3 AND room = ?1 AND seq > ?2
                 UNION SELECT seq FROM mentions WHERE user = -1 AND room = ?1 AND seq > ?2
             ) m CROSS JOIN events e ON e.room = ?1 AND e.seq = m.seq
             WHERE e.author <> ?3 AND e.kind = 'message'
             AND e.author NOT IN (SELECT blocked FROM blocks WHERE user = ?3) LIMIT ?4
         ) AS found",
        unread_mentions!("?1", "?2", "?3", "?4"),
    );
    let mut statement = connection.prepare_cached(sql)?;
    Ok((unread, small(statement.query_row(of, |row| row.get(0))?)?))
}

/// A user's cursors in the lobby and the rooms that somebody else is in, too: all at once, on a server.
pub(super) fn cursors_beside(
    connection: &Connection,
    user: UserId,
    other: UserId,
) -> Result<Vec<(RoomId, Cursor)>, Trouble> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT s.room, s.read, s.version,
             CASE WHEN s.read < s.head THEN (",
        unread_events!("s.room", "s.after", "?1", "?3"),
        ") ELSE 0 END, CASE WHEN s.read < s.head THEN (",
        unread_mentions!("s.room", "s.after", "?1", "?3"),
        ") ELSE 0 END
         FROM (
             SELECT b.room, coalesce(c.read, 0) AS read, coalesce(c.version, 0) AS version, h.head,
                 greatest(coalesce(c.read, 0), h.head - ?4) AS after
             FROM (
                 SELECT CAST(?5 AS bigint) AS room
                 UNION ALL
                 SELECT m.room FROM members m JOIN members o ON o.room = m.room AND o.user = ?2
                 WHERE m.user = ?1
             ) b
             JOIN LATERAL (SELECT coalesce(max(seq), 0) AS head FROM events WHERE room = b.room) h ON true
             LEFT JOIN cursors c ON c.user = ?1 AND c.room = b.room
             OFFSET 0
         ) s ORDER BY s.room"
    ))?;
    let mut rows = statement.query([
        number(user.bits()),
        number(other.bits()),
        i64::from(UNREAD_MAX),
        number(UNREAD_SCAN_MAX),
        number(LOBBY.bits()),
    ])?;
    let mut cursors = Vec::new();
    while let Some(row) = rows.next()? {
        let cursor = Cursor {
            seq: bits(row.get(1)?)?,
            version: small(row.get(2)?)?,
            unread: small(row.get(3)?)?,
            mentioned: small(row.get(4)?)?,
        };
        cursors.push((room_id(row.get(0)?)?, cursor));
    }
    Ok(cursors)
}

fn info(connection: &Connection, user: UserId, row: Row<'_>) -> Result<RoomInfo, Trouble> {
    let id = room_id(row.get(0)?)?;
    let kind = parse_room_kind(text(row, 1)?)?;
    let mut info = RoomInfo::new(id, kind);
    match kind {
        RoomKind::Public | RoomKind::Private => info.name = Some(room_name(text(row, 2)?)?),
        RoomKind::Direct => {
            info.peer = Some(User { id: user_id(row.get(8)?)?, name: user_name(text(row, 9)?)? });
        }
        RoomKind::Group => {
            info.people = members(connection, id, PEOPLE_MAX)?.0;
            info.people.retain(|person| person.id != user);
        }
    }
    info.epoch = small(row.get(3)?)?;
    info.head = bits(row.get(4)?)?;
    info.read = bits(row.get(5)?)?;
    info.read_version = small(row.get(6)?)?;
    info.quiet = row.get(7)?;
    info.owner = row.get::<Option<i64>>(10)?.map(user_id).transpose()?;
    info.topic = Some(Line::new(text(row, 11)?)).filter(|topic| !topic.as_str().is_empty());
    info.archived = row.get(12)?;
    info.slow_seconds = small(row.get(13)?)?;
    info.muted_until = row.get(14)?;
    (info.unread, info.mentioned) = unread(connection, id, user, info.read, info.head)?;
    Ok(info)
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
    let sql = infos!(
        "WHERE r.id IN (SELECT CAST(?2 AS bigint) UNION ALL SELECT room FROM members WHERE user = ?1) ORDER BY r.id"
    );
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([number(user.bits()), number(LOBBY.bits())])?;
    let mut infos = Vec::new();
    while let Some(row) = rows.next()? {
        infos.push(info(connection, user, row)?);
    }
    Ok(infos)
}

/// Whom a user has blocked.
fn blocked(connection: &Connection, user: UserId) -> Result<Vec<UserId>, Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT blocked FROM blocks WHERE user = ?1 ORDER BY id")?;
    let mut rows = statement.query([number(user.bits())])?;
    let mut blocked = Vec::new();
    while let Some(row) = rows.next()? {
        blocked.push(user_id(row.get(0)?)?);
    }
    Ok(blocked)
}

/// The lobby and the rooms that a user is a member of, by id.
pub(super) fn room_ids_of(connection: &Connection, user: UserId) -> Result<Vec<RoomId>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT CAST(?2 AS bigint) AS room UNION ALL SELECT room FROM members WHERE user = ?1 ORDER BY room",
    )?;
    let mut rows = statement.query([number(user.bits()), number(LOBBY.bits())])?;
    let mut rooms = Vec::new();
    while let Some(row) = rows.next()? {
        rooms.push(room_id(row.get(0)?)?);
    }
    Ok(rooms)
}

/// How many own the server.
pub(super) fn owners_count(connection: &Connection) -> Result<u64, Trouble> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM users WHERE role = 'owner'")?;
    bits(statement.query_row(NONE, |row| row.get(0))?)
}

/// Whether one of two has blocked the other.
pub(super) fn is_blocked(connection: &Connection, one: UserId, other: UserId) -> Result<bool, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM blocks WHERE user = ?1 AND blocked IN (?2, (SELECT bot_owner FROM users WHERE id = ?2))
         UNION ALL
         SELECT 1 FROM blocks WHERE user = ?2 AND blocked IN (?1, (SELECT bot_owner FROM users WHERE id = ?1))",
    )?;
    statement.exists([number(one.bits()), number(other.bits())])
}

pub(super) fn account(connection: &Connection, id: UserId) -> Result<Account, Trouble> {
    Ok(Account {
        role: person(connection, id)?.role,
        user: user(connection, id)?,
        rooms: rooms_of(connection, id)?,
        blocked: blocked(connection, id)?,
    })
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
