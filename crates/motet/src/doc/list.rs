//! Lists: which item of one version is which of another, and what two versions together hold.
//!
//! An object with an `id` is the same item wherever it stands. Anything else is known by its content; an object that has changed in its
//! place is the same item if at least half of its fields are as they were.

mod merge;

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use super::read::{Fields, element_key};

pub(super) use merge::{Item, LostValue, Merged, merge, united};

/// After this time what is left of two lists is replaced as a whole.
const DIFF_TIME: Duration = Duration::from_millis(500);

/// How many items ahead the same item is looked for.
const SAME_WITHIN: usize = 16;

/// One step that turns a list into another.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The object at this place of the old list has changed.
    Edit { at: usize, new: Fields },
    /// `delete` items from a place of the old list on give way to others.
    Replace { at: usize, delete: usize, insert: Vec<Json> },
}

/// What names an item.
pub(super) fn identity(item: &Json) -> String {
    match item.get("id") {
        Some(id @ (Json::String(_) | Json::Number(_))) => format!("id {id}"),
        _ => element_key(item),
    }
}

/// Whether an item is known by an `id` of its own.
pub(super) fn has_id(item: &Json) -> bool {
    matches!(item.get("id"), Some(Json::String(_) | Json::Number(_)))
}

/// The steps that turn `old` into `new`, from the end of the list to its start, so that each place is still right when its turn
/// comes.
pub(super) fn diff(old: &[Json], new: &[Json]) -> Vec<Step> {
    let keys = |items: &[Json]| items.iter().map(identity).collect::<Vec<_>>();
    let deadline = Instant::now() + DIFF_TIME;
    let mut steps = Vec::new();
    let (mut i, mut j) = (0, 0);
    for op in capture_diff_slices_deadline(Algorithm::Myers, &keys(old), &keys(new), Some(deadline)) {
        let (from, to) = (i + op.old_range().len(), j + op.new_range().len());
        if let DiffOp::Equal { .. } = op {
            let changed = (i..from).zip(j..to).filter(|(i, j)| old[*i] != new[*j]);
            steps.extend(
                changed.filter_map(|(at, j)| Some(Step::Edit { at, new: new[j].as_object()?.clone() })),
            );
        } else {
            replace(&old[i..from], &new[j..to], i, &mut steps);
        }
        (i, j) = (from, to);
    }
    steps.reverse();
    steps
}

/// Items that give way to others; objects that are recognised in their place are edited.
fn replace(old: &[Json], new: &[Json], at: usize, steps: &mut Vec<Step>) {
    let (mut i, mut j) = (0, 0);
    for (k, item) in new.iter().enumerate() {
        let ahead =
            (i..old.len().min(i + SAME_WITHIN)).find(|i| is_same(&old[*i], item, old.len() == new.len()));
        let (Some(found), Json::Object(fields)) = (ahead, item) else { continue };
        if found > i || k > j {
            steps.push(Step::Replace { at: at + i, delete: found - i, insert: new[j..k].to_vec() });
        }
        steps.push(Step::Edit { at: at + found, new: fields.clone() });
        (i, j) = (found + 1, k + 1);
    }
    if i < old.len() || j < new.len() {
        steps.push(Step::Replace { at: at + i, delete: old.len() - i, insert: new[j..].to_vec() });
    }
}

/// Whether an object without an id is a changed version of another.
pub(super) fn is_same(old: &Json, new: &Json, as_many: bool) -> bool {
    let (Json::Object(before), Json::Object(after)) = (old, new) else { return false };
    if has_id(old) || has_id(new) {
        return false;
    }
    let kept = after.iter().filter(|(key, value)| before.get(*key) == Some(value)).count();
    let most = before.len().max(after.len());
    kept > 0 && kept * 2 >= most || as_many && most == 1 && before.keys().eq(after.keys())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn apply(old: &[Json], steps: &[Step]) -> Vec<Json> {
        let mut items = old.to_vec();
        for step in steps {
            match step {
                Step::Edit { at, new } => items[*at] = Json::Object(new.clone()),
                Step::Replace { at, delete, insert } => {
                    items.splice(*at..*at + *delete, insert.iter().cloned());
                }
            }
        }
        items
    }

    fn item() -> impl Strategy<Value = Json> {
        prop_oneof![
            (0..4).prop_map(|n| json!(n)),
            "[abā]".prop_map(Json::from),
            (0..4, "[ab]").prop_map(|(id, text)| json!({ "id": id, "text": text })),
            ("[ab]", any::<bool>()).prop_map(|(text, done)| json!({ "text": text, "done": done })),
        ]
    }

    proptest! {
        #[test]
        fn steps_turn_old_into_new(
            old in prop::collection::vec(item(), 0..8), new in prop::collection::vec(item(), 0..8)
        ) {
            prop_assert_eq!(apply(&old, &diff(&old, &new)), new);
        }
    }

    #[test]
    fn an_object_that_is_ticked_is_edited_in_its_place() {
        let old = [json!({ "text": "a", "done": false }), json!({ "text": "b", "done": false })];
        let new = [json!({ "text": "a", "done": true }), json!({ "text": "b", "done": false })];
        let ticked = new[0].as_object().unwrap().clone();
        assert_eq!(diff(&old, &new), [Step::Edit { at: 0, new: ticked }]);
    }
}
