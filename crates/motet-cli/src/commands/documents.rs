//! `put`, `set`, `unset`, `get`, `list`, `collections` and `delete`.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

use motet::{FieldKind, Filter, Record, Version, WriteError, parse_json};
use serde_json::{Map, Value, json};

use super::{known_collections, near, open, open_known};
use crate::error::{CliError, did_you_mean, file_error};
use crate::output::{BOLD, CYAN, GREY, Output};

pub(crate) fn put(
    db: Option<&Path>,
    collection: &str,
    id: Option<String>,
    base: Option<&str>,
    file: &Path,
    output: &Output,
) -> Result<(), CliError> {
    let replica = open(db)?;
    let value = parse_json(&read_all(file)?).map_err(|e| CliError::Other(e.to_string()))?;
    let base: Option<Version> = base
        .map(str::parse)
        .transpose()
        .map_err(|e: motet::ParseVersionError| CliError::Usage(e.to_string()))?;
    let own = document_id(&value)?;
    if let (Some(given), Some(own)) = (&id, &own)
        && given != own
    {
        return Err(CliError::Usage(format!("--id is {given:?}, the object's id is {own:?}")));
    }
    let id = id.or(own);
    if base.is_some() && id.is_none() {
        return Err(CliError::Usage("--base needs an id: a new document has no version".into()));
    }
    let id = replica.transaction(|tx| {
        let mut documents = tx.documents(collection);
        match (id, base) {
            (None, _) => documents.insert(&value),
            (Some(id), None) => documents.upsert(&id, &value).map(|_| id),
            (Some(id), Some(base)) => documents.upsert_at(&id, &value, &base).map(|_| id),
        }
    })?;
    output.id(&id)
}

pub(crate) fn set(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    fields: &[String],
    output: &Output,
) -> Result<(), CliError> {
    let replica = open_known(db, collection)?;
    let declared = replica.schema()?.collections.remove(collection).unwrap_or_default();
    let (mut object, mut steps) = (Map::new(), Vec::new());
    for field in fields {
        let (name, value) = field
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CliError::Usage(format!("{field:?} is not FIELD=VALUE")))?;
        let (name, step) = match (name.strip_suffix('+'), name.strip_suffix('-')) {
            (Some(name), _) => (name, Some(Step::Add)),
            (_, Some(name)) => (name, Some(Step::Take)),
            _ => (name, None),
        };
        if name == "id" {
            return Err(CliError::Usage("an id cannot be changed".into()));
        }
        let value = value_of(name, value)?;
        match (step, declared.fields.get(name).map(|field| &field.kind)) {
            (None, _) if object.contains_key(name) => {
                return Err(CliError::Usage(format!("{name:?} is set twice")));
            }
            (None, _) => _ = object.insert(name.to_owned(), value),
            (Some(step), Some(FieldKind::Set | FieldKind::Counter)) => steps.push((name, step, value)),
            (Some(_), _) => {
                let sums = declared.fields.iter().filter(|(_, field)| is_sum(&field.kind));
                let known: Vec<String> = sums.map(|(name, _)| name.clone()).collect();
                let near = did_you_mean(near(name, &known).as_deref());
                return Err(CliError::Usage(format!(
                    "{name:?} is not declared as a set or a counter, so nothing can be added to it or taken from it{near}"
                )));
            }
        }
    }
    replica.transaction(|tx| {
        let mut documents = tx.documents(collection);
        if !object.is_empty() {
            documents.patch(id, &object)?;
        }
        for (name, step, value) in steps {
            match (&declared.fields[name].kind, step) {
                (FieldKind::Set, Step::Add) => documents.add_to_set(id, name, &elements(value))?,
                (FieldKind::Set, Step::Take) => documents.remove_from_set(id, name, &elements(value))?,
                (_, step) => documents.increment(id, name, amount(name, step, &value)?)?,
            };
        }
        Ok(())
    })?;
    output.id(id)
}

pub(crate) fn unset(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    fields: &[String],
    output: &Output,
) -> Result<(), CliError> {
    let replica = open_known(db, collection)?;
    let documents = replica.documents(collection);
    let record = documents.get(id)?;
    let mut record = record.ok_or_else(|| CliError::NotFound(collection.to_owned(), id.to_owned()))?;
    let Some(object) = record.value.as_object_mut() else { return Ok(()) };
    for field in fields.iter().filter(|field| *field != "id") {
        if object.remove(field).is_none() {
            let known: Vec<String> = object.keys().cloned().collect();
            let near = did_you_mean(near(field, &known).as_deref());
            return Err(CliError::NotFound(format!("{collection}/{id}"), format!("{field}{near}")));
        }
    }
    documents.update(&mut record)?;
    output.id(id)
}

pub(crate) fn collections(db: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let replica = open(db)?;
    let names = known_collections(&replica)?;
    let count = |name: String| Ok((replica.documents(&name).count(&Filter::All(Vec::new()))?, name));
    let counted = names.into_iter().map(count).collect::<Result<Vec<_>, CliError>>()?;
    if output.json {
        let rows = counted.iter().map(|(count, name)| json!({ "collection": name, "documents": count }));
        return output.json_line(&rows.collect::<Vec<_>>());
    }
    for (count, name) in counted {
        output.line(&format!("{} {name}", output.paint(GREY, &format!("{count:>7}"))));
    }
    Ok(())
}

pub(crate) fn get(db: Option<&Path>, collection: &str, id: &str, output: &Output) -> Result<(), CliError> {
    let record = open_known(db, collection)?.documents(collection).get(id)?;
    let record = record.ok_or_else(|| CliError::NotFound(collection.to_owned(), id.to_owned()))?;
    if output.json {
        return output.json_line(&record.value);
    }
    output.line(&output.paint(BOLD, &record.id));
    for (name, value) in record.value.as_object().into_iter().flatten().filter(|(name, _)| *name != "id") {
        let name = output.paint(CYAN, name);
        match value.as_str() {
            Some(text) if text.contains('\n') => {
                output.line(&format!("{name}:"));
                text.lines().for_each(|line| output.line(&format!("    {line}")));
            }
            Some(text) => output.line(&format!("{name}: {text}")),
            None => output.line(&format!("{name}: {value}")),
        }
    }
    Ok(())
}

pub(crate) fn list(db: Option<&Path>, collection: &str, output: &Output) -> Result<(), CliError> {
    let replica = open_known(db, collection)?;
    if output.json {
        let records = replica.documents(collection).list()?;
        let values: Vec<Value> = records.into_iter().map(|record| record.value).collect();
        return output.json_line(&values);
    }
    let mut count = 0;
    replica.documents(collection).for_each(|record| {
        count += 1;
        output.line(&format!("{}  {}", output.paint(GREY, &record.id), headline(&record)));
    })?;
    if output.is_colour() {
        output.line(&output.paint(GREY, &format!("{count} in {collection}")));
    }
    Ok(())
}

pub(crate) fn delete(db: Option<&Path>, collection: &str, id: &str) -> Result<(), CliError> {
    Ok(open_known(db, collection)?.documents(collection).delete(id)?)
}

/// What is done to a set or a counter.
#[derive(Clone, Copy)]
enum Step {
    Add,
    Take,
}

fn is_sum(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Set | FieldKind::Counter)
}

/// An array is several elements.
fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        element => vec![element],
    }
}

fn amount(field: &str, step: Step, value: &Value) -> Result<i64, WriteError> {
    let amount = match step {
        Step::Add => value.as_i64(),
        Step::Take => value.as_i64().and_then(i64::checked_neg),
    };
    let reason = || format!("field {field:?}: {value} is no whole number, and a counter counts in those");
    amount.ok_or_else(|| WriteError::BadValue { field: Some(field.to_owned()), reason: reason() })
}

/// The id that an object carries; it names the document and is no field.
pub(crate) fn document_id(value: &Value) -> Result<Option<String>, CliError> {
    match value.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(other) => Err(CliError::Other(format!("an id is a string, not {other}"))),
    }
}

/// A value as it is given on the command line: JSON if it is JSON, else a string.
pub(crate) fn value_of(field: &str, text: &str) -> Result<Value, CliError> {
    parse_json(text.as_bytes()).or_else(|error| match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        // It is JSON, and would lose something.
        Ok(_) => Err(CliError::Other(format!("{field}: {error}"))),
        Err(_) => Ok(Value::String(text.to_owned())),
    })
}

pub(crate) fn read_all(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    input(file)?.read_to_end(&mut bytes).map_err(|e| file_error(file, &e))?;
    Ok(bytes)
}

/// A file, or standard input for `-`.
pub(crate) fn input(file: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if file.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            eprintln!("reading from the terminal; Ctrl-D ends it");
        }
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(_) if file.to_string_lossy().trim_start().starts_with(['{', '[']) => Err(CliError::Usage(
            "this is JSON where the name of a file belongs; write - there, and pipe the JSON in".to_owned(),
        )),
        Err(error) => Err(file_error(file, &error)),
    }
}

/// What a person knows a document by.
pub(crate) fn headline(record: &Record<Value>) -> String {
    let named = ["title", "name"].iter().find_map(|key| record.value.get(key).and_then(Value::as_str));
    let first = || {
        let fields = record.value.as_object().into_iter().flatten();
        fields.filter(|(name, _)| *name != "id").find_map(|(_, value)| value.as_str())
    };
    let line = named.or_else(first).and_then(|text| text.lines().next()).unwrap_or_default();
    line.chars().take(100).collect()
}
