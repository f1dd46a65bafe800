//! What can be wrong with a file.

use serde::Serialize;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// The database file itself.
    File,
    /// Rows beside the documents: remotes, settings, devices, the journal of conflicts, undo, history. What is not known any more is set to what
    /// claims nothing, or goes.
    Rows,
    /// Changes that cannot be read, or some that are missing. Repaired by what the relay holds.
    Changes,
    /// A saved document that speeds up loading. Repaired from the changes.
    Snapshot,
    /// What reads are served from. Repaired from the changes.
    Projection,
    /// What waits to be sent. Sealed again from the changes.
    Outbox,
}
