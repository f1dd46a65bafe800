//! Rows that are not taken up.

use std::fmt;

use serde::Serialize;

use crate::limits;

/// A row that was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
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
        // Whoever made the row has chosen its names: none breaks the line.
        let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let in_line = |text: &str| text.chars().map(printable).collect::<String>();
        let name = |name: &str| in_line(&name.chars().take(limits::SHOWN_NAME_CHARS).collect::<String>());
        write!(f, "{}: {}", in_line(&self.place), in_line(&self.reason))?;
        let Some(id) = &self.id else { return Ok(()) };
        match &self.collection {
            Some(collection) => write!(f, " ({}/{})", name(collection), name(id)),
            None => write!(f, " ({})", name(id)),
        }
    }
}
