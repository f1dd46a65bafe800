//! A connection for code that is not async. Each statement has a time limit of its own: whoever waits for a database that stands still goes on.

use std::time::Duration;

use deadpool_postgres::tokio_postgres::types::ToSql;
use deadpool_postgres::tokio_postgres::{Client, Error, NoTls, Row};
use tokio::runtime::{Builder, Runtime};

use super::database::{Address, SETTINGS, told};

/// Why a statement was not carried out, for people.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// A connection. Must not be used on a thread of an async runtime.
pub(crate) struct Blocking {
    client: Option<Client>,
    runtime: Option<Runtime>,
    limit: Duration,
}

impl Blocking {
    /// Connects, with `limit` for that and for each statement.
    pub(crate) fn connect(address: &Address, limit: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let tls = address.tls().map_err(|e| e.to_string())?;
        let connected = runtime.block_on(async {
            let connect = async {
                match tls {
                    Some(tls) => {
                        let (client, connection) = address.config.connect(tls).await?;
                        tokio::spawn(connection);
                        Ok(client)
                    }
                    None => {
                        let (client, connection) = address.config.connect(NoTls).await?;
                        tokio::spawn(connection);
                        Ok(client)
                    }
                }
            };
            tokio::time::timeout(limit, connect).await
        });
        let client = connected.map_err(|_| late(limit))?.map_err(|e: Error| told(&e))?;
        Ok(Self { client: Some(client), runtime: Some(runtime), limit })
    }

    /// Keeps to what relays keep to.
    pub(crate) fn settle(&self) -> Result<()> {
        self.run(SETTINGS)
    }

    /// Statements without parameters.
    pub(crate) fn run(&self, sql: &str) -> Result<()> {
        self.wait(async |client| client.batch_execute(sql).await)
    }

    /// Changes rows, and returns how many.
    pub(crate) fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.wait(async |client| client.execute(sql, params).await)
    }

    /// All rows.
    pub(crate) fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.wait(async |client| client.query(sql, params).await)
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_closed)
    }

    fn wait<T>(&self, work: impl AsyncFnOnce(&Client) -> std::result::Result<T, Error>) -> Result<T> {
        let (Some(runtime), Some(client)) = (&self.runtime, &self.client) else {
            return Err("it is closed".into());
        };
        let done = runtime.block_on(async { tokio::time::timeout(self.limit, work(client)).await });
        done.map_err(|_| late(self.limit))?.map_err(|e| told(&e))
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.client = None;
        // It may be dropped where nothing may wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn late(limit: Duration) -> String {
    format!("the database did not answer within {} s", limit.as_secs())
}
