//! Bugs that the simulation plants to find out whether it would notice them. Without the feature `simulation` none can be
//! planted, and every question for one is `false` at compile time.

#[cfg(feature = "simulation")]
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A mistake that somebody might make in this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The device keeps a position before it has applied what lies ahead of it.
    PositionAheadOfApply = 1,
    /// A receipt settles the oldest push instead of its own.
    ReceiptOfAnotherPush,
    /// A refused position is forgotten, and what the new log lacks is not sent.
    RefusedIsJustForgotten,
    /// The device sends before it knows whether the log is the one it knows, and a comparison looks at heads alone. Each of the two makes
    /// up for the lack of the other.
    SendsToAnUnknownLog,
    /// A round ends while its pushes are under way.
    RoundEndsEarly,
    /// A page is taken for the last although there is more.
    PageIsTheLast,
    /// A session that was too slow for the hub does not look into the log.
    LagIsIgnored,
    /// The relay takes everything before a device's last push for the device's own.
    OwnEntriesTooWide,
    /// A receipt carries a position although others have written in between.
    ReceiptSkipsOthers,
    /// A reader that fell behind is not read the rest.
    FallenBehindIsForgotten,
    /// The relay acknowledges before it has committed.
    AckBeforeCommit,
    /// The relay's commits are not synced.
    RelaySkipsFsync,
    /// The relay appends what it holds already.
    NoDuplicatesDropped,
    /// The relay takes a position's number without its tag.
    TagIgnored,
    /// After a failed commit the relay goes on from heads that are not on disk.
    HeadsKeptAfterFailure,
    /// A device's own writes are not synced.
    DeviceSkipsFsync,
    /// An edit while a row of its document is sealed is taken to be in that row.
    EditJoinsSealedRow,
    /// A receipt settles all rows of the document.
    ReceiptSettlesDocument,
    /// Changes that wait for others are never tried again.
    WaitingIsForgotten,
    /// A failed write stays in memory.
    FailedWriteStaysLoaded,
    /// A copied file is taken for the device it was copied from, and writes under the same actors.
    CopyIsNotNoticed,
    /// A device that is stopped while it reads a lost log again does not remember why it did.
    ReseedIsNotRemembered,
    /// What another process has written is not looked for.
    ForeignWritesUnseen,
    /// Collections that are switched off are sent.
    SwitchedOffLeaves,
    /// One entry that cannot be read fails the whole batch.
    BadEntryFailsBatch,
    /// Received changes are merged and what the document shows is not read again.
    ProjectionIsForgotten,
    /// A deleted document stays deleted although somebody has edited it meanwhile.
    DeleteWinsOverEdit,
    /// A snapshot supersedes entries that its maker has not read.
    SupersedesUnread,
    /// A snapshot supersedes entries of which its maker has set something aside.
    SupersedesSetAside,
    /// The snapshot leaves together with what it supersedes.
    SweepTakesSnapshot,
}

impl Bug {
    /// All of them.
    pub const EVERY: [Bug; 30] = [
        Bug::PositionAheadOfApply,
        Bug::ReceiptOfAnotherPush,
        Bug::RefusedIsJustForgotten,
        Bug::SendsToAnUnknownLog,
        Bug::RoundEndsEarly,
        Bug::PageIsTheLast,
        Bug::LagIsIgnored,
        Bug::OwnEntriesTooWide,
        Bug::ReceiptSkipsOthers,
        Bug::FallenBehindIsForgotten,
        Bug::AckBeforeCommit,
        Bug::RelaySkipsFsync,
        Bug::NoDuplicatesDropped,
        Bug::TagIgnored,
        Bug::HeadsKeptAfterFailure,
        Bug::DeviceSkipsFsync,
        Bug::EditJoinsSealedRow,
        Bug::ReceiptSettlesDocument,
        Bug::WaitingIsForgotten,
        Bug::FailedWriteStaysLoaded,
        Bug::CopyIsNotNoticed,
        Bug::ReseedIsNotRemembered,
        Bug::ForeignWritesUnseen,
        Bug::SwitchedOffLeaves,
        Bug::BadEntryFailsBatch,
        Bug::ProjectionIsForgotten,
        Bug::DeleteWinsOverEdit,
        Bug::SupersedesUnread,
        Bug::SupersedesSetAside,
        Bug::SweepTakesSnapshot,
    ];
}

#[cfg(feature = "simulation")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants one bug in this process, or takes it out.
#[cfg(feature = "simulation")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether batches and pages hold so few entries that small logs have many.
#[cfg(feature = "simulation")]
static SMALL: AtomicBool = AtomicBool::new(false);

/// Makes all batches and pages of this process small.
#[cfg(feature = "simulation")]
pub fn make_batches_small() {
    SMALL.store(true, Ordering::SeqCst);
}

/// How many entries a batch or page holds whose limit is `limit`.
#[cfg(feature = "simulation")]
pub fn batch(limit: usize) -> usize {
    if SMALL.load(Ordering::Relaxed) { 4 } else { limit }
}

/// How many entries a batch or page holds whose limit is `limit`.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn batch(limit: usize) -> usize {
    limit
}

/// How much a queue holds whose limit is `limit`: in small lives one, so that it is full at times.
#[cfg(feature = "simulation")]
pub fn queue(limit: usize) -> usize {
    if SMALL.load(Ordering::Relaxed) { 1 } else { limit }
}

/// How much a queue holds whose limit is `limit`.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn queue(limit: usize) -> usize {
    limit
}

/// Whether what saves little is done all the same, because in small lives nothing saves much.
#[cfg(feature = "simulation")]
pub fn saves_enough(saves: bool) -> bool {
    saves || SMALL.load(Ordering::Relaxed)
}

/// Whether what saves little is done all the same: it is not.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn saves_enough(saves: bool) -> bool {
    saves
}

/// Whether this mistake is to be made.
#[cfg(feature = "simulation")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}
