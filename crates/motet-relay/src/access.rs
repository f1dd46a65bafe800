//! What somebody may do with a space, and whose log it is: [`Authorizer`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};
use motet_proto::{Entry, Kind, SpaceId};
use tokio::sync::watch;

use crate::auth::{Principal, answered};
pub use crate::sharing::{OfferedSpace, Role};
use crate::sharing::{SharingAnswer, SharingError, SharingRequest};
use crate::store::LogId;

/// Decides what an account may do with a space. It may ask somebody else over a network; each call has
/// [`AUTHENTICATE_TIMEOUT`](crate::limits::AUTHENTICATE_TIMEOUT), and one that panics counts as one that cannot say.
///
/// ```
/// use futures_util::future::{BoxFuture, FutureExt, ready};
/// use motet_relay::SpaceId;
/// use motet_relay::access::{Access, AccessError, Authorizer};
/// use motet_relay::auth::Principal;
///
/// /// The band's songs are keola's, and leilani reads them.
/// struct Band;
///
/// impl Authorizer for Band {
///     fn authorize<'a>(&'a self, who: &'a Principal, space: SpaceId) -> BoxFuture<'a, Result<Access, AccessError>> {
///         let access = match (&*who.account, space == SpaceId::named("band")) {
///             (account, false) => Ok(Access::full(account)),
///             ("keola", true) => Ok(Access::full("keola")),
///             ("leilani", true) => Ok(Access { owner: "keola".into(), may_write: false, may_erase: false }),
///             _ => Err(AccessError::Forbidden),
///         };
///         ready(access).boxed()
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// What this account may do with the space that a device names. Asked when a session begins, and again when [`changes`](Self::changes)
    /// says so. What it may not read is answered as what is not there.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`] ends the session; [`AccessError::Unavailable`] ends one that begins. One that is open asks again every
    /// [`ACCESS_ASKED_AGAIN`](crate::limits::ACCESS_ASKED_AGAIN), goes on with what it may do meanwhile, and ends after
    /// [`ACCESS_UNKNOWN`](crate::limits::ACCESS_UNKNOWN).
    fn authorize<'a>(
        &'a self,
        who: &'a Principal,
        space: SpaceId,
    ) -> BoxFuture<'a, Result<Access, AccessError>>;

    /// The spaces that are shared with an account, or by it, so that its devices find them. Asked when a device asks.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    fn spaces<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, Result<Vec<OfferedSpace>, AccessError>> {
        _ = who;
        ready(Ok(Vec::new())).boxed()
    }

    /// Does what an account asks of the spaces that it shares. Only of an account that is [known](Principal::is_known).
    ///
    /// # Errors
    /// [`SharingError`]; by default [`SharingError::NotOffered`].
    fn share<'a>(
        &'a self,
        who: &'a Principal,
        request: &'a SharingRequest,
    ) -> BoxFuture<'a, Result<SharingAnswer, SharingError>> {
        _ = (who, request);
        ready(Err(SharingError::NotOffered)).boxed()
    }

    /// Marked as changed whenever an answer that was given may be another one now; open sessions ask again then. Without it no answer changes.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }
}

/// What an account may do with a space. Whoever has it may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The account that the log of the space belongs to, and counts for.
    pub owner: String,
    /// It may append. Without that a push waits on the device, also one of what merging edits of others has made there: such a device shows it as
    /// waiting.
    pub may_write: bool,
    /// It may have documents erased from the log. Without that an erasure is rejected until the next session, and what came with it is not. Who may
    /// write can still delete and overwrite what documents show, and a relay, which reads nothing, cannot tell a false snapshot from a true one.
    pub may_erase: bool,
}

/// Why a space is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is no such space, or none that this account may read.
    #[error("there is no such space, or this account may not read it")]
    Forbidden,
    /// It cannot be found out now.
    #[error("it cannot be found out now who may read this space; try again later")]
    Unavailable,
}

/// Each account has spaces of its own, as many as it names, and may do everything with them. No account shares one with another.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnSpaces;

impl Access {
    /// Everything, as the owner.
    pub fn full(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), may_write: true, may_erase: true }
    }

    /// What a role allows.
    pub fn of(role: Role, owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), may_write: role >= Role::Writer, may_erase: role == Role::Owner }
    }

    /// The log of a space.
    pub(crate) fn log(&self, space: SpaceId) -> LogId {
        LogId { account: self.owner.clone(), space }
    }

    /// Whether an entry may be appended.
    pub(crate) fn allows(&self, entry: &Entry) -> bool {
        self.may_erase || entry.kind != Kind::Erased
    }
}

impl Authorizer for OwnSpaces {
    fn authorize<'a>(&'a self, who: &'a Principal, _: SpaceId) -> BoxFuture<'a, Result<Access, AccessError>> {
        ready(Ok(Access::full(&who.account))).boxed()
    }
}

/// [`Authorizer::authorize`] within its time.
pub(crate) async fn authorize(
    authorizer: Arc<dyn Authorizer>,
    who: Principal,
    space: SpaceId,
) -> Result<Access, AccessError> {
    let asked = async { authorizer.authorize(&who, space).await };
    answered("authorizer", asked).await.unwrap_or(Err(AccessError::Unavailable))
}

/// [`Authorizer::spaces`] within its time.
pub(crate) async fn spaces(
    authorizer: Arc<dyn Authorizer>,
    who: &Principal,
) -> Result<Vec<OfferedSpace>, AccessError> {
    let asked = async { authorizer.spaces(who).await };
    answered("authorizer", asked).await.unwrap_or(Err(AccessError::Unavailable))
}

/// [`Authorizer::share`] within its time.
pub(crate) async fn share(
    authorizer: Arc<dyn Authorizer>,
    who: &Principal,
    request: &SharingRequest,
) -> Result<SharingAnswer, SharingError> {
    if !who.is_known() {
        return Err(SharingError::NotOffered);
    }
    let asked = async { authorizer.share(who, request).await };
    answered("authorizer", asked).await.unwrap_or(Err(SharingError::Unavailable))
}

/// [`Authorizer::changes`]; one that panics never says that something has changed.
pub(crate) fn changes(authorizer: &dyn Authorizer) -> Option<watch::Receiver<()>> {
    let changes = catch_unwind(AssertUnwindSafe(|| authorizer.changes()));
    changes.unwrap_or_else(|_| {
        tracing::error!("the authorizer panicked: nobody is told when it changes its mind");
        None
    })
}
