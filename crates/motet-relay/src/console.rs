//! The console: pages for the operator of a relay and for holders of accounts, below `/console/`.
//!
//! HTML and one stylesheet, rendered by the relay; no script. A link signs a browser in. The operator makes links on the machine of the relay
//! (`motet-relay console link`), and a device that is signed in makes them for its own account (`POST /v1/console-links`).
//!
//! ```text
//! dispatch   finds the page, checks session, role and form; adds the headers of every answer
//!   │
//! sign_in  overview  devices  spaces  operator  activity   the pages
//!   │
//! visit  sessions  samples  layout   a request; the sessions; samples of the metrics; the frame of a page
//! ```
//!
//! **Architecture invariants:** an account is changed only by the functions that also serve its devices ([`own_account`](crate::own_account),
//! [`sharing`](crate::sharing)), and refusals have their words; nothing here reads documents or their names; secrets are stored as hashes.

mod activity;
mod audit;
mod devices;
mod dispatch;
mod layout;
mod links;
mod operator;
mod overview;
mod plot;
mod samples;
mod sessions;
mod sign_in;
mod spaces;
mod visit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, post};
use tokio::sync::{Semaphore, watch};

use crate::access;
use crate::auth::Principal;
use crate::directory::{Directory, DirectoryError};
use crate::limits;
use crate::own_account::{AccountAnswer, AccountError, AccountRequest};
use crate::own_routes;
use crate::sharing::{SharingAnswer, SharingError, SharingRequest};
use crate::state::Relay;
use crate::store::sqlite::Stored;
use samples::Samples;
use sessions::{Sessions, Signed};

/// Configuration of the console of a relay.
#[derive(Clone, Debug)]
pub struct Console {
    directory: watch::Receiver<Option<Arc<Directory>>>,
    session_lifetime: Duration,
    sampled_every: Duration,
}

/// State that all pages share.
struct State {
    relay: Arc<Relay>,
    directory: watch::Receiver<Option<Arc<Directory>>>,
    sessions: Sessions,
    samples: Samples,
    reads: Semaphore,
    began: Instant,
    speaks_tls: bool,
}

/// Why a page is not shown, or an action not carried out.
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Console {
    /// A console for the accounts of a data folder. There may be none yet when the relay starts: [`Found::directory`](crate::reload::Found::directory).
    pub fn new(directory: watch::Receiver<Option<Arc<Directory>>>) -> Self {
        let (session_lifetime, sampled_every) =
            (limits::CONSOLE_SESSION_LIFETIME, limits::CONSOLE_SAMPLED_EVERY);
        Self { directory, session_lifetime, sampled_every }
    }

    /// Sets how long a session lasts, instead of [`CONSOLE_SESSION_LIFETIME`](limits::CONSOLE_SESSION_LIFETIME).
    #[must_use]
    pub fn session_lifetime(self, session_lifetime: Duration) -> Self {
        Self { session_lifetime, ..self }
    }

    /// Sets how often the metrics are sampled, instead of every [`CONSOLE_SAMPLED_EVERY`](limits::CONSOLE_SAMPLED_EVERY).
    #[must_use]
    pub fn sampled_every(self, sampled_every: Duration) -> Self {
        Self { sampled_every, ..self }
    }
}

/// Takes samples of the metrics for a relay that has a console.
pub(crate) struct Sampling(Option<(Arc<State>, Duration)>);

/// Adds the pages to the routes of a relay, if there is a configuration.
pub(crate) fn mount(
    app: Router<Arc<Relay>>,
    console: Option<Console>,
    relay: &Arc<Relay>,
    speaks_tls: bool,
) -> (Router<Arc<Relay>>, Sampling) {
    let Some(Console { directory, session_lifetime, sampled_every }) = console else {
        return (app, Sampling(None));
    };
    let state = Arc::new(State {
        relay: relay.clone(),
        directory,
        sessions: Sessions::new(session_lifetime),
        samples: Samples::default(),
        reads: Semaphore::new(limits::CONSOLE_READS),
        began: Instant::now(),
        speaks_tls,
    });
    let made_by_devices = state.clone();
    let pages = Router::new()
        .route("/console", any(dispatch::serve))
        .route("/console/", any(dispatch::serve))
        .route("/console/{*path}", any(dispatch::serve))
        .with_state(state.clone());
    let app =
        app.merge(pages).route("/v1/console-links", post(move |head| links::make(made_by_devices, head)));
    (app, Sampling(Some((state, sampled_every))))
}

impl Sampling {
    /// Takes a sample at each interval. Does not end.
    pub(crate) async fn run(&self) {
        match &self.0 {
            Some((state, every)) => state.samples.keep_taking(&state.relay.metrics, *every).await,
            None => std::future::pending().await,
        }
    }
}

impl State {
    /// Calls the directory on a thread that may wait for the disk.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Directory) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let directory = self.directory.borrow().clone();
        let directory = directory.ok_or_else(|| Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "this relay has no accounts".into(),
        })?;
        let asked = async {
            let _turn = self.reads.acquire().await;
            tokio::task::spawn_blocking(move || ask(&directory)).await
        };
        // Accounts in a database that stands still keep nobody waiting for longer than whoever signs in.
        match tokio::time::timeout(limits::AUTHENTICATE_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Refusal::unavailable()),
        }
    }

    /// The same for calls that fail only if the file of accounts does.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Directory) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ask(read).await?.map_err(|error| {
            tracing::error!(%error, "the console cannot read the accounts");
            Refusal::unavailable()
        })
    }

    /// Carries out a request of an account about itself.
    async fn own(&self, account: &str, request: AccountRequest) -> Result<AccountAnswer, Refusal> {
        let account = account.to_owned();
        Ok(self.ask(move |directory| directory.own_account(&account, &request)).await??)
    }

    /// Carries out a request of an account about spaces that it shares.
    async fn share(&self, who: &Principal, request: SharingRequest) -> Result<SharingAnswer, Refusal> {
        Ok(access::share(self.relay.access.clone(), who, &request).await?)
    }

    /// What an account, or each of all, has in its logs, as it is written down once a minute; `None` if that cannot be read.
    async fn stored(&self, account: Option<&str>) -> Result<Option<HashMap<String, Stored>>, Refusal> {
        let account = account.map(str::to_owned);
        let read = self.ask(move |directory| directory.stored(account.as_deref())).await?;
        Ok(read.inspect_err(|error| tracing::error!(%error, "what accounts have stored cannot be read")).ok())
    }
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "it cannot be done now; try again later")
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such page")
    }
}

impl From<AccountError> for Refusal {
    fn from(error: AccountError) -> Self {
        Self::new(own_routes::status(&error), error.to_string())
    }
}

impl From<SharingError> for Refusal {
    fn from(error: SharingError) -> Self {
        Self::new(crate::spaces::status(&error), error.to_string())
    }
}
