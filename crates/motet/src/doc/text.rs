//! Whole texts: what changed between two, and what two together hold.

use similar::{Algorithm, DiffTag, capture_diff_slices};
use unicode_segmentation::UnicodeSegmentation;

/// One replacement, in Unicode code points of the old text. Splices are given from the end of the text to its start,
/// so that each one's position is still right when it is applied.
#[derive(Debug, PartialEq, Eq)]
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

    proptest! {
        #[test]
        fn splices_turn_old_into_new(old in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}", new in "[ab \nāʻ👩‍🎤e\u{301}]{0,40}") {
            prop_assert_eq!(apply(&old, &diff(&old, &new)), new);
        }
    }
}
