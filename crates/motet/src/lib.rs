//! Motet: local-first replication for apps.
//!
//! Each piece, task, meal or song is one Automerge document in an SQLite file on the device; a small relay passes
//! changes between devices; concurrent edits merge without loss; and the app can always say what is saved here, what
//! is safe on the relay, and since when.
//!
//! Begin with [`Replica`]. Reading and writing goes through [`Collection`] (the app's own types, or JSON) and
//! [`Transaction`] (several documents at once); [`Replica::connect`] syncs with a relay, [`Replica::status`] and
//! [`DocumentHandle::status`] say how that stands.
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
//! api (replica, collection, transaction)
//!     │                     │
//!     │ reads               │ writes               sync (driver, connections)
//!     ▼                     ▼                        │ received entries, outbox
//!   store::readers        engine  ◀──────────────────┘
//!     │                  ╱      ╲
//!     ▼                 ▼        ▼
//!   SQLite ◀──────── store      doc ──▶ Automerge
//! ```
//!
//! **Architecture invariants:** imports between modules go down one way; only `store` uses SQLite and only `doc` uses Automerge; reads
//! never load a document; memory never holds a change that disk lacks; nothing is sent before it is on disk here.

#![warn(missing_debug_implementations)]

mod api;
mod doc;
mod engine;
mod error;
pub mod limits;
mod platform;
mod query;
mod schema;
pub mod secrets;
#[cfg(feature = "simulation")]
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "for tests of this workspace")]
pub mod simulation;
mod store;
mod sync;
mod time;
mod types;

pub use api::{
    AdoptSummary, Adoption, BadRows, ChangeLogSummary, ChangedDocument, Collection, Counts, DayTraffic,
    DocumentHandle, Editor, Events, Hit, Hits, ImportSummary, JsonError, KeyColumns, Listed, LiveQuery,
    Misfit, Missed, Peer, PeerWatch, PendingWrite, Place, Problem, Quarantined, Record, Records,
    RepairReport, Replica, ReplicaBuilder, SignOut, SqlTable, StatusWatch, Subscription, Transaction,
    TransactionCollection, Trashed, Unsaved, UnsavedField, VerifyReport, Violation, parse_json,
};
pub use error::{AccountError, OpenError, ReadError, SyncError, WriteError};
#[cfg(feature = "derive")]
pub use motet_derive::Declare;
pub use motet_proto::{AccountId, DeviceId};
pub use query::{Comparison, FieldRef, Filter, Order, Query, Snippet, field};
pub use schema::{CollectionSchema, Declare, DeletePolicy, Field, FieldKind, Rule, Schema, SchemaError};
pub use serde_json::json;
pub use store::StorageError;
#[cfg(feature = "relay")]
pub use sync::Transport;
pub use sync::{Connector, FrameChannel, Relay, SyncSummary, TokenRequest};
pub use types::{
    ChangeKind, CollectionCounts, Conditions, Conflict, ConflictKind, DocumentState, DocumentStatus, Event,
    FieldDiff, LastError, ParseVersionError, PendingDocument, PointRestored, PolicyError, ProblemKind,
    Refusal, Removed, Resolution, RestorePoint, Revision, RevisionKind, Status, SyncMode, SyncPolicy,
    SyncState, UndoScope, Undone, UndoneDocument, UndoneEffect, Version,
};
