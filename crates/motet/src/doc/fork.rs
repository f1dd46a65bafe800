//! Where two lines of changes parted that have met now.

use std::collections::{HashMap, HashSet};

use automerge::{Change, ChangeHash};

use motet_proto::DeviceId;

use super::{Document, time};

/// Two lines of changes that were made without knowledge of each other, and meet in one document.
#[derive(Debug)]
pub(super) struct Fork {
    /// What both knew.
    pub(super) base: Vec<ChangeHash>,
    pub(super) sides: [Side; 2],
}

/// One of the two lines.
#[derive(Debug)]
pub(super) struct Side {
    /// All that it knew, as a version to read at.
    pub(super) known: Vec<ChangeHash>,
    /// Its ends among the heads of the document, as a version to write at; sorted.
    pub(super) heads: Vec<ChangeHash>,
}

impl Document {
    /// The lines that met when `applied` was merged into the document, which was at `before`. They are found alike by a device that
    /// had one of them, and by one that receives both together. `None` if everybody knew of everything.
    pub(super) fn fork(&self, before: &[ChangeHash], applied: &[Change]) -> Option<Fork> {
        let heads = self.heads();
        if heads.len() < 2 || applied.is_empty() {
            return None;
        }
        let arrived: HashMap<ChangeHash, &Change> = applied.iter().map(|c| (c.hash(), c)).collect();
        let deps: HashSet<ChangeHash> = applied.iter().flat_map(|c| c.deps().iter().copied()).collect();
        let base: Vec<ChangeHash> = deps.iter().filter(|dep| !arrived.contains_key(*dep)).copied().collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = heads.iter().copied().partition(|head| before.contains(head));
        if !ours.is_empty() && !theirs.is_empty() {
            if base.is_empty() {
                return None;
            }
            let known = theirs.iter().chain(&base).copied().collect();
            let sides = [Side::new(before.to_vec(), ours), Side::new(known, theirs)];
            return Some(Fork { base, sides });
        }
        // Several lines arrived together.
        let mut made: Vec<ChangeHash> = theirs.into_iter().filter(|head| self.is_authored(head)).collect();
        made.sort_unstable();
        let (first, rest) = made.split_first()?;
        if rest.is_empty() {
            return None;
        }
        let below = |tips: &[ChangeHash]| {
            let (mut seen, mut open) = (HashSet::new(), tips.to_vec());
            while let Some(hash) = open.pop() {
                if let Some(change) = arrived.get(&hash)
                    && seen.insert(hash)
                {
                    open.extend_from_slice(change.deps());
                }
            }
            seen
        };
        let common: HashSet<ChangeHash> = below(&[*first]).intersection(&below(rest)).copied().collect();
        let base: Vec<ChangeHash> = before.iter().copied().chain(common).collect();
        if base.is_empty() {
            return None;
        }
        let side = |tips: &[ChangeHash]| Side::new(base.iter().chain(tips).copied().collect(), tips.to_vec());
        let sides = [side(&[*first]), side(rest)];
        Some(Fork { base, sides })
    }

    /// Who made the latest change of a side, and when, in seconds since 1970.
    pub(super) fn latest_of(&self, side: &Side) -> (Option<DeviceId>, i64) {
        let latest = side.heads.iter().max_by_key(|head| time::made_at(&self.am, head));
        latest.and_then(|head| self.author_of(head)).unwrap_or_default()
    }

    /// Whether a change was made by somebody, and not alike by every device.
    fn is_authored(&self, hash: &ChangeHash) -> bool {
        let meta = self.am.get_change_meta_by_hash(hash);
        meta.is_some_and(|meta| meta.author.is_some() || self.am.get_author_for_actor(&meta.actor).is_some())
    }
}

impl Side {
    fn new(known: Vec<ChangeHash>, mut heads: Vec<ChangeHash>) -> Self {
        heads.sort_unstable();
        Self { known, heads }
    }
}
