//! What only the embedded store does: its files, its threads, and what happens when the disk is full.

use std::time::Duration;

use rusqlite::Connection;
use shared::acts::{Act, List};
use shared::model::{LOBBY, Line, RoomId, RoomName, UserId};
use shared::protocol::{RoomKind, User};
use shared::rights::Role;

use super::facts::{AUDIT_MAX, Note};
use super::write::PURGE_MAX;
use super::{Medium, OpenError, SqliteStore, WRITES_WAITING_MAX};
use crate::store::conformance::{append, guest, log, message, say, user_claim, wait};
use crate::store::{ListQuery, Made, NewSession, Newcomer, RoomKey, Store, StoreError};

fn store() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("data")).unwrap();
    (dir, store)
}

fn commits(store: &SqliteStore) -> u64 {
    wait(store.write(1, |writer| Ok(writer.commits))).unwrap()
}

/// Keeps the writer busy until the sender is dropped.
fn hold(store: &SqliteStore) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (running, runs) = std::sync::mpsc::channel();
    drop(store.write(1, move |_| {
        let _ = running.send(());
        let _ = held.recv();
        Ok(())
    }));
    runs.recv().unwrap();
    release
}

#[cfg(unix)]
#[test]
fn the_data_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, store) = store();
    guest(&store, 1, "Ada");
    let data = dir.path().join("data");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["magpie.db", "magpie.db-wal", "lock"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

#[test]
fn commits_are_synced() {
    let (_dir, store) = store();
    let modes = wait(store.write(1, |writer| {
        let synchronous: i64 =
            writer.connection.embedded().query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        let journal: String =
            writer.connection.embedded().query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        Ok((synchronous, journal))
    }));
    // 2 is FULL: in WAL mode each commit is synced before it returns.
    assert_eq!(modes, Ok((2, "wal".to_owned())));
}

#[test]
fn a_directory_has_one_owner() {
    let (dir, store) = store();
    let path = dir.path().join("data");
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(&error, OpenError::InUse(which) if *which == path));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    store.close();
    assert!(SqliteStore::open(&path).is_ok());
}

#[test]
fn a_file_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Directory { .. })));
}

#[test]
fn a_newer_schema_is_refused() {
    let (dir, store) = store();
    let path = dir.path().join("data");
    drop(store);
    let connection = Connection::open(path.join("magpie.db")).unwrap();
    connection.pragma_update(None, "user_version", 1_000).unwrap();
    drop(connection);
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 1_000, .. }));
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("magpie.db"), "not a database, but long enough to look at".repeat(100))
        .unwrap();
    assert!(matches!(SqliteStore::open(dir.path()), Err(OpenError::Database { .. })));
}

#[test]
fn waiting_appends_share_a_commit() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let before = commits(&store);
    let release = hold(&store);
    let replies: Vec<_> =
        (0..1_000).map(|n| store.append(vec![message(LOBBY, &ada, &n.to_string(), None)])).collect();
    drop(release);
    for (place, reply) in replies.into_iter().enumerate() {
        let appended = wait(reply).unwrap().remove(0).unwrap();
        assert_eq!(appended.event.seq, place as u64 + 1);
    }
    // The one that asked, the one that was held, and one for all the appends.
    assert_eq!(commits(&store) - before, 3);
}

#[test]
fn the_queue_is_bounded() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let release = hold(&store);
    let batch = || (0..WRITES_WAITING_MAX / 2).map(|_| message(LOBBY, &ada, "x", None)).collect();
    let accepted = [store.append(batch()), store.append(batch())];
    let refused = (store.append(vec![message(LOBBY, &ada, "x", None)]), store.check());
    drop(release);
    let busy = StoreError::Unavailable("busy".into());
    assert_eq!(wait(refused.0), Err(busy.clone()));
    assert_eq!(wait(refused.1), Err(busy));
    for reply in accepted {
        assert!(wait(reply).unwrap().iter().all(Result::is_ok));
    }
    assert!(wait(store.check()).is_ok());
    assert_eq!(log(&store, LOBBY).len(), WRITES_WAITING_MAX);
}

#[test]
fn what_was_accepted_is_committed_at_the_end() {
    let (dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let release = hold(&store);
    // Nobody waits for the answers.
    (0..50).for_each(|n| drop(store.append(vec![message(LOBBY, &ada, &n.to_string(), None)])));
    std::thread::scope(|scope| {
        scope.spawn(|| store.close());
        drop(release);
    });
    let closed = Err(StoreError::Unavailable("closed".into()));
    assert_eq!(wait(store.append(vec![message(LOBBY, &ada, "late", None)])), closed);
    assert!(wait(store.events_after(LOBBY, 0, 9)).is_err());
    store.close();
    assert_eq!(log(&SqliteStore::open(&dir.path().join("data")).unwrap(), LOBBY).len(), 50);
}

#[test]
fn known_sessions_do_not_wait_for_the_writer() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    say(&store, LOBBY, &ada, "x");
    let _release = hold(&store);
    let mut token = [0; 32];
    token[0] = 1;
    let identity = wait(store.identify(NewSession::of(token, 5), None)).unwrap();
    assert_eq!(identity.user, ada);
    assert_eq!(log(&store, LOBBY).len(), 1, "nor do readers");
}

#[test]
fn a_reader_does_not_stop_the_writer() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    say(&store, LOBBY, &ada, "before");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (running, runs) = std::sync::mpsc::channel();
    let reader = store.read(move |connection| {
        let count =
            || connection.embedded().query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0));
        let first = count()?;
        let _ = running.send(());
        let _ = held.recv_timeout(Duration::from_secs(20));
        Ok((first, count()?))
    });
    runs.recv().unwrap();
    for _ in 0..20 {
        say(&store, LOBBY, &ada, "meanwhile");
    }
    assert_eq!(log(&store, LOBBY).len(), 21);
    drop(release);
    assert_eq!(wait(reader), Ok((1, 1)), "a reader sees one moment");
}

/// Lets the database grow by so many pages, or as it likes.
fn set_room(store: &SqliteStore, pages: Option<i64>) {
    wait(store.write(1, move |writer| {
        let now: i64 = writer.connection.embedded().query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let max = pages.map_or(i64::from(u32::MAX - 1), |pages| now + pages);
        writer.connection.embedded().query_row(&format!("PRAGMA max_page_count = {max}"), [], |_| Ok(()))?;
        Ok(())
    }))
    .unwrap();
}

#[test]
fn a_full_disk_is_survived() {
    let (dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let long = "x".repeat(3_000);
    set_room(&store, Some(20));
    let mut acknowledged = 0;
    let fill = |acknowledged: &mut u64| {
        loop {
            match wait(store.append(vec![message(LOBBY, &ada, &long, None)])) {
                Ok(answers) => *acknowledged = answers[0].as_ref().unwrap().event.seq,
                Err(StoreError::Unavailable(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
    };
    fill(&mut acknowledged);
    assert!(acknowledged > 0);
    // A batch fails as a whole, what is small included, and reading goes on.
    let release = hold(&store);
    let replies: Vec<_> = (0..50).map(|_| store.append(vec![message(LOBBY, &ada, &long, None)])).collect();
    let joins = store.create_room(
        RoomId::from_bits(50),
        RoomKind::Public,
        RoomName::claim("den").unwrap(),
        ada.id,
        0,
        5,
    );
    drop(release);
    for reply in replies {
        assert!(matches!(wait(reply), Err(StoreError::Unavailable(_))));
    }
    assert!(matches!(wait(joins), Err(StoreError::Unavailable(_))));
    assert_eq!(log(&store, LOBBY).len() as u64, acknowledged);

    set_room(&store, None);
    assert_eq!(say(&store, LOBBY, &ada, "space again").seq, acknowledged + 1);
    assert!(wait(store.members(RoomId::from_bits(50), 9)).is_err());
    drop(store);
    let store = SqliteStore::open(&dir.path().join("data")).unwrap();
    assert_eq!(log(&store, LOBBY).len() as u64, acknowledged + 1);
}

#[test]
fn memory_is_right_after_a_failed_batch() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    say(&store, LOBBY, &ada, "1");
    // In one batch: an event, a new user, and the failure that takes both away.
    let release = hold(&store);
    let lost = store.append(vec![message(LOBBY, &ada, "lost", None)]);
    let mut token = [0; 32];
    token[0] = 2;
    let writes = store.writes.clone();
    let guest = super::write_to(&writes, 1, move |writer| {
        let newcomer = Newcomer { id: UserId::from_bits(2), names: vec![user_claim("Bob")] };
        writer.identify(&NewSession::of(token, 5), &newcomer)
    });
    let bob = User { id: UserId::from_bits(2), name: user_claim("Bob").name };
    let said = store.append(vec![message(LOBBY, &bob, "lost", None)]);
    let broken = store.write(1, |writer| {
        writer.connection.embedded().execute("INSERT INTO nowhere VALUES (1)", [])?;
        Ok(())
    });
    drop(release);
    assert!(matches!(wait(lost), Err(StoreError::Unavailable(_))));
    assert!(matches!(wait(guest), Err(StoreError::Unavailable(_))));
    assert!(matches!(wait(said), Err(StoreError::Unavailable(_))));
    assert!(matches!(wait(broken), Err(StoreError::Unavailable(_))));
    assert_eq!(say(&store, LOBBY, &ada, "2").seq, 2);
    assert_eq!(append(&store, message(LOBBY, &bob, "x", None)), Err(StoreError::NotMember));
    assert_eq!(wait(store.directory(ada.id, 9)).unwrap()[0].members, 1);
}

#[test]
fn a_refused_change_leaves_nothing_behind() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let refused: Result<(), StoreError> = wait(store.write(1, move |writer| {
        writer.atomically(|writer| {
            let batch = vec![message(LOBBY, &ada, "lost", None)];
            writer.append(batch)?;
            Err(StoreError::NameTaken.into())
        })
    }));
    assert_eq!(refused, Err(StoreError::NameTaken));
    let ada = User { id: UserId::from_bits(1), name: user_claim("Ada").name };
    assert_eq!(say(&store, LOBBY, &ada, "1").seq, 1);
}

#[test]
fn damaged_rows_are_no_panic() {
    for damage in [
        "UPDATE events SET body = NULL",
        "UPDATE events SET body = ''",
        "UPDATE events SET author_name = ''",
        "UPDATE events SET author = -1",
        "UPDATE events SET ref = x'00'",
        "UPDATE events SET kind = 'renamed'",
        "UPDATE events SET kind = 'invited'",
        "UPDATE events SET data = '{'",
    ] {
        let (_dir, store) = store();
        let ada = guest(&store, 1, "Ada");
        say(&store, LOBBY, &ada, "x");
        wait(store.write(1, |writer| Ok(writer.connection.embedded().execute(damage, [])?))).unwrap();
        let page = wait(store.events_after(LOBBY, 0, 9));
        assert!(matches!(page, Err(StoreError::Unavailable(_))), "{damage}");
        assert_eq!(say(&store, LOBBY, &ada, "y").seq, 2);
    }
}

#[test]
fn kinds_of_a_newer_server_keep_their_place() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    say(&store, LOBBY, &ada, "x");
    wait(
        store.write(1, |writer| {
            Ok(writer.connection.embedded().execute("UPDATE events SET kind = 'new'", [])?)
        }),
    )
    .unwrap();
    assert_eq!(log(&store, LOBBY)[0].kind, shared::protocol::EventKind::Unknown);
}

/// A database as the first schema left it, with people who talked.
fn first_database(path: &std::path::Path) {
    let connection = Connection::open(path).unwrap();
    super::schema::migrate(&connection, &super::schema::MIGRATIONS[..1], path).unwrap();
    let name = |text| user_claim(text).skeleton;
    for (id, user) in [(1, "Ada"), (2, "Bob"), (3, "Eve")] {
        let row = (id, user, name(user));
        connection.execute("INSERT INTO users (id, name, skeleton, at) VALUES (?1, ?2, ?3, 5)", row).unwrap();
    }
    connection
        .execute_batch(
            "INSERT INTO rooms (id, kind, name, skeleton, epoch, members, at)
             VALUES (1, 'public', 'lobby', 'lobby', 1, 3, 0), (50, 'public', 'den', 'den', 3, 2, 6),
                    (51, 'public', 'left', 'left', 1, 2, 6), (52, 'public', 'empty', 'empty', 1, 0, 6);
             INSERT INTO rooms (id, kind, low, high, epoch, members, at) VALUES (53, 'direct', 1, 2, 1, 2, 6);
             INSERT INTO members (user, room, at)
             VALUES (1, 50, 6), (2, 50, 7), (2, 51, 9), (3, 51, 8), (1, 53, 6), (2, 53, 6);
             INSERT INTO events (room, seq, at, author, author_name, kind, body) VALUES
                 (50, 1, 6, 1, 'Ada', 'created', NULL), (50, 2, 7, 2, 'Bob', 'message', 'hello @Ada'),
                 (51, 1, 6, 1, 'Ada', 'created', NULL), (52, 1, 6, 1, 'Ada', 'created', NULL),
                 (53, 1, 6, 1, 'Ada', 'created', NULL), (1, 1, 6, 1, 'Ada', 'message', 'hi');
             INSERT INTO cursors (user, room, read) VALUES (1, 50, 1), (2, 50, 2);
             INSERT INTO meta (key, value) VALUES ('secret', zeroblob(32));",
        )
        .unwrap();
    let mut token = [0u8; 32];
    token[0] = 1;
    connection
        .execute("INSERT INTO sessions (token, user, at) VALUES (?1, 1, 5)", [token.as_slice()])
        .unwrap();
}

#[test]
fn the_first_database_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    first_database(&dir.path().join("magpie.db"));
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut token = [0; 32];
    token[0] = 1;
    let ada = wait(store.identify(NewSession::of(token, 9), None)).unwrap();
    assert_eq!((ada.user.name.as_str(), ada.role, ada.until), ("Ada", Role::Guest, None));
    let info = |room, user| wait(store.room_info(RoomId::from_bits(room), UserId::from_bits(user)));
    let den = info(50, 1).unwrap();
    assert_eq!((den.owner, den.epoch, den.head, den.read), (Some(ada.user.id), 3, 2, 1));
    assert_eq!(
        (den.unread, den.mentioned, den.topic, den.archived, den.slow_seconds),
        (1, 0, None, false, 0)
    );
    // Who made the room has left it: it is Eve's, who has been in it longest.
    assert_eq!(info(51, 2).unwrap().owner, Some(UserId::from_bits(3)));
    let direct = info(53, 2).unwrap();
    assert_eq!((direct.owner, direct.peer), (None, Some(ada.user.clone())));
    assert_eq!(info(1, 2).unwrap().owner, None);
    let sessions = ListQuery {
        list: List::Sessions,
        room: None,
        text: Line::default(),
        before: None,
        session: token,
        at: 9,
    };
    let listed = wait(store.list(ada.user.id, sessions)).unwrap();
    assert_eq!((listed.len(), listed[0].at, listed[0].until, listed[0].current), (1, Some(5), None, true));
    assert_eq!(log(&store, RoomId::from_bits(50)).len(), 2);
    assert_eq!(say(&store, RoomId::from_bits(50), &ada.user, "still here").seq, 3);
    assert_eq!(Medium::secret(&store), [0; 32]);
    assert!(
        wait(store.join(RoomKey::parse(&RoomId::from_bits(52).to_string()), ada.user.id, 0, 9))
            .unwrap()
            .info
            .owner
            .is_none()
    );
}

fn count(store: &SqliteStore, table: &'static str) -> i64 {
    wait(store.write(1, move |writer| {
        Ok(writer
            .connection
            .embedded()
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    }))
    .unwrap()
}

#[test]
fn what_was_said_in_a_deleted_room_is_taken_away_bit_by_bit() {
    let (dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    let den = RoomId::from_bits(50);
    let name = RoomName::claim("den").unwrap();
    wait(store.create_room(den, RoomKind::Public, name, ada.id, 0, 5)).unwrap();
    for _ in 0..3 {
        let batch = (0..PURGE_MAX / 2).map(|_| message(den, &ada, "x", None)).collect();
        wait(store.append(batch)).unwrap();
    }
    let made = Made { session: [0; 32], id: 1, secret: [0; 32] };
    wait(store.act(ada.id, Act::DeleteRoom { room: den }, made, 6)).unwrap();
    // The commit that deleted it took away the first part, the next one the rest, also after a restart.
    assert_eq!(count(&store, "events"), (PURGE_MAX / 2) as i64 + 1);
    drop(store);
    let store = SqliteStore::open(&dir.path().join("data")).unwrap();
    wait(store.check()).unwrap();
    assert_eq!((count(&store, "events"), count(&store, "purges")), (0, 0));
}

#[test]
fn the_audit_log_is_bounded() {
    let (_dir, store) = store();
    let ada = guest(&store, 1, "Ada");
    wait(store.write(1, move |writer| {
        for n in 0..AUDIT_MAX + 5 {
            let text = n.to_string();
            writer.note(&Note { kind: "test", by: ada.id, user: None, room: None, text: &text }, 5)?;
        }
        Ok(())
    }))
    .unwrap();
    assert_eq!(count(&store, "audit"), AUDIT_MAX as i64);
    assert_eq!(count(&store, "audit WHERE text = '5'"), 1, "the newest stay");
}
