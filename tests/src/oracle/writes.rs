//! What a write of one document leads to, by the rules of `docs/schema.md`.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::journal::{Journal, at, pick, put_at};
use super::model::{Noted, Outcome, Rules, State, Verdict, World, as_set, is_count, is_same, is_scalar};
use super::script::{Bounds, Choice, Fields, Kind, MARKS, Write};

impl Rules {
    /// What a write of one document leads to. `versions`: what each document was, the latest last.
    pub(super) fn write(
        &self,
        world: &World,
        write: &Write,
        versions: &BTreeMap<usize, Vec<Noted>>,
        journal: &Journal,
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
        if state == State::Purged {
            return refused(outcome);
        }
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
                    let has_bounds = |field: &String| self.bounds(field) != Bounds::default();
                    if fields.keys().any(has_bounds) {
                        outcome.verdict = Verdict::Either;
                    }
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
                let text = Value::from(text);
                outcome.verdict = self.allows_step(field, now.get(field), &text);
                now.insert(field.clone(), text);
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
                let sum = Value::Number(Number::from(sum));
                outcome.verdict = outcome.verdict.and(self.allows_step(field, now.get(field), &sum));
                now.insert(field.clone(), sum);
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
                // Added first, then taken out: two calls. Of sets the rules do not say that they may come nearer.
                let left: Vec<Value> = all
                    .iter()
                    .filter(|item| !remove.iter().any(|gone| is_same(item, gone)))
                    .cloned()
                    .collect();
                let (before, between, after) = (Value::Array(old), as_set(&all), as_set(&left));
                for (old, new) in [(&before, &between), (&between, &after)] {
                    outcome.verdict = outcome.verdict.and(match self.allows_step(field, Some(old), new) {
                        Verdict::Done if self.broken(field, new).is_some() => Verdict::Either,
                        verdict => verdict,
                    });
                }
                if now.get(field).is_none_or(Value::is_null) && outcome.verdict == Verdict::Refused {
                    outcome.verdict = Verdict::Either;
                }
                now.insert(field.clone(), as_set(&left));
                outcome.world.insert(doc, State::Live(now));
            }
            Write::Delete { .. } => {
                let Some(fields) = live else { return refused(outcome) };
                // A local document is gone for good.
                outcome.world.insert(doc, State::Deleted((!self.local).then_some(fields)));
            }
            Write::Purge { .. } => match state {
                State::Deleted(Some(_)) => _ = outcome.world.insert(doc, State::Purged),
                // A local document is gone for good, and one that undo took back was never there.
                State::Deleted(None) => {
                    outcome.verdict = Verdict::Either;
                    outcome.world.insert(doc, State::Purged);
                }
                _ => return refused(outcome),
            },
            Write::Resolve { row, choice, .. } => {
                let Some(now) = live else { return refused(outcome) };
                return self.resolve(outcome, doc, now, journal, *row, choice);
            }
            Write::Restore { .. } => {
                match state {
                    State::Deleted(Some(fields)) => _ = outcome.world.insert(doc, State::Live(fields)),
                    // A local document is gone for good, and one that undo took back was never there.
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

    /// What settling a conflict leads to.
    fn resolve(
        &self,
        mut outcome: Outcome,
        doc: usize,
        now: Fields,
        journal: &Journal,
        row: usize,
        choice: &Choice,
    ) -> Outcome {
        outcome.verdict = Verdict::Refused;
        let Some(row) = pick(journal, doc, row) else { return outcome };
        let Some(field) = row.path.first().filter(|field| !self.keeps(field)) else { return outcome };
        let is_open = journal[&doc].iter().any(|other| other.path == row.path && !other.settled);
        let before = Value::Object(now.clone());
        let value = match choice {
            Choice::Shown if is_open => at(&before, &row.path).cloned(),
            Choice::Value(value) if is_open => Some(value.clone()),
            // Both versions of a text are in it: there is no loser to be restored.
            Choice::Loser if !row.is_text => Some(row.loser.clone()),
            _ => return outcome,
        };
        let mut after = before.clone();
        let is_put = value.is_some_and(|value| put_at(&mut after, &row.path, value));
        let Value::Object(mut after) = after else { return outcome };
        let Some(new) = after.get(field).filter(|_| is_put).cloned() else {
            // Where it stood is nothing any more.
            outcome.verdict = Verdict::Either;
            outcome.open.insert((doc, field.clone()));
            return outcome;
        };
        let single = Fields::from_iter([(field.clone(), new.clone())]);
        outcome.verdict = match self.allow_over(Some(&now), &single) {
            // It shows what is refused since it was declared.
            Verdict::Refused if *choice == Choice::Shown || row.path.len() > 1 => Verdict::Either,
            verdict => verdict,
        };
        after.insert(field.clone(), self.written(field, None, &new));
        outcome.world.insert(doc, State::Live(after));
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
