//! The data folder: one relay at a time, and nobody else's eyes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;

/// The database inside of the folder.
pub(super) const DATABASE: &str = "relay.db";

/// Held as long as a relay runs. The system gives it back when the process ends, however it ends.
const LOCK: &str = "relay.lock";

/// How long a folder that is held is waited for. A program that is just being started by the process that has given the folder up holds
/// its files too, until it has begun to run; and a relay that was told to end may need a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How often the lock is tried in that time.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Says into which database the relay of the folder has moved.
const MOVED: &str = "relay.moved";

/// Takes room on the disk that the relay gives up when there is none left.
const BALLAST: &str = "relay.ballast";

/// As much as starting and erasing need: SQLite's index of its log, and the log up to its next checkpoint.
pub(super) const BALLAST_BYTES: u64 = 4 << 20;

/// Into which database the relay of a folder has moved, if it has.
pub(crate) fn moved_to(folder: &Path) -> Option<String> {
    let place = std::fs::read_to_string(folder.join(MOVED)).ok()?;
    Some(place.trim().to_owned())
}

/// Notes that it has.
#[cfg(feature = "postgres")]
pub(crate) fn note_moved(folder: &Path, place: &str) -> std::io::Result<()> {
    std::fs::write(folder.join(MOVED), format!("{place}\n"))
}

/// A folder that this process has for itself until it drops it.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder `path`, which is created if needed.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let unusable = |what: &str, e: std::io::Error| {
            StoreError::Unusable(format!("cannot {what} {}: {e}", path.display()))
        };
        create(path).map_err(|e| unusable("create", e))?;
        if let Some(place) = moved_to(path) {
            let file = path.join(MOVED).display().to_string();
            return Err(StoreError::Unusable(format!(
                "this relay has moved into {place}: give --store; whoever wants the folder back all the same removes {file}"
            )));
        }
        let lock = open_private(&path.join(LOCK)).map_err(|e| unusable("write to", e))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_INTERVAL)
                }
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.display().to_string())),
                Err(TryLockError::Error(e)) => return Err(unusable("lock", e)),
            }
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.keep_private().map_err(|e| unusable("keep to itself", e))?;
        Ok(folder)
    }

    /// The same, of a folder that holds a relay's database: nothing is made where none is.
    pub(super) fn take_of_relay(path: &Path) -> Result<Self, StoreError> {
        match path.join(DATABASE).exists() {
            true => Self::take(path),
            false => Err(StoreError::Unusable(format!(
                "{} holds no relay: there is no {DATABASE}",
                path.display()
            ))),
        }
    }

    /// The database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the database and of its write-ahead log.
    pub(super) fn stored_bytes(&self) -> u64 {
        let size = |name| std::fs::metadata(self.path.join(name)).map_or(0, |found| found.len());
        size(DATABASE) + size("relay.db-wal")
    }

    /// Gives up the file that only keeps room, so that the relay can start and erase on a disk that others have filled.
    pub(super) fn give_up_ballast(&self) {
        _ = std::fs::remove_file(self.path.join(BALLAST));
    }

    /// Keeps room again, in a file of zeros that the disk really holds.
    pub(super) fn keep_ballast(&self) {
        let path = self.path.join(BALLAST);
        let bytes = vec![0; BALLAST_BYTES as usize];
        let is_there = std::fs::metadata(&path).is_ok_and(|found| found.len() == BALLAST_BYTES);
        if !is_there && open_private(&path).and_then(|mut file| file.write_all(&bytes)).is_err() {
            self.give_up_ballast();
        }
    }

    /// Files only for the relay's own user: what is inside is sealed or not, as the apps decide, but the names of accounts are
    /// readable. SQLite gives its other files the mode of the database.
    fn keep_private(&self) -> std::io::Result<()> {
        open_private(&self.database())?;
        for name in [LOCK, DATABASE, "relay.db-wal", "relay.db-shm"] {
            match restrict(&self.path.join(name), 0o600) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                restricted => restricted?,
            }
        }
        // A folder that others share (`/tmp`, `.`) is theirs as well; it is left as it is.
        let ours = |name: &std::ffi::OsStr| {
            name.to_str().is_some_and(|name| name.starts_with("relay.") || name.starts_with("accounts."))
        };
        let mut others =
            std::fs::read_dir(&self.path)?.filter_map(Result::ok).filter(|e| !ours(&e.file_name()));
        if others.next().is_none() { restrict(&self.path, 0o700) } else { Ok(()) }
    }
}

/// Makes a file in the data folder, which is created if needed, for nobody but this user.
pub(crate) fn make_private(folder: &Path, name: &str) -> std::io::Result<()> {
    create(folder)?;
    open_private(&folder.join(name)).map(drop)
}

#[cfg(unix)]
pub(super) fn create(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
pub(super) fn create(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Opens a file, and creates it for nobody but this user.
fn open_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let found = std::fs::metadata(path)?.permissions();
    if found.mode() & 0o777 == mode {
        return Ok(());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn restrict(_: &Path, _: u32) -> std::io::Result<()> {
    Ok(())
}
