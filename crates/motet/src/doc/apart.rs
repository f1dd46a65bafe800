//! Whether two sides edited a text so far from each other that Automerge's merge of it is what both made.

use std::ops::Range;

use automerge::{Automerge, ChangeHash, ObjId, PatchAction};

use crate::limits;

/// A place that one side edited, in characters of the text before, and what it put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edited {
    pub(super) old: Range<usize>,
    pub(super) text: String,
    /// Characters of it.
    inserted: usize,
}

impl Edited {
    /// So many characters of the text before make way for these.
    pub(super) fn new(old: Range<usize>, text: String) -> Self {
        let inserted = text.chars().count();
        Self { old, text, inserted }
    }
}

/// The places of a text that were edited from one version to another, from its start to its end. `None` if Automerge does not tell.
pub(super) fn edited(
    am: &Automerge,
    text: &ObjId,
    from: &[ChangeHash],
    to: &[ChangeHash],
) -> Option<Vec<Edited>> {
    places(am.diff_obj(text, from, to, false).ok()?)
}

/// Whether a part of a text is as far from what others have edited as [`are_apart`] asks for.
pub(super) fn are_edits_apart(text: &str, own: &Range<usize>, others: &[Edited]) -> bool {
    let behind = others.partition_point(|other| other.old.end <= own.start);
    let before = behind.checked_sub(1).map(|n| others[n].old.end..own.start);
    let after = others
        .get(behind)
        .map(|other| other.old.start.checked_sub(own.end).map(|len| own.end..own.end + len));
    let gaps: Option<Vec<Range<usize>>> = before.map(Some).into_iter().chain(after).collect();
    gaps.is_some_and(|gaps| {
        gaps.iter().all(|gap| gap.len() >= limits::APART_CHARACTERS) && have_lines(text, &gaps)
    })
}

/// Where a place of a text, which nobody else has edited, stands once what others have edited is in it.
pub(super) fn moved(at: usize, others: &[Edited]) -> usize {
    let before = others.iter().take_while(|other| other.old.end <= at);
    before.fold(at, |at, other| at + other.inserted - other.old.len())
}

/// Whether all that two sides made of a text is far apart: at least [`limits::APART_CHARACTERS`] that both left as they were lie between, with a
/// whole line among them. `merged`: the text that holds both.
pub(super) fn are_apart(edits: &[Vec<Edited>; 2], merged: &str) -> bool {
    gaps(edits).is_some_and(|gaps| have_lines(merged, &gaps))
}

/// A text with these places edited; `None` if it has no such places.
pub(super) fn applied(text: &str, edits: &[Edited]) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut at = 0;
    for edit in edits {
        let kept = edit.old.start.checked_sub(at)?;
        result.extend(chars.by_ref().take(kept));
        result.push_str(&edit.text);
        match edit.old.len() {
            0 => {}
            len => _ = chars.nth(len - 1)?,
        }
        at = edit.old.end;
    }
    result.push_str(chars.as_str());
    Some(result)
}

/// The places that patches from one version to another edit. They go from the start of the text to its end.
fn places(patches: Vec<automerge::Patch>) -> Option<Vec<Edited>> {
    let mut places: Vec<Edited> = Vec::new();
    // Up to here, in characters of the text before and after.
    let (mut old, mut new) = (0, 0);
    for patch in patches {
        let (index, deleted, text) = match patch.action {
            PatchAction::SpliceText { index, value, .. } => (index, 0, value.make_string()),
            PatchAction::DeleteSeq { index, length } => (index, length, String::new()),
            PatchAction::Mark { .. } => continue,
            _ => return None,
        };
        let inserted = text.chars().count();
        old += index.checked_sub(new)?;
        new = index + inserted;
        match places.last_mut().filter(|last| last.old.end == old) {
            Some(last) => {
                last.old.end += deleted;
                last.text.push_str(&text);
                last.inserted += inserted;
            }
            None => places.push(Edited::new(old..old + deleted, text)),
        }
        old += deleted;
    }
    Some(places)
}

/// The edits of two sides in the order in which they stand in the text before, each with its side.
pub(super) fn in_order([ours, theirs]: &[Vec<Edited>; 2]) -> impl Iterator<Item = (usize, &Edited)> {
    let mut sides = [ours.iter().peekable(), theirs.iter().peekable()];
    std::iter::from_fn(move || {
        let side = match sides.each_mut().map(|side| side.peek().map(|edit| edit.old.start)) {
            [Some(ours), Some(theirs)] => usize::from(theirs < ours),
            [Some(_), None] => 0,
            [None, Some(_)] => 1,
            [None, None] => return None,
        };
        sides[side].next().map(|edit| (side, edit))
    })
}

/// What lies between places of different sides, in characters of the text that holds the edits of both; `None` if it is too little somewhere.
fn gaps(edits: &[Vec<Edited>; 2]) -> Option<Vec<Range<usize>>> {
    let mut gaps = Vec::new();
    let (mut last, mut merged): (Option<(usize, usize)>, usize) = (None, 0);
    for (side, place) in in_order(edits) {
        let end = last.map_or(0, |(_, end)| end);
        let kept = place.old.start.checked_sub(end)?;
        if last.is_some_and(|(before, _)| before != side) {
            if kept < limits::APART_CHARACTERS {
                return None;
            }
            gaps.push(merged..merged + kept);
        }
        merged += kept + place.inserted;
        last = Some((side, place.old.end));
    }
    Some(gaps)
}

/// Whether each of these parts of a text has a whole line in it.
fn have_lines(text: &str, parts: &[Range<usize>]) -> bool {
    let mut chars = text.chars();
    let mut at = 0;
    parts.iter().all(|part| {
        let mut between = chars.by_ref().skip(part.start - at).take(part.len());
        at = part.end;
        let ends = between.by_ref().filter(|c| *c == '\n').count();
        ends >= 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(old: Range<usize>, inserted: usize) -> Edited {
        Edited::new(old, "ō".repeat(inserted))
    }

    fn parts(parts: &[(usize, usize)]) -> Vec<Range<usize>> {
        parts.iter().map(|(start, end)| *start..*end).collect()
    }

    #[test]
    fn what_lies_between_is_counted_in_the_merged_text() {
        let far = limits::APART_CHARACTERS;
        let ours = vec![edited(0..3, 1), edited(10..10, 5)];
        let theirs = vec![edited(10 + far..11 + far, 0)];
        let gaps = |ours: &[Edited], theirs: &[Edited]| gaps(&[ours.to_vec(), theirs.to_vec()]);
        assert_eq!(gaps(&ours, &theirs), Some(parts(&[(13, 13 + far)])));
        assert_eq!(gaps(&theirs, &ours), Some(parts(&[(13, 13 + far)])));
        assert_eq!(gaps(&ours, &[edited(9 + far..11 + far, 0)]), None);
        assert_eq!(gaps(&ours, &[edited(2..5, 0)]), None, "they overlap");
    }

    #[test]
    fn places_are_edited_as_they_say() {
        let edits = [edited(0..1, 2), edited(2..2, 1), edited(4..6, 0)];
        assert_eq!(applied("ʻāpapa", &edits).as_deref(), Some("ōōāōpa"));
        assert_eq!(applied("ʻā", &edits), None);
        assert_eq!(applied("ʻā", &[]).as_deref(), Some("ʻā"));
    }

    #[test]
    fn a_whole_line_lies_between() {
        let text = "ā\nlaʻi\npō\n";
        assert!(have_lines(text, &parts(&[(1, 7)])));
        assert!(!have_lines(text, &parts(&[(0, 6)])));
        assert!(!have_lines(text, &parts(&[(1, 7), (7, 9)])));
        assert!(have_lines(text, &[]));
    }
}
