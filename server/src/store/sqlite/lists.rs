//! The lists one may look into.

use shared::acts::{Entry, List, ROWS_MAX};
use shared::model::{Ms, RoomId, UserId, UserName};
use shared::protocol::User;
use shared::rights::Right;

use super::acts::{row_number, row_text};
use super::bots::hook_row;
use super::database::{Connection, Row, Rows, params};
use super::facts::{demand, facts, may_of_server};
use super::identities::end;
use super::own::session_id;
use super::read::{self, Person, damaged, text, user_id, user_name};
use super::{Trouble, limit, number};
use crate::store::{AddressBan, ListQuery, StoreError, TokenHash};

/// The rows of a list.
pub(super) fn list(connection: &Connection, by: UserId, query: &ListQuery) -> Result<Vec<Entry>, Trouble> {
    let person = read::person(connection, by)?;
    if read::is_banned(connection, by, query.at)? {
        return Err(StoreError::Banned.into());
    }
    let (before, at) = (query.before.as_deref(), query.at);
    match query.list {
        List::Sessions => sessions(connection, by, &query.session, before, at),
        List::Blocks => blocks(connection, by, before),
        List::Bots => bots(connection, by, before, at),
        List::Hooks => hooks(connection, by, query.room.ok_or(StoreError::NotFound)?, before, at),
        List::Users => users(connection, query.text.as_str(), before),
        List::Links => links(connection, &person, before, at),
        List::Bans => bans(connection, &person, before, at),
        List::Reports => reports(connection, &person, before),
        List::Audit => audit(connection, &person, before),
    }
}

/// The addresses that are banned.
pub(super) fn address_bans(connection: &Connection, at: Ms) -> Result<Vec<AddressBan>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT addresses, until FROM bans WHERE addresses IS NOT NULL AND until > ?1 ORDER BY id",
    )?;
    let ban = |row: Row<'_>| Ok(AddressBan { addresses: text(row, 0)?.to_owned(), until: end(row.get(1)?) });
    collect(statement.query([at])?, ban)
}

fn collect<T>(mut rows: Rows<'_>, read: impl Fn(Row<'_>) -> Result<T, Trouble>) -> Result<Vec<T>, Trouble> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The number of the row that newer ones end at; all are newer than none.
fn bound(before: Option<&str>) -> Result<i64, Trouble> {
    before.map_or(Ok(i64::MAX), row_number)
}

/// The user whose id and name stand in two columns, if anybody does.
fn user_in(row: Row<'_>, column: usize) -> Result<Option<User>, Trouble> {
    match row.get::<Option<i64>>(column)? {
        Some(id) => Ok(Some(User { id: user_id(id)?, name: user_name(text(row, column + 1)?)? })),
        None => Ok(None),
    }
}

fn room_in(row: Row<'_>, column: usize) -> Result<Option<RoomId>, Trouble> {
    row.get::<Option<i64>>(column)?.map(read::room_id).transpose()
}

/// A list that is kept whole: what comes after one of its rows.
fn rest(mut rows: Vec<Entry>, before: Option<&str>) -> Vec<Entry> {
    if let Some(before) = before {
        let seen = rows.iter().position(|row| row.id == before).map_or(rows.len(), |place| place + 1);
        rows.drain(..seen);
    }
    rows.truncate(ROWS_MAX);
    rows
}

fn sessions(
    connection: &Connection,
    by: UserId,
    current: &TokenHash,
    before: Option<&str>,
    at: Ms,
) -> Result<Vec<Entry>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT token, device, used, until FROM sessions WHERE user = ?1 AND until > ?2
         ORDER BY used DESC, token",
    )?;
    let session = |row: Row<'_>| {
        let token = read::token(row, 0)?;
        Ok(Entry {
            id: session_id(&token),
            text: text(row, 1)?.to_owned(),
            at: Some(row.get(2)?),
            until: end(row.get(3)?),
            current: token == *current,
            ..Entry::default()
        })
    };
    Ok(rest(collect(statement.query([number(by.bits()), at])?, session)?, before))
}

fn blocks(connection: &Connection, by: UserId, before: Option<&str>) -> Result<Vec<Entry>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT b.id, u.id, u.name, b.at FROM blocks b JOIN users u ON u.id = b.blocked
         WHERE b.user = ?1 AND b.id < ?2 ORDER BY b.id DESC LIMIT ?3",
    )?;
    let block = |row: Row<'_>| {
        let user = user_in(row, 1)?;
        Ok(Entry { id: row_text(row.get(0)?), user, at: Some(row.get(3)?), ..Entry::default() })
    };
    collect(statement.query([number(by.bits()), bound(before)?, limit(ROWS_MAX)])?, block)
}

/// The bots, which have no row id, come first: the ids of tokens lead through the rest.
fn bots(connection: &Connection, by: UserId, before: Option<&str>, at: Ms) -> Result<Vec<Entry>, Trouble> {
    let mut entries = Vec::new();
    if before.is_none() {
        let mut statement = connection.prepare_cached(
            "SELECT id, name, at FROM users WHERE bot_owner = ?1 AND bot = 'bot' ORDER BY at DESC, id",
        )?;
        let bot =
            |row: Row<'_>| Ok(Entry { user: user_in(row, 0)?, at: Some(row.get(2)?), ..Entry::default() });
        entries = collect(statement.query([number(by.bits())])?, bot)?;
    }
    let mut statement = connection.prepare_cached(
        "SELECT t.id, u.id, u.name, t.text, t.scopes, t.used, t.until
         FROM users u JOIN tokens t ON t.user = u.id
         WHERE u.bot_owner = ?1 AND u.bot = 'bot' AND t.until > ?2 AND t.id < ?3
         ORDER BY t.id DESC LIMIT ?4",
    )?;
    let token = |row: Row<'_>| {
        Ok(Entry {
            id: row_text(row.get(0)?),
            user: user_in(row, 1)?,
            text: text(row, 3)?.to_owned(),
            kind: text(row, 4)?.to_owned(),
            at: Some(row.get(5)?),
            until: end(row.get(6)?),
            ..Entry::default()
        })
    };
    let rows = limit(ROWS_MAX.saturating_sub(entries.len()));
    entries.extend(collect(statement.query([number(by.bits()), at, bound(before)?, rows])?, token)?);
    Ok(entries)
}

fn hooks(
    connection: &Connection,
    by: UserId,
    room: RoomId,
    before: Option<&str>,
    at: Ms,
) -> Result<Vec<Entry>, Trouble> {
    facts(connection, room, by)?.demand(Right::MakeHook)?;
    let mut statement = connection.prepare_cached(
        "SELECT h.id, h.incoming, h.text, h.more, u.id, u.name, b.id, b.name, h.at FROM (
             SELECT id, 0 AS incoming, text, trim(url || ' ' || last) AS more, maker, NULL AS user, at
             FROM hooks WHERE room = ?1
             UNION ALL
             SELECT id, 1, text, '', maker, user, at FROM tokens WHERE room = ?1 AND until > ?2
         ) h JOIN users u ON u.id = h.maker LEFT JOIN users b ON b.id = h.user
         ORDER BY h.at DESC, h.incoming, h.id DESC",
    )?;
    let hook = |row: Row<'_>| {
        let is_incoming: bool = row.get(1)?;
        Ok(Entry {
            id: row_text(hook_row(row.get(0)?, is_incoming)),
            kind: if is_incoming { "incoming" } else { "outgoing" }.to_owned(),
            text: text(row, 2)?.to_owned(),
            more: text(row, 3)?.to_owned(),
            by: user_in(row, 4)?,
            user: user_in(row, 6)?,
            room: Some(room),
            at: Some(row.get(8)?),
            ..Entry::default()
        })
    };
    Ok(rest(collect(statement.query([number(room.bits()), at])?, hook)?, before))
}

fn users(connection: &Connection, prefix: &str, before: Option<&str>) -> Result<Vec<Entry>, Trouble> {
    let (last_name, last_id) = match before {
        None => (String::new(), -1),
        Some(id) => {
            let user = read::user(connection, user_id(row_number(id)?)?)?;
            (user.name.to_string(), number(user.id.bits()))
        }
    };
    let user = |row: Row<'_>| {
        let user = user_in(row, 0)?.ok_or_else(|| damaged("a user"))?;
        Ok(Entry {
            id: user.id.to_string(),
            user: Some(user),
            kind: text(row, 2)?.to_owned(),
            ..Entry::default()
        })
    };
    let key = UserName::search_key(prefix);
    // All of many are read in the order of an index; some of them are sorted.
    if key.is_empty() {
        let sql = connection.dialect(
            "SELECT id, name, role FROM users
             WHERE name COLLATE NOCASE >= ?1 AND (name COLLATE NOCASE, id) > (?1, ?2)
             AND bot IS DISTINCT FROM 'hook'
             ORDER BY name COLLATE NOCASE, id LIMIT ?3",
            "SELECT id, name, role FROM users
             WHERE (lower(name), id) > (lower(CAST(?1 AS text) COLLATE \"C\"), ?2) AND bot IS DISTINCT FROM 'hook'
             ORDER BY lower(name), id LIMIT ?3",
        );
        let mut statement = connection.prepare_cached(sql)?;
        return collect(statement.query(params![last_name, last_id, limit(ROWS_MAX)])?, user);
    }
    let sql = connection.dialect(
        "SELECT id, name, role FROM users
         WHERE skeleton >= ?1 AND skeleton < ?2 AND +bot IS DISTINCT FROM 'hook'
         AND (+name COLLATE NOCASE, +id) > (?3, ?4)
         ORDER BY +name COLLATE NOCASE, +id LIMIT ?5",
        "SELECT id, name, role FROM users
         WHERE skeleton >= ?1 AND skeleton < ?2 AND bot IS DISTINCT FROM 'hook'
         AND (lower(name), id) > (lower(CAST(?3 AS text) COLLATE \"C\"), ?4)
         ORDER BY lower(name), id LIMIT ?5",
    );
    let mut statement = connection.prepare_cached(sql)?;
    let end = format!("{key}{}", char::MAX);
    collect(statement.query(params![key, end, last_name, last_id, limit(ROWS_MAX)])?, user)
}

fn links(
    connection: &Connection,
    person: &Person,
    before: Option<&str>,
    at: Ms,
) -> Result<Vec<Entry>, Trouble> {
    demand(person, Right::InviteToServer)?;
    let mut statement = connection.prepare_cached(
        "SELECT l.id, l.kind, l.text, u.id, u.name, m.id, m.name, l.uses, l.at, l.until
         FROM links l JOIN users m ON m.id = l.maker LEFT JOIN users u ON u.id = l.user
         WHERE l.id < ?1 AND l.until > ?2 AND (l.kind = 'invite' OR l.kind = 'reset' AND ?3)
         ORDER BY l.id DESC LIMIT ?4",
    )?;
    let link = |row: Row<'_>| {
        Ok(Entry {
            id: row_text(row.get(0)?),
            kind: text(row, 1)?.to_owned(),
            text: text(row, 2)?.to_owned(),
            user: user_in(row, 3)?,
            by: user_in(row, 5)?,
            uses: row.get(7)?,
            at: Some(row.get(8)?),
            until: end(row.get(9)?),
            ..Entry::default()
        })
    };
    let resets = may_of_server(person.role, Right::ResetPassword);
    collect(statement.query(params![bound(before)?, at, resets, limit(ROWS_MAX)])?, link)
}

fn bans(
    connection: &Connection,
    person: &Person,
    before: Option<&str>,
    at: Ms,
) -> Result<Vec<Entry>, Trouble> {
    demand(person, Right::Ban)?;
    let mut statement = connection.prepare_cached(
        "SELECT b.id, u.id, u.name, b.addresses, b.text, m.id, m.name, b.at, b.until
         FROM bans b JOIN users m ON m.id = b.maker LEFT JOIN users u ON u.id = b.user
         WHERE b.id < ?1 AND b.until > ?2 ORDER BY b.id DESC LIMIT ?3",
    )?;
    let ban = |row: Row<'_>| {
        Ok(Entry {
            id: row_text(row.get(0)?),
            user: user_in(row, 1)?,
            more: row.get::<Option<String>>(3)?.unwrap_or_default(),
            text: text(row, 4)?.to_owned(),
            by: user_in(row, 5)?,
            at: Some(row.get(7)?),
            until: end(row.get(8)?),
            ..Entry::default()
        })
    };
    collect(statement.query([bound(before)?, at, limit(ROWS_MAX)])?, ban)
}

fn reports(connection: &Connection, person: &Person, before: Option<&str>) -> Result<Vec<Entry>, Trouble> {
    demand(person, Right::ReadReports)?;
    let mut statement = connection.prepare_cached(
        "SELECT r.id, e.author, e.author_name, r.room, r.seq, r.text, coalesce(e.body, ''), m.id, m.name, r.at
         FROM reports r JOIN users m ON m.id = r.maker JOIN events e ON e.room = r.room AND e.seq = r.seq
         WHERE r.id < ?1 ORDER BY r.id DESC LIMIT ?2",
    )?;
    let report = |row: Row<'_>| {
        Ok(Entry {
            id: row_text(row.get(0)?),
            user: user_in(row, 1)?,
            room: room_in(row, 3)?,
            seq: Some(read::bits(row.get(4)?)?),
            text: text(row, 5)?.to_owned(),
            more: text(row, 6)?.to_owned(),
            by: user_in(row, 7)?,
            at: Some(row.get(9)?),
            ..Entry::default()
        })
    };
    collect(statement.query([bound(before)?, limit(ROWS_MAX)])?, report)
}

fn audit(connection: &Connection, person: &Person, before: Option<&str>) -> Result<Vec<Entry>, Trouble> {
    demand(person, Right::ReadAudit)?;
    let mut statement = connection.prepare_cached(
        "SELECT a.id, a.kind, m.id, m.name, u.id, u.name, a.room, a.text, a.at
         FROM audit a JOIN users m ON m.id = a.maker LEFT JOIN users u ON u.id = a.user
         WHERE a.id < ?1 ORDER BY a.id DESC LIMIT ?2",
    )?;
    let row = |row: Row<'_>| {
        Ok(Entry {
            id: row_text(row.get(0)?),
            kind: text(row, 1)?.to_owned(),
            by: user_in(row, 2)?,
            user: user_in(row, 4)?,
            room: room_in(row, 6)?,
            text: text(row, 7)?.to_owned(),
            at: Some(row.get(8)?),
            ..Entry::default()
        })
    };
    collect(statement.query([bound(before)?, limit(ROWS_MAX)])?, row)
}
