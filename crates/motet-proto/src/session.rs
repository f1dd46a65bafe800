//! Both sides of a connection as state machines without input or output.
//!
//! A driver feeds events (`handle_*`, with `now` where time matters), carries out the effects that `poll_effect`
//! hands out, in order, and reports back what came of them. Sockets, disks and clocks live in the drivers.
//!
//! ```text
//! device                                    relay
//!   Hello ─────────────────────────────────▶
//!   ◀───────────────────────────── Welcome
//!   Pull{after, live} ─────────────────────▶  read the log
//!   ◀──────────────────── Page{more: true}
//!   Pull{after} ───────────────────────────▶   … until more = false, then live
//!   Push{entries} ─────────────────────────▶  append, fsync
//!   ◀──────────── Receipt{outcomes, position}
//!   ◀───────────────── Page{id: None}          whatever other devices commit
//!   Fetch{document} ───────────────────────▶  out of turn: what the log holds of one document
//!   ◀──────────── Fetched{entries | listed}
//! ```

mod client;
mod relay;

pub use client::{ClientEffect, ClientSession, EndReason, NO_ROW, OutboxBatch, OutboxItem, StoredReceipt};
pub use relay::{AppendOutcome, CommittedRun, DocumentPage, Opened, ReadOutcome, RelayEffect, RelaySession};

#[cfg(test)]
mod tests;
