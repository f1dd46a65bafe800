//! What could not be saved.

use serde_json::Value as Json;

use crate::error::WriteError;

/// What an [`Editor`](crate::Editor) could not save when it was closed. It is nowhere else: show it, keep it, or put it elsewhere.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{collection}/{id} is not saved{}: {error}", named(.fields))]
#[non_exhaustive]
pub struct Unsaved {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// The fields that are not saved. None if the value is no object, so that it has no fields.
    pub fields: Vec<UnsavedField>,
    /// Why; the first reason if there are several.
    #[source]
    pub error: WriteError,
}

/// A field of an [`Editor`](crate::Editor) that could not be saved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnsavedField {
    /// Its name.
    pub name: String,
    /// What was typed; `None` if the field was removed.
    pub value: Option<Json>,
    /// Why it could not be saved.
    pub error: WriteError,
}

impl Unsaved {
    /// Stable code for logs and support.
    pub fn code(&self) -> &'static str {
        self.error.code()
    }

    /// Whether the same values may be saved later.
    pub fn is_retryable(&self) -> bool {
        self.error.is_retryable()
    }
}

fn named(fields: &[UnsavedField]) -> String {
    match fields {
        [] => String::new(),
        fields => {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            format!(" ({})", names.join(", "))
        }
    }
}
