//! Who is let in by the [`Directory`]: devices that prove their key, and, beside them, whoever has a token of the file.

use std::sync::{Arc, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, ready};
use motet_proto::device_key::{DeviceToken, PublicKey, TOKEN_PREFIX};
use motet_proto::{SpaceId, limits as proto};
use tokio::sync::watch;

use super::audit::{Actor, By};
use super::{Directory, DirectoryError, Known, now_ms};
use crate::access::{Access, AccessError, Authorizer, OfferedSpace, Role};
use crate::auth::{
    Auth, AuthError, Authenticator, Credentials, Principal, RegisterError, Registration, SignInMethods,
};
use crate::identity::{self, Identities, IdentityError};
use crate::limits;
use crate::own_account::{AccountAnswer, AccountError, AccountRequest};
use crate::sharing::{SharingAnswer, SharingError, SharingRequest};

/// The devices of accounts, and tokens of a file beside them, for programs that have no key of their own.
#[derive(Clone)]
pub struct Members {
    directory: Arc<Directory>,
    tokens: Option<Auth>,
    identities: Option<Arc<dyn Identities>>,
}

impl Members {
    /// `tokens`: those that are let in as well.
    pub fn new(directory: Arc<Directory>, tokens: Option<Auth>) -> Self {
        // Everybody is no token.
        let tokens = tokens.filter(|tokens| !tokens.is_open());
        Self { directory, tokens, identities: None }
    }

    /// Devices sign in with identity tokens as well as with sign-in keys.
    #[must_use]
    pub fn with_identities(self, identities: Arc<dyn Identities>) -> Self {
        Self { identities: Some(identities), ..self }
    }

    /// The account that a device is to be of: whose identity token it has shown, or whose sign-in key.
    async fn sign_in(&self, device: Registration) -> Result<String, RegisterError> {
        let (directory, token) = (self.directory.clone(), &device.credential);
        let identity = match &self.identities {
            Some(identities) if identity::is_token(token) => {
                let found = identities.verify(token, &device.key).await;
                Some(found.map_err(|error| match error {
                    IdentityError::Refused(_) => RegisterError::IdentityRefused(error.to_string()),
                    IdentityError::Unavailable(_) => RegisterError::Unavailable,
                })?)
            }
            _ => None,
        };
        let registered = tokio::task::spawn_blocking(move || directory.register(&device, identity.as_ref()));
        registered.await.unwrap_or(Err(RegisterError::Unavailable))
    }

    pub(super) fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    pub(super) fn identities(&self) -> Option<&Arc<dyn Identities>> {
        self.identities.as_ref()
    }

    fn find(&self, token: &str) -> Result<Principal, AuthError> {
        // Whoever makes tokens up has to find a key that is known before any signature is checked.
        let claimed = DeviceToken::claimed_key(token).ok_or(AuthError::Invalid)?;
        let Some(Known { account, device, is_revoked, last_seen_at }) = self.known(&claimed) else {
            return Err(AuthError::UnknownDevice);
        };
        let token = DeviceToken::verify(token).map_err(|_| AuthError::Invalid)?;
        // Who has signed it has the key, and may know.
        if is_revoked {
            return Err(AuthError::SignedOut);
        }
        let now = now_ms();
        let off = (now / 1_000).unsigned_abs().abs_diff(token.issued_at);
        if off > proto::DEVICE_TOKEN_LIFETIME.as_secs() {
            return Err(AuthError::Clock);
        }
        let seen_at = now - now % limits::SEEN_KEPT_EVERY.as_millis() as i64;
        if seen_at > last_seen_at {
            let mut seen = self.directory.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.insert(token.key, seen_at);
        }
        Ok(Principal { account, token: Some(token.key.0), device: Some(device) })
    }

    /// Before somebody is refused.
    async fn catch_up(&self) {
        let directory = self.directory.clone();
        _ = tokio::task::spawn_blocking(move || directory.catch_up_for_a_refusal()).await;
    }

    /// What an account may do with a space, as far as is known now.
    fn access(&self, account: &str, space: SpaceId) -> Result<Access, AccessError> {
        let spaces = self.directory.spaces.read().unwrap_or_else(PoisonError::into_inner);
        match spaces.get(&space) {
            // One that this relay has lost is nobody's own: each member would go on alone.
            None if space.is_shared() => Err(AccessError::Forbidden),
            None => Ok(Access::full(account)),
            Some(shared) => shared
                .role(account)
                .map(|role| Access::of(role, &shared.log_of))
                .ok_or(AccessError::Forbidden),
        }
    }

    fn known(&self, key: &PublicKey) -> Option<Known> {
        self.directory.known.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, tokens, identities } = self;
        f.debug_struct("Members")
            .field("directory", directory)
            .field("tokens", tokens)
            .field("identities", &identities.as_ref().map(|identities| identities.offered()))
            .finish()
    }
}

impl Authenticator for Members {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        match (credentials.token, &self.tokens) {
            (None, _) => ready(Err(AuthError::Missing)).boxed(),
            (Some(token), _) if token.starts_with(TOKEN_PREFIX) => match self.find(token) {
                // Who has no good signature is not worth a look.
                Err(AuthError::UnknownDevice)
                    if self.directory.is_shared && DeviceToken::verify(token).is_ok() =>
                {
                    let (members, token) = (self.clone(), token.to_owned());
                    async move {
                        members.catch_up().await;
                        members.find(&token)
                    }
                    .boxed()
                }
                found => ready(found).boxed(),
            },
            (Some(_), Some(tokens)) => tokens.authenticate(credentials),
            (Some(_), None) => ready(Err(AuthError::Invalid)).boxed(),
        }
    }

    fn is_valid<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, bool> {
        match (who.device, who.token, &self.tokens) {
            (Some(device), Some(key), _) => {
                let known = self.known(&PublicKey(key));
                let is_let_in = known.is_some_and(|known| {
                    !known.is_revoked && known.account == who.account && known.device == device
                });
                ready(is_let_in).boxed()
            }
            (None, _, Some(tokens)) => tokens.is_valid(who),
            _ => ready(false).boxed(),
        }
    }

    fn register<'a>(&'a self, device: &'a Registration) -> BoxFuture<'a, Result<String, RegisterError>> {
        self.sign_in(device.clone()).boxed()
    }

    fn own_account<'a>(
        &'a self,
        who: &'a Principal,
        request: AccountRequest,
    ) -> BoxFuture<'a, Result<AccountAnswer, AccountError>> {
        Self::own_account(self, who.clone(), request).boxed()
    }

    fn sign_in_methods(&self) -> SignInMethods {
        let issuers = self.identities.as_ref().map(|identities| identities.offered());
        SignInMethods { keys: true, issuers: issuers.unwrap_or_default() }
    }

    fn sign_out<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, Result<(), RegisterError>> {
        let (Some(_), Some(key)) = (who.device, who.token) else {
            return ready(Err(RegisterError::NotOffered)).boxed();
        };
        let directory = self.directory.clone();
        let done = tokio::task::spawn_blocking(move || directory.revoke_key_of_device(&PublicKey(key)));
        let outcome = |done: Result<Result<(), DirectoryError>, _>| match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "a device cannot be signed out");
                Err(RegisterError::Unavailable)
            }
            Err(_) => Err(RegisterError::Unavailable),
        };
        done.map(outcome).boxed()
    }
}

/// Shared spaces go by their members; every other space is the own one of the account that names it.
impl Authorizer for Members {
    fn authorize<'a>(
        &'a self,
        who: &'a Principal,
        space: SpaceId,
    ) -> BoxFuture<'a, Result<Access, AccessError>> {
        let access = self.access(&who.account, space);
        if access == Err(AccessError::Forbidden) && self.directory.is_shared {
            return async move {
                self.catch_up().await;
                self.access(&who.account, space)
            }
            .boxed();
        }
        ready(access).boxed()
    }

    fn spaces<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, Result<Vec<OfferedSpace>, AccessError>> {
        let spaces = self.directory.spaces.read().unwrap_or_else(PoisonError::into_inner);
        let offered = spaces.iter().filter_map(|(id, space)| {
            let (name, owner) = (space.name.clone(), space.owner.clone());
            space.role(&who.account).map(|role| OfferedSpace { id: *id, name, owner, role })
        });
        let mut offered: Vec<_> = offered.collect();
        offered.sort_unstable_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        ready(Ok(offered)).boxed()
    }

    fn share<'a>(
        &'a self,
        who: &'a Principal,
        request: &'a SharingRequest,
    ) -> BoxFuture<'a, Result<SharingAnswer, SharingError>> {
        let (directory, account, request) = (self.directory.clone(), who.account.clone(), request.clone());
        let by = By(who.device.map_or(Actor::Account, Actor::Device));
        let done = tokio::task::spawn_blocking(move || directory.share_by(&account, &request, by));
        done.map(|done| done.unwrap_or(Err(SharingError::Unavailable))).boxed()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.directory.changes.subscribe())
    }
}

impl super::KnownSpace {
    fn role(&self, account: &str) -> Option<Role> {
        match self.owner == account {
            true => Some(Role::Owner),
            false => self.members.get(account).copied(),
        }
    }
}
