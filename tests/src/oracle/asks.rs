//! Fields that ask: what has several values cannot be written until somebody resolves it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::known::Known;
use super::model::{State, Verdict};
use super::script::{Act, Kind, Write};

impl Known {
    /// Whether an act may write an `ask` field that has several values: that is refused until somebody resolves it.
    pub(super) fn contested(&self, act: &Act) -> Verdict {
        let mut contested = BTreeSet::new();
        for (doc, rows) in &self.journal {
            let open = rows.iter().filter(|row| !row.settled).filter_map(|row| row.path.first());
            let asks = open.filter(|field| self.rules.kind(field) == Kind::Ask);
            contested.extend(asks.map(|field| (*doc, field.as_str())));
        }
        let is_free = |doc: usize, fields: &[&String]| {
            fields.iter().all(|field| !contested.contains(&(doc, field.as_str())))
        };
        let is_free_of = |doc: usize| contested.iter().all(|(of, _)| *of != doc);
        let free = match act {
            Act::Write(
                Write::Insert { doc, fields } | Write::Put { doc, fields } | Write::Set { doc, fields },
            ) => {
                let shown = |name: &String| match self.world.get(doc) {
                    Some(State::Live(shown)) => shown.get(name),
                    _ => None,
                };
                let replaced = |(name, value): (&String, &Value)| {
                    let is_other = !value.is_object() && shown(name).is_some_and(|shown| shown != value);
                    is_other && contested.contains(&(*doc, name.as_str()))
                };
                if fields.iter().any(replaced) {
                    return Verdict::Refused;
                }
                is_free(*doc, &fields.keys().collect::<Vec<_>>())
            }
            Act::Write(
                Write::Delete { .. } | Write::Restore { .. } | Write::Purge { .. } | Write::Resolve { .. },
            ) => true,
            Act::Write(write @ (Write::PutAt { .. } | Write::RestoreVersion { .. })) => {
                is_free_of(write.doc())
            }
            Act::Write(write) => is_free(write.doc(), &write.fields().iter().collect::<Vec<_>>()),
            Act::Change { slot, set, remove } => match self.slots.get(slot) {
                Some(held) if held.editor => is_free_of(held.doc),
                Some(held) => is_free(held.doc, &set.keys().chain(remove).collect::<Vec<_>>()),
                None => true,
            },
            Act::Transaction { writes, .. } => writes.iter().all(|write| is_free_of(write.doc())),
            Act::Import { documents, .. } => documents.iter().all(|(doc, _)| is_free_of(*doc)),
            Act::Adopt { doc, .. } => is_free_of(*doc),
            Act::ChangeLog { entries } => entries.iter().all(|(doc, _)| is_free_of(*doc)),
            Act::OwnChangeLog | Act::Undo | Act::Redo | Act::RestorePoint { .. } | Act::Repair => {
                contested.is_empty()
            }
            _ => true,
        };
        if free { Verdict::Done } else { Verdict::Either }
    }

    /// Whether the journal has to be read before an act.
    pub(super) fn needs_journal(&self, act: &Act) -> bool {
        let resolves = |write: &Write| matches!(write, Write::Resolve { .. });
        let asks = self.rules.kinds.values().any(|kind| *kind == Kind::Ask);
        asks && !self.forked.is_empty()
            || match act {
                Act::Write(write) => resolves(write),
                Act::Transaction { writes, .. } => writes.iter().any(resolves),
                _ => false,
            }
    }
}
