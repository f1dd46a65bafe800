//! From new values to the fewest ops.
//!
//! An edit is planned first, by reading the document at the heads that the new values are based on, and then carried
//! out in one transaction at those heads: what arrived in between is merged and never reverted.

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{AutomergeError, Change, ChangeHash, ObjId, ObjType, PatchLog, ROOT, ReadDoc, ScalarValue};
use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::genesis::{self, Container};
use super::read::{Fields, Reader};
use super::{Document, TOMBSTONE, text};
use crate::limits;

/// Who edits, when, and on which state.
#[derive(Clone, Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) device: DeviceId,
    /// Seconds since 1970; for display only.
    pub(crate) time: i64,
    /// Fields that are made as texts. A field that is a text already stays one.
    pub(crate) text_fields: &'a BTreeSet<String>,
    /// The heads that the new values were made from; `None` for the current ones.
    pub(crate) base: Option<&'a [ChangeHash]>,
    /// What the document shows now. Reading a long text out of Automerge costs more than an edit of it.
    pub(crate) shown: &'a Fields,
}

/// Why an edit was not made. The document is then to be thrown away by the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("the document has no version {0}")]
    UnknownHeads(ChangeHash),
    #[error("field {0:?} is nested more than {max} levels deep", max = limits::VALUE_DEPTH)]
    TooDeep(String),
    #[error("a field name is empty")]
    EmptyName,
    #[error("field {0:?} is not a text")]
    NotText(String),
    #[error("position {at} and length {delete} lie outside field {field:?}, which has {len} characters")]
    OutOfRange { field: String, at: usize, delete: usize, len: usize },
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
}

/// One step of a planned edit.
enum Op {
    Put { map: ObjId, key: String, value: Json },
    Delete { map: ObjId, key: String },
    Splice { text: ObjId, splices: Vec<text::Splice> },
}

/// The heads that an edit is made at; `None` for the current ones.
type At = Option<Vec<ChangeHash>>;

impl Document {
    /// Sets the named fields and removes those at the given paths. `create` makes a change even if no value differs, so that a new or
    /// revived document has an author and a time. Returns the changes in the order made.
    pub(crate) fn write(
        &mut self,
        edit: &Edit<'_>,
        set: &Fields,
        remove: &[Vec<String>],
        create: bool,
    ) -> Result<Vec<Change>, EditError> {
        let mut at = self.base_of(edit)?;
        let mut changes = Vec::new();
        self.prepare(&ROOT, "", set, edit.text_fields, &mut at, &mut changes)?;
        let mut ops = Vec::new();
        let reader = Reader { am: &self.am, heads: at.as_deref() };
        let shown = edit.base.is_none().then_some(edit.shown);
        reader.plan(&ROOT, set, shown, &mut ops);
        remove.iter().for_each(|path| reader.plan_removal(&ROOT, path, &mut ops));
        if !ops.is_empty() {
            changes.extend(self.commit(edit, at.as_deref(), ops)?);
        } else if create {
            changes.push(self.empty_change(edit, None)?);
        }
        Ok(changes)
    }

    /// Replaces `delete` code points at `at` of a text field by `insert`.
    pub(crate) fn splice_text(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> Result<Vec<Change>, EditError> {
        let mut at = self.base_of(edit)?;
        let mut changes = Vec::new();
        let reader = Reader { am: &self.am, heads: at.as_deref() };
        let mut texts = reader.texts(&ROOT, field);
        // One text is spliced as it is; anything else has to become one first.
        if texts.len() != 1 {
            let content = match reader.resolve(&ROOT, field) {
                Some(Json::String(text)) => text,
                None if edit.text_fields.contains(field) => String::new(),
                _ => return Err(EditError::NotText(field.to_owned())),
            };
            let fields = Fields::from_iter([(field.to_owned(), Json::String(content))]);
            self.prepare(&ROOT, "", &fields, edit.text_fields, &mut at, &mut changes)?;
            texts = Reader { am: &self.am, heads: at.as_deref() }.texts(&ROOT, field);
        }
        let reader = Reader { am: &self.am, heads: at.as_deref() };
        let Some(text) = texts.into_iter().next() else {
            return Err(EditError::NotText(field.to_owned()));
        };
        let len = reader.length(&text);
        if position.checked_add(delete).is_none_or(|end| end > len) {
            return Err(EditError::OutOfRange { field: field.to_owned(), at: position, delete, len });
        }
        let splices = vec![text::Splice { at: position, delete, insert: insert.to_owned() }];
        changes.extend(self.commit(edit, at.as_deref(), vec![Op::Splice { text, splices }])?);
        Ok(changes)
    }

    /// Deletes the document: a tombstone on top of everything it holds now.
    pub(crate) fn delete(&mut self, edit: &Edit<'_>) -> Result<Vec<Change>, EditError> {
        Ok(vec![self.empty_change(edit, Some(TOMBSTONE))?])
    }

    fn base_of(&self, edit: &Edit<'_>) -> Result<At, EditError> {
        let Some(base) = edit.base else { return Ok(None) };
        if let Some(unknown) = base.iter().find(|hash| !self.has_change(hash)) {
            return Err(EditError::UnknownHeads(*unknown));
        }
        let mut base = base.to_vec();
        base.sort_unstable();
        base.dedup();
        Ok((base != self.heads()).then_some(base))
    }

    /// Makes the containers that the new values need, by changes that are equal on every device.
    fn prepare(
        &mut self,
        map: &ObjId,
        path: &str,
        set: &Fields,
        text_fields: &BTreeSet<String>,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        if path.matches('/').count() >= limits::VALUE_DEPTH {
            return Err(EditError::TooDeep(path.to_owned()));
        }
        for (key, value) in set {
            if key.is_empty() {
                return Err(EditError::EmptyName);
            }
            let path = format!("{path}/{key}");
            let reader = Reader { am: &self.am, heads: at.as_deref() };
            match value {
                Json::String(content) => {
                    let texts = reader.texts(map, key);
                    let declared = *map == ROOT && text_fields.contains(key);
                    if texts.len() > 1 {
                        self.join(&path, &texts, at, changes)?;
                    } else if texts.is_empty() && declared {
                        // A register becomes a text with the words it has, so that edits which two devices then
                        // make at the same time merge.
                        let old = reader.resolve(map, key);
                        let content = old.as_ref().and_then(Json::as_str).unwrap_or(content);
                        self.make(map, key, &path, Container::Text(content), at, changes)?;
                    }
                }
                Json::Object(fields) => {
                    if reader.maps(map, key).is_empty() {
                        self.make(map, key, &path, Container::Map, at, changes)?;
                    }
                    let reader = Reader { am: &self.am, heads: at.as_deref() };
                    if let Some(inner) = reader.maps(map, key).into_iter().next() {
                        self.prepare(&inner, &path, fields, text_fields, at, changes)?;
                    }
                }
                Json::Array(_) => check_depth(value, &path, path.matches('/').count())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a container. A field that has no value yet gets a genesis change, which depends on nothing; otherwise
    /// the container replaces what is there, at the heads of the edit.
    fn make(
        &mut self,
        map: &ObjId,
        key: &str,
        path: &str,
        container: Container<'_>,
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        if *map == ROOT && (Reader { am: &self.am, heads: at.as_deref() }).values(map, key).is_empty() {
            let genesis = genesis::change(self.identity, key, container)?;
            let hash = genesis.hash();
            if !self.has_change(&hash) {
                self.am.apply_changes([genesis.clone()])?;
                at.iter_mut().for_each(|heads| heads.push(hash));
                changes.push(genesis);
                return Ok(());
            }
        }
        let change = self.deterministic(path, container, at, |tx| {
            let object = tx.put_object(map, key, container.object_type())?;
            match container {
                Container::Text(content) => tx.splice_text(&object, 0, 0, content),
                Container::Map => Ok(()),
            }
        })?;
        changes.push(change);
        Ok(())
    }

    /// Folds several texts of one field into the first: it takes in the words of all, the others become empty.
    /// Later words typed into the others elsewhere still show up, through the resolver.
    fn join(
        &mut self,
        path: &str,
        texts: &[ObjId],
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let reader = Reader { am: &self.am, heads: at.as_deref() };
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
    fn deterministic(
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
        let mut tx = begin(&mut self.am, at.as_deref())?;
        edit(&mut tx)?;
        let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
        let hash = hash.ok_or(AutomergeError::Fail)?;
        if at.is_some() {
            *at = Some(vec![hash]);
        }
        Ok(self.am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?)
    }

    fn commit(
        &mut self,
        edit: &Edit<'_>,
        at: Option<&[ChangeHash]>,
        ops: Vec<Op>,
    ) -> Result<Option<Change>, EditError> {
        self.ensure_actor(edit.device);
        let mut tx = begin(&mut self.am, at)?;
        for op in ops {
            match op {
                Op::Put { map, key, value } => put(&mut tx, &map, &key, &value)?,
                Op::Delete { map, key } => tx.delete(&map, key)?,
                Op::Splice { text, splices } => splice_all(&mut tx, &text, &splices)?,
            }
        }
        let (hash, _) = tx.commit_with(CommitOptions::default().with_time(edit.time));
        Ok(hash.and_then(|hash| self.am.get_change_by_hash(&hash)))
    }

    fn empty_change(&mut self, edit: &Edit<'_>, message: Option<&str>) -> Result<Change, EditError> {
        self.ensure_actor(edit.device);
        let mut options = CommitOptions::default().with_time(edit.time);
        if let Some(message) = message {
            options.set_message(message);
        }
        let hash = self.am.empty_commit(options);
        Ok(self.am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?)
    }
}

impl Reader<'_> {
    /// What must be done so that `set` shows. Containers are there already.
    /// `shown` is what the reader would read, if it is known already.
    fn plan(&self, map: &ObjId, set: &Fields, shown: Option<&Fields>, ops: &mut Vec<Op>) {
        for (key, value) in set {
            match value {
                Json::String(new) if let Some(text) = self.texts(map, key).first() => {
                    let splices = match shown.and_then(|shown| shown.get(key)?.as_str()) {
                        Some(old) => text::diff(old, new),
                        None => text::diff(&self.text(text), new),
                    };
                    if !splices.is_empty() {
                        ops.push(Op::Splice { text: text.clone(), splices });
                    }
                }
                Json::Object(fields) if let Some(inner) = self.maps(map, key).first() => {
                    self.plan(inner, fields, shown.and_then(|shown| shown.get(key)?.as_object()), ops);
                }
                _ if shown.is_some_and(|shown| shown.get(key) == Some(value)) => {}
                _ if self.resolve(map, key).as_ref() == Some(value) => {}
                _ => ops.push(Op::Put { map: map.clone(), key: key.clone(), value: value.clone() }),
            }
        }
    }

    /// Removes the field at `path` from every object that shows there.
    fn plan_removal(&self, map: &ObjId, path: &[String], ops: &mut Vec<Op>) {
        match path {
            [] => {}
            [key] if self.values(map, key).is_empty() => {}
            [key] => ops.push(Op::Delete { map: map.clone(), key: key.clone() }),
            [key, rest @ ..] => {
                self.maps(map, key).iter().for_each(|inner| self.plan_removal(inner, rest, ops))
            }
        }
    }
}

fn begin<'a>(
    am: &'a mut automerge::Automerge,
    at: Option<&[ChangeHash]>,
) -> Result<Transaction<'a>, AutomergeError> {
    match at {
        None => Ok(am.transaction()),
        Some(heads) => am.transaction_at(PatchLog::inactive(), heads).map_err(|_| AutomergeError::Fail),
    }
}

fn splice_all(
    tx: &mut Transaction<'_>,
    text: &ObjId,
    splices: &[text::Splice],
) -> Result<(), AutomergeError> {
    splices.iter().try_for_each(|s| tx.splice_text(text, s.at, s.delete as isize, &s.insert))
}

fn put(tx: &mut Transaction<'_>, map: &ObjId, key: &str, value: &Json) -> Result<(), AutomergeError> {
    match value {
        Json::Array(items) => {
            let list = tx.put_object(map, key, ObjType::List)?;
            fill_list(tx, &list, items)
        }
        Json::Object(fields) => {
            let inner = tx.put_object(map, key, ObjType::Map)?;
            fields.iter().try_for_each(|(key, value)| put(tx, &inner, key, value))
        }
        scalar => tx.put(map, key, scalar_of(scalar)),
    }
}

fn fill_list(tx: &mut Transaction<'_>, list: &ObjId, items: &[Json]) -> Result<(), AutomergeError> {
    for (i, item) in items.iter().enumerate() {
        match item {
            Json::Array(items) => {
                let inner = tx.insert_object(list, i, ObjType::List)?;
                fill_list(tx, &inner, items)?;
            }
            Json::Object(fields) => {
                let inner = tx.insert_object(list, i, ObjType::Map)?;
                fields.iter().try_for_each(|(key, value)| put(tx, &inner, key, value))?;
            }
            scalar => tx.insert(list, i, scalar_of(scalar))?,
        }
    }
    Ok(())
}

fn scalar_of(value: &Json) -> ScalarValue {
    match value {
        Json::Bool(b) => ScalarValue::Boolean(*b),
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => ScalarValue::Int(n),
            (None, Some(n)) => ScalarValue::Uint(n),
            (None, None) => ScalarValue::F64(n.as_f64().unwrap_or_default()),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => ScalarValue::Null,
    }
}

fn check_depth(value: &Json, path: &str, depth: usize) -> Result<(), EditError> {
    if depth > limits::VALUE_DEPTH {
        return Err(EditError::TooDeep(path.to_owned()));
    }
    match value {
        Json::Array(items) => items.iter().try_for_each(|item| check_depth(item, path, depth + 1)),
        Json::Object(fields) => {
            if fields.contains_key("") {
                return Err(EditError::EmptyName);
            }
            fields.values().try_for_each(|value| check_depth(value, path, depth + 1))
        }
        _ => Ok(()),
    }
}
