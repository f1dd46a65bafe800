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

/// What two lines of changes that met have made of the texts of a document.
#[derive(Debug, Default)]
pub(crate) struct Reconciliation {
    /// Changes that every device makes alike, after which the texts show what they should.
    pub(crate) changes: Vec<Change>,
    /// The places that both sides changed, and not alike.
    pub(crate) overlaps: Vec<FieldConflict>,
}

impl Document {
    /// Brings the texts that both what was here (`before`) and what has been applied since changed to what they should show. The
    /// changes made depend on nothing but what the document holds, so whoever does this makes the same.
    pub(crate) fn reconcile_texts(
        &mut self,
        schema: &CollectionSchema,
        before: &[ChangeHash],
        applied: &[Change],
    ) -> Result<Reconciliation, EditError> {
        let mut done = Reconciliation::default();
        let Some(Forked { base, theirs }) = forked(before, applied) else { return Ok(done) };
        let texts: Vec<(String, ObjId)> = self
            .am
            .map_range(ROOT, ..)
            .filter(|item| !item.conflict && matches!(item.value, ValueRef::Object(ObjType::Text)))
            .map(|item| (item.key.to_string(), item.id()))
            .collect();
        for (key, text) in texts {
            let at = |heads: &[ChangeHash]| self.am.text_at(&text, heads).unwrap_or_default();
            let (old, ours, theirs) = (at(&base), at(before), at(&theirs));
            if ours == old || theirs == old {
                continue;
            }
            let merged = self.am.text(&text).unwrap_or_default();
            let text::Reconciled { splices, overlaps } = text::reconcile(&old, &ours, &theirs, &merged);
            let name = self.reader(schema, None).shown_name(&key).to_owned();
            let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            done.overlaps
                .extend(overlaps.into_iter().map(|overlap| self.journalled(&path, overlap, applied)));
            if !splices.is_empty() {
                let (path, mut heads) = (format!("/{key}"), None);
                let change = self.deterministic(&path, Container::Text(&merged), &mut heads, |tx| {
                    splices.iter().try_for_each(|s| tx.splice_text(&text, s.at, s.delete as isize, &s.insert))
                });
                done.changes.push(change?);
            }
        }
        Ok(done)
    }

    /// The row is the same on the device that made the other version: its id is that of the texts.
    fn journalled(&self, path: &str, overlap: text::Overlap, applied: &[Change]) -> FieldConflict {
        let text::Overlap { old, mut versions, .. } = overlap;
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
