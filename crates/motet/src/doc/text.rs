//! Whole texts: what changed between two, what two together hold, and what a merge of two should show.

mod diff;
mod fold;
mod mend;
mod merge;
mod sequence;
mod words;

pub(crate) use self::diff::diff;
pub(crate) use self::fold::{Woven, fold, is_one_word};
pub(crate) use self::merge::{CarriedOver, Meetings, Open, Overlap, carry_over, meetings, put_together};

use self::sequence::{Budget, changes};
use crate::limits;

/// One replacement, in Unicode code points of the old text. Splices are given from the end of the text to its start,
/// so that each one's position is still right when it is applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) at: usize,
    pub(crate) delete: usize,
    pub(crate) insert: String,
}

/// Whether a text of `len` characters is changed in so many places, or so much of it deleted one by one, that it is better to begin anew.
/// `is_current`: the change is made on top of all that there is.
pub(crate) fn is_too_much(splices: &[Splice], len: usize, is_current: bool) -> bool {
    let (work, deletes) = match is_current {
        true => (1, limits::TEXT_DELETES),
        false => (limits::OLDER_VERSION_WORK, limits::OLDER_VERSION_DELETES),
    };
    let len = (len as u64).saturating_mul(work);
    let places = splices.len() as u64;
    splices.iter().map(|splice| splice.delete).sum::<usize>() > deletes
        || places.saturating_mul(places).saturating_mul(len) > limits::TEXT_SPLICE_WORK
}

/// Both texts in one: common lines once, whatever they end with, differing lines of both, `first` before `second`.
pub(crate) fn union(first: &str, second: &str) -> String {
    let (a, b) = (diff::lines(first), diff::lines(second));
    // New lines end as the others do.
    let end = a.iter().map(|line| &line[without_end(line).len()..]).find(|end| !end.is_empty());
    let mut out = String::with_capacity(first.len() + second.len());
    let mut at = 0;
    let [ours, theirs] = [&a, &b].map(|lines| lines.iter().map(|line| without_end(line)).collect::<Vec<_>>());
    for (ours, theirs) in changes(&ours, &theirs, &mut Budget::new()) {
        a[at..ours.end].iter().for_each(|line| push_line(&mut out, line));
        for line in &b[theirs] {
            let is_ended = without_end(line).len() < line.len();
            match end.filter(|_| is_ended) {
                Some(end) => push_line(&mut out, &(without_end(line).to_owned() + end)),
                None => push_line(&mut out, line),
            }
        }
        at = ours.end;
    }
    a[at..].iter().for_each(|line| push_line(&mut out, line));
    out
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Appends a line; the last line of the other text may lack its line break.
fn push_line(out: &mut String, line: &str) {
    if !out.is_empty() && !out.ends_with('\n') {
        let is_crlf = out.contains("\r\n") || line.ends_with("\r\n");
        out.push_str(if is_crlf { "\r\n" } else { "\n" });
    }
    out.push_str(line);
}

#[cfg(test)]
mod tests;
