//! One file per group of commands.

pub(crate) mod account;
pub(crate) mod care;
pub(crate) mod demo;
mod device_flow;
pub(crate) mod devices;
pub(crate) mod documents;
pub(crate) mod find;
pub(crate) mod history;
pub(crate) mod setup;
pub(crate) mod shell;
pub(crate) mod spaces;
pub(crate) mod sync;
pub(crate) mod token;
pub(crate) mod transfer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use motet::{AccountError, OpenError, Relay, Replica, StorageError, SyncError, WriteError};

use crate::error::CliError;

/// How alike two names are, from 0 to 1, of which one may be a mistyped form of the other.
const NEAR: f32 = 0.6;

/// Name of the setting that `init` keeps.
pub(crate) const RELAY_URL: &str = "relay.url";

/// The setting with the name of the account that the device has signed in to.
pub(crate) const SIGNED_IN_AS: &str = "account.name";

/// The database is read from a copy, as its disk is full.
static IS_DISK_FULL: AtomicBool = AtomicBool::new(false);

/// Why a write was refused: of a copy that is only read, because of what the copy was made for.
pub(crate) fn reason_of(error: CliError) -> CliError {
    match error {
        CliError::Write(WriteError::Storage(StorageError::ReadOnly))
        | CliError::Sync(SyncError::Storage(StorageError::ReadOnly))
        | CliError::Account(AccountError::Storage(StorageError::ReadOnly))
            if IS_DISK_FULL.load(Ordering::Relaxed) =>
        {
            CliError::Write(WriteError::Storage(StorageError::DiskFull))
        }
        error => error,
    }
}

/// The database file that a command works on.
pub(crate) fn path(db: Option<&Path>) -> Result<&Path, CliError> {
    db.ok_or_else(|| CliError::Usage("which replica? Give --db FILE, or set MOTET_DB".into()))
}

/// Opens a replica that `init` has made, to be read only if it cannot be written. Never makes one: a mistyped name would look like lost
/// data.
pub(crate) fn open(db: Option<&Path>) -> Result<Replica, CliError> {
    let path = path(db)?;
    if !path.exists() {
        let message =
            format!("there is no replica at {}; make one with: motet init --device NAME", path.display());
        return Err(CliError::Other(message));
    }
    match Replica::open(path) {
        // SQLite needs some room beside the file even to read it; a copy in the folder for temporary files does without.
        Err(OpenError::Storage(error @ (StorageError::ReadOnly | StorageError::DiskFull))) => {
            let is_full = matches!(error, StorageError::DiskFull);
            IS_DISK_FULL.store(is_full, Ordering::Relaxed);
            let copy = Replica::builder(path).read_only().open();
            Ok(copy.map_err(|of_copy| if is_full { OpenError::Storage(error) } else { of_copy })?)
        }
        opened => Ok(opened?),
    }
}

/// Opens a replica for a command on a collection that has to exist: a mistyped name would look like an empty one.
pub(crate) fn open_known(db: Option<&Path>, collection: &str) -> Result<Replica, CliError> {
    open_where(db, collection, |_| Ok(false))
}

/// The same for a command that is also about documents in the trash.
pub(crate) fn open_with_trash(db: Option<&Path>, collection: &str) -> Result<Replica, CliError> {
    open_where(db, collection, |replica| Ok(!replica.documents(collection).trash()?.is_empty()))
}

fn open_where(
    db: Option<&Path>,
    collection: &str,
    is_there: impl FnOnce(&Replica) -> Result<bool, CliError>,
) -> Result<Replica, CliError> {
    let replica = open(db)?;
    let known = known_collections(&replica)?;
    match known.iter().any(|name| name == collection) || is_there(&replica)? {
        true => Ok(replica),
        false => Err(CliError::NoCollection { name: collection.to_owned(), near: near(collection, &known) }),
    }
}

/// Names of the collections that have documents or are declared, in order.
pub(crate) fn known_collections(replica: &Replica) -> Result<Vec<String>, CliError> {
    let mut names = replica.collections()?;
    names.extend(replica.schema()?.collections.into_keys());
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The name that was probably meant.
pub(crate) fn near(typed: &str, known: &[String]) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    similar::get_close_matches(typed, &known, 1, NEAR).first().map(|name| (*name).to_owned())
}

/// The relay that `init` was told, if any.
pub(crate) fn relay(replica: &Replica) -> Result<Option<Relay>, CliError> {
    let Some(url) = replica.setting(RELAY_URL)? else { return Ok(None) };
    token::signed_in(replica, Relay::new(&url)).map(Some)
}
