//! Rows of another database become changes that every device makes alike.

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, AutomergeError, Change, ReadDoc};
use serde_json::Value as Json;

use super::edit::{Edit, EditError, put_field};
use super::read::Fields;
use super::{ADOPT, Document, genesis, time};
use crate::schema::{CollectionSchema, FieldKind, is_count};

impl Document {
    /// Takes up a row as it was at `updated_at` (milliseconds since 1970): equal rows are equal changes on every device. Of
    /// rows that differ the later one wins, because its actor sorts after the other's. Returns the changes that are new.
    pub(crate) fn adopt(
        &mut self,
        schema: &CollectionSchema,
        row: &Fields,
        updated_at: i64,
    ) -> Result<Vec<Change>, EditError> {
        let mut changes = Vec::new();
        let mut plain = Fields::new();
        for (key, value) in row {
            let container = match (schema.kind(key), value) {
                (FieldKind::Text, Json::String(text)) => Some(genesis::Container::Text(text)),
                (FieldKind::Set, Json::Array(items)) => Some(genesis::Container::Set(items)),
                (FieldKind::Counter, Json::Number(n)) => {
                    let count = n.as_i64().filter(|count| is_count(*count));
                    let count = count.ok_or_else(|| EditError::OutOfCount(key.clone()))?;
                    Some(genesis::Container::Counter(count))
                }
                (FieldKind::List, Json::Array(items)) => Some(genesis::Container::List(items)),
                _ => None,
            };
            match container {
                Some(container) => changes.extend(genesis::changes(self.identity, key, container)?),
                None => _ = plain.insert(key.clone(), value.clone()),
            }
        }
        // Equal contents are equal changes, in whatever order a row names its fields.
        let mut begun: Vec<String> = changes.iter().map(|change| change.hash().to_string()).collect();
        begun.sort_unstable();
        // A change each: the place of an op must not depend on what else the row holds, or the later row would not win.
        for (name, value) in &plain {
            changes.push(self.field_change(name, value, updated_at)?);
        }
        // Containers are made at no time and by nobody: somebody has to say how new the row is. Who adopts another row says
        // something else, so that a delete which has not seen that row does not count as if it had.
        if plain.is_empty() || !begun.is_empty() {
            changes.push(self.field_change("", &begun.into(), updated_at)?);
        }
        changes.retain(|change| !self.has_change(&change.hash()));
        self.am.apply_changes(changes.iter().cloned())?;
        self.shown = None;
        Ok(changes)
    }

    /// Takes up what is new in a later row: every device that knows the same history of a field makes the same change of it.
    /// Returns the changes that are new.
    pub(crate) fn adopt_newer(
        &mut self,
        edit: &Edit<'_>,
        set: &Fields,
        updated_at: i64,
    ) -> Result<Vec<Change>, EditError> {
        let edit = Edit { time: updated_at, message: Some(ADOPT), ..edit.clone() };
        let mut changes = self.write_alike(&edit, set, &updated_at.max(0).to_be_bytes())?;
        if !changes.is_empty() && !changes.iter().any(|change| change.message() == Some(ADOPT)) {
            let mark = self.field_change("", &Json::Null, updated_at)?;
            if !self.has_change(&mark.hash()) {
                self.am.apply_changes([mark.clone()])?;
                changes.push(mark);
            }
        }
        Ok(changes)
    }

    /// When somebody last wrote in it, in milliseconds since 1970.
    pub(crate) fn written_at(&self) -> Option<i64> {
        self.made().iter().map(|made| time::made_at(&self.am, &made.hash)).max()
    }

    fn field_change(&self, name: &str, value: &Json, updated_at: i64) -> Result<Change, EditError> {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 adopted row v1");
        hash.update(&self.identity.space.0);
        hash.update(&self.identity.document.0);
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(value.to_string().as_bytes());
        let mut actor = updated_at.max(0).to_be_bytes().to_vec();
        actor.extend(&hash.finalize().as_bytes()[..16]);
        let time = time::in_milliseconds(updated_at);
        let mut am = Automerge::new();
        am.set_actor(ActorId::from(actor));
        let mut tx = am.transaction();
        if name.is_empty() {
            // No field of its own: a change without ops.
            drop(tx);
            let options = CommitOptions::default().with_time(time).with_message(ADOPT);
            let hash = am.empty_commit(options);
            return Ok(am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?);
        }
        put_field(&mut tx, name, value)?;
        let options = CommitOptions::default().with_time(time).with_message(ADOPT);
        let hash = tx.commit_with(options).0.ok_or(AutomergeError::Fail)?;
        Ok(am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?)
    }
}
