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
//! # Documents
//!
//! A document has an id within its collection, and fields. What an app reads is what the documents of the file show, as JSON or as the app's own types;
//! reading never loads a document. [`insert`](Collection::insert) makes one, [`update`](Collection::update) writes a record back, only what the app
//! changed in it, [`patch`](Collection::patch) sets some fields, [`upsert`](Collection::upsert) makes or changes. Every write that returns is
//! durable. [`Replica::transaction`] writes several documents together.
//!
//! # Merge rules
//!
//! Devices write without asking each other. How fields of two devices become one is declared by a [`Schema`], or beside the fields of a type by
//! [`Declare`]: a text merges by character, a counter adds up, a set and a list keep what either has put in, a rank only rises; of any other field the
//! later value shows, and the other one stands in a journal of [conflicts](DocumentHandle::conflicts). A declaration stays on its device and may change.
//!
//! # Syncing, and what to tell the user
//!
//! [`Replica::connect`] begins to sync and comes back by itself; [`SyncPolicy`] says when. [`Replica::status`] says how that stands in one of a few words,
//! [`Replica::watch_status`] whenever it changes, [`DocumentHandle::status`] of one document: saved here only, waiting, safe on the relay.
//! [`Collection::live`] is a list that follows what is there, for a view.
//!
//! # Spaces
//!
//! A file holds one space: the personal one of the account, or another that its devices call by a name ([`ReplicaBuilder::space`]). An app that has
//! several opens a replica for each, and connects each; a document goes from one to another by being inserted there and deleted here, and begins a new
//! history. A relay keeps each account's spaces apart, unless the program that runs it lets accounts share one; what an account may not send waits, with
//! [`SyncError::Forbidden`] in the status.
//!
//! # Loops and executors
//!
//! Writes and rounds exist twice: blocking, and as a future that any executor runs (`…_async`). Every other call that waits for the disk, such as a search,
//! an undo or a backup, runs on a thread of its own with [`Replica::spawn_blocking`]. A loop without an executor asks in passing whether something is
//! done (`try_durable`, `try_take`); what is watched can be awaited, waited for, asked in passing (`try_next`), or called back. The examples `window_loop`
//! and `async_app` show both kinds of apps.
//!
//! # Testing an app
//!
//! The crate `motet-relay` has a relay that runs in the process of a test, and a [`Connector`] brings devices to it, without a port; a connector that
//! fails is a network that does. [`ReplicaBuilder::clock`] takes a clock that a test moves.
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
#[cfg(feature = "relay")]
mod own_account;
mod platform;
mod query;
mod schema;
pub mod secrets;
#[cfg(feature = "relay")]
mod sign_in;
#[cfg(feature = "simulation")]
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "for tests of this workspace")]
pub mod simulation;
#[cfg(feature = "relay")]
mod spaces;
mod store;
mod sync;
mod time;
mod types;

pub use api::{
    AdoptSummary, Adoption, BadRows, ChangeLogSummary, ChangedDocument, Collection, Counts, DayTraffic,
    DocumentHandle, Editor, Events, Hit, Hits, ImportSummary, JsonError, KeyColumns, Listed, LiveQuery,
    Misfit, Missed, Peer, PeerWatch, PendingCall, PendingWrite, Place, Problem, Quarantined, Record, Records,
    RepairReport, Replica, ReplicaBuilder, SignOut, SqlTable, StatusWatch, Subscription, Transaction,
    TransactionCollection, Trashed, Unsaved, UnsavedField, VerifyReport, Violation, parse_json,
};
pub use error::{AccountError, OpenError, ReadError, SyncError, WriteError};
#[cfg(feature = "derive")]
pub use motet_derive::Declare;
pub use motet_proto::envelope::{self, Sealer};
pub use motet_proto::{AccountId, DeviceId, SpaceId};
#[cfg(feature = "relay")]
pub use own_account::{
    AccountDevice, AccountDevices, AccountIdentity, AccountLimits, AccountOverview, AuditRecord, ConsoleLink,
    RelayAccount,
};
pub use query::{Comparison, FieldRef, Filter, Order, Query, Snippet, field};
pub use schema::{CollectionSchema, Declare, DeletePolicy, Field, FieldKind, Rule, Schema, SchemaError};
pub use serde_json::json;
#[cfg(feature = "relay")]
pub use sign_in::{Issuer, SignInError, SignInMethods, SignedIn};
#[cfg(feature = "relay")]
pub use spaces::{SharedSpace, SpaceError, SpaceInvite, SpaceMember, SpaceRole, Spaces};
pub use store::StorageError;
#[cfg(feature = "relay")]
pub use sync::Transport;
pub use sync::{Connector, FrameChannel, Relay, SyncSummary, TokenRequest};
pub use types::{
    ChangeKind, CollectionCounts, Conditions, Conflict, ConflictKind, DocumentState, DocumentStatus, Event,
    FieldDiff, LastError, ParseVersionError, PendingDocument, PointRestored, PolicyError, ProblemKind,
    Refusal, Removed, Resolution, RestorePoint, Revision, RevisionKind, Status, SyncMode, SyncPolicy,
    SyncState, TextEdit, TextEdited, UndoScope, Undone, UndoneDocument, UndoneEffect, Version,
};
