//! What became of the losers inside of values that were put in again, for the conflict journal.

use std::collections::HashSet;

use automerge::{Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc};

use super::{Field, Kind, anew, kind_of};
use crate::doc::Document;
use crate::doc::overlap::is_open_mark;
use crate::doc::read::{FieldConflict, Reader, SET_MARK, pointer};
use crate::doc::reconcile::op_of_item;
use crate::doc::writers::Makers;
use crate::schema::CollectionSchema;

impl Document {
    /// What somebody wrote inside of a value that was put in again, where somebody else wrote the same field of it: there is one value of each
    /// field then, and the others are for the journal, with no more to be asked. Of the values that one of `changes` put in again.
    pub(in crate::doc) fn losers_of_rescued<'a>(
        &self,
        schema: &CollectionSchema,
        changes: impl Iterator<Item = &'a Change>,
        noticed: &mut Vec<FieldConflict>,
    ) {
        let is_by_nobody = |hash: &ChangeHash| {
            self.am.get_change_meta_by_hash(hash).is_some_and(|meta| !self.is_of_somebody(&meta))
        };
        // What begins a field depends on nothing, and there is one in most documents.
        let changes = changes.filter(|change| !change.deps().is_empty()).map(Change::hash);
        let made: HashSet<ChangeHash> = changes.filter(is_by_nobody).collect();
        if !made.is_empty() {
            let (reader, heads, makers) = (self.reader(schema, None), self.heads(), Makers::new(self));
            for item in self.am.map_range(ROOT, ..) {
                let shown_as = pointer([reader.shown_name(&item.key)]);
                let path = format!("/{}", item.key);
                let field = (&ROOT, item.key.as_ref(), path.as_str());
                self.losers_of_made(field, &shown_as, (&made, &heads, &makers), noticed);
            }
        }
    }

    fn losers_of_made(
        &self,
        (map, key, path): (&ObjId, &str, &str),
        shown_as: &str,
        (made, heads, makers): (&HashSet<ChangeHash>, &[ChangeHash], &Makers<'_>),
        noticed: &mut Vec<FieldConflict>,
    ) {
        for kind in [Kind::Map, Kind::List] {
            for path in [path, &anew(path)] {
                for again in self.rescued(Field { map, key, path, kind }, heads) {
                    if made.contains(&again.hash) {
                        self.losers_inside(&again.origin, shown_as, &again.written, makers, noticed);
                    }
                }
            }
        }
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: None, schema: &no_schema };
        for (value, id) in reader.values(map, key) {
            if kind_of(&reader, &value, &id) == Some(Kind::Map) {
                for item in self.am.map_range(&id, ..) {
                    let path = format!("{path}/{}", item.key);
                    let shown_as = shown_as.to_owned() + &pointer([item.key.as_ref()]);
                    let field = (&id, item.key.as_ref(), path.as_str());
                    self.losers_of_made(field, &shown_as, (made, heads, makers), noticed);
                }
            }
        }
    }

    /// The losers of what is inside of an object or a list, as of some heads.
    pub(in crate::doc) fn losers_inside(
        &self,
        object: &ObjId,
        path: &str,
        heads: &[ChangeHash],
        makers: &Makers<'_>,
        noticed: &mut Vec<FieldConflict>,
    ) {
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: Some(heads), schema: &no_schema };
        match self.am.object_type(object) {
            Ok(ObjType::Map | ObjType::Table) if reader.values(object, SET_MARK).is_empty() => {
                for item in self.am.map_range_at(object, .., heads).filter(|item| !is_open_mark(&item.key)) {
                    let path = path.to_owned() + &pointer([item.key.as_ref()]);
                    let values = reader.values(object, &item.key);
                    let rows = self.losers_of(&reader, (object, &item.key), &path, (&values, None), makers);
                    noticed.extend(rows.into_iter().map(|(_, row)| FieldConflict {
                        op: op_of_item(&path, &row.winner, &row.loser),
                        settled: true,
                        ..row
                    }));
                    if let Some((_, id)) = values.first() {
                        self.losers_inside(id, &path, heads, makers, noticed);
                    }
                }
            }
            Ok(ObjType::List) => {
                for (n, item) in self.am.list_range_at(object, .., heads).enumerate() {
                    self.losers_inside(&item.id(), &format!("{path}/{n}"), heads, makers, noticed);
                }
            }
            _ => {}
        }
    }
}
