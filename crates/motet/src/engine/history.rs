//! Versions of a document, and going back to one.

use std::collections::HashMap;

use super::local::{diff, not_found};
use super::{Core, Loaded, touched};
use crate::doc::{ChangeAction, ChangeHash, Fields};
use crate::error::WriteError;
use crate::store::{self, Tx};
use crate::types::ChangeKind;
use crate::types::Version;
use crate::types::{PointRestored, Revision, RevisionKind};

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
        made.retain(|made| !matches!(made.action, ChangeAction::Genesis | ChangeAction::TakenUp));
        // A row was taken up field by field.
        made.dedup_by(|later, earlier| {
            let is_same =
                [later.action, earlier.action] == [ChangeAction::Adopt; 2] && later.time == earlier.time;
            if is_same {
                earlier.after = std::mem::take(&mut later.after);
            }
            is_same
        });
        for made in made {
            let kind = match made.action {
                ChangeAction::Delete => RevisionKind::Deleted,
                ChangeAction::Restore => RevisionKind::Restored,
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
                RevisionKind::Created => at(&made.after).keys().cloned().collect(),
                _ => touched(&at(&made.before), &at(&made.after)),
            };
            fields.sort();
            Revision {
                version: Version(made.after.iter().map(|head| head.0).collect()),
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

    /// Makes a document what it was at a version, by a new change; deleted, if it was deleted then.
    pub(crate) fn restore_version(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        version: &Version,
    ) -> Result<Version, WriteError> {
        let mut then = self.fields_at(tx, collection, name, version)?;
        let loaded = self.find_any(tx, collection, name)?;
        let (was_deleted, is_deleted) = (was_deleted(&loaded, version), loaded.row.deleted);
        if was_deleted && is_deleted {
            let now = Version(loaded.row.heads.clone());
            self.put_back(loaded);
            return Ok(now);
        }
        let mut now = loaded.fields.clone();
        let kind = if is_deleted { ChangeKind::Created } else { ChangeKind::Updated };
        // What stays on this device has no versions.
        now.retain(|name, _| !loaded.schema.is_device_local(name));
        then.retain(|name, _| !loaded.schema.is_device_local(name));
        let restored = self.write(tx, loaded, &diff(&now, &then), None, kind)?;
        if !was_deleted {
            return Ok(restored);
        }
        // In the trash it is what it was there.
        self.delete(tx, collection, name)
    }

    pub(crate) fn create_restore_point(&mut self, tx: Tx<'_>, name: &str) -> store::Result<()> {
        self.catch_up_all(tx)?;
        tx.create_restore_point(name, self.shared.now_ms())
    }

    /// Makes documents what they were at a restore point.
    pub(crate) fn restore_point(
        &mut self,
        tx: Tx<'_>,
        point: &str,
        only: Option<&(String, String)>,
    ) -> Result<PointRestored, WriteError> {
        self.catch_up_all(tx)?;
        let rows = tx.differing_from(point)?;
        let mut rows = rows.ok_or_else(|| WriteError::NoRestorePoint { name: point.to_owned() })?;
        let mut purged = tx.purged_since(point)?;
        if let Some((collection, name)) = only {
            rows.retain(|row| row.collection == *collection && row.name == *name);
            purged.retain(|gone| gone.0 == *collection && gone.1 == *name);
        }
        let mut changed = 0;
        for row in &rows {
            if let Some(point) = row.arrived_since
                && self.begun_before(tx, &row.collection, &row.name, point)?
            {
                continue;
            }
            if row.heads.is_empty() {
                self.delete(tx, &row.collection, &row.name)?;
                changed += 1;
            } else {
                let before = tx.document(&row.collection, &row.name)?.map(|row| row.heads);
                let now =
                    self.restore_version(tx, &row.collection, &row.name, &Version(row.heads.clone()))?;
                // What was brought back before is as it was then, by later changes.
                changed += usize::from(before != Some(now.0));
            }
        }
        Ok(PointRestored { changed, purged })
    }

    /// Whether a document was begun before `time` (milliseconds since 1970), wherever that was.
    fn begun_before(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        time: i64,
    ) -> Result<bool, WriteError> {
        let loaded = self.find_any(tx, collection, name)?;
        let is_before = loaded.document.begun_at().is_some_and(|begun| begun < time);
        self.put_back(loaded);
        Ok(is_before)
    }

    /// A document, deleted or not.
    pub(super) fn find_any(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
    ) -> Result<Box<Loaded>, WriteError> {
        let found = self.find(tx, collection, name)?.filter(|loaded| !loaded.row.purged);
        found.ok_or_else(|| not_found(collection, name))
    }
}

/// Whether a document was deleted at a version.
fn was_deleted(loaded: &Loaded, version: &Version) -> bool {
    let is_it = |after: &[ChangeHash]| {
        after.len() == version.0.len() && after.iter().all(|head| version.0.contains(&head.0))
    };
    loaded.document.made().iter().any(|made| made.action == ChangeAction::Delete && is_it(&made.after))
}
