//! What two versions of a list together hold, where Automerge's merge by element does not know which items are the same.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use serde_json::Value as Json;

use super::{has_id, identity};
use crate::doc::edit::merged;
use crate::doc::read::Fields;

/// An item of a list, and what Automerge knows it by.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::doc) struct Item<I> {
    pub(in crate::doc) id: I,
    pub(in crate::doc) value: Json,
}

/// What is to be done to the merged list.
#[derive(Debug, PartialEq)]
pub(in crate::doc) struct Merged<I> {
    /// Items that stand there twice, or that one side has deleted and the other only moved.
    pub(in crate::doc) drop: Vec<I>,
    /// Items that get what the other side made of them.
    pub(in crate::doc) edit: Vec<(I, Fields)>,
    /// Items that one side deleted while the other wrote in them: each comes back behind another, or first.
    pub(in crate::doc) insert: Vec<(Option<I>, Json)>,
    /// Values of a field of one item that both sides wrote: what shows, and what does not.
    pub(in crate::doc) lost: Vec<LostValue>,
}

/// A field of an item that both sides wrote, and not alike.
#[derive(Debug, PartialEq)]
pub(in crate::doc) struct LostValue {
    /// Names below the list: of the item, and of the field.
    pub(in crate::doc) path: Vec<String>,
    pub(in crate::doc) winner: Json,
    pub(in crate::doc) loser: Json,
}

/// Compares what both sides of a fork made of a list with what Automerge's merge shows. `later` is the side whose value shows where
/// both wrote one. `folds`: what both put in without an id is there once.
pub(in crate::doc) fn merge<I: Clone + Eq + Hash>(
    old: &[Item<I>],
    sides: [&[Item<I>]; 2],
    merged: &[Item<I>],
    later: usize,
    folds: bool,
) -> Merged<I> {
    let known: HashMap<&I, &Json> = old.iter().map(|item| (&item.id, &item.value)).collect();
    let sides = sides.map(|items| Side::new(old, &known, items));
    let places: HashMap<&I, usize> = merged.iter().enumerate().map(|(n, item)| (&item.id, n)).collect();
    let mut plan = Plan { places, later, drop: HashSet::new(), edits: HashMap::new(), lost: Vec::new() };
    plan.fold_duplicates(&known, &sides, folds);
    for side in 0..2 {
        plan.follow_moves(&known, &sides[side], &sides[1 - side], side);
    }
    let mut insert = Vec::new();
    // In the same order on every device.
    for side in [later, 1 - later] {
        let (gone, written) = (&sides[side], &sides[1 - side]);
        for (n, item) in written.items.iter().enumerate() {
            let before = known.get(&item.id).copied();
            let is_gone = match before {
                Some(before) => {
                    *before != item.value
                        && !gone.present.contains_key(&item.id)
                        && !gone.moves.contains_key(&item.id)
                }
                None => !plan.places.contains_key(&item.id),
            };
            if !is_gone {
                continue;
            }
            // Somebody has put the same item in again already.
            let same = identity(&item.value);
            let again =
                merged.iter().find(|other| identity(&other.value) == same && !plan.drop.contains(&other.id));
            match again {
                Some(other) if has_id(&other.value) => {
                    let before = before.unwrap_or(&Json::Null);
                    plan.edit(&other.id, before, [&other.value, &item.value], 1 - side);
                }
                Some(_) => {}
                None => {
                    let ahead = written.items[..n].iter().rev().map(|item| &item.id);
                    let mut standing =
                        ahead.filter(|id| plan.places.contains_key(id) && !plan.drop.contains(*id));
                    insert.push((standing.next().cloned(), item.value.clone()));
                }
            }
        }
    }
    let drop = merged.iter().map(|item| &item.id).filter(|id| plan.drop.contains(*id)).cloned().collect();
    let edit = merged.iter().filter_map(|item| {
        let new = plan.edits.get(&item.id).filter(|_| !plan.drop.contains(&item.id))?;
        (*new != item.value).then(|| Some((item.id.clone(), new.as_object()?.clone()))).flatten()
    });
    Merged { drop, edit: edit.collect(), insert, lost: plan.lost }
}

/// What two lists that have no item in common hold together, as far as the items themselves do not say that they are the same: then an item
/// is there once, with the fields of both. `folds` as for [`merge`].
pub(in crate::doc) fn united(older: &[Json], newer: &[Json], folds: bool) -> Vec<Json> {
    let mut all = older.to_vec();
    let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (n, item) in older.iter().enumerate().filter(|(_, item)| folds || has_id(item)) {
        places.entry(identity(item)).or_default().push_back(n);
    }
    for item in newer {
        match places.get_mut(&identity(item)).and_then(VecDeque::pop_front) {
            Some(place) => all[place] = merged(Some(&all[place]), item),
            None => all.push(item.clone()),
        }
    }
    all
}

/// What one side did to a list.
struct Side<'a, I> {
    items: &'a [Item<I>],
    present: HashMap<&'a I, &'a Json>,
    inserted: Vec<&'a Item<I>>,
    /// Old items that stand somewhere else now, as new ones.
    moves: HashMap<&'a I, &'a Item<I>>,
}

impl<'a, I: Clone + Eq + Hash> Side<'a, I> {
    fn new(old: &'a [Item<I>], known: &HashMap<&I, &Json>, items: &'a [Item<I>]) -> Self {
        let present: HashMap<_, _> = items.iter().map(|item| (&item.id, &item.value)).collect();
        let inserted: Vec<_> = items.iter().filter(|item| !known.contains_key(&item.id)).collect();
        let mut arrivals = by_identity(&inserted);
        let mut moves = HashMap::new();
        for item in old.iter().filter(|item| !present.contains_key(&item.id)) {
            let found = arrivals
                .get_mut(&identity(&item.value))
                .and_then(|same| if same.is_empty() { None } else { Some(same.remove(0)) });
            if let Some(moved) = found {
                moves.insert(&item.id, moved);
            }
        }
        Self { items, present, inserted, moves }
    }

    /// The old item that a new one was before it was moved.
    fn origin(&self, moved: &I) -> Option<&'a I> {
        self.moves.iter().find(|(_, item)| item.id == *moved).map(|(id, _)| *id)
    }
}

fn by_identity<'a, I>(items: &[&'a Item<I>]) -> HashMap<String, Vec<&'a Item<I>>> {
    let mut found: HashMap<String, Vec<&Item<I>>> = HashMap::new();
    for item in items {
        found.entry(identity(&item.value)).or_default().push(item);
    }
    found
}

struct Plan<'a, I> {
    /// Where the merged list has its items.
    places: HashMap<&'a I, usize>,
    later: usize,
    drop: HashSet<I>,
    edits: HashMap<I, Json>,
    lost: Vec<LostValue>,
}

impl<I: Clone + Eq + Hash> Plan<'_, I> {
    /// What both sides put in is there once: the first of the two stays, whoever looks.
    fn fold_duplicates(&mut self, known: &HashMap<&I, &Json>, sides: &[Side<'_, I>; 2], folds: bool) {
        let mut theirs = by_identity(&sides[1].inserted);
        for ours in &sides[0].inserted {
            // What both have moved is one item all the same.
            if !folds && !has_id(&ours.value) && sides[0].origin(&ours.id).is_none() {
                continue;
            }
            let Some(same) = theirs.get_mut(&identity(&ours.value)).filter(|same| !same.is_empty()) else {
                continue;
            };
            let duplicate = same.remove(0);
            let (Some(first), Some(second)) = (self.places.get(&ours.id), self.places.get(&duplicate.id))
            else {
                continue;
            };
            let (stays, goes) =
                if first < second { (&ours.id, &duplicate.id) } else { (&duplicate.id, &ours.id) };
            self.drop.insert(goes.clone());
            let before = sides[0].origin(&ours.id).or_else(|| sides[1].origin(&duplicate.id));
            let before = before.and_then(|id| known.get(id)).copied().unwrap_or(&Json::Null);
            self.edit(stays, before, [&ours.value, &duplicate.value], 1);
        }
    }

    /// What the other side did to an item that this one has only moved.
    fn follow_moves(
        &mut self,
        known: &HashMap<&I, &Json>,
        moving: &Side<'_, I>,
        other: &Side<'_, I>,
        side: usize,
    ) {
        for (origin, moved) in &moving.moves {
            if other.moves.contains_key(origin) || self.drop.contains(&moved.id) {
                continue;
            }
            let Some(before) = known.get(origin) else { continue };
            match other.present.get(origin) {
                // A move is no reason to keep what the other side has deleted.
                None if moved.value == **before => _ = self.drop.insert(moved.id.clone()),
                None => {}
                Some(now) if now == before => {}
                Some(now) => self.edit(&moved.id, before, [&moved.value, now], 1 - side),
            }
        }
    }

    /// Gives an item the fields of two versions of it.
    fn edit(&mut self, id: &I, before: &Json, [first, second]: [&Json; 2], second_side: usize) {
        if first == second {
            return;
        }
        let mut path = vec![first.get("id").map_or_else(|| identity(first), text_of)];
        let merged = self.merge_values(before, first, second, self.later == second_side, &mut path);
        self.edits.insert(id.clone(), merged);
    }

    fn merge_values(
        &mut self,
        before: &Json,
        first: &Json,
        second: &Json,
        second_wins: bool,
        path: &mut Vec<String>,
    ) -> Json {
        match (first, second) {
            _ if first == second || second == before => first.clone(),
            _ if first == before => second.clone(),
            (Json::Object(ours), Json::Object(theirs)) => {
                let nothing = Fields::new();
                let old = before.as_object().unwrap_or(&nothing);
                let mut merged = Fields::new();
                let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
                for key in keys {
                    let value = match (ours.get(key), theirs.get(key)) {
                        (Some(ours), Some(theirs)) => {
                            path.push(key.clone());
                            let before = old.get(key).unwrap_or(&Json::Null);
                            let merged = self.merge_values(before, ours, theirs, second_wins, path);
                            path.pop();
                            merged
                        }
                        // Who removed a field that the other has not touched has removed it.
                        (Some(value), None) | (None, Some(value)) => {
                            if old.get(key) == Some(value) {
                                continue;
                            }
                            value.clone()
                        }
                        (None, None) => continue,
                    };
                    merged.insert(key.clone(), value);
                }
                Json::Object(merged)
            }
            _ => {
                let (winner, loser) = if second_wins { (second, first) } else { (first, second) };
                let (winner, loser) = (winner.clone(), loser.clone());
                self.lost.push(LostValue { path: path.clone(), winner: winner.clone(), loser });
                winner
            }
        }
    }
}

fn text_of(id: &Json) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn items(list: &[(u32, Json)]) -> Vec<Item<u32>> {
        list.iter().map(|(id, value)| Item { id: *id, value: value.clone() }).collect()
    }

    #[test]
    fn what_both_put_in_is_there_once() {
        let old = items(&[(1, json!("a"))]);
        let ours = items(&[(1, json!("a")), (2, json!("b"))]);
        let theirs = items(&[(1, json!("a")), (3, json!("b")), (4, json!("c"))]);
        let all = items(&[(1, json!("a")), (3, json!("b")), (4, json!("c")), (2, json!("b"))]);
        for (sides, later) in [([&ours[..], &theirs[..]], 0), ([&theirs[..], &ours[..]], 1)] {
            let merged = merge(&old, sides, &all, later, true);
            assert_eq!(merged.drop, [2]);
            assert_eq!((merged.edit, merged.insert, merged.lost), (vec![], vec![], vec![]));
        }
    }

    #[test]
    fn an_item_with_an_id_that_is_moved_keeps_what_the_other_wrote_in_it() {
        let (x, y) = (json!({ "id": 1, "t": "x" }), json!({ "id": 2, "t": "y" }));
        let old = items(&[(1, x.clone()), (2, y.clone())]);
        let ours = items(&[(3, y.clone()), (1, x.clone())]);
        let theirs = items(&[(1, x.clone()), (2, json!({ "id": 2, "t": "y!" }))]);
        let all = items(&[(3, y), (1, x)]);
        let merged = merge(&old, [&ours, &theirs], &all, 0, true);
        assert_eq!(merged.edit, [(3, json!({ "id": 2, "t": "y!" }).as_object().unwrap().clone())]);
        assert_eq!((merged.drop, merged.insert), (vec![], vec![]));
    }

    #[test]
    fn lists_that_were_begun_apart_hold_each_item_once() {
        let [older, newer] =
            [json!(["a", { "id": 1, "x": 1 }, "a"]), json!(["b", "a", { "id": 1, "x": 2, "y": 3 }])];
        let [older, newer] = [&older, &newer].map(|list| list.as_array().unwrap().as_slice());
        let item = json!({ "id": 1, "x": 2, "y": 3 });
        assert_eq!(json!(united(older, newer, true)), json!(["a", item, "a", "b"]));
        assert_eq!(json!(united(older, newer, false)), json!(["a", item, "a", "b", "a"]));
    }

    #[test]
    fn an_item_that_is_deleted_while_the_other_writes_in_it_comes_back_in_its_place() {
        let (x, y) = (json!({ "t": "x", "n": 1 }), json!({ "t": "y", "n": 1 }));
        let written = json!({ "t": "y", "n": 2 });
        let old = items(&[(1, x.clone()), (2, y)]);
        let ours = items(&[(1, x.clone())]);
        let theirs = items(&[(1, x.clone()), (2, written.clone())]);
        let merged = merge(&old, [&ours, &theirs], &items(&[(1, x)]), 0, true);
        assert_eq!(merged.insert, [(Some(1), written)]);
    }

    #[test]
    fn a_moved_item_that_the_other_has_deleted_stays_deleted() {
        let old = items(&[(1, json!("a")), (2, json!("b"))]);
        let ours = items(&[(3, json!("b")), (1, json!("a"))]);
        let theirs = items(&[(1, json!("a"))]);
        let merged = merge(&old, [&ours, &theirs], &items(&[(3, json!("b")), (1, json!("a"))]), 0, true);
        assert_eq!(merged.drop, [3]);
    }

    #[test]
    fn of_two_values_of_one_field_the_later_shows_and_the_other_is_told() {
        let old = items(&[(1, json!({ "id": 1, "t": "x" }))]);
        let ours = items(&[(2, json!({ "id": 1, "t": "ours" }))]);
        let theirs = items(&[(3, json!({ "id": 1, "t": "theirs" }))]);
        let all = items(&[(2, json!({ "id": 1, "t": "ours" })), (3, json!({ "id": 1, "t": "theirs" }))]);
        let merged = merge(&old, [&ours, &theirs], &all, 1, true);
        assert_eq!(merged.drop, [3]);
        assert_eq!(merged.edit[0].1["t"], "theirs");
        assert_eq!(merged.lost[0].path, ["1", "t"]);
        assert_eq!(merged.lost[0].loser, "ours");
    }
}
