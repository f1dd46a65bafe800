//! The same trace with bare Automerge, in memory: nothing stored, nothing sent.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjId, ObjType, PatchLog, ROOT, ReadDoc};

use crate::trace::Trace;

/// What bare Automerge took.
pub(crate) struct Bare {
    /// Making the edits, each a change, at the versions that their parents name.
    pub(crate) writing: Duration,
    /// Passing changes between the devices.
    pub(crate) merging: Duration,
    /// All changes, applied in one call to the text as it was at first.
    pub(crate) applying: Duration,
    pub(crate) changes: usize,
    /// The saved document, loaded.
    pub(crate) loading: Duration,
    pub(crate) saved_bytes: usize,
    pub(crate) text: String,
}

pub(crate) fn replay(trace: &Trace) -> Bare {
    let (first, text) = begin(&trace.start);
    let start = first.get_heads();
    let mut devices: Vec<Automerge> = (0..trace.agents)
        .map(|agent| first.fork().with_actor(ActorId::from((agent as u64 + 1).to_be_bytes())))
        .collect();
    let (mut writing, mut merging) = (Duration::ZERO, Duration::ZERO);
    let mut made: Vec<ChangeHash> = Vec::with_capacity(trace.steps.len());
    for step in &trace.steps {
        let mut base: Vec<ChangeHash> = step.parents.iter().map(|parent| made[*parent]).collect();
        if base.is_empty() {
            base.clone_from(&start);
        }
        let begun = Instant::now();
        for parent in &step.parents {
            let hash = made[*parent];
            if devices[step.agent].get_change_by_hash(&hash).is_none() {
                let other = trace.steps[*parent].agent;
                let changes = devices[other].get_changes(&devices[step.agent].get_heads());
                devices[step.agent].apply_changes(changes).unwrap();
            }
        }
        merging += begun.elapsed();
        let begun = Instant::now();
        made.push(edit(&mut devices[step.agent], &text, &base, step));
        writing += begun.elapsed();
    }
    let begun = Instant::now();
    let (one, others) = devices.split_first_mut().unwrap();
    others.iter_mut().for_each(|other| _ = one.merge(other).unwrap());
    merging += begun.elapsed();
    let shown = one.text(&text).unwrap();
    let changes: Vec<Change> = one.get_changes(&start);
    let count = changes.len();
    let mut away = first.fork();
    let begun = Instant::now();
    away.apply_changes(changes).unwrap();
    let applying = begun.elapsed();
    assert_eq!(away.get_heads(), one.get_heads());
    let saved = one.save();
    let begun = Instant::now();
    let loaded = Automerge::load(&saved).unwrap();
    let loading = begun.elapsed();
    assert_eq!(loaded.get_heads(), one.get_heads());
    let saved_bytes = saved.len();
    Bare { writing, merging, applying, changes: count, loading, saved_bytes, text: shown }
}

fn begin(start: &str) -> (Automerge, ObjId) {
    let mut first = Automerge::new().with_actor(ActorId::from(0_u64.to_be_bytes()));
    let mut tx = first.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, start).unwrap();
    tx.commit();
    (first, text)
}

fn edit(device: &mut Automerge, text: &ObjId, base: &[ChangeHash], step: &crate::trace::Step) -> ChangeHash {
    let heads = device.get_heads();
    let is_current = heads.len() == base.len() && heads.iter().all(|head| base.contains(head));
    let mut tx = match is_current {
        true => device.transaction(),
        false => {
            device.transaction_at(PatchLog::inactive(), base).unwrap_or_else(|_| panic!("no such version"))
        }
    };
    for edit in &step.edits {
        tx.splice_text(text, edit.position, edit.delete as isize, &edit.insert).unwrap();
    }
    // A step without edits stands for all that it is made on.
    let (hash, _) = tx.commit();
    hash.unwrap_or_else(|| device.empty_commit(automerge::transaction::CommitOptions::default()))
}
