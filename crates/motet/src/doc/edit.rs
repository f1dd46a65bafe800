//! From new values to the fewest ops.
//!
//! An edit is planned first, by reading the document at the heads that the new values are based on, and then carried
//! out in one transaction at those heads: what arrived in between is merged and never reverted.

mod make;
mod plan;
mod prepare;

use std::borrow::Cow;

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{AutomergeError, Change, ChangeHash, ObjId, PatchLog, ROOT, ReadDoc};
use motet_proto::DeviceId;
use serde_json::Value as Json;

pub(super) use self::plan::{Again, Op, carry_out, fill_list, put, put_field, splice_all};
pub(crate) use self::plan::{merged, take_at};
use super::branch::TextEditsMade;
use super::read::{Fields, Reader, element_key};
use super::{Document, MADE_AGAIN, PURGE, RESTORE, TOMBSTONE, text, time};
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind, is_count};
use crate::types::TextEdit;

/// Who edits, when, and on which state.
#[derive(Clone, Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) device: DeviceId,
    /// Milliseconds since 1970, by the clock of this device. Of concurrent values the later one shows.
    pub(crate) time: i64,
    /// Note of the app's user, for the history.
    pub(crate) message: Option<&'a str>,
    /// What fields are made as. A field that is a text, a counter or a set already stays one.
    pub(crate) schema: &'a CollectionSchema,
    /// The heads that the new values were made from; `None` for the current ones.
    pub(crate) base: Option<&'a [ChangeHash]>,
    /// What the document shows now. Reading a long text out of Automerge costs more than an edit of it.
    pub(crate) shown: &'a Fields,
    /// Concurrent values are settled by the new one, even if it is the one that shows.
    pub(crate) settle: bool,
    /// Places that were open in this version stay open nevertheless.
    pub(crate) open_at: Option<&'a [ChangeHash]>,
}

impl Edit<'_> {
    /// The same as every device makes it: at no time, and by nobody.
    pub(crate) fn alike(&self) -> Self {
        Self { time: 0, message: None, base: None, settle: false, open_at: None, ..self.clone() }
    }
}

/// Why an edit was not made. The document is then to be thrown away by the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("the document has no version {0}")]
    UnknownHeads(ChangeHash),
    #[error("field {0:?} has concurrent values; resolve them first")]
    Contested(String),
    #[error("field {0:?} is not a {1}")]
    NotOfKind(String, &'static str),
    #[error("field {0:?} is not a text")]
    NotText(String),
    #[error("a counter goes from -{max} to {max}, which field {0:?} would leave", max = limits::COUNTER_MAX)]
    OutOfCount(String),
    #[error("position {at} and length {delete} lie outside field {field:?}, which has {len} characters")]
    OutOfRange { field: String, at: usize, delete: usize, len: usize },
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
}

/// The heads that an edit is made at; `None` for the current ones.
pub(super) type At = Option<Vec<ChangeHash>>;

/// Fields to set and paths to remove under the names that a document keeps them under, and whether a name is another one.
type Stored<'e> = (Cow<'e, Fields>, Cow<'e, [Vec<String>]>, bool);

impl Document {
    /// Sets the named fields, which [`check_fields`](super::check_fields) has let pass, and removes those at the given paths. `create` makes a change even if no value differs, so that a new or
    /// revived document has an author and a time. Returns the changes in the order made.
    pub(crate) fn write(
        &mut self,
        edit: &Edit<'_>,
        set: &Fields,
        remove: &[Vec<String>],
        create: bool,
    ) -> Result<Vec<Change>, EditError> {
        let mut at = self.base_of(edit)?;
        let revived = create && self.is_deleted(edit.schema);
        let mut changes = Vec::new();
        let (set, remove, renamed) = self.stored_names(edit, set, remove, &mut at, &mut changes)?;
        let (set, remove) = self.reader(edit.schema, at.as_deref()).whole(set, remove);
        if revived {
            self.begin_anew(edit.schema, (&set, &remove), &mut at, &mut changes)?;
        }
        self.prepare(&ROOT, "", &set, edit.schema, &mut at, &mut changes)?;
        self.prepare_removal(&remove, edit.schema, &mut at, &mut changes)?;
        let mut ops = Vec::new();
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        // What was made for the new values has changed what the document shows.
        let is_shown = edit.base.is_none() && !renamed && changes.is_empty();
        let shown = is_shown.then_some(edit.shown);
        let again = match edit.settle {
            true => Again::Settle,
            false if revived => Again::Anew,
            false => Again::No,
        };
        reader.plan(&ROOT, &set, shown, again, &mut ops)?;
        remove.iter().for_each(|path| reader.plan_removal(&ROOT, path, &mut ops));
        if edit.settle {
            for (field, value) in &*set {
                let marks = self.marks_of(field, edit.open_at);
                // Two people who choose at the same time must not take out each other's choice.
                if let (false, Json::String(content)) = (marks.is_empty(), value)
                    && let Some(text) = reader.texts(&ROOT, field).first()
                    && let Some(splice) =
                        ops.iter_mut().find(|op| matches!(op, Op::Splice { text: id, .. } if id == text))
                {
                    *splice = Op::PutText { map: ROOT, key: field.clone(), content: content.clone() };
                }
                ops.extend(marks.into_iter().map(|key| Op::Delete { map: ROOT, key }));
            }
        }
        let message = match revived {
            true if set.is_empty() && remove.is_empty() => Some(RESTORE),
            true => Some(MADE_AGAIN),
            false => edit.message,
        };
        if !ops.is_empty() {
            changes.extend(self.commit(edit, at.as_deref(), ops, message)?);
        } else if create || !changes.is_empty() && at.is_none() {
            // What every device makes alike does not say who made it, and when.
            changes.push(self.empty_change(edit, message)?);
        }
        if revived {
            self.note_lifecycle(&changes);
        }
        Ok(changes)
    }

    /// Adds elements to a set and takes others out. What is there already is added again: it then survives that another
    /// device takes it out meanwhile.
    pub(crate) fn edit_set(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        add: &[Json],
        take_out: &[Json],
    ) -> Result<Vec<Change>, EditError> {
        let mut at = self.base_of(edit)?;
        let mut changes = Vec::new();
        let field = &self.one_name(edit, field, &mut at, &mut changes)?;
        let fields = Fields::from_iter([(field.clone(), Json::Array(Vec::new()))]);
        self.prepare(&ROOT, "", &fields, edit.schema, &mut at, &mut changes)?;
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        let sets = reader.maps(&ROOT, field);
        let Some(first) = sets.first().filter(|_| *reader.kind(&ROOT, field) == FieldKind::Set) else {
            return Err(EditError::NotOfKind(field.clone(), "set"));
        };
        let mut ops: Vec<Op> = Vec::new();
        for key in add.iter().map(element_key) {
            reader.plan_put((first, &key), &Json::Bool(true), &mut ops);
        }
        for key in take_out.iter().map(element_key) {
            let holding = sets.iter().filter(|set| !reader.values(set, &key).is_empty());
            ops.extend(holding.map(|set| Op::Delete { map: set.clone(), key: key.clone() }));
        }
        let made = if ops.is_empty() { None } else { self.commit(edit, at.as_deref(), ops, edit.message)? };
        self.sign(edit, &at, made, &mut changes)?;
        Ok(changes)
    }

    /// What every device makes alike does not say who made it, and when: if nothing else was made, a change without operations does. A delete
    /// that had not seen it loses to it.
    fn sign(
        &mut self,
        edit: &Edit<'_>,
        at: &At,
        made: Option<Change>,
        changes: &mut Vec<Change>,
    ) -> Result<(), EditError> {
        let is_unsigned = made.is_none() && !changes.is_empty() && at.is_none();
        changes.extend(made);
        if is_unsigned {
            changes.push(self.empty_change(edit, edit.message)?);
        }
        Ok(())
    }

    /// Adds to a counter, which is made if there is none.
    pub(crate) fn increment(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        by: i64,
    ) -> Result<Vec<Change>, EditError> {
        let mut at = self.base_of(edit)?;
        let mut changes = Vec::new();
        let field = &self.one_name(edit, field, &mut at, &mut changes)?;
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        if *reader.kind(&ROOT, field) != FieldKind::Counter {
            return Err(EditError::NotOfKind(field.clone(), "counter"));
        }
        let old = reader.count(&ROOT, field)?;
        // What concurrent writes have added up to beyond the bounds counts as the bound.
        let shown = old.clamp(-limits::COUNTER_MAX, limits::COUNTER_MAX);
        let new = shown.checked_add(by).filter(|new| is_count(*new));
        let by = new.and_then(|new| new.checked_sub(old));
        let by = by.ok_or_else(|| EditError::OutOfCount(field.clone()))?;
        let fields = Fields::from_iter([(field.clone(), shown.into())]);
        self.prepare(&ROOT, "", &fields, edit.schema, &mut at, &mut changes)?;
        let op = Op::Increment { map: ROOT, key: field.clone(), by };
        changes.extend(self.commit(edit, at.as_deref(), vec![op], edit.message)?);
        Ok(changes)
    }

    /// Settles the concurrent values of a field of an object in a list. `path` names fields and places, outermost first.
    pub(crate) fn settle_in_list(
        &mut self,
        edit: &Edit<'_>,
        path: &[String],
        value: &Json,
    ) -> Result<Vec<Change>, EditError> {
        let reader = self.reader(edit.schema, None);
        let Some((last, outer)) = path.split_last() else { return Ok(Vec::new()) };
        let Some(object) = reader.object_at(outer) else { return Ok(Vec::new()) };
        let mut ops = Vec::new();
        let field = Fields::from_iter([(last.clone(), value.clone())]);
        reader.plan(&object, &field, None, Again::Settle, &mut ops)?;
        Ok(self.commit(edit, None, ops, edit.message)?.into_iter().collect())
    }

    /// Makes edits of a text field, each on what those before it have left.
    pub(crate) fn edit_text(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        edits: &[TextEdit],
    ) -> Result<TextEditsMade, EditError> {
        let at = self.base_of(edit)?;
        if let Some(base) = &at
            && let Some(made) = self.edit_text_on_branch(edit, base, field, edits)?
        {
            return Ok(made);
        }
        let changes = self.edit_text_at(edit, field, edits, at.clone())?;
        let shown = match at {
            Some(base) => {
                self.note_branch(&base, &changes);
                None
            }
            None => Some(edits.to_vec()),
        };
        Ok(TextEditsMade { changes, shown })
    }

    pub(super) fn edit_text_at(
        &mut self,
        edit: &Edit<'_>,
        field: &str,
        edits: &[TextEdit],
        mut at: At,
    ) -> Result<Vec<Change>, EditError> {
        let mut changes = Vec::new();
        let field = &self.one_name(edit, field, &mut at, &mut changes)?;
        let reader = Reader { am: &self.am, heads: at.as_deref(), schema: edit.schema };
        let mut texts = reader.texts(&ROOT, field);
        // One text is spliced as it is; anything else has to become one first.
        if texts.len() != 1 || reader.is_divided(&ROOT, field) {
            let content = match reader.resolve(&ROOT, field) {
                Some(Json::String(text)) => text,
                None | Some(Json::Null) if *reader.kind(&ROOT, field) == FieldKind::Text => String::new(),
                _ => return Err(EditError::NotText(field.to_owned())),
            };
            let fields = Fields::from_iter([(field.to_owned(), Json::String(content))]);
            self.prepare(&ROOT, "", &fields, edit.schema, &mut at, &mut changes)?;
            texts = self.reader(edit.schema, at.as_deref()).texts(&ROOT, field);
        }
        let reader = self.reader(edit.schema, at.as_deref());
        let Some(text) = texts.into_iter().next() else {
            return Err(EditError::NotText(field.to_owned()));
        };
        let len = reader.length(&text);
        let mut left = len;
        for TextEdit { position, delete, insert } in edits {
            let (at, delete) = (*position, *delete);
            if at.checked_add(delete).is_none_or(|end| end > left) {
                return Err(EditError::OutOfRange { field: field.to_owned(), at, delete, len: left });
            }
            left = left - delete + insert.chars().count();
        }
        let splice = |edit: &TextEdit| text::Splice {
            at: edit.position,
            delete: edit.delete,
            insert: edit.insert.clone(),
        };
        let splices: Vec<_> = edits.iter().map(splice).collect();
        let op = if text::is_too_much(&splices, len.max(left), at.is_none()) {
            let mut content: Vec<char> = reader.text(&text).chars().collect();
            for TextEdit { position, delete, insert } in edits {
                content.splice(*position..position + delete, insert.chars());
            }
            Op::PutText { map: ROOT, key: field.clone(), content: content.into_iter().collect() }
        } else {
            Op::Splice { text, splices }
        };
        let made = self.commit(edit, at.as_deref(), vec![op], edit.message)?;
        self.sign(edit, &at, made, &mut changes)?;
        Ok(changes)
    }

    /// Deletes the document: a tombstone on top of everything it holds now.
    pub(crate) fn delete(&mut self, edit: &Edit<'_>) -> Result<Vec<Change>, EditError> {
        Ok(vec![self.empty_change(edit, Some(TOMBSTONE))?])
    }

    /// A tombstone after which nothing of the document is to be kept.
    pub(crate) fn purge(&mut self, edit: &Edit<'_>) -> Result<Vec<Change>, EditError> {
        Ok(vec![self.empty_change(edit, Some(PURGE))?])
    }

    /// Brings a deleted document back as it was.
    pub(crate) fn restore(&mut self, edit: &Edit<'_>) -> Result<Vec<Change>, EditError> {
        Ok(vec![self.empty_change(edit, Some(RESTORE))?])
    }

    /// An edit of declared fields under the names that this document keeps them under; also whether a name is another one.
    fn stored_names<'e>(
        &mut self,
        edit: &Edit<'_>,
        set: &'e Fields,
        remove: &'e [Vec<String>],
        at: &mut At,
        changes: &mut Vec<Change>,
    ) -> Result<Stored<'e>, EditError> {
        if edit.schema.aliased().next().is_none() {
            return Ok((Cow::Borrowed(set), Cow::Borrowed(remove), false));
        }
        let mut stored = Fields::new();
        for (name, value) in set {
            stored.insert(self.one_name(edit, name, at, changes)?, value.clone());
        }
        let mut removed = Vec::with_capacity(remove.len());
        for path in remove {
            match &path[..] {
                [] => {}
                // It goes under every name.
                [name] => {
                    let reader = self.reader(edit.schema, at.as_deref());
                    removed.extend(reader.present_names(name).into_iter().map(|name| vec![name.to_owned()]));
                }
                [name, inner @ ..] => {
                    let name = self.one_name(edit, name, at, changes)?;
                    removed.push([name].into_iter().chain(inner.iter().cloned()).collect());
                }
            }
        }
        let renamed = stored.keys().ne(set.keys());
        Ok((Cow::Owned(stored), Cow::Owned(removed), renamed))
    }

    /// Whether these are the heads that it has now.
    pub(crate) fn is_at(&self, heads: &[ChangeHash]) -> bool {
        is_current(&self.am, heads)
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

    fn commit(
        &mut self,
        edit: &Edit<'_>,
        at: Option<&[ChangeHash]>,
        ops: Vec<Op>,
        message: Option<&str>,
    ) -> Result<Option<Change>, EditError> {
        self.ensure_actor(edit.device);
        // Also of what it is not built on: who writes on an older version has seen the rest.
        let time = time::after(&self.am, &self.am.get_heads(), edit.time);
        let mut tx = begin(&mut self.am, at)?;
        ops.into_iter().try_for_each(|op| carry_out(&mut tx, op))?;
        let mut options = CommitOptions::default().with_time(time);
        if let Some(message) = message {
            options.set_message(message);
        }
        let (hash, _) = tx.commit_with(options);
        Ok(hash.and_then(|hash| self.am.get_change_by_hash(&hash)))
    }

    fn empty_change(&mut self, edit: &Edit<'_>, message: Option<&str>) -> Result<Change, EditError> {
        self.ensure_actor(edit.device);
        let time = time::after(&self.am, &self.am.get_heads(), edit.time);
        let mut options = CommitOptions::default().with_time(time);
        if let Some(message) = message {
            options.set_message(message);
        }
        let hash = self.am.empty_commit(options);
        // Automerge looks at operations when it decides whether an actor may write on an older version. This change has none: its actor
        // would write its next one there without knowing of it, and no device could load the two.
        self.has_actor = false;
        let change = self.am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?;
        self.note_lifecycle(std::slice::from_ref(&change));
        Ok(change)
    }
}

impl Reader<'_> {
    /// What a counter starts from: what it has been added up to, or the whole number that the field holds, or 0.
    pub(super) fn count(&self, map: &ObjId, key: &str) -> Result<i64, EditError> {
        if let Some(count) = self.counted(map, key) {
            return Ok(count);
        }
        match self.resolve(map, key) {
            Some(Json::Number(number)) if number.is_i64() || number.is_u64() => number
                .as_i64()
                .filter(|number| is_count(*number))
                .ok_or_else(|| EditError::OutOfCount(key.to_owned())),
            _ => Ok(0),
        }
    }
}

pub(super) fn is_current(am: &automerge::Automerge, heads: &[ChangeHash]) -> bool {
    let current = am.get_heads();
    current.len() == heads.len() && current.iter().all(|head| heads.contains(head))
}

fn begin<'a>(
    am: &'a mut automerge::Automerge,
    at: Option<&[ChangeHash]>,
) -> Result<Transaction<'a>, AutomergeError> {
    match at {
        None => Ok(am.transaction()),
        // On an older version everything takes longer.
        Some(heads) if is_current(am, heads) => Ok(am.transaction()),
        Some(heads) => am.transaction_at(PatchLog::inactive(), heads).map_err(|_| AutomergeError::Fail),
    }
}
