//! Changes that come out equal on every device that makes them.
//!
//! Two devices that make the same document, or adopt the same rows, must not end up with two text objects of equal
//! words. A container is therefore made by a change of its own whose actor is derived from what it makes (sequence 1,
//! time 0): equal content is then the same change everywhere, and applying it twice does nothing. Different content
//! is a conflict between two objects, and the resolver shows the words of both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
    Value, legacy,
};
use serde_json::Value as Json;

use super::check::SET_MARK_VALUE;
use super::edit::{fill_list, put};
use super::read::{Reader, SET_MARK, element_key};
use super::{Document, Identity};
use crate::schema::CollectionSchema;

/// What a container starts with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Container<'a> {
    /// A text with this content.
    Text(&'a str),
    /// An empty map: its fields are registers of their own and merge by name.
    Map,
    /// A counter that starts here.
    Counter(i64),
    /// A set with these elements.
    Set(&'a [Json]),
    /// A list with these elements.
    List(&'a [Json]),
    /// An object with these fields, or a plain value.
    Value(&'a Json),
}

impl Container<'_> {
    /// Whether there is nothing in it yet, so that its content is a step of its own.
    pub(super) fn is_begun(self) -> bool {
        matches!(self, Container::Counter(0) | Container::List([]) | Container::Set([]))
    }

    /// Gives the empty container that is field `key` its content.
    pub(super) fn fill(self, tx: &mut Transaction<'_>, map: &ObjId, key: &str) -> Result<(), AutomergeError> {
        match self {
            Container::Counter(start) => tx.increment(map, key, start),
            Container::List(items) => match tx.get(map, key)? {
                Some((_, list)) => fill_list(tx, &list, 0, items),
                None => Err(AutomergeError::Fail),
            },
            Container::Set(elements) => match tx.get(map, key)? {
                Some((_, set)) => elements.iter().try_for_each(|e| tx.put(&set, element_key(e), true)),
                None => Err(AutomergeError::Fail),
            },
            Container::Text(_) | Container::Map | Container::Value(_) => Ok(()),
        }
    }

    /// Puts the container, with its content, as field `key`.
    pub(super) fn put(self, tx: &mut Transaction<'_>, map: &ObjId, key: &str) -> Result<(), AutomergeError> {
        match self {
            Container::Text(content) => {
                let text = tx.put_object(map, key, ObjType::Text)?;
                tx.splice_text(&text, 0, 0, content)
            }
            Container::Map => tx.put_object(map, key, ObjType::Map).map(drop),
            Container::Counter(start) => tx.put(map, key, ScalarValue::counter(start)),
            Container::Set(elements) => {
                let set = tx.put_object(map, key, ObjType::Map)?;
                tx.put(&set, SET_MARK, SET_MARK_VALUE)?;
                elements.iter().try_for_each(|element| tx.put(&set, element_key(element), true))
            }
            Container::List(items) => {
                let list = tx.put_object(map, key, ObjType::List)?;
                fill_list(tx, &list, 0, items)
            }
            Container::Value(value) => put(tx, map, key, value),
        }
    }
}

/// The changes that make `container` as field `key` of a document that has no such field yet. They depend on nothing.
///
/// Counters, lists and sets begin empty by one change and get their content by a second: whatever two devices begin with, it is one
/// counter, which adds up, and one list or set, which holds the elements of both.
pub(super) fn changes(
    identity: Identity,
    key: &str,
    container: Container<'_>,
) -> Result<Vec<Change>, AutomergeError> {
    changes_in(&mut Automerge::new(), identity, key, container)
}

/// The same, made in a document that is empty and holds them afterwards.
pub(super) fn changes_in(
    am: &mut Automerge,
    identity: Identity,
    key: &str,
    container: Container<'_>,
) -> Result<Vec<Change>, AutomergeError> {
    let empty = match container {
        Container::Counter(_) => Container::Counter(0),
        Container::List(_) => Container::List(&[]),
        Container::Set(_) => Container::Set(&[]),
        whole => whole,
    };
    let mut changes = vec![commit(am, actor(identity, key, empty, &[]), 0, |tx| empty.put(tx, &ROOT, key))?];
    if empty.is_begun() && !container.is_begun() {
        let actor = actor(identity, key, container, &[]);
        changes.push(commit(am, actor, 0, |tx| container.fill(tx, &ROOT, key))?);
    }
    Ok(changes)
}

impl Document {
    /// Whether a change is a container, or its first content, exactly as every device makes it: what it holds is made once more and compared.
    pub(super) fn is_genesis(&self, change: &Change) -> bool {
        if change.seq() != 1
            || change.timestamp() != 0
            || change.message().is_some()
            || change.deps().len() > 1
        {
            return false;
        }
        let base = match change.deps().first().map(|dep| self.am.get_change_by_hash(dep)) {
            Some(None) => return false,
            Some(Some(base)) if !base.deps().is_empty() || !self.is_genesis(&base) => return false,
            base => base.flatten(),
        };
        let is_filled = base.is_some();
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut am = Automerge::new();
            am.apply_changes(base.into_iter().chain([change.clone()])).ok()?;
            let keys: Vec<String> = am.keys(ROOT).collect();
            let [key] = &keys[..] else { return None };
            let held = Held::read(&am, key, is_filled.then_some(change))?;
            changes(self.identity, key, held.container()).ok()?.pop()
        }));
        made.ok().flatten().is_some_and(|made| made.hash() == change.hash())
    }
}

/// What a container holds.
enum Held {
    Text(String),
    Map,
    Counter(i64),
    Set(Vec<Json>),
    List(Vec<Json>),
}

impl Held {
    /// `filled`: the change that gave it its content, in which the elements of a set stand in their order.
    fn read(am: &Automerge, key: &str, filled: Option<&Change>) -> Option<Self> {
        let (value, id) = am.get(ROOT, key).ok()??;
        let no_schema = CollectionSchema::default();
        let reader = Reader { am, heads: None, schema: &no_schema };
        Some(match value {
            Value::Object(ObjType::Text) => Self::Text(am.text(&id).ok()?),
            Value::Object(ObjType::List) => Self::List(reader.json(&value, &id).as_array()?.clone()),
            Value::Object(ObjType::Map) if am.get(&id, SET_MARK).ok()?.is_some() => {
                let operations = filled.map(|change| change.decode().operations).unwrap_or_default();
                let elements = operations.into_iter().filter_map(|operation| match operation.key {
                    legacy::Key::Map(key) => serde_json::from_str(&key).ok(),
                    legacy::Key::Seq(_) => None,
                });
                Self::Set(elements.collect())
            }
            Value::Object(ObjType::Map) => Self::Map,
            Value::Scalar(_) if value.is_counter() => Self::Counter(reader.json(&value, &id).as_i64()?),
            _ => return None,
        })
    }

    fn container(&self) -> Container<'_> {
        match self {
            Self::Text(text) => Container::Text(text),
            Self::Map => Container::Map,
            Self::Counter(number) => Container::Counter(*number),
            Self::Set(elements) => Container::Set(elements),
            Self::List(items) => Container::List(items),
        }
    }
}

/// Commits an edit under an actor, as of a time.
pub(super) fn commit(
    am: &mut Automerge,
    actor: ActorId,
    time: i64,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Result<Change, AutomergeError> {
    am.set_actor(actor);
    let mut tx = am.transaction();
    edit(&mut tx)?;
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(time));
    hash.and_then(|hash| am.get_change_by_hash(&hash)).ok_or(AutomergeError::Fail)
}

/// The actor of a deterministic change. `at` are the heads it is made at, if it is not a genesis: the same content
/// made at the same heads is then the same change, and made elsewhere another actor's.
pub(super) fn actor(identity: Identity, path: &str, container: Container<'_>, at: &[ChangeHash]) -> ActorId {
    let mut hash = blake3::Hasher::new_derive_key("motet 2026 genesis actor v1");
    hash.update(&identity.space.0);
    hash.update(&identity.document.0);
    hash.update(&(path.len() as u64).to_le_bytes());
    hash.update(path.as_bytes());
    let mut content = |tag: &[u8], content: &[u8]| {
        hash.update(tag);
        hash.update(&(content.len() as u64).to_le_bytes());
        hash.update(content);
    };
    let json = |items: &[Json]| items.iter().map(element_key).collect::<Vec<_>>().join(",");
    match container {
        Container::Text(text) => content(b"t", text.as_bytes()),
        Container::Map => _ = hash.update(b"m"),
        Container::Value(value) => content(b"v", value.to_string().as_bytes()),
        Container::Counter(start) => content(b"c", &start.to_le_bytes()),
        Container::Set(elements) => content(b"s", json(elements).as_bytes()),
        Container::List(items) => content(b"l", json(items).as_bytes()),
    }
    at.iter().for_each(|head| _ = hash.update(&head.0));
    ActorId::from(&hash.finalize().as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use motet_proto::{DocumentId, SpaceId};

    /// Devices of all versions must agree on these bytes, or equal texts appear twice.
    #[test]
    fn golden_genesis() {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", "aloha-oe");
        let identity = Identity { space: SpaceId::DEFAULT, document };
        let text = changes(identity, "lyrics", Container::Text("Aloha ʻoe\n")).unwrap().remove(0);
        let map = changes(identity, "meta", Container::Map).unwrap().remove(0);
        assert_eq!(
            text.hash().to_string(),
            "3f1dcecebe5e6b27b09737a23b1a8fe7c3e2e1841c4bf62fe7bb724f23a46951"
        );
        assert_eq!(
            map.hash().to_string(),
            "60a025c7ef6ddaa3a0e5a50afeed67547a39fb6ae9e4f19f7e940c1ee1431254"
        );
    }

    #[test]
    fn what_every_device_makes_is_known_from_what_somebody_made_up() {
        let identity = Identity {
            space: SpaceId::DEFAULT,
            document: DocumentId::derive(SpaceId::DEFAULT, "pieces", "1"),
        };
        let items = [Json::from("ʻekahi"), Json::from(2), serde_json::json!({ "a": [1] })];
        let scalars = [Json::from("b"), Json::from("a"), Json::from(true), Json::from(-3)];
        for container in [
            Container::Text("mele"),
            Container::Text(""),
            Container::Map,
            Container::Counter(0),
            Container::Counter(-5),
            Container::Set(&[]),
            Container::Set(&scalars),
            Container::List(&[]),
            Container::List(&items),
        ] {
            let mut document = Document::new(identity);
            let made = changes(identity, "field", container).unwrap();
            document.am.apply_changes(made.clone()).unwrap();
            assert!(made.iter().all(|change| document.is_genesis(change)), "{container:?}");
            // The same actor with something else.
            let last = made.last().unwrap();
            let mut am = Automerge::new();
            am.apply_changes(made[..made.len() - 1].to_vec()).unwrap();
            let forged =
                commit(&mut am, last.actor_id().clone(), 0, |tx| tx.put(ROOT, "field", "forged")).unwrap();
            assert!(!document.is_genesis(&forged), "{container:?}");
        }
    }

    #[test]
    fn made_in_an_empty_document_it_is_the_same_change() {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", "1");
        let identity = Identity { space: SpaceId::DEFAULT, document };
        let items = [Json::from("ʻekahi"), Json::from(2)];
        for container in
            [Container::Text("mele"), Container::Counter(5), Container::List(&items), Container::Map]
        {
            let apart = changes(identity, "field", container).unwrap();
            let mut am = Automerge::new();
            let inside = changes_in(&mut am, identity, "field", container).unwrap();
            let bytes =
                |changes: &[Change]| changes.iter().map(|c| c.raw_bytes().to_vec()).collect::<Vec<_>>();
            assert_eq!(bytes(&apart), bytes(&inside));
        }
    }
}
