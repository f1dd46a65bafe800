//! What is left to do after Automerge has merged two versions of a text by character: what both sides inserted alike stands there
//! twice, and what they left stands next to what it never stood beside.
//!
//! Several devices may do this at once, each with what has reached it. So nothing is taken out but what stands there a second time: of
//! equal insertions the first stays, whoever looks, and of two of which one holds the other the larger. Where devices do that one
//! after the other or at the same time, one copy is always left. And nothing is put in but what parts words, and the letters of a
//! word that one side wrote into while the other took it out: put in twice, they are taken out as a double.

mod doubles;
mod torn;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use self::torn::Torn;
use super::mend::mended;
use super::merge::{CarriedOver, Open, TouchingEdits, is_spacing};
use super::words::{has_no_spaces, words};
use super::{Splice, is_too_much};

/// Marks that end or go on with what stands before them, with no space between.
pub(super) const GOES_ON: [char; 10] = [',', '.', ';', ':', '!', '?', ')', ']', '}', '…'];

/// Marks that belong to what follows them.
const OPENS: [char; 6] = ['(', '[', '{', '¿', '¡', '«'];

/// A merged text, and what of it each of two sides knows.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Woven {
    pub(crate) chars: Vec<char>,
    /// Where each character stands in the version of each side.
    pub(crate) at: [Vec<Option<usize>>; 2],
    /// The versions of the sides.
    pub(crate) sides: [Vec<char>; 2],
}

/// What a merged text should be.
pub(crate) struct Folded {
    /// What is to be changed in the merged text, from its end to its start.
    pub(super) splices: Vec<Splice>,
    /// Characters of the text after that, and where each comes from.
    chars: Vec<(char, Source)>,
}

/// Where a character of a folded text comes from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// This place of the merged text.
    Merged(usize),
    /// It parts words, or completes one.
    Put,
    /// A place where both sides changed the same words is written anew; whether somebody has to choose there.
    Anew { is_open: bool },
}

/// Takes out what stands there twice, parts what has run together, and writes the places anew in which edits of both sides touch each other, if
/// they have not merged to what both together are. The result does not depend on which side is which.
pub(crate) fn fold(woven: &Woven, places: &[TouchingEdits]) -> Folded {
    let whole = Fold::new(woven, places);
    let mut chars = whole.folded();
    let mut stands = vec![None; woven.chars.len()];
    for (n, (_, from)) in chars.iter().enumerate() {
        if let Source::Merged(at) = from {
            stands[*at] = Some(n);
        }
    }
    // From the end, so that what stands before has not moved.
    for place in places.iter().rev() {
        whole.write(place, &stands, &mut chars);
    }
    let chars = tidied(woven, chars);
    Folded { splices: splices(&chars, woven.chars.len()), chars }
}

/// Takes out spaces and empty lines that are left of lines of which each side took out another part: spaces at the start or end of a line or
/// beside another one, where nobody had them. And the last line keeps its line break if both versions have one.
fn tidied(woven: &Woven, chars: Vec<(char, Source)>) -> Vec<(char, Source)> {
    // What stands before or behind a character, in the versions of those who know it.
    let beside = |at: usize, next: bool| {
        (0..2).filter_map(move |side| {
            let (place, version) = (woven.at[side][at]?, &woven.sides[side]);
            let place = if next { place.checked_add(1) } else { place.checked_sub(1) };
            Some(place.and_then(|place| version.get(place)).copied())
        })
    };
    let is_edge = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let mut out: Vec<(char, Source)> = Vec::with_capacity(chars.len());
    for (n, (c, from)) in chars.iter().enumerate() {
        let (before, behind) = (out.last().map(|(c, _)| *c), chars.get(n + 1).map(|(c, _)| *c));
        let is_stray = match (*from, *c) {
            (Source::Merged(at), ' ' | '\t') => {
                is_edge(before) && !beside(at, false).any(is_edge)
                    || matches!(behind, None | Some('\r' | '\n')) && !beside(at, true).any(is_edge)
            }
            (Source::Merged(at), '\n') => {
                matches!(before, None | Some('\n'))
                    && !beside(at, false).any(|c| matches!(c, None | Some('\r' | '\n')))
            }
            _ => false,
        };
        if !is_stray {
            out.push((*c, *from));
        }
    }
    let ends_line = |text: &[char]| text.ends_with(&['\n']);
    if out.last().is_some_and(|(c, _)| *c != '\n') && woven.sides.iter().all(|side| ends_line(side)) {
        let is_crlf = woven.sides.iter().all(|side| side.ends_with(&['\r', '\n']));
        out.extend((if is_crlf { "\r\n" } else { "\n" }).chars().map(|c| (c, Source::Put)));
    }
    out
}

/// What turns a merged text of so many characters into a folded one, from its end to its start.
fn splices(chars: &[(char, Source)], len: usize) -> Vec<Splice> {
    let mut splices = Vec::new();
    let (mut at, mut insert) = (0, String::new());
    let mut push = |at: usize, delete: usize, insert: &mut String| {
        if delete > 0 || !insert.is_empty() {
            splices.push(Splice { at, delete, insert: std::mem::take(insert) });
        }
    };
    for (c, from) in chars {
        match from {
            Source::Merged(place) => {
                push(at, place - at, &mut insert);
                at = place + 1;
            }
            Source::Put | Source::Anew { .. } => insert.push(*c),
        }
    }
    push(at, len - at, &mut insert);
    splices.reverse();
    splices
}

impl Folded {
    /// How that is written: place by place, or as a new text. `is_current`: on top of all that there is.
    pub(crate) fn carried_over(self, is_current: bool) -> CarriedOver {
        let anew = is_too_much(&self.splices, self.chars.len(), is_current);
        let anew = anew.then(|| self.chars.iter().map(|(c, _)| *c).collect());
        CarriedOver { splices: self.splices, anew }
    }

    /// The lines that hold what the sides have put in the place of the same words.
    pub(crate) fn lines_of(&self, woven: &Woven, open: &[Open]) -> Vec<String> {
        let is_put = |from: &Source| match *from {
            Source::Merged(merged) => {
                let [ours, theirs] = [0, 1].map(|side| woven.at[side][merged]);
                let own = match (ours, theirs) {
                    (Some(at), None) => Some((0, at)),
                    (None, Some(at)) => Some((1, at)),
                    _ => None,
                };
                own.is_some_and(|(side, at)| open.iter().any(|open| open.new[side].contains(&at)))
            }
            Source::Put => false,
            Source::Anew { is_open } => is_open,
        };
        let lines = self.chars.split(|(c, _)| *c == '\n');
        let lines = lines.filter(|line| line.iter().any(|(_, from)| is_put(from)));
        lines.map(|line| line.iter().map(|(c, _)| *c).collect()).collect()
    }
}

/// A part of the merged text of which no character is known to both sides.
struct Gap {
    range: Range<usize>,
    /// What each side has inserted there.
    own: [Vec<usize>; 2],
    /// Both sides have inserted letters.
    has_words: bool,
    /// It lies in the middle of a word.
    is_inside: bool,
}

/// A merged text, and its gaps.
struct Fold<'a> {
    woven: &'a Woven,
    places: &'a [TouchingEdits],
    gaps: Vec<Gap>,
    /// Where each character of the versions of the sides stands in the merged text.
    standing: [Vec<Option<usize>>; 2],
}

impl<'a> Fold<'a> {
    fn new(woven: &'a Woven, places: &'a [TouchingEdits]) -> Self {
        let mut gaps: Vec<Gap> = Vec::new();
        let mut is_open = false;
        for at in 0..woven.chars.len() {
            let side = match [0, 1].map(|side| woven.at[side][at].is_some()) {
                [true, false] => 0,
                [false, true] => 1,
                [true, true] => {
                    is_open = false;
                    continue;
                }
                // Of a third side, with which these two are brought together later.
                [false, false] => continue,
            };
            if !std::mem::replace(&mut is_open, true) {
                gaps.push(Gap {
                    range: at..at,
                    own: [Vec::new(), Vec::new()],
                    has_words: false,
                    is_inside: false,
                });
            }
            if let Some(gap) = gaps.last_mut() {
                gap.range.end = at + 1;
                gap.own[side].push(at);
            }
        }
        let is_letter = |at: usize| woven.chars.get(at).is_some_and(|c| c.is_alphanumeric());
        for gap in &mut gaps {
            gap.has_words = gap.own.iter().all(|own| own.iter().any(|at| is_letter(*at)));
            let is_between =
                gap.range.start > 0 && is_letter(gap.range.start - 1) && is_letter(gap.range.end);
            gap.is_inside = is_between && gap.range.clone().all(is_letter);
        }
        let standing = [0, 1].map(|side| {
            let mut standing = vec![None; woven.sides[side].len()];
            let places = woven.at[side].iter().enumerate().filter_map(|(at, place)| Some((at, (*place)?)));
            places.for_each(|(at, place)| standing[place] = Some(at));
            standing
        });
        Self { woven, places, gaps, standing }
    }

    /// The merged text without doubles, what has run together parted, and torn words whole.
    fn folded(&self) -> Vec<(char, Source)> {
        let Woven { chars, .. } = self.woven;
        let mut folded = Vec::with_capacity(chars.len());
        let put = |folded: &mut Vec<(char, Source)>, text: &str| {
            folded.extend(text.chars().map(|c| (c, Source::Put)))
        };
        let mut gone = self.doubles();
        let returns = self.returns_at_end(&mut gone);
        let moved = self.parts_of_lines(&mut gone);
        let (torn, intact) = (self.torn(&mut gone), Torn::default());
        let crlf = chars.windows(2).any(|pair| pair == ['\r', '\n']);
        let mut last = None;
        for (at, c) in chars.iter().enumerate().filter(|(at, _)| !gone.contains(at)) {
            let Torn { before, after, follows } = torn.get(&at).unwrap_or(&intact);
            let left = folded.last().map(|(c, _)| *c);
            let joins = left.is_some_and(|left| is_one_word(left, before.chars().next().unwrap_or(*c)));
            let is_torn = torn.contains_key(&at) || last.is_some_and(|last| torn.contains_key(&last));
            match last.and_then(|last| self.part(last, at, is_torn)).as_deref() {
                _ if follows.is_some() && *follows == last => {}
                Some("\n") => put(&mut folded, if crlf { "\r\n" } else { "\n" }),
                Some(part) => put(&mut folded, part),
                None if is_torn && joins && !self.is_written(last, at) => put(&mut folded, " "),
                None => {}
            }
            put(&mut folded, before);
            if returns.contains(&at) {
                put(&mut folded, "\r");
            }
            if let Some(part) = moved.get(&at) {
                put(&mut folded, part);
            }
            folded.push((*c, Source::Merged(at)));
            put(&mut folded, after);
            last = Some(at);
        }
        folded
    }

    /// Where one side has written another line end, and the other words before it: what belongs to the line end stands behind the words. The
    /// line breaks before which it is put.
    fn returns_at_end(&self, gone: &mut HashSet<usize>) -> HashSet<usize> {
        let chars = &self.woven.chars;
        let mut moved = HashSet::new();
        for gap in self.gaps.iter().filter(|gap| chars.get(gap.range.end) == Some(&'\n')) {
            for side in [0, 1] {
                let other = &gap.own[1 - side];
                let is_words = !other.is_empty() && other.iter().all(|at| !matches!(chars[*at], '\r' | '\n'));
                let last = gap.own[side].last().filter(|at| chars[**at] == '\r' && **at + 1 < gap.range.end);
                if last.is_some_and(|at| is_words && gone.insert(*at)) {
                    moved.insert(gap.range.end);
                }
            }
        }
        moved
    }

    /// Where one side went on with a line, and the other put lines of its own behind or before it: the part of the line stands beside what it
    /// goes on with. By the character before which it is put.
    fn parts_of_lines(&self, gone: &mut HashSet<usize>) -> HashMap<usize, String> {
        let mut moved = HashMap::new();
        for gap in &self.gaps {
            let [Some(ours), Some(theirs)] = [0, 1].map(|side| gap.own[side].first()) else { continue };
            let sides = if ours < theirs { [0, 1] } else { [1, 0] };
            let [first, last] = sides.map(|side| &gap.own[side]);
            let is_whole = first.len() + last.len() == gap.range.len() && first.last() < last.first();
            if !is_whole || gap.range.clone().any(|at| gone.contains(&at)) {
                continue;
            }
            let [before, behind] = [first, last].map(|own| self.text(own));
            let is_part = |text: &str| !text.contains(['\r', '\n']) && !is_spacing(text);
            match self.is_line_edge(gap) {
                [false, true] if before.starts_with(['\r', '\n']) && is_part(&behind) => {
                    let goes_on = gap.range.start.checked_sub(1);
                    let space = self.space_between(goes_on, last.first().copied());
                    gone.extend(last);
                    moved.insert(gap.range.start, format!("{space}{behind}"));
                }
                [true, false] if behind.ends_with('\n') && is_part(&before) => {
                    let space = self.space_between(first.last().copied(), Some(gap.range.end));
                    gone.extend(first);
                    moved.insert(gap.range.end, format!("{before}{space}"));
                }
                _ => {}
            }
        }
        moved
    }

    /// What parts two characters that are put next to each other, if nobody wrote them so and they would be read as one word.
    fn space_between(&self, x: Option<usize>, y: Option<usize>) -> &'static str {
        let Some((x, y)) = x.zip(y).filter(|(x, y)| !self.is_written(Some(*x), *y)) else { return "" };
        match is_one_word(self.woven.chars[x], self.woven.chars[y]) {
            true => " ",
            false => "",
        }
    }

    /// Whether a gap is at the start of a line, and at the end of one.
    fn is_line_edge(&self, gap: &Gap) -> [bool; 2] {
        [gap.range.start.checked_sub(1), Some(gap.range.end)]
            .map(|at| at.and_then(|at| self.woven.chars.get(at)).is_none_or(|c| matches!(c, '\r' | '\n')))
    }

    /// Writes a place anew, if it does not show what it should. What is taken out for that is put in again in the same change, so that nothing
    /// is lost if somebody else does the same in another way. Left alone is a place in which a third side has written.
    /// `stands`: where each character of the merged text stands in the folded one.
    fn write(&self, place: &TouchingEdits, stands: &[Option<usize>], folded: &mut Vec<(char, Source)>) {
        // What stands beside the place is known to both; `None`: it reaches to that end of the text.
        let both = |ends: [Option<usize>; 2]| match [0, 1]
            .map(|side| ends[side].map(|at| self.standing[side][at]))
        {
            [None, None] => Some(None),
            [Some(Some(ours)), Some(Some(theirs))] if ours == theirs => Some(Some(ours)),
            _ => None,
        };
        let before = [0, 1].map(|side| place.new[side].start.checked_sub(1));
        let behind =
            [0, 1].map(|side| Some(place.new[side].end).filter(|end| *end < self.woven.sides[side].len()));
        let (Some(before), Some(behind)) = (both(before), both(behind)) else { return };
        let merged = before.map_or(0, |at| at + 1)..behind.unwrap_or(self.woven.chars.len());
        let is_known = |at: usize| self.woven.at.iter().any(|side| side[at].is_some());
        if merged.start > merged.end || !merged.clone().all(is_known) {
            return;
        }
        let start = before.map_or(Some(0), |at| stands[at].map(|at| at + 1));
        let end = behind.map_or(Some(folded.len()), |at| stands[at]);
        let Some((start, end)) = start.zip(end).filter(|(start, end)| start <= end) else { return };
        let shown: String = folded[start..end].iter().map(|(c, _)| *c).collect();
        // Lines are whole: they are brought together as they stand.
        if shown.contains('\n') || place.text.contains('\n') || has_no_spaces(&shown) {
            return;
        }
        let written: HashSet<String> = [0, 1]
            .iter()
            .flat_map(|side| {
                let version: String = self.woven.sides[*side][place.new[*side].clone()].iter().collect();
                words(&version).into_iter().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        if let Some(anew) = mended(&folded[start..end], place, &written) {
            folded.splice(start..end, anew);
        }
    }

    /// Whether a character stands in a word of which each side corrected other letters.
    fn is_corrected(&self, side: usize, place: usize) -> bool {
        let at = self.places.partition_point(|other| other.new[side].end <= place);
        self.places.get(at).is_some_and(|other| other.is_corrected && other.new[side].contains(&place))
    }

    /// Whether somebody wrote the two next to each other.
    fn is_written(&self, x: Option<usize>, y: usize) -> bool {
        let Some(x) = x else { return false };
        let mut places = self.woven.at.iter().filter_map(|at| at[x].zip(at[y]));
        places.any(|(x, y)| y == x + 1)
    }

    fn text(&self, at: &[usize]) -> String {
        at.iter().map(|at| self.woven.chars[*at]).collect()
    }

    /// What has to part two characters that have come to stand next to each other: a space or a line break.
    /// `is_torn`: what is missing of their words is put in already.
    fn part(&self, x: usize, y: usize, is_torn: bool) -> Option<String> {
        let Woven { chars, at, sides } = self.woven;
        if chars[x].is_whitespace() || chars[y].is_whitespace() {
            return None;
        }
        if self.is_written(Some(x), y) {
            return None;
        }
        let places = [0, 1].map(|side| at[side][x].zip(at[side][y]));
        let between = |side: usize| places[side].and_then(|(x, y)| sides[side].get(x + 1..y));
        let known: Vec<&[char]> = (0..2).filter_map(between).collect();
        if known.is_empty() {
            return self.part_of_sides(x, y, is_torn);
        }
        if known.iter().all(|between| between.contains(&'\n')) {
            return Some("\n".into());
        }
        if known.iter().any(|between| between.iter().all(|c| is_letter(*c))) {
            // Letters were taken out of the middle of a word.
            return None;
        }
        let is_spaced = known.iter().all(|between| between.iter().any(|c| c.is_whitespace()));
        (is_spaced && !GOES_ON.contains(&chars[y]) || is_one_word(chars[x], chars[y])).then(|| " ".into())
    }

    /// What parts an insertion of one side from one of the other.
    fn part_of_sides(&self, x: usize, y: usize, is_torn: bool) -> Option<String> {
        let Woven { chars, at, sides } = self.woven;
        let gap = self.gaps.partition_point(|gap| gap.range.end <= x);
        let gap = self.gaps.get(gap).filter(|gap| gap.range.contains(&x) && gap.range.contains(&y))?;
        let side = (0..2).find(|side| at[*side][x].is_some() && at[1 - *side][y].is_some())?;
        let is_blank = |c: &&char| matches!(c, ' ' | '\t' | '\r');
        let next = sides[side].iter().skip(at[side][x]? + 1).find(|c| !is_blank(c));
        let last = sides[1 - side].get(..at[1 - side][y]?)?.iter().rfind(|c| !is_blank(c));
        if [next, last].iter().all(|c| c.is_none_or(|c| *c == '\n')) && (next.is_some() || last.is_some()) {
            return Some("\n".into());
        }
        if self.is_corrected(side, at[side][x]?) && self.is_corrected(1 - side, at[1 - side][y]?) {
            return None;
        }
        if let Some((rest, head)) = self.halves(side, x, y).filter(|_| !is_torn) {
            return Some(format!("{rest} {head}"));
        }
        let (left, right) = (chars[x], chars[y]);
        let is_unspaced = left.is_alphanumeric() && right.is_alphanumeric() && !is_one_word(left, right);
        // Letters put into the middle of a word do not take it apart.
        if is_unspaced || gap.is_inside || GOES_ON.contains(&right) || OPENS.contains(&left) {
            return None;
        }
        gap.has_words.then(|| " ".into())
    }
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c)
}

/// Whether two characters that stand next to each other are of one word, in scripts that part words.
pub(crate) fn is_one_word(left: char, right: char) -> bool {
    let is_one = || format!("{left}{right}").split_word_bounds().count() == 1;
    left.is_alphanumeric() && right.is_alphanumeric() && is_one()
}
