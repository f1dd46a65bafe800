//! What changed between two texts: by line first, then by word inside changed lines, then by grapheme inside similar words.
//!
//! Lines keep a verse from being torn across another, graphemes keep a kahakō with its letter. Words or lines that share little
//! are replaced as a whole, so that two such replacements that meet do not mix their letters. The work is bounded: what would
//! take more is replaced by line.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::Splice;
use super::sequence::{Budget, changes};
use super::words::{are_spelt_alike, has_no_spaces, words as words_of};
use crate::query::is_okina;

/// Changed lines up to this size, in bytes of both sides, are compared by word.
const BYTES_BY_WORD: usize = 64 << 10;

/// Words up to this size, in bytes of both sides, are compared by grapheme.
const BYTES_BY_GRAPHEME: usize = 512;

/// A part of the old text that was replaced, and by which part of the new one; in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
}

/// The splices that turn `old` into `new`.
pub(crate) fn diff(old: &str, new: &str) -> Vec<Splice> {
    let mut splices = Vec::new();
    let (mut at, mut upto) = (0, 0);
    for mut hunk in by_grapheme(old, new) {
        // A line end with a return before it is the same line end: what others write before it stays before it.
        let (was, is) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
        if was.ends_with('\n') && !was.ends_with("\r\n") && is.ends_with("\r\n") {
            (hunk.old.end, hunk.new.end) = (hunk.old.end - 1, hunk.new.end - 1);
        }
        at += old[upto..hunk.old.start].chars().count();
        let delete = old[hunk.old.clone()].chars().count();
        let insert = new[hunk.new].to_owned();
        if delete == 1 && !insert.is_empty() && begins_word(old, &hunk.old) {
            // What others insert before the word comes before it, as it stands now.
            splices.push(Splice { at, delete, insert: String::new() });
            splices.push(Splice { at: at + delete, delete: 0, insert });
        } else {
            splices.push(Splice { at, delete, insert });
        }
        (at, upto) = (at + delete, hunk.old.end);
    }
    splices.reverse();
    splices
}

/// Whole lines that differ.
pub(super) fn by_line(old: &str, new: &str, budget: &mut Budget) -> Vec<Hunk> {
    let (a, b) = (lines(old), lines(new));
    hunks(&a, &b, budget)
}

/// What lines that differ come down to, by word.
pub(super) fn refined(old: &str, new: &str, lines: &[Hunk], budget: &mut Budget) -> Vec<Hunk> {
    let mut words = Vec::with_capacity(lines.len());
    for hunk in lines {
        if hunk.old.is_empty() || hunk.new.is_empty() {
            words.push(hunk.clone());
        } else {
            refine_lines(old, new, hunk, budget, &mut words);
        }
    }
    words
}

/// Whether a character is the first of a word that goes on behind it.
fn begins_word(text: &str, at: &Range<usize>) -> bool {
    let goes_on =
        text[at.end..].starts_with(|c: char| c.is_alphanumeric() || is_okina(c) || is_combining_mark(c));
    goes_on && !text[..at.start].ends_with(|c: char| c.is_alphanumeric() || is_okina(c))
}

fn by_grapheme(old: &str, new: &str) -> Vec<Hunk> {
    let budget = &mut Budget::new();
    let lines = by_line(old, new, budget);
    let mut fine = Vec::with_capacity(lines.len());
    for hunk in refined(old, new, &lines, budget) {
        match inside(old, new, &hunk, budget) {
            Some(inner) => fine.extend(inner),
            None => fine.push(hunk),
        }
    }
    fine
}

/// Letters that a word has to keep at least to be a corrected one.
const KEPT_LETTERS: usize = 3;

/// The graphemes that differ in a hunk of which one side corrects the other: other marks on the same letters, or one place in a word.
pub(super) fn inside(old: &str, new: &str, hunk: &Hunk, budget: &mut Budget) -> Option<Vec<Hunk>> {
    let (a, b) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
    if a.is_empty() || b.is_empty() || a.len() + b.len() > BYTES_BY_GRAPHEME {
        return None;
    }
    // Digits of two numbers make a third one.
    if a.contains(char::is_numeric) || b.contains(char::is_numeric) {
        return None;
    }
    let is_alike = are_spelt_alike(a, b);
    let is_run = has_no_spaces(a) || has_no_spaces(b);
    let (a, b): (Vec<&str>, Vec<&str>) = (a.graphemes(true).collect(), b.graphemes(true).collect());
    let inner = hunks(&a, &b, budget);
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
    let of = |parts: &[&str]| parts.iter().map(|part| letters(part)).sum::<usize>();
    let gone = inner.iter().map(|inner| letters(&old[hunk.old.start..][inner.old.clone()])).sum::<usize>();
    let (kept, most) = (of(&a) - gone, of(&a).max(of(&b)));
    let is_corrected = match is_run {
        // Half of the letters, so that nobody finds a letter of one word in another.
        true => most > 0 && 2 * kept >= most,
        false => inner.len() == 1 && kept >= KEPT_LETTERS && 3 * kept >= 2 * most,
    };
    let letters = || shifted(inner, hunk).into_iter().flat_map(|inner| by_letter(old, new, inner));
    (is_alike || is_corrected).then(|| slid(old, new, hunk.old.start, letters().collect()))
}

/// Insertions as far in front as they could as well stand: of two equal letters it does not matter which one is new.
fn slid(old: &str, new: &str, start: usize, mut hunks: Vec<Hunk>) -> Vec<Hunk> {
    let mut from = start;
    for hunk in &mut hunks {
        while hunk.old.is_empty()
            && let Some(letter) = old[from..hunk.old.start].graphemes(true).next_back()
            && new[..hunk.new.start].ends_with(letter)
            && new[hunk.new.clone()].ends_with(letter)
        {
            let len = letter.len();
            hunk.old = hunk.old.start - len..hunk.old.end - len;
            hunk.new = hunk.new.start - len..hunk.new.end - len;
        }
        from = hunk.old.end;
    }
    hunks
}

/// Letters that got other marks one by one, apart from what was put between them.
fn by_letter(old: &str, new: &str, hunk: Hunk) -> Vec<Hunk> {
    let (mut at, mut upto) = (hunk.old.start, hunk.new.start);
    let mut letters = Vec::new();
    let mut others = new[hunk.new.clone()].grapheme_indices(true);
    for letter in old[hunk.old.clone()].graphemes(true) {
        let Some((place, other)) = others.find(|(_, other)| are_spelt_alike(letter, other)) else {
            return vec![hunk];
        };
        let place = hunk.new.start + place;
        if place > upto {
            letters.push(Hunk { old: at..at, new: upto..place });
        }
        (at, upto) = (at + letter.len(), place + other.len());
        if letter != other {
            letters.push(Hunk { old: at - letter.len()..at, new: place..upto });
        }
    }
    if upto < hunk.new.end {
        letters.push(Hunk { old: at..at, new: upto..hunk.new.end });
    }
    letters
}

/// Compares changed lines by word: those of one block, or, where that would be too much, line by line.
fn refine_lines(old: &str, new: &str, hunk: &Hunk, budget: &mut Budget, words: &mut Vec<Hunk>) {
    let (a, b) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
    if a.len() + b.len() <= BYTES_BY_WORD {
        return refine_words(old, new, hunk, budget, words);
    }
    let (a, b) = (lines(a), lines(b));
    if a.len() != b.len() || a.len() == 1 {
        return refine_large(old, new, hunk, budget, words);
    }
    let (mut i, mut j) = (hunk.old.start, hunk.new.start);
    // Whether the last hunk replaced all of the line before.
    let mut follows = false;
    for (a, b) in a.into_iter().zip(b) {
        let pair = Hunk { old: i..i + a.len(), new: j..j + b.len() };
        (i, j) = (pair.old.end, pair.new.end);
        let before = words.len();
        if a.len() + b.len() > BYTES_BY_WORD && a != b {
            refine_large(old, new, &pair, budget, words);
        } else if a != b {
            refine_words(old, new, &pair, budget, words);
        }
        let line = pair.old.start..pair.old.start + a.trim_end().len();
        let is_whole = words.len() == before + 1
            && words[before].old.start == line.start
            && words[before].old.end >= line.end;
        // What was replaced in two lines one after the other is one replacement, of whole lines.
        if follows && is_whole {
            words.truncate(before);
            words[before - 1].old.end = pair.old.end;
            words[before - 1].new.end = pair.new.end;
        }
        follows = is_whole;
    }
}

/// The same of a block that is too large to be compared by word: what it begins and ends with on both sides is left out first. Prose of
/// one long line is edited at few places.
fn refine_large(old: &str, new: &str, hunk: &Hunk, budget: &mut Budget, words: &mut Vec<Hunk>) {
    let (a, b) = (words_of(&old[hunk.old.clone()]), words_of(&new[hunk.new.clone()]));
    let bytes = |parts: &[&str]| parts.iter().map(|part| part.len()).sum::<usize>();
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (before, after) = (bytes(&a[..start]), bytes(&a[a.len() - end..]));
    let inner = Hunk {
        old: hunk.old.start + before..hunk.old.end - after,
        new: hunk.new.start + before..hunk.new.end - after,
    };
    let is_change = !inner.old.is_empty() && !inner.new.is_empty();
    match is_change && inner.old.len() + inner.new.len() <= BYTES_BY_WORD {
        true => refine_words(old, new, &inner, budget, words),
        false => words.push(inner),
    }
}

/// A hunk between words, and whether its sides have nothing to do with each other.
struct Change {
    hunk: Hunk,
    /// Letters that both sides of it have.
    shared: usize,
    /// Letters on the side that has more.
    letters: usize,
    /// Both sides have letters, and share few of them.
    is_rewrite: bool,
}

fn refine_words(old: &str, new: &str, hunk: &Hunk, budget: &mut Budget, words: &mut Vec<Hunk>) {
    let (a, b) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
    let (a_words, b_words) = (words_of(a), words_of(b));
    let inner = hunks(&a_words, &b_words, budget);
    let mut kept = weight_of(&a_words) - removed(a, &Hunk { old: 0..a.len(), new: 0..0 }, &inner);
    let total = weight_of(&a_words).max(weight_of(&b_words));
    let mut found: Vec<Change> = Vec::with_capacity(inner.len());
    for hunk in shifted(inner, hunk) {
        let change = Change::of(old, new, hunk, budget);
        kept += change.shared;
        match found.last_mut() {
            Some(last) if last.is_rewrite && change.is_rewrite && last.takes(&change, old) => {
                last.hunk.old.end = change.hunk.old.end;
                last.hunk.new.end = change.hunk.new.end;
                last.letters += change.letters;
            }
            _ => found.push(change),
        }
    }
    let is_line =
        !a.trim_end_matches(['\r', '\n']).contains('\n') && !b.trim_end_matches(['\r', '\n']).contains('\n');
    if found.iter().any(|change| change.is_rewrite) && 3 * kept < total {
        // Nothing to speak of is left of it. A line break at the end of one line is not part of what was said.
        return words.push(if is_line { trimmed(old, new, hunk) } else { hunk.clone() });
    }
    found.into_iter().for_each(|change| split_lines(old, new, change.hunk, words));
}

impl Change {
    fn of(old: &str, new: &str, hunk: Hunk, budget: &mut Budget) -> Self {
        let (a, b) = (weight(&old[hunk.old.clone()]), weight(&new[hunk.new.clone()]));
        let inner = inside(old, new, &hunk, budget);
        let gone = |inner: &Hunk| weight(&old[inner.old.clone()]);
        let shared = inner.map_or(0, |inner| a - inner.iter().map(gone).sum::<usize>());
        // A number in the place of another is no rewrite of what stands around it.
        let is_number = |text: &str| text.contains(char::is_numeric);
        let are_numbers = is_number(&old[hunk.old.clone()]) && is_number(&new[hunk.new.clone()]);
        Self { shared, letters: a.max(b), is_rewrite: a > 0 && b > 0 && shared == 0 && !are_numbers, hunk }
    }

    /// Whether so little stands between this rewrite and the next that they are one. Of two lines they are one only if nothing is left between.
    fn takes(&self, next: &Change, old: &str) -> bool {
        let between = &old[self.hunk.old.end..next.hunk.old.start];
        let most = if between.contains('\n') { 0 } else { self.letters.min(next.letters) };
        weight(between) <= most
    }
}

/// A replacement that begins or ends within a line and brings more lines: the part in the line that was there, and lines that
/// were inserted before or after it.
fn split_lines(old: &str, new: &str, hunk: Hunk, words: &mut Vec<Hunk>) {
    let (a, b) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
    let ends_line = old[hunk.old.end..].is_empty() || old[hunk.old.end..].starts_with(['\r', '\n']);
    let begins_line = old[..hunk.old.start].is_empty() || old[..hunk.old.start].ends_with('\n');
    if a.trim().is_empty() || a.contains('\n') || !b.contains('\n') {
        return words.push(hunk);
    }
    let breaks = |at: usize| hunk.new.start + at;
    if ends_line && let Some(at) = b.find(['\r', '\n']).filter(|at| *at > 0) {
        words.push(Hunk { old: hunk.old.clone(), new: hunk.new.start..breaks(at) });
        words.push(Hunk { old: hunk.old.end..hunk.old.end, new: breaks(at)..hunk.new.end });
    } else if begins_line && let Some(at) = b.rfind('\n').filter(|at| at + 1 < b.len()) {
        words.push(Hunk { old: hunk.old.start..hunk.old.start, new: hunk.new.start..breaks(at + 1) });
        words.push(Hunk { old: hunk.old.clone(), new: breaks(at + 1)..hunk.new.end });
    } else {
        words.push(hunk);
    }
}

/// A hunk without the spaces and line breaks that both sides begin and end with.
fn trimmed(old: &str, new: &str, hunk: &Hunk) -> Hunk {
    let (a, b) = (&old[hunk.old.clone()], &new[hunk.new.clone()]);
    let alike = |pairs: &mut dyn Iterator<Item = (&str, &str)>| -> usize {
        pairs.take_while(|(a, b)| a == b && a.trim().is_empty()).map(|(a, _)| a.len()).sum()
    };
    let start = alike(&mut a.split_word_bounds().zip(b.split_word_bounds()));
    let end = alike(&mut a[start..].split_word_bounds().rev().zip(b[start..].split_word_bounds().rev()));
    Hunk { old: hunk.old.start + start..hunk.old.end - end, new: hunk.new.start + start..hunk.new.end - end }
}

pub(super) fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Where two sequences of parts differ, in bytes from their start.
fn hunks(a: &[&str], b: &[&str], budget: &mut Budget) -> Vec<Hunk> {
    let (mut i, mut j) = (0, 0);
    let (mut old, mut new) = (0, 0);
    let mut hunks = Vec::new();
    for (x, y) in changes(a, b, budget) {
        old += a[i..x.start].iter().map(|part| part.len()).sum::<usize>();
        new += b[j..y.start].iter().map(|part| part.len()).sum::<usize>();
        let removed = a[x.clone()].iter().map(|part| part.len()).sum::<usize>();
        let inserted = b[y.clone()].iter().map(|part| part.len()).sum::<usize>();
        hunks.push(Hunk { old: old..old + removed, new: new..new + inserted });
        (i, j, old, new) = (x.end, y.end, old + removed, new + inserted);
    }
    hunks
}

fn shifted(inner: Vec<Hunk>, outer: &Hunk) -> Vec<Hunk> {
    let by = |range: Range<usize>, by: usize| range.start + by..range.end + by;
    let shift = |hunk: Hunk| Hunk { old: by(hunk.old, outer.old.start), new: by(hunk.new, outer.new.start) };
    inner.into_iter().map(shift).collect()
}

/// Letters and signs; spaces weigh nothing.
fn weight(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

fn weight_of(parts: &[&str]) -> usize {
    parts.iter().map(|part| weight(part)).sum()
}

/// The weight of what inner hunks take out.
fn removed(old: &str, outer: &Hunk, inner: &[Hunk]) -> usize {
    let at = outer.old.start;
    inner.iter().map(|hunk| weight(&old[at + hunk.old.start..at + hunk.old.end])).sum()
}
