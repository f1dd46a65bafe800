//! Fields that go by several names: what a document holds of them under each is one field, and merges as concurrent writes of one field
//! do.
//!
//! A document keeps a field under the name it has it under, so that older apps see every edit. Two apps that make it at the same time
//! under different names leave values under both. They are shown as one, and the next write folds them into the oldest of the names, by a
//! change that every device makes alike.

use std::collections::BTreeMap;

use automerge::{ObjId, ObjType, ROOT, Value};
use serde_json::Value as Json;

use super::edit::{Again, At, Edit, EditError, Op, carry_out};
use super::genesis::Container;
use super::read::{FieldConflict, Fields, Reader, SET_MARK, element_key, excerpt, pointer};
use super::writers::{Makers, WRITER_DEPTH};
use super::{Change, Document, text};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

impl Reader<'_> {
    /// The name that the app knows for a field of the document.
    pub(super) fn shown_name<'n>(&'n self, stored: &'n str) -> &'n str {
        self.schema.canonical(stored)
    }

    /// The name under which a field is written: the oldest of its names that the document has, so that older apps see it.
    pub(super) fn stored_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.present_names(name).pop().unwrap_or(self.schema.canonical(name))
    }

    /// The names of a field that the document has, the newest first.
    pub(super) fn present_names<'n>(&'n self, name: &'n str) -> Vec<&'n str> {
        let name = self.schema.canonical(name);
        let older = self.schema.fields.get(name).map_or(&[][..], |field| &field.alias[..]);
        if older.is_empty() {
            return vec![name];
        }
        let all = [name].into_iter().chain(older.iter().map(String::as_str));
        all.filter(|name| !self.values(&ROOT, name).is_empty()).collect()
    }

    /// What a field shows, under whatever names the document has it.
    pub(super) fn shown(&self, name: &str) -> Option<Json> {
        let names = self.holding_names(name);
        match &names[..] {
            [] => None,
            [one] => self.resolve(&ROOT, one),
            several => self.merged(name, several),
        }
    }

    /// The names of a field that have something in them, the one it is written under first. What was emptied when it was folded
    /// counts only if nothing else is there.
    pub(super) fn holding_names<'n>(&'n self, name: &'n str) -> Vec<&'n str> {
        let mut names = self.present_names(name);
        if names.len() < 2 {
            return names;
        }
        names.reverse();
        let first = names[0];
        names.retain(|name| self.has_content(name));
        if names.is_empty() { vec![first] } else { names }
    }

    /// Whether concurrent writes gave a field different values, under one name or several.
    pub(super) fn is_contested_by_any_name(&self, name: &str) -> bool {
        let names = self.holding_names(name);
        let mut shown = names.iter().map(|name| self.resolve(&ROOT, name));
        let first = shown.next();
        shown.any(|other| Some(other) != first) || names.iter().any(|name| self.is_contested(&ROOT, name))
    }

    fn has_content(&self, key: &str) -> bool {
        // Of several texts that were begun at the same time an empty one may be the first.
        self.values(&ROOT, key).iter().any(|(value, id)| match value {
            // It would have gone, and not been emptied.
            Value::Object(kind) if self.is_whole_array(key, *kind) => true,
            Value::Object(ObjType::Text | ObjType::List) => self.length(id) > 0,
            Value::Object(_) => self.map(id).keys().any(|key| key != SET_MARK),
            Value::Scalar(_) => self.counted(&ROOT, key) != Some(0),
        })
    }

    /// Whether an object of this type is an array in a field that is replaced as a whole.
    fn is_whole_array(&self, key: &str, object: ObjType) -> bool {
        object == ObjType::List && !matches!(self.kind(&ROOT, key), FieldKind::Set | FieldKind::List)
    }

    /// Whether what stands under the name that shows takes in what stands under another one: see [`merged`](Self::merged).
    fn takes_in(&self, best: &str, shown: &Json, other: &Json) -> bool {
        match (self.kind(&ROOT, best), shown, other) {
            (kind, Json::String(_), Json::String(_)) => {
                *kind == FieldKind::Text || !self.texts(&ROOT, best).is_empty()
            }
            (FieldKind::Counter, Json::Number(_), other) => other.as_i64().is_some(),
            (FieldKind::Set | FieldKind::List, Json::Array(_), Json::Array(_)) => true,
            // Of a field that both have, one shows.
            (FieldKind::Register, Json::Object(shown), Json::Object(other)) => {
                other.iter().all(|(name, value)| shown.get(name).is_none_or(|shown| shown == value))
            }
            _ => false,
        }
    }

    /// Values under several names as one.
    fn merged(&self, name: &str, names: &[&str]) -> Option<Json> {
        let best = *self.by_precedence(name, names).first()?;
        let shown = self.resolve(&ROOT, best)?;
        let others = || names.iter().filter_map(|name| self.resolve(&ROOT, name));
        let is_text = |name: &str| !self.texts(&ROOT, name).is_empty();
        Some(match (self.kind(&ROOT, best), shown) {
            (kind, Json::String(_)) if *kind == FieldKind::Text || is_text(best) => {
                let texts = others().filter_map(|value| value.as_str().map(str::to_owned));
                Json::String(texts.reduce(|all, next| text::union(&all, &next)).unwrap_or_default())
            }
            (FieldKind::Counter, Json::Number(_)) => {
                let sum: i128 = others().filter_map(|value| value.as_i64()).map(i128::from).sum();
                let bound = i128::from(limits::COUNTER_MAX);
                Json::from(i64::try_from(sum.clamp(-bound, bound)).unwrap_or_default())
            }
            (FieldKind::Set, Json::Array(_)) => {
                let elements = others().filter_map(|value| value.as_array().cloned()).flatten();
                let set: BTreeMap<_, _> = elements.map(|element| (element_key(&element), element)).collect();
                set.into_values().collect()
            }
            (FieldKind::List, Json::Array(_)) => {
                let mut all: Vec<Json> = Vec::new();
                for list in others().filter_map(|value| value.as_array().cloned()) {
                    let more: Vec<_> = list.into_iter().filter(|item| !all.contains(item)).collect();
                    all.extend(more);
                }
                Json::Array(all)
            }
            (FieldKind::Register, Json::Object(mut fields)) => {
                for other in others().filter_map(|value| value.as_object().cloned()) {
                    other.into_iter().for_each(|(key, value)| _ = fields.entry(key).or_insert(value));
                }
                Json::Object(fields)
            }
            (_, plain) => plain,
        })
    }

    /// Names in the order in which their values win, as among the concurrent values of one name.
    fn by_precedence<'n>(&self, name: &str, names: &[&'n str]) -> Vec<&'n str> {
        let kind = self.schema.kind(self.schema.canonical(name));
        let mut names = names.to_vec();
        names.sort_by_cached_key(|name| {
            let key = self
                .values(&ROOT, name)
                .first()
                .map(|(value, id)| (self.precedence(kind, value, id), op_order(id)));
            std::cmp::Reverse(key)
        });
        names
    }

    /// What empties a name of a field whose content has gone to another one. Containers stay, for what others write into them
    /// meanwhile.
    fn plan_emptying(&self, key: &str, ops: &mut Vec<Op>) {
        let values = self.values(&ROOT, key);
        let is_plain = |(value, _): &(Value<'_>, ObjId)| match value {
            Value::Object(kind) => self.is_whole_array(key, *kind),
            Value::Scalar(_) => !value.is_counter(),
        };
        // Emptied, what has lost would be a conflict of nothing with nothing.
        if values.iter().any(is_plain) || self.is_divided(&ROOT, key) {
            return ops.push(Op::Delete { map: ROOT, key: key.to_owned() });
        }
        for (value, id) in values {
            match value {
                Value::Object(ObjType::Text) => {
                    let splices =
                        vec![text::Splice { at: 0, delete: self.length(&id), insert: String::new() }];
                    ops.push(Op::Splice { text: id, splices });
                }
                Value::Object(ObjType::List) => {
                    ops.push(Op::SpliceList {
                        delete: self.length(&id),
                        list: id,
                        at: 0,
                        insert: Vec::new(),
                    });
                }
                Value::Object(_) => {
                    for key in self.map(&id).into_iter().map(|(key, _)| key).filter(|key| key != SET_MARK) {
                        ops.push(Op::Delete { map: id.clone(), key });
                    }
                }
                Value::Scalar(_) => {
                    let by = self.counted(&ROOT, key).map_or(0, i64::wrapping_neg);
                    return ops.push(Op::Increment { map: ROOT, key: key.to_owned(), by });
                }
            }
        }
    }
}

impl Document {
    /// The name under which a field is to be written; values under its other names are folded into that first.
    pub(super) fn one_name(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<String, EditError> {
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        let target = reader.stored_name(field).to_owned();
        let names = reader.holding_names(field);
        if names.iter().all(|name| *name == target) {
            return Ok(target);
        }
        let others: Vec<String> =
            names.iter().filter(|name| **name != target).map(ToString::to_string).collect();
        if *reader.kind(&ROOT, &target) == FieldKind::Ask && !edit.settle {
            let mut values = names.iter().filter_map(|name| reader.resolve(&ROOT, name));
            let first = values.next();
            if values.any(|value| Some(value) != first) {
                return Err(EditError::Contested(edit.schema.canonical(field).to_owned()));
            }
        }
        let Some(merged) = reader.shown(field) else { return Ok(target) };
        let content = merged.to_string();
        let set = Fields::from_iter([(target.clone(), merged)]);
        self.prepare(&ROOT, "", &set, edit.schema, at, changes)?;
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        let mut ops = Vec::new();
        reader.plan(&ROOT, &set, None, Again::Settle, &mut ops)?;
        others.iter().for_each(|name| reader.plan_emptying(name, &mut ops));
        let base = self.writers_at(edit.schema, field, at.as_deref());
        let folded = self.made_alike(&target, Container::Text(&content), base, at, |tx| {
            ops.into_iter().try_for_each(|op| carry_out(tx, op))
        })?;
        changes.extend(folded.new);
        Ok(target)
    }

    /// The losers among plain values that were written under different names of one field, without knowledge of each other.
    pub(super) fn name_conflicts(
        &self,
        schema: &CollectionSchema,
        makers: &Makers<'_>,
        conflicts: &mut Vec<FieldConflict>,
    ) {
        let reader = self.reader(schema, None);
        for (name, _) in schema.aliased() {
            let names = reader.by_precedence(name, &reader.holding_names(name));
            let Some((best, others)) = names.split_first().filter(|(_, others)| !others.is_empty()) else {
                continue;
            };
            let Some(((winner, winner_id), winner_json)) =
                reader.values(&ROOT, best).into_iter().next().zip(reader.resolve(&ROOT, best))
            else {
                continue;
            };
            let written = |name: &str, (value, id): (&Value<'_>, &ObjId)| {
                self.who_wrote(&reader, (&ROOT, name), (value, id), (makers, WRITER_DEPTH))
            };
            let known = self.known_at(&reader.writers_in(&winner, &winner_id));
            let (winner_device, winner_time) = written(best, (&winner, &winner_id)).unzip();
            for other in others {
                let Some((value, id)) = reader.values(&ROOT, other).into_iter().next() else { continue };
                // What has merged lost nothing.
                let is_lost =
                    |loser: &Json| *loser != winner_json && !reader.takes_in(best, &winner_json, loser);
                let Some(loser) = reader.resolve(&ROOT, other).filter(is_lost) else { continue };
                // Whoever wrote the winner knew all of it, also what was written inside.
                if reader.writers_in(&value, &id).iter().all(|hash| known.has(hash)) {
                    continue;
                }
                let (device, time) = written(other, (&value, &id)).unwrap_or((None, 0));
                conflicts.push(FieldConflict {
                    path: pointer([&**name]).into(),
                    op: id.to_string(),
                    winner: excerpt(&winner_json, limits::CONFLICT_WINNER_BYTES).into(),
                    loser,
                    device,
                    time,
                    winner_device: winner_device.flatten(),
                    winner_time,
                    settled: matches!(schema.kind(name), FieldKind::Rank(_)),
                });
            }
        }
    }
}

/// Automerge's own order of ops.
fn op_order(id: &ObjId) -> (u64, String) {
    let id = id.to_string();
    let (counter, actor) = id.split_once('@').unwrap_or((&id, ""));
    (counter.parse().unwrap_or_default(), actor.to_owned())
}
