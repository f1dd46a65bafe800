//! Looking after the file: is everything in it what it should be, and if not, making it so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::api::Replica;
use crate::engine::{Examined, Repaired, declared, examine, examine_rows_beside};
use crate::error::{OpenError, ReadError, WriteError};
use crate::limits;
use crate::store::{self, QuarantinedRow, StorageError};
use crate::types::ProblemKind;

/// What [`Replica::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Documents looked at.
    pub documents: u64,
    /// What is not as it should be; empty is good.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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

/// What [`Replica::repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was not as it should be.
    pub problems: Vec<Problem>,
    /// Documents of which something was lost here: with the next sync everything the relay holds is read again.
    pub fetched_again: u64,
    /// The database itself was damaged, and was put in order or written anew.
    pub written_anew: bool,
    /// Where the damaged file was put, if it was written anew or something of a document was lost: `notes.db` beside itself as
    /// `notes.damaged.db`, with SQLite's log as it was. A better tool may read more of it, and what a document showed last is in it. It holds all
    /// that the file held, also what stays on this device, and what is purged later is still in it; only its user can read it. There is one: a file
    /// that is put there a day later or more takes its place, and it can be removed at any time.
    pub put_aside: Option<PathBuf>,
    /// What is still not as it should be.
    pub left: Vec<Problem>,
}

/// Something that was received and could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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

    /// Has everything that is set aside tried again: the relay's log is read from the start, at once if the replica is connected, otherwise
    /// with the next session. Items leave the quarantine when they could be applied.
    ///
    /// # Errors
    /// [`WriteError`] if that cannot be noted.
    pub fn retry_quarantined(&self) -> Result<(), WriteError> {
        self.run(|tx, core| {
            tx.try_ended_over()?;
            Ok(core.read_logs_anew(tx)?)
        })
    }

    /// Looks at the whole file: the database, and all that is stored of each document. Nothing that is found ends it: what cannot be read
    /// is named, and the rest is looked at. Takes about as long as loading every document; other work goes on meanwhile.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be opened, or is in use for too long.
    pub fn verify(&self) -> Result<VerifyReport, ReadError> {
        Ok(self.look()?.report)
    }

    /// Repairs what [`verify`](Self::verify) finds, from whatever source of it still loads: the saved form of a document, its changes, the
    /// entries that wait to be sent. Projections and the full-text index are made anew. If the database itself is damaged, it is
    /// written anew from what can be read of it, and the damaged file is kept ([`RepairReport::put_aside`]). Only changes that are nowhere here
    /// are lost, and those that build on them wait for them. What such a document showed is written anew if no remote can have it. Then everything is compared with the relay, at once if the replica is connected, otherwise with the next session: what it holds is read again, and it is sent what it lacks.
    ///
    /// # Errors
    /// [`WriteError`]; documents repaired until then stay repaired.
    pub fn repair(&self) -> Result<RepairReport, WriteError> {
        self.database().may_write()?;
        let mut looked = self.look().map_err(write_error)?;
        let mut report = RepairReport { problems: looked.report.problems.clone(), ..RepairReport::default() };
        for _ in 0..limits::REPAIR_PASSES {
            let was_sound = looked.report.problems.is_empty();
            self.repair_found(looked, &mut report)?;
            if was_sound {
                looked = Looked::default();
                break;
            }
            // What was damaged may have hidden something else.
            looked = self.look().map_err(write_error)?;
            if looked.report.problems.is_empty() {
                break;
            }
        }
        report.left = looked.report.problems;
        self.rebuild_search()?;
        Ok(report)
    }

    fn repair_found(&self, mut looked: Looked, report: &mut RepairReport) -> Result<(), WriteError> {
        if looked.is_file_damaged {
            let kept = self.repair_file(&looked, report.put_aside.is_none())?;
            report.put_aside = kept.or(report.put_aside.take());
            report.written_anew = true;
            looked = self.look().map_err(write_error)?;
        }
        if looked.are_rows_odd {
            self.run(|tx, core| Ok(core.mend_rows(tx)?))?;
            looked = self.look().map_err(write_error)?;
        }
        let documents: BTreeSet<i64> = looked.damaged.iter().copied().collect();
        // What somebody may want to read once more if a document cannot be made whole.
        let file = &self.database().file;
        let aside = match report.put_aside.is_none() && !documents.is_empty() {
            true => Some(store::Aside::of(file)?),
            false => None,
        };
        let fetched_before = report.fetched_again;
        // While an index is made of a row that is no JSON, that row cannot even be replaced.
        let is_unindexed = !documents.is_empty() && self.run(|tx, _| Ok(tx.drop_indexes_of_damaged()?))?;
        for document in documents {
            match self.run(move |tx, core| Ok(core.repair(tx, document)?)) {
                Ok(repaired) => report.fetched_again += u64::from(repaired == Repaired::FetchedAgain),
                // The others are repaired, and this one is still named afterwards.
                Err(WriteError::Storage(StorageError::Damaged(reason))) => {
                    tracing::error!(document, reason, "a document cannot be repaired");
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(aside) = aside.filter(|_| report.fetched_again > fetched_before) {
            report.put_aside = Some(aside.keep(file)?);
        }
        if is_unindexed && let Err(error) = self.run(|tx, core| Ok(core.declare_indexes(tx)?)) {
            // What is left of it is named afterwards; lists are right without.
            tracing::error!(%error, "the declared indexes could not be made again");
        }
        // A row of the outbox that is gone leaves no trace here: the remote tells what it lacks.
        self.run(|tx, core| Ok(core.tidy(tx)?))
    }

    /// Writes a file that is too damaged to be opened anew from what can be read of it, in its place. Then it can be opened, and
    /// [`repair`](Self::repair) puts the documents in order. A file that can be opened needs nothing of this. Returns where the damaged file is
    /// kept: see [`RepairReport::put_aside`].
    ///
    /// # Errors
    /// [`OpenError::Storage`](crate::OpenError::Storage) if nothing can be read, or the file is none of Motet's, or there is no room on the
    /// disk; it is left as it is then.
    pub fn salvage(path: impl AsRef<Path>) -> Result<Option<PathBuf>, OpenError> {
        Ok(store::salvage(path.as_ref(), true)?)
    }

    fn look(&self) -> Result<Looked, ReadError> {
        let mut looked = Looked::default();
        let integrity = self.database().readers.integrity();
        looked.are_pages_damaged = matches!(integrity, Err(StorageError::Sqlite(_)));
        let integrity = match integrity {
            Err(error) => vec![unreadable(error)?],
            lines => lines?,
        };
        looked.is_file_damaged = !integrity.is_empty();
        looked.are_pages_damaged |= integrity.iter().any(|line| line.starts_with("***"));
        integrity.into_iter().for_each(|detail| looked.report.problems.push(Problem::of_file(detail)));
        let ids = match self.database().readers.read(|tx| tx.all_document_ids()) {
            Err(error) => {
                let detail = unreadable(error)?;
                looked.is_file_damaged = true;
                let problem = format!("documents cannot be listed: {detail}");
                looked.report.problems.push(Problem::of_file(problem));
                return Ok(looked);
            }
            ids => ids?,
        };
        let caught_up = self.read(|_| Ok(()));
        if let Err(Ok(detail)) = caught_up.map_err(unreadable) {
            looked.is_file_damaged = true;
            looked.report.problems.push(Problem::of_file(detail));
        }
        for chunk in ids.chunks(limits::VERIFIED_DOCUMENTS) {
            // A view of the file for each few, so that it can be written to meanwhile.
            self.database().readers.read(|tx| {
                let schemas = declared(tx)?;
                chunk.iter().try_for_each(|id| {
                    looked.report.documents += 1;
                    match examine(tx, &schemas, *id) {
                        Ok(None) => {}
                        Ok(Some(examined)) => {
                            looked.damaged.push(examined.document);
                            looked.report.problems.extend(examined.into_problems());
                        }
                        Err(error @ (StorageError::Damaged(_) | StorageError::Sqlite(_))) => {
                            looked.damaged.push(*id);
                            looked.report.problems.push(Problem::of_file(format!("document {id}: {error}")));
                        }
                        Err(error) => return Err(error),
                    }
                    Ok(())
                })
            })?;
        }
        for detail in self.database().readers.read(|tx| tx.of_nobody()).unwrap_or_default() {
            looked.report.problems.push(Problem::of_file(detail));
        }
        // Of a file that is damaged itself some tables may not be readable.
        let beside = match self.database().readers.read(examine_rows_beside) {
            Err(error) => vec![unreadable(error)?],
            beside => beside?,
        };
        looked.are_rows_odd = !beside.is_empty();
        let problem = |detail| Problem { kind: ProblemKind::Rows, ..Problem::of_file(detail) };
        looked.report.problems.extend(beside.into_iter().map(problem));
        Ok(looked)
    }

    /// The database itself is damaged. Often it is only something that is made of the rest; else all that can be read goes into a new file,
    /// which takes the place of this one. Returns where this one is kept, if it is the first that this repair writes anew.
    fn repair_file(&self, looked: &Looked, is_kept: bool) -> Result<Option<PathBuf>, WriteError> {
        if !looked.are_pages_damaged {
            let derived = self.run(|tx, core| {
                core.rebuild_search(tx)?;
                Ok(tx.rebuild_indexes()?)
            });
            if derived.is_ok() && self.database().readers.integrity().is_ok_and(|lines| lines.is_empty()) {
                return Ok(None);
            }
        }
        Ok(store::salvage(&self.database().file, is_kept)?)
    }
}

/// What [`Replica::look`] has found.
#[derive(Default)]
struct Looked {
    report: VerifyReport,
    /// The database itself.
    is_file_damaged: bool,
    /// Not only indexes that do not fit their tables. Pages that belong to nothing SQLite tells of only while no page is free, so it cannot be
    /// asked whether they are in order again.
    are_pages_damaged: bool,
    are_rows_odd: bool,
    damaged: Vec<i64>,
}

impl Problem {
    fn of_file(detail: String) -> Self {
        Self { collection: None, id: None, kind: ProblemKind::File, detail }
    }
}

/// What cannot be read of a file; else the error. Whatever else SQLite cannot look at is not as it should be either: of a log that was cut off
/// it says that the disk failed.
fn unreadable(error: StorageError) -> Result<String, StorageError> {
    match error {
        StorageError::Damaged(detail) => Ok(detail),
        StorageError::Sqlite(error) => Ok(error.to_string()),
        error => Err(error),
    }
}

fn write_error(error: ReadError) -> WriteError {
    match error {
        ReadError::Storage(error) => WriteError::Storage(error),
        ReadError::Shape { reason, .. } => WriteError::bad_value(reason),
        error @ ReadError::UnknownChange { .. } => WriteError::bad_value(error.to_string()),
    }
}

impl Examined {
    fn into_problems(self) -> Vec<Problem> {
        let Self { collection, name, found, .. } = self;
        let problem = |(kind, detail)| Problem {
            collection: Some(collection.clone()),
            id: Some(name.clone()),
            kind,
            detail,
        };
        found.into_iter().map(problem).collect()
    }
}
