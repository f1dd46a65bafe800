//! A relay in this process, and rounds with it: the real session state machines and stores, without sockets.

use std::time::Duration;

use motet::simulation::Session;
use motet_proto::frame;

use super::device::Device;
use super::fresh;
use crate::random::Random;
use crate::simulation::disk::Disk;
use crate::simulation::relay::SimRelay;

/// What devices call the relay.
const RELAY: &str = "simulated";

/// Time stands still during a round.
const NOW: Duration = Duration::from_secs(1);

/// Steps of a round; it needs about a hundred.
const PATIENCE: usize = 20_000;

/// Whose log it is.
const ACCOUNT: &str = "hana";

/// The relay.
pub(super) struct Network {
    relay: SimRelay,
    random: Random,
}

impl Network {
    /// A relay with an empty log, on a disk in memory that is mounted as `mount`.
    ///
    /// # Errors
    /// What the relay says.
    pub(super) fn new(mount: &str) -> Result<Self, String> {
        let start = |disk: &Disk| {
            let mut relay = SimRelay::on(mount.to_owned(), disk.clone());
            relay.start().map(|()| relay)
        };
        let disk = fresh::disk(mount, 1, |disk| start(disk).map(drop)).map_err(|error| error.to_string())?;
        Ok(Self { relay: start(&disk).map_err(|error| error.to_string())?, random: Random(1) })
    }

    /// A round of one device: everything it has goes up, everything that is there comes down.
    ///
    /// # Errors
    /// What went wrong.
    pub(super) fn round(&mut self, device: &Device) -> Result<(), String> {
        let id = self.relay.accept(ACCOUNT);
        let done = self.exchange(device, id);
        self.relay.drop_session(id);
        done
    }

    fn exchange(&mut self, device: &Device, id: u64) -> Result<(), String> {
        let session = Session::begin(device.replica(), RELAY, false, NOW);
        let mut session = session.map_err(|error| format!("a round fails: {error}"))?;
        session.request_round(1, NOW);
        let (mut done, mut quiet) = (false, 0);
        for _ in 0..PATIENCE {
            let mut busy = session.work(self.random.below(8), NOW);
            while let Some(message) = session.poll_message() {
                self.relay.take(id, &frame::encode(&message));
                busy = true;
            }
            busy |= self.relay.work(self.random.below(8));
            if !session.is_saturated()
                && let Some(frame) = self.relay.poll_frame(id)
            {
                let message = frame::decode(&frame).map_err(|error| error.to_string())?;
                session.take(message, NOW);
                busy = true;
            }
            done |= session.poll_done() == Some(1);
            if let Some(why) = session.ended() {
                return Err(format!("the session ends: {why}"));
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if done && session.is_idle() && quiet > 2 {
                return Ok(());
            }
            if quiet > 100 {
                return Err("the round does not end, and nothing is under way".into());
            }
        }
        Err("the round does not end".into())
    }
}
