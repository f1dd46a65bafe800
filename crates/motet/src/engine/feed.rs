//! What listeners hear: of this replica's own commits, and of those of other processes.

use std::collections::HashMap;

use motet_proto::{DeviceId, DocumentId};

use super::{Commit, Core};
use crate::limits;
use crate::store::{self, DocumentRow, Tx};
use crate::time::millis;
use crate::types::{ChangeKind, Event};

/// How far listeners have been told of the file's feed.
#[derive(Debug, Default)]
pub(super) struct FeedCursor {
    seq: i64,
    /// Documents with a larger row id are new to listeners.
    document: i64,
    /// The running transaction has written projections: what is told of otherwise.
    pub(super) projected: bool,
    /// Another process has written, and listeners have not heard of it for certain.
    foreign: bool,
    /// Of that, some has no number yet, as its projection lags behind.
    unnumbered: bool,
    /// Documents whose projections lag behind writes of this process, and the number of the last change of those.
    own: HashMap<DocumentId, i64>,
    /// Where the running transaction leaves off.
    next: Option<(i64, i64)>,
}

impl FeedCursor {
    pub(super) fn end(&mut self, committed: bool) {
        self.projected = false;
        if let Some((seq, document)) = self.next.take().filter(|_| committed) {
            (self.seq, self.document) = (seq, document);
            self.foreign &= self.unnumbered;
        }
        self.unnumbered = false;
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
        self.write.events.push(Event {
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
        // An edit that is not projected yet has no number. It is told of when it has one: projecting it here, which may mean to load a big
        // document, would keep others waiting.
        let behind = std::mem::take(self.behind(tx)?);
        self.told.own.retain(|key, _| behind.contains_key(key));
        self.told.unnumbered = !behind.is_empty();
        self.behind = Some(behind);
        let reached = (tx.latest_seq()?, tx.latest_document()?);
        // A listener that is told more than it can hold is told that it missed some.
        for row in tx.changed_after(self.told.seq, limits::EVENT_BACKLOG + 1)? {
            let kind = match row.document > self.told.document {
                _ if row.deleted => ChangeKind::Deleted,
                true => ChangeKind::Created,
                false => ChangeKind::Updated,
            };
            self.staged.events.push(self.foreign_event((row.collection, row.name), kind, row.updated_at));
        }
        self.told.next = Some(reached);
        Ok(())
    }

    /// A write of this process is not projected yet.
    pub(super) fn note_lagging(&mut self, row: &DocumentRow) {
        self.told.own.insert(row.key, row.changes);
    }

    /// Whether it is for this process to project a document that lags behind since `at`: it has written it itself, or the process that
    /// has done so is not doing it.
    pub(super) fn is_due(&self, key: DocumentId, at: i64) -> bool {
        let lag = millis(limits::FOREIGN_PROJECTION_LAG);
        at == 0 || self.told.own.contains_key(&key) || self.shared.now_ms().saturating_sub(at) >= lag
    }

    /// Perhaps there was no such write after all: listeners hear of it in any case.
    pub(super) fn doubt_lagging(&mut self) {
        self.told.own.values_mut().for_each(|last| *last = i64::MIN);
    }

    /// A document is about to be projected whose projection lags behind: listeners hear of it if another process has written it.
    pub(super) fn note_late(&mut self, tx: Tx<'_>, row: &DocumentRow) -> store::Result<()> {
        let is_own = self.told.own.remove(&row.key) == Some(row.changes);
        // A new declaration is no write.
        if is_own || tx.stale_since(row.id)?.is_none_or(|at| at == 0) {
            return Ok(());
        }
        let document = (row.collection.clone(), row.name.clone());
        self.write.events.push(self.foreign_event(document, ChangeKind::Updated, row.updated_at));
        Ok(())
    }

    /// What listeners are told of a write of another process.
    fn foreign_event(&self, (collection, id): (String, String), kind: ChangeKind, time: i64) -> Event {
        let transaction = self.transaction;
        Event { collection, id, kind, remote: false, fields: Vec::new(), device: None, time, transaction }
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
        for (row, at) in tx.stale_documents(limits::DOCUMENTS_BEHIND)? {
            if self.is_due(row.key, at) {
                let (_, last) = tx.changes_after(&row)?;
                self.told.own.insert(row.key, last);
            }
        }
        Ok(())
    }
}
