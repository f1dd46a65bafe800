//! Words: what a text is compared by, and when two of them are the same word written in two ways.

use crate::query::is_okina;
use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// The words of a text, and what stands between them. What has digits in it is one word, with its signs: of two dates, prices or times no
/// third one is to be made.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut from = 0;
    for number in numbers(text) {
        words.extend(bounded(&text[from..number.start]));
        words.push(&text[number.clone()]);
        from = number.end;
    }
    words.extend(bounded(&text[from..]));
    words
}

/// The parts of a text without numbers. Each space is one, so that a word that is taken out between two of them is that word and no more.
fn bounded(text: &str) -> impl Iterator<Item = &str> {
    let is_space = |c: char| c.is_whitespace() && !matches!(c, '\r' | '\n');
    text.split_word_bounds().flat_map(move |word| word.split_inclusive(is_space))
}

/// Where the words with digits are.
fn numbers(text: &str) -> Vec<Range<usize>> {
    let mut numbers = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || is_combining_mark(c) || ".,:/-+".contains(c);
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let run = &rest[start..];
        let len = run.find(|c| !is_part(c)).unwrap_or(run.len());
        let (run, after) = run.split_at(len);
        if run.contains(char::is_numeric) {
            let is_sign = |at: &usize| {
                *at > 0 && run[..*at].ends_with(['-', '+']) && run[*at..].starts_with(char::is_numeric)
            };
            let first = run.find(char::is_alphanumeric).unwrap_or_default();
            let begin = if is_sign(&first) { first - 1 } else { first };
            let end = run.trim_end_matches(|c: char| !c.is_alphanumeric() && !is_combining_mark(c)).len();
            let at = text.len() - rest.len() + start;
            numbers.push(at + begin..at + end);
        }
        rest = after;
    }
    numbers
}

/// Whether two texts are the same letters, but for marks, case, and ʻokina.
pub(super) fn are_spelt_alike(a: &str, b: &str) -> bool {
    let a = letters(a);
    !a.is_empty() && a == letters(b)
}

/// The letters of a text without marks and case.
fn letters(text: &str) -> String {
    let bare = text.nfkd().filter(|c| c.is_alphanumeric() && !is_okina(*c));
    bare.flat_map(char::to_lowercase).collect()
}

/// Whether a script parts its words by nothing: then much else stands in a word.
pub(super) fn has_no_spaces(text: &str) -> bool {
    text.contains(|c: char| matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{1aaf}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_digits_is_one_word_and_so_is_each_space() {
        for (text, expected) in [
            ("due 2026-11-26.", &["due", " ", "2026-11-26", "."][..]),
            ("(-5, 1.5e3)", &["(", "-5", ",", " ", "1.5e3", ")"]),
            ("10:30 4/4 v1.2.3", &["10:30", " ", "4/4", " ", "v1.2.3"]),
            (
                "a  b \t\u{3000}c\r\n\r\nd",
                &["a", " ", " ", "b", " ", "\t", "\u{3000}", "c", "\r\n", "\r\n", "d"],
            ),
            ("[G7]ʻoe well-known", &["[", "G7", "]", "ʻoe", " ", "well", "-", "known"]),
        ] {
            assert_eq!(words(text), expected);
        }
    }

    #[test]
    fn marks_and_okina_make_no_other_word() {
        assert!(
            are_spelt_alike("aina", "ʻĀina")
                && are_spelt_alike("café!", "cafe")
                && are_spelt_alike("hoi", "hoʻi")
        );
        assert!(!are_spelt_alike("red", "grey") && !are_spelt_alike("!", "?"));
    }
}
