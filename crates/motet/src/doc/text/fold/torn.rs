//! Words that a merge has torn apart: what they lack to be whole.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::{Fold, Woven, is_letter};
use crate::query::is_okina;

/// What is missing before and behind a character of a word.
#[derive(Default)]
pub(super) struct Torn {
    pub(super) before: String,
    pub(super) after: String,
    /// The character of the word that stands before it.
    pub(super) follows: Option<usize>,
}

impl Fold<'_> {
    /// What is missing before and behind characters that one side wrote into a word which the other has taken out: the words of that
    /// side stay whole. What is left of a word goes if the other side has put the whole word there itself.
    pub(super) fn torn(&self, gone: &mut HashSet<usize>) -> HashMap<usize, Torn> {
        let mut torn: HashMap<usize, Torn> = HashMap::new();
        for side in [0, 1] {
            // By gap, the words that the other side has put there.
            let mut words: HashMap<usize, HashSet<String>> = HashMap::new();
            let text = &self.woven.sides[side];
            let standing = &self.standing[side];
            let mut upto = 0;
            let own = self.gaps.iter().flat_map(|gap| &gap.own[side]);
            let mut own: Vec<usize> = own.filter_map(|at| self.woven.at[side][*at]).collect();
            own.sort_unstable();
            for place in own {
                if place < upto || !is_letter(text[place]) || self.is_corrected(side, place) {
                    continue;
                }
                let around = word_around(text, place);
                upto = around.end;
                let is_own = |at: &usize| self.woven.at[1 - side][*at].is_none() && !gone.contains(at);
                let (word, standing) = (&text[around.clone()], &standing[around]);
                if !standing.iter().flatten().all(is_own) {
                    continue;
                }
                if let Some(whole) = standing.iter().copied().collect::<Option<Vec<_>>>() {
                    self.join(&whole, gone, &mut torn);
                    continue;
                }
                let Some(first) = standing.iter().flatten().next() else { continue };
                let gap = self.gaps.partition_point(|gap| gap.range.end <= *first);
                let words = words.entry(gap).or_insert_with(|| {
                    let own = self.gaps.get(gap).map(|gap| self.text(&gap.own[1 - side])).unwrap_or_default();
                    own.split(|c| !is_letter(c)).map(str::to_owned).collect()
                });
                match words.contains(&word.iter().collect::<String>()) {
                    true => gone.extend(standing.iter().flatten()),
                    false => mend(word, standing, &mut torn),
                }
            }
        }
        torn
    }

    /// A word between the letters of which the other side has put words of its own: its rest goes to its beginning.
    fn join(&self, standing: &[usize], gone: &mut HashSet<usize>, torn: &mut HashMap<usize, Torn>) {
        let chars = &self.woven.chars;
        let parts = |pair: &[usize]| {
            (pair[0] + 1..pair[1]).any(|at| chars[at].is_whitespace() && !gone.contains(&at))
        };
        let Some(last) = standing.windows(2).position(parts) else { return };
        let rest = &standing[last + 1..];
        torn.insert(standing[last], Torn { after: self.text(rest), ..Torn::default() });
        gone.extend(rest);
    }

    /// Of a word of which each side made something else, and whose versions meet here: what the first lacks behind `x`, and the second before
    /// `y`, to be whole.
    pub(super) fn halves(&self, side: usize, x: usize, y: usize) -> Option<(String, String)> {
        let Woven { at, sides, .. } = self.woven;
        let (first, second) = (&sides[side], &sides[1 - side]);
        let (last, next) = (at[side][x]?, at[1 - side][y]?);
        if y != x + 1 || !is_letter(first[last]) || !is_letter(second[next]) {
            return None;
        }
        // What is there of both stands where it belongs.
        let stands = |side: usize, places: Range<usize>, from: usize| {
            places.enumerate().all(|(n, place)| self.standing[side][place] == Some(from + n))
        };
        let (one, other) = (word_around(first, last), word_around(second, next));
        let is_there = stands(side, one.start..last + 1, (x + one.start).checked_sub(last)?)
            && stands(1 - side, next..other.end, y);
        let rest: String = first[last + 1..one.end].iter().collect();
        let head: String = second[other.start..next].iter().collect();
        (is_there && !(rest.is_empty() && head.is_empty())).then_some((rest, head))
    }
}

/// Notes what is missing of a word, whose letters stand at these places.
fn mend(word: &[char], standing: &[Option<usize>], torn: &mut HashMap<usize, Torn>) {
    let (mut missing, mut last) = (String::new(), None);
    for (c, at) in word.iter().zip(standing) {
        match at {
            Some(at) => {
                torn.insert(
                    *at,
                    Torn { before: std::mem::take(&mut missing), after: String::new(), follows: last },
                );
                last = Some(*at);
            }
            None => missing.push(*c),
        }
    }
    if let Some(last) = last.and_then(|last| torn.get_mut(&last)) {
        last.after = missing;
    }
}

/// The letters around a letter, and an ʻokina or apostrophe between them.
fn word_around(text: &[char], at: usize) -> Range<usize> {
    let is_inside = |at: usize| {
        let between = || at > 0 && is_letter(text[at - 1]) && text.get(at + 1).is_some_and(|c| is_letter(*c));
        is_letter(text[at]) || is_okina(text[at]) && between()
    };
    let start = (0..at).rev().find(|at| !is_inside(*at)).map_or(0, |before| before + 1);
    let end = (at..text.len()).find(|at| !is_inside(*at)).unwrap_or(text.len());
    start..end
}
