//! One oracle for every write: a model of a replica as plain JSON, and scripts from seeds that drive the real library beside it.
//!
//! After every step what the call promised is compared with what `list` shows, what SQL shows, what another process on the same
//! file shows, and what Automerge alone reads out of the stored changes; `verify` must find nothing, and a device is never in conflict
//! with itself. A script that fails is made shorter as long as it fails in the same way.

mod anew;
mod asks;
mod back;
mod bounds;
mod checks;
mod command;
mod deletes;
mod device;
mod fresh;
mod generate;
mod journal;
mod known;
mod model;
mod names;
mod network;
mod promises;
mod reading;
mod remember;
mod run;
mod script;
mod shrink;
mod writes;

pub use command::{Found, Generate, Search, command, search, try_one};
pub use generate::{alone, together};
pub use run::{Fault, play};
pub use script::{Act, Bounds, Choice, Declared, Fields, Kind, Policy, Script, Step, Write};
pub use shrink::shrink;
