//! Changes that come out equal on every device that makes them.
//!
//! Two devices that make the same document, or adopt the same rows, must not end up with two text objects of equal
//! words. A container is therefore made by a change of its own whose actor is derived from what it makes (sequence 1,
//! time 0): equal content is then the same change everywhere, and applying it twice does nothing. Different content
//! is a conflict between two objects, and the resolver shows the words of both.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, ObjType, ROOT, ReadDoc};

use super::Identity;

/// What a container starts with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Container<'a> {
    /// A text with this content.
    Text(&'a str),
    /// An empty map: its fields are registers of their own and merge by name.
    Map,
}

impl Container<'_> {
    pub(super) fn object_type(self) -> ObjType {
        match self {
            Container::Text(_) => ObjType::Text,
            Container::Map => ObjType::Map,
        }
    }
}

/// The change that makes `container` as field `key` of a document that has no such field yet. It depends on nothing.
pub(super) fn change(
    identity: Identity,
    key: &str,
    container: Container<'_>,
) -> Result<Change, AutomergeError> {
    let mut am = Automerge::new();
    am.set_actor(actor(identity, key, container, &[]));
    let mut tx = am.transaction();
    let object = tx.put_object(ROOT, key, container.object_type())?;
    if let Container::Text(content) = container {
        tx.splice_text(&object, 0, 0, content)?;
    }
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
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
    match container {
        Container::Text(content) => {
            hash.update(b"t");
            hash.update(&(content.len() as u64).to_le_bytes());
            hash.update(content.as_bytes());
        }
        Container::Map => {
            hash.update(b"m");
        }
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
        let text = change(identity, "lyrics", Container::Text("Aloha ʻoe\n")).unwrap();
        let map = change(identity, "meta", Container::Map).unwrap();
        assert_eq!(
            text.hash().to_string(),
            "3f1dcecebe5e6b27b09737a23b1a8fe7c3e2e1841c4bf62fe7bb724f23a46951"
        );
        assert_eq!(
            map.hash().to_string(),
            "60a025c7ef6ddaa3a0e5a50afeed67547a39fb6ae9e4f19f7e940c1ee1431254"
        );
    }
}
