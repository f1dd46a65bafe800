//! What happens to the relay, and who else talks to it.

use motet_proto::message::{Hello, Push};
use motet_proto::{DeviceId, DocumentId, Entry, Kind, Message, SpaceId, envelope, limits};

use super::{Step, World};
use crate::simulation::disk::Disk;

impl World {
    /// The relay ends, and comes back on what `disk` makes of its own.
    pub(in crate::simulation) fn change_relay(&mut self, disk: impl FnOnce(&mut Self) -> Disk) -> Step {
        for at in 0..self.nodes.len() {
            self.lose_connection(at);
        }
        let disk = disk(self);
        self.relay.stop();
        self.relay.disk = disk;
        self.relay.start().map_err(|error| format!("the relay does not start: {error}"))
    }

    pub(in crate::simulation) fn restart_relay(&mut self) -> Step {
        self.say("the relay is killed and started again".into());
        self.change_relay(|world| world.relay.disk.as_written())?;
        self.check_log()
    }

    pub(in crate::simulation) fn cut_relay_power_soon(&mut self) {
        let calls = 1 + self.below(40);
        self.say(format!("the relay loses power in {calls} calls"));
        self.relay.disk.die_after(calls);
    }

    pub(in crate::simulation) fn fill_relay_disk(&mut self) {
        let full = self.below(2) == 0;
        self.say(format!("the relay's disk is full: {full}"));
        self.relay.disk.set_full(full);
    }

    pub(in crate::simulation) fn back_up_relay(&mut self) -> Step {
        if !self.relay.is_up() {
            return Ok(());
        }
        self.say("the relay is backed up".into());
        self.backups.push((self.relay.disk.as_written(), self.relay.acknowledged.clone()));
        Ok(())
    }

    pub(in crate::simulation) fn restore_relay(&mut self) -> Step {
        if self.backups.is_empty() {
            return Ok(());
        }
        let at = self.below(self.backups.len() as u64) as usize;
        let (disk, acknowledged) = self.backups[at].clone();
        self.say(format!("the relay is restored from backup {at}"));
        self.change_relay(|world| {
            world.relay.acknowledged = acknowledged;
            disk.as_written()
        })?;
        self.check_log()
    }

    pub(in crate::simulation) fn wipe_relay(&mut self) -> Step {
        if self.below(2) == 0 {
            return Ok(());
        }
        self.say("the relay is wiped".into());
        self.change_relay(|world| {
            world.relay.acknowledged.clear();
            Disk::default()
        })
    }

    /// The retention time of everything that is superseded is over.
    pub(in crate::simulation) fn sweep_relay(&mut self) -> Step {
        if !self.relay.is_up() {
            return Ok(());
        }
        let swept = self.relay.sweep();
        self.say(format!("superseded entries leave the relay: {swept:?}"));
        self.swept += swept.unwrap_or_default();
        if self.relay.is_up() { self.check_log() } else { Ok(()) }
    }

    /// Somebody of the account sends what nobody can read.
    pub(in crate::simulation) fn poison(&mut self, at: usize) {
        if !self.relay.is_up() {
            return;
        }
        let known = self.known(at);
        let id = match known.is_empty() {
            true => "nowhere".to_owned(),
            false => known[self.below(known.len() as u64) as usize].clone(),
        };
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", &id);
        let body: Vec<u8> = (0..self.below(200)).map(|_| self.random.below(256) as u8).collect();
        let sealed = match self.below(3) {
            0 => body,
            1 => envelope::seal_plain(&body),
            _ => {
                let payload = motet_proto::payload::Payload {
                    collection: "pieces".into(),
                    name: id.clone(),
                    device_name: "stranger".into(),
                    preview: None,
                    body,
                };
                envelope::seal_plain(&payload.encode())
            }
        };
        let kind = match self.below(3) {
            0 => Kind::Changes,
            1 => Kind::Snapshot { heads: vec![[1; 32]], supersedes: Vec::new() },
            // [9, {}]: of a later version.
            _ => Kind::Other(vec![0x82, 0x09, 0xa0]),
        };
        let entry =
            Entry::new(SpaceId::DEFAULT, document, DeviceId([7; 16]), kind, envelope::SUITE_PLAIN, sealed);
        self.say(format!("a stranger sends poison for {id}"));
        self.poison += 1;
        let account = self.nodes[at].account.clone();
        self.send_raw(&account, Message::Push(Push { id: 1, entries: vec![entry] }), limits::VERSION_MAX);
    }

    /// A device of a later version comes by, and is told no.
    pub(in crate::simulation) fn speak_another_version(&mut self, at: usize) {
        let account = self.nodes[at].account.clone();
        self.say("a device of a later version calls".into());
        self.send_raw(&account, Message::Push(Push { id: 1, entries: Vec::new() }), limits::VERSION_MAX + 1);
    }

    pub(in crate::simulation) fn send_raw(&mut self, account: &str, message: Message, version: u16) {
        if !self.relay.is_up() {
            return;
        }
        let session = self.relay.accept(account);
        let hello = Hello {
            version_min: version,
            version_max: version,
            device: DeviceId([7; 16]),
            space: SpaceId::DEFAULT,
            agent: "stranger".into(),
            account: None,
            log: None,
        };
        for message in [Message::Hello(hello), message] {
            self.relay.take(session, &motet_proto::frame::encode(&message));
            // It is let in first, and answered.
            while self.relay.work(0) {}
            while self.relay.poll_frame(session).is_some() {}
        }
        self.relay.drop_session(session);
    }
}
