//! How a replica is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use motet_proto::envelope::{Plain, SUITE_PLAIN, Sealer};
use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DeviceId, SpaceId, limits as proto};
use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

use crate::api::replica::Replica;
use crate::engine::{Core, Database, Guarded, PresenceBoard, SendSlot, Shared, StatusBoard};
use crate::error::OpenError;
use crate::limits;
use crate::platform;
use crate::store::{self, Readers, StorageError, Tx, Writer};
use crate::time::{self, Clock};
use crate::types::Conditions;

/// Opens a replica with more than a path.
#[derive(Clone)]
pub struct ReplicaBuilder {
    path: PathBuf,
    device_name: Option<String>,
    clock: Clock,
    conflict_log: Option<PathBuf>,
    read_only: bool,
    purge_grace: Duration,
    sealer: Arc<dyn Sealer>,
    space: Option<SpaceId>,
}

impl ReplicaBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            device_name: None,
            clock: Arc::new(time::now_ms),
            conflict_log: None,
            read_only: false,
            purge_grace: limits::PURGED_KEPT,
            sealer: Arc::new(Plain),
            space: None,
        }
    }

    /// Names this device, for other devices and for people: at most
    /// [`DEVICE_NAME_BYTES`](motet_proto::limits::DEVICE_NAME_BYTES), and no control characters. Kept in the file; without it the name kept
    /// there, at first `device`.
    #[must_use]
    pub fn device_name(mut self, name: &str) -> Self {
        self.device_name = Some(name.to_owned());
        self
    }

    /// Appends every conflict that is found to a file as well, one JSON object in a line: `collection`, `id`, `path`, `shown`, `shown_by`,
    /// `shown_at`, `lost`, `lost_by`, `lost_at`, `settled`. Devices are named by their ids, times are milliseconds since 1970; of values over 4 KiB
    /// only the beginning stands there (of what is shown: over 512 bytes), as a string that ends in `…`. A line without a path says by `lost` how many
    /// were found that the journal has no room for.
    #[must_use]
    pub fn conflict_log(mut self, path: impl AsRef<Path>) -> Self {
        self.conflict_log = Some(path.as_ref().to_owned());
        self
    }

    /// Seals what leaves this device with the app's own sealer, and opens with it what arrives: all devices of the account need one that opens what
    /// the others seal. From then on a program that opens the file without a sealer does not connect
    /// ([`SyncError::NotSealed`](crate::SyncError::NotSealed)). The relay sees sealed bytes, sizes, times, the ids of devices, and hashes of the names of documents. What a relay has already
    /// stays as it was sealed. What does not open waits in the quarantine, for
    /// [`retry_quarantined`](crate::Replica::retry_quarantined). What is not sealed waits with its reason, `storage-sealer`, on the status of its document, and is
    /// tried again with each connection and each round that is asked for; everything else goes on.
    #[must_use]
    pub fn sealer(mut self, sealer: impl Sealer) -> Self {
        self.sealer = Arc::new(Guarded(sealer));
        self
    }

    /// Which space the file holds: a new file becomes one of this space, a file that is there must be one. Without it a file keeps the space
    /// that it has, and a new one holds the personal space of the account ([`SpaceId::DEFAULT`]).
    ///
    /// A file holds one space, so an app that has several opens one replica for each, and connects each. The relay keeps a log for each space
    /// of an account; the same collection and id are different documents in different spaces.
    ///
    /// ```
    /// use motet::{Replica, SpaceId};
    /// # let folder = tempfile::tempdir()?;
    /// let own = Replica::builder(folder.path().join("own.db")).open()?;
    /// let band = SpaceId::named("band");
    /// let songs = Replica::builder(folder.path().join("band.db")).space(band).open()?;
    /// assert_eq!((own.space(), songs.space()), (SpaceId::DEFAULT, band));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn space(mut self, space: SpaceId) -> Self {
        self.space = Some(space);
        self
    }

    /// Opens the replica to be read only, for a file or a folder that cannot be written, or a disk without any room
    /// ([`StorageError::DiskFull`]): what it holds is copied into a folder of its own
    /// for as long as the replica is open, so a large one takes a moment, and room for it. Lists, searches, histories, exports, `verify` and
    /// backups work; each write is refused with [`StorageError::ReadOnly`], and so is connecting to a relay. It does not follow what others
    /// write into the file meanwhile.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Takes another clock than the machine's, in milliseconds since 1970. Of concurrent values of a plain field the one whose clock said the
    /// later time shows, so a clock that is ahead wins until the others have heard of it. Times before 1970 and after the year 9999
    /// ([`limits::LATEST_TIME`]) count as the nearest of those that lie between.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long a document that another device has purged stays in the trash of this one, by default a week
    /// ([`limits::PURGED_KEPT`]): [`trash`](crate::Collection::trash) says until when, and
    /// [`restore`](crate::DocumentHandle::restore) brings it back on all devices. With zero it goes when the purge arrives, as it does
    /// for the device that purges. What has arrived already keeps its time.
    #[must_use]
    pub fn purge_grace(mut self, grace: Duration) -> Self {
        self.purge_grace = grace;
        self
    }

    /// Opens the replica.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is no replica, or was written by a newer version, is left as it was.
    pub fn open(self) -> Result<Replica, OpenError> {
        if let Some(name) = &self.device_name
            && (!(1..=proto::DEVICE_NAME_BYTES).contains(&name.trim().len())
                || name.contains(char::is_control))
        {
            return Err(OpenError::DeviceName(name.clone()));
        }
        let (copy, path) = match self.read_only {
            true => store::copy_to_read(&self.path).map(|(folder, path)| (Some(folder), path))?,
            false => (None, self.path.clone()),
        };
        let conn = store::open(&path)?;
        let fresh = platform::random().map_err(|e| OpenError::System(e.to_string()))?;
        let fresh = Uuid::from_bytes(fresh);
        let name = self.device_name.as_deref().map(str::trim);
        let (shared, core, readers) = store::setup(&conn, self.space, |tx| {
            let space = tx.space();
            if let Some(wanted) = self.space.filter(|wanted| *wanted != space) {
                return Err(OpenError::OtherSpace { found: space, wanted });
            }
            let readers = Arc::new(Readers::new(&path, space));
            let (device, device_name) = identify(tx, fresh, name, platform::file_identity(&self.path))?;
            note_version(tx)?;
            note_sealer(tx, self.sealer.suite())?;
            let shared = Arc::new(Shared {
                device,
                space,
                device_name,
                events: broadcast::Sender::new(limits::EVENT_BACKLOG),
                commits: watch::Sender::default(),
                outbox: Notify::new(),
                changed_elsewhere: Notify::new(),
                send_slot: SendSlot::default(),
                board: StatusBoard::new(),
                presence: PresenceBoard::new(),
                policy: watch::Sender::new((tx.sync_policy()?.unwrap_or_default(), Conditions::default())),
                schemas: RwLock::default(),
                clock: self.clock,
                conflict_log: self.conflict_log,
                empty_log: empty_log(&path),
                purge_grace: self.purge_grace,
                sealer: self.sealer,
                has_unsealed: AtomicBool::new(false),
            });
            Ok((shared.clone(), Core::new(shared, readers.clone(), tx)?, readers))
        })?;
        let space = shared.space;
        let heard = shared.clone();
        let is_heard = move || {
            heard.events.receiver_count() > 0
                || heard.board.is_watched()
                || heard.board.is_connected()
                || heard.presence.place().is_some()
        };
        let writer = match platform::is_simulated() {
            true => Writer::unattended((conn, space), core),
            false => Writer::spawn((conn, space), core, is_heard)?,
        };
        let database = Database { readers, file: path, writer, shared, path: self.path, copy };
        Ok(Replica::new(database))
    }
}

impl fmt::Debug for ReplicaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Empties SQLite's log in a moment, when the transaction that asks for it is over. In a simulation nothing runs by itself.
fn empty_log(path: &Path) -> Box<dyn Fn() + Send + Sync> {
    let path = path.to_owned();
    Box::new(move || {
        let path = path.clone();
        let empty = move || {
            if let Err(error) = store::empty_log(&path) {
                tracing::warn!(%error, "what was purged may be in the database's log until that is written anew");
            }
        };
        if !platform::is_simulated() {
            _ = std::thread::Builder::new().name("motet-purge".into()).spawn(empty);
        }
    })
}

/// What another version could not apply may be no riddle to this one: it is read again.
fn note_version(tx: Tx<'_>) -> store::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if tx.meta("version")?.as_deref() == Some(version) {
        return Ok(());
    }
    if tx.is_anything_quarantined()? {
        tx.forget_positions()?;
    }
    tx.set_meta("version", Some(version))
}

/// What an app seals no other program sends in plain.
fn note_sealer(tx: Tx<'_>, suite: u8) -> store::Result<()> {
    if suite == SUITE_PLAIN || tx.meta(store::SEALED)?.is_some() {
        return Ok(());
    }
    tx.set_meta(store::SEALED, Some("yes"))
}

/// The device's id and name, made and kept on first open. A file that is a copy of the one that was opened last, by a backup
/// or by hand, is another device: both may be in use, and people must be able to tell who wrote what.
fn identify(
    tx: Tx<'_>,
    fresh: Uuid,
    name: Option<&str>,
    file: Option<String>,
) -> store::Result<(DeviceId, String)> {
    let known = tx.meta("device_id")?;
    let last_opened = tx.meta("file")?;
    let is_copy = known.is_some()
        && last_opened.is_some()
        && file.is_some()
        && last_opened != file
        && !is_planted(Bug::CopyIsNotNoticed);
    if last_opened != file {
        tx.set_meta("file", file.as_deref())?;
    }
    let device = match known.filter(|_| !is_copy) {
        Some(text) => {
            text.parse().map_err(|_| StorageError::Damaged("the device id cannot be read".into()))?
        }
        None => {
            let device =
                DeviceId(*uuid::Builder::from_random_bytes(*fresh.as_bytes()).into_uuid().as_bytes());
            tx.set_meta("device_id", Some(&device.to_string()))?;
            device
        }
    };
    if is_copy {
        // What the other device did is not for this one to undo.
        tx.forget_steps()?;
        tracing::info!(%device, "the file is a copy: it is a device of its own from now on");
    }
    let known = tx.meta("device_name")?;
    let name = name.or(known.as_deref()).unwrap_or("device").to_owned();
    if known.as_deref() != Some(&name) {
        tx.set_meta("device_name", Some(&name))?;
    }
    tx.put_device(device, &name)?;
    Ok((device, name))
}
