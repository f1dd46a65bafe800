//! What listeners hear: of this replica's own commits, and of those of other processes.

use motet_proto::DeviceId;

use super::{Commit, Core};
use crate::events::{ChangeKind, Event};
use crate::limits;
use crate::store::{self, DocumentRow, Tx};

/// How far listeners have been told of the file's feed.
#[derive(Debug, Default)]
pub(super) struct Told {
    seq: i64,
    /// Documents with a larger row id are new to listeners.
    document: i64,
    /// The running transaction has written projections: what is told of otherwise.
    pub(super) projected: bool,
    /// Another process has written, and listeners have not heard of it for certain.
    foreign: bool,
    /// Where the running transaction leaves off.
    next: Option<(i64, i64)>,
}

impl Told {
    pub(super) fn end(&mut self, committed: bool) {
        self.projected = false;
        if let Some((seq, document)) = self.next.take().filter(|_| committed) {
            (self.seq, self.document, self.foreign) = (seq, document, false);
        }
    }
}

impl Core {
    /// Listeners hear of it once it is committed.
    pub(super) fn note_event(
        &mut self,
        row: &DocumentRow,
        commit: &Commit<'_>,
        fields: Vec<String>,
        device: Option<DeviceId>,
    ) {
        self.write_events.push(Event {
            collection: row.collection.clone(),
            id: row.name.clone(),
            kind: commit.kind,
            remote: commit.origin.is_some(),
            fields,
            device,
            time: row.updated_at,
            transaction: self.transaction,
        });
    }

    /// A transaction begins: tells of what another process has written since the last one.
    pub(super) fn note_foreign(&mut self, tx: Tx<'_>, foreign: bool) -> store::Result<()> {
        self.told.foreign |= foreign;
        if !self.told.foreign {
            return Ok(());
        }
        // An edit that is not projected yet has no number.
        self.catch_up_all(tx)?;
        let reached = (tx.latest_seq()?, tx.latest_document()?);
        // A listener that is told more than it can hold is told that it missed some.
        for row in tx.changed_after(self.told.seq, limits::EVENT_BACKLOG + 1)? {
            let kind = match row.document > self.told.document {
                _ if row.deleted => ChangeKind::Deleted,
                true => ChangeKind::Created,
                false => ChangeKind::Updated,
            };
            self.events.push(Event {
                collection: row.collection,
                id: row.name,
                kind,
                remote: false,
                fields: Vec::new(),
                device: None,
                time: row.updated_at,
                transaction: self.transaction,
            });
        }
        self.told.next = Some(reached);
        Ok(())
    }

    /// What this transaction has written is told by its own events.
    pub(super) fn note_own(&mut self, tx: Tx<'_>) -> store::Result<()> {
        if self.told.projected {
            self.told.next = Some((tx.latest_seq()?, tx.latest_document()?));
        }
        Ok(())
    }

    /// Listeners need not hear of what was there before them.
    pub(super) fn note_start(&mut self, tx: Tx<'_>) -> store::Result<()> {
        (self.told.seq, self.told.document) = (tx.latest_seq()?, tx.latest_document()?);
        Ok(())
    }
}
