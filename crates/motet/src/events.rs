//! What listeners hear after a commit.

use serde::Serialize;

/// A document changed, here or by another device. Sent after the change is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// True if the change came from a remote, false if it was made on this device.
    pub remote: bool,
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new on this device.
    Created,
    /// Its fields changed, or it came back after a deletion.
    Updated,
    /// It was deleted.
    Deleted,
}
