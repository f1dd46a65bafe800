//! One document: is everything stored of it what it should be? [`salvage`](super::salvage) makes it so.

use motet_proto::AccountId;

use super::repair::holds_more_than_rows;
use super::{Core, Schemas, load_stale, schema_of};
use crate::doc::{Change, Document, Fields, Identity, split_changes};
use crate::schema::CollectionSchema;
use crate::store::{self, ACCOUNT, ACCOUNT_LOST, DECLARATION_LOST, DocumentRow, Names, StorageError, Tx};
use crate::types::ProblemKind;

/// What is wrong with a document.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) document: i64,
    pub(crate) collection: String,
    pub(crate) name: String,
    pub(crate) found: Vec<(ProblemKind, String)>,
}

/// Compares all that is stored of a document; `None` if all is well. Nothing is taken for granted that can be read from its changes.
pub(crate) fn examine(tx: Tx<'_>, schemas: &Schemas, document: i64) -> store::Result<Option<Examined>> {
    let names = tx.names_of(document)?;
    let (collection, name) = names.settled().unwrap_or_default();
    let examined =
        |found| Examined { document, collection: collection.to_owned(), name: name.to_owned(), found };
    let mut found = Vec::new();
    match examine_rows(tx, schemas, &names, document, &mut found) {
        Err(StorageError::Damaged(detail)) => found.push((ProblemKind::Changes, detail)),
        outcome => outcome?,
    }
    Ok((!found.is_empty()).then(|| examined(found)))
}

fn examine_rows(
    tx: Tx<'_>,
    schemas: &Schemas,
    names: &Names,
    document: i64,
    found: &mut Vec<(ProblemKind, String)>,
) -> store::Result<()> {
    if let Some(fault) = names.fault() {
        // It cannot be looked at before that is put right.
        found.push((ProblemKind::Projection, fault.into()));
        return Ok(());
    }
    let row = tx.document_by_id(document)?;
    for sealed in tx.sealed_rows(document, row.key)? {
        if let Err(detail) = sealed.entry {
            found.push((ProblemKind::Outbox, format!("an entry that waits to be sent: {detail}")));
        }
    }
    if let Some(detail) = tx.parked_as_damaged(document)? {
        found.push((ProblemKind::Outbox, format!("something was not sent: {detail}")));
    }
    if is_marked_only(tx, &row)? {
        found.push((ProblemKind::Projection, "it is marked as deleted, and has no version".into()));
        return Ok(());
    }
    // What cannot be read shows only as long as the projection is there.
    if let Some(json) = tx.local_fields(document)?
        && serde_json::from_str::<Fields>(&json).is_err()
    {
        found.push((ProblemKind::Projection, "what stays on this device of it cannot be read".into()));
    }
    if row.purged && !tx.has_content(document)? {
        if !row.deleted {
            found.push((ProblemKind::Projection, "it is purged, and not deleted".into()));
        }
        return Ok(());
    }
    let before = found.len();
    let mut changes = Vec::new();
    for (id, bytes) in tx.change_rows(document)? {
        match split_changes(&bytes) {
            Ok(more) => changes.extend(more),
            Err(error) => {
                let number = id - store::change_id(document, 0);
                found.push((ProblemKind::Changes, format!("change {number}: {error}")));
            }
        }
    }
    examine_saved(tx, &row, &changes, found)?;
    if found.len() > before {
        return Ok(());
    }
    let schema = schema_of(schemas, &row.collection, &row.name);
    // What somebody is just writing is shown in a moment.
    let is_behind = tx.stale_since(document)?.is_some();
    let was = row.clone();
    let mut loaded = load_stale(tx, row, schema.clone())?;
    if loaded.row.heads != was.heads && !is_behind {
        let lacks = was.heads.iter().any(|head| !loaded.document.has_hash(head));
        let kind = if lacks { ProblemKind::Changes } else { ProblemKind::Projection };
        found.push((kind, "its changes do not lead to its heads".into()));
        return Ok(());
    }
    if was.purged && !loaded.document.is_purged(&schema) {
        found.push((ProblemKind::Projection, "it is marked as purged, and is not".into()));
    } else if is_behind || was.purged {
        return Ok(());
    }
    let is_purged = was.deleted && loaded.document.is_purged(&schema);
    match tx.leaves_at(document)? {
        None if is_purged => {
            found.push((ProblemKind::Projection, "it is purged, and nothing says when it goes".into()));
        }
        Some(_) if !is_purged => {
            found.push((ProblemKind::Projection, "it is to go, and is not purged".into()));
        }
        _ => {}
    }
    let open = loaded.row.conflicts;
    if !was.deleted && (was.conflicts != open || tx.open_in_journal(document)? != open) {
        found.push((ProblemKind::Projection, "its open conflicts are not those of the journal".into()));
    }
    let shown: Option<Fields> = tx.shown(document)?.and_then(|json| serde_json::from_str(&json).ok());
    if shown.as_ref() != Some(&loaded.fields) || loaded.row.deleted != was.deleted {
        found.push((ProblemKind::Projection, "what it shows is not what its changes say".into()));
    }
    Ok(())
}

/// Whether something that has no version counts as deleted or purged: of what only stays here nothing is but the whole row. What is
/// purged before there is a remote has no version either, and nothing of it is left.
pub(super) fn is_marked_only(tx: Tx<'_>, row: &DocumentRow) -> store::Result<bool> {
    if !row.heads.is_empty() || !(row.deleted || row.purged) {
        return Ok(false);
    }
    let is_gone = row.deleted
        && row.purged
        && !tx.has_content(row.id)?
        && tx.local_fields(row.id)?.is_none()
        && tx.shows_nothing(row.id)?;
    Ok(!is_gone)
}

fn examine_saved(
    tx: Tx<'_>,
    row: &DocumentRow,
    changes: &[Change],
    found: &mut Vec<(ProblemKind, String)>,
) -> store::Result<()> {
    let Some(raw) = tx.raw_snapshot(row.id)? else { return Ok(()) };
    let identity = Identity { space: tx.space(), document: row.key };
    match Document::load(identity, Some(&raw.bytes), Vec::new()) {
        Err(error) => {
            let kind = if raw.is_primary { ProblemKind::Changes } else { ProblemKind::Snapshot };
            found.push((kind, format!("its saved form: {error}")));
        }
        // Of damaged changes it may hold what is left.
        Ok(saved) if !raw.is_primary && found.is_empty() && holds_more_than_rows(&saved, changes)? => {
            let detail = "its saved form holds changes that are nowhere else, and does not say so";
            found.push((ProblemKind::Snapshot, detail.into()));
        }
        Ok(_) if raw.upto > store::change_id(row.id, row.changes).max(tx.last_change(row.id)?) => {
            let detail = "its saved form says that it holds changes that there are not";
            found.push((ProblemKind::Snapshot, detail.into()));
        }
        Ok(_) => {}
    }
    Ok(())
}

/// Looks at what is kept beside the documents.
pub(crate) fn examine_rows_beside(tx: Tx<'_>) -> store::Result<Vec<String>> {
    let mut found = tx.odd_rows()?;
    if is_account_unreadable(tx).unwrap_or_default() {
        found.push("it cannot be read to which account the data belongs".into());
    }
    for collection in unreadable_declarations(tx)? {
        found.push(format!("what is declared of {collection} cannot be read: nothing of it is sent before it is declared again"));
    }
    Ok(found)
}

/// What stands there is no account, and does not say either that it is lost.
fn is_account_unreadable(tx: Tx<'_>) -> store::Result<bool> {
    let is_odd = |account: String| account != ACCOUNT_LOST && account.parse::<AccountId>().is_err();
    Ok(tx.meta(ACCOUNT)?.is_some_and(is_odd))
}

fn unreadable_declarations(tx: Tx<'_>) -> store::Result<Vec<String>> {
    let is_odd = |(_, json): &(String, String)| {
        json != DECLARATION_LOST && CollectionSchema::from_stored(json).is_none()
    };
    Ok(tx.collections()?.into_iter().filter(is_odd).map(|(name, _)| name).collect())
}

impl Core {
    /// Puts right what is kept beside the documents, as far as it can be known.
    pub(crate) fn mend_rows(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.mend_rows(&[])?;
        if is_account_unreadable(tx)? {
            tx.set_meta(ACCOUNT, Some(ACCOUNT_LOST))?;
        }
        for collection in unreadable_declarations(tx)? {
            tx.put_collection(&collection, DECLARATION_LOST)?;
        }
        self.write.settings_changed = true;
        self.write.recounts = true;
        self.reload_settings(tx)?;
        self.forget_all_held();
        self.behind = None;
        Ok(())
    }

    /// Drops what belongs to no document, and has everything compared with the remotes.
    pub(crate) fn tidy(&mut self, tx: Tx<'_>) -> store::Result<()> {
        if !tx.of_nobody()?.is_empty() {
            tx.drop_of_nobody()?;
        }
        self.read_logs_anew(tx)
    }

    /// Has the log of every remote read from the start. Sessions that run, also those of other processes, end and begin anew.
    pub(crate) fn read_logs_anew(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.forget_positions()?;
        tx.begin_era()?;
        // It is also how the sync task is told.
        self.write.recounts = true;
        Ok(())
    }

    /// Makes the full-text index anew, as documents are searched or the replica is idle.
    pub(crate) fn rebuild_search(&mut self, tx: Tx<'_>) -> store::Result<()> {
        self.indexing = None;
        tx.drop_search_tables()?;
        tx.mark_all_unindexed()?;
        self.unindexed = Some(true);
        Ok(())
    }
}
