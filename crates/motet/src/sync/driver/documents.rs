//! Single documents out of turn: synced first because somebody waits for them, or compacted because nobody does.

use motet_proto::DocumentId;
use motet_proto::message::Listed;
use tokio::sync::oneshot;

use super::{Driver, Ended, Running};
use crate::error::SyncError;
use crate::limits;
use crate::store::Durability;
use crate::time::millis;

/// What is asked for one document.
pub(in crate::sync) struct DocumentRequest {
    pub(in crate::sync) document: DocumentId,
    pub(in crate::sync) task: DocumentTask,
    /// Nobody waits for what the driver has thought of itself.
    pub(in crate::sync) reply: Option<oneshot::Sender<Result<bool, SyncError>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentTask {
    /// Send what is pending of it, and merge what the relay has of it.
    Sync,
    /// Merge what the relay has of it.
    Fetch,
    /// Make its entries one snapshot, if that is worth it.
    Compact,
}

/// A request that is under way, or waits for a connection.
pub(super) struct UnderWay {
    token: u64,
    request: DocumentRequest,
    pub(super) attempts: usize,
}

impl Driver {
    /// Takes a request in; it begins with the next session if there is none.
    pub(super) fn take_document(&mut self, request: DocumentRequest) -> u64 {
        let token = self.take_id();
        self.documents.push(UnderWay { token, request, attempts: 0 });
        token
    }

    pub(super) fn begin_document(&mut self, running: &mut Running, token: u64) {
        let Some(under_way) = self.documents.iter().find(|under_way| under_way.token == token) else {
            return;
        };
        let (document, now) = (under_way.request.document, self.started.elapsed());
        match under_way.request.task {
            DocumentTask::Sync => running.session.sync_document(token, document, now),
            DocumentTask::Fetch => running.session.fetch_document(token, document, now),
            DocumentTask::Compact => running.session.list_document(token, document, now),
        }
    }

    /// All requests begin with a session.
    pub(super) fn begin_documents(&mut self, running: &mut Running) {
        let tokens: Vec<u64> = self.documents.iter().map(|under_way| under_way.token).collect();
        tokens.into_iter().for_each(|token| self.begin_document(running, token));
    }

    /// The next rows of a document that goes first.
    pub(super) async fn load_document(
        &self,
        running: &mut Running,
        token: u64,
        document: DocumentId,
        after_row: i64,
    ) -> Result<(), Ended> {
        let remote = self.remote;
        let load = self
            .database
            .writer
            .submit_first(Durability::Normal, move |tx, core| core.batch_of(tx, remote, document, after_row));
        let rows = load.await.map_err(SyncError::Storage)?;
        running.session.handle_document_rows(token, rows, self.started.elapsed());
        Ok(())
    }

    /// The relay has told which entries it holds of a document that may be worth a snapshot.
    pub(super) async fn compact(
        &mut self,
        running: &mut Running,
        token: u64,
        listed: Vec<Listed>,
    ) -> Result<(), Ended> {
        let Some(under_way) = self.documents.iter().find(|under_way| under_way.token == token) else {
            return Ok(());
        };
        let (document, remote) = (under_way.request.document, self.remote);
        let compacted = self
            .database
            .writer
            .submit(Durability::Normal, move |tx, core| core.compact(tx, remote, document, &listed));
        match compacted.await.map_err(SyncError::Storage)? {
            Some(snapshot) => running.session.push_unqueued(token, snapshot, self.started.elapsed()),
            None => self.finish_document(token, Ok(false)),
        }
        Ok(())
    }

    pub(super) fn finish_document(&mut self, token: u64, outcome: Result<bool, SyncError>) {
        let Some(at) = self.documents.iter().position(|under_way| under_way.token == token) else { return };
        if let Some(reply) = self.documents.remove(at).request.reply {
            _ = reply.send(outcome);
        }
    }

    /// A session ended: those who wait are told, unless it is tried again. What nobody waits for is forgotten.
    pub(super) fn fail_documents(&mut self, error: &SyncError, retry: bool) {
        let is_over = |under_way: &mut UnderWay| {
            !retry || under_way.attempts >= limits::ROUND_ATTEMPTS || under_way.request.reply.is_none()
        };
        for under_way in self.documents.extract_if(.., is_over) {
            if let Some(reply) = under_way.request.reply {
                _ = reply.send(Err(error.clone()));
            }
        }
    }

    /// Changes wait for others, which may lie before the position: the relay is asked for the whole document, once in a session.
    pub(super) fn ask_for_missing(&mut self, running: &mut Running, documents: &[DocumentId]) {
        for document in documents {
            if running.asked.len() >= limits::ASKED_DOCUMENTS || !running.asked.insert(*document) {
                continue;
            }
            let request = DocumentRequest { document: *document, task: DocumentTask::Fetch, reply: None };
            let token = self.take_document(request);
            self.begin_document(running, token);
        }
    }

    /// Nothing has happened for a while: documents whose entries have become many are made one snapshot each.
    pub(super) fn look_for_compaction(&mut self, running: &mut Running) -> Result<(), Ended> {
        running.compact_at = None;
        let purged_before = self.database.shared.now_ms() - millis(limits::PURGE_GRACE);
        let found = self.database.readers.read(|tx| tx.compactable(limits::COMPACT_DOCUMENTS, purged_before));
        for document in found.map_err(SyncError::Storage)? {
            let task = DocumentTask::Compact;
            let token = self.take_document(DocumentRequest { document, task, reply: None });
            self.begin_document(running, token);
        }
        Ok(())
    }
}
