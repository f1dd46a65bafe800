//! What a document shows once a step of this device is taken back, and everything that others wrote since stays.

use std::collections::{HashMap, HashSet};

use automerge::{ChangeHash, ObjId, ROOT};
use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::history::Made;
use super::list::identity;
use super::read::{Fields, Reader, element_key};
use super::{Deed, Document, three_way};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

/// A step that this device made: from one state of a document to another.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) device: DeviceId,
    pub(crate) from: &'a Fields,
    pub(crate) to: &'a Fields,
    /// The heads right before it and right after it.
    pub(crate) heads: [&'a [ChangeHash]; 2],
}

impl Document {
    /// The fields that come of `now`, what the document shows, when a step is taken back.
    pub(crate) fn without(&self, schema: &CollectionSchema, step: &Step<'_>, now: &Fields) -> Fields {
        // What both made alike belongs to both.
        let is_shared = step.from.is_empty() && self.is_made_elsewhere(step.device);
        let beside = self.beside(step.heads);
        let mut left = now.clone();
        let names = step.from.keys().chain(step.to.keys().filter(|name| !step.from.contains_key(*name)));
        for name in names {
            let field = Field { from: step.from.get(name), to: step.to.get(name), now: now.get(name) };
            if field.from == field.to || schema.keeps(name) {
                continue;
            }
            let stored = self.reader(schema, None).stored_name(name).to_owned();
            if is_shared && self.is_made_by_nobody(schema, &stored) {
                continue;
            }
            match self.field_without(schema, step, &beside, &stored, field) {
                Some(value) => _ = left.insert(name.clone(), value),
                None => _ = left.remove(name),
            }
        }
        left
    }

    /// Whether another device has deleted the document without knowing `heads`.
    pub(crate) fn is_deleted_by_others(&self, device: DeviceId, heads: &[ChangeHash]) -> bool {
        let made = self.made();
        let known = known_at(&made, heads);
        made.iter().any(|made| {
            made.deed == Deed::Delete && made.device != Some(device) && !known.contains(&made.hash)
        })
    }

    /// What was made without knowing of a step from one version to another.
    fn beside(&self, [before, after]: [&[ChangeHash]; 2]) -> Beside {
        let made = self.made();
        let (before, after) = (known_at(&made, before), known_at(&made, after));
        let mut beside = HashSet::new();
        let mut heads = HashSet::new();
        let mut lines = HashSet::new();
        let mut is_all = true;
        // Each stands after those that it depends on.
        for change in &made {
            let is_new = after.contains(&change.hash) && !before.contains(&change.hash);
            // Containers are made alike everywhere: they are the step's unless others built on them without knowing of it.
            let is_genesis = change.deed == Deed::Genesis;
            if (!is_new || is_genesis) && change.deps.iter().all(|dep| beside.contains(dep)) {
                beside.insert(change.hash);
                for dep in &change.deps {
                    heads.remove(dep);
                    lines.remove(dep);
                }
                if !is_new {
                    heads.insert(change.hash);
                }
                if !is_genesis {
                    lines.insert(change.hash);
                }
            } else if !is_new {
                is_all &= change.device.is_none();
            }
        }
        Beside { heads: heads.into_iter().collect(), is_whole: is_all && lines.len() == 1 }
    }

    fn field_without(
        &self,
        schema: &CollectionSchema,
        step: &Step<'_>,
        beside: &Beside,
        name: &str,
        field: Field<'_>,
    ) -> Option<Json> {
        let reader = self.reader(schema, None);
        let then = self.reader(schema, Some(step.heads[1]));
        let others = || self.reader(schema, Some(&beside.heads)).resolve(&ROOT, name);
        let by_others =
            |map: &ObjId, key: &str| self.is_written_by_others(step.device, &reader, &then, map, key);
        match reader.kind(&ROOT, name) {
            FieldKind::Counter => field.counter(),
            FieldKind::Set => {
                let sets = reader.maps(&ROOT, name);
                field.set(|element| sets.iter().any(|set| by_others(set, &element_key(element))))
            }
            // Only who resolves it can write it.
            FieldKind::Ask if reader.is_contested(&ROOT, name) => field.now.cloned(),
            FieldKind::Text => field.text(others(), beside.is_whole),
            FieldKind::List => field.list(others(), beside.is_whole),
            _ if !reader.texts(&ROOT, name).is_empty() => field.text(others(), beside.is_whole),
            _ if field.now == field.to && by_others(&ROOT, name) => field.now.cloned(),
            _ => field.value(),
        }
    }

    /// Whether a value that the field has now was written by another device since then.
    fn is_written_by_others(
        &self,
        device: DeviceId,
        now: &Reader<'_>,
        then: &Reader<'_>,
        map: &ObjId,
        key: &str,
    ) -> bool {
        let known: Vec<ObjId> = then.values(map, key).into_iter().map(|(_, id)| id).collect();
        let mut new = now.values(map, key).into_iter().map(|(_, id)| id).filter(|id| !known.contains(id));
        new.any(|id| self.writer_of(&id).is_some_and(|writer| writer != device))
    }

    /// Whether all devices make a field as it is alike.
    fn is_made_by_nobody(&self, schema: &CollectionSchema, name: &str) -> bool {
        let reader = self.reader(schema, None);
        reader.values(&ROOT, name).iter().any(|(_, id)| self.writer_of(id).is_none())
    }

    fn writer_of(&self, op: &ObjId) -> Option<DeviceId> {
        let hash = self.am.hash_for_opid(op)?;
        self.author_of(&hash)?.0
    }

    /// Whether another device has made the document as well, knowing of no other.
    fn is_made_elsewhere(&self, device: DeviceId) -> bool {
        let made = self.made();
        let genesis: HashSet<_> =
            made.iter().filter(|made| made.deed == Deed::Genesis).map(|made| made.hash).collect();
        made.iter().any(|made| {
            made.device.is_some_and(|by| by != device) && made.deps.iter().all(|dep| genesis.contains(dep))
        })
    }
}

/// What a document holds without a step, and without what was built on it.
struct Beside {
    heads: Vec<ChangeHash>,
    /// It is one line of changes, and nobody has written anything on top of the step.
    is_whole: bool,
}

/// The changes that are known at some heads.
fn known_at(made: &[Made], heads: &[ChangeHash]) -> HashSet<ChangeHash> {
    let deps: HashMap<_, _> = made.iter().map(|made| (made.hash, &made.deps)).collect();
    let mut known = HashSet::new();
    let mut open = heads.to_vec();
    while let Some(hash) = open.pop() {
        if known.insert(hash) {
            open.extend(deps.get(&hash).into_iter().flat_map(|deps| deps.iter().copied()));
        }
    }
    known
}

/// A field before a step, after it, and now.
#[derive(Clone, Copy)]
struct Field<'a> {
    from: Option<&'a Json>,
    to: Option<&'a Json>,
    now: Option<&'a Json>,
}

impl Field<'_> {
    /// A value that merges with nothing: it goes back if nobody has written it since. Objects do so field by field.
    fn value(self) -> Option<Json> {
        let Self { from, to, now } = self;
        if now == to {
            return from.cloned();
        }
        let (Some(Json::Object(to)), Some(Json::Object(now))) = (to, now) else { return now.cloned() };
        let none = Fields::new();
        let before = match from {
            Some(Json::Object(from)) => from,
            None => &none,
            Some(_) => return Some(Json::Object(now.clone())),
        };
        let mut left = now.clone();
        for name in before.keys().chain(to.keys().filter(|name| !before.contains_key(*name))) {
            let inner = Field { from: before.get(name), to: to.get(name), now: now.get(name) };
            if inner.from == inner.to {
                continue;
            }
            match inner.value() {
                Some(value) => _ = left.insert(name.clone(), value),
                None => _ = left.remove(name),
            }
        }
        (from.is_some() || !left.is_empty()).then_some(Json::Object(left))
    }

    /// What the step added goes, what others added stays.
    fn counter(self) -> Option<Json> {
        let Self { from, to, now } = self;
        let number = |value: Option<&Json>| match value {
            None | Some(Json::Null) => Some(0),
            Some(value) => value.as_i64(),
        };
        let (Some(before), Some(after), Some(current)) = (number(from), number(to), number(now)) else {
            return self.value();
        };
        if now == to {
            return from.cloned();
        }
        if from.is_some_and(Json::is_number) && !to.is_some_and(Json::is_number) {
            // It added nothing: what others have counted on from is what stood there.
            return now.cloned();
        }
        now?;
        let left = i128::from(current) + i128::from(before) - i128::from(after);
        let left = left.clamp((-limits::COUNTER_MAX).into(), limits::COUNTER_MAX.into()) as i64;
        (from.is_some() || left != 0).then(|| left.into())
    }

    /// What the step put in goes, unless others have put it in as well; what it took out comes back.
    fn set(self, is_added_by_others: impl Fn(&Json) -> bool) -> Option<Json> {
        let Self { from, to, now } = self;
        let [Some(before), Some(after), Some(current)] = [from, to, now].map(elements) else {
            return self.value();
        };
        if now.is_none() && to.is_some() {
            return None;
        }
        let goes = |element: &&Json| {
            after.contains(element) && !before.contains(element) && !is_added_by_others(element)
        };
        let comes_back = |element: &&Json| !after.contains(element) && !current.contains(element);
        let stays = current.iter().filter(|element| !goes(element));
        let left: Vec<Json> = stays.chain(before.iter().filter(comes_back)).cloned().collect();
        match from {
            Some(Json::Null) if left.is_empty() => Some(Json::Null),
            None if left.is_empty() => None,
            _ => Some(Json::Array(left)),
        }
    }

    /// `others`: what it is without the step and all that was built on it. `is_whole`: nothing but the step is missing in that.
    fn text(self, others: Option<Json>, is_whole: bool) -> Option<Json> {
        let Self { from, to, now } = self;
        let (Some(Json::String(after)), Some(Json::String(current))) = (to, now) else { return self.value() };
        // Not where the others have taken out as well what would come back: they may take that back, too.
        let words = |text: &Json| {
            text.as_str().map(|text| text.split_whitespace().map(str::to_owned).collect::<HashSet<_>>())
        };
        let (had, has) = (from.and_then(words).unwrap_or_default(), to.and_then(words).unwrap_or_default());
        let have = others.as_ref().and_then(words);
        if is_whole && have.is_some_and(|words| had.difference(&has).all(|word| words.contains(word))) {
            return others;
        }
        let before = match from {
            Some(Json::String(before)) => before,
            None | Some(Json::Null) => "",
            Some(_) => return self.value(),
        };
        let goal = match &others {
            Some(Json::String(others)) => three_way::text_without_own(before, after, others),
            _ => before.to_owned(),
        };
        let left = if current == after { goal } else { three_way::texts(after, &goal, current) };
        match from {
            Some(Json::String(_)) => Some(left.into()),
            emptied if left.is_empty() => emptied.cloned(),
            _ => Some(left.into()),
        }
    }

    fn list(self, others: Option<Json>, is_whole: bool) -> Option<Json> {
        let Self { from, to, now } = self;
        let (Some(Json::Array(after)), Some(Json::Array(current))) = (to, now) else { return self.value() };
        let had = from.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let have = others.as_ref().and_then(Json::as_array);
        let identities = |items: &[Json]| items.iter().map(identity).collect::<HashSet<_>>();
        if is_whole && have.is_some_and(|items| identities(items).is_superset(&identities(had))) {
            return others;
        }
        let before = match from {
            Some(Json::Array(before)) => before.as_slice(),
            None | Some(Json::Null) => &[],
            Some(_) => return self.value(),
        };
        let goal = match &others {
            Some(Json::Array(others)) => three_way::list_without_own(before, after, others),
            _ => before.to_vec(),
        };
        let left = if current == after { goal } else { three_way::lists(after, &goal, current) };
        match from {
            Some(Json::Array(_)) => Some(left.into()),
            emptied if left.is_empty() => emptied.cloned(),
            _ => Some(left.into()),
        }
    }
}

/// The elements of a set; `None` if it is none.
fn elements(value: Option<&Json>) -> Option<&[Json]> {
    match value {
        None | Some(Json::Null) => Some(&[]),
        Some(Json::Array(elements)) => Some(elements),
        Some(_) => None,
    }
}
