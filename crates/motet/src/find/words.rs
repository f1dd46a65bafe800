//! Words as they are looked for: without case, without diacritics, and whatever an ʻokina was typed as.
//!
//! `aloha` finds `alohā`, and `hoi`, `ho'i`, `hoʻi` and `ho‘i` find each other: the index holds folded words, and so
//! does a query.

use std::ops::Range;

use serde::Serialize;
use unicode_normalization::char::{decompose_canonical, is_combining_mark};
use unicode_segmentation::UnicodeSegmentation;

use crate::collection::Record;
use crate::doc::Fields;
use crate::limits;

/// A document that full-text search has found.
#[derive(Clone, Debug)]
pub struct Hit<T> {
    /// The document.
    pub record: Record<T>,
    /// How well it matches: larger is better, for one and the same search.
    pub score: f64,
    /// Where, if it can be told.
    pub snippet: Option<Snippet>,
}

/// A part of a field around what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// The field.
    pub field: String,
    /// Some words of it, around the first that match.
    pub text: String,
    /// Byte ranges of `text` that match.
    pub matches: Vec<Range<usize>>,
}

/// Text as the index holds it.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    // Marks go, so the order of marks, for which a character's neighbours would matter, is of no account.
    for c in text.chars() {
        match c {
            _ if is_okina(c) => {}
            c if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
            c => decompose_canonical(c, |part| {
                if !is_combining_mark(part) && !is_okina(part) {
                    folded.extend(part.to_lowercase());
                }
            }),
        }
    }
    folded
}

/// What a person typed as a query of FTS5: every word must occur; `"two words"` stand side by side; `alo*` begins a
/// word. `None` if there is no word in it.
pub(crate) fn match_expression(typed: &str) -> Option<String> {
    let mut parts = Vec::new();
    for (i, part) in typed.split('"').enumerate() {
        let (is_phrase, words) = (i % 2 == 1, part.split_whitespace());
        let words: Vec<&str> = words.take(limits::SEARCH_WORDS).collect();
        if is_phrase {
            parts.push((quote(&words.join(" ")), ""));
            continue;
        }
        parts.extend(words.into_iter().map(|w| (quote(w), if w.ends_with('*') { "*" } else { "" })));
    }
    parts.retain(|(word, _)| word.chars().any(char::is_alphanumeric));
    let parts: Vec<_> =
        parts.iter().take(limits::SEARCH_WORDS).map(|(w, star)| format!("{w}{star}")).collect();
    if parts.is_empty() { None } else { Some(parts.join(" AND ")) }
}

/// The part of a document where most of what was typed occurs first.
pub(crate) fn snippet(fields: &Fields, typed: &str) -> Option<Snippet> {
    let wanted: Vec<(String, bool)> = typed
        .split(|c: char| c.is_whitespace() || c == '"')
        .map(|word| (fold(word.trim_end_matches('*')), word.ends_with('*')))
        .filter(|(word, _)| word.chars().any(char::is_alphanumeric))
        .collect();
    let matches = |word: &str| {
        let word = fold(word);
        wanted.iter().any(|(wanted, prefix)| word == *wanted || (*prefix && word.starts_with(wanted)))
    };
    let texts = fields.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
    let mut found: Option<(usize, &str, &str, Range<usize>)> = None;
    for (name, text) in texts {
        let mut hits = words(text).filter(|(_, word)| matches(word)).map(|(at, word)| at..at + word.len());
        let Some(first) = hits.next() else { continue };
        let count = 1 + hits.count();
        if found.as_ref().is_none_or(|(best, ..)| count > *best) {
            found = Some((count, name, text, first));
        }
    }
    let (_, name, text, first) = found?;
    let window = window(text, &first);
    let start = window.start;
    let shown = &text[window];
    let matches =
        words(shown).filter(|(_, word)| matches(word)).map(|(at, word)| at..at + word.len()).collect();
    let elided = |ends: bool| if ends { "" } else { "…" };
    let prefix = elided(start == 0);
    let shift = |range: Range<usize>| range.start + prefix.len()..range.end + prefix.len();
    let matches: Vec<Range<usize>> = matches;
    Some(Snippet {
        field: name.to_owned(),
        text: format!("{prefix}{shown}{}", elided(start + shown.len() == text.len())),
        matches: matches.into_iter().map(shift).collect(),
    })
}

/// Some words before and after a match.
fn window(text: &str, hit: &Range<usize>) -> Range<usize> {
    let around = limits::SNIPPET_WORDS;
    let before: Vec<usize> = words(&text[..hit.start]).map(|(at, _)| at).collect();
    let start = before.len().checked_sub(around).map_or(0, |i| before[i]);
    let rest = &text[hit.end..];
    let end = words(rest).nth(around).map_or(text.len(), |(at, _)| hit.end + at);
    start..hit.end + text[hit.end..end].trim_end().len()
}

/// Words with their places. An ʻokina belongs to its word, whatever it was typed as.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text.split_word_bound_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, first) = rest.next()?;
            if !is_wordlike(first) {
                continue;
            }
            let mut end = start + first.len();
            while let Some((at, next)) = rest.next_if(|(_, next)| is_wordlike(next)) {
                end = at + next.len();
            }
            let word = &text[start..end];
            if word.chars().any(char::is_alphanumeric) {
                return Some((start, word));
            }
        }
    })
}

fn is_wordlike(part: &str) -> bool {
    part.chars().all(|c| c.is_alphanumeric() || is_okina(c) || is_combining_mark(c))
}

/// The ʻokina, and what is typed where a keyboard has none.
fn is_okina(c: char) -> bool {
    matches!(c, 'ʻ' | '‘' | '’' | '\'' | 'ʼ' | 'ʽ' | 'ʾ' | '`' | '´' | '′')
}

fn quote(words: &str) -> String {
    format!("\"{}\"", fold(words.trim_end_matches('*')).replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn look_alikes_fold_to_the_same() {
        for typed in ["Hoʻi", "ho'i", "HO‘I", "hoi", "ho`i", "hōʻi", "ho\u{304}ʻi"] {
            assert_eq!(fold(typed), "hoi", "{typed}");
        }
        assert_eq!(
            match_expression("Alohā \"ka ua\" hoʻ* -- ()").unwrap(),
            "\"aloha\" AND \"ka ua\" AND \"ho\"*"
        );
        assert_eq!(match_expression(" \" ʻ ' "), None);
    }

    #[test]
    fn a_snippet_shows_the_words_around_a_match() {
        let text = "a b c d e f g h i j Hoʻi mai e ke aloha k l m n o p q r s t";
        let fields = json!({ "title": "x", "lyrics": text });
        let snippet = snippet(fields.as_object().unwrap(), "ho'i alohā").unwrap();
        assert_eq!(snippet.field, "lyrics");
        let found: Vec<_> = snippet.matches.iter().map(|range| &snippet.text[range.clone()]).collect();
        assert_eq!(found, ["Hoʻi", "aloha"]);
        assert!(snippet.text.starts_with('…') && snippet.text.ends_with('…'), "{}", snippet.text);
    }
}
