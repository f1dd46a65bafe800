//! Words as the full-text index holds them, and what is looked for in it.
//!
//! A row of the index has three columns of folded words: those of short values, those of texts, and marks. A mark is a word that a
//! document is much about, because it stands in a short value or makes up much of a text; the first letter of such a word; or a
//! hash of a short value as a whole. Common words stand in nearly every document, and ranking them all takes too long; marked with
//! them are few.

use std::collections::BTreeMap;

use super::fold::{Piece, folded, pieces};
use crate::limits;
use crate::query::snippet::{self, Snippet};
use crate::types::Fields;

/// Version of what the index holds. A file with another one is indexed anew.
pub(crate) const FORMAT: &str = "2";

/// Characters that no word begins with: they are no letters.
const WORD: char = '\u{e001}';
const BEGINNING: char = '\u{e002}';
const VALUE: char = '\u{e003}';

/// Stands between values, so that a phrase does not reach from one into the next.
const GAP: &str = "\u{e000} ";

/// What the index holds of one document.
#[derive(Debug, Default)]
pub(crate) struct IndexedWords {
    pub(crate) short: String,
    pub(crate) long: String,
    pub(crate) marks: String,
    /// Words of short values, and how often they are marked.
    marked: BTreeMap<String, u8>,
}

impl IndexedWords {
    /// Adds the words of a value.
    pub(crate) fn add(&mut self, text: &str) {
        let begun = self.long.len();
        let mut count = 0;
        pieces(text, |_, word, _| {
            self.long.extend([word, " "]);
            count += 1;
        });
        if count == 0 {
            return;
        }
        if count > limits::SHORT_VALUE_WORDS {
            self.long.push_str(GAP);
            return;
        }
        // The fewer words, the more of the value each of them is.
        let weight = if count <= 2 { 2 } else { 1 };
        for word in self.long[begun..].split_terminator(' ') {
            let marked = self.marked.entry(word.to_owned()).or_default();
            *marked = marked.saturating_add(weight);
        }
        self.short.push_str(&self.long[begun..]);
        self.short.push_str(GAP);
        self.long.truncate(begun);
        self.marks.push(VALUE);
        self.marks.extend([value_hash(text).as_str(), " "]);
    }

    /// What the words take.
    pub(crate) fn bytes(&self) -> usize {
        self.short.len() + self.long.len() + self.marks.len()
    }

    /// The same words in parts of [`limits::INDEX_STEP_BYTES`], if they are more than that.
    pub(crate) fn into_parts(self) -> Vec<Self> {
        if self.bytes() <= limits::INDEX_STEP_BYTES {
            return vec![self];
        }
        let marks = slices(&self.marks, 0).map(|marks| Self { marks: marks.to_owned(), ..Self::default() });
        // Words that are searched for side by side stand so in one of the parts.
        let short = slices(&self.short, limits::SEARCH_WORDS)
            .map(|short| Self { short: short.to_owned(), ..Self::default() });
        let long = slices(&self.long, limits::SEARCH_WORDS)
            .map(|long| Self { long: long.to_owned(), ..Self::default() });
        marks.chain(short).chain(long).collect()
    }

    /// All words were added.
    pub(crate) fn finish(mut self) -> Self {
        let mut words: Vec<&str> =
            self.long.split_terminator(' ').filter(|word| *word != GAP.trim_end()).collect();
        // What anybody may send is sorted: a hash table with a fast hash can be made slow.
        words.sort_unstable();
        let total = words.len();
        for same in words.chunk_by(|a, b| a == b).filter(|same| same.len() * limits::MUCH_OF_A_TEXT >= total)
        {
            self.marked.entry(same[0].to_owned()).or_insert(1);
        }
        let mut beginnings = Vec::new();
        for (word, weight) in &self.marked {
            for _ in 0..*weight {
                self.marks.push(WORD);
                self.marks.extend([word, " "]);
            }
            beginnings
                .extend(word.char_indices().take(BEGINNING_CHARS).map(|(at, c)| &word[..at + c.len_utf8()]));
        }
        beginnings.sort_unstable();
        beginnings.dedup();
        for beginning in beginnings {
            self.marks.push(BEGINNING);
            self.marks.extend([beginning, " "]);
        }
        self
    }
}

/// Words, each with a space behind it, in parts of [`limits::INDEX_STEP_BYTES`] (a longer word is one). Each part begins with the last
/// `again` words of the one before it, if they take no more than a quarter of a part.
fn slices(words: &str, again: usize) -> impl Iterator<Item = &str> {
    let mut from = Some(0).filter(|_| !words.is_empty());
    std::iter::from_fn(move || {
        let begin = from?;
        let most = words.floor_char_boundary(begin + limits::INDEX_STEP_BYTES);
        let last = || words[begin..most].rfind(' ').map(|at| begin + at + 1);
        let end = match most < words.len() {
            true => last().or_else(|| words[most..].find(' ').map(|at| most + at + 1)).unwrap_or(words.len()),
            false => words.len(),
        };
        let back = words.floor_char_boundary(end.saturating_sub(limits::INDEX_STEP_BYTES / 4));
        let repeated = words[back..end].rmatch_indices(' ').take(again + 1).last();
        let next = repeated.map_or(end, |(at, _)| back + at + 1);
        from = match end < words.len() {
            true => Some(if next > begin { next } else { end }),
            false => None,
        };
        Some(&words[begin..end])
    })
}

/// Beginnings of up to so many characters are indexed: of longer ones there are few enough words to look through.
const BEGINNING_CHARS: usize = 1;

/// What a person typed: every word must occur; `"two words"` stand side by side; `alo*` begins a word.
#[derive(Debug)]
pub(crate) struct Search {
    pub(super) units: Vec<Unit>,
    /// Hash of a value that is just what was typed.
    value: Option<String>,
}

/// Words, or pairs of characters, that stand side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unit {
    pub(super) words: Vec<String>,
    /// The last of them need only begin so.
    pub(super) is_beginning: bool,
}

/// One way to look for it: expressions of FTS5, and what the columns count.
#[derive(Debug)]
pub(crate) struct Step {
    /// What has to be there, all of it.
    pub(crate) all: Vec<String>,
    pub(crate) weights: [f64; 3],
    /// Words whose frequency is looked up for the score.
    pub(crate) terms: usize,
}

impl Step {
    /// One expression of FTS5.
    pub(crate) fn expression(&self) -> String {
        self.all.join(" AND ")
    }
}

/// More is searched for at once than can be.
#[derive(Debug, thiserror::Error)]
#[error("{count} words are searched for, at most {} can be", limits::SEARCH_WORDS)]
pub(crate) struct TooManyWords {
    count: usize,
}

impl Search {
    /// Reads what was typed; `None` if there is no word in it.
    pub(crate) fn new(typed: &str) -> Result<Option<Self>, TooManyWords> {
        let mut units = Vec::new();
        for (i, part) in typed.split('"').enumerate() {
            if i % 2 == 1 {
                units.push(Unit::new(part, false));
                continue;
            }
            units.extend(part.split_whitespace().map(|word| Unit::new(word, word.ends_with('*'))));
        }
        units.retain(|unit| !unit.words.is_empty());
        let mut distinct = Vec::<Unit>::new();
        for unit in units {
            if !distinct.contains(&unit) {
                distinct.push(unit);
            }
        }
        let count: usize = distinct.iter().map(|unit| unit.words.len()).sum();
        if count > limits::SEARCH_WORDS {
            return Err(TooManyWords { count });
        }
        let value = (!typed.contains('*')).then(|| value_hash(&typed.replace('"', " ")));
        Ok((!distinct.is_empty()).then_some(Self { units: distinct, value }))
    }

    /// How the index is looked through. What an earlier step finds is the better match.
    pub(crate) fn steps(&self) -> Vec<Step> {
        const MARKS: [f64; 3] = [0.0, 0.0, 1.0];
        let mut steps = Vec::new();
        if let Some(value) = &self.value {
            steps.push(Step { all: vec![format!("\"{VALUE}{value}\"")], weights: MARKS, terms: 1 });
        }
        let mut marks: Vec<String> = self.units.iter().flat_map(Unit::marks).collect();
        marks.sort_unstable();
        marks.dedup();
        let terms = marks.len();
        let phrases = self.units.iter().filter(|unit| unit.words.len() > 1).map(Unit::expression);
        marks.extend(phrases);
        steps.push(Step { all: marks, weights: MARKS, terms });
        let all: Vec<_> = self.units.iter().map(Unit::expression).collect();
        steps.push(Step { terms: all.len(), all, weights: [4.0, 1.0, 0.0] });
        steps
    }

    /// The part of a document where most of what was typed occurs first.
    pub(crate) fn snippet(&self, fields: &Fields) -> Option<Snippet> {
        snippet::snippet(&self.units, fields)
    }
}

impl Unit {
    fn new(typed: &str, is_beginning: bool) -> Self {
        let mut unit = Self { words: Vec::new(), is_beginning };
        let (mut last, mut before) = (None, None);
        pieces(typed, |piece, word, _| {
            unit.words.push(word.to_owned());
            before = last.replace(piece);
        });
        if last == Some(Piece::Last) {
            // The run may go on in the text: the pairs say all, and a character alone may begin one.
            unit.is_beginning = before != Some(Piece::Pair);
            if !unit.is_beginning {
                unit.words.pop();
            }
        }
        unit
    }

    fn expression(&self) -> String {
        format!("\"{}\"{}", self.words.join(" "), if self.is_beginning { "*" } else { "" })
    }

    /// The marks of a document that is much about these words.
    fn marks(&self) -> Vec<String> {
        let mark = |(i, word): (usize, &String)| match self.is_beginning && i + 1 == self.words.len() {
            true if word.chars().count() <= BEGINNING_CHARS => format!("\"{BEGINNING}{word}\""),
            true => format!("\"{WORD}{word}\"*"),
            false => format!("\"{WORD}{word}\""),
        };
        self.words.iter().enumerate().map(mark).collect()
    }
}

/// Tells values apart; two that share it by chance come first together.
fn value_hash(text: &str) -> String {
    blake3::hash(folded(text).as_bytes()).to_hex()[..10].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(typed: &str) -> Vec<String> {
        let shown =
            |step: Step| step.expression().replace(WORD, "w:").replace(BEGINNING, "b:").replace(VALUE, "v:");
        Search::new(typed).unwrap().unwrap().steps().into_iter().map(shown).collect()
    }

    #[test]
    fn what_is_typed_becomes_steps() {
        assert_eq!(
            steps("Alohā \"ka ua\" hoʻ* -- ()"),
            [
                "\"w:aloha\" AND \"w:ho\"* AND \"w:ka\" AND \"w:ua\" AND \"ka ua\"",
                "\"aloha\" AND \"ka ua\" AND \"ho\"*"
            ]
        );
        assert_eq!(steps("游戏")[1..], ["\"w:游戏\"", "\"游戏\""]);
        assert_eq!(steps("しりとり v2")[2..], ["\"しり りと とり\" AND \"v2\""]);
        assert_eq!(steps("a*")[..], ["\"b:a\"", "\"a\"*"]);
        assert_eq!(steps("戏")[1..], ["\"b:戏\"", "\"戏\"*"]);
        assert_eq!(steps("\"游戏 ok\"")[2..], ["\"游戏 戏 ok\""]);
        assert!(Search::new(" \" ʻ ' ").unwrap().is_none());
        assert!(Search::new(&"w ".repeat(10_000)).unwrap().is_some());
        let many: String = (0..=limits::SEARCH_WORDS).map(|n| format!("w{n} ")).collect();
        assert!(Search::new(&many).is_err());
    }

    #[test]
    fn very_many_words_come_in_parts_in_which_neighbours_stay_together() {
        let most = limits::INDEX_STEP_BYTES;
        for length in [1, 5, 60, 3_000, most - 2, most, 3 * most] {
            for count in [0, 1, 2, most / (length + 1), 5 * most / (length + 1) + 3] {
                let word = |n: usize| format!("{}ʻ{n} ", "w".repeat(length));
                let words: String = (0..count).map(word).collect();
                let parts: Vec<&str> = slices(&words, limits::SEARCH_WORDS).collect();
                let ends = |part: &str| {
                    let number = |word: &str| word.rsplit('ʻ').next().and_then(|n| n.parse::<usize>().ok());
                    let mut all = part.split_terminator(' ').map(|word| number(word).unwrap());
                    let first = all.next().unwrap();
                    (first, all.next_back().unwrap_or(first))
                };
                let mut next = 0;
                for part in &parts {
                    assert!(part.len() <= most || part.matches(' ').count() == 1, "{length} {count}");
                    let (first, last) = ends(part);
                    let again = next - first;
                    assert!(
                        again <= limits::SEARCH_WORDS && last >= next,
                        "{length} {count}: {first} {last}"
                    );
                    let full = limits::SEARCH_WORDS * (length + 10) < most / 4;
                    assert!(next == 0 || !full || again == limits::SEARCH_WORDS, "{length} {count}: {again}");
                    next = last + 1;
                }
                assert_eq!(next, count);
            }
        }
    }

    #[test]
    fn words_that_a_document_is_about_are_marked() {
        let mut words = IndexedWords::default();
        words.add("Aloha ʻOe");
        words.add("a b c d e f g h i j k l m n o p q r s t u v w x y ke ke ke love");
        let words = words.finish();
        assert_eq!(words.short, "aloha oe \u{e000} ");
        assert!(words.long.starts_with("a b c") && words.long.ends_with("love \u{e000} "), "{}", words.long);
        let marks: Vec<&str> = words.marks.split_whitespace().collect();
        for mark in ["\u{e001}aloha", "\u{e001}oe", "\u{e001}ke", "\u{e002}a", "\u{e002}k"] {
            assert!(marks.contains(&mark), "{mark} is not among {marks:?}");
        }
        assert!(!marks.contains(&"\u{e001}love"));
    }
}
