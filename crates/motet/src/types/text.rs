//! Edits of texts.

use super::Version;

/// One replacement in a text: `insert` takes the place of `delete` characters from `position` on. Positions and lengths are in Unicode code
/// points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextEdit {
    /// Where it begins.
    pub position: usize,
    /// Characters that go.
    pub delete: usize,
    /// What comes in their place.
    pub insert: String,
}

impl TextEdit {
    /// Replaces `delete` characters from `position` on by `insert`.
    pub fn new(position: usize, delete: usize, insert: impl Into<String>) -> Self {
        Self { position, delete, insert: insert.into() }
    }
}

/// What [`DocumentHandle::edit_text`](crate::DocumentHandle::edit_text) has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextEdited {
    /// The version of the document now, with all that this device has received.
    pub version: Version,
    /// The version with these edits on their base and nothing else: what somebody sees who typed them there, and the base of what they
    /// type next.
    pub branch: Version,
}
