//! One write of a document in memory, before anything of it is stored.

use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::check::{check_patch, check_size};
use super::local::{Patch, write_error};
use super::{Commit, Loaded};
use crate::doc::{Change, ChangeHash, Edit, Fields, TextEditsMade};
use crate::error::WriteError;
use crate::limits;
use crate::schema::CollectionSchema;
use crate::types::{ChangeKind, TextEdit, Version};

/// Who writes, when, and why.
#[derive(Clone, Copy)]
pub(super) struct WriteContext<'a> {
    pub(super) device: DeviceId,
    pub(super) time: i64,
    pub(super) message: Option<&'a str>,
}

/// Edits of a text field, each made on what those before it have left.
#[derive(Clone, Debug)]
pub(crate) struct TextWrite {
    pub(crate) field: String,
    pub(crate) edits: Vec<TextEdit>,
    /// The version that they are made on, if not on what there is.
    pub(crate) base: Option<Version>,
}

impl TextWrite {
    /// Whether it is worth being composed before the transaction.
    pub(crate) fn is_big(&self) -> bool {
        let size = |edit: &TextEdit| edit.insert.len().saturating_add(edit.delete);
        self.edits.iter().map(size).fold(0, usize::saturating_add) >= limits::COMPOSED_AHEAD_BYTES
    }

    fn inserted(&self) -> usize {
        self.edits.iter().map(|edit| edit.insert.len()).sum()
    }

    /// Characters of a text of `old` characters afterwards.
    fn len_after(&self, old: usize) -> usize {
        let after =
            |len: usize, edit: &TextEdit| len.saturating_sub(edit.delete) + edit.insert.chars().count();
        self.edits.iter().fold(old, after)
    }
}

/// What a write did to a document in memory.
pub(crate) struct Written {
    pub(super) changes: Vec<Change>,
    pub(super) local: bool,
    pub(super) fields: Vec<String>,
    pub(super) stale: bool,
    /// Some of it was not made on the version that it starts from, but on top of all that there is.
    pub(super) carried_over: bool,
}

impl<'a> WriteContext<'a> {
    pub(super) fn edit<'e>(
        &self,
        schema: &'e CollectionSchema,
        base: Option<&'e [ChangeHash]>,
        shown: &'e Fields,
    ) -> Edit<'e>
    where
        'a: 'e,
    {
        let Self { device, time, message } = *self;
        Edit { device, time, message, schema, base, shown, settle: false, open_at: None }
    }

    /// Sets and removes fields of a document in memory.
    pub(super) fn compose(
        &self,
        loaded: &mut Loaded,
        patch: &Patch,
        base: Option<&Version>,
        kind: ChangeKind,
    ) -> Result<Written, WriteError> {
        let mut patch = patch.canonical(&loaded.schema)?;
        check_patch(loaded, &patch)?;
        let removed = patch.remove.iter().filter_map(|path| path.first());
        let fields = patch.set.keys().chain(removed).cloned().collect();
        let base = base.map(Version::hashes);
        let otherwise = base.as_ref().map_or_else(Vec::new, |base| loaded.seen_otherwise(&patch, base));
        let anew = match otherwise.is_empty() {
            true => Patch::default(),
            false => loaded.carry_over(patch.to_mut(), &otherwise),
        };
        // Who read it while all of it was local has seen no version of it.
        let base = base.filter(|base| !base.is_empty());
        let (patch, mut local) = loaded.keep(&patch, base.as_deref());
        let create = kind == ChangeKind::Created;
        if create {
            // It comes back with what is written now.
            let schema = loaded.schema.clone();
            local |= !loaded.local.free(&schema).is_empty();
        }
        let mut changes = Vec::new();
        if !loaded.schema.is_local() {
            let mut write = |base: Option<&[ChangeHash]>, patch: &Patch| {
                let edit = self.edit(&loaded.schema, base, &loaded.fields);
                loaded.document.write(&edit, &patch.set, &patch.remove, create).map_err(write_error)
            };
            if !anew.is_empty() {
                changes.extend(write(None, &anew)?);
            }
            if anew.is_empty() || !patch.is_empty() {
                changes.extend(write(base.as_deref(), &patch)?);
            }
        }
        // An edit on an older version may have met later writes of the same fields: read them all again.
        let carried_over = !anew.is_empty();
        let stale = base.is_some() || carried_over;
        if !stale {
            loaded.show(&patch);
        }
        Ok(Written { changes, local, fields, stale, carried_over })
    }
}

impl WriteContext<'_> {
    /// Edits a text of a document in memory.
    pub(super) fn compose_text(&self, loaded: &mut Loaded, text: &TextWrite) -> Result<Written, WriteError> {
        let TextWrite { field, edits, base } = text;
        check_size(text.inserted())?;
        if loaded.schema.is_device_local(field) {
            let reason = format!("field {field:?} stays on this device and is no text");
            return Err(WriteError::bad_field(field, reason));
        }
        let schema = loaded.schema.clone();
        let field = schema.canonical(field);
        let base = base.as_ref().map(Version::hashes);
        let is_current = |base: &Vec<ChangeHash>| loaded.document.is_at(base);
        // Who read it while all of it was local has seen no version of it.
        let base = base.filter(|base| !base.is_empty() && !is_current(base));
        let shown = loaded.fields.get(field);
        let bytes = shown.and_then(Json::as_str).map_or(0, str::len) + text.inserted();
        if let Some(declared) = schema.fields.get(field).filter(|declared| declared.counts(bytes)) {
            // Reading an older version takes its time.
            let is_known = |base: &&[ChangeHash]| base.iter().all(|head| loaded.document.has_change(head));
            let known = base.as_deref().filter(is_known);
            let at_base = known.and_then(|base| loaded.document.field_at(&loaded.schema, field, base));
            let old = at_base.as_ref().or(shown).and_then(Json::as_str).unwrap_or_default().chars().count();
            let new = text.len_after(old);
            super::fields::check_step(loaded, field, declared.broken_by_length(new), new.cmp(&old))?;
        }
        let edit = self.edit(&loaded.schema, base.as_deref(), &loaded.fields);
        let TextEditsMade { changes, shown } =
            loaded.document.edit_text(&edit, field, edits).map_err(write_error)?;
        // An edit on an older version may have met later ones: the field is read again.
        let stale = shown.is_none();
        if let Some(edits) = shown {
            let shown = loaded.fields.entry(field.to_owned()).or_insert_with(|| Json::String(String::new()));
            if !shown.is_string() {
                *shown = Json::String(String::new());
            }
            if let Json::String(text) = shown {
                edits.iter().for_each(|edit| replace_part(text, edit));
            }
        }
        Ok(Written { changes, local: false, fields: vec![field.to_owned()], stale, carried_over: false })
    }
}

impl Written {
    /// The version with `base` and these changes alone; `None` if they are made on more than `base`.
    pub(super) fn branch(&self, base: &Version) -> Option<Version> {
        (!self.carried_over).then(|| self.heads_after(base))
    }

    fn heads_after(&self, base: &Version) -> Version {
        let made = self.changes.iter().map(|change| change.hash().0);
        let mut heads: Vec<_> = base.0.iter().copied().chain(made).collect();
        heads.retain(|head| !self.changes.iter().any(|change| change.deps().contains(&ChangeHash(*head))));
        heads.sort_unstable();
        heads.dedup();
        Version(heads)
    }

    /// How it is written down.
    pub(super) fn commit(&self, kind: ChangeKind) -> Commit<'_> {
        let (stale, local, fields) = (self.stale, self.local, self.fields.clone());
        Commit { stale, local, fields, ..Commit::of(&self.changes, kind) }
    }
}

/// Does to a text what Automerge has just done; the range was checked there.
fn replace_part(text: &mut String, edit: &TextEdit) {
    let byte = |text: &str, at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let start = byte(text, edit.position);
    let end = start + byte(&text[start..], edit.delete);
    text.replace_range(start..end, &edit.insert);
}
