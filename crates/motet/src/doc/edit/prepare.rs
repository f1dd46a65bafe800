//! Which containers new values need, and which concurrent values they take the place of: before the edit itself.

use std::collections::BTreeSet;

use automerge::{Change, ObjId, ROOT};
use serde_json::Value as Json;

use super::{At, EditError};
use crate::doc::Document;
use crate::doc::genesis::Container;
use crate::doc::read::{Fields, Reader};
use crate::schema::{CollectionSchema, FieldKind, is_count};

impl Document {
    /// Makes the containers that the new values need, by changes that are equal on every device.
    pub(in crate::doc) fn prepare(
        &mut self,
        map: &ObjId,
        path: &str,
        set: &Fields,
        schema: &CollectionSchema,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        for (key, value) in set {
            let path = format!("{path}/{key}");
            let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
            match (reader.kind(map, key), value) {
                (FieldKind::Counter, Json::Number(new))
                    if (!reader.is_counter(map, key) || reader.is_divided(map, key))
                        && let Some(new) = new.as_i64().filter(|new| is_count(*new)) =>
                {
                    // A register becomes a counter with the number it has, if a counter can have that.
                    let old = reader.count(map, key).unwrap_or_default();
                    let counter = Container::Counter(new);
                    self.make(map, key, &path, [Container::Counter(old), counter], at, changes)?;
                }
                // What is made anew takes the place of concurrent values that lost: who writes the whole has seen them.
                (FieldKind::Set, Json::Array(_))
                    if !reader.is_set(map, key) || reader.is_divided(map, key) =>
                {
                    let old = reader.resolve(map, key);
                    let old = old.as_ref().and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
                    self.make(map, key, &path, [Container::Set(old); 2], at, changes)?;
                }
                (FieldKind::List, Json::Array(items))
                    if reader.lists(map, key).is_empty() || reader.is_divided(map, key) =>
                {
                    let old = reader.resolve(map, key);
                    let old = old.as_ref().and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
                    let lists = [Container::List(old), Container::List(items)];
                    self.make(map, key, &path, lists, at, changes)?;
                }
                // A text that is declared to be a single value now becomes one.
                (FieldKind::Rank(_) | FieldKind::Ask, _) => {}
                (kind, Json::String(content)) => {
                    let texts = reader.texts(map, key);
                    let is_divided = !texts.is_empty() && reader.is_divided(map, key);
                    if texts.len() > 1 && !is_divided {
                        let field = (*map == ROOT).then_some(key.as_str());
                        self.join((&path, field), &texts, schema, at, changes)?;
                    } else if is_divided || texts.is_empty() && *kind == FieldKind::Text {
                        // A register becomes a text with the words it has, so that edits which two devices then
                        // make at the same time merge.
                        let old = reader.resolve(map, key);
                        let content = old.as_ref().and_then(Json::as_str).unwrap_or(content);
                        self.make(map, key, &path, [Container::Text(content); 2], at, changes)?;
                    }
                }
                // An empty object is a value of who writes it: nothing in it would tell whose it is.
                (_, Json::Object(fields)) if fields.is_empty() => {}
                (_, Json::Object(fields)) => {
                    if reader.maps(map, key).is_empty() || reader.is_set(map, key) {
                        self.make(map, key, &path, [Container::Map; 2], at, changes)?;
                    } else {
                        self.settle_object(map, key, &path, schema, at, changes)?;
                    }
                    let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
                    if let Some(inner) = reader.maps(map, key).into_iter().next() {
                        self.prepare(&inner, &path, fields, schema, at, changes)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An object out of which something is removed takes the place of concurrent values that lost: what is removed from it might be all that
    /// made it the latest.
    pub(super) fn prepare_removal(
        &mut self,
        remove: &[Vec<String>],
        schema: &CollectionSchema,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let inside: BTreeSet<&String> =
            remove.iter().filter(|path| path.len() > 1).map(|path| &path[0]).collect();
        for key in inside {
            let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
            if !reader.maps(&ROOT, key).is_empty() && !reader.is_set(&ROOT, key) {
                self.settle_object(&ROOT, key, &format!("/{key}"), schema, at, changes)?;
            }
        }
        Ok(())
    }

    /// An object that shows takes the place of concurrent values that lost, if there are any.
    fn settle_object(
        &mut self,
        map: &ObjId,
        key: &str,
        path: &str,
        schema: &CollectionSchema,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
        if reader.is_divided(map, key) {
            let old = reader.resolve(map, key).unwrap_or_default();
            self.make(map, key, path, [Container::Value(&old); 2], at, changes)?;
        }
        Ok(())
    }
}
