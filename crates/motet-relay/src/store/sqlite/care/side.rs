//! What is kept beside the logs and follows from them: how entries are looked up, what is to leave, and what accounts have. After a repair
//! it is made anew from the entries.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use motet_proto::{DocumentId, Entry, EntryId, Kind, RelayId};
use rusqlite::{Connection, params};

use super::super::{LAST_SEQ, id_head, row_base};
use super::log::FoundLog;
use crate::limits;
use crate::store::StoreError;

/// What is left to be done with entries, by their row ids. What a log explains is taken out.
#[derive(Default)]
pub(super) struct Side {
    superseded: BTreeMap<i64, u64>,
    erasing: HashMap<i64, DocumentId>,
    superseding: HashMap<i64, i64>,
    /// Entries that can be looked up.
    listed: i64,
    accounts: BTreeMap<String, Total>,
}

/// What the logs of an account hold.
#[derive(Default)]
struct Total {
    bytes: u64,
    documents: u64,
    /// Entries that there ever were.
    ever: u64,
    /// Entries that are there.
    entries: u64,
}

/// What the table says of an account.
#[derive(Clone, Copy, Default)]
struct Counted {
    bytes: u64,
    documents: u64,
}

impl Side {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut side = Self {
            superseded: BTreeMap::new(),
            erasing: pairs(conn, "SELECT entry, document FROM erasing", DocumentId)?,
            superseding: pairs(conn, "SELECT entry, done FROM superseding", |done: i64| done)?,
            listed: conn.query_row("SELECT COUNT(*) FROM entry_of", [], |row| row.get(0))?,
            accounts: BTreeMap::new(),
        };
        let mut statement = conn.prepare("SELECT entry FROM superseded")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            *side.superseded.entry(row.get(0)?).or_default() += 1;
        }
        Ok(side)
    }

    /// Compares what is kept beside a log that is sound.
    pub(super) fn check(
        &mut self,
        conn: &Connection,
        row: i64,
        log: &FoundLog,
    ) -> rusqlite::Result<Vec<String>> {
        self.count(log);
        let live: HashMap<u64, &Entry> = log.entries().collect();
        let mut statement = conn.prepare_cached(
            "SELECT seq, document, head, superseded FROM entry_of WHERE space = ? AND typeof(seq) = 'integer'",
        )?;
        let mut rows = statement.query([row])?;
        let (mut found, mut marked, mut strange) = (0, BTreeSet::new(), 0);
        while let Some(listed) = rows.next()? {
            let seq = listed.get::<_, i64>(0)? as u64;
            let is_it = |entry: &&&Entry| {
                listed.get(1).is_ok_and(|document| entry.document == DocumentId(document))
                    && listed.get_ref(2).is_ok_and(|head| head.as_blob() == Ok(id_head(&entry.id)))
            };
            self.listed -= 1;
            if live.get(&seq).filter(is_it).is_none() {
                strange += 1;
                continue;
            }
            found += 1;
            if listed.get::<_, i64>(3)? != 0 {
                marked.insert(seq);
            }
        }
        let mut problems = Vec::new();
        let mut tell = |count: usize, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what} of {}", log.account));
            }
        };
        tell(live.len() - found, "entries cannot be found by their document in the log");
        tell(strange, "rows of table entry_of name no entry in the log");
        tell(self.check_marks(row, log, &marked), "marks of what is superseded are wrong in the log");
        tell(self.check_erased(row, log), "entries that were erased are still there in the log");
        tell(
            self.check_work(row, log),
            "rows of tables erasing and superseding name something else in the log",
        );
        Ok(problems)
    }

    /// Marks that do not stand in both tables, or that no snapshot explains: what it marks would leave, and be lost.
    fn check_marks(&mut self, row: i64, log: &FoundLog, marked: &BTreeSet<u64>) -> usize {
        let mut explained: HashMap<EntryId, u64> = HashMap::new();
        for (seq, entry) in log.entries() {
            if let Kind::Snapshot { supersedes, .. } = &entry.kind {
                supersedes.iter().for_each(|id| _ = explained.insert(*id, seq));
            }
        }
        let is_wrong = |seq: &&u64| {
            let mark = self.superseded.remove(&(row_base(row) + **seq as i64));
            let id = log.rows.get(*seq).map(|stored| stored.id);
            let snapshot = id.and_then(|id| explained.get(&id));
            mark != Some(1) || snapshot.is_none_or(|snapshot| snapshot < *seq)
        };
        let wrong = marked.iter().filter(is_wrong).count();
        // What was erased since, or has left, explains its mark.
        let has_left = |seq: u64| log.rows.get(&seq).is_some_and(|stored| stored.entry.is_none());
        let rest = self
            .superseded
            .range(row_base(row) + 1..)
            .map_while(|(row_id, _)| Some((*row_id, seq_of(row, *row_id)?)));
        let explained: Vec<i64> = rest.filter(|(_, seq)| has_left(*seq)).map(|(row_id, _)| row_id).collect();
        explained.iter().for_each(|row_id| _ = self.superseded.remove(row_id));
        wrong
    }

    /// Entries before an erasure of their document that nothing will take out.
    fn check_erased(&self, row: i64, log: &FoundLog) -> usize {
        let erased = log.erased();
        let mut leaving: HashMap<DocumentId, u64> = HashMap::new();
        for seq in self.erasing.keys().filter_map(|entry| seq_of(row, *entry)) {
            let erasure = log.rows.get(&seq).and_then(|stored| stored.entry.as_ref());
            if let Some(erasure) = erasure.filter(|erasure| erasure.kind == Kind::Erased) {
                let last = leaving.entry(erasure.document).or_default();
                *last = seq.max(*last);
            }
        }
        let is_before = |seq: u64, last: Option<&u64>| last.is_some_and(|last| seq < *last);
        let is_left = |(seq, entry): &(u64, &Entry)| {
            is_before(*seq, erased.get(&entry.document)) && !is_before(*seq, leaving.get(&entry.document))
        };
        log.entries().filter(is_left).count()
    }

    /// Work that is noted for an entry of which there is none. What has left meanwhile explains it.
    fn check_work(&mut self, row: i64, log: &FoundLog) -> usize {
        let erased = log.erased();
        let mut wrong = 0;
        let of_log = |entry: &i64| seq_of(row, *entry).and_then(|seq| Some((seq, log.rows.get(&seq)?)));
        self.erasing.retain(|entry, document| {
            let Some((seq, stored)) = of_log(entry) else { return true };
            let is_right = match &stored.entry {
                Some(erasure) => erasure.kind == Kind::Erased && erasure.document == *document,
                None => erased.get(document).is_some_and(|later| *later > seq),
            };
            wrong += usize::from(!is_right);
            false
        });
        self.superseding.retain(|entry, done| {
            let Some((_, stored)) = of_log(entry) else { return true };
            let is_right = match stored.entry.as_ref().map(|snapshot| &snapshot.kind) {
                Some(Kind::Snapshot { supersedes, .. }) => *done <= supersedes.len() as i64,
                Some(_) => false,
                None => true,
            };
            wrong += usize::from(!is_right);
            false
        });
        wrong
    }

    /// Entries of all logs that were counted.
    pub(super) fn entries(&self) -> u64 {
        self.accounts.values().map(|total| total.entries).sum()
    }

    /// Adds up what the log of an account holds.
    pub(super) fn count(&mut self, log: &FoundLog) {
        let total = self.accounts.entry(log.account.clone()).or_default();
        let mut documents = HashSet::new();
        for (_, entry) in log.entries() {
            total.bytes += entry.size() as u64;
            total.entries += 1;
            documents.insert(entry.document);
        }
        total.documents += documents.len() as u64;
        total.ever += log.rows.len() as u64;
    }

    /// What no log explains, when all were looked at.
    pub(super) fn rest(&self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut problems = Vec::new();
        let rest = [
            ("entry_of", self.listed.unsigned_abs()),
            ("superseded", self.superseded.len() as u64),
            ("erasing", self.erasing.len() as u64),
            ("superseding", self.superseding.len() as u64),
        ];
        for (table, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
            problems.push(format!("{count} rows of table {table} name nothing that is there"));
        }
        let mut counted = counted(conn)?;
        for (account, total) in &self.accounts {
            let counted = counted.remove(account).unwrap_or_default();
            if !total.explains(counted) {
                let Counted { bytes, documents } = counted;
                problems.push(format!(
                    "table usage says {bytes} bytes and {documents} documents of {account}; there are {} and {}",
                    total.bytes, total.documents
                ));
            }
        }
        for (account, Counted { bytes, documents }) in counted {
            if bytes > 0 || documents > 0 {
                problems.push(format!("table usage counts what {account} has, which has no log"));
            }
        }
        Ok(problems)
    }
}

impl Total {
    /// Whether a count can be right. It is written down now and then, so after a crash what came or left just before is not in it.
    fn explains(&self, counted: Counted) -> bool {
        let gone = self.ever - self.entries;
        let left = gone.saturating_mul(motet_proto::limits::ENTRY_PAYLOAD_BYTES as u64);
        let slack = self.ever * limits::USAGE_OFF_BYTES_PER_ENTRY + left.min(limits::USAGE_OFF_BYTES);
        counted.bytes <= self.bytes + slack
            && counted.bytes >= self.bytes.saturating_sub(slack + limits::USAGE_OFF_BYTES)
            && counted.documents <= self.ever
            && counted.documents >= self.documents.saturating_sub(limits::USAGE_OFF_DOCUMENTS)
    }
}

/// Writes down what the accounts of a new file have. Documents that are no more there count as before, if they can.
pub(super) fn write_usage(old: &Connection, new: &Connection, side: &Side) -> Result<(), StoreError> {
    let counted = counted(old).unwrap_or_default();
    for (account, total) in &side.accounts {
        let before = counted.get(account).map_or(0, |counted| counted.documents);
        let documents = if before <= total.ever { before.max(total.documents) } else { total.documents };
        let sql = "INSERT INTO usage (account, bytes, documents) VALUES (?, ?, ?)";
        new.execute(sql, params![account, total.bytes as i64, documents as i64])?;
    }
    Ok(())
}

/// The one row by which devices know the logs.
pub(super) fn check_relay(conn: &Connection) -> Option<String> {
    let sql =
        "SELECT COUNT(*), COUNT(CASE WHEN typeof(id) = 'blob' AND length(id) = ? THEN 1 END) FROM relay";
    let count = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    match conn.query_row(sql, [RelayId::LEN as i64], count) {
        Ok((1, 1)) => None,
        Ok((rows, ids)) => Some(format!("table relay has {rows} rows, {ids} with an id; it should be one")),
        Err(error) => Some(format!("table relay cannot be read: {error}")),
    }
}

fn counted(conn: &Connection) -> rusqlite::Result<HashMap<String, Counted>> {
    let mut statement = conn.prepare("SELECT account, bytes, documents FROM usage")?;
    let mut rows = statement.query([])?;
    let mut all = HashMap::new();
    while let Some(row) = rows.next()? {
        // What is no count is told with the columns.
        let count = |column| row.get::<_, i64>(column).ok().and_then(|count| u64::try_from(count).ok());
        if let (Ok(account), Some(bytes), Some(documents)) = (row.get(0), count(1), count(2)) {
            all.insert(account, Counted { bytes, documents });
        }
    }
    Ok(all)
}

/// Pairs of a row id and something; those that are none are told with the columns.
fn pairs<A: rusqlite::types::FromSql, B>(
    conn: &Connection,
    sql: &str,
    make: impl Fn(A) -> B,
) -> rusqlite::Result<HashMap<i64, B>> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut pairs = HashMap::new();
    while let Some(row) = rows.next()? {
        if let (Ok(entry), Ok(value)) = (row.get(0), row.get(1)) {
            pairs.insert(entry, make(value));
        }
    }
    Ok(pairs)
}

/// The sequence number of a row, if it is one of this log.
fn seq_of(log: i64, row: i64) -> Option<u64> {
    let seq = row.checked_sub(row_base(log))?;
    u64::try_from(seq).ok().filter(|seq| (1..=LAST_SEQ).contains(seq))
}
