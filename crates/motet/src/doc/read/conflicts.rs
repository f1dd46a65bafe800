//! The losers among concurrent values of fields, for the conflict journal.

use std::borrow::Cow;
use std::sync::Arc;

use automerge::{ObjId, ObjType, ROOT, ReadDoc, Value};
use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::{Reader, pointed, pointer};
use crate::doc::Document;
use crate::doc::overlap::is_open_mark;
use crate::doc::writers::{Makers, WRITER_DEPTH};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

/// A concurrent value of a field that is not the one shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldConflict {
    /// Names of the nested fields, outermost first, as a JSON pointer.
    pub(crate) path: Arc<str>,
    /// The losing op, as Automerge names it on every device: `counter@actor`.
    pub(crate) op: String,
    /// Shared by all losers of the field, of which a hostile device can make very many.
    pub(crate) winner: Arc<Json>,
    pub(crate) loser: Json,
    pub(crate) device: Option<DeviceId>,
    /// Milliseconds since 1970, by the clock of the losing device.
    pub(crate) time: i64,
    /// Who wrote the winner, and when; `None` for a text, which has two versions and no winner.
    pub(crate) winner_device: Option<DeviceId>,
    pub(crate) winner_time: Option<i64>,
    /// A declared rule has decided: nobody is asked.
    pub(crate) settled: bool,
}

impl Document {
    /// The losers of all concurrent writes that no later write has settled.
    pub(crate) fn conflicts(&self, schema: &CollectionSchema) -> Vec<FieldConflict> {
        let mut conflicts = Vec::new();
        let makers = Makers::new(self);
        self.collect_conflicts(schema, (&ROOT, ""), &makers, &mut conflicts);
        self.name_conflicts(schema, &makers, &mut conflicts);
        conflicts.extend(self.open_overlaps(schema));
        // What stays on this device is what it is here, whatever others choose.
        let is_kept = |path: &str| pointed(path).next().is_some_and(|name| schema.is_device_local(&name));
        conflicts.iter_mut().for_each(|conflict| conflict.settled |= is_kept(&conflict.path));
        conflicts
    }

    fn collect_conflicts(
        &self,
        schema: &CollectionSchema,
        (map, path): (&ObjId, &str),
        makers: &Makers<'_>,
        conflicts: &mut Vec<FieldConflict>,
    ) {
        let reader = self.reader(schema, None);
        for item in self.am.map_range(map, ..) {
            let name = if *map == ROOT { reader.shown_name(&item.key) } else { &item.key };
            let path = path.to_owned() + &pointer([name]);
            // Of several values Automerge has another one in front than the one that shows.
            let values = if item.conflict { reader.values(map, &item.key) } else { Vec::new() };
            let alone = || (item.value.clone().into_value(), item.id());
            match values.first().cloned().unwrap_or_else(alone) {
                (Value::Object(ObjType::Map), id) => {
                    self.collect_conflicts(schema, (&id, &path), makers, conflicts);
                }
                (Value::Object(ObjType::List), id) => {
                    for (n, item) in self.am.list_range(id, ..).enumerate() {
                        if let automerge::ValueRef::Object(ObjType::Map) = item.value {
                            let path = format!("{path}/{n}");
                            self.collect_conflicts(schema, (&item.id(), &path), makers, conflicts);
                        }
                    }
                }
                _ => {}
            }
            if !item.conflict || is_open_mark(&item.key) {
                continue;
            }
            let kind = (*map == ROOT).then(|| schema.kind(name));
            let rows = self.losers_of(&reader, (map, &item.key), &path, (&values, kind), makers);
            let mut heads = None;
            for (loser, row) in rows {
                conflicts.push(row);
                // It does not show with what somebody else wrote in the same field of it.
                if self.am.object_type(&loser).is_ok() {
                    let heads = heads.get_or_insert_with(|| self.heads());
                    self.losers_inside(&loser, &path, heads, makers, conflicts);
                }
            }
        }
    }

    /// The losers among the values of a field, of which the first one shows, each with what the journal says of it. `kind` is what a field of
    /// the document is declared to be; nothing is declared of what is inside of one.
    pub(in crate::doc) fn losers_of(
        &self,
        reader: &Reader<'_>,
        (map, key): (&ObjId, &str),
        path: &str,
        (values, kind): (&[(Value<'_>, ObjId)], Option<&FieldKind>),
        makers: &Makers<'_>,
    ) -> Vec<(ObjId, FieldConflict)> {
        let Some(((winner, winner_id), losers)) =
            values.split_first().filter(|(_, losers)| !losers.is_empty())
        else {
            return Vec::new();
        };
        // Texts and objects show the words and the fields of all.
        let shown = reader.resolve(map, key).unwrap_or_default();
        let written = |value, id| self.who_wrote(reader, (map, key), (value, id), (makers, WRITER_DEPTH));
        // What every device makes alike on nothing has no time.
        let (winner_device, winner_time) =
            written(winner, winner_id).filter(|(device, time)| device.is_some() || *time != 0).unzip();
        let told = Arc::new(excerpt(&shown, limits::CONFLICT_WINNER_BYTES));
        let path: Arc<str> = path.into();
        let is_list = kind == Some(&FieldKind::List) && shown.is_array();
        let mut rows = Vec::new();
        for (value, id) in losers {
            let loser = reader.json(value, id);
            // Two devices that wrote the same are no conflict; neither is a list that was folded into the winner, or what shows with it.
            let is_folded = is_list && loser == Json::Array(Vec::new());
            let is_with =
                !kind.is_some_and(FieldKind::is_single) && is_shown_with(value, winner, &loser, &shown);
            if loser == shown || is_folded || is_with {
                continue;
            }
            let (device, time) = written(value, id).unwrap_or((None, 0));
            let row = FieldConflict {
                path: path.clone(),
                op: id.to_string(),
                winner: told.clone(),
                loser,
                device,
                time,
                winner_device: winner_device.flatten(),
                winner_time,
                settled: matches!(kind, Some(FieldKind::Rank(_))),
            };
            rows.push((id.clone(), row));
        }
        rows
    }
}

/// A value as it is told of where it lies elsewhere as well: its beginning as a string, if it takes more than `most` bytes.
pub(crate) fn excerpt(value: &Json, most: usize) -> Json {
    let text = match value {
        Json::String(text) => Cow::Borrowed(text),
        Json::Array(_) | Json::Object(_) => Cow::Owned(value.to_string()),
        _ => return value.clone(),
    };
    if text.len() <= most {
        return value.clone();
    }
    let end = text.floor_char_boundary(most);
    Json::String(format!("{}…", &text[..end]))
}

/// Whether all of a loser is in what shows: it was brought together with the winner, which is of its kind.
fn is_shown_with(loser: &Value<'_>, winner: &Value<'_>, lost: &Json, shown: &Json) -> bool {
    match (lost, shown) {
        // Two texts are shown one behind the other: somebody has to look at that.
        (Json::String(text), _) => *loser == Value::Object(ObjType::Text) && text.is_empty(),
        (Json::Object(lost), Json::Object(shown)) if loser == winner => {
            !lost.is_empty() && lost.iter().all(|(name, value)| shown.get(name) == Some(value))
        }
        (Json::Array(lost), Json::Array(shown))
            if loser == winner && *loser == Value::Object(ObjType::Map) =>
        {
            lost.iter().all(|element| shown.contains(element))
        }
        _ => false,
    }
}
