//! A connection to the embedded database or to a server's, with one face: what the rules are written against.
//!
//! The statements are SQLite's and PostgreSQL's common tongue; what little differs is translated here or in
//! [`Connection::dialect`]. It must not know what a statement is about.

use crate::store::StoreError;
use crate::store::postgres::session::{Fault as ServerFault, Session};

use super::Trouble;

/// A connection, used by one thread.
pub(in crate::store) enum Connection {
    Embedded(rusqlite::Connection),
    Server(Session),
}

/// Why a database did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Fault {
    #[error(transparent)]
    Embedded(#[from] rusqlite::Error),
    #[error(transparent)]
    Server(#[from] ServerFault),
    /// There is no row where one was asked for.
    #[error("no row")]
    NoRow,
}

impl Connection {
    /// A statement, which the connection keeps for the next time.
    pub fn prepare_cached<'c>(&'c self, sql: &'c str) -> Result<Statement<'c>, Trouble> {
        match self {
            Self::Embedded(connection) => Ok(Statement::Embedded(connection.prepare_cached(sql)?)),
            Self::Server(session) => Ok(Statement::Server(session, sql)),
        }
    }

    /// Whether it is to a server, which is far away.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The one of two statements that this database understands, or understands best.
    pub fn dialect<'s>(&self, embedded: &'s str, server: &'s str) -> &'s str {
        match self {
            Self::Embedded(_) => embedded,
            Self::Server(_) => server,
        }
    }

    /// Runs a statement of the transaction's own, which has no values.
    pub fn control(&self, sql: &str) -> Result<(), Fault> {
        match self {
            Self::Embedded(connection) => {
                connection.prepare_cached(sql)?.execute([])?;
            }
            Self::Server(session) => session.control(sql)?,
        }
        Ok(())
    }

    /// Gives up a transaction, if there is one.
    pub fn roll_back(&self) -> Result<(), Fault> {
        match self {
            Self::Embedded(connection) if connection.is_autocommit() => Ok(()),
            _ => self.control("ROLLBACK"),
        }
    }

    /// A number that is another one after something was changed.
    pub fn changes(&self) -> u64 {
        match self {
            Self::Embedded(connection) => connection.total_changes(),
            Self::Server(session) => session.statements(),
        }
    }

    /// The embedded database's own connection.
    #[cfg(test)]
    pub fn embedded(&self) -> &rusqlite::Connection {
        match self {
            Self::Embedded(connection) => connection,
            Self::Server(_) => panic!("a server's connection"),
        }
    }
}

/// A value that goes into a statement or comes out of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Value<'a> {
    Null,
    Number(i64),
    Truth(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Only a server takes these.
    Numbers(&'a [i64]),
}

/// A value that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Owned {
    Null,
    Number(i64),
    Truth(bool),
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    pub fn of(value: Value<'_>) -> Self {
        match value {
            Value::Null | Value::Numbers(_) => Self::Null,
            Value::Number(number) => Self::Number(number),
            Value::Truth(truth) => Self::Truth(truth),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
        }
    }

    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Number(number) => Value::Number(*number),
            Self::Truth(truth) => Value::Truth(*truth),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

/// What a column holds is not what it must hold.
#[derive(Debug)]
pub(in crate::store) struct WrongType;

impl<'a> Value<'a> {
    pub fn as_str(self) -> Result<&'a str, WrongType> {
        self.as_str_or_null()?.ok_or(WrongType)
    }

    pub fn as_str_or_null(self) -> Result<Option<&'a str>, WrongType> {
        match self {
            Value::Text(text) => Ok(Some(text)),
            Value::Null => Ok(None),
            _ => Err(WrongType),
        }
    }

    pub fn as_blob(self) -> Result<&'a [u8], WrongType> {
        self.as_blob_or_null()?.ok_or(WrongType)
    }

    pub fn as_blob_or_null(self) -> Result<Option<&'a [u8]>, WrongType> {
        match self {
            Value::Bytes(bytes) => Ok(Some(bytes)),
            Value::Null => Ok(None),
            _ => Err(WrongType),
        }
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ValueRef;
        let value = match *self {
            Value::Null | Value::Numbers(_) => ValueRef::Null,
            Value::Number(number) => ValueRef::Integer(number),
            Value::Truth(truth) => ValueRef::Integer(truth.into()),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        };
        Ok(rusqlite::types::ToSqlOutput::Borrowed(value))
    }
}

/// Something that can be a value of a statement.
pub(in crate::store) trait Parameter {
    fn value(&self) -> Value<'_>;
}

macro_rules! parameters {
    ($($kind:ty, $from:pat => $value:expr;)*) => {
        $(impl Parameter for $kind {
            fn value(&self) -> Value<'_> {
                let $from = self;
                $value
            }
        })*
    };
}

parameters! {
    i64, number => Value::Number(*number);
    u32, number => Value::Number((*number).into());
    bool, truth => Value::Truth(*truth);
    str, text => Value::Text(text);
    String, text => Value::Text(text);
    [u8], bytes => Value::Bytes(bytes);
}

impl Parameter for Value<'_> {
    fn value(&self) -> Value<'_> {
        *self
    }
}

impl<T: Parameter + ?Sized> Parameter for &T {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<T: Parameter> Parameter for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Parameter::value)
    }
}

/// The values of a statement, of whatever kinds.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$(&$value as &dyn $crate::store::sqlite::database::Parameter),*]
    };
}
pub(in crate::store) use params;

/// No values.
pub(in crate::store) const NONE: [Value<'static>; 0] = [];

pub(in crate::store) enum Statement<'c> {
    Embedded(rusqlite::CachedStatement<'c>),
    Server(&'c Session, &'c str),
}

impl Statement<'_> {
    /// Runs it; how many rows it changed.
    pub fn execute<P: Parameter, const N: usize>(&mut self, values: [P; N]) -> Result<usize, Trouble> {
        let values = values.each_ref().map(P::value);
        match self {
            Self::Embedded(statement) => Ok(statement.execute(rusqlite::params_from_iter(values.iter()))?),
            Self::Server(session, sql) => Ok(session.execute(sql, &values).map_err(Fault::from)?),
        }
    }

    pub fn query<P: Parameter, const N: usize>(&mut self, values: [P; N]) -> Result<Rows<'_>, Trouble> {
        self.query_values(&values.each_ref().map(P::value))
    }

    /// The same with as many values as there are.
    pub fn query_values(&mut self, values: &[Value<'_>]) -> Result<Rows<'_>, Trouble> {
        match self {
            Self::Embedded(statement) => {
                Ok(Rows::Embedded(statement.query(rusqlite::params_from_iter(values.iter()))?))
            }
            Self::Server(session, sql) => {
                Ok(Rows::Server(session.query(sql, values).map_err(Fault::from)?, 0))
            }
        }
    }

    /// Reads the first row. Without one the answer is `Fault::NoRow`.
    pub fn query_row<P: Parameter, const N: usize, T>(
        &mut self,
        values: [P; N],
        read: impl FnOnce(Row<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut rows = self.query(values)?;
        match rows.next()? {
            Some(row) => read(row),
            None => Err(Trouble::Medium(Fault::NoRow)),
        }
    }

    /// Whether there is a row.
    pub fn exists<P: Parameter, const N: usize>(&mut self, values: [P; N]) -> Result<bool, Trouble> {
        Ok(self.query(values)?.next()?.is_some())
    }
}

/// `None` where there is no row.
pub(in crate::store) trait OptionalExtension<T> {
    fn optional(self) -> Result<Option<T>, Trouble>;
}

impl<T> OptionalExtension<T> for Result<T, Trouble> {
    fn optional(self) -> Result<Option<T>, Trouble> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Trouble::Medium(Fault::NoRow)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

pub(in crate::store) enum Rows<'s> {
    Embedded(rusqlite::Rows<'s>),
    /// All of them, and how many were looked at.
    Server(Vec<tokio_postgres::Row>, usize),
}

impl Rows<'_> {
    pub fn next(&mut self) -> Result<Option<Row<'_>>, Trouble> {
        match self {
            Self::Embedded(rows) => Ok(rows.next()?.map(Row::Embedded)),
            Self::Server(rows, seen) => {
                *seen += 1;
                Ok(rows.get(*seen - 1).map(Row::Server))
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(in crate::store) enum Row<'r> {
    Embedded(&'r rusqlite::Row<'r>),
    Server(&'r tokio_postgres::Row),
}

impl<'r> Row<'r> {
    /// What a column holds, borrowed from the row.
    pub fn get_ref(self, column: usize) -> Result<Value<'r>, Trouble> {
        match self {
            Self::Embedded(row) => {
                use rusqlite::types::ValueRef;
                Ok(match row.get_ref(column)? {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(number) => Value::Number(number),
                    ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(|_| WrongType)?),
                    ValueRef::Blob(bytes) => Value::Bytes(bytes),
                    ValueRef::Real(_) => return Err(WrongType.into()),
                })
            }
            Self::Server(row) => {
                Ok(row.try_get(column).map_err(|error| Fault::from(ServerFault::from(error)))?)
            }
        }
    }

    pub fn get<T: Column>(self, column: usize) -> Result<T, Trouble> {
        Ok(T::of(self.get_ref(column)?).ok_or(WrongType)?)
    }
}

impl From<WrongType> for Trouble {
    fn from(_: WrongType) -> Self {
        Trouble::Refused(StoreError::Unavailable("the database is damaged: a value's type".into()))
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Medium(fault)
    }
}

/// What a column can be read as.
pub(in crate::store) trait Column: Sized {
    /// `None` if it holds something else.
    fn of(value: Value<'_>) -> Option<Self>;
}

impl Column for i64 {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }
}

impl Column for u32 {
    fn of(value: Value<'_>) -> Option<Self> {
        i64::of(value)?.try_into().ok()
    }
}

impl Column for bool {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Truth(truth) => Some(truth),
            value => i64::of(value).map(|number| number != 0),
        }
    }
}

impl Column for String {
    fn of(value: Value<'_>) -> Option<Self> {
        value.as_str().ok().map(str::to_owned)
    }
}

impl<T: Column> Column for Option<T> {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::of(value).map(Some),
        }
    }
}
