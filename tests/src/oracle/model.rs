//! A replica as plain JSON: what a document shows after a write, by the rules of `docs/schema.md`. It shares no code with the
//! library.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value};

use super::script::{Fields, Kind, MARKS, RANKS, Write};

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
    fn and(self, other: Verdict) -> Verdict {
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
    /// The whole collection stays here.
    pub(super) local: bool,
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
        let fits = match self.kind(field) {
            Kind::Register | Kind::Ask | Kind::Local => true,
            Kind::Text => value.is_string(),
            Kind::Counter => match value.as_i64() {
                Some(n) => is_count(n),
                None => false,
            },
            Kind::Set => value.as_array().is_some_and(|items| items.iter().all(is_scalar)),
            Kind::List => value.is_array(),
            Kind::Rank => value.as_str().is_some_and(|value| RANKS.contains(&value)),
        };
        if fits { deep } else { Verdict::Refused }
    }

    /// Whether all fields may be given these values.
    pub(super) fn allow(&self, fields: &Fields) -> Verdict {
        fields.iter().fold(Verdict::Done, |all, (name, value)| all.and(self.allows(name, value)))
    }

    /// The same, given what they hold: a number that is too large to be counted on from may stand in the way.
    pub(super) fn allow_over(&self, now: Option<&Fields>, fields: &Fields) -> Verdict {
        let stands_in_the_way = |(name, value): (&String, &Value)| {
            let old = now.and_then(|now| now.get(name));
            let is_large =
                old.is_some_and(|old| old.is_u64() || old.is_i64()) && !old.is_some_and(is_counted);
            self.kind(name) == Kind::Counter && value.is_i64() && is_large
        };
        let large = fields.iter().any(stands_in_the_way);
        self.allow(fields).and(if large { Verdict::Either } else { Verdict::Done })
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
fn as_set(items: &[Value]) -> Value {
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
fn is_same(one: &Value, other: &Value) -> bool {
    let written = |value: &Value| value.to_string();
    written(one) == written(other)
}

fn is_counted(value: &Value) -> bool {
    value.as_i64().is_some_and(is_count)
}

fn is_count(number: i64) -> bool {
    (-COUNTER_MAX..=COUNTER_MAX).contains(&number)
}

fn is_scalar(value: &Value) -> bool {
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

/// What a text shows after a splice, in code points; `None` if the range lies outside.
fn spliced(text: &str, at: usize, delete: usize, insert: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let end = at.checked_add(delete).filter(|end| *end <= chars.len())?;
    Some(chars[..at].iter().chain(insert.chars().collect::<Vec<_>>().iter()).chain(&chars[end..]).collect())
}

/// Where a splice goes in the text that is there.
pub(super) fn place(text: &str, at: usize, delete: usize, outside: bool) -> (usize, usize) {
    let length = text.chars().count();
    if outside {
        return (length + 1 + at, delete);
    }
    let at = at % (length + 1);
    (at, delete.min(length - at))
}

/// What the app writes, given what it sees.
pub(super) fn resolved(write: &Write, seen: Option<&Fields>) -> Write {
    match write {
        Write::Retype { doc, field, at, delete, mark, splice } => {
            let text = seen.and_then(|fields| fields.get(field)).and_then(Value::as_str).unwrap_or_default();
            let words: Vec<&str> = text.split_inclusive([' ', '\n']).collect();
            let at = at % (words.len() + 1);
            let end = (at + delete).min(words.len());
            let insert = mark.map(|mark| format!("{} ", MARKS[mark])).unwrap_or_default();
            if *splice {
                let length = |words: &[&str]| words.iter().map(|word| word.chars().count()).sum();
                let (at, delete) = (length(&words[..at]), length(&words[at..end]));
                return Write::Splice { doc: *doc, field: field.clone(), at, delete, insert, outside: false };
            }
            let new = [words[..at].concat(), insert, words[end..].concat()].concat();
            Write::Set { doc: *doc, fields: Fields::from_iter([(field.clone(), new.into())]) }
        }
        Write::Relist { doc, field, at, delete, mark } => {
            let items = seen.and_then(|fields| fields.get(field)).and_then(Value::as_array);
            let mut items = items.cloned().unwrap_or_default();
            let at = at % (items.len() + 1);
            let end = (at + delete).min(items.len());
            items.splice(at..end, mark.map(|mark| MARKS[mark].into()));
            Write::Set { doc: *doc, fields: Fields::from_iter([(field.clone(), items.into())]) }
        }
        other => other.clone(),
    }
}

impl Rules {
    /// What a write of one document leads to. `versions`: what each document was, the latest last.
    pub(super) fn write(
        &self,
        world: &World,
        write: &Write,
        versions: &BTreeMap<usize, Vec<Noted>>,
    ) -> Outcome {
        let mut outcome = Outcome::nothing(world, Verdict::Done);
        let doc = write.doc();
        let state = world.get(&doc).cloned().unwrap_or(State::Absent);
        let no_versions = Vec::new();
        let versions = versions.get(&doc).unwrap_or(&no_versions);
        let live = match &state {
            State::Live(fields) => Some(fields.clone()),
            _ => None,
        };
        let refused = |mut outcome: Outcome| {
            outcome.verdict = Verdict::Refused;
            outcome
        };
        if self.local && matches!(write, Write::PutAt { .. } | Write::RestoreVersion { .. }) {
            // A local document has no versions.
            outcome.verdict = Verdict::Either;
            outcome.open_documents.insert(doc);
            return outcome;
        }
        let write = &resolved(write, live.as_ref());
        match write {
            Write::Retype { .. } | Write::Relist { .. } => return refused(outcome),
            Write::Insert { fields, .. } | Write::Put { fields, .. } => {
                let mut now = live.unwrap_or_default();
                outcome.verdict = self.allow_over(Some(&now), fields);
                self.set(&mut now, fields);
                outcome.world.insert(doc, State::Live(now));
            }
            Write::Set { fields, .. } => {
                let Some(mut now) = live else { return refused(outcome) };
                outcome.verdict = self.allow_over(Some(&now), fields);
                self.set(&mut now, fields);
                outcome.world.insert(doc, State::Live(now));
            }
            Write::Update { changes, .. } => {
                let Some(mut now) = live else { return refused(outcome) };
                for (number, (set, remove)) in changes.iter().enumerate() {
                    match self.change(&mut now, set, remove) {
                        Verdict::Done => {}
                        verdict if number == 0 && (verdict == Verdict::Refused || changes.len() == 1) => {
                            outcome.verdict = verdict;
                            break;
                        }
                        // Some of it was written before the rest was refused.
                        _ => {
                            outcome.verdict = Verdict::Either;
                            outcome.open_documents.insert(doc);
                            break;
                        }
                    }
                }
                outcome.world.insert(doc, State::Live(now));
            }
            Write::PutAt { fields, back, .. } => {
                let Some(mut now) = live else {
                    return if matches!(state, State::Absent) {
                        refused(outcome)
                    } else {
                        outcome.verdict = Verdict::Either;
                        outcome.open_documents.insert(doc);
                        outcome.forked.insert(doc);
                        outcome
                    };
                };
                let Some(index) = versions.len().checked_sub(1 + back) else { return refused(outcome) };
                outcome.verdict = self.allow_over(Some(&now), fields);
                self.set(&mut now, fields);
                outcome.world.insert(doc, State::Live(now));
                if versions[index].version != versions[versions.len() - 1].version {
                    outcome.open.extend(fields.keys().map(|name| (doc, name.clone())));
                    outcome.forked.insert(doc);
                }
            }
            Write::Splice { field, at, delete, insert, outside, .. } => {
                let Some(mut now) = live else { return refused(outcome) };
                if self.kind(field) != Kind::Text || self.local || field.is_empty() {
                    return refused(outcome);
                }
                let old = match now.get(field) {
                    None | Some(Value::Null) => "",
                    Some(Value::String(text)) => text,
                    Some(_) => {
                        outcome.verdict = Verdict::Either;
                        outcome.open.insert((doc, field.clone()));
                        return outcome;
                    }
                };
                let (at, delete) = place(old, *at, *delete, *outside);
                let Some(text) = spliced(old, at, delete, insert) else { return refused(outcome) };
                now.insert(field.clone(), text.into());
                outcome.world.insert(doc, State::Live(now));
                if at == 0 && delete == 0 && insert.is_empty() {
                    outcome.open.insert((doc, field.clone()));
                }
            }
            Write::Increment { field, by, .. } => {
                let Some(mut now) = live else { return refused(outcome) };
                if self.kind(field) != Kind::Counter || self.local || field.is_empty() {
                    return refused(outcome);
                }
                let old = match now.get(field) {
                    None | Some(Value::Null) => 0,
                    Some(value) => match value.as_i64() {
                        // It was something else before it was declared.
                        Some(old) if !is_count(old) => return refused(outcome),
                        Some(old) => old,
                        None if value.is_u64() => return refused(outcome),
                        None => {
                            outcome.verdict = Verdict::Either;
                            0
                        }
                    },
                };
                let Some(sum) = old.checked_add(*by).filter(|sum| is_count(*sum)) else {
                    return refused(outcome);
                };
                now.insert(field.clone(), Value::Number(Number::from(sum)));
                outcome.world.insert(doc, State::Live(now));
            }
            Write::EditSet { field, add, remove, .. } => {
                let Some(mut now) = live else { return refused(outcome) };
                if self.kind(field) != Kind::Set || self.local || field.is_empty() {
                    return refused(outcome);
                }
                let old = match now.get(field) {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(items)) if items.iter().all(is_scalar) => items.clone(),
                    Some(_) => {
                        outcome.verdict = Verdict::Either;
                        outcome.open.insert((doc, field.clone()));
                        return outcome;
                    }
                };
                let all: Vec<Value> = old.iter().chain(add).cloned().collect();
                // Added first, then taken out: two calls.
                let left: Vec<Value> =
                    all.into_iter().filter(|item| !remove.iter().any(|gone| is_same(item, gone))).collect();
                now.insert(field.clone(), as_set(&left));
                outcome.world.insert(doc, State::Live(now));
            }
            Write::Delete { .. } => {
                let Some(fields) = live else { return refused(outcome) };
                // A local document is gone for good.
                outcome.world.insert(doc, State::Deleted((!self.local).then_some(fields)));
            }
            Write::Restore { .. } => {
                match state {
                    State::Deleted(Some(fields)) => _ = outcome.world.insert(doc, State::Live(fields)),
                    // One that undo took back was never there.
                    State::Deleted(None) => {
                        outcome.verdict = Verdict::Either;
                        outcome.open_documents.insert(doc);
                    }
                    _ => return refused(outcome),
                }
            }
            Write::RestoreVersion { back, .. } => {
                let Some(index) = versions.len().checked_sub(1 + back) else { return refused(outcome) };
                outcome.verdict = self.allow_over(live.as_ref(), &versions[index].fields);
                if outcome.verdict == Verdict::Refused {
                    // It held what the declarations of today refuse.
                    outcome.verdict = Verdict::Either;
                }
                if live.is_none() {
                    outcome.open_documents.insert(doc);
                }
                outcome.world.insert(doc, State::Live(self.back_to(live.as_ref(), &versions[index].fields)));
            }
        }
        outcome
    }

    /// What a document shows when an app changes its record and writes it back.
    pub(super) fn change(&self, now: &mut Fields, set: &Fields, remove: &[String]) -> Verdict {
        let before = now.clone();
        for (name, value) in set {
            let value = match (self.kind(name), value) {
                (Kind::Set, Value::Array(items)) if !self.local => as_set(items),
                _ => value.clone(),
            };
            now.insert(name.clone(), value);
        }
        for name in remove {
            now.remove(name);
        }
        // What is written as it was is no write.
        let changed =
            |(name, value): &(&String, &Value)| before.get(*name) != Some(value) && !remove.contains(name);
        let changed: Fields =
            set.iter().filter(changed).map(|(name, value)| (name.clone(), value.clone())).collect();
        self.allow_over(Some(&before), &changed)
    }

    /// The fields of a version, with the local fields of now.
    pub(super) fn back_to(&self, now: Option<&Fields>, then: &Fields) -> Fields {
        let mut fields = self.shared(then);
        let local = now.into_iter().flatten().filter(|(name, _)| self.keeps(name));
        fields.extend(local.map(|(name, value)| (name.clone(), value.clone())));
        fields
    }
}
