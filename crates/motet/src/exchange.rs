//! In and out: rows that another database holds, and change logs that people can read.

mod adopt;
mod change_log;

pub use adopt::{AdoptSummary, Adoption};
pub use change_log::ChangeLogSummary;
