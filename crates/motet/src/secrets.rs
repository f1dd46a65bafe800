//! Where an app keeps secrets on a device: never in the database, which queries and backups hand out.

#[cfg(feature = "relay")]
mod device;
mod files;
mod keyring;

#[cfg(feature = "relay")]
pub(crate) use self::device::DeviceSecret;
pub use self::files::SecretFiles;
pub use self::keyring::SystemKeyring;

use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::Relay;

/// A place for secrets: the [keyring of the system](SystemKeyring), [files](SecretFiles), or what an app has of its own. Calls may block, for
/// a person who is asked to unlock it; none of them shows a secret to anybody else.
pub trait SecretStore: Send + Sync + 'static {
    /// The secret that is kept under a name.
    ///
    /// # Errors
    /// [`SecretError`] if the place cannot be read.
    fn get(&self, name: &str) -> Result<Option<String>, SecretError>;

    /// Keeps a secret under a name, in the place of what was kept under it.
    ///
    /// # Errors
    /// [`SecretError`] if it cannot be written. What was kept may be gone then.
    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError>;

    /// Removes what is kept under a name, if anything is.
    ///
    /// # Errors
    /// [`SecretError`] if it cannot be removed, and is still there.
    fn remove(&self, name: &str) -> Result<(), SecretError>;
}

/// Why a secret was not read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no keyring, or this build does not use it (feature `keyring`).
    #[error("there is no keyring of the system here, or this build does not use it")]
    Missing,
    /// The keyring waits for somebody to unlock it, or hangs.
    #[error("the keyring of the system did not answer within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// The keyring has refused.
    #[error("the keyring of the system: {0}")]
    Keyring(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A name that cannot be part of the name of a file.
    #[error(
        "{0:?} is no name for a secret: it has 1 to 64 letters from a to z, digits, dots and hyphens, and begins with a letter"
    )]
    BadName(String),
    /// A secret that is longer than any is: what is there, or was to be kept, is something else.
    #[error("{name:?} has more than {max} bytes, and a secret has fewer", max = crate::limits::SECRET_BYTES)]
    TooLong {
        /// Of the secret.
        name: String,
    },
    /// A store of the app.
    #[error("{0}")]
    App(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SecretError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            SecretError::Missing => "secret-no-keyring",
            SecretError::Timeout { .. } => "secret-timeout",
            SecretError::Keyring(_) => "secret-keyring",
            SecretError::File { .. } => "secret-file",
            SecretError::BadName(_) => "secret-bad-name",
            SecretError::TooLong { .. } => "secret-too-long",
            SecretError::App(_) => "secret-app",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, SecretError::Timeout { .. } | SecretError::Keyring(_) | SecretError::File { .. })
    }
}

impl Relay {
    /// Signs in with the token that a store keeps under a name. It is read before every connection, so a new one counts from the next on. Where
    /// there is none, or it cannot be read, the status says [`AuthNeeded`](crate::SyncError::AuthNeeded) with the reason.
    ///
    /// ```
    /// # use motet::{Relay, secrets::{SecretError, SecretFiles, SecretStore, SystemKeyring}};
    /// # fn signed_in(database: &std::path::Path, token: &str) -> Result<Relay, SecretError> {
    /// let keyring = SystemKeyring::new("org.example.songs");
    /// let relay = Relay::new("https://relay.example.org");
    /// Ok(match keyring.set("token", token) {
    ///     Ok(()) => relay.token_in(keyring, "token"),
    ///     Err(SecretError::Missing) => {
    ///         let files = SecretFiles::beside(database);
    ///         files.set("token", token)?;
    ///         relay.token_in(files, "token")
    ///     }
    ///     Err(error) => return Err(error),
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn token_in(self, store: impl SecretStore, name: &str) -> Self {
        let (store, name) = (Arc::new(store), name.to_owned());
        self.token_provider(move |_| {
            // It may block: a provider runs on a thread of its own.
            let token = match store.get(&name) {
                Ok(Some(token)) => Ok(token),
                Ok(None) => Err("no token is kept on this device".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            std::future::ready(token)
        })
    }
}
