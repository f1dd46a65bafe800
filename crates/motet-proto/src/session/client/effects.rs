//! What a session asks of its driver, and what it is answered.

use crate::entry::Entry;
use crate::ids::{AccountId, DocumentId, LogName};
use crate::message::{ErrorCode, Listed, Message, Rejection};
use crate::position::Position;
use crate::presence::Presence;

/// What the driver must do, in the order handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEffect {
    /// The relay has let the device in. Nothing else is handed out before this.
    Welcomed {
        /// The account that the device speaks for, if the relay tells accounts apart.
        account: Option<AccountId>,
        /// The log of the session, if the relay names it.
        log: Option<LogName>,
        /// The relay's clock, in milliseconds since 1970, if it tells it.
        time_ms: Option<i64>,
    },
    /// Send a message.
    Send(Message),
    /// Read the outbox and answer with [`super::ClientSession::handle_outbox`]. Rows are sealed before they are returned.
    LoadOutbox {
        /// Only rows after this one.
        after_row: i64,
    },
    /// Read the outbox rows of one document and answer with [`super::ClientSession::handle_document_rows`]. Rows are sealed before they are
    /// returned.
    LoadDocument {
        /// As given to [`super::ClientSession::sync_document`].
        token: u64,
        /// The document.
        document: DocumentId,
        /// Only rows after this one.
        after_row: i64,
    },
    /// In one transaction: merge the entries, settle the receipts, and only then keep the position. Answer with
    /// [`super::ClientSession::handle_applied`]. Up to [`limits::APPLIES_UNDER_WAY`](crate::limits::APPLIES_UNDER_WAY) are handed out before an answer: the next may be prepared
    /// meanwhile, but they are committed and answered in order.
    Apply {
        /// Entries in log order.
        entries: Vec<Entry>,
        /// Outbox rows that the remote has decided on.
        receipts: Vec<StoredReceipt>,
        /// Where the log has been read to, if it moved.
        position: Option<Position>,
        /// Last sequence number of the log as far as known, for progress.
        head: u64,
    },
    /// The position is of another log: forget it, and remember that this log may lack entries which had been
    /// acknowledged. Answer with [`super::ClientSession::handle_position_reset`].
    ResetPosition,
    /// After a reset, the log has been read to its end: queue what it lacks. Answer with
    /// [`super::ClientSession::handle_reseeded`].
    Reseed,
    /// The relay has not taken a push, and nothing is sent until [`super::ClientSession::release_pushes`]; all else goes on.
    /// [`super::ClientSession::settle_without_pushes`] completes the rounds that wait for it.
    NotTaken {
        /// Machine-readable reason.
        code: ErrorCode,
        /// The relay's words.
        message: String,
    },
    /// The round is complete: what was in the outbox when it began is settled, what was in the log is applied.
    RoundDone {
        /// As given to [`super::ClientSession::request_round`].
        round: u64,
    },
    /// What the log holds of a document is applied, as far as that was asked for, and what was to be sent of it is answered.
    DocumentDone {
        /// As given to [`super::ClientSession::sync_document`] or [`super::ClientSession::push_unqueued`].
        token: u64,
        /// The relay has taken all that was sent.
        taken: bool,
    },
    /// Which entries the log holds of a document.
    Listed {
        /// As given to [`super::ClientSession::list_document`].
        token: u64,
        /// In log order; the first [`limits::SNAPSHOT_SUPERSEDES`](crate::limits::SNAPSHOT_SUPERSEDES) of them.
        listed: Vec<Listed>,
    },
    /// Another device tells where it is.
    Presence(Presence),
    /// The session is over; close the connection.
    End(EndReason),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// No protocol version in both ranges.
    #[error("the relay speaks another protocol version: {0}")]
    Version(String),
    /// The relay ended the session and said why.
    #[error("the relay ended the session: {message}")]
    Relay {
        /// Machine-readable reason.
        code: ErrorCode,
        /// The relay's words.
        message: String,
    },
    /// The relay said something that the protocol does not have at this place.
    #[error("the relay broke the protocol: {0}")]
    Protocol(&'static str),
    /// Nothing was heard for [`limits::SILENCE`](crate::limits::SILENCE) although something was due.
    #[error("the relay stopped answering")]
    Silence,
}

/// One sealed row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// Row number; grows with every row.
    pub row: i64,
    /// What is sent.
    pub entry: Entry,
}

/// Answer to [`ClientEffect::LoadOutbox`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxBatch {
    /// Rows in order, within the batch limits.
    pub items: Vec<OutboxItem>,
    /// There are more rows.
    pub more: bool,
}

/// What the remote decided about an outbox row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The row.
    pub row: i64,
    /// `Ok`: durable there. `Err`: never accepted as it is; the row is parked with this reason.
    pub result: Result<(), (Rejection, String)>,
}
