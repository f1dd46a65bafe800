//! What the rows of each table may hold. Of documents only what no other check reads: their changes, saved forms and projections are
//! compared with each other by who examines a document.
//!
//! Without damage SQLite keeps what was written, so a value of another type, or one that no version of the library writes, is damage. A
//! value that says nothing any more is replaced by one that claims nothing; where there is none, the row goes.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use motet_proto::limits::NAME_BYTES;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::documents::MOST_CHANGES;
use super::finding::identifier;
use super::steps::is_step_documents;
use super::{Result, Tx};
use crate::types::LastError;

/// Ids that SQLite gives out in order, far from where adding one overflows.
const IDS: RangeInclusive<i64> = 1..=(1 << 48);

/// Ids of documents: those of their changes have 24 bits more.
const DOCUMENTS: RangeInclusive<i64> = 1..=(1 << 38);

const ANY: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Counts, and times in milliseconds or seconds since 1970.
const COUNT: RangeInclusive<i64> = 0..=(1 << 53);

/// What a column may hold.
enum Holds {
    Number(RangeInclusive<i64>),
    /// Bytes; so many, if that is said.
    Bytes(Option<usize>),
    /// Hashes of 32 bytes each.
    Hashes,
    Text,
    /// What a collection or a document may be called.
    Name,
    Json,
    /// An error as JSON: an object with a code.
    Error,
    /// The documents of a step of undo.
    StepDocuments,
}

/// What becomes of a value that is none of those.
enum Otherwise {
    /// It is set to what this SQL says.
    Set(&'static str),
    /// What can be read of it as text is kept, as JSON if that is what stands there.
    AsText,
    /// The row goes.
    Remove,
}

struct Rule {
    table: &'static str,
    column: &'static str,
    is_nullable: bool,
    holds: Holds,
    otherwise: Otherwise,
}

const fn rule(table: &'static str, column: &'static str, holds: Holds, otherwise: Otherwise) -> Rule {
    Rule { table, column, is_nullable: false, holds, otherwise }
}

/// A column that may be empty, and is where nothing is known.
const fn optional(table: &'static str, column: &'static str, holds: Holds) -> Rule {
    Rule { table, column, is_nullable: true, holds, otherwise: Otherwise::Set("NULL") }
}

use Holds::{Bytes, Error, Hashes, Json, Name, Number, StepDocuments, Text};
use Otherwise::{AsText, Remove, Set};

/// Rules of one table stand together.
const RULES: &[Rule] = &[
    rule("meta", "key", Text, Remove),
    rule("meta", "value", Text, Remove),
    rule("space", "id", Number(1..=1), Remove),
    rule("space", "uuid", Bytes(Some(16)), Set("zeroblob(16)")),
    rule("remote", "space", Number(1..=1), Set("1")),
    rule("remote", "url", Text, Set("'unknown address ' || id")),
    optional("remote", "position", Bytes(None)),
    rule("remote", "active", Number(0..=1), Set("0")),
    rule("remote", "reseed", Number(0..=1), Set("1")),
    optional("remote", "last_synced_at", Number(COUNT)),
    optional("remote", "last_error", Error),
    optional("remote", "log", Bytes(None)),
    rule("device", "id", Bytes(Some(16)), Remove),
    rule("device", "name", Text, AsText),
    rule("collection", "name", Text, Remove),
    rule("document", "id", Number(DOCUMENTS), Remove),
    rule("document", "space", Number(1..=1), Set("1")),
    rule("document", "collection", Name, Set("'damaged ' || id")),
    rule("document", "name", Name, Set("'damaged ' || id")),
    rule("document", "created_at", Number(COUNT), Set("0")),
    optional("document", "last_synced_at", Number(COUNT)),
    rule("change", "id", Number(0..=(1 << 62)), Remove),
    optional("change", "origin", Number(ANY)),
    rule("restore_point", "name", Text, AsText),
    rule("restore_point", "created_at", Number(COUNT), Set("0")),
    optional("restore_point", "last_document", Number(ANY)),
    rule("restore_point_document", "point", Number(ANY), Remove),
    rule("restore_point_document", "document", Number(ANY), Remove),
    rule("restore_point_document", "heads", Hashes, Remove),
    rule("projection", "document", Number(DOCUMENTS), Remove),
    rule("projection", "collection", Name, Remove),
    rule("projection", "name", Name, Remove),
    rule("projection", "conflicts", Number(0..=(1 << 31)), Set("0")),
    rule("projection", "changes", Number(0..=MOST_CHANGES), Set("0")),
    rule("projection", "updated_at", Number(COUNT), Set("0")),
    rule("projection", "seq", Number(IDS), Set("1")),
    rule("behind", "at", Number(COUNT), Set("0")),
    rule("unmerged", "remote", Number(ANY), Remove),
    rule("outbox", "remote", Number(ANY), Remove),
    rule("outbox", "document", Number(ANY), Remove),
    rule("outbox", "op", Number(0..=3), Set("1")),
    rule("outbox", "since", Number(COUNT), Set("0")),
    rule("outbox", "first_change", Number(0..=i64::MAX), Set("0")),
    optional("outbox", "last_change", Number(0..=i64::MAX)),
    optional("outbox", "error", Error),
    rule("conflict", "document", Number(ANY), Remove),
    rule("conflict", "path", Text, AsText),
    rule("conflict", "op", Text, Remove),
    rule("conflict", "winner", Json, AsText),
    // Of a long one only the beginning.
    rule("conflict", "loser", Text, AsText),
    optional("conflict", "device", Bytes(Some(16))),
    rule("conflict", "time", Number(ANY), Set("0")),
    rule("conflict", "noticed_at", Number(ANY), Set("0")),
    Rule {
        table: "conflict",
        column: "settled_at",
        is_nullable: true,
        holds: Number(ANY),
        otherwise: Set("0"),
    },
    optional("conflict", "winner_device", Bytes(Some(16))),
    optional("conflict", "winner_time", Number(ANY)),
    rule("quarantine", "id", Number(IDS), Remove),
    rule("quarantine", "remote", Number(ANY), Remove),
    optional("quarantine", "document", Bytes(Some(16))),
    rule("quarantine", "hash", Bytes(Some(32)), Remove),
    rule("quarantine", "waits", Number(0..=1), Set("0")),
    rule("quarantine", "reason", Text, AsText),
    optional("quarantine", "bytes", Bytes(None)),
    rule("quarantine", "at", Number(COUNT), Set("0")),
    rule("quarantine", "dormant", Number(0..=2), Set("0")),
    rule("history", "id", Number(IDS), Remove),
    rule("history", "remote", Number(ANY), Remove),
    rule("history", "started_at", Number(COUNT), Remove),
    rule("history", "duration_ms", Number(COUNT), Remove),
    rule("history", "summary", Json, Remove),
    rule("traffic", "day", Number(0..=(1 << 32)), Remove),
    rule("traffic", "up", Number(COUNT), Remove),
    rule("traffic", "down", Number(COUNT), Remove),
    rule("excluded", "collection", Text, AsText),
    rule("step", "id", Number(IDS), Remove),
    rule("step", "kind", Number(0..=2), Remove),
    optional("step", "target", Number(IDS)),
    rule("step", "at", Number(COUNT), Set("0")),
    optional("step", "label", Text),
    optional("step", "message", Text),
    rule("step", "documents", StepDocuments, Remove),
    rule("erased", "remote", Number(ANY), Remove),
    rule("erased", "document", Number(ANY), Remove),
    rule("same_version", "document", Number(ANY), Remove),
    rule("same_version", "heads", Hashes, Remove),
    rule("same_version", "earlier", Hashes, Remove),
    rule("same_version", "step", Number(IDS), Remove),
    rule("opening", "entry", Bytes(Some(32)), Remove),
    optional("opening", "run", Bytes(None)),
    rule("opening", "deaths", Number(0..=(1 << 16)), Set("0")),
    rule("grave", "at", Number(COUNT), Set("MIN(MAX(CAST(at AS INTEGER), 0), 1 << 53)")),
    optional("grave", "changes", Bytes(None)),
];

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
        if !self.conn.prepare("SELECT 1 FROM space WHERE id = 1")?.exists([])? {
            found.push("the row of the space is missing".into());
        }
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
        self.conn.execute_batch(
            "INSERT OR IGNORE INTO space (id, uuid) VALUES (1, zeroblob(16));
             DELETE FROM restore_point_document WHERE point NOT IN (SELECT id FROM restore_point);",
        )?;
        if is_outbox_misnumbered(self.conn)? {
            // Their order is not known any more: each is sealed again when it is sent, in any.
            self.conn.execute_batch(
                "CREATE TEMP TABLE renumbered AS SELECT * FROM outbox ORDER BY id;
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

impl Rule {
    fn allows(&self, value: ValueRef<'_>) -> bool {
        let blob = || value.as_blob().ok();
        let text = || value.as_str().ok();
        match &self.holds {
            _ if value == ValueRef::Null => self.is_nullable,
            Number(range) => matches!(value, ValueRef::Integer(number) if range.contains(&number)),
            Bytes(len) => blob().is_some_and(|bytes| len.is_none_or(|len| bytes.len() == len)),
            Hashes => blob().is_some_and(|bytes| bytes.len() % 32 == 0),
            Text => text().is_some(),
            Name => text().is_some_and(is_name),
            Json => text().is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()),
            Error => text().is_some_and(|text| serde_json::from_str::<LastError>(text).is_ok()),
            StepDocuments => blob().is_some_and(is_step_documents),
        }
    }
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
        assert_eq!(Tx { conn: &conn }.odd_rows().unwrap(), Vec::<String>::new());
    }
}
