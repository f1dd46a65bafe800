//! Tokens and limits from files, taken up again while the relay runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use crate::auth::{Auth, Authenticator, TokensError};
use crate::config::{ConfigError, Terms};
use crate::limits;

/// The files that say who may speak, and how much.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Lines `token -> account`; without it everybody on this machine is one account.
    pub tokens: Option<PathBuf>,
    /// See [`config`](crate::config); without it the defaults hold.
    pub config: Option<PathBuf>,
}

/// A file cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FileError {
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// [`FileError`] names the file and what is wrong with it; never a token.
    pub fn read(&self) -> Result<(Auth, Terms), FileError> {
        let auth = self.tokens.as_deref().map_or(Ok(Auth::Local), Auth::from_file)?;
        let terms = self.config.as_deref().map_or(Ok(Terms::default()), Terms::from_file)?;
        Ok((auth, terms))
    }

    /// Reads them again whenever `asked` says so, and the tokens also when their file has changed. What cannot be read leaves things as
    /// they are, and is logged. A file of tokens that holds none any more lets nobody in. Does not end.
    pub async fn follow(
        self,
        mut asked: mpsc::Receiver<()>,
        told: watch::Sender<(Arc<dyn Authenticator>, Terms)>,
    ) {
        let mut known = self.tokens.as_deref().and_then(stamp);
        loop {
            let was_asked = tokio::select! {
                Some(()) = asked.recv() => true,
                () = tokio::time::sleep(limits::TOKENS_LOOKED_AT_EVERY) => false,
            };
            let found = self.tokens.as_deref().and_then(stamp);
            if !was_asked && (found.is_none() || found == known) {
                continue;
            }
            known = found;
            let terms = match &self.config {
                Some(path) if was_asked => Terms::from_file(path).map_err(FileError::from),
                _ => Ok(told.borrow().1.clone()),
            };
            match (self.read_tokens(), terms) {
                (Ok(auth), Ok(terms)) => _ = told.send((Arc::new(auth), terms)),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "tokens and limits stay as they are");
                }
            }
        }
    }

    fn read_tokens(&self) -> Result<Auth, FileError> {
        let Some(path) = &self.tokens else { return Ok(Auth::Local) };
        match Auth::from_file(path) {
            Err(TokensError::Empty { path }) => {
                tracing::warn!(path, "the file holds no tokens any more, and nobody is let in");
                Ok(Auth::Tokens(HashMap::new()))
            }
            read => Ok(read?),
        }
    }
}

/// What tells a file from what it was.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
