//! What was made when, by whom.

use std::collections::{HashMap, HashSet};

use automerge::ChangeHash;
use motet_proto::DeviceId;

use super::{ADOPT, Document, TAKEN_UP, brings_back, is_end, time};

/// One change, as the history tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    /// The heads before it and before those changes that are a part of it, and the heads after it. A row is taken up field by field, by
    /// changes that know nothing of each other: before and after one of them stands all that the document held then.
    pub(crate) before: Vec<ChangeHash>,
    pub(crate) after: Vec<ChangeHash>,
    pub(crate) device: Option<DeviceId>,
    /// Milliseconds since 1970, by the clock of that device.
    pub(crate) time: i64,
    pub(crate) message: Option<String>,
    pub(crate) action: ChangeAction,
}

/// What a change does to its document as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeAction {
    Edit,
    Delete,
    Restore,
    /// Takes up a field of a row of another database.
    Adopt,
    /// Takes up what a row brings, alike on every device; part of the edit that follows.
    TakenUp,
    /// Makes a container, alike on every device; part of the edit that follows.
    Genesis,
}

impl Document {
    /// All changes, each after those it depends on.
    pub(crate) fn made(&self) -> Vec<Made> {
        let metas = self.am.get_changes_meta(&[]);
        // Containers are made on nothing, or on the empty container. Other changes that all devices make alike
        // (a text folded) belong to nobody, but something came before them.
        let mut genesis = HashSet::new();
        // What the document held so far; its containers first, since the changes of a row depend on none of them.
        let mut frontier: Vec<ChangeHash> = Vec::new();
        for meta in &metas {
            let is_nobodys = meta.timestamp == 0 && meta.author.is_none() && meta.message.is_none();
            if is_nobodys && meta.deps.iter().all(|dep| genesis.contains(dep)) {
                genesis.insert(meta.hash);
                advance(&mut frontier, meta.hash, &meta.deps);
            }
        }
        let mut taken_up: HashMap<ChangeHash, Vec<ChangeHash>> = HashMap::new();
        metas
            .into_iter()
            .map(|meta| {
                let is_genesis = genesis.contains(&meta.hash);
                let action = match meta.message.as_deref() {
                    _ if is_end(&meta) => ChangeAction::Delete,
                    message if brings_back(message) => ChangeAction::Restore,
                    Some(ADOPT) => ChangeAction::Adopt,
                    Some(TAKEN_UP) => ChangeAction::TakenUp,
                    _ if is_genesis => ChangeAction::Genesis,
                    _ => ChangeAction::Edit,
                };
                // A container that the change begins was not there before it.
                let deps = meta.deps.iter().filter(|dep| is_genesis || !genesis.contains(*dep));
                let before = deps.flat_map(|dep| taken_up.get(dep).cloned().unwrap_or_else(|| vec![*dep]));
                let mut before: Vec<_> = before.collect();
                let mut after = vec![meta.hash];
                let held = frontier.clone();
                if !is_genesis {
                    advance(&mut frontier, meta.hash, &meta.deps);
                }
                if action == ChangeAction::Adopt {
                    (before, after) = (held, frontier.clone());
                    after.sort_unstable();
                }
                if action == ChangeAction::TakenUp {
                    taken_up.insert(meta.hash, before.clone());
                }
                let author = meta.author.or_else(|| self.am.get_author_for_actor(&meta.actor));
                Made {
                    hash: meta.hash,
                    deps: meta.deps,
                    before,
                    after,
                    device: author.and_then(|author| DeviceId::from_slice(author.as_bytes())),
                    time: time::milliseconds(meta.timestamp),
                    message: meta
                        .message
                        .filter(|_| action == ChangeAction::Edit)
                        .map(|text| text.into_owned()),
                    action,
                }
            })
            .collect()
    }
}

/// Adds a change to the heads of those before it.
fn advance(heads: &mut Vec<ChangeHash>, hash: ChangeHash, deps: &[ChangeHash]) {
    heads.retain(|head| !deps.contains(head));
    heads.push(hash);
}
