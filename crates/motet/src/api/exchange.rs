//! In and out: rows that another database holds, documents as JSONL, and change logs that people can read.

mod adopt;
mod automerge;
mod change_log;
mod import;
mod json;
mod lines;
mod refusal;

pub use adopt::{AdoptSummary, Adoption, KeyColumns};
pub use change_log::ChangeLogSummary;
pub use import::ImportSummary;
pub use json::{JsonError, parse_json};
pub use refusal::BadRows;
