//! One field: how concurrent writes of it merge, and what may stand in it.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json};

use crate::limits::{self, COUNTER_MAX};

/// How concurrent writes of a field merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldKind {
    /// Among concurrent values one wins, the others stand in the conflict journal.
    #[default]
    Register,
    /// A text that merges by character.
    Text,
    /// A whole number. Writing it adds the difference to what was read, so that concurrent writes add up.
    Counter,
    /// A set of strings, numbers and booleans, written and read as an array. What anybody adds stays.
    Set,
    /// An array that merges by element.
    List,
    /// One of these values, lowest first. Among concurrent values the highest wins.
    Rank(Vec<String>),
    /// Concurrent values are all kept, and the document is flagged until somebody resolves them.
    Ask,
    /// Stays on this device: never sent, exported or part of a change.
    Local,
}

impl FieldKind {
    /// As it is called in declarations.
    fn name(&self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Text => "text",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::List => "list",
            Self::Rank(_) => "rank",
            Self::Ask => "ask",
            Self::Local => "local",
        }
    }

    /// One of several concurrent values counts, as a whole: nothing merges inside of it.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self, FieldKind::Rank(_) | FieldKind::Ask)
    }
}

/// A declared field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// How concurrent writes merge.
    pub kind: FieldKind,
    /// Older names. A document that has the field under one of them keeps it there, so that older apps see every edit; what stands
    /// under several names merges like concurrent writes of one field. Declared in steps, the names follow each other: where `b`
    /// was declared with the alias `a` before, a field `c` with the alias `b` has both.
    pub alias: Vec<String>,
    /// Fewest characters (Unicode code points) of a string, or elements of an array.
    pub min_len: Option<u64>,
    /// Most characters of a string, or elements of an array. If nothing is declared, a text has at most
    /// [`TEXT_CHARS`](crate::limits::TEXT_CHARS), a list or set [`LIST_ELEMENTS`](crate::limits::LIST_ELEMENTS).
    pub max_len: Option<u64>,
    /// Smallest number.
    pub min: Option<f64>,
    /// Largest number.
    pub max: Option<f64>,
    /// For a list: the same content that two devices put in at the same time stays there twice. Else it is there once.
    pub keep_duplicates: bool,
}

/// A rule that a value breaks.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// Too short.
    #[error("has length {length}, at least {min} is asked for")]
    MinLen {
        /// Fewest characters or elements.
        min: u64,
        /// What it has.
        length: u64,
    },
    /// Too long.
    #[error("has length {length}, at most {max} is allowed")]
    MaxLen {
        /// Most characters or elements.
        max: u64,
        /// What it has.
        length: u64,
    },
    /// Too small.
    #[error("is below {min}")]
    Min {
        /// Smallest number.
        min: f64,
    },
    /// Too large.
    #[error("is above {max}")]
    Max {
        /// Largest number.
        max: f64,
    },
    /// Not of the kind that is declared.
    #[error("is not {expected}")]
    Kind {
        /// What is expected.
        expected: String,
    },
}

impl Rule {
    /// Whether a value may be written that breaks this rule, because it breaks it no more than the value before, from which it has
    /// grown or shrunk.
    pub(crate) fn allows(&self, change: Ordering) -> bool {
        match self {
            Rule::MinLen { .. } | Rule::Min { .. } => change.is_ge(),
            Rule::MaxLen { .. } | Rule::Max { .. } => change.is_le(),
            Rule::Kind { .. } => false,
        }
    }
}

impl Field {
    /// A register.
    pub fn register() -> Self {
        FieldKind::Register.into()
    }

    /// A text.
    pub fn text() -> Self {
        FieldKind::Text.into()
    }

    /// One of these values, lowest first.
    pub fn rank<S: Into<String>>(order: impl IntoIterator<Item = S>) -> Self {
        FieldKind::Rank(order.into_iter().map(Into::into).collect()).into()
    }

    /// Adds an older name.
    #[must_use]
    pub fn alias(mut self, name: &str) -> Self {
        self.alias.push(name.into());
        self
    }

    /// Has a list keep the same content that two devices put in at the same time twice.
    #[must_use]
    pub fn keep_duplicates(mut self) -> Self {
        self.keep_duplicates = true;
        self
    }

    /// Asks for at least so many characters or elements.
    #[must_use]
    pub fn min_len(mut self, length: u64) -> Self {
        self.min_len = Some(length);
        self
    }

    /// Allows at most so many characters or elements.
    #[must_use]
    pub fn max_len(mut self, length: u64) -> Self {
        self.max_len = Some(length);
        self
    }

    /// Asks for at least this number.
    #[must_use]
    pub fn min(mut self, min: f64) -> Self {
        self.min = Some(min);
        self
    }

    /// Allows at most this number.
    #[must_use]
    pub fn max(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    /// The first rule that a value breaks. Null breaks none: it says that there is no value.
    pub(crate) fn broken_by(&self, value: &Json) -> Option<Rule> {
        if value.is_null() {
            return None;
        }
        let expected = match (&self.kind, value) {
            (FieldKind::Text, Json::String(_)) => None,
            (FieldKind::Text, _) => Some("a text".to_owned()),
            (FieldKind::Counter, n) if n.as_i64().is_some_and(is_count) => None,
            (FieldKind::Counter, _) => Some(format!("a whole number from -{COUNTER_MAX} to {COUNTER_MAX}")),
            (FieldKind::Set, Json::Array(items)) if items.iter().all(is_scalar) => None,
            (FieldKind::Set, _) => Some("an array of strings, numbers and booleans".to_owned()),
            (FieldKind::List, Json::Array(_)) => None,
            (FieldKind::List, _) => Some("an array".to_owned()),
            (FieldKind::Rank(order), Json::String(value)) if order.contains(value) => None,
            (FieldKind::Rank(order), _) => Some(format!("one of {}", order.join(", "))),
            _ => None,
        };
        if let Some(expected) = expected {
            return Some(Rule::Kind { expected });
        }
        let length = match (&self.kind, value) {
            (_, Json::String(text)) => Some(text.chars().count()),
            // Each element is once in a set.
            (FieldKind::Set, Json::Array(items)) => {
                Some(items.iter().map(Json::to_string).collect::<HashSet<_>>().len())
            }
            (_, Json::Array(items)) => Some(items.len()),
            _ => None,
        };
        if let Some(rule) = length.and_then(|length| self.broken_by_length(length)) {
            return Some(rule);
        }
        let number = value.as_number()?;
        let below = self.min.filter(|min| compare(number, *min).is_lt()).map(|min| Rule::Min { min });
        below.or_else(|| self.max.filter(|max| compare(number, *max).is_gt()).map(|max| Rule::Max { max }))
    }

    /// The rule that a text with so many characters, or an array with so many elements, breaks.
    pub(crate) fn broken_by_length(&self, length: usize) -> Option<Rule> {
        let length = length as u64;
        let short = self.min_len.filter(|min| length < *min).map(|min| Rule::MinLen { min, length });
        short.or_else(|| self.most().filter(|max| length > *max).map(|max| Rule::MaxLen { max, length }))
    }

    /// Whether the length of a text of so many bytes has to be looked at: counting the characters of a long text takes time.
    pub(crate) fn counts(&self, bytes: usize) -> bool {
        self.min_len.is_some() || self.most().is_some_and(|most| bytes as u64 > most)
    }

    /// Most characters or elements: what is declared, or what a device can bear.
    fn most(&self) -> Option<u64> {
        self.max_len.or(match self.kind {
            FieldKind::Text => Some(limits::TEXT_CHARS),
            FieldKind::List | FieldKind::Set => Some(limits::LIST_ELEMENTS),
            _ => None,
        })
    }

    /// Looks for what contradicts itself or would do nothing.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_options()?;
        if let FieldKind::Rank(order) = &self.kind {
            let mut sorted = order.clone();
            sorted.sort();
            sorted.dedup();
            if order.is_empty() || sorted.len() != order.len() {
                return Err("a rank names its values in `order`, lowest first, each once".into());
            }
        }
        if [self.min, self.max].into_iter().flatten().any(|bound| !bound.is_finite()) {
            return Err("`min` and `max` are finite numbers".into());
        }
        if self.min_len.zip(self.most()).is_some_and(|(min, max)| min > max)
            || self.min.zip(self.max).is_some_and(|(min, max)| min > max)
            || (self.kind == FieldKind::Counter && !self.has_count())
        {
            return Err("no value can be at least the minimum and at most the maximum".into());
        }
        Ok(())
    }

    /// Each option fits some kinds, and does nothing on the others.
    fn check_options(&self) -> Result<(), String> {
        use FieldKind::{Counter, List, Rank, Set, Text};
        let has_no_length = matches!(self.kind, Counter | Rank(_));
        let has_no_size = matches!(self.kind, Text | Set | List | Rank(_));
        let (of_length, of_size) =
            ("register, text, set, list, ask and local", "register, counter, ask and local");
        let given = [
            ("min_len", self.min_len.is_some() && has_no_length, of_length),
            ("max_len", self.max_len.is_some() && has_no_length, of_length),
            ("min", self.min.is_some() && has_no_size, of_size),
            ("max", self.max.is_some() && has_no_size, of_size),
            ("keep_duplicates", self.keep_duplicates && self.kind != List, "list"),
        ];
        if let Some((option, _, fits)) = given.iter().find(|(_, is_idle, _)| *is_idle) {
            return Err(format!(
                "`{option}` does nothing on the kind `{}`; it is for {fits}",
                self.kind.name()
            ));
        }
        let twice = |at: usize| self.alias[..at].contains(&self.alias[at]);
        match (0..self.alias.len()).find(|at| twice(*at)) {
            Some(at) => Err(format!("the alias {:?} is named twice", self.alias[at])),
            None => Ok(()),
        }
    }

    /// Whether a counter can have a value within the bounds.
    fn has_count(&self) -> bool {
        let most = COUNTER_MAX as f64;
        let (min, max) = (self.min.unwrap_or(-most).ceil(), self.max.unwrap_or(most).floor());
        min.max(-most) <= max.min(most)
    }
}

impl From<FieldKind> for Field {
    fn from(kind: FieldKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

/// A number beside a bound. Integers are compared exactly: those beyond 2^53 are not rounded first.
fn compare(number: &Number, bound: f64) -> Ordering {
    let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    match whole {
        // A bound beyond 127 bits, which the cast takes to the nearest end, lies beyond every integer in JSON.
        Some(n) => n.cmp(&(bound.floor() as i128)).then(if bound.fract() == 0.0 {
            Ordering::Equal
        } else {
            Ordering::Less
        }),
        None => number.as_f64().unwrap_or_default().partial_cmp(&bound).unwrap_or(Ordering::Equal),
    }
}

fn is_scalar(value: &Json) -> bool {
    matches!(value, Json::String(_) | Json::Number(_) | Json::Bool(_))
}

/// The written form with every part named.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    kind: KindName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    order: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alias: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_len: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_len: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    keep_duplicates: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    #[default]
    Register,
    Text,
    Counter,
    Set,
    List,
    Rank,
    Ask,
    Local,
    /// Reserved for files.
    Blob,
}

impl TryFrom<Table> for Field {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        if table.kind != KindName::Rank && !table.order.is_empty() {
            return Err("only a rank has an order".into());
        }
        let kind = match table.kind {
            KindName::Register => FieldKind::Register,
            KindName::Text => FieldKind::Text,
            KindName::Counter => FieldKind::Counter,
            KindName::Set => FieldKind::Set,
            KindName::List => FieldKind::List,
            KindName::Rank => FieldKind::Rank(table.order),
            KindName::Ask => FieldKind::Ask,
            KindName::Local => FieldKind::Local,
            KindName::Blob => return Err("fields for files (`blob`) come with a later version".into()),
        };
        let Table { alias, min_len, max_len, min, max, keep_duplicates, .. } = table;
        Ok(Self { kind, alias, min_len, max_len, min, max, keep_duplicates })
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, order) = match &self.kind {
            FieldKind::Register => (KindName::Register, &[][..]),
            FieldKind::Text => (KindName::Text, &[][..]),
            FieldKind::Counter => (KindName::Counter, &[][..]),
            FieldKind::Set => (KindName::Set, &[][..]),
            FieldKind::List => (KindName::List, &[][..]),
            FieldKind::Rank(order) => (KindName::Rank, &order[..]),
            FieldKind::Ask => (KindName::Ask, &[][..]),
            FieldKind::Local => (KindName::Local, &[][..]),
        };
        if order.is_empty() && *self == Self::from(self.kind.clone()) {
            return kind.serialize(serializer);
        }
        let Self { alias, min_len, max_len, min, max, keep_duplicates, .. } = self.clone();
        Table { kind, order: order.to_vec(), alias, min_len, max_len, min, max, keep_duplicates }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a kind (register, text, counter, set, list, ask, local) or a table")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
        let kind = KindName::deserialize(serde::de::value::StrDeserializer::<E>::new(name))?;
        let table = Table {
            kind,
            order: Vec::new(),
            alias: Vec::new(),
            min_len: None,
            max_len: None,
            min: None,
            max: None,
            keep_duplicates: false,
        };
        Field::try_from(table).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Field::try_from(table).map_err(serde::de::Error::custom)
    }
}

/// Whether a counter can have this value.
pub(crate) fn is_count(number: i64) -> bool {
    (-COUNTER_MAX..=COUNTER_MAX).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_are_exact_and_sets_are_counted_as_sets() {
        let max = Field::register().max(9_007_199_254_740_992.0);
        assert_eq!(max.broken_by(&json!(9_007_199_254_740_992_i64)), None);
        assert!(max.broken_by(&json!(9_007_199_254_740_993_i64)).is_some());
        let half = Field::register().min(-0.5).max(2.5);
        for (value, breaks) in
            [(json!(2), false), (json!(3), true), (json!(0), false), (json!(-1), true), (json!(2.5), false)]
        {
            assert_eq!(half.broken_by(&value).is_some(), breaks, "{value}");
        }
        let huge = Field::register().max(1e300);
        assert_eq!(huge.broken_by(&json!(u64::MAX)), None);
        let set = Field::from(FieldKind::Set).max_len(2).min_len(2);
        assert_eq!(set.broken_by(&json!(["a", "b", "a"])), None);
        assert!(set.broken_by(&json!(["a", "a"])).is_some());
    }
}
