//! One row of a log, and what can be made of it when a column is damaged: an entry's id is a hash over what it is.

use motet_proto::position::TAG_LEN;
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, SpaceId};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::limits;

/// Columns of [`Parts`]. The row id comes first.
pub(super) const SELECT: &str =
    "SELECT id, entry, tag, document, device, kind, suite, payload, received_at FROM entry";

/// An entry of a log; what has left the log has only an id.
pub(super) struct Stored {
    pub(super) id: EntryId,
    /// `None` if the row has none.
    pub(super) tag: Option<[u8; TAG_LEN]>,
    pub(super) received_at: i64,
    /// `None` if it has left the log.
    pub(super) entry: Option<Entry>,
    /// Of what has left: the sequence number because of which it has, as its row says.
    pub(super) cause: Option<i64>,
    /// Of what looks as if it had left: it can still be found by a document, as what has left cannot.
    pub(super) is_listed: bool,
    /// The id is the hash of what it is. Otherwise only the chain tells whether it is the right one.
    pub(super) is_proven: bool,
    /// No device can have read it as the row had it.
    pub(super) is_restored: bool,
}

/// What the columns of a row hold, as far as they hold what they should.
pub(super) struct Parts {
    id: Option<EntryId>,
    tag: Option<[u8; TAG_LEN]>,
    document: Option<DocumentId>,
    device: Option<DeviceId>,
    kind: Option<Kind>,
    suite: Option<u8>,
    cause: Option<i64>,
    payload: Option<Vec<u8>>,
    received_at: Option<i64>,
    /// How many are empty of those that are when it has left the log: document, kind and payload.
    empty: usize,
    /// Each is of its type.
    is_typed: bool,
}

impl Parts {
    pub(super) fn read(row: &Row<'_>) -> Self {
        // The same bytes as text are still the same bytes.
        let bytes = |n| match row.get_ref(n).ok()? {
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes),
            _ => None,
        };
        let is_blob = |n| matches!(row.get_ref(n), Ok(ValueRef::Blob(_)));
        let is_empty = |n| bytes(n).is_some_and(<[u8]>::is_empty);
        let (suite, cause) = (row.get(6).ok(), row.get(6).ok());
        let is_suite = suite.is_some() || cause.is_some() && is_empty(5);
        Self {
            id: bytes(1).and_then(EntryId::from_slice),
            tag: bytes(2).and_then(|tag| tag.try_into().ok()),
            document: bytes(3).and_then(DocumentId::from_slice),
            device: bytes(4).and_then(DeviceId::from_slice),
            kind: bytes(5).and_then(Kind::from_bytes),
            suite,
            cause,
            payload: bytes(7).map(Into::into),
            received_at: row.get(8).ok().filter(|at| (0..=limits::LAST_SECOND).contains(at)),
            empty: [3, 5, 7].into_iter().filter(|n| is_empty(*n)).count(),
            is_typed: is_suite && [1, 3, 4, 5, 7].into_iter().all(is_blob) && (is_empty(5) == is_empty(3)),
        }
    }

    /// Whether the row is an entry of a space, as it stands.
    pub(super) fn is_of(&self, space: SpaceId) -> bool {
        self.entry().is_some_and(|entry| entry.check(space).is_ok())
    }

    /// Whether the row can be the first of the log of a space.
    pub(super) fn begins(&self, space: SpaceId) -> bool {
        let start = motet_proto::Position::start(space);
        self.id.zip(self.tag).is_some_and(|(id, tag)| start.next(id).tag == tag)
    }

    /// What the row was. `listed` are documents under which the row is looked up. `None` if that cannot be told.
    pub(super) fn stored(self, space: SpaceId, listed: &[DocumentId], now: i64) -> Option<Stored> {
        let (tag, received_at) = (self.tag, self.received_at.unwrap_or(now));
        let whole = |entry: &Entry| entry.check(space).is_ok();
        if let Some(entry) = self.entry().filter(whole) {
            let is_restored = !self.is_typed || self.device.is_none();
            return Some(Stored {
                id: entry.id,
                tag,
                received_at,
                entry: Some(entry),
                cause: None,
                is_listed: false,
                is_proven: true,
                is_restored,
            });
        }
        let guessed = self.guesses(listed).filter(|_| self.empty < 3).and_then(|mut all| all.find(whole));
        // One column may be damaged, the other two are empty of nothing else.
        if guessed.is_none() && self.empty >= 2 {
            let is_restored = self.empty < 3 || !self.is_typed;
            return Some(Stored {
                id: self.id?,
                tag,
                received_at,
                entry: None,
                cause: self.cause,
                is_listed: false,
                is_proven: false,
                is_restored,
            });
        }
        let is_proven = guessed.is_some();
        let entry = match guessed {
            Some(entry) => entry,
            None => {
                // The id itself may be what is damaged.
                let mut entry = self.guess(None, None, None)?;
                entry.id = entry.compute_id(space);
                entry
            }
        };
        let (id, entry) = (entry.id, Some(entry));
        let (cause, is_listed) = (None, false);
        Some(Stored { id, tag, received_at, entry, cause, is_listed, is_proven, is_restored: true })
    }

    fn entry(&self) -> Option<Entry> {
        self.id?;
        self.document?;
        self.kind.as_ref()?;
        self.suite?;
        self.guess(None, None, None)
    }

    /// The entry with other values in some columns. Whose device it was tells nothing that is needed.
    fn guess(&self, document: Option<DocumentId>, kind: Option<Kind>, suite: Option<u8>) -> Option<Entry> {
        Some(Entry {
            id: self.id.unwrap_or(EntryId([0; 32])),
            document: document.or(self.document).unwrap_or(DocumentId([0; 16])),
            device: self.device.unwrap_or(DeviceId([0; 16])),
            kind: kind.or_else(|| self.kind.clone()).unwrap_or(Kind::Changes),
            suite: suite.or(self.suite).unwrap_or(0),
            payload: self.payload.clone()?,
        })
    }

    /// Entries that it may have been, if one column is damaged. Of a payload there is no guess.
    fn guesses(&self, listed: &[DocumentId]) -> Option<impl Iterator<Item = Entry>> {
        self.payload.as_ref()?;
        let suites = (0..limits::SUITES_TRIED).filter_map(|suite| self.guess(None, None, Some(suite)));
        let kinds =
            [Kind::Changes, Kind::Erased].into_iter().filter_map(|kind| self.guess(None, Some(kind), None));
        let documents = listed.iter().filter_map(|document| self.guess(Some(*document), None, None));
        Some(documents.chain(kinds).chain(suites))
    }
}
