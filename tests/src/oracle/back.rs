//! What undo, redo and restore points lead to.

use std::collections::BTreeMap;

use super::known::{Known, Undoable};
use super::model::{Outcome, Rules, State, Verdict, World};
use super::script::Kind;

impl Known {
    /// The latest step that did something else than what was removed for good since.
    pub(super) fn latest_of<'s>(&self, steps: &'s [Undoable]) -> Option<&'s Undoable> {
        let is_left = |doc: &usize| self.world.get(doc) != Some(&State::Purged);
        steps.iter().rev().find(|step| step.docs.iter().any(is_left))
    }

    pub(super) fn undone(&self, steps: &[Undoable]) -> Outcome {
        if self.undo_is_open {
            let mut outcome = Outcome::nothing(&self.world, Verdict::Either);
            outcome.open_documents.extend(self.world.keys());
            return outcome;
        }
        let mut outcome = Outcome::nothing(&self.world, Verdict::Done);
        let Some(step) = self.latest_of(steps) else { return outcome };
        let then = self.world.iter().map(|(doc, now)| {
            let then = step.before.get(doc).filter(|_| step.docs.contains(doc));
            (*doc, if step.docs.contains(doc) { then.cloned().unwrap_or(State::Absent) } else { now.clone() })
        });
        outcome = self.back_to(Some(&then.collect()));
        outcome
    }

    /// All documents as they were, with the local fields of now.
    pub(super) fn back_to(&self, then: Option<&World>) -> Outcome {
        let mut outcome = Outcome::nothing(&self.world, Verdict::Done);
        let Some(then) = then else { return outcome };
        for (doc, now) in &self.world {
            let state = match (then.get(doc), now) {
                (_, State::Purged) => State::Purged,
                (Some(State::Live(then)), now) => {
                    let held = match now {
                        State::Live(now) => Some(now),
                        _ => None,
                    };
                    // Rules that were declared since do not stand in the way.
                    let then_shared = self.rules.shared(then);
                    let fits = then_shared.iter().all(|(name, value)| self.rules.fits(name, value));
                    let unruled = Rules { bounds: BTreeMap::new(), ..self.rules.clone() };
                    if !fits || unruled.allow_over(held, &then_shared) != Verdict::Done {
                        outcome.verdict = Verdict::Either;
                    }
                    let live = match now {
                        State::Live(now) | State::Deleted(Some(now)) => Some(now),
                        _ => None,
                    };
                    State::Live(self.rules.back_to(live, then))
                }
                (Some(State::Deleted(Some(then))), State::Live(now) | State::Deleted(Some(now))) => {
                    State::Deleted(Some(self.rules.back_to(Some(now), then)))
                }
                (Some(State::Deleted(then)), _) => State::Deleted(then.clone()),
                (_, State::Live(_)) => State::Deleted(None),
                (_, now) => now.clone(),
            };
            outcome.open.extend(self.late_local.iter().map(|name| (*doc, name.clone())));
            if matches!(now, State::Deleted(None)) {
                // What it kept on this device is not known.
                let local = self.rules.kinds.iter().filter(|(_, kind)| **kind == Kind::Local);
                outcome.open.extend(local.map(|(name, _)| (*doc, name.clone())));
            }
            if self.forked.contains(doc) {
                outcome.open_documents.insert(*doc);
            }
            outcome.world.insert(*doc, state);
        }
        if !self.forked.is_empty() && outcome.verdict == Verdict::Done {
            outcome.verdict = Verdict::Either;
        }
        outcome
    }
}
