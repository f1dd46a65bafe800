//! Queries over the projection, declared indexes, views, and the full-text index.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params, params_from_iter};
use serde_json::Value as Json;

use super::readers::{ListRow, list_row};
use super::{Result, StorageError, Tx};
use crate::find::query::Comparison;
use crate::find::{Filter, Order, Query};
use crate::limits;

/// A projection that the full-text index does not know yet.
#[derive(Debug)]
pub(crate) struct UnindexedRow {
    pub(crate) document: i64,
    pub(crate) collection: String,
    pub(crate) deleted: bool,
    pub(crate) json: String,
}

impl Tx<'_> {
    /// Hands the documents that a query finds to `each`, in its order.
    pub(crate) fn find(&self, collection: &str, query: &Query, mut each: impl FnMut(ListRow)) -> Result<()> {
        let mut sql = Sql::new(collection);
        sql.condition(&query.filter)?;
        sql.text += " ORDER BY ";
        for (field, order) in &query.order {
            sql.text += &extract(field)?;
            sql.text += if *order == Order::Descending { " DESC, " } else { ", " };
        }
        sql.text += "p.name LIMIT ? OFFSET ?";
        let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        sql.values.extend([number(query.limit), number(query.offset)]);
        let mut statement =
            self.conn.prepare_cached(&format!("SELECT p.name, p.heads, p.json {}", sql.text))?;
        let mut rows = statement.query(params_from_iter(sql.values))?;
        while let Some(row) = rows.next()? {
            each(list_row(row)?);
        }
        Ok(())
    }

    /// How many documents a filter lets through.
    pub(crate) fn count(&self, collection: &str, filter: &Filter) -> Result<u64> {
        let mut sql = Sql::new(collection);
        sql.condition(filter)?;
        let mut statement = self.conn.prepare_cached(&format!("SELECT COUNT(*) {}", sql.text))?;
        Ok(statement.query_row(params_from_iter(sql.values), |row| row.get::<_, i64>(0))? as u64)
    }

    /// Whether a filter lets the document `name` through.
    pub(crate) fn matches(&self, collection: &str, filter: &Filter, name: &str) -> Result<bool> {
        let mut sql = Sql::new(collection);
        sql.text +=
            " AND p.document = (SELECT id FROM document WHERE collection = ? AND name = ? AND space = 1)";
        sql.values.extend([Value::Text(collection.into()), Value::Text(name.into())]);
        sql.condition(filter)?;
        let mut statement = self.conn.prepare_cached(&format!("SELECT 1 {}", sql.text))?;
        Ok(statement.exists(params_from_iter(sql.values))?)
    }

    /// Makes the indexes that are declared for a collection, and drops those that no longer are.
    pub(crate) fn declare_indexes(&self, collection: &str, indexes: &[Vec<String>]) -> Result<()> {
        let mut wanted = Vec::new();
        for fields in indexes {
            let columns = fields.iter().map(|field| Ok(extract(field)?.replace("p.json", "json")));
            let columns: Vec<String> = columns.collect::<Result<_>>()?;
            let name = format!("index:{collection}:{}:{}", fields.join(","), short_hash(collection));
            let sql = format!(
                "CREATE INDEX IF NOT EXISTS {} ON projection ({}, name) WHERE collection = {} AND deleted = 0",
                identifier(&name),
                columns.join(", "),
                literal(collection)
            );
            self.conn.execute_batch(&sql)?;
            wanted.push(name);
        }
        let mut statement = self.conn.prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'projection'",
        )?;
        let found =
            statement.query_map([], |row| row.get(0))?.collect::<std::result::Result<Vec<String>, _>>()?;
        let prefix = format!("index:{collection}:");
        for name in found.iter().filter(|name| name.starts_with(&prefix) && !wanted.contains(name)) {
            self.conn.execute_batch(&format!("DROP INDEX {}", identifier(name)))?;
        }
        Ok(())
    }

    /// Makes the view `collection_NAME`: a row per document with the declared fields as columns, for plain SQL.
    pub(crate) fn declare_view(&self, collection: &str, fields: &[&str]) -> Result<()> {
        let name = identifier(&format!("collection_{collection}"));
        let mut columns = vec!["name AS id".to_owned()];
        for field in fields.iter().filter(|field| !["id", "json", "updated_at"].contains(field)) {
            columns.push(format!("{} AS {}", extract(field)?.replace("p.json", "json"), identifier(field)));
        }
        let sql = format!(
            "DROP VIEW IF EXISTS {name}; CREATE VIEW {name} AS SELECT {}, updated_at, json FROM projection
             WHERE collection = {} AND deleted = 0",
            columns.join(", "),
            literal(collection)
        );
        Ok(self.conn.execute_batch(&sql)?)
    }

    /// Collections that have a view.
    pub(crate) fn viewed_collections(&self) -> Result<Vec<String>> {
        let sql =
            "SELECT substr(name, 12) FROM sqlite_schema WHERE type = 'view' AND name GLOB 'collection_*'";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

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
        Ok(self.conn.prepare_cached("SELECT 1 FROM unindexed LIMIT 1")?.exists([])?)
    }

    pub(crate) fn unindexed(&self, limit: usize) -> Result<Vec<UnindexedRow>> {
        let sql = "SELECT u.document, p.collection, p.deleted, p.json
                   FROM unindexed u JOIN projection p ON p.document = u.document ORDER BY u.document LIMIT ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| {
            Ok(UnindexedRow {
                document: row.get(0)?,
                collection: row.get(1)?,
                deleted: row.get(2)?,
                json: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The full-text index of a collection, which is made if there is none.
    pub(crate) fn search_index(&self, collection: &str) -> Result<SearchIndex> {
        let table = search_table(collection);
        if !self.has_search_table(collection)? {
            let options =
                "content = '', contentless_delete = 1, tokenize = \"unicode61 remove_diacritics 2\"";
            self.conn.execute_batch(&format!(
                "CREATE VIRTUAL TABLE {table} USING fts5 (short, long, {options})"
            ))?;
        }
        Ok(SearchIndex {
            put: format!("INSERT OR REPLACE INTO {table} (rowid, short, long) VALUES (?, ?, ?)"),
            remove: format!("DELETE FROM {table} WHERE rowid = ?"),
        })
    }

    /// Takes a document's words into the full-text index, or out of it.
    pub(crate) fn index_words(
        &self,
        index: &SearchIndex,
        document: i64,
        words: Option<(&str, &str)>,
    ) -> Result<()> {
        match words {
            Some((short, long)) => {
                self.conn.prepare_cached(&index.put)?.execute(params![document, short, long])?
            }
            None => self.conn.prepare_cached(&index.remove)?.execute([document])?,
        };
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
            let sql = format!("DELETE FROM {} WHERE rowid = ?", search_table(collection));
            self.conn.prepare_cached(&sql)?.execute([document])?;
        }
        Ok(())
    }

    /// The best matches for an FTS5 expression, with their scores.
    pub(crate) fn search(
        &self,
        collection: &str,
        expression: &str,
        limit: u64,
    ) -> Result<Vec<(f64, ListRow)>> {
        if !self.has_search_table(collection)? {
            return Ok(Vec::new());
        }
        // The plus keeps SQLite from looking through the whole collection for the few that were found.
        // Words that stand in most documents would have nearly all of them ranked: some hundred candidates are enough.
        let table = search_table(collection);
        let sql = format!(
            "SELECT p.name, p.heads, p.json, -found.score FROM
               (SELECT rowid AS document, bm25({table}, 4.0, 1.0) AS score FROM {table}
                WHERE {table} MATCH ? LIMIT {}) found
             JOIN projection p ON p.document = found.document
             WHERE +p.deleted = 0 AND +p.collection = ? ORDER BY found.score, p.document LIMIT ?",
            limits::SEARCH_CANDIDATES
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![expression, collection, limit], |row| Ok((row.get(3)?, list_row(row)?)))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    fn has_search_table(&self, collection: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
        let name = search_name(collection);
        Ok(self.conn.prepare_cached(sql)?.query_row([name], |_| Ok(())).optional()?.is_some())
    }
}

/// Statements that write to the full-text index of one collection.
pub(crate) struct SearchIndex {
    put: String,
    remove: String,
}

/// A statement being put together: text with placeholders, and what goes into them.
struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// The live documents of a collection. The literal lets SQLite use the collection's own indexes.
    fn new(collection: &str) -> Self {
        let text =
            format!("FROM projection p WHERE p.collection = {} AND p.deleted = 0", literal(collection));
        Self { text, values: Vec::new() }
    }

    fn condition(&mut self, filter: &Filter) -> Result<()> {
        // Each on its own, so that the planner sees equalities.
        if let Filter::All(all) = filter {
            return all.iter().try_for_each(|filter| self.condition(filter));
        }
        self.text += " AND ";
        self.filter(filter)
    }

    fn filter(&mut self, filter: &Filter) -> Result<()> {
        match filter {
            Filter::All(all) => self.join(all, " AND ", "1"),
            Filter::Any(any) => self.join(any, " OR ", "0"),
            Filter::Not(filter) => {
                self.text += "NOT COALESCE(";
                self.filter(filter)?;
                self.text += ", 0)";
                Ok(())
            }
            Filter::Compare(field, comparison, value) => {
                let operator = match (comparison, value) {
                    (Comparison::Eq, Json::Null) => "IS",
                    (Comparison::Ne, _) => "IS NOT",
                    (Comparison::Eq, _) => "=",
                    (Comparison::Lt, _) => "<",
                    (Comparison::Le, _) => "<=",
                    (Comparison::Gt, _) => ">",
                    (Comparison::Ge, _) => ">=",
                };
                self.text += &format!("{} {operator} ?", extract(field)?);
                self.values.push(scalar(value)?);
                Ok(())
            }
            Filter::In(field, values) => {
                let places = vec!["?"; values.len()].join(", ");
                self.text += &format!("{} IN ({places})", extract(field)?);
                self.values.extend(values.iter().map(scalar).collect::<Result<Vec<_>>>()?);
                Ok(())
            }
            Filter::Contains(field, value) => {
                let path = path(field)?;
                self.text += &format!("EXISTS (SELECT 1 FROM json_each(p.json, {path}) WHERE value = ?)");
                self.values.push(scalar(value)?);
                Ok(())
            }
            Filter::StartsWith(field, prefix) => {
                let column = extract(field)?;
                self.text += &format!("({column} >= ? AND {column} < ?)");
                let end = format!("{prefix}\u{10ffff}");
                self.values.extend([Value::Text(prefix.clone()), Value::Text(end)]);
                Ok(())
            }
            Filter::Pending => {
                self.text += "EXISTS (SELECT 1 FROM outbox o WHERE o.document = p.document
                              AND o.remote IN (SELECT id FROM remote WHERE active = 1))";
                Ok(())
            }
            Filter::Conflicted => {
                self.text += "p.conflicts > 0";
                Ok(())
            }
        }
    }

    fn join(&mut self, filters: &[Filter], between: &str, of_none: &str) -> Result<()> {
        if filters.is_empty() {
            self.text += of_none;
            return Ok(());
        }
        for (i, filter) in filters.iter().enumerate() {
            self.text += if i == 0 { "(" } else { between };
            self.filter(filter)?;
        }
        self.text.push(')');
        Ok(())
    }
}

fn scalar(value: &Json) -> Result<Value> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Integer(i64::from(*b)),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Integer(n),
            None => Value::Real(n.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::Text(text.clone()),
        other => {
            return Err(StorageError::Query(format!("{other} is neither a string, a number nor a boolean")));
        }
    })
}

fn extract(field: &str) -> Result<String> {
    Ok(format!("json_extract(p.json, {})", path(field)?))
}

/// A field as a JSON path, as an SQL literal. Dots separate the names of nested fields.
fn path(field: &str) -> Result<String> {
    if field.is_empty() || field.contains(['"', '\\']) || field.chars().any(char::is_control) {
        return Err(StorageError::Query(format!("{field:?} cannot be the name of a field")));
    }
    let path: String = field.split('.').map(|name| format!(".\"{name}\"")).collect();
    Ok(literal(&format!("${path}")))
}

fn search_table(collection: &str) -> String {
    identifier(&search_name(collection))
}

/// SQLite does not tell names apart by case, and gives tables beside this one names that begin with it: a hash keeps collections
/// apart.
fn search_name(collection: &str) -> String {
    format!("search:{}", short_hash(collection))
}

fn short_hash(collection: &str) -> String {
    blake3::hash(collection.as_bytes()).to_hex()[..16].to_owned()
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
