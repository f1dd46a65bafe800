//! A file for each secret, which only its owner may read.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{SecretError, SecretStore};
use crate::limits;

/// Keeps each secret in a file of its own, with mode 0600 where the system has modes. For machines without a keyring: whoever can read all
/// files of this user reads it.
#[derive(Clone, Debug)]
pub struct SecretFiles {
    prefix: PathBuf,
}

impl SecretFiles {
    /// Files beside a database: the secret `token` of `songs.db` is in `songs.db-token`.
    pub fn beside(database: impl AsRef<Path>) -> Self {
        Self { prefix: database.as_ref().to_owned() }
    }

    fn path(&self, name: &str) -> Result<PathBuf, SecretError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        let is_name = name.len() <= limits::SECRET_NAME_BYTES
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(is_plain);
        // SQLite keeps its own files beside a database.
        if !is_name || ["journal", "wal", "shm"].contains(&name) {
            return Err(SecretError::BadName(name.to_owned()));
        }
        let mut path = self.prefix.clone().into_os_string();
        path.push("-");
        path.push(name);
        Ok(path.into())
    }
}

impl SecretStore for SecretFiles {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        let path = self.path(name)?;
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file,
        };
        let mut secret = String::new();
        let read = file.and_then(|file| file.take(limits::SECRET_BYTES).read_to_string(&mut secret));
        read.map(|_| Some(secret)).map_err(|source| SecretError::File { path, source })
    }

    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        // A file that is made anew has the mode that it is made with.
        self.remove(name)?;
        let path = self.path(name)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(secret.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|source| SecretError::File { path, source })
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(SecretError::File { path, source }),
            _ => Ok(()),
        }
    }
}
