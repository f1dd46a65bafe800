//! What was made when, by whom.

use std::collections::HashSet;

use automerge::ChangeHash;
use motet_proto::DeviceId;

use super::{ADOPT, Document, PURGE, RESTORE, TOMBSTONE, time};

/// One change, as the history tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) device: Option<DeviceId>,
    /// Seconds since 1970, by the clock of that device.
    pub(crate) time: i64,
    pub(crate) message: Option<String>,
    pub(crate) deed: Deed,
}

/// What a change does to its document as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Edit,
    Delete,
    Restore,
    /// Takes up a field of a row of another database.
    Adopt,
    /// Makes a container, alike on every device; part of the edit that follows.
    Genesis,
}

impl Document {
    /// All changes, each after those it depends on.
    pub(crate) fn made(&self) -> Vec<Made> {
        let metas = self.am.get_changes_meta(&[]);
        let mut genesis = HashSet::new();
        metas
            .into_iter()
            .map(|meta| {
                // Containers are made on nothing, or on the empty container. Other changes that all devices make alike
                // (a text folded) belong to nobody, but something came before them.
                let is_genesis = meta.timestamp == 0
                    && meta.author.is_none()
                    && meta.message.is_none()
                    && meta.deps.iter().all(|dep| genesis.contains(dep));
                if is_genesis {
                    genesis.insert(meta.hash);
                }
                let deed = match meta.message.as_deref() {
                    Some(TOMBSTONE | PURGE) => Deed::Delete,
                    Some(RESTORE) => Deed::Restore,
                    Some(ADOPT) => Deed::Adopt,
                    _ if is_genesis => Deed::Genesis,
                    _ => Deed::Edit,
                };
                let author = meta.author.or_else(|| self.am.get_author_for_actor(&meta.actor));
                Made {
                    hash: meta.hash,
                    deps: meta.deps,
                    device: author.and_then(|author| DeviceId::from_slice(author.as_bytes())),
                    time: time::milliseconds(meta.timestamp) / 1_000,
                    message: meta.message.filter(|_| deed == Deed::Edit).map(|text| text.into_owned()),
                    deed,
                }
            })
            .collect()
    }
}
