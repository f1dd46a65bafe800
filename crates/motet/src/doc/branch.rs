//! Somebody who writes on an older version usually goes on where he was: what an editor shows is behind what has been merged meanwhile. Automerge
//! writes on an older version by leaving out, at each step, everything that is not part of it. So the version is kept as a document of its own
//! once a second edit is made on it, and the edits are made there, as long as they go on; what others have made of the text since is looked for
//! once, and not again for each character.

use std::collections::HashSet;
use std::sync::Arc;

use automerge::{Change, ChangeHash, ObjId, ROOT, ReadDoc};

use super::apart::{Edited, are_edits_apart, edited, moved};
use super::edit::{Edit, EditError};
use super::{Document, brings_back, is_end, time};
use crate::limits;
use crate::types::TextEdit;

/// Where somebody writes who does not write on top of all that there is.
#[derive(Clone)]
pub(super) enum Branch {
    /// One edit has been made there, which ends in this version.
    Once(Vec<ChangeHash>),
    /// More have been made there.
    Kept(Arc<KeptBranch>),
}

/// An older version that edits are made on.
#[derive(Clone)]
pub(super) struct KeptBranch {
    document: Document,
    /// The text that was edited last, if all edits were far from those of others.
    text: Option<EditedText>,
}

/// A text of an older version, and what others have made of it since.
#[derive(Clone)]
struct EditedText {
    /// The whole document after the last edit: what arrives later is not in `others`.
    heads: Vec<ChangeHash>,
    /// Name under which the document keeps the field.
    key: String,
    id: ObjId,
    /// As it stands in the older version.
    content: String,
    /// In characters of `content`.
    others: Vec<Edited>,
}

/// Edits of a text, as they were made.
pub(crate) struct TextEditsMade {
    pub(crate) changes: Vec<Change>,
    /// The same edits of the text as it shows; `None` if that has to be read again.
    pub(crate) shown: Option<Vec<TextEdit>>,
}

impl Branch {
    /// Operations that are held for it.
    pub(super) fn operations(&self) -> u64 {
        match self {
            Self::Once(_) => 0,
            Self::Kept(kept) => kept.document.operations(),
        }
    }
}

impl Document {
    /// Edits a text on the older version `base`, if that goes on from an edit before; `None` if it does not. After an error nothing has changed.
    pub(super) fn edit_text_on_branch(
        &mut self,
        edit: &Edit<'_>,
        base: &[ChangeHash],
        field: &str,
        edits: &[TextEdit],
    ) -> Result<Option<TextEditsMade>, EditError> {
        let Some(KeptBranch { document: mut branch, text }) = self.branch_at(base)? else { return Ok(None) };
        let key = self.reader(edit.schema, None).stored_name(field).to_owned();
        let is_going_on = |text: &EditedText| text.key == key && self.is_at(&text.heads);
        let text = text.filter(is_going_on).or_else(|| self.text_of_branch(edit, &branch, base, key));
        // Also of what it is not built on: who writes on an older version has seen the rest.
        let time = time::after(&self.am, &self.am.get_heads(), edit.time);
        let on_branch = Edit { base: None, time, ..edit.clone() };
        let mut changes = branch.edit_text_at(&on_branch, field, edits, None)?;
        // What every device makes alike may be here already.
        changes.retain(|change| !self.has_change(&change.hash()));
        self.am.apply_changes(changes.iter().cloned())?;
        self.shown = None;
        self.note_lifecycle(&changes);
        let followed = text.filter(|_| changes.len() == 1).and_then(|mut text| {
            let shown = text.follow(edits)?;
            text.heads = self.heads();
            let stands = |document: &Self| document.is_one_text(edit, &text.key, &text.id);
            (stands(self) && stands(&branch)).then_some((text, shown))
        });
        let (text, shown) = followed.unzip();
        self.branch = Some(Branch::Kept(Arc::new(KeptBranch { document: branch, text })));
        Ok(Some(TextEditsMade { changes, shown }))
    }

    /// An edit was made on the older version `base`: the next may be made on what came of it.
    pub(super) fn note_branch(&mut self, base: &[ChangeHash], changes: &[Change]) {
        let mut heads: Vec<ChangeHash> =
            base.iter().copied().chain(changes.iter().map(Change::hash)).collect();
        heads.retain(|head| !changes.iter().any(|change| change.deps().contains(head)));
        self.branch = Some(Branch::Once(heads));
    }

    /// Whether the document is as the last edit of a text on an older version has left it, which was far from all that others have made of it:
    /// there is nothing to reconcile.
    pub(super) fn is_edited_apart(&self, applied: &[Change]) -> bool {
        let Some(Branch::Kept(kept)) = &self.branch else { return false };
        let [change] = applied else { return false };
        kept.document.heads() == [change.hash()]
            && kept.text.as_ref().is_some_and(|text| self.is_at(&text.heads))
    }

    /// What is to be known of a text of an older version to tell whether edits of it are far from those of others.
    fn text_of_branch(
        &self,
        edit: &Edit<'_>,
        branch: &Self,
        base: &[ChangeHash],
        key: String,
    ) -> Option<EditedText> {
        let texts = branch.reader(edit.schema, None).texts(&ROOT, &key);
        let [id] = &texts[..] else { return None };
        // Nothing but edits: no delete, and nobody has brought it back.
        let metas = self.am.get_changes_meta(base);
        if metas.iter().any(|meta| is_end(meta) || brings_back(meta.message.as_deref())) {
            return None;
        }
        if !self.is_one_text(edit, &key, id) || !branch.is_one_text(edit, &key, id) {
            return None;
        }
        let heads = self.heads();
        let others = edited(&self.am, id, base, &heads)?;
        let content = branch.am.text(id).ok()?;
        Some(EditedText { heads, id: id.clone(), key, content, others })
    }

    fn is_one_text(&self, edit: &Edit<'_>, key: &str, id: &ObjId) -> bool {
        let reader = self.reader(edit.schema, None);
        let names = reader.holding_names(reader.shown_name(key));
        names.iter().all(|name| *name == key)
            && reader.values(&ROOT, key).len() == 1
            && reader.texts(&ROOT, key) == std::slice::from_ref(id)
    }

    /// The document at `base`, if edits go on there.
    fn branch_at(&mut self, base: &[ChangeHash]) -> Result<Option<KeptBranch>, EditError> {
        let branch = self.branch.take();
        match branch.filter(|_| self.am.stats().num_ops <= limits::BRANCH_OPERATIONS) {
            Some(Branch::Kept(kept)) => {
                let mut kept = Arc::unwrap_or_clone(kept);
                if !kept.document.is_at(base) {
                    kept.text = None;
                }
                Ok(self.brought_to(&mut kept.document, base).then_some(kept))
            }
            Some(Branch::Once(heads)) if self.knows_all(base, &heads) => {
                let document = Self::of(self.am.fork_at(base)?, self.identity);
                Ok(Some(KeptBranch { document, text: None }))
            }
            Some(Branch::Once(_)) | None => Ok(None),
        }
    }

    fn knows_all(&self, base: &[ChangeHash], heads: &[ChangeHash]) -> bool {
        let known = self.known_at(base);
        heads.iter().all(|head| known.has(head))
    }

    /// Brings a document that is at an earlier version to `base`. False if that is another line, or too far.
    fn brought_to(&self, branch: &mut Self, base: &[ChangeHash]) -> bool {
        let (mut lacking, mut open) = (HashSet::new(), base.to_vec());
        while let Some(hash) = open.pop() {
            if branch.has_change(&hash) || !lacking.insert(hash) {
                continue;
            }
            if lacking.len() > limits::BRANCH_CHANGES {
                return false;
            }
            open.extend(self.am.get_change_meta_by_hash(&hash).into_iter().flat_map(|meta| meta.deps));
        }
        if !lacking.is_empty() {
            let mut changes = self.am.get_changes(&branch.heads());
            changes.retain(|change| lacking.contains(&change.hash()));
            branch.shown = None;
            if branch.am.apply_changes(changes).is_err() {
                return false;
            }
        }
        branch.is_at(base)
    }
}

impl EditedText {
    /// Takes in edits that were made of it: the same edits of the text with what others have made of it. `None` if one of them is near to what
    /// others have edited.
    fn follow(&mut self, edits: &[TextEdit]) -> Option<Vec<TextEdit>> {
        let mut shown = Vec::with_capacity(edits.len());
        for edit in edits {
            let own = edit.position..edit.position.checked_add(edit.delete)?;
            if !are_edits_apart(&self.content, &own, &self.others) {
                return None;
            }
            shown.push(TextEdit { position: moved(own.start, &self.others), ..edit.clone() });
            let byte =
                |at: usize| self.content.char_indices().nth(at).map_or(self.content.len(), |(byte, _)| byte);
            self.content.replace_range(byte(own.start)..byte(own.end), &edit.insert);
            let inserted = edit.insert.chars().count();
            for other in self.others.iter_mut().filter(|other| other.old.start >= own.end) {
                let after = |at: usize| at - edit.delete + inserted;
                other.old = after(other.old.start)..after(other.old.end);
            }
        }
        Some(shown)
    }
}
