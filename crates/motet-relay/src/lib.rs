//! The relay: passes changes between the devices of an account, and keeps them until a device asks.
//!
//! It is blind to content. For each (account, space) it keeps an append-only log of entries: it checks an entry's
//! id, makes it durable, gives it the next sequence number, drops duplicates, and hands out what lies after a
//! position, at once to those who are connected.
//!
//! ```text
//! accept     connections: deadlines and places before it is known who speaks (doors)
//!   │
//! server     HTTP: /healthz, /readyz, /v1/sync as WebSocket or POST, sign-in, stopping
//!   │        accounts: sessions and how much they send; strangers: wrong tokens; config: all limits
//!   │
//! session    one connection: motet_proto::session::RelaySession joined with store and hub
//!   │   ╲
//! store  hub   the log of each space; who else is connected to it
//! ```
//!
//! **Architecture invariants:** an entry is handed out only after it is durable; nothing here knows Automerge or the
//! library `motet`; a slow reader is never waited for; logs name no content and no token.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let config = motet_relay::Config::new("relay-data");
//! motet_relay::run(listener, config, std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```

mod accept;
pub mod access;
mod accounts;
pub mod auth;
pub mod config;
#[cfg(feature = "console")]
pub mod console;
pub mod directory;
mod doors;
mod embedded;
mod erasure;
pub mod export;
#[cfg(feature = "metrics")]
mod exporter;
mod health;
mod hub;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod notifier;
#[cfg(feature = "oidc")]
pub mod oidc;
mod outgoing;
pub mod own_account;
mod own_routes;
mod registration;
pub mod reload;
mod requests;
mod routes;
mod server;
mod session;
pub mod sharing;
#[cfg(feature = "simulation")]
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "for tests of this workspace")]
pub mod simulation;
mod spaces;
mod state;
pub mod store;
mod strangers;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod terminal;
#[cfg(feature = "tls")]
pub mod tls;

pub use embedded::{ConnectError, Embedded};
#[cfg(feature = "metrics")]
pub use exporter::serve_metrics;
pub use motet_proto::SpaceId;
pub use server::{Config, RunError, Storage, run};

/// A runtime fit for a relay: a worker for every core but one, which is for what is written and read for many. On two cores that is
/// one, and sessions then wake each other without waking a core.
///
/// # Errors
/// As the system has them when threads are started.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads((cores - 1).max(1)).enable_all().build()
}

/// Installs a log writer that prints to stderr what `RUST_LOG` asks for, by default warnings and the relay's own
/// news. Does nothing if one is installed already. When nobody takes the log any more, it is lost, and the relay goes on.
/// Colours are for terminals alone.
#[cfg(feature = "cli")]
pub fn init_logging() {
    terminal::init_logging(LOGGED);
}

/// The same with a JSON object on each line, for programs that collect logs.
#[cfg(feature = "cli")]
pub fn init_json_logging() {
    terminal::init_json_logging(LOGGED);
}

/// What is logged if `RUST_LOG` asks for nothing else.
#[cfg(feature = "cli")]
const LOGGED: &str = "warn,motet_relay=info";
