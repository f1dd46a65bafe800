//! A relay whose tasks run when they are told to, on a clock that is moved by hand: a simulation decides itself what happens when. For the
//! project's own tests: nothing here is stable.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::doors::Doors;
use crate::embedded::{self, ConnectError};
use crate::server::{self, Config, Opened, RunError};
use crate::state::Relay;

/// How often each task that can go on does so in a turn: from a frame to what is sent because of it, it passes a few of them.
const TURNS: usize = 8;

/// The time of day, which stands still: milliseconds since 1970.
const TIME_MS: i64 = 1_780_000_000_000;

/// A relay without a listener and without threads of its own.
pub struct Stepped {
    relay: Arc<Relay>,
    doors: Arc<Doors>,
    now: Duration,
    /// What a relay does by itself now and then. Nothing of it is done here; it holds what tasks hear of.
    _care: Pin<Box<dyn Future<Output = ()> + Send>>,
    _stop: watch::Sender<bool>,
    /// The last: the tasks go with it.
    runtime: Runtime,
}

/// A connection of a device.
pub struct Wire {
    to_relay: mpsc::Sender<Vec<u8>>,
    from_relay: mpsc::Receiver<Vec<u8>>,
}

impl Stepped {
    /// Opens the data.
    ///
    /// # Errors
    /// [`RunError::Store`] if the data cannot be used.
    pub fn start(config: Config, now: Duration) -> Result<Self, RunError> {
        let Opened { relay, stop, care } = server::open(config, u64::MAX, || Some(TIME_MS))?;
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        Ok(Self { relay, doors: Doors::new(u64::MAX), now, _care: Box::pin(care), _stop: stop, runtime })
    }

    /// Connects a device.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is connected then.
    pub fn connect(&self, token: Option<&str>) -> Result<Wire, ConnectError> {
        let open = embedded::open(self.relay.clone(), self.doors.clone(), token.map(str::to_owned));
        let (to_relay, from_relay) = self.runtime.block_on(open)?;
        Ok(Wire { to_relay, from_relay })
    }

    /// The next run that is committed gets lost on its way to the other sessions; they hear only that something was.
    pub fn lose_next(&self) {
        self.relay.hub.lose_next();
    }

    /// Lets all tasks go on at a time, as far as they get without anybody.
    pub fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        self.runtime.block_on(async {
            if !passed.is_zero() {
                tokio::time::advance(passed).await;
            }
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Wire {
    /// A frame arrives at the relay. It is lost if the wire [is full](Self::is_full).
    pub fn send(&self, frame: Vec<u8>) {
        _ = self.to_relay.try_send(frame);
    }

    /// Whether the relay has not taken yet what was sent before.
    pub fn is_full(&self) -> bool {
        self.to_relay.capacity() == 0
    }

    /// Whether something that was sent, in either direction, was not taken yet.
    pub fn is_busy(&self) -> bool {
        self.to_relay.capacity() < self.to_relay.max_capacity() || !self.from_relay.is_empty()
    }

    /// The next frame for the device.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        self.from_relay.try_recv().ok()
    }

    /// Whether the relay has ended the connection, and nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.from_relay.is_closed() && self.from_relay.is_empty()
    }
}
