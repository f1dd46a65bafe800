//! A device: the real library on a disk in memory, driven by the acts of a script and read in every way there is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use motet::{Adoption, BadRows, Editor, Record, Replica, Schema, Transaction, Version, WriteError};
use serde_json::{Value, json};

use super::anew;
use super::fresh;
use super::journal::{Journal, call};
use super::model::Noted;
use super::script::{Act, Fields, Policy, Script, Write, id};
use super::writes::{place, resolved};
use crate::simulation::disk::Disk;
use crate::simulation::vfs::Mount;

/// The collection of all scripts.
pub(super) const COLLECTION: &str = "things";

/// A day in 2026, in milliseconds since 1970.
const START_MS: i64 = 1_780_000_000_000;

/// Name of the restore point.
const POINT: &str = "point";

/// What an app holds.
enum Slot {
    Record(Record<Value>),
    Editor(Box<Editor<Value>>),
}

/// A device.
pub(super) struct Device {
    name: String,
    /// Dropped before the disk is unmounted.
    slots: BTreeMap<usize, Slot>,
    replica: Option<Replica>,
    /// For reading the changes without the library.
    pub(super) conn: Option<rusqlite::Connection>,
    /// How often the view was read.
    pub(super) selections: Cell<u32>,
    mount: Mount,
    clock: Arc<AtomicI64>,
    /// How new a row of another database is now, on whichever device it is taken up: each newer than the one before.
    pub(super) rows: i64,
}

impl Device {
    /// A new device, on a disk that is mounted as `mount`.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn new(at: usize, mount: &str, schema: &Schema) -> Result<Self, String> {
        let disk = fresh::disk(mount, 2 + at as u64, |disk| Self::on(at, mount, disk).open().map(drop))?;
        let mut device = Self::on(at, mount, &disk);
        device.replica = Some(device.open()?);
        device.conn = Some(anew::open(&device.path())?);
        device.replica().apply_schema(schema).map_err(|error| error.to_string())?;
        Ok(device)
    }

    fn on(at: usize, mount: &str, disk: &Disk) -> Self {
        Self {
            name: format!("device {at}"),
            slots: BTreeMap::new(),
            replica: None,
            conn: None,
            selections: Cell::new(0),
            mount: Mount::new(mount, disk),
            clock: Arc::new(AtomicI64::new(START_MS)),
            rows: 0,
        }
    }

    /// The replica.
    pub(super) fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("it is open but for a moment")
    }

    /// Where its file is.
    pub(super) fn path(&self) -> PathBuf {
        self.mount.path("motet.db")
    }

    /// One more process on the same file.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn open(&self) -> Result<Replica, String> {
        let clock = self.clock.clone();
        let builder = Replica::builder(self.path()).device_name(&self.name).purge_grace(Duration::ZERO);
        let replica = builder.clock(move || clock.load(Ordering::Relaxed)).open();
        replica.map_err(|error| format!("the file does not open: {error}"))
    }

    /// Sets the clock, to milliseconds after the start.
    pub(super) fn set_clock(&self, ms: i64) {
        self.clock.store(START_MS + ms, Ordering::Relaxed);
    }

    /// What the clock shows.
    pub(super) fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Carries out an act of one device. `Ok(false)`: there was nothing to do.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn act(
        &mut self,
        act: &Act,
        journal: &Journal,
        versions: &BTreeMap<usize, Vec<Noted>>,
    ) -> Result<bool, WriteError> {
        let replica = self.replica().clone();
        match act {
            Act::Write(write) => return self.write(write, versions, journal),
            Act::Transaction { writes, fails } => {
                let (writes, fails, versions) = (writes.clone(), *fails, versions.clone());
                let journal = journal.clone();
                replica.transaction(move |tx| {
                    for write in &writes {
                        in_transaction(tx, write, &versions, &journal)?;
                    }
                    if fails { Err(WriteError::Rejected("the app changed its mind".into())) } else { Ok(()) }
                })?;
            }
            Act::Open { slot, doc, editor } => return self.open_slot(*slot, *doc, *editor),
            Act::Change { slot, set, remove } => return self.change(*slot, set, remove),
            Act::Refresh { slot } => match self.slots.get_mut(slot) {
                Some(Slot::Editor(editor)) => return editor.refresh(),
                _ => return Ok(false),
            },
            Act::Import { documents, many } => {
                let values: Vec<Value> =
                    documents.iter().map(|(doc, fields)| with_id(*doc, fields)).collect();
                if *many {
                    replica.transaction(move |tx| tx.documents(COLLECTION).upsert_many(&values))?;
                } else {
                    let lines: Vec<String> = values.iter().map(Value::to_string).collect();
                    let lines = lines.join("\n");
                    replica.import_jsonl(Some(COLLECTION), lines.as_bytes(), BadRows::Report, |_| {})?;
                }
            }
            Act::Adopt { doc, fields, newer } => {
                // In the next century, or in the last one.
                let at = if *newer { 4_200_000_000 + 10 * self.rows } else { 100_000_000 };
                let mut row = fields.clone();
                row.insert("id".into(), id(*doc).into());
                row.insert("changed_at".into(), at.into());
                let adoption = Adoption {
                    updated_at: "changed_at".into(),
                    deleted_at: "removed_at".into(),
                    exclude: vec!["changed_at".into()],
                    ..Adoption::default()
                };
                replica.adopt(COLLECTION, vec![Value::Object(row)], &adoption)?;
            }
            Act::ChangeLog { entries } => {
                let entry = |(doc, fields): &(usize, Option<Fields>)| match fields {
                    Some(fields) => json!({ "op": "upsert", "id": id(*doc), "data": fields }),
                    None => json!({ "op": "delete", "id": id(*doc) }),
                };
                let entries: Vec<Value> = entries.iter().map(entry).collect();
                replica.import_change_log(&json!({ "changes": { COLLECTION: entries } }))?;
            }
            Act::OwnChangeLog => {
                let log =
                    replica.export_change_log(0).map_err(|error| WriteError::Rejected(error.to_string()))?;
                carry_out(&replica, &log)?;
            }
            Act::Undo => return undo(&replica),
            Act::Redo => return redo(&replica),
            Act::Point => replica.create_restore_point(POINT)?,
            Act::RestorePoint { doc } => {
                let doc = doc.map(id);
                replica.restore_point(POINT, doc.as_deref().map(|doc| (COLLECTION, doc)))?;
            }
            Act::Declare { field, declared, .. } => {
                replica.apply_schema(&Schema::new().field(COLLECTION, field, declared.field()))?;
            }
            // What it is declared to be is known to the run.
            Act::Rename { .. } => {}
            Act::DeclarePolicy { policy } => {
                replica.apply_schema(&Schema::new().delete(COLLECTION, policy.declared()))?;
            }
            Act::Restart => {
                self.slots.clear();
                drop(replica);
                self.replica = None;
                let opened = self.open().map_err(WriteError::Rejected)?;
                self.replica = Some(opened);
            }
            Act::Repair => _ = replica.repair().map_err(|error| WriteError::Rejected(error.to_string()))?,
            Act::PurgeTrash => _ = replica.documents(COLLECTION).purge_trash(i64::MAX)?,
            Act::Sync => {}
        }
        Ok(true)
    }

    fn write(
        &mut self,
        write: &Write,
        versions: &BTreeMap<usize, Vec<Noted>>,
        journal: &Journal,
    ) -> Result<bool, WriteError> {
        let things = self.replica().documents(COLLECTION);
        let doc = write.doc();
        let name = id(doc);
        let seen = read(things.get(&name))?.and_then(|record| without_id(record.value));
        let write = &resolved(write, seen.as_ref());
        let version = match write {
            Write::Insert { fields, .. } => {
                // One that exists is changed: `insert` would refuse it.
                let made = match &seen {
                    Some(_) => things.upsert(&name, &with_id(doc, fields)).map(|_| name.clone()),
                    None => things.insert(&with_id(doc, fields)),
                }?;
                assert_eq!(made, name, "insert returns the id of the value");
                return Ok(true);
            }
            Write::Put { fields, .. } => things.upsert(&name, &Value::Object(fields.clone()))?,
            Write::Set { fields, .. } => things.patch(&name, fields)?,
            Write::Update { changes, .. } => {
                let mut record = read(things.get(&name))?.ok_or_else(|| gone(doc))?;
                for (set, remove) in changes {
                    apply(&mut record.value, set, remove);
                    things.update(&mut record)?;
                }
                return Ok(true);
            }
            Write::Splice { field, at, delete, insert, outside, .. } => {
                let (at, delete) = self.place(doc, field, *at, *delete, *outside);
                things.document(&name).splice_text(field, at, delete, insert)?
            }
            Write::Increment { field, by, .. } => things.document(&name).increment(field, *by)?,
            Write::Delete { .. } => {
                things.delete(&name)?;
                return Ok(true);
            }
            Write::Restore { .. } => things.document(&name).restore()?,
            Write::RestoreVersion { back, .. } => {
                things.document(&name).restore_version(&old_version(doc, *back, versions)?)?
            }
            Write::Resolve { field, row, choice, .. } => {
                let (path, resolution) = call(journal, doc, field, *row, choice);
                things.document(&name).resolve(&path, resolution)?
            }
            Write::PutAt { .. }
            | Write::EditSet { .. }
            | Write::Retype { .. }
            | Write::Relist { .. }
            | Write::Purge { .. } => {
                let (write, versions, journal) = (write.clone(), versions.clone(), journal.clone());
                self.replica().transaction(move |tx| in_transaction(tx, &write, &versions, &journal))?;
                return Ok(true);
            }
        };
        let shown = read(things.get(&name))?;
        let is_shown = shown.is_some_and(|record| record.version == version);
        assert!(is_shown, "the version that {write} returns is the version that shows");
        Ok(true)
    }

    fn place(&self, doc: usize, field: &str, at: usize, delete: usize, outside: bool) -> (usize, usize) {
        let shown = self.replica().documents(COLLECTION).get(&id(doc)).ok().flatten();
        let text = shown.and_then(|record| record.value.get(field)?.as_str().map(str::to_owned));
        place(&text.unwrap_or_default(), at, delete, outside)
    }

    fn open_slot(&mut self, slot: usize, doc: usize, editor: bool) -> Result<bool, WriteError> {
        self.slots.remove(&slot);
        let things = self.replica().documents(COLLECTION);
        let opened = match editor {
            true => read(things.edit(&id(doc)))?.map(|editor| Slot::Editor(Box::new(editor))),
            false => read(things.get(&id(doc)))?.map(Slot::Record),
        };
        let is_there = opened.is_some();
        opened.into_iter().for_each(|opened| _ = self.slots.insert(slot, opened));
        Ok(is_there)
    }

    fn change(&mut self, slot: usize, set: &Fields, remove: &[String]) -> Result<bool, WriteError> {
        let things = self.replica().documents(COLLECTION);
        let before;
        let written = match self.slots.get_mut(&slot) {
            None => return Ok(false),
            Some(Slot::Record(record)) => {
                before = record.value.clone();
                apply(&mut record.value, set, remove);
                things.update(record).map(drop)
            }
            Some(Slot::Editor(editor)) => {
                before = (***editor).clone();
                apply(editor, set, remove);
                editor.save().map(drop)
            }
        };
        if let Err(error) = written {
            // The user takes it back, and leaves.
            match self.slots.remove(&slot) {
                Some(Slot::Editor(mut editor)) => **editor = before,
                _ => drop(before),
            }
            return Err(error);
        }
        Ok(true)
    }

    /// What the app holds in a slot.
    pub(super) fn slot(&self, slot: usize) -> Option<Fields> {
        let value = match self.slots.get(&slot)? {
            Slot::Record(record) => record.value.clone(),
            Slot::Editor(editor) => (***editor).clone(),
        };
        without_id(value)
    }

    /// Forgets what is in the slots.
    pub(super) fn close_slots(&mut self) {
        self.slots.clear();
    }
}

fn in_transaction(
    tx: &mut Transaction<'_>,
    write: &Write,
    versions: &BTreeMap<usize, Vec<Noted>>,
    journal: &Journal,
) -> Result<(), WriteError> {
    let doc = write.doc();
    let name = id(doc);
    let seen = tx.documents(COLLECTION).get(&name)?.and_then(|record| without_id(record.value));
    let write = &resolved(write, seen.as_ref());
    match write {
        Write::Retype { .. } | Write::Relist { .. } => {}
        Write::Insert { fields, .. } => {
            let mut things = tx.documents(COLLECTION);
            match &seen {
                Some(_) => drop(things.upsert(&name, &with_id(doc, fields))?),
                None => drop(things.insert(&with_id(doc, fields))?),
            }
        }
        Write::Put { fields, .. } => drop(tx.collection(COLLECTION).upsert(&name, fields)?),
        Write::PutAt { fields, back, .. } => {
            let version = old_version(doc, *back, versions)?;
            drop(tx.collection(COLLECTION).upsert_at(&name, fields, &version)?);
        }
        Write::Set { fields, .. } => drop(tx.documents(COLLECTION).patch(&name, fields)?),
        Write::Update { changes, .. } => {
            let mut record = tx.documents(COLLECTION).get(&name)?.ok_or_else(|| gone(doc))?;
            for (set, remove) in changes {
                apply(&mut record.value, set, remove);
                tx.documents(COLLECTION).update(&mut record)?;
            }
        }
        Write::Splice { field, at, delete, insert, outside, .. } => {
            let shown = tx.documents(COLLECTION).get(&name)?;
            let text = shown.and_then(|record| record.value.get(field)?.as_str().map(str::to_owned));
            let (at, delete) = place(&text.unwrap_or_default(), *at, *delete, *outside);
            drop(tx.documents(COLLECTION).splice_text(&name, field, at, delete, insert)?);
        }
        Write::Increment { field, by, .. } => drop(tx.documents(COLLECTION).increment(&name, field, *by)?),
        Write::EditSet { field, add, remove, .. } => {
            drop(tx.documents(COLLECTION).add_to_set(&name, field, add)?);
            drop(tx.documents(COLLECTION).remove_from_set(&name, field, remove)?);
        }
        Write::Resolve { field, row, choice, .. } => {
            let (path, resolution) = call(journal, doc, field, *row, choice);
            drop(tx.documents(COLLECTION).resolve(&name, &path, &resolution)?);
        }
        Write::Purge { .. } => tx.documents(COLLECTION).purge(&name)?,
        Write::Delete { .. } => tx.documents(COLLECTION).delete(&name)?,
        Write::Restore { .. } => drop(tx.documents(COLLECTION).restore(&name)?),
        Write::RestoreVersion { back, .. } => {
            let version = old_version(doc, *back, versions)?;
            drop(tx.documents(COLLECTION).restore_version(&name, &version)?);
        }
    }
    Ok(())
}

/// All of a change log, or nothing.
fn carry_out(replica: &Replica, log: &Value) -> Result<(), WriteError> {
    replica.import_change_log_text(log.to_string().as_bytes(), BadRows::RefuseAll).map(drop)
}

fn undo(replica: &Replica) -> Result<bool, WriteError> {
    Ok(replica.undo()?.is_some())
}

fn redo(replica: &Replica) -> Result<bool, WriteError> {
    Ok(replica.redo()?.is_some())
}

fn old_version(
    doc: usize,
    back: usize,
    versions: &BTreeMap<usize, Vec<Noted>>,
) -> Result<Version, WriteError> {
    let all = versions.get(&doc).map_or(&[][..], Vec::as_slice);
    let noted = all.len().checked_sub(1 + back).map(|at| &all[at]).ok_or_else(|| gone(doc))?;
    noted.version.parse().map_err(|_| gone(doc))
}

fn gone(doc: usize) -> WriteError {
    WriteError::NotFound { collection: COLLECTION.into(), id: id(doc) }
}

fn read<T>(outcome: Result<T, motet::ReadError>) -> Result<T, WriteError> {
    outcome.map_err(|error| WriteError::Rejected(format!("reading fails: {error}")))
}

fn with_id(doc: usize, fields: &Fields) -> Value {
    let mut fields = fields.clone();
    fields.insert("id".into(), id(doc).into());
    Value::Object(fields)
}

pub(super) fn without_id(value: Value) -> Option<Fields> {
    match value {
        Value::Object(mut fields) => {
            fields.remove("id");
            Some(fields)
        }
        _ => None,
    }
}

fn apply(value: &mut Value, set: &Fields, remove: &[String]) {
    if let Value::Object(fields) = value {
        fields.extend(set.clone());
        remove.iter().for_each(|name| _ = fields.remove(name));
    }
}

pub(super) fn number(name: &str) -> Option<usize> {
    name.strip_prefix('d')?.parse().ok()
}

/// What all devices declare.
pub(super) fn schema(script: &Script) -> Schema {
    let schema = if script.local { Schema::new().local(COLLECTION) } else { Schema::new() };
    let schema = match script.policy {
        Policy::EditWins => schema,
        policy => schema.delete(COLLECTION, policy.declared()),
    };
    let fields = script.declared.iter();
    fields.fold(schema, |schema, (field, declared)| schema.field(COLLECTION, field, declared.field()))
}
