//! What becomes of pushes to one log, found out before anything is written.

use std::collections::{BTreeMap, HashMap, HashSet};

use motet_proto::message::{Outcome, Rejection};
use motet_proto::session::AppendOutcome;
use motet_proto::{DocumentId, Entry, EntryId, Kind, Position, SpaceId};

use crate::config::Limits;
use crate::store::{Appended, Counts, rejected};

/// A log as it was read.
pub(super) struct Known {
    pub(super) log: i64,
    pub(super) head: Position,
    pub(super) epoch: i64,
    /// Of all logs of the account.
    pub(super) counts: Counts,
    /// Of the entries that the pushes have, or name, those that the log holds.
    pub(super) entries: HashMap<EntryId, (DocumentId, u64)>,
    /// Of the documents of the pushes, those of which the log holds something.
    pub(super) documents: HashSet<DocumentId>,
}

/// A row to be inserted.
pub(super) struct Row {
    pub(super) at: Position,
    pub(super) entry: Entry,
    /// By a snapshot that comes with it.
    pub(super) superseded_by: Option<u64>,
    /// By an erasure that comes with it.
    pub(super) is_erased: bool,
}

/// What is to be written.
pub(super) struct Plan {
    pub(super) known: Known,
    /// Where the log ends then.
    pub(super) head: Position,
    /// By how much the log grows.
    pub(super) added: Counts,
    pub(super) rows: Vec<Row>,
    /// Stored entries, each with the snapshot that supersedes it.
    pub(super) superseded: BTreeMap<u64, u64>,
    /// The last erasure of each document.
    pub(super) erasures: BTreeMap<DocumentId, u64>,
    /// One for each push.
    pub(super) answers: Vec<Appended>,
}

impl Plan {
    /// Of pushes, which take effect in their order.
    pub(super) fn of<'p>(
        pushes: impl Iterator<Item = &'p [Entry]>,
        space: SpaceId,
        known: Known,
        limits: &Limits,
    ) -> Self {
        let head = known.head;
        let mut plan = Self {
            known,
            head,
            added: Counts::default(),
            rows: Vec::new(),
            superseded: BTreeMap::new(),
            erasures: BTreeMap::new(),
            answers: Vec::new(),
        };
        for push in pushes {
            let answer = plan.take(push, space, limits);
            plan.answers.push(answer);
        }
        plan
    }

    fn take(&mut self, push: &[Entry], space: SpaceId, limits: &Limits) -> Appended {
        let first = self.head.seq + 1;
        let (mut outcomes, mut fresh, mut failed) = (Vec::with_capacity(push.len()), Vec::new(), None);
        for entry in push {
            if let Err(error) = entry.check(space) {
                outcomes.push(rejected(&error));
                continue;
            }
            if let Some(known) = self.find(entry.document, &entry.id) {
                outcomes.push(Outcome::Stored(known));
                continue;
            }
            if self.is_outdated(entry) {
                let why = "nothing of what it supersedes is in the log any more".into();
                outcomes.push(Outcome::Rejected(Rejection::Outdated, why));
                continue;
            }
            let is_new = !self.known.documents.contains(&entry.document);
            if let Err(limit) = (self.known.counts + self.added).check(entry, is_new, limits) {
                failed = Some(limit);
                break;
            }
            self.added = self.added + Counts { bytes: entry.size() as u64, documents: u64::from(is_new) };
            self.add(entry);
            outcomes.push(Outcome::Stored(self.head.seq));
            fresh.push(entry.clone());
        }
        let appended = (!fresh.is_empty()).then_some((first, self.head));
        Appended { outcome: AppendOutcome { outcomes, appended }, fresh, failed }
    }

    /// Sequence number of an entry, if the log holds it, or will.
    fn find(&self, document: DocumentId, id: &EntryId) -> Option<u64> {
        self.known.entries.get(id).filter(|(of, _)| *of == document).map(|(_, seq)| *seq)
    }

    fn is_outdated(&self, entry: &Entry) -> bool {
        let Kind::Snapshot { supersedes, .. } = &entry.kind else { return false };
        !supersedes.is_empty() && supersedes.iter().all(|id| self.find(entry.document, id).is_none())
    }

    fn add(&mut self, entry: &Entry) {
        self.head = self.head.next(entry.id);
        let (seq, document) = (self.head.seq, entry.document);
        match &entry.kind {
            Kind::Snapshot { supersedes, .. } => {
                supersedes.iter().for_each(|id| self.supersede(document, id))
            }
            Kind::Erased => {
                self.known.entries.retain(|_, (of, _)| *of != document);
                let erased = self.rows.iter_mut().filter(|row| row.entry.document == document);
                erased.for_each(|row| row.is_erased = true);
                self.erasures.insert(document, seq);
            }
            Kind::Changes | Kind::Other(_) => {}
        }
        self.known.entries.insert(entry.id, (document, seq));
        self.known.documents.insert(document);
        self.rows.push(Row { at: self.head, entry: entry.clone(), superseded_by: None, is_erased: false });
    }

    /// By the entry that is being added.
    fn supersede(&mut self, document: DocumentId, id: &EntryId) {
        let Some(seq) = self.find(document, id) else { return };
        let by = self.head.seq;
        match seq.checked_sub(self.known.head.seq + 1) {
            None => _ = self.superseded.entry(seq).or_insert(by),
            Some(at) => {
                let row = usize::try_from(at).ok().and_then(|at| self.rows.get_mut(at));
                row.into_iter().for_each(|row| _ = row.superseded_by.get_or_insert(by));
            }
        }
    }
}
