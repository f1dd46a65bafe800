//! The batch that goes out next, while the sync task has nothing else to do: it is made in the transaction of the edit that it is
//! about, so that it can be sent as soon as that is committed. Reading and freezing the row in a transaction of its own takes as
//! long as sending it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use motet_proto::session::OutboxBatch;

use super::Core;
use crate::limits;
use crate::store::{self, Tx};

/// Where the sync task and the engine meet.
#[derive(Default)]
pub(crate) struct NextBatch(Mutex<State>);

#[derive(Default)]
struct State {
    /// Number of the connection whose sync task may wait.
    connection: u64,
    awaited: Option<Place>,
    frozen: Option<Frozen>,
}

/// The rows of a remote after one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    remote: i64,
    after: i64,
}

/// A batch of frozen rows, and what it is the next after.
pub(super) struct Frozen {
    place: Place,
    batch: OutboxBatch,
}

impl NextBatch {
    /// A connection begins, or ends: what was waited for before is not any more. Returns its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.lock();
        let connection = state.connection + 1;
        *state = State { connection, ..State::default() };
        connection
    }

    /// The next rows to be sent to a remote are those after `after`, as soon as there are any; `None`: what is sent next is not
    /// known yet.
    pub(crate) fn expect(&self, connection: u64, remote: i64, after: Option<i64>) {
        let mut state = self.lock();
        // The task of a connection that has ended may run on for a moment.
        if state.connection == connection {
            state.awaited = after.map(|after| Place { remote, after });
        }
    }

    /// The rows of a remote after `after`, if the last transaction has made them ready.
    pub(crate) fn take(&self, remote: i64, after: i64) -> Option<OutboxBatch> {
        let place = Place { remote, after };
        let mut state = self.lock();
        state.awaited = None;
        state.frozen.take().filter(|frozen| frozen.place == place).map(|frozen| frozen.batch)
    }

    /// A transaction has ended. What an earlier one has made ready may have been dropped by it.
    pub(super) fn put(&self, frozen: Option<Frozen>) {
        self.lock().frozen = frozen;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Freezes what a lone small write has put into the outbox, if the sync task waits for it.
    pub(super) fn freeze_awaited(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let is_lone = self.pending == 0 && self.write_pending == 1 && self.in_write.len() == 1;
        let Some(place) = self.shared.next_batch.lock().awaited.filter(|_| is_lone) else { return Ok(()) };
        let batch = self.next_batch(tx, place.remote, place.after, limits::SMALLEST_BATCH_BYTES)?;
        self.frozen = Some(Frozen { place, batch });
        Ok(())
    }
}
