//! Turns of several processes, or replicas, that write one file. SQLite has no queue for them: who waits looks again and again whether
//! the file is free, and by itself ever less often, so that somebody who writes without pause keeps all others out.

use std::cell::Cell;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Result;
use crate::{limits, platform};

/// A connection that finds the file held looks again every [`limits::BUSY_POLL`], for [`limits::BUSY_TIMEOUT`] in all.
pub(super) fn wait_on(conn: &mut Connection) -> Result<()> {
    match platform::is_simulated() {
        // There is one thread, and time is moved by hand.
        true => conn.busy_timeout(limits::BUSY_TIMEOUT)?,
        false => conn.busy_handler(Some(look_again))?,
    }
    Ok(())
}

fn look_again(before: i32) -> bool {
    thread_local! {
        static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let since = match SINCE.get().filter(|_| before > 0) {
        Some(since) => since,
        None => {
            let now = Instant::now();
            SINCE.set(Some(now));
            now
        }
    };
    if since.elapsed() >= limits::BUSY_TIMEOUT {
        return false;
    }
    sleep(limits::BUSY_POLL);
    true
}

/// How long a connection has had the file almost without pause.
#[derive(Default)]
pub(super) struct Turn {
    begun: Option<Instant>,
    left: Option<Instant>,
}

impl Turn {
    /// Before a transaction: who has had the file for a whole turn leaves it for long enough that whoever waits finds it free.
    pub(super) fn begin(&mut self) {
        if platform::is_simulated() {
            return;
        }
        let paused = self.left.map_or(Duration::MAX, |left| left.elapsed());
        if paused < limits::TURN_PAUSE {
            if self.begun.is_some_and(|begun| begun.elapsed() < limits::WRITE_TURN) {
                return;
            }
            sleep(limits::TURN_PAUSE - paused);
        }
        self.begun = Some(Instant::now());
    }

    /// After a transaction.
    pub(super) fn end(&mut self) {
        self.left = Some(Instant::now());
    }
}
