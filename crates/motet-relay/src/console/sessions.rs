//! Sessions of the console. They are kept in memory: a restart of the relay ends all of them, a backup contains none, and to view a page writes nothing
//! to disk.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::Principal;
use crate::directory::ConsoleHolder;
use crate::limits;

/// Context of the key derivation that makes the token of forms from the secret of a session. The secret cannot be computed from the token.
const FORM_TOKEN: &str = "motet-relay 2026-11 token of a form of the console";

/// All sessions, by hash of the secret in the cookie.
pub(super) struct Sessions {
    open: Mutex<HashMap<[u8; 32], Open>>,
    lifetime: Duration,
}

struct Open {
    holder: ConsoleHolder,
    began: Instant,
}

/// The session that a request belongs to.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) holder: ConsoleHolder,
    /// Hash of the secret.
    pub(super) hash: [u8; 32],
    /// Contained in each form of the session.
    pub(super) token: String,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { open: Mutex::default(), lifetime }
    }

    /// How long a session lasts.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Begins a session, and returns the secret for the cookie; `None` if the system has no randomness.
    pub(super) fn begin(&self, holder: ConsoleHolder) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let secret = URL_SAFE_NO_PAD.encode(random);
        let mut open = self.lock();
        self.make_room(&mut open, &holder);
        open.insert(hash(&secret), Open { holder, began: Instant::now() });
        Some(secret)
    }

    /// The session of a secret, if it has not expired.
    pub(super) fn find(&self, secret: &str) -> Option<Signed> {
        let hash = hash(secret);
        let open = self.lock();
        let found = open.get(&hash).filter(|open| open.began.elapsed() < self.lifetime)?;
        let token = URL_SAFE_NO_PAD.encode(blake3::derive_key(FORM_TOKEN, secret.as_bytes()));
        Some(Signed { holder: found.holder.clone(), hash, token })
    }

    /// Ends a session.
    pub(super) fn end(&self, hash: &[u8; 32]) {
        self.lock().remove(hash);
    }

    /// Removes sessions that have expired, and the oldest ones where a limit is reached.
    fn make_room(&self, open: &mut HashMap<[u8; 32], Open>, holder: &ConsoleHolder) {
        open.retain(|_, open| open.began.elapsed() < self.lifetime);
        let is_own = |other: &ConsoleHolder| account(other) == account(holder);
        while open.values().filter(|open| is_own(&open.holder)).count() >= limits::CONSOLE_SESSIONS_PER_HOLDER
        {
            drop_oldest(open, |open| is_own(&open.holder));
        }
        if open.len() >= limits::CONSOLE_SESSIONS {
            drop_oldest(open, |_| true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signed {
    /// Whether a form belongs to this session. Hashes are compared, so the time does not depend on how much of a guess is right.
    pub(super) fn has_token(&self, token: &str) -> bool {
        blake3::hash(token.as_bytes()) == blake3::hash(self.token.as_bytes())
    }

    /// The principal for the functions that serve devices.
    pub(super) fn principal(&self, account: &str) -> Principal {
        Principal { account: account.to_owned(), token: Some(self.hash), device: None }
    }
}

fn account(holder: &ConsoleHolder) -> Option<&str> {
    match holder {
        ConsoleHolder::Operator => None,
        ConsoleHolder::Account { name, .. } => Some(name),
    }
}

fn drop_oldest(open: &mut HashMap<[u8; 32], Open>, is_meant: impl Fn(&Open) -> bool) {
    let meant = open.iter().filter(|(_, open)| is_meant(open));
    if let Some(oldest) = meant.min_by_key(|(_, open)| open.began).map(|(hash, _)| *hash) {
        open.remove(&oldest);
    }
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_and_are_bounded() {
        let sessions = Sessions::new(limits::CONSOLE_SESSION_LIFETIME);
        let first = sessions.begin(ConsoleHolder::Operator).unwrap();
        let signed = sessions.find(&first).unwrap();
        assert!(signed.has_token(&signed.token) && !signed.has_token("") && !signed.has_token(&first));
        for _ in 0..limits::CONSOLE_SESSIONS_PER_HOLDER {
            sessions.begin(ConsoleHolder::Operator).unwrap();
        }
        assert!(sessions.find(&first).is_none(), "the oldest has gone");
        assert_eq!(sessions.lock().len(), limits::CONSOLE_SESSIONS_PER_HOLDER);
        let last = sessions.begin(ConsoleHolder::Operator).unwrap();
        sessions.end(&sessions.find(&last).unwrap().hash);
        assert!(sessions.find(&last).is_none());
        let short = Sessions::new(Duration::ZERO);
        let over = short.begin(ConsoleHolder::Operator).unwrap();
        assert!(short.find(&over).is_none());
    }
}
