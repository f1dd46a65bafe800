//! Places in a text that stay with their neighbours while others type.

use automerge::{Cursor, CursorPosition, ROOT, ReadDoc};

use super::Document;
use crate::schema::CollectionSchema;

impl Document {
    /// The place before the code point `at` of a text, or its end; `None` if the field is no text.
    pub(crate) fn cursor(&self, schema: &CollectionSchema, field: &str, at: usize) -> Option<String> {
        let reader = self.reader(schema, None);
        let text = reader.texts(&ROOT, reader.stored_name(field)).into_iter().next()?;
        let position =
            if at < reader.length(&text) { CursorPosition::Index(at) } else { CursorPosition::End };
        self.am.get_cursor(&text, position, None).ok().map(|cursor| cursor.to_string())
    }

    /// Where such a place is now; `None` if this document does not know it (yet).
    pub(crate) fn cursor_position(
        &self,
        schema: &CollectionSchema,
        field: &str,
        cursor: &str,
    ) -> Option<usize> {
        let reader = self.reader(schema, None);
        let text = reader.texts(&ROOT, reader.stored_name(field)).into_iter().next()?;
        self.am.get_cursor_position(&text, &Cursor::try_from(cursor).ok()?, None).ok()
    }
}
