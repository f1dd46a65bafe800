//! The conflict journal: which losers have room in it, and the same as a file of JSON lines, for people who settle by hand and for
//! programs that read logs.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use motet_proto::DeviceId;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Core, to_json};
use crate::doc::{FieldConflict, TEXT_OVERLAP, excerpt};
use crate::limits;
use crate::store::{self, DocumentRow, Losers, NewConflict, Tx, row_bytes};

/// One conflict. Line breaks and signs that would steer a terminal are escaped, as JSON wants it.
#[derive(Default, Serialize)]
struct Line<'a> {
    collection: &'a str,
    id: &'a str,
    path: &'a str,
    shown: Json,
    shown_by: Option<String>,
    shown_at: Option<i64>,
    lost: Json,
    lost_by: Option<String>,
    lost_at: i64,
    settled: bool,
}

/// A loser, as it is compared with others for a place in the journal.
struct Candidate<'a> {
    conflict: &'a FieldConflict,
    /// How many of its field come before it.
    behind: usize,
    bytes: usize,
}

impl Core {
    /// Brings the journal to the losers that a document has, and the log as well. Returns how many open ones were not known before.
    pub(super) fn journal(
        &mut self,
        tx: Tx<'_>,
        row: &DocumentRow,
        conflicts: &[FieldConflict],
        now: i64,
    ) -> store::Result<usize> {
        let (losers, listed) = losers(conflicts)?;
        let done = tx.journal_conflicts(row.id, &losers, now)?;
        self.notice(row, done.fresh.iter().map(|n| listed[*n]));
        if done.open_more > 0 {
            let more = Line { path: "", lost: done.open_more.into(), ..Line::default() };
            self.log(row, more);
        }
        Ok(done.open)
    }

    /// Adds what has merged, to the log as well.
    pub(super) fn journal_merged(
        &mut self,
        tx: Tx<'_>,
        row: &DocumentRow,
        merged: &[FieldConflict],
        now: i64,
    ) -> store::Result<()> {
        let rows: Vec<NewConflict<'_>> = merged.iter().map(new_row).collect::<store::Result<_>>()?;
        let of_this: HashSet<&str> = merged.iter().map(|conflict| &*conflict.op).collect();
        let is_overlap = |op: &str| op.starts_with(TEXT_OVERLAP) || of_this.contains(op);
        let fresh = tx.journal_overlaps(row.id, &rows, is_overlap, now)?;
        self.notice(row, fresh.iter().map(|n| &merged[*n]));
        Ok(())
    }

    /// Conflicts were found that were not known before.
    fn notice<'a>(&mut self, row: &DocumentRow, conflicts: impl Iterator<Item = &'a FieldConflict>) {
        if self.shared.conflict_log.is_none() {
            return;
        }
        for conflict in conflicts {
            let name_of = |device: &Option<DeviceId>| device.as_ref().map(DeviceId::to_string);
            let line = Line {
                path: &conflict.path,
                shown: excerpt(&conflict.winner, limits::CONFLICT_WINNER_BYTES),
                shown_by: name_of(&conflict.winner_device),
                shown_at: conflict.winner_time,
                lost: excerpt(&conflict.loser, limits::CONFLICT_LOG_BYTES),
                lost_by: name_of(&conflict.device),
                lost_at: conflict.time,
                settled: conflict.settled,
                ..Line::default()
            };
            self.log(row, line);
        }
    }

    fn log(&mut self, row: &DocumentRow, line: Line<'_>) {
        if self.shared.conflict_log.is_some() {
            let line = Line { collection: &row.collection, id: &row.name, ..line };
            // What came out of JSON goes into it.
            self.write.noticed.extend(serde_json::to_string(&line).map(|line| line + "\n"));
        }
    }

    /// Writes down what was noticed, now that it is committed. The journal in the database is what counts: a log that cannot be
    /// written is said, and stops nothing.
    pub(super) fn log_noticed(&self, noticed: Vec<String>) {
        let Some(path) = self.shared.conflict_log.as_ref().filter(|_| !noticed.is_empty()) else { return };
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(noticed.concat().as_bytes()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the conflict log cannot be written");
        }
    }
}

/// How many of them ask for somebody's decision.
pub(super) fn open_conflicts(conflicts: &[FieldConflict]) -> i64 {
    conflicts.iter().filter(|conflict| !conflict.settled).count() as i64
}

/// Those losers of a document that have room in the journal, in the order given. It depends on nothing but what they are, so it is the same on
/// devices that have heard of them in another order: open ones before others, the first of each field before further ones, and short ones
/// before long ones, so that nobody takes the room of others by one field or by long values.
fn losers(conflicts: &[FieldConflict]) -> store::Result<(Losers<'_>, Vec<&FieldConflict>)> {
    let mut places = places(conflicts)?;
    let key = |place: &Candidate<'_>| (place.conflict.settled, place.behind, place.bytes);
    places.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.conflict.op.cmp(&b.conflict.op)));
    let (mut losers, mut left) = (Losers::default(), limits::CONFLICT_BYTES);
    let mut chosen = HashSet::new();
    for Candidate { conflict, bytes, .. } in &places {
        match left.checked_sub(*bytes) {
            Some(rest) => {
                left = rest;
                chosen.insert(&*conflict.op);
                continue;
            }
            None if conflict.settled => losers.ruled_more += 1,
            None => losers.open_more += 1,
        }
        losers.others.insert(&*conflict.op);
    }
    // Each once.
    let listed: Vec<_> = conflicts.iter().filter(|conflict| chosen.remove(&*conflict.op)).collect();
    losers.rows = listed.iter().map(|conflict| new_row(conflict)).collect::<store::Result<_>>()?;
    Ok((losers, listed))
}

/// What each loser would take. What all of a field share is looked at once, and no value is kept: there may be very many.
fn places(conflicts: &[FieldConflict]) -> store::Result<Vec<Candidate<'_>>> {
    let (mut behind, mut seen) = (HashMap::<&str, usize>::new(), HashSet::new());
    let mut last: Option<(&Arc<Json>, usize)> = None;
    let mut places = Vec::new();
    for conflict in conflicts.iter().filter(|conflict| seen.insert(&*conflict.op)) {
        let winner = match last {
            Some((winner, bytes)) if Arc::ptr_eq(winner, &conflict.winner) => bytes,
            _ => to_json(&*conflict.winner)?.len(),
        };
        last = Some((&conflict.winner, winner));
        let bytes = row_bytes([conflict.path.len(), conflict.op.len(), winner, told(&conflict.loser)?.len()]);
        let behind = behind.entry(&conflict.path).or_default();
        places.push(Candidate { conflict, behind: *behind, bytes });
        *behind += 1;
    }
    Ok(places)
}

fn new_row(conflict: &FieldConflict) -> store::Result<NewConflict<'_>> {
    Ok(NewConflict {
        path: &conflict.path,
        op: &conflict.op,
        winner: to_json(&*conflict.winner)?,
        loser: told(&conflict.loser)?,
        device: conflict.device,
        time: conflict.time,
        winner_device: conflict.winner_device,
        winner_time: conflict.winner_time,
        settled: conflict.settled,
    })
}

/// A loser as the journal has it: of what is too long the beginning. That ends in a sign with which no JSON ends, so that nobody takes it for
/// the whole.
fn told(loser: &Json) -> store::Result<String> {
    let json = to_json(loser)?;
    if json.len() <= limits::CONFLICT_LOSER_BYTES {
        return Ok(json);
    }
    Ok(match excerpt(loser, limits::CONFLICT_WINNER_BYTES) {
        Json::String(beginning) if beginning.ends_with('…') => beginning,
        _ => format!("{}…", &json[..json.floor_char_boundary(limits::CONFLICT_WINNER_BYTES)]),
    })
}
