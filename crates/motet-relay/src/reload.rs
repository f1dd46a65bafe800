//! Tokens and limits from files, taken up again while the relay runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::SpaceId;
use tokio::sync::{mpsc, watch};

use crate::access::{Access, AccessError, Authorizer, OfferedSpace, OwnSpaces};
use crate::auth::{Auth, Authenticator, Principal, TokensError};
use crate::config::{ConfigError, Terms};
use crate::directory::{Directory, DirectoryError, Members};
use crate::limits;

/// The files that say who may speak, and how much.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The data folder, which may have [accounts](Directory).
    pub accounts: Option<PathBuf>,
    /// Lines `token -> account`. Without them, and without accounts, everybody on this machine is one account.
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
    /// The accounts.
    #[error(transparent)]
    Accounts(Arc<DirectoryError>),
}

/// Who may speak, as files say it.
#[derive(Clone)]
pub struct Found {
    /// Asked of each request.
    pub auth: Arc<dyn Authenticator>,
    /// Asked of each session. It stays the same one when there are other accounts.
    pub access: Arc<dyn Authorizer>,
    /// How much of everything.
    pub terms: Terms,
    tokens: Auth,
    directory: Option<Arc<Directory>>,
    shared: Arc<Shared>,
}

/// Which spaces are shared, as the accounts say that there are now.
struct Shared {
    members: RwLock<Option<Members>>,
    changes: watch::Sender<()>,
}

impl Shared {
    fn new(directory: Option<&Arc<Directory>>) -> Self {
        let shared = Self { members: RwLock::default(), changes: watch::Sender::new(()) };
        shared.put(directory);
        shared
    }

    fn put(&self, directory: Option<&Arc<Directory>>) {
        let members = directory.map(|directory| Members::new(directory.clone(), None));
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
        self.changes.send_replace(());
    }

    fn now(&self) -> Option<Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Authorizer for Shared {
    fn authorize<'a>(
        &'a self,
        who: &'a Principal,
        space: SpaceId,
    ) -> BoxFuture<'a, Result<Access, AccessError>> {
        async move {
            match self.now() {
                Some(members) => members.authorize(who, space).await,
                None => OwnSpaces.authorize(who, space).await,
            }
        }
        .boxed()
    }

    fn spaces<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, Result<Vec<OfferedSpace>, AccessError>> {
        async move {
            match self.now() {
                Some(members) => members.spaces(who).await,
                None => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { terms, tokens, directory, .. } = self;
        f.debug_struct("Found")
            .field("terms", terms)
            .field("tokens", tokens)
            .field("directory", directory)
            .finish()
    }
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`FileError`] names the file and what is wrong with it; never a token.
    pub fn read(&self) -> Result<Found, FileError> {
        let tokens = self.tokens.as_deref().map_or(Ok(Auth::Local), Auth::from_file)?;
        let terms = self.config.as_deref().map_or(Ok(Terms::default()), Terms::from_file)?;
        let directory = self.directory()?;
        let shared = Arc::new(Shared::new(directory.as_ref()));
        let auth = who(&tokens, directory.as_ref());
        Ok(Found { auth, access: shared.clone(), terms, tokens, directory, shared })
    }

    fn directory(&self) -> Result<Option<Arc<Directory>>, FileError> {
        let Some(folder) = &self.accounts else { return Ok(None) };
        let found = Directory::open_existing(folder).map_err(|e| FileError::Accounts(Arc::new(e)))?;
        Ok(found.map(Arc::new))
    }

    /// Reads them again whenever `asked` says so, the tokens also when their file has changed, and the accounts when somebody has written to
    /// theirs. What cannot be read leaves things as they are, and is logged. A file of tokens that holds none any more lets nobody in. `found`: what
    /// was [read](Self::read). Does not end.
    pub async fn follow(
        self,
        found: Found,
        mut asked: mpsc::Receiver<()>,
        told: watch::Sender<(Arc<dyn Authenticator>, Terms)>,
    ) {
        let Found { mut tokens, mut directory, shared, .. } = found;
        let mut known = self.tokens.as_deref().and_then(stamp);
        loop {
            let was_asked = tokio::select! {
                Some(()) = asked.recv() => true,
                () = tokio::time::sleep(limits::TOKENS_LOOKED_AT_EVERY) => false,
            };
            let is_other_devices = self.look_at_accounts(&mut directory).await;
            if is_other_devices {
                shared.put(directory.as_ref());
            }
            let found = self.tokens.as_deref().and_then(stamp);
            let are_other_tokens = was_asked || (found.is_some() && found != known);
            if !are_other_tokens && !is_other_devices {
                continue;
            }
            known = found;
            let read = if are_other_tokens { self.read_tokens() } else { Ok(tokens.clone()) };
            let terms = match &self.config {
                Some(path) if was_asked => Terms::from_file(path).map_err(FileError::from),
                _ => Ok(told.borrow().1.clone()),
            };
            match (read, terms) {
                (Ok(read), Ok(terms)) => {
                    tokens = read;
                    _ = told.send((who(&tokens, directory.as_ref()), terms));
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "tokens and limits stay as they are");
                    // Who was signed out is out all the same.
                    let terms = told.borrow().1.clone();
                    _ = told.send((who(&tokens, directory.as_ref()), terms));
                }
            }
        }
    }

    /// Whether other devices are let in now. Accounts that were added to a relay which had none count from then on.
    async fn look_at_accounts(&self, directory: &mut Option<Arc<Directory>>) -> bool {
        let (files, known) = (self.clone(), directory.clone());
        let look = move || match known {
            // Whoever has put another file there means that one. Without one nobody new is let in, and nobody out.
            Some(directory) if directory.is_elsewhere() => match files.directory() {
                Ok(Some(found)) => {
                    tracing::warn!("accounts.db is another file now, and was opened anew");
                    (true, Some(found))
                }
                Ok(None) => (false, Some(directory)),
                Err(error) => {
                    tracing::error!(%error, "accounts and devices stay as they are");
                    (false, Some(directory))
                }
            },
            Some(directory) => match directory.refresh() {
                Ok(has_changed) => (has_changed, Some(directory)),
                Err(error) => {
                    tracing::error!(%error, "accounts and devices stay as they are");
                    (false, Some(directory))
                }
            },
            None => match files.directory() {
                Ok(found) => (found.is_some(), found),
                Err(error) => {
                    tracing::error!(%error, "the accounts cannot be read");
                    (false, None)
                }
            },
        };
        let Ok((has_changed, found)) = tokio::task::spawn_blocking(look).await else { return false };
        *directory = found;
        has_changed
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

/// Who is let in: devices of accounts if there are any, and tokens.
fn who(tokens: &Auth, directory: Option<&Arc<Directory>>) -> Arc<dyn Authenticator> {
    match directory {
        Some(directory) => Arc::new(Members::new(directory.clone(), Some(tokens.clone()))),
        None => Arc::new(tokens.clone()),
    }
}

/// What tells a file from what it was.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
