//! The wire of Motet, without any input or output of its own.
//!
//! A *space* is an append-only log on its remote; the unit of the log is an [`Entry`]. The remote is blind to what
//! an entry holds: it checks the id, gives the entry the next sequence number, drops duplicates by id and hands out
//! what lies after a [`Position`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | space, document, device and entry ids |
//! | [`entry`] | the unit of the log, its kinds and its content-derived id |
//! | [`envelope`] | the suite id and the sealed payload that only devices open |
//! | [`payload`] | what devices put into an entry |
//! | [`presence`] | where a device is at present: never stored |
//! | [`position`] | a place in a log that cannot be mistaken for a place in another log |
//! | [`message`], [`frame`] | what the two sides say, and its bytes |
//! | [`device_key`] | the key of a device, and the tokens that it signs |
//! | [`session`] | both sides of a connection as state machines: events and `now` in, effects out |
//! | [`limits`] | every size, count and time that the protocol fixes, with its reason |
//!
//! **Architecture invariant:** nothing here opens a socket or a file, reads a clock or draws a random number. What a
//! session does is a function of the events it was given, so a simulation can replay any run.

/// A relay marks its HTTP answers with this header, so that nobody else's are taken for them: a portal's, a proxy's.
pub const RELAY_HEADER: &str = "motet-relay";

pub mod device_key;
pub mod entry;
pub mod envelope;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod packing;
pub mod payload;
#[doc(hidden)]
pub mod planted;
pub mod position;
pub mod presence;
pub mod session;

pub use entry::{Entry, Kind};
pub use ids::{AccountId, DeviceId, DocumentId, EntryId, LogName, RelayId, SpaceId};
pub use message::Message;
pub use position::Position;
