//! Rows that are not taken up: which, and why.

use std::fmt;

use super::json::JsonError;
use crate::doc::{Fields, Misfit, check_fields};
use crate::engine::check_name;
use crate::error::WriteError;
use crate::limits;
use crate::types::Refusal;

/// What becomes of the others when a row cannot be taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRows {
    /// They are taken up. The summary counts and names those that are not.
    #[default]
    Report,
    /// Nothing is taken up.
    RefuseAll,
}

/// The document that a row is for, as far as it is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Target<'a> {
    pub(super) collection: Option<&'a str>,
    pub(super) id: Option<&'a str>,
}

impl Refusal {
    pub(super) fn new(place: impl fmt::Display, target: Target<'_>, reason: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            collection: target.collection.map(Into::into),
            id: target.id.map(Into::into),
            field: None,
            reason: reason.to_string(),
        }
    }

    /// A row that cannot be read.
    pub(super) fn unread(place: impl fmt::Display, target: Target<'_>, error: &JsonError) -> Self {
        let field = Some(super::json::shown(&error.path)).filter(|field| !field.is_empty());
        Self { field, ..Self::new(place, target, error) }
    }

    fn misfit(place: impl fmt::Display, target: Target<'_>, misfit: &Misfit) -> Self {
        Self { field: Some(misfit.field.clone()), ..Self::new(place, target, misfit) }
    }

    /// A row that was read and not written.
    pub(super) fn unwritten(place: impl fmt::Display, target: Target<'_>, error: &WriteError) -> Self {
        let field = match error {
            WriteError::Rule { field, .. } | WriteError::Contested { field } => Some(field.clone()),
            WriteError::BadValue { field, .. } => field.clone(),
            _ => None,
        };
        let reason = match error {
            WriteError::Rule { field, rule, .. } => format!("field {field:?} {rule}"),
            WriteError::Contested { field } => format!("field {field:?}: {error}"),
            other => other.to_string(),
        };
        Self { field, ..Self::new(place, target, reason) }
    }
}

/// Judges a row before it comes to the engine, which would not say which field is to blame, and not before others are written.
pub(super) fn judge(place: &str, target: Target<'_>, fields: &Fields) -> Result<(), Refusal> {
    let mut names = target.collection.into_iter().chain(target.id);
    names.try_for_each(check_name).map_err(|error| Refusal::unwritten(place, target, &error))?;
    check_fields(fields).map_err(|misfit| Refusal::misfit(place, target, &misfit))
}

/// The rows that were refused so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    pub(super) count: u64,
    pub(super) listed: Vec<Refusal>,
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Refusal) {
        self.count += 1;
        if self.listed.len() < limits::LISTED_REFUSALS {
            self.listed.push(refusal);
        }
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.count += more.count;
        let room = limits::LISTED_REFUSALS.saturating_sub(self.listed.len());
        self.listed.extend(more.listed.into_iter().take(room));
    }

    /// In the order of their numbers: a row that cannot be read is refused before others are written.
    pub(super) fn sort(&mut self) {
        let number = |refusal: &Refusal| refusal.place.split(' ').find_map(|part| part.parse::<u64>().ok());
        self.listed.sort_by_key(number);
    }

    /// An error if nothing was or may be taken up because of them.
    pub(super) fn settle(&self, bad_rows: BadRows, taken: u64) -> Result<(), WriteError> {
        if self.count == 0 || (bad_rows == BadRows::Report && taken > 0) {
            return Ok(());
        }
        Err(WriteError::Refused { count: self.count, refusals: self.listed.clone() })
    }
}
