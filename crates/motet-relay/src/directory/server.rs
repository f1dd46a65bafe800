//! The accounts in a Postgres database. Whoever writes holds the one row of table `accounts` first: so writers wait for each other, and whoever looks at
//! the number there sees that something has changed.

use std::cell::RefCell;

use deadpool_postgres::tokio_postgres::types::private::BytesMut;
use deadpool_postgres::tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config};

use super::sql::{Ends, Result, Row, Sql, SqlError, Value};
use crate::store::postgres::{Address, told};

/// A connection, which is made anew when it was lost.
pub(super) struct Server {
    address: Address,
    client: Option<Client>,
}

/// A transaction on it.
pub(super) struct Transaction<'c>(RefCell<postgres::Transaction<'c>>);

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
            let exists = "SELECT to_regclass('accounts') IS NOT NULL";
            let is_there =
                |client: &mut Client| Ok::<_, SqlError>(client.query_one(exists, &[])?.get::<_, bool>(0));
            if !is_there(client)?
                && let Err(error) = make(client, format)
                && !is_there(client)?
            {
                return Err(error);
            }
            Ok(client.query_one("SELECT format FROM accounts", &[])?.get(0))
        })
    }

    /// See [`Database::write`](super::sql::Database::write).
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<(T, Ends)>) -> Result<T> {
        self.with(|client| {
            let mut tx = client.transaction()?;
            tx.execute("SELECT 1 FROM accounts FOR UPDATE", &[])?;
            let sql = Sql::Server(Transaction(RefCell::new(tx)));
            let (done, ends) = work(&sql)?;
            let Sql::Server(Transaction(tx)) = sql else { return Ok(done) };
            let mut tx = tx.into_inner();
            match ends {
                Ends::RolledBack => return Ok(done),
                Ends::Committed => _ = tx.execute("UPDATE accounts SET version = version + 1", &[])?,
                Ends::CommittedQuietly => {}
            }
            tx.commit()?;
            Ok(done)
        })
    }

    /// See [`Database::read`](super::sql::Database::read).
    pub(super) fn read<T>(&mut self, work: impl FnOnce(&Sql<'_>) -> Result<T>) -> Result<T> {
        self.with(|client| {
            let tx = client
                .build_transaction()
                .read_only(true)
                .isolation_level(postgres::IsolationLevel::RepeatableRead);
            work(&Sql::Server(Transaction(RefCell::new(tx.start()?))))
        })
    }

    /// See [`Database::version`](super::sql::Database::version).
    pub(super) fn version(&mut self) -> Result<i64> {
        self.with(|client| Ok(client.query_one("SELECT version FROM accounts", &[])?.get(0)))
    }

    /// Uses the connection. One on which something has failed is not used again: what state it is in is not known.
    fn with<T>(&mut self, work: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.open()?,
        };
        let done = work(&mut client)?;
        self.client = Some(client);
        Ok(done)
    }

    fn open(&self) -> Result<Client> {
        let config = Config::from(self.address.config.clone());
        let connected = match self.address.tls().map_err(|e| SqlError::Server(e.to_string()))? {
            Some(tls) => config.connect(tls),
            None => config.connect(postgres::NoTls),
        };
        let mut client = connected?;
        client.batch_execute(crate::store::postgres::SETTINGS)?;
        Ok(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing it waits for the network, which no thread of an async runtime may.
        if let Some(client) = self.client.take() {
            _ = std::thread::Builder::new().name("motet-accounts".into()).spawn(move || drop(client));
        }
    }
}

impl Transaction<'_> {
    pub(super) fn execute(&self, sql: &str, values: &[Value]) -> Result<usize> {
        let changed = self.0.borrow_mut().execute(&numbered(sql), &given(values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn rows(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        let rows = self.0.borrow_mut().query(&numbered(sql), &given(values))?;
        rows.iter().map(row).collect()
    }
}

/// Makes the tables: all of them, or none. Of two relays that start at the same time one finds that they are there.
fn make(client: &mut Client, format: i64) -> Result<()> {
    let mut tx = client.transaction()?;
    tx.batch_execute(include_str!("server.sql"))?;
    tx.execute("INSERT INTO accounts (one, format, version) VALUES (true, $1, 0)", &[&format])?;
    Ok(tx.commit()?)
}

fn given(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn row(row: &postgres::Row) -> Result<Row> {
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

impl From<postgres::Error> for SqlError {
    fn from(error: postgres::Error) -> Self {
        SqlError::Server(told(&error))
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
            // What Postgres cannot keep in a text is nothing that anybody sees.
            Value::Text(text) if text.contains('\0') => text.replace('\0', "").to_sql(kind, out),
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
