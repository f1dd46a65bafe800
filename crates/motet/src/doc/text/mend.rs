//! The words of a place in which edits of two sides touch each other, and have not merged to words.

use std::collections::HashSet;

use super::fold::Source;
use super::merge::TouchingEdits;
use super::sequence::{Budget, changes};
use super::words::words;

/// A part of a line with the words that a place should show, and without what is no word that anybody has written (`written`); `None` if it
/// is so already. Nothing else is taken out: several devices may do this at once, each in another way.
pub(super) fn mended(
    shown: &[(char, Source)],
    place: &TouchingEdits,
    written: &HashSet<String>,
) -> Option<Vec<(char, Source)>> {
    // The words, each with what stands before it.
    let text: String = shown.iter().map(|(c, _)| *c).collect();
    let (mut parts, mut there) = (Vec::new(), Vec::new());
    let (mut from, mut at) = (0, 0);
    for word in words(&text) {
        at += word.chars().count();
        if is_word(word) {
            parts.push(&shown[from..at]);
            there.push(word);
            from = at;
        }
    }
    if from < at {
        parts.push(&shown[from..at]);
        there.push("");
    }
    let wanted: Vec<&str> = words(&place.text).into_iter().filter(|word| is_word(word)).collect();
    // A word that both versions have need not stand there twice.
    let mut missing: HashSet<&str> = wanted.iter().copied().filter(|word| !there.contains(word)).collect();
    let is_torn = |word: &&str| !word.is_empty() && !written.contains(*word) && !wanted.contains(word);
    if missing.is_empty() && !there.iter().any(is_torn) {
        return None;
    }
    let from = Source::Anew { is_open: place.is_open };
    let mut anew: Vec<(char, Source)> = Vec::new();
    let mut put = |anew: &mut Vec<(char, Source)>, word: &str| {
        if missing.remove(word) {
            if anew.last().is_some_and(|(c, _)| !c.is_whitespace()) {
                anew.push((' ', from));
            }
            anew.extend(word.chars().map(|c| (c, from)));
        }
    };
    let mut i = 0;
    let ends = [(there.len()..there.len(), wanted.len()..wanted.len())];
    for (x, y) in changes(&there, &wanted, &mut Budget::new()).into_iter().chain(ends) {
        parts[i..x.start].iter().for_each(|part| keep(&mut anew, part, from));
        i = x.end;
        wanted[y].iter().for_each(|word| put(&mut anew, word));
        let kept = x.filter(|at| !is_torn(&there[*at]));
        kept.for_each(|at| keep(&mut anew, parts[at], from));
    }
    Some(anew)
}

fn is_word(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// Goes on with a word that stays, apart from what stands before it.
fn keep(anew: &mut Vec<(char, Source)>, part: &[(char, Source)], from: Source) {
    let joins = |(c, _): &(char, Source)| c.is_alphanumeric();
    if part.first().is_some_and(joins) && anew.last().is_some_and(joins) {
        anew.push((' ', from));
    }
    anew.extend_from_slice(part);
}
