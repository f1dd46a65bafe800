//! Undo and redo of this device's own transactions.
//!
//! A transaction that changed documents is a *step*: it is kept with the versions that each of them had before and after. An undo goes
//! back over a step, a redo back over an undo; either is kept in the same way, so the next one goes back over it. Each document of a
//! step goes by itself, since an undo may be limited to one.
//!
//! *Exactly*: if a document is as the step left it, it becomes what it was before, whatever it holds. For that, a version that an
//! undo made counts as the earlier version that it is like: undo after undo goes back version by version.
//! *Around others*: if anything was written since, what the step did is taken out of what there is now ([`Document::without`]).
//!
//! [`Document::without`]: crate::doc::Document::without

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::local::{Patch, diff, write_error};
use super::{Commit, Core, Loaded, touched};
use crate::doc::{ChangeHash, Fields, Step, split_counted};
use crate::error::WriteError;
use crate::limits;
use crate::store::{self, StepDocument, StepKind, StepRow, StoredVersion, Tx};
use crate::types::ChangeKind;
use crate::types::{UndoScope, Undone, UndoneDocument, UndoneEffect};

/// A step that is to be gone back over, with those of its documents that are.
struct Candidate {
    step: StepRow,
    documents: Vec<StepDocument>,
}

impl Core {
    /// Takes back the latest step in the scope that is not taken back; `None` if there is none.
    pub(crate) fn undo(&mut self, tx: Tx<'_>, scope: &UndoScope) -> Result<Option<Undone>, WriteError> {
        self.go_back(tx, scope, StepKind::Undo)
    }

    /// Does again what the latest undo in the scope took back, if no transaction in the scope came after it.
    pub(crate) fn redo(&mut self, tx: Tx<'_>, scope: &UndoScope) -> Result<Option<Undone>, WriteError> {
        self.go_back(tx, scope, StepKind::Redo)
    }

    /// The running write did something to a document.
    pub(super) fn note_step(&mut self, document: i64, before: StoredVersion, after: StoredVersion) {
        let new = || StepDocument { document, before, after: after.clone() };
        self.write.steps.entry(document).or_insert_with(new).after = after.clone();
    }

    /// The write is about to end: what it did is kept as one step.
    pub(super) fn keep_step(&mut self, tx: Tx<'_>) -> store::Result<()> {
        if self.write.steps.is_empty() {
            return Ok(());
        }
        let documents: Vec<_> = std::mem::take(&mut self.write.steps).into_values().collect();
        let notes = (self.write.label.as_deref(), self.write.message.as_deref());
        tx.add_step(StepKind::Transaction, None, self.shared.now_ms(), notes, &documents)?;
        Ok(())
    }

    fn go_back(
        &mut self,
        tx: Tx<'_>,
        scope: &UndoScope,
        kind: StepKind,
    ) -> Result<Option<Undone>, WriteError> {
        while let Some(Candidate { step, documents }) = candidate(tx, scope, kind)? {
            let now = self.shared.now_ms();
            let mut crossed = Vec::new();
            let mut undone = Vec::new();
            let mut same = Vec::new();
            for document in &documents {
                let back = self.go_back_in(tx, document)?;
                // What cannot be reached any more is passed over for good.
                let unmoved = || (document.after.clone(), document.after.clone());
                let (before, after) = back.as_ref().map_or_else(unmoved, |back| back.step.clone());
                crossed.push(StepDocument { document: document.document, before, after });
                if let Some(back) = back {
                    same.extend(back.same_as.map(|earlier| (document.document, earlier)));
                    undone.push(back.told);
                }
            }
            // None of this is a transaction of the app.
            self.write.steps.clear();
            let notes = (step.label.as_deref(), step.message.as_deref());
            let id = tx.add_step(kind, Some(step.target), now, notes, &crossed)?;
            for (document, (heads, earlier)) in same {
                tx.note_same_version(document, &heads, &earlier, id)?;
            }
            if !undone.is_empty() {
                let (label, message) = (step.label, step.message);
                return Ok(Some(Undone { message, label, at: step.at, documents: undone }));
            }
        }
        Ok(None)
    }

    /// Goes back over what a step did to one document; `None` if nothing is left to go back to.
    fn go_back_in(&mut self, tx: Tx<'_>, step: &StepDocument) -> Result<Option<Back>, WriteError> {
        let Some((collection, name)) = tx.document_name(step.document)? else { return Ok(None) };
        let Some(loaded) = self.find(tx, &collection, &name)? else { return Ok(None) };
        let is_known =
            |version: &StoredVersion| version.heads.iter().all(|head| loaded.document.has_hash(head));
        let is_over = self.is_over(tx, &loaded)?
            || loaded.schema.is_local()
            || !loaded.row.deleted && {
                let after: Vec<_> = step.after.heads.iter().copied().map(ChangeHash).collect();
                loaded.document.is_made_again_by_others(self.shared.device, &after)
            };
        if is_over || !is_known(&step.before) || !is_known(&step.after) {
            self.put_back(loaded);
            return Ok(None);
        }
        let before = loaded.version();
        let shown_before = shown(&loaded);
        let like = |version: &StoredVersion| tx.earliest_like(step.document, &version.heads);
        let is_exact = like(&before)? == like(&step.after)?;
        let (goal, is_kept) = match is_exact {
            true => (exactly(&loaded, &step.before), false),
            false => self.around_others(&loaded, step),
        };
        let loaded = self.make(tx, loaded, &goal, (step, is_exact))?;
        let after = loaded.version();
        let earlier = like(&step.before)?;
        // Where nothing had to be written the step had no effect: what it led to is what it came from.
        let is_idle = after.heads == before.heads && after.deleted == before.deleted;
        let made = if is_idle { like(&step.after)? } else { after.heads.clone() };
        let same_as = (is_exact && made != earlier).then_some((made, earlier));
        let mut fields = touched(&shown_before, &shown(&loaded));
        fields.sort();
        let effect = match (before.deleted, after.deleted) {
            (true, false) => UndoneEffect::Restored,
            (false, true) => UndoneEffect::Deleted,
            _ if is_kept => UndoneEffect::Kept,
            _ if fields.is_empty() => UndoneEffect::Unchanged,
            _ => UndoneEffect::Updated,
        };
        self.put_back(loaded);
        let told = UndoneDocument { collection, id: name, effect, fields };
        Ok(Some(Back { step: (before, after), same_as, told }))
    }

    /// What a document is to be when a step is taken back although something was written since; and whether it would be gone, had
    /// others not written in it.
    fn around_others(&self, loaded: &Loaded, step: &StepDocument) -> (Goal, bool) {
        let device = self.shared.device;
        let [heads_before, heads] = heads_of(step);
        let as_it_is = || Goal { fields: None, deleted: loaded.row.deleted };
        let is_deleted_since = loaded.row.deleted
            && (!step.after.deleted || loaded.document.is_deleted_by_others(device, &heads));
        if is_deleted_since {
            return (as_it_is(), false);
        }
        let (from, to) = (exactly(loaded, &step.before), exactly(loaded, &step.after));
        let (mut from_fields, to_fields) = (from.fields.unwrap_or_default(), to.fields.unwrap_or_default());
        let makes = from.deleted && !to.deleted;
        if makes {
            // What the document was before it was deleted does not come back because it was made again.
            from_fields.retain(|name, value| to_fields.get(name) == Some(value));
        }
        let (none, now) = (Fields::new(), shared(loaded));
        let edit = self.edit(&loaded.schema, None, &none);
        let step =
            Step { edit: &edit, from: &from_fields, to: &to_fields, heads: [&heads_before, &heads], makes };
        let left = loaded.document.without(&step, &now);
        match makes {
            false => (Goal { fields: Some(left), deleted: false }, false),
            true if left == from_fields => (Goal { fields: None, deleted: true }, false),
            true => (Goal { fields: Some(left), deleted: false }, true),
        }
    }

    /// Makes a document what it is to be.
    fn make(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        goal: &Goal,
        step: (&StepDocument, bool),
    ) -> Result<Box<Loaded>, WriteError> {
        let patch = goal.fields.as_ref().map_or_else(Patch::default, |fields| diff(&shared(&loaded), fields));
        let is_empty = patch.set.is_empty() && patch.remove.is_empty();
        if !is_empty || (loaded.row.deleted && !goal.deleted) {
            loaded = self.write_back(tx, loaded, patch, step)?;
        }
        if goal.deleted && !loaded.row.deleted {
            let (collection, name) = (loaded.row.collection.clone(), loaded.row.name.clone());
            self.put_back(loaded);
            self.delete(tx, &collection, &name)?;
            loaded = self.find_any(tx, &collection, &name)?;
        }
        Ok(loaded)
    }

    /// Writes what a document is to be. What was there may come back, whatever rules were declared since.
    fn write_back(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        mut patch: Patch,
        (step, is_exact): (&StepDocument, bool),
    ) -> Result<Box<Loaded>, WriteError> {
        let (collection, name) = (loaded.row.collection.clone(), loaded.row.name.clone());
        let is_deleted = loaded.row.deleted;
        let kind = if is_deleted { ChangeKind::Created } else { ChangeKind::Updated };
        // Nothing is taken from memory: what is planned is read from the document once its containers are made.
        let shown = Fields::new();
        let mut edit = self.edit(&loaded.schema, None, &shown);
        let [before, after] = heads_of(step);
        // Concurrent values that came about by the step itself are settled by what was there before. What was open then stays so.
        (edit.settle, edit.open_at) = (is_exact, Some(&before[..]));
        // What others may have done by the same changes is taken back by the same changes: it does not go back twice.
        let is_alike = |name: &str| loaded.document.is_written_alike(&loaded.schema, name, [&before, &after]);
        let (mut alike, _) = split_counted(&loaded.document, &loaded.schema, &patch.set, &shown);
        alike.retain(|name, _| is_alike(name));
        // What the step took out is what others may be writing in: it comes back as what it was.
        let taken_out = match is_exact {
            true => loaded.document.taken_out(&loaded.schema, &patch.set, &before),
            false => Vec::new(),
        };
        for taken_out in &taken_out {
            alike.remove(&taken_out.name);
            patch.set.remove(&taken_out.name);
            if taken_out.leaves {
                patch.remove.push(vec![taken_out.name.clone()]);
            }
        }
        patch.set.retain(|name, _| !alike.contains_key(name));
        let mut changes = loaded.document.write_alike(&edit.alike(), &alike, &[]).map_err(write_error)?;
        let tells = is_deleted || !changes.is_empty() || !taken_out.is_empty();
        changes.extend(loaded.document.write(&edit, &patch.set, &patch.remove, tells).map_err(write_error)?);
        changes.extend(loaded.document.put_back(taken_out).map_err(write_error)?);
        let mut local = false;
        if is_deleted {
            // What it had in the trash that does not stay on this device any more comes back with it.
            let schema = loaded.schema.clone();
            let freed = loaded.local.free(&schema);
            local = !freed.is_empty();
            changes.extend(self.write_freed(&mut loaded, freed)?);
        }
        self.finish(tx, loaded, &Commit { stale: true, local, ..Commit::of(&changes, kind) })?;
        self.find_any(tx, &collection, &name)
    }
}

type Heads = Vec<[u8; 32]>;

/// What became of one document.
struct Back {
    /// Before and after it went back.
    step: (StoredVersion, StoredVersion),
    /// The version that it has now, and the earlier one that this is exactly like.
    same_as: Option<(Heads, Heads)>,
    told: UndoneDocument,
}

/// What a document is to be.
struct Goal {
    /// None: as they are.
    fields: Option<Fields>,
    deleted: bool,
}

/// A document as it was.
fn exactly(loaded: &Loaded, version: &StoredVersion) -> Goal {
    if version.heads.is_empty() {
        return Goal { fields: None, deleted: true };
    }
    let heads: Vec<_> = version.heads.iter().copied().map(ChangeHash).collect();
    let mut fields = loaded.document.fields_at(&loaded.schema, &heads).unwrap_or_default();
    // What has been declared since to stay on this device is not written.
    fields.retain(|name, _| !loaded.schema.is_device_local(name));
    Goal { fields: Some(fields), deleted: version.deleted }
}

/// The fields of a document that do not stay on this device.
fn shared(loaded: &Loaded) -> Fields {
    let mut fields = loaded.fields.clone();
    fields.retain(|name, _| !loaded.schema.is_device_local(name));
    fields
}

/// The heads before and after a step.
fn heads_of(step: &StepDocument) -> [Vec<ChangeHash>; 2] {
    [&step.before, &step.after].map(|version| version.heads.iter().copied().map(ChangeHash).collect())
}

/// What people see of a document.
fn shown(loaded: &Loaded) -> Fields {
    if loaded.row.deleted { Fields::new() } else { shared(loaded) }
}

/// Collection and id of each document of the step that an undo or a redo goes back over.
pub(super) fn documents_of_step(
    tx: Tx<'_>,
    scope: &UndoScope,
    kind: StepKind,
) -> store::Result<Vec<(String, String)>> {
    let documents = candidate(tx, scope, kind)?.map(|candidate| candidate.documents).unwrap_or_default();
    let names = documents.iter().map(|document| tx.document_name(document.document));
    names.filter_map(store::Result::transpose).collect()
}

/// The step that an undo or a redo goes back over.
fn candidate(tx: Tx<'_>, scope: &UndoScope, kind: StepKind) -> store::Result<Option<Candidate>> {
    // The latest undo or redo of what a transaction did to a document tells how that stands.
    let mut latest: HashMap<(i64, i64), (StepKind, StepDocument)> = HashMap::new();
    let mut before = i64::MAX;
    loop {
        let steps = tx.steps_before(before, limits::UNDO_READ)?;
        let Some(last) = steps.last() else { return Ok(None) };
        before = last.id;
        for mut step in steps {
            let is_labelled = scope.label() == step.label.as_deref();
            let all = std::mem::take(&mut step.documents);
            let mut documents = Vec::new();
            for document in all {
                let key = (step.target, document.document);
                if step.kind == StepKind::Transaction {
                    let document = match latest.remove(&key) {
                        Some((StepKind::Undo, _)) if kind == StepKind::Undo => continue,
                        Some((StepKind::Redo, redone)) => redone,
                        _ => document,
                    };
                    documents.push(document);
                } else if let Entry::Vacant(unknown) = latest.entry(key) {
                    unknown.insert((step.kind, document.clone()));
                    if step.kind == StepKind::Undo && kind == StepKind::Redo {
                        documents.push(document);
                    }
                }
            }
            if !is_labelled || !retain_in_scope(tx, scope, &mut documents)? {
                continue;
            }
            match (kind, step.kind) {
                (StepKind::Undo, StepKind::Transaction) | (StepKind::Redo, StepKind::Undo) => {
                    return Ok(Some(Candidate { step, documents }));
                }
                // A transaction in the scope came after whatever was undone before it.
                (StepKind::Redo, StepKind::Transaction) => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Drops the documents that are not in the scope; whether any is.
fn retain_in_scope(tx: Tx<'_>, scope: &UndoScope, documents: &mut Vec<StepDocument>) -> store::Result<bool> {
    if !scope.is_everywhere() {
        let mut kept = Vec::new();
        for document in documents.drain(..) {
            let name = tx.document_name(document.document)?;
            if name.is_some_and(|(collection, id)| scope.has(&collection, &id)) {
                kept.push(document);
            }
        }
        *documents = kept;
    }
    Ok(!documents.is_empty())
}
