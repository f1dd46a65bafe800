//! HTTP: whether the relay lives and could write, sign-in, and the two ways to speak.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{FutureExt, StreamExt};
use motet_proto::{RELAY_HEADER, limits as proto};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

use crate::accept;
use crate::access::{Authorizer, OwnSpaces};
use crate::auth::{Auth, Authenticator};
use crate::config::Terms;
use crate::directory::Directory;
use crate::doors::{self, Doors, Place};
use crate::erasure;
use crate::health::Health;
use crate::hub::Hub;
use crate::limits;
use crate::metrics::{Metrics, StoreNumbers};
use crate::notifier::{Alone, Notifier};
use crate::own_routes;
use crate::registration;
use crate::requests::{self, RequestId};
use crate::session;
use crate::spaces;
use crate::state::{Relay, TimeOfDay};
use crate::store::memory::MemoryStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{LogStore, StoreError, StoreState};
use crate::strangers::Strangers;

/// How a relay runs.
#[derive(Clone)]
pub struct Config {
    /// Where the logs are.
    pub storage: Storage,
    /// Who may speak. One that is [open](Authenticator::is_open), as [`Auth::Local`] is, is accepted only on a loopback address.
    pub auth: Arc<dyn Authenticator>,
    /// What an account may do with which space.
    pub access: Arc<dyn Authorizer>,
    /// How much of everything the relay takes on.
    pub terms: Terms,
    /// Tells other tokens and terms while the relay runs. Sessions whose token is not there any more are closed.
    pub changes: Option<watch::Receiver<(Arc<dyn Authenticator>, Terms)>>,
    /// How long an entry stays in its log after a snapshot has superseded it, in whole seconds; see
    /// [`RETENTION`](limits::RETENTION).
    pub retention: Duration,
    /// How long a device may be silent before it is nowhere for the others, see [`PRESENT_SILENCE`](limits::PRESENT_SILENCE).
    pub present_silence: Duration,
    /// How it hears of what other relays do to the same store, if there are any.
    pub notifier: Arc<dyn Notifier>,
    /// The accounts, if there are some, so that what is to be erased of them is: [`Found::directory`](crate::reload::Found::directory).
    pub accounts: Option<watch::Receiver<Option<Arc<Directory>>>>,
    /// Counts what the relay does.
    pub metrics: Metrics,
    /// Pages for the operator and for holders of accounts, if there are to be some.
    #[cfg(feature = "console")]
    pub console: Option<crate::console::Console>,
    /// Speaks TLS with all who connect; without it, plain HTTP is spoken.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
}

/// Where a relay keeps its logs.
#[derive(Clone)]
pub enum Storage {
    /// A file in this folder, which is created if needed, and which one relay has at a time.
    Folder(PathBuf),
    /// A store that is open: one of [`memory`](crate::store::memory), or of the program's own. Several relays may serve one store, each
    /// with a [`Notifier`](crate::notifier::Notifier).
    Store(Arc<dyn LogStore>),
}

impl Config {
    /// Data in the folder `data`, one local account, loopback only, the default limits and retention.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self::with(Storage::Folder(data.into()))
    }

    /// The same with logs in memory, which are gone with the relay.
    pub fn in_memory() -> Self {
        Self::with(Storage::Store(Arc::new(MemoryStore::new())))
    }

    /// The same with logs in a store that is open.
    pub fn with_store(store: Arc<dyn LogStore>) -> Self {
        Self::with(Storage::Store(store))
    }

    fn with(storage: Storage) -> Self {
        let (retention, present_silence) = (limits::RETENTION, limits::PRESENT_SILENCE);
        let terms = Terms::default();
        let notifier = Arc::new(Alone);
        let auth = Arc::new(Auth::Local);
        let access = Arc::new(OwnSpaces);
        Self {
            storage,
            auth,
            access,
            terms,
            changes: None,
            retention,
            present_silence,
            notifier,
            accounts: None,
            metrics: Metrics::new(),
            #[cfg(feature = "console")]
            console: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
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
    if config.auth.is_open() && !address.ip().is_loopback() {
        return Err(RunError::OpenToTheWorld(address));
    }
    doors::raise_descriptors();
    let descriptors = doors::descriptors();
    #[cfg(feature = "tls")]
    let tls = config.tls.clone();
    #[cfg(not(feature = "tls"))]
    let tls = None;
    #[cfg(feature = "console")]
    let (console, speaks_tls) = (config.console.clone(), tls.is_some());
    let Opened { relay, stop, care } = open(config, descriptors, time_of_day)?;
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/v1/sync", get(web_socket).post(post))
        .route("/v1/devices", axum::routing::post(devices).delete(sign_out))
        .route("/v1/sign-in", get(sign_in))
        .merge(spaces::routes())
        .merge(own_routes::routes());
    #[cfg(feature = "console")]
    let (app, sampling) = crate::console::mount(app, console, &relay, speaks_tls);
    #[cfg(feature = "console")]
    let sampling = supervised("the sampling of the console", || sampling.run());
    #[cfg(not(feature = "console"))]
    let sampling = std::future::pending::<()>();
    let app = app
        .with_state(relay.clone())
        .layer(axum::middleware::map_response(signed))
        .layer(axum::middleware::from_fn_with_state(relay.clone(), requests::identified));
    tracing::info!(%address, "the relay is up");
    let doors = Doors::new(descriptors);
    let serving =
        accept::serve(listener, doors.clone(), relay.terms.clone(), tls, app, relay.stopping.clone());
    let stopped = async move {
        shutdown.await;
        tracing::info!("stopping");
        _ = stop.send(true);
    };
    tokio::select! {
        _ = async { tokio::join!(serving, stopped) } => {}
        () = care => {}
        () = sampling => {}
    }
    let begun = Instant::now();
    while doors.open() > 0 {
        if begun.elapsed() >= limits::SHUTDOWN_GRACE {
            tracing::warn!("some sessions did not finish in time");
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::info!("the relay is down");
    Ok(())
}

/// A relay whose data is open, and that serves nobody yet.
pub(crate) struct Opened<C> {
    pub(crate) relay: Arc<Relay>,
    /// Says that the relay is to stop.
    pub(crate) stop: watch::Sender<bool>,
    /// What is to be done again and again as long as it serves. Does not end.
    pub(crate) care: C,
}

/// Opens the data of a relay whose connections have so many descriptors.
pub(crate) fn open(
    config: Config,
    descriptors: u64,
    time_of_day: TimeOfDay,
) -> Result<Opened<impl Future<Output = ()> + Send + 'static>, RunError> {
    let store: Arc<dyn LogStore> = match config.storage {
        Storage::Folder(data) => Arc::new(SqliteStore::open_with(&data, &config.terms.limits)?),
        Storage::Store(store) => {
            store.set_limits(&config.terms.limits);
            store
        }
    };
    let (stop, stopping) = watch::channel(false);
    let (auth, terms) = (watch::channel(config.auth), watch::channel(config.terms));
    let most = terms.1.borrow().limits.sessions.min((descriptors / 8 * 7).max(1));
    let relay = Arc::new(Relay {
        store,
        hub: Hub::new(config.notifier),
        stopping,
        present_silence: config.present_silence,
        auth: auth.1,
        access: config.access,
        terms: terms.1,
        health: Health::default(),
        metrics: config.metrics,
        accounts: Arc::default(),
        strangers: Strangers::default(),
        outgoing: Arc::default(),
        sessions: Arc::new(Semaphore::new(most as usize)),
        most_sessions: most as usize,
        next_session: AtomicU64::new(1),
        time_of_day,
    });
    let cared_for = relay.clone();
    let care = async move {
        tokio::join!(
            supervised("sweeping", || sweep(&*cared_for.store, config.retention)),
            supervised("the care of the store", || maintain(&cared_for)),
            supervised("the notifier", || cared_for.hub.exchange(config.present_silence)),
            supervised("the erasure of accounts", || {
                erasure::run(&*cared_for.store, config.accounts.clone())
            }),
            supervised("looking at the ends of logs", || look_at_heads(&cared_for)),
            supervised("taking up changes", || {
                take_changes(&cared_for, config.changes.clone(), &auth.0, &terms.0)
            })
        );
    };
    Ok(Opened { relay, stop, care })
}

/// As the machine has it.
pub(crate) fn time_of_day() -> Option<i64> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(time.as_millis()).ok()
}

/// Runs what is to be done all the time; what panics, perhaps in code of the program, begins anew after a moment, and the others go on.
async fn supervised<F: Future<Output = ()>>(what: &str, work: impl Fn() -> F) {
    while AssertUnwindSafe(async { work().await }).catch_unwind().await.is_err() {
        tracing::error!("{what} panicked, and begins anew");
        tokio::time::sleep(limits::ANEW_AFTER).await;
    }
}

/// Takes out of the logs, again and again, what was superseded longer than `retention` ago. Does not end.
async fn sweep(store: &dyn LogStore, retention: Duration) {
    let mut due = tokio::time::interval(limits::SWEEP_EVERY.min(retention.max(Duration::from_secs(1))));
    loop {
        due.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(retention).as_secs() as i64;
        // If it fails, the store has logged it, and the next time may go better.
        let mut all = 0;
        while let Ok(entries @ 1..) = store.sweep(before).await {
            all += entries;
        }
        if all > 0 {
            tracing::info!(entries = all, "superseded entries have left");
        }
    }
}

/// Lets the store look after itself, again and again. Does not end.
async fn maintain(relay: &Relay) {
    let mut due = tokio::time::interval(limits::ROOM_LOOKED_AT_EVERY);
    loop {
        due.tick().await;
        relay.store.maintain(relay.limits().reserve_bytes).await;
        let StoreState { is_full, damage, queued, stored_bytes, free_bytes } = relay.store.state();
        relay.metrics.note_store(StoreNumbers {
            is_full,
            is_damaged: damage.is_some(),
            queued_pushes: queued.0,
            queued_bytes: queued.1,
            stored_bytes,
            free_bytes,
        });
    }
}

/// Looks whether logs of sessions have grown, or are others, without a notice of it, again and again, if others may append to them. Does not end.
async fn look_at_heads(relay: &Relay) {
    if !relay.store.is_shared() {
        return std::future::pending().await;
    }
    let mut due = tokio::time::interval(limits::HEADS_LOOKED_AT_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        for logs in relay.hub.logs().chunks(limits::HEADS_AT_A_TIME) {
            // If it fails, the next time may go better.
            let Ok(ends) = relay.store.ends(logs).await else { break };
            logs.iter().zip(ends).for_each(|(log, end)| relay.hub.note_end(log, end));
        }
    }
}

/// Takes up other tokens and terms whenever there are. Does not end.
async fn take_changes(
    relay: &Relay,
    changes: Option<watch::Receiver<(Arc<dyn Authenticator>, Terms)>>,
    auth: &watch::Sender<Arc<dyn Authenticator>>,
    terms: &watch::Sender<Terms>,
) {
    let Some(mut changes) = changes else { return std::future::pending().await };
    while changes.changed().await.is_ok() {
        let (new_auth, new_terms) = changes.borrow_and_update().clone();
        relay.store.set_limits(&new_terms.limits);
        _ = auth.send(new_auth);
        _ = terms.send(new_terms);
        tracing::info!("who may speak, and the limits, were taken up anew");
    }
    std::future::pending().await
}

/// Marks an answer as one of a relay, and as what its type says: no browser makes a page of what it quotes from a request.
async fn signed(mut answer: Response) -> Response {
    answer.headers_mut().insert(RELAY_HEADER, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Says that the process answers, and what is known of the store without asking it: this must stay cheap, and answer when the disk does not.
async fn health(State(relay): State<Arc<Relay>>) -> &'static str {
    let state = relay.store.state();
    if state.is_full {
        "ok, read-only: the disk is full\n"
    } else if state.damage.is_some() {
        // Other logs, and what is sound of a damaged one, are served.
        // What it is stands in the log: anybody may ask here.
        "ok, but relay.db is damaged: stop the relay and run `motet-relay repair`\n"
    } else {
        "ok\n"
    }
}

/// Says whether the relay takes in what devices send: the store has shown that it could write, and the relay is not stopping.
async fn readiness(State(relay): State<Arc<Relay>>) -> Response {
    let mut stopping = relay.stopping.clone();
    let found = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => Err(StoreError::Closed),
        found = relay.health.check(&*relay.store) => found,
    };
    let state = relay.store.state();
    match found {
        Ok(()) if state.is_full => unready(&StoreError::Full),
        Ok(()) if state.damage.is_some() => "ready, but relay.db is damaged\n".into_response(),
        Ok(()) => "ready\n".into_response(),
        Err(error) => unready(&error),
    }
}

fn unready(error: &StoreError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], format!("{error}\n")).into_response()
}

async fn web_socket(
    State(relay): State<Arc<Relay>>,
    Extension(place): Extension<Arc<Place>>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let admitted = match relay.admit(&headers, &place).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        // One status for all that is no upgrade; what HTTP has for some of them needs headers that axum does not give.
        Err(rejection) => return (StatusCode::BAD_REQUEST, rejection.body_text()).into_response(),
    };
    place.become_session();
    let id = relay.next_session();
    let span = tracing::info_span!("session", session = id, %request);
    upgrade
        .read_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .write_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .max_message_size(proto::FRAME_BYTES)
        .max_frame_size(proto::FRAME_BYTES)
        .max_write_buffer_size(2 * proto::FRAME_BYTES)
        .on_upgrade(move |socket| async move {
            let (sink, stream) = socket.split();
            session::serve_socket(relay, admitted, id, sink, stream).instrument(span).await;
        })
}

async fn sign_in(State(relay): State<Arc<Relay>>) -> Response {
    registration::methods(&relay)
}

async fn sign_out(
    State(relay): State<Arc<Relay>>,
    Extension(place): Extension<Arc<Place>>,
    headers: HeaderMap,
) -> Response {
    registration::sign_out(relay, place, &headers).await
}

async fn devices(
    State(relay): State<Arc<Relay>>,
    Extension(place): Extension<Arc<Place>>,
    request: Request,
) -> Response {
    registration::register(relay, place, request).await
}

async fn post(
    State(relay): State<Arc<Relay>>,
    Extension(place): Extension<Arc<Place>>,
    request: Request,
) -> Response {
    // Before the body is read: who may not speak costs no memory.
    let admitted = match relay.admit(request.headers(), &place).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let id = relay.next_session();
    match session::serve_post(relay, admitted, id, request.into_body()).await {
        Ok(answer) => ([(CONTENT_TYPE, "application/vnd.motet")], answer.into_body()).into_response(),
        Err((status, reason)) => (status, [(CONNECTION, "close")], reason).into_response(),
    }
}
