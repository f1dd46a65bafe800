//! What an app declares about its collections.

mod collection;
mod field;
mod renames;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use field::is_count;
pub use field::{Field, FieldKind, Rule};

/// Declarations for one or more collections. A collection needs none: its fields are then registers, in which the
/// last writer wins.
///
/// Declaring late loses nothing: a field that was a register becomes what it is declared to be at its next write, and a
/// device without the declaration edits a text, a set or a counter that it has received as what it is.
///
/// ```
/// use motet::{DeletePolicy, Field, Schema};
/// let schema = Schema::new()
///     .text("pieces", "lyrics")
///     .field("pieces", "title", Field::register().min_len(2).alias("name"))
///     .field("pieces", "status", Field::rank(["draft", "done"]))
///     .delete("pieces", DeletePolicy::Wins);
/// let same = Schema::from_toml(r#"
///     [collections.pieces]
///     delete = "wins"
///     [collections.pieces.fields]
///     lyrics = "text"
///     title = { kind = "register", min_len = 2, alias = ["name"] }
///     status = { kind = "rank", order = ["draft", "done"] }
/// "#)?;
/// assert_eq!(schema, same);
/// # Ok::<(), motet::SchemaError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Collections by name.
    #[serde(default)]
    pub collections: BTreeMap<String, CollectionSchema>,
}

/// Declarations for one collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSchema {
    /// Fields by name; a field that is not named is a register.
    #[serde(default)]
    pub fields: BTreeMap<String, Field>,
    /// What a delete does to an edit it has not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<DeletePolicy>,
    /// The documents stay on this device: no byte of them is sent or exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// Ids of documents that stay on this device in a collection whose others do not: `["api_key", "password*"]`. A `*` at the end
    /// stands for any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ids: Option<Vec<String>>,
    /// Fields that lists are filtered or ordered by, one index each: `[["category", "title"]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<Vec<Vec<String>>>,
    /// Fields that full-text search looks into; without it every field that holds words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<String>>,
    /// What was declared cannot be read any more. It may have said that something stays on this device, so all does until it is declared
    /// again.
    #[serde(skip)]
    pub(crate) is_lost: bool,
}

/// What a delete does to an edit it has not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeletePolicy {
    /// The edit brings the document back, whenever it was made: `"edit-wins"`.
    #[default]
    EditWins,
    /// The document stays deleted until somebody restores it: `"wins"`.
    Wins,
    /// The later of the two wins, by the clocks of the devices that made them: `"latest"`. A delete wins over older edits, and an
    /// edit that is newer brings the document back.
    Latest,
}

/// A type whose documents declare themselves; derive it.
///
/// ```
/// use motet::{Declare, Replica};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Declare)]
/// #[motet(collection = "pieces", delete = "wins", index("category", "title"))]
/// struct Piece {
///     #[motet(min_len = 2, alias = "name")]
///     title: String,
///     category: Option<String>,
///     #[motet(text)]
///     lyrics: String,
///     #[motet(rank("draft", "learned", "performed"))]
///     status: String,
///     #[motet(set)]
///     #[serde(default)]
///     tags: Vec<String>,
/// }
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// let pieces = replica.declare::<Piece>()?;
/// assert_eq!(pieces.name(), "pieces");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A kind that no value of the field's type can be of does not compile:
///
/// ```compile_fail
/// # use motet::Declare;
/// #[derive(serde::Serialize, serde::Deserialize, Declare)]
/// #[motet(collection = "pieces")]
/// struct Piece {
///     #[motet(text)] // `text` is for a string; this field is a whole number; did you mean `counter`?
///     plays: Option<u32>,
/// }
/// ```
///
/// Nor does what cannot be followed, such as a private field in a struct that serde flattens into this one:
///
/// ```compile_fail
/// # use motet::Declare;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Declare)]
/// # #[motet(collection = "notes")]
/// # struct Notes { #[motet(local)] private: String }
/// #[derive(Serialize, Deserialize, Declare)]
/// #[motet(collection = "pieces")]
/// struct Piece {
///     #[serde(flatten)]
///     notes: Notes,
/// }
/// ```
pub trait Declare {
    /// The collection that holds the documents.
    const COLLECTION: &'static str;

    /// What is declared about it.
    fn schema() -> Schema;
}

/// A schema is not valid. Nothing was applied.
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
    pub fn field(mut self, collection: &str, field: &str, declared: impl Into<Field>) -> Self {
        self.collection(collection).fields.insert(field.into(), declared.into());
        self
    }

    /// Declares what a delete does to an edit it has not seen.
    #[must_use]
    pub fn delete(mut self, collection: &str, policy: DeletePolicy) -> Self {
        self.collection(collection).delete = Some(policy);
        self
    }

    /// Declares that the documents of a collection never leave this device.
    #[must_use]
    pub fn local(mut self, collection: &str) -> Self {
        self.collection(collection).local = Some(true);
        self
    }

    /// Declares which documents of a collection never leave this device, by their ids; a `*` at the end of one stands for any ending.
    ///
    /// ```
    /// # use motet::Schema;
    /// let schema = Schema::new().local_ids("config", ["api_key", "password*"]);
    /// ```
    #[must_use]
    pub fn local_ids<'f>(mut self, collection: &str, ids: impl IntoIterator<Item = &'f str>) -> Self {
        self.collection(collection).local_ids = Some(ids.into_iter().map(str::to_owned).collect());
        self
    }

    /// Declares an index: lists that are filtered by the first fields of it, or ordered by them, are quick then.
    #[must_use]
    pub fn index<'f>(mut self, collection: &str, fields: impl IntoIterator<Item = &'f str>) -> Self {
        let fields = fields.into_iter().map(str::to_owned).collect();
        self.collection(collection).indexes.get_or_insert_default().push(fields);
        self
    }

    /// Declares which fields full-text search looks into.
    #[must_use]
    pub fn search<'f>(mut self, collection: &str, fields: impl IntoIterator<Item = &'f str>) -> Self {
        self.collection(collection).search = Some(fields.into_iter().map(str::to_owned).collect());
        self
    }

    /// Reads a schema file: a table per collection, `[collections.NAME.fields]`. A field is the name of a kind, or a
    /// table with `kind` and what goes with it.
    ///
    /// # Errors
    /// [`SchemaError`] names the line and what is wrong there.
    pub fn from_toml(text: &str) -> Result<Self, SchemaError> {
        let schema: Self = toml::from_str(text).map_err(|e| SchemaError { reason: e.to_string() })?;
        schema.check()?;
        Ok(schema)
    }

    /// Looks for declarations that contradict themselves.
    pub(crate) fn check(&self) -> Result<(), SchemaError> {
        for (name, collection) in &self.collections {
            for (field, declared) in &collection.fields {
                let bad = |reason| SchemaError { reason: format!("{name}.{field}: {reason}") };
                if field.is_empty() {
                    return Err(bad("a field has a name".into()));
                }
                if let Some(name) = std::iter::once(field).chain(&declared.alias).find(|name| *name == "id") {
                    return Err(bad(format!("{name:?} names the document and is no field of it")));
                }
                declared.check().map_err(bad)?;
                let taken = declared.alias.iter().find(|alias| {
                    *alias == field || collection.fields.contains_key(*alias) || alias.is_empty()
                });
                if let Some(alias) = taken {
                    return Err(bad(format!("{alias:?} cannot be its alias, a field has that name")));
                }
            }
            collection.check_lists(name)?;
            collection.check_local_ids(name)?;
            // Two of its own fields may claim one older name.
            CollectionSchema::default().extend(name, collection)?;
        }
        Ok(())
    }

    fn collection(&mut self, name: &str) -> &mut CollectionSchema {
        self.collections.entry(name.into()).or_default()
    }
}

impl SchemaError {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        "schema-invalid"
    }
}
