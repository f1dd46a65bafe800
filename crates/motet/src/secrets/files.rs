//! A file for each secret, which only its owner may read.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Tells files apart that are being written.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// Writes a new file that only its owner may read.
fn write(path: &Path, secret: &str) -> std::io::Result<()> {
    // One of a process that has ended.
    _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()
}

impl SecretStore for SecretFiles {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        let path = self.path(name)?;
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file,
        };
        let mut secret = Vec::new();
        let read = file.and_then(|file| file.take(limits::SECRET_BYTES + 1).read_to_end(&mut secret));
        let failed = |source| SecretError::File { path: path.clone(), source };
        if read.map_err(failed)? as u64 > limits::SECRET_BYTES {
            return Err(SecretError::TooLong { name: name.to_owned() });
        }
        let no_text = |error: FromUtf8Error| std::io::Error::new(ErrorKind::InvalidData, error.utf8_error());
        String::from_utf8(secret).map(Some).map_err(|error| failed(no_text(error)))
    }

    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        let path = self.path(name)?;
        if secret.len() as u64 > limits::SECRET_BYTES {
            return Err(SecretError::TooLong { name: name.to_owned() });
        }
        // The one that was there is there until the new one is on the disk.
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".{}.{}.part", std::process::id(), PARTS.fetch_add(1, Ordering::Relaxed)));
        let written = write(Path::new(&partial), secret).and_then(|()| fs::rename(&partial, &path));
        written.map_err(|source| {
            _ = fs::remove_file(&partial);
            SecretError::File { path, source }
        })
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(SecretError::File { path, source }),
            _ => Ok(()),
        }
    }
}
