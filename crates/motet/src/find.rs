//! Finding documents: filters and order, full-text search, results that stay up to date.

mod live;
pub(crate) mod query;
pub(crate) mod words;

pub use live::LiveQuery;
pub use query::{Filter, Order, Query, field};
pub use words::{Hit, Snippet};
