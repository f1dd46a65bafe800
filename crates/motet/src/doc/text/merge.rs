//! Two versions of a text that was one, brought together by the texts alone: where both changed the same lines, and what a text is
//! that holds the edits of both. Whichever side is one's own, the result is the same.

mod sides;
mod spacing;

use std::ops::Range;

use self::sides::{Region, Side, drop_doubled, regions};
pub(super) use self::spacing::{contains_part, is_spacing};
use self::spacing::{is_glued, joined, push_apart};
use super::diff::{Hunk, diff, inside};
use super::sequence::Budget;
use super::{Splice, is_too_much, push_line};

/// What brings the edits of the other side into a text that one side has put in the place of the old one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CarriedOver {
    /// What is to be changed in the new text, from its end to its start.
    pub(crate) splices: Vec<Splice>,
    /// The whole text after that; only if so much is changed that it is better put anew.
    pub(crate) anew: Option<String>,
}

/// Lines that two sides changed differently.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// What stood there before.
    pub(crate) old: String,
    /// What each side made of it.
    pub(crate) versions: [String; 2],
    /// Where both replaced the same words, or one deleted what the other changed: somebody has to choose. Empty if both edits went
    /// well together.
    pub(crate) open: Vec<Open>,
}

/// Where two sides met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Meetings {
    /// Where both changed the same lines, or lines next to each other, and not alike.
    pub(crate) overlaps: Vec<Overlap>,
    /// Where both changed the same words, or words with nothing between.
    pub(crate) places: Vec<TouchingEdits>,
}

/// A part of the old text in which edits of both sides touch each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TouchingEdits {
    /// What stands there on each side, in characters of its version.
    pub(crate) new: [Range<usize>; 2],
    /// What both together are.
    pub(crate) text: String,
    /// Somebody has to choose.
    pub(crate) is_open: bool,
    /// Each side corrected other letters of one word.
    pub(crate) is_corrected: bool,
}

/// Words of which two sides made something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Both versions, one after the other, in the lines in which they stand.
    pub(crate) text: String,
    /// What each side put in their place, in characters of its version.
    pub(crate) new: [Range<usize>; 2],
}

/// Brings into `new`, which shows in the place of `old`, what both sides made of the old text: what both inserted alike once, and where
/// both rewrote the same words, both versions whole, one after the other.
pub(crate) fn carry_over(old: &str, sides: [&str; 2], new: &str, is_current: bool) -> CarriedOver {
    let text = match sides {
        [ours, theirs] if ours == theirs => ours.to_owned(),
        sides => Merge::of(old, sides).out,
    };
    let splices = diff(new, &text);
    let anew = is_too_much(&splices, new.chars().count(), is_current).then_some(text);
    CarriedOver { splices, anew }
}

/// What becomes of a text in whose place both sides have put a new one.
pub(crate) fn put_together(old: &str, sides: [&str; 2]) -> CarriedOver {
    CarriedOver { splices: Vec::new(), anew: Some(Merge::of(old, sides).out) }
}

/// What two sides made of the same places of a text.
pub(crate) fn meetings(old: &str, sides: [&str; 2]) -> Meetings {
    match sides {
        [ours, theirs] if ours == theirs || ours == old || theirs == old => Meetings::default(),
        sides => {
            let merge = Merge::of(old, sides);
            Meetings { overlaps: merge.overlaps(), places: merge.places() }
        }
    }
}

struct Merge<'a> {
    old: &'a str,
    sides: [Side<'a>; 2],
    out: String,
    /// Words have just been put next to each other that did not stand so before.
    is_seam: bool,
    open: Vec<OpenPlace>,
    /// Parts of the old text that hunks changed which touch each other, where they stand in `out`, and whose hunks they are.
    touched: Vec<Touched>,
}

/// A part of the old text of which both sides made something else, where it stands in `out`, and what each side put there.
struct OpenPlace {
    old: Range<usize>,
    out: Range<usize>,
    new: [Range<usize>; 2],
}

impl OpenPlace {
    fn meets(&self, old: &Range<usize>) -> bool {
        self.old.start < old.end && old.start < self.old.end
    }
}

struct Touched {
    old: Range<usize>,
    out: Range<usize>,
    by: [bool; 2],
    is_corrected: bool,
}

impl<'a> Merge<'a> {
    fn of(old: &'a str, texts: [&'a str; 2]) -> Self {
        let mut sides = texts.map(|text| Side::new(old, text));
        drop_doubled(&mut sides);
        let mut merge =
            Self { old, sides, out: String::new(), is_seam: false, open: Vec::new(), touched: Vec::new() };
        merge.run();
        merge
    }

    fn run(&mut self) {
        let (mut at, mut last) = (0, None::<Range<usize>>);
        for region in regions([&self.sides[0].words, &self.sides[1].words]) {
            self.push(&self.old[at..region.old.start]);
            let touches = self.touched.last().is_some_and(|last| last.old.end == region.old.start);
            let begin = self.out.len();
            let mut is_corrected = false;
            at = region.old.end;
            // Of the space between two words one side may have taken what the other relied on.
            if let Some(last) = last.replace(region.old.clone()) {
                let old = &self.old[last.start..region.old.end];
                self.is_seam |= last.end == region.old.start && old.contains(char::is_whitespace);
            }
            let [ours, theirs] = [0, 1].map(|side| &self.sides[side].words[region.hunks[side].clone()]);
            let by = [!ours.is_empty(), !theirs.is_empty()];
            let one_side = match (ours.is_empty(), theirs.is_empty()) {
                (false, false) => None,
                (empty, _) => Some(usize::from(empty)),
            };
            match one_side {
                Some(side) => {
                    let hunks = if side == 0 { ours } else { theirs };
                    let text = self.sides[side].version(self.old, &region.old, hunks);
                    self.push(&text);
                }
                None => is_corrected = self.join(&region),
            }
            let end = self.out.len();
            match self.touched.last_mut() {
                Some(last) if touches => {
                    (last.old.end, last.out.end, last.is_corrected) = (region.old.end, end, false);
                    last.by = [last.by[0] || by[0], last.by[1] || by[1]];
                }
                _ => self.touched.push(Touched { old: region.old, out: begin..end, by, is_corrected }),
            }
        }
        self.push(&self.old[at..]);
    }

    /// Takes over text that may meet words which it has not stood next to.
    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.is_seam) && is_glued(&self.out, text) {
            if let Some(last) = self.touched.last_mut().filter(|last| last.out.end == self.out.len()) {
                last.out.end += 1;
            }
            self.out.push(' ');
        }
        self.out.push_str(text);
    }

    /// Whether what is inserted brings lines of its own.
    fn is_apart(&self, at: usize, inserted: &str) -> bool {
        match self.begins_line(at) {
            true => inserted.ends_with('\n'),
            false => inserted.starts_with(['\r', '\n']),
        }
    }

    fn begins_line(&self, at: usize) -> bool {
        at == 0 || self.old[..at].ends_with('\n')
    }

    fn ends_line(&self, at: usize) -> bool {
        at == self.old.len() || self.old[at..].starts_with(['\r', '\n'])
    }

    /// Where edits of both sides touch each other.
    fn places(&self) -> Vec<TouchingEdits> {
        let met = self.touched.iter().filter(|touched| touched.by == [true, true]);
        let place = |touched: &Touched| TouchingEdits {
            new: self.sides.each_ref().map(|side| side.place_of(&touched.old)),
            text: self.out[touched.out.clone()].to_owned(),
            is_corrected: touched.is_corrected,
            is_open: self.open.iter().any(|open| open.meets(&touched.old)),
        };
        met.map(place).collect()
    }

    /// A region that both sides changed. Whether each corrected other letters.
    fn join(&mut self, region: &Region) -> bool {
        let hunks = [0, 1].map(|side| &self.sides[side].words[region.hunks[side].clone()]);
        let versions = [0, 1].map(|side| self.sides[side].version(self.old, &region.old, hunks[side]));
        let deletes = hunks.map(|hunks| hunks.iter().all(|hunk| hunk.new.is_empty()));
        let (mut is_corrected, mut open) = (false, None);
        let text = if versions[0] == versions[1] {
            versions[0].clone()
        } else if deletes == [true, true] {
            self.without(&region.old, hunks)
        } else if let Some(text) = self.by_letter(&region.old, hunks) {
            is_corrected = true;
            text
        } else {
            self.is_seam = true;
            let text = match deletes {
                [true, _] => self.edited(&region.old, 1, hunks),
                [_, true] => self.edited(&region.old, 0, hunks),
                _ => self.both(region, hunks, versions.clone()),
            };
            // Where one version has all of the other, there is nothing to choose.
            let is_one = deletes == [false, false] && versions.contains(&text);
            if !is_spacing(&self.old[region.old.clone()]) && !is_one {
                let new = [0, 1].map(|side| self.sides[side].put_in(hunks[side]));
                open = Some(new);
            }
            text
        };
        let (is_seam, begin) = (self.is_seam, self.out.len());
        self.push(&text);
        self.is_seam = is_seam;
        let out = begin..self.out.len();
        self.open.extend(open.map(|new| OpenPlace { old: region.old.clone(), out, new }));
        is_corrected
    }

    /// What deletions of both sides leave.
    fn without(&self, range: &Range<usize>, hunks: [&[Hunk]; 2]) -> String {
        let (mut text, mut at) = (String::new(), range.start);
        let mut gone: Vec<&Range<usize>> = hunks.into_iter().flatten().map(|hunk| &hunk.old).collect();
        gone.sort_unstable_by_key(|range| range.start);
        for part in gone {
            text.push_str(&self.old[at..part.start.max(at)]);
            at = at.max(part.end);
        }
        text + &self.old[at..range.end]
    }

    /// Both sides corrected different letters of the same words.
    fn by_letter(&self, range: &Range<usize>, hunks: [&[Hunk]; 2]) -> Option<String> {
        let [[ours], [theirs]] = hunks else { return None };
        if ours.old != *range || theirs.old != *range {
            return None;
        }
        let budget = &mut Budget::new();
        let ours = inside(self.old, self.sides[0].text, ours, budget)?;
        let theirs = inside(self.old, self.sides[1].text, theirs, budget)?;
        let (mut text, mut at) = (String::new(), range.start);
        for region in regions([&ours, &theirs]) {
            let hunks = [&ours[region.hunks[0].clone()], &theirs[region.hunks[1].clone()]];
            let versions = [0, 1].map(|side| self.sides[side].version(self.old, &region.old, hunks[side]));
            text.push_str(&self.old[at..region.old.start]);
            at = region.old.end;
            match hunks.map(<[Hunk]>::is_empty) {
                [true, _] => text.push_str(&versions[1]),
                [_, true] => text.push_str(&versions[0]),
                _ if versions[0] == versions[1] => text.push_str(&versions[0]),
                _ => return None,
            }
        }
        Some(text + &self.old[at..range.end])
    }

    /// What `side` edited in a range of which the other side only deleted parts: an edit outlives a delete that has not seen it, in
    /// lines as in documents. Of whole lines those lines stay that were edited, of a part of a line the words.
    fn edited(&self, range: &Range<usize>, side: usize, hunks: [&[Hunk]; 2]) -> String {
        let kept = self.touched(range, side, hunks[side]);
        let deleted = hunks[1 - side];
        let mut text = String::new();
        let mut at = range.start;
        for (part, hunks) in kept {
            push_apart(&mut text, &self.left_of(at..part.start, deleted));
            push_apart(&mut text, &self.sides[side].version(self.old, &part, hunks));
            at = part.end;
        }
        push_apart(&mut text, &self.left_of(at..range.end, deleted));
        text
    }

    /// What is left of a range after deletions.
    fn left_of(&self, range: Range<usize>, deleted: &[Hunk]) -> String {
        let (mut text, mut at) = (String::new(), range.start);
        for hunk in deleted.iter().filter(|h| h.old.start < range.end && h.old.end > range.start) {
            text.push_str(&self.old[at..hunk.old.start.max(at)]);
            at = at.max(hunk.old.end.min(range.end));
        }
        text + &self.old[at..range.end]
    }

    /// The parts of a range that hunks changed: whole lines, if the range is of lines.
    fn touched<'h>(
        &self,
        range: &Range<usize>,
        side: usize,
        hunks: &'h [Hunk],
    ) -> Vec<(Range<usize>, &'h [Hunk])> {
        let mut parts: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (n, hunk) in hunks.iter().enumerate() {
            // Lines put between others touch neither of them.
            let is_between = hunk.old.is_empty()
                && (hunk.old.start == 0 || self.old[..hunk.old.start].ends_with('\n'))
                && self.sides[side].inserts(hunk).ends_with('\n');
            let part = self.widened(range, &hunk.old).filter(|_| !hunk.new.is_empty() && !is_between);
            let part = part.unwrap_or_else(|| hunk.old.clone());
            match parts.last_mut() {
                Some((last, of)) if part.start < last.end => {
                    last.end = last.end.max(part.end);
                    of.end = n + 1;
                }
                _ => parts.push((part, n..n + 1)),
            }
        }
        parts.into_iter().map(|(part, of)| (part, &hunks[of])).collect()
    }

    /// The whole lines that a part touches, if they lie in `range`.
    fn widened(&self, range: &Range<usize>, part: &Range<usize>) -> Option<Range<usize>> {
        let start = self.old[..part.start].rfind('\n').map_or(0, |at| at + 1);
        let is_whole = part.end > part.start && self.old[..part.end].ends_with('\n');
        let rest = self.old[part.end..].find('\n').map_or(self.old.len(), |at| part.end + at + 1);
        let end = if is_whole { part.end } else { rest };
        (range.start <= start && end <= range.end).then_some(start..end)
    }

    /// Both versions of a region, one after the other. Of whole lines each side gives those that it touched.
    fn both(&self, region: &Region, hunks: [&[Hunk]; 2], mut versions: [String; 2]) -> String {
        if self.widened(&region.old, &region.old).is_some_and(|lines| lines == region.old) {
            for side in [0, 1] {
                versions[side].clear();
                for (part, hunks) in self.touched(&region.old, side, hunks[side]) {
                    let lines = self.sides[side].version(self.old, &part, hunks);
                    push_line(&mut versions[side], &lines);
                }
            }
        }
        let [a, b] = &versions;
        let begins_line = self.begins_line(region.old.start);
        let is_line_end = self.ends_line(region.old.end) && !begins_line;
        if !region.old.is_empty() {
            return if a < b { joined(a, b, is_line_end) } else { joined(b, a, is_line_end) };
        }
        // What goes on with a line stands beside it, and what brings lines of its own outside.
        match [a, b].map(|text| self.is_apart(region.old.start, text)) {
            [true, false] if begins_line => a.clone() + b,
            [true, false] => b.clone() + a,
            [false, true] if begins_line => b.clone() + a,
            [false, true] => a.clone() + b,
            _ if a < b => joined(a, b, is_line_end),
            _ => joined(b, a, is_line_end),
        }
    }

    /// The lines of what came out that a part of it touches.
    fn whole_lines(&self, part: &Range<usize>) -> &str {
        let start = self.out[..part.start].rfind('\n').map_or(0, |at| at + 1);
        let is_whole = part.end > part.start && self.out[..part.end].ends_with('\n');
        let rest = self.out[part.end..].find('\n').map_or(self.out.len(), |at| part.end + at);
        &self.out[start..if is_whole { part.end } else { rest }]
    }

    /// The places where both sides changed the same lines, or lines next to each other.
    fn overlaps(&self) -> Vec<Overlap> {
        let [ours, theirs] = [0, 1].map(|side| &self.sides[side].lines);
        let (mut i, mut j) = (0, 0);
        let mut overlaps = Vec::new();
        while let (Some(a), Some(b)) = (ours.get(i), theirs.get(j)) {
            if a.old.end < b.old.start {
                i += 1;
                continue;
            }
            if b.old.end < a.old.start {
                j += 1;
                continue;
            }
            // Everything that hangs together is one place.
            let mut range = a.old.start.min(b.old.start)..a.old.end.max(b.old.end);
            let from = (i, j);
            loop {
                let before = (i, j);
                while let Some(hunk) = ours.get(i).filter(|hunk| hunk.old.start <= range.end) {
                    (range, i) = (range.start.min(hunk.old.start)..range.end.max(hunk.old.end), i + 1);
                }
                while let Some(hunk) = theirs.get(j).filter(|hunk| hunk.old.start <= range.end) {
                    (range, j) = (range.start.min(hunk.old.start)..range.end.max(hunk.old.end), j + 1);
                }
                if (i, j) == before {
                    break;
                }
            }
            let versions = [
                self.sides[0].version(self.old, &range, &ours[from.0..i]),
                self.sides[1].version(self.old, &range, &theirs[from.1..j]),
            ];
            if versions[0] != versions[1] {
                let open = self.open.iter().filter(|open| open.meets(&range));
                let open = open
                    .map(|open| Open { text: self.whole_lines(&open.out).to_owned(), new: open.new.clone() });
                let open: Vec<Open> = open.collect();
                let old = &self.old[range];
                // Where one side did all that the other did, and more, there is nothing that does not show.
                let shows_one = || {
                    let both = Merge::of(old, versions.each_ref().map(String::as_str)).out;
                    versions.contains(&both)
                };
                if !open.is_empty() || !shows_one() {
                    overlaps.push(Overlap { old: old.to_owned(), versions, open });
                }
            }
        }
        overlaps
    }
}
