//! Collisions: two different changes of one actor with one number. They come about when a running process is copied, or by malice;
//! Automerge takes the first that it sees and refuses the second, so devices would differ for ever.
//!
//! Here the one with the smaller hash wins, on every device and whatever came first: a device that holds the other one puts its
//! document together anew, without it and without what was built on it. An order by the log would be another one on each remote.
//!
//! The actors of containers can be derived by anybody. A change that is not the container that belongs to its actor loses to the one that is.

use std::collections::HashSet;

use automerge::{Change, ChangeHash, ReadDoc};
use motet_proto::DeviceId;

use super::{Document, MergeOutcome};
use crate::limits;
use crate::schema::CollectionSchema;

/// What had to leave a document because another change with its actor and number came, and wins.
#[derive(Debug)]
pub(crate) struct Displaced {
    /// The change that lost, and all that were built on it.
    pub(crate) changes: Vec<Change>,
    /// Who made them.
    pub(crate) devices: HashSet<DeviceId>,
    /// Heads of what was left before anything new was applied.
    pub(crate) left: Vec<ChangeHash>,
}

impl Displaced {
    /// What left a document in two steps.
    pub(crate) fn join(mut self, earlier: Self) -> Self {
        self.changes.extend(earlier.changes);
        self.devices.extend(earlier.devices);
        self
    }
}

impl Document {
    /// Lets those of the refused changes win that collide and have the smaller hash.
    pub(super) fn resolve_collisions(&mut self, outcome: &mut MergeOutcome, schema: &CollectionSchema) {
        let mut failed = HashSet::new();
        for _ in 0..limits::APPLY_FAILURES {
            let refused = outcome.rejected.iter().filter(|rejected| !rejected.waits);
            let Some((winner, loser)) = refused.map(|rejected| &rejected.change).find_map(|change| {
                let rival = self.collision_of(change).filter(|_| !failed.contains(&change.hash()))?;
                self.beats(change, rival).then(|| (change.clone(), rival))
            }) else {
                break;
            };
            if !self.displace(&winner, loser, outcome, schema) {
                failed.insert(winner.hash());
            }
        }
        for rejected in outcome.rejected.iter_mut().filter(|rejected| !rejected.waits) {
            match self.collision_of(&rejected.change) {
                // Its turn comes when the document receives more.
                Some(rival) if self.beats(&rejected.change, rival) => {
                    rejected.waits = true;
                    rejected.reason = "another change with its actor and number cannot give way yet".into();
                }
                Some(_) => rejected.reason = "another change with its actor and number won".into(),
                None => {}
            }
        }
    }

    /// Puts the document together without `loser` and with `winner`. False, and nothing changes, if that does not work.
    fn displace(
        &mut self,
        winner: &Change,
        loser: ChangeHash,
        outcome: &mut MergeOutcome,
        schema: &CollectionSchema,
    ) -> bool {
        let Ok(all) = self.changes() else { return false };
        // They come in an order in which each follows what it is built on.
        let mut gone = HashSet::from([loser]);
        let (mut displaced, mut rest) = (Vec::new(), Vec::new());
        for change in all {
            if gone.contains(&change.hash()) || change.deps().iter().any(|dep| gone.contains(dep)) {
                gone.insert(change.hash());
                displaced.push(change);
            } else {
                rest.push(change);
            }
        }
        let devices = gone.iter().filter_map(|hash| self.author_of(hash)?.0).collect();
        let mut anew = Document::new(self.identity);
        let rebuilt = anew.apply_whole(rest, schema);
        let left = anew.heads();
        if !rebuilt || !anew.apply_whole(vec![winner.clone()], schema) {
            return false;
        }
        outcome.rejected.retain(|rejected| rejected.change.hash() != winner.hash());
        outcome.applied.retain(|change| !gone.contains(&change.hash()));
        outcome.applied.push(winner.clone());
        *self = anew;
        // What was built on the winner may have waited for it.
        let waited = outcome.rejected.extract_if(.., |rejected| rejected.waits);
        let waited: Vec<_> = waited.map(|rejected| rejected.change).collect();
        let more = self.merge_ready(waited, schema);
        outcome.applied.extend(more.applied);
        outcome.rejected.extend(more.rejected);
        let displaced = Displaced { changes: displaced, devices, left };
        outcome.displaced = Some(match outcome.displaced.take() {
            Some(earlier) => displaced.join(earlier),
            None => displaced,
        });
        true
    }

    /// Whether a change wins a collision in this document: of two the one that every device makes, whoever made up the other one; else
    /// the one with the smaller hash.
    fn beats(&self, change: &Change, rival: ChangeHash) -> bool {
        let Some(held) = self.am.get_change_by_hash(&rival) else { return false };
        match (self.is_genesis(change), self.is_genesis(&held)) {
            (true, false) => true,
            (false, true) => false,
            _ => change.hash() < rival,
        }
    }

    /// The change of this document that has the actor and number of another one, if it is not the same.
    fn collision_of(&self, change: &Change) -> Option<ChangeHash> {
        let held = self.am.get_changes_meta(&[]);
        let mut of_its_number =
            held.iter().filter(|held| *held.actor == *change.actor_id() && held.seq == change.seq());
        of_its_number.find(|held| held.hash != change.hash()).map(|held| held.hash)
    }
}
