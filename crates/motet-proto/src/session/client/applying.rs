//! What has arrived, on its way into the device's store: pages and receipts, and the position that goes with them.

use std::collections::HashSet;

use super::{ClientEffect, ClientSession, EndReason, NO_ROW, Sent, StoredReceipt};
use crate::entry::{Entry, Kind};
use crate::ids::EntryId;
use crate::message::{NotTaken, Outcome, Page, Receipt};
use crate::planted::{Bug, is_planted};
use crate::position::Position;

/// `finishes_pull`: which pull this page brought to the end of the log.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) page: Page,
    pub(super) finishes_pull: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) push: u32,
    pub(super) receipts: Vec<StoredReceipt>,
    /// The last sequence number that it speaks of.
    pub(super) last: u64,
    pub(super) position: Option<Position>,
}

/// What an apply settles once it is done.
#[derive(Debug, Default)]
pub(super) struct Applying {
    pub(super) pull_finished: Option<u64>,
    /// Pushes that are answered; receipts may come in another order than pushes went out.
    pub(super) pushes: Vec<u32>,
    /// Documents of which everything has arrived, by their tokens.
    pub(super) documents: Vec<u64>,
}

impl ClientSession {
    pub(super) fn handle_receipt(&mut self, receipt: Receipt) {
        let Some(Sent { push, rows, .. }) = self.in_flight.iter().find(|sent| sent.push == receipt.id) else {
            return self.end(EndReason::Protocol("a receipt for no push"));
        };
        if rows.len() != receipt.outcomes.len() || self.is_answered(*push) {
            return self.end(EndReason::Protocol("a receipt that does not fit its push"));
        }
        let last = receipt.outcomes.iter().map(|outcome| match outcome {
            Outcome::Stored(seq) => *seq,
            Outcome::Rejected(..) => 0,
        });
        let last = last.max().unwrap_or(0);
        let settled = match self.in_flight.front() {
            Some(oldest) if is_planted(Bug::ReceiptOfAnotherPush) && oldest.rows.len() == rows.len() => {
                &oldest.rows
            }
            _ => rows,
        };
        let receipts: Vec<_> = settled
            .iter()
            .zip(receipt.outcomes)
            .map(|(row, outcome)| StoredReceipt {
                row: *row,
                result: match outcome {
                    Outcome::Stored(_) => Ok(()),
                    Outcome::Rejected(why, message) => Err((why, message)),
                },
            })
            .collect();
        // A reset is under way: the receipt speaks of the new log, the position of the old one is gone.
        let read_to = self.position.map_or(0, |position| position.seq);
        let position = receipt.position.filter(|_| !self.resetting && receipt.after <= read_to);
        self.position = later(self.position, position);
        let push = *push;
        if receipts.iter().any(|receipt| receipt.result.is_err()) {
            self.documents.note_rejected(push);
        }
        self.held.push(Held { push, receipts, last, position });
        // What others wrote in between comes by itself to a live session.
        self.want_pull |= !self.live && position.is_none();
    }

    /// The relay has not stored a push. Its rows are loaded again when pushes are released.
    pub(super) fn handle_not_taken(&mut self, not_taken: NotTaken) {
        let NotTaken { id, code, message } = not_taken;
        let Some(at) = self.in_flight.iter().position(|sent| sent.push == id && !self.is_answered(id)) else {
            return self.end(EndReason::Protocol("an answer for no push"));
        };
        let rows = self.in_flight.remove(at).map(|sent| sent.rows).unwrap_or_default();
        if let Some(first) = rows.into_iter().filter(|row| *row != NO_ROW).min() {
            self.last_row = self.last_row.min(first - 1);
        }
        // Rounds that were about to end wait for what was not taken.
        self.load_again();
        self.holds = true;
        self.documents.note_rejected(id);
        self.effects.push_back(ClientEffect::NotTaken { code, message });
    }

    pub(super) fn has_something_to_apply(&self) -> bool {
        !self.inbox.is_empty()
            || self.documents.unapplied() > 0
            || self.held.iter().any(|held| held.position.is_some() || held.last <= self.reached)
    }

    /// Takes everything that has arrived into one transaction, in order: a position is never kept before the
    /// entries that lie ahead of it.
    pub(super) fn begin_apply(&mut self) {
        let mut applying = Applying::default();
        let (mut entries, mut receipts, mut position, mut head) = (Vec::new(), Vec::new(), None, 0);
        for Inbound { mut page, finishes_pull } in self.inbox.drain(..) {
            entries.append(&mut page.entries);
            position = later(position, Some(page.position));
            head = page.head.max(page.position.seq);
            applying.pull_finished = finishes_pull.or(applying.pull_finished);
        }
        self.documents.take_arrived(&mut entries, &mut applying.documents);
        self.leave_out_own(&mut entries);
        // Taken, so that a receipt whose position does not reach what it speaks of is not looked at again and again.
        position =
            self.held.iter_mut().fold(position, |position, held| later(position, held.position.take()));
        self.reached = self.reached.max(position.map_or(0, |position| position.seq));
        let reached = self.reached;
        for mut held in self.held.extract_if(.., |held| held.last <= reached) {
            receipts.append(&mut held.receipts);
            applying.pushes.push(held.push);
        }
        let mut position = position.filter(|at| self.handed_out.is_none_or(|handed| handed.seq <= at.seq));
        self.handed_out = position.or(self.handed_out);
        if is_planted(Bug::PositionAheadOfApply) && !entries.is_empty() {
            let effect =
                ClientEffect::Apply { entries: vec![], receipts: vec![], position: position.take(), head };
            self.applying.push_back(Applying::default());
            self.effects.push_back(effect);
        }
        self.applying.push_back(applying);
        self.effects.push_back(ClientEffect::Apply { entries, receipts, position, head });
    }
}

impl ClientSession {
    /// Takes out what this session has pushed itself: nothing in it is new here. A relay leaves that out as far as it knows, but over
    /// `POST` a pull knows nothing of the push before it. A push stays under way until the log is read beyond it, so what is
    /// compared is bounded by the window. While a lost log is read, all that it holds counts; and an erasure says something about
    /// the entries around it.
    fn leave_out_own(&self, entries: &mut Vec<Entry>) {
        if self.in_flight.is_empty() || entries.is_empty() || self.reseeding || self.resetting {
            return;
        }
        let own: HashSet<EntryId> = self.in_flight.iter().flat_map(|sent| &sent.ids).copied().collect();
        entries.retain(|entry| entry.kind == Kind::Erased || !own.contains(&entry.id));
    }
}

/// Of two places in one log the later one.
fn later(a: Option<Position>, b: Option<Position>) -> Option<Position> {
    match (a, b) {
        (Some(a), Some(b)) if b.seq < a.seq => Some(a),
        (a, b) => b.or(a),
    }
}
