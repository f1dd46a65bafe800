//! Looking after the file: is everything in it what it should be, and if not, making it so.

use serde::Serialize;

use crate::engine::{Examined, examine};
use crate::error::{ReadError, WriteError};
use crate::limits;
use crate::replica::Replica;
use crate::store::QuarantinedRow;

/// What [`Replica::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Documents looked at.
    pub documents: u64,
    /// What is not as it should be; empty is good.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Collection of the document; `None` if it is about the whole file.
    pub collection: Option<String>,
    /// Id of the document; `None` if it is about the whole file.
    pub id: Option<String>,
    /// What is damaged.
    pub kind: ProblemKind,
    /// More about it, for a person.
    pub detail: String,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The database file itself.
    File,
    /// Changes that cannot be read, or some that are missing. Repaired by what the relay holds.
    Changes,
    /// A saved document that speeds up loading. Repaired from the changes.
    Snapshot,
    /// What reads are served from. Repaired from the changes.
    Projection,
}

/// What [`Replica::repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What was not as it should be.
    pub problems: Vec<Problem>,
    /// Documents of which something was lost here: with the next sync everything the relay holds is read again.
    pub fetched_again: u64,
}

/// Something that was received and could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Collection of the document; `None` if nothing of it is here.
    pub collection: Option<String>,
    /// Id of the document; `None` if nothing of it is here.
    pub id: Option<String>,
    /// Hash of the change, or id of the entry, in hex.
    pub item: String,
    /// Why it was set aside.
    pub reason: String,
    /// It is tried again when the document receives more; otherwise only when [`Replica::retry_quarantined`] is called, which
    /// another version of the library does by itself.
    pub waits: bool,
    /// Bytes kept here; `None` once they had to make room
    /// ([`QUARANTINE_BYTES`](crate::limits::QUARANTINE_BYTES)).
    pub bytes: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

impl Replica {
    /// What was received and could not be applied, the latest first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn quarantined(&self, limit: usize) -> Result<Vec<Quarantined>, ReadError> {
        let rows = self.read(|tx| tx.quarantined(limit))?;
        let item = |row: QuarantinedRow| {
            let (collection, id) = row.document.unzip();
            let item = blake3::Hash::from_bytes(row.hash).to_hex().to_string();
            let bytes = row.bytes.map(i64::unsigned_abs);
            Quarantined { collection, id, item, reason: row.reason, waits: row.waits, bytes, at: row.at }
        };
        Ok(rows.into_iter().map(item).collect())
    }

    /// Has everything that is set aside tried again: with the next session the relay's log is read from the start. Items leave the
    /// quarantine when they could be applied.
    ///
    /// # Errors
    /// [`WriteError`] if that cannot be noted.
    pub fn retry_quarantined(&self) -> Result<(), WriteError> {
        self.run(|tx, _| Ok(tx.forget_positions()?))
    }

    /// Looks at the whole file: the database, each document's changes, snapshot and projection. Takes about as long as
    /// loading every document; other work goes on meanwhile.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read at all.
    pub fn verify(&self) -> Result<VerifyReport, ReadError> {
        let mut report = VerifyReport::default();
        for detail in self.local().readers.integrity()? {
            report.problems.push(Problem { collection: None, id: None, kind: ProblemKind::File, detail });
        }
        let schemas = self.schemas();
        let mut after = 0;
        loop {
            let examined = self.read(|tx| {
                let ids = tx.document_ids_after(after, limits::VERIFIED_DOCUMENTS)?;
                ids.into_iter().map(|id| Ok((id, examine(tx, &schemas, id)?))).collect::<Result<Vec<_>, _>>()
            })?;
            let Some((last, _)) = examined.last() else { return Ok(report) };
            after = *last;
            for (_, examined) in examined {
                report.documents += 1;
                report.problems.extend(examined.into_iter().flat_map(Examined::into_problems));
            }
        }
    }

    /// Repairs what [`verify`](Self::verify) finds: projections, snapshots and the full-text index are made anew. Changes
    /// that are damaged are dropped with those that build on them, and with the next sync everything the relay holds is read
    /// again; whatever it does not hold of them is lost.
    ///
    /// # Errors
    /// [`WriteError`]; documents repaired until then stay repaired.
    pub fn repair(&self) -> Result<RepairReport, WriteError> {
        let found = self.verify().map_err(|error| match error {
            ReadError::Storage(error) => WriteError::Storage(error),
            ReadError::Shape { reason, .. } => WriteError::BadValue { reason },
        })?;
        let mut report = RepairReport { problems: found.problems, fetched_again: 0 };
        for problem in &report.problems {
            if let (Some(collection), Some(id)) = (problem.collection.clone(), problem.id.clone()) {
                let lost = problem.kind == ProblemKind::Changes;
                self.run(move |tx, core| Ok(core.repair(tx, &collection, &id, lost)?))?;
                report.fetched_again += u64::from(lost);
            }
        }
        self.run(|tx, core| Ok(core.rebuild_search(tx)?))?;
        Ok(report)
    }
}

impl Examined {
    fn into_problems(self) -> Vec<Problem> {
        let Self { collection, name, found } = self;
        let problem = |(kind, detail)| Problem {
            collection: Some(collection.clone()),
            id: Some(name.clone()),
            kind,
            detail,
        };
        found.into_iter().map(problem).collect()
    }
}
