//! Texts that were edited in the same place at the same time. All words of both are there; but whether what came out makes sense
//! only a person can say, so both versions are kept for the journal.
//!
//! Where both made something else of the same words, the document itself says so, so that it is an open conflict on every device,
//! until somebody settles it or edits the place. Who merges says it, by the change that also brings the text to what it should
//! show; it is equal on every device.

use std::collections::{HashMap, HashSet};

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValueRef, ValueRef};
use motet_proto::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::apart::{Edited, applied, are_apart, edited};
use super::edit::{EditError, splice_all};
use super::fork::Fork;
use super::genesis::Container;
use super::read::pointer;
use super::reconcile::Reconciled;
use super::text::CarriedOver;
use super::woven::{woven, woven_of};
use super::{Document, FieldConflict, text, time};
use crate::limits;
use crate::schema::CollectionSchema;

/// How a journal row of this kind is told from one about a value.
pub(crate) const TEXT_OVERLAP: &str = "text:";

/// Under this and the id of a journal row, a document says that two versions of a place in a text wait for somebody to choose. No
/// field has such a name.
const OPEN_MARK: &str = "\u{1}overlap:";

/// Whether a key of a document is not the name of a field.
pub(super) fn is_open_mark(key: &str) -> bool {
    key.starts_with(OPEN_MARK)
}

/// What a document says of a place in a text of which two devices made something else.
#[derive(Serialize, Deserialize)]
struct OpenOverlap {
    /// Name under which the document keeps the field.
    field: String,
    old: String,
    versions: [String; 2],
    /// Lines that all stand in the text as long as nobody has edited the place.
    shown: Vec<String>,
    /// Who made the later version, and when: milliseconds since 1970, in a document of an early version seconds.
    device: Option<[u8; 16]>,
    time: i64,
}

/// Key and value by which a document says that a place waits for somebody to choose.
type Mark = (String, String);

impl Document {
    /// Brings the texts that both sides of a fork changed to what they should show.
    pub(super) fn reconcile_texts(
        &mut self,
        schema: &CollectionSchema,
        fork: &mut Fork,
        done: &mut Reconciled,
    ) -> Result<(), EditError> {
        if fork.is_anew {
            return self.unite_texts(schema, fork, done);
        }
        // Two texts of one field are brought together if they are what became of one.
        let texts: Vec<(String, ObjId, bool)> = self
            .am
            .map_range_at(ROOT, .., &fork.ends)
            .filter(|item| matches!(item.value, ValueRef::Object(ObjType::Text)))
            .filter(|item| !item.conflict || self.are_put_anew(schema, fork, &item.key))
            .map(|item| (item.key.to_string(), item.id(), item.conflict))
            .collect();
        texts.into_iter().try_for_each(|(key, text, are_two)| {
            self.reconcile_text(schema, fork, done, &key, &text, are_two)
        })
    }

    /// Whether both sides have put a new text in the place of the old one, as each does who changes much of it.
    fn are_put_anew(&self, schema: &CollectionSchema, fork: &Fork, key: &str) -> bool {
        let texts = |heads: &[ChangeHash]| {
            let reader = self.reader(schema, Some(heads));
            let texts = reader.texts(&ROOT, key);
            (texts.len() == reader.values(&ROOT, key).len()).then_some(texts)
        };
        let [ours, theirs] = fork.sides.each_ref().map(|side| texts(&side.known).unwrap_or_default());
        let old = texts(&fork.base).unwrap_or_default();
        let all = texts(&fork.ends).unwrap_or_default();
        let is_one = [&old, &ours, &theirs].iter().all(|texts| texts.len() == 1);
        // Two choices between the same versions do not take out each other.
        let is_open = || self.open_marks(Some(&fork.base)).any(|(_, mark)| mark.field == key);
        is_one && all.len() == 2 && ours != theirs && !all.contains(&old[0]) && !is_open()
    }

    fn reconcile_text(
        &mut self,
        schema: &CollectionSchema,
        fork: &mut Fork,
        done: &mut Reconciled,
        key: &str,
        text: &ObjId,
        are_two: bool,
    ) -> Result<(), EditError> {
        let known = fork.sides.each_ref().map(|side| &side.known[..]);
        let texts = |heads: &[ChangeHash]| self.reader(schema, Some(heads)).texts(&ROOT, key);
        let [known_texts @ .., old_texts] = [known[0], known[1], &fork.base].map(texts);
        let is_known = known_texts.each_ref().map(|texts| texts.contains(text));
        let is_one = is_known == [true, true] && old_texts == [text.clone()] && !are_two;
        let edits = if is_one { self.edits_of(text, &fork.base, known) } else { None };
        if edits.as_ref().is_some_and(|edits| edits.iter().any(Vec::is_empty)) {
            return Ok(());
        }
        let merged = self.am.text_at(text, &fork.ends)?;
        if edits.as_ref().is_some_and(|edits| are_apart(edits, &merged)) {
            return Ok(());
        }
        let edits =
            edits.filter(|_| [&fork.base[..], known[0], known[1]].iter().all(|at| self.holds_one(key, at)));
        let read = edits.as_ref().and_then(|edits| {
            let old = self.am.text_at(text, &fork.base).ok()?;
            let [ours, theirs] = edits.each_ref().map(|edits| applied(&old, edits));
            Some([old, ours?, theirs?])
        });
        // By the field, not by the text: one side may have put a new text in the place of the old one.
        let at = |heads: &[ChangeHash]| match self.reader(schema, Some(heads)).resolve(&ROOT, key) {
            Some(Json::String(text)) => text,
            _ => String::new(),
        };
        let [old, ours, theirs] = read.unwrap_or_else(|| [&fork.base[..], known[0], known[1]].map(at));
        // The same words may have been taken out and put in again.
        if ours == old && merged == theirs || theirs == old && merged == ours {
            return Ok(());
        }
        let woven = match is_known {
            [true, true] => {
                let of_edits = edits.and_then(|edits| woven_of(&old, &merged, &edits, [&ours, &theirs]));
                of_edits.or_else(|| woven(&self.am, text, (&fork.ends, &merged), known, [&ours, &theirs]))
            }
            _ => None,
        };
        let text::Meetings { overlaps, places } = text::meetings(&old, [&ours, &theirs]);
        let folded = woven.as_ref().map(|woven| text::fold(woven, &places));
        let stands = |open: Vec<text::Open>| match woven.as_ref().zip(folded.as_ref()) {
            Some((woven, folded)) => folded.lines_of(woven, &open),
            None => open.into_iter().map(|open| open.text).collect(),
        };
        let name = self.reader(schema, Some(&fork.ends)).shown_name(key).to_owned();
        let (marks, told) = self.told_of(fork, (key, &name), overlaps, stands)?;
        done.noticed.extend(told);
        let is_current = super::edit::is_current(&self.am, &fork.ends);
        let CarriedOver { splices, anew } = match folded {
            Some(folded) => folded.carried_over(is_current),
            // One side has put a new text in the place of the old one, and nothing but the words themselves says what the other wrote.
            None if is_known != [false, false] && known_texts.iter().all(|texts| !texts.is_empty()) => {
                match are_two {
                    true => text::put_together(&old, [&ours, &theirs]),
                    false => text::carry_over(&old, [&ours, &theirs], &merged, is_current),
                }
            }
            None => CarriedOver { splices: Vec::new(), anew: None },
        };
        if splices.is_empty() && anew.is_none() && marks.is_empty() {
            return Ok(());
        }
        // Who does anything else makes another change.
        let steps: Vec<_> = splices.iter().map(|s| json!([s.at, s.delete, s.insert])).collect();
        let steps = json!([merged, steps, marks]);
        let (path, ends) = (format!("/{key}"), &mut Some(fork.ends.clone()));
        let made = self.deterministic(&path, Container::Value(&steps), ends, |tx| {
            match &anew {
                Some(anew) => Container::Text(anew).put(tx, &ROOT, key)?,
                None => splice_all(tx, text, &splices)?,
            }
            marks.iter().try_for_each(|(key, mark)| tx.put(ROOT, key, mark.as_str()))
        })?;
        done.take_up(fork, made.new);
        Ok(())
    }

    /// What each side has made of a text since a version. `None` if Automerge does not tell.
    fn edits_of(
        &self,
        text: &ObjId,
        base: &[ChangeHash],
        known: [&[ChangeHash]; 2],
    ) -> Option<[Vec<Edited>; 2]> {
        let [ours, theirs] = known.map(|known| edited(&self.am, text, base, known));
        Some([ours?, theirs?])
    }

    /// Whether a field has no more than one value.
    fn holds_one(&self, key: &str, at: &[ChangeHash]) -> bool {
        self.am.get_all_at(ROOT, key, at).is_ok_and(|values| values.len() == 1)
    }

    /// What is said of places that both sides changed: by the document, where somebody has to choose, and by the journal. `stands`: the
    /// lines that show until somebody edits such a place.
    fn told_of(
        &self,
        fork: &Fork,
        (key, name): (&str, &str),
        overlaps: Vec<text::Overlap>,
        stands: impl Fn(Vec<text::Open>) -> Vec<String>,
    ) -> Result<(Vec<Mark>, Vec<FieldConflict>), EditError> {
        let latest = fork.sides.iter().map(|side| self.latest_of(side));
        let latest = latest.max_by_key(|(device, time)| (*time, device.map(|device| device.0)));
        let (mut marks, mut told) = (Vec::new(), Vec::new());
        for mut overlap in overlaps {
            let open = std::mem::take(&mut overlap.open);
            let row = journalled(&pointer([name]), overlap, latest.unwrap_or_default());
            match open.is_empty() {
                true => told.push(row),
                false => marks.push(OpenOverlap::mark(key, &row, &stands(open))?),
            }
        }
        Ok((marks, told))
    }

    /// The places of texts that wait for somebody to choose, and that nobody has edited since.
    pub(super) fn open_overlaps(&self, schema: &CollectionSchema) -> Vec<FieldConflict> {
        let reader = self.reader(schema, None);
        let marks: Vec<(String, OpenOverlap)> = self.open_marks(None).collect();
        let mut texts: HashMap<&str, String> = HashMap::new();
        for (_, mark) in &marks {
            texts.entry(&mark.field).or_insert_with(|| match reader.resolve(&ROOT, &mark.field) {
                Some(Json::String(text)) => text,
                _ => String::new(),
            });
        }
        // Once for each text: there may be as many marks as others have sent.
        let lines_of = |text: &'_ String| text.lines().map(|line| line.trim().to_owned()).collect();
        let lines: HashMap<&str, HashSet<String>> =
            texts.iter().map(|(field, text)| (*field, lines_of(text))).collect();
        let mut open = Vec::new();
        for (op, mark) in &marks {
            if !lines
                .get(&*mark.field)
                .is_some_and(|lines| mark.shown.iter().all(|line| lines.contains(line)))
            {
                continue;
            }
            open.push(FieldConflict {
                path: pointer([reader.shown_name(&mark.field)]).into(),
                op: op.clone(),
                winner: Json::String(mark.old.clone()).into(),
                loser: json!(mark.versions),
                device: mark.device.map(DeviceId),
                time: time::milliseconds(mark.time),
                winner_device: None,
                winner_time: None,
                settled: false,
            });
        }
        open
    }

    /// The keys by which a document says that places of a field wait for somebody to choose, but for those that it had in a version.
    pub(super) fn marks_of(&self, field: &str, but_at: Option<&[ChangeHash]>) -> Vec<String> {
        let before: HashSet<String> =
            but_at.into_iter().flat_map(|heads| self.open_marks(Some(heads))).map(|(op, _)| op).collect();
        let marks = self.open_marks(None).filter(|(op, mark)| mark.field == field && !before.contains(op));
        marks.map(|(op, _)| format!("{OPEN_MARK}{op}")).collect()
    }

    fn open_marks(&self, heads: Option<&[ChangeHash]>) -> impl Iterator<Item = (String, OpenOverlap)> {
        let from = OPEN_MARK.to_owned();
        match heads {
            Some(heads) => self.am.map_range_at(ROOT, from.., heads),
            None => self.am.map_range(ROOT, from..),
        }
        .map_while(|item| {
            let op = item.key.strip_prefix(OPEN_MARK)?.to_owned();
            let ValueRef::Scalar(ScalarValueRef::Str(mark)) = item.value else { return Some(None) };
            Some(serde_json::from_str(&mark).ok().map(|mark| (op, mark)))
        })
        .flatten()
    }
}

impl OpenOverlap {
    /// What says of a place that it waits, as long as all these lines stand in the text.
    fn mark(field: &str, row: &FieldConflict, open: &[String]) -> Result<Mark, EditError> {
        let old = row.winner.as_str().map(cut).unwrap_or_default();
        let versions = [0, 1].map(|n| row.loser[n].as_str().map(cut).unwrap_or_default());
        let mut left = limits::OVERLAP_BYTES;
        let lines = open.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
        let shown = lines.take_while(|line| {
            left = left.saturating_sub(line.len());
            left > 0
        });
        let shown = shown.map(str::to_owned).collect();
        let mark = Self {
            field: field.to_owned(),
            old,
            versions,
            shown,
            device: row.device.map(|device| device.0),
            time: row.time,
        };
        let json = serde_json::to_string(&mark).map_err(|_| AutomergeError::Fail)?;
        Ok((format!("{OPEN_MARK}{}", row.op), json))
    }
}

/// The row is the same on every device: its id is that of the texts.
fn journalled(path: &str, overlap: text::Overlap, latest: (Option<DeviceId>, i64)) -> FieldConflict {
    let text::Overlap { old, mut versions, .. } = overlap;
    versions.sort();
    let mut hash = blake3::Hasher::new_derive_key("motet 2026 text overlap v1");
    for part in [path, &old, &versions[0], &versions[1]] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    FieldConflict {
        path: path.into(),
        op: format!("{TEXT_OVERLAP}{}", &hash.finalize().to_hex()[..32]),
        winner: Json::String(cut(&old)).into(),
        loser: json!(versions.each_ref().map(|version| cut(version))),
        device: latest.0,
        time: latest.1,
        winner_device: None,
        winner_time: None,
        settled: true,
    }
}

/// The start of a text that is too long to be kept twice.
fn cut(text: &str) -> String {
    let start = &text[..text.floor_char_boundary(limits::OVERLAP_BYTES)];
    if start.len() < text.len() { format!("{start}…") } else { start.to_owned() }
}
