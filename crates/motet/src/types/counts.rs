//! What an operation did, in numbers.

use serde::{Deserialize, Serialize};

/// What a round did to the documents of one collection on this device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionCounts {
    /// Documents that are new on this device.
    pub new: u64,
    /// Documents that changed.
    pub updated: u64,
    /// Documents that were deleted.
    pub deleted: u64,
    /// Concurrent writes that lost, newly found.
    pub conflicts: u64,
}

/// What was removed from the device. What was deleted before does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Removed {
    /// Documents that are not on this device any more.
    pub documents: u64,
    /// Documents that stay, because the relay does not hold all of them: those of local collections and of collections that are switched
    /// off, and, after [`Replica::clear_local`](crate::Replica::clear_local), those with values in local fields.
    pub kept: u64,
}
