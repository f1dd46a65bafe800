//! Where the words of a text begin and end, and edits of words as a whole.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::Replacement;

/// Where the words of a text begin, in code points, and where the text ends.
pub(super) fn word_bounds(text: &str) -> Vec<usize> {
    let mut bounds = vec![0];
    let mut at = 0;
    for word in text.split_word_bounds() {
        at += word.chars().count();
        bounds.push(at);
    }
    bounds
}

/// A word of which a part was replaced counts as replaced: half of one word beside half of another is none. What is only typed into
/// it, or only taken out of it, stays what it is.
pub(super) fn whole_words(
    base: &[char],
    bounds: &[usize],
    parts: Vec<Replacement<char>>,
) -> Vec<Replacement<char>> {
    let mut whole: Vec<Replacement<char>> = Vec::new();
    let mut at = 0;
    while at < parts.len() {
        // All that is done in words which hang together.
        let Range { mut start, mut end } = parts[at].range;
        let mut next = at;
        loop {
            (start, end) = (word_start(bounds, start), word_end(bounds, end));
            match parts.get(next + 1) {
                Some(part) if part.range.start < end => {
                    end = end.max(part.range.end);
                    next += 1;
                }
                _ => break,
            }
        }
        let together = &parts[at..=next];
        let deletes = together.iter().any(|part| !part.range.is_empty());
        let inserts = together.iter().any(|part| !part.insert.is_empty());
        if deletes && inserts {
            let mut insert = Vec::new();
            let mut from = start;
            for part in together {
                insert.extend_from_slice(&base[from..part.range.start]);
                insert.extend_from_slice(&part.insert);
                from = part.range.end;
            }
            insert.extend_from_slice(&base[from..end]);
            whole.push(Replacement { range: start..end, insert });
        } else {
            whole.extend_from_slice(together);
        }
        at = next + 1;
    }
    whole
}

/// The start of the word that `at` lies inside of.
pub(super) fn word_start(bounds: &[usize], at: usize) -> usize {
    match bounds.binary_search(&at) {
        Ok(_) => at,
        Err(next) => bounds[next - 1],
    }
}

/// The end of the word that `at` lies inside of.
pub(super) fn word_end(bounds: &[usize], at: usize) -> usize {
    match bounds.binary_search(&at) {
        Ok(_) => at,
        Err(next) => bounds.get(next).copied().unwrap_or(at),
    }
}
