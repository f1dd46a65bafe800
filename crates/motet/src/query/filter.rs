//! What is looked for, in what order.

use serde::Serialize;
use serde_json::Value as Json;

use crate::types::not_finite;

/// Which documents of a collection, in which order, how many.
///
/// Fields of nested objects are named with dots: `meta.tempo`; of a document that has a field of just that name, it is meant.
/// `a\\.b` means the field `a.b` and nothing else, `meta.a\\.b` one of that name in an object. A filter or order that begins with the fields of a
/// [declared index](crate::Schema::index) is answered from it, whatever the size of the collection.
///
/// ```
/// use motet::{Query, Replica, Schema, field, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// replica.apply_schema(&Schema::new().index("songs", ["category", "title"]))?;
/// let songs = replica.documents("songs");
/// songs.insert(&json!({ "title": "Hiʻilawe", "category": "hula", "year": 1902 }))?;
/// songs.insert(&json!({ "title": "Aloha ʻOe", "category": "hula", "year": 1878 }))?;
///
/// let hula = Query::new().filter(field("category").eq("hula")).order_by("title").limit(50);
/// let titles: Vec<_> = songs.find(&hula)?.iter().map(|song| song["title"].clone()).collect();
/// assert_eq!(titles, ["Aloha ʻOe", "Hiʻilawe"]);
/// let old = songs.find(&Query::new().filter(field("year").lt(1900)))?;
/// assert_eq!(old.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) filter: Filter,
    pub(crate) order: Vec<(String, Order)>,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
}

/// Ascending or descending. Missing values and nulls come first when ascending, then numbers, exactly, with booleans as 0 and 1, then
/// strings by code point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

/// A condition on a document. A value compares with values of its own kind: numbers with numbers, exactly, strings with strings by code
/// point, booleans with booleans; null is equal to null and to a missing field, and neither less nor greater than anything.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// All of these hold; of none, true.
    All(Vec<Filter>),
    /// One of these holds.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// A field compares with a value in this way.
    Compare(String, Comparison, Json),
    /// A field is one of these values.
    In(String, Vec<Json>),
    /// An array or set contains the value.
    Contains(String, Json),
    /// A string begins with this.
    StartsWith(String, String),
    /// The document has changes that the active remote does not hold.
    Pending,
    /// The document has concurrent values that nobody has settled.
    Conflicted,
    /// It was made of a value that is none, and says why. A query with it is refused: [`StorageError::Query`](crate::StorageError::Query).
    Invalid(String),
}

/// How a field compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Comparison {
    /// Equal; null is equal to null and to a missing field.
    Eq,
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// At most.
    Le,
    /// Greater than.
    Gt,
    /// At least.
    Ge,
}

/// A field that a condition is made of; see [`field`].
#[derive(Clone, Debug)]
pub struct FieldRef(String);

/// Begins a condition on a field: `field("year").lt(1900)`. Values are whatever serde makes JSON of, so an enum or a date is looked for as documents
/// hold it.
pub fn field(name: &str) -> FieldRef {
    FieldRef(name.to_owned())
}

impl FieldRef {
    /// Equal to a value; null also for a missing field.
    pub fn eq(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Eq, &value)
    }

    /// Not equal to a value.
    pub fn ne(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Ne, &value)
    }

    /// Less than a value.
    pub fn lt(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Lt, &value)
    }

    /// At most a value.
    pub fn le(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Le, &value)
    }

    /// Greater than a value.
    pub fn gt(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Gt, &value)
    }

    /// At least a value.
    pub fn ge(self, value: impl Serialize) -> Filter {
        self.compare(Comparison::Ge, &value)
    }

    /// One of these values.
    pub fn is_in<V: Serialize>(self, values: impl IntoIterator<Item = V>) -> Filter {
        let values: Result<_, _> = values.into_iter().map(|value| self.json(&value)).collect();
        values.map_or_else(Filter::Invalid, |values| Filter::In(self.0, values))
    }

    /// An array or set that contains a value.
    pub fn contains(self, value: impl Serialize) -> Filter {
        self.json(&value).map_or_else(Filter::Invalid, |value| Filter::Contains(self.0, value))
    }

    /// A string that begins with this.
    pub fn starts_with(self, prefix: &str) -> Filter {
        Filter::StartsWith(self.0, prefix.to_owned())
    }

    fn compare(self, comparison: Comparison, value: &impl Serialize) -> Filter {
        self.json(value).map_or_else(Filter::Invalid, |value| Filter::Compare(self.0, comparison, value))
    }

    /// A value as a document holds it.
    fn json(&self, value: &impl Serialize) -> Result<Json, String> {
        if not_finite(value).is_some() {
            return Err(format!("the condition on {:?} has a number that is not finite", self.0));
        }
        serde_json::to_value(value).map_err(|error| format!("the condition on {:?}: {error}", self.0))
    }
}

impl Filter {
    /// The fields that are asked for.
    pub(crate) fn fields(&self) -> Vec<&str> {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().flat_map(Self::fields).collect(),
            Self::Not(filter) => filter.fields(),
            Self::Compare(field, ..)
            | Self::In(field, _)
            | Self::Contains(field, _)
            | Self::StartsWith(field, _) => vec![field],
            Self::Pending | Self::Conflicted | Self::Invalid(_) => Vec::new(),
        }
    }

    /// Whether it depends on more than what a document shows.
    pub(crate) fn asks_for_status(&self) -> bool {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().any(Self::asks_for_status),
            Self::Not(filter) => filter.asks_for_status(),
            Self::Pending | Self::Conflicted => true,
            Self::Compare(..)
            | Self::In(..)
            | Self::Contains(..)
            | Self::StartsWith(..)
            | Self::Invalid(_) => false,
        }
    }
}

impl Default for Query {
    fn default() -> Self {
        Self { filter: Filter::All(Vec::new()), order: Vec::new(), limit: u64::MAX, offset: 0 }
    }
}

impl Query {
    /// All documents, ordered by id.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition: all that were added must hold.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        match &mut self.filter {
            Filter::All(all) => all.push(filter),
            _ => self.filter = Filter::All(vec![self.filter, filter]),
        }
        self
    }

    /// Orders by a field, ascending; called again, documents that are equal so far are ordered by the next one, and at last
    /// by id.
    #[must_use]
    pub fn order_by(self, field: &str) -> Self {
        self.order(field, Order::Ascending)
    }

    /// Orders by a field.
    #[must_use]
    pub fn order(mut self, field: &str, order: Order) -> Self {
        self.order.push((field.to_owned(), order));
        self
    }

    /// The fields that it names.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let mut fields = self.filter.fields();
        fields.extend(self.order.iter().map(|(field, _)| field.as_str()));
        fields
    }

    /// At most so many documents.
    #[must_use]
    pub fn limit(mut self, documents: u64) -> Self {
        self.limit = documents;
        self
    }

    /// Leaves out the first so many documents.
    #[must_use]
    pub fn offset(mut self, documents: u64) -> Self {
        self.offset = documents;
        self
    }
}
