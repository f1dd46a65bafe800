//! Writes that say more than a new value: adding to a counter, adding to a set, settling a conflict.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value as Json;

use super::check::{check_elements, check_patch};
use super::local::Patch;
use super::{Commit, Core, Loaded};
use crate::doc::{Change, EditError, Fields, TEXT_OVERLAP};
use crate::error::WriteError;
use crate::schema::{FieldKind, Rule};
use crate::store::{MORE_OPEN, StoredConflict, Tx};
use crate::types::ChangeKind;
use crate::types::Resolution;
use crate::types::Version;

impl Core {
    /// Adds to a counter.
    pub(crate) fn increment(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        field: &str,
        by: i64,
    ) -> Result<Version, WriteError> {
        let mut loaded = self.find_shared(tx, collection, name, field)?;
        let schema = loaded.schema.clone();
        let field = schema.canonical(field);
        if let Some(declared) = schema.fields.get(field) {
            let old = loaded.fields.get(field).and_then(Json::as_i64).unwrap_or_default();
            // Beyond 64 bits it is beyond every bound as well.
            let broken = declared.broken_by(&old.saturating_add(by).into());
            // Of what is no counter it is said below.
            let is_counter = declared.kind == FieldKind::Counter;
            let broken = broken.filter(|rule| is_counter || !matches!(rule, Rule::Kind { .. }));
            check_step(&loaded, field, broken, by.cmp(&0))?;
        }
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let changes = loaded.document.increment(&edit, field, by);
        self.finish_field(tx, loaded, field, changes)
    }

    /// Adds elements to a set and takes others out.
    pub(crate) fn edit_set(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        field: &str,
        add: &[Json],
        take_out: &[Json],
    ) -> Result<Version, WriteError> {
        let mut loaded = self.find_shared(tx, collection, name, field)?;
        check_elements(&loaded, field, add)?;
        let schema = loaded.schema.clone();
        let field = schema.canonical(field);
        if let Some(declared) = schema.fields.get(field) {
            let held = loaded.fields.get(field).and_then(Json::as_array).map_or(0, Vec::len);
            let after = after_edit(&loaded, field, add, take_out);
            let change = after.len().cmp(&held);
            check_step(&loaded, field, declared.broken_by(&Json::Array(after)), change)?;
        }
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let changes = loaded.document.edit_set(&edit, field, add, take_out);
        self.finish_field(tx, loaded, field, changes)
    }

    /// Settles the concurrent values of the field at `path`, a JSON pointer.
    pub(crate) fn resolve(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        path: &str,
        resolution: &Resolution,
    ) -> Result<Version, WriteError> {
        let mut loaded = self.find_live(tx, collection, name)?;
        let asked = path;
        let mut names = pointer(path)?;
        let schema = loaded.schema.clone();
        // The journal may know the field by an older name.
        let newest = |names: &mut [String]| {
            if let Some(name) = names.first_mut() {
                *name = schema.canonical(name).to_owned();
            }
        };
        newest(&mut names);
        let path = &*crate::doc::pointer(names.iter().map(String::as_str));
        let is_of = |row: &str| {
            pointer(row).is_ok_and(|mut row| {
                newest(&mut row);
                row == names
            })
        };
        if names.first().is_some_and(|name| loaded.schema.is_device_local(name)) {
            return Err(WriteError::NoConflict { path: asked.to_owned() });
        }
        let rows = tx.conflicts(loaded.row.id)?;
        // What the journal has no room for is in the document.
        let unlisted = rows.iter().any(|row| row.op == MORE_OPEN);
        let current = || loaded.document.conflicts(&loaded.schema).into_iter().filter(|row| is_of(&row.path));
        let is_open = rows.iter().any(|row| is_of(&row.path) && !row.settled)
            || unlisted && current().any(|row| !row.settled);
        let shown = || Json::Object(loaded.fields.clone()).pointer(path).cloned();
        let is_text = |loser: &String| {
            let is_row = |row: &StoredConflict| is_of(&row.path) && row.op == *loser && !row.settled;
            loser.starts_with(TEXT_OVERLAP) && rows.iter().any(is_row)
        };
        if matches!(resolution, Resolution::Loser(loser) if is_text(loser)) {
            let reason = format!(
                "both versions of {asked} are in the text already: keep what shows, or give the text as it is to be"
            );
            return Err(WriteError::bad_value(reason));
        }
        let value = match resolution {
            Resolution::Shown if is_open => shown(),
            Resolution::Value(value) if is_open => Some(value.clone()),
            // There is nothing to settle, and a value is not written by the way.
            Resolution::Shown | Resolution::Value(_) => None,
            Resolution::Loser(loser) => lost_value(&rows, is_of, loser, || {
                current().find(|row| row.op == *loser).map(|row| row.loser)
            })?,
        };
        let value = value.ok_or_else(|| match resolution {
            // One that is listed, and is no value that could stand in the place of another, is in no conflict any more.
            Resolution::Loser(loser)
                if rows.iter().any(|row| is_of(&row.path)) && !rows.iter().any(|row| row.op == *loser) =>
            {
                WriteError::NoLoser { path: asked.to_owned(), loser: loser.clone() }
            }
            _ => WriteError::NoConflict { path: asked.to_owned() },
        })?;
        let is_in_list = path.match_indices('/').skip(1).any(|(end, _)| {
            Json::Object(loaded.fields.clone()).pointer(&path[..end]).is_some_and(Json::is_array)
        });
        if is_in_list {
            let edit = self.edit(&loaded.schema, None, &loaded.fields);
            let changes = loaded.document.settle_in_list(&edit, &names, &value);
            let changes = changes.map_err(super::local::write_error)?;
            return self.finish(
                tx,
                loaded,
                &Commit { stale: true, ..Commit::of(&changes, ChangeKind::Updated) },
            );
        }
        let nested = names
            .iter()
            .rev()
            .fold(value.clone(), |inner, name| Json::Object(Fields::from_iter([(name.clone(), inner)])));
        let Json::Object(set) = nested else {
            return Err(WriteError::NoConflict { path: asked.to_owned() });
        };
        // Of an object nothing stays that was not chosen.
        let mut chosen = loaded.fields.clone();
        set_at(&mut chosen, &names, value);
        let remove = super::local::diff(&loaded.fields, &chosen).remove;
        let patch = Patch { set, remove, seen: None };
        check_patch(&loaded, &patch)?;
        let mut edit = self.edit(&loaded.schema, None, &loaded.fields);
        edit.settle = true;
        let changes = loaded
            .document
            .write(&edit, &patch.set, &patch.remove, false)
            .map_err(super::local::write_error)?;
        self.finish(tx, loaded, &Commit { stale: true, ..Commit::of(&changes, ChangeKind::Updated) })
    }

    fn find_shared(
        &mut self,
        tx: Tx<'_>,
        collection: &str,
        name: &str,
        field: &str,
    ) -> Result<Box<Loaded>, WriteError> {
        let loaded = self.find_live(tx, collection, name)?;
        if loaded.schema.is_device_local(field) {
            let reason = format!("field {field:?} stays on this device and does not merge");
            return Err(WriteError::bad_field(field, reason));
        }
        Ok(loaded)
    }

    pub(super) fn finish_field(
        &mut self,
        tx: Tx<'_>,
        mut loaded: Box<Loaded>,
        field: &str,
        changes: Result<Vec<Change>, EditError>,
    ) -> Result<Version, WriteError> {
        let changes = changes.map_err(super::local::write_error)?;
        if let Some(value) = loaded.document.field(&loaded.schema, field) {
            loaded.fields.insert(field.to_owned(), value);
        }
        let fields = vec![field.to_owned()];
        self.finish(tx, loaded, &Commit { fields, ..Commit::of(&changes, ChangeKind::Updated) })
    }
}

/// The value of a loser: as the journal has it, or as the document does if the journal has less.
fn lost_value(
    rows: &[StoredConflict],
    is_of: impl Fn(&str) -> bool,
    loser: &str,
    current: impl FnOnce() -> Option<Json>,
) -> Result<Option<Json>, WriteError> {
    // Both versions of a text are in it: there is no value to put in its place.
    if loser.starts_with(TEXT_OVERLAP) {
        return Ok(None);
    }
    let Some(row) = rows.iter().find(|row| row.op == loser) else { return Ok(current()) };
    if !is_of(&row.path) {
        return Ok(None);
    }
    match serde_json::from_str(&row.loser).ok().or_else(current) {
        Some(value) => Ok(Some(value)),
        None => Err(WriteError::bad_value(format!(
            "the journal has only the beginning of this loser of {}: the whole is in the document's history",
            row.path
        ))),
    }
}

/// A step from what a field holds: refused if the value breaks a rule then. What breaks it already, because others have other rules
/// or wrote at the same time, may come nearer to what is allowed.
pub(super) fn check_step(
    loaded: &Loaded,
    field: &str,
    broken: Option<Rule>,
    change: Ordering,
) -> Result<(), WriteError> {
    match broken {
        Some(rule) if !rule.allows(change) => {
            let collection = loaded.row.collection.clone();
            Err(WriteError::Rule { collection, field: field.to_owned(), rule })
        }
        _ => Ok(()),
    }
}

/// What a set holds after an edit, each element once.
fn after_edit(loaded: &Loaded, field: &str, add: &[Json], take_out: &[Json]) -> Vec<Json> {
    let held = loaded.fields.get(field).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let mut seen: HashSet<String> = take_out.iter().map(Json::to_string).collect();
    held.iter().chain(add).filter(|element| seen.insert(element.to_string())).cloned().collect()
}

/// Puts a value under names, outermost first.
fn set_at(fields: &mut Fields, names: &[String], value: Json) {
    match names {
        [] => {}
        [name] => _ = fields.insert(name.clone(), value),
        [name, inner @ ..] => {
            if let Some(Json::Object(fields)) = fields.get_mut(name) {
                set_at(fields, inner, value);
            }
        }
    }
}

/// The names in a JSON pointer.
fn pointer(path: &str) -> Result<Vec<String>, WriteError> {
    let names = path.strip_prefix('/').filter(|names| !names.is_empty());
    names.ok_or_else(|| WriteError::NoConflict { path: path.to_owned() })?;
    Ok(crate::doc::pointed(path).collect())
}
