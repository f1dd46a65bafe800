//! The token for the relay: kept in a file beside the database, so that no query and no backup of the database hands it out.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use motet::Replica;

use super::documents::input;
use crate::error::{CliError, file_error};

/// A token is shorter than this, in bytes.
const TOKEN_FILE_BYTES: u64 = 64 << 10;

/// The environment variable that goes before the file.
const TOKEN_VARIABLE: &str = "MOTET_TOKEN";

/// What a command was told on its command line, or by the environment.
pub(crate) fn given(token: Option<String>, file: Option<&Path>) -> Result<Option<String>, CliError> {
    let token = match (token, file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(from_file(file)?),
        (None, None) => from_environment(),
    };
    Ok(token.map(|token| token.trim().to_owned()))
}

/// The token that is good for a replica's relay.
pub(crate) fn read(replica: &Replica) -> Result<Option<String>, CliError> {
    if let Some(token) = from_environment() {
        return Ok(Some(token));
    }
    kept(replica.path())
}

/// The token that is kept beside a database.
pub(crate) fn kept(database: &Path) -> Result<Option<String>, CliError> {
    let path = beside(database);
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(Some(token)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(&path, &error)),
    }
}

/// Keeps a token, for its owner's eyes only.
pub(crate) fn keep(database: &Path, token: &str) -> Result<(), CliError> {
    let path = beside(database);
    // A file that is made anew has the mode that it is made with.
    forget(database)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, token.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| file_error(&path, &e))
}

/// Forgets it: it is good only for the relay that it was given for.
pub(crate) fn forget(database: &Path) -> Result<(), CliError> {
    let path = beside(database);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file_error(&path, &error)),
        _ => Ok(()),
    }
}

fn beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-token");
    path.into()
}

/// Whether the environment has a token, whatever is kept.
pub(crate) fn is_in_environment() -> bool {
    from_environment().is_some()
}

fn from_environment() -> Option<String> {
    std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
}

/// `-` is standard input.
fn from_file(path: &Path) -> Result<String, CliError> {
    let mut token = String::new();
    let read = input(path)?.take(TOKEN_FILE_BYTES).read_to_string(&mut token);
    read.map(|_| token).map_err(|e| file_error(path, &e))
}
