//! Of the processes that have a database open, one syncs it by itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Instant, SystemTime};

use crate::limits;
use crate::platform;

/// The right to sync a database, as long as the process lives and runs: a lock on a file beside it, whose time it moves on again and again.
/// A process that is frozen keeps its locks, so who finds the lock taken and the time standing still syncs as well. What is asked for runs
/// without it. Two that sync at a time are safe, and only cost more.
#[derive(Debug)]
pub(super) struct SyncLock {
    path: PathBuf,
    held: Option<Held>,
    /// There are no locks here, on some network drives for one: everybody syncs then.
    is_useless: bool,
    /// The time of the file while another process has it, and since when it was so.
    seen: Option<(SystemTime, Instant)>,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// Ends the thread that moves the time of the file on, by being dropped.
    _beats: Option<mpsc::Sender<()>>,
}

impl SyncLock {
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-sync");
        Self { path: path.into(), held: None, is_useless: false, seen: None }
    }

    /// Others may have it.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    /// Takes the lock if nobody has it; true if it is held then, or if whoever holds it does not run.
    pub(super) fn hold(&mut self) -> bool {
        if platform::is_simulated() {
            return true;
        }
        if self.held.is_some() || self.is_useless {
            return true;
        }
        let options = File::options().create(true).truncate(false).write(true).open(&self.path);
        match options.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file)) {
            Ok(file) => {
                let beats = beat(&file);
                self.held = Some(Held { file, _beats: beats });
                self.seen = None;
                true
            }
            Err(TryLockError::WouldBlock) => self.stands_still(),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "it cannot be found out whether another process syncs");
                self.is_useless = true;
                true
            }
        }
    }

    /// Whether the process that holds the lock has not moved the time of the file for too long.
    fn stands_still(&mut self) -> bool {
        let Ok(time) = std::fs::metadata(&self.path).and_then(|file| file.modified()) else { return false };
        match self.seen {
            Some((seen, since)) if seen == time => since.elapsed() >= limits::SYNC_LOCK_SILENCE,
            _ => {
                self.seen = Some((time, Instant::now()));
                false
            }
        }
    }
}

/// Moves the time of the file on as long as the process runs. A thread, since a timer of the runtime wakes up several times for each beat.
fn beat(file: &File) -> Option<mpsc::Sender<()>> {
    let file = file.try_clone().ok()?;
    let (end, ended) = mpsc::channel::<()>();
    let beats = move || {
        loop {
            // If it fails, another process syncs as well.
            _ = file.set_modified(SystemTime::now());
            if ended.recv_timeout(limits::SYNC_LOCK_BEAT) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("motet-lock".into()).spawn(beats).ok()?;
    Some(end)
}

impl Drop for Held {
    fn drop(&mut self) {
        // Now, and not when the thread above has ended, which has the file as well.
        _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_then_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let (mut first, mut second) = (SyncLock::new(&path), SyncLock::new(&path));
        assert!(first.hold() && first.hold());
        assert!(!second.hold());
        first.let_go();
        assert!(second.hold());
        assert!(!first.hold());
    }

    #[test]
    fn where_there_are_no_locks_everybody_syncs() {
        let mut lock = SyncLock::new(Path::new("/nowhere/at/all.db"));
        assert!(lock.hold());
    }
}
