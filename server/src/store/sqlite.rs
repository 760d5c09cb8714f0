//! The embedded store: one SQLite database in one directory, for one process.
//!
//! One thread writes; it takes all that waits into one transaction, syncs it, and then answers (group
//! commit). A few threads read, each over its own connection, and never wait for the writer. The rest of the
//! server sees only [`Store`]; this file must not know who asks, or how often.

mod accounts;
mod acts;
mod appends;
mod bots;
mod calls;
pub(super) mod database;
mod facts;
mod identities;
mod kinds;
mod leases;
mod links;
mod lists;
mod moderation;
mod own;
pub(super) mod queue;
mod read;
mod rooms;
pub(super) mod schema;
mod write;

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::OpenFlags;

use super::{Append, Appended, Reply, StoreError};
pub(super) use appends::PLACES;
use database::{Connection, Fault};
use queue::{Queue, Threads};
use write::Change;
pub(super) use write::Writer;

/// The database's file in its directory.
const DATABASE: &str = "magpie.db";
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
const STATEMENTS: usize = 256;

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
    #[error("there is no database in {}", .0.display())]
    Missing(PathBuf),
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
type Read = Box<dyn FnOnce(Result<&Connection, &Fault>) + Send>;

/// Why a piece of work did not end well.
#[derive(Debug)]
pub(super) enum Trouble {
    /// An answer to whoever asked; the transaction goes on.
    Refused(StoreError),
    /// The medium failed: nothing in the transaction can be relied on.
    Medium(Fault),
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
            error => Trouble::Medium(error.into()),
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
        let path = dir.join(DATABASE);
        // It holds the secret. What SQLite puts beside it gets the same mode.
        private(&path).map_err(|error| OpenError::Directory { dir: dir.to_owned(), error })?;
        let (connection, secret) = open_writer(dir)?;

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
            let connection = rusqlite::Connection::open_with_flags(&path, flags).map_err(database)?;
            configure(&connection, "PRAGMA query_only = ON;").map_err(database)?;
            let connection = Connection::Embedded(connection);
            let reads = store.reads.taker();
            let run = move || {
                while let Some(reads) = reads.take_part(READERS, READ_BATCH_MAX) {
                    read_all(&connection, reads);
                }
            };
            store.readers.start(&format!("store-read-{place}"), run).map_err(OpenError::Thread)?;
        }
        let writer = Writer::new(Connection::Embedded(connection));
        let writes = store.writes.taker();
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
}

/// Opens the database of a directory whose lock is held, and brings its schema up to date.
fn open_writer(dir: &Path) -> Result<(rusqlite::Connection, [u8; 32]), OpenError> {
    let database = |error| OpenError::Database { dir: dir.to_owned(), error };
    let mut connection = rusqlite::Connection::open(dir.join(DATABASE)).map_err(database)?;
    configure(&connection, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(database)?;
    configure(&connection, "PRAGMA foreign_keys = ON; PRAGMA cache_size = -8000;").map_err(database)?;
    let secret = schema::prepare(&mut connection, dir)?;
    Ok((connection, secret))
}

/// A database that nobody uses, with its directory's lock, to be read from end to end.
pub(super) struct Departure {
    pub connection: Connection,
    pub secret: [u8; 32],
    _lock: File,
}

impl Departure {
    /// Opens the database of a directory, which must be there, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        if !dir.join(DATABASE).is_file() {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        let lock = lock(dir)?;
        let (connection, secret) = open_writer(dir)?;
        Ok(Self { connection: Connection::Embedded(connection), secret, _lock: lock })
    }
}

/// Where the functions of `read` and `write` run.
pub(super) trait Medium: Send + Sync + 'static {
    /// Reads, at one moment.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T>;

    /// Writes, and answers when that is durable. `weight` counts against what may wait.
    fn write<T: Send + 'static>(
        &self,
        weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T>;

    /// Writes what takes nothing for granted that others may be about to change: other small writes and appends
    /// may run at the same time on other nodes. Of one transaction those come first whose key is smaller.
    fn write_small<T: Send + 'static>(
        &self,
        _key: (u64, u64),
        weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        self.write(weight, write)
    }

    fn write_appends(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        self.write(batch.len().max(1), move |writer| writer.append(batch))
    }

    /// Reads, and writes only if that was not enough. What was read may have changed until then.
    fn write_after<R: Send + 'static, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<Result<T, R>, Trouble> + Send + 'static,
        write: impl FnOnce(&mut Writer, R) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T>;

    fn secret(&self) -> [u8; 32];

    /// Whether other processes may write to it too.
    fn is_shared(&self) -> bool {
        false
    }
}

impl Medium for SqliteStore {
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

    fn write_after<R: Send + 'static, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<Result<T, R>, Trouble> + Send + 'static,
        write: impl FnOnce(&mut Writer, R) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let known = Medium::read(self, read);
        let writes = self.writes.clone();
        Box::pin(async move {
            match known.await? {
                Ok(done) => Ok(done),
                Err(rest) => write_to(&writes, 1, move |writer| write(writer, rest)).await,
            }
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
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
    match connection.control("BEGIN") {
        Ok(()) => reads.into_iter().for_each(|read| read(Ok(connection))),
        Err(error) => reads.into_iter().for_each(|read| read(Err(&error))),
    }
    if let Err(error) = connection.roll_back() {
        tracing::error!(%error, "cannot end a read");
    }
}

fn explain_read(trouble: Trouble) -> StoreError {
    match trouble {
        Trouble::Refused(error) => error,
        Trouble::Medium(error) => unreadable(&error),
    }
}

fn unreadable(error: &Fault) -> StoreError {
    tracing::error!(%error, "cannot read the database");
    StoreError::Unavailable(error.to_string())
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("the database could not write".into())
}

/// Makes a directory, for its owner only, if it does not exist.
///
/// # Errors
/// Those of the file system.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Makes the directory and takes its lock, which lasts as long as the file.
///
/// # Errors
/// `InUse` if another process has it, `Directory`.
pub fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Directory { dir: dir.to_owned(), error };
    private_dir(dir).map_err(failed)?;
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

pub(super) fn configure(connection: &rusqlite::Connection, pragmas: &str) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(pragmas)
}

/// A number as SQLite keeps it. What does not fit is beyond every number that is kept.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit of rows.
fn limit(rows: usize) -> i64 {
    number(rows as u64)
}
