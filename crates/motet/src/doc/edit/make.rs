//! Containers that new values need, made by changes that are equal on every device.

use std::collections::BTreeSet;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, Value};

use serde_json::Value as Json;

use super::plan::splice_all;
use super::{At, EditError};
use crate::doc::genesis::{self, Container};
use crate::doc::read::{Fields, Reader};
use crate::doc::{Document, text, time};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind, is_count};

/// A change that every device makes alike.
pub(in crate::doc) struct Alike {
    pub(in crate::doc) hash: ChangeHash,
    /// The change, if the document did not have it.
    pub(in crate::doc) new: Option<Change>,
}

impl Document {
    /// Makes a container with what the field holds (`old`), or, if that is nothing to begin with, with what it is to hold
    /// (`new`). A field that has no value yet gets a genesis change, which depends on nothing; otherwise the container replaces
    /// what is there, at the heads of the edit. Either way two devices that write the same have written it once, and counters
    /// and lists that they begin differently hold what both wrote.
    pub(super) fn make(
        &mut self,
        map: &ObjId,
        key: &str,
        path: &str,
        [old, new]: [Container<'_>; 2],
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let has_value = |am| {
            let no_schema = CollectionSchema::default();
            !Reader { am, heads: at.as_deref(), schema: &no_schema }.values(map, key).is_empty()
        };
        if self.am.get_heads().is_empty() {
            // There is nothing yet that op ids could grow with: made in place, it is the same change.
            self.am.set_author(None);
            self.has_actor = false;
            changes.extend(genesis::changes_in(&mut self.am, self.identity, key, new)?);
            return Ok(());
        }
        if *map == ROOT && !has_value(&self.am) {
            let genesis = genesis::changes(self.identity, key, new)?;
            // Somebody else may have begun the field since the version that is written on.
            let known = at.as_deref().map(|base| self.known_at(base));
            let is_in_base = |change: &Change| {
                let hash = change.hash();
                self.has_change(&hash) && known.as_ref().is_none_or(|known| known.has(&hash))
            };
            if !genesis.iter().any(is_in_base) {
                at.iter_mut().for_each(|heads| heads.extend(genesis.last().map(Change::hash)));
                let new: Vec<_> =
                    genesis.into_iter().filter(|change| !self.has_change(&change.hash())).collect();
                self.am.apply_changes(new.iter().cloned())?;
                changes.extend(new);
                return Ok(());
            }
        }
        let origins = self.origins((map, key), at.as_deref()).or_else(|| {
            // Who began the field was followed by somebody who removed it: begun again, it begins with that.
            (*map == ROOT && !has_value(&self.am))
                .then(|| self.writers_at(&CollectionSchema::default(), key, at.as_deref()))
        });
        let base = origins.unwrap_or_else(|| at.clone().unwrap_or_else(|| self.heads()));
        let begun = self.made_alike(path, old, base, at, |tx| old.put(tx, map, key))?;
        changes.extend(begun.new);
        if old.is_begun() && !new.is_begun() {
            let filled = self.made_alike(path, new, vec![begun.hash], at, |tx| new.fill(tx, map, key))?;
            changes.extend(filled.new);
        }
        Ok(())
    }

    /// A document that was deleted begins anew: what it had and is not to have goes by changes that every device makes alike, and counters begin
    /// again. Two devices that make it again have done that once, and count from the same.
    pub(super) fn begin_anew(
        &mut self,
        schema: &CollectionSchema,
        (set, remove): (&Fields, &[Vec<String>]),
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let gone: Vec<&String> = remove.iter().filter(|path| path.len() == 1).map(|path| &path[0]).collect();
        // Each is looked up in a document of its own.
        for key in gone.into_iter().take(limits::ANEW_FIELDS) {
            let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
            if reader.values(&ROOT, key).is_empty() {
                continue;
            }
            let base = self.writers_at(schema, key, at.as_deref());
            let path = format!("/{key}");
            let nothing = Container::Value(&Json::Null);
            let removed = self.made_alike(&path, nothing, base, at, |tx| tx.delete(ROOT, key.as_str()))?;
            changes.extend(removed.new);
        }
        for (key, value) in set.iter().take(limits::ANEW_FIELDS) {
            let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
            let (Some(old), Some(new)) =
                (reader.counted(&ROOT, key), value.as_i64().filter(|new| is_count(*new)))
            else {
                continue;
            };
            if *reader.kind(&ROOT, key) != FieldKind::Counter || reader.is_divided(&ROOT, key) || old == 0 {
                continue;
            }
            self.count_anew(schema, key, (old, new), at, changes)?;
        }
        Ok(())
    }

    /// Folds several texts of one field into the first: it takes in the words of all, the others become empty.
    /// Later words typed into the others elsewhere still show up, through the resolver.
    pub(super) fn join(
        &mut self,
        (path, field): (&str, Option<&str>),
        texts: &[ObjId],
        schema: &CollectionSchema,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema };
        let union = reader.union(texts);
        let olds: Vec<_> = texts.iter().map(|text| reader.text(text)).collect();
        if olds[1..].iter().all(String::is_empty) {
            return Ok(());
        }
        let base = match field {
            Some(field) => self.writers_at(schema, field, at.as_deref()),
            None => at.clone().unwrap_or_else(|| self.heads()),
        };
        let change = self.made_alike(path, Container::Text(&union), base, at, |tx| {
            for (i, (text, old)) in texts.iter().zip(&olds).enumerate() {
                splice_all(tx, text, &text::diff(old, if i == 0 { &union } else { "" }))?;
            }
            Ok(())
        })?;
        changes.extend(change.new);
        Ok(())
    }

    /// A change that every device makes alike at the heads of an edit.
    pub(in crate::doc) fn deterministic(
        &mut self,
        path: &str,
        container: Container<'_>,
        at: &mut At,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Alike, EditError> {
        let base = at.clone().unwrap_or_else(|| self.heads());
        self.made_alike(path, container, base, at, edit)
    }

    /// A change that every device makes alike that knows `base`, which is at or before the heads of the edit, whatever else it knows: op ids grow
    /// with all that a document holds, so it is made in one that holds nothing else.
    pub(in crate::doc) fn made_alike(
        &mut self,
        path: &str,
        container: Container<'_>,
        mut base: Vec<ChangeHash>,
        at: &mut At,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Alike, EditError> {
        base.sort_unstable();
        base.dedup();
        let actor = genesis::actor(self.identity, path, container, &base);
        let time = time::latest(&self.am, &base);
        let (change, is_known) = if super::is_current(&self.am, &base) {
            self.am.set_author(None);
            self.has_actor = false;
            (genesis::commit(&mut self.am, actor, time, edit)?, false)
        } else {
            let mut am = self.am.fork_at(&base)?;
            am.set_author(None);
            let change = genesis::commit(&mut am, actor, time, edit)?;
            let is_known = self.has_change(&change.hash());
            if !is_known {
                self.am.apply_changes([change.clone()])?;
            }
            (change, is_known)
        };
        self.shown = None;
        if let Some(heads) = at {
            heads.retain(|head| !base.contains(head));
            heads.push(change.hash());
            heads.sort_unstable();
        }
        Ok(Alike { hash: change.hash(), new: (!is_known).then_some(change) })
    }

    /// The changes that wrote the values of a field, if each is one value or holds nothing but such: then they tell all that there is to
    /// tell of the field, whatever else has been written since.
    fn origins(&self, (map, key): (&ObjId, &str), at: Option<&[ChangeHash]>) -> Option<Vec<ChangeHash>> {
        let no_schema = CollectionSchema::default();
        let reader = Reader { am: &self.am, heads: at, schema: &no_schema };
        let mut found = BTreeSet::new();
        let mut open = reader.values(map, key);
        while let Some((value, id)) = open.pop() {
            found.insert(self.am.hash_for_opid(&id)?);
            if found.len() > limits::ALIKE_CHANGES || open.len() > limits::ALIKE_CHANGES {
                return None;
            }
            match &value {
                // Who typed or counted does not show in what there is.
                Value::Object(ObjType::Text) => return None,
                Value::Object(_) => open.extend(reader.inside(&value, &id)),
                Value::Scalar(_) if value.is_counter() => return None,
                Value::Scalar(_) => {}
            }
        }
        (!found.is_empty()).then(|| found.into_iter().collect())
    }
}
