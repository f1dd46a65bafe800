//! One log: what can be read of it, and writing it anew.
//!
//! A log is a chain: the tag of each entry is a hash over all entries before it. Up to its first entry that is lost a log stays as it is.
//! What can be read behind that is chained anew, so every device that had read on from there is refused its position, compares
//! everything and sends what the log lacks.

use std::collections::{BTreeMap, HashMap, HashSet};

use motet_proto::position::TAG_LEN;
use motet_proto::{DocumentId, Entry, EntryId, Kind, Position, SpaceId};
use rusqlite::{Connection, Row, params};

use super::super::{CAUSE_UNKNOWN, LAST_SEQ, SEQ_BITS, id_head, row_base};
use super::row::{self, Parts, Stored};
use super::scan::read_rows;
use crate::store::StoreError;

/// A log with what can be read of it.
pub(super) struct FoundLog {
    pub(super) account: String,
    space: SpaceId,
    /// By sequence number.
    pub(super) rows: BTreeMap<u64, Stored>,
    /// How many of the first numbers are a sound chain.
    sound: u64,
    pub(super) problems: Vec<String>,
}

impl FoundLog {
    /// Reads the rows of a number.
    pub(super) fn read(conn: &Connection, row: i64, account: &str, space: SpaceId, now: i64) -> Self {
        let (mut rows, mut problems) = (BTreeMap::new(), Vec::new());
        let (base, listed) = (row_base(row), listed(conn, row));
        let is_list_lost = conn.prepare_cached("SELECT seq FROM entry_of").is_err();
        let mut take = |found: &Row<'_>| -> rusqlite::Result<i64> {
            let id: i64 = found.get(0)?;
            let seq = (id - base) as u64;
            let listed = listed.get(&seq);
            let documents = listed.map_or(&[][..], |listed| &listed.documents);
            if let Some(mut stored) = Parts::read(found).stored(space, documents, now) {
                let heads = listed.map_or(&[][..], |listed| &listed.heads);
                // Where nothing is listed any more, nobody knows.
                let is_unknown = is_list_lost && stored.cause == Some(CAUSE_UNKNOWN);
                let is_found = heads.iter().any(|head| head == id_head(&stored.id));
                stored.is_listed = stored.entry.is_none() && (is_found || is_unknown);
                // None has the number zero: it does not stand in the way of the others.
                rows.insert(if seq == 0 { LAST_SEQ + 1 } else { seq }, stored);
            }
            Ok(id)
        };
        let end = row.checked_add(1).map_or(i64::MAX, row_base);
        // A number that is too large for a row id would be that of another log.
        let range = if base >> SEQ_BITS == row { (base.saturating_sub(1), end) } else { (0, 0) };
        if !read_rows(conn, row::SELECT, range, &mut take) {
            problems.push(format!("a part of the log of {account} cannot be read"));
        }
        let mut log = Self { account: account.to_owned(), space, rows, sound: 0, problems };
        log.judge();
        log
    }

    /// Entries that are there.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.rows.iter().filter_map(|(seq, stored)| Some((*seq, stored.entry.as_ref()?)))
    }

    /// Finds out where the chain breaks, and takes out what is not what it was.
    fn judge(&mut self) {
        let vanished = self.vanished();
        for seq in &vanished {
            // Devices that have read on from here are to send what is gone, as they are if a row was put right.
            self.rows.entry(*seq).and_modify(|stored| stored.is_restored = true);
        }
        if !vanished.is_empty() {
            self.problems.push(format!(
                "{} entries of the log of {} are gone, and no erasure or snapshot says why",
                vanished.len(),
                self.account
            ));
        }
        let (mut head, mut mended) = (Position::start(self.space), 0);
        let mut rows = self.rows.iter().peekable();
        while let Some((seq, stored)) = rows.next() {
            let next = head.next(stored.id);
            let fits = stored.tag == Some(next.tag);
            // A tag alone can be made again, if the entry or the next tag shows that the id is right.
            let mut is_right = || {
                let behind = rows.peek().and_then(|(_, behind)| Some((behind.id, behind.tag?)));
                stored.is_proven || behind.is_some_and(|(id, tag)| next.next(id).tag == tag)
            };
            if *seq != head.seq + 1 || !(fits || is_right()) {
                break;
            }
            mended += u64::from(!fits || stored.is_restored && !vanished.contains(seq));
            head = next;
        }
        let (sound, before) = (head.seq, self.rows.len());
        self.sound = sound;
        if mended > 0 {
            self.problems.push(format!(
                "{mended} entries of the log of {} are damaged in a way that can be put right",
                self.account
            ));
        }
        if self.rows.last_key_value().is_none_or(|(last, _)| *last <= sound) {
            return;
        }
        // Behind the break the place of what has left tells nothing any more.
        self.rows.retain(|seq, stored| *seq <= sound || stored.is_proven);
        self.problems.push(format!(
            "the log of {} is damaged behind its first {sound} entries; {} of {before} can be read",
            self.account,
            self.rows.len()
        ));
    }

    /// What looks as if it had left the log, while it can still be found, or the row that it names because of it says nothing
    /// of the kind. Where that row is damaged itself, or has no entry that can be proven, nothing can be concluded.
    fn vanished(&self) -> HashSet<u64> {
        let mut vanished = HashSet::new();
        // What has left for one that has left itself is as good as that: they stand behind.
        for (seq, stored) in self.rows.iter().rev() {
            let (None, Some(cause)) = (&stored.entry, stored.cause) else { continue };
            if stored.is_listed {
                vanished.insert(*seq);
            }
            if cause == CAUSE_UNKNOWN {
                continue;
            }
            let at = u64::try_from(cause).ok().filter(|cause| cause > seq);
            let is_explained = at.is_some_and(|at| match self.rows.get(&at) {
                None => true,
                Some(Stored { entry: None, .. }) => !vanished.contains(&at),
                Some(Stored { entry: Some(entry), is_proven, .. }) => match &entry.kind {
                    Kind::Erased => true,
                    Kind::Snapshot { supersedes, .. } => !is_proven || supersedes.contains(&stored.id),
                    Kind::Changes | Kind::Other(_) => !is_proven,
                },
            });
            if !is_explained {
                vanished.insert(*seq);
            }
        }
        vanished
    }

    /// Takes in what another part of the same log has, behind what is here. What was erased here does not come back.
    pub(super) fn absorb(&mut self, other: Self) {
        let known: HashSet<EntryId> = self.rows.values().map(|stored| stored.id).collect();
        let erased = self.erased();
        let mut last = self.rows.last_key_value().map_or(0, |(last, _)| *last);
        for stored in other.rows.into_values() {
            let is_new = |entry: &Entry| !known.contains(&entry.id) && !erased.contains_key(&entry.document);
            if stored.entry.as_ref().is_some_and(is_new) && stored.is_proven {
                last += 1;
                self.rows.insert(last, stored);
            }
        }
        self.problems.extend(other.problems);
    }

    /// What was erased of each document: everything before this number.
    pub(super) fn erased(&self) -> HashMap<DocumentId, u64> {
        let erasures = self.entries().filter(|(_, entry)| entry.kind == Kind::Erased);
        erasures.map(|(seq, entry)| (entry.document, seq)).collect()
    }

    /// Writes the log into another file, as the log of the number `row`.
    pub(super) fn write(&self, new: &Connection, row: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO space (id, account, uuid) VALUES (?, ?, ?)";
        new.execute(sql, params![row, self.account, self.space.as_bytes()])?;
        let superseded = self.superseded();
        let (mut head, mut is_marked) = (Position::start(self.space), false);
        for stored in self.rows.values() {
            if stored.is_restored && !is_marked {
                // Whoever has read on from here lacks it: something that is there no more makes the chain another one.
                let id: [u8; EntryId::LEN] = new.query_row("SELECT randomblob(32)", [], |row| row.get(0))?;
                head = head.next(EntryId(id));
                write_row(new, row, head, (EntryId(id), stored.received_at), None)?;
                is_marked = true;
            }
            // Without what was lost the chain is another one: no position that covers it is good any more.
            head = head.next(stored.id);
            write_row(new, row, head, (stored.id, stored.received_at), stored.entry.as_ref())?;
            if let Some(entry) = &stored.entry {
                list(new, row, head.seq, entry, superseded.get(&entry.id).copied())?;
            }
        }
        Ok(())
    }

    /// Takes out what was erased and is still there.
    pub(super) fn erase(&mut self) {
        let (erased, sound) = (self.erased(), self.sound);
        self.rows.retain(|seq, stored| {
            let document = stored.entry.as_ref().map(|entry| entry.document);
            if document.and_then(|document| erased.get(&document)).is_some_and(|last| seq < last) {
                stored.entry = None;
            }
            // Its place in the chain stays, where there is one.
            stored.entry.is_some() || *seq <= sound
        });
    }

    /// What snapshots supersede that stand behind it, and since when. Marks whose snapshot is lost are not carried over: what they are
    /// about may be nowhere else.
    fn superseded(&self) -> HashMap<EntryId, i64> {
        let (mut places, mut superseded) = (HashMap::new(), HashMap::new());
        for stored in self.rows.values() {
            let Some(entry) = &stored.entry else { continue };
            if let Kind::Snapshot { supersedes, .. } = &entry.kind {
                let before = supersedes.iter().filter(|id| places.get(*id) == Some(&entry.document));
                before.for_each(|id| _ = superseded.entry(*id).or_insert(stored.received_at));
            }
            places.insert(entry.id, entry.document);
        }
        superseded
    }
}

/// How a row of a log is looked up.
#[derive(Default)]
struct Listed {
    documents: Vec<DocumentId>,
    /// The beginnings of ids.
    heads: Vec<Vec<u8>>,
}

/// How each row of a log is looked up, by sequence number.
fn listed(conn: &Connection, row: i64) -> HashMap<u64, Listed> {
    let mut all: HashMap<u64, Listed> = HashMap::new();
    let sql = "SELECT seq, document, head FROM entry_of WHERE space = ?";
    let Ok(mut statement) = conn.prepare_cached(sql) else { return all };
    let Ok(mut rows) = statement.query([row]) else { return all };
    // What cannot be read is a guess less.
    while let Ok(Some(row)) = rows.next() {
        let Ok(seq) = row.get::<_, i64>(0) else { continue };
        let listed = all.entry(seq as u64).or_default();
        listed.documents.extend(row.get(1).map(DocumentId));
        listed.heads.extend(row.get(2));
    }
    all
}

fn write_row(
    new: &Connection,
    row: i64,
    Position { seq, tag }: Position,
    (id, at): (EntryId, i64),
    entry: Option<&Entry>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO entry (id, entry, tag, document, device, kind, suite, payload, received_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut statement = new.prepare_cached(sql)?;
    let (row, tag): (i64, [u8; TAG_LEN]) = (row_base(row) + seq as i64, tag);
    let none: &[u8] = &[];
    match entry {
        Some(entry) => statement.execute(params![
            row,
            id.as_bytes(),
            tag,
            entry.document.as_bytes(),
            entry.device.as_bytes(),
            entry.kind.to_bytes(),
            entry.suite,
            entry.payload,
            at
        ])?,
        // The numbers of what they have left for may be others now.
        None => {
            let cause = CAUSE_UNKNOWN;
            statement.execute(params![row, id.as_bytes(), tag, none, none, none, cause, none, at])?
        }
    };
    Ok(())
}

/// Lets an entry be found by its document.
fn list(
    new: &Connection,
    row: i64,
    seq: u64,
    entry: &Entry,
    superseded: Option<i64>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO entry_of (space, document, head, seq, superseded) VALUES (?, ?, ?, ?, ?)";
    let (document, head) = (entry.document.as_bytes(), id_head(&entry.id));
    new.prepare_cached(sql)?.execute(params![row, document, head, seq as i64, superseded.is_some()])?;
    if let Some(at) = superseded {
        let sql = "INSERT INTO superseded (at, entry) VALUES (?, ?)";
        new.prepare_cached(sql)?.execute(params![at, row_base(row) + seq as i64])?;
    }
    Ok(())
}
