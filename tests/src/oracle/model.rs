//! A replica as plain JSON: what a document shows after a write, by the rules of `docs/schema.md`. It shares no code with the
//! library.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::script::{Bounds, Declared, Fields, Kind, Policy, RANKS};

/// Values nested less deeply than this are taken.
const SURELY_SHALLOW: usize = 60;

/// Values nested more deeply than this are refused.
const SURELY_DEEP: usize = 66;

/// Counters go from minus this to this: 2^53 - 1.
pub(super) const COUNTER_MAX: i64 = (1 << 53) - 1;

/// What is known of one document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// It never was.
    Absent,
    /// It shows these fields.
    Live(Fields),
    /// It is in the trash, with these fields if they are known.
    Deleted(Option<Fields>),
    /// It was removed for good.
    Purged,
}

/// All documents, by number.
pub(super) type World = BTreeMap<usize, State>;

/// Whether a write may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It must be.
    Done,
    /// It must be refused, and nothing changes.
    Refused,
    /// The rules do not say; if it is refused, nothing changes.
    Either,
}

impl Verdict {
    pub(super) fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Refused, _) | (_, Verdict::Refused) => Verdict::Refused,
            (Verdict::Either, _) | (_, Verdict::Either) => Verdict::Either,
            _ => Verdict::Done,
        }
    }
}

/// What a write leads to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Whether it may be made.
    pub(super) verdict: Verdict,
    /// What is then shown.
    pub(super) world: World,
    /// Fields of which the rules do not say what they show then.
    pub(super) open: BTreeSet<(usize, String)>,
    /// Documents of which the rules do not say what they show then.
    pub(super) open_documents: BTreeSet<usize>,
    /// Documents that were written on an older version: they may be in conflict with themselves.
    pub(super) forked: BTreeSet<usize>,
}

impl Outcome {
    /// Nothing happens.
    pub(super) fn nothing(world: &World, verdict: Verdict) -> Self {
        Self {
            verdict,
            world: world.clone(),
            open: BTreeSet::new(),
            open_documents: BTreeSet::new(),
            forked: BTreeSet::new(),
        }
    }
}

/// The fields of a document at a version.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    /// The version, as the library names it.
    pub(super) version: String,
    /// What it showed, without local fields.
    pub(super) fields: Fields,
}

/// What the rules depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Declared fields.
    pub(super) kinds: BTreeMap<String, Kind>,
    /// What fields with older names are called now.
    pub(super) names: BTreeMap<String, String>,
    /// What may stand in them.
    pub(super) bounds: BTreeMap<String, Bounds>,
    /// The whole collection stays here.
    pub(super) local: bool,
    /// What deletes do.
    pub(super) policy: Policy,
}

impl Rules {
    /// How a field is declared.
    pub(super) fn kind(&self, field: &str) -> Kind {
        self.kinds.get(field).copied().unwrap_or(Kind::Register)
    }

    /// Whether a field stays on its device.
    pub(super) fn keeps(&self, field: &str) -> bool {
        self.local || self.kind(field) == Kind::Local
    }

    /// The fields that leave the device.
    pub(super) fn shared(&self, fields: &Fields) -> Fields {
        fields.iter().filter(|(name, _)| !self.keeps(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Whether a field may be given a value.
    pub(super) fn allows(&self, field: &str, value: &Value) -> Verdict {
        if field.is_empty() || has_empty_name(value) {
            return Verdict::Refused;
        }
        let depth = depth(value);
        let deep = match depth {
            _ if depth > SURELY_DEEP => Verdict::Refused,
            _ if depth > SURELY_SHALLOW => Verdict::Either,
            _ => Verdict::Done,
        };
        if value.is_null() {
            return deep;
        }
        if self.fits(field, value) && self.broken(field, value).is_none() { deep } else { Verdict::Refused }
    }

    /// Whether a value is of the kind that is declared.
    pub(super) fn fits(&self, field: &str, value: &Value) -> bool {
        if value.is_null() {
            return true;
        }
        match self.kind(field) {
            Kind::Register | Kind::Ask | Kind::Local => true,
            Kind::Text => value.is_string(),
            Kind::Counter => match value.as_i64() {
                Some(n) => is_count(n),
                None => false,
            },
            Kind::Set => value.as_array().is_some_and(|items| items.iter().all(is_scalar)),
            Kind::List => value.is_array(),
            Kind::Rank => value.as_str().is_some_and(|value| RANKS.contains(&value)),
        }
    }

    /// Takes up a declaration.
    pub(super) fn declare(&mut self, field: &str, declared: Declared) {
        self.kinds.insert(field.to_owned(), declared.kind);
        self.bounds.insert(field.to_owned(), declared.bounds);
    }

    /// Whether all fields may be given these values, given what they hold: a number that is too large to be counted on from may stand in the way.
    pub(super) fn allow_over(&self, now: Option<&Fields>, fields: &Fields) -> Verdict {
        let stands_in_the_way = |(name, value): (&String, &Value)| {
            let old = now.and_then(|now| now.get(name));
            let is_large =
                old.is_some_and(|old| old.is_u64() || old.is_i64()) && !old.is_some_and(is_counted);
            self.kind(name) == Kind::Counter && value.is_i64() && is_large
        };
        let large = fields.iter().any(stands_in_the_way);
        // What broke a rule before it was declared, or came from elsewhere, may be written as it is or not.
        let is_as_it_was = |name: &String, value: &Value| {
            self.fits(name, value) && now.and_then(|now| now.get(name)).is_some_and(|old| old == value)
        };
        let allowed =
            fields.iter().fold(Verdict::Done, |all, (name, value)| match self.allows(name, value) {
                Verdict::Refused if !name.is_empty() && is_as_it_was(name, value) => all.and(Verdict::Either),
                verdict => all.and(verdict),
            });
        allowed.and(if large { Verdict::Either } else { Verdict::Done })
    }

    /// What a field shows when `new` is written over `old`.
    pub(super) fn written(&self, field: &str, old: Option<&Value>, new: &Value) -> Value {
        match (self.kind(field), new) {
            (Kind::Set, Value::Array(items)) if !self.local => as_set(items),
            _ => merged(old, new),
        }
    }

    /// What a document shows when these fields are set.
    pub(super) fn set(&self, fields: &mut Fields, set: &Fields) {
        for (name, value) in set {
            let value = self.written(name, fields.get(name), value);
            fields.insert(name.clone(), value);
        }
    }

    /// Makes values comparable: the order of a set does not count.
    pub(super) fn comparable(&self, fields: &Fields) -> Fields {
        let value = |name: &String, value: &Value| match (self.kind(name), value) {
            (Kind::Set, Value::Array(items)) if items.iter().all(is_scalar) => sorted(items),
            _ => value.clone(),
        };
        fields.iter().map(|(name, v)| (name.clone(), value(name, v))).collect()
    }
}

/// Objects merge field by field, anything else is replaced.
fn merged(old: Option<&Value>, new: &Value) -> Value {
    match (old, new) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let mut all = old.clone();
            for (name, value) in new {
                let value = merged(old.get(name), value);
                all.insert(name.clone(), value);
            }
            Value::Object(all)
        }
        (_, Value::Object(new)) => {
            // Inside a new object there is nothing to merge with.
            Value::Object(new.clone())
        }
        _ => new.clone(),
    }
}

/// What an app has changed between two values of a document: fields to set, paths to remove.
pub(super) fn difference(old: &Fields, new: &Fields) -> (Fields, Vec<Vec<String>>) {
    let (mut set, mut remove) = (Fields::new(), Vec::new());
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(before), after) if before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                let (inner, gone) = difference(before, after);
                if !inner.is_empty() {
                    set.insert(name.clone(), Value::Object(inner));
                }
                remove.extend(gone.into_iter().map(|path| [vec![name.clone()], path].concat()));
            }
            _ => _ = set.insert(name.clone(), value.clone()),
        }
    }
    remove.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| vec![name.clone()]));
    (set, remove)
}

/// Removes what lies at a path.
pub(super) fn remove_at(fields: &mut Fields, path: &[String]) {
    match path {
        [] => {}
        [name] => _ = fields.remove(name),
        [name, rest @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(name) {
                remove_at(inner, rest);
            }
        }
    }
}

/// The elements of a set, each once, in an order that does not depend on who wrote them.
pub(super) fn as_set(items: &[Value]) -> Value {
    let mut once: Vec<Value> = Vec::new();
    for item in items {
        if !once.iter().any(|known| is_same(known, item)) {
            once.push(item.clone());
        }
    }
    sorted(&once)
}

fn sorted(items: &[Value]) -> Value {
    let mut items = items.to_vec();
    items.sort_by_key(Value::to_string);
    Value::Array(items)
}

/// Elements of a set are told apart by how they are written: 1 and 1.0 are two.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    let written = |value: &Value| value.to_string();
    written(one) == written(other)
}

fn is_counted(value: &Value) -> bool {
    value.as_i64().is_some_and(is_count)
}

pub(super) fn is_count(number: i64) -> bool {
    (-COUNTER_MAX..=COUNTER_MAX).contains(&number)
}

pub(super) fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn has_empty_name(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| name.is_empty() || has_empty_name(value)),
        Value::Array(items) => items.iter().any(has_empty_name),
        _ => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
