//! Notices through NATS, for relays over one database on several machines.
//!
//! Notices are hints: what they tell of can be read from the store, and every relay also looks there by itself. So they are published without waiting
//! for an acknowledgement, none is kept for later, and a server that is away delays news and loses nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{Client, ConnectOptions, Event, Subject};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use minicbor::{Decode, Encode};
use motet_proto::presence::Presence;
use motet_proto::{Position, RelayId, SpaceId};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Notice, Notifier};
use crate::limits;
use crate::store::LogId;

/// Why a relay does not notify others through NATS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// The file of credentials cannot be read.
    #[error("the credentials for NATS cannot be read from {path}: {reason}")]
    Credentials {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The address is not valid.
    #[error("the address of NATS cannot be used: {0}")]
    Address(String),
}

/// The end of one relay.
pub struct Nats {
    publish: mpsc::Sender<Notice>,
    /// Some of what was published was dropped, and the others have not heard so yet.
    dropped: Arc<AtomicBool>,
    received: broadcast::Sender<Notice>,
    tasks: [AbortHandle; 2],
}

/// A notice on the way. Numbers stay what they are; unknown ones are passed over.
#[derive(Debug, Encode, Decode)]
enum Written {
    #[n(0)]
    Committed {
        #[n(0)]
        account: String,
        #[n(1)]
        space: SpaceId,
        #[n(2)]
        first: u64,
        #[n(3)]
        position: Position,
    },
    #[n(1)]
    Presence {
        #[n(0)]
        relay: u64,
        #[n(1)]
        account: String,
        #[n(2)]
        space: SpaceId,
        #[n(3)]
        presence: Presence,
    },
    #[n(2)]
    Asked {
        #[n(0)]
        account: String,
        #[n(1)]
        space: SpaceId,
    },
    #[n(3)]
    Missed,
}

impl Nats {
    /// Connects to the server of an address, such as `nats://nats.internal:4222` or `tls://user:secret@nats.internal`, for the relays over the store `store`. Returns at once: a server
    /// that is not there is tried again and again. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`NatsError`] if the address is not valid, or the file of credentials cannot be read.
    pub async fn connect(
        url: &str,
        credentials: Option<&Path>,
        store: RelayId,
    ) -> Result<Arc<dyn Notifier>, NatsError> {
        let (received, _) = broadcast::channel(limits::HUB_RUNS * limits::HUB_RUNS);
        let (publish, queue) = mpsc::channel(limits::NATS_QUEUED);
        let dropped = Arc::new(AtomicBool::new(false));
        let mut options = ConnectOptions::new().name("motet-relay").no_echo().retry_on_initial_connect();
        if let Some(path) = credentials {
            let unread = |e: std::io::Error| NatsError::Credentials {
                path: path.display().to_string(),
                reason: e.to_string(),
            };
            options = options.credentials_file(path).await.map_err(unread)?;
        }
        let events = received.clone();
        let options = options.event_callback(move |event| {
            let missed = match event {
                Event::Connected | Event::SlowConsumer(_) => {
                    tracing::info!(%event, "NATS");
                    true
                }
                event => {
                    tracing::warn!(%event, "NATS");
                    false
                }
            };
            if missed {
                // Whatever was told meanwhile has not come.
                _ = events.send(Notice::Missed);
            }
            std::future::ready(())
        });
        let client = options.connect(url).await.map_err(|e| NatsError::Address(e.to_string()))?;
        let subject = Subject::from(format!("motet.{store}.notices"));
        let tasks = [
            tokio::spawn(send(client.clone(), subject.clone(), queue, dropped.clone())).abort_handle(),
            tokio::spawn(receive(client, subject, received.clone())).abort_handle(),
        ];
        Ok(Arc::new(Self { publish, dropped, received, tasks }))
    }
}

impl Notifier for Nats {
    fn publish(&self, notice: Notice) {
        if self.publish.try_send(notice).is_err() {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    fn subscribe(&self) -> BoxStream<'static, Notice> {
        stream::unfold(self.received.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(notice) => Some((notice, receiver)),
                Err(RecvError::Lagged(_)) => Some((Notice::Missed, receiver)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Publishes what is queued. While the server is away nothing leaves the queue, and what does not fit is dropped.
async fn send(client: Client, subject: Subject, mut queue: mpsc::Receiver<Notice>, dropped: Arc<AtomicBool>) {
    while let Some(notice) = queue.recv().await {
        for notice in
            dropped.swap(false, Ordering::Relaxed).then_some(Notice::Missed).into_iter().chain([notice])
        {
            let bytes = minicbor::to_vec(Written::from(notice)).unwrap_or_default();
            if let Err(error) = client.publish(subject.clone(), bytes.into()).await {
                tracing::warn!(%error, "a notice was not published");
                dropped.store(true, Ordering::Relaxed);
            }
        }
    }
}

async fn receive(client: Client, subject: Subject, received: broadcast::Sender<Notice>) {
    loop {
        let mut messages = match client.subscribe(subject.clone()).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(%error, "notices cannot be received");
                tokio::time::sleep(limits::ANEW_AFTER).await;
                continue;
            }
        };
        _ = received.send(Notice::Missed);
        while let Some(message) = messages.next().await {
            match minicbor::decode::<Written>(&message.payload) {
                // Nobody listens before the relay serves, which is no error.
                Ok(written) => _ = received.send(written.into()),
                Err(error) => tracing::debug!(%error, "a notice cannot be read"),
            }
        }
    }
}

impl From<Notice> for Written {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Committed { log: LogId { account, space }, first, position } => {
                Self::Committed { account, space, first, position }
            }
            Notice::Presence { relay, log: LogId { account, space }, presence } => {
                Self::Presence { relay, account, space, presence: Arc::unwrap_or_clone(presence) }
            }
            Notice::Asked { log: LogId { account, space } } => Self::Asked { account, space },
            Notice::Missed => Self::Missed,
        }
    }
}

impl From<Written> for Notice {
    fn from(written: Written) -> Self {
        match written {
            Written::Committed { account, space, first, position } => {
                Self::Committed { log: LogId { account, space }, first, position }
            }
            Written::Presence { relay, account, space, presence } => {
                Self::Presence { relay, log: LogId { account, space }, presence: Arc::new(presence) }
            }
            Written::Asked { account, space } => Self::Asked { log: LogId { account, space } },
            Written::Missed => Self::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_way_stays_as_it_is() {
        let log = LogId { account: "keʻala".into(), space: SpaceId::DEFAULT };
        let position = Position { seq: 7, tag: [3; 16] };
        let notice = Notice::Committed { log, first: 6, position };
        let bytes = minicbor::to_vec(Written::from(notice)).unwrap();
        assert_eq!(bytes[..2], [0x82, 0x00], "golden: a notice is its number and an array");
        let written: Written = minicbor::decode(&bytes).unwrap();
        let Notice::Committed { log, first, position: read } = written.into() else { panic!() };
        assert_eq!((log.account.as_str(), first, read), ("keʻala", 6, position));
        // As a later version may have it.
        assert!(minicbor::decode::<Written>(&[0x82, 0x18, 0x63, 0x80]).is_err());
    }
}
