//! Rows of another database become changes that every device makes alike.

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, AutomergeError, Change, ReadDoc};
use serde_json::Value as Json;

use super::edit::{EditError, put_field};
use super::read::Fields;
use super::{Document, genesis};
use crate::schema::{CollectionSchema, FieldKind};

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
                (FieldKind::Counter, Json::Number(n)) => n.as_i64().map(genesis::Container::Counter),
                (FieldKind::List, Json::Array(items)) => Some(genesis::Container::List(items)),
                _ => None,
            };
            match container {
                Some(container) => changes.extend(genesis::changes(self.identity, key, container)?),
                None => _ = plain.insert(key.clone(), value.clone()),
            }
        }
        changes.push(self.row_change(&plain, updated_at)?);
        changes.retain(|change| !self.has_change(&change.hash()));
        self.am.apply_changes(changes.iter().cloned())?;
        self.shown = None;
        Ok(changes)
    }

    fn row_change(&self, row: &Fields, updated_at: i64) -> Result<Change, EditError> {
        let mut hash = blake3::Hasher::new_derive_key("motet 2026 adopted row v1");
        hash.update(&self.identity.space.0);
        hash.update(&self.identity.document.0);
        hash.update(Json::Object(row.clone()).to_string().as_bytes());
        let mut actor = updated_at.max(0).to_be_bytes().to_vec();
        actor.extend(&hash.finalize().as_bytes()[..16]);
        let mut am = Automerge::new();
        am.set_actor(ActorId::from(actor));
        let mut tx = am.transaction();
        // In the order of their names: the same field has the same place in every version of the row.
        let mut names: Vec<_> = row.keys().collect();
        names.sort();
        names.iter().try_for_each(|name| put_field(&mut tx, name, &row[*name]))?;
        let options = CommitOptions::default().with_time(updated_at / 1_000);
        let hash = if names.is_empty() {
            drop(tx);
            am.empty_commit(options)
        } else {
            tx.commit_with(options).0.ok_or(AutomergeError::Fail)?
        };
        Ok(am.get_change_by_hash(&hash).ok_or(AutomergeError::Fail)?)
    }
}
