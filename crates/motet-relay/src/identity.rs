//! Who somebody is at another service, as a token of that service says it: [`Identities`].

use futures_util::future::BoxFuture;
use motet_proto::device_key::PublicKey;

/// Somebody as another service knows them. `issuer` and `subject` are who it is; what is shown may change, and may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The service, as its tokens name it (`iss`).
    pub issuer: String,
    /// Its number or name for this person, which it gives to nobody else (`sub`).
    pub subject: String,
    /// An e-mail address or a name, for people who read lists.
    pub shown: String,
    /// What the operator calls the service.
    pub label: String,
    /// Whether somebody who has no account yet gets one.
    pub may_be_new: bool,
}

/// A service whose tokens are accepted, for devices that sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfferedIssuer {
    /// What the operator calls it.
    pub label: String,
    /// Its address, which its tokens name (`iss`).
    pub url: String,
    /// For whom its tokens have to be (`aud`): ids of apps.
    pub audience: Vec<String>,
    /// Whether a token has to name the key of the device (`nonce`).
    pub requires_nonce: bool,
}

/// Why a token does not say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is no token of a service that is known here, or not one for this purpose. Never says what stands in it but for the names of claims.
    #[error("the identity token is not accepted: {0}")]
    Refused(String),
    /// The keys of the service are not to be had now.
    #[error("the keys of {0} are not to be had now")]
    Unavailable(String),
}

/// Tells who somebody is by a token of another service.
pub trait Identities: Send + Sync + std::fmt::Debug + 'static {
    /// Whom a token is about, if it is good, and meant for the device that has this key.
    ///
    /// # Errors
    /// [`IdentityError`].
    fn verify<'a>(
        &'a self,
        token: &'a str,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Identity, IdentityError>>;

    /// The services whose tokens are accepted.
    fn offered(&self) -> Vec<OfferedIssuer>;
}

/// Whether what a device signs in with is a token of another service, and not a sign-in key.
pub(crate) fn is_token(credential: &str) -> bool {
    credential.starts_with("eyJ") && credential.split('.').count() == 3
}
