//! One field: how concurrent writes of it merge, and what may stand in it.

use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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

/// A declared field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// How concurrent writes merge.
    pub kind: FieldKind,
    /// Older names. A document that has the field under one of them keeps it there, so that older apps see every edit.
    pub alias: Vec<String>,
    /// Fewest characters (Unicode code points) of a string, or elements of an array.
    pub min_len: Option<u64>,
    /// Most characters of a string, or elements of an array.
    pub max_len: Option<u64>,
    /// Smallest number.
    pub min: Option<f64>,
    /// Largest number.
    pub max: Option<f64>,
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
            (FieldKind::Counter, n) if n.is_i64() => None,
            (FieldKind::Counter, _) => Some("a whole number".to_owned()),
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
        let length = match value {
            Json::String(text) => Some(text.chars().count() as u64),
            Json::Array(items) => Some(items.len() as u64),
            _ => None,
        };
        if let Some(length) = length {
            if let Some(min) = self.min_len.filter(|min| length < *min) {
                return Some(Rule::MinLen { min, length });
            }
            if let Some(max) = self.max_len.filter(|max| length > *max) {
                return Some(Rule::MaxLen { max, length });
            }
        }
        let number = value.as_f64()?;
        let below = self.min.filter(|min| number < *min).map(|min| Rule::Min { min });
        below.or_else(|| self.max.filter(|max| number > *max).map(|max| Rule::Max { max }))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if let FieldKind::Rank(order) = &self.kind {
            let mut sorted = order.clone();
            sorted.sort();
            sorted.dedup();
            if order.is_empty() || sorted.len() != order.len() {
                return Err("a rank names its values in `order`, lowest first, each once".into());
            }
        }
        if self.min_len.zip(self.max_len).is_some_and(|(min, max)| min > max)
            || self.min.zip(self.max).is_some_and(|(min, max)| min > max)
        {
            return Err("no value can be at least the minimum and at most the maximum".into());
        }
        Ok(())
    }
}

impl From<FieldKind> for Field {
    fn from(kind: FieldKind) -> Self {
        Self { kind, ..Self::default() }
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
        let Table { alias, min_len, max_len, min, max, .. } = table;
        Ok(Self { kind, alias, min_len, max_len, min, max })
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
        let Self { alias, min_len, max_len, min, max, .. } = self.clone();
        Table { kind, order: order.to_vec(), alias, min_len, max_len, min, max }.serialize(serializer)
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
        };
        Field::try_from(table).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Field::try_from(table).map_err(serde::de::Error::custom)
    }
}
