//! What an app declares about its collections.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Declarations for one or more collections. A collection needs none: its fields are then registers, in which the
/// last writer wins.
///
/// Declaring late loses nothing: a field that was a register becomes a text at its next write, and a device without
/// the declaration edits a text it has received by character all the same.
///
/// ```
/// use motet::Schema;
/// let schema = Schema::new().text("pieces", "lyrics").text("pieces", "notes");
/// let same = Schema::from_toml(r#"
///     [collections.pieces.fields]
///     lyrics = "text"
///     notes = "text"
/// "#)?;
/// assert_eq!(schema, same);
/// # Ok::<(), motet::SchemaError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Collections by name.
    #[serde(default)]
    pub collections: BTreeMap<String, CollectionSchema>,
}

/// Declarations for one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSchema {
    /// Kinds of fields by name; a field that is not named is a register.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldKind>,
}

/// How concurrent writes of a field merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FieldKind {
    /// Among concurrent values one wins, the others stand in the conflict journal.
    Register,
    /// A text that merges by character.
    Text,
}

/// A schema file is not valid. Nothing was applied.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the schema is not valid: {reason}")]
pub struct SchemaError {
    reason: String,
}

impl Schema {
    /// No declarations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a text field.
    #[must_use]
    pub fn text(self, collection: &str, field: &str) -> Self {
        self.field(collection, field, FieldKind::Text)
    }

    /// Declares a field.
    #[must_use]
    pub fn field(mut self, collection: &str, field: &str, kind: FieldKind) -> Self {
        self.collections.entry(collection.into()).or_default().fields.insert(field.into(), kind);
        self
    }

    /// Reads a schema file: a table per collection, `[collections.NAME.fields]`.
    ///
    /// # Errors
    /// [`SchemaError`] names the line and what is wrong there.
    pub fn from_toml(text: &str) -> Result<Self, SchemaError> {
        toml::from_str(text).map_err(|e| SchemaError { reason: e.to_string() })
    }
}

impl SchemaError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        "schema-invalid"
    }
}

impl CollectionSchema {
    pub(crate) fn text_fields(&self) -> BTreeSet<String> {
        self.fields
            .iter()
            .filter(|(_, kind)| **kind == FieldKind::Text)
            .map(|(name, _)| name.clone())
            .collect()
    }
}
