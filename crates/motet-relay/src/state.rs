//! What all connections of a relay share, and who is let in.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::access::Authorizer;
use crate::accounts::{self, Accounts};
use crate::auth::{self, AuthError, Authenticator, Credentials, Principal, RegisterError, Registration};
use crate::config::{Limits, Terms};
use crate::doors::{self, Place};
use crate::health::Health;
use crate::hub::Hub;
use crate::limits;
use crate::metrics::{self, Metrics};
use crate::outgoing::Outgoing;
use crate::store::LogStore;
use crate::strangers::{Answer, Strangers};

/// The time of day, in milliseconds since 1970; `None` if that is not known.
pub(crate) type TimeOfDay = fn() -> Option<i64>;

/// What all connections share.
pub(crate) struct Relay {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) hub: Hub,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) present_silence: Duration,
    pub(crate) auth: watch::Receiver<Arc<dyn Authenticator>>,
    pub(crate) access: Arc<dyn Authorizer>,
    pub(crate) terms: watch::Receiver<Terms>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) strangers: Strangers,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) most_sessions: usize,
    pub(crate) next_session: AtomicU64,
    pub(crate) time_of_day: TimeOfDay,
}

/// A request that was let in.
pub(crate) struct Admitted {
    pub(crate) who: Principal,
    pub(crate) request: accounts::Request,
    pub(crate) place: Arc<Place>,
    _permit: OwnedSemaphorePermit,
}

/// Why a request is not let in.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    header: (HeaderName, &'static str),
    /// For people.
    pub(crate) reason: Cow<'static, str>,
}

impl Refusal {
    fn new(
        status: StatusCode,
        header: (HeaderName, &'static str),
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, header, reason: reason.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, [self.header], self.reason).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Relay {
    pub(crate) fn limits(&self) -> Limits {
        self.terms.borrow().limits.clone()
    }

    /// Who a request speaks for, and its place among the others.
    pub(crate) async fn admit(&self, headers: &HeaderMap, place: &Arc<Place>) -> Result<Admitted, Refusal> {
        let authenticator = self.auth.borrow().clone();
        let who = match auth::authenticate(authenticator, Credentials::of(headers)).await {
            Ok(who) => who,
            Err(error) => return Err(self.refuse(error, self.address(headers, place)).await),
        };
        let full = |code, reason| {
            self.metrics.note_refusal(code);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, (RETRY_AFTER, "10"), reason)
        };
        let limits = self.limits();
        let request = self
            .accounts
            .admit(&who.account, &limits)
            .ok_or_else(|| full(metrics::ACCOUNT_SESSIONS, "this account has too many sessions open"))?;
        let permit = self.sessions.clone().try_acquire_owned();
        let permit = permit.map_err(|_| full(metrics::SESSIONS, "the relay has too many sessions open"))?;
        place.meter.charge(request.account.incomplete.clone(), limits.incomplete_bytes_per_account);
        Ok(Admitted { who, request, place: place.clone(), _permit: permit })
    }

    /// Answers a request without a good token, the later the more of them come from its address.
    pub(crate) async fn refuse(&self, error: AuthError, address: IpAddr) -> Refusal {
        let code = code_of(error);
        match error {
            AuthError::WebPage | AuthError::Forwarded => {
                self.note_refused(code, address);
                return Refusal::new(StatusCode::FORBIDDEN, (CONNECTION, "close"), error.to_string());
            }
            AuthError::Unavailable => {
                self.note_refused(code, address);
                let header = (RETRY_AFTER, "10");
                return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, header, error.to_string());
            }
            AuthError::Missing
            | AuthError::Invalid
            | AuthError::UnknownDevice
            | AuthError::SignedOut
            | AuthError::Clock => {}
        }
        let allowed = self.terms.borrow().limits.wrong_tokens;
        self.refuse_stranger(address, allowed, code, error.to_string()).await
    }

    /// Registers a device, or says why not.
    pub(crate) async fn register(
        &self,
        headers: &HeaderMap,
        place: &Arc<Place>,
        device: &Registration,
    ) -> Result<String, Refusal> {
        let authenticator = self.auth.borrow().clone();
        let error = match auth::register(authenticator, device).await {
            Ok(account) => return Ok(account),
            Err(error) => error,
        };
        let (code, address) = (registration_code_of(&error), self.address(headers, place));
        let plain = |status| {
            self.note_refused(code, address);
            Refusal::new(status, (CONNECTION, "close"), error.to_string())
        };
        Err(match error {
            RegisterError::NotOffered => plain(StatusCode::NOT_FOUND),
            RegisterError::TooManyDevices => plain(StatusCode::FORBIDDEN),
            RegisterError::OtherAccount(_) => plain(StatusCode::CONFLICT),
            RegisterError::Unavailable => {
                self.note_refused(code, address);
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, (RETRY_AFTER, "10"), error.to_string())
            }
            RegisterError::Invalid
            | RegisterError::Expired
            | RegisterError::Used
            | RegisterError::IdentityRefused(_)
            | RegisterError::NoAccount { .. } => {
                let allowed = self.terms.borrow().limits.wrong_tokens;
                self.refuse_stranger(address, allowed, code, error.to_string()).await
            }
        })
    }

    /// A refusal that does not count against its address. The log tells the first of a while: anybody can cause them.
    fn note_refused(&self, reason: &'static str, address: IpAddr) {
        self.metrics.note_sign_in_refusal(reason);
        self.strangers.note(address, reason);
        if self.strangers.is_due(address) {
            tracing::info!(%address, reason, "a request was refused");
        }
    }

    async fn refuse_stranger(
        &self,
        address: IpAddr,
        allowed: u64,
        code: &'static str,
        reason: String,
    ) -> Refusal {
        if !self.hold_up(address, allowed, code).await {
            let header = (RETRY_AFTER, "60");
            return Refusal::new(StatusCode::TOO_MANY_REQUESTS, header, TOO_MANY_WRONG);
        }
        Refusal::new(StatusCode::UNAUTHORIZED, (WWW_AUTHENTICATE, "Bearer"), reason)
    }

    /// Counts a secret that is not good against the address that it comes from, and resolves when that may be answered.
    ///
    /// # Errors
    /// It is turned away, and this is what it is told.
    #[cfg(feature = "console")]
    pub(crate) async fn refuse_secret(
        &self,
        headers: &HeaderMap,
        place: &Place,
        code: &'static str,
    ) -> Result<(), &'static str> {
        let allowed = self.terms.borrow().limits.wrong_tokens;
        let may_be_answered = self.hold_up(self.address(headers, place), allowed, code).await;
        may_be_answered.then_some(()).ok_or(TOO_MANY_WRONG)
    }

    /// Counts a refusal, and resolves when it may be answered; false: not at all.
    async fn hold_up(&self, address: IpAddr, allowed: u64, code: &'static str) -> bool {
        self.metrics.note_sign_in_refusal(code);
        self.strangers.note(address, code);
        match self.strangers.refuse(address, allowed) {
            // Those beyond are told all together, now and then.
            Answer::Now => tracing::info!(%address, reason = code, "a sign-in was refused"),
            Answer::Late => {
                let _late = Late(&self.strangers, address);
                tokio::time::sleep(limits::LATE_ANSWER_AFTER).await;
            }
            Answer::Never => return false,
        }
        true
    }

    /// Where a request comes from, as far as that can be believed.
    fn address(&self, headers: &HeaderMap, place: &Place) -> IpAddr {
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("")).collect();
        let terms = self.terms.borrow();
        doors::network(doors::forwarded_from(place.peer, lines.into_iter(), &terms.proxies))
    }

    /// Whether what a peer says of others is believed.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        doors::is_proxy(peer, &self.terms.borrow().proxies)
    }

    /// Over how long the devices that are connected now are to come back, if they all lose the connection at once.
    pub(crate) fn window(&self) -> Duration {
        let sessions = self.most_sessions - self.sessions.available_permits();
        let window = limits::COMES_BACK_IN * u32::try_from(sessions).unwrap_or(u32::MAX);
        window.clamp(limits::COME_BACK_WITHIN, limits::COME_BACK_LONGEST)
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

/// What somebody is told who is turned away.
const TOO_MANY_WRONG: &str = "too many wrong tokens came lately";

/// Why somebody was not let in, for the log and the metrics.
fn code_of(error: AuthError) -> &'static str {
    match error {
        AuthError::Missing => "no-token",
        AuthError::Invalid => "token-invalid",
        AuthError::UnknownDevice => "device-unknown",
        AuthError::SignedOut => "device-signed-out",
        AuthError::Clock => "clock",
        AuthError::WebPage => "web-page",
        AuthError::Forwarded => "forwarded",
        AuthError::Unavailable => "unavailable",
    }
}

/// Why a device was not registered, likewise.
fn registration_code_of(error: &RegisterError) -> &'static str {
    match error {
        RegisterError::NotOffered => "registration-not-offered",
        RegisterError::Invalid => "key-invalid",
        RegisterError::Expired => "key-expired",
        RegisterError::Used => "key-used",
        RegisterError::OtherAccount(_) => "other-account",
        RegisterError::IdentityRefused(_) => "identity-refused",
        RegisterError::NoAccount { .. } => "identity-without-account",
        RegisterError::TooManyDevices => "too-many-devices",
        RegisterError::Unavailable => "registration-unavailable",
    }
}

/// A refusal that waits; whether or not somebody is still there to hear it.
struct Late<'s>(&'s Strangers, IpAddr);

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.0.answered(self.1);
    }
}
