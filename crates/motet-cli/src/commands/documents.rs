//! `put`, `set`, `get`, `list` and `delete`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use motet::{Record, Version, parse_json};
use serde_json::{Map, Value};

use super::open;
use crate::error::{CliError, file_error};
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
    output.line(&id);
    Ok(())
}

pub(crate) fn set(
    db: Option<&Path>,
    collection: &str,
    id: &str,
    fields: &[String],
    output: &Output,
) -> Result<(), CliError> {
    let mut object = Map::new();
    for field in fields {
        let (name, value) = field
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CliError::Usage(format!("{field:?} is not FIELD=VALUE")))?;
        if name == "id" {
            return Err(CliError::Usage("an id cannot be changed".into()));
        }
        if object.insert(name.to_owned(), value_of(name, value)?).is_some() {
            return Err(CliError::Usage(format!("{name:?} is set twice")));
        }
    }
    open(db)?.documents(collection).patch(id, &object)?;
    output.line(id);
    Ok(())
}

pub(crate) fn get(db: Option<&Path>, collection: &str, id: &str, output: &Output) -> Result<(), CliError> {
    let record = open(db)?.documents(collection).get(id)?;
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
    let replica = open(db)?;
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
    Ok(open(db)?.documents(collection).delete(id)?)
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
