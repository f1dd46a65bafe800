//! One write of a document in memory, before anything of it is stored.

use motet_proto::DeviceId;
use serde_json::Value as Json;

use super::check::{check_patch, check_size};
use super::local::{Patch, write_error};
use super::{Commit, Loaded};
use crate::doc::{Change, ChangeHash, Edit, Fields};
use crate::error::WriteError;
use crate::limits;
use crate::schema::CollectionSchema;
use crate::types::ChangeKind;
use crate::types::Version;

/// Who writes, when, and why.
#[derive(Clone, Copy)]
pub(super) struct WriteContext<'a> {
    pub(super) device: DeviceId,
    pub(super) time: i64,
    pub(super) message: Option<&'a str>,
}

/// A part of a text field, and what takes its place. Positions are in code points.
#[derive(Clone, Debug)]
pub(crate) struct Splice {
    pub(crate) field: String,
    pub(crate) position: usize,
    pub(crate) delete: usize,
    pub(crate) insert: String,
}

impl Splice {
    /// Whether it is worth being composed before the transaction.
    pub(crate) fn is_big(&self) -> bool {
        self.insert.len().saturating_add(self.delete) >= limits::COMPOSED_AHEAD_BYTES
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
    /// Replaces a part of a text of a document in memory.
    pub(super) fn compose_splice(&self, loaded: &mut Loaded, splice: &Splice) -> Result<Written, WriteError> {
        let Splice { field, position, delete, insert } = splice;
        check_size(insert.len())?;
        if loaded.schema.is_device_local(field) {
            let reason = format!("field {field:?} stays on this device and is no text");
            return Err(WriteError::bad_field(field, reason));
        }
        let schema = loaded.schema.clone();
        let field = schema.canonical(field);
        let old = loaded.fields.get(field).and_then(Json::as_str).unwrap_or_default();
        let bytes = old.len() + insert.len();
        if let Some(declared) = schema.fields.get(field).filter(|declared| declared.counts(bytes)) {
            let old = old.chars().count();
            let new = old.saturating_sub(*delete) + insert.chars().count();
            super::fields::check_step(loaded, field, declared.broken_by_length(new), new.cmp(&old))?;
        }
        let edit = self.edit(&loaded.schema, None, &loaded.fields);
        let changes =
            loaded.document.splice_text(&edit, field, *position, *delete, insert).map_err(write_error)?;
        match loaded.fields.get_mut(field) {
            Some(Json::String(text)) => replace_part(text, splice),
            _ => _ = loaded.fields.insert(field.to_owned(), insert.as_str().into()),
        }
        Ok(Written {
            changes,
            local: false,
            fields: vec![field.to_owned()],
            stale: false,
            carried_over: false,
        })
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
fn replace_part(text: &mut String, splice: &Splice) {
    let byte = |text: &str, at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let start = byte(text, splice.position);
    let end = start + byte(&text[start..], splice.delete);
    text.replace_range(start..end, &splice.insert);
}
