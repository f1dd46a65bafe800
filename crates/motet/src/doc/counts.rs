//! What a counter has been added up from, and how it begins again when its document is made again.

use std::collections::{BTreeMap, HashMap, HashSet};

use automerge::legacy::{Key, ObjectId, OpType};
use automerge::transaction::Transactable;
use automerge::{ChangeHash, ROOT, ReadDoc, ScalarValue};

use super::edit::{At, EditError};
use super::genesis::{self, Container};
use super::read::Reader;
use super::{Change, Document};
use crate::limits;
use crate::schema::CollectionSchema;

/// What a change has added to a counter, or several that are not told apart.
struct Count {
    /// The changes upon which it is taken back.
    base: Vec<ChangeHash>,
    by: i64,
    /// It began the counter, or began it again, or every device makes it alike.
    is_start: bool,
}

impl Document {
    /// Lets a counter that holds `old` begin again from `new`. Each count that is known here is taken back by a change of its own, which every
    /// device makes alike: whoever knows of fewer takes back fewer, and of two devices that do it nothing is taken back twice.
    pub(super) fn count_anew(
        &mut self,
        schema: &CollectionSchema,
        key: &str,
        (old, new): (i64, i64),
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let path = format!("/{key}");
        let counts = self.counts(&path, key, at.as_deref(), old).unwrap_or_else(|| {
            // Too many to take back one by one.
            let base = self.writers_at(schema, key, at.as_deref());
            vec![Count { base, by: old, is_start: true }]
        });
        let mut begun = Vec::new();
        for Count { base, by, is_start } in counts {
            let back = self.made_alike(&path, Container::Counter(0), base, at, |tx| {
                tx.increment(ROOT, key, by.saturating_neg())
            })?;
            changes.extend(back.new);
            if is_start {
                begun.push(back.hash);
            }
        }
        if new != 0 {
            let add = Container::Counter(new);
            let filled = self.made_alike(&path, add, begun, at, |tx| tx.increment(ROOT, key, new))?;
            changes.extend(filled.new);
        }
        Ok(())
    }

    /// What a counter has been added up from that is not taken back yet, in an order that is the same everywhere. `None` if that is more than
    /// [`limits::ANEW_COUNTS`], or not all of it is found.
    fn counts(&self, path: &str, key: &str, at: Option<&[ChangeHash]>, old: i64) -> Option<Vec<Count>> {
        let mut found = self.all_counts(key, at)?;
        let by: HashMap<ChangeHash, i64> = found.iter().map(|(hash, count)| (*hash, count.by)).collect();
        let mut over = HashSet::new();
        for (hash, back) in &found {
            let change = self.am.get_change_by_hash(hash)?;
            if let [of] = change.deps()
                && by.get(of).is_some_and(|by| by.saturating_neg() == back.by)
                && *change.actor_id() == genesis::actor(self.identity, path, Container::Counter(0), &[*of])
            {
                over.extend([*hash, *of]);
            }
        }
        found.retain(|hash, _| !over.contains(hash));
        let sum: i128 = found.values().map(|count| i128::from(count.by)).sum();
        let is_all = sum == i128::from(old) && found.values().any(|count| count.is_start);
        (is_all && found.len() <= limits::ANEW_COUNTS).then(|| found.into_values().collect())
    }

    /// The changes that have added to the counter which stands in a field. `None` if they cannot all be looked at.
    fn all_counts(&self, key: &str, at: Option<&[ChangeHash]>) -> Option<BTreeMap<ChangeHash, Count>> {
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: at, schema: &no_schema };
        let [(_, id)] = &reader.values(&ROOT, key)[..] else { return None };
        let id = id.to_string();
        let (mut open, mut seen, mut found) =
            (at.map_or_else(|| self.heads(), <[_]>::to_vec), HashSet::new(), BTreeMap::new());
        while let Some(hash) = open.pop() {
            if !seen.insert(hash) {
                continue;
            }
            let change = self.am.get_change_by_hash(&hash)?;
            if seen.len() > limits::ALIKE_CHANGES || change.len() > limits::ALIKE_CHANGE_OPS as usize {
                return None;
            }
            open.extend(change.deps());
            let (mut by, mut is_begun) = (None, false);
            for (n, op) in change.decode().operations.into_iter().enumerate() {
                if op.obj != ObjectId::Root || op.key != Key::Map(key.into()) {
                    continue;
                }
                let own = || format!("{}@{}", change.start_op().get() + n as u64, change.actor_id());
                let is_of_it =
                    || op.pred.iter().any(|pred| format!("{}@{}", pred.counter(), pred.actor()) == id);
                match op.action {
                    OpType::Put(ScalarValue::Counter(ref start)) if own() == id => {
                        (by, is_begun) = (Some(by.unwrap_or(0i64).checked_add(i64::from(start))?), true);
                    }
                    OpType::Increment(more) if is_of_it() => by = Some(by.unwrap_or(0i64).checked_add(more)?),
                    _ => {}
                }
            }
            if let Some(by) = by {
                let is_alike = self.author_of(&hash).is_none_or(|(device, _)| device.is_none());
                found.insert(hash, Count { base: vec![hash], by, is_start: is_begun || is_alike });
            }
        }
        Some(found)
    }
}
