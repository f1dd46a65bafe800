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
    /// Looks at the fields of `patch`, which was made on the version `base`, that merge by what they are declared to be, and whose
    /// writer saw something else than that version has. Those that stay on this device are carried over in `patch`; the others are taken
    /// out of it, and returned to be written on top of what there is.
    pub(super) fn carry_over(&self, patch: &mut Patch, base: &[ChangeHash]) -> Patch {
        let mut anew = Patch::default();
        let Some(seen) = patch.seen.take() else { return anew };
        if base.iter().any(|head| !self.document.has_change(head)) {
            // It is refused when it is written.
            return anew;
        }
        let is_current = base.len() == self.row.heads.len()
            && self.row.heads.iter().all(|head| base.contains(&ChangeHash(*head)));
        for name in patch.fields().into_iter().filter(|name| merges(self.schema.kind(name))) {
            let (saw, now) = (seen.get(&name), self.fields.get(&name));
            let is_kept = self.schema.keeps(&name);
            let is_seen = match is_kept || is_current && !base.is_empty() {
                true => saw == now,
                false => {
                    !base.is_empty() && saw == self.document.field_at(&self.schema, &name, base).as_ref()
                }
            };
            if is_seen {
                continue;
            }
            let mut part = patch.take(&name);
            for (name, value) in &mut part.set {
                *value = carried_over(self.schema.kind(name), saw, value, now);
            }
            let to = if is_kept { &mut *patch } else { &mut anew };
            to.set.extend(part.set);
            to.remove.extend(part.remove);
        }
        anew
    }
}
