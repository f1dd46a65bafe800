//! Who wrote what stands in a document.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use automerge::{ChangeHash, ObjId, ObjType, ReadDoc, Value};
use motet_proto::DeviceId;

use super::Document;
use super::read::Reader;

/// Who has made what fields begin with: who goes on first from a change that every device makes alike. Of all changes at once, as a document
/// may have as many such values as others have sent.
pub(super) struct Makers<'a> {
    document: &'a Document,
    first: OnceCell<HashMap<ChangeHash, (Option<DeviceId>, i64)>>,
}

impl<'a> Makers<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self { document, first: OnceCell::new() }
    }

    fn of(&self, beginning: &ChangeHash) -> Option<(Option<DeviceId>, i64)> {
        self.first.get_or_init(|| self.document.first_followers()).get(beginning).copied()
    }
}

impl Document {
    /// Who wrote a value, and when, in milliseconds since 1970. What a change that every device makes alike has put in again, or made into
    /// another kind, was written by who had written it before.
    pub(super) fn who_wrote(
        &self,
        reader: &Reader<'_>,
        (map, key): (&ObjId, &str),
        (value, id): (&Value<'_>, &ObjId),
        (makers, depth): (&Makers<'_>, usize),
    ) -> Option<(Option<DeviceId>, i64)> {
        let hash = reader.written_by(value, id)?;
        let nobody = self.author_of(&hash)?;
        let before = self.am.get_change_meta_by_hash(&hash)?.deps;
        if nobody.0.is_some() || depth == 0 {
            return Some(nobody);
        }
        let typed = match (value, reader.heads) {
            (Value::Object(ObjType::Text), None) => self.typed_last(self.am.list_range(id, ..)),
            (Value::Object(ObjType::Text), Some(heads)) => {
                self.typed_last(self.am.list_range_at(id, .., heads))
            }
            _ => None,
        };
        if typed.is_some() {
            return typed;
        }
        if before.is_empty() {
            // What a field begins with is made alike everywhere; who has made it goes on from there.
            return makers.of(&hash).or(Some(nobody));
        }
        let earlier = Reader { heads: Some(&before), ..*reader };
        let json = reader.json(value, id);
        let same = earlier.values(map, key).into_iter().find(|(value, id)| earlier.json(value, id) == json);
        let Some((value, id)) = same else { return Some(nobody) };
        let writer = self.who_wrote(&earlier, (map, key), (&value, &id), (makers, depth - 1));
        // What was written inside of a text or a counter bears no name: whoever wrote last before has seen it.
        let last = || before.iter().filter_map(|hash| self.author_of(hash)).max_by_key(by_time);
        writer.filter(|(device, _)| device.is_some()).or_else(last)
    }

    /// Who typed the latest of the characters that somebody typed, and when.
    fn typed_last(&self, characters: automerge::iter::ListRange<'_>) -> Option<(Option<DeviceId>, i64)> {
        let hashes: HashSet<ChangeHash> =
            characters.filter_map(|character| self.am.hash_for_opid(&character.id())).collect();
        let authors = hashes.iter().filter_map(|hash| self.author_of(hash));
        authors.filter(|(device, _)| device.is_some()).max_by_key(by_time)
    }

    /// Of each change the first of somebody that was made right upon it.
    fn first_followers(&self) -> HashMap<ChangeHash, (Option<DeviceId>, i64)> {
        let mut first = HashMap::new();
        for meta in self.am.get_changes_meta(&[]) {
            let Some(author) = self.author_of(&meta.hash).filter(|(device, _)| device.is_some()) else {
                continue;
            };
            for dep in meta.deps {
                let earliest = first.entry(dep).or_insert(author);
                *earliest = [*earliest, author].into_iter().min_by_key(by_time).unwrap_or(author);
            }
        }
        first
    }
}

/// The same order on every device, also of what was written in one second.
fn by_time((device, time): &(Option<DeviceId>, i64)) -> (i64, Option<DeviceId>) {
    (*time, *device)
}

/// Changes that every device makes alike, one upon the other, behind which the writer of a value is looked for.
pub(super) const WRITER_DEPTH: usize = 8;
