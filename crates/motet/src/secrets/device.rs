//! The key of a device that has signed in to a relay, as it is kept, and the tokens that it signs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use motet_proto::device_key::DeviceKey;
use serde::{Deserialize, Serialize};

use super::{SecretError, SecretStore};
use crate::sync::{Relay, TokenRequest};
use crate::time::now_ms;

/// What is kept under one name, as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeviceSecret {
    /// The address of the relay. A key is good for one: another one could use the tokens that it is shown.
    pub(crate) relay: String,
    /// The secret half, in base64url.
    key: String,
    /// Whose device it is; `None` until the relay has said so.
    pub(crate) account: Option<String>,
}

impl DeviceSecret {
    pub(crate) fn new(relay: String, key: &DeviceKey) -> Self {
        Self { relay, key: key.secret(), account: None }
    }

    /// What a store has; `None` if that is nothing, or something else.
    pub(crate) fn read(store: &dyn SecretStore, name: &str) -> Result<Option<Self>, SecretError> {
        Ok(store.get(name)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    pub(crate) fn write(&self, store: &dyn SecretStore, name: &str) -> Result<(), SecretError> {
        let text = serde_json::to_string(self).map_err(|e| SecretError::App(Box::new(e)))?;
        store.set(name, &text)
    }

    /// `None` if it is none.
    pub(crate) fn key(&self) -> Option<DeviceKey> {
        DeviceKey::from_secret(&self.key).ok()
    }
}

impl Relay {
    /// Speaks as the device that has [signed in](crate::Replica::sign_in), with the key that a store keeps under a name: a new token is signed with
    /// it for each connection. It is read each time. Where there is none, or it was made for another relay, the status says
    /// [`AuthNeeded`](crate::SyncError::AuthNeeded) with the reason; and so it does once the device was signed out at the relay, by its owner or by
    /// an operator. What was written meanwhile is kept, and sent when the device has signed in anew.
    ///
    /// A clock that is wrong does not matter: what a relay says of its time is taken into account.
    #[must_use]
    pub fn device_key_in(self, store: impl SecretStore, name: &str) -> Self {
        let (store, name) = (Arc::new(store), name.to_owned());
        let address = self.normal_address();
        let off = AtomicI64::new(0);
        self.token_provider(move |request| {
            std::future::ready(sign(&*store, &name, address.as_deref(), request, &off))
        })
    }
}

/// `off`: by how many milliseconds the relay's clock is ahead of the one here, as far as that matters.
fn sign(
    store: &dyn SecretStore,
    name: &str,
    address: Option<&str>,
    request: TokenRequest,
    off: &AtomicI64,
) -> Result<String, String> {
    let kept = DeviceSecret::read(store, name).map_err(|error| error.to_string())?;
    let kept = kept.ok_or("this device has not signed in")?;
    if address.is_some_and(|address| address != kept.relay) {
        return Err(format!("this device has signed in to {}, and not to this relay", kept.relay));
    }
    let key = kept.key().ok_or("the key that is kept on this device is none: sign in anew")?;
    if let Some(time) = request.relay_time {
        off.store(time.saturating_sub(now_ms()), Ordering::Relaxed);
    }
    let now = now_ms().saturating_add(off.load(Ordering::Relaxed));
    Ok(key.token(u64::try_from(now / 1_000).unwrap_or_default()))
}
