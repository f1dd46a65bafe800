//! The account that a device has signed in to: [`RelayAccount`].

use std::time::Duration;

use motet_proto::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::spaces::{SpaceError, Spaces, as_text};
use crate::sync::Relay;

/// The account that a device has signed in to at a relay: [`Relay::account`]. Each call asks the network, waits for the answer, and takes up to
/// [`SIGN_IN_TIMEOUT`](crate::limits::SIGN_IN_TIMEOUT). Only a device that has [signed in](crate::Replica::sign_in) has one; to others each is
/// [`SpaceError::NotThere`].
#[derive(Clone, Debug)]
pub struct RelayAccount(Spaces);

/// The devices of an account, as its relay knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountDevices {
    /// The name of the account.
    pub account: String,
    /// Those that are signed in, the one seen last in front.
    pub devices: Vec<AccountDevice>,
}

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountDevice {
    /// Its id, as changes name it.
    #[serde(with = "as_text")]
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// What it runs on, as it said itself.
    pub platform: String,
    /// The program that signed it in, and which version, as it said itself.
    pub version: String,
    /// When it signed in, in milliseconds since 1970.
    pub registered_at: i64,
    /// When it last connected, to within ten minutes, in milliseconds since 1970.
    pub last_seen_at: i64,
    /// It is the one that asks.
    pub is_this_one: bool,
}

/// Who the owner of an account is at another service, with whose identity tokens devices sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountIdentity {
    /// The service, as its tokens name it (`iss`).
    pub issuer: String,
    /// Its number or name for this person (`sub`).
    pub subject: String,
    /// An e-mail address or a name; may be empty.
    pub shown: String,
    /// When it was linked, in milliseconds since 1970.
    pub linked_at: i64,
    /// When a device last signed in with it, in milliseconds since 1970.
    pub last_used_at: Option<i64>,
}

/// A link that signs a browser in to the console of a relay: [`RelayAccount::console_link`]. Whoever has it can use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConsoleLink {
    /// What stands behind the address of the relay.
    pub path: String,
    /// For how many seconds it is good, if nobody uses it before.
    pub expires_in: u64,
}

/// What a relay has of an account, and how much it may have: [`RelayAccount::overview`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountOverview {
    /// The name of the account.
    pub account: String,
    /// When it was added, in milliseconds since 1970.
    pub created_at: i64,
    /// When it is erased, in milliseconds since 1970, if somebody has asked for that.
    pub erase_at: Option<i64>,
    /// Bytes that the relay keeps for it, as of the last minute.
    pub stored_bytes: u64,
    /// Documents that the relay keeps for it.
    pub documents: u64,
    /// How much it may have.
    pub limits: AccountLimits,
}

/// How much an account may have at its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountLimits {
    /// Bytes.
    pub stored_bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Spaces.
    pub spaces: u64,
    /// Devices that are connected at the same time.
    pub sessions: u64,
}

/// Something that was done to an account, one of its devices, or a space that it is or was a member of: [`RelayAccount::audit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// Its number: later ones have higher ones.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// To which account, or who owned the space.
    pub account: String,
    /// Who has done it: the id of a device, `account` (in the console), `operator`, or `relay`.
    pub actor: String,
    /// What, as a stable code: `device-signed-in`.
    pub action: String,
    /// The id of the device, key or space that it is about; empty if there is none.
    pub subject: String,
    /// The other account that it concerns; empty if there is none.
    pub member: String,
}

impl std::fmt::Debug for ConsoleLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path is a secret.
        f.debug_struct("ConsoleLink").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Relay {
    /// The account that this signs in to.
    pub fn account(&self) -> RelayAccount {
        RelayAccount(self.spaces())
    }
}

impl RelayAccount {
    /// The devices that are signed in, and what the account is called.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn devices(&self) -> Result<AccountDevices, SpaceError> {
        self.0.ask("GET", &["devices"], None)
    }

    /// Gives one of them another name.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn rename_device(&self, device: DeviceId, name: &str) -> Result<(), SpaceError> {
        self.0.ask("PATCH", &["devices", &device.to_string()], Some(json!({ "name": name })))
    }

    /// Signs one of them out: its sessions end within seconds, and what it has not sent stays on it. [`Relay::sign_out_device`] is for the one that asks.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn sign_out_device(&self, device: DeviceId) -> Result<(), SpaceError> {
        self.0.ask("DELETE", &["devices", &device.to_string()], None)
    }

    /// With which identities devices sign in to the account.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn identities(&self) -> Result<Vec<AccountIdentity>, SpaceError> {
        #[derive(Deserialize)]
        struct Listed {
            identities: Vec<AccountIdentity>,
        }
        self.0.ask("GET", &["identities"], None).map(|listed: Listed| listed.identities)
    }

    /// Lets devices sign in with another identity as well, so that the account outlives a service. The token names the
    /// [nonce](crate::Replica::link_nonce) of this device.
    ///
    /// # Errors
    /// [`SpaceError::NotPossible`] if the token is not good, or its identity is linked to another account.
    pub fn link_identity(&self, identity_token: &str) -> Result<(), SpaceError> {
        self.0.ask("POST", &["identities"], Some(json!({ "token": identity_token.trim() })))
    }

    /// Lets no device sign in with an identity any more. Those that have stay signed in.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn unlink_identity(&self, issuer: &str, subject: &str) -> Result<(), SpaceError> {
        self.0.ask("DELETE", &["identities"], Some(json!({ "issuer": issuer, "subject": subject })))
    }

    /// What the relay has of the account, how much it may have, and when it is erased.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn overview(&self) -> Result<AccountOverview, SpaceError> {
        self.0.ask("GET", &["account"], None)
    }

    /// Who has done what to the account, the latest first: up to 200 records, with numbers below `before` if one is given.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn audit(&self, before: Option<u64>) -> Result<Vec<AuditRecord>, SpaceError> {
        #[derive(Deserialize)]
        struct Listed {
            records: Vec<AuditRecord>,
        }
        let before = before.map(|before| before.to_string());
        let path: Vec<&str> = std::iter::once("audit").chain(before.as_deref()).collect();
        self.0.ask("GET", &path, None).map(|listed: Listed| listed.records)
    }

    /// Has the relay erase the account and everything that it has of it, after a time in which any device of the account can
    /// [take that back](Self::keep): one to thirty days, and seven if none is given. All devices are signed out then, and the spaces that the account owns end
    /// for everybody; what devices have stays on them. Asked once more it changes the time. Returns when, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`SpaceError::NotPossible`] if the time is too short or too long.
    pub fn erase(&self, after: Option<Duration>) -> Result<i64, SpaceError> {
        #[derive(Deserialize)]
        struct Asked {
            erase_at: i64,
        }
        let body = after.map_or_else(|| json!({}), |after| json!({ "after": after.as_secs() }));
        self.0.ask("POST", &["account", "erasure"], Some(body)).map(|asked: Asked| asked.erase_at)
    }

    /// Keeps an account that was to be erased.
    ///
    /// # Errors
    /// [`SpaceError::NotPossible`] if nobody has asked for that.
    pub fn keep(&self) -> Result<(), SpaceError> {
        self.0.ask("DELETE", &["account", "erasure"], None)
    }

    /// Makes a link to the console of the relay for this account. It signs one browser in, once; that ends when this device is signed out.
    ///
    /// # Errors
    /// [`SpaceError::NotThere`] also if the relay has no console.
    pub fn console_link(&self) -> Result<ConsoleLink, SpaceError> {
        self.0.ask("POST", &["console-links"], None)
    }
}
