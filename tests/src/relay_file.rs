//! The file of a relay: one with something of everything in it, and damage of single values, which SQLite keeps without a word.

use std::path::Path;

use motet::Relay;
use motet_proto::Kind;
use rusqlite::Connection;
use serde_json::json;

use crate::random::Random;
use crate::{TestRelay, contents, device, sync};

/// Makes a relay in `dir/relay` with documents of the devices `a` and `b`, of which some were changed, one was compacted and some were
/// erased. Not all of that work is done. Returns its port.
///
/// # Panics
/// If anything of that fails.
pub fn fill(dir: &Path) -> u16 {
    let relay = TestRelay::start(&dir.join("relay"));
    let (a, b) = (device(dir, "a"), device(dir, "b"));
    for n in 0..60 {
        let who = if n % 2 == 0 { &a } else { &b };
        let lyrics = format!("Hiʻilawe {n}, kūmaka ka ʻikena\n").repeat(n % 17);
        who.documents("pieces").upsert(&n.to_string(), &json!({ "title": n, "lyrics": lyrics })).unwrap();
    }
    for n in 0..4 {
        a.documents("private").upsert(&n.to_string(), &json!({ "notes": n.to_string() })).unwrap();
    }
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    a.connect(Relay::new(&relay.url())).unwrap();
    for n in 0..60 {
        let id = if n < 20 { n.to_string() } else { "20".into() };
        a.documents("pieces").patch(&id, &json!({ "place": n })).unwrap();
        a.sync_now().unwrap();
    }
    assert!(a.documents("pieces").document("20").compact().unwrap());
    a.documents("pieces").delete("3").unwrap();
    a.erase_remote("private").unwrap();
    a.sync_now().unwrap();
    a.disconnect();
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(pieces(&a), pieces(&b));
    let port = relay.address().port();
    drop(relay);
    let conn = Connection::open(dir.join("relay/relay.db")).unwrap();
    let sql = "INSERT OR IGNORE INTO erasing (entry, document) SELECT id, document FROM entry WHERE kind = ?";
    assert!(conn.execute(sql, [Kind::Erased.to_bytes()]).unwrap() > 1);
    let mut statement = conn.prepare("SELECT id, kind FROM entry").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let rows: Vec<(i64, Vec<u8>)> = rows.map(Result::unwrap).collect();
    let names = |kind: &[u8]| matches!(Kind::from_bytes(kind), Some(Kind::Snapshot { supersedes, .. }) if !supersedes.is_empty());
    let snapshots: Vec<_> = rows.iter().filter(|(_, kind)| names(kind)).collect();
    assert!(!snapshots.is_empty());
    for (row, _) in snapshots {
        conn.execute("INSERT INTO superseding (entry, done) VALUES (?, 1)", [row]).unwrap();
    }
    let marks: i64 = conn.query_row("SELECT COUNT(*) FROM superseded", [], |row| row.get(0)).unwrap();
    assert!(marks > 1);
    port
}

/// What devices that have synced have in common: what was erased at the relay stays where it was.
///
/// # Panics
/// If the documents cannot be read.
pub fn pieces(replica: &motet::Replica) -> Vec<(String, String, String, serde_json::Value)> {
    contents(replica).into_iter().filter(|(collection, ..)| collection == "pieces").collect()
}

/// The bytes of the file of a relay that does not run, with all of SQLite's log in it.
///
/// # Panics
/// If it cannot be read.
pub fn at_rest(data: &Path) -> Vec<u8> {
    let conn = Connection::open(data.join("relay.db")).unwrap();
    crate::empty_log(&conn);
    drop(conn);
    std::fs::read(data.join("relay.db")).unwrap()
}

/// What stands instead of a value, as SQL; `{}` is the column.
const VALUES: [&str; 22] = [
    "NULL",
    "''",
    "'text'",
    "'7'",
    "x''",
    "x'00'",
    "x'82008080'",
    "randomblob(8)",
    "randomblob(16)",
    "randomblob(32)",
    "zeroblob(16)",
    "-1",
    "0",
    "1",
    "300",
    "1.5",
    "-9223372036854775808",
    "9223372036854775807",
    "1 << 50",
    "CAST(x'ff00fe' AS TEXT)",
    "CAST({} AS BLOB)",
    "CAST({} AS TEXT)",
];

/// What was damaged.
#[derive(Debug)]
pub struct Hit {
    /// The table.
    pub table: String,
    /// The column; `None` if a whole row came or went.
    pub column: Option<String>,
    /// The value in its place, or what was done.
    pub how: String,
    /// The first column of the row, if it is a number: what tells the row apart in the relay's tables.
    pub row: Option<i64>,
}

/// Damages a value of a table, adds a row of such values or removes one. `None` if SQLite did not take it.
///
/// # Panics
/// If the tables cannot be read.
pub fn damage(conn: &Connection, random: &mut Random) -> Option<Hit> {
    let tables =
        names(conn, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    let table = pick(&tables, random).clone();
    let columns = names(conn, &format!("SELECT name FROM pragma_table_info('{table}')"));
    let count: i64 = conn.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap();
    if count == 0 || random.below(6) == 0 {
        let values: Vec<_> = columns.iter().map(|_| pick(&VALUES, random).replace("{}", "1")).collect();
        let sql = format!("INSERT OR IGNORE INTO {table} VALUES ({})", values.join(", "));
        let done = conn.execute(&sql, []).is_ok_and(|rows| rows == 1);
        return done.then_some(Hit { table, column: None, how: sql, row: None });
    }
    // The rows of a table without row ids are told apart by all of their columns.
    let all = columns.join(", ");
    let offset = random.below(count as u64);
    let place = format!("({all}) = (SELECT {all} FROM {table} ORDER BY {all} LIMIT 1 OFFSET {offset})");
    let row = format!("SELECT {} FROM {table} WHERE {place}", columns[0]);
    let row = conn.query_row(&row, [], |row| row.get(0)).ok();
    let (sql, column) = if random.below(8) == 0 {
        (format!("DELETE FROM {table} WHERE {place}"), None)
    } else {
        let column = pick(&columns, random).clone();
        let value = match random.below(5) {
            // That of another row.
            0 => format!("(SELECT {column} FROM {table} LIMIT 1 OFFSET {})", random.below(count as u64)),
            _ => pick(&VALUES, random).replace("{}", &column),
        };
        let is_other = format!("{column} IS NOT {value}");
        (
            format!("UPDATE OR IGNORE {table} SET {column} = {value} WHERE {place} AND {is_other}"),
            Some(column),
        )
    };
    let done = conn.execute(&sql, []).is_ok_and(|rows| rows == 1);
    done.then_some(Hit { table, column, how: sql, row })
}

fn names(conn: &Connection, sql: &str) -> Vec<String> {
    conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn pick<'a, T>(from: &'a [T], random: &mut Random) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}
