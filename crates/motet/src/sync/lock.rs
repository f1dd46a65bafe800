//! Of the processes that have a database open, one syncs it by itself.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The right to sync a database, as long as the process lives: a lock on a file beside it. What is asked for runs without it, which is
/// safe and only costs more.
#[derive(Debug)]
pub(super) struct SyncLock {
    path: PathBuf,
    held: Option<File>,
    /// There are no locks here, on some network drives for one: everybody syncs then.
    is_useless: bool,
}

impl SyncLock {
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-sync");
        Self { path: path.into(), held: None, is_useless: false }
    }

    /// Others may have it.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    /// Takes the lock if nobody has it; true if it is held then.
    pub(super) fn hold(&mut self) -> bool {
        if self.held.is_some() || self.is_useless {
            return true;
        }
        let options = File::options().create(true).truncate(false).write(true).open(&self.path);
        match options.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file)) {
            Ok(file) => self.held = Some(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "it cannot be found out whether another process syncs");
                self.is_useless = true;
            }
        }
        self.held.is_some() || self.is_useless
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
