//! Foreign changes, applied so that none of them can do harm.
//!
//! Crafted changes can make Automerge panic, some after the document has moved. Everything here therefore works on a
//! clone and catches panics; what fails is named and set aside, the rest goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Change, ChangeHash, ReadDoc};

use super::chunk::open_foreign;
use super::{ChunkError, Displaced, Document, Identity, check_change, check_snapshot, split_changes};
use crate::limits;
use crate::schema::CollectionSchema;

/// What became of a batch of changes.
#[derive(Debug, Default)]
pub(crate) struct MergeOutcome {
    /// Changes that the document did not hold before, in the order given.
    pub(crate) applied: Vec<Change>,
    /// Changes that cannot be applied now.
    pub(crate) rejected: Vec<Rejected>,
    /// What the document held before, or was just given, and lost in a collision.
    pub(crate) displaced: Option<Displaced>,
}

/// A change that was set aside, and why.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) change: Change,
    pub(crate) reason: String,
    /// It may apply later, when what it depends on has arrived.
    pub(crate) waits: bool,
}

impl Document {
    /// Applies changes in one call if all goes well. `self` holds exactly the changes reported as applied
    /// afterwards, whatever happens.
    pub(crate) fn merge(&mut self, changes: Vec<Change>, schema: &CollectionSchema) -> MergeOutcome {
        let mut outcome = self.merge_ready(changes, schema);
        self.resolve_collisions(&mut outcome, schema);
        self.note_lifecycle(&outcome.applied);
        outcome
    }

    /// The same for changes that were refused before. Whether one can be applied may depend on what is here already, so no refusal is final: else
    /// devices to which the same changes came in another order would differ for ever. At most [`limits::REFUSED_RETRIES`] attempts fail.
    pub(crate) fn merge_refused(&mut self, changes: Vec<Change>, schema: &CollectionSchema) -> MergeOutcome {
        let outcome = self.merge_within(changes, schema, limits::REFUSED_RETRIES);
        self.note_lifecycle(&outcome.applied);
        outcome
    }

    /// Applies what can be applied, in the order given.
    pub(super) fn merge_ready(&mut self, changes: Vec<Change>, schema: &CollectionSchema) -> MergeOutcome {
        self.merge_within(changes, schema, limits::APPLY_FAILURES)
    }

    /// `attempts`: how many may fail.
    fn merge_within(
        &mut self,
        changes: Vec<Change>,
        schema: &CollectionSchema,
        attempts: usize,
    ) -> MergeOutcome {
        let mut outcome = MergeOutcome::default();
        let (ready, waiting) = self.sort_by_dependencies(changes);
        outcome.rejected = waiting
            .into_iter()
            .map(|change| Rejected {
                change,
                reason: "what it depends on has not arrived".into(),
                waits: true,
            })
            .collect();
        let mut left = attempts;
        self.apply(ready, schema, &mut outcome, &mut left);
        outcome
    }

    /// Applies all of these changes, or none.
    pub(super) fn apply_whole(&mut self, changes: Vec<Change>, schema: &CollectionSchema) -> bool {
        match self.try_apply(&changes, schema) {
            Ok(document) => {
                *self = document;
                true
            }
            Err(_) => false,
        }
    }

    /// All changes of a foreign document.
    pub(crate) fn changes(&self) -> Result<Vec<Change>, String> {
        Document::new(self.identity).lacking(self)
    }

    /// The changes of a loaded snapshot that this document lacks.
    pub(crate) fn lacking(&self, other: &Document) -> Result<Vec<Change>, String> {
        catch_unwind(AssertUnwindSafe(|| self.am.get_changes_added(&other.am)))
            .map_err(|_| "its changes cannot be read".into())
    }

    /// Splits off what cannot apply because something it depends on is neither here nor in the batch.
    fn sort_by_dependencies(&self, changes: Vec<Change>) -> (Vec<Change>, Vec<Change>) {
        if self.is_in_order(&changes) {
            // As it nearly always is: they are not moved, as changes in memory are large.
            return (changes, Vec::new());
        }
        let mut seen = HashSet::new();
        let mut pending: Vec<_> = changes
            .into_iter()
            .filter(|change| seen.insert(change.hash()) && !self.has_change(&change.hash()))
            .collect();
        // By change: how many of those that it depends on have yet to come. By what is missing: who waits for it.
        let mut lacks: Vec<usize> = Vec::with_capacity(pending.len());
        let mut waiting: HashMap<ChangeHash, Vec<usize>> = HashMap::new();
        for (n, change) in pending.iter().enumerate() {
            let missing: HashSet<_> = change.deps().iter().filter(|dep| !self.has_change(dep)).collect();
            lacks.push(missing.len());
            missing.into_iter().for_each(|dep| waiting.entry(*dep).or_default().push(n));
        }
        let mut next: VecDeque<usize> = (0..pending.len()).filter(|n| lacks[*n] == 0).collect();
        let mut order = Vec::with_capacity(pending.len());
        while let Some(n) = next.pop_front() {
            order.push(n);
            for follower in waiting.remove(&pending[n].hash()).unwrap_or_default() {
                lacks[follower] -= 1;
                if lacks[follower] == 0 {
                    next.push_back(follower);
                }
            }
        }
        let mut pending: Vec<Option<Change>> = pending.drain(..).map(Some).collect();
        let ready = order.into_iter().filter_map(|n| pending[n].take()).collect();
        (ready, pending.into_iter().flatten().collect())
    }

    /// Whether each of the changes is new, and what it depends on is here or before it.
    fn is_in_order(&self, changes: &[Change]) -> bool {
        let mut seen = HashSet::with_capacity(changes.len());
        changes.iter().all(|change| {
            change.deps().iter().all(|dep| seen.contains(dep) || self.has_change(dep))
                && seen.insert(change.hash())
                && !self.has_change(&change.hash())
        })
    }

    /// Applies all, or halves the batch until the culprits stand alone.
    fn apply(
        &mut self,
        changes: Vec<Change>,
        schema: &CollectionSchema,
        outcome: &mut MergeOutcome,
        left: &mut usize,
    ) {
        if changes.is_empty() {
            return;
        }
        if *left == 0 {
            let reason = "too many changes of this batch failed before it";
            outcome.rejected.extend(changes.into_iter().map(|change| Rejected {
                change,
                reason: reason.into(),
                waits: true,
            }));
            return;
        }
        match self.try_apply(&changes, schema) {
            Ok(document) => {
                *self = document;
                outcome.applied.extend(changes);
            }
            Err(reason) if changes.len() == 1 => {
                *left -= 1;
                let waits = false;
                outcome.rejected.extend(changes.into_iter().map(|change| Rejected {
                    change,
                    reason: reason.clone(),
                    waits,
                }));
            }
            Err(_) => {
                let mut first = changes;
                let second = first.split_off(first.len() / 2);
                self.apply(first, schema, outcome, left);
                // What the first half lost may be what the second needs.
                let (ready, waiting) = self.sort_by_dependencies(second);
                outcome.rejected.extend(waiting.into_iter().map(|change| Rejected {
                    change,
                    reason: "what it depends on was set aside".into(),
                    waits: true,
                }));
                self.apply(ready, schema, outcome, left);
            }
        }
    }

    fn try_apply(&self, changes: &[Change], schema: &CollectionSchema) -> Result<Document, String> {
        catch_unwind(AssertUnwindSafe(|| {
            let mut document = self.clone();
            let empty = empty_operations(changes)?;
            self.check_numbers(changes)?;
            document.am.apply_changes(changes.iter().cloned()).map_err(|e| e.to_string())?;
            document.check_operations(empty)?;
            if changes.iter().any(|change| !document.has_change(&change.hash())) {
                return Err("it was not taken up".to_owned());
            }
            if !self.holds_as_made(&document, changes.iter().map(Change::hash)) {
                return Err(KEPT_OTHERWISE.to_owned());
            }
            document.read_under_guard(schema)?;
            Ok(document)
        }))
        .unwrap_or_else(|_| Err("it makes the merge fail".into()))
    }

    /// Whether the document gives back the changes that it has taken over. Automerge keeps operations and not bytes: what of a change
    /// refers to nothing, or is put together as no device does, is left out, and what shows would depend on what came first.
    fn holds_as_made(&self, merged: &Document, made: impl IntoIterator<Item = ChangeHash>) -> bool {
        let held = self.am.get_changes_added(&merged.am);
        let held: HashSet<_> = held.iter().map(Change::hash).collect();
        made.into_iter().all(|hash| held.contains(&hash))
    }

    /// Puts a document together that has never been merged here, and reads all that it shows.
    pub(crate) fn load_foreign(
        identity: Identity,
        snapshot: Option<&[u8]>,
        changes: &[Vec<u8>],
        schema: &CollectionSchema,
    ) -> Result<Self, String> {
        let load = || {
            if let Some(snapshot) = snapshot {
                check_snapshot(snapshot).map_err(|e| e.to_string())?;
            }
            let mut parsed = Vec::with_capacity(changes.len());
            for bytes in changes {
                parsed.extend(split_changes(bytes).map_err(|e| e.to_string())?);
            }
            let empty = empty_operations(&parsed)?;
            // A saved form is checked as it is loaded.
            let made: Vec<_> = parsed.iter().map(Change::hash).collect();
            let mut document = Self::load(identity, snapshot, parsed).map_err(|e| e.to_string())?;
            document.check_numbers(&[])?;
            document.check_operations(empty)?;
            if !made.is_empty() && !Document::new(identity).holds_as_made(&document, made) {
                return Err(KEPT_OTHERWISE.to_owned());
            }
            document.read_under_guard(schema)?;
            Ok(document)
        };
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err("it makes the load fail".into()))
    }

    /// All changes of a document that another program has saved.
    ///
    /// # Errors
    /// Why it cannot be taken, for a person.
    pub(crate) fn foreign_changes(
        identity: Identity,
        saved: &[u8],
        schema: &CollectionSchema,
    ) -> Result<Vec<Change>, String> {
        let opened = open_foreign(saved).map_err(|error| error.to_string())?;
        let document = Self::load_foreign(identity, opened.saved.as_deref(), &opened.changes, schema)?;
        if document.heads().is_empty() {
            return Err("there are no changes in it".to_owned());
        }
        let changes = document.changes()?;
        changes.iter().try_for_each(check_change).map_err(|error| error.to_string())?;
        Ok(changes)
    }

    /// Operations are numbered through, by whoever writes next above all that it knows. A number far above what there is would leave no room for
    /// those of others: Automerge counts to 2^32.
    fn check_numbers(&self, more: &[Change]) -> Result<(), String> {
        if more.iter().any(|change| change.timestamp().unsigned_abs() > limits::CHANGE_TIME.unsigned_abs()) {
            return Err("its time is none".to_owned());
        }
        let last = more.iter().map(Change::max_op).max().unwrap_or(0);
        if !more.is_empty() && last <= limits::OPERATION_NUMBERS {
            return Ok(());
        }
        let (mut most, mut count) = (last, more.iter().map(|change| change.len() as u64).sum::<u64>());
        for held in self.am.get_changes_meta(&[]) {
            most = most.max(held.max_op);
            count = count.saturating_add((held.max_op + 1).saturating_sub(held.start_op));
        }
        match most > count.saturating_add(limits::OPERATION_NUMBERS) {
            true => Err("its operations have numbers far above those that there are".to_owned()),
            false => Ok(()),
        }
    }

    /// Refuses what no device would take as a saved document. `empty`: operations that hold nothing, which have just come in.
    fn check_operations(&self, empty: u64) -> Result<(), String> {
        let is_fine =
            |bytes| empty == 0 || self.am.stats().num_ops <= limits::DOCUMENT_EMPTY_OPERATIONS + bytes;
        // Saving it costs more than most changes.
        let is_fine = is_fine(0) || is_fine(self.am.save_nocompress().len() as u64);
        if is_fine { Ok(()) } else { Err(TOO_MANY.to_owned()) }
    }

    /// Reads everything that is shown, so that content which cannot be read fails here and not later.
    fn read_under_guard(&mut self, schema: &CollectionSchema) -> Result<(), String> {
        if let Some(misfit) = self.misfit() {
            return Err(format!("no document may hold it: {misfit}"));
        }
        self.shown = None;
        self.shown = Some(self.take_shown(schema));
        Ok(())
    }
}

/// Loads a foreign snapshot, and checks that it is what its header says and can be read.
pub(crate) fn load_snapshot(
    identity: Identity,
    bytes: &[u8],
    heads: &[[u8; 32]],
    schema: &CollectionSchema,
) -> Result<Document, String> {
    check_snapshot(bytes).map_err(|e: ChunkError| e.to_string())?;
    let load = || {
        let mut document = Document::load(identity, Some(bytes), Vec::new()).map_err(|e| e.to_string())?;
        document.check_numbers(&[])?;
        document.read_under_guard(schema)?;
        Ok(document)
    };
    let document = catch_unwind(load).unwrap_or_else(|_| Err("it makes the load fail".to_owned()))?;
    let found: HashSet<[u8; 32]> = document.heads().iter().map(|head| head.0).collect();
    if found.len() != heads.len() || !heads.iter().all(|head| found.contains(head)) {
        return Err("its heads are not those that its header names".into());
    }
    Ok(document)
}

const KEPT_OTHERWISE: &str = "it would be kept as another one";
const TOO_MANY: &str = "the document would hold too many operations that hold nothing";

/// Operations beyond one for each byte of the changes. An error if they are more than a document may have.
fn empty_operations(changes: &[Change]) -> Result<u64, String> {
    let empty = |change: &Change| (change.len() as u64).saturating_sub(change.raw_bytes().len() as u64);
    let empty = changes.iter().map(empty).sum();
    if empty > limits::DOCUMENT_EMPTY_OPERATIONS { Err(TOO_MANY.to_owned()) } else { Ok(empty) }
}
