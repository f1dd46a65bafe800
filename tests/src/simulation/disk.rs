//! A disk in memory: what was written is not what is safe. It knows which writes were synced, may be cut off at any call, and
//! says what could be found on it after the power came back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use crate::random::Random;

/// What a drive writes at once, in bytes.
const SECTOR: usize = 512;

/// A disk that files, connections and the one who breaks it share.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// Everything on a disk, and what goes wrong with it.
#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, File>,
    /// Calls that write, sync, cut or delete, so far.
    calls: u64,
    /// At this call the power is cut: it and all later ones fail and do nothing.
    dies_at: Option<u64>,
    dead: bool,
    /// This one call fails.
    fails_at: Option<(u64, Fault)>,
    /// Writes that need room fail.
    full: bool,
    /// Everything that was done, if somebody wants to play it again.
    log: Option<Vec<Call>>,
    /// Numbers of the handles.
    pub(super) handles: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The drive reports an error.
    Io,
    /// There is no room.
    Full,
}

/// One call that changes what is on a disk.
#[derive(Clone, Debug)]
pub enum Call {
    /// Bytes at a place of a file, which exists afterwards.
    Write(String, u64, Vec<u8>),
    /// A file has this many bytes.
    Truncate(String, u64),
    /// What was written to a file is safe.
    Sync(String),
    /// A file is gone.
    Delete(String),
}

#[derive(Clone, Default)]
pub(super) struct File {
    /// As a reader sees it.
    pub(super) now: Vec<u8>,
    /// As it is for sure.
    safe: Option<Vec<u8>>,
    unsynced: Vec<Unsynced>,
    pub(super) locks: BTreeMap<u64, i32>,
    pub(super) shared_memory: Vec<Box<[u8]>>,
    /// Per slot: who holds it shared, who alone.
    pub(super) slots: [Slot; 8],
}

#[derive(Clone, Default)]
pub(super) struct Slot {
    pub(super) shared: Vec<u64>,
    pub(super) alone: Option<u64>,
}

#[derive(Clone)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// What the power cut leaves of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All of them.
    All,
    /// None of them.
    None,
    /// Some, whichever.
    Some,
    /// The first few, and of the next only some sectors.
    Torn,
}

impl Left {
    /// Every way there is.
    pub const EVERY: [Left; 4] = [Left::All, Left::None, Left::Some, Left::Torn];
}

impl Disk {
    /// What is found after the power is back; the disk itself stays as it is.
    pub fn after_power_cut(&self, left: Left, random: &mut Random) -> Disk {
        let state = self.lock();
        let files = state.files.iter().filter_map(|(name, file)| {
            let bytes = file.after_power_cut(left, random)?;
            Some((name.clone(), File::safe(bytes)))
        });
        Disk::of(files.collect())
    }

    /// What another process finds after this one was killed, and what a copy by hand finds: everything that was written.
    pub fn as_written(&self) -> Disk {
        let files = self.lock();
        Disk::of(
            files.files.iter().map(|(name, file)| (name.clone(), File::safe(file.now.clone()))).collect(),
        )
    }

    /// All rows of the databases on it, as text.
    pub(super) fn rows(&self) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut databases = Vec::new();
        for (name, file) in &self.lock().files {
            // Files are called after the life and the device, by whole paths.
            let name = name.rsplit('/').next().unwrap_or(name);
            std::fs::write(folder.path().join(name), &file.now).unwrap();
            databases.extend(name.ends_with(".db").then(|| folder.path().join(name)));
        }
        let rows = |database: &PathBuf| rows_of(database).unwrap_or_else(|error| vec![error.to_string()]);
        databases.iter().flat_map(rows).collect()
    }

    /// Cuts the power at the `calls`-th call from now on.
    pub fn die_after(&self, calls: u64) {
        let mut state = self.lock();
        state.dies_at = Some(state.calls + calls);
    }

    /// Cuts the power now.
    pub fn die(&self) {
        self.lock().dead = true;
    }

    /// True once the power was cut.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Lets the `call`-th call from the beginning fail, once.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.lock().fails_at = Some((call, fault));
    }

    /// Fills the disk, or makes room.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Keeps every call from now on.
    pub fn record(&self) {
        self.lock().log = Some(Vec::new());
    }

    /// The calls that were kept.
    pub fn recorded(&self) -> Vec<Call> {
        self.lock().log.clone().unwrap_or_default()
    }

    /// Does what was recorded.
    pub fn replay(&self, call: &Call) {
        let mut state = self.lock();
        match call {
            Call::Write(name, at, bytes) => state.file(name).write(*at, bytes),
            Call::Truncate(name, size) => state.file(name).truncate(*size),
            Call::Sync(name) => state.file(name).sync(),
            Call::Delete(name) => _ = state.files.remove(name),
        }
    }

    fn of(files: BTreeMap<String, File>) -> Disk {
        Disk(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows_of(database: &Path) -> rusqlite::Result<Vec<String>> {
    // The file system of the machine: the usual one is the one in memory by now.
    let conn = Connection::open_with_flags_and_vfs(database, OpenFlags::default(), c"unix")?;
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name";
    let tables: Vec<String> =
        conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut all = Vec::new();
    for table in tables {
        // The relay has the time from the machine, and each life has a folder of its own.
        let sql = match &*table {
            "entry" => "SELECT id, entry, tag, document, device, kind, suite, payload FROM entry".to_owned(),
            "superseded" => "SELECT entry FROM superseded ORDER BY entry".to_owned(),
            "meta" => "SELECT * FROM meta WHERE key <> 'file'".to_owned(),
            table => format!("SELECT * FROM \"{table}\""),
        };
        let mut statement = conn.prepare(&sql)?;
        let width = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values: Vec<Value> = (0..width).map(|n| row.get(n)).collect::<rusqlite::Result<_>>()?;
            Ok(format!("{table} {values:?}"))
        })?;
        all.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(all)
}

impl State {
    /// Counts a call that changes something; an error if it fails.
    pub(super) fn call(&mut self, what: impl FnOnce() -> Call, needs_room: bool) -> Result<(), Fault> {
        self.calls += 1;
        self.dead |= self.dies_at.is_some_and(|at| self.calls >= at);
        if self.dead {
            return Err(Fault::Io);
        }
        if let Some((at, fault)) = self.fails_at
            && at == self.calls
            && (fault == Fault::Io || needs_room)
        {
            return Err(fault);
        }
        if self.full && needs_room {
            return Err(Fault::Full);
        }
        if let Some(log) = &mut self.log {
            log.push(what());
        }
        Ok(())
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(super) fn file(&mut self, name: &str) -> &mut File {
        if !self.files.contains_key(name) {
            self.files.insert(name.to_owned(), File::default());
        }
        self.files.get_mut(name).unwrap()
    }
}

impl File {
    fn safe(bytes: Vec<u8>) -> Self {
        Self { safe: Some(bytes.clone()), now: bytes, ..Self::default() }
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        write(&mut self.now, at, bytes);
        self.unsynced.push(Unsynced::Write(at, bytes.to_vec()));
    }

    pub(super) fn truncate(&mut self, size: u64) {
        self.now.truncate(size as usize);
        self.unsynced.push(Unsynced::Truncate(size));
    }

    pub(super) fn sync(&mut self) {
        let mut safe = self.safe.take().unwrap_or_default();
        self.unsynced.drain(..).for_each(|unsynced| unsynced.apply(&mut safe));
        self.safe = Some(safe);
    }

    /// `None` if the file itself may be missing.
    fn after_power_cut(&self, left: Left, random: &mut Random) -> Option<Vec<u8>> {
        let whole = match left {
            Left::All => return Some(self.now.clone()),
            Left::None => 0,
            Left::Some => self.unsynced.len(),
            Left::Torn => random.below(self.unsynced.len() as u64 + 1) as usize,
        };
        if self.safe.is_none() && whole == 0 {
            return None;
        }
        let mut bytes = self.safe.clone().unwrap_or_default();
        for unsynced in &self.unsynced[..whole] {
            if left == Left::Torn || random.below(2) == 0 {
                unsynced.clone().apply(&mut bytes);
            }
        }
        if left == Left::Torn
            && let Some(Unsynced::Write(at, torn)) = self.unsynced.get(whole)
        {
            for (n, sector) in torn.chunks(SECTOR).enumerate() {
                if random.below(2) == 0 {
                    write(&mut bytes, at + (n * SECTOR) as u64, sector);
                }
            }
        }
        Some(bytes)
    }
}

impl Unsynced {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Unsynced::Write(at, written) => write(bytes, at, &written),
            Unsynced::Truncate(size) => bytes.truncate(size as usize),
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: u64, written: &[u8]) {
    let at = at as usize;
    if bytes.len() < at {
        bytes.resize(at, 0);
    }
    let (over, behind) = written.split_at(written.len().min(bytes.len() - at));
    bytes[at..at + over.len()].copy_from_slice(over);
    bytes.extend_from_slice(behind);
}
