//! Spaces that accounts share, as their members make and change them: [`Spaces`].

use std::time::Duration;

use motet_proto::SpaceId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::SyncError;
use crate::sync::{Declined, Relay, SpacesRequest};

/// The spaces that are shared with an account, or by it: [`Relay::spaces`]. Each call asks the network, waits for the answer, and takes up to
/// [`SIGN_IN_TIMEOUT`](crate::limits::SIGN_IN_TIMEOUT). A file holds one space: [`ReplicaBuilder::space`](crate::ReplicaBuilder::space) opens it
/// with the id.
///
/// ```no_run
/// # use motet::{Relay, Replica, SpaceRole, secrets::SecretFiles};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let replica = Replica::open("songs.db")?;
/// let secrets = SecretFiles::beside(replica.path());
/// let relay = Relay::new("https://relay.example.org").device_key_in(secrets, "device-key");
/// let band = relay.spaces().create("The band")?;
/// let code = relay.spaces().invite(band.id, SpaceRole::Writer, Some(Duration::from_secs(3_600)), false)?.code;
/// // Keola sends the code to Leilani, whose device says:
/// let joined = relay.spaces().join(&code)?;
/// let songs = Replica::builder("band.db").space(joined.id).open()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Spaces(Relay);

/// A space that accounts share, as a relay offers it to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedSpace {
    /// Its id: [`ReplicaBuilder::space`](crate::ReplicaBuilder::space) opens a file with it.
    #[serde(with = "as_text")]
    pub id: SpaceId,
    /// What its owner calls it.
    pub name: String,
    /// The account that it belongs to.
    pub owner: String,
    /// What this account may do with it; of an invitation, what it will be able to do.
    pub role: SpaceRole,
}

/// What an account may do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SpaceRole {
    /// Everything.
    Owner,
    /// Read and write, and have nothing erased from the relay.
    Writer,
    /// Read. What is written here waits on the device.
    Reader,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// An account that shares a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SpaceMember {
    /// The account.
    pub account: String,
    /// What it may do.
    pub role: SpaceRole,
}

/// A code with which others join a space. It is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SpaceInvite {
    /// The code. Whoever has it, and an account of the relay, can join.
    pub code: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at: i64,
}

/// Why nothing has become of what a device asked of spaces, or of its account. Everything stays as it was; after [`Relay`](Self::Relay) it may have been done all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// There is no such space, member or code, or this account may not know of it; or the relay shares no spaces.
    #[error("{reason}")]
    NotThere {
        /// What the relay said.
        reason: String,
    },
    /// Only the owner may.
    #[error("{reason}")]
    NotAllowed {
        /// What the relay said.
        reason: String,
    },
    /// It cannot be as other things are, or makes no sense: a name that is taken or is none, a limit that is reached.
    #[error("{reason}")]
    NotPossible {
        /// What the relay said.
        reason: String,
    },
    /// The relay cannot be reached, or failed.
    #[error(transparent)]
    Relay(#[from] SyncError),
}

/// Ids as the relay writes them.
pub(crate) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(crate) fn deserialize<'d, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'d>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Relay {
    /// The spaces that are shared with the account that this signs in to, or by it.
    pub fn spaces(&self) -> Spaces {
        Spaces(self.clone())
    }
}

impl Spaces {
    /// Those that this account shares, or that are shared with it, by name.
    ///
    /// # Errors
    /// [`SpaceError::Relay`], also from a relay of an earlier version.
    pub fn list(&self) -> Result<Vec<SharedSpace>, SpaceError> {
        #[derive(Deserialize)]
        struct Listed {
            spaces: Vec<SharedSpace>,
        }
        self.ask("GET", &["spaces"], None).map(|listed: Listed| listed.spaces)
    }

    /// Makes one, which this account owns.
    ///
    /// # Errors
    /// [`SpaceError::NotPossible`] if the name is taken or is none, or the account has too many; [`SpaceError::NotThere`] if accounts share no spaces on
    /// this relay.
    pub fn create(&self, name: &str) -> Result<SharedSpace, SpaceError> {
        self.ask("POST", &["spaces"], Some(json!({ "name": name })))
    }

    /// Gives one another name.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn rename(&self, space: SpaceId, name: &str) -> Result<SharedSpace, SpaceError> {
        self.ask("PATCH", &["spaces", &space.to_string()], Some(json!({ "name": name })))
    }

    /// Ends the sharing of one, for its owner too. Nobody reads its log any more; what devices have stays on them.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn delete(&self, space: SpaceId) -> Result<(), SpaceError> {
        self.ask("DELETE", &["spaces", &space.to_string()], None)
    }

    /// Who shares one: the owner first, the others by name.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn members(&self, space: SpaceId) -> Result<Vec<SpaceMember>, SpaceError> {
        #[derive(Deserialize)]
        struct Listed {
            members: Vec<SpaceMember>,
        }
        let path = ["spaces", &space.to_string(), "members"];
        self.ask("GET", &path, None).map(|listed: Listed| listed.members)
    }

    /// Changes what a member may do. A member that becomes the owner takes the space over, and this account goes on as a writer.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn set_role(&self, space: SpaceId, account: &str, role: SpaceRole) -> Result<(), SpaceError> {
        let path = ["spaces", &space.to_string(), "members", account];
        self.ask("PUT", &path, Some(json!({ "role": role })))
    }

    /// Takes one from a member: its sessions end within seconds, and what its devices have stays on them.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn remove(&self, space: SpaceId, account: &str) -> Result<(), SpaceError> {
        self.ask("DELETE", &["spaces", &space.to_string(), "members", account], None)
    }

    /// Leaves one. What is on the devices of this account stays there.
    ///
    /// # Errors
    /// [`SpaceError::NotPossible`] of its owner, who makes another member the owner before.
    pub fn leave(&self, space: SpaceId) -> Result<(), SpaceError> {
        self.ask("DELETE", &["spaces", &space.to_string(), "membership"], None)
    }

    /// Makes a code with which one account joins, or any number. `expires_after`: in whole seconds; two days if nothing is said, and 30 days at most.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn invite(
        &self,
        space: SpaceId,
        role: SpaceRole,
        expires_after: Option<Duration>,
        is_reusable: bool,
    ) -> Result<SpaceInvite, SpaceError> {
        let mut body = json!({ "role": role, "reusable": is_reusable });
        if let Some(after) = expires_after {
            body["expires_in"] = after.as_secs().into();
        }
        self.ask("POST", &["spaces", &space.to_string(), "invites"], Some(body))
    }

    /// Makes all codes of one worthless.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn revoke_invites(&self, space: SpaceId) -> Result<(), SpaceError> {
        self.ask("DELETE", &["spaces", &space.to_string(), "invites"], None)
    }

    /// What a code is for, without using it.
    ///
    /// # Errors
    /// [`SpaceError::NotThere`] if it is not good any more, or never was.
    pub fn invitation(&self, code: &str) -> Result<SharedSpace, SpaceError> {
        self.ask("GET", &["invites", code.trim()], None)
    }

    /// Joins the space that a code is for. Again it changes nothing.
    ///
    /// # Errors
    /// [`SpaceError::NotThere`] if the code is not good any more, or never was.
    pub fn join(&self, code: &str) -> Result<SharedSpace, SpaceError> {
        self.ask("POST", &["invites", code.trim()], None)
    }

    pub(crate) fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        path: &[&str],
        body: Option<serde_json::Value>,
    ) -> Result<T, SpaceError> {
        // Such parts would be taken for steps in a path.
        if path.iter().any(|part| ["", ".", ".."].contains(part)) {
            return Err(SpaceError::NotThere { reason: "there is no such name or code".into() });
        }
        let path = path.iter().map(ToString::to_string).collect();
        self.0.ask_spaces(SpacesRequest { method, path, body })?.map_err(|declined| match declined {
            Declined::Missing(reason) => SpaceError::NotThere { reason },
            Declined::Forbidden(reason) => SpaceError::NotAllowed { reason },
            Declined::Impossible(reason) => SpaceError::NotPossible { reason },
        })
    }
}

impl SpaceError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotThere { .. } => "space-not-there",
            Self::NotAllowed { .. } => "space-not-allowed",
            Self::NotPossible { .. } => "space-not-possible",
            Self::Relay(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Relay(error) if error.is_retryable())
    }
}

impl std::fmt::Display for SpaceRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Unknown => "unknown",
        })
    }
}

impl std::fmt::Debug for SpaceInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceInvite").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
