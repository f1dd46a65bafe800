//! Texts that were edited in the same place at the same time. They merge by character, and all words are there; but whether what
//! came out makes sense only a person can say, so both versions are kept for the journal.

use std::collections::HashSet;

use automerge::transaction::Transactable;
use automerge::{Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ValueRef};
use serde_json::{Value as Json, json};

use super::edit::EditError;
use super::genesis::Container;
use super::{Document, FieldConflict, text};
use crate::schema::CollectionSchema;

/// How a journal row of this kind is told from one about a value.
pub(crate) const TEXT_OVERLAP: &str = "text:";

/// Where two lines of changes parted, and the end of the other one.
struct Forked {
    base: Vec<ChangeHash>,
    theirs: Vec<ChangeHash>,
}

/// What arrived seen beside what was here; `None` if who made it knew all that was here.
fn forked(before: &[ChangeHash], applied: &[Change]) -> Option<Forked> {
    let arrived: HashSet<ChangeHash> = applied.iter().map(Change::hash).collect();
    let deps: HashSet<ChangeHash> = applied.iter().flat_map(|c| c.deps().iter().copied()).collect();
    let base: Vec<ChangeHash> = deps.iter().filter(|dep| !arrived.contains(*dep)).copied().collect();
    if base.is_empty() || before.iter().all(|head| base.contains(head)) {
        return None;
    }
    let heads = arrived.iter().filter(|hash| !deps.contains(*hash)).copied();
    let theirs = heads.chain(base.iter().copied()).collect();
    Some(Forked { base, theirs })
}

impl Document {
    /// The places that both what was here (`before`) and what has been applied since changed. The document holds both.
    pub(crate) fn text_overlaps(
        &self,
        schema: &CollectionSchema,
        before: &[ChangeHash],
        applied: &[Change],
    ) -> Vec<FieldConflict> {
        let Some(Forked { base, theirs }) = forked(before, applied) else { return Vec::new() };
        let mut overlaps = Vec::new();
        for item in self.am.map_range(ROOT, ..) {
            if !matches!(item.value, ValueRef::Object(ObjType::Text)) {
                continue;
            }
            let at = |heads: &[ChangeHash]| self.am.text_at(item.id(), heads).unwrap_or_default();
            let (old, ours, theirs) = (at(&base), at(before), at(&theirs));
            if ours == old || theirs == old {
                continue;
            }
            let path = format!("/{}", self.reader(schema, None).shown_name(&item.key));
            for overlap in text::overlaps(&old, &ours, &theirs) {
                overlaps.push(self.journalled(&path, overlap, applied));
            }
        }
        overlaps
    }

    /// Both sides made the same insertion in the same place: one of the two goes. It is always the second of them, so that whoever
    /// does this, in whatever order things arrive, the first one stays. Returns the changes made, which depend on nothing but what
    /// the document holds.
    pub(crate) fn fold_alike(
        &mut self,
        before: &[ChangeHash],
        applied: &[Change],
    ) -> Result<Vec<Change>, EditError> {
        let Some(Forked { base, theirs }) = forked(before, applied) else { return Ok(Vec::new()) };
        let texts: Vec<(String, ObjId)> = self
            .am
            .map_range(ROOT, ..)
            .filter(|item| !item.conflict && matches!(item.value, ValueRef::Object(ObjType::Text)))
            .map(|item| (item.key.to_string(), item.id()))
            .collect();
        let mut changes = Vec::new();
        for (key, text) in texts {
            let at = |heads: &[ChangeHash]| self.am.text_at(&text, heads).unwrap_or_default();
            let (old, ours, theirs) = (at(&base), at(before), at(&theirs));
            if ours == old || theirs == old {
                continue;
            }
            let merged = self.am.text(&text).unwrap_or_default();
            let twins = text::alike(&old, &ours, &theirs, &merged);
            if twins.is_empty() {
                continue;
            }
            let path = format!("/{key}");
            let heads = None;
            changes.push(self.deterministic(&path, Container::Text(&merged), &mut { heads }, |tx| {
                // From the end to the start, so that each place is still right when its turn comes.
                twins
                    .iter()
                    .rev()
                    .try_for_each(|twin| tx.splice_text(&text, twin.start, twin.len() as isize, ""))
            })?);
        }
        Ok(changes)
    }

    /// The row is the same on the device that made the other version: its id is that of the texts.
    fn journalled(&self, path: &str, overlap: text::Overlap, applied: &[Change]) -> FieldConflict {
        let text::Overlap { old, mut versions } = overlap;
        versions.sort();
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 text overlap v1");
        for part in [path, &old, &versions[0], &versions[1]] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let (device, time) = applied.last().and_then(|c| self.author_of(&c.hash())).unwrap_or_default();
        FieldConflict {
            path: path.to_owned(),
            op: format!("{TEXT_OVERLAP}{}", &hash.finalize().to_hex()[..32]),
            winner: Json::String(old),
            loser: json!(versions),
            device,
            time,
            winner_device: None,
            winner_time: None,
            settled: true,
        }
    }
}
