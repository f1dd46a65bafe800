//! What follows the projection: full-text index and views.

use super::Core;
use crate::doc::Fields;
use crate::find::words::fold;
use crate::limits;
use crate::schema::{CollectionSchema, FieldKind};
use crate::store::{self, Tx};

impl Core {
    /// Takes some of the documents that wait into the full-text index. True if more are waiting.
    pub(crate) fn index_batch(&mut self, tx: Tx<'_>) -> store::Result<bool> {
        let rows = tx.unindexed(limits::INDEX_BATCH)?;
        for rows in rows.chunk_by(|a, b| a.collection == b.collection) {
            let schema = self.schema_of(&rows[0].collection);
            let index = tx.search_index(&rows[0].collection)?;
            for row in rows {
                let words = (!row.deleted).then(|| words_of(&schema, &super::from_json(&row.json)));
                let words = words.as_ref().map(|(short, long)| (short.as_str(), long.as_str()));
                tx.index_words(&index, row.document, words)?;
            }
        }
        if let Some(last) = rows.last() {
            tx.unmark_unindexed_to(last.document)?;
        }
        let more = rows.len() == limits::INDEX_BATCH;
        self.unindexed = Some(more);
        Ok(more)
    }

    pub(super) fn mark_unindexed(&mut self, tx: Tx<'_>, document: i64) -> store::Result<()> {
        self.unindexed = Some(true);
        tx.mark_unindexed(document)
    }

    /// Every collection can be read with plain SQL.
    pub(super) fn ensure_view(&mut self, tx: Tx<'_>, collection: &str) -> store::Result<()> {
        let views = match &mut self.views {
            Some(views) => views,
            None => self.views.insert(tx.viewed_collections()?.into_iter().collect()),
        };
        if views.insert(collection.to_owned()) {
            tx.declare_view(collection, &[])?;
        }
        Ok(())
    }

    /// What is remembered of the file may not be what is in it any more.
    pub(super) fn forget_marks(&mut self) {
        self.behind = None;
        self.unindexed = None;
        self.views = None;
    }
}

/// The folded words of a document: those of short fields, which weigh more, and those of texts.
fn words_of(schema: &CollectionSchema, fields: &Fields) -> (String, String) {
    let (mut short, mut long) = (String::new(), String::new());
    for (name, value) in fields {
        let is_searched = schema.search.as_ref().is_none_or(|names| names.contains(name));
        if !is_searched || schema.is_local_field(name) {
            continue;
        }
        let words = if *schema.kind(name) == FieldKind::Text { &mut long } else { &mut short };
        let elements = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for text in elements.iter().filter_map(serde_json::Value::as_str) {
            words.push_str(&fold(text));
            words.push('\n');
        }
    }
    (short, long)
}
