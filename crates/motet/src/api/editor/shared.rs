//! What an editor and the thread that saves have between them.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value as Json;

use super::unsaved::UnsavedField;
use crate::api::replica::Replica;
use crate::doc::Fields;
use crate::engine::{Core, Patch, diff};
use crate::error::WriteError;
use crate::limits;
use crate::store::Tx;
use crate::types::Version;

pub(super) struct EditorShared {
    pub(super) replica: Replica,
    pub(super) collection: String,
    pub(super) id: String,
    state: Mutex<EditorState>,
    /// Rung when something is to be saved, and when the editor closes.
    changed: Condvar,
    /// Held while something is written, and while the base changes.
    writing: Mutex<()>,
}

struct EditorState {
    /// The value that the next change starts from, and the version that has exactly this value.
    base: Base,
    /// Fields that start from another value: they could not be written before others' writes were taken in.
    apart: BTreeMap<String, Base>,
    waiting: Option<Waiting>,
    /// Fields that could not be written when they were last tried, and the values that were tried.
    refused: Vec<UnsavedField>,
    /// Why the latest attempt to save failed, until it is told.
    error: Option<WriteError>,
    announced: u64,
    closed: bool,
}

#[derive(Clone)]
struct Base {
    fields: Fields,
    version: Version,
}

#[derive(Clone)]
struct Waiting {
    fields: Fields,
    /// The number of the latest keystroke, and when it and the first that waits were made.
    number: u64,
    since: Instant,
    latest: Instant,
}

/// What became of a save that could write at all.
pub(super) struct Outcome {
    pub(super) refused: Vec<(String, WriteError)>,
}

/// The right to write and to change the base.
pub(super) struct Writing<'d> {
    shared: &'d EditorShared,
    _lock: MutexGuard<'d, ()>,
}

impl EditorShared {
    pub(super) fn new(
        replica: Replica,
        collection: &str,
        id: String,
        fields: Fields,
        version: Version,
    ) -> Self {
        let state = EditorState {
            base: Base { fields, version },
            apart: BTreeMap::new(),
            waiting: None,
            refused: Vec::new(),
            error: None,
            announced: 0,
            closed: false,
        };
        Self {
            replica,
            collection: collection.to_owned(),
            id,
            state: Mutex::new(state),
            changed: Condvar::new(),
            writing: Mutex::new(()),
        }
    }

    /// The value is now this.
    pub(super) fn announce(&self, fields: Fields) {
        let now = Instant::now();
        let mut state = self.state();
        state.announced += 1;
        let since = state.waiting.as_ref().map_or(now, |waiting| waiting.since);
        state.waiting = Some(Waiting { fields, number: state.announced, since, latest: now });
        self.changed.notify_one();
    }

    pub(super) fn begin(&self) -> Writing<'_> {
        Writing { shared: self, _lock: self.writing.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    pub(super) fn is_saved(&self) -> bool {
        let state = self.state();
        state.waiting.is_none() && state.refused.is_empty()
    }

    pub(super) fn take_error(&self) -> Option<WriteError> {
        self.state().error.take()
    }

    pub(super) fn unsaved(&self) -> Vec<UnsavedField> {
        self.state().refused.clone()
    }

    /// Hands out what is not saved: nobody tries again. `error` is why nothing of what waits could be written.
    pub(super) fn give_up(&self, error: Option<&WriteError>) -> Vec<UnsavedField> {
        let mut state = self.state();
        let mut fields = std::mem::take(&mut state.refused);
        if let (Some(waiting), Some(error)) = (state.waiting.take(), error) {
            let parts = state.parts(&waiting.fields);
            let names = parts.iter().flat_map(|(patch, _)| patch.fields());
            fields = names.map(|name| UnsavedField::new(name, &waiting.fields, error.clone())).collect();
        }
        fields
    }

    /// What waits is saved, and the thread ends.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Runs until the editor is closed and everything is saved, or cannot be.
    pub(super) fn save_in_time(&self) {
        let mut state = self.state();
        loop {
            let due = state.waiting.as_ref().map(|waiting| {
                (waiting.latest + limits::TYPING_PAUSE).min(waiting.since + limits::TYPING_SAVED_EVERY)
            });
            let now = Instant::now();
            state = match due {
                None if state.closed => return,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now && !state.closed => {
                    self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    drop(state);
                    let saved = self.begin().save();
                    let mut state = self.state();
                    let refused = state.refused.first().map(|field| field.error.clone());
                    if let Some(error) = saved.err().or(refused) {
                        tracing::warn!(code = error.code(), %error, "what was typed is not saved");
                        if state.closed {
                            return;
                        }
                        // Tried again in time, and told with the next keystroke.
                        if let Some(waiting) = &mut state.waiting {
                            waiting.since = Instant::now();
                            waiting.latest = waiting.since + limits::TYPING_SAVED_EVERY;
                        }
                        state.error = Some(error);
                    }
                    state
                }
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, EditorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing<'_> {
    /// Writes what waits, if anything does, each field on the version that it starts from. A field that cannot be written holds no
    /// other back; it is tried again with the next value.
    pub(super) fn save(&self) -> Result<Outcome, WriteError> {
        let shared = self.shared;
        let (waiting, parts) = {
            let state = shared.state();
            let Some(waiting) = state.waiting.clone() else {
                let refused = state.refused.iter().map(|field| (field.name.clone(), field.error.clone()));
                return Ok(Outcome { refused: refused.collect() });
            };
            let parts = state.parts(&waiting.fields);
            (waiting, parts)
        };
        let fields: Vec<Vec<String>> = parts.iter().map(|(patch, _)| patch.fields()).collect();
        let written = match parts.is_empty() {
            true => Vec::new(),
            false => {
                let (collection, id) = (shared.collection.clone(), shared.id.clone());
                // A big text that was pasted or rewritten is compared while others write.
                let (patch, base) = match &parts[..] {
                    [(patch, version)] => (Some(patch), Some(version)),
                    _ => (None, None),
                };
                let (ahead, composed) = shared.replica.ahead(&collection, &id, patch, base, true);
                shared.replica.run_prepared(ahead, move |tx: Tx<'_>, core: &mut Core| {
                    core.offer(composed);
                    let write = |(patch, version): &(Patch, Version)| {
                        core.update_typed(tx, &collection, &id, patch, version)
                    };
                    parts.iter().map(write).collect::<Result<Vec<_>, _>>()
                })?
            }
        };
        let mut state = shared.state();
        let mut refused = Vec::new();
        for (typed, fields) in written.into_iter().zip(fields) {
            let is_refused = |name: &String| typed.refused.iter().any(|(field, _)| field == name);
            let saved: Vec<_> = fields.into_iter().filter(|name| !is_refused(name)).collect();
            state.note_saved(&saved, &waiting.fields, &typed.version);
            refused.extend(typed.refused);
        }
        let unsaved = |(name, error): &(String, WriteError)| {
            UnsavedField::new(name.clone(), &waiting.fields, error.clone())
        };
        state.refused = refused.iter().map(unsaved).collect();
        state.error = None;
        // A keystroke meanwhile waits for the next time.
        if state.waiting.as_ref().is_some_and(|newer| newer.number == waiting.number) {
            state.waiting = None;
        } else if let Some(newer) = &mut state.waiting {
            newer.since = newer.latest;
        }
        Ok(Outcome { refused })
    }

    /// The value is now what a version has, but for fields that could not be written: those go on from where they started.
    pub(super) fn go_on_from(&self, fields: Fields, version: Version, refused: &[(String, WriteError)]) {
        let mut state = self.shared.state();
        let mut apart = BTreeMap::new();
        for (name, _) in refused {
            let start = state.apart.remove(name).unwrap_or_else(|| Base {
                fields: state
                    .base
                    .fields
                    .get_key_value(name)
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .into_iter()
                    .collect(),
                version: state.base.version.clone(),
            });
            apart.insert(name.clone(), start);
        }
        state.apart = apart;
        state.base = Base { fields, version };
    }
}

impl EditorState {
    /// What has changed, by the versions that it starts from.
    fn parts(&self, fields: &Fields) -> Vec<(Patch, Version)> {
        let mut patch = diff(&self.base.fields, fields);
        let mut parts = Vec::new();
        for (name, start) in &self.apart {
            patch.take(name);
            parts.push((diff(&start.fields, fields).take(name), start.version.clone()));
        }
        parts.insert(0, (patch, self.base.version.clone()));
        parts.retain(|(patch, _)| !patch.is_empty());
        parts
    }

    /// Fields are written as they were typed, at a version that all of them started from.
    fn note_saved(&mut self, saved: &[String], typed: &Fields, version: &Version) {
        let apart = saved.first().filter(|name| self.apart.contains_key(*name));
        let base = match apart {
            Some(name) => self.apart.get_mut(name),
            None => Some(&mut self.base),
        };
        let Some(base) = base.filter(|_| !saved.is_empty()) else { return };
        base.version = version.clone();
        for name in saved {
            match typed.get(name) {
                Some(value) => _ = base.fields.insert(name.clone(), value.clone()),
                None => _ = base.fields.remove(name),
            }
        }
    }
}

impl UnsavedField {
    fn new(name: String, typed: &Fields, error: WriteError) -> Self {
        let value: Option<Json> = typed.get(&name).cloned();
        Self { name, value, error }
    }
}
