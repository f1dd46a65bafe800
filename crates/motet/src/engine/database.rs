//! The open file of a replica.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Core, Shared};
use crate::store::{self, Readers, StorageError, Writer};

/// An open file, and what is known of it in memory.
pub(crate) struct Database {
    /// The database that is open.
    pub(crate) file: PathBuf,
    pub(crate) readers: Arc<Readers>,
    pub(crate) writer: Writer<Core>,
    pub(crate) shared: Arc<Shared>,
    /// The file that was given, and the folder of the copy that is open in its place, if it is one. Dropped last.
    pub(crate) path: PathBuf,
    pub(crate) copy: Option<tempfile::TempDir>,
}

impl Database {
    /// Whether what is written here is kept.
    pub(crate) fn may_write(&self) -> store::Result<()> {
        if self.copy.is_some() { Err(StorageError::ReadOnly) } else { Ok(()) }
    }
}
