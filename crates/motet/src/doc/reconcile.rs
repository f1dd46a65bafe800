//! What Automerge's merge cannot know, done after it: when two lines of changes meet, what both sides did alike is there once, and what
//! one side wrote into something that the other took away is not lost. Everything here is done by changes that every device makes alike.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ValueRef};
use serde_json::{Value as Json, json};

use super::Document;
use super::edit::{Again, EditError, Op, carry_out};
use super::fork::{Fork, Meeting};
use super::genesis::Container;
use super::list::{self, Item, Merged};
use super::read::{FieldConflict, excerpt, pointer};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};

/// How a journal row about a field of a list's item is told from others.
pub(crate) const ITEM_FIELD: &str = "item:";

/// What was done after a merge.
#[derive(Debug, Default)]
pub(crate) struct Reconciled {
    pub(crate) changes: Vec<Change>,
    /// What both sides wrote in one place, for the journal.
    pub(crate) noticed: Vec<FieldConflict>,
}

impl Reconciled {
    /// A change that was made on what both sides of a fork know, if it was not known.
    pub(super) fn take_up(&mut self, fork: &mut Fork, made: Option<Change>) {
        if let Some(change) = made {
            fork.follow(&change);
            self.changes.push(change);
        }
    }
}

impl Document {
    /// Reconciles what was here (`before`) with what has been applied since. The document holds both. After an error it is to be
    /// thrown away by the caller.
    pub(crate) fn reconcile(
        &mut self,
        schema: &CollectionSchema,
        before: &[ChangeHash],
        applied: &[Change],
    ) -> Result<Reconciled, EditError> {
        if self.is_edited_apart(applied) {
            return Ok(Reconciled::default());
        }
        let all = AssertUnwindSafe(|| {
            let mut done = Reconciled::default();
            if let Some(meeting) = self.met_elsewhere(before, applied) {
                // Whoever brought them together has written what was to be done: here it is only told.
                done.noticed = self.clone().bring_together(schema, meeting)?.noticed;
            }
            if let Some(meeting) = self.meeting(before, applied) {
                let Reconciled { changes, noticed } = self.bring_together(schema, meeting)?;
                done.changes = changes;
                done.noticed.extend(noticed);
            }
            self.losers_of_rescued(schema, applied.iter().chain(&done.changes), &mut done.noticed);
            Ok(done)
        });
        // What was received may be made to break it.
        catch_unwind(all).unwrap_or(Err(AutomergeError::Fail.into()))
    }

    fn bring_together(
        &mut self,
        schema: &CollectionSchema,
        mut meeting: Meeting,
    ) -> Result<Reconciled, EditError> {
        let mut done = Reconciled::default();
        let mut ends = None;
        while let Some(mut fork) = meeting.next(ends.take()) {
            self.note_made_again(&mut fork);
            let alone = self.left_alone(&fork).map(|side| side.known.clone());
            if let Some(known) = alone {
                self.keep_side(schema, &mut fork, &known, &mut done)?;
            } else {
                self.rescue(&mut fork, &mut done)?;
                self.reconcile_texts(schema, &mut fork, &mut done)?;
                self.reconcile_lists(schema, &mut fork, &mut done)?;
            }
            ends = Some(fork.ends);
        }
        Ok(done)
    }

    fn reconcile_lists(
        &mut self,
        schema: &CollectionSchema,
        fork: &mut Fork,
        done: &mut Reconciled,
    ) -> Result<(), EditError> {
        let lists: Vec<(String, ObjId, bool)> = self
            .am
            .map_range_at(ROOT, .., &fork.ends)
            .filter(|item| matches!(item.value, ValueRef::Object(ObjType::List)))
            .map(|item| (item.key.to_string(), item.id(), item.conflict))
            .collect();
        for (key, id, are_several) in lists {
            let name = self.reader(schema, Some(&fork.ends)).shown_name(&key).to_owned();
            if *schema.kind(&name) != FieldKind::List {
                continue;
            }
            let folds = !schema.fields.get(&name).is_some_and(|field| field.keep_duplicates);
            if fork.is_anew && are_several {
                self.unite_list(schema, &key, folds, fork, done)?;
                continue;
            }
            let mut old = self.items(schema, &id, &fork.base);
            let [ours, theirs] = fork.sides.each_ref().map(|side| self.items(schema, &id, &side.known));
            if fork.is_anew {
                // What only one side kept of a deleted document was put in by that side.
                let is_in = |items: &[Item<ObjId>], id: &ObjId| items.iter().any(|item| item.id == *id);
                old.retain(|item| is_in(&ours, &item.id) && is_in(&theirs, &item.id));
            } else if ours == old || theirs == old {
                continue;
            }
            let now = self.items(schema, &id, &fork.ends);
            let later = usize::from(std::ptr::eq(self.by_age(fork)[1], &fork.sides[1]));
            let merged = list::merge(&old, [&ours, &theirs], &now, later, folds);
            let lost = &merged.lost;
            done.noticed.extend(lost.iter().map(|lost| self.told(&name, lost, fork, later)));
            done.changes.extend(self.carry_out_merge(schema, (&key, &id), &now, merged, fork)?);
        }
        Ok(())
    }

    /// The items of a list, and what Automerge knows them by.
    fn items(&self, schema: &CollectionSchema, list: &ObjId, heads: &[ChangeHash]) -> Vec<Item<ObjId>> {
        let reader = self.reader(schema, Some(heads));
        let items = self.am.list_range_at(list, .., heads);
        let item = |item: automerge::iter::ListRangeItem<'_>| {
            let id = item.id();
            Item { value: reader.json(&item.value.into_value(), &id), id }
        };
        items.map(item).collect()
    }

    fn carry_out_merge(
        &mut self,
        schema: &CollectionSchema,
        (key, list): (&str, &ObjId),
        now: &[Item<ObjId>],
        merged: Merged<ObjId>,
        fork: &mut Fork,
    ) -> Result<Option<Change>, EditError> {
        let Merged { drop, edit, insert, .. } = merged;
        if drop.is_empty() && edit.is_empty() && insert.is_empty() {
            return Ok(None);
        }
        // Who does anything else makes another change.
        let ids = |ids: &[ObjId]| ids.iter().map(ObjId::to_string).collect::<Vec<_>>();
        let edited: Vec<_> = edit.iter().map(|(id, fields)| json!([id.to_string(), fields])).collect();
        let inserted: Vec<_> =
            insert.iter().map(|(id, value)| json!([id.as_ref().map(ObjId::to_string), value])).collect();
        let name = json!([ids(&drop), edited, inserted]);
        let mut ops = Vec::new();
        let reader = self.reader(schema, Some(&fork.ends));
        edit.iter().try_for_each(|(id, fields)| reader.plan_object(id, fields, Again::No, &mut ops))?;
        if ops.is_empty() && drop.is_empty() && insert.is_empty() {
            return Ok(None);
        }
        let place = |id: &ObjId| now.iter().position(|item| item.id == *id);
        let mut splices: Vec<(usize, usize, Vec<Json>)> =
            drop.iter().filter_map(place).map(|at| (at, 1, Vec::new())).collect();
        for (behind, value) in insert {
            let at = behind.as_ref().and_then(place).map_or(0, |at| at + 1);
            match splices.iter_mut().find(|(other, delete, _)| (*other, *delete) == (at, 0)) {
                Some((_, _, values)) => values.push(value),
                None => splices.push((at, 0, vec![value])),
            }
        }
        // From the end to the start, so that each place is still right when its turn comes; at one place what goes goes first.
        splices.sort_by_key(|(at, delete, _)| std::cmp::Reverse((*at, *delete)));
        ops.extend(splices.into_iter().map(|(at, delete, insert)| Op::SpliceList {
            list: list.clone(),
            at,
            delete,
            insert,
        }));
        let at = &mut Some(fork.ends.clone());
        let made = self.deterministic(&format!("/{key}"), Container::Value(&name), at, |tx| {
            ops.into_iter().try_for_each(|op| carry_out(tx, op))
        })?;
        if let Some(change) = &made.new {
            fork.follow(change);
        }
        Ok(made.new)
    }

    /// The journal row about a field of an item that both sides wrote, the same on every device.
    fn told(&self, field: &str, lost: &list::LostValue, fork: &Fork, later: usize) -> FieldConflict {
        let path = pointer(std::iter::once(field).chain(lost.path.iter().map(String::as_str)));
        let (device, time) = self.latest_of(&fork.sides[1 - later]);
        let (winner_device, winner_time) = self.latest_of(&fork.sides[later]);
        FieldConflict {
            op: op_of_item(&path, &lost.winner, &lost.loser),
            path: path.into(),
            winner: excerpt(&lost.winner, limits::CONFLICT_WINNER_BYTES).into(),
            loser: lost.loser.clone(),
            device,
            time,
            winner_device,
            winner_time: Some(winner_time),
            settled: true,
        }
    }
}

/// What a journal row about a field inside of a value goes by, on every device.
pub(super) fn op_of_item(path: &str, winner: &Json, loser: &Json) -> String {
    let mut hash = blake3::Hasher::new_derive_key("motet 2026 item field v1");
    for part in [path, &winner.to_string(), &loser.to_string()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("{ITEM_FIELD}{}", &hash.finalize().to_hex()[..32])
}
