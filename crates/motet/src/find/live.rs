//! Results that stay up to date.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::Query;
use crate::collection::{Collection, Record};
use crate::error::ReadError;
use crate::events::{ChangeKind, Event};

/// A query whose results are handed out again whenever they have changed.
///
/// It wakes for commits that touch a document which is among the results or matches the filter now, and for no others.
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
    results: Vec<Record<T>>,
}

impl<T: Serialize + DeserializeOwned> LiveQuery<T> {
    pub(crate) fn new(
        collection: Collection<T>,
        query: Query,
        events: Receiver<Event>,
    ) -> Result<Self, ReadError> {
        // Events are heard from before the first read on, so nothing slips between.
        let results = collection.find(&query)?;
        Ok(Self { collection, query, events, results })
    }

    /// The latest results.
    pub fn results(&self) -> &[Record<T>] {
        &self.results
    }

    /// Waits until the results have changed and returns them.
    ///
    /// # Errors
    /// [`ReadError`]; the results are the earlier ones then.
    pub async fn next(&mut self) -> Result<&[Record<T>], ReadError> {
        loop {
            // The sender lives as long as the replica, which the collection holds.
            let event = match self.events.recv().await {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            if self.take_up(event)? {
                return Ok(&self.results);
            }
        }
    }

    /// [`next`](Self::next) for code that blocks.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn wait(&mut self) -> Result<&[Record<T>], ReadError> {
        pollster::block_on(self.next())
    }

    /// Looks at this event and at all that are there already; true if the results have changed.
    fn take_up(&mut self, event: Option<Event>) -> Result<bool, ReadError> {
        let mut matters = match event {
            Some(event) => self.concerns(&event)?,
            None => true,
        };
        loop {
            match self.events.try_recv() {
                Ok(event) => matters = matters || self.concerns(&event)?,
                Err(TryRecvError::Lagged(_)) => matters = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if !matters {
            return Ok(false);
        }
        let results = self.collection.find(&self.query)?;
        let same = results.len() == self.results.len()
            && results
                .iter()
                .zip(&self.results)
                .all(|(a, b)| a.id == b.id && a.version == b.version && a.base == b.base);
        self.results = results;
        Ok(!same)
    }

    fn concerns(&self, event: &Event) -> Result<bool, ReadError> {
        if event.collection != self.collection.name() {
            return Ok(false);
        }
        if self.results.iter().any(|record| record.id == event.id) {
            return Ok(true);
        }
        Ok(event.kind != ChangeKind::Deleted && self.collection.matches(&self.query.filter, &event.id)?)
    }
}
