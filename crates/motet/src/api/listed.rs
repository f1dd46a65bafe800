//! What a list, a query or a search returned: what could be read, and what could not.

use std::ops::{Deref, DerefMut};

use serde::Serialize;

use super::Record;
use crate::query::Snippet;

/// A document that full-text search has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hit<T> {
    /// The document.
    pub record: Record<T>,
    /// How well it matches: larger is better, for one and the same search.
    pub score: f64,
    /// Where, if it can be told.
    pub snippet: Option<Snippet>,
}

/// The documents that a list or a query returned.
pub type Records<T> = Listed<Record<T>>;

/// The documents that a full-text search has found, best match first.
pub type Hits<T> = Listed<Hit<T>>;

/// What a list, a query or a search returned, in order. It is used like the vector of what could be read as the app's type; what
/// does not fit that type stands in [`misfits`](Self::misfits) and holds nothing up.
///
/// ```
/// use motet::{Replica, json};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Song {
///     title: String,
/// }
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// replica.documents("songs").upsert("1", &json!({ "title": "Hiʻilawe" }))?;
/// replica.documents("songs").upsert("2", &json!({ "name": "by another app" }))?;
///
/// let songs = replica.collection::<Song>("songs").list()?;
/// assert_eq!(songs.len(), 1);
/// for song in &songs {
///     println!("{}", song.title);
/// }
/// for misfit in &songs.misfits {
///     eprintln!("{} cannot be shown: {}", misfit.id, misfit.reason);
/// }
/// # assert_eq!(songs.misfits[0].id, "2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Listed<I> {
    /// What could be read.
    pub items: Vec<I>,
    /// Documents that belong here and do not have the shape of the app's type, in the same order.
    pub misfits: Vec<Misfit>,
}

/// A document that does not have the shape that the app asked for. [`Replica::documents`](crate::Replica::documents) reads it as
/// JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Misfit {
    /// Id of the document.
    pub id: String,
    /// What the deserializer said.
    pub reason: String,
}

impl<I> Listed<I> {
    /// What could be read, or the first reason why something could not.
    ///
    /// # Errors
    /// The first of the misfits, if there are any.
    pub fn all_fit(self) -> Result<Vec<I>, Misfit> {
        match self.misfits.into_iter().next() {
            Some(misfit) => Err(misfit),
            None => Ok(self.items),
        }
    }

    pub(crate) fn push(&mut self, read: Result<I, Misfit>) {
        match read {
            Ok(item) => self.items.push(item),
            Err(misfit) => self.misfits.push(misfit),
        }
    }
}

impl<I> Default for Listed<I> {
    fn default() -> Self {
        Self { items: Vec::new(), misfits: Vec::new() }
    }
}

impl<I> FromIterator<Result<I, Misfit>> for Listed<I> {
    fn from_iter<R: IntoIterator<Item = Result<I, Misfit>>>(read: R) -> Self {
        let mut listed = Self::default();
        read.into_iter().for_each(|read| listed.push(read));
        listed
    }
}

impl<I> Deref for Listed<I> {
    type Target = Vec<I>;
    fn deref(&self) -> &Vec<I> {
        &self.items
    }
}

impl<I> DerefMut for Listed<I> {
    fn deref_mut(&mut self) -> &mut Vec<I> {
        &mut self.items
    }
}

impl<I> IntoIterator for Listed<I> {
    type Item = I;
    type IntoIter = std::vec::IntoIter<I>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'l, I> IntoIterator for &'l Listed<I> {
    type Item = &'l I;
    type IntoIter = std::slice::Iter<'l, I>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<'l, I> IntoIterator for &'l mut Listed<I> {
    type Item = &'l mut I;
    type IntoIter = std::slice::IterMut<'l, I>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter_mut()
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} does not have the expected shape: {}", self.id, self.reason)
    }
}

impl std::error::Error for Misfit {}
