//! Two edits of one sequence in one: a text's characters or a list's elements, and what each of two sides replaced.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value as Json;
use similar::{Algorithm, capture_diff_slices};

use self::words::{whole_words, word_bounds, word_end, word_start};
use super::read::element_key;
use super::text;
use crate::limits;
use crate::schema::FieldKind;

mod items;
mod words;

pub(super) use items::lists;

/// A value that was made `new` from `saw`, in a field of this kind that holds `now`: what was changed is changed in what is there.
pub(crate) fn carried_over(kind: &FieldKind, saw: Option<&Json>, new: &Json, now: Option<&Json>) -> Json {
    let text =
        |value: Option<&Json>| value.map_or(Some(String::new()), |value| value.as_str().map(str::to_owned));
    let items = |value: Option<&Json>| value.map_or(Some(Vec::new()), |value| value.as_array().cloned());
    let count = |value: Option<&Json>| value.map_or(Some(0), Json::as_i64);
    let carried = match kind {
        FieldKind::Text => match (text(saw), new.as_str(), text(now)) {
            (Some(saw), Some(new), Some(now)) => Some(texts(&saw, new, &now).into()),
            _ => None,
        },
        FieldKind::List => match (items(saw), new.as_array(), items(now)) {
            (Some(saw), Some(new), Some(now)) => Some(lists(&saw, new, &now).into()),
            _ => None,
        },
        FieldKind::Set => match (items(saw), new.as_array(), items(now)) {
            (Some(saw), Some(new), Some(now)) => Some(sets(&saw, new, now).into()),
            _ => None,
        },
        FieldKind::Counter => match (count(saw), new.as_i64(), count(now)) {
            (Some(saw), Some(new), Some(now)) => {
                let sum = new.checked_sub(saw).and_then(|by| now.checked_add(by));
                sum.filter(|sum| sum.abs() <= limits::COUNTER_MAX).map(Json::from)
            }
            _ => None,
        },
        _ => None,
    };
    carried.unwrap_or_else(|| new.clone())
}

/// What one side took out of a set is not in it, what it put in is.
fn sets(saw: &[Json], new: &[Json], now: Vec<Json>) -> Vec<Json> {
    let keys = |items: &[Json]| items.iter().map(element_key).collect::<HashSet<_>>();
    let (saw, had, has) = (keys(saw), keys(&now), keys(new));
    let stays = |item: &Json| !saw.contains(&element_key(item)) || has.contains(&element_key(item));
    let put =
        new.iter().filter(|item| !saw.contains(&element_key(item)) && !had.contains(&element_key(item)));
    now.into_iter().filter(stays).chain(put.cloned().collect::<Vec<_>>()).collect()
}

/// `to`, which one side made of `from`, without what `others` made of it alike: what is left when only that side's own is taken back.
pub(super) fn text_without_own(from: &str, to: &str, others: &str) -> String {
    let chars: Vec<char> = from.chars().collect();
    let [own, others] = [to, others].map(|to| text_replacements(from, to));
    apply(&chars, &alike(own, &others)).into_iter().collect()
}

/// The same for lists.
pub(super) fn list_without_own(from: &[Json], to: &[Json], others: &[Json]) -> Vec<Json> {
    let [own, others] = [to, others].map(|to| list_replacements(from, to));
    apply(from, &alike(own, &others))
}

/// A part of a sequence, and what stands there instead.
#[derive(Clone, Debug, PartialEq)]
struct Replacement<T> {
    range: Range<usize>,
    insert: Vec<T>,
}

/// `theirs`, a later state of the text `base`, with that taken back which `mine` differs by: `mine` is what `base` goes back to.
/// Everything that `theirs` put in stays. Where it replaced all of what goes back, that stays as well.
pub(super) fn texts(base: &str, mine: &str, theirs: &str) -> String {
    let chars: Vec<char> = base.chars().collect();
    let words = word_bounds(base);
    let [mine, theirs] = [mine, theirs].map(|to| whole_words(&chars, &words, text_replacements(base, to)));
    let mut mine: Vec<_> =
        mine.into_iter().flat_map(|mine| without_written(&chars, &words, mine, &theirs)).collect();
    for mine in &mut mine {
        put_once(&chars, mine, &theirs);
        beside_rewritten(&chars, mine, &theirs);
    }
    mine.sort_by_key(|mine| mine.range.start);
    let between = |last: &char, next: &char| text::is_one_word(*last, *next).then_some(' ');
    let merged = merge(&chars, &mine, &theirs, |c| c.is_whitespace(), between);
    match theirs.is_empty() || mine.is_empty() {
        true => merged.into_iter().map(|(c, _)| c).collect(),
        false => tidied(&merged),
    }
}

/// What goes back beside what others have taken out: words that have run together are parted, and a space that parts nothing goes.
fn tidied(merged: &[(char, Source)]) -> String {
    let is_beside = |left: Source, right: Source| match (left, right) {
        (Source::Base(left), Source::Base(right)) => left + 1 == right,
        (Source::Base(left), Source::Mine { start, .. }) => left + 1 == start,
        (Source::Mine { end, .. }, Source::Base(right)) => end == right,
        (Source::Mine { start: left, .. }, Source::Mine { start: right, .. }) => left == right,
        (Source::Theirs | Source::Base(_), Source::Theirs | Source::Base(_)) => true,
        _ => false,
    };
    let is_mine = |source: Source| matches!(source, Source::Mine { .. });
    let mut text: Vec<char> = Vec::with_capacity(merged.len());
    for (at, (c, source)) in merged.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| merged[at]).filter(|_| !text.is_empty());
        let behind = merged.get(at + 1);
        if let Some((last, from)) = before
            && (is_mine(from) || is_mine(*source))
            && !is_beside(from, *source)
            && text::is_one_word(last, *c)
        {
            text.push(' ');
        }
        // At an end of the text or of a line, or beside another one, where it has not stood.
        let is_edge = |c: Option<&(char, Source)>| c.is_none_or(|(c, _)| c.is_whitespace());
        let has_moved = |other: Option<&(char, Source)>, is_next: bool| match (other, *source) {
            (Some((_, other)), source) if is_next => !is_beside(source, *other),
            (Some((_, other)), source) => !is_beside(*other, source),
            (None, Source::Mine { .. }) => true,
            (None, _) => false,
        };
        let is_stray = *c == ' '
            && is_mine(*source)
            && (is_edge(behind) && has_moved(behind, true)
                || is_edge(before.as_ref()) && has_moved(before.as_ref(), false));
        if !is_stray {
            text.push(*c);
        }
    }
    text.into_iter().collect()
}

/// What is taken out, without the words in which the other side has written: those stay whole, each with the space that parts it from the
/// next. If it has written in all of them nothing comes back either.
fn without_written(
    base: &[char],
    bounds: &[usize],
    mine: Replacement<char>,
    theirs: &[Replacement<char>],
) -> Vec<Replacement<char>> {
    let Range { start, end } = mine.range;
    let mut written: Vec<Range<usize>> = Vec::new();
    for their in theirs.iter().filter(|their| their.range.start <= end && start <= their.range.end) {
        let Some(words) = written_words(base, bounds, their) else { continue };
        let words = words.start.max(start)..words.end.min(end);
        match written.last_mut() {
            Some(last) if last.end >= words.start => last.end = last.end.max(words.end),
            _ if words.is_empty() => {}
            _ => written.push(words),
        }
    }
    if written.is_empty() {
        return vec![mine];
    }
    let is_space = |at: usize| base[at].is_whitespace();
    // Where the words that are taken out have the spaces that go with them.
    let (is_before, is_behind) = (is_space(start), is_space(end - 1));
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut from = start;
    for (n, words) in written.iter().enumerate() {
        let (mut before, mut behind) = (words.start, words.end);
        while is_before && before > from && is_space(before - 1) {
            before -= 1;
        }
        let is_parted = is_behind || (!is_before && n + 1 < written.len());
        while !is_before && is_parted && behind < end && is_space(behind) {
            behind += 1;
        }
        parts.push(from..before);
        from = behind;
    }
    parts.push(from..end);
    parts.retain(|part| part.clone().any(|at| !is_space(at)));
    let mut insert = Some(mine.insert);
    let part = |range| Replacement { range, insert: insert.take().unwrap_or_default() };
    parts.into_iter().map(part).collect()
}

/// The words in which somebody has written, so that they are others now; `None` if they are only parted, or gone.
fn written_words(base: &[char], bounds: &[usize], their: &Replacement<char>) -> Option<Range<usize>> {
    let Range { start, end } = their.range;
    let (from, to) = (word_start(bounds, start), word_end(bounds, end));
    let joins = |a: Option<&char>, b: Option<&char>| a.zip(b).is_some_and(|(a, b)| text::is_one_word(*a, *b));
    let before = start.checked_sub(1).map(|at| &base[at]);
    match (their.insert.is_empty(), start == end) {
        (true, _) => (from < start || end < to).then_some(from..to),
        (false, false) => Some(from..to),
        // Typed at the end of a word, or at its beginning.
        (false, true) if joins(before, their.insert.first()) => Some(word_start(bounds, start - 1)..to),
        (false, true) if joins(their.insert.last(), base.get(start)) => {
            Some(from..word_end(bounds, start + 1))
        }
        (false, true) => None,
    }
}

/// What goes back and stands beside its place already is not put in again.
fn put_once(base: &[char], mine: &mut Replacement<char>, theirs: &[Replacement<char>]) {
    let words = |insert: &[char]| insert.iter().collect::<String>().trim().to_owned();
    let (back, range) = (words(&mine.insert), mine.range.clone());
    let is_beside =
        |their: &&Replacement<char>| their.range.start <= range.end + 1 && range.start <= their.range.end + 1;
    let their = theirs.iter().filter(is_beside).find(|their| words(&their.insert) == back);
    let Some(their) = their.filter(|_| !back.is_empty()) else { return };
    mine.insert.clear();
    // One of the two spaces around it goes with it.
    let is_blank = |c: Option<&char>| c.is_some_and(|c| *c == ' ');
    let before = range.start.checked_sub(1);
    if is_blank(their.insert.first()) && is_blank(before.map(|at| &base[at])) {
        mine.range.start -= 1;
    } else if is_blank(their.insert.last()) && is_blank(base.get(range.end)) {
        mine.range.end += 1;
    }
    let is_line = range.start.checked_sub(1).is_none_or(|before| base[before] == '\n');
    if is_line && base.get(range.end) == Some(&'\n') {
        mine.range.end += 1;
    }
}

/// Whole lines that go back between lines which others have written anew, as one, stand behind these or before.
fn beside_rewritten(base: &[char], mine: &mut Replacement<char>, theirs: &[Replacement<char>]) {
    let begins_line = |at: usize| at.checked_sub(1).is_none_or(|before| base[before] == '\n');
    let at = mine.range.start;
    if !mine.range.is_empty() || mine.insert.last() != Some(&'\n') || !begins_line(at) {
        return;
    }
    let Some(their) = theirs.iter().find(|their| their.range.start < at && at < their.range.end) else {
        return;
    };
    let Range { start, end } = their.range;
    let behind = end + usize::from(base[end..].starts_with(&['\r', '\n']));
    let is_line = their.insert.last().map_or(begins_line(start), |last| *last == '\n');
    let at = if base.get(behind) == Some(&'\n') {
        behind + 1
    } else if begins_line(end) && is_line {
        end
    } else if end == base.len() {
        // The last line does not end: the line break stands before them.
        let is_crlf = mine.insert.ends_with(&['\r', '\n']);
        mine.insert.rotate_right(if is_crlf { 2 } else { 1 });
        end
    } else {
        (0..=start).rev().find(|at| begins_line(*at)).unwrap_or(start)
    };
    mine.range = at..at;
}

/// What turns one text into another, in order.
fn text_replacements(from: &str, to: &str) -> Vec<Replacement<char>> {
    let mut splices = text::diff(from, to);
    splices.reverse();
    let replacements = splices.into_iter().map(|splice| Replacement {
        range: splice.at..splice.at + splice.delete,
        insert: splice.insert.chars().collect(),
    });
    replacements.collect()
}

fn list_replacements(from: &[Json], to: &[Json]) -> Vec<Replacement<Json>> {
    let keys = |items: &[Json]| items.iter().map(element_key).collect::<Vec<_>>();
    let (mut i, mut j) = (0, 0);
    let mut replacements = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &keys(from), &keys(to)) {
        let (old, new) = (op.old_range().len(), op.new_range().len());
        if !matches!(op, similar::DiffOp::Equal { .. }) {
            replacements.push(Replacement { range: i..i + old, insert: to[j..j + new].to_vec() });
        }
        (i, j) = (i + old, j + new);
    }
    replacements
}

/// Those of one side that the other has as well.
fn alike<T: PartialEq>(own: Vec<Replacement<T>>, others: &[Replacement<T>]) -> Vec<Replacement<T>> {
    own.into_iter().filter(|replacement| others.contains(replacement)).collect()
}

fn apply<T: Clone>(base: &[T], replacements: &[Replacement<T>]) -> Vec<T> {
    let applied = merge(base, replacements, &[], |_| false, |_, _| None);
    applied.into_iter().map(|(item, _)| item).collect()
}

/// Where an item of a merged sequence comes from.
#[derive(Clone, Copy)]
enum Source {
    /// This place of the base.
    Base(usize),
    /// What stands instead of this part of the base, by mine.
    Mine {
        start: usize,
        end: usize,
    },
    Theirs,
}

/// Carries out both sides' replacements, which are given in order. What stands in the way of `mine` stays: a place of which `theirs`
/// has left nothing is theirs.
fn merge<T: Clone>(
    base: &[T],
    mine: &[Replacement<T>],
    theirs: &[Replacement<T>],
    separates: impl Fn(&T) -> bool,
    between: impl Fn(&T, &T) -> Option<T>,
) -> Vec<(T, Source)> {
    let mut gone = [vec![false; base.len()], vec![false; base.len()]];
    theirs.iter().for_each(|t| gone[1][t.range.clone()].fill(true));
    let has_place =
        |m: &&Replacement<T>| m.range.is_empty() || gone[1][m.range.clone()].iter().any(|gone| !gone);
    let mine: Vec<_> = mine.iter().filter(has_place).collect();
    mine.iter().for_each(|m| gone[0][m.range.clone()].fill(true));
    let mut out: Vec<(T, Source)> = Vec::with_capacity(base.len());
    let of_theirs = |item: &T| (item.clone(), Source::Theirs);
    let (mut mine, mut theirs) = (mine.into_iter().peekable(), theirs.iter().peekable());
    for at in 0..=base.len() {
        // What others put in before something stands before what that goes back to.
        let goes_back = mine.peek().is_some_and(|m| m.range.start == at && !m.range.is_empty());
        while let Some(t) = theirs.next_if(|t| goes_back && t.range.start == at && t.range.is_empty()) {
            out.extend(t.insert.iter().map(of_theirs));
        }
        let mut has_put = false;
        while let Some(m) = mine.next_if(|m| m.range.start == at) {
            let from = Source::Mine { start: m.range.start, end: m.range.end };
            out.extend(m.insert.iter().map(|item| (item.clone(), from)));
            has_put |= !m.insert.is_empty();
        }
        while let Some(t) = theirs.next_if(|t| t.range.start == at) {
            // The space before a word that stays is not taken from it.
            if let (Some(before), Some(last), Some(first)) =
                (at.checked_sub(1).filter(|before| gone[0][*before]), out.last(), t.insert.first())
                && separates(&base[before])
                && !separates(&last.0)
                && !separates(first)
            {
                out.push((base[before].clone(), Source::Theirs));
            } else if has_put
                && let Some(part) = out.last().zip(t.insert.first()).and_then(|(a, b)| between(&a.0, b))
            {
                out.push((part, Source::Theirs));
            }
            out.extend(t.insert.iter().map(of_theirs));
        }
        if at < base.len() && !gone[0][at] && !gone[1][at] {
            out.push((base[at].clone(), Source::Base(at)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_others_typed_into_it_stays() {
        let cases = [
            // base, what it goes back to, what it is now, what comes out
            ("one\nmine\ntwo\n", "one\ntwo\n", "one\nmine\ntwo\ntheirs\n", "one\ntwo\ntheirs\n"),
            ("hello", "", "helloX", "helloX"),
            // Words that others have corrected stay whole, with what parts them.
            ("one recieve three", "one three", "one receive three", "one receive three"),
            ("one\nrecieve\ntwo", "one\ntwo", "one\nreceive\ntwo", "one\nreceive\ntwo"),
            ("one musician three", "one three", "one musicians three", "one musicians three"),
            ("one hoi three", "one three", "one hoʻi three", "one hoʻi three"),
            ("one wonderful three", "one two three", "one wonderfully three", "one wonderfully three"),
            ("x aa bb cc y", "x y", "x aa bbb cc y", "x bbb y"),
            ("alpha bb gamma", "", "alphas bb gammas", "alphas gammas"),
            ("aa bb cc dd", "dd", "aa bbX cc dd", "bbX dd"),
            ("mine words\ntwo\n", "two\n", "other text\ntwo\n", "other text\ntwo\n"),
            ("hoii mai", "mai", "hoi mai", "hoi mai"),
            ("the cat sat", "", "the black cat sat", "black "),
            ("teh cat", "", "the cat", "the"),
            ("two", "one", "three", "three"),
            ("two", "one", "two, three", "one, three"),
            ("two big", "one", "two large", "one large"),
            ("a", "a b", "a c", "a b c"),
            ("", "mine", "theirs", "mine theirs"),
            // Others wrote before what goes back, or what it goes back to is there already.
            (
                "goodbye moon\n",
                "hello world\n",
                "greetings stars\ngoodbye moon\n",
                "greetings stars\nhello world\n",
            ),
            (
                "goodbye moon\n",
                "hello world\n",
                "goodbye moon\ngreetings stars\n",
                "hello world\ngreetings stars\n",
            ),
            ("greetings stars\n", "hello world\n", "greetings stars\nhello world\n", "hello world\n"),
            // What stood beside what goes back is not there any more.
            ("one three", "one two three", "one", "one two"),
            ("buy milk today", "buy milk and today", "buy milk", "buy milk and"),
            ("one three four", "one two three four", "one XX", "one XX two"),
            ("a three\nb\n", "a two three\nb\n", "a\nb\n", "a two\nb\n"),
            ("E hoʻi\n", "E hoʻi ke aloha\n", "E hoʻi\nI ka pō\n", "E hoʻi ke aloha\nI ka pō\n"),
            // Lines between lines of which others have made one.
            ("c\nb0y\nb0x\nd\n", "c\nb0y\n1a\n2a\nb0x\nd\n", "c\nb7x\nd\n", "c\nb7x\n1a\n2a\nd\n"),
            ("b0y\r\nb0x\r\n", "b0y\r\n1a\r\nb0x\r\n", "b7x\r\n", "b7x\r\n1a\r\n"),
            ("b0y\nb0x", "b0y\n1a\nb0x", "b7x", "b7x\n1a"),
        ];
        for (base, mine, theirs, expected) in cases {
            assert_eq!(texts(base, mine, theirs), expected, "{base:?} -> {mine:?}, {theirs:?}");
        }
        assert_eq!(text_without_own("one\n", "one\nboth\nmine\n", "one\nboth\nmine\n"), "one\nboth\nmine\n");
        assert_eq!(
            text_without_own("one\ntwo\n", "ONE\ntwo\nboth\n", "one\ntwo\nboth\n"),
            "one\ntwo\nboth\n"
        );
    }

    proptest! {
        #[test]
        fn one_side_alone_is_that_side(base in "[ab \nāʻ👩\u{301}]{0,20}", other in "[ab \nāʻ👩\u{301}]{0,20}") {
            prop_assert_eq!(texts(&base, &other, &base), other.clone());
            prop_assert_eq!(texts(&base, &base, &other), other);
        }

        #[test]
        fn whole_lines_that_go_back_stay_whole_lines(
            lines in prop::collection::vec("[a-c][0-9]( [a-c]{2,5}){0,2}", 1..7),
            (at, len) in (0_usize..7, 1_usize..4),
            instead in prop::collection::vec("[d-f][0-9]( [d-f]{2,5}){0,2}", 0..3),
            put_in in prop::collection::vec(0_usize..8, 1..4),
            (end, is_ended) in (prop_oneof![Just("\n"), Just("\r\n")], any::<bool>()),
        ) {
            let text = |lines: &[String]| lines.join(end) + if is_ended { end } else { "" };
            let (mut mine, mut theirs) = (lines.clone(), lines.clone());
            for (n, at) in put_in.iter().enumerate() {
                // The last line may go on.
                let last = mine.len() - usize::from(!is_ended);
                mine.insert((*at).min(last), format!("put in {n}"));
            }
            let at = at.min(lines.len());
            theirs.splice(at..(at + len).min(lines.len()), instead.clone());
            let result = texts(&text(&lines), &text(&mine), &text(&theirs));
            let all = result.lines().collect::<Vec<_>>();
            let put_in = (0..put_in.len()).map(|n| format!("put in {n}"));
            for line in put_in.chain(instead) {
                prop_assert!(all.contains(&line.as_str()), "{:?} is no line of {:?}", line, result);
            }
        }
    }
}
