//! From ops to JSON. One resolver serves every read, so that list, get, diff and journal always agree on who wins.

use automerge::{Automerge, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use motet_proto::DeviceId;
use serde_json::{Map, Number, Value as Json};

use super::{Document, text};
use crate::limits;

/// The fields of a document.
pub(crate) type Fields = Map<String, Json>;

/// A concurrent value of a field that is not the one shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldConflict {
    /// Names of the nested fields, outermost first, as a JSON pointer.
    pub(crate) path: String,
    /// The losing op, as Automerge names it on every device: `counter@actor`.
    pub(crate) op: String,
    pub(crate) winner: Json,
    pub(crate) loser: Json,
    pub(crate) device: Option<DeviceId>,
    /// Seconds since 1970, by the clock of the losing device.
    pub(crate) time: i64,
}

impl Document {
    /// All fields as they are now.
    pub(crate) fn fields(&self) -> Fields {
        Reader { am: &self.am, heads: None }.map(&ROOT)
    }

    /// One top-level field as it is now.
    pub(crate) fn field(&self, key: &str) -> Option<Json> {
        Reader { am: &self.am, heads: None }.resolve(&ROOT, key)
    }

    /// Whether values are nested deeper than any device of ours writes them. Reading them would exhaust the stack.
    pub(super) fn is_too_deep(&self) -> bool {
        fn deeper(am: &Automerge, object: &ObjId, levels: usize) -> bool {
            let inner = |value: &automerge::ValueRef<'_>, id: &dyn Fn() -> ObjId| match value {
                automerge::ValueRef::Object(ObjType::Text) | automerge::ValueRef::Scalar(_) => false,
                automerge::ValueRef::Object(_) => levels == 0 || deeper(am, &id(), levels - 1),
            };
            match am.object_type(object) {
                Ok(ObjType::List) => am.list_range(object, ..).any(|item| inner(&item.value, &|| item.id())),
                _ => am.map_range(object, ..).any(|item| {
                    // A loser of a conflict is read as well.
                    let others = || am.get_all(object, item.key.as_ref()).unwrap_or_default();
                    inner(&item.value, &|| item.id())
                        || (item.conflict
                            && others().iter().any(|(value, id)| {
                                matches!(value, Value::Object(kind) if *kind != ObjType::Text)
                                    && (levels == 0 || deeper(am, id, levels - 1))
                            }))
                }),
            }
        }
        deeper(&self.am, &ROOT, limits::VALUE_DEPTH + 2)
    }

    /// The losers of all concurrent writes that no later write has settled.
    pub(crate) fn conflicts(&self) -> Vec<FieldConflict> {
        let mut conflicts = Vec::new();
        self.collect_conflicts(&ROOT, "", &mut conflicts);
        conflicts
    }

    fn collect_conflicts(&self, map: &ObjId, path: &str, conflicts: &mut Vec<FieldConflict>) {
        let reader = Reader { am: &self.am, heads: None };
        for item in self.am.map_range(map, ..) {
            let path = format!("{path}/{}", item.key.replace('~', "~0").replace('/', "~1"));
            if let automerge::ValueRef::Object(ObjType::Map) = item.value {
                self.collect_conflicts(&item.id(), &path, conflicts);
            }
            if !item.conflict {
                continue;
            }
            let values = reader.values(map, &item.key);
            let Some(((winner, winner_id), losers)) = values.split_first() else {
                continue;
            };
            let shown = reader.json(winner, winner_id);
            for (value, id) in losers {
                let loser = reader.json(value, id);
                // Two devices that wrote the same are no conflict; neither is a text that was folded into the winner.
                if loser == shown || is_emptied_text(value, &loser) {
                    continue;
                }
                let author = self.am.hash_for_opid(id).and_then(|hash| self.author_of(&hash));
                let (device, time) = author.unwrap_or((None, 0));
                conflicts.push(FieldConflict {
                    path: path.clone(),
                    op: id.to_string(),
                    winner: shown.clone(),
                    loser,
                    device,
                    time,
                });
            }
        }
    }
}

/// Reads values, now or at some heads.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) am: &'a Automerge,
    pub(super) heads: Option<&'a [ChangeHash]>,
}

impl Reader<'_> {
    /// The values of one field, the winner first. Automerge's own order decides, which respects causality.
    pub(super) fn values(&self, map: &ObjId, key: &str) -> Vec<(Value<'_>, ObjId)> {
        let mut values = match self.heads {
            Some(heads) => self.am.get_all_at(map, key, heads),
            None => self.am.get_all(map, key),
        }
        .unwrap_or_default();
        values.reverse();
        values
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
        let values = self.values(map, key);
        let (winner, id) = values.first()?;
        Some(match winner {
            Value::Object(ObjType::Text) => Json::String(self.union(&self.texts(map, key))),
            Value::Object(ObjType::Map) => {
                let mut fields = self.map(id);
                for other in &self.maps(map, key)[1..] {
                    self.map(other).into_iter().for_each(|(k, v)| _ = fields.entry(k).or_insert(v));
                }
                Json::Object(fields)
            }
            _ => self.json(winner, id),
        })
    }

    pub(super) fn map(&self, map: &ObjId) -> Fields {
        let items = match self.heads {
            Some(heads) => self.am.map_range_at(map, .., heads),
            None => self.am.map_range(map, ..),
        };
        items
            .filter_map(|item| {
                let value = if item.conflict {
                    self.resolve(map, &item.key)?
                } else {
                    self.json(&item.value.clone().into_value(), &item.id())
                };
                Some((item.key.into_owned(), value))
            })
            .collect()
    }

    /// The words of all texts, the winner's order first.
    pub(super) fn union(&self, texts: &[ObjId]) -> String {
        texts.iter().map(|id| self.text(id)).reduce(|all, next| text::union(&all, &next)).unwrap_or_default()
    }

    fn json(&self, value: &Value<'_>, id: &ObjId) -> Json {
        match value {
            Value::Object(ObjType::Map | ObjType::Table) => Json::Object(self.map(id)),
            Value::Object(ObjType::Text) => Json::String(self.text(id)),
            Value::Object(ObjType::List) => {
                let items = match self.heads {
                    Some(heads) => self.am.list_range_at(id, .., heads),
                    None => self.am.list_range(id, ..),
                };
                items.map(|item| self.json(&item.value.clone().into_value(), &item.id())).collect()
            }
            Value::Scalar(scalar) => scalar_json(scalar),
        }
    }

    fn objects(&self, map: &ObjId, key: &str, kind: ObjType) -> Vec<ObjId> {
        let values = self.values(map, key);
        if values.first().is_none_or(|(winner, _)| *winner != Value::Object(kind)) {
            return Vec::new();
        }
        values.into_iter().filter(|(value, _)| *value == Value::Object(kind)).map(|(_, id)| id).collect()
    }
}

fn scalar_json(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Int(n) | ScalarValue::Timestamp(n) => Json::from(*n),
        ScalarValue::Uint(n) => Json::from(*n),
        ScalarValue::F64(n) => Number::from_f64(*n).map_or(Json::Null, Json::Number),
        ScalarValue::Counter(counter) => Json::from(i64::from(counter)),
        ScalarValue::Boolean(b) => Json::Bool(*b),
        ScalarValue::Bytes(bytes) => bytes.iter().copied().map(Json::from).collect(),
        ScalarValue::Unknown { .. } | ScalarValue::Null => Json::Null,
    }
}

fn is_emptied_text(value: &Value<'_>, json: &Json) -> bool {
    *value == Value::Object(ObjType::Text) && json.as_str() == Some("")
}
