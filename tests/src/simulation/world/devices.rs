//! What happens to devices.

use super::{Step, World};
use crate::simulation::disk::{Disk, Fault, Left};
use crate::simulation::node::Node;

impl World {
    pub(in crate::simulation) fn join(&mut self, account: &str) {
        if self.nodes.len() >= self.devices {
            return;
        }
        self.names += 1;
        let name = format!("device{:02}", self.names);
        self.say(format!("{name} of {account} joins"));
        let mount = format!("{:012}-{name}", self.life);
        self.nodes.push(Node::new(name, account, &mount, Disk::default()));
    }

    /// One more, however many there are.
    pub(in crate::simulation) fn join_late(&mut self, account: &str) {
        self.devices = self.nodes.len() + 1;
        self.join(account);
    }

    /// The file is copied by hand, edits that were not sent among the rest; original and copy both go on.
    pub(in crate::simulation) fn copy(&mut self, at: usize) {
        if self.nodes.len() >= self.devices {
            return;
        }
        self.names += 1;
        let name = format!("device{:02}", self.names);
        let node = &self.nodes[at];
        let (account, disk) = (node.account.clone(), node.disk.as_written());
        self.say(format!("{} is copied to {name}", self.nodes[at].name));
        let mount = format!("{:012}-{name}", self.life);
        let own: Vec<_> = self
            .own
            .iter()
            .filter(|((of, _), _)| *of == self.nodes[at].name)
            .map(|((_, id), m)| (id.clone(), m.clone()))
            .collect();
        for (id, marks) in own {
            self.own.insert((name.clone(), id), marks);
        }
        self.nodes.push(Node::new(name, &account, &mount, disk));
    }

    pub(in crate::simulation) fn restart(&mut self, at: usize) -> Step {
        self.lose_connection(at);
        if self.below(2) == 0 {
            self.say(format!("{} is closed", self.nodes[at].name));
            self.nodes[at].close();
        } else {
            self.say(format!("{} is killed", self.nodes[at].name));
            self.nodes[at].come_back_after_kill();
        }
        self.check_own(at)
    }

    pub(in crate::simulation) fn cut_power_soon(&mut self, at: usize) {
        let calls = 1 + self.below(60);
        self.say(format!("{} loses power in {calls} calls", self.nodes[at].name));
        self.nodes[at].disk.die_after(calls);
    }

    pub(in crate::simulation) fn look_after_power_cuts(&mut self) -> Step {
        for at in 0..self.nodes.len() {
            if self.nodes[at].disk.is_dead() {
                self.lose_connection(at);
                let left = Left::EVERY[self.below(4) as usize];
                self.say(format!(
                    "{} comes back, of what was not synced there is: {left:?}",
                    self.nodes[at].name
                ));
                self.nodes[at].come_back_after_power_cut(left, &mut self.random);
                self.check_own(at)?;
            }
        }
        if self.relay.disk.is_dead() {
            let left = Left::EVERY[self.below(4) as usize];
            self.say(format!("the relay comes back, of what was not synced there is: {left:?}"));
            self.change_relay(|world| world.relay.disk.after_power_cut(left, &mut world.random))?;
            self.check_log()?;
        }
        Ok(())
    }

    pub(in crate::simulation) fn fill_disk(&mut self, at: usize) {
        let full = self.below(2) == 0;
        self.say(format!("the disk of {} is full: {full}", self.nodes[at].name));
        self.nodes[at].disk.set_full(full);
    }

    /// One call of the disk fails.
    pub(in crate::simulation) fn stumble(&mut self, at: usize) {
        let disk = &self.nodes[at].disk;
        let call = disk.calls() + 1 + self.random.below(20);
        disk.fail_at(call, Fault::Io);
        self.say(format!("{} stumbles soon", self.nodes[at].name));
    }

    pub(in crate::simulation) fn turn_clock(&mut self, at: usize) {
        let years = self.below(21) as i64 - 10;
        self.say(format!("the clock of {} jumps by {years} years", self.nodes[at].name));
        self.nodes[at].turn_clock(years * 31_557_600_000);
    }

    pub(in crate::simulation) fn lock_out(&mut self, at: usize) {
        self.nodes[at].locked_out ^= true;
        self.say(format!("{} is locked out: {}", self.nodes[at].name, self.nodes[at].locked_out));
        self.lose_connection(at);
    }
}
