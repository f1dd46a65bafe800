//! The full-text index: a table of FTS5 for each collection, which holds folded words and no text.

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::finding::{identifier, short_hash};
use super::readers::{ListRow, list_row};
use super::{Result, Tx};
use crate::limits;
use crate::query::words::{IndexedWords, Search, Step};

/// Where the file says that deleted words are to go.
const SCRUB: &str = "scrub";

/// A projection that the full-text index does not know yet.
#[derive(Debug)]
pub(crate) struct UnindexedRow {
    pub(crate) document: i64,
    /// Number of the write of the projection.
    pub(crate) seq: i64,
    pub(crate) collection: String,
    pub(crate) deleted: bool,
    pub(crate) json: String,
}

/// Statements that write to the full-text index of one collection.
pub(crate) struct SearchIndex {
    put: String,
    remove: String,
    has: String,
}

/// A document with very many words has no row of its own number, but one for each part of them, with numbers from here on.
const PARTED: i64 = 1 << 62;

/// Bits of such a number that count parts. A document's own number has less than 40.
const PART_BITS: u32 = 16;

fn part_row(document: i64, part: usize) -> i64 {
    PARTED | document << PART_BITS | part as i64
}

fn document_of(row: i64) -> i64 {
    if row & PARTED == 0 { row } else { (row & !PARTED) >> PART_BITS }
}

impl Tx<'_> {
    /// The full-text index does not know the document's projection as it is now.
    pub(crate) fn mark_unindexed(&self, document: i64) -> Result<()> {
        self.conn
            .prepare_cached("INSERT OR IGNORE INTO unindexed (document) VALUES (?)")?
            .execute([document])?;
        Ok(())
    }

    /// The same for all documents of a collection.
    pub(crate) fn mark_collection_unindexed(&self, collection: &str) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO unindexed (document) SELECT id FROM document WHERE collection = ?";
        self.conn.prepare_cached(sql)?.execute([collection])?;
        Ok(())
    }

    pub(crate) fn is_unindexed(&self) -> Result<bool> {
        // A row without its document is no work: who waits until there is none would wait for ever.
        let sql = "SELECT 1 FROM unindexed u JOIN projection p ON p.document = u.document LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.exists([])?)
    }

    /// Some of the documents that wait, in the order of their numbers: as many as may be read at a time.
    pub(crate) fn unindexed(&self, limit: usize) -> Result<Vec<UnindexedRow>> {
        let sql = "SELECT u.document, p.collection, p.deleted, p.json, p.seq
                   FROM unindexed u JOIN projection p ON p.document = u.document ORDER BY u.document LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| {
            Ok(UnindexedRow {
                document: row.get(0)?,
                collection: row.get(1)?,
                deleted: row.get(2)?,
                json: row.get(3)?,
                seq: row.get(4)?,
            })
        })?;
        let (mut read, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let row = row?;
            bytes += row.json.len();
            read.push(row);
            if bytes >= limits::INDEX_READ_BYTES {
                break;
            }
        }
        Ok(read)
    }

    /// The full-text index of a collection, which is made if there is none.
    pub(crate) fn search_index(&self, collection: &str) -> Result<SearchIndex> {
        let table = search_table(collection);
        if !self.has_search_table(collection)? {
            // Words come folded and with spaces between them: nothing is left to the tokenizer, which takes every character beyond
            // ASCII for a letter.
            let options = "content = '', contentless_delete = 1, tokenize = 'ascii'";
            self.conn.execute_batch(&format!(
                "CREATE VIRTUAL TABLE {table} USING fts5 (short, long, marks, {options})"
            ))?;
        }
        Ok(SearchIndex {
            put: format!("INSERT OR REPLACE INTO {table} (rowid, short, long, marks) VALUES (?, ?, ?, ?)"),
            remove: remove_from(&table),
            has: format!("SELECT 1 FROM {table} WHERE rowid = ?"),
        })
    }

    /// Takes a document's words into the full-text index, or out of it.
    pub(crate) fn index_words(
        &self,
        index: &SearchIndex,
        document: i64,
        words: Option<&IndexedWords>,
    ) -> Result<()> {
        self.remove_words(&index.remove, document)?;
        words.map_or(Ok(()), |words| self.put_words(index, document, words))
    }

    /// Takes a part of a document's words into the full-text index, of which it holds none but parts.
    pub(crate) fn index_part(
        &self,
        index: &SearchIndex,
        document: i64,
        part: usize,
        words: &IndexedWords,
    ) -> Result<()> {
        self.put_words(index, part_row(document, part), words)
    }

    /// Whether the full-text index holds this part of a document's words.
    pub(crate) fn has_part(&self, index: &SearchIndex, document: i64, part: usize) -> Result<bool> {
        Ok(self.conn.prepare_cached(&index.has)?.exists([part_row(document, part)])?)
    }

    fn put_words(&self, index: &SearchIndex, row: i64, words: &IndexedWords) -> Result<()> {
        let IndexedWords { short, long, marks, .. } = words;
        self.conn.prepare_cached(&index.put)?.execute(params![row, short, long, marks])?;
        Ok(())
    }

    fn remove_words(&self, remove: &str, document: i64) -> Result<()> {
        let mut statement = self.conn.prepare_cached(remove)?;
        statement.execute([document, document])?;
        statement.execute([part_row(document, 0), part_row(document + 1, 0) - 1])?;
        Ok(())
    }

    /// The index knows all documents up to this one as they are now.
    pub(crate) fn unmark_unindexed_to(&self, document: i64) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM unindexed WHERE document <= ?")?.execute([document])?;
        Ok(())
    }

    /// A document goes: so do its words.
    pub(crate) fn forget_words(&self, document: i64, collection: &str) -> Result<()> {
        if self.has_search_table(collection)? {
            self.remove_words(&remove_from(&search_table(collection)), document)?;
        }
        Ok(())
    }

    /// Words that were deleted stay in the index until the parts of it that hold them are merged: notes that this is to be done.
    pub(crate) fn note_scrub(&self) -> Result<()> {
        self.set_meta(SCRUB, Some("1"))
    }

    /// Merges some of what is to be merged since [`note_scrub`](Self::note_scrub). `None` if nothing was to be done; else whether there is
    /// more.
    pub(crate) fn scrub_words(&self) -> Result<Option<bool>> {
        let Some(stage) = self.meta(SCRUB)? else { return Ok(None) };
        let pages = if stage == "1" { -limits::SCRUB_PAGES } else { limits::SCRUB_PAGES };
        let mut more = false;
        for table in self.search_tables()? {
            let table = identifier(&table);
            let before = self.conn.total_changes();
            self.conn
                .execute(&format!("INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)"), [pages])?;
            // As FTS5 says: with fewer, nothing was merged.
            more |= self.conn.total_changes() - before >= 2;
        }
        self.set_meta(SCRUB, more.then_some("2"))?;
        Ok(Some(more))
    }

    /// The best matches, best first, with their scores.
    pub(crate) fn search(
        &self,
        collection: &str,
        search: &Search,
        limit: u64,
    ) -> Result<Vec<(f64, ListRow)>> {
        let mut found = Vec::new();
        if !self.has_search_table(collection)? {
            return Ok(found);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let sql = "SELECT name, heads, json FROM projection WHERE document = ? AND deleted = 0";
        let mut document = self.conn.prepare_cached(sql)?;
        let (steps, mut seen) = (search.steps(), HashSet::new());
        for (better, step) in (0..steps.len()).rev().zip(&steps) {
            for (row, score) in self.candidates(collection, step, limit)? {
                if found.len() >= limit {
                    return Ok(found);
                }
                if seen.insert(row)
                    && let Some(row) = document.query_row([row], list_row).optional()?
                {
                    found.push((better as f64 + score / (1.0 + score), row));
                }
            }
        }
        Ok(found)
    }

    /// Rows of the index that a step finds, best first.
    fn candidates(&self, collection: &str, step: &Step, limit: usize) -> Result<Vec<(i64, f64)>> {
        let table = search_table(collection);
        let [short, long, marks] = step.weights;
        let sql = format!(
            "SELECT rowid, -bm25({table}, {short:.1}, {long:.1}, {marks:.1}) FROM {table} WHERE {table} MATCH ? LIMIT ?"
        );
        let most = limit.max(limits::SEARCH_CANDIDATES / step.terms.max(1));
        let mut statement = self.conn.prepare_cached(&sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![step.expression(), most], |row| {
            Ok((row.get(0)?, row.get::<_, f64>(1)?.max(0.0)))
        })?;
        let mut rows = rows.collect::<std::result::Result<Vec<(i64, f64)>, _>>()?;
        rows.iter_mut().for_each(|(row, _)| *row = document_of(*row));
        if step.all.len() > 1 {
            rows.extend(self.in_several_parts(&table, step)?);
        }
        rows.sort_unstable_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        Ok(rows)
    }

    /// Documents that are indexed in parts, and have what a step finds in whichever of them.
    fn in_several_parts(&self, table: &str, step: &Step) -> Result<Vec<(i64, f64)>> {
        let sql = format!("SELECT 1 FROM {table} WHERE rowid >= {PARTED} LIMIT 1");
        if !self.conn.prepare_cached(&sql)?.exists([])? {
            return Ok(Vec::new());
        }
        let [short, long, marks] = step.weights;
        let sql = format!(
            "SELECT rowid, -bm25({table}, {short:.1}, {long:.1}, {marks:.1}) FROM {table}
             WHERE {table} MATCH ? AND rowid >= {PARTED}"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut found: Option<HashMap<i64, f64>> = None;
        for expression in &step.all {
            let mut best = HashMap::<i64, f64>::new();
            let rows = statement
                .query_map([expression], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?.max(0.0))))?;
            for row in rows {
                let (row, score) = row?;
                let document = document_of(row);
                let before = found.as_ref().map_or(Some(0.0), |found| found.get(&document).copied());
                if let Some(before) = before {
                    let best = best.entry(document).or_default();
                    *best = best.max(before + score);
                }
            }
            found = Some(best);
        }
        Ok(found.unwrap_or_default().into_iter().collect())
    }

    fn has_search_table(&self, collection: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
        let name = search_name(collection);
        Ok(self.conn.prepare_cached(sql)?.query_row([name], |_| Ok(())).optional()?.is_some())
    }
}

fn remove_from(table: &str) -> String {
    format!("DELETE FROM {table} WHERE rowid BETWEEN ? AND ?")
}

fn search_table(collection: &str) -> String {
    identifier(&search_name(collection))
}

/// SQLite does not tell names apart by case, and gives tables beside this one names that begin with it: a hash keeps collections
/// apart.
fn search_name(collection: &str) -> String {
    format!("search:{}", short_hash(collection))
}
