//! Everything that a relay has of an account, as files for its holder: [`export`].

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::session::ReadOutcome;
use motet_proto::{Entry, Kind, Position, SpaceId};
use serde_json::{Value, json};

use crate::directory::{Directory, DirectoryError};
use crate::store::sqlite::ReadOnly;
use crate::store::{LogId, LogStore, StoreError};

/// Where the logs are read.
pub trait Source: Sync {
    /// The spaces of which an account has a log.
    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>>;

    /// One page of what lies after a position.
    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>>;
}

impl Source for ReadOnly {
    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        self.logs_of(account).boxed()
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        self.read(log, after).boxed()
    }
}

impl<S: LogStore> Source for S {
    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        LogStore::logs_of(self, account)
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        LogStore::read(self, log, after)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Logs, each a file.
    pub logs: u64,
    /// Entries in them.
    pub entries: u64,
}

/// An account cannot be exported. What was written until then stays where it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The accounts.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The logs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is something in the folder already.
    #[error("{} is not empty: an export goes into a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// A log was taken back to an earlier end while it was read.
    #[error("the log of space {0} has changed while it was read: export once more")]
    Changed(SpaceId),
}

impl ExportError {
    /// Stable code for logs and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::File { .. } => "export-file",
            Self::NotEmpty(_) => "export-not-empty",
            Self::Changed(_) => "export-changed",
        }
    }

    /// Whether the same call may succeed later, into another folder.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Directory(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::File { .. } | Self::NotEmpty(_) => false,
            Self::Changed(_) => true,
        }
    }
}

/// Writes what the relay has of an account into a folder that is new or empty: `account.json` with its devices, identities, sign-in keys, spaces
/// and what was done to it, and a file `SPACE.jsonl` for each of its logs, with an entry on each line in the order of the log. What devices have written is in the payloads of
/// the entries, in Base64: changes of Automerge documents if they are not sealed. Of spaces that others own the names are in it, their logs are not.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    directory: Arc<Directory>,
    logs: &dyn Source,
    account: &str,
    folder: &Path,
) -> Result<Exported, ExportError> {
    let asked = account.to_owned();
    // The accounts are asked on a thread that may wait.
    let about = tokio::task::spawn_blocking(move || about(&directory, &asked)).await;
    let about = about.map_err(|_| StoreError::Closed)??;
    let name = about["account"].as_str().unwrap_or(account).to_owned();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::File { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    if std::fs::read_dir(folder).map_err(failed(folder))?.next().is_some() {
        return Err(ExportError::NotEmpty(folder.to_owned()));
    }
    let path = folder.join("account.json");
    std::fs::write(&path, format!("{about:#}\n")).map_err(failed(&path))?;
    let mut exported = Exported::default();
    let mut spaces = logs.logs_of(&name).await?;
    spaces.sort_unstable();
    for space in spaces {
        let path = folder.join(format!("{space}.jsonl"));
        let file = std::fs::File::create_new(&path).map_err(failed(&path))?;
        let mut file = BufWriter::new(file);
        let log = LogId { account: name.clone(), space };
        let mut after = None;
        loop {
            let page = logs.read(&log, after).await?;
            let ReadOutcome::Page { entries, position, head } = page else {
                return Err(ExportError::Changed(space));
            };
            for (number, entry) in &entries {
                writeln!(file, "{}", line(*number, entry)).map_err(failed(&path))?;
            }
            exported.entries += entries.len() as u64;
            if position.seq >= head {
                break;
            }
            after = Some(position);
        }
        file.flush().map_err(failed(&path))?;
        exported.logs += 1;
    }
    Ok(exported)
}

/// What the accounts say of one.
fn about(directory: &Directory, account: &str) -> Result<Value, DirectoryError> {
    let found = directory.account(account)?;
    let name = found.name.as_str();
    let devices: Vec<_> = directory
        .devices(Some(name))?
        .into_iter()
        .map(|device| {
            json!({
                "id": device.id.to_string(), "name": device.name, "platform": device.platform,
                "version": device.version, "registered_at": device.registered_at,
                "last_seen_at": device.last_seen_at, "revoked_at": device.revoked_at,
            })
        })
        .collect();
    let identities =
        directory.identities()?.into_iter().filter(|identity| identity.account.as_deref() == Some(name));
    let identities: Vec<_> = identities
        .map(|identity| {
            json!({
                "issuer": identity.issuer, "subject": identity.subject, "shown": identity.shown,
                "linked_at": identity.linked_at, "last_used_at": identity.last_used_at,
            })
        })
        .collect();
    let keys = directory.keys()?.into_iter().filter(|key| key.account == name);
    let keys: Vec<_> = keys
        .map(|key| {
            json!({
                "id": key.id, "created_at": key.created_at, "expires_at": key.expires_at,
                "reusable": key.is_reusable, "used": key.used,
            })
        })
        .collect();
    let mut spaces = Vec::new();
    for space in directory.spaces()? {
        let own = space.owner == name;
        let role = space.members.iter().find(|(member, _)| member == name).map(|(_, role)| role.name());
        let Some(role) = (if own { Some("owner") } else { role }) else { continue };
        let members = space.members.iter().filter(|_| own);
        let members: Vec<_> =
            members.map(|(account, role)| json!({ "account": account, "role": role.name() })).collect();
        spaces.push(json!({
            "id": space.id.to_string(), "name": space.name, "owner": space.owner, "role": role,
            "created_at": space.created_at, "members": members,
        }));
    }
    let audit: Vec<_> =
        directory.audit(Some(name), None, usize::MAX)?.iter().map(|record| record.to_json()).collect();
    Ok(json!({
        "account": name, "created_at": found.created_at, "erase_at": found.erase_at, "devices": devices,
        "identities": identities, "sign_in_keys": keys, "spaces": spaces, "audit": audit,
    }))
}

fn line(number: u64, entry: &Entry) -> Value {
    let (kind, supersedes) = match &entry.kind {
        Kind::Changes => ("changes", &[][..]),
        Kind::Snapshot { supersedes, .. } => ("snapshot", &supersedes[..]),
        Kind::Erased => ("erased", &[][..]),
        Kind::Other(_) => ("other", &[][..]),
    };
    let supersedes: Vec<_> = supersedes.iter().map(ToString::to_string).collect();
    json!({
        "number": number, "id": entry.id.to_string(), "document": entry.document.to_string(),
        "device": entry.device.to_string(), "kind": kind, "supersedes": supersedes, "suite": entry.suite,
        "payload": STANDARD.encode(&entry.payload),
    })
}
