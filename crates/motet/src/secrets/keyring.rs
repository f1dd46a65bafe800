//! The keyring of the operating system.

use std::sync::mpsc;

use super::{SecretError, SecretStore};
use crate::limits;

/// The keyring of the operating system, with the feature `keyring`: Keychain on macOS and iOS, Credential Manager on Windows, the Secret Service
/// (GNOME Keyring, KWallet) elsewhere. Without the feature, and where there is none, each call says [`SecretError::Missing`].
#[derive(Clone, Debug)]
pub struct SystemKeyring {
    service: String,
}

impl SystemKeyring {
    /// The entries of an app. `service` is the name that they are listed under, and tells them from those of other apps.
    pub fn new(service: &str) -> Self {
        Self { service: service.to_owned() }
    }

    /// Asks on a thread of its own, which is left behind if no answer comes in time.
    fn ask<T: Send + 'static>(
        &self,
        name: &str,
        question: impl FnOnce(&str, &str) -> Result<T, SecretError> + Send + 'static,
    ) -> Result<T, SecretError> {
        let (answer, answered) = mpsc::channel();
        let (service, name) = (self.service.clone(), name.to_owned());
        std::thread::spawn(move || answer.send(question(&service, &name)));
        let timeout = limits::KEYRING_TIMEOUT;
        answered.recv_timeout(timeout).unwrap_or(Err(SecretError::Timeout { seconds: timeout.as_secs() }))
    }
}

impl SecretStore for SystemKeyring {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        self.ask(name, backend::get)
    }

    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        let secret = secret.to_owned();
        self.ask(name, move |service, name| backend::set(service, name, &secret))
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        self.ask(name, backend::remove)
    }
}

#[cfg(feature = "keyring")]
mod backend {
    use keyring::{Entry, Error};

    use super::SecretError;

    pub(super) fn get(service: &str, name: &str) -> Result<Option<String>, SecretError> {
        match entry(service, name)?.get_password() {
            Err(Error::NoEntry) => Ok(None),
            found => found.map(Some).map_err(failed),
        }
    }

    pub(super) fn set(service: &str, name: &str, secret: &str) -> Result<(), SecretError> {
        entry(service, name)?.set_password(secret).map_err(failed)
    }

    pub(super) fn remove(service: &str, name: &str) -> Result<(), SecretError> {
        match entry(service, name)?.delete_credential() {
            Err(Error::NoEntry) => Ok(()),
            removed => removed.map_err(failed),
        }
    }

    fn entry(service: &str, name: &str) -> Result<Entry, SecretError> {
        Entry::new(service, name).map_err(failed)
    }

    fn failed(error: Error) -> SecretError {
        match error {
            Error::NoDefaultStore => SecretError::Missing,
            error => SecretError::Keyring(error.into()),
        }
    }
}

#[cfg(not(feature = "keyring"))]
mod backend {
    use super::SecretError;

    pub(super) fn get(_: &str, _: &str) -> Result<Option<String>, SecretError> {
        Err(SecretError::Missing)
    }

    pub(super) fn set(_: &str, _: &str, _: &str) -> Result<(), SecretError> {
        Err(SecretError::Missing)
    }

    pub(super) fn remove(_: &str, _: &str) -> Result<(), SecretError> {
        Err(SecretError::Missing)
    }
}

#[cfg(all(test, not(feature = "keyring")))]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_every_call_says_so() {
        let keyring = SystemKeyring::new("motet-tests");
        for error in [
            keyring.get("token").unwrap_err(),
            keyring.set("token", "x").unwrap_err(),
            keyring.remove("token").unwrap_err(),
        ] {
            assert!(matches!(error, SecretError::Missing), "{error}");
            assert_eq!((error.code(), error.is_retryable()), ("secret-no-keyring", false));
        }
    }
}
