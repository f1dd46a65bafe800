//! Motet: local-first replication for apps.
//!
//! Each piece, task, meal or song is one Automerge document in an SQLite file on the device; a small relay passes
//! changes between devices; concurrent edits merge without loss; and the app can always say what is saved here, what
//! is safe on the relay, and since when.
//!
//! Begin with [`Replica`]. Reading and writing goes through [`Collection`] (the app's own types, or JSON) and
//! [`Transaction`] (several documents at once); [`Replica::connect`] syncs with a relay, [`Replica::status`] and
//! [`Replica::document_status`] say how that stands.
//!
//! ```no_run
//! use motet::{Relay, Replica, Schema, json};
//!
//! let replica = Replica::builder("songs.db").device_name("Keola's phone").open()?;
//! replica.apply_schema(&Schema::new().text("pieces", "lyrics"))?;
//! let pieces = replica.documents("pieces");
//! pieces.insert(&json!({ "title": "Aloha ʻOe", "lyrics": "Haʻaheo ka ua i nā pali\n" }))?;
//!
//! replica.connect(Relay::new("https://relay.example.org").token("secret"))?;
//! println!("{}", replica.sync_now()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How the crate is built
//!
//! ```text
//! replica, collection, transaction      what an app calls
//!     │                     │
//!     │ reads               │ writes               sync (driver, connections)
//!     ▼                     ▼                        │ received entries, outbox
//!   store::readers        engine  ◀──────────────────┘
//!     │                  ╱      ╲
//!     ▼                 ▼        ▼
//!   SQLite ◀──────── store      doc ──▶ Automerge
//! ```
//!
//! **Architecture invariants:** only `store` knows SQLite and only `doc` knows Automerge; reads never load a
//! document; memory never holds a change that disk lacks; nothing is sent before it is on disk here.

mod account;
mod care;
mod collection;
mod conflicts;
mod doc;
mod editor;
mod engine;
mod error;
mod events;
mod exchange;
mod find;
mod finite;
mod history;
pub mod limits;
mod machine;
mod replica;
mod schema;
pub mod secrets;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod status;
mod store;
mod sync;
mod time;
mod transaction;

pub use account::SignOut;
pub use care::{Problem, ProblemKind, Quarantined, RepairReport, VerifyReport};
pub use collection::{Collection, Record, Trashed, Violation};
pub use conflicts::{Conflict, ConflictKind, Resolution};
pub use editor::{Editor, Unsaved, UnsavedField};
pub use engine::{CollectionCounts, Removed};
pub use error::{AccountError, OpenError, ReadError, SyncError, WriteError};
pub use events::{ChangeKind, Event};
pub use exchange::{
    AdoptSummary, Adoption, BadRows, ChangeLogSummary, ImportSummary, JsonError, KeyColumns, Refusal,
    parse_json,
};
pub use find::query::{Comparison, FieldRef};
pub use find::{Filter, Hit, Hits, Listed, LiveQuery, Misfit, Order, Query, Records, Snippet, field};
pub use history::{
    FieldDiff, PointRestored, RestorePoint, Revision, RevisionKind, UndoScope, Undone, UndoneDocument,
    UndoneEffect,
};
pub use motet_derive::Declare;
pub use motet_proto::{AccountId, DeviceId};
pub use replica::{ChangedDocument, Counts, Replica, ReplicaBuilder, SqlTable};
pub use schema::{CollectionSchema, Declare, DeletePolicy, Field, FieldKind, Rule, Schema, SchemaError};
pub use serde_json::json;
pub use status::{
    DocumentState, DocumentStatus, LastError, ParseVersionError, PendingDocument, Status, SyncState, Version,
};
pub use store::StorageError;
pub use sync::{
    Conditions, DayTraffic, Peer, PeerWatch, Place, PolicyError, Relay, SyncMode, SyncPolicy, SyncSummary,
    TokenRequest, Transport,
};
pub use transaction::{PendingWrite, Transaction};
