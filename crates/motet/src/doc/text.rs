//! Whole texts: what changed between two, and what two together hold.

use std::collections::HashSet;

use similar::{Algorithm, DiffTag, capture_diff_slices};
use unicode_segmentation::UnicodeSegmentation;

/// One replacement, in Unicode code points of the old text. Splices are given from the end of the text to its start,
/// so that each one's position is still right when it is applied.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Splice {
    pub(crate) at: usize,
    pub(crate) delete: usize,
    pub(crate) insert: String,
}

/// The splices that turn `old` into `new`: by line first, then by word inside changed lines, then by grapheme inside
/// changed words. Lines keep a verse from being torn across another, graphemes keep a kahakō with its letter.
pub(crate) fn diff(old: &str, new: &str) -> Vec<Splice> {
    let mut splices = Vec::new();
    refine(old, new, 0, Level::Line, &mut splices);
    splices.reverse();
    splices
}

/// Both texts in one: common lines once, differing lines of both, `first` before `second`.
pub(crate) fn union(first: &str, second: &str) -> String {
    let (a, b) = (Level::Line.split(first), Level::Line.split(second));
    let mut out = String::with_capacity(first.len() + second.len());
    for (tag, ours, theirs) in walk(&a, &b) {
        ours.iter().for_each(|line| push_line(&mut out, line));
        if tag != DiffTag::Equal {
            theirs.iter().for_each(|line| push_line(&mut out, line));
        }
    }
    out
}

/// Lines that two sides changed differently.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// What stood there before.
    pub(crate) old: String,
    /// What each side made of it.
    pub(crate) versions: [String; 2],
}

/// The places where both sides changed the same lines, or lines next to each other, and not alike.
pub(crate) fn overlaps(old: &str, ours: &str, theirs: &str) -> Vec<Overlap> {
    let lines = Level::Line.split(old);
    let sides = [hunks(&lines, ours), hunks(&lines, theirs)];
    let mut overlaps = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (sides[0].get(i), sides[1].get(j)) {
        if a.old.end < b.old.start {
            i += 1;
            continue;
        }
        if b.old.end < a.old.start {
            j += 1;
            continue;
        }
        // Everything that hangs together is one place.
        let (mut start, mut end) = (a.old.start.min(b.old.start), a.old.end.max(b.old.end));
        let (from_i, from_j) = (i, j);
        loop {
            let before = (i, j);
            while let Some(hunk) = sides[0].get(i).filter(|hunk| hunk.old.start <= end) {
                (start, end, i) = (start.min(hunk.old.start), end.max(hunk.old.end), i + 1);
            }
            while let Some(hunk) = sides[1].get(j).filter(|hunk| hunk.old.start <= end) {
                (start, end, j) = (start.min(hunk.old.start), end.max(hunk.old.end), j + 1);
            }
            if (i, j) == before {
                break;
            }
        }
        let versions = [
            applied(&lines, start..end, &sides[0][from_i..i]),
            applied(&lines, start..end, &sides[1][from_j..j]),
        ];
        if versions[0] != versions[1] {
            overlaps.push(Overlap { old: lines[start..end].concat(), versions });
        }
    }
    overlaps
}

/// What both sides inserted alike, in the same place: where the second copy stands in the merged text, in code points. Given from
/// the start of the text to its end. Only what can hardly be chance: two people who begin different words with the same letter
/// in one place have not written the same.
pub(crate) fn alike(old: &str, ours: &str, theirs: &str, merged: &str) -> Vec<std::ops::Range<usize>> {
    let (mut ours, theirs) = (diff(old, ours), diff(old, theirs));
    ours.reverse();
    let known: HashSet<&Splice> = theirs.iter().collect();
    let alike: Vec<&Splice> =
        ours.iter().filter(|splice| !splice.insert.is_empty() && known.contains(splice)).collect();
    if alike.is_empty() {
        return Vec::new();
    }
    let old: Vec<char> = old.chars().collect();
    // What was done in one line was done for one reason: one splice that cannot be chance speaks for the others of its line.
    let lines = alike.chunk_by(|a, b| !old[a.at..b.at].contains(&'\n'));
    let candidates: Vec<&Splice> = lines
        .filter(|line| line.iter().any(|splice| is_one_thought(&old, splice)))
        .flatten()
        .copied()
        .collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    let mut deleted: Vec<(usize, usize)> =
        ours.iter().chain(&theirs).filter(|s| s.delete > 0).map(|s| (s.at, s.at + s.delete)).collect();
    deleted.sort_unstable();
    // What stands before a place: all that was there and is not deleted, and all that was inserted.
    let before = |at: usize| -> usize {
        let (mut gone, mut upto) = (0, 0);
        for (start, end) in deleted.iter().take_while(|(start, _)| *start < at) {
            let (start, end) = ((*start).max(upto), (*end).min(at));
            gone += end.saturating_sub(start);
            upto = upto.max(end);
        }
        let inserted = ours.iter().chain(&theirs).filter(|s| s.at < at);
        at - gone + inserted.map(|s| s.insert.chars().count()).sum::<usize>()
    };
    let merged: Vec<char> = merged.chars().collect();
    let mut twins = Vec::new();
    for twin in candidates {
        let insert: Vec<char> = twin.insert.chars().collect();
        let start = before(twin.at);
        let (middle, end) = (start + insert.len(), start + 2 * insert.len());
        if merged.get(start..middle) == Some(&insert) && merged.get(middle..end) == Some(&insert) {
            twins.push(middle..end);
        }
    }
    twins
}

/// Whether two people who both made this splice have had the same in mind. A part of a line: if it takes something out for it, is
/// more than one letter, or stands at a letter. More lines: if they are whole, with words in them.
fn is_one_thought(old: &[char], splice: &Splice) -> bool {
    let letters = splice.insert.chars().filter(|c| c.is_alphanumeric()).count();
    let before = splice.at.checked_sub(1).and_then(|at| old.get(at));
    if splice.insert.contains('\n') {
        let whole = splice.insert.ends_with('\n') && before.is_none_or(|c| *c == '\n');
        return splice.delete == 0 && whole && letters > 1;
    }
    let is_letter = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric());
    let is_mark = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    splice.delete > 0
        || letters > 1
        || splice.insert.contains(is_mark)
        || letters == 1 && (is_letter(before) || is_letter(old.get(splice.at)))
}

/// Lines of the old text that a side replaced, and by what.
struct Hunk {
    old: std::ops::Range<usize>,
    new: String,
}

fn hunks(lines: &[&str], new: &str) -> Vec<Hunk> {
    let mut hunks = Vec::new();
    let mut at = 0;
    for (tag, removed, inserted) in walk(lines, &Level::Line.split(new)) {
        if tag != DiffTag::Equal {
            hunks.push(Hunk { old: at..at + removed.len(), new: inserted.concat() });
        }
        at += removed.len();
    }
    hunks
}

/// What a side's hunks make of a range of lines.
fn applied(lines: &[&str], range: std::ops::Range<usize>, hunks: &[Hunk]) -> String {
    let (mut text, mut at) = (String::new(), range.start);
    for hunk in hunks {
        text.push_str(&lines[at..hunk.old.start].concat());
        text.push_str(&hunk.new);
        at = hunk.old.end;
    }
    text + &lines[at..range.end].concat()
}

#[derive(Clone, Copy)]
enum Level {
    Line,
    Word,
    Grapheme,
}

impl Level {
    fn split(self, text: &str) -> Vec<&str> {
        match self {
            Level::Line => text.split_inclusive('\n').collect(),
            Level::Word => text.split_word_bounds().collect(),
            Level::Grapheme => text.graphemes(true).collect(),
        }
    }

    fn finer(self) -> Option<Self> {
        match self {
            Level::Line => Some(Level::Word),
            Level::Word => Some(Level::Grapheme),
            Level::Grapheme => None,
        }
    }
}

fn refine(old: &str, new: &str, offset: usize, level: Level, splices: &mut Vec<Splice>) {
    if old == new {
        return;
    }
    let (a, b) = (level.split(old), level.split(new));
    let mut at = offset;
    for (op, removed, inserted) in walk(&a, &b) {
        let (removed, inserted) = (removed.concat(), inserted.concat());
        let len = removed.chars().count();
        match (op, level.finer()) {
            (DiffTag::Equal, _) => {}
            (DiffTag::Replace, Some(finer)) => refine(&removed, &inserted, at, finer, splices),
            _ => splices.push(Splice { at, delete: len, insert: inserted }),
        }
        at += len;
    }
}

/// The parts of both sides, in order. Places are counted here: `similar` may give an insertion that follows an equal
/// part the index before that part.
fn walk<'a, 'b, 's>(
    a: &'a [&'s str],
    b: &'b [&'s str],
) -> impl Iterator<Item = (DiffTag, &'a [&'s str], &'b [&'s str])> {
    let (mut i, mut j) = (0, 0);
    capture_diff_slices(Algorithm::Myers, a, b).into_iter().map(move |op| {
        let (old, new) = (i..i + op.old_range().len(), j..j + op.new_range().len());
        (i, j) = (old.end, new.end);
        (op.tag(), &a[old], &b[new])
    })
}

/// Appends a line; the last line of the other text may lack its line break.
fn push_line(out: &mut String, line: &str) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(old: &str, splices: &[Splice]) -> String {
        let mut chars: Vec<char> = old.chars().collect();
        for splice in splices {
            chars.splice(splice.at..splice.at + splice.delete, splice.insert.chars());
        }
        chars.into_iter().collect()
    }

    #[test]
    fn a_changed_vowel_touches_one_grapheme() {
        let old = "E hoʻi ke aloha\nI ka pō laʻi\n";
        let new = "E hoʻi ke alohā\nI ka pō laʻi\n";
        assert_eq!(diff(old, new), [Splice { at: 14, delete: 1, insert: "ā".into() }]);
    }

    #[test]
    fn a_new_line_is_one_insertion() {
        let splices = diff("ʻekahi\nʻekolu\n", "ʻekahi\nʻelua\nʻekolu\n");
        assert_eq!(splices, [Splice { at: 7, delete: 0, insert: "ʻelua\n".into() }]);
    }

    #[test]
    fn union_keeps_every_line_of_both_and_common_lines_once() {
        assert_eq!(union("a\nb\nc", "a\nx\nc"), "a\nb\nx\nc");
        assert_eq!(union("same", "same"), "same");
        assert_eq!(union("one", "two"), "one\ntwo");
        assert_eq!(union("", "two"), "two");
    }

    #[test]
    fn an_insertion_after_an_equal_part_keeps_its_place() {
        let (old, new) = ("\u{301}ā", "āā👩");
        assert_eq!(apply(old, &diff(old, new)), new);
    }

    #[test]
    fn overlaps_are_places_that_both_sides_changed_and_not_alike() {
        let old = "1\n2\n3\n4\n5\n6\n";
        assert_eq!(overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2\n3\n4\n5b\n6\n"), []);
        assert_eq!(overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2a\n3\n4\n5\n6\n"), []);
        let both = overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2b\n3b\n4\n5\n6\n");
        assert_eq!(both, [Overlap { old: "2\n3\n".into(), versions: ["2a\n3\n".into(), "2b\n3b\n".into()] }]);
        let next = overlaps(old, "1\n2a\n3\n4\n5\n6\n", "1\n2\n3b\n4\n5\n6\n");
        assert_eq!(next.len(), 1);
        let inserted = overlaps("", "mine\n", "theirs\n");
        assert_eq!(
            inserted,
            [Overlap { old: String::new(), versions: ["mine\n".into(), "theirs\n".into()] }]
        );
    }

    #[test]
    fn twins_are_found_where_the_second_of_them_stands() {
        let found = |old, ours, theirs, merged| -> Vec<(usize, usize)> {
            alike(old, ours, theirs, merged).into_iter().map(|twin| (twin.start, twin.end)).collect()
        };
        assert_eq!(found("one (6)", "new one (66)", "one (66) too", "new one (666) too"), [(11, 12)]);
        let both = found("a\nc\nb\n", "A\nc\nxyz\nb\n", "a\nc\nxyz\nb\n", "A\nc\nxyz\nxyz\nb\n");
        assert_eq!(both, [(8, 12)]);
        assert_eq!(found("a\nb\n", "a\n\nb\n", "a\n\nb\n", "a\n\n\nb\n"), []);
        assert_eq!(found("a\nb\n", "a\nx\nb\n", "a\ny\nb\n", "a\nx\ny\nb\n"), []);
        assert_eq!(found("a song", "a songs", "a songs", "a songss"), [(7, 8)]);
        assert_eq!(found("aloha ", "aloha k", "aloha k", "aloha kk"), []);
        assert_eq!(found("aloha", "aloha ", "aloha ", "aloha  "), []);
        assert_eq!(found("aloha", "aloha.", "aloha.", "aloha.."), [(6, 7)]);
    }

    proptest! {
        #[test]
        fn splices_turn_old_into_new(old in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}", new in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}") {
            prop_assert_eq!(apply(&old, &diff(&old, &new)), new);
        }
    }
}
