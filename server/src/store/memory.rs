//! A store in memory: for tests, simulations, and for trying Magpie out. Nothing survives the process.
//!
//! It is the embedded store's own code on a database in memory, called at once: every reply is ready, so that
//! a simulation needs no runtime. It must not know a clock, a random source or a thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sqlite::database::Connection;
use super::sqlite::{Medium, Trouble, Writer, schema};
use super::{Reply, StoreError};

/// A handle to a store in memory. Clones share it, so that a test can keep one across "restarts".
#[derive(Clone)]
pub struct MemoryStore {
    secret: [u8; 32],
    state: Arc<Mutex<State>>,
    line: Arc<Mutex<Line>>,
}

struct State {
    writer: Writer,
    /// How many writes there were.
    writes: u64,
}

/// The way to the store, on which there can be trouble.
#[derive(Default)]
struct Line {
    unavailable: bool,
    answers_to_lose: usize,
}

impl MemoryStore {
    /// An empty store with the given secret.
    ///
    /// # Panics
    /// If there is no memory left for it.
    pub fn new(secret: [u8; 32]) -> Self {
        let connection = rusqlite::Connection::open_in_memory().and_then(|mut connection| {
            super::sqlite::configure(&connection, "PRAGMA foreign_keys = ON;")?;
            let made = schema::prepare(&mut connection, "memory".as_ref());
            made.map(|_| connection).map_err(|_| rusqlite::Error::InvalidQuery)
        });
        let connection = connection.expect("a database in memory needs nothing but memory");
        let state = State { writer: Writer::new(Connection::Embedded(connection)), writes: 0 };
        Self { secret, state: Arc::new(Mutex::new(state)), line: Arc::default() }
    }

    /// For tests: the same store by a way of its own, as from another node. Trouble on one of the ways is none on
    /// the others.
    pub fn another_way(&self) -> Self {
        Self { line: Arc::default(), ..self.clone() }
    }

    /// For tests: as long as it is the same, so is all that is stored.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// For tests: from now on nothing is read or written this way, and every answer is `Unavailable`; or all
    /// is well again.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.line().unavailable = unavailable;
    }

    /// For tests: the next `count` writes this way are done, but answered with `Unavailable`, as when a connection to
    /// a database breaks between the commit and its answer.
    pub fn lose_answers(&self, count: usize) {
        self.line().answers_to_lose = count;
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for MemoryStore {
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let answer = if self.line().unavailable {
            Err(switched_off())
        } else {
            read(&self.lock().writer.connection).map_err(explain)
        };
        Box::pin(std::future::ready(answer))
    }

    fn write<T: Send + 'static>(
        &self,
        _weight: usize,
        write: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        let mut line = self.line();
        let mut answer = if line.unavailable {
            Err(switched_off())
        } else {
            let mut state = self.lock();
            state.writes += 1;
            write(&mut state.writer).map_err(explain)
        };
        if line.answers_to_lose > 0 {
            line.answers_to_lose -= 1;
            answer = Err(StoreError::Unavailable("the answer was lost".into()));
        }
        Box::pin(std::future::ready(answer))
    }

    fn write_after<R: Send + 'static, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<Result<T, R>, Trouble> + Send + 'static,
        write: impl FnOnce(&mut Writer, R) -> Result<T, Trouble> + Send + 'static,
    ) -> Reply<T> {
        self.write(1, move |writer| match read(&writer.connection)? {
            Ok(done) => Ok(done),
            Err(rest) => write(writer, rest),
        })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

fn explain(trouble: Trouble) -> StoreError {
    match trouble {
        Trouble::Refused(error) => error,
        Trouble::Medium(error) => StoreError::Unavailable(error.to_string()),
    }
}

fn switched_off() -> StoreError {
    StoreError::Unavailable("switched off".into())
}
