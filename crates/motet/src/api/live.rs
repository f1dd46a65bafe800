//! Results that stay up to date.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::listed::Records;
use crate::api::collection::Collection;
use crate::error::ReadError;
use crate::query::Query;
use crate::types::{ChangeKind, Commits, Event};

/// A query whose results are handed out again whenever they have changed.
///
/// The results are those of [`Collection::find`] after every commit, whoever made it: this process, another one on the same file, or
/// another device. It wakes when they have changed, and for nothing else.
///
/// ```
/// use motet::{Query, Replica, field, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("tasks.db"))?;
/// let tasks = replica.documents("tasks");
/// let mut open = tasks.live(Query::new().filter(field("done").eq(false)))?;
/// assert!(open.results().is_empty());
///
/// tasks.insert(&json!({ "title": "Practise", "done": false }))?;
/// assert_eq!(open.wait()?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LiveQuery<T> {
    collection: Collection<T>,
    query: Query,
    events: Receiver<Event>,
    commits: watch::Receiver<Commits>,
    /// The commits that the results are known to be right after.
    seen: Commits,
    /// Something was heard that has not been looked at: reading failed.
    stale: bool,
    results: Records<T>,
}

impl<T: Serialize + DeserializeOwned> LiveQuery<T> {
    pub(crate) fn new(
        collection: Collection<T>,
        query: Query,
        events: Receiver<Event>,
        mut commits: watch::Receiver<Commits>,
    ) -> Result<Self, ReadError> {
        // Both are heard from before the first read on, so nothing slips between.
        let seen = *commits.borrow_and_update();
        let results = collection.find(&query)?;
        Ok(Self { collection, query, events, commits, seen, stale: false, results })
    }

    /// The latest results.
    pub fn results(&self) -> &Records<T> {
        &self.results
    }

    /// Waits until the results have changed and returns them.
    ///
    /// # Errors
    /// [`ReadError`]; the results are the earlier ones then.
    pub async fn next(&mut self) -> Result<&Records<T>, ReadError> {
        // What could not be read is tried again.
        if self.stale && self.take_up()? {
            return Ok(&self.results);
        }
        loop {
            let event = tokio::select! {
                biased;
                event = self.events.recv() => Some(event),
                _ = self.commits.changed() => None,
            };
            // The senders live as long as the replica, which the collection holds.
            match event {
                Some(Ok(event)) => self.hear(&event),
                Some(Err(RecvError::Lagged(_))) => self.stale = true,
                Some(Err(RecvError::Closed)) => return std::future::pending().await,
                None => {}
            }
            if self.take_up()? {
                return Ok(&self.results);
            }
        }
    }

    /// [`next`](Self::next) for code that blocks.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self) -> Result<&Records<T>, ReadError> {
        pollster::block_on(self.next())
    }

    /// Looks at all that is there to be heard; true if the results have changed.
    fn take_up(&mut self) -> Result<bool, ReadError> {
        // A commit sends its events before it is counted.
        let commits = *self.commits.borrow_and_update();
        loop {
            match self.events.try_recv() {
                Ok(event) => self.hear(&event),
                Err(TryRecvError::Lagged(_)) => self.stale = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.stale |= commits.settings != self.seen.settings;
        self.stale |= commits.count != self.seen.count && self.query.filter.asks_for_status();
        self.seen = commits;
        if !self.stale {
            return Ok(false);
        }
        let results = self.collection.find(&self.query)?;
        self.stale = false;
        let same = results.misfits == self.results.misfits
            && results.len() == self.results.len()
            && results
                .iter()
                .zip(&self.results)
                .all(|(a, b)| a.id == b.id && a.version == b.version && a.base == b.base);
        self.results = results;
        Ok(!same)
    }

    fn hear(&mut self, event: &Event) {
        // What cannot be told counts as a yes; reading anew says what is wrong.
        self.stale = self.stale || self.concerns(event).unwrap_or(true);
    }

    /// Whether a change of a document can have changed the results.
    fn concerns(&self, event: &Event) -> Result<bool, ReadError> {
        if event.collection != self.collection.name() {
            return Ok(false);
        }
        // One that stood before the page moves it when it goes.
        let was_there = self.query.offset > 0
            || self.results.iter().any(|record| record.id == event.id)
            || self.results.misfits.iter().any(|misfit| misfit.id == event.id);
        Ok(was_there
            || event.kind != ChangeKind::Deleted && self.collection.matches(&self.query.filter, &event.id)?)
    }
}
