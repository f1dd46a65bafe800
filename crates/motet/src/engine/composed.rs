//! Big writes, composed before the transaction: while a big text is compared and spliced, others write.

use std::panic::{AssertUnwindSafe, catch_unwind};

use motet_proto::DocumentId;

use super::check::{check_name, text_bytes};
use super::held::is_as_stored;
use super::local::Patch;
use super::writing::{TextWrite, WriteContext, Written};
use super::{Adopted, Core, Loaded, Shared, load_stale, new_document, schema_of};
use crate::doc::{Fields, Identity};
use crate::limits;
use crate::store::{self, DocumentRow, Readers, Tx};
use crate::types::ChangeKind;
use crate::types::Version;

/// A write of one document as it was made on what the document was before the transaction. It counts only if the document is still
/// that.
pub(crate) struct Composed {
    key: DocumentId,
    /// `None` if there was no such document.
    onto: Option<DocumentRow>,
    base: Option<Version>,
    pub(super) kind: ChangeKind,
    /// What became of a row that was adopted.
    pub(super) adopted: Option<Adopted>,
    pub(super) loaded: Box<Loaded>,
    pub(super) written: Written,
}

/// How what is written comes in.
#[derive(Clone, Copy)]
pub(crate) enum Entrance {
    /// As an edit of this device.
    Put,
    /// As a row that other devices may take up as well.
    Row,
    /// As a row of another database, with the time that it was written at.
    Adopted(Option<i64>),
}

/// Whether a write is worth being composed before the transaction.
pub(crate) fn is_big(set: &Fields) -> bool {
    bytes_of(set) >= limits::COMPOSED_AHEAD_BYTES
}

/// Bytes of text in a write.
pub(crate) fn bytes_of(set: &Fields) -> usize {
    set.values().map(text_bytes).sum()
}

/// Composes a write of the document `name`; `None` if that is to be done, or to fail, in the transaction.
pub(crate) fn compose_ahead(
    shared: &Shared,
    readers: &Readers,
    of: (&str, &str),
    patch: &Patch,
    base: Option<&Version>,
    entrance: Entrance,
) -> Option<Composed> {
    composed(shared, readers, of, base, base.is_none(), |by, loaded, is_new| {
        let kind = if is_new { ChangeKind::Created } else { ChangeKind::Updated };
        Some(match entrance {
            Entrance::Adopted(updated_at) => {
                let (adopted, written) = by.compose_adopted(loaded, patch, updated_at).ok()?;
                (Some(adopted), written)
            }
            Entrance::Row if !is_new => (None, by.compose_row(loaded, patch).ok()?),
            Entrance::Put | Entrance::Row => (None, by.compose(loaded, patch, base, kind).ok()?),
        })
    })
}

/// Composes edits of a text, as [`compose_ahead`].
pub(super) fn compose_text_ahead(
    shared: &Shared,
    readers: &Readers,
    of: (&str, &str),
    text: &TextWrite,
) -> Option<Composed> {
    composed(shared, readers, of, text.base.as_ref(), false, |by, loaded, _| {
        Some((None, by.compose_text(loaded, text).ok()?))
    })
}

fn composed(
    shared: &Shared,
    readers: &Readers,
    (collection, name): (&str, &str),
    base: Option<&Version>,
    may_be_new: bool,
    compose: impl FnOnce(WriteContext<'_>, &mut Loaded, bool) -> Option<(Option<Adopted>, Written)>,
) -> Option<Composed> {
    let identity = Identity::derive(shared.space, collection, name);
    let key = identity.document;
    let schema = schema_of(&shared.schemas(), collection, name);
    if schema.has_local() || schema.is_local() {
        // What stays on this device has no version to be checked.
        return None;
    }
    let read = |tx: Tx<'_>| match tx.document(collection, name)? {
        Some(row) if row.deleted || row.purged || tx.is_unmerged(row.id)? => Ok(None),
        Some(row) => {
            let loaded = load_stale(tx, row, schema.clone())?;
            let onto = loaded.row.clone();
            Ok(Some((loaded, Some(onto))))
        }
        None if may_be_new => Ok(Some((new_document(identity, collection, name, schema.clone()), None))),
        None => Ok(None),
    };
    let compose = || {
        check_name(collection).and(check_name(name)).ok()?;
        let (mut loaded, onto) = readers.read(read).ok().flatten()?;
        let by = WriteContext { device: shared.device, time: shared.now_ms(), message: None };
        let (adopted, written) = compose(by, &mut loaded, onto.is_none())?;
        let kind = if onto.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
        if kind == ChangeKind::Created {
            loaded.save_new(&written.commit(kind));
        }
        Some(Composed { key, onto, base: base.cloned(), kind, adopted, loaded, written })
    };
    catch_unwind(AssertUnwindSafe(compose)).ok().flatten()
}

impl Core {
    /// The next write of the running transaction has been composed ahead.
    pub(crate) fn offer(&mut self, composed: Option<Composed>) {
        if let Some(composed) = composed {
            self.write.composed = Some(Box::new(composed));
        }
    }

    /// What was composed ahead for this write, if the document is still what it was made on.
    pub(super) fn take_composed(
        &mut self,
        tx: Tx<'_>,
        (collection, name): (&str, &str),
        base: Option<&Version>,
    ) -> store::Result<Option<Box<Composed>>> {
        let Some(mut composed) = self.write.composed.take() else { return Ok(None) };
        let is_meant = composed.base.as_ref() == base
            && composed.key == DocumentId::derive(tx.space(), collection, name)
            && composed.loaded.schema == self.schema_of(collection, name);
        if !is_meant {
            return Ok(None);
        }
        let is_current = match (tx.document(collection, name)?, &composed.onto) {
            (None, None) => true,
            (Some(row), Some(onto)) => is_as_stored(tx, &row, onto, &composed.loaded.document)?,
            _ => false,
        };
        if !is_current {
            return Ok(None);
        }
        // What may be held of it is the same without the write.
        self.forget_held(composed.key);
        composed.loaded.keep_snapshot(tx);
        Ok(Some(composed))
    }
}
