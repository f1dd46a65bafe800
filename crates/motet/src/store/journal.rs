//! The conflict journal: every concurrent write that lost, as far as there is room, and how many more there were.

use std::collections::{HashMap, HashSet};

use motet_proto::DeviceId;
use rusqlite::{OptionalExtension, params};

use super::integrity::{number, text};
use super::{Result, Tx};
use crate::limits;

/// What a row goes by that tells how many open losers have none.
pub(crate) const MORE_OPEN: &str = "more:open";

/// The same of losers that a declared rule has settled.
const MORE_RULED: &str = "more:ruled";

/// The same of settled ones that had to make room, or were settled before there was room for them.
const MORE_PAST: &str = "more:past";

/// Bytes of a page of SQLite.
const PAGE: usize = 4 << 10;

/// What the rows of all three begin with.
pub(crate) const MORE: &str = "more:";

/// A row for the conflict journal.
#[derive(Debug)]
pub(crate) struct NewConflict<'a> {
    pub(crate) path: &'a str,
    pub(crate) op: &'a str,
    pub(crate) winner: String,
    /// JSON; of what is too long only the beginning, which is none.
    pub(crate) loser: String,
    pub(crate) device: Option<DeviceId>,
    pub(crate) time: i64,
    pub(crate) winner_device: Option<DeviceId>,
    pub(crate) winner_time: Option<i64>,
    /// It asks nothing of anybody: a declared rule has decided, or what it tells of has merged.
    pub(crate) settled: bool,
}

/// The losers that a document has, as many as the journal has room for, and what is known of the others.
#[derive(Debug, Default)]
pub(crate) struct Losers<'a> {
    pub(crate) rows: Vec<NewConflict<'a>>,
    pub(crate) open_more: usize,
    pub(crate) ruled_more: usize,
    /// Of those that have no row.
    pub(crate) others: HashSet<&'a str>,
}

/// What was new to the journal.
#[derive(Debug, Default)]
pub(crate) struct Journalled {
    /// Which of the rows.
    pub(crate) fresh: Vec<usize>,
    /// Open losers: those of these rows, and those that have none.
    pub(crate) open: usize,
    /// Of these, those that have none.
    pub(crate) open_more: usize,
}

/// A row of the conflict journal.
#[derive(Debug)]
pub(crate) struct StoredConflict {
    pub(crate) op: String,
    pub(crate) path: String,
    pub(crate) winner: String,
    pub(crate) loser: String,
    pub(crate) device: Option<DeviceId>,
    pub(crate) device_name: Option<String>,
    pub(crate) time: i64,
    pub(crate) winner_device: Option<DeviceId>,
    pub(crate) winner_device_name: Option<String>,
    pub(crate) winner_time: Option<i64>,
    pub(crate) settled: bool,
}

/// What is looked at of a row before it is written over.
struct KnownRow {
    path: String,
    op: String,
    settled_at: Option<i64>,
    bytes: usize,
}

impl NewConflict<'_> {
    /// What the row takes of [`limits::CONFLICT_BYTES`].
    pub(crate) fn bytes(&self) -> usize {
        row_bytes([self.path.len(), self.op.len(), self.winner.len(), self.loser.len()])
    }
}

/// What a row of the journal takes of [`limits::CONFLICT_BYTES`], by the sizes of its texts.
pub(crate) fn row_bytes(texts: [usize; 4]) -> usize {
    let bytes = limits::CONFLICT_ROW_BYTES + texts.into_iter().sum::<usize>();
    if bytes > limits::CONFLICT_PAGED_BYTES { bytes.next_multiple_of(PAGE) } else { bytes }
}

impl Tx<'_> {
    /// Brings the journal to the losers given: new ones are added, those no longer there are settled. Of settled ones that are too much with
    /// these the oldest go, and are counted.
    pub(crate) fn journal_conflicts(
        &self,
        document: i64,
        losers: &Losers<'_>,
        now: i64,
    ) -> Result<Journalled> {
        let known = self.known_conflicts(document)?;
        let by_op: HashMap<&str, &KnownRow> = known.iter().map(|row| (&*row.op, row)).collect();
        let mut done = Journalled::default();
        for (n, conflict) in losers.rows.iter().enumerate() {
            match by_op.get(conflict.op) {
                Some(row) => self.renew_conflict(document, row, conflict, now)?,
                None => {
                    self.add_conflict(document, conflict, now)?;
                    done.fresh.push(n);
                    done.open += usize::from(!conflict.settled);
                }
            }
        }
        let listed: HashSet<&str> = losers.rows.iter().map(|row| row.op).collect();
        let mut past = Vec::new();
        for row in known.iter().filter(|row| !listed.contains(&*row.op)) {
            if losers.others.contains(&*row.op) {
                // It has had a row, and others need the room more.
                self.remove_conflict(document, row)?;
                continue;
            }
            if row.settled_at.is_none() {
                let sql = "UPDATE conflict SET settled_at = ? WHERE document = ? AND path = ? AND op = ?";
                self.conn.prepare_cached(sql)?.execute(params![now, document, row.path, row.op])?;
            }
            past.push(row);
        }
        let bytes: usize = losers.rows.iter().map(NewConflict::bytes).sum();
        let mut gone = self.make_room(document, bytes, past, now)?;
        let open_before = self.more(document, MORE_OPEN)?;
        let before = open_before + self.more(document, MORE_RULED)?;
        // Those that are no losers any more, and never had a row.
        gone += before.saturating_sub(losers.open_more + losers.ruled_more + done.fresh.len());
        self.set_more(document, MORE_OPEN, losers.open_more, now)?;
        self.set_more(document, MORE_RULED, losers.ruled_more, now)?;
        self.add_past(document, gone, now)?;
        done.open_more = losers.open_more.saturating_sub(open_before);
        done.open += done.open_more;
        Ok(done)
    }

    /// Adds rows that ask nothing of anybody: what they tell of has merged. Returns which of them are new. Of rows of this kind that are too
    /// much the oldest go, and are counted.
    pub(crate) fn journal_overlaps(
        &self,
        document: i64,
        overlaps: &[NewConflict<'_>],
        is_overlap: impl Fn(&str) -> bool,
        now: i64,
    ) -> Result<Vec<usize>> {
        let (mut fresh, mut left) = (Vec::new(), limits::CONFLICT_BYTES);
        for (n, overlap) in overlaps.iter().enumerate() {
            let Some(rest) = left.checked_sub(overlap.bytes()) else {
                self.add_past(document, overlaps.len() - n, now)?;
                break;
            };
            left = rest;
            if self.add_conflict(document, overlap, now)? > 0 {
                fresh.push(n);
            }
        }
        if !fresh.is_empty() {
            let known = self.known_conflicts(document)?;
            let (merged, others): (Vec<_>, Vec<_>) =
                known.iter().partition(|row| row.settled_at.is_some() && is_overlap(&row.op));
            let bytes = others.iter().map(|row| row.bytes).sum();
            let gone = self.make_room(document, bytes, merged, now)?;
            self.add_past(document, gone, now)?;
        }
        Ok(fresh)
    }

    /// Removes the oldest of some settled rows until what is left has room beside `bytes`. Returns how many went.
    fn make_room(&self, document: i64, bytes: usize, mut rows: Vec<&KnownRow>, now: i64) -> Result<usize> {
        let mut bytes = bytes + rows.iter().map(|row| row.bytes).sum::<usize>();
        rows.sort_by_key(|row| (row.settled_at.unwrap_or(now), &row.path, &row.op));
        let mut gone = 0;
        for row in rows {
            if bytes <= limits::CONFLICT_BYTES {
                break;
            }
            self.remove_conflict(document, row)?;
            bytes -= row.bytes;
            gone += 1;
        }
        Ok(gone)
    }

    /// Adds a row to the journal, unless it is known.
    fn add_conflict(&self, document: i64, conflict: &NewConflict<'_>, now: i64) -> Result<usize> {
        let sql =
            "INSERT OR IGNORE INTO conflict (document, path, op, winner, loser, device, time, winner_device,
                     winner_time, noticed_at, settled_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        Ok(self.conn.prepare_cached(sql)?.execute(params![
            document,
            conflict.path,
            conflict.op,
            conflict.winner,
            conflict.loser,
            conflict.device.as_ref().map(DeviceId::as_bytes),
            conflict.time,
            conflict.winner_device.as_ref().map(DeviceId::as_bytes),
            conflict.winner_time,
            now,
            conflict.settled.then_some(now)
        ])?)
    }

    /// Writes down what is said of a loser now, if that is something else than before.
    fn renew_conflict(
        &self,
        document: i64,
        row: &KnownRow,
        conflict: &NewConflict<'_>,
        now: i64,
    ) -> Result<()> {
        let sql = "UPDATE conflict SET settled_at = ?1, winner = ?2, loser = ?3, device = ?4, time = ?5,
                          winner_device = ?6, winner_time = ?7, path = ?8
                   WHERE document = ?9 AND path = ?10 AND op = ?11 AND (winner IS NOT ?2 OR loser IS NOT ?3
                     OR device IS NOT ?4 OR time IS NOT ?5 OR winner_device IS NOT ?6 OR winner_time IS NOT ?7
                     OR path IS NOT ?8 OR (settled_at IS NULL) IS NOT (?1 IS NULL))";
        self.conn.prepare_cached(sql)?.execute(params![
            conflict.settled.then_some(now),
            conflict.winner,
            conflict.loser,
            // Devices that met in different order may each have noted it of another writer: the document says of whom.
            conflict.device.as_ref().map(DeviceId::as_bytes),
            conflict.time,
            conflict.winner_device.as_ref().map(DeviceId::as_bytes),
            conflict.winner_time,
            // An item of a list may have moved.
            conflict.path,
            document,
            row.path,
            row.op
        ])?;
        Ok(())
    }

    fn remove_conflict(&self, document: i64, row: &KnownRow) -> Result<()> {
        let sql = "DELETE FROM conflict WHERE document = ? AND path = ? AND op = ?";
        self.conn.prepare_cached(sql)?.execute(params![document, row.path, row.op])?;
        Ok(())
    }

    /// The rows about losers. What is damaged is passed over: it is found by who examines the file.
    fn known_conflicts(&self, document: i64) -> Result<Vec<KnownRow>> {
        let sql = "SELECT path, op, settled_at, octet_length(winner), octet_length(loser) FROM conflict
                   WHERE document = ?";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([document], |row| {
            let length =
                |n| row.get::<_, i64>(n).map_or(0, |bytes| usize::try_from(bytes).unwrap_or_default());
            let (Ok(path), Ok(op)) = (row.get::<_, String>(0), row.get::<_, String>(1)) else {
                return Ok(None);
            };
            let bytes = row_bytes([path.len(), op.len(), length(3), length(4)]);
            // A time that is none is one all the same: of a row that is settled.
            let settled_at = row.get(2).unwrap_or(Some(0));
            Ok((!op.starts_with(MORE)).then_some(KnownRow { path, op, settled_at, bytes }))
        })?;
        let rows: Vec<Option<KnownRow>> = rows.collect::<std::result::Result<_, _>>()?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// How many open losers a document has, as the journal says.
    pub(crate) fn open_in_journal(&self, document: i64) -> Result<i64> {
        let sql = "SELECT COUNT(*) FROM conflict WHERE document = ? AND settled_at IS NULL AND op NOT GLOB ?";
        let rows: i64 = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![document, format!("{MORE}*")], |row| row.get(0))?;
        Ok(rows + self.more(document, MORE_OPEN)? as i64)
    }

    /// How many losers have no row, of one kind.
    fn more(&self, document: i64, of: &str) -> Result<usize> {
        let sql = "SELECT CAST(loser AS INTEGER) FROM conflict WHERE document = ? AND path = '' AND op = ?";
        let more =
            self.conn.prepare_cached(sql)?.query_row(params![document, of], |row| row.get::<_, i64>(0));
        Ok(more.optional()?.map_or(0, |more| usize::try_from(more).unwrap_or_default()))
    }

    fn add_past(&self, document: i64, gone: usize, now: i64) -> Result<()> {
        match gone {
            0 => Ok(()),
            _ => {
                self.set_more(document, MORE_PAST, self.more(document, MORE_PAST)?.saturating_add(gone), now)
            }
        }
    }

    fn set_more(&self, document: i64, of: &str, count: usize, now: i64) -> Result<()> {
        if count == self.more(document, of)? {
            return Ok(());
        }
        let sql = "DELETE FROM conflict WHERE document = ? AND path = '' AND op = ?";
        self.conn.prepare_cached(sql)?.execute(params![document, of])?;
        let row = NewConflict {
            path: "",
            op: of,
            winner: "null".into(),
            loser: count.to_string(),
            device: None,
            time: 0,
            winner_device: None,
            winner_time: None,
            settled: of != MORE_OPEN,
        };
        if count > 0 {
            self.add_conflict(document, &row, now)?;
        }
        Ok(())
    }

    pub(crate) fn conflicts(&self, document: i64) -> Result<Vec<StoredConflict>> {
        // What tells of others comes last.
        let sql = "SELECT c.path, c.winner, c.loser, c.device, d.name, c.time, c.settled_at IS NOT NULL, c.op,
                     c.winner_device, w.name, c.winner_time
                   FROM conflict c LEFT JOIN device d ON d.id = c.device LEFT JOIN device w ON w.id = c.winner_device
                   WHERE c.document = ? ORDER BY c.path = '', c.noticed_at, c.path, c.op";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map([document], |row| {
            // One that is damaged hides no other, and shows what can be read of it.
            let device = |n: usize| row.get_ref(n).map(|id| id.as_blob().ok()?.try_into().ok().map(DeviceId));
            let name = |n: usize| row.get::<_, Option<String>>(n).unwrap_or_default();
            Ok(StoredConflict {
                path: text(row.get_ref(0)?),
                winner: text(row.get_ref(1)?),
                loser: text(row.get_ref(2)?),
                device: device(3)?,
                device_name: name(4),
                time: number(row.get_ref(5)?),
                settled: row.get(6)?,
                op: text(row.get_ref(7)?),
                winner_device: device(8)?,
                winner_device_name: name(9),
                winner_time: row.get_ref(10)?.as_i64().ok(),
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}
