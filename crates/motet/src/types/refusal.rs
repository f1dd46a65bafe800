//! Rows that are not taken up.

use std::fmt;

use serde::Serialize;

use crate::limits;

/// A row that was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Where it stands: `row 3` of a table, `line 7` of a file, `entry 2 of songs` in a change log.
    pub place: String,
    /// Collection of its document, if it is known.
    pub collection: Option<String>,
    /// Id of its document, if it is known.
    pub id: Option<String>,
    /// The field that is to blame, if it is one: nested names are separated by `/`.
    pub field: Option<String>,
    /// What is wrong, as a sentence.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)?;
        let Some(id) = &self.id else { return Ok(()) };
        let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let id: String = id.chars().take(limits::SHOWN_NAME_CHARS).map(printable).collect();
        match &self.collection {
            Some(collection) => write!(f, " ({collection}/{id})"),
            None => write!(f, " ({id})"),
        }
    }
}
