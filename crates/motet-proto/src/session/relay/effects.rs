//! What a session asks of its driver, and what it is answered and told.

use std::sync::Arc;

use crate::entry::Entry;
use crate::ids::{AccountId, LogName, SpaceId};
use crate::message::{Fetch, Listed, Message, Outcome};
use crate::position::Position;
use crate::presence::Presence;

/// What the driver must do, in the order handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEffect {
    /// Send a message.
    Send(Message),
    /// The device has introduced itself: look up the log and answer with [`super::RelaySession::handle_opened`].
    Open {
        /// The space of the session.
        space: SpaceId,
    },
    /// Append, make durable, and answer with [`super::RelaySession::handle_appended`].
    Append {
        /// Id of the push.
        push: u32,
        /// Entries in order, not yet checked.
        entries: Vec<Entry>,
    },
    /// Read a page and answer with [`super::RelaySession::handle_read`]. At most one is under way.
    Read {
        /// After this place; `None` from the start.
        after: Option<Position>,
    },
    /// Read what the log holds of one document and answer with [`super::RelaySession::handle_document`].
    ReadDocument(Fetch),
    /// The device tells where it is: hand it round.
    Presence(Presence),
    /// Send what is queued and close the connection.
    Close,
}

/// Answer to [`RelayEffect::Open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Last sequence number of the log.
    pub head: u64,
    /// The account, if the relay tells accounts apart.
    pub account: Option<AccountId>,
    /// What the log is called.
    pub log: Option<LogName>,
    /// The relay's clock, in milliseconds since 1970.
    pub time_ms: Option<i64>,
}

/// Answer to [`RelayEffect::Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// One outcome for each entry.
    pub outcomes: Vec<Outcome>,
    /// Sequence numbers newly given out, first and last; `None` if every entry was known or rejected.
    pub appended: Option<(u64, Position)>,
}

/// Answer to [`RelayEffect::Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// A page of the log.
    Page {
        /// Sequence numbers and entries.
        entries: Vec<(u64, Entry)>,
        /// The place after the page.
        position: Position,
        /// Last sequence number of the log.
        head: u64,
    },
    /// The position is not a place of this log.
    Refused,
}

/// Answer to [`RelayEffect::ReadDocument`]: entries of one document, in log order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentPage {
    /// The entries, if they were asked for.
    pub entries: Vec<Entry>,
    /// Which entries there are, if only that was asked for.
    pub listed: Vec<Listed>,
    /// Sequence number of the last of them.
    pub last: u64,
    /// There are more.
    pub more: bool,
}

/// Entries that were committed together by some session, as the hub hands them round.
#[derive(Clone, Debug)]
pub struct CommittedRun {
    /// The session that pushed the run; it learns of it from its receipt instead.
    pub origin: u64,
    /// First sequence number of the run.
    pub first: u64,
    /// The place after the run.
    pub position: Position,
    /// The entries, if the run is small enough to be handed round; otherwise sessions read it from the log.
    pub entries: Option<Arc<Vec<Entry>>>,
}
