//! Writes of one document, whether their caller waits or not: what each does ahead of its transaction, and in it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Base, Collection, Record};
use crate::api::transaction::{Transaction, new_id, to_fields, to_patch};
use crate::engine::{Ahead, Patch};
use crate::error::WriteError;
use crate::types::Version;

/// What a write does inside its transaction, whether its caller waits or not.
pub(super) trait Write<R>:
    FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send + 'static
{
}

impl<R, F: FnOnce(&mut Transaction<'_>) -> Result<R, WriteError> + Send + 'static> Write<R> for F {}

impl<T> Collection<T> {
    pub(super) fn deleting(&self, id: &str) -> impl Write<()> + use<T> {
        let (name, id) = (self.name.clone(), id.to_owned());
        move |tx: &mut Transaction<'_>| tx.delete(&name, &id)
    }

    pub(super) fn patching<F: Serialize>(
        &self,
        id: &str,
        fields: &F,
        waits: bool,
    ) -> (Option<Ahead>, impl Write<Version> + use<T, F>) {
        let (name, id, patch) = (self.name.clone(), id.to_owned(), to_patch(fields));
        let (ahead, composed) = self.replica.ahead(&name, &id, patch.as_ref().ok(), None, waits);
        let write = move |tx: &mut Transaction<'_>| {
            tx.offer(composed);
            tx.set_patch(&name, &id, &patch?)
        };
        (ahead, write)
    }

    pub(super) fn ahead_of(&self, id: &str) -> Ahead {
        Ahead::of(&self.name, id)
    }
}

impl<T: Serialize + DeserializeOwned> Collection<T> {
    pub(super) fn inserting(&self, value: &T, waits: bool) -> (Option<Ahead>, impl Write<String> + use<T>) {
        let name = self.name.clone();
        let named =
            to_fields(value).map(|(id, set)| (id.unwrap_or_else(new_id), Patch { set, ..Patch::default() }));
        let (ahead, composed) = match &named {
            Ok((id, patch)) => self.replica.ahead(&name, id, Some(patch), None, waits),
            Err(_) => (None, None),
        };
        let write = move |tx: &mut Transaction<'_>| {
            let (id, patch) = named?;
            tx.offer(composed);
            tx.insert_patch(&name, &id, &patch)?;
            Ok(id)
        };
        (ahead, write)
    }

    pub(super) fn upserting(
        &self,
        id: &str,
        value: &T,
        waits: bool,
    ) -> (Option<Ahead>, impl Write<Version> + use<T>) {
        let (name, id, patch) = (self.name.clone(), id.to_owned(), to_patch(value));
        let (ahead, composed) = self.replica.ahead(&name, &id, patch.as_ref().ok(), None, waits);
        let write = move |tx: &mut Transaction<'_>| {
            tx.offer(composed);
            tx.put_patch(&name, &id, &patch?, None)
        };
        (ahead, write)
    }

    pub(super) fn updating(
        &self,
        record: &Record<T>,
        waits: bool,
    ) -> (Option<Ahead>, impl Write<(Version, Base)> + use<T>) {
        let name = self.name.clone();
        let (id, version, written) = (record.id.clone(), record.version.clone(), record.written());
        let patch = written.as_ref().ok().map(|(patch, _)| patch);
        let (ahead, composed) = self.replica.ahead(&name, &id, patch, Some(&version), waits);
        let write = move |tx: &mut Transaction<'_>| {
            tx.offer(composed);
            tx.update_fields(&name, &id, written?, &version)
        };
        (ahead, write)
    }
}
