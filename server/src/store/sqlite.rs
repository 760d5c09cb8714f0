//! The embedded store: one SQLite database in one directory, for one process.
//!
//! One thread writes; it takes all that waits into one transaction, syncs it, and then answers (group
//! commit). A few threads read, each over its own connection, and never wait for the writer. The rest of the
//! server sees only [`Store`]; this file must not know who asks, or how often.

mod queue;
mod read;
mod schema;
mod write;

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use shared::model::{Claim, Ms, RoomId, RoomName, Seq, UserId, UserName};
use shared::protocol::{Event, Listing, RoomInfo, User};

use super::{
    Account, Append, Appended, Entered, Identity, Page, Reply, RoomKey, Store, StoreError, TokenHash,
    room_kind_name,
};
use queue::{Queue, Threads};
use write::{Change, Writer};

/// Threads, and connections, that read.
const READERS: usize = 2;
/// Reads that share a transaction, where that many wait.
const READ_BATCH_MAX: usize = 32;
/// Reads that may wait; one more is answered with `Unavailable`.
const READS_WAITING_MAX: usize = 16_384;
/// Writes that may wait, each append of a batch counted; one more is answered with `Unavailable`.
const WRITES_WAITING_MAX: usize = 16_384;
/// How long a connection waits for another's lock, in milliseconds. Only checkpoints ever hold one.
const BUSY_MS: u64 = 5_000;
/// Prepared statements kept by a connection: more than there are.
const STATEMENTS: usize = 64;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A newer Magpie wrote the database.
    #[error(
        "the database in {} has the schema {found}, this program knows up to {known}: run a newer Magpie",
        .dir.display()
    )]
    Newer { dir: PathBuf, found: i64, known: i64 },
    #[error("cannot use the data directory {}: {error}", .dir.display())]
    Directory { dir: PathBuf, error: std::io::Error },
    #[error("cannot open the database in {}: {error}", .dir.display())]
    Database { dir: PathBuf, error: rusqlite::Error },
    /// The database opens but does not hold what it must.
    #[error("the database in {} is damaged: {what}", .dir.display())]
    Damaged { dir: PathBuf, what: &'static str },
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The embedded store.
///
/// Dropping it, like [`SqliteStore::close`], blocks until what was accepted is committed.
pub struct SqliteStore {
    writes: Arc<Queue<Change>>,
    reads: Arc<Queue<Read>>,
    writer: Threads,
    readers: Threads,
    secret: [u8; 32],
    /// Held until the last connection is closed.
    lock: Mutex<Option<File>>,
}

/// A piece of work for a reader's connection, or for the reason why there is none.
type Read = Box<dyn FnOnce(Result<&Connection, &rusqlite::Error>) + Send>;

/// Why a piece of work did not end well.
#[derive(Debug)]
enum Trouble {
    /// An answer to whoever asked; the transaction goes on.
    Refused(StoreError),
    /// The medium failed: nothing in the transaction can be relied on.
    Medium(rusqlite::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Refused(error)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => {
                Trouble::Refused(read::damaged("a value's type"))
            }
            error => Trouble::Medium(error),
        }
    }
}

impl SqliteStore {
    /// Opens the store in a directory, and makes both if they do not exist.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do or where to look.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let lock = lock(dir)?;
        let database = |error| OpenError::Database { dir: dir.to_owned(), error };
        let path = dir.join("magpie.db");
        // It holds the secret. What SQLite puts beside it gets the same mode.
        private(&path).map_err(|error| OpenError::Directory { dir: dir.to_owned(), error })?;

        let mut connection = Connection::open(&path).map_err(database)?;
        configure(&connection, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(database)?;
        configure(&connection, "PRAGMA foreign_keys = ON; PRAGMA cache_size = -8000;").map_err(database)?;
        let secret = schema::prepare(&mut connection, dir)?;

        // From here on an error drops the store, which ends the threads that run.
        let store = Self {
            writes: Queue::new(WRITES_WAITING_MAX),
            reads: Queue::new(READS_WAITING_MAX),
            writer: Threads::new(),
            readers: Threads::new(),
            secret,
            lock: Mutex::new(Some(lock)),
        };
        for place in 0..READERS {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
            configure(&connection, "PRAGMA query_only = ON;").map_err(database)?;
            let reads = store.reads.clone();
            let run = move || {
                while let Some(reads) = reads.take_part(READERS, READ_BATCH_MAX) {
                    read_all(&connection, reads);
                }
            };
            store.readers.start(&format!("store-read-{place}"), run).map_err(OpenError::Thread)?;
        }
        let writer = Writer::new(connection);
        let writes = store.writes.clone();
        store.writer.start("store-write", move || writer.run(&writes)).map_err(OpenError::Thread)?;
        Ok(store)
    }

    /// Commits what was accepted and closes the database. What comes later is answered with `Unavailable`.
    pub fn close(&self) {
        self.reads.close();
        self.readers.join();
        self.writes.close();
        self.writer.join();
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let work: Read = Box::new(move |connection| {
            // Whoever asked may have gone away.
            if !tx.is_closed() {
                let answer = match connection {
                    Ok(connection) => read(connection).map_err(explain_read),
                    Err(error) => Err(unreadable(error)),
                };
                let _ = tx.send(answer);
            }
        });
        match self.reads.put(1, work) {
            Ok(()) => Box::pin(async move { rx.await.unwrap_or_else(|_| Err(no_answer())) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn write<T: Send + 'static>(
        &self,
        weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        write_to(&self.writes, weight, write)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Queues a write. The answer is sent after the commit; if the batch fails, its sender is dropped instead.
fn write_to<T: Send + 'static>(
    writes: &Queue<Change>,
    weight: usize,
    write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
) -> Reply<T> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let change: Change = Box::new(move |writer| {
        let answer = match write(writer) {
            Ok(done) => Ok(done),
            Err(Trouble::Refused(error)) => Err(error),
            Err(Trouble::Medium(error)) => return Err(error),
        };
        Ok(Box::new(move || drop(tx.send(answer))))
    });
    match writes.put(weight, change) {
        Ok(()) => Box::pin(async move { rx.await.unwrap_or_else(|_| Err(no_answer())) }),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}

/// Does all of some reads in one transaction. What a read sees stands as it stood at one moment after it was
/// asked for.
fn read_all(connection: &Connection, reads: Vec<Read>) {
    match connection.unchecked_transaction() {
        Ok(transaction) => reads.into_iter().for_each(|read| read(Ok(&transaction))),
        Err(error) => reads.into_iter().for_each(|read| read(Err(&error))),
    }
}

fn explain_read(trouble: Trouble) -> StoreError {
    match trouble {
        Trouble::Refused(error) => error,
        Trouble::Medium(error) => unreadable(&error),
    }
}

fn unreadable(error: &rusqlite::Error) -> StoreError {
    tracing::error!(%error, "cannot read the database");
    StoreError::Unavailable(error.to_string())
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("the database could not write".into())
}

/// Makes the directory, for its owner only, and takes its lock.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Directory { dir: dir.to_owned(), error };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(failed)?;
    let file = private(&dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens a file, and makes it for its owner only if it does not exist.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn configure(connection: &Connection, pragmas: &str) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(pragmas)
}

/// A number as SQLite keeps it. What does not fit is beyond every number that is kept.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit of rows.
fn limit(rows: usize) -> i64 {
    number(rows as u64)
}

impl Store for SqliteStore {
    fn append(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        self.write(batch.len().max(1), move |writer| writer.append(batch))
    }

    fn events_after(&self, room: RoomId, after: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_after(connection, room, after, limit))
    }

    fn events_before(&self, room: RoomId, before: Seq, limit: usize) -> Reply<Page> {
        self.read(move |connection| read::events_before(connection, room, before, limit))
    }

    fn identify(&self, token: TokenHash, id: UserId, names: Vec<Claim<UserName>>, at: Ms) -> Reply<Identity> {
        // A session that exists, which is nearly every one, costs no write.
        let known = self.read(move |connection| read::identity(connection, &token));
        let writes = self.writes.clone();
        Box::pin(async move {
            match known.await? {
                Some(identity) => Ok(identity),
                None => write_to(&writes, 1, move |writer| writer.identify(token, id, &names, at)).await,
            }
        })
    }

    fn account(&self, user: UserId) -> Reply<Account> {
        self.read(move |connection| read::account(connection, user))
    }

    fn rename(
        &self,
        user: UserId,
        name: Claim<UserName>,
        tell_lobby: bool,
        at: Ms,
    ) -> Reply<(User, Vec<Event>)> {
        self.write(1, move |writer| writer.rename(user, name, tell_lobby, at))
    }

    fn create_room(
        &self,
        id: RoomId,
        name: Claim<RoomName>,
        user: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.create_room(id, name, user, rooms_max, at))
    }

    fn open_direct(
        &self,
        id: RoomId,
        user: UserId,
        peer: UserId,
        rooms_max: usize,
        at: Ms,
    ) -> Reply<Entered> {
        self.write(1, move |writer| writer.open_direct(id, user, peer, rooms_max, at))
    }

    fn join(&self, room: RoomKey, user: UserId, rooms_max: usize, at: Ms) -> Reply<Entered> {
        self.write(1, move |writer| writer.join(&room, user, rooms_max, at))
    }

    fn leave(&self, room: RoomId, user: UserId, at: Ms) -> Reply<Option<Event>> {
        self.write(1, move |writer| writer.leave(room, user, at))
    }

    fn room_info(&self, room: RoomId, user: UserId) -> Reply<RoomInfo> {
        self.read(move |connection| read::room_info(connection, room, user))
    }

    fn mark_read(&self, room: RoomId, user: UserId, seq: Seq) -> Reply<(Seq, u32)> {
        self.write(1, move |writer| writer.mark_read(room, user, seq))
    }

    fn members(&self, room: RoomId, limit: usize) -> Reply<(Vec<User>, u32)> {
        self.read(move |connection| read::members(connection, room, limit))
    }

    fn directory(&self, user: UserId, limit: usize) -> Reply<Vec<Listing>> {
        self.read(move |connection| read::directory(connection, user, limit))
    }

    fn heads(&self, rooms: Vec<RoomId>) -> Reply<Vec<(RoomId, u32, Seq)>> {
        self.read(move |connection| {
            let mut heads = Vec::with_capacity(rooms.len());
            for room in rooms {
                if let Some((epoch, head)) = read::head(connection, room)? {
                    heads.push((room, epoch, head));
                }
            }
            Ok(heads)
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn check(&self) -> Reply<()> {
        let write = self.write(1, Writer::check);
        let read = self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?));
        Box::pin(async move {
            write.await?;
            read.await
        })
    }
}
