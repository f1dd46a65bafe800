//! What is left to be done for entries that change many others: erasures, and snapshots that supersede much. It is done in steps, so
//! that nobody waits for all of it, and is taken up again when the relay starts.

use std::collections::{BTreeMap, HashMap};

use motet_proto::planted::{Bug, is_planted};
use motet_proto::{DocumentId, EntryId, Kind};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::logs::find_entry;
use super::{SEQ_BITS, id_head};
use crate::limits;
use crate::store::StoreError;
use crate::store::damage::Damage;

/// What is left, as the tables `erasing` and `superseding` have it. Entries are named by their row ids.
#[derive(Default)]
pub(super) struct Left {
    /// Erasures of which not everything has left. It counts as erased all the same.
    erasing: BTreeMap<i64, DocumentId>,
    /// The last of them, by log and document.
    erased: HashMap<(i64, DocumentId), i64>,
    /// Snapshots, and how many of the entries that they name were looked for.
    superseding: BTreeMap<i64, usize>,
    /// Bytes that have left the logs in this transaction, by log.
    freed: HashMap<i64, u64>,
    /// Something has left that SQLite's log may still hold.
    pub(super) is_in_log: bool,
}

impl Left {
    /// Reads what is left. An erasure itself says which document it is about: nothing leaves because of a damaged row. One that is not
    /// there any more has left with a later one of the same document, which does its work.
    pub(super) fn load(conn: &Connection, damage: &Damage) -> Result<Self, StoreError> {
        let mut left = Self::default();
        let sql =
            "SELECT erasing.entry, entry.document FROM erasing CROSS JOIN entry ON entry.id = erasing.entry
                   WHERE kind = ? ORDER BY erasing.entry";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query([Kind::Erased.to_bytes()])?;
        while let Some(row) = rows.next()? {
            let entry = row.get(0)?;
            match row.get(1) {
                Ok(document) => left.remember_erasure(entry, DocumentId(document)),
                Err(error) => damage.note(&format!("document of the erasure in row {entry}: {error}")),
            }
        }
        let mut statement = conn.prepare_cached("SELECT entry, done FROM superseding")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // Entries that were looked for already are not marked twice.
            let done = row.get::<_, i64>(1).ok().and_then(|done| usize::try_from(done).ok());
            left.superseding.insert(row.get(0)?, done.unwrap_or(0));
        }
        Ok(left)
    }

    /// What comes next cannot be done: it is not tried again before the next start.
    pub(super) fn put_off(&mut self) {
        if self.erasing.pop_first().is_none() {
            self.superseding.pop_first();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.erasing.is_empty() && self.superseding.is_empty()
    }

    /// Whether a snapshot names entries that are not marked yet.
    pub(super) fn is_superseding(&self, entry: i64) -> bool {
        self.superseding.contains_key(&entry)
    }

    /// Whether an entry counts as erased although it has not left yet.
    pub(super) fn is_erased(&self, entry: i64, document: DocumentId) -> bool {
        let erasure = self.erased.get(&(entry >> SEQ_BITS, document));
        erasure.is_some_and(|erasure| entry < *erasure)
    }

    /// Everything that the log holds of a document before the erasure `entry` leaves: some of it now, the rest in steps.
    pub(super) fn erase(
        &mut self,
        conn: &Connection,
        entry: i64,
        document: DocumentId,
    ) -> Result<(), StoreError> {
        if self.erase_step(conn, entry, document)? {
            let sql = "INSERT INTO erasing (entry, document) VALUES (?, ?)";
            conn.prepare_cached(sql)?.execute(params![entry, document.as_bytes()])?;
            self.remember_erasure(entry, document);
        }
        Ok(())
    }

    /// The snapshot `entry` supersedes `named` entries, of which a step was marked with it.
    pub(super) fn note_superseding(
        &mut self,
        conn: &Connection,
        entry: i64,
        named: usize,
    ) -> Result<(), StoreError> {
        if named > limits::STEP_CHANGED {
            let sql = "INSERT INTO superseding (entry, done) VALUES (?, ?)";
            conn.prepare_cached(sql)?.execute([entry, limits::STEP_CHANGED as i64])?;
            self.superseding.insert(entry, limits::STEP_CHANGED);
        }
        Ok(())
    }

    /// Does a step of what is left.
    pub(super) fn step(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if let Some((&entry, &document)) = self.erasing.first_key_value() {
            if !self.erase_step(conn, entry, document)? {
                // With earlier ones of the document, which have left.
                let sql =
                    "DELETE FROM erasing WHERE entry > ? AND entry <= ? AND (entry = ? OR document = ?)";
                let base = entry >> SEQ_BITS << SEQ_BITS;
                conn.prepare_cached(sql)?.execute(params![base, entry, entry, document.as_bytes()])?;
                self.erasing.remove(&entry);
                let key = (entry >> SEQ_BITS, document);
                if self.erased.get(&key) == Some(&entry) {
                    self.erased.remove(&key);
                }
            }
            return Ok(());
        }
        let Some((&entry, &done)) = self.superseding.first_key_value() else { return Ok(()) };
        let (document, named, at) = snapshot(conn, entry)?;
        let step: Vec<_> = named.iter().skip(done).take(limits::STEP_CHANGED).collect();
        for id in &step {
            supersede(conn, self, entry, document, id, at)?;
        }
        let done = done + step.len();
        if step.is_empty() || done >= named.len() {
            conn.prepare_cached("DELETE FROM superseding WHERE entry = ?")?.execute([entry])?;
            self.superseding.remove(&entry);
        } else {
            let sql = "UPDATE superseding SET done = ? WHERE entry = ?";
            conn.prepare_cached(sql)?.execute([done as i64, entry])?;
            self.superseding.insert(entry, done);
        }
        Ok(())
    }

    /// Takes an entry out of the log. Id and tag stay: whoever has read up to it goes on from there. So does why it has left, the sequence
    /// number of a snapshot or an erasure: a row that was damaged only looks like one that has left.
    /// Returns the bytes of it.
    pub(super) fn remove(&mut self, conn: &Connection, row: i64, cause: i64) -> Result<usize, StoreError> {
        self.is_in_log = true;
        let sql = "SELECT length(payload), kind FROM entry WHERE id = ? AND kind <> x''";
        let bytes = conn.prepare_cached(sql)?.query_row([row], |row| {
            let payload = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
            let kind = row.get_ref(1)?.as_blob().ok().and_then(Kind::from_bytes);
            // As many as were counted when it came.
            Ok(kind.unwrap_or(Kind::Changes).size_with(payload) as u64)
        });
        let bytes = bytes.optional()?.unwrap_or(0);
        *self.freed.entry(row >> SEQ_BITS).or_default() += bytes;
        let sql = "DELETE FROM entry_of WHERE (space, document, head, seq) =
                     (SELECT id >> 40, document, substr(entry, 1, 8), id & 0xffffffffff FROM entry WHERE id = ?)";
        conn.prepare_cached(sql)?.execute([row])?;
        let sql = "UPDATE entry SET document = x'', device = x'', kind = x'', suite = ?, payload = x''
                   WHERE id = ? AND kind <> x''";
        conn.prepare_cached(sql)?.execute([cause, row])?;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// A log is not there any more.
    pub(super) fn forget_log(&mut self, log: i64) {
        let is_other = |entry: i64| entry >> SEQ_BITS != log;
        self.erasing.retain(|entry, _| is_other(*entry));
        self.erased.retain(|(of, _), _| *of != log);
        self.superseding.retain(|entry, _| is_other(*entry));
    }

    /// What has left since this was asked last.
    pub(super) fn take_freed(&mut self) -> HashMap<i64, u64> {
        std::mem::take(&mut self.freed)
    }

    /// Takes out a step of what an erasure is about; true if there is more.
    fn erase_step(
        &mut self,
        conn: &Connection,
        erasure: i64,
        document: DocumentId,
    ) -> Result<bool, StoreError> {
        let log = erasure >> SEQ_BITS;
        let base = log << SEQ_BITS;
        let sql = "SELECT seq, head FROM entry_of WHERE space = ? AND document = ? AND seq < ? AND seq > 0
                   AND typeof(seq) = 'integer' LIMIT ?";
        let mut statement = conn.prepare_cached(sql)?;
        let most = limits::STEP_CHANGED as i64 + 1;
        let found: Vec<(i64, Value)> = statement
            .query_map(params![log, document.as_bytes(), erasure - base, most], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, rusqlite::Error>>()?;
        let (mut done, mut bytes) = (0, 0);
        for (old, head) in found.iter().take(limits::STEP_CHANGED) {
            if bytes >= limits::STEP_FREED_BYTES {
                break;
            }
            done += 1;
            // Its row may be damaged, or name what is of another document: that stays.
            let sql = "SELECT 1 FROM entry WHERE id = ? AND (document = ? OR substr(entry, 1, 8) = ?)";
            if conn.prepare_cached(sql)?.exists(params![base + old, document.as_bytes(), head])? {
                bytes += self.remove(conn, base + old, erasure - base)?;
            }
            let sql = "DELETE FROM entry_of WHERE space = ? AND document = ? AND head = ? AND seq = ?";
            conn.prepare_cached(sql)?.execute(params![log, document.as_bytes(), head, old])?;
        }
        Ok(found.len() > done)
    }

    fn remember_erasure(&mut self, entry: i64, document: DocumentId) {
        self.erasing.insert(entry, document);
        let last = self.erased.entry((entry >> SEQ_BITS, document)).or_insert(entry);
        *last = entry.max(*last);
    }
}

/// Notes that the changes of the entry `id` are in the snapshot that was stored as the row `snapshot`.
pub(super) fn supersede(
    conn: &Connection,
    left: &Left,
    snapshot: i64,
    document: DocumentId,
    id: &EntryId,
    now: i64,
) -> Result<(), StoreError> {
    let log = snapshot >> SEQ_BITS;
    let base = log << SEQ_BITS;
    // An entry that has left already, or comes later, is not there to be superseded.
    let found = find_entry(conn, left, log, document, id)?;
    let before = |old: &u64| base + (*old as i64) < snapshot || is_planted(Bug::SweepTakesSnapshot);
    let Some(old) = found.filter(before) else { return Ok(()) };
    let sql = "UPDATE entry_of SET superseded = ?
               WHERE space = ? AND document = ? AND head = ? AND seq = ? AND superseded = 0";
    let place = params![snapshot - base, log, document.as_bytes(), id_head(id), old as i64];
    if conn.prepare_cached(sql)?.execute(place)? > 0 {
        let sql = "INSERT INTO superseded (at, entry) VALUES (?, ?)";
        conn.prepare_cached(sql)?.execute([now, base + old as i64])?;
    }
    Ok(())
}

/// A stored snapshot's document, what it supersedes, and when it came. It may have left meanwhile: then it names nothing.
fn snapshot(conn: &Connection, entry: i64) -> Result<(DocumentId, Vec<EntryId>, i64), StoreError> {
    let sql = "SELECT document, kind, received_at FROM entry WHERE id = ? AND kind <> x''";
    // Without the time of its coming, what it supersedes never leaves.
    let read = |row: &rusqlite::Row<'_>| {
        let kind = row.get_ref(1)?.as_blob().ok().and_then(Kind::from_bytes);
        let at = row.get(2).unwrap_or(i64::MAX);
        // One that is damaged names nothing either.
        Ok(row.get(0).ok().zip(kind).map(|(document, kind)| (DocumentId(document), kind, at)))
    };
    let found = conn.prepare_cached(sql)?.query_row([entry], read).optional()?.flatten();
    match found {
        Some((document, Kind::Snapshot { supersedes, .. }, at)) => Ok((document, supersedes, at)),
        _ => Ok((DocumentId([0; 16]), Vec::new(), 0)),
    }
}
