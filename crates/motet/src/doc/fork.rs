//! Where two lines of changes parted that have met now.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use automerge::{Change, ChangeHash};

use motet_proto::DeviceId;

use super::{Document, time};

/// Lines that are brought together one by one when they arrive at once; further ones come in together.
const LINES: usize = 8;

/// Changes that are looked at to find which heads have come of one meeting. Those that are left are lines of their own.
const LINE_CHANGES: usize = 1_000;

/// Two lines of changes that were made without knowledge of each other, and meet in one document.
#[derive(Debug)]
pub(super) struct Fork {
    /// What both knew.
    pub(super) base: Vec<ChangeHash>,
    pub(super) sides: [Side; 2],
    /// Both sides together, as a version to read and to write at.
    pub(super) ends: Vec<ChangeHash>,
    /// The document was deleted, and both sides have brought it back each for itself: what it held before is nothing that they have in common.
    pub(super) is_anew: bool,
    /// Which of the sides have made the deleted document again.
    pub(super) makes_again: [bool; 2],
    /// The changes since the base that have done so.
    pub(super) makings: Vec<ChangeHash>,
}

/// One of the two lines.
#[derive(Debug)]
pub(super) struct Side {
    /// All that it knew, as a version to read at.
    pub(super) known: Vec<ChangeHash>,
    /// Its ends among the heads of the document, as a version to write at; sorted.
    pub(super) heads: Vec<ChangeHash>,
}

/// Lines of changes that have met in a document, and are brought together one after the other.
#[derive(Debug)]
pub(super) struct Meeting {
    /// What has been brought together: its ends, and those among them that somebody made.
    ends: Vec<ChangeHash>,
    heads: Vec<ChangeHash>,
    /// What is still to come in.
    lines: VecDeque<Vec<ChangeHash>>,
    /// Changes that have arrived and are not in it yet.
    apart: HashMap<ChangeHash, Vec<ChangeHash>>,
}

impl Meeting {
    /// The next line to be brought together with those before, of which `ends` are the ends now.
    pub(super) fn next(&mut self, ends: Option<Vec<ChangeHash>>) -> Option<Fork> {
        if let Some(ends) = ends {
            self.ends = ends;
        }
        loop {
            let line = self.lines.pop_front()?;
            let base = self.take_up(&line);
            let ours = Side::new(self.ends.clone(), self.heads.clone());
            // A line leaves what has been brought together at its ends, or further down.
            self.ends.retain(|end| !base.contains(end));
            self.ends.extend_from_slice(&line);
            self.ends.sort_unstable();
            self.heads.extend_from_slice(&line);
            // Who has begun the document apart has nothing in common with the others.
            if !base.is_empty() {
                let known = line.iter().chain(&base).copied().collect();
                let sides = [ours, Side::new(known, line)];
                return Some(Fork {
                    base,
                    sides,
                    ends: self.ends.clone(),
                    is_anew: false,
                    makes_again: [false; 2],
                    makings: Vec::new(),
                });
            }
        }
    }

    /// Takes the changes of a line out of those that are apart; returns what it is built on.
    fn take_up(&mut self, line: &[ChangeHash]) -> Vec<ChangeHash> {
        let (mut base, mut open) = (Vec::new(), line.to_vec());
        let mut seen: HashSet<ChangeHash> = line.iter().copied().collect();
        while let Some(hash) = open.pop() {
            match self.apart.remove(&hash) {
                Some(deps) => open.extend(deps.into_iter().filter(|dep| seen.insert(*dep))),
                None => base.push(hash),
            }
        }
        base.sort_unstable();
        base
    }
}

impl Document {
    /// The lines that met when `applied` was merged into the document, which was at `before`. Two lines are found alike by a device that
    /// had one of them, and by one that receives both together. `None` if everybody knew of everything.
    pub(super) fn meeting(&self, before: &[ChangeHash], applied: &[Change]) -> Option<Meeting> {
        let heads = self.heads();
        if heads.len() < 2 || applied.is_empty() {
            return None;
        }
        let apart = applied.iter().map(|change| (change.hash(), change.deps().to_vec())).collect();
        let (ours, mut tips): (Vec<_>, Vec<_>) = heads.into_iter().partition(|head| before.contains(head));
        if ours.is_empty() {
            tips.retain(|head| self.is_authored(head));
        }
        tips.sort_unstable();
        let mut lines = self.lines_of(&tips);
        if lines.len() > LINES {
            let rest = lines.drain(LINES - 1..).flatten().collect();
            lines.push_back(rest);
        }
        let mut meeting = Meeting { ends: before.to_vec(), heads: ours, lines, apart };
        if meeting.heads.is_empty() {
            let first = meeting.lines.pop_front()?;
            let base = meeting.take_up(&first);
            meeting.ends.retain(|end| !base.contains(end));
            meeting.ends.extend_from_slice(&first);
            meeting.heads = first;
        }
        Some(meeting)
    }

    /// The lines that end in some heads. Changes that every device makes alike, and that know of the same edits, are one: together they are what has
    /// come of one meeting, and each of them alone may stand beside what another of them has taken out.
    fn lines_of(&self, tips: &[ChangeHash]) -> VecDeque<Vec<ChangeHash>> {
        let mut lines: VecDeque<Vec<ChangeHash>> = VecDeque::new();
        let mut places: HashMap<BTreeSet<ChangeHash>, usize> = HashMap::new();
        let mut left = LINE_CHANGES;
        for tip in tips {
            match self.latest_edits(tip, &mut left).map(|edits| *places.entry(edits).or_insert(lines.len())) {
                Some(place) if place < lines.len() => lines[place].push(*tip),
                _ => lines.push_back(vec![*tip]),
            }
        }
        lines
    }

    /// The latest changes made by somebody that a change knows of, itself among them; `None` if it takes more than `left` steps to find them.
    fn latest_edits(&self, hash: &ChangeHash, left: &mut usize) -> Option<BTreeSet<ChangeHash>> {
        let (mut edits, mut seen, mut open) = (BTreeSet::new(), HashSet::new(), vec![*hash]);
        while let Some(hash) = open.pop().filter(|_| *left > 0) {
            if !seen.insert(hash) {
                continue;
            }
            *left -= 1;
            match self.am.get_change_meta_by_hash(&hash) {
                Some(meta) if !self.is_of_somebody(&meta) => open.extend(meta.deps),
                _ => _ = edits.insert(hash),
            }
        }
        (*left > 0).then_some(edits)
    }

    /// The lines that this document, which was at `before`, has in common with none of its own changes, and that others have brought
    /// together with them already.
    pub(super) fn met_elsewhere(&self, before: &[ChangeHash], applied: &[Change]) -> Option<Meeting> {
        if before.is_empty() || applied.iter().all(|change| change.deps().len() < 2) {
            return None;
        }
        // Each stands after those that it depends on.
        let mut knowing: HashSet<ChangeHash> = before.iter().copied().collect();
        let mut tips: HashSet<ChangeHash> = HashSet::new();
        let mut merged: HashSet<ChangeHash> = HashSet::new();
        let mut apart = HashMap::new();
        for change in applied {
            if change.deps().iter().any(|dep| knowing.contains(dep)) {
                knowing.insert(change.hash());
                merged.extend(change.deps().iter().filter(|dep| tips.contains(*dep)));
            } else {
                change.deps().iter().for_each(|dep| _ = tips.remove(dep));
                tips.insert(change.hash());
                apart.insert(change.hash(), change.deps().to_vec());
            }
        }
        let mut lines: Vec<_> = tips.intersection(&merged).filter(|tip| self.is_authored(tip)).collect();
        lines.sort_unstable();
        let lines: VecDeque<_> = lines.into_iter().take(LINES).map(|tip| vec![*tip]).collect();
        let meeting = Meeting { ends: before.to_vec(), heads: before.to_vec(), lines, apart };
        (!meeting.lines.is_empty()).then_some(meeting)
    }

    /// The sides of a fork, the one that was written to last behind the other, on every device.
    pub(super) fn by_age<'f>(&self, fork: &'f Fork) -> [&'f Side; 2] {
        let [ours, theirs] = &fork.sides;
        let age = |side: &'f Side| (time::latest(&self.am, &side.heads), &side.heads);
        if age(theirs) > age(ours) { [ours, theirs] } else { [theirs, ours] }
    }

    /// Who made the latest change of a side, and when, in milliseconds since 1970.
    pub(super) fn latest_of(&self, side: &Side) -> (Option<DeviceId>, i64) {
        let latest = side.heads.iter().max_by_key(|head| time::made_at(&self.am, head));
        latest.and_then(|head| self.author_of(head)).unwrap_or_default()
    }

    /// Whether a change was made by somebody, and not alike by every device.
    pub(super) fn is_authored(&self, hash: &ChangeHash) -> bool {
        let meta = self.am.get_change_meta_by_hash(hash);
        meta.is_some_and(|meta| meta.author.is_some() || self.am.get_author_for_actor(&meta.actor).is_some())
    }
}

impl Fork {
    /// Takes up a change that was made on top of everything that both sides know, or on top of some of it.
    pub(super) fn follow(&mut self, change: &Change) {
        self.ends.retain(|end| !change.deps().contains(end));
        self.ends.push(change.hash());
        self.ends.sort_unstable();
    }
}

impl Side {
    fn new(known: Vec<ChangeHash>, mut heads: Vec<ChangeHash>) -> Self {
        heads.sort_unstable();
        Self { known, heads }
    }
}
