//! What is looked for: filters and order, paths of fields, words of the full-text index. It knows no store and no document.

mod filter;
mod fold;
mod names;
mod path;
mod snippet;
pub(crate) mod words;

pub use filter::{Comparison, FieldRef, Filter, Order, Query, field};
pub(crate) use fold::is_okina;
pub(crate) use names::near_name;
pub(crate) use path::FieldPath;
pub use snippet::Snippet;
pub(crate) use snippet::each_text;
