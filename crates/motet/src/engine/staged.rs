//! What is done in memory and counts once it is committed: by the running write, and by the running transaction, which may have several
//! writes.

use std::collections::{BTreeMap, HashMap};

use motet_proto::DocumentId;

use super::send_slot::Ready;
use super::{Composed, Held, Loaded};
use crate::store::{RemoteRow, StepDocument};
use crate::types::{Event, SyncPolicy};

/// What one write has done. After a failure nothing of it is left.
#[derive(Default)]
pub(super) struct StagedWrite {
    /// Note of the app's user for what the write does.
    pub(super) message: Option<String>,
    /// Whose undo history the write belongs to, if it has one of its own.
    pub(super) label: Option<String>,
    /// What was composed before the transaction for the next write.
    pub(super) composed: Option<Box<Composed>>,
    pub(super) documents: HashMap<DocumentId, Box<Loaded>>,
    /// What was done to documents, by row id, as far as it can be undone.
    pub(super) steps: BTreeMap<i64, StepDocument>,
    /// What listeners hear.
    pub(super) events: Vec<Event>,
    /// Conflicts for the log.
    pub(super) noticed: Vec<String>,
    /// Documents that wait to be sent, more or fewer.
    pub(super) pending: i64,
    /// It changed remotes or what waits for them as a whole: that is counted anew.
    pub(super) recounts: bool,
    /// Bytes of changes that it has put into the outbox; very many if it sends whole documents.
    pub(super) bytes: usize,
    /// It changed schema or remotes.
    pub(super) settings_changed: bool,
    /// The policy that it has kept.
    pub(super) policy: Option<SyncPolicy>,
    /// Remotes whose log has been read to its end, or need not be: as they were in [`Core::reseeding`](super::Core).
    pub(super) reseeded: Vec<(i64, HashMap<i64, Held>)>,
}

/// What the writes of one transaction have done.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) documents: HashMap<DocumentId, Box<Loaded>>,
    pub(super) events: Vec<Event>,
    pub(super) noticed: Vec<String>,
    pub(super) pending: i64,
    pub(super) recounts: bool,
    pub(super) settings_changed: bool,
    pub(super) policy: Option<SyncPolicy>,
    pub(super) reseeded: Vec<(i64, HashMap<i64, Held>)>,
    /// What the status is set to.
    pub(super) recounted: Option<(Vec<RemoteRow>, i64)>,
    /// What can be sent.
    pub(super) ready: Option<Ready>,
    /// It has taken the last of what was purged out of the file: SQLite's log is emptied next.
    pub(super) scrubbed: bool,
}

impl Staged {
    /// A write has ended well.
    pub(super) fn merge(&mut self, write: StagedWrite) {
        // Nothing of a write is left out here without a reason: these four are of the write alone.
        let StagedWrite { message: _, label: _, composed: _, steps: _, bytes: _, .. } = &write;
        self.documents.extend(write.documents);
        self.events.extend(write.events);
        self.noticed.extend(write.noticed);
        self.pending += write.pending;
        self.recounts |= write.recounts;
        self.settings_changed |= write.settings_changed;
        self.policy = write.policy.or(self.policy.take());
        self.reseeded.extend(write.reseeded);
    }
}
