//! What is remembered of a device from act to act.

use std::collections::BTreeSet;

use super::device::Device;
use super::known::{Held, Known, Undoable};
use super::model::{Noted, State, World};
use super::run::{Checked, States};
use super::script::Act;

/// What can be taken back, and what can be done again.
pub(super) fn remember(
    known: &mut Known,
    act: &Act,
    done: Option<bool>,
    before: World,
    docs: &BTreeSet<usize>,
) -> Checked {
    if let (Act::Change { slot, .. }, None) = (act, done)
        && known.slots.get(slot).is_none_or(|held| held.editor)
    {
        // An editor that saves a part is set back by its user and closed: it takes that part back by a step of its own.
        known.undo_is_open = true;
    }
    match (act, done) {
        (Act::Undo | Act::Redo, Some(_)) if known.undo_is_open => {}
        (Act::Undo | Act::Redo, Some(done)) => {
            let steps = if *act == Act::Undo { &known.undo } else { &known.redo };
            let was = known.latest_of(steps).cloned();
            let left = was.as_ref().map_or(0, |was| {
                steps.iter().rposition(|step| step.docs == was.docs && step.before == was.before).unwrap_or(0)
            });
            if done != was.is_some() {
                let there = told(was.is_some());
                return Err(("undo", format!("{act:?} returns {done}, there is {there}")));
            }
            let docs = was.map(|was| was.docs);
            let (from, to) = match act {
                Act::Undo => (&mut known.undo, &mut known.redo),
                _ => (&mut known.redo, &mut known.undo),
            };
            from.truncate(left);
            docs.into_iter().for_each(|docs| to.push(Undoable { before: before.clone(), docs }));
        }
        (Act::Point, _) => known.point = Some(before),
        _ if !docs.is_empty() && !known.rules.local => {
            known.undo.push(Undoable { before, docs: docs.clone() });
            known.redo.clear();
        }
        _ => {}
    }
    Ok(())
}

fn told(is_there: bool) -> &'static str {
    if is_there { "something to go back to" } else { "nothing to go back to" }
}

pub(super) fn note_versions(known: &mut Known, after: &States) {
    for doc in known.world.iter().filter(|(_, state)| **state == State::Purged).map(|(doc, _)| doc) {
        known.versions.remove(doc);
    }
    for (doc, (version, deleted)) in after {
        let Some(State::Live(fields)) = known.world.get(doc) else { continue };
        let fields = known.rules.shared(fields);
        let versions = known.versions.entry(*doc).or_default();
        if !deleted && versions.last().is_none_or(|last| last.version != *version) {
            versions.push(Noted { version: version.clone(), fields });
        }
    }
}

/// What the app holds after an act.
pub(super) fn keep_slots(device: &Device, known: &mut Known, act: &Act, done: Option<bool>) {
    match act {
        Act::Open { slot, doc, editor } => {
            known.slots.remove(slot);
            if let (Some(true), Some(base)) = (done, device.slot(*slot)) {
                let (doc, editor, remade) = (*doc, *editor, false);
                known.slots.insert(*slot, Held { doc, editor, base, foreign: BTreeSet::new(), remade });
            }
        }
        Act::Change { slot, .. } => match (done, device.slot(*slot)) {
            (Some(true), Some(base)) => {
                known.slots.entry(*slot).and_modify(|held| held.base = base);
            }
            (Some(false), _) => {}
            _ => _ = known.slots.remove(slot),
        },
        Act::Refresh { slot } => {
            if let (Some(true), Some(base)) = (done, device.slot(*slot)) {
                known.slots.entry(*slot).and_modify(|held| {
                    held.base = base;
                    held.foreign.clear();
                    held.remade = false;
                });
            }
        }
        Act::Restart => known.slots.clear(),
        _ => {}
    }
}
