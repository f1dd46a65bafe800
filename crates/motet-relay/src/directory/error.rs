//! Why something is not done with the accounts.

use std::path::PathBuf;

use super::{FORMAT, SqlError};

/// Why something is not done with the accounts. What was there stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The file, or the database, cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file; or which database it is.
        path: PathBuf,
        /// What SQLite, or the database, says.
        source: SqlError,
    },
    /// The file has nothing in it.
    #[error("{} is empty: restore it from a backup, or remove it if there were no accounts", .0.display())]
    Empty(PathBuf),
    /// The file is one of another program.
    #[error("{} is no file of accounts of a relay", .0.display())]
    Foreign(PathBuf),
    /// A later version has written the file.
    #[error("{} has format {found}, and this version knows {FORMAT}: update the relay", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// There are no accounts in this folder.
    #[error("{} has no accounts: begin with `motet-relay account add NAME`", .0.display())]
    NoAccounts(PathBuf),
    /// The relay of the folder has moved into a database.
    #[error("the relay of {} has moved into {place}: give --store", folder.display())]
    Moved {
        /// The folder.
        folder: PathBuf,
        /// Which database.
        place: String,
    },
    /// Others are there already, among which nothing is copied.
    #[error("{} has accounts already: copy into an empty database", .0.display())]
    NotEmpty(PathBuf),
    /// What is no name of an account, or of a device.
    #[error("{0:?} is no name: it has 1 to 64 characters, all of them visible, and no blank at either end")]
    BadName(String),
    /// There is an account of this name, or of one that looks the same.
    #[error("there is an account {0:?} already, and the name is the same or looks the same")]
    AccountExists(String),
    /// Devices are signed in to the account that is to be removed.
    #[error("{devices} device(s) are signed in to {name:?}: --sign-out removes it all the same")]
    InUse {
        /// The account.
        name: String,
        /// How many.
        devices: u64,
    },
    /// Logs of an account of this name that was erased still leave.
    #[error("an account {0:?} is just being erased: try again in a minute, with the relay running")]
    Erasing(String),
    /// Nobody has asked for the account to be erased.
    #[error("nobody has asked for {0:?} to be erased")]
    NotErased(String),
    /// There is no account of this name.
    #[error("there is no account {0:?}")]
    NoAccount(String),
    /// There is no such key.
    #[error("no sign-in key is called {0:?}; `key list` has their ids")]
    NoKey(String),
    /// There is no such space.
    #[error("no shared space is called {0:?}; `space list` has their names and ids")]
    NoSpace(String),
    /// The account shares a space of this name already.
    #[error("the account shares a space {0:?} already")]
    SpaceExists(String),
    /// The account is no member of the space.
    #[error("{0:?} is no member of it")]
    NoMember(String),
    /// The account owns the space.
    #[error("{0:?} owns it: members read, or write as well")]
    IsOwner(String),
    /// Several begin like that, or are called so.
    #[error("{0:?} means more than one: give more of the id, or the account")]
    Ambiguous(String),
    /// The identity is another account's.
    #[error("it is linked to the account {0:?}: unlink it there first")]
    IdentityLinked(String),
    /// There is no such identity.
    #[error("no account has the identity {0:?}; `identity list` has them")]
    NoIdentity(String),
    /// The code is of no use: it is unknown, has expired, was used, or its space is gone.
    #[error("the code is not valid any more, or never was")]
    NoInvite,
    /// There is no room for another invitation.
    #[error("the space has too many invitations that are good: revoke them, or wait until they expire")]
    TooManyInvites,
    /// There is no room for another member.
    #[error("the space has as many members as one can have")]
    TooManyMembers,
    /// There is no room for another space.
    #[error("the account has as many shared spaces as one can have")]
    TooManySpaces,
    /// There is no such device, or it is signed out.
    #[error("no device that is signed in has an id that begins with {0:?}; `device list` has them")]
    NoDevice(String),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl DirectoryError {
    /// Stable code for logs and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "accounts-file",
            Self::Empty(_) => "accounts-empty",
            Self::Foreign(_) => "accounts-foreign",
            Self::Newer { .. } => "accounts-newer",
            Self::Moved { .. } => "accounts-moved",
            Self::NotEmpty(_) => "accounts-not-empty",
            Self::NoAccounts(_) => "accounts-none",
            Self::BadName(_) => "accounts-bad-name",
            Self::AccountExists(_) => "accounts-exists",
            Self::InUse { .. } => "accounts-in-use",
            Self::Erasing(_) => "accounts-erasing",
            Self::NotErased(_) => "accounts-not-erased",
            Self::NoAccount(_) => "accounts-no-account",
            Self::NoKey(_) => "accounts-no-key",
            Self::NoSpace(_) => "accounts-no-space",
            Self::SpaceExists(_) => "accounts-space-exists",
            Self::NoMember(_) => "accounts-no-member",
            Self::IsOwner(_) => "accounts-is-owner",
            Self::Ambiguous(_) => "accounts-ambiguous",
            Self::IdentityLinked(_) => "accounts-identity-linked",
            Self::NoIdentity(_) => "accounts-no-identity",
            Self::NoInvite => "accounts-no-invite",
            Self::TooManyInvites => "accounts-too-many-invites",
            Self::TooManyMembers => "accounts-too-many-members",
            Self::TooManySpaces => "accounts-too-many-spaces",
            Self::NoDevice(_) => "accounts-no-device",
            Self::Random(_) => "accounts-random",
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::File { source, .. } => source.is_retryable(),
            Self::Erasing(_) => true,
            _ => false,
        }
    }
}
