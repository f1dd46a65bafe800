//! Takes in a page of entries: opens and merges them slice by slice, so that what a page opens to is never held at once, and notes
//! large ones before they are opened, so that one which ends the process is set aside by the next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use motet_proto::envelope::Sealer;
use motet_proto::session::StoredReceipt;
use motet_proto::{Entry, EntryId};
use tokio::sync::oneshot;

use crate::engine::Database;
use crate::engine::{Arrival, Core, Incoming, Opening, Received, copy_held, declared, load_ahead, prepare};
use crate::limits;
use crate::platform;
use crate::store::{Durability, StorageError, Tx, ended_over};
use crate::sync::connection::Traffic;

/// How many processes have ended while they opened an entry.
pub(super) type Deaths = Arc<HashMap<[u8; 32], u32>>;

/// A page, or what came of one document that was asked for.
pub(super) struct Page {
    pub(super) remote: i64,
    pub(super) entries: Vec<Entry>,
    pub(super) receipts: Vec<StoredReceipt>,
    pub(super) turn: Arrival,
    /// There are documents in it that were in the page before.
    pub(super) goes_on: bool,
    pub(super) deaths: Deaths,
    pub(super) traffic: Arc<Traffic>,
}

/// Entries that are opened together.
#[derive(Default)]
struct Slice {
    entries: Vec<Entry>,
    /// Bytes that they open to.
    opened: usize,
    /// It would take much memory: written down first, whatever it opens to.
    is_heavy: bool,
}

/// The bytes that an entry opens to, as it says itself.
pub(super) fn opened_len(entry: &Entry, sealer: &dyn Sealer) -> usize {
    sealer.opened_len(entry.suite, &entry.payload)
}

impl Page {
    /// Takes it in. `previous` resolves when what came before is handed to the writer, `submitted` says so of this.
    pub(super) async fn take_in(
        self,
        database: Arc<Database>,
        mut previous: Option<oneshot::Receiver<()>>,
        submitted: oneshot::Sender<()>,
    ) -> Result<Received, StorageError> {
        let Self { remote, entries, receipts, turn, goes_on, deaths, traffic } = self;
        let within = if turn == Arrival::Requested { Arrival::Requested } else { Arrival::Within };
        let mut slices: VecDeque<Slice> = cut(entries, &deaths, &*database.shared.sealer).into();
        let hand_over =
            |incoming: Incoming, noted: Vec<[u8; 32]>, receipts: Vec<StoredReceipt>, turn: Arrival| {
                database.writer.submit(Durability::Normal, move |tx: Tx<'_>, core: &mut Core| {
                    tx.note_opened(&noted)?;
                    core.receive(tx, remote, incoming, &receipts, turn)
                })
            };
        let is_light =
            slices.len() < 2 && slices.iter().all(|only| only.opened < limits::NOTED_OPENING_BYTES);
        if !is_light || goes_on {
            // One after the other: what two large pages open to is not held at once, and what is merged ahead with a document as it was
            // before the page before would be merged once more.
            in_turn(previous.take()).await?;
        }
        let mut received = Received::default();
        let mut slice = slices.pop_front().unwrap_or_default();
        loop {
            traffic.works(limits::SLICE_TIME);
            let (mut incoming, noted) = slice.open(&database, &deaths, goes_on).await?;
            let heavy = std::mem::take(&mut incoming.heavy);
            heavy_slices(heavy).into_iter().rev().for_each(|slice| slices.push_front(slice));
            in_turn(previous.take()).await?;
            let Some(next) = slices.pop_front() else {
                let taken = hand_over(incoming, noted, receipts, turn);
                _ = submitted.send(());
                received.add(taken.await?);
                traffic.works(Duration::ZERO);
                return Ok(received);
            };
            received.add(hand_over(incoming, noted, Vec::new(), within).await?);
            slice = next;
        }
    }
}

/// Waits for its turn. If the page before was not submitted, it has failed, and so has the session.
async fn in_turn(previous: Option<oneshot::Receiver<()>>) -> Result<(), StorageError> {
    match previous {
        Some(previous) => previous.await.map_err(|_| StorageError::Closed),
        None => Ok(()),
    }
}

/// Cuts a page into slices: what may have ended a process is opened alone.
fn cut(entries: Vec<Entry>, deaths: &HashMap<[u8; 32], u32>, sealer: &dyn Sealer) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let mut is_closed = true;
    for entry in entries {
        let opened = opened_len(&entry, sealer);
        let is_suspect = deaths.contains_key(&entry.id.0);
        let has_room = slices.last().is_some_and(|last| last.opened + opened <= limits::OPENED_BYTES);
        match slices.last_mut().filter(|_| has_room && !is_closed && !is_suspect) {
            Some(last) => {
                last.entries.push(entry);
                last.opened += opened;
            }
            None => slices.push(Slice { entries: vec![entry], opened, is_heavy: false }),
        }
        is_closed = is_suspect;
    }
    slices
}

/// What would take much memory is opened alone; some entries of one document together, which is loaded once for them.
fn heavy_slices(entries: Vec<(Entry, usize)>) -> Vec<Slice> {
    let mut slices: Vec<(Slice, usize)> = Vec::new();
    for (entry, weight) in entries {
        let fits = |(slice, all): &&mut (Slice, usize)| {
            *all + weight <= limits::HEAVY_BYTES
                && slice.entries.iter().all(|other| other.document == entry.document)
        };
        match slices.last_mut().filter(fits) {
            Some((slice, all)) => {
                slice.entries.push(entry);
                *all += weight;
            }
            None => slices.push((Slice { entries: vec![entry], opened: 0, is_heavy: true }, weight)),
        }
    }
    slices.into_iter().map(|(slice, _)| slice).collect()
}

impl Slice {
    /// Whether it is written down before it is opened.
    fn is_noted(&self) -> bool {
        self.is_heavy || self.opened >= limits::NOTED_OPENING_BYTES
    }

    /// Opens the entries, and says which of them are noted as being opened.
    async fn open(
        mut self,
        database: &Arc<Database>,
        deaths: &HashMap<[u8; 32], u32>,
        goes_on: bool,
    ) -> Result<(Incoming, Vec<[u8; 32]>), StorageError> {
        let is_noted = self.is_noted();
        // What processes ended over before was of the same document, and is all the same in memory.
        let ended = match is_noted {
            true => database.readers.read(|tx| tx.ended_over())?,
            false => HashSet::new(),
        };
        let is_deadly = |entry: &mut Entry| {
            deaths.get(&entry.id.0).is_some_and(|n| *n >= limits::OPENING_DEATHS)
                || ended.contains(&entry.document)
        };
        let deadly: Vec<Entry> = self.entries.extract_if(.., is_deadly).collect();
        let mut noted: Vec<[u8; 32]> = deadly.iter().map(|entry| entry.id.0).collect();
        if is_noted && !self.entries.is_empty() {
            let opening: Vec<[u8; 32]> = self.entries.iter().map(|entry| entry.id.0).collect();
            noted.extend(&opening);
            let process = platform::process();
            let note = move |tx: Tx<'_>, _: &mut Core| tx.note_opening(&process, &opening);
            database.writer.submit(Durability::Normal, note).await?;
        }
        let mut incoming = self.prepare(database, goes_on).await?;
        for entry in deadly {
            let EntryId(id) = entry.id;
            tracing::warn!(document = %entry.document, "an entry is set aside untried: the process ended when it was opened");
            let deaths = deaths.get(&id).copied().unwrap_or_default();
            incoming.set_aside(entry, &ended_over(deaths));
        }
        Ok((incoming, noted))
    }

    /// Opens entries on all cores, and merges ahead of the transaction, if there are many or big ones; a few small ones are merged in the
    /// transaction at once. Nothing big is done on the thread that keeps the connection alive.
    async fn prepare(self, database: &Arc<Database>, goes_on: bool) -> Result<Incoming, StorageError> {
        let is_noted = self.is_noted();
        let Self { entries, .. } = self;
        let bytes: usize = entries.iter().map(Entry::size).sum();
        let is_small = bytes < limits::MERGED_AHEAD_BYTES && self.opened < limits::NOTED_OPENING_BYTES;
        if entries.len() < limits::PARALLEL_FROM_DOCUMENTS && is_small {
            let (schemas, sealer) = (database.shared.schemas(), &*database.shared.sealer);
            let how = Opening { schemas: &schemas, space: database.shared.space, sealer, is_noted };
            return Ok(prepare(entries, how, |_| false, |_| None));
        }
        let database = database.clone();
        let prepared = platform::off_thread(move || {
            let keys: Vec<_> = entries.iter().map(|entry| entry.document).collect();
            // A preview is shown as it came if it goes by what is declared now, by whatever process.
            let (known, schemas) =
                database.readers.read(|tx| Ok((tx.known_documents(&keys)?, declared(tx)?)))?;
            let documents: HashSet<_> = keys.into_iter().collect();
            let are_few = documents.len() < limits::PARALLEL_FROM_DOCUMENTS;
            let held = if goes_on || are_few { copy_held(&database, documents) } else { HashMap::new() };
            let held = Mutex::new(held);
            let take = |key| held.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            let load = |key| take(key).or_else(|| load_ahead(&database.readers, &schemas, key));
            let (space, sealer) = (database.shared.space, &*database.shared.sealer);
            let how = Opening { schemas: &schemas, space, sealer, is_noted };
            Ok(prepare(entries, how, |key| !known.contains(&key), load))
        });
        prepared.await.unwrap_or_else(|reason| Err(StorageError::Io(reason)))
    }
}
