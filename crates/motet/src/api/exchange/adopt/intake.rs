//! Rows on their way into documents: read, judged, and written batch by batch.

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use super::{AdoptSummary, Adoption};
use crate::api::exchange::refusal::{BadRows, Refusals, Target, judge};
use crate::api::replica::Replica;
use crate::doc::Fields;
use crate::engine::{Adopted, Core, bytes_of};
use crate::error::WriteError;
use crate::limits;
use crate::store::{Cell, Tx};
use crate::types::Refusal;

/// Rows on their way into a replica.
pub(super) struct Intake<'a> {
    replica: &'a Replica,
    collection: &'a str,
    adoption: &'a Adoption,
    pub(super) key: Vec<String>,
    /// Where the row of an id stands.
    seen: HashMap<String, String>,
    ready: Vec<Row>,
    /// Bytes of text in them.
    ready_bytes: usize,
    summary: AdoptSummary,
    pub(super) refusals: Refusals,
    omissions: Refusals,
    undated: Refusals,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) place: String,
    pub(super) id: String,
    pub(super) fields: Fields,
    /// Milliseconds since 1970; `None` if the row does not say.
    pub(super) updated_at: Option<i64>,
}

/// What is wrong with a row, and with which field.
pub(super) type Bad = (Option<String>, String);

impl<'a> Intake<'a> {
    pub(super) fn new(
        replica: &'a Replica,
        collection: &'a str,
        adoption: &'a Adoption,
        key: Vec<String>,
    ) -> Self {
        Self {
            replica,
            collection,
            adoption,
            key,
            seen: HashMap::new(),
            ready: Vec::new(),
            ready_bytes: 0,
            summary: AdoptSummary::default(),
            refusals: Refusals::default(),
            omissions: Refusals::default(),
            undated: Refusals::default(),
        }
    }

    pub(super) fn take_json(&mut self, place: String, row: Json) -> Result<(), WriteError> {
        match row {
            Json::Object(fields) => self.take(place, fields, None),
            _ => {
                let target = Target { collection: Some(self.collection), id: None };
                self.refusals.add(Refusal::new(place, target, "it is not an object"));
                Ok(())
            }
        }
    }

    pub(super) fn take_cells(
        &mut self,
        place: String,
        columns: &[String],
        cells: Vec<Cell<'_>>,
    ) -> Result<(), WriteError> {
        let mut fields = Fields::new();
        let mut fault: Option<Bad> = None;
        let mut large = Vec::new();
        for (column, cell) in columns.iter().zip(cells) {
            let names = self.key.contains(column) || self.adoption.references.contains(column);
            let value = match cell {
                Cell::Value(value) => value,
                Cell::Blob(bytes) if names => hex(bytes).into(),
                Cell::Blob(bytes) if bytes.len() > limits::ADOPTED_BLOB_BYTES => {
                    large.push((column, bytes.len()));
                    continue;
                }
                Cell::Blob(bytes) => json!({ "base64": BASE64.encode(bytes) }),
                Cell::Fault(reason) => {
                    let bad = (Some(column.clone()), format!("field {column:?}: {reason}"));
                    fault = fault.or(Some(bad));
                    continue;
                }
            };
            fields.insert(column.clone(), value);
        }
        if !self.adoption.is_deleted(&fields) {
            let id = self.adoption.id_in(&fields, &self.key).ok();
            for (column, bytes) in large {
                let target = Target { collection: Some(self.collection), id: id.as_deref() };
                let most = limits::ADOPTED_BLOB_BYTES;
                let reason = format!(
                    "field {column:?} is left out: a BLOB of {bytes} bytes, at most {most} are taken up"
                );
                self.omissions
                    .add(Refusal { field: Some(column.clone()), ..Refusal::new(&place, target, reason) });
            }
        }
        self.take(place, fields, fault)
    }

    fn take(&mut self, place: String, fields: Fields, fault: Option<Bad>) -> Result<(), WriteError> {
        if self.adoption.is_deleted(&fields) {
            self.summary.passed_over += 1;
            return Ok(());
        }
        let id = self.adoption.id_in(&fields, &self.key);
        let named = id.clone().ok();
        let read = match fault {
            Some(bad) => Err(bad),
            None => id.and_then(|id| self.adoption.read(place.clone(), id, fields, &self.key)),
        };
        let target = Target { collection: Some(self.collection), id: named.as_deref() };
        let row = match read {
            Ok(row) => row,
            Err((field, reason)) => {
                self.refusals.add(Refusal { field, ..Refusal::new(place, target, reason) });
                return Ok(());
            }
        };
        if let Some(first) = self.seen.get(&row.id) {
            let reason = format!("it has the same id as {first}");
            self.refusals.add(Refusal::new(place, target, reason));
            return Ok(());
        }
        self.seen.insert(row.id.clone(), place.clone());
        if let Err(refusal) = judge(&place, target, &row.fields) {
            self.refusals.add(refusal);
            return Ok(());
        }
        self.ready_bytes += bytes_of(&row.fields);
        self.ready.push(row);
        let is_batch = self.ready.len() >= limits::ADOPTED_ROWS || self.ready_bytes >= limits::IMPORTED_BYTES;
        if is_batch && self.adoption.bad_rows == BadRows::Report { self.write() } else { Ok(()) }
    }

    /// Writes what is ready.
    fn write(&mut self) -> Result<(), WriteError> {
        self.ready_bytes = 0;
        let rows = std::mem::take(&mut self.ready);
        if self.adoption.bad_rows == BadRows::RefuseAll {
            return self.write_all(rows);
        }
        let mut rows =
            self.replica.compose_rows(self.collection, rows, |row| (&row.id, &row.fields, row.updated_at));
        while !rows.is_empty() {
            let (mut waiting, mut turn) = (std::mem::take(&mut rows), self.turn());
            let (left, turn) = self.replica.run(move |tx, core| {
                let until = Instant::now() + limits::WRITE_TURN;
                while let Some((row, composed)) = waiting.pop_front() {
                    core.offer(composed);
                    turn.take(tx, core, &row)?;
                    if Instant::now() >= until {
                        break;
                    }
                }
                core.let_go(tx)?;
                Ok((waiting, turn))
            })?;
            rows = left;
            self.note(turn);
        }
        Ok(())
    }

    /// Writes all rows or none, in one transaction.
    fn write_all(&mut self, rows: Vec<Row>) -> Result<(), WriteError> {
        let mut turn = Turn { refusals: std::mem::take(&mut self.refusals), ..self.turn() };
        let turn = self.replica.run(move |tx, core| {
            for (number, row) in (1..).zip(&rows) {
                turn.take(tx, core, row)?;
                if number % limits::ADOPTED_ROWS == 0 {
                    core.let_go(tx)?;
                }
            }
            turn.refusals.sort();
            turn.refusals.settle(BadRows::RefuseAll, 0)?;
            Ok(turn)
        })?;
        self.note(turn);
        Ok(())
    }

    fn turn(&self) -> Turn {
        Turn {
            collection: self.collection.to_owned(),
            updated_at: self.adoption.updated_at.clone(),
            adopted: Vec::new(),
            refusals: Refusals::default(),
            undated: Refusals::default(),
        }
    }

    fn note(&mut self, Turn { adopted, refusals, undated, .. }: Turn) {
        self.refusals.extend(refusals);
        self.undated.extend(undated);
        for outcome in adopted {
            match outcome {
                Adopted::New => self.summary.new += 1,
                Adopted::Updated => self.summary.updated += 1,
                Adopted::Unchanged => self.summary.unchanged += 1,
                Adopted::PassedOver => self.summary.passed_over += 1,
                // Listed with their reasons.
                Adopted::Undated { .. } => {}
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<AdoptSummary, WriteError> {
        let bad_rows = self.adoption.bad_rows;
        if bad_rows == BadRows::RefuseAll {
            self.refusals.extend(std::mem::take(&mut self.omissions));
        }
        self.write()?;
        self.refusals.sort();
        let AdoptSummary { new, updated, unchanged, passed_over, .. } = self.summary;
        let read = new + updated + unchanged + passed_over + self.undated.count;
        self.refusals.settle(bad_rows, read)?;
        let (refusals, omissions, undated) = (self.refusals, self.omissions, self.undated);
        Ok(AdoptSummary {
            refused: refusals.count,
            refusals: refusals.listed,
            undated: undated.count,
            undated_rows: undated.listed,
            left_out: omissions.count,
            omissions: omissions.listed,
            ..self.summary
        })
    }
}

/// One transaction: what became of its rows.
struct Turn {
    collection: String,
    updated_at: String,
    adopted: Vec<Adopted>,
    refusals: Refusals,
    undated: Refusals,
}

impl Turn {
    fn take(&mut self, tx: Tx<'_>, core: &mut Core, row: &Row) -> Result<(), WriteError> {
        let target = Target { collection: Some(&self.collection), id: Some(&row.id) };
        match core.adopt(tx, &self.collection, &row.id, &row.fields, row.updated_at) {
            Ok(Adopted::Undated { field }) => {
                self.undated.add(row.undated(target, &self.updated_at, field));
            }
            Ok(outcome) => self.adopted.push(outcome),
            Err(WriteError::Storage(error)) => return Err(error.into()),
            Err(error) => self.refusals.add(Refusal::unwritten(&row.place, target, &error)),
        }
        Ok(())
    }
}

impl Row {
    /// Why it changes nothing: it does not say when it was written.
    fn undated(&self, target: Target<'_>, column: &str, field: String) -> Refusal {
        let reason = format!(
            "it has no {column:?}, so nobody can say whether it is newer than its document, which has another {field:?} and stays as it is"
        );
        Refusal { field: Some(field), ..Refusal::new(&self.place, target, reason) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
