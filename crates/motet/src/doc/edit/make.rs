//! Containers that new values need, made by changes that are equal on every device.

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};

use super::plan::splice_all;
use super::{At, EditError, begin};
use crate::doc::genesis::{self, Container};
use crate::doc::read::Reader;
use crate::doc::{Document, text, time};
use crate::limits;
use crate::schema::CollectionSchema;

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
            let known = at.as_deref().map(|base| (base, self.ancestors(base)));
            let is_in_base = |change: &Change| match &known {
                None => self.has_change(&change.hash()),
                Some((base, earlier)) => base.contains(&change.hash()) || earlier.contains(&change.hash()),
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
        if let Some(origins) = self.origins((map, key), at.as_deref()) {
            let made = self.begin_alike((map, key, path), [old, new], &origins)?;
            if let (Some(heads), Some(last)) = (at.as_mut(), made.last()) {
                heads.retain(|head| !origins.contains(head));
                heads.push(last.hash());
                heads.sort_unstable();
            }
            let made: Vec<_> = made.into_iter().filter(|change| !self.has_change(&change.hash())).collect();
            self.am.apply_changes(made.iter().cloned())?;
            self.shown = None;
            changes.extend(made);
            return Ok(());
        }
        changes.push(self.deterministic(path, old, at, |tx| old.put(tx, map, key))?);
        if old.is_begun() && !new.is_begun() {
            changes.push(self.deterministic(path, new, at, |tx| new.fill(tx, map, key))?);
        }
        Ok(())
    }

    /// Folds several texts of one field into the first: it takes in the words of all, the others become empty.
    /// Later words typed into the others elsewhere still show up, through the resolver.
    pub(super) fn join(
        &mut self,
        path: &str,
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
        let change = self.deterministic(path, Container::Text(&union), at, |tx| {
            for (i, (text, old)) in texts.iter().zip(&olds).enumerate() {
                splice_all(tx, text, &text::diff(old, if i == 0 { &union } else { "" }))?;
            }
            Ok(())
        })?;
        changes.push(change);
        Ok(())
    }

    /// A change that every device makes alike when it stands at the same heads.
    pub(in crate::doc) fn deterministic(
        &mut self,
        path: &str,
        container: Container<'_>,
        at: &mut At,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Change, EditError> {
        // Op ids grow with everything the document holds, so all its heads belong to the name, not only `at`.
        let mut heads = at.clone().unwrap_or_default();
        heads.extend(self.heads());
        let actor = genesis::actor(self.identity, path, container, &heads);
        self.am.set_author(None);
        self.am.set_actor(actor);
        self.has_actor = false;
        let time = time::latest(&self.am, at.as_ref().unwrap_or(&self.am.get_heads()));
        let mut tx = begin(&mut self.am, at.as_deref())?;
        edit(&mut tx)?;
        let (hash, _) = tx.commit_with(CommitOptions::default().with_time(time));
        let hash = hash.ok_or(AutomergeError::Fail)?;
        if at.is_some() {
            *at = Some(vec![hash]);
        }
        Ok(self.am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?)
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

    /// The changes of [`make`](Self::make), as any device makes them that knows the values which they take the place of. Op ids grow with all that a
    /// document holds: they are made in one that holds nothing else.
    fn begin_alike(
        &self,
        (map, key, path): (&ObjId, &str, &str),
        [old, new]: [Container<'_>; 2],
        origins: &[ChangeHash],
    ) -> Result<Vec<Change>, EditError> {
        let mut am = self.am.fork_at(origins)?;
        let time = time::latest(&am, origins);
        let actor = genesis::actor(self.identity, path, old, origins);
        let mut made = vec![genesis::commit(&mut am, actor, time, |tx| old.put(tx, map, key))?];
        if old.is_begun() && !new.is_begun() {
            let actor = genesis::actor(self.identity, path, new, &[made[0].hash()]);
            made.push(genesis::commit(&mut am, actor, time, |tx| new.fill(tx, map, key))?);
        }
        Ok(made)
    }
}
