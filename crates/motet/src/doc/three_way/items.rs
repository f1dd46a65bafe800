//! Going back in a list that others have changed since, item by item: an item that was moved or edited is still that item.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::Value as Json;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::doc::list::{identity, is_same};
use crate::doc::read::Fields;

/// `theirs`, a later state of the list `base`, with that taken back which `mine` differs by: `mine` is what `base` goes back to. What
/// `theirs` put in, took out, moved or wrote stays. Where it replaced all of what goes back, that stays as well.
pub(in crate::doc) fn lists(base: &[Json], mine: &[Json], theirs: &[Json]) -> Vec<Json> {
    if theirs == base {
        return mine.to_vec();
    }
    let [mine, theirs] = [mine, theirs].map(|items| Side::new(base, items));
    let mut out = Out { items: theirs.items.iter().cloned().zip(theirs.entries()).collect() };
    out.move_back(&mine, &theirs);
    let mut duplicates = theirs.inserted();
    for n in (0..mine.items.len()).filter(|n| mine.origin[*n].is_none()) {
        out.put_back(n, &mine, &theirs, &mut duplicates);
    }
    out.items.retain(|(item, entry)| match entry {
        Entry::Base(at) => mine.place.contains_key(at) || *item != base[*at],
        _ => true,
    });
    let value = |(item, entry): (Json, Entry)| match entry {
        Entry::Base(at) => match mine.place.get(&at) {
            Some(goal) => gone_back(&base[at], &mine.items[*goal], item),
            None => item,
        },
        _ => item,
    };
    out.items.into_iter().map(value).collect()
}

/// Where an item of the result comes from.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Base(usize),
    Mine(usize),
    Theirs(usize),
}

/// What one side made of a list.
struct Side<'a> {
    items: &'a [Json],
    /// Which item of the base each is.
    origin: Vec<Option<usize>>,
    /// Where each item of the base is, if it is.
    place: HashMap<usize, usize>,
    /// Items of the base that stand in another order.
    moved: HashSet<usize>,
    /// What was replaced, and by which items.
    replaced: Vec<(Range<usize>, Range<usize>)>,
}

impl<'a> Side<'a> {
    fn new(base: &[Json], items: &'a [Json]) -> Self {
        let keys = |items: &[Json]| items.iter().map(identity).collect::<Vec<_>>();
        let (old, new) = (keys(base), keys(items));
        let mut origin = vec![None; items.len()];
        let mut replaced = Vec::new();
        for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
            match op {
                DiffOp::Equal { old_index, new_index, len } => {
                    (0..len).for_each(|n| origin[new_index + n] = Some(old_index + n));
                }
                _ => replaced.push((op.old_range(), op.new_range())),
            }
        }
        let known: HashSet<usize> = origin.iter().flatten().copied().collect();
        let mut left: HashMap<&str, Vec<usize>> = HashMap::new();
        for at in (0..base.len()).rev().filter(|at| !known.contains(at)) {
            left.entry(&old[at]).or_default().push(at);
        }
        for n in 0..items.len() {
            if origin[n].is_none() {
                origin[n] = left.get_mut(new[n].as_str()).and_then(Vec::pop);
            }
        }
        // What is left of a replaced part: an object that was edited.
        for (from, to) in &replaced {
            let as_many = from.len() == to.len();
            let mut old: Vec<usize> = from.clone().filter(|at| !origin.contains(&Some(*at))).collect();
            for n in to.clone().filter(|n| items[*n].is_object()) {
                let found = old.iter().position(|at| is_same(&base[*at], &items[n], as_many));
                if origin[n].is_none()
                    && let Some(found) = found
                {
                    origin[n] = Some(old.remove(found));
                }
            }
        }
        let place = origin.iter().enumerate().filter_map(|(n, at)| Some(((*at)?, n))).collect();
        let moved = moved(&origin.iter().flatten().copied().collect::<Vec<_>>());
        Self { items, origin, place, moved, replaced }
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.origin.iter().enumerate().map(|(n, at)| at.map_or(Entry::Theirs(n), Entry::Base))
    }

    /// What it put in, by what names it.
    fn inserted(&self) -> HashMap<String, Vec<usize>> {
        let mut inserted: HashMap<String, Vec<usize>> = HashMap::new();
        for n in (0..self.items.len()).rev().filter(|n| self.origin[*n].is_none()) {
            inserted.entry(identity(&self.items[n])).or_default().push(n);
        }
        inserted
    }

    /// The items of the base in the place of which it has put an item.
    fn gave_way_to(&self, n: usize) -> Vec<usize> {
        let replaced = self.replaced.iter().find(|(_, to)| to.contains(&n));
        let from = replaced.map_or(0..0, |(from, _)| from.clone());
        from.filter(|at| !self.place.contains_key(at)).collect()
    }
}

/// The list that comes out.
struct Out {
    items: Vec<(Json, Entry)>,
}

impl Out {
    fn find(&self, entry: Entry) -> Option<usize> {
        self.items.iter().position(|(_, other)| *other == entry)
    }

    /// Right behind what stands before an item of `mine` there.
    fn behind(&self, n: usize, mine: &Side<'_>) -> usize {
        let before = |n: usize| self.find(mine.origin[n].map_or(Entry::Mine(n), Entry::Base));
        (0..n).rev().find_map(before).map_or(0, |at| at + 1)
    }

    /// What was moved goes back, unless the others have moved it as well.
    fn move_back(&mut self, mine: &Side<'_>, theirs: &Side<'_>) {
        for (n, origin) in mine.origin.iter().enumerate() {
            let Some(at) = origin.filter(|at| mine.moved.contains(at) && !theirs.moved.contains(at)) else {
                continue;
            };
            if let Some(from) = self.find(Entry::Base(at)) {
                let item = self.items.remove(from);
                let to = self.behind(n, mine);
                self.items.insert(to, item);
            }
        }
    }

    /// What was taken out comes back, unless it stands there already, or others have taken out as well what is there instead.
    fn put_back(
        &mut self,
        n: usize,
        mine: &Side<'_>,
        theirs: &Side<'_>,
        duplicates: &mut HashMap<String, Vec<usize>>,
    ) {
        let duplicate = duplicates.get_mut(&identity(&mine.items[n])).and_then(Vec::pop);
        if let Some(duplicate) = duplicate.and_then(|duplicate| self.find(Entry::Theirs(duplicate))) {
            self.items[duplicate].1 = Entry::Mine(n);
            return;
        }
        let instead = mine.gave_way_to(n);
        if !instead.is_empty() && instead.iter().all(|at| !theirs.place.contains_key(at)) {
            return;
        }
        let first = instead.iter().find_map(|at| self.find(Entry::Base(*at)));
        let to = first.unwrap_or_else(|| self.behind(n, mine));
        self.items.insert(to, (mine.items[n].clone(), Entry::Mine(n)));
    }
}

/// An item that goes back from `base` to `goal`; what has been written in it since stays.
fn gone_back(base: &Json, goal: &Json, now: Json) -> Json {
    match (base, goal, now) {
        (base, goal, now) if now == *base => goal.clone(),
        (Json::Object(base), Json::Object(goal), Json::Object(now)) => {
            Json::Object(fields_gone_back(base, goal, now))
        }
        (_, _, now) => now,
    }
}

fn fields_gone_back(base: &Fields, goal: &Fields, mut now: Fields) -> Fields {
    for name in base.keys().chain(goal.keys().filter(|name| !base.contains_key(*name))) {
        let (before, after) = (base.get(name), goal.get(name));
        if before == after {
            continue;
        }
        match (now.get(name).cloned(), after) {
            (current, Some(after)) if current.as_ref() == before => {
                _ = now.insert(name.clone(), after.clone())
            }
            (current, None) if current.as_ref() == before => _ = now.remove(name),
            (Some(current), Some(after)) => {
                let left = gone_back(before.unwrap_or(&Json::Null), after, current);
                now.insert(name.clone(), left);
            }
            _ => {}
        }
    }
    now
}

/// Those of some different numbers that stand in the way of an ascending order: all but a longest ascending part.
fn moved(order: &[usize]) -> HashSet<usize> {
    // For each length the part that ends lowest: the place of its last number. And for each place the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(order.len());
    for (n, number) in order.iter().enumerate() {
        let len = ends.partition_point(|end| order[*end] < *number);
        before.push(len.checked_sub(1).map(|last| ends[last]));
        match ends.get_mut(len) {
            Some(end) => *end = n,
            None => ends.push(n),
        }
    }
    let mut moved: HashSet<usize> = order.iter().copied().collect();
    let mut last = ends.last().copied();
    while let Some(n) = last {
        moved.remove(&order[n]);
        last = before[n];
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn merged(base: Json, mine: Json, theirs: Json) -> Json {
        let [base, mine, theirs] = [base, mine, theirs].map(|list| list.as_array().unwrap().clone());
        lists(&base, &mine, &theirs).into()
    }

    #[test]
    fn what_others_did_stays() {
        for (base, mine, theirs, expected) in [
            (json!([1, 9, 2]), json!([1, 2]), json!([1, 9, 2, 3]), json!([1, 2, 3])),
            (json!([1]), json!([2]), json!([3]), json!([3])),
            (json!(["x"]), json!(["w"]), json!(["c", "x"]), json!(["c", "w"])),
            (json!(["x"]), json!(["w"]), json!(["x", "c"]), json!(["w", "c"])),
            // What comes back is there already.
            (json!(["c"]), json!(["a"]), json!(["c", "a"]), json!(["a"])),
            (json!([]), json!([{ "t": "m" }]), json!([{ "t": "m" }]), json!([{ "t": "m" }])),
            (json!(["d", "c", "b", "a"]), json!(["a", "b", "c", "d"]), json!(["c", "a"]), json!(["a", "c"])),
            (
                json!(["a", "c"]),
                json!(["a", "b", "b", "c"]),
                json!(["a", "b", "c"]),
                json!(["a", "b", "b", "c"]),
            ),
        ] {
            assert_eq!(
                merged(base.clone(), mine.clone(), theirs.clone()),
                expected,
                "{base} {mine} {theirs}"
            );
        }
    }

    #[test]
    fn an_item_that_was_edited_or_moved_is_the_same_item() {
        let [m, n] = [json!({ "id": 1, "t": "m" }), json!({ "id": 2, "t": "n" })];
        let [written_m, written_n] = [json!({ "id": 1, "t": "M" }), json!({ "id": 2, "t": "N" })];
        assert_eq!(
            merged(json!([n, m]), json!([m, n]), json!([written_n, written_m])),
            json!([written_m, written_n])
        );
        let milk = |done: bool, text: &str| json!({ "done": done, "t": text });
        assert_eq!(
            merged(json!([milk(true, "milk")]), json!([milk(false, "milk")]), json!([milk(true, "milk 2l")])),
            json!([milk(false, "milk 2l")])
        );
        let item = |d: u8, text: &str| json!({ "d": d, "t": text });
        assert_eq!(
            merged(
                json!([item(0, "b"), item(0, "a")]),
                json!([item(0, "a"), item(0, "b")]),
                json!([item(1, "b"), item(1, "a")])
            ),
            json!([item(1, "a"), item(1, "b")])
        );
    }

    fn item() -> impl Strategy<Value = Json> {
        prop_oneof![
            (0..4).prop_map(|n| json!(n)),
            (0..4, "[ab]").prop_map(|(id, text)| json!({ "id": id, "text": text })),
            ("[ab]", any::<bool>()).prop_map(|(text, done)| json!({ "text": text, "done": done })),
        ]
    }

    fn list() -> impl Strategy<Value = Vec<Json>> {
        prop::collection::vec(item(), 0..7)
    }

    proptest! {
        #[test]
        fn one_side_alone_is_that_side(base in list(), other in list()) {
            prop_assert_eq!(lists(&base, &other, &base), other.clone());
            prop_assert_eq!(lists(&base, &base, &other), other);
        }

        /// What was put in at the start and at the end stays there, whatever goes back between.
        #[test]
        fn what_others_put_in_stays(base in list(), goal in list()) {
            let [first, last] = ["first", "last"].map(|text| json!({ "id": text }));
            let theirs: Vec<_> = [&first].into_iter().chain(&base).chain([&last]).cloned().collect();
            let left = lists(&base, &goal, &theirs);
            let expected = goal.clone();
            let rest: Vec<_> = left.iter().filter(|item| **item != first && **item != last).cloned().collect();
            prop_assert_eq!(left.iter().filter(|item| **item == first || **item == last).count(), 2);
            let sorted = |items: &[Json]| {
                let mut keys: Vec<_> = items.iter().map(ToString::to_string).collect();
                keys.sort();
                keys
            };
            prop_assert_eq!(sorted(&rest), sorted(&expected));
        }
    }
}
