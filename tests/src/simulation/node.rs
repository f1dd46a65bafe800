//! A device: its disk, its replica and the session it has.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use motet::simulation::{self, Session};
use motet::{Field, FieldKind, OpenError, Replica, Schema};

use super::disk::{Disk, Left};
use super::network::Link;
use super::vfs::Mount;
use crate::random::Random;

/// What devices call the relay.
pub(super) const RELAY: &str = "simulated";

/// A day in 2026, in milliseconds since 1970.
const START_MS: i64 = 1_780_000_000_000;

pub(super) struct Node {
    pub(super) name: String,
    pub(super) account: String,
    pub(super) disk: Disk,
    mount: Mount,
    replica: Option<Replica>,
    pub(super) session: Option<Session>,
    pub(super) link: Option<Link>,
    /// Milliseconds that its clock shows.
    clock: Arc<AtomicI64>,
    /// Its token is not good at present.
    pub(super) locked_out: bool,
}

impl Node {
    pub(super) fn new(name: String, account: &str, mount: &str, disk: Disk) -> Self {
        let mount = Mount::new(mount, &disk);
        let clock = Arc::new(AtomicI64::new(START_MS));
        Self {
            name,
            account: account.to_owned(),
            disk,
            mount,
            replica: None,
            session: None,
            link: None,
            clock,
            locked_out: false,
        }
    }

    /// The replica, opened if it is not.
    pub(super) fn replica(&mut self) -> Result<Replica, OpenError> {
        if let Some(replica) = &self.replica {
            return Ok(replica.clone());
        }
        let replica = self.open()?;
        self.replica = Some(replica.clone());
        Ok(replica)
    }

    /// One more process on the same file.
    pub(super) fn open(&self) -> Result<Replica, OpenError> {
        let clock = self.clock.clone();
        let replica = Replica::builder(self.path())
            .purge_grace(Duration::ZERO)
            .device_name(&self.name)
            .clock(move || clock.fetch_add(1, Ordering::Relaxed))
            .open()?;
        let set =
            replica.apply_schema(&schema()).and_then(|()| replica.set_collection_sync("switched off", false));
        set.map_err(|error| OpenError::System(error.to_string()))?;
        Ok(replica)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.mount.path("motet.db")
    }

    pub(super) fn begin_session(&mut self, session: u64, now: Duration) -> Result<(), String> {
        let replica = self.replica().map_err(|error| error.to_string())?;
        self.session = Some(Session::begin(&replica, RELAY, true, now).map_err(|error| error.to_string())?);
        self.link = Some(Link { session, ..Link::default() });
        Ok(())
    }

    /// The process ends without a word.
    pub(super) fn stop(&mut self) {
        self.session = None;
        self.replica = None;
    }

    /// The process ends as it should.
    pub(super) fn close(&mut self) {
        self.session = None;
        if let Some(replica) = self.replica.take() {
            // A full disk may stand in the way; then it is done after the next start.
            _ = simulation::catch_up(&replica);
        }
    }

    /// The process was killed: what it wrote is there.
    pub(super) fn come_back_after_kill(&mut self) {
        let disk = self.disk.as_written();
        self.change_disk(disk);
    }

    /// The power was cut.
    pub(super) fn come_back_after_power_cut(&mut self, left: Left, random: &mut Random) {
        let disk = self.disk.after_power_cut(left, random);
        self.change_disk(disk);
    }

    pub(super) fn turn_clock(&self, by_ms: i64) {
        self.clock.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn change_disk(&mut self, disk: Disk) {
        self.stop();
        self.mount.change(&disk);
        self.disk = disk;
    }
}

fn schema() -> Schema {
    Schema::new()
        .text("pieces", "lyrics")
        .field("pieces", "plays", FieldKind::Counter)
        .field("pieces", "tags", FieldKind::Set)
        .field("pieces", "note", Field::register())
        .local("drafts")
}
