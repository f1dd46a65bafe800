//! The accounts in a Postgres database. Whoever writes holds the one row of table `accounts` first: so writers wait for each other, and whoever looks at
//! the number there sees that something has changed.

use deadpool_postgres::tokio_postgres::types::private::BytesMut;
use deadpool_postgres::tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use deadpool_postgres::tokio_postgres::{self, Row as Found};

use super::TABLES;
use super::sql::{Ends, Result, Row, Sql, SqlError, Value};
use crate::limits;
use crate::store::postgres::{Address, Blocking, told};

/// A connection, which is made anew when something has failed on it.
pub(super) struct Server {
    address: Address,
    client: Option<Blocking>,
}

/// A transaction on it.
pub(super) struct Transaction<'c>(&'c Blocking);

impl Server {
    /// Of an address. Nothing is asked of the network yet.
    pub(super) fn new(url: &str) -> Result<Self> {
        let address = Address::parse(url).map_err(|e| SqlError::Server(e.to_string()))?;
        Ok(Self { address, client: None })
    }

    /// Which database it is, without user and password.
    pub(super) fn place(&self) -> &str {
        &self.address.place
    }

    /// Makes the tables in the format of this version if there are none. Returns the format that they have.
    pub(super) fn prepare(&mut self, format: i64) -> Result<i64> {
        self.with(|client| {
            let is_there = || -> Result<bool> {
                Ok(client.query("SELECT to_regclass('accounts') IS NOT NULL", &[])?[0].get(0))
            };
            if !is_there()?
                && let Err(error) = make(client, format)
            {
                // Of two relays that start at the same time one finds that they are there.
                client.run("ROLLBACK")?;
                if !is_there()? {
                    return Err(error);
                }
            }
            if current(client)? < format {
                client.run("BEGIN; SELECT 1 FROM accounts FOR UPDATE")?;
                // Another relay may have done it meanwhile.
                if current(client)? == 3 {
                    client.run(include_str!("server_4.sql"))?;
                    client.execute("UPDATE accounts SET format = $1", &[&format])?;
                }
                client.run("COMMIT")?;
            }
            current(client)
        })
    }

    /// See [`Database::write`](super::sql::Database::write).
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<(T, Ends)>) -> Result<T> {
        self.with(|client| {
            client.run("BEGIN; SELECT 1 FROM accounts FOR UPDATE")?;
            let (done, ends) = work(&Sql::Server(Transaction(client)))?;
            match ends {
                Ends::RolledBack => client.run("ROLLBACK")?,
                Ends::Committed => client.run("UPDATE accounts SET version = version + 1; COMMIT")?,
                Ends::CommittedQuietly => client.run("COMMIT")?,
            }
            Ok(done)
        })
    }

    /// See [`Database::read`](super::sql::Database::read).
    pub(super) fn read<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<T>) -> Result<T> {
        self.with(|client| {
            client.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            let read = work(&Sql::Server(Transaction(client)))?;
            client.run("COMMIT")?;
            Ok(read)
        })
    }

    /// See [`Database::version`](super::sql::Database::version).
    pub(super) fn version(&mut self) -> Result<i64> {
        self.with(|client| {
            let rows = client.query("SELECT version FROM accounts", &[])?;
            Ok(rows.first().ok_or(SqlError::NoRows)?.try_get(0)?)
        })
    }

    /// Uses the connection. One on which something has failed is closed: what state it is in is not known.
    fn with<T>(&mut self, work: impl FnOnce(&Blocking) -> Result<T>) -> Result<T> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let client = Blocking::connect(&self.address, limits::POSTGRES_TIMEOUT)?;
                client.settle()?;
                client
            }
        };
        let done = work(&client)?;
        self.client = Some(client);
        Ok(done)
    }
}

impl Transaction<'_> {
    pub(super) fn execute(&self, sql: &str, values: &[Value]) -> Result<usize> {
        let changed = self.0.execute(&numbered(sql), &given(values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        self.0.query(&numbered(sql), &given(values))?.iter().map(row).collect()
    }
}

/// The format of the tables.
fn current(client: &Blocking) -> Result<i64> {
    let found = client.query("SELECT format FROM accounts", &[])?;
    Ok(found.first().map_or(Ok(0), |row| row.try_get(0))?)
}

/// Makes the tables: all of them, or none.
fn make(client: &Blocking, format: i64) -> Result<()> {
    let names: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
    let foreign = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL";
    if let Some(found) = client.query(foreign, &[&names])?.first() {
        let name: String = found.try_get(0)?;
        let reason = format!(
            "the database has a table {name:?} of somebody else: give the relays a database of their own"
        );
        return Err(SqlError::Server(reason));
    }
    client.run(&format!("BEGIN; {}; {}", include_str!("server.sql"), include_str!("server_4.sql")))?;
    client.execute("INSERT INTO accounts (one, format, version) VALUES (true, $1, 0)", &[&format])?;
    Ok(client.run("COMMIT")?)
}

fn given(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn row(row: &Found) -> Result<Row> {
    let value = |column: usize| -> Result<Value> {
        let kind = row.columns()[column].type_().clone();
        Ok(match kind {
            Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map_or(Value::Null, Value::Number),
            Type::INT4 => {
                row.try_get::<_, Option<i32>>(column)?.map_or(Value::Null, |n| Value::Number(n.into()))
            }
            Type::BOOL => {
                row.try_get::<_, Option<bool>>(column)?.map_or(Value::Null, |b| Value::Number(b.into()))
            }
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map_or(Value::Null, Value::Bytes),
            _ => row.try_get::<_, Option<String>>(column)?.map_or(Value::Null, Value::Text),
        })
    };
    Ok(Row((0..row.len()).map(value).collect::<Result<_>>()?))
}

/// Parameters as Postgres has them: `$1` for `?1`, and for a `?` the number behind the largest so far.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut last = 0;
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = part[..digits].parse().unwrap_or(last + 1);
        last = last.max(number);
        text.push_str(&format!("${number}{}", &part[digits..]));
    }
    text
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        SqlError::Server(told(&error))
    }
}

impl From<String> for SqlError {
    fn from(reason: String) -> Self {
        SqlError::Server(reason)
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Number(number) if *kind == Type::BOOL => (*number != 0).to_sql(kind, out),
            Value::Number(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Value::Number(number) => number.to_sql(kind, out),
            // Postgres keeps none in a text. What has one is not the same as what has not.
            Value::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // What a statement has for a parameter is known where it is written.
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_as_sqlite_does() {
        assert_eq!(numbered("a = ? AND b = ?"), "a = $1 AND b = $2");
        assert_eq!(numbered("(?, ?, ?7, ?7, ?)"), "($1, $2, $7, $7, $8)");
        assert_eq!(numbered("ʻaʻohe"), "ʻaʻohe");
    }
}
