//! What to do so that new values show, and doing it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::Value as Json;

use super::EditError;
use crate::doc::genesis::Container;
use crate::doc::list::{self, Step};
use crate::doc::read::{Fields, Reader, element_key};
use crate::doc::text;
use crate::schema::{FieldKind, is_count};

/// One step of a planned edit.
pub(in crate::doc) enum Op {
    Put {
        map: ObjId,
        key: String,
        value: Json,
    },
    Delete {
        map: ObjId,
        key: String,
    },
    Increment {
        map: ObjId,
        key: String,
        by: i64,
    },
    Splice {
        text: ObjId,
        splices: Vec<text::Splice>,
    },
    /// Puts a new text in the place of one of which little is left.
    PutText {
        map: ObjId,
        key: String,
        content: String,
    },
    /// Replaces `delete` elements of a list from `at` on.
    SpliceList {
        list: ObjId,
        at: usize,
        delete: usize,
        insert: Vec<Json>,
    },
}

/// Which values are written although they show already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::doc) enum Again {
    /// None.
    No,
    /// The one of several concurrent values that shows: it overwrites the others.
    Settle,
    /// Plain values and elements of sets, of a document that begins anew: whoever makes it at the same time without one of them does not take
    /// it out.
    Anew,
}

impl Reader<'_> {
    /// What must be done so that `set` shows. Containers are there already. `shown` is what the reader would read, if
    /// it is known already.
    pub(in crate::doc) fn plan(
        &self,
        map: &ObjId,
        set: &Fields,
        shown: Option<&Fields>,
        again: Again,
        ops: &mut Vec<Op>,
    ) -> Result<(), EditError> {
        let settle = again == Again::Settle;
        for (key, value) in set {
            let shown = shown.and_then(|shown| shown.get(key));
            match (self.kind(map, key), value) {
                (FieldKind::Counter, Json::Number(new))
                    if let Some(new) = new.as_i64()
                        && (is_count(new) || self.is_counter(map, key)) =>
                {
                    let by = new.checked_sub(self.count(map, key)?).filter(|_| is_count(new));
                    let by = by.ok_or_else(|| EditError::OutOfCount(key.clone()))?;
                    if by != 0 {
                        ops.push(Op::Increment { map: map.clone(), key: key.clone(), by });
                    }
                }
                (FieldKind::Set, Json::Array(new)) => self.plan_set((map, key), new, shown, again, ops),
                (FieldKind::List, Json::Array(new)) if let Some(list) = self.lists(map, key).first() => {
                    let old = shown.cloned().or_else(|| self.resolve(map, key));
                    let old = old.as_ref().and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
                    self.plan_list(list, old, new, again, ops)?;
                }
                (kind, Json::String(new))
                    if !kind.is_single()
                        && let Some(text) = self.texts(map, key).first() =>
                {
                    let splices = match shown.and_then(Json::as_str) {
                        Some(old) => text::diff(old, new),
                        None => text::diff(&self.text(text), new),
                    };
                    // Only of a field of the document itself are edits of an old text carried over.
                    let is_current = self.heads.is_none();
                    if *map == ROOT && text::is_too_much(&splices, self.length(text), is_current) {
                        ops.push(Op::PutText { map: map.clone(), key: key.clone(), content: new.clone() });
                    } else if !splices.is_empty() {
                        ops.push(Op::Splice { text: text.clone(), splices });
                    }
                }
                (kind, Json::Object(fields))
                    if !kind.is_single()
                        && !self.is_set(map, key)
                        // Nothing is written inside of an empty one that would settle what is beside it.
                        && (!settle || !fields.is_empty() || !self.is_divided(map, key))
                        && let Some(inner) = self.maps(map, key).first() =>
                {
                    self.plan(inner, fields, shown.and_then(Json::as_object), again, ops)?;
                }
                _ if again == Again::Anew && self.values(map, key).len() == 1 => {
                    self.plan_put((map, key), value, ops);
                }
                _ if !settle && shown == Some(value) => {}
                _ if !settle && self.resolve(map, key).as_ref() == Some(value) => {}
                (FieldKind::Ask, _) if !settle && self.is_contested(map, key) => {
                    return Err(EditError::Contested(key.clone()));
                }
                _ => {
                    if self.values(map, key).len() > 1 {
                        // Automerge would take one of the concurrent values, if it is equal, for this one.
                        ops.push(Op::Delete { map: map.clone(), key: key.clone() });
                    }
                    ops.push(Op::Put { map: map.clone(), key: key.clone(), value: value.clone() });
                }
            }
        }
        Ok(())
    }

    fn plan_list(
        &self,
        list: &ObjId,
        old: &[Json],
        new: &[Json],
        again: Again,
        ops: &mut Vec<Op>,
    ) -> Result<(), EditError> {
        for step in list::diff(old, new) {
            match step {
                Step::Replace { at, delete, insert } => {
                    ops.push(Op::SpliceList { list: list.clone(), at, delete, insert });
                }
                Step::Edit { at, new } => match self.element(list, at) {
                    Some(item) => self.plan_object(&item, &new, again, ops)?,
                    // What is shown is no object in the document: it is written as one.
                    None => ops.push(Op::SpliceList {
                        list: list.clone(),
                        at,
                        delete: 1,
                        insert: vec![Json::Object(new)],
                    }),
                },
            }
        }
        Ok(())
    }

    /// What must be done so that an object shows these fields and no others.
    pub(in crate::doc) fn plan_object(
        &self,
        object: &ObjId,
        new: &Fields,
        again: Again,
        ops: &mut Vec<Op>,
    ) -> Result<(), EditError> {
        let old = self.map(object);
        for (key, value) in new {
            match (old.get(key), value) {
                (Some(old), new) if old == new && again == Again::No => {}
                (Some(Json::Object(_)), Json::Object(fields))
                    if !self.is_set(object, key)
                        && let Some(inner) = self.maps(object, key).first() =>
                {
                    self.plan_object(inner, fields, again, ops)?;
                }
                _ => {
                    let field = Fields::from_iter([(key.clone(), value.clone())]);
                    self.plan(object, &field, None, again, ops)?;
                }
            }
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.plan_removal(object, std::slice::from_ref(key), ops);
        }
        Ok(())
    }

    /// The object that names of fields and places in lists lead to.
    pub(super) fn object_at(&self, path: &[String]) -> Option<ObjId> {
        let (mut at, mut kind) = (ROOT, ObjType::Map);
        for name in path {
            let (value, id) = match kind {
                ObjType::List => self.am.get(&at, name.parse::<usize>().ok()?).ok()??,
                _ if at == ROOT => self.values(&at, self.stored_name(name)).into_iter().next()?,
                _ => self.values(&at, name).into_iter().next()?,
            };
            let Value::Object(found) = value else { return None };
            (at, kind) = (id, found);
        }
        (kind == ObjType::Map).then_some(at)
    }

    /// The object at a place of a list.
    fn element(&self, list: &ObjId, at: usize) -> Option<ObjId> {
        let found = match self.heads {
            Some(heads) => self.am.get_at(list, at, heads),
            None => self.am.get(list, at),
        };
        let (value, id) = found.ok()??;
        (value == Value::Object(ObjType::Map)).then_some(id)
    }

    /// The same edit with fields that do not merge inside, and are written in part, as a whole.
    pub(super) fn whole<'e>(
        &self,
        set: Cow<'e, Fields>,
        remove: Cow<'e, [Vec<String>]>,
    ) -> (Cow<'e, Fields>, Cow<'e, [Vec<String>]>) {
        let is_single = |name: &String| self.schema.kind(self.shown_name(name)).is_single();
        let in_part = set.iter().filter(|(name, value)| value.is_object() && is_single(name));
        let inside = remove.iter().filter(|path| path.len() > 1 && is_single(&path[0]));
        let names: BTreeSet<String> =
            in_part.map(|(name, _)| name).chain(inside.map(|path| &path[0])).cloned().collect();
        if names.is_empty() {
            return (set, remove);
        }
        let (mut set, mut remove) = (set.into_owned(), remove.into_owned());
        for name in &names {
            let old = self.resolve(&ROOT, name);
            let mut value = match set.get(name) {
                Some(new) => merged(old.as_ref(), new),
                None => old.unwrap_or_default(),
            };
            remove
                .iter()
                .filter(|path| path[0] == *name)
                .for_each(|path| _ = take_at(&mut value, &path[1..]));
            set.insert(name.clone(), value);
        }
        remove.retain(|path| !names.contains(&path[0]));
        (Cow::Owned(set), Cow::Owned(remove))
    }

    /// Removes the field at `path` from every object that shows there.
    pub(in crate::doc) fn plan_removal(&self, map: &ObjId, path: &[String], ops: &mut Vec<Op>) {
        match path {
            [] => {}
            [key] if self.values(map, key).is_empty() => {}
            [key] => ops.push(Op::Delete { map: map.clone(), key: key.clone() }),
            [key, rest @ ..] => {
                self.maps(map, key).iter().for_each(|inner| self.plan_removal(inner, rest, ops))
            }
        }
    }

    /// Puts a value, also where it is there already: it then survives that another device takes it out meanwhile.
    pub(super) fn plan_put(&self, (map, key): (&ObjId, &str), value: &Json, ops: &mut Vec<Op>) {
        if !self.values(map, key).is_empty() {
            // Automerge takes a put of what is there already for no change.
            ops.push(Op::Delete { map: map.clone(), key: key.to_owned() });
        }
        ops.push(Op::Put { map: map.clone(), key: key.to_owned(), value: value.clone() });
    }

    fn plan_set(
        &self,
        (map, key): (&ObjId, &str),
        new: &[Json],
        shown: Option<&Json>,
        again: Again,
        ops: &mut Vec<Op>,
    ) {
        let keys = |items: Option<&Vec<Json>>| -> BTreeSet<String> {
            items.into_iter().flatten().map(element_key).collect()
        };
        let old = match shown {
            Some(shown) => keys(shown.as_array()),
            None => keys(self.resolve(map, key).as_ref().and_then(Json::as_array)),
        };
        let new: BTreeSet<String> = new.iter().map(element_key).collect();
        let sets = self.maps(map, key);
        let Some(first) = sets.first() else { return };
        for key in new.iter().filter(|key| again == Again::Anew || !old.contains(*key)) {
            self.plan_put((first, key), &Json::Bool(true), ops);
        }
        for key in old.difference(&new) {
            for set in sets.iter().filter(|set| !self.values(set, key).is_empty()) {
                ops.push(Op::Delete { map: set.clone(), key: key.clone() });
            }
        }
    }
}

/// A value written over another: objects field by field, everything else as a whole.
pub(crate) fn merged(old: Option<&Json>, new: &Json) -> Json {
    match (old, new) {
        (Some(Json::Object(old)), Json::Object(new)) => {
            let mut all = old.clone();
            new.iter().for_each(|(key, value)| _ = all.insert(key.clone(), merged(old.get(key), value)));
            Json::Object(all)
        }
        _ => new.clone(),
    }
}

/// Takes what is at a path out of a value.
pub(crate) fn take_at(value: &mut Json, path: &[String]) -> Option<Json> {
    match path {
        [] => None,
        [key] => value.as_object_mut()?.remove(key),
        [key, inner @ ..] => take_at(value.get_mut(key)?, inner),
    }
}

pub(in crate::doc) fn carry_out(tx: &mut Transaction<'_>, op: Op) -> Result<(), AutomergeError> {
    match op {
        Op::Put { map, key, value } => put(tx, &map, &key, &value),
        Op::Delete { map, key } => tx.delete(&map, key),
        Op::Increment { map, key, by } => tx.increment(&map, key, by),
        Op::Splice { text, splices } => splice_all(tx, &text, &splices),
        Op::PutText { map, key, content } => Container::Text(&content).put(tx, &map, &key),
        Op::SpliceList { list, at, delete, insert } => {
            // In this order: behind items that were just deleted Automerge passes by all of them for each that is put in.
            fill_list(tx, &list, at, &insert)?;
            (0..delete).try_for_each(|_| tx.delete(&list, at + insert.len()))
        }
    }
}

pub(in crate::doc) fn splice_all(
    tx: &mut Transaction<'_>,
    text: &ObjId,
    splices: &[text::Splice],
) -> Result<(), AutomergeError> {
    splices.iter().try_for_each(|s| {
        // What others insert behind a single character comes behind what replaces it.
        if s.delete <= 1 || s.insert.is_empty() {
            return tx.splice_text(text, s.at, s.delete as isize, &s.insert);
        }
        // What replaces stands in the middle of what it replaces: what others insert before or behind that at the same time comes before or
        // behind it then, whoever they are.
        tx.splice_text(text, s.at + 1, s.delete as isize - 1, &s.insert)?;
        tx.splice_text(text, s.at, 1, "")
    })
}

pub(in crate::doc) fn put(
    tx: &mut Transaction<'_>,
    map: &ObjId,
    key: &str,
    value: &Json,
) -> Result<(), AutomergeError> {
    match value {
        Json::Array(items) => {
            let list = tx.put_object(map, key, ObjType::List)?;
            fill_list(tx, &list, 0, items)
        }
        Json::Object(fields) => {
            let inner = tx.put_object(map, key, ObjType::Map)?;
            fields.iter().try_for_each(|(key, value)| put(tx, &inner, key, value))
        }
        scalar => tx.put(map, key, scalar_of(scalar)),
    }
}

pub(in crate::doc) fn fill_list(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    at: usize,
    items: &[Json],
) -> Result<(), AutomergeError> {
    for (i, item) in (at..).zip(items) {
        match item {
            Json::Array(items) => {
                let inner = tx.insert_object(list, i, ObjType::List)?;
                fill_list(tx, &inner, 0, items)?;
            }
            Json::Object(fields) => {
                let inner = tx.insert_object(list, i, ObjType::Map)?;
                fields.iter().try_for_each(|(key, value)| put(tx, &inner, key, value))?;
            }
            scalar => tx.insert(list, i, scalar_of(scalar))?,
        }
    }
    Ok(())
}

fn scalar_of(value: &Json) -> ScalarValue {
    match value {
        Json::Bool(b) => ScalarValue::Boolean(*b),
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => ScalarValue::Int(n),
            (None, Some(n)) => ScalarValue::Uint(n),
            (None, None) => ScalarValue::F64(n.as_f64().unwrap_or_default()),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => ScalarValue::Null,
    }
}

/// Puts a field of the document itself.
pub(in crate::doc) fn put_field(
    tx: &mut Transaction<'_>,
    name: &str,
    value: &Json,
) -> Result<(), AutomergeError> {
    put(tx, &automerge::ROOT, name, value)
}
