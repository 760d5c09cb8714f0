//! Reads of sessions, tokens, passwords and links: whose something is.

use shared::acts::Scope;
use shared::model::{Ms, UserId};
use shared::protocol::User;

use super::database::{Connection, OptionalExtension, params};
use super::read::{self, damaged, is_banned, parse_role, person, text, token, user_id, user_name};
use super::{Trouble, number};
use crate::store::{Credentials, Identity, Link, StoreError, TokenHash};

/// The end of a session that is kept, so that its token lets nobody in again.
pub(super) const ENDED: Ms = Ms::MIN;

/// An end, where there is one.
pub(super) fn end(until: Ms) -> Option<Ms> {
    (until < Ms::MAX).then_some(until)
}

/// The user of a session or token, if there is one.
pub(super) fn identity(
    connection: &Connection,
    token: &TokenHash,
    at: Ms,
) -> Result<Option<Identity>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT s.user, u.name, u.role, s.until FROM sessions s JOIN users u ON u.id = s.user
         WHERE s.token = ?1",
    )?;
    let mut rows = statement.query([token.as_slice()])?;
    let Some(row) = rows.next()? else { return program(connection, token, at) };
    let id = user_id(row.get(0)?)?;
    let until = row.get(3)?;
    if until <= at {
        let is_banned = is_banned(connection, id, at)?;
        return Err(if is_banned { StoreError::Banned } else { StoreError::Ended }.into());
    }
    Ok(Some(Identity {
        user: User { id, name: user_name(text(row, 1)?)? },
        role: parse_role(text(row, 2)?)?,
        fresh: false,
        until: end(until),
        scopes: None,
        only_room: None,
    }))
}

/// Those of the tokens that are no session's and no bot's, or of one that was ended.
pub(super) fn void(connection: &Connection, tokens: Vec<TokenHash>) -> Result<Vec<TokenHash>, Trouble> {
    let mut void = Vec::new();
    if connection.is_server() {
        // Each statement is a journey there and back.
        let sql = "SELECT t FROM (SELECT substr(?1::bytea, place * 32 + 1, 32) AS t
                 FROM generate_series(0, octet_length(?1::bytea) / 32 - 1) AS place) AS asked
             WHERE NOT EXISTS (SELECT 1 FROM sessions s WHERE s.token = t AND s.until > ?2)
               AND NOT EXISTS (SELECT 1 FROM tokens b WHERE b.token = t AND b.until > ?2)";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![tokens.as_flattened(), ENDED])?;
        while let Some(row) = rows.next()? {
            void.push(token(row, 0)?);
        }
        return Ok(void);
    }
    for token in tokens {
        let mut is_live = false;
        for sql in [
            "SELECT 1 FROM sessions WHERE token = ?1 AND until > ?2",
            "SELECT 1 FROM tokens WHERE token = ?1 AND until > ?2",
        ] {
            is_live = is_live || connection.prepare_cached(sql)?.exists(params![token.as_slice(), ENDED])?;
        }
        if !is_live {
            void.push(token);
        }
    }
    Ok(void)
}

/// The bot or webhook of a token.
fn program(connection: &Connection, token: &TokenHash, at: Ms) -> Result<Option<Identity>, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT t.user, u.name, u.role, t.until, t.scopes, t.room
         FROM tokens t JOIN users u ON u.id = t.user WHERE t.token = ?1",
    )?;
    let mut rows = statement.query([token.as_slice()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let id = user_id(row.get(0)?)?;
    let until = row.get(3)?;
    if until <= at {
        return gone(connection, id, at);
    }
    Ok(Some(Identity {
        user: User { id, name: user_name(text(row, 1)?)? },
        role: parse_role(text(row, 2)?)?,
        fresh: false,
        until: end(until),
        scopes: Some(parse_scopes(text(row, 4)?)?),
        only_room: row.get::<Option<i64>>(5)?.map(read::room_id).transpose()?,
    }))
}

fn gone(connection: &Connection, user: UserId, at: Ms) -> Result<Option<Identity>, Trouble> {
    if is_banned(connection, user, at)? { Err(StoreError::Banned.into()) } else { Ok(None) }
}

/// Scopes as they are kept and shown: their names with spaces.
pub(super) fn scope_names(scopes: &[Scope]) -> String {
    let name = |scope: Scope| match scope {
        Scope::Read => "read",
        Scope::Send => "send",
        Scope::Join => "join",
    };
    let all = [Scope::Read, Scope::Send, Scope::Join];
    all.into_iter().filter(|scope| scopes.contains(scope)).map(name).collect::<Vec<_>>().join(" ")
}

fn parse_scopes(text: &str) -> Result<Vec<Scope>, Trouble> {
    let parse = |name: &str| match name {
        "read" => Ok(Scope::Read),
        "send" => Ok(Scope::Send),
        "join" => Ok(Scope::Join),
        _ => Err(damaged("a scope").into()),
    };
    text.split_whitespace().map(parse).collect()
}

pub(super) fn credentials(connection: &Connection, skeleton: &str) -> Result<Credentials, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, password FROM users WHERE skeleton = ?1 AND password IS NOT NULL",
    )?;
    let mut rows = statement.query([skeleton])?;
    let row = rows.next()?.ok_or(StoreError::NotFound)?;
    Ok(Credentials {
        user: User { id: user_id(row.get(0)?)?, name: user_name(text(row, 1)?)? },
        password: text(row, 2)?.to_owned(),
    })
}

/// A link that works, by its secret; and its row and text.
pub(super) fn link(
    connection: &Connection,
    secret: &TokenHash,
    at: Ms,
) -> Result<(i64, Link, String), Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT id, kind, user, text FROM links WHERE secret = ?1 AND until > ?2 AND uses IS DISTINCT FROM 0",
    )?;
    let mut rows = statement.query(params![secret.as_slice(), at])?;
    let row = rows.next()?.ok_or(StoreError::NotFound)?;
    let link = match text(row, 1)? {
        "invite" => Link::Invite,
        "reset" => Link::Reset(person(connection, user_id(row.get(2)?)?)?.user),
        "owner" => Link::Owner,
        _ => return Err(damaged("a link").into()),
    };
    Ok((row.get(0)?, link, text(row, 3)?.to_owned()))
}

/// The user of a session that has not ended, at no time in particular.
pub(super) fn session_user(connection: &Connection, session: &TokenHash) -> Result<UserId, Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT user FROM sessions WHERE token = ?1 AND until > ?2")?;
    let user = statement.query_row(params![session.as_slice(), ENDED], |row| row.get(0)).optional()?;
    user_id(user.ok_or(StoreError::NotFound)?)
}

/// The tokens of a user's sessions, except of one.
pub(super) fn sessions_but(
    connection: &Connection,
    user: UserId,
    but: Option<&TokenHash>,
) -> Result<Vec<TokenHash>, Trouble> {
    let mut statement =
        connection.prepare_cached("SELECT token FROM sessions WHERE user = ?1 AND until > ?2")?;
    let mut rows = statement.query([number(user.bits()), ENDED])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        let token = token(row, 0)?;
        if Some(&token) != but {
            tokens.push(token);
        }
    }
    Ok(tokens)
}
