//! Compaction: the entries that a log holds of a document become one snapshot.
//!
//! The snapshot names the entries whose changes it holds, and the remote lets them go after a time. An entry is named only if this
//! device knows that it has all of its changes: the entry lies before the position to which the log was read and applied, and nothing
//! of the document is set aside.

use motet_proto::message::Listed;
use motet_proto::planted::{Bug, batch, is_planted, saves_enough};
use motet_proto::{DocumentId, Entry, Kind, limits as proto};

use super::Core;
use super::lifecycle::is_leaving;
use crate::limits;
use crate::store::{self, DocumentRow, StorageError, Tx};
use crate::time::millis;

impl Core {
    /// Notes a document that has just had so many changes that its entries may be worth a snapshot.
    pub(super) fn note_growth(&self, tx: Tx<'_>, row: &DocumentRow, added: usize) -> store::Result<()> {
        let every = batch(limits::COMPACT_EVERY_CHANGES) as i64;
        let before = row.changes - added as i64;
        if before / every < row.changes / every { tx.mark_compactable(row.id) } else { Ok(()) }
    }

    /// An erasure of what the log still holds of a document that was purged long enough ago: by then every device that comes now and
    /// then has read of the purge. `None` if it is not time yet, or nothing is left.
    fn erase_purged(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        row: &DocumentRow,
        listed: &[Listed],
    ) -> store::Result<Option<Entry>> {
        // A clock that is ahead takes no purge away from those that have not read of it.
        let grace = self.shared.now_ms() - millis(limits::PURGE_GRACE);
        if row.updated_at > self.surely_past(tx, grace)? {
            return Ok(None);
        }
        let erasure = self.erasure(row.key)?;
        // All that there is may be the erasure itself, which has nothing else in it.
        let is_gone = listed.iter().all(|entry| entry.bytes <= erasure.payload.len() as u64);
        if is_gone || self.erased.contains(&(remote, row.id)) || !self.leaves(&row.collection, &row.name) {
            tx.unmark_compactable(row.id)?;
            return Ok(None);
        }
        Ok(Some(erasure))
    }

    /// A snapshot of a document that supersedes those of the listed entries whose changes it holds; `None` if that would not save
    /// much, or the app's sealer does not seal it.
    pub(crate) fn compact(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        listed: &[Listed],
    ) -> store::Result<Option<Entry>> {
        match self.compacted(tx, remote, document, listed) {
            Err(StorageError::Sealer(_)) => Ok(None),
            compacted => compacted,
        }
    }

    fn compacted(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        document: DocumentId,
        listed: &[Listed],
    ) -> store::Result<Option<Entry>> {
        let Some(row) = tx.document_by_key(document)? else { return Ok(None) };
        if row.purged && !tx.has_content(row.id)? {
            return self.erase_purged(tx, remote, &row, listed);
        }
        tx.unmark_compactable(row.id)?;
        let is_set_aside = tx.has_quarantined(document)? || !tx.knows_quarantined()?;
        if row.purged
            || is_leaving(tx, &row)?
            || self.erased.contains(&(remote, row.id))
            || !self.leaves(&row.collection, &row.name)
            || (is_set_aside && !is_planted(Bug::SupersedesSetAside))
        {
            return Ok(None);
        }
        // Whose log is being read anew may have lost what it once had.
        let known = tx.remotes()?.into_iter().find(|known| known.id == remote && !known.reseed);
        let position = known.and_then(|row| row.position);
        let read_to = match is_planted(Bug::SupersedesUnread) {
            true => u64::MAX,
            false => position.map_or(0, |position| position.seq),
        };
        // The oldest first; a snapshot that names fewer than it holds is as good.
        let held = listed.iter().filter(|entry| entry.seq <= read_to).take(proto::SNAPSHOT_SUPERSEDES);
        let held: Vec<_> = held.collect();
        if held.is_empty() || !saves_enough(held.len() >= limits::COMPACT_FROM_ENTRIES) {
            return Ok(None);
        }
        let (heads, body) = match self.save(tx, row.id) {
            Ok(Some(saved)) => saved,
            // It is not the time to find out what is wrong with it.
            Ok(None) | Err(StorageError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if body.len() > proto::ENTRY_PAYLOAD_BYTES / 2 || heads.len() > proto::SNAPSHOT_HEADS {
            return Ok(None);
        }
        let payload = self.payload(tx, row.id, (&row.collection, &row.name), body, true)?;
        let before: u64 = held.iter().map(|entry| entry.bytes).sum();
        if !saves_enough(before >= limits::COMPACT_GAIN * payload.len() as u64) {
            return Ok(None);
        }
        let kind = Kind::Snapshot { heads, supersedes: held.into_iter().map(|entry| entry.id).collect() };
        Ok(Some(self.entry(document, kind, payload)))
    }
}
