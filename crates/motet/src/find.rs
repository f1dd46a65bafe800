//! Finding documents: filters and order, full-text search, results that stay up to date.

mod fold;
mod listed;
mod live;
mod names;
mod path;
pub(crate) mod query;
mod snippet;
pub(crate) mod words;

pub use listed::{Hits, Listed, Misfit, Records};
pub use live::LiveQuery;
pub(crate) use names::near_name;
pub(crate) use path::FieldPath;
pub use query::{Filter, Order, Query, field};
pub(crate) use snippet::each_text;
pub use snippet::{Hit, Snippet};
