//! What was in a document, and what an undo or a restore has done.

use motet_proto::DeviceId;
use serde::Serialize;
use serde_json::Value as Json;

use super::Version;
use super::event::as_text;

/// One step in the history of a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Revision {
    /// The document as it was on the device that made the step, right after it.
    pub version: Version,
    /// What happened.
    pub kind: RevisionKind,
    /// Hex id of the device that made it, if known.
    #[serde(serialize_with = "as_text")]
    pub device: Option<DeviceId>,
    /// Name of that device, if known.
    pub device_name: Option<String>,
    /// Milliseconds since 1970, by the clock of that device.
    pub time: i64,
    /// What the app noted with [`set_message`](crate::Transaction::set_message).
    pub message: Option<String>,
    /// The fields that were touched.
    pub fields: Vec<String>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RevisionKind {
    /// It made the document.
    Created,
    /// It changed fields.
    Updated,
    /// It deleted the document.
    Deleted,
    /// It brought the document back.
    Restored,
}

/// A field that differs between two versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FieldDiff {
    /// The field.
    pub field: String,
    /// Its value in the first version; `None` if it had none.
    pub before: Option<Json>,
    /// Its value in the second version; `None` if it has none.
    pub after: Option<Json>,
}

/// A named state of all documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
}

/// What [`Replica::restore_point`](crate::Replica::restore_point) did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PointRestored {
    /// Documents that changed; 0 if all of them were as the point has them.
    pub changed: usize,
    /// Collection and id of documents that the point has and that were purged since: they cannot come back.
    pub purged: Vec<(String, String)>,
}

/// What [`undo_within`](crate::Replica::undo_within) and [`redo_within`](crate::Replica::redo_within) are limited to. The default is every
/// document, and the transactions without a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoScope {
    collection: Option<String>,
    id: Option<String>,
    label: Option<String>,
}

impl UndoScope {
    /// The documents of a collection.
    pub fn collection(name: &str) -> Self {
        Self { collection: Some(name.to_owned()), ..Self::default() }
    }

    /// One document.
    pub fn document(collection: &str, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::collection(collection) }
    }

    /// The transactions that have this [label](crate::Transaction::set_label), and no others.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.collection.is_none()
    }

    pub(crate) fn has(&self, collection: &str, id: &str) -> bool {
        self.collection.as_deref().is_none_or(|limit| limit == collection)
            && self.id.as_deref().is_none_or(|limit| limit == id)
    }
}

/// What an undo has taken back, or a redo has done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Undone {
    /// What the app noted with [`set_message`](crate::Transaction::set_message) when it made the transaction.
    pub message: Option<String>,
    /// The transaction's [label](crate::Transaction::set_label).
    pub label: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub at: i64,
    /// The documents that were in it, and in the scope.
    pub documents: Vec<UndoneDocument>,
}

/// What an undo or a redo has done to one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UndoneDocument {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// What has become of it.
    pub effect: UndoneEffect,
    /// The fields that show something else than before, in order; all of them if the document went or came back.
    pub fields: Vec<String>,
}

/// What has become of a document by an undo or a redo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UndoneEffect {
    /// Its fields changed.
    Updated,
    /// It was deleted: the transaction had made it, or brought it back.
    Deleted,
    /// It came back: the transaction had deleted it.
    Restored,
    /// It stays, although the transaction had made it or brought it back: others have written in it since.
    Kept,
    /// It shows the same as before: others have done the same, written all of it anew since, or deleted it.
    Unchanged,
}
