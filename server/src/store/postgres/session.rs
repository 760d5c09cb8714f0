//! One connection to a PostgreSQL server, used by one thread, which waits for each answer but never longer
//! than until a deadline. It must not know what the statements are about.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::SinkExt;
use futures_util::future::join;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::address::Servers;
use super::dialect;
use crate::store::sqlite::database::{Owned, Value};

/// What the server is told about a new connection. Whoever is gone must not hold a lock: statements, waits for
/// locks and idle transactions end by themselves, and a server that waits for a lock looks whether the other
/// side is still there. A stronger durability than ours, set for the database, stays.
const SETTINGS: &str = "
    SET statement_timeout = '4s';
    SET lock_timeout = '3s';
    SET idle_in_transaction_session_timeout = '3s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '4s';
    SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// Not every platform that servers run on can do this.
const LOOK_FOR_US: &str = "SET client_connection_check_interval = '1s'";

/// Why a server did not do what it was told. The connection cannot be relied on any more.
#[derive(Debug)]
pub(in crate::store) enum Fault {
    Server(tokio_postgres::Error),
    /// There was no answer in time.
    Late,
    /// It takes no writes now, and may be an old one.
    ReadOnly,
    /// This machine could not even try.
    Local(std::io::Error),
}

impl Fault {
    /// Another transaction was in the way: the same again may work.
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Server(error) = self else { return false };
        let conflicts = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNIQUE_VIOLATION,
        ];
        error.code().is_some_and(|code| conflicts.contains(code))
    }

    /// The server is away, on its way up or down, or cannot take writes now: it may be better later, with
    /// nothing changed here.
    pub(super) fn may_pass(&self) -> bool {
        let Self::Server(error) = self else { return true };
        if let Some(code) = error.code() {
            let passing = [
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::READ_ONLY_SQL_TRANSACTION,
            ];
            return passing.contains(code) || code.code().starts_with("08");
        }
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        // A certificate that is not believed is "invalid data".
        error.is_closed() || cause.is_some_and(|cause| cause.kind() != std::io::ErrorKind::InvalidData)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => match (error.as_db_error(), std::error::Error::source(error)) {
                (Some(error), _) => write!(f, "{} ({})", error.message(), error.code().code()),
                (None, Some(source)) => write!(f, "{error}: {source}"),
                (None, None) => error.fmt(f),
            },
            Self::Late => f.write_str("the server did not answer in time"),
            Self::ReadOnly => f.write_str("the server takes no writes"),
            Self::Local(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// A statement whose answer nobody has waited for yet.
type Sent = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

pub(in crate::store) struct Session {
    client: Arc<Client>,
    /// There until the end.
    runtime: Option<Runtime>,
    prepared: RefCell<HashMap<Box<str>, Statement>>,
    sent: RefCell<Vec<Sent>>,
    deadline: Cell<Instant>,
    statements: Cell<u64>,
}

impl Session {
    /// Connects, at the latest until the deadline.
    pub(super) fn connect(servers: &Servers, deadline: Instant) -> Result<Self, Fault> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::Local)?;
        // The connection runs whenever this thread waits for an answer, which is when there is something to read.
        let connect = async {
            let client = servers.connect(deadline).await?;
            client.batch_execute(SETTINGS).await?;
            match client.batch_execute(LOOK_FOR_US).await {
                Err(error) if error.as_db_error().is_none() => Err(error.into()),
                _ => Ok(client),
            }
        };
        let connected = runtime.block_on(async { tokio::time::timeout_at(deadline.into(), connect).await });
        match connected.unwrap_or(Err(Fault::Late)) {
            Ok(client) => Ok(Self {
                client: Arc::new(client),
                runtime: Some(runtime),
                prepared: RefCell::default(),
                sent: RefCell::default(),
                deadline: Cell::new(deadline),
                statements: Cell::new(0),
            }),
            Err(fault) => {
                // The system may still be looking for the host's name; nobody waits for that.
                runtime.shutdown_background();
                Err(fault)
            }
        }
    }

    /// From now on no answer is waited for longer than until then.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        self.deadline.set(deadline);
    }

    /// How many statements were run.
    pub(in crate::store) fn statements(&self) -> u64 {
        self.statements.get()
    }

    /// Runs statements without values, as they are, and waits for them.
    pub(super) fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.wait(async { Ok(self.client.batch_execute(sql).await?) })
    }

    /// The same; the first value of what they answer.
    pub(super) fn ask(&self, sql: &str) -> Result<Option<String>, Fault> {
        let messages = self.wait(async { Ok(self.client.simple_query(sql).await?) })?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Sends a statement without values. An error of it is the next statement's.
    pub(in crate::store) fn control(&self, sql: &str) -> Result<(), Fault> {
        let (client, sql) = (self.client.clone(), sql.to_owned());
        self.send(Box::pin(async move { Ok(client.batch_execute(&sql).await?) }))
    }

    /// Sends a statement. An error of it is the next statement's, which the server refuses, too, be it the commit.
    pub(in crate::store) fn execute_ahead(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Fault> {
        let statement = self.prepare(sql)?;
        self.count();
        let client = self.client.clone();
        let values: Vec<Owned> = values.iter().map(|value| Owned::of(*value)).collect();
        self.send(Box::pin(async move {
            client.execute_raw(&statement, values.iter()).await?;
            Ok(())
        }))
    }

    /// Sends the rows of a `COPY … FROM STDIN`; how many they were.
    pub(super) fn copy_in(&self, sql: &str, rows: Vec<u8>) -> Result<u64, Fault> {
        self.wait(async {
            let mut sink = std::pin::pin!(self.client.copy_in(sql).await?);
            sink.send(bytes::Bytes::from(rows)).await?;
            Ok(sink.finish().await?)
        })
    }

    pub(in crate::store) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Fault> {
        let statement = self.prepare(sql)?;
        self.count();
        let changed = self.wait(async { Ok(self.client.execute_raw(&statement, values.iter()).await?) })?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(in crate::store) fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, Fault> {
        let statement = self.prepare(sql)?;
        self.count();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        self.wait(async { Ok(self.client.query(&statement, &values).await?) })
    }

    fn count(&self) {
        self.statements.set(self.statements.get() + 1);
    }

    fn prepare(&self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.prepared.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let text = dialect::translate(sql);
        let statement = self.wait(async { Ok(self.client.prepare(&text).await?) })?;
        self.prepared.borrow_mut().insert(sql.into(), statement.clone());
        Ok(statement)
    }

    fn send(&self, mut sent: Sent) -> Result<(), Fault> {
        // The first look at it puts it into the connection's queue, behind what was sent before.
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done,
            Poll::Pending => {
                self.sent.borrow_mut().push(sent);
                Ok(())
            }
        }
    }

    /// Waits for an answer, and for those of what was sent before.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let sent = self.sent.take();
        let before = async move {
            for sent in sent {
                sent.await?;
            }
            Ok::<(), Fault>(())
        };
        let Some(runtime) = &self.runtime else { return Err(Fault::Late) };
        let deadline = self.deadline.get().into();
        let all = async { tokio::time::timeout_at(deadline, join(answer, before)).await };
        match runtime.block_on(all) {
            Ok((answer, before)) => before.and(answer),
            Err(_) => Err(Fault::Late),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The system may still be looking for the name of another host; nobody waits for that.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Failure = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Owned {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Failure> {
        self.value().to_sql(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The server says of what type a value must be; a truth is a number there where it is one in a column.
impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Failure> {
        let number = match *self {
            Value::Null => return Ok(IsNull::Yes),
            Value::Text(text) => return text.to_sql(kind, out),
            Value::Bytes(bytes) => return bytes.to_sql(kind, out),
            Value::Numbers(numbers) => return numbers.to_sql(kind, out),
            Value::Number(number) => number,
            Value::Truth(truth) => i64::from(truth),
        };
        match *kind {
            Type::BOOL => (number != 0).to_sql(kind, out),
            Type::INT8 => number.to_sql(kind, out),
            Type::INT4 => i32::try_from(number)?.to_sql(kind, out),
            Type::INT2 => i16::try_from(number)?.to_sql(kind, out),
            _ => Err(format!("a number where {kind} is wanted").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(match *kind {
            Type::BOOL => Value::Truth(bool::from_sql(kind, raw)?),
            Type::INT8 => Value::Number(i64::from_sql(kind, raw)?),
            Type::INT4 => Value::Number(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Value::Number(i16::from_sql(kind, raw)?.into()),
            Type::BYTEA => Value::Bytes(raw),
            _ => Value::Text(<&str>::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failure> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
