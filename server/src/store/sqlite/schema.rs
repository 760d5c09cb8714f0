//! The tables of the embedded store, and the way from each older schema to the newest.
//!
//! A migration that was released never changes; a new one is added behind it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use shared::model::{LOBBY, LOBBY_NAME, RoomName};
use shared::protocol::RoomKind;

use super::{OpenError, number};

/// `user_version` n is the state after the first n of these.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        skeleton TEXT NOT NULL UNIQUE,
        at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE sessions (
        token BLOB PRIMARY KEY,
        user INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Public rooms have a name, direct conversations their two users.
    CREATE TABLE rooms (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT,
        skeleton TEXT UNIQUE,
        low INTEGER REFERENCES users (id),
        high INTEGER REFERENCES users (id),
        epoch INTEGER NOT NULL,
        members INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX rooms_direct ON rooms (low, high) WHERE low IS NOT NULL;
    CREATE INDEX rooms_directory ON rooms (members DESC, name) WHERE kind = 'public';

    CREATE TABLE members (
        user INTEGER NOT NULL REFERENCES users (id),
        room INTEGER NOT NULL REFERENCES rooms (id),
        at INTEGER NOT NULL,
        PRIMARY KEY (user, room)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX members_room ON members (room);

    CREATE TABLE cursors (
        user INTEGER NOT NULL,
        room INTEGER NOT NULL,
        read INTEGER NOT NULL,
        PRIMARY KEY (user, room)
    ) STRICT, WITHOUT ROWID;

    -- Without foreign keys: the writer has checked both before it appends.
    CREATE TABLE events (
        room INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        author INTEGER NOT NULL,
        author_name TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT,
        name TEXT,
        ref BLOB,
        PRIMARY KEY (room, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX events_ref ON events (author, ref) WHERE ref IS NOT NULL;
"];

/// Brings the schema up to date, makes the lobby and the secret if they are missing, and reads the secret.
///
/// # Errors
/// `Newer` for a schema that is not known here, `Database`, `Damaged`, `Random`.
pub(in crate::store) fn prepare(connection: &mut Connection, dir: &Path) -> Result<[u8; 32], OpenError> {
    let failed = |error| OpenError::Database { dir: dir.to_owned(), error };
    let damaged = |what| OpenError::Damaged { dir: dir.to_owned(), what };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;

    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(OpenError::Newer { dir: dir.to_owned(), found, known });
    }
    let done = usize::try_from(found).map_err(|_| damaged("its schema has a negative number"))?;
    if found < known {
        for migration in &MIGRATIONS[done..] {
            transaction.execute_batch(migration).map_err(failed)?;
        }
        transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    }

    let lobby = RoomName::claim(LOBBY_NAME).map_err(|_| damaged("the lobby has no name"))?;
    transaction
        .execute(
            "INSERT OR IGNORE INTO rooms (id, kind, name, skeleton, epoch, members, at)
             VALUES (?1, ?2, ?3, ?4, 1, 0, 0)",
            params![number(LOBBY.bits()), RoomKind::Public.name(), lobby.name.as_str(), lobby.skeleton],
        )
        .map_err(failed)?;

    let kept: Option<Vec<u8>> = transaction
        .query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let secret = match kept {
        Some(secret) => secret.try_into().map_err(|_| damaged("its secret has not 32 bytes"))?,
        None => {
            let mut secret = [0u8; 32];
            getrandom::fill(&mut secret).map_err(OpenError::Random)?;
            transaction
                .execute("INSERT INTO meta (key, value) VALUES ('secret', ?1)", [secret.as_slice()])
                .map_err(failed)?;
            secret
        }
    };
    transaction.commit().map_err(failed)?;
    Ok(secret)
}
