//! The database of the accounts: a file of SQLite, or Postgres. Statements are written once, in the SQL that both have, with `?` or `?1` for parameters.
//! Truth values are the numbers 0 and 1 in both.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, TransactionBehavior};

#[cfg(feature = "postgres")]
use super::server::{Server, Transaction};

/// What came of a statement.
pub(super) type Result<T> = std::result::Result<T, SqlError>;

/// A statement was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database cannot be reached, or says no.
    #[error("{0}")]
    Server(String),
    /// There is no row.
    #[error("there is no row")]
    NoRows,
    /// A column holds something of another kind.
    #[error("column {0} holds something else than it should")]
    Column(usize),
}

impl SqlError {
    /// Whether the same may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        match self {
            SqlError::Sqlite(error) => {
                matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull))
            }
            // The database may be away for a moment.
            SqlError::Server(_) => true,
            SqlError::NoRows | SqlError::Column(_) => false,
        }
    }
}

/// A value of a row, or for a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row that a statement has found.
#[derive(Debug)]
pub(super) struct Row(pub(super) Vec<Value>);

impl Row {
    /// The value of a column, from 0 on.
    pub(super) fn get<T: FromValue>(&self, column: usize) -> Result<T> {
        self.0.get(column).and_then(T::from_value).ok_or(SqlError::Column(column))
    }

    /// All values, for another row.
    pub(super) fn values(&self) -> Vec<Value> {
        self.0.clone()
    }
}

/// What a value can be read as.
pub(super) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Number(number) = value { Some(*number) } else { None }
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bytes(bytes) = value { Some(bytes.clone()) } else { None }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bytes(bytes) = value { bytes[..].try_into().ok() } else { None }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// What a value can be made of.
pub(super) trait ToValue {
    fn to_value(&self) -> Value;
}

impl ToValue for i64 {
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Value {
        Value::Number((*self).into())
    }
}

impl ToValue for str {
    fn to_value(&self) -> Value {
        Value::Text(self.to_owned())
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl ToValue for [u8] {
    fn to_value(&self) -> Value {
        Value::Bytes(self.to_vec())
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value {
        Value::Bytes(self.clone())
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value {
        Value::Bytes(self.to_vec())
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value {
        (**self).to_value()
    }
}

/// Parameters of a statement.
pub(super) trait Params {
    fn values(self) -> Vec<Value>;
}

impl Params for Vec<Value> {
    fn values(self) -> Vec<Value> {
        self
    }
}

impl<T: ToValue, const N: usize> Params for [T; N] {
    fn values(self) -> Vec<Value> {
        self.iter().map(T::to_value).collect()
    }
}

/// No parameters.
pub(super) const NONE: [i64; 0] = [];

/// Parameters of several kinds.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::directory::sql::ToValue::to_value(&$value)),*]
    };
}
pub(super) use params;

/// Tells no row from a failure.
pub(super) trait OptionalExtension<T> {
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Err(SqlError::NoRows) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// A transaction.
pub(super) enum Sql<'c> {
    Sqlite(&'c Connection),
    #[cfg(feature = "postgres")]
    Server(Transaction<'c>),
}

impl Sql<'_> {
    /// Changes rows, and returns how many.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        let values = params.values();
        match self {
            Sql::Sqlite(conn) => Ok(conn.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?),
            #[cfg(feature = "postgres")]
            Sql::Server(tx) => tx.execute(sql, &values),
        }
    }

    /// All rows.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        of: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let values = params.values();
        let rows = match self {
            Sql::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                let columns = statement.column_count();
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let value = |column| row.get_ref(column).map(Value::from);
                    found.push(Row((0..columns).map(value).collect::<rusqlite::Result<_>>()?));
                }
                found
            }
            #[cfg(feature = "postgres")]
            Sql::Server(tx) => tx.rows(sql, &values)?,
        };
        rows.iter().map(of).collect()
    }

    /// The first row; [`SqlError::NoRows`] if there is none.
    pub(super) fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        of: impl FnMut(&Row) -> Result<T>,
    ) -> Result<T> {
        self.rows(sql, params, of)?.into_iter().next().ok_or(SqlError::NoRows)
    }

    /// Whether there is a row.
    pub(super) fn exists(&self, sql: &str, params: impl Params) -> Result<bool> {
        Ok(!self.rows(sql, params, |_| Ok(()))?.is_empty())
    }
}

/// Where the accounts are.
pub(super) enum Database {
    Sqlite(Connection),
    #[cfg(feature = "postgres")]
    Server(Box<Server>),
}

impl Database {
    /// Does something in a transaction, which is committed if that succeeds and says so. Nobody else writes meanwhile.
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<(T, Ends)>) -> Result<T> {
        match self {
            Database::Sqlite(conn) => {
                let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let (done, ends) = work(&Sql::Sqlite(&tx))?;
                match ends {
                    Ends::Committed | Ends::CommittedQuietly => tx.commit()?,
                    Ends::RolledBack => tx.rollback()?,
                }
                Ok(done)
            }
            #[cfg(feature = "postgres")]
            Database::Server(server) => server.write(work),
        }
    }

    /// Reads something, all of it as it was at one moment.
    pub(super) fn read<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<T>) -> Result<T> {
        match self {
            Database::Sqlite(conn) => work(&Sql::Sqlite(&*conn.transaction()?)),
            #[cfg(feature = "postgres")]
            Database::Server(server) => server.read(work),
        }
    }

    pub(super) fn is_file(&self) -> bool {
        match self {
            Database::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Database::Server(_) => false,
        }
    }

    /// Takes what was removed out of SQLite's log too, and out of the pages that it stands for. Somebody who reads just then keeps that from being done now.
    pub(super) fn empty_log(&mut self) {
        match self {
            Database::Sqlite(conn) => {
                _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
            #[cfg(feature = "postgres")]
            Database::Server(_) => {}
        }
    }

    /// A number that changes whenever somebody else has written.
    pub(super) fn version(&mut self) -> Result<i64> {
        match self {
            Database::Sqlite(conn) => Ok(conn.pragma_query_value(None, "data_version", |row| row.get(0))?),
            #[cfg(feature = "postgres")]
            Database::Server(server) => server.version(),
        }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Committed,
    /// Nobody may do anything else because of it, so nobody has to read anew.
    CommittedQuietly,
    RolledBack,
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Number(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Integer(number) => Value::Number(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
            // No column has fractions.
            ValueRef::Null | ValueRef::Real(_) => Value::Null,
        }
    }
}
