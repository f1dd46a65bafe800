//! What the rows of each table may hold. Of documents only what no other check reads: their changes, saved forms and projections are
//! compared with each other by who examines a document.
//!
//! Without damage SQLite keeps what was written, so a value of another type, or one that no version of the library writes, is damage. A
//! value that says nothing any more is replaced by one that claims nothing; where there is none, the row goes.

mod rules;

use std::collections::HashSet;

use motet_proto::limits::NAME_BYTES;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use self::rules::Holds::Json;
use self::rules::Otherwise::{AsText, Remove, Set};
use self::rules::{IDS, RULES, Rule};
use super::finding::identifier;
use super::{Result, Tx, space};

/// Tables whose ids are never used twice, as other rows are filed under them, with the largest id that something is filed under.
const SEQUENCES: [(&str, &str); 3] = [
    (
        "document",
        "MAX(COALESCE((SELECT MAX(id) FROM document), 0), COALESCE((SELECT MAX(document) FROM projection), 0),
             COALESCE((SELECT MAX(id) >> 24 FROM change), 0))",
    ),
    ("outbox", "COALESCE((SELECT MAX(id) FROM outbox), 0)"),
    ("history", "COALESCE((SELECT MAX(id) FROM history), 0)"),
];

/// Where it stands in `meta` to which account the data belongs.
pub(crate) const ACCOUNT: &str = "account";

/// What stands there if that is lost.
pub(crate) const ACCOUNT_LOST: &str = "";

/// Where it stands in `meta` that an app seals what it sends of this file.
pub(crate) const SEALED: &str = "sealed";

/// What stands as the declaration of a collection if that is lost.
pub(crate) const DECLARATION_LOST: &str = "null";

/// A row of which some columns hold what they may not.
struct Odd {
    key: Vec<(&'static str, Value)>,
    /// Places of their rules, and what stands there as text.
    columns: Vec<(usize, String)>,
}

impl Tx<'_> {
    /// What rows hold that they may not, by table and column.
    pub(crate) fn odd_rows(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for rules in RULES.chunk_by(|a, b| a.table == b.table) {
            let mut counts = vec![0u64; rules.len()];
            for odd in odd_rows(self.conn, rules)? {
                odd.columns.iter().for_each(|(place, _)| counts[*place] += 1);
            }
            let named = rules.iter().zip(counts).filter(|(_, rows)| *rows > 0);
            found.extend(named.map(|(rule, rows)| {
                format!("{rows} rows of {} hold something else in {}", rule.table, rule.column)
            }));
        }
        for (table, least) in SEQUENCES {
            if !self.is_sequence_sound(table, least)? {
                found.push(format!("the last number given out in {table} is not known"));
            }
        }
        found.extend(self.examine_space()?.map(Into::into));
        if is_outbox_misnumbered(self.conn)? {
            found.push("rows of outbox have numbers that none were given".into());
        }
        Ok(found)
    }

    /// Brings rows to what they may hold, and removes those that say nothing then. What is removed of a document is found out from its
    /// changes again, or from a remote that is compared.
    /// `unread`: tables of which rows are lost.
    pub(crate) fn mend_rows(&self, unread: &[String]) -> Result<()> {
        // Rows that others refer to may go; what refers to them goes after that.
        self.conn.pragma_update(None, "defer_foreign_keys", true)?;
        let mut lost: HashSet<&str> = unread.iter().map(String::as_str).collect();
        for rules in RULES.chunk_by(|a, b| a.table == b.table) {
            for odd in odd_rows(self.conn, rules)? {
                lost.insert(rules[0].table);
                mend(self.conn, rules, &odd)?;
            }
        }
        self.hold_back(&lost)?;
        space::put(self.conn, self.space)?;
        self.conn.execute_batch(
            "DELETE FROM restore_point_document WHERE point NOT IN (SELECT id FROM restore_point);",
        )?;
        if is_outbox_misnumbered(self.conn)? {
            // Their order is not known any more: each is sealed again when it is sent, in any.
            self.conn.execute_batch(
                "CREATE TEMP TABLE renumbered AS SELECT * FROM outbox
                   WHERE document IN (SELECT id FROM document) AND remote IN (SELECT id FROM remote) ORDER BY id;
                 DELETE FROM outbox;
                 INSERT INTO outbox SELECT rowid, remote, document, op, since, first_change, last_change, entry, device, kind,
                   suite, sealed, error FROM renumbered;
                 DROP TABLE renumbered;",
            )?;
        }
        for (table, least) in SEQUENCES {
            if !self.is_sequence_sound(table, least)? {
                self.conn.execute_batch(&format!(
                    "DELETE FROM sqlite_sequence WHERE name = '{table}';
                     INSERT INTO sqlite_sequence (name, seq) SELECT '{table}', {least};"
                ))?;
            }
        }
        Ok(())
    }

    /// What restricts is not taken for absent because it cannot be read any more: what may have been meant stays here until the app or its user
    /// has said it again.
    fn hold_back(&self, lost: &HashSet<&str>) -> Result<()> {
        if lost.contains("meta") && self.meta(ACCOUNT)?.is_none() {
            let sql = "SELECT 1 FROM remote WHERE log IS NOT NULL";
            if self.conn.prepare(sql)?.exists([])? {
                self.set_meta(ACCOUNT, Some(ACCOUNT_LOST))?;
            }
        }
        // Of what is in a collection nothing was ever confirmed by a remote.
        let unsent = "NOT EXISTS (SELECT 1 FROM document o WHERE o.collection = d.collection AND o.last_synced_at IS NOT NULL)";
        if lost.contains("collection") {
            self.conn.execute_batch(&format!(
                "INSERT OR IGNORE INTO collection (name, schema) SELECT DISTINCT d.collection, '{DECLARATION_LOST}' FROM document d
                 WHERE {unsent} OR EXISTS (SELECT 1 FROM local_field l JOIN document o ON o.id = l.document
                   WHERE o.collection = d.collection)"
            ))?;
        }
        if lost.contains("excluded") {
            self.conn.execute_batch(&format!(
                "INSERT OR IGNORE INTO excluded (collection) SELECT DISTINCT d.collection FROM document d WHERE {unsent}"
            ))?;
        }
        // A point without some of its documents would remove them when it is restored.
        if lost.contains("restore_point_document") || lost.contains("restore_point") {
            self.drop_points()?;
        }
        Ok(())
    }

    fn is_sequence_sound(&self, table: &str, least: &str) -> Result<bool> {
        let sql = format!(
            "SELECT COUNT(*), MIN(seq), MAX(typeof(seq)), {least} FROM sqlite_sequence WHERE name = ?"
        );
        let (rows, seq, least) = self.conn.prepare_cached(&sql)?.query_row([table], |row| {
            let is_number = row.get_ref(2)? == ValueRef::Text(b"integer");
            let seq = row.get_ref(1)?.as_i64().ok().filter(|_| is_number);
            Ok((row.get::<_, i64>(0)?, seq, row.get::<_, i64>(3)?))
        })?;
        Ok(match rows {
            0 => least == 0,
            1 => seq.is_some_and(|seq| seq >= least && (seq == 0 || IDS.contains(&seq))),
            _ => false,
        })
    }
}

/// Whether the rules say nothing against a value in a column of a table.
pub(super) fn allows(table: &str, column: &str, value: ValueRef<'_>) -> bool {
    RULES.iter().filter(|rule| rule.table == table && rule.column == column).all(|rule| rule.allows(value))
}

fn is_outbox_misnumbered(conn: &Connection) -> Result<bool> {
    let sql = "SELECT MIN(id), MAX(id) FROM outbox";
    let ends =
        conn.query_row(sql, [], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    Ok([ends.0, ends.1].into_iter().flatten().any(|id| !IDS.contains(&id)))
}

/// The rows of one table that break its rules.
fn odd_rows(conn: &Connection, rules: &'static [Rule]) -> Result<Vec<Odd>> {
    let Some(table) = rules.first().map(|rule| rule.table) else { return Ok(Vec::new()) };
    let keys = keys(table);
    let columns = keys.iter().copied().chain(rules.iter().map(|rule| rule.column));
    let columns = columns.map(identifier).collect::<Vec<_>>().join(", ");
    let mut statement = conn.prepare(&format!("SELECT {columns} FROM {}", identifier(table)))?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut columns = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            let value = row.get_ref(keys.len() + place)?;
            if !rule.allows(value) {
                columns.push((place, as_text(value)));
            }
        }
        if !columns.is_empty() {
            let key = keys.iter().enumerate().map(|(n, name)| Ok((*name, key_value(row.get_ref(n)?))));
            found.push(Odd { key: key.collect::<rusqlite::Result<_>>()?, columns });
        }
    }
    Ok(found)
}

/// Whether a collection or a document can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The columns that tell the rows of a table apart.
fn keys(table: &str) -> &'static [&'static str] {
    match table {
        "meta" => &["key"],
        "device" => &["id"],
        "collection" => &["name"],
        "excluded" => &["collection"],
        "opening" => &["entry"],
        "conflict" => &["document", "path", "op"],
        "restore_point_document" => &["point", "document"],
        "erased" => &["remote", "document"],
        "same_version" => &["document", "heads"],
        _ => &["rowid"],
    }
}

fn mend(conn: &Connection, rules: &[Rule], odd: &Odd) -> Result<()> {
    let table = identifier(rules[0].table);
    // By its bytes, as a text that is none cannot be asked for.
    let condition = odd.key.iter().map(|(name, value)| match value {
        Value::Blob(_) => format!("CAST({} AS BLOB) = ?", identifier(name)),
        _ => format!("{} IS ?", identifier(name)),
    });
    let condition = condition.collect::<Vec<_>>().join(" AND ");
    let key = || odd.key.iter().map(|(_, value)| value.clone());
    let delete = format!("DELETE FROM {table} WHERE {condition}");
    if rules[0].table == "meta" && odd.key.iter().any(|(_, key)| *key == Value::Blob(ACCOUNT.into())) {
        conn.execute("UPDATE meta SET value = ? WHERE key = ?", [ACCOUNT_LOST, ACCOUNT])?;
        return Ok(());
    }
    if odd.columns.iter().any(|(place, _)| matches!(rules[*place].otherwise, Remove)) {
        conn.execute(&delete, params_from_iter(key()))?;
        return Ok(());
    }
    let (mut set, mut values) = (Vec::new(), Vec::new());
    for (place, text) in &odd.columns {
        let rule = &rules[*place];
        let value = match rule.otherwise {
            Set(sql) => sql,
            AsText | Remove => {
                values.push(Value::Text(match rule.holds {
                    Json => serde_json::Value::from(text.as_str()).to_string(),
                    _ => text.clone(),
                }));
                "?"
            }
        };
        set.push(format!("{} = {value}", identifier(rule.column)));
    }
    let update = format!("UPDATE OR IGNORE {table} SET {} WHERE {condition}", set.join(", "));
    let values = values.into_iter().chain(key());
    if conn.execute(&update, params_from_iter(values))? == 0 {
        // There is such a row already.
        conn.execute(&delete, params_from_iter(key()))?;
    }
    Ok(())
}

fn as_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// What a row is asked for by.
fn key_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::backup::{columns, tables};
    use crate::store::connection::open;

    /// Columns that are compared with the changes of their document, or refer to rows of another table.
    const ELSEWHERE: &[(&str, &[&str])] = &[
        ("remote", &["id"]),
        ("collection", &["schema"]),
        ("document", &["key"]),
        ("change", &["bytes"]),
        ("restore_point", &["id"]),
        ("snapshot", &["document", "bytes", "upto", "is_primary"]),
        ("projection", &["heads", "deleted", "json", "purged"]),
        ("unindexed", &["document"]),
        ("behind", &["document"]),
        ("unmerged", &["document"]),
        ("local_field", &["document", "json"]),
        ("outbox", &["id", "entry", "device", "kind", "suite", "sealed"]),
        ("compactable", &["document"]),
        ("grave", &["document"]),
        ("leaving", &["document", "at"]),
    ];

    #[test]
    fn each_column_of_the_format_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open(&dir.path().join("a.db")).unwrap();
        let mut all = BTreeSet::new();
        for table in tables(&conn).unwrap() {
            all.extend(columns(&conn, &table).unwrap().into_iter().map(|column| (table.clone(), column)));
        }
        let named = |(table, column): (&str, &str)| (table.to_owned(), column.to_owned());
        let elsewhere =
            ELSEWHERE.iter().flat_map(|(table, columns)| columns.iter().map(|column| (*table, *column)));
        let looked_at: Vec<_> =
            RULES.iter().map(|rule| (rule.table, rule.column)).chain(elsewhere).map(named).collect();
        let once: BTreeSet<_> = looked_at.iter().cloned().collect();
        assert_eq!((once.len(), once), (looked_at.len(), all));
        let space = space::settle(&conn, None).unwrap();
        assert_eq!(Tx { conn: &conn, space }.odd_rows().unwrap(), Vec::<String>::new());
    }
}
