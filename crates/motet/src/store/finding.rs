//! Queries over the projection, declared indexes, views.

use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::filter::{JSON, LargeIntegers, Sql, extract, literal, name_path, path};
use super::readers::{ListRow, list_row};
use super::{Result, StorageError, Tx};
use crate::limits;
use crate::query::{Filter, Order, Query};

/// Columns that every view has.
const VIEW_COLUMNS: [&str; 3] = ["id", "updated_at", "json"];

impl Tx<'_> {
    /// Hands the documents that a query finds to `each`, in its order.
    pub(crate) fn find(&self, collection: &str, query: &Query, mut each: impl FnMut(ListRow)) -> Result<()> {
        let mut sql = Sql::new(collection);
        sql.condition(&query.filter)?;
        if query.order.len() > limits::QUERY_ORDERS {
            let (count, most) = (query.order.len(), limits::QUERY_ORDERS);
            return Err(StorageError::Query(format!("it orders by {count} fields, at most {most} can be")));
        }
        let mut order_by = String::new();
        for (field, order) in &query.order {
            let direction = if *order == Order::Descending { " DESC, " } else { ", " };
            order_by += &extract(JSON, field)?;
            order_by += direction;
            if let Some(digits) = self.last_digits(&sql, field)? {
                order_by += &digits;
                order_by += direction;
            }
        }
        sql.text += " ORDER BY ";
        sql.text += &order_by;
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

    /// What tells numbers of the field apart that SQLite reads as equal, if any document of the query has such a number. Where none has,
    /// an index of the field alone answers the query.
    fn last_digits(&self, sql: &Sql, field: &str) -> Result<Option<String>> {
        let large = LargeIntegers::of(field)?;
        let mut statement =
            self.conn.prepare_cached(&format!("SELECT 1 {} AND {} LIMIT 1", sql.text, large.is_there))?;
        let is_there = statement.exists(params_from_iter(&sql.values))?;
        Ok(is_there.then_some(large.beyond))
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

    /// Whether any live document of a collection has the field.
    pub(crate) fn is_field_used(&self, collection: &str, field: &str) -> Result<bool> {
        let sql = format!(
            "SELECT 1 FROM projection p WHERE p.collection = ? AND p.deleted = 0
             AND json_type(p.json, {}) IS NOT NULL LIMIT 1",
            path(JSON, field)?
        );
        Ok(self.conn.prepare_cached(&sql)?.exists([collection])?)
    }

    /// Makes the indexes that are declared for a collection, and drops those that no longer are.
    pub(crate) fn declare_indexes(&self, collection: &str, indexes: &[Vec<String>]) -> Result<()> {
        // Other collections may have names that begin with this one, or differ by case: the hash at the end tells whose it is.
        let prefix = format!("index:{collection}:");
        let suffix = format!(":{}", short_hash(collection));
        let mut wanted = Vec::new();
        for fields in indexes {
            let columns = fields.iter().map(|field| extract("json", field));
            let columns = columns.collect::<Result<Vec<_>>>()?.join(", ");
            let name = format!("{prefix}{}:{}{suffix}", fields.join(","), short_hash(&columns));
            let sql = format!(
                "CREATE INDEX IF NOT EXISTS {} ON projection ({columns}, name) WHERE collection = {} AND deleted = 0",
                identifier(&name),
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
        let is_own = |name: &String| name.starts_with(&prefix) && name.ends_with(&suffix);
        for name in found.iter().filter(|name| is_own(name) && !wanted.contains(name)) {
            self.conn.execute_batch(&format!("DROP INDEX {}", identifier(name)))?;
        }
        Ok(())
    }

    /// Drops the indexes that are declared, if a row that they are made of is no JSON. Whether they are dropped.
    pub(crate) fn drop_indexes_of_damaged(&self) -> Result<bool> {
        if !self.conn.prepare("SELECT 1 FROM projection WHERE NOT json_valid(json) LIMIT 1")?.exists([])? {
            return Ok(false);
        }
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name GLOB 'index:*'";
        let mut statement = self.conn.prepare(sql)?;
        let found =
            statement.query_map([], |row| row.get(0))?.collect::<std::result::Result<Vec<String>, _>>()?;
        drop(statement);
        for name in &found {
            self.conn.execute_batch(&format!("DROP INDEX {}", identifier(name)))?;
        }
        Ok(true)
    }

    /// Makes the view of a collection: a row per document with the declared fields as columns, for plain SQL. `shared`: there is a
    /// collection whose name differs by case only.
    pub(crate) fn declare_view(&self, collection: &str, fields: &[&str], shared: bool) -> Result<()> {
        let mut columns = vec!["name AS id".to_owned()];
        for field in fields.iter().filter(|field| !VIEW_COLUMNS.contains(field)).take(limits::VIEW_FIELDS) {
            let is_shared =
                VIEW_COLUMNS.iter().chain(fields).filter(|other| other.eq_ignore_ascii_case(field));
            let column = identifier(&told_apart(field, is_shared.count() > 1));
            // What cannot be a path is in the column `json`.
            if path(JSON, field).is_ok() {
                columns.push(format!("json_extract(json, {}) AS {column}", name_path(field)));
            }
        }
        let sql = format!(
            "CREATE VIEW {} AS SELECT {}, updated_at, json FROM projection WHERE collection = {} AND deleted = 0",
            identifier(&view_name(collection, shared)),
            columns.join(", "),
            literal(collection)
        );
        Ok(self.conn.execute_batch(&sql)?)
    }

    /// Drops the view of a collection, whatever its name is.
    pub(crate) fn drop_view(&self, collection: &str) -> Result<()> {
        for shared in [false, true] {
            let name = identifier(&view_name(collection, shared));
            self.conn.execute_batch(&format!("DROP VIEW IF EXISTS {name}"))?;
        }
        Ok(())
    }

    pub(crate) fn drop_views(&self) -> Result<()> {
        for name in self.view_names()? {
            self.conn.execute_batch(&format!("DROP VIEW {}", identifier(&name)))?;
        }
        Ok(())
    }

    /// Collections that have a view.
    pub(crate) fn viewed_collections(&self) -> Result<Vec<String>> {
        let names = self.view_names()?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(VIEW_PREFIX)).map(as_it_was).collect())
    }

    fn view_names(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'view' AND name GLOB ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![format!("{VIEW_PREFIX}*")], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Collections that hold a document, or about which something is declared.
    pub(crate) fn known_collections(&self) -> Result<Vec<String>> {
        let sql = "SELECT collection FROM document UNION SELECT name FROM collection";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

const VIEW_PREFIX: &str = "collection_";

fn view_name(collection: &str, shared: bool) -> String {
    format!("{VIEW_PREFIX}{}", told_apart(collection, shared))
}

/// SQLite does not tell names apart by case: where there is another one that differs by nothing else, a `^` stands before each capital
/// letter. A name that has a `^` of its own has two.
fn told_apart(name: &str, is_shared: bool) -> String {
    if !is_shared && !name.contains('^') {
        return name.to_owned();
    }
    let mut told = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c == '^' || c.is_ascii_uppercase() {
            told.push('^');
        }
        told.push(c);
    }
    told
}

/// The name that [`told_apart`] has made this of.
fn as_it_was(told: &str) -> String {
    let mut name = String::with_capacity(told.len());
    let mut characters = told.chars();
    while let Some(c) = characters.next() {
        name.extend(if c == '^' { characters.next() } else { Some(c) });
    }
    name
}

pub(super) fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_by_case_are_told_apart_and_read_back() {
        for (name, is_shared, told) in [
            ("songs", false, "songs"),
            ("Songs", false, "Songs"),
            ("Songs", true, "^Songs"),
            ("songs", true, "songs"),
            ("^songs", false, "^^songs"),
            ("SONGS^", true, "^S^O^N^G^S^^"),
        ] {
            assert_eq!(told_apart(name, is_shared), told);
            assert_eq!(as_it_was(told), name);
        }
    }
}
