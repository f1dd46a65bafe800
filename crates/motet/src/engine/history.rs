//! Versions of a document, and going back: to a version, or by one transaction.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::local::{Patch, diff, not_found};
use super::{Core, Loaded, touched};
use crate::doc::{ChangeHash, Deed, Fields, around, split_changes};
use crate::error::WriteError;
use crate::events::ChangeKind;
use crate::history::{Revision, RevisionKind};
use crate::schema::FieldKind;
use crate::status::Version;
use crate::store::{self, StorageError, Tx};

impl Core {
    /// The versions of a document, the latest first.
    pub(crate) fn revisions(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        limit: usize,
    ) -> Result<Vec<Revision>, WriteError> {
        let loaded = self.find_any(tx, collection, name)?;
        let devices: HashMap<_, _> = tx.devices()?.into_iter().collect();
        let mut revisions = Vec::new();
        let mut is_first = true;
        let mut made = loaded.document.made();
        made.retain(|made| made.deed != Deed::Genesis);
        // A row was taken up field by field.
        made.dedup_by(|later, earlier| later.deed == Deed::Adopt && earlier.deed == Deed::Adopt);
        for made in made {
            let kind = match made.deed {
                Deed::Delete => RevisionKind::Deleted,
                Deed::Restore => RevisionKind::Restored,
                _ if is_first => RevisionKind::Created,
                _ => RevisionKind::Updated,
            };
            is_first = false;
            revisions.push((kind, made));
        }
        let skip = revisions.len().saturating_sub(limit);
        let revisions = revisions.into_iter().skip(skip).rev().map(|(kind, made)| {
            let at =
                |heads: &[ChangeHash]| loaded.document.fields_at(&loaded.schema, heads).unwrap_or_default();
            let mut fields = match kind {
                RevisionKind::Created => at(&[made.hash]).keys().cloned().collect(),
                _ => touched(&at(&made.deps), &at(&[made.hash])),
            };
            fields.sort();
            Revision {
                version: Version(vec![made.hash.0]),
                kind,
                device: made.device,
                device_name: made.device.and_then(|device| devices.get(&device).cloned()),
                time: made.time,
                message: made.message,
                fields,
            }
        });
        let revisions = revisions.collect();
        self.put_back(loaded);
        Ok(revisions)
    }

    /// The fields of a document at a version.
    pub(crate) fn fields_at(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        version: &Version,
    ) -> Result<Fields, WriteError> {
        let loaded = self.find_any(tx, collection, name)?;
        let fields = loaded.document.fields_at(&loaded.schema, &version.hashes());
        self.put_back(loaded);
        fields.ok_or_else(|| WriteError::UnknownVersion { heads: version.to_string() })
    }

    /// Makes a document what it was at a version, by a new change.
    pub(crate) fn restore_version(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        version: &Version,
    ) -> Result<Version, WriteError> {
        let mut then = self.fields_at(tx, collection, name, version)?;
        let loaded = self.find_any(tx, collection, name)?;
        let mut now = loaded.fields.clone();
        let kind = if loaded.row.deleted { ChangeKind::Created } else { ChangeKind::Updated };
        // What stays on this device has no versions.
        now.retain(|name, _| !loaded.schema.keeps(name));
        then.retain(|name, _| !loaded.schema.keeps(name));
        self.write(tx, loaded, &diff(&now, &then), None, kind)
    }

    /// Takes back the latest transaction of this device that is not taken back yet. Returns its number, or `None` if
    /// there is none.
    pub(crate) fn undo(&mut self, tx: Tx<'_>) -> Result<Option<i64>, WriteError> {
        let Some(target) = tx.undo_candidate()? else { return Ok(None) };
        // What was done again was done by other changes than the first time.
        let latest = tx.latest_redo(target)?.unwrap_or(target);
        self.take_back(tx, latest)?;
        tx.note_undo(self.transaction as i64, target, false)?;
        Ok(Some(target))
    }

    /// Does again what the latest undo took back, if nothing else was written here since.
    pub(crate) fn redo(&mut self, tx: Tx<'_>) -> Result<Option<i64>, WriteError> {
        let Some((undo, target)) = tx.redo_candidate()? else { return Ok(None) };
        self.take_back(tx, undo)?;
        tx.note_undo(self.transaction as i64, target, true)?;
        Ok(Some(target))
    }

    pub(crate) fn create_restore_point(&mut self, tx: Tx<'_>, name: &str) -> store::Result<()> {
        self.catch_up_all(tx)?;
        tx.create_restore_point(name, self.shared.now_ms())
    }

    /// Makes documents what they were at a restore point. Returns how many changed.
    pub(crate) fn restore_point(
        &mut self,
        tx: Tx<'_>,
        point: &str,
        only: Option<&(String, String)>,
    ) -> Result<usize, WriteError> {
        self.catch_up_all(tx)?;
        let rows = tx.differing_from(point)?;
        let mut rows = rows.ok_or_else(|| WriteError::NoRestorePoint { name: point.to_owned() })?;
        if let Some((collection, name)) = only {
            rows.retain(|row| row.collection == *collection && row.name == *name);
        }
        for row in &rows {
            if row.heads.is_empty() {
                self.delete(tx, &row.collection, &row.name)?;
            } else {
                self.restore_version(tx, &row.collection, &row.name, &Version(row.heads.clone()))?;
            }
        }
        Ok(rows.len())
    }

    /// Undoes what one transaction did, and nothing that came after it.
    fn take_back(&mut self, tx: Tx<'_>, transaction: i64) -> Result<(), WriteError> {
        self.catch_up_all(tx)?;
        let mut changes: HashMap<i64, HashSet<ChangeHash>> = HashMap::new();
        for (document, bytes) in tx.changes_of(transaction)? {
            let split = split_changes(&bytes).map_err(|e| StorageError::Damaged(e.to_string()))?;
            changes.entry(document).or_default().extend(split.iter().map(crate::doc::Change::hash));
        }
        for (document, changes) in changes {
            let row = tx.document_by_id(document)?;
            if row.purged {
                continue;
            }
            let loaded = self.take(tx, row)?;
            self.take_back_in(tx, loaded, &changes)?;
        }
        Ok(())
    }

    fn take_back_in(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        changes: &HashSet<ChangeHash>,
    ) -> Result<(), WriteError> {
        let (collection, name) = (loaded.row.collection.clone(), loaded.row.name.clone());
        let made: Vec<_> = loaded.document.made();
        let deeds = |deed| made.iter().any(|made| made.deed == deed && changes.contains(&made.hash));
        let (before, after) = around(&made, changes);
        // Nothing but containers came before it.
        let is_first = before
            .iter()
            .all(|hash| made.iter().any(|made| made.hash == *hash && made.deed == Deed::Genesis));
        let deleted = loaded.row.deleted;
        if deeds(Deed::Delete) {
            self.put_back(loaded);
            return if deleted { self.restore(tx, &collection, &name).map(drop) } else { Ok(()) };
        }
        if deleted || deeds(Deed::Restore) || is_first {
            self.put_back(loaded);
            // What somebody else has deleted since stays where it is.
            return if deleted { Ok(()) } else { self.delete(tx, &collection, &name) };
        }
        let at = |heads: &[ChangeHash]| loaded.document.fields_at(&loaded.schema, heads).unwrap_or_default();
        let inverse = Inverse::new(&loaded, &at(&before), &at(&after));
        let version = Version(after.iter().map(|hash| hash.0).collect());
        for (field, by) in inverse.counters {
            let edit = self.edit(&loaded.schema, None, &loaded.fields);
            let changes = loaded.document.increment(&edit, &field, by);
            self.finish_field(tx, loaded, &field, changes)?;
            loaded = self.find_any(tx, &collection, &name)?;
        }
        for (field, add, take_out) in inverse.sets {
            let edit = self.edit(&loaded.schema, None, &loaded.fields);
            let changes = loaded.document.edit_set(&edit, &field, &add, &take_out);
            self.finish_field(tx, loaded, &field, changes)?;
            loaded = self.find_any(tx, &collection, &name)?;
        }
        if !inverse.merged.set.is_empty() {
            self.write(tx, loaded, &inverse.merged, Some(&version), ChangeKind::Updated)?;
            loaded = self.find_any(tx, &collection, &name)?;
        }
        self.write(tx, loaded, &inverse.plain, None, ChangeKind::Updated)?;
        Ok(())
    }

    /// A document, deleted or not.
    fn find_any(&mut self, tx: Tx<'_>, collection: &str, name: &str) -> Result<Box<Loaded>, WriteError> {
        let found = self.find(tx, collection, name)?.filter(|loaded| !loaded.row.purged);
        found.ok_or_else(|| not_found(collection, name))
    }
}

/// What takes back the step from one state to the next, by kind of field.
#[derive(Default)]
struct Inverse {
    counters: Vec<(String, i64)>,
    sets: Vec<(String, Vec<Json>, Vec<Json>)>,
    /// Texts and lists: taken back at the version they were written at, so that later edits stay.
    merged: Patch,
    /// Everything else, as far as nobody has written it since.
    plain: Patch,
}

impl Inverse {
    fn new(loaded: &Loaded, before: &Fields, after: &Fields) -> Self {
        let mut inverse = Self::default();
        for name in touched(before, after) {
            let (old, new) = (before.get(&name), after.get(&name));
            match (loaded.schema.kind(&name), old, new) {
                (FieldKind::Counter, old, Some(new)) => {
                    let number = |value: Option<&Json>| value.and_then(Json::as_i64).unwrap_or_default();
                    inverse.counters.push((name, number(old) - number(Some(new))));
                }
                (FieldKind::Set, old, Some(Json::Array(new))) => {
                    let old = old.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
                    let lacking =
                        |a: &[Json], b: &[Json]| a.iter().filter(|e| !b.contains(e)).cloned().collect();
                    inverse.sets.push((name, lacking(old, new), lacking(new, old)));
                }
                (FieldKind::Text, Some(old), Some(_)) | (FieldKind::List, Some(old), Some(_)) => {
                    inverse.merged.set.insert(name, old.clone());
                }
                _ => inverse.plain(&name, old, new, loaded.fields.get(&name)),
            }
        }
        inverse
    }

    fn plain(&mut self, name: &str, old: Option<&Json>, new: Option<&Json>, now: Option<&Json>) {
        match (old, new, now) {
            (Some(Json::Object(old)), Some(Json::Object(new)), Some(Json::Object(now))) => {
                let back = diff(new, old);
                let untouched = |field: &String| now.get(field) == new.get(field);
                let set: Fields = back.set.into_iter().filter(|(field, _)| untouched(field)).collect();
                if !set.is_empty() {
                    self.plain.set.insert(name.to_owned(), Json::Object(set));
                }
                let gone = back.remove.into_iter().filter(|path| path.first().is_some_and(&untouched));
                self.plain.remove.extend(gone.map(|path| [vec![name.to_owned()], path].concat()));
            }
            (_, new, now) if new != now => {}
            (Some(old), ..) => _ = self.plain.set.insert(name.to_owned(), old.clone()),
            (None, ..) => self.plain.remove.push(vec![name.to_owned()]),
        }
    }
}
