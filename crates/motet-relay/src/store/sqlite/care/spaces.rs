//! Which logs there are: what table `space` says, and what the entries themselves say, as an id tells of which space its entry is.

use std::collections::{BTreeMap, BTreeSet};

use motet_proto::SpaceId;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::super::{LAST_SPACE, SEQ_BITS, row_base};
use super::row::{self, Parts};
use super::scan::read_rows;
use crate::limits;

/// A log, and the numbers under which its entries stand: more than one if they were torn apart.
pub(super) struct Home {
    pub(super) account: String,
    pub(super) space: SpaceId,
    /// The one that has entries and that table `space` names comes first.
    pub(super) rows: Vec<i64>,
}

/// A number of a log: first the one that has entries, then the one that a row names.
type Ranked = (bool, bool, i64);

/// A number, and whose it is, as far as that is known.
#[derive(Default)]
struct Place {
    account: Option<String>,
    space: Option<SpaceId>,
    has_entries: bool,
    is_named: bool,
}

impl Home {
    /// A number that a log can have, if one of its own is.
    pub(super) fn number(&self) -> Option<i64> {
        self.rows.iter().copied().find(|row| (1..=LAST_SPACE).contains(row))
    }
}

/// All logs. What had to be found out, and what belongs to nobody, is told.
pub(super) fn homes(conn: &Connection, problems: &mut Vec<String>) -> Vec<Home> {
    let mut places = named(conn, problems);
    for row in numbers(conn) {
        places.entry(row).or_default().has_entries = true;
    }
    let known: BTreeSet<SpaceId> =
        places.values().filter_map(|place| place.space).chain([SpaceId::DEFAULT]).collect();
    for (row, place) in places.iter_mut().filter(|(_, place)| place.has_entries) {
        find_space(conn, *row, place, &known, problems);
    }
    let homeless: Vec<i64> = places
        .iter()
        .filter(|(_, place)| place.has_entries && (place.account.is_none() || place.space.is_none()))
        .map(|(row, _)| *row)
        .collect();
    for row in &homeless {
        find_account(conn, *row, homeless.len(), &mut places, problems);
    }
    let mut homes: BTreeMap<(String, SpaceId), Vec<Ranked>> = BTreeMap::new();
    for (row, place) in places {
        if let (Some(account), Some(space)) = (place.account, place.space) {
            homes.entry((account, space)).or_default().push((!place.has_entries, !place.is_named, row));
        }
    }
    let mut homes: Vec<_> = homes
        .into_iter()
        .map(|((account, space), mut rows)| {
            rows.sort_unstable();
            Home { account, space, rows: rows.into_iter().map(|(.., row)| row).collect() }
        })
        .collect();
    homes.sort_by_key(|home| home.rows.first().copied());
    homes
}

/// The rows of table `space`, and of its index, which says the same.
fn named(conn: &Connection, problems: &mut Vec<String>) -> BTreeMap<i64, Place> {
    let mut places: BTreeMap<i64, Place> = BTreeMap::new();
    let mut take = |row: &Row<'_>| -> rusqlite::Result<i64> {
        let id = row.get(0)?;
        let place = places.entry(id).or_default();
        place.is_named = true;
        // Text that became bytes is still what it was.
        let account = match row.get_ref(1)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        place.account = place.account.take().or(account.map(ToOwned::to_owned));
        place.space = place.space.or(row.get(2).ok().map(SpaceId));
        Ok(id)
    };
    let sql = "SELECT id, account, uuid FROM space";
    if !read_rows(conn, sql, (i64::MIN, i64::MAX), &mut take) {
        problems.push("some logs cannot be found any more".into());
    }
    if let Ok(mut statement) = conn.prepare(&format!("{sql} INDEXED BY sqlite_autoindex_space_1"))
        && let Ok(mut rows) = statement.query([])
    {
        while let Ok(Some(row)) = rows.next() {
            _ = take(row);
        }
    }
    places
}

/// A number under which entries stand, and of which no row says whose they are. A log that began there would meet them.
pub(super) fn without_row(conn: &Connection) -> Option<i64> {
    let has_row = |row: &i64| {
        let sql = "SELECT 1 FROM space WHERE id = ?";
        conn.prepare_cached(sql).and_then(|mut statement| statement.exists([row])).unwrap_or(false)
    };
    numbers(conn).into_iter().find(|row| !has_row(row))
}

/// The numbers under which entries stand, from both ends if some cannot be read.
fn numbers(conn: &Connection) -> BTreeSet<i64> {
    let mut numbers = BTreeSet::new();
    let step = |sql: &str, from: i64| conn.prepare_cached(sql)?.query_row([from], |row| row.get::<_, i64>(0));
    let mut from = i64::MIN;
    while let Ok(id) = step("SELECT id FROM entry WHERE id >= ? ORDER BY id LIMIT 1", from) {
        numbers.insert(id >> SEQ_BITS);
        // The last one of all has none after it.
        let Some(next) = (id | (row_base(1) - 1)).checked_add(1) else { return numbers };
        from = next;
    }
    let mut from = i64::MAX;
    while let Ok(id) = step("SELECT id FROM entry WHERE id <= ? ORDER BY id DESC LIMIT 1", from) {
        if !numbers.insert(id >> SEQ_BITS) {
            break;
        }
        let Some(next) = row_base(id >> SEQ_BITS).checked_sub(1) else { break };
        from = next;
    }
    numbers
}

/// Finds out of which space the entries of a number are. If none of those that are looked at is sound, it is what its row says.
fn find_space(
    conn: &Connection,
    row: i64,
    place: &mut Place,
    known: &BTreeSet<SpaceId>,
    problems: &mut Vec<String>,
) {
    let mut rows = Vec::new();
    let sql = format!("{} WHERE id > ? AND id < ? ORDER BY id LIMIT ?", row::SELECT);
    let end = row.checked_add(1).map_or(i64::MAX, row_base);
    if let Ok(mut statement) = conn.prepare_cached(&sql)
        && let Ok(mut found) = statement.query([row_base(row), end, limits::SPACE_PROBES as i64])
    {
        while let Ok(Some(found)) = found.next() {
            rows.push(Parts::read(found));
        }
    }
    let fits = |space: &SpaceId| {
        rows.iter().any(|parts| parts.is_of(*space)) || rows.first().is_some_and(|first| first.begins(*space))
    };
    if place.space.as_ref().is_some_and(fits) {
        return;
    }
    if let Some(space) = known.iter().find(|space| fits(space)) {
        if place.is_named {
            problems
                .push(format!("table space, row {row}: column uuid does not name the space of its entries"));
        }
        place.space = Some(*space);
    }
}

/// Finds out whose the log of a number is that no row names: the account of which a row names no entries, or of which there are no logs,
/// although it is written down that it has some; or the only one that there is. If there are several of these, it is nobody's: what is in
/// it must not go to a stranger.
fn find_account(
    conn: &Connection,
    row: i64,
    homeless: usize,
    places: &mut BTreeMap<i64, Place>,
    problems: &mut Vec<String>,
) {
    let Some(Place { space: Some(space), is_named, .. }) = places.get(&row) else {
        return problems
            .push(format!("entries of number {row} are of no space that is known; they stay in this file"));
    };
    let counted = counted(conn);
    let accounts = |is_it: &dyn Fn(&Place) -> bool| -> BTreeSet<String> {
        places.values().filter(|place| is_it(place)).filter_map(|place| place.account.clone()).collect()
    };
    let empty = accounts(&|place| !is_named && !place.has_entries && place.space == Some(*space));
    let with_logs = accounts(&|place| place.has_entries);
    let candidates = [
        empty.intersection(&counted).cloned().collect(),
        counted.difference(&with_logs).cloned().collect(),
        accounts(&|_| true).union(&counted).cloned().collect::<BTreeSet<_>>(),
    ];
    // Of several logs without a name none can be told from the others.
    let usable = if homeless == 1 { &candidates[..] } else { &candidates[2..] };
    let found = usable.iter().find(|accounts| accounts.len() == 1).and_then(|accounts| accounts.first());
    let what = format!("table space does not tell whose the entries of number {row} are");
    match (found.cloned(), places.get_mut(&row)) {
        (Some(account), Some(place)) => {
            problems.push(format!("{what}; they can only be of {account}"));
            place.account = Some(account);
        }
        _ => problems.push(format!("{what}, and several accounts can have them; they stay in this file")),
    }
}

/// Accounts of which is written down that they have something.
fn counted(conn: &Connection) -> BTreeSet<String> {
    let mut accounts = BTreeSet::new();
    if let Ok(mut statement) =
        conn.prepare_cached("SELECT account FROM usage WHERE bytes > 0 OR documents > 0")
        && let Ok(mut rows) = statement.query([])
    {
        while let Ok(Some(row)) = rows.next() {
            accounts.extend(row.get::<_, String>(0).ok());
        }
    }
    accounts
}
