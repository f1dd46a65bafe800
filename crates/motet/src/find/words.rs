//! Words as the full-text index holds them, and what is looked for in it.
//!
//! A row of the index has three columns of folded words: those of short values, those of texts, and marks. A mark is a word that a
//! document is much about, because it stands in a short value or makes up much of a text; the first letter of such a word; or a
//! hash of a short value as a whole. Common words stand in nearly every document, and ranking them all takes too long; marked with
//! them are few.

use std::collections::BTreeMap;

use super::fold::{Piece, folded, pieces};
use crate::doc::Fields;
use crate::find::snippet::{self, Snippet};
use crate::limits;
use crate::store::StorageError;

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

/// One way to look for it: an expression of FTS5, and what the columns count.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) expression: String,
    pub(crate) weights: [f64; 3],
    /// Words whose frequency is looked up for the score.
    pub(crate) terms: usize,
}

impl Search {
    /// Reads what was typed; `None` if there is no word in it.
    pub(crate) fn new(typed: &str) -> Result<Option<Self>, StorageError> {
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
            let most = limits::SEARCH_WORDS;
            return Err(StorageError::Query(format!(
                "{count} words are searched for, at most {most} can be"
            )));
        }
        let value = (!typed.contains('*')).then(|| value_hash(&typed.replace('"', " ")));
        Ok((!distinct.is_empty()).then_some(Self { units: distinct, value }))
    }

    /// How the index is looked through. What an earlier step finds is the better match.
    pub(crate) fn steps(&self) -> Vec<Step> {
        const MARKS: [f64; 3] = [0.0, 0.0, 1.0];
        let mut steps = Vec::new();
        if let Some(value) = &self.value {
            steps.push(Step { expression: format!("\"{VALUE}{value}\""), weights: MARKS, terms: 1 });
        }
        let mut marks: Vec<String> = self.units.iter().flat_map(Unit::marks).collect();
        marks.sort_unstable();
        marks.dedup();
        let terms = marks.len();
        let phrases = self.units.iter().filter(|unit| unit.words.len() > 1).map(Unit::expression);
        marks.extend(phrases);
        steps.push(Step { expression: marks.join(" AND "), weights: MARKS, terms });
        let all: Vec<_> = self.units.iter().map(Unit::expression).collect();
        steps.push(Step { terms: all.len(), expression: all.join(" AND "), weights: [4.0, 1.0, 0.0] });
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
            |step: Step| step.expression.replace(WORD, "w:").replace(BEGINNING, "b:").replace(VALUE, "v:");
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
        assert_eq!(Search::new(&many).unwrap_err().code(), "query-invalid");
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
