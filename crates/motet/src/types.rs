//! Plain data that several layers share and that an app sees. It knows no other module but the limits.

mod conflict;
mod counts;
mod event;
mod fields;
mod finite;
mod history;
mod policy;
mod problem;
mod refusal;
mod status;
mod text;
mod version;

pub use conflict::{Conflict, ConflictKind, Resolution};
pub use counts::{CollectionCounts, Removed};
pub(crate) use event::Commits;
pub use event::{ChangeKind, Event};
pub(crate) use fields::Fields;
pub(crate) use finite::not_finite;
pub use history::{
    FieldDiff, PointRestored, RestorePoint, Revision, RevisionKind, UndoScope, Undone, UndoneDocument,
    UndoneEffect,
};
pub use policy::{Conditions, PolicyError, SyncMode, SyncPolicy};
pub use problem::ProblemKind;
pub use refusal::Refusal;
pub use status::{DocumentState, DocumentStatus, LastError, PendingDocument, Status, SyncState};
pub use text::{TextEdit, TextEdited};
pub use version::{ParseVersionError, Version};
