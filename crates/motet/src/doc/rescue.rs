//! What somebody wrote inside a text, list, set, counter or object while somebody else replaced or removed the whole of it.
//!
//! Automerge keeps such writes and shows them nowhere. They are put in again beside what has replaced them, as if written there at the
//! same time: then they show, or stand in the journal, by the rules for concurrent values.

use automerge::transaction::Transactable;
use automerge::{ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};
use serde_json::Value as Json;

use super::Document;
use super::edit::EditError;
use super::fork::{Fork, Side};
use super::genesis::Container;
use super::read::{Reader, SET_MARK};
use super::reconcile::Reconciled;
use crate::schema::CollectionSchema;

/// A value that one side has replaced while the other wrote inside of it.
struct Lost {
    map: ObjId,
    key: String,
    path: String,
    kind: Kind,
    /// What it was on the side that wrote inside of it, and that side's ends.
    value: Json,
    at: Vec<ChangeHash>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    List,
    Set,
    Map,
    Counter,
}

impl Document {
    /// Puts in again what was written inside of values that the other side of a fork has replaced. Every device that sees the fork makes
    /// the same changes.
    pub(super) fn rescue(&mut self, fork: &mut Fork, done: &mut Reconciled) -> Result<(), EditError> {
        let mut lost = Vec::new();
        self.find_lost(&ROOT, "", fork, &mut lost);
        for Lost { map, key, path, kind, value, at } in lost {
            let elements = value.as_array().map_or(&[][..], Vec::as_slice);
            let container = match kind {
                Kind::Text => Container::Text(value.as_str().unwrap_or_default()),
                Kind::List => Container::List(elements),
                Kind::Set => Container::Set(elements),
                Kind::Counter => Container::Counter(value.as_i64().unwrap_or_default()),
                Kind::Map => Container::Value(&value),
            };
            let change = self.deterministic(&path, container, &mut Some(at), |tx| {
                if kind == Kind::Counter {
                    // Automerge takes a put of what is there already for no change.
                    tx.delete(&map, key.as_str())?;
                }
                container.put(tx, &map, &key)
            })?;
            fork.follow(&change);
            done.changes.push(change);
        }
        Ok(())
    }

    fn find_lost(&self, map: &ObjId, path: &str, fork: &Fork, lost: &mut Vec<Lost>) {
        let schema = CollectionSchema::default();
        let base = Reader { am: &self.am, heads: Some(&fork.base), schema: &schema };
        let stands = |side: &Side, key: &str, id: &ObjId| {
            let reader = Reader { am: &self.am, heads: Some(&side.known), schema: &schema };
            reader.values(map, key).iter().any(|(_, other)| other == id)
        };
        for item in self.am.map_range_at(map, .., &fork.base) {
            let key = item.key.as_ref();
            let path = format!("{path}/{key}");
            for (value, id) in base.values(map, key) {
                let Some(kind) = kind_of(&base, &value, &id) else { continue };
                let side = match fork.sides.each_ref().map(|side| stands(side, key, &id)) {
                    [true, true] => {
                        if kind == Kind::Map {
                            self.find_lost(&id, &path, fork, lost);
                        }
                        continue;
                    }
                    [false, false] => continue,
                    [true, false] => &fork.sides[0],
                    [false, true] => &fork.sides[1],
                };
                let now = Reader { am: &self.am, heads: Some(&fork.ends), schema: &schema };
                // A text in the place of a text: what is written in both is brought together as text.
                if kind == Kind::Text
                    && *map == ROOT
                    && now.values(map, key).len() == 1
                    && !now.texts(map, key).is_empty()
                {
                    continue;
                }
                let then = Reader { heads: Some(&side.known), ..now };
                let values = then.values(map, key);
                let written = values.iter().find(|(_, other)| *other == id);
                let Some(written) = written.map(|(value, id)| then.json(value, id)) else { continue };
                let is_there =
                    || now.values(map, key).iter().any(|(value, id)| now.json(value, id) == written);
                if base.json(&value, &id) == written || is_there() {
                    continue;
                }
                // What it held is under another name of the field now: nobody wrote that here.
                if is_empty(&written) && self.is_emptied_by_nobody((map, key, &id), &fork.base, side) {
                    continue;
                }
                let (map, key, at) = (map.clone(), key.to_owned(), side.heads.clone());
                lost.push(Lost { map, key, path: path.clone(), kind, value: written, at });
            }
        }
    }
}

impl Document {
    /// Whether it is a change that every device makes alike that has emptied a value on one side of a fork.
    fn is_emptied_by_nobody(
        &self,
        (map, key, id): (&ObjId, &str, &ObjId),
        base: &[ChangeHash],
        side: &Side,
    ) -> bool {
        let schema = CollectionSchema::default();
        let is_empty_at = |heads: &[ChangeHash]| {
            let reader = Reader { am: &self.am, heads: Some(heads), schema: &schema };
            let values = reader.values(map, key);
            let value = values.iter().find(|(_, other)| other == id);
            value.is_some_and(|(value, id)| is_empty(&reader.json(value, id)))
        };
        let mut seen = self.ancestors(base);
        seen.extend(base);
        let mut open = side.known.clone();
        while let Some(hash) = open.pop() {
            let Some(meta) = self.am.get_change_meta_by_hash(&hash).filter(|_| seen.insert(hash)) else {
                continue;
            };
            if !self.is_of_somebody(&meta) && is_empty_at(&[hash]) && !is_empty_at(&meta.deps) {
                return true;
            }
            open.extend(meta.deps);
        }
        false
    }
}

/// Whether a value that merges with writes inside of it has nothing in it.
fn is_empty(value: &Json) -> bool {
    match value {
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        other => other.as_i64() == Some(0),
    }
}

/// What merges with writes inside of it.
fn kind_of(reader: &Reader<'_>, value: &Value<'_>, id: &ObjId) -> Option<Kind> {
    match value {
        Value::Object(ObjType::Text) => Some(Kind::Text),
        Value::Object(ObjType::List) => Some(Kind::List),
        Value::Object(ObjType::Map | ObjType::Table) => {
            let is_set = !reader.values(id, SET_MARK).is_empty();
            Some(if is_set { Kind::Set } else { Kind::Map })
        }
        other => other.is_counter().then_some(Kind::Counter),
    }
}
