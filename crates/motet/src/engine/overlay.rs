//! What stays on this device of a document: fields of local collections, and fields that are declared to be local.
//!
//! They lie over what the document's changes say, and are part of no change. Others may write the same fields, and a field may be
//! declared local late or not be local any more. So the overlay remembers which fields it hides, and on which version of the document
//! each lies: what does not stay here any more is written into the document as an edit of that version.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::doc::Fields;
use crate::schema::CollectionSchema;
use crate::store::{self, Tx};
use crate::types::Version;

/// Key of the [`Note`] among the stored fields. No field has an empty name.
const NOTE: &str = "";

/// The fields of a document that this device keeps to itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overlay {
    fields: Fields,
    note: Note,
}

/// What is remembered beside the values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// Fields that the document has and that were removed here.
    removed: BTreeSet<String>,
    /// The version of the document on which a field lies, if it had one.
    bases: BTreeMap<String, String>,
}

/// A field that does not stay on this device any more.
#[derive(Debug)]
pub(super) struct Freed {
    pub(super) name: String,
    /// `None`: it was removed.
    pub(super) value: Option<Json>,
    pub(super) base: Option<Version>,
}

impl Overlay {
    pub(super) fn read(tx: Tx<'_>, document: i64, schema: &CollectionSchema) -> store::Result<Self> {
        let Some(json) = tx.local_fields(document)? else { return Ok(Self::default()) };
        match serde_json::from_str::<Fields>(&json) {
            Ok(mut fields) => {
                let note = fields.remove(NOTE).and_then(|note| serde_json::from_value(note).ok());
                Ok(Self { fields, note: note.unwrap_or_default() })
            }
            Err(_) => Self::as_shown(tx, document, schema, &Fields::new()),
        }
    }

    /// What a document shows of what stays on this device, where the row that should hold it is damaged or gone: the only copy. `shared`: what
    /// the document has by its changes.
    pub(super) fn as_shown(
        tx: Tx<'_>,
        document: i64,
        schema: &CollectionSchema,
        shared: &Fields,
    ) -> store::Result<Self> {
        let shown = tx.shown(document)?.and_then(|json| serde_json::from_str(&json).ok());
        let mut fields: Fields = shown.unwrap_or_default();
        fields.retain(|name, value| schema.is_device_local(name) && shared.get(name) != Some(value));
        Ok(Self { fields, note: Note::default() })
    }

    pub(super) fn write(&self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        if *self == Self::default() {
            return tx.drop_local_fields(document);
        }
        let mut stored = self.fields.clone();
        if self.note != Note::default() {
            stored.insert(NOTE.into(), serde_json::to_value(&self.note).unwrap_or_default());
        }
        tx.put_local_fields(document, &super::to_json(&stored)?)
    }

    /// Brings what a document says to what this device shows.
    pub(super) fn lay_over(&self, schema: &CollectionSchema, shown: &mut Fields) {
        self.note
            .removed
            .iter()
            .filter(|name| schema.is_device_local(name))
            .for_each(|name| _ = shown.remove(name));
        let kept = self.fields.iter().filter(|(name, _)| schema.is_device_local(name));
        shown.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Sets a field of a document that has the heads given.
    pub(super) fn set(&mut self, name: &str, value: Json, heads: &[[u8; 32]]) {
        self.note_base(name, heads);
        self.note.removed.remove(name);
        self.fields.insert(name.to_owned(), value);
    }

    /// Removes a field. `hides`: the document itself has one.
    pub(super) fn remove(&mut self, name: &str, hides: bool, heads: &[[u8; 32]]) {
        self.fields.remove(name);
        if hides {
            self.note_base(name, heads);
            self.note.removed.insert(name.to_owned());
        } else {
            self.note.bases.remove(name);
        }
    }

    /// The document was made with these fields over it: those lie on its first version.
    pub(super) fn lie_on(&mut self, heads: &[[u8; 32]]) {
        if !heads.is_empty() {
            let base = Version(heads.to_vec()).to_string();
            for name in self.fields.keys() {
                self.note.bases.entry(name.clone()).or_insert_with(|| base.clone());
            }
        }
    }

    /// Follows new declarations: fields get their new names, and what was removed of fields that were local themselves is there again
    /// once they are not. Returns whether anything has changed.
    pub(super) fn rename(&mut self, before: &CollectionSchema, after: &CollectionSchema) -> bool {
        let old = std::mem::take(self);
        let shows_again =
            |name: &String| before.is_local_field(name) && !after.is_device_local(after.canonical(name));
        for (name, value) in &old.fields {
            // Of two names the newer one counts.
            let is_newer = after.canonical(name) == name;
            if is_newer || !old.fields.contains_key(after.canonical(name)) {
                self.fields.insert(after.canonical(name).to_owned(), value.clone());
            }
        }
        for name in old.note.removed.iter().filter(|name| !shows_again(name)) {
            self.note.removed.insert(after.canonical(name).to_owned());
        }
        self.note.removed.retain(|name| !self.fields.contains_key(name));
        for (name, base) in &old.note.bases {
            let name = after.canonical(name);
            if self.fields.contains_key(name) || self.note.removed.contains(name) {
                self.note.bases.insert(name.to_owned(), base.clone());
            }
        }
        *self != old
    }

    /// Takes out what does not stay on this device any more.
    pub(super) fn free(&mut self, schema: &CollectionSchema) -> Vec<Freed> {
        let names = self.fields.keys().chain(&self.note.removed).filter(|name| !schema.is_device_local(name));
        let names: Vec<String> = names.cloned().collect();
        let freed = names.into_iter().map(|name| {
            let base = self.note.bases.remove(&name).and_then(|base| base.parse().ok());
            self.note.removed.remove(&name);
            Freed { value: self.fields.remove(&name), name, base }
        });
        freed.collect()
    }

    fn note_base(&mut self, name: &str, heads: &[[u8; 32]]) {
        let is_new = !self.fields.contains_key(name) && !self.note.removed.contains(name);
        if is_new && !heads.is_empty() {
            self.note.bases.insert(name.to_owned(), Version(heads.to_vec()).to_string());
        }
    }
}
