//! A document of which something stored is damaged, put together from all that still loads: its saved form, each of its changes, the
//! entries that wait to be sent, and what this process holds in memory.

use std::collections::HashSet;

use motet_proto::Kind;
use motet_proto::envelope::Sealer;

use super::incoming::open;
use super::integrity::is_marked_only;
use super::journal::open_conflicts;
use super::overlay::Overlay;
use super::shown::{OnlyShown, is_sent_part_whole};
use super::{Core, Loaded, new_document, to_json};
use crate::doc::{Change, Document, Identity, Rejected, load_snapshot, split_changes};
use crate::schema::CollectionSchema;
use crate::store::{
    self, DECLARATION_LOST, DocumentRow, Op, QuarantineRow, SealedRow, StorageError, Tx, Worth, change_id,
};

/// What [`salvage`] has found of a document.
struct Salvage {
    document: Document,
    /// Changes that the saved form holds and no row does.
    is_snapshot_needed: bool,
    /// Changes of the document that neither a row nor the saved form holds, each after those that it depends on.
    missing: Vec<Change>,
    /// Rows whose changes cannot be read.
    unreadable: Vec<i64>,
    /// Rows of which changes can be read, and what they build on is gone.
    waiting: Vec<i64>,
    rejected: Vec<Rejected>,
    /// The saved form holds all changes up to this id; 0 if it cannot be read.
    saved_upto: i64,
    /// Something that the document had is in none of the sources.
    is_lost: bool,
    is_damaged: bool,
}

/// What is left of a document after [`Core::repair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// Everything.
    Whole,
    /// What the remotes hold of it is read again.
    FetchedAgain,
}

impl Core {
    /// Makes a document anew from what can still be read of it, and all that is derived from it. What builds on something that is
    /// lost is set aside until that is there again.
    pub(crate) fn repair(&mut self, tx: Tx<'_>, document: i64) -> store::Result<Repaired> {
        self.forget_all_held();
        self.forget_marks();
        let Some(names) = tx.settled_names(document)? else { return Ok(Repaired::Whole) };
        let (mut collection, name) = (&*names.0, &*names.1);
        let unnamed = format!("damaged {document}");
        if [collection, name].contains(&&*unnamed) {
            // Nobody knows any more whether it was to stay here: in a collection of its own it does.
            collection = &unnamed;
            tx.put_collection(collection, DECLARATION_LOST)?;
            self.write.settings_changed = true;
            self.reload_settings(tx)?;
        }
        let document = tx.unite(document, (collection, name))?;
        let (is_never_sent, is_lacked_by_all) = (tx.is_never_sent(document)?, tx.is_lacked_by_all(document)?);
        // What another document showed is not put into this one.
        let shows_itself =
            tx.names_of(document)?.shown.is_some_and(|(c, n)| (&*c, &*n) == (collection, name));
        tx.put_names(document, (collection, name))?;
        tx.write_again(document)?;
        tx.take_as_bytes(document)?;
        let row = tx.document_by_id(document)?;
        let owed = self.queued_before(tx, &row)?;
        let mut row = row;
        if is_marked_only(tx, &row)? {
            (row.deleted, row.purged) = (false, false);
        }
        if self.is_hollow(tx, &row)? {
            // What it showed is lost, and that was nothing: it was purged before there was a remote.
            (row.deleted, row.purged) = (true, true);
            tx.update_document(&row, "{}")?;
        }
        if row.purged && !tx.has_content(document)? {
            self.enqueue_again(tx, document, &owed)?;
            return Ok(Repaired::Whole);
        }
        let schema = self.schema_of(&row.collection, &row.name);
        let salvage = salvage(tx, &row, (&schema, &*self.shared.sealer), None)?;
        let (is_lost, is_damaged) = (salvage.is_lost, salvage.is_damaged);
        let lost_rows = [&*salvage.unreadable, &*salvage.waiting].concat();
        let is_nowhere_else = is_never_sent
            || is_lacked_by_all
            || is_sent_part_whole(tx, &row, &lost_rows, salvage.saved_upto)?;
        let shown = match is_lost && shows_itself && is_nowhere_else {
            true => OnlyShown::of(tx, &row)?,
            false => None,
        };
        let mut loaded = self.keep(tx, row, salvage)?;
        loaded.local = match tx.local_fields(document)? {
            Some(_) => Overlay::read(tx, document, &schema)?,
            None => {
                loaded.refresh(true);
                Overlay::as_shown(tx, document, &schema, &loaded.fields)?
            }
        };
        loaded.local.write(tx, document)?;
        if is_lost {
            self.read_logs_anew(tx)?;
            if loaded.document.heads().is_empty() && loaded.local == Overlay::default() {
                // Nothing of it is here: it comes back as a new one.
                tx.remove_document(document)?;
                self.write.recounts = true;
                self.told.projected = true;
                shown.map(|shown| self.put_shown(tx, (collection, name), &shown)).transpose()?;
                return Ok(Repaired::FetchedAgain);
            }
        }
        let conflicts = loaded.refresh(true);
        loaded.row.conflicts = open_conflicts(&conflicts);
        let is_purged = loaded.document.is_purged(&schema);
        loaded.row.purged &= is_purged;
        match is_purged && !loaded.row.purged {
            true if tx.leaves_at(document)?.is_none() => self.keep_for_a_time(tx, document)?,
            true => {}
            false => tx.end_leaving(document)?,
        }
        self.journal(tx, &loaded.row, &conflicts, self.shared.now_ms())?;
        tx.update_document(&loaded.row, &to_json(&loaded.fields)?)?;
        self.told.projected = true;
        tx.unmark_stale(document)?;
        self.mark_unindexed(tx, document)?;
        if is_damaged {
            let owed = tx.pending_remotes(document)?;
            self.enqueue_again(tx, document, &owed)?;
        } else {
            self.enqueue_again(tx, document, &owed)?;
        }
        shown.map(|shown| self.put_shown(tx, (collection, name), &shown)).transpose()?;
        Ok(if is_lost { Repaired::FetchedAgain } else { Repaired::Whole })
    }

    /// Whether nothing is left of a document but that it was purged.
    fn is_hollow(&self, tx: Tx<'_>, row: &DocumentRow) -> store::Result<bool> {
        Ok(row.heads.is_empty()
            && tx.tombstone(row.id)?.is_some()
            && !tx.has_content(row.id)?
            && tx.local_fields(row.id)?.is_none()
            && tx.shows_nothing(row.id)?)
    }

    /// Writes the stored changes of a document anew where they are damaged, if nothing of it is lost.
    pub(super) fn mend(&mut self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        self.catch_up_all(tx)?;
        let row = tx.document_by_id(document)?;
        let schema = self.schema_of(&row.collection, &row.name);
        let held = self.take_held(tx, row.key)?;
        tx.take_as_bytes(document)?;
        let sealer = &*self.shared.sealer;
        let salvage = salvage(tx, &row, (&schema, sealer), held.as_deref().map(|held| &held.document))?;
        if salvage.is_lost {
            return Err(StorageError::Damaged(format!(
                "{}/{}: some of its stored changes cannot be read; repair the file",
                row.collection, row.name
            )));
        }
        tracing::warn!(document = %row.key, "stored changes were damaged, and are written anew");
        let mut loaded = self.keep(tx, row, salvage)?;
        let is_version_lost = loaded.row.heads.is_empty();
        if is_version_lost {
            loaded.refresh(false);
        }
        // What it shows is as it was; it is loaded again from what is stored now.
        let shown = tx.shown(document)?.unwrap_or_default();
        tx.update_document(&loaded.row, &shown)?;
        self.told.projected = true;
        // Unless nobody knows which version that is.
        if is_version_lost { self.mark_stale(tx, &loaded.row) } else { Ok(()) }
    }

    /// Brings the rows of a document in line with what was salvaged of it.
    fn keep(&mut self, tx: Tx<'_>, mut row: DocumentRow, salvage: Salvage) -> store::Result<Box<Loaded>> {
        let schema = self.schema_of(&row.collection, &row.name);
        // The row may be of an earlier time than its changes: no number is given out twice.
        row.changes = row.changes.max(tx.last_change(row.id)? - change_id(row.id, 0));
        if salvage.is_damaged {
            match salvage.is_snapshot_needed {
                true => tx.rely_on_snapshot(row.id)?,
                false => tx.drop_snapshot(row.id)?,
            }
            // A change that was found elsewhere takes the place of one that cannot be read.
            let mut places = salvage.unreadable.into_iter();
            for change in &salvage.missing {
                match places.next() {
                    Some(place) => tx.replace_change(place, change.raw_bytes())?,
                    None => {
                        row.changes += 1;
                        tx.insert_change(row.id, row.changes, change.raw_bytes(), None)?;
                    }
                }
            }
            places.chain(salvage.waiting).try_for_each(|place| tx.drop_change(place))?;
            if let Some(remote) = self.active.or(self.remotes.first().copied()) {
                let now = self.shared.now_ms();
                for item in &salvage.rejected {
                    let reason = "what it builds on was damaged, and has not arrived again";
                    let (hash, bytes) = (item.change.hash(), item.change.raw_bytes());
                    let set_aside = QuarantineRow {
                        remote,
                        document: row.key,
                        hash: &hash.0,
                        waits: true,
                        worth: Worth::OnlyHere,
                        reason,
                        bytes,
                    };
                    tx.quarantine(&set_aside, now)?;
                }
            }
        }
        Ok(Loaded::new(row, salvage.document, schema))
    }

    /// Remotes to which entries of a document wait to be sent that are not what was fixed, or that were not sent for damage.
    fn queued_before(&mut self, tx: Tx<'_>, row: &DocumentRow) -> store::Result<Vec<(i64, Op)>> {
        let damaged = tx.sealed_rows(row.id, row.key)?.into_iter().filter(|sealed| sealed.entry.is_err());
        let damaged: HashSet<i64> = damaged.map(|sealed| sealed.remote).collect();
        let is_parked = tx.parked_as_damaged(row.id)?.is_some();
        let mut owed = tx.pending_remotes(row.id)?;
        owed.retain(|(remote, _)| is_parked || damaged.contains(remote));
        Ok(owed)
    }

    /// What waits to be sent of a document is sealed again, as the whole of it.
    fn enqueue_again(&mut self, tx: Tx<'_>, document: i64, owed: &[(i64, Op)]) -> store::Result<()> {
        for (remote, op) in owed {
            tx.drop_pending_changes(*remote, document)?;
            tx.add_pending(*remote, document, *op, 0, self.shared.now_ms())?;
            tx.widen_pending(*remote, document)?;
            self.write.recounts = true;
        }
        Ok(())
    }
}

/// Puts a document together from every source that loads. `held`: as this process has it in memory.
fn salvage(
    tx: Tx<'_>,
    row: &DocumentRow,
    (schema, sealer): (&CollectionSchema, &dyn Sealer),
    held: Option<&Document>,
) -> store::Result<Salvage> {
    let identity = Identity { space: tx.space(), document: row.key };
    let raw = tx.raw_snapshot(row.id)?;
    let saved = raw.as_ref().and_then(|raw| Document::load(identity, Some(&raw.bytes), Vec::new()).ok());
    let in_saved = saved.as_ref().map(hashes).transpose()?.unwrap_or_default();
    let mut is_damaged = raw.is_some() && saved.is_none();
    let mut document = match saved {
        Some(saved) => saved,
        None => new_document(identity, &row.collection, &row.name, std::sync::Arc::default()).document,
    };
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for (id, bytes) in tx.change_rows(row.id)? {
        match split_changes(&bytes) {
            Ok(changes) => readable.push((id, changes)),
            Err(_) => unreadable.push(id),
        }
    }
    is_damaged |= !unreadable.is_empty();
    // What it does not hold would be passed over, now or when there are more.
    let most = change_id(row.id, row.changes);
    is_damaged |=
        raw.as_ref().is_some_and(|raw| raw.upto > most.max(readable.last().map_or(0, |(id, _)| *id)));
    is_damaged |= raw.as_ref().is_some_and(|raw| {
        let under = readable.iter().take_while(|(id, _)| *id <= raw.upto).flat_map(|(_, changes)| changes);
        under.clone().any(|change| !in_saved.contains(&change.hash().0))
    });
    let in_rows: HashSet<[u8; 32]> = readable.iter().flat_map(|(_, c)| c).map(|c| c.hash().0).collect();
    let rows = readable.iter().flat_map(|(_, changes)| changes).cloned().collect();
    let mut outcome = document.merge(rows, schema);
    let lacks = |document: &Document| row.heads.iter().any(|head| !document.has_hash(head));
    if lacks(&document) || !unreadable.is_empty() || !outcome.rejected.is_empty() {
        is_damaged = true;
        let mut more: Vec<Change> = outcome.rejected.drain(..).map(|rejected| rejected.change).collect();
        if let Some(held) = held {
            more.extend(held.changes().map_err(StorageError::Damaged)?);
        }
        for sealed in tx.sealed_rows(row.id, row.key)? {
            more.extend(sealed_changes(identity, sealed, schema, sealer));
        }
        outcome = document.merge(more, schema);
    }
    let all = document.changes().map_err(StorageError::Damaged)?;
    let is_stored =
        |change: &Change| in_rows.contains(&change.hash().0) || in_saved.contains(&change.hash().0);
    let missing: Vec<_> = all.into_iter().filter(|change| !is_stored(change)).collect();
    // What is sealed may be what lost in a collision, and is set aside already.
    outcome.rejected.retain(|rejected| in_rows.contains(&rejected.change.hash().0));
    let waiting =
        readable.iter().filter(|(_, changes)| !changes.iter().all(|c| document.has_change(&c.hash())));
    let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
    // The row may tell of an earlier state: then nobody knows what the last changes were.
    let is_behind = row.heads.is_empty() || tx.stale_since(row.id)?.is_some();
    let is_unknown = is_behind && unreadable.len() > missing.len() && (in_saved.is_empty() || is_damaged);
    // Neither one of its changes nor what they led to is there, nor anything that stays on this device.
    let is_gone = row.heads.is_empty() && document.heads().is_empty() && tx.local_fields(row.id)?.is_none();
    let is_lost = lacks(&document) || is_unknown || is_gone || is_short(tx, row)? || !waiting.is_empty();
    let saved_upto = raw.as_ref().filter(|_| !in_saved.is_empty()).map_or(0, |raw| raw.upto);
    let is_snapshot_needed = in_saved.iter().any(|hash| !in_rows.contains(hash));
    // A saved form that is not taken for the only source would be dropped at will.
    is_damaged |= is_snapshot_needed && raw.is_some_and(|raw| !raw.is_primary);
    is_damaged |= is_lost;
    let rejected = outcome.rejected;
    Ok(Salvage {
        document,
        is_snapshot_needed,
        missing,
        unreadable,
        waiting,
        rejected,
        saved_upto,
        is_lost,
        is_damaged,
    })
}

/// Whether a document that does not say which version it is lacks the last of the changes that were counted.
pub(super) fn is_short(tx: Tx<'_>, row: &DocumentRow) -> store::Result<bool> {
    if !row.heads.is_empty() || row.purged {
        return Ok(false);
    }
    let saved = tx.raw_snapshot(row.id)?.map_or(0, |saved| saved.upto);
    Ok(tx.last_change(row.id)?.max(saved) < change_id(row.id, row.changes) && row.changes > 0)
}

/// The changes of an entry that waits to be sent; none if it is not what it was.
fn sealed_changes(
    identity: Identity,
    sealed: SealedRow,
    schema: &CollectionSchema,
    sealer: &dyn Sealer,
) -> Vec<Change> {
    let Ok(entry) = sealed.entry else { return Vec::new() };
    let Ok(payload) = open(&entry, identity.space, sealer) else { return Vec::new() };
    match &entry.kind {
        Kind::Changes => split_changes(&payload.body).unwrap_or_default(),
        Kind::Snapshot { heads, .. } => {
            let saved = load_snapshot(identity, &payload.body, heads, schema);
            saved.and_then(|saved| saved.changes()).unwrap_or_default()
        }
        Kind::Erased | Kind::Other(_) => Vec::new(),
    }
}

fn hashes(document: &Document) -> store::Result<HashSet<[u8; 32]>> {
    let changes = document.changes().map_err(StorageError::Damaged)?;
    Ok(changes.iter().map(|change| change.hash().0).collect())
}

/// Whether a saved form holds changes that no row holds.
pub(super) fn holds_more_than_rows(saved: &Document, rows: &[Change]) -> store::Result<bool> {
    let rows: HashSet<_> = rows.iter().map(Change::hash).collect();
    Ok(saved.changes().map_err(StorageError::Damaged)?.iter().any(|change| !rows.contains(&change.hash())))
}
