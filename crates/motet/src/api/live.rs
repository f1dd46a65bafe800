//! Results that stay up to date.

use std::fmt;
use std::time::Duration;

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::listed::Records;
use crate::api::collection::Collection;
use crate::api::watch::{Subscription, block_on_for, subscribe};
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

    /// [`wait`](Self::wait), but no longer than this; `None` if they have not changed until then.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait_for(&mut self, time: Duration) -> Result<Option<&Records<T>>, ReadError> {
        let changed = block_on_for(self.next(), time).transpose()?.is_some();
        Ok(changed.then_some(&self.results))
    }

    /// The results if they have changed since the last time, without waiting: for each turn of a loop of a user interface.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<&Records<T>>, ReadError> {
        Ok(if self.take_up()? { Some(&self.results) } else { None })
    }

    /// The results whenever they have changed, as a stream. It does not end: the replica stays open as long as it is there.
    pub fn into_stream(self) -> impl Stream<Item = Result<Records<T>, ReadError>> + Send + Unpin + use<T>
    where
        T: Clone + Send + 'static,
    {
        let next = |mut live: Self| async move {
            let results = live.next().await.cloned();
            Some((results, live))
        };
        Box::pin(futures_util::stream::unfold(self, next))
    }

    /// Calls `each` with the results whenever they have changed, on a thread of its own, until what is returned is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn for_each(
        self,
        each: impl FnMut(Result<Records<T>, ReadError>) + Send + 'static,
    ) -> std::io::Result<Subscription>
    where
        T: Clone + Send + 'static,
    {
        subscribe(self.into_stream(), each)
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

impl<T: fmt::Debug> fmt::Debug for LiveQuery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveQuery").field("results", &self.results).finish_non_exhaustive()
    }
}
