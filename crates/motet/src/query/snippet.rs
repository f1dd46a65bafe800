//! Where in a document something was found.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value as Json;

use super::fold::{Piece, pieces};
use super::words::Unit;
use crate::limits;
use crate::types::Fields;

/// A part of a field around what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Snippet {
    /// The field; one of a nested object with dots, as in `meta.composer`.
    pub field: String,
    /// Some words of it, around the first that match.
    pub text: String,
    /// Byte ranges of `text` that match.
    pub matches: Vec<Range<usize>>,
}

/// The part of a document where most of what is looked for occurs first.
pub(super) fn snippet(units: &[Unit], fields: &Fields) -> Option<Snippet> {
    let mut best: Option<(Text, Vec<Range<usize>>, String, &str)> = None;
    for (name, value) in fields {
        each_text(&mut vec![name], value, &mut |place, text| {
            let read = Text::new(text);
            let hits = read.hits(units);
            if hits.len() > best.as_ref().map_or(0, |(_, hits, ..)| hits.len()) {
                best = Some((read, hits, place.join("."), text));
            }
        });
    }
    let (read, hits, field, text) = best?;
    let window = read.window(hits.first()?, text);
    let prefix = if window.start == 0 { "" } else { "…" };
    let suffix = if window.end == text.len() { "" } else { "…" };
    let shift = |at: usize| at + prefix.len() - window.start;
    let inside = hits.iter().filter(|hit| window.start <= hit.start && hit.end <= window.end);
    Some(Snippet {
        field,
        text: format!("{prefix}{}{suffix}", &text[window.clone()]),
        matches: inside.map(|hit| shift(hit.start)..shift(hit.end)).collect(),
    })
}

/// Hands every string in the value at `place` to `each`, with the names of the fields that it stands in.
pub(crate) fn each_text<'f>(
    place: &mut Vec<&'f str>,
    value: &'f Json,
    each: &mut impl FnMut(&[&'f str], &'f str),
) {
    match value {
        Json::String(text) => each(place, text),
        Json::Array(items) => items.iter().for_each(|item| each_text(place, item, each)),
        Json::Object(fields) => {
            for (name, value) in fields {
                place.push(name);
                each_text(place, value, each);
                place.pop();
            }
        }
        _ => {}
    }
}

/// A text as pieces.
struct Text {
    pieces: Vec<(Piece, String, Range<usize>)>,
}

impl Text {
    fn new(text: &str) -> Self {
        let mut end = text.len().min(limits::SNIPPET_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut found = Vec::new();
        pieces(&text[..end], |piece, folded, range| found.push((piece, folded.to_owned(), range)));
        Self { pieces: found }
    }

    /// What matches, in order, without overlaps.
    fn hits(&self, units: &[Unit]) -> Vec<Range<usize>> {
        let mut hits = Vec::<Range<usize>>::new();
        for at in 0..self.pieces.len() {
            let Some(end) = units.iter().filter_map(|unit| self.end_of(unit, at)).max() else { continue };
            let start = self.pieces[at].2.start;
            match hits.last_mut().filter(|last| start < last.end) {
                Some(last) => last.end = last.end.max(end),
                None => hits.push(start..end),
            }
        }
        hits
    }

    /// Where a unit ends that begins with the piece number `at`.
    fn end_of(&self, unit: &Unit, at: usize) -> Option<usize> {
        let here = self.pieces.get(at..at + unit.words.len())?;
        let last = unit.words.len() - 1;
        let equal = here.iter().zip(&unit.words).enumerate().all(|(i, ((_, there, _), wanted))| {
            if unit.is_beginning && i == last { there.starts_with(wanted) } else { there == wanted }
        });
        let (piece, there, range) = here.last().filter(|_| equal)?;
        // Half of a pair.
        if *piece == Piece::Pair && there.len() > unit.words[last].len() {
            return Some(self.pieces.get(at + last + 1).map_or(range.end, |(_, _, next)| next.start));
        }
        Some(range.end)
    }

    /// Some words before and after a match.
    fn window(&self, hit: &Range<usize>, text: &str) -> Range<usize> {
        let around = limits::SNIPPET_WORDS;
        let first = self.pieces.partition_point(|(_, _, range)| range.start < hit.start);
        let after = self.pieces.partition_point(|(_, _, range)| range.start < hit.end);
        let start = first.checked_sub(around).map_or(0, |i| self.pieces[i].2.start);
        let next = self.pieces.get(after + around).map(|(_, _, range)| range.start);
        let end = match (next, self.pieces.get(after + around - 1)) {
            (Some(_), Some((_, _, range))) => range.end,
            _ if self.pieces.is_empty() => text.len(),
            // The text goes on after the part that was looked at.
            _ if text.len() > limits::SNIPPET_BYTES => self.pieces[self.pieces.len() - 1].2.end,
            _ => text.len(),
        };
        start..end.max(hit.end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Search;
    use super::*;
    use serde_json::json;

    fn found(fields: &Json, typed: &str) -> (String, Vec<String>) {
        let snippet = Search::new(typed).unwrap().unwrap().snippet(fields.as_object().unwrap()).unwrap();
        let matches = snippet.matches.iter().map(|range| snippet.text[range.clone()].to_owned()).collect();
        (format!("{}: {}", snippet.field, snippet.text), matches)
    }

    #[test]
    fn a_snippet_shows_the_words_around_a_match() {
        let text = "a b c d e f g h i j Hoʻi mai e ke aloha k l m n o p q r s t";
        let (shown, matches) = found(&json!({ "title": "x", "lyrics": text }), "ho'i alohā");
        assert_eq!(shown, "lyrics: …c d e f g h i j Hoʻi mai e ke aloha k l m n…");
        assert_eq!(matches, ["Hoʻi", "aloha"]);
        let nested = json!({ "meta": { "composers": ["x", { "name": "Lili\u{02bb}uokalani, Queen" }] } });
        assert_eq!(
            found(&nested, "\"liliuokalani queen\""),
            ("meta.composers.name: Liliʻuokalani, Queen".into(), vec!["Liliʻuokalani, Queen".into()])
        );
        let run = json!({ "t": "今日は楽しいしりとりの日", "u": "戏游戏" });
        assert_eq!(found(&run, "しりとり").1, ["しりとり"]);
        assert_eq!(found(&run, "戏").1, ["戏", "戏"]);
    }
}
