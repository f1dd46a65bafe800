//! What of a merged text each of two sides knows, character by character, as Automerge tells it.

use automerge::{Automerge, ChangeHash, ObjId, PatchAction, ReadDoc};

use super::text::Woven;

/// A text that two sides edited, each of which knew the versions `known` and saw `sides`, as it is at `now`, a version that holds both. `None`
/// if Automerge does not tell.
pub(super) fn woven(
    am: &Automerge,
    text: &ObjId,
    now: &[ChangeHash],
    known: [&[ChangeHash]; 2],
    sides: [&str; 2],
) -> Option<Woven> {
    let chars: Vec<char> = am.text_at(text, now).ok()?.chars().collect();
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
