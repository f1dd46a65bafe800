//! What this device did, so that it can be undone.

use rusqlite::{OptionalExtension, Row, params};

use super::documents::{Hash, hashes};
use super::{Result, StorageError, Tx};
use crate::limits;

/// What kind of step it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// A transaction of the app.
    Transaction,
    Undo,
    Redo,
}

/// One step of this device.
#[derive(Debug)]
pub(crate) struct StepRow {
    pub(crate) id: i64,
    pub(crate) kind: StepKind,
    /// The transaction that was undone or done again; of a transaction its own id.
    pub(crate) target: i64,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    /// Those of the transaction.
    pub(crate) label: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) documents: Vec<StepDocument>,
}

/// What a step did to a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepDocument {
    pub(crate) document: i64,
    pub(crate) before: StoredVersion,
    pub(crate) after: StoredVersion,
}

/// A document as it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredVersion {
    /// None if it was not there yet.
    pub(crate) heads: Vec<Hash>,
    pub(crate) deleted: bool,
}

impl Tx<'_> {
    /// Adds a step. `target`: what was undone or done again. Now and then the oldest are forgotten.
    pub(crate) fn add_step(
        &self,
        kind: StepKind,
        target: Option<i64>,
        at: i64,
        (label, message): (Option<&str>, Option<&str>),
        documents: &[StepDocument],
    ) -> Result<i64> {
        let sql = "INSERT INTO step (kind, target, at, label, message, documents) VALUES (?, ?, ?, ?, ?, ?)";
        let row = params![kind as i64, target, at, label, message, encode(documents)];
        self.conn.prepare_cached(sql)?.execute(row)?;
        let id = self.conn.last_insert_rowid();
        if id % limits::UNDO_SWEEP == 0 {
            for sql in ["DELETE FROM step WHERE id <= ?", "DELETE FROM same_version WHERE step <= ?"] {
                self.conn.prepare_cached(sql)?.execute([id - limits::UNDO_STEPS])?;
            }
        }
        Ok(id)
    }

    /// The steps before `id`, the latest first, at most `limit`.
    pub(crate) fn steps_before(&self, id: i64, limit: usize) -> Result<Vec<StepRow>> {
        let sql = "SELECT id, kind, target, at, label, message, documents FROM step WHERE id < ?
                   ORDER BY id DESC LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![id, limit as i64], |row| Ok(step_row(row)))?;
        rows.map(|row| row?).collect()
    }

    /// The earlier version that a version of a document is exactly like; else itself.
    pub(crate) fn earliest_like(&self, document: i64, heads: &[Hash]) -> Result<Vec<Hash>> {
        let sql = "SELECT earlier FROM same_version WHERE document = ? AND heads = ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut like = heads.to_vec();
        // It is like one that was found to be like an earlier one since, where a step had no effect.
        for _ in 0..limits::UNDO_STEPS {
            let row = params![document, like.as_flattened()];
            let found = statement.query_row(row, |row| Ok(hashes(row.get_ref(0)?.as_blob()?))).optional()?;
            match found {
                Some(earlier) => like = earlier,
                None => break,
            }
        }
        Ok(like)
    }

    /// Notes that a version is exactly like an earlier one, which is like no earlier one so far.
    pub(crate) fn note_same_version(
        &self,
        document: i64,
        heads: &[Hash],
        earlier: &[Hash],
        step: i64,
    ) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO same_version (document, heads, earlier, step) VALUES (?, ?, ?, ?)";
        let row = params![document, heads.as_flattened(), earlier.as_flattened(), step];
        self.conn.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// Forgets all that could be undone.
    pub(crate) fn forget_steps(&self) -> Result<()> {
        Ok(self.conn.execute_batch("DELETE FROM step; DELETE FROM same_version")?)
    }

    /// Collection and name of a document.
    pub(crate) fn document_name(&self, document: i64) -> Result<Option<(String, String)>> {
        let sql = "SELECT collection, name FROM document WHERE id = ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row([document], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }
}

fn step_row(row: &Row<'_>) -> Result<StepRow> {
    let id = row.get(0)?;
    let damaged = || StorageError::Damaged(format!("step {id} of the undo history cannot be read"));
    Ok(StepRow {
        id,
        kind: match row.get(1)? {
            0i64 => StepKind::Transaction,
            1 => StepKind::Undo,
            2 => StepKind::Redo,
            _ => return Err(damaged()),
        },
        target: row.get::<_, Option<i64>>(2)?.unwrap_or(id),
        at: row.get(3)?,
        label: row.get(4)?,
        message: row.get(5)?,
        documents: decode(row.get_ref(6)?.as_blob().unwrap_or_default()).ok_or_else(damaged)?,
    })
}

/// Per document: its row id, and twice a flag (deleted), the number of heads, the heads. Numbers are little-endian.
fn encode(documents: &[StepDocument]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for StepDocument { document, before, after } in documents {
        bytes.extend(document.to_le_bytes());
        for version in [before, after] {
            bytes.push(version.deleted.into());
            bytes.extend((version.heads.len() as u32).to_le_bytes());
            bytes.extend_from_slice(version.heads.as_flattened());
        }
    }
    bytes
}

/// Whether these bytes are the documents of a step.
pub(super) fn is_step_documents(bytes: &[u8]) -> bool {
    decode(bytes).is_some()
}

fn decode(mut bytes: &[u8]) -> Option<Vec<StepDocument>> {
    fn version(bytes: &mut &[u8]) -> Option<StoredVersion> {
        let deleted = bytes.split_off_first()? != &0;
        let count = u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?) as usize;
        let heads = bytes.split_off(..count.checked_mul(32)?)?;
        Some(StoredVersion { heads: hashes(heads), deleted })
    }
    let mut documents = Vec::new();
    while !bytes.is_empty() {
        let document = i64::from_le_bytes(bytes.split_off(..8)?.try_into().ok()?);
        let (before, after) = (version(&mut bytes)?, version(&mut bytes)?);
        documents.push(StepDocument { document, before, after });
    }
    Some(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_a_step_come_back_as_they_were_and_garbage_is_refused() {
        let version = |heads: &[u8], deleted| StoredVersion {
            heads: heads.iter().map(|byte| [*byte; 32]).collect(),
            deleted,
        };
        let documents = [
            StepDocument { document: 7, before: version(&[], false), after: version(&[1], false) },
            StepDocument { document: -1, before: version(&[1, 2, 3], false), after: version(&[4], true) },
        ];
        let bytes = encode(&documents);
        assert_eq!(decode(&bytes).unwrap(), documents);
        for end in 1..bytes.len() {
            assert!(decode(&bytes[..end]).is_none_or(|decoded| decoded.len() < documents.len()));
        }
        assert_eq!(decode(&[0xff; 40]), None);
    }
}
