//! The token that a relay is shown. An app may give it by a function of its own, which may hang, panic, or give what is none.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connection::offline;
use super::{TokenProvider, TokenRequest};
use crate::error::SyncError;
use crate::limits;

/// Where the token comes from.
#[derive(Clone)]
pub(super) enum Token {
    Fixed(String),
    Provider(TokenProvider),
}

/// Asks for tokens.
#[derive(Clone)]
pub(super) struct Tokens {
    token: Option<Token>,
    /// Calls of the provider that have not returned.
    under_way: Arc<AtomicUsize>,
}

/// What is wrong with a token, if anything: it travels in a header.
pub(super) fn fault(token: &str) -> Option<String> {
    if token.is_empty() {
        return Some("it is empty".into());
    }
    let other = token.char_indices().find(|(_, c)| !c.is_ascii_graphic());
    other.map(|(at, c)| {
        format!("it holds {c:?} after {at} bytes, and only visible ASCII characters can be sent")
    })
}

impl Tokens {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self { token, under_way: Arc::default() }
    }

    /// The token to show, if there is one.
    pub(super) async fn get(&self, request: TokenRequest) -> Result<Option<String>, SyncError> {
        match &self.token {
            None => Ok(None),
            Some(Token::Fixed(token)) => Ok(Some(token.clone())),
            Some(Token::Provider(provider)) => {
                let given = self.ask(provider.clone(), request).await?;
                let token = given.trim();
                match fault(token) {
                    None => Ok(Some(token.to_owned())),
                    Some(fault) => {
                        let reason = format!("the token that the app gave cannot be used: {fault}");
                        Err(SyncError::AuthNeeded { reason })
                    }
                }
            }
        }
    }

    /// Asks the provider on a thread of its own: it may block, for good, and the sync task goes on.
    async fn ask(&self, provider: TokenProvider, request: TokenRequest) -> Result<String, SyncError> {
        let seconds = limits::TOKEN_TIMEOUT.as_secs();
        if self.under_way.load(Ordering::Relaxed) >= limits::TOKEN_CALLS {
            let calls = limits::TOKEN_CALLS;
            return Err(offline(&format!("the app's token provider has not returned from {calls} calls")));
        }
        let call = Call::begin(&self.under_way);
        let (reply, answer) = oneshot::channel();
        let runtime = Handle::current();
        let ask = move || {
            let _call = call;
            let given = async { tokio::time::timeout(limits::TOKEN_TIMEOUT, provider(request)).await };
            _ = reply.send(catch_unwind(AssertUnwindSafe(|| runtime.block_on(given))));
        };
        let thread = std::thread::Builder::new().name("motet-token".into()).spawn(ask);
        thread.map_err(|e| offline(&format!("the app's token provider cannot be asked: {e}")))?;
        match tokio::time::timeout(limits::TOKEN_TIMEOUT, answer).await {
            Ok(Ok(Ok(Ok(given)))) => given.map_err(|reason| SyncError::AuthNeeded { reason }),
            Ok(Ok(Err(panic))) => {
                let reason = format!("the app's token provider panicked: {}", panic_message(&*panic));
                Err(SyncError::AuthNeeded { reason })
            }
            Err(_) | Ok(Err(_) | Ok(Ok(Err(_)))) => {
                Err(offline(&format!("the app's token provider did not answer within {seconds} s")))
            }
        }
    }
}

/// A call of the provider, until it returns.
struct Call(Arc<AtomicUsize>);

impl Call {
    fn begin(under_way: &Arc<AtomicUsize>) -> Self {
        under_way.fetch_add(1, Ordering::Relaxed);
        Self(under_way.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}
