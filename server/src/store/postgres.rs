//! The store of many nodes: one PostgreSQL database, which every node reads and writes.
//!
//! The rules are the embedded store's own, on a connection to the server instead of to a file. What differs is
//! who waits for whom, since no node knows what the others do:
//!
//! - Appends and the other small writes run side by side on all nodes, under a lock that they share. An append
//!   locks its room's row first, so that `seq` is given in the order of commits. A node takes all appends that
//!   wait into one transaction (group commit).
//! - All other changes run alone, under the same lock: what a change read still holds when it commits, as in
//!   the embedded store.
//!
//! Each connection has a thread of its own, which waits for the server so that the server's workers need not;
//! it makes a new connection when the old one fails. What was asked for is answered within [`ANSWER_MAX`], if
//! only by `Unavailable`. Nothing is remembered from one transaction to the next: other nodes write, too.

mod address;
mod appends;
pub(in crate::store) mod arrival;
mod dialect;
mod schema;
pub(in crate::store) mod session;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::sqlite::database::{Connection, Fault};
use super::sqlite::queue::{Queue, Threads};
use super::sqlite::{Medium, Trouble, Writer};
use super::{Append, Appended, Reply, StoreError};
pub use address::AddressError;
use address::Servers;
use appends::Appends;
use session::{Fault as ServerFault, Session};

/// Connections that read.
const READERS: usize = 4;
/// Reads that share a transaction, where that many wait.
const READ_BATCH_MAX: usize = 32;
/// Reads that may wait; one more is answered with `Unavailable`.
const READS_WAITING_MAX: usize = 16_384;
/// Appends that may wait; one more is answered with `Unavailable`. And other writes.
const WRITES_WAITING_MAX: usize = 16_384;
/// Appends in one transaction; the last batch may go over it.
const APPENDS_MAX: usize = 1_024;
/// Other writes in one transaction: each is a few journeys to the server, and a change that waits for them keeps
/// all appends waiting.
const SMALL_BATCH_MAX: usize = 32;
/// Changes in one transaction. While they run, all nodes wait.
const CHANGE_BATCH_MAX: usize = 32;

/// How long whoever asks waits for an answer at most, the time in the queue included.
const ANSWER_MAX: Duration = Duration::from_millis(4_500);
/// The least that a piece of work gets; with less left it is not begun.
const WORK_MIN: Duration = Duration::from_millis(750);
/// How long changes wait for some of a deleted room to be taken away.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a start waits for a server that does not answer, and how long between two attempts.
const START_MAX: Duration = Duration::from_secs(30);
const START_PAUSE: Duration = Duration::from_millis(500);
/// How long one of these attempts may take, and then the migrations.
const START_CONNECT_MAX: Duration = Duration::from_secs(5);
const MIGRATIONS_MAX: Duration = Duration::from_secs(600);

/// The lock that changes have alone, and all other writes together. Whatever the database's default is: what is
/// read behind the lock must be what stands there then.
const SHARED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared(5566102, 1)";
const ALONE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(5566102, 1)";
/// Asks whether the server takes no writes: others go on elsewhere then, and what stands here is old.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the database's address cannot be used: {0}")]
    Address(#[from] AddressError),
    /// It may be better later.
    #[error("the PostgreSQL server does not answer: {0}")]
    Away(String),
    #[error("cannot use the PostgreSQL database: {0}")]
    Server(String),
    /// A newer Magpie wrote the database.
    #[error(
        "the PostgreSQL database has the schema {found}, this program knows up to {known}: run a newer Magpie"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the PostgreSQL database has the encoding {0}, which cannot hold every text: make a new one with \
         `createdb --encoding=UTF8 --template=template0`"
    )]
    Encoding(String),
    /// The database opens but does not hold what it must.
    #[error("the PostgreSQL database is damaged: {0}")]
    Damaged(&'static str),
    /// A migration to it was begun and did not come to its end.
    #[error(
        "the PostgreSQL database holds a part of what is being moved to it: run `magpie migrate` again until it \
         says that all is there"
    )]
    Unfinished,
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl From<ServerFault> for OpenError {
    fn from(fault: ServerFault) -> Self {
        if fault.may_pass() { Self::Away(fault.to_string()) } else { Self::Server(fault.to_string()) }
    }
}

/// A store on a PostgreSQL server.
///
/// Dropping it, like [`PostgresStore::close`], blocks until what was accepted is done or has failed.
pub struct PostgresStore {
    reads: Arc<Queue<Waiting<Read>>>,
    appends: Arc<Queue<Waiting<Appends>>>,
    small: Arc<Queue<Waiting<Small>>>,
    changes: Arc<Queue<Waiting<Change>>>,
    threads: Threads,
    secret: [u8; 32],
}

/// A piece of work that somebody waits for.
struct Waiting<J> {
    job: J,
    since: Instant,
}

impl<J> Waiting<J> {
    fn is_late(&self) -> bool {
        self.since.elapsed() + WORK_MIN > ANSWER_MAX
    }
}

/// Runs in a transaction. What a read returns is nothing; a write's answer is sent after the commit, and dropped
/// unsent where that fails, which is an answer too: `Unavailable`.
type Read = Box<dyn FnOnce(&Connection) -> Result<(), Fault> + Send>;
type Change = Box<dyn FnOnce(&mut Writer) -> Result<Answer, Fault> + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// A write that does not need to run alone. Those of one transaction are done in the order of their keys, which
/// is the same on all nodes.
struct Small {
    key: (u64, u64),
    change: Change,
}

impl PostgresStore {
    /// Opens the store at an address such as `postgres://user:password@host:5432/database`, and makes its tables
    /// if they do not exist. Blocks, and waits for a server that is not up yet, for [`START_MAX`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_within(address, START_MAX)
    }

    fn open_within(address: &str, patience: Duration) -> Result<Self, OpenError> {
        let servers = Servers::parse(address)?;
        let secret = std::thread::scope(|scope| {
            // On a thread of its own, for it waits, which a runtime's thread must not.
            let prepare = || prepare(&servers, patience);
            scope.spawn(prepare).join().unwrap_or(Err(OpenError::Damaged("it could not be prepared")))
        })?;
        // From here on an error drops the store, which ends the threads that run.
        let store = Self {
            reads: Queue::new(READS_WAITING_MAX),
            appends: Queue::new(WRITES_WAITING_MAX),
            small: Queue::new(WRITES_WAITING_MAX),
            changes: Queue::new(WRITES_WAITING_MAX),
            threads: Threads::new(),
            secret,
        };
        for place in 0..READERS {
            let (mut node, queue) = (Node::new(&servers), store.reads.taker());
            store.start(&format!("store-read-{place}"), move || {
                while let Some(reads) = queue.take_part(READERS, READ_BATCH_MAX) {
                    node.read(reads);
                }
            })?;
        }
        let (mut node, queue) = (Node::new(&servers), store.appends.taker());
        store.start("store-append", move || {
            while let Some(batch) = queue.take_some(APPENDS_MAX) {
                node.append(batch);
            }
        })?;
        let (mut node, queue) = (Node::new(&servers), store.small.taker());
        store.start("store-small", move || {
            while let Some(mut batch) = queue.take_some(SMALL_BATCH_MAX) {
                batch.sort_by_key(|waiting| waiting.job.key);
                let changes =
                    batch.into_iter().map(|Waiting { job, since }| Waiting { job: job.change, since });
                node.change(SHARED, changes.collect());
            }
        })?;
        let (mut node, queue) = (Node::new(&servers), store.changes.taker());
        store.start("store-change", move || {
            while let Some(batch) = queue.take_some(CHANGE_BATCH_MAX) {
                node.change(ALONE, batch);
                node.purge();
            }
        })?;
        Ok(store)
    }

    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        self.threads.start(name, run).map_err(OpenError::Thread)
    }

    /// Does what was accepted and closes the connections. What comes later is answered with `Unavailable`.
    pub fn close(&self) {
        self.reads.close();
        self.appends.close();
        self.small.close();
        self.changes.close();
        self.threads.join();
    }
}

/// Brings the schema up to date and reads the secret, as soon as there is a server.
fn prepare(servers: &Servers, patience: Duration) -> Result<[u8; 32], OpenError> {
    let begin = Instant::now();
    let attempt = || {
        let session = Session::connect(servers, Instant::now() + START_CONNECT_MAX)?;
        session.set_deadline(Instant::now() + MIGRATIONS_MAX);
        schema::prepare(&session)
    };
    let mut is_told = false;
    loop {
        match attempt() {
            Err(OpenError::Away(cause)) if begin.elapsed() < patience => {
                if !is_told {
                    tracing::warn!(%cause, "the PostgreSQL server does not answer; trying again");
                }
                is_told = true;
                std::thread::sleep(START_PAUSE);
            }
            done => return done,
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Medium for PostgresStore {
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let (tx, rx) = oneshot::channel();
        let job: Read = Box::new(move |connection| {
            // Whoever asked may have gone away.
            if tx.is_closed() {
                return Ok(());
            }
            let answer = settle(read(connection))?;
            let _ = tx.send(answer);
            Ok(())
        });
        queue(&self.reads, 1, job, rx)
    }

    fn write<T: Send + 'static>(
        &self,
        weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        change(&self.changes, weight, write)
    }

    fn write_small<T: Send + 'static>(
        &self,
        key: (u64, u64),
        weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let (tx, rx) = oneshot::channel();
        queue(&self.small, weight, Small { key, change: answering(tx, write) }, rx)
    }

    fn write_appends(&self, batch: Vec<Append>) -> Reply<Vec<Result<Appended, StoreError>>> {
        let (tx, rx) = oneshot::channel();
        queue(&self.appends, batch.len().max(1), Appends { batch, tx }, rx)
    }

    fn write_after<R: Send + 'static, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<Result<T, R>, Trouble> + Send + 'static,
        write: impl FnOnce(&mut Writer, R) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let known = Medium::read(self, read);
        let changes = self.changes.clone();
        Box::pin(async move {
            match known.await? {
                Ok(done) => Ok(done),
                Err(rest) => change(&changes, 1, move |writer| write(writer, rest)).await,
            }
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn queue<J, T: Send + 'static>(
    queue: &Queue<Waiting<J>>,
    weight: usize,
    job: J,
    rx: oneshot::Receiver<Result<T, StoreError>>,
) -> Reply<T> {
    match queue.put(weight, Waiting { job, since: Instant::now() }) {
        Ok(()) => Box::pin(async move { rx.await.unwrap_or_else(|_| Err(no_answer())) }),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}

fn change<T: Send + 'static>(
    changes: &Queue<Waiting<Change>>,
    weight: usize,
    write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
) -> Reply<T> {
    let (tx, rx) = oneshot::channel();
    queue(changes, weight, answering(tx, write), rx)
}

fn answering<T: Send + 'static>(
    tx: oneshot::Sender<Result<T, StoreError>>,
    write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
) -> Change {
    Box::new(move |writer| {
        let answer = settle(write(writer))?;
        Ok(Box::new(move || drop(tx.send(answer))))
    })
}

/// Parts answers from the failures of the server.
fn settle<T>(done: Result<T, Trouble>) -> Result<Result<T, StoreError>, Fault> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(Trouble::Refused(error)) => Ok(Err(error)),
        Err(Trouble::Medium(fault)) => Err(fault),
    }
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("the database does not answer".into())
}

/// One thread's connection, which is made when it is needed.
struct Node {
    servers: Servers,
    writer: Option<Writer>,
    is_down: bool,
}

impl Node {
    fn new(servers: &Servers) -> Self {
        Self { servers: servers.clone(), writer: None, is_down: false }
    }

    /// Begins a transaction, over a new connection if the old one fails.
    fn begin(&mut self, how: &str, deadline: Instant) -> Result<&mut Writer, ServerFault> {
        let writer = match self.writer.take().and_then(|writer| begun(writer, how, deadline).ok()) {
            Some(writer) => writer,
            None => {
                let session = Session::connect(&self.servers, deadline)?;
                begun(Writer::new(Connection::Server(session)), how, deadline)?
            }
        };
        Ok(self.writer.insert(writer))
    }

    /// Does some work in a transaction, and commits it. After any failure the connection is given up, and the
    /// transaction with it: it is either done or not, and nobody is told that it is.
    fn transact<T>(
        &mut self,
        how: &str,
        deadline: Instant,
        work: impl FnOnce(&mut Writer) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let done = self.begin(how, deadline).map_err(Fault::from).and_then(|writer| {
            let done = work(writer)?;
            // A read has nothing to keep.
            session(writer)?.batch(if how == READ { "ROLLBACK" } else { "COMMIT" })?;
            Ok(done)
        });
        match &done {
            Ok(_) if self.is_down => {
                self.is_down = false;
                tracing::info!("the database answers again");
            }
            Ok(_) => {}
            // Conflicts are everyday.
            Err(fault) if is_conflict(fault) => {
                let rolled_back = self
                    .writer
                    .take_if(|writer| session(writer).and_then(|session| session.batch("ROLLBACK")).is_err());
                drop(rolled_back);
            }
            Err(fault) => {
                self.writer = None;
                // Once for each outage and thread.
                if !self.is_down {
                    tracing::error!(error = %fault, "the database failed");
                    self.is_down = true;
                }
            }
        }
        done
    }

    fn read(&mut self, reads: Vec<Waiting<Read>>) {
        let (reads, deadline) = in_time(reads);
        if reads.is_empty() {
            return;
        }
        // What was not read when something failed is dropped unanswered. The answers are out before the end.
        let _ = self.transact(READ, deadline, |writer| {
            reads.into_iter().try_for_each(|Waiting { job, .. }| job(&writer.connection))
        });
    }

    fn change(&mut self, how: &str, changes: Vec<Waiting<Change>>) {
        let (changes, deadline) = in_time(changes);
        if changes.is_empty() {
            return;
        }
        let answers = self.transact(how, deadline, |writer| {
            changes.into_iter().map(|Waiting { job, .. }| job(writer)).collect::<Result<Vec<Answer>, Fault>>()
        });
        match answers {
            Ok(answers) => answers.into_iter().for_each(|answer| answer()),
            Err(fault) if is_conflict(&fault) => tracing::warn!(error = %fault, "changes were given up"),
            Err(_) => {}
        }
    }

    /// Takes away some of what was said in deleted rooms: by itself, so that nobody is refused if it fails.
    fn purge(&mut self) {
        if self.writer.as_ref().is_some_and(Writer::is_purging) {
            // If not now, then behind the next change.
            let _ = self.transact(SHARED, Instant::now() + PURGE_WAIT_MAX, Writer::purge_some);
        }
    }
}

/// Drops what has waited too long, and says until when the rest must be answered.
fn in_time<J>(mut jobs: Vec<Waiting<J>>) -> (Vec<Waiting<J>>, Instant) {
    jobs.retain(|waiting| !waiting.is_late());
    let oldest = jobs.iter().map(|waiting| waiting.since).min().unwrap_or_else(Instant::now);
    (jobs, oldest + ANSWER_MAX)
}

fn session(writer: &Writer) -> Result<&Session, ServerFault> {
    match &writer.connection {
        Connection::Server(session) => Ok(session),
        Connection::Embedded(_) => Err(ServerFault::Late),
    }
}

/// A connection whose transaction has begun. An old one gets half of the time for that.
fn begun(mut writer: Writer, how: &str, deadline: Instant) -> Result<Writer, ServerFault> {
    writer.forget();
    let session = session(&writer)?;
    let left = deadline.saturating_duration_since(Instant::now());
    session.set_deadline(if session.statements() > 0 { deadline - left / 2 } else { deadline });
    if how != READ {
        session.batch(how)?;
    } else if session.ask(how)?.as_deref() == Some("t") {
        return Err(ServerFault::ReadOnly);
    }
    session.set_deadline(deadline);
    Ok(writer)
}

fn is_conflict(fault: &Fault) -> bool {
    matches!(fault, Fault::Server(fault) if fault.is_conflict())
}
