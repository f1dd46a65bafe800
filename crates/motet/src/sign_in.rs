//! Signing a device in to a relay: [`Replica::sign_in`].

use motet_proto::device_key::DeviceKey;
use motet_proto::limits as proto;

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

/// Why a device has not signed in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// The sign-in key is unknown, has expired, or was used by another device.
    #[error("{reason}")]
    KeyRefused {
        /// What the relay said.
        reason: String,
    },
    /// The sign-in key is for another account than the one whose documents this device has. It was not used. A database of its own, or signing
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
    #[error("a sign-in key has 1 to {max} bytes", max = proto::SIGN_IN_KEY_BYTES)]
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

impl Replica {
    /// Signs this device in to a relay, with a sign-in key that the relay's operator has made for an account
    /// (`motet-relay key create`). The device makes a key pair, keeps the secret half in `store` under `name`, and registers the public half.
    /// [`Relay::device_key_in`] speaks with it from then on; the sign-in key is not needed again.
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
        sign_in_key: &str,
        store: &dyn SecretStore,
        name: &str,
    ) -> Result<SignedIn, SignInError> {
        let sign_in_key = sign_in_key.trim();
        if sign_in_key.is_empty() || sign_in_key.len() > proto::SIGN_IN_KEY_BYTES {
            return Err(SignInError::BadKey);
        }
        let address = relay.registers_at()?;
        let pending = format!("{name}{PENDING}");
        // What an earlier attempt has perhaps registered, or what is signed in already: the relay knows it, or it does not.
        for place in [&*pending, name] {
            let kept = DeviceSecret::read(store, place)?.filter(|kept| kept.relay == address);
            let Some((kept, key)) = kept.and_then(|kept| kept.key().map(|key| (kept, key))) else { continue };
            match self.register(relay, sign_in_key, &key) {
                Ok(signed_in) => return keep(signed_in, kept, store, name),
                Err(SignInError::KeyRefused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let random = platform::random().map_err(|e| SignInError::Random(e.to_string()))?;
        let key = DeviceKey::new(random);
        let kept = DeviceSecret::new(address, &key);
        // Before it is sent: whatever becomes of the answer, the device has the key that it has registered.
        kept.write(store, &pending)?;
        match self.register(relay, sign_in_key, &key) {
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

    fn register(&self, relay: &Relay, sign_in_key: &str, key: &DeviceKey) -> Result<SignedIn, SignInError> {
        let device = self.device_id();
        let sent = serde_json::json!({
            "sign_in_key": sign_in_key,
            "device": device.to_string(),
            "key": key.public().to_string(),
            "signature": key.registration(device, sign_in_key),
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
