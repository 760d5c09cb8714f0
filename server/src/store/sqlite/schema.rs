//! The tables of the embedded store, and the way from each older schema to the newest.
//!
//! A migration that was released never changes; a new one is added behind it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use shared::model::{LOBBY, LOBBY_NAME, RoomName};
use shared::protocol::RoomKind;

use super::{OpenError, number};

/// `user_version` n is the state after the first n of these.
pub(super) const MIGRATIONS: &[&str] = &[TALK, PEOPLE];

/// People talk in public rooms and direct conversations.
const TALK: &str = "
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
";

/// Accounts, private rooms, moderation, bots. Ids of rows are never given twice: an old list may name them.
const PEOPLE: &str = "
    ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'guest';
    ALTER TABLE users ADD COLUMN password TEXT;
    -- 'bot' or 'hook'; people have none.
    ALTER TABLE users ADD COLUMN bot TEXT;
    ALTER TABLE users ADD COLUMN bot_owner INTEGER REFERENCES users (id);
    CREATE INDEX users_bots ON users (bot_owner) WHERE bot_owner IS NOT NULL;
    CREATE INDEX users_name ON users (name COLLATE NOCASE);
    CREATE INDEX users_owners ON users (role) WHERE role = 'owner';

    ALTER TABLE sessions ADD COLUMN device TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN until INTEGER NOT NULL DEFAULT 9223372036854775807;
    UPDATE sessions SET used = at;
    CREATE INDEX sessions_user ON sessions (user);

    -- Private rooms have a name without a skeleton: it need not be unique. Groups have none.
    ALTER TABLE rooms ADD COLUMN owner INTEGER REFERENCES users (id);
    ALTER TABLE rooms ADD COLUMN topic TEXT NOT NULL DEFAULT '';
    ALTER TABLE rooms ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rooms ADD COLUMN slow INTEGER NOT NULL DEFAULT 0;
    UPDATE rooms SET owner = coalesce(
        (SELECT e.author FROM events e JOIN members m ON m.user = e.author AND m.room = e.room
         WHERE e.room = rooms.id AND e.seq = 1 AND e.kind = 'created'),
        (SELECT user FROM members WHERE room = rooms.id ORDER BY at, user LIMIT 1)
    ) WHERE kind = 'public';
    -- Rooms that are gone but whose events are not yet.
    CREATE TABLE purges (room INTEGER PRIMARY KEY) STRICT;

    ALTER TABLE cursors ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cursors ADD COLUMN quiet INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX cursors_room ON cursors (room);

    -- What only some kinds have, as a JSON object.
    ALTER TABLE events ADD COLUMN data TEXT;

    -- User -1 is everyone in the room.
    CREATE TABLE mentions (
        user INTEGER NOT NULL,
        room INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (user, room, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX mentions_event ON mentions (room, seq);

    CREATE TABLE mutes (
        room INTEGER NOT NULL,
        user INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (room, user)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user INTEGER NOT NULL REFERENCES users (id),
        blocked INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL,
        UNIQUE (user, blocked)
    ) STRICT;

    -- A user or a network in CIDR form.
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user INTEGER UNIQUE REFERENCES users (id),
        addresses TEXT UNIQUE,
        text TEXT NOT NULL,
        maker INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;

    -- 'invite', 'reset' (of the user) or 'owner'. uses: how many are left; none is any number.
    CREATE TABLE links (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        secret BLOB NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        user INTEGER REFERENCES users (id),
        text TEXT NOT NULL DEFAULT '',
        maker INTEGER REFERENCES users (id),
        uses INTEGER,
        at INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;

    -- Of bots; with a room: incoming webhooks.
    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        token BLOB NOT NULL UNIQUE,
        user INTEGER NOT NULL REFERENCES users (id),
        room INTEGER REFERENCES rooms (id),
        text TEXT NOT NULL,
        scopes TEXT NOT NULL,
        maker INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL,
        used INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX tokens_user ON tokens (user);
    CREATE INDEX tokens_room ON tokens (room) WHERE room IS NOT NULL;

    -- Outgoing webhooks.
    CREATE TABLE hooks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        room INTEGER NOT NULL REFERENCES rooms (id),
        text TEXT NOT NULL,
        url TEXT NOT NULL,
        secret BLOB NOT NULL,
        maker INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL,
        done INTEGER NOT NULL,
        last TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX hooks_room ON hooks (room);

    CREATE TABLE reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        room INTEGER NOT NULL REFERENCES rooms (id),
        seq INTEGER NOT NULL,
        text TEXT NOT NULL,
        maker INTEGER NOT NULL REFERENCES users (id),
        at INTEGER NOT NULL,
        UNIQUE (maker, room, seq)
    ) STRICT;
    CREATE INDEX reports_room ON reports (room);

    -- The room may be gone.
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        maker INTEGER NOT NULL REFERENCES users (id),
        user INTEGER REFERENCES users (id),
        room INTEGER,
        text TEXT NOT NULL,
        at INTEGER NOT NULL
    ) STRICT;
";

/// Brings the schema up to date, makes the lobby and the secret if they are missing, and reads the secret.
///
/// # Errors
/// `Newer` for a schema that is not known here, `Database`, `Damaged`, `Random`.
pub(in crate::store) fn prepare(connection: &mut Connection, dir: &Path) -> Result<[u8; 32], OpenError> {
    let failed = |error| OpenError::Database { dir: dir.to_owned(), error };
    let damaged = |what| OpenError::Damaged { dir: dir.to_owned(), what };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;

    migrate(&transaction, MIGRATIONS, dir)?;

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

/// Runs those of the migrations that are still to be run.
pub(super) fn migrate(connection: &Connection, migrations: &[&str], dir: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Database { dir: dir.to_owned(), error };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = migrations.len() as i64;
    if found > known {
        return Err(OpenError::Newer { dir: dir.to_owned(), found, known });
    }
    let done = usize::try_from(found)
        .map_err(|_| OpenError::Damaged { dir: dir.to_owned(), what: "its schema has a negative number" })?;
    if found < known {
        for migration in &migrations[done..] {
            connection.execute_batch(migration).map_err(failed)?;
        }
        connection.pragma_update(None, "user_version", known).map_err(failed)?;
    }
    Ok(())
}
