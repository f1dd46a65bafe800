//! What the declarations for one collection come to: taken over from newer ones, checked, and asked for.

use std::sync::Arc;

use super::{CollectionSchema, DeletePolicy, Field, FieldKind, SchemaError, renames};
use crate::query::{FieldPath, near_name};

impl CollectionSchema {
    /// Takes over what `newer` declares about `collection`; what it does not mention stays. Older names are followed through both:
    /// see [`renames`].
    ///
    /// # Errors
    /// [`SchemaError`] if two fields that `newer` declares would be one; nothing is taken over then.
    pub(crate) fn extend(&mut self, collection: &str, newer: &Self) -> Result<(), SchemaError> {
        let fields = renames::follow(&self.fields, &newer.fields)
            .map_err(|reason| SchemaError { reason: format!("{collection}.{reason}") })?;
        // Declared in two steps, it does nothing all the same. A field that becomes local only now leaves a search that names it.
        let merged = Self { fields, ..Self::default() };
        merged.check_search(collection, newer.search.as_deref())?;
        self.fields = merged.fields;
        self.delete = newer.delete.or(self.delete);
        self.local = newer.local.or(self.local);
        self.local_ids = newer.local_ids.clone().or(self.local_ids.take());
        self.indexes = newer.indexes.clone().or(self.indexes.take());
        self.search = newer.search.clone().or(self.search.take());
        self.is_lost = false;
        self.rename_lists();
        Ok(())
    }

    /// Indexes and searches follow fields to their newest names.
    fn rename_lists(&mut self) {
        let newest = |names: &[String]| each_once(names.iter().map(|name| self.newest_path(name)));
        let indexes =
            self.indexes.as_ref().map(|indexes| each_once(indexes.iter().map(|index| newest(index))));
        let search = self.search.as_deref().map(newest);
        (self.indexes, self.search) = (indexes, search);
    }

    /// A path whose field goes by its newest name.
    fn newest_path(&self, path: &str) -> String {
        let Some(read) = FieldPath::parse(path) else { return path.to_owned() };
        let older = self.older_name(&read);
        older.map_or_else(|| path.to_owned(), |older| read.renamed(&older, self.canonical(&older)))
    }

    /// The name in a path by which a field went once.
    pub(crate) fn older_name(&self, path: &FieldPath) -> Option<String> {
        path.fields().find(|field| self.canonical(field) != field)
    }

    /// The name under which a field is shown: the declared one if `name` is an older name of it.
    pub(crate) fn canonical<'n>(&'n self, name: &'n str) -> &'n str {
        let mut aliased = self.aliased();
        aliased.find(|(_, aliases)| aliases.iter().any(|alias| alias == name)).map_or(name, |(name, _)| name)
    }

    /// What is declared about the field that goes by `name` now or went by it once.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(self.canonical(name))
    }

    /// The declared field whose name was probably meant by one that is not declared.
    pub(crate) fn near_declared(&self, name: &str) -> Option<&str> {
        let meant: Vec<String> = FieldPath::parse(name)?.fields().collect();
        let lists = self.indexes.iter().flatten().flatten().chain(self.search.iter().flatten());
        let aliases = self.fields.values().flat_map(|field| &field.alias);
        if lists.clone().any(|known| known == name)
            || self.fields.keys().chain(aliases).chain(lists).any(|known| meant.contains(known))
        {
            return None;
        }
        near_name(meant.last()?, self.fields.keys().map(String::as_str))
    }

    /// Looks for indexes and searches of fields that are not declared, and whose names are nearly those of fields that are.
    pub(crate) fn check_names(&self, collection: &str) -> Result<(), SchemaError> {
        let declared = Self { fields: self.fields.clone(), ..Self::default() };
        let of = |list: &'static str| move |name| (list, name);
        let indexed = self.indexes.iter().flatten().flatten().map(of("an index"));
        for (list, name) in indexed.chain(self.search.iter().flatten().map(of("search"))) {
            if let Some(near) = declared.near_declared(name) {
                let reason = format!(
                    "{collection}: {list} names {name:?}, which is not declared; did you mean {near:?}?"
                );
                return Err(SchemaError { reason });
            }
        }
        Ok(())
    }

    /// Looks for indexes and searches that would find nothing, or say the same twice.
    pub(super) fn check_lists(&self, collection: &str) -> Result<(), SchemaError> {
        let bad = |reason: String| Err(SchemaError { reason: format!("{collection}: {reason}") });
        let indexes: Vec<&Vec<String>> = self.indexes.iter().flatten().collect();
        if indexes.iter().any(|index| index.is_empty()) {
            return bad("an index names no field".into());
        }
        if let Some(at) = (0..indexes.len()).find(|at| indexes[..*at].contains(&indexes[*at])) {
            return bad(format!("the index of {} is declared twice", indexes[at].join(", ")));
        }
        let lists = indexes.into_iter().map(|index| ("an index", index));
        for (list, names) in lists.chain(self.search.iter().map(|search| ("search", search))) {
            for (at, name) in names.iter().enumerate() {
                let Some(path) = FieldPath::parse(name) else {
                    return bad(format!("{list} names {name:?}, which cannot be the name of a field"));
                };
                if name == "id" {
                    return bad(format!(
                        "{list} names \"id\", which names the document and is no field of it"
                    ));
                }
                if names[..at].contains(name) {
                    return bad(format!("{list} names {name:?} twice"));
                }
                if let Some(older) = self.older_name(&path) {
                    let newest = self.canonical(&older);
                    return bad(format!(
                        "{list} names {name:?}, an older name; documents show the field as {newest:?}"
                    ));
                }
            }
        }
        self.check_search(collection, self.search.as_deref())
    }

    /// Looks for fields that a search names and never looks into.
    fn check_search(&self, collection: &str, search: Option<&[String]>) -> Result<(), SchemaError> {
        for name in search.unwrap_or_default() {
            let why = FieldPath::parse(name).iter().flat_map(FieldPath::fields).find_map(|field| match self
                .kind(&field)
            {
                FieldKind::Local => Some("is `local`, and local fields are never searched"),
                FieldKind::Counter => Some("is a `counter`, and holds no words"),
                _ => None,
            });
            if let Some(why) = why {
                let reason = format!(
                    "{collection}: search names {name:?}, which {why}; search is for fields of all other kinds"
                );
                return Err(SchemaError { reason });
            }
        }
        Ok(())
    }

    pub(crate) fn kind(&self, field: &str) -> &FieldKind {
        self.fields.get(field).map_or(&FieldKind::Register, |field| &field.kind)
    }

    /// What is declared of a collection, as it is stored; `None` if that cannot be read, or was already found to be lost.
    pub(crate) fn from_stored(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// What counts of a collection whose declaration is lost.
    pub(crate) fn lost() -> Self {
        Self { is_lost: true, ..Self::default() }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local == Some(true) || self.is_lost
    }

    /// What is declared of one document: of one that stays on this device, what is declared of a local collection.
    pub(crate) fn of_document(schema: Arc<Self>, id: &str) -> Arc<Self> {
        match schema.is_local() || !schema.is_local_id(id) {
            true => schema,
            false => Arc::new(Self { local: Some(true), ..Self::clone(&schema) }),
        }
    }

    /// Whether a document stays on this device, whatever its collection does.
    fn is_local_id(&self, id: &str) -> bool {
        let is_meant = |declared: &String| match declared.strip_suffix('*') {
            Some(beginning) => id.starts_with(beginning),
            None => id == declared,
        };
        self.local_ids.as_ref().is_some_and(|ids| ids.iter().any(is_meant))
    }

    pub(super) fn check_local_ids(&self, collection: &str) -> Result<(), SchemaError> {
        let is_id = |id: &String| {
            let beginning = id.strip_suffix('*').unwrap_or(id);
            !beginning.is_empty() && !beginning.contains('*')
        };
        match self.local_ids.iter().flatten().find(|id| !is_id(id)) {
            None => Ok(()),
            Some(id) => {
                let reason = format!(
                    "{collection}: local_ids has {id:?}; an id has a name, and a * only at its end. A whole collection is `local = true`"
                );
                Err(SchemaError { reason })
            }
        }
    }

    pub(crate) fn has_local(&self) -> bool {
        self.is_local() || self.fields.values().any(|field| field.kind == FieldKind::Local)
    }

    /// Whether the field stays on this device.
    pub(crate) fn is_device_local(&self, field: &str) -> bool {
        self.is_local() || self.is_local_field(field)
    }

    /// Whether the field itself is declared to stay on this device, whatever its collection does.
    pub(crate) fn is_local_field(&self, field: &str) -> bool {
        *self.kind(self.canonical(field)) == FieldKind::Local
    }

    pub(crate) fn delete_policy(&self) -> DeletePolicy {
        self.delete.unwrap_or_default()
    }

    /// The fields that go by older names as well.
    pub(crate) fn aliased(&self) -> impl Iterator<Item = (&String, &[String])> {
        self.fields.iter().filter(|(_, f)| !f.alias.is_empty()).map(|(name, f)| (name, &f.alias[..]))
    }

    /// Whether documents show differently under `other`.
    pub(crate) fn shows_as(&self, other: &Self) -> bool {
        self.shown_by() == other.shown_by()
    }

    /// Whether the same fields stay on this device under `other`.
    pub(crate) fn has_same_local_fields(&self, other: &Self) -> bool {
        let local = |schema: &Self| -> Vec<String> {
            let fields = schema.fields.iter().filter(|(_, field)| field.kind == FieldKind::Local);
            fields.map(|(name, _)| name.clone()).collect()
        };
        self.is_local() == other.is_local()
            && self.local_ids == other.local_ids
            && local(self) == local(other)
    }

    /// Whether the full-text index holds other words of documents under `other`.
    pub(crate) fn is_searched_as(&self, other: &Self) -> bool {
        self.searched_by() == other.searched_by()
    }

    fn searched_by(&self) -> (Option<&[String]>, Vec<(&str, bool)>) {
        // Words of texts weigh less than those of other fields, and those of local fields are not in it.
        let fields = self.fields.iter().filter_map(|(name, field)| match field.kind {
            FieldKind::Text => Some((name.as_str(), true)),
            FieldKind::Local => Some((name.as_str(), false)),
            _ => None,
        });
        (self.search.as_deref(), fields.collect())
    }

    /// Equal for declarations under which documents show alike, on every device.
    pub(crate) fn fingerprint(&self) -> u64 {
        let json = serde_json::to_vec(&self.shown_by()).unwrap_or_default();
        let hash = blake3::derive_key("motet 2026 schema fingerprint v1", &json);
        u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8]))
    }

    /// The declarations that decide what a document shows.
    fn shown_by(&self) -> (Vec<(&str, Field)>, DeletePolicy) {
        let fields = self.fields.iter().filter(|(_, field)| {
            !field.alias.is_empty()
                || matches!(field.kind, FieldKind::Rank(_) | FieldKind::Ask | FieldKind::List)
        });
        let without_rules =
            |f: &Field| Field { kind: f.kind.clone(), alias: f.alias.clone(), ..Field::default() };
        (fields.map(|(name, f)| (name.as_str(), without_rules(f))).collect(), self.delete_policy())
    }
}

/// The items in their order, without those that were there before.
fn each_once<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for item in items {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    once
}
