//! What somebody wrote inside a text, list, set, counter or object while somebody else replaced or removed the whole of it.
//!
//! Automerge keeps such writes and shows them nowhere. They are put in again beside what has replaced them, as if written there at the
//! same time: then they show, or stand in the journal, by the rules for concurrent values.

mod losers;

use std::collections::{BTreeSet, HashSet};

use automerge::transaction::Transactable;
use automerge::{Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};
use serde_json::Value as Json;

use super::Document;
use super::edit::EditError;
use super::fork::{Fork, Side};
use super::genesis::{self, Container};
use super::overlap::is_open_mark;
use super::read::{Fields, Reader, SET_MARK};
use super::reconcile::Reconciled;
use super::time::made_at;
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

/// A field of the document that something else has replaced, or nothing.
pub(crate) struct TakenOut {
    /// The name that the app knows.
    pub(crate) name: String,
    /// Something stands in its place, and goes when it comes back.
    pub(crate) leaves: bool,
    lost: Lost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    List,
    Set,
    Map,
    Counter,
}

impl Kind {
    fn container(self, value: &Json) -> Container<'_> {
        let elements = value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Kind::Text => Container::Text(value.as_str().unwrap_or_default()),
            Kind::List => Container::List(elements),
            Kind::Set => Container::Set(elements),
            Kind::Counter => Container::Counter(value.as_i64().unwrap_or_default()),
            Kind::Map => Container::Value(value),
        }
    }
}

/// A field, and what it is to hold.
#[derive(Clone, Copy)]
struct Field<'a> {
    map: &'a ObjId,
    key: &'a str,
    path: &'a str,
    kind: Kind,
}

impl Field<'_> {
    fn lost(self, value: Json, at: Vec<ChangeHash>) -> Lost {
        let Field { map, key, path, kind } = self;
        Lost { map: map.clone(), key: key.to_owned(), path: path.to_owned(), kind, value, at }
    }
}

/// A value that was put in again.
pub(super) struct Rescued {
    /// The change that did it.
    pub(super) hash: ChangeHash,
    /// The changes that wrote inside of what it was before.
    written: Vec<ChangeHash>,
    /// What it was before.
    pub(super) origin: ObjId,
    /// As it was put in, and as it is now.
    pub(super) made: Json,
    now: Json,
}

impl Rescued {
    /// By how much a counter was counted on since.
    fn counted(&self) -> i64 {
        self.now.as_i64().zip(self.made.as_i64()).map_or(0, |(now, made)| now.saturating_sub(made))
    }
}

/// How often something was put in again, one on top of the other, while devices met.
const AGAIN_DEPTH: usize = 8;

impl Document {
    /// Puts in again what was written inside of values that the other side of a fork has replaced. Every device that sees the fork makes
    /// the same changes.
    pub(super) fn rescue(&mut self, fork: &mut Fork, done: &mut Reconciled) -> Result<(), EditError> {
        let mut lost = Vec::new();
        self.find_lost(&ROOT, "", fork, &mut lost);
        for lost in lost {
            let made = self.put_again(lost)?;
            done.take_up(fork, made);
        }
        Ok(())
    }

    /// Counters and lists among `set` that stood in the document at `before`, and that something else has replaced since, or nothing. Put in
    /// again beside that they are what others write in meanwhile; made anew they would be others.
    pub(crate) fn taken_out(
        &self,
        schema: &CollectionSchema,
        set: &Fields,
        before: &[ChangeHash],
    ) -> Vec<TakenOut> {
        let (then, now) = (self.reader(schema, Some(before)), self.reader(schema, None));
        let taken_out = |(name, value): (&String, &Json)| {
            let key = then.stored_name(name);
            let values = then.values(&ROOT, key);
            let [(held, id)] = &values[..] else { return None };
            let kind = kind_of(&then, held, id).filter(|kind| [Kind::Counter, Kind::List].contains(kind))?;
            let at_present = now.values(&ROOT, key);
            let is_plain = |(value, id): &(Value<'_>, ObjId)| kind_of(&now, value, id).is_none();
            let is_gone =
                at_present.iter().all(is_plain) && now.present_names(name).iter().all(|name| *name == key);
            let field = Field { map: &ROOT, key, path: &format!("/{key}"), kind };
            let is_back = is_gone && then.json(held, id) == *value;
            is_back.then(|| {
                // It may have come back before: what brought it knows nothing of what came after.
                let made = self.am.hash_for_opid(id);
                let again = self.rescued(field, before).into_iter().find(|again| Some(again.hash) == made);
                let at = again.filter(|again| again.now == again.made).map(|again| vec![again.hash]);
                TakenOut {
                    name: name.clone(),
                    leaves: !at_present.is_empty(),
                    lost: field.lost(value.clone(), at.unwrap_or_else(|| before.to_vec())),
                }
            })
        };
        set.iter().filter_map(taken_out).collect()
    }

    /// Puts in again what was taken out.
    pub(crate) fn put_back(&mut self, taken_out: Vec<TakenOut>) -> Result<Vec<Change>, EditError> {
        let made = taken_out.into_iter().map(|taken_out| self.put_again(taken_out.lost));
        made.filter_map(Result::transpose).collect()
    }

    fn put_again(&mut self, lost: Lost) -> Result<Option<Change>, EditError> {
        let Lost { map, key, path, kind, value, at } = lost;
        let container = kind.container(&value);
        let made = self.deterministic(&path, container, &mut Some(at), |tx| {
            let is_plain = kind == Kind::Map && !value.is_object() && !value.is_array();
            if kind == Kind::Counter || is_plain {
                // Automerge takes a put of what is there already for no change.
                tx.delete(&map, key.as_str())?;
            }
            container.put(tx, &map, &key)
        })?;
        Ok(made.new)
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
                let Some(kind) = kind_of(&base, &value, &id) else {
                    lost.extend(self.left_out(fork, (map, key, &path)));
                    continue;
                };
                let (side, other) = match fork.sides.each_ref().map(|side| stands(side, key, &id)) {
                    [true, true] => {
                        if kind == Kind::Map || kind == Kind::Set && fork.is_anew {
                            self.find_lost(&id, &path, fork, lost);
                        }
                        continue;
                    }
                    [false, false] => continue,
                    [true, false] => (&fork.sides[0], &fork.sides[1]),
                    [false, true] => (&fork.sides[1], &fork.sides[0]),
                };
                let now = Reader { am: &self.am, heads: Some(&fork.ends), schema: &schema };
                let then = Reader { heads: Some(&side.known), ..now };
                let values = then.values(map, key);
                // A text that the other side put in the place of a text: what is written in both is brought together as text.
                if kind == Kind::Text
                    && *map == ROOT
                    && let [text] = &now.texts(map, key)[..]
                    && now.values(map, key).len() == 1
                    && !values.iter().any(|(_, id)| id == text)
                {
                    continue;
                }
                let Some((held, _)) = values.iter().find(|(_, other)| *other == id) else { continue };
                let written = then.json(held, &id);
                let made = |reader: &Reader<'_>, value: &Value<'_>, id: &ObjId| {
                    reader.written_by(value, id).map_or(0, |hash| made_at(&self.am, &hash))
                };
                // The same, and written no earlier: of concurrent values the later shows.
                let newest = made(&then, held, &id);
                let is_same = |(value, id): &(Value<'_>, ObjId)| {
                    now.json(value, id) == written && made(&now, value, id) >= newest
                };
                let is_there = || now.values(map, key).iter().any(is_same);
                if !fork.is_anew && base.json(&value, &id) == written || is_there() {
                    continue;
                }
                // What it held is under another name of the field now: nobody wrote that here.
                if is_empty(&written) && self.is_emptied_by_nobody((map, key, &id), &fork.base, side) {
                    continue;
                }
                let field = Field { map, key, path: &path, kind };
                if fork.is_anew {
                    let name = anew(&path);
                    lost.push(Field { path: &name, ..field }.lost(written, side.heads.clone()));
                    continue;
                }
                let again = self.rescued(field, &other.known).into_iter().filter(|again| again.origin == id);
                let (value, at) = match self.together(field, again.collect(), &side.heads) {
                    Some(together) => together,
                    None => (written, side.heads.clone()),
                };
                lost.push(field.lost(value, at));
            }
        }
        self.find_rescued_apart(map, path, fork, lost);
    }

    /// A plain value of a document that one side has restored while the other made it again without that value.
    fn left_out(&self, fork: &Fork, (map, key, path): (&ObjId, &str, &str)) -> Option<Lost> {
        if !fork.is_anew || is_open_mark(key) {
            return None;
        }
        let schema = CollectionSchema::default();
        let at = |heads: &[ChangeHash]| self.reader(&schema, Some(heads)).resolve(map, key);
        let [ours, theirs] = fork.sides.each_ref().map(|side| at(&side.known));
        let (value, side) = match (ours, theirs) {
            (Some(ours), None) => (ours, &fork.sides[0]),
            (None, Some(theirs)) => (theirs, &fork.sides[1]),
            _ => return None,
        };
        let field = Field { map, key, path: &anew(path), kind: Kind::Map };
        at(&fork.ends).is_none().then(|| field.lost(value, side.heads.clone()))
    }

    /// Devices that met in different order have each put in again what some of them wrote inside of one value: it is one again.
    fn find_rescued_apart(&self, map: &ObjId, path: &str, fork: &Fork, lost: &mut Vec<Lost>) {
        for item in self.am.map_range_at(map, .., &fork.ends).filter(|item| item.conflict) {
            let (key, path) = (item.key.as_ref(), format!("{path}/{}", item.key));
            for kind in [Kind::Counter, Kind::List, Kind::Set, Kind::Text, Kind::Map] {
                let field = Field { map, key, path: &path, kind };
                let mut found = self.rescued(field, &fork.ends);
                let Some(first) = found.first().map(|again| again.origin.clone()) else { continue };
                found.retain(|again| again.origin == first);
                if found.len() < 2 {
                    continue;
                }
                lost.extend(self.together(field, found, &[]).map(|(value, at)| field.lost(value, at)));
            }
        }
    }

    /// What was written inside of a value, as it stood before it was put in again, with what the changes `also` wrote inside of it; and the
    /// changes that all of it takes the place of. `None` if there is nothing to be brought together, or somebody has written inside
    /// of what was put in again.
    fn together(
        &self,
        field: Field<'_>,
        again: Vec<Rescued>,
        also: &[ChangeHash],
    ) -> Option<(Json, Vec<ChangeHash>)> {
        let origin = again.first()?.origin.clone();
        let counted: i64 = match field.kind {
            Kind::Counter => again.iter().map(Rescued::counted).sum(),
            // Somebody has written inside of it since.
            _ if again.iter().any(|again| again.now != again.made) => return None,
            _ => 0,
        };
        let all = |of: &dyn Fn(&Rescued) -> Vec<ChangeHash>| {
            let set: BTreeSet<ChangeHash> = again.iter().flat_map(of).chain(also.iter().copied()).collect();
            set.into_iter().collect::<Vec<_>>()
        };
        let written = all(&|again| again.written.clone());
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: Some(&written), schema: &no_schema };
        let values = reader.values(field.map, field.key);
        let (value, id) = values.iter().find(|(_, id)| *id == origin)?;
        let value = match (field.kind, reader.json(value, id)) {
            (Kind::Counter, value) => Json::from(value.as_i64()?.saturating_add(counted)),
            (_, value) => value,
        };
        Some((value, all(&|again| vec![again.hash])))
    }

    /// Whether a field of the document holds at some heads what it held at `base`, whatever was written in it since, in its place or put in
    /// again. Who makes a deleted document again may write into what stands in its place, and means something new: not after one of
    /// `makings`.
    pub(super) fn is_as_at(
        &self,
        key: &str,
        heads: &[ChangeHash],
        base: &[ChangeHash],
        makings: &[ChangeHash],
    ) -> bool {
        let is_made_again = |heads: &[ChangeHash]| {
            let known = self.known_at(heads);
            makings.iter().any(|making| known.has(making))
        };
        let may_stand = !is_made_again(heads);
        let no_schema = CollectionSchema::default();
        let [then, now] =
            [base, heads].map(|heads| Reader { am: &self.am, heads: Some(heads), schema: &no_schema });
        let values = now.values(&ROOT, key);
        let is_here = |id: &ObjId| values.iter().any(|(_, other)| other == id);
        let path = format!("/{key}");
        then.values(&ROOT, key).iter().any(|(value, id)| {
            let is_again = |kind: Kind| {
                [&path, &anew(&path)].into_iter().any(|path| {
                    let again = self.rescued(Field { map: &ROOT, key, path, kind }, heads);
                    // Not what somebody began in its place.
                    let is_same = |again: &Rescued| {
                        let written = Reader { heads: Some(&again.written), ..then };
                        let values = written.values(&ROOT, key);
                        let origin = values.iter().find(|(_, other)| *other == again.origin);
                        origin.is_some_and(|(value, id)| written.json(value, id) == again.made)
                    };
                    again
                        .iter()
                        .any(|again| again.origin == *id && is_same(again) && !is_made_again(&again.written))
                })
            };
            may_stand && is_here(id) || kind_of(&then, value, id).is_some_and(is_again)
        })
    }

    /// What was put in again of a field, as far as it stands at some heads.
    fn rescued(&self, field: Field<'_>, heads: &[ChangeHash]) -> Vec<Rescued> {
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: Some(heads), schema: &no_schema };
        let values = reader.values(field.map, field.key);
        let of_kind = |(value, id): &(Value<'_>, ObjId)| {
            let hash =
                self.am.hash_for_opid(id).filter(|_| kind_of(&reader, value, id) == Some(field.kind))?;
            let (made, written) = self.made_again(field, hash, AGAIN_DEPTH)?;
            let before = Reader { heads: Some(&written), ..reader };
            let values = before.values(field.map, field.key);
            let is_origin =
                |(value, id): &&(Value<'_>, ObjId)| kind_of(&before, value, id) == Some(field.kind);
            let origin = values.iter().find(is_origin)?.1.clone();
            Some(Rescued { hash, written, origin, made, now: reader.json(value, id) })
        };
        values.iter().filter_map(of_kind).collect()
    }

    /// If a change put a value in again: the value, and the changes that wrote inside of what it was before that.
    fn made_again(
        &self,
        field: Field<'_>,
        hash: ChangeHash,
        depth: usize,
    ) -> Option<(Json, Vec<ChangeHash>)> {
        let meta = self.am.get_change_meta_by_hash(&hash).filter(|meta| !self.is_of_somebody(meta))?;
        let no_schema = CollectionSchema::default();
        let at = [hash];
        let reader = Reader { am: &self.am, heads: Some(&at), schema: &no_schema };
        let values = reader.values(field.map, field.key);
        let (value, id) = values.iter().find(|(_, id)| self.am.hash_for_opid(id) == Some(hash))?;
        let made = reader.json(value, id);
        let mut deps = meta.deps.clone();
        deps.sort_unstable();
        if genesis::actor(self.identity, field.path, field.kind.container(&made), &deps) != *meta.actor {
            return None;
        }
        let mut written = Vec::new();
        for dep in deps {
            match depth.checked_sub(1).and_then(|depth| self.made_again(field, dep, depth)) {
                Some((_, before)) => written.extend(before),
                None => written.push(dep),
            }
        }
        Some((made, written))
    }
}

impl Document {
    /// What a field of the document shows, if it was put in again.
    pub(super) fn put_in_again(&self, key: &str) -> Option<Rescued> {
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: None, schema: &no_schema };
        let (value, id) = reader.values(&ROOT, key).into_iter().next()?;
        let (kind, hash) = kind_of(&reader, &value, &id).zip(self.am.hash_for_opid(&id))?;
        let field = Field { map: &ROOT, key, path: &format!("/{key}"), kind };
        self.rescued(field, &self.heads()).into_iter().find(|again| again.hash == hash)
    }

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
        let known = self.known_at(base);
        let (mut seen, mut open) = (HashSet::new(), side.known.clone());
        while let Some(hash) = open.pop() {
            if known.has(&hash) || !seen.insert(hash) {
                continue;
            }
            let Some(meta) = self.am.get_change_meta_by_hash(&hash) else { continue };
            if !self.is_of_somebody(&meta) && is_empty_at(&[hash]) && !is_empty_at(&meta.deps) {
                return true;
            }
            open.extend(meta.deps);
        }
        false
    }
}

/// By what a change goes that puts in again what one side alone kept of a deleted document. Others that did so have nothing in common with it:
/// it is not one of those that [`Rescued`] brings together.
fn anew(path: &str) -> String {
    format!("anew:{path}")
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
