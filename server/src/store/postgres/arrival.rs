//! A PostgreSQL database that is being filled from another one: empty at first, served by nobody until all is
//! there. It must not know where the rows come from.

use std::time::{Duration, Instant};

use super::schema::{self, NOTE, Note};
use super::session::{Fault as ServerFault, Session};
use super::{OpenError, START_CONNECT_MAX, Servers};
use crate::store::sqlite::database::{Connection, Owned, Value};

/// How long one statement may take: counts, constraints and statistics of all that there is.
const STATEMENT_MAX: Duration = Duration::from_secs(3_600);

/// Nobody else waits for this session, and it may be silent for long.
const SETTINGS: &str =
    "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// The lock of whoever fills the database, for as long as the connection lives.
const LOCK: &str = "SELECT CAST(CAST(pg_try_advisory_lock(5566102, 2) AS integer) AS bigint)";

/// Why a database cannot be filled.
#[derive(Debug)]
pub(in crate::store) enum Refusal {
    /// Somebody fills it already.
    Busy,
    /// It holds something, which was not put there by filling.
    NotEmpty,
    /// It was filled from another source, in part or wholly.
    OtherSource,
    Open(OpenError),
}

impl<E: Into<OpenError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Open(error.into())
    }
}

pub(in crate::store) struct Arrival {
    connection: Connection,
    source: String,
    /// All was there before.
    pub is_complete: bool,
    /// A checksum over all that was there then, at the source.
    pub content: Option<String>,
}

impl Arrival {
    /// Takes a database that is empty, or that was begun to be filled from the same source; the name of the
    /// source is noted in it. `tables` are those that must be empty.
    pub(in crate::store) fn begin(
        address: &str,
        source: String,
        tables: impl Iterator<Item = &'static str>,
    ) -> Result<Self, Refusal> {
        let servers = Servers::parse(address).map_err(OpenError::from)?;
        let session = Session::connect(&servers, Instant::now() + START_CONNECT_MAX)?;
        session.set_deadline(Instant::now() + STATEMENT_MAX);
        session.batch(SETTINGS)?;
        if schema::number(&session, LOCK)? == 0 {
            return Err(Refusal::Busy);
        }
        schema::begin(&session)?;
        let (is_complete, content) = match schema::note(&session)? {
            Some(note) if note.source == source => (note.is_complete, note.content),
            Some(_) => return Err(Refusal::OtherSource),
            None => {
                for table in tables {
                    if !session.query(&format!("SELECT 1 FROM {table} LIMIT 1"), &[])?.is_empty() {
                        return Err(Refusal::NotEmpty);
                    }
                }
                (false, None)
            }
        };
        let arrival = Self { connection: Connection::Server(session), source, is_complete, content };
        if !is_complete {
            arrival.note(false, None)?;
        }
        arrival.session()?.batch("COMMIT")?;
        Ok(arrival)
    }

    fn session(&self) -> Result<&Session, ServerFault> {
        let Connection::Server(session) = &self.connection else { return Err(ServerFault::Late) };
        session.set_deadline(Instant::now() + STATEMENT_MAX);
        Ok(session)
    }

    fn note(&self, is_complete: bool, content: Option<String>) -> Result<(), OpenError> {
        let note = Note { source: self.source.clone(), is_complete, content };
        let note = serde_json::to_vec(&note).map_err(|_| OpenError::Damaged("a note cannot be written"))?;
        self.session()?.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            &[Value::Text(NOTE), Value::Bytes(&note)],
        )?;
        Ok(())
    }

    /// To read what is there.
    pub(in crate::store) fn connection(&self) -> &Connection {
        if let Connection::Server(session) = &self.connection {
            session.set_deadline(Instant::now() + STATEMENT_MAX);
        }
        &self.connection
    }

    /// Puts rows into a table, all of them or none, durably.
    pub(in crate::store) fn put(
        &self,
        table: &str,
        columns: &[String],
        rows: &[Vec<Owned>],
    ) -> Result<(), OpenError> {
        let names: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let mut lines = Vec::new();
        for row in rows {
            write_line(&mut lines, row);
        }
        // A statement of its own is a transaction of its own.
        let copied =
            self.session()?.copy_in(&format!("COPY {table} ({}) FROM STDIN", names.join(", ")), lines)?;
        if copied == rows.len() as u64 { Ok(()) } else { Err(OpenError::Damaged("rows were lost in a copy")) }
    }

    /// Tells the server how much there is now: its plans depend on it.
    pub(in crate::store) fn analyze(
        &self,
        tables: impl Iterator<Item = &'static str>,
    ) -> Result<(), OpenError> {
        for table in tables {
            self.session()?.batch(&format!("ANALYZE {table}"))?;
        }
        Ok(())
    }

    /// Says that all is there. Row ids go on behind the last one that was given in each table, also where that
    /// row is gone. `content`: a checksum over all.
    pub(in crate::store) fn complete(
        self,
        last_ids: &[(String, i64)],
        content: String,
    ) -> Result<(), OpenError> {
        self.session()?.batch("BEGIN")?;
        for (table, last) in last_ids {
            // One that gave none begins at 1.
            let sql = "SELECT setval(pg_get_serial_sequence(?1, 'id'), greatest(last, 1), last > 0)
                FROM (SELECT CAST(?2 AS bigint) AS last) AS given";
            self.session()?.query(sql, &[Value::Text(table), Value::Number(*last)])?;
        }
        self.note(true, Some(content))?;
        Ok(self.session()?.batch("COMMIT")?)
    }
}

/// A row in the text form of `COPY`.
fn write_line(out: &mut Vec<u8>, row: &[Owned]) {
    for (place, cell) in row.iter().enumerate() {
        if place > 0 {
            out.push(b'\t');
        }
        match cell {
            Owned::Null => out.extend(b"\\N"),
            Owned::Number(number) => out.extend(number.to_string().bytes()),
            Owned::Truth(truth) => out.extend(i64::from(*truth).to_string().bytes()),
            Owned::Text(text) => {
                for byte in text.bytes() {
                    match byte {
                        b'\\' => out.extend(b"\\\\"),
                        b'\n' => out.extend(b"\\n"),
                        b'\r' => out.extend(b"\\r"),
                        b'\t' => out.extend(b"\\t"),
                        byte => out.push(byte),
                    }
                }
            }
            Owned::Bytes(bytes) => {
                out.extend(b"\\\\x");
                out.extend(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
            }
        }
    }
    out.push(b'\n');
}
