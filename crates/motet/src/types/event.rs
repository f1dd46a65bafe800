//! What listeners hear after a commit.

use motet_proto::DeviceId;
use serde::Serialize;

/// A document changed, here or by another device. Sent after the change is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// True if this process received the change from a remote, false if this or another process made it on this device.
    pub remote: bool,
    /// The fields that were touched; none if another process made the change.
    pub fields: Vec<String>,
    /// Hex id of the device that made the change, if known. It is not if another process took it up.
    #[serde(serialize_with = "as_text")]
    pub device: Option<DeviceId>,
    /// When this device took it up, in milliseconds since 1970.
    pub time: i64,
    /// Events of one commit have the same number; later ones a larger one, until the replica is closed.
    pub transaction: u64,
}

pub(crate) fn as_text<S: serde::Serializer>(
    device: &Option<DeviceId>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    device.as_ref().map(ToString::to_string).serialize(serializer)
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is new on this device.
    Created,
    /// Its fields changed, or it came back after a deletion.
    Updated,
    /// It was deleted.
    Deleted,
}

/// Counts what listeners may have to look at beyond events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commits {
    /// Transactions that were committed: some change what is pending, and no document.
    pub(crate) count: u64,
    /// Those after which declarations, or what is kept about remotes, may be others.
    pub(crate) settings: u64,
}
