//! Where foreign bytes meet the merge, without a store in between: for fuzzing.

use motet_proto::payload::Payload;
use motet_proto::{DocumentId, Entry, Kind, SpaceId, envelope};

use crate::doc::{
    Change, ChangeHash, Document, Fields, Identity, MergeOutcome, check_snapshot, heads_of, load_snapshot,
    split_changes, split_headers,
};
use crate::schema::{CollectionSchema, FieldKind, Schema};

/// Hashes of the changes in an entry; `None` if it cannot be read.
pub fn changes_in(entry: &Entry) -> Option<Vec<[u8; 32]>> {
    let opened = envelope::open(entry.suite, &entry.payload).ok()?;
    let body = Payload::decode(&opened, SpaceId::DEFAULT, entry.document).ok()?.body;
    let changes = match &entry.kind {
        Kind::Changes => split_changes(&body).ok()?,
        Kind::Snapshot { heads, .. } => {
            let identity = Identity { space: SpaceId::DEFAULT, document: entry.document };
            load_snapshot(identity, &body, heads, &CollectionSchema::default()).ok()?.changes().ok()?
        }
        Kind::Erased | Kind::Other(_) => return None,
    };
    Some(changes.iter().map(|change| change.hash().0).collect())
}

/// A document that fuzzed changes are merged into.
pub struct Target {
    identity: Identity,
    /// Original bytes of its changes.
    base: Vec<u8>,
    schema: CollectionSchema,
}

impl Target {
    /// The document whose changes are `base`.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn new(base: &[u8]) -> Self {
        let identity = Identity {
            space: SpaceId::DEFAULT,
            document: DocumentId::derive(SpaceId::DEFAULT, "pieces", "fuzz"),
        };
        let schema = Schema::new().text("pieces", "lyrics").field("pieces", "plays", FieldKind::Counter);
        let schema = schema.collections.get("pieces").cloned().unwrap_or_default();
        Self { identity, base: base.to_vec(), schema }
    }

    /// Reads headers as a receiver does that only shows a document. Headers that can be read cover all bytes.
    pub fn read_headers(&self, bytes: &[u8]) {
        if let Ok(headers) = split_headers(bytes) {
            assert_eq!(headers.iter().map(|header| header.bytes.len()).sum::<usize>(), bytes.len());
            _ = heads_of(&headers);
        }
        _ = check_snapshot(bytes);
    }

    /// Merges foreign changes. Whatever they are: what was there is still there or handed out because it lost in a collision, it is shown as
    /// before unless something was applied, and the document can be loaded again from what is kept.
    pub fn merge(&self, bytes: &[u8]) {
        let Ok(changes) = split_changes(bytes) else { return };
        let (mut document, before) = self.document();
        let heads = document.heads();
        let outcome = document.merge(changes, &self.schema);
        if outcome.applied.is_empty() {
            assert_eq!(document.heads(), heads, "nothing was applied, and the heads moved");
            assert_eq!(document.take_shown(&self.schema).fields, before);
        }
        let displaced = outcome.displaced.iter().flat_map(|displaced| &displaced.changes);
        let displaced: Vec<_> = displaced.map(Change::hash).collect();
        let is_known = |head: &ChangeHash| document.has_change(head) || displaced.contains(head);
        assert!(heads.iter().all(is_known), "what was there is gone");
        self.check_stored(&mut document, outcome);
    }

    /// Loads a foreign snapshot and merges what it has.
    pub fn load(&self, bytes: &[u8], heads: &[[u8; 32]]) {
        let Ok(snapshot) = load_snapshot(self.identity, bytes, heads, &self.schema) else { return };
        let (mut document, _) = self.document();
        let Ok(lacking) = document.lacking(&snapshot) else { return };
        let outcome = document.merge(lacking, &self.schema);
        self.check_stored(&mut document, outcome);
    }

    /// The store keeps original bytes; a document is what they lead to. A saved form is only used where it loads: there are changes
    /// that merge well and cannot be saved.
    fn check_stored(&self, document: &mut Document, outcome: MergeOutcome) {
        let mut all = split_changes(&self.base).unwrap_or_default();
        all.extend(outcome.applied);
        let displaced = outcome.displaced.map(|displaced| displaced.changes).unwrap_or_default();
        all.retain(|change| displaced.iter().all(|gone| gone.hash() != change.hash()));
        let all = all.iter().map(|change| change.raw_bytes().to_vec()).collect::<Vec<_>>();
        let loaded = Document::load_foreign(self.identity, None, &all, &self.schema);
        let mut loaded = loaded.unwrap_or_else(|reason| panic!("what was merged cannot be loaded: {reason}"));
        assert_eq!(loaded.heads(), document.heads());
        assert_eq!(loaded.take_shown(&self.schema).fields, document.take_shown(&self.schema).fields);
        if let Some(saved) = document.save_checked() {
            let heads: Vec<_> = document.heads().iter().map(|head| head.0).collect();
            assert!(
                load_snapshot(self.identity, &saved, &heads, &self.schema).is_ok(),
                "it is saved and not taken"
            );
        }
    }

    fn document(&self) -> (Document, Fields) {
        let changes = split_changes(&self.base).unwrap_or_else(|error| panic!("the base: {error}"));
        let mut document = Document::new(self.identity);
        let outcome = document.merge(changes, &self.schema);
        assert!(outcome.rejected.is_empty());
        let shown = document.take_shown(&self.schema).fields;
        (document, shown)
    }
}
