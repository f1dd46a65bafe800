//! The conflict journal of a device, as scripts and the model name its rows.

use std::collections::{BTreeMap, BTreeSet};

use motet::{ConflictKind, Replica, Resolution};
use serde_json::Value;

use super::device::COLLECTION;
use super::model::Rules;
use super::run::Checked;
use super::script::{Choice, id};

/// A loser that matches no row.
const NOBODY: &str = "9@nobody";

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// The field, as a JSON pointer.
    pub(super) pointer: String,
    /// The names in it.
    pub(super) path: Vec<String>,
    /// Names the loser on every device.
    pub(super) loser_id: String,
    /// The value that lost.
    pub(super) loser: Value,
    /// It stands for two versions of a place in a text.
    pub(super) is_text: bool,
    /// Nobody has to settle it any more.
    pub(super) settled: bool,
}

/// The rows of each document, those that are open first.
pub(super) type Journal = BTreeMap<usize, Vec<Row>>;

/// Reads the rows of some documents.
///
/// # Errors
/// What the library says.
pub(super) fn read(replica: &Replica, rules: &Rules, docs: &BTreeSet<usize>) -> Checked<Journal> {
    let mut journal = Journal::new();
    for doc in docs {
        let all = replica
            .documents(COLLECTION)
            .document(&id(*doc))
            .conflicts()
            .map_err(|e| ("conflict", e.to_string()))?;
        let row = |row: motet::Conflict| Row {
            path: names(&row.path, rules),
            pointer: row.path,
            loser_id: row.loser_id,
            loser: row.loser,
            is_text: row.kind == ConflictKind::Text,
            settled: row.settled,
        };
        let mut rows: Vec<Row> = all.into_iter().map(row).collect();
        rows.sort_by_key(|row| row.settled);
        journal.insert(*doc, rows);
    }
    Ok(journal)
}

/// The row that a script means: of those of the document, the open ones first.
pub(super) fn pick(journal: &Journal, doc: usize, row: usize) -> Option<&Row> {
    let rows = journal.get(&doc)?;
    let open = rows.iter().filter(|row| !row.settled).count();
    let count = if open > 0 { open } else { rows.len() };
    rows.get(row.checked_rem(count)?)
}

/// What `resolve` is called with.
pub(super) fn call(
    journal: &Journal,
    doc: usize,
    field: &str,
    row: usize,
    choice: &Choice,
) -> (String, Resolution) {
    let row = pick(journal, doc, row);
    let resolution = match choice {
        Choice::Shown => Resolution::Shown,
        Choice::Loser => Resolution::Loser(row.map_or(NOBODY.to_owned(), |row| row.loser_id.clone())),
        Choice::Value(value) => Resolution::Value(value.clone()),
    };
    let pointer = || format!("/{}", field.replace('~', "~0").replace('/', "~1"));
    (row.map_or_else(pointer, |row| row.pointer.clone()), resolution)
}

/// What lies at a path.
pub(super) fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Puts a value at a path; `false` if there is no such place.
pub(super) fn put_at(value: &mut Value, path: &[String], new: Value) -> bool {
    let Some((name, rest)) = path.split_first() else {
        *value = new;
        return true;
    };
    match value {
        Value::Object(fields) if rest.is_empty() => {
            fields.insert(name.clone(), new);
            true
        }
        Value::Object(fields) => fields.get_mut(name).is_some_and(|inner| put_at(inner, rest, new)),
        Value::Array(items) => {
            let item = name.parse::<usize>().ok().and_then(|at| items.get_mut(at));
            item.is_some_and(|item| put_at(item, rest, new))
        }
        _ => false,
    }
}

/// The names in a pointer; the journal may know a field by an older one.
fn names(pointer: &str, rules: &Rules) -> Vec<String> {
    let plain = |name: &str| name.replace("~1", "/").replace("~0", "~");
    let mut names: Vec<String> = pointer.split('/').skip(1).map(plain).collect();
    if let Some(name) = names.first_mut() {
        *name = rules.newest(name).to_owned();
    }
    names
}
