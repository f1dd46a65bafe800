//! A document that two devices have brought back, each for itself, after it was deleted: what it held before is nothing that they have in
//! common. They have begun it apart, with what each of them has put in it.

use automerge::transaction::Transaction;
use automerge::{ChangeHash, ChangeMetadata, ObjId, ObjType, ROOT, ReadDoc, Value};
use serde_json::{Value as Json, json};

use super::edit::{Again, EditError, carry_out};
use super::fork::{Fork, Side};
use super::genesis::Container;
use super::overlap::is_open_mark;
use super::read::{FieldConflict, Fields, pointer};
use super::reconcile::{Reconciled, op_of_item};
use super::writers::Makers;
use super::{Document, MADE_AGAIN, brings_back, is_end, list, text};
use crate::schema::{CollectionSchema, FieldKind};

impl Document {
    /// Finds out which sides of a fork have made a document again that was deleted, and whether both have brought it back. Two that only restored
    /// it have all in common that it held.
    pub(super) fn note_made_again(&self, fork: &mut Fork) {
        let metas = self.am.get_changes_meta(&fork.base);
        let makes_again = |meta: &ChangeMetadata<'_>| meta.message.as_deref() == Some(MADE_AGAIN);
        let brought_back: Vec<_> =
            metas.into_iter().filter(|meta| brings_back(meta.message.as_deref())).collect();
        if !brought_back.iter().any(makes_again) {
            return;
        }
        let sides = fork.sides.each_ref().map(|side| {
            let known = self.known_at(&side.known);
            let of_side = || brought_back.iter().filter(|meta| known.has(&meta.hash));
            (of_side().next().is_some(), of_side().any(makes_again))
        });
        fork.is_anew = brought_back.len() > 1 && sides.iter().all(|(brings_back, _)| *brings_back);
        fork.makes_again = sides.map(|(_, makes_again)| makes_again);
        fork.makings = brought_back.iter().filter(|meta| makes_again(meta)).map(|meta| meta.hash).collect();
    }

    /// The side of a fork that alone has the document, if one of the two has made it again: what the other has made, restored or edited, and then
    /// deleted or taken back itself, is no edit of what both had.
    pub(super) fn left_alone<'f>(&self, fork: &'f Fork) -> Option<&'f Side> {
        if fork.makes_again == [false; 2] {
            return None;
        }
        let over = match fork.sides.each_ref().map(|side| self.is_over(side)) {
            [true, false] => 0,
            [false, true] => 1,
            _ => return None,
        };
        // A delete alone takes nothing into the merge.
        let known = self.known_at(&fork.sides[over].known);
        let metas = self.am.get_changes_meta(&fork.base);
        let has_written =
            metas.iter().any(|meta| known.has(&meta.hash) && !is_end(meta) && self.is_authored(&meta.hash));
        has_written.then_some(&fork.sides[1 - over])
    }

    /// Whether the document is deleted as far as a side knows.
    fn is_over(&self, side: &Side) -> bool {
        let (tombstones, edits) = self.latest_of_somebody(&side.known);
        !tombstones.is_empty() && {
            let known = self.known_at(&tombstones);
            edits.iter().all(|edit| known.has(edit))
        }
    }

    /// Brings the document to what one side of a fork has made.
    pub(super) fn keep_side(
        &mut self,
        schema: &CollectionSchema,
        fork: &mut Fork,
        known: &[ChangeHash],
        done: &mut Reconciled,
    ) -> Result<(), EditError> {
        let keys = |heads: &[ChangeHash]| -> Vec<String> {
            let items = self.am.map_range_at(ROOT, .., heads).map(|item| item.key.to_string());
            items.filter(|key| !is_open_mark(key)).collect()
        };
        let (of_side, now) = (self.reader(schema, Some(known)), self.reader(schema, Some(&fork.ends)));
        let wanted: Fields = keys(known)
            .into_iter()
            .filter_map(|key| of_side.resolve(&ROOT, &key).map(|value| (key, value)))
            .collect();
        let (mut ops, mut whole, makers) = (Vec::new(), Vec::new(), Makers::new(self));
        for key in keys(&fork.ends).iter().filter(|key| !wanted.contains_key(*key)) {
            now.plan_removal(&ROOT, std::slice::from_ref(key), &mut ops);
        }
        for (key, value) in &wanted {
            let values = now.values(&ROOT, key);
            // Where the side itself has several values, all of them stay for somebody to choose.
            let is_open = || of_side.values(&ROOT, key).len() > 1 && !value.is_object() && !value.is_array();
            if now.resolve(&ROOT, key).as_ref() == Some(value) && values.len() == 1 || is_open() {
                continue;
            }
            // Inside of an object there may be several values as well.
            let is_object = |(value, _): &(Value<'_>, ObjId)| value.is_object();
            let is_as_a_whole = match value {
                Json::Object(_) => true,
                _ => values.is_empty() || values.len() > 1 && values.iter().any(is_object),
            };
            if is_as_a_whole {
                // It takes the place of all values that the side has: those that do not show are for the journal.
                let (path, values) = (pointer([of_side.shown_name(key)]), of_side.values(&ROOT, key));
                let losers = self.losers_of(&of_side, (&ROOT, key), &path, (&values, None), &makers);
                let settled = losers.into_iter().map(|(_, row)| FieldConflict {
                    op: op_of_item(&path, &row.winner, &row.loser),
                    settled: true,
                    ..row
                });
                done.noticed.extend(settled);
                if let Some((_, shown)) = values.first() {
                    self.losers_inside(shown, &path, known, &makers, &mut done.noticed);
                }
                whole.push((key, value, of_side.kind(&ROOT, key).clone()));
            } else {
                let field = Fields::from_iter([(key.clone(), value.clone())]);
                now.plan(&ROOT, &field, None, Again::Settle, &mut ops)?;
            }
        }
        if ops.is_empty() && whole.is_empty() {
            return Ok(());
        }
        let (name, ends) = (Json::Object(wanted.clone().into_iter().collect()), &mut Some(fork.ends.clone()));
        let made = self.deterministic("anew", Container::Value(&name), ends, |tx| {
            ops.into_iter().try_for_each(|op| carry_out(tx, op))?;
            whole.into_iter().try_for_each(|(key, value, kind)| container(&kind, value).put(tx, &ROOT, key))
        })?;
        done.take_up(fork, made.new);
        Ok(())
    }

    /// What one side of a fork has made of a field of the deleted document, if both have what it held, and the other has left it as it was: they
    /// are no two values. `sides`: the value of the older side, and of the newer.
    fn only_edited<'v, V: PartialEq>(
        &self,
        key: &str,
        fork: &Fork,
        base: Option<&V>,
        sides: [&'v V; 2],
    ) -> Option<&'v V> {
        let edited = (0..2).find(|n| base == Some(sides[1 - n]))?;
        let is_as_it_was = |side: &Side| self.is_as_at(key, &side.known, &fork.base, &fork.makings);
        let are_one = fork.sides.iter().all(is_as_it_was);
        are_one.then_some(sides[edited])
    }

    /// Texts of a document that both sides have begun anew hold what both wrote, as those that two devices begin apart.
    pub(super) fn unite_texts(
        &mut self,
        schema: &CollectionSchema,
        fork: &mut Fork,
        done: &mut Reconciled,
    ) -> Result<(), EditError> {
        let reader = self.reader(schema, Some(&fork.ends));
        let keys = self.am.map_range_at(ROOT, .., &fork.ends).map(|item| item.key.to_string());
        let is_text = |key: &String| reader.texts(&ROOT, key).len() == reader.values(&ROOT, key).len();
        let keys: Vec<String> = keys.filter(is_text).collect();
        for key in keys {
            let at = |heads: &[ChangeHash]| match self.reader(schema, Some(heads)).resolve(&ROOT, &key) {
                Some(Json::String(text)) => Some(text),
                _ => None,
            };
            let [Some(older), Some(newer)] = self.by_age(fork).map(|side| at(&side.known)) else { continue };
            let shown = at(&fork.ends).unwrap_or_default();
            let both = match self.only_edited(&key, fork, at(&fork.base).as_ref(), [&older, &newer]) {
                Some(edited) => edited.clone(),
                None if older == newer => older,
                None => text::union(&older, &newer),
            };
            if shown == both {
                continue;
            }
            let (name, ends) = (json!([shown, both]), &mut Some(fork.ends.clone()));
            let put = |tx: &mut Transaction<'_>| Container::Text(&both).put(tx, &ROOT, &key);
            let made = self.deterministic(&format!("/{key}"), Container::Value(&name), ends, put)?;
            done.take_up(fork, made.new);
        }
        Ok(())
    }

    /// The lists of a field that both sides have begun anew become one.
    pub(super) fn unite_list(
        &mut self,
        schema: &CollectionSchema,
        key: &str,
        folds: bool,
        fork: &mut Fork,
        done: &mut Reconciled,
    ) -> Result<(), EditError> {
        let reader = self.reader(schema, Some(&fork.ends));
        let is_list = |(value, _): &(Value<'_>, ObjId)| *value == Value::Object(ObjType::List);
        let sides = self.by_age(fork).map(|side| self.reader(schema, Some(&side.known)).resolve(&ROOT, key));
        let [Some(Json::Array(older)), Some(Json::Array(newer))] = sides else { return Ok(()) };
        if !reader.values(&ROOT, key).iter().all(is_list) {
            return Ok(());
        }
        let base = self.reader(schema, Some(&fork.base)).resolve(&ROOT, key);
        let base = base.and_then(|base| base.as_array().cloned());
        let both = match self.only_edited(key, fork, base.as_ref(), [&older, &newer]) {
            Some(edited) => edited.clone(),
            None => list::united(&older, &newer, folds),
        };
        let at = &mut Some(fork.ends.clone());
        let container = Container::List(&both);
        let made =
            self.deterministic(&format!("/{key}"), container, at, |tx| container.put(tx, &ROOT, key))?;
        done.take_up(fork, made.new);
        Ok(())
    }
}

/// What a field of this kind is made as with a value.
fn container<'v>(kind: &FieldKind, value: &'v Json) -> Container<'v> {
    match (kind, value) {
        (FieldKind::Text, Json::String(text)) => Container::Text(text),
        (FieldKind::List, Json::Array(items)) => Container::List(items),
        (FieldKind::Set, Json::Array(elements)) => Container::Set(elements),
        (FieldKind::Counter, Json::Number(count)) if let Some(count) = count.as_i64() => {
            Container::Counter(count)
        }
        _ => Container::Value(value),
    }
}
