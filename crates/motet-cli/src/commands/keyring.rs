//! The keyring of the operating system, where this build uses it (feature `keyring`) and there is one: Keychain on macOS, Credential
//! Manager on Windows, the Secret Service (GNOME Keyring, KWallet) elsewhere.

use std::sync::mpsc;
use std::time::Duration;

/// What entries are listed under in the keyring.
#[cfg(feature = "keyring")]
const SERVICE: &str = "motet";

/// How long a keyring may take to answer. It may ask a person to unlock it first.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why the keyring has not done what was asked of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyringError {
    #[error("there is no keyring of the system here, or this build of motet does not use it")]
    Missing,
    #[error("the keyring of the system did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[cfg(feature = "keyring")]
    #[error("the keyring of the system: {0}")]
    Failed(#[from] ::keyring::Error),
}

/// What is kept for an account.
pub(super) fn get(account: &str) -> Result<Option<String>, KeyringError> {
    ask(account, backend::get)
}

/// Keeps a secret for an account, in the place of what was kept.
pub(super) fn set(account: &str, secret: &str) -> Result<(), KeyringError> {
    let secret = secret.to_owned();
    ask(account, move |account| backend::set(account, &secret))
}

/// Removes what is kept for an account, if anything is.
pub(super) fn remove(account: &str) -> Result<(), KeyringError> {
    ask(account, backend::remove)
}

/// Asks on a thread of its own, which is left behind if no answer comes in time.
fn ask<T: Send + 'static>(
    account: &str,
    question: impl FnOnce(&str) -> Result<T, KeyringError> + Send + 'static,
) -> Result<T, KeyringError> {
    let (answer, answered) = mpsc::channel();
    let account = account.to_owned();
    std::thread::spawn(move || answer.send(question(&account)));
    match answered.recv_timeout(TIMEOUT) {
        Ok(answer) => answer,
        Err(_) => Err(KeyringError::Timeout),
    }
}

#[cfg(feature = "keyring")]
mod backend {
    use keyring::{Entry, Error};

    use super::{KeyringError, SERVICE};

    pub(super) fn get(account: &str) -> Result<Option<String>, KeyringError> {
        match entry(account)?.get_password() {
            Err(Error::NoEntry) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    pub(super) fn set(account: &str, secret: &str) -> Result<(), KeyringError> {
        Ok(entry(account)?.set_password(secret)?)
    }

    pub(super) fn remove(account: &str) -> Result<(), KeyringError> {
        match entry(account)?.delete_credential() {
            Err(Error::NoEntry) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn entry(account: &str) -> Result<Entry, KeyringError> {
        Entry::new(SERVICE, account).map_err(|error| match error {
            Error::NoDefaultStore => KeyringError::Missing,
            error => error.into(),
        })
    }
}

#[cfg(not(feature = "keyring"))]
mod backend {
    use super::KeyringError;

    pub(super) fn get(_: &str) -> Result<Option<String>, KeyringError> {
        Err(KeyringError::Missing)
    }

    pub(super) fn set(_: &str, _: &str) -> Result<(), KeyringError> {
        Err(KeyringError::Missing)
    }

    pub(super) fn remove(_: &str) -> Result<(), KeyringError> {
        Err(KeyringError::Missing)
    }
}
