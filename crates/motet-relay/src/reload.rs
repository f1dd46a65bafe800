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
use crate::config::{ConfigError, Settings, Terms};
use crate::directory::{Directory, DirectoryError, Members};
use crate::identity::Identities;
use crate::limits;
#[cfg(feature = "oidc")]
use crate::oidc::{IssuerError, Issuers};
use crate::sharing::{SharingAnswer, SharingError, SharingRequest};

/// The files that say who may speak, and how much.
#[derive(Clone, Default)]
pub struct Files {
    /// The data folder, which may have [accounts](Directory).
    pub accounts: Option<PathBuf>,
    /// The address of a Postgres database, which has the accounts in place of the folder, if it has any.
    #[cfg(feature = "postgres")]
    pub database: Option<String>,
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
    /// Whose identity tokens are accepted.
    #[cfg(feature = "oidc")]
    #[error("{path}: {source}")]
    Issuer {
        /// The configuration.
        path: String,
        /// What is wrong.
        source: IssuerError,
    },
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
    /// The configuration wants the console.
    #[cfg(feature = "console")]
    pub has_console: bool,
    known: Known,
    shared: Arc<Shared>,
}

/// From what it is told who speaks.
#[derive(Clone, Debug)]
struct Known {
    tokens: Auth,
    directory: Option<Arc<Directory>>,
    #[cfg(feature = "oidc")]
    issuers: Option<Arc<Issuers>>,
}

/// What a configuration says: how much of everything, and whose identity tokens are accepted.
struct Told {
    terms: Terms,
    #[cfg(feature = "console")]
    has_console: bool,
    #[cfg(feature = "oidc")]
    issuers: Option<Arc<Issuers>>,
}

/// Which spaces are shared, as the accounts say that there are now.
struct Shared {
    members: RwLock<Option<Members>>,
    directory: watch::Sender<Option<Arc<Directory>>>,
    changes: watch::Sender<()>,
}

impl Shared {
    fn new(directory: Option<&Arc<Directory>>) -> Self {
        let (directories, changes) = (watch::Sender::new(None), watch::Sender::new(()));
        let shared = Self { members: RwLock::default(), directory: directories, changes };
        shared.put(directory);
        shared
    }

    fn put(&self, directory: Option<&Arc<Directory>>) {
        let members = directory.map(|directory| Members::new(directory.clone(), None));
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
        self.directory.send_replace(directory.cloned());
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

    fn share<'a>(
        &'a self,
        who: &'a Principal,
        request: &'a SharingRequest,
    ) -> BoxFuture<'a, Result<SharingAnswer, SharingError>> {
        async move {
            match self.now() {
                Some(members) => members.share(who, request).await,
                None => OwnSpaces.share(who, request).await,
            }
        }
        .boxed()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }
}

/// Without the address of the database, which has a password.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accounts, tokens, config, .. } = self;
        f.debug_struct("Files")
            .field("accounts", accounts)
            .field("tokens", tokens)
            .field("config", config)
            .finish_non_exhaustive()
    }
}

impl Found {
    /// The accounts, as long as there are some: the file may be made, or put in the place of another one, while [`Files::follow`] looks.
    pub fn directory(&self) -> watch::Receiver<Option<Arc<Directory>>> {
        self.shared.directory.subscribe()
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { terms, known, .. } = self;
        f.debug_struct("Found").field("terms", terms).field("known", known).finish_non_exhaustive()
    }
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`FileError`] names the file and what is wrong with it; never a token.
    pub fn read(&self) -> Result<Found, FileError> {
        let tokens = self.tokens.as_deref().map_or(Ok(Auth::Local), Auth::from_file)?;
        let mut known = Known::new(tokens);
        let told = self.settings(&known)?;
        #[cfg(feature = "console")]
        let has_console = told.has_console;
        let terms = known.take(told);
        known.directory = self.directory(known.identities().is_some())?;
        let shared = Arc::new(Shared::new(known.directory.as_ref()));
        Ok(Found {
            auth: known.who(),
            access: shared.clone(),
            terms,
            #[cfg(feature = "console")]
            has_console,
            known,
            shared,
        })
    }

    #[cfg_attr(not(feature = "oidc"), allow(unused_variables, reason = "only issuers have keys"))]
    fn settings(&self, before: &Known) -> Result<Told, FileError> {
        let settings = self.config.as_deref().map_or(Ok(Settings::default()), Settings::from_file)?;
        #[cfg(feature = "oidc")]
        let path = self.config.as_deref().unwrap_or(Path::new("")).display().to_string();
        #[cfg(feature = "oidc")]
        let named = |source| FileError::Issuer { path, source };
        Ok(Told {
            terms: settings.terms,
            #[cfg(feature = "console")]
            has_console: settings.console,
            #[cfg(feature = "oidc")]
            issuers: match (settings.issuers.is_empty(), &before.issuers) {
                (true, _) => None,
                (false, Some(before)) => Some(Arc::new(before.renewed(settings.issuers).map_err(named)?)),
                (false, None) => Some(Arc::new(Issuers::new(settings.issuers).map_err(named)?)),
            },
        })
    }

    /// The accounts of the data folder; `is_needed`: there are some from now on.
    fn directory(&self, is_needed: bool) -> Result<Option<Arc<Directory>>, FileError> {
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.database {
            let found = Directory::connect(url).and_then(|directory| {
                // Tables of which nobody has made use are as no file.
                Ok((is_needed || !directory.accounts()?.is_empty()).then(|| Arc::new(directory)))
            });
            return found.map_err(|e| FileError::Accounts(Arc::new(e)));
        }
        let Some(folder) = &self.accounts else { return Ok(None) };
        let found = Directory::open_existing(folder).and_then(|found| match found {
            None if is_needed => Directory::open(folder).map(Some),
            found => Ok(found),
        });
        Ok(found.map_err(|e| FileError::Accounts(Arc::new(e)))?.map(Arc::new))
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
        let Found { mut known, shared, .. } = found;
        let mut seen = self.tokens.as_deref().and_then(stamp);
        loop {
            let was_asked = tokio::select! {
                Some(()) = asked.recv() => true,
                () = tokio::time::sleep(limits::TOKENS_LOOKED_AT_EVERY) => false,
            };
            let found = self.tokens.as_deref().and_then(stamp);
            let are_other_tokens = was_asked || (found.is_some() && found != seen);
            let (mut terms, mut is_refused) = (told.borrow().1.clone(), false);
            if are_other_tokens {
                seen = found;
                // Files may be where reading takes long.
                let (files, before) = (self.clone(), known.clone());
                let read = move || {
                    Ok((files.read_tokens()?, was_asked.then(|| files.settings(&before)).transpose()?))
                };
                match tokio::task::spawn_blocking(read).await {
                    Ok(Ok((tokens, settings))) => {
                        known.tokens = tokens;
                        terms = settings.map_or(terms, |settings| known.take(settings));
                    }
                    Ok(Err(error)) => {
                        let error: FileError = error;
                        is_refused = true;
                        tracing::error!(%error, "tokens, limits and issuers stay as they are");
                    }
                    Err(error) => tracing::error!(%error, "tokens, limits and issuers stay as they are"),
                }
            }
            let is_other_devices = self.look_at_accounts(&mut known).await;
            if is_other_devices {
                shared.put(known.directory.as_ref());
            }
            // Who was signed out is out all the same.
            if (!are_other_tokens || is_refused) && !is_other_devices {
                continue;
            }
            _ = told.send((known.who(), terms));
        }
    }

    /// Whether other devices are let in now. Accounts that were added to a relay which had none count from then on.
    async fn look_at_accounts(&self, known: &mut Known) -> bool {
        let (files, directory) = (self.clone(), known.directory.clone());
        let is_needed = known.identities().is_some();
        let look = move || match directory {
            // Whoever has put another file there means that one. Without one nobody new is let in, and nobody out.
            Some(directory) if directory.is_elsewhere() => match files.directory(false) {
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
            None => match files.directory(is_needed) {
                Ok(found) => (found.is_some(), found),
                Err(error) => {
                    tracing::error!(%error, "the accounts cannot be read");
                    (false, None)
                }
            },
        };
        let Ok((has_changed, found)) = tokio::task::spawn_blocking(look).await else { return false };
        known.directory = found;
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

impl Known {
    fn new(tokens: Auth) -> Self {
        Self {
            tokens,
            directory: None,
            #[cfg(feature = "oidc")]
            issuers: None,
        }
    }

    /// Takes up what a configuration says, and returns the part that is not about who speaks.
    fn take(&mut self, told: Told) -> Terms {
        #[cfg(feature = "oidc")]
        self.issuers.clone_from(&told.issuers);
        told.terms
    }

    fn identities(&self) -> Option<Arc<dyn Identities>> {
        #[cfg(feature = "oidc")]
        return self.issuers.clone().map(|issuers| issuers as Arc<dyn Identities>);
        #[cfg(not(feature = "oidc"))]
        None
    }

    /// Who is let in: devices of accounts if there are any, and tokens.
    fn who(&self) -> Arc<dyn Authenticator> {
        let Self { tokens, directory, .. } = self;
        let Some(directory) = directory else { return Arc::new(tokens.clone()) };
        let members = Members::new(directory.clone(), Some(tokens.clone()));
        match self.identities() {
            Some(identities) => Arc::new(members.with_identities(identities)),
            None => Arc::new(members),
        }
    }
}

/// What tells a file from what it was.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
