//! What the examples share: a place for their files, and a relay in the same process.
//!
//! The tests of an app can do the same: [`InProcess`] is all that it takes to sync devices without a port or a server.

use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use motet::{Connector, FrameChannel, Relay, Replica, SyncError};
use motet_relay::{Config, ConnectError, Embedded, RunError};

/// What an example's `main` returns: an error ends it with exit code 1.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A folder of its own for the files of an example, and the relay that its devices meet at. All of it goes when this is dropped.
pub struct Stage {
    relay: Relay,
    folder: tempfile::TempDir,
}

impl Stage {
    /// The relay is at the address that the program was given as its first argument, if any, and has nothing of this account yet; else it
    /// runs in this process.
    ///
    /// # Errors
    /// If the folder cannot be made, or the relay does not start.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::Builder::new().prefix("motet-example-").tempdir()?;
        let relay = match std::env::args().nth(1) {
            Some(url) => Relay::new(&url),
            None => Relay::through("example", InProcess::start(Config::in_memory())?),
        };
        Ok(Self { relay, folder })
    }

    /// A device with a file of its own.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn device(&self, name: &str) -> Result<Replica, motet::OpenError> {
        Replica::builder(self.path(&format!("{name}.db"))).device_name(name).open()
    }

    /// A file of the example.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The relay.
    pub fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Each of the devices syncs once, in turn, and says what came of it.
    ///
    /// # Errors
    /// As [`Replica::sync_now`] has them.
    pub fn sync(&self, devices: &[&Replica]) -> Outcome {
        for device in devices {
            device.connect(self.relay())?;
            println!("{:<7} {}", device.device_name(), device.sync_now()?);
            device.disconnect();
        }
        Ok(())
    }
}

/// Connects devices to a relay in the same process.
#[derive(Clone)]
pub struct InProcess(Arc<Embedded>);

impl InProcess {
    /// Starts a relay.
    ///
    /// # Errors
    /// If its data cannot be opened, or no thread started.
    pub fn start(config: Config) -> Result<Self, RunError> {
        Ok(Self(Arc::new(Embedded::start(config)?)))
    }
}

impl Connector for InProcess {
    fn connect(
        &self,
        token: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Result<FrameChannel, SyncError>> + Send>> {
        let connecting = self.0.connect(token.as_deref());
        Box::pin(async move {
            match connecting.await {
                Ok((outgoing, incoming)) => Ok(FrameChannel::new(outgoing, incoming.map(Ok))),
                Err(ConnectError::Unauthorized(reason)) => Err(SyncError::AuthNeeded { reason }),
                Err(error) => Err(SyncError::Offline { reason: error.to_string(), retry_after: None }),
            }
        })
    }
}

/// Says what holds, or ends the example with it.
///
/// # Errors
/// If it does not hold.
pub fn check(holds: bool, what: &str) -> Outcome {
    match holds {
        true => {
            println!("✓ {what}");
            Ok(())
        }
        false => Err(format!("this does not hold: {what}").into()),
    }
}
