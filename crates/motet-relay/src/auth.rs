//! Who speaks: [`Authenticator`], and the one that has tokens in a file.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use futures_util::future::{BoxFuture, FutureExt, ready};
use motet_proto::device_key::PublicKey;
use motet_proto::{AccountId, DeviceId};
use tokio::time::timeout;

use crate::identity::OfferedIssuer;
use crate::limits;
use crate::own_account::{AccountAnswer, AccountError, AccountRequest};

/// The account of everybody, where no tokens are configured.
pub const LOCAL_ACCOUNT: &str = "local";

/// Tells who a request is from. It may ask somebody else over a network; each call has
/// [`AUTHENTICATE_TIMEOUT`](limits::AUTHENTICATE_TIMEOUT), and one that panics counts as one that cannot say.
pub trait Authenticator: Send + Sync + 'static {
    /// Who speaks with these credentials.
    ///
    /// # Errors
    /// [`AuthError::Missing`] and [`AuthError::Invalid`] if it is nobody, which counts against the address; [`AuthError::Unavailable`] if that cannot be
    /// found out now, upon which the device tries again later.
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;

    /// Whether somebody who was let in earlier, perhaps by an earlier authenticator, would be let in now, as the same account. Asked of every
    /// session when the relay gets another authenticator. If it is not found out in time, the session stays.
    fn is_valid<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, bool>;

    /// Registers a device that has a sign-in key, and returns the account that it is of. The device has proven that it has the secret half of its
    /// key. The same registration may come twice, as answers are lost.
    ///
    /// # Errors
    /// [`RegisterError`]; by default [`RegisterError::NotOffered`].
    fn register<'a>(&'a self, device: &'a Registration) -> BoxFuture<'a, Result<String, RegisterError>> {
        _ = device;
        ready(Err(RegisterError::NotOffered)).boxed()
    }

    /// How devices can [register](Self::register); by default not at all.
    fn sign_in_methods(&self) -> SignInMethods {
        SignInMethods::default()
    }

    /// Does what a device asks of its own account.
    ///
    /// # Errors
    /// [`AccountError`]; by default [`AccountError::NotOffered`].
    fn own_account<'a>(
        &'a self,
        who: &'a Principal,
        request: AccountRequest,
    ) -> BoxFuture<'a, Result<AccountAnswer, AccountError>> {
        _ = (who, request);
        ready(Err(AccountError::NotOffered)).boxed()
    }

    /// Signs the device of a principal out, as it asks for itself.
    ///
    /// # Errors
    /// [`RegisterError::NotOffered`], by default, or of somebody who is no device; [`RegisterError::Unavailable`].
    fn sign_out<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, Result<(), RegisterError>> {
        _ = who;
        ready(Err(RegisterError::NotOffered)).boxed()
    }

    /// Whether everybody who can connect is let in. Then only addresses that other machines cannot reach are served, and no web pages.
    fn is_open(&self) -> bool {
        false
    }
}

/// What a request says of who it is from.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The bearer token, at most [`TOKEN_BYTES`](limits::TOKEN_BYTES) long.
    pub token: Option<&'a str>,
    /// The web page that sends the request, if one does.
    pub origin: Option<&'a str>,
    /// A proxy has passed the request on for somebody else.
    pub is_forwarded: bool,
}

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account.
    pub account: String,
    /// Hash of the token by which that is known, or the public key of the device. Without one there are no accounts to be told apart.
    pub token: Option<[u8; 32]>,
    /// The device, if it has proven which one it is: it speaks for no other one.
    pub device: Option<DeviceId>,
}

/// How devices can sign in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignInMethods {
    /// With sign-in keys.
    pub keys: bool,
    /// With identity tokens of these.
    pub issuers: Vec<OfferedIssuer>,
}

/// A device that signs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// What says whose device it is: a sign-in key, or an identity token.
    pub credential: String,
    /// The device.
    pub device: DeviceId,
    /// The key that it has proven to have.
    pub key: PublicKey,
    /// What people call it.
    pub name: String,
    /// What it runs on.
    pub platform: String,
    /// The program that signs it in, and which version.
    pub version: String,
    /// The account whose documents the device has already: with a sign-in key of another one it is not registered.
    pub bound_to: Option<AccountId>,
}

/// Why a device is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The relay has no accounts that a device could sign in to.
    #[error("this relay has no sign-in keys; it knows who speaks by tokens, or not at all")]
    NotOffered,
    /// The sign-in key is unknown or revoked, or the device signed out with this key of its own before.
    #[error("the sign-in key is not valid")]
    Invalid,
    /// The sign-in key has expired.
    #[error("the sign-in key has expired")]
    Expired,
    /// The sign-in key was for one device.
    #[error("another device has signed in with this sign-in key, which is good for one")]
    Used,
    /// The sign-in key or identity is of another account than the one whose documents the device has. It was not used.
    #[error("this signs in to the account {0:?}, and the documents on this device are of another one")]
    OtherAccount(String),
    /// The identity token is not good; why stands in the text.
    #[error("{0}")]
    IdentityRefused(String),
    /// The identity token is good, and whom it is about has no account here.
    #[error("{subject} of {issuer} has no account on this relay; its operator can link one")]
    NoAccount {
        /// What the operator calls the service.
        issuer: String,
        /// Whom the token is about.
        subject: String,
    },
    /// There is no room for another device.
    #[error("the account has too many devices: sign one out first")]
    TooManyDevices,
    /// It cannot be registered now.
    #[error("no device can be registered now; try again later")]
    Unavailable,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("device", &self.device)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Tokens that stand in a file, or none. `Debug` shows how many.
#[derive(Clone)]
pub enum Auth {
    /// Everybody who can connect is the one local account. Only for addresses that nobody else can reach.
    Local,
    /// Accounts by hash of their token. Hashes, so that a memory dump does not give tokens away and that comparing
    /// takes no longer for a better guess.
    Tokens(HashMap<[u8; 32], String>),
}

/// The tokens file is not usable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A line is not `token -> account`.
    #[error("{path}, line {line}: {reason}")]
    BadLine {
        /// The file.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong; never the token itself.
        reason: &'static str,
    },
    /// It names no token, so nobody could ever connect.
    #[error("{path} holds no tokens; write lines of the form `token -> account`")]
    Empty {
        /// The file.
        path: String,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token in the `Authorization` header.
    #[error("a token is needed")]
    Missing,
    /// The token is unknown.
    #[error("the token is not valid")]
    Invalid,
    /// No device has signed in with this key, or not as far as this relay remembers.
    #[error("this relay does not know this device")]
    UnknownDevice,
    /// The device was signed out.
    #[error("this device was signed out of its account")]
    SignedOut,
    /// A device has signed it at another time than it is here.
    #[error("the token is of another time: the clock of the device, or of the relay, is wrong")]
    Clock,
    /// A web page asks a relay that serves its whole machine without tokens: any page that the user visits could.
    #[error("web pages are served only with tokens configured")]
    WebPage,
    /// A proxy passes on requests to a relay that serves its whole machine without tokens: whoever reaches the proxy would be let in.
    #[error("requests that a proxy passes on are served only with accounts or tokens")]
    Forwarded,
    /// It cannot be found out now who this is.
    #[error("it cannot be found out now whose the token is; try again later")]
    Unavailable,
}

impl<'a> Credentials<'a> {
    /// Only a token.
    pub fn bearer(token: Option<&'a str>) -> Self {
        Self { token, ..Self::default() }
    }

    /// What the headers of a request say.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= limits::TOKEN_BYTES);
        // Browsers name the page's origin on every WebSocket and every cross-origin POST; apps do not.
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("unreadable"));
        let is_forwarded =
            ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
        Self { token, origin, is_forwarded }
    }
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("has_token", &self.token.is_some())
            .field("origin", &self.origin)
            .field("is_forwarded", &self.is_forwarded)
            .finish()
    }
}

impl Principal {
    /// The owner of an account who has shown this token.
    pub fn new(account: impl Into<String>, token: &str) -> Self {
        Self { account: account.into(), token: Some(hash(token)), device: None }
    }

    /// Whether it was told by a token who this is.
    pub fn is_known(&self) -> bool {
        self.token.is_some()
    }
}

/// [`Authenticator::authenticate`] within its time.
pub(crate) async fn authenticate(
    authenticator: Arc<dyn Authenticator>,
    credentials: Credentials<'_>,
) -> Result<Principal, AuthError> {
    let is_open = catch_unwind(AssertUnwindSafe(|| authenticator.is_open())).unwrap_or(true);
    if is_open && credentials.origin.is_some() {
        return Err(AuthError::WebPage);
    }
    if is_open && credentials.is_forwarded {
        return Err(AuthError::Forwarded);
    }
    let found = async { authenticator.authenticate(credentials).await };
    answered("authenticator", found).await.unwrap_or(Err(AuthError::Unavailable))
}

/// The answer of what the program brings, within its time; `None` if it panics, or takes too long.
pub(crate) async fn answered<T>(whom: &str, answer: impl Future<Output = T>) -> Option<T> {
    match timeout(limits::AUTHENTICATE_TIMEOUT, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(_)) => {
            tracing::error!("the {whom} panicked");
            None
        }
        Err(_) => {
            tracing::warn!("the {whom} did not answer in time");
            None
        }
    }
}

/// [`Authenticator::register`] within its time.
pub(crate) async fn register(
    authenticator: Arc<dyn Authenticator>,
    device: &Registration,
) -> Result<String, RegisterError> {
    let registered = async { authenticator.register(device).await };
    answered("authenticator", registered).await.unwrap_or(Err(RegisterError::Unavailable))
}

/// [`Authenticator::sign_in_methods`]; none, if that panics.
pub(crate) fn sign_in_methods(authenticator: &dyn Authenticator) -> SignInMethods {
    catch_unwind(AssertUnwindSafe(|| authenticator.sign_in_methods())).unwrap_or_default()
}

/// [`Authenticator::own_account`] within its time.
pub(crate) async fn own_account(
    authenticator: Arc<dyn Authenticator>,
    who: &Principal,
    request: AccountRequest,
) -> Result<AccountAnswer, AccountError> {
    let done = async { authenticator.own_account(who, request).await };
    answered("authenticator", done).await.unwrap_or(Err(AccountError::Unavailable))
}

/// [`Authenticator::sign_out`] within its time.
pub(crate) async fn sign_out(
    authenticator: Arc<dyn Authenticator>,
    who: &Principal,
) -> Result<(), RegisterError> {
    let done = async { authenticator.sign_out(who).await };
    answered("authenticator", done).await.unwrap_or(Err(RegisterError::Unavailable))
}

/// [`Authenticator::is_valid`] within its time.
pub(crate) async fn is_valid(authenticator: Arc<dyn Authenticator>, who: &Principal) -> bool {
    let valid = async { authenticator.is_valid(who).await };
    let valid = timeout(limits::AUTHENTICATE_TIMEOUT, AssertUnwindSafe(valid).catch_unwind()).await;
    valid.map_or(true, |valid| valid.unwrap_or(true))
}

impl Auth {
    /// Reads a file of lines `token -> account`. Empty lines and lines that begin with `#` are passed over; several
    /// tokens may name one account.
    ///
    /// # Errors
    /// [`TokensError`] names file and line, never a token.
    pub fn from_file(path: &Path) -> Result<Self, TokensError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TokensError::Unreadable { path: name.clone(), reason: e.to_string() })?;
        Self::parse(&text, &name)
    }

    fn parse(text: &str, path: &str) -> Result<Self, TokensError> {
        let mut tokens = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |reason| TokensError::BadLine { path: path.to_owned(), line: i + 1, reason };
            let (token, account) =
                line.split_once("->").ok_or_else(|| bad("it is not `token -> account`"))?;
            let (token, account) = (token.trim(), account.trim());
            if token.is_empty() || account.is_empty() {
                return Err(bad("the token or the account is empty"));
            }
            if token.len() > limits::TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(bad("a token is visible ASCII without spaces"));
            }
            if tokens.insert(hash(token), account.to_owned()).is_some() {
                return Err(bad("the token stands in the file twice"));
            }
        }
        if tokens.is_empty() {
            Err(TokensError::Empty { path: path.to_owned() })
        } else {
            Ok(Self::Tokens(tokens))
        }
    }

    fn find(&self, credentials: Credentials<'_>) -> Result<Principal, AuthError> {
        let Self::Tokens(tokens) = self else {
            return Ok(Principal { account: LOCAL_ACCOUNT.to_owned(), token: None, device: None });
        };
        let token = hash(credentials.token.ok_or(AuthError::Missing)?);
        let account = tokens.get(&token).cloned().ok_or(AuthError::Invalid)?;
        Ok(Principal { account, token: Some(token), device: None })
    }

    fn knows(&self, who: &Principal) -> bool {
        match (self, &who.token) {
            (Auth::Local, None) => true,
            (Auth::Tokens(tokens), Some(token)) => tokens.get(token) == Some(&who.account),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("Local"),
            Self::Tokens(tokens) => f.debug_tuple("Tokens").field(&tokens.len()).finish(),
        }
    }
}

impl Authenticator for Auth {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        ready(self.find(credentials)).boxed()
    }

    fn is_valid<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, bool> {
        ready(self.knows(who)).boxed()
    }

    fn is_open(&self) -> bool {
        matches!(self, Auth::Local)
    }
}

fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(auth: &Auth, headers: &HeaderMap) -> Result<String, AuthError> {
        let found = authenticate(Arc::new(auth.clone()), Credentials::of(headers));
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(found)
            .map(|who| who.account)
    }

    fn account(auth: &Auth, value: &str) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        identify(auth, &headers)
    }

    #[test]
    fn tokens_name_accounts() {
        let auth = Auth::parse("# people\n\nabc -> keola\n def->keola\nghi -> ʻiolani\n", "t").unwrap();
        assert_eq!(account(&auth, "Bearer abc"), Ok("keola".into()));
        assert_eq!(account(&auth, "bearer  def"), Ok("keola".into()));
        assert_eq!(account(&auth, "Bearer ghi"), Ok("ʻiolani".into()));
        assert_eq!(account(&auth, "Bearer abcd"), Err(AuthError::Invalid));
        assert_eq!(account(&auth, "Basic abc"), Err(AuthError::Missing));
        assert_eq!(identify(&auth, &HeaderMap::new()), Err(AuthError::Missing));
        assert_eq!(identify(&Auth::Local, &HeaderMap::new()), Ok("local".into()));
        let page = HeaderMap::from_iter([(ORIGIN, "https://example.org".parse().unwrap())]);
        assert_eq!(identify(&Auth::Local, &page), Err(AuthError::WebPage));
    }

    #[test]
    fn bad_files_name_the_line_and_keep_the_secret() {
        for (text, expected) in [
            ("abc keola", "t, line 1: it is not `token -> account`"),
            ("ok -> a\nsecret ->", "t, line 2: the token or the account is empty"),
            ("se cret -> a", "t, line 1: a token is visible ASCII without spaces"),
            ("secret -> a\nsecret -> b", "t, line 2: the token stands in the file twice"),
            ("# nothing", "t holds no tokens; write lines of the form `token -> account`"),
        ] {
            let message = Auth::parse(text, "t").err().unwrap().to_string();
            assert_eq!(message, expected);
            assert!(!message.contains("secret"));
        }
    }
}
