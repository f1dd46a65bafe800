//! Whether a document is there after its writes and deletes have met, by the policy that is declared.

use std::collections::BTreeSet;

use super::promises::{Event, Promises, SURELY_LATER};
use super::script::Policy;

/// What the rules say of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is there.
    Live,
    /// It is not.
    Deleted,
    /// The rules do not say.
    Open,
}

impl Promises {
    /// What must be of a document of which a device knows these events.
    pub(super) fn presence(&self, policy: Policy, of_doc: &BTreeSet<usize>) -> Presence {
        let event = |number: &usize| &self.events[*number];
        let heads = self.latest(of_doc);
        let lives = heads.iter().any(|head| !event(head).deletes);
        if policy == Policy::EditWins {
            // Two devices that take up the same row have made one change, which each of them may then delete for both.
            let is_alike = heads.iter().all(|head| event(head).deletes || event(head).adopted);
            return match lives {
                false => Presence::Deleted,
                true if is_alike && heads.iter().any(|head| event(head).deletes) => Presence::Open,
                true => Presence::Live,
            };
        }
        if of_doc.iter().any(|number| event(number).never_sent) {
            return Presence::Open;
        }
        let tombstones: BTreeSet<usize> =
            of_doc.iter().copied().filter(|number| event(number).deletes).collect();
        let is_restored = |tombstone: &usize| {
            of_doc.iter().any(|other| event(other).restores && event(other).knew.contains(tombstone))
        };
        let mut standing = tombstones.iter().filter(|tombstone| !is_restored(tombstone)).peekable();
        if standing.peek().is_none() {
            return Presence::Live;
        }
        // Some of them were decided by another policy, or are edits of what is deleted.
        if of_doc.iter().any(|number| event(number).policy != policy || event(number).is_beside_delete) {
            return Presence::Open;
        }
        if policy == Policy::Wins {
            return Presence::Deleted;
        }
        // The time of a row is that of its database, and what comes after it is later still.
        if of_doc.iter().any(|number| event(number).adopted) {
            return Presence::Open;
        }
        let mut presence = Presence::Live;
        for tombstone in standing {
            let unseen: Vec<&Event> = of_doc
                .difference(&tombstones)
                .filter(|other| !event(tombstone).knew.contains(other))
                .map(event)
                .collect();
            let at = event(tombstone).time;
            if unseen.iter().all(|edit| edit.time + SURELY_LATER < at) {
                return Presence::Deleted;
            }
            let is_surely_newer =
                |edit: &&Event| edit.time > at + SURELY_LATER || edit.knew.contains(tombstone);
            if !unseen.iter().any(is_surely_newer) {
                presence = Presence::Open;
            }
        }
        presence
    }
}
