//! What is known of one device, and what an act on it leads to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::journal::Journal;
use super::model::{Noted, Outcome, Rules, State, Verdict, World, difference, remove_at};
use super::script::{Act, Bounds, Fields, Kind, Write};

/// What the app holds in a slot.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Which document.
    pub(super) doc: usize,
    /// It is an editor.
    pub(super) editor: bool,
    /// As it was read, or last written back.
    pub(super) base: Fields,
    /// Fields that were written otherwise since.
    pub(super) foreign: BTreeSet<String>,
    /// The document was deleted, brought back or put back since.
    pub(super) remade: bool,
}

/// What can be taken back, or done again.
#[derive(Clone, Debug)]
pub(super) struct Undoable {
    /// What the device showed before.
    pub(super) before: World,
    /// The documents that it wrote.
    pub(super) docs: BTreeSet<usize>,
}

/// What is known of one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The rules that it knows.
    pub(super) rules: Rules,
    /// What it shows.
    pub(super) world: World,
    /// What each document was, the latest last.
    pub(super) versions: BTreeMap<usize, Vec<Noted>>,
    /// What the app holds.
    pub(super) slots: BTreeMap<usize, Held>,
    /// The transactions that can be taken back.
    pub(super) undo: Vec<Undoable>,
    /// The undos that can be done again.
    pub(super) redo: Vec<Undoable>,
    /// A document that was removed for good has come back: what can be taken back of it is not known.
    pub(super) undo_is_open: bool,
    /// The conflict journal before the act.
    pub(super) journal: Journal,
    /// Documents that were written on an older version of themselves, or by several devices at a time.
    pub(super) forked: BTreeSet<usize>,
    /// What it showed at the restore point.
    pub(super) point: Option<World>,
    /// Fields that were declared to be local after they may have been used.
    pub(super) late_local: BTreeSet<String>,
    /// Names that fields were given back.
    pub(super) turned_round: BTreeSet<String>,
}

impl Known {
    /// What an act leads to. Acts that read are `Done` and change nothing.
    pub(super) fn expect(&self, act: &Act) -> Outcome {
        let nothing = || Outcome::nothing(&self.world, Verdict::Done);
        match act {
            Act::Write(write) => self.rules.write(&self.world, write, &self.versions, &self.journal),
            Act::Transaction { writes, fails } => {
                let mut outcome = self.in_turn(writes);
                if *fails {
                    outcome = Outcome::nothing(&self.world, Verdict::Refused);
                }
                outcome
            }
            Act::Change { slot, set, remove } => self.change(*slot, set, remove),
            Act::Import { documents, many: false } => {
                let entries = documents.iter().map(|(doc, fields)| (*doc, Some(fields.clone())));
                self.rows(&entries.collect::<Vec<_>>())
            }
            Act::Import { documents, many: true } => {
                let puts =
                    documents.iter().map(|(doc, fields)| Write::Put { doc: *doc, fields: fields.clone() });
                self.in_turn(&puts.collect::<Vec<_>>())
            }
            Act::Adopt { doc, fields, newer } => self.adopt(*doc, fields, *newer),
            Act::ChangeLog { entries } => self.rows(entries),
            Act::OwnChangeLog => {
                let mut outcome = nothing();
                for state in self.world.values() {
                    if let State::Live(fields) = state
                        && self.rules.allow_over(Some(fields), &self.rules.shared(fields)) != Verdict::Done
                    {
                        outcome.verdict = Verdict::Either;
                    }
                }
                outcome
            }
            Act::Undo => self.undone(&self.undo),
            Act::Redo => self.undone(&self.redo),
            Act::PurgeTrash => {
                let mut outcome = nothing();
                // A local document that is deleted leaves nothing that could be purged.
                let is_trash = |state: &&mut State| matches!(state, State::Deleted(_)) && !self.rules.local;
                let gone = outcome.world.values_mut().filter(is_trash);
                gone.for_each(|state| *state = State::Purged);
                outcome
            }
            Act::RestorePoint { doc } => match &self.point {
                None => Outcome::nothing(&self.world, Verdict::Refused),
                Some(point) => {
                    let mut then = self.world.clone();
                    let in_scope = |number: &usize| doc.is_none_or(|doc| doc == *number);
                    for number in self.world.keys().copied().filter(in_scope) {
                        // A point knows no versions of what was in the trash: what is deleted again is there as it is now.
                        let state = match point.get(&number) {
                            None | Some(State::Deleted(_)) => State::Absent,
                            Some(state) => state.clone(),
                        };
                        then.insert(number, state);
                    }
                    let mut outcome = if self.rules.local { nothing() } else { self.back_to(Some(&then)) };
                    for (doc, state) in &then {
                        if let (State::Live(then), Some(State::Live(now))) = (state, self.world.get(doc))
                            && self.rules.allow_over(Some(now), then) != Verdict::Done
                        {
                            // It held what is refused since it was declared.
                            outcome.verdict = Verdict::Either;
                        }
                    }
                    outcome
                }
            },
            // Who has met others shows by another policy what it has met.
            Act::DeclarePolicy { .. } => {
                let mut outcome = nothing();
                outcome.open_documents.extend(self.forked.iter().copied());
                outcome
            }
            // Of concurrent values the kind of the field may choose another.
            Act::Declare { field, .. } => {
                let mut outcome = nothing();
                outcome.open.extend(self.forked.iter().map(|doc| (*doc, field.clone())));
                outcome
            }
            Act::Rename { to, .. } => {
                let mut outcome = nothing();
                // What stands under both names, the older one first, stands in the other order if they are turned round.
                if self.turned_round.contains(to) && matches!(self.rules.kind(to), Kind::List | Kind::Text) {
                    outcome.open.extend(self.forked.iter().map(|doc| (*doc, to.clone())));
                }
                outcome
            }
            Act::Open { .. } | Act::Refresh { .. } | Act::Point | Act::Restart | Act::Repair | Act::Sync => {
                nothing()
            }
        }
    }

    /// All of the writes, or none.
    fn in_turn(&self, writes: &[Write]) -> Outcome {
        let mut all = Outcome::nothing(&self.world, Verdict::Done);
        let mut written = BTreeSet::new();
        for write in writes {
            let mut next = self.rules.write(&all.world, write, &self.versions, &self.journal);
            if let Write::Resolve { doc, .. } = write
                && written.contains(doc)
            {
                // What was open is settled, or is not known.
                next = Outcome::nothing(&all.world, Verdict::Either);
                next.open_documents.insert(*doc);
            }
            if let Write::PutAt { doc, fields, .. } = write
                && written.contains(doc)
            {
                next.open.extend(fields.keys().map(|name| (*doc, name.clone())));
                next.forked.insert(*doc);
            }
            if next.verdict == Verdict::Refused {
                return match all.verdict {
                    // Whether something before it was refused does not matter.
                    _ if all.open_documents.is_empty() && all.open.is_empty() => {
                        Outcome::nothing(&self.world, Verdict::Refused)
                    }
                    // What is refused may depend on what is not known.
                    _ => {
                        let mut outcome = Outcome::nothing(&self.world, Verdict::Either);
                        outcome.open_documents.extend(writes.iter().map(Write::doc));
                        let is_fork = |write: &&Write| matches!(write, Write::PutAt { .. });
                        outcome.forked.extend(writes.iter().filter(is_fork).map(Write::doc));
                        outcome
                    }
                };
            }
            written.insert(write.doc());
            if next.verdict == Verdict::Either {
                all.verdict = Verdict::Either;
            }
            all.world = next.world;
            all.open.extend(next.open);
            all.open_documents.extend(next.open_documents);
            all.forked.extend(next.forked);
        }
        if writes.len() > 1 && !(all.open.is_empty() && all.open_documents.is_empty()) {
            // Later writes built on what is not known.
            all.verdict = Verdict::Either;
            all.open_documents.extend(all.open.iter().map(|(doc, _)| *doc).collect::<Vec<_>>());
        }
        all
    }

    fn change(&self, slot: usize, set: &Fields, remove: &[String]) -> Outcome {
        let mut outcome = Outcome::nothing(&self.world, Verdict::Done);
        let Some(held) = self.slots.get(&slot) else { return outcome };
        let mut value = held.base.clone();
        value.extend(set.clone());
        remove.iter().for_each(|name| _ = value.remove(name));
        let (set, gone) = difference(&held.base, &value);
        let Some(State::Live(now)) = self.world.get(&held.doc) else {
            outcome.verdict = Verdict::Refused;
            if held.editor && self.world.get(&held.doc) == Some(&State::Purged) {
                outcome.verdict = Verdict::Either;
            } else if held.editor {
                // What was typed may bring the document back.
                outcome.verdict = Verdict::Either;
                outcome.open_documents.insert(held.doc);
            } else if set.is_empty() && gone.is_empty() {
                outcome.verdict = Verdict::Either;
            }
            return outcome;
        };
        outcome.verdict = self.rules.allow_over(Some(now), &set);
        let mut now = now.clone();
        let names: BTreeSet<&String> =
            set.keys().chain(gone.iter().filter_map(|path| path.first())).collect();
        if outcome.verdict == Verdict::Refused && held.editor {
            // Fields that break no rule are saved, others are not written.
            outcome.open.extend(names.iter().map(|name| (held.doc, (*name).clone())));
        }
        for name in names {
            let foreign = held.remade || held.foreign.contains(name);
            if foreign {
                self.change_foreign(held, name, &value, &mut now, &mut outcome);
            } else if self.rules.local
                || now.get(name) == held.base.get(name)
                || self.rules.kind(name) == Kind::Set
            {
                match value.get(name) {
                    None => _ = now.remove(name),
                    // Not merged: what the app has taken out of an object is gone.
                    Some(new) => _ = now.insert(name.clone(), self.rules.written(name, None, new)),
                }
            } else {
                let single = set.iter().filter(|(n, _)| *n == name).map(|(n, v)| (n.clone(), v.clone()));
                self.rules.set(&mut now, &single.collect());
                gone.iter().filter(|path| path[0] == *name).for_each(|path| remove_at(&mut now, path));
            }
        }
        if !(set.is_empty() && gone.is_empty()) && (held.remade || !held.foreign.is_empty()) {
            outcome.forked.insert(held.doc);
        }
        outcome.world.insert(held.doc, State::Live(now));
        outcome
    }

    /// A field that somebody else has written since: a counter adds up, of others the rules say less.
    fn change_foreign(
        &self,
        held: &Held,
        name: &str,
        value: &Fields,
        now: &mut Fields,
        outcome: &mut Outcome,
    ) {
        if self.rules.bounds(name) != Bounds::default() {
            // What is written together with what others wrote may break a rule, or not.
            outcome.verdict = Verdict::Either;
        }
        let number = |fields: &Fields| fields.get(name).and_then(Value::as_i64);
        if self.rules.kind(name) == Kind::Counter
            && !held.remade
            && !self.rules.local
            && let (Some(old), Some(new), Some(shown)) = (number(&held.base), number(value), number(now))
            && let Some(sum) = new.checked_sub(old).and_then(|by| shown.checked_add(by))
        {
            now.insert(name.to_owned(), sum.into());
            outcome.open.insert((held.doc, name.to_owned()));
            return;
        }
        outcome.open.insert((held.doc, name.to_owned()));
    }

    fn adopt(&self, doc: usize, fields: &Fields, newer: bool) -> Outcome {
        let mut outcome = Outcome::nothing(&self.world, Verdict::Done);
        let now = match self.world.get(&doc) {
            Some(State::Live(now)) => Some(now),
            _ => None,
        };
        let verdict = self.rules.allow_over(now, fields);
        if verdict == Verdict::Refused {
            // It is told of, by an error or in the summary; nothing changes either way.
            outcome.verdict = Verdict::Either;
            return outcome;
        }
        let mut now = match self.world.get(&doc) {
            Some(_) if self.rules.local => {
                // A local document has no changes that say when it was written.
                outcome.verdict = Verdict::Either;
                outcome.open_documents.insert(doc);
                return outcome;
            }
            Some(State::Live(now)) if newer => now.clone(),
            None | Some(State::Absent) => Fields::new(),
            _ => return outcome,
        };
        self.rules.set(&mut now, fields);
        outcome.verdict = verdict;
        if verdict == Verdict::Either {
            outcome.open_documents.insert(doc);
        }
        outcome.world.insert(doc, State::Live(now));
        outcome
    }

    /// What is refused is reported, the rest goes in; if there is no rest, all is refused.
    fn rows(&self, entries: &[(usize, Option<Fields>)]) -> Outcome {
        let mut all = Outcome::nothing(&self.world, Verdict::Done);
        let mut refused = 0;
        for (doc, fields) in entries {
            match fields {
                Some(fields) => {
                    let put = Write::Put { doc: *doc, fields: fields.clone() };
                    let next = self.rules.write(&all.world, &put, &self.versions, &self.journal);
                    let contested = self.contested(&Act::ChangeLog { entries: vec![(*doc, None)] });
                    match next.verdict {
                        Verdict::Refused => refused += 1,
                        Verdict::Done if contested == Verdict::Done => all.world = next.world,
                        _ => {
                            all.verdict = Verdict::Either;
                            all.open_documents.insert(*doc);
                            all.world = next.world;
                        }
                    }
                }
                None => {
                    if let Some(State::Live(fields)) = all.world.get(doc).cloned() {
                        all.world.insert(*doc, State::Deleted(Some(fields)));
                    }
                }
            }
        }
        if refused > 0 && refused == entries.len() {
            all.verdict = Verdict::Refused;
        }
        all
    }

    /// Takes in what the device shows now, by whatever came about. `own`: the slot that wrote it.
    pub(super) fn take_in(
        &mut self,
        shown: &BTreeMap<usize, Fields>,
        deleted: &BTreeSet<usize>,
        own: Option<usize>,
        expected: Option<&Outcome>,
    ) {
        // Made and removed for good by one act, a document shows nowhere.
        let expected_docs = expected.into_iter().flat_map(|outcome| outcome.world.keys());
        let docs: BTreeSet<usize> = self
            .world
            .keys()
            .chain(shown.keys())
            .chain(deleted.iter())
            .chain(expected_docs)
            .copied()
            .collect();
        for doc in docs {
            let before = self.world.get(&doc).cloned().unwrap_or(State::Absent);
            let now = match shown.get(&doc) {
                Some(fields) => State::Live(fields.clone()),
                None if deleted.contains(&doc) => {
                    let is_known = |outcome: &&Outcome| !outcome.open_documents.contains(&doc);
                    match (expected.filter(is_known).and_then(|outcome| outcome.world.get(&doc)), &before) {
                        (Some(State::Deleted(known)), _) => State::Deleted(known.clone()),
                        (None, State::Deleted(known)) => State::Deleted(known.clone()),
                        _ => State::Deleted(None),
                    }
                }
                None => match (&before, expected.and_then(|outcome| outcome.world.get(&doc))) {
                    (State::Purged, _) | (_, Some(State::Purged)) => State::Purged,
                    (State::Absent, _) => State::Absent,
                    _ => State::Deleted(None),
                },
            };
            let slots = self.slots.iter_mut().filter(|(slot, held)| held.doc == doc && Some(**slot) != own);
            for (_, held) in slots {
                match (&before, &now) {
                    (State::Live(before), State::Live(now)) => {
                        let (set, gone) = difference(before, now);
                        held.foreign.extend(set.keys().cloned());
                        held.foreign.extend(gone.into_iter().filter_map(|path| path.into_iter().next()));
                    }
                    (before, now) if before == now => {}
                    _ => held.remade = true,
                }
            }
            self.world.insert(doc, now);
        }
    }

    /// Fields that an act writes more than once are written by it even if they show in the end what they showed before.
    pub(super) fn note_rewritten(&mut self, act: &Act, own: Option<usize>) {
        let written: Vec<(usize, Vec<String>)> = match act {
            Act::Import { documents, .. } => {
                documents.iter().map(|(doc, fields)| (*doc, fields.keys().cloned().collect())).collect()
            }
            Act::ChangeLog { entries } => {
                let names = |fields: &Option<Fields>| fields.iter().flat_map(|f| f.keys().cloned()).collect();
                entries.iter().map(|(doc, fields)| (*doc, names(fields))).collect()
            }
            Act::Transaction { writes, .. } => {
                let all = |doc: &usize| match self.world.get(doc) {
                    Some(State::Live(fields)) => fields.keys().cloned().collect(),
                    _ => Vec::new(),
                };
                writes.iter().map(|write| (write.doc(), all(&write.doc()))).collect()
            }
            _ => return,
        };
        for (slot, held) in &mut self.slots {
            let of_it: Vec<_> = written.iter().filter(|(doc, _)| *doc == held.doc).collect();
            if Some(*slot) != own && of_it.len() > 1 {
                held.foreign.extend(of_it.into_iter().flat_map(|(_, names)| names.clone()));
            }
        }
    }
}
