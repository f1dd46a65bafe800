//! What a document shows.

use serde_json::{Map, Value as Json};

/// The fields of a document.
pub(crate) type Fields = Map<String, Json>;
