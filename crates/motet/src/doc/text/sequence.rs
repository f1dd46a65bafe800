//! The difference of two sequences, in bounded work.
//!
//! Myers' algorithm finds the shortest difference, in time that grows with the length times the number of differences: two
//! unrelated texts of 10,000 lines would take minutes. Its work is therefore counted, not timed, so that every device finds the
//! same difference. What is left when it is used up is compared by elements that occur once on each side (patience), which takes
//! little more than linear time; what has none of them counts as replaced.

use std::collections::HashMap;
use std::ops::Range;

/// Steps of Myers' algorithm that one comparison of two texts may take. About 100 ms.
const WORK: usize = 1 << 24;

/// How often elements that occur once are looked for between those found before.
const PATIENCE_ROUNDS: usize = 16;

/// Ranges of both sides that differ, in order. Between them the sides are equal.
pub(super) type Change = (Range<usize>, Range<usize>);

/// What is left of the work that the comparison of two texts may take.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new() -> Self {
        Self(WORK)
    }

    /// Takes `work`; false if there is not so much left.
    fn take(&mut self, work: usize) -> bool {
        let left = self.0.checked_sub(work);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Where two sequences differ. An insertion or a deletion that could stand in several places stands in the last of them, so that
/// two sides which insert the same find it in the same place.
pub(super) fn changes(old: &[&str], new: &[&str], budget: &mut Budget) -> Vec<Change> {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let sides = [old, new].map(|items| -> Vec<u32> {
        let mut numbered = Vec::with_capacity(items.len());
        for item in items {
            let next = ids.len() as u32;
            numbered.push(*ids.entry(item).or_insert(next));
        }
        numbered
    });
    // What both begin and end with stays where it is: of many equal lines the one that was changed is the one that has changed.
    let alike = |pairs: &mut dyn Iterator<Item = (&u32, &u32)>| pairs.take_while(|(a, b)| a == b).count();
    let start = alike(&mut sides[0].iter().zip(&sides[1]));
    let end = alike(&mut sides[0][start..].iter().rev().zip(sides[1][start..].iter().rev()));
    let middle = [start..old.len() - end, start..new.len() - end];
    let mut counts = vec![[0_u32; 2]; ids.len()];
    for (side, range) in middle.iter().enumerate() {
        sides[side][range.clone()].iter().for_each(|id| counts[*id as usize][side] += 1);
    }
    // What the other side does not have can match nothing.
    let shared = [0, 1].map(|side| -> Vec<(usize, u32)> {
        let items = middle[side].clone().map(|at| (at, sides[side][at]));
        items.filter(|(_, id)| counts[*id as usize].iter().all(|n| *n > 0)).collect()
    });
    let [a, b] = shared.each_ref().map(|items| items.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    let mut search = Search { a: &a, b: &b, budget, matches: Vec::new() };
    search.solve(0..a.len(), 0..b.len(), 0);
    let inner = search.matches.into_iter().map(|(i, j)| (shared[0][i].0, shared[1][j].0));
    let last = (old.len() - end..old.len()).zip(new.len() - end..new.len());
    let matches = (0..start).map(|at| (at, at)).chain(inner).chain(last);
    let changes = between(matches, old.len(), new.len());
    slide(changes, &sides[0], &sides[1])
}

/// What lies between matches.
fn between(matches: impl Iterator<Item = (usize, usize)>, old: usize, new: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut i, mut j) = (0, 0);
    for (to_i, to_j) in matches.chain([(old, new)]) {
        if i < to_i || j < to_j {
            changes.push((i..to_i, j..to_j));
        }
        (i, j) = (to_i + 1, to_j + 1);
    }
    changes
}

/// Moves insertions and deletions as far to the end as they can stand, and joins what then touches.
fn slide(changes: Vec<Change>, old: &[u32], new: &[u32]) -> Vec<Change> {
    let mut out: Vec<Change> = Vec::with_capacity(changes.len());
    for (mut a, mut b) in changes.into_iter().rev() {
        let (next_a, next_b) = out.last().map_or((old.len(), new.len()), |(a, b)| (a.start, b.start));
        let (side, moved) = if a.is_empty() { (new, &b) } else { (old, &a) };
        if a.is_empty() != b.is_empty() {
            let most = next_a - a.end;
            let by = (0..most).take_while(|n| side[moved.start + n] == side[moved.end + n]).count();
            (a, b) = (a.start + by..a.end + by, b.start + by..b.end + by);
        }
        match out.last_mut() {
            Some(last) if a.end == next_a && b.end == next_b => {
                *last = (a.start..last.0.end, b.start..last.1.end)
            }
            _ => out.push((a, b)),
        }
    }
    out.reverse();
    out
}

/// The search for elements that match.
struct Search<'a> {
    a: &'a [u32],
    b: &'a [u32],
    budget: &'a mut Budget,
    /// Places of both sides, in order.
    matches: Vec<(usize, usize)>,
}

impl Search<'_> {
    fn solve(&mut self, mut a: Range<usize>, mut b: Range<usize>, rounds: usize) {
        while !a.is_empty() && !b.is_empty() && self.a[a.start] == self.b[b.start] {
            self.matches.push((a.start, b.start));
            (a.start, b.start) = (a.start + 1, b.start + 1);
        }
        let mut tail = 0;
        while !a.is_empty() && !b.is_empty() && self.a[a.end - 1] == self.b[b.end - 1] {
            (a.end, b.end, tail) = (a.end - 1, b.end - 1, tail + 1);
        }
        if !a.is_empty() && !b.is_empty() {
            match middle(&self.a[a.clone()], &self.b[b.clone()], self.budget) {
                Some((i, j)) => {
                    let (i, j) = (a.start + i, b.start + j);
                    self.solve(a.start..i, b.start..j, rounds);
                    self.solve(i..a.end, j..b.end, rounds);
                }
                None => self.patience(a.clone(), b.clone(), rounds),
            }
        }
        self.matches.extend((0..tail).map(|n| (a.end + n, b.end + n)));
    }

    /// Matches what occurs once on each side, in the same order, and looks between.
    fn patience(&mut self, a: Range<usize>, b: Range<usize>, rounds: usize) {
        if rounds == PATIENCE_ROUNDS {
            return;
        }
        let mut seen: HashMap<u32, [(u32, usize); 2]> = HashMap::new();
        for (side, (items, range)) in [(self.a, a.clone()), (self.b, b.clone())].into_iter().enumerate() {
            for at in range {
                let place = &mut seen.entry(items[at]).or_default()[side];
                *place = (place.0 + 1, at);
            }
        }
        let once = seen.into_values().filter(|[a, b]| a.0 == 1 && b.0 == 1);
        let mut once: Vec<(usize, usize)> = once.map(|[a, b]| (a.1, b.1)).collect();
        once.sort_unstable();
        let anchors = longest_rising(&once);
        if anchors.is_empty() {
            return;
        }
        let (mut i, mut j) = (a.start, b.start);
        for (to_i, to_j) in anchors {
            self.solve(i..to_i, j..to_j, rounds + 1);
            self.matches.push((to_i, to_j));
            (i, j) = (to_i + 1, to_j + 1);
        }
        self.solve(i..a.end, j..b.end, rounds + 1);
    }
}

/// The longest run of pairs, sorted by their first part, whose second parts rise.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // Of each length, the pair that ends it with the smallest second part.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (n, pair) in pairs.iter().enumerate() {
        let len = ends.partition_point(|end| pairs[*end].1 < pair.1);
        before.push(len.checked_sub(1).map(|len| ends[len]));
        if len == ends.len() {
            ends.push(n);
        } else {
            ends[len] = n;
        }
    }
    let mut rising = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(n) = at {
        rising.push(pairs[n]);
        at = before[n];
    }
    rising.reverse();
    rising
}

/// A point on a shortest way through the table of two sequences that begin and end differently: where the searches from both ends
/// meet (Myers 1986, linear space). `None` if that takes more work than is left.
fn middle(a: &[u32], b: &[u32], budget: &mut Budget) -> Option<(usize, usize)> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let delta = n - m;
    // The rounds up to `d` take more than `d * d` steps.
    let most = ((n + m + 1) / 2 + 1).min(budget.0.isqrt() as isize);
    let center = most + 1;
    let at = |k: isize| (center + k) as usize;
    // The furthest place on each diagonal, from the start and from the end.
    let mut front = vec![0_isize; at(most) + 2];
    let mut back = front.clone();
    for d in 0..most {
        if !budget.take(2 * d as usize + 2) {
            return None;
        }
        for k in (-d..=d).rev().step_by(2) {
            let from = furthest(&front, at(k), k, d);
            let mut x = from;
            while x < n && x - k < m && a[x as usize] == b[(x - k) as usize] {
                x += 1;
            }
            if !budget.take((x - from) as usize) {
                return None;
            }
            front[at(k)] = x;
            let other = delta - k;
            if delta % 2 != 0 && other.abs() < d && x + back[at(other)] >= n {
                return point(from, from - k, n, m);
            }
        }
        for k in (-d..=d).rev().step_by(2) {
            let from = furthest(&back, at(k), k, d);
            let mut x = from;
            while x < n && x - k < m && a[(n - 1 - x) as usize] == b[(m - 1 - (x - k)) as usize] {
                x += 1;
            }
            if !budget.take((x - from) as usize) {
                return None;
            }
            back[at(k)] = x;
            let other = delta - k;
            if delta % 2 == 0 && other.abs() <= d && x + front[at(other)] >= n {
                return point(n - x, m - (x - k), n, m);
            }
        }
    }
    None
}

/// How far the last round came on a neighbouring diagonal, and one step from there.
fn furthest(places: &[isize], at: usize, k: isize, d: isize) -> isize {
    if k == -d || (k != d && places[at - 1] < places[at + 1]) { places[at + 1] } else { places[at - 1] + 1 }
}

/// A point that splits the table in two.
fn point(x: isize, y: isize, n: isize, m: isize) -> Option<(usize, usize)> {
    let splits = (0..=n).contains(&x) && (0..=m).contains(&y) && (x, y) != (0, 0) && (x, y) != (n, m);
    splits.then_some((x as usize, y as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The new side, made from the old one by the changes.
    fn apply<'s>(old: &[&'s str], new: &[&'s str], changes: &[Change]) -> Vec<&'s str> {
        let mut out = Vec::new();
        let mut at = 0;
        for (a, b) in changes {
            out.extend(&old[at..a.start]);
            out.extend(&new[b.clone()]);
            at = a.end;
        }
        out.extend(&old[at..]);
        out
    }

    /// The length of a longest common subsequence, by the table.
    fn common(a: &[&str], b: &[&str]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut last = 0;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = if x == y { last + 1 } else { above.max(row[j]) };
                last = above;
            }
        }
        row[b.len()]
    }

    fn letters(text: &str) -> Vec<&str> {
        text.split("").filter(|c| !c.is_empty()).collect()
    }

    #[test]
    fn an_insertion_stands_in_the_last_of_its_places() {
        let of = |old, new| changes(&letters(old), &letters(new), &mut Budget::new());
        assert_eq!(of("aab", "aaab"), [(2..2, 2..3)]);
        assert_eq!(of("x y", "x z y"), [(2..2, 2..4)]);
        assert_eq!(of("aaab", "aab"), [(2..3, 2..2)]);
    }

    #[test]
    fn without_work_left_what_occurs_once_is_still_found() {
        let old: Vec<String> = (0..5_000).map(|n| format!("line {n}")).collect();
        let mut new = old.clone();
        new.reverse();
        new.splice(1_000..1_000, (0..3_000).map(|n| format!("new {n}")));
        let (old, new): (Vec<&str>, Vec<&str>) =
            (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
        let changes = changes(&old, &new, &mut Budget(1_000));
        assert_eq!(apply(&old, &new, &changes), new);
    }

    proptest! {
        #[test]
        fn changes_are_right_and_few(old in "[abc]{0,30}", new in "[abc]{0,30}", work in 0_usize..400) {
            let (old, new) = (letters(&old), letters(&new));
            let least = changes(&old, &new, &mut Budget::new());
            prop_assert_eq!(apply(&old, &new, &least), new.clone());
            let kept = old.len() - least.iter().map(|(a, _)| a.len()).sum::<usize>();
            prop_assert_eq!(kept, common(&old, &new));
            let bounded = changes(&old, &new, &mut Budget(work));
            prop_assert_eq!(apply(&old, &new, &bounded), new);
        }
    }
}
