//! What can go wrong, as an exit code and a sentence.

use motet::secrets::SecretError;
use motet::{
    AccountError, OpenError, ReadError, Refusal, SchemaError, SignInError, SpaceError, StorageError,
    SyncError, WriteError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("there is no {0}/{1}")]
    NotFound(String, String),
    #[error("there is no collection {name:?}{}", did_you_mean(near.as_deref()))]
    NoCollection {
        name: String,
        /// The one that was probably meant.
        near: Option<String>,
    },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error("no space that is shared with this account is called {0:?}; motet spaces has them")]
    NoSpace(String),
    #[error("no device of this account has an id that begins with {0:?}; motet device list has them")]
    NoDevice(String),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Some rows were refused; what became of all is printed already.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

impl CliError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Sync(SyncError::Offline { .. })
            | CliError::Space(SpaceError::Relay(SyncError::Offline { .. }))
            | CliError::SignIn(SignInError::Relay(SyncError::Offline { .. })) => 3,
            CliError::Sync(SyncError::AuthNeeded { .. } | SyncError::OtherAccount { .. })
            | CliError::Space(SpaceError::Relay(SyncError::AuthNeeded { .. }))
            | CliError::SignIn(SignInError::KeyRefused { .. } | SignInError::OtherAccount { .. }) => 4,
            CliError::NotFound(..)
            | CliError::NoCollection { .. }
            | CliError::NoSpace(_)
            | CliError::NoDevice(_)
            | CliError::Space(SpaceError::NotThere { .. })
            | CliError::Write(WriteError::NotFound { .. } | WriteError::NoRestorePoint { .. }) => 5,
            _ => 1,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::NotFound(..) => "not-found",
            CliError::NoCollection { .. } => "no-collection",
            CliError::Open(error) => error.code(),
            CliError::Read(error) => error.code(),
            CliError::Write(error) => error.code(),
            CliError::Sync(error) => error.code(),
            CliError::Account(error) => error.code(),
            CliError::Secret(error) => error.code(),
            CliError::SignIn(error) => error.code(),
            CliError::Space(error) => error.code(),
            CliError::NoSpace(_) => "no-space",
            CliError::NoDevice(_) => "no-device",
            CliError::Schema(error) => error.code(),
            CliError::Refused(_) => "refused",
            CliError::Other(_) => "other",
        }
    }

    /// The rows because of which nothing was taken up.
    pub(crate) fn refusals(&self) -> &[Refusal] {
        match self {
            CliError::Write(WriteError::Refused { refusals, .. }) => refusals,
            _ => &[],
        }
    }

    /// What the person can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            CliError::Sync(SyncError::Offline { .. } | SyncError::Timeout { .. }) => {
                Some("everything you wrote is saved here and will be sent with the next sync")
            }
            CliError::Sync(SyncError::AuthNeeded { .. })
            | CliError::Space(SpaceError::Relay(SyncError::AuthNeeded { .. })) => Some(
                "sign in with: motet login --key-file FILE; or give a good token with: motet init --device NAME --relay URL --token-file FILE",
            ),
            CliError::SignIn(SignInError::KeyRefused { .. }) => Some(
                "ask whoever runs the relay: for another key with motet-relay key create --account NAME, or to link who you are elsewhere with motet-relay identity link",
            ),
            CliError::SignIn(SignInError::Relay(SyncError::Offline { .. })) => {
                Some("the sign-in key is still good; try again when the relay can be reached")
            }
            CliError::Sync(SyncError::Forbidden { .. }) => Some(
                "what you wrote is saved here; whoever owns the space decides, and motet spaces shows what you may do; if you may still read it, motet clear-local --unsent gives up what was not sent",
            ),
            CliError::Sync(SyncError::OtherAccount { .. })
            | CliError::SignIn(SignInError::OtherAccount { .. }) => Some(
                "a new database: --db FILE; to sign out: motet sign-out --wipe; to move what is here: motet sign-out --release",
            ),
            CliError::Account(AccountError::Forbidden { .. }) => Some(
                "motet spaces shows what you may do; if you may still read it, motet clear-local --unsent gives up what was not sent",
            ),
            CliError::Account(AccountError::Unsent { .. }) => Some(
                "send it with: motet sync; or give it up with: motet clear-local --unsent, or, with everything else that is here: motet sign-out --wipe --unsent",
            ),
            CliError::Sync(SyncError::NoRelay { .. }) => Some(
                "everything you wrote is saved here; name the relay with: motet init --device NAME --relay URL",
            ),
            CliError::Open(OpenError::Storage(StorageError::Damaged(_)))
            | CliError::Read(ReadError::Storage(StorageError::Damaged(_)))
            | CliError::Write(WriteError::Storage(StorageError::Damaged(_)))
            | CliError::Sync(SyncError::Storage(StorageError::Damaged(_))) => Some(
                "put it right with: motet repair; where that says the same, move the file away: a new one gets from the relay what was sent",
            ),
            CliError::NoCollection { .. } => Some("show those that there are with: motet collections"),
            CliError::Read(ReadError::Storage(StorageError::Query(reason)))
                if reason.contains("no such table") =>
            {
                Some("each collection is a view: collection_NAME; show the names with: motet collections")
            }
            CliError::Sync(SyncError::NotConnected) => {
                Some("name one with: motet init --device NAME --relay URL")
            }
            _ => None,
        }
    }
}

pub(crate) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// An input or output error with the file it is about.
pub(crate) fn file_error(path: &std::path::Path, error: &std::io::Error) -> CliError {
    CliError::Other(format!("{}: {error}", path.display()))
}
