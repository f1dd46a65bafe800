//! What a device that has signed in asks of its own account: [`AccountRequest`], [`AccountAnswer`].

use std::time::Duration;

use motet_proto::DeviceId;

/// What a device asks of its own account.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountRequest {
    /// Which devices are signed in.
    Devices,
    /// Give one of them another name.
    RenameDevice {
        /// Which.
        device: DeviceId,
        /// What people call it from now on.
        name: String,
    },
    /// Sign one of them out.
    RevokeDevice {
        /// Which.
        device: DeviceId,
    },
    /// Who may sign devices in by an identity token.
    Identities,
    /// Let whoever an identity token is about sign devices in as well. The token is for the device that asks.
    LinkIdentity {
        /// The token.
        token: String,
    },
    /// Let an identity sign in no more devices.
    UnlinkIdentity {
        /// The service, as its tokens name it.
        issuer: String,
        /// Who it is there.
        subject: String,
    },
    /// What the relay has of the account.
    Overview,
    /// Who has done what to the account, and to the spaces that it is or was a member of, the latest first.
    Audit {
        /// Only records with a lower number.
        before: Option<u64>,
    },
    /// Have the account erased after a time, or after another one if that was asked for already.
    Erase {
        /// How long it can be taken back: between [`ERASURE_LEAST`](crate::limits::ERASURE_LEAST) and
        /// [`ERASURE_LONGEST`](crate::limits::ERASURE_LONGEST).
        after: Duration,
    },
    /// Keep an account that was to be erased.
    Keep,
}

/// What a relay has of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overview {
    /// Its name.
    pub name: String,
    /// When it was added, in milliseconds since 1970.
    pub created_at: i64,
    /// When it is to be erased, in milliseconds since 1970, if somebody has asked for it.
    pub erase_at: Option<i64>,
    /// Bytes in its logs, as the limit `bytes_per_account` counts them, as of the last minute.
    pub stored_bytes: u64,
    /// Documents in its logs, as the limit `documents_per_account` counts them.
    pub documents: u64,
}

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The account.
    pub account: String,
    /// Its id, as its entries name it.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// What it runs on, as it said itself.
    pub platform: String,
    /// The program that signed it in, and which version, as it said itself.
    pub version: String,
    /// When it signed in, in milliseconds since 1970.
    pub registered_at: i64,
    /// When it last connected, in milliseconds since 1970, to within [`SEEN_KEPT_EVERY`](crate::limits::SEEN_KEPT_EVERY).
    pub last_seen_at: i64,
    /// When it was signed out, in milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

/// An identity at another service, and whose it is here. An account may have any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkedIdentity {
    /// The service, as its tokens name it (`iss`).
    pub issuer: String,
    /// Its number or name for this person (`sub`).
    pub subject: String,
    /// The account; `None` of one that was unlinked, or whose account was removed: it signs nobody in until it is linked anew.
    pub account: Option<String>,
    /// An e-mail address or a name; empty as long as no token has said one.
    pub shown: String,
    /// When it was linked, in milliseconds since 1970.
    pub linked_at: i64,
    /// When a device last signed in with it, in milliseconds since 1970.
    pub last_used_at: Option<i64>,
}

/// Something that was done to an account, one of its devices, or a space that it owned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// Its number: records count up, and those of one account have gaps.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// To which account, or who owned the space; empty if that account was erased.
    pub account: String,
    /// Who has done it: `operator`, `account`, `relay`, or the id of a device.
    pub actor: String,
    /// What, as a stable code: `device-signed-in`.
    pub action: String,
    /// The id of the device, key or space; the issuer of an identity; empty if there is none.
    pub subject: String,
    /// The other account that it concerns, as a member of a space; empty if there is none, or if that account was erased.
    pub member: String,
}

impl AuditRecord {
    /// As it is in answers and exports.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "number": self.number, "at": self.at, "account": self.account, "actor": self.actor,
            "action": self.action, "subject": self.subject, "member": self.member,
        })
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountAnswer {
    /// The devices that are signed in, the one seen last in front.
    Devices(Vec<Device>),
    /// The identities of the account.
    Identities(Vec<LinkedIdentity>),
    /// What the relay has of the account.
    Overview(Overview),
    /// Who has done what.
    Audit(Vec<AuditRecord>),
    /// When the account is erased, in milliseconds since 1970.
    ErasedAt(i64),
    /// It is done.
    Done,
}

/// Why it is not done. Everything stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// Who asks is no device that has signed in.
    #[error("only a device that has signed in can ask that")]
    NotOffered,
    /// The account has no such device or identity.
    #[error("this account has none of that kind")]
    NotThere,
    /// What was asked for makes no sense, or the token is not good.
    #[error("{0}")]
    Bad(String),
    /// It cannot be, as other things are.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done now.
    #[error("it cannot be done now; try again later")]
    Unavailable,
}

impl std::fmt::Debug for AccountRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A token is a secret.
        f.write_str(match self {
            Self::Devices => "Devices",
            Self::RenameDevice { .. } => "RenameDevice",
            Self::RevokeDevice { .. } => "RevokeDevice",
            Self::Identities => "Identities",
            Self::LinkIdentity { .. } => "LinkIdentity",
            Self::UnlinkIdentity { .. } => "UnlinkIdentity",
            Self::Overview => "Overview",
            Self::Audit { .. } => "Audit",
            Self::Erase { .. } => "Erase",
            Self::Keep => "Keep",
        })
    }
}
