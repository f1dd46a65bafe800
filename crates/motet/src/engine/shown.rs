//! Words that stand in what a document shows and in no change any more. If no remote ever had them, nobody else has: a repair writes them anew.

use super::local::{Patch, diff};
use super::{Core, DocumentRow};
use crate::doc::Fields;
use crate::error::WriteError;
use crate::store::{self, Tx, change_id};

/// What a document showed before it was repaired, where no remote can have what was lost of it.
pub(super) struct OnlyShown {
    fields: Fields,
    is_deleted: bool,
    /// The document had changes that it did not show yet.
    is_behind: bool,
}

impl OnlyShown {
    /// `None` if that cannot be read, or there is nothing to be kept.
    pub(super) fn of(tx: Tx<'_>, row: &DocumentRow) -> store::Result<Option<Self>> {
        let shown = tx.shown(row.id)?.and_then(|json| serde_json::from_str(&json).ok());
        let is_behind = tx.stale_since(row.id)?.is_some();
        let shown = shown.filter(|_| !row.purged);
        Ok(shown.map(|fields| Self { fields, is_deleted: row.deleted, is_behind }))
    }
}

impl Core {
    /// Brings a document that has lost changes to what it showed, as an edit of this device.
    pub(super) fn put_shown(
        &mut self,
        tx: Tx<'_>,
        (collection, name): (&str, &str),
        shown: &OnlyShown,
    ) -> store::Result<()> {
        let now = match self.find(tx, collection, name)? {
            None => Fields::new(),
            Some(loaded) => {
                let is_gone = loaded.row.deleted || loaded.row.purged;
                let fields = loaded.fields.clone();
                self.put_back(loaded);
                if is_gone {
                    return Ok(());
                }
                if shown.is_deleted {
                    return told(self.delete(tx, collection, name)).map(drop);
                }
                fields
            }
        };
        if shown.is_deleted {
            return Ok(());
        }
        let mut patch = diff(&now, &shown.fields);
        if shown.is_behind {
            // What differs may be later than what was shown.
            patch = Patch { set: patch.set, ..Patch::default() };
            patch.set.retain(|field, _| !now.contains_key(field));
        }
        if patch.is_empty() || told(self.put(tx, collection, name, &patch, None))? {
            return Ok(());
        }
        // One field that cannot be written any more takes no other with it.
        for (field, value) in patch.set {
            let patch = Patch { set: Fields::from_iter([(field, value)]), ..Patch::default() };
            told(self.put(tx, collection, name, &patch, None))?;
        }
        Ok(())
    }
}

/// Says whether something was written. What a rule refuses is left as it is.
fn told<T>(written: Result<T, WriteError>) -> store::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(WriteError::Storage(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "something that a damaged document showed cannot be written again");
            Ok(false)
        }
    }
}

/// Whether all changes of a document are there that a remote may have: what is lost of it was not sent yet. `lost`: rows that cannot be read, or
/// that wait for such.
pub(super) fn is_sent_part_whole(
    tx: Tx<'_>,
    row: &DocumentRow,
    lost: &[i64],
    upto: i64,
) -> store::Result<bool> {
    let Some(first) = tx.first_unsent(row.id)? else { return Ok(false) };
    let mut held = tx.change_ids(row.id)?;
    lost.iter().for_each(|id| _ = held.remove(id));
    let last = change_id(row.id, row.changes);
    let mut sent = change_id(row.id, 1)..first.min(last);
    Ok(sent.all(|id| id <= upto || held.contains(&id)))
}
