//! Big writes, composed before the transaction: while a big text is compared and spliced, others write.

use std::panic::{AssertUnwindSafe, catch_unwind};

use motet_proto::{DocumentId, SpaceId};

use super::check::{check_name, text_bytes};
use super::local::{By, Patch, Written};
use super::{Adopted, Core, Loaded, Shared, load, new_document};
use crate::doc::Fields;
use crate::events::ChangeKind;
use crate::limits;
use crate::status::Version;
use crate::store::{self, DocumentRow, Readers, Tx};

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
    (collection, name): (&str, &str),
    patch: &Patch,
    base: Option<&Version>,
    entrance: Entrance,
) -> Option<Composed> {
    let key = DocumentId::derive(SpaceId::DEFAULT, collection, name);
    let schema = shared.schemas().get(collection).cloned().unwrap_or_default();
    if schema.has_local() || schema.is_local() {
        // What stays on this device has no version to be checked.
        return None;
    }
    let read = |tx: Tx<'_>| match tx.document(collection, name)? {
        Some(row) if row.deleted || row.purged || tx.is_unmerged(row.id)? => Ok(None),
        Some(row) => load(tx, row.clone(), schema.clone()).map(|loaded| Some((loaded, Some(row)))),
        None if base.is_some() => Ok(None),
        None => Ok(Some((new_document(key, collection, name, schema.clone()), None))),
    };
    let compose = || {
        check_name(collection).and(check_name(name)).ok()?;
        let (mut loaded, onto) = readers.read(read).ok().flatten()?;
        let kind = if onto.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
        let by = By { device: shared.device, time: shared.now_ms(), message: None };
        let (adopted, written) = match entrance {
            Entrance::Adopted(updated_at) => {
                let (adopted, written) = by.compose_adopted(&mut loaded, patch, updated_at).ok()?;
                (Some(adopted), written)
            }
            Entrance::Row if onto.is_some() => (None, by.compose_row(&mut loaded, patch).ok()?),
            Entrance::Put | Entrance::Row => (None, by.compose(&mut loaded, patch, base, kind).ok()?),
        };
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
        self.composed = composed.map(Box::new);
    }

    /// What was composed ahead for this write, if the document is still what it was made on.
    pub(super) fn take_composed(
        &mut self,
        tx: Tx<'_>,
        (collection, name): (&str, &str),
        base: Option<&Version>,
    ) -> store::Result<Option<Box<Composed>>> {
        let Some(composed) = self.composed.take() else { return Ok(None) };
        // The row of a document whose projection lags behind tells of an earlier state.
        let is_current = composed.base.as_ref() == base
            && composed.key == DocumentId::derive(SpaceId::DEFAULT, collection, name)
            && composed.loaded.schema == self.schema_of(collection)
            && !self.behind(tx)?.contains(&composed.key)
            && tx.document(collection, name)? == composed.onto;
        if !is_current {
            return Ok(None);
        }
        // What may be held of it is the same without the write.
        drop(self.take_held(composed.key));
        Ok(Some(composed))
    }
}
