//! Parts of texts put next to each other, so that words and lines can be told apart.

use crate::doc::text::diff::lines;
use crate::doc::text::fold::GOES_ON;
use crate::doc::text::union;

/// Two versions, one after the other: what is common to both once, lines as lines, words apart.
pub(super) fn joined(first: &str, second: &str, is_line_end: bool) -> String {
    if is_spacing(first) && is_spacing(second) {
        let rank = |text: &str| (text.matches('\n').count(), text.len());
        return if rank(first) < rank(second) { second } else { first }.to_owned();
    }
    if contains_part(first, second, is_line_end) || is_spacing(second) {
        return first.to_owned();
    }
    if contains_part(second, first, is_line_end) || is_spacing(first) {
        return second.to_owned();
    }
    if lines(first).len() > 1 || lines(second).len() > 1 || first.ends_with('\n') || second.ends_with('\n') {
        return union(first, second);
    }
    let is_apart = first.ends_with(char::is_whitespace) || second.starts_with(char::is_whitespace);
    let has_words = |text: &str| text.contains(char::is_alphanumeric);
    let goes_on = second.starts_with(GOES_ON);
    let space = if !is_apart && !goes_on && has_words(first) && has_words(second) { " " } else { "" };
    format!("{first}{space}{second}")
}

/// Whether `part` is the start or the end of `whole`, and no word is cut by it. What goes on with a line at its end (`is_line_end`) belongs to
/// what stands before it: there the same words at the end of something longer are other words.
pub(in crate::doc::text) fn contains_part(whole: &str, part: &str, is_line_end: bool) -> bool {
    has_start(whole, part) || has_end(whole, part) && (!is_line_end || part.contains('\n'))
}

pub(super) fn has_start(whole: &str, part: &str) -> bool {
    whole.strip_prefix(part).is_some_and(|rest| !is_glued(part, rest))
}

pub(super) fn has_end(whole: &str, part: &str) -> bool {
    whole.strip_suffix(part).is_some_and(|rest| !is_glued(rest, part))
}

/// Appends words so that they can be told from those before.
pub(super) fn push_apart(text: &mut String, more: &str) {
    if is_glued(text, more) {
        text.push(' ');
    }
    text.push_str(more);
}

/// Whether the last word of one text and the first of the next would be read as one.
pub(super) fn is_glued(before: &str, after: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    is_letter(before.chars().next_back()) && is_letter(after.chars().next())
}

pub(in crate::doc::text) fn is_spacing(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}
