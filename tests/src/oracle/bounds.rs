//! Declared rules of length and range, by `docs/schema.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::{Rules, Verdict};
use super::script::{Bounds, Fields, Kind};

/// How a value breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Short,
    Long,
    Small,
    Large,
}

impl Rules {
    /// The rules of a field.
    pub(super) fn bounds(&self, field: &str) -> Bounds {
        self.bounds.get(field).copied().unwrap_or_default()
    }

    /// The rule that a value breaks.
    pub(super) fn broken(&self, field: &str, value: &Value) -> Option<Broken> {
        let bounds = self.bounds(field);
        let size = self.size(field, value)?;
        match value {
            Value::Number(_) if bounds.min.is_some_and(|min| size < min) => Some(Broken::Small),
            Value::Number(_) if bounds.max.is_some_and(|max| size > max) => Some(Broken::Large),
            Value::Number(_) => None,
            _ if bounds.min_len.is_some_and(|min| size < min as f64) => Some(Broken::Short),
            _ if bounds.max_len.is_some_and(|max| size > max as f64) => Some(Broken::Long),
            _ => None,
        }
    }

    /// What a rule counts: characters, elements, or the number itself. Bounds are small, so rounding changes nothing.
    fn size(&self, field: &str, value: &Value) -> Option<f64> {
        match value {
            Value::String(text) => Some(text.chars().count() as f64),
            Value::Array(items) if self.kind(field) == Kind::Set => {
                Some(items.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() as f64)
            }
            Value::Array(items) => Some(items.len() as f64),
            Value::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// Whether a value may be changed step by step: one that breaks a rule may come nearer to what is allowed.
    pub(super) fn allows_step(&self, field: &str, old: Option<&Value>, new: &Value) -> Verdict {
        let Some(broken) = self.broken(field, new) else { return Verdict::Done };
        let Some(old) = old.filter(|old| !old.is_null()) else {
            // Nothing was there that could come nearer, and nothing that broke a rule.
            return Verdict::Either;
        };
        if self.broken(field, old) != Some(broken) {
            return Verdict::Refused;
        }
        let (before, after) = (self.size(field, old), self.size(field, new));
        let is_nearer = match broken {
            Broken::Short | Broken::Small => after > before,
            Broken::Long | Broken::Large => after < before,
        };
        match is_nearer {
            true => Verdict::Done,
            false if before == after => Verdict::Either,
            false => Verdict::Refused,
        }
    }

    /// Fields that show what is not allowed.
    pub(super) fn violations(&self, shown: &BTreeMap<usize, Fields>) -> BTreeSet<(usize, String)> {
        let mut all = BTreeSet::new();
        for (doc, fields) in shown {
            let breaks = |(field, value): &(&String, &Value)| {
                !self.fits(field, value) || self.broken(field, value).is_some()
            };
            all.extend(fields.iter().filter(breaks).map(|(field, _)| (*doc, field.clone())));
        }
        all
    }
}
