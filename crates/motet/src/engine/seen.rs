//! Writes on a version that does not say all that their writer saw.
//!
//! A record, or an editor, knows which version of a document it was read as, and what it showed. Where a field stayed on this device
//! then, or stays here now, the version alone does not tell what its writer saw of it. Of such a field what the writer has changed is
//! carried over to what is there now.

use super::{Loaded, Patch};
use crate::doc::{ChangeHash, carried_over};
use crate::schema::FieldKind;

/// Whether two values of a field of this kind are brought together.
pub(super) fn merges(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Text | FieldKind::Counter | FieldKind::Set | FieldKind::List)
}

impl Loaded {
    /// The fields of a patch on the version `base` that merge by what they are declared to be, and whose writer saw something else than
    /// that version has.
    pub(super) fn seen_otherwise(&self, patch: &Patch, base: &[ChangeHash]) -> Vec<String> {
        let Some(seen) = &patch.seen else { return Vec::new() };
        if base.iter().any(|head| !self.document.has_change(head)) {
            // It is refused when it is written.
            return Vec::new();
        }
        let is_current = base.len() == self.row.heads.len()
            && self.row.heads.iter().all(|head| base.contains(&ChangeHash(*head)));
        let is_seen = |name: &String| {
            let saw = seen.get(name);
            match self.schema.is_device_local(name) || is_current && !base.is_empty() {
                true => saw == self.fields.get(name),
                false => !base.is_empty() && saw == self.document.field_at(&self.schema, name, base).as_ref(),
            }
        };
        let mut fields = patch.fields();
        fields.retain(|name| merges(self.schema.kind(name)) && !is_seen(name));
        fields
    }

    /// Carries over what the writer of `patch` has changed in these fields to what is there now. Those that stay on this device are
    /// changed in `patch`; the others are taken out of it, and returned to be written on top of what there is.
    pub(super) fn carry_over(&self, patch: &mut Patch, fields: &[String]) -> Patch {
        let mut anew = Patch::default();
        for name in fields {
            let mut part = patch.take(name);
            let saw = part.seen.as_ref().and_then(|seen| seen.get(name));
            for value in part.set.values_mut() {
                *value = carried_over(self.schema.kind(name), saw, value, self.fields.get(name));
            }
            let to = if self.schema.is_device_local(name) { &mut *patch } else { &mut anew };
            to.set.extend(part.set);
            to.remove.extend(part.remove);
        }
        anew
    }
}
