//! One error per kind of call. Each has a stable code, says whether trying again can help, and reads as a sentence
//! for a person.

use std::fmt;
use std::time::Duration;

use motet_proto::{AccountId, SpaceId};

use crate::schema::{Rule, SchemaError};
use crate::store::StorageError;
use crate::types::PolicyError;
use crate::types::Refusal;

/// Why a replica could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The operating system gave no randomness, no thread or no runtime.
    #[error("the system refused: {0}")]
    System(String),
    /// The device name is empty, longer than [`DEVICE_NAME_BYTES`](motet_proto::limits::DEVICE_NAME_BYTES), or has control characters.
    #[error("the device name {0:?} is empty, too long, or has control characters")]
    DeviceName(String),
    /// The file holds another space than the one that was asked for. It is left as it is.
    #[error("the file holds the space {found}, not {wanted}")]
    OtherSpace {
        /// The space of the file.
        found: SpaceId,
        /// The space that was asked for.
        wanted: SpaceId,
    },
}

/// Why something could not be read from the replica.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The database file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The document does not have the shape that the app asked for.
    #[error("{collection}/{id} does not have the expected shape: {reason}")]
    Shape {
        /// Collection of the document.
        collection: String,
        /// Id of the document.
        id: String,
        /// What the deserializer said.
        reason: String,
    },
    /// There is no such change to go on from: it was made in another file, or in this one before it was replaced by an older copy.
    #[error("there is no change {number} in this file, the latest is {latest}: begin again with 0")]
    UnknownChange {
        /// The number that was asked for.
        number: u64,
        /// Number of the latest change.
        latest: u64,
    },
}

/// Why a write was refused. Nothing of it was kept, in memory or on disk.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The database file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no such document, or it is deleted.
    #[error("there is no {collection}/{id}")]
    NotFound {
        /// Collection of the document.
        collection: String,
        /// Id of the document.
        id: String,
    },
    /// There is such a document already, so it cannot be inserted.
    #[error("there is a {collection}/{id} already")]
    Exists {
        /// Collection of the document.
        collection: String,
        /// Id of the document.
        id: String,
    },
    /// A collection or document id is empty, too long, or holds a control character.
    #[error("{name:?} cannot be used as a name: it must have 1 to {max} bytes and no control characters", max = motet_proto::limits::NAME_BYTES)]
    BadName {
        /// The name.
        name: String,
    },
    /// The value is not an object, or holds something that a document cannot hold.
    #[error("the value cannot be stored: {reason}")]
    BadValue {
        /// The field that is to blame, if it is one.
        field: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// A field breaks a rule that the schema declares for it.
    #[error("{collection}: {field} {rule}")]
    Rule {
        /// Collection of the document.
        collection: String,
        /// The field.
        field: String,
        /// What is wrong with the value.
        rule: Rule,
    },
    /// The field has concurrent values and is declared as `ask`: somebody has to resolve them first.
    #[error("{field} has concurrent values; choose among them with resolve first")]
    Contested {
        /// The field.
        field: String,
    },
    /// The document was purged: its id cannot be used again.
    #[error("{collection}/{id} was removed for good; its id cannot be used again")]
    Purged {
        /// Collection of the document.
        collection: String,
        /// Its id.
        id: String,
    },
    /// There is no such conflict.
    #[error("there is no conflict to resolve at {path:?}; a path looks like \"/title\"")]
    NoConflict {
        /// The path given.
        path: String,
    },
    /// There is a conflict, and no such value in it.
    #[error(
        "no value of the conflict at {path:?} has the id {loser:?}; the conflicts of the document name theirs"
    )]
    NoLoser {
        /// The path given.
        path: String,
        /// The id given.
        loser: String,
    },
    /// There is no restore point of that name.
    #[error("there is no restore point {name:?}")]
    NoRestorePoint {
        /// The name given.
        name: String,
    },
    /// The schema contradicts itself.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The sync policy cannot be followed.
    #[error("the policy cannot be followed: {0}")]
    Policy(#[from] PolicyError),
    /// The edit is based on heads that this replica does not hold (yet).
    #[error("this device does not know version {heads}")]
    UnknownVersion {
        /// The unknown change.
        heads: String,
    },
    /// The edit would make a change that is too large to be sent.
    #[error("the change has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size of the change in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Rows cannot be taken up, and none was: all are bad, or one bad row is to refuse all
    /// ([`BadRows::RefuseAll`](crate::BadRows::RefuseAll)).
    #[error("nothing was taken up; refused: {count}; {}", first(refusals))]
    Refused {
        /// How many rows.
        count: u64,
        /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of them.
        refusals: Vec<Refusal>,
    },
    /// The bytes are no Automerge document that can be merged here: damaged, too large, or with values that a document cannot hold.
    #[error("this Automerge document cannot be taken: {reason}")]
    Automerge {
        /// What is wrong with it.
        reason: String,
    },
    /// An app's own reason, given inside [`Replica::transaction`](crate::Replica::transaction).
    #[error("{0}")]
    Rejected(String),
}

/// Why a sync round did not complete. Everything that was written stays on this device and stays pending.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The database file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was synced cannot be read as it was asked for.
    #[error(transparent)]
    Read(ReadError),
    /// No relay is configured.
    #[error("no relay is configured for this replica")]
    NotConnected,
    /// The relay cannot be reached.
    #[error("offline: {reason}")]
    Offline {
        /// What the network said.
        reason: String,
        /// For how long what answers there has asked to be left alone (`Retry-After`). The sync task waits so long, up to
        /// [`RETRY_AFTER_LONGEST`](crate::limits::RETRY_AFTER_LONGEST), if nobody asks for a round.
        retry_after: Option<Duration>,
    },
    /// The relay wants another token, or the app's token provider failed.
    #[error("sign-in needed: {reason}")]
    AuthNeeded {
        /// What the relay or the provider said.
        reason: String,
    },
    /// The token is for another account than the one whose documents are in this database. Nothing of either was given to the other.
    #[error(
        "this database belongs to another account ({bound}) than the one that was signed in ({found}): use a new database, \
         sign the first account out, or move its documents on purpose"
    )]
    OtherAccount {
        /// The account that the database is bound to.
        bound: AccountId,
        /// The account that the relay has let in.
        found: AccountId,
    },
    /// The app that this database belongs to seals what it sends, and this program does not: it would send it in plain, and reads nothing of what
    /// others have sealed. Nothing was sent.
    #[error(
        "this database belongs to an app that encrypts what it sends, and this program does not: sync with that app"
    )]
    NotSealed,
    /// The round took longer than its limit.
    #[error("the round did not finish within {seconds} s")]
    Timeout {
        /// The limit in seconds.
        seconds: u64,
    },
    /// This app and the relay have no protocol version in common.
    #[error("{reason}")]
    Version {
        /// Who must be updated.
        reason: String,
    },
    /// The relay takes nothing more from this account at present: its disk is full, or a limit of the account is reached. What the relay has can
    /// still be received, and what was written here is sent as soon as there is room.
    #[error("downloads go on, uploads wait: {reason}")]
    Full {
        /// What the relay said.
        reason: String,
    },
    /// The account may not write to this space, or not even read it: whoever owns it decides. What the relay has can still be received if
    /// it may be read. What was written here is kept, and sent when it may be.
    #[error("not allowed: {reason}")]
    Forbidden {
        /// What the relay said.
        reason: String,
    },
    /// The relay's file is damaged; whoever runs it has to repair it. What this device has is kept, and sent then.
    #[error("the relay's data is damaged: {reason}")]
    Damaged {
        /// What the relay said.
        reason: String,
    },
    /// The relay answered with an error, or broke the protocol.
    #[error("the relay failed: {reason}")]
    Relay {
        /// What the relay said.
        reason: String,
    },
    /// What answers at the relay's address is no relay: the address is wrong, or has moved.
    #[error("{reason}")]
    NoRelay {
        /// What answers there.
        reason: String,
    },
    /// The token cannot be sent: it is empty, or holds blanks, line ends or other letters than ASCII.
    #[error("the token cannot be used: {reason}")]
    BadToken {
        /// What is wrong with it; never the token itself.
        reason: String,
    },
    /// The sync task failed because of a fault of this library, or of what the app has it call. It begins anew by itself.
    #[error("syncing failed inside of the app: {reason}")]
    Internal {
        /// What the fault said.
        reason: String,
    },
    /// The relay's address is not a URL of the kind `http://`, `https://`, `ws://` or `wss://`.
    #[error("{url:?} is not the address of a relay: {reason}")]
    BadUrl {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a user could not be signed out, or the replica not be emptied. Nothing is removed then.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The database file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Some of what would go is nowhere else.
    #[error("{documents} {} only on this device; sync first", if *documents == 1 { "document is, or has changes that are," } else { "documents are, or have changes that are," })]
    Unsent {
        /// How many.
        documents: u64,
    },
    /// The relay has refused the last sync: this account may not read the space any more, or not write to it. What is here could perhaps not be had
    /// again.
    #[error("the relay has refused the last sync ({reason}): what is here could perhaps not be had again")]
    Forbidden {
        /// What the relay said.
        reason: String,
    },
}

impl OpenError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Storage(error) => error.code(),
            OpenError::System(_) => "open-system",
            OpenError::DeviceName(_) => "open-device-name",
            OpenError::OtherSpace { .. } => "open-other-space",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, OpenError::Storage(error) if error.is_retryable())
    }
}

impl ReadError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            ReadError::Storage(error) => error.code(),
            ReadError::Shape { .. } => "read-shape",
            ReadError::UnknownChange { .. } => "read-unknown-change",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ReadError::Storage(error) if error.is_retryable())
    }
}

impl WriteError {
    pub(crate) fn bad_value(reason: impl fmt::Display) -> Self {
        Self::BadValue { field: None, reason: reason.to_string() }
    }

    pub(crate) fn bad_field(field: &str, reason: impl fmt::Display) -> Self {
        Self::BadValue { field: Some(field.to_owned()), reason: reason.to_string() }
    }

    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            WriteError::Storage(error) => error.code(),
            WriteError::NotFound { .. } => "write-not-found",
            WriteError::Exists { .. } => "write-exists",
            WriteError::BadName { .. } => "write-bad-name",
            WriteError::BadValue { .. } => "write-bad-value",
            WriteError::Rule { .. } => "write-rule",
            WriteError::Contested { .. } => "write-contested",
            WriteError::Purged { .. } => "write-purged",
            WriteError::NoConflict { .. } => "write-no-conflict",
            WriteError::NoLoser { .. } => "write-no-loser",
            WriteError::NoRestorePoint { .. } => "write-no-restore-point",
            WriteError::Schema(error) => error.code(),
            WriteError::Policy(_) => "write-bad-policy",
            WriteError::UnknownVersion { .. } => "write-unknown-version",
            WriteError::TooLarge { .. } => "write-too-large",
            WriteError::Refused { .. } => "write-refused",
            WriteError::Automerge { .. } => "automerge-invalid",
            WriteError::Rejected(_) => "write-rejected",
        }
    }

    /// Whether the same call may succeed later. An unknown version may arrive with the next sync.
    pub fn is_retryable(&self) -> bool {
        match self {
            WriteError::Storage(error) => error.is_retryable(),
            WriteError::UnknownVersion { .. } => true,
            _ => false,
        }
    }
}

impl AccountError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            AccountError::Storage(error) => error.code(),
            AccountError::Unsent { .. } => "account-unsent",
            AccountError::Forbidden { .. } => "account-forbidden",
        }
    }

    /// Whether the same call may succeed later, without anybody giving something up.
    pub fn is_retryable(&self) -> bool {
        match self {
            AccountError::Storage(error) => error.is_retryable(),
            AccountError::Unsent { .. } | AccountError::Forbidden { .. } => true,
        }
    }
}

impl SyncError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            SyncError::Storage(error) => error.code(),
            SyncError::Read(error) => error.code(),
            SyncError::NotConnected => "sync-not-connected",
            SyncError::Offline { .. } => "sync-offline",
            SyncError::AuthNeeded { .. } => "sync-auth-needed",
            SyncError::OtherAccount { .. } => "sync-other-account",
            SyncError::NotSealed => "sync-not-sealed",
            SyncError::Timeout { .. } => "sync-timeout",
            SyncError::Version { .. } => "sync-version",
            SyncError::Full { .. } => "sync-relay-full",
            SyncError::Forbidden { .. } => "sync-forbidden",
            SyncError::Damaged { .. } => "sync-relay-damaged",
            SyncError::Relay { .. } => "sync-relay",
            SyncError::NoRelay { .. } => "sync-no-relay",
            SyncError::BadToken { .. } => "sync-bad-token",
            SyncError::Internal { .. } => "sync-internal",
            SyncError::BadUrl { .. } => "sync-bad-url",
        }
    }

    /// Whether trying again without any action of the user may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            SyncError::Storage(error) => error.is_retryable(),
            SyncError::Read(error) => error.is_retryable(),
            SyncError::Offline { .. }
            | SyncError::Timeout { .. }
            | SyncError::Full { .. }
            | SyncError::Damaged { .. }
            | SyncError::Internal { .. }
            | SyncError::Relay { .. } => true,
            _ => false,
        }
    }

    /// Whether the relay has refused, so that trying at once again would be answered likewise.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, SyncError::Full { .. } | SyncError::Forbidden { .. } | SyncError::Damaged { .. })
    }
}

fn first(refusals: &[Refusal]) -> String {
    refusals.first().map(Refusal::to_string).unwrap_or_default()
}
