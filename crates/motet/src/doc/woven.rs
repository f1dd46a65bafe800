//! What of a merged text each of two sides knows, character by character, as Automerge tells it.

use automerge::{Automerge, ChangeHash, ObjId, PatchAction};

use super::apart::{Edited, in_order};
use super::text::Woven;

/// A text that two sides edited, each of which knew the versions `known` and saw `sides`, as it is at `now`, a version that holds both, where it
/// is `merged`. `None` if Automerge does not tell.
pub(super) fn woven(
    am: &Automerge,
    text: &ObjId,
    (now, merged): (&[ChangeHash], &str),
    known: [&[ChangeHash]; 2],
    sides: [&str; 2],
) -> Option<Woven> {
    let chars: Vec<char> = merged.chars().collect();
    let sides = sides.map(|side| side.chars().collect::<Vec<char>>());
    let mut at = [Vec::new(), Vec::new()];
    for n in [0, 1] {
        let patches = am.diff_obj(text, known[n], now, false).ok()?;
        at[n] = places(sides[n].len(), patches.into_iter().map(|patch| patch.action))?;
        let stands = |(c, at): (&char, &Option<usize>)| at.is_none_or(|at| sides[n].get(at) == Some(c));
        if at[n].len() != chars.len() || !chars.iter().zip(&at[n]).all(stands) {
            return None;
        }
    }
    Some(Woven { chars, at, sides })
}

/// The same from the edits that led from `old` to `sides`, which costs much less. `None` if some of them touch: what stands where then only
/// Automerge knows. Edits that do not touch stand in the order of what lies between them.
pub(super) fn woven_of(old: &str, merged: &str, edits: &[Vec<Edited>; 2], sides: [&str; 2]) -> Option<Woven> {
    let old: Vec<char> = old.chars().collect();
    let mut chars = Vec::with_capacity(merged.len());
    let mut at = [Vec::new(), Vec::new()];
    let mut next = [0, 0];
    let (mut end, mut last) = (0, None);
    for edit in in_order(edits).map(Some).chain([None]) {
        let start = edit.map_or(old.len(), |(_, edit)| edit.old.start);
        let kept = old.get(end..start)?;
        let touches = |side| kept.is_empty() && last.is_some_and(|last| last != side);
        if edit.is_some_and(|(side, _)| touches(side)) {
            return None;
        }
        chars.extend_from_slice(kept);
        for n in [0, 1] {
            at[n].extend((next[n]..next[n] + kept.len()).map(Some));
            next[n] += kept.len();
        }
        let Some((side, edit)) = edit else { break };
        let before = chars.len();
        chars.extend(edit.text.chars());
        let inserted = chars.len() - before;
        at[side].extend((next[side]..next[side] + inserted).map(Some));
        at[1 - side].extend(std::iter::repeat_n(None, inserted));
        next[side] += inserted;
        next[1 - side] += edit.old.len();
        (end, last) = (edit.old.end, Some(side));
    }
    let sides = sides.map(|side| side.chars().collect::<Vec<char>>());
    let is_whole =
        [0, 1].iter().all(|n| next[*n] == sides[*n].len()) && merged.chars().eq(chars.iter().copied());
    is_whole.then_some(Woven { chars, at, sides })
}

/// Where each character of a text stood before patches changed it from a length of `len`. They go from its start to its end.
fn places(len: usize, patches: impl Iterator<Item = PatchAction>) -> Option<Vec<Option<usize>>> {
    let (mut places, mut next) = (Vec::with_capacity(len), 0);
    let mut go_to = |places: &mut Vec<Option<usize>>, index: usize, skip: usize| {
        let same = index.checked_sub(places.len())?;
        places.extend((next..next + same).map(Some));
        next += same + skip;
        (next <= len).then_some(())
    };
    for patch in patches {
        match patch {
            PatchAction::SpliceText { index, value, .. } => {
                go_to(&mut places, index, 0)?;
                places.extend(value.make_string().chars().map(|_| None));
            }
            PatchAction::DeleteSeq { index, length } => go_to(&mut places, index, length)?,
            PatchAction::Mark { .. } => {}
            _ => return None,
        }
    }
    places.extend((next..len).map(Some));
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(old: std::ops::Range<usize>, text: &str) -> Edited {
        Edited::new(old, text.into())
    }

    #[test]
    fn edits_that_do_not_touch_need_not_be_asked_for() {
        let of = |merged, ours: &[Edited], theirs: &[Edited], sides| {
            woven_of("ʻāina hānau", merged, &[ours.to_vec(), theirs.to_vec()], sides)
        };
        let (ours, theirs) = ([edit(0..1, "ka "), edit(9..11, "")], [edit(2..5, "ō"), edit(7..7, "x")]);
        let sides = ["ka āina hān", "ʻāō hxānau"];
        let woven = of("ka āō hxān", &ours, &theirs, sides).unwrap();
        let some = |places: &[i64]| places.iter().map(|n| usize::try_from(*n).ok()).collect::<Vec<_>>();
        assert_eq!(woven.at[0], some(&[0, 1, 2, 3, -1, 7, 8, -1, 9, 10]));
        assert_eq!(woven.at[1], some(&[-1, -1, -1, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(woven.sides.map(String::from_iter), sides);
        // What Automerge has made of them is something else, or they touch.
        assert!(of("ka āō hxāna", &ours, &theirs, sides).is_none());
        let (ours, theirs) = ([edit(0..1, "k")], [edit(1..2, "a")]);
        assert!(of("kaina hānau", &ours, &theirs, ["kāina hānau", "ʻaina hānau"]).is_none());
    }
}
