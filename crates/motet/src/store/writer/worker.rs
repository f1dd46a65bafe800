//! The connection that writes, and its transactions.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use motet_proto::SpaceId;
use motet_proto::planted::{Bug, is_planted};
use rusqlite::Connection;

use super::job::Job;
use super::{Durability, Engine};
use crate::store::busy::Turn;
use crate::store::{Result, Tx};

/// The connection and what belongs to it.
pub(super) struct Worker<E> {
    pub(super) conn: Connection,
    /// The space that the file holds.
    pub(super) space: SpaceId,
    pub(super) engine: E,
    pub(super) synchronous: Durability,
    pub(super) data_version: Option<i64>,
    pub(super) turn: Turn,
}

impl<E: Engine> Worker<E> {
    /// Does what the first of these writes needs beforehand, if it takes long; it is alone then. Returns those that have to wait.
    pub(super) fn prepare(&mut self, group: &mut Vec<Box<dyn Job<E>>>) -> Vec<Box<dyn Job<E>>> {
        if group.iter_mut().all(|job| job.ahead().is_none()) {
            return Vec::new();
        }
        let version = self.data_version().ok();
        let foreign = version != self.data_version && !is_planted(Bug::ForeignWritesUnseen);
        let tx = Tx { conn: &self.conn, space: self.space };
        let engine = &mut self.engine;
        // What panics here will do so again in the transaction, where it is told.
        let mut is_long = |job: &mut Box<dyn Job<E>>| {
            let ahead = job.ahead().as_ref();
            let mut is_long = |ahead| catch_unwind(AssertUnwindSafe(|| engine.is_long(tx, ahead, foreign)));
            ahead.is_some_and(|ahead| is_long(ahead).unwrap_or(false))
        };
        match group.iter_mut().position(&mut is_long) {
            None => Vec::new(),
            Some(0) => {
                if let Some(ahead) = group[0].ahead().take() {
                    _ = catch_unwind(AssertUnwindSafe(|| self.engine.prepare(tx, ahead, foreign)));
                }
                group.split_off(1)
            }
            Some(at) => group.split_off(at),
        }
    }

    pub(super) fn transaction(&mut self, group: &mut [Box<dyn Job<E> + '_>]) -> Result<()> {
        let full = group.iter().any(|job| job.durability() == Durability::Full)
            && !is_planted(Bug::DeviceSkipsFsync);
        self.set_synchronous(if full { Durability::Full } else { Durability::Normal })?;
        self.turn.begin();
        self.execute("BEGIN IMMEDIATE")?;
        let outcome = self.whole(|worker| {
            worker.run_all(group).and_then(|keep| worker.execute(if keep { "COMMIT" } else { "ROLLBACK" }))
        });
        self.turn.end();
        outcome
    }

    pub(super) fn peek<T>(
        &mut self,
        write: impl FnOnce(Tx<'_>, &mut E) -> Result<()>,
        read: impl FnOnce(Tx<'_>) -> Result<T>,
    ) -> Result<T> {
        self.execute("BEGIN IMMEDIATE")?;
        let outcome = self.whole(|worker| {
            worker.begin()?;
            let tx = Tx { conn: &worker.conn, space: worker.space };
            write(tx, &mut worker.engine)?;
            read(tx)
        });
        self.engine.end_write(false);
        if !self.conn.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        outcome
    }

    /// Does what is in a transaction; if it fails, the transaction is over. That is so after a panic too, in the app's clock for one: open,
    /// it would keep out whoever writes next, here and in other processes.
    fn whole<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self)));
        if !matches!(outcome, Ok(Ok(_))) && !self.conn.is_autocommit() {
            // The error that led here is what the callers are told.
            _ = self.execute("ROLLBACK");
        }
        outcome.unwrap_or_else(|panic| {
            self.engine.end_write(false);
            self.engine.end(false);
            resume_unwind(panic)
        })
    }

    /// A transaction has begun.
    fn begin(&mut self) -> Result<()> {
        let version = self.data_version()?;
        let foreign = self.data_version.replace(version).is_none_or(|before| before != version)
            && !is_planted(Bug::ForeignWritesUnseen);
        self.engine.begin(Tx { conn: &self.conn, space: self.space }, foreign)
    }

    /// Runs the writes; false if there is nothing to commit.
    fn run_all(&mut self, group: &mut [Box<dyn Job<E> + '_>]) -> Result<bool> {
        self.begin()?;
        let tx = Tx { conn: &self.conn, space: self.space };
        if let [job] = group {
            // Alone, the transaction is its own savepoint.
            let ok = job.run(tx, &mut self.engine);
            if ok {
                self.engine.before_commit(tx)?;
            }
            self.engine.end_write(ok);
            return Ok(ok);
        }
        for job in group {
            self.execute("SAVEPOINT job")?;
            let ok = job.run(tx, &mut self.engine);
            if !ok {
                self.execute("ROLLBACK TO job")?;
            }
            self.execute("RELEASE job")?;
            self.engine.end_write(ok);
        }
        self.engine.before_commit(tx)?;
        Ok(true)
    }

    /// Changes when another connection has written; read inside the transaction, so that nothing slips in between.
    pub(super) fn data_version(&self) -> Result<i64> {
        Ok(self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
    }

    fn set_synchronous(&mut self, wanted: Durability) -> Result<()> {
        if self.synchronous != wanted {
            let value = if wanted == Durability::Full { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", value)?;
            self.synchronous = wanted;
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}
