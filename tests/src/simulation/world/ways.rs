//! What happens between a device and the relay.

use std::time::Duration;

use super::World;

impl World {
    pub(in crate::simulation) fn connect(&mut self, at: usize) {
        if self.nodes[at].link.is_some() || self.nodes[at].locked_out || !self.relay.is_up() {
            return;
        }
        let session = self.relay.accept(&self.nodes[at].account);
        let now = self.now;
        let begun = self.nodes[at].begin_session(session, now);
        self.say(format!("{} connects: {begun:?}", self.nodes[at].name));
        if begun.is_err() {
            self.relay.drop_session(session);
        }
    }

    pub(in crate::simulation) fn hang_up(&mut self, at: usize) {
        if self.nodes[at].link.is_some() {
            self.say(format!("{} hangs up", self.nodes[at].name));
            self.lose_connection(at);
        }
    }

    /// The connection breaks. Some of what was on its way still arrives at the relay.
    pub(in crate::simulation) fn lose_connection(&mut self, at: usize) {
        let now = self.now;
        if let Some(mut session) = self.nodes[at].session.take() {
            session.lose(now);
        }
        let Some(mut link) = self.nodes[at].link.take() else { return };
        for _ in 0..self.below(link.up.len() as u64 + 1) {
            if let Some(frame) = link.up.pop_front() {
                self.relay.take(link.session, &frame);
            }
        }
        self.relay.drop_session(link.session);
    }

    pub(in crate::simulation) fn leave_link_deaf(&mut self, at: usize) {
        let up = self.below(2) == 0;
        if let Some(link) = &mut self.nodes[at].link {
            (link.deaf_up, link.deaf_down) = (link.deaf_up || up, link.deaf_down || !up);
            self.say(format!("{}'s way {} is deaf", self.nodes[at].name, if up { "up" } else { "down" }));
        }
    }

    pub(in crate::simulation) fn stall(&mut self, at: usize) {
        if let Some(link) = &mut self.nodes[at].link {
            link.is_stalled = true;
            self.say(format!("{} takes nothing for a while", self.nodes[at].name));
        }
    }

    /// Some of those that took nothing take something again.
    pub(in crate::simulation) fn release_some(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].link.as_ref().is_some_and(|link| link.is_stalled) && self.below(12) == 0 {
                self.nodes[at].link.iter_mut().for_each(|link| link.is_stalled = false);
                self.say(format!("{} goes on", self.nodes[at].name));
            }
        }
    }

    pub(in crate::simulation) fn pass_time(&mut self) {
        let seconds = [1, 6, 31][self.below(3) as usize];
        self.now += Duration::from_secs(seconds);
        for at in 0..self.nodes.len() {
            self.take_timeout(at);
        }
    }

    pub(in crate::simulation) fn take_timeout(&mut self, at: usize) {
        let now = self.now;
        let Some(session) = &mut self.nodes[at].session else { return };
        session.pass_time(now);
        if session.ended().is_some() {
            self.lose_connection(at);
        }
    }

    /// One small thing on one connection. False if there was nothing to do on it.
    pub(in crate::simulation) fn micro_step(&mut self) -> Result<bool, String> {
        let at = self.below(self.nodes.len() as u64) as usize;
        self.step_link(at)
    }

    pub(in crate::simulation) fn step_link(&mut self, at: usize) -> Result<bool, String> {
        self.now += Duration::from_micros(self.random.below(2_000));
        let now = self.now;
        let harm = self.harm;
        self.relay.pass_time(now);
        let choice = self.below(5);
        let detail = self.below(1 << 20);
        let node = &mut self.nodes[at];
        let (Some(session), Some(link)) = (&mut node.session, &mut node.link) else {
            if node.link.is_some() {
                self.lose_connection(at);
            }
            return Ok(false);
        };
        while let Some(message) = session.poll_message() {
            link.up.push_back(motet_proto::frame::encode(&message));
        }
        if !link.is_stalled {
            // One at a time: whoever is not chosen for long falls behind.
            link.down.extend(self.relay.poll_frame(link.session));
        }
        let mut noted = Vec::new();
        let done = match choice {
            0 if !link.up.is_empty() && !self.relay.is_saturated(link.session) => {
                if let Some(frame) = harm.next(&mut link.up, &mut self.random)
                    && !link.deaf_up
                {
                    noted = frame;
                    self.relay.take(link.session, &noted);
                }
                true
            }
            1 if !link.down.is_empty() && !session.is_saturated() => {
                match harm.next(&mut link.down, &mut self.random).filter(|_| !link.deaf_down) {
                    None => true,
                    Some(frame) => {
                        noted = frame;
                        let message = motet_proto::frame::decode(&noted);
                        let is_whole = message.is_ok();
                        message.into_iter().for_each(|message| session.take(message, now));
                        is_whole
                    }
                }
            }
            2 => self.relay.work(detail),
            3 => session.work(detail, now),
            _ => false,
        };
        let broken = (choice == 1 && !done && !noted.is_empty())
            || session.ended().is_some()
            || !self.relay.is_open(link.session);
        if let Some(why) = session.ended().map(str::to_owned) {
            self.say(format!("the session of {} ends: {why}", self.nodes[at].name));
        }
        self.note(&noted);
        if broken {
            self.lose_connection(at);
        }
        Ok(done)
    }
}
