//! A seeded simulation of whole spaces: the session state machines of both sides and both real stores, on disks in memory.
//!
//! Nothing in it depends on anything but the seed: one thread, a clock that is moved by hand, randomness that is drawn from the
//! seed also inside the library. What happens between two calls (a message that is lost, doubled or torn, a power cut, a full
//! disk, a relay that is restored from a backup) is drawn as well. In the end the faults stop, and what
//! `checks` says must hold.

mod checks;
mod command;
pub mod disk;
mod network;
mod node;
pub(crate) mod relay;
pub mod script;
mod store;
pub mod vfs;
mod world;

pub use command::{Search, command, search};
pub use world::{Failure, Outcome, run};
