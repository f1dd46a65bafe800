//! What each side of a merge has changed, and what of that hangs together.

use std::ops::Range;

use super::spacing::{has_end, has_start, is_spacing};
use crate::doc::text::diff::{Hunk, by_line, refined};
use crate::doc::text::sequence::Budget;

/// A side of a merge.
pub(super) struct Side<'a> {
    pub(super) text: &'a str,
    pub(super) lines: Vec<Hunk>,
    pub(super) words: Vec<Hunk>,
    /// All words that it changed, with those that the other side inserted as well.
    all: Vec<Hunk>,
}

impl<'a> Side<'a> {
    pub(super) fn new(old: &str, text: &'a str) -> Self {
        let budget = &mut Budget::new();
        let lines = by_line(old, text, budget);
        let words = refined(old, text, &lines, budget);
        let all = words.clone();
        Self { text, lines, words, all }
    }

    /// Where a part of the old text stands now, with what was inserted at its ends; in characters.
    pub(super) fn place_of(&self, old: &Range<usize>) -> Range<usize> {
        let at = |hunk: Option<&Hunk>, at: usize| hunk.map_or(at, |hunk| hunk.new.end + at - hunk.old.end);
        let before = self.all.partition_point(|hunk| hunk.old.end <= old.start && hunk.old.start < old.start);
        let upto = self.all.partition_point(|hunk| hunk.old.end <= old.end);
        let start = at(before.checked_sub(1).map(|last| &self.all[last]), old.start);
        let end = at(upto.checked_sub(1).map(|last| &self.all[last]), old.end).max(start);
        let chars = self.text[..start].chars().count();
        chars..chars + self.text[start..end].chars().count()
    }

    pub(super) fn inserts(&self, hunk: &Hunk) -> &'a str {
        &self.text[hunk.new.clone()]
    }

    /// What hunks that follow each other put in, in characters.
    pub(super) fn put_in(&self, hunks: &[Hunk]) -> Range<usize> {
        let (Some(first), Some(last)) = (hunks.first(), hunks.last()) else { return 0..0 };
        let start = self.text[..first.new.start].chars().count();
        start..start + self.text[first.new.start..last.new.end].chars().count()
    }

    /// What the hunks, all of which lie in it, make of a range of the old text.
    pub(super) fn version(&self, old: &str, range: &Range<usize>, hunks: &[Hunk]) -> String {
        let (mut text, mut at) = (String::new(), range.start);
        for hunk in hunks {
            text.push_str(&old[at..hunk.old.start]);
            text.push_str(self.inserts(hunk));
            at = hunk.old.end;
        }
        text + &old[at..range.end]
    }
}

/// Takes an insertion of one side out that the other side made as well, as the start or the end of a replacement beside it.
pub(super) fn drop_doubled(sides: &mut [Side<'_>; 2]) {
    for side in [0, 1] {
        let other = &sides[1 - side];
        let is_doubled = |hunk: &Hunk, text: &str| {
            let at = other.words.partition_point(|other| other.old.end < hunk.old.start);
            let near = other.words[at..].iter().take_while(|other| other.old.start <= hunk.old.start);
            near.filter(|other| !other.old.is_empty()).any(|near| {
                let whole = other.inserts(near);
                near.old.end == hunk.old.start && has_end(whole, text)
                    || near.old.start == hunk.old.start && has_start(whole, text)
            })
        };
        let mut kept = sides[side].words.clone();
        let text = sides[side].text;
        kept.retain(|hunk| {
            let inserted = &text[hunk.new.clone()];
            !hunk.old.is_empty() || is_spacing(inserted) || !is_doubled(hunk, inserted)
        });
        sides[side].words = kept;
    }
}

/// A part of the old text, and those hunks of both sides that hang together in it.
pub(super) struct Region {
    pub(super) old: Range<usize>,
    pub(super) hunks: [Range<usize>; 2],
}

/// The regions in which two lists of hunks fall. Hunks that only touch do not hang together: it is clear which comes first. Two
/// insertions in one place do.
pub(super) fn regions(sides: [&[Hunk]; 2]) -> Vec<Region> {
    let hang_together =
        |a: &Range<usize>, b: &Range<usize>| (a.start < b.end && b.start < a.end) || (a.is_empty() && a == b);
    let mut next = [0, 0];
    let mut regions = Vec::new();
    loop {
        let heads = [0, 1].map(|side| sides[side].get(next[side]).map(|hunk| (hunk.old.start, hunk.old.end)));
        let first = match heads {
            [None, None] => return regions,
            [Some(_), None] => 0,
            [None, Some(_)] => 1,
            [Some(a), Some(b)] => usize::from(b < a),
        };
        let mut old = sides[first][next[first]].old.clone();
        let from = next;
        next[first] += 1;
        loop {
            let before = next;
            for side in [0, 1] {
                while let Some(hunk) = sides[side].get(next[side]).filter(|h| hang_together(&old, &h.old)) {
                    old = old.start.min(hunk.old.start)..old.end.max(hunk.old.end);
                    next[side] += 1;
                }
            }
            if next == before {
                break;
            }
        }
        regions.push(Region { old, hunks: [from[0]..next[0], from[1]..next[1]] });
    }
}
