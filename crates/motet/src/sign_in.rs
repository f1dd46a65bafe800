//! Signing a device in to a relay: [`Replica::sign_in`].

use motet_proto::device_key::DeviceKey;
use motet_proto::limits as proto;

use serde::Deserialize;

use crate::api::Replica;
use crate::error::SyncError;
use crate::platform;
use crate::secrets::{DeviceSecret, SecretError, SecretStore};
use crate::sync::{Registered, Relay};

/// After the name under which the key of a device is kept: one of which it is not known yet whether it is registered.
const PENDING: &str = "-pending";

/// What a relay has said to a device that signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedIn {
    /// The account whose device it is.
    pub account: String,
}

/// How devices can sign in to a relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SignInMethods {
    /// With sign-in keys, which the relay's operator makes.
    #[serde(rename = "sign_in_keys")]
    pub keys: bool,
    /// With identity tokens of these services.
    pub issuers: Vec<Issuer>,
}

/// A service whose identity tokens a relay accepts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Issuer {
    /// What the relay's operator calls it.
    pub name: String,
    /// Its address, which its tokens name (`iss`).
    pub url: String,
    /// For whom its tokens have to be (`aud`): ids of apps.
    pub audience: Vec<String>,
    /// Whether a token has to name the [nonce](Replica::sign_in_nonce).
    #[serde(rename = "nonce")]
    pub requires_nonce: bool,
}

/// Why a device has not signed in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// The sign-in key is unknown, has expired, or was used by another device; the identity token is not good, or its account is not known.
    #[error("{reason}")]
    KeyRefused {
        /// What the relay said.
        reason: String,
    },
    /// The sign-in key or identity is for another account than the one whose documents this device has. It was not used. A database of its own, or signing
    /// the first account [out](crate::Replica::sign_out), makes room for it.
    #[error("{reason}")]
    OtherAccount {
        /// What the relay said.
        reason: String,
    },
    /// The relay lets no device sign in with a key.
    #[error("{reason}")]
    NotOffered {
        /// What the relay said.
        reason: String,
    },
    /// The sign-in key cannot be one.
    #[error("a sign-in key or identity token has 1 to {max} bytes", max = proto::CREDENTIAL_BYTES)]
    BadKey,
    /// The relay cannot be reached, or failed. The device may have been registered: signing in again with the same sign-in key finds that out.
    #[error(transparent)]
    Relay(#[from] SyncError),
    /// The key of the device cannot be kept or read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl SignInError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyRefused { .. } => "sign-in-key-refused",
            Self::OtherAccount { .. } => "sign-in-other-account",
            Self::NotOffered { .. } => "sign-in-not-offered",
            Self::BadKey => "sign-in-bad-key",
            Self::Relay(error) => error.code(),
            Self::Secret(error) => error.code(),
            Self::Random(_) => "sign-in-random",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Relay(error) => error.is_retryable(),
            Self::Secret(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl Relay {
    /// Asks the relay how devices can sign in to it. It asks the network, and takes up to [`SIGN_IN_TIMEOUT`](crate::limits::SIGN_IN_TIMEOUT).
    ///
    /// # Errors
    /// [`SignInError::Relay`]; [`SignInError::NotOffered`] from a relay of an earlier version.
    pub fn sign_in_methods(&self) -> Result<SignInMethods, SignInError> {
        match self.ask_methods()? {
            Some(methods) => Ok(methods),
            None => {
                Err(SignInError::NotOffered { reason: "this relay does not say how devices sign in".into() })
            }
        }
    }
}

impl Replica {
    /// Signs this device in to a relay, with a credential: a sign-in key that the relay's operator has made for an account
    /// (`motet-relay key create`), or an identity token of a service that the relay accepts, as Google, which names the
    /// [nonce](Self::sign_in_nonce). The device makes a key pair, keeps the secret half in `store` under `name`, and registers the public half.
    /// [`Relay::device_key_in`] speaks with it from then on; the credential is not needed again.
    ///
    /// Called again with the same relay and name it registers the same key pair, so an answer that was lost costs no second sign-in key. A device
    /// that was signed out at the relay makes a new pair. Until the relay has said so, a new pair is kept under `name` with `-pending` behind it, and
    /// what was signed in before stays.
    ///
    /// It asks the network, and takes up to [`SIGN_IN_TIMEOUT`](crate::limits::SIGN_IN_TIMEOUT).
    ///
    /// ```no_run
    /// # use motet::{Relay, Replica, secrets::SecretFiles};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replica = Replica::open("songs.db")?;
    /// let secrets = || SecretFiles::beside(replica.path());
    /// let relay = Relay::new("https://relay.example.org");
    /// let signed_in = replica.sign_in(&relay, "motet-key-…", &secrets(), "device-key")?;
    /// println!("signed in as {}", signed_in.account);
    /// replica.connect(relay.device_key_in(secrets(), "device-key"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SignInError`]. The documents, and what was signed in before, stay as they were.
    pub fn sign_in(
        &self,
        relay: &Relay,
        credential: &str,
        store: &dyn SecretStore,
        name: &str,
    ) -> Result<SignedIn, SignInError> {
        let credential = credential.trim();
        if credential.is_empty() || credential.len() > proto::CREDENTIAL_BYTES {
            return Err(SignInError::BadKey);
        }
        let address = relay.registers_at()?;
        let pending = format!("{name}{PENDING}");
        // What an earlier attempt has perhaps registered, or what is signed in already: the relay knows it, or it does not.
        for place in [&*pending, name] {
            let kept = DeviceSecret::read(store, place)?.filter(|kept| kept.relay == address);
            let Some((kept, key)) = kept.and_then(|kept| kept.key().map(|key| (kept, key))) else { continue };
            match self.register(relay, credential, &key) {
                Ok(signed_in) => return keep(signed_in, kept, store, name),
                // A token that was made for this key is good for no other one. The next has a nonce of its own.
                Err(error @ SignInError::KeyRefused { .. }) if place == pending && is_token(credential) => {
                    store.remove(&pending)?;
                    return Err(error);
                }
                Err(SignInError::KeyRefused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Before it is sent: whatever becomes of the answer, the device has the key that it has registered.
        let (kept, key) = make_pending(address, store, &pending)?;
        match self.register(relay, credential, &key) {
            Ok(signed_in) => keep(signed_in, kept, store, name),
            Err(
                error @ (SignInError::KeyRefused { .. }
                | SignInError::NotOffered { .. }
                | SignInError::OtherAccount { .. }),
            ) => {
                store.remove(&pending)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What an identity token has to name (`nonce`) so that this device, and no other one, can [sign in](Self::sign_in) with it: ask the service for
    /// one with it. It stays the same until a sign-in has succeeded, or was refused. Asks no network.
    ///
    /// ```no_run
    /// # use motet::{Relay, Replica, secrets::SecretFiles};
    /// # fn google_sign_in(nonce: &str) -> String { String::new() }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let replica = Replica::open("songs.db")?;
    /// let secrets = SecretFiles::beside(replica.path());
    /// let relay = Relay::new("https://relay.example.org");
    /// let nonce = replica.sign_in_nonce(&relay, &secrets, "device-key")?;
    /// let id_token = google_sign_in(&nonce);
    /// let signed_in = replica.sign_in(&relay, &id_token, &secrets, "device-key")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SignInError::Relay`] if the address is none, [`SignInError::Secret`], [`SignInError::Random`].
    pub fn sign_in_nonce(
        &self,
        relay: &Relay,
        store: &dyn SecretStore,
        name: &str,
    ) -> Result<String, SignInError> {
        let address = relay.registers_at()?;
        let pending = format!("{name}{PENDING}");
        let kept = DeviceSecret::read(store, &pending)?.filter(|kept| kept.relay == address);
        let key = match kept.and_then(|kept| kept.key()) {
            Some(key) => key,
            None => make_pending(address, store, &pending)?.1,
        };
        Ok(key.public().nonce())
    }

    /// What an identity token has to name (`nonce`) that is to be [linked](crate::RelayAccount::link_identity) to the account of this device, with the
    /// key that `store` keeps under `name`. Asks no network.
    ///
    /// # Errors
    /// [`SignInError::Relay`] with [`SyncError::AuthNeeded`] if the device has not signed in to this relay, [`SignInError::Secret`].
    pub fn link_nonce(
        &self,
        relay: &Relay,
        store: &dyn SecretStore,
        name: &str,
    ) -> Result<String, SignInError> {
        let address = relay.registers_at()?;
        let kept = DeviceSecret::read(store, name)?.filter(|kept| kept.relay == address);
        let key = kept.and_then(|kept| kept.key());
        let none = || SyncError::AuthNeeded { reason: "this device has not signed in to this relay".into() };
        Ok(key.ok_or_else(none)?.public().nonce())
    }

    fn register(&self, relay: &Relay, credential: &str, key: &DeviceKey) -> Result<SignedIn, SignInError> {
        let device = self.device_id();
        let sent = serde_json::json!({
            "credential": credential,
            "device": device.to_string(),
            "key": key.public().to_string(),
            "signature": key.registration(device, credential),
            "name": self.device_name(),
            "platform": std::env::consts::OS,
            "version": concat!("motet ", env!("CARGO_PKG_VERSION")),
            "account": self.account().map_err(SyncError::Read)?.map(|account| account.to_string()),
        });
        match relay.register(sent.to_string())? {
            Registered::Account(account) => Ok(SignedIn { account }),
            Registered::KeyRefused(reason) => Err(SignInError::KeyRefused { reason }),
            Registered::OtherAccount(reason) => Err(SignInError::OtherAccount { reason }),
            Registered::NotOffered(reason) => Err(SignInError::NotOffered { reason }),
        }
    }
}

/// A new pair of keys, of which it is not known yet whether it is registered.
fn make_pending(
    address: String,
    store: &dyn SecretStore,
    pending: &str,
) -> Result<(DeviceSecret, DeviceKey), SignInError> {
    let random = platform::random().map_err(|e| SignInError::Random(e.to_string()))?;
    let key = DeviceKey::new(random);
    let kept = DeviceSecret::new(address, &key);
    kept.write(store, pending)?;
    Ok((kept, key))
}

/// Whether it is a token of a service, and not a sign-in key.
fn is_token(credential: &str) -> bool {
    credential.starts_with("eyJ") && credential.split('.').count() == 3
}

fn keep(
    signed_in: SignedIn,
    mut kept: DeviceSecret,
    store: &dyn SecretStore,
    name: &str,
) -> Result<SignedIn, SignInError> {
    kept.account = Some(signed_in.account.clone());
    kept.write(store, name)?;
    store.remove(&format!("{name}{PENDING}"))?;
    Ok(signed_in)
}
