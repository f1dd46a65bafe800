//! Edits that every device makes alike: two devices that take up the same newer row, each for itself, have made one change and not
//! two. What a counter gained is then added once, and what a text or a list gained stands there once.
//!
//! The change is made on nothing but the history of the field that it writes, under an actor that is derived from that history and
//! from what the change does. Whatever else a device has written to the document has no part in it.

use std::collections::HashSet;

use automerge::legacy::{Key, ObjectId};
use automerge::{ActorId, AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};
use serde_json::Value as Json;

use super::edit::{Edit, EditError};
use super::read::Fields;
use super::{Document, TAKEN_UP};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

impl Document {
    /// Whether a write of `value` merges by what it does to the field, so that the same edit made twice would count twice. An array
    /// or object that is no list or set is a value like others, and belongs to the device that wrote it, at its time.
    fn counts_edits(&self, schema: &CollectionSchema, field: &str, value: &Json) -> bool {
        let reader = self.reader(schema, None);
        let stored = reader.stored_name(field);
        match reader.kind(&ROOT, stored) {
            FieldKind::Counter => value.is_number(),
            FieldKind::Set | FieldKind::List => value.is_array(),
            FieldKind::Text => value.is_string(),
            _ => value.is_string() && !reader.texts(&ROOT, stored).is_empty(),
        }
    }

    /// Sets fields, each by changes of its own that every device makes alike which knows the same history of the field. `prefix` begins
    /// the actors: among concurrent values of one time the larger actor wins. Returns the changes that are new.
    pub(crate) fn write_alike(
        &mut self,
        edit: &Edit<'_>,
        set: &Fields,
        prefix: &[u8],
    ) -> Result<Vec<Change>, EditError> {
        let mut changes = Vec::new();
        for (field, value) in set {
            let base = self.history_of(edit.schema, field)?;
            let set = Fields::from_iter([(field.clone(), value.clone())]);
            // What a change does is known once it is made: devices that differ in their declarations must not share an actor.
            let mut draft = base.clone();
            draft.alike = Some(base.alike_actor(field, &[], b"draft"));
            let drafted = draft.write_at_once(edit, &set)?;
            if drafted.is_empty() {
                continue;
            }
            let mut made = base;
            made.alike = Some(made.alike_actor(field, &drafted, prefix));
            let more = made.write_at_once(edit, &set)?;
            let new: Vec<Change> =
                more.into_iter().filter(|change| !self.has_change(&change.hash())).collect();
            self.am.apply_changes(new.iter().cloned())?;
            changes.extend(new);
        }
        self.shown = None;
        Ok(changes)
    }

    fn write_at_once(&mut self, edit: &Edit<'_>, set: &Fields) -> Result<Vec<Change>, EditError> {
        let shown = self.fields(edit.schema);
        let edit = Edit {
            shown: &shown,
            base: None,
            message: Some(edit.message.unwrap_or(TAKEN_UP)),
            ..edit.clone()
        };
        self.write(&edit, set, &[], false)
    }

    fn alike_actor(&self, field: &str, drafted: &[Change], prefix: &[u8]) -> ActorId {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 alike actor v1");
        hash.update(&self.identity.space.0);
        hash.update(&self.identity.document.0);
        hash.update(&(field.len() as u64).to_le_bytes());
        hash.update(field.as_bytes());
        self.heads().iter().for_each(|head| _ = hash.update(&head.0));
        drafted.iter().for_each(|change| _ = hash.update(&change.hash().0));
        let mut actor = prefix.to_vec();
        actor.extend(&hash.finalize().as_bytes()[..16]);
        ActorId::from(actor)
    }

    /// The latest changes that wrote to a field of the document, as of some heads; those heads if the field is not the same there.
    pub(super) fn writers_at(
        &self,
        schema: &CollectionSchema,
        field: &str,
        at: Option<&[ChangeHash]>,
    ) -> Vec<ChangeHash> {
        let mut writers = self.writers_of(schema, field, at);
        writers.sort_unstable();
        // Two devices that see other values in the field have not seen the same of it.
        let shown = |at: Option<&[ChangeHash]>| self.reader(schema, at).shown(field);
        match shown(Some(&writers)) == shown(at) {
            true => writers,
            false => at.map_or_else(|| self.heads(), <[_]>::to_vec),
        }
    }

    /// A document of nothing but the changes that wrote to a field, and those before them.
    fn history_of(&self, schema: &CollectionSchema, field: &str) -> Result<Self, EditError> {
        let base = self.writers_at(schema, field, None);
        if base == self.heads() {
            return Ok(self.clone());
        }
        let mut document = Self::new(self.identity);
        document.am = self.am.fork_at(&base)?;
        Ok(document)
    }

    /// The latest changes that wrote to a field, or to anything inside it.
    fn writers_of(
        &self,
        schema: &CollectionSchema,
        field: &str,
        at: Option<&[ChangeHash]>,
    ) -> Vec<ChangeHash> {
        let heads = at.map_or_else(|| self.heads(), <[_]>::to_vec);
        let (names, objects) = self.parts_of(schema, field, at);
        let (mut open, mut seen, mut found) = (heads.clone(), HashSet::new(), Vec::new());
        while let Some(hash) = open.pop() {
            if !seen.insert(hash) {
                continue;
            }
            if seen.len() > limits::ALIKE_CHANGES {
                return heads;
            }
            match self.writes_to(&hash, &names, &objects) {
                Ok(true) => found.push(hash),
                Ok(false) => {
                    let meta = self.am.get_change_meta_by_hash(&hash);
                    open.extend(meta.into_iter().flat_map(|meta| meta.deps));
                }
                Err(_) => return heads,
            }
        }
        found
    }

    /// Whether what was written to a field from one version to another was made by changes that every device makes alike.
    pub(crate) fn is_written_alike(
        &self,
        schema: &CollectionSchema,
        field: &str,
        [before, after]: [&[ChangeHash]; 2],
    ) -> bool {
        let (names, objects) = self.parts_of(schema, field, Some(after));
        let known = self.known_at(before);
        let (mut open, mut seen, mut is_found) = (after.to_vec(), HashSet::new(), false);
        while let Some(hash) = open.pop() {
            if known.has(&hash) || !seen.insert(hash) {
                continue;
            }
            if self.writes_to(&hash, &names, &objects).unwrap_or(true) {
                if self.author_of(&hash).is_none_or(|(device, _)| device.is_some()) {
                    return false;
                }
                is_found = true;
            }
            let meta = self.am.get_change_meta_by_hash(&hash);
            open.extend(meta.into_iter().flat_map(|meta| meta.deps));
        }
        is_found
    }

    /// Whether the document holds what every device makes that sets a field back to `value` at a version.
    pub(crate) fn holds_alike(&self, edit: &Edit<'_>, field: &str, value: &Json, at: &[ChangeHash]) -> bool {
        let Ok(am) = self.am.fork_at(at) else { return false };
        let mut then = Self::new(self.identity);
        then.am = am;
        let made = then.write_alike(edit, &Fields::from_iter([(field.to_owned(), value.clone())]), &[]);
        made.is_ok_and(|made| !made.is_empty() && made.iter().all(|change| self.has_change(&change.hash())))
    }

    /// The names of a field, and the objects in it.
    fn parts_of(
        &self,
        schema: &CollectionSchema,
        field: &str,
        at: Option<&[ChangeHash]>,
    ) -> (HashSet<String>, HashSet<String>) {
        let reader = self.reader(schema, at);
        let names: HashSet<String> = schema
            .aliased()
            .filter(|(name, aliases)| *name == field || aliases.iter().any(|alias| alias == field))
            .flat_map(|(name, aliases)| aliases.iter().chain([name]).cloned())
            .chain([field.to_owned(), reader.stored_name(field).to_owned()])
            .collect();
        let mut objects = HashSet::new();
        for name in &names {
            for (value, id) in reader.values(&ROOT, name) {
                self.objects_in(&value, &id, &mut objects);
            }
        }
        (names, objects)
    }

    fn objects_in(&self, value: &Value<'_>, id: &ObjId, objects: &mut HashSet<String>) {
        let Value::Object(kind) = value else { return };
        objects.insert(id.to_string());
        let mut inner = |value: Value<'_>, id: ObjId| self.objects_in(&value, &id, objects);
        match kind {
            ObjType::Text => {}
            ObjType::List => {
                self.am.list_range(id, ..).for_each(|item| inner(item.value.clone().into_value(), item.id()));
            }
            ObjType::Map | ObjType::Table => {
                for item in self.am.map_range(id, ..) {
                    let values = self.am.get_all(id, item.key.as_ref()).unwrap_or_default();
                    values.into_iter().for_each(|(value, id)| inner(value, id));
                }
            }
        }
    }

    /// Whether a change wrote to a field of one of these names, or into one of these objects. A very large one is taken to have done so.
    fn writes_to(
        &self,
        hash: &ChangeHash,
        names: &HashSet<String>,
        objects: &HashSet<String>,
    ) -> Result<bool, AutomergeError> {
        let meta = self.am.get_change_meta_by_hash(hash).ok_or(AutomergeError::Fail)?;
        if (meta.max_op + 1).saturating_sub(meta.start_op) > limits::ALIKE_CHANGE_OPS {
            return Ok(true);
        }
        let change = self.am.get_change_by_hash(hash).ok_or(AutomergeError::Fail)?;
        let decoded = change.decode();
        Ok(decoded.operations.iter().any(|op| match (&op.obj, &op.key) {
            (ObjectId::Root, Key::Map(key)) => names.contains(key.as_str()),
            (ObjectId::Root, Key::Seq(_)) => true,
            (ObjectId::Id(id), _) => objects.contains(&format!("{}@{}", id.counter(), id.actor())),
        }))
    }
}

/// The fields of `set` that would be counted twice, and the rest.
pub(crate) fn split_counted(
    document: &Document,
    schema: &CollectionSchema,
    set: &Fields,
    shown: &Fields,
) -> (Fields, Fields) {
    let differs = |(name, value): &(&String, &Json)| shown.get(*name) != Some(*value);
    let (counted, plain): (Vec<_>, Vec<_>) =
        set.iter().filter(differs).partition(|(name, value)| document.counts_edits(schema, name, value));
    let owned =
        |fields: Vec<(&String, &Json)>| fields.into_iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    (owned(counted), owned(plain))
}
