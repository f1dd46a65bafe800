//! What an app calls.

mod account;
mod blocking;
mod builder;
mod collection;
mod conflict;
mod document;
mod editor;
mod exchange;
mod history;
mod integrity;
mod listed;
mod live;
mod presence;
mod replica;
mod sync;
mod transaction;
mod watch;

pub use account::SignOut;
pub use blocking::PendingCall;
pub use builder::ReplicaBuilder;
pub use collection::{Collection, Record, Trashed, Violation};
pub use document::DocumentHandle;
pub use editor::{Editor, Unsaved, UnsavedField};
pub use exchange::{
    AdoptSummary, Adoption, BadRows, ChangeLogSummary, ImportSummary, JsonError, KeyColumns, parse_json,
};
pub use integrity::{Problem, Quarantined, RepairReport, VerifyReport};
pub use listed::{Hit, Hits, Listed, Misfit, Records};
pub use live::LiveQuery;
pub use presence::{Peer, PeerWatch, Place};
pub use replica::{ChangedDocument, Counts, Replica, SqlTable};
pub use sync::DayTraffic;
pub use transaction::{PendingWrite, Transaction, TransactionCollection};
pub use watch::{Events, Missed, StatusWatch, Subscription};
