//! What every write has to pass, whatever way it comes in.

use motet_proto::limits as proto;
use serde_json::Value as Json;

use super::Loaded;
use super::local::{Patch, check_rules};
use crate::doc::{Fields, Misfit, check_field, check_fields};
use crate::error::WriteError;
use crate::limits;
use crate::schema::FieldKind;
use crate::store::is_name;

/// Judges what a write sets: its size, before Automerge works on it for minutes; whether a document can hold it; and the
/// rules that are declared.
pub(super) fn check_patch(loaded: &Loaded, patch: &Patch) -> Result<(), WriteError> {
    check_size(patch.set.values().map(text_bytes).sum())?;
    check_fields(&patch.set).map_err(|misfit| refused(loaded, &misfit))?;
    check_counts(loaded, patch)?;
    check_amounts(loaded, patch)?;
    check_rules(loaded, patch)
}

/// What stays on this device does not come to the document, which would judge it.
fn check_counts(loaded: &Loaded, patch: &Patch) -> Result<(), WriteError> {
    let bounds = -limits::COUNTER_MAX..=limits::COUNTER_MAX;
    for (field, value) in &patch.set {
        let is_beyond = value.as_i64().is_some_and(|count| !bounds.contains(&count));
        if is_beyond && *loaded.schema.kind(field) == FieldKind::Counter {
            let (collection, name, max) = (&loaded.row.collection, &loaded.row.name, limits::COUNTER_MAX);
            let reason = format!("{collection}/{name}: field {field:?}: a counter goes from -{max} to {max}");
            return Err(WriteError::bad_field(field, reason));
        }
    }
    Ok(())
}

/// Bounds how many things a document consists of: each takes hundreds of bytes in memory. What others have made beyond the bounds stays, and
/// can be made smaller.
fn check_amounts(loaded: &Loaded, patch: &Patch) -> Result<(), WriteError> {
    let refuse = |what: &str| {
        let (collection, name) = (&loaded.row.collection, &loaded.row.name);
        Err(WriteError::bad_value(format!("{collection}/{name}: {what}")))
    };
    let added = patch.set.keys().filter(|field| !loaded.fields.contains_key(*field)).count();
    let removed =
        patch.remove.iter().filter(|path| matches!(&path[..], [name] if loaded.fields.contains_key(name)));
    let (before, max) = (loaded.fields.len(), limits::OBJECT_FIELDS);
    let after = (before + added).saturating_sub(removed.count());
    if after > max && after > before {
        return refuse(&format!("it would have {after} fields, and a document has at most {max}"));
    }
    for (field, value) in &patch.set {
        // A declared length is checked with the other rules.
        let is_declared = loaded.schema.field(field).is_some_and(|declared| declared.max_len.is_some());
        let most = if is_declared { usize::MAX } else { limits::LIST_ELEMENTS as usize };
        if let Some(what) = too_many(value, most) {
            return refuse(&format!("field {field:?}: {what}"));
        }
    }
    Ok(())
}

/// Judges what a document shows that another program has made: as much as an app could have written.
pub(super) fn check_shown(fields: &Fields) -> Result<(), String> {
    let (count, max) = (fields.len(), limits::OBJECT_FIELDS);
    if count > max {
        return Err(format!("it would have {count} fields, and a document has at most {max}"));
    }
    for (field, value) in fields {
        if let Some(what) = too_many(value, limits::LIST_ELEMENTS as usize) {
            return Err(format!("field {field:?}: {what}"));
        }
    }
    Ok(())
}

/// What there are too many of in a value.
fn too_many(value: &Json, most: usize) -> Option<String> {
    match value {
        Json::Array(items) if items.len() > most => {
            Some(format!("an array has {} elements, and at most {most} can be", items.len()))
        }
        Json::Object(fields) if fields.len() > limits::OBJECT_FIELDS => Some(format!(
            "an object has {} fields, and at most {} can be",
            fields.len(),
            limits::OBJECT_FIELDS
        )),
        Json::Array(items) => items.iter().find_map(|item| too_many(item, limits::LIST_ELEMENTS as usize)),
        Json::Object(fields) => {
            fields.values().find_map(|item| too_many(item, limits::LIST_ELEMENTS as usize))
        }
        _ => None,
    }
}

/// Judges elements that are added to a set.
pub(super) fn check_elements(loaded: &Loaded, field: &str, elements: &[Json]) -> Result<(), WriteError> {
    check_size(elements.iter().map(text_bytes).sum())?;
    elements
        .iter()
        .try_for_each(|element| check_field(field, element).map_err(|misfit| refused(loaded, &misfit)))
}

/// What a write adds must fit into one entry, or it could never be sent.
pub(super) fn check_size(bytes: usize) -> Result<(), WriteError> {
    let limit = proto::ENTRY_PAYLOAD_BYTES - 4 * (proto::NAME_BYTES + proto::DEVICE_NAME_BYTES);
    if bytes > limit { Err(WriteError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Judges the name of a collection or a document.
pub(crate) fn check_name(name: &str) -> Result<(), WriteError> {
    if is_name(name) { Ok(()) } else { Err(WriteError::BadName { name: name.chars().take(80).collect() }) }
}

fn refused(loaded: &Loaded, misfit: &Misfit) -> WriteError {
    let (collection, name) = (&loaded.row.collection, &loaded.row.name);
    WriteError::bad_field(&misfit.field, format!("{collection}/{name}: {misfit}"))
}

pub(super) fn text_bytes(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(text_bytes).sum(),
        // A name takes its bytes as well.
        Json::Object(fields) => fields.iter().map(|(name, value)| name.len() + text_bytes(value)).sum(),
        _ => 1,
    }
}
