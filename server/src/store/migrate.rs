//! A move from the embedded database to a PostgreSQL server: every row, under the same ids.
//!
//! Rows are copied table by table in the order of their keys, a batch a transaction, so that what is there says
//! how far a move came that was cut short: the next one goes on behind it. At the end both sides are read from
//! end to end and compared by checksums; only then is the new database served. The old one is only read. This
//! file must not know what the rows mean: what there is stands in `tables`.

mod tables;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::postgres;
use super::postgres::arrival::{Arrival, Refusal};
use super::sqlite::database::{Connection, Fault};
use super::sqlite::{self, Departure, Trouble};
use tables::{Part, TABLES, columns, count, page};

/// Rows that are read and written at a time.
const BATCH_ROWS: usize = 1_000;
/// Rooms, or whole tables, that are named when they differ.
const DIFFERENCES_MAX: usize = 10;

/// Why not all was moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Of the embedded database.
    #[error(transparent)]
    Source(#[from] sqlite::OpenError),
    #[error("cannot read the embedded database: {0}")]
    Read(String),
    #[error(transparent)]
    Destination(#[from] postgres::OpenError),
    #[error("cannot read the PostgreSQL database: {0}")]
    ReadBack(String),
    #[error("somebody else is moving data to the PostgreSQL database right now")]
    Busy,
    #[error("the PostgreSQL database is not empty: make a new one for the move")]
    NotEmpty,
    #[error("the PostgreSQL database holds, or is getting, the data of another directory")]
    OtherSource,
    #[error(
        "the directory was used after all of it was moved, and the PostgreSQL database may have been, too: what \
         is new in the directory is not there. To move the directory as it is now, make a new database"
    )]
    GoneOn,
    #[error("the table {table} has the columns {ours} here and {theirs} there: this is an error in Magpie")]
    Columns { table: &'static str, ours: String, theirs: String },
    #[error(
        "the PostgreSQL database does not hold what the directory holds: {0} differ. It changed while it was \
         being filled, or the directory did; make a new database and begin again"
    )]
    Differs(String),
}

impl From<Refusal> for MigrateError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::Busy,
            Refusal::NotEmpty => Self::NotEmpty,
            Refusal::OtherSource => Self::OtherSource,
            Refusal::Open(error) => Self::Destination(error),
        }
    }
}

/// What an operator is told meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many rows of a table are there, of so many.
    Copied { table: &'static str, rows: u64, of: u64 },
    /// A table was read on both sides and is the same.
    Compared { table: &'static str, rows: u64, checksum: String },
    /// All was there already.
    Complete,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copied { table, rows, of } => write!(f, "{table}: {rows} of {of} rows copied"),
            Self::Compared { table, rows, checksum } => {
                write!(f, "{table}: {rows} rows are the same, SHA-256 {checksum}")
            }
            Self::Complete => f.write_str("all of it was moved before"),
        }
    }
}

/// Moves the data of a directory, which no server runs on, to a PostgreSQL database, which is empty or was begun
/// to be filled from the same directory. Blocks.
///
/// # Errors
/// See [`MigrateError`]. What was copied stays, and is not served.
pub fn migrate(from: &Path, to: &str, tell: &mut (dyn FnMut(&Progress) + Send)) -> Result<(), MigrateError> {
    // On a thread of its own, for it waits, which a runtime's thread must not.
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| migrate_here(from, to, tell)).join();
        moved.unwrap_or_else(|_| Err(MigrateError::Read("a thread ended in a panic".into())))
    })
}

fn migrate_here(from: &Path, to: &str, tell: &mut (dyn FnMut(&Progress) + Send)) -> Result<(), MigrateError> {
    let source = Departure::open(from)?;
    let name = hex(&Sha256::new_with_prefix(b"source").chain_update(source.secret).finalize());
    let tables = || TABLES.iter().map(|part| part.table);
    let destination = Arrival::begin(to, name, tables())?;
    if destination.is_complete {
        let content = content(&source)?;
        if destination.content.as_ref().is_some_and(|before| *before != content) {
            return Err(MigrateError::GoneOn);
        }
        tell(&Progress::Complete);
        return Ok(());
    }
    for part in TABLES {
        let columns = same_columns(part, &source, &destination)?;
        copy(part, &columns, &source, &destination, tell)?;
    }
    destination.analyze(tables())?;
    let content = compare(&source, &destination, tell)?;
    destination.complete(&tables::last_ids(&source.connection).map_err(read)?, content)?;
    Ok(())
}

fn same_columns(part: &Part, source: &Departure, destination: &Arrival) -> Result<Vec<String>, MigrateError> {
    let ours = columns(&source.connection, part.table).map_err(read)?;
    let theirs = columns(destination.connection(), part.table).map_err(read_back)?;
    if ours == theirs {
        return Ok(ours);
    }
    let (ours, theirs) = (ours.join(", "), theirs.join(", "));
    Err(MigrateError::Columns { table: part.table, ours, theirs })
}

/// Copies what is not there yet.
fn copy(
    part: &Part,
    columns: &[String],
    source: &Departure,
    destination: &Arrival,
    tell: &mut (dyn FnMut(&Progress) + Send),
) -> Result<(), MigrateError> {
    let of = count(&source.connection, part).map_err(read)?;
    let mut rows = count(destination.connection(), part).map_err(read_back)?;
    let mut last = tables::last_key(destination.connection(), part).map_err(read_back)?;
    // A table without a key is one batch.
    while rows < of {
        let batch = page(&source.connection, part, columns, last.as_deref(), BATCH_ROWS).map_err(read)?;
        if batch.is_empty() {
            break;
        }
        destination.put(part.table, columns, &batch)?;
        rows += batch.len() as u64;
        last = batch.last().map(|row| part.key_of(columns, row));
        tell(&Progress::Copied { table: part.table, rows, of });
    }
    Ok(())
}

/// What is known of some rows: how many, and a checksum over all, in the order of their keys.
#[derive(Clone, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hash: [u8; 32],
}

type Sums = std::collections::BTreeMap<i64, Sum>;

/// A checksum over all tables.
#[derive(Default)]
struct Content(Sha256);

impl Content {
    /// Adds a table.
    fn add(&mut self, sums: &Sums) {
        self.0.update((sums.len() as u64).to_le_bytes());
        for (group, sum) in sums {
            self.0.update(group.to_le_bytes());
            self.0.update(sum.rows.to_le_bytes());
            self.0.update(sum.hash);
        }
    }

    fn end(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The checksum of a directory as it is now.
fn content(source: &Departure) -> Result<String, MigrateError> {
    let mut content = Content::default();
    for part in TABLES {
        let columns = columns(&source.connection, part.table).map_err(read)?;
        content.add(&sums(part, &columns, || &source.connection).map_err(read)?);
    }
    Ok(content.end())
}

/// Compares all of both sides: by table, and events by room. The checksum over all.
fn compare(
    source: &Departure,
    destination: &Arrival,
    tell: &mut (dyn FnMut(&Progress) + Send),
) -> Result<String, MigrateError> {
    let mut differences = Vec::new();
    let mut content = Content::default();
    for part in TABLES {
        let columns = columns(&source.connection, part.table).map_err(read)?;
        let ours = sums(part, &columns, || &source.connection).map_err(read)?;
        content.add(&ours);
        let theirs = sums(part, &columns, || destination.connection()).map_err(read_back)?;
        let before = differences.len();
        let all: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for group in all {
            if ours.get(group) != theirs.get(group) {
                differences.push(part.group_name(*group));
            }
        }
        if differences.len() == before {
            let mut whole = Sha256::new();
            ours.values().for_each(|sum| whole.update(sum.hash));
            let rows = ours.values().map(|sum| sum.rows).sum();
            let checksum = hex(&whole.finalize());
            tell(&Progress::Compared { table: part.table, rows, checksum });
        }
    }
    if differences.is_empty() {
        return Ok(content.end());
    }
    let more = differences.len().saturating_sub(DIFFERENCES_MAX);
    differences.truncate(DIFFERENCES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(MigrateError::Differs(differences.join(", ") + &more))
}

/// Reads all rows and sums them up, by group.
fn sums<'c>(
    part: &Part,
    columns: &[String],
    connection: impl Fn() -> &'c Connection,
) -> Result<Sums, Trouble> {
    let mut hashes = std::collections::BTreeMap::<i64, (u64, Sha256)>::new();
    let mut last = None;
    loop {
        let rows = page(connection(), part, columns, last.as_deref(), BATCH_ROWS)?;
        for row in &rows {
            let (count, hash) = hashes.entry(part.group_of(columns, row)).or_default();
            *count += 1;
            row.iter().for_each(|cell| tables::digest(hash, cell));
        }
        if rows.len() < BATCH_ROWS || part.keys.is_empty() {
            break;
        }
        last = rows.last().map(|row| part.key_of(columns, row));
    }
    let sum = |(rows, hash): (u64, Sha256)| Sum { rows, hash: hash.finalize().into() };
    Ok(hashes.into_iter().map(|(group, hash)| (group, sum(hash))).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn explain(trouble: Trouble) -> String {
    match trouble {
        Trouble::Refused(error) => error.to_string(),
        Trouble::Medium(fault) => Fault::to_string(&fault),
    }
}

fn read(trouble: Trouble) -> MigrateError {
    MigrateError::Read(explain(trouble))
}

fn read_back(trouble: Trouble) -> MigrateError {
    MigrateError::ReadBack(explain(trouble))
}
