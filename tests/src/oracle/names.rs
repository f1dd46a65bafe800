//! Fields that are called otherwise since: what was known of them under older names.

use std::collections::BTreeSet;

use super::known::Known;
use super::model::{Rules, State, World};
use super::script::{Act, Fields, Write};

impl Rules {
    /// What a field is called now.
    pub(super) fn newest<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }

    /// Fields by the names of now; of two names of one field the newest counts.
    pub(super) fn renamed(&self, fields: &Fields) -> Fields {
        let mut all = Fields::new();
        for (name, value) in fields {
            let newest = self.newest(name);
            if newest == name || !fields.contains_key(newest) {
                all.insert(newest.to_owned(), value.clone());
            }
        }
        all
    }

    /// Whether two of the names are those of one field.
    fn meet(&self, fields: &Fields) -> bool {
        fields.keys().map(|name| self.newest(name)).collect::<BTreeSet<_>>().len() < fields.len()
    }

    /// A write by the names of now.
    fn write_by_newest(&self, write: &Write) -> Write {
        let mut write = write.clone();
        match &mut write {
            Write::Insert { fields, .. }
            | Write::Put { fields, .. }
            | Write::PutAt { fields, .. }
            | Write::Set { fields, .. } => *fields = self.renamed(fields),
            Write::Update { changes, .. } => {
                for (set, remove) in changes {
                    *set = self.renamed(set);
                    remove.iter_mut().for_each(|name| *name = self.newest(name).to_owned());
                }
            }
            Write::Splice { field, .. }
            | Write::Increment { field, .. }
            | Write::EditSet { field, .. }
            | Write::Retype { field, .. }
            | Write::Relist { field, .. }
            | Write::Resolve { field, .. } => *field = self.newest(field).to_owned(),
            Write::Delete { .. }
            | Write::Restore { .. }
            | Write::RestoreVersion { .. }
            | Write::Purge { .. } => {}
        }
        write
    }

    /// An act by the names of now.
    pub(super) fn by_newest(&self, act: &Act) -> Act {
        let mut act = act.clone();
        match &mut act {
            Act::Write(write) => *write = self.write_by_newest(write),
            Act::Transaction { writes, .. } => {
                writes.iter_mut().for_each(|write| *write = self.write_by_newest(write));
            }
            Act::Change { set, remove, .. } => {
                *set = self.renamed(set);
                remove.iter_mut().for_each(|name| *name = self.newest(name).to_owned());
            }
            Act::Import { documents, .. } => {
                documents.iter_mut().for_each(|(_, fields)| *fields = self.renamed(fields));
            }
            Act::Adopt { fields, .. } => *fields = self.renamed(fields),
            Act::ChangeLog { entries } => {
                let all = entries.iter_mut().filter_map(|(_, fields)| fields.as_mut());
                all.for_each(|fields| *fields = self.renamed(fields));
            }
            _ => {}
        }
        act
    }

    /// Whether an app may carry out the act by the names in it: what is read first has the names of now, and of two names of one
    /// field in one write the rules do not say which counts.
    pub(super) fn is_by_any_name(&self, act: &Act) -> bool {
        let is_plain = |write: &Write| match write {
            Write::Insert { fields, .. }
            | Write::Put { fields, .. }
            | Write::PutAt { fields, .. }
            | Write::Set { fields, .. } => !self.meet(fields),
            Write::Update { .. } | Write::Splice { .. } | Write::Retype { .. } | Write::Relist { .. } => {
                false
            }
            _ => true,
        };
        match act {
            Act::Write(write) => is_plain(write),
            Act::Transaction { writes, .. } => writes.iter().all(is_plain),
            Act::Change { .. } => false,
            Act::Import { documents, .. } => documents.iter().all(|(_, fields)| !self.meet(fields)),
            Act::Adopt { fields, .. } => !self.meet(fields),
            Act::ChangeLog { entries } => {
                entries.iter().flat_map(|(_, fields)| fields).all(|fields| !self.meet(fields))
            }
            _ => true,
        }
    }
}

impl Known {
    /// Whether a field may be called so: the name is new, or one that it had before.
    pub(super) fn may_rename(&self, from: &str, to: &str, alias: bool) -> bool {
        let (old, new) = (self.rules.newest(from), self.rules.newest(to));
        if old != from || old == to {
            return false;
        }
        if new == old {
            return true;
        }
        let holds = |state: &State| match state {
            State::Live(fields) | State::Deleted(Some(fields)) => fields.contains_key(to),
            State::Deleted(None) => true,
            _ => false,
        };
        let was_there = self.versions.values().flatten().any(|noted| noted.fields.contains_key(to));
        let is_taken = self.rules.kinds.contains_key(to) || self.rules.names.contains_key(to);
        alias && new == to && !is_taken && !was_there && !self.world.values().any(holds)
    }

    /// A field is called otherwise from now on.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let rules = &mut self.rules;
        rules.names.values_mut().filter(|name| *name == from).for_each(|name| *name = to.to_owned());
        if rules.names.remove(to).is_some() {
            self.turned_round.insert(to.to_owned());
        }
        rules.names.insert(from.to_owned(), to.to_owned());
        if let Some(kind) = rules.kinds.remove(from) {
            rules.kinds.insert(to.to_owned(), kind);
        }
        if let Some(bounds) = rules.bounds.remove(from) {
            rules.bounds.insert(to.to_owned(), bounds);
        }
        if self.late_local.remove(from) {
            self.late_local.insert(to.to_owned());
        }
        let rename = |fields: &mut Fields| {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        };
        let rename_all = |world: &mut World| {
            for state in world.values_mut() {
                if let State::Live(fields) | State::Deleted(Some(fields)) = state {
                    rename(fields);
                }
            }
        };
        rename_all(&mut self.world);
        self.undo.iter_mut().chain(&mut self.redo).for_each(|step| rename_all(&mut step.before));
        self.point.iter_mut().for_each(rename_all);
        self.versions.values_mut().flatten().for_each(|noted| rename(&mut noted.fields));
        self.slots.clear();
    }
}
