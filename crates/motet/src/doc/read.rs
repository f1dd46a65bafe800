//! From ops to JSON. One resolver serves every read, so that list, get, diff and journal always agree on who wins.

mod conflicts;

use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::{Number, Value as Json};

pub(crate) use self::conflicts::{FieldConflict, excerpt};
use super::overlap::is_open_mark;
use super::time::made_at;
use super::{Document, text};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};
pub(crate) use crate::types::Fields;

impl Document {
    /// All fields as they are now.
    pub(crate) fn fields(&self, schema: &CollectionSchema) -> Fields {
        self.reader(schema, None).fields()
    }

    /// All fields as they were at `heads`; `None` if the document does not hold them.
    pub(crate) fn fields_at(&self, schema: &CollectionSchema, heads: &[ChangeHash]) -> Option<Fields> {
        heads.iter().all(|head| self.has_change(head)).then(|| self.reader(schema, Some(heads)).fields())
    }

    /// One top-level field as it is now.
    pub(crate) fn field(&self, schema: &CollectionSchema, name: &str) -> Option<Json> {
        self.reader(schema, None).shown(name)
    }

    /// [`field`](Self::field), at an earlier version. The document has all of `heads`.
    pub(crate) fn field_at(
        &self,
        schema: &CollectionSchema,
        name: &str,
        heads: &[ChangeHash],
    ) -> Option<Json> {
        self.reader(schema, Some(heads)).shown(name)
    }

    pub(super) fn reader<'a>(
        &'a self,
        schema: &'a CollectionSchema,
        heads: Option<&'a [ChangeHash]>,
    ) -> Reader<'a> {
        Reader { am: &self.am, heads, schema }
    }
}

/// Reads values, now or at some heads.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) am: &'a Automerge,
    pub(super) heads: Option<&'a [ChangeHash]>,
    pub(super) schema: &'a CollectionSchema,
}

/// Key under which a map says that it is a set. No field has an empty name.
pub(super) const SET_MARK: &str = "";

/// The names of a field and of what is inside of it as a JSON pointer.
pub(crate) fn pointer<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let escaped = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    names.into_iter().map(escaped).collect()
}

/// The names in a JSON pointer, as [`pointer`] makes them.
pub(crate) fn pointed(path: &str) -> impl Iterator<Item = String> {
    path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"))
}

/// The key of a set's element, the same on every device.
pub(super) fn element_key(element: &Json) -> String {
    element.to_string()
}

impl Reader<'_> {
    /// The values of one field that no later write has replaced, the winner first: what a declared rank says; what merges
    /// before what does not, so that nobody's words are lost to a plain value; the later change; Automerge's own order.
    pub(super) fn values(&self, map: &ObjId, key: &str) -> Vec<(Value<'_>, ObjId)> {
        let mut values = match self.heads {
            Some(heads) => self.am.get_all_at(map, key, heads),
            None => self.am.get_all(map, key),
        }
        .unwrap_or_default();
        values.reverse();
        if values.len() > 1 {
            let register = FieldKind::Register;
            let kind = if *map == ROOT { self.schema.kind(self.shown_name(key)) } else { &register };
            // Stable: what Automerge prefers stays first among equals.
            values.sort_by_cached_key(|(value, id)| std::cmp::Reverse(self.precedence(kind, value, id)));
        }
        values
    }

    /// The larger one wins.
    pub(super) fn precedence(
        &self,
        kind: &FieldKind,
        value: &Value<'_>,
        id: &ObjId,
    ) -> (Option<usize>, bool, i64) {
        let rank = match kind {
            FieldKind::Rank(order) => value.as_str().and_then(|value| order.iter().position(|v| v == value)),
            _ => None,
        };
        let made = self.written_by(value, id).map_or(0, |hash| made_at(self.am, &hash));
        (rank, self.is_container(kind, value, id), made)
    }

    /// The latest change that wrote a value. An object or list may have been made by a change that every device makes alike, which
    /// is of no time and of nobody: who wrote what it holds has written it.
    pub(super) fn written_by(&self, value: &Value<'_>, id: &ObjId) -> Option<ChangeHash> {
        let own = self.am.hash_for_opid(id);
        let inner: Vec<ChangeHash> = match value {
            Value::Object(ObjType::Map) => {
                let items = self.inside(value, id);
                items.iter().filter_map(|(value, id)| self.written_by(value, id)).collect()
            }
            Value::Object(ObjType::List) => {
                let items = self.inside(value, id);
                items.iter().filter_map(|(_, id)| self.am.hash_for_opid(id)).collect()
            }
            _ => Vec::new(),
        };
        own.into_iter().chain(inner).max_by_key(|hash| made_at(self.am, hash))
    }

    /// The changes that wrote a value, and all that shows inside of it.
    pub(super) fn writers_in(&self, value: &Value<'_>, id: &ObjId) -> Vec<ChangeHash> {
        let inner = match value {
            Value::Object(ObjType::Map | ObjType::List) => self.inside(value, id),
            _ => Vec::new(),
        };
        let writers = inner.iter().flat_map(|(value, id)| self.writers_in(value, id));
        self.am.hash_for_opid(id).into_iter().chain(writers).collect()
    }

    /// What shows inside of an object or list, one level deep.
    pub(super) fn inside(&self, value: &Value<'_>, id: &ObjId) -> Vec<(Value<'_>, ObjId)> {
        if *value == Value::Object(ObjType::List) {
            let items = match self.heads {
                Some(heads) => self.am.list_range_at(id, .., heads),
                None => self.am.list_range(id, ..),
            };
            return items.map(|item| (item.value.clone().into_value(), item.id())).collect();
        }
        let items = match self.heads {
            Some(heads) => self.am.map_range_at(id, .., heads),
            None => self.am.map_range(id, ..),
        };
        items.map(|item| (item.value.clone().into_value(), item.id())).collect()
    }

    /// Whether a value is one that merges with what others do inside of it.
    fn is_container(&self, kind: &FieldKind, value: &Value<'_>, id: &ObjId) -> bool {
        match value {
            Value::Object(ObjType::Text) => true,
            Value::Object(ObjType::List) => *kind == FieldKind::List,
            Value::Object(ObjType::Map) => !self.values(id, SET_MARK).is_empty(),
            other => other.is_counter(),
        }
    }

    /// What a counter has been added up to; `None` if the field is no counter. Beyond what it shows if concurrent writes have left
    /// the bounds.
    pub(super) fn counted(&self, map: &ObjId, key: &str) -> Option<i64> {
        match self.values(map, key).first()? {
            (Value::Scalar(scalar), _) => match scalar.as_ref() {
                ScalarValue::Counter(counter) => Some(i64::from(counter)),
                _ => None,
            },
            _ => None,
        }
    }

    /// All fields under the names that the app knows.
    pub(super) fn fields(&self) -> Fields {
        let mut fields = self.map(&ROOT);
        fields.retain(|name, _| !is_open_mark(name));
        for (name, aliases) in self.schema.aliased() {
            let mut found: Vec<Json> =
                [name].into_iter().chain(aliases).filter_map(|n| fields.remove(n)).collect();
            let shown = if found.len() > 1 { self.shown(name) } else { found.pop() };
            if let Some(value) = shown {
                fields.insert(name.clone(), value);
            }
        }
        fields
    }

    /// How a field merges: as declared, or as what it already is.
    pub(super) fn kind(&self, map: &ObjId, key: &str) -> &FieldKind {
        let declared =
            if *map == ROOT { self.schema.kind(self.shown_name(key)) } else { &FieldKind::Register };
        match declared {
            FieldKind::Register if self.is_counter(map, key) => &FieldKind::Counter,
            FieldKind::Register if self.is_set(map, key) => &FieldKind::Set,
            declared => declared,
        }
    }

    pub(super) fn is_counter(&self, map: &ObjId, key: &str) -> bool {
        self.values(map, key).first().is_some_and(|(value, _)| value.is_counter())
    }

    pub(super) fn is_set(&self, map: &ObjId, key: &str) -> bool {
        self.maps(map, key).first().is_some_and(|set| !self.values(set, SET_MARK).is_empty())
    }

    /// Whether concurrent writes gave the field different values.
    pub(super) fn is_contested(&self, map: &ObjId, key: &str) -> bool {
        let values = self.values(map, key);
        let mut shown = values.iter().map(|(value, id)| self.json(value, id));
        let first = shown.next();
        shown.any(|other| Some(other) != first)
    }

    /// Whether a field has concurrent values that do not show in what it shows.
    pub(super) fn is_divided(&self, map: &ObjId, key: &str) -> bool {
        let values = self.values(map, key);
        let Some(((winner, id), losers)) = values.split_first() else { return false };
        // The words of all texts show; a write takes them into one.
        let merges = *winner == Value::Object(ObjType::Text);
        let shown = || self.json(winner, id);
        losers
            .iter()
            .filter(|(value, _)| !merges || value != winner)
            .any(|(value, id)| self.json(value, id) != shown())
    }

    /// The list objects of a field if the one that wins is a list, winner first.
    pub(super) fn lists(&self, map: &ObjId, key: &str) -> Vec<ObjId> {
        self.objects(map, key, ObjType::List)
    }

    /// The text objects of a field if the one that wins is a text, winner first.
    pub(super) fn texts(&self, map: &ObjId, key: &str) -> Vec<ObjId> {
        self.objects(map, key, ObjType::Text)
    }

    /// The map objects of a field if the one that wins is a map, winner first.
    pub(super) fn maps(&self, map: &ObjId, key: &str) -> Vec<ObjId> {
        self.objects(map, key, ObjType::Map)
    }

    pub(super) fn text(&self, text: &ObjId) -> String {
        match self.heads {
            Some(heads) => self.am.text_at(text, heads),
            None => self.am.text(text),
        }
        .unwrap_or_default()
    }

    /// Length of a text in code points.
    pub(super) fn length(&self, text: &ObjId) -> usize {
        match self.heads {
            Some(heads) => self.am.length_at(text, heads),
            None => self.am.length(text),
        }
    }

    /// What a field shows: the winner; of several texts all words; of several maps all fields.
    pub(super) fn resolve(&self, map: &ObjId, key: &str) -> Option<Json> {
        self.resolve_within(map, key, READ_DEPTH)
    }

    fn resolve_within(&self, map: &ObjId, key: &str, levels: usize) -> Option<Json> {
        let values = self.values(map, key);
        let (winner, id) = values.first()?;
        let is_single = *map == ROOT && self.schema.kind(self.shown_name(key)).is_single();
        Some(match winner {
            _ if is_single => self.json_within(winner, id, levels),
            Value::Object(ObjType::Text) => Json::String(self.union(&self.texts(map, key))),
            Value::Object(ObjType::Map) => {
                let mut fields = self.map_within(id, levels);
                for other in &self.maps(map, key)[1..] {
                    self.map_within(other, levels)
                        .into_iter()
                        .for_each(|(k, v)| _ = fields.entry(k).or_insert(v));
                }
                object(fields)
            }
            _ => self.json_within(winner, id, levels),
        })
    }

    pub(super) fn map(&self, map: &ObjId) -> Fields {
        self.map_within(map, READ_DEPTH)
    }

    /// At the end of the levels there is nothing: no document is so deep, but an older version that came together with a later one may be.
    fn map_within(&self, map: &ObjId, levels: usize) -> Fields {
        let Some(levels) = levels.checked_sub(1) else { return Fields::new() };
        let items = match self.heads {
            Some(heads) => self.am.map_range_at(map, .., heads),
            None => self.am.map_range(map, ..),
        };
        items
            .filter_map(|item| {
                let value = if item.conflict {
                    self.resolve_within(map, &item.key, levels)?
                } else {
                    self.json_within(&item.value.clone().into_value(), &item.id(), levels)
                };
                Some((item.key.into_owned(), value))
            })
            .collect()
    }

    /// The words of all texts, the winner's order first.
    pub(super) fn union(&self, texts: &[ObjId]) -> String {
        texts.iter().map(|id| self.text(id)).reduce(|all, next| text::union(&all, &next)).unwrap_or_default()
    }

    pub(super) fn json(&self, value: &Value<'_>, id: &ObjId) -> Json {
        self.json_within(value, id, READ_DEPTH)
    }

    fn json_within(&self, value: &Value<'_>, id: &ObjId, levels: usize) -> Json {
        match value {
            Value::Object(ObjType::Map | ObjType::Table) => object(self.map_within(id, levels)),
            Value::Object(ObjType::Text) => Json::String(self.text(id)),
            Value::Object(ObjType::List) => {
                let Some(levels) = levels.checked_sub(1) else { return Json::Array(Vec::new()) };
                let items = match self.heads {
                    Some(heads) => self.am.list_range_at(id, .., heads),
                    None => self.am.list_range(id, ..),
                };
                items
                    .map(|item| self.json_within(&item.value.clone().into_value(), &item.id(), levels))
                    .collect()
            }
            Value::Scalar(scalar) => scalar_json(scalar),
        }
    }

    fn objects(&self, map: &ObjId, key: &str, kind: ObjType) -> Vec<ObjId> {
        let values = self.values(map, key);
        let Some((winner, first)) = values.first().filter(|(winner, _)| *winner == Value::Object(kind))
        else {
            return Vec::new();
        };
        // A set and an object have nothing in common.
        let is_set = |id: &ObjId| kind == ObjType::Map && !self.values(id, SET_MARK).is_empty();
        let is_alike = |(value, id): &&(Value<'_>, ObjId)| value == winner && is_set(id) == is_set(first);
        values.iter().filter(is_alike).map(|(_, id)| id.clone()).collect()
    }
}

/// Levels that are read of a value: those of a document, with its fields, and what a field may be put into.
const READ_DEPTH: usize = 2 * limits::VALUE_DEPTH;

/// A map as what it is: an object, or the elements of a set.
fn object(fields: Fields) -> Json {
    if !fields.contains_key(SET_MARK) {
        return Json::Object(fields);
    }
    let keys = fields.into_iter().filter(|(key, _)| key != SET_MARK).map(|(key, _)| key);
    keys.map(|key| serde_json::from_str(&key).unwrap_or(Json::String(key))).collect()
}

fn scalar_json(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Int(n) | ScalarValue::Timestamp(n) => Json::from(*n),
        ScalarValue::Uint(n) => Json::from(*n),
        ScalarValue::F64(n) => Number::from_f64(*n).map_or(Json::Null, Json::Number),
        ScalarValue::Counter(counter) => {
            Json::from(i64::from(counter).clamp(-limits::COUNTER_MAX, limits::COUNTER_MAX))
        }
        ScalarValue::Boolean(b) => Json::Bool(*b),
        ScalarValue::Bytes(bytes) => bytes.iter().copied().map(Json::from).collect(),
        ScalarValue::Unknown { .. } | ScalarValue::Null => Json::Null,
    }
}
