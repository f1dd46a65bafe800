//! The batch that goes out next, while the sync task has nothing else to do: it is made in the transaction of the edit that it is
//! about, so that it can be sent as soon as that is committed. Reading and sealing the row in a transaction of its own takes as
//! long as sending it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use motet_proto::session::OutboxBatch;

use super::Core;
use crate::limits;
use crate::store::{self, Tx};

/// Where the sync task and the engine meet.
#[derive(Default)]
pub(crate) struct SendSlot(Mutex<State>);

#[derive(Default)]
struct State {
    /// Number of the connection whose sync task may wait.
    connection: u64,
    awaited: Option<AwaitedBatch>,
    ready: Option<Ready>,
}

/// The rows of a remote after one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AwaitedBatch {
    remote: i64,
    after: i64,
}

/// A batch of sealed rows, and what it is the next after.
pub(super) struct Ready {
    place: AwaitedBatch,
    batch: OutboxBatch,
}

impl SendSlot {
    /// A connection begins: what was waited for before is not any more. Returns its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.lock();
        let connection = state.connection + 1;
        *state = State { connection, ..State::default() };
        connection
    }

    /// A connection has ended, perhaps after the next one began.
    pub(crate) fn end(&self, connection: u64) {
        if self.lock().connection == connection {
            self.begin();
        }
    }

    /// The next rows to be sent to a remote are those after `after`, as soon as there are any; `None`: what is sent next is not
    /// known yet.
    pub(crate) fn expect(&self, connection: u64, remote: i64, after: Option<i64>) {
        let mut state = self.lock();
        // The task of a connection that has ended may run on for a moment.
        if state.connection == connection {
            state.awaited = after.map(|after| AwaitedBatch { remote, after });
        }
    }

    /// The rows of a remote after `after`, if the last transaction has made them ready.
    pub(crate) fn take(&self, remote: i64, after: i64) -> Option<OutboxBatch> {
        let place = AwaitedBatch { remote, after };
        let mut state = self.lock();
        state.awaited = None;
        state.ready.take().filter(|ready| ready.place == place).map(|ready| ready.batch)
    }

    /// A transaction has ended. What an earlier one has made ready may have been dropped by it.
    pub(super) fn put(&self, ready: Option<Ready>) {
        self.lock().ready = ready;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Seals what a lone small edit has put into the outbox, if the sync task waits for it. Whatever is more work than that is the
    /// sync task's, and not the app's.
    pub(super) fn seal_awaited(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let is_small = (1..=limits::SMALL_WORK_BYTES).contains(&self.write.bytes);
        let is_lone = self.staged.pending == 0 && self.write.pending == 1 && is_small;
        let Some(place) = self.shared.send_slot.lock().awaited.filter(|_| is_lone) else { return Ok(()) };
        if self.check_era(tx).is_err() {
            return Ok(());
        }
        let rows = tx.sendable(place.remote, place.after, 2)?;
        let [row] = &rows[..] else { return Ok(()) };
        if row.first_change > 0 && row.sealed.is_none() {
            let batch = self.seal_rows(tx, place.remote, rows, limits::SMALLEST_BATCH_BYTES)?;
            self.staged.ready = Some(Ready { place, batch }).filter(|ready| !ready.batch.items.is_empty());
        }
        Ok(())
    }
}
