//! The connections to the database, and what becomes of a call when one of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::tokio_postgres::config::{Host, SslMode};
use deadpool_postgres::tokio_postgres::error::SqlState;
use deadpool_postgres::tokio_postgres::types::ToSql;
use deadpool_postgres::tokio_postgres::{self, NoTls, Row};
use deadpool_postgres::{
    Client, GenericClient, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
};
use deadpool_postgres::{RecyclingMethod, Runtime};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, timeout_at};

use crate::limits;
use crate::store::StoreError;

/// What each connection is told first. A node that is stopped in the middle of a transaction holds nobody up for longer than a second.
pub(crate) const SETTINGS: &str =
    "SET idle_in_transaction_session_timeout = '1s'; SET lock_timeout = '4s'; SET statement_timeout = '8s';
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Why a statement was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another transaction was in the way. Nothing of this one remains.
    Conflict,
    /// The connection was lost, or the database is going down: what was under way may have been carried out, or still be.
    Lost(String),
    /// The database says no.
    Refused(StoreError),
}

impl Failure {
    /// What was read cannot be what was written.
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Failure::Refused(StoreError::Unusable(what.into()))
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let is_lost = error.is_closed() || causes.into_iter().any(|cause| cause.is::<std::io::Error>());
            return match is_lost {
                true => Failure::Lost(told(&error)),
                false => Failure::Refused(StoreError::Failed(told(&error))),
            };
        };
        let reason = || format!("{} ({})", said.message(), said.code().code());
        match *said.code() {
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::UNIQUE_VIOLATION
            | SqlState::DUPLICATE_TABLE => Failure::Conflict,
            SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED | SqlState::TOO_MANY_CONNECTIONS => {
                tracing::warn!(reason = reason(), "the database is too busy");
                Failure::Refused(StoreError::Busy)
            }
            SqlState::DISK_FULL => Failure::Refused(StoreError::Full),
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => {
                Failure::Refused(StoreError::Unusable(reason()))
            }
            ref code if ["08", "57"].contains(&&code.code()[..2]) || code.code() == "25P03" => {
                Failure::Lost(reason())
            }
            _ => Failure::Refused(StoreError::Failed(reason())),
        }
    }
}

/// Of an error of the client, also what caused it: its own text names only the part of it that failed.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Where a database is, and how it is spoken with.
pub(crate) struct Address {
    pub(crate) config: tokio_postgres::Config,
    /// For people, without user and password.
    pub(crate) place: String,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            let form = "the address of a database is postgres://USER:PASSWORD@HOST/DATABASE";
            return Err(StoreError::Failed(form.into()));
        }
        // What the parser says names the part of the address that it does not understand, and no password.
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|e: tokio_postgres::Error| StoreError::Failed(told(&e)))?;
        // What stands before the last `@` is taken for the end of the password by people, and for a part of the host by the parser.
        let is_host = |host: &Host| match host {
            Host::Tcp(name) => !name.contains(['@', '/', '?', '#']),
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        if !config.get_hosts().iter().all(is_host) {
            let reason = "the host in the address of the database is none: in a user or password, write `@` as %40, `/` as %2F, `:` as %3A and `%` as %25";
            return Err(StoreError::Failed(reason.into()));
        }
        if config.get_application_name().is_none() {
            config.application_name("motet-relay");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(limits::POSTGRES_CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(limits::POSTGRES_TIMEOUT);
        }
        config.keepalives_idle(limits::POSTGRES_KEEPALIVE);
        let place = place(&config);
        Ok(Self { config, place })
    }

    /// How connections are encrypted, unless they are not to be.
    pub(crate) fn tls(&self) -> Result<Option<tokio_postgres_rustls::MakeRustlsConnect>, StoreError> {
        tls_of(&self.config)
    }
}

fn tls_of(
    config: &tokio_postgres::Config,
) -> Result<Option<tokio_postgres_rustls::MakeRustlsConnect>, StoreError> {
    (config.get_ssl_mode() != SslMode::Disable).then(tls).transpose()
}

/// A pool of connections.
#[derive(Clone)]
pub(super) struct Database {
    pool: Pool,
    place: Arc<str>,
    /// It had no room for what was written last.
    full: Arc<AtomicBool>,
}

impl Database {
    /// Of an address. Nothing is asked of the network yet.
    pub(super) fn new(url: &str, connections: usize) -> Result<Self, StoreError> {
        let Address { config, place } = Address::parse(url)?;
        let place = place.as_str().into();
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match tls_of(&config)? {
            None => Manager::from_config(config, NoTls, recycling),
            Some(tls) => Manager::from_config(config, tls, recycling),
        };
        let set = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
            async move { client.batch_execute(SETTINGS).await.map_err(|e| HookError::message(told(&e))) }
                .boxed()
        });
        let pool = Pool::builder(manager)
            .max_size(connections.max(2))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(limits::POSTGRES_TIMEOUT))
            .create_timeout(Some(limits::POSTGRES_TIMEOUT))
            .post_create(set)
            .build()
            .map_err(|e| StoreError::Failed(told(&e)))?;
        Ok(Self { pool, place, full: Arc::default() })
    }

    /// Whether it had no room when something was written last.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Notes how an append has ended, and logs what the database has refused.
    pub(super) fn note<T>(&self, done: &Result<T, StoreError>) {
        let is_full = matches!(done, Err(StoreError::Full));
        let was_full = self.full.swap(is_full, Ordering::Relaxed);
        match done {
            Err(StoreError::Full) if was_full => {}
            Err(StoreError::Busy) | Ok(_) => {}
            Err(error) => tracing::error!(code = error.code(), %error, "the database does not take entries"),
        }
    }

    /// Which database it is, without user and password.
    pub(super) fn place(&self) -> String {
        self.place.to_string()
    }

    /// Whether the database can be reached and lets this relay in; why not, if it does not. Meant for the start, where somebody reads it.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        match self.pool.get().await {
            Ok(_) => Ok(()),
            Err(PoolError::Timeout(_)) => {
                let after = limits::POSTGRES_TIMEOUT.as_secs();
                Err(StoreError::Failed(format!("the database did not answer within {after} s")))
            }
            Err(error) => Err(StoreError::Failed(told(&error))),
        }
    }

    /// A connection, within a time.
    pub(super) async fn lease(&self, deadline: Instant) -> Result<Client, StoreError> {
        match timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(StoreError::Busy),
            Ok(Err(error)) => {
                tracing::warn!(reason = told(&error), "the database cannot be reached");
                Err(StoreError::Busy)
            }
        }
    }

    /// Does what may be done again: a connection that is lost, or another transaction in the way, is no error as long as there is time.
    pub(super) async fn run<T>(
        &self,
        work: impl for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let mut patience = Patience::new();
        loop {
            let mut client = self.lease(patience.deadline).await?;
            let failure = match timeout_at(patience.deadline, work(&mut client)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Lost("it did not answer in time".into()),
            };
            patience.after(failure, client).await?;
        }
    }
}

/// How long, and how often, something is tried.
pub(super) struct Patience {
    pub(super) deadline: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + limits::POSTGRES_TIMEOUT, pause: Duration::ZERO }
    }

    /// Waits before the next attempt, or says why there is none. A connection on which something may still be under way is closed.
    pub(super) async fn after(&mut self, failure: Failure, client: Client) -> Result<(), StoreError> {
        match failure {
            Failure::Refused(error) => return Err(error),
            Failure::Conflict => drop(client),
            Failure::Lost(reason) => {
                tracing::warn!(reason, "a connection to the database was lost");
                drop(Object::take(client));
            }
        }
        if Instant::now() + self.pause >= self.deadline {
            return Err(StoreError::Busy);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).clamp(limits::POSTGRES_PAUSE, limits::POSTGRES_PAUSE_LONGEST);
        Ok(())
    }
}

/// Runs a statement, prepared once for each connection, and returns its rows.
pub(super) async fn select(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Failure> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, params).await?)
}

/// The first row, if there is one.
pub(super) async fn first(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Failure> {
    Ok(select(client, sql, params).await?.into_iter().next())
}

fn place(config: &tokio_postgres::Config) -> String {
    let hosts = config
        .get_hosts()
        .iter()
        .zip(config.get_ports().iter().copied().map(Some).chain(std::iter::repeat(None)));
    let host = |(host, port): (&Host, Option<u16>)| match (host, port) {
        (Host::Tcp(host), Some(port)) => format!("{host}:{port}"),
        (Host::Tcp(host), None) => host.clone(),
        #[cfg(unix)]
        (Host::Unix(path), _) => path.display().to_string(),
    };
    let hosts: Vec<_> = hosts.map(host).collect();
    let name = config.get_dbname().unwrap_or_default();
    format!("postgres://{}/{name}", hosts.join(","))
}

/// Encrypts with the authorities that the system trusts.
fn tls() -> Result<tokio_postgres_rustls::MakeRustlsConnect, StoreError> {
    use rustls_platform_verifier::BuilderVerifierExt;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    let failed =
        |error: tokio_rustls::rustls::Error| StoreError::Failed(format!("TLS to the database: {error}"));
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_platform_verifier()
        .map_err(failed)?
        .with_no_client_auth();
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(config))
}
