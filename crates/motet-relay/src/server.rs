//! HTTP: health, sign-in, and the two ways to speak.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use motet_proto::limits as proto;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::{Auth, AuthError};
use crate::health::Health;
use crate::hub::Hub;
use crate::limits;
use crate::session;
use crate::store::sqlite::SqliteStore;
use crate::store::{LogStore, StoreError};

/// How a relay runs.
#[derive(Clone)]
pub struct Config {
    /// Folder of the relay's data; created if needed.
    pub data: PathBuf,
    /// Who may speak. [`Auth::Local`] is accepted only on a loopback address.
    pub auth: Auth,
    /// How long an entry stays in its log after a snapshot has superseded it, in whole seconds; see
    /// [`RETENTION`](limits::RETENTION).
    pub retention: Duration,
    /// How long a device may be silent before it is nowhere for the others, see [`PRESENT_SILENCE`](limits::PRESENT_SILENCE).
    pub present_silence: Duration,
}

impl Config {
    /// Data in `data`, one local account, loopback only, the default retention.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let (retention, present_silence) = (limits::RETENTION, limits::PRESENT_SILENCE);
        Self { data: data.into(), auth: Auth::Local, retention, present_silence }
    }
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Without tokens everybody who can connect reads everything, so only loopback addresses are served.
    #[error(
        "{0} can be reached from other machines; configure tokens (--tokens FILE), or listen on 127.0.0.1"
    )]
    OpenToTheWorld(SocketAddr),
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// What all connections share.
pub(crate) struct Relay {
    pub(crate) store: SqliteStore,
    pub(crate) hub: Hub,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) present_silence: Duration,
    health: Health,
    auth: Auth,
    sessions: Arc<Semaphore>,
    next_session: AtomicU64,
}

/// Serves until `shutdown` resolves, then tells the sessions to end and lets requests finish for at most
/// [`SHUTDOWN_GRACE`](limits::SHUTDOWN_GRACE). Everything that was acknowledged is durable at any time.
///
/// # Errors
/// [`RunError`] if the relay cannot start, or its listener fails.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let address = listener.local_addr()?;
    if matches!(config.auth, Auth::Local) && !address.ip().is_loopback() {
        return Err(RunError::OpenToTheWorld(address));
    }
    let store = SqliteStore::open(&config.data)?;
    let (stop, stopping) = watch::channel(false);
    let relay = Arc::new(Relay {
        store,
        hub: Hub::default(),
        stopping,
        present_silence: config.present_silence,
        health: Health::default(),
        auth: config.auth,
        sessions: Arc::new(Semaphore::new(limits::SESSIONS)),
        next_session: AtomicU64::new(1),
    });
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/v1/sync", get(web_socket).post(post))
        .with_state(relay.clone());
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    tracing::info!(%address, "the relay is up");
    let (drained, mut wait) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        shutdown.await;
        tracing::info!("stopping");
        _ = stop.send(true);
        drop(drained);
    });
    tokio::select! {
        outcome = serving => outcome?,
        () = sweep(&relay.store, config.retention) => {}
        () = async {
            _ = (&mut wait).await;
            tokio::time::sleep(limits::SHUTDOWN_GRACE).await;
        } => tracing::warn!("some sessions did not finish in time"),
    }
    tracing::info!("the relay is down");
    Ok(())
}

/// Takes out of the logs, again and again, what was superseded longer than `retention` ago. Does not end.
async fn sweep(store: &SqliteStore, retention: Duration) {
    let mut due = tokio::time::interval(limits::SWEEP_EVERY.min(retention.max(Duration::from_secs(1))));
    loop {
        due.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(retention).as_secs() as i64;
        // If it fails, the store has logged it, and the next time may go better.
        while let Ok(entries @ 1..) = store.sweep(before).await {
            tracing::info!(entries, "superseded entries have left");
        }
    }
}

async fn health(State(relay): State<Arc<Relay>>) -> Response {
    match relay.health.check(&relay.store).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn web_socket(
    State(relay): State<Arc<Relay>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let (account, permit) = match relay.admit(&headers) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let id = relay.next_session();
    upgrade
        .max_message_size(proto::FRAME_BYTES)
        .max_frame_size(proto::FRAME_BYTES)
        .max_write_buffer_size(2 * proto::FRAME_BYTES)
        .on_upgrade(move |socket| async move {
            session::serve_socket(relay, account, id, socket).await;
            drop(permit);
        })
}

async fn post(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    // Before the body is read: who may not speak costs no memory.
    let (account, _permit) = match relay.admit(request.headers()) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let body = match axum::body::to_bytes(request.into_body(), limits::POST_BYTES).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response(),
    };
    let id = relay.next_session();
    let answer = session::serve_post(relay, account, id, &body).await;
    ([(CONTENT_TYPE, "application/vnd.motet")], answer).into_response()
}

impl Relay {
    /// The account of a request and its place among the sessions.
    #[allow(clippy::result_large_err)]
    fn admit(&self, headers: &HeaderMap) -> Result<(String, OwnedSemaphorePermit), Response> {
        let account = self.auth.account(headers).map_err(|error| match error {
            AuthError::WebPage => (StatusCode::FORBIDDEN, error.to_string()).into_response(),
            AuthError::Missing | AuthError::Invalid => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], error.to_string()).into_response()
            }
        })?;
        let permit = self.sessions.clone().try_acquire_owned().map_err(|_| {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], "the relay is full").into_response()
        })?;
        Ok((account, permit))
    }

    fn next_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}
