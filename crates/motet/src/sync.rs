//! The connection to a relay.
//!
//! What is said and when is decided by [`motet_proto::session::ClientSession`]; this module carries it out: [`driver`]
//! joins the session with the store, the clock and a [`connection`], over HTTP ([`http`]) or whatever the app brings ([`connector`]).

mod connection;
mod connector;
mod dialer;
mod driver;
#[cfg(feature = "relay")]
mod http;
mod lock;
#[cfg(feature = "simulation")]
pub(crate) mod stepped;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use motet_proto::DocumentId;
use motet_proto::envelope::SUITE_PLAIN;
#[cfg(feature = "relay")]
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::engine::Database;
use crate::engine::Link;
use crate::error::SyncError;
use crate::limits;
use crate::store::{Durability, SEALED, StorageError};
use crate::types::CollectionCounts;
use connection::Traffic;
pub use connector::{Connector, FrameChannel};
use dialer::Dialer;
pub(crate) use driver::DocumentTask;
use driver::{Command, DocumentRequest, Driver};
#[cfg(feature = "relay")]
pub(crate) use http::registration::Registered;
#[cfg(feature = "relay")]
pub(crate) use http::spaces::{Declined, SpacesRequest};
#[cfg(feature = "relay")]
use http::{Endpoint, Http};
use tokens::Token;

/// Before the name of a relay that is reached through a connector, where the store names its remote.
const CHANNEL: &str = "channel:";

/// A relay and how to reach it.
///
/// ```
/// # #[cfg(feature = "relay")] {
/// use motet::Relay;
/// let relay = Relay::new("https://relay.example.org").token("secret");
/// // Or a provider, asked again whenever the relay refuses the token:
/// let relay = Relay::new("https://relay.example.org").token_provider(|request| async move {
///     if request.rejected { /* refresh it */ }
///     Ok("fresh secret".to_string())
/// });
/// # }
/// ```
#[derive(Clone)]
pub struct Relay {
    address: String,
    token: Option<Token>,
    way: Way,
}

/// How a relay is reached.
#[derive(Clone)]
enum Way {
    #[cfg(feature = "relay")]
    Http(Transport),
    Channel(Arc<dyn Connector>),
}

/// How messages travel over HTTP.
#[cfg(feature = "relay")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// WebSocket, and `POST` where a proxy does not let it through.
    #[default]
    Auto,
    /// WebSocket only: changes of other devices arrive as they are made.
    WebSocket,
    /// `POST` only: changes of other devices arrive with every poll.
    Post,
}

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The relay has just refused the token that was given last.
    pub rejected: bool,
    /// The time at which it did, by its clock, in milliseconds since 1970; for tokens that are good for a time.
    pub relay_time: Option<i64>,
}

impl TokenRequest {
    /// A token was refused.
    fn rejected(date: Option<SystemTime>) -> Self {
        let since = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let relay_time = since.and_then(|since| i64::try_from(since.as_millis()).ok());
        Self { rejected: true, relay_time }
    }
}

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;
type TokenProvider = Arc<dyn Fn(TokenRequest) -> TokenFuture + Send + Sync>;

/// What syncing did since the last summary, or since the replica connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SyncSummary {
    /// What changed on this device, per collection.
    pub collections: BTreeMap<String, CollectionCounts>,
    /// Entries that the relay now holds durably.
    pub sent: u64,
    /// Entries that the relay will never accept; they stay here, see
    /// [`DocumentStatus::error`](crate::DocumentStatus::error).
    pub rejected: u64,
    /// Entries received that other devices have sent.
    pub received: u64,
    /// Received items set aside because they could not be applied.
    pub quarantined: u64,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Messages sent; on an unchanged space one, a round trip.
    pub messages_up: u64,
    /// How long the round took, in milliseconds.
    pub duration_ms: u64,
}

/// A running sync task, on a thread of its own. Dropping it ends the task.
pub(crate) struct SyncHandle {
    database: Arc<Database>,
    /// As the engine numbers connections.
    connection: u64,
    traffic: Arc<Traffic>,
    failure: Arc<LastFailure>,
    commands: mpsc::UnboundedSender<Command>,
    runtime: Option<Runtime>,
}

/// With which remote sessions are, and why one failed last, and when.
struct LastFailure {
    remote: AtomicI64,
    last: Mutex<Option<(Instant, SyncError)>>,
}

impl LastFailure {
    fn new(remote: i64) -> Self {
        Self { remote: AtomicI64::new(remote), last: Mutex::default() }
    }

    /// The relay turned out to be another remote.
    fn use_remote(&self, remote: i64) {
        self.remote.store(remote, Ordering::Relaxed);
    }

    fn note(&self, error: &SyncError) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
    }

    fn since(&self, begun: Instant) -> Option<SyncError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| *at >= begun).map(|(_, error)| error.clone())
    }
}

impl Relay {
    /// A relay at an `http://`, `https://`, `ws://` or `wss://` address. Needs the feature `relay`, which is on by default.
    #[cfg(feature = "relay")]
    pub fn new(url: &str) -> Self {
        Self { address: url.to_owned(), token: None, way: Way::Http(Transport::default()) }
    }

    /// A relay that a connector of the app reaches. `name` stands where else the address does: what was sent to it is known under that
    /// name, so the same relay keeps the same one. It has at least one character.
    pub fn through(name: &str, connector: impl Connector) -> Self {
        Self { address: name.trim().to_owned(), token: None, way: Way::Channel(Arc::new(connector)) }
    }

    /// Signs in with a token that does not change. Blanks and line ends around it are not part of it.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(Token::Fixed(token.trim().to_owned()));
        self
    }

    /// Signs in with tokens from a provider. It is asked before every connection, and once more when the relay
    /// refuses what it gave. Its error, for a person, becomes [`SyncError::AuthNeeded`]. It runs on a thread of its own and may block;
    /// what it has not given within [`TOKEN_TIMEOUT`](crate::limits::TOKEN_TIMEOUT) is not waited for, and asked for again later.
    #[must_use]
    pub fn token_provider<F>(mut self, provider: impl Fn(TokenRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.token = Some(Token::Provider(Arc::new(move |request| Box::pin(provider(request)))));
        self
    }

    /// Chooses the transport. A relay [through](Self::through) a connector has none to choose, and ignores it.
    #[cfg(feature = "relay")]
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        if let Way::Http(chosen) = &mut self.way {
            *chosen = transport;
        }
        self
    }

    /// The address as the store knows the remote; `None` if it is none.
    #[cfg(feature = "relay")]
    pub(crate) fn normal_address(&self) -> Option<String> {
        self.dialer().ok().map(|(_, address)| address)
    }

    /// The address at which a device signs in.
    ///
    /// # Errors
    /// [`SyncError::BadUrl`] if it is none, if what is sent to it can be read on the way, or if the relay is reached through a connector.
    #[cfg(feature = "relay")]
    pub(crate) fn registers_at(&self) -> Result<String, SyncError> {
        self.registration_endpoint().map(|endpoint| endpoint.url)
    }

    #[cfg(feature = "relay")]
    fn registration_endpoint(&self) -> Result<Endpoint, SyncError> {
        let bad = |reason: &str| SyncError::BadUrl { url: self.address.clone(), reason: reason.into() };
        if matches!(self.way, Way::Channel(_)) {
            return Err(bad("a device signs in over HTTP, and this relay is reached through a connector"));
        }
        let endpoint = Endpoint::parse(&self.address)?;
        match endpoint.keeps_secrets() {
            true => Ok(endpoint),
            false => Err(bad(
                "a key would be sent over it for anybody on the way to read; only https:// keeps it secret",
            )),
        }
    }

    /// Registers a device, and waits for the answer, on a thread of its own: the caller may have a runtime already.
    #[cfg(feature = "relay")]
    pub(crate) fn register(&self, body: String) -> Result<Registered, SyncError> {
        let endpoint = self.registration_endpoint()?;
        wait_for(async move { http::registration::register(&endpoint, body).await })
    }

    /// Asks how devices sign in, and waits for the answer; `None` if the relay has no such question.
    #[cfg(feature = "relay")]
    pub(crate) fn ask_methods<T: DeserializeOwned + Send + 'static>(&self) -> Result<Option<T>, SyncError> {
        let endpoint = self.registration_endpoint()?;
        wait_for(async move { http::registration::methods(&endpoint).await })
    }

    /// Asks something of shared spaces, and waits for the answer.
    #[cfg(feature = "relay")]
    pub(crate) fn ask_spaces<T: DeserializeOwned + Send + 'static>(
        &self,
        request: SpacesRequest,
    ) -> Result<Result<T, Declined>, SyncError> {
        let endpoint = self.registration_endpoint()?;
        // Whatever is wrong with the token is said first.
        self.check()?;
        let tokens = tokens::Tokens::new(self.token.clone());
        wait_for(async move { http::spaces::request(&endpoint, &tokens, request).await })
    }

    /// Has the relay sign this device out, with the key by which it [speaks](Self::device_key_in): nobody is let in with that any more. It asks the
    /// network, and takes up to [`SIGN_IN_TIMEOUT`](crate::limits::SIGN_IN_TIMEOUT). What is on the device stays there; see
    /// [`Replica::sign_out`](crate::Replica::sign_out).
    ///
    /// # Errors
    /// [`SyncError`]; [`SyncError::AuthNeeded`] if it was signed out before.
    #[cfg(feature = "relay")]
    pub fn sign_out_device(&self) -> Result<(), SyncError> {
        let endpoint = self.registration_endpoint()?;
        self.check()?;
        let tokens = tokens::Tokens::new(self.token.clone());
        wait_for(async move { http::registration::sign_out(&endpoint, &tokens).await })
    }

    /// Checks that the address can be one of a relay and the token can be sent, without any network.
    ///
    /// # Errors
    /// [`SyncError::BadUrl`] or [`SyncError::BadToken`] says what is wrong.
    pub fn check(&self) -> Result<(), SyncError> {
        self.dialer().map(|_| ())
    }

    /// What opens connections, and the address in its normal form.
    fn dialer(&self) -> Result<(Dialer, String), SyncError> {
        if let Some(Token::Fixed(token)) = &self.token
            && let Some(reason) = tokens::fault(token)
        {
            return Err(SyncError::BadToken { reason });
        }
        let bad = |reason: &str| SyncError::BadUrl { url: self.address.clone(), reason: reason.into() };
        match &self.way {
            #[cfg(feature = "relay")]
            Way::Http(transport) => {
                let endpoint = Endpoint::parse(&self.address)?;
                if self.token.is_some() && !endpoint.keeps_secrets() {
                    return Err(bad(
                        "a token would be sent over it for anybody on the way to read; only https:// keeps it secret",
                    ));
                }
                let address = endpoint.url.clone();
                Ok((Dialer::Http(Http::new(endpoint, *transport)?), address))
            }
            Way::Channel(_) if self.address.is_empty() => Err(bad("a relay needs a name")),
            Way::Channel(connector) => {
                Ok((Dialer::App(connector.clone()), format!("{CHANNEL}{}", self.address)))
            }
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut relay = f.debug_struct("Relay");
        relay.field("address", &self.address);
        match &self.way {
            #[cfg(feature = "relay")]
            Way::Http(transport) => relay.field("transport", transport).finish_non_exhaustive(),
            Way::Channel(_) => relay.finish_non_exhaustive(),
        }
    }
}

impl fmt::Display for SyncSummary {
    /// `Synced: 5 pieces updated, 2 new, 1 conflict`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, counts) in &self.collections {
            let mut words = Vec::new();
            for (count, word) in
                [(counts.updated, "updated"), (counts.new, "new"), (counts.deleted, "deleted")]
            {
                if count > 0 {
                    let singular = name.strip_suffix('s').filter(|_| count == 1).unwrap_or(name);
                    let noun = if words.is_empty() { format!(" {singular}") } else { String::new() };
                    words.push(format!("{count}{noun} {word}"));
                }
            }
            if counts.conflicts > 0 {
                words.push(format!("{} conflict{}", counts.conflicts, plural(counts.conflicts)));
            }
            parts.extend(words);
        }
        if self.sent > 0 {
            parts.push(format!("{} sent", self.sent));
        }
        if self.rejected > 0 {
            parts.push(format!("{} rejected", self.rejected));
        }
        if self.quarantined > 0 {
            parts.push(format!("{} set aside", self.quarantined));
        }
        if parts.is_empty() {
            parts.push("nothing to do".into());
        }
        write!(f, "Synced: {}", parts.join(", "))
    }
}

impl SyncHandle {
    pub(crate) fn start(database: Arc<Database>, relay: Relay) -> Result<Self, SyncError> {
        let Active { dialer, address, remote, sign_outs } = activate(&database, &relay)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(limits::BLOCKING_THREADS)
            .thread_name("motet-sync")
            .enable_all()
            .build()
            .map_err(|e| StorageError::Io(e.to_string()))?;
        // Their clock is the one of this runtime, also where the caller has another.
        let entered = runtime.enter();
        let (commands, receiver) = mpsc::unbounded_channel();
        let (traffic, failure) = (Arc::new(Traffic::default()), Arc::new(LastFailure::new(remote)));
        let connection = database.shared.send_slot.begin();
        let watched = (traffic.clone(), failure.clone());
        let driver = Driver::new(
            database.clone(),
            Relay { address, ..relay },
            dialer,
            (remote, sign_outs, connection),
            receiver,
            watched,
        );
        drop(entered);
        runtime.spawn(driver.run());
        Ok(Self { database, connection, traffic, failure, commands, runtime: Some(runtime) })
    }

    /// Asks for a round that nobody waits for; a pause between attempts ends.
    pub(crate) fn nudge(&self) {
        _ = self.commands.send(Command::Round(oneshot::channel().0));
    }

    /// Asks for a round; the future resolves within the round's time limit, on any executor.
    pub(crate) fn request_round(
        &self,
    ) -> impl Future<Output = Result<SyncSummary, SyncError>> + Send + use<> {
        self.ask(Command::Round, limits::ROUND_TIMEOUT, true)
    }

    /// The same within a given time.
    pub(crate) fn request_round_within(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = Result<SyncSummary, SyncError>> + Send + use<> {
        self.ask(Command::Round, deadline, false)
    }

    /// Asks that one document be synced before everything else.
    pub(crate) fn request_document(
        &self,
        document: DocumentId,
        task: DocumentTask,
    ) -> impl Future<Output = Result<bool, SyncError>> + Send + use<> {
        let command = move |reply| Command::Document(DocumentRequest { document, task, reply: Some(reply) });
        self.ask(command, limits::ROUND_TIMEOUT, true)
    }

    /// `extends`: while the relay is heard, the time does not end.
    fn ask<T: Send + 'static, C: FnOnce(oneshot::Sender<Result<T, SyncError>>) -> Command>(
        &self,
        command: C,
        time: Duration,
        extends: bool,
    ) -> impl Future<Output = Result<T, SyncError>> + Send + use<T, C> {
        let (reply, answer) = oneshot::channel();
        // Before it is asked: the task may die over it at once.
        let begun = Instant::now();
        // If the task is gone the reply is dropped, and the answer says so.
        _ = self.commands.send(command(reply));
        let (traffic, failure) = (self.traffic.clone(), self.failure.clone());
        let database = self.database.clone();
        let timeout = async move {
            let mut patience = time;
            let mut answer = answer;
            let longest = tokio::time::Instant::now() + limits::ROUND_LONGEST;
            let limit = loop {
                match tokio::time::timeout(patience, &mut answer).await {
                    Ok(Ok(outcome)) => return outcome,
                    // The task died over it, and says why in a moment; if it was ended, so is this.
                    Ok(Err(_)) => {
                        tokio::time::sleep(limits::ROUND_LOOKS_AGAIN).await;
                        return Err(failure.since(begun).unwrap_or(SyncError::NotConnected));
                    }
                    Err(_) if !extends || traffic.is_idle(limits::ROUND_SILENCE) => break time,
                    Err(_) if tokio::time::Instant::now() >= longest => break limits::ROUND_LONGEST,
                    Err(_) => patience = limits::ROUND_LOOKS_AGAIN,
                }
            };
            // What went wrong meanwhile says more than that the time is over, and the status says it already.
            if let Some(error) = failure.since(begun) {
                return Err(error);
            }
            let error = SyncError::Timeout { seconds: limit.as_secs() };
            driver::keep_error(&database, failure.remote.load(Ordering::Relaxed), &error).await;
            Err(error)
        };
        let task = self.runtime.as_ref().map(|runtime| runtime.spawn(timeout));
        async move {
            match task {
                Some(task) => task.await.unwrap_or(Err(SyncError::NotConnected)),
                None => Err(SyncError::NotConnected),
            }
        }
    }
}

impl Drop for SyncHandle {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let shared = &self.database.shared;
        shared.send_slot.end(self.connection);
        shared.board.set_link(Link::LetGo);
        shared.presence.forget();
    }
}

/// Makes the relay the replica's remote, without connecting.
pub(crate) fn use_relay(database: &Database, relay: &Relay) -> Result<(), SyncError> {
    activate(database, relay).map(|_| ())
}

/// A relay that is the replica's remote.
struct Active {
    dialer: Dialer,
    /// In its normal form, as the store knows the remote.
    address: String,
    remote: i64,
    /// How often the user had signed out until then.
    sign_outs: i64,
}

/// Makes the relay the replica's remote.
fn activate(database: &Database, relay: &Relay) -> Result<Active, SyncError> {
    database.may_write().map_err(SyncError::Storage)?;
    let is_sealed = database.readers.read(|tx| tx.meta(SEALED)).map_err(SyncError::Storage)?.is_some();
    if is_sealed && database.shared.sealer.suite() == SUITE_PLAIN {
        return Err(SyncError::NotSealed);
    }
    let (dialer, address) = relay.dialer()?;
    let (url, now) = (address.clone(), database.shared.now_ms());
    let (remote, sign_outs) = database
        .writer
        .run(Durability::Full, move |tx, core| Ok((core.use_remote(tx, &url, now)?, tx.sign_outs()?)))
        .map_err(SyncError::Storage)?;
    Ok(Active { dialer, address, remote, sign_outs })
}

/// How this device names itself to a relay.
/// Waits for an answer, on a thread of its own: the caller may have a runtime already.
#[cfg(feature = "relay")]
fn wait_for<T: Send + 'static>(
    answer: impl Future<Output = Result<T, SyncError>> + Send + 'static,
) -> Result<T, SyncError> {
    let ask = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| StorageError::Io(e.to_string()))?.block_on(answer)
    };
    let thread = std::thread::Builder::new().name("motet-ask".into()).spawn(ask);
    let thread = thread.map_err(|e| StorageError::Io(e.to_string()))?;
    thread.join().unwrap_or_else(|_| Err(connection::relay_error("asking it failed")))
}

fn agent() -> String {
    concat!("motet/", env!("CARGO_PKG_VERSION")).to_owned()
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
