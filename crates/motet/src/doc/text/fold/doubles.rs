//! What stands in a merged text a second time, because both sides have inserted it.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::{Fold, Gap};
use crate::doc::text::diff::lines;
use crate::doc::text::merge::{contains_part, is_spacing};
use crate::doc::text::sequence::{Budget, changes};
use crate::limits;

impl Fold<'_> {
    /// Characters that stand there a second time.
    pub(super) fn doubles(&self) -> HashSet<usize> {
        let mut gone = HashSet::new();
        for gap in &self.gaps {
            self.doubles_in(gap, &mut gone);
        }
        for pair in self.gaps.windows(2) {
            gone.extend(self.slid_double(&pair[0], &pair[1]));
        }
        gone
    }

    fn doubles_in(&self, gap: &Gap, gone: &mut HashSet<usize>) {
        let [ours, theirs] = gap.own.each_ref().map(|own| self.text(own));
        if ours.is_empty() || theirs.is_empty() {
            return;
        }
        let out = if ours == theirs {
            if !ours.contains(char::is_whitespace) && !self.begin_alike(gap) {
                // Letters of different places of a word.
                return;
            }
            // Of two equal ones the later is the one that the rest of a line follows.
            usize::from((gap.own[0][0] < gap.own[1][0]) != begins_line(&ours))
        } else if ours.contains('\n') && without_returns(&ours) == without_returns(&theirs) {
            // The same lines: they end as the others do.
            let is_crlf = self.woven.chars[..gap.range.start].ends_with(&['\r', '\n']);
            let returns = |text: &str| text.matches('\r').count();
            usize::from(((returns(&ours), &ours) < (returns(&theirs), &theirs)) != is_crlf)
        } else if is_spacing(&ours) && is_spacing(&theirs) {
            let rank = |text: &str| (text.matches('\n').count(), text.len());
            match rank(&ours).cmp(&rank(&theirs)) {
                Ordering::Less => 0,
                Ordering::Greater => 1,
                Ordering::Equal => return,
            }
        } else if self.is_part(gap, 1, [&ours, &theirs]) {
            1
        } else if self.is_part(gap, 0, [&theirs, &ours]) {
            0
        } else {
            return self.double_lines(gap, [&ours, &theirs], gone);
        };
        gone.extend(&gap.own[out]);
    }

    /// Whether what the other side inserted in a gap has all that `side` did. What replaced words that the other side kept, and went on behind,
    /// is no part of that.
    fn is_part(&self, gap: &Gap, side: usize, [whole, part]: [&str; 2]) -> bool {
        let is_line_end = self.is_line_edge(gap) == [false, true];
        contains_part(whole, part, is_line_end) && !self.is_kept_beside(gap, 1 - side)
    }

    /// Whether a side has kept words beside what it inserted in a gap that the other has taken out.
    fn is_kept_beside(&self, gap: &Gap, side: usize) -> bool {
        let own = &gap.own[side];
        let places = own.first().zip(own.last()).and_then(|(first, last)| {
            let at = &self.woven.at[side];
            Some((at[*first]?, at[*last]?))
        });
        let Some((first, last)) = places else { return false };
        let standing = &self.standing[side];
        let is_gone =
            |place: Option<usize>| place.and_then(|place| standing.get(place)).is_some_and(Option::is_none);
        let is_inside = standing[first..=last].iter().any(Option::is_none);
        is_inside || is_gone(first.checked_sub(1)) || is_gone(last.checked_add(1))
    }

    /// Whether what both sides inserted stands behind the same character in both versions.
    fn begin_alike(&self, gap: &Gap) -> bool {
        let before = |side: usize| {
            let first = self.woven.at[side][*gap.own[side].first()?]?;
            let last = first.checked_sub(1)?;
            // A character that is not there any more is known to one side alone.
            Some(self.standing[side][last].filter(|at| self.woven.at[1 - side][*at].is_some()))
        };
        match [before(0), before(1)] {
            [Some(ours), Some(theirs)] => ours.is_some() && ours == theirs,
            [ours, theirs] => ours == theirs,
        }
    }

    /// Lines that both sides inserted among others.
    fn double_lines(&self, gap: &Gap, texts: [&str; 2], gone: &mut HashSet<usize>) {
        // Which lines are found to be alike must not depend on whose they are.
        let sides = if texts[0] < texts[1] { [0, 1] } else { [1, 0] };
        let [left, right] = sides.map(|side| lines(texts[side]));
        if left.len() < 2 || right.len() < 2 {
            return;
        }
        let starts = [&left, &right].map(|lines| {
            let ends = lines.iter().scan(0, |at, line| {
                *at += line.chars().count();
                Some(*at)
            });
            [0].into_iter().chain(ends).collect::<Vec<_>>()
        });
        // Whatever they end with.
        let alike =
            [&left, &right].map(|lines| lines.iter().map(|line| without_returns(line)).collect::<Vec<_>>());
        let [left, right] =
            alike.each_ref().map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
        // Of two equal lines the one that goes: what only begins a line stays where the rest of the line follows.
        let double = |x: usize, y: usize| {
            let [first, second] = [(0, x), (1, y)].map(|(n, line)| {
                let own = &gap.own[sides[n]];
                &own[starts[n][line]..starts[n][line + 1]]
            });
            let is_first = (first[0] < second[0]) == left[x].ends_with('\n');
            if is_first { second } else { first }
        };
        let differ = changes(&left, &right, &mut Budget::new());
        let (mut i, mut j) = (0, 0);
        let mut differing = [Vec::new(), Vec::new()];
        for (a, b) in differ.into_iter().chain([(left.len()..left.len(), right.len()..right.len())]) {
            let alike = i..a.start;
            // A blank line alone may part other verses there.
            if left[alike.clone()].iter().any(|line| !is_spacing(line)) {
                alike.zip(j..b.start).for_each(|(x, y)| gone.extend(double(x, y)));
            }
            (i, j) = (a.end, b.end);
            differing[0].extend(a);
            differing[1].extend(b);
        }
        // The same lines in another order.
        let [ours, mut theirs] = differing;
        for x in ours.into_iter().filter(|x| left[*x].ends_with('\n') && !is_spacing(left[*x])) {
            if let Some(at) = theirs.iter().position(|y| left[x] == right[*y]) {
                gone.extend(double(x, theirs.remove(at)));
            }
        }
    }

    /// What both sides inserted alike, but one before and the other behind something that both know: either way the same text comes
    /// out.
    fn slid_double<'g>(&self, first: &Gap, second: &'g Gap) -> &'g [usize] {
        let apart = first.range.end..second.range.start;
        let is_known = self.woven.at.iter().all(|at| at[apart.clone()].iter().all(Option::is_some));
        let between = &self.woven.chars[apart];
        let side = usize::from(first.own[0].is_empty());
        let (ours, theirs) = (&first.own[side], &second.own[1 - side]);
        let is_alone = first.own[1 - side].is_empty() && second.own[side].is_empty();
        if !is_alone || !is_known || between.len() > limits::APART_CHARACTERS || ours.len() != theirs.len() {
            return &[];
        }
        let between: String = between.iter().collect();
        let is_alike = self.text(ours) + &between == between.clone() + &self.text(theirs);
        if is_alike { theirs } else { &[] }
    }
}

/// A text whose lines end alike.
fn without_returns(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Whether what was inserted ends with the beginning of a line, which goes on with what stood there.
fn begins_line(inserted: &str) -> bool {
    inserted.contains('\n') && !inserted.ends_with('\n')
}
