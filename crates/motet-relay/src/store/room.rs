//! Room on the disk: pushes are refused before the last of it is used, so that what frees room still works.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether there is room.
#[derive(Default)]
pub(super) struct Room {
    is_full: AtomicBool,
    /// Somebody looks at the disk from time to time, and finds out when there is room again.
    is_watched: AtomicBool,
    /// Bytes that were free, and those of the store, when somebody looked last.
    free: AtomicU64,
    stored: AtomicU64,
}

impl Room {
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Bytes that were free a moment ago, and those of the store; `None` where nobody looks at the disk. Does not ask the disk.
    pub(super) fn known(&self) -> (Option<u64>, Option<u64>) {
        let known = |bytes: &AtomicU64| {
            self.is_watched.load(Ordering::Relaxed).then(|| bytes.load(Ordering::Relaxed))
        };
        (known(&self.free), known(&self.stored))
    }

    /// The store takes so many bytes.
    pub(super) fn note_stored(&self, bytes: u64) {
        self.stored.store(bytes, Ordering::Relaxed);
    }

    /// A write found none. Where nobody looks at the disk, the next write has to find out for itself.
    pub(super) fn note_full(&self) {
        if self.is_watched.load(Ordering::Relaxed) && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!("the disk is full: the relay only reads, until there is room again");
        }
    }

    /// Looks at the disk that holds `path`, of which `reserve` bytes are to be left. Returns what is free, if that can be told.
    pub(super) fn look(&self, path: &Path, reserve: u64) -> Option<u64> {
        let free = free(path)?;
        self.free.store(free, Ordering::Relaxed);
        self.is_watched.store(true, Ordering::Relaxed);
        if free < reserve {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    free,
                    reserve,
                    "the disk is nearly full: the relay only reads and erases, until there is room again"
                );
            }
        } else if self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!(free, "there is room on the disk again");
        }
        Some(free)
    }
}

/// Bytes that this user can still write; `None` where that cannot be told.
fn free(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(path).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        _ = path;
        None
    }
}
