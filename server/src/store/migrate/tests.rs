//! Everything is moved, moved once, and looked at again.

use std::collections::BTreeSet;
use std::path::Path;

use super::tables::TABLES;
use super::{MigrateError, Progress, migrate};
use crate::store::conformance::everything::{Everything, fill, go_on, see};
use crate::store::postgres::tests::server;
use crate::store::postgres::{OpenError, PostgresStore};
use crate::store::sqlite::SqliteStore;

fn names(rows: &str) -> BTreeSet<String> {
    rows.lines().map(str::to_owned).collect()
}

/// What the embedded database answers, without the store.
fn ask(dir: &Path, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(dir.join("magpie.db")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A directory with something in every table.
fn filled() -> (tempfile::TempDir, Everything) {
    let dir = tempfile::tempdir().unwrap();
    let everything = fill(&SqliteStore::open(dir.path()).unwrap());
    let connection = rusqlite::Connection::open(dir.path().join("magpie.db")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO purges (room) VALUES (999);
             INSERT INTO events (room, seq, at, author, author_name, kind) VALUES (999, 1, 2, 3, 'x', 'left');",
        )
        .unwrap();
    (dir, everything)
}

fn quietly(from: &Path, to: &str) -> Result<(), MigrateError> {
    migrate(from, to, &mut |_| {})
}

#[test]
fn every_table_is_moved() {
    let (dir, _) = filled();
    let ours: BTreeSet<String> = TABLES.iter().map(|part| part.table.to_owned()).collect();
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    assert_eq!(ask(dir.path(), sql).into_iter().collect::<BTreeSet<_>>(), ours);
    for table in &ours {
        let count = ask(dir.path(), &format!("SELECT CAST(count(*) AS TEXT) FROM {table}"));
        assert_ne!(count, ["0"], "{table} is empty: the other tests show nothing of it");
        // Both databases order numbers and bytes alike, but not texts.
        let sql = format!(
            "SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 AND type <> 'TEXT' ORDER BY pk"
        );
        let keys = TABLES.iter().find(|part| part.table == table).unwrap().keys;
        assert_eq!(ask(dir.path(), &sql), keys, "the primary key of {table}");
    }
    let Some(server) = server::shared() else { return };
    let address = server.database();
    drop(PostgresStore::open(&address).unwrap());
    let name = address.rsplit('/').next().unwrap();
    let sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
    let own = BTreeSet::from(["checks".to_owned(), "migrations".to_owned()]);
    assert_eq!(names(&server.sql(name, sql).unwrap()), ours.union(&own).cloned().collect());
}

#[test]
fn everything_is_moved_and_goes_on() {
    let Some(server) = server::shared() else { return };
    let (dir, everything) = filled();
    let address = server.database();
    let mut compared = Vec::new();
    migrate(dir.path(), &address, &mut |progress| {
        if let Progress::Compared { table, rows, checksum } = progress {
            assert_eq!(checksum.len(), 64);
            compared.push((*table, *rows));
        }
    })
    .unwrap();
    assert_eq!(compared.len(), TABLES.len());
    assert!(compared.iter().all(|(_, rows)| *rows > 0), "{compared:?}");

    let (old, new) = (SqliteStore::open(dir.path()).unwrap(), PostgresStore::open(&address).unwrap());
    let seen = see(&old, &everything);
    assert!(seen.contains("Mallory") && !seen.contains("Unavailable"), "{seen}");
    pretty(&see(&new, &everything), &seen);
    let gone_on = go_on(&new, &everything);
    drop((old, new));

    // Once is enough, also when it was gone on with.
    let mut told = Vec::new();
    migrate(dir.path(), &address, &mut |progress| told.push(progress.clone())).unwrap();
    assert_eq!(told, [Progress::Complete]);

    // But what is new in the directory is not there.
    let old = SqliteStore::open(dir.path()).unwrap();
    pretty(&gone_on, &go_on(&old, &everything));
    drop(old);
    let error = quietly(dir.path(), &address).unwrap_err();
    assert!(matches!(error, MigrateError::GoneOn), "{error}");
}

/// Compares two long texts.
fn pretty(found: &str, expected: &str) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn only_an_empty_database_is_filled_and_by_one() {
    let Some(server) = server::shared() else { return };
    let (dir, _) = filled();
    let address = server.database();
    drop(PostgresStore::open(&address).unwrap());
    assert!(matches!(quietly(dir.path(), &address), Err(MigrateError::NotEmpty)));
    // Of another directory.
    let address = server.database();
    quietly(dir.path(), &address).unwrap();
    let other = filled().0;
    assert!(matches!(quietly(other.path(), &address), Err(MigrateError::OtherSource)));
    // While somebody else is at it.
    let address = server.database();
    let mut second = None;
    migrate(dir.path(), &address, &mut |progress| {
        if second.is_none() && matches!(progress, Progress::Copied { .. }) {
            second = Some(quietly(other.path(), &address));
        }
    })
    .unwrap();
    assert!(matches!(second, Some(Err(MigrateError::Busy))));
    // What is not there, or in use.
    let nothing = tempfile::tempdir().unwrap();
    let error = quietly(nothing.path(), &address).unwrap_err().to_string();
    assert!(error.contains("there is no database in"), "{error}");
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0);
    let _running = SqliteStore::open(dir.path()).unwrap();
    let error = quietly(dir.path(), &address).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

/// Begins a move that ends in the midst of it.
fn begin(dir: &Path, address: &str) {
    // What an operator's terminal takes away, a panic here does.
    let moved = migrate(dir, address, &mut |progress| {
        assert!(!matches!(progress, Progress::Copied { table: "members", .. }), "a power cut");
    });
    assert!(matches!(moved, Err(MigrateError::Read(_))), "{moved:?}");
}

#[test]
fn a_part_of_it_is_not_served_and_is_gone_on_with() {
    let Some(server) = server::shared() else { return };
    let (dir, everything) = filled();
    let address = server.database();
    begin(dir.path(), &address);
    let error = PostgresStore::open(&address).err().unwrap();
    assert!(matches!(error, OpenError::Unfinished), "{error}");
    let mut copied = Vec::new();
    migrate(dir.path(), &address, &mut |progress| {
        if let Progress::Copied { table, .. } = progress {
            copied.push(*table);
        }
    })
    .unwrap();
    assert!(copied.contains(&"events") && !copied.contains(&"users"), "{copied:?}");
    let (old, new) = (SqliteStore::open(dir.path()).unwrap(), PostgresStore::open(&address).unwrap());
    pretty(&see(&new, &everything), &see(&old, &everything));
}

#[test]
fn what_is_not_the_same_is_noticed_in_every_table() {
    let Some(server) = server::shared() else { return };
    let (dir, _) = filled();
    for (change, place) in [
        ("UPDATE users SET name = 'Adb' WHERE id = 1", "users"),
        ("UPDATE users SET role = 'owner' WHERE bot IS NOT NULL", "users"),
        ("UPDATE sessions SET until = 5 WHERE \"user\" = 2", "sessions"),
        ("DELETE FROM members WHERE room = 50 AND \"user\" = 2", "members"),
        ("UPDATE rooms SET epoch = 2 WHERE id = 50", "rooms"),
        ("UPDATE meta SET value = sha256('x') WHERE key = 'secret'", "meta"),
    ] {
        let address = server.database();
        begin(dir.path(), &address);
        let name = address.rsplit('/').next().unwrap();
        server.sql(name, change).unwrap();
        let error = quietly(dir.path(), &address).unwrap_err();
        assert!(
            matches!(&error, MigrateError::Differs(what) if what.starts_with(place)),
            "{change}: {error}"
        );
        assert!(matches!(PostgresStore::open(&address).err(), Some(OpenError::Unfinished)));
    }
    // The same in what is copied last, and an event in a room.
    for (table, change, place) in [
        ("audit", "UPDATE events SET body = 'X' WHERE room = 50 AND seq = 4", "events (room 50)"),
        ("audit", "DELETE FROM events WHERE room = 999", "events (room 999)"),
        ("audit", "UPDATE mutes SET until = until + 1", "mutes"),
    ] {
        let address = server.database();
        let name = address.rsplit('/').next().unwrap();
        let moved = migrate(dir.path(), &address, &mut |progress| {
            if matches!(progress, Progress::Copied { table: last, .. } if *last == table) {
                server.sql(name, change).unwrap();
            }
        });
        let error = moved.unwrap_err();
        assert!(matches!(&error, MigrateError::Differs(what) if what == place), "{change}: {error}");
    }
}
