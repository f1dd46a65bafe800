//! What a document shows once a step of this device is taken back, and everything that others wrote since stays.

use std::collections::{HashMap, HashSet};

use automerge::{ChangeHash, ObjId, ROOT};
use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::history::Made;
use super::list::identity;
use super::read::{Fields, Reader, element_key};
use super::{ChangeAction, Document, Edit, MADE_AGAIN, three_way};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

/// A step that this device made: from one state of a document to another.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    /// The edit that takes it back.
    pub(crate) edit: &'a Edit<'a>,
    pub(crate) from: &'a Fields,
    pub(crate) to: &'a Fields,
    /// The heads right before it and right after it.
    pub(crate) heads: [&'a [ChangeHash]; 2],
    /// There was no such document before it, or a deleted one.
    pub(crate) makes: bool,
}

impl Document {
    /// The fields that come of `now`, what the document shows, when a step is taken back.
    pub(crate) fn without(&self, step: &Step<'_>, now: &Fields) -> Fields {
        let schema = step.edit.schema;
        // What both made alike belongs to both; where each put something of its own into it, the own part does not.
        let is_shared = step.from.is_empty() && self.is_made_elsewhere(step.edit.device);
        let names = step.from.keys().chain(step.to.keys().filter(|name| !step.from.contains_key(*name)));
        let names: Vec<(&String, String)> = names
            .filter(|name| step.from.get(*name) != step.to.get(*name) && !schema.is_device_local(name))
            .map(|name| (name, self.reader(schema, None).stored_name(name).to_owned()))
            .filter(|(name, stored)| {
                let is_as_made = now.get(*name) == step.to.get(*name);
                !(is_shared && is_as_made && self.is_made_by_nobody(schema, stored))
            })
            .filter(|(name, _)| now.get(*name) == step.to.get(*name) || !self.is_taken_back_alike(step, name))
            .collect();
        let made = self.made();
        let beside = self.beside(&made, step.heads, &HashSet::new());
        let again = self.again_since(&made, step, names.iter().map(|(_, stored)| stored.as_str()));
        let mut left = now.clone();
        for (name, stored) in &names {
            let is_there = !step.makes || beside.is_written;
            let others = is_there.then(|| self.field_at(schema, name, &beside.heads)).flatten();
            let of_step = Field {
                from: step.from.get(*name),
                to: step.to.get(*name),
                now: now.get(*name),
                others: others.as_ref(),
            };
            // What stands there was put in again, since the step, or somebody else, replaced what the other wrote in: from what there
            // would be without the step it has become that.
            let again =
                again.get(stored.as_str()).map(|(heads, made)| (self.field_at(schema, name, heads), made));
            let field = match &again {
                Some((before, made)) => {
                    Field { from: before.as_ref(), to: Some(made), others: before.as_ref(), ..of_step }
                }
                None => of_step,
            };
            match self.field_without(step, &beside, stored, field) {
                Some(value) => _ = left.insert((*name).clone(), value),
                None => _ = left.remove(*name),
            }
        }
        left
    }

    /// Whether another device, which did the same as this step by the same changes, has taken them back.
    fn is_taken_back_alike(&self, step: &Step<'_>, name: &str) -> bool {
        step.from.get(name).is_some_and(|from| {
            self.is_written_alike(step.edit.schema, name, step.heads)
                && self.holds_alike(&step.edit.alike(), name, from, step.heads[1])
        })
    }

    /// Of these fields, those of which a value that was written in while the other side replaced it was put in again since a step, for no
    /// other reason than the step: the heads without the step and that, and the value that was put in.
    fn again_since<'n>(
        &self,
        made: &[Made],
        step: &Step<'_>,
        names: impl Iterator<Item = &'n str>,
    ) -> HashMap<&'n str, (Vec<ChangeHash>, Json)> {
        let mut again: Vec<_> =
            names.filter_map(|name| self.put_in_again(name).map(|again| (name, again))).collect();
        if again.is_empty() {
            return HashMap::new();
        }
        let known = self.known_at(step.heads[1]);
        again.retain(|(_, again)| !known.has(&again.hash));
        let without = again.iter().map(|(_, again)| again.hash).collect();
        let beside = self.beside(made, step.heads, &without);
        let reader = self.reader(step.edit.schema, Some(&beside.heads));
        let stands =
            |name: &str, origin: &ObjId| reader.values(&ROOT, name).iter().any(|(_, id)| id == origin);
        again.retain(|(name, again)| stands(name, &again.origin));
        again.into_iter().map(|(name, again)| (name, (beside.heads.clone(), again.made))).collect()
    }

    /// Whether another device that knew `heads` has made the document again after it was deleted: what was there then is gone.
    pub(crate) fn is_made_again_by_others(&self, device: DeviceId, heads: &[ChangeHash]) -> bool {
        let metas = self.am.get_changes_meta(heads);
        metas.iter().filter(|meta| meta.message.as_deref() == Some(MADE_AGAIN)).any(|meta| {
            let writer = self.author_of(&meta.hash).and_then(|(writer, _)| writer);
            let known = self.known_at(&[meta.hash]);
            writer.is_some_and(|writer| writer != device) && heads.iter().all(|head| known.has(head))
        })
    }

    /// Whether another device has deleted the document without knowing `heads`.
    pub(crate) fn is_deleted_by_others(&self, device: DeviceId, heads: &[ChangeHash]) -> bool {
        let made = self.made();
        let known = self.known_at(heads);
        made.iter().any(|made| {
            made.action == ChangeAction::Delete && made.device != Some(device) && !known.has(&made.hash)
        })
    }

    /// What was made without knowing of a step from one version to another, nor of the changes `without`.
    fn beside(&self, made: &[Made], heads: [&[ChangeHash]; 2], without: &HashSet<ChangeHash>) -> Beside {
        let [before, after] = heads.map(|heads| self.known_at(heads));
        let mut beside = HashSet::new();
        let mut heads = HashSet::new();
        let mut lines = HashSet::new();
        let mut is_all = true;
        let is_of_step = |change: &Made| after.has(&change.hash) && !before.has(&change.hash);
        // Who builds on what the step made alike, and does not know of what it made as this device, has made that as well.
        let is_told = made.iter().any(|change| is_of_step(change) && change.device.is_some());
        // Each stands after those that it depends on.
        for change in made {
            let is_new = is_of_step(change);
            // What is made alike everywhere is the step's unless others built on it without knowing of the step.
            let is_alike =
                change.action == ChangeAction::Genesis || is_new && is_told && change.device.is_none();
            let is_beside = (!is_new || is_alike) && !without.contains(&change.hash);
            if is_beside && change.deps.iter().all(|dep| beside.contains(dep)) {
                beside.insert(change.hash);
                for dep in &change.deps {
                    heads.remove(dep);
                    lines.remove(dep);
                }
                if !is_new {
                    heads.insert(change.hash);
                }
                if !is_alike {
                    lines.insert(change.hash);
                }
            } else if !is_new {
                is_all &= change.device.is_none();
            }
        }
        let (heads, is_whole) = (heads.into_iter().collect(), is_all && lines.len() == 1);
        let is_others = |change: &&Made| beside.contains(&change.hash) && !before.has(&change.hash);
        let is_written = made.iter().filter(is_others).any(|change| change.device.is_some());
        Beside { changes: beside, heads, is_whole, is_written }
    }

    fn field_without(&self, step: &Step<'_>, beside: &Beside, name: &str, field: Field<'_>) -> Option<Json> {
        let schema = step.edit.schema;
        let reader = self.reader(schema, None);
        let then = self.reader(schema, Some(step.heads[1]));
        let written_since = |map: &ObjId, key: &str| self.written_since(&reader, &then, map, key);
        let is_others = |hash: &ChangeHash| self.is_made_by_another(hash, step.edit.device);
        let texts = reader.texts(&ROOT, name);
        // The step put something else in the place of a text, and what shows is one that others began meanwhile.
        let begun = texts.first().filter(|_| !field.to.is_some_and(Json::is_string)).and_then(|text| {
            let hash = self.am.hash_for_opid(text).filter(|hash| beside.changes.contains(hash));
            hash.map(|_| Json::from(self.reader(schema, Some(&beside.heads)).text(text)))
        });
        let field = match &begun {
            Some(_) => Field { from: field.others, to: begun.as_ref(), ..field },
            None => field,
        };
        match reader.kind(&ROOT, name) {
            FieldKind::Counter => {
                field.counter(|| self.is_written_alike(schema, reader.shown_name(name), step.heads))
            }
            FieldKind::Set => {
                let sets = reader.maps(&ROOT, name);
                let is_added = |set: &ObjId, element: &Json| {
                    written_since(set, &element_key(element)).iter().any(is_others)
                };
                field.set(|element| sets.iter().any(|set| is_added(set, element)))
            }
            // Only who resolves it can write it.
            FieldKind::Ask if reader.is_contested_by_any_name(name) => field.now.cloned(),
            FieldKind::Text => field.text(beside.is_whole),
            FieldKind::List => field.list(beside.is_whole),
            _ if !texts.is_empty() => field.text(beside.is_whole),
            _ => field.value_unless(&mut Vec::new(), &|inside| {
                let (mut map, mut key) = (ROOT, name);
                for inner in inside {
                    let Some(object) = reader.maps(&map, key).into_iter().next() else { return false };
                    (map, key) = (object, *inner);
                }
                let is_chosen = |hash: &ChangeHash| is_others(hash) && !beside.changes.contains(hash);
                written_since(&map, key).iter().any(is_chosen)
            }),
        }
    }

    /// The changes that wrote the values which the field has now and did not have then.
    fn written_since(
        &self,
        now: &Reader<'_>,
        then: &Reader<'_>,
        map: &ObjId,
        key: &str,
    ) -> HashSet<ChangeHash> {
        let known: Vec<ObjId> = then.values(map, key).into_iter().map(|(_, id)| id).collect();
        let new = now.values(map, key).into_iter().map(|(_, id)| id).filter(|id| !known.contains(id));
        new.filter_map(|id| self.am.hash_for_opid(&id)).collect()
    }

    fn is_made_by_another(&self, hash: &ChangeHash, device: DeviceId) -> bool {
        self.author_of(hash).and_then(|(writer, _)| writer).is_some_and(|writer| writer != device)
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
            made.iter().filter(|made| made.action == ChangeAction::Genesis).map(|made| made.hash).collect();
        made.iter().any(|made| {
            made.device.is_some_and(|by| by != device) && made.deps.iter().all(|dep| genesis.contains(dep))
        })
    }
}

/// What a document holds without a step, and without what was built on it.
struct Beside {
    changes: HashSet<ChangeHash>,
    heads: Vec<ChangeHash>,
    /// It is one line of changes, and nobody has written anything on top of the step.
    is_whole: bool,
    /// Somebody has written something meanwhile.
    is_written: bool,
}

/// A field before a step, after it, and now; and what it would be without the step and all that was built on it.
#[derive(Clone, Copy)]
struct Field<'a> {
    from: Option<&'a Json>,
    to: Option<&'a Json>,
    now: Option<&'a Json>,
    others: Option<&'a Json>,
}

impl Field<'_> {
    /// A value that merges with nothing: it goes back if nobody has written it since. Objects do so field by field.
    fn value(self) -> Option<Json> {
        self.value_unless(&mut Vec::new(), &|_| false)
    }

    /// The same, but that stays which somebody who knew of it has chosen as well. `inside`: the names down to this field of an object.
    fn value_unless<'f>(
        self,
        inside: &mut Vec<&'f str>,
        is_chosen: &dyn Fn(&[&'f str]) -> bool,
    ) -> Option<Json>
    where
        Self: 'f,
    {
        let Self { from, to, now, others } = self;
        let (to, now) = match (to, now) {
            (Some(Json::Object(to)), Some(Json::Object(now)))
                if to != now || others.is_some_and(Json::is_object) =>
            {
                (to, now)
            }
            _ if now != to || is_chosen(inside) => return now.cloned(),
            _ => return others.cloned(),
        };
        let [before, others] = [from, others].map(|value| value.and_then(Json::as_object));
        let mut left = now.clone();
        let had = before.into_iter().flat_map(Fields::keys);
        for name in had.chain(to.keys().filter(|name| !before.is_some_and(|had| had.contains_key(*name)))) {
            let [from, to, now, others] = [before, Some(to), Some(now), others]
                .map(|fields| fields.and_then(|fields| fields.get(name)));
            if from == to {
                continue;
            }
            inside.push(name);
            match (Field { from, to, now, others }).value_unless(inside, is_chosen) {
                Some(value) => _ = left.insert(name.clone(), value),
                None => _ = left.remove(name),
            }
            inside.pop();
        }
        let is_gone = left.is_empty() && before.is_none();
        if is_gone { from.cloned() } else { Some(Json::Object(left)) }
    }

    /// What the step added goes, what others added stays. `is_alike`: the step counted by changes that others have made as well.
    fn counter(self, is_alike: impl Fn() -> bool) -> Option<Json> {
        let Self { from, to, now, others } = self;
        let number = |value: Option<&Json>| match value {
            None | Some(Json::Null) => Some(0),
            Some(value) => value.as_i64(),
        };
        let (Some(before), Some(after), Some(current)) = (number(from), number(to), number(now)) else {
            return self.value();
        };
        if now == to && others == to && is_alike() {
            return others.cloned();
        }
        if !now.is_some_and(Json::is_number) {
            return now.cloned();
        }
        if from.is_some_and(Json::is_number) && !to.is_some_and(Json::is_number) {
            // It added nothing: what others have counted on from is what stood there.
            return now.cloned();
        }
        let left = i128::from(current) + i128::from(before) - i128::from(after);
        let left = left.clamp((-limits::COUNTER_MAX).into(), limits::COUNTER_MAX.into()) as i64;
        if left == before {
            return from.cloned();
        }
        Some(left.into())
    }

    /// What the step put in goes, unless others have put it in as well; what it took out comes back.
    fn set(self, is_added_by_others: impl Fn(&Json) -> bool) -> Option<Json> {
        let Self { from, to, now, others } = self;
        let [Some(before), Some(after), Some(current)] = [from, to, now].map(elements) else {
            return self.value();
        };
        let beside = others.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        if now.is_none() && to.is_some() {
            return None;
        }
        let goes = |element: &&Json| {
            after.contains(element)
                && !before.contains(element)
                && !beside.contains(element)
                && !is_added_by_others(element)
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

    /// `is_whole`: nothing but the step is missing in what it would be without it.
    fn text(self, is_whole: bool) -> Option<Json> {
        let Self { from, to, now, others } = self;
        let (Some(Json::String(after)), Some(Json::String(current))) = (to, now) else { return self.value() };
        // Not where the others have taken out as well what would come back: they may take that back, too.
        let words = |text: &Json| {
            text.as_str().map(|text| text.split_whitespace().map(str::to_owned).collect::<HashSet<_>>())
        };
        let (had, has) = (from.and_then(words).unwrap_or_default(), to.and_then(words).unwrap_or_default());
        let have = others.and_then(words);
        if is_whole && have.is_some_and(|words| had.difference(&has).all(|word| words.contains(word))) {
            return others.cloned();
        }
        let before = match from {
            Some(Json::String(before)) => before,
            None | Some(Json::Null) => "",
            Some(_) => return self.value(),
        };
        let goal = match others {
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

    /// See [`text`](Self::text).
    fn list(self, is_whole: bool) -> Option<Json> {
        let Self { from, to, now, others } = self;
        let (Some(Json::Array(after)), Some(Json::Array(current))) = (to, now) else { return self.value() };
        let had = from.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let have = others.and_then(Json::as_array);
        let identities = |items: &[Json]| items.iter().map(identity).collect::<HashSet<_>>();
        if is_whole && have.is_some_and(|items| identities(items).is_superset(&identities(had))) {
            return others.cloned();
        }
        let before = match from {
            Some(Json::Array(before)) => before.as_slice(),
            None | Some(Json::Null) => &[],
            Some(_) => return self.value(),
        };
        let goal = match others {
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
