//! What relays over one store tell each other: that a log has grown, and where devices are.
//!
//! A store is asked, it does not tell; so a relay hears through its notifier of what others have appended. One that is alone needs none.

#[cfg(feature = "nats")]
pub mod nats;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, BoxStream, StreamExt};
use motet_proto::Position;
use motet_proto::presence::Presence;
use tokio::sync::broadcast::{Sender, error::RecvError};

use crate::limits;
use crate::store::LogId;

/// Something that a relay has done to a log, for the others that serve it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// Entries were committed, and can be read from the store.
    Committed {
        /// The log.
        log: LogId,
        /// Sequence number of the first of them.
        first: u64,
        /// The place behind the last.
        position: Position,
    },
    /// A device of a log is somewhere else, or nowhere (its [`sealed`](Presence::sealed) is empty then). It is told again every
    /// [`PRESENT_SILENCE`](limits::PRESENT_SILENCE), and forgotten if it is not.
    Presence {
        /// A number of the relay to which the device is connected, as long as that relay runs.
        relay: u64,
        /// The log.
        log: LogId,
        /// The device, and where it is.
        presence: Arc<Presence>,
    },
    /// Somebody is connected for this log to a relay that knew nobody of it: the others tell it where their devices are.
    Asked {
        /// The log.
        log: LogId,
    },
    /// Some notices were lost. Whoever listens reads the logs.
    Missed,
}

/// The way from a relay to the others over the same store.
pub trait Notifier: Send + Sync + 'static {
    /// Tells the other relays. It does not wait: what cannot be passed on is dropped, and [`Notice::Missed`] takes its place for them.
    fn publish(&self, notice: Notice);

    /// What other relays tell from now on, without this one's own. Ends when there will be nothing more.
    fn subscribe(&self) -> BoxStream<'static, Notice>;
}

/// A relay that has its store for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Notifier for Alone {
    fn publish(&self, _: Notice) {}

    fn subscribe(&self) -> BoxStream<'static, Notice> {
        stream::empty().boxed()
    }
}

/// Relays in one process.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: Sender<(u64, Notice)>,
    next: Arc<AtomicU64>,
}

/// One relay's end of a [`Channel`].
#[derive(Clone, Debug)]
struct End {
    id: u64,
    sender: Sender<(u64, Notice)>,
}

impl Channel {
    /// A channel with no relay.
    pub fn new() -> Self {
        Self { sender: Sender::new(limits::HUB_RUNS), next: Arc::default() }
    }

    /// What another relay is configured with.
    pub fn join(&self) -> Arc<dyn Notifier> {
        Arc::new(End { id: self.next.fetch_add(1, Ordering::Relaxed), sender: self.sender.clone() })
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self::new()
    }
}

impl Notifier for End {
    fn publish(&self, notice: Notice) {
        // No other relay is no error.
        _ = self.sender.send((self.id, notice));
    }

    fn subscribe(&self) -> BoxStream<'static, Notice> {
        let own = self.id;
        stream::unfold(self.sender.subscribe(), move |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok((from, _)) if from == own => {}
                    Ok((_, notice)) => return Some((notice, receiver)),
                    Err(RecvError::Lagged(_)) => return Some((Notice::Missed, receiver)),
                    Err(RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}
